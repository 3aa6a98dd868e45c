#include "net/http.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_parses_urls(void **state)
{
    (void) state;
    static const struct {
        const char *text, *host, *path_query;
        uint16_t port;
        bool is_tls;
    } cases[] = {
        {"http://example.com", "example.com", "/", 80, false},
        {"HTTPS://Example.com/a?b=c", "Example.com", "/a?b=c", 443, true},
        {"http://127.0.0.1:8080/v1", "127.0.0.1", "/v1", 8080, false},
        {"http://[::1]:81/x", "::1", "/x", 81, false},
        {"http://[2001:db8::1]", "2001:db8::1", "/", 80, false},
        {"https://a_b-c.example:65535/%20", "a_b-c.example", "/%20", 65535, true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct http_url url;
        struct error e;
        if (!http_url_parse(str_from_cstr(cases[i].text), &url, &e))
            fail_msg("%s: %s", cases[i].text, e.message);
        assert_true(str_equal(url.host, str_from_cstr(cases[i].host)));
        assert_true(str_equal(url.path_query, str_from_cstr(cases[i].path_query)));
        assert_int_equal(url.port, cases[i].port);
        assert_int_equal(url.is_tls, cases[i].is_tls);
    }
}

static void test_refuses_urls_that_could_mislead(void **state)
{
    (void) state;
    static const str texts[] = {
        S_INIT(""),
        S_INIT("example.com"),
        S_INIT("ftp://example.com/"),
        S_INIT("http:///x"),
        S_INIT("http://a b/"),
        S_INIT("http://user@example.com/"),
        S_INIT("http://user:pw@example.com/"),
        S_INIT("http://example.com/#f"),
        S_INIT("http://example.com:0/"),
        S_INIT("http://example.com:65536/"),
        S_INIT("http://example.com:/"),
        S_INIT("http://example.com:8a/"),
        S_INIT("http://[::1/"),
        S_INIT("http://[]/"),
        S_INIT("http://[::1]x/"),
        S_INIT("http://[fe80::1%25eth0]/"),
        S_INIT("http://exa\0mple.com/"),
        S_INIT("http://example.com/\r\nX: y"),
        S_INIT("http://example.com\\@evil.com/"),
        S_INIT("http://ex%61mple.com/"),
        S_INIT("http://\xc3\xa4.com/"),
        S_INIT("http://example.com?x"),
        S_INIT("http://0x7f.0.0.1/"),
        S_INIT("http://2130706433/"),
        S_INIT("http://127.1/"),
        S_INIT("http://0177.0.0.1/"),
        S_INIT("http://127.0.0.1./"),
        S_INIT("http://127.0.0.01/"),
        S_INIT("http://1.2.3/"),
        S_INIT("http://1.2.3.4.5/"),
        S_INIT("http://256.1.1.1/"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct http_url url;
        struct error e;
        if (http_url_parse(texts[i], &url, &e))
            fail_msg("taken: " STR_FMT, STR_ARG(texts[i]));
        assert_int_equal(e.reason, REASON_INVALID);
    }
}

static void test_decodes_and_encodes_percent(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str out;
    assert_true(http_percent_decode(arena, S("a%20b%2Fc+d"), &out));
    assert_true(str_equal(out, S("a b/c+d")));
    assert_false(http_percent_decode(arena, S("%"), &out));
    assert_false(http_percent_decode(arena, S("%2"), &out));
    assert_false(http_percent_decode(arena, S("%zz"), &out));
    assert_false(http_percent_decode(arena, S("a%00"), &out));
    assert_true(
        str_equal(http_percent_encode(arena, S("a b/\xc3\xa4~-._")), S("a%20b%2F%C3%A4~-._")));
    for (int c = 1; c < 256; c++) {
        char byte = (char) c;
        assert_true(http_percent_decode(arena, http_percent_encode(arena, str_of(&byte, 1)), &out));
        assert_true(str_equal(out, str_of(&byte, 1)));
    }
}

static void test_finds_query_parameters(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str query = S("a=1&b=two+words%21&c&=d&b=second&bad=%zz");
    assert_true(str_equal(http_query_get(arena, query, S("a")), S("1")));
    assert_true(str_equal(http_query_get(arena, query, S("b")), S("two words!")));
    assert_non_null(http_query_get(arena, query, S("c")).ptr);
    assert_null(http_query_get(arena, query, S("x")).ptr);
    assert_null(http_query_get(arena, query, S("bad")).ptr);
}

static void test_knows_what_may_be_sent_as_a_header(void **state)
{
    (void) state;
    assert_true(http_header_is_safe(S("X-A"), S("b c\t\xc3\xa4")));
    assert_true(http_header_is_safe(S("X-A"), S("")));
    assert_false(http_header_is_safe(S(""), S("b")));
    assert_false(http_header_is_safe(S("X A"), S("b")));
    assert_false(http_header_is_safe(S("X:"), S("b")));
    assert_false(http_header_is_safe(S("X\0"), S("b")));
    assert_false(http_header_is_safe(S("X"), S("b\r\nY: z")));
    assert_false(http_header_is_safe(S("X"), S("b\n")));
    assert_false(http_header_is_safe(S("X"), S("b\0c")));
    /* wherever it stands in a long value, and nothing else there is odd */
    for (int c = 0; c < 256; c++) {
        bool is_fine = (c >= 0x20 && c != 0x7f) || c == '\t';
        for (size_t at = 0; at < 20; at++) {
            char value[] = "01234567\xc3\xa4 ~!\x80\xff-----";
            value[at] = (char) c;
            assert_int_equal(http_header_is_safe(S("X"), str_of(value, 20)), is_fine);
        }
    }
}

static void test_header_lists_grow_and_compare_without_case(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct http_headers headers = {0};
    for (int i = 0; i < 50; i++)
        http_headers_add(&headers, arena, str_printf(arena, "X-%d", i), str_printf(arena, "%d", i));
    assert_true(str_equal(http_headers_get(&headers, S("x-37")), S("37")));
    assert_null(http_headers_get(&headers, S("x-50")).ptr);
    enum http_method method;
    for (int i = 0; i < HTTP_METHOD_COUNT; i++) {
        assert_true(
            http_method_parse(str_from_cstr(http_method_name((enum http_method) i)), &method));
        assert_int_equal(method, i);
    }
    assert_false(http_method_parse(S("get"), &method));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parses_urls),
        cmocka_unit_test(test_refuses_urls_that_could_mislead),
        cmocka_unit_test(test_decodes_and_encodes_percent),
        cmocka_unit_test(test_finds_query_parameters),
        cmocka_unit_test(test_knows_what_may_be_sent_as_a_header),
        cmocka_unit_test(test_header_lists_grow_and_compare_without_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
