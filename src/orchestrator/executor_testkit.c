#include "orchestrator/executor_testkit_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include <stdio.h>
#include <stdlib.h>

/* What its guest calls; a refusal does not end it. */
static void call_others(struct fake_tool *tool, struct context *ctx,
                        const struct tool_request *request)
{
    for (size_t i = 0; i < ARRAY_COUNT(tool->calls) && tool->calls[i]; i++) {
        struct error refusal;
        str answer;
        ensure(request->calls != NULL);
        bool ok = request->calls->call(request->calls->owner, ctx, str_from_cstr(tool->calls[i]),
                                       S("{}"), &answer, &refusal);
        if (ok)
            snprintf(tool->heard, sizeof tool->heard, STR_FMT, STR_ARG(answer));
        else
            snprintf(tool->heard, sizeof tool->heard, "%s", refusal.message);
    }
}

static bool execute(struct executor *base, struct context *ctx, const struct tool_request *request,
                    struct tool_result *out, struct error *e)
{
    struct testkit *kit = ((struct fake_executor *) base)->kit;
    char name[64];
    snprintf(name, sizeof name, STR_FMT, STR_ARG(request->tool->name));
    struct fake_tool *tool = testkit_tool(kit, name);
    int64_t started_ns = context_now_ns(ctx);
    tool->begun++;
    kit->tool_input = str_copy(kit->arena, request->input);
    kit->tool_user = str_copy(kit->arena, request->user_id);
    kit->tool_effect_key = str_copy(kit->arena, request->effect_key);
    kit->tool_files = request->file_name_count;
    call_others(tool, ctx, request);
    bool ok = context_sleep_ms(ctx, tool->delay_ms, e);
    if (ok)
        tool->effects++;
    ok = ok && context_sleep_ms(ctx, tool->after_ms, e);
    out->latency_us = (context_now_ns(ctx) - started_ns) / 1000;
    out->latency_ms = out->latency_us / 1000;
    out->fuel = 7;
    if (ok && tool->failure != REASON_NONE)
        return error_set(e, tool->failure, "the fake tool fails");
    out->output = str_copy(ctx->arena, str_from_cstr(tool->output));
    return ok;
}

static void destroy_executor(struct executor *executor)
{
    free(executor);
}

const struct executor_ops fake_executor_ops = {"fake", execute, destroy_executor};
