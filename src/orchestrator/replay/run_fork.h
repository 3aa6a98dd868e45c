/*
 * Run fork: a new run that begins with the first events of another one, by reference.
 *
 *      run A:  1 2 3 4 5 6 7 8 ...
 *      run B:  1 2 3 4 5 | run.forked, message?, decision, what B does          AGENT_RUNS.FORKED_FROM = A, FORKED_AT = 5
 *
 * Nothing is copied, however long A is: B's journal is read through A's (journal_read), and B's session goes on from A's conversation
 * (SESSIONS.FORKED_FROM, FORKED_AT).  What A did up to there is done: its tool calls are not made again.  B has an account of its own, so
 * what A spent is not B's.  Later events of A are none of B's.
 * A fork is possible only where nothing is in flight: no model call, no tool call, no approval, no child run.  Else CONFLICT names the
 * nearest event where it is.  Files of A's session are not B's.  While B is there, retention keeps A; where A is removed first, there is
 * no such run.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_FORK_H
#define NEXUS_ORCHESTRATOR_RUN_FORK_H

#include "orchestrator/orchestrator.h"

struct fork_request {
    uuid run_id;
    int64_t at;  /* the last event that is shared */
    str message; /* put after it; empty: the run goes on as it stood */
    str model;   /* in place of the run's; empty: the same */
};
struct forked_run {
    uuid run_id, session_id;
};
may_suspend bool run_fork(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, const struct fork_request *request,
                          struct forked_run *out, struct error *e);

struct run_state;
/* Nothing is in flight: a fork may begin here. */
bool run_state_is_at_rest(const struct run_state *state);

/* The conversation of a forked session: sets the query to the messages of the session before; false at the end (*e untouched) or on
   failure. */
struct fork_walk {
    uuid session_id; /* whose messages were read */
    int depth;
};
may_suspend bool fork_walk_next(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                struct fork_walk *walk, struct query *query, struct error *e);

#endif
