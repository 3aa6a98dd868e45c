/* Webhooks that come in: their rows.  What comes by them is webhook_receive.c. */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/webhook/webhook_internal.h"
#include "orchestrator/workflow/schedule.h"
#include "orchestrator/workflow/workflow_store.h"

/* ---- rows ---- */

static bool find(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                 struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_WEBHOOKS);
    record_set_text(&key, WEBHOOKS_NAME, name);
    return store_get(o->parts.store, ctx, tenant_id, &key, out, e);
}

bool webhook_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 str name, struct record *out, struct error *e)
{
    bool ok = name.len > 0 && find(o, ctx, principal->tenant_id, name, out, e);
    if (!ok && name.len > 0 && e->code != ERROR_NOT_FOUND)
        return false;
    if (ok && principal_sees_user(principal, record_text(out, WEBHOOKS_USER_ID)))
        return true;
    return error_set(e, REASON_NOT_FOUND, "there is no webhook \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(name, WEBHOOK_NAME_BYTES_MAX)));
}

bool webhook_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOKS);
    query.cursor = cursor;
    query.limit = limit;
    if (principal->level < ROLE_LEVEL_OPERATOR)
        query_where_text(&query, WEBHOOKS_USER_ID, principal->user_id);
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

/* One's own, or of somebody with no higher role: who knows the secret acts as they. */
static bool get_own(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    str name, struct record *out, struct error *e)
{
    enum role_level level;
    if (!webhooks_there(o, e) || !webhook_get(o, ctx, principal, name, out, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not change webhooks");
    if (role_level_parse(record_text(out, WEBHOOKS_ROLE), &level) && level <= principal->level)
        return true;
    return error_set(e, REASON_DENIED,
                     "what comes by this webhook runs with the role " STR_FMT
                     ": only who has it may do that",
                     STR_ARG(record_text(out, WEBHOOKS_ROLE)));
}

/* ---- making ---- */

static bool check_target(struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, struct webhook_request *request,
                         struct error *e)
{
    bool is_start = !str_is_empty(request->workflow),
         is_signal = !str_is_empty(request->signal_name);
    if (is_start == is_signal)
        return error_set(e, REASON_SCHEMA,
                         "say either workflow (what it starts) or signal_name (what it signals)");
    if (is_start && !str_is_empty(request->run_pointer))
        return error_set(e, REASON_SCHEMA, "run_pointer belongs to signal_name");
    if (is_signal) {
        if (str_is_empty(request->run_pointer))
            request->run_pointer = S("/run_id");
        if (request->run_pointer.ptr[0] != '/' || request->run_pointer.len > WEBHOOK_ID_BYTES_MAX)
            return error_set(e, REASON_SCHEMA,
                             "run_pointer is a JSON Pointer such as /data/run_id");
        return webhook_check_name("a signal", request->signal_name, e);
    }
    struct workflow_entry *entry;
    str name, range = STR_NONE;
    (void) str_cut(request->workflow, '@', &name, &range);
    if (!workflow_resolve(o, ctx, principal->tenant_id, name, range, &entry, e))
        return false;
    workflow_entry_release(entry);
    return true;
}

static bool count_is_free(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                          struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOKS);
    size_t count = 0;
    do {
        struct records page;
        if (!store_list(o->parts.store, ctx, tenant_id, &query, &page, e))
            return false;
        count += page.count;
        query.cursor = page.next_cursor;
    } while (!str_is_empty(query.cursor) && count < WEBHOOKS_MAX);
    return count < WEBHOOKS_MAX ||
           error_set(e, REASON_LIMIT, "there are %zu webhooks, at most %d may be kept", count,
                     WEBHOOKS_MAX);
}

static bool insert(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   const struct webhook_request *request, str secret, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_WEBHOOKS);
    record_set_text(row, WEBHOOKS_NAME, request->name);
    if (!str_is_empty(request->workflow))
        record_set_text(row, WEBHOOKS_WORKFLOW, request->workflow);
    if (!str_is_empty(request->signal_name)) {
        record_set_text(row, WEBHOOKS_SIGNAL_NAME, request->signal_name);
        record_set_text(row, WEBHOOKS_RUN_POINTER, request->run_pointer);
    }
    str place = webhook_place(ctx->arena, "webhook", principal->tenant_id, request->name);
    record_set_text(row, WEBHOOKS_SCHEME, request->scheme);
    record_set_text(row, WEBHOOKS_SECRET, webhook_seal(o->webhooks, ctx->arena, place, secret));
    record_set_text(row, WEBHOOKS_USER_ID, principal->user_id);
    record_set_text(row, WEBHOOKS_ROLE, principal->role);
    if (!uuid_is_none(principal->key_id))
        record_set_uuid(row, WEBHOOKS_KEY_ID, principal->key_id);
    record_set_integer(row, WEBHOOKS_CREATED_AT, clock_unix_us(o->parts.clock));
    webhook_audit(o, &batch, principal, "webhook.create", "webhook", request->name,
                  str_printf(ctx->arena, "{\"scheme\":\"" STR_FMT "\"}", STR_ARG(request->scheme)));
    if (store_commit(o->parts.store, ctx, &batch, e))
        return true;
    return e->reason != REASON_CONFLICT
               ? false
               : error_set(e, REASON_CONFLICT, "the name \"" STR_FMT "\" is taken",
                           STR_ARG(request->name));
}

bool webhook_create(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct webhook_request *request, struct record *out, str *secret,
                    struct error *e)
{
    struct webhook_request asked = *request;
    enum webhook_scheme scheme;
    if (!webhooks_there(o, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not keep webhooks");
    if (str_is_empty(asked.scheme))
        asked.scheme = S("standard");
    if (!webhook_scheme_parse(asked.scheme, &scheme))
        return error_set(e, REASON_SCHEMA, "scheme must be standard, github or stripe");
    return webhook_check_name("a webhook", asked.name, e) &&
           webhook_secret_choose(ctx->arena, scheme, asked.secret, secret, e) &&
           check_target(o, ctx, principal, &asked, e) &&
           count_is_free(o, ctx, principal->tenant_id, e) &&
           insert(o, ctx, principal, &asked, *secret, e) &&
           find(o, ctx, principal->tenant_id, asked.name, out, e);
}

/* ---- changing ---- */

bool webhook_remove(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    str name, struct error *e)
{
    struct record row;
    struct batch batch;
    if (!get_own(o, ctx, principal, name, &row, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_WEBHOOKS), WEBHOOKS_NAME, name);
    webhook_audit(o, &batch, principal, "webhook.remove", "webhook", name, STR_NONE);
    return store_commit(o->parts.store, ctx, &batch, e);
}

bool webhook_rotate(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    str name, const struct webhook_rotation *rotation, struct record *out,
                    str *secret, struct error *e)
{
    struct record old;
    struct batch batch;
    enum webhook_scheme scheme;
    int64_t until_us, now_us = clock_unix_us(o->parts.clock);
    if (!get_own(o, ctx, principal, name, &old, e))
        return false;
    if (!webhook_scheme_parse(record_text(&old, WEBHOOKS_SCHEME), &scheme))
        return error_set(e, REASON_CORRUPT, "the webhook has an unknown scheme");
    if (!webhook_secret_choose(ctx->arena, scheme, rotation->secret, secret, e) ||
        !webhook_overlap(rotation, now_us, &until_us, e))
        return false;
    str place = webhook_place(ctx->arena, "webhook", principal->tenant_id, name);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_WEBHOOKS);
    record_set_text(row, WEBHOOKS_NAME, name);
    record_set_text(row, WEBHOOKS_SECRET, webhook_seal(o->webhooks, ctx->arena, place, *secret));
    record_set_text(row, WEBHOOKS_PREVIOUS_SECRET, record_text(&old, WEBHOOKS_SECRET));
    record_set_integer(row, WEBHOOKS_PREVIOUS_UNTIL, until_us);
    batch_where_text(&batch, WEBHOOKS_SECRET, record_text(&old, WEBHOOKS_SECRET));
    webhook_audit(o, &batch, principal, "webhook.rotate", "webhook", name, STR_NONE);
    return store_commit(o->parts.store, ctx, &batch, e) &&
           find(o, ctx, principal->tenant_id, name, out, e);
}

bool webhook_try(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 str name, str body, struct webhook_outcome *out, struct error *e)
{
    struct record row;
    struct webhook_signed signed_body;
    enum webhook_scheme scheme;
    str secret, key;
    if (!get_own(o, ctx, principal, name, &row, e))
        return false;
    str place = webhook_place(ctx->arena, "webhook", principal->tenant_id, name);
    if (!webhook_scheme_parse(record_text(&row, WEBHOOKS_SCHEME), &scheme) ||
        !webhook_unseal(o->webhooks, ctx->arena, place, record_text(&row, WEBHOOKS_SECRET),
                        &secret) ||
        !webhook_secret_key(ctx->arena, scheme, secret, &key, e))
        return error_set(e, REASON_CORRUPT,
                         "the secret of this webhook cannot be opened: the key in webhook.key is "
                         "another one; rotate it");
    str id = str_printf(ctx->arena, "try_" STR_FMT,
                        STR_ARG(uuid_str(ctx->arena, uuid_new(o->parts.clock, o->parts.random))));
    webhook_sign_as(ctx->arena, scheme, key, id, clock_unix_us(o->parts.clock) / 1000000, body,
                    &signed_body);
    struct webhook_header headers[4] = {{S("content-type"), S("application/json")}};
    size_t count = 1;
    headers[count++] = (struct webhook_header){str_from_cstr(webhook_header_signature(scheme)),
                                               signed_body.signature};
    if (webhook_header_id(scheme))
        headers[count++] =
            (struct webhook_header){str_from_cstr(webhook_header_id(scheme)), signed_body.id};
    if (webhook_header_timestamp(scheme))
        headers[count++] = (struct webhook_header){str_from_cstr(webhook_header_timestamp(scheme)),
                                                   signed_body.timestamp};
    struct webhook_post post = {.tenant = uuid_str(ctx->arena, principal->tenant_id),
                                .name = name,
                                .body = body,
                                .headers = headers,
                                .header_count = count,
                                .ip_address = principal->ip_address,
                                .user_agent = principal->user_agent,
                                .request_id = principal->request_id};
    return webhook_receive(o, ctx, &post, out, e);
}
