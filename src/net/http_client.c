#include "net/http_client_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/map.h"

#include <stdlib.h>

/* Closes idle connections whose time is over. */
static void on_timer(struct timer *timer)
{
    struct http_client *client = CONTAINER_OF(timer, struct http_client, timer);
    int64_t now_ns = clock_monotonic_ns(client->clock);
    struct list *node;
    while ((node = list_first(&client->ages)) != NULL) {
        struct http_upstream *upstream = LIST_ITEM(node, struct http_upstream, age_link);
        if (upstream->idle_until_ns > now_ns) {
            timer_arm(client->scheduler, timer, upstream->idle_until_ns);
            return;
        }
        http_upstream_close(upstream);
    }
}

static char *copy_text(str text)
{
    char *copy = calloc(1, text.len + 1);
    ensure(copy != NULL);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    return copy;
}

bool http_client_create(struct loop *loop, const struct http_client_options *options,
                        struct http_client **out, struct error *e)
{
    struct tls_context *tls = NULL;
    /* A file of the operator's is read now, so that a mistake in it shows at start. */
    if (options && options->ca_file.len > 0 && !tls_context_create(options->ca_file, &tls, e))
        return false;
    struct http_client *client = calloc(1, sizeof(*client));
    ensure(client != NULL);
    client->loop = loop;
    client->scheduler = loop_scheduler(loop);
    client->clock = scheduler_clock(client->scheduler);
    client->idle_max_per_origin = options && options->idle_max_per_origin
                                      ? options->idle_max_per_origin
                                      : UPSTREAM_POOL_IDLE_MAX;
    client->idle_ms = options && options->idle_ms ? options->idle_ms : UPSTREAM_POOL_IDLE_MS;
    client->ca_file = copy_text(options ? options->ca_file : STR_NONE);
    client->tls = tls;
    client->dns = dns_cache_create(options ? options->dns_servers : STR_NONE);
    client->origins = map_create();
    client->timer.fire = on_timer;
    list_init(&client->ages);
    list_init(&client->spare_exchanges);
    client->read_buffer = malloc(HTTP_READ_BUFFER_BYTES);
    ensure(client->read_buffer != NULL);
    *out = client;
    return true;
}

void http_client_destroy(struct http_client *client)
{
    if (!client)
        return;
    timer_disarm(client->scheduler, &client->timer);
    for (struct list *node; (node = list_first(&client->ages)) != NULL;)
        http_upstream_close(LIST_ITEM(node, struct http_upstream, age_link));
    ensure(client->open_count == 0);
    for (struct list *node; (node = list_pop_front(&client->spare_exchanges)) != NULL;)
        free(LIST_ITEM(node, struct http_exchange, spare_link));
    map_destroy(client->origins);
    dns_cache_destroy(client->dns);
    tls_context_destroy(client->tls);
    buffer_pool_deinit(&client->buffers);
    free(client->read_buffer);
    free(client->ca_file);
    free(client);
}

/* ---- the request's head ---- */

struct head_writer {
    char *ptr;
    size_t len;
    bool is_over;
};

static void put(struct head_writer *w, str s)
{
    if (s.len > HTTP_HEAD_BYTES_MAX - w->len) {
        w->is_over = true;
        return;
    }
    memcpy(w->ptr + w->len, s.ptr, s.len);
    w->len += s.len;
}

static void put_number(struct head_writer *w, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char) ('0' + value % 10);
        value /= 10;
    } while (value);
    put(w, str_of(digits + at, sizeof(digits) - at));
}

static void put_host(struct head_writer *w, const struct http_url *url)
{
    bool is_v6 = str_find_char(url->host, ':') != STR_NOT_FOUND;
    put(w, is_v6 ? S("Host: [") : S("Host: "));
    put(w, url->host);
    put(w, is_v6 ? S("]") : S(""));
    if (url->port != (url->is_tls ? 443 : 80)) {
        put(w, S(":"));
        put_number(w, url->port);
    }
    put(w, S("\r\n"));
}

/* Framing and routing are the client's alone: a caller's field of that kind is a mistake of ours,
   or an attack. */
static bool is_clients_own(str name)
{
    static const str own[] = {S_INIT("host"),       S_INIT("content-length"),
                              S_INIT("connection"), S_INIT("transfer-encoding"),
                              S_INIT("keep-alive"), S_INIT("upgrade"),
                              S_INIT("te"),         S_INIT("trailer"),
                              S_INIT("expect"),     S_INIT("proxy-connection")};
    for (size_t i = 0; i < ARRAY_COUNT(own); i++) {
        if (str_equal_nocase(name, own[i]))
            return true;
    }
    return false;
}

static bool target_is_safe(str target)
{
    if (target.len == 0 || target.ptr[0] != '/')
        return false;
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char) target.ptr[i];
        if (c <= 0x20 || c >= 0x7f)
            return false;
    }
    return true;
}

/* The head in the client's read buffer, which holds until the first suspension. */
static bool compose_head(struct http_client *client, const struct http_client_request *request,
                         str *out, struct error *e)
{
    struct head_writer w = {.ptr = client->read_buffer};
    if (!target_is_safe(request->url.path_query) ||
        !http_header_is_safe(S("host"), request->url.host))
        return error_set(e, REASON_INVALID,
                         "the request's target holds bytes that must be escaped");
    put(&w, str_from_cstr(http_method_name(request->method)));
    put(&w, S(" "));
    put(&w, request->url.path_query);
    put(&w, S(" HTTP/1.1\r\n"));
    put_host(&w, &request->url);
    for (size_t i = 0; request->headers && i < request->headers->count; i++) {
        str name = request->headers->items[i].name, value = request->headers->items[i].value;
        if (!http_header_is_safe(name, value))
            return error_set(e, REASON_INVALID,
                             "a request header field holds bytes that must not be sent");
        if (is_clients_own(name))
            continue;
        put(&w, name);
        put(&w, S(": "));
        put(&w, value);
        put(&w, S("\r\n"));
    }
    bool has_body_by_nature = request->method == HTTP_POST || request->method == HTTP_PUT ||
                              request->method == HTTP_PATCH;
    if (request->body.len > 0 || has_body_by_nature) {
        put(&w, S("Content-Length: "));
        put_number(&w, request->body.len);
        put(&w, S("\r\n"));
    }
    put(&w, S("\r\n"));
    if (w.is_over)
        return error_set(e, REASON_TOO_LARGE, "the request's head is larger than %u bytes",
                         HTTP_HEAD_BYTES_MAX);
    *out = str_of(w.ptr, w.len);
    return true;
}

/* ---- sending ---- */

static void advance(struct iovec parts[2], size_t count)
{
    for (int i = 0; i < 2; i++) {
        size_t step = count < parts[i].iov_len ? count : parts[i].iov_len;
        parts[i].iov_base = (char *) parts[i].iov_base + step;
        parts[i].iov_len -= step;
        count -= step;
    }
}

/* Sends head and body, together when the kernel takes them.  An upstream that answers before it has
   read all is listened to: the rest is not sent and the connection not used again. */
static bool send_request(struct http_exchange *exchange, struct context *ctx,
                         const struct http_client_request *request, str head, int64_t deadline_ns,
                         struct error *e)
{
    struct http_upstream *upstream = exchange->upstream;
    struct iovec parts[2] = {
        {(void *) (uintptr_t) head.ptr, head.len},
        {(void *) (uintptr_t) request->body.ptr, request->body.len},
    };
    bool is_in_read_buffer = true;
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        size_t count = 0;
        enum upstream_result result = http_upstream_send(upstream, parts, &count, e);
        if (result == UPSTREAM_DATA) {
            advance(parts, count);
            continue;
        }
        if (result == UPSTREAM_FAILED)
            return false;
        if (is_in_read_buffer && parts[0].iov_len > 0) {
            str rest = str_copy(ctx->arena, str_of(parts[0].iov_base, parts[0].iov_len));
            parts[0].iov_base = (void *) (uintptr_t) rest.ptr;
        }
        is_in_read_buffer = false;
        if (!http_upstream_wait(upstream, ctx, UV_READABLE | UV_WRITABLE, deadline_ns,
                                "sending the request", e))
            return false;
        result = http_upstream_receive(upstream, exchange->client->read_buffer,
                                       HTTP_READ_BUFFER_BYTES, &count, e);
        if (result == UPSTREAM_WOULD_BLOCK)
            continue;
        exchange->is_request_cut = true;
        if (result == UPSTREAM_DATA) {
            exchange->head_bytes = arena_alloc(ctx->arena, count);
            memcpy(exchange->head_bytes, exchange->client->read_buffer, count);
            exchange->head_len = exchange->head_capacity = count;
            exchange->has_answer_bytes = true;
            return true;
        }
        return result == UPSTREAM_ENDED
                   ? error_set(e, REASON_UNAVAILABLE,
                               "the upstream closed while the request was sent")
                   : false;
    }
    return true;
}

/* One attempt on one connection.  On failure the connection is closed; *may_retry: nothing of an
   answer was seen. */
static bool attempt(struct http_client *client, struct context *ctx,
                    const struct http_client_request *request, struct http_upstream *upstream,
                    struct http_exchange **out, bool *may_retry, struct error *e)
{
    int64_t first_byte_ms = request->first_byte_timeout_ms ? request->first_byte_timeout_ms
                                                           : UPSTREAM_FIRST_BYTE_TIMEOUT_MS;
    int64_t deadline_ns = clock_monotonic_ns(client->clock) + first_byte_ms * 1000000;
    str head = STR_NONE;
    struct http_exchange *exchange = http_exchange_create(client, upstream);
    exchange->idle_timeout_ms =
        request->idle_timeout_ms ? request->idle_timeout_ms : UPSTREAM_IDLE_TIMEOUT_MS;
    *may_retry = false;
    if (compose_head(client, request, &head, e)) {
        bool is_fine =
            send_request(exchange, ctx, request, head, deadline_ns, e) &&
            http_exchange_read_head(exchange, ctx, request->method == HTTP_HEAD, deadline_ns, e);
        if (is_fine) {
            if (exchange->is_request_cut)
                exchange->head.keeps_alive = false;
            *out = exchange;
            return true;
        }
        *may_retry =
            upstream->was_reused && !exchange->has_answer_bytes && e->code == ERROR_UNAVAILABLE;
    }
    exchange->is_broken = true;
    http_exchange_close(exchange);
    return false;
}

bool http_client_send(struct http_client *client, struct context *ctx,
                      const struct http_client_request *request, struct http_exchange **out,
                      struct error *e)
{
    if (!context_check(ctx, e))
        return false;
    if (request->url.host.len == 0 || request->url.host.len > 253)
        return error_set(e, REASON_INVALID, "a host name of %zu bytes", request->url.host.len);
    struct http_origin *origin = http_origin_find(client, &request->url);
    struct http_upstream *upstream = http_upstream_take_idle(client, origin, request);
    bool may_retry = false;
    if (upstream) {
        if (attempt(client, ctx, request, upstream, out, &may_retry, e))
            return true;
        if (!may_retry || !context_check(ctx, e))
            return false;
        origin =
            http_origin_find(client, &request->url); /* it may have gone with its last connection */
    }
    origin->connection_count++; /* keeps it while we dial */
    bool is_connected = http_upstream_connect(client, ctx, request, origin, &upstream, e);
    origin->connection_count--;
    if (!is_connected) {
        http_origin_check(client, origin);
        return false;
    }
    return attempt(client, ctx, request, upstream, out, &may_retry, e);
}
