/* Key-value in memory: a map from tenant and key to a small block. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/map.h"
#include "store/memory.h"
#include <pthread.h>
#include <stdlib.h>

struct memory_kv {
    struct kv base;
    pthread_mutex_t lock;
    struct clock *clock;
    struct map *entries; /* by the tenant's 16 bytes and the key */
};
struct entry {
    int64_t expires_us; /* 0: never */
    size_t len;
    char value[];
};

static struct memory_kv *memory_of(struct kv *kv)
{
    return CONTAINER_OF(kv, struct memory_kv, base);
}

static str full_key(struct arena *arena, uuid tenant_id, str key)
{
    char *bytes = arena_alloc(arena, sizeof tenant_id.bytes + key.len);
    memcpy(bytes, tenant_id.bytes, sizeof tenant_id.bytes);
    memcpy(bytes + sizeof tenant_id.bytes, key.ptr, key.len);
    return str_of(bytes, sizeof tenant_id.bytes + key.len);
}

/* Under the lock; what has expired is removed. */
static struct entry *entry_find(struct memory_kv *kv, str key)
{
    struct entry *entry = map_find(kv->entries, key);
    if (!entry || !entry->expires_us || entry->expires_us > clock_unix_us(kv->clock))
        return entry;
    free(map_remove(kv->entries, key));
    return NULL;
}

static void entry_put(struct memory_kv *kv, str key, str value, int64_t expires_us)
{
    struct entry *entry = malloc(sizeof *entry + value.len);
    ensure(entry);
    *entry = (struct entry){.expires_us = expires_us, .len = value.len};
    if (value.len > 0)
        memcpy(entry->value, value.ptr, value.len);
    free(map_put(kv->entries, key, entry));
}

static int64_t expiry(struct memory_kv *kv, int64_t ttl_ms)
{
    return ttl_ms ? clock_unix_us(kv->clock) + ttl_ms * 1000 : 0;
}

static bool get(struct kv *base, struct context *ctx, uuid tenant_id, str key, str *value,
                struct error *e)
{
    struct memory_kv *kv = memory_of(base);
    str full = full_key(ctx->arena, tenant_id, key);
    pthread_mutex_lock(&kv->lock);
    struct entry *entry = entry_find(kv, full);
    if (entry)
        *value = str_copy(ctx->arena, str_of(entry->value, entry->len));
    pthread_mutex_unlock(&kv->lock);
    return entry || error_set(e, REASON_NOT_FOUND, "no such key");
}

static bool put(struct kv *base, struct context *ctx, uuid tenant_id, str key, str value,
                int64_t ttl_ms, bool only_if_absent, struct error *e)
{
    struct memory_kv *kv = memory_of(base);
    str full = full_key(ctx->arena, tenant_id, key);
    pthread_mutex_lock(&kv->lock);
    bool is_refused = only_if_absent && entry_find(kv, full);
    if (!is_refused)
        entry_put(kv, full, value, expiry(kv, ttl_ms));
    pthread_mutex_unlock(&kv->lock);
    return !is_refused || error_set(e, REASON_CONFLICT, "the key is there already");
}

static bool remove_key(struct kv *base, struct context *ctx, uuid tenant_id, str key,
                       struct error *e)
{
    struct memory_kv *kv = memory_of(base);
    (void) e;
    str full = full_key(ctx->arena, tenant_id, key);
    pthread_mutex_lock(&kv->lock);
    free(map_remove(kv->entries, full));
    pthread_mutex_unlock(&kv->lock);
    return true;
}

static bool add_locked(struct memory_kv *kv, struct arena *arena, str key, int64_t delta,
                       int64_t ttl_ms, int64_t *value, struct error *e)
{
    struct entry *entry = entry_find(kv, key);
    int64_t sum = 0;
    if (entry && !str_to_i64(str_of(entry->value, entry->len), &sum))
        return error_set(e, REASON_CONFLICT, "the key holds no counter");
    if (__builtin_add_overflow(sum, delta, &sum))
        return error_set(e, REASON_LIMIT, "the counter would overflow");
    entry_put(kv, key, str_printf(arena, "%lld", (long long) sum),
              entry ? entry->expires_us : expiry(kv, ttl_ms));
    *value = sum;
    return true;
}

static bool add(struct kv *base, struct context *ctx, uuid tenant_id, str key, int64_t delta,
                int64_t ttl_ms, int64_t *value, struct error *e)
{
    struct memory_kv *kv = memory_of(base);
    str full = full_key(ctx->arena, tenant_id, key);
    pthread_mutex_lock(&kv->lock);
    bool is_ok = add_locked(kv, ctx->arena, full, delta, ttl_ms, value, e);
    pthread_mutex_unlock(&kv->lock);
    return is_ok;
}

static void destroy(struct kv *base)
{
    struct memory_kv *kv = memory_of(base);
    size_t position = 0;
    void *entry;
    while (map_next(kv->entries, &position, NULL, &entry))
        free(entry);
    map_destroy(kv->entries);
    pthread_mutex_destroy(&kv->lock);
    free(kv);
}

static const struct kv_ops memory_kv_ops = {
    .name = "memory",
    .get = get,
    .put = put,
    .remove = remove_key,
    .add = add,
    .destroy = destroy,
};

struct kv *memory_kv_create(struct clock *clock)
{
    struct memory_kv *kv = calloc(1, sizeof *kv);
    ensure(kv && pthread_mutex_init(&kv->lock, NULL) == 0);
    kv->base.ops = &memory_kv_ops;
    kv->clock = clock;
    kv->entries = map_create();
    return &kv->base;
}
