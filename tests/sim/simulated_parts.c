#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "laws.h"
#include "minds.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- policy: user may run; category system needs another person ---- */

static void decide(struct policy *policy, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    (void) policy;
    (void) ctx;
    out->rule = S("sim");
    out->reason = S("simulated");
    out->version = S("1");
    bool is_guarded = str_equal(input->tool_category, S("system"));
    out->verdict = POLICY_ALLOW;
    if (is_guarded && (str_is_empty(input->approver) || str_equal(input->approver, input->user_id)))
        out->verdict = POLICY_NEEDS_APPROVAL;
}

static bool reload(struct policy *policy, struct error *e)
{
    (void) policy;
    (void) e;
    return true;
}

static void destroy_policy(struct policy *policy)
{
    (void) policy;
}

/* In some seeds what needs another person needs several. */
static bool demand(struct policy *policy, struct context *ctx, const struct policy_input *input,
                   str *out, struct error *e)
{
    const struct world *world = ((struct sim_policy *) policy)->node->world;
    int64_t quorum = world->stage->rules.quorum;
    (void) input;
    (void) e;
    *out = STR_NONE;
    if (quorum > 0)
        *out = str_printf(ctx->arena, "{\"quorum\":%lld}", (long long) quorum);
    return true;
}

static const struct policy_ops policy_ops = {"sim", decide, demand, reload, destroy_policy};

/* ---- executor: effects really happen, in the world outside ---- */

static void happen(struct world *world, const struct tool_request *request)
{
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(request->call_id, id);
    if (map_put(world->effect_keys, request->effect_key, world))
        cover(world, COVER_EFFECT_KEY);
    int *count = map_find(world->effects, str_of(id, UUID_TEXT_BYTES));
    if (!count) {
        count = ARENA_NEW(world->arena, int);
        map_put(world->effects, str_of(id, UUID_TEXT_BYTES), count);
    }
    ++*count;
}

static bool execute(struct executor *base, struct context *ctx, const struct tool_request *request,
                    struct tool_result *out, struct error *e)
{
    struct world *world = ((struct sim_executor *) base)->node->world;
    int64_t started_ns = context_now_ns(ctx);
    int64_t slow_ms = world_chance(world, 20) ? 8000 : 200;
    bool ok = context_sleep_ms(ctx, world_between(world, 0, slow_ms), e);
    if (ok) {
        happen(world, request);
        laws_effect(world, request);
    }
    ok = ok && context_sleep_ms(ctx, world_between(world, 0, 200),
                                e); /* done, but the answer is still on its way */
    out->latency_us = (context_now_ns(ctx) - started_ns) / 1000;
    out->latency_ms = out->latency_us / 1000;
    if (ok && world_chance(world, 50)) {
        laws_effect_failed(world, request);
        cover(world, COVER_TOOL_FAILED);
        return error_set(e, REASON_TOOL_FAILED, "simulated failure");
    }
    out->output = world_chance(world, 120) ? S("{\"ok\":false,\"status\":503}")
                                           : S("{\"ok\":true,\"status\":200}");
    return ok;
}

static void destroy_executor(struct executor *executor)
{
    (void) executor;
}

static const struct executor_ops executor_ops = {"sim", execute, destroy_executor};

/* ---- provider: asks for tools a few times, then answers ---- */

struct sim_stream {
    struct reply_stream base;
    struct world *world;
    int position, call_count, text_count;
    struct mind mind;
    int64_t input_tokens, output_tokens;
    bool is_cut, is_silent;
};

static bool next(struct reply_stream *base, struct context *ctx, struct delta *out, struct error *e)
{
    struct sim_stream *stream = (struct sim_stream *) base;
    struct world *world = stream->world;
    if (!context_sleep_ms(ctx, world_between(world, 0, 40), e))
        return false;
    int at = stream->position++;
    if (stream->is_cut && at == 1)
        return error_set(e, REASON_PROVIDER_NETWORK, "simulated cut");
    if (at < stream->call_count * 2) {
        *out = (struct delta){.kind = at % 2 ? DELTA_TOOL_ARGUMENTS : DELTA_TOOL_CALL,
                              .index = at / 2};
        out->call_id = S("call");
        out->name = str_from_cstr(stream->mind.names[at / 2]);
        out->text = at % 2 ? str_from_cstr(stream->mind.arguments[at / 2]) : STR_NONE;
        return true;
    }
    if (at < stream->call_count * 2 + stream->text_count) {
        *out = (struct delta){.kind = DELTA_TEXT, .text = str_from_cstr(stream->mind.text)};
        return true;
    }
    *out = (struct delta){.kind = DELTA_END,
                          .finish = stream->call_count ? FINISH_TOOL_CALLS : FINISH_STOP};
    out->usage = (struct usage){.input_tokens = stream->input_tokens,
                                .output_tokens = stream->output_tokens,
                                .is_reported = !stream->is_silent};
    return true;
}

static void close_stream(struct reply_stream *base)
{
    free(base);
}

static const struct reply_stream_ops stream_ops = {next, close_stream};

static bool stream(struct provider *base, struct context *ctx, const struct provider_call *how,
                   const struct prompt *prompt, struct reply_stream **out, struct error *e)
{
    (void) how;
    struct world *world = ((struct sim_provider *) base)->node->world;
    if (!context_sleep_ms(ctx, world_between(world, 1, 300), e))
        return false;
    if (world_chance(world, str_equal(prompt->model, S("sim-frail")) ? 700 : 40))
        return error_set(e, REASON_PROVIDER_RATE_LIMITED, "simulated limit");
    if (world_chance(world, 20)) {
        cover(world, COVER_MODEL_REFUSED);
        return error_set(e, REASON_PROVIDER_INVALID, "simulated refusal");
    }
    struct sim_stream *made = calloc(1, sizeof *made);
    ensure(made != NULL);
    *made = (struct sim_stream){.base = {.ops = &stream_ops}, .world = world};
    mind_draw(world, prompt, &made->mind);
    made->call_count = made->mind.call_count;
    made->text_count = made->mind.text_count;
    made->input_tokens = world_between(world, 1, prompt_input_tokens_bound(prompt));
    made->output_tokens = world_between(world, 1, prompt->max_output_tokens);
    made->is_cut = world_chance(world, 30);
    made->is_silent = world_chance(world, 100);
    if (made->is_cut)
        cover(world, COVER_MODEL_CUT);
    if (made->is_silent)
        cover(world, COVER_MODEL_SILENT);
    *out = &made->base;
    return true;
}

static bool complete(struct provider *base, struct context *ctx, const struct provider_call *how,
                     const struct prompt *prompt, struct reply *out, struct error *e)
{
    (void) how;
    (void) base;
    (void) ctx;
    (void) prompt;
    (void) out;
    return error_set(e, REASON_PROVIDER_INVALID, "the simulated provider only streams");
}

static bool forward(struct provider *base, struct context *ctx, const struct provider_call *how,
                    str path, str body, struct http_exchange **out, struct error *e)
{
    (void) how;
    (void) base;
    (void) ctx;
    (void) path;
    (void) body;
    (void) out;
    return error_set(e, REASON_PROVIDER_INVALID, "the simulated provider forwards nothing");
}

static bool models(struct provider *base, struct context *ctx, str **names, size_t *count,
                   struct error *e)
{
    (void) base;
    (void) ctx;
    (void) e;
    *names = NULL;
    *count = 0;
    return true;
}

static void destroy_provider(struct provider *provider)
{
    (void) provider;
}

static const struct provider_ops provider_ops = {
    .name = "sim",
    .is_stand_in = true,
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};

void parts_init(struct node *node)
{
    node->policy = (struct sim_policy){.base = {.ops = &policy_ops}, .node = node};
    node->executor = (struct sim_executor){.base = {.ops = &executor_ops}, .node = node};
    node->provider =
        (struct sim_provider){.base = {.ops = &provider_ops, .name = S("sim")}, .node = node};
}

struct catalog *parts_catalog(struct node *node)
{
    struct catalog *catalog = catalog_create();
    struct error e = {0};
    struct model_price cheap = {
        .is_known = true, .input_picousd_per_token = 250000, .output_picousd_per_token = 1000000};
    struct model_price dear = {
        .is_known = true, .input_picousd_per_token = 500000, .output_picousd_per_token = 4000000};
    struct model_target targets[] = {
        {.provider = &node->provider.base, .model = S("sim"), .weight = 1, .price = cheap},
        {.provider = &node->provider.base, .model = S("sim-large"), .weight = 1, .price = dear},
    };
    struct model model = {.name = S("sim"),
                          .targets = targets,
                          .target_count = ARRAY_COUNT(targets),
                          .max_output_tokens = 300};
    if (!catalog_add(catalog, &model, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        abort();
    }
    company_models(node, catalog);
    return catalog;
}

struct settings *parts_settings(struct node *node)
{
    const struct rules *rules = &node->world->stage->rules;
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = (struct settings){
        .catalog = parts_catalog(node),
        .agents = company_agents(),
        .workflows = company_workflows(node->world),
        .session_budget = {.tokens = 30000,
                           .time_ms = 3600000,
                           .cost_nanousd = COST_UNLIMITED,
                           .tool_calls = 40},
        .session_expiry_ms = rules->expiry_ms,
        .approval_expiry_ms = rules->approval_expiry_ms,
        .approval_remind_ms = rules->approval_remind_ms,
        .alerts = {500, 900},
        .alert_count = 2,
        .retention = {.runs_ms = rules->runs_ms, .deltas_ms = rules->deltas_ms},
        .call_timeout_ms = 60000,
        .session_files_bytes_max = 1 << 20,
    };
    return settings;
}
