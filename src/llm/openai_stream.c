/*
 * A streamed answer of the openai provider.
 *
 *      READING --[DONE], or the body's end behind a finish--> ENDED      (END was given)
 *         |----cut, error object, nonsense---------------------> FAILED  (the error was given)
 *
 * Pieces of one chunk wait in `deltas`; their texts live on `arena`, which is reset for each chunk.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/openai_internal.h"
#include "net/sse.h"

#include <stdlib.h>

struct openai_stream {
    struct reply_stream base;
    const struct provider *provider;
    struct http_exchange *exchange;
    struct sse_parser *parser;
    struct arena *arena;
    struct openai_stream_state state;
    struct delta deltas[OPENAI_CHUNK_DELTAS_MAX];
    size_t delta_count, delta_index;
    uint64_t bytes_read;
    bool is_done;   /* [DONE] came, or the body ended well */
    bool is_at_end; /* the body was read to its end */
    bool is_ended;  /* END was given, or an error */
};

/* ---- reading ---- */

static bool fail(const struct openai_stream *stream, enum error_reason reason, struct error *e,
                 const char *what)
{
    return error_set(e, reason, "provider " STR_FMT ": %s", STR_ARG(stream->provider->name), what);
}

static bool fail_read(const struct openai_stream *stream, struct context *ctx, struct error *e)
{
    struct error own = {0};
    if (e->code == ERROR_CANCELLED)
        return false;
    if (!context_check(ctx, &own))
        return error_copy(e, &own);
    struct error cause = *e;
    enum error_reason reason = cause.code == ERROR_TIMEOUT       ? REASON_PROVIDER_TIMEOUT
                               : cause.code == ERROR_UNAVAILABLE ? REASON_PROVIDER_NETWORK
                                                                 : REASON_PROVIDER_PROTOCOL;
    return fail(stream, reason, e, cause.message);
}

/* After [DONE] only the end of the body can come; having read it, the connection can be used again.
 * Not worth a wait. */
static may_suspend_void void read_tail(struct openai_stream *stream, struct context *ctx)
{
    struct context brief;
    struct error ignored = {0};
    str piece = STR_NONE;
    context_init_child(&brief, ctx, context_deadline_in(ctx, PROVIDER_TAIL_WAIT_MS));
    bool is_read = http_exchange_read(stream->exchange, &brief, &piece, &ignored);
    context_deinit(&brief);
    stream->is_at_end = is_read && piece.len == 0; /* else close() cuts the connection */
}

static bool read_event(struct openai_stream *stream, const struct sse_event *event, struct error *e)
{
    const struct json *chunk;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    if (str_equal(str_trim(event->data), S("[DONE]"))) {
        stream->is_done = true;
        return true;
    }
    if (event->data.len == 0)
        return true;
    arena_reset(stream->arena);
    if (!json_parse(stream->arena, event->data, limits, &chunk, &parse))
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "provider " STR_FMT ": a chunk of the stream is not JSON: %s",
                         STR_ARG(stream->provider->name), parse.message);
    stream->delta_index = 0;
    return openai_read_chunk(stream->arena, chunk, &stream->state, stream->deltas,
                             ARRAY_COUNT(stream->deltas), &stream->delta_count, e) ||
           error_wrap(e, "provider " STR_FMT, STR_ARG(stream->provider->name));
}

static may_suspend bool read_piece(struct openai_stream *stream, struct context *ctx,
                                   struct error *e)
{
    str piece;
    if (!http_exchange_read(stream->exchange, ctx, &piece, e))
        return fail_read(stream, ctx, e);
    if (piece.len == 0) {
        if (stream->state.finish == FINISH_NONE)
            return fail(stream, REASON_PROVIDER_NETWORK, e, "the stream was cut before its end");
        stream->is_done = stream->is_at_end =
            true; /* a server that does not say [DONE], or cut it short */
        return true;
    }
    stream->bytes_read += piece.len;
    if (stream->bytes_read > PROVIDER_STREAM_BYTES_MAX)
        return fail(stream, REASON_PROVIDER_PROTOCOL, e, "the stream is over its limit of bytes");
    struct error feed = {0};
    if (!sse_parser_feed(stream->parser, piece, &feed))
        return fail(stream, REASON_PROVIDER_PROTOCOL, e, feed.message);
    return true;
}

/* Until there is a delta to give or the stream is done. */
static may_suspend bool read_more(struct openai_stream *stream, struct context *ctx,
                                  struct error *e)
{
    while (stream->delta_index == stream->delta_count && !stream->is_done) {
        struct sse_event event;
        bool is_ok = sse_parser_next(stream->parser, &event) ? read_event(stream, &event, e)
                                                             : read_piece(stream, ctx, e);
        if (!is_ok)
            return false;
    }
    return true;
}

static bool stream_next(struct reply_stream *base, struct context *ctx, struct delta *out,
                        struct error *e)
{
    struct openai_stream *stream = CONTAINER_OF(base, struct openai_stream, base);
    ensure(!stream->is_ended);
    if (!read_more(stream, ctx, e)) {
        stream->is_ended = true;
        return false;
    }
    if (stream->delta_index < stream->delta_count) {
        *out = stream->deltas[stream->delta_index++];
        return true;
    }
    if (!stream->is_at_end)
        read_tail(stream, ctx);
    stream->is_ended = true;
    *out = openai_end_delta(&stream->state);
    return true;
}

static void stream_close(struct reply_stream *base)
{
    struct openai_stream *stream = CONTAINER_OF(base, struct openai_stream, base);
    http_exchange_close(stream->exchange);
    sse_parser_destroy(stream->parser);
    arena_destroy(stream->arena);
    free(stream);
}

static const struct reply_stream_ops stream_ops = {.next = stream_next, .close = stream_close};

struct reply_stream *openai_stream_create(const struct provider *provider,
                                          struct http_exchange *give_exchange)
{
    struct openai_stream *stream = calloc(1, sizeof *stream);
    ensure(stream != NULL);
    stream->base.ops = &stream_ops;
    stream->provider = provider;
    stream->exchange = give_exchange;
    stream->parser = sse_parser_create(0);
    stream->arena = arena_create(0);
    return &stream->base;
}

/* ---- models ---- */

bool openai_read_models(struct arena *arena, const struct json *body, str **names, size_t *count,
                        struct error *e)
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
