#include "gateway/queries.h"

#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct api_route *route_of(enum http_method method, str path)
{
    str params[ROUTE_PARAMS_MAX];
    bool is_path_known;
    const struct api_route *route = routes_find(method, path, params, &is_path_known);
    assert_non_null(route);
    return route;
}

static void check_taken(enum http_method method, const char *path, const char *query)
{
    OWNED(arena) arena = arena_create(0);
    struct error e = {0};
    if (!queries_check(arena, route_of(method, str_from_cstr(path)), str_from_cstr(query), &e))
        fail_msg("%s?%s: %s", path, query, e.message);
}

static void check_refused(enum http_method method, const char *path, const char *query,
                          const char *told)
{
    OWNED(arena) arena = arena_create(0);
    struct error e = {0};
    assert_false(
        queries_check(arena, route_of(method, str_from_cstr(path)), str_from_cstr(query), &e));
    assert_int_equal(e.reason, REASON_INVALID);
    assert_string_equal(e.message, told);
}

static void test_what_a_route_lists_is_taken(void **state)
{
    (void) state;
    static const char *const lists[] = {
        "",           "limit=5", "limit=5&cursor=abc", "status=running",
        "&&status=&", "status",  "stat%75s=",          "agent=a%20b&workflow=order@1&session_id=x",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        check_taken(HTTP_GET, "/api/v1/runs", lists[i]);
    check_taken(HTTP_HEAD, "/api/v1/runs", "status=failed");
    check_taken(HTTP_GET, "/api/v1/runs/x/events", "after=3&limit=2");
    check_taken(HTTP_DELETE, "/api/v1/tools/a", "version=1.0.0&scope=platform");
}

static void test_an_unknown_parameter_is_told_the_nearest_and_all(void **state)
{
    (void) state;
    static const char all[] = "limit, cursor, session_id, status, agent, workflow";
    OWNED(arena) arena = arena_create(0);
    check_refused(HTTP_GET, "/api/v1/runs", "limit=3&state=running",
                  "there is no parameter \"state\"; did you mean \"status\"? There are limit, "
                  "cursor, session_id, status, agent, workflow");
    check_refused(HTTP_GET, "/api/v1/runs", "STATUS=running",
                  "there is no parameter \"STATUS\"; did you mean \"status\"? There are limit, "
                  "cursor, session_id, status, agent, workflow");
    str told = str_printf(arena, "there is no parameter \"qqqqqqq\"; there are %s", all);
    check_refused(HTTP_GET, "/api/v1/runs", "qqqqqqq=1", str_to_cstr(arena, told));
    check_refused(HTTP_GET, "/api/v1/me", "x=1", "there is no parameter \"x\"; this takes none");
    check_refused(HTTP_POST, "/api/v1/sessions", "limit=1",
                  "there is no parameter \"limit\"; this takes none");
    check_refused(HTTP_GET, "/api/v1/me", "a%0ab%zz=1",
                  "there is no parameter \"a%0ab%zz\"; this takes none");
    check_refused(HTTP_GET, "/api/v1/me", "a%0ab=1",
                  "there is no parameter \"a\\u{a}b\"; this takes none");
}

static void test_a_value_out_of_a_closed_set_is_told_the_set(void **state)
{
    (void) state;
    check_refused(HTTP_GET, "/api/v1/runs", "status=done",
                  "?status= must be pending, running, waiting, completed, failed or cancelled");
    check_refused(HTTP_GET, "/api/v1/sessions", "status=Active",
                  "?status= must be active, paused, closed or expired");
    check_refused(HTTP_POST, "/api/v1/tools", "scope=all", "?scope= must be tenant or platform");
}

static void test_other_dialects_and_what_others_send_are_left_alone(void **state)
{
    (void) state;
    check_taken(HTTP_POST, "/v1/chat/completions", "api-version=2024-06-01");
    check_taken(HTTP_POST, "/v1/messages", "beta=true");
    check_taken(HTTP_GET, "/healthz", "x=1");
    check_taken(HTTP_POST, "/api/v1/hooks/t/name", "whatever=1&token=2");
    check_taken(HTTP_GET, "/api/v1/mcp/oauth/callback", "state=a&code=b&session_state=c");
}

static void test_every_line_is_of_a_native_route_and_said_once(void **state)
{
    (void) state;
    struct route_query query, other;
    for (size_t i = 0; i < routes_count(); i++) {
        const struct api_route *route = routes_at(i);
        for (size_t n = 0; queries_at(route, n, &query); n++) {
            assert_int_equal(route->dialect,
                             route->flags & ROUTE_PAGED ? route->dialect : ROUTE_NATIVE);
            assert_int_equal(query.kind == QUERY_CHOICE, !str_is_empty(query.values));
            for (size_t m = 0; m < n && queries_at(route, m, &other); m++)
                assert_false(str_equal(query.name, other.name));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_route_lists_is_taken),
        cmocka_unit_test(test_an_unknown_parameter_is_told_the_nearest_and_all),
        cmocka_unit_test(test_a_value_out_of_a_closed_set_is_told_the_set),
        cmocka_unit_test(test_other_dialects_and_what_others_send_are_left_alone),
        cmocka_unit_test(test_every_line_is_of_a_native_route_and_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
