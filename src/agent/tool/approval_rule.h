/*
 * Approval rule: what an approval of a call needs beside one person who is not the requester.
 *
 *      {quorum: 2, approvers: {users: [bob], roles: [admin]}, expires: 2h, remind: 15m}
 *
 * It comes from the operator (tools.NAME.approval), from the policy (approval_requirements) and from a workflow's approval step; where
 * several say something of one call all of them hold: the most persons, named by each, in the shortest time.
 * A role is named exactly: an admin is no operator.
 * Pure.  Thread: any.
 */
#ifndef NEXUS_AGENT_APPROVAL_RULE_H
#define NEXUS_AGENT_APPROVAL_RULE_H

#include "base/json.h"

struct approval_rule {
    int64_t quorum; /* different persons who must approve; 0: not said, one */
    str approvers; /* JSON: [{"users": [], "roles": []}], each must name who approves; empty: whoever may approve at all */
    int64_t expires_ms; /* 0: not said */
    int64_t remind_ms;  /* from one reminder to the next; 0: not said */
};

/* `value` is an object, or null: nothing demanded.  Texts are put on the arena.  REASON_SCHEMA says what is wrong. */
must_check bool approval_rule_read(struct arena *arena, const struct json *value,
                                   struct approval_rule *out, struct error *e);
/* The stricter of both, member by member, into `to`.  LIMIT: there are too many lists of approvers. */
must_check bool approval_rule_join(struct arena *arena, struct approval_rule *to,
                                   const struct approval_rule *other, struct error *e);
/* Is somebody of this name and role among `approvers` (the member above)?  What cannot be read names nobody. */
bool approval_rule_names(struct arena *arena, str approvers, str user, str role);

#endif
