#include "llm/dialect_contract.h"

#include "base/arena.h"
#include "llm/dialect_testkit_internal.h"
#include "net/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- what a dialect can say ---- */

enum carry {
    CARRY_STOP = 1,              /* stop sequences */
    CARRY_RESULT_ERROR = 2,      /* that a tool failed */
    CARRY_RESULT_IMAGE = 4,      /* an image inside a tool's result, not behind it */
    CARRY_IMAGE_DETAIL = 8,      /* detail of an image */
    CARRY_SIGNED_REASONING = 32, /* in a request for a model */
    CARRY_CACHE_WRITES = 64,     /* usage.cache_write_tokens */
};

static unsigned carries(const struct dialect *dialect)
{
    static const unsigned table[DIALECT_COUNT] = {
        [DIALECT_OPENAI_CHAT] = CARRY_STOP | CARRY_IMAGE_DETAIL | CARRY_CACHE_WRITES,
        [DIALECT_OPENAI_RESPONSES] = CARRY_IMAGE_DETAIL,
        [DIALECT_ANTHROPIC_MESSAGES] = CARRY_STOP | CARRY_RESULT_ERROR | CARRY_RESULT_IMAGE |
                                       CARRY_SIGNED_REASONING | CARRY_CACHE_WRITES,
    };
    return table[dialect->id];
}

/* ---- a canonical telling, to compare ---- */

static str canonical(struct arena *arena, str json)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    if (!json_parse(arena, json, (struct json_limits){0}, &tree, &ignored))
        return json;
    return json_canonical(arena, tree);
}

static void tell_call(struct arena *arena, struct strbuf *out, const struct part *part)
{
    strbuf_printf(out, "call " STR_FMT " " STR_FMT " " STR_FMT "\n", STR_ARG(part->call_id),
                  STR_ARG(part->name), STR_ARG(canonical(arena, part->arguments)));
}

static void tell_result(struct strbuf *out, const struct part *part, unsigned both)
{
    bool is_error = part->is_error && (both & CARRY_RESULT_ERROR);
    strbuf_printf(out, "result " STR_FMT " " STR_FMT "%s " STR_FMT "\n", STR_ARG(part->call_id),
                  STR_ARG(part->name), is_error ? " failed" : "", STR_ARG(part->text));
}

static void tell_part(struct arena *arena, struct strbuf *out, const struct part *part,
                      unsigned both)
{
    str of_call = both & CARRY_RESULT_IMAGE ? part->call_id : STR_NONE;
    str detail = both & CARRY_IMAGE_DETAIL ? part->opaque : STR_NONE;
    if (str_equal(detail, S("\"auto\""))) /* the default, said or not */
        detail = STR_NONE;
    switch (part->kind) {
    case PART_TEXT:
        if (part->text.len > 0)
            strbuf_printf(out, "text " STR_FMT "\n", STR_ARG(part->text));
        break;
    case PART_IMAGE:
        strbuf_printf(out, "image " STR_FMT " " STR_FMT " " STR_FMT "\n", STR_ARG(of_call),
                      STR_ARG(detail), STR_ARG(part->text));
        break;
    case PART_TOOL_CALL: tell_call(arena, out, part); break;
    case PART_TOOL_RESULT: tell_result(out, part, both); break;
    case PART_REASONING:
        if (both & CARRY_SIGNED_REASONING)
            strbuf_printf(out, "reasoning " STR_FMT " " STR_FMT "\n", STR_ARG(part->opaque),
                          STR_ARG(part->text));
        break;
    }
}

static str role_word(enum role role)
{
    return role == ROLE_TOOL ? S("user") : str_from_cstr(role_name(role));
}

static void tell_messages(struct arena *arena, struct strbuf *out, const struct prompt *prompt,
                          unsigned both)
{
    str role = STR_NONE;
    for (size_t i = 0; i < prompt->message_count; i++) {
        const struct prompt_message *message = &prompt->messages[i];
        if (!str_equal(role_word(message->role), role))
            strbuf_printf(out, STR_FMT ":\n", STR_ARG(role_word(message->role)));
        role = role_word(message->role);
        for (size_t k = 0; k < message->part_count; k++)
            tell_part(arena, out, &message->parts[k], both);
    }
}

static void tell_extra(struct arena *arena, struct strbuf *out, const struct prompt *prompt,
                       unsigned both)
{
    static const str names[] = {S_INIT("top_p"), S_INIT("reasoning_effort"), S_INIT("service_tier"),
                                S_INIT("stop")};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const struct json *item = json_get(prompt->extra, names[i]);
        bool is_told = item && (i < 3 || (both & CARRY_STOP));
        if (is_told)
            strbuf_printf(out, STR_FMT " " STR_FMT "\n", STR_ARG(names[i]),
                          STR_ARG(json_canonical(arena, item)));
    }
}

static str tell_prompt(struct arena *arena, const struct prompt *prompt, unsigned both)
{
    struct strbuf out;
    bool is_default = prompt->tool_choice.len == 0 && prompt->tool_count > 0;
    str choice = is_default ? S("auto") : prompt->tool_choice;
    strbuf_init(&out, arena, 8u << 20);
    strbuf_printf(&out,
                  "model " STR_FMT " max %lld temperature %.3f choice '" STR_FMT "' parallel "
                  "%d user " STR_FMT "\n",
                  STR_ARG(prompt->model), (long long) prompt->max_output_tokens,
                  prompt->temperature, STR_ARG(choice), prompt->parallel_tool_calls,
                  STR_ARG(prompt->user));
    if (prompt->response_format.len > 0) {
        const struct json *schema = json_path(dialect_testkit_parse(arena, prompt->response_format),
                                              S("/json_schema/schema"));
        strbuf_printf(&out, "format " STR_FMT "\n", STR_ARG(json_canonical(arena, schema)));
    }
    for (size_t i = 0; i < prompt->tool_count; i++) {
        const struct tool_spec *tool = &prompt->tools[i];
        strbuf_printf(&out, "tool " STR_FMT " '" STR_FMT "' " STR_FMT " %d\n", STR_ARG(tool->name),
                      STR_ARG(tool->description), STR_ARG(canonical(arena, tool->parameters)),
                      tool->is_strict);
    }
    tell_extra(arena, &out, prompt, both);
    tell_messages(arena, &out, prompt, both);
    return strbuf_str(&out);
}

/* What belongs to a thought; an item of Responses around plain words says nothing that the words do not. */
static str reasoning_opaque(struct arena *arena, str opaque)
{
    bool is_object = str_starts_with(opaque, S("{"));
    if (!is_object || str_starts_with(opaque, S("{\"openai_item\"")))
        return STR_NONE;
    return canonical(arena, opaque);
}

static str tell_reply(struct arena *arena, const struct reply *reply, unsigned both)
{
    struct strbuf out, text;
    strbuf_init(&out, arena, 8u << 20);
    strbuf_init(&text, arena, 8u << 20);
    for (size_t i = 0; i < reply->part_count; i++) {
        const struct part *part = &reply->parts[i];
        if (part->kind == PART_TEXT)
            strbuf_add(&text, part->text);
        else if (part->kind == PART_REASONING)
            strbuf_printf(&out, "reasoning " STR_FMT " " STR_FMT "\n",
                          STR_ARG(reasoning_opaque(arena, part->opaque)), STR_ARG(part->text));
        else
            tell_part(arena, &out, part, both);
    }
    const struct usage *u = &reply->usage;
    strbuf_printf(&out, "text " STR_FMT "\nfinish %s\nusage %d %lld %lld %lld %lld %lld\n",
                  STR_ARG(strbuf_str(&text)), finish_name(reply->finish), u->is_reported,
                  (long long) u->input_tokens, (long long) u->output_tokens,
                  (long long) u->cached_tokens, (long long) u->reasoning_tokens,
                  (long long) (both & CARRY_CACHE_WRITES ? u->cache_write_tokens : 0));
    return strbuf_str(&out);
}

/* Tells the first difference with what stands before and behind it. */
static void check_same(const char *what, uint64_t seed, str wanted, str got)
{
    size_t at = 0;
    if (str_equal(wanted, got))
        return;
    while (at < wanted.len && at < got.len && wanted.ptr[at] == got.ptr[at])
        at++;
    size_t from = at > 120 ? at - 120 : 0;
    fail_msg("%s (seed %llu): wanted\n..." STR_FMT "\ngot\n..." STR_FMT, what,
             (unsigned long long) seed, STR_ARG(str_slice(wanted, from, at + 240)),
             STR_ARG(str_slice(got, from, at + 240)));
}

/* ---- one and one ---- */

static const struct json *written_request(struct arena *arena, const struct dialect *dialect,
                                          const struct prompt *prompt, bool is_stream)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 8u << 20);
    json_writer_init(&w, &text);
    dialect->write_request(&w, prompt, is_stream);
    return dialect_testkit_parse(arena, strbuf_str(&text));
}

static struct prompt read_request(struct arena *arena, const struct dialect *dialect,
                                  const struct json *body)
{
    struct prompt prompt;
    struct error e = {0};
    if (!dialect->to_prompt(arena, body, &prompt, &e))
        fail_msg("%s refuses what it wrote: %s\n" STR_FMT, dialect->name, e.message,
                 STR_ARG(json_print(arena, body)));
    return prompt;
}

static struct reply through_reply(struct arena *arena, const struct dialect *dialect,
                                  const struct reply *reply)
{
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    struct reply out;
    struct dialect_answer answer = {
        .id = reply->id, .model = reply->model, .created = 1700000000, .wants_usage = true};
    strbuf_init(&text, arena, 8u << 20);
    json_writer_init(&w, &text);
    dialect->write_reply(&w, &answer, reply);
    if (!dialect->read_reply(arena, dialect_testkit_parse(arena, strbuf_str(&text)), &out, &e))
        fail_msg("%s refuses its own answer: %s", dialect->name, e.message);
    return out;
}

static struct reply through_stream(struct arena *arena, const struct dialect *dialect,
                                   const struct reply *reply, uint64_t seed)
{
    struct reply out;
    struct error e = {0};
    str bytes = dialect_contract_write_stream(arena, dialect, reply, seed);
    if (!dialect_contract_read_stream(arena, dialect, bytes, seed, &out, &e))
        fail_msg("%s refuses its own stream (seed %llu): %s", dialect->name,
                 (unsigned long long) seed, e.message);
    return out;
}

static void check_request(struct arena *arena, const struct dialect *dialect, uint64_t seed)
{
    struct prompt *prompt = dialect_contract_prompt(arena, seed);
    const struct json *body = written_request(arena, dialect, prompt, true);
    struct prompt again = read_request(arena, dialect, body);
    struct dialect_request request;
    struct error e = {0};
    unsigned own = carries(dialect);
    check_same(dialect->name, seed, tell_prompt(arena, prompt, own),
               tell_prompt(arena, &again, own));
    assert_true(dialect->read(arena, body, &request, &e));
    assert_true(str_equal(request.model, prompt->model));
    assert_true(request.is_stream && request.choices == 1);
    assert_int_equal(request.max_output_tokens, prompt->max_output_tokens);
    assert_int_equal(request.has_tools, prompt->tool_count > 0);
    assert_int_equal(request.wants_json, prompt->response_format.len > 0);
    assert_true(str_equal(request.user, prompt->user));
    assert_true(request.input_tokens_bound > 0);
}

static void check_reply(struct arena *arena, const struct dialect *dialect, uint64_t seed)
{
    const struct reply *reply = dialect_contract_reply(arena, seed);
    unsigned own = carries(dialect);
    struct reply whole = through_reply(arena, dialect, reply);
    struct reply streamed = through_stream(arena, dialect, reply, seed);
    str wanted = tell_reply(arena, reply, own);
    check_same(dialect->name, seed, wanted, tell_reply(arena, &whole, own));
    check_same(dialect->name, seed, wanted, tell_reply(arena, &streamed, own));
}

/* ---- pass-through ---- */

static void check_glances(struct arena *arena, const struct dialect *dialect, uint64_t seed)
{
    const struct reply *reply = dialect_contract_reply(arena, seed);
    str bytes = dialect_contract_write_stream(arena, dialect, reply, seed);
    struct glance_state state = {0};
    enum glance_kind kind;
    struct error e = {0};
    struct sse_event event;
    size_t contents = 0;
    OWNED(sse_parser) parser = sse_parser_create(0);
    assert_true(sse_parser_feed(parser, bytes, &e));
    while (sse_parser_next(parser, &event)) {
        OWNED(arena) scratch = arena_create(0);
        if (event.data.len == 0)
            continue;
        assert_false(state.has_ended);
        if (!dialect->glance(&state, scratch, event.event, event.data, &kind, &e))
            fail_msg("%s: a glance fails: %s", dialect->name, e.message);
        contents += kind == GLANCE_CONTENT;
    }
    assert_true(state.has_finish && state.has_ended);
    assert_int_equal(state.has_content, reply->part_count > 0);
    assert_int_equal(contents > 0, reply->part_count > 0);
    struct reply seen = {.finish = state.finish, .usage = state.usage};
    struct reply told = {.finish = reply->finish, .usage = reply->usage};
    if (reply->part_count == 0 || dialect->id != DIALECT_OPENAI_RESPONSES) /* its calls tell */
        check_same(dialect->name, seed, tell_reply(arena, &told, carries(dialect)),
                   tell_reply(arena, &seen, carries(dialect)));
    bool has_words = false;
    for (size_t i = 0; i < reply->part_count; i++)
        has_words = has_words || reply->parts[i].text.len > 0 || reply->parts[i].name.len > 0;
    assert_true(!has_words || glance_output_estimate(&state) > 0);
}

static void check_edits(struct arena *arena, const struct dialect *dialect)
{
    bool is_responses = dialect->id == DIALECT_OPENAI_RESPONSES;
    const char *limit = is_responses ? "max_output_tokens" : "max_tokens";
    str body =
        str_printf(arena,
                   " {\"unknown\" : [1.50e1, {\"model\":\"x\"}],\"model\":\"a\",  \"%s\":900 , "
                   "\"z\":\"\\u00e9\" } ",
                   limit);
    str wanted =
        str_printf(arena,
                   " {\"unknown\" : [1.50e1, {\"model\":\"x\"}],\"model\":\"b\",  \"%s\":70 , "
                   "\"z\":\"\\u00e9\" } ",
                   limit);
    struct dialect_edits edits = {.model = S("b"), .max_output_tokens = 70};
    struct error e = {0};
    str out;
    assert_true(dialect->edit_request(arena, body, &edits, &out, &e));
    check_same(dialect->name, 0, wanted, out);
    assert_true(dialect->edit_request(arena, S("{\"model\":\"a\"}"), &edits, &out, &e));
    check_same(dialect->name, 0, str_printf(arena, "{\"model\":\"b\",\"%s\":70}", limit), out);
    assert_false(dialect->edit_request(arena, S("[1]"), &edits, &out, &e));
}

/* ---- filter ---- */

static bool is_seen(const struct dialect *dialect, enum dialect_document what,
                    const struct json *tree, str word)
{
    struct dialect_text texts[64];
    str text;
    size_t count = dialect->texts(what, tree, texts, ARRAY_COUNT(texts));
    assert_true(count <= ARRAY_COUNT(texts));
    for (size_t i = 0; i < count; i++) {
        if (json_to_str(texts[i].value, &text) && str_find(text, word) != STR_NOT_FOUND)
            return true;
    }
    return false;
}

static void check_texts(struct arena *arena, const struct dialect *dialect)
{
    static const str in_request[] = {S_INIT("be brief"),         S_INIT("what is on these"),
                                     S_INIT("I call two tools"), S_INIT("Zürich"),
                                     S_INIT("no clock here"),    S_INIT("and now?")};
    static const str in_reply[] = {S_INIT("first I think"), S_INIT("line one"), S_INIT("Zürich")};
    const struct json *body =
        written_request(arena, dialect, dialect_contract_prompt(arena, 0), false);
    for (size_t i = 0; i < ARRAY_COUNT(in_request); i++) {
        if (!is_seen(dialect, DOCUMENT_REQUEST, body, in_request[i]))
            fail_msg("%s: the filter does not see '" STR_FMT "' of a request", dialect->name,
                     STR_ARG(in_request[i]));
    }
    struct strbuf text;
    struct json_writer w;
    struct dialect_answer answer = {.id = S("i"), .model = S("m"), .created = 1};
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    dialect->write_reply(&w, &answer, dialect_contract_reply(arena, 0));
    for (size_t i = 0; i < ARRAY_COUNT(in_reply); i++) {
        if (!is_seen(dialect, DOCUMENT_REPLY, dialect_testkit_parse(arena, strbuf_str(&text)),
                     in_reply[i]))
            fail_msg("%s: the filter does not see '" STR_FMT "' of a reply", dialect->name,
                     STR_ARG(in_reply[i]));
    }
}

/* Pieces of one channel, put together, hold what the reply's parts say. */
static void check_event_texts(struct arena *arena, const struct dialect *dialect)
{
    const struct reply *reply = dialect_contract_reply(arena, 0);
    str bytes = dialect_contract_write_stream(arena, dialect, reply, 0);
    struct strbuf *channels = ARENA_ARRAY(arena, struct strbuf, 64);
    uint32_t names[64];
    size_t channel_count = 0;
    struct error e = {0};
    struct sse_event event;
    OWNED(sse_parser) parser = sse_parser_create(0);
    assert_true(sse_parser_feed(parser, bytes, &e));
    while (sse_parser_next(parser, &event)) {
        struct dialect_text texts[64];
        if (event.data.len == 0 || str_equal(event.data, S("[DONE]")))
            continue;
        size_t count = dialect->texts(DOCUMENT_EVENT, dialect_testkit_parse(arena, event.data),
                                      texts, ARRAY_COUNT(texts));
        for (size_t i = 0; i < count; i++) {
            size_t place = 0;
            str text;
            while (place < channel_count && names[place] != texts[i].channel)
                place++;
            if (place == channel_count) {
                assert_true(channel_count < 64);
                names[channel_count++] = texts[i].channel;
                strbuf_init(&channels[place], arena, 1u << 20);
            }
            assert_true(json_to_str(texts[i].value, &text));
            strbuf_add(&channels[place], text);
        }
    }
    for (size_t i = 0; i < reply->part_count; i++) {
        const struct part *part = &reply->parts[i];
        str text = part->kind == PART_TOOL_CALL ? part->arguments : part->text;
        bool is_found = text.len == 0;
        for (size_t k = 0; k < channel_count; k++)
            is_found = is_found || str_find(strbuf_str(&channels[k]), text) != STR_NOT_FOUND;
        if (!is_found)
            fail_msg("%s: no channel of the events holds '" STR_FMT "'", dialect->name,
                     STR_ARG(text));
    }
}

/* ---- errors ---- */

static void check_errors(struct arena *arena, const struct dialect *dialect)
{
    static const struct {
        enum error_reason ours, theirs;
    } classes[] = {
        {REASON_RATE_LIMIT, REASON_PROVIDER_RATE_LIMITED},
        {REASON_UNAUTHENTICATED, REASON_PROVIDER_AUTH},
        {REASON_DENIED, REASON_PROVIDER_AUTH},
        {REASON_BUDGET, REASON_PROVIDER_QUOTA},
        {REASON_INVALID, REASON_PROVIDER_INVALID},
        {REASON_UNKNOWN_MODEL, REASON_PROVIDER_INVALID},
        {REASON_TOO_LARGE, REASON_PROVIDER_INVALID},
        {REASON_OVERLOADED_HERE, REASON_PROVIDER_OVERLOADED},
        {REASON_TIMEOUT, REASON_PROVIDER_TIMEOUT},
    };
    for (size_t i = 0; i < ARRAY_COUNT(classes); i++) {
        struct error e = {0}, read = {0};
        struct strbuf text;
        struct json_writer w;
        strbuf_init(&text, arena, 1u << 16);
        json_writer_init(&w, &text);
        error_set(&e, classes[i].ours, "it \"went\" wrong");
        dialect->write_error(&w, &e, S("req-1"));
        dialect_testkit_parse(arena, strbuf_str(&text));
        assert_false(dialect->error_from_status(error_http_status(e.reason), strbuf_str(&text),
                                                1500, arena, &read));
        if (read.reason != classes[i].theirs)
            fail_msg("%s: %s is read as %s", dialect->name, error_problem(e.reason),
                     error_problem(read.reason));
        assert_int_equal(read.retry_after_ms, 1500);
        assert_non_null(strstr(read.message, "it \"went\" wrong"));
    }
}

static void check_error_in_stream(struct arena *arena, const struct dialect *dialect)
{
    struct error e = {0}, seen = {0};
    struct strbuf out;
    struct sse_event event;
    struct glance_state state = {0};
    enum glance_kind kind = GLANCE_LIFECYCLE;
    struct reply reply;
    OWNED(sse_parser) parser = sse_parser_create(0);
    strbuf_init(&out, arena, 1u << 16);
    error_set(&e, REASON_PROVIDER_OVERLOADED, "too busy");
    dialect->write_stream_error(&e, &out);
    assert_true(sse_parser_feed(parser, strbuf_str(&out), &seen));
    assert_true(sse_parser_next(parser, &event));
    assert_false(dialect->glance(&state, arena, event.event, event.data, &kind, &seen));
    assert_int_equal(kind, GLANCE_ERROR);
    assert_int_equal(seen.code, ERROR_UNAVAILABLE);
    seen = (struct error){0};
    assert_false(dialect_contract_read_stream(arena, dialect, strbuf_str(&out), 1, &reply, &seen));
    assert_int_equal(seen.code, ERROR_UNAVAILABLE);
    assert_non_null(strstr(seen.message, "too busy"));
}

/* ---- public ---- */

void dialect_contract(const struct dialect *dialect, uint64_t seed)
{
    OWNED(arena) arena = arena_create(1u << 30);
    check_request(arena, dialect, seed);
    check_reply(arena, dialect, seed);
    check_glances(arena, dialect, seed);
    if (seed != 0)
        return;
    check_edits(arena, dialect);
    check_texts(arena, dialect);
    check_event_texts(arena, dialect);
    check_errors(arena, dialect);
    check_error_in_stream(arena, dialect);
}

void dialect_contract_pair(const struct dialect *in, const struct dialect *out, uint64_t seed)
{
    OWNED(arena) arena = arena_create(1u << 30);
    unsigned both = carries(in) & carries(out);
    struct prompt *prompt = dialect_contract_prompt(arena, seed);
    struct prompt read = read_request(arena, in, written_request(arena, in, prompt, false));
    struct prompt sent = read_request(arena, out, written_request(arena, out, &read, true));
    const char *what = str_to_cstr(arena, str_printf(arena, "%s -> %s", in->name, out->name));
    check_same(what, seed, tell_prompt(arena, prompt, both), tell_prompt(arena, &sent, both));
    struct reply *reply = dialect_contract_reply(arena, seed);
    struct reply whole = through_reply(arena, out, reply);
    struct reply told = through_reply(arena, in, &whole);
    what = str_to_cstr(arena, str_printf(arena, "%s <- %s", in->name, out->name));
    check_same(what, seed, tell_reply(arena, reply, both), tell_reply(arena, &told, both));
    struct reply streamed = through_stream(arena, out, reply, seed);
    told = through_stream(arena, in, &streamed, seed + 1);
    check_same(what, seed, tell_reply(arena, reply, both), tell_reply(arena, &told, both));
}
