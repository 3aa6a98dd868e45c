#include "workflow/cron.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

/* The rule alone, so that the tests hold without tzdata. */
static const struct zone *rule(const char *text)
{
    const struct zone *zone = NULL;
    struct error e = {0};
    if (!zone_of_rule(arena, str_from_cstr(text), &zone, &e))
        fail_msg("%s", e.message);
    return zone;
}

#define BERLIN rule("CET-1CEST,M3.5.0,M10.5.0/3")
#define NEW_YORK rule("EST5EDT,M3.2.0,M11.1.0")

static int64_t at(const char *text)
{
    int64_t us = 0;
    assert_true(time_parse(str_from_cstr(text), &us));
    return us;
}

static struct cron parse(const char *text)
{
    struct cron cron;
    struct error e = {0};
    if (!cron_parse(str_from_cstr(text), &cron, &e))
        fail_msg("%s: %s", text, e.message);
    return cron;
}

/* The next times after `after`, as far as `times` has any. */
static void assert_times(const char *schedule, const struct zone *zone, const char *after,
                         const char *const *times)
{
    struct cron cron = parse(schedule);
    int64_t now = at(after), next = 0;
    for (; *times; times++, now = next) {
        char text[TIME_TEXT_BYTES + 1];
        assert_true(cron_next(&cron, zone, now, &next));
        time_format(next, text);
        if (next != at(*times))
            fail_msg("%s after %s: %s, not %s", schedule, after, text, *times);
    }
}
#define TIMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_fields_are_numbers_names_ranges_lists_and_steps(void **state)
{
    const struct zone *utc = zone_utc();
    (void) state;
    assert_times("30 9 * * *", utc, "2026-01-01T09:30:00Z", TIMES("2026-01-02T09:30:00Z"));
    assert_times("30 9 * * *", utc, "2026-01-01T09:29:59.999999Z", TIMES("2026-01-01T09:30:00Z"));
    assert_times("*/20 * * * *", utc, "2026-01-01T23:21:00Z",
                 TIMES("2026-01-01T23:40:00Z", "2026-01-02T00:00:00Z", "2026-01-02T00:20:00Z"));
    assert_times("5/25 0-23/12 * * *", utc, "2026-01-01T00:00:00Z",
                 TIMES("2026-01-01T00:05:00Z", "2026-01-01T00:30:00Z", "2026-01-01T00:55:00Z",
                       "2026-01-01T12:05:00Z"));
    assert_times("0 12 * * mon-fri", utc, "2026-01-02T12:00:00Z", TIMES("2026-01-05T12:00:00Z"));
    assert_times("0 12 * * 0", utc, "2026-01-01T00:00:00Z", TIMES("2026-01-04T12:00:00Z"));
    assert_times("0 12 * * 7", utc, "2026-01-01T00:00:00Z", TIMES("2026-01-04T12:00:00Z"));
    assert_times("0 0 1,15 jan,JUL *", utc, "2026-01-15T00:00:00Z",
                 TIMES("2026-07-01T00:00:00Z", "2026-07-15T00:00:00Z", "2027-01-01T00:00:00Z"));
    assert_times("0 0 L * *", utc, "2028-01-31T00:00:00Z",
                 TIMES("2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z", "2028-04-30T00:00:00Z"));
    assert_times("0 0 13 * fri", utc, "2026-02-01T00:00:00Z", /* either will do */
                 TIMES("2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z",
                       "2026-02-27T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z"));
    assert_times("0 0 29 2 *", utc, "2026-01-01T00:00:00Z",
                 TIMES("2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"));
    assert_times("* * 29 2 *", utc, "2096-02-29T23:59:00Z", TIMES("2104-02-29T00:00:00Z"));
    assert_times("@hourly", utc, "2026-01-01T00:00:00Z", TIMES("2026-01-01T01:00:00Z"));
    assert_times("@daily", utc, "2026-01-01T00:00:00Z", TIMES("2026-01-02T00:00:00Z"));
    assert_times("@weekly", utc, "2026-01-01T00:00:00Z", TIMES("2026-01-04T00:00:00Z"));
    assert_times("@monthly", utc, "2026-01-01T00:00:00Z", TIMES("2026-02-01T00:00:00Z"));
    assert_times("@yearly", utc, "2026-01-01T00:00:00Z", TIMES("2027-01-01T00:00:00Z"));
}

static void test_what_is_no_schedule_is_refused_with_what_would_be(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "five fields"},
        {"* * * *", "five fields"},
        {"* * * * * *", "five fields"},
        {"@often", "five fields"},
        {"60 * * * *", "\"60\" is no minute: write *, a number from 0 to 59"},
        {"* 24 * * *", "is no hour"},
        {"* * 0 * *", "is no day: write *, a number from 1 to 31"},
        {"* * 32 * *", "is no day"},
        {"* * * 13 *", "is no month"},
        {"* * * foo *", "or names of three letters"},
        {"* * * * 8", "is no weekday"},
        {"5-1 * * * *", "is no minute"},
        {"*/0 * * * *", "is no minute"},
        {"*/60 * * * *", "is no minute"},
        {"1, * * * *", "is no minute"},
        {"-1 * * * *", "is no minute"},
        {"1-2-3 * * * *", "is no minute"},
        {"* L * * *", "is no hour"},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct cron cron;
        struct error e = {0};
        if (cron_parse(str_from_cstr(cases[i].text), &cron, &e))
            fail_msg("accepted: %s", cases[i].text);
        if (!strstr(e.message, cases[i].message))
            fail_msg("%s: %s", cases[i].text, e.message);
    }
}

static void test_a_day_that_never_comes_is_told(void **state)
{
    struct cron never = parse("0 0 31 2 *"), hourly = parse("* * 30 2 *");
    int64_t next;
    (void) state;
    assert_false(cron_next(&never, zone_utc(), at("2026-01-01T00:00:00Z"), &next));
    assert_false(cron_next(&hourly, zone_utc(), at("2026-01-01T00:00:00Z"), &next));
}

/* Berlin: on 29 March 2026 at 02:00 (01:00Z) the clock is put to 03:00; on 25 October at 03:00 (01:00Z) back to 02:00. */
static void test_berlin_a_skipped_time_comes_right_after(void **state)
{
    const struct zone *zone = BERLIN;
    (void) state;
    assert_times("30 2 * * *", zone, "2026-03-27T12:00:00Z",
                 TIMES("2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"));
    assert_times("0,15,30 2,3 * * *", zone, "2026-03-29T00:00:00Z", /* skipped ones once */
                 TIMES("2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:30:00Z",
                       "2026-03-30T00:00:00Z"));
    assert_times("0 9 * * *", zone, "2026-03-28T12:00:00Z",
                 TIMES("2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"));
}

static void test_berlin_a_repeated_time_comes_once(void **state)
{
    const struct zone *zone = BERLIN;
    (void) state;
    assert_times("30 2 * * *", zone, "2026-10-24T12:00:00Z",
                 TIMES("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"));
    assert_times("30 1,2,3 * * *", zone, "2026-10-24T22:00:00Z",
                 TIMES("2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"));
    assert_times("30 2 25 10 *", zone, "2026-10-25T00:30:00Z", TIMES("2027-10-25T00:30:00Z"));
}

static void test_every_hour_is_every_hour_whatever_the_clock_does(void **state)
{
    const struct zone *zone = BERLIN;
    (void) state;
    assert_times("30 * * * *", zone, "2026-03-28T23:30:00Z",
                 TIMES("2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"));
    assert_times("30 * * * *", zone, "2026-10-24T23:30:00Z",
                 TIMES("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"));
    assert_times("*/30 * 25 10 *", zone, "2026-10-25T22:00:00Z",
                 TIMES("2026-10-25T22:30:00Z", "2027-10-24T22:00:00Z"));
}

/* New York: 8 March 2026 02:00 EST (07:00Z) to 03:00; 1 November 02:00 EDT (06:00Z) to 01:00. */
static void test_new_york(void **state)
{
    const struct zone *zone = NEW_YORK;
    (void) state;
    assert_times("30 2 * * *", zone, "2026-03-07T12:00:00Z",
                 TIMES("2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"));
    assert_times("30 1 * * *", zone, "2026-10-31T12:00:00Z",
                 TIMES("2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"));
    assert_times("0 9 * * mon-fri", zone, "2026-03-06T15:00:00Z", TIMES("2026-03-09T13:00:00Z"));
    assert_times("15 * * * *", zone, "2026-11-01T04:15:00Z",
                 TIMES("2026-11-01T05:15:00Z", "2026-11-01T06:15:00Z", "2026-11-01T07:15:00Z"));
}

static void test_other_zones(void **state)
{
    (void) state;
    assert_times("0 9 * * *", rule("<+0545>-5:45"), "2026-01-01T00:00:00Z",
                 TIMES("2026-01-01T03:15:00Z"));
    assert_times("30 2 * * *", rule("AEST-10AEDT,M10.1.0,M4.1.0/3"), "2026-10-02T00:00:00Z",
                 TIMES("2026-10-02T16:30:00Z", "2026-10-03T16:00:00Z", "2026-10-04T15:30:00Z"));
    assert_times("0 0 * * *", rule("<-03>3<-02>,M3.5.0/-2,M10.5.0/-1"), "2026-07-01T00:00:00Z",
                 TIMES("2026-07-01T02:00:00Z"));
    assert_int_equal(zone_offset_s(rule("EST5EDT,J60,J300"), at("2028-03-01T12:00:00Z") / 1000000),
                     -4 * 3600);
    assert_int_equal(zone_offset_s(rule("EST5EDT,59,300"), at("2026-02-28T12:00:00Z") / 1000000),
                     -5 * 3600);
}

static str zone_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", name);
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return STR_NONE;
    char *bytes = arena_alloc(arena, ZONE_BYTES_MAX);
    size_t len = fread(bytes, 1, ZONE_BYTES_MAX, stream);
    fclose(stream);
    return str_of(bytes, len);
}

/* The system's data and the rules agree, hour by hour over years on both sides of the file's last change. */
static void test_files_say_what_the_rules_say(void **state)
{
    static const struct {
        const char *name, *rule;
    } zones[] = {{"Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"},
                 {"America/New_York", "EST5EDT,M3.2.0,M11.1.0"}};
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(zones); i++) {
        const struct zone *read = NULL, *told = rule(zones[i].rule);
        struct error e = {0};
        str bytes = zone_file(zones[i].name);
        if (bytes.len == 0) {
            print_message("no time zone data on this machine\n");
            skip();
        }
        if (!zone_read(arena, bytes, &read, &e))
            fail_msg("%s", e.message);
        for (int64_t t = at("2008-01-01T00:00:00Z") / 1000000;
             t < at("2045-01-01T00:00:00Z") / 1000000; t += 1800)
            assert_int_equal(zone_offset_s(read, t), zone_offset_s(told, t));
        for (size_t len = 0; len < bytes.len;
             len++) { /* cut short anywhere: refused, or nothing lost */
            const struct zone *cut;
            if (zone_read(arena, str_slice(bytes, 0, len), &cut, &e))
                fail_msg("%zu bytes are taken for all", len);
        }
    }
}

static void test_names_of_zones_stay_in_their_folder(void **state)
{
    static const char *const good[] = {"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires",
                                       "Etc/GMT+5", "America/Port-au-Prince"};
    static const char *const bad[] = {"",   "/etc/passwd", "../x", "a/../b", "a//b",
                                      "a/", "a.b",         "a b",  "a\\b"};
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_true(zone_name_is_lawful(str_from_cstr(good[i])));
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(zone_name_is_lawful(str_from_cstr(bad[i])));
}

/* Whatever the schedule and the zone: what comes next is later, and asking just before it gives it again. */
static void test_next_is_the_nearest(void **state)
{
    static const char *const schedules[] = {"*/7 * * * *",   "30 2 * * *",  "0 */5 * * *",
                                            "15 1-3 * * 0",  "59 23 L * *", "0 0 29 2 *",
                                            "5 4 1-7 * mon", "* * * * *"};
    (void) state;
    const struct zone *zones[] = {BERLIN, NEW_YORK, zone_utc()};
    uint64_t random = 12345;
    for (size_t i = 0; i < 20000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        struct cron cron = parse(schedules[random >> 40 & 7]);
        const struct zone *zone = zones[(random >> 50) % 3];
        int64_t now = at("2026-01-01T00:00:00Z") +
                      (int64_t) (random >> 20) % (3 * 365 * INT64_C(86400000000));
        int64_t next, same, later;
        assert_true(cron_next(&cron, zone, now, &next) && next > now);
        assert_true(cron_next(&cron, zone, next - 1, &same) && same == next);
        assert_true(cron_next(&cron, zone, now + (next - now) / 2, &same) && same == next);
        assert_true(cron_next(&cron, zone, next, &later) && later > next);
        assert_int_equal(next % 60000000, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_are_numbers_names_ranges_lists_and_steps),
        cmocka_unit_test(test_what_is_no_schedule_is_refused_with_what_would_be),
        cmocka_unit_test(test_a_day_that_never_comes_is_told),
        cmocka_unit_test(test_berlin_a_skipped_time_comes_right_after),
        cmocka_unit_test(test_berlin_a_repeated_time_comes_once),
        cmocka_unit_test(test_every_hour_is_every_hour_whatever_the_clock_does),
        cmocka_unit_test(test_new_york),
        cmocka_unit_test(test_other_zones),
        cmocka_unit_test(test_files_say_what_the_rules_say),
        cmocka_unit_test(test_names_of_zones_stay_in_their_folder),
        cmocka_unit_test(test_next_is_the_nearest),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
