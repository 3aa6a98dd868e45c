/* JavaScript from its start-up snapshot: every call begins anew, calls other tools, tells its lines; figures and profile. */
#include "agent/sandbox/sandbox_testkit.h"
#include "agent/tool/registry.h"

#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"

enum { REPEATS = 200 };

static struct executor *sandbox;
static struct registry *registry;
static const struct registry_snapshot *tools;
static struct tool granted; /* code_execution with the host call tool_call */
static str tool_call_input; /* of the last tool_call */

/* ---- help ---- */

/* The host's side of nexus.call: knows a tool "add", refuses the rest. */
static bool fake_tool_call(void *owner, struct context *ctx, const struct tool_request *request,
                           str input, str *output, struct error *e)
{
    (void) owner, (void) request;
    const struct json *root;
    static char kept[4096];
    ensure(input.len < sizeof kept);
    memcpy(kept, input.ptr, input.len);
    tool_call_input = str_of(kept, input.len);
    if (!json_parse(ctx->arena, input, (struct json_limits){0}, &root, e))
        return false;
    if (!str_equal(json_str_or(root, S("name"), STR_NONE), S("add")))
        return error_set(e, REASON_PERMISSION, "this agent has no such tool");
    int64_t a = 0, b = 0;
    const struct json *arguments = json_get(root, S("input"));
    ensure(json_to_i64(json_get(arguments, S("a")), &a) &&
           json_to_i64(json_get(arguments, S("b")), &b));
    *output = str_printf(ctx->arena, "{\"sum\":%lld}", (long long) (a + b));
    return true;
}

static struct agent_testkit_call run(const char *code)
{
    struct arena *arena = arena_create(0);
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1 << 20);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("language"), S("javascript"));
    json_put_str(&w, S("code"), str_from_cstr(code));
    json_object_end(&w);
    struct agent_testkit_call call = {
        .executor = sandbox, .tool = &granted, .input = strbuf_str(&text)};
    agent_testkit_execute(&call);
    arena_destroy(arena);
    return call;
}

static void assert_has(str text, const char *part)
{
    if (str_find(text, str_from_cstr(part)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, part, STR_ARG(text));
}

static void assert_gives(const char *code, const char *part)
{
    struct agent_testkit_call call = run(code);
    if (!call.is_ok)
        fail_msg("%s", call.error.message);
    assert_has(call.result.output, part);
}

/* ---- tests ---- */

static void test_an_error_names_the_line_of_the_user(void **state)
{
    (void) state;
    assert_gives("let a = 1\n\nfunction f() {\n  throw new TypeError('no')\n}\nf()\n",
                 "Uncaught TypeError: no\\n    at f (code.js:4:");
    assert_gives("let a = 1\n\nfunction f() {\n  throw new TypeError('no')\n}\nf()\n",
                 "code.js:6:");
    assert_gives("let a = 1\nlet = = 2\n", "code.js:2:");
}

static void test_nothing_of_one_call_is_seen_by_another(void **state)
{
    (void) state;
    static const char *const leave =
        "globalThis.leak = 'secret'; Array.prototype.leak = 'secret'; JSON.parse = () => 'secret';"
        "nexus.call = () => 'secret'; Math.random = () => 7; var result = 'secret';"
        "Object.prototype.toString = () => 'secret'; setTimeout(() => {}, 1e12);"
        "new Error('x'); console.log = () => {}; result = 'done'";
    static const char *const look =
        "var seen = [typeof leak, [].leak, JSON.parse('1'), String({}), typeof result,"
        " Math.random() < 1, nexus.call.name, Object.keys(globalThis).join()]; console.log(seen);"
        "result = seen.slice(0, 7)";
    for (int i = 0; i < REPEATS; i++) {
        assert_gives(leave, "\"exit_code\":0");
        assert_gives(look, "\"result\":[\"undefined\",null,1,\"[object Object]\",\"undefined\","
                           "true,\"call\"]");
    }
}

static void test_randomness_and_time_are_of_the_call(void **state)
{
    (void) state;
    struct agent_testkit_call one = run("let result = [1, 2, 3].map(Math.random)"),
                              two = run("let result = [1, 2, 3].map(Math.random)");
    assert_true(one.is_ok && two.is_ok);
    assert_false(str_equal(one.result.output, two.result.output));
    int64_t now_ms = clock_unix_us(clock_system()) / 1000;
    char code[200];
    snprintf(code, sizeof code,
             "let result = [Math.abs(Date.now() - %lld) < 60000, performance.timeOrigin > 0,"
             " performance.now() < 60000]",
             (long long) now_ms);
    assert_gives(code, "\"result\":[true,true,true]");
}

static void test_a_script_calls_another_tool(void **state)
{
    (void) state;
    assert_gives("let result = nexus.call('add', {a: 2, b: 40}).sum", "\"result\":42");
    assert_true(str_equal(tool_call_input, S("{\"name\":\"add\",\"input\":{\"a\":2,\"b\":40}}")));
    assert_gives("let result; try { nexus.call('rm', {}) } catch (e) { result = [e.name, e.code, "
                 "e.message, e instanceof Error] }",
                 "\"result\":[\"Error\",\"denied\",\"this agent has no such tool\",true]");
    assert_gives("\nnexus.call('rm')", "code.js:2:");
    assert_gives("let result; try { nexus.call() } catch (e) { result = e.name }",
                 "\"result\":\"TypeError\"");
    assert_gives("let result; try { nexus.call('add', [1]) } catch (e) { result = e.name }",
                 "\"result\":\"TypeError\"");
}

static void test_a_tool_without_the_grant_calls_none(void **state)
{
    (void) state;
    struct tool tool = granted;
    tool.host_call_count = 0;
    struct agent_testkit_call call = {
        .executor = sandbox,
        .tool = &tool,
        .input = S("{\"language\":\"javascript\",\"code\":\"let result; try { nexus.call('add', "
                   "{a: 1, b: 2}) } catch (e) { result = e.code }\"}")};
    agent_testkit_execute(&call);
    assert_true(call.is_ok);
    assert_has(call.result.output, "\"result\":\"denied\"");
}

static void test_deep_recursion_is_an_error_of_the_script(void **state)
{
    (void) state;
    assert_gives("let result; function f() { return 1 + f() } try { f() } catch (e) { result = "
                 "e.name }",
                 "\"result\":\"RangeError\"");
}

static void test_figures_tell_cpu_time_and_cold_starts(void **state)
{
    (void) state;
    struct agent_testkit_call call = run("let result = 1");
    assert_true(call.is_ok && !call.result.is_cold);
    assert_true(call.result.cpu_us > 0 && call.result.cpu_us < 1000 * 1000);
    struct tool fresh = granted;
    fresh.identity.bytes[0] ^= 1; /* another version of it: not loaded yet */
    call = (struct agent_testkit_call){
        .executor = sandbox,
        .tool = &fresh,
        .input = S("{\"language\":\"javascript\",\"code\":\"let result = 1\"}")};
    agent_testkit_execute(&call);
    assert_true(call.is_ok && call.result.is_cold);
}

static void test_a_call_that_takes_long_has_a_profile_and_a_short_one_has_none(void **state)
{
    (void) state;
    struct agent_testkit_call call = run("let result = 1");
    assert_true(call.is_ok && str_is_empty(call.result.profile));
    call =
        run("let n = 0, end = Date.now() + 300; while (Date.now() < end) n += [3, 1, 2].sort()[0]");
    assert_true(call.is_ok);
    print_message("  %lld us of CPU time: " STR_FMT "\n", (long long) call.result.cpu_us,
                  STR_ARG(call.result.profile));
    assert_has(call.result.profile, "nexus_run;tool_run;");
    assert_has(call.result.profile, "JS_CallInternal");
}

static void test_a_call_that_was_stopped_has_a_profile_too(void **state)
{
    (void) state;
    struct tool tool = granted;
    tool.limits.time_ms = 300;
    struct agent_testkit_call call = {.executor = sandbox,
                                      .tool = &tool,
                                      .input =
                                          S("{\"language\":\"javascript\",\"code\":\"for(;;);\"}")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    assert_has(call.result.profile, "JS_CallInternal");
}

static int setup(void **state)
{
    (void) state;
    agent_testkit_skip_under_tsan();
    static char path[1024], cache[128], dir[1100], wasm[1200];
    struct error e;
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 32);
    assert_true(len > 0);
    path[len] = '\0';
    snprintf(dir, sizeof dir, "%s/toolbox", dirname(path));
    snprintf(cache, sizeof cache, "%s/cache", agent_testkit_dir());
    snprintf(wasm, sizeof wasm, "%s/code_execution/code_execution.wasm", dir);
    if (access(wasm, R_OK) != 0) {
        print_message("SKIPPED: no shipped tools in %s (build target `toolbox`)\n", dir);
        exit(0);
    }
    static struct host_call calls[1] = {{"tool_call", fake_tool_call, NULL}};
    struct registry_options registry_options = {.tool_dir = str_from_cstr(dir)};
    struct sandbox_options options = {.cache_dir = str_from_cstr(cache),
                                      .host_calls = calls,
                                      .host_call_count = 1,
                                      .clock = clock_system()};
    if (!registry_create(&registry_options, &registry, &e) ||
        !sandbox_create(&options, &sandbox, &e))
        fail_msg("%s", e.message);
    tools = registry_acquire(registry);
    granted = *registry_find(tools, S("code_execution"), STR_NONE);
    static str host_calls[1] = {S_INIT("tool_call")};
    granted.host_calls = host_calls;
    granted.host_call_count = 1;
    if (!sandbox_prepare(sandbox, &granted, &e))
        fail_msg("%s", e.message);
    agent_testkit_keep_fault_handlers();
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    registry_release(tools);
    registry_destroy(registry);
    executor_destroy(sandbox);
    blocking_pool_stop();
    agent_testkit_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_error_names_the_line_of_the_user),
        cmocka_unit_test(test_nothing_of_one_call_is_seen_by_another),
        cmocka_unit_test(test_randomness_and_time_are_of_the_call),
        cmocka_unit_test(test_a_script_calls_another_tool),
        cmocka_unit_test(test_a_tool_without_the_grant_calls_none),
        cmocka_unit_test(test_deep_recursion_is_an_error_of_the_script),
        cmocka_unit_test(test_figures_tell_cpu_time_and_cold_starts),
        cmocka_unit_test(test_a_call_that_takes_long_has_a_profile_and_a_short_one_has_none),
        cmocka_unit_test(test_a_call_that_was_stopped_has_a_profile_too),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
