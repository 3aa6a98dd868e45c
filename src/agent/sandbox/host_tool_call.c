#include "agent/sandbox/host_tool_call.h"

#include "base/arena.h"
#include "base/limits.h"

may_suspend static bool run(void *owner, struct context *ctx, const struct tool_request *request,
                            str input_json, str *output_json, struct error *e)
{
    (void) owner;
    const struct json *root;
    str name;
    if (!json_parse(ctx->arena, input_json, (struct json_limits){0}, &root, e))
        return error_wrap(e, "tool_call");
    const struct json *input = json_get(root, S("input"));
    if (!json_to_str(json_get(root, S("name")), &name) || json_type(input) != JSON_OBJECT)
        return error_set(e, REASON_INVALID,
                         "tool_call takes {\"name\": a tool's name, \"input\": an object}");
    if (!request->calls)
        return error_set(e, REASON_PERMISSION,
                         "tool " STR_FMT " may not call " STR_FMT
                         " here: tools call tools only one deep",
                         STR_ARG(request->tool->name), STR_ARG(str_cut_utf8(name, 60)));
    return request->calls->call(request->calls->owner, ctx, name, json_print(ctx->arena, input),
                                output_json, e);
}

struct host_call host_tool_call(void)
{
    return (struct host_call){.name = "tool_call", .run = run};
}
