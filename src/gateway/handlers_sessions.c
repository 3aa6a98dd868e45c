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
           session_list(call->gateway->orchestrator, call->ctx, &call->principal, cursor, limit,
                        &rows, e) &&
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
    *query = query_of(TABLE_MESSAGES);
    if (!find_session(call, &id, &session, e) ||
        !query_page(call, &query->cursor, &query->limit, e))
        return false;
    query_where_uuid(query, MESSAGES_SESSION_ID, id);
    return store_list(call->gateway->store, call->ctx, call->principal.tenant_id, query, &rows,
                      e) &&
           reply_page(call, &rows, write_message, e);
}

static str run_started_text(struct arena *arena, uuid session_id, uuid run_id)
{
    str run = uuid_str(arena, run_id), session = uuid_str(arena, session_id);
    return str_printf(arena,
                      "{\"run_id\":\"" STR_FMT "\",\"session_id\":\"" STR_FMT
                      "\",\"events\":\"/api/v1/runs/" STR_FMT "/events\"}",
                      STR_ARG(run), STR_ARG(session), STR_ARG(run));
}

bool route_message_create(struct api_call *call, struct error *e)
{
    struct run_request request = {0};
    uuid run_id;
    bool is_stream;
    if (!param_uuid(call, 0, "session", &request.session_id, e) ||
        !body_read_message(call->ctx->arena, call->json, &request, &is_stream, e))
        return false;
    if (is_stream && !middleware_take_stream(call, e))
        return false;
    /* Nobody waits for the run's end here: its message is what counts against the rate. */
    if (!middleware_take_tokens(call, (int64_t) request.content.len / 4 + 1, e) ||
        !run_start(call->gateway->orchestrator, call->ctx, &call->principal, &request, &run_id, e))
        return false;
    str text = run_started_text(call->ctx->arena, request.session_id, run_id);
    reply_header(call, S("Nexus-Run-Id"), uuid_str(call->ctx->arena, run_id));
    if (is_stream) {
        idempotency_finish(call, 202,
                           text); /* a repeat gets the run's id, and from there its events */
        return events_stream(call, run_id, 0, e);
    }
    reply_header(call, S("Location"),
                 str_printf(call->ctx->arena, "/api/v1/runs/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, run_id))));
    reply_json(call, 202, text);
    return true;
}
