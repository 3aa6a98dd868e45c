/*
 * Anthropic Messages as a dialect (llm/dialect.h), over anthropic_format.
 *
 * Every event of a stream has its type in its name and as the first member of its data, so an ordinary piece of content is known
 * without parsing.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/anthropic_format_internal.h"
#include "llm/splice.h"

/* ---- in ---- */

static bool messages_read(struct arena *arena, const struct json *body, struct dialect_request *out,
                          struct error *e)
{
    (void) arena;
    struct dialect_request request = {.choices = 1, .wants_usage = true};
    const struct json *messages = json_get(body, S("messages"));
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(body, S("model"), &request.model, e) ||
        !json_read_bool(body, S("stream"), &request.is_stream, e) ||
        !json_read_i64(body, S("max_tokens"), 1, INT32_MAX, &request.max_output_tokens, e))
        return false;
    if (json_type(messages) != JSON_ARRAY || json_count(messages) == 0)
        return error_set(e, REASON_SCHEMA, "messages must be an array with at least one message");
    size_t tools = json_count(json_get(body, S("tools")));
    request.has_tools = tools > 0;
    request.wants_json = json_type(json_path(body, S("/output_config/format"))) == JSON_OBJECT;
    request.user = json_str_or(json_get(body, S("metadata")), S("user_id"), STR_NONE);
    request.input_tokens_bound =
        dialect_input_tokens_bound(body, json_count(messages), tools, &request.has_images);
    *out = request;
    return true;
}

static bool messages_to_prompt(struct arena *arena, const struct json *body, struct prompt *out,
                               struct error *e)
{
    bool is_stream;
    return anthropic_read_request(arena, body, out, &is_stream, e);
}

/* ---- a streamed answer from deltas ---- */

static void messages_writer_open(void *writer, const struct dialect_answer *answer)
{
    anthropic_writer_open(writer, answer);
}

static void messages_writer_delta(void *writer, const struct delta *delta, struct strbuf *out)
{
    anthropic_writer_delta(writer, delta, out);
}

static void messages_write_stream_error(const struct error *e, struct strbuf *out)
{
    struct json_writer w;
    dialect_data_begin(out, S("error"), &w);
    anthropic_write_error(&w, e, STR_NONE);
    dialect_data_end(out);
}

static void messages_writer_error(void *writer, const struct error *e, struct strbuf *out)
{
    (void) writer; /* what is open stays open: the stream is broken, and says so */
    messages_write_stream_error(e, out);
}

static void messages_write_ping(struct strbuf *out)
{
    strbuf_add(out, S("event: ping\ndata: {\"type\":\"ping\"}\n\n"));
}

/* ---- pass-through ---- */

static bool messages_edit_request(struct arena *arena, str body, const struct dialect_edits *edits,
                                  str *out, struct error *e)
{
    static const struct splice_table table = {.limits = {S_INIT("max_tokens")}};
    struct dialect_edits own = *edits;
    own.is_new_limit_name = false; /* there is one name */
    own.include_usage = false;     /* always reported */
    return splice_request(arena, body, &table, &own, out, e);
}

static bool fail_glance(enum glance_kind *kind, struct error *e)
{
    *kind = GLANCE_ERROR;
    return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider sent an event that is not JSON");
}

/* The type when the event has no name: the first member of the data. */
static str type_of(str event, str data)
{
    str rest, type;
    if (event.len > 0 && !str_equal(event, S("message")))
        return event;
    size_t at = str_find(str_slice(data, 0, 64), S("\"type\""));
    if (at == STR_NOT_FOUND)
        return STR_NONE;
    rest = str_trim(str_from(data, at + strlen("\"type\"")));
    if (!str_strip_prefix(rest, S(":"), &rest) ||
        !str_strip_prefix(str_trim(rest), S("\""), &rest) || !str_cut(rest, '"', &type, &rest))
        return STR_NONE;
    return type;
}

static void measure(struct glance_state *state, str data)
{
    static const str members[] = {S_INIT("\"text\""), S_INIT("\"partial_json\""),
                                  S_INIT("\"thinking\"")};
    state->has_content = true;
    glance_count(state, data, members, ARRAY_COUNT(members));
}

/* Text and thinking begin empty; a call is content by its name, what the server did by its result. */
static bool begins_with_content(const struct json *block)
{
    str type = json_str_or(block, S("type"), STR_NONE);
    if (str_equal(type, S("text")))
        return json_str_or(block, S("text"), STR_NONE).len > 0;
    if (str_equal(type, S("thinking")))
        return json_str_or(block, S("thinking"), STR_NONE).len > 0;
    return true;
}

static bool look_closely(struct glance_state *state, struct arena *scratch, str type, str data,
                         enum glance_kind *kind, struct error *e)
{
    const struct json *tree;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    *kind = GLANCE_LIFECYCLE;
    if (!json_parse(scratch, data, limits, &tree, &parse) || json_type(tree) != JSON_OBJECT)
        return fail_glance(kind, e);
    type = json_str_or(tree, S("type"), type);
    if (str_equal(type, S("error")) || json_type(json_get(tree, S("error"))) == JSON_OBJECT) {
        *kind = GLANCE_ERROR;
        return anthropic_error_from_json(json_get(tree, S("error")), scratch, e);
    }
    if (str_equal(type, S("message_start"))) {
        state->usage = anthropic_begin_usage(json_path(tree, S("/message/usage")));
    } else if (str_equal(type, S("content_block_start"))) {
        if (begins_with_content(json_get(tree, S("content_block")))) {
            measure(state, data);
            *kind = GLANCE_CONTENT;
        }
    } else if (str_equal(type, S("message_delta"))) {
        str reason = json_str_or(json_get(tree, S("delta")), S("stop_reason"), STR_NONE);
        state->usage = anthropic_end_usage(json_get(tree, S("usage")), state->usage);
        state->finish = anthropic_read_finish(reason);
        state->has_finish = true;
        *kind = GLANCE_FINISH;
    }
    return true;
}

static bool messages_glance(struct glance_state *state, struct arena *scratch, str event, str data,
                            enum glance_kind *kind, struct error *e)
{
    str type = type_of(event, data);
    *kind = GLANCE_LIFECYCLE;
    if (!dialect_looks_whole(data))
        return look_closely(state, scratch, type, data, kind, e);
    if (str_equal(type, S("content_block_delta"))) {
        measure(state, data);
        *kind = GLANCE_CONTENT;
        return true;
    }
    if (str_equal(type, S("content_block_stop")) || str_equal(type, S("ping")))
        return true;
    if (!str_equal(type, S("message_stop")))
        return look_closely(state, scratch, type, data, kind, e);
    state->has_ended = true;
    *kind = GLANCE_END;
    return true;
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

/* Arguments are a tree here: every string in it.  Its depth is bounded by the parser. */
static void add_leaves(struct texts *texts, const struct json *value, uint32_t channel)
{
    const struct json *item;
    add_text(texts, value, channel, false);
    struct json_iter it = json_iter(value);
    while (json_next(&it, NULL, &item))
        add_leaves(texts, item, channel);
}

/* Complete wherever it stands, also beside pieces of the text it belongs to. */
static void add_quote(struct texts *texts, const struct json *citation, uint32_t channel)
{
    size_t before = texts->count;
    add_text(texts, json_get(citation, S("cited_text")), channel, false);
    if (texts->count > before && texts->count <= texts->max)
        texts->out[before].is_whole = true;
}

static void add_words(struct texts *texts, const struct json *block, uint32_t channel)
{
    const struct json *citation;
    const struct json *citations = json_get(block, S("citations"));
    struct json_iter it = json_iter(json_type(citations) == JSON_ARRAY ? citations : NULL);
    while (json_next(&it, NULL, &citation))
        add_quote(texts, citation, channel);
    add_text(texts, json_get(block, S("stdout")), channel, false);
    add_text(texts, json_get(block, S("stderr")), channel, false);
    add_text(texts, json_get(block, S("text")), channel, false);
    add_text(texts, json_get(block, S("thinking")), channel, false);
    add_text(texts, json_get(block, S("title")), channel, false);
    add_text(texts, json_get(block, S("context")), channel, false);
    add_leaves(texts, json_get(block, S("input")), channel);
    if (str_equal(json_str_or(json_get(block, S("source")), S("type"), STR_NONE), S("text")))
        add_text(texts, json_path(block, S("/source/data")), channel, false);
}

/* A string, or blocks; those of a result and of a document lie one level deeper. */
static void add_inner(struct texts *texts, const struct json *content, uint32_t channel, int depth)
{
    const struct json *block;
    add_text(texts, content, channel, false);
    if (json_type(content) == JSON_OBJECT) /* of what a hosted tool ran */
        add_words(texts, content, channel);
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    while (json_next(&it, NULL, &block)) {
        add_words(texts, block, channel);
        if (depth == 0)
            continue;
        add_inner(texts, json_get(block, S("content")), channel, depth - 1);
        add_inner(texts, json_path(block, S("/source/content")), channel, depth - 1);
    }
}

enum { INNER_DEPTH = 3, CHANNELS_OF_MESSAGE = 4096 };

/* The texts of a message form one, so that nothing hides in two of its blocks; each result and each call is its own. */
static void add_message(struct texts *texts, const struct json *content, uint32_t base)
{
    const struct json *block;
    uint32_t place = 0;
    add_text(texts, content, base, false);
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    for (; json_next(&it, NULL, &block); place++) {
        bool is_text = str_equal(json_str_or(block, S("type"), STR_NONE), S("text"));
        uint32_t channel = is_text ? base : base + 1 + place % (CHANNELS_OF_MESSAGE - 1);
        add_words(texts, block, channel);
        add_inner(texts, json_get(block, S("content")), channel, INNER_DEPTH);
        add_inner(texts, json_path(block, S("/source/content")), channel, INNER_DEPTH);
    }
}

static void add_event(struct texts *texts, const struct json *event)
{
    const struct json *delta = json_get(event, S("delta"));
    uint32_t channel = (uint32_t) (json_i64_or(event, S("index"), 0) & 0xffff);
    add_text(texts, json_get(delta, S("text")), channel, false);
    add_text(texts, json_get(delta, S("thinking")), channel, false);
    add_text(texts, json_get(delta, S("partial_json")), channel, true);
    add_quote(texts, json_get(delta, S("citation")), channel);
    add_words(texts, json_get(event, S("content_block")), channel);
    add_inner(texts, json_path(event, S("/content_block/content")), channel, INNER_DEPTH);
}

static size_t messages_texts(enum dialect_document what, const struct json *tree,
                             struct dialect_text *out, size_t max)
{
    struct texts texts = {.out = out, .max = max};
    const struct json *message;
    uint32_t place = 1;
    switch (what) {
    case DOCUMENT_EVENT: add_event(&texts, tree); break;
    case DOCUMENT_REPLY: add_message(&texts, json_get(tree, S("content")), 0); break;
    case DOCUMENT_REQUEST:
        add_message(&texts, json_get(tree, S("system")), 0);
        struct json_iter it = json_iter(json_get(tree, S("messages")));
        while (json_next(&it, NULL, &message))
            add_message(&texts, json_get(message, S("content")), CHANNELS_OF_MESSAGE * place++);
        break;
    }
    return texts.count;
}

const struct dialect anthropic_messages_dialect = {
    .id = DIALECT_ANTHROPIC_MESSAGES,
    .name = "anthropic_messages",
    .path = S_INIT("/messages"),
    .answer_prefix = "msg_",
    .read = messages_read,
    .to_prompt = messages_to_prompt,
    .write_reply = anthropic_write_reply,
    .write_error = anthropic_write_error,
    .writer_bytes = sizeof(struct anthropic_writer),
    .writer_open = messages_writer_open,
    .writer_delta = messages_writer_delta,
    .writer_error = messages_writer_error,
    .write_ping = messages_write_ping,
    .edit_request = messages_edit_request,
    .glance = messages_glance,
    .stream_end = S_INIT("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
    .write_stream_error = messages_write_stream_error,
    .write_request = anthropic_write_request,
    .read_reply = anthropic_read_reply,
    .error_from_status = anthropic_error_from_status,
    .texts = messages_texts,
};
