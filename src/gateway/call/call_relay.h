/*
 * Relay core: a stream of the caller's own dialect on its way through.  Bytes in, bytes out; no I/O, no waiting, no clock.
 *
 *      HOLDING --first content, finish or end; or CALL_HELD_BYTES_MAX--> FLOWING --end--> ENDED
 *         '---------- an error event, nonsense, a cut ------------------> FAILED <-'
 *
 * - Events are looked at whole and go out as the bytes they came in; left out are comments, and our own usage chunk when the caller did
 *   not ask for it.  Where nothing is left out a piece goes out as one slice of what came in.
 * - While HOLDING nothing goes out: what came waits in `held`, so that another attempt can answer in its place.
 * - With a content filter every event is read as JSON and goes out with its texts replaced; a block is a failure (CONTENT_BLOCKED).
 * - The same verdict and the same bytes however the stream is cut into pieces (call_relay_fuzz.c).
 * - After ENDED and FAILED nothing is looked at any more.
 * Memory: only an event that has come in part, and what is held.  Thread: one.  Suspends: never.
 */
#ifndef NEXUS_GATEWAY_CALL_RELAY_H
#define NEXUS_GATEWAY_CALL_RELAY_H

#include "llm/guard.h"

struct call_bytes {
    char *ptr;
    size_t len, capacity;
};

enum call_relay_state {
    CALL_RELAY_HOLDING,
    CALL_RELAY_FLOWING,
    CALL_RELAY_ENDED,
    CALL_RELAY_FAILED
};

struct call_relay {
    const struct dialect *dialect;
    enum call_relay_state state;
    bool leaves_out_usage; /* what carries nothing but usage is ours */
    bool
        holds_end; /* the event that ends the stream goes to `last`: something is to happen before it */
    struct glance_state glance;
    struct guard_events *guard; /* owned; NULL: no filter */
    /* Where the bytes go once they flow; NULL: into `held`. */
    void (*write)(void *owner, str bytes);
    void *owner;
    struct call_bytes held, last;
    struct call_bytes partial; /* of the event that is still coming */
    size_t line_start;         /* in partial: of the line that is still coming */
};

/* What an event of an upstream in pieces may make us keep is SSE_EVENT_BYTES_MAX; more is PROVIDER_PROTOCOL. */
enum call_relay_state call_relay_feed(struct call_relay *relay, struct arena *scratch, str bytes,
                                      struct error *e);
/* The upstream's body ended cleanly: ENDED when the answer was whole (what the dialect ends with is added when the upstream left it
   out), else FAILED with PROVIDER_NETWORK. */
enum call_relay_state call_relay_close(struct call_relay *relay, struct arena *scratch,
                                       struct error *e);
/* Frees what is held and the partial event. */
void call_relay_deinit(struct call_relay *relay);

void call_bytes_add(struct call_bytes *bytes, str more);
void call_bytes_free(struct call_bytes *bytes);
static inline str call_bytes_str(const struct call_bytes *bytes)
{
    return (str){bytes->ptr, bytes->len};
}

#endif
