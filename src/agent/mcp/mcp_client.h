/*
 * MCP client: tools of other servers, under the same rules as our own.
 *
 *      configuration --> server: keeper (one coroutine each) --connect, negotiate, list--> definitions --approved?--> registry
 *                                                                                                   '--else--> quarantine
 *      executor(tool) --hop to the client's loop--> session --tools/call--> server --> content blocks --> one JSON output
 *
 * - A tool T of server S is the Nexus tool S__T at version 1.0.0+<digest of its definition>.
 * - A definition is offered only while its digest is the approved one.  A new or changed one waits for a person (or, for servers with
 *   `approve: first_use`, only a changed one does).  Approvals are durable (TABLE_MCP_TOOLS).
 * - What a server says of itself (annotations) grants nothing: purity, idempotency and category are the operator's.
 * - A server that is lost is connected to again with back-off; meanwhile its tools stay, and calls are UNAVAILABLE with the reason.
 * - Nothing that a server asks of its client (roots, sampling, elicitation) is given; it is told so.
 * - Everything that a server can make large is bounded: MCP_* in limits.h.
 *
 * Thread: servers, sessions and definitions belong to one loop (options.loop); every function marked so may be called from a coroutine of
 * any loop and hops there.
 */
#ifndef NEXUS_AGENT_MCP_CLIENT_H
#define NEXUS_AGENT_MCP_CLIENT_H

#include "agent/executor.h"
#include "agent/tool/registry.h"
#include "base/secret.h"
#include "store/store.h"

struct loop;
struct http_client;

struct mcp_client;

struct mcp_secret_text { /* a header field, a variable of the environment */
    str name;
    struct secret *value;
};
/* Users' own identity at the server (mcp_login.h). */
struct mcp_oauth_config {
    bool is_per_user;             /* the rest counts only then */
    str client_id;                /* empty: the client's metadata document, or registration */
    struct secret *client_secret; /* NULL: a public client */
    struct str_list scopes;       /* none: those that the server asks for */
    str redirect_url;             /* empty: this node's own callback */
    str issuer;        /* the only authorization server; empty: the first that the server names */
    bool may_register; /* RFC 7591, where nothing else is possible */
};
struct mcp_upstream_config {
    str name;                /* [a-z0-9][a-z0-9-]{0,31} */
    struct str_list command; /* stdio: the program and its arguments */
    struct mcp_secret_text *environment;
    size_t environment_count;
    str directory; /* of the process; empty: ours */
    str url;       /* streamable HTTP; one of command and url */
    struct mcp_secret_text *headers;
    size_t header_count;
    struct str_list allowed_ips; /* intranet addresses that may be dialled */
    struct str_list tools;       /* patterns with "*"; none: all */
    struct str_list pure,
        idempotent;     /* the operator's word on tools, by their names at the server */
    str category;       /* empty: "mcp" */
    bool is_first_use;  /* the first definition of a tool is trusted */
    int64_t timeout_ms; /* of a call; 0: MCP_CALL_MS */
    struct mcp_oauth_config oauth;
};
/* A login, a logout, the end of a login: for the audit log. */
struct mcp_login_note {
    uuid tenant_id;
    str user_id, server;
    str action; /* "mcp.login", "mcp.logout", "mcp.login.lost" */
    str issuer, why;
};
struct mcp_client_options {
    struct loop *loop;
    struct http_client *(*http_client)(void *owner, struct loop *loop); /* of that loop */
    void *http_owner;
    struct registry *registry;
    struct store *store;
    struct clock *clock;
    struct random *random;
    str version; /* of this program, told to servers */
    /* 32 bytes that seal users' tokens (mcp_key_open); NULL: nobody can log in.  Copied. */
    const struct secret *seal_key;
    /* Before what it tells of is stored.  May be NULL. */
    may_suspend bool (*note)(void *owner, struct context *ctx, const struct mcp_login_note *note,
                             struct error *e);
    void *note_owner;
};
struct mcp_client *mcp_client_create(const struct mcp_client_options *options);
/* After mcp_client_stop, and after the executor. */
void mcp_client_destroy(struct mcp_client *client);

/* The servers that there are to be: others are stopped (their tools go), changed ones begin anew.  Everything is copied.  Any loop. */
may_suspend bool mcp_client_configure(struct mcp_client *client, struct context *ctx,
                                      const struct mcp_upstream_config *servers, size_t count,
                                      struct error *e);
/* Ends all sessions and processes; false when ctx ended first.  Any loop. */
may_suspend bool mcp_client_stop(struct mcp_client *client, struct context *ctx, struct error *e);

/* Executor of TOOL_ABI_MCP; the client stays the caller's and must outlive it. */
struct executor *mcp_client_executor(struct mcp_client *client);

/* ---- for people.  JSON text on ctx's arena; NOT_FOUND names what there is.  Any loop ---- */

/* {"items": [server...]}: state, why, revision, how many tools are offered and quarantined. */
may_suspend bool mcp_client_list(struct mcp_client *client, struct context *ctx, str *json,
                                 struct error *e);
/* One server with all its tools. */
may_suspend bool mcp_client_show(struct mcp_client *client, struct context *ctx, str server,
                                 str *json, struct error *e);
/* One tool: approved definition, pending one, and what differs, member by member; `renamed_from` when an approved tool that is gone was
   the same but for its name. */
may_suspend bool mcp_client_diff(struct mcp_client *client, struct context *ctx, str server,
                                 str tool, str *json, struct error *e);

struct mcp_decision {
    str server, tool; /* the tool's name at the server, or its Nexus name */
    str digest; /* hex, of the pending definition, as it was shown; STALE_DIGEST when it is another one by now */
    str user_id;
    /* Before anything is stored, on the client's loop: writes the audit entry.  May be NULL. */
    may_suspend bool (*before)(void *owner, struct context *ctx, struct error *e);
    void *owner;
};
may_suspend bool mcp_client_approve(struct mcp_client *client, struct context *ctx,
                                    const struct mcp_decision *decision, struct error *e);
/* Takes an approval back: the tool is quarantined (digest is not looked at), or forgotten when the server has it no more. */
may_suspend bool mcp_client_remove(struct mcp_client *client, struct context *ctx,
                                   const struct mcp_decision *decision, struct error *e);

bool mcp_upstream_name_is_valid(str name);

#endif
