/* What tools cost: the figures and profiles that the executor's monitor keeps. */
#include "agent/executor_monitor.h"
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"

static bool find_monitor(struct api_call *call, const struct executor_monitor **out,
                         struct error *e)
{
    *out = call->gateway->options.monitor;
    return *out ||
           error_set(e, REASON_UNSUPPORTED, "this node runs no tools, so it has no figures");
}

bool route_tool_top(struct api_call *call, struct error *e)
{
    const struct executor_monitor *monitor;
    struct reply_writer writer;
    str by = query_text(call, S("by"));
    enum monitor_order order;
    int64_t count_max = MONITOR_TOP_DEFAULT;
    if (!monitor_order_find(by, &order)) /* it is not given */
        order = MONITOR_BY_CPU;
    if (!query_i64(call, S("limit"), 1, MONITOR_TOP_MAX, &count_max, e) ||
        !find_monitor(call, &monitor, e))
        return false;
    executor_monitor_write_json(monitor, call->principal.tenant_id, order, (size_t) count_max,
                                reply_writer_init(&writer, call));
    return reply_writer_send(&writer, call, 200, e);
}

bool route_tool_profile(struct api_call *call, struct error *e)
{
    const struct executor_monitor *monitor;
    struct strbuf text;
    str name;
    if (!param_text(call, 0, &name, e) || !find_monitor(call, &monitor, e))
        return false;
    const struct registry_snapshot *tools =
        registry_acquire(orchestrator_parts(call->gateway->orchestrator)->registry);
    struct registry_question question = {.tenant_id = call->principal.tenant_id,
                                         .name = name,
                                         .range = query_text(call, S("version"))};
    const struct tool *tool = registry_resolve(tools, &question);
    strbuf_init(&text, call->ctx->arena, MONITOR_PROFILE_TEXT_BYTES_MAX);
    bool has_profile = tool && executor_monitor_write_profile(monitor, tool, &text);
    registry_release(tools);
    if (!tool)
        return error_set(e, REASON_NOT_FOUND,
                         "there is no tool \"" STR_FMT "\" at that version; see GET /api/v1/tools",
                         STR_ARG(str_cut_utf8(name, 64)));
    if (!has_profile)
        return error_set(e, REASON_NOT_FOUND,
                         "tool \"" STR_FMT "\" has no profile: since this node started, none of "
                         "its calls took %d ms of CPU time",
                         STR_ARG(str_cut_utf8(name, 64)), SANDBOX_PROFILE_AFTER_MS);
    reply_send(call, 200, S("text/plain; charset=utf-8"), strbuf_str(&text));
    return true;
}

void tool_usage_write(struct api_call *call, const struct tool *tool, struct json_writer *w)
{
    const struct executor_monitor *monitor = call->gateway->options.monitor;
    if (!monitor || call->principal.level < ROLE_LEVEL_OPERATOR)
        return;
    json_key(w, S("usage"));
    executor_monitor_write_tool(monitor, tool, call->principal.tenant_id, w);
}
