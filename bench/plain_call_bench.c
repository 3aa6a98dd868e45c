/*
 * What governing a plain call costs: policy, limits, reservation, settlement, usage record, audit and
 * metrics, with the real store and its writer, without any network.
 *
 *     bench_plain_call_bench [POLICY_DIR]        (default: policies in the working folder)
 *
 * CPU of the calling thread, and of all threads together (the store's writer included).
 */
#include "orchestrator/usage/plain_call.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "orchestrator/usage/usage_log.h"
#include "runtime/loop.h"
#include "store/sqlite.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 200000, WARM_UP = 2000, IN_FLIGHT = 64, NS_PER_S = 1000000000 };

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

struct bench {
    struct loop *loop;
    struct orchestrator *o;
    struct principal principal;
};

struct open_call {
    struct plain_call call;
    struct plain_attempt attempt;
    struct plain_open open;
};

static void begin_one(struct bench *bench, struct context *ctx, struct open_call *open)
{
    struct error e = {0};
    struct plain_request request = {.model = S("fast"),
                                    .input_tokens_bound = 400,
                                    .dialect = "openai",
                                    .kind = "chat",
                                    .is_stream = true};
    if (!plain_call_begin(bench->o, ctx, &bench->principal, &request, &open->call, &e) ||
        !plain_attempt_begin(bench->o, ctx, &open->call, NULL, &open->attempt, &e)) {
        fprintf(stderr, "%s\n", e.message);
        exit(1);
    }
    plain_open(&open->call, &open->attempt, &open->open);
}

static void end_one(struct bench *bench, struct open_call *open)
{
    struct usage usage = {.input_tokens = 40, .output_tokens = 20, .is_reported = true};
    plain_open_first_token(bench->o, &open->open);
    plain_open_end(bench->o, &open->open,
                   &(struct plain_result){.usage = &usage, .estimated_output = -1});
}

static void make_calls(struct bench *bench, struct context *ctx, int count)
{
    static struct open_call open[IN_FLIGHT];
    for (int done = 0; done < count; done += IN_FLIGHT) {
        arena_mark mark = arena_save(ctx->arena);
        for (int i = 0; i < IN_FLIGHT; i++)
            begin_one(bench, ctx, &open[i]);
        for (int i = 0; i < IN_FLIGHT; i++)
            end_one(bench, &open[i]);
        arena_rewind(ctx->arena, mark);
        coroutine_yield();
        if (done % (IN_FLIGHT * 16) == 0) { /* the loop's timers run */
            struct error ignored;
            (void) !context_sleep_ms(ctx, 1, &ignored);
        }
    }
}

static void measure(struct bench *bench, struct context *ctx, const char *what)
{
    struct error e = {0};
    make_calls(bench, ctx, WARM_UP);
    int64_t thread_ns = now_ns(CLOCK_THREAD_CPUTIME_ID),
            process_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID), wall_ns = now_ns(CLOCK_MONOTONIC);
    make_calls(bench, ctx, CALLS);
    ensure(usage_log_sync(orchestrator_usage(bench->o), ctx, &e));
    thread_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - thread_ns;
    process_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - process_ns;
    wall_ns = now_ns(CLOCK_MONOTONIC) - wall_ns;
    printf("%-28s %8.2f %8.2f %10.0f\n", what, (double) thread_ns / CALLS / 1000,
           (double) process_ns / CALLS / 1000, (double) CALLS * NS_PER_S / (double) wall_ns);
}

static void run_bench(void *argument)
{
    struct bench *bench = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    cost limit = COST_LIMITLESS;
    context_init(&ctx, loop_scheduler(bench->loop), arena, DEADLINE_NONE);
    printf("%-28s %8s %8s %10s\n", "us of CPU per call", "caller", "all", "calls/s");
    measure(bench, &ctx, "no limits");
    limit.tokens = INT64_MAX / 4;
    ensure(ledger_set_limit(orchestrator_ledger(bench->o), &ctx, bench->principal.tenant_id,
                            ACCOUNT_USER, bench->principal.user_id, limit, &e));
    measure(bench, &ctx, "the user has a limit");
    ensure(orchestrator_drain(bench->o, &ctx, &e));
    context_deinit(&ctx);
    loop_stop(bench->loop);
}

/* A provider that nothing is sent to. */
static void destroy_provider(struct provider *provider)
{
    (void) provider;
}
static const struct provider_ops provider_ops = {.name = "none", .destroy = destroy_provider};
static struct provider provider = {.ops = &provider_ops, .name = S_INIT("none")};

static struct settings *make_settings(void)
{
    struct settings *settings = calloc(1, sizeof *settings);
    struct error e = {0};
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 1000, .output_picousd_per_token = 2000};
    struct model_target target = {
        .provider = &provider, .model = S("fast-1"), .weight = 1, .price = price};
    struct model model = {
        .name = S("fast"), .targets = &target, .target_count = 1, .max_output_tokens = 300};
    ensure(settings != NULL);
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    settings->call_timeout_ms = 60000;
    ensure(catalog_add(settings->catalog, &model, &e));
    return settings;
}

static void post(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    loop_post(((struct bench *) lane->owner)->loop, fn, argument);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void) status, (void) type, (void) where;
    return remove(path);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/nexus-bench-XXXXXX";
    struct error e = {0};
    struct bench bench = {0};
    struct sqlite_database *database = NULL;
    struct policy *policy = NULL;
    struct policy_rego_options rego = {.dir = str_from_cstr(argc > 1 ? argv[1] : "policies")};
    ensure(mkdtemp(dir) != NULL);
    bench.loop = loop_create(clock_system(), random_system(), &e);
    ensure(bench.loop != NULL);
    struct sqlite_options options = {.data_dir = str_from_cstr(dir),
                                     .node = S("bench"),
                                     .clock = clock_system(),
                                     .random = random_system()};
    bool is_new;
    if (!sqlite_database_open(&options, &database, &is_new, &e) ||
        !policy_rego_create(&rego, &policy, &e)) {
        fprintf(stderr, "%s\n", e.message);
        return 1;
    }
    struct metrics *metrics = metrics_create();
    struct router *router = router_create(clock_system(), random_system(), metrics);
    struct lane lane = {.scheduler = loop_scheduler(bench.loop), .post = post, .owner = &bench};
    struct orchestrator_parts parts = {
        .store = sqlite_database_store(database),
        .router = router,
        .policy = policy,
        .metrics = metrics,
        .clock = clock_system(),
        .random = random_system(),
        .lanes = &lane,
        .lane_count = 1,
        .node = S("bench"),
        .data_dir = str_from_cstr(dir),
        .settings = make_settings(),
    };
    ensure(orchestrator_create(&parts, &bench.o, &e));
    bench.principal = (struct principal){
        .tenant_id = uuid_new(clock_system(), random_system()),
        .key_id = uuid_new(clock_system(), random_system()),
        .user_id = S("ada"),
        .caller_id = S("ada"),
        .role = S("user"),
        .level = ROLE_LEVEL_USER,
    };
    ensure(coroutine_start(loop_scheduler(bench.loop), "bench", run_bench, &bench, &e));
    loop_run(bench.loop);
    orchestrator_destroy(bench.o);
    loop_destroy(bench.loop);
    sqlite_database_close(database);
    router_destroy(router);
    metrics_destroy(metrics);
    policy_destroy(policy);
    (void) nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}
