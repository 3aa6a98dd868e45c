/* Ids are times, and a clock may step back: a conversation stays in its order, and what was approved is what runs. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include <stdatomic.h>

static const int64_t hour_us = 3600ll * 1000000;

/* Another process goes on, whose clock is behind: what it draws itself sorts before what is stored. */
static void go_on_elsewhere(struct testkit *kit)
{
    clock_manual_shift_wall_us(kit->clock, -hour_us);
    atomic_store(&kit->random->newest_id, 0);
    testkit_crash(kit);
}

static void find_approval(struct context *ctx, void *unused)
{
    (void) unused;
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct records rows;
    struct error e;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_true(approval_list(scene.kit->o, ctx, &boss, S("pending"), STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 1);
    scene.approval_id = record_uuid(&rows.items[0], APPROVALS_ID);
    scene.digest = str_copy(scene.kit->arena, record_text(&rows.items[0], APPROVALS_DIGEST));
}

static void approve(struct context *ctx, void *unused)
{
    (void) unused;
    struct principal boss = testkit_principal(scene.kit, "bob", ROLE_LEVEL_OPERATOR);
    struct approval_decision decision = {
        .approval_id = scene.approval_id, .is_approve = true, .digest = scene.digest};
    struct error e = {0};
    if (!approval_decide(scene.kit->o, ctx, &boss, &decision, &e))
        fail_msg("%s", e.message);
}

/* Two answers with calls, each of another process; the second one's is approved. */
static void wait_for_approval(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->output = "{\"first\":true}";
    testkit_tool(kit, "lookup")->delay_ms = 1000;
    testkit_tool(kit, "wipe")->output = "{\"second\":true}";
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"lookup", "{\"amount\":9}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{\"amount\":6}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    go_on_elsewhere(kit);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, find_approval, NULL);
}

static void check_approved(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->effects, 1);
    assert_str(scene.kit->tool_input, "{\"amount\":6}");
}

static void test_what_was_approved_runs_although_the_clock_stepped_back(struct testkit *kit)
{
    wait_for_approval(kit);
    testkit_do(kit, approve, NULL);
    testkit_do(kit, check_approved, NULL);
    assert_int_equal(kit->model_calls, 3);
    assert_str(kit->prompt_last_result, "{\"second\":true}");
}

/* ---- between the decision and the intent ---- */

static bool is_decided;

/* The decision is stored, the intent is not: the run is loaded again with its call approved. */
static enum commit_outcome refuse_first_intent(void *owner, struct context *ctx,
                                               const struct batch *batch)
{
    int *refused = owner;
    (void) ctx;
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        if (row->table != TABLE_RUN_EVENTS)
            continue;
        str type = record_text(row, RUN_EVENTS_TYPE);
        is_decided = is_decided || str_equal(type, S("approval.decided"));
        if (is_decided && str_equal(type, S("tool.intended")) && (*refused)++ == 0)
            return COMMIT_FAIL;
    }
    return COMMIT_OK;
}

static void test_a_run_that_is_loaded_again_makes_the_approved_call(struct testkit *kit)
{
    int refused = 0;
    is_decided = false;
    wait_for_approval(kit);
    memory_store_set_hooks(
        kit->store,
        (struct memory_store_hooks){.owner = &refused, .before_commit = refuse_first_intent});
    testkit_do(kit, approve, NULL);
    testkit_run_ms(kit, 60000);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_true(refused >= 1);
    testkit_do(kit, check_approved, NULL);
}

/* ---- a message that is not what it was ---- */

static void put_other_arguments(struct context *ctx, void *unused)
{
    (void) unused;
    struct query query = query_of(TABLE_MESSAGES);
    struct records rows;
    struct error e = {0};
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++) {
        str parts = record_text(&rows.items[i], MESSAGES_PARTS);
        size_t at = str_find(parts, S("amount\\\":6"));
        if (at == STR_NOT_FOUND)
            continue;
        struct batch batch;
        batch_init(&batch, ctx->arena, scene.kit->tenant_id);
        struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_MESSAGES);
        record_set_uuid(row, MESSAGES_ID, record_uuid(&rows.items[i], MESSAGES_ID));
        record_set_text(row, MESSAGES_PARTS,
                        str_printf(ctx->arena, STR_FMT "amount\\\":7" STR_FMT,
                                   STR_ARG(str_slice(parts, 0, at)),
                                   STR_ARG(str_from(parts, at + sizeof "amount\\\":6" - 1))));
        assert_true(store_commit(scene.kit->store, ctx, &batch, &e));
        return;
    }
    fail_msg("no message has the call");
}

static enum commit_outcome refuse_intents(void *owner, struct context *ctx,
                                          const struct batch *batch)
{
    int refused = 0;
    (void) owner;
    return refuse_first_intent(&refused, ctx, batch);
}

static void check_refused(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "wipe")->effects, 0);
    assert_true(str_find(scene.kit->prompt_last_result, S("have changed")) != STR_NOT_FOUND);
}

static void test_a_call_that_is_another_one_when_it_is_made_than_when_it_was_approved_is_not_made(
    struct testkit *kit)
{
    is_decided = false;
    wait_for_approval(kit);
    memory_store_set_hooks(kit->store,
                           (struct memory_store_hooks){.before_commit = refuse_intents});
    testkit_begin(kit, approve, NULL);
    testkit_run_ms(kit, 5);
    assert_true(is_decided);
    testkit_crash_only(kit);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    testkit_do(kit, put_other_arguments, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_refused, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_what_was_approved_runs_although_the_clock_stepped_back),
        TESTKIT_SCRIPT(test_a_run_that_is_loaded_again_makes_the_approved_call),
        TESTKIT_SCRIPT(
            test_a_call_that_is_another_one_when_it_is_made_than_when_it_was_approved_is_not_made),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
