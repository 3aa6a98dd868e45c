/* What the monitor keeps of calls that a scripted executor answers. */
#include "agent/executor_monitor.h"
#include "agent/sandbox/sandbox_testkit.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "observe/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- the executor behind: gives what the test wants ---- */

static struct tool_result next_result;
static enum error_reason next_failure; /* REASON_NONE: it works */

static bool scripted_execute(struct executor *executor, struct context *ctx,
                             const struct tool_request *request, struct tool_result *out,
                             struct error *e)
{
    (void) executor, (void) ctx, (void) request;
    *out = next_result;
    return next_failure == REASON_NONE || error_set(e, next_failure, "the secret of tenant 1");
}

static void scripted_destroy(struct executor *executor)
{
    (void) executor;
}

static const struct executor_ops scripted_ops = {"scripted", scripted_execute, scripted_destroy};
static struct executor scripted = {&scripted_ops};

/* ---- calls ---- */

static const uuid tenant_1 = {{1}}, tenant_2 = {{2}};
static struct executor_monitor *monitor;
static struct metrics *metrics;
static struct arena *arena;

struct run {
    struct loop *loop;
    const struct tool *tool;
    int count;
};

static void call_it(void *argument)
{
    struct run *run = argument;
    OWNED(arena) scratch = arena_create(0);
    struct context ctx;
    struct error e;
    context_init(&ctx, loop_scheduler(run->loop), scratch, DEADLINE_NONE);
    for (int i = 0; i < run->count; i++) {
        struct tool_request request = {.tool = run->tool, .input = S("{}"), .tenant_id = tenant_1};
        struct tool_result result = {0};
        bool is_ok =
            executor_execute(executor_monitor_executor(monitor), &ctx, &request, &result, &e);
        assert_int_equal(is_ok, next_failure == REASON_NONE);
    }
    context_deinit(&ctx);
    loop_stop(run->loop);
}

static struct tool tool_of(const char *name, const char *version, uuid tenant_id)
{
    return (struct tool){
        .name = str_from_cstr(name), .version = str_from_cstr(version), .tenant_id = tenant_id};
}

static void call(const struct tool *tool, int count)
{
    struct error e;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    struct run run = {loop, tool, count};
    ensure(loop && coroutine_start(loop_scheduler(loop), "calls", call_it, &run, &e));
    loop_run(loop);
    loop_destroy(loop);
}

static const struct json *parsed(struct strbuf *text)
{
    const struct json *root;
    struct error e;
    assert_true(json_parse(arena, strbuf_str(text), (struct json_limits){0}, &root, &e));
    return root;
}

static const struct json *figures(const struct tool *tool, uuid tenant_id)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1 << 20);
    json_writer_init(&w, &text);
    executor_monitor_write_tool(monitor, tool, tenant_id, &w);
    return parsed(&text);
}

static const struct json *top(uuid tenant_id, enum monitor_order order, size_t count_max)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 4 << 20);
    json_writer_init(&w, &text);
    executor_monitor_write_json(monitor, tenant_id, order, count_max, &w);
    return json_get(parsed(&text), S("items"));
}

static void assert_number(const struct json *object, const char *name, int64_t expected)
{
    int64_t value = -1;
    assert_true(json_to_i64(json_get(object, str_from_cstr(name)), &value));
    assert_int_equal(value, expected);
}

static int setup(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    metrics = metrics_create();
    monitor = executor_monitor_create(&(struct executor_monitor_options){
        .give_next = &scripted, .clock = clock_system(), .metrics = metrics});
    next_result = (struct tool_result){0};
    next_failure = REASON_NONE;
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    executor_destroy(executor_monitor_executor(monitor));
    metrics_destroy(metrics);
    arena_destroy(arena);
    return 0;
}

/* ---- tests ---- */

static void test_figures_add_up_per_version(void **state)
{
    (void) state;
    struct tool one = tool_of("t", "1.0.0", UUID_NONE), two = tool_of("t", "2.0.0", UUID_NONE);
    next_result =
        (struct tool_result){.cpu_us = 30, .fuel = 1000, .memory_bytes = 65536, .is_cold = true};
    call(&one, 1);
    next_result.is_cold = false;
    next_result.memory_bytes = 131072;
    call(&one, 3);
    call(&two, 1);
    const struct json *json = figures(&one, tenant_1);
    assert_number(json, "calls", 4);
    assert_number(json, "errors", 0);
    assert_number(json, "cold_starts", 1);
    assert_number(json, "warm_starts", 3);
    assert_number(json, "cpu_us", 120);
    assert_number(json, "fuel", 4000);
    assert_number(json, "memory_peak_bytes", 131072);
    assert_number(figures(&two, tenant_1), "calls", 1);
}

static void test_errors_are_counted_by_reason_and_only_their_tenant_reads_them(void **state)
{
    (void) state;
    struct tool tool = tool_of("t", "1.0.0", UUID_NONE);
    next_failure = REASON_FUEL;
    call(&tool, 2);
    next_failure = REASON_TRAP;
    call(&tool, 1);
    const struct json *json = figures(&tool, tenant_1);
    assert_number(json, "errors", 3);
    assert_number(json_get(json, S("errors_by_reason")), "fuel_limit", 2);
    assert_number(json_get(json, S("errors_by_reason")), "trap", 1);
    const struct json *last = json_get(json, S("last_error"));
    assert_true(str_equal(json_str_or(last, S("reason"), STR_NONE), S("trap")));
    assert_non_null(json_get(last, S("message")));
    last = json_get(figures(&tool, tenant_2), S("last_error"));
    assert_true(str_equal(json_str_or(last, S("reason"), STR_NONE), S("trap")));
    assert_null(json_get(last, S("message")));
}

static void test_the_top_list_is_ordered_and_cut(void **state)
{
    (void) state;
    struct tool busy = tool_of("busy", "1.0.0", UUID_NONE),
                slow = tool_of("slow", "1.0.0", UUID_NONE);
    next_result.cpu_us = 1;
    call(&busy, 5);
    next_result.cpu_us = 1000;
    call(&slow, 1);
    const struct json *list = top(tenant_1, MONITOR_BY_CALLS, 10);
    assert_int_equal(json_count(list), 2);
    assert_true(str_equal(json_str_or(json_at(list, 0), S("tool"), STR_NONE), S("busy")));
    list = top(tenant_1, MONITOR_BY_CPU, 1);
    assert_int_equal(json_count(list), 1);
    assert_true(str_equal(json_str_or(json_at(list, 0), S("tool"), STR_NONE), S("slow")));
}

static void test_a_tool_of_one_tenant_is_hidden_from_others(void **state)
{
    (void) state;
    struct tool tool = tool_of("private", "1.0.0", tenant_1);
    call(&tool, 1);
    assert_int_equal(json_count(top(tenant_1, MONITOR_BY_CALLS, 10)), 1);
    assert_int_equal(json_count(top(tenant_2, MONITOR_BY_CALLS, 10)), 0);
}

static void test_versions_past_the_bound_are_counted_together(void **state)
{
    (void) state;
    char version[32];
    for (unsigned i = 0; i < MONITOR_TOOLS_MAX + 3; i++) {
        snprintf(version, sizeof version, "1.%u.0", i);
        struct tool tool = tool_of("t", version, UUID_NONE);
        call(&tool, 1);
    }
    const struct json *list = top(tenant_1, MONITOR_BY_CALLS, MONITOR_TOOLS_MAX + 10);
    assert_int_equal(json_count(list), MONITOR_TOOLS_MAX + 1);
    assert_true(str_equal(json_str_or(json_at(list, 0), S("tool"), STR_NONE), S("other")));
    assert_number(json_at(list, 0), "calls", 3);
}

static void test_profiles_of_calls_are_put_together(void **state)
{
    (void) state;
    struct tool tool = tool_of("t", "1.0.0", UUID_NONE), other = tool_of("u", "1", UUID_NONE);
    struct strbuf text;
    strbuf_init(&text, arena, 1 << 20);
    assert_false(executor_monitor_write_profile(monitor, &tool, &text));
    next_result.profile = S("run;sort 10\nrun;read 20\n");
    call(&tool, 2);
    assert_true(executor_monitor_write_profile(monitor, &tool, &text));
    assert_true(str_find(strbuf_str(&text), S("60 ms of CPU time")) != STR_NOT_FOUND);
    assert_true(str_find(strbuf_str(&text), S(" 66.7%   66.7%  read")) != STR_NOT_FOUND);
    next_result.profile = STR_NONE;
    call(&other, 1);
    assert_false(executor_monitor_write_profile(monitor, &other, &text));
}

static void test_metrics_have_tool_version_and_reason(void **state)
{
    (void) state;
    struct tool tool = tool_of("t", "1.0.0", UUID_NONE);
    struct strbuf text;
    next_failure = REASON_FUEL;
    next_result.cpu_us = 12;
    call(&tool, 2);
    strbuf_init(&text, arena, 4 << 20);
    metrics_write(metrics, &text);
    static const char *const lines[] = {
        "nexus_tool_version_calls_total{tool=\"t\",version=\"1.0.0\"} 2\n",
        "nexus_tool_version_errors_total{tool=\"t\",version=\"1.0.0\",reason=\"fuel_limit\"} 2\n",
        "nexus_tool_version_cpu_microseconds_total{tool=\"t\",version=\"1.0.0\"} 24\n",
        "nexus_tool_version_duration_seconds_count{tool=\"t\",version=\"1.0.0\"} 2\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        if (str_find(strbuf_str(&text), str_from_cstr(lines[i])) == STR_NOT_FOUND)
            fail_msg("no %s in\n" STR_FMT, lines[i], STR_ARG(strbuf_str(&text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_figures_add_up_per_version, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_errors_are_counted_by_reason_and_only_their_tenant_reads_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_top_list_is_ordered_and_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_tool_of_one_tenant_is_hidden_from_others, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_versions_past_the_bound_are_counted_together, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_profiles_of_calls_are_put_together, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics_have_tool_version_and_reason, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
