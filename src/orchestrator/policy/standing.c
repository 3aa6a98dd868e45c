#include "orchestrator/policy/standing.h"
#include "base/arena.h"
#include "orchestrator/policy/key_limits.h"
#include "runtime/clock.h"
#include "runtime/context.h"

static bool is_good(const struct record *key, int64_t now_us)
{
    int64_t until_us = record_integer(key, API_KEYS_EXPIRES_AT);
    return !record_has(key, API_KEYS_REVOKED_AT) && (until_us == 0 || until_us > now_us);
}

static bool over(const struct standing *standing, struct error *e)
{
    return error_set(e, REASON_DENIED,
                     STR_FMT ": the key that made it is expired, revoked or gone; put it again "
                             "with a key that is good",
                     STR_ARG(standing->caller_id));
}

static bool hold_to_key(struct arena *arena, const struct record *key, struct principal *out,
                        struct error *e)
{
    enum role_level level;
    str role = record_text(key, API_KEYS_ROLE);
    if (!role_level_parse(role, &level))
        return error_set(e, REASON_CORRUPT, "a key has an unknown role");
    if (level < out->level) {
        out->level = level;
        out->role = role;
    }
    out->key_id = record_uuid(key, API_KEYS_ID);
    return key_limits_parse(arena, record_text(key, API_KEYS_LIMITS), &out->limits,
                            &out->has_key_budget, e) ||
           error_wrap(e, "the limits of the key that made it");
}

bool principal_standing(struct store *store, struct clock *clock, struct context *ctx,
                        const struct standing *standing, struct principal *out, struct error *e)
{
    struct record wanted = record_of(TABLE_API_KEYS), *key = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    *out = (struct principal){
        .tenant_id = standing->tenant_id,
        .user_id = standing->user_id,
        .caller_id = standing->caller_id,
        .role = standing->role,
    };
    if (!role_level_parse(standing->role, &out->level))
        return error_set(e, REASON_CORRUPT, STR_FMT " has an unknown role",
                         STR_ARG(standing->caller_id));
    if (uuid_is_none(standing->key_id))
        return true;
    record_set_uuid(&wanted, API_KEYS_ID, standing->key_id);
    if (!store_get(store, ctx, standing->tenant_id, &wanted, key, &missing))
        return missing.code == ERROR_NOT_FOUND ? over(standing, e) : error_copy(e, &missing);
    if (!is_good(key, clock_unix_us(clock)))
        return over(standing, e);
    return hold_to_key(ctx->arena, key, out, e);
}
