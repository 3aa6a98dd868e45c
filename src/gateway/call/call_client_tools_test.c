/* A client's own tools at an agent: ordinary tool calls in every dialect, whose results resume the same run. */
#include "gateway/call/call_client_tools.h"
#include "gateway/call/call_testkit.h"

#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct dialect_form {
    const char *path;
    const char *tools; /* a member */
    const char *question;
    const char *in_calls, *in_stream; /* what tells that the answer asks for tools */
    const char *result;               /* a conversation with the result of call @ */
    const char *stream;               /* a member */
} forms[] = {
    {"/v1/chat/completions",
     "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"open_door\",\"parameters\":{"
     "\"type\":\"object\"}}}]",
     "\"messages\":[{\"role\":\"user\",\"content\":\"open\"}]", "\"finish_reason\":\"tool_calls\"",
     "\"finish_reason\":\"tool_calls\"",
     "\"messages\":[{\"role\":\"user\",\"content\":\"open\"},{\"role\":\"assistant\",\"content\":"
     "null,\"tool_calls\":[{\"id\":\"@\",\"type\":\"function\",\"function\":{\"name\":"
     "\"open_door\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"@\",\"content\":"
     "\"it is open\"}]",
     "\"stream\":true,"},
    {"/v1/responses",
     "\"tools\":[{\"type\":\"function\",\"name\":\"open_door\",\"parameters\":{\"type\":"
     "\"object\"}}]",
     "\"input\":\"open\"", "\"type\":\"function_call\"",
     "event: response.function_call_arguments.done",
     "\"input\":[{\"role\":\"user\",\"content\":\"open\"},{\"type\":\"function_call\",\"call_id\":"
     "\"@\",\"name\":\"open_door\",\"arguments\":\"{}\"},{\"type\":"
     "\"function_call_output\",\"call_id\":\"@\",\"output\":\"it is open\"}]",
     "\"stream\":true,"},
    {"/v1/messages",
     "\"max_tokens\":50,\"tools\":[{\"name\":\"open_door\",\"input_schema\":{\"type\":"
     "\"object\"}}]",
     "\"messages\":[{\"role\":\"user\",\"content\":\"open\"}]", "\"stop_reason\":\"tool_use\"",
     "\"stop_reason\":\"tool_use\"",
     "\"messages\":[{\"role\":\"user\",\"content\":\"open\"},{\"role\":\"assistant\",\"content\":[{"
     "\"type\":\"tool_use\",\"id\":\"@\",\"name\":\"open_door\",\"input\":{}}]},{"
     "\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"@\",\"content\":"
     "\"it is open\"}]}]",
     "\"stream\":true,"},
};

static str body(struct context *ctx, const struct dialect_form *form, const char *more,
                str conversation)
{
    return str_printf(ctx->arena, "{\"model\":\"agent:assistant\",%s%s," STR_FMT "}", more,
                      form->tools, STR_ARG(conversation));
}

static str id_in(str text)
{
    size_t at = str_find(text, S("call_0"));
    assert_true(at != STR_NOT_FOUND);
    str id = str_slice(text, at, at + 37);
    uuid parsed;
    assert_true(client_call_id_parse(id, &parsed));
    return id;
}

static str with_result(struct context *ctx, const struct dialect_form *form, str id)
{
    struct strbuf out;
    str rest = str_from_cstr(form->result), piece;
    strbuf_init(&out, ctx->arena, 8192);
    while (str_next(&rest, '@', &piece)) {
        strbuf_add(&out, piece);
        if (!str_is_empty(rest))
            strbuf_add(&out, id);
    }
    return strbuf_str(&out);
}

static void ask_for_door(struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "I look.",
                                                 .calls = {{"open_door", "{\"door\":\"blue\"}"}},
                                                 .call_count = 1});
    testkit_reply(kit->base, (struct fake_reply){.text = "all done"});
}

static void whole(struct context *ctx, struct gateway_testkit *kit)
{
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        const struct dialect_form *form = &forms[i];
        str path = str_from_cstr(form->path);
        ask_for_door(kit);
        struct answer answer = ask(ctx, kit, HTTP_POST, path, kit->user_key,
                                   body(ctx, form, "", str_from_cstr(form->question)));
        assert_int_equal(answer.status, 200);
        expect(answer.body, form->in_calls);
        expect(answer.body, "open_door");
        expect(answer.body, "blue");
        expect(answer.body, "I look.");
        assert_true(str_equal(answer_header(&answer, S("Nexus-Status")), S("tool_calls")));
        str run = str_copy(ctx->arena, answer_header(&answer, S("Nexus-Run-Id")));
        str id = id_in(answer.body), next = body(ctx, form, "", with_result(ctx, form, id));
        /* nobody else's result counts */
        struct answer other = ask(ctx, kit, HTTP_POST, path, kit->other_key, next);
        assert_int_equal(other.status, 404);
        answer = ask(ctx, kit, HTTP_POST, path, kit->user_key, next);
        assert_int_equal(answer.status, 200);
        expect(answer.body, "all done");
        assert_true(str_equal(answer_header(&answer, S("Nexus-Run-Id")), run));
        assert_true(str_equal(kit->base->prompt_last_result, S("it is open")));
        answer = ask(ctx, kit, HTTP_POST, path, kit->user_key, next);
        assert_int_equal(answer.status, 409); /* once */
    }
}
static void test_tool_calls_come_back_and_their_results_resume_the_same_run(void **state)
{
    (void) state;
    gateway_testkit_run(whole);
}

static void streamed(struct context *ctx, struct gateway_testkit *kit)
{
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        const struct dialect_form *form = &forms[i];
        bool is_clean;
        ask_for_door(kit);
        str text =
            stream_all(ctx, kit, str_from_cstr(form->path),
                       body(ctx, form, form->stream, str_from_cstr(form->question)), &is_clean);
        assert_true(is_clean);
        expect(text, form->in_stream);
        expect(text, "I look.");
        str next = body(ctx, form, form->stream, with_result(ctx, form, id_in(text)));
        text = stream_all(ctx, kit, str_from_cstr(form->path), next, &is_clean);
        assert_true(is_clean);
        expect(text, "all "); /* a word at a time: addresses are looked at whole */
        expect(text, "done");
        assert_true(str_find(text, S("I look.")) == STR_NOT_FOUND); /* only what is new */
    }
}
static void test_the_same_streamed(void **state)
{
    (void) state;
    gateway_testkit_run(streamed);
}

static void refused(struct context *ctx, struct gateway_testkit *kit)
{
    const struct dialect_form *form = &forms[0];
    struct answer answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                               body(ctx, form, "", with_result(ctx, form, S("call_of_someone"))));
    assert_int_equal(answer.status, 400);
    expect(answer.body, "call_of_someone");
    answer = ask(
        ctx, kit, HTTP_POST, CHAT, kit->user_key,
        body(ctx, form, "", with_result(ctx, form, S("call_01a207902fde70fa869fe5f89bf06ff9"))));
    assert_int_equal(answer.status, 404);
}
static void test_results_of_calls_that_nobody_made_are_refused(void **state)
{
    (void) state;
    gateway_testkit_run(refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_calls_come_back_and_their_results_resume_the_same_run),
        cmocka_unit_test(test_the_same_streamed),
        cmocka_unit_test(test_results_of_calls_that_nobody_made_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
