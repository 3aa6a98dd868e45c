/*
 * MCP state: texts that a client keeps for us and brings back, so that no node needs to remember a call.
 *
 * - requestState of a tool call that waits for an approval (stateless era): which run, for which call, until when.  Sealed with the
 *   store's pepper and bound to principal and call, so it is good for nobody and nothing else; it says where to look, and what it
 *   leads to is checked as if the caller had named it.
 * - the id of an event of a stream (session era): which run, how far, which request asked.  Not sealed: whoever names a run may see it
 *   or not, whatever the id says.
 * Pure.  Thread: any.
 */
#ifndef NEXUS_GATEWAY_MCP_STATE_H
#define NEXUS_GATEWAY_MCP_STATE_H

#include "gateway/keys/keys.h"
#include "mcp/mcp.h"

struct mcp_state {
    uuid run_id, session_id;
    int64_t expires_s; /* Unix time */
};
/* `call`: the digest of tool and arguments. */
str mcp_state_seal(struct arena *arena, const struct keys *keys, const struct principal *principal,
                   digest call, const struct mcp_state *state);
/* REASON_INVALID for what is not ours, not theirs, of another call, or too old. */
must_check bool mcp_state_open(struct arena *arena, const struct keys *keys,
                               const struct principal *principal, digest call, str text,
                               int64_t now_s, struct mcp_state *out, struct error *e);
digest mcp_state_call(struct arena *arena, str tool, const struct json *arguments);

struct mcp_event_id {
    uuid run_id;              /* UUID_NONE: of the session's own stream */
    int64_t seq;              /* of the run's journal; of the lists */
    const struct json *id;    /* of the request */
    const struct json *token; /* of its progress; NULL: none */
};
/* Empty when it would be too long: then the stream cannot be resumed. */
str mcp_event_id_write(struct arena *arena, const struct mcp_event_id *id);
bool mcp_event_id_read(struct arena *arena, str text, struct mcp_event_id *out);

#endif
