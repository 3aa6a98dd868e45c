/* MCP over streamable HTTP, both eras: a POST for each message, answered by JSON or by an event stream. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "net/egress.h"
#include "net/sse.h"
#include <stdlib.h>

enum {
    NS_PER_MS = 1000000,
    REFUSAL_BYTES_MAX = 64 << 10,
    SESSION_ID_BYTES_MAX = 1024,
    EVENT_ID_BYTES_MAX = 1024,
    LISTEN_IDLE_MS = 5 * 60 * 1000,
    LISTEN_AGAIN_MS = 1000,
    RESUME_MS = 200,
};

struct http {
    struct mcp_transport base;
    struct egress_rules *rules;
    struct http_client *client;
    struct arena *arena;
};

static struct http *http_of(struct mcp_transport *transport)
{
    return CONTAINER_OF(transport, struct http, base);
}

/* ---- one exchange ---- */

struct trip {
    enum http_method method;
    str body, accept;
    const struct mcp_outgoing *message; /* NULL: GET and DELETE */
    str last_event_id;
    int64_t idle_ms;
};

static void add_header(struct http_headers *headers, struct arena *arena, str name, str value)
{
    if (!str_is_empty(value) && http_header_is_safe(name, value))
        http_headers_add(headers, arena, name, value);
}

static struct http_headers make_headers(const struct http *http, struct arena *arena,
                                        const struct trip *trip)
{
    struct http_headers headers = {0};
    const struct mcp_transport *base = &http->base;
    const struct mcp_upstream_config *config = &base->server->config;
    bool is_stateless = base->revision && base->revision->era == MCP_ERA_STATELESS;
    add_header(&headers, arena, S("Accept"), trip->accept);
    add_header(&headers, arena, S("User-Agent"), S("nexus"));
    if (!str_is_empty(trip->body))
        add_header(&headers, arena, S("Content-Type"), S("application/json"));
    if (base->revision)
        add_header(&headers, arena, S("MCP-Protocol-Version"), base->revision->name);
    add_header(&headers, arena, S("Mcp-Session-Id"), base->session_id);
    add_header(&headers, arena, S("Last-Event-ID"), trip->last_event_id);
    if (is_stateless && trip->message) {
        add_header(&headers, arena, S("Mcp-Method"), trip->message->method);
        add_header(&headers, arena, S("Mcp-Name"), mcp_header_encode(arena, trip->message->name));
        for (size_t i = 0; i < trip->message->more.count; i++)
            add_header(&headers, arena, trip->message->more.items[i].name,
                       trip->message->more.items[i].value);
    }
    const struct mcp_grant *grant = base->person ? base->person->grant : NULL;
    if (grant)
        add_header(&headers, arena, S("Authorization"),
                   str_printf(arena, "Bearer " STR_FMT, STR_ARG(secret_reveal(grant->access))));
    for (size_t i = 0; i < config->header_count; i++)
        if (!base->person || !str_equal_nocase(config->headers[i].name, S("Authorization")))
            add_header(&headers, arena, config->headers[i].name,
                       secret_reveal(config->headers[i].value));
    return headers;
}

may_suspend static bool send_trip(struct http *http, struct context *ctx, const struct trip *trip,
                                  struct http_exchange **out, struct error *e)
{
    struct http_headers headers = make_headers(http, ctx->arena, trip);
    int64_t left_ms = trip->idle_ms;
    if (ctx->deadline_ns != DEADLINE_NONE)
        left_ms = (ctx->deadline_ns - context_now_ns(ctx)) / NS_PER_MS + 1000;
    struct egress_request request = {.method = trip->method,
                                     .url = http->base.server->config.url,
                                     .headers = &headers,
                                     .body = trip->body,
                                     .first_byte_timeout_ms = left_ms,
                                     .idle_timeout_ms = trip->idle_ms,
                                     .no_redirects = true};
    return egress_send(http->rules, http->client, ctx, &request, out, NULL, e);
}

static bool is_type(const struct http_exchange *exchange, str type)
{
    str value = http_headers_get(http_exchange_headers(exchange), S("Content-Type")), head, tail;
    str_cut(value, ';', &head, &tail);
    return str_equal_nocase(str_trim(head), type);
}

/* ---- refusals ---- */

static bool is_gone(struct http *http, int status)
{
    if (status != 404 || str_is_empty(http->base.session_id))
        return false;
    http->base.is_session_lost = true;
    mcp_upstream_wake(http->base.server);
    return true;
}

/* Any status but 200 and 202.  A JSON-RPC error in the body is an answer. */
may_suspend static bool read_refusal(struct http *http, struct context *ctx,
                                     struct http_exchange *exchange, struct mcp_message *answer,
                                     struct error *e)
{
    int status = http_exchange_status(exchange);
    int64_t code;
    str body = STR_NONE;
    struct error ignored;
    if (is_gone(http, status))
        return error_set(e, REASON_UNAVAILABLE, "the server has ended the session (404)");
    if (status == 401 && http->base.server->config.oauth.is_per_user) {
        http->base.is_refused = true;
        return error_set(e, REASON_UNAVAILABLE, "the server wants a login (401)");
    }
    if (status == 403 && http->base.person)
        return error_set(e, REASON_DENIED,
                         "the server does not let this user do that (403); if its login was too "
                         "narrow, see oauth.scopes of the server");
    if (status == 401 || status == 403)
        return error_set(e, REASON_UNAVAILABLE,
                         "the server refuses our credentials (%d): see `headers` of this server",
                         status);
    if (status == 429 || status >= 500)
        return error_set(e, REASON_UNAVAILABLE, "the server answers with status %d", status);
    if (status >= 300 && status < 400)
        return error_set(
            e, REASON_UNAVAILABLE,
            "the server answers with a redirect (%d), which is not followed: write the "
            "final URL",
            status);
    if (http_exchange_read_all(exchange, ctx, REFUSAL_BYTES_MAX, &body, &ignored) &&
        mcp_read(ctx->arena, body, answer, &code, &ignored) && answer->kind == MCP_ERROR)
        return true;
    *answer = (struct mcp_message){
        .kind = MCP_ERROR, .error_message = str_printf(ctx->arena, "HTTP status %d", status)};
    return true;
}

/* ---- event streams ---- */

struct stream {
    struct http *http;
    int64_t id; /* of the request whose answer is waited for; 0: none */
    char event_id[EVENT_ID_BYTES_MAX];
    size_t event_id_len;
    bool is_answered;
};

may_suspend static bool post_answer(struct http *http, struct context *ctx, str body,
                                    struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    struct trip trip = {.method = HTTP_POST,
                        .body = body,
                        .accept = S("application/json, text/event-stream"),
                        .idle_ms = MCP_CONTROL_MS};
    return send_trip(http, ctx, &trip, &exchange, e);
}

static void keep_event_id(struct stream *stream, str id)
{
    if (str_is_empty(id) || id.len > sizeof stream->event_id)
        return;
    memcpy(stream->event_id, id.ptr, id.len);
    stream->event_id_len = id.len;
}

/* True with is_answered when it was the answer; what is not is forgotten again. */
may_suspend static bool take_event(struct stream *stream, struct context *ctx, str data,
                                   struct mcp_message *answer, struct error *e)
{
    int64_t code, id = 0;
    struct error broken;
    struct mcp_message message;
    struct mcp_upstream *server = stream->http->base.server;
    arena_mark mark = arena_save(ctx->arena);
    if (str_is_empty(str_trim(data))) /* only an id, to resume from */
        return true;
    /* The parser's bytes live until the next feed only. */
    data = str_copy(ctx->arena, data);
    if (!mcp_read(ctx->arena, data, &message, &code, &broken))
        return error_set(e, REASON_UNAVAILABLE, "an event of the server is no message: %s",
                         broken.message);
    server->heard_ns = context_now_ns(ctx);
    if (message.kind == MCP_RESULT || message.kind == MCP_ERROR) {
        stream->is_answered =
            stream->id > 0 && (!message.id || (json_to_i64(message.id, &id) && id == stream->id));
        if (stream->is_answered) {
            *answer = message;
            return true;
        }
    } else {
        str reply = mcp_upstream_heard(server, ctx->arena, &message);
        if (!str_is_empty(reply) && !post_answer(stream->http, ctx, reply, e))
            return false;
    }
    arena_rewind(ctx->arena, mark);
    return true;
}

/* Until the answer (is_answered), or a clean end of the stream. */
may_suspend static bool read_stream(struct stream *stream, struct context *ctx,
                                    struct http_exchange *exchange, struct mcp_message *answer,
                                    struct error *e)
{
    OWNED(sse_parser) parser = sse_parser_create(MCP_MESSAGE_BYTES_MAX);
    struct sse_event event;
    for (;;) {
        str piece;
        if (!http_exchange_read(exchange, ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            return true;
        if (!sse_parser_feed(parser, piece, e))
            return false;
        while (sse_parser_next(parser, &event)) {
            keep_event_id(stream, event.id);
            if (!take_event(stream, ctx, event.data, answer, e))
                return false;
            if (stream->is_answered)
                return true;
        }
    }
}

/* The rest of a stream that broke or paused before its answer: GET with Last-Event-ID. */
may_suspend static bool resume(struct stream *stream, struct context *ctx,
                               struct mcp_message *answer, struct error *e)
{
    struct http *http = stream->http;
    for (unsigned tries = 0; tries < MCP_RESUMES_MAX; tries++) {
        OWNED(http_exchange) exchange = NULL;
        struct trip trip = {.method = HTTP_GET,
                            .accept = S("text/event-stream"),
                            .last_event_id = str_of(stream->event_id, stream->event_id_len),
                            .idle_ms = LISTEN_IDLE_MS};
        if (!context_sleep_ms(ctx, (int64_t) RESUME_MS << tries, e))
            return false;
        if (!send_trip(http, ctx, &trip, &exchange, e)) {
            if (!error_may_retry(e) || !context_check(ctx, e))
                return false;
            continue;
        }
        if (http_exchange_status(exchange) != 200 || !is_type(exchange, S("text/event-stream")))
            return error_set(e, REASON_UNAVAILABLE,
                             "the stream broke before the answer, and the server does not resume "
                             "it (status %d)",
                             http_exchange_status(exchange));
        bool is_read = read_stream(stream, ctx, exchange, answer, e);
        if (stream->is_answered)
            return true;
        if (!is_read && !context_check(ctx, e))
            return false;
    }
    return error_set(e, REASON_UNAVAILABLE, "the stream broke %u times before the answer",
                     MCP_RESUMES_MAX);
}

may_suspend static bool read_answer_stream(struct http *http, struct context *ctx, int64_t id,
                                           struct http_exchange **exchange,
                                           struct mcp_message *answer, struct error *e)
{
    struct stream *stream = ARENA_NEW(ctx->arena, struct stream);
    *stream = (struct stream){.http = http, .id = id};
    bool is_read = read_stream(stream, ctx, *exchange, answer, e);
    if (stream->is_answered)
        return true;
    if (!is_read && !context_check(ctx, e))
        return false;
    bool can_resume = stream->event_id_len > 0 && http->base.revision &&
                      http->base.revision->era == MCP_ERA_SESSION;
    http_exchange_close(GIVE(*exchange));
    if (can_resume)
        return resume(stream, ctx, answer, e);
    return is_read ? error_set(e, REASON_UNAVAILABLE, "the stream ended without the answer")
                   : false;
}

/* ---- requests ---- */

static void take_session_id(struct http *http, const struct http_exchange *exchange,
                            struct mcp_outgoing *message)
{
    str id = http_headers_get(http_exchange_headers(exchange), S("Mcp-Session-Id"));
    /* Only then: a server without sessions that names one each time would fill our memory. */
    bool is_asked_for = str_equal(message->method, S("initialize"));
    if (is_asked_for && !str_is_empty(id) && id.len <= SESSION_ID_BYTES_MAX &&
        str_is_empty(http->base.session_id))
        message->session_id = str_copy(http->arena, id);
}

may_suspend static bool read_body(struct http *http, struct context *ctx, int64_t id,
                                  struct http_exchange **exchange, struct mcp_message *answer,
                                  struct error *e)
{
    int64_t code, found = 0;
    str body;
    if (is_type(*exchange, S("text/event-stream")))
        return read_answer_stream(http, ctx, id, exchange, answer, e);
    if (!is_type(*exchange, S("application/json")))
        return error_set(e, REASON_UNAVAILABLE,
                         "the server answers with neither JSON nor an event stream");
    if (!http_exchange_read_all(*exchange, ctx, MCP_MESSAGE_BYTES_MAX, &body, e))
        return error_wrap(e, "the answer");
    if (!mcp_read(ctx->arena, body, answer, &code, e))
        return error_wrap(e, "the answer");
    bool is_answer = answer->kind == MCP_RESULT || answer->kind == MCP_ERROR;
    if (!is_answer || (answer->id && (!json_to_i64(answer->id, &found) || found != id)))
        return error_set(e, REASON_UNAVAILABLE, "the server answers something else than was asked");
    http->base.server->heard_ns = context_now_ns(ctx);
    return true;
}

/* Sessions: closing the stream is no cancellation there, so it is said. */
static void say_cancelled(struct http *http, struct context *ctx, int64_t id)
{
    struct context late;
    struct error ignored;
    if (!http->base.revision || http->base.revision->era != MCP_ERA_SESSION)
        return;
    context_init(&late, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    late.deadline_ns = context_deadline_in(&late, 1000);
    (void) !post_answer(http, &late, mcp_cancel_message(ctx->arena, id, S("nobody waits any more")),
                        &ignored);
    context_deinit(&late);
}

may_suspend static bool http_request(struct mcp_transport *transport, struct context *ctx,
                                     struct mcp_outgoing *message, struct mcp_message *answer,
                                     struct error *e)
{
    struct http *http = http_of(transport);
    struct http_exchange *exchange = NULL;
    struct trip trip = {.method = HTTP_POST,
                        .body = message->body,
                        .accept = S("application/json, text/event-stream"),
                        .message = message,
                        .idle_ms = LISTEN_IDLE_MS};
    bool is_answered = send_trip(http, ctx, &trip, &exchange, e);
    int status = is_answered ? http_exchange_status(exchange) : 0;
    /* A refusal says that nothing was done; a failure to send may have come after the last byte. */
    message->was_sent =
        is_answered ? status < 300 || status >= 500 : e->reason != REASON_EGRESS_BLOCKED;
    message->was_refused = status == 401;
    if (is_answered && status == 200) {
        take_session_id(http, exchange, message);
        is_answered = read_body(http, ctx, message->id, &exchange, answer, e);
    } else if (is_answered && status == 202) {
        is_answered =
            error_set(e, REASON_UNAVAILABLE, "the server took a request for a notification (202)");
    } else if (is_answered) {
        is_answered = read_refusal(http, ctx, exchange, answer, e);
    }
    http_exchange_close(exchange);
    if (!is_answered && message->is_cancellable &&
        (e->code == ERROR_CANCELLED || e->code == ERROR_TIMEOUT))
        say_cancelled(http, ctx, message->id);
    return is_answered;
}

may_suspend static bool http_notify(struct mcp_transport *transport, struct context *ctx,
                                    struct mcp_outgoing *message, struct error *e)
{
    struct http *http = http_of(transport);
    OWNED(http_exchange) exchange = NULL;
    struct mcp_message answer;
    struct trip trip = {.method = HTTP_POST,
                        .body = message->body,
                        .accept = S("application/json, text/event-stream"),
                        .message = message,
                        .idle_ms = MCP_CONTROL_MS};
    if (!send_trip(http, ctx, &trip, &exchange, e))
        return false;
    int status = http_exchange_status(exchange);
    if (status >= 200 && status < 300)
        return true;
    if (!read_refusal(http, ctx, exchange, &answer, e))
        return false;
    return error_set(e, REASON_UNAVAILABLE, "the server refuses a notification: " STR_FMT,
                     STR_ARG(str_cut_utf8(answer.error_message, 200)));
}

/* ---- the GET stream of a session ---- */

may_suspend static bool listen_once(struct http *http, struct context *ctx, struct stream *stream,
                                    bool *is_offered, struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    struct mcp_message none;
    struct trip trip = {.method = HTTP_GET,
                        .accept = S("text/event-stream"),
                        .last_event_id = str_of(stream->event_id, stream->event_id_len),
                        .idle_ms = LISTEN_IDLE_MS};
    if (!send_trip(http, ctx, &trip, &exchange, e))
        return false;
    int status = http_exchange_status(exchange);
    if (is_gone(http, status))
        return error_set(e, REASON_UNAVAILABLE, "the server has ended the session (404)");
    *is_offered = status == 200 && is_type(exchange, S("text/event-stream"));
    return !*is_offered || read_stream(stream, ctx, exchange, &none, e);
}

may_suspend static bool http_listen(struct mcp_transport *transport, struct context *ctx,
                                    struct error *e)
{
    struct http *http = http_of(transport);
    OWNED(arena) arena = arena_create(6 * (size_t) MCP_MESSAGE_BYTES_MAX);
    struct stream *stream = ARENA_NEW(http->arena, struct stream);
    struct context own;
    stream->http = http;
    context_init_child(&own, ctx, DEADLINE_NONE);
    own.arena = arena;
    bool is_offered = true;
    for (int64_t wait_ms = LISTEN_AGAIN_MS; is_offered && !transport->is_session_lost;) {
        struct error broken;
        bool was_fine = listen_once(http, &own, stream, &is_offered, &broken);
        arena_reset(arena);
        wait_ms = was_fine                           ? LISTEN_AGAIN_MS
                  : wait_ms * 2 < MCP_BACKOFF_MS_MAX ? wait_ms * 2
                                                     : MCP_BACKOFF_MS_MAX;
        if (is_offered && !context_sleep_ms(&own, wait_ms, e))
            break;
    }
    context_deinit(&own);
    return transport->is_session_lost
               ? error_set(e, REASON_UNAVAILABLE, "the server has ended the session (404)")
               : context_check(ctx, e);
}

/* ---- life ---- */

static void http_leave(struct mcp_transport *transport, struct context *ctx)
{
    struct http *http = http_of(transport);
    OWNED(http_exchange) exchange = NULL;
    struct error ignored;
    struct trip trip = {.method = HTTP_DELETE, .accept = S("*/*"), .idle_ms = 1000};
    if (!str_is_empty(transport->session_id) && !transport->is_session_lost)
        (void) !send_trip(http, ctx, &trip, &exchange, &ignored);
}

static void http_destroy(struct mcp_transport *transport)
{
    struct http *http = http_of(transport);
    egress_rules_destroy(http->rules);
    arena_destroy(http->arena);
    free(http);
}

static const struct mcp_transport_ops http_ops = {"http",      http_request, http_notify,
                                                  http_listen, http_leave,   http_destroy};

bool mcp_http_open(struct mcp_upstream *server, struct mcp_transport **out, struct error *e)
{
    struct mcp_client_options *options = &server->client->options;
    struct http_url url;
    struct http_client *client =
        options->http_client ? options->http_client(options->http_owner, options->loop) : NULL;
    if (!client)
        return error_set(e, REASON_UNAVAILABLE, "this node makes no outside calls");
    if (!http_url_parse(server->config.url, &url, e))
        return false;
    struct egress_options rules = {.allowed_hosts = &url.host,
                                   .allowed_host_count = 1,
                                   .allowed_ips = server->config.allowed_ips.items,
                                   .allowed_ip_count = server->config.allowed_ips.count};
    struct http *http = calloc(1, sizeof *http);
    ensure(http != NULL);
    if (!egress_rules_create(&rules, &http->rules, e)) {
        free(http);
        return false;
    }
    http->arena = arena_create(0);
    http->client = client;
    http->base = (struct mcp_transport){.ops = &http_ops, .server = server};
    *out = &http->base;
    return true;
}
