/*
 * agent:NAME as a model: one call is one run, and the answer is read off its journal.
 *
 * Without X-Nexus-Session each call opens a session of its own, the caller's earlier turns become its history, and a client that
 * goes away cancels the run.  With one, the session remembers by itself and only the newest message is taken.
 *
 *   run events --> model.delta: text (of the newest attempt)   run.completed: the end   run.failed: the error of its class
 *                  run.waiting: for an approval: the answer ends with run id and approval link, Nexus-Status: waiting
 *                               for the clock, soon (a workflow): it is waited for; later, or for a signal: as for an approval
 *                               for the client's own tools: the answer ends by their calls; their results resume the same run
 *
 * The reply's head waits for the first event that decides it, so a run that is refused, fails or waits at once has its own status.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_client_tools.h"
#include "gateway/call/call_internal.h"

enum { EVENTS_PER_READ = 50, CANCEL_MS = 5000, RETRY_MS = 5, AGENT_APPROVALS_SHOWN_MAX = 16 };

enum outcome { OUTCOME_NONE, OUTCOME_COMPLETED, OUTCOME_WAITING, OUTCOME_CLIENT_CALLS };

struct agent_call {
    struct model_call *m;
    struct api_call *call;
    uuid session_id, run_id;
    bool is_own_session;
    struct run_request request;
    struct client_result *results; /* of the client's tools: the call resumes their run */
    size_t result_count;
    struct part *client_calls; /* OUTCOME_CLIENT_CALLS */
    size_t client_call_count;
    struct dialect_answer answer;
    void *writer; /* of the dialect: a streamed answer */
    struct journal_follower *follower;
    int64_t seen;
    int64_t attempt;    /* newest whose text is shown */
    int64_t step_bytes; /* text sent of the step in work */
    bool has_text;      /* anything sent at all */
    int64_t authorised_ns, sent_ns;
    struct usage usage;
    int64_t child_tokens; /* of runs that it started: they count against the caller's rate, too */
    enum outcome outcome;
    enum finish finish;
    bool is_degraded, is_degraded_told; /* told: in the header of a stream that has begun */
    char degraded[200];                 /* why */
    uuid answer_id;
    str approvals; /* links, one a line */
    str waiting;   /* OUTCOME_WAITING for nobody's approval: for what */
    uuid approval_ids[AGENT_APPROVALS_SHOWN_MAX];
    size_t approval_count;
};

/* ---- the request ---- */

static bool last_user_message(const struct prompt *prompt, size_t *index, struct error *e)
{
    *index = prompt->message_count - 1;
    if (prompt->message_count > 0 && prompt->messages[*index].role == ROLE_USER)
        return true;
    return error_set(e, REASON_SCHEMA, "the last message must be the user's");
}

/* A run keeps what is more than text as OpenAI's content parts, whatever the dialect was. */
static void write_part(struct json_writer *w, const struct part *part)
{
    bool is_image = part->kind == PART_IMAGE;
    json_object_begin(w);
    json_put_str(w, S("type"), is_image ? S("image_url") : S("text"));
    if (!is_image) {
        json_put_str(w, S("text"), part->text);
        json_object_end(w);
        return;
    }
    json_key(w, S("image_url"));
    json_object_begin(w);
    json_put_str(w, S("url"), part->text);
    if (str_starts_with(part->opaque, S("\""))) /* its detail */
        json_put_raw(w, S("detail"), part->opaque);
    json_object_end(w);
    json_object_end(w);
}

static bool write_parts(struct arena *arena, const struct prompt_message *message, str *out,
                        struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    bool is_plain = message->part_count == 1 && message->parts[0].kind == PART_TEXT;
    *out = STR_NONE;
    if (is_plain)
        return true;
    strbuf_init(&text, arena, GATEWAY_CHAT_BODY_BYTES_MAX * 2);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind != PART_TEXT && part->kind != PART_IMAGE)
            return error_set(e, REASON_INVALID,
                             "an agent takes text and images: its tools are its own");
        write_part(&w, part);
    }
    json_array_end(&w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "the message is too large");
}

static bool read_question(struct agent_call *a, struct error *e)
{
    size_t last;
    struct arena *arena = a->m->arena;
    struct prompt *prompt = ARENA_NEW(arena, struct prompt);
    if (!a->m->dialect->to_prompt(arena, call_tree(a->m), prompt, e))
        return false;
    if (a->m->request.choices > 1)
        return error_set(e, REASON_INVALID, "an agent gives one answer: leave out n");
    if (!client_results_read(arena, prompt, &a->results, &a->result_count, e))
        return false;
    if (a->result_count > 0)
        return true;
    if (!last_user_message(prompt, &last, e))
        return false;
    a->request.client_tools = prompt->tools;
    a->request.client_tool_count = prompt->tool_count;
    a->request.response_format = prompt->response_format;
    a->request.content = prompt_message_text(arena, &prompt->messages[last]);
    if (!write_parts(arena, &prompt->messages[last], &a->request.parts, e))
        return false;
    if (a->is_own_session) {
        a->request.history = prompt->messages;
        a->request.history_count = last;
    }
    return true;
}

/* On this route an agent is a model.  `e` stays what it is when it is about something else that is not there. */
static bool unknown_agent(struct agent_call *a, str agent, struct error *e)
{
    enum { NAMES_BYTES_MAX = 300 };
    struct strbuf names;
    const struct settings *settings = orchestrator_acquire(a->call->gateway->orchestrator);
    if (agent_set_find(settings->agents, agent)) {
        orchestrator_release(settings);
        return false;
    }
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
    if (!session_get(o, a->call->ctx, &a->call->principal, a->m->session_id, row, e))
        return false;
    a->session_id = a->m->session_id;
    return str_equal(record_text(row, SESSIONS_AGENT), agent) ||
           error_set(e, REASON_CONFLICT, "the session belongs to the agent \"" STR_FMT "\"",
                     STR_ARG(record_text(row, SESSIONS_AGENT)));
}

/* ---- streaming out ---- */

/* What a header may hold: no quotes of other people's bytes beyond printable ASCII. */
static str header_text(struct agent_call *a)
{
    for (char *c = a->degraded; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    return str_from_cstr(a->degraded);
}

static void set_degraded(struct agent_call *a, str why)
{
    a->is_degraded = true;
    a->is_degraded_told = false;
    snprintf(a->degraded, sizeof a->degraded, STR_FMT,
             STR_ARG(str_cut_utf8(why, sizeof a->degraded - 1)));
}

/* The whole of it, as the run's end says. */
static void tell_degraded(struct agent_call *a, str why)
{
    if (!str_is_empty(why) && !str_equal(why, str_from_cstr(a->degraded)))
        set_degraded(a, why);
}

static void add_degraded(struct agent_call *a, str what)
{
    char before[sizeof a->degraded];
    memcpy(before, a->degraded, sizeof before);
    set_degraded(a, *before ? str_printf(a->call->ctx->arena, "%s; " STR_FMT, before, STR_ARG(what))
                            : what);
}

static void put_degraded(struct agent_call *a)
{
    if (a->is_degraded)
        reply_header(a->call, S("Nexus-Degraded"), header_text(a));
    a->is_degraded_told = a->is_degraded;
}

/* What a stream's head could not say yet, as a comment before its end. */
static bool send_degraded(struct agent_call *a, struct error *e)
{
    if (!a->is_degraded || a->is_degraded_told)
        return true;
    a->is_degraded_told = true;
    return http_reply_write(a->call->request,
                            str_printf(a->call->ctx->arena, ": Nexus-Degraded: " STR_FMT "\n\n",
                                       STR_ARG(header_text(a))),
                            e);
}

static bool begin_stream(struct agent_call *a, struct error *e)
{
    if (http_reply_has_begun(a->call->request))
        return true;
    if (!a->is_degraded_told)
        put_degraded(a);
    if (!call_stream_begin(a->call, e))
        return false;
    a->m->dialect->writer_open(a->writer, &a->answer);
    return true;
}

static bool send_delta(struct agent_call *a, const struct delta *delta, struct error *e)
{
    struct strbuf text;
    struct arena *arena = a->call->ctx->arena;
    if (!begin_stream(a, e))
        return false;
    arena_mark mark = arena_save(arena);
    strbuf_init(&text, arena, GATEWAY_REPLY_BYTES_MAX);
    a->m->dialect->writer_delta(a->writer, delta, &text);
    if (delta->kind == DELTA_END)
        call_keep(a->m, strbuf_str(&text));
    bool ok = http_reply_write(a->call->request, strbuf_str(&text), e);
    arena_rewind(arena, mark);
    a->sent_ns = context_now_ns(a->call->ctx);
    return ok;
}

static bool send_text(struct agent_call *a, str text, struct error *e)
{
    if (!a->m->request.is_stream || str_is_empty(text))
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
    if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &a->answer_id))
        a->answer_id = UUID_NONE;
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

/* What the client can do itself comes first: a person's approval is waited for once that is done. */
static bool on_waiting(struct agent_call *a, const struct json *data, struct error *e)
{
    if (!client_calls_read(a->call, data, &a->client_calls, &a->client_call_count, e))
        return false;
    if (a->client_call_count > 0) {
        a->outcome = OUTCOME_CLIENT_CALLS;
        return true;
    }
    if (event_waits_for_clock(data, clock_unix_us(a->call->gateway->clock)))
        return true;
    struct strbuf links;
    const struct json *item;
    strbuf_init(&links, a->call->ctx->arena, 64u << 10);
    struct json_iter it = json_iter(json_get(data, S("approvals")));
    while (json_next(&it, NULL, &item)) {
        str id;
        uuid *next = &a->approval_ids[a->approval_count];
        if (json_to_str(item, &id) && a->approval_count < AGENT_APPROVALS_SHOWN_MAX &&
            uuid_parse(id, next))
            a->approval_count++;
        if (json_to_str(item, &id))
            strbuf_printf(&links, "%s/api/v1/approvals/" STR_FMT, links.len > 0 ? "\n" : "",
                          STR_ARG(id));
    }
    a->approvals = strbuf_str(&links);
    if (a->approval_count == 0)
        a->waiting = event_waiting_text(a->call->ctx->arena, a->run_id, data);
    a->outcome = OUTCOME_WAITING;
    return true;
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
    case EVENT_RUN_DEGRADED: add_degraded(a, json_str_or(data, S("what"), STR_NONE)); return true;
    case EVENT_RUN_CHILD_COMPLETED:
        a->child_tokens += json_i64_or(json_get(data, S("cost")), S("tokens"), 0);
        return true;
    case EVENT_RUN_COMPLETED:
        a->outcome = OUTCOME_COMPLETED;
        a->finish = finish_of(json_str_or(data, S("finish"), STR_NONE));
        tell_degraded(a, json_str_or(data, S("degraded"), STR_NONE));
        if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &a->answer_id))
            a->answer_id = UUID_NONE;
        return true;
    case EVENT_RUN_FAILED: return on_failed(data, e);
    case EVENT_RUN_CANCELLED: return error_set(e, REASON_CANCELLED, "the run was cancelled");
    case EVENT_RUN_WAITING: return on_waiting(a, data, e);
    default: return true;
    }
}

static bool read_news(struct agent_call *a, size_t *count, struct error *e)
{
    struct context *ctx = a->call->ctx;
    struct events events;
    if (!journal_follower_read(a->follower, a->call->gateway->store, ctx,
                               a->call->principal.tenant_id, a->seen, EVENTS_PER_READ, &events, e))
        return false;
    *count = events.count;
    for (size_t i = 0; i < events.count && a->outcome == OUTCOME_NONE; i++)
        if (!on_event(a, &events.items[i], e))
            return false;
    return true;
}

/* ---- waiting for the run ---- */

static bool send_ping(struct agent_call *a, struct error *e)
{
    struct strbuf ping;
    strbuf_init(&ping, a->call->ctx->arena, 1u << 10);
    a->m->dialect->write_ping(&ping);
    return http_reply_write(a->call->request, strbuf_str(&ping), e);
}

static bool do_chores(struct agent_call *a, struct error *e)
{
    int64_t now_ns = context_now_ns(a->call->ctx);
    if (now_ns - a->authorised_ns >= GATEWAY_REAUTHORISE_MS * INT64_C(1000000)) {
        if (!middleware_reauthorise(a->call, e))
            return false;
        a->authorised_ns = now_ns;
    }
    if (!http_reply_has_begun(a->call->request) ||
        now_ns - a->sent_ns < a->call->gateway->options.keep_alive_ms * INT64_C(1000000))
        return true;
    a->sent_ns = now_ns;
    return send_ping(a, e);
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
        if ((is_begun || !a->m->request.is_stream) && a->outcome == OUTCOME_NONE)
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
    if (a->outcome == OUTCOME_CLIENT_CALLS)
        a->finish = FINISH_TOOL_CALLS;
    if (a->outcome != OUTCOME_WAITING)
        return read_answer(a, content, e);
    *content = a->waiting;
    if (a->approval_count > 0)
        *content =
            str_printf(arena, "Run " STR_FMT " waits for an approval by another person:\n" STR_FMT,
                       STR_ARG(uuid_str(arena, a->run_id)), STR_ARG(a->approvals));
    a->finish = FINISH_STOP;
    return true;
}

/* Responses has an item for what waits; elsewhere the text says it all. */
static bool approval_parts(struct agent_call *a, struct part *parts, size_t *count, struct error *e)
{
    for (size_t i = 0; a->m->responses && i < a->approval_count; i++) {
        struct part *part = &parts[*count];
        *part = (struct part){.kind = PART_TEXT};
        if (!responses_approval(a->call, a->approval_ids[i], &part->opaque, e))
            return false;
        ++*count;
    }
    return true;
}

static void put_outcome(struct agent_call *a)
{
    if (a->outcome == OUTCOME_WAITING)
        reply_header(a->call, S("Nexus-Status"), S("waiting"));
    else if (a->outcome == OUTCOME_CLIENT_CALLS)
        reply_header(a->call, S("Nexus-Status"), S("tool_calls"));
    else
        reply_header(a->call, S("Nexus-Status"), S("completed"));
    put_degraded(a);
}

static bool send_approvals(struct agent_call *a, struct error *e)
{
    size_t count = 0;
    struct part *parts = ARENA_ARRAY(a->call->ctx->arena, struct part, AGENT_APPROVALS_SHOWN_MAX);
    if (!approval_parts(a, parts, &count, e))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct delta delta = {.kind = DELTA_TEXT, .opaque = parts[i].opaque};
        if (!send_delta(a, &delta, e))
            return false;
    }
    return true;
}

static bool send_client_calls(struct agent_call *a, struct error *e)
{
    for (size_t i = 0; i < a->client_call_count; i++) {
        const struct part *part = &a->client_calls[i];
        struct delta call = {.kind = DELTA_TOOL_CALL,
                             .index = (int) i,
                             .call_id = part->call_id,
                             .name = part->name};
        struct delta arguments = {
            .kind = DELTA_TOOL_ARGUMENTS, .index = (int) i, .text = part->arguments};
        if (!send_delta(a, &call, e) || !send_delta(a, &arguments, e))
            return false;
    }
    return true;
}

static never_inline bool finish_stream(struct agent_call *a, str content, struct error *e)
{
    if (!http_reply_has_begun(a->call->request))
        put_outcome(a);
    bool needs_text = a->outcome == OUTCOME_WAITING || a->step_bytes == 0;
    if (a->outcome == OUTCOME_WAITING)
        a->step_bytes = 0;
    struct delta end = {.kind = DELTA_END, .finish = a->finish, .usage = a->usage};
    if ((needs_text && !send_text(a, content, e)) || !send_approvals(a, e) ||
        !send_client_calls(a, e) || !send_degraded(a, e) || !send_delta(a, &end, e))
        return false;
    http_reply_end(a->call->request);
    return true;
}

static never_inline bool finish_whole(struct agent_call *a, str content, struct error *e)
{
    struct reply_writer writer;
    struct part *parts = ARENA_ARRAY(a->call->ctx->arena, struct part,
                                     AGENT_APPROVALS_SHOWN_MAX + 1 + a->client_call_count);
    struct reply reply = {.parts = parts, .finish = a->finish, .usage = a->usage};
    if (!str_is_empty(content) || a->client_call_count == 0)
        parts[reply.part_count++] = (struct part){.kind = PART_TEXT, .text = content};
    for (size_t i = 0; i < a->client_call_count; i++)
        parts[reply.part_count++] = a->client_calls[i];
    if (!approval_parts(a, parts, &reply.part_count, e))
        return false;
    put_outcome(a);
    a->m->dialect->write_reply(reply_writer_init(&writer, a->call), &a->answer, &reply);
    if (!strbuf_is_over(&writer.text))
        call_keep(a->m, strbuf_str(&writer.text));
    return reply_writer_send(&writer, a->call, 200, e);
}

static bool answer(struct agent_call *a, struct error *e)
{
    str content = STR_NONE;
    if (!follow(a, e) || !end_text(a, &content, e))
        return false;
    return a->m->request.is_stream ? finish_stream(a, content, e) : finish_whole(a, content, e);
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

/* The run is found by the calls' ids; its session is the one it is in. */
static bool resume(struct agent_call *a, str agent, struct error *e)
{
    struct orchestrator *o = a->call->gateway->orchestrator;
    struct record *run = ARENA_NEW(a->call->ctx->arena, struct record);
    if (!run_of_results(o, a->call->ctx, &a->call->principal, a->results, a->result_count, run, e))
        return false;
    a->run_id = record_uuid(run, AGENT_RUNS_ID);
    a->session_id = record_uuid(run, AGENT_RUNS_SESSION_ID);
    if (!str_equal(record_text(run, AGENT_RUNS_AGENT), agent))
        return error_set(e, REASON_CONFLICT, "the results belong to a run of agent:" STR_FMT,
                         STR_ARG(record_text(run, AGENT_RUNS_AGENT)));
    if (!a->is_own_session && !uuid_equal(a->session_id, a->m->session_id))
        return error_set(e, REASON_CONFLICT, "the results belong to another session");
    return run_give_results(o, a->call->ctx, &a->call->principal, a->results, a->result_count,
                            &a->run_id, &a->session_id, &a->seen, e);
}

static bool start(struct agent_call *a, str agent, struct error *e)
{
    struct api_call *call = a->call;
    if (a->result_count > 0) {
        if (!resume(a, agent, e))
            return false;
    } else {
        if (!open_session(a, agent, e))
            return false;
        a->request.session_id = a->session_id;
        if (!run_start(call->gateway->orchestrator, call->ctx, &call->principal, &a->request,
                       &a->run_id, e))
            return false;
    }
    reply_header(call, S("Nexus-Run-Id"), uuid_str(call->ctx->arena, a->run_id));
    reply_header(call, S("X-Nexus-Session"), uuid_str(call->ctx->arena, a->session_id));
    a->answer = call_answer(a->m);
    a->writer = arena_alloc(call->ctx->arena, a->m->dialect->writer_bytes);
    if (a->m->responses)
        responses_set_session(a->m->responses, a->session_id);
    a->authorised_ns = a->sent_ns = context_now_ns(call->ctx);
    return true;
}

/* In band, then a cut that no client takes for an end. */
static never_inline void fail_stream(struct agent_call *a, const struct error *failure)
{
    struct strbuf text;
    struct error ignored = {0};
    struct http_request *request = a->call->request;
    if (http_reply_is_done(request))
        return;
    strbuf_init(&text, a->call->ctx->arena, 64u << 10);
    a->m->dialect->writer_error(a->writer, failure, &text);
    if (failure->code != ERROR_CANCELLED && http_reply_write(request, strbuf_str(&text), &ignored))
        (void) !http_reply_flush(request, &ignored);
    http_reply_abort(request);
}

bool call_agent(struct model_call *m, struct error *e)
{
    struct error failure = {0};
    struct api_call *call = m->call;
    struct agent_call *a = ARENA_NEW(call->ctx->arena, struct agent_call);
    a->m = m;
    a->call = call;
    a->is_own_session = uuid_is_none(m->session_id);
    /* What the run itself will use is known at its end: its first prompt stands for it until then. */
    int64_t estimate = m->request.input_tokens_bound / 4 + 1;
    if (!read_question(a, e) || !middleware_take_tokens(call, estimate, e))
        return false;
    if (!start(a, str_from(m->request.model, sizeof "agent:" - 1), e)) {
        middleware_correct_tokens(call->gateway, &call->principal, -estimate);
        return false;
    }
    a->follower =
        journal_follow(orchestrator_hub(call->gateway->orchestrator), call->ctx, a->run_id);
    bool ok = answer(a, &failure);
    journal_unfollow(a->follower);
    if (a->usage.is_reported || a->child_tokens > 0)
        middleware_correct_tokens(call->gateway, &call->principal,
                                  a->usage.input_tokens + a->usage.output_tokens + a->child_tokens -
                                      estimate);
    if (!ok && a->is_own_session && a->outcome == OUTCOME_NONE) /* gone, or its key was revoked */
        cancel_run(a);
    if (!ok && http_reply_has_begun(call->request))
        fail_stream(a, &failure);
    if (http_reply_has_begun(call->request) && m->request.is_stream && m->dialect->writer_close)
        m->dialect->writer_close(a->writer);
    return ok || error_copy(e, &failure);
}
