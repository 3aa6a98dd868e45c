/* Secrets of webhooks and endpoints in their rows, and other things that both kinds share. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/secret.h"
#include "orchestrator/webhook/webhook_internal.h"

str webhook_place(struct arena *arena, const char *kind, uuid tenant_id, str name)
{
    return str_printf(arena, "%s\n" STR_FMT "\n" STR_FMT, kind, STR_ARG(uuid_str(arena, tenant_id)),
                      STR_ARG(name));
}

static const uint8_t *key_of(const struct webhooks *w)
{
    str key = secret_reveal(w->options.seal_key);
    ensure(key.len == SEAL_KEY_BYTES);
    return (const uint8_t *) key.ptr;
}

str webhook_seal(const struct webhooks *w, struct arena *arena, str place, str secret)
{
    return base64_encode(arena, seal_close(arena, key_of(w), place, secret));
}

bool webhook_unseal(const struct webhooks *w, struct arena *arena, str place, str sealed,
                    str *secret)
{
    str bytes;
    return base64_decode(arena, sealed, &bytes) &&
           seal_open(arena, key_of(w), place, bytes, secret);
}

bool webhook_secret_choose(struct arena *arena, enum webhook_scheme scheme, str given, str *secret,
                           struct error *e)
{
    str key;
    if (!str_is_empty(given) && !webhook_secret_key(arena, scheme, given, &key, e))
        return false;
    *secret = str_is_empty(given) ? webhook_secret_make(arena, scheme) : given;
    return true;
}

bool webhook_overlap(const struct webhook_rotation *rotation, int64_t now_us, int64_t *until_us,
                     struct error *e)
{
    int64_t overlap_ms = rotation->overlap_ms < 0 ? WEBHOOK_OVERLAP_MS : rotation->overlap_ms;
    if (overlap_ms > WEBHOOK_WEEK_MS)
        return error_set(e, REASON_SCHEMA, "the secret before is good for at most %lld hours more",
                         (long long) (WEBHOOK_WEEK_MS / 3600000));
    *until_us = now_us + overlap_ms * 1000;
    return true;
}

bool webhook_check_name(const char *what, str name, struct error *e)
{
    bool is_fine = name.len > 0 && name.len <= WEBHOOK_NAME_BYTES_MAX;
    for (size_t i = 0; is_fine && i < name.len; i++) {
        char c = name.ptr[i];
        bool is_word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        is_fine = is_word || (i > 0 && (c == '-' || c == '.'));
    }
    return is_fine || error_set(e, REASON_SCHEMA,
                                "the name of %s has at most %d letters, digits, _, and (not "
                                "first) - and .",
                                what, WEBHOOK_NAME_BYTES_MAX);
}

void webhook_audit(struct orchestrator *o, struct batch *batch, const struct principal *principal,
                   const char *action, const char *type, str id, str details)
{
    audit_add(batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = str_from_cstr(action),
                                    .resource_type = str_from_cstr(type),
                                    .resource_id = id,
                                    .details = details});
}
