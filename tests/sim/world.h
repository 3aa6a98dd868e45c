/*
 * World: everything one seed needs.  What crashes is thrown away whole (scheduler, orchestrator, coroutines); what is durable (the
 * store's committed state) and what is outside (effects that really happened) goes on.
 */
#ifndef NEXUS_TESTS_SIM_WORLD_H
#define NEXUS_TESTS_SIM_WORLD_H

#include "base/map.h"
#include "llm/router.h"
#include "orchestrator/orchestrator.h"
#include "runtime/simulated.h"
#include "store/memory.h"

enum { SESSIONS = 5, RUNS_PER_SESSION = 3, CRASHES_MAX = 3 };

struct sim_provider {
    struct provider base;
    struct world *world;
};
struct sim_executor {
    struct executor base;
    struct world *world;
};
struct sim_policy {
    struct policy base;
};

struct world {
    uint64_t seed;
    bool is_verbose;
    struct random *random; /* of faults and actors: outlives crashes */
    struct clock *clock;
    struct registry *registry; /* shared by all worlds */
    struct store *store;
    struct map *effects; /* call id -> how often it happened (int *) */
    struct arena *arena;
    int64_t steps, crashes;
    bool has_lost_acknowledgement; /* then a lease may stay stranded until the next start */
    char violation[512];

    /* one incarnation */
    struct scheduler *scheduler;
    struct lane lane;
    struct orchestrator *o;
    struct metrics *metrics;
    struct router *router;
    struct sim_provider provider;
    struct sim_executor executor;
    struct sim_policy policy;
    char node[16];
    int live_actors;
    bool is_over;
    struct ledger_path watch[SESSIONS]; /* held, to look at the accounts after each step */
    bool has_watch[SESSIONS];

    uuid tenant_id, session_ids[SESSIONS];
    int runs_started[SESSIONS];
    uuid run_ids[SESSIONS * RUNS_PER_SESSION * 4];
    size_t run_count;
};

bool world_chance(struct world *world, unsigned per_mille);
int64_t world_between(struct world *world, int64_t low, int64_t high);
void world_violation(struct world *world, const char *format, ...) format_like(2, 3);

/* Plays one seed.  False: a violation, told in world->violation. */
bool world_play(struct world *world, uint64_t seed, struct registry *registry, bool is_verbose);

/* simulated_parts.c */
void parts_init(struct world *world);
struct catalog *parts_catalog(struct world *world);

/* actors.c: coroutines that end by themselves */
void actors_start(struct world *world);
struct principal actor_principal(const struct world *world, str user, enum role_level level);

/* invariants.c */
void check_accounts(struct world *world); /* after each step */
may_suspend_void void check_durable(struct world *world, struct context *ctx, bool is_end);

#endif
