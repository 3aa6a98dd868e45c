/*
 * Agents as tools: agent_NAME {message, session_id?} is one run, told from its journal.
 *
 *   run events --> model.delta, model.requested, tool.*, run.step_started: progress, when asked for     run.completed: the answer     run.failed: isError
 *                  run.waiting: a result that names the approvals; stateless and with URLs: input_required, and the retry goes on
 *
 * Session era: the events of the stream carry ids, and a client whose connection broke comes back with Last-Event-ID; until it does, the
 * run goes on for MCP_SERVER_LINGER_MS.  Otherwise a client that goes away cancels its run, as notifications/cancelled does.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"
#include <stdatomic.h>

enum { EVENTS_PER_READ = 50, CANCEL_MS = 5000, RETRY_MS = 5, LINGER_LOOK_MS = 250 };

enum agent_outcome { AGENT_RUNNING, AGENT_COMPLETED, AGENT_FAILED, AGENT_WAITING };

struct agent_run {
    struct mcp_call *m;
    uuid session_id, run_id;
    digest call; /* of tool and arguments: what requestState is bound to */
    bool is_resumable;
    struct journal_follower *follower;
    int64_t seen, attempt, progress;
    int64_t authorised_ns, sent_ns;
    int64_t patient_until_ns; /* a run that waits is waited for until then */
    struct strbuf news;       /* told with the next progress notification */
    enum agent_outcome outcome;
    struct error failure; /* AGENT_FAILED */
    uuid answer_id;
    str degraded; /* why the answer is less than what was asked for; empty: it is not */
    uuid approvals[MCP_SERVER_APPROVALS_MAX];
    size_t approval_count;
    char waiting[200]; /* AGENT_WAITING for nobody's approval: for what */
    int64_t tokens_used;
};

static const char input_schema[] =
    "{\"type\":\"object\",\"properties\":{\"message\":{\"type\":\"string\",\"minLength\":1,"
    "\"description\":\"What the agent is to do or answer, in full: it sees nothing else.\"},"
    "\"session_id\":{\"type\":\"string\",\"description\":\"Of an earlier answer: goes on with "
    "that conversation and its files. Without it each call is a new one.\"}},"
    "\"required\":[\"message\"],\"additionalProperties\":false}";
static const char output_schema[] =
    "{\"type\":\"object\",\"properties\":{\"answer\":{\"type\":\"string\"},"
    "\"status\":{\"type\":\"string\",\"enum\":[\"completed\",\"waiting\"]},"
    "\"run_id\":{\"type\":\"string\"},\"session_id\":{\"type\":\"string\"},"
    "\"degraded\":{\"type\":\"string\"},"
    "\"approvals\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{"
    "\"id\":{\"type\":\"string\"},\"url\":{\"type\":\"string\"}},\"required\":[\"id\",\"url\"]}}},"
    "\"required\":[\"answer\",\"status\",\"run_id\",\"session_id\"]}";

void mcp_agent_write(struct json_writer *w, struct arena *arena, str name, str description)
{
    if (str_is_empty(description))
        description = str_printf(arena, "The agent " STR_FMT, STR_ARG(name));
    struct mcp_tool_text text = {
        .name = str_printf(arena, STR_FMT STR_FMT, STR_ARG(MCP_AGENT_PREFIX), STR_ARG(name)),
        .title = str_printf(arena, "Agent " STR_FMT, STR_ARG(name)),
        .description =
            str_printf(arena, STR_FMT " (an agent: it works on its own and answers in text)",
                       STR_ARG(str_cut_utf8(description, MCP_TOOL_DESCRIPTION_BYTES_MAX / 2))),
        .input_schema = str_from_cstr(input_schema),
        .output_schema = str_from_cstr(output_schema),
        .annotations = S("{\"readOnlyHint\":false,\"destructiveHint\":true,"
                         "\"idempotentHint\":false,\"openWorldHint\":true}"),
    };
    mcp_tool_write(w, &text);
}

/* ---- progress ---- */

static str event_id(const struct agent_run *a)
{
    struct mcp_event_id id = {.run_id = a->run_id,
                              .seq = a->seen,
                              .id = a->m->in.message.id,
                              .token = a->m->in.progress_token};
    return a->is_resumable ? mcp_event_id_write(mcp_arena(a->m), &id) : STR_NONE;
}

static bool send_progress(struct agent_run *a, struct error *e)
{
    struct mcp_call *m = a->m;
    struct strbuf text;
    struct json_writer w;
    struct arena *arena = mcp_arena(m);
    if (a->news.len == 0 || !m->in.progress_token || !m->wants_events)
        return true;
    arena_mark mark = arena_save(arena);
    strbuf_init(&text, arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&w, &text);
    mcp_begin_request(&w, NULL, 0, S("notifications/progress"));
    json_object_begin(&w);
    json_put_value(&w, MCP_META_PROGRESS_TOKEN, m->in.progress_token);
    json_put_i64(&w, S("progress"), ++a->progress);
    json_put_str(&w, S("message"), strbuf_str(&a->news));
    json_object_end(&w);
    mcp_end(&w);
    bool ok = mcp_stream_begin(m, e) && mcp_stream_send(m, event_id(a), strbuf_str(&text), e);
    arena_rewind(arena, mark);
    a->sent_ns = context_now_ns(m->ctx);
    return ok;
}

static void add_line(struct agent_run *a, const char *what, str name)
{
    if (a->news.len > 0 && a->news.ptr[a->news.len - 1] != '\n')
        strbuf_add_char(&a->news, '\n');
    strbuf_printf(&a->news, "[%s " STR_FMT "]\n", what, STR_ARG(name));
}

/* ---- events ---- */

static void on_failed(struct agent_run *a, const struct json *data)
{
    enum error_reason reason = REASON_INTERNAL;
    str message = json_str_or(data, S("message"), S("the run failed"));
    if (!error_reason_find(json_str_or(data, S("error"), STR_NONE), &reason))
        reason = REASON_INTERNAL;
    error_set(&a->failure, reason, STR_FMT, STR_ARG(message));
    a->outcome = AGENT_FAILED;
}

static void on_waiting(struct agent_run *a, const struct json *data)
{
    str id;
    const struct json *item;
    struct json_iter it = json_iter(json_get(data, S("approvals")));
    a->approval_count = 0;
    if (event_waits_for_clock(data, clock_unix_us(a->m->call->gateway->clock)))
        return;
    while (json_next(&it, NULL, &item) && a->approval_count < MCP_SERVER_APPROVALS_MAX)
        if (json_to_str(item, &id) && uuid_parse(id, &a->approvals[a->approval_count]))
            a->approval_count++;
    a->outcome = AGENT_WAITING;
    str waiting = event_waiting_text(mcp_arena(a->m), a->run_id, data);
    snprintf(a->waiting, sizeof a->waiting, STR_FMT, STR_ARG(waiting));
}

static void on_delta(struct agent_run *a, const struct json *data)
{
    int64_t attempt = json_i64_or(data, S("attempt"), 0);
    if (attempt < a->attempt)
        return;
    if (attempt > a->attempt && a->attempt > 0)
        add_line(a, "attempt", str_i64(mcp_arena(a->m), attempt));
    a->attempt = attempt;
    strbuf_add(&a->news, json_str_or(data, S("text"), STR_NONE));
}

static void on_event(struct agent_run *a, const struct event *event)
{
    const struct json *data = event->data, *usage;
    a->seen = event->seq;
    if (a->outcome == AGENT_WAITING && event->type != EVENT_RUN_WAITING)
        a->outcome = AGENT_RUNNING; /* it went on */
    switch ((int) event->type) {
    case EVENT_MODEL_DELTA: on_delta(a, data); break;
    case EVENT_RUN_STEP_STARTED: add_line(a, "step", json_str_or(data, S("step"), STR_NONE)); break;
    case EVENT_TOOL_INTENDED: add_line(a, "tool", json_str_or(data, S("name"), STR_NONE)); break;
    case EVENT_TOOL_COMPLETED:
        add_line(a, "tool result", json_str_or(data, S("status"), STR_NONE));
        break;
    case EVENT_MODEL_COMPLETED:
        usage = json_get(data, S("usage"));
        a->tokens_used +=
            json_i64_or(usage, S("input_tokens"), 0) + json_i64_or(usage, S("output_tokens"), 0);
        break;
    case EVENT_RUN_CHILD_COMPLETED:
        a->tokens_used += json_i64_or(json_get(data, S("cost")), S("tokens"), 0);
        break;
    case EVENT_RUN_WAITING: on_waiting(a, data); break;
    case EVENT_RUN_FAILED: on_failed(a, data); break;
    case EVENT_RUN_CANCELLED:
        error_set(&a->failure, REASON_CANCELLED, "the run was cancelled");
        a->outcome = AGENT_FAILED;
        break;
    case EVENT_RUN_COMPLETED:
        if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &a->answer_id))
            a->answer_id = UUID_NONE;
        a->degraded = str_copy(mcp_arena(a->m), json_str_or(data, S("degraded"), STR_NONE));
        a->outcome = AGENT_COMPLETED;
        break;
    default: break;
    }
}

static bool read_news(struct agent_run *a, size_t *count, struct error *e)
{
    struct mcp_call *m = a->m;
    struct events events;
    if (!journal_read(m->call->gateway->store, m->ctx, m->call->principal.tenant_id, a->run_id,
                      a->seen, EVENTS_PER_READ, &events, e))
        return false;
    *count = events.count;
    strbuf_init(&a->news, mcp_arena(m), GATEWAY_REPLY_BYTES_MAX);
    for (size_t i = 0; i < events.count; i++)
        on_event(a, &events.items[i]);
    return send_progress(a, e);
}

/* ---- following ---- */

static bool do_chores(struct agent_run *a, struct error *e)
{
    struct mcp_call *m = a->m;
    int64_t now_ns = context_now_ns(m->ctx);
    if (now_ns - a->authorised_ns >= GATEWAY_REAUTHORISE_MS * INT64_C(1000000)) {
        if (!middleware_reauthorise(m->call, e))
            return false;
        a->authorised_ns = now_ns;
    }
    if (!m->wants_events ||
        now_ns - a->sent_ns < m->call->gateway->options.keep_alive_ms * INT64_C(1000000))
        return true;
    a->sent_ns = now_ns;
    return mcp_stream_begin(m, e) && mcp_stream_ping(m, e);
}

static bool wait_for_news(struct agent_run *a, struct error *e)
{
    struct context *ctx = a->m->ctx;
    struct error waited = {0};
    int64_t began_ns = context_now_ns(ctx),
            next_ns = a->authorised_ns + GATEWAY_REAUTHORISE_MS * INT64_C(1000000);
    if (!journal_wait(a->follower, ctx, a->seen, next_ns > began_ns ? next_ns : began_ns,
                      &waited) &&
        waited.code != ERROR_TIMEOUT)
        return error_copy(e, &waited);
    return context_now_ns(ctx) - began_ns > 100000 || context_sleep_ms(ctx, RETRY_MS, e);
}

static never_inline bool follow(struct agent_run *a, struct error *e)
{
    struct arena *arena = mcp_arena(a->m);
    for (;;) {
        size_t count = 0;
        bool has_begun = http_reply_has_begun(a->m->call->request);
        arena_mark mark = arena_save(arena);
        if (!do_chores(a, e) || !read_news(a, &count, e))
            return false;
        /* The reply's head lives on the arena until it is sent. */
        if (has_begun == http_reply_has_begun(a->m->call->request))
            arena_rewind(arena, mark);
        if (a->outcome == AGENT_COMPLETED || a->outcome == AGENT_FAILED)
            return true;
        bool is_awaited =
            a->outcome == AGENT_RUNNING ||
            (a->outcome == AGENT_WAITING && context_now_ns(a->m->ctx) < a->patient_until_ns);
        if (is_awaited && count == 0 && !wait_for_news(a, e))
            return false;
        if (!is_awaited && count == 0)
            return true;
    }
}

/* ---- the end ---- */

bool mcp_run_answer(struct mcp_call *m, uuid run_id, str *answer, struct error *e)
{
    struct arena *arena = mcp_arena(m);
    struct records rows;
    struct query *query = ARENA_NEW(arena, struct query);
    *answer = STR_NONE;
    *query = query_of(TABLE_MESSAGES);
    query_where_uuid(query, MESSAGES_RUN_ID, run_id);
    query->is_descending = true;
    query->limit = 16;
    if (!store_list(m->call->gateway->store, m->ctx, m->call->principal.tenant_id, query, &rows, e))
        return false;
    for (size_t i = 0; i < rows.count && str_is_empty(*answer); i++)
        if (str_equal(record_text(&rows.items[i], MESSAGES_ROLE), S("assistant")))
            *answer = record_text(&rows.items[i], MESSAGES_CONTENT);
    return true;
}

static bool read_answer(struct agent_run *a, str *content, struct error *e)
{
    struct mcp_call *m = a->m;
    struct record *key = ARENA_NEW(mcp_arena(m), struct record),
                  *row = ARENA_NEW(mcp_arena(m), struct record);
    *content = STR_NONE;
    if (uuid_is_none(a->answer_id))
        return true;
    *key = record_of(TABLE_MESSAGES);
    record_set_uuid(key, MESSAGES_ID, a->answer_id);
    if (!store_get(m->call->gateway->store, m->ctx, m->call->principal.tenant_id, key, row, e))
        return error_wrap(e, "the run's answer");
    *content = record_text(row, MESSAGES_CONTENT);
    return true;
}

static str approval_url(struct agent_run *a, size_t index)
{
    struct arena *arena = mcp_arena(a->m);
    return str_printf(arena, STR_FMT "/api/v1/approvals/" STR_FMT,
                      STR_ARG(mcp_base_url(a->m->call)),
                      STR_ARG(uuid_str(arena, a->approvals[index])));
}

static void write_structured(struct agent_run *a, struct json_writer *w, str answer)
{
    struct arena *arena = mcp_arena(a->m);
    json_key(w, S("structuredContent"));
    json_object_begin(w);
    json_put_str(w, S("answer"), answer);
    json_put_str(w, S("status"), a->outcome == AGENT_WAITING ? S("waiting") : S("completed"));
    json_put_str(w, S("run_id"), uuid_str(arena, a->run_id));
    json_put_str(w, S("session_id"), uuid_str(arena, a->session_id));
    if (!str_is_empty(a->degraded))
        json_put_str(w, S("degraded"), a->degraded);
    if (a->outcome == AGENT_WAITING) {
        json_key(w, S("approvals"));
        json_array_begin(w);
        for (size_t i = 0; i < a->approval_count; i++) {
            json_object_begin(w);
            json_put_str(w, S("id"), uuid_str(arena, a->approvals[i]));
            json_put_str(w, S("url"), approval_url(a, i));
            json_object_end(w);
        }
        json_array_end(w);
    }
    json_object_end(w);
}

static bool send_answer(struct agent_run *a, str answer, struct error *e)
{
    struct mcp_call *m = a->m;
    struct reply_writer writer;
    str text;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_key(w, S("content"));
    json_array_begin(w);
    mcp_content_write_text(w, answer);
    json_array_end(w);
    write_structured(a, w, answer);
    json_put_bool(w, S("isError"), false);
    if (!http_reply_has_begun(m->call->request))
        return mcp_result_end(m, &writer, e);
    if (!mcp_result_text(&writer, &text, e) || !mcp_stream_send(m, event_id(a), text, e))
        return false;
    http_reply_end(m->call->request);
    return true;
}

static str waiting_text(struct agent_run *a)
{
    struct strbuf text;
    struct arena *arena = mcp_arena(a->m);
    if (a->approval_count == 0)
        return str_from_cstr(a->waiting);
    strbuf_init(&text, arena, 64u << 10);
    strbuf_printf(&text,
                  "Run " STR_FMT " waits for an approval by another person; it goes on by itself "
                  "then, and nexus://runs/" STR_FMT " has its answer:",
                  STR_ARG(uuid_str(arena, a->run_id)), STR_ARG(uuid_str(arena, a->run_id)));
    for (size_t i = 0; i < a->approval_count; i++)
        strbuf_printf(&text, "\n" STR_FMT, STR_ARG(approval_url(a, i)));
    return strbuf_str(&text);
}

/* A client that can open URLs is asked to, one for each approval, and comes back with the state of this call. */
static bool ask_for_input(struct agent_run *a, struct error *e)
{
    struct mcp_call *m = a->m;
    struct arena *arena = mcp_arena(m);
    struct reply_writer writer;
    struct mcp_state state = {.run_id = a->run_id,
                              .session_id = a->session_id,
                              .expires_s = clock_unix_us(m->call->gateway->clock) / 1000000 +
                                           MCP_SERVER_STATE_MS / 1000};
    struct json_writer *w = mcp_result_begin_as(m, &writer, S("input_required"));
    json_key(w, S("inputRequests"));
    json_object_begin(w);
    for (size_t i = 0; i < a->approval_count; i++) {
        json_key(w, uuid_str(arena, a->approvals[i]));
        json_object_begin(w);
        json_put_str(w, S("method"), S("elicitation/create"));
        json_key(w, S("params"));
        json_object_begin(w);
        json_put_str(w, S("mode"), S("url"));
        json_put_str(w, S("message"),
                     S("The agent needs an approval by another person. This is where it is shown "
                       "and decided; go on when that is done."));
        json_put_str(w, S("url"), approval_url(a, i));
        json_object_end(w);
        json_object_end(w);
    }
    json_object_end(w);
    json_put_str(
        w, S("requestState"),
        mcp_state_seal(arena, m->call->gateway->keys, &m->call->principal, a->call, &state));
    return mcp_result_end(m, &writer, e);
}

static bool finish(struct agent_run *a, struct error *e)
{
    str answer = STR_NONE;
    struct mcp_call *m = a->m;
    if (a->outcome == AGENT_FAILED)
        return mcp_reply_refused(m, &a->failure, e);
    if (a->outcome == AGENT_WAITING && m->in.can_open_urls && a->approval_count > 0)
        return ask_for_input(a, e);
    if (a->outcome == AGENT_WAITING)
        return send_answer(a, waiting_text(a), e);
    return read_answer(a, &answer, e) && send_answer(a, answer, e);
}

/* ---- when the client is gone ---- */

/* The first event of a stream that can be resumed names where it began; older revisions' clients take it for a broken message. */
static bool prime(struct agent_run *a, struct error *e)
{
    struct mcp_call *m = a->m;
    if (!a->is_resumable || str_compare(m->revision->name, S("2025-11-25")) < 0)
        return true;
    str text = str_printf(mcp_arena(m), "id: " STR_FMT "\ndata: \n\n", STR_ARG(event_id(a)));
    return mcp_stream_begin(m, e) && http_reply_write(m->call->request, text, e);
}

/* True: somebody else tells the rest, it has ended, or this node stops and the run goes on at the next start. */
static bool is_looked_after(struct agent_run *a, struct context *ctx)
{
    struct error late = {0};
    while (!a->m->ticket->is_cancelled) {
        struct record *row = ARENA_NEW(ctx->arena, struct record);
        enum run_status status;
        if (atomic_load(&a->m->ticket->is_taken_over) ||
            atomic_load(&a->m->call->gateway->is_draining))
            return true;
        if (run_get(a->m->call->gateway->orchestrator, ctx, &a->m->call->principal, a->run_id, row,
                    &late) &&
            run_status_parse(record_text(row, AGENT_RUNS_STATUS), &status) &&
            run_status_is_final(status))
            return true;
        if (!context_sleep_ms(ctx, LINGER_LOOK_MS, &late))
            return false;
    }
    return false;
}

static never_inline void leave_run(struct agent_run *a)
{
    struct context shield;
    struct error ignored = {0};
    struct context *ctx = a->m->call->ctx;
    bool may_return = a->is_resumable && !a->m->ticket->is_cancelled;
    int64_t patience_ms = may_return ? MCP_SERVER_LINGER_MS : 0;
    OWNED(arena) arena = arena_create(0);
    context_init(&shield, ctx->scheduler, arena,
                 context_now_ns(ctx) + patience_ms * INT64_C(1000000));
    shield.tenant_id = ctx->tenant_id;
    shield.trace = ctx->trace;
    bool is_kept = may_return && is_looked_after(a, &shield);
    if (!is_kept) {
        shield.deadline_ns = context_now_ns(ctx) + CANCEL_MS * INT64_C(1000000);
        (void) !run_cancel(a->m->call->gateway->orchestrator, &shield, &a->m->call->principal,
                           a->run_id, &ignored);
    }
    context_deinit(&shield);
}

static bool tell(struct agent_run *a, struct error *e)
{
    struct mcp_call *m = a->m;
    a->is_resumable = m->ticket != NULL && m->wants_events;
    a->is_resumable = a->is_resumable && !str_is_empty(event_id(a));
    a->authorised_ns = a->sent_ns = context_now_ns(m->ctx);
    a->follower =
        journal_follow(orchestrator_hub(m->call->gateway->orchestrator), m->ctx, a->run_id);
    bool ok = prime(a, e) && follow(a, e) && finish(a, e);
    journal_unfollow(a->follower);
    if (!ok && a->outcome == AGENT_RUNNING)
        leave_run(a);
    return ok;
}

/* ---- beginning ---- */

static bool open_session(struct agent_run *a, str agent, str session, struct error *e)
{
    struct mcp_call *m = a->m;
    struct orchestrator *o = m->call->gateway->orchestrator;
    struct record *row = ARENA_NEW(mcp_arena(m), struct record);
    if (str_is_empty(session)) {
        struct session_request request = {.agent = agent, .budget = COST_LIMITLESS};
        if (!session_create(o, m->ctx, &m->call->principal, &request, row, e))
            return false;
        a->session_id = record_uuid(row, SESSIONS_ID);
        return true;
    }
    if (!uuid_parse(session, &a->session_id))
        return error_set(e, REASON_SCHEMA, "session_id must be the id that an answer gave");
    if (!session_get(o, m->ctx, &m->call->principal, a->session_id, row, e))
        return false;
    return str_equal(record_text(row, SESSIONS_AGENT), agent) ||
           error_set(e, REASON_CONFLICT, "the session belongs to the agent \"" STR_FMT "\"",
                     STR_ARG(record_text(row, SESSIONS_AGENT)));
}

static bool check_members(const struct json *arguments, struct error *e)
{
    str key;
    struct json_iter it = json_iter(arguments);
    while (json_next(&it, &key, NULL))
        if (!str_equal(key, S("message")) && !str_equal(key, S("session_id")))
            return error_set(e, REASON_SCHEMA,
                             "an agent takes message and session_id, not \"" STR_FMT "\"",
                             STR_ARG(str_cut_utf8(key, 80)));
    return true;
}

static bool start_run(struct agent_run *a, str agent, const struct json *arguments, struct error *e)
{
    struct mcp_call *m = a->m;
    str session = STR_NONE;
    struct run_request *request = ARENA_NEW(mcp_arena(m), struct run_request);
    if (!check_members(arguments, e) ||
        !json_need_str(arguments, S("message"), &request->content, e) ||
        !json_read_str(arguments, S("session_id"), &session, e))
        return false;
    if (str_is_empty(request->content))
        return error_set(e, REASON_SCHEMA, "message must not be empty");
    if (!open_session(a, agent, session, e))
        return false;
    request->session_id = a->session_id;
    return run_start(m->call->gateway->orchestrator, m->ctx, &m->call->principal, request,
                     &a->run_id, e);
}

/* Whoever opened the page is given a while for the decision; who declined is told where things stand, and not asked again. */
static void read_responses(struct agent_run *a)
{
    const struct json *response;
    struct mcp_call *m = a->m;
    struct json_iter it = json_iter(json_get(m->in.message.params, S("inputResponses")));
    while (json_next(&it, NULL, &response)) {
        a->patient_until_ns = context_now_ns(m->ctx) + MCP_SERVER_DECISION_MS * INT64_C(1000000);
        if (!str_equal(json_str_or(response, S("action"), STR_NONE), S("accept")))
            m->in.can_open_urls = false;
    }
    if (!m->in.can_open_urls)
        a->patient_until_ns = 0;
}

/* A retry after input_required: the run it began, if the state is for this call and caller. */
static bool find_run(struct agent_run *a, str state_text, struct error *e)
{
    struct mcp_call *m = a->m;
    struct mcp_state state;
    struct record *row = ARENA_NEW(mcp_arena(m), struct record);
    if (!mcp_state_open(mcp_arena(m), m->call->gateway->keys, &m->call->principal, a->call,
                        state_text, clock_unix_us(m->call->gateway->clock) / 1000000, &state, e) ||
        !run_get(m->call->gateway->orchestrator, m->ctx, &m->call->principal, state.run_id, row, e))
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    a->run_id = state.run_id;
    a->session_id = state.session_id;
    read_responses(a);
    return true;
}

static bool tell_counted(struct agent_run *a, int64_t estimate, struct error *e)
{
    struct mcp_call *m = a->m;
    if (m->ticket)
        mcp_calls_set_run(m->ticket, a->run_id);
    bool ok = tell(a, e);
    if (a->tokens_used > 0)
        middleware_correct_tokens(m->call->gateway, &m->call->principal, a->tokens_used - estimate);
    return ok;
}

bool mcp_agent_call(struct mcp_call *m, str agent, const struct json *arguments, struct error *e)
{
    struct error failure = {0};
    struct arena *arena = mcp_arena(m);
    struct agent_run *a = ARENA_NEW(arena, struct agent_run);
    str state = json_str_or(m->in.message.params, S("requestState"), STR_NONE);
    if (m->wants_events && !middleware_take_stream(m->call, e))
        return false;
    a->m = m;
    a->call = mcp_state_call(arena, str_printf(arena, "agent_" STR_FMT, STR_ARG(agent)), arguments);
    if (mcp_is_stateless(m) && !str_is_empty(state))
        return find_run(a, state, e) && tell_counted(a, 0, e);
    /* What the run itself will use is known at its end: its message stands for it until then. */
    int64_t estimate = (int64_t) json_str_or(arguments, S("message"), STR_NONE).len / 4 + 1;
    if (!middleware_take_tokens(m->call, estimate, e))
        return false;
    if (start_run(a, agent, arguments, &failure))
        return tell_counted(a, estimate, e);
    middleware_correct_tokens(m->call->gateway, &m->call->principal, -estimate);
    if (failure.code == ERROR_CANCELLED || failure.code == ERROR_UNAVAILABLE)
        return error_copy(e, &failure);
    return mcp_reply_refused(m, &failure, e);
}

bool mcp_agent_resume(struct mcp_call *m, struct error *e)
{
    const struct mcp_event_id *after = &m->resumes;
    struct agent_run *a = ARENA_NEW(mcp_arena(m), struct agent_run);
    struct record *row = ARENA_NEW(mcp_arena(m), struct record);
    if (!run_get(m->call->gateway->orchestrator, m->ctx, &m->call->principal, after->run_id, row,
                 e))
        return false;
    a->m = m;
    a->run_id = after->run_id;
    a->session_id = record_uuid(row, AGENT_RUNS_SESSION_ID);
    a->seen = after->seq;
    a->progress = after->seq; /* rises on, whatever was told before */
    (void) mcp_calls_take_over(m->server->calls, m->session, after->run_id);
    mcp_calls_set_run(m->ticket, after->run_id);
    return mcp_stream_begin(m, e) && tell(a, e);
}
