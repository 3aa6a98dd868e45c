/* The rate fields of an answer's head: the first line is the name, the rest the value. */
#include "llm/router_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str text = str_of((const char *) data, size), name, value;
    int64_t ms = 0;
    if (!str_cut(text, '\n', &name, &value))
        return 0;
    struct http_header items[] = {{name, value}, {S("x-ratelimit-reset-tokens"), value}};
    struct http_headers headers = {items, 2, 2};
    struct quota quota;
    quota_read(&headers, 1700000000000000, &quota);
    if (quota.tokens_reset_ms < 0 || quota.tokens_reset_ms > PROVIDER_RETRY_AFTER_MS_MAX ||
        quota.requests_left < KEY_UNKNOWN || quota.retry_after_ms < 0)
        __builtin_trap();
    if (quota_parse_reset(value, 1700000000000000, &ms) &&
        (ms < 0 || ms > PROVIDER_RETRY_AFTER_MS_MAX))
        __builtin_trap();
    return 0;
}
