/* Scopes hash to shards; a scope's questions are a list, newest last; scopes of a shard are a list by last use. */
#include "llm/semantic_cache.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include "store/vector_math.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

enum { SHARDS = 8, BUCKETS = 256, ALLOCATION_OVERHEAD = 16 };

struct question {
    struct list link;
    struct cache_key key;
    int64_t expires_ns;
    size_t dimension;
    float vector[]; /* of length 1 */
};
struct scope {
    struct list link;  /* of its bucket */
    struct list order; /* of the shard, least recently used first */
    struct list questions;
    size_t question_count;
    uint8_t digest[32];
};
struct shard {
    _Alignas(64) pthread_mutex_t lock;
    size_t bytes, bytes_max, count;
    struct list order;
    struct list buckets[BUCKETS];
};
struct semantic_cache {
    struct shard shards[SHARDS];
};

static size_t allocated_bytes(void *block)
{
    return malloc_usable_size(block) + ALLOCATION_OVERHEAD;
}

static struct shard *shard_of(struct semantic_cache *index, const uint8_t digest[32])
{
    return &index->shards[digest[0] % SHARDS];
}

static struct scope *find_scope(struct shard *shard, const uint8_t digest[32])
{
    struct list *bucket = &shard->buckets[digest[1] % BUCKETS];
    LIST_EACH(node, bucket)
    {
        struct scope *scope = LIST_ITEM(node, struct scope, link);
        if (memcmp(scope->digest, digest, sizeof scope->digest) == 0)
            return scope;
    }
    return NULL;
}

static void touch(struct shard *shard, struct scope *scope)
{
    list_remove(&scope->order);
    list_push_back(&shard->order, &scope->order);
}

static struct scope *open_scope(struct shard *shard, const uint8_t digest[32])
{
    struct scope *scope = find_scope(shard, digest);
    if (!scope) {
        scope = calloc(1, sizeof *scope);
        ensure(scope != NULL);
        memcpy(scope->digest, digest, sizeof scope->digest);
        list_init(&scope->questions);
        list_push_back(&shard->buckets[digest[1] % BUCKETS], &scope->link);
        shard->bytes += allocated_bytes(scope);
    }
    touch(shard, scope);
    return scope;
}

static void drop_question(struct shard *shard, struct scope *scope, struct question *question)
{
    list_remove(&question->link);
    shard->bytes -= allocated_bytes(question);
    shard->count--;
    scope->question_count--;
    free(question);
}

static void drop_scope_if_empty(struct shard *shard, struct scope *scope)
{
    if (scope->question_count > 0)
        return;
    list_remove(&scope->link);
    list_remove(&scope->order);
    shard->bytes -= allocated_bytes(scope);
    free(scope);
}

static struct question *find_question(struct scope *scope, const struct cache_key *key)
{
    LIST_EACH(node, &scope->questions)
    {
        struct question *question = LIST_ITEM(node, struct question, link);
        if (memcmp(question->key.digest, key->digest, sizeof key->digest) == 0)
            return question;
    }
    return NULL;
}

static void drop_oldest(struct shard *shard)
{
    struct scope *scope = LIST_ITEM(list_first(&shard->order), struct scope, order);
    struct list *oldest = list_first(&scope->questions);
    if (oldest)
        drop_question(shard, scope, LIST_ITEM(oldest, struct question, link));
    drop_scope_if_empty(shard, scope);
}

void semantic_cache_add(struct semantic_cache *index, const struct semantic_question *asked,
                        const float *vector, size_t dimension, int64_t expires_ns)
{
    struct shard *shard = shard_of(index, asked->scope);
    struct question *question = malloc(sizeof *question + dimension * sizeof(float));
    ensure(question != NULL);
    *question =
        (struct question){.key = asked->key, .expires_ns = expires_ns, .dimension = dimension};
    if (!vector_normalise(vector, question->vector, dimension)) {
        free(question);
        return;
    }
    size_t bytes = allocated_bytes(question);
    pthread_mutex_lock(&shard->lock);
    struct scope *scope = open_scope(shard, asked->scope);
    struct question *old = find_question(scope, &asked->key);
    if (old)
        drop_question(shard, scope, old);
    if (scope->question_count >= SEMANTIC_SCOPE_ENTRIES_MAX)
        drop_question(shard, scope,
                      LIST_ITEM(list_first(&scope->questions), struct question, link));
    list_push_back(&scope->questions, &question->link);
    scope->question_count++;
    shard->bytes += bytes;
    shard->count++;
    while (shard->bytes > shard->bytes_max && shard->count > 0)
        drop_oldest(shard); /* at last the new one itself */
    pthread_mutex_unlock(&shard->lock);
}

/* Rounding of a dot product: a question is found again under a threshold of 1. */
#define ROUNDING 1e-6

/* Drops what has expired on its way.  NULL when none is near enough. */
static const struct question *nearest(struct shard *shard, struct scope *scope, const float *unit,
                                      size_t dimension, double similarity, int64_t now_ns,
                                      double *found)
{
    const struct question *best = NULL;
    LIST_EACH(node, &scope->questions)
    {
        struct question *question = LIST_ITEM(node, struct question, link);
        if (question->expires_ns <= now_ns) {
            drop_question(shard, scope, question);
            continue;
        }
        if (question->dimension != dimension)
            continue;
        double score = (double) vector_dot(unit, question->vector, dimension);
        if (score < similarity - ROUNDING || (best && score <= *found))
            continue;
        best = question;
        *found = score < 1 ? score : 1;
    }
    return best;
}

bool semantic_cache_find(struct semantic_cache *index, const uint8_t digest[32],
                         const float *vector, size_t dimension, double similarity, int64_t now_ns,
                         struct cache_key *key, double *found)
{
    struct shard *shard = shard_of(index, digest);
    bool is_found = false;
    float *unit = malloc(dimension * sizeof *unit);
    ensure(unit != NULL);
    if (vector_normalise(vector, unit, dimension)) {
        pthread_mutex_lock(&shard->lock);
        struct scope *scope = find_scope(shard, digest);
        const struct question *best =
            scope ? nearest(shard, scope, unit, dimension, similarity, now_ns, found) : NULL;
        if (best) {
            *key = best->key;
            is_found = true;
        }
        if (scope) {
            touch(shard, scope);
            drop_scope_if_empty(shard, scope);
        }
        pthread_mutex_unlock(&shard->lock);
    }
    free(unit);
    return is_found;
}

void semantic_cache_remove(struct semantic_cache *index, const uint8_t digest[32],
                           const struct cache_key *key)
{
    struct shard *shard = shard_of(index, digest);
    pthread_mutex_lock(&shard->lock);
    struct scope *scope = find_scope(shard, digest);
    struct question *question = scope ? find_question(scope, key) : NULL;
    if (question) {
        drop_question(shard, scope, question);
        drop_scope_if_empty(shard, scope);
    }
    pthread_mutex_unlock(&shard->lock);
}

struct semantic_cache *semantic_cache_create(size_t bytes_max)
{
    struct semantic_cache *index = aligned_alloc(64, sizeof *index);
    ensure(index != NULL);
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &index->shards[i];
        *shard = (struct shard){.bytes_max = bytes_max / SHARDS, .bytes = sizeof *shard};
        ensure(pthread_mutex_init(&shard->lock, NULL) == 0);
        list_init(&shard->order);
        for (size_t k = 0; k < BUCKETS; k++)
            list_init(&shard->buckets[k]);
    }
    return index;
}

void semantic_cache_destroy(struct semantic_cache *index)
{
    if (!index)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &index->shards[i];
        while (!list_is_empty(&shard->order))
            drop_oldest(shard);
        pthread_mutex_destroy(&shard->lock);
    }
    free(index);
}

size_t semantic_cache_bytes(struct semantic_cache *index)
{
    size_t bytes = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&index->shards[i].lock);
        bytes += index->shards[i].bytes;
        pthread_mutex_unlock(&index->shards[i].lock);
    }
    return bytes;
}

size_t semantic_cache_count(struct semantic_cache *index)
{
    size_t count = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&index->shards[i].lock);
        count += index->shards[i].count;
        pthread_mutex_unlock(&index->shards[i].lock);
    }
    return count;
}
