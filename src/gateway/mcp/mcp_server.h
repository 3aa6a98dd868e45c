/*
 * MCP server: tools, agents, runs and files at /mcp, for any MCP host, in the session era and the stateless one on one endpoint.
 *
 *      POST --> envelope (era, revision, header = body) --> session? --> method (one table) --> result, error or stream
 *      GET, DELETE --> the session's own stream, its end          subscriptions/listen --> the same without a session
 *
 * - What a caller sees and may do is what the API gives the same key: policy, budget, labels, audit and limits are those of tool_invoke
 *   and run_start.  A viewer sees no tools, for it may call none.
 * - An agent is the tool agent_NAME; its run is told by progress notifications, and a stream of the session era goes on from the run's
 *   journal after Last-Event-ID.  A run that waits for a person says so with the approvals' links; a stateless client that can open URLs
 *   is asked to (input_required) and comes back with requestState.
 * - A failed call is a result with isError, for a model to read; an error is for what no model can mend.
 * - Nothing is remembered but sessions (mcp_sessions.h) and what is in work (mcp_calls.h).
 *
 * Thread: any loop.  Source: specification of 2025-06-18, 2025-11-25 and 2026-07-28; RFC 9728.
 */
#ifndef NEXUS_GATEWAY_MCP_SERVER_H
#define NEXUS_GATEWAY_MCP_SERVER_H

#include "base/error.h"

struct gateway;
struct api_call;
struct mcp_server;

struct mcp_server_options {
    str public_url; /* "https://nexus.example.com"; empty: the scheme and the Host of each request */
    bool is_tls;    /* what is listened on: the scheme where there is no public_url */
    str version;    /* of this program, as clients are told */
    size_t sessions_per_key;    /* 0: MCP_SERVER_SESSIONS_PER_KEY */
    int64_t session_idle_ms;    /* 0: MCP_SERVER_SESSION_IDLE_MS */
    str *authorization_servers; /* shown to clients (RFC 9728); none: API keys only */
    size_t authorization_server_count;
};

/* `gateway` is borrowed for life. */
struct mcp_server *mcp_server_create(struct gateway *gateway,
                                     const struct mcp_server_options *options);
void mcp_server_destroy(struct mcp_server *server); /* no call in work; NULL is fine */

/* What went wrong before a method was reached, as a JSON-RPC error: of routes with the dialect ROUTE_MCP. */
void mcp_reply_refusal(struct api_call *call, const struct error *e, int status);
/* Value of WWW-Authenticate for these routes: names the resource's metadata. */
str mcp_challenge(struct api_call *call);

#endif
