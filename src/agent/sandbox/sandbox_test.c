/* The sandbox in this process: the contract of executors, and compiled modules on disk. */
#include "agent/sandbox/executor_contract.h"
#include "agent/sandbox/sandbox_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"

#define BEHAVE NEXUS_SOURCE_DIR "/tests/guests/behave.c"

static struct executor *sandbox;
static struct tool behave, command;
static char cache_dir[128];

static struct agent_testkit_call call_of(const struct tool *tool, const char *what)
{
    static char inputs[8][96];
    static int next;
    char *input = inputs[next++ % 8];
    snprintf(input, sizeof inputs[0], "{\"do\":\"%s\"}", what);
    return (struct agent_testkit_call){
        .executor = sandbox, .tool = tool, .input = str_from_cstr(input)};
}

static struct agent_testkit_call run(const struct tool *tool, const char *what)
{
    struct agent_testkit_call call = call_of(tool, what);
    agent_testkit_execute(&call);
    if (!call.is_ok)
        print_message("  %s: %s (%lld ms)\n", what, call.error.message, (long long) call.took_ms);
    return call;
}

static void assert_text(str got, const char *wanted)
{
    if (!str_equal(got, str_from_cstr(wanted)))
        fail_msg("got " STR_FMT ", wanted %s", STR_ARG(got), wanted);
}

static void assert_gives(const struct tool *tool, const char *what, const char *output)
{
    struct agent_testkit_call call = run(tool, what);
    assert_true(call.is_ok);
    assert_text(call.result.output, output);
}

/* ---- compiled modules on disk ---- */

static int warnings;

static void count_warnings(void *context, enum log_level level, str line)
{
    (void) context;
    warnings += level == LOG_LEVEL_WARN;
    print_message("  " STR_FMT, STR_ARG(line));
}

static struct executor *open_with(const char *dir, const struct host_call *calls, size_t count)
{
    struct error e;
    struct executor *executor;
    struct sandbox_options options = {
        .cache_dir = str_from_cstr(dir),
        .host_calls = calls,
        .host_call_count = count,
        .clock = clock_system(),
    };
    if (!sandbox_create(&options, &executor, &e))
        fail_msg("%s", e.message);
    return executor;
}

static struct executor *open_sandbox(void)
{
    return open_with(cache_dir, NULL, 0);
}

static str find_cwasm(const struct tool *tool)
{
    static char lines[2][512];
    static int next;
    char *line = lines[next++ % 2], command_line[256];
    OWNED(arena) arena = arena_create(0);
    str hex = digest_hex(arena, tool->module_digest);
    snprintf(command_line, sizeof command_line, "ls %s/" STR_FMT "-*.cwasm", cache_dir,
             STR_ARG(hex));
    FILE *pipe = popen(command_line, "r"); /* banned-ok: a fixed command of a test */
    assert_non_null(fgets(line, sizeof lines[0], pipe));
    pclose(pipe);
    return str_trim(str_from_cstr(line));
}

static void assert_recompiles(const struct tool *tool, int wanted_warnings)
{
    struct executor *before = sandbox;
    warnings = 0;
    sandbox = open_sandbox();
    assert_gives(tool, "echo", "{\"do\":\"echo\"}");
    executor_destroy(sandbox);
    sandbox = before;
    assert_int_equal(warnings, wanted_warnings);
}

static void overwrite(str path, str content)
{
    OWNED(arena) arena = arena_create(0);
    FILE *file = fopen(str_to_cstr(arena, path), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content.ptr ? content.ptr : "", 1, content.len, file), content.len);
    fclose(file);
}

static void test_a_changed_cut_or_renamed_cwasm_is_refused(void **state)
{
    (void) state;
    log_set_sink(count_warnings, NULL);
    str path = find_cwasm(&behave), good = agent_testkit_read_file(path);
    assert_recompiles(&behave, 0);
    char *changed = malloc(good.len);
    memcpy(changed, good.ptr, good.len);
    changed[good.len / 2] ^= 1;
    overwrite(path, str_of(changed, good.len));
    assert_recompiles(&behave, 1);
    assert_recompiles(&behave, 0); /* it was written anew */
    overwrite(path, str_slice(good, 0, good.len - 1));
    assert_recompiles(&behave, 1);
    overwrite(path, STR_NONE);
    assert_recompiles(&behave, 1);
    overwrite(path,
              agent_testkit_read_file(find_cwasm(&command))); /* signed, but for another module */
    assert_recompiles(&behave, 1);
    free(changed);
}

static void test_a_lost_key_costs_a_compilation(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    overwrite(str_printf(arena, "%s/cache.key", cache_dir), S("short"));
    assert_recompiles(&behave, 2); /* the key, and the module signed with the old one */
    assert_recompiles(&behave, 0);
}

static void test_a_folder_that_others_can_write_is_refused(void **state)
{
    (void) state;
    struct error e;
    struct executor *executor;
    char dir[160];
    snprintf(dir, sizeof dir, "%s/open", agent_testkit_dir());
    assert_int_equal(mkdir(dir, 0700) | chmod(dir, 0777), 0);
    struct sandbox_options options = {.cache_dir = str_from_cstr(dir), .clock = clock_system()};
    assert_false(sandbox_create(&options, &executor, &e));
    print_message("  %s\n", e.message);
    assert_non_null(strstr(e.message, "chmod 700"));
}

static int setup(void **state)
{
    (void) state;
    str module, of_command;
    assert_true(agent_testkit_compile(BEHAVE, "-mexec-model=reactor", &module));
    assert_true(agent_testkit_compile(BEHAVE, "-DCOMMAND", &of_command));
    behave = agent_testkit_tool("behave", TOOL_ABI_NEXUS_EXPORT, module);
    command = agent_testkit_tool("command", TOOL_ABI_WASI_COMMAND, of_command);
    snprintf(cache_dir, sizeof cache_dir, "%s/cache", agent_testkit_dir());
    sandbox = open_sandbox();
    agent_testkit_keep_fault_handlers();
    assert_gives(&behave, "echo", "{\"do\":\"echo\"}"); /* compiled, and on disk */
    assert_gives(&command, "echo", "{\"do\":\"echo\"}");
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    executor_destroy(sandbox);
    return 0;
}

int main(void)
{
    const struct executor_fixture fixture = {
        .name = "sandbox", .guest_source = BEHAVE, .open = open_with};
    str module;
    agent_testkit_skip_under_tsan();
    if (!agent_testkit_compile(BEHAVE, "-mexec-model=reactor", &module)) {
        print_message("SKIPPED: no clang for wasm32-wasi (packages clang lld wasi-libc "
                      "libclang-rt-14-dev-wasm32)\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_changed_cut_or_renamed_cwasm_is_refused),
        cmocka_unit_test(test_a_lost_key_costs_a_compilation),
        cmocka_unit_test(test_a_folder_that_others_can_write_is_refused),
    };
    int failed = executor_contract_run(&fixture);
    failed += cmocka_run_group_tests_name("compiled modules on disk", tests, setup, teardown);
    blocking_pool_stop();
    agent_testkit_remove();
    return failed;
}
