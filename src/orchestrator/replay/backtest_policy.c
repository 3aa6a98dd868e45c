#include "base/arena.h"
#include "orchestrator/replay/backtest_internal.h"

static bool find_call(struct backtest *b, const struct event *event, struct record *out,
                      bool *is_there, struct error *e)
{
    struct record key = record_of(TABLE_TOOL_CALLS);
    struct error missing = {0};
    uuid id;
    *is_there = false;
    if (!uuid_parse(json_str_or(event->data, S("tool_call_id"), STR_NONE), &id))
        return true;
    record_set_uuid(&key, TOOL_CALLS_ID, id);
    *is_there = store_get(b->o->parts.store, b->ctx, b->tenant_id, &key, out, &missing);
    return *is_there || missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

static str category_of(struct backtest *b, str tool)
{
    const struct registry_snapshot *tools = registry_acquire(b->o->parts.registry);
    const struct tool *found = registry_resolve(
        tools, &(struct registry_question){.tenant_id = b->tenant_id, .name = tool});
    str category = found ? str_copy(b->ctx->arena, found->category) : STR_NONE;
    registry_release(tools);
    return category;
}

/* The question as it was put; false in *is_whole when the record does not say enough. */
static bool read_input(struct backtest *b, struct backtest_run *run, const struct event *event,
                       struct policy_input *input, bool *is_whole, struct error *e)
{
    const struct json *data = event->data;
    struct record *call = ARENA_NEW(b->ctx->arena, struct record);
    bool has_call = false;
    *is_whole = true;
    *input = (struct policy_input){
        .action = json_str_or(data, S("action"), STR_NONE),
        .resource = json_str_or(data, S("resource"), STR_NONE),
        .user_id = record_text(run->row, AGENT_RUNS_USER_ID),
        .role = run->role,
        .tenant = uuid_str(b->ctx->arena, b->tenant_id),
        .session_id = record_uuid(run->row, AGENT_RUNS_SESSION_ID),
        .policy_context = record_text(&run->session, SESSIONS_POLICY_CONTEXT),
        .approver = json_str_or(data, S("approver"), STR_NONE),
        .remaining = COST_LIMITLESS,
    };
    if (!cost_read_json(json_get(data, S("remaining")), &input->remaining)) {
        input->remaining = COST_LIMITLESS;
        b->policy_result.without_budget++;
    }
    if (!str_equal(input->action, S("tool.call")))
        return true;
    if (!find_call(b, event, call, &has_call, e))
        return false;
    input->tool_name = input->resource;
    input->tool_version = json_str_or(
        data, S("tool_version"), has_call ? record_text(call, TOOL_CALLS_TOOL_VERSION) : STR_NONE);
    input->tool_category = json_str_or(data, S("tool_category"), STR_NONE);
    if (str_is_empty(input->tool_category)) /* older records: as the tool is today */
        input->tool_category = category_of(b, input->resource);
    input->arguments = has_call ? record_text(call, TOOL_CALLS_INPUT)
                                : json_str_or(data, S("arguments"), STR_NONE);
    *is_whole = !str_is_empty(input->arguments) && !str_is_empty(input->tool_category);
    return true;
}

static void add_example(struct backtest *b, const struct backtest_run *run,
                        const struct event *event, str old, const struct policy_input *input,
                        const struct policy_decision *decision)
{
    struct strbuf text;
    struct json_writer w;
    size_t *count = &b->policy_result.example_count;
    if (*count == BACKTEST_EXAMPLES_MAX)
        return;
    strbuf_init(&text, b->arena, 16384);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("run_id"), uuid_str(b->ctx->arena, record_uuid(run->row, AGENT_RUNS_ID)));
    json_put_i64(&w, S("seq"), event->seq);
    json_put_str(&w, S("action"), input->action);
    json_put_str(&w, S("resource"), input->resource);
    json_put_str(&w, S("user_id"), input->user_id);
    json_put_str(&w, S("was"), old);
    json_put_str(&w, S("would_be"), str_from_cstr(policy_verdict_name(decision->verdict)));
    json_put_str(&w, S("rule"), decision->rule);
    json_put_str(&w, S("reason"), decision->reason);
    json_object_end(&w);
    if (!strbuf_is_over(&text))
        b->policy_result.examples[(*count)++].text = strbuf_str(&text);
}

bool backtest_policy_event(struct backtest *b, struct backtest_run *run, const struct event *event,
                           struct error *e)
{
    struct policy_input *input = ARENA_NEW(b->ctx->arena, struct policy_input);
    struct policy_decision decision = {0};
    bool is_whole;
    if (json_get(event->data, S("because")) ||
        str_equal(json_str_or(event->data, S("version"), STR_NONE), S("containment")))
        return true; /* of the rules over labels, not of the policy */
    if (!read_input(b, run, event, input, &is_whole, e))
        return false;
    b->policy_result.decisions++;
    if (!is_whole) {
        b->policy_result.unanswered++;
        return true;
    }
    policy_decide(b->policy, b->ctx, input, &decision);
    str old = json_str_or(event->data, S("verdict"), STR_NONE),
        now = str_from_cstr(policy_verdict_name(decision.verdict));
    if (str_equal(old, now)) {
        b->policy_result.same++;
        return true;
    }
    b->policy_result.newly_denied += decision.verdict == POLICY_DENY;
    b->policy_result.newly_allowed += decision.verdict == POLICY_ALLOW;
    b->policy_result.newly_asked += decision.verdict == POLICY_NEEDS_APPROVAL;
    str what = str_printf(b->ctx->arena, STR_FMT " -> " STR_FMT ": " STR_FMT, STR_ARG(old),
                          STR_ARG(now), STR_ARG(decision.rule));
    struct tally *line = backtest_tally(b, &b->policy_result.changes, input->action,
                                        input->resource, input->user_id, what);
    if (line)
        line->count++;
    add_example(b, run, event, old, input, &decision);
    return true;
}

void backtest_policy_write(const struct backtest *b, struct json_writer *w)
{
    json_key(w, S("policy"));
    json_object_begin(w);
    json_put_i64(w, S("decisions"), b->policy_result.decisions);
    json_put_i64(w, S("same"), b->policy_result.same);
    json_put_i64(w, S("newly_denied"), b->policy_result.newly_denied);
    json_put_i64(w, S("newly_allowed"), b->policy_result.newly_allowed);
    json_put_i64(w, S("newly_needs_approval"), b->policy_result.newly_asked);
    json_put_i64(w, S("unanswered"), b->policy_result.unanswered);
    json_put_i64(w, S("without_budget"), b->policy_result.without_budget);
    json_key(w, S("changes"));
    json_array_begin(w);
    for (size_t i = 0; i < b->policy_result.changes.count; i++) {
        const struct tally *line = &b->policy_result.changes.items[i];
        json_object_begin(w);
        json_put_str(w, S("action"), line->key[0]);
        json_put_str(w, S("resource"), line->key[1]);
        json_put_str(w, S("user_id"), line->key[2]);
        json_put_str(w, S("change"), line->key[3]);
        json_put_i64(w, S("count"), line->count);
        json_object_end(w);
    }
    json_array_end(w);
    json_key(w, S("examples"));
    json_array_begin(w);
    for (size_t i = 0; i < b->policy_result.example_count; i++)
        json_write_raw(w, b->policy_result.examples[i].text);
    json_array_end(w);
    json_object_end(w);
}
