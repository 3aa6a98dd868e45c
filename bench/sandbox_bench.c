/*
 * What a sandboxed tool call costs: native tool, JavaScript and Python through executor_execute, beside
 *   - the bare engine doing the same call in the same run (the floor: fresh instance, input in,
 *     nexus_run, output out; no threads, schemas, limits by policy);
 *   - what one would do without a sandbox: a process of python3 or node for each piece of code.
 *
 *     bench_sandbox_bench TOOLBOX_DIR        (default: toolbox beside the program)
 */
#include "agent/executor_monitor.h"
#include "agent/sandbox/host_clock.h"
#include "agent/tool/registry.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/loop.h"

#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wasmtime.h>

enum {
    CALLS = 3000,
    SCRIPT_CALLS = 1000,
    PYTHON_CALLS = 100,
    PROCESS_CALLS = 40,
    WARM_UP = 200,
    AT_ONCE = 32,
    PER_WORKER = 300,
    NS_PER_S = 1000000000
};

static const str native_input =
    S_INIT("{\"operation\":\"upper\",\"text\":\"the quick brown fox\"}");
static const str script_input = S_INIT("{\"language\":\"javascript\",\"code\":\"let result = "
                                       "[1,2,3].map(x => x * x).reduce((a, b) => a + b, 0)\"}");

static const str python_input =
    S_INIT("{\"language\":\"python\",\"code\":\"result = sum(x * x for x in [1, 2, 3])\"}");

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;
    return (x > y) - (x < y);
}

struct figures {
    double p50_us, p99_us, cpu_us;
};

static struct figures summarise(int64_t *samples, size_t count, int64_t cpu_ns)
{
    qsort(samples, count, sizeof *samples, by_size);
    return (struct figures){
        .p50_us = (double) samples[count / 2] / 1000,
        .p99_us = (double) samples[count * 99 / 100] / 1000,
        .cpu_us = (double) cpu_ns / 1000 / (double) count,
    };
}

/* ---- the floor: the engine alone ---- */

struct floor {
    wasm_engine_t *engine;
    wasmtime_instance_pre_t *pre;
};

static void open_floor(struct floor *floor, const struct tool *tool)
{
    static uint8_t bytes[8 << 20];
    OWNED(arena) arena = arena_create(0);
    wasm_config_t *config = wasm_config_new();
    wasmtime_pooling_allocation_config_t *pool = wasmtime_pooling_allocation_config_new();
    wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, 1 << 20);
    wasmtime_pooling_allocation_strategy_set(config, pool);
    wasmtime_config_consume_fuel_set(config, true);
    wasmtime_config_epoch_interruption_set(config, true);
    floor->engine = wasm_engine_new_with_config(config);
    FILE *file = fopen(str_to_cstr(arena, tool->module_path), "rb");
    ensure(file != NULL);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    wasmtime_module_t *module;
    ensure(!wasmtime_module_new(floor->engine, bytes, size, &module));
    wasmtime_linker_t *linker = wasmtime_linker_new(floor->engine);
    ensure(!wasmtime_linker_define_unknown_imports_as_traps(linker, module));
    ensure(!wasmtime_linker_instantiate_pre(linker, module, &floor->pre));
}

static wasmtime_func_t find(wasmtime_context_t *context, wasmtime_instance_t *instance,
                            const char *name)
{
    wasmtime_extern_t item;
    ensure(wasmtime_instance_export_get(context, instance, name, strlen(name), &item));
    return item.of.func;
}

static void call_floor(struct floor *floor, str input)
{
    wasmtime_store_t *store = wasmtime_store_new(floor->engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_instance_t instance;
    wasm_trap_t *trap = NULL;
    wasmtime_extern_t memory;
    wasmtime_val_t arguments[2] = {{.kind = WASMTIME_I32}, {.kind = WASMTIME_I32}}, result;
    ensure(!wasmtime_context_set_fuel(context, UINT64_MAX / 2));
    wasmtime_context_set_epoch_deadline(context, UINT64_MAX / 2);
    ensure(!wasmtime_instance_pre_instantiate(floor->pre, context, &instance, &trap) && !trap);
    wasmtime_func_t initialize = find(context, &instance, "_initialize"),
                    alloc = find(context, &instance, "nexus_alloc"),
                    run = find(context, &instance, "nexus_run");
    ensure(wasmtime_instance_export_get(context, &instance, "memory", 6, &memory));
    ensure(!wasmtime_func_call(context, &initialize, NULL, 0, NULL, 0, &trap) && !trap);
    arguments[0].of.i32 = (int32_t) input.len;
    ensure(!wasmtime_func_call(context, &alloc, arguments, 1, &result, 1, &trap) && !trap);
    memcpy(wasmtime_memory_data(context, &memory.of.memory) + (uint32_t) result.of.i32, input.ptr,
           input.len);
    arguments[0].of.i32 = result.of.i32;
    arguments[1].of.i32 = (int32_t) input.len;
    ensure(!wasmtime_func_call(context, &run, arguments, 2, &result, 1, &trap) && !trap);
    wasmtime_store_delete(store);
}

static struct figures measure_floor(const struct tool *tool, str input, size_t count)
{
    static int64_t samples[CALLS];
    struct floor floor;
    open_floor(&floor, tool);
    for (int i = 0; i < WARM_UP; i++)
        call_floor(&floor, input);
    int64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < count; i++) {
        int64_t start_ns = now_ns(CLOCK_MONOTONIC);
        call_floor(&floor, input);
        samples[i] = now_ns(CLOCK_MONOTONIC) - start_ns;
    }
    return summarise(samples, count, now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns);
}

/* ---- through the executor ---- */

struct bench {
    struct executor *sandbox;
    const struct tool *tool;
    str input;
    size_t count;
    struct loop *loop;
    int64_t samples[CALLS];
    int64_t cpu_ns, wall_ns;
};

static void call(struct bench *bench, struct context *ctx)
{
    struct tool_request request = {.tool = bench->tool, .input = bench->input};
    struct tool_result result;
    struct error e;
    if (!executor_execute(bench->sandbox, ctx, &request, &result, &e)) {
        fprintf(stderr, "%s\n", e.message);
        exit(1);
    }
}

static void one_after_the_other(void *argument)
{
    struct bench *bench = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, loop_scheduler(bench->loop), arena, DEADLINE_NONE);
    for (int i = 0; i < WARM_UP; i++)
        call(bench, &ctx);
    bench->cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < bench->count; i++) {
        arena_mark mark = arena_save(arena);
        int64_t start_ns = now_ns(CLOCK_MONOTONIC);
        call(bench, &ctx);
        bench->samples[i] = now_ns(CLOCK_MONOTONIC) - start_ns;
        arena_rewind(arena, mark);
    }
    bench->cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - bench->cpu_ns;
    context_deinit(&ctx);
    loop_stop(bench->loop);
}

static void worker(struct context *ctx, void *argument)
{
    for (int i = 0; i < PER_WORKER; i++) {
        arena_mark mark = arena_save(ctx->arena);
        call(argument, ctx);
        arena_rewind(ctx->arena, mark);
    }
}

static void many_at_once(void *argument)
{
    struct bench *bench = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct group group;
    struct error e;
    context_init(&ctx, loop_scheduler(bench->loop), arena, DEADLINE_NONE);
    group_init(&group, &ctx);
    bench->cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    bench->wall_ns = now_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < AT_ONCE; i++)
        ensure(group_start(&group, "worker", worker, bench, &e));
    group_wait(&group);
    bench->cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - bench->cpu_ns;
    bench->wall_ns = now_ns(CLOCK_MONOTONIC) - bench->wall_ns;
    context_deinit(&ctx);
    loop_stop(bench->loop);
}

static void run_on_loop(struct bench *bench, coroutine_fn *fn)
{
    struct error e;
    bench->loop = loop_create(clock_system(), random_system(), &e);
    ensure(bench->loop && coroutine_start(loop_scheduler(bench->loop), "bench", fn, bench, &e));
    loop_run(bench->loop);
    loop_destroy(bench->loop);
}

static struct figures measure(struct executor *sandbox, const struct tool *tool, str input,
                              size_t count)
{
    static struct bench bench;
    bench = (struct bench){.sandbox = sandbox, .tool = tool, .input = input, .count = count};
    run_on_loop(&bench, one_after_the_other);
    return summarise(bench.samples, count, bench.cpu_ns);
}

static void print_row(const char *name, struct figures f, struct figures floor)
{
    printf("%-34s p50 %8.1f us   p99 %8.1f us   cpu %8.1f us   %5.1fx floor cpu\n", name, f.p50_us,
           f.p99_us, f.cpu_us, f.cpu_us / floor.cpu_us);
}

static void print_throughput(struct executor *sandbox, const struct tool *tool)
{
    static struct bench bench;
    bench = (struct bench){.sandbox = sandbox, .tool = tool, .input = native_input};
    run_on_loop(&bench, many_at_once);
    double calls = AT_ONCE * PER_WORKER;
    printf("%-34s %.0f calls/s wall, %.0f calls per CPU second (%.1f us cpu each)\n",
           "native tool, 32 at once", calls / ((double) bench.wall_ns / NS_PER_S),
           calls / ((double) bench.cpu_ns / NS_PER_S), (double) bench.cpu_ns / 1000 / calls);
}

/* ---- without a sandbox: a process for each piece of code ---- */

static int64_t children_cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return ((int64_t) usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
           ((int64_t) usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static bool run_process(char **arguments)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    bool is_started = posix_spawnp(&pid, arguments[0], &actions, NULL, arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    return is_started && waitpid(pid, &status, 0) == pid && status == 0;
}

/* p50 0: there is no such program. */
static struct figures measure_process(char *program, char *option, char *code)
{
    static int64_t samples[PROCESS_CALLS];
    char *arguments[] = {program, option, code, NULL};
    if (!run_process(arguments))
        return (struct figures){0};
    int64_t cpu_ns = children_cpu_ns();
    for (size_t i = 0; i < PROCESS_CALLS; i++) {
        int64_t start_ns = now_ns(CLOCK_MONOTONIC);
        if (!run_process(arguments))
            return (struct figures){0};
        samples[i] = now_ns(CLOCK_MONOTONIC) - start_ns;
    }
    return summarise(samples, PROCESS_CALLS, children_cpu_ns() - cpu_ns);
}

static void print_process(const char *name, char *program, char *option, char *code,
                          struct figures sandboxed)
{
    struct figures f = measure_process(program, option, code);
    if (f.p50_us <= 0)
        printf("%-34s not on this machine\n", name);
    else if (sandboxed.p50_us <= 0)
        printf("%-34s p50 %8.1f us   p99 %8.1f us   cpu %8.1f us\n", name, f.p50_us, f.p99_us,
               f.cpu_us);
    else
        printf("%-34s p50 %8.1f us   p99 %8.1f us   cpu %8.1f us   %5.1fx the sandbox's p50, "
               "%.1fx its cpu\n",
               name, f.p50_us, f.p99_us, f.cpu_us, f.p50_us / sandboxed.p50_us,
               f.cpu_us / sandboxed.cpu_us);
}

/* Debian's python3 rather than a version manager's script in front of it. */
static char *python_program(void)
{
    static char debian[] = "/usr/bin/python3", other[] = "python3";
    return access(debian, X_OK) == 0 ? debian : other;
}

static struct figures measure_python(struct executor *sandbox, const struct tool *tool)
{
    for (size_t i = 0; i < tool->permissions.languages.count; i++)
        if (str_equal(tool->permissions.languages.items[i], S("python")))
            return measure(sandbox, tool, python_input, PYTHON_CALLS);
    return (struct figures){0};
}

int main(int argc, char **argv)
{
    static char self[1024], toolbox[1100], cache[64];
    struct error e;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    ensure(len > 0);
    snprintf(toolbox, sizeof toolbox, "%s/toolbox", argc > 1 ? "" : dirname(self));
    snprintf(cache, sizeof cache, "/tmp/nexus-sandbox-bench.%d", (int) getpid());
    struct host_call clock = host_clock();
    struct registry_options registry_options = {.tool_dir =
                                                    str_from_cstr(argc > 1 ? argv[1] : toolbox)};
    struct sandbox_options options = {.cache_dir = str_from_cstr(cache),
                                      .host_calls = &clock,
                                      .host_call_count = 1,
                                      .clock = clock_system()};
    struct registry *registry;
    struct executor *sandbox;
    if (!registry_create(&registry_options, &registry, &e) ||
        !sandbox_create(&options, &sandbox, &e))
        return fprintf(stderr, "%s\n", e.message), 1;
    const struct registry_snapshot *tools = registry_acquire(registry);
    const struct tool *native = registry_find(tools, S("text_processing"), STR_NONE),
                      *script = registry_find(tools, S("code_execution"), STR_NONE);
    if (!native || !script || !sandbox_prepare(sandbox, native, &e) ||
        !sandbox_prepare(sandbox, script, &e))
        return fprintf(stderr, "the shipped tools are not in " STR_FMT "\n",
                       STR_ARG(registry_options.tool_dir)),
               1;

    struct figures native_floor = measure_floor(native, native_input, CALLS);
    print_row("bare engine, native tool (floor)", native_floor, native_floor);
    print_row("native tool, one after the other", measure(sandbox, native, native_input, CALLS),
              native_floor);
    struct executor_monitor *monitor = executor_monitor_create(
        &(struct executor_monitor_options){.give_next = sandbox, .clock = clock_system()});
    struct executor *monitored = executor_monitor_executor(monitor);
    print_row("the same behind the monitor", measure(monitored, native, native_input, CALLS),
              native_floor);
    print_throughput(monitored, native);
    struct figures in_javascript = measure(monitored, script, script_input, SCRIPT_CALLS);
    print_row("JavaScript, one after the other", in_javascript, native_floor);
    struct figures in_python = measure_python(monitored, script);
    if (in_python.p50_us > 0)
        print_row("Python, one after the other", in_python, native_floor);
    static char node[] = "node", node_option[] = "-e", python_option[] = "-c",
                node_code[] = "[1,2,3].map(x => x * x).reduce((a, b) => a + b, 0)",
                python_code[] = "result = sum(x * x for x in [1, 2, 3])";
    print_process("node -e, a process each", node, node_option, node_code, in_javascript);
    print_process("python3 -c, a process each", python_program(), python_option, python_code,
                  in_python);
    char command[128];
    registry_release(tools);
    registry_destroy(registry);
    executor_destroy(monitored);
    snprintf(command, sizeof command, "rm -rf '%s'", cache);
    return system(command); /* banned-ok: a fixed command of a benchmark */
}
