/*
 * The client's insides: what http_client.c (pool, sending) , http_upstream.c (one connection) and
 * http_exchange.c (the answer) share.
 *
 *      upstream:  dialling --> in use by one exchange <--> idle in its origin's pool --> closed
 *
 * - An idle upstream is watched for input: any (an end, or bytes nobody asked for) closes it.
 * - In use, it is watched only while its exchange waits; a reader that does not read exerts
 *   backpressure.  Who waits is a coroutine (waiter) or, once detached, a relay (on_event).
 * - Bytes are received into the client's one read buffer and copied to what the exchange needs, so
 *   an open stream that has nothing to deliver holds no buffer.
 */
#ifndef NEXUS_NET_HTTP_CLIENT_INTERNAL_H
#define NEXUS_NET_HTTP_CLIENT_INTERNAL_H

#include "net/buffer_internal.h"
#include "net/dns.h"
#include "net/http_client.h"
#include "net/http_parse_internal.h"
#include "net/tls.h"

#include <sys/uio.h>
#include <uv.h>

/* Where connections go: scheme, host and port.  Lives while it has connections. */
struct http_origin {
    struct list idle; /* of http_upstream.idle_link, the latest first */
    size_t idle_count, connection_count;
    size_t key_len;
    char key[272]; /* 's' or 'p', two bytes of port, host */
};

struct http_client {
    struct loop *loop;
    struct scheduler *scheduler;
    struct clock *clock;
    size_t idle_max_per_origin;
    int64_t idle_ms;
    char *ca_file;           /* "" for the system's */
    struct tls_context *tls; /* NULL until first used */
    struct dns_cache *dns;
    struct map *origins;
    struct list ages;   /* of http_upstream.age_link: idle ones, the oldest first */
    struct timer timer; /* for the oldest */
    struct list spare_exchanges;
    size_t spare_exchange_count, open_count;
    struct buffer_pool buffers;
    struct http_fields fields; /* of a head that comes whole */
    char *read_buffer;         /* HTTP_READ_BUFFER_BYTES, until the next suspension */
};

struct http_upstream {
    uv_poll_t poll;
    struct http_client *client;
    struct http_origin *origin;
    struct list idle_link, age_link;
    struct waiter *waiter;         /* NULL: no coroutine waits */
    void (*on_event)(void *owner); /* NULL: no relay */
    void *owner;
    struct tls *tls;
    union dns_address address; /* the one connected to */
    int64_t idle_until_ns;
    int fd, poll_events;
    bool is_idle, was_reused;
};

struct http_exchange {
    struct http_client *client;
    struct http_upstream *upstream; /* NULL once released */
    struct list spare_link;
    struct http_parser parser;
    struct http_response_head head;
    char *head_bytes; /* on the arena of send's ctx */
    size_t head_len, head_capacity;
    struct buffer input; /* received, not decoded yet */
    int64_t idle_timeout_ms;
    bool has_answer_bytes, is_done, is_broken, is_request_cut;
    bool is_garbled; /* the rest of the body cannot be decoded */
    bool is_drained; /* the last read took all there was: wait before the next one */
};

enum upstream_result { UPSTREAM_DATA, UPSTREAM_WOULD_BLOCK, UPSTREAM_ENDED, UPSTREAM_FAILED };

/* What a detached exchange gives. */
enum exchange_pull { EXCHANGE_PIECE, EXCHANGE_WAIT, EXCHANGE_END, EXCHANGE_FAILED };

/* ---- http_upstream.c ---- */
/* Dials (addresses in turn, TLS handshake included).  Errors as http_client_send's. */
may_suspend bool http_upstream_connect(struct http_client *client, struct context *ctx,
                                       const struct http_client_request *request,
                                       struct http_origin *origin, struct http_upstream **out,
                                       struct error *e);
void http_upstream_close(struct http_upstream *upstream);
/* Waits for events (UV_READABLE, UV_WRITABLE); what: for the message of the timeout. */
may_suspend bool http_upstream_wait(struct http_upstream *upstream, struct context *ctx, int events,
                                    int64_t deadline_ns, const char *what, struct error *e);
void http_upstream_watch(struct http_upstream *upstream, int events); /* 0: none */
enum upstream_result http_upstream_receive(struct http_upstream *upstream, char *into, size_t room,
                                           size_t *count, struct error *e);
enum upstream_result http_upstream_send(struct http_upstream *upstream, struct iovec parts[2],
                                        size_t *count, struct error *e);
void http_upstream_make_idle(
    struct http_upstream *upstream); /* back to the pool, or closed when it is full */
struct http_upstream *http_upstream_take_idle(struct http_client *client,
                                              struct http_origin *origin,
                                              const struct http_client_request *request);
struct http_origin *http_origin_find(struct http_client *client,
                                     const struct http_url *url); /* makes it when new */
void http_origin_check(struct http_client *client,
                       struct http_origin *origin); /* drops it when without connections */

/* ---- http_exchange.c ---- */
struct http_exchange *http_exchange_create(struct http_client *client,
                                           struct http_upstream *upstream);
may_suspend bool http_exchange_read_head(struct http_exchange *exchange, struct context *ctx,
                                         bool is_answer_to_head, int64_t deadline_ns,
                                         struct error *e);
/* From here on without a coroutine: on_event(owner) when there may be something to pull.  The head
   and its arena are forgotten. */
void http_exchange_detach(struct http_exchange *exchange, void (*on_event)(void *owner),
                          void *owner);
/* Never suspends.  The piece lies in the client's read buffer or in the exchange's input: until the
   next pull.  WAIT: on_event will come. */
enum exchange_pull http_exchange_pull(struct http_exchange *exchange, str *piece, struct error *e);
bool http_exchange_has_input(const struct http_exchange *exchange); /* received, not decoded */
void http_exchange_keep_input(struct http_exchange *exchange);      /* before others may receive */
void http_exchange_pause(struct http_exchange *exchange);           /* no event until a pull */
void http_exchange_cut(struct http_exchange *exchange); /* closes its connection, at once */

#endif
