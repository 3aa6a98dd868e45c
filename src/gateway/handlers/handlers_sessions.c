/* Sessions, their messages, their budget. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"

/* ---- a session as callers see it ---- */

static void put_json_column(struct json_writer *w, str name, const struct record *row, int column)
{
    json_key(w, name);
    if (record_has(row, column))
        json_write_raw(w, record_text(row, column));
    else
        json_write_null(w);
}

static bool write_session(struct api_call *call, struct json_writer *w, const struct record *row,
                          struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, SESSIONS_ID));
    json_put_str(w, S("user_id"), record_text(row, SESSIONS_USER_ID));
    json_put_str(w, S("status"), record_text(row, SESSIONS_STATUS));
    json_put_str(w, S("agent"), record_text(row, SESSIONS_AGENT));
    put_json_column(w, S("budget"), row, SESSIONS_BUDGET);
    put_json_column(w, S("policy_context"), row, SESSIONS_POLICY_CONTEXT);
    put_json_column(w, S("metadata"), row, SESSIONS_METADATA);
    json_put_str(w, S("requested_by"), record_text(row, SESSIONS_REQUESTED_BY));
    put_id(w, S("live_run_id"), record_uuid(row, SESSIONS_LIVE_RUN_ID));
    json_key(w, S("double_text"));
    if (record_has(row, SESSIONS_DOUBLE_TEXT))
        json_write_str(w, record_text(row, SESSIONS_DOUBLE_TEXT));
    else
        json_write_null(w);
    json_key(w, S("priority"));
    if (record_has(row, SESSIONS_PRIORITY))
        json_write_str(w, record_text(row, SESSIONS_PRIORITY));
    else
        json_write_null(w);
    json_put_i64(w, S("waiting"), record_integer(row, SESSIONS_INBOX_COUNT));
    put_time(w, S("created_at"), record_integer(row, SESSIONS_CREATED_AT));
    put_time(w, S("updated_at"), record_integer(row, SESSIONS_UPDATED_AT));
    put_time(w, S("expires_at"), record_integer(row, SESSIONS_EXPIRES_AT));
    json_object_end(w);
    return true;
}

static bool reply_session(struct api_call *call, int status, const struct record *row,
                          struct error *e)
{
    struct reply_writer writer;
    return write_session(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, status, e);
}

/* ---- opening ---- */

bool route_session_create(struct api_call *call, struct error *e)
{
    struct session_request request;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    if (!body_read_session(call->ctx->arena, call->json, &request, e) ||
        !session_create(call->gateway->orchestrator, call->ctx, &call->principal, &request, row, e))
        return false;
    reply_header(call, S("Location"),
                 str_printf(call->ctx->arena, "/api/v1/sessions/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, record_uuid(row, SESSIONS_ID)))));
    return reply_session(call, 201, row, e);
}

/* ---- reading and closing ---- */

bool route_session_list(struct api_call *call, struct error *e)
{
    str cursor;
    size_t limit;
    struct records rows;
    return query_page(call, &cursor, &limit, e) &&
           session_list(call->gateway->orchestrator, call->ctx, &call->principal,
                        query_text(call, S("status")), cursor, limit, &rows, e) &&
           reply_page(call, &rows, write_session, e);
}

static bool find_session(struct api_call *call, uuid *id, struct record **row, struct error *e)
{
    *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "session", id, e) &&
           session_get(call->gateway->orchestrator, call->ctx, &call->principal, *id, *row, e);
}

bool route_session_get(struct api_call *call, struct error *e)
{
    uuid id;
    struct record *row;
    return find_session(call, &id, &row, e) && reply_session(call, 200, row, e);
}

bool route_session_close(struct api_call *call, struct error *e)
{
    uuid id;
    if (!param_uuid(call, 0, "session", &id, e) ||
        !session_close(call->gateway->orchestrator, call->ctx, &call->principal, id, e))
        return false;
    reply_empty(call, 204);
    return true;
}

bool route_session_budget(struct api_call *call, struct error *e)
{
    uuid id;
    str text;
    if (!param_uuid(call, 0, "session", &id, e) ||
        !session_budget_json(call->gateway->orchestrator, call->ctx, &call->principal, id, &text,
                             e))
        return false;
    reply_json(call, 200, text);
    return true;
}

/* ---- messages ---- */

static bool write_message(struct api_call *call, struct json_writer *w, const struct record *row,
                          struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, MESSAGES_ID));
    put_id(w, S("session_id"), record_uuid(row, MESSAGES_SESSION_ID));
    put_id(w, S("run_id"), record_uuid(row, MESSAGES_RUN_ID));
    json_put_str(w, S("role"), record_text(row, MESSAGES_ROLE));
    json_put_str(w, S("content"), record_text(row, MESSAGES_CONTENT));
    put_json_column(w, S("parts"), row, MESSAGES_PARTS);
    json_put_i64(w, S("tokens"), record_integer(row, MESSAGES_TOKENS));
    put_json_column(w, S("metadata"), row, MESSAGES_METADATA);
    put_time(w, S("created_at"), record_integer(row, MESSAGES_CREATED_AT));
    json_object_end(w);
    return true;
}

bool route_message_list(struct api_call *call, struct error *e)
{
    uuid id;
    struct record *session;
    struct records rows;
    struct query *query = ARENA_NEW(call->ctx->arena, struct query);
    str view = query_text(call, S("view"));
    *query = query_of(TABLE_MESSAGES);
    if (str_equal(view, S("context")))
        return param_uuid(call, 0, "session", &id, e) &&
               session_context(call->gateway->orchestrator, call->ctx, &call->principal, id, &rows,
                               e) &&
               reply_page(call, &rows, write_message, e);
    if (!find_session(call, &id, &session, e) ||
        !query_page(call, &query->cursor, &query->limit, e))
        return false;
    query_where_uuid(query, MESSAGES_SESSION_ID, id);
    return store_list(call->gateway->store, call->ctx, call->principal.tenant_id, query, &rows,
                      e) &&
           reply_page(call, &rows, write_message, e);
}

static bool write_waiting(struct api_call *call, struct json_writer *w, const struct record *row,
                          struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, SESSION_INBOX_ID));
    put_id(w, S("run_id"), record_uuid(row, SESSION_INBOX_RUN_ID));
    json_put_str(w, S("mode"), record_text(row, SESSION_INBOX_MODE));
    json_put_str(w, S("content"), record_text(row, SESSION_INBOX_CONTENT));
    put_json_column(w, S("parts"), row, SESSION_INBOX_PARTS);
    put_time(w, S("created_at"), record_integer(row, SESSION_INBOX_CREATED_AT));
    json_object_end(w);
    return true;
}

bool route_session_waiting(struct api_call *call, struct error *e)
{
    uuid id;
    struct records rows;
    return param_uuid(call, 0, "session", &id, e) &&
           session_waiting(call->gateway->orchestrator, call->ctx, &call->principal, id, &rows,
                           e) &&
           reply_page(call, &rows, write_waiting, e);
}

static const char *const fates[] = {
    [MESSAGE_BEGINS] = "running", [MESSAGE_WAITS] = "pending", [MESSAGE_STEERS] = "steering"};

static str run_started_text(struct arena *arena, uuid session_id,
                            const struct message_outcome *outcome)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    put_id(&w, S("run_id"), outcome->run_id);
    put_id(&w, S("session_id"), session_id);
    json_put_str(&w, S("events"),
                 str_printf(arena, "/api/v1/runs/" STR_FMT "/events",
                            STR_ARG(uuid_str(arena, outcome->run_id))));
    json_put_str(&w, S("status"), str_from_cstr(fates[outcome->fate]));
    if (!uuid_is_none(outcome->otherwise_run_id))
        put_id(&w, S("otherwise_run_id"), outcome->otherwise_run_id);
    json_object_end(&w);
    return strbuf_str(&text);
}

bool route_message_create(struct api_call *call, struct error *e)
{
    struct run_request request = {0};
    struct message_outcome outcome;
    bool is_stream;
    if (!param_uuid(call, 0, "session", &request.session_id, e) ||
        !body_read_message(call->ctx->arena, call->json, &request, &is_stream, e))
        return false;
    if (is_stream && !middleware_take_stream(call, e))
        return false;
    /* Nobody waits for the run's end here: its message is what counts against the rate. */
    if (!middleware_take_tokens(call, (int64_t) request.content.len / 4 + 1, e) ||
        !message_send(call->gateway->orchestrator, call->ctx, &call->principal, &request, &outcome,
                      e))
        return false;
    str text = run_started_text(call->ctx->arena, request.session_id, &outcome);
    reply_header(call, S("Nexus-Run-Id"), uuid_str(call->ctx->arena, outcome.run_id));
    if (is_stream) {
        idempotency_finish(call, 202,
                           text); /* a repeat gets the run's id, and from there its events */
        return events_stream(call, outcome.run_id, 0, e);
    }
    reply_header(call, S("Location"),
                 str_printf(call->ctx->arena, "/api/v1/runs/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, outcome.run_id))));
    reply_json(call, 202, text);
    return true;
}

/* ---- life ---- */

static bool reply_created(struct api_call *call, const struct record *row, struct error *e)
{
    reply_header(call, S("Location"),
                 str_printf(call->ctx->arena, "/api/v1/sessions/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, record_uuid(row, SESSIONS_ID)))));
    return reply_session(call, 201, row, e);
}

bool route_session_update(struct api_call *call, struct error *e)
{
    uuid id;
    struct session_change change;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "session", &id, e) &&
           body_read_session_change(call->ctx->arena, call->json, &change, e) &&
           session_update(call->gateway->orchestrator, call->ctx, &call->principal, id, &change,
                          row, e) &&
           reply_session(call, 200, row, e);
}

bool route_session_pause(struct api_call *call, struct error *e)
{
    uuid id;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "session", &id, e) &&
           session_pause(call->gateway->orchestrator, call->ctx, &call->principal, id, row, e) &&
           reply_session(call, 200, row, e);
}

bool route_session_resume(struct api_call *call, struct error *e)
{
    uuid id;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "session", &id, e) &&
           session_resume(call->gateway->orchestrator, call->ctx, &call->principal, id, row, e) &&
           reply_session(call, 200, row, e);
}

/* ---- elsewhere ---- */

bool route_session_clone(struct api_call *call, struct error *e)
{
    uuid id, at_message;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "session", &id, e) && body_read_clone(call->json, &at_message, e) &&
           session_clone(call->gateway->orchestrator, call->ctx, &call->principal, id, at_message,
                         row, e) &&
           reply_created(call, row, e);
}

bool route_session_import(struct api_call *call, struct error *e)
{
    const struct json *document;
    struct json_limits limits = {.bytes_max = GATEWAY_CHAT_BODY_BYTES_MAX};
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return json_parse(call->ctx->arena, call->body, limits, &document, e) &&
           schema_set_check(call->gateway->schemas, call->ctx->arena, call->route, document, e) &&
           session_import(call->gateway->orchestrator, call->ctx, &call->principal, document, row,
                          e) &&
           reply_created(call, row, e);
}

/* The answer begins with the first piece: what goes wrong before it is an ordinary error. */
struct document_reply {
    struct api_call *call;
    bool has_begun;
};

static bool write_document(void *owner, str piece, struct error *e)
{
    struct document_reply *reply = owner;
    if (!reply->has_begun && !reply_stream_begin(reply->call, S("application/json"), e))
        return false;
    reply->has_begun = true;
    return http_reply_write(reply->call->request, piece, e);
}

bool route_session_export(struct api_call *call, struct error *e)
{
    uuid id;
    struct document_reply reply = {.call = call};
    if (!param_uuid(call, 0, "session", &id, e))
        return false;
    reply_header(call, S("Content-Disposition"),
                 str_printf(call->ctx->arena, "attachment; filename=\"session-" STR_FMT ".json\"",
                            STR_ARG(uuid_str(call->ctx->arena, id))));
    if (session_export(call->gateway->orchestrator, call->ctx, &call->principal, id,
                       &(struct session_export){.write = write_document, .owner = &reply}, e)) {
        http_reply_end(call->request);
        return true;
    }
    if (!reply.has_begun)
        return false;
    http_reply_abort(call->request); /* the reader must not take a part for the whole */
    return true;
}
