#include "net/http_parse_internal.h"

#include "base/arena.h"

#include <ctype.h>

static bool failed(struct http_parser *parser, enum error_reason reason, const char *problem)
{
    parser->reason = reason;
    parser->problem = problem;
    return false;
}

/* ---- llhttp's callbacks ---- */

static int stop_with(llhttp_t *llhttp, enum error_reason reason, const char *problem)
{
    struct http_parser *parser = llhttp->data;
    failed(parser, reason, problem);
    llhttp_set_error_reason(llhttp, problem);
    return HPE_USER;
}

/* A span comes in pieces when the bytes do; they lie side by side in the buffer. */
static void span_extend(const struct http_parser *parser, struct http_span *span, const char *at,
                        size_t len)
{
    uint32_t offset = (uint32_t) (at - parser->buffer);
    if (span->len == 0)
        span->at = offset;
    span->len = (uint32_t) (offset + len - span->at);
}

static int on_url(llhttp_t *llhttp, const char *at, size_t len)
{
    struct http_parser *parser = llhttp->data;
    span_extend(parser, &parser->target, at, len);
    if (parser->target.len > HTTP_URI_BYTES_MAX)
        return stop_with(llhttp, REASON_URI_TOO_LONG, "the request target is too long");
    return 0;
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t len)
{
    struct http_parser *parser = llhttp->data;
    if (llhttp->flags & F_TRAILING)
        return 0;
    if (parser->header_count == 0 || parser->is_in_value) {
        if (parser->header_count == HTTP_HEADER_COUNT_MAX)
            return stop_with(llhttp, REASON_HEADERS_TOO_LARGE, "too many header fields");
        parser->fields->names[parser->header_count] = (struct http_span){0, 0};
        parser->fields->values[parser->header_count] = (struct http_span){0, 0};
        parser->header_count++;
        parser->is_in_value = false;
    }
    span_extend(parser, &parser->fields->names[parser->header_count - 1], at, len);
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t len)
{
    struct http_parser *parser = llhttp->data;
    if (llhttp->flags & F_TRAILING)
        return 0;
    parser->is_in_value = true;
    span_extend(parser, &parser->fields->values[parser->header_count - 1], at, len);
    return 0;
}

static int on_header_value_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    parser->is_in_value = true; /* an empty value has no span */
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    llhttp->upgrade = 0; /* we offer no other protocol; the message has its ordinary framing */
    return HPE_PAUSED;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len)
{
    struct http_parser *parser = llhttp->data;
    memmove(parser->decoded, at, len);
    parser->decoded += len;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    (void) llhttp;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- head ---- */

static void init(struct http_parser *parser, llhttp_type_t type, struct http_fields *shared)
{
    llhttp_init(&parser->llhttp, type, &settings);
    parser->llhttp.data = parser;
    parser->head_bytes = 0;
    parser->target = (struct http_span){0, 0};
    parser->fields = shared;
    parser->header_count = 0;
    parser->is_request = type == HTTP_REQUEST;
    parser->is_in_value = parser->is_answer_to_head = false;
    parser->framing = HTTP_FRAMING_NONE;
    parser->body_left = parser->body_bytes = parser->overhead_bytes = 0;
    parser->decoded = NULL;
    parser->reason = REASON_NONE;
    parser->problem = NULL;
}

void http_parser_init_request(struct http_parser *parser, struct http_fields *shared)
{
    init(parser, HTTP_REQUEST, shared);
}

void http_parser_init_response(struct http_parser *parser, struct http_fields *shared,
                               bool is_answer_to_head)
{
    init(parser, HTTP_RESPONSE, shared);
    parser->is_answer_to_head = is_answer_to_head;
}

void http_parser_keep_fields(struct http_parser *parser, const struct http_fields *shared,
                             struct arena *arena)
{
    if (parser->fields != shared || parser->header_count == 0)
        return;
    parser->fields = ARENA_NEW(arena, struct http_fields);
    memcpy(parser->fields, shared, sizeof(*shared));
}

static void note_syntax(struct http_parser *parser)
{
    if (parser->reason != REASON_NONE)
        return;
    const char *why = llhttp_get_error_reason(&parser->llhttp);
    failed(parser, REASON_HTTP_SYNTAX, why ? why : "malformed HTTP message");
}

enum http_parse_event http_parser_head(struct http_parser *parser, str buffer)
{
    if (parser->head_bytes == buffer.len)
        return HTTP_PARSE_MORE;
    parser->buffer = buffer.ptr;
    const char *from = buffer.ptr + parser->head_bytes;
    llhttp_errno_t result = llhttp_execute(&parser->llhttp, from, buffer.len - parser->head_bytes);
    if (result == HPE_PAUSED) {
        parser->head_bytes = (size_t) (llhttp_get_error_pos(&parser->llhttp) - buffer.ptr);
        if (parser->head_bytes <= HTTP_HEAD_BYTES_MAX)
            return HTTP_PARSE_HEAD;
        failed(parser, REASON_HEADERS_TOO_LARGE, "the message head is too large");
        return HTTP_PARSE_FAILED;
    }
    if (result != HPE_OK) {
        note_syntax(parser);
        return HTTP_PARSE_FAILED;
    }
    parser->head_bytes = buffer.len;
    if (parser->head_bytes > HTTP_HEAD_BYTES_MAX) {
        failed(parser, REASON_HEADERS_TOO_LARGE, "the message head is too large");
        return HTTP_PARSE_FAILED;
    }
    return HTTP_PARSE_MORE;
}

static str span_str(struct http_span span, str buffer)
{
    return str_of(buffer.ptr + span.at, span.len);
}

static str trim_right(str s)
{
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static void take_headers(struct http_parser *parser, str buffer, struct arena *arena,
                         struct http_headers *out)
{
    out->capacity = out->count = parser->header_count;
    out->items =
        parser->header_count ? ARENA_ARRAY(arena, struct http_header, parser->header_count) : NULL;
    for (size_t i = 0; i < parser->header_count; i++) {
        out->items[i].name = span_str(parser->fields->names[i], buffer);
        out->items[i].value = trim_right(span_str(parser->fields->values[i], buffer));
    }
    parser->fields = NULL;
}

/* The fields that say how the message is framed and where it goes, collected in one pass over the
   list. */
struct framing_fields {
    str host, transfer_encoding;
    size_t host_count, transfer_encoding_count, content_length_count;
    bool expects_continue;
};

static void collect(const struct http_headers *headers, struct framing_fields *out)
{
    for (size_t i = 0; i < headers->count; i++) {
        str name = headers->items[i].name, value = headers->items[i].value;
        switch (name.len) {
        case 4:
            if (str_equal_nocase(name, S("host"))) {
                out->host = value;
                out->host_count++;
            }
            break;
        case 6:
            if (str_equal_nocase(name, S("expect")) && str_equal_nocase(value, S("100-continue")))
                out->expects_continue = true;
            break;
        case 14: out->content_length_count += str_equal_nocase(name, S("content-length")); break;
        case 17:
            if (str_equal_nocase(name, S("transfer-encoding"))) {
                out->transfer_encoding = value;
                out->transfer_encoding_count++;
            }
            break;
        default: break;
        }
    }
}

/* RFC 9112 section 6.3, and stricter: one framing, "chunked" the only coding. */
static bool check_framing(struct http_parser *parser, const struct framing_fields *fields)
{
    const llhttp_t *llhttp = &parser->llhttp;
    bool is_http10 = llhttp->http_minor == 0;
    if (fields->transfer_encoding_count > 0) {
        if (fields->content_length_count > 0)
            return failed(parser, REASON_HTTP_SYNTAX, "Content-Length beside Transfer-Encoding");
        if (fields->transfer_encoding_count > 1 ||
            !str_equal_nocase(fields->transfer_encoding, S("chunked")) ||
            !(llhttp->flags & F_CHUNKED))
            return failed(parser, REASON_HTTP_SYNTAX,
                          "Transfer-Encoding other than one \"chunked\"");
        if (is_http10)
            return failed(parser, REASON_HTTP_SYNTAX, "Transfer-Encoding in an HTTP/1.0 message");
        parser->framing = HTTP_FRAMING_CHUNKED;
        return true;
    }
    if (fields->content_length_count > 1)
        return failed(parser, REASON_HTTP_SYNTAX, "more than one Content-Length");
    if (fields->content_length_count == 1) {
        if (!(llhttp->flags & F_CONTENT_LENGTH) || llhttp->content_length > INT64_MAX)
            return failed(parser, REASON_HTTP_SYNTAX, "malformed Content-Length");
        parser->framing = HTTP_FRAMING_LENGTH;
        parser->body_left = llhttp->content_length;
        return true;
    }
    parser->framing = HTTP_FRAMING_NONE;
    return true;
}

static bool check_version(struct http_parser *parser)
{
    if (parser->llhttp.http_major != 1 || parser->llhttp.http_minor > 1)
        return failed(parser, REASON_HTTP_SYNTAX, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    return true;
}

static bool host_is_wellformed(str host)
{
    if (host.len == 0 || host.len > 260)
        return false;
    bool is_bracketed = host.ptr[0] == '[';
    for (size_t i = 0; i < host.len; i++) {
        unsigned char c = (unsigned char) host.ptr[i];
        bool is_fine = isalnum(c) || c == '.' || c == '-' || c == '_' || c == ':' ||
                       (is_bracketed && (c == '[' || c == ']'));
        if (!is_fine)
            return false;
    }
    return true;
}

/* Origin form, or absolute form for the very host that Host names (a second opinion is a smuggling
   tool). */
static bool take_target(struct http_parser *parser, str target, struct http_request_head *out)
{
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char) target.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return failed(parser, REASON_HTTP_SYNTAX,
                          "the request target holds a byte that must be escaped");
    }
    if (target.len > 0 && target.ptr[0] != '/') {
        str rest = STR_NONE;
        if (!str_strip_prefix(target, S("http://"), &rest) &&
            !str_strip_prefix(target, S("https://"), &rest))
            return failed(parser, REASON_HTTP_SYNTAX, "the request target must begin with '/'");
        size_t end = 0;
        while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
            end++;
        if (!str_equal_nocase(str_slice(rest, 0, end), out->host))
            return failed(parser, REASON_HTTP_SYNTAX,
                          "the request target names another host than Host");
        target = str_from(rest, end);
        if (target.len == 0)
            target = S("/");
    }
    if (target.len == 0 || target.ptr[0] != '/')
        return failed(parser, REASON_HTTP_SYNTAX, "the request target must begin with '/'");
    str_cut(target, '?', &out->path, &out->query);
    return true;
}

/* One space on each side; llhttp skips more, others may cut there. */
static bool request_line_is_strict(const struct http_parser *parser, str buffer)
{
    size_t from = parser->target.at, to = from + parser->target.len;
    return from >= 2 && buffer.ptr[from - 2] != ' ' && to + 1 < buffer.len &&
           buffer.ptr[to] == ' ' && buffer.ptr[to + 1] == 'H';
}

static bool method_of(uint8_t method, enum http_method *out)
{
    static const struct {
        uint8_t theirs;
        enum http_method ours;
    } table[] = {
        {LLHTTP_POST, HTTP_POST},       {LLHTTP_GET, HTTP_GET},   {LLHTTP_PUT, HTTP_PUT},
        {LLHTTP_DELETE, HTTP_DELETE},   {LLHTTP_HEAD, HTTP_HEAD}, {LLHTTP_PATCH, HTTP_PATCH},
        {LLHTTP_OPTIONS, HTTP_OPTIONS},
    };
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        if (table[i].theirs == method) {
            *out = table[i].ours;
            return true;
        }
    }
    return false;
}

bool http_parser_take_request(struct http_parser *parser, str buffer, struct arena *arena,
                              struct http_request_head *out)
{
    struct framing_fields fields = {0};
    *out = (struct http_request_head){.content_length = -1};
    if (!check_version(parser))
        return false;
    if (!request_line_is_strict(parser, buffer))
        return failed(parser, REASON_HTTP_SYNTAX, "more than one space in the request line");
    if (!method_of(parser->llhttp.method, &out->method))
        return failed(parser, REASON_METHOD, "the method is not served here");
    take_headers(parser, buffer, arena, &out->headers);
    collect(&out->headers, &fields);
    if (fields.host_count != 1 || !host_is_wellformed(fields.host))
        return failed(parser, REASON_HTTP_SYNTAX, "a request needs exactly one well-formed Host");
    out->host = fields.host;
    if (!check_framing(parser, &fields) ||
        !take_target(parser, span_str(parser->target, buffer), out))
        return false;
    out->is_http10 = parser->llhttp.http_minor == 0;
    out->has_body = parser->framing == HTTP_FRAMING_CHUNKED || parser->body_left > 0;
    if (parser->framing != HTTP_FRAMING_CHUNKED)
        out->content_length =
            parser->framing == HTTP_FRAMING_LENGTH ? (int64_t) parser->body_left : -1;
    out->expects_continue = fields.expects_continue && out->has_body && !out->is_http10;
    out->keeps_alive = llhttp_should_keep_alive(&parser->llhttp) != 0;
    return true;
}

bool http_parser_take_response(struct http_parser *parser, str buffer, struct arena *arena,
                               struct http_response_head *out)
{
    struct framing_fields fields = {0};
    *out = (struct http_response_head){.content_length = -1};
    if (!check_version(parser))
        return false;
    int status = parser->llhttp.status_code;
    if (status < 100 || status > 599 || status == 101)
        return failed(parser, REASON_HTTP_SYNTAX,
                      "the answer has a status that makes no sense here");
    take_headers(parser, buffer, arena, &out->headers);
    collect(&out->headers, &fields);
    out->status = status;
    if (status < 200 || status == 204 || status == 304 || parser->is_answer_to_head) {
        parser->framing = HTTP_FRAMING_NONE;
        parser->body_left = 0;
    } else {
        if (!check_framing(parser, &fields))
            return false;
        if (parser->framing == HTTP_FRAMING_NONE)
            parser->framing = HTTP_FRAMING_UNTIL_END;
    }
    if (parser->framing == HTTP_FRAMING_LENGTH)
        out->content_length = (int64_t) parser->body_left;
    bool says_close = parser->llhttp.flags & F_CONNECTION_CLOSE;
    bool says_keep = parser->llhttp.flags & F_CONNECTION_KEEP_ALIVE;
    out->keeps_alive = !says_close && (parser->llhttp.http_minor == 1 || says_keep) &&
                       parser->framing != HTTP_FRAMING_UNTIL_END;
    return true;
}

/* ---- body ---- */

static enum http_parse_event body_chunked(struct http_parser *parser, char *bytes, size_t len,
                                          size_t *consumed, str *piece)
{
    llhttp_resume(&parser->llhttp); /* from the pause at the head's end; harmless later */
    parser->decoded = bytes;
    llhttp_errno_t result = llhttp_execute(&parser->llhttp, bytes, len);
    *consumed = len;
    if (result == HPE_PAUSED)
        *consumed = (size_t) (llhttp_get_error_pos(&parser->llhttp) - bytes);
    *piece = str_of(bytes, (size_t) (parser->decoded - bytes));
    parser->body_bytes += piece->len;
    parser->overhead_bytes += *consumed - piece->len;
    if (result != HPE_OK && result != HPE_PAUSED) {
        note_syntax(parser);
        return HTTP_PARSE_FAILED;
    }
    if (parser->overhead_bytes / 8 > parser->body_bytes + HTTP_CHUNK_OVERHEAD_BYTES_MAX / 8) {
        failed(parser, REASON_HTTP_SYNTAX, "chunk framing out of all proportion to the body");
        return HTTP_PARSE_FAILED;
    }
    return result == HPE_PAUSED ? HTTP_PARSE_DONE : HTTP_PARSE_MORE;
}

enum http_parse_event http_parser_body(struct http_parser *parser, char *bytes, size_t len,
                                       size_t *consumed, str *piece)
{
    *consumed = 0;
    *piece = str_of(bytes, 0);
    if (parser->framing == HTTP_FRAMING_CHUNKED)
        return len ? body_chunked(parser, bytes, len, consumed, piece) : HTTP_PARSE_MORE;
    if (parser->framing == HTTP_FRAMING_NONE)
        return HTTP_PARSE_DONE;
    size_t take = len;
    if (parser->framing == HTTP_FRAMING_LENGTH && parser->body_left < take)
        take = (size_t) parser->body_left;
    *consumed = take;
    *piece = str_of(bytes, take);
    parser->body_bytes += take;
    if (parser->framing == HTTP_FRAMING_UNTIL_END)
        return HTTP_PARSE_MORE;
    parser->body_left -= take;
    return parser->body_left == 0 ? HTTP_PARSE_DONE : HTTP_PARSE_MORE;
}

bool http_parser_may_end(const struct http_parser *parser)
{
    return parser->framing == HTTP_FRAMING_UNTIL_END || parser->framing == HTTP_FRAMING_NONE ||
           (parser->framing == HTTP_FRAMING_LENGTH && parser->body_left == 0);
}
