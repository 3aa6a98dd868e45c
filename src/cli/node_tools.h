/*
 * Node tools: the tool side of a node: registry, what guests can reach, the executors in front of one another.
 *
 *      open (folder of tools) --> start (loops run) --> connect (MCP servers) --> ... --> disconnect --> close (loops ended)
 *
 *      executor = monitor( guard( split( sandbox here or in a process of its own | MCP client ) ) )
 *
 * Thread: the main thread.
 */
#ifndef NEXUS_CLI_NODE_TOOLS_H
#define NEXUS_CLI_NODE_TOOLS_H

#include "agent/executor_guard.h"
#include "agent/executor_monitor.h"
#include "agent/mcp/mcp_client.h"
#include "agent/sandbox/host_files.h"
#include "agent/sandbox/host_http.h"
#include "cli/agent_process.h"
#include "cli/node_loops.h"
#include "cli/platform.h"

enum { NODE_HOST_CALLS_MAX = 8 };

struct node_tools {
    struct registry *registry;
    struct host_http http;
    struct host_files files;
    struct host_call host_calls[NODE_HOST_CALLS_MAX];
    size_t host_call_count;
    struct agent_executor sandbox;
    struct mcp_client *mcp;
    struct executor_guard *guard;
    struct executor_monitor *monitor;
    struct executor *executor; /* what is called; NULL until started */
};

/* Reads the folder of tools and fills info's counts. */
must_check bool node_tools_open(struct node_tools *tools, const struct config *config,
                                struct arena *arena, struct platform_info *info, struct error *e);
/* One more thing that guests may call, before the start. */
void node_tools_add_host_call(struct node_tools *tools, struct host_call call);
struct node_tools_parts {
    const struct config *config;
    struct node_loops *node;
    struct store *store;
    struct metrics *metrics;
    struct arena *arena;
    str version; /* of this program */
};
must_check bool node_tools_start(struct node_tools *tools, const struct node_tools_parts *parts,
                                 struct error *e);
/* The servers that the configuration names, at the start and after a reload. */
may_suspend bool node_tools_connect(struct node_tools *tools, struct context *ctx,
                                    const struct config *config, struct error *e);
may_suspend bool node_tools_disconnect(struct node_tools *tools, struct context *ctx,
                                       struct error *e);
/* Once no call is in work and the loops have ended.  What was not started is fine. */
void node_tools_close(struct node_tools *tools);

#endif
