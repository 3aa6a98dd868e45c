/*
 * Key-value: small values with a time to live: locks, counters, idempotency, `queue:*`.  Keys per spec section 6.
 * A counter is a value of decimal digits: get shows it as text, and add on any other value is CONFLICT; past 64 bits it is LIMIT.
 * Every call names a tenant; keys of other tenants do not exist for it.
 * Implementations: memory, sqlite (later redis); all pass kv_contract.
 */
#ifndef NEXUS_STORE_KV_H
#define NEXUS_STORE_KV_H

#include "runtime/context.h"

struct kv;
struct kv_ops {
    const char *name;
    /* NOT_FOUND when absent or expired; value on ctx's arena */
    may_suspend bool (*get)(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str *value,
                            struct error *e);
    /* ttl_ms 0: for ever.  only_if_absent: CONFLICT when it is there */
    may_suspend bool (*put)(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str value,
                            int64_t ttl_ms, bool only_if_absent, struct error *e);
    may_suspend bool (*remove)(struct kv *kv, struct context *ctx, uuid tenant_id, str key,
                               struct error *e);
    /* adds to a counter (absent: 0) and gives its new value; ttl_ms set when it is created */
    may_suspend bool (*add)(struct kv *kv, struct context *ctx, uuid tenant_id, str key,
                            int64_t delta, int64_t ttl_ms, int64_t *value, struct error *e);
    void (*destroy)(struct kv *kv);
};
struct kv {
    const struct kv_ops *ops;
};
may_suspend bool kv_get(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str *value,
                        struct error *e);
may_suspend bool kv_put(struct kv *kv, struct context *ctx, uuid tenant_id, str key, str value,
                        int64_t ttl_ms, bool only_if_absent, struct error *e);
may_suspend bool kv_remove(struct kv *kv, struct context *ctx, uuid tenant_id, str key,
                           struct error *e);
may_suspend bool kv_add(struct kv *kv, struct context *ctx, uuid tenant_id, str key, int64_t delta,
                        int64_t ttl_ms, int64_t *value, struct error *e);
void kv_destroy(struct kv *kv);

#endif
