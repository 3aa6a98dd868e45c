/*
 * The relay's inside, and what the connection at its one end and the upstream at its other tell it.
 *
 *      client side:    open --finish--> output drains --> connection idle (detached)
 *                       '--client gone--> detached
 *      upstream side:  flowing <--> paused;  --end, failure--> released --attach--> flowing
 *                       '--finish(END) before its end--> tail --> released
 *
 * - The relay is freed when it is finished and both sides are detached; until then it counts as a
 *   request in work of its shard.
 * - What ends it from outside (client, server) is only noted and told at the end of the turn, so
 *   that callbacks do not nest.  The upstream's socket is closed at once.
 */
#ifndef NEXUS_NET_HTTP_RELAY_INTERNAL_H
#define NEXUS_NET_HTTP_RELAY_INTERNAL_H

#include "net/http_client_internal.h"
#include "net/http_relay.h"
#include "net/http_server_internal.h"

struct http_relay {
    struct http_shard *shard;
    struct http_connection *connection; /* NULL: the client's side is over */
    struct http_exchange *exchange;     /* NULL: the upstream's side is over */
    void (*on_bytes)(void *owner, str bytes);
    void (*on_end)(void *owner, const struct error *failure);
    void (*on_idle)(void *owner);
    void *owner;
    struct timer timer;
    struct turn_end turn_end;
    struct buffer ahead; /* what the client has sent of its next requests */
    int64_t between_bytes_ns, keep_alive_ns, deadline_ns;
    int64_t received_ns, written_ns; /* the latest byte of the upstream's, to the client */
    int64_t tail_until_ns;
    const char *problem;      /* with reason */
    enum error_reason reason; /* REASON_NONE, or why the stream ends though the upstream has not */
    bool is_http10, has_body, keeps_alive, is_request_whole, is_ahead_full;
    bool is_paused, is_end_told, is_finished, is_aborted;
    bool is_busy; /* below us on the stack are callbacks: not freed meanwhile */
};

/* The handler has returned: takes what must outlive its job, which the caller then releases. */
void http_relay_take_over(struct http_relay *relay, struct http_job *job);
/* The client's socket is closed or about to be: detaches the connection. */
void http_relay_client_gone(struct http_relay *relay, const char *problem);
/* Detaches a connection whose reply is finished and sent. */
void http_relay_client_done(struct http_relay *relay);
/* Output has become less. */
void http_relay_drained(struct http_relay *relay);
/* Tells on_end now that the server ends. */
void http_relay_shut_down(struct http_relay *relay);

#endif
