/*
 * One tool call without a run: POST /api/v1/tools/{name}/invoke.  Policy, budget, execution, audit: as in a run, minus the journal.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

/* The tool's own time limit speaks first, so that its end has its name; a budget that allows less is a deadline. */
int64_t tool_deadline_ns(struct context *ctx, const struct tool *tool, int64_t reserved_ms)
{
    return context_deadline_in(ctx, reserved_ms < tool->limits.time_ms
                                        ? reserved_ms
                                        : reserved_ms + TOOL_DEADLINE_GRACE_MS);
}

struct invocation {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct tool_invocation *request;
    const struct tool *tool;
    struct ledger_path path;
    cost reserved;
    str policy_context, role;
    const struct registry_snapshot *tools;
    const struct invocation *parent; /* a guest's call: the one whose guest makes it */
    int nested_count;
};

may_suspend static bool call_other(void *owner, struct context *ctx, str name, str input,
                                   str *output, struct error *e);

static bool decide(struct invocation *i, struct error *e)
{
    struct policy_input input = {
        .action = S("tool.call"),
        .resource = i->tool->name,
        .user_id = i->principal->user_id,
        .role = i->role,
        .tenant = uuid_str(i->ctx->arena, i->principal->tenant_id),
        .tool_name = i->tool->name,
        .tool_version = i->tool->version,
        .tool_category = i->tool->category,
        .session_id = i->request->session_id,
        .remaining = ledger_remaining(i->o->ledger, &i->path),
        .policy_context = i->policy_context,
        .arguments = i->request->input,
    };
    struct policy_decision decision;
    policy_decide(i->o->parts.policy, i->ctx, &input, &decision);
    metrics_add(i->o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){input.action, str_from_cstr(policy_verdict_name(decision.verdict))}, 2);
    if (decision.verdict == POLICY_ALLOW)
        return true;
    if (decision.verdict == POLICY_NEEDS_APPROVAL)
        return error_set(
            e, REASON_NEEDS_APPROVAL,
            "tool \"" STR_FMT
            "\" needs an approval, which only a run can wait for; ask an agent to use it: " STR_FMT,
            STR_ARG(i->tool->name), STR_ARG(decision.reason));
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow tool \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(i->tool->name), STR_ARG(decision.reason));
}

/* An authenticated caller's own arguments are the caller's words: only rules of the operator have a say. */
static bool contain(struct invocation *i, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(i->o);
    struct context_item words = {.id = S("arguments"),
                                 .source = i->principal->user_id,
                                 .label = {.origins = LABEL_USER},
                                 .texts = &i->request->input,
                                 .text_count = 1};
    struct containment_input input = {
        .tool = i->tool, .arguments = i->request->input, .view = {&words, 1}};
    struct containment_decision decision;
    containment_decide(&settings->containment, i->ctx->arena, &input, &decision);
    decision.rule = str_copy(i->ctx->arena, decision.rule);
    orchestrator_release(settings);
    if (decision.verdict == CONTAINMENT_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED, "containment:" STR_FMT ": " STR_FMT,
                     STR_ARG(decision.rule), STR_ARG(decision.reason));
}

static bool execute(struct invocation *i, struct tool_result *out, struct error *e)
{
    struct session_files files = {i->o, i->principal->tenant_id, i->request->session_id};
    struct tool_files door = session_files_of(&files);
    struct records rows = {0};
    if (!uuid_is_none(i->request->session_id) &&
        !session_file_rows(i->o, i->ctx, i->principal->tenant_id, i->request->session_id, &rows, e))
        return false;
    str *names = ARENA_ARRAY(i->ctx->arena, str, rows.count);
    for (size_t n = 0; n < rows.count; n++)
        names[n] = record_text(&rows.items[n], SESSION_FILES_NAME);
    uuid call_id = uuid_new(i->o->parts.clock, i->o->parts.random);
    struct tool_calls calls = {.owner = i, .call = call_other};
    struct tool_request request = {
        .tool = i->tool,
        .input = i->request->input,
        .tenant_id = i->principal->tenant_id,
        .session_id = i->request->session_id,
        .call_id = call_id,
        .user_id = i->principal->user_id,
        .effect_key = uuid_str(i->ctx->arena, call_id),
        .files = &door,
        .file_names = names,
        .file_name_count = rows.count,
        .calls = &calls,
        .role = i->role,
        .key_id = i->principal->has_key_budget ? i->principal->key_id : UUID_NONE,
        /* What is kept of it lives on in other runs, and whoever calls tools directly may be a model (MCP): no trust is taken for granted. */
        .label = label_unknown(i->parent ? LABEL_TOOL : LABEL_USER),
    };
    struct context call;
    context_init_child(&call, i->ctx, tool_deadline_ns(i->ctx, i->tool, i->reserved.time_ms));
    bool ok = executor_execute(i->o->parts.executor, &call, &request, out, e);
    context_deinit(&call);
    return ok;
}

static void finish(struct invocation *i, const struct tool_result *result,
                   const struct error *failure)
{
    int64_t time_ms =
        result->latency_ms < i->reserved.time_ms ? result->latency_ms : i->reserved.time_ms;
    ledger_settle_plain(i->o->ledger, &i->path,
                        &(struct settlement){.reserved = i->reserved,
                                             .used = {.tool_calls = 1, .time_ms = time_ms},
                                             .kind = "tool",
                                             .basis = "reported"});
    struct batch batch;
    batch_init(&batch, i->ctx->arena, i->principal->tenant_id);
    audit_add(&batch, i->o->parts.clock, i->o->parts.random, i->principal,
              &(struct audit_entry){
                  .action = S("tool.invoke"),
                  .resource_type = S("tool"),
                  .resource_id = i->tool->name,
                  .details = str_printf(
                      i->ctx->arena, "{\"version\":\"" STR_FMT "\",\"outcome\":\"%s\"}",
                      STR_ARG(i->tool->version), failure ? error_problem(failure->reason) : "ok"),
              });
    struct error ignored;
    if (!store_submit(i->o->parts.store, &batch, &ignored))
        metrics_add(i->o->parts.metrics, METRIC_STORE_COMMITS, 1, (str[]){S("refused")}, 1);
    str outcome = failure ? str_from_cstr(error_problem(failure->reason)) : S("succeeded");
    metrics_add(i->o->parts.metrics, METRIC_TOOL_CALLS, 1, (str[]){i->tool->name, outcome}, 2);
    metrics_observe(i->o->parts.metrics, METRIC_TOOL_DURATION, (double) result->latency_us / 1e6,
                    (str[]){i->tool->name}, 1);
}

static bool invoke(struct invocation *i, struct tool_result *out, struct error *e)
{
    const struct json *
        parsed; /* the text goes into the policy's input as it is, so it must be one JSON value and no more */
    if (!json_parse(i->ctx->arena, i->request->input, (struct json_limits){0}, &parsed, e))
        return error_wrap(e, "input of tool \"" STR_FMT "\"", STR_ARG(i->tool->name));
    i->role = i->principal->role;
    if (!session_open_path(i->o, i->ctx, i->principal, i->request->session_id, &i->path,
                           &i->policy_context, e))
        return false;
    i->reserved = (cost){.tool_calls = 1, .time_ms = i->tool->limits.time_ms};
    bool ok = decide(i, e) && contain(i, e) &&
              ledger_reserve_plain(i->o->ledger, i->ctx, &i->path, i->reserved, e);
    if (ok) {
        ok = execute(i, out, e);
        finish(i, out, ok ? NULL : e);
    }
    ledger_close_path(i->o->ledger, &i->path);
    return ok;
}

static bool find_tool(struct invocation *i, struct error *e)
{
    struct registry_question question = {.tenant_id = i->principal->tenant_id,
                                         .name = i->request->name,
                                         .range = i->request->version,
                                         .canary_key = i->request->session_id};
    if (uuid_is_none(question.canary_key)) /* each call for itself */
        question.canary_key = uuid_new(i->o->parts.clock, i->o->parts.random);
    i->tool = registry_resolve(i->tools, &question);
    if (i->tool)
        i->tool = registry_effective(i->tools, i->ctx->arena, i->tool, question.tenant_id, NULL);
    i->tool = tool_of_call(i->ctx->arena, i->tool, i->request->input);
    return i->tool != NULL ||
           error_set(e, REASON_NOT_FOUND,
                     "there is no tool \"" STR_FMT "\"%s" STR_FMT "; see GET /api/v1/tools",
                     STR_ARG(question.name), str_is_empty(question.range) ? "" : " at version ",
                     STR_ARG(question.range));
}

/* A call that the guest makes: a call of the same principal, under the same session. */
may_suspend static bool call_other(void *owner, struct context *ctx, str name, str input,
                                   str *output, struct error *e)
{
    struct invocation *parent = owner;
    if (parent->parent)
        return error_set(e, REASON_PERMISSION,
                         "a tool that was called by a tool may call no other one");
    if (++parent->nested_count > RUN_NESTED_CALLS_MAX)
        return error_set(e, REASON_LIMIT, "a tool may make at most %d calls", RUN_NESTED_CALLS_MAX);
    struct tool_invocation request = {
        .name = name, .input = input, .session_id = parent->request->session_id};
    struct invocation *nested = ARENA_NEW(ctx->arena, struct invocation);
    *nested = (struct invocation){.o = parent->o,
                                  .ctx = ctx,
                                  .principal = parent->principal,
                                  .request = &request,
                                  .tools = parent->tools,
                                  .parent = parent};
    struct tool_result result;
    if (!find_tool(nested, e) || !invoke(nested, &result, e))
        return false;
    *output = str_copy(ctx->arena, result.output);
    return true;
}

bool tool_invoke(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 const struct tool_invocation *invocation, struct tool_result *out, str *version,
                 struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(o->parts.registry);
    struct invocation i = {
        .o = o, .ctx = ctx, .principal = principal, .request = invocation, .tools = tools};
    bool ok = principal->level >= ROLE_LEVEL_USER ||
              error_set(e, REASON_DENIED, "a viewer may not invoke tools");
    ok = ok && overload_admits(o->overload,
                               principal_priority(principal, PRIORITY_UNSAID, PRIORITY_UNSAID), e);
    ok = ok && find_tool(&i, e) && invoke(&i, out, e);
    if (ok)
        *version = str_copy(ctx->arena, i.tool->version);
    registry_release(tools);
    return ok;
}
