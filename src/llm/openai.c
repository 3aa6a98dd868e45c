/*
 * The openai provider: any server that speaks OpenAI Chat Completions.
 *
 * The address is base_url + path; a query of the base URL ("?api-version=...") stays behind the
 * path.  Keys are used in turn.
 * A key is copied into the request's headers for the time of sending and wiped behind it.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/secret.h"
#include "llm/openai_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

struct openai {
    struct provider base;
    struct arena *arena; /* of the strings below */
    struct provider_options options;
    struct http_url
        url;   /* path_query: the base's path, without slash at its end and without query */
    str query; /* with its '?', or empty */
    struct secret *keys[PROVIDER_KEYS_MAX];
    size_t key_count;
    atomic_size_t next_key;
    enum openai_limit limit;
};

static struct openai *of(struct provider *provider)
{
    return CONTAINER_OF(provider, struct openai, base);
}

/* ---- errors ---- */

/* What the HTTP client says, as a failure of this provider.  Our own deadline and cancellation stay
 * what they are. */
static bool fail_http(const struct provider *provider, struct context *ctx, struct error *e)
{
    struct error own = {0};
    enum error_reason reason = e->reason;
    if (e->code == ERROR_CANCELLED)
        return false;
    if (!context_check(ctx, &own))
        return error_copy(e, &own);
    if (e->code == ERROR_TIMEOUT)
        reason = REASON_PROVIDER_TIMEOUT;
    else if (e->reason == REASON_OVERLOADED_HERE || e->code == ERROR_DENIED)
        return error_wrap(e, "provider " STR_FMT, STR_ARG(provider->name));
    else if (e->code == ERROR_UNAVAILABLE)
        reason = REASON_PROVIDER_NETWORK;
    else
        reason = REASON_PROVIDER_PROTOCOL;
    struct error mapped = {0};
    error_set(&mapped, reason, "provider " STR_FMT ": %s", STR_ARG(provider->name), e->message);
    mapped.retry_after_ms = e->retry_after_ms;
    return error_copy(e, &mapped);
}

static bool fail_named(const struct provider *provider, struct error *e)
{
    return error_wrap(e, "provider " STR_FMT, STR_ARG(provider->name));
}

/* ---- sending ---- */

static bool is_azure(str host)
{
    return str_ends_with(host, S(".openai.azure.com"));
}

/* Gives the buffer that holds the key, to be wiped. */
static str add_key(struct openai *openai, struct arena *arena, struct http_headers *headers)
{
    if (openai->key_count == 0)
        return STR_NONE;
    size_t turn = atomic_fetch_add_explicit(&openai->next_key, 1, memory_order_relaxed);
    str key = secret_reveal(openai->keys[turn % openai->key_count]);
    bool is_bare = is_azure(openai->url.host);
    str value = is_bare ? str_copy(arena, key) : str_printf(arena, "Bearer " STR_FMT, STR_ARG(key));
    http_headers_add(headers, arena, is_bare ? S("api-key") : S("Authorization"), value);
    return value;
}

struct sending {
    enum http_method method;
    str path, body, accept;
};

static may_suspend bool send(struct openai *openai, struct context *ctx, struct arena *scratch,
                             const struct sending *what, struct http_exchange **out,
                             struct error *e)
{
    struct http_headers headers = {0};
    http_headers_add(&headers, scratch, S("Accept"), what->accept);
    http_headers_add(&headers, scratch, S("User-Agent"), S("nexus"));
    if (what->method == HTTP_POST)
        http_headers_add(&headers, scratch, S("Content-Type"), S("application/json"));
    str key = add_key(openai, scratch, &headers);
    struct http_client_request request = {
        .method = what->method,
        .url = openai->url,
        .headers = &headers,
        .body = what->body,
        .connect_timeout_ms = openai->options.connect_timeout_ms,
        .first_byte_timeout_ms = openai->options.first_byte_timeout_ms,
        .idle_timeout_ms = openai->options.idle_timeout_ms,
    };
    request.url.path_query =
        str_printf(scratch, STR_FMT STR_FMT STR_FMT, STR_ARG(openai->url.path_query),
                   STR_ARG(what->path), STR_ARG(openai->query));
    struct http_client *client = openai->options.client_of_loop(openai->options.client_owner);
    bool is_sent = http_client_send(client, ctx, &request, out, e);
    if (key.len > 0)
        explicit_bzero((char *) (uintptr_t) key.ptr, key.len);
    return is_sent || fail_http(&openai->base, ctx, e);
}

/* ---- answers ---- */

static int64_t retry_after(struct context *ctx, const struct http_exchange *exchange)
{
    const struct http_headers *headers = http_exchange_headers(exchange);
    return openai_retry_after_ms(http_headers_get(headers, S("retry-after-ms")),
                                 http_headers_get(headers, S("retry-after")), context_now_us(ctx));
}

/* Reads an error's body (as much as there is) and gives its class. */
static may_suspend bool fail_status(struct openai *openai, struct context *ctx,
                                    struct http_exchange *exchange, struct error *e)
{
    str body = STR_NONE;
    struct error unread = {0};
    if (!http_exchange_read_all(exchange, ctx, PROVIDER_ERROR_BODY_BYTES_MAX, &body, &unread)) {
        if (unread.code == ERROR_CANCELLED)
            return error_copy(e, &unread);
        body = STR_NONE; /* the status says enough */
    }
    openai_error_from_status(http_exchange_status(exchange), body, retry_after(ctx, exchange),
                             ctx->arena, e);
    return fail_named(&openai->base, e);
}

static may_suspend bool read_json(struct openai *openai, struct context *ctx,
                                  struct http_exchange *exchange, const struct json **out,
                                  struct error *e)
{
    str body;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_ANSWER_BYTES_MAX, .allow_duplicates = true};
    if (http_exchange_status(exchange) != 200)
        return fail_status(openai, ctx, exchange, e);
    if (!http_exchange_read_all(exchange, ctx, PROVIDER_ANSWER_BYTES_MAX, &body, e))
        return fail_http(&openai->base, ctx, e);
    if (json_parse(ctx->arena, body, limits, out, &parse))
        return true;
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": the answer is not JSON: %s", STR_ARG(openai->base.name),
                     parse.message);
}

static may_suspend bool send_prompt(struct openai *openai, struct context *ctx,
                                    const struct prompt *prompt, bool is_stream,
                                    struct http_exchange **out, struct error *e)
{
    OWNED(arena) scratch = arena_create(PROVIDER_REQUEST_BYTES_MAX * 2);
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, scratch, PROVIDER_REQUEST_BYTES_MAX);
    json_writer_init(&w, &body);
    openai_write_request_for(&w, prompt, is_stream, openai->limit);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_TOO_LARGE,
                         "the request to provider " STR_FMT " is over %u bytes",
                         STR_ARG(openai->base.name), PROVIDER_REQUEST_BYTES_MAX);
    struct sending what = {
        .method = HTTP_POST,
        .path = S("/chat/completions"),
        .body = strbuf_str(&body),
        .accept = is_stream ? S("text/event-stream") : S("application/json"),
    };
    return send(openai, ctx, scratch, &what, out, e);
}

static bool openai_complete(struct provider *provider, struct context *ctx,
                            const struct prompt *prompt, struct reply *reply, struct error *e)
{
    struct openai *openai = of(provider);
    OWNED(http_exchange) exchange = NULL;
    const struct json *body;
    if (!send_prompt(openai, ctx, prompt, false, &exchange, e) ||
        !read_json(openai, ctx, exchange, &body, e))
        return false;
    return openai_read_reply(ctx->arena, body, reply, e) || fail_named(provider, e);
}

static bool openai_stream(struct provider *provider, struct context *ctx,
                          const struct prompt *prompt, struct reply_stream **out, struct error *e)
{
    struct openai *openai = of(provider);
    OWNED(http_exchange) exchange = NULL;
    if (!send_prompt(openai, ctx, prompt, true, &exchange, e))
        return false;
    if (http_exchange_status(exchange) != 200)
        return fail_status(openai, ctx, exchange, e);
    str type = http_headers_get(http_exchange_headers(exchange), S("content-type"));
    if (str_starts_with(
            type, S("application/json"))) { /* an error in a 200, or a server that cannot stream */
        const struct json *body;
        struct reply reply;
        if (!read_json(openai, ctx, exchange, &body, e))
            return false;
        if (!openai_read_reply(ctx->arena, body, &reply, e))
            return fail_named(provider, e);
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "provider " STR_FMT ": answered a stream request with one whole answer",
                         STR_ARG(provider->name));
    }
    *out = openai_stream_create(provider, GIVE(exchange));
    return true;
}

static bool openai_forward(struct provider *provider, struct context *ctx, str path, str body,
                           struct http_exchange **out, struct error *e)
{
    OWNED(arena) scratch = arena_create(0);
    struct sending what = {.method = HTTP_POST, .path = path, .body = body, .accept = S("*/*")};
    return send(of(provider), ctx, scratch, &what, out, e);
}

static bool openai_models(struct provider *provider, struct context *ctx, str **names,
                          size_t *count, struct error *e)
{
    struct openai *openai = of(provider);
    OWNED(http_exchange) exchange = NULL;
    OWNED(arena) scratch = arena_create(0);
    struct sending what = {
        .method = HTTP_GET, .path = S("/models"), .accept = S("application/json")};
    const struct json *body;
    if (!send(openai, ctx, scratch, &what, &exchange, e) ||
        !read_json(openai, ctx, exchange, &body, e))
        return false;
    return openai_read_models(ctx->arena, body, names, count, e) || fail_named(provider, e);
}

static void openai_destroy(struct provider *provider)
{
    struct openai *openai = of(provider);
    for (size_t i = 0; i < openai->key_count; i++)
        secret_destroy(openai->keys[i]);
    arena_destroy(openai->arena);
    free(openai);
}

static const struct provider_ops openai_ops = {
    .name = "openai",
    .dialect = DIALECT_OPENAI_CHAT,
    .complete = openai_complete,
    .stream = openai_stream,
    .forward = openai_forward,
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

static bool set_url(struct openai *openai, str base_url, struct error *e)
{
    str path, query;
    if (!http_url_parse(base_url, &openai->url, e))
        return false;
    if (!str_cut(openai->url.path_query, '?', &path, &query))
        query = STR_NONE;
    while (str_ends_with(path, S("/")))
        path.len--;
    openai->url.path_query = path;
    if (query.len > 0)
        openai->query = str_printf(openai->arena, "?" STR_FMT, STR_ARG(query));
    openai->limit = limit_of_host(openai->url.host);
    return true;
}

static bool set_keys(struct openai *openai, const struct provider_options *options, struct error *e)
{
    if (options->api_key_count > PROVIDER_KEYS_MAX)
        return error_set(e, REASON_CONFIG, "%zu api_keys are too many, at most %d are possible",
                         options->api_key_count, PROVIDER_KEYS_MAX);
    for (size_t i = 0; i < options->api_key_count; i++) {
        str key = str_trim(options->api_keys[i]);
        if (key.len == 0 || !http_header_is_safe(S("Authorization"), key))
            return error_set(
                e, REASON_CONFIG,
                "api_keys[%zu] is empty or holds a line break; check its variable or file", i);
        openai->keys[openai->key_count++] = secret_create(key);
    }
    return true;
}

bool provider_openai_create(const struct provider_options *options, struct provider **out,
                            struct error *e)
{
    struct openai *openai = calloc(1, sizeof *openai);
    ensure(openai != NULL && options->client_of_loop != NULL);
    openai->arena = arena_create(0);
    openai->options = *options;
    openai->options.name = openai->options.base_url = STR_NONE; /* the caller's memory */
    openai->options.api_keys = NULL;                            /* only the secrets hold them */
    openai->options.api_key_count = 0;
    openai->base =
        (struct provider){.ops = &openai_ops, .name = str_copy(openai->arena, options->name)};
    if (!set_url(openai, str_copy(openai->arena, options->base_url), e) ||
        !set_keys(openai, options, e)) {
        error_wrap(e, "provider " STR_FMT, STR_ARG(options->name));
        openai_destroy(&openai->base);
        return false;
    }
    *out = &openai->base;
    return true;
}
