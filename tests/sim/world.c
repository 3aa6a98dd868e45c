#include "world.h"
#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "disk.h"
#include "laws.h"
#include "orchestrator/usage/usage_log.h"
#include "people.h"
#include "witness.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STEPS_MAX = 400000,
    LATE_S = 300,            /* until a delivery is over that was asked for at the very end */
    STILL_STEPS_MAX = 20000, /* at one simulated time */
    DISASTER_STEPS = 2500,   /* they come within so many steps */
    CALM_MS_MAX =
        160 * 60 *
        1000, /* after the last one: what has not ended by then never does; wall times may be hours off */
    SOURCES_MAX = NODES * LANES + 2, /* schedulers, and the store's own threads */
};
#define SECOND_NS 1000000000ll
#define START_US 1700000000000000ll   /* 22:13:20 UTC */
#define NEAR_MIDNIGHT_US 6396000000ll /* 23:59:56 */

/* ---- chance, time, history ---- */

bool world_chance(struct world *world, unsigned per_mille)
{
    return random_below(world->random, 1000) < per_mille;
}

int64_t world_between(struct world *world, int64_t low, int64_t high)
{
    return low + (int64_t) random_below(world->random, (uint64_t) (high - low + 1));
}

int64_t world_now_ns(const struct world *world)
{
    return clock_monotonic_ns(world->clock);
}

bool world_is_shared(const struct world *world)
{
    return world->node_count > 1;
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

void world_note(struct world *world, uint64_t what)
{
    uint64_t mixed = (world->history ^ what) * 0x9e3779b97f4a7c15u;
    world->history = mixed ^ mixed >> 29;
}

void world_tell(const struct world *world, const char *format, ...)
{
    if (!world->is_verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("  %9lld step, %9.3f s: ", (long long) world->steps,
           (double) (world_now_ns(world) - SECOND_NS) / SECOND_NS);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

/* ---- what may move next ---- */

struct sources {
    struct scheduler *schedulers[SOURCES_MAX]; /* NULL: the store's threads */
    struct node *nodes[SOURCES_MAX];           /* NULL: outside */
    size_t count;
};

static void add_source(struct sources *sources, struct scheduler *scheduler, struct node *node)
{
    sources->schedulers[sources->count] = scheduler;
    sources->nodes[sources->count++] = node;
}

/* It ends by itself, and is started again. */
static void end_node(struct node *node)
{
    struct world *world = node->world;
    node_crash(node);
    node->must_end = false;
    node->up_at_ns = world_now_ns(world) + SECOND_NS;
    if (world->database)
        disk_crash(world, false);
    world_tell(world, "%s ends", node->name);
}

static void find_sources(struct world *world, struct sources *sources)
{
    int64_t now_ns = world_now_ns(world);
    sources->count = 0;
    if (scheduler_next_deadline_ns(world->outside) <= now_ns)
        (void) scheduler_run_timers(world->outside);
    if (scheduler_ready_count(world->outside) > 0)
        add_source(sources, world->outside, NULL);
    for (int i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        if (node->state == NODE_DOWN && node->up_at_ns <= now_ns)
            node_boot(node);
        if (node->must_end)
            end_node(node);
        if (node_wakes_ns(node) <= now_ns)
            node_run_timers(node);
        for (size_t lane = 0; lane < LANES; lane++) {
            struct scheduler *scheduler = node_ready(node, lane);
            if (scheduler)
                add_source(sources, scheduler, node);
        }
    }
    if (world->database && disk_store_has_work(world->database))
        add_source(sources, NULL, NULL);
}

/* Nothing is ready: the true time jumps to the next thing that is.  False: there is none. */
static bool jump(struct world *world)
{
    int64_t next_ns = scheduler_next_deadline_ns(world->outside);
    for (int i = 0; i < world->node_count; i++) {
        int64_t wakes_ns = node_wakes_ns(&world->nodes[i]);
        next_ns = wakes_ns < next_ns ? wakes_ns : next_ns;
    }
    if (next_ns == INT64_MAX)
        return false;
    clock_manual_advance_to_ns(world->clock, next_ns);
    return true;
}

/* ---- disasters ---- */

static int lively_nodes(const struct world *world)
{
    int count = 0;
    for (int i = 0; i < world->node_count; i++)
        count += world->nodes[i].state != NODE_GONE;
    return count;
}

static void crash_one(struct world *world, struct node *node)
{
    bool is_for_ever = lively_nodes(world) > 1 && world_chance(world, 200);
    if (node->state != NODE_UP && node->state != NODE_STARTING)
        return;
    node_crash(node);
    world->crashes++;
    cover(world, is_for_ever ? COVER_NODE_LOST : COVER_NODE_CRASHED);
    if (world->database)
        disk_crash(world, world_chance(world, 700));
    node->state = is_for_ever ? NODE_GONE : NODE_DOWN;
    node->up_at_ns = world_now_ns(world) +
                     (world_is_shared(world) ? world_between(world, 0, 40) * SECOND_NS : 0);
    world_tell(world, "%s %s", node->name, is_for_ever ? "dies for ever" : "dies");
}

static void strike(struct world *world, enum disaster_kind kind)
{
    struct node *node = &world->nodes[world_between(world, 0, world->node_count - 1)];
    int64_t now_ns = world_now_ns(world);
    switch (kind) {
    case DISASTER_CRASH: crash_one(world, node); break;
    case DISASTER_SLEEP:
        cover(world, COVER_NODE_SLEPT);
        node->asleep_until = now_ns + world_between(world, 1, 60) * SECOND_NS;
        world_tell(world, "%s sleeps %lld s", node->name,
                   (long long) ((node->asleep_until - now_ns) / SECOND_NS));
        break;
    case DISASTER_CUT:
        cover(world, COVER_NODE_CUT);
        node->cut_until = now_ns + world_between(world, 1, 40) * SECOND_NS;
        world_tell(world, "%s is cut off for %lld s", node->name,
                   (long long) ((node->cut_until - now_ns) / SECOND_NS));
        break;
    case DISASTER_CLOCK:
        cover(world, COVER_NODE_CLOCK);
        world->has_clock_jumps = true;
        law_clock_changes(world, node);
        node->clock.wall_us += world_between(world, -3600, 3600) * 1000000;
        world_tell(world, "%s has another wall time", node->name);
        break;
    }
}

static void plan_disasters(struct world *world)
{
    world->disaster_count = (int) world_between(world, 0, world_is_shared(world) ? DISASTERS : 4);
    for (int i = 0; i < world->disaster_count; i++) {
        unsigned kind = (unsigned) world_between(world, 0, 99);
        world->disasters[i].step = world_between(world, 20, DISASTER_STEPS);
        world->disasters[i].kind = kind < 50                 ? DISASTER_CRASH
                                   : !world_is_shared(world) ? DISASTER_CLOCK
                                   : kind < 65               ? DISASTER_SLEEP
                                   : kind < 85               ? DISASTER_CUT
                                                             : DISASTER_CLOCK;
        if (world->disasters[i].kind == DISASTER_CLOCK && !world_is_shared(world))
            world->disasters[i].kind = world_chance(world, 700) ? DISASTER_CRASH : DISASTER_CLOCK;
    }
}

static void meet_disasters(struct world *world)
{
    bool is_over = true;
    for (int i = 0; i < world->disaster_count; i++) {
        if (world->disasters[i].step == world->steps)
            strike(world, world->disasters[i].kind);
        is_over = is_over && world->disasters[i].step <= world->steps;
    }
    int64_t now_ns = world_now_ns(world);
    for (int i = 0; i < world->node_count; i++)
        is_over = is_over && world->nodes[i].asleep_until <= now_ns &&
                  world->nodes[i].cut_until <= now_ns && world->nodes[i].state != NODE_DOWN;
    if (is_over && !world->is_calm)
        world_tell(world, "calm from here on");
    world->is_calm = is_over;
}

/* ---- one world ---- */

static size_t pick(void *owner, size_t count)
{
    struct world *world = owner;
    return (size_t) random_below(world->random, count);
}

static void step(struct world *world, struct sources *sources)
{
    size_t chosen = (size_t) random_below(world->random, sources->count);
    struct node *node = sources->nodes[chosen];
    world_note(world, (uint64_t) world_now_ns(world) + chosen);
    world->mover = node ? node->name : sources->schedulers[chosen] ? "people" : "the store";
    if (!sources->schedulers[chosen]) {
        disk_store_work(world);
        return;
    }
    (void) scheduler_run_ready(sources->schedulers[chosen], 1);
    if (node)
        check_accounts(node);
}

/* A seed that spins is told by its steps, never by the time that it takes us. */
static bool goes_on(struct world *world)
{
    int64_t now_ns = world_now_ns(world);
    if (now_ns != world->still_ns) {
        world->still_ns = now_ns;
        world->still_since = world->steps;
    }
    int64_t still = ++world->steps - world->still_since;
    if (still <= STILL_STEPS_MAX && world->steps <= STEPS_MAX)
        return true;
    world_violation(world,
                    "the seed does not come to rest: %lld steps at simulated time %.3f s, %lld in "
                    "all; the last of %s",
                    (long long) still, (double) (now_ns - SECOND_NS) / SECOND_NS,
                    (long long) world->steps, world->mover);
    return false;
}

static void run(struct world *world)
{
    struct sources sources;
    while (!world->violation[0] && !world->is_over && goes_on(world)) {
        meet_disasters(world);
        find_sources(world, &sources);
        if (sources.count > 0)
            step(world, &sources);
        else if (!jump(world))
            world_violation(world, "nothing moves any more, and it is not over");
    }
}

/* ---- the end: everything has come to rest, and is looked at ---- */

static void sync_node(struct errand *call, void *argument)
{
    bool *is_quiet = argument;
    struct error e = {0};
    if (orchestrator_active_runs(call->o) > 0 ||
        !usage_log_sync(orchestrator_usage(call->o), &call->ctx, &e))
        *is_quiet = false;
}

static bool is_quiet(struct person *person)
{
    struct world *world = person->world;
    bool quiet = world->people == 1 && world->is_calm && !law_webhooks_wait(world);
    for (int i = 0; i < world->node_count && quiet; i++)
        if (world->nodes[i].state != NODE_GONE)
            quiet = person_ask_node(person, &world->nodes[i], sync_node, &quiet) && quiet;
    return quiet;
}

static void judge(struct person *person)
{
    struct world *world = person->world;
    int64_t calm_ns = 0;
    while (!is_quiet(person)) {
        person_doze(person, 400, 600);
        if (!world->is_calm)
            calm_ns = 0;
        else if (calm_ns == 0)
            calm_ns = world_now_ns(world);
        else if (world_now_ns(world) - calm_ns > CALM_MS_MAX * 1000000ll) {
            check_durable(world, &person->ctx, true); /* says what is wrong, if it can */
            world_violation(world, "%d minutes after the last disaster it has not come to rest",
                            CALM_MS_MAX / 60000);
            return;
        }
    }
    person_doze(person, 3000, 3000); /* free leases go back */
    for (int i = 0; i < 3 && !is_quiet(person); i++)
        person_doze(person, 1000, 1000);
    for (int i = 0; i < LATE_S && law_webhooks_wait(world); i++) /* told by a late request */
        person_doze(person, 1000, 1000);
    world->is_over = true;
    check_durable(world, &person->ctx, true);
}

static void open_store(struct world *world, int sqlite_per_mille)
{
    if (world_chance(world, (unsigned) sqlite_per_mille)) {
        disk_open(world);
        world->node_count = 1;
        return;
    }
    world->store =
        memory_store_create(world->clock, world->random, (struct memory_store_hooks){0}, S("sim"));
    world->node_count = world_chance(world, 400) ? 1 : (int) world_between(world, 2, NODES);
}

static void make(struct world *world, const struct world_options *options)
{
    world->random = random_seeded_create(world->seed);
    map_set_seed(world->seed);
    world->clock =
        clock_manual_create(START_US + world_between(world, 0, 1) * NEAR_MIDNIGHT_US, SECOND_NS);
    world->arena = arena_create(64 << 20);
    world->effects = map_create();
    world->effect_keys = map_create();
    witness_init(world);
    laws_init(world);
    list_init(&world->requests);
    world->outside = scheduler_create(world->clock, world->random,
                                      (struct scheduler_hooks){.owner = world, .pick = pick});
    open_store(world, options->sqlite_per_mille);
    world->tenant_id = uuid_new(world->clock, world->random);
    for (int i = 0; i < world->node_count; i++)
        world->nodes[i] = (struct node){.world = world, .index = i, .state = NODE_DOWN};
    acts_draw(world);
    plan_disasters(world);
}

/* Bugs of the kind that a seed cannot tell of by itself: the watch over it must. */
static void spinner(struct person *person)
{
    person_doze(person, 1000, 1000);
    while (!person->world->is_over)
        coroutine_yield();
}

static void dier(struct person *person)
{
    person_doze(person, 1000, 1000);
    abort();
}

static void plant(struct world *world)
{
    if (FAULT("plant.spin") && world->seed % 7 == 0)
        person_start(world, "spinner", spinner, 0);
    if (FAULT("plant.death") && world->seed % 7 == 0)
        person_start(world, "dier", dier, 0);
}

/* What has died was leaked on purpose, as a power cut would; the play is a process's, which ends. */
static void unmake(struct world *world)
{
    witness_deinit(world);
    if (world->database)
        disk_close(world);
    else
        store_destroy(world->store);
    laws_deinit(world);
    map_destroy(world->effects);
    map_destroy(world->effect_keys);
    arena_destroy(world->arena);
    clock_manual_destroy(world->clock);
    random_seeded_destroy(world->random);
}

bool world_play(struct world *world, uint64_t seed, const struct world_options *options)
{
    *world = (struct world){.seed = seed,
                            .registry = options->registry,
                            .is_verbose = options->is_verbose,
                            .mover = "nobody"};
    make(world, options);
    world_tell(world, "%d nodes, a store %s", world->node_count,
               world->database ? "on a disk" : "in memory");
    actors_start(world);
    person_start(world, "judge", judge, 0);
    plant(world);
    run(world);
    replays_play(world);
    unmake(world);
    return !world->violation[0];
}
