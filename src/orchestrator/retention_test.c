#include "orchestrator/retention.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

/* ---- what happens beside a removal: between two commits, by the store's hook ---- */

static const struct retention_rules OLD = {.runs_ms = 1000, .deltas_ms = -1};
static struct retention_counts counts;
static struct error swept;

static void sweep_by(struct context *ctx, const struct retention_rules *rules)
{
    OWNED(arena) keep = arena_create(0);
    struct retention_progress progress = {.keep = keep};
    swept = (struct error){0};
    (void) !retention_sweep(scene.kit->o, ctx, rules, &progress, &counts, &swept);
}

static void sweep(struct context *ctx, void *unused)
{
    (void) unused;
    sweep_by(ctx, &OLD);
}

static struct between {
    const char *fault; /* of the commits that are waited for */
    int skip, seen;    /* so many of them pass before */
    bool is_each;      /* before each one that follows too */
    bool is_inside;    /* what it does commits itself */
    enum commit_outcome outcome;
    void (*does)(struct context *ctx);
} between;

static enum commit_outcome before_commit(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    (void) owner;
    bool is_it = !between.is_inside && batch->fault &&
                 str_equal(str_from_cstr(batch->fault), str_from_cstr(between.fault));
    if (!is_it || between.seen++ < between.skip ||
        (!between.is_each && between.seen > between.skip + 1))
        return COMMIT_OK;
    between.is_inside = true;
    if (between.does)
        between.does(ctx);
    between.is_inside = false;
    return between.outcome;
}

/* Waits with one old run for a commit. */
static void wait_for(struct testkit *kit, struct between what)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_run_ms(kit, 5000);
    between = what;
    counts = (struct retention_counts){0};
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = before_commit});
}

/* ---- what is asked and looked at ---- */

static struct forked_run forked;
static struct error refused;

static void fork_it(struct context *ctx)
{
    struct fork_request request = {.run_id = scene.run_id, .at = 3, .message = S("again")};
    refused = (struct error){0};
    (void) !run_fork(scene.kit->o, ctx, &scene.user, &request, &forked, &refused);
}

static void fork_alone(struct context *ctx, void *unused)
{
    (void) unused;
    fork_it(ctx);
}

static size_t rows_of(struct context *ctx, enum table table, int column, uuid id)
{
    struct query query = query_of(table);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, column, id);
    if (!store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e))
        fail_msg("%s", e.message);
    return rows.count;
}

static size_t rows_of_run(struct context *ctx)
{
    return rows_of(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_ID, scene.run_id) +
           rows_of(ctx, TABLE_RUN_EVENTS, RUN_EVENTS_RUN_ID, scene.run_id) +
           rows_of(ctx, TABLE_MESSAGES, MESSAGES_RUN_ID, scene.run_id) +
           rows_of(ctx, TABLE_TOOL_CALLS, TOOL_CALLS_RUN_ID, scene.run_id);
}

static size_t audited_removals(struct context *ctx)
{
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e = {0};
    query_where_text(&query, AUDIT_LOGS_ACTION, S("run.remove"));
    query_where_text(&query, AUDIT_LOGS_RESOURCE_ID, uuid_str(ctx->arena, scene.run_id));
    if (!store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e))
        fail_msg("%s", e.message);
    return rows.count;
}

static void assert_removed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_int_equal(rows_of_run(ctx), 0);
    assert_int_equal(rows_of(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_FORKED_FROM, scene.run_id), 0);
    assert_int_equal(audited_removals(ctx), 1);
}

/* It is there with all that it had, and so is what goes on from it. */
static void assert_kept(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN INTENT ANSWERED " run.completed");
    assert_int_equal(audited_removals(ctx), 0);
}

static void assert_fork_ended(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, forked.run_id), "completed");
    assert_str(testkit_history(scene.kit, ctx, forked.run_id),
               BEGUN " run.forked message.added policy.decided" INTENT ANSWERED " run.completed");
}

/* ---- a fork beside it ---- */

static void sweep_now(struct context *ctx)
{
    sweep_by(ctx, &OLD);
}

static void test_a_fork_whose_origin_was_removed_meanwhile_is_none(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "run_fork", .does = sweep_now});
    testkit_do(kit, fork_alone, NULL);
    assert_int_equal(counts.runs, 1);
    assert_int_equal(refused.reason, REASON_NOT_FOUND);
    assert_non_null(strstr(refused.message, "there is no run"));
    testkit_do(kit, assert_removed, NULL);
}

static void test_a_run_that_is_forked_while_retention_looks_at_it_stays(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .does = fork_it});
    testkit_do(kit, sweep, NULL);
    assert_int_equal(between.seen, 1);
    assert_int_equal(swept.reason, REASON_NONE);
    assert_int_equal(refused.reason, REASON_NONE);
    assert_int_equal(counts.runs, 0);
    testkit_do(kit, assert_kept, NULL);
    testkit_do(kit, assert_fork_ended, NULL);
}

static int looks;

static void assert_nobody_finds_it(struct context *ctx)
{
    struct record run;
    struct records runs;
    struct error e = {0};
    str text;
    looks++;
    fork_it(ctx);
    assert_int_equal(refused.reason, REASON_NOT_FOUND);
    assert_false(run_get(scene.kit->o, ctx, &scene.user, scene.run_id, &run, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    e = (struct error){0};
    assert_false(run_export(scene.kit->o, ctx, &scene.user, scene.run_id, &text, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    e = (struct error){0};
    assert_true(run_list(scene.kit->o, ctx, &scene.user,
                         &(struct run_filter){.session_id = scene.session_id}, STR_NONE, 10, &runs,
                         &e));
    assert_int_equal(runs.count, 0);
}

static void test_a_run_is_gone_for_everybody_before_the_first_of_its_rows_is(struct testkit *kit)
{
    looks = 0;
    wait_for(kit,
             (struct between){
                 .fault = "retention", .skip = 1, .is_each = true, .does = assert_nobody_finds_it});
    testkit_do(kit, sweep, NULL);
    assert_true(looks > 1);
    assert_int_equal(swept.reason, REASON_NONE);
    assert_int_equal(counts.runs, 1);
    testkit_do(kit, assert_removed, NULL);
}

/* ---- interrupted ---- */

static void sweep_for_ever(struct context *ctx, void *unused)
{
    (void) unused;
    sweep_by(ctx, &(struct retention_rules){.deltas_ms = -1});
}

static void test_a_removal_that_was_interrupted_is_finished_by_the_next_sweep(struct testkit *kit)
{
    int commits = 1; /* of a whole removal */
    for (int at = 0; at < commits; at++) {
        wait_for(kit, (struct between){.fault = "retention", .skip = at, .outcome = COMMIT_FAIL});
        testkit_do(kit, sweep, NULL);
        assert_int_equal(swept.reason, REASON_STORE);
        between = (struct between){.fault = "retention", .skip = INT32_MAX};
        if (at == 0)
            testkit_do(kit, sweep, NULL);
        else /* nobody is to be removed any more: this one is */
            testkit_do(kit, sweep_for_ever, NULL);
        commits = at == 0 ? between.seen : commits;
        assert_int_equal(swept.reason, REASON_NONE);
        memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
        testkit_do(kit, assert_removed, NULL);
    }
    assert_true(commits > 2);
}

static void test_a_removal_that_two_nodes_began_is_told_once(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .does = sweep_now});
    testkit_do(kit, sweep, NULL);
    assert_int_equal(swept.reason, REASON_NONE);
    testkit_do(kit, assert_removed, NULL);
}

static void test_a_removal_that_two_nodes_finish_is_finished(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .skip = 1, .does = sweep_now});
    testkit_do(kit, sweep, NULL);
    assert_int_equal(swept.reason, REASON_NONE);
    testkit_do(kit, assert_removed, NULL);
}

/* ---- a hold, and somebody who speaks, beside it ---- */

static void hold(struct context *ctx)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, scene.session_id);
    record_set_text(row, SESSIONS_METADATA, S("{\"hold\":true}"));
    assert_true(store_commit(scene.kit->store, ctx, &batch, &e));
}

static void test_a_hold_that_comes_while_retention_looks_is_kept(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .does = hold});
    testkit_do(kit, sweep, NULL);
    assert_int_equal(swept.reason, REASON_NONE);
    assert_int_equal(counts.runs, 0);
    testkit_do(kit, assert_kept, NULL);
}

static void speak(struct context *ctx)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, scene.session_id);
    record_set_uuid(row, SESSIONS_LIVE_RUN_ID, uuid_new(scene.kit->clock, scene.kit->random));
    assert_true(store_commit(scene.kit->store, ctx, &batch, &e));
}

static void test_a_run_stays_when_somebody_speaks_in_its_session_meanwhile(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .does = speak});
    testkit_do(kit, sweep, NULL);
    assert_int_equal(swept.reason, REASON_NONE);
    assert_int_equal(counts.runs, 0);
    testkit_do(kit, assert_kept, NULL);
}

/* The older run of a session is looked at, the newer one is forked: the fork's conversation has both. */
static uuid newer_id;

static void begin_newer(struct context *ctx, void *unused)
{
    (void) unused;
    newer_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "and how cold was it?");
}

static void fork_newer(struct context *ctx)
{
    uuid older = scene.run_id;
    scene.run_id = newer_id;
    fork_it(ctx);
    scene.run_id = older;
}

static void test_an_older_run_of_a_session_stays_when_a_newer_one_is_forked(struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "retention", .does = fork_newer});
    testkit_do(kit, begin_newer, NULL);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep, NULL);
    assert_int_equal(swept.reason, REASON_NONE);
    assert_int_equal(refused.reason, REASON_NONE);
    assert_int_equal(counts.runs, 0);
    testkit_do(kit, assert_kept, NULL);
}

/* ---- a clone beside it ---- */

static struct record cloned;

/* Up to the first message of the old run; the session's row is the clone's first commit. */
static void clone_up_to_question(struct context *ctx, void *unused)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct records rows;
    (void) unused;
    refused = (struct error){0};
    query_where_uuid(&query, MESSAGES_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &refused));
    assert_int_equal(rows.count, 2);
    uuid question = record_uuid(&rows.items[0], MESSAGES_ID);
    (void) !session_clone(scene.kit->o, ctx, &scene.user, scene.session_id, question, &cloned,
                          &refused);
}

static void test_a_clone_up_to_a_message_that_is_removed_meanwhile_has_none_behind_it(
    struct testkit *kit)
{
    wait_for(kit, (struct between){.fault = "", .skip = INT32_MAX});
    testkit_do(kit, begin_newer, NULL);
    between = (struct between){.fault = "", .does = sweep_now};
    testkit_do(kit, clone_up_to_question, NULL);
    assert_int_equal(counts.runs, 1);
    assert_int_equal(refused.reason, REASON_NOT_FOUND);
    testkit_do(kit, assert_removed, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_fork_whose_origin_was_removed_meanwhile_is_none),
        TESTKIT_SCRIPT(test_a_run_that_is_forked_while_retention_looks_at_it_stays),
        TESTKIT_SCRIPT(test_a_run_is_gone_for_everybody_before_the_first_of_its_rows_is),
        TESTKIT_SCRIPT(test_a_removal_that_was_interrupted_is_finished_by_the_next_sweep),
        TESTKIT_SCRIPT(test_a_removal_that_two_nodes_began_is_told_once),
        TESTKIT_SCRIPT(test_a_removal_that_two_nodes_finish_is_finished),
        TESTKIT_SCRIPT(test_a_hold_that_comes_while_retention_looks_is_kept),
        TESTKIT_SCRIPT(test_a_run_stays_when_somebody_speaks_in_its_session_meanwhile),
        TESTKIT_SCRIPT(test_an_older_run_of_a_session_stays_when_a_newer_one_is_forked),
        TESTKIT_SCRIPT(test_a_clone_up_to_a_message_that_is_removed_meanwhile_has_none_behind_it),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
