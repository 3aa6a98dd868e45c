/*
 * The replay's inside.
 *
 *   run_replay.c         the world: scratch store, orchestrator, time; what comes from outside, and when
 *   run_replay_parts.c   provider, executor, policy, clock and oracle over the record
 *   run_replay_compare.c events and rows against the record
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_REPLAY_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_REPLAY_INTERNAL_H

#include "orchestrator/replay/run_replay.h"
#include "orchestrator/run/run_oracle.h"

struct replay;
struct replay_clock {
    struct clock base;
    struct replay *replay;
};
struct replay_provider {
    struct provider base;
    struct replay *replay;
};
struct replay_executor {
    struct executor base;
    struct replay *replay;
};
struct replay_policy {
    struct policy base;
    struct replay *replay;
};

enum { REPLAY_PROVIDERS_MAX = 64 };
struct replay {
    struct arena *arena;
    const struct run_recording *record;
    struct replay_report *report;
    struct run_environment environment;

    /* the world, made anew when the node stopped */
    struct replay_clock clock;
    struct random *random;
    struct store *store;
    struct registry *registry;
    struct scheduler *scheduler;
    struct lane lane;
    struct metrics *metrics;
    struct router *router;
    struct replay_provider providers[REPLAY_PROVIDERS_MAX];
    size_t provider_count;
    struct replay_executor executor;
    struct replay_policy policy;
    struct run_oracle oracle;
    struct orchestrator *o;
    int64_t mono_ns;

    /* where it stands */
    size_t next;       /* solid event that comes next */
    size_t delta_next; /* event, among all, after the last delta */
    size_t open;       /* solid event that is being written */
    bool is_open_ignored;
    bool is_crash_due; /* what is being written was never stored: the node stopped first */
    bool is_dead;      /* nothing counts any more */
    bool is_lost;      /* an event of another type: from here nothing can fit */
    int blocked, emitting;
    struct condition never, released;
    cost remaining; /* the last that is known */
    uuid *nested;   /* ids of guests' calls that were handed out */
    size_t nested_count;
};

int64_t replay_ns(const struct replay *r, int64_t at_us); /* monotonic time of a recorded one */
void replay_parts_init(struct replay *r);
struct provider *replay_provider(struct replay *r, str name, bool is_stand_in);
/* Asks the live run to stop, if it is not asked already.  True: it was asked now. */
bool replay_cancel(struct replay *r);

/* News that came before the run could rest: they are there when it looks. */
void replay_deliver_next(struct replay *r);

void replay_compare_event(struct replay *r, const struct event *event);
void replay_differs(struct replay *r, int64_t seq, str what, str recorded, str replayed);
/* At the end: rows and joined deltas. */
may_suspend_void void replay_compare_rows(struct replay *r, struct context *ctx);

#endif
