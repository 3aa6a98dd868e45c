#include "cli/warm_up.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"
#include "runtime/loop.h"

struct preparation {
    struct executor *executor;
    bool (*prepare)(struct executor *executor, const struct tool *tool, struct error *e);
    const struct tool *tool;
    bool is_ok;
    struct error error;
};

static void prepare_blocking(void *argument)
{
    struct preparation *preparation = argument;
    preparation->is_ok =
        preparation->prepare(preparation->executor, preparation->tool, &preparation->error);
}

static void prepare_tool(struct context *ctx, void *argument)
{
    struct preparation *preparation = argument;
    struct error e = {0};
    if (blocking_call(ctx, prepare_blocking, preparation, &e) && !preparation->is_ok)
        LOG_ERROR("nexus.tools", S("a tool could not be compiled"), &preparation->error,
                  LOG_STR("tool.name", preparation->tool->name));
}

static bool is_component(const struct tool *tool)
{
    for (size_t i = 0; i < tool->module_count; i++)
        if (tool->modules[i].abi == TOOL_ABI_COMPONENT)
            return true;
    return tool->module_count == 0 && tool->abi == TOOL_ABI_COMPONENT;
}

bool warm_up(struct context *ctx, enum warm_up_part part, struct registry *registry,
             struct executor *executor,
             bool (*prepare)(struct executor *executor, const struct tool *tool, struct error *e),
             struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(registry);
    size_t count = registry_count(tools);
    struct preparation *preparations = ARENA_ARRAY(ctx->arena, struct preparation, count + 1);
    struct group group;
    bool is_ok = true;
    group_init(&group, ctx);
    size_t started = 0;
    for (size_t i = 0; i < count && started < GROUP_CHILDREN_MAX && is_ok; i++) {
        const struct tool *tool = registry_at(tools, i);
        if (tool->abi == TOOL_ABI_MCP || is_component(tool) != (part == WARM_UP_COMPONENTS))
            continue;
        preparations[started] =
            (struct preparation){.executor = executor, .prepare = prepare, .tool = tool};
        is_ok = group_start(&group, "prepare_tool", prepare_tool, &preparations[started++], e);
    }
    group_wait(&group);
    registry_release(tools);
    return is_ok;
}
