/* Delegation: who may approve in another's place, until when. */
#include "base/arena.h"
#include "orchestrator/approval_internal.h"

static bool check_wanted(struct orchestrator *o, const struct principal *principal,
                         const struct approval_delegation *wanted, struct error *e)
{
    int64_t now_us = clock_unix_us(o->parts.clock);
    if (!approval_check_credential(principal, e))
        return false;
    if (!approval_may_decide(principal))
        return error_set(e, REASON_DENIED,
                         "who may not decide approvals cannot let others do it; what was delegated "
                         "to you does not pass on");
    if (str_is_empty(wanted->to_user) || wanted->to_user.len > APPROVAL_PERSON_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "to must name a user with 1 to %u bytes",
                         APPROVAL_PERSON_BYTES_MAX);
    if (str_equal(wanted->to_user, principal->user_id))
        return error_set(e, REASON_SCHEMA, "nobody delegates to themselves");
    if (wanted->reason.len > APPROVAL_REASON_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "reason is over %u bytes", APPROVAL_REASON_BYTES_MAX);
    if (wanted->expires_us <= now_us)
        return error_set(e, REASON_SCHEMA, "expires_at is in the past");
    if (wanted->expires_us > now_us + APPROVAL_DELEGATION_MS_MAX * 1000)
        return error_set(e, REASON_SCHEMA, "a delegation ends within %lld days",
                         APPROVAL_DELEGATION_MS_MAX / 86400000);
    return true;
}

static void audit_change(struct orchestrator *o, struct context *ctx, struct batch *batch,
                         const struct principal *principal, str action, str from, str to)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 8192);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("from"), from);
    json_put_str(&w, S("to"), to);
    json_object_end(&w);
    audit_add(batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = action,
                                    .resource_type = S("approval_delegation"),
                                    .resource_id = from,
                                    .details = strbuf_str(&text)});
}

bool approval_delegate(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, const struct approval_delegation *wanted,
                       struct record *out, struct error *e)
{
    struct batch batch;
    struct persons *behind = ARENA_NEW(ctx->arena, struct persons);
    if (!check_wanted(o, principal, wanted, e) || !approval_makers_of(o, ctx, principal, behind, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    batch.fault = "approval_delegate";
    struct record *row = batch_add(&batch, WRITE_UPSERT, TABLE_APPROVAL_DELEGATIONS);
    record_set_text(row, APPROVAL_DELEGATIONS_FROM_USER, principal->user_id);
    record_set_text(row, APPROVAL_DELEGATIONS_TO_USER, wanted->to_user);
    record_set_text(row, APPROVAL_DELEGATIONS_PERSONS, persons_json(ctx->arena, behind));
    record_set_integer(row, APPROVAL_DELEGATIONS_CREATED_AT, clock_unix_us(o->parts.clock));
    record_set_integer(row, APPROVAL_DELEGATIONS_EXPIRES_AT, wanted->expires_us);
    if (str_is_empty(wanted->reason))
        record_set_null(row, APPROVAL_DELEGATIONS_REASON);
    else
        record_set_text(row, APPROVAL_DELEGATIONS_REASON, wanted->reason);
    *out = *row; /* the batch may move its rows */
    audit_change(o, ctx, &batch, principal, S("approval.delegate"), principal->user_id,
                 wanted->to_user);
    return store_commit(o->parts.store, ctx, &batch, e);
}

static bool list_by(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    int column, struct records *out, struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_APPROVAL_DELEGATIONS);
    query_where_text(query, column, principal->user_id);
    query->limit = APPROVAL_DELEGATIONS_MAX;
    return store_list(o->parts.store, ctx, principal->tenant_id, query, out, e);
}

/* An admin pages through all; anybody else has few and sees them at once: those given, then those got. */
bool approval_delegations(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, str cursor, size_t limit,
                          struct records *out, struct error *e)
{
    struct records given, got;
    if (principal->level >= ROLE_LEVEL_ADMIN) {
        struct query *query = ARENA_NEW(ctx->arena, struct query);
        *query = query_of(TABLE_APPROVAL_DELEGATIONS);
        query->limit = limit;
        query->cursor = cursor;
        return store_list(o->parts.store, ctx, principal->tenant_id, query, out, e);
    }
    if (!list_by(o, ctx, principal, APPROVAL_DELEGATIONS_FROM_USER, &given, e) ||
        !list_by(o, ctx, principal, APPROVAL_DELEGATIONS_TO_USER, &got, e))
        return false;
    *out = (struct records){
        .items = ARENA_ARRAY(ctx->arena, struct record, given.count + got.count + 1)};
    for (size_t i = 0; i < given.count; i++)
        out->items[out->count++] = given.items[i];
    for (size_t i = 0; i < got.count; i++)
        out->items[out->count++] = got.items[i];
    return true;
}

bool approval_delegation_revoke(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, str from_user, str to_user,
                                struct error *e)
{
    struct record key = record_of(TABLE_APPROVAL_DELEGATIONS),
                  *row = ARENA_NEW(ctx->arena, struct record);
    struct batch batch;
    record_set_text(&key, APPROVAL_DELEGATIONS_FROM_USER, from_user);
    record_set_text(&key, APPROVAL_DELEGATIONS_TO_USER, to_user);
    bool is_theirs = principal->level >= ROLE_LEVEL_ADMIN ||
                     str_equal(principal->user_id, from_user) ||
                     str_equal(principal->user_id, to_user);
    bool found = is_theirs && store_get(o->parts.store, ctx, principal->tenant_id, &key, row, e);
    if (is_theirs && !found && e->code != ERROR_NOT_FOUND)
        return false;
    if (!found)
        return error_set(e, REASON_NOT_FOUND,
                         "there is no delegation from \"" STR_FMT "\" to \"" STR_FMT "\"",
                         STR_ARG(str_cut_utf8(from_user, 60)), STR_ARG(str_cut_utf8(to_user, 60)));
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *gone = batch_add(&batch, WRITE_DELETE, TABLE_APPROVAL_DELEGATIONS);
    record_set_text(gone, APPROVAL_DELEGATIONS_FROM_USER, from_user);
    record_set_text(gone, APPROVAL_DELEGATIONS_TO_USER, to_user);
    audit_change(o, ctx, &batch, principal, S("approval.revoke_delegation"), from_user, to_user);
    return store_commit(o->parts.store, ctx, &batch, e);
}
