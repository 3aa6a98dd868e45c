/* The host call http_request against a real server on loopback. */
#include "agent/sandbox/host_http.h"
#include "base/arena.h"
#include "base/limits.h"
#include "net/http_client.h"
#include "net/net_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct testkit_server server;

/* Says what it got; /binary, /large, /redirect and /slow do as they are called. */
static void handle(void *owner, struct http_request *request)
{
    (void) owner;
    struct http_headers headers = {0};
    struct arena *arena = request->ctx->arena;
    struct error e;
    str body;
    if (str_equal(request->path, S("/binary"))) {
        http_reply(request, 200, NULL, S("\xff\xfe\0x"));
    } else if (str_equal(request->path, S("/large"))) {
        char *text = arena_alloc_raw(arena, 5000);
        for (size_t i = 0; i < 5000; i += 2)
            memcpy(text + i, "\xc3\xa4", 2); /* a letter of two bytes: the cut may split it */
        http_reply(request, 200, NULL, str_of(text, 5000));
    } else if (str_equal(request->path, S("/redirect"))) {
        http_headers_add(&headers, arena, S("Location"), S("http://forbidden.example/"));
        http_reply(request, 302, &headers, STR_NONE);
    } else if (str_equal(request->path, S("/slow"))) {
        if (context_sleep_ms(request->ctx, 5000, &e))
            http_reply(request, 200, NULL, STR_NONE);
    } else if (http_request_read_all(request, 1000, &body, &e)) {
        http_headers_add(&headers, arena, S("X-Twice"), S("one"));
        http_headers_add(&headers, arena, S("X-Twice"), S("two"));
        http_headers_add(&headers, arena, S("Set-Cookie"), S("secret=1"));
        str key = http_request_header(request, S("Idempotency-Key"));
        str text = str_printf(arena, "%s " STR_FMT " key=" STR_FMT " body=" STR_FMT,
                              http_method_name(request->method), STR_ARG(request->path),
                              STR_ARG(key), STR_ARG(body));
        http_reply(request, 200, &headers, text);
    }
}

struct attempt {
    struct tool tool;
    const char *input; /* %d stands for the port */
    bool is_ok;
    char output[8192];
    struct error error;
};

static struct http_client *client_of(void *owner, struct loop *loop)
{
    (void) loop;
    return owner;
}

static void send_it(struct context *ctx, struct loop *loop, void *argument)
{
    struct attempt *attempt = argument;
    struct http_client_options options = {0};
    struct http_client *client;
    assert_true(http_client_create(loop, &options, &client, &attempt->error));
    struct host_http http = {.client = client_of, .owner = client};
    struct host_call call = host_http(&http);
    struct tool_request request = {.tool = &attempt->tool, .effect_key = S("run-1-call-2")};
    struct strbuf input;
    str output = STR_NONE;
    strbuf_init(&input, ctx->arena, 4096);
    str text = str_from_cstr(attempt->input), tail;
    while (str_cut(text, '#', &text, &tail)) {
        strbuf_add(&input, text);
        strbuf_add_u64(&input, server.port);
        text = tail;
    }
    strbuf_add(&input, text);
    attempt->is_ok =
        call.run(call.owner, ctx, &request, strbuf_str(&input), &output, &attempt->error);
    snprintf(attempt->output, sizeof attempt->output, STR_FMT, STR_ARG(output));
    http_client_destroy(client);
}

static str all_hosts[] = {S_INIT("127.0.0.1")}, loopback[] = {S_INIT("127.0.0.1")};

static struct attempt attempt_of(const char *input)
{
    struct attempt attempt = {.input = input};
    attempt.tool.name = S("http_request");
    attempt.tool.category = S("http");
    attempt.tool.permissions.network.is_set = true;
    attempt.tool.permissions.network.allowed_hosts = (struct str_list){all_hosts, 1};
    attempt.tool.permissions.network.allowed_ips = (struct str_list){loopback, 1};
    return attempt;
}

static void run_attempt(struct attempt *attempt)
{
    net_testkit_run(send_it, attempt);
    print_message("  %s\n", attempt->is_ok ? attempt->output : attempt->error.message);
}

static void assert_has(const struct attempt *attempt, const char *part)
{
    assert_true(attempt->is_ok);
    if (!strstr(attempt->output, part))
        fail_msg("no %s in %s", part, attempt->output);
}

static void test_get_gives_status_headers_and_body(void **state)
{
    (void) state;
    struct attempt attempt = attempt_of(
        "{\"url\":\"http://127.0.0.1:#/hello\",\"headers\":{\"Accept\":\"text/plain\"}}");
    run_attempt(&attempt);
    assert_has(&attempt, "\"status\":200");
    assert_has(&attempt, "\"body\":\"GET /hello key= body=\"");
    assert_has(&attempt, "\"x-twice\":\"one, two\"");
    assert_has(&attempt, "\"truncated\":false");
    assert_null(strstr(attempt.output, "secret"));
}

static void test_post_carries_the_effect_key(void **state)
{
    (void) state;
    struct attempt attempt =
        attempt_of("{\"method\":\"POST\",\"url\":\"http://127.0.0.1:#/\",\"body\":\"abc\"}");
    run_attempt(&attempt);
    assert_has(&attempt, "POST / key=run-1-call-2 body=abc");
}

static void test_bodies_are_cut_at_characters_and_bytes_become_base64(void **state)
{
    (void) state;
    struct attempt attempt = attempt_of("{\"url\":\"http://127.0.0.1:#/large\"}");
    attempt.tool.permissions.network.max_response_bytes = 1001;
    run_attempt(&attempt);
    assert_has(&attempt, "\"truncated\":true");
    assert_null(strstr(attempt.output, "base64"));
    attempt.tool.permissions.network.max_response_bytes = 5000;
    run_attempt(&attempt);
    assert_has(&attempt, "\"truncated\":false");
    attempt.input = "{\"url\":\"http://127.0.0.1:#/binary\"}";
    run_attempt(&attempt);
    assert_has(&attempt, "\"body\":\"//4AeA==\",\"body_base64\":true");
}

static void assert_refused(struct attempt *attempt, enum error_reason reason)
{
    run_attempt(attempt);
    assert_false(attempt->is_ok);
    assert_string_equal(error_problem(attempt->error.reason), error_problem(reason));
}

static void test_what_is_not_granted_is_refused(void **state)
{
    (void) state;
    struct attempt attempt = attempt_of("{\"url\":\"http://other.example:#/\"}");
    assert_refused(&attempt, REASON_EGRESS_BLOCKED);
    attempt.input = "{\"url\":\"http://127.0.0.1:#/redirect\"}";
    assert_refused(&attempt, REASON_EGRESS_BLOCKED);
    attempt.input = "{\"url\":\"http://127.0.0.1:#/\"}";
    attempt.tool.permissions.network.allowed_ips.count =
        0; /* loopback needs the operator's exception */
    assert_refused(&attempt, REASON_EGRESS_BLOCKED);
    attempt.tool.permissions.network.allowed_hosts.count = 0;
    assert_refused(&attempt, REASON_EGRESS_BLOCKED);
    attempt.tool.permissions.network.is_set = false;
    assert_refused(&attempt, REASON_PERMISSION);
    attempt = attempt_of("{\"url\":\"http://127.0.0.1:#/\"}");
    attempt.tool.category = S("code");
    assert_refused(&attempt, REASON_PERMISSION);
    attempt.tool.permissions.network_access = true;
    run_attempt(&attempt);
    assert_true(attempt.is_ok);
}

static void test_bad_requests_are_named(void **state)
{
    (void) state;
    struct attempt attempt =
        attempt_of("{\"url\":\"http://127.0.0.1:#/\",\"headers\":{\"Cookie\":\"a=b\"}}");
    assert_refused(&attempt, REASON_PERMISSION);
    attempt.input = "{\"url\":\"http://127.0.0.1:#/\",\"headers\":{\"X\":\"a\\r\\nHost: b\"}}";
    assert_refused(&attempt, REASON_SCHEMA);
    attempt.input = "{\"url\":\"http://127.0.0.1:#/\",\"method\":\"STEAL\"}";
    assert_refused(&attempt, REASON_SCHEMA);
    attempt.input = "{\"method\":\"GET\"}";
    assert_refused(&attempt, REASON_SCHEMA);
}

static void test_the_permitted_time_ends_a_slow_answer(void **state)
{
    (void) state;
    struct attempt attempt = attempt_of("{\"url\":\"http://127.0.0.1:#/slow\"}");
    attempt.tool.permissions.network.timeout_ms = 100;
    assert_refused(&attempt, REASON_TIMEOUT);
}

static int setup(void **state)
{
    (void) state;
    testkit_server_start(&server, 1, (struct http_server_options){.handler = handle});
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    testkit_server_stop(&server, 2000);
    blocking_pool_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_gives_status_headers_and_body),
        cmocka_unit_test(test_post_carries_the_effect_key),
        cmocka_unit_test(test_bodies_are_cut_at_characters_and_bytes_become_base64),
        cmocka_unit_test(test_what_is_not_granted_is_refused),
        cmocka_unit_test(test_bad_requests_are_named),
        cmocka_unit_test(test_the_permitted_time_ends_a_slow_answer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
