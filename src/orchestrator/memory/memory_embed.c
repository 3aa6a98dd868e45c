#include "base/arena.h"
#include "base/log.h"
#include "llm/embed_format.h"
#include "llm/guard_large.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/memory/memory_internal.h"
#include "orchestrator/usage/plain_embed.h"

#define MEMORY_DIALECT "memory"

/* ---- the content filter ---- */

static const struct guard_rules *rules_of(const struct memory *memory,
                                          const struct settings *settings)
{
    const struct model *model = catalog_find(settings->catalog, memory->model);
    return settings->memory_guard ? settings->memory_guard : model ? model->guard : NULL;
}

static bool filter_with(struct memory *memory, const struct guard_caller *caller,
                        struct memory_text *text, struct error *e)
{
    bool ok = guard_large_texts(caller, &text->text, 1, e) &&
              (str_is_empty(text->metadata) || guard_large_json_text(caller, &text->metadata, e));
    content_audit_post(memory->o,
                       &(struct content_audit){.principal = text->principal,
                                               .model = memory_embedder(memory),
                                               .session_id = text->session_id,
                                               .key_id = text->principal->key_id},
                       caller->tally);
    return ok;
}

bool memory_filter(struct memory *memory, struct context *ctx, struct memory_text *text,
                   struct error *e)
{
    const struct settings *settings = orchestrator_acquire(memory->o);
    struct guard_tally tally = {0};
    struct guard_caller caller = {ctx, ctx->arena, rules_of(memory, settings), &tally,
                                  GUARD_REQUEST};
    bool ok = !guard_is_on(caller.rules, GUARD_REQUEST) || filter_with(memory, &caller, text, e);
    guard_tally_deinit(&tally);
    orchestrator_release(settings);
    return ok;
}

/* ---- vectors ---- */

static bool take_vector(const struct memory *memory, const struct embed_reply *reply,
                        const float **vector, struct error *e)
{
    if (reply->dimension != memory->index->dimension)
        return error_set(e, REASON_CONFIG,
                         "model \"" STR_FMT "\" gives vectors of %zu numbers, the memory holds "
                         "vectors of %zu: set memory.dimensions, or another embedding_model",
                         STR_ARG(memory->model), reply->dimension, memory->index->dimension);
    *vector = reply->vectors[0];
    return true;
}

static bool embed_built_in(struct memory *memory, struct context *ctx, str text,
                           const float **vector, struct error *e)
{
    struct embed_request request = {.model = S("built-in"),
                                    .texts = &text,
                                    .text_count = 1,
                                    .dimensions = (int64_t) memory->index->dimension};
    struct embed_reply reply = {0};
    return provider_embed(memory->built_in, ctx, NULL, &request, &reply, e) &&
           take_vector(memory, &reply, vector, e);
}

static bool embed_governed(struct memory *memory, struct context *ctx,
                           const struct memory_text *text, const float **vector, struct error *e)
{
    struct plain_call *plain = ARENA_NEW(ctx->arena, struct plain_call);
    struct plain_embed *embed = ARENA_NEW(ctx->arena, struct plain_embed);
    struct error failure = {0};
    struct plain_request request = {
        .model = memory->model,
        .session_id = text->session_id,
        .input_tokens_bound = embed_tokens_bound(text->text, false),
        .choices = 1,
        .dialect = MEMORY_DIALECT,
        .kind = "embedding",
    };
    if (!plain_call_begin(memory->o, ctx, text->principal, &request, plain, e))
        return error_wrap(e, "memory.embedding_model");
    *embed = (struct plain_embed){.plain = plain,
                                  .batch = memory->batch,
                                  .arena = ctx->arena,
                                  .request = {.texts = &text->text, .text_count = 1}};
    struct context call;
    context_init_child(&call, ctx, context_deadline_in(ctx, plain_embed_total_ms(plain)));
    bool ok = plain_embed_run(memory->o, &call, embed, &failure) &&
              take_vector(memory, &embed->outcome.reply, vector, &failure);
    context_deinit(&call);
    plain_call_end(memory->o, plain, PLAIN_CACHE_NONE, ok ? NULL : &failure);
    return ok || error_copy(e, &failure);
}

bool memory_embed(struct memory *memory, struct context *ctx, const struct memory_text *text,
                  const float **vector, struct error *e)
{
    return memory->built_in ? embed_built_in(memory, ctx, text->text, vector, e)
                            : embed_governed(memory, ctx, text, vector, e);
}

int64_t memory_tokens_bound(const struct memory *memory, str text)
{
    return memory->built_in ? 0 : embed_tokens_bound(text, false);
}

/* ---- at the start ---- */

/* One word, told to each target; nobody's account: it is the operator's own question. */
static bool check_target(struct memory *memory, struct context *ctx,
                         const struct model_target *target, struct error *e)
{
    str word = S("dimension");
    const float *vector;
    struct error failure = {0};
    struct embed_outcome *outcome = ARENA_NEW(ctx->arena, struct embed_outcome);
    struct embed_call call = {
        .provider = target->provider,
        .request = {.model = target->model, .texts = &word, .text_count = 1},
    };
    if (embed_batch_run(memory->batch, ctx, &call, outcome, &failure))
        return take_vector(memory, &outcome->reply, &vector, e);
    LOG_WARN("orchestrator.memory",
             S("the embedding model does not tell its dimension; each call looks at it"),
             LOG_STR("nexus.provider", target->provider->name),
             LOG_STR("error.message", str_from_cstr(failure.message)));
    return failure.reason != REASON_UNSUPPORTED ||
           error_set(e, REASON_CONFIG,
                     "memory.embedding_model: provider \"" STR_FMT "\" makes no embeddings",
                     STR_ARG(target->provider->name));
}

bool memory_check(struct memory *memory, struct context *ctx, struct error *e)
{
    if (memory->built_in)
        return true;
    const struct settings *settings = orchestrator_acquire(memory->o);
    const struct model *model = catalog_find(settings->catalog, memory->model);
    bool ok = model || error_set(e, REASON_CONFIG,
                                 "memory.embedding_model: there is no model \"" STR_FMT "\"",
                                 STR_ARG(memory->model));
    for (size_t i = 0; ok && i < model->target_count; i++) {
        struct context call;
        context_init_child(&call, ctx, context_deadline_in(ctx, MEMORY_CHECK_MS));
        ok = check_target(memory, &call, &model->targets[i], e);
        context_deinit(&call);
    }
    orchestrator_release(settings);
    return ok;
}
