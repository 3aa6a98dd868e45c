/*
 * The anthropic provider: any server that speaks the Anthropic Messages API.
 *
 * The base URL may end with /v1 or leave it out, as the official SDKs do.  Requests name the API's version 2023-06-01 unless the
 * caller's own fields do.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format.h"
#include "llm/provider_http.h"
#include "llm/provider_stream.h"

#include <stdlib.h>

struct anthropic {
    struct provider base;
    struct provider_http http;
    struct http_headers headers; /* of every request */
};

static struct anthropic *of(struct provider *provider)
{
    return CONTAINER_OF(provider, struct anthropic, base);
}

/* ---- streams ---- */

static bool read_event(void *state, struct arena *arena, const struct sse_event *event,
                       struct delta *out, size_t max, size_t *count, bool *is_done, struct error *e)
{
    const struct json *tree;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    if (!json_parse(arena, event->data, limits, &tree, &parse))
        return error_set(e, REASON_PROVIDER_PROTOCOL, "an event of the stream is not JSON: %s",
                         parse.message);
    if (!anthropic_read_event(arena, tree, state, out, max, count, e))
        return false;
    *is_done = ((const struct anthropic_stream_state *) state)->has_ended;
    return true;
}

/* A server that leaves out message_stop has still told why it stopped. */
static bool may_end(const void *state)
{
    return ((const struct anthropic_stream_state *) state)->finish != FINISH_NONE;
}

static struct delta end(const void *state)
{
    return anthropic_end_delta(state);
}

static const struct provider_stream_reader reader = {
    .state_bytes = sizeof(struct anthropic_stream_state),
    .read_event = read_event,
    .may_end = may_end,
    .end = end,
};

/* ---- calls ---- */

static may_suspend bool send_prompt(struct anthropic *anthropic, struct context *ctx,
                                    const struct provider_call *how, const struct prompt *prompt,
                                    bool is_stream, struct http_exchange **out, struct error *e)
{
    OWNED(arena) scratch = arena_create(PROVIDER_REQUEST_BYTES_MAX * 2);
    struct strbuf body;
    struct json_writer w;
    if (!anthropic_check_prompt(prompt, e))
        return provider_http_fail_named(&anthropic->base, e);
    strbuf_init(&body, scratch, PROVIDER_REQUEST_BYTES_MAX);
    json_writer_init(&w, &body);
    anthropic_write_request(&w, prompt, is_stream);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_TOO_LARGE,
                         "the request to provider " STR_FMT " is over %u bytes",
                         STR_ARG(anthropic->base.name), PROVIDER_REQUEST_BYTES_MAX);
    struct provider_http_request request = {
        .method = HTTP_POST,
        .path = S("/messages"),
        .body = strbuf_str(&body),
        .accept = is_stream ? S("text/event-stream") : S("application/json"),
        .headers = &anthropic->headers,
    };
    return provider_http_send(&anthropic->http, ctx, how, scratch, &request, out, e);
}

static bool anthropic_complete(struct provider *provider, struct context *ctx,
                               const struct provider_call *how, const struct prompt *prompt,
                               struct reply *reply, struct error *e)
{
    struct anthropic *anthropic = of(provider);
    OWNED(http_exchange) exchange = NULL;
    const struct json *body;
    if (!send_prompt(anthropic, ctx, how, prompt, false, &exchange, e) ||
        !provider_http_read_json(&anthropic->http, ctx, exchange, &body, e))
        return false;
    return anthropic_read_reply(ctx->arena, body, reply, e) ||
           provider_http_fail_named(provider, e);
}

/* An error in a 200, or a server that cannot stream. */
static may_suspend bool fail_whole(struct anthropic *anthropic, struct context *ctx,
                                   struct http_exchange *exchange, struct error *e)
{
    const struct json *body;
    struct reply reply;
    if (!provider_http_read_json(&anthropic->http, ctx, exchange, &body, e))
        return false;
    if (!anthropic_read_reply(ctx->arena, body, &reply, e))
        return provider_http_fail_named(&anthropic->base, e);
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": answered a stream request with one whole answer",
                     STR_ARG(anthropic->base.name));
}

static bool anthropic_stream(struct provider *provider, struct context *ctx,
                             const struct provider_call *how, const struct prompt *prompt,
                             struct reply_stream **out, struct error *e)
{
    struct anthropic *anthropic = of(provider);
    OWNED(http_exchange) exchange = NULL;
    if (!send_prompt(anthropic, ctx, how, prompt, true, &exchange, e))
        return false;
    if (http_exchange_status(exchange) != 200)
        return provider_http_fail_status(&anthropic->http, ctx, exchange, e);
    if (provider_http_is_json(exchange))
        return fail_whole(anthropic, ctx, exchange, e);
    *out = provider_stream_create(provider, &reader, GIVE(exchange));
    return true;
}

static bool anthropic_forward(struct provider *provider, struct context *ctx,
                              const struct provider_call *how, str path, str body,
                              struct http_exchange **out, struct error *e)
{
    struct anthropic *anthropic = of(provider);
    OWNED(arena) scratch = arena_create(0);
    struct provider_http_request request = {.method = HTTP_POST,
                                            .path = path,
                                            .body = body,
                                            .accept = S("*/*"),
                                            .headers = &anthropic->headers};
    return provider_http_send(&anthropic->http, ctx, how, scratch, &request, out, e);
}

static bool anthropic_models(struct provider *provider, struct context *ctx, str **names,
                             size_t *count, struct error *e)
{
    struct anthropic *anthropic = of(provider);
    OWNED(http_exchange) exchange = NULL;
    OWNED(arena) scratch = arena_create(0);
    struct provider_http_request request = {.method = HTTP_GET,
                                            .path = S("/models"),
                                            .accept = S("application/json"),
                                            .headers = &anthropic->headers};
    const struct json *body;
    if (!provider_http_send(&anthropic->http, ctx, NULL, scratch, &request, &exchange, e) ||
        !provider_http_read_json(&anthropic->http, ctx, exchange, &body, e))
        return false;
    return provider_http_read_models(ctx->arena, body, names, count, e) ||
           provider_http_fail_named(provider, e);
}

static void anthropic_destroy(struct provider *provider)
{
    struct anthropic *anthropic = of(provider);
    provider_http_deinit(&anthropic->http);
    free(anthropic);
}

static const struct provider_ops anthropic_ops = {
    .name = "anthropic",
    .complete = anthropic_complete,
    .stream = anthropic_stream,
    .forward = anthropic_forward,
    .models = anthropic_models,
    .destroy = anthropic_destroy,
};

bool provider_anthropic_create(const struct provider_options *options, struct provider **out,
                               struct error *e)
{
    struct provider_http_words words = {.key_header = S("x-api-key"),
                                        .error_from_status = anthropic_error_from_status};
    struct anthropic *anthropic = calloc(1, sizeof *anthropic);
    ensure(anthropic != NULL);
    anthropic->base =
        (struct provider){.ops = &anthropic_ops, .speaks = 1u << DIALECT_ANTHROPIC_MESSAGES};
    if (!provider_http_init(&anthropic->http, &anthropic->base, options, words, e)) {
        free(anthropic);
        return false;
    }
    struct http_url *url = &anthropic->http.url;
    if (!str_ends_with(url->path_query, S("/v1")))
        url->path_query =
            str_printf(anthropic->http.arena, STR_FMT "/v1", STR_ARG(url->path_query));
    http_headers_add(&anthropic->headers, anthropic->http.arena, S("anthropic-version"),
                     S("2023-06-01"));
    *out = &anthropic->base;
    return true;
}
