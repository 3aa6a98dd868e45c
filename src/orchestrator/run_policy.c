#include "orchestrator/run_internal.h"

void run_decide(struct run *run, struct context *ctx, const struct policy_input *partial,
                struct policy_decision *out)
{
    struct policy_input input = *partial;
    input.user_id = run->principal.user_id;
    input.role = run->principal.role;
    input.tenant = uuid_str(ctx->arena, run->tenant_id);
    input.session_id = run->session_id;
    input.remaining = ledger_remaining(run->o->ledger, &run->path);
    input.policy_context = run->policy_context;
    int64_t started_ns = context_now_ns(ctx);
    policy_decide(run->o->parts.policy, ctx, &input, out);
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
    if (uuid_is_none(tool_call_id))
        return;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(tool_call_id, id);
    json_put_str(w, S("tool_call_id"), str_of(id, UUID_TEXT_BYTES));
}
