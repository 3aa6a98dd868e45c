/*
 * HTTP/1.1 server: connections of one loop, each request a coroutine.
 *
 *      accept --> idle (no coroutine) --head parsed--> handler coroutine --reply--> idle ... closed
 *
 * - Strict: llhttp plus Host exactly once, no Transfer-Encoding on HTTP/1.0, bounds on URI, header
 *   bytes and count; every smuggling probe is a 400 and the connection closes.  Pipelined requests
 *   wait (bounded by the read buffer).
 * - A timeout on each phase: head, body idle, reply write idle, keep-alive idle (base/limits.h).
 * - The body is pulled: http_request_read suspends until bytes are there, so an unread body exerts
 *   backpressure. Expect: 100-continue is answered at the first read.  A body left unread is
 *   drained up to 64 KiB, else the connection closes.
 * - Replies: whole (http_reply) or streamed (http_reply_begin, _write, _end); a streamed write
 *   suspends while the peer is slow; what is buffered per connection is bounded
 *   (HTTP_WRITE_BUFFER_BYTES).  Writes of one loop turn coalesce.  A stream that only forwards goes
 *   on without its coroutine: net/http_relay.h.
 * - When the peer goes away the request's context is cancelled.
 * - With `tls` every connection begins with a handshake, bounded in time and number; a peer that
 *   speaks plain HTTP gets a 400 in plain text.
 * Thread: one loop.  One acceptor thread/loop hands sockets out to the least loaded loop.
 */
#ifndef NEXUS_NET_HTTP_SERVER_H
#define NEXUS_NET_HTTP_SERVER_H

#include "net/http.h"
#include "net/tls.h"
#include "runtime/loop.h"

struct http_server;
struct http_connection;

struct http_request {
    /* Arena: of this request.  Cancelled when the peer leaves; no deadline. */
    struct context *ctx;
    struct http_connection *connection;
    enum http_method method;
    str path;  /* raw, before '?', begins with '/' */
    str query; /* raw, after '?', may be empty */
    struct http_headers headers;
    str host;
    int64_t content_length; /* -1: chunked or none */
    bool has_body;
    int64_t started_ns;
    char peer_address[48]; /* text, without port */
    void *user;            /* the handler's own */
};

/* The handler runs on a coroutine and must reply exactly once (else the server answers 500 and
   logs). */
typedef void http_handler(void *owner, struct http_request *request);

struct http_server_options {
    str address;   /* "127.0.0.1", "::1", "0.0.0.0" */
    uint16_t port; /* 0: the kernel chooses */
    http_handler *handler;
    void *owner;
    const struct tls_server_options *tls; /* NULL: plain HTTP */
    size_t connections_max; /* 0: HTTP_CONNECTIONS_MAX; further ones get 503 and are closed */
    int64_t head_timeout_ms, body_idle_timeout_ms, idle_timeout_ms,
        write_idle_timeout_ms; /* 0: limits.h */
};

/* Listens; `loops` (count >= 1) get the connections, the least loaded first.  Call before the loops
   run or from loops[0]; with `tls` it blocks on files.  What options point to is borrowed for the
   call. */
must_check bool http_server_open(struct loop **loops, size_t loop_count,
                                 const struct http_server_options *options,
                                 struct http_server **out, struct error *e);
uint16_t http_server_port(const struct http_server *server);
/* Stops accepting, closes idle connections, lets requests in work finish (replies carry Connection:
   close). From a coroutine of loops[0]; returns when all are closed or at ctx's deadline (then the
   rest is cut). */
may_suspend bool http_server_drain(struct http_server *server, struct context *ctx,
                                   struct error *e);
/* Reads certificate, key and authorities anew (blocking pool) for the connections to come; those that
   are open keep what they have.  On failure nothing has changed.  From a coroutine of loops[0], one
   at a time, before drain.  REASON_CONFIG also when the server was opened without TLS. */
may_suspend bool http_server_reload_tls(struct http_server *server, struct context *ctx,
                                        const struct tls_server_options *options, struct error *e);
void http_server_destroy(struct http_server *server); /* after drain, loops stopped */
size_t http_server_connection_count(const struct http_server *server);

/* Next piece of the body, borrowed until the next call; empty at the end.  TIMEOUT
   (client_timeout), CANCELLED, TOO_LARGE. */
may_suspend bool http_request_read(struct http_request *request, str *piece, struct error *e);
/* The whole body on the request's arena; REASON_TOO_LARGE past max. */
may_suspend bool http_request_read_all(struct http_request *request, size_t max, str *body,
                                       struct error *e);
str http_request_header(const struct http_request *request, str name);

/* Whole reply.  Content-Length, Date, Connection are the server's; body empty for HEAD/204/304.
   Never waits long: what does not go out at once is buffered and flushed by the loop. */
void http_reply(struct http_request *request, int status, const struct http_headers *headers,
                str body);
/* Streamed reply: chunked (or until close on 1.0).  _write suspends under backpressure; it copies
   nothing it could not buffer. */
must_check bool http_reply_begin(struct http_request *request, int status,
                                 const struct http_headers *headers, struct error *e);
may_suspend bool http_reply_write(struct http_request *request, str bytes, struct error *e);
may_suspend bool http_reply_flush(struct http_request *request,
                                  struct error *e); /* all of it is with the kernel */
void http_reply_end(struct http_request *request);
/* Ends a streamed reply so that the client can tell it is broken (connection cut without the last
   chunk). */
void http_reply_abort(struct http_request *request);
bool http_reply_has_begun(const struct http_request *request);
bool http_reply_is_done(const struct http_request *request);
int http_reply_status(const struct http_request *request); /* 0 before a reply */

#endif
