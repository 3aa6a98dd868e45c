/*
 * Content audit: what the content filter blocked or masked, one entry per request or answer.
 *
 *      action    content.blocked | content.masked
 *      resource  model, its name
 *      details   {"direction": "request" | "answer", "call_id" | "run_id", "session_id"?, "key_id"?,
 *                 "rules": [{"rule", "group", "action", "count"}]}; never a byte of what was found
 *
 * Entries are posted (store_submit): nobody waits for them, and the store's writer groups them with what else it has.  One that the
 * store does not take is logged.  Flags are counted by METRIC_FILTER_FINDINGS only.
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_CONTENT_AUDIT_H
#define NEXUS_ORCHESTRATOR_CONTENT_AUDIT_H

#include "llm/guard_tally.h"
#include "orchestrator/orchestrator.h"

struct content_audit {
    const struct principal *principal; /* whose text it is */
    str model;
    uuid call_id, run_id, session_id, key_id; /* UUID_NONE: left out */
};
/* Nothing for a tally without findings.  The tally is empty then. */
void content_audit_post(struct orchestrator *o, const struct content_audit *about,
                        struct guard_tally *tally);

#endif
