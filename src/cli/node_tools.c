#include "cli/node_tools.h"

#include "agent/executor_split.h"
#include "agent/mcp/mcp_login.h"
#include "agent/sandbox/host_clock.h"
#include "agent/sandbox/host_tool_call.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "cli/config/mcp_servers.h"
#include "cli/on_loop.h"
#include "cli/shipped.h"
#include "orchestrator/policy/audit.h"
#include <string.h>
#include <sys/stat.h>

enum { COUNT_TIMEOUT_MS = 60 * 1000 };

/* ---- registry ---- */

bool node_tools_open(struct node_tools *tools, const struct config *config, struct arena *arena,
                     struct platform_info *info, struct error *e)
{
    struct registry_options options = {
        .tool_dir = config->tool_dir,
        .tool_config = config->document.root ? &config->document : NULL,
    };
    if (str_is_empty(options.tool_dir) &&
        !shipped_find(arena, "toolbox", "tools.dir", &options.tool_dir, e))
        return false;
    if (!registry_create(&options, &tools->registry, e))
        return false;
    const struct registry_snapshot *snapshot = registry_acquire(tools->registry);
    info->tool_count = registry_count(snapshot);
    info->tool_error_count = registry_error_count(snapshot);
    for (size_t i = 0; i < info->tool_error_count; i++)
        LOG_WARN("nexus.tools", S("a tool was left out"),
                 LOG_STR("error.message", registry_error_at(snapshot, i)));
    registry_release(snapshot);
    if (info->tool_count == 0)
        LOG_WARN("nexus.tools", S("there are no tools; build them (make) or set tools.dir"));
    return true;
}

/* ---- executors ---- */

void node_tools_add_host_call(struct node_tools *tools, struct host_call call)
{
    ensure(tools->host_call_count < NODE_HOST_CALLS_MAX && !tools->executor);
    tools->host_calls[tools->host_call_count++] = call;
}

static struct http_client *client_of_loop(void *owner, struct loop *loop)
{
    (void) loop; /* it is the current one */
    return node_loops_client(owner);
}

static void add_host_calls(struct node_tools *tools, const struct node_tools_parts *parts)
{
    const struct config *config = parts->config;
    tools->http = (struct host_http){.client = client_of_loop, .owner = parts->node};
    tools->files = (struct host_files){
        .data_dir = str_copy(parts->arena, config->data_dir),
        .limits = {.bytes_max = config->session_workspace_bytes,
                   .entries_max = (size_t) config->session_workspace_files},
    };
    node_tools_add_host_call(tools, host_clock());
    node_tools_add_host_call(tools, host_http(&tools->http));
    node_tools_add_host_call(tools, host_files(&tools->files));
    node_tools_add_host_call(tools, host_tool_call());
}

struct count {
    struct store *store;
    size_t tenants;
};

static bool count_tenants(struct context *ctx, void *argument, struct error *e)
{
    struct count *count = argument;
    return agent_count_tenants(count->store, ctx, &count->tenants, e);
}

static bool start_sandbox(struct node_tools *tools, const struct node_tools_parts *parts,
                          struct error *e)
{
    const struct config *config = parts->config;
    struct count count = {.store = parts->store};
    if (!on_loop_call(parts->node->loops[0], "tenants", COUNT_TIMEOUT_MS, count_tenants, &count, e))
        return false;
    str cache;
    if (!folder_for_cache(parts->arena, config->cache_dir, config->data_dir, &cache, e))
        return false;
    struct agent_place place = {.process = config->sandbox_process,
                                .roles = config->roles,
                                .tenant_count = count.tenants,
                                .cache_dir = cache,
                                .host_calls = tools->host_calls,
                                .host_call_count = tools->host_call_count};
    return agent_executor_create(&place, &tools->sandbox, e);
}

/* ---- MCP client ---- */

/* What a login at an MCP server begins and ends: no secret is in it. */
may_suspend static bool note_login(void *owner, struct context *ctx,
                                   const struct mcp_login_note *note, struct error *e)
{
    struct strbuf details;
    struct json_writer w;
    struct batch batch;
    struct principal principal = {
        .tenant_id = note->tenant_id, .user_id = note->user_id, .caller_id = note->user_id};
    strbuf_init(&details, ctx->arena, 8192);
    json_writer_init(&w, &details);
    json_object_begin(&w);
    json_put_str(&w, S("issuer"), note->issuer);
    if (!str_is_empty(note->why))
        json_put_str(&w, S("reason"), note->why);
    json_object_end(&w);
    batch_init(&batch, ctx->arena, note->tenant_id);
    audit_add(&batch, clock_system(), random_system(), &principal,
              &(struct audit_entry){.action = note->action,
                                    .resource_type = S("mcp_server"),
                                    .resource_id = note->server,
                                    .details = strbuf_str(&details)});
    return store_commit(owner, ctx, &batch, e);
}

static bool start_mcp(struct node_tools *tools, const struct node_tools_parts *parts,
                      struct error *e)
{
    OWNED(secret) key = NULL;
    str path = str_printf(parts->arena, STR_FMT "/mcp.key", STR_ARG(parts->config->data_dir));
    if (!mcp_key_open(path, &key, e))
        return false;
    tools->mcp = mcp_client_create(&(struct mcp_client_options){.loop = parts->node->loops[0],
                                                                .http_client = client_of_loop,
                                                                .http_owner = parts->node,
                                                                .registry = tools->registry,
                                                                .store = parts->store,
                                                                .clock = clock_system(),
                                                                .random = random_system(),
                                                                .version = parts->version,
                                                                .seal_key = key,
                                                                .note = note_login,
                                                                .note_owner = parts->store});
    return true;
}

bool node_tools_start(struct node_tools *tools, const struct node_tools_parts *parts,
                      struct error *e)
{
    add_host_calls(tools, parts);
    if (!start_sandbox(tools, parts, e))
        return false;
    if (!start_mcp(tools, parts, e))
        return false;
    const struct config *config = parts->config;
    tools->guard = executor_guard_create(&(struct executor_guard_options){
        .give_next =
            executor_split_create(tools->sandbox.executor, mcp_client_executor(tools->mcp)),
        .clock = clock_system(),
        .random = random_system(),
        .metrics = parts->metrics,
        .places = (int32_t) config->resilience.tool_places,
        .server_places = (int32_t) config->resilience.server_places,
        .queue_max = (int32_t) config->resilience.tool_queue,
        .wait_ms = config->resilience.tool_wait_ms});
    tools->monitor = executor_monitor_create(
        &(struct executor_monitor_options){.give_next = executor_guard_executor(tools->guard),
                                           .clock = clock_system(),
                                           .metrics = parts->metrics});
    tools->executor = executor_monitor_executor(tools->monitor);
    return true;
}

void node_tools_close(struct node_tools *tools)
{
    executor_destroy(tools->executor); /* and all behind it */
    if (tools->mcp)
        mcp_client_destroy(tools->mcp);
    if (tools->registry)
        registry_destroy(tools->registry);
    memset(tools, 0, sizeof *tools);
}

/* ---- MCP servers ---- */

bool node_tools_connect(struct node_tools *tools, struct context *ctx, const struct config *config,
                        struct error *e)
{
    OWNED(mcp_servers) servers = NULL;
    return mcp_servers_read(config, config_environment, &servers, e) &&
           mcp_client_configure(tools->mcp, ctx, servers->items, servers->count, e);
}

bool node_tools_disconnect(struct node_tools *tools, struct context *ctx, struct error *e)
{
    return mcp_client_stop(tools->mcp, ctx, e);
}
