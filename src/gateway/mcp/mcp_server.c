#include "gateway/mcp/mcp_server.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"
#include <stdlib.h>

#define SERVER_NAME S("nexus")
#define SESSION_HEADER S("Mcp-Session-Id")
#define METADATA_PATH "/.well-known/oauth-protected-resource"

static const char instructions[] =
    "Tools, agents and files of a Nexus server. A tool named agent_NAME gives its message to an "
    "agent, which works on its own and "
    "answers; pass session_id of an earlier answer to go on with that conversation. Every call is "
    "checked by policy and counts "
    "against a budget; what is refused says why.";

/* ---- life ---- */

struct mcp_server *mcp_server_create(struct gateway *gateway,
                                     const struct mcp_server_options *options)
{
    struct mcp_server *server = calloc(1, sizeof *server);
    ensure(server != NULL);
    server->gateway = gateway;
    server->options = *options;
    server->options.version =
        str_is_empty(options->version) ? S("unknown") : str_copy(gateway->arena, options->version);
    str url = options->public_url;
    while (str_ends_with(url, S("/")))
        url = str_slice(url, 0, url.len - 1);
    server->options.public_url = str_copy(gateway->arena, url);
    server->options.authorization_servers =
        ARENA_ARRAY(gateway->arena, str, options->authorization_server_count);
    for (size_t i = 0; i < options->authorization_server_count; i++)
        server->options.authorization_servers[i] =
            str_copy(gateway->arena, options->authorization_servers[i]);
    server->sessions = mcp_sessions_create(options->sessions_per_key, options->session_idle_ms);
    server->calls = mcp_calls_create();
    server->lists = mcp_lists_create(gateway);
    return server;
}

void mcp_server_destroy(struct mcp_server *server)
{
    if (!server)
        return;
    mcp_lists_destroy(server->lists);
    mcp_calls_destroy(server->calls);
    mcp_sessions_destroy(server->sessions);
    free(server);
}

struct mcp_server *mcp_server_of(struct api_call *call)
{
    return call->gateway->mcp;
}

str mcp_base_url(struct api_call *call)
{
    str url = mcp_server_of(call)->options.public_url;
    if (!str_is_empty(url))
        return url;
    return str_printf(call->ctx->arena, "%s://" STR_FMT,
                      mcp_server_of(call)->options.is_tls ? "https" : "http",
                      STR_ARG(call->request->host));
}

str mcp_challenge(struct api_call *call)
{
    return str_printf(call->ctx->arena,
                      "Bearer realm=\"nexus\", resource_metadata=\"" STR_FMT METADATA_PATH "/mcp\"",
                      STR_ARG(mcp_base_url(call)));
}

/* ---- results ---- */

struct json_writer *mcp_result_begin_as(struct mcp_call *m, struct reply_writer *writer,
                                        str result_type)
{
    struct json_writer *w = reply_writer_init(writer, m->call);
    mcp_begin_result(w, m->in.message.id);
    json_object_begin(w);
    if (!mcp_is_stateless(m))
        return w;
    json_put_str(w, S("resultType"), result_type);
    json_key(w, S("_meta"));
    json_object_begin(w);
    json_key(w, MCP_META_SERVER_INFO);
    mcp_write_implementation(w, SERVER_NAME, m->server->options.version);
    json_object_end(w);
    return w;
}

struct json_writer *mcp_result_begin(struct mcp_call *m, struct reply_writer *writer)
{
    return mcp_result_begin_as(m, writer, S("complete"));
}

bool mcp_result_text(struct reply_writer *writer, str *text, struct error *e)
{
    json_object_end(&writer->w);
    mcp_end(&writer->w);
    if (strbuf_is_over(&writer->text))
        return error_set(e, REASON_TOO_LARGE, "the answer is over %u bytes",
                         GATEWAY_REPLY_BYTES_MAX);
    *text = strbuf_str(&writer->text);
    return true;
}

bool mcp_result_end(struct mcp_call *m, struct reply_writer *writer, struct error *e)
{
    str text;
    if (!mcp_result_text(writer, &text, e))
        return false;
    if (m->wants_json && !http_reply_has_begun(m->call->request)) {
        reply_json(m->call, 200, text);
        return true;
    }
    if (!mcp_stream_begin(m, e) || !mcp_stream_send(m, STR_NONE, text, e))
        return false;
    http_reply_end(m->call->request);
    return true;
}

void mcp_put_cache(struct mcp_call *m, struct json_writer *w, int64_t ttl_ms)
{
    if (!mcp_is_stateless(m))
        return;
    json_put_i64(w, S("ttlMs"), ttl_ms);
    json_put_str(w, S("cacheScope"), S("private")); /* what a caller sees depends on its key */
}

bool mcp_fail(struct mcp_call *m, int64_t code, struct error *e)
{
    (void) e;
    m->error_code = code;
    return false;
}

/* ---- errors ---- */

static int64_t code_of(const struct error *e)
{
    switch (e->code) {
    case ERROR_INVALID: return e->reason == REASON_JSON ? MCP_PARSE_ERROR : MCP_INVALID_PARAMS;
    case ERROR_NOT_FOUND: return MCP_INVALID_PARAMS;
    case ERROR_DENIED:
    case ERROR_CONFLICT:
    case ERROR_LIMIT: return MCP_INVALID_REQUEST;
    case ERROR_OK:
    case ERROR_TIMEOUT:
    case ERROR_CANCELLED:
    case ERROR_UNAVAILABLE:
    case ERROR_INTERNAL: break;
    }
    return MCP_INTERNAL_ERROR;
}

static str error_text(struct arena *arena, const struct json *id, int64_t code,
                      const struct error *e, str data)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 64u << 10);
    json_writer_init(&w, &text);
    if (str_is_empty(data))
        data = str_printf(arena, "{\"problem\":\"%s\"}", error_problem(e->reason));
    mcp_write_error_data(&w, id, code, str_from_cstr(e->message), data);
    return strbuf_str(&text);
}

static void put_retry(struct api_call *call, const struct error *e)
{
    if (e->retry_after_ms > 0)
        reply_header(call, S("Retry-After"),
                     str_i64(call->ctx->arena, (e->retry_after_ms + 999) / 1000));
}

/* A call that was understood is answered with 200 whatever became of it, but for what HTTP itself has to tell: come back later. */
static int status_of(const struct mcp_call *m, const struct error *e)
{
    if (m->error_status != 0)
        return m->error_status;
    int status = error_http_status(e->reason);
    return status == 429 || status == 503 ? status : 200;
}

static void reply_failure(struct mcp_call *m, const struct error *e)
{
    struct error late = {0};
    int64_t code = m->error_code != 0 ? m->error_code : code_of(e);
    str text = error_text(mcp_arena(m), m->in.message.id, code, e, m->error_data);
    if (http_reply_is_done(m->call->request))
        return;
    if (!http_reply_has_begun(m->call->request)) {
        put_retry(m->call, e);
        reply_send(m->call, status_of(m, e), S("application/json"), text);
        return;
    }
    if (mcp_stream_send(m, STR_NONE, text, &late))
        http_reply_end(m->call->request);
    else
        http_reply_abort(m->call->request);
}

void mcp_reply_refusal(struct api_call *call, const struct error *e, int status)
{
    reply_send(call, status, S("application/json"),
               error_text(call->ctx->arena, NULL, code_of(e), e, STR_NONE));
}

/* ---- what is always there ---- */

static void write_capabilities(struct json_writer *w)
{
    json_put_raw(w, S("capabilities"),
                 S("{\"tools\":{\"listChanged\":true},\"resources\":{},\"prompts\":{}}"));
}

static bool discover(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_key(w, S("supportedVersions"));
    json_array_begin(w);
    for (size_t i = 0; i < mcp_revision_count; i++)
        json_write_str(w, mcp_revisions[i].name);
    json_array_end(w);
    write_capabilities(w);
    json_key(w, S("serverInfo"));
    mcp_write_implementation(w, SERVER_NAME, m->server->options.version);
    json_put_str(w, S("instructions"), str_from_cstr(instructions));
    mcp_put_cache(m, w, MCP_SERVER_LIST_TTL_MS);
    return mcp_result_end(m, &writer, e);
}

static bool ping(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    (void) mcp_result_begin(m, &writer);
    return mcp_result_end(m, &writer, e);
}

static bool prompts_list(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_put_raw(w, S("prompts"), S("[]"));
    mcp_put_cache(m, w, MCP_SERVER_LIST_TTL_MS);
    return mcp_result_end(m, &writer, e);
}

static bool prompts_get(struct mcp_call *m, struct error *e)
{
    error_set(e, REASON_NOT_FOUND, "there is no prompt \"" STR_FMT "\": this server has none",
              STR_ARG(str_cut_utf8(json_str_or(m->in.message.params, S("name"), STR_NONE), 80)));
    return mcp_fail(m, MCP_INVALID_PARAMS, e);
}

/* The one asked for when it has sessions, else the newest that has. */
static const struct mcp_revision *revision_for(str wanted)
{
    const struct mcp_revision *revision = mcp_revision_find(wanted);
    if (revision && revision->era == MCP_ERA_SESSION)
        return revision;
    for (size_t i = 0; i < mcp_revision_count; i++)
        if (mcp_revisions[i].era == MCP_ERA_SESSION)
            return &mcp_revisions[i];
    return NULL;
}

static bool initialize(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    struct context *ctx = m->call->ctx;
    str wanted = STR_NONE;
    char *id = arena_alloc(ctx->arena, MCP_SESSION_ID_BYTES);
    if (!json_need_str(m->in.message.params, S("protocolVersion"), &wanted, e))
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    m->revision = revision_for(wanted);
    if (!mcp_sessions_open(m->server->sessions, &m->call->principal, m->revision,
                           context_now_ns(ctx), id, e))
        return false;
    reply_header(m->call, SESSION_HEADER, str_of(id, MCP_SESSION_ID_BYTES));
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_put_str(w, S("protocolVersion"), m->revision->name);
    write_capabilities(w);
    json_key(w, S("serverInfo"));
    mcp_write_implementation(w, SERVER_NAME, m->server->options.version);
    json_put_str(w, S("instructions"), str_from_cstr(instructions));
    return mcp_result_end(m, &writer, e);
}

/* ---- methods ---- */

enum { IN_SESSIONS = 1, STATELESS = 2, BOTH = 3 };
static const struct {
    str name;
    unsigned eras;
    mcp_method *run;
} methods[] = {
    {S_INIT("tools/call"), BOTH, mcp_tools_call},
    {S_INIT("tools/list"), BOTH, mcp_tools_list},
    {S_INIT("resources/list"), BOTH, mcp_resources_list},
    {S_INIT("resources/read"), BOTH, mcp_resources_read},
    {S_INIT("resources/templates/list"), BOTH, mcp_resources_templates},
    {S_INIT("prompts/list"), BOTH, prompts_list},
    {S_INIT("prompts/get"), BOTH, prompts_get},
    {S_INIT("initialize"), IN_SESSIONS, initialize},
    {S_INIT("ping"), IN_SESSIONS, ping},
    {S_INIT("server/discover"), STATELESS, discover},
    {S_INIT("subscriptions/listen"), STATELESS, mcp_listen},
};

static bool run_method(struct mcp_call *m, struct error *e)
{
    unsigned era = mcp_is_stateless(m) ? STATELESS : IN_SESSIONS;
    for (size_t i = 0; i < ARRAY_COUNT(methods); i++)
        if (methods[i].eras & era && str_equal(methods[i].name, m->in.message.method))
            return methods[i].run(m, e);
    m->error_status = mcp_is_stateless(m) ? 404 : 0;
    error_set(e, REASON_NOT_FOUND, "there is no method \"" STR_FMT "\" in " STR_FMT,
              STR_ARG(str_cut_utf8(m->in.message.method, 100)), STR_ARG(m->revision->name));
    return mcp_fail(m, MCP_METHOD_NOT_FOUND, e);
}

/* Its own context, so that its client can cancel it while the reply can still be written. */
static bool run_cancellable(struct mcp_call *m, mcp_method *method, struct error *e)
{
    struct context *work = ARENA_NEW(mcp_arena(m), struct context);
    context_init_child(work, m->call->ctx, DEADLINE_NONE);
    m->ctx = work;
    bool ok = mcp_calls_enter(m->server->calls, m->session,
                              json_print(mcp_arena(m), m->in.message.id), work, &m->ticket, e) &&
              method(m, e);
    bool is_cancelled = m->ticket && m->ticket->is_cancelled;
    mcp_calls_leave(m->ticket);
    context_deinit(work);
    m->ctx = m->call->ctx;
    if (ok || !is_cancelled)
        return ok;
    /* A request that its client has cancelled gets no answer: the exchange just ends. */
    if (!http_reply_has_begun(m->call->request))
        reply_empty(m->call, 202);
    else if (!http_reply_is_done(m->call->request))
        http_reply_end(m->call->request);
    return true;
}

static void serve(struct mcp_call *m)
{
    struct error failure = {0};
    bool is_call = str_equal(m->in.message.method, S("tools/call"));
    bool ok = is_call && !mcp_is_stateless(m) ? run_cancellable(m, run_method, &failure)
                                              : run_method(m, &failure);
    if (!ok)
        reply_failure(m, &failure);
}

static void hear(struct mcp_call *m)
{
    if (str_equal(m->in.message.method, S("notifications/cancelled"))) {
        const struct json *id = json_get(m->in.message.params, S("requestId"));
        if (id)
            (void) mcp_calls_cancel(m->server->calls, m->session, json_print(mcp_arena(m), id));
    }
    reply_empty(m->call, 202);
}

/* ---- sessions ---- */

/* True when the request is of a session of its caller.  Else it is answered. */
static bool find_session(struct mcp_call *m)
{
    struct error why = {0};
    if (str_is_empty(m->session)) {
        m->error_status = 400;
        m->error_code = MCP_INVALID_REQUEST;
        error_set(&why, REASON_INVALID,
                  "send initialize first, then its Mcp-Session-Id with every request; or use "
                  "2026-07-28, which has no sessions");
    } else {
        m->revision = mcp_sessions_use(m->server->sessions, m->session, &m->call->principal,
                                       context_now_ns(m->call->ctx));
        if (m->revision && mcp_sessions_enter(m->server->sessions, m->session))
            return true;
        m->error_status = 404;
        m->error_code = MCP_INVALID_REQUEST;
        error_set(&why, REASON_NOT_FOUND, "there is no such MCP session; initialize a new one");
    }
    reply_failure(m, &why);
    return false;
}

static void serve_session(struct mcp_call *m)
{
    bool is_request = m->in.message.kind == MCP_REQUEST;
    if (is_request && str_equal(m->in.message.method, S("initialize"))) {
        m->revision = revision_for(STR_NONE);
        serve(m);
        return;
    }
    if (!find_session(m))
        return;
    if (is_request)
        serve(m);
    else if (m->in.message.kind == MCP_NOTIFICATION)
        hear(m);
    else
        reply_empty(m->call, 202); /* an answer: nothing was asked, so nobody waits for it */
    mcp_sessions_leave(m->server->sessions, m->session, context_now_ns(m->call->ctx));
}

/* ---- routes ---- */

static bool accepts(str accept, str type, str any)
{
    return str_is_empty(accept) || str_find(accept, type) != STR_NOT_FOUND ||
           str_find(accept, any) != STR_NOT_FOUND || str_find(accept, S("*/*")) != STR_NOT_FOUND;
}

static struct mcp_call *new_call(struct api_call *call)
{
    struct mcp_call *m = ARENA_NEW(call->ctx->arena, struct mcp_call);
    str accept = str_lower(call->ctx->arena, http_request_header(call->request, S("Accept")));
    m->server = mcp_server_of(call);
    m->call = call;
    m->ctx = call->ctx;
    m->session = http_request_header(call->request, SESSION_HEADER);
    m->wants_json = accepts(accept, S("application/json"), S("application/*"));
    m->wants_events = accepts(accept, S("text/event-stream"), S("text/*"));
    return m;
}

static bool not_acceptable(struct error *e)
{
    return error_set(e, REASON_NOT_ACCEPTABLE,
                     "Accept must allow application/json and text/event-stream");
}

bool route_mcp_post(struct api_call *call, struct error *e)
{
    struct error why = {0};
    struct mcp_refusal refusal;
    struct mcp_call *m = new_call(call);
    struct mcp_head head = {
        .version = http_request_header(call->request, S("MCP-Protocol-Version")),
        .method = http_request_header(call->request, S("Mcp-Method")),
        .name = http_request_header(call->request, S("Mcp-Name")),
        .session = m->session,
    };
    if (!m->wants_json && !m->wants_events)
        return not_acceptable(e);
    if (!mcp_envelope_read(call->ctx->arena, &head, call->body, &m->in, &refusal, &why)) {
        m->in.message.id = refusal.id;
        m->error_status = refusal.status;
        m->error_code = refusal.code;
        m->error_data = refusal.data;
        reply_failure(m, &why);
        return true;
    }
    if (!mcp_is_stateless(m)) {
        serve_session(m);
        return true;
    }
    m->session = STR_NONE;
    m->revision = m->in.revision;
    if (m->in.message.kind == MCP_NOTIFICATION)
        reply_empty(call, 202);
    else
        serve(m);
    return true;
}

bool route_mcp_stream(struct api_call *call, struct error *e)
{
    struct error failure = {0};
    struct mcp_call *m = new_call(call);
    struct mcp_event_id after = {.seq = 0};
    str last = http_request_header(call->request, S("Last-Event-ID"));
    if (call->request->method == HTTP_HEAD)
        return error_set(e, REASON_METHOD, "this path answers GET, POST, DELETE");
    if (str_is_empty(m->session))
        return error_set(e, REASON_METHOD,
                         "a stream of its own needs an Mcp-Session-Id; without sessions, POST "
                         "subscriptions/listen");
    if (!m->wants_events || str_is_empty(http_request_header(call->request, S("Accept"))))
        return error_set(e, REASON_NOT_ACCEPTABLE, "Accept must allow text/event-stream");
    if (!str_is_empty(last) && !mcp_event_id_read(call->ctx->arena, last, &after))
        return error_set(e, REASON_INVALID, "Last-Event-ID is none that was given here");
    if (!find_session(m))
        return true;
    m->wants_json = false;
    m->in.message.id = after.id;
    m->in.progress_token = after.token;
    m->resumes = after;
    bool ok = middleware_take_stream(call, &failure) &&
              (uuid_is_none(after.run_id)
                   ? mcp_session_stream(m, str_is_empty(last) ? NULL : &after, &failure)
                   : run_cancellable(m, mcp_agent_resume, &failure));
    mcp_sessions_leave(m->server->sessions, m->session, context_now_ns(call->ctx));
    if (!ok && !http_reply_has_begun(call->request))
        return error_copy(e, &failure);
    if (!ok && !http_reply_is_done(call->request))
        http_reply_abort(call->request);
    return true;
}

bool route_mcp_end(struct api_call *call, struct error *e)
{
    struct mcp_server *server = mcp_server_of(call);
    str session = http_request_header(call->request, SESSION_HEADER);
    if (str_is_empty(session))
        return error_set(e, REASON_METHOD, "only a session can be ended: send its Mcp-Session-Id");
    if (!mcp_sessions_close(server->sessions, session, &call->principal))
        return error_set(e, REASON_NOT_FOUND, "there is no such MCP session");
    (void) mcp_calls_cancel_session(server->calls, session);
    reply_empty(call, 204);
    return true;
}

/* RFC 9728.  Public: a client reads it to learn how to authenticate. */
static bool reply_metadata(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    const struct mcp_server_options *options = &mcp_server_of(call)->options;
    struct arena *arena = call->ctx->arena;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("resource"), str_printf(arena, STR_FMT "/mcp", STR_ARG(mcp_base_url(call))));
    if (options->authorization_server_count > 0) {
        json_key(w, S("authorization_servers"));
        json_array_begin(w);
        for (size_t i = 0; i < options->authorization_server_count; i++)
            json_write_str(w, options->authorization_servers[i]);
        json_array_end(w);
    }
    json_put_raw(w, S("bearer_methods_supported"), S("[\"header\"]"));
    json_put_str(w, S("resource_name"), S("Nexus"));
    json_object_end(w);
    reply_header(call, S("Cache-Control"), S("no-store")); /* it depends on Host */
    return reply_writer_send(&writer, call, 200, e);
}

bool route_mcp_metadata(struct api_call *call, struct error *e)
{
    return reply_metadata(call, e);
}

bool route_mcp_metadata_of_path(struct api_call *call, struct error *e)
{
    return reply_metadata(call, e);
}
