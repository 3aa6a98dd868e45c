#include "runtime/simulated.h"

#include "base/ensure.h"
#include "base/error.h"
#include "runtime/context.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_the_manual_clock_moves_only_when_told(void **state)
{
    (void) state;
    struct clock *clock = clock_manual_create(1000000, 5000);
    assert_int_equal(clock_unix_us(clock), 1000000);
    assert_int_equal(clock_monotonic_ns(clock), 5000);
    clock_manual_advance_ns(clock, 2000000);
    assert_int_equal(clock_unix_us(clock), 1002000);
    assert_int_equal(clock_monotonic_ns(clock), 2005000);
    clock_manual_advance_to_ns(clock, 1);
    assert_int_equal(clock_monotonic_ns(clock), 2005000);
    clock_manual_shift_wall_us(clock, -500);
    assert_int_equal(clock_unix_us(clock), 1001500);
    assert_int_equal(clock_monotonic_ns(clock), 2005000);
    clock_manual_destroy(clock);
}

static void test_equal_seeds_give_equal_histories(void **state)
{
    (void) state;
    struct random *a = random_seeded_create(42), *b = random_seeded_create(42),
                  *c = random_seeded_create(43);
    bool differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t value = random_u64(a);
        assert_true(value == random_u64(b));
        differs = differs || value != random_u64(c);
    }
    assert_true(differs);
    random_seeded_destroy(a);
    random_seeded_destroy(b);
    random_seeded_destroy(c);
}

/* By Blackman and Vigna's reference code. */
static void test_seed_zero_gives_the_reference_sequence(void **state)
{
    (void) state;
    static const uint64_t expected[] = {0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au,
                                        0x1a5f849d4933e6e0u};
    struct random *random = random_seeded_create(0);
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++)
        assert_true(random_u64(random) == expected[i]);
    random_seeded_destroy(random);
}

static void sleeper(void *argument)
{
    struct context ctx;
    struct error e;
    context_init(&ctx, scheduler_current(), NULL, DEADLINE_NONE);
    for (int i = 0; i < 3; i++)
        ensure(context_sleep_ms(&ctx, 3600 * 1000, &e));
    *(int64_t *) argument = context_now_ns(&ctx);
    context_deinit(&ctx);
}

static void test_simulated_time_passes_without_waiting(void **state)
{
    (void) state;
    struct clock *clock = clock_manual_create(0, 0);
    struct random *random = random_seeded_create(1);
    struct scheduler *scheduler = scheduler_create(clock, random, (struct scheduler_hooks){0});
    int64_t ended_ns = 0;
    struct error e;
    assert_true(coroutine_start(scheduler, "sleeper", sleeper, &ended_ns, &e));
    assert_true(simulated_run(scheduler, clock, 100));
    assert_int_equal(ended_ns, INT64_C(3) * 3600 * 1000 * 1000000);
    scheduler_destroy(scheduler);
    random_seeded_destroy(random);
    clock_manual_destroy(clock);
}

static void spinner(void *argument)
{
    while (!*(bool *) argument)
        coroutine_yield();
}

static void test_a_run_that_never_ends_is_told(void **state)
{
    (void) state;
    struct clock *clock = clock_manual_create(0, 0);
    struct random *random = random_seeded_create(1);
    struct scheduler *scheduler = scheduler_create(clock, random, (struct scheduler_hooks){0});
    bool is_done = false;
    struct error e;
    assert_true(coroutine_start(scheduler, "spinner", spinner, &is_done, &e));
    assert_false(simulated_run(scheduler, clock, 100));
    is_done = true;
    assert_true(simulated_run(scheduler, clock, 100));
    scheduler_destroy(scheduler);
    random_seeded_destroy(random);
    clock_manual_destroy(clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_manual_clock_moves_only_when_told),
        cmocka_unit_test(test_equal_seeds_give_equal_histories),
        cmocka_unit_test(test_seed_zero_gives_the_reference_sequence),
        cmocka_unit_test(test_simulated_time_passes_without_waiting),
        cmocka_unit_test(test_a_run_that_never_ends_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
