/*
 * a stream of deltas through the filter
 *
 * Each kind of part has its channel, each tool call its own.  Before a part of another kind begins, and before the end, the channels
 * that wrote until now give their rest:
 *
 *      inner --delta--> ends others? --yes--> kept in `next` while their rests go out, then
 *                            '------no-------> through its channel --> out, unless nothing of it is safe yet
 */
#include "llm/guard_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

enum {
    CHANNEL_TEXT,
    CHANNEL_REASONING,
    CHANNEL_CALLS,
    CHANNEL_COUNT = CHANNEL_CALLS + PROVIDER_TOOL_CALLS_MAX
};

struct guard_stream {
    struct reply_stream base;
    struct reply_stream *inner;
    struct guard_watch watch;
    struct arena *arena; /* of the delta that was given last */
    struct delta next;   /* waits until `ending` is through */
    bool has_next, is_failed;
    int ending;                                    /* channel to look at next */
    struct guard_channel *channels[CHANNEL_COUNT]; /* NULL: not written to since it last ended */
    struct error failure;
};

static enum delta_kind kind_of(int channel)
{
    return channel == CHANNEL_TEXT        ? DELTA_TEXT
           : channel == CHANNEL_REASONING ? DELTA_REASONING
                                          : DELTA_TOOL_ARGUMENTS;
}

/* -1: none (a call beyond all bounds is the consumer's to refuse; it has no text to give). */
static int channel_of(const struct delta *delta)
{
    switch (delta->kind) {
    case DELTA_TEXT: return CHANNEL_TEXT;
    case DELTA_REASONING: return CHANNEL_REASONING;
    case DELTA_TOOL_CALL:
    case DELTA_TOOL_ARGUMENTS:
        return delta->index >= 0 && delta->index < PROVIDER_TOOL_CALLS_MAX
                   ? CHANNEL_CALLS + delta->index
                   : -1;
    case DELTA_END: break;
    }
    return -1;
}

/* Does this delta end what the channel wrote?  Arguments of calls may come side by side. */
static bool ends(const struct delta *delta, int channel)
{
    if (channel == channel_of(delta)) /* a whole block is a part of its own */
        return str_starts_with(delta->opaque, S("{\"type\""));
    return delta->kind != DELTA_TOOL_ARGUMENTS || channel < CHANNEL_CALLS;
}

static bool fail(struct guard_stream *s, struct error *e)
{
    guard_watch_error(&s->watch, &s->failure);
    s->is_failed = true;
    return error_copy(e, &s->failure);
}

static void drop_channel(struct guard_stream *s, int i)
{
    if (!s->channels[i])
        return;
    guard_channel_deinit(s->channels[i]);
    free(s->channels[i]);
    s->channels[i] = NULL;
}

static struct guard_channel *channel_at(struct guard_stream *s, int i)
{
    if (!s->channels[i]) {
        s->channels[i] = malloc(sizeof *s->channels[i]);
        ensure(s->channels[i]);
        guard_channel_init(s->channels[i], s->watch.rules->sets[GUARD_REPLY], i >= CHANNEL_CALLS);
    }
    return s->channels[i];
}

/* True with something in *out; false: nothing more to end, or (is_failed) blocked. */
static bool end_others(struct guard_stream *s, struct delta *out)
{
    struct strbuf text;
    while (s->ending < CHANNEL_COUNT) {
        int i = s->ending++;
        if (!s->channels[i] || !ends(&s->next, i))
            continue;
        strbuf_init(&text, s->arena, SIZE_MAX);
        bool is_open = guard_channel_end(s->channels[i], &s->watch, &text);
        drop_channel(s, i);
        s->is_failed = !is_open;
        *out = (struct delta){.kind = kind_of(i), .text = strbuf_str(&text)};
        if (i >= CHANNEL_CALLS)
            out->index = i - CHANNEL_CALLS;
        if (text.len > 0 || !is_open)
            return text.len > 0;
    }
    return false;
}

/* The delta through its channel; false: nothing of it may go out yet. */
static bool pass(struct guard_stream *s, struct delta *delta)
{
    int i = channel_of(delta);
    struct strbuf text;
    if (i < 0 || delta->kind == DELTA_TOOL_CALL)
        return true;
    strbuf_init(&text, s->arena, SIZE_MAX);
    s->is_failed = !guard_channel_feed(channel_at(s, i), &s->watch, delta->text, &text);
    if (!s->is_failed && str_starts_with(delta->opaque, S("{"))) {
        /* It ends its part: what is held back belongs before it. */
        s->is_failed = !guard_channel_end(s->channels[i], &s->watch, &text);
        drop_channel(s, i);
    }
    if (s->is_failed)
        delta->opaque = STR_NONE;
    delta->text = strbuf_str(&text);
    return text.len > 0 || !str_is_empty(delta->opaque);
}

/* One turn.  True with *out; false: go on with the next one, or is_failed. */
static bool advance(struct guard_stream *s, struct delta *out)
{
    if (end_others(s, out))
        return true;
    if (s->is_failed)
        return false;
    *out = s->next;
    s->has_next = false;
    return pass(s, out);
}

may_suspend static bool guard_stream_next(struct reply_stream *stream, struct context *ctx,
                                          struct delta *out, struct error *e)
{
    struct guard_stream *s = CONTAINER_OF(stream, struct guard_stream, base);
    if (s->is_failed)
        return s->failure.code == ERROR_OK ? fail(s, e) : error_copy(e, &s->failure);
    arena_reset(s->arena);
    for (;;) {
        if (!s->has_next) {
            if (!reply_stream_next(s->inner, ctx, &s->next, e))
                return false;
            s->has_next = true;
            s->ending = 0;
        }
        struct delta delta = {0};
        /* What was safe before a block goes out first; the block is told at the next call. */
        if (advance(s, &delta)) {
            *out = delta;
            return true;
        }
        if (s->is_failed)
            return fail(s, e);
    }
}

static void guard_stream_close(struct reply_stream *stream)
{
    struct guard_stream *s = CONTAINER_OF(stream, struct guard_stream, base);
    reply_stream_close(s->inner);
    for (int i = 0; i < CHANNEL_COUNT; i++)
        drop_channel(s, i);
    arena_destroy(s->arena);
    free(s);
}

static const struct reply_stream_ops guard_stream_ops = {guard_stream_next, guard_stream_close};

struct reply_stream *guard_stream_create(struct reply_stream *give_inner,
                                         const struct guard_rules *rules,
                                         const struct guard_sink *sink)
{
    if (!guard_is_on(rules, GUARD_REPLY))
        return give_inner;
    struct guard_stream *s = calloc(1, sizeof *s);
    ensure(s);
    s->base.ops = &guard_stream_ops;
    s->inner = give_inner;
    s->arena = arena_create(SIZE_MAX);
    guard_watch_init(&s->watch, rules, GUARD_REPLY, sink);
    return &s->base;
}
