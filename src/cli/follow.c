#include "cli/follow.h"

#include "base/arena.h"
#include "base/limits.h"
#include "net/sse.h"

enum { EVENT_BYTES_MAX = 64 << 20, BACKOFF_MS = 100, BACKOFF_MS_MAX = 2000, TOLD_MAX = 256 };

struct follower {
    struct client *client;
    str run_id, path;
    int64_t after;
    follow_fn *fn;
    follow_wait_fn *wait;
    void *owner;
    bool is_over;
    bool has_news; /* since the connection was made */

    struct context reading; /* cancelled when the reader has enough of what it waits for */
    bool has_children;
    bool has_new_child; /* since the last look */
    char told[TOLD_MAX][UUID_TEXT_BYTES];
    size_t told_count;
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
    if (str_equal(out.type, S("run.child_started")))
        follower->has_children = follower->has_new_child = true;
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

static bool read_events(struct follower *follower, struct context *ctx, struct error *e)
{
    int64_t backoff_ms = BACKOFF_MS, news_ns = context_now_ns(ctx);
    for (;;) {
        struct error broken = {0};
        arena_mark mark = arena_save(ctx->arena);
        follower->has_news = false;
        bool is_ok = follow_once(follower, ctx, &broken);
        arena_rewind(ctx->arena, mark);
        if (follower->is_over)
            return true;
        if (follower->has_news) {
            backoff_ms = BACKOFF_MS;
            news_ns = context_now_ns(ctx);
        }
        if (!is_ok && !error_may_retry(&broken))
            return error_copy(e, &broken);
        if (!is_ok && context_now_ns(ctx) - news_ns > FOLLOW_PATIENCE_MS * INT64_C(1000000)) {
            (void) error_copy(e, &broken);
            return error_wrap(e, "the events of run " STR_FMT, STR_ARG(follower->run_id));
        }
        if (is_ok)
            news_ns = context_now_ns(ctx); /* the server is there; the run just takes its time */
        if (!context_sleep_ms(ctx, backoff_ms, e))
            return follower->is_over;
        backoff_ms = backoff_ms * 2 < BACKOFF_MS_MAX ? backoff_ms * 2 : BACKOFF_MS_MAX;
    }
}

/* ---- approvals below ---- */

/* Each once; past TOLD_MAX of them no more are told, and the approvals' list has them. */
static bool is_news(struct follower *follower, str id)
{
    if (id.len != UUID_TEXT_BYTES || follower->told_count == TOLD_MAX)
        return false;
    for (size_t i = 0; i < follower->told_count; i++)
        if (str_equal(str_of(follower->told[i], UUID_TEXT_BYTES), id))
            return false;
    memcpy(follower->told[follower->told_count++], id.ptr, UUID_TEXT_BYTES);
    return true;
}

static bool ask_run(struct follower *follower, struct context *ctx, const struct json **run)
{
    struct error ignored = {
        0}; /* it is asked again; what is wrong with the server the reader finds */
    str path = client_path(ctx, "/api/v1/runs/{}", &follower->run_id);
    return client_call(follower->client, ctx, HTTP_GET, path, STR_NONE, run, &ignored);
}

static void look(struct follower *follower, struct context *ctx)
{
    const struct json *run, *item;
    arena_mark mark = arena_save(ctx->arena);
    if (ask_run(follower, ctx, &run) && !follower->is_over) {
        struct json_iter it = json_iter(json_get(run, S("waiting_on")));
        while (json_next(&it, NULL, &item)) {
            struct awaited_approval approval = {.id = json_str_or(item, S("approval_id"), STR_NONE),
                                                .run_id = json_str_or(item, S("run_id"), STR_NONE)};
            approval.is_below = !str_equal(approval.run_id, follower->run_id);
            if (is_news(follower, approval.id) && !follower->wait(follower->owner, ctx, &approval))
                follower->is_over = true;
        }
    }
    arena_rewind(ctx->arena, mark);
}

static void look_now_and_then(struct context *ctx, void *argument)
{
    struct follower *follower = argument;
    struct error ended;
    int64_t wait_ms = FOLLOW_LOOK_MS, seen = -1;
    while (context_sleep_ms(ctx, wait_ms, &ended)) {
        bool is_silent = follower->after == seen;
        seen = follower->after;
        if (follower->has_children && (is_silent || wait_ms == FOLLOW_LOOK_MS_MAX))
            look(follower, ctx);
        if (follower->is_over) {
            context_cancel(&follower->reading);
            return;
        }
        wait_ms = wait_ms * 2 < FOLLOW_LOOK_MS_MAX ? wait_ms * 2 : FOLLOW_LOOK_MS_MAX;
        if (follower->has_new_child)
            wait_ms = FOLLOW_LOOK_MS;
        follower->has_new_child = false;
    }
}

bool follow_run(struct client *client, struct context *ctx, str run_id, int64_t after,
                follow_fn *fn, follow_wait_fn *wait, void *owner, struct error *e)
{
    struct group group;
    struct follower *follower = ARENA_NEW(ctx->arena, struct follower);
    *follower = (struct follower){
        .client = client,
        .run_id = run_id,
        .path = client_path(ctx, "/api/v1/runs/{}/events", &run_id),
        .after = after,
        .fn = fn,
        .wait = wait,
        .owner = owner,
        .has_children = after > 0, /* it may have: what came before is not read */
    };
    context_init_child(&follower->reading, ctx, DEADLINE_NONE);
    group_init(&group, ctx);
    bool ok = group_start(&group, "approvals", look_now_and_then, follower, e) &&
              read_events(follower, &follower->reading, e);
    group_cancel(&group);
    group_wait(&group);
    context_deinit(&follower->reading);
    return ok;
}
