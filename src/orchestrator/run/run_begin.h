/*
 * The beginning of a run: its row, its first message and its first events, as writes of somebody's batch.
 *
 * A run begins in one commit together with whatever asks for it: a message to a session, a parent's intent, a schedule that moves on, a
 * fork.  After the commit the caller calls run_spawn.  The policy has been asked and the session is open and free: that is the caller's.
 *
 *      run.started  message.added  policy.decided (when there is a decision)
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_BEGIN_H
#define NEXUS_ORCHESTRATOR_RUN_BEGIN_H

#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/workflow/workflow_agent.h"

struct run_beginning {
    uuid run_id,
        session_id; /* the caller's choice: deterministic where it may be asked for twice */
    const struct principal *principal; /* who asks */
    str user_id, role;                 /* for whom, with which role */
    str agent, agent_version, model;
    struct run_workflow workflow;
    str content,
        parts; /* of the first message (parts: {"content": [...]}); a workflow's input as JSON text */
    struct label label;                   /* of it; all zero: its user's own words */
    const struct prompt_message *history; /* put before it */
    const struct label *history_labels;   /* one each; NULL: all as the first message's */
    size_t history_count;
    str client_tools, response_format; /* JSON text or empty */
    int64_t max_output_tokens;         /* 0: the agent's */
    int priority;                      /* + 1; PRIORITY_UNSAID: as the principal's */
    uuid parent_run_id;                /* UUID_NONE: none */
    int depth;
    cost budget; /* its own ceiling; COST_LIMITLESS: none */
    uuid forked_from;
    int64_t forked_at;
    int64_t epoch, now_us;
    const struct policy_decision *decision; /* of run.start; NULL: it was not asked */
    trace_context trace;
    bool
        is_pending; /* its row is there and the session is its own; CONFLICT when it has begun or ended meanwhile */
    bool keeps_session; /* who calls writes the session's row */
    const struct error *
        failure; /* not NULL: it ends as it begins, with run.failed; its session goes to somebody else ... */
    str cancelled_by; /* ... or, not empty, with run.cancelled: its message was withdrawn and is in nobody's context */
};
/* Takes the session too (CONFLICT at the commit when another run has it).  `message_id`: of the first message.  The beginning's strings
   are borrowed until the commit. */
void run_begin_write(struct orchestrator *o, struct arena *arena, struct batch *batch,
                     const struct run_beginning *beginning, uuid *message_id);

/* What a run of that session needs before it may begin: the session as its own, its definition, the policy's word. */
struct run_question {
    const struct record *session;
    const struct principal *principal;
    str role, model; /* model empty: the agent's */
    str content;     /* the message that it would begin with */
};
struct run_grant {
    int64_t epoch; /* 0: the session could not be owned */
    str agent, agent_version, model;
    struct agent_workflow workflow; /* the caller releases it, whatever run_ask gave */
    bool is_decided;
    struct policy_decision decision; /* strings on ctx's arena */
};
/* False: why it may not; *out holds what was found until then. */
may_suspend bool run_ask(struct orchestrator *o, struct context *ctx,
                         const struct run_question *question, struct run_grant *out,
                         struct error *e);

#endif
