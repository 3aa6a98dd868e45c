/*
 * With NEXUS_SAMPLES set to a folder, what is written here is kept there as files, for tests/openai_schema.py and
 * tests/responses_types.py.
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

static struct prompt read_prompt(const char *text)
{
    struct prompt prompt;
    struct error e = {0};
    if (!openai_responses_dialect.to_prompt(arena, parse(str_from_cstr(text)), &prompt, &e))
        fail_msg("%s", e.message);
    return prompt;
}

static void assert_refused(const char *text, enum error_reason reason, const char *words)
{
    struct prompt prompt;
    struct error e = {0};
    assert_false(
        openai_responses_dialect.to_prompt(arena, parse(str_from_cstr(text)), &prompt, &e));
    if (e.reason != reason || !strstr(e.message, words))
        fail_msg("%d: %s", e.reason, e.message);
}

static void assert_str(str have, const char *want)
{
    if (!str_equal(have, str_from_cstr(want)))
        fail_msg("have " STR_FMT "\nwant %s", STR_ARG(have), want);
}

static const struct part *part_at(const struct prompt *prompt, size_t message, size_t part)
{
    assert_true(message < prompt->message_count);
    assert_true(part < prompt->messages[message].part_count);
    return &prompt->messages[message].parts[part];
}

/* ---- requests ---- */

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

static void test_a_request_becomes_a_prompt(void **state)
{
    (void) state;
    struct prompt prompt = read_prompt(full_request);
    assert_int_equal(prompt.message_count, 7);
    assert_int_equal(prompt.messages[0].role, ROLE_SYSTEM);
    assert_str(part_at(&prompt, 0, 0)->text, "be brief");
    assert_str(part_at(&prompt, 1, 1)->opaque, "\"low\"");
    assert_int_equal(part_at(&prompt, 1, 1)->kind, PART_IMAGE);
    /* what belongs to one answer is one message again */
    assert_int_equal(prompt.messages[2].role, ROLE_ASSISTANT);
    assert_int_equal(prompt.messages[2].part_count, 5);
    assert_int_equal(part_at(&prompt, 2, 0)->kind, PART_REASONING);
    assert_str(part_at(&prompt, 2, 0)->text, "hm");
    assert_non_null(strstr(str_to_cstr(arena, part_at(&prompt, 2, 0)->opaque), "gAAA+/="));
    assert_str(part_at(&prompt, 2, 2)->opaque, "\"refusal\"");
    assert_str(part_at(&prompt, 2, 4)->call_id, "c2");
    assert_int_equal(prompt.messages[3].role, ROLE_TOOL);
    assert_str(part_at(&prompt, 3, 0)->name, "time");
    assert_str(part_at(&prompt, 4, 0)->text, "2");
    assert_str(part_at(&prompt, 4, 0)->name, "add");
    assert_int_equal(prompt.messages[5].role, ROLE_SYSTEM);
    assert_int_equal(prompt.tool_count, 2);
    assert_true(prompt.tools[0].is_strict && !prompt.tools[1].is_strict);
    assert_str(prompt.tool_choice, "time");
    assert_int_equal(prompt.parallel_tool_calls, 0);
    assert_int_equal(prompt.max_output_tokens, 77);
    assert_true(prompt.temperature == 0.5);
    assert_str(prompt.user, "u1");
    assert_str(prompt.response_format,
               "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"out\",\"schema\":{\"type\":"
               "\"object\"},\"strict\":true}}");
    assert_str(
        json_print(arena, prompt.extra),
        "{\"reasoning_effort\":\"high\",\"verbosity\":\"low\",\"top_p\":0.9,\"service_tier\":"
        "\"flex\"}");
}

static void test_what_governance_needs_is_read_without_a_prompt(void **state)
{
    (void) state;
    struct dialect_request request;
    struct error e = {0};
    assert_true(
        openai_responses_dialect.read(arena, parse(str_from_cstr(full_request)), &request, &e));
    assert_str(request.model, "m");
    assert_true(request.is_stream && request.has_tools && request.has_images);
    assert_true(request.wants_json && request.wants_usage && !request.may_store);
    assert_int_equal(request.max_output_tokens, 77);
    struct prompt prompt = read_prompt(full_request);
    assert_true(request.input_tokens_bound > PROMPT_TOKENS_PER_IMAGE);
    assert_true(prompt_input_tokens_bound(&prompt) > 0);
    assert_true(openai_responses_dialect.read(
        arena, parse(S("{\"model\":\"m\",\"previous_response_id\":\"resp_1\",\"input\":\"x\"}")),
        &request, &e));
    assert_str(request.previous_id, "resp_1");
    assert_true(request.may_store);
    assert_false(openai_responses_dialect.read(arena, parse(S("{\"model\":\"m\"}")), &request, &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_false(openai_responses_dialect.read(arena, parse(S("{\"model\":\"m\",\"input\":[]}")),
                                               &request, &e));
}

static void test_what_only_responses_has_is_refused_in_words(void **state)
{
    (void) state;
    assert_refused("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]}",
                   REASON_UNSUPPORTED, "web_search");
    assert_refused("{\"model\":\"m\",\"input\":\"x\",\"prompt\":{\"id\":\"p\"}}",
                   REASON_UNSUPPORTED, "stored prompts");
    assert_refused("{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":"
                   "\"input_file\",\"file_id\":\"f\"}]}]}",
                   REASON_UNSUPPORTED, "input[0].content[0]");
    assert_refused("{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}",
                   REASON_UNSUPPORTED, "previous_response_id");
    assert_refused("{\"model\":\"m\",\"input\":[{\"type\":\"computer_call\"}]}", REASON_UNSUPPORTED,
                   "computer_call");
    assert_refused(
        "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"what\"}]}]}",
        REASON_SCHEMA, "input[0].content[0].type");
    assert_refused(
        "{\"model\":\"m\",\"input\":\"x\",\"tool_choice\":{\"type\":\"function\",\"name\":"
        "\"no\"}}",
        REASON_SCHEMA, "tool_choice");
}

static void test_a_pdf_and_images_of_results_have_their_places(void **state)
{
    (void) state;
    struct strbuf text;
    struct json_writer w;
    struct prompt prompt = read_prompt(
        "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_file\","
        "\"filename\":\"a.pdf\",\"file_data\":\"data:application/"
        "pdf;base64,JVBERi0=\"}]},{\"type\":"
        "\"function_call\",\"call_id\":\"c1\",\"name\":\"shot\",\"arguments\":\"{}\"},{\"type\":"
        "\"function_call\",\"call_id\":\"c2\",\"name\":\"shot\",\"arguments\":\"{}\"},{\"type\":"
        "\"function_call_output\",\"call_id\":\"c1\",\"output\":[{\"type\":\"input_text\",\"text\":"
        "\"here\"},{\"type\":\"input_image\",\"image_url\":\"data:image/"
        "png;base64,AA\"}]},{\"type\":"
        "\"function_call_output\",\"call_id\":\"c2\",\"output\":\"none\"}]}");
    assert_int_equal(prompt.message_count, 5); /* results stand together, the image behind them */
    assert_str(part_at(&prompt, 2, 0)->text, "here");
    assert_str(part_at(&prompt, 3, 0)->text, "none");
    assert_int_equal(prompt.messages[4].role, ROLE_USER);
    assert_int_equal(part_at(&prompt, 4, 0)->kind, PART_IMAGE);
    assert_str(part_at(&prompt, 4, 0)->call_id, "c1");
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    prompt.max_output_tokens = 16;
    openai_responses_dialect.write_request(&w, &prompt, false);
    keep_sample("create_file", strbuf_str(&text));
    const struct json *file = json_path(parse(strbuf_str(&text)), S("/input/0/content/0"));
    assert_str(json_str_or(file, S("type"), STR_NONE), "input_file");
    assert_str(json_str_or(file, S("filename"), STR_NONE), "a.pdf");
    assert_str(json_str_or(file, S("file_data"), STR_NONE), "data:application/pdf;base64,JVBERi0=");
}

static void test_allowed_tools_take_the_others_away(void **state)
{
    (void) state;
    struct prompt prompt = read_prompt("{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":"
                                       "\"function\",\"name\":\"a\"},{\"type\":"
                                       "\"function\",\"name\":\"b\"}],\"tool_choice\":{\"type\":"
                                       "\"allowed_tools\",\"mode\":\"required\","
                                       "\"tools\":[{\"type\":\"function\",\"name\":\"b\"}]}}");
    assert_int_equal(prompt.tool_count, 1);
    assert_str(prompt.tools[0].name, "b");
    assert_str(prompt.tool_choice, "required");
}

static void test_a_prompt_becomes_a_request_and_the_same_prompt_again(void **state)
{
    (void) state;
    struct strbuf text;
    struct json_writer w;
    struct prompt prompt = read_prompt(full_request);
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    openai_responses_dialect.write_request(&w, &prompt, true);
    keep_sample("create_full", strbuf_str(&text));
    struct prompt again = read_prompt(str_to_cstr(arena, strbuf_str(&text)));
    assert_int_equal(again.message_count, prompt.message_count);
    for (size_t i = 0; i < prompt.message_count; i++) {
        assert_int_equal(again.messages[i].role, prompt.messages[i].role);
        assert_int_equal(again.messages[i].part_count, prompt.messages[i].part_count);
        for (size_t k = 0; k < prompt.messages[i].part_count; k++) {
            const struct part *a = part_at(&prompt, i, k), *b = part_at(&again, i, k);
            assert_int_equal(a->kind, b->kind);
            assert_true(str_equal(a->text, b->text) && str_equal(a->opaque, b->opaque));
            assert_true(str_equal(a->call_id, b->call_id) && str_equal(a->name, b->name));
            assert_true(str_equal(a->arguments, b->arguments));
        }
    }
    assert_true(str_equal(again.response_format, prompt.response_format));
    assert_true(str_equal(again.tool_choice, prompt.tool_choice));
    assert_true(str_equal(json_print(arena, again.extra), json_print(arena, prompt.extra)));
}

static void test_a_signature_of_another_provider_comes_back_as_it_was(void **state)
{
    (void) state;
    struct strbuf text, request;
    struct json_writer w;
    struct part parts[] = {
        {.kind = PART_REASONING,
         .text = S("let me think"),
         .opaque = S("{\"signature\":\"ab/+=\"}")},
        {.kind = PART_TOOL_CALL, .call_id = S("c"), .name = S("f"), .arguments = S("{}")}};
    struct reply reply = {.parts = parts, .part_count = 2, .finish = FINISH_TOOL_CALLS};
    struct dialect_answer answer = {.id = S("resp_1"), .model = S("m"), .created = 1};
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    openai_responses_dialect.write_reply(&w, &answer, &reply);
    const struct json *output = json_get(parse(strbuf_str(&text)), S("output"));
    strbuf_init(&request, arena, 1u << 20);
    strbuf_printf(&request, "{\"model\":\"m\",\"input\":" STR_FMT "}",
                  STR_ARG(json_print(arena, output)));
    struct prompt prompt = read_prompt(str_to_cstr(arena, strbuf_str(&request)));
    assert_int_equal(prompt.message_count, 1);
    assert_str(part_at(&prompt, 0, 0)->text, "let me think");
    assert_str(part_at(&prompt, 0, 0)->opaque, "{\"signature\":\"ab/+=\"}");
    assert_str(part_at(&prompt, 0, 1)->name, "f");
}

static void test_a_seal_that_is_no_json_is_dropped(void **state)
{
    (void) state;
    static const char *const seals[] = {
        "nexus-opaque:{\\\"a\\\":1},{", "nexus-opaque:]",
        "nexus-opaque:{\\\"openai_item\\\":{\\\"type\\\":\\\"x\\\"}}"};
    for (size_t i = 0; i < ARRAY_COUNT(seals); i++) {
        struct strbuf text;
        strbuf_init(&text, arena, 4096);
        strbuf_printf(&text,
                      "{\"model\":\"m\",\"input\":[{\"type\":\"reasoning\",\"id\":\"r\","
                      "\"summary\":[],\"encrypted_content\":\"%s\"}]}",
                      seals[i]);
        struct prompt prompt = read_prompt(str_to_cstr(arena, strbuf_str(&text)));
        assert_true(str_is_empty(part_at(&prompt, 0, 0)->opaque));
    }
}

/* ---- whole answers ---- */

static const struct dialect_answer *answer_to(const char *request)
{
    struct dialect_answer *answer = ARENA_NEW(arena, struct dialect_answer);
    *answer = (struct dialect_answer){.id = S("resp_0123456789abcdef0123456789abcdef"),
                                      .model = S("m"),
                                      .created = 1700000000,
                                      .request = request ? parse(str_from_cstr(request)) : NULL};
    return answer;
}

static const struct json *whole(const char *sample, const struct dialect_answer *answer,
                                const struct reply *reply)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    openai_responses_dialect.write_reply(&w, answer, reply);
    keep_sample(sample, strbuf_str(&text));
    return parse(strbuf_str(&text));
}

static struct part all_parts[] = {
    {.kind = PART_REASONING, .text = S_INIT("hm"), .opaque = S_INIT("\"reasoning_content\"")},
    {.kind = PART_TEXT, .text = S_INIT("It is ")},
    {.kind = PART_TEXT, .text = S_INIT("noon.")},
    {.kind = PART_TEXT, .text = S_INIT("no"), .opaque = S_INIT("\"refusal\"")},
    {.kind = PART_TOOL_CALL,
     .call_id = S_INIT("c1"),
     .name = S_INIT("time"),
     .arguments = S_INIT("{}")},
    {.kind = PART_TOOL_CALL,
     .call_id = S_INIT("c2"),
     .name = S_INIT("add"),
     .arguments = S_INIT("{\"a\":1}")},
};
static const struct usage some_usage = {.input_tokens = 10,
                                        .output_tokens = 7,
                                        .cached_tokens = 4,
                                        .reasoning_tokens = 2,
                                        .is_reported = true};

static void test_a_reply_becomes_a_response_with_all_its_members(void **state)
{
    (void) state;
    struct reply reply = {.parts = all_parts,
                          .part_count = ARRAY_COUNT(all_parts),
                          .finish = FINISH_TOOL_CALLS,
                          .usage = some_usage};
    const struct json *json = whole("response_full", answer_to(full_request), &reply);
    assert_str(json_str_or(json, S("status"), STR_NONE), "completed");
    assert_int_equal(json_count(json_get(json, S("output"))), 5);
    assert_str(json_str_or(json_path(json, S("/output/1/content/0")), S("text"), STR_NONE),
               "It is noon.");
    assert_str(json_str_or(json_path(json, S("/output/3")), S("type"), STR_NONE), "function_call");
    assert_str(json_str_or(json, S("instructions"), STR_NONE), "be brief");
    assert_str(json_str_or(json_path(json, S("/metadata")), S("k"), STR_NONE), "v");
    assert_int_equal(json_i64_or(json_path(json, S("/usage")), S("total_tokens"), 0), 17);
    assert_int_equal(
        json_i64_or(json_path(json, S("/usage/input_tokens_details")), S("cached_tokens"), 0), 4);
    struct reply back;
    struct error e = {0};
    assert_true(openai_responses_dialect.read_reply(arena, json, &back, &e));
    assert_int_equal(back.part_count, 5);
    assert_int_equal(back.finish, FINISH_TOOL_CALLS);
    assert_str(back.parts[0].opaque, "\"reasoning_content\"");
    assert_str(back.parts[2].opaque, "\"refusal\"");
    assert_int_equal(back.usage.reasoning_tokens, 2);
    whole("response_bare", answer_to(NULL), &reply);
}

static void test_what_is_cut_is_incomplete_and_says_why(void **state)
{
    (void) state;
    struct reply reply = {
        .parts = all_parts + 1, .part_count = 2, .finish = FINISH_LENGTH, .usage = some_usage};
    const struct json *json = whole("response_length", answer_to(NULL), &reply);
    assert_str(json_str_or(json, S("status"), STR_NONE), "incomplete");
    assert_str(json_str_or(json_get(json, S("incomplete_details")), S("reason"), STR_NONE),
               "max_output_tokens");
    assert_str(json_str_or(json_path(json, S("/output/0")), S("status"), STR_NONE), "incomplete");
    reply.finish = FINISH_CONTENT_FILTER;
    json = whole("response_filtered", answer_to(NULL), &reply);
    struct reply back;
    struct error e = {0};
    assert_true(openai_responses_dialect.read_reply(arena, json, &back, &e));
    assert_int_equal(back.finish, FINISH_CONTENT_FILTER);
}

static void test_an_item_travels_as_it_is(void **state)
{
    (void) state;
    str item = S("{\"type\":\"mcp_approval_request\",\"id\":\"mcpr_1\",\"server_label\":\"nexus\","
                 "\"name\":\"delete\",\"arguments\":\"{}\"}");
    struct part part = {.kind = PART_TEXT,
                        .text = S("waits for an approval"),
                        .opaque = responses_item_opaque(arena, item)};
    struct reply reply = {.parts = &part, .part_count = 1, .finish = FINISH_STOP};
    const struct json *json = whole("response_approval", answer_to(NULL), &reply);
    assert_true(str_equal(json_print(arena, json_path(json, S("/output/0"))), item));
}

static void test_failures_keep_their_class(void **state)
{
    (void) state;
    struct reply reply;
    struct error e = {0};
    assert_false(openai_responses_dialect.read_reply(
        arena,
        parse(S("{\"id\":\"r\",\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\","
                "\"message\":\"slow down\"},\"output\":[]}")),
        &reply, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_false(openai_responses_dialect.read_reply(arena, parse(S("{}")), &reply, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_PROTOCOL);
}

static void test_errors_are_told_as_this_api_tells_them(void **state)
{
    (void) state;
    static const enum error_reason reasons[] = {REASON_PREVIOUS_RESPONSE, REASON_NOT_FOUND,
                                                REASON_SCHEMA, REASON_BUDGET};
    for (size_t i = 0; i < ARRAY_COUNT(reasons); i++) {
        struct strbuf text;
        struct json_writer w;
        struct error e = {0};
        char name[40];
        error_set(&e, reasons[i], "words");
        strbuf_init(&text, arena, 4096);
        json_writer_init(&w, &text);
        openai_responses_dialect.write_error(&w, &e, S("r1"));
        snprintf(name, sizeof name, "error_responses%zu", i);
        keep_sample(name, strbuf_str(&text));
        const struct json *error = json_get(parse(strbuf_str(&text)), S("error"));
        if (i > 0)
            continue;
        assert_str(json_str_or(error, S("code"), STR_NONE), "previous_response_not_found");
        assert_str(json_str_or(error, S("param"), STR_NONE), "previous_response_id");
        assert_int_equal(error_http_status(reasons[i]), 400);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_becomes_a_prompt),
        TEST(test_what_governance_needs_is_read_without_a_prompt),
        TEST(test_what_only_responses_has_is_refused_in_words),
        TEST(test_a_pdf_and_images_of_results_have_their_places),
        TEST(test_allowed_tools_take_the_others_away),
        TEST(test_a_prompt_becomes_a_request_and_the_same_prompt_again),
        TEST(test_a_signature_of_another_provider_comes_back_as_it_was),
        TEST(test_a_seal_that_is_no_json_is_dropped),
        TEST(test_a_reply_becomes_a_response_with_all_its_members),
        TEST(test_what_is_cut_is_incomplete_and_says_why),
        TEST(test_an_item_travels_as_it_is),
        TEST(test_failures_keep_their_class),
        TEST(test_errors_are_told_as_this_api_tells_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
