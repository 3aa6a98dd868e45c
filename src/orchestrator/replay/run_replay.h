/*
 * Run replay: the orchestrator's own code runs a recorded run again, over recorded parts, and the journals are compared.
 *
 *      recording --> scratch store (memory), clock, ids, accounts, policy, provider, executor of the record
 *                        |
 *                  run.c, run_model.c, run_tools.c ... as they are
 *                        |
 *      journal that comes out  <-- event by event -->  journal of the recording
 *
 * No provider is asked, no tool runs, nothing leaves the process and nothing is stored: a replay needs the export and no more.  What came
 * from people and from other parts of the world (decisions of approvals, results of clients, cancels, a node that stopped) happens at
 * the place where the record has it.
 *
 * Compared are the bytes of every event and of the rows that events refer to.  Not compared (docs/replay.md says why): how the text of an
 * answer was cut into deltas (the joined text is), and `payloads` and `links_defused`, which count what was taken out before anything
 * was recorded.
 * Blocking: on a thread of its own (blocking_call), never on a coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_REPLAY_H
#define NEXUS_ORCHESTRATOR_RUN_REPLAY_H

#include "base/limits.h"
#include "orchestrator/replay/run_recording.h"

struct replay_difference {
    int64_t seq;            /* of the event; 0: not of one event */
    str what;               /* its type, or "message ID", "tool call ID" */
    str recorded, replayed; /* empty: there is none */
};
struct replay_report {
    bool is_same;
    size_t events, compared;
    size_t model_calls, tool_calls, resumes;
    struct replay_difference differences[RUN_REPLAY_DIFFERENCES_MAX];
    size_t difference_count; /* all; at most the array's are kept */
};
/* False only when it could not be tried (no recording, no environment).  The report's texts are on `arena`. */
must_check bool run_replay(struct arena *arena, str text, struct replay_report *out,
                           struct error *e);
void replay_report_write(struct json_writer *w, const struct replay_report *report);
/* The report as JSON text. */
must_check bool run_replay_json(struct arena *arena, str text, str *out, bool *is_same,
                                struct error *e);

#endif
