/* Approvals: what is decided about, who sees it, and what happens by the clock.  Deciding is approval_vote.c. */
#include "base/arena.h"
#include "orchestrator/approval_internal.h"
#include "orchestrator/webhook/webhook_tell.h"
#include <stdatomic.h>

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

bool approval_seal(struct arena *arena, str subject, str *canonical, str *digest_hex_out,
                   struct error *e)
{
    const struct json *tree;
    if (!json_parse(arena, subject, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "the subject of an approval");
    *canonical = json_canonical(arena, tree);
    *digest_hex_out = digest_hex(arena, digest_sha256(*canonical));
    return true;
}

/* ---- asking ---- */

int64_t approval_write(const struct settings *settings, int64_t now_us, struct record *row,
                       const struct approval_request *request)
{
    const struct approval_rule *rule = &request->rule;
    int64_t expires_ms = rule->expires_ms > 0 ? rule->expires_ms : settings->approval_expiry_ms;
    int64_t remind_ms = rule->remind_ms > 0 ? rule->remind_ms : settings->approval_remind_ms;
    int64_t expires_us = now_us + expires_ms * 1000;
    record_set_uuid(row, APPROVALS_ID, request->id);
    record_set_uuid(row, APPROVALS_RUN_ID, request->run_id);
    record_set_uuid(row, APPROVALS_SESSION_ID, request->session_id);
    if (!uuid_is_none(request->tool_call_id))
        record_set_uuid(row, APPROVALS_TOOL_CALL_ID, request->tool_call_id);
    record_set_text(row, APPROVALS_ACTION, request->action);
    record_set_text(row, APPROVALS_DIGEST, request->digest);
    record_set_text(row, APPROVALS_SUBJECT, request->subject);
    record_set_text(row, APPROVALS_REQUESTED_BY, request->requested_by);
    record_set_text(row, APPROVALS_USER_ID, request->user_id);
    record_set_text(row, APPROVALS_STATUS, S("pending"));
    record_set_integer(row, APPROVALS_CREATED_AT, now_us);
    record_set_integer(row, APPROVALS_EXPIRES_AT, expires_us);
    if (rule->quorum > 1)
        record_set_integer(row, APPROVALS_QUORUM, rule->quorum);
    if (!str_is_empty(rule->approvers))
        record_set_text(row, APPROVALS_APPROVERS, rule->approvers);
    if (remind_ms > 0) {
        record_set_integer(row, APPROVALS_REMIND_AT, now_us + remind_ms * 1000);
        record_set_integer(row, APPROVALS_REMIND_MS, remind_ms);
    }
    return expires_us;
}

/* ---- reading ---- */

/* Who may decide sees what there is to decide; so does whom somebody delegated to. */
static bool sees_all(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     bool *does, struct error *e)
{
    struct records delegations;
    *does = approval_may_decide(principal);
    if (*does)
        return true;
    if (!approval_delegations_to(o, ctx, principal, &delegations, e))
        return false;
    *does = delegations.count > 0;
    return true;
}

bool approval_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   str status, str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    bool is_all;
    if (!sees_all(o, ctx, principal, &is_all, e))
        return false;
    if (!is_all)
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
    bool found = store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e), is_all = false;
    if (found && str_equal(principal->user_id, record_text(out, APPROVALS_USER_ID)))
        return true;
    if (!found && e->code != ERROR_NOT_FOUND)
        return false;
    if (found && !sees_all(o, ctx, principal, &is_all, e))
        return false;
    return (found && is_all) || error_set(e, REASON_NOT_FOUND, "there is no approval " STR_FMT,
                                          STR_ARG(uuid_str(ctx->arena, approval_id)));
}

bool approval_votes(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    uuid approval_id, struct records *out, struct error *e)
{
    struct record *approval = ARENA_NEW(ctx->arena, struct record);
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_APPROVAL_VOTES);
    query_where_uuid(query, APPROVAL_VOTES_APPROVAL_ID, approval_id);
    return approval_get(o, ctx, principal, approval_id, approval, e) &&
           store_list(o->parts.store, ctx, principal->tenant_id, query, out, e);
}

/* ---- expiry ---- */

void approval_consume(struct batch *batch, uuid approval_id)
{
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, approval_id);
    record_set_text(row, APPROVALS_STATUS, S("consumed"));
    batch_where_text(batch, APPROVALS_STATUS, S("approved")); /* single use */
}

static bool expire_one(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                       const struct record *approval, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, record_uuid(approval, APPROVALS_ID));
    record_set_text(row, APPROVALS_STATUS, S("expired"));
    record_set_integer(row, APPROVALS_DECIDED_AT, clock_unix_us(o->parts.clock));
    record_set_null(row, APPROVALS_REMIND_AT);
    batch_where_text(&batch, APPROVALS_STATUS, S("pending"));
    if (!store_commit(o->parts.store, ctx, &batch, e) && e->reason != REASON_OUTCOME_UNKNOWN)
        return e->code == ERROR_CONFLICT; /* decided meanwhile: fine */
    run_wake(o, ctx, tenant_id, record_uuid(approval, APPROVALS_SESSION_ID),
             record_uuid(approval, APPROVALS_RUN_ID));
    return true;
}

void approval_note_expiry(struct orchestrator *o, int64_t expires_us)
{
    int64_t due_us = atomic_load(&o->approvals_due_us);
    while (expires_us < due_us &&
           !atomic_compare_exchange_weak(&o->approvals_due_us, &due_us, expires_us))
        ;
}

static bool expire_all(struct orchestrator *o, struct context *ctx, int64_t now_us, size_t *expired,
                       struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    query_where_text(&query, APPROVALS_STATUS, S("pending"));
    query_where_integer(&query, APPROVALS_EXPIRES_AT, FILTER_LESS, now_us);
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

static bool note_next(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct records first;
    uuid *tenants;
    query_where_text(&query, APPROVALS_STATUS, S("pending"));
    query.order_column = APPROVALS_EXPIRES_AT;
    query.limit = 1;
    if (!store_list_any_tenant(o->parts.store, ctx, &query, &first, &tenants, e))
        return false;
    if (first.count > 0)
        approval_note_expiry(o, record_integer(&first.items[0], APPROVALS_EXPIRES_AT));
    return true;
}

/* To look at all that wait takes a walk over them: only when one can have expired, or another node's may be nobody's any more. */
bool approvals_expire(struct orchestrator *o, struct context *ctx, size_t *expired, struct error *e)
{
    int64_t now_us = clock_unix_us(o->parts.clock);
    *expired = 0;
    if (now_us <= atomic_load(&o->approvals_due_us) &&
        now_us < o->approvals_looked_us + APPROVALS_LOOK_MS * 1000 &&
        now_us >= o->approvals_looked_us)
        return true;
    atomic_store(&o->approvals_due_us, INT64_MAX); /* what is asked for meanwhile is noted */
    bool ok = expire_all(o, ctx, now_us, expired, e) && note_next(o, ctx, e);
    if (!ok)
        approval_note_expiry(o, INT64_MIN);
    o->approvals_looked_us = now_us;
    return ok;
}

/* ---- reminders ---- */

static const struct principal platform = {.user_id = S_INIT("nexus"), .caller_id = S_INIT("nexus")};

/* The next one is booked in the same commit that says this one was made, so a crash neither loses nor repeats it. */
static bool remind_one(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                       const struct record *approval, bool *is_reminded, struct error *e)
{
    struct batch batch;
    int64_t made = record_integer(approval, APPROVALS_REMINDERS) + 1,
            now_us = clock_unix_us(o->parts.clock),
            next_us = now_us + record_integer(approval, APPROVALS_REMIND_MS) * 1000;
    batch_init(&batch, ctx->arena, tenant_id);
    batch.fault = "approval_remind";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, record_uuid(approval, APPROVALS_ID));
    record_set_integer(row, APPROVALS_REMINDERS, made);
    if (made >= APPROVAL_REMINDERS_MAX || next_us >= record_integer(approval, APPROVALS_EXPIRES_AT))
        record_set_null(row, APPROVALS_REMIND_AT);
    else
        record_set_integer(row, APPROVALS_REMIND_AT, next_us);
    batch_where_integer(&batch, APPROVALS_REMIND_AT,
                        record_integer(approval, APPROVALS_REMIND_AT)); /* another node was first */
    struct principal node = platform;
    node.tenant_id = tenant_id;
    audit_add(&batch, o->parts.clock, o->parts.random, &node,
              &(struct audit_entry){
                  .action = S("approval.remind"),
                  .resource_type = S("approval"),
                  .resource_id = uuid_str(ctx->arena, record_uuid(approval, APPROVALS_ID)),
                  .details = str_printf(
                      ctx->arena, "{\"reminder\":%lld,\"votes\":%lld,\"quorum\":%lld}",
                      (long long) made, (long long) record_integer(approval, APPROVALS_VOTES),
                      (long long) (record_has(approval, APPROVALS_QUORUM)
                                       ? record_integer(approval, APPROVALS_QUORUM)
                                       : 1)),
              });
    webhook_tell_reminder(o, &batch, approval, made);
    *is_reminded = store_commit(o->parts.store, ctx, &batch, e);
    return *is_reminded || e->code == ERROR_CONFLICT;
}

bool approvals_remind(struct orchestrator *o, struct context *ctx, size_t *reminded,
                      struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_APPROVALS);
    query_where_text(query, APPROVALS_STATUS, S("pending"));
    query_where_integer(query, APPROVALS_REMIND_AT, FILTER_LESS, clock_unix_us(o->parts.clock));
    *reminded = 0;
    while (*reminded < APPROVAL_REMIND_SWEEP_MAX) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(o->parts.store, ctx, query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++) {
            bool is_reminded;
            struct error failure = {0};
            if (!remind_one(o, ctx, tenants[i], &page.items[i], &is_reminded, &failure))
                return error_copy(e, &failure);
            if (!is_reminded)
                continue;
            ++*reminded;
            metrics_add(o->parts.metrics, METRIC_APPROVAL_REMINDERS, 1, NULL, 0);
            if (o->parts.approval_reminded)
                o->parts.approval_reminded(o->parts.reminded_owner, ctx, tenants[i],
                                           &page.items[i]);
        }
        if (str_is_empty(page.next_cursor))
            return true;
        query->cursor = page.next_cursor;
    }
    return true;
}
