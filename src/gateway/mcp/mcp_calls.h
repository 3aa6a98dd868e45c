/*
 * MCP calls: requests of sessions that are in work, so that their client can cancel one by its id, or come back for its answer.
 *
 *      enter --> in work --(notifications/cancelled, or the session is closed)--> its context is cancelled
 *                   |                                                                    |
 *                   '--(client gone; back with Last-Event-ID: taken over)--> leave <-----'
 *
 * A notification may come in on another loop than the request is on: the cancelling hops.
 * Thread: any; a ticket's own members belong to the loop of its request.  Suspends: never.
 */
#ifndef NEXUS_GATEWAY_MCP_CALLS_H
#define NEXUS_GATEWAY_MCP_CALLS_H

#include "base/list.h"
#include "base/uuid.h"
#include "runtime/loop.h"
#include <stdatomic.h>

struct mcp_calls;

struct mcp_ticket {
    struct list link;
    struct mcp_calls *calls;
    struct loop *loop;          /* of the request; NULL: a scheduler without one */
    struct context *ctx;        /* what is cancelled; NULL once the call has left */
    str session, id;            /* id: of the JSON-RPC request, as JSON text; both of the ticket */
    uuid run_id;                /* UUID_NONE: none yet */
    bool is_cancelled;          /* by its client */
    _Atomic bool is_taken_over; /* another stream tells the rest of the run */
    _Atomic int references;
};

struct mcp_calls *mcp_calls_create(void);
void mcp_calls_destroy(struct mcp_calls *calls); /* none in work; NULL is fine */

/* REASON_RATE_LIMIT past MCP_SERVER_CALLS_PER_SESSION in one session. */
must_check bool mcp_calls_enter(struct mcp_calls *calls, str session, str id, struct context *ctx,
                                struct mcp_ticket **out, struct error *e);
void mcp_calls_set_run(struct mcp_ticket *ticket, uuid run_id);
void mcp_calls_leave(struct mcp_ticket *ticket); /* NULL is fine */

/* False when nothing with that id is in work; that is no error, for it may have just ended. */
bool mcp_calls_cancel(struct mcp_calls *calls, str session, str id);
size_t mcp_calls_cancel_session(struct mcp_calls *calls, str session);
/* Marks the call that follows this run: somebody else follows it now. */
bool mcp_calls_take_over(struct mcp_calls *calls, str session, uuid run_id);

#endif
