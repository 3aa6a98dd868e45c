/* One node: its life from boot to crash, its clock, its lanes. */
#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "link.h"
#include "people.h"
#include "world.h"
#include <stdio.h>
#include <stdlib.h>

enum { SWEEP_MS = 1000, RECOVERIES_MAX = 3 };

/* ---- its clock ---- */

static int64_t sim_unix_us(struct clock *base)
{
    struct sim_clock *clock = CONTAINER_OF(base, struct sim_clock, base);
    return clock_unix_us(clock->truth) + clock->wall_us;
}

static int64_t sim_monotonic_ns(struct clock *base)
{
    struct sim_clock *clock = CONTAINER_OF(base, struct sim_clock, base);
    return clock_monotonic_ns(clock->truth) + clock->origin_ns;
}

static const struct clock_ops clock_ops = {.unix_us = sim_unix_us,
                                           .monotonic_ns = sim_monotonic_ns};

/* ---- its lanes ---- */

static size_t pick(void *owner, size_t count)
{
    struct node *node = owner;
    return (size_t) random_below(node->world->random, count);
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

static bool is_alive(const struct node *node)
{
    return node->state == NODE_UP || node->state == NODE_STARTING;
}

static bool is_awake(const struct node *node)
{
    return is_alive(node) && node->asleep_until <= world_now_ns(node->world);
}

struct scheduler *node_ready(struct node *node, size_t index)
{
    if (!is_awake(node) || index >= node->lane_count)
        return NULL;
    struct scheduler *scheduler = node->lanes[index].scheduler;
    return scheduler_ready_count(scheduler) > 0 ? scheduler : NULL;
}

int64_t node_wakes_ns(struct node *node)
{
    if (node->state == NODE_DOWN)
        return node->up_at_ns;
    if (!is_alive(node))
        return INT64_MAX;
    int64_t next_ns = INT64_MAX, now_ns = world_now_ns(node->world);
    for (size_t i = 0; i < node->lane_count; i++) {
        int64_t deadline_ns = scheduler_next_deadline_ns(node->lanes[i].scheduler);
        if (deadline_ns != INT64_MAX && deadline_ns - node->clock.origin_ns < next_ns)
            next_ns = deadline_ns - node->clock.origin_ns;
        if (scheduler_ready_count(node->lanes[i].scheduler) > 0 && next_ns > now_ns)
            next_ns = now_ns;
    }
    return next_ns < node->asleep_until ? node->asleep_until : next_ns;
}

void node_run_timers(struct node *node)
{
    if (is_awake(node))
        for (size_t i = 0; i < node->lane_count; i++)
            (void) scheduler_run_timers(node->lanes[i].scheduler);
}

/* ---- its life ---- */

static void open_watches(struct node *node, struct context *ctx)
{
    struct world *world = node->world;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    for (int i = 0; i < SESSIONS; i++) {
        struct record session;
        struct error e = {0};
        struct ledger_limits limits = {.run = COST_LIMITLESS};
        cost limit;
        if (node->has_watch[i] || uuid_is_none(world->session_ids[i]))
            continue;
        const struct settings *settings = orchestrator_acquire(node->o);
        limit = settings->session_budget;
        orchestrator_release(settings);
        limits.session = limit;
        node->has_watch[i] =
            session_get(node->o, ctx, &alice, world->session_ids[i], &session, &e) &&
            ledger_open_path(orchestrator_ledger(node->o), ctx, world->tenant_id, S("alice"),
                             world->session_ids[i], UUID_NONE, limits, &node->watch[i], &e);
    }
}

/* What main's one coroutine for the sweeps does. */
static void sweep_main(void *argument)
{
    struct node *node = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    context_init(&ctx, node->lanes[0].scheduler, arena, DEADLINE_NONE);
    do {
        e = (struct error){0};
        (void) !orchestrator_sweep(node->sweeper, &ctx, &e);
        open_watches(node, &ctx);
        arena_reset(arena);
    } while (context_sleep_ms(&ctx, SWEEP_MS, &e));
    context_deinit(&ctx);
}

/* Half of the starts that fail are tried again in the same life. */
static bool recover(struct node *node, struct context *ctx, size_t *resumed, struct error *e)
{
    for (int tries = 0;; tries++) {
        *e = (struct error){0};
        if (orchestrator_recover(node->o, ctx, resumed, e))
            return true;
        if (tries == RECOVERIES_MAX || world_chance(node->world, 500))
            return false;
    }
}

static void boot_main(void *argument)
{
    struct node *node = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    size_t resumed;
    context_init(&ctx, node->lanes[0].scheduler, arena, DEADLINE_NONE);
    if (!recover(node, &ctx, &resumed, &e)) { /* as main: the process ends, and is started again */
        world_tell(node->world, "%s does not come up: %s", node->name, e.message);
        node->must_end = true;
        context_deinit(&ctx);
        return;
    }
    if (!world_is_shared(node->world))
        check_durable(node->world, &ctx, false);
    context_deinit(&ctx);
    node->state = NODE_UP;
    world_tell(node->world, "%s is up, %zu runs go on", node->name, resumed);
    node->sweeper = sweeper_create(node->o);
    bool is_started = coroutine_start(node->lanes[0].scheduler, "sweeps", sweep_main, node, &e);
    ensure(is_started);
}

static void start_over(struct node *node)
{
    struct world *world = node->world;
    struct node fresh = {
        .world = world,
        .index = node->index,
        .incarnation = node->incarnation + 1,
        .state = NODE_STARTING,
        .clock = {.base.ops = &clock_ops,
                  .truth = world->clock,
                  /* The store on a disk is a part of the node: they have one clock. */
                  .origin_ns = world->database ? 0 : (node->index + 1) * 977000000ll,
                  .wall_us = node->clock.wall_us},
        .cut_until = node->cut_until,
        .lane_count = (size_t) world_between(world, 1, LANES),
    };
    *node = fresh;
    snprintf(node->name, sizeof node->name, "node%c.%d", 'A' + node->index, node->incarnation);
    node->random = random_seeded_create(random_u64(world->random));
    for (size_t i = 0; i < node->lane_count; i++)
        node->lanes[i] = (struct lane){
            .scheduler = scheduler_create(&node->clock.base, node->random,
                                          (struct scheduler_hooks){.owner = node, .pick = pick}),
            .post = post,
            .owner = node,
        };
}

static void expelled(void *owner)
{
    struct node *node = owner;
    node->must_end = true;
}

void node_boot(struct node *node)
{
    struct world *world = node->world;
    struct error e = {0};
    start_over(node);
    node->metrics = metrics_create();
    node->router = router_create(&node->clock.base, node->random, node->metrics);
    node->link = link_create(node);
    parts_init(node);
    struct orchestrator_parts parts = {
        .store = link_store(node->link),
        .router = node->router,
        .policy = &node->policy.base,
        .registry = world->registry,
        .executor = &node->executor.base,
        .metrics = node->metrics,
        .clock = &node->clock.base,
        .random = node->random,
        .lanes = node->lanes,
        .lane_count = node->lane_count,
        .node = str_from_cstr(node->name),
        .is_shared = world_is_shared(world),
        .expelled = expelled,
        .expelled_owner = node,
        .data_dir = S("/nonexistent"),
        .settings = parts_settings(node),
        .webhooks = hook_options(node),
    };
    if (!orchestrator_create(&parts, &node->o, &e) ||
        !coroutine_start(node->lanes[0].scheduler, "boot", boot_main, node, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        abort();
    }
}

void node_crash(struct node *node)
{
    people_lose(node);
    node->state = NODE_DOWN;
}
