/*
 * Server-sent events: parser (from an upstream, any cut into chunks) and writer.
 * Source: WHATWG HTML, section "Server-sent events".  No I/O.
 */
#ifndef NEXUS_NET_SSE_H
#define NEXUS_NET_SSE_H

#include "base/error.h"
#include "base/strbuf.h"

struct sse_event {
    str id;    /* the last id seen so far */
    str event; /* empty: "message" */
    str data;  /* lines joined by \n, no trailing one */
};

/* Feed bytes, then take events until none is left; an event's strs live until the next feed. */
struct sse_parser;
struct sse_parser *sse_parser_create(size_t event_bytes_max); /* 0: SSE_EVENT_BYTES_MAX */
void sse_parser_destroy(struct sse_parser *parser);
OWNED_DEFINE(sse_parser)
/* REASON_TOO_LARGE when one event passes the maximum.  `bytes` are borrowed until the next feed. */
must_check bool sse_parser_feed(struct sse_parser *parser, str bytes, struct error *e);
bool sse_parser_next(struct sse_parser *parser, struct sse_event *out);
bool sse_parser_has_partial(
    const struct sse_parser *parser); /* at the end of a stream: was something cut? */

/* Appends one event; data may hold newlines; id and event without newlines, empty ones are left
   out. */
void sse_write(struct strbuf *b, str id, str event, str data);
void sse_write_comment(struct strbuf *b, str text); /* keep-alive */

#endif
