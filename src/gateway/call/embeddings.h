/*
 * Embeddings: POST /v1/embeddings in OpenAI's form, and vectors for the semantic cache.
 *
 * A request is read (pure, embeddings_read), then governed like every model call: rights, rate, policy, a reservation and a settlement
 * of its own; its texts travel with those of other callers of the same tenant (llm/embed_batch.h).  The answer names the model as it
 * was asked for; its usage is what was booked.  With `cache` on its rule a model's answers are kept (exact).
 * Thread: any loop.  Suspends: what is marked.
 */
#ifndef NEXUS_GATEWAY_EMBEDDINGS_H
#define NEXUS_GATEWAY_EMBEDDINGS_H

#include "gateway/gateway_internal.h"
#include "llm/provider.h"
#include "llm/semantic_cache.h"

struct embeddings_request {
    struct embed_request embed; /* model: as asked for */
    bool is_base64;
    int64_t tokens_bound;
};
/* REASON_SCHEMA names the member; REASON_TOO_LARGE past EMBED_INPUTS_MAX. */
must_check bool embeddings_read(struct arena *arena, const struct json *body,
                                struct embeddings_request *out, struct error *e);

/* May this model be asked for vectors?  By its rule, by its name, or because it is the stand-in, which can do both. */
bool embeddings_model_fits(const struct model *model);

/*
 * For a call that leads under a rule of mode SEMANTIC: is there an answer to a question that means the same?  The question's vector is
 * a governed call of the rule's embedder for the same caller.  True: *answer is it and *fill is taken.
 */
struct embeddings_lookup {
    struct api_call *call;
    const struct cache_key *key;
    const struct model_cache *rule;
    str scope_user; /* as in the key */
    enum dialect_id dialect;
    str model;
    uint64_t settings_version;
    const struct json *request;
};
may_suspend bool embeddings_find_similar(const struct embeddings_lookup *lookup,
                                         struct context *ctx, struct cache_fill **fill,
                                         struct cache_answer *answer);

#endif
