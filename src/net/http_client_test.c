#include "net/http_client.h"
#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ---- a server that follows a script: for each request of a connection the next step ---- */

enum { STEPS_MAX = 8 };
struct step {
    str answer;       /* empty: close without a word */
    int64_t delay_ms; /* before the answer */
    int64_t drip_ms;  /* between its bytes; 0: at once */
    bool closes, resets;
};
struct script {
    struct step steps[STEPS_MAX]; /* over all connections */
    _Atomic size_t step_index;
    str last_request;
    _Atomic bool was_cut; /* the client left while it waited for an answer */
};

static void play(int fd, size_t index, void *argument)
{
    (void) index;
    struct script *script = argument;
    for (;;) {
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        script->last_request = request;
        struct step *step = &script->steps[atomic_fetch_add(&script->step_index, 1) % STEPS_MAX];
        if (step->delay_ms) {
            struct timeval wait = {.tv_sec = step->delay_ms / 1000,
                                   .tv_usec = step->delay_ms % 1000 * 1000};
            char byte;
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
            if (recv(fd, &byte, 1, MSG_PEEK) == 0) {
                atomic_store(&script->was_cut, true);
                return;
            }
        }
        for (size_t i = 0; step->drip_ms && i < step->answer.len; i++) {
            raw_send(fd, str_slice(step->answer, i, i + 1));
            sleep_ms(step->drip_ms);
        }
        if (!step->drip_ms)
            raw_send(fd, step->answer);
        if (step->resets) {
            struct linger reset = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        if (step->closes || step->resets || step->answer.len == 0)
            return;
    }
}

/* ---- one call and what came of it ---- */

struct call {
    uint16_t port;
    struct http_client_request request;
    size_t times;
    int64_t pause_ms, deadline_ms;
    size_t body_max;
    bool is_piecewise, stops_after_head;
    /* results of the last call */
    bool is_fine;
    int status;
    char body[65536], header[256];
    size_t body_len, piece_count;
    struct error e;
    int64_t took_ms;
};

static void read_pieces(struct call *call, struct context *ctx, struct http_exchange *exchange)
{
    for (;;) {
        str piece;
        call->is_fine = http_exchange_read(exchange, ctx, &piece, &call->e);
        if (!call->is_fine || piece.len == 0)
            return;
        assert_true(call->body_len + piece.len <= sizeof(call->body));
        memcpy(call->body + call->body_len, piece.ptr, piece.len);
        call->body_len += piece.len;
        call->piece_count++;
    }
}

static void one_call(struct call *call, struct context *ctx, struct http_client *client)
{
    OWNED(http_exchange) exchange = NULL;
    call->body_len = call->piece_count = 0;
    call->status = 0;
    call->header[0] = 0;
    call->is_fine = http_client_send(client, ctx, &call->request, &exchange, &call->e);
    if (!call->is_fine)
        return;
    call->status = http_exchange_status(exchange);
    str header = http_headers_get(http_exchange_headers(exchange), S("x-test"));
    snprintf(call->header, sizeof(call->header), STR_FMT, STR_ARG(header));
    if (call->stops_after_head)
        return;
    if (call->is_piecewise) {
        read_pieces(call, ctx, exchange);
        return;
    }
    str body;
    call->is_fine = http_exchange_read_all(
        exchange, ctx, call->body_max ? call->body_max : sizeof(call->body), &body, &call->e);
    if (call->is_fine) {
        memcpy(call->body, body.ptr ? body.ptr : "", body.len);
        call->body_len = body.len;
    }
}

static void run_calls(struct context *ctx, struct loop *loop, void *argument)
{
    struct call *call = argument;
    struct http_client *client = NULL;
    struct http_client_options options = {.idle_ms = 5000};
    assert_true(http_client_create(loop, &options, &client, &call->e));
    for (size_t i = 0; i < (call->times ? call->times : 1); i++) {
        if (i > 0 && call->pause_ms)
            assert_true(context_sleep_ms(ctx, call->pause_ms, &call->e));
        struct context child;
        int64_t started_ns = context_now_ns(ctx);
        context_init_child(&child, ctx,
                           call->deadline_ms ? context_deadline_in(ctx, call->deadline_ms)
                                             : DEADLINE_NONE);
        one_call(call, &child, client);
        context_deinit(&child);
        call->took_ms = (context_now_ns(ctx) - started_ns) / 1000000;
        if (!call->is_fine)
            break;
    }
    http_client_destroy(client);
}

static struct raw_server server;
static struct script script;
static struct call call;

static void start(void)
{
    raw_server_start(&server, play, &script);
    call.port = server.port;
    if (call.request.url.host.len == 0)
        call.request.url = (struct http_url){
            .host = S("127.0.0.1"), .port = server.port, .path_query = S("/p?q=1")};
}

static void stop(void)
{
    raw_server_stop(&server);
}

static void run(void)
{
    start();
    net_testkit_run(run_calls, &call);
    stop();
}

static int fresh(void **state)
{
    (void) state;
    script = (struct script){0};
    call = (struct call){0};
    return 0;
}

static int clean(void **state)
{
    (void) state;
    raw_free_all();
    return 0;
}

#define ALL_STEPS(...)                                                                             \
    for (size_t step_ = 0; step_ < STEPS_MAX; step_++)                                             \
        script.steps[step_] = (struct step)                                                        \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }

static bool body_is(const char *text)
{
    return str_equal(str_of(call.body, call.body_len), str_from_cstr(text));
}

/* ---- the ordinary ---- */

static void test_sends_a_request_whole_and_reads_the_answer(void **state)
{
    (void) state;
    struct http_header items[] = {{S_INIT("X-A"), S_INIT("b")},
                                  {S_INIT("Host"), S_INIT("evil")},
                                  {S_INIT("Content-Length"), S_INIT("99")},
                                  {S_INIT("Transfer-Encoding"), S_INIT("chunked")}};
    struct http_headers headers = {items, ARRAY_COUNT(items), ARRAY_COUNT(items)};
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nX-Test: yes \r\nContent-Length: 5\r\n\r\nhello"));
    call.request.method = HTTP_POST;
    call.request.headers = &headers;
    call.request.body = S("body");
    run();
    assert_true(call.is_fine);
    assert_int_equal(call.status, 200);
    assert_string_equal(call.header, "yes");
    assert_true(body_is("hello"));
    char wanted[256];
    snprintf(
        wanted, sizeof(wanted),
        "POST /p?q=1 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody",
        server.port);
    assert_true(str_equal(script.last_request, str_from_cstr(wanted)));
}

static void test_reuses_a_connection(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    call.times = 5;
    run();
    assert_true(call.is_fine);
    assert_int_equal(atomic_load(&server.connection_count), 1);
}

static void test_reads_every_framing(void **state)
{
    (void) state;
    static const struct {
        str answer;
        const char *body;
        bool closes;
        enum http_method method;
    } cases[] = {
        {S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                "chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\n"),
         "hello!", false, HTTP_GET},
        {S_INIT("HTTP/1.1 200 OK\r\n\r\nuntil the end"), "until the end", true, HTTP_GET},
        {S_INIT("HTTP/1.0 200 OK\r\n\r\nold"), "old", true, HTTP_GET},
        {S_INIT("HTTP/1.1 204 No Content\r\n\r\n"), "", false, HTTP_GET},
        {S_INIT("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"), "", false, HTTP_GET},
        {S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "", false, HTTP_GET},
        {S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), "", false, HTTP_HEAD},
        {S_INIT("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 "
                "200 OK\r\nContent-Length: 2\r\n\r\nok"),
         "ok", false, HTTP_GET},
        {S_INIT("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"), "ok", false, HTTP_GET},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        for (int64_t drip_ms = 0; drip_ms < 2; drip_ms++) {
            for (int piecewise = 0; piecewise < 2; piecewise++) {
                fresh(NULL);
                ALL_STEPS(.answer = cases[i].answer, .closes = cases[i].closes, .drip_ms = drip_ms);
                call.request.method = cases[i].method;
                call.is_piecewise = piecewise;
                call.times = 2;
                run();
                if (!call.is_fine || !body_is(cases[i].body))
                    fail_msg("case %zu: %s: \"%.*s\"", i, call.e.message, (int) call.body_len,
                             call.body);
                assert_int_equal(atomic_load(&server.connection_count), cases[i].closes ? 2 : 1);
            }
        }
    }
}

/* ---- answers that make no sense, or no end ---- */

static void test_a_cut_body_is_never_a_clean_end(void **state)
{
    (void) state;
    static const str answers[] = {
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        for (int resets = 0; resets < 2; resets++) {
            fresh(NULL);
            ALL_STEPS(.answer = answers[i], .closes = true, .resets = resets);
            run();
            assert_false(call.is_fine);
            assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
        }
    }
}

static void test_refuses_answers_that_make_no_sense(void **state)
{
    (void) state;
    static const str answers[] = {
        S_INIT("garbage\r\n\r\n"),
        S_INIT("HTTP/2.0 200 OK\r\n\r\n"),
        S_INIT("HTTP/1.1 999 X\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        S_INIT(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nX : y\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        S_INIT("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        S_INIT("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 "
               "C\r\n\r\nHTTP/1.1 100 C\r\n\r\n"
               "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 "
               "C\r\n\r\n"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        fresh(NULL);
        ALL_STEPS(.answer = answers[i]);
        run();
        if (call.is_fine || call.e.reason != REASON_HTTP_SYNTAX)
            fail_msg("answer %zu: %s", i, call.is_fine ? "taken" : call.e.message);
    }
}

static void test_bounds_the_answers_head_and_body(void **state)
{
    (void) state;
    static char huge[HTTP_HEAD_BYTES_MAX + 200];
    int start_len = snprintf(huge, 100, "HTTP/1.1 200 OK\r\nX: ");
    memset(huge + start_len, 'a', sizeof(huge) - (size_t) start_len);
    ALL_STEPS(.answer = str_of(huge, sizeof(huge)));
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.reason, REASON_HTTP_SYNTAX);
    fresh(NULL);
    call.body_max = 5;
    call.times = 2;
    script.steps[0].answer =
        S("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    script.steps[1].answer =
        S("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.reason, REASON_TOO_LARGE);
    assert_int_equal(atomic_load(&script.step_index), 2);
}

static void test_bytes_behind_an_answer_end_the_connection(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 "
                          "OK\r\nContent-Length: 4\r\n\r\nevil"));
    call.times = 2;
    run();
    assert_true(call.is_fine);
    assert_true(body_is("ok"));
    assert_int_equal(atomic_load(&server.connection_count), 2);
}

/* ---- connections that go away ---- */

static void test_retries_once_when_a_kept_connection_was_closed(void **state)
{
    (void) state;
    script.steps[0].answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
    script.steps[1].answer = STR_NONE; /* takes the second request and closes */
    script.steps[2].answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
    call.times = 2;
    run();
    assert_true(call.is_fine);
    assert_true(body_is("2"));
    assert_int_equal(atomic_load(&server.connection_count), 2);
}

static void test_notices_that_an_idle_connection_was_closed(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), .closes = true);
    call.times = 3;
    call.pause_ms = 30;
    run();
    assert_true(call.is_fine);
    assert_int_equal(atomic_load(&script.step_index), 3); /* none was sent twice */
}

static void test_a_fresh_connection_is_not_retried(void **state)
{
    (void) state;
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
    assert_int_equal(atomic_load(&server.connection_count), 1);
}

static void test_a_part_of_an_answer_is_not_retried(void **state)
{
    (void) state;
    script.steps[0].answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
    script.steps[1] = (struct step){.answer = S("HTTP/1.1 2"), .closes = true};
    call.times = 2;
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
    assert_int_equal(atomic_load(&server.connection_count), 1);
}

static void test_a_refused_connection_is_unavailable(void **state)
{
    (void) state;
    start();
    stop(); /* the port is free now */
    net_testkit_run(run_calls, &call);
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
}

/* ---- time and cancellation ---- */

static void test_each_phase_has_its_time(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), .delay_ms = 2000);
    call.request.first_byte_timeout_ms = 100;
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_TIMEOUT);
    assert_true(call.took_ms >= 100 && call.took_ms < 1500);
    assert_true(atomic_load(&script.was_cut));

    fresh(NULL); /* a head that drips does not live longer */
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), .drip_ms = 10);
    call.request.first_byte_timeout_ms = 100;
    run();
    assert_int_equal(call.e.code, ERROR_TIMEOUT);

    fresh(NULL);
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"));
    call.request.idle_timeout_ms = 100;
    run();
    assert_int_equal(call.status, 200);
    assert_int_equal(call.e.code, ERROR_TIMEOUT);
    assert_true(call.took_ms >= 100 && call.took_ms < 1500);
}

static void test_the_contexts_deadline_is_above_all(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), .delay_ms = 2000);
    call.deadline_ms = 100;
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_TIMEOUT);
    assert_true(call.took_ms < 1500);
}

static void call_child(struct context *ctx, void *argument)
{
    (void) argument;
    struct http_client *client = argument;
    one_call(&call, ctx, client);
}

static void cancel_soon(struct context *ctx, struct loop *loop, void *argument)
{
    (void) argument;
    struct http_client *client = NULL;
    struct group group;
    assert_true(http_client_create(loop, NULL, &client, &call.e));
    group_init(&group, ctx);
    assert_true(group_start(&group, "call", call_child, client, &call.e));
    assert_true(context_sleep_ms(ctx, 100, &call.e));
    group_cancel(&group);
    group_wait(&group);
    http_client_destroy(client);
}

static void test_cancelling_closes_the_connection_so_that_the_upstream_sees_it(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), .delay_ms = 3000);
    start();
    net_testkit_run(cancel_soon, NULL);
    stop();
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_CANCELLED);
    assert_true(atomic_load(&script.was_cut));
}

/* ---- what may not be sent, where one may not go ---- */

static void test_refuses_to_send_what_would_be_another_request(void **state)
{
    (void) state;
    struct http_header bad = {S_INIT("X-A"), S_INIT("b\r\nX-B: c")};
    struct http_headers headers = {&bad, 1, 1};
    call.request.headers = &headers;
    run();
    assert_int_equal(call.e.reason, REASON_INVALID);
    fresh(NULL);
    call.request.url =
        (struct http_url){.host = S("127.0.0.1"), .port = 1, .path_query = S("/ HTTP/1.1\r\nX: y")};
    start();
    call.request.url.port = server.port;
    net_testkit_run(run_calls, &call);
    stop();
    assert_int_equal(call.e.reason, REASON_INVALID);
}

static size_t check_count;

static bool refuse_address(void *owner, const struct sockaddr *address, struct error *e)
{
    (void) owner;
    assert_int_equal(address->sa_family, AF_INET);
    check_count++;
    return error_set(e, REASON_EGRESS_BLOCKED, "not there");
}

static void test_a_refused_address_is_not_dialled(void **state)
{
    (void) state;
    check_count = 0;
    call.request.check_address = refuse_address;
    run();
    assert_false(call.is_fine);
    assert_int_equal(call.e.reason, REASON_EGRESS_BLOCKED);
    assert_int_equal(check_count, 1);
    assert_int_equal(atomic_load(&server.connection_count), 0);
}

static void pooled_but_refused(struct context *ctx, struct loop *loop, void *argument)
{
    (void) argument;
    struct http_client *client = NULL;
    assert_true(http_client_create(loop, NULL, &client, &call.e));
    one_call(&call, ctx, client);
    assert_true(call.is_fine);
    call.request.check_address = refuse_address;
    one_call(&call, ctx, client);
    http_client_destroy(client);
}

static void test_a_pooled_connection_passes_the_callers_check_too(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    start();
    net_testkit_run(pooled_but_refused, NULL);
    stop();
    assert_false(call.is_fine);
    assert_int_equal(call.e.reason, REASON_EGRESS_BLOCKED);
    assert_int_equal(atomic_load(&script.step_index), 1);
}

static void test_resolves_names_and_refuses_numbers_in_disguise(void **state)
{
    (void) state;
    ALL_STEPS(.answer = S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    start();
    call.request.url.host = S("localhost");
    call.times = 2;
    net_testkit_run(run_calls, &call);
    assert_true(call.is_fine);
    static const char *const odd[] = {"127.1",      "0x7f.0.0.1", "2130706433", "0177.0.0.1",
                                      "127.0.0.1.", "1.2.3.4.5",  "0x7f000001"};
    for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
        call.request.url.host = str_from_cstr(odd[i]);
        net_testkit_run(run_calls, &call);
        assert_false(call.is_fine);
        if (call.e.reason != REASON_INVALID)
            fail_msg("%s: %s", odd[i], call.e.message);
    }
    stop();
}

/* An upstream that answers early and reads no more. */
static void answer_early(int fd, size_t index, void *argument)
{
    (void) index;
    (void) argument;
    raw_send(fd, S("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"));
    sleep_ms(500);
}

static void test_hears_an_answer_that_comes_before_the_request_is_sent(void **state)
{
    (void) state;
    enum { SIZE = 30 << 20 };
    char *bytes = calloc(1, SIZE);
    raw_server_start(&server, answer_early, NULL);
    call.request.url =
        (struct http_url){.host = S("127.0.0.1"), .port = server.port, .path_query = S("/")};
    call.request.method = HTTP_POST;
    call.request.body = str_of(bytes, SIZE);
    net_testkit_run(run_calls, &call);
    raw_server_stop(&server);
    assert_true(call.is_fine);
    assert_int_equal(call.status, 413);
    assert_true(body_is("big"));
    free(bytes);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, clean)
    const struct CMUnitTest tests[] = {
        TEST(test_sends_a_request_whole_and_reads_the_answer),
        TEST(test_reuses_a_connection),
        TEST(test_reads_every_framing),
        TEST(test_a_cut_body_is_never_a_clean_end),
        TEST(test_refuses_answers_that_make_no_sense),
        TEST(test_bounds_the_answers_head_and_body),
        TEST(test_bytes_behind_an_answer_end_the_connection),
        TEST(test_retries_once_when_a_kept_connection_was_closed),
        TEST(test_notices_that_an_idle_connection_was_closed),
        TEST(test_a_fresh_connection_is_not_retried),
        TEST(test_a_part_of_an_answer_is_not_retried),
        TEST(test_a_refused_connection_is_unavailable),
        TEST(test_each_phase_has_its_time),
        TEST(test_the_contexts_deadline_is_above_all),
        TEST(test_cancelling_closes_the_connection_so_that_the_upstream_sees_it),
        TEST(test_refuses_to_send_what_would_be_another_request),
        TEST(test_a_refused_address_is_not_dialled),
        TEST(test_a_pooled_connection_passes_the_callers_check_too),
        TEST(test_resolves_names_and_refuses_numbers_in_disguise),
        TEST(test_hears_an_answer_that_comes_before_the_request_is_sent),
    };
    int failures = cmocka_run_group_tests_name("http_client", tests, NULL, NULL);
    blocking_pool_stop();
    return failures;
}
