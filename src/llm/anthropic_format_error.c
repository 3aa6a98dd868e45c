/* an upstream's error answer -> class; our errors -> the API's words */
#include "base/arena.h"
#include "llm/anthropic_format_internal.h"
#include "llm/openai_format.h"

/* ---- in ---- */

static bool set_reason(struct error *e, enum error_reason reason)
{
    e->reason = reason;
    e->code = error_reason_code(reason);
    return false;
}

/* The words of this API where they say more than the status, or than Chat's words. */
static bool refine(const struct json *error, struct error *e)
{
    str type = json_str_or(error, S("type"), STR_NONE);
    str message = json_str_or(error, S("message"), STR_NONE);
    if (str_equal(type, S("billing_error")) ||
        str_find(message, S("credit balance is too low")) != STR_NOT_FOUND)
        return set_reason(e, REASON_PROVIDER_QUOTA);
    if (str_equal(type, S("api_error")) && e->reason == REASON_PROVIDER_PROTOCOL)
        return set_reason(e, REASON_PROVIDER_OVERLOADED);
    if (str_equal(type, S("request_too_large")))
        return set_reason(e, REASON_PROVIDER_INVALID);
    return false;
}

bool anthropic_error_from_json(const struct json *error, struct arena *arena, struct error *e)
{
    openai_error_from_json(error, 200, 0, arena, e);
    return refine(error, e);
}

bool anthropic_error_from_status(int status, str body, int64_t retry_after_ms, struct arena *arena,
                                 struct error *e)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_ERROR_BODY_BYTES_MAX,
                                 .allow_duplicates = true};
    openai_error_from_status(status, body, retry_after_ms, arena, e);
    if (!json_parse(arena, body, limits, &tree, &ignored))
        return false;
    return refine(json_get(tree, S("error")), e);
}

/* ---- out ---- */

static str type_word(const struct error *e)
{
    int status = error_http_status(e->reason);
    switch (status) {
    case 401: return S("authentication_error");
    case 402: return S("billing_error");
    case 403: return S("permission_error");
    case 404: return S("not_found_error");
    case 408:
    case 504: return S("timeout_error");
    case 413: return S("request_too_large");
    case 429: return S("rate_limit_error");
    case 503:
    case 529: return S("overloaded_error");
    default: return status >= 500 ? S("api_error") : S("invalid_request_error");
    }
}

void anthropic_write_error(struct json_writer *w, const struct error *e, str request_id)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("error"));
    json_key(w, S("error"));
    json_object_begin(w);
    json_put_str(w, S("type"), type_word(e));
    json_put_str(w, S("message"),
                 str_from_cstr(e->message[0] ? e->message : error_title(e->reason)));
    json_object_end(w);
    if (request_id.len > 0)
        json_put_str(w, S("request_id"), request_id);
    json_object_end(w);
}
