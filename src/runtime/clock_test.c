#include "runtime/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_monotonic_time_never_goes_back(void **state)
{
    (void) state;
    int64_t last_ns = clock_monotonic_ns(clock_system());
    for (int i = 0; i < 10000; i++) {
        int64_t now_ns = clock_monotonic_ns(clock_system());
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
}

static void test_unix_time_counts_microseconds_since_1970(void **state)
{
    (void) state;
    int64_t now_us = clock_unix_us(clock_system());
    assert_true(now_us > INT64_C(1700000000) * 1000000);
    assert_true(now_us < INT64_C(4900000000) * 1000000);
}

static void test_random_bytes_differ_between_calls_and_sizes(void **state)
{
    (void) state;
    uint8_t first[1000] = {0}, second[1000] = {0};
    for (size_t len = 16; len <= sizeof first; len += 41) {
        random_system()->ops->fill(random_system(), first, len);
        random_system()->ops->fill(random_system(), second, len);
        assert_memory_not_equal(first, second, len);
    }
}

static void test_random_below_stays_below_and_reaches_all(void **state)
{
    (void) state;
    unsigned seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        uint64_t value = random_below(random_system(), 7);
        assert_true(value < 7);
        seen[value]++;
    }
    for (size_t i = 0; i < ARRAY_COUNT(seen); i++)
        assert_in_range(seen[i], 700, 1300);
    assert_int_equal(random_below(random_system(), 1), 0);
}

static void test_random_below_works_at_the_largest_bound(void **state)
{
    (void) state;
    bool has_large = false;
    for (int i = 0; i < 100; i++)
        has_large = has_large || random_below(random_system(), UINT64_MAX) > UINT64_MAX / 2;
    assert_true(has_large);
}

static void *draw(void *argument)
{
    random_system()->ops->fill(random_system(), argument, 32);
    return NULL;
}

static void test_threads_draw_different_bytes(void **state)
{
    (void) state;
    uint8_t mine[32], theirs[32];
    pthread_t thread;
    draw(mine);
    assert_int_equal(pthread_create(&thread, NULL, draw, theirs), 0);
    pthread_join(thread, NULL);
    assert_memory_not_equal(mine, theirs, sizeof mine);
}

static void test_new_uuids_are_version_7_and_rise_strictly(void **state)
{
    (void) state;
    uuid last = uuid_new(clock_system(), random_system());
    assert_int_equal(last.bytes[6] >> 4, 7);
    assert_int_equal(last.bytes[8] >> 6, 2);
    for (int i = 0; i < 1000; i++) {
        uuid next = uuid_new(clock_system(), random_system());
        assert_false(uuid_equal(last, next));
        assert_true(memcmp(last.bytes, next.bytes, sizeof last.bytes) < 0);
        last = next;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic_time_never_goes_back),
        cmocka_unit_test(test_unix_time_counts_microseconds_since_1970),
        cmocka_unit_test(test_random_bytes_differ_between_calls_and_sizes),
        cmocka_unit_test(test_random_below_stays_below_and_reaches_all),
        cmocka_unit_test(test_random_below_works_at_the_largest_bound),
        cmocka_unit_test(test_threads_draw_different_bytes),
        cmocka_unit_test(test_new_uuids_are_version_7_and_rise_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
