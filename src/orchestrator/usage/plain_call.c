/*
 * One governed model call without a run: no session lock, the same policy and ledger, a usage record.
 */
#include "orchestrator/usage/plain_call.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/guard.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/orchestrator_internal.h"
#include <stdlib.h>

/* ---- begin ---- */

static bool decide(struct orchestrator *o, struct context *ctx, const struct plain_call *call,
                   str policy_context, struct error *e)
{
    struct policy_input input = {
        .action = S("model.call"),
        .resource = call->model->name,
        .user_id = call->principal.user_id,
        .role = call->principal.role,
        .tenant = uuid_str(ctx->arena, call->principal.tenant_id),
        .session_id = call->request.session_id,
        .remaining = ledger_remaining(o->ledger, &call->path),
        .policy_context = policy_context,
    };
    struct policy_decision decision;
    policy_decide(o->parts.policy, ctx, &input, &decision);
    if (decision.verdict == POLICY_ALLOW) {
        metric_add(o->model_calls_allowed, 1);
        return true;
    }
    metrics_add(o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){input.action, str_from_cstr(policy_verdict_name(decision.verdict))}, 2);
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a call of model \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(call->model->name), STR_ARG(decision.reason));
}

/* What an A/B split and a provider's warm cache stick to. */
static str sticky_of(const struct plain_call *call)
{
    const uuid *session_id = &call->request.session_id;
    return uuid_is_none(*session_id)
               ? call->principal.user_id
               : str_of((const char *) session_id->bytes, sizeof session_id->bytes);
}

static bool open_call(struct orchestrator *o, struct context *ctx, struct plain_call *call,
                      struct error *e)
{
    str policy_context = STR_NONE;
    if (!session_open_path(o, ctx, &call->principal, call->request.session_id, &call->path,
                           &policy_context, e))
        return false;
    if (decide(o, ctx, call, policy_context, e))
        return true;
    ledger_close_path(o->ledger, &call->path);
    return false;
}

/* Embeddings have no output, and inputs that are independent of each other. */
static bool is_embedding(const struct plain_request *request)
{
    return request->kind && strcmp(request->kind, "embedding") == 0;
}

/* A key's list may hold the name that was asked for or the model's own, of which that is another name. */
static bool check_name(const struct plain_call *call, struct error *e)
{
    return principal_check_model(&call->principal, call->model->name, NULL) ||
           principal_check_model(&call->principal, call->request.model, e);
}

bool plain_call_begin(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, const struct plain_request *request,
                      struct plain_call *out, struct error *e)
{
    *out = (struct plain_call){.principal = *principal, .request = *request, .basis = "none"};
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not call models");
    enum priority priority = principal_priority(principal, PRIORITY_UNSAID, PRIORITY_UNSAID);
    if (!overload_admits(o->overload, priority, e))
        return false;
    out->id = uuid_new(o->parts.clock, o->parts.random);
    out->trace = ctx->trace;
    if (!out->request.dialect)
        out->request.dialect = "";
    if (!out->request.kind)
        out->request.kind = "chat";
    out->request.choices = request->choices > 0 ? request->choices : 1;
    out->started_ns = context_now_ns(ctx);
    out->settings = orchestrator_acquire(o);
    out->model = catalog_find(out->settings->catalog, request->model);
    bool ok = out->model || catalog_error_unknown(out->settings->catalog, request->model, e);
    ok = ok && check_name(out, e) && open_call(o, ctx, out, e);
    if (!ok) {
        orchestrator_release(out->settings);
        return false;
    }
    if (out->model->guard) {
        out->found = calloc(1, sizeof *out->found);
        ensure(out->found != NULL);
    }
    route_begin(
        &out->route, o->parts.router,
        &(struct route_request){
            .model = out->model,
            .sticky = sticky_of(out),
            .prefer = request->prefer,
            .tenant_id = principal->tenant_id,
            .input_tokens_bound = is_embedding(&out->request) ? 0 : request->input_tokens_bound,
            .output_tokens_max = request->max_output_tokens,
        });
    return true;
}

/* ---- an attempt's reservation ---- */

static int64_t output_asked(const struct plain_call *call)
{
    if (is_embedding(&call->request))
        return 0;
    int64_t most = call->model->max_output_tokens, asked = call->request.max_output_tokens;
    return asked > 0 && asked < most ? asked : most;
}

static int64_t output_cost(const struct plain_call *call, const struct model_target *target,
                           int64_t output)
{
    return price_bound_nanousd(&target->price, call->request.input_tokens_bound,
                               output * call->request.choices);
}

/* The longest output per choice that tokens and money cover, at most `output`; negative: not even the input. */
static int64_t output_room(const struct plain_call *call, const struct model_target *target,
                           cost remaining, int64_t output)
{
    int64_t room = output, input = call->request.input_tokens_bound;
    if (remaining.tokens != COST_UNLIMITED) {
        int64_t covered = (remaining.tokens - input) / call->request.choices;
        room = remaining.tokens < input ? -1 : covered < room ? covered : room;
    }
    if (room < 0 || remaining.cost_nanousd == COST_UNLIMITED ||
        output_cost(call, target, room) <= remaining.cost_nanousd)
        return room;
    int64_t fits = -1, beyond = room; /* the bound grows with the output: halve the gap */
    while (beyond - fits > 1) {
        int64_t middle = fits + (beyond - fits) / 2;
        if (output_cost(call, target, middle) <= remaining.cost_nanousd)
            fits = middle;
        else
            beyond = middle;
    }
    return fits;
}

static int64_t time_bound_ms(const struct plain_call *call, cost remaining)
{
    int64_t time_ms = call->model->deadlines.total_ms > 0 ? call->model->deadlines.total_ms
                                                          : call->settings->call_timeout_ms;
    if (remaining.time_ms != COST_UNLIMITED && remaining.time_ms / 8 < time_ms)
        time_ms = remaining.time_ms / 8 > 1000 ? remaining.time_ms / 8 : 1000;
    return time_ms;
}

/* The reservation is a true upper bound because the call carries the maximum output that was reserved. */
static bool bound_attempt(struct orchestrator *o, struct plain_attempt *attempt, struct error *e)
{
    const struct plain_call *call = attempt->call;
    const struct model_target *target = attempt->attempt.target;
    cost remaining = ledger_remaining(o->ledger, &call->path);
    int64_t output = output_asked(call),
            least = output < RUN_OUTPUT_TOKENS_MIN ? output : RUN_OUTPUT_TOKENS_MIN;
    if (remaining.cost_nanousd != COST_UNLIMITED && !target->price.is_known)
        return error_set(
            e, REASON_BUDGET,
            "model \"" STR_FMT
            "\" has no price and the budget limits money; give it a `price` in the configuration",
            STR_ARG(call->model->name));
    int64_t room = output_room(call, target, remaining, output);
    if (room < least && remaining.tokens != COST_UNLIMITED)
        return error_set(
            e, REASON_BUDGET,
            "the call needs %lld tokens of input and at least %lld of output, %lld are left in the "
            "budget",
            (long long) call->request.input_tokens_bound, (long long) least,
            (long long) remaining.tokens);
    if (room < least)
        return error_set(
            e, REASON_BUDGET, "the call may cost %lld nano-USD, %lld are left in the budget",
            (long long) output_cost(call, target, least), (long long) remaining.cost_nanousd);
    attempt->must_limit =
        remaining.tokens != COST_UNLIMITED || remaining.cost_nanousd != COST_UNLIMITED;
    attempt->is_lowered = room < output;
    attempt->max_output_tokens = room;
    attempt->reserved = (cost){
        .tokens = call->request.input_tokens_bound + room * call->request.choices,
        .time_ms = time_bound_ms(call, remaining),
        .cost_nanousd = output_cost(call, target, room),
    };
    return true;
}

/* ---- attempts ---- */

static bool wait_and_reserve(struct orchestrator *o, struct context *ctx,
                             struct plain_attempt *attempt, int64_t wait_ms, struct error *e)
{
    return (wait_ms <= 0 || context_sleep_ms(ctx, wait_ms, e)) &&
           (!attempt->attempt.must_wait || attempt_enter(&attempt->attempt, ctx, e)) &&
           bound_attempt(o, attempt, e) &&
           ledger_reserve_plain(o->ledger, ctx, &attempt->call->path, attempt->reserved, e);
}

static void note_target(struct plain_call *call, const struct plain_attempt *attempt)
{
    const struct model_target *target = attempt->attempt.target;
    call->attempt_count++;
    call->provider = target->provider->name;
    call->target_model = target->model;
    call->variant = target->variant;
}

/* A target that the budget does not cover, or that has no place, is passed over: another one may be left.  (What never went out says nothing about the
   target's health: to the router a refusal of ours is no failure of the target.) */
never_inline bool plain_attempt_begin(struct orchestrator *o, struct context *ctx,
                                      struct plain_call *call, const struct error *last,
                                      struct plain_attempt *out, struct error *e)
{
    struct error refusal = {0};
    for (;;) {
        int64_t wait_ms = 0;
        *out = (struct plain_attempt){.call = call};
        if (!route_next(&call->route, last, &out->attempt, &wait_ms, e))
            return false;
        struct error failure = {0};
        if (wait_and_reserve(o, ctx, out, wait_ms, &failure)) {
            note_target(call, out);
            return true;
        }
        attempt_end(&out->attempt, &failure);
        if (failure.reason != REASON_BUDGET && failure.reason != REASON_OVERLOADED_HERE)
            return error_copy(e, &failure);
        refusal = failure;
        last = &refusal;
    }
}

/* Did the provider say at the begin what it had read, and end it itself?  Of a caller who left, or of our deadline, tokens may have been on
   their way that nobody has seen: the input's bound covers them. */
static bool is_input_told(const struct plain_result *result)
{
    return result->usage && result->usage->input_tokens > 0 && result->failure &&
           (result->failure->reason == REASON_PROVIDER_NETWORK ||
            result->failure->reason == REASON_PROVIDER_PROTOCOL);
}

/* The least upper bound that is known; the output is what was seen, or all that it was allowed. */
static void bound_usage(const struct plain_attempt *attempt, const struct plain_result *result,
                        struct usage *used)
{
    const struct plain_request *request = &attempt->call->request;
    *used = (struct usage){.input_tokens = request->input_tokens_bound};
    if (is_input_told(result)) {
        *used = *result->usage;
        used->is_reported = false;
    }
    int64_t seen = result->estimated_output >= 0 ? result->estimated_output
                                                 : attempt->max_output_tokens * request->choices;
    if (seen > used->output_tokens)
        used->output_tokens = seen;
}

/* What an attempt comes to, and on what grounds. */
static cost settle_amount(const struct plain_attempt *attempt, const struct plain_result *result,
                          struct usage *used, const char **basis)
{
    bool is_reported = result->usage && result->usage->is_reported;
    bool is_known = result->estimated_output >= 0 || is_input_told(result);
    *basis = is_reported ? "reported" : is_known ? "estimated" : "reserved";
    if (is_reported)
        *used = *result->usage;
    else
        bound_usage(attempt, result, used);
    cost spent = attempt->reserved;
    spent.tokens = used->input_tokens + used->output_tokens;
    if (is_reported || is_known)
        spent.cost_nanousd = price_nanousd(&attempt->attempt.target->price, used);
    return spent;
}

static void add_usage(struct usage *sum, const struct usage *more)
{
    sum->input_tokens += more->input_tokens;
    sum->output_tokens += more->output_tokens;
    sum->cached_tokens += more->cached_tokens;
    sum->cache_write_tokens += more->cache_write_tokens;
    sum->reasoning_tokens += more->reasoning_tokens;
    sum->is_reported = more->is_reported;
}

/* One span for each attempt, in the GenAI conventions. */
static never_inline void emit_span(struct orchestrator *o, const struct plain_attempt *attempt,
                                   const struct usage *used, const struct plain_result *result)
{
    enum { NAME_BYTES = 160 };
    char name[NAME_BYTES];
    const struct plain_call *call = attempt->call;
    const struct attempt *made = &attempt->attempt;
    int64_t now_ns = clock_monotonic_ns(o->parts.clock);
    int length = snprintf(name, sizeof name, "%s %.*s", call->request.kind,
                          (int) str_cut_utf8(call->model->name, 120).len, call->model->name.ptr);
    struct span span = {.name = str_of(name, (size_t) length),
                        .kind = SPAN_CLIENT,
                        .context = call->trace,
                        .end_us = clock_unix_us(o->parts.clock)};
    span.start_us = span.end_us - (now_ns - made->started_ns) / 1000;
    memcpy(span.parent_id, call->trace.span_id, sizeof span.parent_id);
    o->parts.random->ops->fill(o->parts.random, span.context.span_id, sizeof span.context.span_id);
    span_put_str(&span, "gen_ai.operation.name",
                 is_embedding(&call->request) ? S("embeddings")
                                              : str_from_cstr(call->request.kind));
    span_put_str(&span, "gen_ai.provider.name", made->target->provider->name);
    span_put_str(&span, "gen_ai.request.model", call->model->name);
    span_put_str(&span, "gen_ai.response.model", made->target->model);
    span_put_bool(&span, "gen_ai.request.stream", call->request.is_stream);
    span_put_i64(&span, "gen_ai.usage.input_tokens", used->input_tokens);
    span_put_i64(&span, "gen_ai.usage.output_tokens", used->output_tokens);
    span_put_i64(&span, "gen_ai.usage.cache_read.input_tokens", used->cached_tokens);
    if (made->first_token_ns > made->started_ns)
        span_put_double(&span, "gen_ai.response.time_to_first_chunk",
                        (double) (made->first_token_ns - made->started_ns) / 1e9);
    span_put_i64(&span, "nexus.attempt", made->number);
    span_put_str(&span, "nexus.basis", str_from_cstr(call->basis));
    if (result->failure) {
        span.error_type = str_from_cstr(error_problem(result->failure->reason));
        span.error_message = str_from_cstr(result->failure->message);
    }
    tracer_emit(o->parts.tracer, &span);
}

void plain_attempt_end(struct orchestrator *o, struct plain_attempt *attempt,
                       const struct plain_result *result)
{
    struct plain_call *call = attempt->call;
    struct usage used = {0};
    int64_t elapsed_ms =
        (clock_monotonic_ns(o->parts.clock) - attempt->attempt.started_ns) / 1000000;
    attempt_end(&attempt->attempt, result->failure);
    if (!result->failure)
        call->first_token_ns = attempt->attempt.first_token_ns;
    if (result->was_refused) {
        call->basis = "refused";
        ledger_release_plain(o->ledger, &call->path, attempt->reserved);
        if (call->trace.is_sampled && o->parts.tracer)
            emit_span(o, attempt, &used, result);
        return;
    }
    cost spent = settle_amount(attempt, result, &used, &call->basis);
    spent.time_ms = elapsed_ms < attempt->reserved.time_ms ? elapsed_ms : attempt->reserved.time_ms;
    if (!cost_fits(spent, attempt->reserved)) {
        call->basis = "overdraft";
        metrics_add(o->parts.metrics, METRIC_MODEL_OVERDRAFTS, 1,
                    (str[]){call->model->name, call->provider}, 2);
    }
    ledger_settle_plain(o->ledger, &call->path,
                        &(struct settlement){
                            .reserved = attempt->reserved,
                            .used = spent,
                            .kind = "model",
                            .basis = call->basis,
                            .model = call->model->name,
                        });
    call->spent = cost_add(call->spent, spent);
    add_usage(&call->usage, &used);
    if (call->trace.is_sampled && o->parts.tracer)
        emit_span(o, attempt, &used, result);
}

/* ---- end ---- */

static struct usage_record record_of_call(const struct orchestrator *o,
                                          const struct plain_call *call, enum plain_cache cache,
                                          const struct error *failure)
{
    int64_t elapsed_ns = clock_monotonic_ns(o->parts.clock) - call->started_ns;
    bool has_first = !failure && call->first_token_ns >= call->started_ns;
    return (struct usage_record){
        .shape = {.user_id = call->path.user_id,
                  .dialect = str_from_cstr(call->request.dialect),
                  .kind = str_from_cstr(call->request.kind),
                  .model = call->model->name,
                  .variant = call->variant,
                  .provider = call->provider,
                  .target_model = call->target_model,
                  .status = failure ? str_from_cstr(error_problem(failure->reason)) : S("ok"),
                  .basis = str_from_cstr(call->basis),
                  .key_id = call->principal.key_id},
        .call_id = call->id,
        .session_id = call->request.session_id,
        .started_us = clock_unix_us(o->parts.clock) - elapsed_ns / 1000,
        .duration_us = elapsed_ns / 1000,
        .first_token_us = has_first ? (call->first_token_ns - call->started_ns) / 1000 : -1,
        .input_tokens = call->usage.input_tokens,
        .output_tokens = call->usage.output_tokens,
        .cached_tokens = call->usage.cached_tokens,
        .cache_write_tokens = call->usage.cache_write_tokens,
        .reasoning_tokens = call->usage.reasoning_tokens,
        .cost_nanousd = call->spent.cost_nanousd,
        .time_ms = call->spent.time_ms,
        .attempts = call->attempt_count,
        .cache = (enum usage_cache) cache,
        .is_stream = call->request.is_stream,
    };
}

static void audit_content(struct orchestrator *o, struct plain_call *call)
{
    struct principal principal = call->principal;
    principal.user_id = call->path.user_id;
    if (!call->found)
        return;
    content_audit_post(o,
                       &(struct content_audit){
                           .principal = &principal,
                           .model = call->model->name,
                           .call_id = call->id,
                           .session_id = call->request.session_id,
                           .key_id = call->principal.key_id,
                       },
                       call->found);
    free(call->found);
    call->found = NULL;
}

void plain_call_end(struct orchestrator *o, struct plain_call *call, enum plain_cache cache,
                    const struct error *failure)
{
    audit_content(o, call);
    struct usage_record record = record_of_call(o, call, cache, failure);
    usage_log_add(o->usage, call->principal.tenant_id, &record);
    ledger_close_path(o->ledger, &call->path);
    orchestrator_release(call->settings);
}

/* ---- open streams ---- */

void plain_open(const struct plain_call *call, const struct plain_attempt *attempt,
                struct plain_open *out)
{
    *out = (struct plain_open){
        .settings = call->settings,
        .model = call->model,
        .path = call->path,
        .trace = call->trace,
        .id = call->id,
        .key_id = call->principal.key_id,
        .started_ns = call->started_ns,
        .first_token_ns = call->first_token_ns,
        .spent = call->spent,
        .usage = call->usage,
        .reserved = attempt->reserved,
        .attempt = attempt->attempt,
        .found = call->found,
        .dialect = call->request.dialect,
        .kind = call->request.kind,
        .input_tokens_bound = call->request.input_tokens_bound,
        .choices = call->request.choices,
        .max_output_tokens = attempt->max_output_tokens,
        .attempt_count = call->attempt_count,
        .is_stream = call->request.is_stream,
    };
    out->attempt.route = NULL;
    out->attempt.how = (struct provider_call){0};
}

/* The router marks a route too; of an open stream nothing is asked of it any more, so one made for the moment does. */
static void route_for(struct orchestrator *o, struct plain_open *open, struct route *route)
{
    *route = (struct route){
        .router = o->parts.router,
        .request.model = open->model,
        .open_targets = (uint64_t) 1 << open->attempt.target_index,
        .attempts = (uint8_t) open->attempt_count,
    };
    open->attempt.route = route;
}

void plain_open_first_token(struct orchestrator *o, struct plain_open *open)
{
    struct route route;
    route_for(o, open, &route);
    attempt_first_token(&open->attempt);
    open->attempt.route = NULL;
}

void plain_open_end(struct orchestrator *o, struct plain_open *open,
                    const struct plain_result *result)
{
    const struct model_target *target = open->attempt.target;
    struct plain_call call = {
        .settings = open->settings,
        .model = open->model,
        .principal = {.tenant_id = open->path.tenant_id, .key_id = open->key_id},
        .request = {.session_id = open->path.session_id,
                    .input_tokens_bound = open->input_tokens_bound,
                    .choices = open->choices,
                    .dialect = open->dialect,
                    .kind = open->kind,
                    .is_stream = open->is_stream},
        .path = open->path,
        .trace = open->trace,
        .id = open->id,
        .started_ns = open->started_ns,
        .first_token_ns = open->first_token_ns,
        .spent = open->spent,
        .usage = open->usage,
        .attempt_count = open->attempt_count,
        .provider = target->provider->name,
        .target_model = target->model,
        .variant = target->variant,
        .basis = "none",
        .found = open->found,
    };
    struct plain_attempt attempt = {.call = &call,
                                    .attempt = open->attempt,
                                    .reserved = open->reserved,
                                    .max_output_tokens = open->max_output_tokens};
    route_for(o, open, &call.route);
    attempt.attempt.route = &call.route;
    plain_attempt_end(o, &attempt, result);
    open->usage = call.usage;
    open->spent = call.spent;
    plain_call_end(o, &call, PLAIN_CACHE_NONE, result->failure);
}
