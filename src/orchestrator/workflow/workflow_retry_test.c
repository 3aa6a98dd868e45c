/* Steps that hold others, and steps that are runs of their own, tried again: each attempt begins anew, and what the ones before did counts. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"

enum { MEND_AFTER_MS = 500, MORE_THAN_BACKOFF_MS = 3000 };

/* lookup fails at first and works from then on; the attempts are a second apart. */
static void mend_between(struct testkit *kit, const char *definition, const char *input)
{
    play_set(kit, definition, input);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, MEND_AFTER_MS);
    testkit_tool(kit, "lookup")->failure = REASON_NONE;
    testkit_run_ms(kit, MORE_THAN_BACKOFF_MS);
}

static void never_mended(struct testkit *kit, const char *definition)
{
    play_set(kit, definition, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, play_begin, NULL);
}

#define HEAD "name: w\nversion: 1.0.0\n"
#define RETRY "retry: {attempts: 3, backoff: 1s, factor: 1, jitter: 0}"

/* ---- a second attempt of what holds others ---- */

static void check_map(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "[10,20]");
    assert_holds(ctx, "\"step\":\"each\",\"kind\":\"map\",\"status\":\"completed\",\"attempt\":2");
    assert_holds(ctx, "\"step\":\"each#2[0].x\"");
    assert_holds(ctx, "\"step\":\"each#2[1].x\"");
    assert_lacks(ctx, "each#3");
}

static void test_a_map_is_tried_again_with_all_its_items(struct testkit *kit)
{
    mend_between(kit,
                 HEAD "output: '${steps.each.output}'\nsteps:\n"
                      "  - id: each\n"
                      "    map: {over: '${input.items}', output: '${item * 10}', steps: [{id: n, "
                      "tool: notify}, {id: x, tool: lookup}]}\n"
                      "    " RETRY "\n",
                 "{\"items\":[1,2]}");
    testkit_do(kit, check_map, NULL);
}

static void check_parallel(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"left\":{\"ok\":true},\"right\":{\"ok\":true}}");
    assert_holds(ctx, "\"step\":\"both#2.left.x\"");
    assert_holds(ctx, "\"step\":\"both#2.right.y\"");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 2); /* both attempts did it */
}

static void test_a_parallel_step_is_tried_again_with_all_its_arms(struct testkit *kit)
{
    mend_between(kit,
                 HEAD "steps:\n"
                      "  - id: both\n"
                      "    parallel: {left: [{id: x, tool: lookup}], right: [{id: y, tool: pay}]}\n"
                      "    " RETRY "\n",
                 NULL);
    testkit_do(kit, check_parallel, NULL);
}

static void check_loop(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "2");
    assert_holds(ctx, "\"step\":\"again#2[0].a\"");
    assert_holds(ctx, "\"step\":\"again#2[2].x\"");
    assert_holds(ctx,
                 "\"step\":\"again\",\"kind\":\"loop\",\"status\":\"completed\",\"attempt\":2");
}

static void test_a_loop_is_tried_again_from_its_first_round(struct testkit *kit)
{
    mend_between(kit,
                 HEAD "steps:\n"
                      "  - id: again\n"
                      "    loop: {while: '${loop.index < 3}', max: 5, output: '${loop.index}', "
                      "steps: [{id: a, tool: notify}, {id: x, tool: lookup}]}\n"
                      "    " RETRY "\n",
                 NULL);
    testkit_do(kit, check_loop, NULL);
}

static void check_branch(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"ok\":true}");
    assert_holds(ctx, "\"step\":\"which#2[1].x\"");
}

static void test_a_branch_is_tried_again_and_asks_its_conditions_again(struct testkit *kit)
{
    mend_between(kit,
                 HEAD "steps:\n"
                      "  - id: which\n"
                      "    branch: [{when: '${input.n > 5}', steps: []}, {steps: [{id: x, tool: "
                      "lookup}]}]\n"
                      "    " RETRY "\n",
                 "{\"n\":1}");
    testkit_do(kit, check_branch, NULL);
}

/* ---- of what is a run of its own ---- */

static const char inner[] = "name: inner\nversion: 1.0.0\noutput: {for: '${input.who}', "
                            "found: '${steps.x.output.ok}'}\nsteps: [{id: x, tool: lookup}]\n";

static void put_inner(struct context *ctx, void *unused)
{
    (void) unused;
    play_put(ctx, inner);
}

static void count_children(struct context *ctx, size_t wanted)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, wanted);
}

static void check_inner(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"for\":\"ada\",\"found\":true}");
    assert_holds(ctx,
                 "\"step\":\"sub\",\"kind\":\"workflow\",\"status\":\"completed\",\"attempt\":2");
    count_children(ctx, 2);
}

static void test_a_workflow_in_a_workflow_is_tried_again_as_another_run(struct testkit *kit)
{
    play_set(kit,
             HEAD "steps:\n"
                  "  - {id: sub, workflow: {name: inner, input: {who: ada}}, " RETRY "}\n",
             NULL);
    testkit_do(kit, put_inner, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, MEND_AFTER_MS);
    testkit_tool(kit, "lookup")->failure = REASON_NONE;
    testkit_run_ms(kit, MORE_THAN_BACKOFF_MS);
    testkit_do(kit, check_inner, NULL);
}

static void check_model(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"text\":\"42\"}");
    count_children(ctx, 3);
}

static void test_a_model_is_asked_again_until_its_answer_is_what_is_expected(struct testkit *kit)
{
    play_set(kit,
             HEAD "steps:\n"
                  "  - {id: m, model: {prompt: 'six times seven'}, expect: "
                  "\"${output.text.matches('^[0-9]+$')}\", " RETRY "}\n",
             NULL);
    testkit_reply(kit, (struct fake_reply){.text = "fourty-two"});
    testkit_reply(kit, (struct fake_reply){.text = "I said it"});
    testkit_reply(kit, (struct fake_reply){.text = "42"});
    testkit_do(kit, play_begin, NULL);
    testkit_do(kit, check_model, NULL);
}

static void check_agent(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "\"12 degrees\"");
    assert_holds(ctx, "\"step\":\"a\",\"kind\":\"agent\",\"status\":\"completed\",\"attempt\":2");
    count_children(ctx, 2);
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 1);
}

static void test_an_agent_is_asked_again_as_another_run(struct testkit *kit)
{
    play_set(kit,
             HEAD "output: '${steps.a.output.text}'\nsteps:\n"
                  "  - {id: a, agent: {name: assistant, prompt: 'how warm is ${input.where}?'}, "
                  "expect: \"${output.text.endsWith('degrees')}\", " RETRY "}\n",
             "{\"where\":\"Oslo\"}");
    testkit_reply(kit, (struct fake_reply){.text = "no idea"});
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "12 degrees"});
    testkit_do(kit, play_begin, NULL);
    testkit_do(kit, check_agent, NULL);
}

/* ---- when all attempts fail ---- */

static void check_used_up(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
    assert_holds(ctx, "\"attempt\":3");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 3);
}

static void test_attempts_of_a_loop_are_used_up(struct testkit *kit)
{
    never_mended(kit, HEAD "steps:\n"
                           "  - {id: again, loop: {while: 'true', max: 5, steps: [{id: x, tool: "
                           "lookup}]}, " RETRY "}\n");
    testkit_do(kit, check_used_up, NULL);
}

/* Three attempts of the step within three of what holds it. */
static void check_nested(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 9);
    assert_holds(ctx, "\"step\":\"both#3.left.x\"");
}

static void test_attempts_inside_of_attempts_multiply(struct testkit *kit)
{
    never_mended(kit, HEAD "steps:\n"
                           "  - {id: both, parallel: {left: [{id: x, tool: lookup, " RETRY
                           "}]}, " RETRY "}\n");
    testkit_do(kit, check_nested, NULL);
}

static void check_excepted(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"status\":\"failed\",\"type\":\"tool_failed\"}");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 1);
}

static void test_what_is_excepted_is_not_tried_again_and_may_be_passed_by(struct testkit *kit)
{
    never_mended(kit,
                 HEAD "output: {status: '${steps.each.status}', type: '${steps.each.error.type}'}\n"
                      "steps:\n"
                      "  - id: each\n"
                      "    map: {over: '${[1]}', steps: [{id: x, tool: lookup}]}\n"
                      "    retry: {attempts: 3, backoff: 1s, except: [tool_failed]}\n"
                      "    on_error: continue\n");
    testkit_do(kit, check_excepted, NULL);
}

static void check_only(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 1);
}

static void test_only_what_is_named_is_tried_again(struct testkit *kit)
{
    never_mended(kit, HEAD "steps:\n"
                           "  - id: both\n"
                           "    parallel: {left: [{id: x, tool: lookup}]}\n"
                           "    retry: {attempts: 3, backoff: 1s, only: [timeout]}\n");
    testkit_do(kit, check_only, NULL);
}

static void check_tolerated(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "[null,null]");
    assert_lacks(ctx, "each#2");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 2);
}

static void test_what_a_map_tolerates_is_no_reason_for_another_attempt(struct testkit *kit)
{
    never_mended(kit, HEAD "steps:\n"
                           "  - {id: each, map: {over: '${[1, 2]}', tolerate: 2, steps: [{id: x, "
                           "tool: lookup}]}, " RETRY "}\n");
    testkit_do(kit, check_tolerated, NULL);
}

/* ---- an attempt that takes too long ---- */

static void check_slow(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"left\":{\"ok\":true}}");
    assert_holds(ctx,
                 "\"step\":\"both\",\"kind\":\"parallel\",\"status\":\"completed\",\"attempt\":2");
}

static void test_an_attempt_that_takes_too_long_is_ended_and_followed_by_another(
    struct testkit *kit)
{
    play_set(kit,
             HEAD "steps:\n"
                  "  - {id: both, parallel: {left: [{id: x, tool: lookup}]}, timeout: 1s, " RETRY
                  "}\n",
             NULL);
    testkit_tool(kit, "lookup")->delay_ms = 20000;
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 1500);
    testkit_tool(kit, "lookup")->delay_ms = 0;
    testkit_run_ms(kit, MORE_THAN_BACKOFF_MS);
    testkit_do(kit, check_slow, NULL);
}

/* ---- what the attempts before did ---- */

/* Both attempts paid, and both payments are taken back. */
static void check_undone(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 2);
    assert_int_equal(testkit_tool(scene.kit, "notify")->effects, 2);
    assert_holds(ctx, "\"step\":\"both#2.left.p~\"");
}

static void test_what_every_attempt_did_is_undone(struct testkit *kit)
{
    never_mended(kit, HEAD "steps:\n"
                           "  - id: both\n"
                           "    parallel: {left: [{id: p, tool: pay, compensate: {tool: notify}}, "
                           "{id: x, tool: lookup}]}\n"
                           "    retry: {attempts: 2, backoff: 1s}\n");
    testkit_do(kit, check_undone, NULL);
}

/* ---- the node dies between two attempts ---- */

static void check_after_crash(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "[{\"ok\":true},{\"ok\":true}]");
    assert_holds(ctx, "\"step\":\"each#2[1].x\"");
    assert_lacks(ctx, "each#3");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1); /* it stands before the map */
}

static void test_attempts_are_counted_across_a_crash(struct testkit *kit)
{
    play_set(kit,
             HEAD "steps:\n"
                  "  - {id: p, tool: pay}\n"
                  "  - {id: each, map: {over: '${[1, 2]}', steps: [{id: x, tool: lookup}]}, retry: "
                  "{attempts: 2, backoff: 10s, jitter: 0}}\n",
             NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 5000); /* parked until the attempt is due */
    testkit_tool(kit, "lookup")->failure = REASON_NONE;
    testkit_crash(kit);
    testkit_run_ms(kit, 6000);
    testkit_do(kit, play_wake, NULL);
    testkit_do(kit, check_after_crash, NULL);
}

static const struct testkit_case cases[] = {
    TESTKIT_SCRIPT(test_a_map_is_tried_again_with_all_its_items),
    TESTKIT_SCRIPT(test_a_parallel_step_is_tried_again_with_all_its_arms),
    TESTKIT_SCRIPT(test_a_loop_is_tried_again_from_its_first_round),
    TESTKIT_SCRIPT(test_a_branch_is_tried_again_and_asks_its_conditions_again),
    TESTKIT_SCRIPT(test_a_workflow_in_a_workflow_is_tried_again_as_another_run),
    TESTKIT_SCRIPT(test_a_model_is_asked_again_until_its_answer_is_what_is_expected),
    TESTKIT_SCRIPT(test_an_agent_is_asked_again_as_another_run),
    TESTKIT_SCRIPT(test_attempts_of_a_loop_are_used_up),
    TESTKIT_SCRIPT(test_attempts_inside_of_attempts_multiply),
    TESTKIT_SCRIPT(test_what_is_excepted_is_not_tried_again_and_may_be_passed_by),
    TESTKIT_SCRIPT(test_only_what_is_named_is_tried_again),
    TESTKIT_SCRIPT(test_what_a_map_tolerates_is_no_reason_for_another_attempt),
    TESTKIT_SCRIPT(test_an_attempt_that_takes_too_long_is_ended_and_followed_by_another),
    TESTKIT_SCRIPT(test_what_every_attempt_did_is_undone),
    TESTKIT_SCRIPT(test_attempts_are_counted_across_a_crash),
};

int main(void)
{
    return testkit_main(cases, ARRAY_COUNT(cases));
}
