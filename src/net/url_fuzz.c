/* URLs, percent escapes, query parameters and host patterns from outside. */
#include "net/egress.h"
#include "net/http.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_url url;
    struct error e;
    str decoded, text = str_of((const char *) data, size);
    OWNED(arena) arena = arena_create(0);
    if (http_url_parse(text, &url, &e)) {
        ensure(url.host.len > 0 && url.port > 0 && url.path_query.len > 0 &&
               url.path_query.ptr[0] == '/');
        ensure(!memchr(url.host.ptr, '@', url.host.len) &&
               !memchr(url.path_query.ptr, '\n', url.path_query.len));
    }
    if (http_percent_decode(arena, text, &decoded))
        ensure(decoded.len <= text.len && !memchr(decoded.ptr, 0, decoded.len));
    ensure(http_percent_decode(arena, http_percent_encode(arena, text), &decoded) ==
           !memchr(text.ptr ? text.ptr : "", 0, text.len));
    (void) http_query_get(arena, text, S("a"));
    struct egress_rules *rules = NULL;
    struct egress_options options = {&text, 1, &text, 1, &text, 1};
    if (egress_rules_create(&options, &rules, &e)) {
        (void) !egress_check_host(rules, S("a.example.com"), &e);
        egress_rules_destroy(rules);
    }
    return 0;
}
