/* From any loop to the client's and back. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include <stdatomic.h>
#include <stdlib.h>

enum { HOP_ARENA_BYTES = 256 << 20 };

/*
 * Two sides hold it: the caller, and what is posted to the client's loop.  The caller joins, so `ctx` and what the argument points to stay
 * good; only the memory of this struct may be needed a little longer, by a cancellation that is still on its way.
 */
struct hop {
    atomic_int references;
    struct mcp_client *client;
    struct loop *from;
    mcp_hop_fn *fn;
    void *argument;
    struct context ctx; /* on the client's loop */
    struct arena *arena;
    str outputs[MCP_HOP_OUTPUTS];
    bool is_begun, is_over; /* on the client's loop */
    bool is_ok;
    struct error error;
    bool is_finished; /* on the caller's loop */
    struct condition finished;
};

static void release(struct hop *hop)
{
    if (atomic_fetch_sub(&hop->references, 1) != 1)
        return;
    arena_destroy(hop->arena);
    free(hop);
}

static void finish_at_caller(void *argument)
{
    struct hop *hop = argument;
    hop->is_finished = true;
    condition_broadcast(&hop->finished);
    release(hop);
}

static void give_back(struct hop *hop)
{
    hop->is_over = true;
    if (hop->is_begun)
        context_deinit(&hop->ctx);
    loop_post(hop->from, finish_at_caller, hop);
}

static void run_hop(void *argument)
{
    struct hop *hop = argument;
    hop->is_ok = hop->fn(hop->client, &hop->ctx, hop->argument, hop->outputs, &hop->error);
    give_back(hop);
}

static void begin_there(void *argument)
{
    struct hop *hop = argument;
    struct scheduler *scheduler = loop_scheduler(hop->client->options.loop);
    int64_t deadline_ns = hop->ctx.deadline_ns;
    trace_context trace = hop->ctx.trace;
    uuid tenant_id = hop->ctx.tenant_id;
    context_init(&hop->ctx, scheduler, hop->arena, deadline_ns);
    hop->ctx.trace = trace;
    hop->ctx.tenant_id = tenant_id;
    hop->is_begun = true;
    if (!coroutine_start(scheduler, "mcp_call", run_hop, hop, &hop->error))
        give_back(hop);
}

static void cancel_there(void *argument)
{
    struct hop *hop = argument;
    if (hop->is_begun && !hop->is_over)
        context_cancel(&hop->ctx);
    release(hop);
}

static void await_finish(struct context *ctx, struct hop *hop)
{
    struct error stop;
    while (!hop->is_finished && condition_wait(&hop->finished, ctx, &stop))
        ;
    if (hop->is_finished)
        return;
    atomic_fetch_add(&hop->references, 1);
    loop_post(hop->client->options.loop, cancel_there, hop);
    struct context patient;
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    while (!hop->is_finished) {
        struct error never;
        if (!condition_wait(&hop->finished, &patient, &never))
            unreachable_state(); /* nobody cancels it and it has no deadline */
    }
    context_deinit(&patient);
    /* Its own end may be told as a cancellation that was only ours: the deadline. */
    if (!hop->is_ok && hop->error.code == ERROR_CANCELLED)
        hop->error = stop;
}

may_suspend bool mcp_hop(struct mcp_client *client, struct context *ctx, mcp_hop_fn *fn,
                         void *argument, str *outputs, size_t count, struct error *e)
{
    struct hop *hop = calloc(1, sizeof *hop);
    ensure(hop != NULL);
    *hop = (struct hop){.client = client, .from = loop_current(), .fn = fn, .argument = argument};
    ensure(hop->from != NULL);
    atomic_init(&hop->references, 2);
    hop->arena = arena_create(HOP_ARENA_BYTES);
    hop->ctx.deadline_ns = ctx->deadline_ns;
    hop->ctx.trace = ctx->trace;
    hop->ctx.tenant_id = ctx->tenant_id;
    condition_init(&hop->finished);
    loop_post(client->options.loop, begin_there, hop);
    await_finish(ctx, hop);
    bool is_ok = hop->is_ok;
    for (size_t i = 0; is_ok && i < count; i++)
        outputs[i] = str_copy(ctx->arena, hop->outputs[i]);
    if (!is_ok)
        error_copy(e, &hop->error);
    release(hop);
    return is_ok;
}
