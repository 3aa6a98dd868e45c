/* Tools of other MCP servers: what there is, what waits for approval, and the decision. */
#include "agent/mcp_client.h"
#include "base/arena.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/audit.h"

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
