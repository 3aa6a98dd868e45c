/* Approvals: shown whole, decided by digest. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/approval/approval.h"

/* What a person typed: nothing can hide in it when it is shown. */
static void put_shown(struct api_call *call, struct json_writer *w, str key, str text)
{
    json_put_str(w, key, text_made_visible(call->ctx->arena, text));
}

static void put_or_null(struct json_writer *w, str key, str json_text)
{
    json_put_raw(w, key, str_is_empty(json_text) ? S("null") : json_text);
}

/* Who must approve and who has; of one that is decided nothing is needed any more. */
static void write_quorum(struct json_writer *w, const struct record *row)
{
    int64_t quorum = record_integer(row, APPROVALS_QUORUM),
            given = record_integer(row, APPROVALS_VOTES);
    bool is_open = str_equal(record_text(row, APPROVALS_STATUS), S("pending"));
    quorum = quorum > 0 ? quorum : 1;
    json_put_i64(w, S("quorum"), quorum);
    json_put_i64(w, S("given"), given);
    json_put_i64(w, S("needed"), is_open && quorum > given ? quorum - given : 0);
    put_or_null(w, S("approvers"), record_text(row, APPROVALS_APPROVERS));
    put_time(w, S("remind_at"), record_integer(row, APPROVALS_REMIND_AT));
    json_put_i64(w, S("reminders"), record_integer(row, APPROVALS_REMINDERS));
}

/* The subject twice: as data, byte for byte what the digest covers, and as text in which nothing can hide. */
static void write_members(struct api_call *call, struct json_writer *w, const struct record *row)
{
    str subject = record_text(row, APPROVALS_SUBJECT);
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
    put_shown(call, w, S("reason"), record_text(row, APPROVALS_REASON));
    write_quorum(w, row);
    put_time(w, S("created_at"), record_integer(row, APPROVALS_CREATED_AT));
    put_time(w, S("decided_at"), record_integer(row, APPROVALS_DECIDED_AT));
    put_time(w, S("expires_at"), record_integer(row, APPROVALS_EXPIRES_AT));
}

static bool write_approval(struct api_call *call, struct json_writer *w, const struct record *row,
                           struct error *e)
{
    (void) e;
    json_object_begin(w);
    write_members(call, w, row);
    json_object_end(w);
    return true;
}

static void write_vote(struct api_call *call, struct json_writer *w, const struct record *row)
{
    json_object_begin(w);
    json_put_i64(w, S("number"), record_integer(row, APPROVAL_VOTES_NUMBER));
    json_put_str(w, S("approver"), record_text(row, APPROVAL_VOTES_APPROVER));
    json_put_str(w, S("decision"), record_text(row, APPROVAL_VOTES_DECISION));
    if (record_has(row, APPROVAL_VOTES_DELEGATED_BY))
        json_put_str(w, S("delegated_by"), record_text(row, APPROVAL_VOTES_DELEGATED_BY));
    if (record_has(row, APPROVAL_VOTES_REASON))
        put_shown(call, w, S("reason"), record_text(row, APPROVAL_VOTES_REASON));
    put_time(w, S("created_at"), record_integer(row, APPROVAL_VOTES_CREATED_AT));
    json_object_end(w);
}

bool route_approval_list(struct api_call *call, struct error *e)
{
    str cursor, status = query_text(call, S("status"));
    size_t limit;
    struct records rows;
    return query_page(call, &cursor, &limit, e) &&
           approval_list(call->gateway->orchestrator, call->ctx, &call->principal, status, cursor,
                         limit, &rows, e) &&
           reply_page(call, &rows, write_approval, e);
}

static never_inline bool reply_approval(struct api_call *call, uuid id, struct error *e)
{
    struct reply_writer writer;
    struct records votes;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    struct orchestrator *o = call->gateway->orchestrator;
    if (!approval_get(o, call->ctx, &call->principal, id, row, e) ||
        !approval_votes(o, call->ctx, &call->principal, id, &votes, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    write_members(call, w, row);
    json_key(w, S("votes"));
    json_array_begin(w);
    for (size_t i = 0; i < votes.count; i++)
        write_vote(call, w, &votes.items[i]);
    json_array_end(w);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
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

/* ---- delegation ---- */

static bool write_delegation(struct api_call *call, struct json_writer *w, const struct record *row,
                             struct error *e)
{
    (void) e;
    json_object_begin(w);
    json_put_str(w, S("from"), record_text(row, APPROVAL_DELEGATIONS_FROM_USER));
    json_put_str(w, S("to"), record_text(row, APPROVAL_DELEGATIONS_TO_USER));
    put_shown(call, w, S("reason"), record_text(row, APPROVAL_DELEGATIONS_REASON));
    put_time(w, S("created_at"), record_integer(row, APPROVAL_DELEGATIONS_CREATED_AT));
    put_time(w, S("expires_at"), record_integer(row, APPROVAL_DELEGATIONS_EXPIRES_AT));
    json_object_end(w);
    return true;
}

bool route_delegation_list(struct api_call *call, struct error *e)
{
    str cursor;
    size_t limit;
    struct records rows;
    return query_page(call, &cursor, &limit, e) &&
           approval_delegations(call->gateway->orchestrator, call->ctx, &call->principal, cursor,
                                limit, &rows, e) &&
           reply_page(call, &rows, write_delegation, e);
}

bool route_delegation_add(struct api_call *call, struct error *e)
{
    struct approval_delegation wanted = {0};
    struct reply_writer writer;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return body_read_delegation(call->json, &wanted, e) &&
           approval_delegate(call->gateway->orchestrator, call->ctx, &call->principal, &wanted, row,
                             e) &&
           write_delegation(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, 201, e);
}

bool route_delegation_remove(struct api_call *call, struct error *e)
{
    str from, to;
    if (!param_text(call, 0, &from, e) || !param_text(call, 1, &to, e) ||
        !approval_delegation_revoke(call->gateway->orchestrator, call->ctx, &call->principal, from,
                                    to, e))
        return false;
    reply_empty(call, 204);
    return true;
}
