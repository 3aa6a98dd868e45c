/* Calls that guests make: governed as the model's, and never made twice. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static struct fake_tool *guest_that_calls(struct testkit *kit, const char *guest, const char *tool)
{
    scene_start(kit);
    struct fake_tool *fake = testkit_tool(kit, guest);
    fake->calls[0] = tool;
    return fake;
}

static void play(struct testkit *kit, const char *guest)
{
    testkit_reply(kit, (struct fake_reply){.calls = {{guest, "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
}

static size_t count_rows(struct context *ctx, const char *status)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e;
    size_t found = 0;
    query_where_text(&query, TOOL_CALLS_STATUS, str_from_cstr(status));
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++)
        found++;
    return found;
}

static void check_one_nested(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED TOOL TOOL TOOL_ENDED TOOL_ENDED INTENT ANSWERED
                   " run.completed");
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, "succeeded"), 2);
    assert_int_equal(scene.kit->prompt_messages, 4); /* the model hears of its own call only */
}

static void test_a_guest_calls_another_tool_with_intent_row_and_settlement(struct testkit *kit)
{
    struct fake_tool *guest = guest_that_calls(kit, "lookup", "pay");
    play(kit, "lookup");
    testkit_do(kit, check_one_nested, NULL);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 1);
    assert_string_equal(guest->heard, testkit_tool(kit, "pay")->output);
}

static void check_completed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, "succeeded"), 1);
}

static void test_what_the_policy_denies_is_denied_to_a_guest(struct testkit *kit)
{
    struct fake_tool *guest = guest_that_calls(kit, "lookup", "pay");
    kit->denied[0] = S("pay");
    play(kit, "lookup");
    testkit_do(kit, check_completed, NULL);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 0);
    assert_non_null(strstr(guest->heard, "policy does not allow"));
}

static void test_what_needs_a_person_is_refused_to_a_guest(struct testkit *kit)
{
    struct fake_tool *guest = guest_that_calls(kit, "lookup", "wipe");
    play(kit, "lookup");
    testkit_do(kit, check_completed, NULL);
    assert_int_equal(testkit_tool(kit, "wipe")->begun, 0);
    assert_non_null(strstr(guest->heard, "needs an approval"));
}

static void test_a_tool_that_is_not_there_is_said_to_the_guest(struct testkit *kit)
{
    struct fake_tool *guest = guest_that_calls(kit, "lookup", "nothing");
    play(kit, "lookup");
    testkit_do(kit, check_completed, NULL);
    assert_non_null(strstr(guest->heard, "there is no tool"));
}

static void test_a_guest_of_a_guest_calls_nothing(struct testkit *kit)
{
    guest_that_calls(kit, "lookup", "notify");
    testkit_tool(kit, "notify")->calls[0] = "pay";
    play(kit, "lookup");
    assert_int_equal(testkit_tool(kit, "notify")->effects, 1);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 0);
    assert_non_null(strstr(testkit_tool(kit, "notify")->heard, "may call no other"));
}

static void check_refused_by_budget(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
}

static void begin_with_one_call(struct context *ctx, void *unused)
{
    (void) unused;
    cost budget = COST_LIMITLESS;
    budget.tool_calls = 1;
    scene_begin_with(ctx, budget);
}

static void test_a_guest_spends_the_runs_tool_calls(struct testkit *kit)
{
    struct fake_tool *guest = guest_that_calls(kit, "lookup", "pay");
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, begin_with_one_call, NULL);
    testkit_do(kit, check_refused_by_budget, NULL);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 0);
    assert_non_null(strstr(guest->heard, "budget"));
}

static void check_crashed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, "unknown"), 2);
}

static void test_a_crash_repeats_neither_the_effect_nor_the_guest_that_made_it(struct testkit *kit)
{
    guest_that_calls(kit, "notify", "pay"); /* notify alone would be repeated */
    testkit_tool(kit, "pay")->after_ms = 9000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 1);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_crashed, NULL);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 1);
    assert_int_equal(testkit_tool(kit, "notify")->begun, 1);
}

static void check_repeated(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, "succeeded"), 2); /* the guest, and its call of the repeat */
    assert_int_equal(count_rows(ctx, "failed"), 1);    /* its call that the crash took */
}

static void test_a_guest_that_only_read_is_repeated_after_a_crash(struct testkit *kit)
{
    guest_that_calls(kit, "notify", "lookup");
    testkit_tool(kit, "lookup")->after_ms = 9000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_repeated, NULL);
    assert_int_equal(testkit_tool(kit, "notify")->effects, 1);
}

static void cancel(struct context *ctx, void *unused)
{
    struct error e;
    (void) unused;
    assert_true(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
}

static void test_a_cancel_reaches_the_call_of_a_guest(struct testkit *kit)
{
    guest_that_calls(kit, "lookup", "pay");
    testkit_tool(kit, "pay")->delay_ms = 9000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 10);
    testkit_do(kit, check_cancelled, NULL);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 0);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_guest_calls_another_tool_with_intent_row_and_settlement),
        TESTKIT_SCRIPT(test_what_the_policy_denies_is_denied_to_a_guest),
        TESTKIT_SCRIPT(test_what_needs_a_person_is_refused_to_a_guest),
        TESTKIT_SCRIPT(test_a_tool_that_is_not_there_is_said_to_the_guest),
        TESTKIT_SCRIPT(test_a_guest_of_a_guest_calls_nothing),
        TESTKIT_SCRIPT(test_a_guest_spends_the_runs_tool_calls),
        TESTKIT_SCRIPT(test_a_crash_repeats_neither_the_effect_nor_the_guest_that_made_it),
        TESTKIT_SCRIPT(test_a_guest_that_only_read_is_repeated_after_a_crash),
        TESTKIT_SCRIPT(test_a_cancel_reaches_the_call_of_a_guest),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
