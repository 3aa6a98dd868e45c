#include "base/timefmt.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <cmocka.h>

static void assert_formats(int64_t unix_us, const char *expected)
{
    char text[TIME_TEXT_BYTES + 1];
    time_format(unix_us, text);
    assert_string_equal(text, expected);
}

static void assert_parses(const char *text, int64_t expected)
{
    int64_t unix_us = 0;
    if (!time_parse(str_from_cstr(text), &unix_us))
        fail_msg("refused: %s", text);
    assert_true(unix_us == expected);
}

static void test_times_are_shown_in_utc_with_microseconds(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_formats(0, "1970-01-01T00:00:00.000000Z");
    assert_formats(-1, "1969-12-31T23:59:59.999999Z");
    assert_formats(INT64_C(951782400000007), "2000-02-29T00:00:00.000007Z");
    assert_formats(INT64_C(1795406706000007), "2026-11-23T04:05:06.000007Z");
    assert_formats(INT64_MAX, "9999-12-31T23:59:59.999999Z");
    assert_formats(INT64_MIN, "0000-01-01T00:00:00.000000Z");
    assert_true(str_equal(time_str(arena, 0), S("1970-01-01T00:00:00.000000Z")));
}

static void test_the_calendar_agrees_with_the_c_library(void **state)
{
    (void) state;
    for (int64_t day = -800000; day < 2900000; day += 97) {
        struct tm tm;
        char expected[80], text[TIME_TEXT_BYTES + 1];
        time_t second = (time_t) (day * 86400 + day % 86400);
        if (second < -62135596800 || second > 253402300799)
            continue;
        assert_non_null(gmtime_r(&second, &tm));
        snprintf(expected, sizeof(expected), "%04d-%02d-%02dT%02d:%02d:%02d.000000Z",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        time_format((int64_t) second * 1000000, text);
        assert_string_equal(text, expected);
        assert_parses(text, (int64_t) second * 1000000);
    }
}

static void test_rfc_3339_in_all_its_forms_is_read(void **state)
{
    (void) state;
    assert_parses("1985-04-12T23:20:50.52Z", INT64_C(482196050520000));
    assert_parses("1996-12-19T16:39:57-08:00", INT64_C(851042397000000));
    assert_parses("1937-01-01T12:00:27.87+00:20", INT64_C(-1041337172130000));
    assert_parses("1970-01-01t00:00:00z", 0);
    assert_parses("1970-01-01T00:00:00-00:00", 0);
    assert_parses("1970-01-01T00:00:00.123456789Z", 123456);
    assert_parses("1990-12-31T23:59:60Z", INT64_C(662688000000000));
    assert_parses("1990-12-31T15:59:60-08:00", INT64_C(662688000000000));
    assert_parses("2000-02-29T00:00:00Z", INT64_C(951782400000000));
}

static void test_other_times_are_refused(void **state)
{
    (void) state;
    int64_t unix_us = 7;
    const char *const bad[] = {"",
                               "1970-01-01",
                               "1970-01-01 00:00:00Z",
                               "1970-01-01T00:00:00",
                               "1970-13-01T00:00:00Z",
                               "1970-00-01T00:00:00Z",
                               "1970-01-00T00:00:00Z",
                               "1970-01-32T00:00:00Z",
                               "1971-02-29T00:00:00Z",
                               "1900-02-29T00:00:00Z",
                               "1970-04-31T00:00:00Z",
                               "1970-01-01T24:00:00Z",
                               "1970-01-01T00:60:00Z",
                               "1970-01-01T00:00:61Z",
                               "1970-01-01T12:00:60Z",
                               "1970-01-01T00:00:00.Z",
                               "1970-01-01T00:00:00+24:00",
                               "1970-01-01T00:00:00+01:60",
                               "1970-01-01T00:00:00+0100",
                               "1970-01-01T00:00:00Zx",
                               "+970-01-01T00:00:00Z",
                               "1970-1-01T00:00:00Z",
                               "1970-01-01T00:00:00,5Z"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        if (time_parse(str_from_cstr(bad[i]), &unix_us))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(unix_us, 7);
}

static void test_durations_have_a_unit(void **state)
{
    (void) state;
    int64_t ms = 0;
    assert_true(duration_parse(S("250ms"), &ms) && ms == 250);
    assert_true(duration_parse(S("30s"), &ms) && ms == 30000);
    assert_true(duration_parse(S("5m"), &ms) && ms == 300000);
    assert_true(duration_parse(S("2h"), &ms) && ms == 7200000);
    assert_true(duration_parse(S("7d"), &ms) && ms == 604800000);
    assert_true(duration_parse(S("0s"), &ms) && ms == 0);
    const char *const bad[] = {"",
                               "5",
                               "s",
                               "-5s",
                               "5 s",
                               "5S",
                               "1.5s",
                               "5sec",
                               "9223372036854775807s",
                               "99999999999999999999ms"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(duration_parse(str_from_cstr(bad[i]), &ms));
}

static void test_sizes_know_powers_of_1000_and_of_1024(void **state)
{
    (void) state;
    int64_t bytes = 0;
    static const struct {
        const char *text;
        int64_t bytes;
    } rows[] = {{"5", 5},
                {"5B", 5},
                {"10KB", 10000},
                {"10kB", 10000},
                {"5MB", 5000000},
                {"2GB", 2000000000},
                {"64KiB", 65536},
                {"64MiB", INT64_C(64) << 20},
                {"3GiB", INT64_C(3) << 30}};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        assert_true(bytes_parse(str_from_cstr(rows[i].text), &bytes) && bytes == rows[i].bytes);
    const char *const bad[] = {"",
                               "KB",
                               "-5MB",
                               "5 MB",
                               "5mb",
                               "1.5MB",
                               "5TB",
                               "9223372036854775808",
                               "9223372036854775807KB"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(bytes_parse(str_from_cstr(bad[i]), &bytes));
}

static void test_money_is_exact(void **state)
{
    (void) state;
    int64_t nanousd = 0;
    static const struct {
        const char *text;
        int64_t nanousd;
    } rows[] = {{"5", INT64_C(5000000000)},     {"0.25", 250000000},
                {"5usd", INT64_C(5000000000)},  {"0.000000001", 1},
                {"0.1usd", 100000000},          {"9223372036.854775807", INT64_MAX},
                {"007.50", INT64_C(7500000000)}};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        assert_true(money_parse_usd(str_from_cstr(rows[i].text), &nanousd) &&
                    nanousd == rows[i].nanousd);
    const char *const bad[] = {"",
                               "usd",
                               ".5",
                               "5.",
                               "-5",
                               "+5",
                               "5 usd",
                               "$5",
                               "5eur",
                               "0.0000000001",
                               "9223372036.854775808",
                               "9223372037",
                               "1e3",
                               "1,5",
                               "1.2.3"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        if (money_parse_usd(str_from_cstr(bad[i]), &nanousd))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void test_money_is_shown_with_at_least_two_digits(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, 1234567)), "0.001234567");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, 0)), "0.00");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, INT64_C(5000000000))), "5.00");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, INT64_C(12100000000))), "12.10");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, INT64_C(-1500000000))), "-1.50");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, INT64_MAX)),
                        "9223372036.854775807");
    assert_string_equal(str_to_cstr(arena, money_format_usd(arena, INT64_MIN)),
                        "-9223372036.854775808");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_are_shown_in_utc_with_microseconds),
        cmocka_unit_test(test_the_calendar_agrees_with_the_c_library),
        cmocka_unit_test(test_rfc_3339_in_all_its_forms_is_read),
        cmocka_unit_test(test_other_times_are_refused),
        cmocka_unit_test(test_durations_have_a_unit),
        cmocka_unit_test(test_sizes_know_powers_of_1000_and_of_1024),
        cmocka_unit_test(test_money_is_exact),
        cmocka_unit_test(test_money_is_shown_with_at_least_two_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
