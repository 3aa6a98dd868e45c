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
 *
 *      there --mark--> gone for everybody (AGENT_RUNS.REMOVED_AT, with the audit entry run.remove) --rows, in batches--> its row
 *
 * The mark is one commit, and only while what was looked at is as it was: the hold, the live run and the count of forks (SESSIONS.FORKS)
 * of its session and of those above it.  A fork counts itself there and holds the run's row as unmarked, so either the run stays or the
 * fork is NOT_FOUND, never a fork of what is half removed.  Who reads runs passes over marked ones; what was interrupted behind the mark
 * is finished by the next sweep of any node, whatever the rules are by then.
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
