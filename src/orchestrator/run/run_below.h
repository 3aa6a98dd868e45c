/*
 * Run below: what stands below a run, as its rows tell it: how many it began, what all of it cost, which approvals it waits for.
 *
 * A walk down by AGENT_RUNS.PARENT_RUN_ID, a page of rows in memory at a time.  Runs of bare models begin nothing and ask for nothing, so
 * nothing is looked for below them; of others RUN_BELOW_PARENTS_MAX are looked into, and RUN_BELOW_ROWS_MAX rows are read.  Clients ask for
 * it again and again: each step down is a search in an index, and approvals are looked for below live runs alone.
 * Thread: any coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_BELOW_H
#define NEXUS_ORCHESTRATOR_RUN_BELOW_H

#include "base/cost.h"
#include "orchestrator/orchestrator.h"

struct run_below {
    int64_t children; /* that the run itself began; not counted past RUN_BELOW_ROWS_MAX */
    cost spent;       /* of the run and all below it; of each from its end on */
    bool is_whole;    /* false: there are too many to add up, and `spent` is less than it was */
};
/* `run`: a row that the principal may see (run_get); whoever sees a run sees what it began. */
may_suspend bool run_below_read(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, const struct record *run,
                                struct run_below *out, struct error *e);

/* An approval that the run, or one below it that is live, waits for. */
struct run_wait {
    uuid approval_id, run_id;
};
/* Those of runs nearer to the run first; at most RUN_WAITS_MAX, on ctx's arena. */
may_suspend bool run_waits_read(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, const struct record *run,
                                struct run_wait **out, size_t *count, struct error *e);

#endif
