/*
 * HTTP/1.1 words shared by server and client: methods, header lists, URLs.
 * Source: RFC 9110, RFC 9112.
 */
#ifndef NEXUS_NET_HTTP_H
#define NEXUS_NET_HTTP_H

#include "base/error.h"

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_METHOD_COUNT
};
const char *http_method_name(enum http_method method);
bool http_method_parse(str text, enum http_method *out);

struct http_header {
    str name;  /* as received; compare without case */
    str value; /* trimmed */
};
struct http_headers {
    struct http_header *items;
    size_t count, capacity;
};
void http_headers_add(struct http_headers *headers, struct arena *arena, str name, str value);
str http_headers_get(const struct http_headers *headers,
                     str name);                /* first; STR_NONE when absent */
bool http_header_is_safe(str name, str value); /* token name, no CR, LF or NUL: what may be sent */
const char *http_status_text(int status);

struct http_url {
    bool is_tls;
    str host; /* without brackets for IPv6 */
    uint16_t port;
    str path_query; /* begins with '/' */
};
/* http:// and https:// only, no user info, no fragment. Points into text (path "/" is static). */
must_check bool http_url_parse(str text, struct http_url *out, struct error *e);
must_check bool http_percent_decode(struct arena *arena, str text,
                                    str *out);          /* false: bad escape or NUL */
str http_percent_encode(struct arena *arena, str text); /* everything but unreserved */
/* Value of a query parameter, decoded; STR_NONE when absent. */
str http_query_get(struct arena *arena, str query, str name);

#endif
