/* The shipped tools in the real sandbox: each works, each attack ends in one clear error, and
   others are unharmed. */
#include "agent/sandbox/host_clock.h"
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

enum { NS_PER_MS = 1000000, CALLS = 64, LOOPS = 4 };

static struct executor *sandbox;
static struct registry *registry;
static const struct registry_snapshot *tools;

static struct agent_testkit_call run(const char *tool, str input)
{
    struct agent_testkit_call call = {.executor = sandbox,
                                      .tool = registry_find(tools, str_from_cstr(tool), STR_NONE),
                                      .input = input};
    assert_non_null(call.tool);
    agent_testkit_execute(&call);
    if (!call.is_ok)
        print_message("  %s: %s (%lld ms)\n", tool, call.error.message, (long long) call.took_ms);
    return call;
}

static void assert_has(str text, const char *part)
{
    if (str_find(text, str_from_cstr(part)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, part, STR_ARG(text));
}

static struct agent_testkit_call run_script(const char *code)
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
    struct agent_testkit_call call = run("code_execution", strbuf_str(&text));
    arena_destroy(arena);
    return call;
}

static void test_every_shipped_manifest_is_sound(void **state)
{
    (void) state;
    for (size_t i = 0; i < registry_error_count(tools); i++)
        print_message("  " STR_FMT "\n", STR_ARG(registry_error_at(tools, i)));
    assert_int_equal(registry_error_count(tools), 0);
    assert_true(registry_count(tools) >= 6);
    for (size_t i = 0; i < registry_count(tools); i++) {
        struct error e;
        if (!sandbox_prepare(sandbox, registry_at(tools, i), &e))
            fail_msg("%s", e.message);
    }
}

static void test_native_tools_work(void **state)
{
    (void) state;
    struct agent_testkit_call call =
        run("text_processing", S("{\"operation\":\"count\",\"text\":\"one two\"}"));
    assert_true(call.is_ok);
    assert_has(call.result.output, "\"words\":2");
    call = run("time", S("{\"operation\":\"now\"}"));
    assert_true(call.is_ok);
    assert_has(call.result.output, "\"unix_us\":");
    call = run("wordcount", S("{\"text\":\"a b c\"}"));
    assert_true(call.is_ok);
    assert_has(call.result.output, "3");
    call = run("text_processing", S("{\"operation\":\"nonsense\"}"));
    assert_int_equal(call.error.reason, REASON_SCHEMA);
    assert_has(str_from_cstr(call.error.message), "/operation");
}

static void test_javascript_works_where_its_language_is_granted(void **state)
{
    (void) state;
    struct agent_testkit_call call =
        run_script("let result = [1,2,3].map(x => x * x).reduce((a, b) => a + b, 0)");
    assert_true(call.is_ok);
    assert_has(call.result.output, "\"result\":14");
    struct tool tool = *registry_find(tools, S("code_execution"), STR_NONE);
    tool.permissions.languages.count = 0;
    call = (struct agent_testkit_call){.executor = sandbox,
                                       .tool = &tool,
                                       .input = S("{\"language\":\"javascript\",\"code\":\"1\"}")};
    agent_testkit_execute(&call);
    assert_int_equal(call.error.reason, REASON_PERMISSION);
}

static void test_hostile_scripts_end_in_one_clear_error(void **state)
{
    (void) state;
    struct tool tool = *registry_find(tools, S("code_execution"), STR_NONE);
    tool.limits.time_ms = 300;
    struct agent_testkit_call call = {.executor = sandbox,
                                      .tool = &tool,
                                      .input =
                                          S("{\"language\":\"javascript\",\"code\":\"for(;;);\"}")};
    agent_testkit_execute(&call);
    print_message("  loop: %s (%lld ms)\n", call.error.message, (long long) call.took_ms);
    assert_int_equal(call.error.reason, REASON_TIME_LIMIT);
    assert_in_range(call.took_ms, 300, 600);
    call = run_script("let a = []; for (;;) a.push(new Array(100000).fill(1))");
    assert_int_equal(call.error.reason, REASON_MEMORY_LIMIT);
    call = run_script("console.log('x'.repeat(1 << 29)); console.log('x'.repeat(1 << 29))");
    assert_false(call.is_ok);
    assert_true(call.error.reason == REASON_MEMORY_LIMIT ||
                call.error.reason == REASON_OUTPUT_LIMIT);
    call = run_script("for (;;) console.log('x'.repeat(1 << 16))");
    print_message("  output: %d " STR_FMT "\n", call.is_ok,
                  STR_ARG(str_slice(call.result.output, 0, 80)));
    call = run_script("function f(n) { return f(n + 1) + 1 } f(0)");
    print_message("  recursion: %s " STR_FMT "\n", call.error.message,
                  STR_ARG(str_slice(call.result.output, 0, 120)));
    assert_true(call.is_ok || call.error.reason == REASON_STACK_LIMIT);
}

/* ---- a large file in little memory ---- */

static bool resolve(void *owner, struct context *ctx, str name, str *path, int64_t *bytes,
                    struct error *e)
{
    (void) name, (void) e;
    *path = str_copy(ctx->arena, *(str *) owner);
    FILE *file = fopen(str_to_cstr(ctx->arena, *path), "rb");
    fseek(file, 0, SEEK_END);
    *bytes = ftell(file);
    fclose(file);
    return true;
}

static void test_100_mb_of_csv_fit_into_64_mb_of_memory(void **state)
{
    (void) state;
    str path = agent_testkit_write_file("large.csv", S("kind,value,note\n")), name = S("large.csv");
    FILE *file = fopen(path.ptr, "ab");
    int64_t rows = 0, sum = 0;
    while (ftell(file) < 100 << 20) {
        fprintf(file, "k%d,%lld,a note that makes the line somewhat longer\n", (int) (rows % 3),
                (long long) (rows % 1000));
        sum += rows % 3 == 0 ? rows % 1000 : 0;
        rows++;
    }
    fclose(file);
    struct tool_files files = {.owner = &path, .resolve = resolve};
    struct agent_testkit_call call = {
        .executor = sandbox,
        .tool = registry_find(tools, S("data_analysis"), STR_NONE),
        .input = S("{\"file\":\"large.csv\",\"steps\":[{\"group_by\":[\"kind\"],\"aggregate\":[{"
                   "\"op\":\"sum\",\"column\":"
                   "\"value\",\"as\":\"s\"}]},{\"sort\":[{\"column\":\"kind\"}]}]}"),
        .files = &files,
        .file_names = &name,
        .file_name_count = 1,
    };
    agent_testkit_execute(&call);
    print_message("  %s " STR_FMT " (%lld ms, %zu KiB)\n", call.is_ok ? "" : call.error.message,
                  STR_ARG(call.result.output), (long long) call.took_ms,
                  call.result.memory_bytes >> 10);
    assert_true(call.is_ok);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "[\"k0\",%lld", (long long) sum);
    assert_has(call.result.output, wanted);
    assert_true(call.result.memory_bytes <= 64000000);
}

/* ---- many at once, beside endless loops ---- */

struct crowd {
    struct loop *loop;
    int64_t latencies_us[CALLS];
    int ok_count, loop_ended_count;
    bool are_loops_on;
};

static void one_call(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    struct tool_request request = {
        .tool = registry_find(tools, S("text_processing"), STR_NONE),
        .input = S("{\"operation\":\"upper\",\"text\":\"abc\"}"),
    };
    struct tool_result result;
    struct error e;
    bool is_ok = executor_execute(sandbox, ctx, &request, &result, &e);
    crowd->latencies_us[crowd->ok_count] = result.latency_us;
    crowd->ok_count += is_ok;
}

static void one_loop(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    struct tool_request request = {
        .tool = registry_find(tools, S("code_execution"), STR_NONE),
        .input = S("{\"language\":\"javascript\",\"code\":\"for(;;);\"}"),
    };
    struct tool_result result;
    struct error e = {0};
    bool is_ok = executor_execute(sandbox, ctx, &request, &result, &e);
    crowd->loop_ended_count += !is_ok && e.reason == REASON_CANCELLED;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;
    return (x > y) - (x < y);
}

static void run_crowd(void *argument)
{
    struct crowd *crowd = argument;
    struct arena *arena = arena_create(0);
    struct context ctx;
    struct group loops, calls;
    struct error e;
    context_init(&ctx, loop_scheduler(crowd->loop), arena, DEADLINE_NONE);
    group_init(&loops, &ctx);
    for (int i = 0; crowd->are_loops_on && i < LOOPS; i++)
        ensure(group_start(&loops, "loop", one_loop, crowd, &e));
    ensure(context_sleep_ms(&ctx, 100, &e));
    group_init(&calls, &ctx);
    for (int i = 0; i < CALLS; i++)
        ensure(group_start(&calls, "call", one_call, crowd, &e));
    group_wait(&calls);
    group_cancel(&loops);
    group_wait(&loops);
    context_deinit(&ctx);
    arena_destroy(arena);
    loop_stop(crowd->loop);
}

static struct crowd measure(bool are_loops_on)
{
    struct error e;
    struct crowd crowd = {.loop = loop_create(clock_system(), random_system(), &e),
                          .are_loops_on = are_loops_on};
    assert_true(coroutine_start(loop_scheduler(crowd.loop), "crowd", run_crowd, &crowd, &e));
    loop_run(crowd.loop);
    loop_destroy(crowd.loop);
    qsort(crowd.latencies_us, CALLS, sizeof crowd.latencies_us[0], by_size);
    print_message("  %d calls at once, %s: p50 %lld us, worst %lld us\n", crowd.ok_count,
                  are_loops_on ? "4 endless loops beside them" : "alone",
                  (long long) crowd.latencies_us[CALLS / 2],
                  (long long) crowd.latencies_us[CALLS - 1]);
    return crowd;
}

static void test_endless_loops_do_not_starve_64_others(void **state)
{
    (void) state;
    struct crowd alone = measure(false), crowded = measure(true);
    assert_int_equal(alone.ok_count, CALLS);
    assert_int_equal(crowded.ok_count, CALLS);
    assert_int_equal(crowded.loop_ended_count, LOOPS);
    assert_true(crowded.latencies_us[CALLS - 1] < alone.latencies_us[CALLS - 1] + 200000);
}

static int setup(void **state)
{
    (void) state;
    agent_testkit_skip_under_tsan();
    static char path[1024], cache[1100];
    struct error e;
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 32);
    assert_true(len > 0);
    path[len] = '\0';
    const char *folder = dirname(path);
    static char dir[1100];
    snprintf(dir, sizeof dir, "%s/toolbox", folder);
    snprintf(cache, sizeof cache, "%s/compiled", folder); /* shared with the next run */
    static char wasm[1200];
    snprintf(wasm, sizeof wasm, "%s/code_execution/code_execution.wasm", dir);
    if (access(wasm, R_OK) != 0) {
        print_message("SKIPPED: no shipped tools in %s (build target `toolbox`)\n", dir);
        exit(0);
    }
    static struct host_call calls[1];
    calls[0] = host_clock();
    struct registry_options registry_options = {.tool_dir = str_from_cstr(dir)};
    struct sandbox_options options = {.cache_dir = str_from_cstr(cache),
                                      .host_calls = calls,
                                      .host_call_count = 1,
                                      .clock = clock_system()};
    if (!registry_create(&registry_options, &registry, &e) ||
        !sandbox_create(&options, &sandbox, &e))
        fail_msg("%s", e.message);
    tools = registry_acquire(registry);
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
        cmocka_unit_test(test_every_shipped_manifest_is_sound),
        cmocka_unit_test(test_native_tools_work),
        cmocka_unit_test(test_javascript_works_where_its_language_is_granted),
        cmocka_unit_test(test_hostile_scripts_end_in_one_clear_error),
        cmocka_unit_test(test_100_mb_of_csv_fit_into_64_mb_of_memory),
        cmocka_unit_test(test_endless_loops_do_not_starve_64_others),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
