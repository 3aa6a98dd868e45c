/*
 * Child runs: runs that a run starts and whose end it waits for.  An agent as a tool, a handoff, a workflow's model, agent and workflow
 * steps are all child runs; so budget, policy, labels, journal, streams and approvals are theirs as they are any run's.
 *
 *      parent: run_child_add  --(its batch: run.child_started + the child's session, run, message, events)--> flush --> run_child_spawn
 *      child:  ... final --> run_spawn(parent)
 *      parent: run_child_look --> final: run.child_completed into its batch, the answer into its own state
 *
 * A child's id is derived from the parent's and the place (tool call or step and attempt), so it exists once whatever crashes.
 * It has a session of its own (parent_run_id, root_session_id), is charged to the root's account and to the run accounts of all its
 * ancestors, each with its own ceiling, and gets the parent's role and user, never more.  Depth and number are bounded
 * (RUN_CHILD_DEPTH_MAX; at once RUN_CHILDREN_LIVE_MAX, in its life RUN_CHILDREN_MAX, of an agent's RUN_AGENT_CHILDREN_MAX).  The
 * cancellation of a parent reaches every child before the parent is final.
 * Labels: the child's question has the label of the words it was given; its answer comes back with the join of all it has seen.
 * A bare model's run has the agent "model:NAME", no tools and one step.  A child uses the files of its root's session.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_CHILD_H
#define NEXUS_ORCHESTRATOR_RUN_CHILD_H

#include "orchestrator/run/run_begin.h"
#include "orchestrator/run_internal.h"

/* Who cancelled a child whose parent was not asked to end, but has to. */
#define RUN_CANCELLED_BY_PARENT S("the run that started it")

enum child_purpose { CHILD_TOOL, CHILD_HANDOFF, CHILD_STEP };
struct child_request {
    enum child_purpose purpose;
    str place;  /* tool call's id text, or the step's path and attempt */
    str agent;  /* an agent of the settings; empty: a bare model without tools, see model */
    str model;  /* empty: the agent's */
    str system; /* of a bare model */
    struct run_workflow workflow; /* a workflow's instance in place of an agent */
    str content, parts;
    const struct prompt_message *history; /* put before it */
    const struct label *history_labels;   /* one each; NULL: all as the content's */
    size_t history_count;
    struct label label;
    str response_format;
    int64_t max_output_tokens; /* 0: the model's */
    cost budget; /* COST_LIMITLESS: what its ancestors have left; more than that is cut to it */
};
/* Before the workflow of a run at this place is looked for.  In a replay what was recorded decides: the version, or that it was refused,
   and then no definition of it is there. */
must_check bool run_child_find_range(struct run *parent, str place, str *range, struct error *e);
/* Adds everything to the parent's batch; *child_run_id is told to run_child_spawn once the flush succeeded.  Refused (policy, depth,
   number, budget that does not fit): nothing was added. */
may_suspend bool run_child_add(struct run *parent, const struct child_request *request,
                               uuid *child_run_id, struct error *e);
void run_child_spawn(struct run *parent, uuid child_run_id);
/* All that are alive, of a run that does not know which of them it had spawned (has_lost_sight). */
void run_children_spawn(struct run *parent);

struct child_outcome {
    bool is_final;
    enum run_status status;
    uuid message_id;
    str text;           /* its answer, on the parent's turn arena */
    struct label label; /* of it */
    cost spent;
    int64_t took_ms;      /* from its beginning to its end, waiting included */
    struct error failure; /* why it failed; code ERROR_OK: it did not */
};
may_suspend bool run_child_look(struct run *parent, uuid child_run_id, struct child_outcome *out,
                                struct error *e);
/* run.child_completed; the outcome is final. */
void run_child_journal_end(struct run *parent, uuid child_run_id,
                           const struct child_outcome *outcome);
/* Asks every live child to end and journals those that have; *are_ended: none is live any more. */
may_suspend bool run_children_cancel(struct run *parent, bool *are_ended, struct error *e);
/* The same until all have ended.  CANCELLED when the node drains meanwhile. */
may_suspend bool run_children_end(struct run *parent, struct error *e);

/* The id of the session of a child run. */
uuid run_child_session(uuid child_run_id);

/* ---- of a child itself ---- */
/* Reads who is above the run, from its row and its session (run->session). */
may_suspend bool run_ancestors_load(struct run *run, const struct record *row, struct error *e);
void run_parent_wake(struct run *run);
/* The agent of a bare model's run, on the run's arena; NULL: this run has a configured one. */
const struct agent_definition *run_bare_agent(struct run *run);
bool run_row_is_bare(const struct record *run);                /* begins nothing, asks nobody */
bool cost_read_text(struct arena *arena, str json, cost *out); /* the form of cost_write_json */

#endif
