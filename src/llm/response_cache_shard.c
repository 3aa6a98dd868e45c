/* A shard of the response cache: its table and S3-FIFO. */
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/response_cache_internal.h"

#include <malloc.h>
#include <stdlib.h>

enum {
    FREQUENCY_MAX = 3,
    ALLOCATION_OVERHEAD = 16, /* the allocator's own bytes around a block */
    SMALL_SHARE = 10,         /* newcomers may hold a tenth */
    BYTES_PER_BUCKET = 2048,
};

/* ---- small things ---- */

uint64_t cache_key_word(const struct cache_key *key, size_t at)
{
    uint64_t word;
    memcpy(&word, key->digest + at, sizeof word);
    return word;
}

bool cache_key_equal(const struct cache_key *a, const struct cache_key *b)
{
    return memcmp(a->digest, b->digest, sizeof a->digest) == 0 &&
           uuid_equal(a->tenant_id, b->tenant_id);
}

static struct cache_entry **bucket_of(struct cache_shard *shard, const struct cache_key *key)
{
    return &shard->buckets[cache_key_word(key, 8) & shard->mask];
}

size_t cache_allocated_bytes(void *block)
{
    return malloc_usable_size(block) + ALLOCATION_OVERHEAD;
}

void cache_entry_unref(struct cache_entry *entry)
{
    if (entry && atomic_fetch_sub_explicit(&entry->references, 1, memory_order_acq_rel) == 1)
        free(entry);
}

struct cache_entry *cache_entry_ref(struct cache_entry *entry)
{
    atomic_fetch_add_explicit(&entry->references, 1, memory_order_relaxed);
    return entry;
}

/* ---- eviction; under the shard's lock ---- */

static struct list *queue_of(struct cache_shard *shard, const struct cache_entry *entry)
{
    return entry->is_main ? &shard->main : &shard->small;
}

static void count_bytes(struct cache_shard *shard, int64_t more)
{
    shard->bytes = (size_t) ((int64_t) shard->bytes + more);
    if (shard->bytes_series)
        metric_add(shard->bytes_series, more);
}

static void unlink_entry(struct cache_shard *shard, struct cache_entry *entry)
{
    struct cache_entry **slot = bucket_of(shard, &entry->key);
    while (*slot != entry)
        slot = &(*slot)->chain;
    *slot = entry->chain;
    list_remove(&entry->link);
    count_bytes(shard, -(int64_t) entry->capacity);
    shard->entry_count--;
    if (!entry->is_main)
        shard->small_bytes -= entry->capacity;
    cache_entry_unref(entry);
}

static uint32_t fingerprint(const struct cache_key *key)
{
    return (uint32_t) cache_key_word(key, 16) | 1; /* 0 is an empty place */
}

static void ghost_remember(struct cache_shard *shard, const struct cache_key *key)
{
    shard->ghosts[cache_key_word(key, 8) & shard->mask] = fingerprint(key);
}

static bool ghost_take(struct cache_shard *shard, const struct cache_key *key)
{
    uint32_t *place = &shard->ghosts[cache_key_word(key, 8) & shard->mask];
    bool is_known = *place == fingerprint(key);
    if (is_known)
        *place = 0;
    return is_known;
}

/* The oldest newcomer: read again means it moves to the main queue, else it leaves.  True when it left. */
static bool age_small(struct cache_shard *shard)
{
    struct cache_entry *entry = LIST_ITEM(list_first(&shard->small), struct cache_entry, link);
    if (entry->frequency == 0) {
        ghost_remember(shard, &entry->key);
        unlink_entry(shard, entry);
        return true;
    }
    list_remove(&entry->link);
    list_push_back(&shard->main, &entry->link);
    shard->small_bytes -= entry->capacity;
    entry->is_main = true;
    entry->frequency = 0;
    return false;
}

static bool age_main(struct cache_shard *shard)
{
    struct cache_entry *entry = LIST_ITEM(list_first(&shard->main), struct cache_entry, link);
    if (entry->frequency == 0) {
        unlink_entry(shard, entry);
        return true;
    }
    entry->frequency--;
    list_remove(&entry->link);
    list_push_back(&shard->main, &entry->link);
    return false;
}

static void count_eviction(struct cache_shard *shard)
{
    shard->evictions++;
    if (shard->evictions_series)
        metric_add(shard->evictions_series, 1);
}

static bool evict(struct cache_shard *shard)
{
    for (;;) {
        bool has_small = !list_is_empty(&shard->small), has_main = !list_is_empty(&shard->main);
        if (!has_small && !has_main)
            return false;
        bool is_small_turn =
            has_small && (!has_main || shard->small_bytes > shard->bytes_max / SMALL_SHARE);
        if (is_small_turn ? age_small(shard) : age_main(shard))
            break;
    }
    count_eviction(shard);
    return true;
}

bool cache_shard_take_room(struct cache_shard *shard, size_t bytes)
{
    while (shard->bytes + bytes > shard->bytes_max)
        if (!evict(shard))
            return false;
    count_bytes(shard, (int64_t) bytes);
    return true;
}

void cache_shard_give_room(struct cache_shard *shard, size_t bytes)
{
    count_bytes(shard, -(int64_t) bytes);
}

static struct cache_entry *lookup(struct cache_shard *shard, const struct cache_key *key)
{
    struct cache_entry *entry = *bucket_of(shard, key);
    while (entry && !cache_key_equal(&entry->key, key))
        entry = entry->chain;
    return entry;
}

struct cache_entry *cache_shard_find(struct cache_shard *shard, const struct cache_key *key,
                                     int64_t now_ns)
{
    struct cache_entry *entry = lookup(shard, key);
    if (!entry)
        return NULL;
    if (entry->expires_ns <= now_ns) {
        unlink_entry(shard, entry);
        count_eviction(shard);
        return NULL;
    }
    if (entry->frequency < FREQUENCY_MAX)
        entry->frequency++;
    return entry;
}

struct list *cache_shard_fills(struct cache_shard *shard, const struct cache_key *key)
{
    return &shard->fills[cache_key_word(key, 16) % CACHE_FILL_BUCKETS];
}

void cache_shard_insert(struct cache_shard *shard, struct cache_entry *entry)
{
    struct cache_entry *old = lookup(shard, &entry->key);
    if (old)
        unlink_entry(shard, old);
    struct cache_entry **bucket = bucket_of(shard, &entry->key);
    entry->chain = *bucket;
    *bucket = entry;
    entry->is_main = ghost_take(shard, &entry->key);
    list_push_back(queue_of(shard, entry), &entry->link);
    if (!entry->is_main)
        shard->small_bytes += entry->capacity;
    shard->entry_count++;
}

static size_t power_of_two_below(size_t value)
{
    size_t power = 1;
    while (power * 2 <= value)
        power *= 2;
    return power;
}

void cache_shard_init(struct cache_shard *shard, size_t bytes_max)
{
    size_t buckets = power_of_two_below(bytes_max / BYTES_PER_BUCKET);
    *shard = (struct cache_shard){.mask = buckets - 1, .bytes_max = bytes_max};
    ensure(pthread_mutex_init(&shard->lock, NULL) == 0);
    shard->buckets = calloc(buckets, sizeof(struct cache_entry *));
    shard->ghosts = calloc(buckets, sizeof *shard->ghosts);
    ensure(shard->buckets != NULL && shard->ghosts != NULL);
    shard->bytes = sizeof *shard + cache_allocated_bytes((void *) shard->buckets) +
                   cache_allocated_bytes(shard->ghosts);
    list_init(&shard->small);
    list_init(&shard->main);
    for (size_t i = 0; i < CACHE_FILL_BUCKETS; i++)
        list_init(&shard->fills[i]);
}

void cache_shard_deinit(struct cache_shard *shard)
{
    ensure(shard->fill_count == 0);
    while (!list_is_empty(&shard->small))
        unlink_entry(shard, LIST_ITEM(list_first(&shard->small), struct cache_entry, link));
    while (!list_is_empty(&shard->main))
        unlink_entry(shard, LIST_ITEM(list_first(&shard->main), struct cache_entry, link));
    free((void *) shard->buckets);
    free(shard->ghosts);
    pthread_mutex_destroy(&shard->lock);
}
