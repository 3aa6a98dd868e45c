/*
 * Run case: a test made of a run, with what is expected of it.
 *
 *   {"format": "nexus.run_test", "version": 1, "name", "question",
 *    "expect": {"status", "answer": {"equals"?, "contains"?: [...], "schema"?: JSON Schema of it}, "tool_calls": [{"name", "arguments"?}],
 *               "no_denied_call", "cost_nanousd_max", "tokens_max"},
 *    "recording": the export (run_export.h)}
 * `expect` is made from the run and is there to be edited: a member that is left out is not checked.
 * Of a live run, which a model answered today, the words of the answer and the arguments of calls are not compared, and ceilings may be
 * passed by RUN_CASE_SLACK: what was passed over is told (`notes`), never silently.
 * Pure, but for what it is given.  Blocking: a schema is compiled.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_CASE_H
#define NEXUS_ORCHESTRATOR_RUN_CASE_H

#include "orchestrator/replay/run_recording.h"

enum {
    RUN_CASE_VERSION = 1,
    RUN_CASE_FAILURES_MAX = 50,
    RUN_CASE_SLACK_PERCENT = 50 /* of a ceiling, live */
};
enum run_case_mode { RUN_CASE_RECORDED, RUN_CASE_LIVE };

must_check bool run_case_write(struct arena *arena, str export_text, str name, str *out,
                               struct error *e);

struct run_case_failures {
    str items[RUN_CASE_FAILURES_MAX]; /* sentences, on the arena */
    size_t count;
    str notes[8]; /* what was not compared, likewise */
    size_t note_count;
};
/* What of a case's `expect` does not hold of a run: its own recording, or an export of another one. */
must_check bool run_case_check(struct arena *arena, str case_text, const struct run_recording *run,
                               enum run_case_mode mode, struct run_case_failures *out,
                               struct error *e);
/* What a live run is asked; UNSUPPORTED says why this case cannot be played live (a workflow, files, an earlier conversation, tools of a
   client). */
struct run_case_question {
    str agent, content;
};
must_check bool run_case_question(struct arena *arena, str case_text, struct run_case_question *out,
                                  struct error *e);

#endif
