/*
 * Agents that are workflows: a run of such an agent is an instance of the definition that its `workflow` names.
 *
 *      message to agent "planner"  -->  agent_workflow_find  -->  run.started {agent: "planner", workflow: {name, version, digest, takes_message}}
 *
 * The message's row keeps the user's words; the instance's input is {"message": words}.  Its answer is the output: a text as it is, of a map
 * the text under `answer`, else under `text`, else all of it as JSON.  Everything else is as of any instance and any agent's run.
 * Thread: any.
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_AGENT_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_AGENT_H

#include "base/cost.h"
#include "orchestrator/orchestrator.h"

struct agent_definition;
struct definition;
struct workflow_entry;

/* What a run is an instance of. */
struct run_workflow { /* all empty: of none, a model works */
    str name, version, digest;
    bool takes_message; /* of an agent: see above; else the message is the input, as JSON text */
};

/* The workflow of an agent as it is now, for who begins a run of it. */
struct agent_workflow {
    struct run_workflow pinned;   /* strings are the entry's */
    struct workflow_entry *entry; /* held; NULL: the agent has none */
    cost budget;                  /* of the instance with all it starts; COST_LIMITLESS: none */
};
/* Finds it, and looks whether its input takes this message.  NOT_FOUND, SCHEMA. */
may_suspend bool agent_workflow_find(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                     const struct agent_definition *agent, str message,
                                     struct agent_workflow *out, struct error *e);
/* Is it there?  NOT_FOUND; fine when the agent has none. */
may_suspend bool agent_workflow_check(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                      const struct agent_definition *agent, struct error *e);
/* Into the batch that begins the run. */
void agent_workflow_pin(struct orchestrator *o, struct arena *arena, struct batch *batch,
                        const struct agent_workflow *workflow);
void agent_workflow_release(struct agent_workflow *workflow);

/* INVALID: a run of such an agent takes none of these; they would be passed over. */
struct run_request;
must_check bool agent_workflow_check_request(const struct agent_definition *agent,
                                             const struct run_request *request, struct error *e);

/* {"message": ...} as JSON text. */
str agent_workflow_input(struct arena *arena, str message);
/* The text that an output is as an answer; `printed` is the output as JSON text. */
str agent_workflow_answer(const struct json *output, str printed);

#endif
