#include "orchestrator/budget_sweep.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

/* ---- gauges ---- */

static void write_gauges(struct orchestrator *o, const struct ledger_busy *busy)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        if (busy->ratios[i] < 0)
            continue;
        str resource = str_from_cstr(cost_field_name(i));
        if (busy->level == ACCOUNT_SESSION)
            metrics_set(o->parts.metrics, METRIC_BUDGET_UTILIZATION, busy->ratios[i],
                        (str[]){busy->subject, resource}, 2);
        else
            metrics_set(
                o->parts.metrics, METRIC_BUDGET_LEVEL_UTILIZATION, busy->ratios[i],
                (str[]){str_from_cstr(account_level_name(busy->level)), busy->subject, resource},
                3);
    }
}

static void sweep_gauges(struct orchestrator *o, struct arena *arena)
{
    for (int level = ACCOUNT_KEY; level < ACCOUNT_LEVEL_COUNT; level++) {
        size_t count;
        struct ledger_busy *busy =
            ledger_busiest(o->ledger, arena, (enum account_level) level, &count);
        for (size_t i = 0; i < count; i++)
            write_gauges(o, &busy[i]);
    }
}

/* A little at a time: others run in between. */
static bool forget_accounts(struct orchestrator *o, struct context *ctx, struct error *e)
{
    for (int i = 0; i < BUDGET_SWEEP_PAGES_MAX && ledger_sweep_idle(o->ledger); i++)
        if (!context_sleep_ms(ctx, 1, e))
            return false;
    return true;
}

bool budgets_sweep(struct orchestrator *o, struct context *ctx, struct error *e)
{
    sweep_gauges(o, ctx->arena);
    if (!forget_accounts(o, ctx, e))
        return false;
    return ledger_share_look(o->ledger, ctx, e) && ledger_share_return(o->ledger, ctx, false, e);
}

/* ---- dead nodes ---- */

static never_inline bool is_alive(struct orchestrator *o, struct context *ctx, str node,
                                  bool *alive, struct error *e)
{
    struct record key = record_of(TABLE_NODES), row;
    struct error missing = {0};
    record_set_text(&key, NODES_NODE, node);
    *alive = store_get(o->parts.store, ctx, UUID_NONE, &key, &row, &missing);
    return *alive || missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

static bool bury(struct orchestrator *o, struct context *ctx, str node, struct error *e)
{
    bool alive;
    return is_alive(o, ctx, node, &alive, e) &&
           (alive || ledger_share_bury(o->ledger, ctx, node, e));
}

bool budgets_bury(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct query query = query_of(TABLE_BUDGET_LEASES);
    struct records page;
    uuid *tenants;
    str last = o->parts.node;
    if (!o->parts.is_shared)
        return true;
    int64_t before_us = clock_unix_us(o->parts.clock) - BUDGET_SHARE_STILL_MS * 1000ll;
    query_where_integer(&query, BUDGET_LEASES_UPDATED_AT, FILTER_LESS, before_us);
    if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
        return false;
    for (size_t i = 0; i < page.count; i++) {
        str node = record_text(&page.items[i], BUDGET_LEASES_NODE);
        if (str_equal(node, last) || str_equal(node, o->parts.node))
            continue;
        last = node;
        if (!bury(o, ctx, node, e))
            return false;
    }
    return true;
}
