/* Schedules: workflows that begin by the clock. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/workflow/schedule.h"

static void put_text(struct json_writer *w, const char *name, str text)
{
    json_key(w, str_from_cstr(name));
    if (str_is_empty(text))
        json_write_null(w);
    else
        json_write_str(w, text);
}

static bool write_schedule(struct api_call *call, struct json_writer *w, const struct record *row,
                           struct error *e)
{
    (void) call;
    (void) e;
    json_object_begin(w);
    json_put_str(w, S("name"), record_text(row, SCHEDULES_NAME));
    json_put_str(w, S("workflow"), record_text(row, SCHEDULES_WORKFLOW));
    json_put_str(w, S("cron"), record_text(row, SCHEDULES_CRON));
    json_put_str(w, S("time_zone"), record_text(row, SCHEDULES_TIME_ZONE));
    json_put_raw(w, S("input"), record_text(row, SCHEDULES_INPUT));
    json_put_str(w, S("missed"), record_text(row, SCHEDULES_MISSED));
    json_put_str(w, S("overlap"), record_text(row, SCHEDULES_OVERLAP));
    json_put_bool(w, S("paused"), record_integer(row, SCHEDULES_IS_PAUSED) != 0);
    json_put_str(w, S("user_id"), record_text(row, SCHEDULES_USER_ID));
    json_put_str(w, S("role"), record_text(row, SCHEDULES_ROLE));
    put_time(w, S("next_at"), record_integer(row, SCHEDULES_NEXT_AT));
    put_time(w, S("last_at"), record_integer(row, SCHEDULES_LAST_AT));
    put_id(w, S("last_run_id"), record_uuid(row, SCHEDULES_LAST_RUN_ID));
    put_text(w, "last_error", record_text(row, SCHEDULES_LAST_ERROR));
    json_put_i64(w, S("revision"), record_integer(row, SCHEDULES_REVISION));
    put_time(w, S("updated_at"), record_integer(row, SCHEDULES_UPDATED_AT));
    json_object_end(w);
    return true;
}

static bool reply_schedule(struct api_call *call, const struct record *row, int status,
                           struct error *e)
{
    struct reply_writer writer;
    return write_schedule(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, status, e);
}

bool route_schedule_list(struct api_call *call, struct error *e)
{
    struct records rows;
    str cursor;
    size_t limit;
    return query_page(call, &cursor, &limit, e) &&
           schedule_list(call->gateway->orchestrator, call->ctx, &call->principal, cursor, limit,
                         &rows, e) &&
           reply_page(call, &rows, write_schedule, e);
}

bool route_schedule_get(struct api_call *call, struct error *e)
{
    struct record row;
    str name;
    return param_text(call, 0, &name, e) &&
           schedule_get(call->gateway->orchestrator, call->ctx, &call->principal, name, &row, e) &&
           reply_schedule(call, &row, 200, e);
}

static bool read_schedule(struct api_call *call, struct schedule_request *out, struct error *e)
{
    const struct json *body = call->json, *input = json_get(body, S("input"));
    *out = (struct schedule_request){0};
    if (input)
        out->input = json_print(call->ctx->arena, input);
    return param_text(call, 0, &out->name, e) &&
           json_need_str(body, S("workflow"), &out->workflow, e) &&
           json_need_str(body, S("cron"), &out->cron, e) &&
           json_read_str(body, S("time_zone"), &out->time_zone, e) &&
           json_read_str(body, S("missed"), &out->missed, e) &&
           json_read_str(body, S("overlap"), &out->overlap, e) &&
           json_read_bool(body, S("paused"), &out->is_paused, e);
}

bool route_schedule_put(struct api_call *call, struct error *e)
{
    struct schedule_request request;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    bool is_new;
    return read_schedule(call, &request, e) &&
           schedule_put(call->gateway->orchestrator, call->ctx, &call->principal, &request, row,
                        &is_new, e) &&
           reply_schedule(call, row, is_new ? 201 : 200, e);
}

bool route_schedule_remove(struct api_call *call, struct error *e)
{
    str name;
    if (!param_text(call, 0, &name, e) ||
        !schedule_remove(call->gateway->orchestrator, call->ctx, &call->principal, name, e))
        return false;
    reply_empty(call, 204);
    return true;
}

static bool change_pause(struct api_call *call, bool is_paused, struct error *e)
{
    struct record row;
    str name;
    return param_text(call, 0, &name, e) &&
           schedule_pause(call->gateway->orchestrator, call->ctx, &call->principal, name, is_paused,
                          &row, e) &&
           reply_schedule(call, &row, 200, e);
}

bool route_schedule_pause(struct api_call *call, struct error *e)
{
    return change_pause(call, true, e);
}

bool route_schedule_resume(struct api_call *call, struct error *e)
{
    return change_pause(call, false, e);
}

bool route_schedule_run(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    uuid run_id, session_id;
    str name;
    if (!param_text(call, 0, &name, e) ||
        !schedule_run_now(call->gateway->orchestrator, call->ctx, &call->principal, name, &run_id,
                          &session_id, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    str id = uuid_str(call->ctx->arena, run_id);
    json_object_begin(w);
    json_put_str(w, S("run_id"), id);
    put_id(w, S("session_id"), session_id);
    json_put_str(w, S("events"),
                 str_printf(call->ctx->arena, "/api/v1/runs/" STR_FMT "/events", STR_ARG(id)));
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}
