/*
 * HTTP/1.1 client for the hot path: keep-alive pool per origin, pulled bodies, TLS by net/tls.
 *
 * A client belongs to one loop.  http_client_send resolves (blocking pool; cached), connects or
 * takes an idle connection, sends the request whole and waits for the answer's head.  The body is
 * then pulled.  A request on a reused connection that was closed before any byte of the answer is
 * retried once on a fresh one.  Deadlines: connect, first byte, between bytes (options), all under
 * ctx's own.  Cancelling ctx closes the connection at once, so the upstream sees it. No redirects,
 * no cookies, no decompression, no environment proxies. `check_address` (egress door): called with
 * each resolved address before it is dialled; the address checked is the one connected to.
 */
#ifndef NEXUS_NET_HTTP_CLIENT_H
#define NEXUS_NET_HTTP_CLIENT_H

#include "net/http.h"
#include "runtime/loop.h"

struct http_client;
struct http_exchange; /* one request and its answer */
struct sockaddr;

struct http_client_options {
    size_t idle_max_per_origin; /* 0: UPSTREAM_POOL_IDLE_MAX */
    int64_t idle_ms;            /* 0: UPSTREAM_POOL_IDLE_MS */
    str ca_file;                /* empty: the system's */
    str dns_servers;            /* as dns_cache_create takes them; empty: the system's way */
};
must_check bool http_client_create(struct loop *loop, const struct http_client_options *options,
                                   struct http_client **out, struct error *e);
void http_client_destroy(struct http_client *client); /* no exchange may be open */

struct http_client_request {
    enum http_method method;
    struct http_url url;
    const struct http_headers *headers; /* Host, Content-Length, Connection are the client's */
    str body;                           /* borrowed until send returns */
    int64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms; /* 0: limits.h */
    /* Optional.  False (with e) refuses that address; when all are refused the call fails with the
       last error. */
    bool (*check_address)(void *owner, const struct sockaddr *address, struct error *e);
    void *check_owner;
};

/* True once the answer's head is there.  Errors: PROVIDER-neutral: UNAVAILABLE, TIMEOUT, CANCELLED,
   EGRESS_BLOCKED, HTTP_SYNTAX. */
may_suspend bool http_client_send(struct http_client *client, struct context *ctx,
                                  const struct http_client_request *request,
                                  struct http_exchange **out, struct error *e);
int http_exchange_status(const struct http_exchange *exchange);
const struct http_headers *http_exchange_headers(const struct http_exchange *exchange);
/* Next piece, borrowed until the next call; empty at the end.  A body cut short is UNAVAILABLE,
   never a clean end. */
may_suspend bool http_exchange_read(struct http_exchange *exchange, struct context *ctx, str *piece,
                                    struct error *e);
may_suspend bool http_exchange_read_all(struct http_exchange *exchange, struct context *ctx,
                                        size_t max, str *body, struct error *e);
/* Body read to its end: back to the pool; else the connection closes.  NULL is fine. */
void http_exchange_close(struct http_exchange *exchange);
static inline void http_exchange_destroy(struct http_exchange *exchange)
{
    http_exchange_close(exchange);
}
OWNED_DEFINE(http_exchange)

#endif
