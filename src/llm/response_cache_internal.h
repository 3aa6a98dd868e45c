/*
 * Response cache, inside: one shard.  Entries by key, S3-FIFO queues, and the count of bytes; nothing of calls in flight but their list.
 *
 * Everything here is under the shard's lock, but for the two functions of references.
 */
#ifndef NEXUS_LLM_RESPONSE_CACHE_INTERNAL_H
#define NEXUS_LLM_RESPONSE_CACHE_INTERNAL_H

#include "base/list.h"
#include "llm/response_cache.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CACHE_FILL_BUCKETS = 64, CACHE_TYPE_BYTES_MAX = 96 };

struct cache_entry {
    atomic_int references;     /* the cache's, and one per reader that copies */
    struct cache_entry *chain; /* of its bucket */
    struct list link;          /* of the small or the main queue, oldest first */
    struct cache_key key;
    size_t size, capacity; /* bytes of the body; of the allocation as counted */
    int64_t stored_us, expires_ns;
    struct usage usage;
    int status;
    uint8_t frequency, type_len;
    bool is_main, is_stream;
    char type[CACHE_TYPE_BYTES_MAX];
    char body[];
};

struct cache_shard {
    _Alignas(64) pthread_mutex_t lock;
    struct cache_entry **buckets;
    uint32_t *ghosts; /* fingerprints; the next that falls in a place takes it */
    size_t mask;      /* of both */
    size_t bytes, bytes_max, small_bytes, fill_bytes;
    size_t entry_count, fill_count;
    struct list small, main;
    struct list fills[CACHE_FILL_BUCKETS]; /* of cache_fill.link */
    uint64_t hits, misses, coalesced, bypasses, evictions, semantic_hits;
    struct metric_series *bytes_series, *evictions_series; /* NULL without metrics */
};

void cache_shard_init(struct cache_shard *shard, size_t bytes_max);
void cache_shard_deinit(struct cache_shard *shard);

/* NULL when it is not there or has expired. */
struct cache_entry *cache_shard_find(struct cache_shard *shard, const struct cache_key *key,
                                     int64_t now_ns);
/* Takes the entry with one reference; its capacity is counted already. */
void cache_shard_insert(struct cache_shard *shard, struct cache_entry *entry);
/* Counts `bytes` more, evicting what must go for it.  False when it cannot fit: nothing changed but what was evicted. */
bool cache_shard_take_room(struct cache_shard *shard, size_t bytes);
void cache_shard_give_room(struct cache_shard *shard, size_t bytes);
struct list *cache_shard_fills(struct cache_shard *shard, const struct cache_key *key);

bool cache_key_equal(const struct cache_key *a, const struct cache_key *b);
uint64_t cache_key_word(const struct cache_key *key, size_t at); /* 8 bytes of the digest */
size_t cache_allocated_bytes(void *block);                       /* as the allocator rounds it */

/* Any thread, without the lock. */
struct cache_entry *cache_entry_ref(struct cache_entry *entry);
void cache_entry_unref(struct cache_entry *entry); /* NULL is fine */

#endif
