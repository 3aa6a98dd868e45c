/*
 * Relay: a streamed reply that goes on without a coroutine.
 *
 * A handler has sent a request upstream, has the head of the answer (perhaps bytes of it too) and
 * has begun its streamed reply.  It calls http_relay_start and returns: its coroutine, its stack,
 * its arena and the request go back to their pools, and the stream flows by callbacks on the loop.
 *
 *      upstream --bytes--> on_bytes --http_relay_write--> client      as often as bytes come
 *                            on_idle                                  nothing sent for keep_alive_ms
 *                            on_end(NULL | why) --> http_relay_finish
 *
 * - Callbacks run on the loop's thread, NOT on a coroutine: they must not suspend (who needs to wait
 *   starts a coroutine of its own and calls http_relay_finish from there).  They never nest, and
 *   none is called from within http_relay_start, _attach, _write or _finish; the first comes at the
 *   end of the loop turn at the earliest, perhaps before the handler has returned.
 * - on_end comes once per exchange: NULL when the upstream's body ended cleanly, else why not:
 *   UNAVAILABLE (the upstream cut its answer short), HTTP_SYNTAX, TIMEOUT (between bytes, or the
 *   deadline), CANCELLED (the client left, or stopped reading, or the server ends:
 *   http_relay_client_is_gone tells whether the client can still be told), LIMIT (see
 *   http_relay_write).  The upstream is released before it.  Then the owner finishes the relay: at
 *   once or later.
 * - http_relay_finish may come at any time, also within a callback and before on_end (an owner that
 *   has seen "[DONE]" does not wait).  After it no callback comes and the relay is gone.
 * - A client that leaves closes the upstream at once, in that very event.
 * - Backpressure: while more than HTTP_RELAY_HIGH_BYTES wait for the client the upstream is not
 *   read, until the client has drained them to HTTP_RELAY_LOW_BYTES; its timeout does not run
 *   meanwhile.
 * - What is written in one turn of the loop goes out together at its end.
 * - A relay is a request in work: http_server_drain waits for it.  When drain's time is over, on_end
 *   says CANCELLED while the client is still there: what is written then and finished at once
 *   reaches it.
 * - Nothing is held while nothing is pending but the structs of the two connections, of the exchange
 *   and of the relay (bench/http_bench.c measures it).
 * Thread: the loop of the request, which is that of the exchange.  Suspends: never.
 */
#ifndef NEXUS_NET_HTTP_RELAY_H
#define NEXUS_NET_HTTP_RELAY_H

#include "net/http_client.h"
#include "net/http_server.h"

struct http_relay;

struct http_relay_options {
    /* Its streamed reply has begun.  The request, its ctx and all that lies on its arena stay valid
       until the handler returns, and not longer: the owner copies what it needs.  After the start
       none of the http_reply_* functions that write may be called; http_reply_is_done is true. */
    struct http_request *request;
    struct http_exchange *exchange; /* given away; its head was on the arena of its send's ctx */
    /* Bytes of the upstream's body, decoded from chunking, never empty, borrowed for the call: at
       most HTTP_RELAY_READ_BYTES, but for what came with the head (HTTP_READ_BUFFER_BYTES). */
    void (*on_bytes)(void *owner, str bytes);
    void (*on_end)(void *owner, const struct error *failure); /* failure: for the call */
    void (*on_idle)(void *owner); /* NULL: none; again after each keep_alive_ms without a byte */
    void *owner;
    int64_t between_bytes_timeout_ms; /* 0: UPSTREAM_IDLE_TIMEOUT_MS */
    int64_t keep_alive_ms;            /* 0: on_idle is never called */
    int64_t deadline_ns;              /* of the whole stream; 0 or DEADLINE_NONE: none */
};

/* From the handler's coroutine.  Never fails: what has gone wrong meanwhile comes by on_end. */
struct http_relay *http_relay_start(const struct http_relay_options *options);

/* Copies bytes into the reply.  What the client does not take waits in its output; past
   HTTP_RELAY_OUTPUT_BYTES_MAX the bytes are dropped, the upstream is closed and on_end says LIMIT
   (only an owner that writes far more than it was given gets there).  False: the bytes will not
   arrive (that, or the client has gone); the owner may ignore it, on_end tells. */
bool http_relay_write(struct http_relay *relay, str bytes);

/* Bytes written that the client's side of the kernel has not taken yet. */
size_t http_relay_pending(const struct http_relay *relay);
bool http_relay_client_is_gone(const struct http_relay *relay);

/* After on_end, before finish: the reply goes on with the bytes of another exchange (a restart on
   another upstream).  on_end comes once more, for this one. */
void http_relay_attach(struct http_relay *relay, struct http_exchange *give_exchange);

/* For who has seen that there is nothing more to come: HTTP_RELAY_END ends the reply cleanly,
   HTTP_RELAY_ABORT so that the client can tell that it is broken (what was written still goes out).
   Never holds the client up: an upstream whose body has not ended yet is read (and its bytes
   dropped) for HTTP_RELAY_TAIL_MS after END, to keep its connection; ABORT closes it at once. */
enum http_relay_ending { HTTP_RELAY_END, HTTP_RELAY_ABORT };
void http_relay_finish(struct http_relay *give_relay, enum http_relay_ending how);

#endif
