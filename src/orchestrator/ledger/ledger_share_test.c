/* Several nodes spend from one store: spent and leased never pass the limit, whoever dies when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/ledger/ledger_internal.h"
#include "orchestrator/orchestrator_testkit.h"

enum { NODES = 3, RESERVERS = 64, ROUNDS = 12, LIMIT = 20000, KILLS = 8 };

struct share_node {
    struct ledger *ledger;
    struct ledger_path path;
    char name[16];
    int life;
    int callers; /* that still use it: a dead node's memory goes when they have noticed */
};

static struct {
    struct testkit *kit;
    uuid session_id;
    struct share_node *nodes[NODES];
    int made, refused, lost, kills;
} w;

static cost tokens(int64_t amount)
{
    return (cost){.tokens = amount};
}

static struct share_node *node_start(struct context *ctx, int number, int life)
{
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct share_node *node = calloc(1, sizeof *node);
    struct error e = {0};
    ensure(node != NULL);
    limits.session.tokens = LIMIT;
    node->life = life;
    snprintf(node->name, sizeof node->name, "node-%d.%d", number, life);
    node->ledger = ledger_create(w.kit->store, w.kit->clock, w.kit->random);
    ledger_configure(node->ledger, &(struct ledger_options){.is_shared = true,
                                                            .node = str_from_cstr(node->name)});
    if (!ledger_open_path(node->ledger, ctx, w.kit->tenant_id, S("ada"), w.session_id, UUID_NONE,
                          limits, &node->path, &e))
        fail_msg("%s", e.message);
    return node;
}

static void node_stop(struct share_node *node)
{
    ledger_close_path(node->ledger, &node->path);
    ledger_destroy(node->ledger);
    free(node);
}

static struct record stored(struct context *ctx)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error e = {0};
    record_set_text(&key, BUDGETS_LEVEL, S("session"));
    record_set_text(&key, BUDGETS_SUBJECT, uuid_str(ctx->arena, w.session_id));
    assert_true(store_get(w.kit->store, ctx, w.kit->tenant_id, &key, &row, &e));
    return row;
}

static void assert_below_limit(struct context *ctx)
{
    struct record row = stored(ctx);
    int64_t spent = record_integer(&row, BUDGETS_SPENT_TOKENS),
            leased = record_integer(&row, BUDGETS_LEASED_TOKENS);
    if (spent < 0 || leased < 0 || spent + leased > LIMIT)
        fail_msg("spent %lld + leased %lld of %d", (long long) spent, (long long) leased, LIMIT);
}

static int64_t sum_of_shares(struct context *ctx)
{
    struct query query = query_of(TABLE_BUDGET_LEASES);
    struct records rows;
    struct error e = {0};
    int64_t sum = 0;
    assert_true(store_list(w.kit->store, ctx, w.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++)
        sum += record_integer(&rows.items[i], BUDGET_LEASES_TOKENS);
    return sum;
}

static void begin(struct testkit *kit, struct context *ctx, int nodes)
{
    struct batch batch;
    struct error e = {0};
    cost limit = COST_LIMITLESS;
    memset(&w, 0, sizeof w);
    w.kit = kit;
    w.session_id = uuid_new(kit->clock, kit->random);
    limit.tokens = LIMIT;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_add_account_row(orchestrator_ledger(kit->o), &batch, ACCOUNT_SESSION,
                           uuid_str(ctx->arena, w.session_id), limit);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    for (int i = 0; i < nodes; i++)
        w.nodes[i] = node_start(ctx, i, 0);
}

struct held {
    int64_t amount;
    struct ledger_cover cover;
};

/* As a run does: in memory, then with its journal. */
static bool reserve_held(struct share_node *node, struct context *ctx, int64_t amount,
                         struct held *out)
{
    struct batch batch;
    struct error e = {0};
    *out = (struct held){.amount = amount};
    if (!ledger_reserve_in(node->ledger, ctx, &node->path, tokens(amount), &out->cover, &e))
        return false;
    batch_init(&batch, ctx->arena, w.kit->tenant_id);
    ledger_reserved_write(node->ledger, &node->path, tokens(amount), &out->cover, &batch);
    if (store_commit(w.kit->store, ctx, &batch, &e))
        return true;
    ledger_release(node->ledger, &node->path, tokens(amount));
    return false;
}

static bool settle_held(struct share_node *node, struct context *ctx, const struct held *held,
                        int64_t used)
{
    struct settlement settlement = {.reserved = tokens(held->amount),
                                    .used = tokens(used),
                                    .cover = held->cover,
                                    .kind = "model",
                                    .basis = "reported"};
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, w.kit->tenant_id);
    ledger_settle(node->ledger, &node->path, &settlement, &batch, NULL);
    if (!store_commit(w.kit->store, ctx, &batch, &e)) {
        ledger_not_settled(node->ledger, &node->path);
        return false;
    }
    ledger_settled(node->ledger, &node->path, &settlement);
    return true;
}

static bool reserve(struct share_node *node, struct context *ctx, int64_t amount)
{
    struct held held;
    return reserve_held(node, ctx, amount, &held);
}

static struct held held_of(const struct share_node *node, int64_t amount)
{
    struct held held = {.amount = amount};
    held.cover.fields[ACCOUNT_SESSION] = 1; /* tokens of the session's account */
    (void) node;
    return held;
}

static bool settle(struct share_node *node, struct context *ctx, int64_t reserved, int64_t used)
{
    struct held held = held_of(node, reserved);
    return settle_held(node, ctx, &held, used);
}

/* ---- one thing at a time ---- */

static void test_two_nodes_never_take_the_same_room(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, LIMIT - 100));
    assert_false(ledger_reserve_in(w.nodes[1]->ledger, ctx, &w.nodes[1]->path, tokens(101),
                                   &(struct ledger_cover){0}, &e));
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_non_null(strstr(e.message, "left for this node"));
    assert_true(reserve(w.nodes[1], ctx, 88)); /* the first one has taken a little ahead */
    assert_below_limit(ctx);
    assert_true(settle(w.nodes[0], ctx, LIMIT - 100, 500));
    assert_true(ledger_share_return(w.nodes[0]->ledger, ctx, true, &e));
    assert_true(reserve(w.nodes[1], ctx, LIMIT - 600));
    assert_below_limit(ctx);
    node_stop(w.nodes[0]);
    node_stop(w.nodes[1]);
}

static void test_what_idles_goes_back_by_itself(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 1);
    assert_true(reserve(w.nodes[0], ctx, 100));
    assert_true(settle(w.nodes[0], ctx, 100, 40));
    assert_true(sum_of_shares(ctx) > 0);
    assert_true(context_sleep_ms(ctx, LEDGER_LEASE_IDLE_MS + 10, &e));
    assert_true(ledger_share_return(w.nodes[0]->ledger, ctx, false, &e));
    assert_int_equal(sum_of_shares(ctx), 0);
    struct record row = stored(ctx);
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), 0);
    assert_int_equal(record_integer(&row, BUDGETS_SPENT_TOKENS), 40);
    node_stop(w.nodes[0]);
}

static void test_a_run_takes_its_room_along_when_another_node_goes_on_with_it(struct testkit *kit,
                                                                              struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, 9000)); /* of a run's; then the node dies */
    assert_true(sum_of_shares(ctx) < 9000);      /* it is in no share any more */
    struct share_node *heir = w.nodes[1];
    assert_true(ledger_share_bury(heir->ledger, ctx, S("node-0.0"), &e));
    struct record row = stored(ctx);
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), 9000); /* and not forfeited */
    ledger_restore(heir->ledger, &heir->path, tokens(9000));
    assert_false(reserve(heir, ctx, LIMIT - 9000 + 1));
    assert_below_limit(ctx);
    assert_true(settle(heir, ctx, 9000, 400));
    row = stored(ctx);
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), sum_of_shares(ctx));
    assert_below_limit(ctx);
    assert_true(reserve(heir, ctx, 8600)); /* what was not used is room of this node */
    assert_below_limit(ctx);
    str bad;
    assert_true(ledger_verify(heir->ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_is_empty(bad));
    node_stop(w.nodes[0]);
    node_stop(heir);
}

static void test_a_run_that_leaves_memory_leaves_no_room_behind(struct testkit *kit,
                                                                struct context *ctx)
{
    begin(kit, ctx, 1);
    struct share_node *node = w.nodes[0];
    cost before = ledger_view(node->ledger, &node->path, ACCOUNT_SESSION).remaining;
    for (int i = 0; i < 3; i++) {
        ledger_restore(node->ledger, &node->path, tokens(5000));
        ledger_forget(node->ledger, &node->path, tokens(5000));
    }
    cost after = ledger_view(node->ledger, &node->path, ACCOUNT_SESSION).remaining;
    assert_int_equal(before.tokens, after.tokens);
    node_stop(node);
}

static void test_a_node_that_was_buried_alive_reserves_and_settles_nothing(struct testkit *kit,
                                                                           struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, 1000));
    assert_false(ledger_share_is_gone(w.nodes[0]->ledger, ctx, &w.nodes[0]->path));
    assert_true(ledger_share_bury(w.nodes[1]->ledger, ctx, S("node-0.0"), &e));
    assert_true(ledger_share_is_gone(w.nodes[0]->ledger, ctx, &w.nodes[0]->path));
    assert_false(reserve(w.nodes[0], ctx, 10)); /* it had taken a little ahead */
    assert_false(settle(w.nodes[0], ctx, 1000, 700));
    assert_below_limit(ctx);
    struct record row = stored(ctx);
    assert_true(record_integer(&row, BUDGETS_SPENT_TOKENS) > 0); /* what it had ahead */
    node_stop(w.nodes[0]);
    node_stop(w.nodes[1]);
}

static void test_who_buries_still_knows_the_limit(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 1);
    assert_true(reserve(w.nodes[0], ctx, 1000));
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    limits.session.tokens = LIMIT;
    struct ledger *other = ledger_create(kit->store, kit->clock, kit->random);
    ledger_configure(other, &(struct ledger_options){.is_shared = true, .node = S("other")});
    assert_true(ledger_share_bury(other, ctx, S("node-0.0"), &e));
    struct ledger_path path;
    assert_true(ledger_open_path(other, ctx, kit->tenant_id, S("ada"), w.session_id, UUID_NONE,
                                 limits, &path, &e));
    assert_false(
        ledger_reserve_in(other, ctx, &path, tokens(LIMIT + 1), &(struct ledger_cover){0}, &e));
    assert_int_equal(e.reason, REASON_BUDGET);
    ledger_close_path(other, &path);
    ledger_destroy(other);
    node_stop(w.nodes[0]);
}

static void test_a_limit_that_comes_while_calls_are_out_leases_nothing_twice(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct error e = {0};
    struct held run;
    cost limit = COST_LIMITLESS;
    limit.tokens = 5000;
    begin(kit, ctx, 1);
    struct share_node *node = w.nodes[0];
    assert_true(ledger_reserve_plain(node->ledger, ctx, &node->path, tokens(300), &e));
    assert_true(reserve_held(node, ctx, 200, &run));
    assert_true(
        ledger_set_limit(node->ledger, ctx, kit->tenant_id, ACCOUNT_USER, S("ada"), limit, &e));
    ledger_settle_plain(
        node->ledger, &node->path,
        &(struct settlement){
            .reserved = tokens(300), .used = tokens(100), .kind = "model", .basis = "reported"});
    struct batch batch;
    struct ledger_taken *taken = ledger_take(node->ledger, true);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    ledger_taken_write(node->ledger, taken, &batch);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    ledger_taken_stored(node->ledger, taken, kit->tenant_id);
    ledger_taken_destroy(node->ledger, taken);
    assert_true(settle_held(node, ctx, &run, 200));
    struct record key = record_of(TABLE_BUDGETS), row;
    record_set_text(&key, BUDGETS_LEVEL, S("user"));
    record_set_text(&key, BUDGETS_SUBJECT, S("ada"));
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    assert_int_equal(record_integer(&row, BUDGETS_SPENT_TOKENS), 300);
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), 0);
    assert_false(reserve(node, ctx, 4701));
    assert_true(reserve(node, ctx, 4700));
    assert_below_limit(ctx);
    node_stop(node);
}

static void test_a_cover_is_a_digit_a_place(struct testkit *kit, struct context *ctx)
{
    struct ledger_cover cover = {0}, read;
    (void) kit;
    assert_int_equal(ledger_cover_text(ctx->arena, &cover).len, 0);
    cover.fields[1] = 15;
    cover.fields[4] = 9;
    assert_true(str_equal(ledger_cover_text(ctx->arena, &cover), S("0f009")));
    read = ledger_cover_parse(S("0f009"));
    assert_memory_equal(&read, &cover, sizeof cover);
    read = ledger_cover_parse(S("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz")); /* damaged: covers nothing */
    assert_memory_equal(&read, &(struct ledger_cover){0}, sizeof read);
}

/* ---- all at once ---- */

static struct share_node *pick(void)
{
    return w.nodes[random_below(w.kit->random, NODES)];
}

static bool is_dead(const struct share_node *node)
{
    for (int i = 0; i < NODES; i++)
        if (w.nodes[i] == node)
            return false;
    return true;
}

static void leave(struct share_node *node)
{
    if (--node->callers == 0 && is_dead(node))
        node_stop(node);
}

static void reserver(struct context *ctx, void *unused)
{
    struct error ignored;
    (void) unused;
    for (int round = 0; round < ROUNDS; round++) {
        struct share_node *node = pick();
        int64_t amount = 20 + (int64_t) random_below(w.kit->random, 400);
        node->callers++;
        struct held held;
        bool is_made = reserve_held(node, ctx, amount, &held);
        w.made += is_made;
        w.refused += !is_made;
        (void) !context_sleep_ms(ctx, (int64_t) random_below(w.kit->random, 30), &ignored);
        int64_t used = (int64_t) random_below(w.kit->random, (uint64_t) amount + 1);
        while (is_made) {
            if (is_dead(node)) { /* another node goes on with the run */
                w.lost++;
                leave(node);
                node = pick();
                node->callers++;
                ledger_restore(node->ledger, &node->path, tokens(amount));
            }
            if (settle_held(node, ctx, &held, used))
                break;
        }
        leave(node);
        assert_below_limit(ctx);
    }
}

/* Kills a node, starts another in its place, and buries the dead one. */
static void killer(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    for (w.kills = 0; w.kills < KILLS; w.kills++) {
        (void) !context_sleep_ms(ctx, 20 + (int64_t) random_below(w.kit->random, 40), &e);
        size_t i = random_below(w.kit->random, NODES);
        struct share_node *dead = w.nodes[i], *heir = w.nodes[(i + 1) % NODES];
        str name = str_copy(ctx->arena, str_from_cstr(dead->name));
        w.nodes[i] = node_start(ctx, (int) i, dead->life + 1);
        if (dead->callers == 0)
            node_stop(dead);
        heir->callers++;
        while (!ledger_share_bury(heir->ledger, ctx, name, &e))
            e = (struct error){0};
        leave(heir);
        assert_below_limit(ctx);
    }
}

static void returner(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    for (int i = 0; i < 60; i++) {
        (void) !context_sleep_ms(ctx, 20, &e);
        struct share_node *node = pick();
        node->callers++;
        (void) !ledger_share_return(node->ledger, ctx, random_below(w.kit->random, 2) == 0, &e);
        leave(node);
    }
}

static enum commit_outcome slow_commit(void *owner, struct context *ctx, const struct batch *batch)
{
    struct error ignored;
    (void) owner;
    (void) batch;
    (void) !context_sleep_ms(ctx, (int64_t) random_below(w.kit->random, 8), &ignored);
    return random_below(w.kit->random, 25) == 0 ? COMMIT_FAIL : COMMIT_OK;
}

static void test_sixty_four_reservers_on_three_nodes_with_kills(struct testkit *kit,
                                                                struct context *ctx)
{
    struct group group;
    struct error e = {0};
    struct ledger_report report;
    begin(kit, ctx, NODES);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = slow_commit});
    group_init(&group, ctx);
    for (int i = 0; i < RESERVERS; i++)
        assert_true(group_start(&group, "reserver", reserver, NULL, &e));
    assert_true(group_start(&group, "killer", killer, NULL, &e));
    assert_true(group_start(&group, "returner", returner, NULL, &e));
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    print_message("note: %d reserved, %d refused, %d lost with %d nodes killed\n", w.made,
                  w.refused, w.lost, w.kills);
    assert_true(w.made > RESERVERS && w.refused > 0 && w.kills == KILLS);
    for (int i = 0; i < NODES; i++) {
        assert_true(ledger_share_bury(w.nodes[(i + 1) % NODES]->ledger, ctx,
                                      str_from_cstr(w.nodes[i]->name), &e));
        assert_below_limit(ctx);
    }
    struct record row = stored(ctx);
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), 0);
    assert_int_equal(sum_of_shares(ctx), 0);
    assert_true(ledger_check(w.nodes[0]->ledger, ctx, kit->tenant_id, &report, &e));
    if (!str_is_empty(report.first_bad))
        fail_msg(STR_FMT, STR_ARG(report.first_bad));
    for (int i = 0; i < NODES; i++)
        node_stop(w.nodes[i]);
}

/* ---- alerts ---- */

static size_t count_alerts(struct context *ctx)
{
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e = {0};
    query_where_text(&query, AUDIT_LOGS_ACTION, S("budget.alert"));
    assert_true(store_list(w.kit->store, ctx, w.kit->tenant_id, &query, &rows, &e));
    return rows.count;
}

/* Neither of the two passed half of it alone. */
static void test_what_all_nodes_spent_is_told_by_one_of_them(struct testkit *kit,
                                                             struct context *ctx)
{
    static const int half[] = {500, 900};
    struct error e = {0};
    cost limit = COST_LIMITLESS;
    limit.tokens = 1000;
    begin(kit, ctx, 2);
    for (int i = 0; i < 2; i++)
        ledger_set_thresholds(w.nodes[i]->ledger, half, 2);
    assert_true(ledger_set_limit(w.nodes[0]->ledger, ctx, kit->tenant_id, ACCOUNT_USER, S("ada"),
                                 limit, &e));
    assert_true(ledger_share_look(w.nodes[1]->ledger, ctx, &e));
    for (int i = 0; i < 2; i++) {
        struct held held;
        assert_true(reserve_held(w.nodes[i], ctx, 300, &held));
        assert_true(settle_held(w.nodes[i], ctx, &held, 300));
        assert_int_equal(count_alerts(ctx), 0);
    }
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2; i++)
            assert_true(ledger_share_look(w.nodes[i]->ledger, ctx, &e));
    assert_int_equal(count_alerts(ctx), 1);
    struct record key = record_of(TABLE_BUDGETS), row;
    record_set_text(&key, BUDGETS_LEVEL, S("user"));
    record_set_text(&key, BUDGETS_SUBJECT, S("ada"));
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    assert_int_equal(record_integer(&row, BUDGETS_ALERTED), 500);
    for (int i = 0; i < 2; i++)
        node_stop(w.nodes[i]);
}

/* ---- what a row says that was read before a limit was set ---- */

static struct record row_of_user(struct context *ctx)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error e = {0};
    account_set_key(&key, ACCOUNT_USER, S("ada"));
    assert_true(store_get(w.kit->store, ctx, w.kit->tenant_id, &key, &row, &e));
    return row;
}

static void hear(struct context *ctx, const struct record *row, uint64_t seen)
{
    struct share_node *node = w.nodes[0];
    struct error e = {0};
    assert_true(account_hear(node->ledger, ctx, node->path.accounts[ACCOUNT_USER], row, seen, &e));
}

static void set_day(struct context *ctx)
{
    struct ledger_setting setting = {.limit = COST_LIMITLESS, .period = PERIOD_DAY};
    struct error e = {0};
    setting.limit.tokens = 500;
    assert_true(ledger_set(w.nodes[0]->ledger, ctx, w.kit->tenant_id, ACCOUNT_USER, S("ada"),
                           &setting, &e));
}

static void assert_day(void)
{
    const struct account *account = w.nodes[0]->path.accounts[ACCOUNT_USER];
    assert_int_equal(account->period.period, PERIOD_DAY);
    assert_int_equal(account->limit.tokens, 500);
}

static void test_a_row_that_was_read_before_a_limit_was_set_does_not_undo_it(struct testkit *kit,
                                                                             struct context *ctx)
{
    begin(kit, ctx, 1);
    struct account *account = w.nodes[0]->path.accounts[ACCOUNT_USER];
    struct record old = row_of_user(ctx);
    uint64_t seen = account_settings(w.nodes[0]->ledger, account);
    set_day(ctx);
    hear(ctx, &old, seen);
    assert_day();
    struct record new = row_of_user(ctx);
    hear(ctx, &new, account_settings(w.nodes[0]->ledger, account));
    assert_day();
    node_stop(w.nodes[0]);
}

static enum commit_outcome hear_old_row(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) batch;
    const struct record *old = owner;
    hear(ctx, old, account_settings(w.nodes[0]->ledger, w.nodes[0]->path.accounts[ACCOUNT_USER]));
    return COMMIT_OK;
}

static void test_a_row_that_is_heard_while_a_limit_is_being_stored_does_not_undo_it(
    struct testkit *kit, struct context *ctx)
{
    begin(kit, ctx, 1);
    struct record old = row_of_user(ctx);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &old, .before_commit = hear_old_row});
    set_day(ctx);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_day();
    node_stop(w.nodes[0]);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_row_that_was_read_before_a_limit_was_set_does_not_undo_it),
        TESTKIT_BODY(test_a_row_that_is_heard_while_a_limit_is_being_stored_does_not_undo_it),
        TESTKIT_BODY(test_two_nodes_never_take_the_same_room),
        TESTKIT_BODY(test_what_idles_goes_back_by_itself),
        TESTKIT_BODY(test_a_run_takes_its_room_along_when_another_node_goes_on_with_it),
        TESTKIT_BODY(test_a_run_that_leaves_memory_leaves_no_room_behind),
        TESTKIT_BODY(test_a_node_that_was_buried_alive_reserves_and_settles_nothing),
        TESTKIT_BODY(test_who_buries_still_knows_the_limit),
        TESTKIT_BODY(test_a_limit_that_comes_while_calls_are_out_leases_nothing_twice),
        TESTKIT_BODY(test_a_cover_is_a_digit_a_place),
        TESTKIT_BODY(test_what_all_nodes_spent_is_told_by_one_of_them),
        TESTKIT_BODY(test_sixty_four_reservers_on_three_nodes_with_kills),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
