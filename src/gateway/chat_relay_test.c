/* Plain calls through to an upstream of the same dialect: a scripted server that sees and sends exact bytes. */
#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "net/net_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CHAT S("/v1/chat/completions")

/* ---- the upstream: the model's name says what to do ---- */

static char
    seen[1 << 16]; /* body of the newest request; the gateway's answer comes after it was written */
static _Atomic bool saw_disconnect;

static void say(int fd, const char *text)
{
    raw_send(fd, str_from_cstr(text));
}

static void say_json(int fd, int status, const char *more, const char *body)
{
    char head[512];
    snprintf(head, sizeof head,
             "HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
             status, more, strlen(body));
    say(fd, head);
    say(fd, body);
}

#define STREAM_HEAD                                                                                \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define CHUNK_ONE                                                                                  \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"x_new\":{\"a\":1},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}" \
    ",\"finish_reason\":null}],\"usage\":null}\n\n"
#define CHUNK_TWO                                                                                  \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":"   \
    "\"stop\"}],\"usage\":null}\n\n"
#define CHUNK_USAGE                                                                                \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,"        \
    "\"total_tokens\":9}}\n\n"
#define WHOLE                                                                                      \
    "{\"id\":\"c1\",\"object\":\"chat.completion\",\"x_new\":[1.50],\"choices\":[{\"index\":0,"    \
    "\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},"                                     \
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_" \
    "tokens\":8}}"

static bool asks_for(const char *model)
{
    char text[64];
    snprintf(text, sizeof text, "\"model\":\"%s\"", model);
    return strstr(seen, text) != NULL;
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index, (void) argument;
    for (;;) {
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        size_t at = str_find(request, S("\r\n\r\n"));
        str body = str_from(request, at + 4);
        ensure(body.len < sizeof seen);
        memcpy(seen, body.ptr, body.len);
        seen[body.len] = 0;
        if (asks_for("up-whole"))
            say_json(fd, 200, "", WHOLE);
        else if (asks_for("up-busy"))
            say_json(
                fd, 429, "Retry-After: 3\r\n",
                "{\"error\":{\"message\":\"slow down sk-abcdefgh12345678\",\"type\":\"rate\"}}");
        else if (asks_for("up-bad"))
            say_json(fd, 400, "", "{\"error\":{\"message\":\"no such parameter\"}}");
        else if (asks_for("up-garbage"))
            say_json(fd, 200, "", "<html>");
        else if (asks_for("up-inband"))
            say(fd, STREAM_HEAD
                "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"overloaded_error\"}}\n\n");
        else if (asks_for("up-stream"))
            say(fd, STREAM_HEAD ": note\n\n" CHUNK_ONE CHUNK_TWO CHUNK_USAGE "data: [DONE]\n\n");
        else if (asks_for("up-cut"))
            say(fd, STREAM_HEAD CHUNK_ONE);
        else if (asks_for("up-slow")) {
            say(fd, STREAM_HEAD);
            for (int i = 0; i < 100 && send(fd, CHUNK_ONE, sizeof CHUNK_ONE - 1, MSG_NOSIGNAL) > 0;
                 i++)
                usleep(50000);
            atomic_store(&saw_disconnect, raw_is_closed(fd));
            return;
        }
        if (strstr(seen, "\"stream\":true"))
            return;
    }
}

/* ---- a catalog in front of it ---- */

static struct raw_server upstream;
static struct provider *provider;
static struct gateway_testkit *current;

static struct http_client *client_of_loop(void *owner)
{
    (void) owner;
    return current->client;
}

static void add(struct catalog *catalog, const char *name, const char *first, const char *second)
{
    struct error e = {0};
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 1000, .output_picousd_per_token = 2000};
    struct model_target targets[] = {
        {.provider = provider, .model = str_from_cstr(first), .weight = 1000000, .price = price},
        {.provider = provider,
         .model = str_from_cstr(second ? second : ""),
         .weight = 1,
         .price = price},
    };
    struct model model = {.name = str_from_cstr(name),
                          .targets = targets,
                          .target_count = second ? 2 : 1,
                          .max_output_tokens = 500};
    ensure(catalog_add(catalog, &model, &e));
}

static void configure(struct gateway_testkit *kit)
{
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = kit->base->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    static const char *const plain[] = {"whole",  "busy",   "bad", "garbage",
                                        "inband", "stream", "cut", "slow"};
    for (size_t i = 0; i < ARRAY_COUNT(plain); i++) {
        char target[32];
        snprintf(target, sizeof target, "up-%s", plain[i]);
        add(settings->catalog, plain[i], target, NULL);
    }
    add(settings->catalog, "busy-then-whole", "up-busy", "up-whole");
    add(settings->catalog, "inband-then-stream", "up-inband", "up-stream");
    orchestrator_reconfigure(kit->base->o, settings);
}

static void (*scenario)(struct context *ctx, struct gateway_testkit *kit);

static void with_upstream(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    current = kit;
    str url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", upstream.port);
    struct provider_options options = {
        .name = S("up"), .base_url = url, .client_of_loop = client_of_loop};
    ensure(provider_openai_create(&options, &provider, &e));
    configure(kit);
    scenario(ctx, kit);
}

static void run(void (*body)(struct context *ctx, struct gateway_testkit *kit))
{
    scenario = body;
    raw_server_start(&upstream, serve, NULL);
    gateway_testkit_run(with_upstream);
    raw_server_stop(&upstream);
    raw_free_all();
    provider_destroy(provider);
}

static struct answer chat(struct context *ctx, struct gateway_testkit *kit, const char *model,
                          const char *more)
{
    str body = str_printf(ctx->arena,
                          "{\"model\":\"%s\",\"x_unknown\":{\"b\": "
                          "1.0},\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s}",
                          model, more);
    return ask(ctx, kit, HTTP_POST, CHAT, kit->user_key, body);
}

static int64_t spent_tokens(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        ask(ctx, kit, HTTP_GET, S("/api/v1/budgets/user/alice"), kit->admin_key, STR_NONE);
    assert_int_equal(json_i64_or(json_get(answer.json, S("reserved")), S("tokens"), -1), 0);
    return json_i64_or(json_get(answer.json, S("spent")), S("tokens"), -1);
}

static void expect(str text, const char *needle)
{
    if (str_find(text, str_from_cstr(needle)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, needle, STR_ARG(text));
}

/* ---- scenarios ---- */

static void whole(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer.body, S(WHOLE)));
    assert_string_equal(seen, "{\"model\":\"up-whole\",\"x_unknown\":{\"b\": "
                              "1.0},\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(spent_tokens(ctx, kit), 8);
    answer = chat(ctx, kit, "whole", ",\"max_tokens\":9000");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(seen, "\"max_tokens\":500")); /* the model's own ceiling */
}
static void test_bytes_go_through_unchanged_but_for_the_model(void **state)
{
    (void) state;
    run(whole);
}

static void limited(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer set = ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->admin_key,
                            S("{\"tokens\":500}"));
    assert_int_equal(set.status, 200);
    struct answer answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 200);
    expect(answer_header(&answer, S("Nexus-Degraded")), "output limited to");
    expect(str_from_cstr(seen), "\"max_tokens\":");
    struct answer none = ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->admin_key,
                             S("{\"tokens\":100}"));
    assert_int_equal(none.status, 200);
    seen[0] = 0;
    answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 402);
    assert_string_equal(seen, ""); /* nothing was sent */
}
static void test_a_budget_lowers_the_output_limit_or_refuses_before_sending(void **state)
{
    (void) state;
    run(limited);
}

static void failures(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "busy", "");
    assert_int_equal(answer.status, 429);
    assert_true(str_equal(answer_header(&answer, S("Retry-After")), S("3")));
    expect(answer.body, "slow down");
    assert_true(str_find(answer.body, S("sk-abcdefgh")) == STR_NOT_FOUND);
    assert_int_equal(chat(ctx, kit, "bad", "").status, 400);
    assert_int_equal(spent_tokens(ctx, kit), 0);
    assert_int_equal(chat(ctx, kit, "garbage", "").status, 502);
    answer = chat(ctx, kit, "busy-then-whole", "");
    assert_int_equal(answer.status, 200);
    expect(answer.body, "\"content\":\"Hi\"");
    assert_int_equal(chat(ctx, kit, "inband", ",\"stream\":true").status, 503);
    answer = chat(ctx, kit, "inband-then-stream", ",\"stream\":true");
    assert_int_equal(answer.status, 200);
    expect(answer.body, "\"content\":\"Hel\"");
}
static void test_an_upstream_failure_keeps_its_class_or_the_next_target_answers(void **state)
{
    (void) state;
    run(failures);
}

static void streams(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "stream", ",\"stream\":true");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer.body,
                          S(CHUNK_ONE CHUNK_TWO "data: [DONE]\n\n"))); /* nobody asked for usage */
    assert_non_null(strstr(seen, "\"stream_options\":{\"include_usage\":true}"));
    assert_int_equal(spent_tokens(ctx, kit), 9);
    answer =
        chat(ctx, kit, "stream", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    assert_true(str_equal(answer.body, S(CHUNK_ONE CHUNK_TWO CHUNK_USAGE "data: [DONE]\n\n")));
}
static void test_a_stream_comes_through_chunk_by_chunk_and_is_settled_by_its_usage(void **state)
{
    (void) state;
    run(streams);
}

static void cut(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_exchange *exchange = ask_stream(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                                                S("{\"model\":\"cut\",\"stream\":true,\"messages\":"
                                                  "[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    str text = read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    expect(text, "\"content\":\"Hel\"");
    expect(text, "{\"error\":{");
    assert_true(str_find(text, S("[DONE]")) == STR_NOT_FOUND);
    assert_true(spent_tokens(ctx, kit) > 0);
}
static void test_a_cut_stream_says_so_and_never_ends_cleanly(void **state)
{
    (void) state;
    run(cut);
}

static void leaves(struct context *ctx, struct gateway_testkit *kit)
{
    atomic_store(&saw_disconnect, false);
    struct http_exchange *exchange =
        ask_stream(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                   S("{\"model\":\"slow\",\"stream\":true,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"hi\"}]}"));
    read_until(ctx, exchange, STR_NONE, S("Hel"));
    http_exchange_close(exchange);
    for (int i = 0; i < 450 && !atomic_load(&saw_disconnect); i++)
        assert_true(context_sleep_ms(ctx, 10, NULL));
    assert_true(atomic_load(&saw_disconnect));
    assert_true(context_sleep_ms(ctx, 50, NULL));
    int64_t spent = spent_tokens(ctx, kit);
    assert_true(spent > 0 &&
                spent < 1000); /* an estimate, not the reservation of 500 and the input's bound */
}
static void test_a_client_that_leaves_ends_the_upstream_call(void **state)
{
    (void) state;
    run(leaves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_go_through_unchanged_but_for_the_model),
        cmocka_unit_test(test_a_budget_lowers_the_output_limit_or_refuses_before_sending),
        cmocka_unit_test(test_an_upstream_failure_keeps_its_class_or_the_next_target_answers),
        cmocka_unit_test(test_a_stream_comes_through_chunk_by_chunk_and_is_settled_by_its_usage),
        cmocka_unit_test(test_a_cut_stream_says_so_and_never_ends_cleanly),
        cmocka_unit_test(test_a_client_that_leaves_ends_the_upstream_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
