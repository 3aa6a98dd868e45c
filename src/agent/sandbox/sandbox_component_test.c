/* Python, a component, in the real sandbox: what it can, where it ends, and that others are unharmed. */
#include "agent/sandbox/host_tool_call.h"
#include "agent/sandbox/sandbox_testkit.h"
#include "agent/tool/registry.h"

#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

enum { CALLS = 200, ROUNDS = 200 };

static struct executor *sandbox;
static struct registry *registry;
static const struct registry_snapshot *tools;

static const struct tool *code_execution(void)
{
    return registry_find(tools, S("code_execution"), STR_NONE);
}

/* Texts on the heap, for the life of the program. */
static str input_of(const char *language, const char *code)
{
    static struct arena *arena;
    struct strbuf text;
    struct json_writer w;
    if (!arena)
        arena = arena_create(64u << 20);
    strbuf_init(&text, arena, 1 << 20);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("language"), str_from_cstr(language));
    json_put_str(&w, S("code"), str_from_cstr(code));
    json_object_end(&w);
    return strbuf_str(&text);
}

static struct agent_testkit_call run_with(const struct tool *tool, const char *code)
{
    struct agent_testkit_call call = {
        .executor = sandbox, .tool = tool, .input = input_of("python", code)};
    agent_testkit_execute(&call);
    if (!call.is_ok)
        print_message("  %s (%lld ms)\n", call.error.message, (long long) call.took_ms);
    return call;
}

static struct agent_testkit_call run(const char *code)
{
    return run_with(code_execution(), code);
}

static void assert_has(str text, const char *part)
{
    if (str_find(text, str_from_cstr(part)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, part, STR_ARG(text));
}

static void assert_output(const char *code, const char *part)
{
    struct agent_testkit_call call = run(code);
    assert_true(call.is_ok);
    assert_has(call.result.output, part);
}

static void test_python_computes(void **state)
{
    (void) state;
    assert_output("result = sum(range(100))", "\"result\":4950");
    assert_output("import json, re\nresult = re.findall(r'\\d+', json.dumps({'a': 12}))",
                  "\"result\":[\"12\"]");
    assert_output("print('hello')", "\"stdout\":\"hello\\n\"");
    assert_output("import sys\nprint('x', file=sys.stderr)\nsys.exit(3)", "\"exit_code\":3");
}

static void test_a_traceback_names_the_line_and_quotes_it(void **state)
{
    (void) state;
    struct agent_testkit_call call = run("def f(x):\n    return 1 / x\n\nf(0)\n");
    assert_true(call.is_ok);
    assert_has(call.result.output, "File \\\"code.py\\\", line 4, in <module>");
    assert_has(call.result.output, "return 1 / x");
    assert_has(call.result.output, "ZeroDivisionError");
    assert_has(call.result.output, "\"exit_code\":1");
}

static void test_nothing_survives_a_call(void **state)
{
    (void) state;
    assert_output("import math\nmath.leak = 1", "\"exit_code\":0");
    assert_output("import math\nresult = hasattr(math, 'leak')", "\"result\":false");
    struct agent_testkit_call one = run("import random\nresult = random.random()"),
                              two = run("import random\nresult = random.random()");
    assert_false(str_equal(one.result.output, two.result.output));
}

/* One call in the notebook; its output. */
static struct agent_testkit_call cell(const struct tool_notebook *notebook, const char *code,
                                      int64_t cancel_ms)
{
    char input[256];
    snprintf(input, sizeof input, "{\"language\":\"python\",\"notebook\":\"n\",\"code\":\"%s\"}",
             code);
    struct agent_testkit_call call = {.executor = sandbox,
                                      .tool = code_execution(),
                                      .input = str_from_cstr(input),
                                      .notebook = notebook,
                                      .cancel_ms = cancel_ms};
    agent_testkit_execute(&call);
    return call;
}

static void assert_says(const struct agent_testkit_call *call, const char *part)
{
    assert_true(call->is_ok);
    assert_has(call->result.output, part);
}

static void test_a_notebook_keeps_its_interpreter_until_a_call_is_stopped(void **state)
{
    (void) state;
    struct tool_notebook first = {.self = digest_sha256(S("first")),
                                  .memory_bytes = 64u << 20,
                                  .idle_ns = INT64_MAX,
                                  .per_session_max = 4},
                         second = first;
    second.self = digest_sha256(S("second"));
    struct agent_testkit_call call = cell(&first, "x = 1", 0);
    assert_says(&call, "\"notebook\":{\"state\":\"new\",\"calls\":1}");
    call = cell(&second, "result = 'x' in globals()", 0);
    assert_says(&call, "\"result\":false");
    for (int i = 0; i < 20; i++) {
        call = cell(&first, "x += 1\\nresult = x", 0);
        assert_says(&call, "\"state\":\"kept\"");
    }
    assert_says(&call, "\"result\":21");
    assert_true(call.result.memory_bytes > 0 && call.result.memory_bytes <= 64u << 20);
    call = cell(&first, "while True: pass", 50);
    assert_false(call.is_ok);
    call = cell(&first, "result = 'x' in globals()", 0);
    assert_says(&call, "\"result\":false");
    assert_says(&call, "\"state\":\"new\"");
}

static void test_there_is_no_world_outside(void **state)
{
    (void) state;
    assert_output("open('/etc/passwd')", "FileNotFoundError");
    assert_output("import os\nos.listdir('/')", "Error");
    assert_output("import os\nresult = dict(os.environ)", "\"result\":{}");
    assert_output("import socket\nsocket.socket()", "Error");
    assert_output("import socket\nsocket.getaddrinfo('example.com', 80)", "gaierror");
    assert_output("import threading\nthreading.Thread(target=print).start()", "RuntimeError");
    assert_output("import nexus\nnexus.call('time', {'operation': 'now'})", "ToolError: denied");
}

static void test_a_sleep_takes_its_time_and_no_thread(void **state)
{
    (void) state;
    struct agent_testkit_call call = run("import time\na = time.monotonic()\ntime.sleep(0.3)\n"
                                         "result = 0.3 <= time.monotonic() - a < 2");
    assert_true(call.is_ok);
    assert_has(call.result.output, "\"result\":true");
    assert_true(call.took_ms >= 300);
    assert_output(
        "import asyncio\nasync def f(n):\n    await asyncio.sleep(n / 100)\n    return n\n"
        "async def main():\n    return await asyncio.gather(*[f(i) for i in range(9)])\n"
        "result = asyncio.run(main())",
        "\"result\":[0,1,2,3,4,5,6,7,8]");
}

static void test_each_limit_ends_with_its_own_reason(void **state)
{
    (void) state;
    struct tool tool = *code_execution();
    tool.limits.time_ms = 300;
    struct agent_testkit_call call = run_with(&tool, "while True: pass");
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    assert_in_range(call.took_ms, 300, 900);
    call = run_with(&tool, "import time\ntime.sleep(100)");
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    tool = *code_execution();
    tool.permissions.max_cpu_time_ms = 200;
    call = run_with(&tool, "while True: pass");
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    tool = *code_execution();
    tool.limits.fuel = 20000000;
    call = run_with(&tool, "while True: pass");
    assert_int_equal(call.error.reason, REASON_FUEL);
    tool = *code_execution();
    tool.limits.output_bytes = 1000;
    call = run_with(&tool, "result = 'x' * 10000");
    assert_int_equal(call.error.reason, REASON_OUTPUT_LIMIT);
    call = run("while True: print('x' * 1000000)");
    assert_int_equal(call.error.reason, REASON_OUTPUT_LIMIT);
    call = run("a = []\nwhile True: a.append(bytearray(1 << 20))");
    assert_int_equal(call.error.reason, REASON_MEMORY_LIMIT);
    assert_output("try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    result = 'caught'",
                  "caught");
    tool = *code_execution();
    tool.permissions.max_memory_bytes = 8 << 20; /* less than the interpreter itself */
    call = run_with(&tool, "result = 1");
    assert_int_equal(call.error.reason, REASON_MEMORY_LIMIT);
}

static void test_recursion_ends_as_an_exception_or_with_its_reason(void **state)
{
    (void) state;
    assert_output("def f(n):\n    return f(n + 1)\nf(0)", "RecursionError");
    struct agent_testkit_call call =
        run("class A:\n    def __repr__(self): return repr(self)\nrepr(A())");
    assert_true(call.is_ok || call.error.reason == REASON_STACK_LIMIT);
    call = run("import sys\nsys.setrecursionlimit(10**8)\ndef f(n):\n    return f(n + 1)\nf(0)");
    assert_true(call.is_ok || call.error.reason == REASON_STACK_LIMIT ||
                call.error.reason == REASON_MEMORY_LIMIT);
    call = run("x = []\nfor i in range(200000): x = [x]\nresult = repr(x)");
    assert_true(call.is_ok || call.error.reason == REASON_STACK_LIMIT);
}

static void test_a_cancelled_call_ends_at_once(void **state)
{
    (void) state;
    struct agent_testkit_call call = {.executor = sandbox,
                                      .tool = code_execution(),
                                      .input = input_of("python", "while True: pass"),
                                      .cancel_ms = 200};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_CANCELLED);
    assert_in_range(call.took_ms, 150, 500);
    call.input = input_of("python", "import time\ntime.sleep(50)");
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_CANCELLED);
    assert_in_range(call.took_ms, 150, 500);
}

static void test_a_language_without_module_is_told_which_there_are(void **state)
{
    (void) state;
    struct agent_testkit_call call = {
        .executor = sandbox, .tool = code_execution(), .input = input_of("ruby", "1")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_SCHEMA);
    assert_has(str_from_cstr(call.error.message), "javascript, python");
    struct tool tool = *code_execution();
    tool.permissions.languages.count = 1; /* the operator's list */
    call = (struct agent_testkit_call){
        .executor = sandbox, .tool = &tool, .input = input_of("javascript", "1")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_PERMISSION);
}

/* ---- many at once ---- */

struct crowd {
    struct loop *loop;
    int64_t latencies_us[CALLS];
    int started, ok_count;
};

static void one_call(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    bool is_python = crowd->started++ % 2 == 0;
    struct tool_request request = {
        .tool = code_execution(),
        .input = is_python ? input_of("python", "result = sum(range(100))")
                           : input_of("javascript", "let result = 4950"),
    };
    struct tool_result result;
    struct error e;
    bool is_ok = executor_execute(sandbox, ctx, &request, &result, &e);
    if (!is_ok)
        print_message("  %s\n", e.message);
    crowd->latencies_us[crowd->ok_count] = result.latency_us;
    crowd->ok_count += is_ok && str_find(result.output, S("\"result\":4950")) != STR_NOT_FOUND;
}

static void run_crowd(void *argument)
{
    struct crowd *crowd = argument;
    struct arena *arena = arena_create(0);
    struct context ctx;
    struct group calls;
    struct error e;
    context_init(&ctx, loop_scheduler(crowd->loop), arena, DEADLINE_NONE);
    for (int i = 0; i < CALLS; i += GROUP_CHILDREN_MAX) {
        group_init(&calls, &ctx);
        for (int j = i; j < i + (int) GROUP_CHILDREN_MAX && j < CALLS; j++)
            ensure(group_start(&calls, "call", one_call, crowd, &e));
        group_wait(&calls);
    }
    context_deinit(&ctx);
    arena_destroy(arena);
    loop_stop(crowd->loop);
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;
    return (x > y) - (x < y);
}

static void test_200_snippets_at_once(void **state)
{
    (void) state;
    struct error e;
    struct crowd crowd = {.loop = loop_create(clock_system(), random_system(), &e)};
    assert_true(coroutine_start(loop_scheduler(crowd.loop), "crowd", run_crowd, &crowd, &e));
    loop_run(crowd.loop);
    loop_destroy(crowd.loop);
    qsort(crowd.latencies_us, CALLS, sizeof crowd.latencies_us[0], by_size);
    print_message("  %d of %d, p50 %lld us, worst %lld us\n", crowd.ok_count, CALLS,
                  (long long) crowd.latencies_us[CALLS / 2],
                  (long long) crowd.latencies_us[CALLS - 1]);
    assert_int_equal(crowd.ok_count, CALLS);
}

static void measure(const char *what, const char *code)
{
    static int64_t latencies_us[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        struct agent_testkit_call call = run(code);
        assert_true(call.is_ok);
        latencies_us[i] = call.result.latency_us;
    }
    qsort(latencies_us, ROUNDS, sizeof latencies_us[0], by_size);
    print_message("  %s: p50 %lld us, p95 %lld us\n", what, (long long) latencies_us[ROUNDS / 2],
                  (long long) latencies_us[ROUNDS * 95 / 100]);
}

static void test_a_snippet_takes_milliseconds(void **state)
{
    (void) state;
    measure("sum(range(100))", "result = sum(range(100))");
    measure("json and re", "import json, re\nd = json.loads('{\"a\": [1, 2, {\"b\": \"x 12\"}]}')\n"
                           "result = [re.findall(r'\\d+', d['a'][2]['b']), json.dumps(d)]");
}

static int setup(void **state)
{
    (void) state;
    agent_testkit_skip_under_tsan();
    static char path[1024], cache[1100], dir[1100], wasm[1200];
    struct error e;
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 32);
    assert_true(len > 0);
    path[len] = '\0';
    const char *folder = dirname(path);
    snprintf(dir, sizeof dir, "%s/toolbox", folder);
    /* Kept: Python takes ten seconds and more to compile. */
    snprintf(cache, sizeof cache, "%s/compiled", folder);
    snprintf(wasm, sizeof wasm, "%s/code_execution/python.wasm", dir);
    if (access(wasm, R_OK) != 0) {
        print_message("SKIPPED: no Python in %s (build target `toolbox`)\n", dir);
        exit(0);
    }
    static struct host_call calls[1];
    calls[0] = host_tool_call();
    struct registry_options registry_options = {.tool_dir = str_from_cstr(dir)};
    struct sandbox_options options = {.cache_dir = str_from_cstr(cache),
                                      .host_calls = calls,
                                      .host_call_count = 1,
                                      .clock = clock_system()};
    if (!registry_create(&registry_options, &registry, &e) ||
        !sandbox_create(&options, &sandbox, &e))
        fail_msg("%s", e.message);
    tools = registry_acquire(registry);
    int64_t start_ns = clock_monotonic_ns(clock_system());
    if (!sandbox_prepare(sandbox, code_execution(), &e))
        fail_msg("%s", e.message);
    print_message("  compiled in %lld ms\n",
                  (long long) (clock_monotonic_ns(clock_system()) - start_ns) / 1000000);
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
        cmocka_unit_test(test_python_computes),
        cmocka_unit_test(test_a_traceback_names_the_line_and_quotes_it),
        cmocka_unit_test(test_nothing_survives_a_call),
        cmocka_unit_test(test_a_notebook_keeps_its_interpreter_until_a_call_is_stopped),
        cmocka_unit_test(test_there_is_no_world_outside),
        cmocka_unit_test(test_a_sleep_takes_its_time_and_no_thread),
        cmocka_unit_test(test_each_limit_ends_with_its_own_reason),
        cmocka_unit_test(test_recursion_ends_as_an_exception_or_with_its_reason),
        cmocka_unit_test(test_a_cancelled_call_ends_at_once),
        cmocka_unit_test(test_a_language_without_module_is_told_which_there_are),
        cmocka_unit_test(test_200_snippets_at_once),
        cmocka_unit_test(test_a_snippet_takes_milliseconds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
