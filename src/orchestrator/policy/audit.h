/*
 * Audit: who did what to which resource.  Entries are writes of a batch, so they are durable with what they tell of.
 * Details never hold secrets or content of messages.
 */
#ifndef NEXUS_ORCHESTRATOR_AUDIT_H
#define NEXUS_ORCHESTRATOR_AUDIT_H

#include "orchestrator/policy/principal.h"
#include "store/store.h"

struct audit_entry {
    str action;        /* "session.create", "approval.approve", "key.revoke" */
    str resource_type; /* "session" */
    str resource_id;
    str details; /* JSON text or empty */
};
void audit_add(struct batch *batch, struct clock *clock, struct random *random,
               const struct principal *principal, const struct audit_entry *entry);

#endif
