/*
 * A provider that speaks the caller's dialect: the caller's own bytes go up and the provider's own bytes come down.
 *
 * Changed are only: the model's name, the output limit where the budget needs one, stream_options.include_usage (we settle by the
 * provider's usage; its chunk is taken out again when the caller did not ask).
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/chat_internal.h"
#include "gateway/splice.h"
#include "net/http_client.h"
#include "net/sse.h"

struct relay {
    struct chat_call *c;
    struct http_exchange *exchange;
    struct sse_parser *parser;
    struct openai_stream_state *state;
    int64_t event_count, data_bytes, data_bytes_least;
    bool has_finish, is_done;
};

/* ---- up ---- */

static bool is_limited(struct chat_call *c)
{
    struct ledger *ledger = orchestrator_ledger(c->call->gateway->orchestrator);
    cost remaining = ledger_remaining(ledger, &c->plain.path);
    return c->plain.is_lowered || remaining.tokens != COST_UNLIMITED ||
           remaining.cost_nanousd != COST_UNLIMITED;
}

/* OpenAI's newer models refuse max_tokens. */
static bool prefers_completion(str model)
{
    return str_starts_with(model, S("o1")) || str_starts_with(model, S("o3")) ||
           str_starts_with(model, S("o4")) || str_starts_with(model, S("gpt-5"));
}

static bool splice_body(struct chat_call *c, str *body, struct error *e)
{
    bool has_said = c->chat->max_output_tokens > 0;
    struct splice_edits edits = {
        .model = c->plain.target->model,
        .max_output_tokens = has_said || is_limited(c) ? c->plain.max_output_tokens : 0,
        .prefers_completion = prefers_completion(c->plain.target->model),
        .include_usage = c->chat->is_stream && !c->chat->wants_usage,
    };
    return splice_request(c->call->ctx->arena, c->call->body, &edits, body, e);
}

/* ---- an upstream that says no ---- */

static bool read_failure(struct chat_call *c, struct http_exchange *exchange, int status,
                         struct error *e)
{
    str body = STR_NONE;
    struct error unread = {0};
    const struct http_headers *headers = http_exchange_headers(exchange);
    int64_t wait_ms = openai_retry_after_ms(http_headers_get(headers, S("retry-after-ms")),
                                            http_headers_get(headers, S("retry-after")),
                                            clock_unix_us(c->call->gateway->clock));
    if (!http_exchange_read_all(exchange, &c->ctx, PROVIDER_ERROR_BODY_BYTES_MAX, &body, &unread))
        body = STR_NONE;
    return openai_error_from_status(status, body, wait_ms, c->call->ctx->arena, e);
}

/* ---- down, whole ---- */

static bool relay_whole(struct chat_call *c, struct http_exchange *exchange, struct error *e)
{
    str body;
    const struct json *json;
    if (!http_exchange_read_all(exchange, &c->ctx, PROVIDER_ANSWER_BYTES_MAX, &body, e))
        return false;
    OWNED(arena) work = arena_create(4 * (size_t) PROVIDER_ANSWER_BYTES_MAX);
    struct reply *reply = ARENA_NEW(work, struct reply);
    if (!json_parse(work, body, (struct json_limits){.bytes_max = PROVIDER_ANSWER_BYTES_MAX}, &json,
                    e))
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider's answer is not JSON");
    if (!openai_read_reply(work, json, reply, e))
        return false;
    c->usage = reply->usage;
    c->estimated_output = (int64_t) body.len / 4 + 1;
    reply_send(c->call, 200, S("application/json"), body);
    return true;
}

/* ---- down, streamed ---- */

/* "usage":null on every chunk is how servers say that it will come. */
static bool may_hold(str data, str member)
{
    size_t at = str_find(data, member);
    if (at == STR_NOT_FOUND)
        return false;
    str rest = str_trim(str_from(data, at + member.len));
    return !str_starts_with(rest, S(":")) ||
           !str_starts_with(str_trim(str_from(rest, 1)), S("null"));
}

/* Looks into the few chunks that matter.  *is_ours: the caller did not ask for it. */
static bool inspect(struct relay *relay, str data, bool *is_ours, struct error *e)
{
    struct chat_call *c = relay->c;
    struct arena *arena = c->call->ctx->arena;
    const struct json *chunk;
    struct error failure = {0};
    size_t count;
    arena_mark mark = arena_save(arena);
    struct delta *deltas = ARENA_ARRAY(arena, struct delta, OPENAI_CHUNK_DELTAS_MAX);
    bool ok =
        json_parse(arena, data, (struct json_limits){.allow_duplicates = true}, &chunk, &failure) &&
        openai_read_chunk(arena, chunk, relay->state, deltas, OPENAI_CHUNK_DELTAS_MAX, &count,
                          &failure);
    if (ok) {
        bool has_choices = json_count(json_get(chunk, S("choices"))) > 0;
        *is_ours = !c->chat->wants_usage && !has_choices &&
                   json_type(json_get(chunk, S("usage"))) == JSON_OBJECT;
    } else if (failure.reason == REASON_JSON) {
        error_set(&failure, REASON_PROVIDER_PROTOCOL, "the provider sent a chunk that is not JSON");
    }
    arena_rewind(arena, mark);
    return ok || error_copy(e, &failure);
}

static void measure(struct relay *relay, str data)
{
    int64_t bytes = (int64_t) data.len;
    relay->event_count++;
    relay->data_bytes += bytes;
    if (relay->data_bytes_least == 0 || bytes < relay->data_bytes_least)
        relay->data_bytes_least = bytes;
    /* What the chunks hold beyond their envelope, four bytes a token, and at least one token a chunk. */
    int64_t text = relay->data_bytes - relay->event_count * relay->data_bytes_least;
    relay->c->estimated_output = relay->event_count + text / 4;
}

static bool relay_event(struct relay *relay, const struct sse_event *event, struct error *e)
{
    struct chat_call *c = relay->c;
    bool is_ours = false;
    if (str_equal(event->data, S("[DONE]"))) {
        relay->is_done = true;
        return chat_send_data(c->call, event->data, e);
    }
    bool matters = may_hold(event->data, S("\"usage\"")) || may_hold(event->data, S("\"error\""));
    if (matters && !inspect(relay, event->data, &is_ours, e))
        return false;
    measure(relay, event->data);
    relay->has_finish = relay->has_finish || may_hold(event->data, S("\"finish_reason\""));
    if (is_ours)
        return true;
    if (str_find_char(event->data, '\n') == STR_NOT_FOUND)
        return chat_send_data(c->call, event->data, e);
    struct strbuf out;
    arena_mark mark = arena_save(c->call->ctx->arena);
    strbuf_init(&out, c->call->ctx->arena, 2 * SSE_EVENT_BYTES_MAX);
    sse_write(&out, STR_NONE, STR_NONE, event->data);
    bool ok =
        chat_stream_begin(c->call, e) && http_reply_write(c->call->request, strbuf_str(&out), e);
    arena_rewind(c->call->ctx->arena, mark);
    return ok;
}

static bool relay_events(struct relay *relay, struct error *e)
{
    struct chat_call *c = relay->c;
    while (!relay->is_done) {
        str piece;
        struct sse_event event;
        if (!http_exchange_read(relay->exchange, &c->ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            break;
        if (!sse_parser_feed(relay->parser, piece, e))
            return error_set(e, REASON_PROVIDER_PROTOCOL,
                             "the provider sent an event over %u bytes", SSE_EVENT_BYTES_MAX);
        while (!relay->is_done && sse_parser_next(relay->parser, &event))
            if (!str_is_empty(event.data) && !relay_event(relay, &event, e))
                return false;
    }
    if (relay->is_done)
        return true;
    /* Some servers end without [DONE]; without a finish reason it was a cut. */
    if (relay->has_finish && !sse_parser_has_partial(relay->parser))
        return chat_send_data(c->call, S("[DONE]"), e);
    return error_set(e, REASON_PROVIDER_NETWORK,
                     "the provider's stream ended in the middle of the answer");
}

/* The end of the body behind [DONE], so that the connection is kept. */
static void read_tail(struct relay *relay)
{
    struct context tail;
    struct error ignored = {0};
    str piece;
    context_init_child(&tail, &relay->c->ctx,
                       context_deadline_in(&relay->c->ctx, PROVIDER_TAIL_WAIT_MS));
    while (http_exchange_read(relay->exchange, &tail, &piece, &ignored) && !str_is_empty(piece))
        ;
    context_deinit(&tail);
}

static bool relay_stream(struct chat_call *c, struct http_exchange *exchange, struct error *e)
{
    OWNED(sse_parser) parser = sse_parser_create(0);
    struct relay relay = {.c = c, .exchange = exchange, .parser = parser};
    relay.state = ARENA_NEW(c->call->ctx->arena, struct openai_stream_state);
    bool ok = relay_events(&relay, e);
    c->usage = relay.state->usage;
    if (!ok)
        return false;
    http_reply_end(c->call->request);
    if (relay.is_done)
        read_tail(&relay);
    return true;
}

/* ---- one exchange ---- */

static bool is_event_stream(const struct http_exchange *exchange)
{
    str type = http_headers_get(http_exchange_headers(exchange), S("content-type"));
    return type.len >= 17 && str_equal_nocase(str_slice(type, 0, 17), S("text/event-stream"));
}

bool chat_forward(struct chat_call *c, struct error *e)
{
    str body;
    OWNED(http_exchange) exchange = NULL;
    c->was_sent = false;
    if (!splice_body(c, &body, e))
        return false;
    c->was_sent = true;
    if (!provider_forward(c->plain.target->provider, &c->ctx, S("/chat/completions"), body,
                          &exchange, e))
        return false;
    int status = http_exchange_status(exchange);
    if (status != 200)
        return read_failure(c, exchange, status, e);
    return c->chat->is_stream && is_event_stream(exchange) ? relay_stream(c, exchange, e)
                                                           : relay_whole(c, exchange, e);
}
