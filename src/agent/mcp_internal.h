/*
 * The MCP client from inside.  All of it lives on the client's loop.
 *
 *      mcp_client.c    servers, hops from other loops          mcp_upstream.c    the keeper: connect, list, listen, again
 *      mcp_link.c      negotiation, requests                    mcp_stdio.c, mcp_http.c    transports
 *      mcp_tools.c     definitions: list, compare, publish      mcp_store.c     what was approved
 *      mcp_call.c      the executor                             mcp_show.c      JSON for people
 */
#ifndef NEXUS_AGENT_MCP_INTERNAL_H
#define NEXUS_AGENT_MCP_INTERNAL_H

#include "agent/mcp_client.h"
#include "base/limits.h"
#include "mcp/mcp.h"
#include "net/http.h"
#include "runtime/loop.h"

/* ---- transports ---- */

/* A message on its way out. */
struct mcp_outgoing {
    str body;                 /* the whole message */
    str method, name;         /* name: of the tool; for header fields */
    int64_t id;               /* 0: a notification */
    struct http_headers more; /* Mcp-Param-* */
    str session_id;           /* given by the answer to initialize over HTTP (out) */
    bool is_cancellable;      /* the server is told when nobody waits any more */
    bool was_sent;            /* (out) the server may have acted on it */
};

struct mcp_transport;
struct mcp_transport_ops {
    const char *name;
    /* The answer to a request: a result or an error, on ctx's arena.  Over HTTP a refusal without a JSON-RPC body is an error of code 0. */
    may_suspend bool (*request)(struct mcp_transport *transport, struct context *ctx,
                                struct mcp_outgoing *message, struct mcp_message *answer,
                                struct error *e);
    may_suspend bool (*notify)(struct mcp_transport *transport, struct context *ctx,
                               struct mcp_outgoing *message, struct error *e);
    /* Hands over what comes by itself until the connection is lost (false).  stdio: from the start, and answers come this way too.
       HTTP: the GET stream of a session. */
    may_suspend bool (*listen)(struct mcp_transport *transport, struct context *ctx,
                               struct error *e);
    /* Ends the session at the server, when there is such a thing. */
    may_suspend_void void (*leave)(struct mcp_transport *transport, struct context *ctx);
    void (*destroy)(struct mcp_transport *transport); /* no request may be waiting */
};
struct mcp_transport {
    const struct mcp_transport_ops *ops;
    const struct mcp_revision *revision; /* NULL until negotiated */
    struct mcp_upstream *server;
    str session_id; /* HTTP, session era */
    bool is_session_lost;
};
must_check bool mcp_stdio_open(struct mcp_upstream *server, struct mcp_transport **out,
                               struct error *e);
must_check bool mcp_http_open(struct mcp_upstream *server, struct mcp_transport **out,
                              struct error *e);

/* What comes from a server by itself: a notification is acted on, a request gets its answer (empty: none is due) on the arena. */
str mcp_upstream_heard(struct mcp_upstream *server, struct arena *arena,
                       const struct mcp_message *message);

/* ---- sessions ---- */

struct mcp_link {
    struct mcp_transport *transport;
    struct mcp_upstream *server;
    struct arena *arena;
    int64_t next_id;
    bool has_tools, has_list_changed;
    str peer_name, peer_version;
    struct list calls; /* of session_call.link: cancelled when the session ends */
    size_t call_count;
};
struct session_call {
    struct list link;
    struct context ctx;
};
struct mcp_member {
    str key, json;
};
struct mcp_question {
    str method, name;
    const struct mcp_member *members; /* of params */
    size_t member_count;
    struct http_headers more;
    str effect_key;
    bool wants_progress;
    bool *was_sent; /* of a failure: may the server have acted on it?  May be NULL */
};
/* Era and revision: server/discover, else initialize. */
may_suspend bool mcp_link_open(struct mcp_link *session, struct context *ctx, struct error *e);
/* The answer, a result or an error of the server. */
may_suspend bool mcp_link_ask(struct mcp_link *session, struct context *ctx,
                              const struct mcp_question *question, struct mcp_message *answer,
                              struct error *e);
/* The same, where an error of the server is an error: "<method>: <code> <message>". */
may_suspend bool mcp_link_need(struct mcp_link *session, struct context *ctx,
                               const struct mcp_question *question, const struct json **result,
                               struct error *e);
/* {"jsonrpc": ..., "method": "notifications/cancelled", ...} */
str mcp_cancel_message(struct arena *arena, int64_t id, str reason);

/* ---- definitions ---- */

enum mcp_tool_state {
    MCP_TOOL_OFFERED,
    MCP_TOOL_NEW,     /* never approved */
    MCP_TOOL_CHANGED, /* approved, but the server now says something else */
    MCP_TOOL_GONE,    /* approved, and the server has it no more */
    MCP_TOOL_UNKNOWN, /* approved, and the server was not reached since */
};
const char *mcp_tool_state_name(enum mcp_tool_state state);

/* One tool of a server: what is stored of it and what the server says now. */
struct mcp_entry {
    str tool, nexus_name;
    str approved, approved_digest; /* canonical definition and hex digest; empty: none */
    str approved_by;
    str current, current_digest; /* empty: the server does not have it, or was not asked yet */
    int64_t first_seen_us, approved_us;
};
struct mcp_entries { /* immutable once made; a refresh makes new ones */
    struct arena *arena;
    struct mcp_entry *items; /* by tool */
    size_t count;
    bool is_listed; /* false: from the store only */
};
struct mcp_entries *mcp_entries_create(size_t capacity);
void mcp_entries_destroy(struct mcp_entries *entries);
OWNED_DEFINE(mcp_entries)
struct mcp_entry *mcp_entries_find(const struct mcp_entries *entries, str tool_or_nexus_name);
enum mcp_tool_state mcp_entry_state(const struct mcp_entries *entries,
                                    const struct mcp_entry *entry);
/* S__T within [A-Za-z0-9_-]{1,64}; `is_taken` or cut: with a suffix from the name's digest. */
str mcp_nexus_name(struct arena *arena, str server, str tool, bool is_taken);

/* Asks for all pages, compares, stores what is new, publishes.  *ttl_ms: 0 when the server did not say. */
may_suspend bool mcp_tools_refresh(struct mcp_link *session, struct context *ctx, int64_t *ttl_ms,
                                   struct error *e);
/* Offers to the registry what may be offered. */
must_check bool mcp_tools_publish(struct mcp_upstream *server, struct error *e);

may_suspend bool mcp_store_load(struct mcp_upstream *server, struct context *ctx,
                                struct mcp_entries **out, struct error *e);
may_suspend bool mcp_store_save(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_entry *entries, size_t count, struct error *e);
may_suspend bool mcp_store_forget(struct mcp_upstream *server, struct context *ctx, str tool,
                                  struct error *e);

/* ---- servers ---- */

enum mcp_upstream_state { MCP_UPSTREAM_CONNECTING, MCP_UPSTREAM_READY, MCP_UPSTREAM_LOST };

struct mcp_upstream {
    struct list link;
    struct mcp_client *client;
    struct arena *arena; /* of the configuration */
    struct mcp_upstream_config config;
    digest config_digest;
    struct context ctx; /* of the keeper */
    struct condition changed;
    bool is_ended; /* the keeper has returned */

    enum mcp_upstream_state state;
    struct error why; /* LOST */
    int64_t attempts, retry_at_ns;
    int64_t ready_ns;    /* since when the session stood; 0: there was none */
    bool must_not_probe; /* a server of the session era that server/discover upset */
    bool is_list_stale;  /* it said so */
    int64_t heard_ns;    /* when it last said anything */
    size_t rejected;     /* definitions of the last list that were no good */
    struct error why_rejected;
    struct mcp_link *session;    /* READY */
    struct mcp_entries *entries; /* never NULL once the store was read */
};
/* Wakes the keeper. */
void mcp_upstream_wake(struct mcp_upstream *server);
must_check bool mcp_upstream_start(struct mcp_upstream *server, struct error *e);
may_suspend bool mcp_upstream_stop(struct mcp_upstream *server, struct context *ctx,
                                   struct error *e);
void mcp_upstream_destroy(struct mcp_upstream *server); /* after its keeper has ended */
/* UNAVAILABLE with the reason while there is no session. */
must_check bool mcp_upstream_session(struct mcp_upstream *server, struct mcp_link **out,
                                     struct error *e);

struct mcp_client {
    struct executor executor;
    struct mcp_client_options options;
    struct arena *arena;
    struct list servers;
    bool is_stopped;
};
struct mcp_upstream *mcp_client_find(struct mcp_client *client, str name);
may_suspend bool mcp_client_need(struct mcp_client *client, str name, struct mcp_upstream **out,
                                 struct error *e);

/* ---- hops ---- */

/* Runs fn on the client's loop as a coroutine with a context and an arena of its own; cancelled with the caller's, joined always.
   What it gives goes into `outputs` (MCP_HOP_OUTPUTS of them): its arena ends with it, so nothing else may point there. */
enum { MCP_HOP_OUTPUTS = 3 };
typedef bool mcp_hop_fn(struct mcp_client *client, struct context *ctx, void *argument,
                        str *outputs, struct error *e);
/* The first `count` outputs, copied to the caller's arena. */
may_suspend bool mcp_hop(struct mcp_client *client, struct context *ctx, mcp_hop_fn *fn,
                         void *argument, str *outputs, size_t count, struct error *e);

may_suspend bool mcp_call_execute(struct executor *executor, struct context *ctx,
                                  const struct tool_request *request, struct tool_result *out,
                                  struct error *e);
/* A result of tools/call as one JSON text on the arena; TOOL_FAILED, OUTPUT_LIMIT.  *structured: its own text; empty: none. */
must_check bool mcp_result_map(struct arena *arena, str tool, const struct json *result, str *out,
                               str *structured, struct error *e);

#endif
