/* The executor of tools that other servers run. */
#include "agent/mcp/mcp_internal.h"

#include "agent/tool/schema.h"
#include "base/arena.h"

enum { NS_PER_MS = 1000000, NS_PER_US = 1000 };

/* What call_there gives; empty: none. */
enum { OUTPUT, OUTPUT_STRUCTURED, OUTPUT_SCHEMA };

struct call {
    const struct tool_request *request;
    str input;              /* compact JSON, an object */
    bool may_have_happened; /* sent, and not answered */
};

/* ---- on the client's loop ---- */

/* The definition that was approved must be the one that the caller decided about. */
static bool find_entry(struct mcp_upstream *server, const struct tool *tool, struct mcp_entry **out,
                       struct error *e)
{
    struct mcp_entry *entry = mcp_entries_find(server->entries, tool->name);
    if (!entry)
        return error_set(e, REASON_UNAVAILABLE,
                         "MCP server " STR_FMT " has no tool " STR_FMT " any more",
                         STR_ARG(server->config.name), STR_ARG(tool->name));
    digest approved;
    enum mcp_tool_state state = mcp_entry_state(server->entries, entry);
    if (state == MCP_TOOL_GONE)
        return error_set(e, REASON_UNAVAILABLE,
                         "MCP server " STR_FMT " does not list tool " STR_FMT " any more",
                         STR_ARG(server->config.name), STR_ARG(entry->tool));
    if (state != MCP_TOOL_OFFERED || !digest_parse_hex(entry->approved_digest, &approved) ||
        !digest_equal(approved, tool->module_digest))
        return error_set(e, REASON_PERMISSION,
                         "the definition of tool " STR_FMT " has changed and waits for approval "
                         "(nexus mcp diff " STR_FMT " " STR_FMT ")",
                         STR_ARG(tool->name), STR_ARG(server->config.name), STR_ARG(entry->tool));
    *out = entry;
    return true;
}

static bool add_params(struct context *ctx, const struct mcp_link *session,
                       const struct mcp_tool *definition, str input, struct mcp_question *question,
                       struct error *e)
{
    struct mcp_param *params;
    size_t count;
    const struct json *arguments;
    struct json_limits limits = {.depth_max = MCP_DEPTH_MAX};
    if (session->transport->revision->era != MCP_ERA_STATELESS ||
        session->server->config.command.count > 0)
        return true;
    if (!mcp_params_read(ctx->arena, definition->input_schema, &params, &count, e) ||
        !json_parse(ctx->arena, input, limits, &arguments, e))
        return false;
    for (size_t i = 0; i < count; i++) {
        str value;
        if (mcp_param_value(ctx->arena, &params[i], arguments, &value))
            http_headers_add(
                &question->more, ctx->arena,
                str_printf(ctx->arena, "Mcp-Param-" STR_FMT, STR_ARG(params[i].header)), value);
    }
    return true;
}

static bool set_protocol_error(struct mcp_upstream *server, str tool,
                               const struct mcp_message *answer, struct error *e)
{
    if (answer->error_code == MCP_INVALID_PARAMS || answer->error_code == MCP_HEADER_MISMATCH) {
        server->is_list_stale = true; /* it may not know the tool any more, or know it otherwise */
        mcp_upstream_wake(server);
    }
    return error_set(
        e, REASON_TOOL_FAILED, "tool " STR_FMT ": the server refuses the call: " STR_FMT " (%lld)",
        STR_ARG(tool), STR_ARG(str_cut_utf8(answer->error_message, ERROR_MESSAGE_BYTES - 160)),
        (long long) answer->error_code);
}

static str quoted(struct arena *arena, str text)
{
    struct strbuf b;
    struct json_writer w;
    strbuf_init(&b, arena, 8 * MCP_TOOL_NAME_BYTES_MAX);
    json_writer_init(&w, &b);
    json_write_str(&w, text);
    return strbuf_str(&b);
}

/* The definition as it was approved, and the question; they are the caller's own, for entries may be replaced while the answer is awaited. */
struct asked {
    struct call *call;
    struct mcp_upstream *server;
    struct mcp_tool definition;
    struct mcp_question question;
    bool was_refused;
};

static bool prepare(struct asked *asked, struct context *ctx, str *outputs, struct error *e)
{
    struct call *call = asked->call;
    struct mcp_entry *entry;
    const struct json *root;
    struct json_limits limits = {.depth_max = MCP_DEPTH_MAX};
    if (!find_entry(asked->server, call->request->tool, &entry, e) ||
        !json_parse(ctx->arena, entry->approved, limits, &root, e) ||
        !mcp_tool_read(root, &asked->definition, e))
        return false;
    struct mcp_member *members = ARENA_ARRAY(ctx->arena, struct mcp_member, 2);
    members[0] = (struct mcp_member){S("name"), quoted(ctx->arena, asked->definition.name)};
    members[1] = (struct mcp_member){S("arguments"), call->input};
    asked->question = (struct mcp_question){.method = S("tools/call"),
                                            .name = asked->definition.name,
                                            .members = members,
                                            .member_count = 2,
                                            .effect_key = call->request->effect_key,
                                            .wants_progress = true,
                                            .was_sent = &call->may_have_happened,
                                            .was_refused = &asked->was_refused};
    if (asked->definition.output_schema)
        outputs[OUTPUT_SCHEMA] = json_print(ctx->arena, asked->definition.output_schema);
    return true;
}

may_suspend static bool ask(struct asked *asked, struct context *ctx, struct mcp_link *session,
                            struct mcp_message *answer, struct error *e)
{
    asked->question.more = (struct http_headers){0};
    if (!add_params(ctx, session, &asked->definition, asked->call->input, &asked->question, e))
        return false;
    if (mcp_link_ask(session, ctx, &asked->question, answer, e))
        return true;
    return e->code == ERROR_CANCELLED || e->code == ERROR_TIMEOUT
               ? false
               : error_wrap(e, "MCP server " STR_FMT, STR_ARG(asked->server->config.name));
}

/* ---- as one user ---- */

/* Whoever is logged in lets the keeper read the definitions; a call waits for that. */
may_suspend static bool await_definitions(struct mcp_upstream *server, struct context *ctx,
                                          struct error *e)
{
    struct mcp_link *session;
    int64_t deadline_ns = context_deadline_in(ctx, MCP_CONTROL_MS);
    while (!server->entries || !server->entries->is_listed)
        if (!condition_wait_until(&server->changed, ctx, deadline_ns, e))
            return e->code == ERROR_TIMEOUT && context_check(ctx, e) &&
                           !mcp_upstream_session(server, &session, e)
                       ? false
                       : error_wrap(e, "MCP server " STR_FMT, STR_ARG(server->config.name));
    return true;
}

/* *may_repeat: a token that was refused can be renewed, a session that was forgotten opened anew; the server has done nothing. */
may_suspend static bool ask_once(struct asked *asked, struct context *ctx,
                                 struct mcp_person *person, struct mcp_message *answer,
                                 bool *may_repeat, struct error *e)
{
    struct mcp_personal *personal;
    asked->was_refused = false;
    if (!mcp_person_session(person, ctx, &personal, &asked->was_refused, e)) {
        *may_repeat = asked->was_refused;
        return false;
    }
    bool is_ok = ask(asked, ctx, &personal->link, answer, e);
    *may_repeat = asked->was_refused ||
                  (personal->link.transport->is_session_lost && !asked->call->may_have_happened);
    mcp_person_leave(person, personal);
    return is_ok;
}

may_suspend static bool ask_as_person(struct asked *asked, struct context *ctx,
                                      struct mcp_person *person, str *outputs,
                                      struct mcp_message *answer, struct error *e)
{
    bool may_repeat = true;
    int64_t refused_version = 0;
    struct error why = {0};
    if (!await_definitions(asked->server, ctx, e) || !prepare(asked, ctx, outputs, e))
        return false;
    for (int tries = 0; tries < 2 && may_repeat; tries++) {
        if (!mcp_person_fresh(person, ctx, refused_version, e))
            return false;
        int64_t version = person->version;
        if (ask_once(asked, ctx, person, answer, &may_repeat, &why))
            return true;
        refused_version = asked->was_refused ? version : 0;
    }
    return asked->was_refused
               ? mcp_login_needed(asked->server, &person->caller, "is not let in by", e)
               : error_copy(e, &why);
}

may_suspend static bool ask_as_user(struct asked *asked, struct context *ctx, str *outputs,
                                    struct mcp_message *answer, struct error *e)
{
    struct mcp_work work;
    struct mcp_person *person;
    const struct tool_request *request = asked->call->request;
    const struct mcp_caller caller = {request->tenant_id, request->user_id};
    if (!mcp_work_begin(&work, ctx, asked->server, e))
        return false;
    bool is_ok = mcp_person_hold(asked->server, &work.ctx, &caller, &person, e);
    if (is_ok) {
        is_ok = ask_as_person(asked, &work.ctx, person, outputs, answer, e);
        mcp_person_let_go(person);
    }
    /* Ended with the server, not by whoever waits: that is no cancellation of theirs. */
    if (!is_ok && e->code == ERROR_CANCELLED && !context_is_cancelled(ctx))
        error_set(e, REASON_UNAVAILABLE, "the connection to the server ended");
    mcp_work_end(&work);
    return is_ok;
}

may_suspend static bool call_there(struct mcp_client *client, struct context *ctx, void *argument,
                                   str *outputs, struct error *e)
{
    struct asked *asked = ARENA_NEW(ctx->arena, struct asked);
    struct mcp_link *session;
    struct mcp_message answer;
    asked->call = argument;
    const struct tool *tool = asked->call->request->tool;
    if (!mcp_client_need(client, tool->source_name, &asked->server, e))
        return false;
    struct mcp_upstream *server = asked->server;
    if (server->config.oauth.is_per_user) {
        if (!ask_as_user(asked, ctx, outputs, &answer, e))
            return false;
    } else if (!mcp_upstream_session(server, &session, e) || !prepare(asked, ctx, outputs, e) ||
               !ask(asked, ctx, session, &answer, e)) {
        return false;
    }
    if (answer.kind == MCP_ERROR)
        return set_protocol_error(server, tool->name, &answer, e);
    return mcp_result_map(ctx->arena, tool->name, answer.result, &outputs[OUTPUT],
                          &outputs[OUTPUT_STRUCTURED], e);
}

/* ---- on the caller's loop ---- */

/* Compact, so that it is one line; an object. */
static bool read_input(struct context *ctx, const struct tool_request *request, str *out,
                       struct error *e)
{
    const struct json *root;
    struct json_limits limits = {.bytes_max = TOOL_INPUT_BYTES_MAX, .depth_max = MCP_DEPTH_MAX - 4};
    if (request->input.len > TOOL_INPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the input of tool " STR_FMT " is over %u MiB",
                         STR_ARG(request->tool->name), TOOL_INPUT_BYTES_MAX >> 20);
    if (!json_parse(ctx->arena, request->input, limits, &root, e))
        return error_wrap(e, "the input of tool " STR_FMT, STR_ARG(request->tool->name));
    if (json_type(root) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the input of tool " STR_FMT " must be an object",
                         STR_ARG(request->tool->name));
    *out = json_print(ctx->arena, root);
    return true;
}

/* A model that reads of a failure would try again: what may have happened is told as that. */
static bool say_unknown(const struct call *call, struct error *e)
{
    if (!call->may_have_happened || !tool_has_effect(call->request->tool))
        return false;
    if (e->reason == REASON_UNAVAILABLE)
        e->reason = REASON_OUTCOME_UNKNOWN;
    return error_wrap(e, "whether the call took effect is not known");
}

may_suspend static bool run(struct mcp_client *client, struct context *ctx, struct call *call,
                            struct tool_result *out, struct error *e)
{
    const struct tool *tool = call->request->tool;
    const char *what = str_to_cstr(
        ctx->arena, str_printf(ctx->arena, "the input of tool " STR_FMT, STR_ARG(tool->name)));
    if (!read_input(ctx, call->request, &call->input, e) ||
        !schema_check(ctx, tool->input_schema, call->input, what, REASON_SCHEMA, e))
        return false;
    struct context limited;
    context_init_child(&limited, ctx, context_deadline_in(ctx, tool->limits.time_ms));
    bool is_callers = limited.deadline_ns == ctx->deadline_ns;
    str outputs[MCP_HOP_OUTPUTS] = {{0}};
    bool is_ok = mcp_hop(client, &limited, call_there, call, outputs, MCP_HOP_OUTPUTS, e);
    context_deinit(&limited);
    if (!is_ok && e->code == ERROR_TIMEOUT && !is_callers)
        error_set(e, REASON_TIME_LIMIT, "tool " STR_FMT " gave no answer in %lld ms",
                  STR_ARG(tool->name), (long long) tool->limits.time_ms);
    if (!is_ok)
        return say_unknown(call, e);
    if (!str_is_empty(outputs[OUTPUT_SCHEMA])) {
        if (str_is_empty(outputs[OUTPUT_STRUCTURED]))
            return error_set(e, REASON_TOOL_FAILED,
                             "tool " STR_FMT
                             ": the server promises structured output and gave none",
                             STR_ARG(tool->name));
        what = str_to_cstr(
            ctx->arena, str_printf(ctx->arena, "the output of tool " STR_FMT, STR_ARG(tool->name)));
        if (!schema_check(ctx, outputs[OUTPUT_SCHEMA], outputs[OUTPUT_STRUCTURED], what,
                          REASON_TOOL_FAILED, e))
            return false;
    }
    out->output = outputs[OUTPUT];
    return true;
}

may_suspend bool mcp_call_execute(struct executor *executor, struct context *ctx,
                                  const struct tool_request *request, struct tool_result *out,
                                  struct error *e)
{
    struct mcp_client *client = CONTAINER_OF(executor, struct mcp_client, executor);
    struct call call = {.request = request};
    int64_t start_ns = context_now_ns(ctx);
    bool is_ok = context_check(ctx, e) && run(client, ctx, &call, out, e);
    out->latency_us = (context_now_ns(ctx) - start_ns) / NS_PER_US;
    out->latency_ms = out->latency_us / 1000;
    return is_ok;
}
