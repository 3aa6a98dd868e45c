/* A node that stops while something ends: what has happened is stored before it leaves, and the next start goes on behind it. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/replay/run_replay_testkit.h"
#include "orchestrator/workflow/workflow_store.h"
#include "store/memory.h"

enum { FIRST_MS = 200, SECOND_MS = 400, COMMIT_MS = 600, PATIENCE_MS = 500 };

struct slow_commit {
    const char *fault;
    bool is_met;
};

/* While the first outcome is stored the second comes, and the node loses its patience. */
static enum commit_outcome delay_commit(void *owner, struct context *ctx, const struct batch *batch)
{
    struct slow_commit *slow = owner;
    struct error ignored = {0};
    bool has_outcome = false;
    for (size_t i = 0; i < batch->count; i++)
        has_outcome =
            has_outcome || (batch->writes[i].record.table == TABLE_RUN_EVENTS &&
                            str_equal(record_text(&batch->writes[i].record, RUN_EVENTS_TYPE),
                                      S("tool.completed")));
    if (slow->is_met || !has_outcome || !batch->fault || strcmp(batch->fault, slow->fault) != 0)
        return COMMIT_OK;
    slow->is_met = true;
    (void) !context_sleep_ms(ctx, COMMIT_MS, &ignored);
    return COMMIT_OK;
}

static void drain(struct context *ctx, void *unused)
{
    struct context soon;
    struct error e = {0};
    (void) unused;
    context_init(&soon, ctx->scheduler, ctx->arena, context_deadline_in(ctx, PATIENCE_MS));
    assert_true(orchestrator_drain(scene.kit->o, &soon, &e));
    context_deinit(&soon);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
}

static void check_completed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "completed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "succeeded");
    assert_member(ctx, EVENT_BUDGET_SETTLED, "basis", "reported");
}

static void drain_and_go_on(struct testkit *kit, struct slow_commit *slow)
{
    testkit_run_ms(kit, FIRST_MS / 2);
    testkit_do(kit, drain, NULL);
    assert_true(slow->is_met);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    assert_int_equal(testkit_tool(kit, "notify")->begun, 1);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 1);
    testkit_do(kit, check_completed, NULL);
    (void) assert_replays(kit);
}

static void set_tools(struct testkit *kit, struct slow_commit *slow)
{
    testkit_tool(kit, "notify")->delay_ms = FIRST_MS;
    testkit_tool(kit, "pay")->delay_ms = SECOND_MS;
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = slow, .before_commit = delay_commit});
}

static void test_what_a_tool_did_while_the_node_stopped_is_known_at_the_next_start(
    struct testkit *kit)
{
    struct slow_commit slow = {.fault = "tool_completed"};
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"notify", "{}"}, {"pay", "{}"}}, .call_count = 2});
    testkit_reply(kit, (struct fake_reply){
                           .text = "done",
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    set_tools(kit, &slow);
    testkit_begin(kit, scene_begin, NULL);
    drain_and_go_on(kit, &slow);
}

static void test_so_is_what_a_step_did(struct testkit *kit)
{
    struct slow_commit slow = {.fault = "workflow_step"};
    play_set(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - id: both\n"
             "    parallel: {left: [{id: x, tool: notify}], right: [{id: y, tool: pay}]}\n"
             "  - {id: nap, sleep: 1s}\n",
             NULL);
    set_tools(kit, &slow);
    testkit_begin(kit, play_begin, NULL);
    drain_and_go_on(kit, &slow);
}

static void test_a_call_that_the_stop_cuts_off_is_made_again_if_it_may_be(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){
                           .text = "done",
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    testkit_tool(kit, "notify")->delay_ms = 20000;
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, FIRST_MS / 2);
    testkit_do(kit, drain, NULL);
    testkit_tool(kit, "notify")->delay_ms = 0;
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    assert_int_equal(testkit_tool(kit, "notify")->begun, 2);
    testkit_do(kit, check_completed, NULL);
    (void) assert_replays(kit);
}

/* ---- between an intent's commit and its call ---- */

static enum commit_outcome delay_intent(void *owner, struct context *ctx, const struct batch *batch)
{
    struct slow_commit *slow = owner;
    struct error ignored = {0};
    if (slow->is_met || !batch->fault || strcmp(batch->fault, slow->fault) != 0)
        return COMMIT_OK;
    slow->is_met = true;
    (void) !context_sleep_ms(ctx, COMMIT_MS, &ignored);
    return COMMIT_OK;
}

static void begin_with_slow_intent(struct testkit *kit, struct slow_commit *slow)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "done"});
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = slow, .before_commit = delay_intent});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, FIRST_MS / 2);
    assert_true(slow->is_met);
}

static void check_not_made(struct context *ctx, void *status)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), status);
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "failed");
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void test_a_call_that_was_not_made_when_the_run_is_cancelled_is_not_unknown(
    struct testkit *kit)
{
    struct slow_commit slow = {.fault = "tool_intent"};
    begin_with_slow_intent(kit, &slow);
    testkit_begin(kit, cancel_it, NULL);
    testkit_run_ms(kit, 3000);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_int_equal(testkit_tool(kit, "pay")->effects, 0);
    testkit_do(kit, check_not_made, (char *) (uintptr_t) "cancelled");
    (void) assert_replays(kit);
}

static void test_nor_is_one_that_was_not_made_when_the_node_stops(struct testkit *kit)
{
    struct slow_commit slow = {.fault = "tool_intent"};
    begin_with_slow_intent(kit, &slow);
    testkit_do(kit, drain, NULL);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 0);
    testkit_do(kit, check_not_made, (char *) (uintptr_t) "completed");
    (void) assert_replays(kit);
}

/* ---- nothing to wait for ---- */

static const char *const inner =
    "name: inner\nversion: 1.0.0\nsteps:\n  - {id: ok, approval: {title: \"Pay?\"}}\n";

static void begin_family(struct context *ctx, void *unused)
{
    struct definition_problems problems = {0};
    struct workflow_entry *entry;
    struct error e = {0};
    bool is_new;
    struct principal boss = testkit_principal(scene.kit, "boss", ROLE_LEVEL_OPERATOR);
    if (!workflow_put(scene.kit->o, ctx, &boss, str_from_cstr(inner), &problems, &entry, &is_new,
                      &e))
        fail_msg("%s", e.message);
    workflow_entry_release(entry);
    play_begin(ctx, unused);
}

static void drain_with_patience(struct context *ctx, void *took_ms)
{
    struct context later;
    struct error e = {0};
    int64_t begun_ns = context_now_ns(ctx);
    context_init(&later, ctx->scheduler, ctx->arena, context_deadline_in(ctx, 20000));
    assert_true(orchestrator_drain(scene.kit->o, &later, &e));
    context_deinit(&later);
    *(int64_t *) took_ms = (context_now_ns(ctx) - begun_ns) / 1000000;
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static void check_status(struct context *ctx, void *status)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), status);
}

/* Its step waits for a person, or the time: that is no work which a patient node could see the end of. */
static void test_a_node_does_not_wait_for_who_waits_itself(struct testkit *kit)
{
    static char is_running[] = "running", is_completed[] = "completed";
    static const struct {
        const char *step;
        char *then;
    } cases[] = {
        {"{id: sub, workflow: {name: inner}}", is_running},
        {"{id: nap, sleep: 1900ms}", is_completed},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char text[200];
        int64_t took_ms = -1;
        (void) snprintf(text, sizeof text, "name: w\nversion: 1.%zu.0\nsteps:\n  - %s\n", i,
                        cases[i].step);
        play_set(kit, text, NULL);
        testkit_begin(kit, begin_family, NULL);
        testkit_run_ms(kit, 1000);
        testkit_begin(kit, check_status, is_running); /* (testkit_do lets all come to rest) */
        testkit_begin(kit, drain_with_patience, &took_ms);
        testkit_run_ms(kit, 25000);
        assert_in_range(took_ms, 0, 100);
        testkit_crash(kit);
        testkit_run_ms(kit, 3000);
        testkit_do(kit, check_status, cases[i].then);
    }
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_what_a_tool_did_while_the_node_stopped_is_known_at_the_next_start),
        TESTKIT_SCRIPT(test_so_is_what_a_step_did),
        TESTKIT_SCRIPT(test_a_node_does_not_wait_for_who_waits_itself),
        TESTKIT_SCRIPT(test_a_call_that_the_stop_cuts_off_is_made_again_if_it_may_be),
        TESTKIT_SCRIPT(test_a_call_that_was_not_made_when_the_run_is_cancelled_is_not_unknown),
        TESTKIT_SCRIPT(test_nor_is_one_that_was_not_made_when_the_node_stops),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
