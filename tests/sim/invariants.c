#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "disk.h"
#include "law_share.h"
#include "laws.h"
#include "world.h"
#include <stdio.h>

static void check_view(struct node *node, struct ledger_path *path, enum account_level level)
{
    struct ledger_view view = ledger_view(orchestrator_ledger(node->o), path, level);
    cost used = cost_add(view.spent, view.reserved);
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&used, i) > *cost_field(&view.limit, i))
            world_violation(node->world,
                            "%s account: spent %lld + reserved %lld is above the limit of %lld %s",
                            account_level_name(level), (long long) *cost_field(&view.spent, i),
                            (long long) *cost_field(&view.reserved, i),
                            (long long) *cost_field(&view.limit, i), cost_field_name(i));
}

/* Where nodes share a store a node's limit is its share, which a run that it took over may pass: there the rows tell (witness.c). */
void check_accounts(struct node *node)
{
    if (world_is_shared(node->world))
        return;
    for (int i = 0; i < SESSIONS; i++)
        if (node->has_watch[i])
            check_view(node, &node->watch[i], ACCOUNT_SESSION);
    for (int i = 0; i < SESSIONS; i++)
        if (node->has_watch[i]) { /* of all the same user */
            check_view(node, &node->watch[i], ACCOUNT_USER);
            return;
        }
}

/* ---- durable state ---- */

typedef void row_check(struct world *world, struct context *ctx, const struct record *row,
                       bool is_end);

static void each_row(struct world *world, struct context *ctx, enum table table, row_check *check,
                     bool is_end)
{
    struct query query = query_of(table);
    for (;;) {
        struct records page;
        struct error e = {0};
        if (!store_list(world->store, ctx, world->tenant_id, &query, &page, &e)) {
            world_violation(world, "the store cannot list %s: %s", table_def(table)->name,
                            e.message);
            return;
        }
        for (size_t i = 0; i < page.count; i++)
            check(world, ctx, &page.items[i], is_end);
        if (str_is_empty(page.next_cursor))
            return;
        query.cursor = page.next_cursor;
    }
}

static void check_budget_row(struct world *world, struct context *ctx, const struct record *row,
                             bool is_end)
{
    (void) ctx;
    (void) is_end;
    if (!record_has(row, BUDGETS_LIMIT_TOKENS) || record_has(row, BUDGETS_PERIOD))
        return;
    int64_t spent = record_integer(row, BUDGETS_SPENT_TOKENS),
            leased = record_integer(row, BUDGETS_LEASED_TOKENS);
    if (spent + leased > record_integer(row, BUDGETS_LIMIT_TOKENS))
        world_violation(
            world, "stored %.*s account: spent %lld + leased %lld tokens are above the limit",
            STR_ARG(record_text(row, BUDGETS_LEVEL)), (long long) spent, (long long) leased);
    if (leased < 0 || spent < 0)
        world_violation(world, "stored %.*s account: spent %lld, leased %lld tokens",
                        STR_ARG(record_text(row, BUDGETS_LEVEL)), (long long) spent,
                        (long long) leased);
    if (is_end && leased != 0 && !world->has_lost_acknowledgement && !world_is_shared(world))
        world_violation(world, "stored %.*s account: %lld tokens stay leased at rest",
                        STR_ARG(record_text(row, BUDGETS_LEVEL)), (long long) leased);
}

static void tell_approvals(struct world *world, struct context *ctx, uuid run_id)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, APPROVALS_RUN_ID, run_id);
    if (store_list(world->store, ctx, world->tenant_id, &query, &rows, &e))
        for (size_t i = 0; i < rows.count; i++)
            world_tell(world, "its approval " STR_FMT " is " STR_FMT,
                       STR_ARG(uuid_str(ctx->arena, record_uuid(&rows.items[i], APPROVALS_ID))),
                       STR_ARG(record_text(&rows.items[i], APPROVALS_STATUS)));
}

static void check_run_row(struct world *world, struct context *ctx, const struct record *row,
                          bool is_end)
{
    struct run_state state;
    enum run_status status;
    uuid run_id = record_uuid(row, AGENT_RUNS_ID);
    str text = record_text(row, AGENT_RUNS_STATUS);
    if (world->stage->rules.runs_ms > 0 && run_status_parse(text, &status) &&
        run_status_is_final(status))
        return; /* retention may be at it */
    run_state_init(&state, ctx->arena);
    for (;;) {
        struct events events;
        struct error e = {0};
        if (!journal_read(world->store, ctx, world->tenant_id, run_id, state.last_seq,
                          STORE_PAGE_MAX, &events, &e)) {
            world_violation(world, "journal: %s", e.message);
            return;
        }
        for (size_t i = 0; i < events.count; i++)
            if (!run_state_apply(&state, &events.items[i], &e)) {
                world_violation(world, "journal does not fold: %s", e.message);
                return;
            }
        if (events.count < STORE_PAGE_MAX)
            break;
    }
    if (!run_status_parse(text, &status) || status != state.status)
        world_violation(world, "a run's row says %.*s, its journal %s", STR_ARG(text),
                        run_status_name(state.status));
    if (record_integer(row, AGENT_RUNS_LAST_SEQ) != state.last_seq)
        world_violation(world, "a run's row says %lld events, its journal has %lld",
                        (long long) record_integer(row, AGENT_RUNS_LAST_SEQ),
                        (long long) state.last_seq);
    if (is_end && !run_status_is_final(state.status))
        tell_approvals(world, ctx, run_id);
    if (is_end && !run_status_is_final(state.status))
        world_violation(world, "a run is lost: it stays %s at rest (event %lld)",
                        run_status_name(state.status), (long long) state.last_seq);
}

static void check_tool_call_row(struct world *world, struct context *ctx, const struct record *row,
                                bool is_end)
{
    (void) ctx;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(record_uuid(row, TOOL_CALLS_ID), id);
    int *count = map_find(world->effects, str_of(id, UUID_TEXT_BYTES));
    str name = record_text(row, TOOL_CALLS_TOOL_NAME), status = record_text(row, TOOL_CALLS_STATUS);
    bool is_effect = str_equal(name, S("pay")) || str_equal(name, S("wipe"));
    if (is_effect && count && *count > 1)
        world_violation(world, "the effect of a %.*s call happened %d times", STR_ARG(name),
                        *count);
    if (is_end && is_effect && str_equal(status, S("succeeded")) && (!count || *count != 1))
        world_violation(world, "a %.*s call says succeeded but did not happen", STR_ARG(name));
    if (is_end && is_effect && str_equal(status, S("denied")) && count)
        world_violation(world, "a denied %.*s call happened", STR_ARG(name));
    if (is_end && (str_equal(status, S("running")) || str_equal(status, S("awaiting_approval"))))
        world_violation(world, "a %.*s call stays %.*s at rest", STR_ARG(name), STR_ARG(status));
}

static void check_session_row(struct world *world, struct context *ctx, const struct record *row,
                              bool is_end)
{
    (void) ctx;
    if (is_end && record_has(row, SESSIONS_LIVE_RUN_ID))
        world_violation(world, "a session stays busy at rest");
}

void check_durable(struct world *world, struct context *ctx, bool is_end)
{
    struct error e = {0};
    str first_bad = STR_NONE;
    struct audit_report report;
    disk_set_faulty(world, false);
    each_row(world, ctx, TABLE_BUDGETS, check_budget_row, is_end);
    each_row(world, ctx, TABLE_TOOL_CALLS, check_tool_call_row, is_end);
    disk_set_faulty(world, !is_end);
    if (!is_end)
        return; /* runs go on while we would look */
    each_row(world, ctx, TABLE_AGENT_RUNS, check_run_row, is_end);
    each_row(world, ctx, TABLE_SESSIONS, check_session_row, is_end);
    law_share_rest(world, ctx);
    laws_end(world, ctx);
    struct ledger *ledger = ledger_create(world->store, world->clock, world->random);
    if (!ledger_verify(ledger, ctx, world->tenant_id, &first_bad, &e))
        world_violation(world, "ledger: %s", e.message);
    else if (!str_is_empty(first_bad))
        world_violation(world, "ledger does not add up: %.*s", STR_ARG(first_bad));
    ledger_destroy(ledger);
    if (!store_audit_verify(world->store, ctx, world->tenant_id, &report, &e))
        world_violation(world, "audit: %s", e.message);
    else if (!report.ok)
        world_violation(world, "the audit chain is broken at %.*s", STR_ARG(report.first_bad));
}
