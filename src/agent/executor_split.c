#include "agent/executor_split.h"

#include "base/ensure.h"
#include <stdlib.h>

struct executor_split {
    struct executor base;
    struct executor *sandbox, *mcp;
};

may_suspend static bool split_execute(struct executor *executor, struct context *ctx,
                                      const struct tool_request *request, struct tool_result *out,
                                      struct error *e)
{
    struct executor_split *split = CONTAINER_OF(executor, struct executor_split, base);
    if (request->tool->abi != TOOL_ABI_MCP)
        return executor_execute(split->sandbox, ctx, request, out, e);
    if (!split->mcp)
        return error_set(e, REASON_UNAVAILABLE,
                         "tool " STR_FMT " belongs to MCP server " STR_FMT
                         ", but this node talks to none (configure mcp.servers)",
                         STR_ARG(request->tool->name), STR_ARG(request->tool->source_name));
    return executor_execute(split->mcp, ctx, request, out, e);
}

static void split_destroy(struct executor *executor)
{
    struct executor_split *split = CONTAINER_OF(executor, struct executor_split, base);
    executor_destroy(split->mcp);
    executor_destroy(split->sandbox);
    free(split);
}

static const struct executor_ops split_ops = {"split", split_execute, split_destroy};

struct executor *executor_split_create(struct executor *give_sandbox, struct executor *give_mcp)
{
    struct executor_split *split = calloc(1, sizeof *split);
    ensure(split != NULL);
    *split = (struct executor_split){{&split_ops}, give_sandbox, give_mcp};
    return &split->base;
}
