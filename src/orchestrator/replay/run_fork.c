#include "orchestrator/replay/run_fork.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_internal.h"
#include <stdatomic.h>

/* ---- where a fork may begin ---- */

bool run_state_is_at_rest(const struct run_state *state)
{
    if (state->status == RUN_PENDING || run_status_is_final(state->status) || state->workflow ||
        state->model_in_flight || state->reservation_count > 0 || state->is_cancelling ||
        run_state_live_children(state) > 0)
        return false;
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state != CALL_DONE)
            return false;
    return true;
}

static const char *what_is_in_flight(const struct run_state *state)
{
    if (run_status_is_final(state->status))
        return "the run has ended there";
    if (state->model_in_flight)
        return "a model call is in flight";
    if (run_state_live_children(state) > 0)
        return "a child run is at work";
    if (state->is_cancelling)
        return "the run is being cancelled";
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state != CALL_DONE)
            return "a tool call of the last answer is not done";
    return "a reservation is open";
}

struct forking {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct fork_request *request;
    const struct settings *settings;
    struct record run, session, made; /* of the old one; made: the new session */
    struct run_state state;           /* at the fork */
    uuid last_message_id;
    const struct agent_definition *agent;
    const struct model *model;
    struct policy_decision decision;
    uuid run_id, message_id;
    int64_t epoch, now_us, seq;
    struct batch batch;
};

static void note_message(struct forking *f, const struct event *event)
{
    uuid id;
    bool has_message = event->type == EVENT_MESSAGE_ADDED || event->type == EVENT_MODEL_COMPLETED ||
                       event->type == EVENT_RUN_STARTED;
    if (has_message && uuid_parse(json_str_or(event->data, S("message_id"), STR_NONE), &id) &&
        memcmp(&id, &f->last_message_id, sizeof id) > 0)
        f->last_message_id = id;
}

/* Folds up to `at`; on the way, and behind it, looks for the place that is nearest. */
static bool fold_to(struct forking *f, struct error *e)
{
    struct run_state behind;
    int64_t nearest = 0, at = f->request->at;
    bool is_there = false;
    const char *why = "there is no such event";
    run_state_init(&behind, f->ctx->arena);
    for (bool is_over = false; !is_over;) {
        struct events events;
        if (!journal_read(f->o->parts.store, f->ctx, f->principal->tenant_id, f->request->run_id,
                          behind.last_seq, STORE_PAGE_MAX, &events, e))
            return false;
        is_over = events.count < STORE_PAGE_MAX;
        for (size_t i = 0; i < events.count; i++) {
            const struct event *event = &events.items[i];
            if (!run_state_apply(&behind, event, e))
                return false;
            int64_t seq = behind.last_seq, distance = seq < at ? at - seq : seq - at;
            bool is_rest = seq >= 3 && run_state_is_at_rest(&behind);
            if (seq <= at)
                note_message(f, event);
            if (seq == at) {
                is_there = is_rest;
                why = seq < 3 ? "the run has not begun there" : what_is_in_flight(&behind);
                f->state = behind;
            }
            if (is_rest &&
                (nearest == 0 || distance < (nearest < at ? at - nearest : nearest - at)))
                nearest = seq;
            if (is_there || (seq > at && nearest > 0 && distance >= at - nearest)) {
                is_over = true;
                break;
            }
        }
    }
    if (is_there)
        return true;
    if (nearest == 0)
        return error_set(e, REASON_CONFLICT, "the run cannot be forked anywhere yet: %s", why);
    return error_set(e, REASON_CONFLICT,
                     "the run cannot be forked at event %lld: %s; the nearest event where nothing "
                     "is in flight is %lld",
                     (long long) at, why, (long long) nearest);
}

/* ---- may it be? ---- */

static bool find_definition(struct forking *f, struct error *e)
{
    str name = str_is_empty(f->request->model) ? f->state.model : f->request->model;
    f->agent = agent_set_find(f->settings->agents, f->state.agent);
    if (!f->agent)
        return error_set(e, REASON_NOT_FOUND, "agent \"" STR_FMT "\" is not configured any more",
                         STR_ARG(f->state.agent));
    f->model = catalog_find(f->settings->catalog, name);
    if (!f->model)
        return catalog_error_unknown(f->settings->catalog, name, e);
    str agent = str_printf(f->ctx->arena, "agent:" STR_FMT, STR_ARG(f->agent->name));
    return principal_check_model(f->principal, agent, e) &&
           (str_is_empty(f->request->model) ||
            principal_check_model(f->principal, f->request->model, e));
}

static bool decide(struct forking *f, struct error *e)
{
    struct policy_input *input = ARENA_NEW(f->ctx->arena, struct policy_input);
    *input = (struct policy_input){
        .action = S("run.start"),
        .resource = f->agent->name,
        .user_id = f->principal->user_id,
        .role = f->principal->role,
        .tenant = uuid_str(f->ctx->arena, f->principal->tenant_id),
        .session_id = record_uuid(&f->session, SESSIONS_ID),
        .remaining = f->settings->session_budget, /* the fork's own account, which is new */
        .policy_context = record_text(&f->session, SESSIONS_POLICY_CONTEXT),
    };
    policy_decide(f->o->parts.policy, f->ctx, input, &f->decision);
    f->decision.remaining = input->remaining;
    return f->decision.verdict == POLICY_ALLOW ||
           error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a run of agent \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(f->agent->name), STR_ARG(f->decision.reason));
}

/* ---- the rows ---- */

static str id_text(struct forking *f, uuid id)
{
    return uuid_str(f->ctx->arena, id);
}

static void add_event(struct forking *f, enum event_type type, str data)
{
    struct record *row = batch_add(&f->batch, WRITE_INSERT, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, f->run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, ++f->seq);
    record_set_text(row, RUN_EVENTS_TYPE, str_from_cstr(event_type_name(type)));
    record_set_integer(row, RUN_EVENTS_VERSION, event_type_version(type));
    record_set_integer(row, RUN_EVENTS_AT, f->now_us);
    record_set_text(row, RUN_EVENTS_DATA, data);
}

static void add_forked(struct forking *f)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, f->ctx->arena, SSE_EVENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("from_run_id"), id_text(f, f->request->run_id));
    json_put_i64(&w, S("at"), f->request->at);
    json_put_str(&w, S("agent_version"), f->agent->version);
    json_put_str(&w, S("model"), f->model->name);
    json_put_str(&w, S("user_id"), f->principal->user_id);
    if (!uuid_is_none(f->message_id))
        json_put_str(&w, S("message_id"), id_text(f, f->message_id));
    json_put_i64(&w, S("epoch"), f->epoch);
    json_put_str(&w, S("node"), f->o->parts.node);
    json_object_end(&w);
    add_event(f, EVENT_RUN_FORKED, strbuf_str(&text));
}

static void add_message(struct forking *f)
{
    struct strbuf text;
    struct json_writer w;
    str content = f->request->message;
    struct record *row = batch_add(&f->batch, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(row, MESSAGES_ID, f->message_id);
    record_set_uuid(row, MESSAGES_SESSION_ID, record_uuid(&f->made, SESSIONS_ID));
    record_set_uuid(row, MESSAGES_RUN_ID, f->run_id);
    record_set_text(row, MESSAGES_ROLE, S("user"));
    record_set_text(row, MESSAGES_CONTENT, content);
    record_set_integer(row, MESSAGES_TOKENS, (int64_t) (content.len + 3) / 4);
    record_set_integer(row, MESSAGES_CREATED_AT, f->now_us);
    strbuf_init(&text, f->ctx->arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("message_id"), id_text(f, f->message_id));
    json_put_str(&w, S("role"), S("user"));
    json_key(&w, S("label"));
    label_write_json(&w, (struct label){.origins = LABEL_USER});
    json_object_end(&w);
    add_event(f, EVENT_MESSAGE_ADDED, strbuf_str(&text));
}

static void add_decision(struct forking *f)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, f->ctx->arena, SSE_EVENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("action"), S("run.start"));
    json_put_str(&w, S("resource"), f->agent->name);
    json_put_str(&w, S("verdict"), S("allow"));
    json_put_str(&w, S("reason"), f->decision.reason);
    json_put_str(&w, S("rule"), f->decision.rule);
    json_put_str(&w, S("version"), f->decision.version);
    json_key(&w, S("remaining"));
    cost_write_json(&w, f->decision.remaining);
    json_object_end(&w);
    add_event(f, EVENT_POLICY_DECIDED, strbuf_str(&text));
}

static enum priority priority_of(const struct forking *f)
{
    return principal_priority(f->principal, f->agent->priority,
                              priority_said(record_text(&f->session, SESSIONS_PRIORITY)));
}

static void add_run(struct forking *f)
{
    struct record *row = batch_add(&f->batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, f->run_id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, record_uuid(&f->made, SESSIONS_ID));
    record_set_text(row, AGENT_RUNS_STATUS, S("running"));
    record_set_integer(row, AGENT_RUNS_STARTED_AT, f->now_us);
    record_set_text(row, AGENT_RUNS_COST,
                    S("{\"tokens\":0,\"time_ms\":0,\"cost_nanousd\":\"0\",\"tool_calls\":0}"));
    record_set_text(row, AGENT_RUNS_TRACE_ID,
                    str_hex(f->ctx->arena, f->ctx->trace.trace_id, sizeof f->ctx->trace.trace_id));
    record_set_text(row, AGENT_RUNS_AGENT, f->agent->name);
    record_set_text(row, AGENT_RUNS_MODEL, f->model->name);
    record_set_text(row, AGENT_RUNS_USER_ID, f->principal->user_id);
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, f->seq);
    record_set_uuid(row, AGENT_RUNS_FORKED_FROM, f->request->run_id);
    record_set_integer(row, AGENT_RUNS_FORKED_AT, f->request->at);
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, f->ctx->arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("role"), f->principal->role);
    json_put_str(&w, S("caller_id"), f->principal->caller_id);
    json_put_str(&w, S("priority"), str_from_cstr(priority_name(priority_of(f))));
    if (f->principal->has_key_budget)
        json_put_str(&w, S("key_id"), id_text(f, f->principal->key_id));
    json_object_end(&w);
    record_set_text(row, AGENT_RUNS_METADATA, strbuf_str(&text));
}

static void take_session(struct forking *f)
{
    struct record *row = batch_add(&f->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, record_uuid(&f->made, SESSIONS_ID));
    record_set_uuid(row, SESSIONS_LIVE_RUN_ID, f->run_id);
    record_set_uuid(row, SESSIONS_FORKED_FROM, record_uuid(&f->session, SESSIONS_ID));
    record_set_uuid(row, SESSIONS_FORKED_AT, f->last_message_id);
    record_set_integer(row, SESSIONS_UPDATED_AT, f->now_us);
    batch_where_null(&f->batch, SESSIONS_LIVE_RUN_ID);
}

/* It fails where retention has removed the run meanwhile, and makes retention look again at what it has not (retention.h). */
static void hold_origin(struct forking *f)
{
    struct record *row = batch_add(&f->batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, f->request->run_id);
    batch_where_null(&f->batch, AGENT_RUNS_REMOVED_AT);
    row = batch_add(&f->batch, WRITE_ADD, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, record_uuid(&f->session, SESSIONS_ID));
    record_set_integer(row, SESSIONS_FORKS, 1);
}

static bool commit(struct forking *f, struct error *e)
{
    const struct orchestrator_parts *parts = &f->o->parts;
    uuid session_id = record_uuid(&f->made, SESSIONS_ID);
    if (!store_claim(parts->store, f->ctx, f->principal->tenant_id, session_id, parts->node,
                     &f->epoch, e))
        return false;
    struct fence fence = {session_id, parts->node, f->epoch};
    batch_init(&f->batch, f->ctx->arena, f->principal->tenant_id);
    f->batch.fence = &fence;
    f->batch.fault = "run_fork";
    f->now_us = clock_unix_us(parts->clock);
    f->run_id = uuid_new(parts->clock, parts->random);
    f->seq = f->request->at;
    if (!str_is_empty(f->request->message))
        f->message_id = uuid_new(parts->clock, parts->random);
    take_session(f);
    hold_origin(f);
    add_forked(f);
    if (!uuid_is_none(f->message_id))
        add_message(f);
    add_decision(f);
    add_run(f);
    audit_add(&f->batch, parts->clock, parts->random, f->principal,
              &(struct audit_entry){
                  .action = S("run.fork"),
                  .resource_type = S("run"),
                  .resource_id = id_text(f, f->run_id),
                  .details = str_printf(f->ctx->arena, "{\"from\":\"" STR_FMT "\",\"at\":%lld}",
                                        STR_ARG(id_text(f, f->request->run_id)),
                                        (long long) f->request->at),
              });
    return store_commit(parts->store, f->ctx, &f->batch, e);
}

static bool make_session(struct forking *f, struct error *e)
{
    struct session_request request = {
        .agent = f->agent->name,
        .budget = COST_LIMITLESS,
        .policy_context = record_text(&f->session, SESSIONS_POLICY_CONTEXT),
    };
    return session_create(f->o, f->ctx, f->principal, &request, &f->made, e);
}

static bool admit(const struct forking *f, struct error *e)
{
    return overload_admits(f->o->overload, priority_of(f), e) &&
           admission_check(f->o->admission, f->principal->tenant_id, priority_of(f), e);
}

/* Whatever failed because the run was removed on the way is told as that. */
static bool blame_removal(struct forking *f, struct error *e)
{
    struct error gone = {0};
    if (e->reason != REASON_OUTCOME_UNKNOWN &&
        !run_get(f->o, f->ctx, f->principal, f->request->run_id, &f->run, &gone) &&
        gone.code == ERROR_NOT_FOUND)
        *e = gone;
    return false;
}

static bool fork_it(struct forking *f, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS);
    if (!run_get(f->o, f->ctx, f->principal, f->request->run_id, &f->run, e))
        return false;
    if (record_has(&f->run, AGENT_RUNS_WORKFLOW))
        return error_set(e, REASON_UNSUPPORTED,
                         "an instance of a workflow cannot be forked: the keys of its effects and "
                         "the runs that it started are its own; start it again with another input, "
                         "or fork one of the runs that it started");
    record_set_uuid(&key, SESSIONS_ID, record_uuid(&f->run, AGENT_RUNS_SESSION_ID));
    if (!store_get(f->o->parts.store, f->ctx, f->principal->tenant_id, &key, &f->session, e))
        return error_wrap(e, "the run's session");
    return (fold_to(f, e) && find_definition(f, e) && admit(f, e) && decide(f, e) &&
            make_session(f, e) && commit(f, e)) ||
           blame_removal(f, e);
}

bool run_fork(struct orchestrator *o, struct context *ctx, const struct principal *principal,
              const struct fork_request *request, struct forked_run *out, struct error *e)
{
    if (atomic_load(&o->is_draining))
        return error_set(e, REASON_DRAINING, "this node is shutting down; try again");
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not start runs");
    if (request->message.len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the message is over %u bytes", MESSAGE_BYTES_MAX);
    struct forking *f = ARENA_NEW(ctx->arena, struct forking);
    f->o = o;
    f->ctx = ctx;
    f->principal = principal;
    f->request = request;
    f->settings = orchestrator_acquire(o);
    bool ok = fork_it(f, e);
    bool may_be_stored = ok || (!uuid_is_none(f->run_id) && e->reason == REASON_OUTCOME_UNKNOWN);
    if (may_be_stored) /* without our knowing, perhaps: then it must live all the same */
        run_spawn_as(o, &(struct run_turn){.tenant_id = principal->tenant_id,
                                           .session_id = record_uuid(&f->made, SESSIONS_ID),
                                           .run_id = f->run_id,
                                           .user_id = principal->user_id,
                                           .priority = priority_of(f)});
    orchestrator_release(f->settings);
    if (ok)
        *out = (struct forked_run){f->run_id, record_uuid(&f->made, SESSIONS_ID)};
    return ok;
}

/* ---- the conversation before ---- */

/* The next id: what is less than it is at most this one. */
static uuid after(uuid id)
{
    for (size_t i = sizeof id.bytes; i > 0 && ++id.bytes[i - 1] == 0; i--)
        continue;
    return id;
}

bool fork_walk_next(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                    struct fork_walk *walk, struct query *query, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS), *row = ARENA_NEW(ctx->arena, struct record);
    record_set_uuid(&key, SESSIONS_ID, walk->session_id);
    if (!store_get(o->parts.store, ctx, tenant_id, &key, row, e) ||
        !record_has(row, SESSIONS_FORKED_FROM))
        return false;
    if (++walk->depth > RUN_FORK_DEPTH_MAX)
        return error_set(e, REASON_CORRUPT, "more than %d sessions stand behind this fork",
                         RUN_FORK_DEPTH_MAX);
    walk->session_id = record_uuid(row, SESSIONS_FORKED_FROM);
    *query = query_of(TABLE_MESSAGES);
    query_where_uuid(query, MESSAGES_SESSION_ID, walk->session_id);
    query->filters[query->filter_count++] =
        (struct filter){.column = MESSAGES_ID,
                        .op = FILTER_LESS,
                        .value = {.id = after(record_uuid(row, SESSIONS_FORKED_AT))}};
    query->is_descending = true;
    return true;
}
