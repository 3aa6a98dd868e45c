/*
 * What two HTTP implementations could read differently, sent raw to a real server: each probe is a
 * 400 and the end of the connection.
 */
#include "net/net_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct testkit_server kit;

static void handler(void *owner, struct http_request *request)
{
    (void) owner;
    struct error e;
    str body;
    bool is_fine = http_request_read_all(request, 1 << 20, &body, &e);
    http_reply(request, is_fine ? 200 : error_http_status(e.reason), NULL,
               is_fine ? body : S("refused"));
}

static int set_up(void **state)
{
    (void) state;
    testkit_server_start(
        &kit, 1, (struct http_server_options){.handler = handler, .body_idle_timeout_ms = 1000});
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    testkit_server_stop(&kit, 2000);
    raw_free_all();
    return 0;
}

static const struct {
    const char *name;
    str bytes;
} probes[] = {
#define PROBE(name, text)                                                                          \
    {                                                                                              \
        name, S_INIT(text)                                                                         \
    }
    PROBE("CL and TE", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n0\r\n\r\n"),
    PROBE("TE and CL", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                       "chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    PROBE("two CLs",
          "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    PROBE("two equal CLs",
          "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    PROBE("CL list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello"),
    PROBE("CL +5", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello"),
    PROBE("CL -5", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello"),
    PROBE("CL 0x5", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello"),
    PROBE("CL empty", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nhello"),
    PROBE("CL huge",
          "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\nhello"),
    PROBE("CL past i64",
          "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999999999\r\n\r\nhello"),
    PROBE("TE xchunked",
          "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    PROBE("TE chunked, identity",
          "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    PROBE("TE gzip, chunked",
          "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    PROBE("TE identity", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n"),
    PROBE("TE empty", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n"),
    PROBE("two TEs", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                     "chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    PROBE("TE on 1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    PROBE("space before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
    PROBE("space before TE colon",
          "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    PROBE("obs-fold", "GET / HTTP/1.1\r\nHost: h\r\nX-A: b\r\n c\r\n\r\n"),
    PROBE("obs-fold with tab", "GET / HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\tc\r\n\r\n"),
    PROBE("leading space header", "GET / HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n"),
    PROBE("bare LF", "GET / HTTP/1.1\nHost: h\n\n"),
    PROBE("one bare LF", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
    PROBE("bare LF at the end", "GET / HTTP/1.1\r\nHost: h\r\n\n"),
    PROBE("bare CR in value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
    PROBE("bare CR as line end", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"),
    PROBE("chunk size 0x5", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                            "chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    PROBE("chunk size +5", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                           "chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
    PROBE("chunk size with space", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                   "chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"),
    PROBE("chunk size overflow", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                 "chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
    PROBE("chunk LF only", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                           "chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
    PROBE("chunk data too long", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                 "chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"),
    PROBE("chunk extension with LF", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                     "chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n"),
    PROBE("NUL in header", "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
    PROBE("NUL in name", "GET / HTTP/1.1\r\nHost: h\r\nX\0: a\r\n\r\n"),
    PROBE("NUL in target", "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("no Host", "GET / HTTP/1.1\r\n\r\n"),
    PROBE("no Host on 1.0", "GET / HTTP/1.0\r\n\r\n"),
    PROBE("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    PROBE("two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    PROBE("Host with path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"),
    PROBE("Host with user", "GET / HTTP/1.1\r\nHost: a@h\r\n\r\n"),
    PROBE("other host in target", "GET http://evil/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("asterisk", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("raw UTF-8 target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("HTTP/0.9", "GET /\r\n\r\n"),
    PROBE("HTTP/2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    PROBE("HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    PROBE("h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    PROBE("lower-case method", "get / HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("two spaces behind", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("tab", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    PROBE("space at the line's end", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    PROBE("TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    PROBE("garbage", "\xff\xfe\xfd\xfc\r\n\r\n"),
#undef PROBE
};

static void test_refuses_every_smuggling_probe(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(probes); i++) {
        str answer = raw_exchange(kit.port, probes[i].bytes);
        if (raw_status(answer) != 400)
            fail_msg("%s: answered \"%.60s\"", probes[i].name, answer.len ? answer.ptr : "");
        size_t first = str_find(answer, S("\r\nDate: "));
        if (str_find(str_from(answer, first + 1), S("\r\nDate: ")) != STR_NOT_FOUND)
            fail_msg("%s: a second answer", probes[i].name);
    }
}

static void test_refuses_methods_it_does_not_know(void **state)
{
    (void) state;
    assert_int_equal(raw_status(raw_exchange(kit.port, S("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"))),
                     405);
    assert_int_equal(
        raw_status(raw_exchange(kit.port, S("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"))), 405);
}

static void test_ignores_an_offer_to_upgrade(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: "
                   "h2c\r\nContent-Length: 2\r\n\r\nab"
                   "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_true(str_equal(body, S("ab")));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 200);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_every_smuggling_probe),
        cmocka_unit_test(test_refuses_methods_it_does_not_know),
        cmocka_unit_test(test_ignores_an_offer_to_upgrade),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
