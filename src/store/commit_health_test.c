#include "store/commit_health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/log.h"
#include "runtime/simulated.h"

static struct clock *timepiece;
static int lines;
static char first_line[2048];

static void pass_ms(int64_t ms)
{
    clock_manual_advance_ns(timepiece, ms * 1000000);
}

static void count_line(void *context, enum log_level level, str line)
{
    (void) context, (void) level;
    if (lines++ == 0)
        snprintf(first_line, sizeof first_line, STR_FMT, STR_ARG(line));
}

static int begin(void **state)
{
    (void) state;
    log_set_sink(count_line, NULL);
    timepiece = clock_manual_create(6000000, 1000000000);
    lines = 0;
    return 0;
}

static int end(void **state)
{
    (void) state;
    clock_manual_destroy(timepiece);
    return 0;
}

static struct error failure_of(enum error_reason reason)
{
    struct error e = {0};
    error_set(&e, reason, "no");
    return e;
}

static void test_a_failure_is_told_once_and_its_end_once(void **state)
{
    (void) state;
    struct commit_health health = {.path = "/data/nexus.db"};
    struct error full = failure_of(REASON_DISK_FULL);
    int64_t since_us;
    assert_int_equal(commit_health_look(&health, &since_us), REASON_NONE);
    for (int i = 0; i < 100; i++, pass_ms(10))
        commit_health_failed(&health, timepiece, &full);
    assert_int_equal(commit_health_look(&health, &since_us), REASON_DISK_FULL);
    assert_int_equal(since_us, 6000000);
    assert_int_equal(lines, 1);
    assert_non_null(strstr(first_line, "/data/nexus.db"));
    assert_non_null(strstr(first_line, "free space"));
    pass_ms(STORE_SETTLE_MS);
    for (int i = 0; i < 100; i++)
        commit_health_stored(&health, timepiece);
    assert_int_equal(commit_health_look(&health, &since_us), REASON_NONE);
    assert_int_equal(lines, 2);
}

static void test_a_lucky_small_commit_is_no_recovery(void **state)
{
    (void) state;
    struct commit_health health = {0};
    struct error full = failure_of(REASON_DISK_FULL);
    int64_t since_us;
    for (int i = 0; i < 50; i++) {
        commit_health_failed(&health, timepiece, &full);
        pass_ms(STORE_SETTLE_MS - 1);
        commit_health_stored(&health, timepiece);
        assert_int_equal(commit_health_look(&health, &since_us), REASON_DISK_FULL);
    }
    assert_int_equal(lines, 1);
    pass_ms(1);
    commit_health_stored(&health, timepiece);
    assert_int_equal(commit_health_look(&health, &since_us), REASON_NONE);
}

static void test_only_the_store_s_own_failures_count(void **state)
{
    (void) state;
    struct error full = failure_of(REASON_DISK_FULL), broken = failure_of(REASON_STORE);
    struct error conflict = failure_of(REASON_CONFLICT), fenced = failure_of(REASON_FENCED);
    assert_true(commit_health_counts(&full) && commit_health_counts(&broken));
    assert_false(commit_health_counts(&conflict) || commit_health_counts(&fenced));
}

static void test_while_it_fails_somebody_has_to_try_at_a_bounded_pace(void **state)
{
    (void) state;
    struct commit_health health = {0};
    struct error full = failure_of(REASON_DISK_FULL);
    assert_int_equal(commit_health_probe_ms(&health, timepiece), -1);
    commit_health_failed(&health, timepiece, &full);
    assert_int_equal(commit_health_probe_ms(&health, timepiece), STORE_PROBE_MS);
    pass_ms(STORE_PROBE_MS - 1);
    assert_int_equal(commit_health_probe_ms(&health, timepiece), 1);
    pass_ms(10);
    assert_int_equal(commit_health_probe_ms(&health, timepiece), 0);
    commit_health_stored(&health, timepiece); /* not settled: the next try has its own time */
    assert_int_equal(commit_health_probe_ms(&health, timepiece), STORE_PROBE_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_failure_is_told_once_and_its_end_once),
        TEST(a_lucky_small_commit_is_no_recovery),
        TEST(only_the_store_s_own_failures_count),
        TEST(while_it_fails_somebody_has_to_try_at_a_bounded_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
