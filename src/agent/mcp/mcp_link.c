/* One conversation with one server: which revision is spoken, and requests in it. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/digest.h"

enum { NS_PER_MS = 1000000, QUOTED_BYTES_MAX = 240 };

/* ---- writing ---- */

/* W3C trace context, so that the server's spans join ours. */
static void put_trace(struct json_writer *w, const struct context *ctx)
{
    static const uint8_t none[16];
    struct arena *arena = ctx->arena;
    const trace_context *trace = &ctx->trace;
    if (memcmp(trace->trace_id, none, sizeof trace->trace_id) == 0)
        return;
    json_put_str(w, S("traceparent"),
                 str_printf(arena, "00-" STR_FMT "-" STR_FMT "-0%d",
                            STR_ARG(str_hex(arena, trace->trace_id, sizeof trace->trace_id)),
                            STR_ARG(str_hex(arena, trace->span_id, sizeof trace->span_id)),
                            trace->is_sampled));
}

static void write_meta(struct json_writer *w, const struct mcp_link *session,
                       const struct context *ctx, const struct mcp_question *question, int64_t id)
{
    const struct mcp_revision *revision = session->transport->revision;
    bool is_stateless = revision && revision->era == MCP_ERA_STATELESS;
    if (!is_stateless && !question->wants_progress && str_is_empty(question->effect_key))
        return;
    json_key(w, S("_meta"));
    json_object_begin(w);
    if (is_stateless) {
        json_put_str(w, MCP_META_VERSION, revision->name);
        json_key(w, MCP_META_CLIENT_INFO);
        mcp_write_implementation(w, S("nexus"), session->server->client->options.version);
        json_put_raw(w, MCP_META_CLIENT_CAPABILITIES, S("{}"));
    }
    if (question->wants_progress)
        json_put_i64(w, MCP_META_PROGRESS_TOKEN, id);
    if (!str_is_empty(question->effect_key))
        json_put_str(w, S("invalid.nexus/idempotency-key"), question->effect_key);
    put_trace(w, ctx);
    json_object_end(w);
}

static bool write_message(struct mcp_link *session, struct context *ctx,
                          const struct mcp_question *question, int64_t id, struct mcp_outgoing *out,
                          struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, MCP_MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    mcp_begin_request(&w, NULL, id, question->method);
    json_object_begin(&w);
    for (size_t i = 0; i < question->member_count; i++)
        json_put_raw(&w, question->members[i].key, question->members[i].json);
    write_meta(&w, session, ctx, question, id);
    json_object_end(&w);
    mcp_end(&w);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "a message to the server is over %u MiB",
                         MCP_MESSAGE_BYTES_MAX >> 20);
    *out = (struct mcp_outgoing){.body = strbuf_str(&text),
                                 .method = question->method,
                                 .name = question->name,
                                 .id = id,
                                 .more = question->more};
    return true;
}

str mcp_cancel_message(struct arena *arena, int64_t id, str reason)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    mcp_begin_request(&w, NULL, 0, S("notifications/cancelled"));
    json_object_begin(&w);
    json_put_i64(&w, S("requestId"), id);
    json_put_str(&w, S("reason"), reason);
    json_object_end(&w);
    mcp_end(&w);
    return strbuf_str(&text);
}

/* ---- asking ---- */

may_suspend static bool exchange(struct mcp_link *session, struct context *ctx,
                                 const struct mcp_question *question, bool is_cancellable,
                                 struct mcp_message *answer, str *session_id, struct error *e)
{
    struct mcp_outgoing message;
    struct mcp_transport *transport = session->transport;
    if (!write_message(session, ctx, question, session->next_id++, &message, e))
        return false;
    message.is_cancellable = is_cancellable;
    bool is_answered = transport->ops->request(transport, ctx, &message, answer, e);
    if (question->was_sent)
        *question->was_sent = message.was_sent;
    if (question->was_refused)
        *question->was_refused = message.was_refused;
    if (!is_answered)
        return false;
    if (session_id)
        *session_id = message.session_id;
    return true;
}

may_suspend bool mcp_link_ask(struct mcp_link *session, struct context *ctx,
                              const struct mcp_question *question, struct mcp_message *answer,
                              struct error *e)
{
    struct session_call call;
    if (session->call_count >= MCP_OUTSTANDING_MAX)
        return error_set(e, REASON_OVERLOADED_HERE, "%u requests wait for this server already",
                         MCP_OUTSTANDING_MAX);
    context_init_child(&call.ctx, ctx, DEADLINE_NONE);
    call.link = (struct list){0};
    list_push_back(&session->calls, &call.link);
    session->call_count++;
    bool is_ok = exchange(session, &call.ctx, question, true, answer, NULL, e);
    /* Ended with the session, not by whoever waits: that is no cancellation of theirs. */
    if (!is_ok && e->code == ERROR_CANCELLED && !context_is_cancelled(ctx))
        error_set(e, REASON_UNAVAILABLE, "the connection to the server ended");
    list_remove(&call.link);
    context_deinit(&call.ctx);
    if (--session->call_count == 0)
        condition_broadcast(&session->server->changed);
    return is_ok;
}

static bool set_refusal(const struct mcp_question *question, const struct mcp_message *answer,
                        struct error *e)
{
    return error_set(e, REASON_UNAVAILABLE, STR_FMT " was refused: " STR_FMT " (%lld)",
                     STR_ARG(question->method),
                     STR_ARG(str_cut_utf8(answer->error_message, QUOTED_BYTES_MAX)),
                     (long long) answer->error_code);
}

may_suspend bool mcp_link_need(struct mcp_link *session, struct context *ctx,
                               const struct mcp_question *question, const struct json **result,
                               struct error *e)
{
    struct mcp_message answer;
    struct context limited;
    context_init_child(&limited, ctx, context_deadline_in(ctx, MCP_CONTROL_MS));
    bool is_ok = mcp_link_ask(session, &limited, question, &answer, e);
    context_deinit(&limited);
    if (!is_ok)
        return error_wrap(e, STR_FMT, STR_ARG(question->method));
    if (answer.kind == MCP_ERROR)
        return set_refusal(question, &answer, e);
    *result = answer.result;
    return true;
}

/* ---- negotiation ---- */

static void read_peer(struct mcp_link *session, const struct json *result)
{
    const struct json *info = json_get(result, S("serverInfo"));
    if (!info)
        info = json_get(json_get(result, S("_meta")), MCP_META_SERVER_INFO);
    const struct json *tools = json_get(json_get(result, S("capabilities")), S("tools"));
    session->has_tools = json_type(tools) == JSON_OBJECT;
    session->has_list_changed = json_bool_or(tools, S("listChanged"), false);
    session->peer_name =
        str_copy(session->arena, str_cut_utf8(json_str_or(info, S("name"), STR_NONE), 200));
    session->peer_version =
        str_copy(session->arena, str_cut_utf8(json_str_or(info, S("version"), STR_NONE), 100));
}

/* The newest of ours that is in a list of theirs. */
static const struct mcp_revision *best_of(const struct json *theirs)
{
    for (size_t i = 0; i < mcp_revision_count; i++) {
        str name;
        const struct json *item;
        struct json_iter it = json_iter(theirs);
        while (json_next(&it, NULL, &item))
            if (json_to_str(item, &name) && str_equal(name, mcp_revisions[i].name))
                return &mcp_revisions[i];
    }
    return NULL;
}

static bool set_no_common(const struct json *theirs, struct arena *arena, struct error *e)
{
    str list = theirs ? str_cut_utf8(json_print(arena, theirs), QUOTED_BYTES_MAX) : S("none named");
    return error_set(e, REASON_UNAVAILABLE,
                     "the server speaks no revision of the protocol that Nexus does (" STR_FMT ")",
                     STR_ARG(list));
}

/* *revision stays NULL when the server is one of the session era (or when nobody can tell). */
may_suspend static bool probe(struct mcp_link *session, struct context *ctx,
                              const struct mcp_revision **revision, struct error *e)
{
    struct mcp_message answer;
    struct context limited;
    struct mcp_transport *transport = session->transport;
    static const struct mcp_question question = {.method = S_INIT("server/discover")};
    transport->revision = &mcp_revisions[0];
    context_init_child(&limited, ctx, context_deadline_in(ctx, MCP_PROBE_MS));
    bool is_ok = exchange(session, &limited, &question, false, &answer, NULL, e);
    context_deinit(&limited);
    transport->revision = NULL;
    if (!is_ok)
        return e->code == ERROR_TIMEOUT && context_check(ctx, e);
    const struct json *theirs = answer.kind == MCP_RESULT
                                    ? json_get(answer.result, S("supportedVersions"))
                                    : json_get(answer.error_data, S("supported"));
    const struct mcp_revision *best = best_of(theirs);
    if (answer.kind == MCP_ERROR && !mcp_error_is_stateless(answer.error_code))
        return true;
    if (!best)
        return set_no_common(theirs, ctx->arena, e);
    if (answer.kind == MCP_RESULT && best->era == MCP_ERA_STATELESS)
        read_peer(session, answer.result);
    *revision = best->era == MCP_ERA_STATELESS ? best : NULL;
    return true;
}

may_suspend static bool initialize(struct mcp_link *session, struct context *ctx, struct error *e)
{
    struct mcp_message answer;
    struct mcp_outgoing note;
    str session_id = STR_NONE;
    struct mcp_transport *transport = session->transport;
    const struct mcp_revision *wanted = &mcp_revisions[0];
    while (wanted->era != MCP_ERA_SESSION)
        wanted++;
    const struct mcp_member members[] = {
        {S("protocolVersion"), str_printf(ctx->arena, "\"" STR_FMT "\"", STR_ARG(wanted->name))},
        {S("capabilities"), S("{}")},
        {S("clientInfo"), str_printf(ctx->arena, "{\"name\":\"nexus\",\"version\":\"" STR_FMT "\"}",
                                     STR_ARG(session->server->client->options.version))}};
    struct mcp_question question = {
        .method = S("initialize"), .members = members, .member_count = ARRAY_COUNT(members)};
    if (!exchange(session, ctx, &question, false, &answer, &session_id, e))
        return error_wrap(e, "initialize");
    if (answer.kind == MCP_ERROR)
        return set_refusal(&question, &answer, e);
    const struct json *theirs = json_get(answer.result, S("protocolVersion"));
    const struct mcp_revision *revision =
        mcp_revision_find(json_str_or(answer.result, S("protocolVersion"), STR_NONE));
    if (!revision || revision->era != MCP_ERA_SESSION)
        return set_no_common(theirs, ctx->arena, e);
    read_peer(session, answer.result);
    transport->revision = revision;
    transport->session_id = session_id;
    struct mcp_question initialized = {.method = S("notifications/initialized")};
    return write_message(session, ctx, &initialized, 0, &note, e) &&
           transport->ops->notify(transport, ctx, &note, e);
}

may_suspend bool mcp_link_open(struct mcp_link *session, struct context *ctx, struct error *e)
{
    const struct mcp_revision *revision = NULL;
    if (!session->server->must_not_probe) {
        bool is_probed = probe(session, ctx, &revision, e);
        /* Some servers of the session era end at a request before initialize: they are not asked again. */
        session->server->must_not_probe =
            !is_probed && session->server->config.command.count > 0 && e->code == ERROR_UNAVAILABLE;
        if (!is_probed)
            return error_wrap(e, "server/discover");
    }
    if (!revision)
        return initialize(session, ctx, e);
    session->transport->revision = revision;
    return true;
}
