#include "store/kv.h"

#include "base/limits.h"

static bool check(struct context *ctx, str key, size_t value_bytes, struct error *e)
{
    if (key.len == 0 || key.len > KV_KEY_BYTES_MAX)
        return error_set(e, REASON_INVALID, "a key has 1 to %u bytes", KV_KEY_BYTES_MAX);
    if (value_bytes > KV_VALUE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a value has at most %u bytes", KV_VALUE_BYTES_MAX);
    return context_check(ctx, e);
}

bool kv_get(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str *value,
            struct error *e)
{
    return check(ctx, key, 0, e) && kv->ops->get(kv, ctx, tenant_id, key, value, e);
}

bool kv_put(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str value, int64_t ttl_ms,
            bool only_if_absent, struct error *e)
{
    if (ttl_ms < 0 || ttl_ms > KV_TTL_MS_MAX)
        return error_set(e, REASON_INVALID, "a time to live is at most %lld ms",
                         (long long) KV_TTL_MS_MAX);
    return check(ctx, key, value.len, e) &&
           kv->ops->put(kv, ctx, tenant_id, key, value, ttl_ms, only_if_absent, e);
}

bool kv_remove(struct kv *kv, struct context *ctx, uuid tenant_id, str key, struct error *e)
{
    return check(ctx, key, 0, e) && kv->ops->remove(kv, ctx, tenant_id, key, e);
}

bool kv_add(struct kv *kv, struct context *ctx, uuid tenant_id, str key, int64_t delta,
            int64_t ttl_ms, int64_t *value, struct error *e)
{
    if (ttl_ms < 0 || ttl_ms > KV_TTL_MS_MAX)
        return error_set(e, REASON_INVALID, "a time to live is at most %lld ms",
                         (long long) KV_TTL_MS_MAX);
    return check(ctx, key, 0, e) && kv->ops->add(kv, ctx, tenant_id, key, delta, ttl_ms, value, e);
}

void kv_destroy(struct kv *kv)
{
    if (kv)
        kv->ops->destroy(kv);
}
