/*
 * Workflow instances: the shell around workflow_state.h.
 *
 *      workflow_prepare   the definition that run.started pins, the input, what the instance is
 *      workflow_step      one stretch of work: until the instance is final, waits (parked) or has to let go of memory
 *
 * One coroutine drives an instance.  Tool calls at work are coroutines of a group below it; model, agent and workflow steps are child runs
 * (run_child.h).  Outcomes come back by a condition; ONE append holds the outcomes of all that ended and the intents of all that begin
 * next.  What waits for somebody else (approvals, signals, children, the clock) holds no memory: the run is parked, and whoever brings the
 * news calls run_spawn.
 *
 * What depends on values is computed from the definition and the journal's outputs, so a resumed instance computes what it computed before.
 * A tool call in flight when the node stopped is repeated when it is pure or idempotent (by its effect key: the place of the step in the
 * run, or the definition's idempotency_key), else the step fails with outcome_unknown and is not tried again.
 * Labels: an output keeps the label of what made it; a template's label is the join of what it reads, and containment looks at that.
 * Thread: the run's lane.
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_RUN_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_RUN_H

#include "orchestrator/run_internal.h"

struct planned;

/* After the journal was loaded; false only when the store failed.  What is wrong with the definition ends the instance in its first step. */
may_suspend bool workflow_prepare(struct run *run, struct error *e);
may_suspend bool workflow_step(struct run *run, bool *is_parked, struct error *e);
void workflow_release(struct run *run); /* gives back what prepare took */

/* ---- for run_tools.c and run_labels.c: a tool call that is a step's ---- */
str workflow_arguments(const struct run *run, const struct call *call);
const struct tool *workflow_find_tool(struct run *run, const struct call *call);
str workflow_effect_key(struct run *run, const struct planned *p); /* empty: the usual one */

/* Has its step a key of its own, under which the other side does it once? */
bool workflow_may_repeat(const struct run *run, const struct call *call);

/* Runs whose time has come are brought back; for sweep.c. */
may_suspend bool workflows_wake(struct orchestrator *o, struct context *ctx, size_t *woken,
                                struct error *e);

#endif
