#include "runtime/loop.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <uv.h>

#include <cmocka.h>

#define MS INT64_C(1000000)

struct world {
    struct loop *loop;
    struct context ctx;
    struct error e;
    int count;
    int64_t elapsed_ns;
    struct turn_end turn_end;
    char trace[64];
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->loop = loop_create(clock_system(), random_system(), &world->e);
    ensure(world->loop != NULL);
    context_init(&world->ctx, loop_scheduler(world->loop), NULL, DEADLINE_NONE);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    context_deinit(&world->ctx);
    loop_destroy(world->loop);
    free(world);
    return 0;
}

static void start(struct world *world, coroutine_fn *fn)
{
    ensure(coroutine_start(loop_scheduler(world->loop), "test", fn, world, &world->e));
}

static void note(struct world *world, char c)
{
    size_t len = strlen(world->trace);
    ensure(len + 1 < sizeof world->trace);
    world->trace[len] = c;
}

static void sleep_then_stop(void *argument)
{
    struct world *world = argument;
    int64_t started_ns = context_now_ns(&world->ctx);
    ensure(loop_current() == world->loop);
    ensure(context_sleep_ms(&world->ctx, 20, &world->e));
    world->elapsed_ns = context_now_ns(&world->ctx) - started_ns;
    loop_stop(world->loop);
}

static void test_a_sleep_takes_its_time_and_not_much_more(void **state)
{
    struct world *world = *state;
    start(world, sleep_then_stop);
    loop_run(world->loop);
    assert_null(loop_current());
    assert_true(world->elapsed_ns >= 20 * MS);
    assert_true(world->elapsed_ns < 2000 * MS); /* the machine may be busy */
}

static void test_a_loop_runs_again_after_a_stop(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 3; i++) {
        start(world, sleep_then_stop);
        loop_run(world->loop);
    }
}

static void test_a_stop_before_the_run_is_kept(void **state)
{
    struct world *world = *state;
    loop_stop(world->loop);
    loop_run(world->loop);
}

static void sleep_while_stopping(void *argument)
{
    struct world *world = argument;
    ensure(context_sleep_ms(&world->ctx, 10, &world->e));
    world->count++;
}

static void test_a_stop_waits_for_the_coroutines(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 10; i++)
        start(world, sleep_while_stopping);
    loop_stop(world->loop);
    loop_run(world->loop);
    assert_int_equal(world->count, 10);
}

static void close_timer(uv_timer_t *timer)
{
    ++*(int *) timer->data;
    uv_close((uv_handle_t *) timer, NULL);
}

static void test_a_stop_waits_for_open_handles(void **state)
{
    struct world *world = *state;
    uv_timer_t timer = {.data = &world->count};
    uv_timer_init(loop_uv(world->loop), &timer);
    uv_timer_start(&timer, close_timer, 10, 0);
    loop_stop(world->loop);
    loop_run(world->loop);
    assert_int_equal(world->count, 1);
}

/* ---- posts ---- */

enum { POSTS_PER_SENDER = 20000, SENDERS = 4 };

struct sender {
    struct world *world;
    pthread_t thread;
    int next; /* on the loop: the number that must come next */
};

struct numbered {
    struct sender *sender;
    int number;
};

static void receive_post(void *argument)
{
    struct numbered *numbered = argument;
    struct sender *sender = numbered->sender;
    ensure(loop_current() == sender->world->loop);
    ensure(numbered->number == sender->next++);
    free(numbered);
    if (++sender->world->count == POSTS_PER_SENDER * SENDERS)
        loop_stop(sender->world->loop);
}

static void *send_posts(void *argument)
{
    struct sender *sender = argument;
    for (int i = 0; i < POSTS_PER_SENDER; i++) {
        struct numbered *numbered = malloc(sizeof *numbered);
        ensure(numbered != NULL);
        *numbered = (struct numbered){sender, i};
        loop_post(sender->world->loop, receive_post, numbered);
    }
    return NULL;
}

static void test_posts_arrive_once_and_in_order_per_sender(void **state)
{
    struct world *world = *state;
    struct sender senders[SENDERS] = {0};
    for (int i = 0; i < SENDERS; i++) {
        senders[i].world = world;
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_posts, &senders[i]), 0);
    }
    loop_run(world->loop);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    assert_int_equal(world->count, POSTS_PER_SENDER * SENDERS);
}

static void post_myself(void *argument)
{
    struct world *world = argument;
    if (++world->count < 1000)
        loop_post(world->loop, post_myself, world);
    else
        loop_stop(world->loop);
}

static void test_a_loop_may_post_to_itself(void **state)
{
    struct world *world = *state;
    loop_post(world->loop, post_myself, world);
    loop_run(world->loop);
    assert_int_equal(world->count, 1000);
}

static void count_post(void *argument)
{
    ((struct world *) argument)->count++;
}

static void test_posts_that_came_too_late_run_at_destruction(void **state)
{
    struct world *world = *state;
    struct error e;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(loop);
    loop_stop(loop);
    loop_run(loop);
    loop_post(loop, count_post, world);
    loop_destroy(loop);
    assert_int_equal(world->count, 1);
}

/* ---- turns ---- */

static void on_turn_end(struct turn_end *turn_end)
{
    struct world *world = CONTAINER_OF(turn_end, struct world, turn_end);
    note(world, '.');
    if (strlen(world->trace) < 6)
        loop_at_turn_end(world->loop, turn_end);
    else
        loop_stop(world->loop);
}

static void write_twice(void *argument)
{
    struct world *world = argument;
    note(world, 'w');
    loop_at_turn_end(world->loop, &world->turn_end);
    coroutine_yield();
    note(world, 'w');
    loop_at_turn_end(world->loop, &world->turn_end);
}

static void test_turn_ends_run_once_after_the_ready_coroutines(void **state)
{
    struct world *world = *state;
    world->turn_end.run = on_turn_end;
    start(world, write_twice);
    loop_run(world->loop);
    assert_string_equal(world->trace, "ww....");
}

static void spin(void *argument)
{
    struct world *world = argument;
    while (!world->count)
        coroutine_yield();
    loop_stop(world->loop);
}

static void test_busy_coroutines_leave_the_loop_its_turn(void **state)
{
    struct world *world = *state;
    uv_timer_t timer = {.data = &world->count};
    uv_timer_init(loop_uv(world->loop), &timer);
    uv_timer_start(&timer, close_timer, 5, 0);
    start(world, spin);
    start(world, spin);
    loop_run(world->loop);
    assert_int_equal(world->count, 1);
}

static void test_an_idle_loop_uses_no_cpu(void **state)
{
    struct world *world = *state;
    struct timespec before, after;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    start(world, sleep_then_stop);
    loop_run(world->loop);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * 1000 * MS + (after.tv_nsec - before.tv_nsec);
    assert_true(used_ns < 15 * MS); /* of 20 ms asleep */
}

/* ---- threads and indexes ---- */

static void test_loops_run_on_threads_of_their_own(void **state)
{
    struct world *world = *state;
    start(world, sleep_then_stop);
    assert_true(loop_start_thread(world->loop, "loop-0", &world->e));
    loop_join_thread(world->loop);
    assert_true(world->elapsed_ns >= 20 * MS);
}

static void test_indexes_are_the_lowest_free_and_bounded(void **state)
{
    struct world *world = *state;
    struct loop *loops[LOOP_COUNT_MAX];
    struct error e;
    assert_int_equal(loop_index(world->loop), 0);
    for (int i = 1; i < LOOP_COUNT_MAX; i++) {
        loops[i] = loop_create(clock_system(), random_system(), &e);
        assert_non_null(loops[i]);
        assert_int_equal(loop_index(loops[i]), i);
    }
    assert_null(loop_create(clock_system(), random_system(), &e));
    assert_int_equal(e.code, ERROR_LIMIT);
    loop_destroy(loops[7]);
    loops[7] = loop_create(clock_system(), random_system(), &e);
    assert_int_equal(loop_index(loops[7]), 7);
    for (int i = 1; i < LOOP_COUNT_MAX; i++)
        loop_destroy(loops[i]);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_sleep_takes_its_time_and_not_much_more),
        TEST(test_a_loop_runs_again_after_a_stop),
        TEST(test_a_stop_before_the_run_is_kept),
        TEST(test_a_stop_waits_for_the_coroutines),
        TEST(test_a_stop_waits_for_open_handles),
        TEST(test_posts_arrive_once_and_in_order_per_sender),
        TEST(test_a_loop_may_post_to_itself),
        TEST(test_posts_that_came_too_late_run_at_destruction),
        TEST(test_turn_ends_run_once_after_the_ready_coroutines),
        TEST(test_busy_coroutines_leave_the_loop_its_turn),
        TEST(test_an_idle_loop_uses_no_cpu),
        TEST(test_loops_run_on_threads_of_their_own),
        TEST(test_indexes_are_the_lowest_free_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
