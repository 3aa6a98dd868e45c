/*
 * Why a tool may do what it may: for each value the level that set it, and the policy's answer to whoever asks.
 *
 * The document has the same permissions that a call would get (registry_effective), never a second reckoning.
 */
#include "orchestrator/tools/tool_admin_internal.h"

#include "base/arena.h"
#include "base/limits.h"

struct explanation {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct tool_question *question;
    const struct registry_snapshot *tools;
    const struct agent_definition *agent; /* NULL: none was named */
    const struct permissions *narrowing;  /* the agent's */
    const struct tool *tool;
    struct json_writer *w;
};

/* How each level is mended. */
static const char *const mends[PERMISSION_LEVEL_COUNT] = {
    "the tool's author asks for no more (manifest.yaml)",
    "an operator may widen tools.NAME.permissions in the configuration",
    "an admin of the tenant may change PUT /api/v1/tools/NAME/permissions",
    "the agent's definition narrows it (agents[].tools)",
};

/* What is absent or an empty list lets nothing through. */
static bool lets_nothing(const struct permissions *permissions, size_t index)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 256u << 10);
    json_writer_init(&w, &text);
    permission_value_write(&w, permissions, index);
    return str_equal(strbuf_str(&text), S("[]")) || str_equal(strbuf_str(&text), S("false"));
}

static void write_value(struct explanation *x, const struct permission_levels *levels,
                        const struct permission_trace *trace, size_t index)
{
    struct json_writer *w = x->w;
    const struct permissions *effective = &x->tool->permissions;
    enum permission_level level = trace->decided_by[index];
    json_object_begin(w);
    json_put_str(w, S("name"), str_from_cstr(permission_value_name(index)));
    json_key(w, S("value"));
    permission_value_write(w, effective, index);
    json_put_str(w, S("decided_by"), str_from_cstr(permission_level_name(level)));
    json_key(w, S("levels"));
    json_object_begin(w);
    for (int i = 0; i < PERMISSION_LEVEL_COUNT; i++) {
        if (!levels->at[i] || !permission_value_is_set(levels->at[i], index))
            continue;
        json_key(w, str_from_cstr(permission_level_name((enum permission_level) i)));
        permission_value_write(w, levels->at[i], index);
    }
    json_object_end(w);
    if (lets_nothing(effective, index))
        json_put_str(w, S("to_allow"), str_from_cstr(mends[level]));
    json_object_end(w);
}

static void write_permissions(struct explanation *x, const struct tool *tool)
{
    struct arena *arena = x->ctx->arena;
    struct permission_trace trace;
    struct permission_levels levels =
        registry_levels(x->tools, tool, x->principal->tenant_id, x->narrowing);
    (void) permissions_effective(arena, &levels, &trace);
    json_key(x->w, S("permissions"));
    permissions_write_json(x->w, &x->tool->permissions);
    json_key(x->w, S("values"));
    json_array_begin(x->w);
    for (size_t i = 0; i < PERMISSION_VALUE_COUNT; i++) {
        bool is_said = permission_value_is_set(&x->tool->permissions, i);
        for (int level = 0; level < PERMISSION_LEVEL_COUNT && !is_said; level++)
            is_said = levels.at[level] && permission_value_is_set(levels.at[level], i);
        if (is_said)
            write_value(x, &levels, &trace, i);
    }
    json_array_end(x->w);
}

static void write_policy(struct explanation *x)
{
    const struct principal *principal = x->principal;
    struct arena *arena = x->ctx->arena;
    struct policy_input input = {
        .action = S("tool.call"),
        .resource = x->tool->name,
        .user_id = str_is_empty(x->question->user_id) ? principal->user_id : x->question->user_id,
        .role = principal->role,
        .tenant = uuid_str(arena, principal->tenant_id),
        .tool_name = x->tool->name,
        .tool_version = x->tool->version,
        .tool_category = x->tool->category,
        .remaining = COST_LIMITLESS,
    };
    struct policy_decision decision;
    policy_decide(x->o->parts.policy, x->ctx, &input, &decision);
    json_key(x->w, S("policy"));
    json_object_begin(x->w);
    json_put_str(x->w, S("user_id"), input.user_id);
    json_put_str(x->w, S("role"), input.role);
    json_put_str(x->w, S("verdict"), str_from_cstr(policy_verdict_name(decision.verdict)));
    json_put_str(x->w, S("rule"), decision.rule);
    json_put_str(x->w, S("reason"), decision.reason);
    json_put_str(x->w, S("version"), decision.version);
    if (decision.verdict == POLICY_DENY)
        json_put_str(x->w, S("to_allow"),
                     S("a rule of the policy must allow tool.call of this tool's category for this "
                       "role; try it with POST /api/v1/policies/decide"));
    if (decision.verdict == POLICY_NEEDS_APPROVAL)
        json_put_str(x->w, S("to_allow"),
                     S("another person approves the call: an agent's run asks for it and waits"));
    json_object_end(x->w);
}

static void write_all(struct explanation *x, const struct tool *tool)
{
    struct json_writer *w = x->w;
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    json_put_str(w, S("version"), tool->version);
    json_put_str(w, S("category"), tool->category);
    json_put_str(w, S("source"),
                 tool->source == TOOL_INSTALLED  ? S("installed")
                 : tool->source == TOOL_FROM_MCP ? S("mcp")
                                                 : S("shipped"));
    json_put_str(w, S("owner"), uuid_is_none(tool->tenant_id) ? S("platform") : S("tenant"));
    if (!str_is_empty(tool->signer))
        json_put_str(w, S("signer"), tool->signer);
    if (tool->is_deprecated)
        json_put_str(w, S("deprecated"), tool->deprecation);
    if (x->agent)
        json_put_str(w, S("agent"), x->agent->name);
    json_key(w, S("host_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < tool->host_call_count; i++)
        json_write_str(w, tool->host_calls[i]);
    json_array_end(w);
    write_permissions(x, tool);
    write_policy(x);
    json_object_end(w);
}

static bool explain(struct explanation *x, const struct settings *settings, struct error *e)
{
    const struct tool_question *asked = x->question;
    struct registry_question question = {
        .tenant_id = x->principal->tenant_id, .name = asked->name, .range = asked->version};
    if (!str_is_empty(asked->agent)) {
        x->agent = agent_set_find(settings->agents, asked->agent);
        if (!x->agent)
            return error_set(e, REASON_NOT_FOUND, "there is no agent \"" STR_FMT "\"",
                             STR_ARG(str_cut_utf8(asked->agent, 64)));
        str range;
        const struct agent_tool *entry = agent_find_tool(x->agent, asked->name, &range);
        if (!entry)
            return error_set(e, REASON_NOT_FOUND,
                             "agent \"" STR_FMT "\" has no tool \"" STR_FMT
                             "\"; name it under its tools",
                             STR_ARG(x->agent->name), STR_ARG(str_cut_utf8(asked->name, 64)));
        x->narrowing = entry->permissions;
        if (str_is_empty(question.range))
            question.range = range;
    }
    const struct tool *tool = registry_resolve(x->tools, &question);
    if (!tool)
        return error_set(e, REASON_NOT_FOUND,
                         "there is no tool \"" STR_FMT "\" for you; see GET /api/v1/tools",
                         STR_ARG(str_cut_utf8(asked->name, 64)));
    x->tool =
        registry_effective(x->tools, x->ctx->arena, tool, x->principal->tenant_id, x->narrowing);
    write_all(x, tool);
    return true;
}

bool tool_explain(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  const struct tool_question *question, str *out, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    bool is_other =
        !str_is_empty(question->user_id) && !str_equal(question->user_id, principal->user_id);
    if (is_other && principal->level < ROLE_LEVEL_OPERATOR)
        return error_set(e, REASON_DENIED, "only an operator may ask for somebody else");
    strbuf_init(&text, ctx->arena, 4u << 20);
    json_writer_init(&w, &text);
    struct explanation x = {
        .o = o, .ctx = ctx, .principal = principal, .question = question, .w = &w};
    const struct settings *settings = orchestrator_acquire(o);
    x.tools = registry_acquire(o->parts.registry);
    bool is_ok = explain(&x, settings, e);
    registry_release(x.tools);
    orchestrator_release(settings);
    *out = strbuf_str(&text);
    return is_ok;
}
