#include "agent/sandbox/host_clock.h"

may_suspend static bool run(void *owner, struct context *ctx, const struct tool_request *request,
                            str input_json, str *output_json, struct error *e)
{
    (void) owner, (void) request, (void) input_json, (void) e;
    *output_json = str_printf(ctx->arena, "{\"unix_us\":%lld}", (long long) context_now_us(ctx));
    return true;
}

struct host_call host_clock(void)
{
    return (struct host_call){.name = "clock", .run = run};
}
