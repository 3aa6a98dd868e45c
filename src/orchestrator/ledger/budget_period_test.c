#include "orchestrator/ledger/budget_period.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/timefmt.h"

static int64_t at(const char *text)
{
    int64_t us = 0;
    assert_true(time_parse(str_from_cstr(text), &us));
    return us;
}

static void assert_bounds(enum period period, const char *when, const char *start, const char *end)
{
    int64_t start_us, end_us;
    period_bounds(period, at(when), &start_us, &end_us);
    assert_int_equal(start_us, at(start));
    assert_int_equal(end_us, at(end));
}

static void test_a_day_begins_at_midnight_utc(void **state)
{
    (void) state;
    assert_bounds(PERIOD_DAY, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z",
                  "2026-11-24T00:00:00Z");
    assert_bounds(PERIOD_DAY, "2026-11-23T23:59:59.999999Z", "2026-11-23T00:00:00Z",
                  "2026-11-24T00:00:00Z");
}

static void test_a_month_has_as_many_days_as_it_has(void **state)
{
    (void) state;
    assert_bounds(PERIOD_MONTH, "2026-02-28T12:00:00Z", "2026-02-01T00:00:00Z",
                  "2026-03-01T00:00:00Z");
    assert_bounds(PERIOD_MONTH, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z",
                  "2028-03-01T00:00:00Z");
    assert_bounds(PERIOD_MONTH, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z",
                  "2027-01-01T00:00:00Z");
    assert_bounds(PERIOD_MONTH, "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z",
                  "2026-12-01T00:00:00Z");
}

static void test_without_a_period_all_of_time_is_one(void **state)
{
    (void) state;
    int64_t start_us, end_us;
    period_bounds(PERIOD_NONE, at("2026-11-23T00:00:00Z"), &start_us, &end_us);
    assert_true(start_us == INT64_MIN && end_us == INT64_MAX);
}

static void assert_name(enum period period, const char *since, const char *when, const char *wanted)
{
    char name[PERIOD_NAME_BYTES];
    str got = period_name(period, at(since), at(when), name);
    assert_true(str_equal(got, str_from_cstr(wanted)));
}

static void test_a_period_has_the_name_of_its_day_or_month_or_of_its_beginning(void **state)
{
    (void) state;
    assert_name(PERIOD_DAY, "2026-11-01T10:00:00Z", "2026-11-23T01:02:03Z", "2026-11-23");
    assert_name(PERIOD_MONTH, "2026-10-01T10:00:00Z", "2026-11-23T01:02:03Z", "2026-11");
    assert_name(PERIOD_DAY, "2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z",
                "2026-11-23T10:00:00.000000Z");
    assert_name(PERIOD_DAY, "2026-11-23T10:00:00Z", "2026-11-24T00:00:00Z", "2026-11-24");
    assert_name(PERIOD_NONE, "2026-11-23T10:00:00Z", "2026-11-24T00:00:00Z", "");
}

static void test_only_day_and_month_are_periods(void **state)
{
    (void) state;
    enum period period;
    assert_true(period_parse(S("day"), &period) && period == PERIOD_DAY);
    assert_true(period_parse(S("month"), &period) && period == PERIOD_MONTH);
    assert_true(period_parse(STR_NONE, &period) && period == PERIOD_NONE);
    assert_false(period_parse(S("week"), &period));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_day_begins_at_midnight_utc),
        cmocka_unit_test(test_a_month_has_as_many_days_as_it_has),
        cmocka_unit_test(test_without_a_period_all_of_time_is_one),
        cmocka_unit_test(test_a_period_has_the_name_of_its_day_or_month_or_of_its_beginning),
        cmocka_unit_test(test_only_day_and_month_are_periods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
