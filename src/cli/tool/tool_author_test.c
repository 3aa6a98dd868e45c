/* tests.yaml, tool.build and the differences that a failed test shows. */
#include "cli/tool/tool_author.h"
#include "cli/tool/tool_cases.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct arena *arena;

static int make_arena(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    return 0;
}

static int drop_arena(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *parse(const char *text)
{
    const struct json *tree;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, &e))
        fail_msg("%s: %s", text, e.message);
    return tree;
}

/* ---- differences ---- */

static void assert_differences(const char *wanted, const char *found, bool is_part, size_t count,
                               const char *first)
{
    str lines[TOOL_TEST_DIFFERENCES_MAX];
    size_t got = json_differences(arena, parse(wanted), parse(found), is_part, lines);
    assert_int_equal(got, count);
    if (count > 0)
        assert_string_equal(str_to_cstr(arena, lines[0]), first);
}

static void test_equal_values_have_no_differences(void **state)
{
    (void) state;
    assert_differences("{\"a\":1,\"b\":[1,{\"c\":null}]}", "{\"b\":[1,{\"c\":null}],\"a\":1}",
                       false, 0, NULL);
    assert_differences("2.0", "2", false, 0, NULL);
    assert_differences("9007199254740993", "9007199254740993", false, 0, NULL);
}

static void test_each_difference_names_its_place(void **state)
{
    (void) state;
    assert_differences("{\"a\":1}", "{\"a\":2}", false, 1, "/a: expected 1, got 2");
    assert_differences("{\"a\":1}", "{}", false, 1, "/a: expected 1, and it is not there");
    assert_differences("{}", "{\"a\":1}", false, 1, "/a: not expected, got 1");
    assert_differences("[1,2]", "[1]", false, 1, "/1: expected 2, and it is not there");
    assert_differences("[1]", "[1,2]", false, 1, "/1: not expected, got 2");
    assert_differences("\"1\"", "1", false, 1, "the output: expected \"1\", got 1");
    assert_differences("null", "false", false, 1, "the output: expected null, got false");
    assert_differences("9007199254740993", "9007199254740992", false, 1,
                       "the output: expected 9007199254740993, got 9007199254740992");
}

static void test_a_part_may_have_more_around_it(void **state)
{
    (void) state;
    assert_differences("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1,\"c\":2},\"d\":3}", true, 0, NULL);
    assert_differences("{\"a\":{\"b\":1}}", "{\"a\":{\"c\":2}}", true, 1,
                       "/a/b: expected 1, and it is not there");
}

static void test_differences_have_a_bound(void **state)
{
    (void) state;
    struct strbuf a, b;
    str lines[TOOL_TEST_DIFFERENCES_MAX];
    strbuf_init(&a, arena, 4096);
    strbuf_init(&b, arena, 4096);
    for (int i = 0; i < 100; i++) {
        strbuf_printf(&a, "%c%d", i ? ',' : '[', i);
        strbuf_printf(&b, "%c%d", i ? ',' : '[', i + 1);
    }
    strbuf_add_char(&a, ']');
    strbuf_add_char(&b, ']');
    assert_int_equal(json_differences(arena, parse(str_to_cstr(arena, strbuf_str(&a))),
                                      parse(str_to_cstr(arena, strbuf_str(&b))), false, lines),
                     TOOL_TEST_DIFFERENCES_MAX);
}

/* ---- tests.yaml ---- */

static void test_a_test_is_read_whole(void **state)
{
    (void) state;
    struct tool_cases cases;
    struct error e = {0};
    str text = S("tests:\n"
                 "  - name: one\n"
                 "    input: {a: 1}\n"
                 "    error: {reason: fuel_limit, message: up}\n"
                 "    log: said\n"
                 "    files: {a.txt: text}\n"
                 "    host:\n"
                 "      - {call: http_request, request: {url: u}, answer: {status: 200}}\n"
                 "      - {call: http_request, error: {code: denied, message: no}}\n");
    assert_true(tool_cases_read(arena, S("tests.yaml"), text, &cases, &e));
    assert_int_equal(cases.count, 1);
    const struct tool_case *one = &cases.items[0];
    assert_true(one->is_failure && !one->output && !one->contains);
    assert_true(str_equal(one->input, S("{\"a\":1}")));
    assert_true(str_equal(one->reason, S("fuel_limit")) && str_equal(one->log, S("said")));
    assert_int_equal(one->file_count, 1);
    assert_true(str_equal(one->files[0].text, S("text")));
    assert_int_equal(one->call_count, 2);
    assert_true(one->calls[0].answer && one->calls[0].request);
    assert_true(!one->calls[1].answer && one->calls[1].reason == REASON_PERMISSION);
}

static void test_what_is_wrong_with_tests_is_told_with_its_line(void **state)
{
    (void) state;
    static const struct {
        const char *text, *told;
    } wrong[] = {
        {"[]", "tests.yaml:1"},
        {"tests: 1", "must be a list"},
        {"tests:\n  - {name: x, input: []}", "tests.yaml:2"},
        {"tests:\n  - {name: x, input: {}, output: 1, contains: {}}", "one of"},
        {"tests:\n  - {name: x, input: {}, error: {reason: nothing}}", "no reason nothing"},
        {"tests:\n  - {name: x, input: {}, error: {code: denied}}", "no member code"},
        {"tests:\n  - {name: x, input: {}, host: {}}", "host must be a list"},
        {"tests:\n  - {name: x, input: {}, host: [{answer: 1}]}", "needs `call`"},
        {"tests:\n  - {name: x, input: {}, host: [{call: a, error: {code: odd}}]}", "code must be"},
        {"tests:\n  - {name: x, input: {}, files: {a: 1}}", "must be a text"},
        {"tests:\n  - {name: 1, input: {}}", "name must be a text"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct tool_cases cases;
        struct error e = {0};
        assert_false(
            tool_cases_read(arena, S("tests.yaml"), str_from_cstr(wrong[i].text), &cases, &e));
        if (e.reason != REASON_CONFIG || !strstr(e.message, wrong[i].told))
            fail_msg("%s: \"%s\"", wrong[i].text, e.message);
    }
}

/* ---- tool.build ---- */

static bool recipe(const char *text, struct tool_recipe *out, struct error *e)
{
    return tool_recipe_parse(arena, S("tool.build"), str_from_cstr(text), S("/nonexistent"),
                             S("x.wasm"), out, e);
}

static void test_commands_stay_words(void **state)
{
    (void) state;
    struct tool_recipe out;
    struct error e = {0};
    assert_true(recipe("language: other\nbuild: [[cc, \"a b\", \"$(x)\"], [strip]]\n"
                       "environment: {A: \"1 2\"}",
                       &out, &e));
    assert_int_equal(out.command_count, 2);
    assert_int_equal(out.commands[0].count, 3);
    assert_true(str_equal(out.commands[0].words[2], S("$(x)")));
    assert_int_equal(out.environment_count, 1);
    assert_true(str_equal(out.environment[0], S("A=1 2")));
    assert_true(recipe("language: other\nbuild: []", &out, &e));
    assert_int_equal(out.command_count, 0);
}

static void test_go_has_a_way_of_its_own(void **state)
{
    (void) state;
    struct tool_recipe out;
    struct error e = {0};
    assert_true(recipe("language: go\nenvironment: {GOFLAGS: \"-mod=vendor\"}", &out, &e));
    assert_int_equal(out.command_count, 1);
    assert_true(str_equal(out.commands[0].words[0], S("go")));
    assert_true(str_equal(out.commands[0].words[5], S("x.wasm")));
    assert_int_equal(out.environment_count, 3);
    assert_true(str_equal(out.environment[0], S("GOOS=wasip1")));
    assert_true(str_equal(out.environment[2], S("GOFLAGS=-mod=vendor")));
}

static void test_c_compiles_the_files_of_the_folder_and_of_sdk(void **state)
{
    (void) state;
    static const char *const names[] = {"b.c", "a.c", "-x.c", "c.h", "sdk/s.c"};
    char folder[] = "/tmp/nexus-recipe-test.XXXXXX", path[128];
    struct tool_recipe out;
    struct error e = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sdk", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fclose(file);
    }
    assert_true(tool_recipe_read(arena, str_from_cstr(folder), S("x.wasm"), &out, &e));
    const struct tool_command *clang = &out.commands[0];
    assert_true(str_equal(clang->words[clang->count - 4], S("x.wasm")));
    assert_true(str_equal(clang->words[clang->count - 3], S("a.c")));
    assert_true(str_equal(clang->words[clang->count - 2], S("b.c")));
    assert_true(str_equal(clang->words[clang->count - 1], S("sdk/s.c")));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/sdk", folder);
    rmdir(path);
    rmdir(folder);
}

static void test_a_broken_recipe_is_refused(void **state)
{
    (void) state;
    static const char *const wrong[] = {
        "[]",
        "language: cobol",
        "language: other",
        "language: c", /* no C file there */
        "build: cc",
        "build: [cc]",
        "build: [[]]",
        "build: [[1]]",
        "build: [[\"\"]]",
        "language: go\nenvironment: [A]",
        "language: go\nenvironment: {\"A=B\": c}",
        "script: x",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct tool_recipe out;
        struct error e = {0};
        if (recipe(wrong[i], &out, &e) || e.reason != REASON_CONFIG)
            fail_msg("\"%s\": \"%s\"", wrong[i], e.message);
    }
}

static void test_a_program_that_is_missing_or_fails_is_told(void **state)
{
    (void) state;
    struct tool_recipe out;
    struct error e = {0};
    assert_true(recipe("build: [[\"true\"]]", &out, &e));
    assert_true(tool_recipe_run(arena, S("/"), &out, &e));
    assert_true(recipe("build: [[\"false\"]]", &out, &e));
    assert_false(tool_recipe_run(arena, S("/"), &out, &e));
    assert_non_null(strstr(e.message, "false ended with status 1"));
    assert_true(recipe("build: [[/nonexistent/zig]]", &out, &e));
    assert_false(tool_recipe_run(arena, S("/"), &out, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_non_null(strstr(e.message, "ziglang"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_values_have_no_differences),
        cmocka_unit_test(test_each_difference_names_its_place),
        cmocka_unit_test(test_a_part_may_have_more_around_it),
        cmocka_unit_test(test_differences_have_a_bound),
        cmocka_unit_test(test_a_test_is_read_whole),
        cmocka_unit_test(test_what_is_wrong_with_tests_is_told_with_its_line),
        cmocka_unit_test(test_commands_stay_words),
        cmocka_unit_test(test_go_has_a_way_of_its_own),
        cmocka_unit_test(test_c_compiles_the_files_of_the_folder_and_of_sdk),
        cmocka_unit_test(test_a_broken_recipe_is_refused),
        cmocka_unit_test(test_a_program_that_is_missing_or_fails_is_told),
    };
    return cmocka_run_group_tests(tests, make_arena, drop_arena);
}
