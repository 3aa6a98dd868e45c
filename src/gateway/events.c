/*
 * A run's journal as an event stream: every committed event once, in order, from any number on.
 *
 *   read what is committed --> send it --> (final event: end) --> wait for news, at most until the next chore --> read ...
 * Chores: authorise anew every GATEWAY_REAUTHORISE_MS, a comment every GATEWAY_KEEP_ALIVE_MS of silence.  Each look reads the store,
 * so news of other nodes arrive at the latest with a chore.  Memory is rewound after each event; a slow reader suspends this loop.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/timefmt.h"
#include "gateway/gateway_internal.h"
#include "net/sse.h"
#include <stdatomic.h>
#include <stdio.h>

enum { EVENTS_PER_READ = 50, EVENT_TEXT_BYTES_MAX = 64 << 20, EVENT_RETRY_MS = 5 };

struct events_reader {
    struct api_call *call;
    struct journal_follower *follower;
    uuid run_id;
    int64_t after;
    bool is_final;
    int64_t authorised_ns, sent_ns;
};

bool event_waits_for_clock(const struct json *data, int64_t now_us)
{
    int64_t wakes_us = json_i64_or(data, S("wakes_at"), 0);
    return json_count(json_get(data, S("approvals"))) == 0 && wakes_us > 0 &&
           wakes_us - now_us <= GATEWAY_RUN_SLEEP_MS * INT64_C(1000);
}

str event_waiting_text(struct arena *arena, uuid run_id, const struct json *data)
{
    int64_t wakes_us = json_i64_or(data, S("wakes_at"), 0);
    str why = json_bool_or(data, S("is_paused"), false) ? S("is paused with its session")
              : wakes_us > 0
                  ? str_printf(arena, "waits until " STR_FMT, STR_ARG(time_str(arena, wakes_us)))
                  : S("waits for a signal");
    str id = uuid_str(arena, run_id);
    return str_printf(arena,
                      "Run " STR_FMT " " STR_FMT
                      "; it goes on by itself then, and /api/v1/runs/" STR_FMT " tells its end.",
                      STR_ARG(id), STR_ARG(why), STR_ARG(id));
}

static bool send_event(struct events_reader *reader, const struct event *event, struct error *e)
{
    struct api_call *call = reader->call;
    struct strbuf data, out;
    struct json_writer w;
    char id[24];
    strbuf_init(&data, call->ctx->arena, EVENT_TEXT_BYTES_MAX);
    json_writer_init(&w, &data);
    if (!journal_write_event(call->gateway->store, call->ctx, call->principal.tenant_id, event,
                             true, &w, e))
        return false;
    int length = snprintf(id, sizeof id, "%lld", (long long) event->seq);
    strbuf_init(&out, call->ctx->arena, EVENT_TEXT_BYTES_MAX + 1024);
    sse_write(&out, str_of(id, (size_t) length), str_from_cstr(event_type_name(event->type)),
              strbuf_str(&data));
    if (strbuf_is_over(&data) || strbuf_is_over(&out))
        return error_set(e, REASON_TOO_LARGE, "event %lld is too large to send",
                         (long long) event->seq);
    if (!http_reply_write(call->request, strbuf_str(&out), e))
        return false;
    reader->after = event->seq;
    reader->is_final = event_is_final(event->type);
    reader->sent_ns = context_now_ns(call->ctx);
    return true;
}

/* False with an error that was not sent; *count: how many there were. */
static bool send_committed(struct events_reader *reader, size_t *count, struct error *e)
{
    struct api_call *call = reader->call;
    struct events events;
    if (!journal_follower_read(reader->follower, call->gateway->store, call->ctx,
                               call->principal.tenant_id, reader->after, EVENTS_PER_READ, &events,
                               e))
        return false;
    *count = events.count;
    for (size_t i = 0; i < events.count && !reader->is_final; i++) {
        arena_mark mark = arena_save(call->ctx->arena);
        bool is_sent = send_event(reader, &events.items[i], e);
        arena_rewind(call->ctx->arena, mark);
        if (!is_sent)
            return false;
    }
    return true;
}

static bool do_chores(struct events_reader *reader, struct error *e)
{
    struct api_call *call = reader->call;
    int64_t now_ns = context_now_ns(call->ctx);
    if (now_ns - reader->authorised_ns >= GATEWAY_REAUTHORISE_MS * INT64_C(1000000)) {
        if (!middleware_reauthorise(call, e))
            return false;
        reader->authorised_ns = now_ns;
    }
    if (now_ns - reader->sent_ns < GATEWAY_KEEP_ALIVE_MS * INT64_C(1000000))
        return true;
    reader->sent_ns = now_ns;
    return http_reply_write(call->request, S(": keep-alive\n\n"), e);
}

static bool wait_for_news(struct events_reader *reader, struct error *e)
{
    struct context *ctx = reader->call->ctx;
    struct error waited = {0};
    int64_t next_ns = reader->authorised_ns + GATEWAY_REAUTHORISE_MS * INT64_C(1000000);
    int64_t now_ns = context_now_ns(ctx);
    if (journal_wait(reader->follower, ctx, reader->after, next_ns > now_ns ? next_ns : now_ns,
                     &waited))
        return true;
    return waited.code == ERROR_TIMEOUT || error_copy(e, &waited);
}

/* One round; false ends the stream with e. */
static bool look_once(struct events_reader *reader, struct error *e)
{
    size_t count = 0;
    arena_mark mark = arena_save(reader->call->ctx->arena);
    bool ok = do_chores(reader, e) && send_committed(reader, &count, e);
    arena_rewind(reader->call->ctx->arena, mark);
    if (!ok || reader->is_final || count == EVENTS_PER_READ)
        return ok;
    int64_t waiting_since_ns = context_now_ns(reader->call->ctx);
    if (!wait_for_news(reader, e))
        return false;
    /* Told of news that the read did not see: never a busy loop. */
    bool is_at_once = context_now_ns(reader->call->ctx) - waiting_since_ns < 100000;
    return count > 0 || !is_at_once || context_sleep_ms(reader->call->ctx, EVENT_RETRY_MS, e);
}

static bool follow(struct events_reader *reader, struct error *e)
{
    struct gateway *gateway = reader->call->gateway;
    while (!reader->is_final) {
        if (atomic_load(&gateway->is_draining)) /* the client comes back with Last-Event-ID */
            return true;
        if (!look_once(reader, e))
            return false;
    }
    return true;
}

bool events_stream(struct api_call *call, uuid run_id, int64_t after, struct error *e)
{
    struct error ended = {0};
    int64_t now_ns = context_now_ns(call->ctx);
    struct events_reader reader = {
        .call = call, .run_id = run_id, .after = after, .authorised_ns = now_ns, .sent_ns = now_ns};
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_header(call, S("X-Accel-Buffering"), S("no"));
    if (!reply_stream_begin(call, S("text/event-stream"), e))
        return false;
    reader.follower =
        journal_follow(orchestrator_hub(call->gateway->orchestrator), call->ctx, run_id);
    bool ok = http_reply_write(call->request,
                               S(": events of a run; reconnect with Last-Event-ID\n\n"), &ended) &&
              follow(&reader, &ended);
    journal_unfollow(reader.follower);
    if (!ok && ended.code != ERROR_CANCELLED && ended.code != ERROR_DENIED)
        LOG_ERROR("gateway.events", S("an event stream ended early"), &ended);
    if (ok)
        http_reply_end(call->request);
    else
        http_reply_abort(call->request);
    return true;
}

bool events_list(struct api_call *call, uuid run_id, int64_t after, int64_t limit, struct error *e)
{
    struct events events;
    struct reply_writer writer;
    uuid tenant_id = call->principal.tenant_id;
    if (!journal_read(call->gateway->store, call->ctx, tenant_id, run_id, after, (size_t) limit,
                      &events, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    bool is_final = false;
    json_object_begin(w);
    json_key(w, S("events"));
    json_array_begin(w);
    for (size_t i = 0; i < events.count; i++) {
        if (!journal_write_event(call->gateway->store, call->ctx, tenant_id, &events.items[i],
                                 false, w, e))
            return false;
        after = events.items[i].seq;
        is_final = event_is_final(events.items[i].type);
    }
    json_array_end(w);
    json_key(w, S("next")); /* null: nothing will follow */
    if (is_final)
        json_write_null(w);
    else
        json_write_i64(w, after);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
