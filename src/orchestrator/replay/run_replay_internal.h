/*
 * The replay's inside.
 *
 *   run_replay.c          the world: scratch store, orchestrator, time
 *   run_replay_news.c     what comes from outside, and when
 *   run_replay_workflow.c the same for an instance of a workflow, whose steps are at work beside each other
 *   run_replay_oracle.c   what comes from outside of the run's own code: ids, accounts, targets, waits
 *   run_replay_parts.c    clock, policy and executor over the record
 *   run_replay_provider.c the provider
 *   run_replay_compare.c  events and rows against the record
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
    const struct json *environment_read; /* what it was read from */

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
    bool is_crash_due; /* what is being written was never stored: the run's memory is lost first */
    bool is_dead;      /* nothing counts any more */
    bool is_lost;      /* an event of another type: from here nothing can fit */
    int blocked, emitting;
    struct condition never, released;
    cost remaining;   /* the last that is known */
    size_t life;      /* how often its memory was lost */
    size_t heard;     /* solid events before it have happened outside */
    int listening;    /* calls at work that wait for their turn */
    size_t steered;   /* solid events before it that steer were delivered */
    size_t stirred;   /* `next`, from 1, when a wait was broken off before it began; 0: never */
    bool *handed_out; /* of each solid event: the guest's call that it tells of first has its id */

    /* of an instance of a workflow: see run_replay_workflow.c */
    bool is_workflow;
    size_t told_at, poked_at; /* `next`, from 1, when it was told and woken last; 0: never */
    bool
        has_turn_times; /* all that one turn writes has one time; older builds gave each event its own */
};

int64_t replay_ns(const struct replay *r, int64_t at_us); /* monotonic time of a recorded one */
bool replay_is_crash_next(const struct replay *r);        /* here the run's memory is lost */
struct run *replay_live(const struct replay *r);          /* NULL: it is not in memory */
void replay_parts_init(struct replay *r);
void replay_oracle_init(struct replay *r);
uuid replay_id_member(const struct json *data, const char *member); /* UUID_NONE: there is none */
enum error_reason replay_reason_of(const struct json *data);
bool replay_is_handed_out(const struct replay *r, uuid id);

/* ---- waiting ---- */
may_suspend_void void replay_wait_for_ever(struct replay *r, struct context *ctx);
bool replay_is_cancel(const struct run_recording *record, size_t at);
may_suspend_void void replay_sleep_until(struct context *ctx, int64_t deadline_ns);
/* Until solid event `at` (of a tool call at work) may happen; solid_count: until the node stops. */
may_suspend_void void replay_wait_until_told(struct replay *r, struct context *ctx, size_t at);
struct provider *replay_provider(struct replay *r, str name, bool is_stand_in);
/* Asks the live run to stop, if it is not asked already.  True: it was asked now. */
bool replay_cancel(struct replay *r);

/* The end of a child, a client's result or the votes on an approval, if that is what comes next.  One at a time: a look hears of them
   in the order of their calls. */
void replay_deliver_next(struct replay *r);
/* What must be there as soon as the event before it is: messages that steer, a pause, a signal that came before its step, votes, ends. */
void replay_hear_at_once(struct replay *r);
void replay_resume_session(struct replay *r); /* while its run is at work */
void replay_deliver_event(struct replay *r, const struct event *event);
void replay_put(struct replay *r, const struct record *row); /* into the scratch store */

/* ---- run_replay_workflow.c ---- */
bool replay_workflow_has_turn_times(const struct run_recording *record);
void replay_workflow_flushed(struct replay *r);
void replay_workflow_recovers(struct replay *r); /* it comes to memory again */
/* Nothing moves: what comes next?  False: nothing is known to. */
bool replay_workflow_act(struct replay *r);

void replay_compare_event(struct replay *r, const struct event *event);
void replay_differs(struct replay *r, int64_t seq, str what, str recorded, str replayed);
/* At the end: rows and joined deltas. */
may_suspend_void void replay_compare_rows(struct replay *r, struct context *ctx);

#endif
