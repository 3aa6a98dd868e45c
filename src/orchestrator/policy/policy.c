#include "orchestrator/policy/policy.h"
#include "base/arena.h"
#include "base/limits.h"

const char *policy_verdict_name(enum policy_verdict verdict)
{
    switch (verdict) {
    case POLICY_ALLOW: return "allow";
    case POLICY_NEEDS_APPROVAL: return "needs_approval";
    case POLICY_DENY: break;
    }
    return "deny";
}

void policy_decide(struct policy *policy, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    *out = (struct policy_decision){.verdict = POLICY_DENY};
    policy->ops->decide(policy, ctx, input, out);
}

bool policy_approval_demands(struct policy *policy, struct context *ctx,
                             const struct policy_input *input, str *out, struct error *e)
{
    return policy->ops->approval_demands(policy, ctx, input, out, e);
}

bool policy_demands_nothing(struct policy *policy, struct context *ctx,
                            const struct policy_input *input, str *out, struct error *e)
{
    (void) policy;
    (void) ctx;
    (void) input;
    (void) e;
    *out = STR_NONE;
    return true;
}

bool policy_reload(struct policy *policy, struct error *e)
{
    return policy->ops->reload(policy, e);
}

void policy_destroy(struct policy *policy)
{
    if (policy)
        policy->ops->destroy(policy);
}

/* ---- the input document: a change of it is one of policy_question.c, too ---- */

static void put_user(struct json_writer *w, const struct policy_input *input)
{
    json_key(w, S("user"));
    json_object_begin(w);
    json_put_str(w, S("id"), input->user_id);
    json_put_str(w, S("role"), input->role);
    json_put_str(w, S("tenant"), input->tenant);
    json_object_end(w);
}

static void put_tool(struct json_writer *w, const struct policy_input *input)
{
    if (str_is_empty(input->tool_name))
        return;
    json_key(w, S("tool"));
    json_object_begin(w);
    json_put_str(w, S("name"), input->tool_name);
    json_put_str(w, S("version"), input->tool_version);
    json_put_str(w, S("category"), input->tool_category);
    json_object_end(w);
}

static void put_session(struct json_writer *w, const struct policy_input *input)
{
    cost remaining = input->remaining;
    json_key(w, S("session"));
    json_object_begin(w);
    if (!uuid_is_none(input->session_id)) {
        char id[UUID_TEXT_BYTES + 1];
        uuid_format(input->session_id, id);
        json_put_str(w, S("id"), str_of(id, UUID_TEXT_BYTES));
    }
    json_key(w, S("budget"));
    json_object_begin(w);
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        json_put_i64(w, str_from_cstr(cost_field_name(i)), *cost_field(&remaining, i));
    json_object_end(w);
    if (!str_is_empty(input->policy_context))
        json_put_raw(w, S("policy_context"), input->policy_context);
    json_object_end(w);
}

const str policy_hypothetical_approver = S_INIT("\x01somebody else");

str policy_input_json(struct arena *arena, const struct policy_input *input,
                      bool hypothetical_approval)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 2 * MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("action"), input->action);
    json_put_str(&w, S("resource"), input->resource);
    put_user(&w, input);
    put_tool(&w, input);
    put_session(&w, input);
    if (!str_is_empty(input->arguments))
        json_put_raw(&w, S("arguments"), input->arguments);
    str approver = hypothetical_approval ? policy_hypothetical_approver : input->approver;
    if (!str_is_empty(approver)) {
        json_key(&w, S("approval"));
        json_object_begin(&w);
        json_put_str(&w, S("status"), S("approved"));
        json_put_str(&w, S("approver"), approver);
        json_object_end(&w);
    }
    json_object_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}
