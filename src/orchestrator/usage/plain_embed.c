#include "orchestrator/usage/plain_embed.h"

#include "base/arena.h"

static bool was_refused(const struct embed_outcome *outcome, const struct error *failure)
{
    switch ((int) failure->reason) {
    case REASON_PROVIDER_RATE_LIMITED:
    case REASON_PROVIDER_QUOTA:
    case REASON_PROVIDER_AUTH:
    case REASON_PROVIDER_INVALID:
    case REASON_PROVIDER_OVERLOADED:
    case REASON_PROVIDER_CIRCUIT:
    case REASON_UNSUPPORTED: return true;
    case REASON_PROVIDER_TIMEOUT:
    case REASON_TIMEOUT:
    case REASON_CANCELLED: return !outcome->was_sent;
    default: return !outcome->had_head;
    }
}

/* What the provider said; of a call refused midway what was answered before; else nothing: then the bound of the input counts. */
static struct plain_result result_of(const struct embed_outcome *outcome,
                                     const struct error *failure)
{
    const struct usage *usage = &outcome->reply.usage;
    bool is_refused = failure && was_refused(outcome, failure);
    bool has_part = failure && is_refused && usage->input_tokens > 0;
    return (struct plain_result){
        .usage = usage->is_reported && (!failure || has_part) ? usage : NULL,
        .estimated_output = 0,
        .was_refused = is_refused && !has_part,
        .failure = failure,
    };
}

static bool try_once(struct orchestrator *o, struct context *ctx, struct plain_embed *embed,
                     struct plain_attempt *attempt, struct error *failure)
{
    const struct model_target *target = attempt->attempt.target;
    struct embed_call batched = {
        .provider = target->provider,
        .how = &attempt->attempt.how,
        .request = embed->request,
        .tenant_id = embed->plain->principal.tenant_id,
        .arena = embed->arena,
    };
    batched.request.model = target->model;
    embed->provider = target->provider;
    attempt->attempt.how.first_byte_timeout_ms =
        (ctx->deadline_ns - context_now_ns(ctx)) / 1000000 + 1; /* a whole answer */
    bool ok = embed_batch_run(embed->batch, ctx, &batched, &embed->outcome, failure);
    if (ok)
        attempt_first_token(&attempt->attempt);
    struct plain_result result = result_of(&embed->outcome, ok ? NULL : failure);
    plain_attempt_end(o, attempt, &result);
    return ok;
}

bool plain_embed_run(struct orchestrator *o, struct context *ctx, struct plain_embed *embed,
                     struct error *e)
{
    struct error last = {0};
    struct plain_attempt *attempt = ARENA_NEW(ctx->arena, struct plain_attempt);
    bool has_failed = false;
    for (;;) {
        if (!plain_attempt_begin(o, ctx, embed->plain, has_failed ? &last : NULL, attempt, e))
            return false;
        last = (struct error){0};
        if (try_once(o, ctx, embed, attempt, &last))
            return true;
        if (!context_check(ctx, NULL) && last.reason == REASON_TIMEOUT)
            error_set(&last, REASON_PROVIDER_TIMEOUT, "the model did not answer in time");
        if (embed->is_tried_once || last.code == ERROR_CANCELLED || !context_check(ctx, NULL))
            return error_copy(e, &last);
        has_failed = true;
    }
}

int64_t plain_embed_total_ms(const struct plain_call *plain)
{
    int64_t own_ms = plain->model->deadlines.total_ms;
    return own_ms > 0 ? own_ms : plain->settings->call_timeout_ms;
}
