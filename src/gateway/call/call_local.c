/*
 * A stream from deltas, from the first one on: the provider speaks another dialect, or none.  The dialect's writer makes the events.
 *
 * It stays a coroutine: it pulls one delta after the other, and a slow client holds it up.  A child keeps the client's connection awake
 * while the provider is silent.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_internal.h"

struct local {
    struct call_attempt *a;
    struct dialect_answer answer;
    void *writer;
    int64_t sent_ns;
    bool is_writing; /* a piece is half out: no ping into it */
    struct call_watch watch;
    struct error revoked; /* the key is good no more */
};

/* ---- keep-alive ---- */

static void write_pings(struct context *ctx, void *argument)
{
    struct local *local = argument;
    struct model_call *m = local->a->work->m;
    struct error ended = {0};
    int64_t silence_ns = m->call->gateway->options.keep_alive_ms * INT64_C(1000000);
    for (;;) {
        int64_t due_ns = local->sent_ns + silence_ns;
        int64_t now_ns = context_now_ns(ctx);
        if (due_ns > now_ns) {
            if (!context_sleep_until(ctx, due_ns, &ended))
                return;
            continue;
        }
        local->sent_ns = now_ns;
        if (local->is_writing || !http_reply_has_begun(m->call->request))
            continue;
        struct strbuf ping;
        arena_mark mark = arena_save(ctx->arena);
        strbuf_init(&ping, ctx->arena, 1u << 10);
        m->dialect->write_ping(&ping);
        bool is_sent = http_reply_write(m->call->request, strbuf_str(&ping), &ended);
        arena_rewind(ctx->arena, mark);
        if (!is_sent)
            return;
    }
}

/* ---- a key that is good no more ---- */

/* Whatever is waited for, a client that does not read included, ends at once. */
static void on_revoked(void *owner, const struct error *why)
{
    struct local *local = owner;
    local->revoked = *why;
    context_cancel(local->a->work->m->call->ctx);
}

static void watch_key(struct local *local)
{
    struct api_call *call = local->a->work->m->call;
    local->watch = (struct call_watch){.key = call->key_digest,
                                       .level = call->principal.level,
                                       .revoked = on_revoked,
                                       .owner = local};
    call_watch_add(call->gateway->watches, call->ctx->scheduler, &local->watch);
}

/* ---- deltas ---- */

static bool send_delta(struct local *local, const struct delta *delta, struct error *e)
{
    struct plain_work *work = local->a->work;
    struct model_call *m = work->m;
    struct arena *arena = m->call->ctx->arena;
    struct strbuf text;
    arena_mark mark = arena_save(arena);
    strbuf_init(&text, arena, GATEWAY_REPLY_BYTES_MAX);
    m->dialect->writer_delta(local->writer, delta, &text);
    if (delta->kind == DELTA_END)
        call_keep(m, strbuf_str(&text));
    local->is_writing = true;
    bool ok = http_reply_write(m->call->request, strbuf_str(&text), e);
    local->is_writing = false;
    local->sent_ns = context_now_ns(m->call->ctx);
    if (work->fill)
        cache_fill_add(work->fill, strbuf_str(&text));
    arena_rewind(arena, mark);
    return ok;
}

/* Our own deadline is told as what it is. */
static bool next_delta(struct local *local, struct delta *delta, struct error *e)
{
    struct plain_work *work = local->a->work;
    if (reply_stream_next(local->a->stream, &work->ctx, delta, e))
        return true;
    return e->reason == REASON_TIMEOUT
               ? error_set(e, REASON_PROVIDER_TIMEOUT, "the model did not answer within %lld ms",
                           (long long) work->total_ms)
               : false;
}

static bool send_deltas(struct local *local, struct error *e)
{
    struct delta *delta = ARENA_NEW(local->a->work->m->call->ctx->arena, struct delta);
    *delta = local->a->first;
    while (send_delta(local, delta, e)) {
        if (delta->kind == DELTA_END)
            return true;
        if (!next_delta(local, delta, e))
            return false;
    }
    return false;
}

static bool send_stream(struct local *local, struct error *e)
{
    struct call_attempt *a = local->a;
    struct model_call *m = a->work->m;
    struct group pinger;
    struct error unstarted = {0};
    work_put_headers(a->work, a);
    if (!call_stream_begin(m->call, e))
        return false;
    m->dialect->writer_open(local->writer, &local->answer);
    group_init(&pinger, &a->work->ctx);
    /* Without a coroutine to spare the stream goes on without pings. */
    (void) !group_start(&pinger, "call.ping", write_pings, local, &unstarted);
    watch_key(local);
    bool ok = send_deltas(local, e);
    call_watch_remove(m->call->gateway->watches, &local->watch);
    group_cancel(&pinger);
    group_wait(&pinger);
    if (!ok && local->revoked.code != ERROR_OK)
        *e = local->revoked;
    if (!ok) {
        struct strbuf text;
        struct error ignored = {0};
        strbuf_init(&text, m->call->ctx->arena, 64u << 10);
        m->dialect->writer_error(local->writer, e, &text);
        if (e->code != ERROR_CANCELLED &&
            http_reply_write(m->call->request, strbuf_str(&text), &ignored))
            (void) !http_reply_flush(m->call->request, &ignored);
        http_reply_abort(m->call->request);
    } else {
        http_reply_end(m->call->request);
    }
    if (m->dialect->writer_close)
        m->dialect->writer_close(local->writer);
    return ok;
}

bool call_stream_deltas(struct call_attempt *a, struct error *e)
{
    struct model_call *m = a->work->m;
    struct arena *arena = m->call->ctx->arena;
    struct local *local = ARENA_NEW(arena, struct local);
    local->a = a;
    local->answer = call_answer(m);
    local->writer = arena_alloc(arena, m->dialect->writer_bytes);
    local->sent_ns = context_now_ns(m->call->ctx);
    bool ok = send_stream(local, e);
    attempt_close(a);
    work_end(a->work, a, ok ? NULL : e);
    return ok;
}
