/*
 * Runs as callers see them: start, look, cancel.  The run itself is run.c's.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/run_internal.h"
#include <stdatomic.h>

/* ---- starting ---- */

struct start {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct run_request *request;
    const struct settings *settings;
    struct record session;
    const struct agent_definition *agent;
    const struct model *model;
    str client_tools; /* JSON text */
    str role;         /* the lower of the session's and the caller's */
    struct policy_input input;
    struct policy_decision decision;
    uuid run_id, message_id;
    int64_t epoch, now_us;
    struct batch batch;
};

static bool check_session(struct start *s, struct error *e)
{
    if (!session_check_open(s->o, s->ctx, &s->session, e))
        return false;
    if (record_has(&s->session, SESSIONS_LIVE_RUN_ID))
        return error_set(
            e, REASON_SESSION_BUSY,
            "run " STR_FMT " is live in this session; wait for it or cancel it",
            STR_ARG(uuid_str(s->ctx->arena, record_uuid(&s->session, SESSIONS_LIVE_RUN_ID))));
    return true;
}

static bool find_definition(struct start *s, struct error *e)
{
    str agent = record_text(&s->session, SESSIONS_AGENT);
    s->agent = agent_set_find(s->settings->agents, str_is_empty(agent) ? S("assistant") : agent);
    if (!s->agent)
        return error_set(e, REASON_NOT_FOUND, "agent \"" STR_FMT "\" is not configured any more",
                         STR_ARG(agent));
    str name = str_is_empty(s->request->model) ? s->agent->model : s->request->model;
    s->model = str_is_empty(name) ? catalog_default(s->settings->catalog)
                                  : catalog_find(s->settings->catalog, name);
    return s->model || catalog_error_unknown(s->settings->catalog, name, e);
}

static str lower_role(const struct principal *principal, str session_role)
{
    enum role_level level;
    if (role_level_parse(session_role, &level) && level < principal->level)
        return session_role;
    return principal->role;
}

static bool decide(struct start *s, struct error *e)
{
    struct ledger_limits limits = {
        .run = COST_LIMITLESS,
        .key_id = s->principal->has_key_budget ? s->principal->key_id : UUID_NONE,
    };
    struct ledger_path path;
    str user_id = record_text(&s->session, SESSIONS_USER_ID);
    if (!session_budget_read(record_text(&s->session, SESSIONS_BUDGET), &limits.session, e) ||
        !ledger_open_path(s->o->ledger, s->ctx, s->principal->tenant_id, user_id,
                          s->request->session_id, UUID_NONE, limits, &path, e))
        return false;
    s->input = (struct policy_input){
        .action = S("run.start"),
        .resource = s->agent->name,
        .user_id = user_id,
        .role = s->role,
        .tenant = uuid_str(s->ctx->arena, s->principal->tenant_id),
        .session_id = s->request->session_id,
        .remaining = ledger_remaining(s->o->ledger, &path),
        .policy_context = record_text(&s->session, SESSIONS_POLICY_CONTEXT),
    };
    ledger_close_path(s->o->ledger, &path);
    policy_decide(s->o->parts.policy, s->ctx, &s->input, &s->decision);
    metrics_add(s->o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){s->input.action, str_from_cstr(policy_verdict_name(s->decision.verdict))},
                2);
    if (s->decision.verdict == POLICY_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a run of agent \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(s->agent->name), STR_ARG(s->decision.reason));
}

static bool own_session(struct start *s, struct error *e)
{
    const struct orchestrator_parts *parts = &s->o->parts;
    if (str_equal(record_text(&s->session, SESSIONS_OWNER_NODE), parts->node)) {
        s->epoch = record_integer(&s->session, SESSIONS_OWNER_EPOCH);
        return true;
    }
    return store_claim(parts->store, s->ctx, s->principal->tenant_id, s->request->session_id,
                       parts->node, &s->epoch, e);
}

/* ---- the first append ---- */

struct first_event {
    struct strbuf text;
    struct json_writer w;
};

static struct json_writer *event_begin(struct start *s, struct first_event *event)
{
    strbuf_init(&event->text, s->ctx->arena, SSE_EVENT_BYTES_MAX);
    json_writer_init(&event->w, &event->text);
    json_object_begin(&event->w);
    return &event->w;
}

static void event_end(struct start *s, struct first_event *event, int64_t seq, enum event_type type)
{
    json_object_end(&event->w);
    struct record *row = batch_add(&s->batch, WRITE_INSERT, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, s->run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, seq);
    record_set_text(row, RUN_EVENTS_TYPE, str_from_cstr(event_type_name(type)));
    record_set_integer(row, RUN_EVENTS_VERSION, event_type_version(type));
    record_set_integer(row, RUN_EVENTS_AT, s->now_us);
    record_set_text(row, RUN_EVENTS_DATA, strbuf_str(&event->text));
}

enum { FIRST_EVENT_COUNT = 3 };

static void add_first_events(struct start *s)
{
    struct first_event event;
    struct arena *arena = s->ctx->arena;
    struct json_writer *w = event_begin(s, &event);
    json_put_str(w, S("agent"), s->agent->name);
    json_put_str(w, S("agent_version"), s->agent->version);
    json_put_str(w, S("model"), s->model->name);
    json_put_str(w, S("user_id"), s->input.user_id);
    json_put_str(w, S("message_id"), uuid_str(arena, s->message_id));
    json_put_i64(w, S("epoch"), s->epoch);
    json_put_str(w, S("node"), s->o->parts.node);
    if (s->request->client_tool_count > 0)
        json_put_raw(w, S("client_tools"), s->client_tools);
    if (!str_is_empty(s->request->response_format))
        json_put_raw(w, S("response_format"), s->request->response_format);
    event_end(s, &event, 1, EVENT_RUN_STARTED);

    w = event_begin(s, &event);
    json_put_str(w, S("message_id"), uuid_str(arena, s->message_id));
    json_put_str(w, S("role"), S("user"));
    json_key(w, S("label"));
    label_write_json(w, (struct label){.origins = LABEL_USER});
    event_end(s, &event, 2, EVENT_MESSAGE_ADDED);

    w = event_begin(s, &event);
    json_put_str(w, S("action"), s->input.action);
    json_put_str(w, S("resource"), s->input.resource);
    json_put_str(w, S("verdict"), S("allow"));
    json_put_str(w, S("reason"), s->decision.reason);
    json_put_str(w, S("rule"), s->decision.rule);
    json_put_str(w, S("version"), s->decision.version);
    event_end(s, &event, FIRST_EVENT_COUNT, EVENT_POLICY_DECIDED);
}

static struct record *add_message(struct start *s, uuid id, str role, str content, str parts)
{
    struct record *row = batch_add(&s->batch, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(row, MESSAGES_ID, id);
    record_set_uuid(row, MESSAGES_SESSION_ID, s->request->session_id);
    record_set_uuid(row, MESSAGES_RUN_ID, s->run_id);
    record_set_text(row, MESSAGES_ROLE, role);
    record_set_text(row, MESSAGES_CONTENT, content);
    record_set_integer(row, MESSAGES_TOKENS, (int64_t) (content.len + 3) / 4);
    record_set_integer(row, MESSAGES_CREATED_AT, s->now_us);
    if (!str_is_empty(parts))
        record_set_text(row, MESSAGES_PARTS, parts);
    return row;
}

/* One turn of the caller's own: its text is the content; calls and results travel in parts. */
static void add_history_message(struct start *s, const struct prompt_message *message)
{
    struct strbuf content, parts;
    struct json_writer w;
    strbuf_init(&content, s->ctx->arena, MESSAGE_BYTES_MAX);
    strbuf_init(&parts, s->ctx->arena, MESSAGE_BYTES_MAX);
    json_writer_init(&w, &parts);
    json_object_begin(&w);
    json_put_bool(&w, S("from_client"), true);
    json_key(&w, S("tool_calls"));
    json_array_begin(&w);
    str call_id = STR_NONE, name = STR_NONE;
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind == PART_TEXT || part->kind == PART_TOOL_RESULT)
            strbuf_add(&content, part->text);
        if (part->kind == PART_TOOL_RESULT) {
            call_id = part->call_id;
            name = part->name;
        }
        if (part->kind != PART_TOOL_CALL)
            continue;
        json_object_begin(&w);
        json_put_str(&w, S("call_id"), part->call_id);
        json_put_str(&w, S("name"), part->name);
        json_put_str(&w, S("arguments"), part->arguments);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_put_str(&w, S("call_id"), call_id);
    json_put_str(&w, S("name"), name);
    json_object_end(&w);
    add_message(s, uuid_new(s->o->parts.clock, s->o->parts.random),
                str_from_cstr(role_name(message->role)), strbuf_str(&content), strbuf_str(&parts));
}

static void add_run_row(struct start *s)
{
    struct record *row = batch_add(&s->batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    uint8_t trace[16];
    memcpy(trace, s->ctx->trace.trace_id, sizeof trace);
    record_set_uuid(row, AGENT_RUNS_ID, s->run_id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, s->request->session_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("running"));
    record_set_integer(row, AGENT_RUNS_STARTED_AT, s->now_us);
    record_set_text(row, AGENT_RUNS_COST,
                    S("{\"tokens\":0,\"time_ms\":0,\"cost_nanousd\":\"0\",\"tool_calls\":0}"));
    record_set_text(row, AGENT_RUNS_TRACE_ID, str_hex(s->ctx->arena, trace, sizeof trace));
    record_set_text(row, AGENT_RUNS_AGENT, s->agent->name);
    record_set_text(row, AGENT_RUNS_MODEL, s->model->name);
    record_set_text(row, AGENT_RUNS_USER_ID, s->input.user_id);
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, FIRST_EVENT_COUNT);
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, s->ctx->arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("role"), s->role);
    json_put_str(&w, S("caller_id"), s->principal->caller_id);
    if (s->principal->has_key_budget) /* what the run uses counts against the key too */
        json_put_str(&w, S("key_id"), uuid_str(s->ctx->arena, s->principal->key_id));
    json_object_end(&w);
    record_set_text(row, AGENT_RUNS_METADATA, strbuf_str(&text));
}

static void take_session(struct start *s)
{
    struct record *row = batch_add(&s->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, s->request->session_id);
    record_set_uuid(row, SESSIONS_LIVE_RUN_ID, s->run_id);
    record_set_integer(row, SESSIONS_UPDATED_AT, s->now_us);
    struct write *write = &s->batch.writes[s->batch.count - 1];
    write->where_column = SESSIONS_LIVE_RUN_ID;
    write->where_value = (struct value){.is_null = true};
}

static bool commit_start(struct start *s, struct error *e)
{
    struct fence fence = {s->request->session_id, s->o->parts.node, s->epoch};
    batch_init(&s->batch, s->ctx->arena, s->principal->tenant_id);
    s->batch.fence = &fence;
    s->batch.fault = "run_start";
    take_session(s);
    add_run_row(s);
    for (size_t i = 0; i < s->request->history_count; i++)
        add_history_message(s, &s->request->history[i]);
    str parts = STR_NONE;
    if (!str_is_empty(s->request->parts))
        parts = str_printf(s->ctx->arena, "{\"content\":" STR_FMT "}", STR_ARG(s->request->parts));
    s->message_id = uuid_new(s->o->parts.clock, s->o->parts.random);
    add_message(s, s->message_id, S("user"), s->request->content, parts);
    add_first_events(s);
    audit_add(&s->batch, s->o->parts.clock, s->o->parts.random, s->principal,
              &(struct audit_entry){.action = S("run.start"),
                                    .resource_type = S("run"),
                                    .resource_id = uuid_str(s->ctx->arena, s->run_id)});
    if (store_commit(s->o->parts.store, s->ctx, &s->batch, e))
        return true;
    if (e->reason == REASON_CONFLICT)
        return error_set(e, REASON_SESSION_BUSY,
                         "another run of this session has just begun; wait for it or cancel it");
    return false;
}

/* A key that may ask for some names only gets at no other by way of an agent or a message's `model`. */
static bool check_names(const struct start *s, struct error *e)
{
    str agent = str_printf(s->ctx->arena, "agent:" STR_FMT, STR_ARG(s->agent->name));
    return principal_check_model(s->principal, agent, e) &&
           (str_is_empty(s->request->model) ||
            principal_check_model(s->principal, s->request->model, e));
}

/* Before anything is stored. */
static bool filter_request(struct start *s, struct error *e)
{
    struct guard_tally found = {0};
    struct run_request *filtered = ARENA_NEW(s->ctx->arena, struct run_request);
    *filtered = *s->request;
    s->request = filtered;
    bool ok = run_guard_request(s->ctx, s->model, filtered, &found, e);
    content_audit_post(s->o,
                       &(struct content_audit){
                           .principal = s->principal,
                           .model = s->model->name,
                           .run_id = ok ? s->run_id : UUID_NONE, /* a refused one never is */
                           .session_id = s->request->session_id,
                       },
                       &found);
    return ok;
}

static bool start(struct start *s, struct error *e)
{
    if (!check_session(s, e) || !find_definition(s, e) || !check_names(s, e))
        return false;
    s->role = lower_role(s->principal, record_text(&s->session, SESSIONS_ROLE));
    return decide(s, e) && filter_request(s, e) && own_session(s, e) && commit_start(s, e);
}

bool run_start(struct orchestrator *o, struct context *ctx, const struct principal *principal,
               const struct run_request *request, uuid *run_id, struct error *e)
{
    if (atomic_load(&o->is_draining))
        return error_set(e, REASON_DRAINING, "this node is shutting down; try again");
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not start runs");
    if (request->content.len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the message is over %u bytes", MESSAGE_BYTES_MAX);
    str client_tools =
        client_tools_text(ctx->arena, request->client_tools, request->client_tool_count);
    if (request->client_tool_count > 0 && str_is_empty(client_tools))
        return error_set(e, REASON_TOO_LARGE, "the definitions of the tools are over %u bytes",
                         RUN_CLIENT_TOOLS_BYTES_MAX);
    struct start *s = ARENA_NEW(ctx->arena, struct start);
    *s = (struct start){.o = o,
                        .ctx = ctx,
                        .principal = principal,
                        .request = request,
                        .client_tools = client_tools};
    s->now_us = clock_unix_us(o->parts.clock);
    s->run_id = uuid_new(o->parts.clock, o->parts.random);
    if (!session_get(o, ctx, principal, request->session_id, &s->session, e))
        return false;
    s->settings = orchestrator_acquire(o);
    bool ok = start(s, e);
    orchestrator_release(s->settings);
    /* Should it be stored without our knowing, it must live: a run that is not there is not started by this. */
    if (!ok && e->reason == REASON_OUTCOME_UNKNOWN)
        run_spawn(o, principal->tenant_id, request->session_id, s->run_id);
    if (!ok)
        return false;
    *run_id = s->run_id;
    run_spawn(o, principal->tenant_id, request->session_id, s->run_id);
    return true;
}

/* ---- looking ---- */

bool run_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
             uuid run_id, struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS);
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    if (!store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e) ||
        !principal_sees_user(principal, record_text(out, AGENT_RUNS_USER_ID))) {
        if (e->code != ERROR_OK && e->code != ERROR_NOT_FOUND)
            return false;
        return error_set(e, REASON_NOT_FOUND, "there is no run " STR_FMT,
                         STR_ARG(uuid_str(ctx->arena, run_id)));
    }
    return true;
}

bool run_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
              uuid session_id, str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    if (principal->level < ROLE_LEVEL_OPERATOR)
        query_where_text(&query, AGENT_RUNS_USER_ID, principal->user_id);
    if (!uuid_is_none(session_id))
        query_where_uuid(&query, AGENT_RUNS_SESSION_ID, session_id);
    query.is_descending = true;
    query.cursor = cursor;
    query.limit = limit;
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

bool run_cancel(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                uuid run_id, struct error *e)
{
    struct record run;
    enum run_status status;
    if (!run_get(o, ctx, principal, run_id, &run, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not cancel runs");
    if (run_status_parse(record_text(&run, AGENT_RUNS_STATUS), &status) &&
        run_status_is_final(status))
        return error_set(e, REASON_CONFLICT, "the run is already %s", run_status_name(status));
    run_spawn_cancelled(o, principal->tenant_id, record_uuid(&run, AGENT_RUNS_SESSION_ID), run_id,
                        principal->user_id);
    return true;
}

static void put_time(struct json_writer *w, const char *name, const struct record *run, int column)
{
    char text[TIME_TEXT_BYTES + 1];
    json_key(w, str_from_cstr(name));
    if (!record_has(run, column)) {
        json_write_null(w);
        return;
    }
    time_format(record_integer(run, column), text);
    json_write_str(w, str_of(text, TIME_TEXT_BYTES));
}

static void put_id(struct json_writer *w, const char *name, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id, text);
    json_put_str(w, str_from_cstr(name), str_of(text, UUID_TEXT_BYTES));
}

void run_write_json(struct json_writer *w, const struct record *run)
{
    json_object_begin(w);
    put_id(w, "id", record_uuid(run, AGENT_RUNS_ID));
    put_id(w, "session_id", record_uuid(run, AGENT_RUNS_SESSION_ID));
    json_put_str(w, S("status"), record_text(run, AGENT_RUNS_STATUS));
    json_put_str(w, S("agent"), record_text(run, AGENT_RUNS_AGENT));
    json_put_str(w, S("model"), record_text(run, AGENT_RUNS_MODEL));
    json_put_str(w, S("user_id"), record_text(run, AGENT_RUNS_USER_ID));
    put_time(w, "started_at", run, AGENT_RUNS_STARTED_AT);
    put_time(w, "completed_at", run, AGENT_RUNS_COMPLETED_AT);
    json_put_raw(w, S("cost"), record_text(run, AGENT_RUNS_COST));
    json_put_str(w, S("trace_id"), record_text(run, AGENT_RUNS_TRACE_ID));
    json_put_i64(w, S("last_seq"), record_integer(run, AGENT_RUNS_LAST_SEQ));
    json_key(w, S("error"));
    if (record_has(run, AGENT_RUNS_ERROR)) {
        json_object_begin(w);
        json_put_str(w, S("type"), record_text(run, AGENT_RUNS_ERROR));
        json_put_str(w, S("message"), record_text(run, AGENT_RUNS_ERROR_MESSAGE));
        json_object_end(w);
    } else {
        json_write_null(w);
    }
    json_object_end(w);
}
