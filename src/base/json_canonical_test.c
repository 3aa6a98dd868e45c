/* Vectors: RFC 8785, section 3.2 and appendix B. */
#include "base/json.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
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

static void assert_canonical(str text, str expected)
{
    const struct json *tree = NULL;
    struct error e = {0};
    if (!json_parse(arena, text, (struct json_limits){0}, &tree, &e))
        fail_msg("%s", e.message);
    str canonical = json_canonical(arena, tree);
    if (!str_equal(canonical, expected))
        fail_msg(STR_FMT "\nis not\n" STR_FMT, STR_ARG(canonical), STR_ARG(expected));
}

static void test_the_example_of_section_3_2_2(void **state)
{
    (void) state;
    assert_canonical(
        S("{\n"
          "  \"numbers\": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],\n"
          "  \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n"
          "  \"literals\": [null, true, false]\n"
          "}"),
        S("{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
          "\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"));
}

static void test_the_key_order_of_section_3_2_3(void **state)
{
    (void) state;
    assert_canonical(
        S("{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\\ufb33\":\"Hebrew Letter "
          "Dalet With "
          "Dagesh\",\"1\":\"One\",\"\\ud83d\\ude00\":\"Emoji: Grinning "
          "Face\",\"\\u0080\":\"Control\","
          "\"\\u00f6\":\"Latin Small Letter O With Diaeresis\"}"),
        S("{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"ö\":\"Latin Small "
          "Letter O "
          "With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning "
          "Face\",\"\xef\xac\xb3\":\"Hebrew "
          "Letter Dalet With Dagesh\"}"));
}

static void test_keys_compare_by_utf16_units_and_then_by_length(void **state)
{
    (void) state;
    assert_canonical(S("{\"b\":1,\"aa\":2,\"a\":3,\"\":4,\"\\ue000\":5,\"\\ud7ff\":6,"
                       "\"\\udbff\\udfff\":7,\"\\ud800\\udc00\":8}"),
                     S("{\"\":4,\"a\":3,\"aa\":2,\"b\":1,\"\xed\x9f\xbf\":6,\"\xf0\x90\x80\x80\":8,"
                       "\"\xf4\x8f\xbf\xbf\":7,"
                       "\"\xee\x80\x80\":5}"));
}

static void test_the_numbers_of_appendix_b(void **state)
{
    (void) state;
    static const struct {
        uint64_t bits;
        const char *text;
    } rows[] = {
        {0x0000000000000000, "0"},
        {0x8000000000000000, "0"},
        {0x0000000000000001, "5e-324"},
        {0x8000000000000001, "-5e-324"},
        {0x7fefffffffffffff, "1.7976931348623157e+308"},
        {0xffefffffffffffff, "-1.7976931348623157e+308"},
        {0x4340000000000000, "9007199254740992"},
        {0xc340000000000000, "-9007199254740992"},
        {0x4430000000000000, "295147905179352830000"},
        {0x44b52d02c7e14af5, "9.999999999999997e+22"},
        {0x44b52d02c7e14af6, "1e+23"},
        {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
        {0x444b1ae4d6e2ef4e, "999999999999999700000"},
        {0x444b1ae4d6e2ef4f, "999999999999999900000"},
        {0x444b1ae4d6e2ef50, "1e+21"},
        {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
        {0x3eb0c6f7a0b5ed8d, "0.000001"},
        {0x41b3de4355555553, "333333333.3333332"},
        {0x41b3de4355555554, "333333333.33333325"},
        {0x41b3de4355555555, "333333333.3333333"},
        {0x41b3de4355555556, "333333333.3333334"},
        {0x41b3de4355555557, "333333333.33333343"},
        {0xbecbf647612f3696, "-0.0000033333333333333333"},
        {0x43143ff3c1cb0959, "1424953923781206.2"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        double value;
        memcpy(&value, &rows[i].bits, sizeof(value));
        struct strbuf text;
        struct json_writer w;
        strbuf_init(&text, arena, 100);
        json_writer_init(&w, &text);
        json_write_double(&w, value);
        assert_canonical(strbuf_str(&text), str_from_cstr(rows[i].text));
    }
}

static void test_integers_keep_all_their_digits(void **state)
{
    (void) state;
    assert_canonical(S("[0,-0,-1,9007199254740993,18446744073709551615,-9223372036854775808]"),
                     S("[0,0,-1,9007199254740993,18446744073709551615,-9223372036854775808]"));
}

static void test_a_real_that_is_whole_looks_like_the_integer(void **state)
{
    (void) state;
    assert_canonical(S("[1.0,1e2,100,1E0,-3.000]"), S("[1,100,100,1,-3]"));
}

static void test_nested_objects_are_sorted_too(void **state)
{
    (void) state;
    assert_canonical(S("{\"b\":[{\"d\":1,\"c\":{}}],\"a\":[]}"),
                     S("{\"a\":[],\"b\":[{\"c\":{},\"d\":1}]}"));
    assert_true(str_equal(json_canonical(arena, NULL), S("null")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_of_section_3_2_2),
        cmocka_unit_test(test_the_key_order_of_section_3_2_3),
        cmocka_unit_test(test_keys_compare_by_utf16_units_and_then_by_length),
        cmocka_unit_test(test_the_numbers_of_appendix_b),
        cmocka_unit_test(test_integers_keep_all_their_digits),
        cmocka_unit_test(test_a_real_that_is_whole_looks_like_the_integer),
        cmocka_unit_test(test_nested_objects_are_sorted_too),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
