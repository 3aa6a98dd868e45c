/*
 * Approvals: persons other than the requester say yes to exactly these arguments, once.
 *
 *   pending --(the last needed vote)--> approved --(the run consumes it with its intent)--> consumed
 *   pending --(one deny)--> denied       pending --time--> expired
 *
 * What is asked of approvers is a rule (agent/tool/approval_rule.h): from the policy, from the tool's configuration, or from a workflow's step.
 *
 * Persons are compared, not keys.  A vote is the word of everybody who may be behind it: whose key it was, whoever made that key or gave it
 * a new text (and whoever made theirs), and who delegated.  None of them may be a party: who asked for the run, or whom it is for.
 * None of them may be behind two votes for one approval; persons that the operator calls registrars (approvals.registrars: they hand out
 * keys) do not count as being behind the keys they made, except as parties.
 * A run, a tool, or somebody who acts for another approves nothing.
 *
 * Delegation: A lets B approve in A's place until a time.  B votes then with what A may do at that moment and nothing more; what was
 * delegated to A does not pass on; neither A nor B may be a party, and both are in the vote.
 *
 * Votes are numbered: two at once are one after the other (the second looks again), and a vote against an expiry or a decision is one or
 * the other.  The run journals each vote (approval.voted) when it wakes.
 * Thread: any coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_APPROVAL_H
#define NEXUS_ORCHESTRATOR_APPROVAL_H

#include "agent/tool/approval_rule.h"
#include "orchestrator/orchestrator.h"

/* ---- asking (run_approval.c) ---- */
struct approval_request {
    uuid id, run_id, session_id;
    uuid tool_call_id; /* UUID_NONE: it is not about a tool call */
    str action;        /* "tool.call", "workflow.step" */
    str subject; /* canonical JSON of everything that is decided about: it is shown, and the digest covers it */
    str digest;                /* hex sha256 of the subject */
    str requested_by, user_id; /* the parties */
    struct approval_rule rule;
};
/* Fills an INSERT's record of TABLE_APPROVALS; gives when it expires.  The texts are borrowed until the batch is committed. */
int64_t approval_write(const struct settings *settings, int64_t now_us, struct record *row,
                       const struct approval_request *request);
/* It was written: approvals_expire looks at all of them only when one of them can have expired. */
void approval_note_expiry(struct orchestrator *o, int64_t expires_us);
/* The canonical form of a JSON text, and its digest: for subjects that are no tool call's (which is approval_digest's). */
must_check bool approval_seal(struct arena *arena, str subject_json, str *canonical,
                              str *digest_hex, struct error *e);

/* ---- a run that waits ---- */
enum approval_status {
    APPROVAL_PENDING,
    APPROVAL_APPROVED,
    APPROVAL_DENIED,
    APPROVAL_EXPIRED,
    APPROVAL_CONSUMED
};
struct approval_outcome {
    enum approval_status status;
    str approver; /* who gave the last word; empty: nobody */
    str reason, digest;
    str approvers; /* JSON of the rule it was asked under; empty: whoever may */
    int64_t votes, quorum;
};
struct run;
struct tool;
struct policy_input;
/* What an approval of this call needs: what the policy and the tool's configuration demand, together.  False when that cannot be told:
   then nothing may be asked for and nothing may be done. */
may_suspend bool run_approval_rule(struct run *run, const struct tool *tool,
                                   const struct policy_input *input, struct approval_rule *out,
                                   struct error *e);
/* How it stands; votes that the journal does not have yet come into the run's batch as approval.voted.  Texts on the run's turn arena. */
may_suspend bool run_approval_look(struct run *run, uuid approval_id, struct approval_outcome *out,
                                   struct error *e);
/* Is `approved`, a digest, that of the call as it would be made now?  REASON_STALE_DIGEST: it is not. */
bool run_approval_covers(struct run *run, const struct call *call, const struct tool *tool,
                         str arguments, str approved, struct error *failure);
/* Into the batch: approved becomes consumed, or the batch conflicts. */
void run_approval_consume(struct run *run, uuid approval_id);
/* Into the batch: the run ends or goes on without it; one that is decided already stays as it is. */
may_suspend bool run_approval_withdraw(struct run *run, uuid approval_id, struct error *e);
/* The batch met a CONFLICT.  True: an approval that it withdraws was decided just before, which changes nothing any more, and the batch
   leaves that row as it is. */
may_suspend bool run_approval_mend(struct run *run, struct batch *batch);

/* ---- reading ---- */
/* The votes of one approval that the principal may see, in order. */
may_suspend bool approval_votes(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, uuid approval_id,
                                struct records *out, struct error *e);

/* ---- delegation (approval_delegation.c) ---- */
struct approval_delegation {
    str to_user;
    str reason;         /* or empty */
    int64_t expires_us; /* at most APPROVAL_DELEGATION_MS_MAX from now */
};
/* From the principal, in their own name, who must be one who may approve.  A newer one to the same person replaces the older. */
may_suspend bool approval_delegate(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal,
                                   const struct approval_delegation *delegation, struct record *out,
                                   struct error *e);
/* Those from or to the principal; an admin sees all. */
may_suspend bool approval_delegations(struct orchestrator *o, struct context *ctx,
                                      const struct principal *principal, str cursor, size_t limit,
                                      struct records *out, struct error *e);
/* By who gave it, who got it, or an admin.  NOT_FOUND for others. */
may_suspend bool approval_delegation_revoke(struct orchestrator *o, struct context *ctx,
                                            const struct principal *principal, str from_user,
                                            str to_user, struct error *e);

/* ---- by the clock (sweep.c) ---- */
/* Reminds of what nobody has decided: an audit entry, a metric, and the parts' hook; at most APPROVAL_REMINDERS_MAX times each. */
may_suspend bool approvals_remind(struct orchestrator *o, struct context *ctx, size_t *reminded,
                                  struct error *e);

#endif
