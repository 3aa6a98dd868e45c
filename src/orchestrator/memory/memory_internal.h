/*
 * Memory's inside: shared by memory*.c.
 *
 *      memory.c         who may, what is stored, found, forgotten
 *      memory_embed.c   a text's way to its vector: content filter, governed call or built-in embedder
 *      memory_record.c  a point's metadata: content, label, embedder; and the JSON of answers
 */
#ifndef NEXUS_ORCHESTRATOR_MEMORY_INTERNAL_H
#define NEXUS_ORCHESTRATOR_MEMORY_INTERNAL_H

#include "base/limits.h"
#include "llm/embed_batch.h"
#include "orchestrator/memory/memory.h"

struct memory {
    struct orchestrator *o;
    struct vector_index *index;
    struct provider *built_in; /* NULL: `model` embeds */
    struct embed_batch *batch;
    str model;
    char model_text[MEMORY_MODEL_BYTES_MAX];
};

/* Name of what makes the vectors, as it stands in every point. */
str memory_embedder(const struct memory *memory);

/* What is to be embedded and stored, for one caller. */
struct memory_text {
    const struct principal *principal;
    uuid session_id; /* charged; UUID_NONE: the user alone */
    str text;
    str metadata; /* JSON or empty */
};
/* CONTENT_BLOCKED; else text and metadata as they may go on. */
may_suspend bool memory_filter(struct memory *memory, struct context *ctx, struct memory_text *text,
                               struct error *e);
/* The vector is on ctx's arena and has the index's dimension. */
may_suspend bool memory_embed(struct memory *memory, struct context *ctx,
                              const struct memory_text *text, const float **vector,
                              struct error *e);

/* What a point's metadata holds. */
str memory_record_text(struct arena *arena, const struct memory *memory,
                       const struct memory_item *item);
/* False when another embedder made it, or when it cannot be read. */
bool memory_record_read(struct arena *arena, const struct memory *memory,
                        const struct vector_point *point, struct memory_item *out);

#endif
