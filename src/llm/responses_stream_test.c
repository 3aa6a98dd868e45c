/*
 * The streamed half of the Responses dialect, its pass-through and what the filter is shown.
 * With NEXUS_SAMPLES set to a folder, the events are kept there as files, for tests/openai_schema.py and tests/responses_types.py.
 */
#include "base/arena.h"
#include "llm/responses_format_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *parse(str text)
{
    const struct json *tree = NULL;
    struct error e = {0};
    if (!json_parse(arena, text, (struct json_limits){0}, &tree, &e))
        fail_msg("%s in " STR_FMT, e.message, STR_ARG(text));
    return tree;
}

static void keep_sample(const char *name, str text)
{
    const char *folder = getenv("NEXUS_SAMPLES");
    char path[512];
    if (!folder)
        return;
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fwrite(text.ptr, 1, text.len, file);
    fclose(file);
}

static void assert_str(str have, const char *want)
{
    if (!str_equal(have, str_from_cstr(want)))
        fail_msg("have " STR_FMT "\nwant %s", STR_ARG(have), want);
}

static const char full_request[] =
    "{\"model\":\"m\",\"instructions\":\"be brief\",\"input\":["
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"look\"},"
    "{\"type\":\"input_image\",\"image_url\":\"data:image/png;base64,AA\",\"detail\":\"low\"}]},"
    "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{\"type\":\"summary_text\",\"text\":"
    "\"hm\"}],"
    "\"encrypted_content\":\"gAAA+/=\"},"
    "{\"type\":\"message\",\"id\":\"msg_1\",\"role\":\"assistant\",\"status\":\"completed\","
    "\"content\":["
    "{\"type\":\"output_text\",\"text\":\"I look it up\",\"annotations\":[],\"logprobs\":[]},"
    "{\"type\":\"refusal\",\"refusal\":\"no\"}]},"
    "{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"time\",\"arguments\":\"{}\"},"
    "{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":\"add\",\"arguments\":\"{\\\"a\\\":1}"
    "\"},"
    "{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"noon\"},"
    "{\"type\":\"function_call_output\",\"call_id\":\"c2\",\"output\":[{\"type\":\"input_text\","
    "\"text\":"
    "\"2\"}]},"
    "{\"role\":\"developer\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":\"and "
    "now?\"}],"
    "\"tools\":[{\"type\":\"function\",\"name\":\"time\",\"description\":\"tells "
    "it\",\"parameters\":{"
    "\"type\":\"object\",\"properties\":{}},\"strict\":true},{\"type\":\"function\",\"name\":"
    "\"add\","
    "\"parameters\":{\"type\":\"object\"},\"strict\":false}],"
    "\"tool_choice\":{\"type\":\"function\",\"name\":\"time\"},\"parallel_tool_calls\":false,"
    "\"max_output_tokens\":77,\"temperature\":0.5,\"top_p\":0.9,\"user\":\"u1\",\"store\":false,"
    "\"stream\":true,\"metadata\":{\"k\":\"v\"},\"include\":[\"reasoning.encrypted_content\"],"
    "\"truncation\":\"auto\",\"reasoning\":{\"effort\":\"high\",\"summary\":\"auto\"},\"service_"
    "tier\":"
    "\"flex\",\"text\":{\"verbosity\":\"low\",\"format\":{\"type\":\"json_schema\",\"name\":"
    "\"out\","
    "\"schema\":{\"type\":\"object\"},\"strict\":true}}}";

static const struct dialect_answer *answer_to(const char *request)
{
    struct dialect_answer *answer = ARENA_NEW(arena, struct dialect_answer);
    *answer = (struct dialect_answer){.id = S("resp_0123456789abcdef0123456789abcdef"),
                                      .model = S("m"),
                                      .created = 1700000000,
                                      .request = request ? parse(str_from_cstr(request)) : NULL};
    return answer;
}

/* ---- streams ---- */

struct events {
    str types;              /* one a line */
    const struct json *all; /* a list of their data */
};

/* The events of a text, checked: their names are their types, and their numbers go up by one. */
static struct events split(const char *sample, str text)
{
    struct strbuf types, list;
    str block, rest = text;
    int64_t number = 0;
    strbuf_init(&types, arena, 1u << 20);
    strbuf_init(&list, arena, 4u << 20);
    strbuf_add_char(&list, '[');
    while (rest.len > 0) {
        size_t end = str_find(rest, S("\n\n"));
        assert_int_not_equal(end, STR_NOT_FOUND);
        block = str_slice(rest, 0, end);
        rest = str_from(rest, end + 2);
        str name, data;
        assert_true(str_cut(block, '\n', &name, &data));
        assert_true(str_strip_prefix(name, S("event: "), &name));
        assert_true(str_strip_prefix(data, S("data: "), &data));
        const struct json *json = parse(data);
        assert_true(str_equal(name, json_str_or(json, S("type"), STR_NONE)));
        assert_int_equal(json_i64_or(json, S("sequence_number"), -1), number);
        if (sample) {
            char path[80];
            snprintf(path, sizeof path, "event_%s_%02d", sample, (int) number);
            keep_sample(path, data);
        }
        if (number++ > 0)
            strbuf_add_char(&list, ',');
        strbuf_add(&list, data);
        strbuf_add(&types, name);
        strbuf_add_char(&types, '\n');
    }
    strbuf_add_char(&list, ']');
    return (struct events){strbuf_str(&types), parse(strbuf_str(&list))};
}

static str stream_text(const struct delta *deltas, size_t count, const struct error *failure)
{
    struct strbuf out;
    void *writer = arena_alloc(arena, openai_responses_dialect.writer_bytes);
    strbuf_init(&out, arena, 4u << 20);
    openai_responses_dialect.writer_open(writer, answer_to(full_request));
    for (size_t i = 0; i < count; i++)
        openai_responses_dialect.writer_delta(writer, &deltas[i], &out);
    if (failure)
        openai_responses_dialect.writer_error(writer, failure, &out);
    openai_responses_dialect.writer_close(writer);
    return strbuf_str(&out);
}

static const struct delta all_deltas[] = {
    {.kind = DELTA_REASONING, .text = S_INIT("h"), .opaque = S_INIT("\"reasoning_content\"")},
    {.kind = DELTA_REASONING, .text = S_INIT("m")},
    {.kind = DELTA_TEXT, .text = S_INIT("It is ")},
    {.kind = DELTA_TEXT, .text = S_INIT("noon.")},
    {.kind = DELTA_TOOL_CALL, .index = 0, .call_id = S_INIT("c1"), .name = S_INIT("time")},
    {.kind = DELTA_TOOL_CALL, .index = 1, .call_id = S_INIT("c2"), .name = S_INIT("add")},
    {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT("{\"a\"")},
    {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("{}")},
    {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT(":1}")},
    {.kind = DELTA_END,
     .finish = FINISH_TOOL_CALLS,
     .usage = {.input_tokens = 10, .output_tokens = 7, .is_reported = true}},
};

static const char all_types[] = "response.created\n"
                                "response.in_progress\n"
                                "response.output_item.added\n"
                                "response.content_part.added\n"
                                "response.reasoning_text.delta\n"
                                "response.reasoning_text.delta\n"
                                "response.reasoning_text.done\n"
                                "response.content_part.done\n"
                                "response.output_item.done\n"
                                "response.output_item.added\n"
                                "response.content_part.added\n"
                                "response.output_text.delta\n"
                                "response.output_text.delta\n"
                                "response.output_text.done\n"
                                "response.content_part.done\n"
                                "response.output_item.done\n"
                                "response.output_item.added\n"
                                "response.output_item.added\n"
                                "response.function_call_arguments.delta\n"
                                "response.function_call_arguments.delta\n"
                                "response.function_call_arguments.delta\n"
                                "response.function_call_arguments.done\n"
                                "response.output_item.done\n"
                                "response.function_call_arguments.done\n"
                                "response.output_item.done\n"
                                "response.completed\n";

static void test_deltas_become_the_whole_sequence_of_events(void **state)
{
    (void) state;
    struct events events = split("full", stream_text(all_deltas, ARRAY_COUNT(all_deltas), NULL));
    assert_str(events.types, all_types);
    const struct json *response =
        json_get(json_at(events.all, json_count(events.all) - 1), S("response"));
    assert_str(json_str_or(json_path(response, S("/output/0")), S("type"), STR_NONE), "reasoning");
    assert_str(json_str_or(json_path(response, S("/output/1/content/0")), S("text"), STR_NONE),
               "It is noon.");
    assert_str(json_str_or(json_path(response, S("/output/3")), S("arguments"), STR_NONE),
               "{\"a\":1}");
    assert_str(json_str_or(json_path(response, S("/output/3")), S("call_id"), STR_NONE), "c2");
}

/* Deltas told as (kind, index, text) with neighbours of one kind joined, so that two cuts of one answer are equal. */
static str told(const struct delta *deltas, size_t count)
{
    struct strbuf out;
    strbuf_init(&out, arena, 1u << 20);
    const struct delta *last = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct delta *d = &deltas[i];
        if (d->kind == DELTA_TOOL_ARGUMENTS || d->kind == DELTA_END)
            continue;
        if (!last || last->kind != d->kind || d->kind == DELTA_TOOL_CALL)
            strbuf_printf(&out, "|%d %d ", d->kind, d->index);
        strbuf_printf(&out, STR_FMT STR_FMT STR_FMT, STR_ARG(d->text), STR_ARG(d->call_id),
                      STR_ARG(d->name));
        last = d;
    }
    for (int call = 0; call < 4; call++) {
        strbuf_printf(&out, "|%d:", call);
        for (size_t i = 0; i < count; i++)
            if (deltas[i].kind == DELTA_TOOL_ARGUMENTS && deltas[i].index == call)
                strbuf_add(&out, deltas[i].text);
    }
    return strbuf_str(&out);
}

static size_t read_events(const struct json *list, bool only_last, struct delta *out)
{
    struct responses_stream_state *reader = ARENA_NEW(arena, struct responses_stream_state);
    const struct json *event;
    struct error e = {0};
    size_t total = 0, count, at = 0;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &event)) {
        if (only_last && ++at < json_count(list))
            continue;
        if (!responses_read_event(arena, event, reader, out + total, RESPONSES_EVENT_DELTAS_MAX,
                                  &count, &e))
            fail_msg("%s", e.message);
        total += count;
    }
    assert_true(reader->has_ended);
    out[total++] = responses_end_delta(reader);
    return total;
}

static void test_events_become_the_same_deltas_again(void **state)
{
    (void) state;
    struct events events = split(NULL, stream_text(all_deltas, ARRAY_COUNT(all_deltas), NULL));
    struct delta *deltas = ARENA_ARRAY(arena, struct delta, 1000);
    size_t count = read_events(events.all, false, deltas);
    str want = told(all_deltas, ARRAY_COUNT(all_deltas));
    assert_true(str_equal(told(deltas, count), want));
    assert_int_equal(deltas[count - 1].finish, FINISH_TOOL_CALLS);
    assert_int_equal(deltas[count - 1].usage.input_tokens, 10);
    assert_str(deltas[count - 1].id, "resp_0123456789abcdef0123456789abcdef");
    /* a server that streams nothing and tells all at the end */
    count = read_events(events.all, true, deltas);
    assert_true(str_equal(told(deltas, count), want));
}

static void test_a_cut_stream_is_incomplete(void **state)
{
    (void) state;
    const struct delta deltas[] = {{.kind = DELTA_TEXT, .text = S("half")},
                                   {.kind = DELTA_END, .finish = FINISH_LENGTH}};
    struct events events = split("cut", stream_text(deltas, 2, NULL));
    const struct json *last = json_at(events.all, json_count(events.all) - 1);
    assert_str(json_str_or(last, S("type"), STR_NONE), "response.incomplete");
    assert_str(
        json_str_or(json_path(last, S("/response/incomplete_details")), S("reason"), STR_NONE),
        "max_output_tokens");
    assert_str(json_str_or(json_path(last, S("/response/output/0")), S("status"), STR_NONE),
               "incomplete");
}

static void test_a_stream_that_fails_says_so_twice_and_ends(void **state)
{
    (void) state;
    struct error e = {0};
    error_set(&e, REASON_PROVIDER_NETWORK, "the provider's stream ended early");
    struct events events = split("failed", stream_text(all_deltas, 4, &e));
    size_t count = json_count(events.all);
    assert_str(json_str_or(json_at(events.all, count - 2), S("type"), STR_NONE), "error");
    const struct json *last = json_at(events.all, count - 1);
    assert_str(json_str_or(last, S("type"), STR_NONE), "response.failed");
    assert_str(json_str_or(json_path(last, S("/response/output/1/content/0")), S("text"), STR_NONE),
               "It is noon.");
    assert_str(json_str_or(json_path(last, S("/response/error")), S("code"), STR_NONE),
               "server_error");
}

static void test_refusals_and_whole_items_are_streamed(void **state)
{
    (void) state;
    str item = S("{\"type\":\"mcp_approval_request\",\"id\":\"mcpr_1\",\"server_label\":\"nexus\","
                 "\"name\":\"delete\",\"arguments\":\"{}\"}");
    const struct delta deltas[] = {
        {.kind = DELTA_TEXT, .text = S("I will not"), .opaque = OPENAI_MEMBER_REFUSAL},
        {.kind = DELTA_TEXT, .text = S("waits"), .opaque = responses_item_opaque(arena, item)},
        {.kind = DELTA_END, .finish = FINISH_STOP}};
    struct events events = split("refusal", stream_text(deltas, 3, NULL));
    const struct json *last = json_at(events.all, json_count(events.all) - 1);
    assert_str(
        json_str_or(json_path(last, S("/response/output/0/content/0")), S("refusal"), STR_NONE),
        "I will not");
    assert_true(str_equal(json_print(arena, json_path(last, S("/response/output/1"))), item));
}

static void test_sealed_reasoning_begins_a_new_item(void **state)
{
    (void) state;
    const struct delta deltas[] = {{.kind = DELTA_REASONING, .text = S("one")},
                                   {.kind = DELTA_REASONING, .opaque = S("{\"signature\":\"A\"}")},
                                   {.kind = DELTA_REASONING, .text = S("two")},
                                   {.kind = DELTA_REASONING, .opaque = S("{\"signature\":\"B\"}")},
                                   {.kind = DELTA_END, .finish = FINISH_STOP}};
    struct events events = split("sealed", stream_text(deltas, 5, NULL));
    const struct json *response =
        json_get(json_at(events.all, json_count(events.all) - 1), S("response"));
    assert_int_equal(json_count(json_get(response, S("output"))), 2);
    struct reply reply;
    struct error e = {0};
    assert_true(openai_responses_dialect.read_reply(arena, response, &reply, &e));
    assert_str(reply.parts[0].text, "one");
    assert_str(reply.parts[0].opaque, "{\"signature\":\"A\"}");
    assert_str(reply.parts[1].opaque, "{\"signature\":\"B\"}");
}

static void test_an_answer_too_long_to_repeat_is_an_error_in_band(void **state)
{
    (void) state;
    struct strbuf out;
    void *writer = arena_alloc(arena, openai_responses_dialect.writer_bytes);
    struct delta delta = {.kind = DELTA_TEXT, .text = S("x"), .opaque = OPENAI_MEMBER_REFUSAL};
    strbuf_init(&out, arena, 64u << 20);
    openai_responses_dialect.writer_open(writer, answer_to(NULL));
    for (int i = 0; i <= RESPONSES_OUTPUT_ITEMS_MAX; i++) {
        delta.opaque = i % 2 ? OPENAI_MEMBER_REFUSAL : STR_NONE;
        openai_responses_dialect.writer_delta(writer, &delta, &out);
    }
    assert_int_not_equal(str_find(strbuf_str(&out), S("event: response.failed")), STR_NOT_FOUND);
    size_t len = out.len;
    openai_responses_dialect.writer_delta(writer, &delta, &out);
    assert_int_equal(out.len, len);
    openai_responses_dialect.writer_close(writer);
}

/* ---- pass-through ---- */

static void test_a_request_is_edited_in_place(void **state)
{
    (void) state;
    str out;
    struct error e = {0};
    struct dialect_edits edits = {
        .model = S("real"), .max_output_tokens = 50, .include_usage = true};
    assert_true(openai_responses_dialect.edit_request(
        arena, S("{ \"model\" : \"m\", \"x\" : [1.0], \"input\":\"a\"}"), &edits, &out, &e));
    assert_str(out,
               "{ \"model\" : \"real\", \"x\" : [1.0], \"input\":\"a\",\"max_output_tokens\":50}");
    assert_true(openai_responses_dialect.edit_request(
        arena, S("{\"max_output_tokens\":99,\"model\":\"m\"}"), &edits, &out, &e));
    assert_str(out, "{\"max_output_tokens\":50,\"model\":\"real\"}");
}

static void test_a_glance_tells_what_an_event_is(void **state)
{
    (void) state;
    struct glance_state glance = {0};
    struct error e = {0};
    enum glance_kind kind;
    struct events events = split(NULL, stream_text(all_deltas, ARRAY_COUNT(all_deltas), NULL));
    const struct json *event;
    struct json_iter it = json_iter(events.all);
    while (json_next(&it, NULL, &event)) {
        str type = json_str_or(event, S("type"), STR_NONE);
        /* with and without the event's name */
        bool is_named = json_i64_or(event, S("sequence_number"), 0) % 2 == 0;
        assert_true(openai_responses_dialect.glance(&glance, arena, is_named ? type : STR_NONE,
                                                    json_print(arena, event), &kind, &e));
        enum glance_kind want = str_ends_with(type, S(".added")) ||
                                        str_ends_with(type, S("created")) ||
                                        str_ends_with(type, S("in_progress"))
                                    ? GLANCE_LIFECYCLE
                                : str_ends_with(type, S("completed")) ? GLANCE_END
                                                                      : GLANCE_CONTENT;
        assert_int_equal(kind, want);
    }
    assert_true(glance.has_ended && glance.has_finish && glance.usage.is_reported);
    assert_int_equal(glance.usage.output_tokens, 7);
    assert_int_equal(glance.finish, FINISH_TOOL_CALLS);
    assert_true(glance_output_estimate(&glance) >= 7);
}

static void test_a_glance_sees_failures(void **state)
{
    (void) state;
    static const char *const failures[] = {
        "{\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"slow\",\"param\":null}",
        ("{\"type\":\"response.failed\",\"response\":"
         "{\"error\":{\"code\":\"rate_limit_exceeded\"}}}"),
        "{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}}",
    };
    for (size_t i = 0; i < ARRAY_COUNT(failures); i++) {
        struct glance_state glance = {0};
        struct error e = {0};
        enum glance_kind kind;
        assert_false(openai_responses_dialect.glance(&glance, arena, STR_NONE,
                                                     str_from_cstr(failures[i]), &kind, &e));
        assert_int_equal(kind, GLANCE_ERROR);
        assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    }
    struct glance_state glance = {0};
    struct error e = {0};
    enum glance_kind kind;
    assert_false(
        openai_responses_dialect.glance(&glance, arena, STR_NONE, S("garbage"), &kind, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_PROTOCOL);
}

static bool has_text(const struct dialect_text *texts, size_t count, const char *want)
{
    for (size_t i = 0; i < count; i++) {
        str text;
        if (json_to_str(texts[i].value, &text) && str_equal(text, str_from_cstr(want)))
            return true;
    }
    return false;
}

static void test_the_filter_sees_every_text(void **state)
{
    (void) state;
    struct dialect_text texts[64];
    size_t count = openai_responses_dialect.texts(DOCUMENT_REQUEST,
                                                  parse(str_from_cstr(full_request)), texts, 64);
    static const char *const wanted[] = {"be brief", "look",      "hm", "I look it up", "no", "{}",
                                         "noon",     "{\"a\":1}", "2",  "and now?"};
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
        if (!has_text(texts, count, wanted[i]))
            fail_msg("%s was not shown", wanted[i]);
    assert_int_equal(openai_responses_dialect.texts(DOCUMENT_REQUEST,
                                                    parse(str_from_cstr(full_request)), texts, 2),
                     count);
    struct events events = split(NULL, stream_text(all_deltas, ARRAY_COUNT(all_deltas), NULL));
    const struct json *event;
    uint32_t channel = 0;
    size_t pieces = 0, done = 0;
    struct json_iter it = json_iter(events.all);
    while (json_next(&it, NULL, &event)) {
        str type = json_str_or(event, S("type"), STR_NONE);
        count = openai_responses_dialect.texts(DOCUMENT_EVENT, event, texts, 64);
        if (str_equal(type, S("response.output_text.delta"))) {
            assert_int_equal(count, 1);
            assert_true(pieces++ == 0 || texts[0].channel == channel);
            channel = texts[0].channel;
        } else if (str_equal(type, S("response.output_text.done")) ||
                   (str_equal(type, S("response.content_part.done")) && pieces > 0)) {
            assert_int_equal(count, 1);
            assert_true(texts[0].channel != channel);
            done++;
        } else if (str_equal(type, S("response.completed"))) {
            assert_true(has_text(texts, count, "It is noon."));
            assert_true(has_text(texts, count, "{\"a\":1}"));
        }
    }
    assert_int_equal(pieces, 2);
    assert_int_equal(done, 2);
    /* what hosted and custom tools said and ran */
    count = openai_responses_dialect.texts(
        DOCUMENT_EVENT,
        parse(S("{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":"
                "\"code_interpreter_call\",\"code\":\"run\",\"outputs\":[{\"type\":\"logs\","
                "\"logs\":\"printed\"}],\"results\":[{\"text\":\"found\"}]}}")),
        texts, 64);
    assert_true(has_text(texts, count, "run") && has_text(texts, count, "printed") &&
                has_text(texts, count, "found"));
    count = openai_responses_dialect.texts(
        DOCUMENT_EVENT,
        parse(S("{\"type\":\"response.custom_tool_call_input.done\",\"input\":\"given\"}")), texts,
        64);
    assert_true(has_text(texts, count, "given"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_deltas_become_the_whole_sequence_of_events),
        TEST(test_events_become_the_same_deltas_again),
        TEST(test_a_cut_stream_is_incomplete),
        TEST(test_a_stream_that_fails_says_so_twice_and_ends),
        TEST(test_refusals_and_whole_items_are_streamed),
        TEST(test_sealed_reasoning_begins_a_new_item),
        TEST(test_an_answer_too_long_to_repeat_is_an_error_in_band),
        TEST(test_a_request_is_edited_in_place),
        TEST(test_a_glance_tells_what_an_event_is),
        TEST(test_a_glance_sees_failures),
        TEST(test_the_filter_sees_every_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
