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

bool warm_up(struct context *ctx, struct registry *registry, struct executor *executor,
             bool (*prepare)(struct executor *executor, const struct tool *tool, struct error *e),
             struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(registry);
    size_t count = registry_count(tools);
    struct preparation *preparations = ARENA_ARRAY(ctx->arena, struct preparation, count + 1);
    struct group group;
    bool is_ok = true;
    group_init(&group, ctx);
    for (size_t i = 0; i < count && i < GROUP_CHILDREN_MAX && is_ok; i++) {
        preparations[i] = (struct preparation){
            .executor = executor, .prepare = prepare, .tool = registry_at(tools, i)};
        is_ok = group_start(&group, "prepare_tool", prepare_tool, &preparations[i], e);
    }
    group_wait(&group);
    registry_release(tools);
    return is_ok;
}
