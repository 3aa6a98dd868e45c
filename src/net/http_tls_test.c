/* The server under TLS, asked by our own client, by the openssl program and by curl. */
#include "net/http_relay.h"
#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], authority[96], cert[96], key[96], other[96], other_key[96];
static struct testkit_server kit;
static struct http_client *client;
static struct tls_server_options serving;
static _Atomic size_t end_count;
static _Atomic int end_reason;

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static int64_t now_ms(void)
{
    return clock_monotonic_ns(clock_system()) / 1000000;
}

/* ---- what the server does ---- */

static void on_bytes(void *owner, str bytes)
{
    (void) http_relay_write(*(struct http_relay **) owner, bytes);
}

static void on_end(void *owner, const struct error *failure)
{
    atomic_store(&end_reason, failure ? (int) failure->reason : REASON_NONE);
    atomic_fetch_add(&end_count, 1);
    http_relay_finish(*(struct http_relay **) owner, failure ? HTTP_RELAY_ABORT : HTTP_RELAY_END);
    free(owner);
}

/* To itself: TLS on both sides. */
static void handle_relay(struct http_request *request)
{
    struct error e;
    struct http_exchange *exchange = NULL;
    struct http_client_options options = {.ca_file = str_from_cstr(authority)};
    if (!client)
        ensure(http_client_create(loop_current(), &options, &client, &e));
    struct http_client_request up = {
        .method = HTTP_GET,
        .url = {.is_tls = true,
                .host = S("localhost"),
                .port = kit.port,
                .path_query =
                    str_printf(request->ctx->arena, "/" STR_FMT, STR_ARG(request->query))},
    };
    if (!http_client_send(client, request->ctx, &up, &exchange, &e)) {
        http_reply(request, 502, NULL, str_from_cstr(e.message));
        return;
    }
    if (!http_reply_begin(request, 200, NULL, &e)) {
        http_exchange_close(exchange);
        return;
    }
    struct http_relay **owner = calloc(1, sizeof(struct http_relay *));
    ensure(owner != NULL);
    *owner = http_relay_start(&(struct http_relay_options){.request = request,
                                                           .exchange = exchange,
                                                           .on_bytes = on_bytes,
                                                           .on_end = on_end,
                                                           .owner = owner});
}

enum { BIG_BYTES = 6 << 20 };

static void fill(char *bytes, size_t len, size_t from)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char) ((from + i) * 31 >> 3);
}

static void handle_flow(struct http_request *request)
{
    struct error e;
    char block[5000];
    size_t at = 0;
    if (!http_reply_begin(request, 200, NULL, &e))
        return;
    while (at < BIG_BYTES) {
        size_t len = BIG_BYTES - at < sizeof(block) ? BIG_BYTES - at : sizeof(block);
        fill(block, len, at);
        if (!http_reply_write(request, str_of(block, len), &e))
            return;
        at += len;
    }
    http_reply_end(request);
}

static void handle_hang(struct http_request *request)
{
    struct error e;
    if (http_reply_begin(request, 200, NULL, &e) && http_reply_write(request, S("first"), &e) &&
        !context_sleep_ms(request->ctx, 20000, &e))
        return;
}

static void handler(void *owner, struct http_request *request)
{
    (void) owner;
    struct error e;
    str body;
    if (str_equal(request->path, S("/relay"))) {
        handle_relay(request);
    } else if (str_equal(request->path, S("/flow"))) {
        handle_flow(request);
    } else if (str_equal(request->path, S("/hang"))) {
        handle_hang(request);
    } else if (str_equal(request->path, S("/big"))) {
        char *bytes = arena_alloc(request->ctx->arena, BIG_BYTES);
        fill(bytes, BIG_BYTES, 0);
        http_reply(request, 200, NULL, str_of(bytes, BIG_BYTES));
    } else if (str_equal(request->path, S("/late"))) {
        bool is_there = context_sleep_ms(request->ctx, 100, &e);
        http_reply(request, 200, NULL, is_there ? S("late") : S("gone"));
    } else if (http_request_read_all(request, HTTP_BODY_BYTES_MAX, &body, &e)) {
        http_reply(request, 200, NULL, body.len ? body : S("hello"));
    } else {
        http_reply(request, error_http_status(e.reason), NULL, STR_NONE);
    }
}

static void drop_client(struct loop *loop)
{
    (void) loop;
    http_client_destroy(client);
    client = NULL;
}

static int64_t head_timeout_ms = 500; /* bounds the handshake too */

static void start(size_t loop_count, const char *client_ca)
{
    serving = (struct tls_server_options){.cert_file = str_from_cstr(cert),
                                          .key_file = str_from_cstr(key)};
    if (client_ca)
        serving.client_ca_file = str_from_cstr(client_ca);
    testkit_server_start(&kit, loop_count,
                         (struct http_server_options){.handler = handler,
                                                      .head_timeout_ms = head_timeout_ms,
                                                      .idle_timeout_ms = 5000,
                                                      .write_idle_timeout_ms = 3000,
                                                      .tls = &serving});
    kit.on_drained = loop_count == 1 ? drop_client : NULL;
    end_count = 0;
    end_reason = -1;
}

static int set_up(void **state)
{
    (void) state;
    start(1, NULL);
    return 0;
}

static int set_up_mutual(void **state)
{
    (void) state;
    start(1, authority);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    testkit_server_stop(&kit, 3000);
    raw_free_all();
    return 0;
}

/* ---- a client of ours that shows every byte ---- */

struct peer {
    int fd;
    struct tls *tls;
};
static struct tls_context *trust;

static bool wait_for(struct peer *peer, enum tls_result result)
{
    struct pollfd poll_fd = {peer->fd, result == TLS_WANT_READ ? POLLIN : POLLOUT, 0};
    return poll(&poll_fd, 1, 5000) == 1;
}

static struct peer connect_tls(void)
{
    struct error e;
    struct peer peer = {raw_connect(kit.port), NULL};
    fcntl(peer.fd, F_SETFL, O_NONBLOCK);
    ensure(tls_open(trust, peer.fd, S("localhost"), kit.port, &peer.tls, &e));
    for (;;) {
        enum tls_result result = tls_handshake(peer.tls, &e);
        if (result == TLS_DONE)
            return peer;
        if (result > TLS_WANT_WRITE)
            fprintf(stderr, "handshake: %s\n", e.message);
        ensure(result == TLS_WANT_READ || result == TLS_WANT_WRITE);
        ensure(wait_for(&peer, result));
    }
}

static void send_tls(struct peer *peer, str bytes)
{
    struct error e;
    while (bytes.len > 0) {
        size_t count = 0;
        enum tls_result result = tls_write(peer->tls, bytes.ptr, bytes.len, &count, &e);
        if (result == TLS_DONE)
            bytes = str_from(bytes, count);
        else if (result > TLS_WANT_WRITE || !wait_for(peer, result))
            return;
    }
}

/* How it ended: DONE when `until` was seen. */
static enum tls_result read_tls(struct peer *peer, const char *until, char *into, size_t room,
                                size_t *used)
{
    struct error e;
    *used = 0;
    for (;;) {
        size_t count = 0;
        enum tls_result result = tls_read(peer->tls, into + *used, room - *used, &count, &e);
        if (result == TLS_DONE) {
            *used += count;
            if (until && str_find(str_of(into, *used), str_from_cstr(until)) != STR_NOT_FOUND)
                return TLS_DONE;
        } else if (result > TLS_WANT_WRITE || !wait_for(peer, result)) {
            return result;
        }
    }
}

static void disconnect(struct peer *peer)
{
    tls_close(peer->tls);
    close(peer->fd);
}

#define REQUEST(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n\r\n"

/* ---- bytes ---- */

static void call_all(struct context *ctx, struct loop *loop, void *argument)
{
    (void) argument;
    struct error e;
    struct http_client *ours = NULL;
    struct http_client_options options = {.ca_file = str_from_cstr(authority)};
    assert_true(http_client_create(loop, &options, &ours, &e));
    static char upload[1 << 20];
    fill(upload, sizeof(upload), 0);
    static const char *const paths[] = {"/", "/big", "/flow", "/relay?flow", "/relay?big", "/echo"};
    for (size_t i = 0; i < ARRAY_COUNT(paths) * 2; i++) {
        str path = str_from_cstr(paths[i % ARRAY_COUNT(paths)]), body;
        bool is_echo = str_equal(path, S("/echo"));
        struct http_client_request request = {
            .method = is_echo ? HTTP_POST : HTTP_GET,
            .url = {.is_tls = true, .host = S("localhost"), .port = kit.port, .path_query = path},
            .body = is_echo ? str_of(upload, sizeof(upload)) : STR_NONE,
        };
        OWNED(http_exchange) exchange = NULL;
        bool is_fine = http_client_send(ours, ctx, &request, &exchange, &e) &&
                       http_exchange_read_all(exchange, ctx, 8 << 20, &body, &e);
        if (!is_fine)
            fprintf(stderr, STR_FMT ": %s\n", STR_ARG(path), e.message);
        assert_true(is_fine);
        size_t len = is_echo ? sizeof(upload) : path.len == 1 ? 5 : BIG_BYTES;
        assert_int_equal(body.len, len);
        char *expected = arena_alloc(ctx->arena, len);
        fill(expected, len, 0);
        assert_true(path.len == 1 || memcmp(expected, body.ptr, len) == 0);
    }
    http_client_destroy(ours);
}

static void test_requests_uploads_streams_and_relays_arrive_whole(void **state)
{
    (void) state;
    net_testkit_run(call_all, NULL);
}

static void test_pipelined_requests_in_few_records_are_all_answered(void **state)
{
    (void) state;
    enum { COUNT = 300 };
    static char requests[COUNT * 600], answers[COUNT * 400];
    size_t len = 0, used = 0, seen = 0;
    for (int i = 0; i < COUNT; i++)
        len += (size_t) snprintf(requests + len, sizeof(requests) - len,
                                 "GET / HTTP/1.1\r\nHost: localhost\r\nX-Filler: %0480d\r\n"
                                 "%s\r\n",
                                 i, i == COUNT - 1 ? "Connection: close\r\n" : "");
    struct peer peer = connect_tls();
    send_tls(&peer, str_of(requests, len));
    assert_int_equal(read_tls(&peer, NULL, answers, sizeof(answers), &used), TLS_ENDED);
    str rest = str_of(answers, used);
    for (size_t at; (at = str_find(rest, S("HTTP/1.1 200"))) != STR_NOT_FOUND; seen++)
        rest = str_from(rest, at + 1);
    assert_int_equal(seen, COUNT);
    disconnect(&peer);
}

static void test_a_half_closed_client_still_gets_its_answer(void **state)
{
    (void) state;
    char answer[2048];
    size_t used;
    struct peer peer = connect_tls();
    send_tls(&peer, S(REQUEST("/late")));
    tls_say_goodbye(peer.tls);
    shutdown(peer.fd, SHUT_WR);
    (void) read_tls(&peer, NULL, answer, sizeof(answer), &used);
    assert_true(str_ends_with(str_of(answer, used), S("late")));
    disconnect(&peer);
}

static void test_a_client_that_leaves_a_relay_closes_its_upstream(void **state)
{
    (void) state;
    char answer[2048];
    size_t used;
    struct peer peer = connect_tls();
    send_tls(&peer, S(REQUEST("/relay?hang")));
    assert_int_equal(read_tls(&peer, "first", answer, sizeof(answer), &used), TLS_DONE);
    disconnect(&peer);
    for (int i = 0; i < 100 && end_count == 0; i++)
        sleep_ms(1);
    assert_int_equal(end_count, 1);
    assert_int_equal(end_reason, REASON_CANCELLED);
}

/* ---- what is not TLS ---- */

static void test_plain_http_is_told_what_the_port_speaks(void **state)
{
    (void) state;
    str answer = raw_exchange(kit.port, S("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_int_equal(raw_status(answer), 400);
    assert_true(
        str_ends_with(answer, S("This port speaks TLS: use https:// instead of http://\n")));
}

static void test_garbage_and_silence_cost_nothing_and_end_soon(void **state)
{
    (void) state;
    assert_int_equal(raw_exchange(kit.port, S("\x80\x01\x02garbage")).len, 0);
    str alert = raw_exchange(kit.port,
                             S("\x16\x03\x01\x00\x20\xff\xff\xff\xffgarbage in a record of TLS.."));
    assert_true(alert.len < 16);
    int64_t began_ms = now_ms();
    int silent[64];
    for (size_t i = 0; i < ARRAY_COUNT(silent); i++) {
        silent[i] = raw_connect(kit.port);
        if (i % 2)
            raw_send(silent[i], S("\x16\x03\x01\x02\x00\x01"));
    }
    struct peer peer = connect_tls(); /* others are served meanwhile */
    disconnect(&peer);
    for (size_t i = 0; i < ARRAY_COUNT(silent); i++) {
        assert_true(raw_is_closed(silent[i]));
        close(silent[i]);
    }
    assert_in_range(now_ms() - began_ms, 400, 2000);
}

static void test_handshakes_at_once_are_bounded(void **state)
{
    (void) state;
    static int held[TLS_HANDSHAKES_MAX];
    struct pollfd last = {.events = POLLIN};
    testkit_server_stop(&kit, 1000);
    head_timeout_ms = TLS_HANDSHAKE_TIMEOUT_MS;
    start(1, NULL);
    head_timeout_ms = 500;
    for (size_t i = 0; i < ARRAY_COUNT(held); i++) {
        held[i] = raw_connect(kit.port);
        raw_send(held[i], S("\x16\x03\x01\x02\x00\x01"));
    }
    last.fd = raw_connect(kit.port);
    raw_send(last.fd, S("\x16\x03\x01\x02\x00\x01"));
    assert_int_equal(poll(&last, 1, 2000), 1);
    assert_true(raw_is_closed(last.fd));
    close(last.fd);
    last.fd = held[0];
    assert_int_equal(poll(&last, 1, 0), 0); /* those that came first are not disturbed */
    for (size_t i = 0; i < ARRAY_COUNT(held); i++)
        close(held[i]);
    sleep_ms(50);
    struct peer peer = connect_tls();
    disconnect(&peer);
}

/* ---- handshakes ---- */

static bool s_client(const char *arguments, const char *expected)
{
    return testkit_shell("printf 'GET / HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' | "
                         "timeout 10 openssl s_client -connect 127.0.0.1:%u -CAfile %s %s "
                         "-ign_eof 2>&1 | grep -q '%s'",
                         kit.port, authority, arguments, expected);
}

static void test_only_modern_tls_is_spoken(void **state)
{
    (void) state;
    assert_true(s_client("-tls1_3", "^hello"));
    assert_true(s_client("-tls1_2", "^hello"));
    assert_true(s_client("-tls1_2", "Cipher is ECDHE-ECDSA-"));
    assert_false(s_client("-tls1_1 -cipher DEFAULT@SECLEVEL=0", "^hello"));
    assert_false(s_client("-tls1_2 -cipher AES128-SHA:AES256-SHA", "^hello"));
    assert_false(s_client("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA", "^hello"));
    assert_true(s_client("-verify_return_error -verify_hostname localhost", "^hello"));
}

static void test_alpn_must_include_http11(void **state)
{
    (void) state;
    assert_true(s_client("-alpn h2,http/1.1", "ALPN protocol: http/1.1"));
    assert_true(s_client("-alpn h2", "no application protocol"));
    assert_true(s_client("", "^hello"));
}

static void test_sessions_are_resumed(void **state)
{
    (void) state;
    static const char *const versions[] = {"-tls1_2", "-tls1_3"};
    for (size_t i = 0; i < ARRAY_COUNT(versions); i++) {
        char save[160], use[160];
        snprintf(save, sizeof(save), "%s -sess_out %s/session", versions[i], folder);
        snprintf(use, sizeof(use), "%s -sess_in %s/session", versions[i], folder);
        assert_true(s_client(save, "^New, TLS"));
        assert_true(s_client(use, "^Reused, TLS"));
    }
}

static bool curl_is(const char *arguments, const char *expected)
{
    return testkit_shell("test \"$(curl -sS -m 10 --resolve localhost:%u:127.0.0.1 --cacert %s %s "
                         "https://localhost:%u/ 2>/dev/null)\" = '%s'",
                         kit.port, authority, arguments, kit.port, expected);
}

static void test_curl_is_served(void **state)
{
    (void) state;
    assert_true(curl_is("", "hello"));
    assert_true(curl_is("-d ping", "ping"));
    assert_true(curl_is("--http2", "hello"));
}

static void test_clients_must_show_a_certificate_when_asked(void **state)
{
    (void) state;
    char mine[160], strangers[160];
    snprintf(mine, sizeof(mine), "--cert %s/client.pem --key %s/client.key", folder, folder);
    snprintf(strangers, sizeof(strangers), "--cert %s/stranger.pem --key %s/stranger.key", folder,
             folder);
    assert_true(curl_is(mine, "hello"));
    assert_false(curl_is("", "hello"));
    assert_false(curl_is(strangers, "hello"));
    snprintf(mine, sizeof(mine), "-cert %s/client.pem -key %s/client.key -sess_out %s/mutual",
             folder, folder, folder);
    assert_true(s_client(mine, "^hello"));
    snprintf(mine, sizeof(mine), "-cert %s/client.pem -key %s/client.key -sess_in %s/mutual",
             folder, folder, folder);
    assert_true(s_client(mine, "^Reused, TLS"));
}

/* ---- files ---- */

static void test_broken_files_are_named_with_their_remedy(void **state)
{
    (void) state;
    struct error e;
    struct tls_server *server = NULL;
    char missing[96], encrypted[96], junk[96];
    snprintf(missing, sizeof(missing), "%s/nothing.pem", folder);
    snprintf(encrypted, sizeof(encrypted), "%s/encrypted.key", folder);
    snprintf(junk, sizeof(junk), "%s/ext", folder);
    assert_true(testkit_shell("openssl ec -in %s -aes256 -passout pass:x -out %s 2>/dev/null", key,
                              encrypted));
    const struct {
        const char *cert, *key, *ca, *problem;
    } cases[] = {
        {missing, key, "", "tls.cert_file "},
        {missing, key, "", "check the path"},
        {cert, missing, "", "tls.key_file "},
        {cert, "", "", "tls.key_file is missing"},
        {junk, key, "", "it must hold a certificate in PEM"},
        {cert, junk, "", "without a passphrase"},
        {cert, encrypted, "", "without a passphrase"},
        {cert, other_key, "", "does not belong to the certificate"},
        {cert, key, junk, "tls.client_ca_file "},
        {cert, key, missing, "check the path"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct tls_server_options options = {
            str_from_cstr(cases[i].cert), str_from_cstr(cases[i].key), str_from_cstr(cases[i].ca)};
        assert_false(tls_server_create(&options, &server, &e));
        assert_int_equal(e.reason, REASON_CONFIG);
        if (!strstr(e.message, cases[i].problem))
            fail_msg("%s", e.message);
    }
    assert_int_equal(chmod(key, 0600), 0);
    assert_false(tls_key_file_is_exposed(str_from_cstr(key)));
    assert_int_equal(chmod(key, 0644), 0);
    assert_true(tls_key_file_is_exposed(str_from_cstr(key)));
    assert_false(tls_key_file_is_exposed(str_from_cstr(missing)));
}

struct reload {
    const struct tls_server_options *options;
    struct error e;
    bool is_fine;
    _Atomic bool is_over;
};

static void reload_main(void *argument)
{
    struct reload *reload = argument;
    struct context ctx;
    OWNED(arena) arena = arena_create(0);
    context_init(&ctx, loop_scheduler(kit.loops[0]), arena, DEADLINE_NONE);
    reload->is_fine = http_server_reload_tls(kit.server, &ctx, reload->options, &reload->e);
    context_deinit(&ctx);
    atomic_store(&reload->is_over, true);
}

static void start_reload(void *argument)
{
    struct error e;
    ensure(coroutine_start(loop_scheduler(kit.loops[0]), "reload", reload_main, argument, &e));
}

static bool reload(const char *cert_file, const char *key_file, struct error *e)
{
    struct tls_server_options options = {.cert_file = str_from_cstr(cert_file),
                                         .key_file = str_from_cstr(key_file)};
    struct reload job = {.options = &options};
    loop_post(kit.loops[0], start_reload, &job);
    while (!atomic_load(&job.is_over))
        sleep_ms(1);
    *e = job.e;
    return job.is_fine;
}

static void test_a_reload_changes_what_new_clients_get(void **state)
{
    (void) state;
    struct error e;
    char answer[2048];
    size_t used;
    testkit_server_stop(&kit, 1000);
    start(3, NULL);
    struct peer peer = connect_tls();
    assert_true(reload(other, other_key, &e));
    send_tls(&peer, S(REQUEST("/")));
    assert_int_equal(read_tls(&peer, "hello", answer, sizeof(answer), &used), TLS_DONE);
    disconnect(&peer);
    for (int i = 0; i < 6; i++)
        assert_true(s_client("", "CN = other"));
    assert_false(reload(cert, other_key, &e));
    assert_non_null(strstr(e.message, "does not belong"));
    assert_true(s_client("", "CN = other")); /* as before */
    assert_true(reload(cert, key, &e));
    for (int i = 0; i < 6; i++)
        assert_true(s_client("", "CN = server"));
}

static int make_files(void **state)
{
    (void) state;
    struct error e;
    snprintf(folder, sizeof(folder), "/tmp/http_tls_test.XXXXXX");
    if (!mkdtemp(folder) || !testkit_make_certificates(folder))
        return -1;
    snprintf(authority, sizeof(authority), "%s/authority.pem", folder);
    snprintf(cert, sizeof(cert), "%s/server.pem", folder);
    snprintf(key, sizeof(key), "%s/server.key", folder);
    snprintf(other, sizeof(other), "%s/other.pem", folder);
    snprintf(other_key, sizeof(other_key), "%s/other.key", folder);
    return tls_context_create(str_from_cstr(authority), &trust, &e) ? 0 : -1;
}

static int remove_files(void **state)
{
    (void) state;
    tls_context_destroy(trust);
    blocking_pool_stop();
    return testkit_shell("rm -r %s", folder) ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_requests_uploads_streams_and_relays_arrive_whole),
        TEST(test_pipelined_requests_in_few_records_are_all_answered),
        TEST(test_a_half_closed_client_still_gets_its_answer),
        TEST(test_a_client_that_leaves_a_relay_closes_its_upstream),
        TEST(test_plain_http_is_told_what_the_port_speaks),
        TEST(test_garbage_and_silence_cost_nothing_and_end_soon),
        TEST(test_handshakes_at_once_are_bounded),
        TEST(test_only_modern_tls_is_spoken),
        TEST(test_alpn_must_include_http11),
        TEST(test_sessions_are_resumed),
        TEST(test_curl_is_served),
        cmocka_unit_test_setup_teardown(test_clients_must_show_a_certificate_when_asked,
                                        set_up_mutual, tear_down),
        cmocka_unit_test(test_broken_files_are_named_with_their_remedy),
        TEST(test_a_reload_changes_what_new_clients_get),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
