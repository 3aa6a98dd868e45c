#include "orchestrator/run/agent_definition.h"
#include "agent/tool/tool.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <stdlib.h>

enum {
    AGENT_COUNT_MAX = 256,
    AGENT_TOOL_COUNT_MAX = 256,
    AGENT_LINK_NAME_MAX = 56, /* "handoff_" and it are at most 64, as providers want it */
};

struct agent_set {
    struct arena *arena;
    struct agent_definition *items[AGENT_COUNT_MAX];
    size_t count;
};

static str every_tool = S_INIT("*");

static const struct agent_definition assistant = {
    .name = S_INIT("assistant"),
    .version = S_INIT("1.0.0"),
    .description = S_INIT("The built-in agent: every shipped tool that its caller's role may run."),
    .instructions = S_INIT("You are a careful assistant. Use the tools offered when they help: "
                           "compute figures with a tool rather than from memory, "
                           "and name the tool a figure comes from. When the session has files, "
                           "read them through the tools by their names. When a tool "
                           "fails or is denied, say so plainly and go on without it. Answer in the "
                           "language of the question."),
    .tools = &every_tool,
    .tool_count = 1,
    .steps_max = 16,
    .run_timeout_ms = 10 * 60 * 1000,
};

static struct agent_definition *copy(struct arena *arena, const struct agent_definition *from)
{
    struct agent_definition *to = ARENA_NEW(arena, struct agent_definition);
    *to = *from;
    to->name = str_copy(arena, from->name);
    to->version = str_copy(arena, str_is_empty(from->version) ? S("1.0.0") : from->version);
    to->description = str_copy(arena, from->description);
    to->model = str_copy(arena, from->model);
    to->instructions = str_copy(arena, from->instructions);
    to->workflow = str_copy(arena, from->workflow);
    to->tools = ARENA_ARRAY(arena, str, from->tool_count);
    for (size_t i = 0; i < from->tool_count; i++)
        to->tools[i] = str_copy(arena, from->tools[i]);
    struct agent_link *links = ARENA_ARRAY(arena, struct agent_link, from->agent_count);
    for (size_t i = 0; i < from->agent_count; i++) {
        links[i] = from->agents[i];
        links[i].name = str_copy(arena, links[i].name);
        links[i].description = str_copy(arena, links[i].description);
    }
    to->agents = links;
    struct degrade_step *steps = ARENA_ARRAY(arena, struct degrade_step, from->degrade_count);
    for (size_t i = 0; i < from->degrade_count; i++) {
        steps[i] = from->degrade[i];
        steps[i].model = str_copy(arena, steps[i].model);
    }
    to->degrade = steps;
    if (!from->tool_details)
        return to;
    struct agent_tool *details = ARENA_ARRAY(arena, struct agent_tool, from->tool_count);
    for (size_t i = 0; i < from->tool_count; i++) {
        details[i] = from->tool_details[i];
        if (!details[i].permissions)
            continue;
        struct permissions *permissions = ARENA_NEW(arena, struct permissions);
        permissions_copy(arena, permissions, details[i].permissions);
        details[i].permissions = permissions;
    }
    to->tool_details = details;
    return to;
}

struct agent_set *agent_set_create(void)
{
    struct agent_set *set = calloc(1, sizeof *set);
    ensure(set != NULL);
    set->arena = arena_create(0);
    set->items[set->count++] = copy(set->arena, &assistant);
    return set;
}

void agent_set_destroy(struct agent_set *set)
{
    if (!set)
        return;
    arena_destroy(set->arena);
    free(set);
}

static bool name_is_lawful(str name)
{
    if (name.len == 0 || name.len > 64)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
        if (!is_word)
            return false;
    }
    return true;
}

/* ---- other agents ---- */

static const str tool_prefix = S_INIT("agent_"), handoff_prefix = S_INIT("handoff_");

/* Providers take no dot in a tool's name. */
static bool is_tool_of(const struct agent_link *link, str tool)
{
    str prefix = link->is_handoff ? handoff_prefix : tool_prefix;
    if (tool.len != prefix.len + link->name.len || !str_starts_with(tool, prefix))
        return false;
    for (size_t i = 0; i < link->name.len; i++)
        if (tool.ptr[prefix.len + i] != (link->name.ptr[i] == '.' ? '_' : link->name.ptr[i]))
            return false;
    return true;
}

str agent_link_tool(struct arena *arena, const struct agent_link *link)
{
    str prefix = link->is_handoff ? handoff_prefix : tool_prefix;
    char *text = arena_alloc(arena, prefix.len + link->name.len);
    memcpy(text, prefix.ptr, prefix.len);
    for (size_t i = 0; i < link->name.len; i++)
        text[prefix.len + i] = link->name.ptr[i];
    for (size_t i = 0; i < link->name.len; i++)
        if (link->name.ptr[i] == '.')
            text[prefix.len + i] = '_';
    return str_of(text, prefix.len + link->name.len);
}

const struct agent_link *agent_find_link(const struct agent_definition *agent, str tool)
{
    for (size_t i = 0; agent && i < agent->agent_count; i++)
        if (is_tool_of(&agent->agents[i], tool))
            return &agent->agents[i];
    return NULL;
}

static bool check_links(const struct agent_definition *d, struct error *e)
{
    if (d->agent_count > RUN_AGENTS_MAX)
        return error_set(e, REASON_CONFIG, "agent \"" STR_FMT "\": more than %u other agents",
                         STR_ARG(d->name), RUN_AGENTS_MAX);
    for (size_t i = 0; i < d->agent_count; i++) {
        const struct agent_link *link = &d->agents[i];
        if (!name_is_lawful(link->name) || link->name.len > AGENT_LINK_NAME_MAX)
            return error_set(e, REASON_CONFIG,
                             "agent \"" STR_FMT "\": the name of another agent has 1 to %d of "
                             "A-Z a-z 0-9 - _ ., not \"" STR_FMT "\"",
                             STR_ARG(d->name), AGENT_LINK_NAME_MAX, STR_ARG(link->name));
        OWNED(arena) scratch = arena_create(0);
        if (agent_find_link(d, agent_link_tool(scratch, link)) != link)
            return error_set(e, REASON_CONFIG,
                             "agent \"" STR_FMT "\": the agent \"" STR_FMT
                             "\" is named twice (a dot counts as _)",
                             STR_ARG(d->name), STR_ARG(link->name));
        if (link->is_sticky && !link->is_handoff)
            return error_set(e, REASON_CONFIG,
                             "agent \"" STR_FMT "\": only a handoff can be sticky, not \"" STR_FMT
                             "\"",
                             STR_ARG(d->name), STR_ARG(link->name));
    }
    return true;
}

bool agent_set_check(const struct agent_set *set, struct error *e)
{
    for (size_t i = 0; i < set->count; i++)
        for (size_t k = 0; k < set->items[i]->agent_count; k++)
            if (!agent_set_find(set, set->items[i]->agents[k].name))
                return error_set(
                    e, REASON_CONFIG, "agent \"" STR_FMT "\": there is no agent \"" STR_FMT "\"",
                    STR_ARG(set->items[i]->name), STR_ARG(set->items[i]->agents[k].name));
    return true;
}

bool agent_workflow_parts(const struct agent_definition *agent, str *name, str *range)
{
    str_cut(agent->workflow, '@', name, range);
    return !str_is_empty(agent->workflow);
}

/* What a model would be told, or would do, has no place in a workflow's agent: nobody would look at it. */
static bool check_workflow(const struct agent_definition *d, struct error *e)
{
    str name, range;
    if (!agent_workflow_parts(d, &name, &range))
        return true;
    if (!name_is_lawful(name))
        return error_set(e, REASON_CONFIG,
                         "agent \"" STR_FMT
                         "\": workflow is \"name\" or \"name@range\", not \"" STR_FMT "\"",
                         STR_ARG(d->name), STR_ARG(d->workflow));
    if (!str_is_empty(d->instructions) || d->agent_count > 0 || d->degrade_count > 0)
        return error_set(e, REASON_CONFIG,
                         "agent \"" STR_FMT "\" is a workflow: instructions, other agents and "
                         "degrade belong to the steps of " STR_FMT,
                         STR_ARG(d->name), STR_ARG(name));
    return true;
}

static bool check(const struct agent_definition *d, struct error *e)
{
    if (!name_is_lawful(d->name))
        return error_set(e, REASON_CONFIG,
                         "agent name \"" STR_FMT "\": use 1 to 64 of A-Z a-z 0-9 - _ .",
                         STR_ARG(d->name));
    if (d->steps_max < 1 || d->steps_max > RUN_STEPS_MAX)
        return error_set(e, REASON_CONFIG, "agent \"" STR_FMT "\": max_steps must be 1 to %d",
                         STR_ARG(d->name), RUN_STEPS_MAX);
    if (d->run_timeout_ms < 1000)
        return error_set(e, REASON_CONFIG, "agent \"" STR_FMT "\": timeout must be at least 1s",
                         STR_ARG(d->name));
    if (d->tool_count > AGENT_TOOL_COUNT_MAX)
        return error_set(e, REASON_CONFIG, "agent \"" STR_FMT "\": more than %d tools",
                         STR_ARG(d->name), AGENT_TOOL_COUNT_MAX);
    return check_workflow(d, e) && check_links(d, e);
}

bool agent_set_add(struct agent_set *set, const struct agent_definition *definition,
                   struct error *e)
{
    if (!check(definition, e))
        return false;
    for (size_t i = 0; i < set->count; i++) {
        if (!str_equal(set->items[i]->name, definition->name))
            continue;
        if (!str_equal(definition->name, assistant.name))
            return error_set(e, REASON_CONFIG, "agent \"" STR_FMT "\" is defined twice",
                             STR_ARG(definition->name));
        set->items[i] = copy(set->arena, definition);
        return true;
    }
    if (set->count == AGENT_COUNT_MAX)
        return error_set(e, REASON_CONFIG, "more than %d agents", AGENT_COUNT_MAX);
    set->items[set->count++] = copy(set->arena, definition);
    return true;
}

const struct agent_definition *agent_set_find(const struct agent_set *set, str name)
{
    for (size_t i = 0; i < set->count; i++)
        if (str_equal(set->items[i]->name, name))
            return set->items[i];
    return NULL;
}

size_t agent_set_count(const struct agent_set *set)
{
    return set->count;
}

const struct agent_definition *agent_set_at(const struct agent_set *set, size_t index)
{
    return index < set->count ? set->items[index] : NULL;
}

const struct agent_tool *agent_find_tool(const struct agent_definition *agent, str tool, str *range)
{
    static const struct agent_tool nothing_said;
    const struct agent_tool *found = NULL;
    for (size_t i = 0; i < agent->tool_count; i++) {
        str name, behind;
        const struct agent_tool *entry =
            agent->tool_details ? &agent->tool_details[i] : &nothing_said;
        str_cut(agent->tools[i], '@', &name, &behind);
        bool is_named = str_equal(name, tool);
        if (!is_named && (found || !str_equal(name, S("*"))))
            continue;
        found = entry;
        *range = is_named ? behind : STR_NONE;
        if (is_named)
            break;
    }
    return found;
}
