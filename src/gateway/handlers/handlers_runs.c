/* Runs and their events. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/ledger/ledger.h"
#include "orchestrator/run/run_below.h"

static bool write_run(struct api_call *call, struct json_writer *w, const struct record *row,
                      struct error *e)
{
    (void) call, (void) e;
    run_write_json(w, row);
    return true;
}

bool route_run_list(struct api_call *call, struct error *e)
{
    str cursor, session = query_text(call, S("session_id"));
    size_t limit;
    struct run_filter filter = {.status = query_text(call, S("status")),
                                .agent = query_text(call, S("agent")),
                                .workflow = query_text(call, S("workflow"))};
    struct records rows;
    if (!str_is_empty(session) && !uuid_parse(session, &filter.session_id))
        return error_set(e, REASON_INVALID, "?session_id= must be a UUID");
    return query_page(call, &cursor, &limit, e) &&
           run_list(call->gateway->orchestrator, call->ctx, &call->principal, &filter, cursor,
                    limit, &rows, e) &&
           reply_page(call, &rows, write_run, e);
}

static void put_below(struct json_writer *w, const struct run_below *below)
{
    json_put_i64(w, S("children"), below->children);
    json_key(w, S("cost_total"));
    if (below->is_whole)
        cost_write_json(w, below->spent);
    else
        json_write_null(w);
}

static void put_waits(struct json_writer *w, const struct run_wait *waits, size_t count)
{
    json_key(w, S("waiting_on"));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) {
        json_object_begin(w);
        put_id(w, S("approval_id"), waits[i].approval_id);
        put_id(w, S("run_id"), waits[i].run_id);
        json_object_end(w);
    }
    json_array_end(w);
}

bool route_run_get(struct api_call *call, struct error *e)
{
    uuid id;
    struct reply_writer writer;
    struct run_below below;
    struct run_wait *waits;
    size_t wait_count;
    struct orchestrator *o = call->gateway->orchestrator;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    if (!param_uuid(call, 0, "run", &id, e) ||
        !run_get(o, call->ctx, &call->principal, id, row, e) ||
        !run_below_read(o, call->ctx, &call->principal, row, &below, e) ||
        !run_waits_read(o, call->ctx, &call->principal, row, &waits, &wait_count, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    run_write_members(w, row);
    put_below(w, &below);
    put_waits(w, waits, wait_count);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_run_children(struct api_call *call, struct error *e)
{
    uuid id;
    str cursor;
    size_t limit;
    struct records rows;
    return param_uuid(call, 0, "run", &id, e) && query_page(call, &cursor, &limit, e) &&
           run_children(call->gateway->orchestrator, call->ctx, &call->principal, id, cursor, limit,
                        &rows, e) &&
           reply_page(call, &rows, write_run, e);
}

/* A reconnecting client's header wins over the address it first asked for. */
static bool read_position(struct api_call *call, int64_t *after, struct error *e)
{
    str last = http_request_header(call->request, S("Last-Event-ID"));
    if (str_is_empty(last))
        return query_i64(call, S("after"), 0, INT64_MAX, after, e);
    if (str_to_i64(last, after) && *after >= 0)
        return true;
    return error_set(e, REASON_INVALID, "Last-Event-ID must be the number of an event");
}

bool route_run_events(struct api_call *call, struct error *e)
{
    uuid id;
    int64_t after = 0, limit = STORE_PAGE_MAX;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    str accept = http_request_header(call->request, S("Accept"));
    if (!param_uuid(call, 0, "run", &id, e) || !read_position(call, &after, e) ||
        !query_i64(call, S("limit"), 1, STORE_PAGE_MAX, &limit, e) ||
        !run_get(call->gateway->orchestrator, call->ctx, &call->principal, id, row, e))
        return false;
    bool wants_json = str_find(accept, S("application/json")) != STR_NOT_FOUND &&
                      str_find(accept, S("text/event-stream")) == STR_NOT_FOUND;
    if (wants_json)
        return events_list(call, id, after, limit, e);
    enum run_status status;
    bool is_final = run_status_parse(record_text(row, AGENT_RUNS_STATUS), &status) &&
                    run_status_is_final(status);
    if (is_final && after > 0) {
        struct events rest;
        if (!journal_read(call->gateway->store, call->ctx, call->principal.tenant_id, id, after, 1,
                          &rest, e))
            return false;
        if (rest.count == 0) { /* 204 tells an EventSource not to come back */
            reply_empty(call, 204);
            return true;
        }
    }
    return middleware_take_stream(call, e) && events_stream(call, id, after, e);
}

bool route_run_cancel(struct api_call *call, struct error *e)
{
    uuid id;
    if (!param_uuid(call, 0, "run", &id, e) ||
        !run_cancel(call->gateway->orchestrator, call->ctx, &call->principal, id, e))
        return false;
    str text = uuid_str(call->ctx->arena, id);
    reply_json(call, 202,
               str_printf(call->ctx->arena,
                          "{\"run_id\":\"" STR_FMT "\",\"status\":\"cancelling\"}", STR_ARG(text)));
    return true;
}
