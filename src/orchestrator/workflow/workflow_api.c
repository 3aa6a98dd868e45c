/* Instances as callers see them: start, signal, look. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/journal/workflow_state.h"
#include "orchestrator/run/run_begin.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/workflow/workflow_store.h"
#include <stdatomic.h>

/* ---- start ---- */

struct start {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct workflow_request *request;
    const struct settings *settings;
    struct workflow_entry *entry;
    const struct definition *definition;
    struct record session; /* of a session that is there */
    bool is_new_session;
    uuid run_id, session_id;
    str agent, user_id, role, policy_context, input;
    cost session_limit, budget;
    struct policy_input question;
    struct policy_decision decision;
    int64_t epoch, now_us;
    struct batch batch;
    struct run_beginning beginning;
};

static str lower_role(const struct principal *principal, str session_role)
{
    enum role_level level;
    if (role_level_parse(session_role, &level) && level < principal->level)
        return session_role;
    return principal->role;
}

static bool use_session(struct start *s, struct error *e)
{
    if (!session_get(s->o, s->ctx, s->principal, s->request->session_id, &s->session, e) ||
        !session_check_open(s->o, s->ctx, &s->session, e))
        return false;
    if (record_has(&s->session, SESSIONS_LIVE_RUN_ID))
        return error_set(e, REASON_SESSION_BUSY,
                         "a run is live in this session; start the workflow without session_id");
    s->session_id = s->request->session_id;
    s->user_id = record_text(&s->session, SESSIONS_USER_ID);
    s->role = lower_role(s->principal, record_text(&s->session, SESSIONS_ROLE));
    s->policy_context = record_text(&s->session, SESSIONS_POLICY_CONTEXT);
    return session_budget_read(record_text(&s->session, SESSIONS_BUDGET), &s->session_limit, e);
}

static bool make_session(struct start *s, struct error *e)
{
    const struct principal *principal = s->principal;
    bool is_other =
        !str_is_empty(s->request->user_id) && !str_equal(s->request->user_id, principal->user_id);
    if (is_other && !(principal->scopes & SCOPE_ACT_AS))
        return error_set(e, REASON_DENIED,
                         "starting a workflow for another user_id needs the scope act_as");
    s->is_new_session = true;
    s->session_id = uuid_derive(s->run_id, S("session"));
    s->user_id = is_other ? s->request->user_id : principal->user_id;
    s->role = is_other ? S("user") : principal->role; /* never more than a user's rights */
    s->session_limit = cost_min(s->settings->session_budget, s->budget);
    s->epoch = 1;
    return true;
}

static bool decide(struct start *s, struct error *e)
{
    struct ledger_limits limits = {
        .session = s->session_limit,
        .run = COST_LIMITLESS,
        .key_id = s->principal->has_key_budget ? s->principal->key_id : UUID_NONE,
    };
    struct ledger_path path;
    if (!ledger_open_path(s->o->ledger, s->ctx, s->principal->tenant_id, s->user_id,
                          s->is_new_session ? UUID_NONE : s->session_id, UUID_NONE, limits, &path,
                          e))
        return false;
    s->question = (struct policy_input){
        .action = S("run.start"),
        .resource = s->agent,
        .user_id = s->user_id,
        .role = s->role,
        .tenant = uuid_str(s->ctx->arena, s->principal->tenant_id),
        .session_id = s->session_id,
        .remaining = ledger_remaining(s->o->ledger, &path),
        .policy_context = s->policy_context,
    };
    ledger_close_path(s->o->ledger, &path);
    policy_decide(s->o->parts.policy, s->ctx, &s->question, &s->decision);
    metrics_add(
        s->o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
        (str[]){s->question.action, str_from_cstr(policy_verdict_name(s->decision.verdict))}, 2);
    if (s->decision.verdict == POLICY_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED, "the policy does not allow " STR_FMT ": " STR_FMT,
                     STR_ARG(s->agent), STR_ARG(s->decision.reason));
}

static bool own_session(struct start *s, struct error *e)
{
    const struct orchestrator_parts *parts = &s->o->parts;
    if (s->is_new_session)
        return true;
    if (str_equal(record_text(&s->session, SESSIONS_OWNER_NODE), parts->node)) {
        s->epoch = record_integer(&s->session, SESSIONS_OWNER_EPOCH);
        return true;
    }
    return store_claim(parts->store, s->ctx, s->principal->tenant_id, s->session_id, parts->node,
                       &s->epoch, e);
}

static void add_session(struct start *s)
{
    struct record *row = batch_add(&s->batch, WRITE_INSERT, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, s->session_id);
    record_set_text(row, SESSIONS_USER_ID, s->user_id);
    record_set_text(row, SESSIONS_REQUESTED_BY, s->principal->caller_id);
    record_set_text(row, SESSIONS_ROLE, s->role);
    record_set_integer(row, SESSIONS_CREATED_AT, s->now_us);
    record_set_integer(row, SESSIONS_UPDATED_AT, s->now_us);
    record_set_text(row, SESSIONS_STATUS, S("active"));
    record_set_text(row, SESSIONS_BUDGET, session_budget_text(s->ctx->arena, s->session_limit));
    record_set_text(row, SESSIONS_AGENT, s->agent);
    if (s->settings->session_expiry_ms > 0)
        record_set_integer(row, SESSIONS_EXPIRES_AT,
                           s->now_us + s->settings->session_expiry_ms * 1000);
    record_set_text(row, SESSIONS_OWNER_NODE, s->o->parts.node);
    record_set_integer(row, SESSIONS_OWNER_EPOCH, s->epoch);
    ledger_add_account_row(s->o->ledger, &s->batch, ACCOUNT_SESSION,
                           uuid_str(s->ctx->arena, s->session_id), s->session_limit);
}

static bool commit(struct start *s, struct error *e)
{
    struct fence fence = {s->session_id, s->o->parts.node, s->epoch};
    const struct definition *definition = s->definition;
    uuid message_id;
    s->beginning = (struct run_beginning){
        .run_id = s->run_id,
        .session_id = s->session_id,
        .principal = s->principal,
        .user_id = s->user_id,
        .role = s->role,
        .agent = s->agent,
        .agent_version = definition->version,
        .model = catalog_default(s->settings->catalog)->name,
        .workflow = {.name = definition->name,
                     .version = definition->version,
                     .digest = definition->digest},
        .content = s->input,
        .label = s->request->label,
        .budget = s->is_new_session ? COST_LIMITLESS : s->budget,
        .epoch = s->epoch,
        .now_us = s->now_us,
        .decision = &s->decision,
        .trace = s->ctx->trace,
    };
    batch_init(&s->batch, s->ctx->arena, s->principal->tenant_id);
    s->batch.fence = s->is_new_session ? NULL : &fence;
    s->batch.fault = "workflow_start";
    if (s->is_new_session)
        add_session(s);
    workflow_pin(s->o, s->ctx->arena, &s->batch, s->entry);
    run_begin_write(s->o, s->ctx->arena, &s->batch, &s->beginning, &message_id);
    if (s->request->also)
        s->request->also(s->request->also_owner, &s->batch);
    if (store_commit(s->o->parts.store, s->ctx, &s->batch, e))
        return true;
    if (e->reason == REASON_CONFLICT && !s->is_new_session)
        return error_set(e, REASON_SESSION_BUSY,
                         "another run of this session has just begun; wait for it or cancel it");
    return false;
}

static bool start(struct start *s, struct error *e)
{
    const struct workflow_request *request = s->request;
    if (!workflow_resolve(s->o, s->ctx, s->principal->tenant_id, request->name, request->range,
                          &s->entry, e))
        return false;
    s->definition = workflow_entry_definition(s->entry);
    s->agent = str_printf(s->ctx->arena, "workflow:" STR_FMT, STR_ARG(s->definition->name));
    s->input = str_is_empty(request->input) ? S("{}") : request->input;
    s->budget = cost_min(request->budget, s->definition->budget);
    return principal_check_model(s->principal, s->agent, e) &&
           workflow_check_input(s->ctx, s->definition, s->input, e) &&
           (uuid_is_none(request->session_id) ? make_session(s, e) : use_session(s, e)) &&
           decide(s, e) && own_session(s, e) && commit(s, e);
}

bool workflow_start(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct workflow_request *request, uuid *run_id, uuid *session_id,
                    struct error *e)
{
    if (atomic_load(&o->is_draining))
        return error_set(e, REASON_DRAINING, "this node is shutting down; try again");
    enum priority priority = principal_priority(principal, PRIORITY_UNSAID, PRIORITY_UNSAID);
    if (!overload_admits(o->overload, priority, e) ||
        !admission_check(o->admission, principal->tenant_id, priority, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not start workflows");
    struct start *s = ARENA_NEW(ctx->arena, struct start);
    *s = (struct start){.o = o, .ctx = ctx, .principal = principal, .request = request};
    s->now_us = clock_unix_us(o->parts.clock);
    s->run_id =
        uuid_is_none(request->run_id) ? uuid_new(o->parts.clock, o->parts.random) : request->run_id;
    s->settings = orchestrator_acquire(o);
    bool ok = start(s, e);
    workflow_entry_release(s->entry);
    orchestrator_release(s->settings);
    if (ok || e->reason == REASON_OUTCOME_UNKNOWN)
        run_spawn_as(o, &(struct run_turn){.tenant_id = principal->tenant_id,
                                           .session_id = s->session_id,
                                           .run_id = s->run_id,
                                           .user_id = principal->user_id,
                                           .priority = priority});
    if (!ok)
        return false;
    *run_id = s->run_id;
    *session_id = s->session_id;
    return true;
}

/* ---- signals ---- */

static bool is_name(str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-' || c == '.'))
            return false;
    }
    return name.len > 0 && name.len <= 64;
}

/* How many wait, up to the bound. */
static bool has_room(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid run_id,
                     bool *has, struct error *e)
{
    struct query query = query_of(TABLE_RUN_SIGNALS);
    size_t count = 0;
    query_where_uuid(&query, RUN_SIGNALS_RUN_ID, run_id);
    for (;;) {
        struct records page;
        arena_mark mark = arena_save(ctx->arena);
        if (!store_list(o->parts.store, ctx, tenant_id, &query, &page, e))
            return false;
        count += page.count;
        bool is_more = page.count > 0 && !str_is_empty(page.next_cursor) && count < RUN_SIGNALS_MAX;
        *has = count < RUN_SIGNALS_MAX;
        if (!is_more) {
            arena_rewind(ctx->arena, mark);
            return true;
        }
        query.cursor = page.next_cursor;
    }
}

bool workflow_signal_as(struct orchestrator *o, struct context *ctx,
                        const struct principal *principal, const struct workflow_signalling *signal,
                        uuid *signal_id, struct error *e)
{
    str name = signal->name, data = signal->data;
    uuid run_id = signal->run_id;
    struct record *run = ARENA_NEW(ctx->arena, struct record);
    const struct json *tree;
    enum run_status status;
    bool has = false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not send signals");
    if (!is_name(name))
        return error_set(e, REASON_SCHEMA, "a signal's name has 1 to 64 of A-Z a-z 0-9 - _ .");
    if (data.len > RUN_SIGNAL_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a signal's data is over %u bytes",
                         RUN_SIGNAL_BYTES_MAX);
    data = str_is_empty(data) ? S("null") : data;
    if (!json_parse(ctx->arena, data, (struct json_limits){.depth_max = EXPRESSION_VALUE_DEPTH_MAX},
                    &tree, e) ||
        !run_get(o, ctx, principal, run_id, run, e))
        return false;
    if (!record_has(run, AGENT_RUNS_WORKFLOW))
        return error_set(e, REASON_CONFLICT, "the run is no workflow's: it takes no signals");
    if (run_status_parse(record_text(run, AGENT_RUNS_STATUS), &status) &&
        run_status_is_final(status))
        return error_set(e, REASON_CONFLICT, "the run is already %s", run_status_name(status));
    if (!has_room(o, ctx, principal->tenant_id, run_id, &has, e))
        return false;
    if (!has)
        return error_set(e, REASON_LIMIT, "a run gets at most %u signals", RUN_SIGNALS_MAX);
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    batch.fault = "workflow_signal";
    *signal_id = uuid_new(o->parts.clock, o->parts.random);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_RUN_SIGNALS);
    record_set_uuid(row, RUN_SIGNALS_RUN_ID, run_id);
    record_set_uuid(row, RUN_SIGNALS_ID, *signal_id);
    record_set_text(row, RUN_SIGNALS_NAME, name);
    record_set_text(row, RUN_SIGNALS_DATA, data);
    record_set_text(row, RUN_SIGNALS_SENT_BY, principal->user_id);
    record_set_integer(row, RUN_SIGNALS_CREATED_AT, clock_unix_us(o->parts.clock));
    if (signal->label.origins != 0)
        record_set_text(row, RUN_SIGNALS_LABEL, run_label_text(ctx->arena, signal->label));
    if (signal->also)
        signal->also(signal->also_owner, &batch, *signal_id);
    audit_add(&batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){
                  .action = S("run.signal"),
                  .resource_type = S("run"),
                  .resource_id = uuid_str(ctx->arena, run_id),
                  .details = str_printf(ctx->arena, "{\"name\":\"" STR_FMT "\"}", STR_ARG(name))});
    bool ok = store_commit(o->parts.store, ctx, &batch, e);
    if (ok || e->reason == REASON_OUTCOME_UNKNOWN)
        run_spawn_row(o, principal->tenant_id, run);
    return ok;
}

bool workflow_signal(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     uuid run_id, str name, str data, uuid *signal_id, struct error *e)
{
    struct workflow_signalling signal = {.run_id = run_id, .name = name, .data = data};
    return workflow_signal_as(o, ctx, principal, &signal, signal_id, e);
}

/* ---- looking ---- */

struct showing {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    struct json_writer *w;
    size_t shown, outputs;
    bool is_final; /* the run */
};

enum { OUTPUTS_SHOWN_MAX = 500 };

static void put_time(struct showing *s, const char *name, int64_t at_us)
{
    if (at_us > 0)
        json_put_str(s->w, str_from_cstr(name), time_str(s->ctx->arena, at_us));
}

static void put_id(struct showing *s, const char *name, uuid id)
{
    if (!uuid_is_none(id))
        json_put_str(s->w, str_from_cstr(name), uuid_str(s->ctx->arena, id));
}

/* What a row holds of it; a row that retention has removed holds nothing. */
static bool put_output(struct showing *s, const struct workflow_node *node, struct error *e)
{
    struct record *row = ARENA_NEW(s->ctx->arena, struct record);
    struct error missing = {0};
    bool is_call = node->call && node->call->state == CALL_DONE;
    bool is_child = !uuid_is_none(node->child_message);
    if (!str_is_empty(node->output))
        json_put_raw(s->w, S("output"), node->output);
    if (!str_is_empty(node->output) || (!is_call && !is_child) || s->outputs >= OUTPUTS_SHOWN_MAX)
        return true;
    s->outputs++;
    struct record key = record_of(is_call ? TABLE_TOOL_CALLS : TABLE_MESSAGES);
    record_set_uuid(&key, is_call ? (int) TOOL_CALLS_ID : (int) MESSAGES_ID,
                    is_call ? node->call->id : node->child_message);
    if (!store_get(s->o->parts.store, s->ctx, s->tenant_id, &key, row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    if (is_call && record_has(row, TOOL_CALLS_OUTPUT))
        json_put_raw(s->w, S("output"), record_text(row, TOOL_CALLS_OUTPUT));
    else if (is_child)
        json_put_str(s->w, S("output"), record_text(row, MESSAGES_CONTENT));
    return true;
}

static str shown_status(const struct showing *s, const struct workflow_node *node)
{
    bool is_over = s->is_final;
    if (node->status != STEP_RUNNING && node->status != STEP_RETRYING)
        return str_from_cstr(step_status_name(node->status));
    for (const struct workflow_node *n = node->lane->owner; n; n = n->lane->owner)
        is_over = is_over || n->status == STEP_FAILED || n->status == STEP_COMPLETED;
    if (is_over)
        return S("cancelled");
    bool is_waiting =
        node->status == STEP_RUNNING && step_kind_is_leaf(node->kind) &&
        (!step_kind_is_work(node->kind) || (node->call && node->call->state == CALL_AWAITING));
    return is_waiting ? S("waiting") : str_from_cstr(step_status_name(node->status));
}

static bool write_lane(struct showing *s, const struct workflow_lane *lane, struct error *e);

static bool write_lanes(struct showing *s, const struct workflow_node *node, struct error *e)
{
    if (step_kind_is_leaf(node->kind))
        return true;
    json_key(s->w, S("lanes"));
    json_array_begin(s->w);
    for (size_t i = 0; i < node->lane_count; i++) {
        const struct workflow_lane *lane = node->lanes[i];
        if (!lane || s->shown >= WORKFLOW_STEPS_SHOWN_MAX)
            continue;
        json_object_begin(s->w);
        if (!str_is_empty(lane->name))
            json_put_str(s->w, S("name"), lane->name);
        json_put_i64(s->w, S("number"), lane->number);
        json_key(s->w, S("steps"));
        if (!write_lane(s, lane, e))
            return false;
        json_object_end(s->w);
    }
    json_array_end(s->w);
    return true;
}

static bool write_node(struct showing *s, const struct workflow_node *node, struct error *e)
{
    struct json_writer *w = s->w;
    s->shown++;
    json_object_begin(w);
    json_put_str(w, S("step"), node->path);
    json_put_str(w, S("kind"), str_from_cstr(step_kind_name(node->kind)));
    json_put_str(w, S("status"), shown_status(s, node));
    json_put_i64(w, S("attempt"), node->attempt);
    put_time(s, "started_at", node->started_us);
    put_time(s, "ended_at", node->ended_us);
    put_time(s, "wakes_at", node->wakes_us);
    put_time(s, "timeout_at", node->timeout_us);
    if (node->call) {
        put_id(s, "tool_call_id", node->call->id);
        json_put_str(w, S("tool"), node->call->name);
    }
    put_id(s, "child_run_id", node->child_run_id);
    put_id(s, "approval_id", node->approval_id);
    if (node->kind == STEP_BRANCH && node->attempt > 0)
        json_put_i64(w, S("arm"), node->arm);
    if (node->kind == STEP_MAP)
        json_put_i64(w, S("count"), node->count);
    if (!str_is_empty(node->error)) {
        json_key(w, S("error"));
        json_object_begin(w);
        json_put_str(w, S("type"), node->error);
        json_put_str(w, S("message"), node->message);
        json_object_end(w);
    }
    if (!put_output(s, node, e) || !write_lanes(s, node, e))
        return false;
    if (node->undo) {
        json_key(w, S("undone_by"));
        if (!write_node(s, node->undo, e))
            return false;
    }
    json_object_end(w);
    return true;
}

static bool write_lane(struct showing *s, const struct workflow_lane *lane, struct error *e)
{
    json_array_begin(s->w);
    for (size_t i = 0; i < lane->count && s->shown < WORKFLOW_STEPS_SHOWN_MAX; i++)
        if (!write_node(s, lane->nodes[i], e))
            return false;
    json_array_end(s->w);
    return true;
}

static bool fold(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid run_id,
                 struct run_state *state, struct error *e)
{
    for (;;) {
        struct events events;
        arena_mark mark = arena_save(ctx->arena);
        if (!journal_read(o->parts.store, ctx, tenant_id, run_id, state->last_seq, STORE_PAGE_MAX,
                          &events, e))
            return false;
        for (size_t i = 0; i < events.count; i++)
            if (!run_state_apply(state, &events.items[i], e))
                return false;
        size_t count = events.count;
        arena_rewind(ctx->arena, mark);
        if (count < STORE_PAGE_MAX)
            return true;
    }
}

bool workflow_write_steps(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, uuid run_id, struct json_writer *w,
                          struct error *e)
{
    OWNED(arena) arena = arena_create(RUN_ARENA_BYTES_MAX);
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct run_state *state = ARENA_NEW(arena, struct run_state);
    run_state_init(state, arena);
    if (!run_get(o, ctx, principal, run_id, row, e))
        return false;
    if (!record_has(row, AGENT_RUNS_WORKFLOW))
        return error_set(e, REASON_CONFLICT, "the run is no workflow's: it has no steps");
    if (!fold(o, ctx, principal->tenant_id, run_id, state, e))
        return false;
    if (!state->workflow)
        return error_set(e, REASON_CORRUPT, "the run's journal names no workflow");
    struct showing s = {.o = o,
                        .ctx = ctx,
                        .tenant_id = principal->tenant_id,
                        .w = w,
                        .is_final = run_status_is_final(state->status)};
    json_object_begin(w);
    json_put_str(w, S("run_id"), uuid_str(ctx->arena, run_id));
    json_key(w, S("workflow"));
    json_object_begin(w);
    json_put_str(w, S("name"), state->workflow->name);
    json_put_str(w, S("version"), state->workflow->version);
    json_put_str(w, S("digest"), state->workflow->digest);
    json_object_end(w);
    json_put_str(w, S("status"), str_from_cstr(run_status_name(state->status)));
    json_put_bool(w, S("is_compensating"), state->workflow->is_undoing && !s.is_final);
    json_put_i64(w, S("last_seq"), state->last_seq);
    if (!str_is_empty(state->error)) {
        json_key(w, S("error"));
        json_object_begin(w);
        json_put_str(w, S("type"), state->error);
        json_put_str(w, S("message"), state->error_message);
        json_object_end(w);
    }
    json_key(w, S("steps"));
    if (!write_lane(&s, &state->workflow->root, e))
        return false;
    json_put_bool(w, S("is_cut"), s.shown >= WORKFLOW_STEPS_SHOWN_MAX);
    json_object_end(w);
    return true;
}
