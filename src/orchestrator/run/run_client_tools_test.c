/* Tools of the client: the run waits for results across restarts, takes each once, and never from another user. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static struct tool_spec tools[] = {
    {.name = S_INIT("open_door"),
     .description = S_INIT("Opens a door."),
     .parameters = S_INIT("{\"type\":\"object\",\"properties\":{\"door\":{\"type\":\"string\"}}}")},
    {.name = S_INIT("lookup"), .description = S_INIT("the client's own"), .parameters = S_INIT("")},
};
static char it_is_open[] = "it is open", no_such_thing[] = "!no such thing", open_[] = "open";
static uuid calls[8];
static size_t call_count;

#define ASKED BEGUN INTENT ANSWERED " policy.decided tool.requested run.waiting"

static void begin(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {.session_id = scene.session_id,
                                  .content = S("open up"),
                                  .client_tools = tools,
                                  .client_tool_count = ARRAY_COUNT(tools),
                                  .response_format = S("{\"type\":\"json_object\"}")};
    if (!run_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void find_calls(struct context *ctx, void *unused)
{
    (void) unused;
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e;
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    call_count = 0;
    for (size_t i = 0; i < rows.count; i++)
        if (str_equal(record_text(&rows.items[i], TOOL_CALLS_STATUS), S("pending")))
            calls[call_count++] = record_uuid(&rows.items[i], TOOL_CALLS_ID);
}

static void ask(struct testkit *kit, struct fake_reply reply)
{
    scene_start(kit);
    testkit_reply(kit, reply);
    testkit_do(kit, begin, NULL);
    testkit_do(kit, find_calls, NULL);
}

static void ask_one(struct testkit *kit)
{
    ask(kit, (struct fake_reply){.calls = {{"open_door", "{\"door\":\"blue\"}"}}, .call_count = 1});
    assert_int_equal(call_count, 1);
}

static bool give(struct context *ctx, const struct principal *principal, size_t count,
                 const char *content, struct error *e)
{
    struct client_result results[8];
    uuid run_id, session_id;
    int64_t last_seq;
    for (size_t i = 0; i < count; i++)
        results[i] = (struct client_result){.tool_call_id = calls[i],
                                            .content = str_from_cstr(content),
                                            .is_error = content[0] == '!'};
    bool ok = run_give_results(scene.kit->o, ctx, principal, results, count, &run_id, &session_id,
                               &last_seq, e);
    if (ok) {
        assert_true(uuid_equal(run_id, scene.run_id));
        assert_true(uuid_equal(session_id, scene.session_id));
        assert_true(last_seq > 0);
    }
    return ok;
}

static void give_all(struct context *ctx, void *content)
{
    struct error e = {0};
    if (!give(ctx, &scene.user, call_count, content, &e))
        fail_msg("%s", e.message);
}

/* ---- the straight way ---- */

static void check_done(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, ASKED " run.resumed tool.completed" INTENT ANSWERED " run.completed");
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last_result, "it is open");
    assert_member(ctx, EVENT_TOOL_REQUESTED, "name", "open_door");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "succeeded");
    struct record run = testkit_run(scene.kit, ctx, scene.run_id);
    assert_false(record_has(&run, AGENT_RUNS_WAITS_UNTIL));
}

static void test_a_run_waits_for_its_client_and_goes_on_with_its_result(struct testkit *kit)
{
    ask_one(kit);
    /* lookup of the client hides the platform's: one name, one tool */
    assert_int_equal(kit->prompt_tools, FAKE_TOOLS + 1);
    testkit_do(kit, give_all, it_is_open);
    testkit_do(kit, check_done, NULL);
}

static void test_the_result_may_come_after_a_restart(struct testkit *kit)
{
    ask_one(kit);
    testkit_crash(kit);
    testkit_do(kit, give_all, it_is_open);
    testkit_do(kit, check_done, NULL);
}

static void check_hidden(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 0);
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "failed");
}

static void test_a_tool_of_the_same_name_runs_at_the_client(struct testkit *kit)
{
    ask(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, give_all, no_such_thing);
    testkit_do(kit, check_hidden, NULL);
}

/* ---- beside the platform's own ---- */

static void give_too_few(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    assert_int_equal(call_count, 2);
    assert_false(give(ctx, &scene.user, 1, "one of two", &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
}

static void check_mixed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
    assert_int_equal(scene.kit->prompt_messages, 6); /* system, question, calls, three results */
}

static void test_results_of_all_calls_come_together_beside_tools_of_the_platform(
    struct testkit *kit)
{
    ask(kit, (struct fake_reply){
                 .calls = {{"open_door", "{}"}, {"pay", "{}"}, {"open_door", "{\"door\":\"red\"}"}},
                 .call_count = 3});
    testkit_do(kit, give_too_few, NULL);
    testkit_do(kit, give_all, open_);
    testkit_do(kit, check_mixed, NULL);
}

/* ---- what is refused ---- */

static void refuse(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    struct principal bob = testkit_principal(scene.kit, "bob", ROLE_LEVEL_USER);
    struct principal operator= testkit_principal(scene.kit, "olga", ROLE_LEVEL_OPERATOR);
    struct principal foreign = scene.user;
    foreign.tenant_id = scene.kit->other_tenant_id;
    assert_false(give(ctx, &bob, 1, "x", &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_false(give(ctx, &operator, 1, "x", &e));
    assert_int_equal(e.reason, REASON_DENIED);
    assert_false(give(ctx, &foreign, 1, "x", &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_false(give(ctx, &scene.user, 0, "x", &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_true(give(ctx, &scene.user, 1, "first", &e));
    assert_false(give(ctx, &scene.user, 1, "second", &e));
    assert_int_equal(e.code, ERROR_CONFLICT);
}

static void check_first(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last_result, "first");
    assert_false(give(ctx, &scene.user, 1, "late", &e));
    assert_int_equal(e.code, ERROR_CONFLICT);
}

static void test_a_result_is_taken_once_and_from_the_runs_own_user(struct testkit *kit)
{
    ask_one(kit);
    testkit_do(kit, refuse, NULL);
    testkit_do(kit, check_first, NULL);
}

static void check_denied(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_member(ctx, EVENT_TOOL_COMPLETED, "status", "denied");
}

static void test_a_clients_tool_is_decided_by_the_policy_too(struct testkit *kit)
{
    kit->denied[0] = S("open_door");
    ask(kit, (struct fake_reply){.calls = {{"open_door", "{}"}}, .call_count = 1});
    assert_int_equal(call_count, 0);
    testkit_do(kit, check_denied, NULL);
}

/* ---- clients that never come back ---- */

static void expire(struct context *ctx, void *wanted)
{
    size_t expired;
    struct error e = {0};
    assert_true(runs_expire(scene.kit->o, ctx, &expired, &e));
    assert_int_equal(expired, *(size_t *) wanted);
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_member(ctx, EVENT_RUN_CANCELLED, "by", "the client brought no result in time");
}

static void test_a_client_that_does_not_come_back_is_not_waited_for_forever(struct testkit *kit)
{
    size_t none = 0, one = 1;
    ask_one(kit);
    testkit_do(kit, expire, &none);
    clock_manual_advance_ns(kit->clock, (RUN_CLIENT_RESULT_WAIT_MS + 1000) * 1000000);
    testkit_do(kit, expire, &one);
    testkit_do(kit, check_cancelled, NULL);
    testkit_do(kit, expire, &none);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_run_waits_for_its_client_and_goes_on_with_its_result),
        TESTKIT_SCRIPT(test_the_result_may_come_after_a_restart),
        TESTKIT_SCRIPT(test_a_tool_of_the_same_name_runs_at_the_client),
        TESTKIT_SCRIPT(test_results_of_all_calls_come_together_beside_tools_of_the_platform),
        TESTKIT_SCRIPT(test_a_result_is_taken_once_and_from_the_runs_own_user),
        TESTKIT_SCRIPT(test_a_clients_tool_is_decided_by_the_policy_too),
        TESTKIT_SCRIPT(test_a_client_that_does_not_come_back_is_not_waited_for_forever),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
