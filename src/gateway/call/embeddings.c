/*
 * POST /v1/embeddings: one governed call of an embedder, attempt after attempt, its texts in batches with others'.
 */
#include "gateway/call/embeddings.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "llm/embed_format.h"
#include "llm/guard_large.h"
#include "orchestrator/usage/plain_embed.h"

#define EMBEDDINGS_DIALECT "openai_embeddings"
enum { EMBED_BODY_SMALL_BYTES = 1 << 20, EMBED_WHOLE_BYTES_MAX = 1 << 20, EMBED_ITEM_BYTES = 96 };

struct embedding {
    struct api_call *call;
    struct embeddings_request *request;
    struct plain_call plain;
    struct context ctx;  /* the call's, with the total deadline */
    struct arena *arena; /* of the vectors */
    struct plain_embed embed;
    struct cache_fill *fill; /* NULL: the answer is not kept */
    bool is_inner; /* for another call of ours: its tokens count, but nothing is told of the rate */
};

/* ---- which models ---- */

static bool is_named_embedder(str name)
{
    return str_find(name, S("embed")) != STR_NOT_FOUND;
}

bool embeddings_model_fits(const struct model *model)
{
    bool fits = model->is_embedder || is_named_embedder(model->name);
    for (size_t i = 0; i < model->target_count && !fits; i++) {
        const struct model_target *target = &model->targets[i];
        fits = target->provider->ops->is_stand_in || is_named_embedder(target->model);
    }
    return fits;
}

/* Told before anything is reserved or recorded; the name is looked up again by the call. */
static bool check_model(struct api_call *call, str name, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct model *model = catalog_find(settings->catalog, name);
    bool ok = model || catalog_error_unknown(settings->catalog, name, e);
    if (ok && !embeddings_model_fits(model))
        ok = error_set(e, REASON_UNSUPPORTED,
                       "model \"" STR_FMT "\" makes no embeddings; ask for an embedding model, or "
                       "set `embedder: true` for it",
                       STR_ARG(name));
    orchestrator_release(settings);
    return ok;
}

/* ---- attempts ---- */

static never_inline bool run_attempts(struct embedding *m, bool is_tried_once, struct error *e)
{
    m->embed = (struct plain_embed){.plain = &m->plain,
                                    .batch = m->call->gateway->embed_batch,
                                    .arena = m->arena,
                                    .request = m->request->embed,
                                    .is_tried_once = is_tried_once};
    return plain_embed_run(m->call->gateway->orchestrator, &m->ctx, &m->embed, e);
}

/* ---- the answer ---- */

static void write_vector(struct strbuf *out, const float *vector, size_t dimension, bool is_base64,
                         struct arena *scratch)
{
    if (is_base64) {
        char *bytes = arena_alloc_raw(scratch, dimension * sizeof(float));
        embed_pack(vector, dimension, bytes);
        strbuf_add_char(out, '"');
        strbuf_add(out, base64_encode(scratch, str_of(bytes, dimension * sizeof(float))));
        strbuf_add_char(out, '"');
        return;
    }
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < dimension; i++) {
        char number[EMBED_NUMBER_BYTES];
        if (i > 0)
            strbuf_add_char(out, ',');
        strbuf_add(out, str_of(number, embed_print_number(vector[i], number)));
    }
    strbuf_add_char(out, ']');
}

static void write_embedding(struct embedding *m, struct strbuf *out, size_t index,
                            struct arena *scratch)
{
    const struct embed_reply *reply = &m->embed.outcome.reply;
    strbuf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":",
                  index ? "," : "{\"object\":\"list\",\"data\":[", index);
    write_vector(out, reply->vectors[index], reply->dimension, m->request->is_base64, scratch);
    strbuf_add_char(out, '}');
}

static void write_end(struct embedding *m, struct strbuf *out)
{
    struct json_writer w;
    int64_t tokens = m->plain.usage.input_tokens;
    strbuf_add(out, S("],\"model\":"));
    json_writer_init(&w, out);
    json_write_str(&w, m->request->embed.model);
    strbuf_printf(out, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}",
                  (long long) tokens, (long long) tokens);
}

/* Upper bound of the answer's text. */
static size_t answer_bytes(const struct embedding *m)
{
    const struct embed_reply *reply = &m->embed.outcome.reply;
    size_t number = m->request->is_base64 ? 6 : EMBED_NUMBER_BYTES;
    return m->request->embed.text_count * (reply->dimension * number + EMBED_ITEM_BYTES) +
           6 * m->request->embed.model.len + 4 * EMBED_ITEM_BYTES;
}

static bool send_piece(struct embedding *m, struct strbuf *out, bool is_last, struct error *e)
{
    if (!is_last && out->len < EMBED_REPLY_PIECE_BYTES)
        return true;
    bool ok = http_reply_write(m->call->request, strbuf_str(out), e);
    strbuf_truncate(out, 0);
    return ok;
}

/* A large one goes out as it is written, so that it is never there twice. */
static never_inline bool send_large(struct embedding *m, struct error *e)
{
    struct strbuf out;
    OWNED(arena) scratch = arena_create(0);
    strbuf_init(&out, m->arena, SIZE_MAX / 2);
    cache_fill_abandon(GIVE(m->fill));
    if (!reply_stream_begin(m->call, S("application/json"), e))
        return false;
    for (size_t i = 0; i < m->request->embed.text_count; i++) {
        arena_mark mark = arena_save(scratch);
        write_embedding(m, &out, i, scratch);
        arena_rewind(scratch, mark);
        if (!send_piece(m, &out, false, e))
            return false;
    }
    write_end(m, &out);
    if (!send_piece(m, &out, true, e))
        return false;
    http_reply_end(m->call->request);
    return true;
}

static never_inline void send_small(struct embedding *m)
{
    struct strbuf out;
    strbuf_init(&out, m->arena, SIZE_MAX / 2);
    for (size_t i = 0; i < m->request->embed.text_count; i++)
        write_embedding(m, &out, i, m->arena);
    write_end(m, &out);
    if (m->fill)
        reply_header(m->call, S("Nexus-Cache"), S("miss"));
    reply_send(m->call, 200, S("application/json"), strbuf_str(&out));
    if (m->fill) {
        cache_fill_add(m->fill, strbuf_str(&out));
        cache_fill_commit(GIVE(m->fill), 200, S("application/json"), false, &m->plain.usage);
    }
}

static bool send_answer(struct embedding *m, struct error *e)
{
    if (m->embed.provider->ops->is_stand_in)
        reply_header(m->call, S("Nexus-Stand-In"), m->embed.provider->name);
    if (answer_bytes(m) > EMBED_WHOLE_BYTES_MAX)
        return send_large(m, e);
    send_small(m);
    return true;
}

/* ---- the cache ---- */

static void send_hit(struct embedding *m, const struct cache_answer *hit)
{
    struct api_call *call = m->call;
    int64_t age_s = (clock_unix_us(call->gateway->clock) - hit->stored_us) / 1000000;
    reply_header(
        call, S("Nexus-Cache"),
        str_printf(call->ctx->arena, "hit; age=%lld", (long long) (age_s > 0 ? age_s : 0)));
    reply_send(call, hit->status, hit->content_type, hit->body);
}

static bool may_use_cache(const struct embedding *m)
{
    str control = http_request_header(m->call->request, S("Cache-Control"));
    return m->call->gateway->cache && m->plain.model->cache.mode != MODEL_CACHE_OFF &&
           str_find(control, S("no-cache")) == STR_NOT_FOUND &&
           str_find(control, S("no-store")) == STR_NOT_FOUND;
}

/* True: answered by what was made before. */
static never_inline bool look_up(struct embedding *m, const struct json *body)
{
    struct cache_key key;
    struct cache_answer *hit = ARENA_NEW(m->call->ctx->arena, struct cache_answer);
    if (!may_use_cache(m))
        return false;
    struct model_cache rule = m->plain.model->cache;
    rule.mode = MODEL_CACHE_EXACT; /* a vector has no neighbour that would do */
    cache_key_make(m->arena, m->call->principal.tenant_id,
                   rule.is_tenant_wide ? STR_NONE : m->call->principal.user_id, EMBEDDINGS_DIALECT,
                   m->request->embed.model, m->plain.settings->version, body, &key);
    if (response_cache_begin(m->call->gateway->cache, &m->ctx, &key, &rule, hit, &m->fill) !=
        CACHE_HIT)
        return false;
    send_hit(m, hit);
    return true;
}

/* ---- the content filter ---- */

/* Every text before it goes out; tokens cannot be read. */
static never_inline bool filter_texts(struct embedding *m, struct error *e)
{
    struct embed_request *embed = &m->request->embed;
    const struct guard_rules *rules = m->plain.model->guard;
    if (!guard_is_on(rules, GUARD_REQUEST))
        return true;
    if (embed->are_tokens)
        return error_set(e, REASON_INVALID,
                         "model \"" STR_FMT
                         "\" has a content filter, which reads texts: send texts, "
                         "not tokens",
                         STR_ARG(embed->model));
    str *texts = ARENA_ARRAY(m->arena, str, embed->text_count);
    for (size_t i = 0; i < embed->text_count; i++)
        texts[i] = embed->texts[i];
    struct guard_caller caller = {&m->ctx, m->arena, rules, m->plain.found, GUARD_REQUEST};
    if (!guard_large_texts(&caller, texts, embed->text_count, e))
        return false;
    embed->texts = texts;
    return true;
}

/* ---- one call ---- */

static bool take_rate(struct embedding *m, struct error *e)
{
    if (!m->is_inner)
        return middleware_take_tokens(m->call, m->request->tokens_bound, e);
    middleware_correct_tokens(m->call->gateway, &m->call->principal, m->request->tokens_bound);
    return true;
}

static bool begin(struct embedding *m, struct error *e)
{
    struct api_call *call = m->call;
    const struct embeddings_request *request = m->request;
    struct plain_request plain = {
        .model = request->embed.model,
        .input_tokens_bound = request->tokens_bound,
        .choices = 1,
        .dialect = EMBEDDINGS_DIALECT,
        .kind = "embedding",
    };
    if (!principal_check_model(&call->principal, plain.model, e) ||
        !check_model(call, plain.model, e) || !take_rate(m, e))
        return false;
    if (plain_call_begin(call->gateway->orchestrator, call->ctx, &call->principal, &plain,
                         &m->plain, e)) {
        reply_call_id(call, m->plain.id);
        return true;
    }
    middleware_correct_tokens(call->gateway, &call->principal, -request->tokens_bound);
    return false;
}

static void end(struct embedding *m, enum plain_cache cache, const struct error *failure)
{
    struct gateway *gateway = m->call->gateway;
    cache_fill_abandon(GIVE(m->fill));
    middleware_correct_tokens(gateway, &m->call->principal,
                              m->plain.usage.input_tokens - m->request->tokens_bound);
    plain_call_end(gateway->orchestrator, &m->plain, cache, failure);
}

static bool serve(struct api_call *call, struct embeddings_request *request,
                  const struct json *body, struct error *e)
{
    OWNED(arena) vectors = arena_create(EMBED_ARENA_BYTES_MAX);
    struct embedding *m = ARENA_NEW(call->ctx->arena, struct embedding);
    struct error failure = {0};
    m->call = call;
    m->request = request;
    m->arena = vectors;
    if (!begin(m, e))
        return false;
    context_init_child(&m->ctx, call->ctx,
                       context_deadline_in(call->ctx, plain_embed_total_ms(&m->plain)));
    bool is_clean = filter_texts(m, &failure);
    bool is_hit = is_clean && look_up(m, body);
    bool ok = is_hit || (is_clean && run_attempts(m, false, &failure) && send_answer(m, &failure));
    context_deinit(&m->ctx);
    end(m, is_hit ? PLAIN_CACHE_EXACT : PLAIN_CACHE_NONE, ok ? NULL : &failure);
    return ok || error_copy(e, &failure);
}

bool route_embeddings(struct api_call *call, struct error *e)
{
    OWNED(arena) large =
        call->body.len > EMBED_BODY_SMALL_BYTES ? arena_create(EMBED_ARENA_BYTES_MAX) : NULL;
    struct arena *arena = large ? large : call->ctx->arena;
    struct embeddings_request *request = ARENA_NEW(call->ctx->arena, struct embeddings_request);
    struct json_limits limits = {.bytes_max = GATEWAY_CHAT_BODY_BYTES_MAX};
    const struct json *body;
    return json_parse(arena, call->body, limits, &body, e) &&
           embeddings_read(arena, body, request, e) && serve(call, request, body, e);
}

/* ---- for the semantic cache ---- */

/* One text, one attempt: what does not come in time is a miss. */
static bool embed_question(void *owner, struct context *ctx, str model, str text,
                           const float **vector, size_t *dimension, struct error *e)
{
    struct api_call *call = owner;
    struct embeddings_request *request = ARENA_NEW(ctx->arena, struct embeddings_request);
    struct embedding *m = ARENA_NEW(ctx->arena, struct embedding);
    struct error failure = {0};
    str *texts = ARENA_NEW(ctx->arena, str);
    *texts = text;
    request->embed = (struct embed_request){.model = model, .texts = texts, .text_count = 1};
    request->tokens_bound = embed_tokens_bound(text, false);
    m->call = call;
    m->request = request;
    m->arena = ctx->arena;
    m->is_inner = true;
    if (!begin(m, e))
        return false;
    context_init_child(&m->ctx, ctx, ctx->deadline_ns);
    bool ok = filter_texts(m, &failure) && run_attempts(m, true, &failure);
    context_deinit(&m->ctx);
    end(m, PLAIN_CACHE_NONE, ok ? NULL : &failure);
    if (!ok)
        return error_copy(e, &failure);
    *vector = m->embed.outcome.reply.vectors[0];
    *dimension = m->embed.outcome.reply.dimension;
    return true;
}

bool embeddings_find_similar(const struct embeddings_lookup *lookup, struct context *ctx,
                             struct cache_fill **fill, struct cache_answer *answer)
{
    struct semantic_question *question = ARENA_NEW(ctx->arena, struct semantic_question);
    struct cache_embedder embedder = {.embed = embed_question, .owner = lookup->call};
    return lookup->rule->mode == MODEL_CACHE_SEMANTIC &&
           semantic_question_make(ctx->arena, lookup->key, lookup->scope_user, lookup->dialect,
                                  lookup->model, lookup->settings_version, lookup->request,
                                  question) &&
           response_cache_semantic(lookup->call->gateway->cache, ctx, question, lookup->rule,
                                   &embedder, fill, answer);
}
