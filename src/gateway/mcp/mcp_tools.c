/*
 * tools/list and tools/call: the registry's tools as this caller may use them, and the agents.
 *
 * One order, always the same: agents by name as configured, then tools by name.  A cursor names the last one shown, so a page goes on
 * where it was however the lists change.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"

#define META_SESSION S("nexus/session_id")
#define META_VERSION S("nexus/tool_version")
#define ANY_OBJECT S("{\"type\":\"object\"}")

enum { DESCRIPTION_BYTES_MAX = 8 << 10, TOOLS_PER_TURN = 16 };

/* ---- who may use what ---- */

static bool policy_may_allow(struct mcp_call *m, struct policy_input *input)
{
    struct policy_decision decision;
    const struct principal *principal = &m->call->principal;
    input->user_id = principal->user_id;
    input->role = principal->role;
    input->tenant = uuid_str(mcp_arena(m), principal->tenant_id);
    input->remaining = COST_LIMITLESS; /* what the role may; each call is decided with its budget */
    input->skips_rule = true;
    policy_decide(m->call->gateway->policy, m->ctx, input, &decision);
    return decision.verdict != POLICY_DENY;
}

static bool may_use_tool(struct mcp_call *m, const struct tool *tool)
{
    struct policy_input *input = ARENA_NEW(mcp_arena(m), struct policy_input);
    input->action = S("tool.call");
    input->resource = tool->name;
    input->tool_name = tool->name;
    input->tool_version = tool->version;
    input->tool_category = tool->category;
    input->arguments = S("{}");
    return policy_may_allow(m, input);
}

static bool may_use_agent(struct mcp_call *m, str agent)
{
    struct arena *arena = mcp_arena(m);
    struct policy_input *input = ARENA_NEW(arena, struct policy_input);
    str name = str_printf(arena, "agent:" STR_FMT, STR_ARG(agent));
    input->action = S("run.start");
    input->resource = agent;
    return principal_check_model(&m->call->principal, name, NULL) && policy_may_allow(m, input);
}

static const struct tool *resolve(struct mcp_call *m, const struct registry_snapshot *tools,
                                  str name, str range)
{
    struct registry_question question = {.tenant_id = m->call->principal.tenant_id,
                                         .name = name,
                                         .range = range,
                                         .canary_key = m->call->principal.key_id};
    return registry_resolve(tools, &question);
}

/* ---- writing one ---- */

/* The protocol wants a schema whose root says that it is an object. */
static bool is_object_schema(struct arena *arena, str schema)
{
    const struct json *tree;
    arena_mark mark = arena_save(arena);
    bool is_one =
        json_parse(arena, schema, (struct json_limits){.allow_duplicates = true}, &tree, NULL) &&
        str_equal(json_str_or(tree, S("type"), STR_NONE), S("object"));
    arena_rewind(arena, mark);
    return is_one;
}

static str annotations_of(struct arena *arena, const struct tool *tool)
{
    bool is_open = tool->permissions.network.allowed_hosts.count > 0 ||
                   str_equal(tool->category, S("http")) || tool->source == TOOL_FROM_MCP;
    return str_printf(arena,
                      "{\"readOnlyHint\":%s,\"destructiveHint\":%s,\"idempotentHint\":%s,"
                      "\"openWorldHint\":%s}",
                      tool->is_pure ? "true" : "false", tool_has_effect(tool) ? "true" : "false",
                      tool->is_pure || tool->is_idempotent ? "true" : "false",
                      is_open ? "true" : "false");
}

static void write_tool(struct mcp_call *m, struct json_writer *w, const struct tool *tool)
{
    struct arena *arena = mcp_arena(m);
    struct mcp_tool_text text = {.name = tool->name,
                                 .title = tool->name,
                                 .description = tool->description,
                                 .input_schema = tool->input_schema,
                                 .output_schema = tool->output_schema,
                                 .annotations = annotations_of(arena, tool)};
    if (tool->is_deprecated)
        text.description = str_printf(arena, "Deprecated: " STR_FMT "\n" STR_FMT,
                                      STR_ARG(tool->deprecation), STR_ARG(tool->description));
    text.description = str_cut_utf8(text.description, DESCRIPTION_BYTES_MAX);
    if (!is_object_schema(arena, text.input_schema))
        text.input_schema = ANY_OBJECT; /* the call says what does not fit */
    if (!is_object_schema(arena, text.output_schema))
        text.output_schema = STR_NONE;
    mcp_tool_write(w, &text);
}

/* ---- the list ---- */

struct listing {
    struct mcp_call *m;
    struct json_writer *w;
    char after_kind; /* of the cursor: 'a' agent, 't' tool; 0: from the beginning */
    str after_name;
    size_t shown;
    bool is_past; /* the cursor's place has been passed */
    str last;     /* cursor of the last one shown */
    bool has_more;
};

static bool read_cursor(struct listing *l, struct error *e)
{
    str cursor = STR_NONE, rest;
    const struct json *given = json_get(l->m->in.message.params, S("cursor"));
    if (!given || json_type(given) == JSON_NULL) {
        l->is_past = true;
        return true;
    }
    if (!json_to_str(given, &cursor) || cursor.len > 2 * MCP_TOOL_NAME_BYTES_MAX ||
        !(str_strip_prefix(cursor, S("a."), &rest) || str_strip_prefix(cursor, S("t."), &rest)) ||
        !mcp_tool_name_is_valid(rest)) {
        error_set(e, REASON_INVALID, "the cursor is none that this list has given");
        return mcp_fail(l->m, MCP_INVALID_PARAMS, e);
    }
    l->after_kind = cursor.ptr[0];
    l->after_name = rest;
    return true;
}

/* Is there room on the page for this one? */
static bool is_shown(struct listing *l, char kind, str name)
{
    if (l->shown == MCP_SERVER_PAGE) {
        l->has_more = true;
        return false;
    }
    l->shown++;
    l->last = str_printf(mcp_arena(l->m), "%c." STR_FMT, kind, STR_ARG(name));
    return true;
}

static void list_agents(struct listing *l)
{
    const struct settings *settings = orchestrator_acquire(l->m->call->gateway->orchestrator);
    for (size_t i = 0; i < agent_set_count(settings->agents) && !l->has_more; i++) {
        const struct agent_definition *agent = agent_set_at(settings->agents, i);
        if (l->is_past && may_use_agent(l->m, agent->name) && is_shown(l, 'a', agent->name))
            mcp_agent_write(l->w, mcp_arena(l->m), agent->name, agent->description);
        if (l->after_kind == 'a' && str_equal(agent->name, l->after_name))
            l->is_past = true;
    }
    orchestrator_release(settings);
}

static bool is_agent_name(struct mcp_call *m, str tool)
{
    str agent;
    if (!str_strip_prefix(tool, MCP_AGENT_PREFIX, &agent))
        return false;
    const struct settings *settings = orchestrator_acquire(m->call->gateway->orchestrator);
    bool is_one = agent_set_find(settings->agents, agent) != NULL;
    orchestrator_release(settings);
    return is_one;
}

static void list_tools(struct listing *l)
{
    struct mcp_call *m = l->m;
    str last = STR_NONE;
    const struct registry_snapshot *tools =
        registry_acquire(orchestrator_parts(m->call->gateway->orchestrator)->registry);
    for (size_t i = 0; i < registry_count(tools) && !l->has_more; i++) {
        str name = registry_at(tools, i)->name;
        if (str_equal(name, last) || !mcp_tool_name_is_valid(name))
            continue;
        last = name;
        if (l->after_kind == 't' && str_compare(name, l->after_name) <= 0)
            continue;
        const struct tool *tool = resolve(m, tools, name, STR_NONE);
        if (tool && !is_agent_name(m, name) && may_use_tool(m, tool) && is_shown(l, 't', name))
            write_tool(m, l->w, tool);
        if (i % TOOLS_PER_TURN == TOOLS_PER_TURN - 1)
            coroutine_yield(); /* a long list is not the others' wait */
    }
    registry_release(tools);
}

bool mcp_tools_list(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    struct listing l = {.m = m};
    if (!read_cursor(&l, e))
        return false;
    l.w = mcp_result_begin(m, &writer);
    json_key(l.w, S("tools"));
    json_array_begin(l.w);
    if (m->call->principal.level >= ROLE_LEVEL_USER) {
        if (l.after_kind != 't')
            list_agents(&l);
        list_tools(&l);
    }
    json_array_end(l.w);
    if (l.has_more)
        json_put_str(l.w, S("nextCursor"), l.last);
    mcp_put_cache(m, l.w, MCP_SERVER_LIST_TTL_MS);
    return mcp_result_end(m, &writer, e);
}

/* ---- a call ---- */

/* It is one JSON value: the executor has seen to that. */
static bool is_object(str text)
{
    return str_starts_with(str_trim(text), S("{"));
}

static bool reply_output(struct mcp_call *m, const struct tool_result *result, str version,
                         struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_key(w, S("content"));
    json_array_begin(w);
    mcp_content_write_text(w, result->output);
    json_array_end(w);
    /* Only the stateless era knows structured content that is no object. */
    if (mcp_is_stateless(m) || is_object(result->output))
        json_put_raw(w, S("structuredContent"), result->output);
    json_put_bool(w, S("isError"), false);
    if (!mcp_is_stateless(m)) {
        json_key(w, S("_meta"));
        json_object_begin(w);
        json_put_str(w, META_VERSION, version);
        json_object_end(w);
    }
    return mcp_result_end(m, &writer, e);
}

bool mcp_reply_refused(struct mcp_call *m, const struct error *failure, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_key(w, S("content"));
    json_array_begin(w);
    mcp_content_write_text(
        w, str_printf(mcp_arena(m), "%s: %s", error_problem(failure->reason), failure->message));
    json_array_end(w);
    json_put_bool(w, S("isError"), true);
    return mcp_result_end(m, &writer, e);
}

/* The session's files and budget, and a version, when the caller names them. */
static bool read_meta(struct mcp_call *m, struct tool_invocation *invocation, struct error *e)
{
    str session = STR_NONE;
    if (!json_read_str(m->in.message.meta, META_SESSION, &session, e) ||
        !json_read_str(m->in.message.meta, META_VERSION, &invocation->version, e))
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    if (str_is_empty(session) || uuid_parse(session, &invocation->session_id))
        return true;
    error_set(e, REASON_SCHEMA, "_meta: nexus/session_id must be a session's id");
    return mcp_fail(m, MCP_INVALID_PARAMS, e);
}

static bool unknown_tool(struct mcp_call *m, str name, struct error *e)
{
    error_set(e, REASON_NOT_FOUND, "unknown tool \"" STR_FMT "\"; see tools/list",
              STR_ARG(str_cut_utf8(name, 128)));
    return mcp_fail(m, MCP_INVALID_PARAMS, e);
}

/* The tool is there, and its mirrored arguments are what the body says. */
static bool check_tool(struct mcp_call *m, const struct tool_invocation *invocation,
                       const struct json *arguments, struct error *e)
{
    const struct json *schema = NULL;
    struct arena *arena = mcp_arena(m);
    const struct registry_snapshot *tools =
        registry_acquire(orchestrator_parts(m->call->gateway->orchestrator)->registry);
    const struct tool *tool = resolve(m, tools, invocation->name, invocation->version);
    if (tool && mcp_is_stateless(m) &&
        str_find(tool->input_schema, S("x-mcp-header")) != STR_NOT_FOUND)
        (void) !json_parse(arena, str_copy(arena, tool->input_schema),
                           (struct json_limits){.allow_duplicates = true}, &schema, NULL);
    registry_release(tools);
    if (!tool)
        return unknown_tool(m, invocation->name, e);
    if (!schema ||
        mcp_header_check_arguments(arena, &m->call->request->headers, schema, arguments, e))
        return true;
    m->error_status = 400;
    return mcp_fail(m, MCP_HEADER_MISMATCH, e);
}

static bool call_tool(struct mcp_call *m, str name, const struct json *arguments, struct error *e)
{
    struct error failure = {0};
    struct arena *arena = mcp_arena(m);
    struct tool_result *result = ARENA_NEW(arena, struct tool_result);
    struct tool_invocation invocation = {.name = name};
    str version = STR_NONE;
    if (!read_meta(m, &invocation, e) || !check_tool(m, &invocation, arguments, e))
        return false;
    invocation.input = arguments ? json_print(arena, arguments) : S("{}");
    if (tool_invoke(m->call->gateway->orchestrator, m->ctx, &m->call->principal, &invocation,
                    result, &version, &failure))
        return reply_output(m, result, version, e);
    if (failure.code == ERROR_CANCELLED || failure.code == ERROR_UNAVAILABLE ||
        failure.reason == REASON_RATE_LIMIT)
        return error_copy(e, &failure);
    return mcp_reply_refused(m, &failure, e);
}

bool mcp_tools_call(struct mcp_call *m, struct error *e)
{
    str name = STR_NONE;
    const struct json *params = m->in.message.params, *arguments = json_get(params, S("arguments"));
    if (json_type(arguments) == JSON_NULL)
        arguments = NULL;
    if (!json_need_str(params, S("name"), &name, e))
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    if (arguments && json_type(arguments) != JSON_OBJECT) {
        error_set(e, REASON_SCHEMA, "arguments must be an object");
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    }
    if (is_agent_name(m, name))
        return mcp_agent_call(m, str_from(name, MCP_AGENT_PREFIX.len), arguments, e);
    return call_tool(m, name, arguments, e);
}
