/*
 * Retention: what is kept no longer than it must be.
 *
 *      deltas   the pieces of an answer's text, once the answer stands in its message: one row of cuts takes their place; readers see
 *               no difference (journal.h).  On by default, after an hour.
 *      runs     whole runs that ended: events, tool calls, approvals and the votes on them, signals, messages, the run's row.  Off by
 *               default.  The ledger and the audit log stay: what was spent and done stays known.
 *
 * Never touched: what is live and what is below it (a parent asks for what its children answered), what another run was forked from or
 * started, a session under hold (its metadata, or a run's, has "hold": true) and what is below it.  A sweep looks at a bounded number
 * of runs of one tenant after the other and goes on where it was.
 * Each removal of runs leaves one audit entry (run.remove) with their ids.
 * Thread: the sweeper's coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_RETENTION_H
#define NEXUS_ORCHESTRATOR_RETENTION_H

#include "orchestrator/orchestrator.h"

struct retention_counts {
    size_t runs, rows, deltas;
};
/* Where a round through all runs stands; zeroed but for `keep` at first. */
struct retention_progress {
    struct arena *keep; /* of the cursor */
    str cursor;
    int64_t round_us,
        last_round_us; /* when this round began, and the one before it that was finished */
};
/* One turn: RETENTION_RUNS_PER_SWEEP runs. */
may_suspend bool retention_sweep(struct orchestrator *o, struct context *ctx,
                                 const struct retention_rules *rules,
                                 struct retention_progress *progress, struct retention_counts *out,
                                 struct error *e);

#endif
