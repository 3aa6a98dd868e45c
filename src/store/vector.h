/*
 * Vectors: exact cosine search over a session's memory.  Collection `session_memory` of spec section 5.
 * Implementations: memory, sqlite (exact scan; later qdrant); all pass vector_contract.
 */
#ifndef NEXUS_STORE_VECTOR_H
#define NEXUS_STORE_VECTOR_H

#include "runtime/context.h"

struct vector_point {
    uuid id;
    uuid session_id;
    str user_id;
    int64_t timestamp_us;
    str content_type; /* message, tool_result, summary */
    str metadata;     /* JSON text, holds the content */
    const float *vector;
    double score; /* results only: cosine, higher is nearer */
};
struct vector_index;
struct vector_index_ops {
    const char *name;
    may_suspend bool (*upsert)(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               const struct vector_point *points, size_t count, struct error *e);
    /* nearest first, ties by id; session_id UUID_NONE: all of the user's; results on ctx's arena, without vectors */
    may_suspend bool (*search)(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               uuid session_id, str user_id, const float *vector, size_t limit,
                               struct vector_point **out, size_t *count, struct error *e);
    may_suspend bool (*forget)(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               uuid session_id, const uuid *ids, size_t count,
                               struct error *e); /* count 0: the whole session */
    /* NOT_FOUND; on ctx's arena, without its vector */
    may_suspend bool (*find)(struct vector_index *index, struct context *ctx, uuid tenant_id,
                             uuid id, struct vector_point *out, struct error *e);
    void (*destroy)(struct vector_index *index);
};
struct vector_index {
    const struct vector_index_ops *ops;
    size_t dimension; /* INVALID for vectors of another dimension */
    /* How many points a session (of one user) and a user may have; 0: any number.  An upsert that would go past is refused whole
       (QUOTA); set before the first use. */
    size_t session_points_max, user_points_max;
};
may_suspend bool vector_upsert(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               const struct vector_point *points, size_t count, size_t dimension,
                               struct error *e);
may_suspend bool vector_search(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               uuid session_id, str user_id, const float *vector, size_t dimension,
                               size_t limit, struct vector_point **out, size_t *count,
                               struct error *e);
may_suspend bool vector_forget(struct vector_index *index, struct context *ctx, uuid tenant_id,
                               uuid session_id, const uuid *ids, size_t count, struct error *e);
may_suspend bool vector_find(struct vector_index *index, struct context *ctx, uuid tenant_id,
                             uuid id, struct vector_point *out, struct error *e);
/* QUOTA when `count` points of a session or user are more than `max` (0: any number); for implementations. */
must_check bool vector_check_room(const char *whose, size_t count, size_t max, struct error *e);
void vector_destroy(struct vector_index *index);

#endif
