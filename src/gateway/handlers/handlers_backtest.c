/* What would have been: a candidate policy, price list, router or filter over the recorded traffic. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/replay/backtest.h"
#include "runtime/loop.h"

struct opening {
    const struct json *request;
    int64_t now_us;
    struct backtest *backtest;
    bool is_ok;
    struct error failure;
};

static void open_now(void *argument)
{
    struct opening *opening = argument;
    opening->is_ok =
        backtest_open(opening->request, opening->now_us, &opening->backtest, &opening->failure);
}

static void close_now(void *argument)
{
    backtest_close(argument);
}

bool route_backtest(struct api_call *call, struct error *e)
{
    struct opening *opening = ARENA_NEW(call->ctx->arena, struct opening);
    str report;
    opening->request = call->json;
    opening->now_us = clock_unix_us(call->gateway->clock);
    bool is_done = blocking_call(call->ctx, open_now, opening, e);
    if (is_done && !opening->is_ok)
        return error_copy(e, &opening->failure);
    bool ok = is_done && backtest_run(opening->backtest, call->gateway->orchestrator, call->ctx,
                                      &call->principal, &report, e);
    struct error ignored = {0};
    struct context shield;
    context_init(&shield, call->ctx->scheduler, call->ctx->arena, DEADLINE_NONE);
    if (opening->backtest && !blocking_call(&shield, close_now, opening->backtest, &ignored))
        backtest_close(opening->backtest); /* the pool is full: here, then */
    context_deinit(&shield);
    if (!ok)
        return false;
    reply_json(call, 200, report);
    return true;
}
