/* The filter around a model call: prompts, replies, deltas, documents, events; arguments stay JSON however they are cut. */
#include "llm/guard.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct filter_set *masking, *blocking;
static struct guard_rules masks, blocks, nothing;
static struct arena *arena;
static struct metrics *metrics;

static const struct filter_rule mask_rules[] = {
    {S_INIT("name"), S_INIT("\\bMallory\\b"), {0}, FILTER_MASK},
    {S_INIT("digits"), S_INIT("\\b[0-9]{6}\\b"), {0}, FILTER_MASK},
    {S_INIT("grey"), S_INIT("gr[ae]y"), {0}, FILTER_FLAG},
    {S_INIT("quote"), S_INIT("say \"no\""), {0}, FILTER_MASK},
    {S_INIT("umlaut"), S_INIT("geheimnisträger"), {0}, FILTER_MASK},
    {S_INIT("smile"), S_INIT("\xf0\x9f\x98\x80"), {0}, FILTER_MASK},
};
static const struct filter_rule block_rules[] = {
    {S_INIT("secret"), S_INIT("top secret"), {0}, FILTER_BLOCK}};

static int set_up(void **state)
{
    (void) state;
    struct error e;
    struct filter_options mask = {.rules = mask_rules, .rule_count = ARRAY_COUNT(mask_rules)};
    struct filter_options block = {.rules = block_rules, .rule_count = 1};
    if (!filter_set_create(&mask, &masking, &e) || !filter_set_create(&block, &blocking, &e))
        return -1;
    metrics = metrics_create();
    masks = (struct guard_rules){S("m"), {masking, masking}, metrics};
    blocks = (struct guard_rules){S("b"), {blocking, blocking}, NULL};
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    filter_set_destroy(masking);
    filter_set_destroy(blocking);
    metrics_destroy(metrics);
    return 0;
}

static int fresh_arena(void **state)
{
    (void) state;
    arena = arena_create(SIZE_MAX);
    return 0;
}

static int drop_arena(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

struct told {
    size_t count;
    struct filter_finding last;
    enum guard_direction direction;
};
static void tell(void *owner, enum guard_direction direction, const struct filter_finding *finding)
{
    struct told *told = owner;
    told->count++;
    told->last = *finding;
    told->direction = direction;
}

static void expect_str(str got, str wanted)
{
    if (!str_equal(got, wanted))
        fail_msg("got \"" STR_FMT "\", not \"" STR_FMT "\"", STR_ARG(got), STR_ARG(wanted));
}

/* ---- whole texts ---- */

static void test_a_prompts_texts_are_masked_in_place(void **state)
{
    (void) state;
    struct error e;
    struct told told = {0};
    struct guard_sink sink = {tell, &told};
    struct part parts[] = {
        {.kind = PART_TEXT, .text = S("ask Mallory")},
        {.kind = PART_IMAGE, .text = S("https://x/Mallory")},
        {.kind = PART_TOOL_CALL,
         .arguments = S("{\"who\": \"Mallory\", \"n\": 123456, \"m\": 12345}")},
        {.kind = PART_TOOL_RESULT, .text = S("a grey sky")},
        {.kind = PART_REASONING, .text = S("id 654321.")},
    };
    struct prompt_message message = {
        .role = ROLE_USER, .parts = parts, .part_count = ARRAY_COUNT(parts)};
    struct prompt prompt = {.messages = &message, .message_count = 1};
    assert_true(guard_prompt(arena, &masks, &sink, &prompt, &e));
    expect_str(parts[0].text, S("ask [NAME]"));
    expect_str(parts[1].text, S("https://x/Mallory"));
    expect_str(parts[2].arguments, S("{\"who\": \"[NAME]\", \"n\": \"[DIGITS]\", \"m\": 12345}"));
    expect_str(parts[3].text, S("a grey sky"));
    expect_str(parts[4].text, S("id [DIGITS]."));
    assert_int_equal(told.count, 5);
    assert_int_equal(told.direction, GUARD_REQUEST);
}

static void test_without_rules_everything_passes(void **state)
{
    (void) state;
    struct error e;
    struct part part = {.kind = PART_TEXT, .text = S("ask Mallory")};
    assert_true(guard_part(arena, NULL, NULL, GUARD_REQUEST, &part, &e));
    assert_true(guard_part(arena, &nothing, NULL, GUARD_REPLY, &part, &e));
    expect_str(part.text, S("ask Mallory"));
    assert_false(guard_is_on(NULL, GUARD_REPLY));
}

static void test_a_block_names_rule_and_group_and_no_byte(void **state)
{
    (void) state;
    struct error e = {0};
    str out;
    assert_false(
        guard_text(arena, &blocks, NULL, GUARD_REQUEST, S("this is top secret stuff"), &out, &e));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    assert_int_equal(e.code, ERROR_DENIED);
    assert_string_equal(e.message, "the content filter blocks this request: rule secret (custom)");
}

static void test_a_replys_parts_are_filtered(void **state)
{
    (void) state;
    struct error e = {0};
    struct part parts[] = {{.kind = PART_TEXT, .text = S("Mallory says")}};
    struct reply reply = {.parts = parts, .part_count = 1};
    assert_true(guard_reply(arena, &masks, NULL, &reply, &e));
    expect_str(parts[0].text, S("[NAME] says"));
    parts[0].text = S("top secret");
    assert_false(guard_reply(arena, &blocks, NULL, &reply, &e));
    assert_non_null(strstr(e.message, "answer"));
}

static void test_findings_are_counted(void **state)
{
    (void) state;
    struct error e;
    str out;
    struct strbuf text;
    assert_true(guard_text(arena, &masks, NULL, GUARD_REPLY, S("grey gray grey"), &out, &e));
    strbuf_init(&text, arena, 1u << 20);
    metrics_write(metrics, &text);
    assert_true(
        str_find(
            strbuf_str(&text),
            S("nexus_filter_findings_total{group=\"custom\",rule=\"grey\",action=\"flag\"}")) !=
        STR_NOT_FOUND);
}

/* ---- arguments ---- */

static const struct {
    const char *in, *out;
} arguments[] = {
    {"{\"a\":\"Mallory\"}", "{\"a\":\"[NAME]\"}"},
    {"{ \"a\" : [ \"x\\nMallory\\t\", true, null, -1.5e3, 123456 ] }",
     "{ \"a\" : [ \"x\\n[NAME]\\t\", true, null, -1.5e3, \"[DIGITS]\" ] }"},
    {"{\"Mallory\":1}", "{\"[NAME]\":1}"},
    {"\"M\\u0061llory\"", "\"[NAME]\""},
    {"\"geheimnistr\\u00e4ger\"", "\"[UMLAUT]\""},
    {"\"x\\ud83d\\ude00y\"", "\"x[SMILE]y\""},
    {"\"x\\ud83dy\\ude00\"", "\"x\xef\xbf\xbdy\xef\xbf\xbd\""},
    {"\"they say \\\"no\\\" twice\"", "\"they [QUOTE] twice\""},
    {"\"say \\\"yes\\\" \\\\ \\/ \\b\\f\\r\"", "\"say \\\"yes\\\" \\\\ / \\b\\f\\r\""},
    {"123456", "\"[DIGITS]\""},
    {"12345", "12345"},
    {"[1234567890123456789012345678901234567890123456789012345678901234567890, 1]",
     "[\"1234567890123456789012345678901234567890123456789012345678901234567890\", 1]"},
    {"", ""},
    {"{\"a\":\"Mallo", "{\"a\":\"Mallo"},
    {"ask Mallory: 123456", "ask [NAME]: [DIGITS]"}, /* no JSON */
    {"{\"a\": Mallory}", "{\"a\": [NAME]}"},
    {"[1, 2,\n3]", "[1, 2,\n3]"},
};

struct script {
    struct reply_stream base;
    const struct delta *deltas;
    size_t count, at;
    bool is_closed;
};
static bool script_next(struct reply_stream *stream, struct context *ctx, struct delta *out,
                        struct error *e)
{
    struct script *script = CONTAINER_OF(stream, struct script, base);
    (void) ctx;
    if (script->at == script->count)
        return error_set(e, REASON_PROVIDER_NETWORK, "cut");
    *out = script->deltas[script->at++];
    return true;
}
static void script_close(struct reply_stream *stream)
{
    CONTAINER_OF(stream, struct script, base)->is_closed = true;
}
static const struct reply_stream_ops script_ops = {script_next, script_close};

/* "T:text|R:reasoning<opaque>|C0:name|A0:arguments|END", pieces of equal kind joined */
static str play(const struct guard_rules *rules, const struct delta *deltas, size_t count,
                struct error *e)
{
    static const char kinds[] = "TRCAE";
    struct script script = {.base = {&script_ops}, .deltas = deltas, .count = count};
    struct reply_stream *stream = guard_stream_create(&script.base, rules, NULL);
    struct strbuf out;
    struct delta delta, last = {.kind = DELTA_END};
    strbuf_init(&out, arena, SIZE_MAX);
    struct context ctx = {0}; /* nothing here waits */
    struct error ignored = {0};
    if (!e)
        e = &ignored;
    for (bool is_first = true; reply_stream_next(stream, &ctx, &delta, e); is_first = false) {
        if (is_first || delta.kind != last.kind || delta.index != last.index ||
            delta.kind == DELTA_TOOL_CALL) {
            strbuf_printf(&out, "%s%c", is_first ? "" : "|", kinds[delta.kind]);
            if (delta.kind == DELTA_TOOL_CALL || delta.kind == DELTA_TOOL_ARGUMENTS)
                strbuf_printf(&out, "%d", delta.index);
            strbuf_add_char(&out, ':');
        }
        strbuf_add(&out, delta.kind == DELTA_TOOL_CALL ? delta.name : delta.text);
        strbuf_add(&out, delta.opaque);
        last = delta;
        if (delta.kind == DELTA_END)
            break;
    }
    reply_stream_close(stream);
    assert_true(script.is_closed);
    return strbuf_str(&out);
}

static void test_arguments_stay_json_however_they_are_cut(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(arguments); i++) {
        str in = str_from_cstr(arguments[i].in);
        for (size_t step = 1; step < 12; step++) {
            struct delta deltas[100] = {{.kind = DELTA_TOOL_CALL, .name = S("f")}};
            size_t count = 1;
            for (size_t at = 0; at < in.len; at += step)
                deltas[count++] = (struct delta){.kind = DELTA_TOOL_ARGUMENTS,
                                                 .text = str_slice(in, at, at + step)};
            deltas[count++] = (struct delta){.kind = DELTA_END};
            str out = play(&masks, deltas, count, NULL);
            str wanted = str_printf(arena, "C0:f|%s%s%sE:", in.len ? "A0:" : "", arguments[i].out,
                                    in.len ? "|" : "");
            expect_str(out, wanted);
        }
    }
}

/* ---- deltas ---- */

static void test_a_stream_is_masked_across_its_pieces(void **state)
{
    (void) state;
    static const struct delta deltas[] = {
        {.kind = DELTA_REASONING, .text = S_INIT("think of Mal")},
        {.kind = DELTA_REASONING, .text = S_INIT("lory")},
        {.kind = DELTA_TEXT, .text = S_INIT("I asked M")},
        {.kind = DELTA_TEXT, .text = S_INIT("allory. About 1234")},
        {.kind = DELTA_TEXT, .text = S_INIT("56")},
        {.kind = DELTA_TOOL_CALL, .index = 0, .name = S_INIT("f")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("{\"q\":\"Mallo")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("ry\"}")},
        {.kind = DELTA_TOOL_CALL, .index = 1, .name = S_INIT("g")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT("12345")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT("6")},
        {.kind = DELTA_END, .finish = FINISH_STOP},
    };
    expect_str(play(&masks, deltas, ARRAY_COUNT(deltas), NULL),
               S("R:think of [NAME]|T:I asked [NAME]. About "
                 "[DIGITS]|C0:f|A0:{\"q\":\"[NAME]\"}|C1:g|A1:\"[DIGITS]\"|E:"));
}

static void test_a_signature_comes_after_all_of_its_thought(void **state)
{
    (void) state;
    static const struct delta deltas[] = {
        {.kind = DELTA_REASONING, .text = S_INIT("of Mal")},
        {.kind = DELTA_REASONING, .opaque = S_INIT("{\"signature\":\"s\"}")},
        {.kind = DELTA_REASONING, .text = S_INIT("lory and of Mal")},
        {.kind = DELTA_REASONING, .opaque = S_INIT("{\"type\":\"redacted_thinking\"}")},
        {.kind = DELTA_REASONING, .text = S_INIT("lory")},
        {.kind = DELTA_END},
    };
    expect_str(play(&masks, deltas, ARRAY_COUNT(deltas), NULL),
               S("R:of Mal{\"signature\":\"s\"}lory and of Mal{\"type\":\"redacted_thinking\"}"
                 "lory|E:"));
}

static void test_calls_may_come_side_by_side(void **state)
{
    (void) state;
    static const struct delta deltas[] = {
        {.kind = DELTA_TOOL_CALL, .index = 0, .name = S_INIT("f")},
        {.kind = DELTA_TOOL_CALL, .index = 1, .name = S_INIT("g")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("\"Mallo")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT("\"Mal")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 0, .text = S_INIT("ry\"")},
        {.kind = DELTA_TOOL_ARGUMENTS, .index = 1, .text = S_INIT("icious\"")},
        {.kind = DELTA_END},
    };
    expect_str(play(&masks, deltas, ARRAY_COUNT(deltas), NULL),
               S("C0:f|C1:g|A0:\"|A1:\"|A0:[NAME]\"|A1:Malicious\"|E:"));
}

static void test_a_blocked_stream_gives_what_came_before_and_fails(void **state)
{
    (void) state;
    struct error e = {0};
    static const struct delta deltas[] = {
        {.kind = DELTA_TEXT, .text = S_INIT("it is top s")},
        {.kind = DELTA_TEXT, .text = S_INIT("ecret, so")},
        {.kind = DELTA_TEXT, .text = S_INIT(" what")},
        {.kind = DELTA_END},
    };
    expect_str(play(&blocks, deltas, ARRAY_COUNT(deltas), &e), S("T:it is "));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    /* the rest of one channel that only turns out forbidden when it ends */
    static const struct delta late[] = {{.kind = DELTA_TEXT, .text = S_INIT("x top secret")},
                                        {.kind = DELTA_END}};
    e = (struct error){0};
    expect_str(play(&blocks, late, ARRAY_COUNT(late), &e), S("T:x "));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
}

static void test_a_cut_stream_stays_an_error(void **state)
{
    (void) state;
    struct error e = {0};
    static const struct delta deltas[] = {{.kind = DELTA_TEXT, .text = S_INIT("Mal")}};
    expect_str(play(&masks, deltas, 1, &e), S(""));
    assert_int_equal(e.reason, REASON_PROVIDER_NETWORK);
}

static void test_an_unguarded_stream_is_given_back(void **state)
{
    (void) state;
    struct reply_stream inner = {&script_ops};
    assert_ptr_equal(guard_stream_create(&inner, NULL, NULL), &inner);
    assert_ptr_equal(guard_stream_create(&inner, &nothing, NULL), &inner);
}

/* ---- documents ---- */

static const struct json *parse(str text)
{
    struct error e;
    const struct json *tree = NULL;
    if (!json_parse(arena, text, (struct json_limits){0}, &tree, &e))
        fail_msg("%s", e.message);
    return tree;
}

static void test_a_document_keeps_all_but_its_texts(void **state)
{
    (void) state;
    struct error e;
    str body = S("{\"model\":\"m\",\"x\":{\"Mallory\":9007199254740993},\"temperature\":0.7,"
                 "\"messages\":[{\"role\":\"user\",\"content\":\"ask Mallory\"},"
                 "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":"
                 "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"n\\\":123456}\"}}]"
                 "}],\"seed\":18446744073709551615}");
    const struct json *tree = parse(body);
    struct dialect_text texts[16];
    size_t count = openai_chat_dialect.texts(DOCUMENT_REQUEST, tree, texts, ARRAY_COUNT(texts));
    str out = STR_NONE;
    bool changed;
    assert_true(
        guard_json(arena, &masks, NULL, GUARD_REQUEST, tree, texts, count, &out, &changed, &e));
    assert_true(changed);
    expect_str(out, S("{\"model\":\"m\",\"x\":{\"Mallory\":9007199254740993},\"temperature\":0.7,"
                      "\"messages\":[{\"role\":\"user\",\"content\":\"ask [NAME]\"},"
                      "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\","
                      "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{"
                      "\\\"n\\\":\\\"[DIGITS]\\\"}\"}}]}],\"seed\":18446744073709551615}"));
}

static void test_a_document_without_findings_is_left_alone(void **state)
{
    (void) state;
    struct error e;
    const struct json *tree =
        parse(S("{\"choices\":[{\"message\":{\"content\":\"a grey day\"},\"logprobs\":null}]}"));
    struct dialect_text texts[4];
    size_t count = openai_chat_dialect.texts(DOCUMENT_REPLY, tree, texts, 4);
    str out = STR_NONE;
    bool changed = true;
    assert_true(
        guard_json(arena, &masks, NULL, GUARD_REPLY, tree, texts, count, &out, &changed, &e));
    assert_false(changed);
}

static void test_log_probabilities_do_not_tell_what_was_masked(void **state)
{
    (void) state;
    struct error e;
    const struct json *tree = parse(S("{\"choices\":[{\"message\":{\"content\":\"Mallory\"},"
                                      "\"logprobs\":{\"content\":[{\"token\":\"Mallory\"}]}}]}"));
    struct dialect_text texts[4];
    size_t count = openai_chat_dialect.texts(DOCUMENT_REPLY, tree, texts, 4);
    str out = STR_NONE;
    bool changed;
    assert_true(
        guard_json(arena, &masks, NULL, GUARD_REPLY, tree, texts, count, &out, &changed, &e));
    expect_str(out, S("{\"choices\":[{\"message\":{\"content\":\"[NAME]\"},\"logprobs\":null}]}"));
}

static void test_a_member_that_is_there_twice_hides_nothing(void **state)
{
    (void) state;
    struct error e;
    const struct json *tree;
    str text = S("{\"choices\":[{\"message\":{\"content\":\"fine\",\"content\":\"Mallory\"}}]}");
    struct strbuf large;
    strbuf_init(&large, arena, SIZE_MAX);
    strbuf_add(&large, S("{\"choices\":[{\"message\":{\"content\":\"fine\""));
    for (int i = 0; i < 40; i++)
        strbuf_printf(&large, ",\"x%d\":%d", i, i);
    strbuf_add(&large, S(",\"content\":\"Mallory\"}}]}"));
    for (int i = 0; i < 2; i++) {
        struct json_limits limits = {.allow_duplicates = true};
        assert_true(json_parse(arena, i ? strbuf_str(&large) : text, limits, &tree, &e));
        struct dialect_text texts[4];
        size_t count = openai_chat_dialect.texts(DOCUMENT_REPLY, tree, texts, 4);
        str out = STR_NONE;
        bool changed;
        assert_true(
            guard_json(arena, &masks, NULL, GUARD_REPLY, tree, texts, count, &out, &changed, &e));
        assert_true(changed && str_find(out, S("Mallory")) == STR_NOT_FOUND);
        assert_true(str_find(out, S("\"content\":\"fine\"")) != STR_NOT_FOUND);
    }
}

/* ---- events ---- */

static void collect(void *owner, str json)
{
    struct strbuf *out = owner;
    if (out->len > 0)
        strbuf_add_char(out, '\n');
    strbuf_add(out, json);
}

static str play_events(const struct guard_rules *rules, const struct dialect *dialect,
                       const char *const *events, size_t count, struct error *e)
{
    OWNED(guard_events) guard = guard_events_create(rules, NULL);
    struct strbuf out;
    bool ok = true;
    strbuf_init(&out, arena, SIZE_MAX);
    for (size_t i = 0; i < count && ok; i++) {
        struct dialect_text texts[16];
        const struct json *event = parse(str_from_cstr(events[i]));
        size_t text_count = dialect->texts(DOCUMENT_EVENT, event, texts, 16);
        ok = guard_event(guard, arena, event, texts, text_count, collect, &out, e);
    }
    if (ok)
        assert_true(guard_events_end(guard, arena, collect, &out, e));
    return strbuf_str(&out);
}

static void test_chat_chunks_are_masked_across_events(void **state)
{
    (void) state;
    struct error e;
    static const char *const events[] = {
        "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
        "\"\"},\"finish_reason\":null}]}",
        "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi "
        "Mal\"},\"finish_reason\":null}]}",
        "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":"
        "null}]}",
        "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ry\"},\"finish_reason\":"
        "null}]}",
        "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
        "{\"id\":\"1\",\"choices\":[],\"usage\":{\"total_tokens\":3}}",
    };
    expect_str(
        play_events(&masks, &openai_chat_dialect, events, ARRAY_COUNT(events), &e),
        S("{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
          "\"\"},\"finish_reason\":null}]}\n"
          "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi "
          "\"},\"finish_reason\":null}]}\n"
          "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"[NAME]\"},\"finish_"
          "reason\":null}]}\n"
          "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n"
          "{\"id\":\"1\",\"choices\":[],\"usage\":{\"total_tokens\":3}}"));
}

static void test_a_last_text_goes_with_its_finish_reason(void **state)
{
    (void) state;
    struct error e;
    static const char *const events[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"to 1234\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"56\"},\"finish_reason\":\"length\"}]}",
    };
    expect_str(play_events(&masks, &openai_chat_dialect, events, ARRAY_COUNT(events), &e),
               S("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"to \"}}]}\n"
                 "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"[DIGITS]\"},\"finish_"
                 "reason\":\"length\"}]}"));
}

static void test_messages_events_are_masked_and_a_ping_ends_nothing(void **state)
{
    (void) state;
    struct error e;
    static const char *const events[] = {
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
        "\"text\":\"\"}}",
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":"
        "\"by Mall\"}}",
        "{\"type\":\"ping\"}",
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":"
        "\"ory\"}}",
        "{\"type\":\"content_block_stop\",\"index\":0}",
        "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\","
        "\"id\":\"t\",\"name\":\"f\",\"input\":{}}}",
        "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
        "\"partial_json\":\"{\\\"a\\\":12\"}}",
        "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
        "\"partial_json\":\"3456}\"}}",
        "{\"type\":\"content_block_stop\",\"index\":1}",
    };
    expect_str(play_events(&masks, &anthropic_messages_dialect, events, ARRAY_COUNT(events), &e),
               S("{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
                 "\"text\",\"text\":\"\"}}\n"
                 "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
                 "\"text\":\"by \"}}\n"
                 "{\"type\":\"ping\"}\n"
                 "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
                 "\"text\":\"[NAME]\"}}\n"
                 "{\"type\":\"content_block_stop\",\"index\":0}\n"
                 "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_"
                 "use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n"
                 "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_"
                 "delta\",\"partial_json\":\"{\\\"a\\\":\"}}\n"
                 "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_"
                 "delta\",\"partial_json\":\"\\\"[DIGITS]\\\"}\"}}\n"
                 "{\"type\":\"content_block_stop\",\"index\":1}"));
}

static void test_responses_say_the_same_in_pieces_and_whole(void **state)
{
    (void) state;
    struct error e;
    static const char *const events[] = {
        "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":"
        "\"is Mall\"}",
        "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":"
        "\"ory\"}",
        "{\"type\":\"response.output_text.done\",\"output_index\":0,\"content_index\":0,\"text\":"
        "\"is Mallory\"}",
        "{\"type\":\"response.completed\",\"response\":{\"output\":[{\"type\":\"message\","
        "\"content\":[{\"type\":\"output_text\",\"text\":\"is Mallory\"}]}]}}",
    };
    expect_str(play_events(&masks, &openai_responses_dialect, events, ARRAY_COUNT(events), &e),
               S("{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,"
                 "\"delta\":\"is \"}\n"
                 "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,"
                 "\"delta\":\"[NAME]\"}\n"
                 "{\"type\":\"response.output_text.done\",\"output_index\":0,\"content_index\":0,"
                 "\"text\":\"is [NAME]\"}\n"
                 "{\"type\":\"response.completed\",\"response\":{\"output\":[{\"type\":\"message\","
                 "\"content\":[{\"type\":\"output_text\",\"text\":\"is [NAME]\"}]}]}}"));
}

static void test_choices_do_not_disturb_each_other(void **state)
{
    (void) state;
    struct error e;
    static const char *const events[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Mal\"}}]}",
        "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"Mallo\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
        "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"ry\"}}]}",
    };
    expect_str(play_events(&masks, &openai_chat_dialect, events, ARRAY_COUNT(events), &e),
               S("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Mal\"}}]}\n"
                 "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n"
                 "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"[NAME]\"}}]}"));
}

static void test_a_blocked_event_goes_out_up_to_the_match(void **state)
{
    (void) state;
    struct error e = {0};
    static const char *const events[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a to\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"p secret x\"}}]}",
    };
    expect_str(play_events(&blocks, &openai_chat_dialect, events, 2, &e),
               S("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a \"}}]}"));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    static const char *const one[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so top secret x\"}}]}"};
    e = (struct error){0};
    expect_str(play_events(&blocks, &openai_chat_dialect, one, 1, &e),
               S("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so \"}}]}"));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
}

static void test_more_texts_than_the_bound_are_refused(void **state)
{
    (void) state;
    struct error e = {0};
    OWNED(guard_events) guard = guard_events_create(&masks, NULL);
    struct strbuf out;
    strbuf_init(&out, arena, SIZE_MAX);
    const struct json *event = parse(S("{\"a\":\"x\"}"));
    bool ok = true;
    for (uint32_t i = 0; i < GUARD_CHANNELS_MAX; i++) {
        struct dialect_text text = {.value = json_get(event, S("a")), .channel = i};
        ok = ok && guard_event(guard, arena, event, &text, 1, collect, &out, &e);
    }
    assert_true(ok);
    struct dialect_text text = {.value = json_get(event, S("a")), .channel = GUARD_CHANNELS_MAX};
    assert_false(guard_event(guard, arena, event, &text, 1, collect, &out, &e));
    assert_int_equal(e.reason, REASON_TOO_LARGE);
}

#define WITH_ARENA(test) cmocka_unit_test_setup_teardown(test, fresh_arena, drop_arena)
int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(test_a_prompts_texts_are_masked_in_place),
        WITH_ARENA(test_without_rules_everything_passes),
        WITH_ARENA(test_a_block_names_rule_and_group_and_no_byte),
        WITH_ARENA(test_a_replys_parts_are_filtered),
        WITH_ARENA(test_findings_are_counted),
        WITH_ARENA(test_arguments_stay_json_however_they_are_cut),
        WITH_ARENA(test_a_stream_is_masked_across_its_pieces),
        WITH_ARENA(test_a_signature_comes_after_all_of_its_thought),
        WITH_ARENA(test_calls_may_come_side_by_side),
        WITH_ARENA(test_a_blocked_stream_gives_what_came_before_and_fails),
        WITH_ARENA(test_a_cut_stream_stays_an_error),
        WITH_ARENA(test_an_unguarded_stream_is_given_back),
        WITH_ARENA(test_a_document_keeps_all_but_its_texts),
        WITH_ARENA(test_a_document_without_findings_is_left_alone),
        WITH_ARENA(test_log_probabilities_do_not_tell_what_was_masked),
        WITH_ARENA(test_a_member_that_is_there_twice_hides_nothing),
        WITH_ARENA(test_chat_chunks_are_masked_across_events),
        WITH_ARENA(test_a_last_text_goes_with_its_finish_reason),
        WITH_ARENA(test_messages_events_are_masked_and_a_ping_ends_nothing),
        WITH_ARENA(test_responses_say_the_same_in_pieces_and_whole),
        WITH_ARENA(test_choices_do_not_disturb_each_other),
        WITH_ARENA(test_a_blocked_event_goes_out_up_to_the_match),
        WITH_ARENA(test_more_texts_than_the_bound_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
