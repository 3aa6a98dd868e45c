#include "store/memory.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/check.h"
#include "store/memory/memory_internal.h"
#include <stdlib.h>

static struct memory_store *memory_of(struct store *store)
{
    return CONTAINER_OF(store, struct memory_store, base);
}

static bool apply_locked(struct memory_store *store, const struct batch *batch, struct error *e)
{
    pthread_mutex_lock(&store->lock);
    bool is_ok = memory_apply(store, batch, e);
    pthread_mutex_unlock(&store->lock);
    if (is_ok && batch->notice.run)
        batch->notice.run(&batch->notice);
    return is_ok;
}

static enum commit_outcome ask_hook(struct memory_store *store, struct context *ctx,
                                    const struct batch *batch)
{
    if (!store->hooks.before_commit)
        return COMMIT_OK;
    int64_t began_ns = clock_monotonic_ns(store->clock);
    commit_meter_begin(&store->meter, began_ns);
    enum commit_outcome outcome = store->hooks.before_commit(store->hooks.owner, ctx, batch);
    commit_meter_end(&store->meter, began_ns, clock_monotonic_ns(store->clock));
    return outcome;
}

/* It has no thread that could try again: the next commit does. */
static void tell_health(struct memory_store *store, bool is_ok, const struct error *failure)
{
    pthread_mutex_lock(&store->lock);
    if (is_ok)
        commit_health_stored(&store->health, store->clock);
    else if (commit_health_counts(failure))
        commit_health_failed(&store->health, store->clock, failure);
    pthread_mutex_unlock(&store->lock);
}

static bool try_commit(struct memory_store *store, struct context *ctx, const struct batch *batch,
                       struct error *e)
{
    enum commit_outcome outcome = ask_hook(store, ctx, batch);
    if (outcome == COMMIT_FAIL)
        return error_set(e, REASON_STORE, "the commit failed");
    if (outcome == COMMIT_DAMAGED)
        return error_set(e, REASON_CORRUPT, "the stored data is damaged");
    if (outcome == COMMIT_LOST)
        return error_set(e, REASON_OUTCOME_UNKNOWN, "the acknowledgement of a commit was lost");
    if (FAULT("store.commit"))
        return error_set(e, REASON_DISK_FULL,
                         "the disk is full: free some space, nothing was stored");
    if (batch_fault(batch->fault, "before"))
        return error_set(e, REASON_STORE, "fault point %s.before", batch->fault);
    if (!apply_locked(store, batch, e))
        return false;
    if (batch_fault(batch->fault, "after"))
        return error_set(e, REASON_STORE, "fault point %s.after", batch->fault);
    return outcome == COMMIT_OK ||
           error_set(e, REASON_OUTCOME_UNKNOWN, "the acknowledgement of a commit was lost");
}

static bool commit(struct store *base, struct context *ctx, const struct batch *batch,
                   struct error *e)
{
    struct memory_store *store = memory_of(base);
    struct error failure = {0};
    bool is_ok = try_commit(store, ctx, batch, &failure);
    tell_health(store, is_ok, &failure);
    return is_ok || error_copy(e, &failure);
}

static bool submit(struct store *base, const struct batch *batch, struct error *e)
{
    struct memory_store *store = memory_of(base);
    (void) e;
    struct error failure;
    bool is_ok = batch_fault(batch->fault, "before")
                     ? error_set(&failure, REASON_STORE, "fault point %s.before", batch->fault)
                     : apply_locked(store, batch, &failure);
    if (!is_ok) {
        store->failed_submits++;
        LOG_ERROR("store", S("a submitted batch was not stored"), &failure);
        if (batch->notice.failed)
            batch->notice.failed(&batch->notice, &failure);
    }
    return true;
}

static bool claim(struct store *base, struct context *ctx, uuid tenant_id, uuid session_id,
                  str node, int64_t *epoch, struct error *e)
{
    struct memory_store *store = memory_of(base);
    (void) ctx;
    pthread_mutex_lock(&store->lock);
    bool is_ok = memory_claim(store, tenant_id, session_id, node, epoch, e);
    pthread_mutex_unlock(&store->lock);
    return is_ok;
}

static bool get(struct store *base, struct context *ctx, uuid tenant_id, const struct record *key,
                struct record *out, struct error *e)
{
    struct memory_store *store = memory_of(base);
    pthread_mutex_lock(&store->lock);
    bool is_ok = memory_get(store, ctx->arena, tenant_id, key, out, e);
    pthread_mutex_unlock(&store->lock);
    return is_ok;
}

static bool list(struct store *base, struct context *ctx, uuid tenant_id, const struct query *query,
                 struct records *out, struct error *e)
{
    struct memory_store *store = memory_of(base);
    pthread_mutex_lock(&store->lock);
    bool is_ok = memory_list(store, ctx->arena, &tenant_id, query, out, NULL, e);
    pthread_mutex_unlock(&store->lock);
    return is_ok;
}

static bool list_any_tenant(struct store *base, struct context *ctx, const struct query *query,
                            struct records *out, uuid **tenant_ids, struct error *e)
{
    struct memory_store *store = memory_of(base);
    pthread_mutex_lock(&store->lock);
    bool is_ok = memory_list(store, ctx->arena, NULL, query, out, tenant_ids, e);
    pthread_mutex_unlock(&store->lock);
    return is_ok;
}

static bool audit_verify(struct store *base, struct context *ctx, uuid tenant_id,
                         struct audit_report *out, struct error *e)
{
    struct memory_store *store = memory_of(base);
    (void) e;
    pthread_mutex_lock(&store->lock);
    memory_audit_verify(store, ctx->arena, tenant_id, out);
    pthread_mutex_unlock(&store->lock);
    return true;
}

static void destroy(struct store *base)
{
    struct memory_store *store = memory_of(base);
    for (int i = 0; i < TABLE_COUNT; i++)
        rows_deinit(&store->tables[i]);
    pthread_mutex_destroy(&store->lock);
    free(store->undo);
    free(store->node);
    free(store);
}

/* It has no queue: what waits, waits in the hook. */
static struct store_load load(struct store *base)
{
    struct memory_store *store = memory_of(base);
    struct store_load found = {
        .commit_us = commit_meter_us(&store->meter, clock_monotonic_ns(store->clock))};
    found.failing = commit_health_look(&store->health, &found.failing_since_us);
    return found;
}

static const struct store_ops memory_ops = {
    .name = "memory",
    .commit = commit,
    .submit = submit,
    .claim = claim,
    .get = get,
    .list = list,
    .list_any_tenant = list_any_tenant,
    .audit_verify = audit_verify,
    .destroy = destroy,
    .load = load,
};

struct store *memory_store_create(struct clock *clock, struct random *random,
                                  struct memory_store_hooks hooks, str node)
{
    struct memory_store *store = calloc(1, sizeof *store);
    ensure(store);
    store->base.ops = &memory_ops;
    store->clock = clock;
    store->random = random;
    store->hooks = hooks;
    store->node = strndup(node.ptr ? node.ptr : "", node.len);
    ensure(store->node);
    random->ops->fill(random, store->audit_key, sizeof store->audit_key);
    for (int i = 0; i < TABLE_COUNT; i++)
        store->tables[i].table = (enum table) i;
    ensure(pthread_mutex_init(&store->lock, NULL) == 0);
    return &store->base;
}

void memory_store_set_hooks(struct store *store, struct memory_store_hooks hooks)
{
    memory_of(store)->hooks = hooks;
}

struct store *memory_store_clone(struct store *base)
{
    struct memory_store *from = memory_of(base);
    struct store *copy =
        memory_store_create(from->clock, from->random, from->hooks, str_from_cstr(from->node));
    struct memory_store *to = memory_of(copy);
    memcpy(to->audit_key, from->audit_key, sizeof to->audit_key);
    pthread_mutex_lock(&from->lock);
    for (int t = 0; t < TABLE_COUNT; t++)
        for (size_t i = 0; i < from->tables[t].count; i++) {
            const struct row *row = from->tables[t].items[i];
            rows_insert(&to->tables[t], i, row_create(row->tenant_id, &row->record));
        }
    pthread_mutex_unlock(&from->lock);
    return copy;
}
