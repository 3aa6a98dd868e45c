/*
 * What the second wall costs: the same native tool through the sandbox of this process and through
 * the one in a process of its own, one call after the other and many at once, in one run.
 *
 *     bench_second_wall_bench TOOL.wasm      (a nexus-export; default: toolbox/text_processing)
 *
 * CPU counts both processes; the other one's comes from /proc in ticks of 10 ms.
 */
#include "agent/sandbox/remote/executor_remote.h"
#include "agent/sandbox/remote/remote_process.h"
#include "agent/sandbox/remote/remote_server.h"
#include "agent/sandbox/remote/wall.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/loop.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 5000, WARM_UP = 300, AT_ONCE = 32, PER_WORKER = 500, NS_PER_S = 1000000000 };

struct bench {
    struct executor *executor;
    bool is_apart;
    const struct tool *tool;
    struct loop *loop;
    int64_t samples[CALLS];
    int64_t cpu_ns, wall_ns;
};

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int64_t other_cpu_ns(const struct bench *bench)
{
    char path[64], line[512];
    unsigned long long user = 0, system = 0;
    if (!bench->is_apart)
        return 0;
    snprintf(path, sizeof path, "/proc/%lld/stat",
             (long long) executor_remote_state(bench->executor).pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file))
        return 0;
    fclose(file);
    str rest = str_from_cstr(line), piece;
    for (int i = 1; str_next(&rest, ' ', &piece); i++) {
        uint64_t value = 0;
        if (i == 14 && str_to_u64(piece, &value))
            user = value;
        if (i == 15 && str_to_u64(piece, &value))
            system = value;
    }
    return (int64_t) (user + system) * (NS_PER_S / sysconf(_SC_CLK_TCK));
}

static int64_t cpu_ns(const struct bench *bench)
{
    return now_ns(CLOCK_PROCESS_CPUTIME_ID) + other_cpu_ns(bench);
}

static void call(struct bench *bench, struct context *ctx)
{
    struct tool_request request = {
        .tool = bench->tool,
        .input = S("{\"operation\":\"upper\",\"text\":\"the quick brown fox\"}")};
    struct tool_result result;
    struct error e;
    if (!executor_execute(bench->executor, ctx, &request, &result, &e)) {
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
    bench->cpu_ns = cpu_ns(bench);
    for (size_t i = 0; i < CALLS; i++) {
        arena_mark mark = arena_save(arena);
        int64_t start_ns = now_ns(CLOCK_MONOTONIC);
        call(bench, &ctx);
        bench->samples[i] = now_ns(CLOCK_MONOTONIC) - start_ns;
        arena_rewind(arena, mark);
    }
    bench->cpu_ns = cpu_ns(bench) - bench->cpu_ns;
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
    call(bench, &ctx);
    group_init(&group, &ctx);
    bench->cpu_ns = cpu_ns(bench);
    bench->wall_ns = now_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < AT_ONCE; i++)
        ensure(group_start(&group, "worker", worker, bench, &e));
    group_wait(&group);
    bench->cpu_ns = cpu_ns(bench) - bench->cpu_ns;
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

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;
    return (x > y) - (x < y);
}

static void measure(const char *name, struct executor *executor, bool is_apart,
                    const struct tool *tool)
{
    static struct bench bench;
    bench = (struct bench){.executor = executor, .is_apart = is_apart, .tool = tool};
    run_on_loop(&bench, one_after_the_other);
    qsort(bench.samples, CALLS, sizeof bench.samples[0], by_size);
    printf("%-12s one by one    p50 %7.1f us   p99 %7.1f us   cpu %6.1f us\n", name,
           (double) bench.samples[CALLS / 2] / 1000,
           (double) bench.samples[CALLS * 99 / 100] / 1000, (double) bench.cpu_ns / 1000 / CALLS);
    run_on_loop(&bench, many_at_once);
    double calls = AT_ONCE * PER_WORKER;
    printf("%-12s 32 at once    %7.0f calls/s   cpu %6.1f us\n", name,
           calls / ((double) bench.wall_ns / NS_PER_S), (double) bench.cpu_ns / 1000 / calls);
}

static struct tool make_tool(char *path)
{
    static uint8_t bytes[8 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "no %s\n", path);
        exit(1);
    }
    size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    struct tool tool = {
        .name = S("text_processing"),
        .version = S("1.0.0"),
        .category = S("text"),
        .abi = TOOL_ABI_NEXUS_EXPORT,
        .limits = {.fuel = UINT64_C(1) << 40,
                   .time_ms = 10000,
                   .memory_bytes = 64u << 20,
                   .output_bytes = 1u << 20,
                   .table_elements = 1000},
        .input_schema = S("{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}}}"),
        .output_schema = S("{\"type\":\"object\"}"),
        .module_path = str_from_cstr(path),
        .module_digest = digest_sha256(str_of((const char *) bytes, count)),
    };
    tool.identity = tool_identity(&tool);
    return tool;
}

int main(int argc, char **argv)
{
    static char self[1024], path[1200], cache[2][96], folder[64];
    static const char *const command[] = {"bench", "--sandbox", NULL};
    struct executor *here, *apart;
    struct error e;
    if (argc > 1 && strcmp(argv[1], "--sandbox") == 0)
        return remote_server_run(REMOTE_CONTROL_FD);
    ensure(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(path, sizeof path, "%s/toolbox/text_processing/text_processing.wasm", dirname(self));
    struct tool tool = make_tool(argc > 1 ? argv[1] : path);
    snprintf(folder, sizeof folder, "/tmp/nexus-second-wall-bench.%d", (int) getpid());
    ensure(mkdir(folder, 0700) == 0);
    snprintf(cache[0], sizeof cache[0], "%s/here", folder);
    snprintf(cache[1], sizeof cache[1], "%s/apart", folder);
    struct sandbox_options options = {.cache_dir = str_from_cstr(cache[0]),
                                      .clock = clock_system()};
    struct executor_remote_options remote = {.cache_dir = str_from_cstr(cache[1]),
                                             .command = command};
    if (!sandbox_create(&options, &here, &e) || !executor_remote_create(&remote, &apart, &e))
        return fprintf(stderr, "%s\n", e.message), 1;
    for (int turn = 0; turn < 2; turn++) {
        measure("in process", here, false, &tool);
        measure("its own", apart, true, &tool);
    }
    executor_destroy(here);
    executor_destroy(apart);
    blocking_pool_stop();
    char remove[96];
    snprintf(remove, sizeof remove, "rm -rf '%s'", folder);
    return system(remove); /* banned-ok: a fixed command of a benchmark */
}
