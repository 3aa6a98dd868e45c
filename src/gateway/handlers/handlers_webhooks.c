/* Webhooks: doors for signed requests, endpoints that are told, and what is on its way to them. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/webhook/webhook.h"

static struct orchestrator *orchestrator_of(struct api_call *call)
{
    return call->gateway->orchestrator;
}

static void put_text(struct json_writer *w, const char *name, str text)
{
    json_key(w, str_from_cstr(name));
    if (str_is_empty(text))
        json_write_null(w);
    else
        json_write_str(w, text);
}

static void put_json(struct json_writer *w, const char *name, str text, const char *otherwise)
{
    json_put_raw(w, str_from_cstr(name), str_is_empty(text) ? str_from_cstr(otherwise) : text);
}

/* ---- doors ---- */

static void write_members(struct api_call *call, struct json_writer *w, const struct record *row)
{
    str name = record_text(row, WEBHOOKS_NAME);
    json_put_str(w, S("name"), name);
    json_put_str(w, S("path"),
                 str_printf(call->ctx->arena, "/api/v1/hooks/" STR_FMT "/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, call->principal.tenant_id)),
                            STR_ARG(name)));
    json_put_str(w, S("scheme"), record_text(row, WEBHOOKS_SCHEME));
    put_text(w, "workflow", record_text(row, WEBHOOKS_WORKFLOW));
    put_text(w, "signal_name", record_text(row, WEBHOOKS_SIGNAL_NAME));
    put_text(w, "run_pointer", record_text(row, WEBHOOKS_RUN_POINTER));
    json_put_str(w, S("user_id"), record_text(row, WEBHOOKS_USER_ID));
    json_put_str(w, S("role"), record_text(row, WEBHOOKS_ROLE));
    put_time(w, S("previous_secret_until"), record_integer(row, WEBHOOKS_PREVIOUS_UNTIL));
    put_time(w, S("created_at"), record_integer(row, WEBHOOKS_CREATED_AT));
}

static bool write_webhook(struct api_call *call, struct json_writer *w, const struct record *row,
                          struct error *e)
{
    (void) e;
    json_object_begin(w);
    write_members(call, w, row);
    json_object_end(w);
    return true;
}

/* `secret` empty: it is not shown again. */
static bool reply_webhook(struct api_call *call, const struct record *row, str secret, int status,
                          struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    write_members(call, w, row);
    if (!str_is_empty(secret))
        json_put_str(w, S("secret"), secret);
    json_object_end(w);
    return reply_writer_send(&writer, call, status, e);
}

bool route_webhook_list(struct api_call *call, struct error *e)
{
    struct records rows;
    str cursor;
    size_t limit;
    return query_page(call, &cursor, &limit, e) &&
           webhook_list(orchestrator_of(call), call->ctx, &call->principal, cursor, limit, &rows,
                        e) &&
           reply_page(call, &rows, write_webhook, e);
}

bool route_webhook_get(struct api_call *call, struct error *e)
{
    struct record row;
    str name;
    return param_text(call, 0, &name, e) &&
           webhook_get(orchestrator_of(call), call->ctx, &call->principal, name, &row, e) &&
           reply_webhook(call, &row, STR_NONE, 200, e);
}

bool route_webhook_create(struct api_call *call, struct error *e)
{
    struct webhook_request request = {0};
    const struct json *body = call->json;
    struct record row;
    str secret;
    return json_need_str(body, S("name"), &request.name, e) &&
           json_read_str(body, S("workflow"), &request.workflow, e) &&
           json_read_str(body, S("signal_name"), &request.signal_name, e) &&
           json_read_str(body, S("run_pointer"), &request.run_pointer, e) &&
           json_read_str(body, S("scheme"), &request.scheme, e) &&
           json_read_str(body, S("secret"), &request.secret, e) &&
           webhook_create(orchestrator_of(call), call->ctx, &call->principal, &request, &row,
                          &secret, e) &&
           reply_webhook(call, &row, secret, 201, e);
}

bool route_webhook_remove(struct api_call *call, struct error *e)
{
    str name;
    if (!param_text(call, 0, &name, e) ||
        !webhook_remove(orchestrator_of(call), call->ctx, &call->principal, name, e))
        return false;
    reply_empty(call, 204);
    return true;
}

static bool read_rotation(struct api_call *call, struct webhook_rotation *out, struct error *e)
{
    int64_t overlap_s = -1;
    *out = (struct webhook_rotation){.overlap_ms = -1};
    if (!json_read_str(call->json, S("secret"), &out->secret, e) ||
        !json_read_i64(call->json, S("overlap_seconds"), 0, WEBHOOK_WEEK_MS / 1000, &overlap_s, e))
        return false;
    if (overlap_s >= 0)
        out->overlap_ms = overlap_s * 1000;
    return true;
}

bool route_webhook_rotate(struct api_call *call, struct error *e)
{
    struct webhook_rotation rotation;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    str name, secret;
    return param_text(call, 0, &name, e) && read_rotation(call, &rotation, e) &&
           webhook_rotate(orchestrator_of(call), call->ctx, &call->principal, name, &rotation, row,
                          &secret, e) &&
           reply_webhook(call, row, secret, 200, e);
}

static bool reply_outcome(struct api_call *call, const struct webhook_outcome *outcome,
                          struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_id(w, S("run_id"), outcome->run_id);
    if (!uuid_is_none(outcome->session_id))
        put_id(w, S("session_id"), outcome->session_id);
    if (!uuid_is_none(outcome->signal_id))
        put_id(w, S("signal_id"), outcome->signal_id);
    json_put_bool(w, S("repeated"), outcome->is_repeat);
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}

bool route_webhook_test(struct api_call *call, struct error *e)
{
    struct webhook_outcome outcome;
    const struct json *body = json_get(call->json, S("body"));
    str name, text = body ? json_print(call->ctx->arena, body) : S("{}");
    return param_text(call, 0, &name, e) &&
           webhook_try(orchestrator_of(call), call->ctx, &call->principal, name, text, &outcome,
                       e) &&
           reply_outcome(call, &outcome, e);
}

/* ---- signed requests ---- */

/* Whose it is, is known now: their rates count, and their name stands in the log. */
static bool admit(void *owner, const struct principal *principal, struct error *e)
{
    struct api_call *call = owner;
    call->principal = *principal;
    return middleware_limit_as(call, principal, e);
}

bool route_hook_receive(struct api_call *call, struct error *e)
{
    const struct http_headers *headers = &call->request->headers;
    struct webhook_header *given =
        ARENA_ARRAY(call->ctx->arena, struct webhook_header, headers->count);
    struct webhook_outcome outcome;
    struct error malformed = {0};
    for (size_t i = 0; i < headers->count; i++)
        given[i] = (struct webhook_header){headers->items[i].name, headers->items[i].value};
    str agent = str_cut_utf8(http_request_header(call->request, S("User-Agent")), 512);
    struct webhook_post post = {
        .headers = given,
        .header_count = headers->count,
        .ip_address = str_from_cstr(call->request->peer_address),
        .user_agent = str_is_utf8(agent) ? agent : STR_NONE,
        .request_id = call->request_id,
        .admit = admit,
        .owner = call,
    };
    if (!param_text(call, 0, &post.tenant, &malformed) ||
        !param_text(call, 1, &post.name, &malformed))
        post.tenant = post.name = STR_NONE; /* there is none of that name */
    return http_request_read_all(call->request, WEBHOOK_BODY_BYTES_MAX, &post.body, e) &&
           webhook_receive(orchestrator_of(call), call->ctx, &post, &outcome, e) &&
           reply_outcome(call, &outcome, e);
}

/* ---- endpoints ---- */

static void write_endpoint_members(struct json_writer *w, const struct record *row)
{
    json_put_str(w, S("name"), record_text(row, WEBHOOK_ENDPOINTS_NAME));
    json_put_str(w, S("url"), record_text(row, WEBHOOK_ENDPOINTS_URL));
    put_json(w, "events", record_text(row, WEBHOOK_ENDPOINTS_EVENTS), "[]");
    put_json(w, "include", record_text(row, WEBHOOK_ENDPOINTS_INCLUDE), "[]");
    json_put_bool(w, S("paused"), record_integer(row, WEBHOOK_ENDPOINTS_IS_PAUSED) != 0);
    put_text(w, "paused_why", record_text(row, WEBHOOK_ENDPOINTS_PAUSED_WHY));
    json_put_str(w, S("user_id"), record_text(row, WEBHOOK_ENDPOINTS_USER_ID));
    put_time(w, S("previous_secret_until"), record_integer(row, WEBHOOK_ENDPOINTS_PREVIOUS_UNTIL));
    put_time(w, S("created_at"), record_integer(row, WEBHOOK_ENDPOINTS_CREATED_AT));
}

static bool write_endpoint(struct api_call *call, struct json_writer *w, const struct record *row,
                           struct error *e)
{
    (void) call;
    (void) e;
    json_object_begin(w);
    write_endpoint_members(w, row);
    json_object_end(w);
    return true;
}

static bool reply_endpoint(struct api_call *call, const struct record *row, str secret, int status,
                           struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    write_endpoint_members(w, row);
    if (!str_is_empty(secret))
        json_put_str(w, S("secret"), secret);
    json_object_end(w);
    return reply_writer_send(&writer, call, status, e);
}

bool route_webhook_endpoint_list(struct api_call *call, struct error *e)
{
    struct records rows;
    str cursor;
    size_t limit;
    return query_page(call, &cursor, &limit, e) &&
           webhook_endpoint_list(orchestrator_of(call), call->ctx, &call->principal, cursor, limit,
                                 &rows, e) &&
           reply_page(call, &rows, write_endpoint, e);
}

bool route_webhook_endpoint_get(struct api_call *call, struct error *e)
{
    struct record row;
    str name;
    return param_text(call, 0, &name, e) &&
           webhook_endpoint_get(orchestrator_of(call), call->ctx, &call->principal, name, &row,
                                e) &&
           reply_endpoint(call, &row, STR_NONE, 200, e);
}

bool route_webhook_endpoint_create(struct api_call *call, struct error *e)
{
    const struct json *body = call->json;
    struct webhook_endpoint_request request = {.events = json_get(body, S("events")),
                                               .include = json_get(body, S("include"))};
    struct record row;
    str secret;
    return json_need_str(body, S("name"), &request.name, e) &&
           json_need_str(body, S("url"), &request.url, e) &&
           json_read_str(body, S("secret"), &request.secret, e) &&
           webhook_endpoint_create(orchestrator_of(call), call->ctx, &call->principal, &request,
                                   &row, &secret, e) &&
           reply_endpoint(call, &row, secret, 201, e);
}

bool route_webhook_endpoint_remove(struct api_call *call, struct error *e)
{
    str name;
    if (!param_text(call, 0, &name, e) ||
        !webhook_endpoint_remove(orchestrator_of(call), call->ctx, &call->principal, name, e))
        return false;
    reply_empty(call, 204);
    return true;
}

static bool change_pause(struct api_call *call, bool is_paused, struct error *e)
{
    struct record row;
    str name;
    return param_text(call, 0, &name, e) &&
           webhook_endpoint_pause(orchestrator_of(call), call->ctx, &call->principal, name,
                                  is_paused, &row, e) &&
           reply_endpoint(call, &row, STR_NONE, 200, e);
}

bool route_webhook_endpoint_pause(struct api_call *call, struct error *e)
{
    return change_pause(call, true, e);
}

bool route_webhook_endpoint_resume(struct api_call *call, struct error *e)
{
    return change_pause(call, false, e);
}

bool route_webhook_endpoint_rotate(struct api_call *call, struct error *e)
{
    struct webhook_rotation rotation;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    str name, secret;
    return param_text(call, 0, &name, e) && read_rotation(call, &rotation, e) &&
           webhook_endpoint_rotate(orchestrator_of(call), call->ctx, &call->principal, name,
                                   &rotation, row, &secret, e) &&
           reply_endpoint(call, row, secret, 200, e);
}

bool route_webhook_endpoint_test(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    uuid id;
    str name;
    if (!param_text(call, 0, &name, e) ||
        !webhook_endpoint_test(orchestrator_of(call), call->ctx, &call->principal, name, &id, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_id(w, S("delivery_id"), id);
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}

bool route_webhook_endpoint_redeliver(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    int64_t count;
    bool is_more;
    str name;
    if (!param_text(call, 0, &name, e) ||
        !webhook_redeliver(orchestrator_of(call), call->ctx, &call->principal, name, &count,
                           &is_more, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_i64(w, S("count"), count);
    json_put_bool(w, S("more"), is_more);
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}

/* ---- deliveries ---- */

static bool write_delivery(struct api_call *call, struct json_writer *w, const struct record *row,
                           struct error *e)
{
    (void) call;
    (void) e;
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, WEBHOOK_DELIVERIES_ID));
    json_put_str(w, S("endpoint"), record_text(row, WEBHOOK_DELIVERIES_ENDPOINT));
    json_put_str(w, S("event"), record_text(row, WEBHOOK_DELIVERIES_EVENT));
    json_put_str(w, S("status"), record_text(row, WEBHOOK_DELIVERIES_STATUS));
    json_put_i64(w, S("attempts"), record_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS));
    put_json(w, "body", record_text(row, WEBHOOK_DELIVERIES_BODY), "null");
    put_text(w, "last_error", record_text(row, WEBHOOK_DELIVERIES_LAST_ERROR));
    put_time(w, S("next_at"), record_integer(row, WEBHOOK_DELIVERIES_NEXT_AT));
    put_time(w, S("created_at"), record_integer(row, WEBHOOK_DELIVERIES_CREATED_AT));
    put_time(w, S("done_at"), record_integer(row, WEBHOOK_DELIVERIES_DONE_AT));
    json_object_end(w);
    return true;
}

static bool reply_delivery(struct api_call *call, const struct record *row, int status,
                           struct error *e)
{
    struct reply_writer writer;
    return write_delivery(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, status, e);
}

bool route_webhook_delivery_list(struct api_call *call, struct error *e)
{
    struct webhook_delivery_filter filter = {.endpoint = query_text(call, S("endpoint")),
                                             .status = query_text(call, S("status"))};
    struct records rows;
    str cursor;
    size_t limit;
    return query_page(call, &cursor, &limit, e) &&
           webhook_delivery_list(orchestrator_of(call), call->ctx, &call->principal, &filter,
                                 cursor, limit, &rows, e) &&
           reply_page(call, &rows, write_delivery, e);
}

bool route_webhook_delivery_get(struct api_call *call, struct error *e)
{
    struct record row;
    uuid id;
    return param_uuid(call, 0, "delivery", &id, e) &&
           webhook_delivery_get(orchestrator_of(call), call->ctx, &call->principal, id, &row, e) &&
           reply_delivery(call, &row, 200, e);
}

bool route_webhook_delivery_retry(struct api_call *call, struct error *e)
{
    struct record row;
    uuid id;
    return param_uuid(call, 0, "delivery", &id, e) &&
           webhook_delivery_retry(orchestrator_of(call), call->ctx, &call->principal, id, &row,
                                  e) &&
           reply_delivery(call, &row, 202, e);
}
