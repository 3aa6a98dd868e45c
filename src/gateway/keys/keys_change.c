/* Changing keys: limits, end and name; a new text. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "gateway/keys_internal.h"
#include "orchestrator/policy/audit.h"

bool keys_get(struct keys *keys, struct context *ctx, const struct principal *principal, uuid id,
              struct record *out, struct error *e)
{
    struct record *row;
    if (!keys_find_own(keys, ctx, principal, id, &row, e))
        return false;
    *out = *row;
    return true;
}

static bool find_live(struct keys *keys, struct context *ctx, const struct principal *principal,
                      uuid id, struct record **row, struct error *e)
{
    return keys_check_unlimited(principal, e) && keys_find_own(keys, ctx, principal, id, row, e) &&
           (!record_has(*row, API_KEYS_REVOKED_AT) ||
            error_set(e, REASON_CONFLICT, "the key is revoked"));
}

/* The change, with what it must find unchanged, and its audit entry; durable before the old form is forgotten. */
static bool commit(struct keys *keys, struct context *ctx, const struct principal *principal,
                   struct batch *batch, uuid id, str action, struct error *e)
{
    audit_add(batch, keys_clock(keys), keys_random(keys), principal,
              &(struct audit_entry){.action = action,
                                    .resource_type = S("key"),
                                    .resource_id = uuid_str(ctx->arena, id)});
    bool ok = store_commit(keys_store(keys), ctx, batch, e);
    keys_forget(keys, id);
    return ok;
}

/* ---- limits, end, name ---- */

static bool read_end(struct keys *keys, const struct json *changes, struct record *row,
                     struct error *e)
{
    const struct json *value = json_get(changes, S("expires_at"));
    str text;
    int64_t expires_us = 0;
    if (!value)
        return true;
    if (json_type(value) != JSON_NULL &&
        (!json_to_str(value, &text) || !time_parse(text, &expires_us)))
        return error_set(e, REASON_SCHEMA, "expires_at must be an RFC 3339 time, or null");
    if (expires_us != 0 && expires_us <= clock_unix_us(keys_clock(keys)))
        return error_set(e, REASON_SCHEMA, "expires_at is in the past");
    if (expires_us == 0)
        record_set_null(row, API_KEYS_EXPIRES_AT);
    else
        record_set_integer(row, API_KEYS_EXPIRES_AT, expires_us);
    return true;
}

static bool read_changes(struct keys *keys, struct arena *arena, const struct json *changes,
                         bool gives_budget, const struct record *old, struct record *row,
                         struct error *e)
{
    struct key_limits limits;
    bool has_budget;
    str name = record_text(old, API_KEYS_NAME);
    if (!key_limits_parse(arena, record_text(old, API_KEYS_LIMITS), &limits, &has_budget, e) ||
        !key_limits_read(arena, changes, &limits, e) ||
        !json_read_str(changes, S("name"), &name, e) || !keys_check_name(name, e) ||
        !read_end(keys, changes, row, e))
        return false;
    record_set_text(row, API_KEYS_NAME, name);
    record_set_text(row, API_KEYS_LIMITS,
                    key_limits_text(arena, &limits, has_budget || gives_budget));
    return true;
}

bool keys_update(struct keys *keys, struct context *ctx, const struct principal *principal, uuid id,
                 const struct json *changes, bool gives_budget, struct record *out, struct error *e)
{
    struct batch batch;
    struct record *old;
    if (!find_live(keys, ctx, principal, id, &old, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, id);
    batch_where_null(&batch, API_KEYS_REVOKED_AT);
    return read_changes(keys, ctx->arena, changes, gives_budget, old, row, e) &&
           commit(keys, ctx, principal, &batch, id, S("key.update"), e) &&
           keys_get(keys, ctx, principal, id, out, e);
}

/* ---- through whose hands a key came ---- */

struct minters {
    str names[KEY_MINTERS_MAX];
    size_t count;
};

static bool add_minter(struct minters *minters, str name, struct error *e)
{
    if (str_is_empty(name) || str_equal(name, S("system")))
        return true;
    for (size_t i = 0; i < minters->count; i++)
        if (str_equal(minters->names[i], name))
            return true;
    if (minters->count == KEY_MINTERS_MAX)
        return error_set(e, REASON_LIMIT, "the key came through more than %u hands",
                         KEY_MINTERS_MAX);
    minters->names[minters->count++] = name;
    return true;
}

static bool add_minters_of(struct arena *arena, struct minters *minters, const struct record *key,
                           struct error *e)
{
    const struct json *list, *item;
    str text = record_text(key, API_KEYS_MINTERS), name;
    if (str_is_empty(text))
        return true;
    if (!json_parse(arena, text, (struct json_limits){0}, &list, e))
        return false;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name) && !add_minter(minters, name, e))
            return false;
    return true;
}

/*
 * Who sees a new key's text, and whoever sees the text of the key that asked for it, may use it: they are kept, so that approvals compare
 * persons (orchestrator/approval/approval.h).  `key`: the row that gets a new text; NULL: a new key, whose maker stands in created_by.
 */
bool keys_minters(struct keys *keys, struct context *ctx, const struct principal *principal,
                  const struct record *key, str *out, struct error *e)
{
    struct minters *minters = ARENA_NEW(ctx->arena, struct minters);
    bool is_itself = key && uuid_equal(record_uuid(key, API_KEYS_ID), principal->key_id);
    *out = STR_NONE;
    if (key && !add_minters_of(ctx->arena, minters, key, e))
        return false;
    if (key && !str_equal(principal->caller_id, record_text(key, API_KEYS_USER_ID)) &&
        !add_minter(minters, principal->caller_id, e))
        return false;
    if (!uuid_is_none(principal->key_id) && !is_itself) {
        struct record *row;
        if (!keys_find_own(keys, ctx, principal, principal->key_id, &row, e) ||
            !add_minter(minters, record_text(row, API_KEYS_CREATED_BY), e) ||
            !add_minters_of(ctx->arena, minters, row, e))
            return false;
    }
    if (minters->count == 0)
        return true;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 64u << 10);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < minters->count; i++)
        json_write_str(&w, minters->names[i]);
    json_array_end(&w);
    *out = strbuf_str(&text);
    return true;
}

/* ---- a new text ---- */

bool keys_rotate(struct keys *keys, struct context *ctx, const struct principal *principal, uuid id,
                 int64_t overlap_s, str *key, struct record *out, struct error *e)
{
    struct batch batch;
    struct record *old;
    str minters;
    if (!find_live(keys, ctx, principal, id, &old, e) ||
        !keys_minters(keys, ctx, principal, old, &minters, e))
        return false;
    str made = keys_make(keys, ctx->arena);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, id);
    record_set_text(row, API_KEYS_HASH, digest_hex(ctx->arena, keys_hash(keys, made)));
    record_set_text(row, API_KEYS_PREFIX, str_slice(made, 0, KEY_PREFIX_BYTES));
    record_set_text(row, API_KEYS_PREVIOUS_HASH, record_text(old, API_KEYS_HASH));
    if (!str_is_empty(minters))
        record_set_text(row, API_KEYS_MINTERS, minters);
    record_set_integer(row, API_KEYS_PREVIOUS_UNTIL,
                       clock_unix_us(keys_clock(keys)) + overlap_s * 1000000);
    batch_where_text(&batch, API_KEYS_HASH,
                     record_text(old, API_KEYS_HASH)); /* one rotation wins */
    if (!commit(keys, ctx, principal, &batch, id, S("key.rotate"), e) ||
        !keys_get(keys, ctx, principal, id, out, e))
        return false;
    *key = made;
    return true;
}
