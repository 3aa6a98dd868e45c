/*
 * Semantic index of the response cache: which stored question is nearest to a new one.
 *
 * A question belongs to a scope: the digest of everything about the request but the words of its last user turn (tenant, user, dialect,
 * model, settings' version, all parameters, every earlier turn).  Only questions of the same scope are compared, so a neighbour never
 * comes from another conversation, another temperature or another user.  The index holds unit vectors and keys of the exact cache; an
 * answer that has left the cache is no neighbour any more.
 *
 * Exact search (dot products) over at most SEMANTIC_SCOPE_ENTRIES_MAX questions a scope; bounded in bytes over all scopes, the least
 * recently used scope loses its oldest question first.
 * Thread: any; one lock per shard of scopes.  Suspends: never.
 */
#ifndef NEXUS_LLM_SEMANTIC_CACHE_H
#define NEXUS_LLM_SEMANTIC_CACHE_H

#include "llm/response_cache.h"

struct semantic_question {
    struct cache_key key; /* of the exact cache */
    uint8_t scope[32];
    str text; /* of the last user turn; borrowed or on the arena it was made with */
};
/* False when the request is none to compare: tools, anything but text, no user turn at the end, a text over SEMANTIC_TEXT_BYTES_MAX,
   a reference to stored turns (previous_response_id), or a dialect that is not known.  `key` and the rest as for cache_key_make. */
bool semantic_question_make(struct arena *arena, const struct cache_key *key, str scope_user,
                            enum dialect_id dialect, str model, uint64_t settings_version,
                            const struct json *request, struct semantic_question *out);

struct semantic_cache;
struct semantic_cache *semantic_cache_create(size_t bytes_max);
void semantic_cache_destroy(struct semantic_cache *index); /* NULL is fine */
OWNED_DEFINE(semantic_cache)
/* Copies the vector; one with no direction is not kept.  A key that is there is replaced. */
void semantic_cache_add(struct semantic_cache *index, const struct semantic_question *question,
                        const float *vector, size_t dimension, int64_t expires_ns);
/* The nearest at or over `similarity` that has not expired; false when there is none. */
bool semantic_cache_find(struct semantic_cache *index, const uint8_t scope[32], const float *vector,
                         size_t dimension, double similarity, int64_t now_ns, struct cache_key *key,
                         double *found);
/* Forgets a question whose answer is gone. */
void semantic_cache_remove(struct semantic_cache *index, const uint8_t scope[32],
                           const struct cache_key *key);
size_t semantic_cache_bytes(struct semantic_cache *index);
size_t semantic_cache_count(struct semantic_cache *index);

#endif
