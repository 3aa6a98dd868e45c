/*
 * With NEXUS_SAMPLES set to a folder, what is written here is kept there as files, for tests/anthropic_schema.py.
 */
#include "base/arena.h"
#include "llm/anthropic_format_internal.h"
#include "llm/openai_format.h"
#include "net/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *parse_str(str text)
{
    const struct json *tree = NULL;
    struct error e = {0};
    if (!json_parse(arena, text, (struct json_limits){0}, &tree, &e))
        fail_msg("%s in " STR_FMT, e.message, STR_ARG(text));
    return tree;
}

static const struct json *parse(const char *text)
{
    return parse_str(str_from_cstr(text));
}

static struct json_writer *writer(struct strbuf *text)
{
    struct json_writer *w = ARENA_NEW(arena, struct json_writer);
    strbuf_init(text, arena, 1u << 20);
    json_writer_init(w, text);
    return w;
}

static str finished(const struct strbuf *text, const char *sample)
{
    const char *folder = getenv("NEXUS_SAMPLES");
    if (folder && sample) {
        char path[512];
        snprintf(path, sizeof path, "%s/anthropic_%s.json", folder, sample);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(str_to_cstr(arena, strbuf_str(text)), file);
        fclose(file);
    }
    parse_str(strbuf_str(text));
    return strbuf_str(text);
}

static void assert_text(str got, const char *wanted)
{
    if (!str_equal(got, str_from_cstr(wanted)))
        fail_msg(STR_FMT "\ninstead of\n%s", STR_ARG(got), wanted);
}

static struct prompt read_request(const char *text)
{
    struct prompt prompt;
    bool is_stream;
    struct error e = {0};
    if (!anthropic_read_request(arena, parse(text), &prompt, &is_stream, &e))
        fail_msg("%s in %s", e.message, text);
    if (prompt.max_output_tokens == 0)
        prompt.max_output_tokens = 10;
    return prompt;
}

static str written(const struct prompt *prompt, const char *sample)
{
    struct strbuf text;
    anthropic_write_request(writer(&text), prompt, false);
    return finished(&text, sample);
}

/* ---- requests ---- */

#define ASK(rest) "{\"model\":\"m\",\"max_tokens\":10," rest "}"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

/* Members in the order of the writer, so that equal means equal. */
static const char *const same_again[] = {
    ASK(HELLO),
    ASK("\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":\"ephemeral\"}}]"
        "," HELLO),
    ASK("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":"
        "\"base64\","
        "\"media_type\":\"application/"
        "pdf\",\"data\":\"JVBERi0=\"},\"title\":\"t\"},{\"type\":\"text\",\"text\":\"q\","
        "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}]}]"),
    ASK("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":"
        "\"file\","
        "\"file_id\":\"file_1\"}},{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_"
        "type\":\"image/png\","
        "\"data\":\"iVBORw0KGgo=\"},\"cache_control\":{\"type\":\"ephemeral\"}}]}]"),
    ASK("\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":[{"
        "\"type\":"
        "\"thinking\",\"thinking\":\"t\\u0001\",\"signature\":\"EqQB+/"
        "=\"},{\"type\":\"redacted_thinking\",\"data\":"
        "\"Emw+/"
        "=\"},{\"type\":\"text\",\"text\":\"calling\"},{\"type\":\"tool_use\",\"id\":\"toolu_1\","
        "\"name\":\"f\","
        "\"input\":{\"a\":[1,\"x\"]},\"caller\":{\"type\":\"direct\"}}]},{\"role\":\"user\","
        "\"content\":[{\"type\":"
        "\"tool_result\",\"tool_use_id\":\"toolu_1\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"see\"},{\"type\":\"image\","
        "\"source\":{\"type\":\"url\",\"url\":\"https://x/"
        "y.png\"}}],\"is_error\":true},{\"type\":\"text\",\"text\":"
        "\"and?\"}]}],\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"},\"cache_"
        "control\":{\"type\":"
        "\"ephemeral\"},\"input_examples\":[{\"a\":[]}]}]"),
    ASK("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":"
        "\"t1\",\"content\":["
        "{\"type\":\"search_result\",\"source\":\"s\",\"title\":\"t\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"x\"}]},"
        "{\"type\":\"text\",\"text\":\"y\"}],\"cache_control\":{\"type\":\"ephemeral\"}}]}]"),
    ASK(HELLO ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":"
              "\"object\"},\"strict\":true},"
              "{\"type\":\"web_search_20250305\",\"name\":\"web_search\",\"max_uses\":2}],\"tool_"
              "choice\":{\"type\":"
              "\"any\",\"disable_parallel_tool_use\":true},\"temperature\":0.5,\"output_config\":{"
              "\"effort\":\"low\","
              "\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}},\"stop_"
              "sequences\":[\"x\"],"
              "\"top_p\":0.1,\"service_tier\":\"standard_only\",\"metadata\":{\"user_id\":\"u\"},"
              "\"thinking\":{\"type\":"
              "\"enabled\",\"budget_tokens\":1024},\"top_k\":5,\"container\":\"c1\""),
    ASK(HELLO ",\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],\"tool_"
              "choice\":{\"type\":\"tool\","
              "\"name\":\"f\"}"),
    ASK(HELLO ",\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],\"tool_"
              "choice\":{\"type\":\"none\"}"),
};

static void test_a_request_is_the_same_after_reading_and_writing(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(same_again); i++) {
        struct prompt prompt = read_request(same_again[i]);
        char sample[64];
        snprintf(sample, sizeof sample, "request_same_%zu", i);
        assert_text(written(&prompt, sample), same_again[i]);
    }
}

static void test_a_result_becomes_a_message_of_its_own_and_its_image_follows(void **state)
{
    (void) state;
    struct prompt prompt = read_request(same_again[4]);
    assert_int_equal(prompt.message_count, 4);
    assert_int_equal(prompt.messages[2].role, ROLE_TOOL);
    const struct part *result = &prompt.messages[2].parts[0];
    assert_true(result->is_error);
    assert_text(result->name, "f");
    assert_text(result->text, "see");
    assert_int_equal(prompt.messages[3].part_count, 2);
    assert_int_equal(prompt.messages[3].parts[0].kind, PART_IMAGE);
    assert_text(prompt.messages[3].parts[0].call_id, "toolu_1");
    struct strbuf text;
    openai_write_request(writer(&text), &prompt, false);
    const struct json *chat = parse_str(strbuf_str(&text));
    assert_text(json_print(arena, json_path(chat, S("/messages/2"))),
                "{\"role\":\"tool\",\"tool_call_id\":\"toolu_1\",\"content\":\"see\"}");
    assert_text(json_print(arena, json_path(chat, S("/messages/3/content/0/image_url"))),
                "{\"url\":\"https://x/y.png\"}");
}

static struct prompt read_chat(const char *text)
{
    struct prompt prompt;
    bool is_stream, include_usage;
    struct error e = {0};
    if (!openai_read_request(arena, parse(text), &prompt, &is_stream, &include_usage, &e))
        fail_msg("%s", e.message);
    if (prompt.max_output_tokens == 0)
        prompt.max_output_tokens = 10;
    return prompt;
}

static void test_chat_messages_become_turns(void **state)
{
    (void) state;
    struct prompt prompt = read_chat("{\"model\":\"m\",\"messages\":[{\"role\":\"system\","
                                     "\"content\":\"one\"},{\"role\":\"user\",\"content\":\"\"},"
                                     "{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
                                     "\"developer\",\"content\":\"two\"},{\"role\":\"assistant\","
                                     "\"content\":null,\"tool_calls\":[{\"id\":\"functions.f:0\","
                                     "\"type\":\"function\",\"function\":{\"name\":\"f\","
                                     "\"arguments\":\"{broken\"}},{\"id\":\"ok-1\",\"type\":"
                                     "\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
                                     "\"\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"functions.f:"
                                     "0\",\"content\":\"\"},{\"role\":\"tool\","
                                     "\"tool_call_id\":\"ok-1\",\"content\":\"fine\"},{\"role\":"
                                     "\"user\",\"content\":\"b\"}],\"stop\":\"END\","
                                     "\"response_format\":{\"type\":\"json_object\"},\"seed\":7,"
                                     "\"reasoning_effort\":\"minimal\"}");
    const struct json *body = parse_str(written(&prompt, "request_turns"));
    assert_text(json_print(arena, json_get(body, S("system"))),
                "[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\"},{"
                "\"type\":\"text\",\"text\":"
                "\"Answer with one valid JSON object and nothing else.\"}]");
    assert_int_equal(json_count(json_get(body, S("messages"))), 3);
    assert_text(json_str_or(json_path(body, S("/messages/0")), S("content"), STR_NONE), "a");
    const struct json *calls = json_path(body, S("/messages/1/content"));
    const struct json *turn = json_path(body, S("/messages/2/content"));
    str made = json_str_or(json_at(calls, 0), S("id"), STR_NONE);
    assert_true(str_starts_with(made, S("toolu_")));
    assert_true(str_equal(made, json_str_or(json_at(turn, 0), S("tool_use_id"), STR_NONE)));
    assert_text(json_print(arena, json_get(json_at(calls, 0), S("input"))),
                "{\"arguments\":\"{broken\"}");
    assert_text(json_print(arena, json_get(json_at(calls, 1), S("input"))), "{}");
    assert_null(json_get(json_at(turn, 0), S("content")));
    assert_text(json_print(arena, json_at(turn, 1)),
                "{\"type\":\"tool_result\",\"tool_use_id\":\"ok-1\",\"content\":\"fine\"}");
    assert_text(json_print(arena, json_at(turn, 2)), "{\"type\":\"text\",\"text\":\"b\"}");
    assert_text(json_print(arena, json_get(body, S("stop_sequences"))), "[\"END\"]");
    assert_text(json_print(arena, json_get(body, S("output_config"))), "{\"effort\":\"low\"}");
    assert_null(json_get(body, S("seed")));
    assert_null(json_get(body, S("anthropic")));
}

static void test_thoughts_come_back_through_chat_with_their_signatures(void **state)
{
    (void) state;
    struct reply reply;
    struct error e = {0};
    struct strbuf text;
    struct openai_answer answer = {.id = S("i"), .model = S("m"), .created = 1};
    assert_true(
        anthropic_read_reply(arena,
                             parse("{\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
                                   "\"signature\":\"EqQB+/=\"},{\"type\":"
                                   "\"redacted_thinking\",\"data\":\"Emw=\"},{\"type\":\"tool_"
                                   "use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}],"
                                   "\"stop_reason\":\"tool_use\"}"),
                             &reply, &e));
    openai_write_reply(writer(&text), &answer, &reply);
    const struct json *message = json_path(parse_str(strbuf_str(&text)), S("/choices/0/message"));
    assert_text(json_str_or(message, S("reasoning_content"), STR_NONE), "hm");
    struct prompt prompt = read_chat(str_to_cstr(
        arena,
        str_printf(arena,
                   "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}," STR_FMT
                   "]}",
                   STR_ARG(json_print(arena, message)))));
    const struct json *body = parse_str(written(&prompt, "request_thoughts"));
    assert_text(
        json_print(arena, json_path(body, S("/messages/1/content"))),
        "[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"EqQB+/"
        "=\"},{\"type\":\"redacted_thinking\","
        "\"data\":\"Emw=\"},{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}]");
}

static void test_what_chat_cannot_say_is_refused(void **state)
{
    (void) state;
    struct error e = {0};
    struct prompt prompt = read_request(same_again[3]);
    assert_false(openai_check_prompt(arena, &prompt, &e));
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
    prompt = read_request(same_again[6]);
    assert_false(openai_check_prompt(arena, &prompt, &e));
    prompt = read_request(same_again[5]);
    assert_true(openai_check_prompt(arena, &prompt, &e)); /* its text goes */
    prompt = read_request(ASK(
        "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":"
        "\"text\",\"media_type\":\"text/plain\",\"data\":\"words\"}}]}]"));
    assert_true(openai_check_prompt(arena, &prompt, &e));
    assert_text(prompt.messages[0].parts[0].text, "words");
    static const char *const unsaid[] = {
        "{\"n\":2}", "{\"logprobs\":true}", "{\"logit_bias\":{\"1\":2}}",
        "{\"modalities\":[\"text\",\"audio\"]}", "{\"web_search_options\":{}}"};
    for (size_t i = 0; i < ARRAY_COUNT(unsaid); i++) {
        prompt.extra = parse(unsaid[i]);
        assert_false(anthropic_check_prompt(&prompt, &e));
        assert_int_equal(e.reason, REASON_UNSUPPORTED);
    }
    prompt.extra = parse("{\"n\":1,\"logprobs\":false,\"seed\":1}");
    assert_true(anthropic_check_prompt(&prompt, &e));
    bool is_stream;
    assert_false(anthropic_read_request(
        arena, parse(ASK("\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"thread\":{}")),
        &prompt, &is_stream, &e));
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
}

static void test_a_pdf_goes_both_ways(void **state)
{
    (void) state;
    struct prompt prompt = read_request(same_again[2]);
    struct error e = {0};
    struct strbuf text;
    assert_true(openai_check_prompt(arena, &prompt, &e));
    openai_write_request(writer(&text), &prompt, false);
    const struct json *content = json_path(parse_str(strbuf_str(&text)), S("/messages/0/content"));
    assert_text(json_print(arena, content),
                "[{\"type\":\"file\",\"file\":{\"filename\":\"t\",\"file_data\":\"data:application/"
                "pdf;base64,JVBERi0=\"}},"
                "{\"type\":\"text\",\"text\":\"q\"}]");
    prompt = read_chat(str_to_cstr(arena, strbuf_str(&text)));
    const struct json *body = parse_str(written(&prompt, "request_pdf"));
    assert_text(json_print(arena, json_path(body, S("/messages/0/content/0"))),
                "{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":"
                "\"application/pdf\",\"data\":"
                "\"JVBERi0=\"},\"title\":\"t\"}");
}

static void assert_refused(const char *text, const char *message)
{
    struct prompt prompt;
    bool is_stream;
    struct error e = {0};
    assert_false(anthropic_read_request(arena, parse(text), &prompt, &is_stream, &e));
    if (!strstr(e.message, message))
        fail_msg("'%s' is not in '%s'", message, e.message);
    assert_int_equal(e.reason, REASON_SCHEMA);
}

#define BLOCKS(blocks) ASK("\"messages\":[{\"role\":\"user\",\"content\":[" blocks "]}]")

static void test_wrong_requests_are_refused_by_the_name_of_the_member(void **state)
{
    (void) state;
    assert_refused("[]", "JSON object");
    assert_refused("{\"messages\":[]}", "model");
    assert_refused(ASK("\"messages\":[]"), "messages must not be empty");
    assert_refused(ASK("\"messages\":7"), "messages must be a list");
    assert_refused(ASK("\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]"), "messages[0].role");
    assert_refused(ASK("\"messages\":[{\"role\":\"user\"}]"), "messages[0].content");
    assert_refused(ASK("\"system\":7," HELLO), "system");
    assert_refused(BLOCKS("7"), "messages[0].content[0].type");
    assert_refused(BLOCKS("{\"type\":\"text\"}"), "messages[0].content[0].text");
    assert_refused(BLOCKS("{\"type\":\"image\",\"source\":{\"type\":\"x\"}}"), "source.type");
    assert_refused(BLOCKS("{\"type\":\"image\",\"source\":{\"type\":\"base64\"}}"), "media_type");
    assert_refused(BLOCKS("{\"type\":\"image\",\"source\":{\"type\":\"url\"}}"), "source.url");
    assert_refused(BLOCKS("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"b\"}"), "input");
    assert_refused(BLOCKS("{\"type\":\"tool_use\",\"id\":\"a\",\"input\":{}}"), "name");
    assert_refused(BLOCKS("{\"type\":\"tool_use\",\"input\":{}}"), "id");
    assert_refused(BLOCKS("{\"type\":\"thinking\"}"), "thinking");
    assert_refused(BLOCKS("{\"type\":\"tool_result\"}"), "tool_use_id");
    assert_refused(BLOCKS("{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":7}"),
                   "content");
    assert_refused("{\"model\":\"m\",\"max_tokens\":0," HELLO "}", "max_tokens");
    assert_refused(ASK(HELLO ",\"temperature\":1.5"), "temperature");
    assert_refused(ASK(HELLO ",\"stream\":1"), "stream");
    assert_refused(ASK(HELLO ",\"metadata\":1"), "metadata");
    assert_refused(ASK(HELLO ",\"output_config\":1"), "output_config");
    assert_refused(ASK(HELLO ",\"output_config\":{\"format\":{\"type\":\"x\"}}"), "format");
    assert_refused(ASK(HELLO ",\"tools\":{}"), "tools");
    assert_refused(ASK(HELLO ",\"tools\":[{\"name\":\"a b\"}]"), "tools[0].name");
    assert_refused(ASK(HELLO ",\"tools\":[{\"name\":\"a\"}]"), "tools[0].input_schema");
    assert_refused(ASK(HELLO ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"a\"}"), "tool_choice");
    assert_refused(ASK(HELLO ",\"tool_choice\":{\"type\":\"x\"}"), "tool_choice");
    read_request(ASK(
        HELLO
        ",\"tools\":null,\"tool_choice\":null,\"stream\":null,\"system\":null,\"metadata\":null"));
}

static void test_extra_cannot_smuggle_in_another_limit_or_model(void **state)
{
    (void) state;
    struct prompt prompt = read_request(ASK(HELLO));
    prompt.extra = parse("{\"model\":\"x\",\"max_tokens\":9,\"anthropic\":{\"model\":\"x\",\"max_"
                         "tokens\":9,\"stream\":"
                         "true,\"messages\":[],\"speed\":\"fast\"}}");
    assert_text(written(&prompt, "request_smuggled"), ASK(HELLO ",\"speed\":\"fast\""));
}

/* ---- answers ---- */

static void test_usage_counts_what_the_cache_read_and_wrote(void **state)
{
    (void) state;
    struct usage none = {0};
    struct usage usage =
        anthropic_read_usage(parse("{\"input_tokens\":3,\"output_tokens\":5,\"cache_read_input_"
                                   "tokens\":40,\"cache_creation_input_tokens\":7,"
                                   "\"output_tokens_details\":{\"thinking_tokens\":2}}"),
                             none);
    assert_int_equal(usage.input_tokens, 50);
    assert_int_equal(usage.cached_tokens, 40);
    assert_int_equal(usage.cache_write_tokens, 7);
    assert_int_equal(usage.reasoning_tokens, 2);
    struct strbuf text;
    anthropic_write_usage(writer(&text), &usage);
    assert_text(strbuf_str(&text), "{\"input_tokens\":3,\"cache_creation_input_tokens\":7,\"cache_"
                                   "read_input_tokens\":40,\"output_tokens\":5,"
                                   "\"output_tokens_details\":{\"thinking_tokens\":2}}");
    usage = anthropic_read_usage(parse("{\"output_tokens\":9}"), usage);
    assert_int_equal(usage.input_tokens, 50);
    assert_int_equal(usage.output_tokens, 9);
    assert_false(anthropic_read_usage(parse("{\"output_tokens\":9}"), none).is_reported);
    assert_false(
        anthropic_read_usage(parse("{\"input_tokens\":-1,\"output_tokens\":9}"), none).is_reported);
    assert_false(anthropic_read_usage(parse("{\"input_tokens\":1,\"output_tokens\":9e15}"), none)
                     .is_reported);
    assert_false(anthropic_read_usage(parse("null"), none).is_reported);
}

static void test_each_stop_reason_has_its_finish(void **state)
{
    (void) state;
    assert_int_equal(anthropic_read_finish(S("end_turn")), FINISH_STOP);
    assert_int_equal(anthropic_read_finish(S("stop_sequence")), FINISH_STOP);
    assert_int_equal(anthropic_read_finish(S("max_tokens")), FINISH_LENGTH);
    assert_int_equal(anthropic_read_finish(S("model_context_window_exceeded")), FINISH_LENGTH);
    assert_int_equal(anthropic_read_finish(S("tool_use")), FINISH_TOOL_CALLS);
    assert_int_equal(anthropic_read_finish(S("refusal")), FINISH_CONTENT_FILTER);
    assert_int_equal(anthropic_read_finish(S("pause_turn")), FINISH_OTHER);
    assert_int_equal(anthropic_read_finish(STR_NONE), FINISH_NONE);
}

static void assert_reply_fails(const char *text, enum error_reason reason)
{
    struct reply reply;
    struct error e = {0};
    assert_false(anthropic_read_reply(arena, parse(text), &reply, &e));
    if (e.reason != reason)
        fail_msg("%s gave %s", text, error_problem(e.reason));
}

static void test_what_is_no_answer_is_an_error_of_its_class(void **state)
{
    (void) state;
    assert_reply_fails("{}", REASON_PROVIDER_PROTOCOL);
    assert_reply_fails("{\"content\":[{\"type\":\"tool_use\"}]}", REASON_PROVIDER_PROTOCOL);
#define ERROR_OF(type) "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"m\"}}"
    assert_reply_fails(ERROR_OF("rate_limit_error"), REASON_PROVIDER_RATE_LIMITED);
    assert_reply_fails(ERROR_OF("overloaded_error"), REASON_PROVIDER_OVERLOADED);
    assert_reply_fails(ERROR_OF("api_error"), REASON_PROVIDER_OVERLOADED);
    assert_reply_fails(ERROR_OF("timeout_error"), REASON_PROVIDER_TIMEOUT);
    assert_reply_fails(ERROR_OF("billing_error"), REASON_PROVIDER_QUOTA);
    assert_reply_fails(ERROR_OF("authentication_error"), REASON_PROVIDER_AUTH);
    assert_reply_fails(ERROR_OF("permission_error"), REASON_PROVIDER_AUTH);
    assert_reply_fails(ERROR_OF("invalid_request_error"), REASON_PROVIDER_INVALID);
    assert_reply_fails(ERROR_OF("not_found_error"), REASON_PROVIDER_INVALID);
    assert_reply_fails(ERROR_OF("request_too_large"), REASON_PROVIDER_INVALID);
    struct reply reply;
    struct error e = {0};
    assert_true(anthropic_read_reply(arena,
                                     parse("{\"content\":[{\"type\":\"server_tool_use\",\"id\":"
                                           "\"s\"},{\"type\":\"text\",\"text\":\"\"}]}"),
                                     &reply, &e));
    assert_int_equal(reply.part_count, 0);
    assert_int_equal(reply.finish, FINISH_STOP);
}

static void test_our_errors_are_written_in_the_dialect(void **state)
{
    (void) state;
    static const struct {
        enum error_reason reason;
        const char *type;
    } words[] = {
        {REASON_SCHEMA, "invalid_request_error"},  {REASON_UNAUTHENTICATED, "authentication_error"},
        {REASON_BUDGET, "billing_error"},          {REASON_POLICY_DENIED, "permission_error"},
        {REASON_UNKNOWN_MODEL, "not_found_error"}, {REASON_TOO_LARGE, "request_too_large"},
        {REASON_RATE_LIMIT, "rate_limit_error"},   {REASON_TIMEOUT, "timeout_error"},
        {REASON_DRAINING, "overloaded_error"},     {REASON_INTERNAL, "api_error"},
        {REASON_PROVIDER_NETWORK, "api_error"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        struct error e = {0};
        struct strbuf text;
        char sample[32];
        error_set(&e, words[i].reason, "what went wrong");
        anthropic_write_error(writer(&text), &e, S("req_1"));
        snprintf(sample, sizeof sample, "error_%zu", i);
        bool is_typed =
            strcmp(words[i].type, "request_too_large") != 0; /* the types leave it out */
        assert_text(
            finished(&text, is_typed ? sample : NULL),
            str_to_cstr(
                arena,
                str_printf(arena,
                           "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"what "
                           "went wrong\"},\"request_id\":\"req_1\"}",
                           words[i].type)));
    }
}

/* ---- streams ---- */

/* The events in short: +0t -0 (a block begins, ends), 0:a (a piece), . (head), $ (delta), ! (stop). */
static str told(const struct delta *deltas, size_t count)
{
    struct strbuf out, text;
    struct anthropic_writer w;
    struct dialect_answer answer = {.id = S("msg_1"), .model = S("m"), .input_tokens_bound = 9};
    struct sse_event event;
    struct error e = {0};
    OWNED(sse_parser) parser = sse_parser_create(0);
    strbuf_init(&out, arena, 1u << 20);
    strbuf_init(&text, arena, 1u << 20);
    anthropic_writer_open(&w, &answer);
    for (size_t i = 0; i < count; i++)
        anthropic_writer_delta(&w, &deltas[i], &out);
    assert_true(sse_parser_feed(parser, strbuf_str(&out), &e));
    while (sse_parser_next(parser, &event)) {
        const struct json *tree = parse_str(event.data);
        str type = json_str_or(tree, S("type"), STR_NONE), kind;
        int index = (int) json_i64_or(tree, S("index"), -1);
        assert_true(str_equal(type, event.event));
        const struct json *delta = json_get(tree, S("delta"));
        if (str_equal(type, S("message_start")))
            strbuf_add(&text, S("."));
        else if (str_equal(type, S("message_stop")))
            strbuf_add(&text, S("!"));
        else if (str_equal(type, S("message_delta")))
            strbuf_printf(&text, "$" STR_FMT,
                          STR_ARG(json_str_or(delta, S("stop_reason"), STR_NONE)));
        else if (str_equal(type, S("content_block_start"))) {
            kind = json_str_or(json_get(tree, S("content_block")), S("type"), STR_NONE);
            strbuf_printf(&text, " +%d%.2s ", index, kind.ptr);
        } else if (str_equal(type, S("content_block_stop")))
            strbuf_printf(&text, " -%d ", index);
        else {
            str piece = json_str_or(delta, S("text"), json_str_or(delta, S("thinking"), STR_NONE));
            piece = json_str_or(delta, S("partial_json"), piece);
            strbuf_printf(&text, "%d:" STR_FMT STR_FMT ";", index, STR_ARG(piece),
                          STR_ARG(json_str_or(delta, S("signature"), STR_NONE)));
        }
    }
    return strbuf_str(&text);
}

#define TEXT(piece)                                                                                \
    {                                                                                              \
        .kind = DELTA_TEXT, .text = S_INIT(piece)                                                  \
    }
#define THOUGHT(piece, with)                                                                       \
    {                                                                                              \
        .kind = DELTA_REASONING, .text = S_INIT(piece), .opaque = S_INIT(with)                     \
    }
#define CALL(at)                                                                                   \
    {                                                                                              \
        .kind = DELTA_TOOL_CALL, .index = at, .call_id = S_INIT("c"), .name = S_INIT("f")          \
    }
#define INPUT(at, piece)                                                                           \
    {                                                                                              \
        .kind = DELTA_TOOL_ARGUMENTS, .index = at, .text = S_INIT(piece)                           \
    }
#define END(why)                                                                                   \
    {                                                                                              \
        .kind = DELTA_END, .finish = why                                                           \
    }

static void test_blocks_are_opened_and_closed_in_order(void **state)
{
    (void) state;
    static const struct delta plain[] = {TEXT("a"), TEXT(""), TEXT("b"), END(FINISH_STOP)};
    assert_text(told(plain, ARRAY_COUNT(plain)), ". +0te 0:a;0:b; -0 $end_turn!");
    static const struct delta thoughts[] = {
        THOUGHT("x", ""),
        THOUGHT("", "{\"signature\":\"s1\"}"),
        THOUGHT("", "{\"type\":\"redacted_thinking\",\"data\":\"d\"}"),
        THOUGHT("y", "\"reasoning_content\""),
        TEXT("a"),
        END(FINISH_LENGTH)};
    assert_text(told(thoughts, ARRAY_COUNT(thoughts)),
                ". +0th 0:x;0:s1; -0  +1re  -1  +2th 2:y; -2  +3te 3:a; -3 $max_tokens!");
    static const struct delta calls[] = {
        TEXT("a"), CALL(0),        INPUT(0, "{\"a\":"),   INPUT(0, "\"}\"}"),
        CALL(1),   INPUT(1, "{}"), END(FINISH_TOOL_CALLS)};
    assert_text(told(calls, ARRAY_COUNT(calls)),
                ". +0te 0:a; -0  +1to 1:{\"a\":;1:\"}\"}; -1  +2to 2:{}; -2 $tool_use!");
    static const struct delta nothing[] = {END(FINISH_OTHER)};
    assert_text(told(nothing, 1), ".$end_turn!");
}

static void test_parallel_calls_may_come_mixed(void **state)
{
    (void) state;
    static const struct delta mixed[] = {CALL(0),
                                         CALL(1),
                                         INPUT(1, "{\"b\":"),
                                         INPUT(0, "{\"a\":1}"),
                                         INPUT(1, "[\"\\\"]\"]}"),
                                         CALL(2),
                                         INPUT(0, " "),
                                         TEXT("x"),
                                         INPUT(2, "{}"),
                                         INPUT(7, "{}"),
                                         CALL(9),
                                         END(FINISH_STOP)};
    assert_text(told(mixed, ARRAY_COUNT(mixed)),
                ". +0to  +1to 1:{\"b\":;0:{\"a\":1};1:[\"\\\"]\"]}; -0  -1  +2to  +3te 3:x;2:{}; "
                "-3  -2 $end_turn!");
}

static bool feed(const char *const *events, struct anthropic_stream_state *stream, size_t *deltas,
                 struct error *e)
{
    struct delta out[ANTHROPIC_EVENT_DELTAS_MAX];
    size_t count;
    *stream = (struct anthropic_stream_state){0};
    *deltas = 0;
    for (size_t i = 0; events[i]; i++) {
        if (!anthropic_read_event(arena, parse(events[i]), stream, out, ARRAY_COUNT(out), &count,
                                  e))
            return false;
        *deltas += count;
    }
    return true;
}

static void test_events_of_server_tools_and_unknown_ones_are_skipped(void **state)
{
    (void) state;
    static const char *const events[] = {
        "{\"type\":\"ping\"}",
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"server_tool_"
        "use\",\"id\":\"s\",\"name\":"
        "\"web_search\",\"input\":{}}}",
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\","
        "\"partial_json\":\"{}\"}}",
        "{\"type\":\"content_block_stop\",\"index\":0}",
        "{\"type\":\"something_new\"}",
        "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\","
        "\"text\":\"a\"}}",
        "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"citations_delta\","
        "\"citation\":{}}}",
        "{\"type\":\"content_block_stop\",\"index\":1}",
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"pause_turn\"}}",
        "{\"type\":\"message_stop\"}",
        NULL};
    struct anthropic_stream_state stream;
    struct error e = {0};
    size_t deltas;
    assert_true(feed(events, &stream, &deltas, &e));
    assert_int_equal(deltas, 1);
    assert_true(stream.has_ended);
    assert_int_equal(anthropic_end_delta(&stream).finish, FINISH_OTHER);
    assert_false(anthropic_end_delta(&stream).usage.is_reported);
}

static void test_too_many_open_blocks_are_an_error(void **state)
{
    (void) state;
    static const char begin[] = "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{"
                                "\"type\":\"text\",\"text\":\"\"}}";
    const char *events[ANTHROPIC_OPEN_BLOCKS_MAX + 2];
    struct anthropic_stream_state stream;
    struct error e = {0};
    size_t deltas;
    for (size_t i = 0; i < ARRAY_COUNT(events); i++)
        events[i] = begin;
    events[ANTHROPIC_OPEN_BLOCKS_MAX] = NULL;
    assert_true(feed(events, &stream, &deltas, &e));
    events[ANTHROPIC_OPEN_BLOCKS_MAX] = begin;
    events[ANTHROPIC_OPEN_BLOCKS_MAX + 1] = NULL;
    assert_false(feed(events, &stream, &deltas, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_PROTOCOL);
}

/* ---- the dialect ---- */

static enum glance_kind glance(struct glance_state *seen, const char *event, const char *data)
{
    enum glance_kind kind;
    struct error e = {0};
    if (!anthropic_messages_dialect.glance(seen, arena, str_from_cstr(event), str_from_cstr(data),
                                           &kind, &e))
        assert_int_equal(kind, GLANCE_ERROR);
    return kind;
}

static void test_a_glance_needs_no_event_name(void **state)
{
    (void) state;
    struct glance_state seen = {0};
    assert_int_equal(
        glance(&seen, "",
               "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":4,"
               "\"output_tokens\":1}}}"),
        GLANCE_LIFECYCLE);
    assert_false(seen.usage.is_reported); /* the output has only begun */
    assert_int_equal(glance(&seen, "", "{ \"type\" : \"content_block_delta\",\"index\":0}"),
                     GLANCE_CONTENT);
    assert_int_equal(glance(&seen, "", "{\"index\":0,\"type\":\"content_block_delta\"}"),
                     GLANCE_CONTENT);
    assert_int_equal(glance(&seen, "ping", "{\"type\": \"ping\"}"), GLANCE_LIFECYCLE);
    assert_int_equal(
        glance(&seen, "",
               "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":"
               "\"\"}}"),
        GLANCE_LIFECYCLE);
    assert_int_equal(
        glance(&seen, "",
               "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\"}}"),
        GLANCE_CONTENT);
    assert_int_equal(glance(&seen, "new_event", "{\"type\":\"new_event\"}"), GLANCE_LIFECYCLE);
    assert_int_equal(
        glance(&seen, "message_delta",
               "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},"
               "\"usage\":{\"output_tokens\":12}}"),
        GLANCE_FINISH);
    assert_int_equal(seen.finish, FINISH_LENGTH);
    assert_int_equal(seen.usage.input_tokens, 4);
    assert_int_equal(seen.usage.output_tokens, 12);
    assert_true(seen.usage.is_reported);
    assert_int_equal(
        glance(&seen, "content_block_delta", "{\"type\":\"content_block_delta\",\"del"),
        GLANCE_ERROR);
    assert_int_equal(glance(&seen, "message_stop", "{\"type\":\"message_stop\"}"), GLANCE_END);
    assert_int_equal(glance(&seen, "", "nonsense"), GLANCE_ERROR);
    assert_int_equal(glance(&seen, "message_start", "{nonsense"), GLANCE_ERROR);
    assert_int_equal(
        glance(&seen, "error",
               "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}"),
        GLANCE_ERROR);
}

static void test_the_filter_sees_what_is_quoted_and_printed(void **state)
{
    (void) state;
    struct dialect_text texts[8];
    size_t count = anthropic_messages_dialect.texts(
        DOCUMENT_REPLY,
        parse("{\"content\":[{\"type\":\"text\",\"text\":\"a\",\"citations\":[{\"cited_text\":"
              "\"b\"}]},"
              "{\"type\":\"code_execution_tool_result\",\"content\":{\"stdout\":\"c\",\"stderr\":"
              "\"d\"}}]}"),
        texts, ARRAY_COUNT(texts));
    assert_int_equal(count, 4);
    count = anthropic_messages_dialect.texts(
        DOCUMENT_EVENT,
        parse(
            "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"citations_delta\","
            "\"citation\":{\"cited_text\":\"b\"}}}"),
        texts, ARRAY_COUNT(texts));
    assert_int_equal(count, 1);
    assert_true(texts[0].is_whole); /* no piece of the text around it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_filter_sees_what_is_quoted_and_printed),
        cmocka_unit_test(test_a_request_is_the_same_after_reading_and_writing),
        cmocka_unit_test(test_a_result_becomes_a_message_of_its_own_and_its_image_follows),
        cmocka_unit_test(test_chat_messages_become_turns),
        cmocka_unit_test(test_thoughts_come_back_through_chat_with_their_signatures),
        cmocka_unit_test(test_what_chat_cannot_say_is_refused),
        cmocka_unit_test(test_a_pdf_goes_both_ways),
        cmocka_unit_test(test_wrong_requests_are_refused_by_the_name_of_the_member),
        cmocka_unit_test(test_extra_cannot_smuggle_in_another_limit_or_model),
        cmocka_unit_test(test_usage_counts_what_the_cache_read_and_wrote),
        cmocka_unit_test(test_each_stop_reason_has_its_finish),
        cmocka_unit_test(test_what_is_no_answer_is_an_error_of_its_class),
        cmocka_unit_test(test_our_errors_are_written_in_the_dialect),
        cmocka_unit_test(test_blocks_are_opened_and_closed_in_order),
        cmocka_unit_test(test_parallel_calls_may_come_mixed),
        cmocka_unit_test(test_events_of_server_tools_and_unknown_ones_are_skipped),
        cmocka_unit_test(test_too_many_open_blocks_are_an_error),
        cmocka_unit_test(test_a_glance_needs_no_event_name),
    };
    return cmocka_run_group_tests_name("anthropic_format", tests, set_up, tear_down);
}
