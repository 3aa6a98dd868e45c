/*
 * The tool calls of one model answer.
 *
 *   decide each call -> ONE append (decisions + reservations + intents) -> run them beside each other -> append results as they come
 *
 * A call that the policy refuses, that names no tool or does not fit the budget ends at once with an error the model can act on.
 * One that needs approval is journaled as such and waits; the others go on.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/run_tools_internal.h"
#include "orchestrator/webhook/webhook_tell.h"
#include "orchestrator/workflow/workflow_run.h"

static str id_text(struct run *run, uuid id)
{
    return uuid_str(run->turn, id);
}

/*
 * The arguments of a call: the k-th tool call of the answer that the journal names.  The last answer in memory is mostly that one, but not
 * where a clock stepped back: messages are read in the order of their ids, which are times.
 */
str run_tools_arguments(const struct run *run, const struct call *call)
{
    if (run->workflow)
        return workflow_arguments(run, call);
    for (size_t m = run->message_count; m > 0; m--) {
        const struct prompt_message *message = &run->messages[m - 1];
        if (message->role != ROLE_ASSISTANT || !uuid_equal(run->rows[m - 1], run->state.answer_id))
            continue;
        size_t wanted = (size_t) (call - run->state.calls);
        for (size_t i = 0; i < message->part_count; i++)
            if (message->parts[i].kind == PART_TOOL_CALL && wanted-- == 0)
                return message->parts[i].arguments;
        break;
    }
    return STR_NONE;
}

const struct tool *run_tools_find(struct run *run, const struct call *call)
{
    return run->workflow && !call->parent ? workflow_find_tool(run, call)
                                          : run_find_tool(run, call->name);
}

/* ---- ending a call ---- */

void run_tools_journal_end(struct planned *p, const char *status)
{
    struct run *run = p->run;
    struct json_writer *w = journal_event(&run->journal, EVENT_TOOL_COMPLETED);
    json_put_str(w, S("tool_call_id"), id_text(run, p->call->id));
    json_put_str(w, S("name"), p->call->name);
    json_put_str(w, S("status"), str_from_cstr(status));
    json_put_i64(w, S("latency_ms"), p->result.latency_ms);
    json_put_i64(w, S("fuel"), p->result.fuel);
    p->label = run_label_of_result(p);
    json_key(w, S("label"));
    label_write_json(w, p->label);
    if (!uuid_is_none(p->call->child_run_id))
        json_put_str(w, S("child_run_id"), id_text(run, p->call->child_run_id));
    if (!uuid_is_none(p->message_id))
        json_put_str(w, S("message_id"), id_text(run, p->message_id));
    if (payload_is_found(&p->payloads)) {
        json_key(w, S("payloads"));
        payload_write_json(w, &p->payloads);
    }
    if (p->failure.code != ERROR_OK) {
        json_put_str(w, S("error"), str_from_cstr(error_problem(p->failure.reason)));
        json_put_str(w, S("message"), str_from_cstr(p->failure.message));
    }
    journal_close_event(&run->journal);
}

static void add_result_message(struct planned *p)
{
    struct run *run = p->run;
    bool is_error = p->failure.code != ERROR_OK;
    if (p->call->parent || run->workflow)
        return; /* its guest has the answer, or other steps */
    str content = is_error ? run_prompt_error_content(run->turn, &p->failure) : p->result.output;
    run_prompt_add(run, run_prompt_tool_result(run->arena, p->call->call_id, p->call->name, content,
                                               is_error));
    run_label_last(run, id_text(run, p->call->id),
                   run_label_source(run->turn, p->call->name, p->arguments), p->label);
}

void run_tools_write_row(struct planned *p, enum write_op op, str status)
{
    struct run *run = p->run;
    struct record *row = journal_row(&run->journal, op, TABLE_TOOL_CALLS);
    record_set_uuid(row, TOOL_CALLS_ID, p->call->id);
    record_set_uuid(row, TOOL_CALLS_RUN_ID, run->run_id);
    record_set_text(row, TOOL_CALLS_STATUS, status);
    record_set_text(row, TOOL_CALLS_TOOL_NAME, p->call->name);
    record_set_text(row, TOOL_CALLS_TOOL_VERSION, p->tool ? p->tool->version : S(""));
    const struct json *parsed;
    struct error ignored;
    bool is_json = json_parse(run->turn, p->arguments, (struct json_limits){0}, &parsed, &ignored);
    record_set_text(row, TOOL_CALLS_INPUT, is_json ? p->arguments : S("{}"));
    record_set_integer(row, TOOL_CALLS_CREATED_AT, clock_unix_us(run->o->parts.clock));
    record_set_text(row, TOOL_CALLS_CALL_ID, p->call->call_id);
    if (!str_is_empty(p->call->effect_key))
        record_set_text(row, TOOL_CALLS_EFFECT_KEY, p->call->effect_key);
    p->row_index = run->journal.batch.count - 1;
    p->row_batch = op == WRITE_INSERT ? run->journal.batch_number : 0;
}

/* The row that stands in the pending batch, or a change of the stored one. */
static struct record *row_to_change(struct planned *p)
{
    struct journal_writer *journal = &p->run->journal;
    if (p->row_batch == journal->batch_number)
        return &journal->batch.writes[p->row_index].record;
    struct record *row = journal_row(journal, WRITE_UPDATE, TABLE_TOOL_CALLS);
    record_set_uuid(row, TOOL_CALLS_ID, p->call->id);
    return row;
}

static void update_call_row(struct planned *p, str status)
{
    struct run *run = p->run;
    struct record *row = row_to_change(p);
    record_set_text(row, TOOL_CALLS_STATUS, status);
    record_set_integer(row, TOOL_CALLS_LATENCY_MS, p->result.latency_ms);
    record_set_integer(row, TOOL_CALLS_FUEL, p->result.fuel);
    record_set_text(row, TOOL_CALLS_LABEL, run_label_text(run->turn, p->label));
    if (p->failure.code == ERROR_OK)
        record_set_text(row, TOOL_CALLS_OUTPUT, p->result.output);
    else
        record_set_text(row, TOOL_CALLS_ERROR_MESSAGE,
                        str_copy(run->turn, str_from_cstr(p->failure.message)));
}

static void count_call(struct planned *p, const char *outcome)
{
    struct metrics *metrics = p->run->o->parts.metrics;
    metrics_add(metrics, METRIC_TOOL_CALLS, 1, (str[]){p->call->name, str_from_cstr(outcome)}, 2);
    metrics_observe(metrics, METRIC_TOOL_DURATION, (double) p->result.latency_us / 1e6,
                    &p->call->name, 1);
}

/* A call that never ran: refused, unknown tool, over budget, denied by a person. */
void run_tools_end_unrun(struct planned *p, const char *status, bool has_row)
{
    run_tools_journal_end(p, status);
    if (has_row)
        update_call_row(p, str_from_cstr(status));
    else {
        run_tools_write_row(p, WRITE_INSERT, str_from_cstr(status));
        struct record *row = &p->run->journal.batch.writes[p->run->journal.batch.count - 1].record;
        record_set_text(row, TOOL_CALLS_ERROR_MESSAGE,
                        str_copy(p->run->turn, str_from_cstr(p->failure.message)));
        record_set_text(row, TOOL_CALLS_LABEL, run_label_text(p->run->turn, p->label));
    }
    add_result_message(p);
    count_call(p, status);
    p->is_done = p->is_settled = true;
}

void run_tools_end(struct planned *p, const char *status)
{
    run_tools_journal_end(p, status);
    update_call_row(p, str_from_cstr(status));
    add_result_message(p);
    count_call(p, status);
    p->is_done = p->is_settled = true;
}

/* A call that ran (or may have run). */
static void end_run(struct planned *p, const char *status, const char *basis, cost used)
{
    struct run *run = p->run;
    run_tools_journal_end(p, status);
    update_call_row(p, str_from_cstr(status));
    run_settle(run, p->reservation_id,
               &(struct settlement){
                   .reserved = p->reserved, .used = used, .kind = "tool", .basis = basis});
    add_result_message(p);
    count_call(p, status);
    p->is_settled = true;
}

static cost used_by(const struct planned *p)
{
    int64_t time_ms =
        p->result.latency_ms < p->reserved.time_ms ? p->result.latency_ms : p->reserved.time_ms;
    return (cost){.tool_calls = 1, .time_ms = time_ms};
}

/* ---- deciding ---- */

/* The key of an effect: the action's content and the run's fencing token, so that a repeat after a crash is the same effect and another
   writer's is not. */
static str effect_key(struct run *run, const struct planned *p)
{
    str own = run->workflow && !p->parent ? workflow_effect_key(run, p) : STR_NONE;
    if (!str_is_empty(own))
        return own;
    /* A guest's call: its place among the guest's calls, so that a repeated guest makes the same ones. */
    str which = p->parent
                    ? str_printf(run->turn, STR_FMT "/%d", STR_ARG(p->parent->call->effect_key),
                                 p->parent->nested_count)
                    : id_text(run, p->call->id);
    str content = str_printf(run->turn, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT,
                             STR_ARG(id_text(run, run->run_id)), STR_ARG(which),
                             STR_ARG(p->tool->name), STR_ARG(p->arguments));
    return digest_hex(run->arena, digest_sha256(content));
}

void run_tools_refuse(struct planned *p, bool has_row)
{
    const char *status = p->failure.code == ERROR_DENIED ? "denied" : "failed";
    if (p->parent) {
        p->is_done = p->is_settled = true; /* the guest hears it; what was decided is journaled */
        count_call(p, status);
        return;
    }
    run_tools_end_unrun(p, status, has_row);
}

/* What an approval of it needs is settled when it is asked for. */
static void request_approval(struct planned *p, const struct policy_input *input,
                             const struct policy_decision *decision)
{
    struct run *run = p->run;
    struct approval_request request = {
        .id = run_new_id(run, RUN_ID_APPROVAL, 0, STR_NONE),
        .run_id = run->run_id,
        .session_id = run->session_id,
        .tool_call_id = p->call->id,
        .action = S("tool.call"),
        .requested_by = run->principal.caller_id,
        .user_id = run->principal.user_id,
    };
    if (!run_approval_rule(run, p->tool, input, &request.rule, &p->failure) ||
        !approval_digest(run->turn,
                         &(struct approval_subject){run->tenant_id, run->run_id, p->call->id,
                                                    p->tool, p->arguments},
                         &request.subject, &request.digest, &p->failure)) {
        run_tools_refuse(p, false);
        return;
    }
    run_tools_write_row(p, WRITE_INSERT, S("awaiting_approval"));
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_APPROVALS);
    struct json_writer *w = journal_event(&run->journal, EVENT_APPROVAL_REQUESTED);
    int64_t expires_us = /* from the event's own time */
        approval_write(run->settings, journal_now_us(&run->journal), row, &request);
    approval_note_expiry(run->o, expires_us);
    json_put_str(w, S("approval_id"), id_text(run, request.id));
    json_put_str(w, S("tool_call_id"), id_text(run, p->call->id));
    json_put_str(w, S("name"), p->call->name);
    json_put_str(w, S("digest"), request.digest);
    json_put_str(w, S("reason"), decision->reason);
    json_put_i64(w, S("quorum"), request.rule.quorum > 0 ? request.rule.quorum : 1);
    json_put_i64(w, S("expires_at"), expires_us);
    webhook_tell_approval(run, &request, expires_us, p->call->name);
    p->is_done = p->is_settled = true; /* not of this turn any more */
}

static void journal_intent(struct planned *p, bool has_row)
{
    struct run *run = p->run;
    p->call->effect_key = effect_key(run, p);
    struct json_writer *w = journal_event(&run->journal, EVENT_TOOL_INTENDED);
    json_put_str(w, S("tool_call_id"), id_text(run, p->call->id));
    json_put_str(w, S("name"), p->tool->name);
    json_put_str(w, S("version"), p->tool->version);
    json_put_str(w, S("digest"), digest_hex(run->turn, p->tool->module_digest));
    json_put_str(w, S("effect_key"), p->call->effect_key);
    json_put_i64(w, S("epoch"), run->journal.epoch);
    json_put_str(w, S("reservation_id"), id_text(run, p->reservation_id));
    json_put_i64(w, S("attempt"), p->call->attempts + 1);
    if (p->parent) {
        json_put_str(w, S("parent_id"), id_text(run, p->parent->call->id));
        json_put_bool(w, S("has_effect"), tool_has_effect(p->tool));
    }
    journal_close_event(&run->journal);
    if (p->parent && run_state_call(&run->state, p->call->id))
        p->call = run_state_call(&run->state, p->call->id); /* the fold has it now */
    if (!has_row) {
        run_tools_write_row(p, WRITE_INSERT, S("running"));
        return;
    }
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_TOOL_CALLS);
    record_set_uuid(row, TOOL_CALLS_ID, p->call->id);
    record_set_text(row, TOOL_CALLS_STATUS, S("running"));
    record_set_text(row, TOOL_CALLS_EFFECT_KEY, p->call->effect_key);
}

static bool reserve_call(struct planned *p)
{
    struct run *run = p->run;
    cost remaining = run_takes(run);
    int64_t time_ms = p->tool->limits.time_ms;
    if (remaining.time_ms != COST_UNLIMITED && remaining.time_ms < time_ms)
        time_ms = remaining.time_ms > 0 ? remaining.time_ms : 1;
    p->reserved = (cost){.tool_calls = 1, .time_ms = time_ms};
    return run_reserve(run, p->parent ? "guest" : "tool", p->call->id, p->reserved,
                       &p->reservation_id, &p->failure);
}

/* The caller runs it: journaled as asked for, and then it waits. */
static void plan_client_call(struct planned *p)
{
    struct run *run = p->run;
    const struct json *parsed;
    struct policy_decision decision;
    struct policy_input input = {
        .action = S("tool.call"),
        .resource = p->call->name,
        .tool_name = p->call->name,
        .tool_version = CLIENT_TOOL_VERSION,
        .tool_category = S("client"),
        .arguments = p->arguments,
    };
    if (!json_parse(run->turn, p->arguments, (struct json_limits){0}, &parsed, &p->failure)) {
        error_wrap(&p->failure, "the arguments of tool \"" STR_FMT "\" are no JSON object",
                   STR_ARG(p->call->name));
        run_tools_refuse(p, false);
        return;
    }
    run_decide(run, &run->shield, &input, &decision);
    run_journal_decision(run, &input, &decision, p->call->id);
    if (decision.verdict != POLICY_ALLOW) {
        error_set(&p->failure, REASON_POLICY_DENIED,
                  "the policy does not allow the client's tool \"" STR_FMT "\": " STR_FMT,
                  STR_ARG(p->call->name), STR_ARG(decision.reason));
        run_tools_refuse(p, false);
        return;
    }
    struct json_writer *w = journal_event(&run->journal, EVENT_TOOL_REQUESTED);
    json_put_str(w, S("tool_call_id"), id_text(run, p->call->id));
    json_put_str(w, S("call_id"), p->call->call_id);
    json_put_str(w, S("name"), p->call->name);
    journal_close_event(&run->journal);
    run_tools_write_row(p, WRITE_INSERT, S("pending"));
    struct record *row = &run->journal.batch.writes[run->journal.batch.count - 1].record;
    record_set_text(row, TOOL_CALLS_TOOL_VERSION, CLIENT_TOOL_VERSION);
    p->is_done = p->is_settled = true; /* not of this turn any more */
}

/* The registry answers at once: nothing is run, nothing is spent. */
static void plan_tool_search(struct planned *p)
{
    struct run *run = p->run;
    if (!run_tool_search(run, p->arguments, &p->result.output, &p->failure)) {
        run_tools_refuse(p, false);
        return;
    }
    run_tools_journal_end(p, "succeeded");
    run_tools_write_row(p, WRITE_INSERT, S("succeeded"));
    struct record *row = &run->journal.batch.writes[run->journal.batch.count - 1].record;
    record_set_text(row, TOOL_CALLS_OUTPUT, p->result.output);
    record_set_text(row, TOOL_CALLS_LABEL, run_label_text(run->turn, p->label));
    add_result_message(p);
    count_call(p, "succeeded");
    p->is_done = p->is_settled = true;
}

/* Decides one call: afterwards it is done, waits for approval or its client, or stands as an intent in the pending batch. */
void run_tools_plan(struct planned *p)
{
    struct run *run = p->run;
    bool has_row = p->call->state == CALL_APPROVED; /* made when the approval was requested */
    if (!p->parent)
        p->arguments = run_tools_arguments(run, p->call);
    if (!p->parent && run_has_client_tool(run, p->call->name)) {
        plan_client_call(p);
        return;
    }
    if (!p->parent && run_is_tool_search(run, p->call->name)) {
        plan_tool_search(p);
        return;
    }
    p->tool = run_tools_find(run, p->call);
    if (!p->tool) {
        error_set(&p->failure, REASON_NOT_FOUND,
                  "there is no tool \"" STR_FMT "\" for this agent; use one of the tools offered",
                  STR_ARG(p->call->name));
        run_tools_refuse(p, has_row);
        return;
    }
    const struct json *parsed;
    if (!json_parse(run->turn, p->arguments, (struct json_limits){0}, &parsed, &p->failure)) {
        error_wrap(&p->failure, "the arguments of tool \"" STR_FMT "\" are no JSON object",
                   STR_ARG(p->tool->name));
        run_tools_refuse(p, has_row);
        return;
    }
    p->tool = tool_of_call(run->turn, p->tool, p->arguments);
    struct policy_input input = {
        .action = S("tool.call"),
        .resource = p->tool->name,
        .tool_name = p->tool->name,
        .tool_version = p->tool->version,
        .tool_category = p->tool->category,
        .arguments = p->arguments,
        .approver = p->call->state == CALL_APPROVED ? p->call->approver : STR_NONE,
    };
    struct policy_decision decision;
    run_decide(run, &run->shield, &input, &decision);
    run_journal_decision(run, &input, &decision, p->call->id);
    if (p->parent && decision.verdict != POLICY_ALLOW) /* nothing else says whose it was */
        json_put_str(&run->journal.json, S("parent_id"), id_text(run, p->parent->call->id));
    if (decision.verdict != POLICY_DENY)
        run_contain(p, &decision);
    if (decision.verdict == POLICY_NEEDS_APPROVAL && p->parent) {
        error_set(&p->failure, REASON_NEEDS_APPROVAL,
                  "tool \"" STR_FMT "\" needs an approval, which a tool cannot wait for; call it "
                  "directly: " STR_FMT,
                  STR_ARG(p->tool->name), STR_ARG(decision.reason));
        run_tools_refuse(p, has_row);
        return;
    }
    if (decision.verdict == POLICY_NEEDS_APPROVAL && !has_row) {
        request_approval(p, &input, &decision);
        return;
    }
    if (decision.verdict != POLICY_ALLOW) {
        error_set(&p->failure, REASON_POLICY_DENIED,
                  "the policy does not allow tool \"" STR_FMT "\": " STR_FMT,
                  STR_ARG(p->tool->name), STR_ARG(decision.reason));
        run_tools_refuse(p, has_row);
        return;
    }
    if (has_row &&
        !run_approval_covers(run, p->call, p->tool, p->arguments, p->call->digest, &p->failure)) {
        run_tools_refuse(p, has_row);
        return;
    }
    if (agent_find_link(run->agent, p->call->name)) {
        run_agents_plan(p, has_row);
        return;
    }
    if (!reserve_call(p)) {
        run_tools_refuse(p, has_row);
        return;
    }
    if (has_row)
        run_approval_consume(run, p->call->approval_id);
    journal_intent(p, has_row);
}

/* ---- running ---- */

/* Only such a tool has the files of its session looked up: that costs a read of the store. */
static bool may_see_files(const struct tool *tool)
{
    for (size_t i = 0; i < tool->host_call_count; i++)
        if (str_starts_with(tool->host_calls[i], S("file")))
            return true;
    return false;
}

void run_tools_execute(struct planned *p, struct context *ctx)
{
    struct run *run = p->run;
    struct tool_calls calls = run_nested_calls(p);
    struct context call;
    struct session_files files = {run->o, run->tenant_id, run->root_session_id};
    struct tool_files door = session_files_of(&files);
    struct records rows = {0};
    context_init_child(&call, ctx, tool_deadline_ns(ctx, p->tool, p->reserved.time_ms));
    bool ok =
        !may_see_files(p->tool) ||
        session_file_rows(run->o, &call, run->tenant_id, run->root_session_id, &rows, &p->failure);
    str *names = ARENA_ARRAY(ctx->arena, str, rows.count);
    for (size_t i = 0; i < rows.count; i++)
        names[i] = record_text(&rows.items[i], SESSION_FILES_NAME);
    struct tool_request request = {
        .tool = p->tool,
        .is_nested = p->parent != NULL,
        .input = p->arguments,
        .tenant_id = run->tenant_id,
        .session_id = run->root_session_id,
        .run_id = run->run_id,
        .call_id = p->call->id,
        .user_id = run->principal.user_id,
        .effect_key = p->call->effect_key,
        .files = &door,
        .file_names = names,
        .file_name_count = rows.count,
        .calls = &calls,
        .role = run->principal.role,
        .key_id = run->principal.key_id,
        .label = p->arguments_label,
        .heard = &p->heard,
    };
    p->file_count = rows.count;
    /* While its intent was stored; in a replay the record says. */
    if (ok && !run->o->oracle && context_is_cancelled(ctx))
        ok = error_set(&p->failure, REASON_DRAINING,
                       "the call was not made: what it is a part of was stopped first");
    if (ok)
        ok = executor_execute(run->o->parts.executor, &call, &request, &p->result, &p->failure);
    p->has_begun = p->failure.reason != REASON_DRAINING; /* which says that nothing was sent */
    if (ok)
        p->result.output =
            str_copy(run->turn, p->result.output); /* the child's arena goes with it */
    if (ok && !run_guard_output(run, &call, &p->result.output, &p->failure))
        p->result.output = STR_NONE;
    if (p->failure.code == ERROR_OK)
        run_label_reveal(p);
    p->result.log = STR_NONE;
    context_deinit(&call);
    p->label =
        run_label_of_result(p); /* a guest's calls are looked at before this one is settled */
    p->is_running = false;
    p->is_done = true;
    condition_broadcast(&p->step->changed);
}

static void run_call(struct context *ctx, void *argument)
{
    run_tools_execute(argument, ctx);
}

/* May the effect have happened although the call failed?  A limit, a cancel or a lost node say nothing about the other side. */
static bool is_effect_unknown(const struct planned *p)
{
    if (p->failure.code == ERROR_OK || !p->has_begun || !tool_has_effect(p->tool))
        return false;
    return p->failure.code == ERROR_CANCELLED || p->failure.code == ERROR_TIMEOUT ||
           p->failure.reason == REASON_TIME_LIMIT || p->failure.reason == REASON_OUTCOME_UNKNOWN;
}

static bool may_repeat(const struct call *call, const struct tool *tool)
{
    if (call->has_nested_effects)
        return false;
    if (FAULT(
            "plant.double-effect")) /* a bug put in on purpose: it repeats what may have happened */
        return tool != NULL;
    return tool && (tool->is_pure || tool->is_idempotent);
}

/* The node stops: what it cut off, or had not begun and may be made by the next start, is left to that. */
static bool is_given_up(const struct planned *p)
{
    bool is_keyed = p->run->workflow && workflow_may_repeat(p->run, p->call);
    bool is_for_next = !p->parent && (may_repeat(p->call, p->tool) || is_keyed);
    return p->run->is_draining && p->failure.code != ERROR_OK && (p->has_begun || is_for_next);
}

/* A guest's calls stand behind it and are settled before it. */
void run_tools_settle(struct tool_step *step)
{
    for (size_t i = step->count; i > 0; i--) {
        struct planned *p = step->items[i - 1];
        if (!p->is_done || p->is_settled)
            continue;
        if (is_given_up(p)) {
            p->is_settled = true;
            continue;
        }
        const char *status = p->failure.code == ERROR_OK ? "succeeded"
                             : is_effect_unknown(p)      ? "unknown"
                                                         : "failed";
        end_run(p, status, "reported", used_by(p));
    }
}

static size_t count_running(const struct tool_step *step)
{
    size_t running = 0;
    for (size_t i = 0; i < step->count; i++)
        running += step->items[i]->is_running;
    return running;
}

static bool has_news(const struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++)
        if (step->items[i]->is_done && !step->items[i]->is_settled)
            return true;
    return run_nested_is_asked(step);
}

static void start_calls(struct tool_step *step, struct group *group)
{
    for (size_t i = 0; i < step->count; i++) {
        struct planned *p = step->items[i];
        if (p->is_done)
            continue;
        p->is_running = true;
        if (group_start(group, "tool", run_call, p, &p->failure))
            continue;
        p->is_running = false;
        p->is_done = true;
    }
}

/*
 * Starts what stands as an intent and journals each end as it comes, and what guests ask for; joins all before it returns.  Until
 * `held_until_ns` nothing is flushed: what ends by then is stored together with its intent, by whoever appends next.
 */
static bool run_intended(struct run *run, struct tool_step *step, int64_t held_until_ns,
                         struct error *e)
{
    struct group group;
    bool ok = true;
    group_init(&group, &run->ctx);
    start_calls(step, &group);
    while (ok && count_running(step) > 0) {
        bool is_held = context_now_ns(&run->shield) < held_until_ns;
        run_nested_plan(step);
        run_tools_settle(step);
        ok = is_held || run_flush(run, "tool_completed", e);
        if (ok && !is_held)
            run_nested_release(step);
        struct error never = {0};
        if (!ok || has_news(step)) /* came during the flush: nobody wakes us for it again */
            continue;
        if (count_running(step) > 0) /* the shield has neither deadline nor cancel */
            (void) !condition_wait_until(&step->changed, &run->shield,
                                         is_held ? held_until_ns : DEADLINE_NONE, &never);
    }
    if (!ok)
        group_cancel(&group);
    group_wait(&group);
    if (!ok)
        return false;
    run_tools_settle(step);
    return true; /* the last results travel with the next append */
}

static struct tool_step *begin_step(struct run *run)
{
    struct tool_step *step = ARENA_NEW(run->turn, struct tool_step);
    step->count = 0;
    condition_init(&step->changed);
    condition_init(&step->decided);
    return step;
}

static struct planned *add_planned(struct tool_step *step, struct run *run, struct call *call)
{
    struct planned *p = ARENA_NEW(run->turn, struct planned);
    *p = (struct planned){.run = run, .step = step, .call = call};
    step->items[step->count++] = p;
    return p;
}

bool run_tools_may_precede(const struct planned *p)
{
    return p->tool && p->tool->is_pure && !tool_has_effect(p->tool) &&
           p->tool->abi != TOOL_ABI_MCP && p->tool->host_call_count == 0 && !p->parent &&
           uuid_is_none(p->call->approval_id) && uuid_is_none(p->call->child_run_id) &&
           !p->run->o->oracle; /* a replay goes by what was flushed */
}

static bool may_precede_all(const struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++)
        if (step->items[i]->is_done || !run_tools_may_precede(step->items[i]))
            return false;
    return step->count > 0;
}

bool run_tools_step(struct run *run, struct error *e)
{
    struct tool_step *step = begin_step(run);
    for (size_t i = 0; i < run->state.call_count; i++) {
        struct call *call = &run->state.calls[i];
        if (call->state == CALL_REQUESTED || call->state == CALL_APPROVED)
            add_planned(step, run, call);
    }
    run_agents_share(step);
    for (size_t i = 0; i < step->count; i++)
        run_tools_plan(step->items[i]);
    if (may_precede_all(step) && run_has_room(run)) {
        int64_t held_until_ns = context_now_ns(&run->shield) + RUN_TOOLS_HOLD_MS * 1000000ll;
        return run_intended(run, step, held_until_ns, e) &&
               (run_has_room(run) || run_flush(run, "tool_completed", e));
    }
    if (!run_flush(run, "tool_intent", e))
        return false;
    run_agents_release(step);
    return run_intended(run, step, 0, e);
}

/* ---- after a crash ---- */

/* What was approved is repeated as it was approved, or not at all. */
static bool is_still_approved(const struct planned *p)
{
    struct error stale = {0};
    return uuid_is_none(p->call->approval_id) ||
           (p->tool &&
            run_approval_covers(p->run, p->call, p->tool, p->arguments, p->call->digest, &stale));
}

bool run_tools_resume(struct planned *p, bool *is_again, struct error *e)
{
    struct run *run = p->run;
    struct call *call = p->call;
    p->reservation_id = call->reservation_id;
    p->tool = run_tools_find(run, call);
    p->arguments = call->parent ? S("{}") : run_tools_arguments(run, call);
    p->tool = tool_of_call(run->turn, p->tool, p->arguments);
    p->arguments_label = run_label_context(run);
    struct open_reservation *open = run_state_reservation(&run->state, call->reservation_id);
    if (!open)
        return error_set(e, REASON_CORRUPT, "the tool call in flight has no open reservation");
    p->reserved = open->amount;
    bool is_keyed = run->workflow && workflow_may_repeat(run, call);
    /* A workflow that is being cancelled has steps to undo: theirs are repeated like any other. */
    bool is_over = run->is_cancel_asked && !(run->workflow && run->state.is_cancelling);
    *is_again = !call->parent && !is_over && is_still_approved(p) &&
                (may_repeat(call, p->tool) || (is_keyed && !call->has_nested_effects));
    if (*is_again) {
        journal_intent(p, true);
        return true;
    }
    error_set(&p->failure, REASON_UNAVAILABLE,
              "the node stopped while \"" STR_FMT
              "\" was running: whether it happened is not known; look before you repeat it",
              STR_ARG(call->name));
    bool is_harmless = p->tool && !tool_has_effect(p->tool) && !call->has_nested_effects;
    end_run(p, is_harmless ? "failed" : "unknown", "reserved", p->reserved);
    return true;
}

bool run_tools_recover(struct run *run, struct call *call, struct error *e)
{
    struct tool_step *step = begin_step(run);
    bool is_again;
    if (!run_tools_resume(add_planned(step, run, call), &is_again, e))
        return false;
    return !is_again || (run_flush(run, "tool_intent", e) && run_intended(run, step, 0, e));
}
