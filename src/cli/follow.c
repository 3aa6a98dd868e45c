#include "cli/follow.h"

#include "base/arena.h"
#include "base/limits.h"
#include "net/sse.h"

enum { EVENT_BYTES_MAX = 64 << 20, BACKOFF_MS = 100, BACKOFF_MS_MAX = 2000 };

struct follower {
    struct client *client;
    str path;
    int64_t after;
    follow_fn *fn;
    void *owner;
    bool is_over;
    bool has_news; /* since the connection was made */
};

bool run_event_is_final(str type)
{
    return str_equal(type, S("run.completed")) || str_equal(type, S("run.failed")) ||
           str_equal(type, S("run.cancelled"));
}

static bool take_event(struct follower *follower, struct context *ctx,
                       const struct sse_event *event, struct error *e)
{
    struct run_event out = {.type = event->event, .text = event->data};
    if (!str_to_i64(event->id, &out.seq) || out.seq <= follower->after)
        return true; /* a comment's, or known already */
    if (!json_parse(ctx->arena, event->data,
                    (struct json_limits){.bytes_max = EVENT_BYTES_MAX, .allow_duplicates = true},
                    &out.data, e))
        return error_wrap(e, "event " STR_FMT, STR_ARG(event->id));
    follower->after = out.seq;
    follower->has_news = true;
    if (!follower->fn(follower->owner, ctx, &out) || run_event_is_final(out.type))
        follower->is_over = true;
    return true;
}

/* One connection: until it ends, breaks, or the run is over. */
static bool follow_once(struct follower *follower, struct context *ctx, struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    OWNED(sse_parser) parser = sse_parser_create(EVENT_BYTES_MAX);
    struct client_request request = {
        .method = HTTP_GET, .path = follower->path, .accept = S("text/event-stream")};
    if (follower->after > 0)
        request.last_event_id = str_printf(ctx->arena, "%lld", (long long) follower->after);
    if (!client_send(follower->client, ctx, &request, &exchange, e))
        return false;
    while (!follower->is_over) {
        str piece;
        struct sse_event event;
        arena_mark mark = arena_save(ctx->arena);
        if (!http_exchange_read(exchange, ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            return true; /* the server drains, or there will be no more */
        if (!sse_parser_feed(parser, piece, e))
            return false;
        while (!follower->is_over && sse_parser_next(parser, &event))
            if (!take_event(follower, ctx, &event, e))
                return false;
        arena_rewind(ctx->arena, mark);
    }
    return true;
}

bool follow_run(struct client *client, struct context *ctx, str run_id, int64_t after,
                follow_fn *fn, void *owner, struct error *e)
{
    struct follower follower = {
        .client = client,
        .path = str_printf(ctx->arena, "/api/v1/runs/" STR_FMT "/events",
                           STR_ARG(http_percent_encode(ctx->arena, run_id))),
        .after = after,
        .fn = fn,
        .owner = owner,
    };
    int64_t backoff_ms = BACKOFF_MS, news_ns = context_now_ns(ctx);
    for (;;) {
        struct error broken = {0};
        arena_mark mark = arena_save(ctx->arena);
        follower.has_news = false;
        bool is_ok = follow_once(&follower, ctx, &broken);
        arena_rewind(ctx->arena, mark);
        if (follower.is_over)
            return true;
        if (follower.has_news) {
            backoff_ms = BACKOFF_MS;
            news_ns = context_now_ns(ctx);
        }
        if (!is_ok && !error_may_retry(&broken))
            return error_copy(e, &broken);
        if (!is_ok && context_now_ns(ctx) - news_ns > FOLLOW_PATIENCE_MS * INT64_C(1000000)) {
            (void) error_copy(e, &broken);
            return error_wrap(e, "the events of run " STR_FMT, STR_ARG(run_id));
        }
        if (is_ok)
            news_ns = context_now_ns(ctx); /* the server is there; the run just takes its time */
        if (!context_sleep_ms(ctx, backoff_ms, e))
            return false;
        backoff_ms = backoff_ms * 2 < BACKOFF_MS_MAX ? backoff_ms * 2 : BACKOFF_MS_MAX;
    }
}
