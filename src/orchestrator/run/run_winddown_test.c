/* A run that has to end before it is done: its budget is spent, or it repeats itself. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static void begin_with_tokens(struct context *ctx, void *argument)
{
    cost budget = COST_LIMITLESS;
    budget.tokens = *(int64_t *) argument;
    scene_begin_with(ctx, budget);
}

static struct fake_reply asks(const char *arguments, int64_t output_tokens)
{
    return (struct fake_reply){
        .calls = {{"lookup", arguments}},
        .call_count = 1,
        .usage = {.input_tokens = 100, .output_tokens = output_tokens, .is_reported = true}};
}

/* ---- the budget is spent ---- */

static void see_prompt(struct testkit *kit, const struct prompt *prompt)
{
    if (prompt->tool_count > 0)
        return;
    assert_int_equal(prompt->message_count, 2);
    str told = prompt_message_text(kit->arena, &prompt->messages[1]);
    if (str_find(told, S("how warm was it?")) == STR_NOT_FOUND)
        fail_msg(STR_FMT, STR_ARG(told));
    assert_true(str_find(told, S("Called lookup")) != STR_NOT_FOUND);
}

static void check_summed_up(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_RUN_COMPLETED, "ended_by", "budget");
    assert_true(str_starts_with(
        json_str_or(event(ctx, EVENT_RUN_COMPLETED), S("degraded"), STR_NONE), S("budget: ")));
    assert_non_null(event(ctx, EVENT_BUDGET_WIND_DOWN));
    struct record run = testkit_run(scene.kit, ctx, scene.run_id);
    assert_true(str_starts_with(record_text(&run, AGENT_RUNS_DEGRADED), S("budget: ")));
    struct error e = {0};
    struct query query = query_of(TABLE_MESSAGES);
    struct records rows;
    query_where_uuid(&query, MESSAGES_SESSION_ID, scene.session_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_str(record_text(&rows.items[rows.count - 1], MESSAGES_CONTENT),
               "looked twice; the rest is left");
}

static void spend_until_the_end(struct testkit *kit)
{
    static int64_t budget = 4000;
    scene_start(kit);
    kit->on_prompt = see_prompt;
    testkit_reply(kit, asks("{\"page\":1}", 1100));
    testkit_reply(kit, asks("{\"page\":2}", 1100));
    testkit_reply(kit,
                  (struct fake_reply){
                      .text = "looked twice; the rest is left",
                      .usage = {.input_tokens = 90, .output_tokens = 20, .is_reported = true}});
    testkit_do(kit, begin_with_tokens, &budget);
}

static void test_an_agent_out_of_budget_sums_up_in_one_last_call(struct testkit *kit)
{
    spend_until_the_end(kit);
    testkit_do(kit, check_summed_up, NULL);
    assert_int_equal(kit->model_calls, 3);
}

static void check_refused(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "over_budget");
}

static void test_who_has_done_nothing_yet_has_nothing_to_sum_up(struct testkit *kit)
{
    static int64_t budget = 400;
    scene_start(kit);
    testkit_do(kit, begin_with_tokens, &budget);
    testkit_do(kit, check_refused, NULL);
    assert_int_equal(kit->model_calls, 0);
}

static void test_tools_called_in_the_last_call_are_not_run(struct testkit *kit)
{
    static int64_t budget = 4000;
    scene_start(kit);
    testkit_reply(kit, asks("{\"page\":1}", 1100));
    testkit_reply(kit, asks("{\"page\":2}", 1100));
    struct fake_reply last = asks("{\"page\":3}", 20);
    last.text = "looked twice; the rest is left";
    testkit_reply(kit, last);
    testkit_do(kit, begin_with_tokens, &budget);
    testkit_do(kit, check_summed_up, NULL);
    assert_int_equal(testkit_tool(kit, "lookup")->begun, 2);
}

/* ---- the same again and again ---- */

static void check_stopped(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_RUN_LOOPING, "action", "stopped");
    assert_member(ctx, EVENT_RUN_COMPLETED, "ended_by", "loop");
    assert_member(ctx, EVENT_RUN_COMPLETED, "degraded",
                  "loop: tool lookup was repeated 8 times in a row");
    str history = testkit_history(scene.kit, ctx, scene.run_id);
    size_t first = str_find(history, S("run.looping"));
    assert_true(first != STR_NOT_FOUND);
    assert_true(str_find(str_from(history, first + 1), S("run.looping")) != STR_NOT_FOUND);
}

static bool was_noted;

static void look_for_note(struct testkit *kit, const struct prompt *prompt)
{
    str text = prompt_message_text(kit->arena, &prompt->messages[prompt->message_count - 1]);
    was_noted |= str_starts_with(text, S("Note: tool lookup was repeated 5 times"));
}

static void test_an_agent_that_repeats_itself_is_told_and_then_stopped(struct testkit *kit)
{
    scene_start(kit);
    was_noted = false;
    kit->on_prompt = look_for_note;
    for (int i = 0; i < 16; i++) /* the same, however it is written */
        testkit_reply(kit, asks(i % 2 ? "{\"a\":1,\"b\":2}" : "{ \"b\": 2, \"a\": 1 }", 5));
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_stopped, NULL);
    assert_true(was_noted);
    assert_int_equal(kit->model_calls, 8);
}

static void check_done(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_true(json_get(event(ctx, EVENT_RUN_COMPLETED), S("ended_by")) == NULL);
}

static void test_different_arguments_are_no_loop(struct testkit *kit)
{
    static const char *const arguments[] = {"{\"n\":1}", "{\"n\":2}", "{\"n\":3}",
                                            "{\"n\":4}", "{\"n\":5}", "{\"n\":6}",
                                            "{\"n\":7}", "{\"n\":8}", "{\"n\":9}"};
    scene_start(kit);
    for (size_t i = 0; i < ARRAY_COUNT(arguments); i++)
        testkit_reply(kit, asks(arguments[i], 5));
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_done, NULL);
    assert_int_equal(kit->model_calls, 10);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_an_agent_out_of_budget_sums_up_in_one_last_call),
        TESTKIT_SCRIPT(test_who_has_done_nothing_yet_has_nothing_to_sum_up),
        TESTKIT_SCRIPT(test_tools_called_in_the_last_call_are_not_run),
        TESTKIT_SCRIPT(test_an_agent_that_repeats_itself_is_told_and_then_stopped),
        TESTKIT_SCRIPT(test_different_arguments_are_no_loop),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
