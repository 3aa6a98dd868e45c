#include "gateway/gateway_internal.h"

#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct json *document(struct arena *arena)
{
    struct error e = {0};
    const struct json *json;
    if (!json_parse(arena, openapi_document(arena), (struct json_limits){0}, &json, &e))
        fail_msg("%s", e.message);
    return json;
}

static void test_every_route_is_found_by_its_own_path_and_method(void **state)
{
    (void) state;
    for (size_t i = 0; i < routes_count(); i++) {
        str params[ROUTE_PARAMS_MAX] = {{0}};
        bool is_path_known;
        assert_ptr_equal(
            routes_find(routes_at(i)->method, routes_at(i)->path, params, &is_path_known),
            routes_at(i));
    }
}

static void test_parameters_are_cut_out_of_the_path(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str params[ROUTE_PARAMS_MAX] = {{0}};
    bool is_path_known;
    const struct api_route *route =
        routes_find(HTTP_GET, S("/api/v1/sessions/abc/files/a%20b"), params, &is_path_known);
    assert_non_null(route);
    assert_true(str_equal(params[0], S("abc")) && str_equal(params[1], S("a%20b")));
    assert_non_null(routes_find(HTTP_HEAD, S("/healthz"), params, &is_path_known));
    assert_null(routes_find(HTTP_POST, S("/healthz"), params, &is_path_known));
    assert_true(is_path_known);
    static const str unknown[] = {S_INIT("/api/v1/sessions/"),
                                  S_INIT("/api/v1/sessions//files"),
                                  S_INIT("/healthz/"),
                                  S_INIT("//"),
                                  S_INIT(""),
                                  S_INIT("/api/v1/sessions/a/b/c/d")};
    for (size_t i = 0; i < ARRAY_COUNT(unknown); i++) {
        assert_null(routes_find(HTTP_GET, unknown[i], params, &is_path_known));
        assert_false(is_path_known);
    }
    assert_true(str_equal(routes_allowed(arena, S("/api/v1/sessions")), S("POST, GET, HEAD")));
}

static void test_only_health_page_documents_signed_requests_and_the_callback_of_logins_need_no_key(
    void **state)
{
    (void) state;
    static const str open[] = {S_INIT("/"),
                               S_INIT("/healthz"),
                               S_INIT("/readyz"),
                               S_INIT("/api/openapi.json"),
                               S_INIT("/.well-known/oauth-protected-resource"),
                               S_INIT("/.well-known/oauth-protected-resource/mcp"),
                               S_INIT("/api/v1/hooks/{tenant}/{name}"),
                               S_INIT("/api/v1/mcp/oauth/callback"),
                               S_INIT("/api/v1/mcp/oauth/client")};
    size_t count = 0;
    for (size_t i = 0; i < routes_count(); i++) {
        const struct api_route *route = routes_at(i);
        bool is_open = false;
        for (size_t j = 0; j < ARRAY_COUNT(open); j++)
            is_open = is_open || str_equal(route->path, open[j]);
        assert_int_equal((route->flags & ROUTE_PUBLIC) != 0, is_open);
        count += is_open;
    }
    assert_int_equal(count, ARRAY_COUNT(open));
}

static void test_every_route_is_in_the_document_with_its_rights(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    const struct json *paths = json_get(document(arena), S("paths"));
    for (size_t i = 0; i < routes_count(); i++) {
        const struct api_route *route = routes_at(i);
        str method = str_lower(arena, str_from_cstr(http_method_name(route->method)));
        const struct json *operation = json_get(json_get(paths, route->path), method);
        if (!operation)
            fail_msg("no " STR_FMT " " STR_FMT, STR_ARG(method), STR_ARG(route->path));
        assert_true(json_count(json_get(operation, S("responses"))) == 2);
        bool says_role = json_get(operation, S("x-nexus-role")) != NULL;
        assert_int_equal(says_role, !(route->flags & ROUTE_PUBLIC));
        bool wants_body = route->body == BODY_JSON || route->body == BODY_CHAT ||
                          route->body == BODY_RPC || route->body == BODY_RAW;
        assert_int_equal(json_get(operation, S("requestBody")) != NULL, wants_body);
    }
}

static void check_references(const struct json *root, const struct json *value)
{
    struct json_iter it = json_iter(value);
    str key, target;
    const struct json *item;
    while (json_next(&it, &key, &item)) {
        if (str_equal(key, S("$ref")) && json_to_str(item, &target) &&
            !json_path(root, str_from(target, 1)))
            fail_msg("nothing at " STR_FMT, STR_ARG(target));
        check_references(root, item);
    }
}

static void test_every_reference_of_the_document_leads_somewhere(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    const struct json *root = document(arena);
    check_references(root, root);
}

static void test_operation_ids_are_unique(void **state)
{
    (void) state;
    for (size_t i = 0; i < routes_count(); i++)
        for (size_t j = 0; j < i; j++)
            assert_ptr_not_equal(routes_at(i)->handler, routes_at(j)->handler);
}

static void test_text_hides_nothing(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_true(
        str_equal(text_made_visible(arena, S("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80")),
                  S("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80")));
    assert_true(str_equal(text_made_visible(arena, S("a\x1b[31m\n\xe2\x80\xae"
                                                     "b\xe2\x80\x8b\xc2\x85\xf3\xa0\x81\x81")),
                          S("a\\u{1b}[31m\\u{a}\\u{202e}b\\u{200b}\\u{85}\\u{e0041}")));
    assert_true(str_equal(text_made_visible(arena, S("\xff")), S("(not text)")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_is_found_by_its_own_path_and_method),
        cmocka_unit_test(test_parameters_are_cut_out_of_the_path),
        cmocka_unit_test(
            test_only_health_page_documents_signed_requests_and_the_callback_of_logins_need_no_key),
        cmocka_unit_test(test_every_route_is_in_the_document_with_its_rights),
        cmocka_unit_test(test_every_reference_of_the_document_leads_somewhere),
        cmocka_unit_test(test_operation_ids_are_unique),
        cmocka_unit_test(test_text_hides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
