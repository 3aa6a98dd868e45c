/* Chat Completions as a dialect: what governance reads, the quick look at streams, the writer, the filter's texts. */
#include "llm/dialect.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct dialect *const chat = &openai_chat_dialect;

static const struct json *parsed(struct arena *arena, const char *text)
{
    const struct json *tree;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, &e))
        fail_msg("%s: %s", text, e.message);
    return tree;
}

static void test_governance_reads_what_it_needs(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct dialect_request out;
    struct error e = {0};
    assert_true(chat->read(
        arena,
        parsed(arena,
               "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
               "\"max_tokens\":9,\"max_completion_tokens\":7,\"n\":2,\"user\":\"u\",\"tools\":[{}],"
               "\"response_format\":{\"type\":\"json_schema\"},\"messages\":[{\"role\":\"user\","
               "\"content\":[{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"data:image/png;base64,AAAA\"}}]}]}"),
        &out, &e));
    assert_true(str_equal(out.model, S("m")) && str_equal(out.user, S("u")));
    assert_true(out.is_stream && out.wants_usage && out.has_tools && out.has_images &&
                out.wants_json);
    assert_int_equal(out.max_output_tokens, 7);
    assert_int_equal(out.choices, 2);
    assert_true(out.input_tokens_bound > PROMPT_TOKENS_PER_IMAGE);
    static const char *const wrong[] = {
        "[]",
        "{}",
        "{\"model\":\"m\"}",
        "{\"model\":\"m\",\"messages\":{}}",
        "{\"model\":\"m\",\"messages\":[]}",
        "{\"model\":\"m\",\"messages\":[{}],\"max_tokens\":0}",
        "{\"model\":\"m\",\"messages\":[{}],\"n\":129}",
        "{\"model\":\"m\",\"messages\":[{}],\"stream\":1}",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_false(chat->read(arena, parsed(arena, wrong[i]), &out, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
}

static int64_t bound_of(struct arena *arena, const char *content)
{
    struct dialect_request out;
    struct error e = {0};
    str body = str_printf(
        arena, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[%s]}]}", content);
    assert_true(chat->read(arena, parsed(arena, str_to_cstr(arena, body)), &out, &e));
    return out.input_tokens_bound;
}

/* Words that stand where an image's data would must not be cheaper than words. */
static void test_no_text_hides_behind_an_image(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    int64_t image = bound_of(
        arena,
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AAAAAAAA\"}}");
    int64_t more = bound_of(arena, "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
                                   "png;base64,AAAAAAAAAAAAAAAA\"}}");
    assert_int_equal(image, more);
    int64_t text =
        bound_of(arena, "{\"type\":\"image_url\",\"image_url\":{\"url\":\"words words words\"}}");
    int64_t longer = bound_of(
        arena,
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"words words words words words\"}}");
    assert_int_equal(longer - text, sizeof " words words" - 1);
    int64_t plain = bound_of(arena, "{\"type\":\"text\",\"image_url\":\"0123456789\"}");
    assert_true(plain < PROMPT_TOKENS_PER_IMAGE);
}

static enum glance_kind glance(struct glance_state *state, struct arena *arena, const char *data)
{
    enum glance_kind kind;
    struct error e = {0};
    if (!chat->glance(state, arena, STR_NONE, str_from_cstr(data), &kind, &e))
        fail_msg("%s: %s", data, e.message);
    return kind;
}

static void test_a_quick_look_tells_lifecycle_content_finish_usage_and_end(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct glance_state seen = {0};
    assert_int_equal(
        glance(&seen, arena,
               "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}"),
        GLANCE_LIFECYCLE);
    assert_int_equal(glance(&seen, arena, "{\"choices\":[],\"prompt_filter_results\":[]}"),
                     GLANCE_LIFECYCLE);
    assert_false(seen.has_content);
    assert_int_equal(
        glance(&seen, arena, "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}"),
        GLANCE_CONTENT);
    assert_true(seen.has_content);
    size_t before = arena_bytes(arena);
    for (int i = 0; i < 100; i++)
        assert_int_equal(glance(&seen, arena,
                                "{\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\": 1\"},"
                                "\"finish_reason\":null}],\"usage\":null}"),
                         GLANCE_CONTENT);
    assert_int_equal(arena_bytes(arena), before); /* nothing was parsed */
    assert_int_equal(
        glance(&seen, arena, "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}"),
        GLANCE_CONTENT);
    assert_int_equal(
        glance(&seen, arena, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}"),
        GLANCE_FINISH);
    assert_int_equal(seen.finish, FINISH_LENGTH);
    assert_int_equal(
        glance(&seen, arena,
               "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,"
               "\"prompt_tokens_details\":{\"cached_tokens\":2}}}"),
        GLANCE_USAGE);
    assert_int_equal(seen.usage.cached_tokens, 2);
    assert_int_equal(glance(&seen, arena, "[DONE]"), GLANCE_END);
    assert_true(seen.has_ended);
    assert_int_equal(glance_output_estimate(&seen), 466); /* 100 of 16 bytes, the shortest of 2 */
}

static void test_an_error_in_a_stream_keeps_its_class(void **state)
{
    (void) state;
    static const struct {
        const char *data;
        enum error_reason reason;
    } cases[] = {
        {"{\"error\":{\"message\":\"x\",\"code\":429}}", REASON_PROVIDER_RATE_LIMITED},
        {"{\"error\":{\"message\":\"x\",\"type\":\"overloaded_error\"}}",
         REASON_PROVIDER_OVERLOADED},
        {"{\"error\":\"x\"}", REASON_PROVIDER_PROTOCOL},
        {"<html>", REASON_PROVIDER_PROTOCOL},
        {"[1]", REASON_PROVIDER_PROTOCOL},
        {"{", REASON_PROVIDER_PROTOCOL},
        {"{\"choices\":[{\"delta\":{\"cont", REASON_PROVIDER_PROTOCOL},
    };
    for (size_t n = 0; n < 2 * ARRAY_COUNT(cases); n++) {
        OWNED(arena) arena = arena_create(0);
        size_t i = n / 2;
        struct glance_state seen = {.has_content = n % 2 == 1}; /* before content and behind it */
        enum glance_kind kind;
        struct error e = {0};
        assert_false(chat->glance(&seen, arena, STR_NONE, str_from_cstr(cases[i].data), &kind, &e));
        assert_int_equal(kind, GLANCE_ERROR);
        assert_int_equal(e.reason, cases[i].reason);
    }
}

static void test_chunks_of_joined_tokens_are_estimated_by_their_bytes(void **state)
{
    (void) state;
    struct glance_state seen = {
        .event_count = 10, .content_bytes = 10 * 40 + 300, .content_bytes_least = 40};
    assert_int_equal(glance_output_estimate(&seen), 100);
    seen.content_bytes = 400; /* long tokens, all the same */
    assert_int_equal(glance_output_estimate(&seen), 10);
    seen.content_bytes = 3000, seen.content_bytes_least = 300; /* no token is that long */
    assert_int_equal(glance_output_estimate(&seen), 1000);
    assert_int_equal(glance_output_estimate(&(struct glance_state){0}), 0);
    OWNED(arena) arena = arena_create(0);
    struct glance_state text = {0};
    glance(&text, arena, "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}");
    for (int i = 0; i < 9; i++) /* envelopes of any size do not count */
        glance(&text, arena, "{\"choices\":[{\"delta\":{\"content\": \"\\\"b\"}}],\"usage\":null}");
    assert_int_equal(glance_output_estimate(&text), 10);
}

static void test_deltas_become_chunks_that_end_with_done(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct strbuf out;
    struct dialect_answer answer = {
        .id = S("chatcmpl-1"), .model = S("m"), .created = 5, .wants_usage = true};
    void *writer = arena_alloc(arena, chat->writer_bytes);
    strbuf_init(&out, arena, 1 << 16);
    chat->writer_open(writer, &answer);
    chat->writer_delta(writer, &(struct delta){.kind = DELTA_TEXT, .text = S("Hi")}, &out);
    chat->writer_delta(writer,
                       &(struct delta){.kind = DELTA_END,
                                       .finish = FINISH_STOP,
                                       .usage = {.input_tokens = 1, .output_tokens = 2}},
                       &out);
    str text = strbuf_str(&out);
    assert_true(str_starts_with(text, S("data: {\"id\":\"chatcmpl-1\"")));
    assert_true(str_find(text, S("\"role\":\"assistant\",\"content\":\"Hi\"")) != STR_NOT_FOUND);
    assert_true(str_find(text, S("\"completion_tokens\":2")) != STR_NOT_FOUND);
    assert_true(str_ends_with(text, S("\n\ndata: [DONE]\n\n")));
    struct error e = {0};
    error_set(&e, REASON_PROVIDER_OVERLOADED, "busy");
    strbuf_init(&out, arena, 1 << 16);
    chat->writer_error(writer, &e, &out);
    assert_true(str_starts_with(strbuf_str(&out), S("data: {\"error\":{\"message\":\"busy\"")));
}

static void test_a_streamed_thought_ends_with_a_block_that_can_go_back_alone(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct dialect_answer answer = {.id = S("chatcmpl-1"), .model = S("m")};
    static const struct delta deltas[] = {
        {.kind = DELTA_REASONING, .text = S_INIT("first ")},
        {.kind = DELTA_REASONING, .text = S_INIT("thought")},
        {.kind = DELTA_REASONING, .opaque = S_INIT("{\"signature\":\"s1\"}")},
        {.kind = DELTA_REASONING,
         .opaque = S_INIT("{\"type\":\"redacted_thinking\",\"data\":\"d\"}")},
        {.kind = DELTA_REASONING, .text = S_INIT("unsigned"), .opaque = S_INIT("\"reasoning\"")},
        {.kind = DELTA_REASONING, .text = S_INIT("two")},
        {.kind = DELTA_REASONING, .text = S_INIT("!"), .opaque = S_INIT("{\"signature\":\"s2\"}")}};
    static const char *const blocks[] = {
        NULL,
        NULL,
        "{\"index\":0,\"type\":\"thinking\",\"thinking\":\"first thought\",\"signature\":\"s1\"}",
        "{\"index\":1,\"type\":\"redacted_thinking\",\"data\":\"d\"}",
        NULL,
        NULL,
        "{\"index\":2,\"type\":\"thinking\",\"thinking\":\"two!\",\"signature\":\"s2\"}"};
    void *writer = arena_alloc(arena, chat->writer_bytes);
    chat->writer_open(writer, &answer);
    for (size_t i = 0; i < ARRAY_COUNT(deltas); i++) {
        struct strbuf out;
        strbuf_init(&out, arena, 1 << 16);
        chat->writer_delta(writer, &deltas[i], &out);
        str expected = str_printf(arena, "\"thinking_blocks\":[%s]", blocks[i] ? blocks[i] : "");
        bool has_block = str_find(strbuf_str(&out), S("thinking_blocks")) != STR_NOT_FOUND;
        assert_int_equal(has_block, blocks[i] != NULL);
        assert_true(!has_block || str_find(strbuf_str(&out), expected) != STR_NOT_FOUND);
    }
    chat->writer_close(writer);
}

/* The SDK's stream helper leaves each block's place in its list. */
static void test_a_thought_put_together_from_a_stream_goes_back_as_it_was(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct prompt prompt;
    struct error e = {0};
    assert_true(chat->to_prompt(
        arena,
        parsed(arena, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":\"a\","
                      "\"thinking_blocks\":[{\"index\":0,\"type\":\"thinking\",\"thinking\":\"t\","
                      "\"signature\":\"s\"},{\"index\":1,\"type\":\"redacted_thinking\",\"data\":"
                      "\"d\"}]}]}"),
        &prompt, &e));
    const struct part *parts = prompt.messages[0].parts;
    assert_true(str_equal(parts[0].opaque, S("{\"signature\":\"s\"}")));
    assert_true(str_equal(parts[1].opaque, S("{\"type\":\"redacted_thinking\",\"data\":\"d\"}")));
}

static void test_the_filter_sees_every_text_with_its_channel(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct dialect_text texts[8];
    size_t count = chat->texts(
        DOCUMENT_REQUEST,
        parsed(arena,
               "{\"messages\":[{\"content\":\"a\"},{\"content\":[{\"type\":\"text\",\"text\":"
               "\"b\"}]},{\"tool_calls\":[{\"function\":{\"arguments\":\"{}\"}}]}]}"),
        texts, ARRAY_COUNT(texts));
    assert_int_equal(count, 3);
    assert_true(texts[2].is_json && texts[0].channel != texts[1].channel);
    count = chat->texts(DOCUMENT_EVENT,
                        parsed(arena, "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\","
                                      "\"reasoning\":\"b\",\"tool_calls\":[{\"index\":2,"
                                      "\"function\":{\"arguments\":\"c\"}}]}}]}"),
                        texts, 1);
    assert_int_equal(count, 3); /* more than fit: told */
}

static void test_the_filter_sees_texts_in_less_usual_places(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct dialect_text texts[16];
    assert_int_equal(
        chat->texts(
            DOCUMENT_REQUEST,
            parsed(arena, "{\"messages\":[{\"function_call\":{\"name\":\"f\",\"arguments\":\"a\"}},"
                          "{\"tool_calls\":[{\"custom\":{\"name\":\"f\",\"input\":\"b\"}}]}],"
                          "\"prediction\":{\"type\":\"content\",\"content\":\"c\"}}"),
            texts, ARRAY_COUNT(texts)),
        3);
    assert_int_equal(
        chat->texts(DOCUMENT_EVENT,
                    parsed(arena, "{\"choices\":[{\"index\":0,\"text\":\"a\",\"delta\":{"
                                  "\"function_call\":{\"arguments\":\"b\"},\"audio\":{"
                                  "\"transcript\":\"c\"},\"reasoning_details\":[{\"text\":\"d\","
                                  "\"summary\":\"e\"}]}}]}"),
                    texts, ARRAY_COUNT(texts)),
        5);
    assert_int_equal(chat->texts(DOCUMENT_REPLY,
                                 parsed(arena, "{\"choices\":[{\"index\":0,\"message\":{"
                                               "\"function_call\":{\"arguments\":\"a\"}}}]}"),
                                 texts, ARRAY_COUNT(texts)),
                     1);
    assert_true(texts[0].is_json);
}

static void test_ids_have_the_dialects_prefix(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    uuid id = {{0xab, 1, 2}};
    str text = dialect_answer_id(chat, arena, id);
    assert_true(str_equal(text, S("chatcmpl-ab010200000000000000000000000000")));
    for (int i = 0; i < DIALECT_COUNT; i++)
        assert_int_equal(dialect_of((enum dialect_id) i)->id, i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_governance_reads_what_it_needs),
        cmocka_unit_test(test_no_text_hides_behind_an_image),
        cmocka_unit_test(test_a_quick_look_tells_lifecycle_content_finish_usage_and_end),
        cmocka_unit_test(test_an_error_in_a_stream_keeps_its_class),
        cmocka_unit_test(test_chunks_of_joined_tokens_are_estimated_by_their_bytes),
        cmocka_unit_test(test_deltas_become_chunks_that_end_with_done),
        cmocka_unit_test(test_a_streamed_thought_ends_with_a_block_that_can_go_back_alone),
        cmocka_unit_test(test_a_thought_put_together_from_a_stream_goes_back_as_it_was),
        cmocka_unit_test(test_the_filter_sees_every_text_with_its_channel),
        cmocka_unit_test(test_the_filter_sees_texts_in_less_usual_places),
        cmocka_unit_test(test_ids_have_the_dialects_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
