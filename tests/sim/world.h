/*
 * World: everything one seed needs: some nodes, the store they share, the network between, and what is outside.
 *
 * There is one true time.  Each node has a clock of its own on top of it (another origin, a wall time that jumps), schedulers of its own
 * (one for each lane) and a link to the store that delays, loses and cuts.  One choice at a time decides which scheduler of which node
 * moves next.  What dies is thrown away whole (schedulers, orchestrator, coroutines); what is durable and what is outside (effects that
 * really happened, people) goes on.
 *
 *      node:   DOWN --> STARTING --> UP --> DOWN (restarts) | GONE (for ever)
 *
 * People are coroutines of the scheduler `outside`, which never dies; they ask a node by a request (people.h), which ends or breaks.
 */
#ifndef NEXUS_TESTS_SIM_WORLD_H
#define NEXUS_TESTS_SIM_WORLD_H

#include "base/map.h"
#include "coverage.h"
#include "llm/router.h"
#include "orchestrator/orchestrator.h"
#include "orchestrator/sweep.h"
#include "runtime/simulated.h"
#include "store/memory.h"

enum {
    NODES = 3,
    LANES = 2,
    SESSIONS = 5,
    RUNS_PER_SESSION = 3,
    DISASTERS = 8,
    HOOKS = 3, /* endpoints that are told of what happens */
};

struct world;
struct link;
struct disk;
struct laws;
struct stage;
struct sqlite_database;
struct request;

struct sim_provider {
    struct provider base;
    struct node *node;
};
struct sim_executor {
    struct executor base;
    struct node *node;
};
struct sim_policy {
    struct policy base;
    struct node *node;
};
struct sim_clock {
    struct clock base;
    struct clock *truth;
    int64_t origin_ns; /* of the monotonic time */
    int64_t wall_us;   /* how far the wall time is off */
};

enum node_state { NODE_DOWN, NODE_STARTING, NODE_UP, NODE_GONE };

struct node {
    struct world *world;
    int index, incarnation;
    char name[24];
    enum node_state state;
    struct sim_clock clock;
    int64_t up_at_ns;     /* DOWN: when it starts again, true time */
    int64_t asleep_until; /* nothing of it moves before */
    int64_t cut_until;    /* nothing reaches the store before */
    bool must_end;        /* it did not come up, or the others took it for dead */

    /* one incarnation */
    struct random *random;
    struct lane lanes[LANES];
    size_t lane_count;
    struct link *link;
    struct orchestrator *o;
    struct metrics *metrics;
    struct router *router;
    struct sweeper *sweeper;
    struct sim_provider provider;
    struct sim_executor executor;
    struct sim_policy policy;
    struct ledger_path watch[SESSIONS]; /* held, to look at the accounts after each step */
    bool has_watch[SESSIONS];
    int64_t knows_hook_us[HOOKS]; /* since then, true time; 0: it may not know of it */
};

enum disaster_kind { DISASTER_CRASH, DISASTER_SLEEP, DISASTER_CUT, DISASTER_CLOCK };
struct disaster {
    enum disaster_kind kind;
    int64_t step;
};

struct world {
    uint64_t seed;
    bool is_verbose;
    struct random *random; /* of faults, people and choices */
    struct clock *clock;   /* the true time */
    struct registry *registry;
    struct store *store;             /* the shared one itself: no link, no faults */
    struct map *effects;             /* call id -> how often it happened (int *) */
    struct map *effect_keys;         /* that the other side has seen */
    struct arena *arena;             /* lives as long as the world */
    struct map *sessions, *journals; /* witness.c: what was seen of each */
    struct map *promised;            /* witness.c: rows that were acknowledged; NULL: not kept */
    uint64_t history;                /* digest of all that happened */
    int64_t steps, crashes;
    int64_t still_ns, still_since; /* the simulated time, and the step at which it came */
    const char *mover;             /* who made the last step */
    bool has_lost_acknowledgement; /* then a lease may stay stranded until the next start */
    bool is_calm;                  /* the disasters are over */
    bool is_over;
    char violation[512];
    int replays; /* act_replays.c: played at rest, ... */
    char drift
        [512]; /* ... and what the first of them that came out otherwise says; empty: none did */

    struct scheduler *outside;
    struct lane outside_lane;
    struct list requests; /* of people, in work */
    int people;           /* who have not finished */

    struct node nodes[NODES];
    int node_count;
    struct disaster disasters[DISASTERS];
    int disaster_count;

    /* a store on a disk: one node; NULL in memory */
    struct disk *disk;
    struct sqlite_database *database;

    struct laws *laws;        /* laws.c: what was seen of everything stored */
    struct stage *stage;      /* acts.c: what this seed plays */
    struct coverage coverage; /* what has happened */
    bool has_clock_jumps;     /* of a node's wall time */
    int servants;             /* of the people: they stay until all others are done */

    uuid tenant_id, session_ids[SESSIONS];
    int runs_started[SESSIONS];
};

static inline void cover(struct world *world, enum cover what)
{
    world->coverage.things[what]++;
}

bool world_chance(struct world *world, unsigned per_mille);
int64_t world_between(struct world *world, int64_t low, int64_t high);
int64_t world_now_ns(const struct world *world);
bool world_is_shared(const struct world *world); /* several nodes */
void world_violation(struct world *world, const char *format, ...) format_like(2, 3);
void world_note(struct world *world, uint64_t what); /* into the history */
void world_tell(const struct world *world, const char *format, ...) format_like(2, 3); /* verbose */

struct world_options {
    struct registry *registry;
    bool is_verbose;
    int sqlite_per_mille; /* of seeds that have a store on a disk */
};
/* Plays one seed.  False: a violation, told in world->violation. */
bool world_play(struct world *world, uint64_t seed, const struct world_options *options);

/* node.c */
void node_boot(struct node *node);
void node_crash(struct node *node);
struct scheduler *node_ready(struct node *node, size_t index); /* NULL: that lane cannot move */
int64_t node_wakes_ns(struct node *node); /* true time of its next timer; INT64_MAX: none */
void node_run_timers(struct node *node);
struct lane lane_make(struct clock *clock, struct world *world);

/* simulated_parts.c */
void parts_init(struct node *node);
struct catalog *parts_catalog(struct node *node);
struct settings *parts_settings(struct node *node);

/* actors.c: people; they end by themselves */
void actors_start(struct world *world);
struct principal actor_principal(const struct world *world, str user, enum role_level level);

/* invariants.c */
void check_accounts(struct node *node); /* after each of its steps */
may_suspend_void void check_durable(struct world *world, struct context *ctx, bool is_end);

#endif
