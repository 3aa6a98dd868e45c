/* an upstream's error answer -> class, without its secrets */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/timefmt.h"
#include "llm/openai_format_internal.h"

#include <stdio.h>

/* ---- the provider's own words ---- */

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '*' || c == '.';
}

/* Providers quote the key they refuse; masked or not, it is not for our logs. */
static bool looks_like_key(str word)
{
    static const str prefixes[] = {S_INIT("sk-"),  S_INIT("sk_"),   S_INIT("pk-"),  S_INIT("rk-"),
                                   S_INIT("gsk_"), S_INIT("xai-"),  S_INIT("key-"), S_INIT("AIza"),
                                   S_INIT("hf_"),  S_INIT("nvapi-")};
    for (size_t i = 0; i < ARRAY_COUNT(prefixes); i++) {
        if (word.len > prefixes[i].len && str_starts_with(word, prefixes[i]))
            return true;
    }
    size_t digits = 0;
    for (size_t i = 0; i < word.len; i++)
        digits += word.ptr[i] >= '0' && word.ptr[i] <= '9';
    return word.len >= 32 && digits >= 4; /* long and random */
}

/* One line, keys masked, cut. */
static str tidy(struct arena *arena, str text)
{
    struct strbuf b;
    strbuf_init(&b, arena, 8 * PROVIDER_QUOTE_BYTES_MAX);
    text = str_trim(str_cut_utf8(text, 4 * PROVIDER_QUOTE_BYTES_MAX));
    for (size_t i = 0; i < text.len;) {
        size_t end = i;
        while (end < text.len && is_word_char(text.ptr[end]))
            end++;
        if (end > i) {
            str word = str_slice(text, i, end);
            strbuf_add(&b, looks_like_key(word) ? S("[masked]") : word);
            i = end;
            continue;
        }
        unsigned char c = (unsigned char) text.ptr[i++];
        strbuf_add_char(&b, c < 0x20 || c == 0x7f ? ' ' : (char) c);
    }
    str tidied = strbuf_str(&b);
    if (!str_is_utf8(tidied))
        return S("(not text)");
    return str_cut_utf8(tidied, PROVIDER_QUOTE_BYTES_MAX);
}

/* Where the many compatible servers put their sentence. */
static str find_message(const struct json *error)
{
    static const str members[] = {S_INIT("message"), S_INIT("detail"), S_INIT("error"),
                                  S_INIT("msg")};
    str text;
    if (json_to_str(error, &text))
        return text;
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        const struct json *member = json_get(error, members[i]);
        if (json_to_str(member, &text) && text.len > 0)
            return text;
        if (json_type(member) == JSON_ARRAY &&
            json_to_str(json_get(json_at(member, 0), S("msg")), &text))
            return text;
    }
    return STR_NONE;
}

/* ---- classes ---- */

static bool mentions(str text, const char *word)
{
    return str_find(text, str_from_cstr(word)) != STR_NOT_FOUND;
}

static bool is_quota(str type, str code)
{
    return mentions(type, "quota") || mentions(code, "quota") || mentions(code, "billing") ||
           mentions(type, "billing") || mentions(code, "credit");
}

static enum error_reason reason_of_status(int status)
{
    switch (status) {
    case 401:
    case 403: return REASON_PROVIDER_AUTH;
    case 402: return REASON_PROVIDER_QUOTA;
    case 408:
    case 504:
    case 524: /* a proxy's own: the origin did not answer in time */ return REASON_PROVIDER_TIMEOUT;
    case 425:
    case 500:
    case 502:
    case 503:
    case 520:
    case 521:
    case 522:
    case 523:
    case 529: return REASON_PROVIDER_OVERLOADED;
    case 429: return REASON_PROVIDER_RATE_LIMITED;
    default:
        return status >= 400 && status < 500 ? REASON_PROVIDER_INVALID : REASON_PROVIDER_PROTOCOL;
    }
}

/* An error inside a 200 answer has no status: its code (a word or a number) or type says what it
 * is. */
static enum error_reason reason_of_words(str type, str code)
{
    static const struct {
        const char *word;
        enum error_reason reason;
    } words[] = {
        {"rate_limit", REASON_PROVIDER_RATE_LIMITED},
        {"too_many_requests", REASON_PROVIDER_RATE_LIMITED},
        {"api_key", REASON_PROVIDER_AUTH},
        {"authentication", REASON_PROVIDER_AUTH},
        {"permission", REASON_PROVIDER_AUTH},
        {"invalid", REASON_PROVIDER_INVALID},
        {"not_found", REASON_PROVIDER_INVALID},
        {"content_filter", REASON_PROVIDER_INVALID},
        {"context_length", REASON_PROVIDER_INVALID},
        {"timeout", REASON_PROVIDER_TIMEOUT},
        {"overloaded", REASON_PROVIDER_OVERLOADED},
        {"unavailable", REASON_PROVIDER_OVERLOADED},
        {"server_error", REASON_PROVIDER_OVERLOADED},
        {"capacity", REASON_PROVIDER_OVERLOADED},
    };
    if (is_quota(type, code))
        return REASON_PROVIDER_QUOTA;
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (mentions(code, words[i].word) || mentions(type, words[i].word))
            return words[i].reason;
    }
    return REASON_PROVIDER_PROTOCOL;
}

static enum error_reason choose_reason(const struct json *error, int status)
{
    str type = json_str_or(error, S("type"), STR_NONE),
        code = json_str_or(error, S("code"), STR_NONE);
    int64_t number = json_i64_or(error, S("code"), 0);
    if (status == 429 && is_quota(type, code))
        return REASON_PROVIDER_QUOTA;
    if (status >= 300)
        return reason_of_status(status);
    if (number >= 400 && number < 600)
        return reason_of_status((int) number);
    return reason_of_words(type, code);
}

static bool set_error(enum error_reason reason, int status, str words, int64_t retry_after_ms,
                      struct error *e)
{
    if (status >= 300 && status < 400)
        error_set(e, reason,
                  "status %d: a redirect is not followed; set base_url to the final address",
                  status);
    else if (status >= 300)
        error_set(e, reason, "status %d%s" STR_FMT, status, words.len ? ": " : "", STR_ARG(words));
    else
        error_set(e, reason, "the answer is an error%s" STR_FMT, words.len ? ": " : "",
                  STR_ARG(words));
    e->retry_after_ms = retry_after_ms;
    return false;
}

/* ---- public ---- */

bool openai_error_from_json(const struct json *error, int status, int64_t retry_after_ms,
                            struct arena *arena, struct error *e)
{
    return set_error(choose_reason(error, status), status, tidy(arena, find_message(error)),
                     retry_after_ms, e);
}

bool openai_error_from_status(int status, str body, int64_t retry_after_ms, struct arena *arena,
                              struct error *e)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_ERROR_BODY_BYTES_MAX,
                                 .allow_duplicates = true};
    if (!json_parse(arena, body, limits, &tree, &ignored)) {
        bool is_page =
            str_starts_with(str_trim(body), S("<")); /* a proxy's HTML says nothing useful */
        return set_error(reason_of_status(status), status, is_page ? STR_NONE : tidy(arena, body),
                         retry_after_ms, e);
    }
    if (json_type(tree) == JSON_ARRAY)
        tree = json_at(tree, 0);
    const struct json *error = json_get(tree, S("error"));
    return openai_error_from_json(json_type(error) == JSON_OBJECT ? error : tree, status,
                                  retry_after_ms, arena, e);
}

/* ---- Retry-After ---- */

static int month_number(str name)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12; i++) {
        if (str_equal(name, str_of(names + 3 * i, 3)))
            return i + 1;
    }
    return 0;
}

/* "Wed, 21 Oct 2015 07:28:00 GMT" (RFC 9110, IMF-fixdate), by way of RFC 3339. */
static bool parse_http_date(str text, int64_t *unix_us)
{
    char iso[32];
    if (text.len != 29 || !str_ends_with(text, S(" GMT")) || text.ptr[3] != ',')
        return false;
    int month = month_number(str_slice(text, 8, 11));
    if (month == 0)
        return false;
    snprintf(iso, sizeof iso, "%.4s-%02d-%.2sT%.8sZ", text.ptr + 12, month, text.ptr + 5,
             text.ptr + 17);
    return time_parse(str_from_cstr(iso), unix_us);
}

static int64_t clamp_wait(int64_t ms)
{
    return ms < 0 ? 0 : ms > PROVIDER_RETRY_AFTER_MS_MAX ? PROVIDER_RETRY_AFTER_MS_MAX : ms;
}

int64_t openai_retry_after_ms(str retry_after_ms, str retry_after, int64_t now_unix_us)
{
    double number;
    int64_t at_us;
    /* Compared as reals: a huge number must not overflow on its way to the clamp. */
    if (str_to_double(str_trim(retry_after_ms), &number) && number >= 0)
        return number < (double) PROVIDER_RETRY_AFTER_MS_MAX ? (int64_t) number
                                                             : PROVIDER_RETRY_AFTER_MS_MAX;
    if (str_to_double(str_trim(retry_after), &number) && number >= 0)
        return number * 1000 < (double) PROVIDER_RETRY_AFTER_MS_MAX ? (int64_t) (number * 1000)
                                                                    : PROVIDER_RETRY_AFTER_MS_MAX;
    if (parse_http_date(str_trim(retry_after), &at_us))
        return clamp_wait((at_us - now_unix_us + 999) / 1000);
    return 0;
}
