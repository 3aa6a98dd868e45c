/*
 * Streams of the MCP server: events of a call, and the long-lived ones that tell of changed lists.
 *
 *   session era: GET /mcp            one per session, the newest wins; event ids are the lists' generation, so nothing is kept for resuming
 *   stateless:   subscriptions/listen    first what is honoured, then notifications that name the subscription
 *
 * Chores of a long-lived stream, every MCP_SERVER_POLL_MS: authorise anew in its time, look for changes, a comment after silence.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"
#include "net/sse.h"
#include <stdatomic.h>

enum { EVENT_OVERHEAD_BYTES = 4096 };

bool mcp_stream_begin(struct mcp_call *m, struct error *e)
{
    if (http_reply_has_begun(m->call->request))
        return true;
    reply_header(m->call, S("Cache-Control"), S("no-store"));
    reply_header(m->call, S("X-Accel-Buffering"), S("no"));
    return reply_stream_begin(m->call, S("text/event-stream"), e);
}

bool mcp_stream_send(struct mcp_call *m, str id, str json, struct error *e)
{
    struct strbuf text;
    struct arena *arena = mcp_arena(m);
    arena_mark mark = arena_save(arena);
    strbuf_init(&text, arena, json.len + EVENT_OVERHEAD_BYTES);
    sse_write(&text, id, S("message"), json);
    bool ok = !strbuf_is_over(&text) ? http_reply_write(m->call->request, strbuf_str(&text), e)
                                     : error_set(e, REASON_TOO_LARGE, "the event is too large");
    arena_rewind(arena, mark);
    return ok;
}

bool mcp_stream_ping(struct mcp_call *m, struct error *e)
{
    return http_reply_write(m->call->request, S(": keep-alive\n\n"), e);
}

/* ---- long-lived ones ---- */

struct listening {
    struct mcp_call *m;
    bool tells_tools;
    uint64_t stream; /* of the session; 0: without one */
    int64_t generation;
    int64_t authorised_ns, sent_ns;
};

static str notification(struct mcp_call *m, str method, bool has_filter, bool tells_tools)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, mcp_arena(m), 8u << 10);
    json_writer_init(&w, &text);
    mcp_begin_request(&w, NULL, 0, method);
    json_object_begin(&w);
    if (mcp_is_stateless(m)) {
        json_key(&w, S("_meta"));
        json_object_begin(&w);
        json_put_value(&w, MCP_META_SUBSCRIPTION_ID, m->in.message.id);
        json_object_end(&w);
    }
    if (has_filter) {
        json_key(&w, S("notifications"));
        json_object_begin(&w);
        if (tells_tools)
            json_put_bool(&w, S("toolsListChanged"), true);
        json_object_end(&w);
    }
    json_object_end(&w);
    mcp_end(&w);
    return strbuf_str(&text);
}

static bool tell(struct listening *l, struct error *e)
{
    struct mcp_call *m = l->m;
    str id = STR_NONE;
    if (!mcp_is_stateless(m)) {
        struct mcp_event_id event = {.seq = l->generation};
        id = mcp_event_id_write(mcp_arena(m), &event);
    }
    l->sent_ns = context_now_ns(m->ctx);
    return mcp_stream_send(m, id,
                           notification(m, S("notifications/tools/list_changed"), false, false), e);
}

static bool is_over(const struct listening *l)
{
    struct mcp_call *m = l->m;
    if (atomic_load(&m->call->gateway->is_draining))
        return true;
    return !mcp_is_stateless(m) &&
           !mcp_sessions_has_stream(m->server->sessions, m->session, l->stream);
}

static bool do_chores(struct listening *l, struct error *e)
{
    struct mcp_call *m = l->m;
    int64_t now_ns = context_now_ns(m->ctx);
    if (now_ns - l->authorised_ns >= GATEWAY_REAUTHORISE_MS * INT64_C(1000000)) {
        if (!middleware_reauthorise(m->call, e))
            return false;
        l->authorised_ns = now_ns;
    }
    int64_t generation = mcp_lists_generation(m->server->lists, m->ctx);
    bool is_news = l->tells_tools && generation != l->generation;
    l->generation = generation;
    if (is_news && !is_over(l))
        return tell(l, e);
    if (now_ns - l->sent_ns < m->call->gateway->options.keep_alive_ms * INT64_C(1000000))
        return true;
    l->sent_ns = now_ns;
    return mcp_stream_ping(m, e);
}

static bool keep_telling(struct listening *l, struct error *e)
{
    struct arena *arena = mcp_arena(l->m);
    while (!is_over(l)) {
        arena_mark mark = arena_save(arena);
        bool ok = do_chores(l, e);
        arena_rewind(arena, mark);
        if (!ok || !context_sleep_ms(l->m->ctx, MCP_SERVER_POLL_MS, e))
            return false;
    }
    return true;
}

static struct listening listening_of(struct mcp_call *m)
{
    int64_t now_ns = context_now_ns(m->ctx);
    return (struct listening){.m = m,
                              .generation = mcp_lists_generation(m->server->lists, m->ctx),
                              .authorised_ns = now_ns,
                              .sent_ns = now_ns};
}

bool mcp_session_stream(struct mcp_call *m, const struct mcp_event_id *after, struct error *e)
{
    struct listening l = listening_of(m);
    l.tells_tools = true;
    l.stream = mcp_sessions_take_stream(m->server->sessions, m->session);
    if (!mcp_stream_begin(m, e) || !http_reply_write(m->call->request, S(": open\n\n"), e))
        return false;
    if (after && after->seq != l.generation && !tell(&l, e))
        return false;
    if (!keep_telling(&l, e))
        return false;
    http_reply_end(m->call->request);
    return true;
}

/* An orderly end by this side: the request's result, empty but for the subscription's name. */
static bool send_end(struct mcp_call *m, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, mcp_arena(m), 8u << 10);
    json_writer_init(&w, &text);
    mcp_begin_result(&w, m->in.message.id);
    json_object_begin(&w);
    json_put_str(&w, S("resultType"), S("complete"));
    json_key(&w, S("_meta"));
    json_object_begin(&w);
    json_put_value(&w, MCP_META_SUBSCRIPTION_ID, m->in.message.id);
    json_object_end(&w);
    json_object_end(&w);
    mcp_end(&w);
    if (!mcp_stream_send(m, STR_NONE, strbuf_str(&text), e))
        return false;
    http_reply_end(m->call->request);
    return true;
}

bool mcp_listen(struct mcp_call *m, struct error *e)
{
    const struct json *filter = json_get(m->in.message.params, S("notifications"));
    struct error ended = {0};
    if (json_type(filter) != JSON_OBJECT) {
        error_set(e, REASON_SCHEMA, "params.notifications must be an object");
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    }
    if (!middleware_take_stream(m->call, e))
        return false;
    struct listening l = listening_of(m);
    l.tells_tools = json_bool_or(filter, S("toolsListChanged"), false);
    str first = notification(m, S("notifications/subscriptions/acknowledged"), true, l.tells_tools);
    if (!mcp_stream_begin(m, e))
        return false;
    if (mcp_stream_send(m, STR_NONE, first, &ended) && keep_telling(&l, &ended))
        return send_end(m, e);
    http_reply_abort(m->call->request); /* gone, or no longer allowed: nothing more is said */
    return true;
}
