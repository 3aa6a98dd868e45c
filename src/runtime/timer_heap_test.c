#include "runtime/timer_heap_internal.h"

#include "runtime/simulated.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_timers_come_out_nearest_first(void **state)
{
    (void) state;
    static const int64_t deadlines[] = {50, 10, 40, 20, 30, 60, 5};
    struct timer timers[ARRAY_COUNT(deadlines)] = {0};
    struct timer_heap heap;
    timer_heap_init(&heap);
    assert_int_equal(timer_heap_next_ns(&heap), INT64_MAX);
    for (size_t i = 0; i < ARRAY_COUNT(deadlines); i++)
        timer_heap_add(&heap, &timers[i], deadlines[i]);
    assert_int_equal(timer_heap_next_ns(&heap), 5);
    int64_t last = 0;
    while (heap.count > 0) {
        struct timer *timer = timer_heap_pop(&heap);
        assert_true(timer->deadline_ns > last);
        assert_int_equal(timer->heap_index, 0);
        last = timer->deadline_ns;
    }
    timer_heap_deinit(&heap);
}

static void test_equal_deadlines_come_out_in_order_of_arming(void **state)
{
    (void) state;
    enum { COUNT = 100 };
    struct timer timers[COUNT] = {0};
    struct timer_heap heap;
    timer_heap_init(&heap);
    for (size_t i = 0; i < COUNT; i++)
        timer_heap_add(&heap, &timers[i], 7);
    for (size_t i = 0; i < COUNT; i++)
        assert_ptr_equal(timer_heap_pop(&heap), &timers[i]);
    timer_heap_deinit(&heap);
}

/* Against the plainest model: a linear search for the smallest armed one. */
static void test_random_adds_and_removes_agree_with_a_linear_search(void **state)
{
    (void) state;
    enum { COUNT = 200, STEPS = 20000 };
    static struct timer timers[COUNT];
    struct random *random = random_seeded_create(7);
    struct timer_heap heap;
    timer_heap_init(&heap);
    for (int step = 0; step < STEPS; step++) {
        struct timer *timer = &timers[random_below(random, COUNT)];
        if (timer->heap_index)
            timer_heap_remove(&heap, timer);
        else
            timer_heap_add(&heap, timer, (int64_t) random_below(random, 1000));
        int64_t nearest = INT64_MAX;
        for (size_t i = 0; i < COUNT; i++)
            if (timers[i].heap_index && timers[i].deadline_ns < nearest)
                nearest = timers[i].deadline_ns;
        assert_int_equal(timer_heap_next_ns(&heap), nearest);
    }
    while (heap.count > 0)
        timer_heap_pop(&heap);
    timer_heap_deinit(&heap);
    random_seeded_destroy(random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_come_out_nearest_first),
        cmocka_unit_test(test_equal_deadlines_come_out_in_order_of_arming),
        cmocka_unit_test(test_random_adds_and_removes_agree_with_a_linear_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
