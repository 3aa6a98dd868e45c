#include "net/http_parse_internal.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* The buffer moves at each step, as a growing one does. */
static enum http_parse_event feed_head(struct http_parser *parser, str message, size_t step,
                                       char **buffer)
{
    enum http_parse_event event = HTTP_PARSE_MORE;
    for (size_t len = 0; len < message.len && event == HTTP_PARSE_MORE;) {
        len = len + step < message.len ? len + step : message.len;
        free(*buffer);
        *buffer = malloc(len);
        memcpy(*buffer, message.ptr, len);
        event = http_parser_head(parser, str_of(*buffer, len));
    }
    return event;
}

static void test_a_request_is_the_same_however_it_is_cut(void **state)
{
    (void) state;
    str message =
        S("\r\nPOST http://h:80/p?q=1 HTTP/1.1\r\nhOST: h:80\r\nX-Empty:\r\nX-A:  b c \t\r\n"
          "Transfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    for (size_t step = 1; step <= message.len; step++) {
        OWNED(arena) arena = arena_create(0);
        struct http_parser parser;
        struct http_fields fields;
        struct http_request_head head;
        char *buffer = NULL;
        http_parser_init_request(&parser, &fields);
        assert_int_equal(feed_head(&parser, message, step, &buffer), HTTP_PARSE_HEAD);
        assert_true(
            http_parser_take_request(&parser, str_of(buffer, parser.head_bytes), arena, &head));
        assert_true(str_equal(head.path, S("/p")) && str_equal(head.query, S("q=1")));
        assert_true(str_equal(head.host, S("h:80")));
        assert_int_equal(head.method, HTTP_POST);
        assert_int_equal(head.headers.count, 5);
        assert_int_equal(http_headers_get(&head.headers, S("x-empty")).len, 0);
        assert_true(str_equal(http_headers_get(&head.headers, S("x-a")), S("b c")));
        assert_true(head.has_body && head.expects_continue && head.keeps_alive);
        assert_int_equal(head.content_length, -1);
        free(buffer);
    }
}

static void test_a_chunked_body_is_decoded_in_place_to_one_piece(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct http_parser parser;
    struct http_fields fields;
    struct http_request_head head;
    char *buffer = NULL;
    str message = S("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    http_parser_init_request(&parser, &fields);
    assert_int_equal(feed_head(&parser, message, message.len, &buffer), HTTP_PARSE_HEAD);
    assert_true(http_parser_take_request(&parser, str_of(buffer, message.len), arena, &head));
    char body[] = "5\r\nhello\r\n1;x\r\n \r\n5\r\nworld\r\n0\r\nT: t\r\n\r\nGET";
    size_t consumed;
    str piece;
    assert_int_equal(http_parser_body(&parser, body, sizeof(body) - 1, &consumed, &piece),
                     HTTP_PARSE_DONE);
    assert_true(str_equal(piece, S("hello world")));
    assert_int_equal(consumed, sizeof(body) - 1 - 3);
    free(buffer);
}

static void test_says_where_a_message_may_end(void **state)
{
    (void) state;
    static const struct {
        str head;
        bool is_answer_to_head, may_end;
        enum http_framing framing;
    } cases[] = {
        {S_INIT("HTTP/1.1 200 OK\r\n\r\n"), false, true, HTTP_FRAMING_UNTIL_END},
        {S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), false, false, HTTP_FRAMING_LENGTH},
        {S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), false, true, HTTP_FRAMING_LENGTH},
        {S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), false, false,
         HTTP_FRAMING_CHUNKED},
        {S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), true, true, HTTP_FRAMING_NONE},
        {S_INIT("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"), false, true, HTTP_FRAMING_NONE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        OWNED(arena) arena = arena_create(0);
        struct http_parser parser;
        struct http_fields fields;
        struct http_response_head head;
        char *buffer = NULL;
        http_parser_init_response(&parser, &fields, cases[i].is_answer_to_head);
        assert_int_equal(feed_head(&parser, cases[i].head, cases[i].head.len, &buffer),
                         HTTP_PARSE_HEAD);
        assert_true(
            http_parser_take_response(&parser, str_of(buffer, cases[i].head.len), arena, &head));
        assert_int_equal(parser.framing, cases[i].framing);
        assert_int_equal(http_parser_may_end(&parser), cases[i].may_end);
        free(buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_the_same_however_it_is_cut),
        cmocka_unit_test(test_a_chunked_body_is_decoded_in_place_to_one_piece),
        cmocka_unit_test(test_says_where_a_message_may_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
