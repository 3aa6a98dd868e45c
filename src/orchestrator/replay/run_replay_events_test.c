/* What may happen to a run beside its own steps, recorded and played again: other messages, other agents, degradation, votes. */
#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static void assert_status(struct context *ctx, void *wanted)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), wanted);
}

static void assert_played(struct testkit *kit, const char *status)
{
    testkit_do(kit, assert_status, (char *) (uintptr_t) status);
    (void) assert_replays(kit);
}

static void assert_has(str text, const char *wanted)
{
    if (str_find(text, str_from_cstr(wanted)) == STR_NOT_FOUND)
        fail_msg("the recording has no %s", wanted);
}

/* ---- messages while it is live ---- */

static struct {
    const char *text;
    enum double_text policy;
    struct message_outcome outcome;
} sent;

static void send(struct context *ctx, void *unused)
{
    struct error e = {0};
    struct run_request request = {.session_id = scene.session_id,
                                  .content = str_from_cstr(sent.text),
                                  .on_busy = sent.policy};
    (void) unused;
    if (!message_send(scene.kit->o, ctx, &scene.user, &request, &sent.outcome, &e))
        fail_msg("%s", e.message);
}

static void send_while_live(struct testkit *kit, const char *text, enum double_text policy)
{
    sent.text = text;
    sent.policy = policy;
    testkit_begin(kit, send, NULL);
    testkit_run_ms(kit, 1);
}

static void test_messages_that_steered_the_run_replay(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200);
    send_while_live(kit, "in Celsius", DOUBLE_TEXT_STEER);
    send_while_live(kit, "and short", DOUBLE_TEXT_STEER);
    testkit_run_ms(kit, 500);
    send_while_live(kit, "thanks", DOUBLE_TEXT_STEER);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"steers\":true");
}

static void test_a_steered_run_whose_node_stopped_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200);
    send_while_live(kit, "in Celsius", DOUBLE_TEXT_STEER);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"steers\":true");
}

static void test_a_run_that_was_interrupted_and_the_one_that_did_it_replay(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 3000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    send_while_live(kit, "something else", DOUBLE_TEXT_INTERRUPT);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "cancelled");
    scene.run_id = sent.outcome.run_id;
    assert_played(kit, "completed");
}

/* ---- a session that is paused ---- */

static void pause_session(struct context *ctx, void *unused)
{
    struct error e = {0};
    struct record row;
    (void) unused;
    if (!session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

static void resume_session(struct context *ctx, void *unused)
{
    struct error e = {0};
    struct record row;
    (void) unused;
    if (!session_resume(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

/* Its tool is at work when the session is paused. */
static void begin_and_pause(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200);
    testkit_begin(kit, pause_session, NULL);
    testkit_run_ms(kit, 5000);
}

static void test_a_run_that_was_paused_replays_and_so_does_one_that_goes_on(struct testkit *kit)
{
    begin_and_pause(kit);
    assert_played(kit, "waiting");
    assert_has(replay_export(kit), "\"is_paused\":true");
    testkit_do(kit, resume_session, NULL);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "completed");
}

static void test_a_paused_run_whose_node_stopped_replays(struct testkit *kit)
{
    begin_and_pause(kit);
    testkit_crash(kit);
    testkit_do(kit, resume_session, NULL);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"is_paused\":true");
}

static void test_a_run_that_was_paused_twice_replays(struct testkit *kit)
{
    begin_and_pause(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, resume_session, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, pause_session, NULL);
    testkit_run_ms(kit, 5000);
    assert_played(kit, "waiting");
    testkit_do(kit, resume_session, NULL);
    testkit_run_ms(kit, 60000);
    assert_played(kit, "completed");
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void test_a_paused_run_that_was_cancelled_replays(struct testkit *kit)
{
    begin_and_pause(kit);
    testkit_do(kit, cancel_it, NULL);
    testkit_run_ms(kit, 5000);
    assert_played(kit, "cancelled");
}

/* ---- another agent ---- */

static struct agent_link links[] = {
    {.name = S_INIT("expert"), .is_handoff = true, .is_sticky = true, .budget = COST_LIMITLESS},
    {.name = S_INIT("helper"), .budget = COST_LIMITLESS},
};
static str tools[] = {S_INIT("*")};
static const struct agent_definition agents[] = {
    {.name = S_INIT("expert"),
     .version = S_INIT("1.0.0"),
     .description = S_INIT("knows"),
     .instructions = S_INIT("You are the expert."),
     .tools = tools,
     .tool_count = 1,
     .steps_max = 5,
     .run_timeout_ms = 600000},
    {.name = S_INIT("helper"),
     .version = S_INIT("1.0.0"),
     .description = S_INIT("helps"),
     .instructions = S_INIT("You help."),
     .steps_max = 5,
     .run_timeout_ms = 600000},
    {.name = S_INIT("assistant"),
     .version = S_INIT("1.0.0"),
     .instructions = S_INIT("You are the first."),
     .tools = tools,
     .tool_count = 1,
     .agents = links,
     .agent_count = 2,
     .steps_max = 5,
     .run_timeout_ms = 600000},
};

static void use_agents(struct testkit *kit)
{
    kit->agents = agents;
    kit->agent_count = ARRAY_COUNT(agents);
    testkit_crash_only(kit);
    scene_start(kit);
}

static uuid child_id;

static void find_child(struct context *ctx, void *unused)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    (void) unused;
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_true(rows.count >= 1);
    child_id = record_uuid(&rows.items[0], AGENT_RUNS_ID);
}

static void test_a_handoff_and_the_run_it_was_handed_to_replay(struct testkit *kit)
{
    use_agents(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"handoff_expert", "{\"message\":\"please\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "the expert says so", .delay_ms = 30});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 20000);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"handoff\":true");
    testkit_do(kit, find_child, NULL);
    (void) assert_replays_run(kit, child_id);
}

static void test_agents_called_beside_tools_replay_and_so_do_their_runs(struct testkit *kit)
{
    use_agents(kit);
    testkit_tool(kit, "lookup")->delay_ms = 40;
    testkit_reply(kit, (struct fake_reply){.calls = {{"agent_helper", "{\"message\":\"one\"}"},
                                                     {"lookup", "{}"},
                                                     {"agent_helper", "{\"message\":\"two\"}"}},
                                           .call_count = 3});
    testkit_reply(kit, (struct fake_reply){.text = "first", .delay_ms = 90});
    testkit_reply(kit, (struct fake_reply){.text = "second", .delay_ms = 20});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 20000);
    assert_played(kit, "completed");
    testkit_do(kit, find_child, NULL);
    (void) assert_replays_run(kit, child_id);
}

/* ---- less than was asked for ---- */

static const struct degrade_step steps[] = {
    {.when = DEGRADE_PROVIDER_UNAVAILABLE, .use = DEGRADE_MODEL, .model = S_INIT("other")},
    {.when = DEGRADE_BUDGET_LOW, .use = DEGRADE_TOOLLESS},
    {.when = DEGRADE_OVERLOADED, .use = DEGRADE_CACHED},
    {.when = DEGRADE_PROVIDER_UNAVAILABLE, .use = DEGRADE_CACHED},
};
static struct agent_definition frugal = {.name = S_INIT("assistant"),
                                         .version = S_INIT("1.0.0"),
                                         .instructions = S_INIT("You are frugal."),
                                         .tools = tools,
                                         .tool_count = 1,
                                         .steps_max = 8,
                                         .run_timeout_ms = 600000};

static void use_degrade(struct testkit *kit, size_t first, size_t count)
{
    frugal.degrade = &steps[first];
    frugal.degrade_count = count;
    kit->agents = &frugal;
    kit->agent_count = 1;
    testkit_crash_only(kit);
    scene_start(kit);
}

static void begin_with_tokens(struct context *ctx, void *tokens)
{
    cost budget = COST_LIMITLESS;
    budget.tokens = *(int64_t *) tokens;
    scene_begin_with(ctx, budget);
}

static void begin_with_calls(struct context *ctx, void *unused)
{
    cost budget = COST_LIMITLESS;
    (void) unused;
    budget.tool_calls = 10;
    scene_begin_with(ctx, budget);
}

static void test_an_answer_without_tools_because_little_was_left_replays(struct testkit *kit)
{
    struct fake_reply reply = {.call_count = 10};
    use_degrade(kit, 1, 1);
    for (int i = 0; i < reply.call_count; i++)
        reply.calls[i] = (struct fake_call){"lookup", "{}"};
    testkit_reply(kit, reply);
    testkit_do(kit, begin_with_calls, NULL);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"why\":\"budget_low\"");
}

static void test_an_earlier_answer_in_place_of_a_provider_that_fails_replays(struct testkit *kit)
{
    use_degrade(kit, 3, 1);
    testkit_reply(kit, (struct fake_reply){.text = "as I said"});
    testkit_do(kit, scene_begin, NULL);
    for (int i = 0; i < 12; i++)
        testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_OVERLOADED});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 300000);
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "\"use\":\"cached\"");
}

static void test_a_last_call_that_summed_up_replays(struct testkit *kit)
{
    int64_t tokens = 12000;
    scene_start(kit);
    for (int i = 0; i < 6; i++)
        testkit_reply(
            kit, (struct fake_reply){
                     .calls = {{"lookup", "{}"}},
                     .call_count = 1,
                     .usage = {.is_reported = true, .input_tokens = 2500, .output_tokens = 300}});
    testkit_do(kit, begin_with_tokens, &tokens);
    testkit_do(kit, assert_status, (char[]){"completed"});
    assert_has(replay_export(kit), "budget.wind_down");
    (void) assert_replays(kit);
}

static void test_thresholds_of_a_budget_that_were_passed_replay(struct testkit *kit)
{
    int64_t tokens = 100000;
    kit->defaults.alerts[0] = 500;
    kit->defaults.alerts[1] = 800;
    kit->defaults.alert_count = 2;
    testkit_crash_only(kit);
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){
                      .calls = {{"lookup", "{}"}},
                      .call_count = 1,
                      .usage = {.is_reported = true, .input_tokens = 85000, .output_tokens = 100}});
    testkit_do(kit, begin_with_tokens, &tokens);
    assert_has(assert_replays(kit), "budget.alerted");
}

static void test_a_run_that_went_in_circles_and_was_stopped_replays(struct testkit *kit)
{
    scene_start(kit);
    for (int i = 0; i < 20; i++)
        testkit_reply(kit,
                      (struct fake_reply){.calls = {{"lookup", "{\"q\":1}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    assert_has(replay_export(kit), "run.looping");
    (void) assert_replays(kit);
}

/* ---- a conversation that the budget has no room for ---- */

static void begin_tight(struct context *ctx, void *unused)
{
    (void) unused;
    cost budget = COST_LIMITLESS;
    budget.tokens = 30000;
    scene_begin_with(ctx, budget);
}

static void say_much(struct context *ctx, void *unused)
{
    char text[700];
    (void) unused;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, text);
}

static void test_a_summary_that_was_made_because_little_was_left_replays(struct testkit *kit)
{
    bool is_summarised = false;
    scene_start(kit);
    testkit_do(kit, begin_tight, NULL);
    for (int turn = 0; turn < 40 && !is_summarised; turn++) {
        testkit_do(kit, say_much, NULL);
        is_summarised = str_find(replay_export(kit), S("\"message.summarised\"")) != STR_NOT_FOUND;
    }
    assert_true(is_summarised);
    (void) assert_replays(kit);
}

/* ---- approvals of several persons ---- */

static void test_an_approval_by_two_persons_with_a_time_of_its_own_replays(struct testkit *kit)
{
    scene_start(kit);
    kit->approval_rules =
        S("{\"quorum\":2,\"expires\":\"2h\",\"approvers\":{\"roles\":[\"admin\"]}}");
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    assert_played(kit, "waiting");
    testkit_do(kit, scene_vote, (char[]){"bob"});
    assert_played(kit, "waiting");
    testkit_do(kit, scene_vote, (char[]){"carol"});
    assert_played(kit, "completed");
    assert_has(replay_export(kit), "approval.voted");
}

static void test_an_approval_that_one_of_two_denied_replays(struct testkit *kit)
{
    scene_start(kit);
    kit->approval_rules = S("{\"quorum\":2}");
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, scene_vote, (char[]){"bob"});
    testkit_do(kit, scene_vote, (char[]){"nay"});
    assert_played(kit, "completed");
}

/* The later of two is decided first; the other while the run is at work on that. */
static void decide_backwards(struct context *ctx, void *unused)
{
    struct error e = {0};
    struct records rows;
    struct principal boss = testkit_principal(scene.kit, "boss", ROLE_LEVEL_ADMIN);
    (void) unused;
    assert_true(approval_list(scene.kit->o, ctx, &boss, S("pending"), STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 2);
    bool is_newest_first = uuid_compare(record_uuid(&rows.items[0], APPROVALS_ID),
                                        record_uuid(&rows.items[1], APPROVALS_ID)) > 0;
    for (size_t i = 0; i < 2; i++) {
        const struct record *row = &rows.items[is_newest_first ? i : 1 - i];
        struct approval_decision decision = {
            .approval_id = record_uuid(row, APPROVALS_ID),
            .is_approve = true,
            .digest = record_text(row, APPROVALS_DIGEST),
        };
        if (!approval_decide(scene.kit->o, ctx, &boss, &decision, &e))
            fail_msg("%s", e.message);
        assert_true(context_sleep_ms(ctx, 100, &e));
    }
}

static void test_approvals_that_were_decided_one_after_the_other_replay(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(
        kit, (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}, {"wipe", "{\"all\":false}"}},
                                 .call_count = 2});
    testkit_do(kit, scene_begin, NULL);
    assert_played(kit, "waiting");
    testkit_do(kit, decide_backwards, NULL);
    assert_played(kit, "completed");
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_messages_that_steered_the_run_replay),
        TESTKIT_SCRIPT(test_a_steered_run_whose_node_stopped_replays),
        TESTKIT_SCRIPT(test_a_run_that_was_interrupted_and_the_one_that_did_it_replay),
        TESTKIT_SCRIPT(test_a_run_that_was_paused_replays_and_so_does_one_that_goes_on),
        TESTKIT_SCRIPT(test_a_paused_run_whose_node_stopped_replays),
        TESTKIT_SCRIPT(test_a_run_that_was_paused_twice_replays),
        TESTKIT_SCRIPT(test_a_paused_run_that_was_cancelled_replays),
        TESTKIT_SCRIPT(test_a_handoff_and_the_run_it_was_handed_to_replay),
        TESTKIT_SCRIPT(test_agents_called_beside_tools_replay_and_so_do_their_runs),
        TESTKIT_SCRIPT(test_an_answer_without_tools_because_little_was_left_replays),
        TESTKIT_SCRIPT(test_an_earlier_answer_in_place_of_a_provider_that_fails_replays),
        TESTKIT_SCRIPT(test_a_last_call_that_summed_up_replays),
        TESTKIT_SCRIPT(test_thresholds_of_a_budget_that_were_passed_replay),
        TESTKIT_SCRIPT(test_a_run_that_went_in_circles_and_was_stopped_replays),
        TESTKIT_SCRIPT(test_a_summary_that_was_made_because_little_was_left_replays),
        TESTKIT_SCRIPT(test_an_approval_by_two_persons_with_a_time_of_its_own_replays),
        TESTKIT_SCRIPT(test_an_approval_that_one_of_two_denied_replays),
        TESTKIT_SCRIPT(test_approvals_that_were_decided_one_after_the_other_replay),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
