/* One governed call of a plain model: policy and reservation, targets in turn, settlement. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/chat_internal.h"

/* A refusal before any work costs nothing; whatever else went wrong may have been worked on. */
static bool was_refused(const struct chat_call *c, const struct error *failure)
{
    switch ((int) failure->reason) {
    case REASON_PROVIDER_RATE_LIMITED:
    case REASON_PROVIDER_QUOTA:
    case REASON_PROVIDER_AUTH:
    case REASON_PROVIDER_INVALID:
    case REASON_PROVIDER_OVERLOADED: return c->estimated_output <= 0;
    default: return !c->was_sent;
    }
}

static bool try_target(struct chat_call *c, struct error *e)
{
    struct provider *provider = c->plain.target->provider;
    if (provider->ops->is_stand_in)
        reply_header(c->call, S("Nexus-Stand-In"), provider->name);
    return provider->ops->dialect == DIALECT_OPENAI_CHAT ? chat_forward(c, e) : chat_local(c, e);
}

static bool try_targets(struct chat_call *c, struct error *e)
{
    struct orchestrator *o = c->call->gateway->orchestrator;
    for (;;) {
        size_t header_count = c->call->headers.count;
        if (try_target(c, e))
            return true;
        bool is_over = http_reply_has_begun(c->call->request) || !error_may_retry(e) ||
                       !context_check(&c->ctx, NULL);
        if (is_over || !plain_call_next_target(o, &c->plain))
            return false;
        c->call->headers.count = header_count;
        *e = (struct error){0};
    }
}

static void tell_degraded(struct chat_call *c)
{
    if (c->plain.is_lowered)
        reply_header(c->call, S("Nexus-Degraded"),
                     str_printf(c->call->ctx->arena, "output limited to %lld tokens by the budget",
                                (long long) c->plain.max_output_tokens));
}

static void settle(struct chat_call *c, const struct error *failure)
{
    struct usage nothing = {.is_reported = true};
    const struct usage *usage = &c->usage;
    if (failure && !c->usage.is_reported && was_refused(c, failure))
        usage = &nothing;
    plain_call_end(c->call->gateway->orchestrator, &c->plain, usage, c->estimated_output, failure);
}

bool chat_plain(struct api_call *call, const struct chat_request *chat, struct error *e)
{
    struct error failure = {0};
    struct chat_call *c = ARENA_NEW(call->ctx->arena, struct chat_call);
    c->call = call;
    c->chat = chat;
    c->estimated_output = -1;
    struct plain_request request = {
        .model = chat->model,
        .session_id = chat->session_id,
        .input_tokens_bound = chat->input_tokens_bound,
        .max_output_tokens = chat->max_output_tokens,
        .choices = chat->choices,
    };
    if (!plain_call_begin(call->gateway->orchestrator, call->ctx, &call->principal, &request,
                          &c->plain, e))
        return false;
    tell_degraded(c);
    context_init_child(&c->ctx, call->ctx,
                       context_deadline_in(call->ctx, c->plain.settings->call_timeout_ms));
    bool ok = try_targets(c, &failure);
    bool is_total_deadline = !ok && failure.reason == REASON_TIMEOUT;
    if (is_total_deadline)
        error_set(&failure, REASON_PROVIDER_TIMEOUT, "the model did not answer within %lld ms",
                  (long long) c->plain.settings->call_timeout_ms);
    context_deinit(&c->ctx);
    settle(c, ok ? NULL : &failure);
    if (ok)
        return true;
    if (http_reply_has_begun(call->request))
        chat_stream_fail(call, &failure);
    return error_copy(e, &failure);
}
