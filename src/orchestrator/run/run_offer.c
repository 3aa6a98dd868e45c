/*
 * Which tools a run may use: those of its agent that its tenant may see, at the version the registry resolves for this session.
 *
 * A few are offered as they are.  Of many (over RUN_TOOLS_OFFERED_MAX) a model gets the pinned ones, those that this conversation has
 * used or found already, the RUN_TOOLS_FOUND_MAX that fit the newest user message best, and `tool_search` to find others by; what it
 * found is read from the conversation, so a resumed run offers the same.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_tools_internal.h"

static struct registry_question question_of(const struct run *run, str name, str range)
{
    return (struct registry_question){.tenant_id = run->tenant_id,
                                      .name = name,
                                      .range = range,
                                      .canary_key = run->root_session_id};
}

const struct tool *run_find_tool(struct run *run, str name)
{
    str range = STR_NONE;
    const struct tool *other_agent = run_agents_find(run, name);
    if (other_agent)
        return other_agent;
    const struct agent_tool *entry = agent_find_tool(run->agent, name, &range);
    if (!entry)
        return NULL;
    struct registry_question question = question_of(run, name, range);
    const struct tool *tool = registry_resolve(run->tools, &question);
    return tool
               ? registry_effective(run->tools, run->turn, tool, run->tenant_id, entry->permissions)
               : NULL;
}

static bool policy_may_allow(struct run *run, const struct tool *tool)
{
    struct policy_decision decision;
    run_decide(run, &run->shield,
               &(struct policy_input){.action = S("tool.call"),
                                      .resource = tool->name,
                                      .tool_name = tool->name,
                                      .tool_version = tool->version,
                                      .tool_category = tool->category},
               &decision);
    return decision.verdict != POLICY_DENY;
}

/* ---- the list of what is offered ---- */

static bool is_offered(const struct run *run, str name)
{
    for (size_t i = 0; i < run->offered_count; i++)
        if (str_equal(run->offered[i].name, name))
            return true;
    return false;
}

/* Texts are the snapshot's, which the run keeps. */
static void offer(struct run *run, size_t max, const struct tool *tool)
{
    if (!tool || run->offered_count >= max || is_offered(run, tool->name) ||
        !policy_may_allow(run, tool))
        return;
    run->offered[run->offered_count++] = (struct tool_spec){
        .name = tool->name, .description = tool->description, .parameters = tool->input_schema};
}

/* Other agents are always offered: an agent names only those that it works with. */
static void offer_agents(struct run *run, size_t max)
{
    for (size_t i = 0; i < run->agent->agent_count; i++) {
        struct tool_spec spec = run_agents_spec(run, &run->agent->agents[i]);
        const struct tool *tool = run_agents_find(run, spec.name);
        if (run->offered_count < max && !is_offered(run, spec.name) && tool &&
            policy_may_allow(run, tool))
            run->offered[run->offered_count++] = spec;
    }
}

static void offer_all(struct run *run, size_t max)
{
    size_t index = 0;
    str name;
    while (registry_next_name(run->tools, run->tenant_id, &index, &name))
        offer(run, max, run_find_tool(run, name));
}

/* ---- of many, those that fit ---- */

static const struct tool_spec search_spec = {
    .name = S_INIT("tool_search"),
    .description =
        S_INIT("Finds further tools by what they do. There are more tools than those offered here: "
               "search with a few words for what you need; those found can be called in your next "
               "step."),
    .parameters = S_INIT("{\"type\":\"object\",\"properties\":{\"query\":{\"type\":\"string\","
                         "\"description\":\"what the tool should do, in a few words\"}},"
                         "\"required\":[\"query\"],\"additionalProperties\":false}"),
};

bool run_is_tool_search(const struct run *run, str name)
{
    return run->is_offer_searched && str_equal(name, search_spec.name) &&
           !run_has_client_tool(run, name);
}

static bool is_of_agent(void *owner, const struct tool *tool)
{
    const struct run *run = owner;
    str range = STR_NONE;
    return agent_find_tool(run->agent, tool->name, &range) != NULL &&
           !run_has_client_tool(run, tool->name);
}

static size_t find_by_words(struct run *run, str query, struct registry_hit *hits, size_t max)
{
    struct registry_search search = {.tenant_id = run->tenant_id,
                                     .canary_key = run->root_session_id,
                                     .query = query,
                                     .accepts = is_of_agent,
                                     .owner = run};
    return registry_find_words(run->tools, &search, hits, max);
}

/* How many of the agent's tools there are; it does not matter how many more than `max`. */
static size_t count_tools(struct run *run, size_t max)
{
    size_t index = 0, count = 0;
    str name;
    while (count <= max && registry_next_name(run->tools, run->tenant_id, &index, &name))
        count += run_find_tool(run, name) != NULL;
    return count;
}

static void offer_pinned(struct run *run, size_t max)
{
    const struct agent_definition *agent = run->agent;
    for (size_t i = 0; agent->tool_details && i < agent->tool_count; i++) {
        str name, range;
        str_cut(agent->tools[i], '@', &name, &range);
        if (agent->tool_details[i].is_pinned && !str_equal(name, S("*")))
            offer(run, max, run_find_tool(run, name));
    }
}

/* The names in the answer of a tool_search, which may have been framed on its way into the prompt. */
static void offer_found(struct run *run, size_t max, str answer)
{
    const struct json *json, *item;
    struct error ignored;
    size_t from = str_find_char(answer, '['), to = answer.len;
    while (to > 0 && answer.ptr[to - 1] != ']')
        to--;
    if (from == STR_NOT_FOUND || !json_parse(run->turn, str_slice(answer, from, to),
                                             (struct json_limits){0}, &json, &ignored))
        return;
    struct json_iter it = json_iter(json);
    while (json_next(&it, NULL, &item))
        offer(run, max, run_find_tool(run, json_str_or(item, S("name"), STR_NONE)));
}

/* What this conversation has called, and what it has found, the newest first. */
static void offer_known(struct run *run, size_t max)
{
    for (size_t m = run->message_count; m > 0; m--)
        for (size_t i = 0; i < run->messages[m - 1].part_count; i++) {
            const struct part *part = &run->messages[m - 1].parts[i];
            if (part->kind == PART_TOOL_RESULT && str_equal(part->name, search_spec.name))
                offer_found(run, max, part->text);
            else if (part->kind == PART_TOOL_CALL)
                offer(run, max, run_find_tool(run, part->name));
        }
}

static str newest_message(const struct run *run)
{
    for (size_t m = run->message_count; m > 0; m--) {
        const struct prompt_message *message = &run->messages[m - 1];
        for (size_t i = 0; message->role == ROLE_USER && i < message->part_count; i++)
            if (message->parts[i].kind == PART_TEXT)
                return message->parts[i].text;
    }
    return STR_NONE;
}

static void offer_fitting(struct run *run, size_t max)
{
    enum { RANKED = 4 * RUN_TOOLS_FOUND_MAX }; /* the policy may refuse some */
    struct registry_hit *hits = ARENA_ARRAY(run->turn, struct registry_hit, RANKED);
    size_t count = find_by_words(run, newest_message(run), hits, RANKED);
    size_t end = run->offered_count + RUN_TOOLS_FOUND_MAX;
    for (size_t i = 0; i < count; i++)
        offer(run, end < max ? end : max, run_find_tool(run, hits[i].tool->name));
}

/* ---- the offer ---- */

static size_t room(const struct run *run)
{
    return run->client_tool_count + run->agent->agent_count + 1 + RUN_TOOLS_ADDED_MAX +
           RUN_TOOLS_FOUND_MAX;
}

static void offer_some(struct run *run)
{
    size_t max = room(run);
    run->offered_count = 0;
    for (size_t i = 0; i < run->client_tool_count; i++)
        run->offered[run->offered_count++] = run->client_tools[i];
    offer_agents(run, max);
    if (!run->is_offer_searched) {
        offer_all(run, max);
        return;
    }
    if (!is_offered(run, search_spec.name))
        run->offered[run->offered_count++] = search_spec;
    size_t known = max - RUN_TOOLS_FOUND_MAX;
    offer_pinned(run, known);
    offer_known(run, known);
    offer_fitting(run, max);
}

bool run_tools_offer(struct run *run, struct error *e)
{
    (void) e;
    arena_mark mark = arena_save(run->turn);
    run->is_offer_searched = count_tools(run, RUN_TOOLS_OFFERED_MAX) > RUN_TOOLS_OFFERED_MAX;
    run->offered = ARENA_ARRAY(run->arena, struct tool_spec, room(run));
    offer_some(run);
    arena_rewind(run->turn, mark);
    return true;
}

bool run_tools_refresh(struct run *run, struct error *e)
{
    (void) e;
    if (run->is_offer_searched)
        offer_some(run);
    return true;
}

/* ---- tool_search ---- */

static void write_hit(struct json_writer *w, const struct tool *tool)
{
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    json_put_str(w, S("description"), tool->description);
    json_put_raw(w, S("input_schema"), tool->input_schema);
    json_object_end(w);
}

bool run_tool_search(struct run *run, str arguments, str *output, struct error *e)
{
    enum { RANKED = 4 * RUN_TOOLS_FOUND_MAX };
    const struct json *json;
    struct strbuf text;
    struct json_writer w;
    str query = STR_NONE;
    if (!json_parse(run->turn, arguments, (struct json_limits){0}, &json, e) ||
        !json_need_str(json, S("query"), &query, e))
        return error_wrap(e, "tool_search takes {\"query\": text}");
    struct registry_hit *hits = ARENA_ARRAY(run->turn, struct registry_hit, RANKED);
    size_t count = find_by_words(run, query, hits, RANKED), written = 0;
    strbuf_init(&text, run->turn, TOOL_RESULT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < count && written < RUN_TOOLS_FOUND_MAX; i++) {
        const struct tool *tool = run_find_tool(run, hits[i].tool->name);
        /* A schema that has no room is left to the next search. */
        size_t need = tool ? tool->input_schema.len + 2 * tool->description.len + 256 : 0;
        if (!tool || text.len + need > TOOL_RESULT_BYTES_MAX || !policy_may_allow(run, tool))
            continue;
        write_hit(&w, tool);
        written++;
    }
    json_array_end(&w);
    *output = strbuf_str(&text);
    return true;
}
