#include "net/http_client_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

struct http_exchange *http_exchange_create(struct http_client *client,
                                           struct http_upstream *upstream)
{
    struct list *node = list_pop_front(&client->spare_exchanges);
    struct http_exchange *exchange = NULL;
    if (node) {
        client->spare_exchange_count--;
        exchange = LIST_ITEM(node, struct http_exchange, spare_link);
    } else {
        exchange = calloc(1, sizeof(*exchange));
        ensure(exchange != NULL);
    }
    exchange->client = client;
    exchange->upstream = upstream;
    return exchange;
}

static void give_back(struct http_exchange *exchange)
{
    struct http_client *client = exchange->client;
    buffer_release(&client->buffers, &exchange->input);
    if (client->spare_exchange_count >= HTTP_EXCHANGES_SPARE_MAX) {
        free(exchange);
        return;
    }
    /* The parser is large and set up anew by the next one. */
    memset(exchange, 0, offsetof(struct http_exchange, parser));
    memset(&exchange->head, 0, sizeof(*exchange) - offsetof(struct http_exchange, head));
    list_push_front(&client->spare_exchanges, &exchange->spare_link);
    client->spare_exchange_count++;
}

/* Nothing more will be read: the connection goes back to the pool or away. */
static void release_upstream(struct http_exchange *exchange)
{
    struct http_upstream *upstream = exchange->upstream;
    if (!upstream)
        return;
    exchange->upstream = NULL;
    bool is_clean = exchange->is_done && !exchange->is_broken && !exchange->is_request_cut &&
                    buffer_len(&exchange->input) == 0;
    if (is_clean && exchange->head.keeps_alive)
        http_upstream_make_idle(upstream);
    else
        http_upstream_close(upstream);
}

void http_exchange_close(struct http_exchange *exchange)
{
    if (!exchange)
        return;
    release_upstream(exchange);
    give_back(exchange);
}

/* After a failure the connection is of no use to anyone; the peer should see that at once. */
static bool broken(struct http_exchange *exchange)
{
    exchange->is_broken = true;
    release_upstream(exchange);
    return false;
}

int http_exchange_status(const struct http_exchange *exchange)
{
    return exchange->head.status;
}

const struct http_headers *http_exchange_headers(const struct http_exchange *exchange)
{
    return &exchange->head.headers;
}

/* One read, waiting for it.  UPSTREAM_DATA, UPSTREAM_ENDED or UPSTREAM_FAILED. */
static enum upstream_result receive(struct http_exchange *exchange, struct context *ctx,
                                    int64_t deadline_ns, bool waits_first, const char *what,
                                    size_t *count, struct error *e)
{
    struct http_upstream *upstream = exchange->upstream;
    for (;;) {
        if (waits_first && !http_upstream_wait(upstream, ctx, UV_READABLE, deadline_ns, what, e))
            return UPSTREAM_FAILED;
        enum upstream_result result = http_upstream_receive(upstream, exchange->client->read_buffer,
                                                            HTTP_READ_BUFFER_BYTES, count, e);
        /* A TLS connection may hold more than the socket tells. */
        exchange->is_drained =
            result == UPSTREAM_DATA && !upstream->tls && *count < HTTP_READ_BUFFER_BYTES;
        if (result != UPSTREAM_WOULD_BLOCK)
            return result;
        waits_first = true;
    }
}

/* ---- head ---- */

static void head_append(struct http_exchange *exchange, struct arena *arena, size_t count)
{
    if (exchange->head_len + count > exchange->head_capacity) {
        size_t capacity = exchange->head_len ? (exchange->head_len + count) * 2 : count;
        exchange->head_bytes =
            arena_resize_raw(arena, exchange->head_bytes, exchange->head_capacity, capacity);
        exchange->head_capacity = capacity;
    }
    memcpy(exchange->head_bytes + exchange->head_len, exchange->client->read_buffer, count);
    exchange->head_len += count;
}

static bool syntax(struct http_exchange *exchange, struct error *e)
{
    return error_set(e, REASON_HTTP_SYNTAX, "the upstream's answer: %s", exchange->parser.problem);
}

/* An interim answer is dropped with its bytes; what follows is the next head's beginning. */
static bool skip_interim(struct http_exchange *exchange, struct arena *arena, int *interim_count,
                         struct error *e)
{
    if (++*interim_count > HTTP_INTERIM_ANSWERS_MAX)
        return error_set(e, REASON_HTTP_SYNTAX, "the upstream's answer: too many interim answers");
    str rest =
        str_from(str_of(exchange->head_bytes, exchange->head_len), exchange->parser.head_bytes);
    char *bytes = arena_alloc(arena, rest.len);
    memcpy(bytes, rest.ptr, rest.len);
    exchange->head_bytes = bytes;
    exchange->head_len = exchange->head_capacity = rest.len;
    http_parser_init_response(&exchange->parser, &exchange->client->fields,
                              exchange->parser.is_answer_to_head);
    return true;
}

static bool take_head(struct http_exchange *exchange, struct context *ctx, struct error *e)
{
    str bytes = str_of(exchange->head_bytes, exchange->head_len);
    if (!http_parser_take_response(&exchange->parser, bytes, ctx->arena, &exchange->head))
        return syntax(exchange, e);
    return true;
}

bool http_exchange_read_head(struct http_exchange *exchange, struct context *ctx,
                             bool is_answer_to_head, int64_t deadline_ns, struct error *e)
{
    int interim_count = 0;
    http_parser_init_response(&exchange->parser, &exchange->client->fields, is_answer_to_head);
    for (;;) {
        enum http_parse_event event =
            http_parser_head(&exchange->parser, str_of(exchange->head_bytes, exchange->head_len));
        if (event == HTTP_PARSE_FAILED)
            return syntax(exchange, e);
        if (event == HTTP_PARSE_HEAD) {
            if (!take_head(exchange, ctx, e))
                return false;
            if (exchange->head.status >= 200)
                break;
            if (!skip_interim(exchange, ctx->arena, &interim_count, e))
                return false;
            continue;
        }
        http_parser_keep_fields(&exchange->parser, &exchange->client->fields, ctx->arena);
        size_t count = 0;
        enum upstream_result result =
            receive(exchange, ctx, deadline_ns, true, "the upstream's answer", &count, e);
        if (result == UPSTREAM_FAILED)
            return false;
        if (result == UPSTREAM_ENDED)
            return error_set(e, REASON_UNAVAILABLE,
                             "the upstream closed the connection before its answer was whole");
        exchange->has_answer_bytes = true;
        head_append(exchange, ctx->arena, count);
    }
    exchange->input =
        (struct buffer){exchange->head_bytes, (uint32_t) exchange->parser.head_bytes,
                        (uint32_t) exchange->head_len, (uint32_t) exchange->head_len, false};
    exchange->is_done =
        exchange->parser.framing == HTTP_FRAMING_NONE ||
        (exchange->parser.framing == HTTP_FRAMING_LENGTH && exchange->parser.body_left == 0);
    return true;
}

/* ---- body ---- */

static bool receive_body(struct http_exchange *exchange, struct context *ctx, struct error *e)
{
    struct http_client *client = exchange->client;
    buffer_release(&client->buffers, &exchange->input);
    int64_t deadline_ns = clock_monotonic_ns(client->clock) + exchange->idle_timeout_ms * 1000000;
    size_t count = 0;
    switch (receive(exchange, ctx, deadline_ns, exchange->is_drained,
                    "the next part of the upstream's answer", &count, e)) {
    case UPSTREAM_DATA:
        ensure(buffer_reserve(&client->buffers, &exchange->input, count));
        memcpy(exchange->input.ptr, client->read_buffer, count);
        exchange->input.to = (uint32_t) count;
        return true;
    case UPSTREAM_ENDED:
        if (!http_parser_may_end(&exchange->parser))
            return error_set(e, REASON_UNAVAILABLE,
                             "the upstream closed the connection in the middle of its answer");
        exchange->is_done = true;
        return true;
    case UPSTREAM_FAILED:
    case UPSTREAM_WOULD_BLOCK: break;
    }
    return false;
}

bool http_exchange_read(struct http_exchange *exchange, struct context *ctx, str *piece,
                        struct error *e)
{
    *piece = STR_NONE;
    if (exchange->is_broken)
        return error_set(e, REASON_UNAVAILABLE, "the upstream's answer broke off earlier");
    while (!exchange->is_done) {
        if (!context_check(ctx, e))
            return broken(exchange);
        struct buffer *input = &exchange->input;
        if (buffer_len(input) == 0) {
            if (!receive_body(exchange, ctx, e))
                return broken(exchange);
            continue;
        }
        size_t consumed = 0;
        enum http_parse_event event = http_parser_body(&exchange->parser, input->ptr + input->from,
                                                       buffer_len(input), &consumed, piece);
        input->from += (uint32_t) consumed;
        if (event == HTTP_PARSE_FAILED) {
            (void) syntax(exchange, e);
            return broken(exchange);
        }
        exchange->is_done = event == HTTP_PARSE_DONE;
        if (piece->len > 0)
            break;
    }
    if (exchange
            ->is_done) /* the connection may serve others while this caller works on what it got */
        release_upstream(exchange);
    return true;
}

static bool too_large(struct http_exchange *exchange, size_t max, struct error *e)
{
    (void) broken(exchange);
    return error_set(e, REASON_TOO_LARGE, "the upstream's answer is larger than %zu bytes", max);
}

bool http_exchange_read_all(struct http_exchange *exchange, struct context *ctx, size_t max,
                            str *body, struct error *e)
{
    if (exchange->head.content_length > 0 && (uint64_t) exchange->head.content_length > max)
        return too_large(exchange, max, e);
    if (!exchange->is_done && !exchange->input.is_pooled &&
        exchange->parser.framing == HTTP_FRAMING_LENGTH &&
        buffer_len(&exchange->input) >= exchange->parser.body_left)
        return http_exchange_read(exchange, ctx, body,
                                  e); /* came with the head, lies on the arena */
    char *bytes = NULL;
    size_t used = 0, capacity = 0;
    for (;;) {
        str piece;
        if (!http_exchange_read(exchange, ctx, &piece, e))
            return false;
        if (piece.len == 0)
            break;
        if (piece.len > max - used)
            return too_large(exchange, max, e);
        if (used + piece.len > capacity) {
            size_t larger = exchange->head.content_length > 0
                                ? (size_t) exchange->head.content_length
                                : (used + piece.len) * 2;
            larger = larger < used + piece.len ? used + piece.len : larger;
            bytes = arena_grow(ctx->arena, bytes, capacity, larger);
            capacity = larger;
        }
        memcpy(bytes + used, piece.ptr, piece.len);
        used += piece.len;
    }
    *body = str_of(bytes, used);
    return true;
}

/* ---- without a coroutine ---- */

void http_exchange_detach(struct http_exchange *exchange, void (*on_event)(void *owner),
                          void *owner)
{
    http_exchange_keep_input(exchange);
    exchange->head.headers = (struct http_headers){0};
    exchange->head_bytes = NULL;
    exchange->head_len = exchange->head_capacity = 0;
    if (exchange->upstream) {
        exchange->upstream->on_event = on_event;
        exchange->upstream->owner = owner;
    }
}

bool http_exchange_has_input(const struct http_exchange *exchange)
{
    return buffer_len(&exchange->input) > 0;
}

void http_exchange_keep_input(struct http_exchange *exchange)
{
    struct buffer *input = &exchange->input;
    if (buffer_len(input) == 0)
        buffer_release(&exchange->client->buffers, input);
    else if (!input->is_pooled)
        ensure(buffer_reserve(&exchange->client->buffers, input, 0));
}

void http_exchange_pause(struct http_exchange *exchange)
{
    if (exchange->upstream)
        http_upstream_watch(exchange->upstream, 0);
}

void http_exchange_cut(struct http_exchange *exchange)
{
    (void) broken(exchange);
}

/* Into the client's read buffer, decoded where it lies. */
static enum exchange_pull pull_bytes(struct http_exchange *exchange, struct error *e)
{
    struct http_client *client = exchange->client;
    struct http_upstream *upstream = exchange->upstream;
    size_t count = 0;
    buffer_release(&client->buffers, &exchange->input);
    bool is_drained = exchange->is_drained;
    exchange->is_drained = false;
    enum upstream_result result = is_drained
                                      ? UPSTREAM_WOULD_BLOCK
                                      : http_upstream_receive(upstream, client->read_buffer,
                                                              HTTP_RELAY_READ_BYTES, &count, e);
    switch (result) {
    case UPSTREAM_DATA:
        exchange->is_drained = !upstream->tls && count < HTTP_RELAY_READ_BYTES;
        exchange->input = (struct buffer){
            .ptr = client->read_buffer, .to = (uint32_t) count, .capacity = (uint32_t) count};
        return EXCHANGE_PIECE;
    case UPSTREAM_WOULD_BLOCK: http_upstream_watch(upstream, UV_READABLE); return EXCHANGE_WAIT;
    case UPSTREAM_ENDED:
        if (http_parser_may_end(&exchange->parser))
            return EXCHANGE_END;
        error_set(e, REASON_UNAVAILABLE,
                  "the upstream closed the connection in the middle of its answer");
        break;
    case UPSTREAM_FAILED: break;
    }
    return EXCHANGE_FAILED;
}

static enum exchange_pull pull_broken(struct http_exchange *exchange)
{
    (void) broken(exchange);
    return EXCHANGE_FAILED;
}

enum exchange_pull http_exchange_pull(struct http_exchange *exchange, str *piece, struct error *e)
{
    struct buffer *input = &exchange->input;
    *piece = STR_NONE;
    if (exchange->is_broken) {
        error_set(e, REASON_UNAVAILABLE, "the upstream's answer broke off earlier");
        return EXCHANGE_FAILED;
    }
    while (!exchange->is_done) {
        if (exchange->is_garbled) {
            (void) syntax(exchange, e);
            return pull_broken(exchange);
        }
        if (buffer_len(input) == 0) {
            enum exchange_pull result = pull_bytes(exchange, e);
            if (result == EXCHANGE_WAIT)
                return result;
            if (result == EXCHANGE_FAILED)
                return pull_broken(exchange);
            exchange->is_done = result == EXCHANGE_END;
            continue;
        }
        size_t consumed = 0;
        enum http_parse_event event = http_parser_body(&exchange->parser, input->ptr + input->from,
                                                       buffer_len(input), &consumed, piece);
        input->from += (uint32_t) consumed;
        exchange->is_garbled = event == HTTP_PARSE_FAILED; /* told behind what was fine */
        exchange->is_done = event == HTTP_PARSE_DONE;
        if (piece->len > 0)
            return EXCHANGE_PIECE;
    }
    release_upstream(exchange);
    return EXCHANGE_END;
}
