/* Messages that come while a run is live: each policy, crashes in between, bounds. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"
#include "runtime/simulated.h"

/* One message and what became of it. */
struct sent {
    const char *text;
    enum double_text policy;
    struct message_outcome outcome;
    struct error failure;
};

static void send(struct context *ctx, void *argument)
{
    struct sent *sent = argument;
    struct run_request request = {.session_id = scene.session_id,
                                  .content = str_from_cstr(sent->text),
                                  .on_busy = sent->policy};
    sent->failure = (struct error){0};
    (void) !message_send(scene.kit->o, ctx, &scene.user, &request, &sent->outcome, &sent->failure);
}

static void send_ok(struct testkit *kit, struct sent *sent)
{
    testkit_begin(kit, send, sent);
    testkit_run_ms(kit, 5);
    if (sent->failure.code != ERROR_OK)
        fail_msg("%s: %s", sent->text, sent->failure.message);
}

static void cancel_run(struct context *ctx, void *run_id)
{
    struct error e = {0};
    if (!run_cancel(scene.kit->o, ctx, &scene.user, *(uuid *) run_id, &e))
        fail_msg("%s", e.message);
}

/* A live run whose model takes its time. */
static void begin_slow(struct testkit *kit, int64_t delay_ms)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first answer", .delay_ms = delay_ms});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
}

static void assert_status(struct context *ctx, uuid run_id, const char *status)
{
    assert_str(testkit_status(scene.kit, ctx, run_id), status);
}

static int64_t count_of(struct context *ctx, enum table table, int column, uuid session_id)
{
    struct query query = query_of(table);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, column, session_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    return (int64_t) rows.count;
}

static void check_nothing_waits(struct context *ctx, void *unused)
{
    (void) unused;
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct error e = {0};
    assert_true(session_get(scene.kit->o, ctx, &scene.user, scene.session_id, row, &e));
    assert_false(record_has(row, SESSIONS_LIVE_RUN_ID));
    assert_int_equal(record_integer(row, SESSIONS_INBOX_COUNT), 0);
    assert_int_equal(count_of(ctx, TABLE_SESSION_INBOX, SESSION_INBOX_SESSION_ID, scene.session_id),
                     0);
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    testkit_check_ledger(scene.kit, ctx, scene.session_id);
}

/* ---- reject ---- */

static void test_a_rejected_message_names_the_live_run(struct testkit *kit)
{
    struct sent sent = {.text = "and now?", .policy = DOUBLE_TEXT_REJECT};
    begin_slow(kit, 1000);
    testkit_begin(kit, send, &sent);
    testkit_run_ms(kit, 5);
    assert_int_equal(sent.failure.reason, REASON_SESSION_BUSY);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_nothing_waits, NULL);
}

/* ---- enqueue ---- */

static struct sent waiting[3];

static void fill_waiting(enum double_text policy)
{
    static const char *const texts[] = {"second", "third", "fourth"};
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        waiting[i] = (struct sent){.text = texts[i], .policy = policy};
}

static void check_pending(struct context *ctx, void *unused)
{
    (void) unused;
    assert_status(ctx, scene.run_id, "running");
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++) {
        assert_int_equal(waiting[i].outcome.fate, MESSAGE_WAITS);
        struct record row;
        struct error e = {0};
        assert_true(run_get(scene.kit->o, ctx, &scene.user, waiting[i].outcome.run_id, &row, &e));
        assert_str(record_text(&row, AGENT_RUNS_STATUS), "pending");
        assert_int_equal(record_integer(&row, AGENT_RUNS_LAST_SEQ), 0);
    }
}

static void check_all_ran_in_order(struct context *ctx, void *unused)
{
    uuid before = scene.run_id;
    check_nothing_waits(ctx, unused);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++) {
        uuid run_id = waiting[i].outcome.run_id;
        assert_status(ctx, run_id, "completed");
        assert_str(testkit_history(scene.kit, ctx, run_id), BEGUN INTENT ANSWERED " run.completed");
        struct record earlier = testkit_run(scene.kit, ctx, before),
                      later = testkit_run(scene.kit, ctx, run_id);
        assert_true(record_integer(&earlier, AGENT_RUNS_COMPLETED_AT) <=
                    record_integer(&later, AGENT_RUNS_STARTED_AT));
        before = run_id;
    }
    assert_str(scene.kit->prompt_last, "fourth");
    assert_int_equal(scene.kit->prompt_messages, 8); /* system, 4 questions, 3 answers */
}

static void test_messages_that_wait_get_their_turns_in_order(struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        send_ok(kit, &waiting[i]);
    testkit_begin(kit, check_pending, NULL);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_all_ran_in_order, NULL);
    assert_int_equal(kit->model_calls, 4);
}

static void check_recovered(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++) {
        assert_status(ctx, waiting[i].outcome.run_id, "completed");
        assert_str(testkit_history(scene.kit, ctx, waiting[i].outcome.run_id),
                   BEGUN INTENT ANSWERED " run.completed");
    }
    assert_str(scene.kit->prompt_last, "fourth");
    assert_int_equal(count_of(ctx, TABLE_MESSAGES, MESSAGES_SESSION_ID, scene.session_id), 8);
}

static void check_fourth_was_last(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_str(scene.kit->prompt_last, "fourth");
}

static void test_messages_that_wait_keep_their_order_when_the_wall_time_jumps_back(
    struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    clock_manual_shift_wall_us(kit->clock, -3600000000ll);
    send_ok(kit, &waiting[1]);
    send_ok(kit, &waiting[2]);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_fourth_was_last, NULL);
}

static void test_messages_that_wait_survive_a_crash_and_run_once(struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        send_ok(kit, &waiting[i]);
    testkit_crash(kit);
    testkit_crash(kit);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_recovered, NULL);
}

static void check_ran_twice_as_one(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_int_equal(count_of(ctx, TABLE_MESSAGES, MESSAGES_SESSION_ID, scene.session_id), 8);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        assert_status(ctx, waiting[i].outcome.run_id, "completed");
}

/* The power goes at every few milliseconds of the whole story. */
static void test_a_crash_at_any_instant_loses_and_doubles_nothing(struct testkit *kit)
{
    begin_slow(kit, 20);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++) {
        testkit_reply(kit, (struct fake_reply){.text = "done", .delay_ms = 7});
        testkit_begin(kit, send, &waiting[i]);
        testkit_run_ms(kit, 1);
        if (waiting[i].failure.code != ERROR_OK)
            fail_msg("%s", waiting[i].failure.message);
    }
    for (int i = 0; i < 12; i++) {
        testkit_run_ms(kit, 3 + i);
        testkit_crash(kit);
    }
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_ran_twice_as_one, NULL);
}

static void test_an_inbox_has_a_bound(struct testkit *kit)
{
    static struct sent many[SESSION_INBOX_MAX + 1];
    begin_slow(kit, 60000);
    for (size_t i = 0; i < ARRAY_COUNT(many); i++) {
        many[i] = (struct sent){.text = "more", .policy = DOUBLE_TEXT_ENQUEUE};
        testkit_begin(kit, send, &many[i]);
    }
    testkit_run_ms(kit, 200);
    size_t refused = 0;
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        refused += many[i].failure.reason == REASON_SESSION_BUSY;
    assert_int_equal(refused, 1);
}

static char large[SESSION_INBOX_MESSAGE_BYTES_MAX + 2];

static void test_a_large_message_may_not_wait(struct testkit *kit)
{
    memset(large, 'x', sizeof large - 1);
    struct sent sent = {.text = large, .policy = DOUBLE_TEXT_ENQUEUE};
    begin_slow(kit, 1000);
    testkit_begin(kit, send, &sent);
    testkit_run_ms(kit, 5);
    assert_int_equal(sent.failure.reason, REASON_TOO_LARGE);
    testkit_run_ms(kit, 3000);
}

/* ---- a message is withdrawn; a policy says no ---- */

static void check_withdrawn(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, waiting[0].outcome.run_id, "cancelled");
    assert_str(testkit_history(scene.kit, ctx, waiting[0].outcome.run_id),
               "run.started message.added run.cancelled");
    assert_status(ctx, waiting[1].outcome.run_id, "completed");
    assert_str(scene.kit->prompt_last, "third");
    assert_int_equal(scene.kit->prompt_messages, 4); /* the withdrawn one is not among them */
}

static void test_a_message_that_waits_can_be_withdrawn(struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    send_ok(kit, &waiting[1]);
    testkit_begin(kit, cancel_run, &waiting[0].outcome.run_id);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_withdrawn, NULL);
}

static void check_denied(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    for (size_t i = 0; i < 2; i++) {
        assert_status(ctx, waiting[i].outcome.run_id, "failed");
        assert_str(testkit_history(scene.kit, ctx, waiting[i].outcome.run_id),
                   "run.started message.added policy.decided run.failed");
    }
}

static void test_a_message_that_may_not_begin_any_more_fails_and_the_next_gets_its_turn(
    struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    send_ok(kit, &waiting[1]);
    kit->denied[0] = S("run.start");
    testkit_run_ms(kit, 5000);
    testkit_do(kit, check_denied, NULL);
}

/* ---- interrupt ---- */

static struct sent interruption;

static void check_interrupted(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, scene.run_id, "cancelled");
    assert_status(ctx, interruption.outcome.run_id, "completed");
    assert_status(ctx, waiting[0].outcome.run_id, "completed");
    struct record first = testkit_run(scene.kit, ctx, interruption.outcome.run_id),
                  second = testkit_run(scene.kit, ctx, waiting[0].outcome.run_id);
    assert_true(record_integer(&first, AGENT_RUNS_COMPLETED_AT) <=
                record_integer(&second, AGENT_RUNS_STARTED_AT));
    /* What was said stays: the first question, the interruption and its answer, the second. */
    assert_int_equal(scene.kit->prompt_messages, 5);
}

static void begin_interruption(struct testkit *kit)
{
    begin_slow(kit, 20000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    interruption = (struct sent){.text = "stop, do this", .policy = DOUBLE_TEXT_INTERRUPT};
    send_ok(kit, &interruption);
}

static void test_an_interruption_ends_the_live_run_and_goes_first(struct testkit *kit)
{
    begin_interruption(kit);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_interrupted, NULL);
}

static void test_an_interruption_survives_a_crash(struct testkit *kit)
{
    begin_slow(kit, 20000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    interruption = (struct sent){.text = "stop, do this", .policy = DOUBLE_TEXT_INTERRUPT};
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000}); /* of the attempt after the crash */
    testkit_begin(kit, send, &interruption);
    testkit_run_ms(kit, 0);
    testkit_crash(kit);
    if (interruption.failure.code == ERROR_OK && !uuid_is_none(interruption.outcome.run_id)) {
        testkit_run_ms(kit, 3000);
        testkit_do(kit, check_interrupted, NULL);
    }
}

static void check_two_interruptions(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, scene.run_id, "cancelled");
    assert_str(scene.kit->prompt_last, "third");
    assert_status(ctx, waiting[1].outcome.run_id, "completed");
}

static void test_the_last_of_two_interruptions_is_answered(struct testkit *kit)
{
    begin_slow(kit, 20000);
    fill_waiting(DOUBLE_TEXT_INTERRUPT);
    testkit_begin(kit, send, &waiting[0]);
    testkit_begin(kit, send, &waiting[1]);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_two_interruptions, NULL);
}

/* ---- steer ---- */

static struct sent steering;

static void begin_with_tool(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    steering = (struct sent){.text = "in Celsius", .policy = DOUBLE_TEXT_STEER};
    send_ok(kit, &steering);
}

static void check_steered(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_int_equal(steering.outcome.fate, MESSAGE_STEERS);
    assert_true(uuid_equal(steering.outcome.run_id, scene.run_id));
    assert_history(ctx, BEGUN INTENT ANSWERED TOOL TOOL_ENDED
                   " message.added policy.decided budget.reserved model.requested" ANSWERED
                   " run.completed");
    assert_str(scene.kit->prompt_last, "in Celsius");
    assert_int_equal(scene.kit->prompt_messages, 5); /* system, question, call, result, steering */
    assert_int_equal(count_of(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_SESSION_ID, scene.session_id), 1);
}

static void test_the_live_run_hears_what_steers_it_before_its_next_model_call(struct testkit *kit)
{
    begin_with_tool(kit);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_steered, NULL);
    assert_int_equal(kit->model_calls, 2);
}

static void check_steered_after_crash(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, scene.run_id, "completed");
    assert_str(scene.kit->prompt_last, "in Celsius");
    assert_int_equal(count_of(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_SESSION_ID, scene.session_id), 1);
    assert_int_equal(count_of(ctx, TABLE_MESSAGES, MESSAGES_SESSION_ID, scene.session_id), 4);
}

static void test_what_steers_survives_a_crash_and_is_heard_once(struct testkit *kit)
{
    begin_with_tool(kit);
    testkit_crash(kit);
    testkit_run_ms(kit, 200);
    testkit_crash(kit);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_steered_after_crash, NULL);
}

static void check_own_run(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, scene.run_id, "completed");
    assert_status(ctx, steering.outcome.otherwise_run_id, "completed");
    assert_str(scene.kit->prompt_last, "in Celsius");
    assert_str(testkit_history(scene.kit, ctx, steering.outcome.otherwise_run_id),
               BEGUN INTENT ANSWERED " run.completed");
}

static void test_what_came_too_late_to_steer_becomes_a_run_of_its_own(struct testkit *kit)
{
    begin_slow(kit, 1000); /* it is in its last model call */
    steering = (struct sent){.text = "in Celsius", .policy = DOUBLE_TEXT_STEER};
    send_ok(kit, &steering);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_own_run, NULL);
}

static void check_taken_and_next(struct context *ctx, void *unused)
{
    check_nothing_waits(ctx, unused);
    assert_status(ctx, scene.run_id, "failed");
    assert_history(ctx, BEGUN INTENT ANSWERED TOOL TOOL_ENDED
                   " message.added policy.decided run.failed");
    assert_int_equal(count_of(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_SESSION_ID, scene.session_id), 2);
    assert_str(testkit_history(scene.kit, ctx, waiting[0].outcome.run_id),
               "run.started message.added policy.decided policy.decided run.failed");
}

/* It takes one message and ends in the same append: that message is not whose turn is next. */
static void test_what_was_taken_by_a_run_that_ends_is_not_begun_again(struct testkit *kit)
{
    begin_with_tool(kit);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    send_ok(kit, &waiting[0]);
    kit->denied[0] = S("model.call");
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_taken_and_next, NULL);
}

/* ---- another node ---- */

static void steal(struct context *ctx, void *unused)
{
    (void) unused;
    int64_t epoch;
    struct error e = {0};
    if (!store_claim(scene.kit->store, ctx, scene.kit->tenant_id, scene.session_id, S("thief"),
                     &epoch, &e))
        fail_msg("%s", e.message);
}

static void check_nothing_began(struct context *ctx, void *unused)
{
    (void) unused;
    assert_status(ctx, scene.run_id, "running");
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        assert_status(ctx, waiting[i].outcome.run_id, "pending");
    assert_int_equal(count_of(ctx, TABLE_MESSAGES, MESSAGES_SESSION_ID, scene.session_id), 1);
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

/* Who lost the session neither ends its run nor begins the next; who gets it does both, once. */
static void test_a_node_that_lost_the_session_begins_nothing(struct testkit *kit)
{
    begin_slow(kit, 1000);
    fill_waiting(DOUBLE_TEXT_ENQUEUE);
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        send_ok(kit, &waiting[i]);
    testkit_begin(kit, steal, NULL);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_nothing_began, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_recovered, NULL);
}

/* ---- the session says ---- */

static void begin_polite(struct context *ctx, void *unused)
{
    (void) unused;
    struct record session;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    assert_true(session_create(
        scene.kit->o, ctx, &scene.user,
        &(struct session_request){.budget = COST_LIMITLESS, .double_text = S("enqueue")}, &session,
        &e));
    scene.session_id = record_uuid(&session, SESSIONS_ID);
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "one");
    assert_false(session_create(
        scene.kit->o, ctx, &scene.user,
        &(struct session_request){.budget = COST_LIMITLESS, .double_text = S("shout")}, &session,
        &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
}

static void test_a_message_that_says_nothing_gets_the_sessions_policy(struct testkit *kit)
{
    struct sent sent = {.text = "two", .policy = DOUBLE_TEXT_UNSAID};
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first answer", .delay_ms = 1000});
    testkit_begin(kit, begin_polite, NULL);
    testkit_run_ms(kit, 100);
    send_ok(kit, &sent);
    assert_int_equal(sent.outcome.fate, MESSAGE_WAITS);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_nothing_waits, NULL);
    assert_int_equal(kit->model_calls, 2);
}

/* ---- a message that comes between the run's last look and its last commit ---- */

enum { LAST_COMMIT_MS = 100 };

/* The commit that ends the first run takes its time. */
static enum commit_outcome delay_end(void *owner, struct context *ctx, const struct batch *batch)
{
    bool *is_delayed = owner;
    struct error ignored = {0};
    if (*is_delayed || !batch->fault || strcmp(batch->fault, "run_completed") != 0)
        return COMMIT_OK;
    *is_delayed = true;
    (void) !context_sleep_ms(ctx, LAST_COMMIT_MS, &ignored);
    return COMMIT_OK;
}

static void check_completed_once(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED " run.completed");
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_BUDGET_SETTLED, "basis", "reported");
}

static void check_both_completed(struct context *ctx, void *sent)
{
    check_completed_once(ctx, NULL);
    scene.run_id = ((struct sent *) sent)->outcome.run_id;
    check_completed_once(ctx, NULL);
    check_nothing_waits(ctx, NULL);
}

/* What the model has answered is neither lost nor asked for again, nor is it paid twice. */
static void come_at_the_end(struct testkit *kit, enum double_text policy)
{
    struct usage usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true};
    struct sent sent = {.text = "and now?", .policy = policy};
    bool is_delayed = false;
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first", .delay_ms = 200, .usage = usage});
    testkit_reply(kit, (struct fake_reply){.text = "second", .usage = usage});
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &is_delayed, .before_commit = delay_end});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200 + LAST_COMMIT_MS / 2);
    assert_true(is_delayed);
    send_ok(kit, &sent);
    testkit_run_ms(kit, 3000);
    assert_int_equal(kit->model_calls, 2);
    if (policy == DOUBLE_TEXT_STEER) /* it came too late for that */
        sent.outcome.run_id = sent.outcome.otherwise_run_id;
    testkit_do(kit, check_both_completed, &sent);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
}

static void test_an_interruption_at_the_very_end_leaves_the_answer_as_it_is(struct testkit *kit)
{
    come_at_the_end(kit, DOUBLE_TEXT_INTERRUPT);
}

static void test_so_does_a_message_that_waits(struct testkit *kit)
{
    come_at_the_end(kit, DOUBLE_TEXT_ENQUEUE);
}

static void test_so_does_one_that_was_to_steer(struct testkit *kit)
{
    come_at_the_end(kit, DOUBLE_TEXT_STEER);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_rejected_message_names_the_live_run),
        TESTKIT_SCRIPT(test_messages_that_wait_get_their_turns_in_order),
        TESTKIT_SCRIPT(test_messages_that_wait_keep_their_order_when_the_wall_time_jumps_back),
        TESTKIT_SCRIPT(test_messages_that_wait_survive_a_crash_and_run_once),
        TESTKIT_SCRIPT(test_a_crash_at_any_instant_loses_and_doubles_nothing),
        TESTKIT_SCRIPT(test_an_inbox_has_a_bound),
        TESTKIT_SCRIPT(test_a_large_message_may_not_wait),
        TESTKIT_SCRIPT(test_a_message_that_waits_can_be_withdrawn),
        TESTKIT_SCRIPT(test_a_message_that_may_not_begin_any_more_fails_and_the_next_gets_its_turn),
        TESTKIT_SCRIPT(test_an_interruption_ends_the_live_run_and_goes_first),
        TESTKIT_SCRIPT(test_an_interruption_survives_a_crash),
        TESTKIT_SCRIPT(test_the_last_of_two_interruptions_is_answered),
        TESTKIT_SCRIPT(test_the_live_run_hears_what_steers_it_before_its_next_model_call),
        TESTKIT_SCRIPT(test_what_steers_survives_a_crash_and_is_heard_once),
        TESTKIT_SCRIPT(test_what_came_too_late_to_steer_becomes_a_run_of_its_own),
        TESTKIT_SCRIPT(test_what_was_taken_by_a_run_that_ends_is_not_begun_again),
        TESTKIT_SCRIPT(test_a_node_that_lost_the_session_begins_nothing),
        TESTKIT_SCRIPT(test_a_message_that_says_nothing_gets_the_sessions_policy),
        TESTKIT_SCRIPT(test_an_interruption_at_the_very_end_leaves_the_answer_as_it_is),
        TESTKIT_SCRIPT(test_so_does_a_message_that_waits),
        TESTKIT_SCRIPT(test_so_does_one_that_was_to_steer),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
