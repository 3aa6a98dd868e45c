/* The openai provider against a server of the test's own. */
#include "base/arena.h"
#include "llm/openai_internal.h"
#include "llm/provider_contract.h"
#include "net/net_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

static _Atomic int requests, connections, first_key, second_key;

static void answer(int fd, int status, const char *headers, const char *type, const char *body)
{
    char head[512];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %d X\r\nContent-Type: %s\r\n%sContent-Length: %zu\r\n\r\n",
                          status, type, headers, strlen(body));
    raw_send(fd, str_of(head, (size_t) length));
    raw_send(fd, str_from_cstr(body));
}

#define JSON "application/json"
#define SSE "text/event-stream; charset=utf-8"
#define DATA(json) "data: " json "\n\n"
#define PIECE(delta)                                                                               \
    DATA("{\"id\":\"s1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{" delta "}}]}")
#define FINISH(reason)                                                                             \
    DATA("{\"id\":\"s1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" reason       \
         "\"}]}")
#define USAGE                                                                                      \
    DATA("{\"id\":\"s1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}")
#define ADD "\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":"
#define TIME "\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"time\",\"arguments\":"

static bool has(str request, const char *text)
{
    return str_find(request, str_from_cstr(text)) != STR_NOT_FOUND;
}

/* Plays what the words in the request ask for. */
static bool serve_odd(int fd, str request)
{
    if (has(request, "say html"))
        answer(fd, 200, "", "text/html", "<html>hello</html>");
    else if (has(request, "error in 200"))
        answer(fd, 200, "", JSON,
               "{\"error\":{\"message\":\"no money\",\"code\":\"insufficient_quota\"}}");
    else if (has(request, "error in stream"))
        answer(fd, 200, "", SSE,
               PIECE("\"content\":\"a\"")
                   DATA("{\"error\":{\"message\":\"too busy\",\"type\":\"overloaded_error\"}}"));
    else if (has(request, "cut short"))
        answer(fd, 200, "", SSE, PIECE("\"content\":\"a\""));
    else if (has(request, "nonsense chunk"))
        answer(fd, 200, "", SSE, "data: {nonsense\n\n");
    else if (has(request, "no done"))
        answer(fd, 200, "", SSE, PIECE("\"content\":\"a\"") FINISH("length"));
    else if (has(request, "echo key")) {
        answer(fd, 401, "", JSON,
               has(request, "key-number-one") ? "{\"error\":{\"message\":\"bad key-number-one\"}}"
                                              : "{\"error\":{\"message\":\"bad key\"}}");
    } else if (has(request, "broken body")) {
        raw_send(fd, S("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                       "100\r\n\r\n{\"choices\""));
        shutdown(fd, SHUT_RDWR);
    } else if (has(request, "hang up")) {
        shutdown(fd, SHUT_RDWR);
    } else
        return false;
    return true;
}

static void serve_contract(int fd, str request)
{
    bool is_stream = has(request, "\"stream\":true");
    if (has(request, "sleep_ms"))
        return; /* never: the caller gives up */
    if (has(request, "GET /v1/models"))
        answer(fd, 200, "", JSON, "{\"data\":[{\"id\":\"m-1\"},{\"id\":\"m-2\"}]}");
    else if (has(request, "rate_limited"))
        answer(fd, 429, "Retry-After: 1.5\r\n", JSON,
               "{\"error\":{\"message\":\"slow down\",\"type\":\"requests\"}}");
    else if (has(request, "tool_calls") && is_stream)
        answer(
            fd, 200, "", SSE,
            PIECE("\"role\":\"assistant\",\"content\":null")
                PIECE("\"tool_calls\":[{\"index\":0," ADD "\"\"}}]") PIECE(
                    "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":1,\"}}]")
                    PIECE("\"tool_calls\":[{\"index\":1," TIME "\"{}\"}}]") PIECE(
                        "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
                        "\"\\\"b\\\":\\\"two words\\\"}\"}}]") FINISH("tool_calls") DATA("[DONE]"));
    else if (has(request, "tool_calls"))
        answer(fd, 200, "", JSON,
               "{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{" ADD
               "\"{\\\"a\\\":1,\\\"b\\\":\\\"two words\\\"}\"}},{" TIME
               "\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}");
    else if (is_stream)
        answer(fd, 200, "", SSE,
               ": keep-alive\n\n" PIECE("\"role\":\"assistant\",\"content\":\"\"")
                   PIECE("\"content\":\"one two\"") PIECE("\"content\":\" three\"") FINISH("stop")
                       USAGE DATA("[DONE]"));
    else
        answer(fd, 200, "", JSON,
               "{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":\"one two "
               "three\"},\"finish_reason\":\"stop\"}],"
               "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}");
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index;
    (void) argument;
    connections++;
    for (;;) {
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        requests++;
        first_key += has(request, "Authorization: Bearer key-number-one\r\n");
        second_key += has(request, "Authorization: Bearer key-number-two\r\n");
        if (!serve_odd(fd, request))
            serve_contract(fd, request);
    }
}

/* ---- */

static struct http_client *client_of(void *owner)
{
    return owner;
}

struct setting {
    struct raw_server server;
    void (*run)(struct provider *provider, struct context *ctx);
};

static void run_with_provider(struct context *ctx, struct loop *loop, void *argument)
{
    struct setting *setting = argument;
    struct error e = {0};
    struct http_client *client = NULL;
    struct http_client_options client_options = {0};
    assert_true(http_client_create(loop, &client_options, &client, &e));
    str keys[] = {S("key-number-one"), S("key-number-two\n")};
    struct provider_options options = {
        .name = S("local"),
        .base_url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1/", setting->server.port),
        .api_keys = keys,
        .api_key_count = 2,
        .client_of_loop = client_of,
        .client_owner = client,
    };
    struct provider *provider = NULL;
    if (!provider_openai_create(&options, &provider, &e))
        fail_msg("%s", e.message);
    setting->run(provider, ctx);
    provider_destroy(provider);
    http_client_destroy(client);
}

static void with_server(void (*run)(struct provider *provider, struct context *ctx))
{
    struct setting setting = {.run = run};
    requests = connections = first_key = second_key = 0;
    raw_server_start(&setting.server, serve, NULL);
    net_testkit_run(run_with_provider, &setting);
    raw_server_stop(&setting.server);
    raw_free_all();
}

static void test_it_keeps_the_contract_of_providers(void **state)
{
    (void) state;
    with_server(provider_contract);
    assert_true(first_key > 0 && second_key > 0);
    assert_true(first_key - second_key <= 1 && second_key - first_key <= 1);
    assert_true(connections < requests); /* kept alive */
}

static struct prompt *ask(struct context *ctx, const char *text)
{
    struct prompt *prompt = ARENA_NEW(ctx->arena, struct prompt);
    struct prompt_message *message = ARENA_NEW(ctx->arena, struct prompt_message);
    struct part *part = ARENA_NEW(ctx->arena, struct part);
    *part = (struct part){.kind = PART_TEXT, .text = str_from_cstr(text)};
    *message = (struct prompt_message){.role = ROLE_USER, .parts = part, .part_count = 1};
    *prompt = (struct prompt){.model = S("m"),
                              .messages = message,
                              .message_count = 1,
                              .max_output_tokens = 10,
                              .temperature = -1,
                              .parallel_tool_calls = -1};
    return prompt;
}

static void expect_complete(struct provider *provider, struct context *ctx, const char *text,
                            enum error_reason reason)
{
    struct reply reply;
    struct error e = {0};
    assert_false(provider_complete(provider, ctx, NULL, ask(ctx, text), &reply, &e));
    if (e.reason != reason)
        fail_msg("'%s' gave %s: %s", text, error_problem(e.reason), e.message);
    assert_null(strstr(e.message, "key-number"));
    assert_non_null(strstr(e.message, "provider local"));
}

static void expect_stream(struct provider *provider, struct context *ctx, const char *text,
                          enum error_reason reason)
{
    struct reply reply;
    struct error e = {0};
    OWNED(reply_stream) stream = NULL;
    if (provider_stream(provider, ctx, NULL, ask(ctx, text), &stream, &e))
        assert_false(provider_contract_drain(stream, ctx, &reply, &e));
    if (e.reason != reason)
        fail_msg("'%s' gave %s: %s", text, error_problem(e.reason), e.message);
}

static void run_failures(struct provider *provider, struct context *ctx)
{
    expect_complete(provider, ctx, "say html", REASON_PROVIDER_PROTOCOL);
    expect_complete(provider, ctx, "error in 200", REASON_PROVIDER_QUOTA);
    expect_complete(provider, ctx, "echo key", REASON_PROVIDER_AUTH);
    expect_complete(provider, ctx, "echo key", REASON_PROVIDER_AUTH);
    expect_complete(provider, ctx, "broken body", REASON_PROVIDER_NETWORK);
    expect_complete(provider, ctx, "hang up", REASON_PROVIDER_NETWORK);
    expect_stream(provider, ctx, "error in 200", REASON_PROVIDER_QUOTA);
    expect_stream(provider, ctx, "error in stream", REASON_PROVIDER_OVERLOADED);
    expect_stream(provider, ctx, "cut short", REASON_PROVIDER_NETWORK);
    expect_stream(provider, ctx, "nonsense chunk", REASON_PROVIDER_PROTOCOL);
    struct error e = {0};
    struct reply reply;
    OWNED(reply_stream) stream = NULL;
    assert_true(provider_stream(provider, ctx, NULL, ask(ctx, "no done"), &stream, &e));
    assert_true(provider_contract_drain(stream, ctx, &reply, &e));
    assert_int_equal(reply.finish, FINISH_LENGTH);
    assert_false(reply.usage.is_reported);
}

static void test_each_failure_keeps_its_class_and_tells_no_key(void **state)
{
    (void) state;
    with_server(run_failures);
}

static void run_forward(struct provider *provider, struct context *ctx)
{
    struct error e = {0};
    OWNED(http_exchange) exchange = NULL;
    str body;
    assert_true(provider_forward(provider, ctx, NULL, S("/chat/completions"),
                                 S("{\"as\":\"it is\"}"), &exchange, &e));
    assert_int_equal(http_exchange_status(exchange), 200);
    assert_true(http_exchange_read_all(exchange, ctx, 1 << 20, &body, &e));
    assert_true(str_find(body, S("one two three")) != STR_NOT_FOUND);
}

static void test_forward_gives_the_raw_exchange(void **state)
{
    (void) state;
    with_server(run_forward);
}

static void test_wrong_options_are_refused(void **state)
{
    (void) state;
    struct provider *provider = NULL;
    struct error e = {0};
    str key = S("two\nlines");
    struct provider_options options = {
        .name = S("p"), .base_url = S("ftp://x"), .client_of_loop = client_of};
    assert_false(provider_openai_create(&options, &provider, &e));
    options.base_url = S("http://x/v1");
    options.api_keys = &key;
    options.api_key_count = 1;
    assert_false(provider_openai_create(&options, &provider, &e));
    assert_non_null(strstr(e.message, "api_keys[0]"));
    assert_null(strstr(e.message, "two"));
    options.api_key_count = PROVIDER_KEYS_MAX + 1;
    assert_false(provider_openai_create(&options, &provider, &e));
    assert_null(provider);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_keeps_the_contract_of_providers),
        cmocka_unit_test(test_each_failure_keeps_its_class_and_tells_no_key),
        cmocka_unit_test(test_forward_gives_the_raw_exchange),
        cmocka_unit_test(test_wrong_options_are_refused),
    };
    return cmocka_run_group_tests_name("openai", tests, NULL, NULL);
}
