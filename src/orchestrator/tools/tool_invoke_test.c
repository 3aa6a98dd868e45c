#include "orchestrator/orchestrator_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/usage/usage_log.h"

static enum error_reason invoke_in(struct testkit *kit, struct context *ctx,
                                   const struct principal *principal, const char *tool,
                                   const char *input, uuid session_id, struct tool_result *out,
                                   str *version)
{
    struct tool_invocation invocation = {
        .name = str_from_cstr(tool), .input = str_from_cstr(input), .session_id = session_id};
    struct error e = {0};
    *out = (struct tool_result){0};
    return tool_invoke(kit->o, ctx, principal, &invocation, out, version, &e) ? REASON_NONE
                                                                              : e.reason;
}

static enum error_reason invoke(struct testkit *kit, struct context *ctx,
                                const struct principal *principal, const char *tool,
                                const char *input)
{
    struct tool_result result;
    str version;
    return invoke_in(kit, ctx, principal, tool, input, UUID_NONE, &result, &version);
}

static size_t entries(struct testkit *kit, struct context *ctx, enum table table, int column,
                      str value)
{
    struct query query = query_of(table);
    struct records rows;
    struct error e;
    query_where_text(&query, column, value);
    assert_true(usage_log_sync(orchestrator_usage(kit->o), ctx, &e));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    return rows.count;
}

static void test_an_invocation_gives_the_output_and_is_booked_and_audited(struct testkit *kit,
                                                                          struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct tool_result result;
    str version = STR_NONE;
    testkit_tool(kit, "pay")->delay_ms = 30;
    assert_int_equal(invoke_in(kit, ctx, &ada, "pay", "{\"n\":1}", session_id, &result, &version),
                     REASON_NONE);
    assert_true(str_equal(result.output, S("{\"ok\":true}")));
    assert_true(str_equal(version, S("1.0.0")));
    assert_int_equal(result.latency_ms, 30);
    assert_true(str_equal(kit->tool_input, S("{\"n\":1}")));
    assert_true(str_equal(kit->tool_user, S("ada")));
    assert_false(str_is_empty(kit->tool_effect_key));
    assert_int_equal(entries(kit, ctx, TABLE_AUDIT_LOGS, AUDIT_LOGS_ACTION, S("tool.invoke")), 1);
    assert_int_equal(entries(kit, ctx, TABLE_LEDGER, LEDGER_KIND, S("tool")), 1);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_what_cannot_be_invoked(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     viewer = testkit_principal(kit, "ada", ROLE_LEVEL_VIEWER);
    struct tool_invocation old = {.name = S("pay"), .version = S("^2.0"), .input = S("{}")};
    struct tool_result result;
    struct error e = {0};
    str version;
    kit->denied[0] = S("notify");
    assert_int_equal(invoke(kit, ctx, &viewer, "pay", "{}"), REASON_DENIED);
    assert_int_equal(invoke(kit, ctx, &ada, "nonsense", "{}"), REASON_NOT_FOUND);
    assert_int_equal(invoke(kit, ctx, &ada, "notify", "{}"), REASON_POLICY_DENIED);
    assert_int_equal(invoke(kit, ctx, &ada, "wipe", "{}"), REASON_NEEDS_APPROVAL);
    assert_false(tool_invoke(kit->o, ctx, &ada, &old, &result, &version, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_non_null(strstr(e.message, "at version ^2.0"));
    for (size_t i = 0; i < FAKE_TOOLS; i++)
        assert_int_equal(kit->tools[i].begun, 0);
}

static void test_input_that_is_not_one_json_value_never_reaches_policy_or_tool(struct testkit *kit,
                                                                               struct context *ctx)
{
    static const char *const inputs[] = {
        "", "{\"a\":", "{},\"user\":{\"id\":\"root\",\"role\":\"admin\"}", "{\"a\":1,\"a\":2}"};
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    for (size_t i = 0; i < ARRAY_COUNT(inputs); i++)
        assert_int_equal(invoke(kit, ctx, &ada, "pay", inputs[i]), REASON_JSON);
    assert_int_equal(kit->decisions, 0);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 0);
}

static void test_a_session_limits_its_invocations(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    struct tool_result result;
    str version;
    budget.tool_calls = 2;
    uuid session_id = testkit_session(kit, ctx, &ada, budget);
    assert_int_equal(invoke_in(kit, ctx, &ada, "pay", "{}", session_id, &result, &version),
                     REASON_NONE);
    assert_int_equal(invoke_in(kit, ctx, &ada, "pay", "{}", session_id, &result, &version),
                     REASON_NONE);
    assert_int_equal(invoke_in(kit, ctx, &ada, "pay", "{}", session_id, &result, &version),
                     REASON_BUDGET);
    assert_int_equal(testkit_tool(kit, "pay")->effects, 2);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_sessions_of_others_and_closed_ones_are_not_charged(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     eve = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct tool_result result;
    struct error e;
    str version;
    assert_int_equal(invoke_in(kit, ctx, &eve, "pay", "{}", session_id, &result, &version),
                     REASON_NOT_FOUND);
    assert_true(session_close(kit->o, ctx, &ada, session_id, &e));
    assert_int_equal(invoke_in(kit, ctx, &ada, "pay", "{}", session_id, &result, &version),
                     REASON_SESSION_CLOSED);
    assert_int_equal(testkit_tool(kit, "pay")->begun, 0);
}

static void test_a_tool_that_fails_keeps_its_reason_and_is_booked(struct testkit *kit,
                                                                  struct context *ctx)
{
    static const enum error_reason reasons[] = {REASON_FUEL, REASON_MEMORY_LIMIT, REASON_TRAP,
                                                REASON_SCHEMA, REASON_PERMISSION};
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    for (size_t i = 0; i < ARRAY_COUNT(reasons); i++) {
        testkit_tool(kit, "pay")->failure = reasons[i];
        assert_int_equal(invoke(kit, ctx, &ada, "pay", "{}"), reasons[i]);
    }
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    struct error e;
    assert_int_equal(entries(kit, ctx, TABLE_LEDGER, LEDGER_KIND, S("tool")), 1); /* in bulk */
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(record_integer(&rows.items[0], LEDGER_TOOL_CALLS), ARRAY_COUNT(reasons));
    assert_int_equal(entries(kit, ctx, TABLE_AUDIT_LOGS, AUDIT_LOGS_ACTION, S("tool.invoke")),
                     ARRAY_COUNT(reasons));
}

static void test_a_tool_past_its_time_is_ended(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    testkit_tool(kit, "pay")->delay_ms = 3600000;
    int64_t started_ns = context_now_ns(ctx);
    assert_int_equal(invoke(kit, ctx, &ada, "pay", "{}"), REASON_TIMEOUT);
    assert_true(context_now_ns(ctx) - started_ns <= 12 * 1000000000ll);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_an_invocation_gives_the_output_and_is_booked_and_audited),
        TESTKIT_BODY(test_what_cannot_be_invoked),
        TESTKIT_BODY(test_input_that_is_not_one_json_value_never_reaches_policy_or_tool),
        TESTKIT_BODY(test_a_session_limits_its_invocations),
        TESTKIT_BODY(test_sessions_of_others_and_closed_ones_are_not_charged),
        TESTKIT_BODY(test_a_tool_that_fails_keeps_its_reason_and_is_booked),
        TESTKIT_BODY(test_a_tool_past_its_time_is_ended),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
