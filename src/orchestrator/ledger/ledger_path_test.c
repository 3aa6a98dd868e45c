/* Accounts of child runs: a path goes up through the runs above it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/orchestrator_testkit.h"

static cost ceiling(int64_t tokens)
{
    cost limit = COST_LIMITLESS;
    limit.tokens = tokens;
    return limit;
}

static cost tokens(int64_t amount)
{
    return (cost){.tokens = amount};
}

struct family {
    uuid session_id, grandparent_id, parent_id, child_id;
    struct ledger_path grandparent, parent, child;
};

static struct ledger_path open_run(struct testkit *kit, struct context *ctx, uuid session_id,
                                   uuid run_id, cost limit, const struct ledger_ancestor *above,
                                   int count)
{
    struct ledger_limits limits = {
        .session = ceiling(1000), .run = limit, .ancestors = above, .ancestor_count = count};
    struct ledger_path path;
    struct error e = {0};
    if (!ledger_open_path(orchestrator_ledger(kit->o), ctx, kit->tenant_id, S("ada"), session_id,
                          run_id, limits, &path, &e))
        fail_msg("%s", e.message);
    return path;
}

/* 500 for the eldest, nothing said of the parent, 200 for the child. */
static void open_family(struct testkit *kit, struct context *ctx, struct family *family)
{
    for (uuid *id = &family->session_id; id <= &family->child_id; id++)
        *id = uuid_new(kit->clock, kit->random);
    struct ledger_ancestor above[] = {{family->parent_id, COST_LIMITLESS},
                                      {family->grandparent_id, ceiling(500)}};
    family->grandparent =
        open_run(kit, ctx, family->session_id, family->grandparent_id, ceiling(500), NULL, 0);
    family->parent =
        open_run(kit, ctx, family->session_id, family->parent_id, COST_LIMITLESS, &above[1], 1);
    family->child =
        open_run(kit, ctx, family->session_id, family->child_id, ceiling(200), above, 2);
}

static void close_family(struct testkit *kit, struct family *family)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    ledger_close_path(ledger, &family->child);
    ledger_close_path(ledger, &family->parent);
    ledger_close_path(ledger, &family->grandparent);
}

static void settle(struct testkit *kit, struct context *ctx, const struct ledger_path *path,
                   cost reserved, cost used)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct settlement settlement = {
        .reserved = reserved, .used = used, .kind = "model", .basis = "reported"};
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_settle(ledger, path, &settlement, &batch, NULL);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    ledger_settled(ledger, path, &settlement);
}

static int64_t spent_of(struct testkit *kit, struct context *ctx, enum account_level level,
                        str subject)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error e = {0};
    record_set_text(&key, BUDGETS_LEVEL, str_from_cstr(account_level_name(level)));
    record_set_text(&key, BUDGETS_SUBJECT, subject);
    if (!store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e))
        return -1;
    return record_integer(&row, BUDGETS_SPENT_TOKENS);
}

static void test_a_child_is_charged_to_the_runs_above_it(struct testkit *kit, struct context *ctx)
{
    struct family family;
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct error e = {0};
    str bad;
    open_family(kit, ctx, &family);
    assert_true(ledger_reserve(ledger, &family.child, tokens(150), &e));
    assert_int_equal(ledger_view(ledger, &family.grandparent, ACCOUNT_RUN).reserved.tokens, 150);
    settle(kit, ctx, &family.child, tokens(150), tokens(120));
    assert_int_equal(spent_of(kit, ctx, ACCOUNT_RUN, uuid_str(ctx->arena, family.child_id)), 120);
    assert_int_equal(spent_of(kit, ctx, ACCOUNT_RUN, uuid_str(ctx->arena, family.parent_id)), -1);
    assert_int_equal(spent_of(kit, ctx, ACCOUNT_RUN, uuid_str(ctx->arena, family.grandparent_id)),
                     120);
    assert_int_equal(ledger_remaining(ledger, &family.child).tokens, 80);
    assert_int_equal(ledger_remaining(ledger, &family.parent).tokens, 380);
    assert_true(ledger_verify(ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_is_empty(bad));
    close_family(kit, &family);
}

static void test_the_ceiling_of_a_run_above_refuses_a_child(struct testkit *kit,
                                                            struct context *ctx)
{
    struct family family;
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct error e = {0};
    open_family(kit, ctx, &family);
    assert_true(ledger_reserve(ledger, &family.parent, tokens(400), &e));
    assert_false(ledger_reserve(ledger, &family.child, tokens(101), &e));
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_non_null(strstr(e.message, "the run budget"));
    assert_int_equal(ledger_view(ledger, &family.child, ACCOUNT_RUN).reserved.tokens, 0);
    assert_int_equal(ledger_view(ledger, &family.child, ACCOUNT_SESSION).reserved.tokens, 400);
    assert_true(ledger_reserve(ledger, &family.child, tokens(100), &e));
    ledger_release(ledger, &family.child, tokens(100));
    ledger_release(ledger, &family.parent, tokens(400));
    assert_int_equal(ledger_remaining(ledger, &family.child).tokens, 200);
    close_family(kit, &family);
}

static void test_an_entry_names_the_runs_above_outermost_first(struct testkit *kit,
                                                               struct context *ctx)
{
    struct family family;
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    struct error e = {0};
    open_family(kit, ctx, &family);
    assert_true(ledger_reserve(orchestrator_ledger(kit->o), &family.child, tokens(10), &e));
    settle(kit, ctx, &family.child, tokens(10), tokens(10));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    str wanted = str_printf(ctx->arena, STR_FMT "/" STR_FMT,
                            STR_ARG(uuid_str(ctx->arena, family.grandparent_id)),
                            STR_ARG(uuid_str(ctx->arena, family.parent_id)));
    assert_true(str_equal(record_text(&rows.items[0], LEDGER_RUN_PATH), wanted));
    close_family(kit, &family);
}

static void test_verify_finds_a_run_above_that_was_not_charged(struct testkit *kit,
                                                               struct context *ctx)
{
    struct family family;
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct batch batch;
    struct error e = {0};
    str bad;
    open_family(kit, ctx, &family);
    assert_true(ledger_reserve(ledger, &family.child, tokens(10), &e));
    settle(kit, ctx, &family.child, tokens(10), tokens(10));
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_ADD, TABLE_BUDGETS);
    str id = uuid_str(ctx->arena, family.grandparent_id);
    record_set_text(row, BUDGETS_LEVEL, S("run"));
    record_set_text(row, BUDGETS_SUBJECT, id);
    record_set_integer(row, BUDGETS_SPENT_TOKENS, -1);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_true(ledger_verify(ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_starts_with(bad, S("run|")) && str_find(bad, id) != STR_NOT_FOUND);
    close_family(kit, &family);
}

static void test_more_runs_above_than_children_may_have_are_refused(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct ledger_ancestor above[RUN_CHILD_DEPTH_MAX + 1];
    struct ledger_limits limits = {.session = COST_LIMITLESS,
                                   .run = COST_LIMITLESS,
                                   .ancestors = above,
                                   .ancestor_count = RUN_CHILD_DEPTH_MAX + 1};
    struct ledger_path path;
    struct error e = {0};
    for (int i = 0; i <= RUN_CHILD_DEPTH_MAX; i++)
        above[i] = (struct ledger_ancestor){uuid_new(kit->clock, kit->random), ceiling(10)};
    assert_false(ledger_open_path(orchestrator_ledger(kit->o), ctx, kit->tenant_id, S("ada"),
                                  above[0].run_id, above[1].run_id, limits, &path, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    limits.ancestor_count = RUN_CHILD_DEPTH_MAX;
    assert_true(ledger_open_path(orchestrator_ledger(kit->o), ctx, kit->tenant_id, S("ada"),
                                 above[0].run_id, above[1].run_id, limits, &path, &e));
    ledger_close_path(orchestrator_ledger(kit->o), &path);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_child_is_charged_to_the_runs_above_it),
        TESTKIT_BODY(test_the_ceiling_of_a_run_above_refuses_a_child),
        TESTKIT_BODY(test_an_entry_names_the_runs_above_outermost_first),
        TESTKIT_BODY(test_verify_finds_a_run_above_that_was_not_charged),
        TESTKIT_BODY(test_more_runs_above_than_children_may_have_are_refused),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
