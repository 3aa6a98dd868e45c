/*
 * The MCP client from inside.  All of it lives on the client's loop.
 *
 *      mcp_client.c    servers, hops from other loops          mcp_upstream.c    the keeper: connect, list, listen, again
 *      mcp_link.c      negotiation, requests                    mcp_stdio.c, mcp_http.c    transports
 *      mcp_tools.c     definitions: list, compare, publish      mcp_store.c     what was approved
 *      mcp_call.c      the executor                             mcp_show.c      JSON for people
 *      mcp_login.c     a user's way to a token                  mcp_oauth.c     requests to authorization servers
 *      mcp_person.c    users: their tokens and sessions         mcp_grant.c     tokens, sealed and stored
 */
#ifndef NEXUS_AGENT_MCP_INTERNAL_H
#define NEXUS_AGENT_MCP_INTERNAL_H

#include "agent/mcp/mcp_client.h"
#include "agent/mcp/mcp_login.h"
#include "base/limits.h"
#include "mcp/mcp.h"
#include "mcp/oauth.h"
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
    bool was_refused;         /* (out) 401: not with this token */
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
    struct mcp_person *person; /* HTTP: as whom; NULL: with the operator's header fields */
    bool is_refused;           /* HTTP: the last answer was 401 */
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
    bool *was_sent;    /* of a failure: may the server have acted on it?  May be NULL */
    bool *was_refused; /* of a failure: was it a 401?  May be NULL */
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
    struct mcp_link *session; /* READY */
    struct list works;        /* of mcp_work.link: cancelled and awaited when the server ends */
    struct list persons;      /* of mcp_person.link, the one used last first */
    size_t person_count;
    struct mcp_person *lister; /* with whose token definitions are read, where that needs one */
    bool needs_login;          /* the server answers 401 to the operator */
    bool is_hurried;           /* a lister has come: the keeper need not wait */
    int64_t refused_version;   /* of the lister's token, which was answered with 401; 0: none */
    int64_t leave_until_ns;    /* while it ends: of saying so to users' sessions; 0: it does not */
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
    struct secret *seal_key;
    struct list servers;
    struct list logins; /* of pending logins, oldest first (mcp_login.c) */
    size_t login_count;
    bool is_stopped;
};
struct mcp_upstream *mcp_client_find(struct mcp_client *client, str name);
may_suspend bool mcp_client_need(struct mcp_client *client, str name, struct mcp_upstream **out,
                                 struct error *e);

/* ---- users ---- */

/* Something that waits on behalf of a server while it must not end.  UNAVAILABLE when it is ending. */
struct mcp_work {
    struct list link;
    struct context ctx;
    struct mcp_upstream *server;
};
must_check bool mcp_work_begin(struct mcp_work *work, struct context *ctx,
                               struct mcp_upstream *server, struct error *e);
void mcp_work_end(struct mcp_work *work);

/* What an authorization server gave for one user; fields are never changed, a renewal makes a new one. */
struct mcp_grant {
    struct arena *arena;
    struct secret *access, *refresh, *client_secret; /* refresh and client_secret may be NULL */
    str url;                                         /* of the MCP server that it is for */
    str issuer, resource, scope, client_id, token_endpoint, revocation_endpoint;
    enum oauth_client_auth auth;
    int64_t created_us, issued_us, expires_us; /* of the login; of the token; 0: not told */
};
struct mcp_grant *mcp_grant_create(void);
void mcp_grant_destroy(struct mcp_grant *grant); /* NULL is fine */
OWNED_DEFINE(mcp_grant)
/* *out: NULL when there is none, or none that can be opened or is for this server's URL. */
may_suspend bool mcp_grant_load(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_caller *caller, struct mcp_grant **out,
                                struct error *e);
may_suspend bool mcp_grant_save(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_caller *caller, const struct mcp_grant *grant,
                                struct error *e);
may_suspend bool mcp_grant_forget(struct mcp_upstream *server, struct context *ctx,
                                  const struct mcp_caller *caller, struct error *e);

/* One request to an authorization server (or for a document) through the egress door; redirects are answers.  *text on ctx's arena. */
struct mcp_fetch {
    enum http_method method;
    str url, body, content_type, authorization, accept;
};
may_suspend bool mcp_fetch(struct mcp_upstream *server, struct context *ctx,
                           const struct mcp_fetch *fetch, int *status, str *challenge, str *text,
                           struct error *e);
/* What is to be known before a login: resource, issuer, endpoints. */
struct mcp_discovery {
    struct oauth_server server;
    str resource, scope;
};
may_suspend bool mcp_oauth_discover(struct mcp_upstream *server, struct context *ctx,
                                    struct mcp_discovery *out, struct error *e);
may_suspend bool mcp_oauth_register(struct mcp_upstream *server, struct context *ctx,
                                    const struct oauth_server *at, str redirect_url,
                                    struct oauth_client *out, struct error *e);
/* A code, or the refresh token of `from`, for a new grant.  *is_final: it was refused for good (the login is lost). */
struct mcp_exchange {
    const struct mcp_grant *from; /* client, endpoint, resource; refresh when code is empty */
    str code, verifier, redirect_url;
};
may_suspend bool mcp_oauth_exchange(struct mcp_upstream *server, struct context *ctx,
                                    const struct mcp_exchange *exchange, struct mcp_grant **out,
                                    bool *is_final, struct error *e);
/* RFC 7009; best effort. */
may_suspend_void void mcp_oauth_revoke(struct mcp_upstream *server, struct context *ctx,
                                       const struct mcp_grant *grant);

/* A session of one user at one server. */
struct mcp_personal {
    struct mcp_link link;
    struct arena *arena;
    size_t users;
    bool is_stale; /* whoever uses it last ends it */
};
/* One user of one server: token and session.  Held (users > 0) it stays where it is. */
struct mcp_person {
    struct list link;
    struct mcp_upstream *server;
    struct arena *arena;
    struct mcp_caller caller;
    struct mcp_grant *grant; /* NULL: not logged in */
    struct mcp_personal *personal;
    int64_t version; /* counts grants */
    bool is_loaded, is_busy;
    struct condition changed;
    size_t users;
    int64_t used_ns;
};
/* Found or made, and held; LOGIN_NEEDED when the user has no token.  OVERLOADED_HERE past MCP_PERSONS_MAX. */
may_suspend bool mcp_person_hold(struct mcp_upstream *server, struct context *ctx,
                                 const struct mcp_caller *caller, struct mcp_person **out,
                                 struct error *e);
void mcp_person_let_go(struct mcp_person *person);
/* The same without a look at the token.  What follows is for who has locked it. */
may_suspend bool mcp_person_get(struct mcp_upstream *server, const struct mcp_caller *caller,
                                struct mcp_person **out, struct error *e);
may_suspend bool mcp_person_lock(struct mcp_person *person, struct context *ctx, struct error *e);
void mcp_person_unlock(struct mcp_person *person);
may_suspend bool mcp_person_load(struct mcp_person *person, struct context *ctx, struct error *e);
may_suspend_void void mcp_person_end_session(struct mcp_person *person);
struct mcp_person *mcp_person_find(struct mcp_upstream *server, const struct mcp_caller *caller);
/* A token that is good for a while: renewed when it ends soon, or when it is still the one of `refused_version` (0: none was). */
may_suspend bool mcp_person_fresh(struct mcp_person *person, struct context *ctx,
                                  int64_t refused_version, struct error *e);
/* What a login brought, or NULL for its end.  Locked. */
void mcp_person_set(struct mcp_person *person, struct mcp_grant *give_grant);
/* A session as this user, opened when there is none; mcp_person_leave gives it back.  *is_refused: set when the server answered 401. */
may_suspend bool mcp_person_session(struct mcp_person *person, struct context *ctx,
                                    struct mcp_personal **out, bool *is_refused, struct error *e);
may_suspend_void void mcp_person_leave(struct mcp_person *person, struct mcp_personal *personal);
/* Ends what was not used for MCP_PERSON_IDLE_MS, or (is_all) everything: then nobody may hold a person. */
may_suspend_void void mcp_persons_sweep(struct mcp_upstream *server, bool is_all);
bool mcp_login_needed(const struct mcp_upstream *server, const struct mcp_caller *caller,
                      const char *why, struct error *e);
/* Tells the audit log. */
may_suspend bool mcp_note(struct mcp_upstream *server, struct context *ctx,
                          const struct mcp_caller *caller, str action, str issuer, str why,
                          struct error *e);
void mcp_logins_destroy(struct mcp_client *client);
void mcp_logins_forget_server(struct mcp_client *client, const struct mcp_upstream *server);

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
