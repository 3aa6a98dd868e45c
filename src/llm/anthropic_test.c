/* The anthropic provider against a server of the test's own. */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/provider_contract.h"
#include "net/http_client.h"
#include "net/net_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

static _Atomic int requests, connections, first_key, second_key, versions, other_versions;

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
#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define START                                                                                      \
    EVENT("message_start",                                                                         \
          ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","            \
          "\"model\":\"m-1\",\"content\":[],\"stop_reason\":null,\"usage\":{"                      \
          "\"input_tokens\":3,\"cache_read_input_tokens\":4,"                                      \
          "\"cache_creation_input_tokens\":2,\"output_tokens\":1}}")
#define BLOCK(index, block)                                                                        \
    EVENT("content_block_start", ",\"index\":" index ",\"content_block\":{" block "}")
#define DELTA(index, delta)                                                                        \
    EVENT("content_block_delta", ",\"index\":" index ",\"delta\":{" delta "}")
#define STOP(index) EVENT("content_block_stop", ",\"index\":" index)
#define TEXT(index, text) DELTA(index, "\"type\":\"text_delta\",\"text\":\"" text "\"")
#define INPUT(index, json)                                                                         \
    DELTA(index, "\"type\":\"input_json_delta\",\"partial_json\":\"" json "\"")
#define FINISH(reason)                                                                             \
    EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"" reason                                 \
                           "\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}")
#define END EVENT("message_stop", "")
#define PING EVENT("ping", "")
#define BEGUN START PING BLOCK("0", "\"type\":\"text\",\"text\":\"\"")

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
        answer(
            fd, 200, "", JSON,
            "{\"type\":\"error\",\"error\":{\"type\":\"billing_error\",\"message\":\"no money\"}}");
    else if (has(request, "error in stream"))
        answer(fd, 200, "", SSE,
               BEGUN TEXT("0", "a") EVENT(
                   "error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}"));
    else if (has(request, "cut short"))
        answer(fd, 200, "", SSE, BEGUN TEXT("0", "a"));
    else if (has(request, "nonsense event"))
        answer(fd, 200, "", SSE, "data: {nonsense\n\n");
    else if (has(request, "no such block"))
        answer(fd, 200, "", SSE, START TEXT("7", "a"));
    else if (has(request, "no stop"))
        answer(fd, 200, "", SSE, BEGUN TEXT("0", "a") STOP("0") FINISH("max_tokens"));
    else if (has(request, "poor"))
        answer(
            fd, 400, "", JSON,
            "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your "
            "credit balance is too low to access the API\"}}");
    else if (has(request, "crowded"))
        answer(fd, 529, "", JSON,
               "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":"
               "\"Overloaded\"}}");
    else if (has(request, "too big"))
        answer(
            fd, 413, "", JSON,
            "{\"type\":\"error\",\"error\":{\"type\":\"request_too_large\",\"message\":\"big\"}}");
    else if (has(request, "echo key"))
        answer(fd, 401, "", JSON,
               has(request, "key-number-one")
                   ? "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":"
                     "\"bad key-number-one\"}}"
                   : "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":"
                     "\"bad "
                     "key\"}}");
    else if (has(request, "broken body")) {
        raw_send(fd, S("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                       "100\r\n\r\n{\"content\""));
        shutdown(fd, SHUT_RDWR);
    } else if (has(request, "hang up"))
        shutdown(fd, SHUT_RDWR);
    else
        return false;
    return true;
}

#define ADD "\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"add\",\"input\":"
#define TIME "\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"time\",\"input\":{}"

static void serve_contract(int fd, str request)
{
    bool is_stream = has(request, "\"stream\":true");
    if (has(request, "sleep_ms"))
        return; /* never: the caller gives up */
    if (has(request, "GET /v1/models"))
        answer(fd, 200, "", JSON, "{\"data\":[{\"id\":\"m-1\"},{\"id\":\"m-2\"}]}");
    else if (has(request, "rate_limited"))
        answer(fd, 429, "Retry-After: 1.5\r\n", JSON,
               "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow "
               "down\"}}");
    else if (has(request, "tool_calls") && is_stream)
        answer(fd, 200, "", SSE,
               START BLOCK("0", ADD "{}") INPUT("0", "") INPUT("0", "{\\\"a\\\":1,")
                   INPUT("0", "\\\"b\\\":\\\"two words\\\"}") STOP("0") BLOCK("1", TIME)
                       INPUT("1", "{}") STOP("1") FINISH("tool_use") END);
    else if (has(request, "tool_calls"))
        answer(fd, 200, "", JSON,
               "{\"id\":\"x\",\"type\":\"message\",\"content\":[{" ADD
               "{\"a\":1,\"b\":\"two words\"}},{" TIME "}],\"stop_reason\":\"tool_use\"}");
    else if (is_stream)
        answer(fd, 200, "", SSE,
               BEGUN TEXT("0", "one two") PING TEXT("0", " three") STOP("0") FINISH("end_turn")
                   END);
    else
        answer(
            fd, 200, "", JSON,
            "{\"id\":\"x\",\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"one two "
            "three\"}],\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":3,\"output_"
            "tokens\":5,"
            "\"cache_read_input_tokens\":4,\"cache_creation_input_tokens\":2}}");
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
        first_key += has(request, "x-api-key: key-number-one\r\n");
        second_key += has(request, "x-api-key: key-number-two\r\n");
        versions += has(request, "anthropic-version: 2023-06-01\r\n");
        other_versions += has(request, "Anthropic-Version: 2024-12-31\r\n");
        if (has(request, "Authorization:"))
            answer(fd, 400, "", JSON, "{}");
        else if (!serve_odd(fd, request))
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
        .base_url = str_printf(ctx->arena, "http://127.0.0.1:%u/", setting->server.port),
        .api_keys = keys,
        .api_key_count = 2,
        .client_of_loop = client_of,
        .client_owner = client,
    };
    struct provider *provider = NULL;
    if (!provider_anthropic_create(&options, &provider, &e))
        fail_msg("%s", e.message);
    setting->run(provider, ctx);
    provider_destroy(provider);
    http_client_destroy(client);
}

static void with_server(void (*run)(struct provider *provider, struct context *ctx))
{
    struct setting setting = {.run = run};
    requests = connections = first_key = second_key = versions = other_versions = 0;
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
    assert_int_equal(versions, requests);
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
    expect_complete(provider, ctx, "poor", REASON_PROVIDER_QUOTA);
    expect_complete(provider, ctx, "crowded", REASON_PROVIDER_OVERLOADED);
    expect_complete(provider, ctx, "too big", REASON_PROVIDER_INVALID);
    expect_complete(provider, ctx, "broken body", REASON_PROVIDER_NETWORK);
    expect_complete(provider, ctx, "hang up", REASON_PROVIDER_NETWORK);
    expect_stream(provider, ctx, "error in 200", REASON_PROVIDER_QUOTA);
    expect_stream(provider, ctx, "error in stream", REASON_PROVIDER_OVERLOADED);
    expect_stream(provider, ctx, "cut short", REASON_PROVIDER_NETWORK);
    expect_stream(provider, ctx, "nonsense event", REASON_PROVIDER_PROTOCOL);
    expect_stream(provider, ctx, "no such block", REASON_PROVIDER_PROTOCOL);
    struct error e = {0};
    struct reply reply;
    OWNED(reply_stream) stream = NULL;
    assert_true(provider_stream(provider, ctx, NULL, ask(ctx, "no stop"), &stream, &e));
    assert_true(provider_contract_drain(stream, ctx, &reply, &e));
    assert_int_equal(reply.finish, FINISH_LENGTH);
    assert_true(reply.usage.is_reported);
    assert_int_equal(reply.usage.input_tokens, 9);
    assert_int_equal(reply.usage.cached_tokens, 4);
    assert_int_equal(reply.usage.cache_write_tokens, 2);
    assert_int_equal(reply.usage.output_tokens, 5);
}

static void test_each_failure_keeps_its_class_and_tells_no_key(void **state)
{
    (void) state;
    with_server(run_failures);
}

static int heads;

static void count_head(void *owner, int status, const struct http_headers *headers)
{
    heads += owner == &heads && status == 200 && headers->count > 0;
}

static void run_forward(struct provider *provider, struct context *ctx)
{
    struct error e = {0};
    OWNED(http_exchange) exchange = NULL;
    str body;
    struct http_headers fields = {0};
    http_headers_add(&fields, ctx->arena, S("Anthropic-Version"), S("2024-12-31"));
    http_headers_add(&fields, ctx->arena, S("Authorization"), S("Bearer of-the-caller"));
    http_headers_add(&fields, ctx->arena, S("X-Api-Key"), S("of-the-caller"));
    struct provider_call how = {
        .key = 1, .headers = &fields, .on_head = count_head, .owner = &heads};
    heads = 0;
    assert_true(provider_speaks(provider, DIALECT_ANTHROPIC_MESSAGES));
    assert_false(provider_speaks(provider, DIALECT_OPENAI_CHAT));
    assert_true(provider_forward(provider, ctx, &how, S("/messages"), S("{\"as\":\"it is\"}"),
                                 &exchange, &e));
    assert_int_equal(http_exchange_status(exchange), 200);
    assert_true(http_exchange_read_all(exchange, ctx, 1 << 20, &body, &e));
    assert_true(str_find(body, S("one two three")) != STR_NOT_FOUND);
    assert_int_equal(heads, 1);
    assert_int_equal(second_key, 1);
    assert_int_equal(first_key + versions, 0);
}

static void run_refusals(struct provider *provider, struct context *ctx)
{
    const struct json *extra;
    struct error e = {0};
    struct reply reply;
    struct prompt *prompt = ask(ctx, "hello");
    assert_true(json_parse(ctx->arena, S("{\"n\":2}"), (struct json_limits){0}, &extra, &e));
    prompt->extra = extra;
    assert_false(provider_complete(provider, ctx, NULL, prompt, &reply, &e));
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
    assert_int_equal(requests, 0);
    struct embed_reply vectors;
    str text = S("x");
    struct embed_request request = {.model = S("m"), .texts = &text, .text_count = 1};
    e = (struct error){0};
    assert_false(provider_embed(provider, ctx, NULL, &request, &vectors, &e));
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
}

static void test_what_the_api_cannot_say_is_refused_before_it_is_sent(void **state)
{
    (void) state;
    with_server(run_refusals);
}

static void test_forward_gives_the_raw_exchange(void **state)
{
    (void) state;
    with_server(run_forward);
    assert_int_equal(other_versions, 1);
}

static void test_wrong_options_are_refused(void **state)
{
    (void) state;
    struct provider *provider = NULL;
    struct error e = {0};
    str key = S("two\nlines");
    struct provider_options options = {
        .name = S("p"), .base_url = S("ftp://x"), .client_of_loop = client_of};
    assert_false(provider_anthropic_create(&options, &provider, &e));
    options.base_url = S("http://x/v1");
    options.api_keys = &key;
    options.api_key_count = 1;
    assert_false(provider_anthropic_create(&options, &provider, &e));
    assert_non_null(strstr(e.message, "api_keys[0]"));
    assert_null(strstr(e.message, "two"));
    options.api_key_count = PROVIDER_KEYS_MAX + 1;
    assert_false(provider_anthropic_create(&options, &provider, &e));
    assert_null(provider);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_keeps_the_contract_of_providers),
        cmocka_unit_test(test_each_failure_keeps_its_class_and_tells_no_key),
        cmocka_unit_test(test_forward_gives_the_raw_exchange),
        cmocka_unit_test(test_what_the_api_cannot_say_is_refused_before_it_is_sent),
        cmocka_unit_test(test_wrong_options_are_refused),
    };
    return cmocka_run_group_tests_name("anthropic", tests, NULL, NULL);
}
