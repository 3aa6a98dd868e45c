/* What a journal tells only by its order: which call ended first, an append that failed, news that came before a wait. */
#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "store/memory.h"

/* The first append that holds an event of this type, behind so many others, fails. */
static struct {
    str type;
    int skipped;
} refused;

static enum commit_outcome refuse(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner, (void) ctx;
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        if (row->table == TABLE_RUN_EVENTS &&
            str_equal(record_text(row, RUN_EVENTS_TYPE), refused.type) && refused.skipped-- == 0)
            return COMMIT_FAIL;
    }
    return COMMIT_OK;
}

static void refuse_append(struct testkit *kit, const char *type, int behind)
{
    refused.type = str_from_cstr(type);
    refused.skipped = behind;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = refuse});
}

static void assert_status(struct context *ctx, void *wanted)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), wanted);
}

/* It was refused once, ended so, and replays. */
static str assert_played(struct testkit *kit, const char *status)
{
    testkit_do(kit, assert_status, (char *) (uintptr_t) status);
    return assert_replays(kit);
}

static void play_refused(struct testkit *kit, const char *status)
{
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 60000);
    assert_true(refused.skipped < 0);
    str text = assert_played(kit, status);
    assert_int_equal(str_find(text, S("run.resumed")), STR_NOT_FOUND); /* nothing says it */
}

/* ---- which of several ended first ---- */

static void test_calls_that_ended_in_another_order_behind_a_crash_replay(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 20;
    testkit_tool(kit, "notify")->delay_ms = 50;
    testkit_tool(kit, "pay")->delay_ms = 35;
    testkit_reply(kit, (struct fake_reply){.text = "lost", .delay_ms = 70000});
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"notify", "{}"}, {"pay", "{}"}, {"lookup", "{}"}},
                                      .call_count = 3});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    str text = assert_played(kit, "completed");
    assert_true(str_find(text, S("run.resumed")) != STR_NOT_FOUND);
}

static void test_ends_of_one_moment_are_told_in_their_order(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 10;
    testkit_tool(kit, "notify")->delay_ms = 10;
    testkit_reply(
        kit, (struct fake_reply){.calls = {{"lookup", "{}"}, {"notify", "{}"}, {"lookup", "{}"}},
                                 .call_count = 3});
    testkit_do(kit, scene_begin, NULL);
    (void) assert_played(kit, "completed");
}

/* ---- an append that failed: the run is loaded again ---- */

static void test_a_call_that_was_made_again_when_an_append_failed_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 40;
    testkit_tool(kit, "pay")->delay_ms = 20;
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"lookup", "{}"}, {"pay", "{}"}}, .call_count = 2});
    refuse_append(kit, "tool.completed", 0);
    play_refused(kit, "completed");
}

static void test_a_run_that_was_to_fail_and_went_on_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
    testkit_reply(kit, (struct fake_reply){.text = "after all"});
    refuse_append(kit, "run.failed", 0);
    play_refused(kit, "completed");
}

static void test_what_a_failed_call_said_comes_from_its_row_behind_an_append_that_failed(
    struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("pay");
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"pay", "{}"}, {"lookup", "{}"}}, .call_count = 2});
    refuse_append(kit, "model.requested", 1);
    play_refused(kit, "completed");
}

static void steer_it(struct context *ctx, void *unused)
{
    struct run_request request = {
        .session_id = scene.session_id, .content = S("and short"), .on_busy = DOUBLE_TEXT_STEER};
    struct message_outcome outcome;
    struct error e = {0};
    (void) unused;
    if (!message_send(scene.kit->o, ctx, &scene.user, &request, &outcome, &e))
        fail_msg("%s", e.message);
}

static void test_a_run_that_was_to_fail_and_was_steered_instead_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID, .delay_ms = 100});
    testkit_reply(kit, (struct fake_reply){.text = "after all"});
    refuse_append(kit, "run.failed", 0);
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 50);
    testkit_begin(kit, steer_it, NULL);
    testkit_run_ms(kit, 60000);
    assert_true(refused.skipped < 0);
    str text = assert_played(kit, "completed");
    assert_true(str_find(text, S("\"steers\":true")) != STR_NOT_FOUND);
    assert_int_equal(str_find(text, S("run.resumed")), STR_NOT_FOUND);
}

/* Until then they stand in the order of their ends. */
static void test_a_decision_names_calls_as_they_were_asked_for_behind_an_append_that_failed(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 50;
    testkit_tool(kit, "notify")->delay_ms = 10;
    testkit_reply(
        kit, (struct fake_reply){.calls = {{"lookup", "{}"}, {"notify", "{}"}}, .call_count = 2});
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"pay", "{\"to\":\"eve\"}"}}, .call_count = 1});
    refuse_append(kit, "run.waiting", 0);
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 60000);
    assert_true(refused.skipped < 0);
    str text = assert_played(kit, "completed");
    assert_true(str_find(text, S("containment:approved")) != STR_NOT_FOUND);
    assert_int_equal(str_find(text, S("run.resumed")), STR_NOT_FOUND);
}

static void begin_with_one_call(struct context *ctx, void *unused)
{
    cost budget = COST_LIMITLESS;
    (void) unused;
    budget.tool_calls = 1;
    scene_begin_with(ctx, budget);
}

/* The run stored what it had used, to have room for more; then an append failed. */
static void test_what_was_stored_to_make_room_is_there_behind_an_append_that_failed(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"notify", "{}"}, {"pay", "{}"}}, .call_count = 2});
    refuse_append(kit, "tool.completed", 0);
    testkit_begin(kit, begin_with_one_call, NULL);
    testkit_run_ms(kit, 60000);
    assert_true(refused.skipped < 0);
    (void) assert_played(kit, "completed");
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void test_a_cancel_heard_when_an_append_had_failed_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "pay")->delay_ms = 30;
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"pay", "{}"}, {"lookup", "{}"}}, .call_count = 2});
    refuse_append(kit, "tool.completed", 0);
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 35);
    testkit_begin(kit, cancel_it, NULL);
    testkit_run_ms(kit, 60000);
    (void) assert_played(kit, "cancelled");
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_calls_that_ended_in_another_order_behind_a_crash_replay),
        TESTKIT_SCRIPT(test_ends_of_one_moment_are_told_in_their_order),
        TESTKIT_SCRIPT(test_a_call_that_was_made_again_when_an_append_failed_replays),
        TESTKIT_SCRIPT(test_a_run_that_was_to_fail_and_went_on_replays),
        TESTKIT_SCRIPT(
            test_what_a_failed_call_said_comes_from_its_row_behind_an_append_that_failed),
        TESTKIT_SCRIPT(test_a_run_that_was_to_fail_and_was_steered_instead_replays),
        TESTKIT_SCRIPT(
            test_a_decision_names_calls_as_they_were_asked_for_behind_an_append_that_failed),
        TESTKIT_SCRIPT(test_what_was_stored_to_make_room_is_there_behind_an_append_that_failed),
        TESTKIT_SCRIPT(test_a_cancel_heard_when_an_append_had_failed_replays),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
