#include "runtime/scheduler.h"

#include "base/ensure.h"
#include "base/error.h"
#include "base/limits.h"
#include "runtime/coroutine_switch_internal.h"
#include "runtime/death_testkit.h"
#include "runtime/scheduler_internal.h"
#include "runtime/simulated.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct world {
    struct clock *clock;
    struct random *random;
    struct scheduler *scheduler;
    char trace[256];
    size_t trace_len;
    int became_ready_count;
    int64_t next_deadline_ns;
    size_t picks;
};

static void on_ready(void *owner)
{
    ((struct world *) owner)->became_ready_count++;
}

static void on_timer_changed(void *owner, int64_t next_deadline_ns)
{
    ((struct world *) owner)->next_deadline_ns = next_deadline_ns;
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->clock = clock_manual_create(0, 0);
    world->random = random_seeded_create(1);
    world->scheduler = scheduler_create(
        world->clock, world->random,
        (struct scheduler_hooks){
            .owner = world, .became_ready = on_ready, .timer_changed = on_timer_changed});
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    scheduler_destroy(world->scheduler);
    random_seeded_destroy(world->random);
    clock_manual_destroy(world->clock);
    free(world);
    return 0;
}

static void note(struct world *world, char c)
{
    ensure(world->trace_len + 1 < sizeof world->trace);
    world->trace[world->trace_len++] = c;
}

static void start(struct world *world, coroutine_fn *fn)
{
    struct error e;
    assert_true(coroutine_start(world->scheduler, "test", fn, world, &e));
}

static void abc(void *argument)
{
    struct world *world = argument;
    for (char c = 'a'; c <= 'c'; c++) {
        note(world, c);
        coroutine_yield();
    }
}

static void xyz(void *argument)
{
    struct world *world = argument;
    for (char c = 'x'; c <= 'z'; c++) {
        note(world, c);
        coroutine_yield();
    }
}

static void test_coroutines_take_turns_in_order(void **state)
{
    struct world *world = *state;
    start(world, abc);
    start(world, xyz);
    assert_string_equal(world->trace, "");
    assert_false(scheduler_run_ready(world->scheduler, 100));
    assert_string_equal(world->trace, "axbycz");
    assert_int_equal(scheduler_coroutine_count(world->scheduler), 0);
}

static void test_the_budget_bounds_a_run(void **state)
{
    struct world *world = *state;
    start(world, abc);
    start(world, xyz);
    assert_true(scheduler_run_ready(world->scheduler, 3));
    assert_string_equal(world->trace, "axb");
    assert_true(scheduler_run_ready(world->scheduler, 0));
    assert_int_equal(scheduler_ready_count(world->scheduler), 2);
    assert_false(scheduler_run_ready(world->scheduler, 100));
    assert_string_equal(world->trace, "axbycz");
}

static size_t pick_last(void *owner, size_t count)
{
    ((struct world *) owner)->picks++;
    return count - 1;
}

static void test_pick_chooses_who_runs_next(void **state)
{
    struct world *world = *state;
    struct scheduler *scheduler = scheduler_create(
        world->clock, world->random, (struct scheduler_hooks){.owner = world, .pick = pick_last});
    struct error e;
    assert_true(coroutine_start(scheduler, "abc", abc, world, &e));
    assert_true(coroutine_start(scheduler, "xyz", xyz, world, &e));
    assert_false(scheduler_run_ready(scheduler, 100));
    assert_string_equal(world->trace, "xyzabc");
    assert_int_equal(world->picks, 8);
    scheduler_destroy(scheduler);
}

static struct coroutine *parked;

static void park(void *argument)
{
    struct world *world = argument;
    parked = coroutine_current();
    note(world, '(');
    coroutine_suspend();
    note(world, ')');
}

static void test_a_double_wake_up_is_harmless(void **state)
{
    struct world *world = *state;
    start(world, park);
    assert_int_equal(world->became_ready_count, 1);
    assert_false(scheduler_run_ready(world->scheduler, 100));
    assert_string_equal(world->trace, "(");
    assert_int_equal(scheduler_coroutine_count(world->scheduler), 1);
    coroutine_wake(parked);
    coroutine_wake(parked);
    assert_int_equal(world->became_ready_count, 2);
    assert_int_equal(scheduler_ready_count(world->scheduler), 1);
    assert_false(scheduler_run_ready(world->scheduler, 100));
    assert_string_equal(world->trace, "()");
}

static void look_around(void *argument)
{
    struct world *world = argument;
    note(world, coroutine_is_running() ? 'c' : 't');
    note(world, scheduler_current() == world->scheduler ? 's' : '-');
    /* Two levels of this do not fit a coroutine's stack. */
    volatile char big[COROUTINE_STACK_BYTES - 8192];
    for (size_t i = 0; i < sizeof big; i += 1024)
        big[i] = 1;
    if (world->trace_len < 6)
        coroutine_on_thread_stack(look_around, world);
}

static void on_thread_stack_twice(void *argument)
{
    struct world *world = argument;
    ensure(coroutine_is_running());
    coroutine_on_thread_stack(look_around, world);
    ensure(coroutine_is_running());
    note(world, '|');
    coroutine_yield();
    world->trace_len = 0;
    coroutine_on_thread_stack(look_around, world);
}

static void test_deep_calls_run_on_the_thread_stack(void **state)
{
    struct world *world = *state;
    start(world, on_thread_stack_twice);
    assert_true(scheduler_run_ready(world->scheduler, 1));
    assert_string_equal(world->trace, "tststs|");
    assert_false(scheduler_run_ready(world->scheduler, 100));
    assert_string_equal(world->trace, "tststs|");
}

static void test_on_thread_stack_is_a_plain_call_outside(void **state)
{
    struct world *world = *state;
    world->trace_len = 4;
    memcpy(world->trace, "....", 4);
    coroutine_on_thread_stack(look_around, world);
    assert_string_equal(world->trace, "....t-");
}

struct test_timer {
    struct timer timer;
    struct world *world;
    char mark;
    int64_t again_ns; /* -1: not */
};

static void on_fire(struct timer *timer)
{
    struct test_timer *t = CONTAINER_OF(timer, struct test_timer, timer);
    note(t->world, t->mark);
    if (t->again_ns >= 0)
        timer_arm(t->world->scheduler, timer, t->again_ns);
}

static void test_due_timers_fire_in_order_of_deadline(void **state)
{
    struct world *world = *state;
    struct test_timer timers[4];
    for (int i = 0; i < 4; i++)
        timers[i] = (struct test_timer){{.fire = on_fire}, world, (char) ('1' + i), -1};
    timer_arm(world->scheduler, &timers[0].timer, 300);
    assert_int_equal(world->next_deadline_ns, 300);
    timer_arm(world->scheduler, &timers[1].timer, 100);
    assert_int_equal(world->next_deadline_ns, 100);
    timer_arm(world->scheduler, &timers[2].timer, 200);
    timer_arm(world->scheduler, &timers[3].timer, 150);
    assert_int_equal(world->next_deadline_ns, 100);
    timer_disarm(world->scheduler, &timers[3].timer);
    timer_disarm(world->scheduler, &timers[3].timer);
    timer_arm(world->scheduler, &timers[0].timer, 250); /* moves */
    assert_int_equal(scheduler_run_timers(world->scheduler), 100);
    clock_manual_advance_to_ns(world->clock, 200);
    assert_int_equal(scheduler_run_timers(world->scheduler), 250);
    assert_string_equal(world->trace, "23");
    clock_manual_advance_to_ns(world->clock, 1000);
    assert_int_equal(scheduler_run_timers(world->scheduler), INT64_MAX);
    assert_string_equal(world->trace, "231");
}

static void test_a_timer_that_rearms_itself_cannot_hold_the_loop(void **state)
{
    struct world *world = *state;
    struct test_timer timer = {{.fire = on_fire}, world, '!', 0};
    timer_arm(world->scheduler, &timer.timer, 0);
    assert_int_equal(scheduler_run_timers(world->scheduler), 0);
    assert_string_equal(world->trace, "!");
    timer_disarm(world->scheduler, &timer.timer);
}

/* TSan takes half a millisecond per fiber; there is no second thread to find in this test. */
#ifndef NEXUS_TSAN
static void count_up(void *argument)
{
    ++*(size_t *) argument;
}

static void test_past_the_limit_a_start_is_refused(void **state)
{
    struct world *world = *state;
    size_t ran = 0;
    struct error e;
    for (int i = 0; i < COROUTINE_COUNT_MAX; i++)
        ensure(coroutine_start(world->scheduler, "count", count_up, &ran, &e));
    assert_false(coroutine_start(world->scheduler, "one more", count_up, &ran, &e));
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    assert_false(scheduler_run_ready(world->scheduler, SIZE_MAX));
    assert_int_equal(ran, COROUTINE_COUNT_MAX);
    assert_true(coroutine_start(world->scheduler, "one more", count_up, &ran, &e));
    assert_false(scheduler_run_ready(world->scheduler, SIZE_MAX));
}

#endif

/* ---- what must end the process ---- */

struct death {
    struct world *world;
    coroutine_fn *fn;
};

static void run_coroutine(void *argument)
{
    struct death *death = argument;
    struct error e;
    ensure(coroutine_start(death->world->scheduler, "dies", death->fn, death->world, &e));
    scheduler_run_ready(death->world->scheduler, 100);
}

static bool dies(coroutine_fn *fn, struct world *world)
{
    return process_dies(run_coroutine, &(struct death){world, fn});
}

static void lives(void *argument)
{
    (void) argument;
    no_suspend_begin();
    no_suspend_end();
    coroutine_yield();
}

static void waits_where_it_must_not(void *argument)
{
    (void) argument;
    no_suspend_begin();
    coroutine_yield();
    no_suspend_end();
}

static void ends_where_it_must_not(void *argument)
{
    (void) argument;
    no_suspend_begin();
}

__attribute__((noinline)) static int recurse(int depth)
{
    volatile char frame[512];
    frame[0] = (char) depth;
    return depth == 0 ? frame[0] : recurse(depth - 1) + frame[0];
}

static void overflows(void *argument)
{
    ((struct world *) argument)->picks = (size_t) recurse(100000);
}

static void recurses_within(void *argument)
{
    ((struct world *) argument)->picks = (size_t) recurse(30);
}

static void test_a_wait_in_a_no_suspend_stretch_ends_the_process(void **state)
{
    assert_false(dies(lives, *state));
    assert_true(dies(waits_where_it_must_not, *state));
    assert_true(dies(ends_where_it_must_not, *state));
}

static void test_a_stack_overflow_ends_the_process(void **state)
{
    assert_false(dies(recurses_within, *state));
    assert_true(dies(overflows, *state));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_coroutines_take_turns_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_budget_bounds_a_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pick_chooses_who_runs_next, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_double_wake_up_is_harmless, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deep_calls_run_on_the_thread_stack, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_on_thread_stack_is_a_plain_call_outside, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_due_timers_fire_in_order_of_deadline, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_timer_that_rearms_itself_cannot_hold_the_loop,
                                        set_up, tear_down),
#ifndef NEXUS_TSAN
        cmocka_unit_test_setup_teardown(test_past_the_limit_a_start_is_refused, set_up, tear_down),
#endif
        cmocka_unit_test_setup_teardown(test_a_wait_in_a_no_suspend_stretch_ends_the_process,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stack_overflow_ends_the_process, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
