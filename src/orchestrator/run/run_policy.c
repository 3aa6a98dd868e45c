#include "base/limits.h"
#include "orchestrator/run_internal.h"

static struct policy_input input_of(struct run *run, struct arena *arena,
                                    const struct policy_input *partial)
{
    struct policy_input input = *partial;
    input.user_id = run->principal.user_id;
    input.role = run->principal.role;
    input.tenant = uuid_str(arena, run->tenant_id);
    input.session_id = run->session_id;
    input.remaining = run_remaining(run);
    input.policy_context = run->policy_context;
    return input;
}

bool run_approval_demands(struct run *run, const struct policy_input *partial, str *rules,
                          struct error *e)
{
    struct policy_input input = input_of(run, run->turn, partial);
    return policy_approval_demands(run->o->parts.policy, &run->shield, &input, rules, e);
}

void run_decide(struct run *run, struct context *ctx, const struct policy_input *partial,
                struct policy_decision *out)
{
    struct policy_input input = input_of(run, ctx->arena, partial);
    int64_t started_ns = context_now_ns(ctx);
    policy_decide(run->o->parts.policy, ctx, &input, out);
    out->remaining = input.remaining;
    struct metrics *metrics = run->o->parts.metrics;
    metrics_add(metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){input.action, str_from_cstr(policy_verdict_name(out->verdict))}, 2);
    metrics_observe(metrics, METRIC_POLICY_DURATION,
                    (double) (context_now_ns(ctx) - started_ns) / 1e9, NULL, 0);
}

void run_journal_decision(struct run *run, const struct policy_input *input,
                          const struct policy_decision *decision, uuid tool_call_id)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_POLICY_DECIDED);
    json_put_str(w, S("action"), input->action);
    json_put_str(w, S("resource"), input->resource);
    json_put_str(w, S("verdict"), str_from_cstr(policy_verdict_name(decision->verdict)));
    json_put_str(w, S("reason"), decision->reason);
    json_put_str(w, S("rule"), decision->rule);
    json_put_str(w, S("version"), decision->version);
    json_key(w, S("remaining"));
    cost_write_json(w, decision->remaining);
    if (!str_is_empty(input->approver))
        json_put_str(w, S("approver"), input->approver);
    if (!str_is_empty(input->tool_version)) {
        json_put_str(w, S("tool_version"), input->tool_version);
        json_put_str(w, S("tool_category"), input->tool_category);
    }
    if (uuid_is_none(tool_call_id))
        return;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(tool_call_id, id);
    json_put_str(w, S("tool_call_id"), str_of(id, UUID_TEXT_BYTES));
    /* A guest's call that is refused has no row: its arguments stand here. */
    if (run_state_call(&run->state, tool_call_id) || decision->verdict == POLICY_ALLOW)
        return;
    if (input->arguments.len <= POLICY_ARGUMENTS_BYTES_MAX)
        json_put_str(w, S("arguments"), input->arguments);
}
