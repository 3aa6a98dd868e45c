/*
 * agent:NAME as a model: one call is one run, and the answer is read off its journal.
 *
 * Without X-Nexus-Session each call opens a session of its own, the caller's earlier turns become its history, and a client that
 * goes away cancels the run.  With one, the session remembers by itself and only the newest message is taken.
 *
 *   run events --> model.delta: text (of the newest attempt)   run.completed: the end   run.failed: the error of its class
 *                  run.waiting: the answer ends with run id and approval link, Nexus-Status: waiting
 *
 * The reply's head waits for the first event that decides it, so a run that is refused, fails or waits at once has its own status.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/chat_internal.h"
#include "net/sse.h"

enum { EVENTS_PER_READ = 50, CANCEL_MS = 5000, RETRY_MS = 5 };

enum outcome { OUTCOME_NONE, OUTCOME_COMPLETED, OUTCOME_WAITING };

struct agent_call {
    struct api_call *call;
    const struct chat_request *chat;
    uuid session_id, run_id;
    bool is_own_session;
    struct run_request request;
    struct openai_answer answer;
    struct journal_follower *follower;
    int64_t seen;
    int64_t attempt;         /* newest whose text is shown */
    int64_t step_bytes;      /* text sent of the step in work */
    bool has_text, has_role; /* anything sent at all; the first chunk carries the role */
    int64_t authorised_ns, sent_ns;
    struct usage usage;
    enum outcome outcome;
    enum finish finish;
    bool is_degraded;
    uuid answer_id;
    str approvals; /* links, one a line */
};

/* ---- the request ---- */

static bool last_user_message(const struct prompt *prompt, size_t *index, struct error *e)
{
    *index = prompt->message_count - 1;
    if (prompt->messages[*index].role == ROLE_USER)
        return true;
    return error_set(e, REASON_SCHEMA, "the last message must be the user's");
}

static bool read_question(struct agent_call *a, struct error *e)
{
    bool is_stream, wants_usage;
    size_t last;
    struct arena *arena = a->chat->arena;
    struct prompt *prompt = ARENA_NEW(arena, struct prompt);
    if (!openai_read_request(arena, a->chat->json, prompt, &is_stream, &wants_usage, e) ||
        !last_user_message(prompt, &last, e))
        return false;
    if (prompt->tool_count > 0)
        return error_set(e, REASON_INVALID,
                         "an agent brings its own tools: leave out tools, or call a plain model");
    if (a->chat->choices > 1)
        return error_set(e, REASON_INVALID, "an agent gives one answer: leave out n");
    a->request.content = prompt_message_text(arena, &prompt->messages[last]);
    const struct json *content =
        json_get(json_at(json_get(a->chat->json, S("messages")), last), S("content"));
    if (json_type(content) == JSON_ARRAY)
        a->request.parts = json_print(arena, content);
    if (a->is_own_session) {
        a->request.history = prompt->messages;
        a->request.history_count = last;
    }
    return true;
}

static bool unknown_agent(struct agent_call *a, str agent, struct error *e)
{
    enum { NAMES_BYTES_MAX = 300 };
    struct strbuf names;
    const struct settings *settings = orchestrator_acquire(a->call->gateway->orchestrator);
    strbuf_init(&names, a->call->ctx->arena, 64u << 10);
    for (size_t i = 0; i < agent_set_count(settings->agents) && names.len < NAMES_BYTES_MAX; i++) {
        strbuf_add(&names, i > 0 ? S(", agent:") : S("agent:"));
        strbuf_add(&names, agent_set_at(settings->agents, i)->name);
    }
    orchestrator_release(settings);
    return error_set(e, REASON_UNKNOWN_MODEL,
                     "there is no agent \"" STR_FMT "\"; known are: " STR_FMT,
                     STR_ARG(str_cut_utf8(agent, 80)),
                     STR_ARG(str_cut_utf8(strbuf_str(&names), NAMES_BYTES_MAX)));
}

static bool open_session(struct agent_call *a, str agent, struct error *e)
{
    struct orchestrator *o = a->call->gateway->orchestrator;
    struct record *row = ARENA_NEW(a->call->ctx->arena, struct record);
    if (a->is_own_session) {
        struct session_request request = {.agent = agent, .budget = COST_LIMITLESS};
        if (!session_create(o, a->call->ctx, &a->call->principal, &request, row, e)) {
            if (e->reason == REASON_NOT_FOUND) /* on this route it is a model that is not known */
                return unknown_agent(a, agent, e);
            return false;
        }
        a->session_id = record_uuid(row, SESSIONS_ID);
        return true;
    }
    if (!session_get(o, a->call->ctx, &a->call->principal, a->chat->session_id, row, e))
        return false;
    a->session_id = a->chat->session_id;
    return str_equal(record_text(row, SESSIONS_AGENT), agent) ||
           error_set(e, REASON_CONFLICT, "the session belongs to the agent \"" STR_FMT "\"",
                     STR_ARG(record_text(row, SESSIONS_AGENT)));
}

/* ---- streaming out ---- */

static bool send_delta(struct agent_call *a, const struct delta *delta, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    if (!chat_stream_begin(a->call, e))
        return false;
    arena_mark mark = arena_save(a->call->ctx->arena);
    strbuf_init(&text, a->call->ctx->arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&w, &text);
    openai_write_chunk(&w, &a->answer, delta, !a->has_role);
    a->has_role = true;
    bool ok = chat_send_data(a->call, strbuf_str(&text), e);
    arena_rewind(a->call->ctx->arena, mark);
    a->sent_ns = context_now_ns(a->call->ctx);
    return ok;
}

static bool send_text(struct agent_call *a, str text, struct error *e)
{
    if (!a->chat->is_stream || str_is_empty(text))
        return true;
    if (a->step_bytes == 0 && a->has_text) { /* a new step's text begins a new paragraph */
        struct delta gap = {.kind = DELTA_TEXT, .text = S("\n\n")};
        if (!send_delta(a, &gap, e))
            return false;
    }
    struct delta delta = {.kind = DELTA_TEXT, .text = text};
    a->step_bytes += (int64_t) text.len;
    a->has_text = true;
    return send_delta(a, &delta, e);
}

/* A newer attempt voids what an older one said; what was sent cannot be taken back, so it is said. */
static bool on_delta(struct agent_call *a, const struct json *data, struct error *e)
{
    int64_t attempt = json_i64_or(data, S("attempt"), 0);
    if (attempt < a->attempt)
        return true;
    if (attempt > a->attempt && a->attempt > 0 && a->step_bytes > 0) {
        a->step_bytes = 0;
        if (!send_text(a, S("[The answer was interrupted and starts over.]"), e))
            return false;
        a->step_bytes = 0;
    }
    a->attempt = attempt;
    return send_text(a, json_str_or(data, S("text"), STR_NONE), e);
}

/* ---- events ---- */

static enum finish finish_of(str name)
{
    for (enum finish finish = FINISH_STOP; finish <= FINISH_OTHER; finish++)
        if (str_equal(name, str_from_cstr(finish_name(finish))))
            return finish;
    return FINISH_STOP;
}

static void on_model_completed(struct agent_call *a, const struct json *data)
{
    const struct json *usage = json_get(data, S("usage"));
    a->usage.input_tokens += json_i64_or(usage, S("input_tokens"), 0);
    a->usage.output_tokens += json_i64_or(usage, S("output_tokens"), 0);
    a->usage.cached_tokens += json_i64_or(usage, S("cached_tokens"), 0);
    a->usage.reasoning_tokens += json_i64_or(usage, S("reasoning_tokens"), 0);
    a->usage.is_reported = true;
}

static bool on_failed(const struct json *data, struct error *e)
{
    enum error_reason reason = REASON_INTERNAL;
    str problem = json_str_or(data, S("error"), STR_NONE),
        message = json_str_or(data, S("message"), S("the run failed"));
    if (!error_reason_find(problem, &reason))
        reason = REASON_INTERNAL;
    return error_set(e, reason, STR_FMT, STR_ARG(message));
}

static void on_waiting(struct agent_call *a, const struct json *data)
{
    struct strbuf links;
    const struct json *item;
    strbuf_init(&links, a->call->ctx->arena, 64u << 10);
    struct json_iter it = json_iter(json_get(data, S("approvals")));
    while (json_next(&it, NULL, &item)) {
        str id;
        if (json_to_str(item, &id))
            strbuf_printf(&links, "%s/api/v1/approvals/" STR_FMT, links.len > 0 ? "\n" : "",
                          STR_ARG(id));
    }
    a->approvals = strbuf_str(&links);
    a->outcome = OUTCOME_WAITING;
}

/* Gives false with the run's own error when it failed. */
static bool on_event(struct agent_call *a, const struct event *event, struct error *e)
{
    const struct json *data = event->data;
    a->seen = event->seq;
    switch ((int) event->type) {
    case EVENT_MODEL_DELTA: return on_delta(a, data, e);
    case EVENT_MODEL_COMPLETED:
        on_model_completed(a, data);
        if (json_count(json_get(data, S("tool_calls"))) > 0)
            a->step_bytes = 0; /* another step follows */
        return true;
    case EVENT_RUN_COMPLETED:
        a->outcome = OUTCOME_COMPLETED;
        a->finish = finish_of(json_str_or(data, S("finish"), STR_NONE));
        a->is_degraded = json_get(data, S("degraded")) != NULL &&
                         json_type(json_get(data, S("degraded"))) != JSON_NULL &&
                         json_bool_or(data, S("degraded"), true);
        if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &a->answer_id))
            a->answer_id = UUID_NONE;
        return true;
    case EVENT_RUN_FAILED: return on_failed(data, e);
    case EVENT_RUN_CANCELLED: return error_set(e, REASON_CANCELLED, "the run was cancelled");
    case EVENT_RUN_WAITING: on_waiting(a, data); return true;
    default: return true;
    }
}

static bool read_news(struct agent_call *a, size_t *count, struct error *e)
{
    struct context *ctx = a->call->ctx;
    struct events events;
    if (!journal_read(a->call->gateway->store, ctx, a->call->principal.tenant_id, a->run_id,
                      a->seen, EVENTS_PER_READ, &events, e))
        return false;
    *count = events.count;
    for (size_t i = 0; i < events.count && a->outcome == OUTCOME_NONE; i++)
        if (!on_event(a, &events.items[i], e))
            return false;
    return true;
}

/* ---- waiting for the run ---- */

static bool do_chores(struct agent_call *a, struct error *e)
{
    int64_t now_ns = context_now_ns(a->call->ctx);
    if (now_ns - a->authorised_ns >= GATEWAY_REAUTHORISE_MS * INT64_C(1000000)) {
        if (!middleware_reauthorise(a->call, e))
            return false;
        a->authorised_ns = now_ns;
    }
    if (!http_reply_has_begun(a->call->request) ||
        now_ns - a->sent_ns < GATEWAY_KEEP_ALIVE_MS * INT64_C(1000000))
        return true;
    a->sent_ns = now_ns;
    return http_reply_write(a->call->request, S(": keep-alive\n\n"), e);
}

static bool wait_for_news(struct agent_call *a, struct error *e)
{
    struct context *ctx = a->call->ctx;
    struct error waited = {0};
    int64_t began_ns = context_now_ns(ctx),
            next_ns = a->authorised_ns + GATEWAY_REAUTHORISE_MS * INT64_C(1000000);
    if (!journal_wait(a->follower, ctx, a->seen, next_ns > began_ns ? next_ns : began_ns,
                      &waited) &&
        waited.code != ERROR_TIMEOUT)
        return error_copy(e, &waited);
    return context_now_ns(ctx) - began_ns > 100000 || context_sleep_ms(ctx, RETRY_MS, e);
}

static never_inline bool follow(struct agent_call *a, struct error *e)
{
    while (a->outcome == OUTCOME_NONE) {
        size_t count = 0;
        /* Only what the last event leaves behind outlives a round. */
        struct arena *arena = a->call->ctx->arena;
        bool is_begun = http_reply_has_begun(a->call->request);
        arena_mark mark = arena_save(arena);
        if (!do_chores(a, e) || !read_news(a, &count, e))
            return false;
        if ((is_begun || !a->chat->is_stream) && a->outcome == OUTCOME_NONE)
            arena_rewind(arena, mark);
        if (a->outcome == OUTCOME_NONE && count == 0 && !wait_for_news(a, e))
            return false;
    }
    return true;
}

/* ---- the end ---- */

static bool read_answer(struct agent_call *a, str *content, struct error *e)
{
    struct arena *arena = a->call->ctx->arena;
    struct record *key = ARENA_NEW(arena, struct record), *row = ARENA_NEW(arena, struct record);
    *content = STR_NONE;
    if (uuid_is_none(a->answer_id))
        return true;
    *key = record_of(TABLE_MESSAGES);
    record_set_uuid(key, MESSAGES_ID, a->answer_id);
    if (!store_get(a->call->gateway->store, a->call->ctx, a->call->principal.tenant_id, key, row,
                   e))
        return error_wrap(e, "the run's answer");
    *content = record_text(row, MESSAGES_CONTENT);
    return true;
}

static bool end_text(struct agent_call *a, str *content, struct error *e)
{
    struct arena *arena = a->call->ctx->arena;
    if (a->outcome == OUTCOME_COMPLETED)
        return read_answer(a, content, e);
    *content =
        str_printf(arena, "Run " STR_FMT " waits for an approval by another person:\n" STR_FMT,
                   STR_ARG(uuid_str(arena, a->run_id)), STR_ARG(a->approvals));
    a->finish = FINISH_STOP;
    return true;
}

static void put_outcome(struct agent_call *a)
{
    if (a->outcome == OUTCOME_WAITING)
        reply_header(a->call, S("Nexus-Status"), S("waiting"));
    else
        reply_header(a->call, S("Nexus-Status"), S("completed"));
    if (a->is_degraded)
        reply_header(a->call, S("Nexus-Degraded"), S("the answer was cut by the budget"));
}

static never_inline bool finish_stream(struct agent_call *a, str content, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    if (!http_reply_has_begun(a->call->request))
        put_outcome(a);
    bool needs_text = a->outcome == OUTCOME_WAITING || a->step_bytes == 0;
    if (a->outcome == OUTCOME_WAITING)
        a->step_bytes = 0;
    struct delta end = {.kind = DELTA_END, .finish = a->finish, .usage = a->usage};
    if ((needs_text && !send_text(a, content, e)) || !send_delta(a, &end, e))
        return false;
    strbuf_init(&text, a->call->ctx->arena, 4096);
    json_writer_init(&w, &text);
    openai_write_usage_chunk(&w, &a->answer, &a->usage);
    if ((a->chat->wants_usage && !chat_send_data(a->call, strbuf_str(&text), e)) ||
        !chat_send_data(a->call, S("[DONE]"), e))
        return false;
    http_reply_end(a->call->request);
    return true;
}

static never_inline bool finish_whole(struct agent_call *a, str content, struct error *e)
{
    struct reply_writer writer;
    struct part part = {.kind = PART_TEXT, .text = content};
    struct reply reply = {.parts = &part, .part_count = 1, .finish = a->finish, .usage = a->usage};
    put_outcome(a);
    openai_write_reply(reply_writer_init(&writer, a->call), &a->answer, &reply);
    return reply_writer_send(&writer, a->call, 200, e);
}

static bool answer(struct agent_call *a, struct error *e)
{
    str content = STR_NONE;
    if (!follow(a, e) || !end_text(a, &content, e))
        return false;
    return a->chat->is_stream ? finish_stream(a, content, e) : finish_whole(a, content, e);
}

/* Nobody will come back for the run of a session that only this call knows. */
static never_inline void cancel_run(struct agent_call *a)
{
    struct context *ctx = a->call->ctx, shield;
    struct error ignored = {0};
    context_init(&shield, ctx->scheduler, ctx->arena,
                 context_now_ns(ctx) + CANCEL_MS * INT64_C(1000000));
    shield.tenant_id = ctx->tenant_id;
    shield.trace = ctx->trace;
    (void) !run_cancel(a->call->gateway->orchestrator, &shield, &a->call->principal, a->run_id,
                       &ignored);
    context_deinit(&shield);
}

static bool start(struct agent_call *a, struct error *e)
{
    struct api_call *call = a->call;
    a->request.session_id = a->session_id;
    if (!run_start(call->gateway->orchestrator, call->ctx, &call->principal, &a->request,
                   &a->run_id, e))
        return false;
    reply_header(call, S("Nexus-Run-Id"), uuid_str(call->ctx->arena, a->run_id));
    reply_header(call, S("X-Nexus-Session"), uuid_str(call->ctx->arena, a->session_id));
    a->answer = chat_answer(call, a->chat->model);
    a->authorised_ns = a->sent_ns = context_now_ns(call->ctx);
    return true;
}

bool chat_agent(struct api_call *call, const struct chat_request *chat, struct error *e)
{
    struct error failure = {0};
    struct agent_call *a = ARENA_NEW(call->ctx->arena, struct agent_call);
    a->call = call;
    a->chat = chat;
    a->is_own_session = uuid_is_none(chat->session_id);
    if (!read_question(a, e) || !open_session(a, str_from(chat->model, sizeof "agent:" - 1), e) ||
        !start(a, e))
        return false;
    a->follower =
        journal_follow(orchestrator_hub(call->gateway->orchestrator), call->ctx, a->run_id);
    bool ok = answer(a, &failure);
    journal_unfollow(a->follower);
    if (ok)
        return true;
    if (a->is_own_session && a->outcome == OUTCOME_NONE) /* gone, or its key was revoked */
        cancel_run(a);
    if (http_reply_has_begun(call->request))
        chat_stream_fail(call, &failure);
    return error_copy(e, &failure);
}
