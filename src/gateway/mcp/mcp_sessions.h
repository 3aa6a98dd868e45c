/*
 * MCP sessions: what the session era (2025-06-18, 2025-11-25) remembers between two requests of one client.
 *
 *      open --> in use --(idle too long, closed by its client, or the oldest idle one of a key that wants another)--> gone: 404
 *
 * An id is 32 random bytes and good only for the principal that opened it; for anybody else it does not exist.  Nothing of a session is
 * stored: after a restart, and on another node, its client gets 404 and initializes anew, as the protocol has it.
 * One stream of a session carries what the server tells by itself; a newer one takes it over.
 *
 * Thread: any; one short lock.  Suspends: never.
 */
#ifndef NEXUS_GATEWAY_MCP_SESSIONS_H
#define NEXUS_GATEWAY_MCP_SESSIONS_H

#include "mcp/mcp.h"
#include "orchestrator/policy/principal.h"

struct mcp_sessions;

enum { MCP_SESSION_ID_BYTES = 43 };

/* per_key, idle_ms 0: the limits of limits.h. */
struct mcp_sessions *mcp_sessions_create(size_t per_key, int64_t idle_ms);
void mcp_sessions_destroy(struct mcp_sessions *sessions); /* NULL is fine */

/* REASON_RATE_LIMIT when every session of the key is in use, or the table is full of such. */
must_check bool mcp_sessions_open(struct mcp_sessions *sessions, const struct principal *principal,
                                  const struct mcp_revision *revision, int64_t now_ns,
                                  char id[MCP_SESSION_ID_BYTES], struct error *e);
/* Its revision, and it counts as used now; NULL: not there, not this principal's, or idle for too long. */
const struct mcp_revision *mcp_sessions_use(struct mcp_sessions *sessions, str id,
                                            const struct principal *principal, int64_t now_ns);
bool mcp_sessions_close(struct mcp_sessions *sessions, str id, const struct principal *principal);

/* While a request of it is in work it is not thrown out to make room.  False: it is gone. */
bool mcp_sessions_enter(struct mcp_sessions *sessions, str id);
void mcp_sessions_leave(struct mcp_sessions *sessions, str id, int64_t now_ns);

/* A number for the stream that begins now; 0: the session is gone. */
uint64_t mcp_sessions_take_stream(struct mcp_sessions *sessions, str id);
/* Is that one still the session's stream? */
bool mcp_sessions_has_stream(struct mcp_sessions *sessions, str id, uint64_t stream);

size_t mcp_sessions_count(struct mcp_sessions *sessions);

#endif
