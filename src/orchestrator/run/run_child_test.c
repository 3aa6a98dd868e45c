/* Agents that work together: called as tools, handed the run to, cancelled, crashed, and what they may spend. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/run/run_child.h"

/* ---- the cast ---- */

static str no_tools, all_tools = S_INIT("*");
static const struct agent_link researcher = {
    .name = S_INIT("researcher"),
    .budget = {COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED}};
static struct agent_link links[] = {
    {.name = S_INIT("researcher")},
    {.name = S_INIT("writer"), .is_handoff = true, .is_sticky = true},
};
static struct agent_link itself[] = {{.name = S_INIT("loop")}};
static struct agent_definition cast[] = {
    {.name = S_INIT("assistant"), .instructions = S_INIT("You lead."), .agents = links},
    {.name = S_INIT("researcher"),
     .description = S_INIT("It looks things up."),
     .instructions = S_INIT("You look things up.")},
    {.name = S_INIT("writer"),
     .description = S_INIT("It writes."),
     .instructions = S_INIT("You write.")},
    {.name = S_INIT("loop"),
     .description = S_INIT("It asks itself."),
     .agents = itself,
     .agent_count = 1,
     .instructions = S_INIT("You ask yourself.")},
};

static void with_cast(struct testkit *kit)
{
    (void) no_tools;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        links[i].budget = COST_LIMITLESS;
    itself[0].budget = COST_LIMITLESS;
    for (size_t i = 0; i < sizeof cast / sizeof *cast; i++) {
        cast[i].tools = &all_tools;
        cast[i].tool_count = 1;
        cast[i].steps_max = 8;
        cast[i].run_timeout_ms = 600000;
    }
    cast[0].agent_count = 2;
    cast[0].agents = links;
    kit->agents = cast;
    kit->agent_count = sizeof cast / sizeof *cast;
    scene_start(kit);
    testkit_crash_only(kit);
}

/* ---- what is asked of the rows ---- */

static struct records children_of(struct context *ctx, uuid run_id)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, run_id);
    if (!store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e))
        fail_msg("%s", e.message);
    return rows;
}

static uuid only_child(struct context *ctx)
{
    struct records rows = children_of(ctx, scene.run_id);
    assert_int_equal(rows.count, 1);
    return record_uuid(&rows.items[0], AGENT_RUNS_ID);
}

static struct record session_of(struct context *ctx, uuid session_id)
{
    struct record key = record_of(TABLE_SESSIONS), row;
    struct error e = {0};
    record_set_uuid(&key, SESSIONS_ID, session_id);
    if (!store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e))
        fail_msg("%s", e.message);
    return row;
}

#define CALLED " policy.decided budget.reserved run.child_started budget.settled tool.intended"
#define CALL_ENDED " run.child_completed tool.completed"

/* ---- as a tool ---- */

static void check_called(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED CALLED CALL_ENDED INTENT ANSWERED " run.completed");
    assert_at_rest(ctx, "completed");
    uuid child = only_child(ctx);
    assert_str(testkit_history(scene.kit, ctx, child), BEGUN INTENT ANSWERED " run.completed");
    struct record row = testkit_run(scene.kit, ctx, child);
    struct record session = session_of(ctx, record_uuid(&row, AGENT_RUNS_SESSION_ID));
    assert_str(record_text(&row, AGENT_RUNS_AGENT), "researcher");
    assert_int_equal(record_integer(&row, AGENT_RUNS_DEPTH), 1);
    assert_str(record_text(&session, SESSIONS_STATUS), "closed");
    assert_true(uuid_equal(record_uuid(&session, SESSIONS_PARENT_RUN_ID), scene.run_id));
    assert_true(uuid_equal(record_uuid(&session, SESSIONS_ROOT_SESSION_ID), scene.session_id));
    assert_true(str_find(scene.kit->prompt_last_result, S("12 degrees")) != STR_NOT_FOUND);
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "succeeded");
    assert_member(ctx, EVENT_TOOL_INTENDED, "child_run_id",
                  uuid_str(ctx->arena, child).ptr); /* arena text ends with a zero */
}

static void script_of_a_call(struct testkit *kit)
{
    testkit_reply(
        kit, (struct fake_reply){.calls = {{"agent_researcher", "{\"message\":\"How warm was it?\","
                                                                "\"context\":\"in Oslo\"}"}},
                                 .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "12 degrees"});
    testkit_reply(kit, (struct fake_reply){.text = "It was 12 degrees."});
}

static void test_an_agent_called_as_a_tool_answers_its_caller(struct testkit *kit)
{
    with_cast(kit);
    script_of_a_call(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_called, NULL);
    assert_int_equal(kit->model_calls, 3);
}

static void note_question(struct testkit *kit, const struct prompt *prompt)
{
    str last = prompt_message_text(kit->arena, &prompt->messages[prompt->message_count - 1]);
    if (str_find(last, S("in Oslo")) != STR_NOT_FOUND)
        kit->tool_input = str_copy(kit->arena, last);
}

static void test_the_other_agent_hears_the_message_and_its_context_and_nothing_else(
    struct testkit *kit)
{
    with_cast(kit);
    script_of_a_call(kit);
    kit->on_prompt = note_question;
    testkit_do(kit, scene_begin, NULL);
    assert_str(kit->tool_input, "How warm was it?\n\nin Oslo");
}

/* ---- failures are told ---- */

static void check_told(struct context *ctx, const char *what)
{
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "failed");
    if (str_find(scene.kit->prompt_last_result, str_from_cstr(what)) == STR_NOT_FOUND)
        fail_msg("told: " STR_FMT, STR_ARG(scene.kit->prompt_last_result));
}

static void check_failed(struct context *ctx, void *unused)
{
    (void) unused;
    check_told(ctx, "agent \\\"researcher\\\": the fake provider refuses");
    assert_str(testkit_status(scene.kit, ctx, only_child(ctx)), "failed");
}

static void test_the_failure_of_the_other_agent_is_told_to_the_model(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"agent_researcher", "{\"message\":\"look\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_failed, NULL);
}

static void check_unreadable(struct context *ctx, void *unused)
{
    (void) unused;
    check_told(ctx, "another agent takes");
    assert_int_equal(children_of(ctx, scene.run_id).count, 0);
}

static void test_a_call_without_a_message_begins_nothing(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"agent_researcher", "{\"text\":\"look\"}"}},
                                           .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_unreadable, NULL);
}

static void check_denied(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "denied");
    assert_int_equal(children_of(ctx, scene.run_id).count, 0);
}

static void test_the_policy_decides_about_a_call_of_an_agent(struct testkit *kit)
{
    with_cast(kit);
    kit->denied[0] = S("agent:researcher");
    script_of_a_call(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_denied, NULL);
}

static void count_agents(struct testkit *kit, const struct prompt *prompt)
{
    kit->tool_files = 0;
    for (size_t i = 0; i < prompt->tool_count; i++)
        kit->tool_files += str_starts_with(prompt->tools[i].name, S("agent_")) ||
                           str_starts_with(prompt->tools[i].name, S("handoff_"));
}

static void test_only_agents_that_the_policy_may_allow_are_offered(struct testkit *kit)
{
    with_cast(kit);
    kit->on_prompt = count_agents;
    testkit_do(kit, scene_begin, NULL);
    assert_int_equal(kit->tool_files, 2);
    kit->denied[0] = S("agent:writer");
    testkit_do(kit, scene_begin, NULL);
    assert_int_equal(kit->tool_files, 1);
}

/* ---- depth ---- */

static void ask_itself(struct testkit *kit, const struct prompt *prompt)
{
    const struct prompt_message *last = &prompt->messages[prompt->message_count - 1];
    kit->reply_next = kit->reply_count = 0;
    if (last->role == ROLE_TOOL) {
        str said = prompt_message_text(kit->arena, last);
        for (size_t i = 0; i < last->part_count; i++)
            if (last->parts[i].kind == PART_TOOL_RESULT)
                said = last->parts[i].text;
        if (str_find(said, S("deep at most")) != STR_NOT_FOUND)
            kit->tool_input = str_copy(kit->arena, said);
        testkit_reply(kit, (struct fake_reply){.text = "enough"});
        return;
    }
    testkit_reply(kit, (struct fake_reply){.calls = {{"agent_loop", "{\"message\":\"again\"}"}},
                                           .call_count = 1});
}

static void check_depth(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    uuid run_id = scene.run_id;
    for (int depth = 1; depth <= RUN_CHILD_DEPTH_MAX; depth++) {
        struct records rows = children_of(ctx, run_id);
        assert_int_equal(rows.count, 1);
        assert_int_equal(record_integer(&rows.items[0], AGENT_RUNS_DEPTH), depth);
        assert_str(record_text(&rows.items[0], AGENT_RUNS_STATUS), "completed");
        run_id = record_uuid(&rows.items[0], AGENT_RUNS_ID);
    }
    assert_int_equal(children_of(ctx, run_id).count, 0);
    assert_true(str_find(scene.kit->tool_input, S("4 deep at most")) != STR_NOT_FOUND);
}

static void test_agents_that_call_each_other_end_at_the_depth_limit(struct testkit *kit)
{
    static struct agent_link to_loop[] = {{.name = S_INIT("loop")}};
    to_loop[0].budget = COST_LIMITLESS;
    with_cast(kit);
    cast[0].agents = to_loop;
    cast[0].agent_count = 1;
    testkit_crash_only(kit);
    kit->on_prompt = ask_itself;
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_depth, NULL);
}

/* ---- several at once ---- */

enum { MANY = 8, MOST = 16 };
static int asked;

/* The first answer asks `asked` times; each that is asked takes a second. */
static void fan_out(struct testkit *kit, const struct prompt *prompt)
{
    const struct prompt_message *last = &prompt->messages[prompt->message_count - 1];
    str text = prompt_message_text(kit->arena, last);
    kit->reply_next = kit->reply_count = 0;
    if (last->role == ROLE_TOOL) {
        testkit_reply(kit, (struct fake_reply){.text = "all of it"});
        return;
    }
    if (str_equal(text, S("part"))) {
        testkit_reply(kit, (struct fake_reply){.text = "one part", .delay_ms = 1000});
        return;
    }
    struct fake_reply reply = {.call_count = asked};
    for (int i = 0; i < asked; i++)
        reply.calls[i] = (struct fake_call){"agent_researcher", "{\"message\":\"part\"}"};
    testkit_reply(kit, reply);
}

static void check_shares(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    struct records rows = children_of(ctx, scene.run_id);
    assert_int_equal(rows.count, MANY);
    for (size_t i = 0; i < rows.count; i++) {
        cost ceiling;
        assert_str(record_text(&rows.items[i], AGENT_RUNS_STATUS), "completed");
        assert_true(
            cost_read_text(ctx->arena, record_text(&rows.items[i], AGENT_RUNS_BUDGET), &ceiling));
        assert_in_range(ceiling.tokens, 1, 90000 / (MANY + 1));
        assert_int_equal(ceiling.cost_nanousd, COST_UNLIMITED);
    }
}

static void begin_small(struct context *ctx, void *unused)
{
    (void) unused;
    scene_begin_with(ctx, (cost){90000, 3600000, COST_UNLIMITED, COST_UNLIMITED});
}

static void test_several_agents_called_at_once_run_beside_each_other_each_with_its_share(
    struct testkit *kit)
{
    with_cast(kit);
    asked = MANY;
    kit->on_prompt = fan_out;
    int64_t begun_ns = clock_monotonic_ns(kit->clock);
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 1900);
    testkit_do(kit, check_shares, NULL);
    assert_true(clock_monotonic_ns(kit->clock) - begun_ns < 2000000000);
}

static void begin_tiny(struct context *ctx, void *unused)
{
    (void) unused;
    scene_begin_with(ctx, (cost){6000, 3600000, COST_UNLIMITED, COST_UNLIMITED});
}

static void check_never_more(struct context *ctx, void *unused)
{
    (void) unused;
    struct records rows = children_of(ctx, scene.run_id);
    struct record key = record_of(TABLE_BUDGETS), account;
    struct error e = {0};
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    for (size_t i = 0; i < rows.count; i++) {
        cost ceiling, spent;
        assert_true(
            cost_read_text(ctx->arena, record_text(&rows.items[i], AGENT_RUNS_BUDGET), &ceiling));
        assert_true(
            cost_read_text(ctx->arena, record_text(&rows.items[i], AGENT_RUNS_COST), &spent));
        assert_true(spent.tokens <= ceiling.tokens);
    }
    record_set_text(&key, BUDGETS_LEVEL, S("session"));
    record_set_text(&key, BUDGETS_SUBJECT, uuid_str(ctx->arena, scene.session_id));
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &account, &e));
    assert_true(record_integer(&account, BUDGETS_SPENT_TOKENS) <= 6000);
    testkit_check_ledger(scene.kit, ctx, scene.session_id);
}

static void test_sixteen_agents_at_once_never_spend_more_than_their_caller_has(struct testkit *kit)
{
    with_cast(kit);
    asked = MOST;
    kit->on_prompt = fan_out;
    testkit_do(kit, begin_tiny, NULL);
    testkit_do(kit, check_never_more, NULL);
}

static void check_explicit(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row = testkit_run(scene.kit, ctx, only_child(ctx));
    assert_at_rest(ctx, "completed");
    assert_str(record_text(&row, AGENT_RUNS_STATUS), "failed");
    assert_str(record_text(&row, AGENT_RUNS_ERROR), "over_budget");
    assert_true(str_find(scene.kit->prompt_last_result, S("over_budget")) != STR_NOT_FOUND);
}

static void test_an_agent_over_the_budget_that_it_is_given_fails_and_its_caller_goes_on(
    struct testkit *kit)
{
    with_cast(kit);
    links[0].budget.tokens = 20;
    testkit_crash_only(kit);
    script_of_a_call(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_explicit, NULL);
}

/* ---- handoff ---- */

static void script_of_a_handoff(struct testkit *kit)
{
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"handoff_writer", "{\"message\":\"write it\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "Once upon a time."});
}

static void check_handoff(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED CALLED CALL_ENDED " run.completed");
    assert_at_rest(ctx, "completed");
    uuid message_id;
    struct record key = record_of(TABLE_MESSAGES), message;
    struct record session = session_of(ctx, scene.session_id);
    struct error e = {0};
    assert_true(uuid_parse(json_str_or(event(ctx, EVENT_RUN_COMPLETED), S("message_id"), STR_NONE),
                           &message_id));
    record_set_uuid(&key, MESSAGES_ID, message_id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &message, &e));
    assert_str(record_text(&message, MESSAGES_CONTENT), "Once upon a time.");
    assert_true(uuid_equal(record_uuid(&message, MESSAGES_SESSION_ID), scene.session_id));
    assert_str(record_text(&session, SESSIONS_AGENT), "writer");
    assert_member(ctx, EVENT_MODEL_DELTA, "text", "Once upon a time.");
}

static void begin_again(struct context *ctx, void *unused)
{
    (void) unused;
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "and then?");
}

static void check_writer_goes_on(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row = testkit_run(scene.kit, ctx, scene.run_id);
    assert_at_rest(ctx, "completed");
    assert_str(record_text(&row, AGENT_RUNS_AGENT), "writer");
}

static void test_a_handoff_gives_the_rest_of_the_run_away_and_the_session_with_it(
    struct testkit *kit)
{
    with_cast(kit);
    script_of_a_handoff(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_handoff, NULL);
    assert_int_equal(kit->model_calls, 2);
    assert_int_equal(kit->prompt_messages, 3); /* instructions, the person's question, the task */
    testkit_do(kit, begin_again, NULL);
    testkit_do(kit, check_writer_goes_on, NULL);
    assert_int_equal(kit->prompt_messages,
                     6); /* instructions, question, call, its result, answer, question */
}

static void check_not_alone(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(children_of(ctx, scene.run_id).count, 0);
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 1);
}

static void test_a_handoff_beside_other_calls_is_refused(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit,
                  (struct fake_reply){
                      .calls = {{"handoff_writer", "{\"message\":\"write it\"}"}, {"lookup", "{}"}},
                      .call_count = 2});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_not_alone, NULL);
}

/* ---- labels ---- */

static void check_labels(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    struct label label = label_read_json(json_get(event(ctx, EVENT_TOOL_COMPLETED), S("label")));
    assert_true(label.is_untrusted);
    assert_true(label.origins & LABEL_AGENT);
    label = label_read_json(json_get(event(ctx, EVENT_MODEL_COMPLETED), S("label")));
    assert_true(label.is_untrusted); /* and so is all that comes of it */
}

static void test_an_answer_brings_the_labels_of_all_that_its_agent_has_seen(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"agent_researcher", "{\"message\":\"look\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_labels, NULL);
}

/* ---- waiting ---- */

static uuid approval_id;
static str approval_digest_text;

static void find_approval(struct context *ctx, void *unused)
{
    (void) unused;
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct records rows;
    struct error e = {0};
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
    assert_str(testkit_status(scene.kit, ctx, only_child(ctx)), "waiting");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0); /* both have left memory */
    assert_true(approval_list(scene.kit->o, ctx, &boss, S("pending"), STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 1);
    approval_id = record_uuid(&rows.items[0], APPROVALS_ID);
    approval_digest_text =
        str_copy(scene.kit->arena, record_text(&rows.items[0], APPROVALS_DIGEST));
}

static void approve(struct context *ctx, void *unused)
{
    (void) unused;
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct approval_decision decision = {.approval_id = approval_id,
                                         .is_approve = true,
                                         .digest = approval_digest_text,
                                         .reason = S("because")};
    struct error e = {0};
    if (!approval_decide(scene.kit->o, ctx, &boss, &decision, &e))
        fail_msg("%s", e.message);
}

static void check_approved(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->effects, 1);
    assert_int_equal(children_of(ctx, scene.run_id).count, 1);
}

static void wait_for_approval(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"agent_researcher", "{\"message\":\"look\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, find_approval, NULL);
}

static void test_a_run_whose_agent_waits_for_a_person_leaves_memory_with_it(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, approve, NULL);
    testkit_do(kit, check_approved, NULL);
}

static void nothing(struct context *ctx, void *unused)
{
    (void) ctx;
    (void) unused;
}

static void test_both_wait_on_after_a_restart(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_crash(kit);
    testkit_do(kit, nothing, NULL);
    testkit_do(kit, find_approval, NULL);
    testkit_do(kit, approve, NULL);
    testkit_do(kit, check_approved, NULL);
}

/* ---- cancel ---- */

static void cancel(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void check_all_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    struct records rows = children_of(ctx, scene.run_id);
    assert_int_equal(rows.count, MANY);
    for (size_t i = 0; i < rows.count; i++)
        assert_str(record_text(&rows.items[i], AGENT_RUNS_STATUS), "cancelled");
}

static void begin_fan_out(struct testkit *kit)
{
    with_cast(kit);
    asked = MANY;
    kit->on_prompt = fan_out;
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 500);
}

static void test_the_cancel_of_a_run_reaches_all_that_it_called(struct testkit *kit)
{
    begin_fan_out(kit);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 100);
    testkit_do(kit, check_all_cancelled, NULL);
}

static void test_the_cancel_of_a_run_that_waits_reaches_its_agent(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, cancel, NULL);
    testkit_do(kit, nothing, NULL);
    assert_int_equal(testkit_tool(kit, "wipe")->begun, 0);
    assert_int_equal(orchestrator_active_runs(kit->o), 0);
}

/* ---- crashes ---- */

static void check_once(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    struct records rows = children_of(ctx, scene.run_id);
    assert_int_equal(rows.count, MANY);
    for (size_t i = 0; i < rows.count; i++)
        assert_str(record_text(&rows.items[i], AGENT_RUNS_STATUS), "completed");
}

static void crash_after(struct testkit *kit, int64_t ms)
{
    with_cast(kit);
    asked = MANY;
    kit->on_prompt = fan_out;
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, ms);
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_once, NULL);
}

static void test_a_crash_while_agents_are_at_work_begins_none_twice(struct testkit *kit)
{
    crash_after(kit, 500);
}

static void test_a_crash_when_they_have_just_answered_loses_no_answer(struct testkit *kit)
{
    crash_after(kit, 1000);
}

static void test_a_second_crash_changes_nothing(struct testkit *kit)
{
    with_cast(kit);
    asked = MANY;
    kit->on_prompt = fan_out;
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 300);
    testkit_crash(kit);
    testkit_run_ms(kit, 300);
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_once, NULL);
}

static void check_cancelled_after_crash(struct context *ctx, void *unused)
{
    (void) unused;
    check_all_cancelled(ctx, NULL);
}

static void test_a_cancel_survives_a_crash_before_it_has_reached_all(struct testkit *kit)
{
    begin_fan_out(kit);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 0);
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_cancelled_after_crash, NULL);
}

/* ---- definitions ---- */

static void test_the_tools_of_agents_have_names_that_providers_take(struct testkit *kit)
{
    struct agent_link link = {.name = S("a.b-c"), .budget = COST_LIMITLESS};
    struct agent_link list[] = {link};
    struct agent_definition agent = {.agents = list, .agent_count = 1};
    assert_str(agent_link_tool(kit->arena, &link), "agent_a_b-c");
    assert_non_null(agent_find_link(&agent, S("agent_a_b-c")));
    assert_null(agent_find_link(&agent, S("handoff_a_b-c")));
    assert_null(agent_find_link(&agent, S("agent_a_b-d")));
    assert_null(agent_find_link(NULL, S("agent_a_b-c")));
    assert_true(str_equal(researcher.name, S("researcher")));
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_an_agent_called_as_a_tool_answers_its_caller),
        TESTKIT_SCRIPT(test_the_other_agent_hears_the_message_and_its_context_and_nothing_else),
        TESTKIT_SCRIPT(test_the_failure_of_the_other_agent_is_told_to_the_model),
        TESTKIT_SCRIPT(test_a_call_without_a_message_begins_nothing),
        TESTKIT_SCRIPT(test_the_policy_decides_about_a_call_of_an_agent),
        TESTKIT_SCRIPT(test_only_agents_that_the_policy_may_allow_are_offered),
        TESTKIT_SCRIPT(test_agents_that_call_each_other_end_at_the_depth_limit),
        TESTKIT_SCRIPT(
            test_several_agents_called_at_once_run_beside_each_other_each_with_its_share),
        TESTKIT_SCRIPT(test_sixteen_agents_at_once_never_spend_more_than_their_caller_has),
        TESTKIT_SCRIPT(test_an_agent_over_the_budget_that_it_is_given_fails_and_its_caller_goes_on),
        TESTKIT_SCRIPT(test_a_handoff_gives_the_rest_of_the_run_away_and_the_session_with_it),
        TESTKIT_SCRIPT(test_a_handoff_beside_other_calls_is_refused),
        TESTKIT_SCRIPT(test_an_answer_brings_the_labels_of_all_that_its_agent_has_seen),
        TESTKIT_SCRIPT(test_a_run_whose_agent_waits_for_a_person_leaves_memory_with_it),
        TESTKIT_SCRIPT(test_both_wait_on_after_a_restart),
        TESTKIT_SCRIPT(test_the_cancel_of_a_run_reaches_all_that_it_called),
        TESTKIT_SCRIPT(test_the_cancel_of_a_run_that_waits_reaches_its_agent),
        TESTKIT_SCRIPT(test_a_crash_while_agents_are_at_work_begins_none_twice),
        TESTKIT_SCRIPT(test_a_crash_when_they_have_just_answered_loses_no_answer),
        TESTKIT_SCRIPT(test_a_second_crash_changes_nothing),
        TESTKIT_SCRIPT(test_a_cancel_survives_a_crash_before_it_has_reached_all),
        TESTKIT_SCRIPT(test_the_tools_of_agents_have_names_that_providers_take),
    };
    return testkit_main(cases, sizeof cases / sizeof *cases);
}
