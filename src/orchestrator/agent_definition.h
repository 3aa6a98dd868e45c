/*
 * Agent definitions: model, instructions, tools and limits behind a name.  Immutable snapshot, swapped on reload.
 * `assistant` is built in: every shipped tool its caller's role may run.
 */
#ifndef NEXUS_ORCHESTRATOR_AGENT_DEFINITION_H
#define NEXUS_ORCHESTRATOR_AGENT_DEFINITION_H

#include "agent/permissions.h"

/* What an agent says of one of its tools beside the name. */
struct agent_tool {
    const struct permissions *permissions; /* only narrow; NULL: nothing said */
    bool is_pinned;                        /* always offered, however many tools there are */
};
struct agent_definition {
    str name, version, description;
    str model; /* empty: the catalog's default */
    str instructions;
    str *tools;                            /* names or "name@range"; "*": all */
    const struct agent_tool *tool_details; /* one for each of `tools`; NULL: nothing is said */
    size_t tool_count;
    int steps_max;             /* model calls per run, 1..RUN_STEPS_MAX */
    int64_t run_timeout_ms;    /* of running time; waiting for approval excluded */
    int64_t max_output_tokens; /* 0: the model's */
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
size_t agent_set_count(const struct agent_set *set);
const struct agent_definition *agent_set_at(const struct agent_set *set, size_t index);

#endif
