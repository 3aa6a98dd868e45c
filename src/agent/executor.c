#include "agent/executor.h"

#include "base/ensure.h"

bool executor_execute(struct executor *executor, struct context *ctx,
                      const struct tool_request *request, struct tool_result *out, struct error *e)
{
    ensure(request->tool != NULL);
    *out = (struct tool_result){0};
    return executor->ops->execute(executor, ctx, request, out, e);
}

void executor_destroy(struct executor *executor)
{
    if (executor)
        executor->ops->destroy(executor);
}
