/*
 * A session's inbox: messages that came while a run was live.
 *
 *      message_send --(session busy)--> SESSION_INBOX row + its run's row, pending, in one commit
 *        enqueue    waits for its turn
 *        interrupt  the live run is cancelled; goes before all that wait
 *        steer      the live run takes it before its next model call; it has a run's row only when that ended before
 *
 *      live run X ends: SESSIONS.live_run_id = the first that waits, in X's last commit --> run_spawn(it) --> session_inbox_begin
 *
 * Invariants:
 *   a session with messages in its inbox has a live run, or live_run_id names the pending one whose turn it is;
 *   inbox_count is the number of rows; who ends a run says which count it knew, so a message that came meanwhile makes its commit fail:
 *   then that message is next, and the end is committed as it is (session_inbox_mend);
 *   a pending run begins once: its row leaves `pending`, its inbox row goes and its first events come in one commit.
 * All of it is rows: after a crash every pending run is looked at (orchestrator_recover), the rest follows.
 * Thread: a run's functions on its lane; session_inbox_add anywhere.
 */
#ifndef NEXUS_ORCHESTRATOR_SESSION_INBOX_H
#define NEXUS_ORCHESTRATOR_SESSION_INBOX_H

#include "orchestrator/run/run_begin.h"
#include "orchestrator/run_internal.h"

struct inbox_message {
    const struct record *session; /* with a live run */
    enum double_text mode;        /* not REJECT, not UNSAID */
    enum priority priority;       /* of the run it will become */
    uuid run_id;                  /* its own */
    const struct principal *principal;
    str user_id, role; /* for whom, with which role */
    const struct run_request *request;
    str agent, model;
    int64_t now_us;
};
/* CONFLICT: the session has changed since it was read; look again.  SESSION_BUSY: the inbox is full.  TOO_LARGE. */
may_suspend bool session_inbox_add(struct orchestrator *o, struct context *ctx,
                                   const struct inbox_message *message, struct error *e);

/* The run's row is pending.  Its turn: it begins (or fails as it begins).  Not yet: run->is_out_of_turn, nothing more to do with it. */
may_suspend bool session_inbox_begin(struct run *run, struct error *e);
/* When it was told that its session's row has changed: its status and its inbox_count as they are now. */
may_suspend bool session_inbox_hear(struct run *run, struct error *e);
/* Before a model call: what steers the run joins its conversation, in the batch that is being gathered. */
may_suspend bool session_inbox_steer(struct run *run, struct error *e);
/* Before the run's last events: finds whose turn is next (run->next_run_id). */
may_suspend bool session_inbox_look(struct run *run, struct error *e);
/* In the last batch: the session's row passes to it.  (The row's other columns: before.) */
void session_inbox_pass_on(struct run *run, struct record *session);
/* The last batch met a CONFLICT.  True: a message had come since the look, and the session's row passes to whose turn it is now. */
may_suspend bool session_inbox_mend(struct run *run, struct batch *batch);
/* The live run is gone without an end of its own: who waits gets the session. */
may_suspend_void void session_inbox_rescue(struct run *run);

#endif
