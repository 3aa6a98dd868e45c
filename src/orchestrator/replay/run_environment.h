/*
 * Run environment: what a run was determined by beside its journal: the agent's definition, the model with its targets and prices, the
 * tools as they counted for it, the settings.
 *
 *      live:   model.requested {"environment": digest} -----> RUN_ENVIRONMENTS row, once per digest and tenant
 *      replay: row --> agents, catalog, tools, settings that are put in place of the configuration of today
 *
 * An instance of a workflow makes no model call: its run.step_started names the environment, with the tools and agents of its definition.
 * Most runs of one configuration share one row.  It holds no secret: neither keys nor addresses of providers.
 * Thread: writing: the run's loop; reading: any.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_ENVIRONMENT_H
#define NEXUS_ORCHESTRATOR_RUN_ENVIRONMENT_H

#include "orchestrator/run_internal.h"

/* Its digest (hex, on the run's turn arena) when it is not the one that the run journaled last, else empty.  The row goes into the
   pending batch unless it is known to be stored. */
str run_environment_note(struct run *run);
/* The batch with the row is durable. */
void run_environment_stored(struct run *run);
void run_environments_destroy(struct run_environments *cache); /* of a lane; NULL is fine */
/* What the run is determined by now, on its turn arena; empty: too much to be kept.  (run_environment_text.c) */
str run_environment_text(struct run *run);

/* What a replay makes of it; texts are on the arena. */
struct environment_target {
    str provider, model;
    bool is_stand_in;
};
struct environment_model {
    struct model model; /* targets without providers */
    struct environment_target *targets;
};
struct run_environment {
    struct agent_definition agent;
    struct agent_definition
        *others; /* one for each of agent.agents: what the model was told of them */
    size_t other_count;
    struct agent_definition *agents; /* of a workflow: those that its steps name */
    size_t agent_count;
    struct environment_model model;   /* of a workflow: the default one; no name: there was none */
    struct environment_model *models; /* others that the run could come to */
    size_t model_count;
    str *known; /* names of all models, in their order; older recordings: none */
    size_t known_count;
    struct tool *tools;
    size_t tool_count;
    str *offered; /* names of tools that the policy let the model see */
    size_t offered_count;
    int64_t call_timeout_ms, approval_expiry_ms;
    struct containment containment;
};
must_check bool run_environment_read(struct arena *arena, const struct json *json,
                                     struct run_environment *out, struct error *e);

#endif
