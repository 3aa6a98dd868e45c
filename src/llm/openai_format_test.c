/*
 * With NEXUS_SAMPLES set to a folder, what is written here is kept there as files, for
 * tests/openai_schema.py.
 */
#include "base/arena.h"
#include "llm/openai_format_internal.h"

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

static const struct json *parse(const char *text)
{
    const struct json *tree = NULL;
    struct error e = {0};
    if (!json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, &e))
        fail_msg("%s in %s", e.message, text);
    return tree;
}

static struct json_writer *writer(struct strbuf *text)
{
    struct json_writer *w = ARENA_NEW(arena, struct json_writer);
    strbuf_init(text, arena, 1u << 20);
    json_writer_init(w, text);
    return w;
}

static const char *finished(struct strbuf *text, const char *sample)
{
    char *result = str_to_cstr(arena, strbuf_str(text));
    const char *folder = getenv("NEXUS_SAMPLES");
    if (folder && sample) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s.json", folder, sample);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(result, file);
        fclose(file);
    }
    parse(result);
    return result;
}

/* ---- requests ---- */

static const char full_request[] =
    "{\"model\":\"m\",\"messages\":["
    "{\"role\":\"system\",\"content\":\"be brief\"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"look\"},{\"type\":\"image_url\","
    "\"image_url\":{\"url\":"
    "\"data:image/png;base64,AA\",\"detail\":\"low\"}}]},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\","
    "\"function\":{\"name\":"
    "\"time\",\"arguments\":\"{}\"}},{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":"
    "\"add\",\"arguments\":\"{\\\"a\\\":1}\"}}]},"
    "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"noon\"},"
    "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":[{\"type\":\"text\",\"text\":\"2\"}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"time\",\"description\":\"tells "
    "it\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{}}}}],"
    "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"time\"}},\"parallel_tool_"
    "calls\":false,"
    "\"max_completion_tokens\":100,\"max_tokens\":50,\"temperature\":0.5,\"response_format\":{"
    "\"type\":\"json_object\"},"
    "\"user\":\"u\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"stop\":[\"x\"],"
    "\"seed\":7}";

static struct prompt read_request(const char *text)
{
    struct prompt prompt;
    bool is_stream, include_usage;
    struct error e = {0};
    if (!openai_read_request(arena, parse(text), &prompt, &is_stream, &include_usage, &e))
        fail_msg("%s", e.message);
    return prompt;
}

static void test_a_request_is_read_member_by_member(void **state)
{
    (void) state;
    struct prompt prompt;
    bool is_stream, include_usage;
    struct error e = {0};
    assert_true(
        openai_read_request(arena, parse(full_request), &prompt, &is_stream, &include_usage, &e));
    assert_true(is_stream && include_usage);
    assert_int_equal(prompt.message_count, 5);
    assert_int_equal(prompt.messages[1].parts[1].kind, PART_IMAGE);
    assert_true(str_equal(prompt.messages[1].parts[1].opaque, S("\"low\"")));
    assert_int_equal(prompt.messages[2].part_count, 2);
    assert_true(str_equal(prompt.messages[2].parts[1].arguments, S("{\"a\":1}")));
    assert_true(str_equal(prompt.messages[4].parts[0].name, S("add")));
    assert_true(str_equal(prompt.messages[4].parts[0].text, S("2")));
    assert_int_equal(prompt.tool_count, 1);
    assert_true(str_equal(prompt.tool_choice, S("time")));
    assert_int_equal(prompt.parallel_tool_calls, 0);
    assert_int_equal(prompt.max_output_tokens, 50);
    assert_true(prompt.temperature > 0.49 && prompt.temperature < 0.51);
    assert_true(str_equal(prompt.user, S("u")));
    assert_true(str_equal(json_print(arena, prompt.extra), S("{\"stop\":[\"x\"],\"seed\":7}")));
}

static void test_what_was_read_is_written_again_with_the_same_meaning(void **state)
{
    (void) state;
    struct prompt prompt = read_request(full_request);
    struct strbuf text;
    openai_write_request(writer(&text), &prompt, true);
    const struct json *again = parse(finished(&text, "request_stream"));
    const struct json *before = parse(full_request);
    assert_true(str_equal(json_print(arena, json_get(again, S("tools"))),
                          json_print(arena, json_get(before, S("tools")))));
    assert_true(str_equal(json_print(arena, json_path(again, S("/messages/2"))),
                          json_print(arena, json_path(before, S("/messages/2")))));
    assert_int_equal(json_i64_or(again, S("max_tokens"), 0), 50);
    assert_null(json_get(again, S("max_completion_tokens")));
    assert_int_equal(json_i64_or(again, S("seed"), 0), 7);
    assert_true(json_bool_or(json_get(again, S("stream_options")), S("include_usage"), false));
    openai_write_request_for(writer(&text), &prompt, false, OPENAI_MAX_COMPLETION_TOKENS);
    again = parse(finished(&text, "request_whole"));
    assert_int_equal(json_i64_or(again, S("max_completion_tokens"), 0), 50);
    assert_null(json_get(again, S("max_tokens")));
    assert_null(json_get(again, S("stream")));
}

static void test_extra_cannot_smuggle_in_another_limit_or_model(void **state)
{
    (void) state;
    struct part part = {.kind = PART_TEXT, .text = S("hi")};
    struct prompt_message message = {.role = ROLE_USER, .parts = &part, .part_count = 1};
    struct prompt prompt = {
        .model = S("m"),
        .messages = &message,
        .message_count = 1,
        .max_output_tokens = 5,
        .temperature = -1,
        .parallel_tool_calls = -1,
        .extra =
            parse("{\"model\":\"x\",\"max_tokens\":9,\"stream\":true,\"tools\":[],\"top_p\":0.5}")};
    struct strbuf text;
    openai_write_request(writer(&text), &prompt, false);
    assert_string_equal(finished(&text, "request_small"),
                        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                        "\"max_tokens\":5,\"top_p\":0.5}");
}

static void assert_refused(const char *text, const char *message)
{
    struct prompt prompt;
    bool is_stream, include_usage;
    struct error e = {0};
    assert_false(openai_read_request(arena, parse(text), &prompt, &is_stream, &include_usage, &e));
    if (!strstr(e.message, message))
        fail_msg("'%s' is not in '%s'", message, e.message);
    assert_int_equal(e.reason, REASON_SCHEMA);
}

static void test_wrong_requests_are_refused_by_the_name_of_the_member(void **state)
{
    (void) state;
    assert_refused("[]", "JSON object");
    assert_refused("{\"messages\":[]}", "model");
    assert_refused("{\"model\":\"m\",\"messages\":[]}", "messages must not be empty");
    assert_refused("{\"model\":\"m\",\"messages\":{}}", "messages must be a list");
    assert_refused("{\"model\":\"m\",\"messages\":[{\"role\":\"x\",\"content\":\"\"}]}",
                   "messages[0].role");
    assert_refused("{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}", "messages[0].content");
    assert_refused("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
                   "\"input_audio\"}]}]}",
                   "messages[0].content[0].type");
    assert_refused(
        "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}]}",
        "messages[0].tool_calls[0].function.name");
    assert_refused("{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
                   "messages[0].tool_call_id");
#define WITH(rest) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]," rest "}"
    assert_refused(WITH("\"max_tokens\":0"), "max_tokens");
    assert_refused(WITH("\"max_tokens\":\"5\""), "max_tokens");
    assert_refused(WITH("\"temperature\":3"), "temperature");
    assert_refused(WITH("\"stream\":1"), "stream");
    assert_refused(WITH("\"tools\":[{\"type\":\"custom\"}]"), "tools[0].type");
    assert_refused(WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]"),
                   "tools[0].function.name");
    assert_refused(WITH("\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"a\"}}"),
                   "tool_choice");
    assert_refused(WITH("\"tool_choice\":\"maybe\""), "tool_choice");
    read_request(WITH(
        "\"max_tokens\":null,\"temperature\":null,\"tools\":null,\"stream\":null,\"stop\":null"));
}

/* ---- replies ---- */

static struct reply read_reply(const char *text)
{
    struct reply reply;
    struct error e = {0};
    if (!openai_read_reply(arena, parse(text), &reply, &e))
        fail_msg("%s", e.message);
    return reply;
}

static void test_a_whole_answer_is_read(void **state)
{
    (void) state;
    struct reply reply = read_reply(
        "{\"id\":\"x\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
        "\"assistant\",\"content\":\"hi\","
        "\"reasoning_content\":\"hm\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
        "\"function\":{\"name\":\"t\","
        "\"arguments\":\"{\\\"a\\\":1}\"}},{\"function\":{\"name\":\"u\",\"arguments\":{\"b\":2}}}]"
        "},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_"
        "tokens_details\":"
        "{\"cached_tokens\":4},\"completion_tokens_details\":{\"reasoning_tokens\":2}}}");
    assert_int_equal(reply.part_count, 4);
    assert_int_equal(reply.parts[0].kind, PART_REASONING);
    assert_true(str_equal(reply.parts[1].text, S("hi")));
    assert_true(str_equal(reply.parts[2].call_id, S("c")));
    assert_true(str_starts_with(reply.parts[3].call_id, S("call_")));
    assert_true(str_equal(reply.parts[3].arguments, S("{\"b\":2}")));
    assert_int_equal(reply.finish, FINISH_TOOL_CALLS);
    assert_true(reply.usage.is_reported);
    assert_int_equal(reply.usage.input_tokens, 10);
    assert_int_equal(reply.usage.cached_tokens, 4);
    assert_int_equal(reply.usage.reasoning_tokens, 2);
    struct strbuf text;
    struct openai_answer answer = {
        .id = S("chatcmpl-1"), .model = S("fast"), .created = 1700000000};
    openai_write_reply(writer(&text), &answer, &reply);
    struct reply again = read_reply(finished(&text, "reply_tools"));
    assert_int_equal(again.part_count, 4);
    assert_int_equal(again.usage.output_tokens, 5);
}

static void test_usage_is_only_reported_when_it_makes_sense(void **state)
{
    (void) state;
    assert_false(openai_read_usage(NULL).is_reported);
    assert_false(
        openai_read_usage(parse("{\"prompt_tokens\":-1,\"completion_tokens\":2}")).is_reported);
    assert_false(
        openai_read_usage(parse("{\"prompt_tokens\":1,\"completion_tokens\":9e15}")).is_reported);
    assert_false(openai_read_usage(parse("{\"completion_tokens\":2}")).is_reported);
    struct usage usage = openai_read_usage(
        parse("{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":9}"));
    assert_int_equal(usage.output_tokens, 6); /* reasoning that was left out */
    usage = openai_read_usage(
        parse("{\"prompt_tokens\":3,\"completion_tokens\":2,\"prompt_cache_hit_tokens\":99}"));
    assert_int_equal(usage.cached_tokens, 3);
}

static void test_a_refusal_is_text_that_knows_its_member(void **state)
{
    (void) state;
    struct reply reply = read_reply("{\"choices\":[{\"message\":{\"content\":null,\"refusal\":"
                                    "\"no\"},\"finish_reason\":\"stop\"}]}");
    assert_int_equal(reply.part_count, 1);
    assert_true(str_equal(reply.parts[0].opaque, OPENAI_MEMBER_REFUSAL));
    assert_false(reply.usage.is_reported);
    struct strbuf text;
    struct openai_answer answer = {.id = S("i"), .model = S("m"), .created = 1};
    openai_write_reply(writer(&text), &answer, &reply);
    const struct json *again = parse(finished(&text, "reply_refusal"));
    assert_true(str_equal(
        json_str_or(json_path(again, S("/choices/0/message")), S("refusal"), STR_NONE), S("no")));
}

static void assert_reply_fails(const char *text, enum error_reason reason)
{
    struct reply reply;
    struct error e = {0};
    assert_false(openai_read_reply(arena, parse(text), &reply, &e));
    assert_int_equal(e.reason, reason);
}

static void test_what_is_no_answer_is_an_error_of_its_class(void **state)
{
    (void) state;
    assert_reply_fails("{}", REASON_PROVIDER_PROTOCOL);
    assert_reply_fails("{\"choices\":[]}", REASON_PROVIDER_PROTOCOL);
    assert_reply_fails("{\"choices\":[{\"message\":{\"tool_calls\":[{}]}}]}",
                       REASON_PROVIDER_PROTOCOL);
    assert_reply_fails("{\"error\":{\"message\":\"m\",\"code\":\"rate_limit_exceeded\"}}",
                       REASON_PROVIDER_RATE_LIMITED);
    assert_reply_fails("{\"error\":{\"message\":\"m\",\"code\":503}}", REASON_PROVIDER_OVERLOADED);
    assert_reply_fails("{\"error\":\"boom\"}", REASON_PROVIDER_PROTOCOL);
}

/* ---- chunks ---- */

struct told {
    struct openai_stream_state state;
    struct strbuf text; /* what the deltas said, in short */
};

static const char *feed(const char *const *chunks, struct told *told)
{
    struct delta deltas[OPENAI_CHUNK_DELTAS_MAX];
    size_t count;
    struct error e = {0};
    memset(told, 0, sizeof *told);
    strbuf_init(&told->text, arena, 1 << 20);
    for (size_t i = 0; chunks[i]; i++) {
        if (!openai_read_chunk(arena, parse(chunks[i]), &told->state, deltas, ARRAY_COUNT(deltas),
                               &count, &e))
            return error_problem(e.reason);
        for (size_t k = 0; k < count; k++) {
            const struct delta *d = &deltas[k];
            if (d->kind == DELTA_TOOL_CALL)
                strbuf_printf(&told->text, "[%d " STR_FMT " " STR_FMT "]", d->index,
                              STR_ARG(str_cut_utf8(d->call_id, 5)), STR_ARG(d->name));
            else if (d->kind == DELTA_TOOL_ARGUMENTS)
                strbuf_printf(&told->text, "%d:" STR_FMT ";", d->index, STR_ARG(d->text));
            else
                strbuf_printf(&told->text, "%s" STR_FMT "|", d->kind == DELTA_REASONING ? "r:" : "",
                              STR_ARG(d->text));
        }
    }
    return str_to_cstr(arena, strbuf_str(&told->text));
}

#define CHUNK(delta)                                                                               \
    "{\"id\":\"i\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{" delta "}}]}"
#define CALLS(items) CHUNK("\"tool_calls\":[" items "]")

static void test_text_and_reasoning_come_piece_by_piece(void **state)
{
    (void) state;
    struct told told;
    const char *const chunks[] = {
        CHUNK("\"role\":\"assistant\",\"content\":\"\""),
        CHUNK("\"reasoning\":\"hm\""),
        CHUNK("\"content\":\"he\""),
        CHUNK("\"content\":\"llo\""),
        "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}",
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
        NULL};
    assert_string_equal(feed(chunks, &told), "r:hm|he|llo|");
    struct delta end = openai_end_delta(&told.state);
    assert_int_equal(end.finish, FINISH_LENGTH);
    assert_true(end.usage.is_reported);
    assert_true(str_equal(end.id, S("i")) && str_equal(end.model, S("m")));
}

static void test_parallel_calls_are_told_apart_by_index(void **state)
{
    (void) state;
    struct told told;
    const char *const chunks[] = {
        CALLS("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}"),
        CALLS("{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}}"),
        CALLS("{\"index\":0,\"function\":{\"arguments\":\"{}\"}},{\"index\":1,\"function\":{"
              "\"arguments\":\"}\"}}"),
        NULL};
    assert_string_equal(feed(chunks, &told), "[0 a f][1 b g]1:{;0:{};1:};");
    assert_int_equal(openai_end_delta(&told.state).finish, FINISH_TOOL_CALLS);
}

static void test_servers_that_leave_out_index_or_ids_are_understood(void **state)
{
    (void) state;
    struct told told;
    const char *const no_index[] = {
        CALLS("{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}"),
        CALLS("{\"function\":{\"arguments\":\"}\"}}"),
        CALLS("{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}"), NULL};
    assert_string_equal(feed(no_index, &told), "[0 a f]0:{;0:};[1 b g]1:{};");
    const char *const all_zero[] = {
        CALLS("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}"),
        CALLS("{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"),
        CALLS("{\"index\":0,\"function\":{\"arguments\":\"3\"}}"), NULL};
    assert_string_equal(feed(all_zero, &told), "[0 a f]0:1;[1 b f]1:2;1:3;");
    const char *const no_ids[] = {
        CALLS("{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}"),
        CALLS("{\"index\":1,\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"), NULL};
    assert_string_equal(feed(no_ids, &told), "[0 call_ f]0:1;[1 call_ f]1:2;");
    const char *const nothing[] = {CALLS("{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}"),
                                   CALLS("{\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}"),
                                   NULL};
    assert_string_equal(feed(nothing, &told), "[0 call_ f]0:{\"a\":1};[1 call_ g]1:{};");
    const char *const repeated[] = {
        CALLS("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}"),
        CALLS("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"),
        NULL};
    assert_string_equal(feed(repeated, &told), "[0 a f]0:1;0:2;");
}

static void test_an_error_inside_a_stream_keeps_its_class(void **state)
{
    (void) state;
    struct told told;
    const char *const overloaded[] = {
        CHUNK("\"content\":\"x\""), "{\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}",
        NULL};
    assert_string_equal(feed(overloaded, &told), "overloaded");
    const char *const quota[] = {"{\"error\":{\"message\":\"m\",\"code\":\"insufficient_quota\"}}",
                                 NULL};
    assert_string_equal(feed(quota, &told), "provider_quota");
    const char *const list[] = {"[1]", NULL};
    assert_string_equal(feed(list, &told), "provider_protocol");
    const char *const nameless[] = {CALLS("{\"index\":0,\"function\":{\"arguments\":\"1\"}}"),
                                    NULL};
    assert_string_equal(feed(nameless, &told), "provider_protocol");
}

static void test_the_number_of_calls_is_bounded(void **state)
{
    (void) state;
    struct openai_stream_state stream = {0};
    struct delta deltas[OPENAI_CHUNK_DELTAS_MAX];
    struct error e = {0};
    size_t count;
    for (int i = 0; i <= PROVIDER_TOOL_CALLS_MAX; i++) {
        str chunk = str_printf(
            arena, CALLS("{\"index\":%d,\"id\":\"c%d\",\"function\":{\"name\":\"f\"}}"), i, i);
        bool is_read = openai_read_chunk(arena, parse(str_to_cstr(arena, chunk)), &stream, deltas,
                                         ARRAY_COUNT(deltas), &count, &e);
        assert_int_equal(is_read, i < PROVIDER_TOOL_CALLS_MAX);
    }
    assert_int_equal(e.reason, REASON_PROVIDER_PROTOCOL);
}

static void test_deltas_are_written_as_chunks(void **state)
{
    (void) state;
    struct openai_answer answer = {
        .id = S("chatcmpl-1"), .model = S("fast"), .created = 1, .system_fingerprint = S("fp")};
    struct delta deltas[] = {
        {.kind = DELTA_TEXT, .text = S("a")},
        {.kind = DELTA_REASONING, .text = S("b")},
        {.kind = DELTA_TOOL_CALL, .index = 1, .call_id = S("c"), .name = S("f")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S("{}")},
        {.kind = DELTA_END, .finish = FINISH_OTHER}};
    for (size_t i = 0; i < ARRAY_COUNT(deltas); i++) {
        struct strbuf text;
        char name[32];
        snprintf(name, sizeof name, "chunk_%zu", i);
        openai_write_chunk(writer(&text), &answer, &deltas[i], NULL, i == 0);
        const struct json *choice =
            json_at(json_get(parse(finished(&text, name)), S("choices")), 0);
        assert_int_equal(json_count(json_get(choice, S("delta"))), i == 0 ? 2 : i == 4 ? 0 : 1);
        assert_true(str_equal(json_str_or(choice, S("finish_reason"), STR_NONE),
                              i == 4 ? S("stop") : STR_NONE));
    }
    struct strbuf text;
    openai_write_usage_chunk(writer(&text), &answer,
                             &(struct usage){.input_tokens = 2, .output_tokens = 3});
    assert_int_equal(json_i64_or(json_get(parse(finished(&text, "chunk_usage")), S("usage")),
                                 S("total_tokens"), 0),
                     5);
}

/* ---- errors ---- */

static void assert_status(int status, const char *body, enum error_reason reason, const char *words)
{
    struct error e = {0};
    assert_false(openai_error_from_status(status, str_from_cstr(body), 1234, arena, &e));
    assert_int_equal(e.reason, reason);
    assert_int_equal(e.retry_after_ms, 1234);
    if (!strstr(e.message, words))
        fail_msg("'%s' is not in '%s'", words, e.message);
}

static void test_statuses_become_classes(void **state)
{
    (void) state;
    assert_status(401, "{\"error\":{\"message\":\"bad key\"}}", REASON_PROVIDER_AUTH, "bad key");
    assert_status(403, "{}", REASON_PROVIDER_AUTH, "403");
    assert_status(402, "", REASON_PROVIDER_QUOTA, "402");
    assert_status(429, "{\"error\":{\"message\":\"slow\",\"type\":\"requests\"}}",
                  REASON_PROVIDER_RATE_LIMITED, "slow");
    assert_status(429, "{\"error\":{\"message\":\"pay\",\"code\":\"insufficient_quota\"}}",
                  REASON_PROVIDER_QUOTA, "pay");
    assert_status(400, "{\"detail\":\"wrong\"}", REASON_PROVIDER_INVALID, "wrong");
    assert_status(404, "{\"error\":\"model 'x' not found\"}", REASON_PROVIDER_INVALID,
                  "model 'x' not found");
    assert_status(422, "{\"detail\":[{\"msg\":\"field required\"}]}", REASON_PROVIDER_INVALID,
                  "field required");
    assert_status(400, "[{\"error\":{\"message\":\"in a list\"}}]", REASON_PROVIDER_INVALID,
                  "in a list");
    assert_status(408, "", REASON_PROVIDER_TIMEOUT, "408");
    assert_status(504, "<html>gateway</html>", REASON_PROVIDER_TIMEOUT, "504");
    assert_status(500, "oops", REASON_PROVIDER_OVERLOADED, "oops");
    assert_status(502, "", REASON_PROVIDER_OVERLOADED, "502");
    assert_status(503, "", REASON_PROVIDER_OVERLOADED, "503");
    assert_status(529, "", REASON_PROVIDER_OVERLOADED, "529");
    assert_status(301, "", REASON_PROVIDER_PROTOCOL, "redirect");
    assert_status(204, "", REASON_PROVIDER_PROTOCOL, "error");
}

static void test_keys_in_a_providers_words_are_masked_and_long_words_cut(void **state)
{
    (void) state;
    struct error e = {0};
    openai_error_from_status(
        401, S("{\"error\":{\"message\":\"Incorrect API key provided: sk-abc***wxyz, see\"}}"), 0,
        arena, &e);
    assert_null(strstr(e.message, "sk-abc"));
    assert_non_null(strstr(e.message, "[masked], see"));
    openai_error_from_status(400, S("token 0123456789abcdef0123456789abcdef\x01\n!"), 0, arena, &e);
    assert_null(strstr(e.message, "0123456789abcdef"));
    struct strbuf body;
    strbuf_init(&body, arena, 10000);
    for (int i = 0; i < 1000; i++)
        strbuf_add(&body, S("word "));
    openai_error_from_status(400, strbuf_str(&body), 0, arena, &e);
    assert_in_range(strlen(e.message), 300, 340);
}

static void test_retry_after_is_read_in_all_its_forms(void **state)
{
    (void) state;
    int64_t now = 1445412480ll * 1000000; /* Wed, 21 Oct 2015 07:28:00 GMT */
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("2"), now), 2000);
    assert_int_equal(openai_retry_after_ms(S("250.7"), S("9"), now), 250);
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("Wed, 21 Oct 2015 07:28:30 GMT"), now),
                     30000);
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("Wed, 21 Oct 2015 07:27:30 GMT"), now), 0);
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("soon"), now), 0);
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("-5"), now), 0);
    assert_int_equal(openai_retry_after_ms(STR_NONE, S("1e300"), now), PROVIDER_RETRY_AFTER_MS_MAX);
    assert_int_equal(openai_retry_after_ms(STR_NONE, STR_NONE, now), 0);
}

static void test_our_errors_are_written_in_the_dialect(void **state)
{
    (void) state;
    struct error e = {0};
    struct strbuf text;
    error_set(&e, REASON_UNKNOWN_MODEL, "no model");
    openai_write_error(writer(&text), &e);
    assert_string_equal(
        finished(&text, "error"),
        "{\"error\":{\"message\":\"no "
        "model\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}");
    error_set(&e, REASON_BUDGET, "over");
    openai_write_error(writer(&text), &e);
    assert_non_null(strstr(finished(&text, NULL), "\"type\":\"insufficient_quota\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_is_read_member_by_member),
        TEST(test_what_was_read_is_written_again_with_the_same_meaning),
        TEST(test_extra_cannot_smuggle_in_another_limit_or_model),
        TEST(test_wrong_requests_are_refused_by_the_name_of_the_member),
        TEST(test_a_whole_answer_is_read),
        TEST(test_usage_is_only_reported_when_it_makes_sense),
        TEST(test_a_refusal_is_text_that_knows_its_member),
        TEST(test_what_is_no_answer_is_an_error_of_its_class),
        TEST(test_text_and_reasoning_come_piece_by_piece),
        TEST(test_parallel_calls_are_told_apart_by_index),
        TEST(test_servers_that_leave_out_index_or_ids_are_understood),
        TEST(test_an_error_inside_a_stream_keeps_its_class),
        TEST(test_the_number_of_calls_is_bounded),
        TEST(test_deltas_are_written_as_chunks),
        TEST(test_statuses_become_classes),
        TEST(test_keys_in_a_providers_words_are_masked_and_long_words_cut),
        TEST(test_retry_after_is_read_in_all_its_forms),
        TEST(test_our_errors_are_written_in_the_dialect),
    };
    return cmocka_run_group_tests_name("openai_format", tests, NULL, NULL);
}
