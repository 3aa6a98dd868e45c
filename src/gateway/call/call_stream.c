/*
 * A stream of the caller's own dialect, from its first content on.
 *
 *      READY --> head and what was held --> ended already? --> booked
 *                                            '--> handed on: http_relay calls back, no coroutine, no arena, no request
 *
 * What lives on is one struct on the heap; everything it needs of the request is copied behind it.
 *
 *      bytes --> call_relay --> client        end, cut, deadline, client gone --> told in band where it can be --> booked --> freed
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/call/call_internal.h"
#include "net/http_relay.h"
#include <stdlib.h>

struct call_stream {
    struct call_relay relay;
    struct http_relay *http;
    struct plain_open plain;
    struct principal principal; /* for the rate; its strings are in `text` */
    struct cache_fill *fill;
    struct responses_call *responses;
    struct scheduler *scheduler;
    struct access access;
    struct call_watch watch;
    int64_t token_estimate;
    int64_t between_ms, total_ms, deadline_ns;
    uuid tenant_id;
    bool is_degraded; /* a lowered limit: not for the cache */
    bool is_keeping;  /* the end waits for responses_keep */
    char text[];
};

/* ---- what outlives the request ---- */

/* Strings of the request that are needed to the end; each moves to the stream's own text. */
enum { OWN_STRINGS = 5 };
static void own_strings(struct call_stream *s, str *strings[OWN_STRINGS])
{
    strings[0] = &s->principal.caller_id;
    strings[1] = &s->access.user_id;
    strings[2] = &s->access.request_id;
    strings[3] = &s->access.peer;
    strings[4] = &s->access.path;
}

static size_t own_bytes(const struct access *access, const struct principal *principal)
{
    return principal->caller_id.len + access->user_id.len + access->request_id.len +
           access->peer.len + access->path.len;
}

static void take_strings(struct call_stream *s)
{
    str *strings[OWN_STRINGS];
    char *to = s->text;
    own_strings(s, strings);
    for (size_t i = 0; i < OWN_STRINGS; i++) {
        if (strings[i]->len > 0)
            memcpy(to, strings[i]->ptr, strings[i]->len);
        strings[i]->ptr = to;
        to += strings[i]->len;
    }
}

static struct call_stream *stream_of(struct call_attempt *a)
{
    struct plain_work *work = a->work;
    struct api_call *call = work->m->call;
    struct access access = access_begin(call);
    const struct principal *principal = &work->plain.principal;
    struct call_stream *s = malloc(sizeof *s + own_bytes(&access, principal));
    ensure(s != NULL);
    *s = (struct call_stream){
        .relay = a->relay,
        .principal = {.tenant_id = principal->tenant_id,
                      .caller_id = principal->caller_id,
                      .key_id = principal->key_id,
                      .limits = {.requests_per_minute = principal->limits.requests_per_minute,
                                 .tokens_per_minute = principal->limits.tokens_per_minute}},
        .fill = GIVE(work->fill),
        .responses = GIVE(work->m->responses),
        .scheduler = call->ctx->scheduler,
        .access = access,
        .token_estimate = work->token_estimate,
        .between_ms = work->plain.model->deadlines.between_tokens_ms,
        .total_ms = work->total_ms,
        .deadline_ns = work->ctx.deadline_ns,
        .tenant_id = call->ctx->tenant_id,
        .is_degraded = a->plain.is_lowered,
    };
    a->relay = (struct call_relay){0}; /* its bytes have moved */
    plain_open(&work->plain, &a->plain, &s->plain);
    take_strings(s);
    if (s->responses)
        responses_park(s->responses);
    return s;
}

/* ---- the end ---- */

static void book(struct call_stream *s, const struct error *failure)
{
    struct gateway *gateway = s->access.gateway;
    const struct usage *usage = &s->relay.glance.usage;
    bool is_ours = failure && failure->reason == REASON_CONTENT_BLOCKED; /* not the provider's */
    struct plain_result result = {
        .usage = usage->is_reported || usage->input_tokens > 0 ? usage : NULL,
        .estimated_output = glance_output_estimate(&s->relay.glance),
        .failure = is_ours ? NULL : failure,
    };
    plain_open_end(gateway->orchestrator, &s->plain, &result);
    middleware_correct_tokens(gateway, &s->principal,
                              s->plain.usage.input_tokens + s->plain.usage.output_tokens -
                                  s->token_estimate);
    if (s->fill && !failure && !s->is_degraded)
        cache_fill_commit(GIVE(s->fill), 200, S("text/event-stream"), true, usage);
    cache_fill_abandon(s->fill);
}

static void finish(struct call_stream *s, enum http_relay_ending how, const struct error *failure)
{
    call_watch_remove(s->access.gateway->watches, &s->watch);
    http_relay_finish(s->http, how);
    book(s, failure);
    access_end(&s->access);
    responses_end(s->responses);
    call_relay_deinit(&s->relay);
    free(s);
}

/* In band, then a cut that no client takes for an end. */
static void fail(struct call_stream *s, const struct error *failure)
{
    if (!http_relay_client_is_gone(s->http)) {
        OWNED(arena) arena = arena_create(0);
        struct strbuf text;
        strbuf_init(&text, arena, 64u << 10);
        s->relay.dialect->write_stream_error(failure, &text);
        (void) http_relay_write(s->http, strbuf_str(&text));
    }
    finish(s, HTTP_RELAY_ABORT, failure);
}

static void put(void *owner, str bytes)
{
    struct call_stream *s = owner;
    (void) http_relay_write(s->http, bytes); /* false: on_end will tell */
    if (s->fill)
        cache_fill_add(s->fill, bytes);
}

/* ---- an answer that is stored before its last event goes out ---- */

static void keep_then_end(void *argument)
{
    struct call_stream *s = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error ignored = {0};
    context_init(&ctx, s->scheduler, arena,
                 clock_monotonic_ns(scheduler_clock(s->scheduler)) +
                     CALL_KEEP_MS * INT64_C(1000000));
    ctx.tenant_id = s->tenant_id;
    ctx.trace = s->access.trace;
    (void) !responses_keep(s->responses, &ctx, call_bytes_str(&s->relay.last), &ignored);
    context_deinit(&ctx);
    put(s, call_bytes_str(&s->relay.last));
    finish(s, HTTP_RELAY_END, NULL);
}

static void end(struct call_stream *s)
{
    struct error unstarted = {0};
    if (s->relay.last.len == 0) {
        finish(s, HTTP_RELAY_END, NULL);
        return;
    }
    s->is_keeping = true;
    if (coroutine_start(s->scheduler, "call.keep", keep_then_end, s, &unstarted))
        return;
    LOG_ERROR("gateway.call", S("an answer could not be stored"), &unstarted);
    put(s, call_bytes_str(&s->relay.last));
    finish(s, HTTP_RELAY_END, NULL);
}

/* ---- callbacks: on the loop's thread, not on a coroutine ---- */

static void on_state(struct call_stream *s, enum call_relay_state state, struct error *failure)
{
    if (state == CALL_RELAY_ENDED)
        end(s);
    else if (state == CALL_RELAY_FAILED)
        fail(s, failure);
}

static void on_bytes(void *owner, str bytes)
{
    struct call_stream *s = owner;
    struct error failure = {0};
    if (s->is_keeping)
        return;
    OWNED(arena) scratch = arena_create(0);
    on_state(s, call_relay_feed(&s->relay, scratch, bytes, &failure), &failure);
}

/* Which deadline was it? */
static void explain(struct call_stream *s, struct error *e)
{
    struct error mapped = {0};
    str provider = s->plain.attempt.target->provider->name;
    if (e->code == ERROR_CANCELLED)
        return;
    if (e->code != ERROR_TIMEOUT) {
        attempt_network_failure(provider, e);
        return;
    }
    if (clock_monotonic_ns(s->access.gateway->clock) >= s->deadline_ns)
        error_set(&mapped, REASON_PROVIDER_TIMEOUT, "the model did not answer within %lld ms",
                  (long long) s->total_ms);
    else
        error_set(&mapped, REASON_PROVIDER_TIMEOUT,
                  "provider " STR_FMT ": the next token took longer than %lld ms",
                  STR_ARG(provider),
                  (long long) (s->between_ms > 0 ? s->between_ms : UPSTREAM_IDLE_TIMEOUT_MS));
    error_copy(e, &mapped);
}

static void on_end(void *owner, const struct error *why)
{
    struct call_stream *s = owner;
    struct error failure = {0};
    if (s->is_keeping)
        return;
    if (!why) {
        OWNED(arena) scratch = arena_create(0);
        on_state(s, call_relay_close(&s->relay, scratch, &failure), &failure);
        return;
    }
    failure = *why;
    explain(s, &failure);
    fail(s, &failure);
}

static void on_idle(void *owner)
{
    struct call_stream *s = owner;
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 10);
    s->relay.dialect->write_ping(&text);
    (void) http_relay_write(s->http, strbuf_str(&text));
}

/* The key is good no more: on another coroutine, not within a callback. */
static void on_revoked(void *owner, const struct error *why)
{
    struct call_stream *s = owner;
    if (!s->is_keeping) /* else it ends just now */
        fail(s, why);
}

/* ---- from the coroutine ---- */

static void hand_on(struct call_attempt *a)
{
    struct call_stream *s = stream_of(a);
    struct api_call *call = a->work->m->call;
    s->relay.write = put;
    s->relay.owner = s;
    call->is_handed_on = true;
    a->work->is_ended = true;
    s->watch = (struct call_watch){
        .key = call->key_digest, .level = call->principal.level, .revoked = on_revoked, .owner = s};
    s->http = http_relay_start(&(struct http_relay_options){
        .request = call->request,
        .exchange = GIVE(a->exchange),
        .on_bytes = on_bytes,
        .on_end = on_end,
        .on_idle = on_idle,
        .owner = s,
        .between_bytes_timeout_ms = s->between_ms,
        .keep_alive_ms = call->gateway->options.keep_alive_ms,
        .deadline_ns = s->deadline_ns,
    });
    call_watch_add(call->gateway->watches, s->scheduler, &s->watch);
}

/* The end of the body behind the last event, so that the connection is kept. */
static void read_tail(struct call_attempt *a)
{
    struct context tail;
    struct error ignored = {0};
    str piece;
    context_init_child(&tail, &a->work->ctx,
                       context_deadline_in(&a->work->ctx, PROVIDER_TAIL_WAIT_MS));
    while (http_exchange_read(a->exchange, &tail, &piece, &ignored) && !str_is_empty(piece))
        ;
    context_deinit(&tail);
}

/* The whole stream came at once. */
static bool end_here(struct call_attempt *a, struct error *e)
{
    struct plain_work *work = a->work;
    struct http_request *request = work->m->call->request;
    str last = call_bytes_str(&a->relay.last);
    call_keep(work->m, last);
    if (!http_reply_write(request, last, e))
        return false;
    if (work->fill)
        cache_fill_add(work->fill, last);
    http_reply_end(request);
    read_tail(a);
    return true;
}

static bool send_held(struct call_attempt *a, struct error *e)
{
    struct plain_work *work = a->work;
    struct model_call *m = work->m;
    str held = call_bytes_str(&a->relay.held);
    if (m->responses)
        responses_set_provider(m->responses, a->plain.attempt.target->provider->name);
    work_put_headers(work, a);
    if (!call_stream_begin(m->call, e) || !http_reply_write(m->call->request, held, e))
        return false;
    if (work->fill)
        cache_fill_add(work->fill, held);
    call_bytes_free(&a->relay.held);
    return true;
}

bool call_stream_relay(struct call_attempt *a, struct error *e)
{
    bool ok = send_held(a, e);
    if (ok && a->relay.state == CALL_RELAY_FLOWING) {
        hand_on(a);
        return true;
    }
    ok = ok && end_here(a, e);
    a->usage = a->relay.glance.usage;
    a->estimated_output = glance_output_estimate(&a->relay.glance);
    attempt_close(a);
    work_end(a->work, a, ok ? NULL : e);
    return ok;
}
