/* Every dialect in front of every upstream, and agents behind all of them. */
#include "gateway/call/call_testkit.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char question[] = ",\"max_tokens\":50,\"stream\":true";

static void messages(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    str text = stream_all(ctx, kit, MESSAGES, body_of(ctx, "stream", question), &is_clean);
    assert_true(is_clean);
    expect(text, "event: message_start\n");
    expect(text, "\"text\":\"Hel\"");
    expect(text, "event: message_stop\n");
    struct answer answer = ask(ctx, kit, HTTP_POST, MESSAGES, kit->user_key,
                               body_of(ctx, "whole", ",\"max_tokens\":50"));
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer_text(&answer, S("type")), S("message")));
    assert_true(str_equal(answer_header(&answer, S("request-id")),
                          answer_header(&answer, S("X-Request-Id"))));
    answer = ask(ctx, kit, HTTP_POST, MESSAGES, kit->user_key,
                 body_of(ctx, "broken", ",\"max_tokens\":50"));
    assert_int_equal(answer.status, 503);
    assert_true(str_equal(answer_text(&answer, S("type")), S("error")));
    text = stream_all(ctx, kit, MESSAGES, body_of(ctx, "cut", question), &is_clean);
    assert_false(is_clean);
    expect(text, "event: error\n");
    text =
        stream_all(ctx, kit, MESSAGES, body_of(ctx, "role-cut-then-stream", question), &is_clean);
    assert_true(is_clean);
    expect(text, "event: message_stop\n");
    answer = ask(ctx, kit, HTTP_POST, S("/v1/messages/count_tokens"), kit->user_key,
                 body_of(ctx, "whole", ""));
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer_header(&answer, S("Nexus-Estimate")), S("true")));
    assert_true(json_i64_or(answer.json, S("input_tokens"), 0) > 0);
    assert_true(spent_tokens(ctx, kit) > 0);
}
static void test_messages_are_served_by_a_chat_upstream(void **state)
{
    (void) state;
    call_testkit_run(messages);
}

static void like_to_like(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    struct http_header beta = {S("anthropic-beta"), S("thing-2026")};
    str text = stream_all(ctx, kit, MESSAGES, body_of(ctx, "claude", question), &is_clean);
    assert_true(is_clean && str_equal(text, S(MESSAGE_START MESSAGE_REST)));
    assert_int_equal(atomic_load(&request_count),
                     2); /* the first one was cut behind its beginning */
    int64_t before = spent_tokens(ctx, kit);
    assert_true(before > 0);
    struct answer answer = ask_with(ctx, kit, HTTP_POST, S("/v1/messages/count_tokens"),
                                    kit->user_key, body_of(ctx, "claude-count", ""), &beta, 1);
    assert_int_equal(answer.status, 200);
    assert_int_equal(json_i64_or(answer.json, S("input_tokens"), 0), 17);
    assert_true(str_is_empty(answer_header(&answer, S("Nexus-Estimate"))));
    expect(str_from_cstr(seen_head), "POST /v1/messages/count_tokens ");
    expect(str_from_cstr(seen_head), "anthropic-beta: thing-2026");
    assert_int_equal(spent_tokens(ctx, kit), before);
    /* and the other way round: a chat client of the same upstream */
    text = stream_all(ctx, kit, CHAT, body_of(ctx, "claude", ",\"stream\":true"), &is_clean);
    assert_true(is_clean);
    expect(text, "\"content\":\"Hi\"");
    assert_true(str_ends_with(text, S("data: [DONE]\n\n")));
}
static void test_messages_go_through_unchanged_to_who_speaks_them(void **state)
{
    (void) state;
    call_testkit_run(like_to_like);
}

static void responses(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    str text = stream_all(ctx, kit, RESPONSES,
                          S("{\"model\":\"stream\",\"stream\":true,\"input\":\"hi\"}"), &is_clean);
    assert_true(is_clean);
    expect(text, "event: response.created\n");
    expect(text, "event: response.completed\n");
    expect(text, "\"text\":\"Hello\"");
    struct answer answer = ask(ctx, kit, HTTP_POST, RESPONSES, kit->user_key,
                               S("{\"model\":\"whole\",\"input\":\"hi\"}"));
    assert_int_equal(answer.status, 200);
    str id = answer_text(&answer, S("id"));
    assert_true(str_starts_with(id, S("resp_")));
    answer = ask(ctx, kit, HTTP_POST, RESPONSES, kit->user_key,
                 str_printf(ctx->arena,
                            "{\"model\":\"whole\",\"input\":\"and?\",\"previous_response_id\":"
                            "\"" STR_FMT "\"}",
                            STR_ARG(id)));
    assert_int_equal(answer.status, 200);
    expect(str_from_cstr(seen), "\"content\":\"Hi\""); /* the answer before is part of it now */
    expect(str_from_cstr(seen), "and?");
    text = stream_all(ctx, kit, RESPONSES,
                      S("{\"model\":\"cut\",\"stream\":true,\"input\":\"hi\"}"), &is_clean);
    assert_false(is_clean);
    assert_true(str_find(text, S("response.completed")) == STR_NOT_FOUND);
    answer = ask(ctx, kit, HTTP_POST, RESPONSES, kit->user_key,
                 S("{\"model\":\"broken\",\"input\":\"hi\"}"));
    assert_int_equal(answer.status, 503);
    expect(answer.body, "{\"error\":{");
}
static void test_responses_are_served_by_a_chat_upstream_and_remembered(void **state)
{
    (void) state;
    call_testkit_run(responses);
}

/* ---- agents: the fake provider of the orchestrator's testkit ---- */

static const struct {
    const char *path, *whole, *stream, *in_whole, *in_stream, *in_end;
} forms[] = {
    {"/v1/chat/completions",
     "{\"model\":\"agent:assistant\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
     "{\"model\":\"agent:assistant\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
     "\"hi\"}]}",
     "\"object\":\"chat.completion\"", "\"content\":\"hello there\"", "data: [DONE]\n\n"},
    {"/v1/responses", "{\"model\":\"agent:assistant\",\"input\":\"hi\"}",
     "{\"model\":\"agent:assistant\",\"stream\":true,\"input\":\"hi\"}", "\"object\":\"response\"",
     "\"delta\":\"hello there\"", "event: response.completed\n"},
    {"/v1/messages",
     "{\"model\":\"agent:assistant\",\"max_tokens\":50,\"messages\":[{\"role\":\"user\","
     "\"content\":\"hi\"}]}",
     "{\"model\":\"agent:assistant\",\"max_tokens\":50,\"stream\":true,\"messages\":[{\"role\":"
     "\"user\",\"content\":\"hi\"}]}",
     "\"type\":\"message\"", "\"text\":\"hello there\"", "event: message_stop\n"},
};

static void says_hello(struct gateway_testkit *kit)
{
    testkit_reply(
        kit->base,
        (struct fake_reply){.text = "hello there",
                            .usage = {.input_tokens = 4, .output_tokens = 2, .is_reported = true}});
}

static void agents(struct context *ctx, struct gateway_testkit *kit)
{
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        bool is_clean;
        str path = str_from_cstr(forms[i].path);
        says_hello(kit);
        struct answer answer =
            ask(ctx, kit, HTTP_POST, path, kit->user_key, str_from_cstr(forms[i].whole));
        if (answer.status != 200)
            fail_msg("%s: %d " STR_FMT, forms[i].path, answer.status, STR_ARG(answer.body));
        expect(answer.body, forms[i].in_whole);
        expect(answer.body, "hello there");
        assert_true(str_equal(answer_header(&answer, S("Nexus-Status")), S("completed")));
        assert_false(str_is_empty(answer_header(&answer, S("Nexus-Run-Id"))));
        says_hello(kit);
        str text = stream_all(ctx, kit, path, str_from_cstr(forms[i].stream), &is_clean);
        assert_true(is_clean);
        expect(text, forms[i].in_stream);
        expect(text, forms[i].in_end);
        testkit_reply(kit->base, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
        answer = ask(ctx, kit, HTTP_POST, path, kit->user_key, str_from_cstr(forms[i].whole));
        assert_int_equal(answer.status, 200);
        assert_true(str_equal(answer_header(&answer, S("Nexus-Status")), S("waiting")));
        expect(answer.body, "/api/v1/approvals/");
        testkit_reply(kit->base, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
        answer = ask(ctx, kit, HTTP_POST, path, kit->user_key, str_from_cstr(forms[i].stream));
        assert_int_equal(answer.status, 400);
        expect(answer.body, "\"error\":{");
    }
}
static void test_an_agent_answers_in_every_dialect(void **state)
{
    (void) state;
    gateway_testkit_run(agents);
}

/* ---- errors and models, each in its dialect ---- */

static void errors(struct context *ctx, struct gateway_testkit *kit)
{
    static const char *const paths[] = {"/v1/chat/completions", "/v1/responses", "/v1/messages"};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        str path = str_from_cstr(paths[i]);
        struct answer answer =
            ask(ctx, kit, HTTP_POST, path, kit->user_key,
                S("{\"model\":\"nobody\",\"max_tokens\":5,\"input\":\"hi\",\"messages\":[{\"role\":"
                  "\"user\",\"content\":\"hi\"}]}"));
        assert_int_equal(answer.status, 404);
        expect(answer.body, "\"error\":{");
        answer = ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"model\":1}"));
        assert_int_equal(answer.status, 400);
        answer = ask(ctx, kit, HTTP_POST, path, S("nxk_wrong"), S("{}"));
        assert_int_equal(answer.status, 401);
        bool is_anthropic = str_equal(path, S("/v1/messages"));
        assert_int_equal(str_find(answer.body, S("\"type\":\"error\"")) != STR_NOT_FOUND,
                         is_anthropic);
        struct http_header bare = {S("x-api-key"), kit->user_key};
        answer = ask_with(ctx, kit, HTTP_POST, path, STR_NONE, S("{\"model\":1}"), &bare, 1);
        assert_int_equal(answer.status, 400); /* known */
    }
    struct http_header version = {S("anthropic-version"), S("2023-06-01")};
    struct answer models =
        ask_with(ctx, kit, HTTP_GET, S("/v1/models"), kit->user_key, STR_NONE, &version, 1);
    expect(models.body, "\"display_name\":");
    expect(models.body, "\"has_more\":false");
    models = ask(ctx, kit, HTTP_GET, S("/v1/models"), kit->user_key, STR_NONE);
    expect(models.body, "\"object\":\"list\"");
}
static void test_errors_and_models_have_the_dialects_form(void **state)
{
    (void) state;
    gateway_testkit_run(errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_are_served_by_a_chat_upstream),
        cmocka_unit_test(test_messages_go_through_unchanged_to_who_speaks_them),
        cmocka_unit_test(test_responses_are_served_by_a_chat_upstream_and_remembered),
        cmocka_unit_test(test_an_agent_answers_in_every_dialect),
        cmocka_unit_test(test_errors_and_models_have_the_dialects_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
