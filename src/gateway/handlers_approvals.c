/* Approvals: shown whole, decided by digest. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"

/* The subject twice: as data, byte for byte what the digest covers, and as text in which nothing can hide. */
static bool write_approval(struct api_call *call, struct json_writer *w, const struct record *row,
                           struct error *e)
{
    (void) e;
    str subject = record_text(row, APPROVALS_SUBJECT);
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, APPROVALS_ID));
    put_id(w, S("run_id"), record_uuid(row, APPROVALS_RUN_ID));
    put_id(w, S("session_id"), record_uuid(row, APPROVALS_SESSION_ID));
    put_id(w, S("tool_call_id"), record_uuid(row, APPROVALS_TOOL_CALL_ID));
    json_put_str(w, S("action"), record_text(row, APPROVALS_ACTION));
    json_put_str(w, S("status"), record_text(row, APPROVALS_STATUS));
    json_put_str(w, S("digest"), record_text(row, APPROVALS_DIGEST));
    json_put_raw(w, S("subject"), subject);
    json_put_str(w, S("shown"), text_made_visible(call->ctx->arena, subject));
    json_put_str(w, S("user_id"), record_text(row, APPROVALS_USER_ID));
    json_put_str(w, S("requested_by"), record_text(row, APPROVALS_REQUESTED_BY));
    json_put_str(w, S("approver"), record_text(row, APPROVALS_APPROVER));
    json_put_str(w, S("reason"), record_text(row, APPROVALS_REASON));
    put_time(w, S("created_at"), record_integer(row, APPROVALS_CREATED_AT));
    put_time(w, S("decided_at"), record_integer(row, APPROVALS_DECIDED_AT));
    put_time(w, S("expires_at"), record_integer(row, APPROVALS_EXPIRES_AT));
    json_object_end(w);
    return true;
}

bool route_approval_list(struct api_call *call, struct error *e)
{
    static const str states[] = {S_INIT("pending"), S_INIT("approved"), S_INIT("denied"),
                                 S_INIT("expired"), S_INIT("consumed")};
    str cursor, status = query_text(call, S("status"));
    size_t limit;
    struct records rows;
    bool is_known = str_is_empty(status);
    for (size_t i = 0; i < ARRAY_COUNT(states); i++)
        is_known = is_known || str_equal(status, states[i]);
    if (!is_known)
        return error_set(e, REASON_INVALID,
                         "?status= must be pending, approved, denied, expired or consumed");
    return query_page(call, &cursor, &limit, e) &&
           approval_list(call->gateway->orchestrator, call->ctx, &call->principal, status, cursor,
                         limit, &rows, e) &&
           reply_page(call, &rows, write_approval, e);
}

static bool reply_approval(struct api_call *call, uuid id, struct error *e)
{
    struct reply_writer writer;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return approval_get(call->gateway->orchestrator, call->ctx, &call->principal, id, row, e) &&
           write_approval(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, 200, e);
}

bool route_approval_get(struct api_call *call, struct error *e)
{
    uuid id;
    return param_uuid(call, 0, "approval", &id, e) && reply_approval(call, id, e);
}

bool route_approval_decide(struct api_call *call, struct error *e)
{
    struct approval_decision request = {0};
    return param_uuid(call, 0, "approval", &request.approval_id, e) &&
           body_read_decision(call->json, &request, e) &&
           approval_decide(call->gateway->orchestrator, call->ctx, &call->principal, &request, e) &&
           reply_approval(call, request.approval_id, e);
}
