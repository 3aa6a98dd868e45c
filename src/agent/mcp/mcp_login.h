/*
 * Logins at MCP servers: each user's own identity there, by OAuth.
 *
 *      begin --> authorization URL ..(the user, in a browser).. callback --finish--> grant, sealed in the store --> calls as that user
 *
 * - A login is begun by a user and ends at that user's account only: its state is 32 random bytes, good once, for MCP_LOGIN_MS, and kept
 *   with user, server, issuer and PKCE verifier in memory (a restart ends it).
 * - Whoever opens the URL gives the access, and whoever asked for it gets it: before anything is taken, the page of the callback says to
 *   which user it would go, and waits for a click (mcp_login_look).
 * - Tokens never leave this module but as Authorization to the server they are for, and to the endpoints that gave them.
 * - A grant is for one URL: a server that moves is logged in to anew.
 *
 * Thread: any loop; suspends.
 */
#ifndef NEXUS_AGENT_MCP_LOGIN_H
#define NEXUS_AGENT_MCP_LOGIN_H

#include "agent/mcp/mcp_client.h"

struct mcp_caller {
    uuid tenant_id;
    str user_id;
};
struct mcp_login {
    str server;
    struct mcp_caller caller;
    str base_url; /* of this node as browsers see it: "https://nexus.example.com" */
};
#define MCP_CALLBACK_PATH "/api/v1/mcp/oauth/callback"
#define MCP_CLIENT_DOCUMENT_PATH "/api/v1/mcp/oauth/client"

/* {"server", "authorization_url", "expires_at"} */
may_suspend bool mcp_login_begin(struct mcp_client *client, struct context *ctx,
                                 const struct mcp_login *login, str *json, struct error *e);
/* {"server", "user_id", "state": "none" | "logged_in", "is_waiting", "issuer", "scope", "logged_in_at", "expires_at", "is_renewable"} */
may_suspend bool mcp_login_show(struct mcp_client *client, struct context *ctx,
                                const struct mcp_login *login, str *json, struct error *e);
/* Forgets the tokens here and revokes them there; a session in use ends with its call.  True also when there were none. */
may_suspend bool mcp_login_forget(struct mcp_client *client, struct context *ctx,
                                  const struct mcp_login *login, struct error *e);

struct mcp_callback {
    str state, code, iss, error; /* as they came, decoded */
};
/* Whose login a callback would finish; nothing is used up.  DENIED as below. */
may_suspend bool mcp_login_look(struct mcp_client *client, struct context *ctx,
                                const struct mcp_callback *callback, str *server, str *user_id,
                                struct error *e);
/* DENIED for a state that is unknown, used or too old, and for an issuer that was not asked. */
may_suspend bool mcp_login_finish(struct mcp_client *client, struct context *ctx,
                                  const struct mcp_callback *callback, str *server, str *user_id,
                                  struct error *e);

/* The key of a file that only its owner may read, made when there is none.  Blocking. */
must_check bool mcp_key_open(str path, struct secret **out, struct error *e);

#endif
