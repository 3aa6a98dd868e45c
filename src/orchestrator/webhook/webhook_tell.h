/*
 * What runs, approvals and budgets tell their tenant's endpoints: ids and states, written into the batch of what happens.
 *
 * Child runs do not speak for themselves: whoever started them does.  Nothing is computed where nobody wants to hear it.
 */
#ifndef NEXUS_ORCHESTRATOR_WEBHOOK_TELL_H
#define NEXUS_ORCHESTRATOR_WEBHOOK_TELL_H

#include "orchestrator/approval_internal.h"
#include "orchestrator/run/run_begin.h"
#include "orchestrator/run_internal.h"

/* The run's end is in its journal's batch. */
void webhook_tell_end(struct run *run, enum run_status status, const struct error *failure);
/* A run that ends as it begins. */
void webhook_tell_unbegun(struct orchestrator *o, struct batch *batch,
                          const struct run_beginning *beginning);
void webhook_tell_approval(struct run *run, const struct approval_request *request,
                           int64_t expires_us, str tool);
/* `reminder`: which one, from 1. */
void webhook_tell_reminder(struct orchestrator *o, struct batch *batch,
                           const struct record *approval, int64_t reminder);
/* For ledger_options. */
void webhook_tell_budget(void *orchestrator, const struct ledger_alert *alert, struct batch *batch);

#endif
