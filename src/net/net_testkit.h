/*
 * Help for tests of net: loops on threads with a server, a raw blocking client, a scripted raw
 * server. Everything is on loopback with ports that the kernel chooses.
 */
#ifndef NEXUS_NET_NET_TESTKIT_H
#define NEXUS_NET_NET_TESTKIT_H

#include "net/http_server.h"

/* ---- loops and coroutines ---- */

/* Runs fn(ctx, argument) as a coroutine on a loop of its own on this thread, until it returns.
   Deadline 20 s. */
void net_testkit_run(void (*fn)(struct context *ctx, struct loop *loop, void *argument),
                     void *argument);

/* ---- a server on `loop_count` threads ---- */
struct testkit_server {
    struct loop *loops[8];
    size_t loop_count;
    struct http_server *server;
    uint16_t port;
    bool has_drained_in_time;
    void (*on_drained)(struct loop *loop); /* optional: on each loop, before it stops */
};
/* options: address, port, handler and owner may be left out (owner, then handler, are required only
   to answer). */
void testkit_server_start(struct testkit_server *kit, size_t loop_count,
                          struct http_server_options options);
void testkit_server_stop(struct testkit_server *kit,
                         int64_t drain_ms); /* drains, joins, destroys */

/* ---- a raw client: blocking, 5 s timeouts ---- */
int raw_connect(uint16_t port);
void raw_send(int fd, str bytes);
/* Reads until the peer closes or `max` bytes are there; result on the heap of the test (freed by
   raw_free_all). */
str raw_read_all(int fd);
/* Reads one answer with Content-Length, chunked, or no body; false when the connection ended before
   it was whole. */
bool raw_read_answer(int fd, int *status, str *head, str *body);
bool raw_is_closed(int fd); /* waits up to 5 s for the end */
str raw_exchange(uint16_t port,
                 str bytes); /* connect, send, shut down nothing, read until closed */
int raw_status(str answer);  /* 0: no status line */
void raw_free_all(void);

/* ---- a scripted raw server: accepts one connection after the other on a thread ---- */
struct raw_server {
    int fd;
    uint16_t port;
    void (*serve)(int fd, size_t connection_index, void *argument);
    void *argument;
    void *thread;
    _Atomic size_t connection_count;
    _Atomic bool is_stopping;
};
void raw_server_start(struct raw_server *server,
                      void (*serve)(int fd, size_t index, void *argument), void *argument);
void raw_server_stop(struct raw_server *server);
str raw_read_request(int fd); /* head and Content-Length body; empty when the peer closed */

/* ---- certificates, made with the openssl program ---- */

bool testkit_shell(const char *format, ...) format_like(1, 2); /* true: it ended with 0 */
/* In folder: authority.pem and other.pem; by the first server.pem (localhost, 127.0.0.2) and
   client.pem, by the other stranger.pem; each with its .key. */
bool testkit_make_certificates(const char *folder);

long testkit_rss_kib(void);

#endif
