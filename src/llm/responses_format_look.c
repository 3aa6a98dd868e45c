/* Pass-through and filter: what is seen of a document without taking it apart; and the dialect's table. */
#include "base/arena.h"
#include "llm/responses_format_internal.h"
#include "llm/splice.h"

/* ---- up ---- */

bool responses_edit_request(struct arena *arena, str body, const struct dialect_edits *edits,
                            str *out, struct error *e)
{
    static const struct splice_table table = {
        .limits = {S_INIT("max_output_tokens"), S_INIT("max_output_tokens")}};
    struct dialect_edits ours = *edits;
    ours.include_usage = false; /* the last event always tells */
    return splice_request(arena, body, &table, &ours, out, e);
}

/* ---- a quick look at an event ---- */

static void measure(struct glance_state *state, str data)
{
    static const str members[] = {S_INIT("\"delta\"")};
    state->has_content = true;
    glance_count(state, data, members, ARRAY_COUNT(members));
}

static bool parse(struct arena *scratch, str data, const struct json **out, struct error *e)
{
    struct error failure = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    if (json_parse(scratch, data, limits, out, &failure) && json_type(*out) == JSON_OBJECT)
        return true;
    return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider sent an event that is not JSON");
}

/* The event's name, or the first member of its data, or (servers that do neither) its type wherever that stands. */
static bool read_type(struct arena *scratch, str event, str data, str *type, struct error *e)
{
    str rest, tail;
    const struct json *tree;
    *type = event;
    if (!str_is_empty(event))
        return str_starts_with(data, S("{")) ||
               error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the provider sent an event that is not JSON");
    if (str_strip_prefix(data, S("{\"type\":\""), &rest) && str_cut(rest, '"', type, &tail))
        return true;
    if (!parse(scratch, data, &tree, e))
        return false;
    *type = json_str_or(tree, S("type"), json_get(tree, S("error")) ? S("error") : STR_NONE);
    return true;
}

/* Says nothing that a user sees yet. */
static bool is_lifecycle(str type)
{
    return str_equal(type, S("response.created")) || str_equal(type, S("response.in_progress")) ||
           str_equal(type, S("response.queued")) ||
           str_equal(type, S("response.output_item.added")) ||
           str_equal(type, S("response.content_part.added")) ||
           str_equal(type, S("response.reasoning_summary_part.added"));
}

static bool look_at_end(struct glance_state *state, struct arena *scratch, str data,
                        enum glance_kind *kind, struct error *e)
{
    const struct json *tree;
    *kind = GLANCE_ERROR;
    if (!parse(scratch, data, &tree, e))
        return false;
    const struct json *response = json_get(tree, S("response"));
    struct usage usage = responses_read_usage(json_get(response, S("usage")));
    if (usage.is_reported)
        state->usage = usage;
    state->finish = responses_read_finish(response);
    state->has_finish = state->has_ended = true;
    *kind = GLANCE_END;
    return true;
}

static bool look_at_failure(struct glance_state *state, struct arena *scratch, str data,
                            struct error *e)
{
    const struct json *tree;
    if (!parse(scratch, data, &tree, e))
        return false;
    struct usage usage = responses_read_usage(json_path(tree, S("/response/usage")));
    if (usage.is_reported)
        state->usage = usage;
    return responses_read_failure(tree, scratch, e);
}

bool responses_glance(struct glance_state *state, struct arena *scratch, str event, str data,
                      enum glance_kind *kind, struct error *e)
{
    str type;
    *kind = GLANCE_ERROR;
    if (str_equal(data, S("[DONE]"))) { /* some servers' habit, behind the end */
        *kind = GLANCE_LIFECYCLE;
        return true;
    }
    if (!read_type(scratch, event, data, &type, e))
        return false;
    if (str_equal(type, S("response.completed")) || str_equal(type, S("response.incomplete")))
        return look_at_end(state, scratch, data, kind, e);
    if (str_equal(type, S("error")) || str_equal(type, S("response.failed")))
        return look_at_failure(state, scratch, data, e);
    if (is_lifecycle(type)) {
        *kind = GLANCE_LIFECYCLE;
        return true;
    }
    const struct json *tree;
    if (!dialect_looks_whole(data) && !parse(scratch, data, &tree, e))
        return false;
    *kind = GLANCE_CONTENT;
    if (str_ends_with(type, S(".delta")) || state->event_count == 0)
        measure(state,
                data); /* a done event repeats what was said, mostly; some servers say it only so */
    state->has_content = true;
    return true;
}

/* ---- texts ---- */

struct texts {
    struct dialect_text *out;
    size_t count, max;
};

/*
 * A stream says each text several times: in pieces, then whole in each done event.  Every time is a text of its own, so the stage is
 * part of the channel:  stage 4 bits | output_index 12 | content_index 12 | kind 4.
 */
enum stage { STAGE_PIECES, STAGE_TEXT, STAGE_PART, STAGE_ITEM, STAGE_RESPONSE };
enum { STAGE_SHIFT = 28 };

/* Counts on past the end, so that the caller sees that there were more. */
static void add_text(struct texts *texts, const struct json *value, uint32_t channel, bool is_json)
{
    if (json_type(value) != JSON_STRING)
        return;
    if (texts->count < texts->max)
        texts->out[texts->count] =
            (struct dialect_text){.value = value,
                                  .channel = channel,
                                  .is_json = is_json,
                                  .is_whole = channel >> STAGE_SHIFT != STAGE_PIECES};
    texts->count++;
}

enum kind { KIND_TEXT, KIND_REFUSAL, KIND_REASONING, KIND_SUMMARY, KIND_ARGUMENTS, KIND_OUTPUT };

static uint32_t channel_of(enum stage stage, int64_t output, int64_t content, enum kind kind)
{
    return (uint32_t) stage << STAGE_SHIFT | ((uint32_t) output & 0xfff) << 16 |
           ((uint32_t) content & 0xfff) << 4 | (uint32_t) kind;
}

static void add_part(struct texts *texts, const struct json *part, enum stage stage, int64_t output,
                     int64_t content, enum kind kind)
{
    add_text(texts, json_get(part, S("text")), channel_of(stage, output, content, kind), false);
    add_text(texts, json_get(part, S("refusal")), channel_of(stage, output, content, KIND_REFUSAL),
             false);
}

static void add_parts(struct texts *texts, const struct json *list, enum stage stage,
                      int64_t output, enum kind kind)
{
    const struct json *part;
    int64_t content = 0;
    add_text(texts, list, channel_of(stage, output, 0, kind), false);
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &part))
        add_part(texts, part, stage, output, content++, kind);
}

static void add_found(struct texts *texts, const struct json *list, enum stage stage,
                      int64_t output)
{
    const struct json *found;
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &found)) {
        add_text(texts, json_get(found, S("text")), channel_of(stage, output, 1, KIND_OUTPUT),
                 false);
        add_text(texts, json_get(found, S("logs")), channel_of(stage, output, 1, KIND_OUTPUT),
                 false);
    }
}

static void add_item(struct texts *texts, const struct json *item, enum stage stage, int64_t output)
{
    bool is_reasoning = str_equal(json_str_or(item, S("type"), STR_NONE), S("reasoning"));
    add_parts(texts, json_get(item, S("content")), stage, output,
              is_reasoning ? KIND_REASONING : KIND_TEXT);
    add_parts(texts, json_get(item, S("summary")), stage, output, KIND_SUMMARY);
    add_parts(texts, json_get(item, S("output")), stage, output, KIND_OUTPUT);
    add_text(texts, json_get(item, S("arguments")), channel_of(stage, output, 0, KIND_ARGUMENTS),
             true);
    add_text(texts, json_get(item, S("input")), /* of a custom tool's call: any text */
             channel_of(stage, output, 1, KIND_ARGUMENTS), false);
    /* Of hosted tools: what was run, and what it found or printed. */
    add_text(texts, json_get(item, S("code")), channel_of(stage, output, 2, KIND_ARGUMENTS), false);
    add_found(texts, json_get(item, S("results")), stage, output);
    add_found(texts, json_get(item, S("outputs")), stage, output);
}

static void add_items(struct texts *texts, const struct json *list, enum stage stage)
{
    const struct json *item;
    int64_t output = 0;
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &item))
        add_item(texts, item, stage, output++);
}

static enum kind kind_of_event(str type)
{
    if (str_starts_with(type, S("response.refusal")))
        return KIND_REFUSAL;
    if (str_starts_with(type, S("response.reasoning_summary")))
        return KIND_SUMMARY;
    if (str_starts_with(type, S("response.reasoning")))
        return KIND_REASONING;
    return str_find(type, S("arguments")) != STR_NOT_FOUND ? KIND_ARGUMENTS : KIND_TEXT;
}

static void add_event(struct texts *texts, const struct json *event)
{
    enum kind kind = kind_of_event(json_str_or(event, S("type"), STR_NONE));
    int64_t output = json_i64_or(event, S("output_index"), 0);
    int64_t content =
        json_i64_or(event, S("content_index"), json_i64_or(event, S("summary_index"), 0));
    const struct json *response = json_get(event, S("response"));
    bool is_json = kind == KIND_ARGUMENTS;
    add_text(texts, json_get(event, S("delta")), channel_of(STAGE_PIECES, output, content, kind),
             is_json);
    add_part(texts, event, STAGE_TEXT, output, content, kind);
    add_text(texts, json_get(event, S("arguments")),
             channel_of(STAGE_TEXT, output, content, KIND_ARGUMENTS), true);
    add_text(texts, json_get(event, S("input")), channel_of(STAGE_TEXT, output, 1, KIND_ARGUMENTS),
             false);
    add_text(texts, json_get(event, S("code")), channel_of(STAGE_TEXT, output, 2, KIND_ARGUMENTS),
             false);
    add_part(texts, json_get(event, S("part")), STAGE_PART, output, content, kind);
    if (json_type(json_get(event, S("item"))) == JSON_OBJECT)
        add_item(texts, json_get(event, S("item")), STAGE_ITEM, output);
    add_items(texts, json_get(response, S("output")), STAGE_RESPONSE);
}

size_t responses_texts(enum dialect_document what, const struct json *tree,
                       struct dialect_text *out, size_t max)
{
    struct texts texts = {.out = out, .max = max};
    switch (what) {
    case DOCUMENT_REQUEST:
        add_text(&texts, json_get(tree, S("instructions")),
                 channel_of(STAGE_RESPONSE, 0xfff, 0, KIND_TEXT), false);
        add_text(&texts, json_get(tree, S("input")), channel_of(STAGE_ITEM, 0, 0, KIND_TEXT),
                 false);
        add_items(&texts, json_get(tree, S("input")), STAGE_ITEM);
        break;
    case DOCUMENT_REPLY: add_items(&texts, json_get(tree, S("output")), STAGE_RESPONSE); break;
    case DOCUMENT_EVENT: add_event(&texts, tree); break;
    }
    return texts.count;
}

/* ---- the dialect ---- */

static void write_ping(struct strbuf *out)
{
    strbuf_add(out, S(": keep-alive\n\n"));
}

const struct dialect openai_responses_dialect = {
    .id = DIALECT_OPENAI_RESPONSES,
    .name = "openai_responses",
    .path = S_INIT("/responses"),
    .answer_prefix = "resp_",
    .read = responses_read,
    .to_prompt = responses_to_prompt,
    .write_reply = responses_write_reply,
    .write_error = responses_write_error,
    .writer_bytes = RESPONSES_WRITER_BYTES,
    .writer_open = responses_writer_open,
    .writer_delta = responses_writer_delta,
    .writer_error = responses_writer_error,
    .writer_close = responses_writer_close,
    .write_ping = write_ping,
    .edit_request = responses_edit_request,
    .glance = responses_glance,
    .write_stream_error = responses_write_stream_error,
    .write_request = responses_write_request,
    .read_reply = responses_read_reply,
    .error_from_status = openai_error_from_status,
    .texts = responses_texts,
};
