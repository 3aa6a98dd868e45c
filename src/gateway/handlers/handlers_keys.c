/* API keys: made once shown once, their limits, rotation, revocation. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/policy/key_limits.h"

static bool write_limits(struct api_call *call, struct json_writer *w, const struct record *row,
                         struct error *e)
{
    struct key_limits limits;
    bool has_budget;
    if (!key_limits_parse(call->ctx->arena, record_text(row, API_KEYS_LIMITS), &limits, &has_budget,
                          e))
        return error_wrap(e, "the limits of a key");
    key_limits_write(w, &limits, has_budget);
    return true;
}

static bool write_key_members(struct api_call *call, struct json_writer *w,
                              const struct record *row, struct error *e)
{
    put_id(w, S("id"), record_uuid(row, API_KEYS_ID));
    json_put_str(w, S("name"), record_text(row, API_KEYS_NAME));
    json_put_str(w, S("prefix"), record_text(row, API_KEYS_PREFIX));
    json_put_str(w, S("user_id"), record_text(row, API_KEYS_USER_ID));
    json_put_str(w, S("created_by"), record_text(row, API_KEYS_CREATED_BY));
    json_put_str(w, S("role"), record_text(row, API_KEYS_ROLE));
    json_put_raw(w, S("scopes"), record_text(row, API_KEYS_SCOPES));
    put_time(w, S("created_at"), record_integer(row, API_KEYS_CREATED_AT));
    put_time(w, S("expires_at"), record_integer(row, API_KEYS_EXPIRES_AT));
    put_time(w, S("revoked_at"), record_integer(row, API_KEYS_REVOKED_AT));
    put_time(w, S("previous_until"), record_integer(row, API_KEYS_PREVIOUS_UNTIL));
    return write_limits(call, w, row, e);
}

static bool write_key(struct api_call *call, struct json_writer *w, const struct record *row,
                      struct error *e)
{
    json_object_begin(w);
    bool ok = write_key_members(call, w, row, e);
    json_object_end(w);
    return ok;
}

/* The answers that hold a key: no cache may keep them, and no Idempotency-Key stores them. */
static bool reply_with_key(struct api_call *call, int status, str key, const struct record *row,
                           struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("key"), key);
    if (!write_key_members(call, w, row, e))
        return false;
    json_object_end(w);
    reply_header(call, S("Cache-Control"), S("no-store"));
    return reply_writer_send(&writer, call, status, e);
}

static bool reply_key(struct api_call *call, const struct record *row, struct error *e)
{
    struct reply_writer writer;
    return write_key(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, 200, e);
}

/* ---- the account ---- */

struct key_account {
    struct gateway *gateway;
    struct arena *arena;
    cost limit;
};

static void add_account(void *owner, struct batch *batch, uuid key_id)
{
    struct key_account *account = owner;
    ledger_add_account_row(orchestrator_ledger(account->gateway->orchestrator), batch, ACCOUNT_KEY,
                           uuid_str(account->arena, key_id), account->limit);
}

static bool is_limited(cost limit)
{
    return limit.tokens != COST_UNLIMITED || limit.time_ms != COST_UNLIMITED ||
           limit.cost_nanousd != COST_UNLIMITED || limit.tool_calls != COST_UNLIMITED;
}

/* ---- routes ---- */

bool route_key_create(struct api_call *call, struct error *e)
{
    struct key_request request = {0};
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    struct key_account account = {call->gateway, call->ctx->arena, COST_LIMITLESS};
    str key;
    if (!body_read_key(call->ctx->arena, call->json, &request, &account.limit, e))
        return false;
    if (is_limited(account.limit)) {
        request.add_rows = add_account;
        request.add_owner = &account;
    }
    return keys_issue(call->gateway->keys, call->ctx, &call->principal, &request, &key, row, e) &&
           reply_with_key(call, 201, key, row, e);
}

bool route_key_list(struct api_call *call, struct error *e)
{
    str cursor;
    size_t limit;
    struct records rows;
    return query_page(call, &cursor, &limit, e) &&
           keys_list(call->gateway->keys, call->ctx, &call->principal, cursor, limit, &rows, e) &&
           reply_page(call, &rows, write_key, e);
}

bool route_key_get(struct api_call *call, struct error *e)
{
    uuid id;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "key", &id, e) &&
           keys_get(call->gateway->keys, call->ctx, &call->principal, id, row, e) &&
           reply_key(call, row, e);
}

/* The account's limit first: a key never says that it has a budget which is not there. */
bool route_key_update(struct api_call *call, struct error *e)
{
    uuid id;
    cost limit = COST_LIMITLESS;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    struct keys *keys = call->gateway->keys;
    bool gives_budget = json_type(json_get(call->json, S("budget"))) == JSON_OBJECT;
    if (!param_uuid(call, 0, "key", &id, e) ||
        !keys_get(keys, call->ctx, &call->principal, id, row, e) ||
        !keys_check_unlimited(&call->principal, e) ||
        !body_read_budget(call->ctx->arena, call->json, &limit, e))
        return false;
    if (gives_budget && !ledger_set_limit(orchestrator_ledger(call->gateway->orchestrator),
                                          call->ctx, call->principal.tenant_id, ACCOUNT_KEY,
                                          uuid_str(call->ctx->arena, id), limit, e))
        return false;
    return keys_update(keys, call->ctx, &call->principal, id, call->json, gives_budget, row, e) &&
           reply_key(call, row, e);
}

bool route_key_rotate(struct api_call *call, struct error *e)
{
    uuid id;
    str key;
    int64_t overlap_s = 0;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    return param_uuid(call, 0, "key", &id, e) &&
           json_read_i64(call->json, S("overlap_seconds"), 0, KEY_ROTATION_OVERLAP_S_MAX,
                         &overlap_s, e) &&
           keys_rotate(call->gateway->keys, call->ctx, &call->principal, id, overlap_s, &key, row,
                       e) &&
           reply_with_key(call, 200, key, row, e);
}

bool route_key_revoke(struct api_call *call, struct error *e)
{
    uuid id;
    if (!param_uuid(call, 0, "key", &id, e) ||
        !keys_revoke(call->gateway->keys, call->ctx, &call->principal, id, e))
        return false;
    reply_empty(call, 204);
    return true;
}
