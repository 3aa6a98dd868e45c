/*
 * One attempt of a model call, up to its first content.
 *
 *      provider speaks the caller's dialect   the caller's bytes go up (edit_request), the provider's come down
 *      any other provider                     to_prompt, then deltas or a reply for the dialect's writer
 *
 * Nothing reaches the client here: a failure, a cut, garbage or a deadline only fails the attempt.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_internal.h"
#include "llm/guard_large.h"
#include "llm/openai_format.h"

/* ---- failures ---- */

bool attempt_network_failure(str provider, struct error *e)
{
    struct error mapped = {0};
    enum error_reason reason = e->reason;
    if (e->code == ERROR_TIMEOUT)
        reason = REASON_PROVIDER_TIMEOUT;
    else if (e->code == ERROR_UNAVAILABLE && e->reason != REASON_OVERLOADED_HERE)
        reason = REASON_PROVIDER_NETWORK;
    else if (e->reason == REASON_HTTP_SYNTAX || e->reason == REASON_TOO_LARGE)
        reason = REASON_PROVIDER_PROTOCOL;
    if (reason == e->reason)
        return false;
    error_set(&mapped, reason, "provider " STR_FMT ": %s", STR_ARG(provider), e->message);
    mapped.retry_after_ms = e->retry_after_ms;
    return error_copy(e, &mapped);
}

static bool fail_read(struct call_attempt *a, struct error *e)
{
    struct error own = {0};
    if (e->code == ERROR_CANCELLED)
        return false;
    if (!context_check(&a->ctx, &own)) /* our own deadline: told by explain_deadline */
        return error_copy(e, &own);
    return attempt_network_failure(a->plain.attempt.target->provider->name, e);
}

/* Which of our deadlines was it? */
static void explain_deadline(struct call_attempt *a)
{
    struct plain_work *work = a->work;
    struct error *e = &a->failure;
    str provider = a->plain.attempt.target->provider->name;
    if (e->reason != REASON_TIMEOUT)
        return;
    if (!context_check(&work->ctx, NULL))
        error_set(e, REASON_PROVIDER_TIMEOUT, "the model did not answer within %lld ms",
                  (long long) work->total_ms);
    else if (!work->m->request.is_stream)
        error_set(e, REASON_PROVIDER_TIMEOUT,
                  "provider " STR_FMT ": no whole answer within %lld ms", STR_ARG(provider),
                  (long long) work->plain.model->deadlines.attempt_ms);
    else
        error_set(e, REASON_PROVIDER_TIMEOUT, "provider " STR_FMT ": no first token within %lld ms",
                  STR_ARG(provider), (long long) work->plain.model->deadlines.first_token_ms);
}

/* A refusal before any work costs nothing; whatever else went wrong may have been worked on. */
static bool was_refused(const struct call_attempt *a, const struct error *failure)
{
    switch ((int) failure->reason) {
    case REASON_PROVIDER_RATE_LIMITED:
    case REASON_PROVIDER_QUOTA:
    case REASON_PROVIDER_AUTH:
    case REASON_PROVIDER_INVALID:
    case REASON_PROVIDER_OVERLOADED:
    case REASON_PROVIDER_CIRCUIT: return a->estimated_output <= 0;
    case REASON_PROVIDER_TIMEOUT:
    case REASON_TIMEOUT:
    case REASON_CANCELLED: return false; /* it may work on */
    default:
        return !a->has_head && a->estimated_output <= 0; /* never connected, or not even sent */
    }
}

struct plain_result attempt_result(const struct call_attempt *a, const struct usage *usage,
                                   int64_t estimated_output, const struct error *failure)
{
    return (struct plain_result){
        .usage = usage->is_reported || usage->input_tokens > 0 ? usage : NULL,
        .estimated_output = estimated_output,
        .was_refused = failure && !usage->is_reported && was_refused(a, failure),
        .failure = failure,
    };
}

void attempt_settle(struct call_attempt *a, const struct error *failure)
{
    if (failure && failure->reason == REASON_CONTENT_BLOCKED)
        failure = NULL; /* by us: the provider did its work */
    struct plain_result result = attempt_result(a, &a->usage, a->estimated_output, failure);
    plain_attempt_end(a->work->m->call->gateway->orchestrator, &a->plain, &result);
}

void attempt_close(struct call_attempt *a)
{
    http_exchange_close(GIVE(a->exchange));
    reply_stream_close(GIVE(a->stream));
    call_relay_deinit(&a->relay);
}

/* ---- the caller's bytes up ---- */

/* OpenAI's newer models refuse max_tokens. */
static bool is_new_limit_name(str model)
{
    return str_starts_with(model, S("o1")) || str_starts_with(model, S("o3")) ||
           str_starts_with(model, S("o4")) || str_starts_with(model, S("gpt-5"));
}

static bool edit_body(struct call_attempt *a, str *body, struct error *e)
{
    const struct model_call *m = a->work->m;
    const struct dialect_request *request = &m->request;
    const struct model_target *target = a->plain.attempt.target;
    str original = m->responses && !m->is_masked
                       ? responses_forward_body(m->responses, target->provider->name)
                       : m->body;
    bool must_limit = request->max_output_tokens > 0 || a->plain.must_limit || a->plain.is_lowered;
    struct dialect_edits edits = {
        .model = target->model,
        .max_output_tokens = must_limit ? a->plain.max_output_tokens : 0,
        .is_new_limit_name = is_new_limit_name(target->model),
        .include_usage = request->is_stream && !request->wants_usage,
    };
    return m->dialect->edit_request(a->arena, original, &edits, body, e);
}

/* ---- the provider's bytes down ---- */

static bool read_failure(struct call_attempt *a, int status, struct error *e)
{
    str body = STR_NONE;
    struct error unread = {0};
    const struct http_headers *headers = http_exchange_headers(a->exchange);
    int64_t wait_ms = openai_retry_after_ms(http_headers_get(headers, S("retry-after-ms")),
                                            http_headers_get(headers, S("retry-after")),
                                            clock_unix_us(a->work->m->call->gateway->clock));
    if (!http_exchange_read_all(a->exchange, &a->ctx, PROVIDER_ERROR_BODY_BYTES_MAX, &body,
                                &unread))
        body = STR_NONE;
    return a->work->m->dialect->error_from_status(status, body, wait_ms, a->arena, e);
}

static int64_t reply_estimate(const struct reply *reply)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < reply->part_count; i++)
        bytes += (int64_t) (reply->parts[i].text.len + reply->parts[i].arguments.len);
    return bytes / 3 + 1;
}

static struct guard_caller guard_of(struct call_attempt *a, struct arena *arena)
{
    return (struct guard_caller){.ctx = &a->ctx,
                                 .arena = arena,
                                 .rules = a->work->plain.model->guard,
                                 .tally = a->work->plain.found,
                                 .direction = GUARD_REPLY};
}

/* The answer as it came, with only its texts replaced. */
static bool filter_whole(struct call_attempt *a, struct arena *work, const struct json *json,
                         struct error *e)
{
    const struct dialect *dialect = a->work->m->dialect;
    str filtered;
    bool is_changed = false;
    size_t count = dialect->texts(DOCUMENT_REPLY, json, NULL, 0);
    struct dialect_text *texts = ARENA_ARRAY(work, struct dialect_text, count + 1);
    dialect->texts(DOCUMENT_REPLY, json, texts, count);
    struct guard_caller caller = guard_of(a, work);
    if (!guard_large_json(&caller, json, texts, count, &filtered, &is_changed, e))
        return false;
    if (is_changed)
        a->body = str_copy(a->arena, filtered);
    return true;
}

static bool read_whole(struct call_attempt *a, struct error *e)
{
    const struct json *json;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_ANSWER_BYTES_MAX, .allow_duplicates = true};
    if (!http_exchange_read_all(a->exchange, &a->ctx, PROVIDER_ANSWER_BYTES_MAX, &a->body, e))
        return fail_read(a, e);
    http_exchange_close(GIVE(a->exchange)); /* its connection is free for others now */
    OWNED(arena) work = arena_create(4 * (size_t) PROVIDER_ANSWER_BYTES_MAX);
    struct reply *reply = ARENA_NEW(work, struct reply);
    if (!json_parse(work, a->body, limits, &json, &parse))
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "provider " STR_FMT ": the answer is not JSON: %s",
                         STR_ARG(a->plain.attempt.target->provider->name), parse.message);
    if (!a->work->m->dialect->read_reply(work, json, reply, e))
        return error_wrap(e, "provider " STR_FMT, STR_ARG(a->plain.attempt.target->provider->name));
    a->usage = reply->usage;
    a->estimated_output = reply_estimate(reply);
    return !guard_is_on(a->work->plain.model->guard, GUARD_REPLY) || filter_whole(a, work, json, e);
}

static bool feed(struct call_attempt *a, str piece, struct error *e)
{
    arena_mark mark = arena_save(a->arena);
    enum call_relay_state state = str_is_empty(piece)
                                      ? call_relay_close(&a->relay, a->arena, e)
                                      : call_relay_feed(&a->relay, a->arena, piece, e);
    arena_rewind(a->arena, mark);
    return state != CALL_RELAY_FAILED ||
           error_wrap(e, "provider " STR_FMT, STR_ARG(a->plain.attempt.target->provider->name));
}

static bool read_until_content(struct call_attempt *a, struct error *e)
{
    while (a->relay.state == CALL_RELAY_HOLDING) {
        str piece;
        if (!http_exchange_read(a->exchange, &a->ctx, &piece, e))
            return fail_read(a, e);
        if (!feed(a, piece, e))
            return false;
    }
    return true;
}

static bool hold_until_content(struct call_attempt *a, struct error *e)
{
    struct model_call *m = a->work->m;
    a->relay = (struct call_relay){
        .dialect = m->dialect,
        .leaves_out_usage = !m->request.wants_usage,
        .holds_end = m->responses && responses_is_kept(m->responses),
    };
    struct guard_sink sink = plain_call_sink(&a->work->plain);
    if (guard_is_on(a->work->plain.model->guard, GUARD_REPLY))
        a->relay.guard = guard_events_create(a->work->plain.model->guard, &sink);
    bool ok = read_until_content(a, e);
    /* Content may have come in one piece with what broke the stream, or of a race that is lost: it is paid for all the same. */
    a->usage = a->relay.glance.usage;
    a->estimated_output = glance_output_estimate(&a->relay.glance);
    if (ok)
        attempt_first_token(&a->plain.attempt);
    return ok;
}

static bool is_event_stream(const struct http_exchange *exchange)
{
    str type = http_headers_get(http_exchange_headers(exchange), S("content-type"));
    return type.len >= 17 && str_equal_nocase(str_slice(type, 0, 17), S("text/event-stream"));
}

/* A server that cannot stream, or an error inside a 200. */
static bool refuse_whole(struct call_attempt *a, struct error *e)
{
    if (!read_whole(a, e))
        return false;
    return error_set(e, REASON_PROVIDER_PROTOCOL,
                     "provider " STR_FMT ": answered a stream request with one whole answer",
                     STR_ARG(a->plain.attempt.target->provider->name));
}

static bool open_forwarded(struct call_attempt *a, struct error *e)
{
    str body;
    struct provider *provider = a->plain.attempt.target->provider;
    if (!edit_body(a, &body, e) ||
        !provider_forward(provider, &a->ctx, &a->plain.attempt.how, a->work->m->dialect->path, body,
                          &a->exchange, e))
        return false;
    int status = http_exchange_status(a->exchange);
    if (status != 200) {
        read_failure(a, status, e);
        return error_wrap(e, "provider " STR_FMT, STR_ARG(provider->name));
    }
    if (!a->work->m->request.is_stream)
        return read_whole(a, e);
    return is_event_stream(a->exchange) ? hold_until_content(a, e) : refuse_whole(a, e);
}

/* ---- any other provider ---- */

may_suspend static bool counted_next(struct reply_stream *stream, struct context *ctx,
                                     struct delta *out, struct error *e)
{
    struct call_attempt *a = CONTAINER_OF(stream, struct call_attempt, counted);
    if (!reply_stream_next(a->uncounted, ctx, out, e))
        return false;
    if (out->kind == DELTA_END)
        a->usage = out->usage;
    else
        glance_add(&a->seen, out->text.len);
    a->estimated_output = glance_output_estimate(&a->seen);
    return true;
}

static void counted_close(struct reply_stream *stream)
{
    struct call_attempt *a = CONTAINER_OF(stream, struct call_attempt, counted);
    reply_stream_close(GIVE(a->uncounted));
}

static const struct reply_stream_ops counted_ops = {counted_next, counted_close};

static bool open_local(struct call_attempt *a, struct error *e)
{
    struct model_call *m = a->work->m;
    struct provider *provider = a->plain.attempt.target->provider;
    struct prompt *prompt = ARENA_NEW(a->arena, struct prompt);
    if (!m->dialect->to_prompt(a->arena, call_tree(m), prompt, e))
        return false;
    prompt->model = a->plain.attempt.target->model;
    prompt->max_output_tokens = a->plain.max_output_tokens;
    if (!m->request.is_stream) {
        if (!provider_complete(provider, &a->ctx, &a->plain.attempt.how, prompt, &a->reply, e))
            return false;
        a->usage = a->reply.usage;
        a->estimated_output = reply_estimate(&a->reply);
        struct guard_caller caller = guard_of(a, a->arena);
        return guard_large_reply(&caller, &a->reply, e);
    }
    if (!provider_stream(provider, &a->ctx, &a->plain.attempt.how, prompt, &a->uncounted, e))
        return false;
    a->counted.ops = &counted_ops;
    a->stream = &a->counted;
    struct guard_sink sink = plain_call_sink(&a->work->plain);
    a->stream = guard_stream_create(GIVE(a->stream), a->work->plain.model->guard, &sink);
    a->estimated_output = 0;
    if (!reply_stream_next(a->stream, &a->ctx, &a->first, e))
        return false;
    attempt_first_token(&a->plain.attempt);
    return true;
}

/* ---- both ---- */

/* Was there an answer at all?  The router reads the same head. */
static void note_head(void *owner, int status, const struct http_headers *headers)
{
    struct call_attempt *a = owner;
    a->has_head = true;
    if (a->on_head)
        a->on_head(a->head_owner, status, headers);
}

/* A whole answer has no first token: it may take as long as the call may, or as one attempt may. */
static void set_deadlines(struct call_attempt *a, struct context *parent)
{
    struct plain_work *work = a->work;
    const struct model_deadlines *deadlines = &work->plain.model->deadlines;
    struct provider_call *how = &a->plain.attempt.how;
    int64_t deadline_ns = parent->deadline_ns;
    bool is_stream = work->m->request.is_stream;
    int64_t own_ms = is_stream ? deadlines->first_token_ms : deadlines->attempt_ms;
    if (!is_stream)
        how->first_byte_timeout_ms = work->total_ms;
    if (own_ms > 0)
        deadline_ns = context_deadline_in(parent, own_ms);
    a->on_head = how->on_head;
    a->head_owner = how->owner;
    how->on_head = note_head;
    how->owner = a;
    if (a->is_forwarded && work->travel.count > 0)
        how->headers = &work->travel;
    context_init_child(&a->ctx, parent, deadline_ns);
    a->ctx.arena = a->arena;
}

never_inline void attempt_open(struct call_attempt *a, struct context *parent)
{
    const struct provider *provider = a->plain.attempt.target->provider;
    a->is_forwarded = provider_speaks(provider, a->work->m->dialect->id);
    a->estimated_output = -1;
    set_deadlines(a, parent);
    bool ok = a->is_forwarded ? open_forwarded(a, &a->failure) : open_local(a, &a->failure);
    if (!ok)
        explain_deadline(a);
    context_deinit(&a->ctx);
    if (!ok)
        attempt_close(a);
    a->stage = ok ? ATTEMPT_READY : ATTEMPT_FAILED;
}
