/*
 * HTTP/1.1 parsing without I/O: the one door to llhttp, shared by server and client.
 *
 *      head bytes --> http_parser_head --> MORE | HEAD | FAILED
 *      then, request: http_parser_take_request  |  answer: http_parser_take_response
 *      body bytes --> http_parser_body --> MORE | DONE | FAILED, each with a piece (may be empty)
 *
 * - The caller keeps all bytes of the head in one buffer that only grows; positions are kept as
 *   offsets, so it may move.
 * - llhttp is strict by default; take_request adds what it leaves open: one Host and a well-formed
 *   one, no Transfer-Encoding on 1.0 or other than "chunked", one framing, bounds on URI, head
 *   bytes and header count.
 * - A body with a length (or until the end of the stream) is only counted; a chunked one is decoded
 *   in place, pieces moved together, so one call gives one piece.  Trailers are read, bounded and
 *   dropped.
 * Thread: any, one at a time.  Suspends: never.
 */
#ifndef NEXUS_NET_HTTP_PARSE_INTERNAL_H
#define NEXUS_NET_HTTP_PARSE_INTERNAL_H

#include "base/limits.h"
#include "net/http.h"

/* llhttp's enumerators are called like those of net/http.h: it gets them under another name. */
#define HTTP_GET LLHTTP_GET
#define HTTP_HEAD LLHTTP_HEAD
#define HTTP_POST LLHTTP_POST
#define HTTP_PUT LLHTTP_PUT
#define HTTP_PATCH LLHTTP_PATCH
#define HTTP_DELETE LLHTTP_DELETE
#define HTTP_OPTIONS LLHTTP_OPTIONS
#include <llhttp.h>
#undef HTTP_GET
#undef HTTP_HEAD
#undef HTTP_POST
#undef HTTP_PUT
#undef HTTP_PATCH
#undef HTTP_DELETE
#undef HTTP_OPTIONS

enum http_parse_event { HTTP_PARSE_MORE, HTTP_PARSE_HEAD, HTTP_PARSE_DONE, HTTP_PARSE_FAILED };
enum http_framing {
    HTTP_FRAMING_NONE,
    HTTP_FRAMING_LENGTH,
    HTTP_FRAMING_CHUNKED,
    HTTP_FRAMING_UNTIL_END
};

struct http_span {
    uint32_t at, len;
};

/* Where the header fields of a head lie.  Most heads come whole, so one of these serves a loop. */
struct http_fields {
    struct http_span names[HTTP_HEADER_COUNT_MAX], values[HTTP_HEADER_COUNT_MAX];
};

struct http_parser {
    llhttp_t llhttp;
    const char *buffer; /* during a call of http_parser_head */
    size_t head_bytes;  /* parsed so far; at HEAD: where the body begins */
    struct http_span target;
    struct http_fields *fields; /* the loop's, or this head's own; NULL after take */
    size_t header_count;
    bool is_request, is_in_value, is_answer_to_head;
    enum http_framing framing;
    uint64_t body_left; /* HTTP_FRAMING_LENGTH */
    uint64_t body_bytes, overhead_bytes;
    char
        *decoded; /* chunked: where the next decoded byte goes, during a call of http_parser_body */
    enum error_reason reason; /* after FAILED */
    const char *problem;      /* after FAILED: static text */
};

struct http_request_head {
    enum http_method method;
    str path, query, host;
    struct http_headers headers;
    int64_t content_length; /* -1: chunked or none */
    bool has_body, is_http10, expects_continue, keeps_alive;
};
struct http_response_head {
    int status;
    struct http_headers headers;
    int64_t content_length; /* -1: chunked, until the end, or none */
    bool keeps_alive;
};

/* shared: used until take, or until http_parser_keep_fields. */
void http_parser_init_request(struct http_parser *parser, struct http_fields *shared);
void http_parser_init_response(struct http_parser *parser, struct http_fields *shared,
                               bool is_answer_to_head);

/* `buffer` is all of the head so far; parses what is new.  HEAD: parser->head_bytes tells where the
   head ended. */
enum http_parse_event http_parser_head(struct http_parser *parser, str buffer);
/* After MORE, before anyone else may use the shared fields: moves what is in them to arena. */
void http_parser_keep_fields(struct http_parser *parser, const struct http_fields *shared,
                             struct arena *arena);
/* After HEAD; strs point into buffer, arrays are on arena.  False: reason and problem are set. */
must_check bool http_parser_take_request(struct http_parser *parser, str buffer,
                                         struct arena *arena, struct http_request_head *out);
must_check bool http_parser_take_response(struct http_parser *parser, str buffer,
                                          struct arena *arena, struct http_response_head *out);
/* Decodes in place.  *consumed <= len; *piece lies within bytes.  After DONE call no more. */
enum http_parse_event http_parser_body(struct http_parser *parser, char *bytes, size_t len,
                                       size_t *consumed, str *piece);
/* The peer closed: true when the message may end there. */
bool http_parser_may_end(const struct http_parser *parser);

#endif
