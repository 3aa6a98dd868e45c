#include "runtime/loop.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/simulated.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MS INT64_C(1000000)

struct world {
    struct loop *loop;
    struct context ctx;
    struct error e;
    bool ok;
    atomic_int ran_count, begun_count;
    struct context cut_short;
    int done_count, refused_count;
    pthread_t here;
    atomic_bool is_released; /* lets the blockers go */
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->loop = loop_create(clock_system(), random_system(), &world->e);
    ensure(world->loop != NULL);
    world->here = pthread_self();
    context_init(&world->ctx, loop_scheduler(world->loop), NULL, DEADLINE_NONE);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    context_deinit(&world->ctx);
    loop_destroy(world->loop);
    blocking_pool_stop();
    free(world);
    return 0;
}

static void start(struct world *world, coroutine_fn *fn)
{
    ensure(coroutine_start(loop_scheduler(world->loop), "test", fn, world, &world->e));
}

static void work(void *argument)
{
    struct world *world = argument;
    ensure(!pthread_equal(pthread_self(), world->here));
    ensure(!coroutine_is_running());
    world->ran_count++;
}

static void call_often(void *argument)
{
    struct world *world = argument;
    for (int i = 0; i < 100; i++)
        ensure(blocking_call(&world->ctx, work, world, &world->e));
    if (++world->done_count == 20)
        loop_stop(world->loop);
}

static void test_calls_run_elsewhere_and_come_back(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 20; i++)
        start(world, call_often);
    loop_run(world->loop);
    assert_int_equal(world->ran_count, 2000);
}

static void block(void *argument)
{
    struct world *world = argument;
    world->begun_count++;
    while (!world->is_released)
        usleep(1000);
}

static void wait_for_begun(struct world *world, int count)
{
    struct error e;
    while (world->begun_count < count)
        ensure(context_sleep_ms(&world->ctx, 1, &e));
}

static void call_and_be_cancelled(void *argument)
{
    struct world *world = argument;
    context_init_child(&world->cut_short, &world->ctx, DEADLINE_NONE);
    world->ok = blocking_call(&world->cut_short, block, world, &world->e);
    context_deinit(&world->cut_short);
    ensure(world->is_released); /* it was waited for all the same */
    world->done_count++;
}

static void cancel_then_release(void *argument)
{
    struct world *world = argument;
    struct error e;
    wait_for_begun(world, 1);
    context_cancel(&world->cut_short);
    ensure(context_sleep_ms(&world->ctx, 20, &e));
    ensure(world->done_count == 0);
    world->is_released = true;
    loop_stop(world->loop);
}

static void test_a_cancel_returns_only_after_the_work_has(void **state)
{
    struct world *world = *state;
    world->ok = true;
    start(world, call_and_be_cancelled);
    start(world, cancel_then_release);
    loop_run(world->loop);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
    assert_int_equal(world->done_count, 1);
}

static void call_cancelled(void *argument)
{
    struct world *world = argument;
    context_cancel(&world->ctx);
    world->ok = blocking_call(&world->ctx, work, world, &world->e);
    loop_stop(world->loop);
}

static void test_a_cancelled_context_starts_no_work(void **state)
{
    struct world *world = *state;
    world->ok = true;
    start(world, call_cancelled);
    loop_run(world->loop);
    assert_false(world->ok);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
    assert_int_equal(world->ran_count, 0);
}

static void call_block(void *argument)
{
    struct world *world = argument;
    ensure(blocking_call(&world->ctx, block, world, &world->e));
}

static void call_queued(void *argument)
{
    struct world *world = argument;
    struct context ctx;
    struct error e;
    context_init_child(&ctx, &world->ctx, context_deadline_in(&world->ctx, 10));
    ensure(!blocking_call(&ctx, work, world, &e));
    ensure(e.code == ERROR_TIMEOUT);
    context_deinit(&ctx);
    world->is_released = true;
    loop_stop(world->loop);
}

static void test_work_that_has_not_begun_is_taken_back(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < BLOCKING_THREADS; i++)
        start(world, call_block);
    start(world, call_queued);
    loop_run(world->loop);
    assert_int_equal(world->ran_count, 0);
}

static void call_one_of_many(void *argument)
{
    struct world *world = argument;
    struct error e;
    if (blocking_call(&world->ctx, work, world, &e)) {
        world->done_count++;
        return;
    }
    ensure(e.reason == REASON_OVERLOADED_HERE);
    world->refused_count++;
}

static void release(void *argument)
{
    struct world *world = argument;
    wait_for_begun(world, BLOCKING_THREADS); /* then the queue holds just the others */
    for (int i = 0; i < BLOCKING_QUEUE_MAX; i++)
        start(world, call_one_of_many);
    coroutine_yield();
    ensure(world->refused_count == 0);
    start(world, call_one_of_many);
    coroutine_yield();
    ensure(world->refused_count == 1);
    world->is_released = true;
    loop_stop(world->loop);
}

static void test_past_its_bound_the_queue_refuses(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < BLOCKING_THREADS; i++)
        start(world, call_block);
    start(world, release);
    loop_run(world->loop);
    assert_int_equal(world->done_count, BLOCKING_QUEUE_MAX);
    assert_int_equal(world->refused_count, 1);
}

static void work_here(void *argument)
{
    ((struct world *) argument)->ran_count++;
}

static void call_without_loop(void *argument)
{
    struct world *world = argument;
    struct context ctx;
    context_init(&ctx, scheduler_current(), NULL, DEADLINE_NONE);
    world->ok = blocking_call(&ctx, work_here, world, &world->e);
    context_deinit(&ctx);
}

static void test_without_a_loop_the_work_runs_at_once(void **state)
{
    struct world *world = *state;
    struct clock *clock = clock_manual_create(0, 0);
    struct scheduler *scheduler =
        scheduler_create(clock, random_system(), (struct scheduler_hooks){0});
    assert_true(coroutine_start(scheduler, "test", call_without_loop, world, &world->e));
    assert_true(simulated_run(scheduler, clock, 100));
    assert_true(world->ok);
    assert_int_equal(world->ran_count, 1);
    scheduler_destroy(scheduler);
    clock_manual_destroy(clock);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calls_run_elsewhere_and_come_back),
        TEST(test_a_cancel_returns_only_after_the_work_has),
        TEST(test_a_cancelled_context_starts_no_work),
        TEST(test_work_that_has_not_begun_is_taken_back),
        TEST(test_past_its_bound_the_queue_refuses),
        TEST(test_without_a_loop_the_work_runs_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
