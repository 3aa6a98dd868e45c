#include "orchestrator/orchestrator_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"

/* ---- the budget column ---- */

static void test_a_budget_reads_back_in_its_units(struct testkit *kit, struct context *ctx)
{
    (void) kit;
    (void) ctx;
    static const struct {
        const char *text;
        cost limit;
    } lawful[] = {
        {"{}", {COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED}},
        {"{\"tokens\":10000,\"time_seconds\":3600}",
         {10000, 3600000, COST_UNLIMITED, COST_UNLIMITED}},
        {"{\"tokens\":null,\"tool_calls\":0}", {COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED, 0}},
        {"{\"cost_usd\":\"2.50\"}", {COST_UNLIMITED, COST_UNLIMITED, 2500000000, COST_UNLIMITED}},
        {"{\"cost_usd\":2.5}", {COST_UNLIMITED, COST_UNLIMITED, 2500000000, COST_UNLIMITED}},
        {"{\"cost_usd\":\"0.000000001\"}", {COST_UNLIMITED, COST_UNLIMITED, 1, COST_UNLIMITED}},
        {"{\"cost_usd\":0}", {COST_UNLIMITED, COST_UNLIMITED, 0, COST_UNLIMITED}},
    };
    for (size_t i = 0; i < ARRAY_COUNT(lawful); i++) {
        cost limit = {0};
        struct error e = {0};
        if (!session_budget_read(str_from_cstr(lawful[i].text), &limit, &e))
            fail_msg("%s: %s", lawful[i].text, e.message);
        assert_true(cost_equal(limit, lawful[i].limit));
    }
}

static void test_a_budget_that_makes_no_sense_names_its_member(struct testkit *kit,
                                                               struct context *ctx)
{
    (void) kit;
    (void) ctx;
    static const struct {
        const char *text, *member;
    } wrong[] = {
        {"{\"tokens\":-1}", "budget.tokens"},
        {"{\"tokens\":1.5}", "budget.tokens"},
        {"{\"tokens\":\"many\"}", "budget.tokens"},
        {"{\"time_seconds\":9223372036854775807}", "budget.time_seconds"},
        {"{\"tool_calls\":true}", "budget.tool_calls"},
        {"{\"cost_usd\":-1}", "budget.cost_usd"},
        {"{\"cost_usd\":\"-1\"}", "budget.cost_usd"},
        {"{\"cost_usd\":\"1e3\"}", "budget.cost_usd"},
        {"{\"cost_usd\":1e30}", "budget.cost_usd"},
        {"{\"cost_usd\":[]}", "budget.cost_usd"},
        {"{\"tokens\":", ""},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        cost limit = {1, 2, 3, 4};
        struct error e = {0};
        if (session_budget_read(str_from_cstr(wrong[i].text), &limit, &e))
            fail_msg("%s was accepted", wrong[i].text);
        assert_int_equal(e.code, ERROR_INVALID);
        assert_non_null(strstr(e.message, wrong[i].member));
        assert_true(cost_equal(limit, (cost){1, 2, 3, 4}));
    }
}

/* ---- opening ---- */

static bool create(struct testkit *kit, struct context *ctx, const struct principal *principal,
                   struct session_request request, struct record *out, struct error *e)
{
    *e = (struct error){0};
    if (request.budget.tokens == 0)
        request.budget = COST_LIMITLESS;
    return session_create(kit->o, ctx, principal, &request, out, e);
}

static void test_a_new_session_is_active_owned_and_has_the_default_budget(struct testkit *kit,
                                                                          struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct record session, stored;
    struct error e;
    assert_true(
        create(kit, ctx, &ada, (struct session_request){.metadata = S("{\"m\":1}")}, &session, &e));
    assert_true(session_get(kit->o, ctx, &ada, record_uuid(&session, SESSIONS_ID), &stored, &e));
    assert_true(str_equal(record_text(&stored, SESSIONS_STATUS), S("active")));
    assert_true(str_equal(record_text(&stored, SESSIONS_USER_ID), S("ada")));
    assert_true(str_equal(record_text(&stored, SESSIONS_REQUESTED_BY), S("ada")));
    assert_true(str_equal(record_text(&stored, SESSIONS_ROLE), S("user")));
    assert_true(str_equal(record_text(&stored, SESSIONS_AGENT), S("assistant")));
    assert_true(str_equal(record_text(&stored, SESSIONS_BUDGET),
                          S("{\"tokens\":200000,\"time_seconds\":3600}")));
    assert_true(str_equal(record_text(&stored, SESSIONS_METADATA), S("{\"m\":1}")));
    assert_int_equal(record_integer(&stored, SESSIONS_OWNER_EPOCH), 1);
}

static void test_a_callers_budget_only_lowers_the_ceiling(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct record session;
    struct error e;
    str budget;
    cost asked = {500, COST_UNLIMITED, 2500000000, 999};
    assert_true(create(kit, ctx, &ada, (struct session_request){.budget = asked}, &session, &e));
    assert_true(
        str_equal(
            record_text(&session, SESSIONS_BUDGET),
            S("{\"tokens\":500,\"time_seconds\":3600,\"cost_usd\":\"2.50\",\"tool_calls\":999}")) ||
        str_find(record_text(&session, SESSIONS_BUDGET), S("\"cost_usd\":\"2.5")) != STR_NOT_FOUND);
    assert_true(
        session_budget_json(kit->o, ctx, &ada, record_uuid(&session, SESSIONS_ID), &budget, &e));
    assert_true(str_starts_with(budget, S("{\"limit\":{\"tokens\":500,\"time_ms\":3600000,\"cost_"
                                          "nanousd\":\"2500000000\",\"tool_calls\":999},"
                                          "\"spent\":{\"tokens\":0,")));
    asked = (cost){900000, COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED};
    assert_true(create(kit, ctx, &ada, (struct session_request){.budget = asked}, &session, &e));
    assert_true(str_equal(record_text(&session, SESSIONS_BUDGET),
                          S("{\"tokens\":200000,\"time_seconds\":3600}")));
}

static void test_acting_for_another_user_needs_the_scope_and_gives_a_users_rights(
    struct testkit *kit, struct context *ctx)
{
    struct principal root = testkit_principal(kit, "root", ROLE_LEVEL_ADMIN);
    struct session_request for_ada = {.user_id = S("ada")};
    struct record session;
    struct error e;
    assert_false(create(kit, ctx, &root, for_ada, &session, &e));
    assert_int_equal(e.reason, REASON_DENIED);
    assert_non_null(strstr(e.message, "act_as"));
    root.scopes = SCOPE_ACT_AS;
    assert_true(create(kit, ctx, &root, for_ada, &session, &e));
    assert_true(str_equal(record_text(&session, SESSIONS_USER_ID), S("ada")));
    assert_true(str_equal(record_text(&session, SESSIONS_REQUESTED_BY), S("root")));
    assert_true(str_equal(record_text(&session, SESSIONS_ROLE), S("user")));
    root.scopes = 0;
    assert_true(create(kit, ctx, &root, (struct session_request){.user_id = S("root")}, &session,
                       &e)); /* oneself: no scope */
    assert_true(str_equal(record_text(&session, SESSIONS_ROLE), S("admin")));
}

static void test_both_identities_of_an_acting_caller_are_audited(struct testkit *kit,
                                                                 struct context *ctx)
{
    struct principal root = testkit_principal(kit, "root", ROLE_LEVEL_ADMIN);
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct record session;
    struct records rows;
    struct error e;
    root.scopes = SCOPE_ACT_AS;
    assert_true(
        create(kit, ctx, &root, (struct session_request){.user_id = S("ada")}, &session, &e));
    query_where_text(&query, AUDIT_LOGS_ACTION, S("session.create"));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_true(str_equal(record_text(&rows.items[0], AUDIT_LOGS_USER_ID), S("ada")));
    assert_true(str_find(record_text(&rows.items[0], AUDIT_LOGS_DETAILS),
                         S("\"acting_principal\":\"root\"")) != STR_NOT_FOUND);
}

static void test_what_cannot_be_opened(struct testkit *kit, struct context *ctx)
{
    struct principal viewer = testkit_principal(kit, "eve", ROLE_LEVEL_VIEWER),
                     ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    char long_name[257];
    struct record session;
    struct error e;
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[256] = 0;
    assert_false(create(kit, ctx, &viewer, (struct session_request){0}, &session, &e));
    assert_int_equal(e.reason, REASON_DENIED);
    assert_false(
        create(kit, ctx, &ada, (struct session_request){.agent = S("nobody")}, &session, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    ada.scopes = SCOPE_ACT_AS;
    assert_false(create(kit, ctx, &ada,
                        (struct session_request){.user_id = str_from_cstr(long_name)}, &session,
                        &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
}

/* ---- seeing ---- */

static void test_who_sees_which_session(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    static const struct {
        const char *user;
        enum role_level level;
        bool sees;
    } cases[] = {
        {"ada", ROLE_LEVEL_USER, true},     {"ada", ROLE_LEVEL_VIEWER, true},
        {"eve", ROLE_LEVEL_USER, false},    {"eve", ROLE_LEVEL_VIEWER, false},
        {"eve", ROLE_LEVEL_OPERATOR, true}, {"eve", ROLE_LEVEL_ADMIN, true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct principal principal = testkit_principal(kit, cases[i].user, cases[i].level);
        struct record session;
        struct records list;
        struct error e = {0};
        str budget;
        assert_int_equal(session_get(kit->o, ctx, &principal, id, &session, &e), cases[i].sees);
        assert_int_equal(e.reason, cases[i].sees ? REASON_NONE : REASON_NOT_FOUND);
        e = (struct error){0};
        assert_int_equal(session_budget_json(kit->o, ctx, &principal, id, &budget, &e),
                         cases[i].sees);
        assert_true(session_list(kit->o, ctx, &principal, STR_NONE, STR_NONE, 10, &list, &e));
        assert_int_equal(list.count, cases[i].sees);
    }
}

static void test_another_tenants_admin_sees_nothing_and_reaches_nothing(struct testkit *kit,
                                                                        struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct principal foreign = testkit_principal(kit, "ada", ROLE_LEVEL_ADMIN);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS),
         run_id = testkit_start(kit, ctx, &ada, id, "q"), other;
    struct run_request request = {.session_id = id, .content = S("q")};
    struct record row;
    struct records rows;
    struct error e[6] = {0};
    str budget;
    foreign.tenant_id = kit->other_tenant_id;
    assert_false(session_get(kit->o, ctx, &foreign, id, &row, &e[0]));
    assert_false(session_close(kit->o, ctx, &foreign, id, &e[1]));
    assert_false(session_budget_json(kit->o, ctx, &foreign, id, &budget, &e[2]));
    assert_false(run_get(kit->o, ctx, &foreign, run_id, &row, &e[3]));
    assert_false(run_cancel(kit->o, ctx, &foreign, run_id, &e[4]));
    assert_false(run_start(kit->o, ctx, &foreign, &request, &other, &e[5]));
    for (size_t i = 0; i < ARRAY_COUNT(e); i++)
        assert_int_equal(e[i].reason, REASON_NOT_FOUND);
    assert_true(session_list(kit->o, ctx, &foreign, STR_NONE, STR_NONE, 10, &rows, &e[0]) &&
                rows.count == 0);
    assert_true(
        run_list(kit->o, ctx, &foreign, &(struct run_filter){0}, STR_NONE, 10, &rows, &e[0]) &&
        rows.count == 0);
    assert_true(run_list(kit->o, ctx, &foreign, &(struct run_filter){.session_id = id}, STR_NONE,
                         10, &rows, &e[0]) &&
                rows.count == 0);
}

static size_t pages_of_paused(struct testkit *kit, struct context *ctx,
                              const struct principal *principal, size_t *seen)
{
    struct records page = {0};
    struct error e = {0};
    size_t pages = 0;
    *seen = 0;
    do {
        assert_true(
            session_list(kit->o, ctx, principal, S("paused"), page.next_cursor, 2, &page, &e));
        for (size_t i = 0; i < page.count; i++)
            assert_true(str_equal(record_text(&page.items[i], SESSIONS_STATUS), S("paused")));
        assert_true(page.count <= 2);
        *seen += page.count;
        pages++;
    } while (!str_is_empty(page.next_cursor));
    return pages;
}

static void add_sessions(struct testkit *kit, struct context *ctx, size_t count, const char *status)
{
    struct batch batch;
    struct error e = {0};
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    while (count > 0) {
        batch_init(&batch, ctx->arena, kit->tenant_id);
        for (size_t i = 0; i < 200 && count > 0; i++, count--) {
            struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_SESSIONS);
            record_set_uuid(row, SESSIONS_ID, uuid_new(kit->clock, kit->random));
            record_set_text(row, SESSIONS_USER_ID, ada.user_id);
            record_set_text(row, SESSIONS_REQUESTED_BY, ada.user_id);
            record_set_text(row, SESSIONS_ROLE, S("user"));
            record_set_text(row, SESSIONS_STATUS, str_from_cstr(status));
        }
        assert_true(store_commit(kit->store, ctx, &batch, &e));
    }
}

static void test_a_page_by_status_reads_so_many_rows_at_most_and_goes_on(struct testkit *kit,
                                                                         struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    size_t seen;
    add_sessions(kit, ctx, 3, "paused");
    assert_int_equal(pages_of_paused(kit, ctx, &ada, &seen), 2); /* two and one */
    assert_int_equal(seen, 3);
    add_sessions(kit, ctx, STORE_SIFT_ROWS_MAX, "closed"); /* newer: exactly one page of none */
    assert_int_equal(pages_of_paused(kit, ctx, &ada, &seen), 3);
    assert_int_equal(seen, 3);
    add_sessions(kit, ctx, 1, "closed"); /* one past the bound */
    assert_int_equal(pages_of_paused(kit, ctx, &ada, &seen), 3);
    assert_int_equal(seen, 3);
}

static void test_lists_go_on_page_by_page_newest_first(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct records page = {0};
    struct error e;
    uuid newest = UUID_NONE;
    size_t seen = 0;
    for (int i = 0; i < 7; i++) {
        newest = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
        assert_true(context_sleep_ms(ctx, 2, &e));
    }
    do {
        assert_true(session_list(kit->o, ctx, &ada, STR_NONE, page.next_cursor, 3, &page, &e));
        if (seen == 0)
            assert_true(uuid_equal(record_uuid(&page.items[0], SESSIONS_ID), newest));
        seen += page.count;
    } while (!str_is_empty(page.next_cursor));
    assert_int_equal(seen, 7);
}

/* ---- closing, expiring ---- */

static void test_a_closed_session_takes_no_run(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS), run_id;
    struct run_request request = {.session_id = id, .content = S("q")};
    struct error e = {0};
    assert_true(session_close(kit->o, ctx, &ada, id, &e));
    assert_false(run_start(kit->o, ctx, &ada, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_SESSION_CLOSED);
}

static void expire_body(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS), run_id;
    struct run_request request = {.session_id = id, .content = S("q")};
    struct error e = {0};
    assert_true(context_sleep_ms(ctx, 1001, &e));
    assert_false(run_start(kit->o, ctx, &ada, &request, &run_id, &e));
    assert_int_equal(e.reason, REASON_SESSION_CLOSED);
    assert_non_null(strstr(e.message, "expired"));
}

static void test_an_expired_session_takes_no_run(struct testkit *kit)
{
    kit->defaults.session_expiry_ms = 1000;
    testkit_crash_only(kit); /* the next incarnation has these settings */
    testkit_do(kit, expire_body, kit);
}

static void test_a_run_has_the_lower_role_of_session_and_caller(struct testkit *kit,
                                                                struct context *ctx)
{
    struct principal admin = testkit_principal(kit, "ada", ROLE_LEVEL_ADMIN),
                     user = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct error e;
    uuid opened_by_admin = testkit_session(kit, ctx, &admin, COST_LIMITLESS),
         opened_by_user = testkit_session(kit, ctx, &user, COST_LIMITLESS);
    testkit_start(kit, ctx, &user, opened_by_admin, "q");
    assert_true(str_equal(kit->policy_role, S("user")));
    testkit_start(kit, ctx, &admin, opened_by_user, "q");
    assert_true(context_sleep_ms(ctx, 1000, &e));
    assert_true(str_equal(kit->policy_role, S("user")));
    assert_true(str_equal(kit->policy_user, S("ada")));
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_budget_reads_back_in_its_units),
        TESTKIT_BODY(test_a_budget_that_makes_no_sense_names_its_member),
        TESTKIT_BODY(test_a_new_session_is_active_owned_and_has_the_default_budget),
        TESTKIT_BODY(test_a_callers_budget_only_lowers_the_ceiling),
        TESTKIT_BODY(test_acting_for_another_user_needs_the_scope_and_gives_a_users_rights),
        TESTKIT_BODY(test_both_identities_of_an_acting_caller_are_audited),
        TESTKIT_BODY(test_what_cannot_be_opened),
        TESTKIT_BODY(test_who_sees_which_session),
        TESTKIT_BODY(test_another_tenants_admin_sees_nothing_and_reaches_nothing),
        TESTKIT_BODY(test_lists_go_on_page_by_page_newest_first),
        TESTKIT_BODY(test_a_page_by_status_reads_so_many_rows_at_most_and_goes_on),
        TESTKIT_BODY(test_a_closed_session_takes_no_run),
        TESTKIT_SCRIPT(test_an_expired_session_takes_no_run),
        TESTKIT_BODY(test_a_run_has_the_lower_role_of_session_and_caller),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
