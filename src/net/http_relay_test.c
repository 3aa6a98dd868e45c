#include "net/http_relay.h"
#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

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

/* ---- the gateway under test: relays to a scripted upstream ---- */

static struct testkit_server kit;
static struct raw_server upstream;
static struct http_client *client;

/* What an owner does is chosen by the request's path, what the upstream does by its query. */
struct owner {
    struct http_relay *relay;
    char mode[24];
};
static _Atomic size_t end_count, idle_count, relayed_bytes, coroutine_callbacks, owners_alive,
    handlers_returned;
static _Atomic int end_reason, end_is_gone;
static _Atomic int64_t end_ns;

static int64_t now_ns(void)
{
    return clock_monotonic_ns(clock_system());
}

static void finish(struct owner *owner, enum http_relay_ending how)
{
    http_relay_finish(owner->relay, how);
    free(owner);
    atomic_fetch_sub(&owners_alive, 1);
}

static bool is_mode(const struct owner *owner, const char *mode)
{
    return strcmp(owner->mode, mode) == 0;
}

static void on_bytes(void *argument, str bytes)
{
    struct owner *owner = argument;
    atomic_fetch_add(&coroutine_callbacks, coroutine_is_running());
    atomic_fetch_add(&relayed_bytes, bytes.len);
    if (is_mode(owner, "/swell")) {
        for (int i = 0; i < 100; i++)
            (void) http_relay_write(owner->relay, bytes);
        return;
    }
    (void) http_relay_write(owner->relay, bytes);
    if (is_mode(owner, "/done") && str_find(bytes, S("[DONE]")) != STR_NOT_FOUND)
        finish(owner, HTTP_RELAY_END);
    else if (is_mode(owner, "/abort"))
        finish(owner, HTTP_RELAY_ABORT);
}

static struct http_client_request request_to_upstream(str query)
{
    return (struct http_client_request){
        .method = HTTP_GET,
        .url = {.host = S("127.0.0.1"), .port = upstream.port, .path_query = query},
    };
}

/* An owner that waits does so on a coroutine of its own. */
static void restart(void *argument)
{
    struct owner *owner = argument;
    struct error e;
    struct http_exchange *exchange = NULL;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, loop_scheduler(loop_current()), arena, now_ns() + INT64_C(5000000000));
    struct http_client_request request = request_to_upstream(S("/whole"));
    memcpy(owner->mode, "/plain", 7);
    if (http_client_send(client, &ctx, &request, &exchange, &e))
        http_relay_attach(owner->relay, exchange);
    else
        finish(owner, HTTP_RELAY_ABORT);
    context_deinit(&ctx);
}

static void on_end(void *argument, const struct error *failure)
{
    struct owner *owner = argument;
    struct error e;
    atomic_store(&end_reason, failure ? (int) failure->reason : REASON_NONE);
    atomic_store(&end_is_gone, http_relay_client_is_gone(owner->relay));
    atomic_store(&end_ns, now_ns());
    atomic_fetch_add(&end_count, 1);
    if (failure && is_mode(owner, "/restart")) {
        ensure(coroutine_start(loop_scheduler(loop_current()), "restart", restart, owner, &e));
        return;
    }
    if (failure && !is_mode(owner, "/cut"))
        (void) http_relay_write(owner->relay, S("event: error\n\n"));
    finish(owner, failure && is_mode(owner, "/cut") ? HTTP_RELAY_ABORT : HTTP_RELAY_END);
}

static void on_idle(void *argument)
{
    struct owner *owner = argument;
    atomic_fetch_add(&idle_count, 1);
    (void) http_relay_write(owner->relay, S(": idle\n\n"));
}

static void start_relay(struct http_request *request, struct http_exchange *exchange)
{
    struct owner *owner = calloc(1, sizeof(*owner));
    ensure(owner != NULL && request->path.len < sizeof(owner->mode));
    memcpy(owner->mode, request->path.ptr, request->path.len);
    atomic_fetch_add(&owners_alive, 1);
    bool has_deadline = is_mode(owner, "/deadline");
    owner->relay = http_relay_start(&(struct http_relay_options){
        .request = request,
        .exchange = exchange,
        .on_bytes = on_bytes,
        .on_end = on_end,
        .on_idle = on_idle,
        .owner = owner,
        .between_bytes_timeout_ms = is_mode(owner, "/between") ? 150 : 5000,
        .keep_alive_ms = is_mode(owner, "/idle") ? 50 : 0,
        .deadline_ns = has_deadline ? now_ns() + INT64_C(200000000) : 0,
    });
}

static void handler(void *nobody, struct http_request *request)
{
    (void) nobody;
    struct error e;
    struct http_exchange *exchange = NULL;
    if (str_equal(request->path, S("/hello"))) {
        http_reply(request, 200, NULL, S("hello"));
        return;
    }
    if (!client)
        ensure(http_client_create(loop_current(), NULL, &client, &e));
    str path = str_printf(request->ctx->arena, "/" STR_FMT, STR_ARG(request->query));
    struct http_client_request up = request_to_upstream(path);
    if (!http_client_send(client, request->ctx, &up, &exchange, &e)) {
        http_reply(request, 502, NULL, str_from_cstr(e.message));
        return;
    }
    if (!http_reply_begin(request, 200, http_exchange_headers(exchange), &e)) {
        http_exchange_close(exchange);
        return;
    }
    start_relay(request, exchange);
    assert_true(http_reply_is_done(request));
    if (str_equal(request->path, S("/linger"))) /* its request stays until it returns */
        (void) !context_sleep_ms(request->ctx, 300, &e);
    atomic_fetch_add(&handlers_returned, 1);
}

/* ---- the upstream ---- */

static _Atomic size_t flood_bytes;
static _Atomic int64_t upstream_closed_ns;

static void send_chunk(int fd, const char *text)
{
    char chunk[256];
    int len = snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(text), text);
    raw_send(fd, str_of(chunk, (size_t) len));
}

static void note_close(int fd)
{
    (void) raw_is_closed(fd);
    atomic_store(&upstream_closed_ns, now_ns());
}

enum { BIG_BYTES = 24 << 20, BIG_BLOCK = 64 << 10 };

static void serve_big(int fd)
{
    static unsigned char block[BIG_BLOCK];
    char head[96];
    int len =
        snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG_BYTES);
    raw_send(fd, str_of(head, (size_t) len));
    for (size_t i = 0; i < BIG_BYTES / BIG_BLOCK; i++) {
        for (size_t j = 0; j < BIG_BLOCK; j++)
            block[j] = (unsigned char) (i + j * 7);
        size_t at = 0;
        while (at < BIG_BLOCK) {
            ssize_t count = send(fd, block + at, BIG_BLOCK - at, MSG_NOSIGNAL);
            if (count <= 0)
                return;
            at += (size_t) count;
            atomic_fetch_add(&flood_bytes, (size_t) count);
        }
    }
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static bool serve_one(int fd, str request)
{
    if (str_find(request, S("/big ")) != STR_NOT_FOUND) {
        serve_big(fd);
        return true;
    }
    raw_send(fd, S("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n"));
    send_chunk(fd, "data: one\n\n");
    if (str_find(request, S("/cut ")) != STR_NOT_FOUND)
        return false;
    if (str_find(request, S("/junk ")) != STR_NOT_FOUND) {
        raw_send(fd, S("zz\r\nno chunk\r\n"));
        note_close(fd);
        return false;
    }
    if (str_find(request, S("/hang ")) != STR_NOT_FOUND) {
        note_close(fd);
        return false;
    }
    bool is_slow = str_find(request, S("/slow ")) != STR_NOT_FOUND;
    for (int i = 0; is_slow && i < 4; i++) {
        sleep_ms(70);
        send_chunk(fd, "data: more\n\n");
    }
    send_chunk(fd, "data: [DONE]\n\n");
    if (str_find(request, S("/tail-hang ")) != STR_NOT_FOUND) {
        note_close(fd);
        return false;
    }
    if (str_find(request, S("/tail ")) != STR_NOT_FOUND)
        sleep_ms(5);
    raw_send(fd, S("0\r\n\r\n"));
    return true;
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index;
    (void) argument;
    for (;;) {
        str request = raw_read_request(fd);
        if (request.len == 0 || !serve_one(fd, request))
            return;
    }
}

static void drop_client(struct loop *loop)
{
    (void) loop;
    http_client_destroy(client);
    client = NULL;
}

static int set_up(void **state)
{
    (void) state;
    end_count = idle_count = relayed_bytes = coroutine_callbacks = handlers_returned = 0;
    end_reason = -1;
    flood_bytes = 0;
    upstream_closed_ns = 0;
    raw_server_start(&upstream, serve, NULL);
    testkit_server_start(&kit, 1,
                         (struct http_server_options){.handler = handler,
                                                      .write_idle_timeout_ms = 2000,
                                                      .idle_timeout_ms = 3000});
    kit.on_drained = drop_client;
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    if (kit.server)
        testkit_server_stop(&kit, 3000);
    raw_server_stop(&upstream);
    raw_free_all();
    assert_int_equal(owners_alive, 0);
    assert_int_equal(coroutine_callbacks, 0);
    return 0;
}

static bool wait_until(const _Atomic size_t *counter, size_t value)
{
    for (int i = 0; i < 3000 && atomic_load(counter) < value; i++)
        sleep_ms(1);
    return atomic_load(counter) >= value;
}

static int ask(const char *target)
{
    char text[160];
    int fd = raw_connect(kit.port);
    int len = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    raw_send(fd, str_of(text, (size_t) len));
    return fd;
}

static str read_body(int fd)
{
    int status;
    str head, body;
    if (!raw_read_answer(fd, &status, &head, &body))
        return S("(cut)");
    assert_int_equal(status, 200);
    return body;
}

static bool is(str a, const char *b)
{
    if (str_equal(a, str_from_cstr(b)))
        return true;
    fprintf(stderr, "got \"" STR_FMT "\"\n", STR_ARG(a));
    return false;
}

static const char whole[] = "data: one\n\ndata: [DONE]\n\n";

/* ---- tests ---- */

static void test_relays_a_stream_and_serves_the_next_request_on_the_connection(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    for (int i = 0; i < 3; i++) {
        raw_send(fd, S("GET /plain?whole HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(is(read_body(fd), whole));
        raw_send(fd, S("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(is(read_body(fd), "hello"));
    }
    assert_int_equal(end_count, 3);
    assert_int_equal(end_reason, REASON_NONE);
    assert_int_equal(upstream.connection_count, 1); /* kept */
    close(fd);
}

static void test_pipelined_requests_wait_for_the_relay(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /plain?slow HTTP/1.1\r\nHost: a\r\n\r\n"
                   "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
    sleep_ms(150);
    raw_send(fd, S("GET /plain?whole HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(str_ends_with(read_body(fd), S("data: [DONE]\n\n")));
    assert_true(is(read_body(fd), "hello"));
    assert_true(is(read_body(fd), whole));
    close(fd);
}

static void test_a_cut_upstream_is_told_and_the_client_can_be_told_in_band(void **state)
{
    (void) state;
    int fd = ask("/plain?cut");
    assert_true(is(read_body(fd), "data: one\n\nevent: error\n\n"));
    assert_int_equal(end_reason, REASON_UNAVAILABLE);
    close(fd);
    fd = ask("/plain?junk");
    assert_true(is(read_body(fd), "data: one\n\nevent: error\n\n"));
    assert_int_equal(end_reason, REASON_HTTP_SYNTAX);
    close(fd);
}

static void test_an_aborted_relay_never_looks_whole(void **state)
{
    (void) state;
    int fd = ask("/cut?cut");
    str all = raw_read_all(fd);
    assert_true(str_find(all, S("data: one")) != STR_NOT_FOUND);
    assert_false(str_ends_with(all, S("0\r\n\r\n")));
    close(fd);
    fd = ask("/abort?hang");
    all = raw_read_all(fd);
    assert_true(str_find(all, S("data: one")) != STR_NOT_FOUND);
    assert_false(str_ends_with(all, S("0\r\n\r\n")));
    close(fd);
    fd = raw_connect(kit.port);
    raw_send(fd, S("GET /cut?cut HTTP/1.0\r\nHost: a\r\n\r\n"));
    char byte[4096];
    ssize_t count;
    while ((count = recv(fd, byte, sizeof(byte), 0)) > 0) {
    }
    assert_int_equal(count, -1); /* reset: without chunks nothing else tells */
    close(fd);
}

static void test_http10_gets_the_stream_until_close(void **state)
{
    (void) state;
    str all = raw_exchange(kit.port, S("GET /plain?whole HTTP/1.0\r\nHost: a\r\n\r\n"));
    assert_true(str_ends_with(all, S("\r\n\r\ndata: one\n\ndata: [DONE]\n\n")));
    assert_true(str_find(all, S("chunked")) == STR_NOT_FOUND);
}

static void test_head_gets_no_body_and_close_closes(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("HEAD /plain?whole HTTP/1.1\r\nHost: a\r\n\r\n"
                   "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                   "GET /plain?whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    str all = raw_read_all(fd);
    size_t hello = str_find(all, S("hello"));
    assert_true(hello != STR_NOT_FOUND);
    assert_true(str_find(str_slice(all, 0, hello), S("data:")) == STR_NOT_FOUND);
    assert_true(str_ends_with(all, S("\r\n0\r\n\r\n")));
    assert_int_equal(end_count, 2);
    close(fd);
}

static void test_a_client_that_leaves_closes_the_upstream_at_once(void **state)
{
    (void) state;
    int fd = ask("/plain?hang");
    assert_true(wait_until(&relayed_bytes, 11));
    sleep_ms(20);
    int64_t left_ns = now_ns();
    close(fd);
    assert_true(wait_until(&end_count, 1));
    assert_int_equal(end_reason, REASON_CANCELLED);
    assert_true(end_is_gone);
    for (int i = 0; i < 1000 && !upstream_closed_ns; i++)
        sleep_ms(1);
    assert_true(upstream_closed_ns > 0);
    int64_t took_ns = upstream_closed_ns - left_ns;
    printf("    upstream closed %.3f ms after the client\n", (double) took_ns / 1e6);
    assert_true(took_ns < 100 * INT64_C(1000000));
}

static void test_an_idle_stream_gets_comments(void **state)
{
    (void) state;
    int64_t asked_ns = now_ns();
    int fd = ask("/idle?slow");
    str body = read_body(fd);
    assert_true(str_find(body, S(": idle\n\n")) != STR_NOT_FOUND);
    assert_true(str_ends_with(body, S("data: [DONE]\n\n")));
    /* 4 gaps of 70 ms, a comment after 50 ms of silence and never sooner; a busy machine may lose some */
    assert_in_range(idle_count, 1, (now_ns() - asked_ns) / (50 * INT64_C(1000000)));
    close(fd);
}

static void test_silence_and_the_deadline_end_the_stream(void **state)
{
    (void) state;
    int64_t began_ns = now_ns();
    int fd = ask("/between?hang");
    assert_true(is(read_body(fd), "data: one\n\nevent: error\n\n"));
    assert_int_equal(end_reason, REASON_TIMEOUT);
    assert_in_range((now_ns() - began_ns) / 1000000, 140, 1000);
    close(fd);
    began_ns = now_ns();
    fd = ask("/deadline?slow"); /* bytes each 70 ms do not help */
    str body = read_body(fd);
    assert_true(str_ends_with(body, S("event: error\n\n")));
    assert_int_equal(end_reason, REASON_TIMEOUT);
    assert_in_range((now_ns() - began_ns) / 1000000, 190, 1000);
    close(fd);
}

static void test_done_does_not_wait_for_the_upstreams_end(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    for (int i = 0; i < 2; i++) { /* a tail of 5 ms: the upstream is kept */
        raw_send(fd, S("GET /done?tail HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(is(read_body(fd), whole));
        sleep_ms(40);
    }
    assert_int_equal(upstream.connection_count, 1);
    assert_int_equal(end_count, 0); /* finished before */
    int64_t began_ns = now_ns();
    raw_send(fd, S("GET /done?tail-hang HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(is(read_body(fd), whole));
    assert_true(now_ns() - began_ns < 15 * INT64_C(1000000));
    for (int i = 0; i < 1000 && !upstream_closed_ns; i++)
        sleep_ms(1);
    assert_in_range((upstream_closed_ns - began_ns) / 1000000, HTTP_RELAY_TAIL_MS, 500);
    close(fd);
}

static void skip_head(int fd)
{
    char bytes[4096];
    size_t len = 0;
    while (len < sizeof(bytes) && recv(fd, bytes + len, 1, 0) == 1) {
        len++;
        if (len >= 4 && memcmp(bytes + len - 4, "\r\n\r\n", 4) == 0)
            return;
    }
    fail();
}

/* One chunk of the big body; false: the last. */
static bool check_chunk(int fd, size_t *total)
{
    static unsigned char chunk[(1 << 16) + 2];
    char line[64];
    size_t len = 0;
    while (len < sizeof(line) - 1 && recv(fd, line + len, 1, 0) == 1 && line[len] != '\n')
        len++;
    line[len] = 0;
    size_t size = strtoul(line, NULL, 16);
    assert_true(size < sizeof(chunk));
    for (size_t at = 0; at < size + 2;) {
        ssize_t count = recv(fd, chunk + at, size + 2 - at, 0);
        assert_true(count > 0);
        at += (size_t) count;
    }
    bool is_right = true;
    for (size_t i = 0; i < size; i++, ++*total)
        is_right &= chunk[i] == (unsigned char) (*total / BIG_BLOCK + *total % BIG_BLOCK * 7);
    assert_true(is_right);
    return size > 0;
}

static void test_a_slow_client_holds_the_upstream_back(void **state)
{
    (void) state;
    int fd = ask("/plain?big");
    size_t before = 0;
    for (int i = 0; i < 10 && (before == 0 || before != atomic_load(&flood_bytes)); i++) {
        before = atomic_load(&flood_bytes);
        sleep_ms(150);
    }
    assert_int_equal(atomic_load(&flood_bytes), before); /* it stands still */
    assert_true(before < BIG_BYTES);
    assert_true(relayed_bytes < BIG_BYTES);
    size_t total = 0;
    skip_head(fd);
    while (check_chunk(fd, &total)) {
    }
    assert_int_equal(total, BIG_BYTES);
    assert_int_equal(end_reason, REASON_NONE);
    close(fd);
}

static void test_a_client_that_stops_reading_is_cut(void **state)
{
    (void) state;
    int fd = ask("/plain?big");
    assert_true(wait_until(&end_count, 1));
    assert_int_equal(end_reason, REASON_CANCELLED);
    close(fd);
}

static void test_an_owner_that_writes_without_end_reaches_a_bound(void **state)
{
    (void) state;
    int fd = ask("/swell?big");
    assert_true(wait_until(&end_count, 1));
    assert_int_equal(end_reason, REASON_LIMIT);
    str all = raw_read_all(fd);
    assert_false(str_ends_with(all, S("0\r\n\r\n")));
    close(fd);
}

static void test_a_relay_goes_on_with_another_upstream(void **state)
{
    (void) state;
    int fd = ask("/restart?cut");
    assert_true(is(read_body(fd), "data: one\n\ndata: one\n\ndata: [DONE]\n\n"));
    assert_int_equal(end_count, 2);
    assert_int_equal(end_reason, REASON_NONE);
    close(fd);
}

static void test_a_handler_may_return_after_its_relay_has_ended(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("GET /linger?whole HTTP/1.1\r\nHost: a\r\n\r\n"
                   "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(is(read_body(fd), whole));
    assert_int_equal(handlers_returned, 0);
    assert_true(is(read_body(fd), "hello"));
    assert_int_equal(handlers_returned, 1);
    close(fd);
    fd = ask("/linger?hang"); /* and the client may leave before it does */
    assert_true(wait_until(&relayed_bytes, 36));
    close(fd);
    assert_true(wait_until(&end_count, 2));
    assert_int_equal(end_reason, REASON_CANCELLED);
    assert_true(wait_until(&handlers_returned, 2));
}

static void test_an_unread_request_body_costs_the_connection(void **state)
{
    (void) state;
    int fd = raw_connect(kit.port);
    raw_send(fd, S("POST /plain?whole HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"));
    assert_true(is(read_body(fd), whole));
    assert_true(raw_is_closed(fd));
    close(fd);
}

static void *stop_server(void *argument)
{
    testkit_server_stop(&kit, *(int64_t *) argument);
    kit.server = NULL;
    return NULL;
}

static void test_drain_waits_for_a_relay(void **state)
{
    (void) state;
    pthread_t thread;
    int64_t drain_ms = 4000;
    int fd = ask("/plain?slow");
    assert_true(wait_until(&relayed_bytes, 11));
    int64_t began_ns = now_ns();
    assert_int_equal(pthread_create(&thread, NULL, stop_server, &drain_ms), 0);
    assert_true(str_ends_with(read_body(fd), S("data: [DONE]\n\n")));
    assert_true(raw_is_closed(fd));
    pthread_join(thread, NULL);
    assert_true(kit.has_drained_in_time);
    assert_in_range((now_ns() - began_ns) / 1000000, 150, 3000);
    close(fd);
}

static void test_a_relay_that_drain_cuts_can_still_tell_its_client(void **state)
{
    (void) state;
    pthread_t thread;
    int64_t drain_ms = 200;
    int fd = ask("/plain?hang");
    assert_true(wait_until(&relayed_bytes, 11));
    assert_int_equal(pthread_create(&thread, NULL, stop_server, &drain_ms), 0);
    assert_true(is(read_body(fd), "data: one\n\nevent: error\n\n"));
    assert_int_equal(end_reason, REASON_CANCELLED);
    assert_false(end_is_gone);
    pthread_join(thread, NULL);
    assert_false(kit.has_drained_in_time);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_relays_a_stream_and_serves_the_next_request_on_the_connection),
        TEST(test_pipelined_requests_wait_for_the_relay),
        TEST(test_a_cut_upstream_is_told_and_the_client_can_be_told_in_band),
        TEST(test_an_aborted_relay_never_looks_whole),
        TEST(test_http10_gets_the_stream_until_close),
        TEST(test_head_gets_no_body_and_close_closes),
        TEST(test_a_client_that_leaves_closes_the_upstream_at_once),
        TEST(test_an_idle_stream_gets_comments),
        TEST(test_silence_and_the_deadline_end_the_stream),
        TEST(test_done_does_not_wait_for_the_upstreams_end),
        TEST(test_a_slow_client_holds_the_upstream_back),
        TEST(test_a_client_that_stops_reading_is_cut),
        TEST(test_an_owner_that_writes_without_end_reaches_a_bound),
        TEST(test_a_relay_goes_on_with_another_upstream),
        TEST(test_a_handler_may_return_after_its_relay_has_ended),
        TEST(test_an_unread_request_body_costs_the_connection),
        TEST(test_drain_waits_for_a_relay),
        TEST(test_a_relay_that_drain_cuts_can_still_tell_its_client),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    blocking_pool_stop();
    return failed;
}
