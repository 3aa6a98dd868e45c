/* Instances whose session is paused: what is at work ends, nothing begins, and each of them replays. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/replay/run_replay_testkit.h"
#include "orchestrator/workflow/workflow_run.h"
#include "store/memory.h"

#define HEAD "name: w\nversion: 1.0.0\n"

static void pause_it(struct context *ctx, void *unused)
{
    struct record row;
    struct error e = {0};
    (void) unused;
    if (!session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

static void resume_it(struct context *ctx, void *unused)
{
    struct record row;
    struct error e = {0};
    (void) unused;
    if (!session_resume(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

/* Time goes on, and with it the sweep. */
static void run_on(struct testkit *kit, int64_t ms)
{
    for (; ms > 0; ms -= 500) {
        testkit_run_ms(kit, ms < 500 ? ms : 500);
        testkit_begin(kit, play_wake, NULL);
    }
    testkit_run_ms(kit, 1);
}

static void begin_and_pause(struct testkit *kit, const char *definition, int64_t after_ms)
{
    play_set(kit, definition, NULL);
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, after_ms);
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 1);
}

static void resume_and_end(struct testkit *kit)
{
    testkit_begin(kit, resume_it, NULL);
    run_on(kit, 20000);
}

static void assert_is(struct context *ctx, void *status)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), status);
}

static void check_paused(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_true(json_bool_or(event(ctx, EVENT_RUN_WAITING), S("is_paused"), false));
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static int begun(const char *tool)
{
    return testkit_tool(scene.kit, tool)->begun;
}

/* It ended so, and replays so. */
static void assert_played(struct testkit *kit, const char *status)
{
    testkit_do(kit, assert_is, (char *) (uintptr_t) status);
    (void) assert_replays(kit);
}

/* ---- between steps ---- */

#define NAPS                                                                                       \
    HEAD "steps:\n"                                                                                \
         "  - {id: a, tool: pay}\n"                                                                \
         "  - {id: s1, sleep: 1s}\n"                                                               \
         "  - {id: b, tool: pay}\n"                                                                \
         "  - {id: s2, sleep: 1s}\n"                                                               \
         "  - {id: c, tool: pay}\n"

static void test_no_step_begins_while_the_session_is_paused(struct testkit *kit)
{
    begin_and_pause(kit, NAPS, 500);
    run_on(kit, 20000);
    assert_int_equal(begun("pay"), 1);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_int_equal(begun("pay"), 3);
    assert_played(kit, "completed");
}

static void test_a_paused_instance_stays_paused_over_a_crash(struct testkit *kit)
{
    begin_and_pause(kit, NAPS, 500);
    run_on(kit, 1000);
    testkit_crash(kit);
    run_on(kit, 20000);
    assert_int_equal(begun("pay"), 1);
    testkit_do(kit, check_paused, NULL);
    resume_and_end(kit);
    assert_int_equal(begun("pay"), 3);
    assert_played(kit, "completed");
}

static void test_a_start_goes_on_with_what_was_resumed_before_the_crash(struct testkit *kit)
{
    begin_and_pause(kit, NAPS, 500);
    run_on(kit, 3000);
    testkit_do(kit, check_paused, NULL);
    testkit_do(kit, scene_resume_unheard, NULL);
    testkit_crash(kit);
    run_on(kit, 20000);
    assert_int_equal(begun("pay"), 3);
    assert_played(kit, "completed");
}

static void check_none_due(struct context *ctx, void *unused)
{
    size_t woken;
    struct error e = {0};
    (void) unused;
    assert_true(workflows_wake(scene.kit->o, ctx, &woken, &e));
    assert_int_equal(woken, 0);
}

static void test_the_clock_passes_over_a_paused_instance_that_is_due(struct testkit *kit)
{
    begin_and_pause(kit,
                    HEAD "steps:\n"
                         "  - {id: s, sleep: 1h}\n"
                         "  - {id: b, tool: pay}\n",
                    10000);
    run_on(kit, 3600 * 1000);
    testkit_do(kit, check_none_due, NULL);
    assert_int_equal(begun("pay"), 0);
    resume_and_end(kit);
    assert_int_equal(begun("pay"), 1);
    assert_played(kit, "completed");
}

/* ---- while steps are at work ---- */

#define ARMS                                                                                       \
    HEAD "steps:\n"                                                                                \
         "  - id: both\n"                                                                          \
         "    parallel: {left: [{id: x, tool: lookup}, {id: then, tool: "                          \
         "notify}], right: [{id: "                                                                 \
         "y, tool: pay}, {id: last, tool: notify}]}\n"

static void set_arms(struct testkit *kit, int64_t left_ms, int64_t right_ms)
{
    testkit_tool(kit, "lookup")->delay_ms = left_ms;
    testkit_tool(kit, "pay")->delay_ms = right_ms;
}

static void test_what_is_at_work_ends_and_nothing_follows_it(struct testkit *kit)
{
    set_arms(kit, 600, 1200);
    begin_and_pause(kit, ARMS, 200);
    run_on(kit, 5000);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 1);
    assert_int_equal(begun("notify"), 0);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 1);
    assert_int_equal(begun("notify"), 2);
    assert_played(kit, "completed");
}

static void test_it_goes_on_at_once_when_it_is_resumed_while_a_step_is_at_work(struct testkit *kit)
{
    set_arms(kit, 4000, 400);
    begin_and_pause(kit, ARMS, 200);
    testkit_run_ms(kit, 1000);
    assert_int_equal(begun("notify"), 0);
    testkit_begin(kit, resume_it, NULL);
    testkit_run_ms(kit, 100);
    assert_int_equal(begun("notify"), 1);
    run_on(kit, 20000);
    assert_played(kit, "completed");
}

static void test_it_may_be_paused_again_and_again(struct testkit *kit)
{
    set_arms(kit, 4000, 400);
    begin_and_pause(kit, ARMS, 200);
    for (int i = 0; i < 3; i++) {
        testkit_run_ms(kit, 300);
        testkit_begin(kit, resume_it, NULL);
        testkit_run_ms(kit, i == 1 ? 0 : 50);
        testkit_begin(kit, pause_it, NULL);
    }
    run_on(kit, 10000);
    testkit_do(kit, check_paused, NULL);
    resume_and_end(kit);
    assert_played(kit, "completed");
}

static void test_a_crash_while_a_step_is_at_work_leaves_it_paused(struct testkit *kit)
{
    set_arms(kit, 3000, 400);
    begin_and_pause(kit, ARMS, 200);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    run_on(kit, 10000);
    assert_int_equal(begun("notify"), 0);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_played(kit, "completed");
}

static void test_an_instance_that_fails_while_it_is_paused_fails(struct testkit *kit)
{
    set_arms(kit, 400, 1000);
    testkit_tool(kit, "pay")->failure = REASON_TOOL_FAILED;
    begin_and_pause(kit, ARMS, 200);
    run_on(kit, 5000);
    assert_int_equal(begun("notify"), 0);
    assert_played(kit, "failed");
}

static void test_the_last_step_ends_a_paused_instance(struct testkit *kit)
{
    testkit_tool(kit, "pay")->delay_ms = 1000;
    begin_and_pause(kit, HEAD "steps:\n  - {id: a, tool: pay}\n", 200);
    run_on(kit, 5000);
    assert_played(kit, "completed");
}

/* The commit of the first outcome takes its time, is applied, and nobody hears of it. */
static enum commit_outcome lose_outcome(void *owner, struct context *ctx, const struct batch *batch)
{
    bool *is_lost = owner, has_outcome = false;
    struct error ignored = {0};
    for (size_t i = 0; i < batch->count; i++)
        has_outcome =
            has_outcome || (batch->writes[i].record.table == TABLE_RUN_EVENTS &&
                            str_equal(record_text(&batch->writes[i].record, RUN_EVENTS_TYPE),
                                      S("run.step_completed")));
    if (*is_lost || !has_outcome)
        return COMMIT_OK;
    *is_lost = true;
    (void) !context_sleep_ms(ctx, 200, &ignored);
    return COMMIT_APPLIED_BUT_FAIL;
}

static void test_it_is_resumed_while_an_append_is_lost_and_the_journal_knows_that_it_paused(
    struct testkit *kit)
{
    bool is_lost = false;
    testkit_tool(kit, "pay")->delay_ms = 1000;
    begin_and_pause(kit, HEAD "steps:\n  - {id: a, tool: pay}\n  - {id: b, tool: notify}\n", 200);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &is_lost, .before_commit = lose_outcome});
    for (int ms = 0; ms < 2000 && !is_lost; ms += 50)
        testkit_run_ms(kit, 50);
    assert_true(is_lost);
    testkit_begin(kit, resume_it, NULL);
    run_on(kit, 20000);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_int_equal(begun("notify"), 1);
    assert_played(kit, "completed");
}

/* ---- while children are at work ---- */

#define THINKS                                                                                     \
    HEAD "steps:\n"                                                                                \
         "  - {id: m, model: {prompt: hello}}\n"                                                   \
         "  - {id: b, tool: pay}\n"

static void set_thought(struct testkit *kit)
{
    play_set(kit, THINKS, NULL);
    testkit_reply(kit, (struct fake_reply){.text = "well", .delay_ms = 1000});
    testkit_reply(kit, (struct fake_reply){.text = "well", .delay_ms = 1000});
}

static void think_and_pause(struct testkit *kit)
{
    set_thought(kit);
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 200);
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 1);
}

static void test_a_child_at_work_ends_and_nothing_follows_it(struct testkit *kit)
{
    think_and_pause(kit);
    run_on(kit, 10000);
    assert_int_equal(kit->model_calls, 1);
    assert_int_equal(begun("pay"), 0);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_int_equal(kit->model_calls, 1);
    assert_int_equal(begun("pay"), 1);
    assert_played(kit, "completed");
}

static void test_a_child_that_a_crash_interrupts_ends_while_its_parent_is_paused(
    struct testkit *kit)
{
    think_and_pause(kit);
    testkit_run_ms(kit, 200);
    testkit_crash(kit);
    run_on(kit, 10000);
    assert_int_equal(kit->model_calls, 2);
    assert_int_equal(begun("pay"), 0);
    testkit_do(kit, check_paused, NULL);
    resume_and_end(kit);
    assert_int_equal(begun("pay"), 1);
    assert_played(kit, "completed");
}

static void test_a_child_of_a_paused_instance_ends_when_it_is_cancelled(struct testkit *kit)
{
    think_and_pause(kit);
    testkit_begin(kit, cancel_it, NULL);
    run_on(kit, 3000);
    assert_int_equal(begun("pay"), 0);
    assert_played(kit, "cancelled");
}

/* The commit that begins the child takes its time, is applied, and nobody hears of it. */
static enum commit_outcome lose_answer(void *owner, struct context *ctx, const struct batch *batch)
{
    bool *is_lost = owner;
    struct error ignored = {0};
    if (*is_lost || !batch->fault || strcmp(batch->fault, "workflow_step") != 0)
        return COMMIT_OK;
    *is_lost = true;
    (void) !context_sleep_ms(ctx, 100, &ignored);
    return COMMIT_APPLIED_BUT_FAIL;
}

static void test_a_child_is_begun_though_the_pause_came_before_its_beginning_was_known(
    struct testkit *kit)
{
    bool is_lost = false;
    set_thought(kit);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &is_lost, .before_commit = lose_answer});
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 50);
    assert_true(is_lost);
    testkit_begin(kit, pause_it, NULL);
    run_on(kit, 10000);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_do(kit, check_paused, NULL);
    assert_int_equal(kit->model_calls, 1);
    resume_and_end(kit);
    assert_int_equal(begun("pay"), 1);
    testkit_do(kit, assert_is, (char *) (uintptr_t) "completed");
}

/* ---- cancelled, and undone ---- */

#define UNDONE                                                                                     \
    HEAD "steps:\n"                                                                                \
         "  - {id: a, tool: pay, compensate: {tool: notify}}\n"                                    \
         "  - {id: b, tool: lookup}\n"                                                             \
         "  - {id: c, tool: pay}\n"

static void test_a_paused_instance_that_is_cancelled_is_undone(struct testkit *kit)
{
    testkit_tool(kit, "lookup")->delay_ms = 1000;
    begin_and_pause(kit, UNDONE, 200);
    run_on(kit, 5000);
    testkit_do(kit, check_paused, NULL);
    testkit_begin(kit, cancel_it, NULL);
    run_on(kit, 5000);
    assert_int_equal(begun("notify"), 1);
    assert_int_equal(begun("pay"), 1);
    assert_played(kit, "cancelled");
}

static void test_so_is_one_whose_step_is_still_at_work(struct testkit *kit)
{
    testkit_tool(kit, "lookup")->delay_ms = 3000;
    begin_and_pause(kit, UNDONE, 200);
    testkit_run_ms(kit, 500);
    testkit_begin(kit, cancel_it, NULL);
    run_on(kit, 10000);
    assert_int_equal(begun("notify"), 1);
    assert_played(kit, "cancelled");
}

static void test_nothing_is_undone_while_it_is_paused(struct testkit *kit)
{
    testkit_tool(kit, "lookup")->delay_ms = 1000;
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    begin_and_pause(kit, UNDONE, 200);
    run_on(kit, 5000);
    assert_int_equal(begun("notify"), 0);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_int_equal(begun("notify"), 1);
    assert_played(kit, "failed");
}

/* ---- what others bring, and the clock ---- */

static void test_a_timeout_goes_on_counting(struct testkit *kit)
{
    begin_and_pause(kit,
                    HEAD "steps:\n"
                         "  - {id: a, wait_signal: {name: never, timeout: 5s}, on_error: "
                         "continue}\n"
                         "  - {id: b, tool: pay}\n",
                    200);
    run_on(kit, 10000);
    assert_int_equal(begun("pay"), 0);
    testkit_do(kit, assert_is, (char *) (uintptr_t) "waiting"); /* it was out of memory before */
    testkit_begin(kit, resume_it, NULL);
    testkit_run_ms(kit, 100);
    assert_int_equal(begun("pay"), 1);
    run_on(kit, 1000);
    assert_played(kit, "completed");
}

static void test_a_call_that_is_approved_meanwhile_is_not_made_before_it_is_resumed(
    struct testkit *kit)
{
    testkit_tool(kit, "pay")->delay_ms = 3000;
    begin_and_pause(kit,
                    HEAD "steps:\n"
                         "  - id: both\n"
                         "    parallel: {left: [{id: x, tool: wipe}], right: [{id: y, tool: "
                         "pay}]}\n",
                    200);
    testkit_begin(kit, scene_approve, NULL);
    run_on(kit, 10000);
    assert_int_equal(begun("wipe"), 0);
    testkit_do(kit, check_paused, NULL);
    (void) assert_replays(kit);
    resume_and_end(kit);
    assert_int_equal(begun("wipe"), 1);
    assert_played(kit, "completed");
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_no_step_begins_while_the_session_is_paused),
        TESTKIT_SCRIPT(test_a_paused_instance_stays_paused_over_a_crash),
        TESTKIT_SCRIPT(test_a_start_goes_on_with_what_was_resumed_before_the_crash),
        TESTKIT_SCRIPT(test_the_clock_passes_over_a_paused_instance_that_is_due),
        TESTKIT_SCRIPT(test_what_is_at_work_ends_and_nothing_follows_it),
        TESTKIT_SCRIPT(test_it_goes_on_at_once_when_it_is_resumed_while_a_step_is_at_work),
        TESTKIT_SCRIPT(test_it_may_be_paused_again_and_again),
        TESTKIT_SCRIPT(test_a_crash_while_a_step_is_at_work_leaves_it_paused),
        TESTKIT_SCRIPT(
            test_it_is_resumed_while_an_append_is_lost_and_the_journal_knows_that_it_paused),
        TESTKIT_SCRIPT(test_an_instance_that_fails_while_it_is_paused_fails),
        TESTKIT_SCRIPT(test_the_last_step_ends_a_paused_instance),
        TESTKIT_SCRIPT(test_a_child_at_work_ends_and_nothing_follows_it),
        TESTKIT_SCRIPT(test_a_child_that_a_crash_interrupts_ends_while_its_parent_is_paused),
        TESTKIT_SCRIPT(test_a_child_of_a_paused_instance_ends_when_it_is_cancelled),
        TESTKIT_SCRIPT(test_a_child_is_begun_though_the_pause_came_before_its_beginning_was_known),
        TESTKIT_SCRIPT(test_a_paused_instance_that_is_cancelled_is_undone),
        TESTKIT_SCRIPT(test_so_is_one_whose_step_is_still_at_work),
        TESTKIT_SCRIPT(test_nothing_is_undone_while_it_is_paused),
        TESTKIT_SCRIPT(test_a_timeout_goes_on_counting),
        TESTKIT_SCRIPT(test_a_call_that_is_approved_meanwhile_is_not_made_before_it_is_resumed),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
