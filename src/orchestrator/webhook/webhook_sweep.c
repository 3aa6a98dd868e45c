/* What the clock does for webhooks: rounds of deliveries are begun, old rows removed, refused requests told to the audit log. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/webhook/webhook_internal.h"
#include <stdlib.h>

/* ---- rounds ---- */

static size_t busy_of(const struct webhook_target *first)
{
    size_t count = 0;
    for (const struct webhook_target *target = first; target; target = target->next)
        count += target->is_busy;
    return count;
}

/* Of those that are due, the one that waits longest since its last round; the lock is held. */
static struct webhook_target *choose(const struct webhooks *w, int64_t now_ns)
{
    struct webhook_target *best = NULL;
    size_t position = 0;
    void *value;
    while (map_next(w->by_tenant, &position, NULL, &value)) {
        if (busy_of(value) >= WEBHOOK_TENANT_ROUNDS_MAX)
            continue;
        for (struct webhook_target *target = value; target; target = target->next)
            if (!target->is_busy && !target->is_paused && target->look_ns <= now_ns &&
                (!best || target->round_ns < best->round_ns))
                best = target;
    }
    return best;
}

static struct webhook_round *take(struct orchestrator *o, int64_t now_ns)
{
    struct webhooks *w = o->webhooks;
    struct webhook_round *round = NULL;
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target = choose(w, now_ns);
    if (target) {
        round = calloc(1, sizeof *round);
        ensure(round != NULL);
        *round = (struct webhook_round){.o = o, .tenant_id = target->tenant_id};
        memcpy(round->name, target->name, sizeof round->name);
        bool is_full = target->pending >= WEBHOOK_PENDING_MAX;
        round->must_count =
            !target->is_counted ||
            (is_full && now_ns - target->counted_ns >= WEBHOOK_NOTE_MS * INT64_C(1000000));
        target->is_busy = true;
        target->round_ns = now_ns;
        target->look_ns = now_ns + WEBHOOK_LOOK_MS * INT64_C(1000000);
    }
    pthread_mutex_unlock(&w->lock);
    return round;
}

static void give_back(struct webhooks *w, const struct webhook_round *round)
{
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target =
        webhook_target_find(w, round->tenant_id, str_from_cstr(round->name));
    if (target) {
        target->is_busy = false;
        target->look_ns = 0;
    }
    pthread_mutex_unlock(&w->lock);
}

static bool start_rounds(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct webhooks *w = o->webhooks;
    if (!w->is_open) {
        context_init(&w->group_ctx, ctx->scheduler, w->group_arena, DEADLINE_NONE);
        group_init(&w->group, &w->group_ctx);
        w->is_open = true;
    }
    while (w->round_count < WEBHOOK_ROUNDS_MAX) {
        struct webhook_round *round = take(o, context_now_ns(ctx));
        if (!round)
            return true;
        if (!group_start(&w->group, "webhook_round", webhook_round_run, round, e)) {
            give_back(w, round);
            free(round);
            return error_wrap(e, "webhook deliveries");
        }
        w->round_count++;
    }
    return true;
}

void webhooks_settle(struct orchestrator *o)
{
    struct webhooks *w = o->webhooks;
    if (!w || !w->is_open)
        return;
    group_cancel(&w->group);
    group_wait(&w->group);
    context_deinit(&w->group_ctx);
    w->is_open = false;
}

/* ---- what is kept too long ---- */

struct cleaning {
    struct orchestrator *o;
    struct context *ctx;
    enum table table;
    int column;        /* when a row was made: they are walked in this order */
    int64_t before_us; /* rows from before are looked at */
    bool is_removed;   /* else: they end as dead */
    size_t count;
};

static void clean_row(struct cleaning *c, struct batch *batch, const struct record *row)
{
    const struct table_def *def = table_def(c->table);
    struct record *out = batch_add(batch, c->is_removed ? WRITE_DELETE : WRITE_UPDATE, c->table);
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY) {
            out->has |= 1u << i;
            out->values[i] = row->values[i];
        }
    if (c->is_removed)
        return;
    record_set_text(out, WEBHOOK_DELIVERIES_STATUS, S("dead"));
    record_set_null(out, WEBHOOK_DELIVERIES_NEXT_AT);
    record_set_integer(out, WEBHOOK_DELIVERIES_DONE_AT, clock_unix_us(c->o->parts.clock));
    record_set_text(out, WEBHOOK_DELIVERIES_LAST_ERROR,
                    S("it waited too long: the endpoint was paused, or nobody could send it"));
    batch_where_integer(batch, WEBHOOK_DELIVERIES_NEXT_AT,
                        record_integer(row, WEBHOOK_DELIVERIES_NEXT_AT));
}

static bool clean_page(struct cleaning *c, size_t *count, struct error *e)
{
    struct query query = query_of(c->table);
    struct records page;
    uuid *tenants;
    query_where_integer(&query, c->column, FILTER_LESS, c->before_us);
    query.order_column = c->column;
    if (c->table == TABLE_WEBHOOK_DELIVERIES && c->is_removed)
        query_where_integer(&query, WEBHOOK_DELIVERIES_DONE_AT, FILTER_LESS, c->before_us);
    else if (c->table == TABLE_WEBHOOK_DELIVERIES)
        query_where_null(&query, WEBHOOK_DELIVERIES_NEXT_AT, false);
    if (!store_list_any_tenant(c->o->parts.store, c->ctx, &query, &page, &tenants, e))
        return false;
    *count = page.count;
    for (size_t i = 0; i < page.count;) {
        struct batch batch;
        size_t first = i;
        batch_init(&batch, c->ctx->arena, tenants[first]);
        for (; i < page.count && uuid_equal(tenants[i], tenants[first]); i++)
            clean_row(c, &batch, &page.items[i]);
        struct error failure = {0};
        if (!store_commit(c->o->parts.store, c->ctx, &batch, &failure) &&
            failure.code != ERROR_CONFLICT)
            return error_copy(e, &failure);
    }
    return true;
}

static bool clean(struct orchestrator *o, struct context *ctx, struct error *e)
{
    int64_t now_us = clock_unix_us(o->parts.clock), keep_us = o->webhooks->options.keep_ms * 1000;
    struct cleaning kinds[] = {
        {.table = TABLE_WEBHOOK_DELIVERIES,
         .column = WEBHOOK_DELIVERIES_CREATED_AT,
         .before_us = now_us - keep_us,
         .is_removed = true},
        {.table = TABLE_WEBHOOK_DELIVERIES,
         .column = WEBHOOK_DELIVERIES_CREATED_AT,
         .before_us = now_us - keep_us},
        {.table = TABLE_WEBHOOK_RECEIPTS,
         .column = WEBHOOK_RECEIPTS_RECEIVED_AT,
         .before_us = now_us - WEBHOOK_RECEIPTS_MS * 1000,
         .is_removed = true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct cleaning *c = &kinds[i];
        c->o = o;
        c->ctx = ctx;
        size_t count = STORE_PAGE_MAX;
        while (count == STORE_PAGE_MAX && c->count < WEBHOOK_CLEAN_MAX) {
            arena_mark mark = arena_save(ctx->arena);
            if (!clean_page(c, &count, e))
                return error_wrap(e, "old webhook rows");
            c->count += count;
            arena_rewind(ctx->arena, mark);
        }
    }
    return true;
}

/* ---- refused requests ---- */

static bool note(struct orchestrator *o, struct context *ctx,
                 const struct webhook_refusals *refusals, struct error *e)
{
    struct batch batch;
    struct principal stranger = {
        .tenant_id = refusals->tenant_id,
        .user_id = S("anonymous"),
        .caller_id = S("anonymous"),
        .ip_address = str_from_cstr(refusals->ip_address),
    };
    batch_init(&batch, ctx->arena, refusals->tenant_id);
    webhook_audit(o, &batch, &stranger, "webhook.refuse", "webhook", str_from_cstr(refusals->name),
                  str_printf(ctx->arena, "{\"count\":%lld}", (long long) refusals->count));
    return store_commit(o->parts.store, ctx, &batch, e);
}

static bool note_refusals(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct webhooks *w = o->webhooks;
    pthread_mutex_lock(&w->lock);
    size_t count = w->refused_count;
    struct webhook_refusals *taken = ARENA_ARRAY(ctx->arena, struct webhook_refusals, count);
    memcpy(taken, w->refusals, count * sizeof *taken);
    w->refused_count = 0;
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < count; i++)
        if (!note(o, ctx, &taken[i], e))
            return false;
    return true;
}

/* ---- the turn ---- */

static bool is_due(int64_t *at_ns, int64_t every_ms, int64_t now_ns)
{
    if (now_ns < *at_ns)
        return false;
    *at_ns = now_ns + every_ms * 1000000;
    return true;
}

bool webhooks_sweep(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct webhooks *w = o->webhooks;
    if (!w)
        return true;
    int64_t now_ns = context_now_ns(ctx);
    bool is_stale =
        o->parts.is_shared && now_ns - w->load_ns >= WEBHOOK_LOOK_SHARED_MS * INT64_C(1000000);
    bool is_in_doubt = webhooks_take_doubt(w);
    if ((!w->is_loaded || is_stale || is_in_doubt) && !webhooks_load(o, ctx, e)) {
        if (is_in_doubt)
            webhooks_doubt(w);
        return false;
    }
    if (is_in_doubt)
        webhooks_wake_all(w);
    if (is_due(&w->note_ns, WEBHOOK_NOTE_MS, now_ns) && !note_refusals(o, ctx, e))
        return false;
    if (is_due(&w->clean_ns, WEBHOOK_LOOK_MS, now_ns) && !clean(o, ctx, e))
        return false;
    return atomic_load(&w->target_count) == 0 || start_rounds(o, ctx, e);
}
