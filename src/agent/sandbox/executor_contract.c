/* What every executor of wasm tools does with guests that behave well and badly (tests/guests/behave.c). */
#include "agent/sandbox/executor_contract.h"

#include "agent/sandbox/sandbox_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static const struct executor_fixture *fixture;
static struct executor *sandbox;
static struct tool behave, command, bad_alloc;

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

static void assert_fails(const struct tool *tool, const char *what, enum error_reason reason)
{
    struct agent_testkit_call call = run(tool, what);
    assert_false(call.is_ok);
    assert_string_equal(error_problem(call.error.reason), error_problem(reason));
    assert_true(call.took_ms < 5000);
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

static void test_echo_goes_in_and_out(void **state)
{
    (void) state;
    struct agent_testkit_call call = run(&behave, "echo");
    assert_true(call.is_ok);
    assert_text(call.result.output, "{\"do\":\"echo\"}");
    assert_true(call.result.fuel > 0);
    assert_true(call.result.memory_bytes >= 65536);
    assert_gives(&command, "echo", "{\"do\":\"echo\"}");
}

static void test_each_limit_has_its_own_reason(void **state)
{
    (void) state;
    struct tool tool = behave;
    assert_fails(&tool, "memory", REASON_MEMORY_LIMIT);
    assert_fails(&tool, "one_bomb", REASON_MEMORY_LIMIT);
    assert_fails(&tool, "recurse", REASON_STACK_LIMIT);       /* the guest's own stack */
    assert_fails(&tool, "recurse_plain", REASON_STACK_LIMIT); /* wasmtime's */
    tool.limits.time_ms = 100;
    assert_fails(&tool, "loop", REASON_TIME_LIMIT);
    tool.limits.fuel = 1000000;
    assert_fails(&tool, "loop", REASON_FUEL);
    tool = behave;
    tool.limits.table_elements = 1;
    assert_fails(&tool, "echo", REASON_MEMORY_LIMIT);
    tool = behave;
    tool.limits.memory_bytes = 65536; /* less than it begins with */
    assert_fails(&tool, "echo", REASON_MEMORY_LIMIT);
}

static void test_permissions_lower_the_limits(void **state)
{
    (void) state;
    struct tool tool = behave;
    tool.permissions.max_memory_bytes = 1 << 20;
    struct agent_testkit_call call = run(&tool, "memory");
    assert_int_equal(call.error.reason, REASON_MEMORY_LIMIT);
    assert_true(call.result.memory_bytes <= 1 << 20);
    tool = behave;
    tool.permissions.max_cpu_time_ms = 60;
    call = run(&tool, "loop");
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    assert_true(call.took_ms < 2000);
}

static void test_a_trap_names_its_functions_and_no_addresses(void **state)
{
    (void) state;
    struct agent_testkit_call call = run(&behave, "trap");
    assert_int_equal(call.error.reason, REASON_TRAP);
    assert_non_null(strstr(call.error.message, "unreachable"));
    assert_non_null(strstr(call.error.message, "nexus_run"));
    assert_null(strstr(call.error.message, "0x"));
    assert_fails(&behave, "wild_read", REASON_TRAP);
}

static void test_bad_pointers_end_the_guest_and_nothing_else(void **state)
{
    (void) state;
    assert_fails(&behave, "pointer_host", REASON_TRAP);
    assert_fails(&behave, "pointer_file", REASON_TRAP);
    assert_fails(&behave, "pointer_log", REASON_TRAP);
    assert_fails(&behave, "output_outside", REASON_TRAP);
    assert_fails(&bad_alloc, "echo", REASON_TRAP);
    assert_gives(&behave, "echo", "{\"do\":\"echo\"}");
}

static void test_outputs_are_bounded_and_fit_their_schema(void **state)
{
    (void) state;
    struct agent_testkit_call call = run(&behave, "output_giant"); /* claims 1 GiB */
    assert_int_equal(call.error.reason, REASON_OUTPUT_LIMIT);
    assert_true(call.took_ms < 500);
    call = run(&command, "output_flood");
    assert_int_equal(call.error.reason, REASON_OUTPUT_LIMIT);
    assert_true(call.took_ms < 2000);
    assert_fails(&behave, "output_text", REASON_TOOL_FAILED);
    assert_fails(&behave, "output_wrong", REASON_TOOL_FAILED);
    assert_fails(&behave, "output_empty", REASON_TOOL_FAILED);
    call = run(&behave, "fail");
    assert_int_equal(call.error.reason, REASON_TOOL_FAILED);
    assert_non_null(strstr(call.error.message, "no such column"));
}

static void test_output_at_the_limit_passes_and_one_past_it_does_not(void **state)
{
    (void) state;
    struct tool tool = behave;
    tool.limits.output_bytes = strlen("{\"do\":\"echo\"}");
    assert_gives(&tool, "echo", "{\"do\":\"echo\"}");
    tool.limits.output_bytes--;
    assert_fails(&tool, "echo", REASON_OUTPUT_LIMIT);
}

static void test_input_that_does_not_fit_names_the_place(void **state)
{
    (void) state;
    struct agent_testkit_call call = {
        .executor = sandbox, .tool = &behave, .input = S("{\"do\":1}")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_SCHEMA);
    assert_non_null(strstr(call.error.message, "/do"));
    call.input = S("{\"do\":");
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_SCHEMA);
    assert_int_equal(call.result.fuel, 0);
}

/* ---- files ---- */

static bool resolve(void *owner, struct context *ctx, str name, str *path, int64_t *bytes,
                    struct error *e)
{
    (void) e;
    assert_true(str_equal(name, S("data.csv")) || str_equal(name, S("other.txt")));
    *path = str_copy(ctx->arena, *(str *) owner);
    *bytes = 8;
    return true;
}

static void test_only_granted_files_can_be_read(void **state)
{
    (void) state;
    str path = agent_testkit_write_file("data", S("01234567")),
        names[] = {S("data.csv"), S("other.txt")};
    struct tool_files files = {.owner = &path, .resolve = resolve};
    str calls[] = {S("file_size"), S("file_read"), S("file_write")};
    struct tool tool = behave;
    struct agent_testkit_call call = call_of(&tool, "files");
    call.files = &files;
    call.file_names = names;
    call.file_name_count = 2;
    agent_testkit_execute(&call); /* without the grant */
    assert_text(call.result.output,
                "{\"size\":-2,\"other\":-2,\"got\":-2,\"text\":\"\",\"past\":-2,\"written\":-2}");
    tool.host_calls = calls;
    tool.host_call_count = 3;
    agent_testkit_execute(&call);
    assert_text(call.result.output,
                "{\"size\":8,\"other\":-1,\"got\":4,\"text\":\"2345\",\"past\":0,\"written\":-2}");
    str extensions[] = {S(".txt")};
    tool.permissions.allowed_extensions = (struct str_list){extensions, 1};
    agent_testkit_execute(&call);
    assert_text(call.result.output,
                "{\"size\":-2,\"other\":-1,\"got\":-2,\"text\":\"\",\"past\":-2,\"written\":-2}");
}

/* ---- host calls ---- */

static bool host_test(void *owner, struct context *ctx, const struct tool_request *request,
                      str input, str *output, struct error *e)
{
    (void) owner, (void) request, (void) e;
    *output = str_printf(ctx->arena, "{\"got\":" STR_FMT "}", STR_ARG(input));
    return true;
}

static bool host_slow(void *owner, struct context *ctx, const struct tool_request *request,
                      str input, str *output, struct error *e)
{
    (void) owner, (void) request, (void) input, (void) output;
    return context_sleep_ms(ctx, 60000, e);
}

static bool host_deny(void *owner, struct context *ctx, const struct tool_request *request,
                      str input, str *output, struct error *e)
{
    (void) owner, (void) ctx, (void) request, (void) input, (void) output;
    return error_set(e, REASON_EGRESS_BLOCKED, "10.0.0.1 is blocked");
}

static const struct host_call host_calls[] = {
    {"test", host_test, NULL}, {"slow", host_slow, NULL}, {"deny", host_deny, NULL}};
static str granted[] = {S_INIT("test"), S_INIT("slow"), S_INIT("deny")};

static void test_host_calls_answer_only_when_granted(void **state)
{
    (void) state;
    struct tool tool = behave;
    assert_gives(&tool, "host",
                 "{\"answer\":{\"error\":{\"code\":\"denied\",\"message\":\"the tool's manifest "
                 "does not grant this host call\"}}}");
    tool.host_calls = granted;
    tool.host_call_count = ARRAY_COUNT(granted);
    assert_gives(&tool, "host", "{\"answer\":{\"ok\":{\"got\":{\"x\":1}}}}");
    struct agent_testkit_call call = run(&tool, "host_forbidden");
    assert_int_not_equal(str_find(call.result.output, S("denied")), STR_NOT_FOUND);
    assert_fails(&tool, "denied", REASON_EGRESS_BLOCKED);
    assert_fails(&tool, "host_flood", REASON_TRAP);
}

static void test_a_waiting_guest_obeys_limit_and_cancel(void **state)
{
    (void) state;
    struct tool tool = behave;
    tool.host_calls = granted;
    tool.host_call_count = ARRAY_COUNT(granted);
    tool.limits.time_ms = 100;
    struct agent_testkit_call call = run(&tool, "host_slow");
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    assert_true(call.took_ms < 1000);
    tool.limits.time_ms = 10000;
    call = call_of(&tool, "host_slow");
    call.cancel_ms = 50;
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_CANCELLED);
    assert_true(call.took_ms < 1000);
}

/* ---- wasi ---- */

static void test_a_command_has_streams_and_nothing_else(void **state)
{
    (void) state;
    assert_gives(&command, "arguments", "{\"argc\":1,\"argv\":\"command\",\"home\":0,\"file\":0}");
    struct agent_testkit_call call = run(&command, "exit");
    assert_int_equal(call.error.reason, REASON_TOOL_FAILED);
    assert_non_null(strstr(call.error.message, "exit status 3: no such file"));
    assert_text(call.result.log, "first line\nno such file\n");
    call = run(&behave, "log");
    assert_text(call.result.log, "hello\nand stderr\n");
}

static void test_sleep_holds_no_thread_and_ends_at_the_limit(void **state)
{
    (void) state;
    struct agent_testkit_call call = run(&command, "sleep");
    assert_true(call.is_ok);
    assert_in_range(call.took_ms, 49, 1000);
    struct tool tool = command;
    tool.limits.time_ms = 100;
    assert_fails(&tool, "sleep_long", REASON_TIME_LIMIT);
    call = call_of(&command, "sleep_long");
    call.cancel_ms = 30;
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_CANCELLED);
    assert_true(call.took_ms < 1000);
}

/* ---- ending from outside ---- */

static void test_cancel_and_the_callers_deadline_end_a_loop_at_once(void **state)
{
    (void) state;
    struct agent_testkit_call call = call_of(&behave, "loop");
    call.cancel_ms = 50;
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_CANCELLED);
    assert_in_range(call.took_ms, 50, 300);
    call = call_of(&behave, "loop");
    call.deadline_ms = 60;
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_TIMEOUT);
    assert_in_range(call.took_ms, 60, 300);
}

static void test_a_module_that_changed_on_disk_is_refused(void **state)
{
    (void) state;
    struct tool tool = behave;
    tool.module_digest.bytes[0] ^= 1;
    tool.identity = tool_identity(&tool);
    assert_fails(&tool, "echo", REASON_CORRUPT);
}

static void test_broken_modules_and_schemas_are_named(void **state)
{
    (void) state;
    struct tool tool =
        agent_testkit_tool("broken", TOOL_ABI_NEXUS_EXPORT,
                           agent_testkit_write_file("broken.wasm", S("\0asm\1\0\0\0junk")));
    assert_fails(&tool, "echo", REASON_INVALID);
    tool = agent_testkit_tool("empty", TOOL_ABI_NEXUS_EXPORT,
                              agent_testkit_write_file("empty.wasm", S("\0asm\1\0\0\0")));
    assert_fails(&tool, "echo", REASON_INVALID);
    tool = command;
    tool.abi = TOOL_ABI_NEXUS_EXPORT;
    tool.identity = tool_identity(&tool);
    assert_fails(&tool, "echo", REASON_INVALID);
    tool = behave;
    tool.input_schema = S("{\"type\":\"nonsense\"}");
    tool.identity = tool_identity(&tool);
    assert_fails(&tool, "echo", REASON_INVALID);
    tool.module_path = S("/nonexistent/module.wasm");
    tool.identity.bytes[0] ^= 1;
    assert_fails(&tool, "echo", REASON_NOT_FOUND);
}

static void test_code_runs_only_in_granted_languages(void **state)
{
    (void) state;
    struct tool tool = behave;
    tool.category = S("code");
    struct agent_testkit_call call = {
        .executor = sandbox, .tool = &tool, .input = S("{\"language\":\"python\"}")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_PERMISSION); /* no list allows nothing */
    str languages[] = {S("javascript")};
    tool.permissions.languages = (struct str_list){languages, 1};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_PERMISSION);
    call.input = S("{\"language\":\"javascript\"}");
    agent_testkit_execute(&call);
    assert_true(call.is_ok);
}

static int setup(void **state)
{
    (void) state;
    str module, of_command, of_bad_alloc;
    char cache_dir[128];
    assert_true(agent_testkit_compile(fixture->guest_source, "-mexec-model=reactor", &module));
    assert_true(agent_testkit_compile(fixture->guest_source, "-DCOMMAND", &of_command));
    assert_true(agent_testkit_compile(fixture->guest_source, "-mexec-model=reactor -DBAD_ALLOC",
                                      &of_bad_alloc));
    behave = agent_testkit_tool("behave", TOOL_ABI_NEXUS_EXPORT, module);
    command = agent_testkit_tool("command", TOOL_ABI_WASI_COMMAND, of_command);
    bad_alloc = agent_testkit_tool("bad_alloc", TOOL_ABI_NEXUS_EXPORT, of_bad_alloc);
    snprintf(cache_dir, sizeof cache_dir, "%s/contract", agent_testkit_dir());
    sandbox = fixture->open(cache_dir, host_calls, ARRAY_COUNT(host_calls));
    agent_testkit_keep_fault_handlers();
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    executor_destroy(sandbox);
    return 0;
}

int executor_contract_run(const struct executor_fixture *of)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_goes_in_and_out),
        cmocka_unit_test(test_each_limit_has_its_own_reason),
        cmocka_unit_test(test_permissions_lower_the_limits),
        cmocka_unit_test(test_a_trap_names_its_functions_and_no_addresses),
        cmocka_unit_test(test_bad_pointers_end_the_guest_and_nothing_else),
        cmocka_unit_test(test_outputs_are_bounded_and_fit_their_schema),
        cmocka_unit_test(test_output_at_the_limit_passes_and_one_past_it_does_not),
        cmocka_unit_test(test_input_that_does_not_fit_names_the_place),
        cmocka_unit_test(test_only_granted_files_can_be_read),
        cmocka_unit_test(test_host_calls_answer_only_when_granted),
        cmocka_unit_test(test_a_waiting_guest_obeys_limit_and_cancel),
        cmocka_unit_test(test_a_command_has_streams_and_nothing_else),
        cmocka_unit_test(test_sleep_holds_no_thread_and_ends_at_the_limit),
        cmocka_unit_test(test_cancel_and_the_callers_deadline_end_a_loop_at_once),
        cmocka_unit_test(test_a_module_that_changed_on_disk_is_refused),
        cmocka_unit_test(test_broken_modules_and_schemas_are_named),
        cmocka_unit_test(test_code_runs_only_in_granted_languages),
    };
    fixture = of;
    return cmocka_run_group_tests_name(of->name, tests, setup, teardown);
}
