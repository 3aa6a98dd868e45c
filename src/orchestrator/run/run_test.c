/* Whole runs over simulated parts: what the journal says at the end, what the tables hold, what really happened outside. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

/* ---- the straight way ---- */

static void check_answer(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED " run.completed");
    assert_at_rest(ctx, "completed");
    struct record run = testkit_run(scene.kit, ctx, scene.run_id);
    const struct json *spent;
    struct error e;
    assert_true(json_parse(ctx->arena, record_text(&run, AGENT_RUNS_COST), (struct json_limits){0},
                           &spent, &e));
    assert_int_equal(json_i64_or(spent, S("tokens"), 0), 15);
    assert_str(json_str_or(spent, S("cost_nanousd"), STR_NONE), "20"); /* 10 x 1 + 5 x 2 nano-USD */
    assert_member(ctx, EVENT_RUN_COMPLETED, "finish", "stop");
    assert_str(scene.kit->prompt_last, "how warm was it?");
    assert_int_equal(scene.kit->prompt_tools, FAKE_TOOLS);
}

static void test_a_question_is_answered(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_answer, NULL);
}

static void check_tools(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED TOOL TOOL TOOL_ENDED TOOL_ENDED INTENT ANSWERED
                   " run.completed");
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 1);
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
    assert_str(scene.kit->prompt_last_result, "{\"ok\":true}");
    assert_int_equal(scene.kit->prompt_messages,
                     5); /* system, question, answer with calls, two results */
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e;
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 2);
    for (size_t i = 0; i < rows.count; i++) {
        assert_str(record_text(&rows.items[i], TOOL_CALLS_STATUS), "succeeded");
        assert_str(record_text(&rows.items[i], TOOL_CALLS_OUTPUT), "{\"ok\":true}");
        assert_int_equal(record_text(&rows.items[i], TOOL_CALLS_EFFECT_KEY).len, 64);
    }
}

static void test_tools_run_beside_each_other_and_their_results_reach_the_model(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 50;
    testkit_tool(kit, "pay")->delay_ms = 80;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{\"q\":1}"}, {"pay", "{}"}},
                                           .call_count = 2});
    int64_t started_ns = clock_monotonic_ns(kit->clock);
    testkit_do(kit, scene_begin, NULL);
    assert_true(clock_monotonic_ns(kit->clock) - started_ns < 130 * 1000000ll);
    testkit_do(kit, check_tools, NULL);
}

/* ---- tools that do not work out ---- */

static void check_tool_errors(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e;
    int failed = 0, denied = 0;
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 4);
    for (size_t i = 0; i < rows.count; i++) {
        str status = record_text(&rows.items[i], TOOL_CALLS_STATUS);
        failed += str_equal(status, S("failed"));
        denied += str_equal(status, S("denied"));
        assert_false(str_is_empty(record_text(&rows.items[i], TOOL_CALLS_ERROR_MESSAGE)));
    }
    assert_int_equal(failed, 3);
    assert_int_equal(denied, 1);
    assert_int_equal(testkit_tool(scene.kit, "notify")->begun, 0);
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 1);
    assert_int_equal(scene.kit->model_calls, 2);
}

static void test_a_tool_that_fails_is_denied_unknown_or_called_wrongly_is_told_to_the_model(
    struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("notify");
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_reply(
        kit,
        (struct fake_reply){
            .calls = {{"lookup", "{}"}, {"notify", "{}"}, {"nonsense", "{}"}, {"pay", "{\"a\":"}},
            .call_count = 4,
        });
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_tool_errors, NULL);
}

static char deep_arguments[256];

static void check_deep(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
    assert_int_equal(testkit_tool(scene.kit, "wipe")->begun, 0);
}

/* As deep as JSON may be: what an approval binds would be one level deeper. */
static void test_arguments_too_deep_to_approve_end_that_call_alone(struct testkit *kit)
{
    scene_start(kit);
    memset(deep_arguments, '[', 64);
    memset(deep_arguments + 64, ']', 64);
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}, {"wipe", deep_arguments}},
                                           .call_count = 2});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_deep, NULL);
}

/* ---- the model does not work out ---- */

static void check_retries(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx,
                   BEGUN INTENT " model.failed budget.settled" INTENT
                                " model.failed budget.settled" INTENT ANSWERED " run.completed");
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls, 3);
    const struct json *failed = event(ctx, EVENT_MODEL_FAILED);
    assert_str(json_str_or(failed, S("error"), STR_NONE), "network");
    assert_true(json_bool_or(failed, S("will_retry"), false));
    assert_int_equal(json_i64_or(event(ctx, EVENT_MODEL_COMPLETED), S("attempt"), 0), 3);
}

static void test_a_provider_that_limits_and_one_that_is_cut_are_tried_again(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_RATE_LIMITED});
    testkit_reply(kit, (struct fake_reply){.text = "half an ans", .cut = REASON_PROVIDER_NETWORK});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_retries, NULL);
}

static void check_gives_up(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(scene.kit->model_calls, 4);
    assert_member(ctx, EVENT_RUN_FAILED, "error", "overloaded");
}

static void test_after_four_failures_in_a_row_the_run_fails_with_the_providers_class(
    struct testkit *kit)
{
    scene_start(kit);
    for (int i = 0; i < 4; i++)
        testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_OVERLOADED});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_gives_up, NULL);
}

static void check_not_retried(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(scene.kit->model_calls, 1);
    assert_member(ctx, EVENT_RUN_FAILED, "error", "provider_invalid");
}

static void test_a_refusal_for_good_is_not_tried_again(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_not_retried, NULL);
}

static void check_time_out(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls, 2);
    assert_int_equal(json_i64_or(event(ctx, EVENT_MODEL_COMPLETED), S("attempt"), 0), 2);
}

static void test_a_silent_provider_is_left_after_its_time_and_tried_again(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 3600000});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_time_out, NULL);
}

static void begin_on_pair(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {
        .session_id = scene.session_id, .content = S("q"), .model = S("pair")};
    assert_true(run_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &e));
}

static void check_fallback(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls, 2);
    assert_int_equal(scene.kit->fallback_calls, 1); /* each target once, whichever came first */
}

static void test_the_next_target_is_tried_at_once(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_OVERLOADED});
    int64_t started_ns = clock_monotonic_ns(kit->clock);
    testkit_do(kit, begin_on_pair, NULL);
    assert_true(clock_monotonic_ns(kit->clock) - started_ns < 100 * 1000000ll);
    testkit_do(kit, check_fallback, NULL);
}

static void test_credentials_that_are_refused_leave_the_other_target(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_AUTH});
    testkit_do(kit, begin_on_pair, NULL);
    testkit_do(kit, check_fallback, NULL);
}

static void check_patience(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls, 2);
}

static void test_a_run_waits_longer_for_a_limited_provider_than_a_caller_would(struct testkit *kit)
{
    enum { LIMITED_MS = ROUTER_WAIT_MS_MAX + 3000 };
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_RATE_LIMITED,
                                           .retry_after_ms = LIMITED_MS});
    int64_t started_ns = clock_monotonic_ns(kit->clock);
    testkit_do(kit, scene_begin, NULL);
    assert_true(clock_monotonic_ns(kit->clock) - started_ns >= LIMITED_MS * 1000000ll);
    testkit_do(kit, check_patience, NULL);
}

static void check_steps_max(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(scene.kit->model_calls, 16);
    assert_member(ctx, EVENT_RUN_FAILED, "error", "limit");
}

static void test_an_agent_that_never_comes_to_an_end_is_ended(struct testkit *kit)
{
    scene_start(kit);
    for (int i = 0; i < 20; i++) /* not the same thing twice: that is a loop (run_loop_test.c) */
        testkit_reply(kit, (struct fake_reply){
                               .calls = {{"lookup", i % 2 ? "{\"page\": 1}" : "{\"page\": 2}"}},
                               .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_steps_max, NULL);
}

static void check_too_many_calls(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_MODEL_FAILED, "error", "provider_protocol");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 0);
}

static void test_more_tool_calls_at_once_than_allowed_are_a_broken_answer(struct testkit *kit)
{
    struct fake_reply reply = {.call_count = 17};
    scene_start(kit);
    for (int i = 0; i < reply.call_count; i++)
        reply.calls[i] = (struct fake_call){"lookup", "{}"};
    testkit_reply(kit, reply);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_too_many_calls, NULL);
}

static void check_named_call(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls,
                     2); /* at the bound: a tool that is not there, told to the model */
}

static void test_the_name_of_a_tool_call_has_a_bound(struct testkit *kit)
{
    char name[RUN_CALL_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof name);
    name[RUN_CALL_NAME_BYTES_MAX] = 0;
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{name, "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_named_call, NULL);

    name[RUN_CALL_NAME_BYTES_MAX] = 'n';
    name[RUN_CALL_NAME_BYTES_MAX + 1] = 0;
    testkit_reply(kit, (struct fake_reply){.calls = {{name, "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_too_many_calls, NULL);
}

static char huge_text[(1 << 20) + 4096];

static void check_huge(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->model_calls, 1);
}

static void test_an_answer_in_one_piece_larger_than_an_event_is_journaled_in_several(
    struct testkit *kit)
{
    scene_start(kit);
    memset(huge_text, 'x', sizeof huge_text - 1);
    testkit_reply(kit, (struct fake_reply){
                           .text = huge_text,
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_huge, NULL);
}

/* ---- money, tokens, policy ---- */

static void begin_poor(struct context *ctx, void *unused)
{
    (void) unused;
    cost budget = COST_LIMITLESS;
    budget.tokens = 20;
    scene_begin_with(ctx, budget);
}

static void check_over_budget(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN " policy.decided budget.refused run.failed");
    assert_at_rest(ctx, "failed");
    assert_int_equal(scene.kit->model_calls, 0); /* nothing was sent */
    assert_member(ctx, EVENT_RUN_FAILED, "error", "over_budget");
}

static void test_a_call_that_does_not_fit_is_refused_before_it_is_made(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, begin_poor, NULL);
    testkit_do(kit, check_over_budget, NULL);
}

static void begin_modest(struct context *ctx, void *unused)
{
    (void) unused;
    const struct json *reserved = json_get(event(ctx, EVENT_BUDGET_RESERVED), S("amount"));
    cost budget = COST_LIMITLESS;
    budget.tokens = json_i64_or(reserved, S("tokens"), 0) -
                    200; /* the same question again, 100 tokens of output are left */
    scene_begin_with(ctx, budget);
}

static void check_lowered(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(scene.kit->prompt_max_output_tokens, 100);
}

static void test_the_output_is_lowered_to_what_is_left(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL); /* to learn how large the prompt is */
    assert_int_equal(kit->prompt_max_output_tokens, 300);
    testkit_do(kit, begin_modest, NULL);
    testkit_do(kit, check_lowered, NULL);
}

static void begin_without_calls(struct context *ctx, void *unused)
{
    (void) unused;
    cost budget = COST_LIMITLESS;
    budget.tool_calls = 1;
    scene_begin_with(ctx, budget);
}

static void check_call_limit(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e;
    query_where_text(&query, TOOL_CALLS_STATUS, S("failed"));
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_true(str_find(record_text(&rows.items[0], TOOL_CALLS_ERROR_MESSAGE),
                         S("tool_calls needed 1, left 0")) != STR_NOT_FOUND);
}

static void test_tool_calls_past_the_limit_are_refused_and_told_to_the_model(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{\"n\":1}"}, {"pay", "{\"n\":2}"}},
                                           .call_count = 2});
    testkit_do(kit, begin_without_calls, NULL);
    testkit_do(kit, check_call_limit, NULL);
}

static void start_denied(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    uuid run_id;
    struct records runs;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {.session_id = scene.session_id, .content = S("q")};
    assert_false(run_start(scene.kit->o, ctx, &scene.user, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_POLICY_DENIED);
    assert_true(run_list(scene.kit->o, ctx, &scene.user,
                         &(struct run_filter){.session_id = scene.session_id}, STR_NONE, 10, &runs,
                         &e));
    assert_int_equal(runs.count, 0);
}

static void test_a_run_that_the_policy_denies_leaves_nothing(struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("run.start");
    testkit_do(kit, start_denied, NULL);
}

static void check_model_denied(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN " policy.decided run.failed");
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "policy_denied");
    assert_int_equal(scene.kit->model_calls, 0);
}

static void test_a_model_call_that_the_policy_denies_ends_the_run(struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("model.call");
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_model_denied, NULL);
}

/* ---- one at a time ---- */

static void start_second(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    uuid run_id;
    struct run_request request = {.session_id = scene.session_id, .content = S("me too")};
    assert_false(run_start(scene.kit->o, ctx, &scene.user, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_SESSION_BUSY);
    assert_int_equal(error_http_status(e.reason), 409);
    e = (struct error){0};
    assert_false(session_close(scene.kit->o, ctx, &scene.user, scene.session_id, &e));
    assert_int_equal(e.reason, REASON_SESSION_BUSY);
}

static void test_a_session_with_a_live_run_takes_no_other(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){
                           .delay_ms = 1000,
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, start_second, NULL);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_answer, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_question_is_answered),
        TESTKIT_SCRIPT(test_tools_run_beside_each_other_and_their_results_reach_the_model),
        TESTKIT_SCRIPT(
            test_a_tool_that_fails_is_denied_unknown_or_called_wrongly_is_told_to_the_model),
        TESTKIT_SCRIPT(test_arguments_too_deep_to_approve_end_that_call_alone),
        TESTKIT_SCRIPT(test_a_provider_that_limits_and_one_that_is_cut_are_tried_again),
        TESTKIT_SCRIPT(test_after_four_failures_in_a_row_the_run_fails_with_the_providers_class),
        TESTKIT_SCRIPT(test_a_refusal_for_good_is_not_tried_again),
        TESTKIT_SCRIPT(test_a_silent_provider_is_left_after_its_time_and_tried_again),
        TESTKIT_SCRIPT(test_the_next_target_is_tried_at_once),
        TESTKIT_SCRIPT(test_credentials_that_are_refused_leave_the_other_target),
        TESTKIT_SCRIPT(test_a_run_waits_longer_for_a_limited_provider_than_a_caller_would),
        TESTKIT_SCRIPT(test_an_agent_that_never_comes_to_an_end_is_ended),
        TESTKIT_SCRIPT(test_more_tool_calls_at_once_than_allowed_are_a_broken_answer),
        TESTKIT_SCRIPT(test_the_name_of_a_tool_call_has_a_bound),
        TESTKIT_SCRIPT(test_an_answer_in_one_piece_larger_than_an_event_is_journaled_in_several),
        TESTKIT_SCRIPT(test_a_call_that_does_not_fit_is_refused_before_it_is_made),
        TESTKIT_SCRIPT(test_the_output_is_lowered_to_what_is_left),
        TESTKIT_SCRIPT(test_tool_calls_past_the_limit_are_refused_and_told_to_the_model),
        TESTKIT_SCRIPT(test_a_run_that_the_policy_denies_leaves_nothing),
        TESTKIT_SCRIPT(test_a_model_call_that_the_policy_denies_ends_the_run),
        TESTKIT_SCRIPT(test_a_session_with_a_live_run_takes_no_other),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
