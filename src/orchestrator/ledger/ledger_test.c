#include "orchestrator/ledger/ledger.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/usage/usage_log.h"

static struct ledger_limits limits_of(int64_t session_tokens)
{
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    limits.session.tokens = session_tokens;
    return limits;
}

static struct ledger_path open_path(struct testkit *kit, struct ledger *ledger, struct context *ctx,
                                    uuid session_id, int64_t tokens)
{
    struct ledger_path path;
    struct error e;
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id, S("ada"), session_id, UUID_NONE,
                                 limits_of(tokens), &path, &e));
    return path;
}

static cost tokens(int64_t amount)
{
    return (cost){.tokens = amount};
}

static struct ledger_view view(struct ledger *ledger, const struct ledger_path *path,
                               enum account_level level)
{
    return ledger_view(ledger, path, level);
}

static bool set_limit(struct testkit *kit, struct ledger *ledger, struct context *ctx,
                      enum account_level level, str subject, int64_t amount)
{
    cost limit = COST_LIMITLESS;
    struct error e = {0};
    limit.tokens = amount;
    return ledger_set_limit(ledger, ctx, kit->tenant_id, level, subject, limit, &e);
}

static struct settlement settlement_of(cost reserved, cost used)
{
    return (struct settlement){
        .reserved = reserved, .used = used, .kind = "model", .basis = "reported"};
}

static void settle(struct testkit *kit, struct ledger *ledger, struct context *ctx,
                   const struct ledger_path *path, cost reserved, cost used)
{
    struct batch batch;
    struct error e;
    struct settlement settlement = settlement_of(reserved, used);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_settle(ledger, path, &settlement, &batch, NULL);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    ledger_settled(ledger, path, &settlement);
}

/* What the store holds of an account. */
static struct record stored(struct testkit *kit, struct context *ctx, enum account_level level,
                            str subject)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error e;
    record_set_text(&key, BUDGETS_LEVEL, str_from_cstr(account_level_name(level)));
    record_set_text(&key, BUDGETS_SUBJECT, subject);
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    return row;
}

/* Everything that was gathered is written, and free leases are given back. */
static void come_to_rest(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    assert_true(usage_log_sync(orchestrator_usage(kit->o), ctx, &e));
}

static int64_t stored_integer(struct testkit *kit, struct context *ctx, enum account_level level,
                              str subject, int column)
{
    come_to_rest(kit, ctx);
    struct record row = stored(kit, ctx, level, subject);
    return record_integer(&row, column);
}
#define stored_leased(kit, ctx, level, subject)                                                    \
    stored_integer(kit, ctx, level, subject, BUDGETS_LEASED_TOKENS)
#define stored_spent(kit, ctx, level, subject)                                                     \
    stored_integer(kit, ctx, level, subject, BUDGETS_SPENT_TOKENS)

static void assert_verified(struct testkit *kit, struct ledger *ledger, struct context *ctx)
{
    str bad;
    struct error e;
    come_to_rest(kit, ctx);
    assert_true(ledger_verify(ledger, ctx, kit->tenant_id, &bad, &e));
    if (!str_is_empty(bad))
        fail_msg(STR_FMT, STR_ARG(bad));
}

static void test_a_reservation_is_all_or_nothing_up_the_path(struct testkit *kit,
                                                             struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    struct error e = {0};
    assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"), 50));
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 1000);
    assert_false(ledger_reserve(ledger, &path, tokens(51), &e));
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_non_null(strstr(e.message, "the user budget"));
    assert_non_null(strstr(e.message, "tokens needed 51, left 50"));
    for (int level = 0; level < ACCOUNT_LEVEL_COUNT; level++)
        assert_true(cost_is_zero(view(ledger, &path, (enum account_level) level).reserved));
    assert_true(ledger_reserve(ledger, &path, tokens(50), &e));
    for (int level = ACCOUNT_SESSION; level < ACCOUNT_LEVEL_COUNT; level++)
        if (path.accounts[level])
            assert_int_equal(view(ledger, &path, (enum account_level) level).reserved.tokens, 50);
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 0);
    ledger_release(ledger, &path, tokens(50));
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 50);
    ledger_close_path(ledger, &path);
}

static void test_each_field_is_limited_by_itself(struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_limits limits = {.session = {10, 20, 30, 40}, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct error e;
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id, S("ada"),
                                 uuid_new(kit->clock, kit->random), UUID_NONE, limits, &path, &e));
    static const cost fits[] = {
        {10, 0, 0, 0}, {0, 20, 0, 0}, {0, 0, 30, 0}, {0, 0, 0, 40}, {10, 20, 30, 40}};
    for (size_t i = 0; i < ARRAY_COUNT(fits); i++) {
        assert_true(ledger_reserve(ledger, &path, fits[i], &e));
        ledger_release(ledger, &path, fits[i]);
    }
    for (int field = 0; field < COST_FIELD_COUNT; field++) {
        cost beyond = {10, 20, 30, 40};
        ++*cost_field(&beyond, field);
        e = (struct error){0};
        assert_false(ledger_reserve(ledger, &path, beyond, &e));
        assert_non_null(strstr(e.message, cost_field_name(field)));
    }
    ledger_close_path(ledger, &path);
}

static void test_a_run_level_is_there_when_it_is_limited(struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_limits limits = limits_of(1000);
    struct ledger_path path;
    struct error e = {0};
    limits.run.tokens = 30;
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id, S("ada"),
                                 uuid_new(kit->clock, kit->random),
                                 uuid_new(kit->clock, kit->random), limits, &path, &e));
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 30);
    assert_false(ledger_reserve(ledger, &path, tokens(31), &e));
    assert_non_null(strstr(e.message, "the run budget"));
    ledger_close_path(ledger, &path);
}

static void test_accounts_of_two_tenants_never_meet(struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path ours, theirs;
    struct error e;
    assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"), 10));
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id, S("ada"), UUID_NONE, UUID_NONE,
                                 limits_of(1), &ours, &e));
    assert_true(ledger_open_path(ledger, ctx, kit->other_tenant_id, S("ada"), UUID_NONE, UUID_NONE,
                                 limits_of(1), &theirs, &e));
    assert_int_equal(ledger_remaining(ledger, &ours).tokens, 10);
    assert_true(ledger_remaining(ledger, &theirs).tokens == COST_UNLIMITED);
    ledger_close_path(ledger, &ours);
    ledger_close_path(ledger, &theirs);
}

/* ---- settling ---- */

static void test_a_settlement_moves_reserved_to_spent_here_and_in_the_store(struct testkit *kit,
                                                                            struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 100);
    struct error e;
    assert_true(ledger_reserve(ledger, &path, tokens(80), &e));
    settle(kit, ledger, ctx, &path, tokens(80), tokens(30));
    struct ledger_view now = view(ledger, &path, ACCOUNT_SESSION);
    assert_int_equal(now.spent.tokens, 30);
    assert_int_equal(now.reserved.tokens, 0);
    assert_int_equal(now.remaining.tokens, 70);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_SESSION, uuid_str(ctx->arena, session_id)), 30);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_USER, S("ada")), 30);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_TENANT, uuid_str(ctx->arena, kit->tenant_id)),
                     30);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

static void test_an_overdraft_is_booked_as_one_and_blocks_the_next(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 100);
    struct error e;
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    assert_true(ledger_reserve(ledger, &path, tokens(100), &e));
    settle(kit, ledger, ctx, &path, tokens(100), tokens(140));
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).remaining.tokens, 0);
    assert_false(ledger_reserve(ledger, &path, tokens(1), &e));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_true(str_equal(record_text(&rows.items[0], LEDGER_BASIS), S("overdraft")));
    assert_int_equal(record_integer(&rows.items[0], LEDGER_TOKENS), 140);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

static void test_room_is_given_back_only_once_the_settlement_is_durable(struct testkit *kit,
                                                                        struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 100);
    struct batch batch;
    struct settlement settlement = settlement_of(tokens(60), tokens(10));
    struct error e;
    assert_true(ledger_reserve(ledger, &path, tokens(60), &e));
    struct ledger_view before = view(ledger, &path, ACCOUNT_SESSION);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_settle(ledger, &path, &settlement, &batch, NULL);
    struct ledger_view between = view(ledger, &path, ACCOUNT_SESSION);
    assert_memory_equal(&before, &between, sizeof before);
    assert_false(ledger_reserve(ledger, &path, tokens(41), &e));
    ledger_settled(ledger, &path, &settlement);
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 90);
    ledger_close_path(ledger, &path);
}

static void test_a_restored_reservation_counts_even_past_the_limit(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 100);
    struct error e;
    ledger_restore(ledger, &path, tokens(120));
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).remaining.tokens, 0);
    assert_false(ledger_reserve(ledger, &path, tokens(1), &e));
    ledger_release(ledger, &path, tokens(120));
    assert_true(ledger_reserve(ledger, &path, tokens(100), &e));
    ledger_release(ledger, &path, tokens(100));
    ledger_close_path(ledger, &path);
}

static void test_what_was_spent_is_there_after_a_restart(struct testkit *kit, struct context *ctx)
{
    uuid session_id = uuid_new(kit->clock, kit->random);
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 100);
    struct error e;
    assert_true(ledger_reserve(ledger, &path, tokens(40), &e));
    settle(kit, ledger, ctx, &path, tokens(40), tokens(25));
    ledger_close_path(ledger, &path);
    struct ledger *again = ledger_create(kit->store, kit->clock, kit->random);
    path = open_path(kit, again, ctx, session_id, 100);
    assert_int_equal(ledger_remaining(again, &path).tokens, 75);
    ledger_close_path(again, &path);
    ledger_destroy(again);
}

/* ---- limits ---- */

static void test_only_users_and_tenants_have_limits_that_can_be_set(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    assert_false(set_limit(kit, ledger, ctx, ACCOUNT_SESSION, S("x"), 5));
    assert_false(set_limit(kit, ledger, ctx, ACCOUNT_RUN, S("x"), 5));
    assert_true(
        set_limit(kit, ledger, ctx, ACCOUNT_TENANT, uuid_str(ctx->arena, kit->tenant_id), 5));
}

static void test_a_limit_is_effective_at_once_and_after_a_restart(struct testkit *kit,
                                                                  struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, UUID_NONE, 0);
    struct error e;
    assert_true(ledger_reserve(ledger, &path, tokens(40), &e));
    settle(kit, ledger, ctx, &path, tokens(40), tokens(40));
    assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"), 30)); /* below what is spent */
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 0);
    assert_false(ledger_reserve(ledger, &path, tokens(1), &e));
    assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"), 45));
    assert_true(ledger_reserve(ledger, &path, tokens(5), &e));
    ledger_release(ledger, &path, tokens(5));
    struct ledger *again = ledger_create(kit->store, kit->clock, kit->random);
    struct ledger_path same = open_path(kit, again, ctx, UUID_NONE, 0);
    assert_int_equal(ledger_remaining(again, &same).tokens, 5);
    ledger_close_path(again, &same);
    ledger_destroy(again);
    ledger_close_path(ledger, &path);
}

/* ---- leases ---- */

static void test_a_plain_call_is_durably_leased_before_it_goes_out_and_given_back_after(
    struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    str subject = uuid_str(ctx->arena, session_id);
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 1000);
    struct error e;
    assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, subject), 100);
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_USER, S("ada")),
                     0); /* unlimited: nothing to protect */
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).reserved.tokens, 100);
    struct settlement settlement = settlement_of(tokens(100), tokens(70));
    ledger_settle_plain(ledger, &path, &settlement);
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, subject), 0);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_SESSION, subject), 70);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_USER, S("ada")), 70);
    assert_true(cost_is_zero(view(ledger, &path, ACCOUNT_SESSION).reserved));
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

static void test_overlapping_calls_enlarge_the_lease_and_the_last_gives_it_back(struct testkit *kit,
                                                                                struct context *ctx)
{
    enum { CALLS = 12 };
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    str subject = uuid_str(ctx->arena, session_id);
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 100000);
    struct error e;
    int commits = 0;
    int64_t leased = 0;
    for (int i = 0; i < CALLS; i++) {
        assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
        struct record row = stored(kit, ctx, ACCOUNT_SESSION, subject);
        int64_t now = record_integer(&row, BUDGETS_LEASED_TOKENS);
        commits += now != leased;
        leased = now;
        assert_true(leased >= 100 * (i + 1));
        assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).reserved.tokens, 100 * (i + 1));
    }
    assert_true(commits < CALLS / 2); /* most drew on what was there */
    struct settlement settlement = settlement_of(tokens(100), tokens(60));
    for (int i = 0; i < CALLS; i++) {
        assert_true(stored_leased(kit, ctx, ACCOUNT_SESSION, subject) >= 100 * (CALLS - i));
        ledger_settle_plain(ledger, &path, &settlement);
    }
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, subject), 0);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).reserved.tokens, 0);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).spent.tokens, 60 * CALLS);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

static void test_plain_calls_fill_a_small_budget_to_the_last_token(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 1000);
    struct error e = {0};
    int made = 0;
    while (ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e))
        made++;
    assert_int_equal(made, 10);
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_non_null(strstr(e.message, "left 0"));
    struct settlement settlement = settlement_of(tokens(100), tokens(100));
    for (int i = 0; i < made; i++)
        ledger_settle_plain(ledger, &path, &settlement);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).spent.tokens, 1000);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).reserved.tokens, 0);
    ledger_close_path(ledger, &path);
}

static void test_a_plain_call_beyond_its_reservation_is_an_overdraft(struct testkit *kit,
                                                                     struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 1000);
    struct error e;
    assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
    struct settlement settlement = settlement_of(tokens(100), tokens(150));
    ledger_settle_plain(ledger, &path, &settlement);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).spent.tokens, 150);
    assert_int_equal(view(ledger, &path, ACCOUNT_SESSION).reserved.tokens, 0);
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, uuid_str(ctx->arena, session_id)), 0);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
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

static void test_a_lease_that_was_not_stored_is_no_lease(struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 1000);
    struct error e = {0};
    told_outcome = COMMIT_FAIL;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = before_commit});
    assert_false(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_true(cost_is_zero(view(ledger, &path, ACCOUNT_SESSION).reserved));
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 1000);
    ledger_close_path(ledger, &path);
}

static void test_a_lease_of_unknown_outcome_stays_set_aside_until_the_next_start(
    struct testkit *kit, struct context *ctx)
{
    static const enum commit_outcome outcomes[] = {COMMIT_APPLIED_BUT_FAIL, COMMIT_LOST};
    static const int64_t forfeited[] = {100, 0};
    for (size_t i = 0; i < ARRAY_COUNT(outcomes); i++) {
        struct ledger *ledger = orchestrator_ledger(kit->o);
        uuid session_id = uuid_new(kit->clock, kit->random);
        str subject = uuid_str(ctx->arena, session_id);
        struct ledger_path path = open_path(kit, ledger, ctx, session_id, 1000);
        struct error e = {0};
        told_outcome = outcomes[i];
        memory_store_set_hooks(kit->store,
                               (struct memory_store_hooks){.before_commit = before_commit});
        assert_false(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
        memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
        assert_int_equal(e.reason, REASON_OUTCOME_UNKNOWN);
        assert_int_equal(ledger_remaining(ledger, &path).tokens, 900);
        ledger_close_path(ledger, &path);
        struct ledger *again = ledger_create(kit->store, kit->clock, kit->random);
        assert_true(ledger_recover(again, ctx, &e));
        assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, subject), 0);
        assert_int_equal(stored_spent(kit, ctx, ACCOUNT_SESSION, subject), forfeited[i]);
        assert_verified(kit, again, ctx);
        ledger_destroy(again);
    }
}

static void test_what_a_crash_leaves_of_leases_is_forfeited_at_each_level_by_itself(
    struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    uuid session_id = uuid_new(kit->clock, kit->random);
    str subject = uuid_str(ctx->arena, session_id);
    struct error e;
    assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"), 5000));
    struct ledger_path path = open_path(kit, ledger, ctx, session_id, 1000);
    assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
    assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(200), &e));
    int64_t of_session = stored_leased(kit, ctx, ACCOUNT_SESSION, subject);
    int64_t of_user = stored_leased(kit, ctx, ACCOUNT_USER, S("ada"));
    assert_true(of_session >= 300 && of_user >= 300);
    struct ledger *again =
        ledger_create(kit->store, kit->clock, kit->random); /* the node died with both calls out */
    assert_true(ledger_recover(again, ctx, &e));
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_SESSION, subject), 0);
    assert_int_equal(stored_leased(kit, ctx, ACCOUNT_USER, S("ada")), 0);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_SESSION, subject), of_session);
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_USER, S("ada")), of_user);
    assert_verified(kit, again, ctx);
    assert_true(ledger_recover(again, ctx, &e)); /* a second time there is nothing left to settle */
    assert_int_equal(stored_spent(kit, ctx, ACCOUNT_SESSION, subject), of_session);
    ledger_destroy(again);
    ledger_release(ledger, &path, tokens(0));
    ledger_close_path(ledger, &path);
}

static void test_a_limit_set_while_plain_calls_are_out_leaves_nothing_behind(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, UUID_NONE, 0);
    struct settlement settlement = settlement_of(tokens(100), tokens(70));
    struct error e;
    static const int64_t limits[] = {5000, COST_UNLIMITED, 4000};
    for (size_t i = 0; i < ARRAY_COUNT(limits); i++) {
        assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
        assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
        assert_true(set_limit(kit, ledger, ctx, ACCOUNT_USER, S("ada"),
                              limits[i])); /* between the call and its end */
        ledger_settle_plain(ledger, &path, &settlement);
        assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(100), &e));
        ledger_settle_plain(ledger, &path, &settlement);
        ledger_settle_plain(ledger, &path, &settlement);
        assert_int_equal(view(ledger, &path, ACCOUNT_USER).reserved.tokens, 0);
        assert_int_equal(stored_leased(kit, ctx, ACCOUNT_USER, S("ada")), 0);
    }
    assert_int_equal(view(ledger, &path, ACCOUNT_USER).spent.tokens, 70 * 9);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

static void test_runs_and_plain_calls_share_one_limit(struct testkit *kit, struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 1000);
    struct settlement settlement = settlement_of(tokens(400), tokens(400));
    struct error e;
    assert_true(ledger_reserve(ledger, &path, tokens(400), &e));
    assert_true(ledger_reserve_plain(ledger, ctx, &path, tokens(400), &e));
    assert_false(ledger_reserve(ledger, &path, tokens(201), &e));
    assert_false(ledger_reserve_plain(ledger, ctx, &path, tokens(201), &e));
    ledger_settle_plain(ledger, &path, &settlement);
    settle(kit, ledger, ctx, &path, tokens(400), tokens(100));
    assert_int_equal(ledger_remaining(ledger, &path).tokens, 500);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &path);
}

/* ---- verification ---- */

static void test_verify_names_the_account_whose_row_was_changed(struct testkit *kit,
                                                                struct context *ctx)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_path path = open_path(kit, ledger, ctx, uuid_new(kit->clock, kit->random), 1000);
    struct batch batch;
    struct error e;
    str bad = STR_NONE;
    assert_true(ledger_reserve(ledger, &path, tokens(10), &e));
    settle(kit, ledger, ctx, &path, tokens(10), tokens(10));
    assert_verified(kit, ledger, ctx);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_ADD, TABLE_BUDGETS);
    record_set_text(row, BUDGETS_LEVEL, S("user"));
    record_set_text(row, BUDGETS_SUBJECT, S("ada"));
    record_set_integer(row, BUDGETS_SPENT_TOKENS, -1);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_true(ledger_verify(ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_starts_with(bad, S("user|ada: tokens spent 9")));
    assert_true(str_find(bad, S("add up to 10")) != STR_NOT_FOUND);
    ledger_close_path(ledger, &path);
}

static void test_costs_are_written_with_money_as_text_and_unlimited_as_null(struct testkit *kit,
                                                                            struct context *ctx)
{
    (void) kit;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 1000);
    json_writer_init(&w, &text);
    cost_write_json(&w, (cost){5, COST_UNLIMITED, 9007199254740993ll, 0});
    assert_true(str_equal(strbuf_str(&text), S("{\"tokens\":5,\"time_ms\":null,\"cost_nanousd\":"
                                               "\"9007199254740993\",\"tool_calls\":0}")));
}

/* ---- together ---- */

enum { COROUTINES = 64, ROUNDS = 20, CROWD_LIMIT = 5000 };

struct crowd {
    struct testkit *kit;
    struct ledger *ledger;
    struct ledger_path path;
    uuid session_id;
    int refused, made;
};

static void check_limit(struct crowd *crowd)
{
    struct ledger_view now = ledger_view(crowd->ledger, &crowd->path, ACCOUNT_SESSION);
    assert_true(now.spent.tokens + now.reserved.tokens <= CROWD_LIMIT);
}

static void plain_caller(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    struct error e, ignored;
    for (int i = 0; i < ROUNDS; i++) {
        cost worst = tokens(1 + (int64_t) random_below(crowd->kit->random, 200));
        bool is_made = ledger_reserve_plain(crowd->ledger, ctx, &crowd->path, worst, &e);
        check_limit(crowd);
        if (!is_made) {
            crowd->refused++;
            (void) !context_sleep_ms(ctx, 5, &ignored);
            continue;
        }
        crowd->made++;
        (void) !context_sleep_ms(ctx, (int64_t) random_below(crowd->kit->random, 30), &ignored);
        struct settlement settlement = settlement_of(worst, tokens(worst.tokens / 8));
        ledger_settle_plain(crowd->ledger, &crowd->path, &settlement);
        check_limit(crowd);
    }
}

static enum commit_outcome slow_commit(void *owner, struct context *ctx, const struct batch *batch)
{
    struct crowd *crowd = owner;
    struct error ignored;
    (void) batch;
    (void) !context_sleep_ms(ctx, (int64_t) random_below(crowd->kit->random, 10), &ignored);
    return random_below(crowd->kit->random, 20) == 0 ? COMMIT_FAIL : COMMIT_OK;
}

static void test_sixty_four_coroutines_never_pass_the_limit(struct testkit *kit,
                                                            struct context *ctx)
{
    struct crowd crowd = {.kit = kit,
                          .ledger = orchestrator_ledger(kit->o),
                          .session_id = uuid_new(kit->clock, kit->random)};
    struct group group;
    struct error e;
    crowd.path = open_path(kit, crowd.ledger, ctx, crowd.session_id, CROWD_LIMIT);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &crowd, .before_commit = slow_commit});
    group_init(&group, ctx);
    for (int i = 0; i < COROUTINES; i++)
        assert_true(group_start(&group, "caller", plain_caller, &crowd, &e));
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_true(crowd.refused > 0 && crowd.made > COROUTINES);
    assert_int_equal(view(crowd.ledger, &crowd.path, ACCOUNT_SESSION).reserved.tokens, 0);
    assert_int_equal(
        stored_leased(kit, ctx, ACCOUNT_SESSION, uuid_str(ctx->arena, crowd.session_id)), 0);
    assert_verified(kit, crowd.ledger, ctx);
    ledger_close_path(crowd.ledger, &crowd.path);
}

enum { THREADS = 4, CALLERS_EACH = 16 };

struct thread_world {
    struct crowd crowd;
    struct loop *loops[THREADS];
    _Atomic int live[THREADS];
    _Atomic int64_t made, refused;
};

static void settle_now(void *owner, struct context *ctx)
{
    struct thread_world *world = owner;
    struct batch batch;
    struct error e;
    struct ledger_taken *taken = ledger_take(world->crowd.ledger, true);
    if (!taken)
        return;
    batch_init(&batch, ctx->arena, world->crowd.kit->tenant_id);
    ledger_taken_write(world->crowd.ledger, taken, &batch);
    ensure(store_commit(world->crowd.kit->store, ctx, &batch, &e));
    ledger_taken_stored(world->crowd.ledger, taken, batch.tenant_id);
    ledger_taken_destroy(world->crowd.ledger, taken);
}

struct thread_caller {
    struct thread_world *world;
    int thread, number;
};

static void call_once(struct thread_world *world, struct context *ctx, int64_t amount,
                      bool is_plain)
{
    struct ledger *ledger = world->crowd.ledger;
    const struct ledger_path *path = &world->crowd.path;
    struct settlement settlement = settlement_of(tokens(amount), tokens(amount / 8));
    struct error e;
    bool is_made = is_plain ? ledger_reserve_plain(ledger, ctx, path, settlement.reserved, &e)
                            : ledger_reserve_in(ledger, ctx, path, settlement.reserved,
                                                &(struct ledger_cover){0}, &e);
    struct ledger_view now = ledger_view(ledger, path, ACCOUNT_SESSION);
    ensure(now.spent.tokens + now.reserved.tokens <= CROWD_LIMIT);
    atomic_fetch_add(is_made ? &world->made : &world->refused, 1);
    if (!is_made)
        return;
    coroutine_yield();
    if (is_plain) {
        ledger_settle_plain(ledger, path, &settlement);
        return;
    }
    struct batch batch;
    batch_init(&batch, ctx->arena, world->crowd.kit->tenant_id);
    ledger_settle(ledger, path, &settlement, &batch, NULL);
    ensure(store_commit(world->crowd.kit->store, ctx, &batch, &e));
    ledger_settled(ledger, path, &settlement);
}

static void thread_caller(void *argument)
{
    struct thread_caller *caller = argument;
    struct thread_world *world = caller->world;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, loop_scheduler(world->loops[caller->thread]), arena, DEADLINE_NONE);
    for (int i = 0; i < ROUNDS; i++)
        call_once(world, &ctx, 1 + (caller->number * 37 + i * 11) % 200,
                  (caller->number + i) % 3 != 0);
    context_deinit(&ctx);
    if (atomic_fetch_sub(&world->live[caller->thread], 1) == 1)
        loop_stop(world->loops[caller->thread]);
}

static void start_callers(struct thread_world *world, struct thread_caller *callers)
{
    struct error e;
    for (int t = 0; t < THREADS; t++) {
        world->loops[t] = loop_create(clock_system(), random_system(), &e);
        ensure(world->loops[t] != NULL);
        world->live[t] = CALLERS_EACH;
        for (int i = 0; i < CALLERS_EACH; i++) {
            struct thread_caller *caller = &callers[t * CALLERS_EACH + i];
            *caller = (struct thread_caller){world, t, t * CALLERS_EACH + i};
            ensure(coroutine_start(loop_scheduler(world->loops[t]), "caller", thread_caller, caller,
                                   &e));
        }
    }
    for (int t = 0; t < THREADS; t++)
        ensure(loop_start_thread(world->loops[t], "caller", &e));
    for (int t = 0; t < THREADS; t++) {
        loop_join_thread(world->loops[t]);
        loop_destroy(world->loops[t]);
    }
}

static void test_four_threads_never_pass_the_limit(struct testkit *kit, struct context *ctx)
{
    static struct thread_caller callers[THREADS * CALLERS_EACH];
    struct store *store = memory_store_create(clock_system(), random_system(),
                                              (struct memory_store_hooks){0}, S("t"));
    struct ledger *ledger = ledger_create(store, clock_system(), random_system());
    struct store *simulated = kit->store;
    kit->store = store;
    struct thread_world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->crowd = (struct crowd){
        .kit = kit, .ledger = ledger, .session_id = uuid_new(clock_system(), random_system())};
    world->crowd.path = open_path(kit, ledger, ctx, world->crowd.session_id, CROWD_LIMIT);
    ledger_set_hooks(ledger, (struct ledger_hooks){.settle = settle_now, .owner = world});
    start_callers(world, callers);
    settle_now(world, ctx);
    assert_int_equal(world->made + world->refused, THREADS * CALLERS_EACH * ROUNDS);
    assert_true(world->made > 0 && world->refused > 0);
    assert_int_equal(view(ledger, &world->crowd.path, ACCOUNT_SESSION).reserved.tokens, 0);
    assert_int_equal(
        stored_leased(kit, ctx, ACCOUNT_SESSION, uuid_str(ctx->arena, world->crowd.session_id)), 0);
    assert_verified(kit, ledger, ctx);
    ledger_close_path(ledger, &world->crowd.path);
    ledger_destroy(ledger);
    store_destroy(store);
    kit->store = simulated;
    free(world);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_reservation_is_all_or_nothing_up_the_path),
        TESTKIT_BODY(test_each_field_is_limited_by_itself),
        TESTKIT_BODY(test_a_run_level_is_there_when_it_is_limited),
        TESTKIT_BODY(test_accounts_of_two_tenants_never_meet),
        TESTKIT_BODY(test_a_settlement_moves_reserved_to_spent_here_and_in_the_store),
        TESTKIT_BODY(test_an_overdraft_is_booked_as_one_and_blocks_the_next),
        TESTKIT_BODY(test_room_is_given_back_only_once_the_settlement_is_durable),
        TESTKIT_BODY(test_a_restored_reservation_counts_even_past_the_limit),
        TESTKIT_BODY(test_what_was_spent_is_there_after_a_restart),
        TESTKIT_BODY(test_only_users_and_tenants_have_limits_that_can_be_set),
        TESTKIT_BODY(test_a_limit_is_effective_at_once_and_after_a_restart),
        TESTKIT_BODY(test_a_plain_call_is_durably_leased_before_it_goes_out_and_given_back_after),
        TESTKIT_BODY(test_overlapping_calls_enlarge_the_lease_and_the_last_gives_it_back),
        TESTKIT_BODY(test_plain_calls_fill_a_small_budget_to_the_last_token),
        TESTKIT_BODY(test_a_plain_call_beyond_its_reservation_is_an_overdraft),
        TESTKIT_BODY(test_a_lease_that_was_not_stored_is_no_lease),
        TESTKIT_BODY(test_a_lease_of_unknown_outcome_stays_set_aside_until_the_next_start),
        TESTKIT_BODY(test_what_a_crash_leaves_of_leases_is_forfeited_at_each_level_by_itself),
        TESTKIT_BODY(test_a_limit_set_while_plain_calls_are_out_leaves_nothing_behind),
        TESTKIT_BODY(test_runs_and_plain_calls_share_one_limit),
        TESTKIT_BODY(test_verify_names_the_account_whose_row_was_changed),
        TESTKIT_BODY(test_costs_are_written_with_money_as_text_and_unlimited_as_null),
        TESTKIT_BODY(test_sixty_four_coroutines_never_pass_the_limit),
        TESTKIT_BODY(test_four_threads_never_pass_the_limit),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
