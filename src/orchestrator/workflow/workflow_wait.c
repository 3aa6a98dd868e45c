/* Steps that somebody else ends: approvals, signals, child runs. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/webhook/webhook_tell.h"
#include "orchestrator/workflow_internal.h"

static str id_text(struct workflow_instance *w, uuid id)
{
    return uuid_str(w->run->turn, id);
}

/* ---- approvals ---- */

static bool seal_subject(struct workflow_instance *w, const struct step *step, str path,
                         int attempt, const struct json *title, const struct json *show,
                         struct approval_request *request, struct error *e)
{
    struct run *run = w->run;
    struct strbuf text;
    struct json_writer out;
    str title_text;
    strbuf_init(&text, run->turn, WORKFLOW_OUTPUT_BYTES_MAX);
    json_writer_init(&out, &text);
    json_object_begin(&out);
    json_put_str(&out, S("tenant"), id_text(w, run->tenant_id));
    json_put_str(&out, S("run"), id_text(w, run->run_id));
    json_put_str(&out, S("workflow"), w->state->name);
    json_put_str(&out, S("version"), w->state->version);
    json_put_str(&out, S("step"), path);
    json_put_i64(&out, S("attempt"), attempt);
    json_put_str(&out, S("title"),
                 json_to_str(title, &title_text) ? title_text
                 : title                         ? json_print(run->turn, title)
                                                 : step->id);
    if (show)
        json_put_value(&out, S("show"), show);
    json_object_end(&out);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "what the approval shows is over %u bytes",
                         WORKFLOW_OUTPUT_BYTES_MAX);
    return approval_seal(run->turn, strbuf_str(&text), &request->subject, &request->digest, e);
}

static struct approval_rule rule_of(struct workflow_instance *w, const struct step *step)
{
    return (struct approval_rule){
        .quorum = step->approval.quorum,
        .approvers =
            str_is_empty(step->approval.approvers)
                ? STR_NONE
                : str_printf(w->run->turn, "[" STR_FMT "]", STR_ARG(step->approval.approvers)),
        .expires_ms = step->approval.expires_ms,
        .remind_ms = step->approval.remind_ms,
    };
}

bool workflow_approval_begin(struct workflow_instance *w, struct workflow_lane *lane,
                             const struct step *step, str path, int attempt, struct error *e)
{
    struct run *run = w->run;
    const struct json *title = NULL, *show = NULL;
    str place = workflow_attempt_place(run->turn, path, attempt);
    struct approval_request *request = ARENA_NEW(run->turn, struct approval_request);
    *request = (struct approval_request){
        .id = uuid_derive(run->run_id, place),
        .run_id = run->run_id,
        .session_id = run->session_id,
        .action = S("workflow.step"),
        .requested_by = run->principal.caller_id,
        .user_id = run->principal.user_id,
        .rule = rule_of(w, step),
    };
    if ((step->approval.title && !workflow_fill(w, lane, step->approval.title, NULL, &title, e)) ||
        (step->input && !workflow_fill(w, lane, step->input, NULL, &show, e)) ||
        !seal_subject(w, step, path, attempt, title, show, request, e))
        return false;
    struct json_writer *out = workflow_started(w, STEP_APPROVAL, path, attempt, step->timeout_ms);
    json_put_str(out, S("approval_id"), id_text(w, request->id));
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_APPROVALS);
    int64_t expires_us = approval_write(run->settings, workflow_now_us(w), row, request);
    approval_note_expiry(run->o, expires_us);
    out = journal_event(&run->journal, EVENT_APPROVAL_REQUESTED);
    json_put_str(out, S("approval_id"), id_text(w, request->id));
    json_put_str(out, S("step"), path);
    json_put_str(out, S("digest"), request->digest);
    json_put_i64(out, S("expires_at"), expires_us);
    webhook_tell_approval(run, request, expires_us, STR_NONE);
    journal_close_event(&run->journal);
    return true;
}

static const char *outcome_name(enum approval_status status)
{
    return status == APPROVAL_APPROVED ? "approved"
           : status == APPROVAL_DENIED ? "denied"
                                       : "expired";
}

static void approval_ended(struct workflow_instance *w, struct workflow_node *node,
                           const struct approval_outcome *given)
{
    struct run *run = w->run;
    struct error why = {0};
    struct json_writer *out = workflow_event(w, EVENT_APPROVAL_DECIDED, node);
    json_put_str(out, S("approval_id"), id_text(w, node->approval_id));
    json_put_str(out, S("decision"), str_from_cstr(outcome_name(given->status)));
    if (!str_is_empty(given->approver))
        json_put_str(out, S("approver"), given->approver);
    journal_close_event(&run->journal);
    if (given->status == APPROVAL_APPROVED) {
        struct strbuf text;
        struct json_writer value;
        run_approval_consume(run, node->approval_id);
        strbuf_init(&text, run->turn, 64 << 10);
        json_writer_init(&value, &text);
        json_object_begin(&value);
        json_put_bool(&value, S("approved"), true);
        json_put_str(&value, S("approver"), given->approver);
        json_put_str(&value, S("reason"), given->reason);
        json_object_end(&value);
        workflow_node_completed(w, node, strbuf_str(&text));
        return;
    }
    if (given->status == APPROVAL_DENIED)
        error_set(&why, REASON_DENIED, "denied by " STR_FMT "%s" STR_FMT, STR_ARG(given->approver),
                  str_is_empty(given->reason) ? "" : ": ", STR_ARG(given->reason));
    else
        error_set(&why, REASON_TIMEOUT, "the approval expired before it was decided");
    workflow_attempt_failed(w, node, &why, true);
}

static bool look_at_approval(struct workflow_instance *w, struct workflow_node *node,
                             struct error *e)
{
    struct approval_outcome given;
    if (!run_approval_look(w->run, node->approval_id, &given, e))
        return false;
    if (given.status != APPROVAL_PENDING && given.status != APPROVAL_CONSUMED)
        approval_ended(w, node, &given);
    return true;
}

/* ---- child runs ---- */

static bool fill_prompt(struct workflow_instance *w, struct workflow_lane *lane,
                        const struct step *step, struct workflow_evaluation *evaluation, str *out,
                        struct error *e)
{
    const struct json *tree = NULL;
    if (step->input && !workflow_fill(w, lane, step->input, evaluation, &tree, e))
        return error_wrap(e, step->kind == STEP_WORKFLOW ? "input" : "prompt");
    if (step->kind == STEP_WORKFLOW || !json_to_str(tree, out))
        *out = tree ? json_print(w->run->turn, tree) : S("{}");
    if (out->len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the message is over %u bytes", MESSAGE_BYTES_MAX);
    return true;
}

static bool model_request(struct workflow_instance *w, struct workflow_lane *lane,
                          const struct step *step, struct workflow_evaluation *evaluation,
                          struct child_request *request, struct error *e)
{
    const struct json *system;
    request->model = step->model.model;
    if (str_is_empty(request->model) && w->state->takes_message) /* the agent's, or its caller's */
        request->model = w->run->model->name;
    request->response_format = step->model.response_format;
    request->max_output_tokens = step->model.max_output_tokens;
    if (!step->model.system)
        return true;
    if (!workflow_fill(w, lane, step->model.system, evaluation, &system, e))
        return error_wrap(e, "system");
    if (!json_to_str(system, &request->system))
        request->system = json_print(w->run->turn, system);
    return true;
}

/* The version that fits is chosen now, and pinned by the child. */
static bool workflow_request_of(struct workflow_instance *w, const struct step *step,
                                struct child_request *request, struct error *e)
{
    struct run *run = w->run;
    struct workflow_entry *entry;
    str range = step->workflow.range;
    if (!run_child_find_range(run, request->place, &range, e) ||
        !workflow_resolve(run->o, &run->shield, run->tenant_id, step->workflow.name, range, &entry,
                          e))
        return false;
    const struct definition *definition = workflow_entry_definition(entry);
    bool fits = workflow_check_input(&run->shield, definition, request->content, e);
    if (fits) {
        request->workflow = (struct run_workflow){
            .name = str_copy(run->turn, definition->name),
            .version = str_copy(run->turn, definition->version),
            .digest = str_copy(run->turn, definition->digest),
        };
        request->budget = cost_min(step->workflow.budget, definition->budget);
        journal_close_event(&run->journal);
        workflow_pin(run->o, run->turn, &run->journal.batch, entry);
    }
    workflow_entry_release(entry);
    return fits;
}

static void remember_child(struct workflow_instance *w, uuid id)
{
    if (w->child_count == w->child_capacity) {
        size_t capacity = w->child_capacity ? w->child_capacity * 2 : 8;
        w->children = arena_grow(w->run->turn, w->children, w->child_capacity * sizeof id,
                                 capacity * sizeof id);
        w->child_capacity = capacity;
    }
    w->children[w->child_count++] = id;
}

bool workflow_child_begin(struct workflow_instance *w, struct workflow_lane *lane,
                          const struct step *step, str path, int attempt, struct error *e)
{
    struct run *run = w->run;
    struct workflow_evaluation evaluation = {0};
    struct child_request *request = ARENA_NEW(run->turn, struct child_request);
    uuid child_id;
    *request = (struct child_request){
        .purpose = CHILD_STEP,
        .place = workflow_attempt_place(run->turn, path, attempt),
        .budget = COST_LIMITLESS,
    };
    if (!fill_prompt(w, lane, step, &evaluation, &request->content, e))
        return false;
    if (step->kind == STEP_MODEL && !model_request(w, lane, step, &evaluation, request, e))
        return false;
    if (step->kind == STEP_AGENT) {
        request->agent = step->agent.name;
        request->budget = step->agent.budget;
    }
    if (step->kind == STEP_WORKFLOW && !workflow_request_of(w, step, request, e))
        return false;
    request->label = evaluation.label;
    if (!run_child_add(run, request, &child_id, e))
        return false;
    struct json_writer *out = workflow_started(w, step->kind, path, attempt, step->timeout_ms);
    json_put_str(out, S("child_run_id"), id_text(w, child_id));
    journal_close_event(&run->journal);
    remember_child(w, child_id);
    return true;
}

void workflow_spawn_children(struct workflow_instance *w)
{
    for (size_t i = 0; i < w->child_count; i++)
        run_child_spawn(w->run, w->children[i]);
    w->child_count = 0;
}

static bool is_answer_good(struct workflow_instance *w, struct workflow_node *node,
                           struct error *why)
{
    const struct json *output;
    enum step_status status = node->status;
    if (!node->step || !node->step->expect)
        return true;
    node->status = STEP_COMPLETED; /* its answer stands already */
    bool ok = workflow_value(w, node, &output, why);
    node->status = status;
    ok = ok && workflow_is_expected(w, node, output, why);
    if (!ok)
        node->value = NULL;
    return ok;
}

static bool look_at_child(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct child_outcome *outcome = ARENA_NEW(w->run->turn, struct child_outcome);
    if (!run_child_look(w->run, node->child_run_id, outcome, e))
        return false;
    if (!outcome->is_final) {
        if (w->run->has_lost_sight) /* begun, and the answer to the append was lost */
            run_child_spawn(w->run, node->child_run_id);
        return true;
    }
    run_child_journal_end(w->run, node->child_run_id, outcome);
    if (outcome->status == RUN_COMPLETED) {
        struct error why = {0};
        if (is_answer_good(w, node, &why))
            workflow_node_completed(w, node, STR_NONE);
        else
            workflow_attempt_failed(w, node, &why, true);
        return true;
    }
    if (outcome->status == RUN_CANCELLED) /* for that: who was loaded again has forgotten it */
        workflow_note_timeout(w, node);
    if (node->is_stopping || w->ending.code != ERROR_OK) {
        workflow_node_stopped(w, node);
        return true;
    }
    workflow_attempt_failed(w, node, &outcome->failure, true);
    return true;
}

/* ---- signals ---- */

/* The oldest of this name that nobody has taken. */
static bool find_signal(struct workflow_instance *w, str name, struct record *out, bool *is_found,
                        struct error *e)
{
    struct run *run = w->run;
    struct query query = query_of(TABLE_RUN_SIGNALS);
    query_where_uuid(&query, RUN_SIGNALS_RUN_ID, run->run_id);
    query_where_text(&query, RUN_SIGNALS_NAME, name);
    *is_found = false;
    for (;;) {
        struct records page;
        if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, &query, &page, e))
            return error_wrap(e, "signals");
        for (size_t i = 0; i < page.count && !*is_found; i++)
            if (!workflow_state_has_signal(w->state, record_uuid(&page.items[i], RUN_SIGNALS_ID))) {
                *out = page.items[i];
                *is_found = true;
            }
        if (*is_found || str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
}

bool workflow_signal_take(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct record *row = ARENA_NEW(w->run->turn, struct record);
    bool is_found;
    if (!find_signal(w, node->step->signal.name, row, &is_found, e))
        return false;
    if (!is_found)
        return true;
    struct json_writer *out = journal_event(&w->run->journal, EVENT_RUN_SIGNALLED);
    json_put_str(out, S("signal_id"), id_text(w, record_uuid(row, RUN_SIGNALS_ID)));
    json_put_str(out, S("name"), record_text(row, RUN_SIGNALS_NAME));
    json_put_str(out, S("step"), node->path);
    journal_close_event(&w->run->journal);
    if (FAULT("plant.lost-signal")) /* a bug put in on purpose: it is taken, and nobody gets it */
        return true;
    workflow_node_completed_as(w, node, record_text(row, RUN_SIGNALS_DATA),
                               record_text(row, RUN_SIGNALS_LABEL));
    return true;
}

/* ---- looking ---- */

static bool look_at_call(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    bool is_decided = false;
    if (node->call->state != CALL_AWAITING)
        return true;
    if (!run_tools_check_approval(w->run, node->call, &is_decided, e))
        return false;
    journal_close_event(&w->run->journal);
    if (!is_decided)
        return true;
    if (node->call->state == CALL_APPROVED)
        return workflow_tool_approved(w, node, e);
    struct error why = {0};
    error_set(&why, REASON_DENIED, "the tool call was not approved");
    workflow_attempt_failed(w, node, &why, true);
    return true;
}

static bool look_at(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    if (node->status != STEP_RUNNING)
        return true;
    if (!node->step && w->definition)
        node->step = workflow_step_of(w->definition, node);
    if (!uuid_is_none(node->child_run_id))
        return node->is_child_ended || look_at_child(w, node, e);
    if (!uuid_is_none(node->approval_id))
        return look_at_approval(w, node, e);
    if (node->kind == STEP_WAIT_SIGNAL && node->step)
        return workflow_signal_take(w, node, e);
    return !node->call || look_at_call(w, node, e);
}

bool workflow_look(struct workflow_instance *w, struct error *e)
{
    struct workflow_state *state = w->state;
    struct workflow_node **open =
        ARENA_ARRAY(w->run->turn, struct workflow_node *, state->open_count + 1);
    size_t count = state->open_count; /* looking closes some */
    if (count > 0)
        memcpy(open, state->open, count * sizeof *open);
    for (size_t i = 0; i < count; i++)
        if (!look_at(w, open[i], e))
            return false;
    w->run->has_lost_sight = false;
    return true;
}

bool workflow_wait_stop(struct workflow_instance *w, struct workflow_node *node, bool *is_closed,
                        struct error *e)
{
    struct run *run = w->run;
    *is_closed = true;
    if (node->status != STEP_RUNNING)
        return true;
    if (!uuid_is_none(node->approval_id))
        return run_approval_withdraw(run, node->approval_id, e);
    if (uuid_is_none(node->child_run_id) || node->is_child_ended)
        return true;
    *is_closed = FAULT("plant.orphan-child"); /* a bug put in on purpose: it does not wait for it */
    if (node->has_cancelled_child)
        return true;
    node->has_cancelled_child = true;
    run_spawn_cancelled(
        run->o, run->tenant_id, run_child_session(node->child_run_id), node->child_run_id,
        run->state.is_cancelling ? run->state.cancelled_by : S("the workflow that started it"));
    return true;
}
