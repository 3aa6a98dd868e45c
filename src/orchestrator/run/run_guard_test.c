/* Runs under a content filter: what is masked or blocked is in no table, no journal and no prompt. */
#include "llm/guard.h"
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"

static struct filter_set *set;
static struct guard_rules rules;

/* The filter of the model from now on: one rule. */
static void filter_with(struct testkit *kit, const char *pattern, enum filter_action action)
{
    struct error e;
    struct filter_rule rule = {S("it"), str_from_cstr(pattern), {0}, action};
    struct filter_options options = {.rules = &rule, .rule_count = 1};
    ensure(filter_set_create(&options, &set, &e));
    rules = (struct guard_rules){.sets = {set, set}};
    kit->guard = &rules;
    testkit_crash(kit);
    scene_start(kit);
}

static void drop_filter(struct testkit *kit)
{
    kit->guard = NULL;
    testkit_crash(kit); /* the settings that point to it go first */
    filter_set_destroy(set);
}

/* Neither rows nor events say it. */
static void assert_nowhere(struct context *ctx, const char *text)
{
    static const struct {
        enum table table;
        int columns[3];
        size_t count;
    } places[] = {
        {TABLE_MESSAGES, {MESSAGES_CONTENT, MESSAGES_PARTS}, 2},
        {TABLE_TOOL_CALLS, {TOOL_CALLS_INPUT, TOOL_CALLS_OUTPUT, TOOL_CALLS_ERROR_MESSAGE}, 3},
        {TABLE_RUN_EVENTS, {RUN_EVENTS_DATA}, 1},
        {TABLE_AGENT_RUNS, {AGENT_RUNS_ERROR_MESSAGE}, 1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        struct query query = query_of(places[i].table);
        struct records rows;
        struct error e;
        query.limit = 200;
        assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
        for (size_t j = 0; j < rows.count; j++)
            for (size_t k = 0; k < places[i].count; k++)
                if (str_find(record_text(&rows.items[j], places[i].columns[k]),
                             str_from_cstr(text)) != STR_NOT_FOUND)
                    fail_msg("table %d says \"" STR_FMT "\"", (int) places[i].table,
                             STR_ARG(record_text(&rows.items[j], places[i].columns[k])));
    }
}

static size_t audit_count(struct context *ctx, const char *action)
{
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e;
    query_where_text(&query, AUDIT_LOGS_ACTION, str_from_cstr(action));
    query.limit = 200;
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++) {
        str details = record_text(&rows.items[i], AUDIT_LOGS_DETAILS);
        assert_true(str_find(details, S("\"rule\":\"it\"")) != STR_NOT_FOUND);
        assert_true(str_find(details, S("\"count\":1")) != STR_NOT_FOUND);
        assert_true(str_find(details, uuid_str(ctx->arena, scene.run_id)) != STR_NOT_FOUND);
    }
    return rows.count;
}

static void check_masked_question(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last, "how [IT] was it?");
    assert_int_equal(audit_count(ctx, "content.masked"), 1);
    assert_nowhere(ctx, "warm");
}

static void test_a_masked_message_is_stored_and_sent_masked(struct testkit *kit)
{
    filter_with(kit, "warm", FILTER_MASK);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_masked_question, NULL);
    drop_filter(kit);
}

static void start_blocked(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    uuid run_id;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {.session_id = scene.session_id,
                                  .content = S("look"),
                                  .parts = S("[{\"type\":\"text\",\"text\":\"so forbidden\"}]")};
    assert_false(run_start(scene.kit->o, ctx, &scene.user, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    struct part part = {.kind = PART_TEXT, .text = S("so forbidden")};
    struct prompt_message turn = {.role = ROLE_USER, .parts = &part, .part_count = 1};
    request = (struct run_request){
        .session_id = scene.session_id, .content = S("look"), .history = &turn, .history_count = 1};
    e = (struct error){0};
    assert_false(run_start(scene.kit->o, ctx, &scene.user, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    assert_nowhere(ctx, "forbidden");
    assert_int_equal(scene.kit->model_calls, 0);
}

static void test_a_blocked_message_starts_no_run(struct testkit *kit)
{
    filter_with(kit, "forbidden", FILTER_BLOCK);
    testkit_do(kit, start_blocked, NULL);
    drop_filter(kit);
}

static void check_masked_answer(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_nowhere(ctx, "Mallory");
}

static void test_a_masked_answer_is_journaled_masked(struct testkit *kit)
{
    filter_with(kit, "Mallory", FILTER_MASK);
    testkit_reply(kit, (struct fake_reply){
                           .text = "it was Mallory, and Mallory",
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_masked_answer, NULL);
    drop_filter(kit);
}

static void check_blocked_answer(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_nowhere(ctx, "forb");
    assert_int_equal(scene.kit->model_calls, 1); /* another attempt would say the same */
}

static void test_a_blocked_answer_ends_the_run_and_is_not_journaled(struct testkit *kit)
{
    filter_with(kit, "forbidden", FILTER_BLOCK);
    testkit_reply(kit, (struct fake_reply){
                           .text = "this is forbidden to say",
                           .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_blocked_answer, NULL);
    drop_filter(kit);
}

static void check_masked_output(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last_result, "{\"who\":\"[IT]\",\"n\":1}");
    assert_nowhere(ctx, "Mallory");
}

static void test_a_tools_result_is_masked_before_it_is_stored(struct testkit *kit)
{
    filter_with(kit, "Mallory", FILTER_MASK);
    testkit_tool(kit, "lookup")->output = "{\"who\":\"M\\u0061llory\",\"n\":1}";
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{\"q\":1}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_masked_output, NULL);
    drop_filter(kit);
}

static void check_blocked_output(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_true(str_find(scene.kit->prompt_last_result, S("content_blocked")) != STR_NOT_FOUND);
    assert_nowhere(ctx, "forbidden");
}

static void test_a_blocked_result_is_an_error_to_the_model(struct testkit *kit)
{
    filter_with(kit, "forbidden", FILTER_BLOCK);
    testkit_tool(kit, "lookup")->output = "{\"who\":\"so forbidden\"}";
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{\"q\":1}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_blocked_output, NULL);
    drop_filter(kit);
}

/* ---- results of the client's own tools ---- */

static struct tool_spec door = {.name = S_INIT("open_door"),
                                .description = S_INIT("Opens a door."),
                                .parameters = S_INIT("{\"type\":\"object\"}")};

static void begin_with_door(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {.session_id = scene.session_id,
                                  .content = S("open up"),
                                  .client_tools = &door,
                                  .client_tool_count = 1};
    if (!run_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &e))
        fail_msg("%s", e.message);
}

static bool give_result(struct context *ctx, const char *content, struct error *e)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    uuid run_id, session_id;
    int64_t last_seq;
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, e));
    assert_int_equal(rows.count, 1);
    struct client_result result = {.tool_call_id = record_uuid(&rows.items[0], TOOL_CALLS_ID),
                                   .content = str_from_cstr(content)};
    return run_give_results(scene.kit->o, ctx, &scene.user, &result, 1, &run_id, &session_id,
                            &last_seq, e);
}

static void give_secret(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    if (!give_result(ctx, "Mallory let me in", &e))
        fail_msg("%s", e.message);
}

static void check_masked_result(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last_result, "[IT] let me in");
    assert_nowhere(ctx, "Mallory");
    assert_int_equal(audit_count(ctx, "content.masked"), 1);
    assert_int_equal(audit_count(ctx, "content.blocked"), 0);
}

static void test_a_clients_result_is_masked_before_it_is_stored(struct testkit *kit)
{
    filter_with(kit, "Mallory", FILTER_MASK);
    testkit_reply(kit, (struct fake_reply){.calls = {{"open_door", "{}"}}, .call_count = 1});
    testkit_do(kit, begin_with_door, NULL);
    testkit_do(kit, give_secret, NULL);
    testkit_do(kit, check_masked_result, NULL);
    drop_filter(kit);
}

static void give_forbidden_then_clean(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    assert_false(give_result(ctx, "so forbidden", &e));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_nowhere(ctx, "forbidden");
    assert_int_equal(audit_count(ctx, "content.blocked"), 1);
    e = (struct error){0};
    if (!give_result(ctx, "it is open", &e))
        fail_msg("%s", e.message);
}

static void check_clean_result(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(scene.kit->prompt_last_result, "it is open");
}

static void test_a_blocked_result_of_a_client_is_refused_and_the_run_waits_on(struct testkit *kit)
{
    filter_with(kit, "forbidden", FILTER_BLOCK);
    testkit_reply(kit, (struct fake_reply){.calls = {{"open_door", "{}"}}, .call_count = 1});
    testkit_do(kit, begin_with_door, NULL);
    testkit_do(kit, give_forbidden_then_clean, NULL);
    testkit_do(kit, check_clean_result, NULL);
    drop_filter(kit);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_masked_message_is_stored_and_sent_masked),
        TESTKIT_SCRIPT(test_a_blocked_message_starts_no_run),
        TESTKIT_SCRIPT(test_a_masked_answer_is_journaled_masked),
        TESTKIT_SCRIPT(test_a_blocked_answer_ends_the_run_and_is_not_journaled),
        TESTKIT_SCRIPT(test_a_tools_result_is_masked_before_it_is_stored),
        TESTKIT_SCRIPT(test_a_blocked_result_is_an_error_to_the_model),
        TESTKIT_SCRIPT(test_a_clients_result_is_masked_before_it_is_stored),
        TESTKIT_SCRIPT(test_a_blocked_result_of_a_client_is_refused_and_the_run_waits_on),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
