#include "workflow/expression.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct arena *arena;
static const struct json *variables;

static const struct json *parse(const char *text)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &value, &e))
        fail_msg("%s", e.message);
    return value;
}

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(512u << 20);
    variables = parse("{\"input\":{\"name\":\"Ada\",\"n\":3,\"r\":1.0,\"none\":null,\"yes\":true,"
                      "\"list\":[1,{\"a\":\"b\"}],\"base\":\"http://x\"}}");
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *find(void *owner, str name)
{
    (void) owner;
    return json_get(variables, name);
}

static bool fill(const char *tree, const struct json **out, struct error *e)
{
    struct template *template;
    struct expression_scope scope = {.find = find};
    return template_parse(arena, parse(tree), &template, e) &&
           template_fill(template, &scope, arena, out, e);
}

static void assert_fills(const char *tree, const char *expected)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (!fill(tree, &value, &e))
        fail_msg("%s: %s", tree, e.message);
    assert_string_equal(str_to_cstr(arena, json_print(arena, value)), expected);
}

static void assert_fails(const char *tree, const char *message)
{
    const struct json *value = NULL;
    struct error e = {0};
    assert_false(fill(tree, &value, &e));
    if (!strstr(e.message, message))
        fail_msg("%s", e.message);
}

static void test_a_lone_expression_keeps_its_type(void **state)
{
    (void) state;
    assert_fills("\"${input.n}\"", "3");
    assert_fills("\"${input.n + 1}\"", "4");
    assert_fills("\"${input.none}\"", "null");
    assert_fills("\"${input.list}\"", "[1,{\"a\":\"b\"}]");
    assert_fills("\"${{'a': input.n}}\"", "{\"a\":3}");
    assert_fills("[\"${input.n > 2}\", \"${input.name}\"]", "[true,\"Ada\"]");
}

static void test_texts_are_joined_with_what_expressions_give(void **state)
{
    (void) state;
    assert_fills("\"Dear ${input.name}, ${input.n} of ${input.r}\"", "\"Dear Ada, 3 of 1.0\"");
    assert_fills("\"${input.name}${input.name}\"", "\"AdaAda\"");
    assert_fills("\" ${input.n}\"", "\" 3\"");
    assert_fills("\"${input.list}, ${input.none}, ${input.yes}\"",
                 "\"[1,{\\\"a\\\":\\\"b\\\"}], null, true\"");
    assert_fills("\"${'}' + \\\"}\\\"} ${{'a': '}'}.a}\"", "\"}} }\"");
}

static void test_trees_are_filled_and_what_is_constant_stays(void **state)
{
    (void) state;
    assert_fills("{\"url\": \"${input.base}/flights\", \"limit\": \"${input.n}\", \"deep\": "
                 "[{\"x\": \"${input.name}\"}, [], {}], \"k\": {\"c\": [1, 2.5, null, \"t\"]}}",
                 "{\"url\":\"http://x/flights\",\"limit\":3,\"deep\":[{\"x\":\"Ada\"},[],{}],"
                 "\"k\":{\"c\":[1,2.5,null,\"t\"]}}");
    assert_fills("{\"${input.name}\": 1}", "{\"${input.name}\":1}"); /* keys are no templates */
    assert_fills("null", "null");
    assert_fills("[]", "[]");
}

static void test_a_doubled_dollar_is_literal(void **state)
{
    (void) state;
    assert_fills("\"$${input.name}\"", "\"${input.name}\"");
    assert_fills("\"a $${x} ${input.n} $ $$ {}\"", "\"a ${x} 3 $ $$ {}\"");
    assert_fills("\"5$\"", "\"5$\"");
}

static void test_a_constant_tree_is_passed_on_without_a_copy(void **state)
{
    struct template *template;
    struct expression_scope scope = {.find = find};
    const struct json *tree = parse("{\"a\": [1, {\"b\": \"c\"}]}"), *value;
    struct error e = {0};
    (void) state;
    assert_true(template_parse(arena, tree, &template, &e));
    size_t before = arena_bytes(arena);
    assert_true(template_fill(template, &scope, arena, &value, &e));
    assert_ptr_equal(value, tree);
    assert_int_equal(arena_bytes(arena), before);
}

static void test_what_is_wrong_is_named_with_its_place(void **state)
{
    (void) state;
    assert_fails("{\"a\": [{\"b/c\": \"x ${1 +}\"}]}",
                 "at /a/0/b~1c: column 8: a value is missing");
    assert_fails("\"${input.n\"", "column 10: the expression has no end; close it with }");
    assert_fails("\"${}\"", "column 3: a value is missing");
    assert_fails("\"${input.n input}\"", "expected an operator or }");
    assert_fails("{\"a\": \"${input.nope}\"}", "at /a: column 9: there is no member \"nope\"");
    assert_fails("\"${nope}\"", "column 3: there is no \"nope\" here");
    assert_fails("\"${fail('no ' + input.name)}\"", "column 3: fail(): no Ada");
}

static void test_a_filled_tree_is_bounded(void **state)
{
    struct error e = {0};
    const struct json *value;
    (void) state;
    assert_false(fill("[\"${range(200000)}\", \"${range(200000)}\"]", &value, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    struct error again = {0};
    assert_false(fill("\"${from_json('[' + range(40).map(x, '[').join() + range(40).map(x, "
                      "']').join() + ']').map(x, [[[[[[[[[[x]]]]]]]]]])}\"",
                      &value, &again));
    assert_int_equal(again.reason, REASON_LIMIT);
}

static void note(void *owner, str name)
{
    strbuf_printf(owner, STR_FMT " ", STR_ARG(name));
}

static void test_what_a_template_reads_is_known_before_it_is_filled(void **state)
{
    struct template *template;
    struct error e = {0};
    struct strbuf names;
    (void) state;
    strbuf_init(&names, arena, 4096);
    assert_true(template_parse(
        arena, parse("{\"a\": \"${steps.one.output} ${steps.two.output}\", \"b\": \"${item}\"}"),
        &template, &e));
    template_each_step(template, note, &names);
    template_each_variable(template, note, &names);
    assert_string_equal(str_to_cstr(arena, strbuf_str(&names)), "one two steps steps item ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lone_expression_keeps_its_type),
        cmocka_unit_test(test_texts_are_joined_with_what_expressions_give),
        cmocka_unit_test(test_trees_are_filled_and_what_is_constant_stays),
        cmocka_unit_test(test_a_doubled_dollar_is_literal),
        cmocka_unit_test(test_a_constant_tree_is_passed_on_without_a_copy),
        cmocka_unit_test(test_what_is_wrong_is_named_with_its_place),
        cmocka_unit_test(test_a_filled_tree_is_bounded),
        cmocka_unit_test(test_what_a_template_reads_is_known_before_it_is_filled),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
