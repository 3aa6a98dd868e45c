/*
 * Runs as callers see them: start, look, cancel.  The run itself is run.c's.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/run/run_begin.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/session/session_inbox.h"
#include "store/sift.h"
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
    struct agent_workflow workflow; /* of the agent; found anew by each attempt */
    const struct model *model;
    str client_tools; /* JSON text */
    str role;         /* the lower of the session's and the caller's */
    struct policy_input input;
    struct policy_decision decision;
    uuid run_id;
    int64_t epoch, now_us;
    enum priority priority;
    bool is_busy; /* a run is live: the message waits */
    struct batch batch;
};

/* What becomes of the message if a run is live. */
static enum double_text on_busy(const struct start *s)
{
    enum double_text policy = s->request->on_busy;
    if (policy == DOUBLE_TEXT_UNSAID &&
        !double_text_parse(record_text(&s->session, SESSIONS_DOUBLE_TEXT), &policy))
        policy = s->settings->double_text;
    bool is_plain = s->request->history_count == 0 && s->request->client_tool_count == 0 &&
                    str_is_empty(s->request->response_format);
    return is_plain ? policy : DOUBLE_TEXT_REJECT;
}

static bool check_session(struct start *s, struct error *e)
{
    if (!session_check_open(s->o, s->ctx, &s->session, e))
        return false;
    s->is_busy = record_has(&s->session, SESSIONS_LIVE_RUN_ID);
    if (s->is_busy && on_busy(s) == DOUBLE_TEXT_REJECT)
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

static bool find_workflow(struct start *s, struct error *e)
{
    agent_workflow_release(&s->workflow);
    return agent_workflow_find(s->o, s->ctx, s->principal->tenant_id, s->agent, s->request->content,
                               &s->workflow, e);
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
    s->decision.remaining = s->input.remaining;
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

static bool commit_start(struct start *s, struct error *e)
{
    struct fence fence = {s->request->session_id, s->o->parts.node, s->epoch};
    struct run_beginning *beginning = ARENA_NEW(s->ctx->arena, struct run_beginning);
    uuid message_id;
    *beginning = (struct run_beginning){
        .run_id = s->run_id,
        .session_id = s->request->session_id,
        .principal = s->principal,
        .user_id = s->input.user_id,
        .role = s->role,
        .agent = s->agent->name,
        .agent_version = s->agent->version,
        .model = s->model->name,
        .workflow = s->workflow.pinned,
        .content = s->request->content,
        .history = s->request->history,
        .history_count = s->request->history_count,
        .client_tools = s->client_tools,
        .response_format = s->request->response_format,
        .priority = (int) s->priority + 1,
        .budget = s->workflow.budget,
        .epoch = s->epoch,
        .now_us = s->now_us,
        .decision = &s->decision,
        .trace = s->ctx->trace,
    };
    if (!str_is_empty(s->request->parts))
        beginning->parts =
            str_printf(s->ctx->arena, "{\"content\":" STR_FMT "}", STR_ARG(s->request->parts));
    batch_init(&s->batch, s->ctx->arena, s->principal->tenant_id);
    s->batch.fence = &fence;
    s->batch.fault = "run_start";
    agent_workflow_pin(s->o, s->ctx->arena, &s->batch, &s->workflow);
    run_begin_write(s->o, s->ctx->arena, &s->batch, beginning, &message_id);
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

/* A run is live: the message waits, or steers it. */
static bool commit_wait(struct start *s, struct error *e)
{
    struct inbox_message *message = ARENA_NEW(s->ctx->arena, struct inbox_message);
    *message = (struct inbox_message){
        .session = &s->session,
        .mode = on_busy(s),
        .run_id = s->run_id,
        .principal = s->principal,
        .user_id = s->input.user_id,
        .role = s->role,
        .request = s->request,
        .agent = s->agent->name,
        .model = s->model->name,
        .priority = s->priority,
        .now_us = s->now_us,
    };
    return session_inbox_add(s->o, s->ctx, message, e);
}

/* Now that it is known how urgent it is. */
static bool admit(struct start *s, struct error *e)
{
    s->priority = principal_priority(s->principal, s->agent->priority,
                                     priority_said(record_text(&s->session, SESSIONS_PRIORITY)));
    return overload_admits(s->o->overload, s->priority, e) &&
           admission_check(s->o->admission, s->principal->tenant_id, s->priority, e);
}

static bool start(struct start *s, struct error *e)
{
    if (!check_session(s, e) || !find_definition(s, e) || !check_names(s, e) ||
        !agent_workflow_check_request(s->agent, s->request, e) || !admit(s, e))
        return false;
    s->role = lower_role(s->principal, record_text(&s->session, SESSIONS_ROLE));
    if (!decide(s, e) || !filter_request(s, e) || !find_workflow(s, e))
        return false;
    return s->is_busy ? commit_wait(s, e) : own_session(s, e) && commit_start(s, e);
}

/* The live run ended, or another one began, between the look and the commit: worth another look? */
static bool has_moved(const struct start *s, const struct error *e)
{
    return e->reason == REASON_CONFLICT ||
           (e->reason == REASON_SESSION_BUSY && !s->is_busy && on_busy(s) != DOUBLE_TEXT_REJECT);
}

static bool start_until_settled(struct start *s, struct error *e)
{
    const struct run_request *request = s->request;
    for (int attempt = 1;; attempt++) {
        struct error why = {0};
        s->request = request;
        s->is_busy = false;
        if (!session_get(s->o, s->ctx, s->principal, request->session_id, &s->session, e))
            return false;
        if (start(s, &why))
            return true;
        if (!has_moved(s, &why) || attempt == SESSION_INBOX_ATTEMPTS_MAX)
            return error_copy(e, &why);
    }
}

static void tell_outcome(const struct start *s, struct message_outcome *out)
{
    *out = (struct message_outcome){.fate = MESSAGE_BEGINS, .run_id = s->run_id};
    if (!s->is_busy)
        return;
    out->fate = MESSAGE_WAITS;
    if (on_busy(s) != DOUBLE_TEXT_STEER)
        return;
    *out = (struct message_outcome){
        .fate = MESSAGE_STEERS,
        .run_id = record_uuid(&s->session, SESSIONS_LIVE_RUN_ID),
        .otherwise_run_id = s->run_id,
    };
}

static bool check_request(const struct start *s, struct error *e)
{
    const struct run_request *request = s->request;
    if (atomic_load(&s->o->is_draining))
        return error_set(e, REASON_DRAINING, "this node is shutting down; try again");
    if (s->principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not start runs");
    if (request->content.len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the message is over %u bytes", MESSAGE_BYTES_MAX);
    if (request->client_tool_count > 0 && str_is_empty(s->client_tools))
        return error_set(e, REASON_TOO_LARGE, "the definitions of the tools are over %u bytes",
                         RUN_CLIENT_TOOLS_BYTES_MAX);
    return true;
}

bool message_send(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  const struct run_request *request, struct message_outcome *out, struct error *e)
{
    struct start *s = ARENA_NEW(ctx->arena, struct start);
    *s = (struct start){.o = o, .ctx = ctx, .principal = principal, .request = request};
    s->client_tools =
        client_tools_text(ctx->arena, request->client_tools, request->client_tool_count);
    if (!check_request(s, e))
        return false;
    s->now_us = clock_unix_us(o->parts.clock);
    s->run_id = uuid_new(o->parts.clock, o->parts.random);
    s->settings = orchestrator_acquire(o);
    bool ok = start_until_settled(s, e);
    if (ok)
        tell_outcome(s, out);
    agent_workflow_release(&s->workflow);
    orchestrator_release(s->settings);
    /* Should it be stored without our knowing, it must live: a run that is not there is not started by this. */
    bool may_be_stored = ok || e->reason == REASON_OUTCOME_UNKNOWN;
    if (may_be_stored && !s->is_busy)
        run_spawn_as(o, &(struct run_turn){.tenant_id = principal->tenant_id,
                                           .session_id = request->session_id,
                                           .run_id = s->run_id,
                                           .user_id = principal->user_id,
                                           .priority = s->priority});
    return ok;
}

bool run_start(struct orchestrator *o, struct context *ctx, const struct principal *principal,
               const struct run_request *request, uuid *run_id, struct error *e)
{
    struct message_outcome outcome;
    struct run_request *now = ARENA_NEW(ctx->arena, struct run_request);
    *now = *request;
    now->on_busy = DOUBLE_TEXT_REJECT;
    if (!message_send(o, ctx, principal, now, &outcome, e))
        return false;
    *run_id = outcome.run_id;
    return true;
}

bool run_ask(struct orchestrator *o, struct context *ctx, const struct run_question *question,
             struct run_grant *out, struct error *e)
{
    struct start *s = ARENA_NEW(ctx->arena, struct start);
    struct run_request *request = ARENA_NEW(ctx->arena, struct run_request);
    *request = (struct run_request){.session_id = record_uuid(question->session, SESSIONS_ID),
                                    .content = question->content,
                                    .model = question->model};
    *s = (struct start){.o = o,
                        .ctx = ctx,
                        .principal = question->principal,
                        .request = request,
                        .role = question->role,
                        .session = *question->session};
    *out = (struct run_grant){0};
    s->settings = orchestrator_acquire(o);
    bool ok = own_session(s, e);
    out->epoch = ok ? s->epoch : 0;
    ok = ok && session_check_open(o, ctx, &s->session, e) && find_definition(s, e);
    if (ok) {
        out->agent = str_copy(ctx->arena, s->agent->name);
        out->agent_version = str_copy(ctx->arena, s->agent->version);
        out->model = str_copy(ctx->arena, s->model->name);
    }
    ok = ok && decide(s, e) && find_workflow(s, e);
    out->workflow = s->workflow;
    out->is_decided = s->decision.reason.ptr != NULL;
    out->decision = s->decision;
    orchestrator_release(s->settings);
    return ok;
}

/* ---- looking ---- */

bool run_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
             uuid run_id, struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS);
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    if (!store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e) ||
        record_has(out, AGENT_RUNS_REMOVED_AT) ||
        !principal_sees_user(principal, record_text(out, AGENT_RUNS_USER_ID))) {
        if (e->code != ERROR_OK && e->code != ERROR_NOT_FOUND)
            return false;
        return error_set(e, REASON_NOT_FOUND, "there is no run " STR_FMT,
                         STR_ARG(uuid_str(ctx->arena, run_id)));
    }
    return true;
}

/* "name@version" is wanted by its name too. */
static bool is_of_workflow(str workflow, str wanted)
{
    str version;
    return str_equal(workflow, wanted) ||
           (str_strip_prefix(workflow, wanted, &version) && str_starts_with(version, S("@")));
}

static bool is_wanted(const void *owner, const struct record *run)
{
    const struct run_filter *filter = owner;
    return (str_is_empty(filter->status) ||
            str_equal(record_text(run, AGENT_RUNS_STATUS), filter->status)) &&
           (str_is_empty(filter->agent) ||
            str_equal(record_text(run, AGENT_RUNS_AGENT), filter->agent)) &&
           (str_is_empty(filter->workflow) ||
            is_of_workflow(record_text(run, AGENT_RUNS_WORKFLOW), filter->workflow));
}

bool run_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
              const struct run_filter *filter, str cursor, size_t limit, struct records *out,
              struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    bool has_session = !uuid_is_none(filter->session_id),
         is_sifted = !str_is_empty(filter->agent) || !str_is_empty(filter->workflow) ||
                     (has_session && !str_is_empty(filter->status));
    if (principal->level < ROLE_LEVEL_OPERATOR)
        query_where_text(&query, AGENT_RUNS_USER_ID, principal->user_id);
    if (has_session)
        query_where_uuid(&query, AGENT_RUNS_SESSION_ID, filter->session_id);
    else if (!str_is_empty(filter->status)) /* of a session: its index, not that of the status */
        query_where_text(&query, AGENT_RUNS_STATUS, filter->status);
    query_where_null(&query, AGENT_RUNS_REMOVED_AT, true);
    query.is_descending = true;
    query.cursor = cursor;
    query.limit = limit;
    if (is_sifted)
        return store_sift(o->parts.store, ctx, principal->tenant_id, &query, is_wanted, filter, out,
                          e);
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

bool run_children(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  uuid run_id, str cursor, size_t limit, struct records *out, struct error *e)
{
    struct record *run = ARENA_NEW(ctx->arena, struct record);
    struct query query = query_of(TABLE_AGENT_RUNS);
    if (!run_get(o, ctx, principal, run_id, run, e))
        return false;
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, run_id);
    query_where_null(&query, AGENT_RUNS_REMOVED_AT, true);
    query.cursor = cursor;
    query.limit = limit;
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

/* What is promised outlives the node: whoever loads the run finds it in its row. */
static bool note_cancel(struct orchestrator *o, struct context *ctx,
                        const struct principal *principal, uuid run_id, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    batch.fault = "run_cancel";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run_id);
    record_set_text(row, AGENT_RUNS_CANCEL_BY, principal->user_id);
    return store_commit(o->parts.store, ctx, &batch, e);
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
    if (!record_has(&run, AGENT_RUNS_CANCEL_BY) && !note_cancel(o, ctx, principal, run_id, e))
        return false;
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

static void put_null(struct json_writer *w, const char *name)
{
    json_key(w, str_from_cstr(name));
    json_write_null(w);
}

static void put_run(struct json_writer *w, const char *name, const struct record *run, int column)
{
    if (record_has(run, column))
        put_id(w, name, record_uuid(run, column));
    else
        put_null(w, name);
}

static void put_origin(struct json_writer *w, const struct record *run)
{
    put_run(w, "parent_run_id", run, AGENT_RUNS_PARENT_RUN_ID);
    json_put_i64(w, S("depth"), record_integer(run, AGENT_RUNS_DEPTH));
    put_run(w, "forked_from", run, AGENT_RUNS_FORKED_FROM);
    if (record_has(run, AGENT_RUNS_FORKED_AT))
        json_put_i64(w, S("forked_at"), record_integer(run, AGENT_RUNS_FORKED_AT));
    else
        put_null(w, "forked_at");
    if (record_has(run, AGENT_RUNS_BUDGET))
        json_put_raw(w, S("budget"), record_text(run, AGENT_RUNS_BUDGET));
}

void run_write_json(struct json_writer *w, const struct record *run)
{
    json_object_begin(w);
    run_write_members(w, run);
    json_object_end(w);
}

void run_write_members(struct json_writer *w, const struct record *run)
{
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
    json_put_str(w, S("priority"), str_from_cstr(priority_name(run_row_priority(run))));
    put_origin(w, run);
    json_key(w, S("error"));
    if (record_has(run, AGENT_RUNS_ERROR)) {
        json_object_begin(w);
        json_put_str(w, S("type"), record_text(run, AGENT_RUNS_ERROR));
        json_put_str(w, S("message"), record_text(run, AGENT_RUNS_ERROR_MESSAGE));
        json_object_end(w);
    } else {
        json_write_null(w);
    }
    if (record_has(run, AGENT_RUNS_DEGRADED))
        json_put_str(w, S("degraded"), record_text(run, AGENT_RUNS_DEGRADED));
}
