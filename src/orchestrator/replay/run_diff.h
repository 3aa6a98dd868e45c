/*
 * Run diff: two runs beside each other, step by step.
 *
 * A step is one model call that was answered and what followed from it: model, text, tool calls with their arguments, verdicts, results,
 * cost.  The n-th step of one stands beside the n-th of the other.  Forks share a prefix, so their first steps are the same.
 * Of instances of workflows a step is a place in the tree of steps; those of the same path stand beside each other.
 * Pure: it reads two exports.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_DIFF_H
#define NEXUS_ORCHESTRATOR_RUN_DIFF_H

#include "orchestrator/replay/run_recording.h"

struct run_step_call {
    str name, arguments, status, result, verdict; /* verdict: of the policy, the last one */
};
struct run_step {
    int64_t seq; /* of its model.completed */
    str model, provider, text, finish;
    struct run_step_call *calls;
    size_t call_count;
    cost used; /* settled by this step: the model's and its tools' */
};
/* The steps of a recording, on its arena. */
size_t run_steps(const struct run_recording *r, struct run_step **out);
str run_answer_of(const struct run_recording *r); /* the run's last text; empty when it has none */

/* {"a": {...}, "b": {...}, "steps": [{"step", "path"?, "same", "differs": [...], "a": {...}, "b": {...}}], "same"}; INVALID: one is an
   instance and the other is not. */
must_check bool run_diff_json(struct arena *arena, str a, str b, str *out, bool *is_same,
                              struct error *e);

#endif
