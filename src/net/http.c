#include "net/http.h"

#include "base/arena.h"
#include "net/dns.h"

#include <ctype.h>

static const char *const method_names[HTTP_METHOD_COUNT] = {
    [HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",   [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",         [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
    [HTTP_OPTIONS] = "OPTIONS",
};

const char *http_method_name(enum http_method method)
{
    return method < HTTP_METHOD_COUNT ? method_names[method] : "";
}

bool http_method_parse(str text, enum http_method *out)
{
    for (int i = 0; i < HTTP_METHOD_COUNT; i++) {
        if (str_equal(text, str_from_cstr(method_names[i]))) {
            *out = (enum http_method) i;
            return true;
        }
    }
    return false;
}

void http_headers_add(struct http_headers *headers, struct arena *arena, str name, str value)
{
    if (headers->count == headers->capacity) {
        size_t capacity = headers->capacity ? headers->capacity * 2 : 8;
        headers->items =
            arena_grow(arena, headers->items, headers->capacity * sizeof(headers->items[0]),
                       capacity * sizeof(headers->items[0]));
        headers->capacity = capacity;
    }
    headers->items[headers->count++] = (struct http_header){name, value};
}

str http_headers_get(const struct http_headers *headers, str name)
{
    for (size_t i = 0; i < headers->count; i++) {
        if (str_equal_nocase(headers->items[i].name, name))
            return headers->items[i].value;
    }
    return STR_NONE;
}

/* RFC 9110 section 5.6.2; a bit for each of the 128 characters. */
static bool is_token_char(unsigned char c)
{
    static const uint64_t token_chars[2] = {
        UINT64_C(0x03ff6cfa00000000), /* !#$%&'*+-. and digits */
        UINT64_C(0x57ffffffc7fffffe), /* letters and ^_`|~ */
    };
    return c < 128 && (token_chars[c / 64] >> c % 64 & 1);
}

/* Eight bytes at once: those below 0x20 and 0x7f are looked at one by one. */
static bool has_odd_byte(uint64_t eight)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = UINT64_C(0x8080808080808080);
    uint64_t del = eight ^ 0x7f * ones;
    return (((eight - 0x20 * ones) & ~eight) | ((del - ones) & ~del)) & highs;
}

bool http_header_is_safe(str name, str value)
{
    if (name.len == 0)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        if (!is_token_char((unsigned char) name.ptr[i]))
            return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        uint64_t eight;
        if (value.len - i >= sizeof(eight)) {
            memcpy(&eight, value.ptr + i, sizeof(eight));
            if (!has_odd_byte(eight)) {
                i += sizeof(eight) - 1;
                continue;
            }
        }
        unsigned char c = (unsigned char) value.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } table[] = {
        {200, "OK"},
        {100, "Continue"},
        {101, "Switching Protocols"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
        {529, "Overloaded"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        if (table[i].status == status)
            return table[i].text;
    }
    return "Unknown";
}

/* ---- URLs ---- */

static bool is_host_char(unsigned char c)
{
    return isalnum(c) || c == '.' || c == '-' || c == '_';
}

/* "host", "host:port", "[v6]", "[v6]:port".  port stays when none is given. */
static bool authority_parse(str authority, str *host, uint16_t *port)
{
    str rest = STR_NONE;
    if (str_starts_with(authority, S("["))) {
        size_t end = str_find_char(authority, ']');
        if (end == STR_NOT_FOUND || end < 3)
            return false;
        *host = str_slice(authority, 1, end);
        for (size_t i = 0; i < host->len; i++) {
            if (!isxdigit((unsigned char) host->ptr[i]) && host->ptr[i] != ':' &&
                host->ptr[i] != '.')
                return false;
        }
        rest = str_from(authority, end + 1);
    } else {
        size_t colon = str_find_char(authority, ':');
        *host = colon == STR_NOT_FOUND ? authority : str_slice(authority, 0, colon);
        rest = colon == STR_NOT_FOUND ? STR_NONE : str_from(authority, colon);
        for (size_t i = 0; i < host->len; i++) {
            if (!is_host_char((unsigned char) host->ptr[i]))
                return false;
        }
    }
    if (host->len == 0 || host->len > 253)
        return false;
    if (rest.len == 0)
        return true;
    uint64_t number = 0;
    if (rest.ptr[0] != ':' || !str_to_u64(str_from(rest, 1), &number) || number == 0 ||
        number > 65535)
        return false;
    *port = (uint16_t) number;
    return true;
}

bool http_url_parse(str text, struct http_url *out, struct error *e)
{
    struct http_url url = {.port = 80};
    str rest = STR_NONE;
    if (text.len >= 7 && str_equal_nocase(str_slice(text, 0, 7), S("http://"))) {
        rest = str_from(text, 7);
    } else if (text.len >= 8 && str_equal_nocase(str_slice(text, 0, 8), S("https://"))) {
        url.is_tls = true;
        url.port = 443;
        rest = str_from(text, 8);
    } else {
        return error_set(e, REASON_INVALID, "a URL must begin with http:// or https://");
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char) text.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#' || c == '\\')
            return error_set(e, REASON_INVALID,
                             "a URL must not hold spaces, control bytes, '#', '\\' or bytes "
                             "outside ASCII (offset %zu)",
                             i);
    }
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
        end++;
    str authority = str_slice(rest, 0, end);
    if (str_find_char(authority, '@') != STR_NOT_FOUND)
        return error_set(e, REASON_INVALID, "a URL must not hold user information");
    if (!authority_parse(authority, &url.host, &url.port))
        return error_set(e, REASON_INVALID, "the URL's host or port is malformed");
    if (dns_host_is_odd_number(url.host))
        return error_set(e, REASON_INVALID,
                         "the URL's host looks like a number but is no plain IPv4 address");
    url.path_query = str_from(rest, end);
    if (url.path_query.len == 0)
        url.path_query = S("/");
    if (url.path_query.ptr[0] == '?')
        return error_set(e, REASON_INVALID,
                         "a URL needs a path before its query: write http://host/?...");
    *out = url;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool decode(struct arena *arena, str text, bool plus_is_space, str *out)
{
    char *bytes = arena_alloc(arena, text.len + 1);
    size_t used = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 1 < text.len ? hex_value(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            c = (char) (high * 16 + low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        } else if (c == 0) {
            return false;
        }
        bytes[used++] = c;
    }
    *out = str_of(bytes, used);
    return true;
}

bool http_percent_decode(struct arena *arena, str text, str *out)
{
    return decode(arena, text, false, out);
}

str http_percent_encode(struct arena *arena, str text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *bytes = arena_alloc_array(arena, text.len + 1, 3);
    size_t used = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char) text.ptr[i];
        if (isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~') {
            bytes[used++] = (char) c;
        } else {
            bytes[used++] = '%';
            bytes[used++] = digits[c >> 4];
            bytes[used++] = digits[c & 15];
        }
    }
    return str_of(bytes, used);
}

str http_query_get(struct arena *arena, str query, str name)
{
    str pair;
    while (str_next(&query, '&', &pair)) {
        str key, value, decoded;
        str_cut(pair, '=', &key, &value);
        if (!decode(arena, key, true, &decoded) || !str_equal(decoded, name))
            continue;
        if (!decode(arena, value, true, &decoded))
            return STR_NONE;
        return decoded.len ? decoded : S("");
    }
    return STR_NONE;
}
