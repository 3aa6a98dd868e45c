#include "world.h"
#include "base/arena.h"
#include "base/ensure.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLICE_SWITCHES = 1, STEPS_MAX = 400000 };

bool world_chance(struct world *world, unsigned per_mille)
{
    return random_below(world->random, 1000) < per_mille;
}

int64_t world_between(struct world *world, int64_t low, int64_t high)
{
    return low + (int64_t) random_below(world->random, (uint64_t) (high - low + 1));
}

void world_violation(struct world *world, const char *format, ...)
{
    if (world->violation[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->violation, sizeof world->violation, format, arguments);
    va_end(arguments);
}

/* ---- one incarnation of the node ---- */

static size_t pick(void *owner, size_t count)
{
    struct world *world = owner;
    return (size_t) random_below(world->random, count);
}

struct posted {
    void (*fn)(void *argument);
    void *argument;
};

static void run_posted(void *argument)
{
    struct posted posted = *(struct posted *) argument;
    free(argument);
    posted.fn(posted.argument);
}

static void post(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    struct posted *posted = malloc(sizeof *posted);
    struct error e = {0};
    ensure(posted != NULL);
    *posted = (struct posted){fn, argument};
    bool is_started = coroutine_start(lane->scheduler, "post", run_posted, posted, &e);
    ensure(is_started);
}

static enum commit_outcome before_commit(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    struct world *world = owner;
    struct error ignored = {0};
    struct context patient;
    (void) batch;
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    (void) !context_sleep_ms(&patient, world_between(world, 0, 20), &ignored);
    context_deinit(&patient);
    if (world_chance(world, 8))
        return COMMIT_FAIL;
    if (!world_chance(world, 8))
        return COMMIT_OK;
    world->has_lost_acknowledgement = true;
    return world_chance(world, 500) ? COMMIT_APPLIED_BUT_FAIL : COMMIT_LOST;
}

static struct settings *make_settings(struct world *world)
{
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = (struct settings){
        .catalog = parts_catalog(world),
        .agents = agent_set_create(),
        .session_budget = {.tokens = 30000,
                           .time_ms = 3600000,
                           .cost_nanousd = COST_UNLIMITED,
                           .tool_calls = 40},
        .approval_expiry_ms = 600000,
        .call_timeout_ms = 60000,
        .session_files_bytes_max = 1 << 20,
    };
    return settings;
}

static void boot_main(void *argument)
{
    struct world *world = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    size_t resumed;
    context_init(&ctx, world->scheduler, arena, DEADLINE_NONE);
    while (!orchestrator_recover(world->o, &ctx, &resumed, &e)) {
        struct error ignored = {0};
        (void) !context_sleep_ms(&ctx, 50, &ignored);
    }
    check_durable(world, &ctx, false);
    context_deinit(&ctx);
    actors_start(world);
}

static void boot(struct world *world)
{
    struct error e = {0};
    world->scheduler = scheduler_create(world->clock, world->random,
                                        (struct scheduler_hooks){.owner = world, .pick = pick});
    world->lane = (struct lane){.scheduler = world->scheduler, .post = post, .owner = world};
    world->metrics = metrics_create();
    world->router = router_create(world->clock, world->random, world->metrics);
    world->router = router_create(world->clock, world->random, world->metrics);
    world->is_over = false;
    world->live_actors = 0;
    memset(world->has_watch, 0, sizeof world->has_watch);
    snprintf(world->node, sizeof world->node, "node-%d", (int) world->crashes);
    parts_init(world);
    struct orchestrator_parts parts = {
        .store = world->store,
        .router = world->router,
        .policy = &world->policy.base,
        .registry = world->registry,
        .executor = &world->executor.base,
        .metrics = world->metrics,
        .clock = world->clock,
        .random = world->random,
        .lanes = &world->lane,
        .lane_count = 1,
        .node = str_from_cstr(world->node),
        .data_dir = S("/nonexistent"),
        .settings = make_settings(world),
    };
    if (!orchestrator_create(&parts, &world->o, &e) ||
        !coroutine_start(world->scheduler, "boot", boot_main, world, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        abort();
    }
}

/* Everything in memory is forgotten; the abandoned incarnation is leaked on purpose, as a power cut would. */
static void crash(struct world *world)
{
    world->store = memory_store_clone(world->store);
    world->crashes++;
    if (world->is_verbose)
        printf("  crash %d at step %lld\n", (int) world->crashes, (long long) world->steps);
}

/* Runs until nothing is ready and no timer is armed, the step budget is gone, or the crash comes.  True: it came to rest. */
static bool run_until(struct world *world, int64_t crash_step)
{
    while (!world->violation[0] && world->steps < crash_step) {
        world->steps++;
        if (scheduler_run_ready(world->scheduler, SLICE_SWITCHES)) {
            check_accounts(world);
            continue;
        }
        check_accounts(world);
        int64_t next_ns = scheduler_run_timers(world->scheduler);
        if (next_ns != INT64_MAX && next_ns > clock_monotonic_ns(world->clock)) {
            clock_manual_advance_to_ns(world->clock, next_ns);
            (void) scheduler_run_timers(world->scheduler);
        } else if (next_ns == INT64_MAX && !scheduler_run_ready(world->scheduler, SLICE_SWITCHES)) {
            return true;
        }
    }
    return false;
}

static void end_main(void *argument)
{
    struct world *world = argument;
    OWNED(arena) arena = arena_create(64 << 20);
    struct context ctx;
    context_init(&ctx, world->scheduler, arena, DEADLINE_NONE);
    check_durable(world, &ctx, true);
    context_deinit(&ctx);
}

bool world_play(struct world *world, uint64_t seed, struct registry *registry, bool is_verbose)
{
    *world = (struct world){.seed = seed, .registry = registry, .is_verbose = is_verbose};
    world->random = random_seeded_create(seed);
    map_set_seed(seed);
    world->clock = clock_manual_create(1700000000000000ll, 1000000000ll);
    world->effects = map_create();
    world->arena = arena_create(64 << 20);
    struct memory_store_hooks hooks = {.owner = world, .before_commit = before_commit};
    world->store = memory_store_create(world->clock, world->random, hooks, S("sim"));
    world->tenant_id = uuid_new(world->clock, world->random);
    int crashes = (int) world_between(world, 0, CRASHES_MAX);
    for (int i = 0; i < crashes && !world->violation[0]; i++) {
        boot(world);
        if (!run_until(world, world->steps + world_between(world, 20, 500)))
            crash(world);
    }
    if (!world->violation[0])
        boot(world);
    if (!world->violation[0] && !run_until(world, STEPS_MAX))
        world_violation(world, "it did not come to rest within %d steps", STEPS_MAX);
    memory_store_set_hooks(world->store, (struct memory_store_hooks){0});
    struct error e = {0};
    if (!world->violation[0] && coroutine_start(world->scheduler, "end", end_main, world, &e))
        (void) simulated_run(world->scheduler, world->clock, 1000000);
    map_destroy(world->effects);
    arena_destroy(world->arena);
    return !world->violation[0];
}
