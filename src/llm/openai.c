/*
 * The openai provider: any server that speaks OpenAI Chat Completions.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/openai_internal.h"

#include <stdlib.h>

struct openai *openai_of(struct provider *provider)
{
    return CONTAINER_OF(provider, struct openai, base);
}

static bool is_azure(str host)
{
    return str_ends_with(host, S(".openai.azure.com"));
}

static may_suspend bool send_prompt(struct openai *openai, struct context *ctx,
                                    const struct provider_call *how, const struct prompt *prompt,
                                    bool is_stream, struct http_exchange **out, struct error *e)
{
    OWNED(arena) scratch = arena_create(PROVIDER_REQUEST_BYTES_MAX * 2);
    struct strbuf body;
    struct json_writer w;
    if (!openai_check_prompt(scratch, prompt, e))
        return provider_http_fail_named(&openai->base, e);
    strbuf_init(&body, scratch, PROVIDER_REQUEST_BYTES_MAX);
    json_writer_init(&w, &body);
    openai_write_request_for(&w, prompt, is_stream, openai->limit);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_TOO_LARGE,
                         "the request to provider " STR_FMT " is over %u bytes",
                         STR_ARG(openai->base.name), PROVIDER_REQUEST_BYTES_MAX);
    struct provider_http_request request = {
        .method = HTTP_POST,
        .path = S("/chat/completions"),
        .body = strbuf_str(&body),
        .accept = is_stream ? S("text/event-stream") : S("application/json"),
    };
    return provider_http_send(&openai->http, ctx, how, scratch, &request, out, e);
}

static bool openai_complete(struct provider *provider, struct context *ctx,
                            const struct provider_call *how, const struct prompt *prompt,
                            struct reply *reply, struct error *e)
{
    struct openai *openai = openai_of(provider);
    OWNED(http_exchange) exchange = NULL;
    const struct json *body;
    if (!send_prompt(openai, ctx, how, prompt, false, &exchange, e) ||
        !provider_http_read_json(&openai->http, ctx, exchange, &body, e))
        return false;
    return openai_read_reply(ctx->arena, body, reply, e) || provider_http_fail_named(provider, e);
}

/* An error in a 200, or a server that cannot stream. */
static may_suspend bool fail_whole(struct openai *openai, struct context *ctx,
                                   struct http_exchange *exchange, struct error *e)
{
    const struct json *body;
    struct reply reply;
    if (!provider_http_read_json(&openai->http, ctx, exchange, &body, e))
        return false;
    if (!openai_read_reply(ctx->arena, body, &reply, e))
        return provider_http_fail_named(&openai->base, e);
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": answered a stream request with one whole answer",
                     STR_ARG(openai->base.name));
}

static bool openai_stream(struct provider *provider, struct context *ctx,
                          const struct provider_call *how, const struct prompt *prompt,
                          struct reply_stream **out, struct error *e)
{
    struct openai *openai = openai_of(provider);
    OWNED(http_exchange) exchange = NULL;
    if (!send_prompt(openai, ctx, how, prompt, true, &exchange, e))
        return false;
    if (http_exchange_status(exchange) != 200)
        return provider_http_fail_status(&openai->http, ctx, exchange, e);
    if (provider_http_is_json(exchange))
        return fail_whole(openai, ctx, exchange, e);
    *out = provider_stream_create(provider, &openai_stream_reader, GIVE(exchange));
    return true;
}

static bool openai_forward(struct provider *provider, struct context *ctx,
                           const struct provider_call *how, str path, str body,
                           struct http_exchange **out, struct error *e)
{
    OWNED(arena) scratch = arena_create(0);
    struct provider_http_request request = {.method =
                                                how && how->is_delete ? HTTP_DELETE : HTTP_POST,
                                            .path = path,
                                            .body = body,
                                            .accept = S("*/*")};
    return provider_http_send(&openai_of(provider)->http, ctx, how, scratch, &request, out, e);
}

static bool openai_models(struct provider *provider, struct context *ctx, str **names,
                          size_t *count, struct error *e)
{
    struct openai *openai = openai_of(provider);
    OWNED(http_exchange) exchange = NULL;
    OWNED(arena) scratch = arena_create(0);
    struct provider_http_request request = {
        .method = HTTP_GET, .path = S("/models"), .accept = S("application/json")};
    const struct json *body;
    if (!provider_http_send(&openai->http, ctx, NULL, scratch, &request, &exchange, e) ||
        !provider_http_read_json(&openai->http, ctx, exchange, &body, e))
        return false;
    return provider_http_read_models(ctx->arena, body, names, count, e) ||
           provider_http_fail_named(provider, e);
}

static void openai_destroy(struct provider *provider)
{
    struct openai *openai = openai_of(provider);
    provider_http_deinit(&openai->http);
    free(openai);
}

static const struct provider_ops openai_ops = {
    .name = "openai",
    .complete = openai_complete,
    .stream = openai_stream,
    .forward = openai_forward,
    .embed = openai_embed,
    .models = openai_models,
    .destroy = openai_destroy,
};

/* ---- creation ---- */

/* OpenAI's own hosts want max_completion_tokens (their reasoning models refuse the old name); all
 * others know max_tokens. */
static enum openai_limit limit_of_host(str host)
{
    bool is_openai = str_equal(host, S("api.openai.com")) ||
                     str_ends_with(host, S(".api.openai.com")) || is_azure(host);
    return is_openai ? OPENAI_MAX_COMPLETION_TOKENS : OPENAI_MAX_TOKENS;
}

bool provider_openai_create(const struct provider_options *options, struct provider **out,
                            struct error *e)
{
    struct provider_http_words words = {.key_header = S("Authorization"),
                                        .key_prefix = S("Bearer "),
                                        .error_from_status = openai_error_from_status};
    struct openai *openai = calloc(1, sizeof *openai);
    ensure(openai != NULL);
    openai->base = (struct provider){.ops = &openai_ops, .speaks = 1u << DIALECT_OPENAI_CHAT};
    if (options->speaks_responses)
        openai->base.speaks |= 1u << DIALECT_OPENAI_RESPONSES;
    if (!provider_http_init(&openai->http, &openai->base, options, words, e)) {
        free(openai);
        return false;
    }
    if (is_azure(openai->http.url.host)) {
        openai->http.words.key_header = S("api-key");
        openai->http.words.key_prefix = STR_NONE;
    }
    openai->limit = limit_of_host(openai->http.url.host);
    *out = &openai->base;
    return true;
}
