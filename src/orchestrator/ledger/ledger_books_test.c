/* Periods, alerts, rates, what is held back, and whether the books add up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/run_testkit.h"
#include "orchestrator/usage/usage_log.h"

#define DAY_US (86400ll * 1000000)
#define NOON_US (1922097600ll * 1000000) /* 2030-11-28T12:00:00Z */

static struct {
    struct testkit *kit;
    struct context *ctx;
    struct ledger *ledger;
} t;

static void begin(struct testkit *kit, struct context *ctx)
{
    t.kit = kit;
    t.ctx = ctx;
    t.ledger = orchestrator_ledger(kit->o);
    clock_manual_shift_wall_us(kit->clock, NOON_US - clock_unix_us(kit->clock));
}

static cost tokens(int64_t amount)
{
    return (cost){.tokens = amount};
}

static cost ceiling(int64_t amount)
{
    cost limit = COST_LIMITLESS;
    limit.tokens = amount;
    return limit;
}

static struct ledger_path open_path(int64_t session_tokens)
{
    struct ledger_limits limits = {.session = ceiling(session_tokens), .run = COST_LIMITLESS};
    struct ledger_path path;
    struct error e = {0};
    assert_true(ledger_open_path(t.ledger, t.ctx, t.kit->tenant_id, S("ada"),
                                 uuid_new(t.kit->clock, t.kit->random), UUID_NONE, limits, &path,
                                 &e));
    return path;
}

static void set(int64_t limit, enum period period)
{
    struct ledger_setting setting = {.limit = ceiling(limit), .period = period};
    struct error e = {0};
    if (!ledger_set(t.ledger, t.ctx, t.kit->tenant_id, ACCOUNT_USER, S("ada"), &setting, &e))
        fail_msg("%s", e.message);
}

static struct settlement settlement_of(int64_t reserved, int64_t used)
{
    return (struct settlement){.reserved = tokens(reserved),
                               .used = tokens(used),
                               .kind = "model",
                               .basis = "reported",
                               .model = S("tiny")};
}

static int settle(const struct ledger_path *path, int64_t reserved, int64_t used)
{
    struct settlement settlement = settlement_of(reserved, used);
    struct ledger_alerts alerts;
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, t.ctx->arena, t.kit->tenant_id);
    ledger_settle(t.ledger, path, &settlement, &batch, &alerts);
    assert_true(store_commit(t.kit->store, t.ctx, &batch, &e));
    ledger_settled(t.ledger, path, &settlement);
    return alerts.count > 0 ? alerts.items[0].threshold : 0;
}

static int spend(const struct ledger_path *path, int64_t amount)
{
    struct error e = {0};
    if (!ledger_reserve(t.ledger, path, tokens(amount), &e))
        fail_msg("%s", e.message);
    return settle(path, amount, amount);
}

static void spend_plain(const struct ledger_path *path, int64_t amount)
{
    struct settlement settlement = settlement_of(amount, amount);
    struct error e = {0};
    if (!ledger_reserve_plain(t.ledger, t.ctx, path, tokens(amount), &e))
        fail_msg("%s", e.message);
    ledger_settle_plain(t.ledger, path, &settlement);
}

static void assert_books(void)
{
    struct ledger_report report;
    struct error e = {0};
    assert_true(usage_log_sync(orchestrator_usage(t.kit->o), t.ctx, &e));
    assert_true(ledger_check(t.ledger, t.ctx, t.kit->tenant_id, &report, &e));
    if (!str_is_empty(report.first_bad))
        fail_msg(STR_FMT, STR_ARG(report.first_bad));
    assert_true(cost_equal(report.debits, report.credits));
}

static int64_t spent_by_user(const struct ledger_path *path)
{
    return ledger_view(t.ledger, path, ACCOUNT_USER).spent.tokens;
}

static bool fits(const struct ledger_path *path, int64_t amount)
{
    struct error e = {0};
    if (!ledger_reserve(t.ledger, path, tokens(amount), &e))
        return false;
    ledger_release(t.ledger, path, tokens(amount));
    return true;
}

static void shift(int64_t us)
{
    clock_manual_shift_wall_us(t.kit->clock, us);
}

/* ---- periods ---- */

static void test_spending_begins_anew_at_midnight_and_nothing_is_lost(struct testkit *kit,
                                                                      struct context *ctx)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    spend(&path, 30); /* before there were periods */
    set(100, PERIOD_DAY);
    assert_int_equal(spent_by_user(&path), 0);
    spend(&path, 80);
    assert_false(fits(&path, 21));
    shift(DAY_US / 2);
    assert_true(fits(&path, 100));
    assert_int_equal(spent_by_user(&path), 0);
    spend(&path, 60);
    assert_false(fits(&path, 41));
    assert_books();
    set(1000, PERIOD_NONE);
    assert_int_equal(spent_by_user(&path), 170);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_what_is_reserved_over_the_boundary_counts_in_the_new_period(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    assert_true(ledger_reserve(t.ledger, &path, tokens(70), &e));
    shift(DAY_US);
    assert_false(fits(&path, 31));
    assert_true(fits(&path, 30));
    settle(&path, 70, 50);
    assert_int_equal(spent_by_user(&path), 50);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_plain_calls_around_midnight_are_booked_in_the_period_they_end_in(
    struct testkit *kit, struct context *ctx)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    shift(DAY_US / 2 - 1000000);
    spend_plain(&path, 40); /* gathered, not stored yet ... */
    shift(2000000);
    spend_plain(&path, 25); /* ... when the next day's comes */
    assert_int_equal(spent_by_user(&path), 25);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_a_clock_that_steps_back_opens_no_period_again(struct testkit *kit,
                                                               struct context *ctx)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    shift(DAY_US);
    spend(&path, 90);
    shift(-DAY_US);
    assert_false(fits(&path, 11));
    spend(&path, 10);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_a_month_ends_with_its_last_day(struct testkit *kit, struct context *ctx)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_MONTH);
    spend(&path, 90);
    shift(2 * DAY_US); /* the 30th */
    assert_false(fits(&path, 11));
    shift(DAY_US);
    assert_true(fits(&path, 100));
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static struct {
    int64_t spent;
} kept;

static void spend_and_leave(struct context *ctx, void *kit)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    spend(&path, 75);
    ledger_close_path(t.ledger, &path);
}

static void look_again(struct context *ctx, void *kit)
{
    t.kit = kit;
    t.ctx = ctx;
    t.ledger = orchestrator_ledger(t.kit->o);
    struct ledger_path path = open_path(100000);
    kept.spent = spent_by_user(&path);
    assert_false(fits(&path, 26));
    assert_books();
    shift(DAY_US);
    assert_true(fits(&path, 100));
    ledger_close_path(t.ledger, &path);
}

static void test_a_period_goes_on_after_a_crash(struct testkit *kit)
{
    testkit_do(kit, spend_and_leave, kit);
    testkit_crash(kit);
    testkit_do(kit, look_again, kit);
    assert_int_equal(kept.spent, 75);
}

static void spend_on_two_days(struct context *ctx, void *kit)
{
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    spend(&path, 95);
    shift(DAY_US);
    spend(&path, 30);
    ledger_close_path(t.ledger, &path);
}

static void look_on_the_day_before(struct context *ctx, void *kit)
{
    t.kit = kit;
    t.ctx = ctx;
    t.ledger = orchestrator_ledger(t.kit->o);
    struct ledger_path path = open_path(100000);
    assert_int_equal(spent_by_user(&path), 30);
    assert_false(fits(&path, 71));
    spend(&path, 70);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_a_clock_that_steps_back_before_the_start_opens_no_period_again(struct testkit *kit)
{
    testkit_do(kit, spend_on_two_days, kit);
    clock_manual_shift_wall_us(kit->clock, -DAY_US);
    testkit_crash(kit);
    testkit_do(kit, look_on_the_day_before, kit);
}

static void limit_days(struct context *ctx, void *kit)
{
    begin(kit, ctx);
    set(100000, PERIOD_DAY);
}

static void count_periods(struct context *ctx, void *count)
{
    struct query query = query_of(TABLE_BUDGET_PERIODS);
    struct records rows;
    struct error e = {0};
    query_where_text(&query, BUDGET_PERIODS_LEVEL, S("user"));
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    *(size_t *) count = rows.count;
}

static void test_a_day_that_has_only_reservations_goes_on_after_a_clock_stepped_back(
    struct testkit *kit)
{
    size_t count = 0;
    scene_start(kit);
    testkit_do(kit, limit_days, kit);
    testkit_do(kit, scene_begin, NULL); /* spends on the first day */
    clock_manual_shift_wall_us(kit->clock, DAY_US);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 60000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000); /* its call is out: reserved on the second day, nothing spent yet */
    testkit_begin(kit, count_periods, &count);
    testkit_run_ms(kit, 1);
    assert_int_equal(count, 1);
    clock_manual_shift_wall_us(kit->clock, -DAY_US);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000); /* what was lost is booked where it was reserved */
    testkit_do(kit, count_periods, &count);
    assert_int_equal(count, 2);
}

static enum commit_outcome told_outcome;
static enum commit_outcome before_commit(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    (void) batch;
    return told_outcome;
}

static void test_a_setting_of_unknown_outcome_holds_if_its_row_says_so(struct testkit *kit,
                                                                       struct context *ctx)
{
    static const enum commit_outcome outcomes[] = {COMMIT_APPLIED_BUT_FAIL, COMMIT_LOST};
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(1000, PERIOD_NONE);
    spend(&path, 30);
    for (size_t i = 0; i < ARRAY_COUNT(outcomes); i++) {
        struct ledger_setting setting = {.limit = ceiling(100 - 20 * (int64_t) i),
                                         .period = i == 0 ? PERIOD_DAY : PERIOD_NONE};
        struct error e = {0};
        told_outcome = outcomes[i];
        memory_store_set_hooks(kit->store,
                               (struct memory_store_hooks){.before_commit = before_commit});
        bool is_set =
            ledger_set(t.ledger, ctx, kit->tenant_id, ACCOUNT_USER, S("ada"), &setting, &e);
        memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
        assert_int_equal(is_set, outcomes[i] == COMMIT_APPLIED_BUT_FAIL);
        assert_int_equal(spent_by_user(&path), 0); /* of the day that the first one began */
        assert_true(fits(&path, 100));
        assert_false(fits(&path, 101));
        assert_books();
    }
    ledger_close_path(t.ledger, &path);
}

static void test_verify_names_the_period_that_was_changed(struct testkit *kit, struct context *ctx)
{
    struct query query = query_of(TABLE_BUDGET_PERIODS);
    struct records rows;
    struct batch batch;
    struct error e = {0};
    str bad;
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    spend(&path, 10);
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_BUDGET_PERIODS);
    *row = rows.items[0];
    record_set_integer(row, BUDGET_PERIODS_SPENT_TOKENS, 9);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_true(ledger_verify(t.ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_starts_with(bad, S("user|ada|")));
    ledger_close_path(t.ledger, &path);
}

/* ---- double entry ---- */

static void test_the_counters_hold_what_the_tenant_spent(struct testkit *kit, struct context *ctx)
{
    struct ledger_report report;
    struct error e = {0};
    begin(kit, ctx);
    struct ledger_path path = open_path(1000);
    spend(&path, 30);
    spend_plain(&path, 12);
    assert_true(usage_log_sync(orchestrator_usage(kit->o), ctx, &e));
    assert_true(ledger_check(t.ledger, ctx, kit->tenant_id, &report, &e));
    assert_int_equal(report.counter_count, 1);
    assert_true(str_equal(report.counters[0].name, S("model:tiny")));
    assert_int_equal(report.counters[0].amount.tokens, 42);
    assert_int_equal(report.debits.tokens, 42);
    assert_true(cost_equal(report.debits, report.credits));
    ledger_close_path(t.ledger, &path);
}

static void test_entries_without_an_account_are_found(struct testkit *kit, struct context *ctx)
{
    struct batch batch;
    struct error e = {0};
    str bad;
    begin(kit, ctx);
    struct ledger_path path = open_path(1000);
    spend(&path, 30);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_DELETE, TABLE_BUDGETS);
    record_set_text(row, BUDGETS_LEVEL, S("user"));
    record_set_text(row, BUDGETS_SUBJECT, S("ada"));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_true(ledger_verify(t.ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_starts_with(bad, S("user|ada: it has entries")));
    ledger_close_path(t.ledger, &path);
}

/* ---- alerts ---- */

static void test_each_threshold_is_told_once_in_a_period(struct testkit *kit, struct context *ctx)
{
    static const int thresholds[] = {500, 800, 1000};
    begin(kit, ctx);
    ledger_set_thresholds(t.ledger, thresholds, 3);
    struct ledger_path path = open_path(100000);
    set(100, PERIOD_DAY);
    assert_int_equal(spend(&path, 49), 0);
    assert_int_equal(spend(&path, 1), 500);
    assert_int_equal(spend(&path, 20), 0);
    assert_int_equal(spend(&path, 30), 1000); /* the highest that was passed */
    shift(DAY_US);
    assert_int_equal(spend(&path, 85), 800);
    assert_int_equal(spend(&path, 1), 0);
    assert_int_equal(ledger_view(t.ledger, &path, ACCOUNT_USER).alerted, 800);
    ledger_close_path(t.ledger, &path);
}

static void test_an_alert_that_was_not_stored_is_told_again(struct testkit *kit,
                                                            struct context *ctx)
{
    static const int thresholds[] = {500};
    struct settlement settlement = settlement_of(60, 60);
    struct ledger_alerts alerts;
    struct batch batch;
    struct error e = {0};
    begin(kit, ctx);
    ledger_set_thresholds(t.ledger, thresholds, 1);
    struct ledger_path path = open_path(100);
    assert_true(ledger_reserve(t.ledger, &path, tokens(60), &e));
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_settle(t.ledger, &path, &settlement, &batch, &alerts);
    assert_int_equal(alerts.count, 1);
    ledger_settle(t.ledger, &path, &settlement, &batch, &alerts);
    assert_int_equal(alerts.count, 0); /* it is being told */
    ledger_not_settled(t.ledger, &path);
    assert_int_equal(settle(&path, 60, 60), 500);
    ledger_close_path(t.ledger, &path);
}

static int count_audit(const char *action)
{
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e = {0};
    int count = 0;
    assert_true(store_list(t.kit->store, t.ctx, t.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++)
        count += str_equal(record_text(&rows.items[i], AUDIT_LOGS_ACTION), str_from_cstr(action));
    return count;
}

static void test_plain_calls_are_told_too_and_audited(struct testkit *kit, struct context *ctx)
{
    static const int thresholds[] = {500};
    begin(kit, ctx);
    ledger_set_thresholds(t.ledger, thresholds, 1);
    struct ledger_path path = open_path(100);
    spend_plain(&path, 55);
    assert_books();
    spend_plain(&path, 10);
    assert_books();
    assert_int_equal(count_audit("budget.alert"), 1);
    assert_int_equal(ledger_view(t.ledger, &path, ACCOUNT_SESSION).alerted, 500);
    ledger_close_path(t.ledger, &path);
}

/* ---- rates ---- */

static void test_a_rate_holds_within_every_minute(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx);
    struct ledger_path path = open_path(100000);
    ledger_set_rate(t.ledger, &path, ceiling(100));
    spend(&path, 60);
    assert_false(ledger_reserve(t.ledger, &path, tokens(41), &e));
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_non_null(strstr(e.message, "faster than its limit of 100 tokens a minute"));
    assert_int_equal(ledger_remaining(t.ledger, &path).tokens, 40);
    assert_true(context_sleep_ms(ctx, 30000, &e));
    spend(&path, 40);
    assert_false(fits(&path, 1));
    assert_true(context_sleep_ms(ctx, 35000, &e));
    assert_true(fits(&path, 60));
    assert_false(fits(&path, 61));
    ledger_close_path(t.ledger, &path);
}

/* ---- what is held back ---- */

static void test_what_is_held_back_is_there_for_the_last_call(struct testkit *kit,
                                                              struct context *ctx)
{
    struct error e = {0};
    struct ledger_cover cover;
    begin(kit, ctx);
    struct ledger_path path = open_path(1000);
    assert_true(ledger_hold_back(t.ledger, &path, tokens(50)));
    assert_int_equal(ledger_remaining(t.ledger, &path).tokens, 950);
    assert_int_equal(ledger_remaining_last(t.ledger, &path).tokens, 1000);
    spend(&path, 950);
    assert_false(fits(&path, 1));
    assert_false(ledger_reserve_last(t.ledger, &path, tokens(51), &cover, &e));
    assert_true(ledger_reserve_last(t.ledger, &path, tokens(50), &cover, &e));
    settle(&path, 50, 40);
    assert_int_equal(ledger_view(t.ledger, &path, ACCOUNT_SESSION).reserved.tokens, 0);
    assert_int_equal(ledger_view(t.ledger, &path, ACCOUNT_SESSION).spent.tokens, 990);
    assert_books();
    ledger_close_path(t.ledger, &path);
}

static void test_all_together_hold_back_no_more_than_a_tenth(struct testkit *kit,
                                                             struct context *ctx)
{
    enum { RUNS = 40 };
    struct ledger_path paths[RUNS];
    int held = 0;
    begin(kit, ctx);
    struct ledger_path watch = open_path(100000);
    set(1000, PERIOD_NONE);
    for (int i = 0; i < RUNS; i++) {
        paths[i] = open_path(100000);
        held += ledger_hold_back(t.ledger, &paths[i], tokens(30));
    }
    assert_int_equal(held, 3); /* 100 of 1,000 */
    assert_true(fits(&watch, 910));
    assert_false(fits(&watch, 911));
    for (int i = 0; i < RUNS; i++)
        ledger_close_path(t.ledger, &paths[i]);
    assert_true(fits(&watch, 1000));
    ledger_close_path(t.ledger, &watch);
}

/* ---- all of it at once ---- */

static void one_step(struct ledger_path *path, int64_t *reserved)
{
    struct error e = {0};
    switch (random_below(t.kit->random, 7)) {
    case 0: shift((int64_t) random_below(t.kit->random, (uint64_t) DAY_US)); return;
    case 1: shift(-(int64_t) random_below(t.kit->random, (uint64_t) DAY_US / 4)); return;
    case 2: {
        int64_t amount = 1 + (int64_t) random_below(t.kit->random, 40);
        if (*reserved == 0 && ledger_reserve(t.ledger, path, tokens(amount), &e))
            *reserved = amount;
        return;
    }
    case 3:
        if (*reserved > 0)
            settle(path, *reserved,
                   (int64_t) random_below(t.kit->random, (uint64_t) *reserved + 1));
        *reserved = 0;
        return;
    case 4: {
        int64_t amount = 1 + (int64_t) random_below(t.kit->random, 20);
        struct settlement settlement =
            settlement_of(amount, (int64_t) random_below(t.kit->random, (uint64_t) amount + 1));
        if (ledger_reserve_plain(t.ledger, t.ctx, path, tokens(amount), &e))
            ledger_settle_plain(t.ledger, path, &settlement);
        return;
    }
    case 5:
        ledger_hold_back(t.ledger, path, tokens((int64_t) random_below(t.kit->random, 10)));
        return;
    default:
        if (random_below(t.kit->random, 8) == 0)
            set(100 + (int64_t) random_below(t.kit->random, 50),
                (enum period) random_below(t.kit->random, 3));
    }
}

static void test_any_order_of_things_keeps_limits_and_books(struct testkit *kit,
                                                            struct context *ctx)
{
    enum { PATHS = 6, STEPS = 4000 };
    struct ledger_path paths[PATHS];
    int64_t reserved[PATHS] = {0};
    begin(kit, ctx);
    for (int i = 0; i < PATHS; i++)
        paths[i] = open_path(1000000);
    set(100, PERIOD_DAY);
    for (int step = 0; step < STEPS; step++) {
        size_t i = random_below(kit->random, PATHS);
        one_step(&paths[i], &reserved[i]);
        struct ledger_view view = ledger_view(t.ledger, &paths[i], ACCOUNT_USER);
        if (view.remaining.tokens > 0)
            assert_true(view.spent.tokens + view.reserved.tokens <= view.limit.tokens);
        if (step % 500 == 0)
            assert_books();
    }
    for (int i = 0; i < PATHS; i++) {
        if (reserved[i] > 0)
            settle(&paths[i], reserved[i], 0);
        ledger_close_path(t.ledger, &paths[i]);
    }
    assert_books();
    struct ledger_path watch = open_path(10);
    assert_int_equal(ledger_view(t.ledger, &watch, ACCOUNT_USER).reserved.tokens, 0);
    ledger_close_path(t.ledger, &watch);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_spending_begins_anew_at_midnight_and_nothing_is_lost),
        TESTKIT_BODY(test_what_is_reserved_over_the_boundary_counts_in_the_new_period),
        TESTKIT_BODY(test_plain_calls_around_midnight_are_booked_in_the_period_they_end_in),
        TESTKIT_BODY(test_a_clock_that_steps_back_opens_no_period_again),
        TESTKIT_BODY(test_a_month_ends_with_its_last_day),
        TESTKIT_SCRIPT(test_a_period_goes_on_after_a_crash),
        TESTKIT_SCRIPT(test_a_clock_that_steps_back_before_the_start_opens_no_period_again),
        TESTKIT_SCRIPT(test_a_day_that_has_only_reservations_goes_on_after_a_clock_stepped_back),
        TESTKIT_BODY(test_a_setting_of_unknown_outcome_holds_if_its_row_says_so),
        TESTKIT_BODY(test_verify_names_the_period_that_was_changed),
        TESTKIT_BODY(test_the_counters_hold_what_the_tenant_spent),
        TESTKIT_BODY(test_entries_without_an_account_are_found),
        TESTKIT_BODY(test_each_threshold_is_told_once_in_a_period),
        TESTKIT_BODY(test_an_alert_that_was_not_stored_is_told_again),
        TESTKIT_BODY(test_plain_calls_are_told_too_and_audited),
        TESTKIT_BODY(test_a_rate_holds_within_every_minute),
        TESTKIT_BODY(test_what_is_held_back_is_there_for_the_last_call),
        TESTKIT_BODY(test_all_together_hold_back_no_more_than_a_tenth),
        TESTKIT_BODY(test_any_order_of_things_keeps_limits_and_books),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
