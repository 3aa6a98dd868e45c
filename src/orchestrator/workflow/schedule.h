/*
 * Schedules: workflows that begin by the clock.
 *
 *      next_at --sweep--> one commit: the run begins, next_at moves on   (where next_at is still what was read)
 *
 * So an occurrence starts once, whichever node looks first and whatever dies when: the run's id follows from the schedule and the time it
 * is for.  An occurrence that cannot start (policy, no such workflow, input that does not fit) is noted in last_error and passed over;
 * one that the store or this node cannot take now stays due.
 *
 * missed   what of the past was not started, because the service was down or the schedule was paused past its time by more than
 *          SCHEDULE_GRACE_MS: `skip` none of it, `one` the newest, `all` each in order, at most the SCHEDULE_MISSED_MAX newest
 * overlap  an occurrence comes while the instance before is not final: `skip` it, `allow` both, `cancel` the one before
 *
 * The instance runs for who put the schedule, with the role they had and as long as the key is good that they had (policy/standing.h); the
 * schedule's name stands as its caller.
 * Thread: any coroutine; the sweep's is one.
 */
#ifndef NEXUS_ORCHESTRATOR_SCHEDULE_H
#define NEXUS_ORCHESTRATOR_SCHEDULE_H

#include "orchestrator/orchestrator.h"

struct schedule_request {
    str name;
    str workflow;  /* "name" or "name@range" */
    str cron;      /* workflow/cron.h */
    str time_zone; /* IANA; empty: UTC */
    str input;     /* JSON text; empty: {} */
    str missed;    /* skip, one, all; empty: one */
    str overlap;   /* skip, allow, cancel; empty: skip */
    bool is_paused;
};
/* Makes it or replaces it; counted from now.  CONFLICT when somebody else changed it at the same time. */
may_suspend bool schedule_put(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal,
                              const struct schedule_request *request, struct record *out,
                              bool *is_new, struct error *e);
/* Rows of TABLE_SCHEDULES: one's own; an operator's: all. */
may_suspend bool schedule_get(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, str name, struct record *out,
                              struct error *e);
may_suspend bool schedule_list(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, str cursor, size_t limit,
                               struct records *out, struct error *e);
may_suspend bool schedule_remove(struct orchestrator *o, struct context *ctx,
                                 const struct principal *principal, str name, struct error *e);
/* A schedule that goes on counts from now: what fell into its pause is not missed.  One that is so already stays as it is. */
may_suspend bool schedule_pause(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, str name, bool is_paused,
                                struct record *out, struct error *e);
/* An instance now, besides those that are due; as the caller, not as who put the schedule. */
may_suspend bool schedule_run_now(struct orchestrator *o, struct context *ctx,
                                  const struct principal *principal, str name, uuid *run_id,
                                  uuid *session_id, struct error *e);

/* Between turns of a sweep.  Those with a long past, and those that cannot start now, hold up nobody who comes behind them. */
struct schedule_progress {
    struct arena *keep; /* the cursor's */
    str cursor;         /* where the next turn goes on; empty: with the first that is due */
};
/* Looks at SCHEDULE_SWEEP_MAX that are due, and starts of each one time; the rest is for the next turn. */
may_suspend bool schedules_sweep(struct orchestrator *o, struct context *ctx,
                                 struct schedule_progress *progress, size_t *started,
                                 struct error *e);

#endif
