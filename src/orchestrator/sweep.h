/*
 * Sweeps: what the orchestrator does by the clock: approvals and runs that expire, runs whose sleep is over, schedules, deliveries.
 *
 * orchestrator_sweep is called again and again from one coroutine; each sweep runs when its time has come, one after the other, looks at
 * a bounded number of rows and leaves the rest for its next turn.  A sweep that fails is logged and tried again; the others go on.
 * To add one: a line in `sweeps` (sweep.c).
 * Thread: one coroutine.  Source of time: the orchestrator's clock, so that the simulation drives it too.
 */
#ifndef NEXUS_ORCHESTRATOR_SWEEP_H
#define NEXUS_ORCHESTRATOR_SWEEP_H

#include "orchestrator/orchestrator.h"

struct sweeper; /* when each is due, and what it keeps from one turn to the next */
struct sweeper *sweeper_create(struct orchestrator *o);
/* What it began beside itself is ended: on a coroutine of the scheduler that swept. */
may_suspend_void void sweeper_destroy(struct sweeper *sweeper);
/* Runs what is due; false only when ctx was cancelled. */
may_suspend bool orchestrator_sweep(struct sweeper *sweeper, struct context *ctx, struct error *e);

#endif
