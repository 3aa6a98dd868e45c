/* Whose turn it is when a run goes on: it queues with its own priority, whatever wakes it. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/orchestrator_internal.h"

enum { SLOW_MS = 5000 };

static void begin_batch(struct context *ctx, void *unused)
{
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.user.priority = PRIORITY_BATCH + 1;
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "in bulk");
}

/* The one run at work holds a batch run's place. */
static void assert_batch_at_work(struct testkit *kit)
{
    struct admission_counts counts = admission_look(kit->o->admission);
    assert_int_equal(counts.active, 1);
    assert_int_equal(counts.active_batch, 1);
    testkit_run_ms(kit, 4 * SLOW_MS);
    assert_int_equal(admission_look(kit->o->admission).active, 0);
}

static void test_a_batch_run_that_was_approved_goes_on_as_one(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.delay_ms = SLOW_MS});
    testkit_do(kit, begin_batch, NULL);
    assert_int_equal(admission_look(kit->o->admission).active, 0);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 100);
    assert_batch_at_work(kit);
}

static void test_a_batch_run_that_a_start_brings_back_goes_on_as_one(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = SLOW_MS});
    testkit_begin(kit, begin_batch, NULL);
    testkit_run_ms(kit, 100);
    testkit_crash(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = SLOW_MS});
    testkit_run_ms(kit, 100);
    assert_batch_at_work(kit);
}

static void send_another(struct context *ctx, void *mode)
{
    struct run_request request = {.session_id = scene.session_id,
                                  .content = S("and this"),
                                  .on_busy = *(enum double_text *) mode};
    struct message_outcome outcome;
    struct error e = {0};
    if (!message_send(scene.kit->o, ctx, &scene.user, &request, &outcome, &e))
        fail_msg("%s", e.message);
}

static void test_a_batch_message_that_waited_for_its_turn_is_answered_as_one(struct testkit *kit)
{
    enum double_text modes[] = {DOUBLE_TEXT_ENQUEUE, DOUBLE_TEXT_STEER};
    for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
        scene_start(kit);
        testkit_reply(kit, (struct fake_reply){.text = "first", .delay_ms = SLOW_MS});
        testkit_reply(kit, (struct fake_reply){.text = "second", .delay_ms = SLOW_MS});
        testkit_begin(kit, begin_batch, NULL);
        testkit_run_ms(kit, 100);
        testkit_begin(kit, send_another, &modes[i]);
        testkit_run_ms(kit, SLOW_MS + 100);
        assert_batch_at_work(kit);
    }
}

/* ---- one that waits for another agent ---- */

static void test_a_batch_run_that_hears_its_childs_answer_goes_on_as_one(struct testkit *kit)
{
    scene_start_pair(kit, "cleaner");
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"agent_cleaner", "{\"message\":\"clean up\"}"}},
                                      .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "it is clean"});
    testkit_reply(kit, (struct fake_reply){.text = "all done", .delay_ms = SLOW_MS});
    testkit_do(kit, begin_batch, NULL);
    assert_int_equal(admission_look(kit->o->admission).active, 0);
    testkit_begin(kit, scene_approve, NULL);
    testkit_run_ms(kit, 100);
    assert_batch_at_work(kit);
}

/* ---- rows ---- */

static void test_the_priority_of_a_row_is_its_own_or_normal(struct testkit *kit)
{
    (void) kit;
    static const struct {
        const char *metadata;
        enum priority wanted;
    } rows[] = {
        {"{\"role\":\"user\",\"priority\":\"batch\"}", PRIORITY_BATCH},
        {"{\"priority\":\"interactive\"}", PRIORITY_INTERACTIVE},
        {"{\"caller_id\":\"\\\"priority\\\":\\\"batch\\\"\",\"priority\":\"normal\"}",
         PRIORITY_NORMAL},
        {"{\"priority\":\"urgent\"}", PRIORITY_NORMAL},
        {"{\"priority\":\"ba", PRIORITY_NORMAL},
        {"{}", PRIORITY_NORMAL},
    };
    struct record row = record_of(TABLE_AGENT_RUNS);
    assert_int_equal(run_row_priority(&row), PRIORITY_NORMAL);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        record_set_text(&row, AGENT_RUNS_METADATA, str_from_cstr(rows[i].metadata));
        assert_int_equal(run_row_priority(&row), rows[i].wanted);
    }
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_batch_run_that_was_approved_goes_on_as_one),
        TESTKIT_SCRIPT(test_a_batch_run_that_a_start_brings_back_goes_on_as_one),
        TESTKIT_SCRIPT(test_a_batch_message_that_waited_for_its_turn_is_answered_as_one),
        TESTKIT_SCRIPT(test_a_batch_run_that_hears_its_childs_answer_goes_on_as_one),
        TESTKIT_SCRIPT(test_the_priority_of_a_row_is_its_own_or_normal),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
