/* Runs that are cancelled, wait for a person, crash, lose commits, lose their session, or are drained. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

/* ---- cancel ---- */

static void cancel(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void check_cancelled_model(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT " model.failed budget.settled run.cancelling run.cancelled");
    assert_at_rest(ctx, "cancelled");
    assert_member(ctx, EVENT_RUN_CANCELLED, "by", "ada");
    struct error e = {0};
    assert_false(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
    assert_int_equal(e.code, ERROR_CONFLICT);
}

static void test_a_cancel_reaches_a_model_call_in_flight(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "long", .pause_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 10);
    testkit_do(kit, check_cancelled_model, NULL);
}

static void check_cancelled_tool(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status",
                  "unknown"); /* it happened, but nobody told us */
    assert_int_equal(scene.kit->model_calls, 1);
}

static void test_a_cancel_reaches_a_tool_call_in_flight_and_tells_that_its_effect_is_unknown(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "pay")->after_ms = 9000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 10);
    testkit_do(kit, check_cancelled_tool, NULL);
}

/* ---- approvals ---- */

static void find_approval(struct context *ctx, void *unused)
{
    (void) unused;
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct records rows;
    struct error e;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_int_equal(orchestrator_active_runs(scene.kit->o),
                     0); /* a run that waits holds nothing */
    testkit_check_ledger(scene.kit, ctx, scene.session_id);
    assert_true(approval_list(scene.kit->o, ctx, &boss, S("pending"), STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 1);
    scene.approval_id = record_uuid(&rows.items[0], APPROVALS_ID);
    scene.digest = str_copy(scene.kit->arena, record_text(&rows.items[0], APPROVALS_DIGEST));
}

static void decide(struct context *ctx, bool is_approve)
{
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct approval_decision decision = {.approval_id = scene.approval_id,
                                         .is_approve = is_approve,
                                         .digest = scene.digest,
                                         .reason = S("because")};
    struct error e = {0};
    if (!approval_decide(scene.kit->o, ctx, &boss, &decision, &e))
        fail_msg("%s", e.message);
}

static void approve(struct context *ctx, void *unused)
{
    (void) unused;
    decide(ctx, true);
}

static void deny(struct context *ctx, void *unused)
{
    (void) unused;
    decide(ctx, false);
}

static void wait_for_approval(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, find_approval, NULL);
}

#define WAITED BEGUN INTENT ANSWERED " policy.decided approval.requested run.waiting"

static void check_approved(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, WAITED
                   " run.resumed approval.voted approval.decided" TOOL TOOL_ENDED INTENT ANSWERED
                   " run.completed");
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->effects, 1);
    assert_member(ctx, EVENT_APPROVAL_DECIDED, "approver", "bob");
    struct record key = record_of(TABLE_APPROVALS), row;
    struct error e;
    record_set_uuid(&key, APPROVALS_ID, scene.approval_id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    assert_str(record_text(&row, APPROVALS_STATUS), "consumed");
}

static void test_a_run_waits_for_an_approval_and_goes_on(struct testkit *kit)
{
    wait_for_approval(kit);
    assert_int_equal(testkit_tool(kit, "wipe")->begun, 0);
    testkit_do(kit, approve, NULL);
    testkit_do(kit, check_approved, NULL);
}

static void test_an_approval_that_comes_days_later_after_a_restart_goes_on(struct testkit *kit)
{
    kit->defaults.approval_expiry_ms = 10ll * 24 * 3600 * 1000;
    testkit_crash(kit);
    wait_for_approval(kit);
    clock_manual_advance_ns(kit->clock, 3ll * 24 * 3600 * 1000000000);
    testkit_crash_only(kit);
    testkit_do(kit, approve, NULL);
    testkit_do(kit, check_approved, NULL);
}

/* ---- paused between two tries ---- */

static struct {
    bool is_refused, is_paused;
    int written; /* appends while the session is paused */
} turn;

/* The first append after the wait fails. */
static enum commit_outcome refuse_once(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    if (!batch->fence)
        return COMMIT_OK;
    turn.written += turn.is_paused;
    if (turn.is_refused)
        return COMMIT_OK;
    turn.is_refused = true;
    return COMMIT_FAIL;
}

static void pause_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row;
    struct error e = {0};
    if (!session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
    turn.is_paused = true;
}

static void check_paused(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, WAITED);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static void resume_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row;
    struct error e = {0};
    turn.is_paused = false;
    if (!session_resume(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

static void test_a_woken_run_whose_session_is_paused_before_it_is_loaded_again_waits_for_the_resume(
    struct testkit *kit)
{
    memset(&turn, 0, sizeof turn);
    wait_for_approval(kit);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = refuse_once});
    testkit_begin(kit, approve, NULL);
    testkit_run_ms(kit, 5);
    assert_true(turn.is_refused); /* it sleeps before it is loaded again */
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 5);
    assert_true(turn.is_paused);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_paused, NULL);
    assert_int_equal(turn.written, 0);
    assert_int_equal(testkit_tool(kit, "wipe")->begun, 0);
    testkit_do(kit, resume_it, NULL);
    testkit_do(kit, check_approved, NULL);
}

/* ---- a start ---- */

static void check_left_alone(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, WAITED);
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static void test_a_start_leaves_a_run_alone_that_waits_without_news(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_crash(kit);
    testkit_run_ms(kit, 100);
    testkit_do(kit, check_left_alone, NULL);
}

/* The decision is stored, and the node ends before it can tell the run. */
static void approve_and_tell_nobody(struct context *ctx, void *unused)
{
    (void) unused;
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, scene.approval_id);
    record_set_text(row, APPROVALS_STATUS, S("approved"));
    record_set_text(row, APPROVALS_APPROVER, S("bob"));
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void check_told(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->effects, 1);
}

static void test_a_start_brings_the_news_that_a_run_was_not_told(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, approve_and_tell_nobody, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_told, NULL);
}

static uuid many[3 * RUN_LOADS_MAX];

static void begin_many(struct context *ctx, void *unused)
{
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    for (size_t i = 0; i < ARRAY_COUNT(many); i++) {
        scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
        many[i] = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "how warm was it?");
    }
}

static void check_many(struct context *ctx, void *unused)
{
    (void) unused;
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        assert_str(testkit_status(scene.kit, ctx, many[i]), "completed");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    testkit_check_ledger(scene.kit, ctx, scene.session_id);
}

static void hang(struct testkit *kit, const struct prompt *prompt)
{
    (void) prompt;
    kit->reply_next = kit->reply_count = 0;
    testkit_reply(kit, (struct fake_reply){.text = "late", .delay_ms = 50000});
}

static void test_more_interrupted_runs_than_may_load_at_once_all_go_on(struct testkit *kit)
{
    scene_start(kit);
    kit->on_prompt = hang;
    testkit_begin(kit, begin_many, NULL);
    testkit_run_ms(kit, 1000);
    assert_int_equal(orchestrator_active_runs(kit->o), ARRAY_COUNT(many));
    kit->on_prompt = NULL;
    kit->reply_next = kit->reply_count = 0;
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_many, NULL);
}

static void check_denied(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, WAITED
                   " run.resumed approval.voted approval.decided tool.completed" INTENT ANSWERED
                   " run.completed");
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->begun, 0);
    assert_true(str_find(scene.kit->prompt_last_result, S("denied by bob: because")) !=
                STR_NOT_FOUND);
}

static void test_a_denied_call_is_told_to_the_model(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, deny, NULL);
    testkit_do(kit, check_denied, NULL);
}

static void expire(struct context *ctx, void *unused)
{
    (void) unused;
    size_t expired;
    struct error e;
    assert_true(approvals_expire(scene.kit->o, ctx, &expired, &e));
    assert_int_equal(expired, 1);
}

static void check_expired(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_APPROVAL_DECIDED, "decision", "expired");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->begun, 0);
}

static void test_an_approval_that_nobody_gives_expires_and_the_run_goes_on(struct testkit *kit)
{
    wait_for_approval(kit);
    clock_manual_advance_ns(kit->clock, 601ll * 1000000000);
    testkit_do(kit, expire, NULL);
    testkit_do(kit, check_expired, NULL);
}

static void check_cancelled_wait(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, WAITED " run.resumed run.cancelling tool.completed run.cancelled");
    assert_at_rest(ctx, "cancelled");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->begun, 0);
}

static void test_a_run_that_waits_can_be_cancelled(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, cancel, NULL);
    testkit_do(kit, check_cancelled_wait, NULL);
}

/* ---- crashes ---- */

static void check_lost_attempt(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT " run.resumed model.failed budget.settled" INTENT ANSWERED
                                     " run.completed");
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_MODEL_FAILED, "error", "interrupted");
    assert_int_equal(json_i64_or(event(ctx, EVENT_MODEL_COMPLETED), S("attempt"), 0), 2);
    assert_int_equal(scene.kit->model_calls, 2);
}

static void test_a_model_call_lost_in_a_crash_is_settled_at_its_reservation_and_made_again(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 5000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_run_ms(kit, 10000);
    testkit_do(kit, check_lost_attempt, NULL);
}

static void crash_in_tool(struct testkit *kit, const char *tool)
{
    scene_start(kit);
    testkit_tool(kit, tool)->after_ms = 5000;
    testkit_reply(kit, (struct fake_reply){.calls = {{tool, "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_run_ms(kit, 20000);
}

static void check_unknown(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "pay")->begun, 1);
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "unknown");
    assert_true(str_find(scene.kit->prompt_last_result, S("not known")) != STR_NOT_FOUND);
}

static void test_an_effect_that_may_have_happened_before_a_crash_is_unknown_and_not_repeated(
    struct testkit *kit)
{
    crash_in_tool(kit, "pay");
    testkit_do(kit, check_unknown, NULL);
}

static void check_repeated(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "succeeded");
    assert_int_equal(json_i64_or(event(ctx, EVENT_TOOL_INTENDED), S("attempt"), 0), 2);
    assert_str(json_str_or(event(ctx, EVENT_TOOL_INTENDED), S("effect_key"), STR_NONE),
               str_to_cstr(ctx->arena, scene.kit->tool_effect_key));
}

static void test_a_pure_or_idempotent_call_is_repeated_after_a_crash_under_the_same_key(
    struct testkit *kit)
{
    crash_in_tool(kit, "notify");
    testkit_do(kit, check_repeated, NULL);
    assert_int_equal(testkit_tool(kit, "notify")->begun, 2);
}

static void check_done(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
}

static void test_a_crash_before_the_first_step_loses_nothing(struct testkit *kit)
{
    scene_start(kit);
    testkit_begin(kit, scene_begin, NULL);
    while (uuid_is_none(scene.run_id))
        (void) scheduler_run_ready(kit->scheduler, 1);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_done, NULL);
}

/* ---- the store does not work ---- */

static int failures_left;
static enum commit_outcome failure_kind;

static enum commit_outcome fail_some(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    if (!batch->fence || failures_left <= 0)
        return COMMIT_OK;
    failures_left--;
    return failure_kind;
}

static void check_failing_store(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_true(testkit_tool(scene.kit, "pay")->effects <= 1);
    (void) testkit_history(scene.kit, ctx, scene.run_id);
}

static void test_a_store_that_fails_commits_in_any_way_ends_no_run(struct testkit *kit)
{
    static const enum commit_outcome kinds[] = {COMMIT_FAIL, COMMIT_APPLIED_BUT_FAIL, COMMIT_LOST};
    for (size_t kind = 0; kind < ARRAY_COUNT(kinds); kind++)
        for (int skip = 0; skip < 4; skip++) {
            scene_start(kit);
            kit->reply_count = kit->reply_next = 0;
            testkit_tool(kit, "pay")->effects = 0;
            testkit_reply(kit, (struct fake_reply){
                                   .calls = {{"pay", "{}"}}, .call_count = 1, .delay_ms = 100});
            testkit_begin(kit, scene_begin, NULL);
            testkit_run_ms(kit, 30 * skip);
            failure_kind = kinds[kind];
            failures_left = 1 + skip;
            memory_store_set_hooks(kit->store,
                                   (struct memory_store_hooks){.before_commit = fail_some});
            testkit_run_ms(kit, 60000);
            memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
            testkit_do(kit, check_failing_store, NULL);
        }
}

/* ---- the store works, and does not take what the run appends ---- */

static bool takes_rows;

static enum commit_outcome refuse_events(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    for (size_t i = 0; i < batch->count; i++)
        if (batch->writes[i].record.table == TABLE_RUN_EVENTS)
            return COMMIT_DAMAGED;
    return batch->fence && !takes_rows ? COMMIT_DAMAGED : COMMIT_OK;
}

static void damage(struct testkit *kit, bool is_row_taken)
{
    scene_start(kit);
    takes_rows = is_row_taken;
    testkit_reply(kit, (struct fake_reply){.text = "never stored", .delay_ms = 1000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = refuse_events});
    testkit_run_ms(kit, 120000);
}

static void assert_damaged(struct testkit *kit, const char *outcome)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    strbuf_init(&text, arena, 1 << 20);
    metrics_write(kit->metrics, &text);
    str wanted = str_printf(arena, "nexus_runs_damaged_total{outcome=\"%s\"} 1\n", outcome);
    if (str_find(strbuf_str(&text), wanted) == STR_NOT_FOUND)
        fail_msg("no " STR_FMT, STR_ARG(wanted));
}

static void check_damaged(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    struct record run = testkit_run(scene.kit, ctx, scene.run_id);
    assert_str(record_text(&run, AGENT_RUNS_ERROR), "corrupt");
    assert_int_equal(scene.kit->model_calls, 1); /* not again and again */
}

static void test_a_run_whose_journal_takes_nothing_ends_as_damaged_and_what_it_reserved_is_booked(
    struct testkit *kit)
{
    damage(kit, true);
    testkit_do(kit, check_damaged, NULL);
    assert_damaged(kit, "failed");
}

static void check_parked(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static void test_a_damaged_run_that_cannot_even_be_ended_is_parked_until_the_next_start(
    struct testkit *kit)
{
    damage(kit, false);
    testkit_do(kit, check_parked, NULL);
    assert_damaged(kit, "parked");
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_lost_attempt, NULL);
}

/* ---- a start that fails is tried again ---- */

static void recover_again(struct context *ctx, void *unused)
{
    (void) unused;
    size_t resumed;
    struct error e = {0};
    assert_true(orchestrator_recover(scene.kit->o, ctx, &resumed, &e));
    assert_true(orchestrator_recover(scene.kit->o, ctx, &resumed, &e));
}

static void test_a_start_that_is_tried_again_restores_each_run_once(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_crash_only(kit);
    testkit_do(kit, recover_again, NULL);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_lost_attempt, NULL); /* the accounts add up, nothing stays reserved */
}

static void usurp(struct context *ctx, void *unused)
{
    (void) unused;
    int64_t epoch;
    struct error e;
    assert_true(store_claim(scene.kit->store, ctx, scene.kit->tenant_id, scene.session_id,
                            S("another-node"), &epoch, &e));
    assert_true(epoch > 1);
}

static void check_fenced(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT); /* not one event more */
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    assert_int_equal(testkit_tool(scene.kit, "pay")->begun, 0);
}

static void test_a_writer_that_was_fenced_out_stops_and_writes_nothing(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1, .delay_ms = 1000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, usurp, NULL);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_fenced, NULL);
}

/* ---- drain ---- */

static void drain(struct context *ctx, void *unused)
{
    (void) unused;
    struct context soon;
    struct error e = {0};
    uuid run_id;
    context_init(&soon, ctx->scheduler, ctx->arena, context_deadline_in(ctx, 500));
    assert_true(orchestrator_drain(scene.kit->o, &soon, &e));
    context_deinit(&soon);
    struct run_request request = {.session_id = scene.session_id, .content = S("late")};
    assert_false(run_start(scene.kit->o, ctx, &scene.user, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_DRAINING);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running"); /* to be gone on with */
}

/* What came before the stop is known: nothing of the reservation counts beyond it. */
static void check_drained(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT " model.failed budget.settled run.resumed" INTENT ANSWERED
                                     " run.completed");
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_MODEL_FAILED, "error", "interrupted");
    assert_true(str_find(json_str_or(event(ctx, EVENT_MODEL_FAILED), S("message"), STR_NONE),
                         S("what came of it counts")) != STR_NOT_FOUND);
    assert_int_equal(scene.kit->model_calls, 2);
}

static void test_a_drained_run_goes_on_at_the_next_start(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_do(kit, drain, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_drained, NULL);
}

/* A request that was in work when the drain began commits its run after the lane was found idle. */
static void drain_then_spawn(struct context *ctx, void *unused)
{
    (void) unused;
    struct context soon;
    struct error e = {0};
    context_init(&soon, ctx->scheduler, ctx->arena, context_deadline_in(ctx, 500));
    assert_true(orchestrator_drain(scene.kit->o, &soon, &e));
    context_deinit(&soon);
    run_spawn(scene.kit->o, scene.kit->tenant_id, scene.session_id, scene.run_id);
    assert_true(context_sleep_ms(ctx, 100, &e));
    assert_int_equal(orchestrator_active_runs(scene.kit->o),
                     0); /* or orchestrator_destroy meets a live run */
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
}

static void test_a_run_spawned_after_the_drain_is_only_stored(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.delay_ms = 20000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_do(kit, drain_then_spawn, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 30000);
    testkit_do(kit, check_drained, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_cancel_reaches_a_model_call_in_flight),
        TESTKIT_SCRIPT(
            test_a_cancel_reaches_a_tool_call_in_flight_and_tells_that_its_effect_is_unknown),
        TESTKIT_SCRIPT(test_a_start_leaves_a_run_alone_that_waits_without_news),
        TESTKIT_SCRIPT(test_a_start_brings_the_news_that_a_run_was_not_told),
        TESTKIT_SCRIPT(test_more_interrupted_runs_than_may_load_at_once_all_go_on),
        TESTKIT_SCRIPT(test_a_run_waits_for_an_approval_and_goes_on),
        TESTKIT_SCRIPT(test_an_approval_that_comes_days_later_after_a_restart_goes_on),
        TESTKIT_SCRIPT(
            test_a_woken_run_whose_session_is_paused_before_it_is_loaded_again_waits_for_the_resume),
        TESTKIT_SCRIPT(test_a_denied_call_is_told_to_the_model),
        TESTKIT_SCRIPT(test_an_approval_that_nobody_gives_expires_and_the_run_goes_on),
        TESTKIT_SCRIPT(test_a_run_that_waits_can_be_cancelled),
        TESTKIT_SCRIPT(
            test_a_model_call_lost_in_a_crash_is_settled_at_its_reservation_and_made_again),
        TESTKIT_SCRIPT(
            test_an_effect_that_may_have_happened_before_a_crash_is_unknown_and_not_repeated),
        TESTKIT_SCRIPT(test_a_pure_or_idempotent_call_is_repeated_after_a_crash_under_the_same_key),
        TESTKIT_SCRIPT(test_a_crash_before_the_first_step_loses_nothing),
        TESTKIT_SCRIPT(test_a_store_that_fails_commits_in_any_way_ends_no_run),
        TESTKIT_SCRIPT(
            test_a_run_whose_journal_takes_nothing_ends_as_damaged_and_what_it_reserved_is_booked),
        TESTKIT_SCRIPT(test_a_damaged_run_that_cannot_even_be_ended_is_parked_until_the_next_start),
        TESTKIT_SCRIPT(test_a_start_that_is_tried_again_restores_each_run_once),
        TESTKIT_SCRIPT(test_a_writer_that_was_fenced_out_stops_and_writes_nothing),
        TESTKIT_SCRIPT(test_a_drained_run_goes_on_at_the_next_start),
        TESTKIT_SCRIPT(test_a_run_spawned_after_the_drain_is_only_stored),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
