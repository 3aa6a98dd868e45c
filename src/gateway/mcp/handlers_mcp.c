/* Tools of other MCP servers: what there is, what waits for approval, and the decision; users' logins there. */
#include "agent/mcp/mcp_login.h"
#include "base/arena.h"
#include "gateway/gateway_internal.h"
#include "gateway/mcp/mcp_internal.h"
#include "mcp/oauth.h"
#include "orchestrator/policy/audit.h"

static bool client_of(struct api_call *call, struct mcp_client **out, struct error *e)
{
    *out = call->gateway->options.mcp_client;
    return *out ||
           error_set(e, REASON_NOT_FOUND, "this node uses no MCP servers (configure mcp.servers)");
}

bool route_mcp_upstream_list(struct api_call *call, struct error *e)
{
    str json = S("{\"items\":[],\"next_cursor\":null}");
    struct mcp_client *client = call->gateway->options.mcp_client;
    if (client && !mcp_client_list(client, call->ctx, &json, e))
        return false;
    reply_json(call, 200, json);
    return true;
}

bool route_mcp_upstream_get(struct api_call *call, struct error *e)
{
    str name, json;
    struct mcp_client *client;
    if (!param_text(call, 0, &name, e) || !client_of(call, &client, e) ||
        !mcp_client_show(client, call->ctx, name, &json, e))
        return false;
    reply_json(call, 200, json);
    return true;
}

static bool reply_tool(struct api_call *call, struct mcp_client *client, str server, str tool,
                       struct error *e)
{
    str json;
    if (!mcp_client_diff(client, call->ctx, server, tool, &json, e))
        return false;
    reply_json(call, 200, json);
    return true;
}

bool route_mcp_upstream_tool(struct api_call *call, struct error *e)
{
    str server, tool;
    struct mcp_client *client;
    return param_text(call, 0, &server, e) && param_text(call, 1, &tool, e) &&
           client_of(call, &client, e) && reply_tool(call, client, server, tool, e);
}

/* ---- decisions ---- */

struct audited {
    struct api_call *call;
    const struct mcp_decision *decision;
    str action;
};

/* On the client's loop, before the decision is stored: nothing is offered that the audit log does not know. */
may_suspend static bool write_audit(void *owner, struct context *ctx, struct error *e)
{
    struct audited *audited = owner;
    struct gateway *gateway = audited->call->gateway;
    struct strbuf details;
    struct json_writer w;
    struct batch batch;
    strbuf_init(&details, ctx->arena, 4096);
    json_writer_init(&w, &details);
    json_object_begin(&w);
    json_put_str(&w, S("tool"), audited->decision->tool);
    json_put_str(&w, S("digest"), audited->decision->digest);
    json_object_end(&w);
    batch_init(&batch, ctx->arena, audited->call->principal.tenant_id);
    audit_add(&batch, gateway->clock, gateway->random, &audited->call->principal,
              &(struct audit_entry){.action = audited->action,
                                    .resource_type = S("mcp_server"),
                                    .resource_id = audited->decision->server,
                                    .details = strbuf_str(&details)});
    return store_commit(gateway->store, ctx, &batch, e);
}

static bool read_decision(struct api_call *call, struct mcp_client **client,
                          struct mcp_decision *out, struct audited *audited, struct error *e)
{
    *audited = (struct audited){call, out, audited->action};
    out->user_id = call->principal.user_id;
    out->before = write_audit;
    out->owner = audited;
    return param_text(call, 0, &out->server, e) && param_text(call, 1, &out->tool, e) &&
           client_of(call, client, e);
}

bool route_mcp_upstream_approve(struct api_call *call, struct error *e)
{
    struct mcp_client *client;
    struct mcp_decision decision = {0};
    struct audited audited = {.action = S("mcp.tool.approve")};
    return read_decision(call, &client, &decision, &audited, e) &&
           json_need_str(call->json, S("digest"), &decision.digest, e) &&
           mcp_client_approve(client, call->ctx, &decision, e) &&
           reply_tool(call, client, decision.server, decision.tool, e);
}

bool route_mcp_upstream_remove(struct api_call *call, struct error *e)
{
    struct mcp_client *client;
    struct mcp_decision decision = {0};
    struct audited audited = {.action = S("mcp.tool.remove")};
    if (!read_decision(call, &client, &decision, &audited, e) ||
        !mcp_client_remove(client, call->ctx, &decision, e))
        return false;
    reply_empty(call, 204);
    return true;
}

/* ---- logins ---- */

static bool read_login(struct api_call *call, struct mcp_client **client, struct mcp_login *out,
                       struct error *e)
{
    out->caller = (struct mcp_caller){call->principal.tenant_id, call->principal.user_id};
    out->base_url = mcp_base_url(call);
    return param_text(call, 0, &out->server, e) && client_of(call, client, e);
}

bool route_mcp_login_begin(struct api_call *call, struct error *e)
{
    str json;
    struct mcp_client *client;
    struct mcp_login login = {0};
    if (!read_login(call, &client, &login, e) ||
        !mcp_login_begin(client, call->ctx, &login, &json, e))
        return false;
    /* The URL proves who began: it is kept by nobody on the way. */
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_json(call, 201, json);
    return true;
}

bool route_mcp_login_get(struct api_call *call, struct error *e)
{
    str json;
    struct mcp_client *client;
    struct mcp_login login = {0};
    if (!read_login(call, &client, &login, e) ||
        !mcp_login_show(client, call->ctx, &login, &json, e))
        return false;
    reply_json(call, 200, json);
    return true;
}

bool route_mcp_login_forget(struct api_call *call, struct error *e)
{
    struct mcp_client *client;
    struct mcp_login login = {0};
    if (!read_login(call, &client, &login, e) || !mcp_login_forget(client, call->ctx, &login, e))
        return false;
    reply_empty(call, 204);
    return true;
}

static str html_escaped(struct arena *arena, str text)
{
    struct strbuf out;
    strbuf_init(&out, arena, 64u << 10);
    for (size_t i = 0; i < text.len; i++)
        switch (text.ptr[i]) {
        case '&': strbuf_add(&out, S("&amp;")); break;
        case '<': strbuf_add(&out, S("&lt;")); break;
        case '>': strbuf_add(&out, S("&gt;")); break;
        case '"': strbuf_add(&out, S("&quot;")); break;
        default: strbuf_add_char(&out, text.ptr[i]);
        }
    return strbuf_str(&out);
}

/* For a browser: no script, no other host, nothing of the address it came by.  `more` is HTML. */
static void reply_page_of_login(struct api_call *call, int status, str title, str text, str more)
{
    struct arena *arena = call->ctx->arena;
    title = html_escaped(arena, title);
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_header(call, S("Referrer-Policy"), S("no-referrer"));
    reply_header(call, S("Content-Security-Policy"),
                 S("default-src 'none'; form-action 'self'; frame-ancestors 'none'"));
    reply_send(call, status, S("text/html; charset=utf-8"),
               str_printf(arena,
                          "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                          "<title>" STR_FMT "</title></head>\n<body><main><h1>" STR_FMT
                          "</h1>\n<p>" STR_FMT "</p>" STR_FMT "</main></body></html>\n",
                          STR_ARG(title), STR_ARG(title), STR_ARG(html_escaped(arena, text)),
                          STR_ARG(more)));
}

static void reply_not_logged_in(struct api_call *call, const struct error *why)
{
    reply_page_of_login(call, why->code == ERROR_DENIED ? 400 : error_http_status(why->reason),
                        S("Not logged in"), str_printf(call->ctx->arena, "%s.", why->message),
                        STR_NONE);
}

static void put_hidden(struct strbuf *form, struct arena *arena, str name, str value)
{
    strbuf_add(form,
               str_printf(arena,
                          "<input type=\"hidden\" name=\"" STR_FMT "\" value=\"" STR_FMT "\">",
                          STR_ARG(name), STR_ARG(html_escaped(arena, value))));
}

/* Whoever sent the browser here may be another than who sits before it: that person is asked. */
static void reply_question(struct api_call *call, const struct mcp_callback *callback, str server,
                           str user_id)
{
    struct strbuf form;
    struct arena *arena = call->ctx->arena;
    strbuf_init(&form, arena, 256u << 10);
    strbuf_add(&form, S("<form method=\"get\">"));
    put_hidden(&form, arena, S("state"), callback->state);
    put_hidden(&form, arena, S("code"), callback->code);
    put_hidden(&form, arena, S("iss"), callback->iss);
    put_hidden(&form, arena, S("error"), callback->error);
    put_hidden(&form, arena, S("confirm"), S("yes"));
    strbuf_add(&form, S("<button type=\"submit\">That is me: log in</button></form>"));
    reply_page_of_login(
        call, 200, S("One more step"),
        str_printf(arena,
                   "With this the user " STR_FMT " of Nexus can act as you at MCP server " STR_FMT
                   ". If that is not you, close this page: somebody else sent you here.",
                   STR_ARG(user_id), STR_ARG(server)),
        strbuf_str(&form));
}

/* Where authorization servers send a user's browser: the state proves which login it is. */
bool route_mcp_login_callback(struct api_call *call, struct error *e)
{
    str server, user_id;
    struct error failure;
    struct mcp_client *client;
    struct mcp_callback callback = {.state = query_text(call, S("state")),
                                    .code = query_text(call, S("code")),
                                    .iss = query_text(call, S("iss")),
                                    .error = query_text(call, S("error"))};
    bool is_confirmed = str_equal(query_text(call, S("confirm")), S("yes"));
    if (!client_of(call, &client, e))
        return false;
    if (!is_confirmed && mcp_login_look(client, call->ctx, &callback, &server, &user_id, &failure))
        reply_question(call, &callback, server, user_id);
    else if (is_confirmed &&
             mcp_login_finish(client, call->ctx, &callback, &server, &user_id, &failure))
        reply_page_of_login(call, 200, S("Logged in"),
                            str_printf(call->ctx->arena,
                                       "Nexus now uses MCP server " STR_FMT
                                       " as you, for its user " STR_FMT
                                       ". You can close this page.",
                                       STR_ARG(server), STR_ARG(user_id)),
                            STR_NONE);
    else
        reply_not_logged_in(call, &failure);
    return true;
}

/* This node as a client of authorization servers that look clients up (Client ID Metadata Documents). */
bool route_mcp_client_document(struct api_call *call, struct error *e)
{
    (void) e;
    struct arena *arena = call->ctx->arena;
    str base = mcp_base_url(call);
    reply_json(call, 200,
               oauth_client_document(
                   arena, str_printf(arena, STR_FMT MCP_CLIENT_DOCUMENT_PATH, STR_ARG(base)),
                   str_printf(arena, STR_FMT MCP_CALLBACK_PATH, STR_ARG(base)), STR_NONE));
    return true;
}
