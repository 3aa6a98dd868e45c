#include "orchestrator/run/run_child.h"
#include "base/arena.h"
#include "base/fault.h"
#include "base/limits.h"

static const str bare_prefix = S_INIT("model:");

/* ---- beginning one ---- */

struct adding {
    struct run *parent;
    const struct child_request *request;
    const struct agent_definition *agent; /* NULL: a bare model or a workflow */
    const struct model *model;            /* NULL: a workflow */
    struct agent_workflow workflow;       /* of the agent */
    str name;                             /* of the agent, as the rows tell it */
    struct policy_decision decision;
    uuid run_id, session_id;
    cost budget;
};

static uuid child_id(const struct run *parent, str place)
{
    return uuid_derive(parent->run_id, place);
}

uuid run_child_session(uuid child_run_id)
{
    return uuid_derive(child_run_id, S("session"));
}

bool run_child_find_range(struct run *parent, str place, str *range, struct error *e)
{
    const struct run_oracle *oracle = parent->o->oracle;
    return !oracle || oracle->child(oracle->owner, child_id(parent, place), range, e);
}

static size_t children_max(const struct run *parent)
{
    return parent->workflow ? RUN_CHILDREN_MAX : RUN_AGENT_CHILDREN_MAX;
}

static bool check_room(const struct run *parent, struct error *e)
{
    if (parent->depth >= RUN_CHILD_DEPTH_MAX)
        return error_set(e, REASON_LIMIT,
                         "runs may start runs %d deep at most, and this one is the last; do it "
                         "without another agent",
                         RUN_CHILD_DEPTH_MAX);
    size_t max = children_max(parent);
    if (parent->state.children_begun >= max)
        return error_set(e, REASON_LIMIT, "this run may start at most %zu runs", max);
    if (parent->state.child_count >= RUN_CHILDREN_LIVE_MAX)
        return error_set(e, REASON_LIMIT, "a run may have at most %d runs at work at once",
                         RUN_CHILDREN_LIVE_MAX);
    return true;
}

static bool find_names(struct adding *a, struct error *e)
{
    struct run *parent = a->parent;
    const struct settings *settings = parent->settings;
    str model = a->request->model;
    if (!str_is_empty(a->request->workflow.name)) {
        a->name = str_printf(parent->turn, "workflow:" STR_FMT, STR_ARG(a->request->workflow.name));
        return true;
    }
    if (!str_is_empty(a->request->agent)) {
        a->agent = agent_set_find(settings->agents, a->request->agent);
        if (!a->agent)
            return error_set(e, REASON_NOT_FOUND, "there is no agent \"" STR_FMT "\"",
                             STR_ARG(a->request->agent));
        a->name = a->agent->name;
        model = str_is_empty(model) ? a->agent->model : model;
    }
    a->model = str_is_empty(model) ? catalog_default(settings->catalog)
                                   : catalog_find(settings->catalog, model);
    if (!a->model)
        return catalog_error_unknown(settings->catalog, model, e);
    if (!a->agent)
        a->name = str_printf(parent->turn, STR_FMT STR_FMT, STR_ARG(bare_prefix),
                             STR_ARG(a->model->name));
    return true;
}

static bool find_workflow(struct adding *a, struct error *e)
{
    struct run *parent = a->parent;
    return !a->agent || agent_workflow_find(parent->o, &parent->shield, parent->tenant_id, a->agent,
                                            a->request->content, &a->workflow, e);
}

static bool decide(struct adding *a, struct error *e)
{
    struct run *parent = a->parent;
    struct policy_input input = {.action = S("run.start"), .resource = a->name};
    run_decide(parent, &parent->shield, &input, &a->decision);
    if (a->decision.verdict == POLICY_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a run of agent \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(a->name), STR_ARG(a->decision.reason));
}

/* Its ceiling is never more than what is left; with nothing left there is nothing to begin with. */
static bool find_budget(struct adding *a, struct error *e)
{
    cost remaining = run_remaining(a->parent);
    if (remaining.tokens <= 0 || remaining.time_ms <= 0 || remaining.cost_nanousd <= 0)
        return error_set(e, REASON_BUDGET,
                         "nothing is left of the budget for a run of \"" STR_FMT "\"",
                         STR_ARG(a->name));
    cost wanted = a->agent ? cost_min(a->request->budget, a->workflow.budget) : a->request->budget;
    a->budget = cost_equal(wanted, COST_LIMITLESS) ? COST_LIMITLESS : cost_min(wanted, remaining);
    if (a->parent->o->oracle) /* it may be a share of what was left when several were asked for */
        a->budget = remaining;
    return true;
}

static void add_session(struct adding *a)
{
    struct run *parent = a->parent;
    int64_t now_us = clock_unix_us(parent->o->parts.clock);
    struct record *row = journal_row(&parent->journal, WRITE_INSERT, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, a->session_id);
    record_set_text(row, SESSIONS_USER_ID, parent->principal.user_id);
    record_set_text(row, SESSIONS_REQUESTED_BY, parent->principal.caller_id);
    record_set_text(row, SESSIONS_ROLE, parent->principal.role);
    record_set_integer(row, SESSIONS_CREATED_AT, now_us);
    record_set_integer(row, SESSIONS_UPDATED_AT, now_us);
    record_set_text(row, SESSIONS_STATUS, S("active"));
    record_set_text(row, SESSIONS_BUDGET, parent->root_budget);
    if (!str_is_empty(parent->policy_context))
        record_set_text(row, SESSIONS_POLICY_CONTEXT, parent->policy_context);
    record_set_text(row, SESSIONS_AGENT, a->name);
    record_set_text(row, SESSIONS_OWNER_NODE, parent->o->parts.node);
    record_set_integer(row, SESSIONS_OWNER_EPOCH, 1);
    record_set_uuid(row, SESSIONS_PARENT_RUN_ID, parent->run_id);
    record_set_uuid(row, SESSIONS_ROOT_SESSION_ID, parent->root_session_id);
}

/* What a bare model is told beforehand is its one message of history. */
static void set_history(struct adding *a, struct run_beginning *beginning)
{
    const struct child_request *request = a->request;
    beginning->history = request->history;
    beginning->history_labels = request->history_labels;
    beginning->history_count = request->history_count;
    if (str_is_empty(request->system))
        return;
    struct arena *arena = a->parent->turn;
    struct prompt_message *history =
        ARENA_ARRAY(arena, struct prompt_message, request->history_count + 1);
    struct part *part = ARENA_NEW(arena, struct part);
    *part = (struct part){.kind = PART_TEXT, .text = request->system};
    history[0] = (struct prompt_message){.role = ROLE_SYSTEM, .parts = part, .part_count = 1};
    for (size_t i = 0; i < request->history_count; i++)
        history[i + 1] = request->history[i];
    beginning->history = history;
    beginning->history_labels = NULL;
    beginning->history_count++;
}

static void add_run(struct adding *a)
{
    struct run *parent = a->parent;
    const struct child_request *request = a->request;
    struct run_beginning *beginning = ARENA_NEW(parent->turn, struct run_beginning);
    uuid message_id;
    *beginning = (struct run_beginning){
        .run_id = a->run_id,
        .session_id = a->session_id,
        .principal = &parent->principal,
        .user_id = parent->principal.user_id,
        .role = parent->principal.role,
        .agent = a->name,
        .agent_version = a->agent ? a->agent->version : request->workflow.version,
        .model = a->model ? a->model->name : STR_NONE,
        .workflow = a->workflow.entry ? a->workflow.pinned : request->workflow,
        .content = request->content,
        .parts = request->parts,
        .label = request->label,
        .response_format = request->response_format,
        .max_output_tokens = request->max_output_tokens,
        .parent_run_id = parent->run_id,
        .priority = 1 + (int) principal_priority(&parent->principal,
                                                 a->agent ? a->agent->priority : PRIORITY_UNSAID,
                                                 PRIORITY_UNSAID),
        .depth = parent->depth + 1,
        .budget = a->budget,
        .epoch = 1,
        .now_us = clock_unix_us(parent->o->parts.clock),
        .decision = &a->decision,
        .trace = parent->trace,
    };
    set_history(a, beginning);
    journal_close_event(&parent->journal);
    agent_workflow_pin(parent->o, parent->turn, &parent->journal.batch, &a->workflow);
    run_begin_write(parent->o, parent->turn, &parent->journal.batch, beginning, &message_id);
}

static const char *purpose_name(enum child_purpose purpose)
{
    switch (purpose) {
    case CHILD_TOOL: return "tool";
    case CHILD_HANDOFF: return "handoff";
    case CHILD_STEP: break;
    }
    return "step";
}

static void journal_begun(struct adding *a)
{
    struct run *parent = a->parent;
    struct json_writer *w = journal_event(&parent->journal, EVENT_RUN_CHILD_STARTED);
    json_put_str(w, S("child_run_id"), uuid_str(parent->turn, a->run_id));
    json_put_str(w, S("session_id"), uuid_str(parent->turn, a->session_id));
    json_put_str(w, S("agent"), a->name);
    json_put_str(w, S("purpose"), str_from_cstr(purpose_name(a->request->purpose)));
    json_put_str(w, a->request->purpose == CHILD_STEP ? S("step") : S("tool_call_id"),
                 a->request->place);
    if (!cost_equal(a->budget, COST_LIMITLESS)) {
        json_key(w, S("budget"));
        cost_write_json(w, a->budget);
    }
    journal_close_event(&parent->journal);
}

bool run_child_add(struct run *parent, const struct child_request *request, uuid *child_run_id,
                   struct error *e)
{
    struct adding *a = ARENA_NEW(parent->turn, struct adding);
    *a = (struct adding){.parent = parent, .request = request};
    a->workflow.budget = COST_LIMITLESS;
    a->run_id = child_id(parent, request->place);
    a->session_id = run_child_session(a->run_id);
    bool may_begin = check_room(parent, e) && find_names(a, e) && find_workflow(a, e) &&
                     find_budget(a, e) && decide(a, e);
    if (may_begin) {
        add_session(a);
        add_run(a);
    }
    agent_workflow_release(&a->workflow);
    if (!may_begin)
        return false;
    journal_begun(a);
    *child_run_id = a->run_id;
    return true;
}

void run_child_spawn(struct run *parent, uuid child_run_id)
{
    run_spawn_as(parent->o, &(struct run_turn){
                                .tenant_id = parent->tenant_id,
                                .session_id = run_child_session(child_run_id),
                                .run_id = child_run_id,
                                .priority = principal_priority(&parent->principal, PRIORITY_UNSAID,
                                                               PRIORITY_UNSAID),
                            });
}

void run_children_spawn(struct run *parent)
{
    for (size_t i = 0; i < parent->state.child_count; i++)
        run_child_spawn(parent, parent->state.children[i]->run_id);
    parent->has_lost_sight = false;
}

/* ---- looking at one ---- */

bool cost_read_text(struct arena *arena, str json, cost *out)
{
    const struct json *tree;
    struct error e;
    return json_parse(arena, json, (struct json_limits){0}, &tree, &e) && cost_read_json(tree, out);
}

static bool find_row(struct run *parent, uuid run_id, struct record *row, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS);
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    return store_get(parent->o->parts.store, &parent->shield, parent->tenant_id, &key, row, e) ||
           error_wrap(e, "child run");
}

static bool read_answer(struct run *parent, uuid child_run_id, const struct record *row,
                        struct child_outcome *out, struct error *e)
{
    struct events events;
    struct store *store = parent->o->parts.store;
    int64_t last = record_integer(row, AGENT_RUNS_LAST_SEQ);
    if (!journal_read(store, &parent->shield, parent->tenant_id, child_run_id, last - 1, 1, &events,
                      e))
        return false;
    if (events.count == 0 || events.items[0].type != EVENT_RUN_COMPLETED ||
        !uuid_parse(json_str_or(events.items[0].data, S("message_id"), STR_NONE), &out->message_id))
        return error_set(e, REASON_CORRUPT, "the child run's journal does not tell its answer");
    struct record key = record_of(TABLE_MESSAGES);
    struct record *message = ARENA_NEW(parent->turn, struct record);
    record_set_uuid(&key, MESSAGES_ID, out->message_id);
    if (!store_get(store, &parent->shield, parent->tenant_id, &key, message, e))
        return error_wrap(e, "answer of the child run");
    const struct json *metadata = NULL;
    struct error unreadable;
    out->text = record_text(message, MESSAGES_CONTENT);
    bool is_labelled = record_has(message, MESSAGES_METADATA) &&
                       json_parse(parent->turn, record_text(message, MESSAGES_METADATA),
                                  (struct json_limits){0}, &metadata, &unreadable);
    struct label label =
        is_labelled ? label_read_json(json_get(metadata, S("label"))) : label_unknown(LABEL_AGENT);
    out->label = label_join(label, (struct label){.origins = LABEL_AGENT});
    return true;
}

static void read_failure(const struct record *row, struct child_outcome *out)
{
    enum error_reason reason = REASON_TOOL_FAILED;
    str message = record_text(row, AGENT_RUNS_ERROR_MESSAGE);
    out->label = (struct label){.origins = LABEL_AGENT};
    if (out->status == RUN_CANCELLED) {
        error_set(&out->failure, REASON_CANCELLED, "its run was cancelled");
        return;
    }
    (void) error_reason_find(record_text(row, AGENT_RUNS_ERROR), &reason);
    error_set(&out->failure, reason, STR_FMT, STR_ARG(message));
}

bool run_child_look(struct run *parent, uuid child_run_id, struct child_outcome *out,
                    struct error *e)
{
    struct record *row = ARENA_NEW(parent->turn, struct record);
    struct child_outcome outcome = {0};
    if (!find_row(parent, child_run_id, row, e))
        return false;
    if (!run_status_parse(record_text(row, AGENT_RUNS_STATUS), &outcome.status))
        return error_set(e, REASON_CORRUPT, "child run with an unknown status");
    outcome.is_final = run_status_is_final(outcome.status);
    if (outcome.is_final) {
        outcome.took_ms = (record_integer(row, AGENT_RUNS_COMPLETED_AT) -
                           record_integer(row, AGENT_RUNS_STARTED_AT)) /
                          1000;
        if (!cost_read_text(parent->turn, record_text(row, AGENT_RUNS_COST), &outcome.spent))
            outcome.spent = (cost){0};
        if (outcome.status != RUN_COMPLETED)
            read_failure(row, &outcome);
        else if (!read_answer(parent, child_run_id, row, &outcome, e))
            return false;
    }
    *out = outcome;
    return true;
}

void run_child_journal_end(struct run *parent, uuid child_run_id,
                           const struct child_outcome *outcome)
{
    struct json_writer *w = journal_event(&parent->journal, EVENT_RUN_CHILD_COMPLETED);
    json_put_str(w, S("child_run_id"), uuid_str(parent->turn, child_run_id));
    json_put_str(w, S("status"), str_from_cstr(run_status_name(outcome->status)));
    if (outcome->status == RUN_COMPLETED)
        json_put_str(w, S("message_id"), uuid_str(parent->turn, outcome->message_id));
    json_key(w, S("cost"));
    cost_write_json(w, outcome->spent);
    if (outcome->failure.code != ERROR_OK) {
        json_put_str(w, S("error"), str_from_cstr(error_problem(outcome->failure.reason)));
        json_put_str(w, S("message"), str_from_cstr(outcome->failure.message));
    }
    journal_close_event(&parent->journal);
}

/* ---- ending all ---- */

static bool cancel_child(struct run *parent, uuid child_run_id, struct error *e)
{
    struct child_outcome *outcome = ARENA_NEW(parent->turn, struct child_outcome);
    if (!run_child_look(parent, child_run_id, outcome, e))
        return false;
    if (outcome->is_final)
        run_child_journal_end(parent, child_run_id, outcome);
    else
        run_spawn_cancelled(
            parent->o, parent->tenant_id, run_child_session(child_run_id), child_run_id,
            parent->state.is_cancelling ? parent->state.cancelled_by : RUN_CANCELLED_BY_PARENT);
    return true;
}

bool run_children_cancel(struct run *parent, bool *are_ended, struct error *e)
{
    size_t count = parent->state.child_count; /* each that has ended meanwhile leaves the list */
    uuid *ids = ARENA_ARRAY(parent->turn, uuid, count);
    for (size_t i = 0; i < count; i++)
        ids[i] = parent->state.children[i]->run_id;
    for (size_t i = 0; i < count; i++)
        if (!cancel_child(parent, ids[i], e))
            return false;
    *are_ended =
        run_state_live_children(&parent->state) == 0 ||
        FAULT("plant.orphan-child"); /* a bug put in on purpose: it does not wait for them */
    return true;
}

/* Children that begin in the commit that is being made are in no store yet: nobody could look at them. */
static bool has_unstored_child(const struct run *parent)
{
    for (size_t i = 0; i < parent->journal.batch.count; i++)
        if (parent->journal.batch.writes[i].op == WRITE_INSERT &&
            parent->journal.batch.writes[i].record.table == TABLE_AGENT_RUNS)
            return true;
    return false;
}

bool run_children_end(struct run *parent, struct error *e)
{
    if (has_unstored_child(parent) && !run_flush(parent, "children_begun", e))
        return false;
    for (;;) {
        bool are_ended;
        struct error woken;
        arena_mark mark = arena_save(parent->turn);
        size_t written = parent->journal.batch.count;
        parent->is_woken = false;
        if (!run_children_cancel(parent, &are_ended, e))
            return false;
        if (parent->journal.batch.count == written) /* nothing was told: it may take long */
            arena_rewind(parent->turn, mark);
        if (are_ended)
            return true;
        if (parent->is_draining)
            return error_set(e, REASON_CANCELLED, "the node stops before the child runs have");
        int64_t look_again_ns = context_deadline_in(&parent->shield, RUN_CHILD_LOOK_MS);
        if (!parent->is_woken)
            (void) !condition_wait_until(&parent->woken, &parent->shield, look_again_ns, &woken);
    }
}

/* ---- of a child itself ---- */

static bool load_root(struct run *run, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS);
    struct record *root = ARENA_NEW(run->turn, struct record);
    run->root_session_id = run->session_id;
    run->root_budget = record_text(&run->session, SESSIONS_BUDGET);
    if (!record_has(&run->session, SESSIONS_ROOT_SESSION_ID))
        return true;
    run->root_session_id = record_uuid(&run->session, SESSIONS_ROOT_SESSION_ID);
    record_set_uuid(&key, SESSIONS_ID, run->root_session_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, root, e))
        return error_wrap(e, "session that the run belongs to");
    run->root_budget = record_text(root, SESSIONS_BUDGET);
    return true;
}

static bool read_ceiling(struct run *run, const struct record *row, cost *out, struct error *e)
{
    *out = COST_LIMITLESS;
    return !record_has(row, AGENT_RUNS_BUDGET) ||
           cost_read_text(run->turn, record_text(row, AGENT_RUNS_BUDGET), out) ||
           error_set(e, REASON_CORRUPT, "the budget of a run is unreadable");
}

bool run_ancestors_load(struct run *run, const struct record *row, struct error *e)
{
    struct record *above = ARENA_NEW(run->turn, struct record);
    *above = *row;
    run->depth = 0;
    if (!load_root(run, e) || !read_ceiling(run, row, &run->ceiling, e))
        return false;
    while (record_has(above, AGENT_RUNS_PARENT_RUN_ID)) {
        if (run->depth == RUN_CHILD_DEPTH_MAX)
            return error_set(e, REASON_CORRUPT, "the run has more than %d runs above it",
                             RUN_CHILD_DEPTH_MAX);
        struct run_ancestor *ancestor = &run->ancestors[run->depth];
        ancestor->run_id = record_uuid(above, AGENT_RUNS_PARENT_RUN_ID);
        if (!find_row(run, ancestor->run_id, above, e) ||
            !read_ceiling(run, above, &ancestor->budget, e))
            return false;
        ancestor->session_id = record_uuid(above, AGENT_RUNS_SESSION_ID);
        ancestor->priority = run_row_priority(above);
        run->depth++;
    }
    return true;
}

void run_parent_wake(struct run *run)
{
    if (run->depth > 0)
        run_spawn_as(run->o, &(struct run_turn){.tenant_id = run->tenant_id,
                                                .session_id = run->ancestors[0].session_id,
                                                .run_id = run->ancestors[0].run_id,
                                                .priority = run->ancestors[0].priority});
}

bool run_row_is_bare(const struct record *run)
{
    return str_starts_with(record_text(run, AGENT_RUNS_AGENT), bare_prefix);
}

const struct agent_definition *run_bare_agent(struct run *run)
{
    if (!str_starts_with(run->state.agent, bare_prefix))
        return NULL;
    struct agent_definition *bare = ARENA_NEW(run->arena, struct agent_definition);
    *bare = (struct agent_definition){
        .name = run->state.agent,
        .version = S("1.0.0"),
        .model = run->state.model,
        .steps_max = 1,
        .run_timeout_ms = 10 * 60 * 1000,
        .max_output_tokens = run->state.max_output_tokens,
    };
    return bare;
}
