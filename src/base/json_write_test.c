#include "base/json.h"

#include "base/arena.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena *arena;
static struct strbuf text;
static struct json_writer w;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static void assert_text(const char *expected)
{
    assert_string_equal(str_to_cstr(arena, strbuf_str(&text)), expected);
}

static void assert_str_writes(str value, str expected)
{
    strbuf_init(&text, arena, 1000);
    json_writer_init(&w, &text);
    json_write_str(&w, value);
    if (!str_equal(strbuf_str(&text), expected))
        fail_msg(STR_FMT " is not " STR_FMT, STR_ARG(strbuf_str(&text)), STR_ARG(expected));
}

static void test_commas_and_nesting_are_the_writers_business(void **state)
{
    (void) state;
    const struct json *tree;
    struct error e = {0};
    assert_true(json_parse(arena, S("{\"x\":[1,{}]}"), (struct json_limits){0}, &tree, &e));
    json_object_begin(&w);
    json_put_str(&w, S("a"), S("x"));
    json_key(&w, S("b"));
    json_array_begin(&w);
    json_write_i64(&w, -1);
    json_array_begin(&w);
    json_array_end(&w);
    json_object_begin(&w);
    json_object_end(&w);
    json_write_u64(&w, UINT64_MAX);
    json_write_null(&w);
    json_write_bool(&w, true);
    json_array_end(&w);
    json_put_i64(&w, S("c"), INT64_MIN);
    json_put_bool(&w, S("d"), false);
    json_put_double(&w, S("e"), 0.5);
    json_put_raw(&w, S("f"), S("[ ]"));
    json_put_value(&w, S("g"), tree);
    json_put_value(&w, S("h"), NULL);
    json_put_i64_str(&w, S("i"), 1234567890123);
    json_key(&w, S("j"));
    json_write_value(&w, tree);
    json_object_end(&w);
    assert_text(
        "{\"a\":\"x\",\"b\":[-1,[],{},18446744073709551615,null,true],\"c\":-9223372036854775808,"
        "\"d\":false,\"e\":0.5,\"f\":[ ],\"g\":{\"x\":[1,{}]},\"h\":null,\"i\":\"1234567890123\","
        "\"j\":{\"x\":[1,{}]}}");
}

static void test_strings_are_escaped_as_rfc_8259_asks(void **state)
{
    (void) state;
    assert_str_writes(S("a\"b\\c/d"), S("\"a\\\"b\\\\c/d\""));
    assert_str_writes(S("\b\f\n\r\t"), S("\"\\b\\f\\n\\r\\t\""));
    assert_str_writes(S("\0\x01\x1f\x7f"), S("\"\\u0000\\u0001\\u001f\x7f\""));
    assert_str_writes(S("é€😀"), S("\"é€😀\""));
    assert_str_writes(STR_NONE, S("\"\""));
}

/* The table of "best practice" replacements in the Unicode Standard, chapter 3. */
static void test_invalid_utf8_becomes_one_replacement_per_maximal_part(void **state)
{
    (void) state;
#define R "\xef\xbf\xbd"
    assert_str_writes(S("a\xff"
                        "b"),
                      S("\"a" R "b\""));
    assert_str_writes(S("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), S("\"" R R R R R R R R "A\""));
    assert_str_writes(S("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), S("\"" R R R R R R R R "A\""));
    assert_str_writes(S("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), S("\"" R R R R R "A" R R "B\""));
    assert_str_writes(S("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), S("\"" R R R R "A\""));
    assert_str_writes(S("\xe2\x82"), S("\"" R "\""));
    assert_str_writes(S("\xf0\x9f\x98"), S("\"" R "\""));
    assert_str_writes(S("\xe2\n"), S("\"" R "\\n\""));
#undef R
}

static void assert_double_writes(double value, const char *expected)
{
    strbuf_init(&text, arena, 1000);
    json_writer_init(&w, &text);
    json_write_double(&w, value);
    assert_text(expected);
}

static void test_doubles_are_the_shortest_that_read_back(void **state)
{
    (void) state;
    assert_double_writes(0.1, "0.1");
    assert_double_writes(1, "1.0");
    assert_double_writes(-2.5, "-2.5");
    assert_double_writes(1.0 / 3, "0.3333333333333333");
    assert_double_writes(5e-324, "5e-324");
    assert_double_writes(NAN, "null");
    assert_double_writes(INFINITY, "null");
    assert_double_writes(-INFINITY, "null");
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        double value;
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&value, &bits, sizeof(value));
        if (!isfinite(value))
            continue;
        strbuf_init(&text, arena, 1000);
        json_writer_init(&w, &text);
        json_write_double(&w, value);
        double back = strtod(str_to_cstr(arena, strbuf_str(&text)), NULL);
        assert_memory_equal(&back, &value, sizeof(value));
    }
}

static void test_a_writer_goes_63_levels_deep(void **state)
{
    (void) state;
    for (int i = 0; i < 63; i++)
        json_array_begin(&w);
    json_write_i64(&w, 1);
    json_write_i64(&w, 2);
    for (int i = 0; i < 63; i++)
        json_array_end(&w);
    assert_int_equal(text.len, 2 * 63 + 3);
}

static void test_past_the_maximum_the_buffer_says_so(void **state)
{
    (void) state;
    strbuf_init(&text, arena, 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("name"), S("too long"));
    json_object_end(&w);
    assert_true(strbuf_is_over(&text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commas_and_nesting_are_the_writers_business, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_strings_are_escaped_as_rfc_8259_asks, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_invalid_utf8_becomes_one_replacement_per_maximal_part,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_doubles_are_the_shortest_that_read_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_writer_goes_63_levels_deep, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_past_the_maximum_the_buffer_says_so, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
