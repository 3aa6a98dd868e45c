/* Instances that wait: a node of a shared store wakes them when something is there for them, and else leaves them alone. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/node_news.h"

#define WAITS                                                                                      \
    "name: w\nversion: 1.0.0\nsteps:\n  - {id: x, wait_signal: {name: go}}\n  - {id: y, tool: "    \
    "notify}\n"

enum { TURNS = 5 };

static struct node_news *news;

static void take_turns(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    for (int i = 0; i < TURNS; i++) {
        if (!node_news_turn(news, ctx, &e))
            fail_msg("%s", e.message);
        assert_true(context_sleep_ms(ctx, NODE_BEAT_MS, &e));
    }
}

static void look_on(struct testkit *kit)
{
    testkit_begin(kit, take_turns, NULL);
    testkit_run_ms(kit, (TURNS + 1) * NODE_BEAT_MS);
}

static void count_resumptions(struct context *ctx, void *out)
{
    str history = testkit_history(scene.kit, ctx, scene.run_id);
    int *count = out;
    *count = 0;
    for (size_t at; (at = str_find(history, S("run.resumed"))) != STR_NOT_FOUND; ++*count)
        history = str_from(history, at + 1);
}

static int resumptions(struct testkit *kit)
{
    int count;
    testkit_do(kit, count_resumptions, &count);
    return count;
}

static void wait_in(struct testkit *kit, const char *definition)
{
    play_set(kit, definition, NULL);
    news = node_news_create(kit->o);
    testkit_begin(kit, play_begin, NULL);
    testkit_run_ms(kit, 1000);
}

static void assert_status(struct context *ctx, void *wanted)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), wanted);
}

/* Stored, and nobody was woken. */
static void store_signal(struct context *ctx, void *name)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.user.tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_RUN_SIGNALS);
    record_set_uuid(row, RUN_SIGNALS_RUN_ID, scene.run_id);
    record_set_uuid(row, RUN_SIGNALS_ID, uuid_new(scene.kit->clock, scene.kit->random));
    record_set_text(row, RUN_SIGNALS_NAME, str_from_cstr(name));
    record_set_text(row, RUN_SIGNALS_DATA, S("{}"));
    record_set_text(row, RUN_SIGNALS_SENT_BY, S("ada"));
    record_set_integer(row, RUN_SIGNALS_CREATED_AT, 1);
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void test_an_instance_that_waits_for_a_signal_is_left_alone(struct testkit *kit)
{
    wait_in(kit, WAITS);
    look_on(kit);
    assert_int_equal(resumptions(kit), 0);
    testkit_do(kit, assert_status, (char[]){"waiting"});
    node_news_destroy(news);
}

static void test_a_signal_that_woke_nobody_is_heard(struct testkit *kit)
{
    wait_in(kit, WAITS);
    testkit_do(kit, store_signal, (char[]){"go"});
    testkit_run_ms(kit, 5000);
    testkit_do(kit, assert_status, (char[]){"waiting"});
    look_on(kit);
    testkit_do(kit, assert_status, (char[]){"completed"});
    node_news_destroy(news);
}

static void test_signals_that_it_does_not_want_wake_it_once_each(struct testkit *kit)
{
    wait_in(kit, WAITS);
    testkit_do(kit, store_signal, (char[]){"other"});
    look_on(kit);
    assert_int_equal(resumptions(kit), 1);
    testkit_do(kit, store_signal, (char[]){"another"});
    look_on(kit);
    assert_int_equal(resumptions(kit), 2);
    testkit_do(kit, store_signal, (char[]){"go"});
    look_on(kit);
    testkit_do(kit, assert_status, (char[]){"completed"});
    node_news_destroy(news);
}

static void set_rows(struct context *ctx, enum table table, int id_column, uuid id, int column,
                     str text)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.user.tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, table);
    record_set_uuid(row, id_column, id);
    record_set_text(row, column, text);
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void decide_unheard(struct context *ctx, void *unused)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct records rows;
    struct error e = {0};
    (void) unused;
    query_where_uuid(&query, APPROVALS_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.user.tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    set_rows(ctx, TABLE_APPROVALS, APPROVALS_ID, record_uuid(&rows.items[0], APPROVALS_ID),
             APPROVALS_STATUS, S("denied"));
}

static void test_a_decision_that_woke_nobody_is_heard(struct testkit *kit)
{
    wait_in(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: x, approval: {title: may I}}\n");
    look_on(kit);
    assert_int_equal(resumptions(kit), 0);
    testkit_do(kit, decide_unheard, NULL);
    look_on(kit);
    testkit_do(kit, assert_status, (char[]){"failed"});
    node_news_destroy(news);
}

static void cancel_unheard(struct context *ctx, void *unused)
{
    (void) unused;
    set_rows(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_ID, scene.run_id, AGENT_RUNS_CANCEL_BY, S("ada"));
}

static void test_a_cancel_that_woke_nobody_is_heard(struct testkit *kit)
{
    wait_in(kit, WAITS);
    testkit_do(kit, cancel_unheard, NULL);
    look_on(kit);
    testkit_do(kit, assert_status, (char[]){"cancelled"});
    node_news_destroy(news);
}

static void pause_it(struct context *ctx, void *unused)
{
    struct record session;
    struct error e = {0};
    (void) unused;
    if (!session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &session, &e))
        fail_msg("%s", e.message);
}

static void test_a_resumption_that_woke_nobody_is_heard(struct testkit *kit)
{
    wait_in(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: x, sleep: 2s}\n  - {id: y, tool: "
                 "notify}\n");
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, play_wake, NULL); /* it comes due, and is paused */
    look_on(kit);
    assert_int_equal(resumptions(kit), 0);
    testkit_do(kit, assert_status, (char[]){"waiting"});
    testkit_do(kit, scene_resume_unheard, NULL);
    look_on(kit);
    testkit_do(kit, assert_status, (char[]){"completed"});
    node_news_destroy(news);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_an_instance_that_waits_for_a_signal_is_left_alone),
        TESTKIT_SCRIPT(test_a_signal_that_woke_nobody_is_heard),
        TESTKIT_SCRIPT(test_signals_that_it_does_not_want_wake_it_once_each),
        TESTKIT_SCRIPT(test_a_decision_that_woke_nobody_is_heard),
        TESTKIT_SCRIPT(test_a_cancel_that_woke_nobody_is_heard),
        TESTKIT_SCRIPT(test_a_resumption_that_woke_nobody_is_heard),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
