/* Tool calls that others end: approvals, clients, other agents; and what is left of calls when the run ends first. */
#include "base/arena.h"
#include "orchestrator/approval_internal.h"
#include "orchestrator/run_tools_internal.h"

/* ---- approvals ---- */

static void journal_approval(struct run *run, const struct call *call, const char *decision,
                             str approver)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_APPROVAL_DECIDED);
    json_put_str(w, S("approval_id"), uuid_str(run->turn, call->approval_id));
    json_put_str(w, S("tool_call_id"), uuid_str(run->turn, call->id));
    json_put_str(w, S("decision"), str_from_cstr(decision));
    if (!str_is_empty(approver))
        json_put_str(w, S("approver"), approver);
    journal_close_event(&run->journal);
}

static struct policy_input input_of_tool(const struct tool *tool, str arguments)
{
    return (struct policy_input){
        .action = S("tool.call"),
        .resource = tool->name,
        .tool_name = tool->name,
        .tool_version = tool->version,
        .tool_category = tool->category,
        .arguments = arguments,
    };
}

/* The persons approved this digest, under the rules of that moment; do both still cover what would run? */
static bool approval_still_fits(struct run *run, const struct call *call,
                                const struct approval_outcome *given, struct error *failure)
{
    struct approval_rule now;
    const struct tool *tool = run_tools_find(run, call);
    if (!tool)
        return error_set(failure, REASON_STALE_DIGEST, "the approved tool is no longer there");
    struct policy_input input = input_of_tool(tool, run_tools_arguments(run, call));
    if (!run_approval_covers(run, call, tool, input.arguments, given->digest, failure) ||
        !run_approval_rule(run, tool, &input, &now, failure))
        return false;
    if (now.quorum > given->quorum ||
        (!str_is_empty(now.approvers) && !str_equal(now.approvers, given->approvers)))
        return error_set(failure, REASON_STALE_DIGEST,
                         "more is demanded of its approval now than when it was asked for");
    return true;
}

static bool end_refused(struct run *run, struct call *call, const char *decision,
                        const struct approval_outcome *given, const struct error *why)
{
    struct planned p = {.run = run,
                        .call = call,
                        .tool = run_tools_find(run, call),
                        .arguments = run_tools_arguments(run, call)};
    journal_approval(run, call, decision, given->approver);
    if (why)
        p.failure = *why;
    else if (str_is_empty(given->approver))
        error_set(&p.failure, REASON_DENIED, "the approval expired before anyone decided");
    else
        error_set(&p.failure, REASON_DENIED, "denied by " STR_FMT "%s" STR_FMT,
                  STR_ARG(given->approver), str_is_empty(given->reason) ? "" : ": ",
                  STR_ARG(given->reason));
    run_tools_end_unrun(&p, "denied", true);
    return true;
}

bool run_tools_check_approval(struct run *run, struct call *call, bool *is_decided, struct error *e)
{
    struct approval_outcome given;
    struct error stale = {0};
    if (!run_approval_look(run, call->approval_id, &given, e))
        return false;
    *is_decided = true;
    switch (given.status) {
    case APPROVAL_APPROVED:
        if (!approval_still_fits(run, call, &given, &stale))
            return end_refused(run, call, "expired", &given, &stale);
        journal_approval(run, call, "approved", given.approver);
        return true;
    case APPROVAL_DENIED: return end_refused(run, call, "denied", &given, NULL);
    case APPROVAL_EXPIRED: return end_refused(run, call, "expired", &given, NULL);
    case APPROVAL_PENDING:
    case APPROVAL_CONSUMED: break;
    }
    *is_decided = false;
    return true;
}

/* What the client said goes to the model as it is. */
static bool check_client(struct run *run, struct call *call, bool *has_come, struct error *e)
{
    struct record key = record_of(TABLE_TOOL_CALLS), row;
    str content;
    bool is_error;
    record_set_uuid(&key, TOOL_CALLS_ID, call->id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, e))
        return false;
    *has_come = record_has(&row, TOOL_CALLS_OUTPUT);
    if (!*has_come)
        return true;
    if (!client_result_read(run->turn, record_text(&row, TOOL_CALLS_OUTPUT), &content, &is_error,
                            e))
        return false;
    run_guard_content(run, &content, &is_error);
    struct planned *p = ARENA_NEW(run->turn, struct planned);
    *p = (struct planned){.run = run, .call = call};
    const char *status = is_error ? "failed" : "succeeded";
    int64_t now_us = clock_unix_us(run->o->parts.clock);
    p->result.latency_ms = (now_us - record_integer(&row, TOOL_CALLS_CREATED_AT)) / 1000;
    run_tools_journal_end(p, status);
    struct record *update = journal_row(&run->journal, WRITE_UPDATE, TABLE_TOOL_CALLS);
    record_set_uuid(update, TOOL_CALLS_ID, call->id);
    record_set_text(update, TOOL_CALLS_STATUS, str_from_cstr(status));
    record_set_integer(update, TOOL_CALLS_LATENCY_MS, p->result.latency_ms);
    run_prompt_add(
        run, run_prompt_tool_result(run->arena, call->call_id, call->name, content, is_error));
    return true;
}

bool run_tools_check_awaited(struct run *run, bool *is_waiting, struct error *e)
{
    *is_waiting = true;
    for (size_t i = 0; i < run->state.call_count; i++) {
        bool is_decided = false;
        struct call *call = &run->state.calls[i];
        bool ok = true;
        switch (call->state) {
        case CALL_AWAITING: ok = run_tools_check_approval(run, call, &is_decided, e); break;
        case CALL_CLIENT: ok = check_client(run, call, &is_decided, e); break;
        case CALL_CHILD: ok = run_agents_look(run, call, &is_decided, e); break;
        case CALL_REQUESTED:
        case CALL_APPROVED:
        case CALL_INTENDED:
        case CALL_DONE: break;
        }
        if (!ok)
            return false;
        if (is_decided)
            *is_waiting = false;
    }
    run->has_lost_sight = false;
    return true;
}

/* ---- the run ends first ---- */

bool run_tools_abandon_call(struct run *run, struct call *call, struct error *e)
{
    bool has_row = call->state == CALL_AWAITING || call->state == CALL_APPROVED ||
                   call->state == CALL_CLIENT || call->state == CALL_CHILD;
    if (call->state == CALL_DONE || call->state == CALL_INTENDED)
        return true;
    if (call->state == CALL_AWAITING && !run_approval_withdraw(run, call->approval_id, e))
        return false;
    struct planned p = {.run = run,
                        .call = call,
                        .tool = run_tools_find(run, call),
                        .arguments = run_tools_arguments(run, call)};
    error_set(&p.failure, REASON_CANCELLED,
              call->state == CALL_CHILD ? "the run ended before it heard the other agent's answer"
                                        : "the run ended before the call was made");
    run_tools_end_unrun(&p, "failed", has_row);
    return true;
}

bool run_tools_abandon(struct run *run, struct error *e)
{
    for (size_t i = 0; i < run->state.call_count; i++)
        if (!run_tools_abandon_call(run, &run->state.calls[i], e))
            return false;
    return true;
}
