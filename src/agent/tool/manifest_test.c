/* Manifests of tools with one module and with several. */
#include "agent/tool/manifest_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static const char rest[] =
    "name: echo\nversion: 1.0.0\ncategory: test\ndescription: says it again\n"
    "pure: true\nidempotent: true\n"
    "limits: {fuel: 1000, memory: 1MB, time: 1s, output: 1KB}\n"
    "permissions: {}\ninput: {type: object}\noutput: {type: object}\n";

static bool read(struct arena *arena, const char *modules, struct tool *tool, struct error *e)
{
    str text = str_printf(arena, "%s%s", rest, modules);
    return manifest_read(arena, S("manifest.yaml"), text, tool, e);
}

static void test_one_module_or_several(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct tool tool;
    struct error e;
    assert_true(read(arena, "abi: component\nmodule: a.wasm\n", &tool, &e));
    assert_int_equal(tool.abi, TOOL_ABI_COMPONENT);
    assert_int_equal(tool.module_count, 0);
    assert_true(read(arena,
                     "modules:\n  by: language\n  js: {abi: nexus-export, module: a.wasm}\n"
                     "  py: {abi: component, module: b.wasm}\n",
                     &tool, &e));
    assert_int_equal(tool.module_count, 2);
    assert_true(str_equal(tool.module_member, S("language")));
    assert_int_equal(tool_find_module(&tool, S("py"))->abi, TOOL_ABI_COMPONENT);
    assert_true(str_equal(tool_find_module(&tool, S("js"))->path, S("a.wasm")));
    assert_null(tool_find_module(&tool, S("rb")));
}

static void test_modules_that_are_wrong_are_refused_with_their_line(void **state)
{
    (void) state;
    static const struct {
        const char *modules, *why;
    } cases[] = {
        {"", "lacks abi"},
        {"abi: component\n", "lacks module"},
        {"abi: other\nmodule: a.wasm\n", "abi must be"},
        {"abi: component\nmodule: ../a.wasm\n", "beside the manifest"},
        {"abi: component\nmodule: a.wasm\nmodules: {by: x, a: {abi: component, module: a.wasm}}\n",
         "either abi and module, or modules"},
        {"modules: {a: {abi: component, module: a.wasm}, b: {abi: component, module: b.wasm}}\n",
         "by: ..."},
        {"modules: {by: x}\n", "modules must be"},
        {"modules: {by: x, a: {abi: component}}\n", "modules.a must be"},
        {"modules: {by: x, a: {abi: component, module: /a.wasm}}\n", "beside the manifest"},
        {"modules: {by: x, A: {abi: component, module: a.wasm}}\n", "a name in modules"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        OWNED(arena) arena = arena_create(0);
        struct tool tool;
        struct error e;
        assert_false(read(arena, cases[i].modules, &tool, &e));
        if (str_find(str_from_cstr(e.message), str_from_cstr(cases[i].why)) == STR_NOT_FOUND)
            fail_msg("%s is not said: %s", cases[i].why, e.message);
        assert_true(str_starts_with(str_from_cstr(e.message), S("manifest.yaml:")));
    }
}

static void test_as_many_modules_as_may_be_and_one_more(void **state)
{
    (void) state;
    for (unsigned extra = 0; extra < 2; extra++) {
        OWNED(arena) arena = arena_create(0);
        struct strbuf text;
        struct tool tool;
        struct error e;
        strbuf_init(&text, arena, 8192);
        strbuf_printf(&text, "modules:\n  by: kind\n");
        for (unsigned i = 0; i < TOOL_MODULES_MAX + extra; i++)
            strbuf_printf(&text, "  m%u: {abi: component, module: m%u.wasm}\n", i, i);
        assert_int_equal(read(arena, str_to_cstr(arena, strbuf_str(&text)), &tool, &e), extra == 0);
    }
}

static void test_every_module_counts_for_the_identity(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct tool tool;
    struct error e;
    assert_true(read(arena,
                     "modules: {by: x, a: {abi: component, module: a.wasm}, b: {abi: component, "
                     "module: b.wasm}}\n",
                     &tool, &e));
    digest before = tool_modules_digest(&tool);
    tool.modules[1].digest = digest_sha256(S("another"));
    assert_false(digest_equal(before, tool_modules_digest(&tool)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_module_or_several),
        cmocka_unit_test(test_modules_that_are_wrong_are_refused_with_their_line),
        cmocka_unit_test(test_as_many_modules_as_may_be_and_one_more),
        cmocka_unit_test(test_every_module_counts_for_the_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
