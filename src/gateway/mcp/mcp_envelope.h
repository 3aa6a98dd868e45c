/*
 * MCP envelope: what one POST to /mcp is: of which era and revision, whether its header fields and its body agree, what its client can.
 *
 *      head + body --> notification, request (session era: revision of the session; stateless: of the request), or a refusal
 *
 * | stateless request | refused with |
 * | a required header field is missing, or differs from the body | 400, -32020 |
 * | _meta without version or capabilities | 400, -32602 |
 * | a revision that is not served statelessly | 400, -32022 with those that are supported |
 *
 * A request belongs to the stateless era when its _meta or its header says so; `initialize` and what has a session id do not.
 * Pure: everything lives on the arena.  Source: specification of 2026-07-28, Streamable HTTP, Server Validation.
 */
#ifndef NEXUS_GATEWAY_MCP_ENVELOPE_H
#define NEXUS_GATEWAY_MCP_ENVELOPE_H

#include "mcp/mcp.h"
#include "net/http.h"

struct mcp_head {
    str version, method, name, session; /* header fields as they came; STR_NONE: absent */
};
struct mcp_envelope {
    struct mcp_message message;
    enum mcp_era era;
    const struct mcp_revision *revision; /* NULL: the session knows it */
    const struct json *progress_token;   /* a string or an integer; NULL: none wanted */
    bool can_open_urls;                  /* elicitation/create with mode url */
};
struct mcp_refusal {
    int status;
    int64_t code;
    const struct json *id; /* of the request, as far as it could be read */
    str data;              /* JSON text or empty */
};

/* False: `refusal` is complete, e says what is wrong. */
must_check bool mcp_envelope_read(struct arena *arena, const struct mcp_head *head, str body,
                                  struct mcp_envelope *out, struct mcp_refusal *refusal,
                                  struct error *e);

/* Arguments that the tool's input schema wants mirrored (x-mcp-header) against Mcp-Param-* of the request: both or neither, and equal.
   False with what differs. */
must_check bool mcp_header_check_arguments(struct arena *arena, const struct http_headers *headers,
                                           const struct json *schema, const struct json *arguments,
                                           struct error *e);

#endif
