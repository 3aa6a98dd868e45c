#include "base/yaml.h"

#include "base/arena.h"
#include "base/limits.h"

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

static struct yaml_document read(const char *text)
{
    struct yaml_document document;
    struct error e = {0};
    if (!yaml_parse(arena, S("nexus.yaml"), str_from_cstr(text), &document, &e))
        fail_msg("%s", e.message);
    return document;
}

static void assert_json(const char *yaml, const char *json)
{
    struct yaml_document document = read(yaml);
    assert_string_equal(str_to_cstr(arena, json_print(arena, document.root)), json);
}

static void assert_refused(const char *yaml, const char *message)
{
    struct yaml_document document;
    struct error e = {0};
    assert_false(yaml_parse(arena, S("nexus.yaml"), str_from_cstr(yaml), &document, &e));
    if (!strstr(e.message, message))
        fail_msg("'%s' is not in '%s'", message, e.message);
    assert_int_equal(e.reason, REASON_CONFIG);
}

static int line_of(const struct yaml_document *document, const char *pointer)
{
    return yaml_line(document, json_path(document->root, str_from_cstr(pointer)));
}

static void test_mappings_and_lists_become_objects_and_arrays(void **state)
{
    (void) state;
    assert_json("listen: 127.0.0.1:8080\nmodels:\n  - name: fast\n    targets: [{provider: local, "
                "weight: 1}]\n",
                "{\"listen\":\"127.0.0.1:8080\",\"models\":[{\"name\":\"fast\",\"targets\":"
                "[{\"provider\":\"local\",\"weight\":1}]}]}");
    assert_json("- []\n- {}\n- - a\n", "[[],{},[\"a\"]]");
}

static void test_an_empty_file_is_null(void **state)
{
    (void) state;
    assert_json("", "null");
    assert_json("# nothing yet\n", "null");
    assert_json("---\n", "null");
}

static void test_plain_scalars_follow_the_core_schema(void **state)
{
    (void) state;
    assert_json("[~, null, Null, true, False, yes, on, no, y]",
                "[null,null,null,true,false,\"yes\",\"on\",\"no\",\"y\"]");
    assert_json("[0, -7, +7, 007, 0o17, 0x1F, 9223372036854775807, -9223372036854775808, "
                "18446744073709551615]",
                "[0,-7,7,7,15,31,9223372036854775807,-9223372036854775808,18446744073709551615]");
    assert_json("[1.5, -.5, 2., 1e3, 1.2.3, 1_000, 0x, 10MB, 12:30:45, 2026-11-23, -, .]",
                "[1.5,-0.5,2.0,1000.0,\"1.2.3\",\"1_000\",\"0x\",\"10MB\",\"12:30:45\",\"2026-11-"
                "23\",\"-\",\".\"]");
}

static void test_quoted_and_block_scalars_stay_strings(void **state)
{
    (void) state;
    assert_json("['1', \"true\", \"a\\tb\\u00e9\", '']", "[\"1\",\"true\",\"a\\tb\xc3\xa9\",\"\"]");
    assert_json("text: |\n  one\n  two\nfolded: >-\n  one\n  two\n",
                "{\"text\":\"one\\ntwo\\n\",\"folded\":\"one two\"}");
}

static void test_keys_are_strings_whatever_they_look_like(void **state)
{
    (void) state;
    assert_json("{1: a, true: b, 'x y': c, ~: d}",
                "{\"1\":\"a\",\"true\":\"b\",\"x y\":\"c\",\"~\":\"d\"}");
}

static void test_an_alias_repeats_its_anchor(void **state)
{
    (void) state;
    assert_json("a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]\n",
                "{\"a\":{\"k\":[1,2]},\"b\":{\"k\":[1,2]},\"c\":[{\"k\":[1,2]},{\"k\":[1,2]}]}");
    assert_json("a: &x one\nb: &x two\nc: *x\n", "{\"a\":\"one\",\"b\":\"two\",\"c\":\"two\"}");
}

static void test_lines_are_those_of_the_values(void **state)
{
    (void) state;
    struct yaml_document document = read("listen: here\n"
                                         "models:\n"
                                         "  - name: fast\n"
                                         "    max: 12\n"
                                         "  - &m\n"
                                         "    name: slow\n"
                                         "again: *m\n");
    assert_int_equal(line_of(&document, "/listen"), 1);
    assert_int_equal(line_of(&document, "/models"), 3);
    assert_int_equal(line_of(&document, "/models/0/max"), 4);
    assert_int_equal(line_of(&document, "/models/1/name"), 6);
    assert_int_equal(line_of(&document, "/again/name"), 6);
    assert_int_equal(line_of(&document, "/nowhere"), 0);
}

static void test_yaml_error_names_file_and_line(void **state)
{
    (void) state;
    struct yaml_document document = read("a: 1\nb: 2\n");
    struct error e = {0};
    assert_false(yaml_error(&document, json_get(document.root, S("b")), &e, "want %d", 3));
    assert_string_equal(e.message, "nexus.yaml:2: want 3");
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_false(yaml_error(&document, NULL, &e, "something is missing"));
    assert_string_equal(e.message, "nexus.yaml: something is missing");
}

static void test_mistakes_are_refused_with_place_and_remedy(void **state)
{
    (void) state;
    assert_refused(
        "a: 1\n\tb: 2\n",
        "nexus.yaml:2:1: found a tab character that violates indentation; indent with spaces");
    assert_refused(
        "a: b: c\n",
        "nexus.yaml:1:5: mapping values are not allowed in this context; check the indentation");
    assert_refused("a: [1, 2\n", "close the list with ']'");
    assert_refused("a: {b: 2\n", "close the mapping with '}'");
    assert_refused("a: 'x\n", "close the quote");
    assert_refused("a: 1\n b: 2\n", "nexus.yaml:2:");
    assert_refused("a: 1\nb: 2\na: 3\n", "nexus.yaml:3:1: the key 'a' appears twice");
    assert_refused("a: 1\n---\nb: 2\n", "nexus.yaml:2:1: a second document begins here");
    assert_refused("a: !!str 1\n", "nexus.yaml:1:4: tags (!) are not supported");
    assert_refused("b: &b {x: 1}\na:\n  <<: *b\n", "nexus.yaml:3:3: merge keys");
    assert_refused("? [a]\n: 1\n", "a key must be a plain or quoted word");
    assert_refused("&k a: 1\nb: {&k2 c: 1}\n", "a key cannot have an anchor");
    assert_refused("a: *nobody\n", "this alias names no anchor");
    assert_refused("a: &a [*a]\n", "this alias would contain itself");
    assert_refused("a: 18446744073709551616\n", "does not fit 64 bits");
    assert_refused("a: 0xfffffffffffffffff\n", "does not fit 64 bits");
    assert_refused("a: 1e999\n", "too large");
    assert_refused("a: -.inf\n", "infinity and NaN");
    assert_refused("a: 1\nb: \x01\n", "nexus.yaml:2:");
    assert_refused("a: \xff\n", "save the file as UTF-8");
}

static const char *repeat(const char *piece, size_t count)
{
    struct strbuf b;
    strbuf_init(&b, arena, 32u << 20);
    for (size_t i = 0; i < count; i++)
        strbuf_add(&b, str_from_cstr(piece));
    return str_to_cstr(arena, strbuf_str(&b));
}

static const char *nested(size_t depth)
{
    return str_to_cstr(arena, str_printf(arena, "%s%s", repeat("[", depth), repeat("]", depth)));
}

static void test_depth_is_bounded(void **state)
{
    (void) state;
    read(nested(JSON_DEPTH_MAX));
    assert_refused(nested(JSON_DEPTH_MAX + 1), "nested deeper than 64 levels");
    str half =
        str_printf(arena, "a: &x %s\nb: %s*x%s\n", nested(40), repeat("[", 40), repeat("]", 40));
    assert_refused(str_to_cstr(arena, half), "nested too deeply once this alias is expanded");
}

static void assert_too_large(str text)
{
    struct yaml_document document;
    struct error e = {0};
    assert_false(yaml_parse(arena, S("nexus.yaml"), text, &document, &e));
    assert_int_equal(e.reason, REASON_TOO_LARGE);
}

static void test_size_and_expansion_are_bounded(void **state)
{
    (void) state;
    const char *comment = repeat("#", YAML_BYTES_MAX);
    struct yaml_document document;
    struct error e = {0};
    assert_true(yaml_parse(arena, S("f"), str_of(comment, YAML_BYTES_MAX), &document, &e));
    assert_too_large(str_from_cstr(repeat("#", YAML_BYTES_MAX + 1)));
    /* Ten lines, ten billion values when expanded. */
    struct strbuf b;
    strbuf_init(&b, arena, 1u << 20);
    strbuf_add(&b, S("a0: &a0 [x]\n"));
    for (int i = 1; i <= 10; i++)
        strbuf_printf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i,
                      i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    assert_too_large(strbuf_str(&b));
    str wide = str_printf(arena, "a: &a %s\nb: [%s*a]\n", repeat("x", 1000), repeat("*a,", 5000));
    assert_too_large(wide);
    read(str_to_cstr(arena, str_printf(arena, "[%s x]", repeat("x,", YAML_VALUES_MAX - 2))));
    assert_too_large(str_printf(arena, "[%s x]", repeat("x,", YAML_VALUES_MAX - 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mappings_and_lists_become_objects_and_arrays, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_empty_file_is_null, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_plain_scalars_follow_the_core_schema, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_quoted_and_block_scalars_stay_strings, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_keys_are_strings_whatever_they_look_like, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_alias_repeats_its_anchor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lines_are_those_of_the_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_yaml_error_names_file_and_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes_are_refused_with_place_and_remedy, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_depth_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_size_and_expansion_are_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
