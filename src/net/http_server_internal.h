/*
 * The server's insides: what http_server.c (listening, loops, drain), http_connection.c (socket and
 * life of a connection) and http_reply.c (request body and replies) share.
 *
 *      HANDSHAKE (TLS only) --> IDLE
 *      IDLE --first byte--> HEAD --parsed--> HANDLING --handler returned, reply sent--> IDLE
 *                            |                  |--body unread--> DISCARDING --> IDLE
 *                            |                  |--relay begun--> RELAYING --finished, sent--> IDLE
 *                            '--refused--> LINGERING --peer closed, too much, or time--> CLOSED <--
 *                            peer gone
 *
 * - IDLE owns no job, no buffer, no coroutine.  A job is one request in work: parser, arena,
 *   context; pooled per loop.
 * - In HANDLING the socket is read even when nobody asks, until the job's buffer is full, so that a
 *   peer that leaves is noticed; then only errors are watched for.
 * - An end of input after a whole request is a half-close and may still be a client that waits.
 *   When no reply has begun after HTTP_HALF_CLOSE_GRACE_MS an interim "100 Continue" is sent: a
 *   peer that is gone answers with a reset, which cancels the request; a peer that waits ignores it
 *   (RFC 9110 section 15.2).  HTTP/1.0 knows no interim answers: there the request is cancelled.
 *   Once a reply streams, its own writes find out.
 * - RELAYING owns a relay and no job: job, arena and coroutine went back when the handler returned.
 * - CLOSED with a handler still running: the socket is gone, the struct stays until the handler has
 *   returned.
 */
#ifndef NEXUS_NET_HTTP_SERVER_INTERNAL_H
#define NEXUS_NET_HTTP_SERVER_INTERNAL_H

#include "net/buffer_internal.h"
#include "net/http_parse_internal.h"
#include "net/http_server.h"
#include "net/tls.h"

#include <assert.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <uv.h>

enum connection_state {
    CONNECTION_HANDSHAKE,
    CONNECTION_IDLE,
    CONNECTION_HEAD,
    CONNECTION_HANDLING,
    CONNECTION_RELAYING,
    CONNECTION_DISCARDING,
    CONNECTION_LINGERING,
    CONNECTION_CLOSED,
};

/* The server's part on one loop. */
struct http_shard {
    struct http_server *server;
    struct loop *loop;
    struct scheduler *scheduler;
    struct clock *clock;
    struct list connections; /* of http_connection.link */
    struct list spare_jobs;
    size_t spare_job_count, connection_count, relay_count;
    _Atomic size_t load; /* connections given to this shard; read by the acceptor */
    struct buffer_pool buffers;
    bool is_draining, is_drain_told;
    int64_t date_second;
    char date[32];             /* IMF-fixdate of date_second */
    char *read_buffer;         /* BUFFER_LARGE_BYTES, for the length of one callback */
    struct http_fields fields; /* of a head that comes whole */
    char *head_buffer;         /* HTTP_REPLY_HEAD_BYTES_MAX, likewise */
    struct tls_server *tls;    /* NULL: plain; for connections to come */
    char *record_buffer;       /* of one TLS record, for the length of one send */
    size_t handshake_count;    /* that have begun and not ended */
};

struct http_server {
    struct http_server_options options;
    struct http_shard *shards;
    size_t shard_count;
    _Atomic size_t connection_count;
    uv_poll_t *listener; /* NULL when closed */
    int listen_fd, spare_fd;
    uint16_t port;
    size_t drained_count; /* shards; on shards[0]'s loop */
    struct condition drained;
    struct condition reloaded;
    size_t reload_count; /* shards that have not taken the new certificate yet; on shards[0] */
};

struct http_job {
    struct http_request request;
    struct context ctx;
    struct arena *arena;
    struct list spare_link;
    struct http_parser parser;
    char *head; /* all bytes of the head so far and what came with them, on arena */
    size_t head_len, head_capacity;
    struct buffer input; /* raw bytes after the head that are not decoded yet */
    str rest;            /* of a whole reply the kernel did not take, on arena */
    struct waiter *reader, *writer;
    int status; /* of the reply, 0 before */
    bool is_http10, keeps_alive;
    bool is_continue_due; /* Expect: 100-continue not answered yet */
    bool is_body_done, is_body_broken, is_input_full;
    bool has_begun, is_streamed, is_ended, has_handler_returned;
};

struct http_connection {
    uv_poll_t poll;
    struct http_shard *shard;
    struct http_job *job;     /* NULL when idle or relaying */
    struct http_relay *relay; /* NULL: none */
    struct tls *tls;          /* NULL: plain, or nothing came yet */
    struct list link;
    struct timer timer;
    struct turn_end turn_end;
    struct buffer output;
    int64_t deadline_ns; /* of the state; the timer may be armed for an earlier moment */
    uint32_t linger_bytes, discard_bytes;
    uint32_t chunk_at; /* offset of the open chunk in the output; CHUNK_NONE */
    int fd, poll_events;
    enum connection_state state;
    bool is_input_ended; /* the peer's half is closed */
    bool is_blocked;     /* the kernel takes no more for now; the loop tells when it does */
    bool is_handle_closed, is_in_handshake;
    char peer_address[48];
};

#define CHUNK_NONE UINT32_MAX

/* ---- http_connection.c ---- */
void http_connection_adopt(struct http_shard *shard, int fd, const char *peer_address);
void http_connection_open(struct http_connection *c);   /* ready for a first request */
void http_connection_close(struct http_connection *c);  /* without a request in work */
void http_connection_linger(struct http_connection *c); /* says no more, drops what comes */
void http_connection_cut(
    struct http_connection *c); /* the peer is gone, or must go: cancels, closes the socket */
void http_connection_drain(struct http_connection *c); /* closes it when idle */
bool http_connection_flush(
    struct http_connection *c); /* sends what it can; false: the connection is gone */
size_t http_connection_pending(
    const struct http_connection *c); /* reply bytes not with the kernel */
void http_connection_watch(
    struct http_connection *c); /* asks libuv for the events the state needs */
void http_connection_handler_returned(struct http_connection *c);
void http_connection_settle(struct http_connection *c);    /* what comes next, when that is due */
void http_connection_shut_down(struct http_connection *c); /* drain's time is over */
/* Bytes into the output, past its bound by at most what framing needs; false when there is no room.
   */
bool http_connection_append(struct http_connection *c, str bytes);
must_check bool http_connection_receive(struct http_connection *c,
                                        struct error *e); /* suspends: more body bytes */

/* ---- http_transport.c ---- */
/* As recv and sendmsg do: -1 with errno, EAGAIN for "not now". */
ssize_t http_transport_receive(struct http_connection *c, char *into, size_t room);
ssize_t http_transport_send(struct http_connection *c, struct iovec parts[2]);
/* Received under TLS and not given yet: no event will tell of it. */
bool http_transport_has_pending(const struct http_connection *c);
void http_transport_handshake(struct http_connection *c); /* goes on with it */
void http_transport_end_output(struct http_connection *c);
void http_transport_spoil(struct http_connection *c); /* its close will look like a failure */
void http_transport_close(struct http_connection *c);

/* ---- http_reply.c ---- */
void http_reply_close_chunk(struct http_connection *c);
/* Into the open chunk, opening one when needed; at most CHUNK_BYTES_MAX that the caller has seen to
   fit, framing included. */
enum { CHUNK_BYTES_MAX = 0xffff, CHUNK_FRAMING_BYTES = 8, WRITE_AT_ONCE_BYTES = 16 << 10 };
void http_reply_append_chunked(struct http_connection *c, str bytes);
bool http_status_has_no_body(int status);
/* A reply of the server's own about a request that has no handler: problem+json, Connection: close.
   */
str http_reply_refusal(struct http_shard *shard, enum error_reason reason, const char *problem);
const char *http_shard_date(struct http_shard *shard);

/* ---- http_server.c ---- */
void http_shard_connection_closed(struct http_shard *shard);
void http_shard_relay_ended(struct http_shard *shard);
struct http_job *http_shard_job_take(struct http_shard *shard);
void http_shard_job_give(struct http_shard *shard, struct http_job *job);

#endif
