/* Vectors: RFC 7636 appendix B; RFC 8414 section 3.1, RFC 9728 section 3.1 (places of documents). */
#include "mcp/oauth.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static void assert_str(str got, const char *expected)
{
    assert_string_equal(str_to_cstr(arena, got), expected);
}

static void test_urls_need_tls_but_on_this_machine(void **state)
{
    (void) state;
    struct error e;
    static const char *const good[] = {"https://as.example/token", "http://127.0.0.1:9/x",
                                       "http://localhost/x", "http://[::1]/x"};
    static const char *const bad[] = {"http://as.example/token",
                                      "http://127.0.0.1.evil.example/",
                                      "http://localhost.evil.example/",
                                      "http://10.0.0.1/",
                                      "ftp://as.example/",
                                      "https://user@as.example/",
                                      "https://as.example/ x",
                                      "javascript:alert(1)",
                                      ""};
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_true(oauth_url_check(str_from_cstr(good[i]), "it", &e));
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(oauth_url_check(str_from_cstr(bad[i]), "it", &e));
    char *longest = arena_alloc(arena, MCP_OAUTH_URL_BYTES_MAX + 2);
    memset(longest, 'a', MCP_OAUTH_URL_BYTES_MAX + 1);
    memcpy(longest, "https://x/", 10);
    assert_true(oauth_url_check(str_of(longest, MCP_OAUTH_URL_BYTES_MAX), "it", &e));
    assert_false(oauth_url_check(str_of(longest, MCP_OAUTH_URL_BYTES_MAX + 1), "it", &e));
}

static void test_documents_have_their_places(void **state)
{
    (void) state;
    static const struct {
        const char *url;
        enum oauth_place place;
        const char *expected;
    } cases[] = {
        {"https://h.example", OAUTH_PLACE_INSERTED, "https://h.example/.well-known/doc"},
        {"https://h.example/", OAUTH_PLACE_INSERTED, "https://h.example/.well-known/doc"},
        {"https://h.example:8/a/b?x=1", OAUTH_PLACE_INSERTED,
         "https://h.example:8/.well-known/doc/a/b"},
        {"https://h.example/a/b", OAUTH_PLACE_ROOT, "https://h.example/.well-known/doc"},
        {"https://h.example/a/", OAUTH_PLACE_APPENDED, "https://h.example/a/.well-known/doc"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        str got;
        struct error e;
        assert_true(oauth_well_known(arena, str_from_cstr(cases[i].url), S("doc"), cases[i].place,
                                     &got, &e));
        assert_str(got, cases[i].expected);
    }
}

static void test_a_challenge_says_where_and_what(void **state)
{
    (void) state;
    struct oauth_challenge c =
        oauth_challenge_read(arena, S("Basic realm=\"a\", Bearer error=\"invalid_token\", "
                                      "resource_metadata=\"https://h/\\\"x\", scope=\"a b\""));
    assert_str(c.resource_metadata, "https://h/\"x");
    assert_str(c.scope, "a b");
    assert_str(c.error, "invalid_token");
    c = oauth_challenge_read(arena, S("bearer resource_metadata=https://h/x,scope=a"));
    assert_str(c.resource_metadata, "https://h/x");
    static const char *const none[] = {"",
                                       "Bearer",
                                       "Basic resource_metadata=\"https://h\"",
                                       "Bearer resource_metadata=\"https://h",
                                       "Bearer ,,=,",
                                       "NotBearer resource_metadata=x"};
    for (size_t i = 0; i < ARRAY_COUNT(none); i++)
        assert_int_equal(oauth_challenge_read(arena, str_from_cstr(none[i])).resource_metadata.len,
                         0);
}

static bool read_resource(const char *resource, const char *more)
{
    struct error e;
    struct oauth_resource out;
    str text = str_printf(arena, "{\"resource\":\"%s\"%s}", resource, more);
    return oauth_resource_read(arena, text, S("https://mcp.example/a/mcp"), &out, &e);
}

static void test_a_resource_must_cover_its_server(void **state)
{
    (void) state;
    const char *more = ",\"authorization_servers\":[\"https://as.example\"]";
    assert_true(read_resource("https://mcp.example/a/mcp", more));
    assert_true(read_resource("https://MCP.example/a", more));
    assert_true(read_resource("https://mcp.example/", more));
    assert_true(read_resource("https://mcp.example:443", more));
    assert_false(read_resource("https://mcp.example/a/mc", more));
    assert_false(read_resource("https://mcp.example/a/mcp/b", more));
    assert_false(read_resource("https://mcp.example.evil.example/", more));
    assert_false(read_resource("https://mcp.example:444/", more));
    assert_false(read_resource("http://mcp.example/", more));
    assert_false(read_resource("", more));
    assert_false(read_resource("https://mcp.example/", ""));
    assert_false(read_resource("https://mcp.example/", ",\"authorization_servers\":[]"));
    assert_false(
        read_resource("https://mcp.example/", ",\"authorization_servers\":[\"http://as\"]"));
}

#define SERVER(more)                                                                               \
    S("{\"issuer\":\"https://as.example\",\"authorization_endpoint\":\"https://as.example/a\","    \
      "\"token_endpoint\":\"https://as.example/t\"" more "}")

static void test_a_server_without_pkce_or_of_another_name_is_refused(void **state)
{
    (void) state;
    struct error e;
    struct oauth_server s;
    str issuer = S("https://as.example");
    str pkce = SERVER(",\"code_challenge_methods_supported\":[\"plain\",\"S256\"]");
    assert_true(oauth_server_read(arena, pkce, issuer, &s, &e));
    assert_int_equal(s.secret_auth, OAUTH_AUTH_BASIC);
    assert_false(s.tells_issuer);
    assert_false(oauth_server_read(arena, pkce, S("https://as.example/"), &s, &e));
    assert_false(oauth_server_read(arena, SERVER(""), issuer, &s, &e));
    assert_false(oauth_server_read(
        arena, SERVER(",\"code_challenge_methods_supported\":[\"plain\"]"), issuer, &s, &e));
    assert_false(oauth_server_read(arena,
                                   SERVER(",\"code_challenge_methods_supported\":[\"S256\"],"
                                          "\"revocation_endpoint\":\"http://as.example/r\""),
                                   issuer, &s, &e));
    assert_false(oauth_server_read(arena, S("[]"), issuer, &s, &e));
    assert_true(oauth_server_read(
        arena,
        SERVER(",\"code_challenge_methods_supported\":[\"S256\"],"
               "\"token_endpoint_auth_methods_supported\":[\"client_secret_post\"]"),
        issuer, &s, &e));
    assert_int_equal(s.secret_auth, OAUTH_AUTH_POST);
}

static void test_tokens_are_bearer_tokens_of_one_line(void **state)
{
    (void) state;
    struct error e = {0};
    struct oauth_tokens t;
    assert_true(oauth_tokens_read(arena,
                                  S("{\"access_token\":\"a\",\"token_type\":\"bearer\","
                                    "\"expires_in\":60,\"refresh_token\":\"r\"}"),
                                  &t, &e));
    assert_int_equal(t.expires_in_s, 60);
    assert_str(t.refresh_token, "r");
    static const char *const bad[] = {
        "{\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"a\",\"token_type\":\"DPoP\"}",
        "{\"access_token\":\"a\\r\\nX: y\",\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"s3cret-t0ken\",\"token_type\":\"Bearer\",\"refresh_token\":\"r r\"}",
        "s3cret-t0ken",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_false(oauth_tokens_read(arena, str_from_cstr(bad[i]), &t, &e));
        assert_null(strstr(e.message, "s3cret-t0ken"));
    }
}

static void test_of_a_refusal_only_a_plain_code_is_told(void **state)
{
    (void) state;
    assert_str(oauth_refusal_code(arena, S("{\"error\":\"invalid_grant\"}")), "invalid_grant");
    assert_str(oauth_refusal_code(arena, S("{\"error\":\"token s3cret is bad\"}")),
               "no reason told");
    assert_str(oauth_refusal_code(arena, S("<html>")), "no reason told");
}

static void test_pkce_is_s256(void **state)
{
    (void) state;
    assert_str(oauth_pkce_challenge(arena, S("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")),
               "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

static void test_the_authorization_url_has_everything_and_no_verifier(void **state)
{
    (void) state;
    struct oauth_server server = {.authorization_endpoint = S("https://as.example/a?p=1")};
    struct oauth_question q = {.client_id = S("c d"),
                               .redirect_url = S("https://n/cb"),
                               .state = S("s"),
                               .verifier = S("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
                               .resource = S("https://m/mcp")};
    assert_str(oauth_authorization_url(arena, &server, &q),
               "https://as.example/a?p=1&response_type=code&client_id=c%20d&redirect_uri=https%3A"
               "%2F%2Fn%2Fcb&state=s&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&"
               "code_challenge_method=S256&resource=https%3A%2F%2Fm%2Fmcp");
}

static void test_the_issuer_of_an_answer_is_the_one_that_was_asked(void **state)
{
    (void) state;
    struct error e;
    str asked = S("https://as.example");
    assert_true(oauth_issuer_check(asked, true, asked, &e));
    assert_true(oauth_issuer_check(asked, false, asked, &e));
    assert_true(oauth_issuer_check(asked, false, STR_NONE, &e));
    assert_false(oauth_issuer_check(asked, true, STR_NONE, &e));
    assert_false(oauth_issuer_check(asked, false, S("https://as.example/"), &e));
    assert_false(oauth_issuer_check(asked, false, S("https://evil.example"), &e));
}

static void test_credentials_are_encoded_before_they_are_joined(void **state)
{
    (void) state;
    assert_str(oauth_basic(arena, S("a:b"), S("c d")), "Basic YSUzQWI6YyUyMGQ=");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls_need_tls_but_on_this_machine),
        cmocka_unit_test(test_documents_have_their_places),
        cmocka_unit_test(test_a_challenge_says_where_and_what),
        cmocka_unit_test(test_a_resource_must_cover_its_server),
        cmocka_unit_test(test_a_server_without_pkce_or_of_another_name_is_refused),
        cmocka_unit_test(test_tokens_are_bearer_tokens_of_one_line),
        cmocka_unit_test(test_of_a_refusal_only_a_plain_code_is_told),
        cmocka_unit_test(test_pkce_is_s256),
        cmocka_unit_test(test_the_authorization_url_has_everything_and_no_verifier),
        cmocka_unit_test(test_the_issuer_of_an_answer_is_the_one_that_was_asked),
        cmocka_unit_test(test_credentials_are_encoded_before_they_are_joined),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
