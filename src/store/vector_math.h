/*
 * Vector arithmetic of the exact index: unit vectors, dot products, the best few.  No I/O.
 * Cosine of two vectors is the dot product of their unit forms, so vectors are normalised once,
 * when they are stored.
 */
#ifndef NEXUS_STORE_VECTOR_MATH_H
#define NEXUS_STORE_VECTOR_MATH_H

#include "base/uuid.h"

/* False when it has no direction: zero, or not finite. */
must_check bool vector_normalise(const float *from, float *to, size_t dimension);
float vector_dot(const float *a, const float *b, size_t dimension);

/* The best `limit` of what is offered: by score downwards, then by id. */
struct ranked {
    float score;
    uuid id;
    size_t index; /* the caller's */
};
struct ranking {
    struct ranked *items; /* the caller's memory, `limit` of them, in order */
    size_t count, limit;
};
void ranking_offer(struct ranking *ranking, float score, uuid id, size_t index);

#endif
