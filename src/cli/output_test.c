/* What people are shown of a value. */
#include "cli/output.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static void assert_shown(const char *name, const char *json, const char *expected)
{
    const struct json *value;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(json), (struct json_limits){0}, &value, &e))
        fail_msg("%s", e.message);
    str shown = output_amount(arena, str_from_cstr(name), value);
    if (!str_equal(shown, str_from_cstr(expected)))
        fail_msg("%s %s: \"" STR_FMT "\" instead of \"%s\"", name, json, STR_ARG(shown), expected);
}

static void test_money_is_shown_in_dollars(void **state)
{
    (void) state;
    assert_shown("cost_nanousd", "\"4500000\"", "0.0045");
    assert_shown("difference_nanousd", "\"-1\"", "-0.000000001");
    assert_shown("cost_nanousd", "5000000000", "5.00");
    assert_shown("cost_nanousd_per_request", "1500000.7", "0.0015");
    assert_shown("cost_nanousd", "null", "-");
    assert_shown("cost_nanousd", "\"unlimited\"", "unlimited");
}

static void test_running_time_is_shown_in_seconds(void **state)
{
    (void) state;
    assert_shown("time_ms", "90000", "90");
    assert_shown("time_ms", "250", "0.25");
    assert_shown("time_ms", "0", "0");
    assert_shown("time_ms", "1001", "1.001");
    assert_shown("time_ms", "-1500", "-1.5");
    assert_shown("time_ms", "\"unlimited\"", "unlimited");
}

static void test_anything_else_is_shown_as_it_is(void **state)
{
    (void) state;
    assert_shown("duration_ms_mean", "12.5", "12.500");
    assert_shown("score", "0.61237243569579447", "0.612");
    assert_shown("tokens", "1000000", "1000000");
    assert_shown("name", "\"ada\"", "ada");
    assert_shown("name", "\"\"", "-");
    assert_shown("name", "null", "-");
    assert_shown("names", "[\"a\", 1]", "[\"a\",1]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_money_is_shown_in_dollars),
        cmocka_unit_test(test_running_time_is_shown_in_seconds),
        cmocka_unit_test(test_anything_else_is_shown_as_it_is),
    };
    return cmocka_run_group_tests_name("output", tests, set_up, tear_down);
}
