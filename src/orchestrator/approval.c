/*
 * Approvals: a person other than the requester says yes to exactly these arguments, once.
 *
 *   pending --approve--> approved --(the run consumes it with its intent)--> consumed
 *   pending --deny--> denied       pending --time--> expired
 *
 * Persons are compared, not keys: who asked for the run, whom it is for, and keys that either of them owns or made cannot approve.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_internal.h"

/* ---- the digest ---- */

bool approval_digest(struct arena *arena, const struct approval_subject *subject, str *subject_json,
                     str *digest_hex_out, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    const struct json *tree;
    strbuf_init(&text, arena, 2 * MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("tenant"), uuid_str(arena, subject->tenant_id));
    json_put_str(&w, S("run"), uuid_str(arena, subject->run_id));
    json_put_str(&w, S("call"), uuid_str(arena, subject->tool_call_id));
    json_put_str(&w, S("tool"), subject->tool->name);
    json_put_str(&w, S("version"), subject->tool->version);
    json_put_str(&w, S("module"), digest_hex(arena, subject->tool->module_digest));
    json_put_raw(&w, S("arguments"), subject->arguments);
    json_key(&w, S("permissions"));
    permissions_write_json(&w, &subject->tool->permissions);
    json_object_end(&w);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the arguments are too large to approve");
    if (!json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &tree, e))
        return error_wrap(e, "approval of tool \"" STR_FMT "\"", STR_ARG(subject->tool->name));
    *subject_json = json_canonical(arena, tree);
    *digest_hex_out = digest_hex(arena, digest_sha256(*subject_json));
    return true;
}

/* ---- reading ---- */

bool approval_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   str status, str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    bool may_decide =
        principal->level >= ROLE_LEVEL_OPERATOR || (principal->scopes & SCOPE_APPROVE);
    if (!may_decide)
        query_where_text(&query, APPROVALS_USER_ID, principal->user_id);
    if (!str_is_empty(status))
        query_where_text(&query, APPROVALS_STATUS, status);
    query.is_descending = true;
    query.cursor = cursor;
    query.limit = limit;
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

bool approval_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  uuid approval_id, struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_APPROVALS);
    record_set_uuid(&key, APPROVALS_ID, approval_id);
    bool found = store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e);
    bool may_see = found && (principal_sees_user(principal, record_text(out, APPROVALS_USER_ID)) ||
                             (principal->scopes & SCOPE_APPROVE));
    if (may_see)
        return true;
    if (!found && e->code != ERROR_NOT_FOUND)
        return false;
    return error_set(e, REASON_NOT_FOUND, "there is no approval " STR_FMT,
                     STR_ARG(uuid_str(ctx->arena, approval_id)));
}

/* ---- deciding ---- */

static bool is_party(const struct record *approval, str person)
{
    return str_equal(person, record_text(approval, APPROVALS_USER_ID)) ||
           str_equal(person, record_text(approval, APPROVALS_REQUESTED_BY));
}

/* A key speaks for the person it belongs to, and for the one who made it. */
static bool check_person(struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, const struct record *approval,
                         struct error *e)
{
    if (is_party(approval, principal->user_id) || is_party(approval, principal->caller_id))
        return error_set(e, REASON_SELF_APPROVAL,
                         "who asked for the run, or whom it is for, may not approve it");
    if (uuid_is_none(principal->key_id))
        return true;
    struct record key = record_of(TABLE_API_KEYS), row;
    record_set_uuid(&key, API_KEYS_ID, principal->key_id);
    if (!store_get(o->parts.store, ctx, principal->tenant_id, &key, &row, e))
        return error_wrap(e, "the key that approves");
    if (is_party(approval, record_text(&row, API_KEYS_USER_ID)))
        return error_set(e, REASON_SELF_APPROVAL, "a key of the requester may not approve");
    /* The very first key is nobody's favour: an admin's key that made itself is judged by its owner alone. */
    if (is_party(approval, record_text(&row, API_KEYS_CREATED_BY)) &&
        !str_equal(record_text(&row, API_KEYS_CREATED_BY), S("system")))
        return error_set(e, REASON_SELF_APPROVAL, "a key that the requester made may not approve");
    return true;
}

static bool check_decision(struct orchestrator *o, const struct principal *principal,
                           const struct record *approval, const struct approval_decision *decision,
                           struct error *e)
{
    str status = record_text(approval, APPROVALS_STATUS);
    if (principal->level < ROLE_LEVEL_OPERATOR && !(principal->scopes & SCOPE_APPROVE))
        return error_set(e, REASON_DENIED,
                         "deciding approvals needs the role operator or the scope approve");
    if (!str_equal(status, S("pending")))
        return error_set(e, REASON_ALREADY_DECIDED, "the approval is already " STR_FMT,
                         STR_ARG(status));
    if (!str_equal(decision->digest, record_text(approval, APPROVALS_DIGEST)))
        return error_set(
            e, REASON_STALE_DIGEST,
            "the digest is not the approval's: read it again and decide on what it shows now");
    if (record_integer(approval, APPROVALS_EXPIRES_AT) < clock_unix_us(o->parts.clock))
        return error_set(e, REASON_ALREADY_DECIDED, "the approval has expired");
    return true;
}

static bool commit_decision(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal,
                            const struct approval_decision *decision, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    batch.fault = "approval_decide";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, decision->approval_id);
    record_set_text(row, APPROVALS_STATUS, decision->is_approve ? S("approved") : S("denied"));
    record_set_text(row, APPROVALS_APPROVER, principal->user_id);
    record_set_integer(row, APPROVALS_DECIDED_AT, clock_unix_us(o->parts.clock));
    if (!str_is_empty(decision->reason))
        record_set_text(row, APPROVALS_REASON, decision->reason);
    batch_where_text(&batch, APPROVALS_STATUS, S("pending"));
    audit_add(&batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){
                  .action = decision->is_approve ? S("approval.approve") : S("approval.deny"),
                  .resource_type = S("approval"),
                  .resource_id = uuid_str(ctx->arena, decision->approval_id),
                  .details = str_printf(ctx->arena, "{\"digest\":\"" STR_FMT "\"}",
                                        STR_ARG(decision->digest)),
              });
    if (store_commit(o->parts.store, ctx, &batch, e))
        return true;
    if (e->reason == REASON_CONFLICT)
        return error_set(e, REASON_ALREADY_DECIDED, "someone else has just decided this approval");
    return false;
}

bool approval_decide(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     const struct approval_decision *decision, struct error *e)
{
    struct record approval;
    if (!approval_get(o, ctx, principal, decision->approval_id, &approval, e) ||
        !check_decision(o, principal, &approval, decision, e) ||
        !check_person(o, ctx, principal, &approval, e))
        return false;
    bool ok = commit_decision(o, ctx, principal, decision, e);
    if (ok || e->reason == REASON_OUTCOME_UNKNOWN) /* the run looks for itself */
        run_spawn(o, principal->tenant_id, record_uuid(&approval, APPROVALS_SESSION_ID),
                  record_uuid(&approval, APPROVALS_RUN_ID));
    return ok;
}

/* ---- expiry ---- */

static bool expire_one(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                       const struct record *approval, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, record_uuid(approval, APPROVALS_ID));
    record_set_text(row, APPROVALS_STATUS, S("expired"));
    record_set_integer(row, APPROVALS_DECIDED_AT, clock_unix_us(o->parts.clock));
    batch_where_text(&batch, APPROVALS_STATUS, S("pending"));
    if (!store_commit(o->parts.store, ctx, &batch, e) && e->reason != REASON_OUTCOME_UNKNOWN)
        return e->code == ERROR_CONFLICT; /* decided meanwhile: fine */
    run_spawn(o, tenant_id, record_uuid(approval, APPROVALS_SESSION_ID),
              record_uuid(approval, APPROVALS_RUN_ID));
    return true;
}

bool approvals_expire(struct orchestrator *o, struct context *ctx, size_t *expired, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    query_where_text(&query, APPROVALS_STATUS, S("pending"));
    query_where_integer(&query, APPROVALS_EXPIRES_AT, FILTER_LESS, clock_unix_us(o->parts.clock));
    *expired = 0;
    for (;;) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++, ++*expired)
            if (!expire_one(o, ctx, tenants[i], &page.items[i], e))
                return false;
        if (str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
}
