/*
 * Response cache: answers to calls that were made before, per tenant, bounded by bytes.
 *
 * An entry is the client's answer as it was sent: status, content type and body, or the SSE events of a streamed answer.  Its key covers
 * everything that shaped it: tenant, user (unless the model's rule is tenant-wide), dialect, model name, the settings' version, and the
 * request's JSON in canonical form (RFC 8785) with every parameter.  Policy, limits and filters have run before a lookup and run on hits.
 *
 *      begin --> HIT                                            the answer, at once or when the leader is done
 *        |-----> LEAD --> (semantic --> hit: fill is taken) --> add ... --> commit | abandon
 *        `-----> BYPASS                                         make the call without the cache
 *
 * Identical calls in flight are made once: the first is the leader, the others wait for its entry (bounded in number and time; when the
 * leader fails each makes its own call).  Only complete, successful answers are kept; nothing with an error, a cut, or a degraded answer.
 * Semantic lookups (opt-in per model, never with tools) compare an embedding of the prompt's text within the same scope; the index
 * (semantic_cache.h) holds vectors and keys only, the answers are entries like all others.
 *
 * Invariants, per shard and at every unlock: tables + entries + answers in the making <= the shard's share of bytes_max.  Memory of an
 * allocation is counted as the allocator rounds it.  Eviction is S3-FIFO: a small queue of newcomers, a main queue, and fingerprints of
 * what left the small queue unread; so a scan of calls that never come again passes through a tenth of the cache.
 * Thread: any; sharded locks, held for a lookup or an insertion, never while a body is copied.  A follower is woken on its own loop.
 * Suspends: begin and semantic.
 */
#ifndef NEXUS_LLM_RESPONSE_CACHE_H
#define NEXUS_LLM_RESPONSE_CACHE_H

#include "llm/catalog.h"
#include "observe/metrics.h"

struct response_cache;
struct cache_fill; /* the leader's answer while it grows */

struct response_cache_options {
    size_t bytes_max; /* 0: RESPONSE_CACHE_BYTES_DEFAULT; at least RESPONSE_CACHE_BYTES_MIN */
    struct clock *clock;
    struct metrics *metrics; /* may be NULL */
};
struct response_cache *response_cache_create(const struct response_cache_options *options);
void response_cache_destroy(struct response_cache *cache); /* no fill may be open; NULL is fine */
OWNED_DEFINE(response_cache)

struct cache_key {
    uint8_t digest[32];
    uuid tenant_id;
};
/* scope_user empty: tenant-wide.  settings_version: a number that changes with policy, catalogue and filter. */
void cache_key_make(struct arena *scratch, uuid tenant_id, str scope_user, const char *dialect,
                    str model, uint64_t settings_version, const struct json *request,
                    struct cache_key *out);

struct cache_answer {
    int status;
    str content_type;
    str body; /* SSE text of a streamed answer */
    bool is_stream;
    bool is_coalesced; /* waited for a call in flight */
    int64_t stored_us;
    struct usage usage; /* of the call that made it */
    bool is_semantic;
    double similarity; /* of a semantic hit, else 1 */
};
enum cache_outcome { CACHE_HIT, CACHE_LEAD, CACHE_BYPASS };
/* HIT: *answer is on ctx's arena (copied once, outside of every lock).  LEAD: *fill must be committed or abandoned.  BYPASS: make the
   call without the cache (too many waiters, the leader failed, no room, the rule is off). */
may_suspend enum cache_outcome response_cache_begin(
    struct response_cache *cache, struct context *ctx, const struct cache_key *key,
    const struct model_cache *rule, struct cache_answer *answer, struct cache_fill **fill);

/* How a question gets its vector: a governed call of the rule's embedder for the same caller.  The vector lives on ctx's arena. */
struct cache_embedder {
    may_suspend bool (*embed)(void *owner, struct context *ctx, str model, str text,
                              const float **vector, size_t *dimension, struct error *e);
    void *owner;
};
struct semantic_question; /* semantic_cache.h */
/*
 * For a rule of mode SEMANTIC, after LEAD.  True: *answer is a neighbour's (is_semantic, similarity), *fill is taken and its followers
 * get the same.  False: go on as the leader; what is committed then is found under this question's vector too.
 * Never an error: an embedder that fails or takes longer than SEMANTIC_EMBED_MS is a miss.
 */
may_suspend bool response_cache_semantic(struct response_cache *cache, struct context *ctx,
                                         const struct semantic_question *question,
                                         const struct model_cache *rule,
                                         const struct cache_embedder *embedder,
                                         struct cache_fill **fill, struct cache_answer *answer);

/* Never suspend: a relay without a coroutine calls them. */
void cache_fill_add(struct cache_fill *fill,
                    str bytes); /* past RESPONSE_CACHE_ENTRY_BYTES_MAX the entry is given up */
/* Takes fill.  A status other than 2xx is an abandon. */
void cache_fill_commit(struct cache_fill *fill, int status, str content_type, bool is_stream,
                       const struct usage *usage);
void cache_fill_abandon(struct cache_fill *fill); /* takes fill; NULL is fine */

struct response_cache_stats {
    size_t bytes, bytes_max; /* overhead included */
    size_t entries, fills;
    uint64_t hits, misses, coalesced, bypasses, evictions, semantic_hits;
};
struct response_cache_stats response_cache_stats(struct response_cache *cache);

#endif
