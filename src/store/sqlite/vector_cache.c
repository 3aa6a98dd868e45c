#include "store/sqlite/vector_cache_internal.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <pthread.h>
#include <stdlib.h>

struct vector_cache {
    pthread_mutex_t lock;
    struct list entries; /* most recently used first */
    size_t bytes, dimension;
    uint64_t generation;
};

struct vector_cache *vector_cache_create(size_t dimension)
{
    struct vector_cache *cache = calloc(1, sizeof *cache);
    ensure(cache && pthread_mutex_init(&cache->lock, NULL) == 0);
    list_init(&cache->entries);
    cache->dimension = dimension;
    return cache;
}

/* Caller holds the lock. */
static void entry_release(struct vector_entry *entry)
{
    if (--entry->reference_count > 0)
        return;
    free(entry->user_id);
    free(entry->ids);
    free(entry->vectors);
    free(entry);
}

static void entry_drop(struct vector_cache *cache, struct vector_entry *entry)
{
    list_remove(&entry->link);
    cache->bytes -= entry->bytes;
    entry_release(entry);
}

void vector_cache_destroy(struct vector_cache *cache)
{
    if (!cache)
        return;
    LIST_EACH(node, &cache->entries)
    {
        entry_drop(cache, LIST_ITEM(node, struct vector_entry, link));
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

uint64_t vector_cache_generation(struct vector_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t generation = cache->generation;
    pthread_mutex_unlock(&cache->lock);
    return generation;
}

struct vector_entry *vector_cache_find(struct vector_cache *cache, uuid tenant_id, uuid session_id,
                                       str user_id)
{
    struct vector_entry *found = NULL;
    pthread_mutex_lock(&cache->lock);
    LIST_EACH(node, &cache->entries)
    {
        struct vector_entry *entry = LIST_ITEM(node, struct vector_entry, link);
        if (!uuid_equal(entry->tenant_id, tenant_id) ||
            !uuid_equal(entry->session_id, session_id) ||
            !str_equal(str_of(entry->user_id, entry->user_id_len), user_id))
            continue;
        list_remove(&entry->link);
        list_push_front(&cache->entries, &entry->link);
        entry->reference_count++;
        found = entry;
        break;
    }
    pthread_mutex_unlock(&cache->lock);
    return found;
}

struct vector_entry *vector_entry_create(uuid tenant_id, uuid session_id, str user_id)
{
    struct vector_entry *entry = calloc(1, sizeof *entry);
    ensure(entry);
    entry->tenant_id = tenant_id;
    entry->session_id = session_id;
    entry->user_id = strndup(user_id.ptr ? user_id.ptr : "", user_id.len);
    entry->user_id_len = user_id.len;
    entry->reference_count = 1;
    ensure(entry->user_id);
    return entry;
}

void vector_entry_add(struct vector_entry *entry, uuid id, const float *vector, size_t dimension)
{
    if (entry->count == entry->capacity) {
        entry->capacity = entry->capacity ? 2 * entry->capacity : 16;
        entry->ids = realloc(entry->ids, entry->capacity * sizeof(*entry->ids));
        entry->vectors =
            realloc(entry->vectors, entry->capacity * dimension * sizeof(*entry->vectors));
        ensure(entry->ids && entry->vectors);
        entry->bytes = sizeof(*entry) + entry->capacity * (sizeof(*entry->ids) +
                                                           dimension * sizeof(*entry->vectors));
    }
    entry->ids[entry->count] = id;
    memcpy(entry->vectors + entry->count * dimension, vector, dimension * sizeof(*vector));
    entry->count++;
}

void vector_cache_keep(struct vector_cache *cache, struct vector_entry *entry, uint64_t generation)
{
    pthread_mutex_lock(&cache->lock);
    if (generation == cache->generation && entry->bytes <= VECTOR_CACHE_BYTES_MAX) {
        entry->reference_count++;
        cache->bytes += entry->bytes;
        list_push_front(&cache->entries, &entry->link);
        while (cache->bytes > VECTOR_CACHE_BYTES_MAX)
            entry_drop(cache, LIST_ITEM(cache->entries.previous, struct vector_entry, link));
    }
    pthread_mutex_unlock(&cache->lock);
}

void vector_cache_release(struct vector_cache *cache, struct vector_entry *entry)
{
    pthread_mutex_lock(&cache->lock);
    entry_release(entry);
    pthread_mutex_unlock(&cache->lock);
}

void vector_cache_drop(struct vector_cache *cache, uuid tenant_id, uuid session_id)
{
    pthread_mutex_lock(&cache->lock);
    cache->generation++;
    LIST_EACH(node, &cache->entries)
    {
        struct vector_entry *entry = LIST_ITEM(node, struct vector_entry, link);
        if (uuid_equal(entry->tenant_id, tenant_id) &&
            (uuid_is_none(entry->session_id) || uuid_equal(entry->session_id, session_id)))
            entry_drop(cache, entry);
    }
    pthread_mutex_unlock(&cache->lock);
}
