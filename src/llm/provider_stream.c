#include "llm/provider_stream.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <stdlib.h>

struct provider_stream {
    struct reply_stream base;
    const struct provider *provider;
    const struct provider_stream_reader *reader;
    struct http_exchange *exchange;
    struct sse_parser *parser;
    struct arena *arena;
    void *state; /* of the reader */
    struct delta deltas[PROVIDER_STREAM_DELTAS_MAX];
    size_t delta_count, delta_index;
    uint64_t bytes_read;
    bool is_done;   /* the last event came, or the body ended well */
    bool is_at_end; /* the body was read to its end */
    bool is_ended;  /* END was given, or an error */
};

static bool fail(const struct provider_stream *stream, enum error_reason reason, struct error *e,
                 const char *what)
{
    return error_set(e, reason, "provider " STR_FMT ": %s", STR_ARG(stream->provider->name), what);
}

static bool fail_read(const struct provider_stream *stream, struct context *ctx, struct error *e)
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

/* After the last event only the end of the body can come; having read it, the connection can be
 * used again.  Not worth a wait. */
static may_suspend_void void read_tail(struct provider_stream *stream, struct context *ctx)
{
    struct context brief;
    struct error ignored = {0};
    str piece = STR_NONE;
    context_init_child(&brief, ctx, context_deadline_in(ctx, PROVIDER_TAIL_WAIT_MS));
    bool is_read = http_exchange_read(stream->exchange, &brief, &piece, &ignored);
    context_deinit(&brief);
    stream->is_at_end = is_read && piece.len == 0; /* else close() cuts the connection */
}

static bool read_event(struct provider_stream *stream, const struct sse_event *event,
                       struct error *e)
{
    if (event->data.len == 0)
        return true;
    arena_reset(stream->arena);
    stream->delta_index = stream->delta_count = 0;
    return stream->reader->read_event(stream->state, stream->arena, event, stream->deltas,
                                      ARRAY_COUNT(stream->deltas), &stream->delta_count,
                                      &stream->is_done, e) ||
           error_wrap(e, "provider " STR_FMT, STR_ARG(stream->provider->name));
}

static may_suspend bool read_piece(struct provider_stream *stream, struct context *ctx,
                                   struct error *e)
{
    str piece;
    if (!http_exchange_read(stream->exchange, ctx, &piece, e))
        return fail_read(stream, ctx, e);
    if (piece.len == 0) {
        if (!stream->reader->may_end(stream->state))
            return fail(stream, REASON_PROVIDER_NETWORK, e, "the stream was cut before its end");
        stream->is_done = stream->is_at_end = true;
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
static may_suspend bool read_more(struct provider_stream *stream, struct context *ctx,
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
    struct provider_stream *stream = CONTAINER_OF(base, struct provider_stream, base);
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
    *out = stream->reader->end(stream->state);
    return true;
}

static void stream_close(struct reply_stream *base)
{
    struct provider_stream *stream = CONTAINER_OF(base, struct provider_stream, base);
    http_exchange_close(stream->exchange);
    sse_parser_destroy(stream->parser);
    arena_destroy(stream->arena);
    free(stream->state);
    free(stream);
}

static const struct reply_stream_ops stream_ops = {.next = stream_next, .close = stream_close};

struct reply_stream *provider_stream_create(const struct provider *provider,
                                            const struct provider_stream_reader *reader,
                                            struct http_exchange *give_exchange)
{
    struct provider_stream *stream = calloc(1, sizeof *stream);
    void *state = calloc(1, reader->state_bytes);
    ensure(stream != NULL && state != NULL);
    stream->base.ops = &stream_ops;
    stream->provider = provider;
    stream->reader = reader;
    stream->state = state;
    stream->exchange = give_exchange;
    stream->parser = sse_parser_create(0);
    stream->arena = arena_create(0);
    return &stream->base;
}
