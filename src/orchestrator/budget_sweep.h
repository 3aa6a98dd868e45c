/*
 * Budgets by the clock: what a node does not need of its share goes back, shares of dead nodes are buried, gauges are written.
 * Thread: the sweeps' coroutine.  Bounds: BUDGET_GAUGES_MAX accounts by name, BUDGET_BURIALS_MAX dead nodes a turn.
 */
#ifndef NEXUS_ORCHESTRATOR_BUDGET_SWEEP_H
#define NEXUS_ORCHESTRATOR_BUDGET_SWEEP_H

#include "orchestrator/orchestrator.h"

/* Every second or so. */
may_suspend bool budgets_sweep(struct orchestrator *o, struct context *ctx, struct error *e);
/* A dead node's share stays until no session is its any more, and BUDGET_SHARE_STILL_MS longer. */
may_suspend bool budgets_bury(struct orchestrator *o, struct context *ctx, struct error *e);

#endif
