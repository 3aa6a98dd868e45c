/*
 * The response cache: lookups, leaders and followers.  (Shards and eviction: response_cache_shard.c.)
 *
 * An answer in the making is a struct cache_entry from its first byte, so that a commit moves nothing but the allocation's end.  A follower is
 * told by a message to its own loop; whoever takes it out of the fill's list (the leader, or itself when it gives up) says who frees it.
 */
#include "llm/response_cache.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/response_cache_internal.h"
#include "llm/semantic_cache.h"
#include "runtime/loop.h"

#include <malloc.h>
#include <stdlib.h>

enum {
    FILL_SHARE = 2, /* answers in the making may hold half of a shard */
    ENTRY_BYTES_FIRST = 4096,
};

struct cache_fill {
    struct response_cache *cache;
    struct cache_shard *shard;
    struct cache_entry *entry; /* NULL: given up */
    size_t room;               /* bytes of body that the entry's allocation has */
    struct cache_key key;
    int64_t ttl_ms;
    struct list link;      /* of the shard's fills */
    bool is_open;          /* not given up; the leader's own, no lock */
    struct list followers; /* of follower.link */
    size_t follower_count;
    struct semantic_question question; /* its text is not kept */
    float *vector;                     /* NULL: not to be found by meaning */
    size_t dimension;
};

struct follower {
    struct list link;
    struct cache_fill *fill; /* guarded by the shard's lock; NULL: a message is on the way */
    struct loop *loop;
    struct waiter waiter;
    struct cache_entry *entry; /* with a reference for us; NULL: the leader failed */
    double similarity;
    bool is_semantic;
    bool is_gone; /* gave up while the message was on its way; its loop's thread only */
};

enum outcome_metric {
    COUNT_HIT,
    COUNT_SEMANTIC,
    COUNT_COALESCED,
    COUNT_MISS,
    COUNT_BYPASS,
    COUNTS
};
static const char *const outcome_names[COUNTS] = {"hit", "semantic_hit", "coalesced", "miss",
                                                  "bypass"};

struct response_cache {
    struct clock *clock;
    struct cache_shard *shards;
    size_t shard_count;
    struct semantic_cache *semantic;
    struct metric_series *outcomes[COUNTS]; /* NULL without metrics */
};

static struct cache_shard *shard_of(struct response_cache *cache, const struct cache_key *key)
{
    return &cache->shards[cache_key_word(key, 0) & (cache->shard_count - 1)];
}

static void count(struct response_cache *cache, enum outcome_metric outcome)
{
    if (cache->outcomes[outcome])
        metric_add(cache->outcomes[outcome], 1);
}

/* Under the lock. */
static struct cache_fill *find_fill(struct cache_shard *shard, const struct cache_key *key)
{
    struct list *bucket = cache_shard_fills(shard, key);
    LIST_EACH(node, bucket)
    {
        struct cache_fill *fill = LIST_ITEM(node, struct cache_fill, link);
        if (cache_key_equal(&fill->key, key))
            return fill;
    }
    return NULL;
}

/* ---- answers ---- */

static void copy_answer(struct context *ctx, const struct cache_entry *entry,
                        struct cache_answer *out)
{
    char *body = arena_alloc_raw(ctx->arena, entry->size ? entry->size : 1);
    memcpy(body, entry->body, entry->size);
    *out = (struct cache_answer){
        .status = entry->status,
        .content_type = str_copy(ctx->arena, str_of(entry->type, entry->type_len)),
        .body = str_of(body, entry->size),
        .is_stream = entry->is_stream,
        .stored_us = entry->stored_us,
        .usage = entry->usage,
        .similarity = 1,
    };
}

/* ---- followers ---- */

static void deliver(void *argument)
{
    struct follower *follower = argument;
    if (!follower->is_gone) {
        waiter_wake(&follower->waiter);
        return;
    }
    cache_entry_unref(follower->entry);
    free(follower);
}

/* `entry` NULL: the leader has nothing for them. */
static void wake_followers(struct list *followers, struct cache_entry *entry, bool is_semantic,
                           double similarity)
{
    struct list *node;
    while ((node = list_pop_front(followers)) != NULL) {
        struct follower *follower = LIST_ITEM(node, struct follower, link);
        follower->entry = entry ? cache_entry_ref(entry) : NULL;
        follower->is_semantic = is_semantic;
        follower->similarity = similarity;
        if (follower->loop && follower->loop != loop_current())
            loop_post(follower->loop, deliver, follower);
        else
            deliver(follower); /* waking only appends to the ready queue */
    }
}

/* Moves a fill's followers to `out`; under the lock.  From then on their messages are on the way. */
static void take_followers(struct cache_fill *fill, struct list *out)
{
    struct list *node;
    list_init(out);
    while ((node = list_pop_front(&fill->followers)) != NULL) {
        LIST_ITEM(node, struct follower, link)->fill = NULL;
        list_push_back(out, node);
    }
    fill->follower_count = 0;
}

static void count_bypass(struct response_cache *cache, struct cache_shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    shard->bypasses++;
    pthread_mutex_unlock(&shard->lock);
    count(cache, COUNT_BYPASS);
}

/* Gives up waiting.  Nobody else knows of a follower that is still with its fill; any other is freed by its message. */
static void leave(struct cache_shard *shard, struct follower *follower)
{
    pthread_mutex_lock(&shard->lock);
    bool is_ours = follower->fill != NULL;
    if (is_ours) {
        list_remove(&follower->link);
        follower->fill->follower_count--;
    }
    pthread_mutex_unlock(&shard->lock);
    if (is_ours)
        free(follower);
    else
        follower->is_gone = true;
}

static bool follow(struct response_cache *cache, struct cache_shard *shard, struct context *ctx,
                   struct follower *follower, struct cache_answer *answer)
{
    struct error e = {0};
    struct cache_entry *entry;
    if (!waiter_wait_until(&follower->waiter, context_deadline_in(ctx, RESPONSE_CACHE_WAIT_MS),
                           &e)) {
        leave(shard, follower);
        return false;
    }
    entry = follower->entry;
    if (entry) {
        copy_answer(ctx, entry, answer);
        answer->is_coalesced = true;
        answer->is_semantic = follower->is_semantic;
        answer->similarity = follower->similarity;
        cache_entry_unref(entry);
        pthread_mutex_lock(&shard->lock);
        shard->coalesced++;
        pthread_mutex_unlock(&shard->lock);
        count(cache, COUNT_COALESCED);
    }
    free(follower);
    return entry != NULL;
}

static struct follower *new_follower(struct context *ctx, struct cache_fill *fill)
{
    struct follower *follower = calloc(1, sizeof *follower);
    ensure(follower != NULL);
    follower->loop = loop_current();
    follower->fill = fill;
    follower->similarity = 1;
    waiter_init(&follower->waiter, ctx);
    list_push_back(&fill->followers, &follower->link);
    fill->follower_count++;
    return follower;
}

/* ---- the leader ---- */

static struct cache_fill *new_fill(struct response_cache *cache, struct cache_shard *shard,
                                   const struct cache_key *key, int64_t ttl_ms)
{
    struct cache_fill *fill = calloc(1, sizeof *fill);
    ensure(fill != NULL);
    fill->cache = cache;
    fill->shard = shard;
    fill->key = *key;
    fill->is_open = true;
    fill->ttl_ms = ttl_ms < RESPONSE_CACHE_TTL_MS_MAX ? ttl_ms : RESPONSE_CACHE_TTL_MS_MAX;
    list_init(&fill->followers);
    return fill;
}

/* Takes the fill out of the shard; under the lock.  What its answer was counted as is given back. */
static void close_fill(struct cache_fill *fill, struct list *followers)
{
    struct cache_shard *shard = fill->shard;
    if (fill->is_open) {
        fill->is_open = false;
        list_remove(&fill->link);
        shard->fill_count--;
    }
    if (fill->entry) {
        cache_shard_give_room(shard, fill->entry->capacity);
        shard->fill_bytes -= fill->entry->capacity;
    }
    take_followers(fill, followers);
}

/* Nobody waits any longer for an answer that will not be kept, and the next caller leads anew. */
static void give_up(struct cache_fill *fill)
{
    struct list followers;
    struct cache_shard *shard = fill->shard;
    pthread_mutex_lock(&shard->lock);
    close_fill(fill, &followers);
    pthread_mutex_unlock(&shard->lock);
    free(fill->entry);
    fill->entry = NULL;
    fill->room = 0;
    wake_followers(&followers, NULL, false, 0);
}

static void free_fill(struct cache_fill *fill)
{
    free(fill->vector);
    free(fill);
}

enum cache_outcome response_cache_begin(struct response_cache *cache, struct context *ctx,
                                        const struct cache_key *key, const struct model_cache *rule,
                                        struct cache_answer *answer, struct cache_fill **fill)
{
    if (rule->mode == MODEL_CACHE_OFF || rule->ttl_ms <= 0)
        return CACHE_BYPASS;
    struct cache_shard *shard = shard_of(cache, key);
    struct follower *follower = NULL;
    struct cache_fill *made = NULL;
    pthread_mutex_lock(&shard->lock);
    struct cache_entry *entry = cache_shard_find(shard, key, clock_monotonic_ns(cache->clock));
    struct cache_fill *leader = entry ? NULL : find_fill(shard, key);
    if (entry) {
        cache_entry_ref(entry);
        shard->hits++;
    } else if (!leader) {
        made = new_fill(cache, shard, key, rule->ttl_ms);
        list_push_back(cache_shard_fills(shard, key), &made->link);
        shard->fill_count++;
        shard->misses++;
    } else if (leader->follower_count < RESPONSE_CACHE_WAITERS_MAX) {
        follower = new_follower(ctx, leader);
    }
    pthread_mutex_unlock(&shard->lock);
    if (entry) {
        copy_answer(ctx, entry, answer);
        cache_entry_unref(entry);
        count(cache, COUNT_HIT);
        return CACHE_HIT;
    }
    if (made) {
        *fill = made;
        count(cache, COUNT_MISS);
        return CACHE_LEAD;
    }
    if (follower && follow(cache, shard, ctx, follower, answer))
        return CACHE_HIT;
    count_bypass(cache, shard);
    return CACHE_BYPASS;
}

/* Counts a larger allocation in place of the old one.  False: no room. */
static bool grow(struct cache_fill *fill, size_t body_bytes)
{
    struct cache_shard *shard = fill->shard;
    size_t old = fill->entry ? fill->entry->capacity : 0;
    size_t used = fill->entry ? fill->entry->size : 0;
    struct cache_entry *larger = malloc(sizeof *larger + body_bytes);
    ensure(larger != NULL);
    size_t capacity = cache_allocated_bytes(larger);
    pthread_mutex_lock(&shard->lock);
    bool fits = shard->fill_bytes + capacity - old <= shard->bytes_max / FILL_SHARE &&
                cache_shard_take_room(shard, capacity - old);
    if (fits)
        shard->fill_bytes += capacity - old;
    pthread_mutex_unlock(&shard->lock);
    if (!fits) {
        free(larger);
        return false;
    }
    if (fill->entry)
        memcpy(larger, fill->entry, sizeof *larger + used);
    else
        *larger = (struct cache_entry){.key = fill->key};
    larger->capacity = capacity;
    free(fill->entry);
    fill->entry = larger;
    fill->room = body_bytes;
    return true;
}

void cache_fill_add(struct cache_fill *fill, str bytes)
{
    if (!fill->is_open)
        return;
    size_t used = fill->entry ? fill->entry->size : 0;
    size_t wanted = used + bytes.len;
    if (wanted > RESPONSE_CACHE_ENTRY_BYTES_MAX) {
        give_up(fill);
        return;
    }
    if (!fill->entry || wanted > fill->room) {
        size_t room = used == 0 ? wanted : fill->room * 2; /* one whole body needs no spare room */
        if (room < wanted)
            room = wanted;
        if (room < ENTRY_BYTES_FIRST - sizeof(struct cache_entry) && used > 0)
            room = ENTRY_BYTES_FIRST - sizeof(struct cache_entry);
        if (!grow(fill, room)) {
            give_up(fill);
            return;
        }
    }
    if (bytes.len > 0)
        memcpy(fill->entry->body + used, bytes.ptr, bytes.len);
    fill->entry->size = wanted;
}

/* Gives the allocation's spare end back; the new size is counted by the caller. */
static struct cache_entry *trim(struct cache_entry *entry)
{
    size_t exact = sizeof *entry + entry->size;
    if (exact + exact / 8 + 64 > malloc_usable_size(entry))
        return entry;
    struct cache_entry *smaller = realloc(entry, exact);
    ensure(smaller != NULL);
    return smaller;
}

/* Puts the finished entry among the others; gives the followers.  NULL when there was no room for it. */
static struct cache_entry *publish(struct cache_fill *fill, struct list *followers)
{
    struct cache_shard *shard = fill->shard;
    struct cache_entry *entry = fill->entry;
    size_t counted = entry->capacity;
    entry = trim(entry);
    size_t capacity = cache_allocated_bytes(entry);
    pthread_mutex_lock(&shard->lock);
    entry->capacity = counted;
    fill->entry = entry;
    close_fill(fill, followers);
    fill->entry = NULL;
    entry->capacity = capacity;
    bool fits = cache_shard_take_room(shard, capacity);
    if (fits)
        cache_shard_insert(shard, cache_entry_ref(entry));
    pthread_mutex_unlock(&shard->lock);
    return entry;
}

void cache_fill_commit(struct cache_fill *fill, int status, str content_type, bool is_stream,
                       const struct usage *usage)
{
    struct list followers;
    if (fill->is_open && !fill->entry)
        cache_fill_add(fill, STR_NONE); /* an empty body is an answer too */
    if (!fill->is_open || !fill->entry || status < 200 || status > 299 ||
        content_type.len > CACHE_TYPE_BYTES_MAX) {
        cache_fill_abandon(fill);
        return;
    }
    struct response_cache *cache = fill->cache;
    struct cache_entry *entry = fill->entry;
    entry->status = status;
    entry->is_stream = is_stream;
    entry->type_len = (uint8_t) content_type.len;
    if (content_type.len > 0)
        memcpy(entry->type, content_type.ptr, content_type.len);
    if (usage)
        entry->usage = *usage;
    entry->stored_us = clock_unix_us(cache->clock);
    entry->expires_ns = clock_monotonic_ns(cache->clock) + fill->ttl_ms * 1000000;
    atomic_init(&entry->references, 1); /* ours, until the followers have theirs */
    int64_t expires_ns = entry->expires_ns;
    entry = publish(fill, &followers);
    wake_followers(&followers, entry, false, 1);
    cache_entry_unref(entry);
    if (fill->vector)
        semantic_cache_add(cache->semantic, &fill->question, fill->vector, fill->dimension,
                           expires_ns);
    free_fill(fill);
}

void cache_fill_abandon(struct cache_fill *fill)
{
    if (!fill)
        return;
    give_up(fill);
    free_fill(fill);
}

/* ---- by meaning ---- */

/* The answer a neighbouring question got, with a reference; NULL when it is gone. */
static struct cache_entry *take_neighbour(struct response_cache *cache, const struct cache_key *key)
{
    struct cache_shard *shard = shard_of(cache, key);
    pthread_mutex_lock(&shard->lock);
    struct cache_entry *entry = cache_shard_find(shard, key, clock_monotonic_ns(cache->clock));
    if (entry) {
        cache_entry_ref(entry);
        shard->semantic_hits++;
    }
    pthread_mutex_unlock(&shard->lock);
    return entry;
}

static may_suspend bool embed_question(struct context *ctx,
                                       const struct semantic_question *question,
                                       const struct model_cache *rule,
                                       const struct cache_embedder *embedder, const float **vector,
                                       size_t *dimension)
{
    struct error ignored = {0};
    struct context limited;
    context_init_child(&limited, ctx, context_deadline_in(ctx, SEMANTIC_EMBED_MS));
    bool ok = embedder->embed(embedder->owner, &limited, rule->embedder, question->text, vector,
                              dimension, &ignored);
    context_deinit(&limited);
    return ok && *dimension > 0 && *dimension <= EMBED_DIMENSION_MAX;
}

/* Waiting followers get the neighbour's answer; the fill is over. */
static void finish_with(struct cache_fill *fill, struct cache_entry *entry, double similarity)
{
    struct list followers;
    struct cache_shard *shard = fill->shard;
    pthread_mutex_lock(&shard->lock);
    close_fill(fill, &followers);
    pthread_mutex_unlock(&shard->lock);
    free(fill->entry);
    wake_followers(&followers, entry, true, similarity);
    free_fill(fill);
}

bool response_cache_semantic(struct response_cache *cache, struct context *ctx,
                             const struct semantic_question *question,
                             const struct model_cache *rule, const struct cache_embedder *embedder,
                             struct cache_fill **fill, struct cache_answer *answer)
{
    const float *vector;
    size_t dimension = 0;
    struct cache_key key;
    double similarity;
    if (rule->mode != MODEL_CACHE_SEMANTIC ||
        !embed_question(ctx, question, rule, embedder, &vector, &dimension))
        return false;
    int64_t now_ns = clock_monotonic_ns(cache->clock);
    while (semantic_cache_find(cache->semantic, question->scope, vector, dimension,
                               rule->similarity, now_ns, &key, &similarity)) {
        struct cache_entry *entry = take_neighbour(cache, &key);
        if (!entry) { /* evicted or expired: the next nearest */
            semantic_cache_remove(cache->semantic, question->scope, &key);
            continue;
        }
        copy_answer(ctx, entry, answer);
        answer->is_semantic = true;
        answer->similarity = similarity;
        finish_with(*fill, entry, similarity);
        *fill = NULL;
        cache_entry_unref(entry);
        count(cache, COUNT_SEMANTIC);
        return true;
    }
    float *kept = malloc(dimension * sizeof *kept);
    ensure(kept != NULL);
    memcpy(kept, vector, dimension * sizeof *kept);
    free((*fill)->vector);
    (*fill)->vector = kept;
    (*fill)->dimension = dimension;
    (*fill)->question = *question;
    (*fill)->question.text = STR_NONE;
    return false;
}

/* ---- life ---- */

static void open_metrics(struct response_cache *cache, struct metrics *metrics)
{
    for (size_t i = 0; i < COUNTS; i++) {
        str outcome = str_from_cstr(outcome_names[i]);
        cache->outcomes[i] = metrics_series(metrics, METRIC_CACHE_REQUESTS, &outcome, 1);
    }
    for (size_t i = 0; i < cache->shard_count; i++) {
        struct cache_shard *shard = &cache->shards[i];
        shard->bytes_series = metrics_series(metrics, METRIC_CACHE_BYTES, NULL, 0);
        shard->evictions_series = metrics_series(metrics, METRIC_CACHE_EVICTIONS, NULL, 0);
        metric_add(shard->bytes_series, (int64_t) shard->bytes);
    }
}

/* A shard has room for a few of the longest answers. */
static size_t shards_for(size_t bytes_max)
{
    size_t count = 1;
    while (count < RESPONSE_CACHE_SHARDS_MAX &&
           bytes_max / (count * 2) >= 4 * (size_t) RESPONSE_CACHE_ENTRY_BYTES_MAX)
        count *= 2;
    return count;
}

struct response_cache *response_cache_create(const struct response_cache_options *options)
{
    size_t bytes_max = options->bytes_max ? options->bytes_max : RESPONSE_CACHE_BYTES_DEFAULT;
    struct response_cache *cache = calloc(1, sizeof *cache);
    ensure(cache != NULL);
    if (bytes_max < RESPONSE_CACHE_BYTES_MIN)
        bytes_max = RESPONSE_CACHE_BYTES_MIN;
    cache->clock = options->clock;
    cache->shard_count = shards_for(bytes_max);
    cache->shards = aligned_alloc(64, cache->shard_count * sizeof *cache->shards);
    ensure(cache->shards != NULL);
    for (size_t i = 0; i < cache->shard_count; i++)
        cache_shard_init(&cache->shards[i], bytes_max / cache->shard_count);
    cache->semantic = semantic_cache_create(bytes_max / SEMANTIC_BYTES_SHARE);
    if (options->metrics)
        open_metrics(cache, options->metrics);
    return cache;
}

void response_cache_destroy(struct response_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < cache->shard_count; i++)
        cache_shard_deinit(&cache->shards[i]);
    semantic_cache_destroy(cache->semantic);
    free(cache->shards);
    free(cache);
}

struct response_cache_stats response_cache_stats(struct response_cache *cache)
{
    struct response_cache_stats stats = {0};
    for (size_t i = 0; i < cache->shard_count; i++) {
        struct cache_shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        stats.bytes += shard->bytes;
        stats.bytes_max += shard->bytes_max;
        stats.entries += shard->entry_count;
        stats.fills += shard->fill_count;
        stats.hits += shard->hits;
        stats.misses += shard->misses;
        stats.coalesced += shard->coalesced;
        stats.bypasses += shard->bypasses;
        stats.evictions += shard->evictions;
        stats.semantic_hits += shard->semantic_hits;
        pthread_mutex_unlock(&shard->lock);
    }
    return stats;
}
