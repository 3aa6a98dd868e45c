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
    arena = arena_create(64u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *parse(const char *text)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &value, &e))
        fail_msg("%s", e.message);
    return value;
}

static void assert_prints(const struct json *value, const char *expected)
{
    assert_string_equal(str_to_cstr(arena, json_print(arena, value)), expected);
}

static void test_a_tree_is_built_value_by_value(void **state)
{
    struct json_builder b;
    (void) state;
    json_builder_init(&b, arena, 100);
    json_build_object_begin(&b);
    json_build_key(&b, S("a"));
    json_build_array_begin(&b);
    json_build_i64(&b, INT64_MIN);
    json_build_i64(&b, INT64_MAX);
    json_build_double(&b, 1.5);
    json_build_double(&b, NAN);
    json_build_bool(&b, true);
    json_build_bool(&b, false);
    json_build_null(&b);
    json_build_str(&b, S("t\"x"));
    json_build_str(&b, STR_NONE);
    json_build_array_end(&b);
    json_build_key(&b, S("o"));
    json_build_object_begin(&b);
    json_build_object_end(&b);
    json_build_key(&b, S("e"));
    json_build_array_begin(&b);
    json_build_array_end(&b);
    json_build_object_end(&b);
    const struct json *tree = json_build_finish(&b);
    assert_prints(tree, "{\"a\":[-9223372036854775808,9223372036854775807,1.5,null,true,false,null,"
                        "\"t\\\"x\",\"\"],\"o\":{},\"e\":[]}");
    int64_t number;
    assert_true(json_to_i64(json_path(tree, S("/a/0")), &number) && number == INT64_MIN);
    assert_int_equal(json_count(json_get(tree, S("a"))), 9);
    assert_int_equal(json_depth(tree), 2);
    assert_int_equal(json_value_count(tree), 16);
}

static void test_a_tree_put_in_is_copied_by_its_values(void **state)
{
    struct json_builder b;
    const struct json *part = parse("{\"x\":[1,{\"y\":[[]]},\"text\"],\"z\":{}}");
    (void) state;
    json_builder_init(&b, arena, 100);
    json_build_array_begin(&b);
    json_build_value(&b, part);
    json_build_value(&b, json_get(part, S("x")));
    json_build_value(&b, NULL);
    json_build_array_end(&b);
    const struct json *tree = json_build_finish(&b);
    assert_prints(tree,
                  "[{\"x\":[1,{\"y\":[[]]},\"text\"],\"z\":{}},[1,{\"y\":[[]]},\"text\"],null]");
    str text, original;
    assert_true(json_to_str(json_path(tree, S("/1/2")), &text) &&
                json_to_str(json_path(part, S("/x/2")), &original));
    assert_ptr_equal(text.ptr, original.ptr); /* shared */
    assert_int_equal(json_depth(tree), 6);
}

static void test_a_lone_scalar_is_a_tree(void **state)
{
    struct json_builder b;
    (void) state;
    json_builder_init(&b, arena, 1);
    json_build_str(&b, S("x"));
    assert_prints(json_build_finish(&b), "\"x\"");
}

static void test_too_many_values_or_levels_are_told_at_the_end(void **state)
{
    struct json_builder b;
    (void) state;
    for (size_t max = 3; max <= 4; max++) {
        json_builder_init(&b, arena, max);
        json_build_array_begin(&b);
        for (size_t i = 0; i < 3; i++)
            json_build_i64(&b, 1);
        json_build_array_end(&b);
        assert_int_equal(json_build_finish(&b) != NULL, max == 4);
    }
    for (size_t levels = JSON_DEPTH_MAX; levels <= JSON_DEPTH_MAX + 1; levels++) {
        json_builder_init(&b, arena, 1000);
        for (size_t i = 0; i < levels; i++)
            json_build_array_begin(&b);
        for (size_t i = 0; i < levels; i++)
            json_build_array_end(&b);
        assert_int_equal(json_build_finish(&b) != NULL, levels == JSON_DEPTH_MAX);
        if (levels > JSON_DEPTH_MAX)
            continue;
        const struct json *deep = json_build_finish(&b);
        assert_int_equal(json_depth(deep), JSON_DEPTH_MAX);
        json_builder_init(&b, arena, 1000);
        json_build_array_begin(&b);
        json_build_value(&b, deep);
        json_build_array_end(&b);
        assert_null(json_build_finish(&b));
    }
}

static bool same(const char *a, const char *b)
{
    size_t steps = 1000;
    bool is_same = json_equal(parse(a), parse(b), &steps);
    assert_true(steps > 0);
    steps = 1000;
    assert_int_equal(json_equal(parse(b), parse(a), &steps), is_same);
    return is_same;
}

static void test_equality_is_of_values(void **state)
{
    (void) state;
    assert_true(same("{\"a\":1,\"b\":[2,{}]}", "{\"b\":[2,{}],\"a\":1}"));
    assert_true(same("1", "1.0"));
    assert_true(same("-3", "-3.0"));
    assert_true(same("18446744073709551615", "18446744073709551615"));
    assert_true(same("[null,true,\"x\"]", "[null,true,\"x\"]"));
    assert_false(same("18446744073709551615", "-1"));
    assert_false(same("9007199254740993", "9007199254740992.0"));
    assert_false(same("1", "1.5"));
    assert_false(same("1", "\"1\""));
    assert_false(same("{\"a\":1}", "{\"a\":1,\"b\":1}"));
    assert_false(same("{\"a\":1}", "{\"b\":1}"));
    assert_false(same("[]", "{}"));
    assert_false(same("null", "false"));
    assert_false(same("[1,2]", "[2,1]"));
}

static void test_equality_takes_bounded_work(void **state)
{
    size_t steps = 4;
    (void) state;
    assert_false(json_equal(parse("[1,2,3,4,5]"), parse("[1,2,3,4,5]"), &steps));
    assert_int_equal(steps, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tree_is_built_value_by_value),
        cmocka_unit_test(test_a_tree_put_in_is_copied_by_its_values),
        cmocka_unit_test(test_a_lone_scalar_is_a_tree),
        cmocka_unit_test(test_too_many_values_or_levels_are_told_at_the_end),
        cmocka_unit_test(test_equality_is_of_values),
        cmocka_unit_test(test_equality_takes_bounded_work),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
