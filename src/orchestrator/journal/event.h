/*
 * Event: one entry of a run's journal, decoded.  Pure.
 *
 * data of each type (JSON members; ids are UUID text; amounts are costs):
 *   run.started        agent, model, user_id, message_id (the question), policy {verdict, rule, reason}, epoch, node,
 *                      client_tools? [{name, description, parameters, strict}], response_format?
 *   run.resumed        epoch, node
 *   run.waiting        approvals [approval_id], client_calls [tool_call_id], is_paused? (with its session), wakes_at?
 *   run.pausing        is_paused: an instance's session is (not) paused while steps are at work; those end, and none begins
 *   run.cancelling     by
 *   run.completed      message_id (the answer), cost, finish, degraded?, ended_by? ("budget", "loop": it had to end before it was done)
 *   run.failed         error (problem name), message, cost
 *   run.cancelled      by, cost
 *   run.child_started  child_run_id, session_id, agent, purpose ("tool", "handoff", "step"), tool_call_id? | step?, budget?
 *   run.child_completed child_run_id, status, message_id?, cost, error?, message?
 *   run.step_started   step (path), kind, attempt, environment?, tool_call_id? | child_run_id? | approval_id? | wakes_at?, key?
 *   run.step_completed step, output?, label?            only what stands in no other row
 *   run.step_failed    step, attempt, error, message, retry_at?
 *   run.compensating   reason ("failed", "cancelled"), error?, message?
 *   run.signalled      signal_id, name, step?
 *   run.degraded       step (of the agent's definition), what (for people), why (provider_unavailable, budget_low, overloaded),
 *                      use ("model", "cached", "tools"), model?, instead_of?, message_id?, from_run_id?
 *   run.looping        what, count, action ("warned", "stopped"), message_id? (what the run ends with)
 *   run.forked         from_run_id, at (number of its last shared event), agent_version, model, user_id, epoch, node, message_id?
 *   message.summarised message_id (the summary), from, to (ids of the first and last message it stands for), is_fallback, remaining?
 *   budget.alerted     level, subject, resource, threshold (thousandths)
 *   budget.wind_down   why; what is left goes to one last call that sums up
 *   approval.voted     approval_id, number (of the vote, from 1), approver, decision, delegated_by?, votes, quorum
 *   message.added      message_id, role, label?                       content is in `messages`; readers get it joined as `content`
 *   policy.decided     action, resource, verdict, reason, rule, version, remaining?, approver?, tool_version?, tool_category?,
 *                      tool_call_id?, arguments?, parent_id? (of a guest's call that was refused: it has no row);
 *                      of containment (rule "containment:NAME") also label, because [{id, source, label}]
 *   budget.reserved    reservation_id, for ("model", "tool", "guest"), amount, remaining, tool_call_id?
 *   budget.settled     reservation_id, amount (what was used), basis
 *   budget.refused     for, level-and-resource message
 *   model.requested    attempt, step, model, provider, max_output_tokens, reservation_id, room? (tokens that the budget left for the
 *                      conversation when it was put together), environment? (when it is another one than before)
 *   model.delta        attempt, text                           a newer attempt voids an older one's deltas
 *   model.completed    attempt, step, message_id, finish, usage {...}, latency_ms, tool_calls [{tool_call_id, call_id, name}],
 *                      label (of what it has seen: agent/tool/labels.h), links_defused? (answer_links.h)
 *   model.failed       attempt, step, error, message, will_retry
 *   tool.requested     tool_call_id, call_id, name                    of the client; input is in `tool_calls`; joined as `input`
 *   tool.intended      tool_call_id, name, version, digest, effect_key, epoch, reservation_id, attempt,
 *                      parent_id?, has_effect?       a call that the guest of another one makes
 *   tool.completed     tool_call_id, name, status, latency_ms, fuel, label?, payloads?, error?, message?   output is in `tool_calls`; joined as `output`
 *   approval.requested approval_id, tool_call_id, digest, expires_at
 *   approval.decided   approval_id, tool_call_id, decision (approved, denied, expired), approver?
 */
#ifndef NEXUS_ORCHESTRATOR_EVENT_H
#define NEXUS_ORCHESTRATOR_EVENT_H

#include "base/cost.h"
#include "base/json.h"
#include "base/uuid.h"

enum event_type {
#define EVENT(name, text, version) EVENT_##name,
#include "orchestrator/journal/events.def"
#undef EVENT
    EVENT_TYPE_COUNT
};

struct event {
    int64_t seq; /* from 1 */
    enum event_type type;
    int64_t at_us;
    const struct json *data; /* an object */
};

const char *event_type_name(enum event_type type);
int event_type_version(enum event_type type);
bool event_type_parse(str text, enum event_type *out);
bool event_is_final(enum event_type type); /* run.completed, run.failed, run.cancelled */

bool cost_read_json(const struct json *value, cost *out); /* the form of cost_write_json */

#endif
