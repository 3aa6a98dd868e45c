/* Several nodes spend from one store: spent and leased never pass the limit, whoever dies when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
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

static bool reserve(struct share_node *node, struct context *ctx, int64_t amount)
{
    struct error e = {0};
    return ledger_reserve_in(node->ledger, ctx, &node->path, tokens(amount), &e);
}

static bool settle(struct share_node *node, struct context *ctx, int64_t reserved, int64_t used)
{
    struct settlement settlement = {
        .reserved = tokens(reserved), .used = tokens(used), .kind = "model", .basis = "reported"};
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

/* ---- one thing at a time ---- */

static void test_two_nodes_never_take_the_same_room(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, LIMIT - 100));
    assert_false(ledger_reserve_in(w.nodes[1]->ledger, ctx, &w.nodes[1]->path, tokens(101), &e));
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

static void test_a_run_takes_its_share_along_when_another_node_goes_on_with_it(struct testkit *kit,
                                                                               struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, 9000)); /* of a run's; then the node dies */
    struct share_node *heir = w.nodes[1];
    assert_true(ledger_adopt(heir->ledger, ctx, &heir->path, tokens(9000), S("node-0.0"), &e));
    ledger_restore(heir->ledger, &heir->path, tokens(9000));
    assert_below_limit(ctx);
    assert_true(settle(heir, ctx, 9000, 9000));
    assert_true(ledger_share_bury(heir->ledger, ctx, S("node-0.0"), &e));
    assert_below_limit(ctx);
    str bad;
    assert_true(ledger_verify(heir->ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_is_empty(bad));
    node_stop(w.nodes[0]);
    node_stop(heir);
}

static void test_a_node_that_was_buried_alive_settles_nothing(struct testkit *kit,
                                                              struct context *ctx)
{
    struct error e = {0};
    begin(kit, ctx, 2);
    assert_true(reserve(w.nodes[0], ctx, 1000));
    assert_true(ledger_share_bury(w.nodes[1]->ledger, ctx, S("node-0.0"), &e));
    assert_false(settle(w.nodes[0], ctx, 1000, 700));
    assert_below_limit(ctx);
    struct record row = stored(ctx);
    assert_true(record_integer(&row, BUDGETS_SPENT_TOKENS) >= 1000); /* all that it had */
    node_stop(w.nodes[0]);
    node_stop(w.nodes[1]);
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
        bool is_made = reserve(node, ctx, amount);
        w.made += is_made;
        w.refused += !is_made;
        (void) !context_sleep_ms(ctx, (int64_t) random_below(w.kit->random, 30), &ignored);
        if (is_made && !is_dead(node)) /* what a dead node's call came to is nobody's to tell */
            settle(node, ctx, amount, (int64_t) random_below(w.kit->random, (uint64_t) amount + 1));
        else
            w.lost += is_made;
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

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_two_nodes_never_take_the_same_room),
        TESTKIT_BODY(test_what_idles_goes_back_by_itself),
        TESTKIT_BODY(test_a_run_takes_its_share_along_when_another_node_goes_on_with_it),
        TESTKIT_BODY(test_a_node_that_was_buried_alive_settles_nothing),
        TESTKIT_BODY(test_sixty_four_reservers_on_three_nodes_with_kills),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
