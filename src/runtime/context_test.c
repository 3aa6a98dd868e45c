#include "runtime/context.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/simulated.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS INT64_C(1000000)

struct world {
    struct clock *clock;
    struct random *random;
    struct scheduler *scheduler;
    struct context ctx; /* the root of what a test starts */
    struct waiter waiter;
    struct condition condition;
    struct error e;
    bool ok;
    int done_count;
    int64_t ended_ns;
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->clock = clock_manual_create(0, 0);
    world->random = random_seeded_create(1);
    world->scheduler = scheduler_create(world->clock, world->random, (struct scheduler_hooks){0});
    context_init(&world->ctx, world->scheduler, arena_create(0), DEADLINE_NONE);
    condition_init(&world->condition);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    context_deinit(&world->ctx);
    scheduler_destroy(world->scheduler);
    arena_destroy(world->ctx.arena);
    random_seeded_destroy(world->random);
    clock_manual_destroy(world->clock);
    free(world);
    return 0;
}

static void start(struct world *world, coroutine_fn *fn)
{
    assert_true(coroutine_start(world->scheduler, "test", fn, world, &world->e));
}

static void settle(struct world *world)
{
    assert_false(scheduler_run_ready(world->scheduler, 10000));
}

static void run(struct world *world)
{
    assert_true(simulated_run(world->scheduler, world->clock, 100000));
}

/* ---- contexts ---- */

static void test_a_child_has_the_nearer_deadline_and_the_same_identity(void **state)
{
    struct world *world = *state;
    struct context parent, later, sooner;
    context_init(&parent, world->scheduler, world->ctx.arena, 100);
    parent.tenant_id = uuid_new(world->clock, world->random);
    parent.trace.is_sampled = true;
    context_init_child(&later, &parent, DEADLINE_NONE);
    context_init_child(&sooner, &parent, 50);
    assert_int_equal(later.deadline_ns, 100);
    assert_int_equal(sooner.deadline_ns, 50);
    assert_ptr_equal(later.arena, parent.arena);
    assert_true(uuid_equal(later.tenant_id, parent.tenant_id));
    assert_true(later.trace.is_sampled);
    context_deinit(&later);
    context_deinit(&sooner);
    context_deinit(&parent);
}

static void test_cancel_reaches_all_descendants_and_no_one_else(void **state)
{
    struct world *world = *state;
    struct context a, aa, aaa, ab, b, late;
    context_init_child(&a, &world->ctx, DEADLINE_NONE);
    context_init_child(&aa, &a, DEADLINE_NONE);
    context_init_child(&aaa, &aa, DEADLINE_NONE);
    context_init_child(&ab, &a, DEADLINE_NONE);
    context_init_child(&b, &world->ctx, DEADLINE_NONE);
    context_cancel(&aa);
    assert_true(context_is_cancelled(&aaa));
    assert_false(context_is_cancelled(&a));
    context_cancel(&a);
    context_cancel(&a);
    assert_true(context_is_cancelled(&ab));
    assert_false(context_is_cancelled(&b));
    assert_false(context_is_cancelled(&world->ctx));
    context_init_child(&late, &aa, DEADLINE_NONE);
    assert_true(context_is_cancelled(&late));
    struct context *all[] = {&late, &aaa, &aa, &ab, &a, &b};
    for (size_t i = 0; i < ARRAY_COUNT(all); i++)
        context_deinit(all[i]);
}

static void test_check_tells_cancelled_before_timeout(void **state)
{
    struct world *world = *state;
    struct context ctx;
    struct error e;
    context_init_child(&ctx, &world->ctx, 10);
    assert_true(context_check(&ctx, &e));
    clock_manual_advance_to_ns(world->clock, 9);
    assert_true(context_check(&ctx, &e));
    clock_manual_advance_to_ns(world->clock, 10);
    assert_false(context_check(&ctx, &e));
    assert_int_equal(e.code, ERROR_TIMEOUT);
    context_cancel(&ctx);
    assert_false(context_check(&ctx, &e));
    assert_int_equal(e.code, ERROR_CANCELLED);
    context_deinit(&ctx);
}

static void test_deadline_in_takes_the_nearer_and_survives_overflow(void **state)
{
    struct world *world = *state;
    struct context ctx;
    clock_manual_advance_to_ns(world->clock, 7);
    context_init_child(&ctx, &world->ctx, 50 * MS);
    assert_int_equal(context_deadline_in(&ctx, 20), 20 * MS + 7);
    assert_int_equal(context_deadline_in(&ctx, 51), 50 * MS);
    assert_int_equal(context_deadline_in(&ctx, INT64_MAX), 50 * MS);
    assert_int_equal(context_deadline_in(&world->ctx, INT64_MAX), DEADLINE_NONE);
    context_deinit(&ctx);
}

/* ---- waiters ---- */

static void wait_once(void *argument)
{
    struct world *world = argument;
    waiter_init(&world->waiter, &world->ctx);
    world->ok = waiter_wait_until(&world->waiter, 100 * MS, &world->e);
    world->ended_ns = context_now_ns(&world->ctx);
    world->done_count++;
}

static void test_a_wake_up_ends_the_wait(void **state)
{
    struct world *world = *state;
    start(world, wait_once);
    settle(world);
    assert_int_equal(world->done_count, 0);
    waiter_wake(&world->waiter);
    waiter_wake(&world->waiter);
    settle(world);
    assert_int_equal(world->done_count, 1);
    assert_true(world->ok);
    assert_int_equal(scheduler_next_deadline_ns(world->scheduler), INT64_MAX);
}

static void test_without_a_wake_up_the_deadline_ends_the_wait(void **state)
{
    struct world *world = *state;
    start(world, wait_once);
    run(world);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
    assert_int_equal(world->ended_ns, 100 * MS);
}

static void test_the_contexts_deadline_bounds_each_wait(void **state)
{
    struct world *world = *state;
    world->ctx.deadline_ns = 30 * MS;
    start(world, wait_once);
    run(world);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
    assert_int_equal(world->ended_ns, 30 * MS);
}

static void test_cancel_ends_present_and_future_waits(void **state)
{
    struct world *world = *state;
    start(world, wait_once);
    settle(world);
    context_cancel(&world->ctx);
    settle(world);
    assert_int_equal(world->done_count, 1);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
    start(world, wait_once);
    settle(world);
    assert_int_equal(world->done_count, 2);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
}

static void test_a_wake_up_in_time_wins_over_cancel_and_deadline(void **state)
{
    struct world *world = *state;
    start(world, wait_once);
    settle(world);
    clock_manual_advance_to_ns(world->clock, 100 * MS);
    scheduler_run_timers(world->scheduler);
    waiter_wake(&world->waiter);
    context_cancel(&world->ctx);
    settle(world);
    assert_true(world->ok);
}

static void wait_after_wake_up(void *argument)
{
    struct world *world = argument;
    struct waiter waiter;
    waiter_init(&waiter, &world->ctx);
    waiter_wake(&waiter);
    world->ok = waiter_wait(&waiter, &world->e);
    /* The kept wake-up is used up. */
    ensure(!waiter_wait_until(&waiter, context_now_ns(&world->ctx) + MS, &world->e));
    waiter_wake(&waiter);
    ensure(waiter_wait(&waiter, &world->e));
    world->done_count++;
}

static void test_a_wake_up_before_the_wait_is_kept_once(void **state)
{
    struct world *world = *state;
    start(world, wait_after_wake_up);
    run(world);
    assert_true(world->ok);
    assert_int_equal(world->done_count, 1);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
}

/* ---- sleep ---- */

static void sleep_20_ms(void *argument)
{
    struct world *world = argument;
    world->ok = context_sleep_ms(&world->ctx, 20, &world->e);
    world->ended_ns = context_now_ns(&world->ctx);
    world->done_count++;
}

static void test_sleep_lasts_as_long_as_asked(void **state)
{
    struct world *world = *state;
    start(world, sleep_20_ms);
    run(world);
    assert_true(world->ok);
    assert_int_equal(world->ended_ns, 20 * MS);
}

static void test_sleep_past_the_deadline_times_out_at_the_deadline(void **state)
{
    struct world *world = *state;
    world->ctx.deadline_ns = 15 * MS;
    start(world, sleep_20_ms);
    run(world);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
    assert_int_equal(world->ended_ns, 15 * MS);
}

static void test_cancel_ends_a_sleep(void **state)
{
    struct world *world = *state;
    start(world, sleep_20_ms);
    settle(world);
    context_cancel(&world->ctx);
    settle(world);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
    assert_int_equal(scheduler_next_deadline_ns(world->scheduler), INT64_MAX);
}

/* ---- conditions ---- */

static void wait_for_condition(void *argument)
{
    struct world *world = argument;
    if (condition_wait_until(&world->condition, &world->ctx, 100 * MS, &world->e))
        world->done_count++;
}

static void test_signal_wakes_one_and_broadcast_all(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 5; i++)
        start(world, wait_for_condition);
    settle(world);
    condition_signal(&world->condition);
    settle(world);
    assert_int_equal(world->done_count, 1);
    condition_broadcast(&world->condition);
    settle(world);
    assert_int_equal(world->done_count, 5);
    condition_signal(&world->condition); /* nobody is there */
    condition_broadcast(&world->condition);
}

static void test_a_signal_is_not_lost_on_who_just_timed_out(void **state)
{
    struct world *world = *state;
    start(world, wait_for_condition);
    start(world, wait_for_condition);
    settle(world);
    clock_manual_advance_to_ns(world->clock, 100 * MS);
    scheduler_run_timers(world->scheduler);
    condition_signal(&world->condition);
    settle(world);
    assert_int_equal(world->done_count, 1);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
    assert_true(list_is_empty(&world->condition.waiters));
}

/* ---- groups ---- */

static void child_sleeps(struct context *ctx, void *argument)
{
    struct world *world = argument;
    struct error e;
    ensure(ctx->arena != world->ctx.arena);
    ensure(arena_alloc(ctx->arena, 100) != NULL);
    if (context_sleep_ms(ctx, 50, &e))
        world->done_count++;
    else
        ensure(error_copy(&world->e, &e) == false);
}

static void join_children(void *argument)
{
    struct world *world = argument;
    struct group group;
    group_init(&group, &world->ctx);
    for (int i = 0; i < 10; i++)
        ensure(group_start(&group, "child", child_sleeps, world, &world->e));
    group_wait(&group);
    world->ended_ns = context_now_ns(&world->ctx);
}

static void test_a_group_joins_all_its_children(void **state)
{
    struct world *world = *state;
    start(world, join_children);
    run(world);
    assert_int_equal(world->done_count, 10);
    assert_int_equal(world->ended_ns, 50 * MS);
}

static void test_cancelling_the_parent_ends_the_children_and_still_joins(void **state)
{
    struct world *world = *state;
    start(world, join_children);
    settle(world);
    context_cancel(&world->ctx);
    settle(world);
    assert_int_equal(scheduler_coroutine_count(world->scheduler), 0);
    assert_int_equal(world->done_count, 0);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
}

static void cancel_children(void *argument)
{
    struct world *world = argument;
    struct group group;
    group_init(&group, &world->ctx);
    for (int i = 0; i < 3; i++)
        ensure(group_start(&group, "child", child_sleeps, world, &world->e));
    coroutine_yield();
    group_cancel(&group);
    /* A child of a cancelled group starts cancelled. */
    ensure(group_start(&group, "late", child_sleeps, world, &world->e));
    group_wait(&group);
    ensure(context_check(&world->ctx, &world->e));
    world->ended_ns = context_now_ns(&world->ctx);
}

static void test_leaving_a_group_early_cancels_only_its_children(void **state)
{
    struct world *world = *state;
    start(world, cancel_children);
    run(world);
    assert_int_equal(world->done_count, 0);
    assert_int_equal(world->ended_ns, 0);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
}

static void fill_group(void *argument)
{
    struct world *world = argument;
    struct group group;
    group_init(&group, &world->ctx);
    for (int i = 0; i < GROUP_CHILDREN_MAX; i++)
        ensure(group_start(&group, "child", child_sleeps, world, &world->e));
    world->ok = group_start(&group, "one more", child_sleeps, world, &world->e);
    ensure(context_sleep_ms(&world->ctx, 60, &(struct error){0}));
    ensure(group_start(&group, "after some ended", child_sleeps, world, &(struct error){0}));
    group_wait(&group);
}

static void test_a_group_refuses_a_child_past_its_limit(void **state)
{
    struct world *world = *state;
    world->ok = true;
    start(world, fill_group);
    run(world);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_LIMIT);
    assert_int_equal(world->done_count, GROUP_CHILDREN_MAX + 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_child_has_the_nearer_deadline_and_the_same_identity),
        TEST(test_cancel_reaches_all_descendants_and_no_one_else),
        TEST(test_check_tells_cancelled_before_timeout),
        TEST(test_deadline_in_takes_the_nearer_and_survives_overflow),
        TEST(test_a_wake_up_ends_the_wait),
        TEST(test_without_a_wake_up_the_deadline_ends_the_wait),
        TEST(test_the_contexts_deadline_bounds_each_wait),
        TEST(test_cancel_ends_present_and_future_waits),
        TEST(test_a_wake_up_in_time_wins_over_cancel_and_deadline),
        TEST(test_a_wake_up_before_the_wait_is_kept_once),
        TEST(test_sleep_lasts_as_long_as_asked),
        TEST(test_sleep_past_the_deadline_times_out_at_the_deadline),
        TEST(test_cancel_ends_a_sleep),
        TEST(test_signal_wakes_one_and_broadcast_all),
        TEST(test_a_signal_is_not_lost_on_who_just_timed_out),
        TEST(test_a_group_joins_all_its_children),
        TEST(test_cancelling_the_parent_ends_the_children_and_still_joins),
        TEST(test_leaving_a_group_early_cancels_only_its_children),
        TEST(test_a_group_refuses_a_child_past_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
