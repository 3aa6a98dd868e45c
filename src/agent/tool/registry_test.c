#include "agent/tool/registry.h"
#include "agent/sandbox/sandbox_testkit.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"

static struct arena *arena;
static str dir;

static void put(const char *folder, const char *version, const char *extra)
{
    str path = str_printf(arena, STR_FMT "/%s", STR_ARG(dir), folder);
    mkdir(path.ptr, 0700);
    str manifest =
        str_printf(arena,
                   "name: echo\nversion: %s\ncategory: test\nabi: nexus-export\nmodule: "
                   "echo.wasm\npure: true\n"
                   "idempotent: true\nlimits: {fuel: 1000, memory: 1MB, time: 1s, output: "
                   "1KB}\npermissions: {}\n"
                   "description: Says it again.\ninput: {type: object}\noutput: {type: object}\n%s",
                   version, extra);
    str inner = str_printf(arena, "tools/%s/manifest.yaml", folder);
    agent_testkit_write_file(inner.ptr, manifest);
    inner = str_printf(arena, "tools/%s/echo.wasm", folder);
    agent_testkit_write_file(inner.ptr, S("\0asm"));
}

static struct registry *open_registry(const struct yaml_document *config)
{
    struct registry *registry;
    struct error e;
    struct registry_options options = {.tool_dir = dir, .tool_config = config};
    if (!registry_create(&options, &registry, &e))
        fail_msg("%s", e.message);
    return registry;
}

static void assert_finds(const struct registry_snapshot *snapshot, str range, const char *version)
{
    const struct tool *tool = registry_find(snapshot, S("echo"), range);
    if (!version) {
        assert_null(tool);
        return;
    }
    assert_non_null(tool);
    assert_true(str_equal(tool->version, str_from_cstr(version)));
}

static void test_versions_stand_side_by_side(void **state)
{
    (void) state;
    put("a", "1.2.0", "");
    put("b", "1.10.0", "");
    put("c", "2.0.0-rc.1", "");
    struct registry *registry = open_registry(NULL);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    assert_int_equal(registry_count(snapshot), 3);
    assert_true(str_equal(registry_at(snapshot, 0)->version, S("2.0.0-rc.1")));
    assert_finds(snapshot, STR_NONE, "1.10.0");
    assert_finds(snapshot, S("~1.2"), "1.2.0");
    assert_finds(snapshot, S("2.0.0-rc.1"), "2.0.0-rc.1");
    assert_finds(snapshot, S("^3"), NULL);
    assert_null(registry_find(snapshot, S("other"), STR_NONE));
    assert_null(registry_at(snapshot, 3));
    registry_release(snapshot);
    registry_destroy(registry);
}

static void test_a_broken_manifest_refuses_that_tool_only(void **state)
{
    (void) state;
    static const char *const broken[][2] = {
        {"flavour: sweet\n", "manifest.yaml:13: "},      {"timeout: soon\n", "manifest.yaml:13: "},
        {"host_calls: [Clock]\n", "manifest.yaml:13: "}, {"author: [x]\n", "manifest.yaml:13: "},
        {"name: again\n", "manifest.yaml:13"},           {"\t- :\n", "manifest.yaml:"},
    };
    put("good", "1.0.0", "");
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++) {
        put("bad", "1.5.0", broken[i][0]);
        struct registry *registry = open_registry(NULL);
        const struct registry_snapshot *snapshot = registry_acquire(registry);
        assert_finds(snapshot, S("1.5.0"), NULL);
        assert_finds(snapshot, S("1.0.0"), "1.0.0");
        assert_int_equal(registry_error_count(snapshot), 1);
        print_message("  " STR_FMT "\n", STR_ARG(registry_error_at(snapshot, 0)));
        assert_int_not_equal(str_find(registry_error_at(snapshot, 0), str_from_cstr(broken[i][1])),
                             STR_NOT_FOUND);
        registry_release(snapshot);
        registry_destroy(registry);
    }
}

static void test_missing_members_and_modules_are_named(void **state)
{
    (void) state;
    mkdir(str_printf(arena, STR_FMT "/empty", STR_ARG(dir)).ptr, 0700);
    mkdir(str_printf(arena, STR_FMT "/little", STR_ARG(dir)).ptr, 0700);
    agent_testkit_write_file("tools/little/manifest.yaml", S("name: little\nversion: 1.0.0\n"));
    put("gone", "1.0.0", "");
    unlink(str_printf(arena, STR_FMT "/gone/echo.wasm", STR_ARG(dir)).ptr);
    put("twice", "2.0.0", "");
    put("twice2", "2.0.0", "");
    struct registry *registry = open_registry(NULL);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    assert_int_equal(registry_count(snapshot), 1);
    assert_int_equal(registry_error_count(snapshot), 3);
    static const char *const wanted[] = {"echo.wasm", "lacks category", "is there already"};
    for (size_t i = 0; i < 3; i++) {
        print_message("  " STR_FMT "\n", STR_ARG(registry_error_at(snapshot, i)));
        assert_int_not_equal(str_find(registry_error_at(snapshot, i), str_from_cstr(wanted[i])),
                             STR_NOT_FOUND);
    }
    registry_release(snapshot);
    registry_destroy(registry);
}

static void test_configuration_narrows_permissions(void **state)
{
    (void) state;
    struct yaml_document config;
    struct error e;
    struct registry *registry;
    put("a", "1.0.0", "");
    assert_true(yaml_parse(arena, S("nexus.yaml"),
                           S("tools:\n  echo:\n    permissions: {languages: [javascript]}\n"),
                           &config, &e));
    registry = open_registry(&config);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    assert_int_equal(registry_find(snapshot, S("echo"), STR_NONE)->permissions.languages.count, 1);
    registry_release(snapshot);
    registry_destroy(registry);
    assert_true(yaml_parse(arena, S("nexus.yaml"), S("tools:\n  echo:\n    permission: {}\n"),
                           &config, &e));
    struct registry_options options = {.tool_dir = dir, .tool_config = &config};
    assert_false(registry_create(&options, &registry, &e));
    print_message("  %s\n", e.message);
    assert_non_null(strstr(e.message, "nexus.yaml:3"));
}

static void test_a_new_configuration_is_in_force_and_old_snapshots_keep_theirs(void **state)
{
    (void) state;
    struct yaml_document one, other, broken;
    struct error e;
    put("a", "1.0.0", "");
    assert_true(yaml_parse(arena, S("nexus.yaml"),
                           S("tools:\n  echo:\n    permissions: {languages: [javascript]}\n"), &one,
                           &e));
    assert_true(yaml_parse(arena, S("nexus.yaml"),
                           S("tools:\n  echo:\n    permissions: {languages: [python, lua]}\n"),
                           &other, &e));
    assert_true(yaml_parse(arena, S("nexus.yaml"), S("tools: [echo]\n"), &broken, &e));
    struct registry *registry = open_registry(&one);
    const struct registry_snapshot *old = registry_acquire(registry);
    assert_true(registry_reconfigure(registry, &other, &e));
    assert_false(registry_reconfigure(registry, &broken, &e));
    assert_true(registry_reload(registry, &e)); /* by the newest that was good */
    const struct registry_snapshot *fresh = registry_acquire(registry);
    assert_int_equal(registry_find(fresh, S("echo"), STR_NONE)->permissions.languages.count, 2);
    registry_destroy(registry);
    const struct str_list *kept = &registry_find(old, S("echo"), STR_NONE)->permissions.languages;
    assert_int_equal(kept->count, 1);
    assert_true(str_equal(kept->items[0], S("javascript")));
    registry_release(old);
    registry_release(fresh);
}

static void test_a_reload_leaves_old_snapshots_alive(void **state)
{
    (void) state;
    struct error e;
    put("a", "1.0.0", "");
    struct registry *registry = open_registry(NULL);
    const struct registry_snapshot *old = registry_acquire(registry);
    put("b", "1.1.0", "");
    assert_true(registry_reload(registry, &e));
    const struct registry_snapshot *fresh = registry_acquire(registry);
    assert_finds(old, STR_NONE, "1.0.0");
    assert_finds(fresh, STR_NONE, "1.1.0");
    registry_destroy(registry); /* the snapshots stay */
    assert_finds(fresh, STR_NONE, "1.1.0");
    registry_release(old);
    registry_release(fresh);
}

static void test_a_reload_that_fails_keeps_the_old(void **state)
{
    (void) state;
    struct error e;
    put("a", "1.0.0", "");
    struct registry *registry = open_registry(NULL);
    str away = str_printf(arena, STR_FMT ".away", STR_ARG(dir));
    assert_int_equal(rename(dir.ptr, away.ptr), 0);
    assert_false(registry_reload(registry, &e));
    assert_int_equal(rename(away.ptr, dir.ptr), 0);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    assert_finds(snapshot, STR_NONE, "1.0.0");
    registry_release(snapshot);
    registry_destroy(registry);
}

static atomic_bool is_over;

static void *read_all_the_time(void *argument)
{
    struct registry *registry = argument;
    while (!atomic_load(&is_over)) {
        const struct registry_snapshot *snapshot = registry_acquire(registry);
        if (!registry_find(snapshot, S("echo"), STR_NONE))
            abort();
        registry_release(snapshot);
    }
    return NULL;
}

static void test_readers_and_reloads_at_once(void **state)
{
    (void) state;
    struct error e;
    pthread_t reader;
    put("a", "1.0.0", "");
    struct registry *registry = open_registry(NULL);
    pthread_create(&reader, NULL, read_all_the_time, registry);
    for (int i = 0; i < 50; i++)
        assert_true(registry_reload(registry, &e));
    atomic_store(&is_over, true);
    pthread_join(reader, NULL);
    registry_destroy(registry);
}

static void test_effects_follow_category_and_purity(void **state)
{
    (void) state;
    struct tool tool = {.category = S("http")};
    assert_true(tool_has_effect(&tool));
    tool.is_idempotent = true;
    assert_false(tool_has_effect(&tool));
    tool.category = S("system");
    assert_true(tool_has_effect(&tool));
}

static int fresh_dir(void **state)
{
    (void) state;
    arena = arena_create(0);
    dir = str_printf(arena, "%s/tools", agent_testkit_dir());
    mkdir(dir.ptr, 0700);
    return 0;
}

static int remove_dir(void **state)
{
    (void) state;
    arena_destroy(arena);
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s/tools'", agent_testkit_dir());
    return system(command); /* banned-ok: a fixed command of a test */
}

static int teardown(void **state)
{
    (void) state;
    agent_testkit_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_versions_stand_side_by_side, fresh_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_a_broken_manifest_refuses_that_tool_only, fresh_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(test_missing_members_and_modules_are_named, fresh_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(test_configuration_narrows_permissions, fresh_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(
            test_a_new_configuration_is_in_force_and_old_snapshots_keep_theirs, fresh_dir,
            remove_dir),
        cmocka_unit_test_setup_teardown(test_a_reload_leaves_old_snapshots_alive, fresh_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(test_a_reload_that_fails_keeps_the_old, fresh_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(test_readers_and_reloads_at_once, fresh_dir, remove_dir),
        cmocka_unit_test(test_effects_follow_category_and_purity),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
