#include "base/json.h"

#include "base/arena.h"
#include "base/limits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *read_with(str text, struct json_limits limits)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (!json_parse(arena, text, limits, &value, &e))
        fail_msg("%s", e.message);
    assert_int_equal(e.code, ERROR_OK);
    return value;
}

static const struct json *read(const char *text)
{
    return read_with(str_from_cstr(text), (struct json_limits){0});
}

static struct error refuse_with(str text, struct json_limits limits)
{
    const struct json *untouched = (const struct json *) &arena, *value = untouched;
    struct error e = {0};
    size_t bytes = arena_bytes(arena);
    if (json_parse(arena, text, limits, &value, &e))
        fail_msg("accepted: %.*s", (int) text.len, text.ptr);
    assert_ptr_equal(value, untouched);
    assert_int_equal(arena_bytes(arena), bytes); /* a refused text costs nothing */
    return e;
}

static struct error refuse(const char *text)
{
    struct error e = refuse_with(str_from_cstr(text), (struct json_limits){0});
    assert_int_equal(e.reason, REASON_JSON);
    return e;
}

static str repeat(const char *piece, size_t count, str end)
{
    struct strbuf text;
    strbuf_init(&text, arena, SIZE_MAX / 4);
    for (size_t i = 0; i < count; i++)
        strbuf_add(&text, str_from_cstr(piece));
    strbuf_add(&text, end);
    return strbuf_str(&text);
}

static void assert_prints(const char *text, const char *printed)
{
    assert_string_equal(str_to_cstr(arena, json_print(arena, read(text))), printed);
}

static void test_types_are_told_apart(void **state)
{
    (void) state;
    const struct json *v =
        read(" {\"a\":null,\"b\":true,\"c\":1,\"d\":1.5,\"e\":\"x\",\"f\":[],\"g\":{}} ");
    const enum json_type expected[] = {JSON_NULL,   JSON_BOOL,  JSON_INTEGER, JSON_REAL,
                                       JSON_STRING, JSON_ARRAY, JSON_OBJECT};
    assert_int_equal(json_type(v), JSON_OBJECT);
    assert_int_equal(json_count(v), 7);
    struct json_iter it = json_iter(v);
    const struct json *item;
    str key;
    for (size_t i = 0; json_next(&it, &key, &item); i++) {
        assert_int_equal(json_type(item), expected[i]);
        assert_int_equal(key.ptr[0], 'a' + (int) i);
    }
    assert_int_equal(json_type(NULL), JSON_ABSENT);
    assert_string_equal(json_type_name(JSON_REAL), "number");
}

static void test_a_lone_scalar_is_a_text(void **state)
{
    (void) state;
    assert_prints("  42 ", "42");
    assert_prints("\"x\"", "\"x\"");
    assert_prints("null", "null");
    assert_prints("[]", "[]");
    assert_prints("{}", "{}");
}

static void test_integers_are_exact_to_64_bits(void **state)
{
    (void) state;
    int64_t number;
    assert_prints(
        "[9223372036854775807,-9223372036854775808,18446744073709551615,9007199254740993]",
        "[9223372036854775807,-9223372036854775808,18446744073709551615,9007199254740993]");
    assert_true(json_to_i64(read("-9223372036854775808"), &number));
    assert_true(number == INT64_MIN);
    assert_false(json_to_i64(read("9223372036854775808"), &number));
    assert_false(json_to_i64(read("18446744073709551615"), &number));
}

static void test_a_real_without_fraction_reads_as_integer(void **state)
{
    (void) state;
    int64_t number = 0;
    assert_true(json_to_i64(read("3.0"), &number));
    assert_int_equal(number, 3);
    assert_true(json_to_i64(read("1e3"), &number));
    assert_int_equal(number, 1000);
    assert_true(json_to_i64(read("-9223372036854775808.0"), &number));
    assert_true(number == INT64_MIN);
    assert_false(json_to_i64(read("9223372036854775808.0"), &number));
    assert_false(json_to_i64(read("3.5"), &number));
    assert_false(json_to_i64(read("1e300"), &number));
    assert_false(json_to_i64(read("\"3\""), &number));
    assert_false(json_to_i64(NULL, &number));
}

static void test_getters_accept_null_and_wrong_types(void **state)
{
    (void) state;
    str text = S("before");
    double real = 1;
    bool flag = true;
    const struct json *v = read("{\"a\":[1]}");
    assert_null(json_get(NULL, S("a")));
    assert_null(json_get(json_get(v, S("a")), S("a")));
    assert_null(json_get(v, STR_NONE));
    assert_null(json_at(NULL, 0));
    assert_null(json_at(v, 0));
    assert_null(json_at(json_get(v, S("a")), 1));
    assert_int_equal(json_count(NULL), 0);
    assert_int_equal(json_count(read("\"abc\"")), 0);
    assert_false(json_to_str(v, &text));
    assert_false(json_to_double(v, &real));
    assert_false(json_to_bool(v, &flag));
    assert_true(str_equal(text, S("before")));
    struct json_iter it = json_iter(NULL);
    assert_false(json_next(&it, NULL, NULL));
    it = json_iter(read("7"));
    assert_false(json_next(&it, NULL, NULL));
}

static void test_reads_with_a_default(void **state)
{
    (void) state;
    const struct json *v = read("{\"s\":\"x\",\"i\":7,\"b\":true,\"\":1}");
    assert_true(str_equal(json_str_or(v, S("s"), S("y")), S("x")));
    assert_true(str_equal(json_str_or(v, S("i"), S("y")), S("y")));
    assert_int_equal(json_i64_or(v, S("i"), 1), 7);
    assert_int_equal(json_i64_or(v, S("s"), 1), 1);
    assert_int_equal(json_i64_or(v, S(""), 0), 1);
    assert_true(json_bool_or(v, S("b"), false));
    assert_true(json_bool_or(v, S("none"), true));
    assert_int_equal(json_i64_or(NULL, S("i"), 5), 5);
}

static void test_pointers_follow_rfc_6901(void **state)
{
    (void) state;
    const struct json *v =
        read("{\"foo\":[\"bar\",\"baz\"],\"\":0,\"a/b\":1,\"m~n\":8,\"k\":{\"l\":[{\"x\":5}]}}");
    int64_t number = 0;
    str text;
    assert_ptr_equal(json_path(v, S("")), v);
    assert_true(json_to_str(json_path(v, S("/foo/1")), &text) && str_equal(text, S("baz")));
    assert_true(json_to_i64(json_path(v, S("/a~1b")), &number) && number == 1);
    assert_true(json_to_i64(json_path(v, S("/m~0n")), &number) && number == 8);
    assert_true(json_to_i64(json_path(v, S("/")), &number) && number == 0);
    assert_true(json_to_i64(json_path(v, S("/k/l/0/x")), &number) && number == 5);
    assert_null(json_path(v, S("/foo/2")));
    assert_null(json_path(v, S("/foo/-")));
    assert_null(json_path(v, S("foo")));
    assert_null(json_path(v, S("/foo/01")));
    assert_null(json_path(NULL, S("/a")));
}

static void test_iteration_skips_over_nested_values(void **state)
{
    (void) state;
    struct json_iter it = json_iter(read("[[1,[2]],{\"a\":{\"b\":1}},\"x\"]"));
    const struct json *item;
    str key = S("?");
    size_t count = 0;
    const enum json_type expected[] = {JSON_ARRAY, JSON_OBJECT, JSON_STRING};
    while (json_next(&it, &key, &item))
        assert_int_equal(json_type(item), expected[count++]);
    assert_int_equal(count, 3);
    assert_true(str_is_empty(key));
}

static void test_syntax_errors_name_the_place(void **state)
{
    (void) state;
    struct error e = refuse("{\n  \"a\": 1,\n  b: 2}");
    assert_non_null(strstr(e.message, "line 3, column 3 (byte 14)"));
    assert_int_equal(e.code, ERROR_INVALID);
    assert_non_null(strstr(refuse("").message, "expected a JSON value"));
    const char *const bad[] = {" ",
                               "{",
                               "[1,]",
                               "{\"a\":1,}",
                               "[1 2]",
                               "{\"a\" 1}",
                               "nul",
                               "01",
                               "1.",
                               ".5",
                               "+1",
                               "'a'",
                               "\"\t\"",
                               "\"\\x\"",
                               "\"\\ud800\"",
                               "\"",
                               "[1] 2",
                               "{1:2}",
                               "NaN",
                               "Infinity",
                               "1e999",
                               "\"\xff\"",
                               "\"\xc0\x80\"",
                               "\"\xed\xa0\x80\"",
                               "// c\n1",
                               "[1]//",
                               "\xef\xbb\xbf"
                               "1"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        refuse(bad[i]);
    assert_int_equal(refuse_with(S("[\"a\0b\"]"), (struct json_limits){0}).reason, REASON_JSON);
}

static void test_escapes_are_resolved(void **state)
{
    (void) state;
    str text;
    assert_true(json_to_str(read("\"\\u0041\\ud83d\\ude00\\n\\u0000z\""), &text));
    assert_true(str_equal(text, S("A\xf0\x9f\x98\x80\n\0z")));
}

static void test_depth_is_accepted_at_the_bound_and_refused_past_it(void **state)
{
    (void) state;
    str at = repeat("[", JSON_DEPTH_MAX, repeat("]", JSON_DEPTH_MAX, STR_NONE));
    read_with(at, (struct json_limits){0});
    str past = str_printf(arena, "[" STR_FMT "]", STR_ARG(at));
    struct error e = refuse_with(past, (struct json_limits){0});
    assert_int_equal(e.reason, REASON_JSON);
    assert_non_null(strstr(e.message, "deeper than 64 levels"));
    read_with(S("{\"a\":[1]}"), (struct json_limits){.depth_max = 2});
    refuse_with(S("{\"a\":[{}]}"), (struct json_limits){.depth_max = 2});
    /* Brackets in strings and after escaped quotes do not count. */
    read_with(S("[\"[[[[\\\"[[[[\\\\\",\"]]\"]"), (struct json_limits){.depth_max = 1});
    refuse_with(repeat("[", 1000000, STR_NONE), (struct json_limits){0});
    refuse_with(repeat("{\"a\":", 1000000, STR_NONE), (struct json_limits){0});
}

static void test_size_is_accepted_at_the_bound_and_refused_past_it(void **state)
{
    (void) state;
    read_with(S("[12345]"), (struct json_limits){.bytes_max = 7});
    struct error e = refuse_with(S("[123456]"), (struct json_limits){.bytes_max = 7});
    assert_int_equal(e.reason, REASON_TOO_LARGE);
    e = refuse_with(repeat(" ", JSON_BYTES_MAX, S("1")), (struct json_limits){0});
    assert_int_equal(e.reason, REASON_TOO_LARGE);
}

static void test_a_tree_that_would_overfill_the_arena_is_refused_before_it_is_built(void **state)
{
    (void) state;
    OWNED(arena) small = arena_create(100000);
    const struct json *value;
    struct error e = {0};
    str many = repeat("1,", 10000, S("1]")); /* 20 kB of text, 160 kB of values */
    many = str_printf(arena, "[" STR_FMT, STR_ARG(many));
    assert_false(json_parse(small, many, (struct json_limits){0}, &value, &e));
    assert_int_equal(e.reason, REASON_TOO_LARGE);
    assert_int_equal(arena_bytes(small), 0);
    str few = str_printf(arena, "[\"" STR_FMT "\"]", STR_ARG(repeat("x", 90000, STR_NONE)));
    assert_true(json_parse(small, few, (struct json_limits){0}, &value, &e));
    assert_true(arena_bytes(small) < 90000 + 1000);
}

static void test_a_large_tree_takes_no_more_than_its_values(void **state)
{
    (void) state;
    str many = str_printf(arena, "[" STR_FMT, STR_ARG(repeat("1,", 1000000, S("1]"))));
    size_t before = arena_bytes(arena);
    assert_int_equal(json_count(read_with(many, (struct json_limits){0})), 1000001);
    assert_true(arena_bytes(arena) - before < many.len + 16u * 1000002 + 1024);
}

static void test_duplicate_keys_are_refused_at_any_depth_and_size(void **state)
{
    (void) state;
    assert_non_null(strstr(refuse("{\"a\":1,\"b\":2,\"a\":3}").message, "\"a\" stands twice"));
    refuse("[{\"x\":{\"k\":1,\"k\":1}}]");
    refuse("{\"a\":1,\"\\u0061\":2}");
    refuse("{\"\":1,\"\":2}");
    read("{\"a\":{\"a\":{\"a\":1}},\"A\":[{\"a\":1},{\"a\":1}]}");
    for (size_t count = 2; count < 3000; count = count * 3 / 2 + 1) {
        struct strbuf text;
        strbuf_init(&text, arena, SIZE_MAX / 4);
        for (size_t i = 0; i < count; i++)
            strbuf_printf(&text, "%c\"key%zu\":%zu", i == 0 ? '{' : ',', i, i);
        str unique = str_printf(arena, STR_FMT "}", STR_ARG(strbuf_str(&text)));
        assert_int_equal(json_count(read_with(unique, (struct json_limits){0})), count);
        refuse(str_to_cstr(arena, str_printf(arena, STR_FMT ",\"key%zu\":0}",
                                             STR_ARG(strbuf_str(&text)), count / 2)));
    }
}

static void test_the_first_of_two_keys_wins_where_duplicates_are_allowed(void **state)
{
    (void) state;
    const struct json *v =
        read_with(S("{\"a\":1,\"a\":2}"), (struct json_limits){.allow_duplicates = true});
    assert_int_equal(json_i64_or(v, S("a"), 0), 1);
}

static void test_half_a_million_keys_take_linear_time(void **state)
{
    (void) state;
    struct strbuf text;
    strbuf_init(&text, arena, SIZE_MAX / 4);
    for (size_t i = 0; i < 500000; i++)
        strbuf_printf(&text, "%c\"%zu\":0", i == 0 ? '{' : ',', i);
    strbuf_add_char(&text, '}');
    assert_int_equal(json_count(read_with(strbuf_str(&text), (struct json_limits){0})), 500000);
}

static void test_member_readers_take_absent_null_and_the_right_type(void **state)
{
    (void) state;
    const struct json *v = read("{\"s\":\"x\",\"i\":7,\"b\":true,\"d\":1.5,\"n\":null}");
    struct error e = {0};
    str text = S("default");
    int64_t number = 3;
    bool flag = false;
    double real = 0;
    assert_true(json_read_str(v, S("none"), &text, &e) && json_read_str(v, S("n"), &text, &e));
    assert_true(str_equal(text, S("default")));
    assert_true(json_read_str(v, S("s"), &text, &e) && str_equal(text, S("x")));
    assert_true(json_read_i64(v, S("none"), 0, 9, &number, &e) && number == 3);
    assert_true(json_read_i64(v, S("i"), 7, 7, &number, &e) && number == 7);
    assert_true(json_read_bool(v, S("b"), &flag, &e) && flag);
    assert_true(json_read_double(v, S("d"), &real, &e));
    assert_true(json_read_double(v, S("i"), &real, &e));
    assert_true(fabs(real - 7) < 1e-9);
    assert_true(json_need_str(v, S("s"), &text, &e));
    assert_int_equal(e.code, ERROR_OK);
}

static void test_member_readers_name_the_member_and_what_it_must_be(void **state)
{
    (void) state;
    const struct json *v = read("{\"s\":\"x\",\"i\":7,\"n\":null}");
    struct error e = {0};
    str text = S("default");
    int64_t number = 3;
    bool flag = false;
    double real = 0;
    assert_false(json_read_str(v, S("i"), &text, &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_string_equal(e.message, "\"i\" must be a string, not integer");
    assert_false(json_read_i64(v, S("s"), 0, 9, &number, &e));
    assert_false(json_read_i64(v, S("i"), 8, 9, &number, &e));
    assert_string_equal(e.message, "\"i\" must be from 8 to 9, not 7");
    assert_false(json_read_i64(v, S("i"), 0, 6, &number, &e));
    assert_int_equal(number, 3);
    assert_false(json_read_bool(v, S("i"), &flag, &e));
    assert_false(json_read_double(v, S("s"), &real, &e));
    assert_false(json_need_str(v, S("none"), &text, &e));
    assert_string_equal(e.message, "\"none\" is missing: a string is needed");
    assert_false(json_need_str(v, S("n"), &text, &e));
    assert_false(json_need_str(v, S("i"), &text, &e));
    assert_true(str_equal(text, S("default")));
}

static void test_print_gives_compact_text_of_any_shape(void **state)
{
    (void) state;
    assert_prints(" [ 1 , [ ] , { \"a\" : [ { } , null ] , \"b\" : \"\\n\\u001f\\\"\" } , -1.50 , "
                  "true , false ] ",
                  "[1,[],{\"a\":[{},null],\"b\":\"\\n\\u001f\\\"\"},-1.5,true,false]");
    assert_prints("{\"a\":{\"b\":{}},\"c\":[[[]]]}", "{\"a\":{\"b\":{}},\"c\":[[[]]]}");
    assert_prints("1.0", "1.0");
    assert_prints("0.1", "0.1");
    assert_true(str_equal(json_print(arena, NULL), S("null")));
}

static void test_texts_with_every_backslash_run_before_a_quote_are_scanned_right(void **state)
{
    (void) state;
    read_with(S("[\"\\\\\",\"\\\\\\\"\",\"\\\"\",\"\"]"), (struct json_limits){.depth_max = 1});
    refuse("[\"\\\\\\\"]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_are_told_apart),
        cmocka_unit_test(test_a_lone_scalar_is_a_text),
        cmocka_unit_test(test_integers_are_exact_to_64_bits),
        cmocka_unit_test(test_a_real_without_fraction_reads_as_integer),
        cmocka_unit_test(test_getters_accept_null_and_wrong_types),
        cmocka_unit_test(test_reads_with_a_default),
        cmocka_unit_test(test_pointers_follow_rfc_6901),
        cmocka_unit_test(test_iteration_skips_over_nested_values),
        cmocka_unit_test(test_syntax_errors_name_the_place),
        cmocka_unit_test(test_escapes_are_resolved),
        cmocka_unit_test(test_depth_is_accepted_at_the_bound_and_refused_past_it),
        cmocka_unit_test(test_size_is_accepted_at_the_bound_and_refused_past_it),
        cmocka_unit_test(test_a_tree_that_would_overfill_the_arena_is_refused_before_it_is_built),
        cmocka_unit_test(test_a_large_tree_takes_no_more_than_its_values),
        cmocka_unit_test(test_duplicate_keys_are_refused_at_any_depth_and_size),
        cmocka_unit_test(test_the_first_of_two_keys_wins_where_duplicates_are_allowed),
        cmocka_unit_test(test_half_a_million_keys_take_linear_time),
        cmocka_unit_test(test_member_readers_take_absent_null_and_the_right_type),
        cmocka_unit_test(test_member_readers_name_the_member_and_what_it_must_be),
        cmocka_unit_test(test_print_gives_compact_text_of_any_shape),
        cmocka_unit_test(test_texts_with_every_backslash_run_before_a_quote_are_scanned_right),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
