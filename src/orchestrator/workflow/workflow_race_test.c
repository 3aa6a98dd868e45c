/* What comes to an instance at the very moment of a commit: nothing that has happened is lost by it. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/replay/run_replay_testkit.h"
#include "store/memory.h"

#define HEAD "name: w\nversion: 1.0.0\n"

enum { COMMIT_MS = 100 };

/* The commit that withdraws the approval takes its time. */
static enum commit_outcome delay_withdrawal(void *owner, struct context *ctx,
                                            const struct batch *batch)
{
    bool *is_delayed = owner, was_delayed = *is_delayed;
    struct error ignored = {0};
    for (size_t i = 0; i < batch->count && !*is_delayed; i++)
        *is_delayed = batch->writes[i].op == WRITE_UPDATE &&
                      batch->writes[i].record.table == TABLE_APPROVALS &&
                      batch->writes[i].where_column == APPROVALS_STATUS;
    if (*is_delayed && !was_delayed)
        (void) !context_sleep_ms(ctx, COMMIT_MS, &ignored);
    return COMMIT_OK;
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void check_failed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "failed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "failed");
    assert_member(ctx, EVENT_BUDGET_SETTLED, "basis", "reported");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "cancelled");
}

#define BOTH                                                                                       \
    HEAD                                                                                           \
        "steps:\n"                                                                                 \
        "  - id: both\n"                                                                           \
        "    parallel: {left: [{id: x, approval: {title: may I}}], right: [{id: y, tool: pay}]}\n"

static void test_what_a_tool_did_is_kept_though_the_approval_beside_it_is_decided_just_then(
    struct testkit *kit)
{
    bool is_delayed = false;
    play_set(kit, BOTH, NULL);
    testkit_tool(kit, "pay")->delay_ms = 500;
    testkit_tool(kit, "pay")->failure = REASON_TOOL_FAILED;
    memory_store_set_hooks(
        kit->store,
        (struct memory_store_hooks){.owner = &is_delayed, .before_commit = delay_withdrawal});
    testkit_begin(kit, play_begin, NULL);
    for (int ms = 0; ms < 2000 && !is_delayed; ms += COMMIT_MS / 4)
        testkit_run_ms(kit, COMMIT_MS / 4);
    assert_true(is_delayed);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 5000);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 1);
    testkit_do(kit, check_failed, NULL);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    (void) assert_replays(kit);
}

static void test_a_cancel_goes_through_though_the_approval_is_decided_just_then(struct testkit *kit)
{
    bool is_delayed = false;
    play_set(kit, HEAD "steps:\n  - {id: x, approval: {title: may I}}\n", NULL);
    memory_store_set_hooks(
        kit->store,
        (struct memory_store_hooks){.owner = &is_delayed, .before_commit = delay_withdrawal});
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, cancel_it, NULL);
    for (int ms = 0; ms < 2000 && !is_delayed; ms += COMMIT_MS / 4)
        testkit_run_ms(kit, COMMIT_MS / 4);
    assert_true(is_delayed);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_cancelled, NULL);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    (void) assert_replays(kit);
}

/* ---- what it waits for comes while it writes that it waits ---- */

static enum commit_outcome delay_waiting(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    bool *is_delayed = owner;
    struct error ignored = {0};
    if (*is_delayed || !batch->fault || strcmp(batch->fault, "run_waiting") != 0)
        return COMMIT_OK;
    *is_delayed = true;
    (void) !context_sleep_ms(ctx, COMMIT_MS, &ignored);
    return COMMIT_OK;
}

static void check_completed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "completed");
}

static void test_an_instance_that_went_on_at_once_is_no_waiting_one_after_a_crash(
    struct testkit *kit)
{
    bool is_delayed = false;
    play_set(kit, HEAD "steps:\n  - {id: x, approval: {title: may I}}\n  - {id: y, tool: notify}\n",
             NULL);
    testkit_tool(kit, "notify")->delay_ms = 1000;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.owner = &is_delayed,
                                                                   .before_commit = delay_waiting});
    testkit_begin(kit, play_begin, NULL);
    for (int ms = 0; ms < 2000 && !is_delayed; ms += COMMIT_MS / 4)
        testkit_run_ms(kit, COMMIT_MS / 4);
    assert_true(is_delayed);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 2 * COMMIT_MS);
    assert_int_equal(testkit_tool(kit, "notify")->begun, 1);
    testkit_crash(kit);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_completed, NULL);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    (void) assert_replays(kit);
}

/* ---- the append that tells of a child's end fails: what the instance knew of its timeouts is forgotten ---- */

static enum commit_outcome refuse_end(void *owner, struct context *ctx, const struct batch *batch)
{
    bool *is_refused = owner;
    (void) ctx;
    for (size_t i = 0; i < batch->count && !*is_refused; i++)
        if (batch->writes[i].record.table == TABLE_RUN_EVENTS &&
            str_equal(record_text(&batch->writes[i].record, RUN_EVENTS_TYPE),
                      S("run.child_completed"))) {
            *is_refused = true;
            return COMMIT_FAIL;
        }
    return COMMIT_OK;
}

static void play_slow_model(struct testkit *kit, const char *definition)
{
    bool is_refused = false;
    play_set(kit, definition, NULL);
    testkit_reply(kit, (struct fake_reply){.text = "late", .delay_ms = 30000});
    testkit_reply(kit, (struct fake_reply){.text = "in time"});
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &is_refused, .before_commit = refuse_end});
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 20000);
    assert_true(is_refused);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_do(kit, check_completed, NULL);
    (void) assert_replays(kit);
}

static void test_a_step_whose_time_is_over_is_tried_again_behind_an_append_that_failed(
    struct testkit *kit)
{
    play_slow_model(kit, HEAD "steps:\n"
                              "  - {id: m, model: {prompt: hello}, timeout: 1s, retry: {attempts: "
                              "2, backoff: 1s, only: [timeout]}}\n");
}

static void test_so_is_one_around_it(struct testkit *kit)
{
    play_slow_model(kit, HEAD "steps:\n"
                              "  - id: both\n"
                              "    parallel: {left: [{id: m, model: {prompt: hello}}]}\n"
                              "    timeout: 1s\n"
                              "    retry: {attempts: 2, backoff: 1s, only: [timeout]}\n");
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_step_whose_time_is_over_is_tried_again_behind_an_append_that_failed),
        TESTKIT_SCRIPT(test_so_is_one_around_it),
        TESTKIT_SCRIPT(
            test_what_a_tool_did_is_kept_though_the_approval_beside_it_is_decided_just_then),
        TESTKIT_SCRIPT(test_a_cancel_goes_through_though_the_approval_is_decided_just_then),
        TESTKIT_SCRIPT(test_an_instance_that_went_on_at_once_is_no_waiting_one_after_a_crash),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
