#include "gateway/mcp/mcp_state.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"

/* ---- requestState: base64url({"r","s","x"}) "." hex(mac) ---- */

static digest mac_of(struct arena *arena, const struct keys *keys,
                     const struct principal *principal, digest call, str payload)
{
    char tenant[UUID_TEXT_BYTES + 1];
    uuid_format(principal->tenant_id, tenant);
    str bound =
        str_printf(arena, "%s\n" STR_FMT "\n" STR_FMT "\n" STR_FMT, tenant,
                   STR_ARG(principal->user_id), STR_ARG(digest_hex(arena, call)), STR_ARG(payload));
    /* No key looks like this, so no key's hash is ever given away here. */
    return keys_digest(keys, str_printf(arena, "mcp-state:" STR_FMT,
                                        STR_ARG(digest_hex(arena, digest_sha256(bound)))));
}

str mcp_state_seal(struct arena *arena, const struct keys *keys, const struct principal *principal,
                   digest call, const struct mcp_state *state)
{
    char run[UUID_TEXT_BYTES + 1], session[UUID_TEXT_BYTES + 1];
    uuid_format(state->run_id, run);
    uuid_format(state->session_id, session);
    str payload = base64url_encode(
        arena, str_printf(arena, "%s/%s/%lld", run, session, (long long) state->expires_s));
    return str_printf(arena, STR_FMT "." STR_FMT, STR_ARG(payload),
                      STR_ARG(digest_hex(arena, mac_of(arena, keys, principal, call, payload))));
}

/* base64_decode knows the standard alphabet. */
static bool base64url_decode(struct arena *arena, str text, str *out)
{
    char *copy = arena_alloc_raw(arena, text.len + 1);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '+' || c == '/')
            return false;
        copy[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    return base64_decode(arena, str_of(copy, text.len), out);
}

bool mcp_state_open(struct arena *arena, const struct keys *keys, const struct principal *principal,
                    digest call, str text, int64_t now_s, struct mcp_state *out, struct error *e)
{
    str payload, hex, plain, run, session, expires;
    digest mac;
    if (text.len > MCP_SERVER_STATE_BYTES_MAX || !str_cut(text, '.', &payload, &hex) ||
        !digest_parse_hex(hex, &mac) ||
        !digest_equal(mac, mac_of(arena, keys, principal, call, payload)) ||
        !base64url_decode(arena, payload, &plain))
        return error_set(
            e, REASON_INVALID,
            "requestState is not one that was given for this call and caller; leave it "
            "out and begin anew");
    if (!str_cut(plain, '/', &run, &plain) || !str_cut(plain, '/', &session, &expires) ||
        !uuid_parse(run, &out->run_id) || !uuid_parse(session, &out->session_id) ||
        !str_to_i64(expires, &out->expires_s))
        return error_set(e, REASON_INVALID, "requestState is malformed");
    return now_s <= out->expires_s ||
           error_set(e, REASON_INVALID, "requestState is too old; leave it out and begin anew");
}

digest mcp_state_call(struct arena *arena, str tool, const struct json *arguments)
{
    str text = arguments ? json_canonical(arena, arguments) : S("{}");
    return digest_sha256(str_printf(arena, STR_FMT "\n" STR_FMT, STR_ARG(tool), STR_ARG(text)));
}

/* ---- event ids: "lists.N", or "run.UUID.SEQ.base64url([id, token])" ---- */

str mcp_event_id_write(struct arena *arena, const struct mcp_event_id *id)
{
    struct strbuf text;
    struct json_writer w;
    char run[UUID_TEXT_BYTES + 1];
    if (uuid_is_none(id->run_id))
        return str_printf(arena, "lists.%lld", (long long) id->seq);
    strbuf_init(&text, arena, MCP_SERVER_EVENT_ID_BYTES_MAX / 2);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    json_write_value(&w, id->id);
    json_write_value(&w, id->token);
    json_array_end(&w);
    if (strbuf_is_over(&text))
        return STR_NONE;
    uuid_format(id->run_id, run);
    return str_printf(arena, "run.%s.%lld." STR_FMT, run, (long long) id->seq,
                      STR_ARG(base64url_encode(arena, strbuf_str(&text))));
}

static bool is_id(const struct json *value)
{
    return json_type(value) == JSON_STRING || json_type(value) == JSON_INTEGER;
}

bool mcp_event_id_read(struct arena *arena, str text, struct mcp_event_id *out)
{
    str rest, run, seq, tail, plain;
    const struct json *pair;
    *out = (struct mcp_event_id){.seq = 0};
    if (text.len > MCP_SERVER_EVENT_ID_BYTES_MAX)
        return false;
    if (str_strip_prefix(text, S("lists."), &rest))
        return str_to_i64(rest, &out->seq) && out->seq >= 0;
    if (!str_strip_prefix(text, S("run."), &rest) || !str_cut(rest, '.', &run, &rest) ||
        !str_cut(rest, '.', &seq, &tail) || !uuid_parse(run, &out->run_id) ||
        uuid_is_none(out->run_id) || !str_to_i64(seq, &out->seq) || out->seq < 0 ||
        !base64url_decode(arena, tail, &plain) ||
        !json_parse(arena, plain, (struct json_limits){.depth_max = 4}, &pair, NULL))
        return false;
    out->id = json_at(pair, 0);
    out->token = is_id(json_at(pair, 1)) ? json_at(pair, 1) : NULL;
    return is_id(out->id);
}
