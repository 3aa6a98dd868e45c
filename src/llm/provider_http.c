#include "llm/provider_http.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/secret.h"
#include "llm/openai_format.h"

/* ---- errors ---- */

bool provider_http_fail(const struct provider *provider, struct context *ctx, struct error *e)
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
        return provider_http_fail_named(provider, e);
    else if (e->code == ERROR_UNAVAILABLE)
        reason = REASON_PROVIDER_NETWORK;
    else
        reason = REASON_PROVIDER_PROTOCOL;
    struct error mapped = {0};
    error_set(&mapped, reason, "provider " STR_FMT ": %s", STR_ARG(provider->name), e->message);
    mapped.retry_after_ms = e->retry_after_ms;
    return error_copy(e, &mapped);
}

bool provider_http_fail_named(const struct provider *provider, struct error *e)
{
    return error_wrap(e, "provider " STR_FMT, STR_ARG(provider->name));
}

/* ---- sending ---- */

/* Gives the buffer that holds the key, to be wiped. */
static str add_key(struct provider_http *http, int wanted, struct arena *arena,
                   struct http_headers *headers)
{
    size_t count = http->provider->key_count;
    if (count == 0)
        return STR_NONE;
    size_t turn = wanted == PROVIDER_KEY_ANY
                      ? atomic_fetch_add_explicit(&http->next_key, 1, memory_order_relaxed)
                      : (size_t) wanted;
    str key = secret_reveal(http->keys[turn % count]);
    str value = str_join(arena, (str[]){http->words.key_prefix, key}, 2);
    http_headers_add(headers, arena, http->words.key_header, value);
    return value;
}

/* Fields that are ours alone: a caller's would name another key, or break the framing. */
static bool is_ours(const struct provider_http *http, str name)
{
    static const str ours[] = {S_INIT("accept"),
                               S_INIT("authorization"),
                               S_INIT("connection"),
                               S_INIT("content-length"),
                               S_INIT("content-type"),
                               S_INIT("host"),
                               S_INIT("transfer-encoding"),
                               S_INIT("user-agent"),
                               S_INIT("x-api-key")};
    for (size_t i = 0; i < ARRAY_COUNT(ours); i++) {
        if (str_equal_nocase(name, ours[i]))
            return true;
    }
    return str_equal_nocase(name, http->words.key_header);
}

static void add_fields(const struct provider_http *http, const struct provider_call *how,
                       const struct provider_http_request *request, struct arena *arena,
                       struct http_headers *headers)
{
    http_headers_add(headers, arena, S("Accept"), request->accept);
    http_headers_add(headers, arena, S("User-Agent"), S("nexus"));
    if (request->method == HTTP_POST)
        http_headers_add(headers, arena, S("Content-Type"), S("application/json"));
    for (size_t i = 0; request->headers && i < request->headers->count; i++) {
        const struct http_header *field = &request->headers->items[i];
        if (!how->headers || http_headers_get(how->headers, field->name).len == 0)
            http_headers_add(headers, arena, field->name, field->value);
    }
    for (size_t i = 0; how->headers && i < how->headers->count; i++) {
        const struct http_header *field = &how->headers->items[i];
        if (!is_ours(http, field->name))
            http_headers_add(headers, arena, field->name, field->value);
    }
}

static int64_t first_set(int64_t of_call, int64_t of_provider)
{
    return of_call > 0 ? of_call : of_provider;
}

bool provider_http_send(struct provider_http *http, struct context *ctx,
                        const struct provider_call *how, struct arena *scratch,
                        const struct provider_http_request *request, struct http_exchange **out,
                        struct error *e)
{
    static const struct provider_call any_way = {.key = PROVIDER_KEY_ANY};
    const struct provider_options *options = &http->options;
    struct http_headers headers = {0};
    if (!how)
        how = &any_way;
    add_fields(http, how, request, scratch, &headers);
    str key = add_key(http, how->key, scratch, &headers);
    struct http_client_request outgoing = {
        .method = request->method,
        .url = http->url,
        .headers = &headers,
        .body = request->body,
        .connect_timeout_ms = first_set(how->connect_timeout_ms, options->connect_timeout_ms),
        .first_byte_timeout_ms =
            first_set(how->first_byte_timeout_ms, options->first_byte_timeout_ms),
        .idle_timeout_ms = first_set(how->idle_timeout_ms, options->idle_timeout_ms),
    };
    outgoing.url.path_query =
        str_join(scratch, (str[]){http->url.path_query, request->path, http->query}, 3);
    struct http_client *client = options->client_of_loop(options->client_owner);
    bool is_sent = http_client_send(client, ctx, &outgoing, out, e);
    if (key.len > 0)
        explicit_bzero((char *) (uintptr_t) key.ptr, key.len);
    if (is_sent && how->on_head)
        how->on_head(how->owner, http_exchange_status(*out), http_exchange_headers(*out));
    return is_sent || provider_http_fail(http->provider, ctx, e);
}

/* ---- answers ---- */

static int64_t retry_after(struct context *ctx, const struct http_exchange *exchange)
{
    const struct http_headers *headers = http_exchange_headers(exchange);
    return openai_retry_after_ms(http_headers_get(headers, S("retry-after-ms")),
                                 http_headers_get(headers, S("retry-after")), context_now_us(ctx));
}

bool provider_http_fail_status(struct provider_http *http, struct context *ctx,
                               struct http_exchange *exchange, struct error *e)
{
    str body = STR_NONE;
    struct error unread = {0};
    if (!http_exchange_read_all(exchange, ctx, PROVIDER_ERROR_BODY_BYTES_MAX, &body, &unread)) {
        if (unread.code == ERROR_CANCELLED)
            return error_copy(e, &unread);
        body = STR_NONE; /* the status says enough */
    }
    http->words.error_from_status(http_exchange_status(exchange), body, retry_after(ctx, exchange),
                                  ctx->arena, e);
    return provider_http_fail_named(http->provider, e);
}

bool provider_http_read_json(struct provider_http *http, struct context *ctx,
                             struct http_exchange *exchange, const struct json **out,
                             struct error *e)
{
    str body;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_ANSWER_BYTES_MAX, .allow_duplicates = true};
    if (http_exchange_status(exchange) != 200)
        return provider_http_fail_status(http, ctx, exchange, e);
    if (!http_exchange_read_all(exchange, ctx, PROVIDER_ANSWER_BYTES_MAX, &body, e))
        return provider_http_fail(http->provider, ctx, e);
    if (json_parse(ctx->arena, body, limits, out, &parse))
        return true;
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": the answer is not JSON: %s",
                     STR_ARG(http->provider->name), parse.message);
}

bool provider_http_is_json(const struct http_exchange *exchange)
{
    str type = http_headers_get(http_exchange_headers(exchange), S("content-type"));
    return str_starts_with(type, S("application/json"));
}

bool provider_http_read_models(struct arena *arena, const struct json *body, str **names,
                               size_t *count, struct error *e)
{
    const struct json *data = json_get(body, S("data")), *item;
    size_t found = 0;
    if (json_type(data) != JSON_ARRAY)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the list of models has no data");
    str *list = ARENA_ARRAY(arena, str, PROVIDER_MODELS_MAX);
    struct json_iter it = json_iter(data);
    while (json_next(&it, NULL, &item) && found < PROVIDER_MODELS_MAX) {
        if (json_to_str(json_get(item, S("id")), &list[found]) && list[found].len > 0)
            found++;
    }
    *names = list;
    *count = found;
    return true;
}

/* ---- creation ---- */

static bool set_url(struct provider_http *http, str base_url, struct error *e)
{
    str path, query;
    if (!http_url_parse(base_url, &http->url, e))
        return false;
    if (!str_cut(http->url.path_query, '?', &path, &query))
        query = STR_NONE;
    while (str_ends_with(path, S("/")))
        path.len--;
    http->url.path_query = path;
    if (query.len > 0)
        http->query = str_printf(http->arena, "?" STR_FMT, STR_ARG(query));
    return true;
}

static bool set_keys(struct provider_http *http, const struct provider_options *options,
                     struct error *e)
{
    if (options->api_key_count > PROVIDER_KEYS_MAX)
        return error_set(e, REASON_CONFIG, "%zu api_keys are too many, at most %d are possible",
                         options->api_key_count, PROVIDER_KEYS_MAX);
    for (size_t i = 0; i < options->api_key_count; i++) {
        str key = str_trim(options->api_keys[i]);
        if (key.len == 0 || !http_header_is_safe(http->words.key_header, key))
            return error_set(
                e, REASON_CONFIG,
                "api_keys[%zu] is empty or holds a line break; check its variable or file", i);
        http->keys[http->provider->key_count++] = secret_create(key);
    }
    return true;
}

bool provider_http_init(struct provider_http *http, struct provider *provider,
                        const struct provider_options *options, struct provider_http_words words,
                        struct error *e)
{
    ensure(options->client_of_loop != NULL);
    http->provider = provider;
    http->words = words;
    http->arena = arena_create(0);
    http->options = *options;
    http->options.name = http->options.base_url = STR_NONE; /* the caller's memory */
    http->options.api_keys = NULL;                          /* only the secrets hold them */
    http->options.api_key_count = 0;
    provider->name = str_copy(http->arena, options->name);
    provider->key_count = 0;
    if (set_url(http, str_copy(http->arena, options->base_url), e) && set_keys(http, options, e))
        return true;
    error_wrap(e, "provider " STR_FMT, STR_ARG(options->name));
    provider_http_deinit(http);
    return false;
}

void provider_http_deinit(struct provider_http *http)
{
    for (size_t i = 0; i < http->provider->key_count; i++)
        secret_destroy(http->keys[i]);
    http->provider->key_count = 0;
    arena_destroy(http->arena);
}
