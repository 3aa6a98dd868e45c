/* Prompts and replies of the dialects' contract. */
#include "base/arena.h"
#include "llm/dialect_testkit_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- chance ---- */

uint64_t dialect_testkit_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

size_t dialect_testkit_below(uint64_t *state, size_t count)
{
    return (size_t) (dialect_testkit_random(state) % count);
}

const struct json *dialect_testkit_parse(struct arena *arena, str text)
{
    const struct json *tree = NULL;
    struct error e = {0};
    if (!json_parse(arena, text, (struct json_limits){.bytes_max = 64u << 20}, &tree, &e))
        fail_msg("%s in " STR_FMT, e.message, STR_ARG(text));
    return tree;
}

static str random_text(struct arena *arena, uint64_t *state)
{
    static const str pieces[] = {S_INIT("a"),
                                 S_INIT("word "),
                                 S_INIT("\n"),
                                 S_INIT("\""),
                                 S_INIT("\\"),
                                 S_INIT("{\"x\":"),
                                 S_INIT("é"),
                                 S_INIT("日本語"),
                                 S_INIT("🙂"),
                                 S_INIT("\x01"),
                                 S_INIT("</s>"),
                                 S_INIT("data: [DONE]\n\n"),
                                 S_INIT("\t"),
                                 S_INIT("\x7f"),
                                 S_INIT("\xe2\x80\xa8"),
                                 S_INIT("event: error\n"),
                                 S_INIT("12345678901234567890"),
                                 S_INIT("\r\n")};
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 16);
    for (size_t i = 1 + dialect_testkit_below(state, 12); i > 0; i--)
        strbuf_add(&text, pieces[dialect_testkit_below(state, ARRAY_COUNT(pieces))]);
    return strbuf_str(&text);
}

static str random_arguments(struct arena *arena, uint64_t *state)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1u << 16);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    for (size_t i = dialect_testkit_below(state, 4); i > 0; i--) {
        str key = str_printf(arena, "k%zu", i);
        if (dialect_testkit_below(state, 2))
            json_put_str(&w, key, random_text(arena, state));
        else
            json_put_i64(&w, key, (int64_t) dialect_testkit_random(state));
    }
    json_object_end(&w);
    return strbuf_str(&text);
}

/* ---- prompts ---- */

struct maker {
    struct arena *arena;
    struct prompt *prompt;
    uint64_t state;
};

static struct part *add_message(struct maker *m, enum role role, size_t parts)
{
    struct prompt_message *message = &m->prompt->messages[m->prompt->message_count++];
    message->role = role;
    message->part_count = parts;
    message->parts = ARENA_ARRAY(m->arena, struct part, parts + 1);
    return message->parts;
}

static void add_rich_turns(struct maker *m)
{
    struct part *p = add_message(m, ROLE_SYSTEM, 1);
    p[0] = (struct part){.kind = PART_TEXT, .text = S("be brief \"and\" kind\nsecond line")};
    p = add_message(m, ROLE_USER, 3);
    p[0] = (struct part){.kind = PART_TEXT, .text = S("what is on these? ünïcödé 日本 🙂")};
    p[1] = (struct part){.kind = PART_IMAGE, .text = S("data:image/png;base64,iVBORw0KGgo=")};
    p[2] = (struct part){
        .kind = PART_IMAGE, .opaque = S("\"low\""), .text = S("https://example.com/a.jpg")};
    p = add_message(m, ROLE_ASSISTANT, 4);
    p[0] = (struct part){.kind = PART_REASONING,
                         .text = S("let me look"),
                         .opaque = S("{\"signature\":\"EqQBCg+/=\"}")};
    p[1] = (struct part){.kind = PART_TEXT, .text = S("I call two tools.")};
    p[2] = (struct part){
        .kind = PART_TOOL_CALL,
        .call_id = S("call_1"),
        .name = S("weather"),
        .arguments =
            S("{\"place\":\"Zürich\",\"big\":12345678901234567,\"deep\":{\"a\":[1,2.5]}}")};
    p[3] = (struct part){
        .kind = PART_TOOL_CALL, .call_id = S("call_2"), .name = S("time"), .arguments = S("{}")};
    p = add_message(m, ROLE_TOOL, 1);
    p[0] = (struct part){.kind = PART_TOOL_RESULT,
                         .call_id = S("call_1"),
                         .name = S("weather"),
                         .text = S("{\"temperature\":21}")};
    p = add_message(m, ROLE_TOOL, 1);
    p[0] = (struct part){.kind = PART_TOOL_RESULT,
                         .call_id = S("call_2"),
                         .name = S("time"),
                         .text = S("no clock here"),
                         .is_error = true};
    p = add_message(m, ROLE_USER, 2);
    p[0] = (struct part){
        .kind = PART_IMAGE, .call_id = S("call_1"), .text = S("data:image/jpeg;base64,/9j/4AAQ")};
    p[1] = (struct part){.kind = PART_TEXT, .text = S("and now?")};
}

static void add_random_turn(struct maker *m)
{
    struct arena *arena = m->arena;
    struct part *p = add_message(m, ROLE_USER, 1 + dialect_testkit_below(&m->state, 2));
    p[0] = (struct part){.kind = PART_TEXT, .text = random_text(arena, &m->state)};
    if (m->prompt->messages[m->prompt->message_count - 1].part_count > 1)
        p[1] = (struct part){.kind = PART_IMAGE, .text = S("data:image/webp;base64,UklGRg==")};
    size_t calls = dialect_testkit_below(&m->state, 4);
    p = add_message(m, ROLE_ASSISTANT, 1 + calls);
    p[0] = (struct part){.kind = PART_TEXT, .text = random_text(arena, &m->state)};
    size_t first = m->prompt->message_count;
    for (size_t i = 1; i <= calls; i++) {
        p[i] = (struct part){.kind = PART_TOOL_CALL,
                             .call_id = str_printf(arena, "call_%zu_%zu", first, i),
                             .name = dialect_testkit_below(&m->state, 2) ? S("weather") : S("time"),
                             .arguments = random_arguments(arena, &m->state)};
        struct part *result = add_message(m, ROLE_TOOL, 1);
        *result = (struct part){.kind = PART_TOOL_RESULT,
                                .call_id = p[i].call_id,
                                .name = p[i].name,
                                .text = random_text(arena, &m->state),
                                .is_error = dialect_testkit_below(&m->state, 4) == 0};
    }
}

static void add_tools(struct maker *m)
{
    static const struct tool_spec tools[] = {
        {.name = S_INIT("weather"),
         .description = S_INIT("tells the \"weather\""),
         .parameters =
             S_INIT("{\"type\":\"object\",\"properties\":{\"place\":{\"type\":\"string\"}},"
                    "\"required\":[\"place\"],\"additionalProperties\":false}"),
         .is_strict = true},
        {.name = S_INIT("time"), .parameters = S_INIT("{\"type\":\"object\",\"properties\":{}}")},
    };
    m->prompt->tools = ARENA_ARRAY(m->arena, struct tool_spec, ARRAY_COUNT(tools));
    memcpy(m->prompt->tools, tools, sizeof tools);
    m->prompt->tool_count = ARRAY_COUNT(tools);
}

#define SCHEMA                                                                                     \
    "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":{\"type\":"         \
    "\"object\","                                                                                  \
    "\"properties\":{\"a\":{\"type\":\"number\"}},\"required\":[\"a\"],\"additionalProperties\":"  \
    "false},"                                                                                      \
    "\"strict\":true}}"
#define EXTRA                                                                                      \
    "{\"top_p\":0.25,\"reasoning_effort\":\"high\",\"service_tier\":\"default\",\"stop\":["        \
    "\"END\",\"\\n\\n\"]}"

struct prompt *dialect_contract_prompt(struct arena *arena, uint64_t seed)
{
    static const str choices[] = {S_INIT(""), S_INIT("auto"), S_INIT("required"), S_INIT("none"),
                                  S_INIT("time")};
    struct maker m = {
        .arena = arena, .prompt = ARENA_NEW(arena, struct prompt), .state = seed * 2 + 1};
    struct prompt *prompt = m.prompt;
    *prompt = (struct prompt){.model = S("some-model"),
                              .max_output_tokens = 1024,
                              .temperature = -1,
                              .parallel_tool_calls = -1};
    prompt->messages = ARENA_ARRAY(arena, struct prompt_message, 64);
    if (seed == 0)
        add_rich_turns(&m);
    for (size_t i = seed == 0 ? 0 : 1 + dialect_testkit_below(&m.state, 4); i > 0; i--)
        add_random_turn(&m);
    if (seed == 0 || dialect_testkit_below(&m.state, 4) > 0) {
        add_tools(&m);
        prompt->tool_choice =
            seed == 0 ? S("time") : choices[dialect_testkit_below(&m.state, ARRAY_COUNT(choices))];
        if (seed == 0 || !str_equal(prompt->tool_choice, S("none")))
            prompt->parallel_tool_calls = seed == 0 ? 0 : (int) dialect_testkit_below(&m.state, 2);
    }
    if (seed == 0 || dialect_testkit_below(&m.state, 2))
        prompt->temperature = 0.5;
    if (seed == 0 || dialect_testkit_below(&m.state, 2))
        prompt->user = S("user-7");
    if (seed == 0 || dialect_testkit_below(&m.state, 3) == 0)
        prompt->response_format = S(SCHEMA);
    if (seed == 0 || dialect_testkit_below(&m.state, 2))
        prompt->extra = dialect_testkit_parse(arena, S(EXTRA));
    if (seed != 0)
        prompt->max_output_tokens = 1 + (int64_t) dialect_testkit_below(&m.state, 1u << 30);
    return prompt;
}

/* ---- replies ---- */

static void add_random_parts(struct arena *arena, struct reply *reply, uint64_t *state)
{
    bool is_signed = dialect_testkit_below(state, 2);
    for (size_t i = dialect_testkit_below(state, is_signed ? 3 : 2); i > 0; i--)
        reply->parts[reply->part_count++] = (struct part){
            .kind = PART_REASONING,
            .text = random_text(arena, state),
            .opaque = is_signed ? str_printf(arena, "{\"signature\":\"s%zu+/=\"}", i) : STR_NONE};
    if (is_signed && dialect_testkit_below(state, 3) == 0)
        reply->parts[reply->part_count++] =
            (struct part){.kind = PART_REASONING,
                          .opaque = S("{\"type\":\"redacted_thinking\",\"data\":\"EmwKAhgB\"}")};
    if (dialect_testkit_below(state, 4) > 0)
        reply->parts[reply->part_count++] =
            (struct part){.kind = PART_TEXT, .text = random_text(arena, state)};
    size_t calls = dialect_testkit_below(state, 3);
    for (size_t i = 0; i < calls; i++)
        reply->parts[reply->part_count++] =
            (struct part){.kind = PART_TOOL_CALL,
                          .call_id = str_printf(arena, "call_%zu", i),
                          .name = dialect_testkit_below(state, 2) ? S("weather") : S("time"),
                          .arguments = random_arguments(arena, state)};
    if (dialect_testkit_below(state, 6) == 0)
        reply->finish = FINISH_LENGTH;
    else if (calls > 0)
        reply->finish = FINISH_TOOL_CALLS;
    else
        reply->finish = dialect_testkit_below(state, 4) == 0 ? FINISH_CONTENT_FILTER : FINISH_STOP;
}

struct reply *dialect_contract_reply(struct arena *arena, uint64_t seed)
{
    uint64_t state = seed * 2 + 2;
    struct reply *reply = ARENA_NEW(arena, struct reply);
    *reply = (struct reply){.id = S("answer-1"), .model = S("some-model"), .finish = FINISH_STOP};
    reply->parts = ARENA_ARRAY(arena, struct part, 16);
    reply->usage = (struct usage){.input_tokens = 100,
                                  .output_tokens = 50,
                                  .cached_tokens = 40,
                                  .cache_write_tokens = 10,
                                  .reasoning_tokens = 20,
                                  .is_reported = true};
    if (seed != 0) {
        add_random_parts(arena, reply, &state);
        reply->usage.input_tokens = (int64_t) (1 + dialect_testkit_below(&state, 1u << 30)) + 50;
        return reply;
    }
    struct part *p = reply->parts;
    p[0] = (struct part){.kind = PART_REASONING,
                         .text = S("first I think 思考"),
                         .opaque = S("{\"signature\":\"EqQBCg+/=\"}")};
    p[1] = (struct part){.kind = PART_REASONING,
                         .opaque = S("{\"type\":\"redacted_thinking\",\"data\":\"EmwKAhgB+/=\"}")};
    p[2] = (struct part){.kind = PART_TEXT, .text = S("line one\nline \"two\" 🙂")};
    p[3] = (struct part){
        .kind = PART_TOOL_CALL,
        .call_id = S("call_1"),
        .name = S("weather"),
        .arguments =
            S("{\"place\":\"Zürich\",\"big\":12345678901234567,\"deep\":{\"a\":[1,2.5]}}")};
    p[4] = (struct part){
        .kind = PART_TOOL_CALL, .call_id = S("call_2"), .name = S("time"), .arguments = S("{}")};
    reply->part_count = 5;
    reply->finish = FINISH_TOOL_CALLS;
    return reply;
}
