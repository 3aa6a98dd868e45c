/* The openai provider's embeddings: POST /embeddings. */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/embed_format.h"
#include "llm/openai_internal.h"

static may_suspend bool send_texts(struct openai *openai, struct context *ctx,
                                   const struct provider_call *how, struct arena *scratch,
                                   const struct embed_request *request, struct http_exchange **out,
                                   struct error *e)
{
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, scratch, PROVIDER_REQUEST_BYTES_MAX);
    json_writer_init(&w, &body);
    embed_write_request(&w, request);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_TOO_LARGE,
                         "the request to provider " STR_FMT " is over %u bytes",
                         STR_ARG(openai->base.name), PROVIDER_REQUEST_BYTES_MAX);
    struct provider_http_request what = {.method = HTTP_POST,
                                         .path = S("/embeddings"),
                                         .body = strbuf_str(&body),
                                         .accept = S("application/json")};
    return provider_http_send(&openai->http, ctx, how, scratch, &what, out, e);
}

/* The text and the tree of an answer are large and short-lived: on the scratch arena, not on ctx's. */
static may_suspend bool read_answer(struct openai *openai, struct context *ctx,
                                    struct arena *scratch, struct http_exchange *exchange,
                                    const struct json **out, struct error *e)
{
    str body;
    struct context reading;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = EMBED_ANSWER_BYTES_MAX, .allow_duplicates = true};
    context_init_child(&reading, ctx, ctx->deadline_ns);
    reading.arena = scratch;
    bool is_read = http_exchange_read_all(exchange, &reading, EMBED_ANSWER_BYTES_MAX, &body, e) ||
                   provider_http_fail(&openai->base, &reading, e);
    context_deinit(&reading);
    if (!is_read)
        return false;
    if (json_parse(scratch, body, limits, out, &parse))
        return true;
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": the answer is not JSON: %s", STR_ARG(openai->base.name),
                     parse.message);
}

bool openai_embed(struct provider *provider, struct context *ctx, const struct provider_call *how,
                  const struct embed_request *request, struct embed_reply *reply, struct error *e)
{
    struct openai *openai = openai_of(provider);
    OWNED(arena) scratch = arena_create(EMBED_ARENA_BYTES_MAX);
    OWNED(http_exchange) exchange = NULL;
    const struct json *body;
    if (!send_texts(openai, ctx, how, scratch, request, &exchange, e))
        return false;
    if (http_exchange_status(exchange) != 200)
        return provider_http_fail_status(&openai->http, ctx, exchange, e);
    if (!read_answer(openai, ctx, scratch, exchange, &body, e))
        return false;
    return embed_read_reply(ctx->arena, body, request, reply, e) ||
           provider_http_fail_named(provider, e);
}
