/*
 * Run case: a test made of a run, with what is expected of it.
 *
 *   {"format": "nexus.run_test", "version": 1, "name", "question",
 *    "expect": {"status", "answer": {"equals"} | {"contains": [...]}, "tool_calls": [{"name", "arguments"?}], "no_denied_call",
 *               "cost_nanousd_max", "tokens_max"},
 *    "recording": the export (run_export.h)}
 * `expect` is made from the run and is there to be edited: a member that is left out is not checked.
 * Pure, but for what it is given.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_CASE_H
#define NEXUS_ORCHESTRATOR_RUN_CASE_H

#include "orchestrator/replay/run_recording.h"

enum { RUN_CASE_VERSION = 1, RUN_CASE_FAILURES_MAX = 50 };

must_check bool run_case_write(struct arena *arena, str export_text, str name, str *out,
                               struct error *e);

struct run_case_failures {
    str items[RUN_CASE_FAILURES_MAX]; /* sentences, on the arena */
    size_t count;
};
/* What of a case's `expect` does not hold of a run: its own recording, or an export of another one. */
must_check bool run_case_check(struct arena *arena, str case_text, const struct run_recording *run,
                               struct run_case_failures *out, struct error *e);

#endif
