/* What a model thought, said and asked for comes back to it: in order, byte for byte, in this run and in later ones. */
#include "llm/anthropic_format.h"
#include "orchestrator/run_answer_internal.h"
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"

#define SIGNED(text) "{\"signature\":\"" text "\"}"
#define REDACTED "{\"type\":\"redacted_thinking\",\"data\":\"EqQBCg/+==\"}"

static const struct json *parse(struct arena *arena, str text)
{
    const struct json *json;
    struct error e;
    if (!json_parse(arena, text, (struct json_limits){0}, &json, &e))
        fail_msg("%s", e.message);
    return json;
}

/* One line a part. */
static str describe(struct arena *arena, const struct prompt_message *message)
{
    static const char *const names[] = {"text", "image", "call", "result", "reasoning"};
    struct strbuf text;
    strbuf_init(&text, arena, 1 << 20);
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        strbuf_printf(&text, "%s[" STR_FMT "][" STR_FMT "][" STR_FMT " " STR_FMT "][" STR_FMT "]\n",
                      names[part->kind], STR_ARG(part->text), STR_ARG(part->opaque),
                      STR_ARG(part->call_id), STR_ARG(part->name), STR_ARG(part->arguments));
    }
    return strbuf_str(&text);
}

static void add_all(struct run_answer *answer, struct arena *arena, const struct delta *deltas,
                    size_t count)
{
    struct error e = {0};
    run_answer_init(answer, arena);
    for (size_t i = 0; i < count; i++)
        if (!run_answer_add(answer, &deltas[i], &e))
            fail_msg("%s", e.message);
}

/* As its row says it. */
static str through_row(const struct run_answer *answer, struct arena *arena, str *row)
{
    struct error e = {0};
    uuid ids[RUN_TOOL_CALLS_PARALLEL_MAX] = {0};
    if (!run_answer_write(answer, ids, row, &e))
        fail_msg("%s", e.message);
    const struct json *parts = str_is_empty(*row) ? NULL : parse(arena, *row);
    struct prompt_message read = run_answer_read(arena, run_answer_text(answer), parts);
    return describe(arena, &read);
}

static const struct delta mixed[] = {
    {.kind = DELTA_REASONING, .text = S_INIT("first \"th")},
    {.kind = DELTA_REASONING, .text = S_INIT("ought\"")},
    {.kind = DELTA_REASONING, .opaque = S_INIT(SIGNED("a/+\\u00e9="))},
    {.kind = DELTA_REASONING, .opaque = S_INIT(REDACTED)},
    {.kind = DELTA_REASONING, .text = S_INIT("second")},
    {.kind = DELTA_REASONING, .opaque = S_INIT(SIGNED("b"))},
    {.kind = DELTA_TEXT, .text = S_INIT("I l\xc3\xb6")},
    {.kind = DELTA_TEXT, .text = S_INIT("ok.")},
    {.kind = DELTA_REASONING, .text = S_INIT("between")},
    {.kind = DELTA_REASONING, .opaque = S_INIT(SIGNED("c"))},
    {.kind = DELTA_TEXT, .text = S_INIT(" Now.")},
    {.kind = DELTA_TOOL_CALL, .index = 0, .call_id = S_INIT("toolu_1"), .name = S_INIT("lookup")},
    {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("{\"q\": ")},
    {.kind = DELTA_TOOL_CALL, .index = 1, .call_id = S_INIT("toolu_2"), .name = S_INIT("lookup")},
    {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("1}")},
};
static const char mixed_parts[] = "reasoning[first \"thought\"][" SIGNED(
    "a/+\\u00e9=") "][ ][]\n"
                   "reasoning[][" REDACTED "][ ][]\n"
                   "reasoning[second][" SIGNED(
                       "b") "][ ][]\n"
                            "text[I l\xc3\xb6ok.][][ ][]\n"
                            "reasoning[between][" SIGNED(
                                "c") "][ ][]\n"
                                     "text[ Now.][][ ][]\n"
                                     "call[][][toolu_1 lookup][{\"q\": 1}]\n"
                                     "call[][][toolu_2 lookup][{}]\n";

static void test_deltas_become_parts_in_order_and_come_back_from_the_row(struct testkit *kit)
{
    struct run_answer answer;
    str row;
    add_all(&answer, kit->arena, mixed, ARRAY_COUNT(mixed));
    struct prompt_message message = run_answer_message(&answer, kit->arena);
    assert_str(describe(kit->arena, &message), mixed_parts);
    assert_str(run_answer_text(&answer), "I l\xc3\xb6ok. Now.");
    assert_str(through_row(&answer, kit->arena, &row), mixed_parts);
    assert_str(json_str_or(parse(kit->arena, row), S("reasoning"), STR_NONE),
               "first \"thought\"secondbetween");
}

static void test_a_plain_answer_needs_no_order(struct testkit *kit)
{
    static const struct delta deltas[] = {
        {.kind = DELTA_REASONING, .text = S_INIT("hm")},
        {.kind = DELTA_TEXT, .text = S_INIT("yes")},
        {.kind = DELTA_TOOL_CALL, .call_id = S_INIT("c"), .name = S_INIT("lookup")},
    };
    struct run_answer answer;
    str row;
    add_all(&answer, kit->arena, deltas, 3);
    assert_str(through_row(&answer, kit->arena, &row),
               "reasoning[hm][][ ][]\ntext[yes][][ ][]\ncall[][][c lookup][{}]\n");
    assert_null(json_get(parse(kit->arena, row), S("order")));
    add_all(&answer, kit->arena, deltas + 1, 1);
    assert_str(through_row(&answer, kit->arena, &row), "text[yes][][ ][]\n");
    assert_true(str_is_empty(row));
}

static void test_a_text_before_its_thought_stays_there(struct testkit *kit)
{
    static const struct delta deltas[] = {{.kind = DELTA_TEXT, .text = S_INIT("yes")},
                                          {.kind = DELTA_REASONING, .text = S_INIT("hm")}};
    struct run_answer answer;
    str row;
    add_all(&answer, kit->arena, deltas, 2);
    assert_str(through_row(&answer, kit->arena, &row), "text[yes][][ ][]\nreasoning[hm][][ ][]\n");
}

static void test_rows_of_before_stay_readable(struct testkit *kit)
{
    const struct json *row = parse(
        kit->arena, S("{\"reasoning\":\"hm\",\"tool_calls\":[{\"tool_call_id\":\"x\",\"call_id\":"
                      "\"c\",\"name\":\"lookup\",\"arguments\":\"{}\"}]}"));
    struct prompt_message read = run_answer_read(kit->arena, S("yes"), row);
    assert_str(describe(kit->arena, &read),
               "reasoning[hm][][ ][]\ntext[yes][][ ][]\ncall[][][c lookup][{}]\n");
    read = run_answer_read(kit->arena, S("yes"), NULL);
    assert_str(describe(kit->arena, &read), "text[yes][][ ][]\n");
}

static void refuse(struct run_answer *answer, struct delta delta, enum error_reason reason)
{
    struct error e = {0};
    assert_false(run_answer_add(answer, &delta, &e));
    assert_int_equal(e.reason, reason);
}

static void test_what_has_no_end_is_refused(struct testkit *kit)
{
    struct run_answer answer;
    struct error e = {0};
    run_answer_init(&answer, kit->arena);
    refuse(&answer, (struct delta){.kind = DELTA_TOOL_CALL, .index = 1}, REASON_PROVIDER_PROTOCOL);
    refuse(&answer, (struct delta){.kind = DELTA_TOOL_ARGUMENTS}, REASON_PROVIDER_PROTOCOL);
    refuse(&answer, (struct delta){.kind = DELTA_TOOL_CALL, .index = RUN_TOOL_CALLS_PARALLEL_MAX},
           REASON_PROVIDER_PROTOCOL);
    struct delta thought = {.kind = DELTA_REASONING, .opaque = S(REDACTED)};
    for (size_t i = 0; i < RUN_ANSWER_PARTS_MAX; i++)
        assert_true(run_answer_add(&answer, &thought, &e));
    refuse(&answer, thought, REASON_PROVIDER_PROTOCOL);
    run_answer_init(&answer, kit->arena);
    char *large = calloc(1, MESSAGE_BYTES_MAX + 1);
    struct delta text = {.kind = DELTA_TEXT, .text = str_of(large, MESSAGE_BYTES_MAX)};
    assert_true(run_answer_add(&answer, &text, &e));
    refuse(&answer, (struct delta){.kind = DELTA_TEXT, .text = S("x")}, REASON_TOO_LARGE);
    free(large);
}

/* ---- Anthropic's own words, there and back ---- */

#define BLOCK_START(i, block)                                                                      \
    "{\"type\":\"content_block_start\",\"index\":" i ",\"content_block\":" block "}"
#define BLOCK_DELTA(i, delta)                                                                      \
    "{\"type\":\"content_block_delta\",\"index\":" i ",\"delta\":" delta "}"
#define BLOCK_STOP(i) "{\"type\":\"content_block_stop\",\"index\":" i "}"

static const char *const anthropic_events[] = {
    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":"
    "\"assistant\",\"model\":\"claude\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_"
    "tokens\":1}}}",
    BLOCK_START("0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"),
    BLOCK_DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"Let me \"}"),
    BLOCK_DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"look.\"}"),
    BLOCK_DELTA("0", "{\"type\":\"signature_delta\",\"signature\":\"EqoB/a+b==\"}"),
    BLOCK_STOP("0"),
    BLOCK_START("1", REDACTED),
    BLOCK_STOP("1"),
    BLOCK_START("2", "{\"type\":\"text\",\"text\":\"\"}"),
    BLOCK_DELTA("2", "{\"type\":\"text_delta\",\"text\":\"One moment.\"}"),
    BLOCK_STOP("2"),
    BLOCK_START("3", "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"lookup\",\"input\":{}}"),
    BLOCK_DELTA("3", "{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"q\\\":1}\"}"),
    BLOCK_STOP("3"),
};
static const char anthropic_content[] =
    "[{\"type\":\"thinking\",\"thinking\":\"Let me look.\",\"signature\":\"EqoB/a+b==\"}," REDACTED
    ",{\"type\":\"text\",\"text\":\"One moment.\"},{\"type\":\"tool_use\",\"id\":\"toolu_1\","
    "\"name\":\"lookup\",\"input\":{\"q\":1}}]";

static size_t read_events(struct arena *arena, struct delta *out)
{
    struct anthropic_stream_state state = {0};
    struct error e = {0};
    size_t count = 0, more;
    for (size_t i = 0; i < ARRAY_COUNT(anthropic_events); i++) {
        const struct json *event = parse(arena, str_from_cstr(anthropic_events[i]));
        if (!anthropic_read_event(arena, event, &state, out + count, ANTHROPIC_EVENT_DELTAS_MAX,
                                  &more, &e))
            fail_msg("%s", e.message);
        count += more;
    }
    return count;
}

/* What the assistant said, in the request that the API would get. */
static str request_content(struct arena *arena, const struct prompt *prompt, size_t index)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1 << 20);
    json_writer_init(&w, &text);
    anthropic_write_request(&w, prompt, true);
    const struct json *messages = json_get(parse(arena, strbuf_str(&text)), S("messages"));
    return json_print(arena, json_get(json_at(messages, index), S("content")));
}

static str sent[4]; /* the answer as each prompt after it tells it */
static size_t sent_count;

static void keep_prompt(struct testkit *kit, const struct prompt *prompt)
{
    for (size_t i = 0; i < prompt->message_count; i++) {
        const struct prompt_message *message = &prompt->messages[i];
        if (message->role != ROLE_ASSISTANT || message->part_count < 2)
            continue;
        struct prompt alone = {.model = prompt->model,
                               .messages = prompt->messages + i,
                               .message_count = 1,
                               .max_output_tokens = 10,
                               .temperature = -1,
                               .parallel_tool_calls = -1};
        assert_true(sent_count < ARRAY_COUNT(sent));
        sent[sent_count++] = request_content(kit->arena, &alone, 0);
    }
}

static void check_first_run(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(sent_count, 1);
    assert_str(sent[0], anthropic_content);
}

static void ask_again(struct context *ctx, void *unused)
{
    (void) unused;
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "and now?");
}

static void check_second_run(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(sent_count, 2);
    assert_str(sent[1], anthropic_content);
}

static void test_signed_thinking_goes_back_in_the_run_and_in_later_ones(struct testkit *kit)
{
    struct delta *deltas = ARENA_ARRAY(kit->arena, struct delta, 64);
    int count = (int) read_events(kit->arena, deltas);
    sent_count = 0;
    scene_start(kit);
    kit->on_prompt = keep_prompt;
    testkit_reply(kit, (struct fake_reply){.deltas = deltas, .delta_count = count});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, check_first_run, NULL);
    testkit_crash(kit); /* nothing but the rows is left */
    testkit_do(kit, ask_again, NULL);
    testkit_do(kit, check_second_run, NULL);
}

static void check_after_crash(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_true(sent_count > 0);
    assert_str(sent[sent_count - 1], anthropic_content);
}

static void test_signed_thinking_survives_a_crash_between_call_and_result(struct testkit *kit)
{
    struct delta *deltas = ARENA_ARRAY(kit->arena, struct delta, 64);
    int count = (int) read_events(kit->arena, deltas);
    sent_count = 0;
    scene_start(kit);
    kit->on_prompt = keep_prompt;
    testkit_tool(kit, "lookup")->delay_ms = 500;
    testkit_reply(kit, (struct fake_reply){.deltas = deltas, .delta_count = count});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 200);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_after_crash, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_deltas_become_parts_in_order_and_come_back_from_the_row),
        TESTKIT_SCRIPT(test_a_plain_answer_needs_no_order),
        TESTKIT_SCRIPT(test_a_text_before_its_thought_stays_there),
        TESTKIT_SCRIPT(test_rows_of_before_stay_readable),
        TESTKIT_SCRIPT(test_what_has_no_end_is_refused),
        TESTKIT_SCRIPT(test_signed_thinking_goes_back_in_the_run_and_in_later_ones),
        TESTKIT_SCRIPT(test_signed_thinking_survives_a_crash_between_call_and_result),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
