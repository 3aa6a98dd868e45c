/* The JSON of the C template (templates/c/sdk/nexus_json.c), compiled natively. */
#include "nexus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct text nexus_out_bytes(const struct out *out);

/* A guest never frees: its memory goes with the instance. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* Written again as it was read; memory is the process's, as in the sandbox. */
static void assert_rewritten(const char *text, const char *wanted)
{
    const struct json *value = json_parse(text_of(text));
    struct out *out = out_create();
    if (!value)
        fail_msg("not read: %s", text);
    out_value(out, value);
    struct text bytes = nexus_out_bytes(out);
    if (!text_equal(bytes, text_of(wanted)))
        fail_msg("%s became %.*s", text, (int) bytes.len, bytes.ptr);
}

static void test_values_come_back_as_they_were(void **state)
{
    (void) state;
    assert_rewritten(" { \"a\" : [ 1 , -2.5e+3 , true , false , null , \"x\" ] , \"b\" : { } } ",
                     "{\"a\":[1,-2.5e+3,true,false,null,\"x\"],\"b\":{}}");
    assert_rewritten("\"\\u00e9 \\ud83d\\ude00 \\n\\t\\/\\\\\\\"\"",
                     "\"\xc3\xa9 \xf0\x9f\x98\x80 \\u000a\\u0009/\\\\\\\"\"");
    assert_rewritten("\"\xff\"", "\"\xef\xbf\xbd\"");
    assert_rewritten("[]", "[]");
}

static void test_what_is_no_json_is_refused(void **state)
{
    (void) state;
    static const char *const wrong[] = {
        "",          " ",           "{",
        "}",         "[1,]",        "{\"a\":1,}",
        "{a:1}",     "01",          "1.",
        ".5",        "1e",          "-",
        "+1",        "tru",         "nul",
        "\"",        "\"\\",        "\"\\x\"",
        "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"",
        "\"\n\"",    "1 2",         "[1 2]",
        "{\"a\"}",   "{\"a\":}",    "\"\\ud800\\u0041\"",
        "Infinity",  "NaN",         "'a'",
        "\"\\",      "[[",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (json_parse(text_of(wrong[i])))
            fail_msg("read: %s", wrong[i]);
}

static void test_depth_has_a_bound(void **state)
{
    (void) state;
    char text[200] = {0};
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_non_null(json_parse(text_of(text)));
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_null(json_parse(text_of(text)));
}

static void test_numbers_are_told_apart(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        bool is_whole;
        int64_t value;
    } numbers[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"1e3", true, 1000},
        {"2.0", true, 2},
        {"2.5", false, 0},
        {"1e300", false, 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t value = 0;
        const struct json *number = json_parse(text_of(numbers[i].text));
        assert_int_equal(json_integer(number, &value), numbers[i].is_whole);
        assert_true(value == numbers[i].value);
    }
    double real;
    assert_true(json_real(json_parse(text_of("-2.5e2")), &real) && real < -249 && real > -251);
    assert_false(json_real(json_parse(text_of("\"1\"")), &real));
}

static void test_reals_are_written_shortly_and_exactly(void **state)
{
    (void) state;
    static const struct {
        double value;
        const char *text;
    } reals[] = {{0.1, "0.1"}, {1.0 / 3, "0.3333333333333333"}, {1e100, "1e+100"}, {2, "2"}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        struct out *out = out_create();
        out_real(out, reals[i].value);
        assert_true(text_equal(nexus_out_bytes(out), text_of(reals[i].text)));
    }
    struct out *out = out_create();
    out_real(out, 1e308 * 10);
    assert_true(text_equal(nexus_out_bytes(out), text_of("null")));
}

static void test_getters_take_what_is_not_there(void **state)
{
    (void) state;
    struct text text;
    bool truth;
    const struct json *list = json_parse(text_of("[1,[2],{\"a\":true}]"));
    assert_int_equal(json_count(list), 3);
    assert_null(json_get(list, "a"));
    assert_null(json_get(NULL, "a"));
    assert_false(json_text(NULL, &text));
    assert_int_equal(json_kind_of(NULL), JSON_ABSENT);
    const struct json *last = json_next(json_next(json_first(list)));
    assert_true(json_bool(json_get(last, "a"), &truth) && truth);
    assert_true(text_equal(json_name(json_first(last)), text_of("a")));
    assert_null(json_next(last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_come_back_as_they_were),
        cmocka_unit_test(test_what_is_no_json_is_refused),
        cmocka_unit_test(test_depth_has_a_bound),
        cmocka_unit_test(test_numbers_are_told_apart),
        cmocka_unit_test(test_reals_are_written_shortly_and_exactly),
        cmocka_unit_test(test_getters_take_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
