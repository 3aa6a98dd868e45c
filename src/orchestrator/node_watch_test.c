/* Nodes of one store: who beats is alive, who does not is removed once, and its runs go on. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/node_watch.h"
#include "orchestrator/orchestrator_internal.h"

static void put_node(struct testkit *kit, struct context *ctx, const char *node, int64_t beat)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, UUID_NONE);
    struct record *row = batch_add(&batch, WRITE_UPSERT, TABLE_NODES);
    record_set_text(row, NODES_NODE, str_from_cstr(node));
    record_set_integer(row, NODES_BEAT, beat);
    record_set_integer(row, NODES_STARTED_AT, 0);
    record_set_integer(row, NODES_SEEN_AT, 0);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
}

static void remove_row(struct testkit *kit, struct context *ctx, const char *node)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, UUID_NONE);
    record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_NODES), NODES_NODE, str_from_cstr(node));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
}

/* -1: it has no row. */
static int64_t beat_of(struct testkit *kit, struct context *ctx, const char *node)
{
    struct record key = record_of(TABLE_NODES), row;
    struct error e = {0};
    record_set_text(&key, NODES_NODE, str_from_cstr(node));
    return store_get(kit->store, ctx, UUID_NONE, &key, &row, &e) ? record_integer(&row, NODES_BEAT)
                                                                 : -1;
}

static void turn(struct node_watch *watch, struct context *ctx)
{
    struct error e = {0};
    if (!node_watch_turn(watch, ctx, &e))
        fail_msg("%s", e.message);
}

/* As the sweeps do, until so much time has passed. */
static void turn_for(struct node_watch *watch, struct context *ctx, int64_t ms)
{
    struct error e = {0};
    for (int64_t passed = 0; passed < ms; passed += NODE_BEAT_MS) {
        assert_true(context_sleep_ms(ctx, NODE_BEAT_MS, &e));
        turn(watch, ctx);
    }
}

static struct node_watch *join(struct testkit *kit, struct context *ctx, size_t *resumed)
{
    struct node_watch *watch = node_watch_create(kit->o);
    struct error e = {0};
    *resumed = 0;
    if (!node_watch_join(watch, ctx, resumed, &e))
        fail_msg("%s", e.message);
    return watch;
}

static void test_a_node_counts_its_row_up(struct testkit *kit, struct context *ctx)
{
    size_t resumed;
    struct node_watch *watch = join(kit, ctx, &resumed);
    assert_int_equal(beat_of(kit, ctx, kit->node), 1);
    turn(watch, ctx);
    turn(watch, ctx);
    assert_int_equal(beat_of(kit, ctx, kit->node), 3);
    node_watch_destroy(watch);
}

static void test_a_count_that_stands_still_is_removed_and_one_that_goes_on_is_not(
    struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    size_t resumed;
    put_node(kit, ctx, "still", 7);
    struct node_watch *watch = join(kit, ctx, &resumed);
    for (int64_t passed = 0, beat = 1; passed < NODE_LATE_MS + NODE_BEAT_MS;
         passed += NODE_BEAT_MS, beat++) {
        assert_int_equal(beat_of(kit, ctx, "still"), 7);
        put_node(kit, ctx, "alive", beat);
        assert_true(context_sleep_ms(ctx, NODE_BEAT_MS, &e));
        turn(watch, ctx);
        if (beat_of(kit, ctx, "still") < 0)
            break;
    }
    assert_int_equal(beat_of(kit, ctx, "still"), -1);
    assert_true(beat_of(kit, ctx, "alive") > 0);
    node_watch_destroy(watch);
}

static void test_who_was_asleep_judges_nobody_at_once(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    size_t resumed;
    put_node(kit, ctx, "still", 7);
    struct node_watch *watch = join(kit, ctx, &resumed);
    turn(watch, ctx);
    assert_true(context_sleep_ms(ctx, 5 * NODE_LATE_MS, &e)); /* nothing of us moved */
    turn(watch, ctx);
    assert_int_equal(beat_of(kit, ctx, "still"), 7); /* perhaps it slept as we did */
    turn_for(watch, ctx, NODE_LATE_MS + NODE_BEAT_MS);
    assert_int_equal(beat_of(kit, ctx, "still"), -1);
    node_watch_destroy(watch);
}

static int expulsions;

static void count_expulsion(void *owner)
{
    (void) owner;
    expulsions++;
}

static void test_a_node_whose_row_is_gone_is_told_once(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    size_t resumed;
    expulsions = 0;
    kit->o->parts.expelled = count_expulsion;
    struct node_watch *watch = join(kit, ctx, &resumed);
    remove_row(kit, ctx, kit->node);
    assert_false(node_watch_turn(watch, ctx, &e));
    assert_int_equal(e.code, ERROR_NOT_FOUND);
    e = (struct error){0};
    assert_false(node_watch_turn(watch, ctx, &e));
    assert_int_equal(expulsions, 1);
    assert_int_equal(beat_of(kit, ctx, kit->node), -1); /* it does not come back by itself */
    node_watch_destroy(watch);
}

/* ---- its runs ---- */

static struct node_watch *heir;

static void join_beside_the_dead(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    size_t resumed;
    put_node(kit, ctx, "node-0", 9); /* its row is there yet */
    heir = join(kit, ctx, &resumed);
    assert_int_equal(resumed, 0);
    assert_str(testkit_status(kit, ctx, scene.run_id), "running");
    turn_for(heir, ctx, NODE_LATE_MS / 2);
    assert_int_equal(kit->model_calls, 1);
}

static void outlive(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    turn_for(heir, ctx, 2 * NODE_LATE_MS);
    assert_int_equal(beat_of(kit, ctx, "node-0"), -1);
}

static void check_gone_on(struct context *ctx, void *argument)
{
    (void) argument;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_RUN_RESUMED, "node", scene.kit->node);
    node_watch_destroy(heir);
}

static void test_the_runs_of_a_node_go_on_elsewhere_when_it_is_late_not_before(struct testkit *kit)
{
    scene_start(kit);
    assert_string_equal(kit->node, "node-0");
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_crash_only(kit);
    testkit_do(kit, join_beside_the_dead, kit);
    testkit_do(kit, outlive, kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_gone_on, NULL);
}

static void join_alone(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    size_t resumed;
    heir = join(kit, ctx, &resumed);
    assert_int_equal(resumed, 1);
}

static void test_who_joins_takes_the_runs_that_nobody_has(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_crash_only(kit);
    testkit_do(kit, join_alone, kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_gone_on, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_node_counts_its_row_up),
        TESTKIT_BODY(test_a_count_that_stands_still_is_removed_and_one_that_goes_on_is_not),
        TESTKIT_BODY(test_who_was_asleep_judges_nobody_at_once),
        TESTKIT_BODY(test_a_node_whose_row_is_gone_is_told_once),
        TESTKIT_SCRIPT(test_the_runs_of_a_node_go_on_elsewhere_when_it_is_late_not_before),
        TESTKIT_SCRIPT(test_who_joins_takes_the_runs_that_nobody_has),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
