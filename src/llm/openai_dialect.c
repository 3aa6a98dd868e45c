/*
 * OpenAI Chat Completions as a dialect (llm/dialect.h), over openai_format.
 *
 * Chunks of a stream look like {"id", "object", "choices": [{"index", "delta": {...}, "finish_reason"}], "usage"}: once there was
 * content, only those that may hold usage, an error or a finish reason are parsed.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/dialect.h"
#include "llm/openai_format_internal.h"
#include "llm/splice.h"

enum { CHOICES_MAX = 128 };

/* ---- in ---- */

static bool read_limits(const struct json *body, struct dialect_request *out, struct error *e)
{
    int64_t max_tokens = 0, max_completion = 0;
    out->choices = 1;
    if (!json_read_i64(body, S("max_tokens"), 1, INT32_MAX, &max_tokens, e) ||
        !json_read_i64(body, S("max_completion_tokens"), 1, INT32_MAX, &max_completion, e) ||
        !json_read_i64(body, S("n"), 1, CHOICES_MAX, &out->choices, e))
        return false;
    out->max_output_tokens = max_tokens;
    if (max_completion > 0 && (max_tokens == 0 || max_completion < max_tokens))
        out->max_output_tokens = max_completion;
    return true;
}

static bool chat_read(struct arena *arena, const struct json *body, struct dialect_request *out,
                      struct error *e)
{
    (void) arena;
    struct dialect_request request = {.may_store = false};
    const struct json *messages = json_get(body, S("messages"));
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(body, S("model"), &request.model, e) ||
        !json_read_bool(body, S("stream"), &request.is_stream, e) ||
        !read_limits(body, &request, e) || !json_read_str(body, S("user"), &request.user, e))
        return false;
    if (json_type(messages) != JSON_ARRAY || json_count(messages) == 0)
        return error_set(e, REASON_SCHEMA, "messages must be an array with at least one message");
    size_t tools =
        json_count(json_get(body, S("tools"))) + json_count(json_get(body, S("functions")));
    str format = json_str_or(json_get(body, S("response_format")), S("type"), S("text"));
    request.wants_usage =
        json_bool_or(json_get(body, S("stream_options")), S("include_usage"), false);
    request.has_tools = tools > 0;
    request.wants_json = !str_equal(format, S("text"));
    request.input_tokens_bound =
        dialect_input_tokens_bound(body, json_count(messages), tools, &request.has_images);
    *out = request;
    return true;
}

static bool chat_to_prompt(struct arena *arena, const struct json *body, struct prompt *out,
                           struct error *e)
{
    bool is_stream, include_usage;
    return openai_read_request(arena, body, out, &is_stream, &include_usage, e);
}

static struct openai_answer to_openai(const struct dialect_answer *answer)
{
    return (struct openai_answer){
        .id = answer->id, .model = answer->model, .created = answer->created};
}

static void chat_write_reply(struct json_writer *w, const struct dialect_answer *answer,
                             const struct reply *reply)
{
    struct openai_answer head = to_openai(answer);
    openai_write_reply(w, &head, reply);
}

static void chat_write_error(struct json_writer *w, const struct error *e, str request_id)
{
    (void) request_id; /* in the header only */
    openai_write_error(w, e);
}

/* ---- a streamed answer from deltas ---- */

struct chat_writer {
    const struct dialect_answer *answer;
    bool has_begun;        /* the first chunk carries the role */
    struct arena *arena;   /* of the thought; NULL until there is one */
    struct strbuf thought; /* what came of the one in work, for the block that ends it */
    int thought_count;
};

static void chat_writer_open(void *memory, const struct dialect_answer *answer)
{
    *(struct chat_writer *) memory = (struct chat_writer){.answer = answer};
}

static void chat_writer_close(void *memory)
{
    struct chat_writer *writer = memory;
    arena_destroy(writer->arena);
    writer->arena = NULL;
}

/* A signature belongs to a text that has long been sent, piece by piece: who sends the block back needs both.  True: the delta ends a
   block. */
static bool gather_thought(struct chat_writer *writer, const struct delta *delta)
{
    bool is_end = str_starts_with(delta->opaque, S("{"));
    bool is_signed_nowhere =
        delta->kind != DELTA_REASONING || str_starts_with(delta->opaque, S("\""));
    if (!writer->arena && (is_signed_nowhere || (delta->text.len == 0 && !is_end)))
        return false;
    if (!writer->arena) {
        writer->arena = arena_create(4 * (size_t) PROVIDER_ANSWER_BYTES_MAX);
        strbuf_init(&writer->thought, writer->arena, PROVIDER_ANSWER_BYTES_MAX);
    }
    if (is_signed_nowhere)
        strbuf_truncate(&writer->thought, 0);
    else
        strbuf_add(&writer->thought, delta->text);
    return delta->kind == DELTA_REASONING && is_end;
}

static void chat_writer_delta(void *memory, const struct delta *delta, struct strbuf *out)
{
    struct chat_writer *writer = memory;
    struct openai_answer head = to_openai(writer->answer);
    struct json_writer w;
    bool ends_thought = gather_thought(writer, delta);
    struct openai_thinking thinking = {strbuf_str(&writer->thought), writer->thought_count};
    dialect_data_begin(out, STR_NONE, &w);
    openai_write_chunk(&w, &head, delta, ends_thought ? &thinking : NULL, !writer->has_begun);
    dialect_data_end(out);
    writer->has_begun = true;
    if (ends_thought) {
        strbuf_truncate(&writer->thought, 0);
        writer->thought_count++;
    }
    if (delta->kind != DELTA_END)
        return;
    chat_writer_close(writer);
    if (writer->answer->wants_usage) {
        dialect_data_begin(out, STR_NONE, &w);
        openai_write_usage_chunk(&w, &head, &delta->usage);
        dialect_data_end(out);
    }
    strbuf_add(out, S("data: [DONE]\n\n"));
}

static void chat_write_stream_error(const struct error *e, struct strbuf *out)
{
    struct json_writer w;
    dialect_data_begin(out, STR_NONE, &w);
    openai_write_error(&w, e);
    dialect_data_end(out);
}

static void chat_writer_error(void *memory, const struct error *e, struct strbuf *out)
{
    chat_write_stream_error(e, out);
    chat_writer_close(memory);
}

static void chat_write_ping(struct strbuf *out)
{
    strbuf_add(out, S(": keep-alive\n\n"));
}

/* ---- pass-through ---- */

static bool chat_edit_request(struct arena *arena, str body, const struct dialect_edits *edits,
                              str *out, struct error *e)
{
    static const struct splice_table table = {
        .limits = {S_INIT("max_tokens"), S_INIT("max_completion_tokens")},
        .stream_options = S_INIT("stream_options"),
    };
    return splice_request(arena, body, &table, edits, out, e);
}

static void measure(struct glance_state *state, str data)
{
    static const str members[] = {S_INIT("\"content\""), S_INIT("\"arguments\""),
                                  S_INIT("\"reasoning_content\""), S_INIT("\"reasoning\""),
                                  S_INIT("\"refusal\"")};
    glance_count(state, data, members, ARRAY_COUNT(members));
}

static bool is_given(const struct json *value)
{
    str text;
    if (json_to_str(value, &text))
        return !str_is_empty(text);
    return json_count(value) > 0; /* lists of calls, objects (audio, function_call) */
}

/* Anything a delta says beyond who speaks. */
static bool delta_has_content(const struct json *delta)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(json_type(delta) == JSON_OBJECT ? delta : NULL);
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("role")) && is_given(item))
            return true;
    return false;
}

static void look_at_choices(struct glance_state *state, const struct json *choices,
                            bool *has_content)
{
    const struct json *choice;
    struct json_iter it = json_iter(json_type(choices) == JSON_ARRAY ? choices : NULL);
    while (json_next(&it, NULL, &choice)) {
        enum finish finish = openai_read_finish(json_str_or(choice, S("finish_reason"), STR_NONE));
        if (finish != FINISH_NONE) {
            state->finish = finish;
            state->has_finish = true;
        }
        str text = json_str_or(choice, S("text"), STR_NONE); /* some servers' older form */
        *has_content =
            *has_content || !str_is_empty(text) || delta_has_content(json_get(choice, S("delta")));
    }
}

static bool look_closely(struct glance_state *state, struct arena *scratch, str data,
                         enum glance_kind *kind, struct error *e)
{
    const struct json *chunk;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    *kind = GLANCE_ERROR;
    if (!json_parse(scratch, data, limits, &chunk, &parse) || json_type(chunk) != JSON_OBJECT)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider sent a chunk that is not JSON");
    const struct json *error = json_get(chunk, S("error"));
    if (json_type(error) != JSON_ABSENT && json_type(error) != JSON_NULL)
        return openai_error_from_json(error, 200, 0, scratch, e);
    struct usage usage = openai_read_usage(json_get(chunk, S("usage")));
    if (!usage.is_reported) /* one host's place for it */
        usage = openai_read_usage(json_path(chunk, S("/x_groq/usage")));
    if (usage.is_reported)
        state->usage = usage;
    const struct json *choices = json_get(chunk, S("choices"));
    bool has_content = false, had_finish = state->has_finish;
    look_at_choices(state, choices, &has_content);
    state->has_content = state->has_content || has_content;
    if (has_content)
        measure(state, data);
    if (state->has_finish && !had_finish)
        *kind = GLANCE_FINISH;
    else if (has_content)
        *kind = GLANCE_CONTENT;
    else if (json_type(json_get(chunk, S("usage"))) == JSON_OBJECT && json_count(choices) == 0)
        *kind = GLANCE_USAGE;
    else
        *kind = GLANCE_LIFECYCLE;
    return true;
}

static bool chat_glance(struct glance_state *state, struct arena *scratch, str event, str data,
                        enum glance_kind *kind, struct error *e)
{
    (void) event;
    if (str_equal(data, S("[DONE]"))) {
        state->has_ended = true;
        *kind = GLANCE_END;
        return true;
    }
    if (!state->has_content || !dialect_looks_whole(data) ||
        dialect_may_hold(data, S("\"finish_reason\"")) || dialect_may_hold(data, S("\"usage\"")) ||
        dialect_may_hold(data, S("\"error\"")))
        return look_closely(state, scratch, data, kind, e);
    measure(state, data);
    *kind = GLANCE_CONTENT;
    return true;
}

/* ---- out ---- */

static bool chat_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                            struct error *e)
{
    return openai_read_reply(arena, body, out, e);
}

/* ---- filter ---- */

struct texts {
    struct dialect_text *out;
    size_t count, max;
};

/* Counts on past the end, so that the caller sees that there were more. */
static void add_text(struct texts *texts, const struct json *value, uint32_t channel, bool is_json)
{
    if (json_type(value) != JSON_STRING)
        return;
    if (texts->count < texts->max)
        texts->out[texts->count] =
            (struct dialect_text){.value = value, .channel = channel, .is_json = is_json};
    texts->count++;
}

/* A string, or a list of parts with text in them. */
static void add_content(struct texts *texts, const struct json *content, uint32_t channel)
{
    const struct json *part;
    add_text(texts, content, channel, false);
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    while (json_next(&it, NULL, &part)) {
        add_text(texts, json_get(part, S("text")), channel, false);
        add_text(texts, json_get(part, S("refusal")), channel, false);
    }
}

/* Channels of a choice: content, refusal, reasoning (two names), older servers' forms of a call and of a text, what an audio says,
   reasoning in a list, then its calls. */
enum {
    CHANNEL_CONTENT,
    CHANNEL_REFUSAL,
    CHANNEL_REASONING,
    CHANNEL_FUNCTION,
    CHANNEL_TEXT,
    CHANNEL_AUDIO,
    CHANNEL_DETAILS,
    CHANNEL_CALLS = 8,
    CHANNELS = 1024
};

static void add_message(struct texts *texts, const struct json *message, uint32_t base)
{
    const struct json *call;
    int64_t place = 0;
    add_content(texts, json_get(message, S("content")), base + CHANNEL_CONTENT);
    add_text(texts, json_get(message, S("refusal")), base + CHANNEL_REFUSAL, false);
    add_text(texts, json_get(message, S("reasoning_content")), base + CHANNEL_REASONING, false);
    add_text(texts, json_get(message, S("reasoning")), base + CHANNEL_REASONING, false);
    add_text(texts, json_path(message, S("/function_call/arguments")), base + CHANNEL_FUNCTION,
             true);
    add_text(texts, json_path(message, S("/audio/transcript")), base + CHANNEL_AUDIO, false);
    const struct json *detail, *details = json_get(message, S("reasoning_details"));
    struct json_iter it = json_iter(json_type(details) == JSON_ARRAY ? details : NULL);
    while (json_next(&it, NULL, &detail)) {
        add_text(texts, json_get(detail, S("text")), base + CHANNEL_DETAILS, false);
        add_text(texts, json_get(detail, S("summary")), base + CHANNEL_DETAILS, false);
    }
    const struct json *calls = json_get(message, S("tool_calls"));
    it = json_iter(json_type(calls) == JSON_ARRAY ? calls : NULL);
    while (json_next(&it, NULL, &call)) {
        int64_t index = json_i64_or(call, S("index"), place++);
        uint32_t channel = base + CHANNEL_CALLS + (uint32_t) (index & (CHANNELS / 2 - 1));
        add_text(texts, json_path(call, S("/function/arguments")), channel, true);
        add_text(texts, json_path(call, S("/custom/input")), channel, false);
    }
}

static size_t chat_texts(enum dialect_document what, const struct json *tree,
                         struct dialect_text *out, size_t max)
{
    struct texts texts = {.out = out, .max = max};
    bool is_request = what == DOCUMENT_REQUEST;
    const struct json *list = json_get(tree, is_request ? S("messages") : S("choices")), *item;
    uint32_t place = 0;
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &item)) {
        uint32_t index = is_request ? place++ : (uint32_t) json_i64_or(item, S("index"), 0);
        const struct json *message =
            is_request ? item : json_get(item, what == DOCUMENT_EVENT ? S("delta") : S("message"));
        add_message(&texts, message, index * CHANNELS);
        if (!is_request)
            add_text(&texts, json_get(item, S("text")), index * CHANNELS + CHANNEL_TEXT, false);
    }
    if (is_request) /* what the caller expects to be answered */
        add_content(&texts, json_path(tree, S("/prediction/content")), place * CHANNELS);
    return texts.count;
}

const struct dialect openai_chat_dialect = {
    .id = DIALECT_OPENAI_CHAT,
    .name = "openai_chat",
    .path = S_INIT("/chat/completions"),
    .answer_prefix = "chatcmpl-",
    .read = chat_read,
    .to_prompt = chat_to_prompt,
    .write_reply = chat_write_reply,
    .write_error = chat_write_error,
    .writer_bytes = sizeof(struct chat_writer),
    .writer_open = chat_writer_open,
    .writer_delta = chat_writer_delta,
    .writer_error = chat_writer_error,
    .writer_close = chat_writer_close,
    .write_ping = chat_write_ping,
    .edit_request = chat_edit_request,
    .glance = chat_glance,
    .stream_end = S_INIT("data: [DONE]\n\n"),
    .write_stream_error = chat_write_stream_error,
    .write_request = openai_write_request,
    .read_reply = chat_read_reply,
    .error_from_status = openai_error_from_status,
    .texts = chat_texts,
};
