#include "gateway/keys/keys_cache.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <pthread.h>
#include <stdlib.h>

enum { BUCKET_SLOTS = 4, USER_ID_BYTES = 255 };

struct slot {
    bool is_used;
    digest hash;
    int64_t until_ns, expires_us; /* expires_us 0: never */
    uuid tenant_id, key_id;
    enum role_level level;
    unsigned scopes;
    bool has_key_budget;
    struct key_limits limits; /* models: on the heap */
    size_t user_bytes;
    char user_id[USER_ID_BYTES];
};
struct keys_cache {
    pthread_mutex_t lock;
    uint64_t generation;
    struct slot *slots;
};

static const str role_names[] = {S_INIT("viewer"), S_INIT("user"), S_INIT("operator"),
                                 S_INIT("admin")};

struct keys_cache *keys_cache_create(void)
{
    struct keys_cache *cache = calloc(1, sizeof *cache);
    ensure(cache != NULL);
    pthread_mutex_init(&cache->lock, NULL);
    cache->slots = calloc(KEY_CACHE_SLOTS, sizeof *cache->slots);
    ensure(cache->slots != NULL);
    return cache;
}

void keys_cache_destroy(struct keys_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < KEY_CACHE_SLOTS; i++)
        free((char *) (uintptr_t) cache->slots[i].limits.models.ptr);
    pthread_mutex_destroy(&cache->lock);
    free(cache->slots);
    free(cache);
}

/* The hash is keyed with a secret, so nobody outside can choose a bucket. */
static struct slot *bucket_of(struct keys_cache *cache, digest hash)
{
    uint64_t number;
    memcpy(&number, hash.bytes, sizeof number);
    return &cache->slots[number % (KEY_CACHE_SLOTS / BUCKET_SLOTS) * BUCKET_SLOTS];
}

static void fill(struct principal *out, const struct slot *slot, struct arena *arena)
{
    out->tenant_id = slot->tenant_id;
    out->key_id = slot->key_id;
    out->level = slot->level;
    out->role = role_names[slot->level];
    out->scopes = slot->scopes;
    out->has_key_budget = slot->has_key_budget;
    out->limits = slot->limits;
    out->limits.models = str_copy(arena, slot->limits.models);
    out->user_id = out->caller_id = str_copy(arena, str_of(slot->user_id, slot->user_bytes));
}

bool keys_cache_find(struct keys_cache *cache, digest hash, int64_t now_ns, int64_t now_us,
                     struct arena *arena, struct principal *out)
{
    bool is_found = false;
    pthread_mutex_lock(&cache->lock);
    struct slot *bucket = bucket_of(cache, hash);
    for (size_t i = 0; i < BUCKET_SLOTS && !is_found; i++) {
        const struct slot *slot = &bucket[i];
        is_found = slot->is_used && digest_equal(slot->hash, hash) && slot->until_ns > now_ns &&
                   (slot->expires_us == 0 || slot->expires_us > now_us);
        if (is_found)
            fill(out, slot, arena);
    }
    pthread_mutex_unlock(&cache->lock);
    return is_found;
}

uint64_t keys_cache_generation(struct keys_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t generation = cache->generation;
    pthread_mutex_unlock(&cache->lock);
    return generation;
}

static struct slot *place_for(struct keys_cache *cache, digest hash)
{
    struct slot *bucket = bucket_of(cache, hash), *place = &bucket[0];
    for (size_t i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket[i].is_used && digest_equal(bucket[i].hash, hash))
            return &bucket[i];
        if (place->is_used && (!bucket[i].is_used || bucket[i].until_ns < place->until_ns))
            place = &bucket[i];
    }
    return place;
}

/* The slot's memory is given back by the next put or at the end. */
static str models_on_heap(str models)
{
    if (str_is_empty(models))
        return STR_NONE;
    char *copy = malloc(models.len);
    ensure(copy != NULL);
    memcpy(copy, models.ptr, models.len);
    return str_of(copy, models.len);
}

void keys_cache_put(struct keys_cache *cache, digest hash, const struct principal *principal,
                    int64_t now_ns, int64_t expires_us, uint64_t generation)
{
    if (principal->user_id.len > USER_ID_BYTES)
        return;
    pthread_mutex_lock(&cache->lock);
    if (cache->generation == generation) {
        struct slot *slot = place_for(cache, hash);
        free((char *) (uintptr_t) slot->limits.models.ptr);
        *slot = (struct slot){
            .is_used = true,
            .hash = hash,
            .until_ns = now_ns + KEY_CACHE_MS * INT64_C(1000000),
            .expires_us = expires_us,
            .tenant_id = principal->tenant_id,
            .key_id = principal->key_id,
            .level = principal->level,
            .scopes = principal->scopes,
            .has_key_budget = principal->has_key_budget,
            .limits = principal->limits,
            .user_bytes = principal->user_id.len,
        };
        slot->limits.models = models_on_heap(principal->limits.models);
        memcpy(slot->user_id, principal->user_id.ptr, principal->user_id.len);
    }
    pthread_mutex_unlock(&cache->lock);
}

void keys_cache_drop(struct keys_cache *cache, uuid key_id)
{
    pthread_mutex_lock(&cache->lock);
    cache->generation++;
    for (size_t i = 0; i < KEY_CACHE_SLOTS; i++)
        if (cache->slots[i].is_used && uuid_equal(cache->slots[i].key_id, key_id))
            cache->slots[i].is_used = false;
    pthread_mutex_unlock(&cache->lock);
}
