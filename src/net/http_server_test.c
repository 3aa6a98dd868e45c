#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic size_t request_count, cancelled_count, streamed_bytes, write_failures;

static void handle_stream(struct http_request *request)
{
    struct error e;
    if (!http_reply_begin(request, 200, NULL, &e))
        return;
    for (int i = 0; i < 5; i++) {
        if (!http_reply_write(request, S("data: x\n\n"), &e) ||
            !context_sleep_ms(request->ctx, 5, &e))
            return;
    }
    http_reply_end(request);
}

/* Writes for ever; the test looks at how far it gets. */
static void handle_flood(struct http_request *request)
{
    static const char block[4096];
    struct error e;
    if (!http_reply_begin(request, 200, NULL, &e))
        return;
    while (http_reply_write(request, str_of(block, sizeof(block)), &e))
        atomic_fetch_add(&streamed_bytes, sizeof(block));
    atomic_fetch_add(&write_failures, 1);
}

/* Waits elsewhere for long, as one does for a model. */
static void handle_wait(struct http_request *request)
{
    struct error e;
    int64_t ms = 30000;
    (void) !str_to_i64(request->query, &ms);
    if (!context_sleep_ms(request->ctx, ms, &e) && e.code == ERROR_CANCELLED) {
        atomic_fetch_add(&cancelled_count, 1);
        return; /* nobody listens */
    }
    http_reply(request, 200, NULL, S("waited"));
}

static void handle_big(struct http_request *request)
{
    uint64_t size = 0;
    (void) !str_to_u64(request->query, &size);
    char *bytes = arena_alloc(request->ctx->arena, size);
    memset(bytes, 'b', size);
    http_reply(request, 200, NULL, str_of(bytes, size));
}

static void handle_count(struct http_request *request)
{
    struct error e;
    str piece;
    size_t total = 0;
    do {
        if (!http_request_read(request, &piece, &e)) {
            http_reply(request, error_http_status(e.reason), NULL, S("broken"));
            return;
        }
        total += piece.len;
    } while (piece.len > 0);
    http_reply(request, 200, NULL, str_printf(request->ctx->arena, "%zu", total));
}

static void handle_echo(struct http_request *request)
{
    struct error e;
    str body;
    if (!http_request_read_all(request, HTTP_BODY_BYTES_MAX, &body, &e)) {
        http_reply(request, error_http_status(e.reason), NULL, S("refused"));
        return;
    }
    http_reply(request, 200, NULL, body);
}

static void handler(void *owner, struct http_request *request)
{
    (void) owner;
    atomic_fetch_add(&request_count, 1);
    if (str_equal(request->path, S("/stream")))
        handle_stream(request);
    else if (str_equal(request->path, S("/flood")))
        handle_flood(request);
    else if (str_equal(request->path, S("/wait")))
        handle_wait(request);
    else if (str_equal(request->path, S("/big")))
        handle_big(request);
    else if (str_equal(request->path, S("/count")))
        handle_count(request);
    else if (str_equal(request->path, S("/ignore")))
        http_reply(request, 200, NULL, S("ignored"));
    else if (str_equal(request->path, S("/none")))
        return;
    else if (str_equal(request->path, S("/half"))) {
        struct error e;
        if (http_reply_begin(request, 200, NULL, &e) && http_reply_write(request, S("half"), &e))
            return; /* without end */
    } else if (str_equal(request->path, S("/unsafe"))) {
        struct http_header bad = {S_INIT("X-A"), S_INIT("b\r\nSet-Cookie: c")};
        http_reply(request, 200, &(struct http_headers){&bad, 1, 1}, S("x"));
    } else if (str_equal(request->path, S("/204")))
        http_reply(request, 204, NULL, STR_NONE);
    else
        handle_echo(request);
}

static struct testkit_server kit;

static void start(size_t loop_count, struct http_server_options options)
{
    options.handler = handler;
    testkit_server_start(&kit, loop_count, options);
}

static int set_up(void **state)
{
    (void) state;
    start(1, (struct http_server_options){.head_timeout_ms = 400,
                                          .body_idle_timeout_ms = 300,
                                          .idle_timeout_ms = 600,
                                          .write_idle_timeout_ms = 500});
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    testkit_server_stop(&kit, 2000);
    raw_free_all();
    return kit.has_drained_in_time ? 0 : -1;
}

static void sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static int64_t now_ms(void)
{
    return clock_monotonic_ns(clock_system()) / 1000000;
}

static bool eventually(_Atomic size_t *value, size_t wanted)
{
    for (int i = 0; i < 400; i++) {
        if (atomic_load(value) >= wanted)
            return true;
        sleep_ms(10);
    }
    return false;
}

/* ---- the ordinary ---- */

static void test_answers_a_request_and_keeps_the_connection(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    for (int i = 0; i < 3; i++) {
        raw_send(fd, S("POST /x?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"));
        assert_true(raw_read_answer(fd, &status, &head, &body));
        assert_int_equal(status, 200);
        assert_true(str_equal(body, S("hello")));
        assert_true(str_find(head, S("\r\nDate: ")) != STR_NOT_FOUND);
    }
    close(fd);
}

static void test_serves_pipelined_requests_in_order(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(
        fd, S("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1GET /wait?50 "
              "HTTP/1.1\r\nHost: h\r\n\r\n"
              "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n3\r\n0\r\n\r\n"
              "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nConnection: close\r\n\r\n4"));
    const char *wanted[] = {"1", "waited", "3", "4"};
    for (int i = 0; i < 4; i++) {
        assert_true(raw_read_answer(fd, &status, &head, &body));
        assert_int_equal(status, 200);
        assert_true(str_equal(body, str_from_cstr(wanted[i])));
    }
    assert_true(raw_is_closed(fd));
    close(fd);
}

static void test_takes_a_request_one_byte_at_a_time(void **state)
{
    (void) state;
    str request = S("POST /x HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nTrailer-A: x\r\n\r\n");
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    for (size_t i = 0; i < request.len; i++)
        raw_send(fd, str_slice(request, i, i + 1));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 200);
    assert_true(str_equal(body, S("hello world")));
    close(fd);
}

static void test_heads_that_arrive_side_by_side_do_not_mix(void **state)
{
    (void) state;
    str one = S("POST /x HTTP/1.1\r\nX-A: b\r\nHost: one\r\nContent-Length: 1\r\n"
                "Expect: 100-continue\r\n\r\n");
    str other = S("POST /x HTTP/1.1\r\nHost: other\r\nX-Filler: cccccccccccccccccccccc\r\n"
                  "Content-Length: 1\r\n\r\n");
    int status, fds[2] = {raw_connect(kit.port), raw_connect(kit.port)};
    str head, body;
    for (size_t i = 0; i < one.len || i < other.len; i++) {
        raw_send(fds[0], str_slice(one, i, i + 1));
        raw_send(fds[1], str_slice(other, i, i + 1));
        sleep_ms(1);
    }
    assert_true(raw_read_answer(fds[0], &status, &head, &body));
    assert_int_equal(status, 100);
    for (int i = 0; i < 2; i++) {
        raw_send(fds[i], S("z"));
        assert_true(raw_read_answer(fds[i], &status, &head, &body));
        assert_int_equal(status, 200);
        assert_true(str_equal(body, S("z")));
        close(fds[i]);
    }
}

static void test_streams_a_reply_in_chunks(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(body.len, 45);
    raw_send(fd, S("HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\nGET /204 HTTP/1.1\r\nHost: "
                   "h\r\nConnection: close\r\n\r\n"));
    str rest = raw_read_all(fd);
    assert_int_equal(raw_status(rest), 200);
    assert_true(str_find(rest, S("data: x")) == STR_NOT_FOUND);
    assert_true(str_find(rest, S("HTTP/1.1 204 No Content")) != STR_NOT_FOUND);
    close(fd);
}

static void test_http10_gets_a_plain_stream_until_close(void **state)
{
    (void) state;
    str answer = raw_exchange(kit.port, S("GET /stream HTTP/1.0\r\nHost: h\r\n\r\n"));
    assert_int_equal(raw_status(answer), 200);
    assert_true(str_find(answer, S("chunked")) == STR_NOT_FOUND);
    assert_true(str_ends_with(
        answer, S("\r\n\r\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\n")));
}

static void test_answers_expect_continue_at_the_first_read(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd,
             S("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 100);
    raw_send(fd, S("ok"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_true(str_equal(body, S("ok")));
    /* Nobody reads it: no 100, and what follows cannot be told from a body. */
    raw_send(
        fd,
        S("POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 200);
    assert_true(str_find(head, S("Connection: close")) != STR_NOT_FOUND);
    assert_true(raw_is_closed(fd));
    close(fd);
}

static void test_drains_a_small_unread_body_and_closes_on_a_large_one(void **state)
{
    (void) state;
    int status;
    str head, body;
    char *bytes = calloc(1, 200000);
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    raw_send(fd, str_of(bytes, 60000));
    raw_send(fd, S("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 200);
    raw_send(fd, S("POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n"));
    raw_send(fd, str_of(bytes, 200000));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_true(raw_is_closed(fd));
    close(fd);
    free(bytes);
}

static void test_reads_a_large_body_piece_by_piece(void **state)
{
    (void) state;
    enum { SIZE = 5 << 20 };
    char *bytes = calloc(1, SIZE);
    char request[128];
    snprintf(request, sizeof(request),
             "POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", SIZE);
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd, str_from_cstr(request));
    raw_send(fd, str_of(bytes, SIZE));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_true(str_equal(body, S("5242880")));
    close(fd);
    free(bytes);
}

static void test_sends_a_reply_larger_than_any_buffer(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /big?6000000 HTTP/1.1\r\nHost: h\r\n\r\n"));
    sleep_ms(50);
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(body.len, 6000000);
    for (size_t i = 0; i < body.len; i += 4099)
        assert_int_equal(body.ptr[i], 'b');
    close(fd);
}

static void test_a_handler_without_reply_is_a_500_and_a_half_reply_is_cut(void **state)
{
    (void) state;
    int status;
    str head, body;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /none HTTP/1.1\r\nHost: h\r\n\r\nGET /unsafe HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 500);
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 500);
    assert_true(str_find(head, S("Set-Cookie")) == STR_NOT_FOUND);
    raw_send(fd, S("GET /half HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_false(raw_read_answer(fd, &status, &head, &body));
    close(fd);
}

/* ---- limits ---- */

static str request_with(const char *before, size_t filler, const char *after)
{
    static char bytes[256 << 10];
    size_t before_len = strlen(before), after_len = strlen(after);
    memcpy(bytes, before, before_len);
    memset(bytes + before_len, 'a', filler);
    memcpy(bytes + before_len + filler, after, after_len);
    return str_of(bytes, before_len + filler + after_len);
}

static void test_bounds_uri_head_and_header_count(void **state)
{
    (void) state;
    const char *rest = " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_int_equal(
        raw_status(raw_exchange(kit.port, request_with("GET /", HTTP_URI_BYTES_MAX - 1, rest))),
        200);
    assert_int_equal(
        raw_status(raw_exchange(kit.port, request_with("GET /", HTTP_URI_BYTES_MAX, rest))), 414);
    const char *start = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: ";
    size_t room = HTTP_HEAD_BYTES_MAX - strlen(start) - 4;
    assert_int_equal(raw_status(raw_exchange(kit.port, request_with(start, room, "\r\n\r\n"))),
                     200);
    assert_int_equal(raw_status(raw_exchange(kit.port, request_with(start, room + 1, "\r\n\r\n"))),
                     431);
    char many[8192] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
    for (int i = 2; i < HTTP_HEADER_COUNT_MAX; i++)
        memcpy(many + strlen(many), "X-A: b\r\n", 9);
    size_t len = strlen(many);
    memcpy(many + len, "\r\n", 3);
    assert_int_equal(raw_status(raw_exchange(kit.port, str_from_cstr(many))), 200);
    memcpy(many + len, "X-A: b\r\n\r\n", 11);
    assert_int_equal(raw_status(raw_exchange(kit.port, str_from_cstr(many))), 431);
}

static void test_bounds_the_body(void **state)
{
    (void) state;
    char request[160];
    snprintf(request, sizeof(request),
             "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %u\r\n\r\nabc",
             HTTP_BODY_BYTES_MAX + 1);
    assert_int_equal(raw_status(raw_exchange(kit.port, str_from_cstr(request))), 413);
}

static void test_bounds_chunk_framing(void **state)
{
    (void) state;
    str request = request_with("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;",
                               100000, "\r\nx\r\n0\r\n\r\n");
    assert_int_equal(raw_status(raw_exchange(kit.port, request)), 400);
}

/* ---- time ---- */

static void test_a_slow_head_is_a_408_however_often_it_drips(void **state)
{
    (void) state;
    int64_t started_ms = now_ms();
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET / HTTP/1.1\r\nHost: h\r\n"));
    for (int i = 0; i < 12; i++) {
        sleep_ms(50);
        raw_send(fd, S("X-A: b\r\n"));
    }
    str answer = raw_read_all(fd);
    assert_int_equal(raw_status(answer), 408);
    assert_true(now_ms() - started_ms < 3500);
    close(fd);
}

static void test_a_slow_body_is_a_408(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"));
    assert_int_equal(raw_status(raw_read_all(fd)), 408);
    close(fd);
}

static void test_closes_an_idle_connection_without_a_word(void **state)
{
    (void) state;
    int64_t started_ms = now_ms();
    int fd = raw_connect(kit.port);
    assert_int_equal(raw_read_all(fd).len, 0);
    assert_true(now_ms() - started_ms >= 500);
    close(fd);
}

/* ---- peers that leave ---- */

static void cut_hard(int fd)
{
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

static void test_a_reset_cancels_a_waiting_request_at_once(void **state)
{
    (void) state;
    size_t before = atomic_load(&cancelled_count), seen = atomic_load(&request_count);
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(eventually(&request_count, seen + 1));
    int64_t started_ms = now_ms();
    cut_hard(fd);
    assert_true(eventually(&cancelled_count, before + 1));
    assert_true(now_ms() - started_ms < 1000);
}

static void test_a_plain_close_cancels_a_waiting_request_after_the_grace(void **state)
{
    (void) state;
    size_t before = atomic_load(&cancelled_count), seen = atomic_load(&request_count);
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(eventually(&request_count, seen + 1));
    int64_t started_ms = now_ms();
    close(fd);
    assert_true(eventually(&cancelled_count, before + 1));
    assert_true(now_ms() - started_ms < HTTP_HALF_CLOSE_GRACE_MS + 1000);
}

static void test_a_half_closed_client_gets_its_reply(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabGET /wait?100 "
                   "HTTP/1.1\r\nHost: h\r\n\r\n"));
    shutdown(fd, SHUT_WR);
    str answer = raw_read_all(fd);
    assert_int_equal(raw_status(answer), 200);
    assert_true(str_ends_with(answer, S("waited")));
    close(fd);
    /* Even one that comes after the grace, behind an interim answer. */
    fd = raw_connect(kit.port);
    raw_send(fd, S("GET /wait?2500 HTTP/1.1\r\nHost: h\r\n\r\n"));
    shutdown(fd, SHUT_WR);
    answer = raw_read_all(fd);
    assert_int_equal(raw_status(answer), 100);
    assert_true(str_ends_with(answer, S("waited")));
    close(fd);
}

static void test_a_half_closed_unfinished_request_is_dropped(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nab"));
    shutdown(fd, SHUT_WR);
    assert_int_equal(raw_read_all(fd).len, 0);
    close(fd);
    fd = raw_connect(kit.port);
    raw_send(fd, S("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"));
    shutdown(fd, SHUT_WR);
    assert_int_equal(raw_status(raw_read_all(fd)), 400);
    close(fd);
}

static void test_a_reader_that_does_not_read_holds_the_writer_back(void **state)
{
    (void) state;
    size_t failures = atomic_load(&write_failures);
    atomic_store(&streamed_bytes, 0);
    long before_kib = testkit_rss_kib();
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /flood HTTP/1.1\r\nHost: h\r\n\r\n"));
    sleep_ms(300);
    size_t first = atomic_load(&streamed_bytes);
    sleep_ms(100);
    assert_int_equal(atomic_load(&streamed_bytes), first); /* it stands still */
    assert_true(first < (32 << 20)); /* socket buffers and one output buffer */
    assert_true(testkit_rss_kib() - before_kib < 4096);
    assert_true(eventually(&write_failures, failures + 1)); /* the write timeout ends it */
    close(fd);
}

static void test_pipelined_bytes_are_bounded_while_a_handler_works(void **state)
{
    (void) state;
    char *bytes = calloc(1, 1 << 20);
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /wait?300 HTTP/1.1\r\nHost: h\r\n\r\n"));
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    size_t sent_bytes = 0;
    for (int i = 0; i < 3000; i++) {
        ssize_t count = send(fd, bytes, 4096, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent_bytes += count > 0 ? (size_t) count : 0;
    }
    int status;
    str head, body;
    assert_true(raw_read_answer(fd, &status, &head, &body));
    assert_int_equal(status, 200);
    assert_true(sent_bytes < 12 << 20); /* the rest stayed with the sender */
    close(fd);
    free(bytes);
}

/* ---- many ---- */

static void *many_requests(void *argument)
{
    (void) argument;
    for (int round = 0; round < 20; round++) {
        int fds[20];
        for (int i = 0; i < 20; i++) {
            fds[i] = raw_connect(kit.port);
            raw_send(fds[i], i % 4 == 3
                                 ? S("GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                                 : S("POST /x HTTP/1.1\r\nHost: h\r\nConnection: "
                                     "close\r\nContent-Length: 3\r\n\r\nabc"));
        }
        for (int i = 0; i < 20; i++) {
            char bytes[512];
            size_t used = 0;
            ssize_t count;
            while ((count = recv(fds[i], bytes + used, sizeof(bytes) - used, 0)) > 0)
                used += (size_t) count;
            if (raw_status(str_of(bytes, used)) != 200)
                return (void *) 1;
            if (i % 5 == 4)
                cut_hard(fds[i]);
            else
                close(fds[i]);
        }
    }
    return NULL;
}

static void test_several_loops_serve_many_connections(void **state)
{
    (void) state;
    start(3, (struct http_server_options){0});
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_requests, NULL), 0);
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    testkit_server_stop(&kit, 2000);
    assert_true(kit.has_drained_in_time);
}

static void test_connections_past_the_maximum_get_a_503(void **state)
{
    (void) state;
    start(2, (struct http_server_options){.connections_max = 10});
    int fds[10];
    int status;
    str head, body;
    for (int i = 0; i < 10; i++) {
        fds[i] = raw_connect(kit.port);
        raw_send(fds[i], S("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_true(raw_read_answer(fds[i], &status, &head, &body));
        assert_int_equal(status, 200);
    }
    assert_int_equal(http_server_connection_count(kit.server), 10);
    int extra = raw_connect(kit.port);
    assert_int_equal(raw_status(raw_read_all(extra)), 503);
    close(extra);
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    testkit_server_stop(&kit, 2000);
    raw_free_all();
}

static void test_idle_connections_are_small(void **state)
{
    (void) state;
    enum { COUNT = 2000 };
    start(1, (struct http_server_options){0});
    int *fds = calloc(COUNT, sizeof(int));
    long before_kib = testkit_rss_kib();
    int status;
    str head, body;
    for (int i = 0; i < COUNT; i++) {
        fds[i] = raw_connect(kit.port);
        if (i % 100 == 0) {
            raw_send(fds[i], S("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_true(raw_read_answer(fds[i], &status, &head, &body));
        }
    }
    for (int i = 0; i < 500 && http_server_connection_count(kit.server) < COUNT; i++)
        sleep_ms(10);
    assert_int_equal(http_server_connection_count(kit.server), COUNT);
    long each_bytes = (testkit_rss_kib() - before_kib) * 1024 / COUNT;
    print_message("an idle connection takes %ld bytes\n", each_bytes);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(each_bytes < 1300); /* raw_read_answer's own heads are in it */
#endif
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
    free(fds);
    testkit_server_stop(&kit, 2000);
    raw_free_all();
}

/* ---- drain ---- */

static void *wait_for_answer(void *argument)
{
    int fd = *(int *) argument;
    static char bytes[1024];
    size_t used = 0;
    ssize_t count;
    while ((count = recv(fd, bytes + used, sizeof(bytes) - used, 0)) > 0)
        used += (size_t) count;
    str answer = str_of(bytes, used);
    return str_ends_with(answer, S("waited")) &&
                   str_find(answer, S("Connection: close")) != STR_NOT_FOUND
               ? bytes
               : NULL;
}

static void test_drain_lets_requests_finish_and_closes_the_rest(void **state)
{
    (void) state;
    start(2, (struct http_server_options){0});
    size_t seen = atomic_load(&request_count);
    int idle = raw_connect(kit.port), busy = raw_connect(kit.port);
    raw_send(busy, S("GET /wait?400 HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(eventually(&request_count, seen + 1));
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, wait_for_answer, &busy);
    testkit_server_stop(&kit, 3000);
    pthread_join(thread, &result);
    assert_non_null(result);
    assert_true(kit.has_drained_in_time);
    assert_true(raw_is_closed(idle));
    close(idle);
    close(busy);
}

static void test_drain_cuts_what_does_not_finish(void **state)
{
    (void) state;
    start(2, (struct http_server_options){0});
    size_t seen = atomic_load(&request_count), cancelled = atomic_load(&cancelled_count);
    int busy = raw_connect(kit.port);
    raw_send(busy, S("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(eventually(&request_count, seen + 1));
    int64_t started_ms = now_ms();
    testkit_server_stop(&kit, 200);
    assert_true(now_ms() - started_ms < 2000);
    assert_false(kit.has_drained_in_time);
    assert_int_equal(atomic_load(&cancelled_count), cancelled + 1);
    close(busy);
}

static void drop_line(void *context, enum log_level level, str line)
{
    (void) context;
    (void) level;
    (void) line;
}

int main(void)
{
    const struct CMUnitTest with_server[] = {
        cmocka_unit_test(test_answers_a_request_and_keeps_the_connection),
        cmocka_unit_test(test_serves_pipelined_requests_in_order),
        cmocka_unit_test(test_takes_a_request_one_byte_at_a_time),
        cmocka_unit_test(test_heads_that_arrive_side_by_side_do_not_mix),
        cmocka_unit_test(test_streams_a_reply_in_chunks),
        cmocka_unit_test(test_http10_gets_a_plain_stream_until_close),
        cmocka_unit_test(test_answers_expect_continue_at_the_first_read),
        cmocka_unit_test(test_drains_a_small_unread_body_and_closes_on_a_large_one),
        cmocka_unit_test(test_reads_a_large_body_piece_by_piece),
        cmocka_unit_test(test_sends_a_reply_larger_than_any_buffer),
        cmocka_unit_test(test_a_handler_without_reply_is_a_500_and_a_half_reply_is_cut),
        cmocka_unit_test(test_bounds_uri_head_and_header_count),
        cmocka_unit_test(test_bounds_the_body),
        cmocka_unit_test(test_bounds_chunk_framing),
        cmocka_unit_test(test_a_slow_head_is_a_408_however_often_it_drips),
        cmocka_unit_test(test_a_slow_body_is_a_408),
        cmocka_unit_test(test_closes_an_idle_connection_without_a_word),
        cmocka_unit_test(test_a_reset_cancels_a_waiting_request_at_once),
        cmocka_unit_test(test_a_plain_close_cancels_a_waiting_request_after_the_grace),
        cmocka_unit_test(test_a_half_closed_client_gets_its_reply),
        cmocka_unit_test(test_a_half_closed_unfinished_request_is_dropped),
        cmocka_unit_test(test_a_reader_that_does_not_read_holds_the_writer_back),
        cmocka_unit_test(test_pipelined_bytes_are_bounded_while_a_handler_works),
    };
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(test_several_loops_serve_many_connections),
        cmocka_unit_test(test_connections_past_the_maximum_get_a_503),
        cmocka_unit_test(test_idle_connections_are_small),
        cmocka_unit_test(test_drain_lets_requests_finish_and_closes_the_rest),
        cmocka_unit_test(test_drain_cuts_what_does_not_finish),
    };
    log_set_sink(drop_line, NULL);
    int failures = cmocka_run_group_tests_name("http_server", with_server, set_up, tear_down);
    return failures + cmocka_run_group_tests_name("http_server alone", alone, NULL, NULL);
}
