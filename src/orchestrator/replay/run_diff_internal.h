/* What run_diff.c and run_diff_workflow.c share. */
#ifndef NEXUS_ORCHESTRATOR_RUN_DIFF_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_DIFF_INTERNAL_H

#include "orchestrator/replay/run_diff.h"

/* Writes "steps": [...] of two instances; are they the same? */
bool run_diff_instances(struct json_writer *w, const struct run_recording *left,
                        const struct run_recording *right);

#endif
