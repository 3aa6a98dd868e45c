/* Runs whose journal can be neither gone on with nor ended: their children, their room, their rows. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/run/run_child.h"

/* ---- the cast: one that asks two others, of whom one takes its time ---- */

static int64_t soon_ms;

static void ask_two(struct testkit *kit, const struct prompt *prompt)
{
    const struct prompt_message *last = &prompt->messages[prompt->message_count - 1];
    str text = prompt_message_text(kit->arena, last);
    kit->reply_next = kit->reply_count = 0;
    if (str_equal(text, S("soon")))
        testkit_reply(kit, (struct fake_reply){.text = "soon done", .delay_ms = soon_ms});
    else if (str_equal(text, S("late")))
        testkit_reply(kit, (struct fake_reply){.text = "late done", .delay_ms = 500000});
    else
        testkit_reply(kit,
                      (struct fake_reply){.calls = {{"agent_researcher", "{\"message\":\"soon\"}"},
                                                    {"agent_researcher", "{\"message\":\"late\"}"}},
                                          .call_count = 2});
}

static void with_cast(struct testkit *kit)
{
    scene_start_pair(kit, "researcher");
    kit->on_prompt = ask_two;
}

static void begin_small(struct context *ctx, void *unused)
{
    (void) unused;
    scene_begin_with(ctx, (cost){90000, 3600000, COST_UNLIMITED, COST_UNLIMITED});
}

/* ---- ways to damage a journal ---- */

/* The run's own events are taken no more. */
static enum commit_outcome refuse_own_events(void *owner, struct context *ctx,
                                             const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        if (row->table == TABLE_RUN_EVENTS &&
            uuid_equal(record_uuid(row, RUN_EVENTS_RUN_ID), scene.run_id))
            return COMMIT_DAMAGED;
    }
    return COMMIT_OK;
}

/* One event cannot be read any more. */
static void spoil(struct context *ctx, int64_t seq)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    batch.is_retention = true; /* no ordinary batch may touch what stands in a journal */
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, scene.run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, seq);
    record_set_text(row, RUN_EVENTS_TYPE, S("no.such.event"));
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void spoil_first(struct context *ctx, void *unused)
{
    (void) unused;
    spoil(ctx, 1);
}

static void recover(struct context *ctx, void *unused)
{
    (void) unused;
    size_t resumed;
    struct error e = {0};
    if (!orchestrator_recover(scene.kit->o, ctx, &resumed, &e))
        fail_msg("%s", e.message);
}

/* ---- children ---- */

static void check_children_ended(struct context *ctx, void *wanted)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    int cancelled = 0;
    assert_at_rest(ctx, "failed");
    struct record run = testkit_run(scene.kit, ctx, scene.run_id);
    assert_str(record_text(&run, AGENT_RUNS_ERROR), "corrupt");
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 2);
    for (size_t i = 0; i < rows.count; i++) {
        str status = record_text(&rows.items[i], AGENT_RUNS_STATUS);
        assert_true(str_equal(status, S("cancelled")) || str_equal(status, S("completed")));
        cancelled += str_equal(status, S("cancelled"));
        /* "A child ends before its parent does." */
        assert_true(record_integer(&rows.items[i], AGENT_RUNS_COMPLETED_AT) <=
                    record_integer(&run, AGENT_RUNS_COMPLETED_AT));
    }
    assert_int_equal(cancelled, *(int *) wanted);
}

static void test_a_run_whose_journal_takes_nothing_ends_its_children_before_it_ends(
    struct testkit *kit)
{
    int cancelled = 1;
    soon_ms = 1000;
    with_cast(kit);
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 500);
    memory_store_set_hooks(kit->store,
                           (struct memory_store_hooks){.before_commit = refuse_own_events});
    testkit_run_ms(kit, 120000);
    testkit_do(kit, check_children_ended, &cancelled);
}

/* Both children are at work when its node dies and its journal is spoiled; the next start finds it. */
static void spoil_and_recover(struct testkit *kit, int64_t for_ms)
{
    soon_ms = 500000;
    with_cast(kit);
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 500);
    testkit_crash_only(kit);
    testkit_begin(kit, spoil_first, NULL);
    testkit_run_ms(kit, 1);
    testkit_begin(kit, recover, NULL);
    testkit_run_ms(kit, for_ms);
}

static void test_a_run_whose_journal_cannot_be_read_ends_its_children_before_it_ends(
    struct testkit *kit)
{
    int cancelled = 2;
    spoil_and_recover(kit, 60000);
    testkit_do(kit, check_children_ended, &cancelled);
}

/* A node that dies while it ends them goes on with that at its next start. */
static void test_a_crash_while_the_children_of_a_damaged_run_end_leaves_none_at_work(
    struct testkit *kit)
{
    int cancelled = 2;
    spoil_and_recover(kit, 1);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_children_ended, &cancelled);
}

/* ---- room ---- */

static struct record session_account(struct context *ctx)
{
    struct record key = record_of(TABLE_BUDGETS), account;
    struct error e = {0};
    record_set_text(&key, BUDGETS_LEVEL, S("session"));
    record_set_text(&key, BUDGETS_SUBJECT, uuid_str(ctx->arena, scene.session_id));
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &account, &e));
    return account;
}

static int64_t reserved_tokens;

static void spoil_after_reservation(struct context *ctx, void *unused)
{
    (void) unused;
    cost amount;
    assert_history(ctx, BEGUN INTENT);
    assert_true(cost_read_json(json_get(event(ctx, EVENT_BUDGET_RESERVED), S("amount")), &amount));
    reserved_tokens = amount.tokens;
    assert_true(reserved_tokens > 0);
    spoil(ctx, 3); /* policy.decided: before it, so nothing of the reservation is folded */
}

/* What it may have used is spent, what of it was leased is leased no more. */
static void check_room(struct context *ctx, void *unused)
{
    (void) unused;
    struct query query = query_of(TABLE_BUDGET_LEASES);
    struct records rows;
    struct error e = {0};
    struct record account = session_account(ctx);
    int64_t leased = 0;
    assert_at_rest(ctx, "failed");
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++)
        if (str_equal(record_text(&rows.items[i], BUDGET_LEASES_LEVEL), S("session")))
            leased += record_integer(&rows.items[i], BUDGET_LEASES_TOKENS);
    assert_int_equal(record_integer(&account, BUDGETS_LEASED_TOKENS), leased);
    assert_int_equal(record_integer(&account, BUDGETS_SPENT_TOKENS), reserved_tokens);
}

static void bury_unreadable(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "never stored", .delay_ms = 500000});
    testkit_begin(kit, begin_small, NULL);
    testkit_run_ms(kit, 500);
    testkit_crash_only(kit);
    testkit_begin(kit, spoil_after_reservation, NULL);
    testkit_run_ms(kit, 1);
    testkit_begin(kit, recover, NULL);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_room, NULL);
}

static void test_what_a_run_had_reserved_is_booked_when_its_journal_cannot_be_read(
    struct testkit *kit)
{
    bury_unreadable(kit);
}

static void test_its_room_is_leased_no_more_where_nodes_share_a_store(struct testkit *kit)
{
    kit->is_shared = true;
    testkit_crash_only(kit);
    bury_unreadable(kit);
}

/* ---- rows ---- */

static void spoil_and_wake(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    spoil(ctx, 1);
    run_spawn(scene.kit->o, scene.kit->tenant_id, scene.session_id, scene.run_id);
}

static void check_still_completed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
}

static void test_a_run_that_has_ended_stays_as_it_ended(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, spoil_and_wake, NULL);
    testkit_do(kit, check_still_completed, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_run_whose_journal_takes_nothing_ends_its_children_before_it_ends),
        TESTKIT_SCRIPT(test_a_run_whose_journal_cannot_be_read_ends_its_children_before_it_ends),
        TESTKIT_SCRIPT(test_a_crash_while_the_children_of_a_damaged_run_end_leaves_none_at_work),
        TESTKIT_SCRIPT(test_what_a_run_had_reserved_is_booked_when_its_journal_cannot_be_read),
        TESTKIT_SCRIPT(test_its_room_is_leased_no_more_where_nodes_share_a_store),
        TESTKIT_SCRIPT(test_a_run_that_has_ended_stays_as_it_ended),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
