#include "gateway/keys/keys.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/secret.h"
#include "gateway/keys/keys_cache.h"
#include "gateway/keys_internal.h"
#include "orchestrator/policy/audit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PEPPER_BYTES = 32, KEY_RANDOM_BYTES = 32, USER_ID_BYTES_MAX = 255, NAME_BYTES_MAX = 200 };
#define KEY_PREFIX S("nxk_")

struct keys {
    struct store *store;
    struct clock *clock;
    struct random *random;
    struct secret *pepper;
    struct keys_cache *cache;
};

/* ---- the pepper ---- */

static bool write_whole(int fd, str text)
{
    while (text.len > 0) {
        ssize_t done = write(fd, text.ptr, text.len);
        if (done < 0 && errno != EINTR)
            return false;
        text = str_from(text, done > 0 ? (size_t) done : 0);
    }
    return fsync(fd) == 0;
}

bool keys_write_secret_file(const char *path, str text, struct error *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(e, errno == EEXIST ? REASON_CONFLICT : REASON_UNAVAILABLE, "%s: %s", path,
                         strerror(errno));
    bool ok =
        write_whole(fd, text) || error_set(e, REASON_UNAVAILABLE, "%s: %s", path, strerror(errno));
    if (close(fd) != 0 && ok)
        ok = error_set(e, REASON_UNAVAILABLE, "%s: %s", path, strerror(errno));
    if (!ok)
        unlink(path);
    return ok;
}

/* At most `max` bytes of a file that only its owner may read. */
bool keys_read_secret_file(const char *path, char *out, size_t max, size_t *len, struct error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(e, errno == ENOENT ? REASON_NOT_FOUND : REASON_UNAVAILABLE, "%s: %s", path,
                         strerror(errno));
    struct stat status;
    ssize_t got = fstat(fd, &status) == 0 ? read(fd, out, max) : -1;
    close(fd);
    if (got < 0)
        return error_set(e, REASON_UNAVAILABLE, "%s cannot be read", path);
    if (status.st_mode & 077)
        return error_set(e, REASON_CONFIG, "%s is readable by others; run: chmod 600 %s", path,
                         path);
    *len = (size_t) got;
    return true;
}

static bool read_pepper(struct keys *keys, const char *path, struct error *e)
{
    char text[2 * PEPPER_BYTES + 16];
    size_t len;
    digest pepper;
    if (!keys_read_secret_file(path, text, sizeof text, &len, e))
        return false;
    bool ok =
        digest_parse_hex(str_trim(str_of(text, len)), &pepper) ||
        error_set(e, REASON_CONFIG,
                  "%s must hold 64 hex digits; restore it from the backup of this store", path);
    if (ok)
        keys->pepper = secret_create(str_of((const char *) pepper.bytes, sizeof pepper.bytes));
    explicit_bzero(text, sizeof text);
    explicit_bzero(&pepper, sizeof pepper);
    return ok;
}

static bool make_pepper(struct arena *arena, const char *path, struct error *e)
{
    uint8_t bytes[PEPPER_BYTES];
    digest_random_bytes(bytes, sizeof bytes);
    str hex = str_hex(arena, bytes, sizeof bytes);
    explicit_bzero(bytes, sizeof bytes);
    return keys_write_secret_file(path, str_printf(arena, STR_FMT "\n", STR_ARG(hex)), e);
}

static bool open_pepper(struct keys *keys, const struct keys_options *options, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    const char *path = str_to_cstr(arena, options->pepper_path);
    if (read_pepper(keys, path, e))
        return true;
    if (e->code != ERROR_NOT_FOUND)
        return false;
    if (!options->may_create_pepper)
        return error_set(
            e, REASON_CONFIG,
            "%s is missing: no API key of this store can be checked; restore it from its backup",
            path);
    *e = (struct error){0};
    if (!make_pepper(arena, path, e)) {
        if (e->code != ERROR_CONFLICT) /* another process was first */
            return false;
        *e = (struct error){0};
    }
    return read_pepper(keys, path, e);
}

bool keys_create(const struct keys_options *options, struct keys **out, struct error *e)
{
    struct error failure = {0};
    struct keys *keys = calloc(1, sizeof *keys);
    ensure(keys != NULL);
    keys->store = options->store;
    keys->clock = options->clock;
    keys->random = options->random;
    keys->cache = keys_cache_create();
    if (!open_pepper(keys, options, &failure)) {
        keys_destroy(keys);
        return error_copy(e, &failure);
    }
    *out = keys;
    return true;
}

void keys_destroy(struct keys *keys)
{
    if (!keys)
        return;
    keys_cache_destroy(keys->cache);
    secret_destroy(keys->pepper);
    free(keys);
}

/* ---- scopes ---- */

static const struct {
    str name;
    unsigned bit;
} scope_names[] = {
    {S_INIT("platform"), SCOPE_PLATFORM},
    {S_INIT("act_as"), SCOPE_ACT_AS},
    {S_INIT("approve"), SCOPE_APPROVE},
};

bool scope_parse(str name, unsigned *bit)
{
    for (size_t i = 0; i < ARRAY_COUNT(scope_names); i++)
        if (str_equal(name, scope_names[i].name)) {
            *bit = scope_names[i].bit;
            return true;
        }
    return false;
}

void scopes_write_json(struct json_writer *w, unsigned scopes)
{
    json_array_begin(w);
    for (size_t i = 0; i < ARRAY_COUNT(scope_names); i++)
        if (scopes & scope_names[i].bit)
            json_write_str(w, scope_names[i].name);
    json_array_end(w);
}

static str scopes_text(struct arena *arena, unsigned scopes)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 256);
    json_writer_init(&w, &text);
    scopes_write_json(&w, scopes);
    return strbuf_str(&text);
}

/* What is not known here (of a newer version) gives no right. */
static unsigned scopes_read(struct arena *arena, str text)
{
    const struct json *array, *item;
    unsigned scopes = 0;
    if (!json_parse(arena, text, (struct json_limits){0}, &array, NULL))
        return 0;
    struct json_iter it = json_iter(array);
    while (json_next(&it, NULL, &item)) {
        str name;
        unsigned bit;
        if (json_to_str(item, &name) && scope_parse(name, &bit))
            scopes |= bit;
    }
    return scopes;
}

/* ---- who is it? ---- */

static digest hash_key(const struct keys *keys, str key)
{
    return digest_hmac_sha256(secret_reveal(keys->pepper), key);
}

static bool find_row(struct keys *keys, struct context *ctx, int column, digest hash,
                     struct record **row, uuid *tenant_id, struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    struct records rows;
    uuid *tenants;
    *query = query_of(TABLE_API_KEYS);
    query_where_text(query, column, digest_hex(ctx->arena, hash));
    query->limit = 1;
    *row = NULL;
    if (!store_list_any_tenant(keys->store, ctx, query, &rows, &tenants, e))
        return false;
    if (rows.count > 0) {
        *row = &rows.items[0];
        *tenant_id = tenants[0];
    }
    return true;
}

/* When the text stops being good, 0: never; false when it is not good now. */
static bool is_good(const struct record *row, digest hash, int64_t now_us, int64_t *until_us)
{
    digest stored = {0}, previous = {0};
    if (!row || !digest_parse_hex(record_text(row, API_KEYS_HASH), &stored))
        return false;
    *until_us = record_integer(row, API_KEYS_EXPIRES_AT);
    if (!digest_equal(stored, hash)) {
        int64_t overlap_us = record_integer(row, API_KEYS_PREVIOUS_UNTIL);
        if (!digest_parse_hex(record_text(row, API_KEYS_PREVIOUS_HASH), &previous) ||
            !digest_equal(previous, hash) || overlap_us <= now_us)
            return false;
        if (*until_us == 0 || overlap_us < *until_us)
            *until_us = overlap_us;
    }
    return !record_has(row, API_KEYS_REVOKED_AT) && (*until_us == 0 || *until_us > now_us);
}

static bool unauthenticated(struct error *e)
{
    return error_set(e, REASON_UNAUTHENTICATED, "the API key is not known, expired or revoked");
}

digest keys_digest(const struct keys *keys, str key)
{
    return hash_key(keys, key);
}

bool keys_authenticate(struct keys *keys, struct context *ctx, str key, struct principal *out,
                       struct error *e)
{
    if (key.len > KEY_BYTES_MAX)
        return unauthenticated(e);
    return keys_authenticate_digest(keys, ctx, keys_digest(keys, key), out, e);
}

bool keys_authenticate_digest(struct keys *keys, struct context *ctx, digest hash,
                              struct principal *out, struct error *e)
{
    struct record *row;
    uuid tenant_id = UUID_NONE;
    int64_t now_us = clock_unix_us(keys->clock), now_ns = clock_monotonic_ns(keys->clock);
    if (keys_cache_find(keys->cache, hash, now_ns, now_us, ctx->arena, out))
        return true;
    uint64_t generation = keys_cache_generation(keys->cache);
    if (!find_row(keys, ctx, API_KEYS_HASH, hash, &row, &tenant_id, e) ||
        (!row && !find_row(keys, ctx, API_KEYS_PREVIOUS_HASH, hash, &row, &tenant_id, e)))
        return false;
    int64_t until_us = 0;
    if (!is_good(row, hash, now_us, &until_us))
        return unauthenticated(e);
    struct principal found = {
        .tenant_id = tenant_id,
        .user_id = record_text(row, API_KEYS_USER_ID),
        .caller_id = record_text(row, API_KEYS_USER_ID),
        .role = record_text(row, API_KEYS_ROLE),
        .scopes = scopes_read(ctx->arena, record_text(row, API_KEYS_SCOPES)),
        .key_id = record_uuid(row, API_KEYS_ID),
    };
    if (!role_level_parse(found.role, &found.level))
        return unauthenticated(e);
    if (!key_limits_parse(ctx->arena, record_text(row, API_KEYS_LIMITS), &found.limits,
                          &found.has_key_budget, e))
        return error_wrap(e, "the limits of this key");
    keys_cache_put(keys->cache, hash, &found, now_ns, until_us, generation);
    *out = found;
    return true;
}

/* ---- issuing ---- */

static str make_key(struct keys *keys, struct arena *arena)
{
    uint8_t bytes[KEY_RANDOM_BYTES];
    keys->random->ops->fill(keys->random, bytes, sizeof bytes);
    str text = base64url_encode(arena, str_of((const char *) bytes, sizeof bytes));
    explicit_bzero(bytes, sizeof bytes);
    return str_printf(arena, STR_FMT STR_FMT, STR_ARG(KEY_PREFIX), STR_ARG(text));
}

static void fill_row(struct keys *keys, struct arena *arena, struct record *row,
                     const struct key_request *request, str key, str created_by)
{
    record_set_uuid(row, API_KEYS_ID, uuid_new(keys->clock, keys->random));
    record_set_text(row, API_KEYS_NAME, request->name);
    record_set_text(row, API_KEYS_PREFIX, str_copy(arena, str_slice(key, 0, KEY_PREFIX_BYTES)));
    record_set_text(row, API_KEYS_HASH, digest_hex(arena, hash_key(keys, key)));
    record_set_text(row, API_KEYS_USER_ID, request->user_id);
    record_set_text(row, API_KEYS_CREATED_BY, created_by);
    record_set_text(row, API_KEYS_ROLE, request->role);
    record_set_text(row, API_KEYS_SCOPES, scopes_text(arena, request->scopes));
    record_set_integer(row, API_KEYS_CREATED_AT, clock_unix_us(keys->clock));
    if (request->expires_us > 0)
        record_set_integer(row, API_KEYS_EXPIRES_AT, request->expires_us);
    bool has_budget = request->add_rows != NULL;
    if (has_budget || key_limits_are_any(&request->limits))
        record_set_text(row, API_KEYS_LIMITS, key_limits_text(arena, &request->limits, has_budget));
}

bool keys_check_name(str name, struct error *e)
{
    return (!str_is_empty(name) && name.len <= NAME_BYTES_MAX) ||
           error_set(e, REASON_SCHEMA, "name must have 1 to %d bytes", NAME_BYTES_MAX);
}

bool keys_check_unlimited(const struct principal *principal, struct error *e)
{
    return (!principal->has_key_budget && !key_limits_are_any(&principal->limits)) ||
           error_set(e, REASON_DENIED,
                     "a key that has limits of its own may not make or change keys");
}

static bool check_request(struct keys *keys, const struct principal *creator,
                          struct key_request *request, struct error *e)
{
    enum role_level level;
    if (!keys_check_unlimited(creator, e) || !keys_check_name(request->name, e))
        return false;
    if (str_is_empty(request->user_id))
        request->user_id = creator->user_id;
    if (str_is_empty(request->role))
        request->role = creator->role;
    if (str_equal(request->user_id, S("system")))
        return error_set(e, REASON_SCHEMA,
                         "the user_id \"system\" is the platform's own; choose another");
    if (request->user_id.len > USER_ID_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "user_id is over %d bytes", USER_ID_BYTES_MAX);
    if (!role_level_parse(request->role, &level))
        return error_set(e, REASON_SCHEMA, "role must be admin, operator, user or viewer");
    if (level > creator->level)
        return error_set(e, REASON_DENIED,
                         "a key may not have a higher role than its creator (" STR_FMT ")",
                         STR_ARG(creator->role));
    if (request->scopes & ~creator->scopes)
        return error_set(e, REASON_DENIED, "a key may not have a scope that its creator has not");
    if (!str_equal(request->user_id, creator->user_id) && creator->level < ROLE_LEVEL_ADMIN)
        return error_set(e, REASON_DENIED, "making a key for another user_id needs the role admin");
    if (request->expires_us != 0 && request->expires_us <= clock_unix_us(keys->clock))
        return error_set(e, REASON_SCHEMA, "expires_at is in the past");
    return true;
}

bool keys_issue(struct keys *keys, struct context *ctx, const struct principal *creator,
                const struct key_request *request, str *key, struct record *out, struct error *e)
{
    struct key_request wanted = *request;
    struct batch batch;
    str minters;
    if (!check_request(keys, creator, &wanted, e) ||
        !keys_minters(keys, ctx, creator, NULL, &minters, e))
        return false;
    str made = make_key(keys, ctx->arena);
    batch_init(&batch, ctx->arena, creator->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_API_KEYS);
    fill_row(keys, ctx->arena, row, &wanted, made, creator->caller_id);
    if (!str_is_empty(minters))
        record_set_text(row, API_KEYS_MINTERS, minters);
    struct record *copy = ARENA_NEW(ctx->arena, struct record);
    *copy = *row; /* the batch may move its rows */
    if (wanted.add_rows)
        wanted.add_rows(wanted.add_owner, &batch, record_uuid(copy, API_KEYS_ID));
    audit_add(
        &batch, keys->clock, keys->random, creator,
        &(struct audit_entry){.action = S("key.create"),
                              .resource_type = S("key"),
                              .resource_id = uuid_str(ctx->arena, record_uuid(copy, API_KEYS_ID))});
    if (!store_commit(keys->store, ctx, &batch, e))
        return false;
    *key = made;
    *out = *copy;
    return true;
}

/* ---- listing and revoking ---- */

bool keys_list(struct keys *keys, struct context *ctx, const struct principal *principal,
               str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_API_KEYS);
    if (principal->level < ROLE_LEVEL_ADMIN)
        query_where_text(query, API_KEYS_USER_ID, principal->user_id);
    query->is_descending = true;
    query->cursor = cursor;
    query->limit = limit;
    return store_list(keys->store, ctx, principal->tenant_id, query, out, e);
}

bool keys_find_own(struct keys *keys, struct context *ctx, const struct principal *principal,
                   uuid id, struct record **out, struct error *e)
{
    struct record *key = ARENA_NEW(ctx->arena, struct record),
                  *row = *out = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    *key = record_of(TABLE_API_KEYS);
    record_set_uuid(key, API_KEYS_ID, id);
    bool is_found = store_get(keys->store, ctx, principal->tenant_id, key, row, &missing);
    if (!is_found && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    bool is_own = is_found && (principal->level >= ROLE_LEVEL_ADMIN ||
                               str_equal(record_text(row, API_KEYS_USER_ID), principal->user_id));
    return is_own || error_set(e, REASON_NOT_FOUND, "there is no key " STR_FMT,
                               STR_ARG(uuid_str(ctx->arena, id)));
}

bool keys_revoke(struct keys *keys, struct context *ctx, const struct principal *principal, uuid id,
                 struct error *e)
{
    struct batch batch;
    struct record *found;
    if (!keys_find_own(keys, ctx, principal, id, &found, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, id);
    record_set_integer(row, API_KEYS_REVOKED_AT, clock_unix_us(keys->clock));
    batch_where_null(&batch, API_KEYS_REVOKED_AT);
    audit_add(&batch, keys->clock, keys->random, principal,
              &(struct audit_entry){.action = S("key.revoke"),
                                    .resource_type = S("key"),
                                    .resource_id = uuid_str(ctx->arena, id)});
    struct error failure = {0};
    bool ok = store_commit(keys->store, ctx, &batch, &failure);
    keys_cache_drop(keys->cache, id);
    return ok || failure.code == ERROR_CONFLICT /* revoked before: what was asked for is so */ ||
           error_copy(e, &failure);
}

/* ---- the first start: keys_bootstrap.c does the files ---- */

uuid keys_default_tenant(void)
{
    return (uuid){{0x01, 0x93, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x01}};
}

struct store *keys_store(struct keys *keys)
{
    return keys->store;
}

struct clock *keys_clock(struct keys *keys)
{
    return keys->clock;
}

struct random *keys_random(struct keys *keys)
{
    return keys->random;
}

digest keys_hash(const struct keys *keys, str key)
{
    return hash_key(keys, key);
}

void keys_forget(struct keys *keys, uuid id)
{
    keys_cache_drop(keys->cache, id);
}

str keys_make(struct keys *keys, struct arena *arena)
{
    return make_key(keys, arena);
}

bool keys_is_stored(struct keys *keys, struct context *ctx, str key)
{
    struct principal ignored = {0};
    return keys_authenticate(keys, ctx, key, &ignored, NULL);
}

bool keys_commit_first(struct keys *keys, struct context *ctx, str key, struct error *e)
{
    struct batch batch;
    struct key_request request = {
        .name = S("admin"),
        .user_id = S("admin"),
        .role = S("admin"),
        .scopes = SCOPE_PLATFORM | SCOPE_ACT_AS | SCOPE_APPROVE,
    };
    struct principal system = {
        .tenant_id = keys_default_tenant(), .user_id = S("system"), .caller_id = S("system")};
    batch_init(&batch, ctx->arena, system.tenant_id);
    struct record *tenant = batch_add(&batch, WRITE_INSERT, TABLE_TENANTS);
    record_set_uuid(tenant, TENANTS_ID, system.tenant_id);
    record_set_text(tenant, TENANTS_NAME, S("default"));
    record_set_integer(tenant, TENANTS_CREATED_AT, clock_unix_us(keys->clock));
    fill_row(keys, ctx->arena, batch_add(&batch, WRITE_INSERT, TABLE_API_KEYS), &request, key,
             S("system"));
    audit_add(&batch, keys->clock, keys->random, &system,
              &(struct audit_entry){
                  .action = S("key.create"), .resource_type = S("key"), .resource_id = S("admin")});
    return store_commit(keys->store, ctx, &batch, e);
}
