#include "orchestrator/webhook/webhook_signature.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/strbuf.h"

static const struct {
    const char *name, *id, *timestamp, *signature;
} schemes[WEBHOOK_SCHEME_COUNT] = {
    [WEBHOOK_STANDARD] = {"standard", "webhook-id", "webhook-timestamp", "webhook-signature"},
    [WEBHOOK_GITHUB] = {"github", NULL, NULL, "x-hub-signature-256"},
    [WEBHOOK_STRIPE] = {"stripe", NULL, NULL, "stripe-signature"},
};

const char *webhook_scheme_name(enum webhook_scheme scheme)
{
    return schemes[scheme].name;
}

bool webhook_scheme_parse(str text, enum webhook_scheme *out)
{
    for (int i = 0; i < WEBHOOK_SCHEME_COUNT; i++) {
        if (!str_equal(text, str_from_cstr(schemes[i].name)))
            continue;
        *out = (enum webhook_scheme) i;
        return true;
    }
    return false;
}

const char *webhook_header_id(enum webhook_scheme scheme)
{
    return schemes[scheme].id;
}

const char *webhook_header_timestamp(enum webhook_scheme scheme)
{
    return schemes[scheme].timestamp;
}

const char *webhook_header_signature(enum webhook_scheme scheme)
{
    return schemes[scheme].signature;
}

/* ---- secrets ---- */

enum { STANDARD_KEY_MIN = 24, STANDARD_KEY_MAX = 64, PLAIN_KEY_MIN = 16, PLAIN_KEY_MAX = 256 };

static bool is_visible(str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < 0x21 || text.ptr[i] > 0x7e)
            return false;
    return true;
}

bool webhook_secret_key(struct arena *arena, enum webhook_scheme scheme, str secret, str *key,
                        struct error *e)
{
    str text;
    if (scheme != WEBHOOK_STANDARD) {
        *key = secret;
        return (secret.len >= PLAIN_KEY_MIN && secret.len <= PLAIN_KEY_MAX && is_visible(secret)) ||
               error_set(e, REASON_SCHEMA,
                         "a secret of this scheme has %d to %d visible characters", PLAIN_KEY_MIN,
                         PLAIN_KEY_MAX);
    }
    return (str_strip_prefix(secret, S("whsec_"), &text) && base64_decode(arena, text, key) &&
            key->len >= STANDARD_KEY_MIN && key->len <= STANDARD_KEY_MAX) ||
           error_set(e, REASON_SCHEMA,
                     "a secret of this scheme is whsec_ and base64 of %d to %d bytes",
                     STANDARD_KEY_MIN, STANDARD_KEY_MAX);
}

str webhook_secret_make(struct arena *arena, enum webhook_scheme scheme)
{
    uint8_t bytes[32];
    digest_random_bytes(bytes, sizeof bytes);
    str text =
        scheme == WEBHOOK_STANDARD
            ? str_printf(arena, "whsec_" STR_FMT,
                         STR_ARG(base64_encode(arena, str_of((const char *) bytes, sizeof bytes))))
            : str_hex(arena, bytes, sizeof bytes);
    explicit_bzero(bytes, sizeof bytes);
    return text;
}

/* ---- reading ---- */

/* What a signature field holds, once taken apart. */
struct claims {
    digest signatures[WEBHOOK_SIGNATURES_MAX];
    size_t count;
    str timestamp; /* as it stands there: it is signed as it stands */
    bool is_sound; /* nothing that is needed is missing or malformed */
};

static void claim(struct claims *claims, digest signature)
{
    if (claims->count == WEBHOOK_SIGNATURES_MAX)
        claims->is_sound = false;
    else
        claims->signatures[claims->count++] = signature;
}

static void claim_hex(struct claims *claims, str hex)
{
    digest signature;
    if (digest_parse_hex(hex, &signature))
        claim(claims, signature);
}

/* "v1,BASE64 v1,BASE64 v1a,..."; versions that are not v1 are somebody else's. */
static void read_standard(struct arena *arena, str value, struct claims *claims)
{
    str item, text, bytes;
    while (str_next(&value, ' ', &item)) {
        digest signature;
        if (!str_strip_prefix(item, S("v1,"), &text))
            continue;
        if (text.len > WEBHOOK_SIGNATURE_BYTES_MAX || !base64_decode(arena, text, &bytes) ||
            bytes.len != sizeof signature.bytes)
            continue;
        memcpy(signature.bytes, bytes.ptr, sizeof signature.bytes);
        claim(claims, signature);
    }
}

/* "t=SECONDS,v1=HEX,v1=HEX,v0=..." */
static void read_stripe(str value, struct claims *claims)
{
    str item, name, text;
    while (str_next(&value, ',', &item)) {
        if (!str_cut(str_trim(item), '=', &name, &text))
            continue;
        if (str_equal(name, S("v1")))
            claim_hex(claims, text);
        else if (str_equal(name, S("t")) && str_is_empty(claims->timestamp))
            claims->timestamp = text;
        else if (str_equal(name, S("t")))
            claims->is_sound = false;
    }
}

static void read_claims(struct arena *arena, enum webhook_scheme scheme,
                        const struct webhook_signed *request, struct claims *out)
{
    str text;
    *out = (struct claims){.is_sound = request->signature.len <= WEBHOOK_SIGNATURE_BYTES_MAX};
    str value = str_slice(request->signature, 0, WEBHOOK_SIGNATURE_BYTES_MAX);
    switch (scheme) {
    case WEBHOOK_STANDARD:
        read_standard(arena, value, out);
        out->timestamp = request->timestamp;
        break;
    case WEBHOOK_GITHUB:
        if (str_strip_prefix(value, S("sha256="), &text))
            claim_hex(out, text);
        break;
    case WEBHOOK_STRIPE: read_stripe(value, out); break;
    case WEBHOOK_SCHEME_COUNT: break;
    }
}

static bool is_in_window(str timestamp, int64_t now_s)
{
    int64_t at_s;
    return timestamp.len <= 12 && str_to_i64(timestamp, &at_s) && at_s > 0 &&
           at_s >= now_s - WEBHOOK_WINDOW_S && at_s <= now_s + WEBHOOK_WINDOW_S;
}

/* A dot would let the same bytes be read as another id, time and body. */
static bool is_id(str id)
{
    return id.len > 0 && id.len <= WEBHOOK_ID_BYTES_MAX && is_visible(id) &&
           str_find_char(id, '.') == STR_NOT_FOUND;
}

/* ---- signing ---- */

static digest mac_of(struct arena *arena, enum webhook_scheme scheme, str key, str id,
                     str timestamp, str body)
{
    if (scheme == WEBHOOK_GITHUB)
        return digest_hmac_sha256(key, body);
    str parts[] = {id, S("."), timestamp, S("."), body};
    size_t first = scheme == WEBHOOK_STRIPE ? 2 : 0;
    return digest_hmac_sha256(key, str_join(arena, parts + first, ARRAY_COUNT(parts) - first));
}

bool webhook_verify(struct arena *arena, enum webhook_scheme scheme, str key,
                    const struct webhook_signed *request, int64_t now_s)
{
    struct claims claims;
    read_claims(arena, scheme, request, &claims);
    str id = str_slice(request->id, 0, WEBHOOK_ID_BYTES_MAX),
        timestamp = str_slice(claims.timestamp, 0, WEBHOOK_ID_BYTES_MAX);
    digest wanted = mac_of(arena, scheme, key, id, timestamp, request->body);
    bool fits = false;
    for (size_t i = 0; i < claims.count; i++)
        fits |= digest_equal(claims.signatures[i], wanted);
    bool is_now = scheme == WEBHOOK_GITHUB || is_in_window(claims.timestamp, now_s);
    bool has_id = scheme != WEBHOOK_STANDARD || is_id(request->id);
    return fits & claims.is_sound & is_now & has_id;
}

str webhook_delivery_key(struct arena *arena, enum webhook_scheme scheme,
                         const struct webhook_signed *request, str event_id)
{
    bool has_id = scheme == WEBHOOK_STANDARD || (scheme == WEBHOOK_STRIPE && event_id.len > 0 &&
                                                 event_id.len <= WEBHOOK_ID_BYTES_MAX);
    str id = scheme == WEBHOOK_STANDARD ? request->id : event_id;
    /* Of two kinds, so that a body never stands for an id. */
    str parts[] = {has_id ? S("id\n") : S("body\n"), has_id ? id : request->body};
    return digest_hex(arena, digest_sha256(str_join(arena, parts, ARRAY_COUNT(parts))));
}

str webhook_sign(struct arena *arena, const struct webhook_signed *request, const str *keys,
                 size_t key_count)
{
    struct strbuf out;
    strbuf_init(&out, arena, WEBHOOK_SIGNATURE_BYTES_MAX);
    for (size_t i = 0; i < key_count; i++) {
        digest mac = mac_of(arena, WEBHOOK_STANDARD, keys[i], request->id, request->timestamp,
                            request->body);
        if (i > 0)
            strbuf_add_char(&out, ' ');
        strbuf_add(&out, S("v1,"));
        strbuf_add(&out, base64_encode(arena, str_of((const char *) mac.bytes, sizeof mac.bytes)));
    }
    return strbuf_str(&out);
}

void webhook_sign_as(struct arena *arena, enum webhook_scheme scheme, str key, str id,
                     int64_t now_s, str body, struct webhook_signed *out)
{
    str timestamp = str_i64(arena, now_s);
    *out = (struct webhook_signed){.body = body};
    if (scheme == WEBHOOK_STANDARD) {
        out->id = id;
        out->timestamp = timestamp;
        out->signature = webhook_sign(arena, out, &key, 1);
        return;
    }
    str hex = digest_hex(arena, mac_of(arena, scheme, key, id, timestamp, body));
    out->signature = scheme == WEBHOOK_GITHUB ? str_printf(arena, "sha256=" STR_FMT, STR_ARG(hex))
                                              : str_printf(arena, "t=" STR_FMT ",v1=" STR_FMT,
                                                           STR_ARG(timestamp), STR_ARG(hex));
}
