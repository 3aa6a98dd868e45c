/* Sessions that are paused, expire, are cloned, exported and imported. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

static struct record session_row(struct context *ctx, uuid id)
{
    struct record row;
    struct error e = {0};
    if (!session_get(scene.kit->o, ctx, &scene.user, id, &row, &e))
        fail_msg("%s", e.message);
    return row;
}

static void assert_session(struct context *ctx, uuid id, const char *status)
{
    struct record row = session_row(ctx, id);
    assert_str(record_text(&row, SESSIONS_STATUS), status);
}

/* ---- pause ---- */

static void pause_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row;
    struct error e = {0};
    if (!session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
    assert_false(session_pause(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e));
}

static void resume_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row;
    struct error e = {0};
    if (!session_resume(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e))
        fail_msg("%s", e.message);
}

static void check_paused(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    uuid run_id;
    assert_session(ctx, scene.session_id, "paused");
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    assert_false(run_start(
        scene.kit->o, ctx, &scene.user,
        &(struct run_request){.session_id = scene.session_id, .content = S("hello")}, &run_id, &e));
    assert_int_equal(e.reason, REASON_SESSION_PAUSED);
    assert_non_null(strstr(e.message, "/resume"));
}

static void check_resumed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_session(ctx, scene.session_id, "active");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
}

static void begin_paused(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "pay")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 2000);
    testkit_do(kit, check_paused, NULL);
    assert_int_equal(kit->model_calls, 1);
}

static void test_a_paused_run_stops_before_its_next_step_and_goes_on_when_resumed(
    struct testkit *kit)
{
    begin_paused(kit);
    testkit_do(kit, resume_it, NULL);
    testkit_do(kit, check_resumed, NULL);
    assert_int_equal(kit->model_calls, 2);
}

static void resume_unacknowledged(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row;
    struct error e = {0};
    fault_arm(S("session_resume.after:1"));
    assert_false(session_resume(scene.kit->o, ctx, &scene.user, scene.session_id, &row, &e));
    fault_arm(S(""));
}

static void test_a_run_goes_on_when_nobody_knows_whether_its_session_was_resumed(
    struct testkit *kit)
{
    begin_paused(kit);
    testkit_do(kit, resume_unacknowledged, NULL);
    testkit_do(kit, check_resumed, NULL);
}

static void test_a_pause_outlives_crashes(struct testkit *kit)
{
    begin_paused(kit);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_do(kit, check_paused, NULL);
    testkit_do(kit, resume_it, NULL);
    testkit_do(kit, check_resumed, NULL);
}

static void consume_an_approval(struct context *ctx, void *unused)
{
    struct batch batch;
    struct error e = {0};
    (void) unused;
    batch_init(&batch, ctx->arena, scene.user.tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, uuid_new(scene.kit->clock, scene.kit->random));
    record_set_uuid(row, APPROVALS_RUN_ID, scene.run_id);
    record_set_uuid(row, APPROVALS_SESSION_ID, scene.session_id);
    record_set_text(row, APPROVALS_ACTION, S("tool.call"));
    record_set_text(row, APPROVALS_DIGEST, S("0"));
    record_set_text(row, APPROVALS_SUBJECT, S("{}"));
    record_set_text(row, APPROVALS_REQUESTED_BY, S("[]"));
    record_set_text(row, APPROVALS_USER_ID, S("ada"));
    record_set_text(row, APPROVALS_STATUS, S("consumed"));
    record_set_integer(row, APPROVALS_CREATED_AT, 1);
    record_set_integer(row, APPROVALS_EXPIRES_AT, 1);
    assert_true(store_commit(scene.kit->store, ctx, &batch, &e));
}

static void test_a_start_goes_on_with_what_was_resumed_before_the_crash(struct testkit *kit)
{
    begin_paused(kit);
    testkit_do(kit, consume_an_approval, NULL); /* what it once waited for is of the past */
    testkit_do(kit, scene_resume_unheard, NULL);
    testkit_crash(kit);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_resumed, NULL);
}

static void cancel_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    assert_true(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
}

static void test_a_paused_run_can_be_cancelled(struct testkit *kit)
{
    begin_paused(kit);
    testkit_do(kit, cancel_it, NULL);
    testkit_do(kit, check_cancelled, NULL);
}

/* ---- what it spent ---- */

static struct ledger_path books;

/* The accounts stay in memory, as others' runs keep them there. */
static void open_books(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    assert_true(ledger_open_path(orchestrator_ledger(scene.kit->o), ctx, scene.user.tenant_id,
                                 scene.user.user_id, UUID_NONE, UUID_NONE,
                                 (struct ledger_limits){0}, &books, &e));
}

static void check_books(struct context *ctx, void *unused)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct ledger *ledger = orchestrator_ledger(scene.kit->o);
    struct error e = {0};
    (void) unused;
    record_set_text(&key, BUDGETS_LEVEL, S("user"));
    record_set_text(&key, BUDGETS_SUBJECT, scene.user.user_id);
    assert_true(store_get(scene.kit->store, ctx, scene.user.tenant_id, &key, &row, &e));
    struct ledger_view view = ledger_view(ledger, &books, ACCOUNT_USER);
    assert_int_equal(record_integer(&row, BUDGETS_SPENT_TOKENS), 300);
    assert_int_equal(view.spent.tokens, 300);
    assert_true(cost_is_zero(view.reserved));
    ledger_close_path(ledger, &books);
}

static void test_what_a_paused_run_spent_is_known_when_its_last_commit_was_not_acknowledged(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){
                      .calls = {{"pay", "{}"}},
                      .call_count = 1,
                      .delay_ms = 500,
                      .usage = {.input_tokens = 200, .output_tokens = 100, .is_reported = true}});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, open_books, NULL);
    testkit_begin(kit, pause_it, NULL);
    testkit_run_ms(kit, 100);
    fault_arm(S("run_waiting.after:1"));
    testkit_run_ms(kit, 5000);
    fault_arm(S(""));
    testkit_do(kit, check_paused, NULL);
    testkit_do(kit, check_books, NULL);
}

static void remove_it(struct context *ctx, void *unused)
{
    struct batch batch;
    struct error e = {0};
    (void) unused;
    batch_init(&batch, ctx->arena, scene.user.tenant_id);
    batch.is_retention = true;
    struct record *gone = batch_add(&batch, WRITE_DELETE, TABLE_AGENT_RUNS);
    record_set_uuid(gone, AGENT_RUNS_ID, scene.run_id);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "completed");
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void test_what_a_run_spent_is_known_though_it_was_removed_before_its_end_was_acknowledged(
    struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){
                      .delay_ms = 500,
                      .usage = {.input_tokens = 200, .output_tokens = 100, .is_reported = true}});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, open_books, NULL);
    fault_arm(S("run_completed.after:1"));
    testkit_run_ms(kit, 450);
    fault_arm(S(""));
    testkit_begin(kit, remove_it, NULL);
    testkit_run_ms(kit, 5000);
    assert_int_equal(orchestrator_active_runs(kit->o), 0);
    testkit_do(kit, check_books, NULL);
}

/* ---- expiry ---- */

static void sweep(struct context *ctx, void *expired)
{
    struct error e = {0};
    if (!sessions_expire(scene.kit->o, ctx, expired, &e))
        fail_msg("%s", e.message);
}

static void check_expired(struct context *ctx, void *unused)
{
    (void) unused;
    assert_session(ctx, scene.session_id, "expired");
}

static void check_active(struct context *ctx, void *unused)
{
    (void) unused;
    assert_session(ctx, scene.session_id, "active");
}

static void test_a_session_expires_when_nobody_speaks_in_it(struct testkit *kit)
{
    size_t expired = 9;
    scene_start(kit);
    kit->defaults.session_expiry_ms = 60000;
    testkit_crash(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_run_ms(kit, 59000);
    testkit_do(kit, sweep, &expired);
    assert_int_equal(expired, 0);
    testkit_do(kit, check_active, NULL);
    testkit_run_ms(kit, 2000);
    testkit_do(kit, sweep, &expired);
    assert_int_equal(expired, 1);
    testkit_do(kit, check_expired, NULL);
    testkit_do(kit, sweep, &expired);
    assert_int_equal(expired, 0);
}

static void test_a_paused_session_expires_with_its_run(struct testkit *kit)
{
    size_t expired;
    kit->defaults.session_expiry_ms = 60000;
    testkit_crash(kit);
    begin_paused(kit);
    testkit_run_ms(kit, 70000);
    testkit_do(kit, sweep, &expired);
    testkit_do(kit, check_cancelled, NULL);
    testkit_run_ms(kit, 70000);
    testkit_do(kit, sweep, &expired);
    assert_int_equal(expired, 1);
    testkit_do(kit, check_expired, NULL);
}

/* ---- clone ---- */

static uuid made_id;

static never_inline size_t rows_of(struct context *ctx, uuid session_id, struct records *rows)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct error e = {0};
    query_where_uuid(&query, MESSAGES_SESSION_ID, session_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, rows, &e));
    return rows->count;
}

static void clone_it(struct context *ctx, void *unused)
{
    (void) unused;
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct records rows;
    struct error e = {0};
    struct principal other = testkit_principal(scene.kit, "bob", ROLE_LEVEL_USER);
    assert_false(session_clone(scene.kit->o, ctx, &other, scene.session_id, UUID_NONE, row, &e));
    assert_int_equal(e.code, ERROR_NOT_FOUND);
    assert_int_equal(rows_of(ctx, scene.session_id, &rows), 3);
    uuid first = record_uuid(&rows.items[0], MESSAGES_ID);
    if (!session_clone(scene.kit->o, ctx, &scene.user, scene.session_id, UUID_NONE, row, &e))
        fail_msg("%s", e.message);
    made_id = record_uuid(row, SESSIONS_ID);
    assert_int_equal(rows_of(ctx, made_id, &rows), 3);
    assert_str(record_text(row, SESSIONS_STATUS), "active");
    assert_str(record_text(row, SESSIONS_BUDGET), "{\"tokens\":200000,\"time_seconds\":3600}");
    assert_true(session_clone(scene.kit->o, ctx, &scene.user, scene.session_id, first, row, &e));
    assert_int_equal(rows_of(ctx, record_uuid(row, SESSIONS_ID), &rows), 1);
    assert_false(
        session_clone(scene.kit->o, ctx, &scene.user, made_id, first, row, &e)); /* not its own */
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, made_id, "and then?");
}

static void check_clone(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "completed");
    assert_str(scene.kit->prompt_last, "and then?");
    /* system, question, call, its result, answer, question */
    assert_int_equal(scene.kit->prompt_messages, 6);
}

static void begin_talk(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
}

static void test_a_clone_has_the_history_and_goes_its_own_way(struct testkit *kit)
{
    begin_talk(kit);
    testkit_do(kit, clone_it, NULL);
    testkit_do(kit, check_clone, NULL);
}

/* ---- export, import ---- */

static struct strbuf document;

static bool collect(void *owner, str piece, struct error *e)
{
    (void) owner;
    (void) e;
    strbuf_add(&document, piece);
    return true;
}

static void export_and_import(struct context *ctx, void *unused)
{
    (void) unused;
    const struct json *tree;
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct records rows;
    struct error e = {0};
    strbuf_init(&document, scene.kit->arena, 16 << 20);
    if (!session_export(scene.kit->o, ctx, &scene.user, scene.session_id,
                        &(struct session_export){.write = collect}, &e))
        fail_msg("%s", e.message);
    if (!json_parse(ctx->arena, strbuf_str(&document), (struct json_limits){0}, &tree, &e))
        fail_msg("%s", e.message);
    assert_int_equal(json_count(json_get(tree, S("messages"))), 3);
    const struct json *run = json_at(json_get(tree, S("runs")), 0);
    assert_int_equal(json_count(json_get(run, S("tool_calls"))), 1);
    assert_true(json_count(json_get(run, S("events"))) > 10);
    struct principal bob = testkit_principal(scene.kit, "bob", ROLE_LEVEL_USER);
    if (!session_import(scene.kit->o, ctx, &bob, tree, row, &e))
        fail_msg("%s", e.message);
    made_id = record_uuid(row, SESSIONS_ID);
    assert_str(record_text(row, SESSIONS_USER_ID), "bob");
    assert_int_equal(rows_of(ctx, made_id, &rows), 4); /* the result is a row of its own */
    assert_str(record_text(&rows.items[2], MESSAGES_ROLE), "tool");
    assert_str(record_text(&rows.items[2], MESSAGES_CONTENT), "{\"ok\":true}");
    for (size_t i = 0; i < rows.count; i++) {
        assert_true(str_find(record_text(&rows.items[i], MESSAGES_METADATA),
                             S("\"untrusted\":true")) != STR_NOT_FOUND);
        assert_true(str_find(record_text(&rows.items[i], MESSAGES_PARTS), S("tool_call_id")) ==
                    STR_NOT_FOUND);
    }
    scene.user = bob;
    scene.run_id = testkit_start(scene.kit, ctx, &bob, made_id, "and then?");
}

static void test_a_session_is_exported_and_imported_and_nothing_in_it_is_believed(
    struct testkit *kit)
{
    begin_talk(kit);
    testkit_do(kit, export_and_import, NULL);
    testkit_do(kit, check_clone, NULL);
}

static void import_nonsense(struct context *ctx, void *unused)
{
    (void) unused;
    static const char *const wrong[] = {
        "{}",
        "{\"format\":\"nexus.session/2\",\"messages\":[]}",
        "{\"format\":\"nexus.session/1\"}",
        "{\"format\":\"nexus.session/1\",\"messages\":[{\"role\":\"emperor\",\"content\":\"x\"}]}",
        "{\"format\":\"nexus.session/1\",\"messages\":[{\"role\":\"user\",\"content\":7}]}",
    };
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        const struct json *tree;
        struct record row;
        struct error e = {0};
        assert_true(
            json_parse(ctx->arena, str_from_cstr(wrong[i]), (struct json_limits){0}, &tree, &e));
        assert_false(session_import(scene.kit->o, ctx, &scene.user, tree, &row, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
}

static void test_a_document_that_is_none_is_refused(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, import_nonsense, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_paused_run_stops_before_its_next_step_and_goes_on_when_resumed),
        TESTKIT_SCRIPT(test_a_run_goes_on_when_nobody_knows_whether_its_session_was_resumed),
        TESTKIT_SCRIPT(test_a_pause_outlives_crashes),
        TESTKIT_SCRIPT(test_a_start_goes_on_with_what_was_resumed_before_the_crash),
        TESTKIT_SCRIPT(test_a_paused_run_can_be_cancelled),
        TESTKIT_SCRIPT(
            test_what_a_paused_run_spent_is_known_when_its_last_commit_was_not_acknowledged),
        TESTKIT_SCRIPT(
            test_what_a_run_spent_is_known_though_it_was_removed_before_its_end_was_acknowledged),
        TESTKIT_SCRIPT(test_a_session_expires_when_nobody_speaks_in_it),
        TESTKIT_SCRIPT(test_a_paused_session_expires_with_its_run),
        TESTKIT_SCRIPT(test_a_clone_has_the_history_and_goes_its_own_way),
        TESTKIT_SCRIPT(test_a_session_is_exported_and_imported_and_nothing_in_it_is_believed),
        TESTKIT_SCRIPT(test_a_document_that_is_none_is_refused),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
