/*
 * One governed model call without a run: no session lock, a usage record, the same policy and ledger.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

static bool decide(struct orchestrator *o, struct context *ctx, struct plain_call *call,
                   uuid session_id, str policy_context, struct error *e)
{
    struct policy_input input = {
        .action = S("model.call"),
        .resource = call->model->name,
        .user_id = call->principal.user_id,
        .role = call->principal.role,
        .tenant = uuid_str(ctx->arena, call->principal.tenant_id),
        .session_id = session_id,
        .remaining = ledger_remaining(o->ledger, &call->path),
        .policy_context = policy_context,
        .skips_rule = true,
    };
    struct policy_decision decision;
    policy_decide(o->parts.policy, ctx, &input, &decision);
    metrics_add(o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){input.action, str_from_cstr(policy_verdict_name(decision.verdict))}, 2);
    if (decision.verdict == POLICY_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a call of model \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(call->model->name), STR_ARG(decision.reason));
}

/* The reservation is a true upper bound because the call carries the maximum output that was reserved. */
static bool bound_cost(struct plain_call *call, const struct settings *settings, cost remaining,
                       const struct plain_request *request, struct error *e)
{
    int64_t choices = request->choices > 0 ? request->choices : 1;
    int64_t output = request->max_output_tokens > 0 ? request->max_output_tokens
                                                    : call->model->max_output_tokens;
    if (output > call->model->max_output_tokens)
        output = call->model->max_output_tokens;
    call->input_bound = request->input_tokens_bound;
    int64_t room = remaining.tokens == COST_UNLIMITED
                       ? INT64_MAX
                       : (remaining.tokens - call->input_bound) / choices;
    if (room < (output < RUN_OUTPUT_TOKENS_MIN ? output : RUN_OUTPUT_TOKENS_MIN))
        return error_set(
            e, REASON_BUDGET,
            "the call needs %lld tokens of input and at least %lld of output, %lld are left in the "
            "budget",
            (long long) call->input_bound,
            (long long) (output < RUN_OUTPUT_TOKENS_MIN ? output : RUN_OUTPUT_TOKENS_MIN),
            (long long) remaining.tokens);
    call->is_lowered = room < output;
    call->max_output_tokens = call->is_lowered ? room : output;
    if (remaining.cost_nanousd != COST_UNLIMITED && !call->target->price.is_known)
        return error_set(
            e, REASON_BUDGET,
            "model \"" STR_FMT
            "\" has no price and the budget limits money; give it a `price` in the configuration",
            STR_ARG(call->model->name));
    int64_t time_ms = settings->call_timeout_ms;
    if (remaining.time_ms != COST_UNLIMITED && remaining.time_ms / 8 < time_ms)
        time_ms = remaining.time_ms / 8 > 1000 ? remaining.time_ms / 8 : 1000;
    call->reserved = (cost){
        .tokens = call->input_bound + call->max_output_tokens * choices,
        .time_ms = time_ms,
        .cost_nanousd = price_bound_nanousd(&call->target->price, call->input_bound,
                                            call->max_output_tokens * choices),
    };
    return true;
}

static bool begin(struct orchestrator *o, struct context *ctx, const struct plain_request *request,
                  struct plain_call *call, struct error *e)
{
    str policy_context = STR_NONE;
    if (!session_open_path(o, ctx, &call->principal, request->session_id, &call->path,
                           &policy_context, e))
        return false;
    cost remaining = ledger_remaining(o->ledger, &call->path);
    if (decide(o, ctx, call, request->session_id, policy_context, e) &&
        bound_cost(call, call->settings, remaining, request, e) &&
        ledger_reserve_plain(o->ledger, ctx, &call->path, call->reserved, e))
        return true;
    ledger_close_path(o->ledger, &call->path);
    return false;
}

bool plain_call_begin(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, const struct plain_request *request,
                      struct plain_call *out, struct error *e)
{
    *out = (struct plain_call){.principal = *principal,
                               .id = uuid_new(o->parts.clock, o->parts.random)};
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not call models");
    out->settings = orchestrator_acquire(o);
    out->model = catalog_find(out->settings->catalog, request->model);
    bool ok = out->model || catalog_error_unknown(out->settings->catalog, request->model, e);
    if (ok && !plain_call_next_target(o, out))
        ok = error_set(e, REASON_UNKNOWN_MODEL, "model \"" STR_FMT "\" has no target",
                       STR_ARG(request->model));
    ok = ok && begin(o, ctx, request, out, e);
    out->started_ns = context_now_ns(ctx);
    if (!ok)
        orchestrator_release(out->settings);
    return ok;
}

bool plain_call_next_target(struct orchestrator *o, struct plain_call *call)
{
    const struct model_target *target =
        catalog_pick(call->model, call->tried, o->parts.random, &call->target_index);
    if (!target)
        return false;
    /* The reservation was made at the first target's price: a dearer fallback would not be covered by it. */
    if (call->target && price_bound_nanousd(&target->price, call->input_bound,
                                            call->reserved.tokens - call->input_bound) >
                            call->reserved.cost_nanousd)
        return false;
    call->tried |= (uint64_t) 1 << call->target_index;
    call->target = target;
    return true;
}

static str settlement_details(struct arena *arena, const struct plain_call *call,
                              const struct usage *usage, const struct error *failure)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("provider"), call->target->provider->name);
    json_put_i64(&w, S("input_tokens"), usage->input_tokens);
    json_put_i64(&w, S("output_tokens"), usage->output_tokens);
    json_put_i64(&w, S("cached_tokens"), usage->cached_tokens);
    if (failure)
        json_put_str(&w, S("error"), str_from_cstr(error_problem(failure->reason)));
    json_object_end(&w);
    return strbuf_str(&text);
}

static void count(struct orchestrator *o, const struct plain_call *call, const struct usage *usage,
                  int64_t elapsed_ns, const struct error *failure)
{
    struct metrics *metrics = o->parts.metrics;
    str model = call->model->name;
    str outcome = failure ? str_from_cstr(error_problem(failure->reason)) : S("ok");
    metrics_add(metrics, METRIC_MODEL_CALLS, 1,
                (str[]){model, call->target->provider->name, outcome}, 3);
    metrics_observe(metrics, METRIC_MODEL_DURATION, (double) elapsed_ns / 1e9, &model, 1);
    metrics_add(metrics, METRIC_MODEL_TOKENS, usage->input_tokens, (str[]){model, S("input")}, 2);
    metrics_add(metrics, METRIC_MODEL_TOKENS, usage->output_tokens, (str[]){model, S("output")}, 2);
    str session = S("none");
    char text[UUID_TEXT_BYTES + 1];
    if (!uuid_is_none(call->path.session_id)) {
        uuid_format(call->path.session_id, text);
        session = str_of(text, UUID_TEXT_BYTES);
    }
    str status = failure ? S("failed") : S("completed");
    metrics_add(metrics, METRIC_AGENT_REQUESTS, 1, (str[]){session, S("model"), status}, 3);
    metrics_observe(metrics, METRIC_AGENT_REQUEST_DURATION, (double) elapsed_ns / 1e9,
                    (str[]){S("model")}, 1);
}

void plain_call_end(struct orchestrator *o, struct plain_call *call, const struct usage *usage,
                    int64_t estimated_output, const struct error *failure)
{
    struct usage used = {0};
    const char *basis = "reserved";
    cost spent = call->reserved;
    int64_t elapsed_ns = clock_monotonic_ns(o->parts.clock) - call->started_ns;
    bool is_reported = usage && usage->is_reported;
    if (is_reported) {
        used = *usage;
        basis = "reported";
    } else if (estimated_output >= 0) {
        used = (struct usage){.input_tokens = call->input_bound, .output_tokens = estimated_output};
        basis = "estimated";
    }
    if (is_reported || estimated_output >= 0)
        spent = (cost){
            .tokens = used.input_tokens + used.output_tokens,
            .cost_nanousd = price_nanousd(&call->target->price, &used),
        };
    spent.time_ms = elapsed_ns / 1000000 < call->reserved.time_ms ? elapsed_ns / 1000000
                                                                  : call->reserved.time_ms;
    OWNED(arena) arena = arena_create(0);
    ledger_settle_plain(o->ledger, &call->path,
                        &(struct settlement){
                            .reserved = call->reserved,
                            .used = spent,
                            .kind = "model",
                            .basis = basis,
                            .model = call->model->name,
                            .details = settlement_details(arena, call, &used, failure),
                        });
    count(o, call, &used, elapsed_ns, failure);
    ledger_close_path(o->ledger, &call->path);
    orchestrator_release(call->settings);
}
