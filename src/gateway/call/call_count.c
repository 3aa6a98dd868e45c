/*
 * POST /v1/messages/count_tokens: counted by the model's provider when it speaks Anthropic's API, else our own upper bound, said in
 * Nexus-Estimate.  Nothing is reserved or charged; who may call the model may count for it.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_internal.h"

enum { COUNT_BODY_BYTES_MAX = 64 << 10, COUNT_TIMEOUT_MS = 10000 };

struct counting {
    struct api_call *call;
    const struct dialect *dialect;
    struct dialect_request request;
    struct plain_call plain;
    struct attempt attempt;
    struct context ctx;
    struct http_headers travel;
};

static void reply_estimate(struct api_call *call, int64_t tokens)
{
    reply_header(call, S("Nexus-Estimate"), S("true"));
    reply_json(call, 200,
               str_printf(call->ctx->arena, "{\"input_tokens\":%lld}", (long long) tokens));
}

/* False without an error the caller should see, but for a request that the provider refuses. */
static never_inline bool ask_provider(struct counting *c, str *answer, struct error *e)
{
    struct arena *arena = c->call->ctx->arena;
    struct provider *provider = c->attempt.target->provider;
    struct dialect_edits edits = {.model = c->attempt.target->model};
    OWNED(http_exchange) exchange = NULL;
    str body;
    c->attempt.how.headers = &c->travel;
    if (!c->dialect->edit_request(arena, c->call->body, &edits, &body, e) ||
        !provider_forward(provider, &c->ctx, &c->attempt.how,
                          str_printf(arena, STR_FMT "/count_tokens", STR_ARG(c->dialect->path)),
                          body, &exchange, e) ||
        !http_exchange_read_all(exchange, &c->ctx, COUNT_BODY_BYTES_MAX, answer, e))
        return false;
    int status = http_exchange_status(exchange);
    return status == 200 || c->dialect->error_from_status(status, *answer, 0, arena, e);
}

/* True: *answer is the provider's; false with *e unset: none of them counts. */
static never_inline bool ask(struct counting *c, str *answer, struct error *e)
{
    struct error last = {0}, none = {0};
    bool has_failed = false;
    int64_t wait_ms;
    while (route_next(&c->plain.route, has_failed ? &last : NULL, &c->attempt, &wait_ms, &none)) {
        struct error failure = {0};
        bool is_asked = wait_ms == 0 && !c->attempt.must_wait &&
                        provider_speaks(c->attempt.target->provider, c->dialect->id);
        bool ok = is_asked && ask_provider(c, answer, &failure);
        if (!is_asked)
            error_set(&failure, REASON_CANCELLED, "not asked");
        attempt_end(&c->attempt, ok ? NULL : &failure);
        if (ok)
            return true;
        if (failure.reason == REASON_PROVIDER_INVALID)
            return error_copy(e, &failure);
        if (!is_asked || failure.code == ERROR_CANCELLED)
            return false;
        last = failure;
        has_failed = true;
    }
    return false;
}

static bool count(struct counting *c, struct error *e)
{
    struct api_call *call = c->call;
    str answer;
    struct error refused = {0};
    /* What a filter may have to block does not leave for a count. */
    if (guard_is_on(c->plain.model->guard, GUARD_REQUEST)) {
        reply_estimate(call, c->request.input_tokens_bound);
        return true;
    }
    call_travel(call, &c->travel);
    context_init_child(&c->ctx, call->ctx, context_deadline_in(call->ctx, COUNT_TIMEOUT_MS));
    bool is_counted = ask(c, &answer, &refused);
    context_deinit(&c->ctx);
    if (is_counted)
        reply_json(call, 200, answer);
    else if (refused.code != ERROR_OK)
        return error_copy(e, &refused);
    else
        reply_estimate(call, c->request.input_tokens_bound);
    return true;
}

/* Who, what, and how often are asked as for a call. */
static bool begin(struct counting *c, struct error *e)
{
    struct api_call *call = c->call;
    struct plain_request plain = {
        .model = c->request.model,
        .input_tokens_bound = c->request.input_tokens_bound,
        .choices = 1,
        .dialect = c->dialect->name,
        .kind = "count",
    };
    return plain_call_begin(call->gateway->orchestrator, call->ctx, &call->principal, &plain,
                            &c->plain, e);
}

bool route_count_tokens(struct api_call *call, struct error *e)
{
    const struct json *json;
    struct json_limits limits = {.bytes_max = GATEWAY_CHAT_BODY_BYTES_MAX};
    struct counting *c = ARENA_NEW(call->ctx->arena, struct counting);
    c->call = call;
    c->dialect = &anthropic_messages_dialect;
    if (!json_parse(call->ctx->arena, call->body, limits, &json, e) ||
        !c->dialect->read(call->ctx->arena, json, &c->request, e))
        return false;
    if (str_starts_with(c->request.model, S("agent:"))) {
        reply_estimate(call, c->request.input_tokens_bound);
        return true;
    }
    if (!begin(c, e))
        return false;
    bool ok = count(c, e);
    plain_call_end(call->gateway->orchestrator, &c->plain, PLAIN_CACHE_NONE, ok ? NULL : e);
    return ok;
}
