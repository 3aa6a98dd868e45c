/*
 * Agent definitions: model, instructions, tools, other agents and limits behind a name.  Immutable snapshot, swapped on reload.
 * `assistant` is built in: every shipped tool its caller's role may run.
 *
 * An agent may be a workflow (`workflow`): what its model would do, the steps of a definition do.  A run of it is an instance, with the
 * user's message as input.message; its output is the answer (docs/agents.md).  Its tools, when there are any, narrow what the steps may call.
 *
 * An agent may name others that it works with (run_agents.c).  They may name each other in any order, and themselves: the depth of runs
 * is bounded.
 */
#ifndef NEXUS_ORCHESTRATOR_AGENT_DEFINITION_H
#define NEXUS_ORCHESTRATOR_AGENT_DEFINITION_H

#include "agent/tool/permissions.h"
#include "base/cost.h"

/* What an agent says of one of its tools beside the name. */
struct agent_tool {
    const struct permissions *permissions; /* only narrow; NULL: nothing said */
    bool is_pinned;                        /* always offered, however many tools there are */
};
/* Another agent that an agent may call. */
struct agent_link {
    str name;
    bool is_handoff; /* the rest of the run is its, and its answer the run's */
    bool is_sticky;  /* of a handoff: the session goes on with it */
    str description; /* for the model; empty: the other agent's own */
    cost budget;     /* of one call; COST_LIMITLESS: its share of what is left */
};
/* What holds an agent that runs wild. */
struct agent_limits {
    int64_t tokens_per_minute, cost_per_minute_nanousd; /* of its session; 0: no rate */
    int64_t same_action_warn,
        same_action_max; /* answers alike in a row, until it is told, is stopped; 0: RUN_SAME_ACTION_*; -1: never */
    int64_t
        wind_down_tokens; /* held back for a last call that sums up; 0: RUN_WIND_DOWN_TOKENS; -1: none */
};
/* What a run may do when it cannot have what it wants (run_degrade.c). */
enum degrade_when { DEGRADE_PROVIDER_UNAVAILABLE, DEGRADE_BUDGET_LOW, DEGRADE_OVERLOADED };
enum degrade_use { DEGRADE_MODEL, DEGRADE_CACHED, DEGRADE_TOOLLESS };
struct degrade_step {
    enum degrade_when when;
    enum degrade_use use;
    str model; /* of DEGRADE_MODEL */
};
struct agent_definition {
    str name, version, description;
    str model; /* empty: the catalog's default */
    str instructions;
    str *tools;                            /* names or "name@range"; "*": all */
    const struct agent_tool *tool_details; /* one for each of `tools`; NULL: nothing is said */
    size_t tool_count;
    const struct agent_link *agents;
    size_t agent_count;
    str workflow; /* "name" or "name@range": its runs are instances of it; empty: its model works */
    int steps_max;             /* model calls per run, 1..RUN_STEPS_MAX */
    int64_t run_timeout_ms;    /* of running time; waiting for approval excluded */
    int64_t max_output_tokens; /* 0: the model's */
    struct agent_limits limits;
    int priority; /* its runs are no more urgent (enum priority + 1); 0: not said */
    const struct degrade_step *degrade; /* in this order, each once; at most DEGRADE_STEPS_MAX */
    size_t degrade_count;
};
struct agent_set;

struct agent_set *agent_set_create(void); /* holds `assistant` */
void agent_set_destroy(struct agent_set *set);
OWNED_DEFINE(agent_set)
/* Copies; a definition named `assistant` replaces the built-in one.  INVALID names what is wrong. */
must_check bool agent_set_add(struct agent_set *set, const struct agent_definition *definition,
                              struct error *e);
const struct agent_definition *agent_set_find(const struct agent_set *set, str name);
/* The agent's entry for a tool: one that names it before "*".  *range is the entry's, or empty.  NULL: the agent does not have it. */
const struct agent_tool *agent_find_tool(const struct agent_definition *agent, str tool,
                                         str *range);
/* The name and the range of the agent's workflow; false: it has none. */
bool agent_workflow_parts(const struct agent_definition *agent, str *name, str *range);
/* INVALID when an agent names one that is not there. */
must_check bool agent_set_check(const struct agent_set *set, struct error *e);
/* The tool by which a model calls the other agent: agent_NAME or handoff_NAME, in letters that every provider takes. */
str agent_link_tool(struct arena *arena, const struct agent_link *link);
/* NULL: `tool` is none of these; `agent` may be NULL. */
const struct agent_link *agent_find_link(const struct agent_definition *agent, str tool);
size_t agent_set_count(const struct agent_set *set);
const struct agent_definition *agent_set_at(const struct agent_set *set, size_t index);

#endif
