/*
 * Requests through the server's parser: head in pieces, then the body.  However a message is cut,
 * the outcome is the same.
 */
#include "net/http_parse_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

struct outcome {
    bool is_whole;
    size_t header_count, consumed;
    uint64_t body_hash, body_bytes;
    enum error_reason reason;
};

static void add_piece(struct outcome *out, str piece)
{
    for (size_t i = 0; i < piece.len; i++)
        out->body_hash = out->body_hash * 31 + (unsigned char) piece.ptr[i];
    out->body_bytes += piece.len;
}

static bool parse_body(struct http_parser *parser, str rest, size_t step, struct outcome *out)
{
    while (rest.len > 0) {
        size_t len = step < rest.len ? step : rest.len, consumed;
        char *copy = malloc(len);
        str piece;
        memcpy(copy, rest.ptr, len);
        enum http_parse_event event = http_parser_body(parser, copy, len, &consumed, &piece);
        ensure(consumed <= len && piece.len <= len);
        add_piece(out, piece);
        free(copy);
        if (event == HTTP_PARSE_FAILED)
            return false;
        out->consumed += consumed;
        rest = str_from(rest, consumed);
        if (event == HTTP_PARSE_DONE) {
            out->is_whole = true;
            return true;
        }
    }
    return true;
}

static struct outcome parse(str message, size_t step)
{
    struct outcome out = {0};
    struct http_parser parser;
    struct http_fields fields;
    struct http_request_head head;
    OWNED(arena) arena = arena_create(0);
    enum http_parse_event event = HTTP_PARSE_MORE;
    http_parser_init_request(&parser, &fields);
    for (size_t len = 0; len < message.len && event == HTTP_PARSE_MORE;) {
        len = len + step < message.len ? len + step : message.len;
        event = http_parser_head(&parser, str_slice(message, 0, len));
        http_parser_keep_fields(&parser, &fields, arena);
        if (event == HTTP_PARSE_MORE)
            memset(&fields, 0xff, sizeof(fields)); /* others use them meanwhile */
    }
    bool is_fine =
        event == HTTP_PARSE_HEAD && http_parser_take_request(&parser, message, arena, &head);
    if (is_fine) {
        ensure(head.path.len > 0 && head.path.ptr[0] == '/' && head.host.len > 0);
        ensure(head.headers.count <= HTTP_HEADER_COUNT_MAX && parser.head_bytes <= message.len);
        out.header_count = head.headers.count;
        out.consumed = parser.head_bytes;
        is_fine =
            !head.has_body || parse_body(&parser, str_from(message, parser.head_bytes), step, &out);
    }
    if (!is_fine && event != HTTP_PARSE_MORE) {
        ensure(parser.reason != REASON_NONE && parser.problem != NULL);
        out.reason = parser.reason;
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > (8u << 10))
        return 0;
    str message = str_of((const char *) data + 1, size - 1);
    struct outcome whole = parse(message, message.len ? message.len : 1);
    struct outcome cut = parse(message, (size_t) data[0] % 17 + 1);
    /* Refused or not must agree; which of two faults is told may depend on the cut. */
    ensure((whole.reason == REASON_NONE) == (cut.reason == REASON_NONE));
    if (whole.reason == REASON_NONE) {
        ensure(whole.is_whole == cut.is_whole && whole.header_count == cut.header_count);
        ensure(whole.consumed == cut.consumed && whole.body_hash == cut.body_hash &&
               whole.body_bytes == cut.body_bytes);
    }
    return 0;
}
