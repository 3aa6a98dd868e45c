/* the rate fields providers put into an answer's head */
#include "llm/router_internal.h"

#include "base/timefmt.h"
#include "llm/openai_format.h"

/* ---- resets ---- */

static bool unit_ms(str unit, double *out)
{
    static const struct {
        str name;
        double ms;
    } units[] = {{S_INIT("ms"), 1},
                 {S_INIT("s"), 1000},
                 {S_INIT("m"), 60000},
                 {S_INIT("h"), 3600e3},
                 {S_INIT("d"), 24 * 3600e3},
                 {S_INIT("us"), 0.001},
                 {S_INIT("\xc2\xb5s"), 0.001},
                 {S_INIT("ns"), 0.000001}};
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (str_equal(units[i].name, unit)) {
            *out = units[i].ms;
            return true;
        }
    }
    return false;
}

static bool is_number_char(char c)
{
    return (c >= '0' && c <= '9') || c == '.';
}

/* As Go writes durations: "1h2m3.5s". */
static bool parse_pieces(str text, double *ms)
{
    size_t i = 0;
    *ms = 0;
    while (i < text.len) {
        size_t number_from = i;
        while (i < text.len && is_number_char(text.ptr[i]))
            i++;
        size_t unit_from = i;
        while (i < text.len && !is_number_char(text.ptr[i]))
            i++;
        double value, factor;
        if (!str_to_double(str_slice(text, number_from, unit_from), &value) ||
            !unit_ms(str_slice(text, unit_from, i), &factor))
            return false;
        *ms += value * factor;
    }
    return text.len > 0;
}

bool quota_parse_reset(str text, int64_t now_unix_us, int64_t *out_ms)
{
    double ms, seconds;
    int64_t at_us;
    text = str_trim(text);
    if (text.len == 0 || !is_number_char(text.ptr[0]))
        return false;
    if (time_parse(text, &at_us))
        ms = (double) (at_us - now_unix_us) / 1000;
    else if (str_to_double(text, &seconds))
        ms = seconds * 1000;
    else if (!parse_pieces(text, &ms))
        return false;
    if (!(ms > 0))
        ms = 0;
    *out_ms = ms < (double) PROVIDER_RETRY_AFTER_MS_MAX ? (int64_t) (ms + 0.999)
                                                        : PROVIDER_RETRY_AFTER_MS_MAX;
    return true;
}

/* ---- fields ---- */

enum field {
    FIELD_RETRY_AFTER,
    FIELD_RETRY_AFTER_MS,
    FIELD_REQUESTS_LEFT,
    FIELD_TOKENS_LEFT,
    FIELD_REQUESTS_RESET,
    FIELD_TOKENS_RESET
};
static const struct {
    str name;
    enum field field;
} fields[] = {
    {S_INIT("retry-after"), FIELD_RETRY_AFTER},
    {S_INIT("retry-after-ms"), FIELD_RETRY_AFTER_MS},
    {S_INIT("x-ratelimit-remaining-requests"), FIELD_REQUESTS_LEFT},
    {S_INIT("x-ratelimit-remaining-tokens"), FIELD_TOKENS_LEFT},
    {S_INIT("x-ratelimit-reset-requests"), FIELD_REQUESTS_RESET},
    {S_INIT("x-ratelimit-reset-tokens"), FIELD_TOKENS_RESET},
    {S_INIT("anthropic-ratelimit-requests-remaining"), FIELD_REQUESTS_LEFT},
    {S_INIT("anthropic-ratelimit-tokens-remaining"), FIELD_TOKENS_LEFT},
    {S_INIT("anthropic-ratelimit-requests-reset"), FIELD_REQUESTS_RESET},
    {S_INIT("anthropic-ratelimit-tokens-reset"), FIELD_TOKENS_RESET},
};

static bool find_field(str name, enum field *out)
{
    char first = name.len > 10 ? (char) (name.ptr[0] | 0x20) : '\0';
    if (first != 'x' && first != 'r' && first != 'a')
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (str_equal_nocase(fields[i].name, name)) {
            *out = fields[i].field;
            return true;
        }
    }
    return false;
}

static void take_amount(str value, int64_t *out)
{
    int64_t amount;
    if (str_to_i64(str_trim(value), &amount))
        *out = amount > 0 ? amount : 0;
}

void quota_read(const struct http_headers *headers, int64_t now_unix_us, struct quota *out)
{
    *out = (struct quota){.requests_left = KEY_UNKNOWN, .tokens_left = KEY_UNKNOWN};
    str retry_after = STR_NONE, retry_after_ms = STR_NONE;
    for (size_t i = 0; headers && i < headers->count; i++) {
        enum field field;
        str value = headers->items[i].value;
        if (!find_field(headers->items[i].name, &field))
            continue;
        switch (field) {
        case FIELD_RETRY_AFTER: retry_after = value; break;
        case FIELD_RETRY_AFTER_MS: retry_after_ms = value; break;
        case FIELD_REQUESTS_LEFT: take_amount(value, &out->requests_left); break;
        case FIELD_TOKENS_LEFT: take_amount(value, &out->tokens_left); break;
        case FIELD_REQUESTS_RESET:
            (void) quota_parse_reset(value, now_unix_us, &out->requests_reset_ms);
            break;
        case FIELD_TOKENS_RESET:
            (void) quota_parse_reset(value, now_unix_us, &out->tokens_reset_ms);
            break;
        }
    }
    if (retry_after.len > 0 || retry_after_ms.len > 0)
        out->retry_after_ms = openai_retry_after_ms(retry_after_ms, retry_after, now_unix_us);
}
