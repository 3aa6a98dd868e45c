/* What the files of schedule.h share: schedule.c (rows), schedule_sweep.c (what is due). */
#ifndef NEXUS_ORCHESTRATOR_SCHEDULE_INTERNAL_H
#define NEXUS_ORCHESTRATOR_SCHEDULE_INTERNAL_H

#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/workflow/schedule.h"
#include "workflow/cron.h"

struct schedule_times {
    struct cron cron;
    const struct zone *zone; /* on ctx's arena */
};
/* Reads both of a row or request; the zone comes from the system's folder. */
may_suspend bool schedule_times_read(struct context *ctx, str cron, str time_zone,
                                     struct schedule_times *out, struct error *e);
/* "name@range" in two. */
void schedule_cut_workflow(str text, str *name, str *range);

#endif
