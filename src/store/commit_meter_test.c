#include "store/commit_meter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/limits.h"

#define MS 1000000ll

static void test_the_newest_commits_count_most(void **state)
{
    (void) state;
    struct commit_meter meter = {0};
    assert_int_equal(commit_meter_us(&meter, 5 * MS), 0);
    commit_meter_begin(&meter, 10 * MS);
    commit_meter_end(&meter, 10 * MS, 14 * MS);
    assert_int_equal(commit_meter_us(&meter, 14 * MS), 4000);
    commit_meter_begin(&meter, 20 * MS);
    commit_meter_end(&meter, 20 * MS, 420 * MS);
    assert_int_equal(commit_meter_us(&meter, 420 * MS), 202000);
    commit_meter_begin(&meter, 430 * MS);
    commit_meter_end(&meter, 430 * MS, 432 * MS);
    assert_int_equal(commit_meter_us(&meter, 432 * MS), 102000);
}

static void test_one_that_hangs_shows_before_it_ends(void **state)
{
    (void) state;
    struct commit_meter meter = {0};
    commit_meter_begin(&meter, 0);
    assert_int_equal(commit_meter_us(&meter, 3000 * MS), 3000000);
    commit_meter_begin(&meter, 2900 * MS);
    commit_meter_end(&meter, 0, 3000 * MS);
    assert_int_equal(commit_meter_us(&meter, 3000 * MS), 3000000);
    commit_meter_end(&meter, 2900 * MS, 3000 * MS);
    assert_int_equal(commit_meter_us(&meter, 3000 * MS), 1550000);
}

static void test_a_slow_one_is_forgotten_when_nothing_follows(void **state)
{
    (void) state;
    struct commit_meter meter = {0};
    commit_meter_begin(&meter, 0);
    commit_meter_end(&meter, 0, 9000 * MS);
    assert_true(commit_meter_us(&meter, (9000 + STORE_LOAD_IDLE_MS) * MS) > 0);
    assert_int_equal(commit_meter_us(&meter, (9001 + STORE_LOAD_IDLE_MS) * MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_commits_count_most),
        cmocka_unit_test(test_one_that_hangs_shows_before_it_ends),
        cmocka_unit_test(test_a_slow_one_is_forgotten_when_nothing_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
