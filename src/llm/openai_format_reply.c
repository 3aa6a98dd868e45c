/* answer -> reply, chunk -> deltas */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/openai_format_internal.h"

/* ---- usage and finish ---- */

/* A count that a provider may honestly report; more would only be an attack on the ledger. */
#define USAGE_TOKENS_MAX (1ll << 40)

static bool read_count(const struct json *object, str key, int64_t *out)
{
    int64_t count;
    if (!json_to_i64(json_get(object, key), &count) || count < 0 || count > USAGE_TOKENS_MAX)
        return false;
    *out = count;
    return true;
}

/* Some servers leave reasoning out of completion_tokens but count it in the total: what is paid for
 * is the total. */
static void include_uncounted(struct usage *usage, const struct json *object)
{
    int64_t total;
    if (read_count(object, S("total_tokens"), &total) &&
        total > usage->input_tokens + usage->output_tokens)
        usage->output_tokens = total - usage->input_tokens;
}

struct usage openai_read_usage(const struct json *object)
{
    struct usage usage = {0};
    const struct json *input = json_get(object, S("prompt_tokens_details"));
    const struct json *output = json_get(object, S("completion_tokens_details"));
    if (!read_count(object, S("prompt_tokens"), &usage.input_tokens))
        return (struct usage){0};
    if (json_get(object, S("completion_tokens")) &&
        !read_count(object, S("completion_tokens"), &usage.output_tokens))
        return (struct usage){0};
    include_uncounted(&usage, object);
    if (!read_count(input, S("cached_tokens"), &usage.cached_tokens))
        read_count(object, S("prompt_cache_hit_tokens"), &usage.cached_tokens);
    read_count(input, S("cache_write_tokens"), &usage.cache_write_tokens);
    read_count(output, S("reasoning_tokens"), &usage.reasoning_tokens);
    if (usage.cached_tokens > usage.input_tokens)
        usage.cached_tokens = usage.input_tokens;
    usage.is_reported = true;
    return usage;
}

enum finish openai_read_finish(str reason)
{
    if (reason.len == 0)
        return FINISH_NONE;
    if (str_equal(reason, S("stop")))
        return FINISH_STOP;
    if (str_equal(reason, S("length")))
        return FINISH_LENGTH;
    if (str_equal(reason, S("tool_calls")) || str_equal(reason, S("function_call")))
        return FINISH_TOOL_CALLS;
    if (str_equal(reason, S("content_filter")))
        return FINISH_CONTENT_FILTER;
    return FINISH_OTHER;
}

/* Several servers say "stop" (or nothing) where tool calls follow. */
static enum finish settle_finish(enum finish finish, bool has_calls)
{
    if (has_calls && (finish == FINISH_STOP || finish == FINISH_NONE))
        return FINISH_TOOL_CALLS;
    return finish == FINISH_NONE ? FINISH_STOP : finish;
}

bool openai_read_reasoning(const struct json *message, str *text, str *opaque)
{
    if (json_to_str(json_get(message, S("reasoning_content")), text) && text->len > 0) {
        *opaque = OPENAI_MEMBER_REASONING_CONTENT;
        return true;
    }
    if (json_to_str(json_get(message, S("reasoning")), text) && text->len > 0) {
        *opaque = OPENAI_MEMBER_REASONING;
        return true;
    }
    return false;
}

size_t openai_thinking_block_count(const struct json *message)
{
    const struct json *blocks = json_get(message, S("thinking_blocks"));
    return json_type(blocks) == JSON_ARRAY ? json_count(blocks) : 0;
}

void openai_write_members(struct json_writer *w, const struct json *block)
{
    const struct json *value;
    str key;
    struct json_iter it = json_iter(block);
    while (json_next(&it, &key, &value)) {
        if (str_equal(key, S("index")))
            continue;
        json_key(w, key);
        json_write_value(w, value);
    }
}

static str block_opaque(struct arena *arena, const struct json *block)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, PROVIDER_ANSWER_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    openai_write_members(&w, block);
    json_object_end(&w);
    return strbuf_str(&text);
}

static str signature_opaque(struct arena *arena, str signature)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 6 * signature.len + 32);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("signature"), signature);
    json_object_end(&w);
    return strbuf_str(&text);
}

size_t openai_read_thinking_blocks(struct arena *arena, const struct json *message,
                                   struct part *out)
{
    const struct json *blocks = json_get(message, S("thinking_blocks")), *block;
    size_t count = 0;
    struct json_iter it = json_iter(json_type(blocks) == JSON_ARRAY ? blocks : NULL);
    while (json_next(&it, NULL, &block)) {
        str type = json_str_or(block, S("type"), STR_NONE), signature;
        struct part part = {.kind = PART_REASONING};
        if (str_equal(type, S("redacted_thinking")))
            part.opaque = block_opaque(arena, block);
        else if (str_equal(type, S("thinking")) &&
                 json_to_str(json_get(block, S("signature")), &signature)) {
            part.text = json_str_or(block, S("thinking"), STR_NONE);
            part.opaque = signature_opaque(arena, signature);
        } else
            continue;
        out[count++] = part;
    }
    return count;
}

str openai_make_call_id(struct arena *arena, str reply_id, int index, str name)
{
    uint64_t hash = str_hash(name, str_hash(reply_id, (uint64_t) index + 1));
    return str_printf(arena, "call_%016llx", (unsigned long long) hash);
}

/* ---- whole answers ---- */

/* Arguments are text by contract; a server that sends the object itself means the same. */
static str read_arguments(struct arena *arena, const struct json *arguments)
{
    str text;
    if (json_to_str(arguments, &text))
        return text.len > 0 ? text : S("{}");
    return json_type(arguments) == JSON_OBJECT ? json_print(arena, arguments) : S("{}");
}

static bool read_calls(struct arena *arena, const struct json *calls, struct reply *out,
                       struct error *e)
{
    const struct json *item;
    int index = 0;
    if (json_count(calls) > PROVIDER_TOOL_CALLS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the answer holds %zu tool calls, at most %d are taken", json_count(calls),
                         PROVIDER_TOOL_CALLS_MAX);
    struct json_iter it = json_iter(calls);
    while (json_next(&it, NULL, &item)) {
        const struct json *function = json_get(item, S("function"));
        struct part *part = &out->parts[out->part_count++];
        *part =
            (struct part){.kind = PART_TOOL_CALL, .call_id = json_str_or(item, S("id"), STR_NONE)};
        if (!json_to_str(json_get(function, S("name")), &part->name) || part->name.len == 0)
            return error_set(e, REASON_PROVIDER_PROTOCOL, "tool call %d of the answer has no name",
                             index);
        part->arguments = read_arguments(arena, json_get(function, S("arguments")));
        if (part->call_id.len == 0)
            part->call_id = openai_make_call_id(arena, out->id, index, part->name);
        index++;
    }
    return true;
}

static void add_text(struct reply *out, enum part_kind kind, str text, str opaque)
{
    if (text.len > 0)
        out->parts[out->part_count++] = (struct part){.kind = kind, .text = text, .opaque = opaque};
}

/* Content is a string; some servers send a list of texts instead. */
static void read_reply_content(const struct json *content, struct reply *out)
{
    str text;
    const struct json *item;
    if (json_to_str(content, &text)) {
        add_text(out, PART_TEXT, text, STR_NONE);
        return;
    }
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    while (json_next(&it, NULL, &item))
        add_text(out, PART_TEXT, json_str_or(item, S("text"), STR_NONE), STR_NONE);
}

static bool read_reply_message(struct arena *arena, const struct json *message, struct reply *out,
                               struct error *e)
{
    const struct json *content = json_get(message, S("content"));
    const struct json *calls = json_get(message, S("tool_calls"));
    str text, opaque;
    size_t most =
        json_count(content) + json_count(calls) + openai_thinking_block_count(message) + 3;
    if (json_type(calls) != JSON_ARRAY)
        calls = NULL;
    out->parts = ARENA_ARRAY(arena, struct part, most);
    out->part_count = openai_read_thinking_blocks(arena, message, out->parts);
    if (out->part_count == 0 && openai_read_reasoning(message, &text, &opaque))
        add_text(out, PART_REASONING, text, opaque);
    read_reply_content(content, out);
    add_text(out, PART_TEXT, json_str_or(message, S("refusal"), STR_NONE), OPENAI_MEMBER_REFUSAL);
    if (!read_calls(arena, calls, out, e))
        return false;
    out->finish = settle_finish(out->finish, json_count(calls) > 0);
    return true;
}

bool openai_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                       struct error *e)
{
    const struct json *choice = json_at(json_get(body, S("choices")), 0);
    const struct json *message = json_get(choice, S("message"));
    const struct json *error = json_get(body, S("error"));
    struct reply reply = {
        .id = json_str_or(body, S("id"), STR_NONE),
        .model = json_str_or(body, S("model"), STR_NONE),
    };
    if (json_type(error) != JSON_ABSENT && json_type(error) != JSON_NULL)
        return openai_error_from_json(error, 200, 0, arena, e);
    if (json_type(message) != JSON_OBJECT)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer has no choices[0].message");
    reply.finish = openai_read_finish(json_str_or(choice, S("finish_reason"), STR_NONE));
    reply.usage = openai_read_usage(json_get(body, S("usage")));
    if (!read_reply_message(arena, message, &reply, e))
        return false;
    *out = reply;
    return true;
}

/* ---- chunks ---- */

struct deltas {
    struct delta *items;
    size_t count, max;
};

static bool add_delta(struct deltas *deltas, struct delta delta, struct error *e)
{
    if (deltas->count == deltas->max)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "a chunk holds more than %zu pieces",
                         deltas->max);
    deltas->items[deltas->count++] = delta;
    return true;
}

static bool add_piece(struct deltas *deltas, enum delta_kind kind, str text, str opaque,
                      struct error *e)
{
    if (text.len == 0)
        return true;
    return add_delta(deltas, (struct delta){.kind = kind, .text = text, .opaque = opaque}, e);
}

/* 0 for no id; else never 0. */
static uint32_t hash_id(str id)
{
    return id.len == 0 ? 0 : (uint32_t) str_hash(id, 0) | 1;
}

/*
 * Which call does this piece belong to?  -1: a new one.
 *   index and same id, or index and no id   that call
 *   index and another id                    a new call (servers that number all calls 0)
 *   no index, an id seen before             that call
 *   no index, a new id                      a new call
 *   neither                                 the last call, or a new one when a name comes with it
 */
static int find_call(const struct openai_stream_state *state, const int64_t *index, uint32_t id,
                     bool has_name)
{
    for (int i = state->tool_call_count; i-- > 0;) {
        const struct openai_stream_call *call = &state->calls[i];
        if (index && call->server_index != *index)
            continue;
        if (id != 0 && call->id_hash != 0 && call->id_hash != id)
            continue;
        if (!index && id == 0 && has_name)
            return -1;
        if (!index && id != 0 && call->id_hash == 0)
            continue;
        return i;
    }
    return -1;
}

static bool begin_call(struct arena *arena, struct openai_stream_state *state, const int64_t *index,
                       str id, str name, struct deltas *deltas, struct error *e)
{
    int call = state->tool_call_count;
    if (call == PROVIDER_TOOL_CALLS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %d tool calls",
                         PROVIDER_TOOL_CALLS_MAX);
    state->calls[call] = (struct openai_stream_call){
        .server_index = index ? (int32_t) *index : call,
        .id_hash = hash_id(id),
    };
    state->tool_call_count++;
    if (id.len == 0)
        id = openai_make_call_id(arena, state->id, call, name);
    return add_delta(
        deltas, (struct delta){.kind = DELTA_TOOL_CALL, .index = call, .call_id = id, .name = name},
        e);
}

static bool read_call_piece(struct arena *arena, const struct json *item,
                            struct openai_stream_state *state, struct deltas *deltas,
                            struct error *e)
{
    const struct json *function = json_get(item, S("function"));
    const struct json *arguments = json_get(function, S("arguments"));
    str id = json_str_or(item, S("id"), STR_NONE),
        name = json_str_or(function, S("name"), STR_NONE), text;
    int64_t index = 0;
    bool has_index =
        json_to_i64(json_get(item, S("index")), &index) && index >= 0 && index <= INT32_MAX;
    int call = find_call(state, has_index ? &index : NULL, hash_id(id), name.len > 0);
    if (!json_to_str(arguments, &text))
        text = json_type(arguments) == JSON_OBJECT ? json_print(arena, arguments) : STR_NONE;
    if (call < 0 && name.len == 0)
        return text.len == 0 || error_set(e, REASON_PROVIDER_PROTOCOL,
                                          "arguments came for a tool call without a name");
    if (call < 0) {
        call = state->tool_call_count;
        if (!begin_call(arena, state, has_index ? &index : NULL, id, name, deltas, e))
            return false;
    }
    if (text.len == 0)
        return true;
    return add_delta(deltas,
                     (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .index = call, .text = text}, e);
}

/* Its text came in reasoning_content. */
static bool read_thinking_piece(struct arena *arena, const struct json *delta,
                                struct deltas *deltas, struct error *e)
{
    struct part *parts = ARENA_ARRAY(arena, struct part, openai_thinking_block_count(delta));
    size_t count = openai_read_thinking_blocks(arena, delta, parts);
    for (size_t i = 0; i < count; i++) {
        if (!add_delta(deltas, (struct delta){.kind = DELTA_REASONING, .opaque = parts[i].opaque},
                       e))
            return false;
    }
    return true;
}

static bool read_delta(struct arena *arena, const struct json *delta,
                       struct openai_stream_state *state, struct deltas *deltas, struct error *e)
{
    const struct json *item;
    str text, opaque;
    if (openai_read_reasoning(delta, &text, &opaque) &&
        !add_piece(deltas, DELTA_REASONING, text, opaque, e))
        return false;
    if (openai_thinking_block_count(delta) > 0 && !read_thinking_piece(arena, delta, deltas, e))
        return false;
    if (!add_piece(deltas, DELTA_TEXT, json_str_or(delta, S("content"), STR_NONE), STR_NONE, e) ||
        !add_piece(deltas, DELTA_TEXT, json_str_or(delta, S("refusal"), STR_NONE),
                   OPENAI_MEMBER_REFUSAL, e))
        return false;
    const struct json *calls = json_get(delta, S("tool_calls"));
    struct json_iter it = json_iter(json_type(calls) == JSON_ARRAY ? calls : NULL);
    while (json_next(&it, NULL, &item)) {
        if (!read_call_piece(arena, item, state, deltas, e))
            return false;
    }
    return true;
}

static void keep_name(str value, char *buffer, size_t size, str *out)
{
    if (out->len > 0 || value.len == 0)
        return;
    value = str_cut_utf8(value, size);
    memcpy(buffer, value.ptr, value.len);
    *out = str_of(buffer, value.len);
}

static void keep_usage(const struct json *chunk, struct openai_stream_state *state)
{
    struct usage usage = openai_read_usage(json_get(chunk, S("usage")));
    if (!usage.is_reported) /* one host's place for it */
        usage = openai_read_usage(json_path(chunk, S("/x_groq/usage")));
    if (usage.is_reported)
        state->usage = usage;
}

bool openai_read_chunk(struct arena *arena, const struct json *chunk,
                       struct openai_stream_state *state, struct delta *out, size_t max,
                       size_t *count, struct error *e)
{
    struct deltas deltas = {.items = out, .max = max};
    const struct json *error = json_get(chunk, S("error"));
    const struct json *choice = json_at(json_get(chunk, S("choices")), 0);
    *count = 0;
    if (json_type(error) != JSON_ABSENT && json_type(error) != JSON_NULL)
        return openai_error_from_json(error, 200, 0, arena, e);
    if (json_type(chunk) != JSON_OBJECT)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "a chunk of the stream is not a JSON object");
    keep_name(json_str_or(chunk, S("id"), STR_NONE), state->id_buffer, sizeof state->id_buffer,
              &state->id);
    keep_name(json_str_or(chunk, S("model"), STR_NONE), state->model_buffer,
              sizeof state->model_buffer, &state->model);
    keep_usage(chunk, state);
    if (json_i64_or(choice, S("index"), 0) != 0) /* of several choices the first counts */
        return true;
    enum finish finish = openai_read_finish(json_str_or(choice, S("finish_reason"), STR_NONE));
    if (finish != FINISH_NONE)
        state->finish = finish;
    if (!read_delta(arena, json_get(choice, S("delta")), state, &deltas, e))
        return false;
    *count = deltas.count;
    return true;
}

struct delta openai_end_delta(const struct openai_stream_state *state)
{
    return (struct delta){
        .kind = DELTA_END,
        .finish = settle_finish(state->finish, state->tool_call_count > 0),
        .usage = state->usage,
        .id = state->id,
        .model = state->model,
    };
}
