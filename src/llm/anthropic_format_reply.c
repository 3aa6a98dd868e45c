/* answer -> reply, event -> deltas */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format_internal.h"

/* ---- usage and finish ---- */

/* A count that a provider may honestly report; more would only be an attack on the ledger. */
#define USAGE_TOKENS_MAX (1ll << 40)

static int64_t read_count(const struct json *object, str key, int64_t otherwise)
{
    int64_t count;
    if (!json_to_i64(json_get(object, key), &count) || count < 0 || count > USAGE_TOKENS_MAX)
        return otherwise;
    return count;
}

struct usage anthropic_read_usage(const struct json *object, struct usage so_far)
{
    struct usage usage = so_far;
    int64_t uncached = so_far.input_tokens - so_far.cached_tokens - so_far.cache_write_tokens;
    if (json_type(object) != JSON_OBJECT)
        return so_far;
    uncached = read_count(object, S("input_tokens"), so_far.is_reported ? uncached : -1);
    usage.output_tokens =
        read_count(object, S("output_tokens"), so_far.is_reported ? so_far.output_tokens : -1);
    if (uncached < 0 || usage.output_tokens < 0)
        return so_far;
    usage.cached_tokens = read_count(object, S("cache_read_input_tokens"), so_far.cached_tokens);
    usage.cache_write_tokens =
        read_count(object, S("cache_creation_input_tokens"), so_far.cache_write_tokens);
    usage.reasoning_tokens = read_count(json_get(object, S("output_tokens_details")),
                                        S("thinking_tokens"), so_far.reasoning_tokens);
    usage.input_tokens = uncached + usage.cached_tokens + usage.cache_write_tokens;
    usage.is_reported = true;
    return usage;
}

struct usage anthropic_begin_usage(const struct json *object)
{
    struct usage usage = anthropic_read_usage(object, (struct usage){0});
    usage.is_reported = false;
    return usage;
}

struct usage anthropic_end_usage(const struct json *object, struct usage begun)
{
    struct usage so_far = begun;
    if (json_type(json_get(object, S("output_tokens"))) == JSON_ABSENT)
        return begun;
    so_far.is_reported = begun.is_reported || begun.input_tokens > 0;
    struct usage usage = anthropic_read_usage(object, so_far);
    return usage.is_reported ? usage : begun;
}

enum finish anthropic_read_finish(str reason)
{
    static const struct {
        str word;
        enum finish finish;
    } words[] = {
        {S_INIT("end_turn"), FINISH_STOP},
        {S_INIT("stop_sequence"), FINISH_STOP},
        {S_INIT("max_tokens"), FINISH_LENGTH},
        {S_INIT("model_context_window_exceeded"), FINISH_LENGTH},
        {S_INIT("tool_use"), FINISH_TOOL_CALLS},
        {S_INIT("refusal"), FINISH_CONTENT_FILTER},
    };
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (str_equal(reason, words[i].word))
            return words[i].finish;
    }
    return reason.len == 0 ? FINISH_NONE : FINISH_OTHER; /* pause_turn */
}

static enum finish settle_finish(enum finish finish, bool has_calls)
{
    if (has_calls && (finish == FINISH_STOP || finish == FINISH_NONE))
        return FINISH_TOOL_CALLS;
    return finish == FINISH_NONE ? FINISH_STOP : finish;
}

/* ---- whole answers ---- */

static bool read_tool_use(struct arena *arena, const struct json *block, struct part *out,
                          struct error *e)
{
    const struct json *input = json_get(block, S("input"));
    *out = (struct part){.kind = PART_TOOL_CALL};
    if (!json_to_str(json_get(block, S("id")), &out->call_id) || out->call_id.len == 0 ||
        !json_to_str(json_get(block, S("name")), &out->name) || out->name.len == 0)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "a tool call of the answer has no id or no name");
    out->arguments = json_type(input) == JSON_OBJECT ? json_print(arena, input) : S("{}");
    return true;
}

/* Blocks of server tools say nothing to who did not ask for them in this dialect: they are left out. */
static bool read_block(struct arena *arena, const struct json *block, struct reply *out,
                       struct error *e)
{
    str type = json_str_or(block, S("type"), STR_NONE);
    struct part *part = &out->parts[out->part_count];
    *part = (struct part){.kind = PART_TEXT};
    if (str_equal(type, S("text")))
        part->text = json_str_or(block, S("text"), STR_NONE);
    else if (str_equal(type, S("thinking"))) {
        str signature = json_str_or(block, S("signature"), STR_NONE);
        *part = (struct part){.kind = PART_REASONING,
                              .text = json_str_or(block, S("thinking"), STR_NONE),
                              .opaque = anthropic_signature_opaque(arena, signature)};
    } else if (str_equal(type, S("redacted_thinking")))
        *part = (struct part){.kind = PART_REASONING, .opaque = json_print(arena, block)};
    else if (str_equal(type, S("tool_use"))) {
        if (!read_tool_use(arena, block, part, e))
            return false;
    } else
        return true;
    bool is_empty = part->kind != PART_TOOL_CALL && part->text.len == 0 && part->opaque.len == 0;
    out->part_count += !is_empty;
    return true;
}

static size_t count_calls(const struct reply *reply)
{
    size_t count = 0;
    for (size_t i = 0; i < reply->part_count; i++)
        count += reply->parts[i].kind == PART_TOOL_CALL;
    return count;
}

bool anthropic_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                          struct error *e)
{
    const struct json *content = json_get(body, S("content")), *block;
    struct reply reply = {
        .id = json_str_or(body, S("id"), STR_NONE),
        .model = json_str_or(body, S("model"), STR_NONE),
        .finish = anthropic_read_finish(json_str_or(body, S("stop_reason"), STR_NONE)),
        .usage = anthropic_read_usage(json_get(body, S("usage")), (struct usage){0}),
    };
    if (json_type(json_get(body, S("error"))) == JSON_OBJECT)
        return anthropic_error_from_json(json_get(body, S("error")), arena, e);
    if (json_type(content) != JSON_ARRAY)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer has no list of content");
    reply.parts = ARENA_ARRAY(arena, struct part, json_count(content) + 1);
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &block)) {
        if (!read_block(arena, block, &reply, e))
            return false;
    }
    size_t calls = count_calls(&reply);
    if (calls > PROVIDER_TOOL_CALLS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the answer holds %zu tool calls, at most %d are taken", calls,
                         PROVIDER_TOOL_CALLS_MAX);
    reply.finish = settle_finish(reply.finish, calls > 0);
    *out = reply;
    return true;
}

/* ---- events ---- */

struct deltas {
    struct delta *items;
    size_t count, max;
};

static bool add(struct deltas *deltas, struct delta delta, struct error *e)
{
    if (deltas->count == deltas->max)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "an event holds more than %zu pieces",
                         deltas->max);
    deltas->items[deltas->count++] = delta;
    return true;
}

static bool add_text(struct deltas *deltas, enum delta_kind kind, str text, struct error *e)
{
    return text.len == 0 || add(deltas, (struct delta){.kind = kind, .text = text}, e);
}

static struct anthropic_stream_block *find_block(struct anthropic_stream_state *state,
                                                 int64_t index)
{
    for (int i = 0; i < state->block_count; i++) {
        if (state->blocks[i].index == index)
            return &state->blocks[i];
    }
    return NULL;
}

static void keep_name(str value, char *buffer, size_t size, str *out)
{
    if (out->len > 0 || value.len == 0)
        return;
    value = str_cut_utf8(value, size);
    memcpy(buffer, value.ptr, value.len);
    *out = str_of(buffer, value.len);
}

static void read_message_start(const struct json *event, struct anthropic_stream_state *state)
{
    const struct json *message = json_get(event, S("message"));
    keep_name(json_str_or(message, S("id"), STR_NONE), state->id_buffer, sizeof state->id_buffer,
              &state->id);
    keep_name(json_str_or(message, S("model"), STR_NONE), state->model_buffer,
              sizeof state->model_buffer, &state->model);
    state->usage = anthropic_begin_usage(json_get(message, S("usage")));
}

static bool begin_call(struct arena *arena, struct anthropic_stream_state *state,
                       struct anthropic_stream_block *place, const struct json *block,
                       struct deltas *deltas, struct error *e)
{
    struct part call;
    if (!read_tool_use(arena, block, &call, e))
        return false;
    if (state->call_count == PROVIDER_TOOL_CALLS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %d tool calls",
                         PROVIDER_TOOL_CALLS_MAX);
    place->kind = ANTHROPIC_BLOCK_TOOL;
    place->call = state->call_count++;
    if (!add(deltas,
             (struct delta){.kind = DELTA_TOOL_CALL,
                            .index = place->call,
                            .call_id = call.call_id,
                            .name = call.name},
             e))
        return false;
    if (str_equal(call.arguments, S("{}")))
        return true; /* the pieces follow */
    return add(
        deltas,
        (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .index = place->call, .text = call.arguments},
        e);
}

static bool read_block_start(struct arena *arena, const struct json *event,
                             struct anthropic_stream_state *state, struct deltas *deltas,
                             struct error *e)
{
    const struct json *block = json_get(event, S("content_block"));
    str type = json_str_or(block, S("type"), STR_NONE);
    int64_t index = json_i64_or(event, S("index"), state->block_count);
    if (state->block_count == ANTHROPIC_OPEN_BLOCKS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "more than %d blocks are open at once",
                         ANTHROPIC_OPEN_BLOCKS_MAX);
    struct anthropic_stream_block *place = &state->blocks[state->block_count++];
    *place = (struct anthropic_stream_block){.index = index};
    if (str_equal(type, S("text"))) {
        place->kind = ANTHROPIC_BLOCK_TEXT;
        return add_text(deltas, DELTA_TEXT, json_str_or(block, S("text"), STR_NONE), e);
    }
    if (str_equal(type, S("thinking"))) {
        place->kind = ANTHROPIC_BLOCK_THINKING;
        return add_text(deltas, DELTA_REASONING, json_str_or(block, S("thinking"), STR_NONE), e);
    }
    if (str_equal(type, S("redacted_thinking")))
        return add(deltas,
                   (struct delta){.kind = DELTA_REASONING, .opaque = json_print(arena, block)}, e);
    return !str_equal(type, S("tool_use")) || begin_call(arena, state, place, block, deltas, e);
}

static bool read_block_delta(struct arena *arena, const struct json *event,
                             struct anthropic_stream_state *state, struct deltas *deltas,
                             struct error *e)
{
    const struct json *delta = json_get(event, S("delta"));
    struct anthropic_stream_block *block = find_block(state, json_i64_or(event, S("index"), 0));
    if (!block)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "a piece came for a block that is not open");
    switch (block->kind) {
    case ANTHROPIC_BLOCK_SKIPPED: return true;
    case ANTHROPIC_BLOCK_TEXT:
        return add_text(deltas, DELTA_TEXT, json_str_or(delta, S("text"), STR_NONE), e);
    case ANTHROPIC_BLOCK_THINKING: break;
    case ANTHROPIC_BLOCK_TOOL: {
        str text = json_str_or(delta, S("partial_json"), STR_NONE);
        return text.len == 0 ||
               add(deltas,
                   (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .index = block->call, .text = text},
                   e);
    }
    }
    if (!add_text(deltas, DELTA_REASONING, json_str_or(delta, S("thinking"), STR_NONE), e))
        return false;
    str opaque = anthropic_signature_opaque(arena, json_str_or(delta, S("signature"), STR_NONE));
    return opaque.len == 0 ||
           add(deltas, (struct delta){.kind = DELTA_REASONING, .opaque = opaque}, e);
}

static void read_block_stop(const struct json *event, struct anthropic_stream_state *state)
{
    struct anthropic_stream_block *block = find_block(state, json_i64_or(event, S("index"), 0));
    if (block)
        *block = state->blocks[--state->block_count];
}

static void read_message_delta(const struct json *event, struct anthropic_stream_state *state)
{
    enum finish finish =
        anthropic_read_finish(json_str_or(json_get(event, S("delta")), S("stop_reason"), STR_NONE));
    if (finish != FINISH_NONE)
        state->finish = finish;
    state->usage = anthropic_end_usage(json_get(event, S("usage")), state->usage);
}

bool anthropic_read_event(struct arena *arena, const struct json *event,
                          struct anthropic_stream_state *state, struct delta *out, size_t max,
                          size_t *count, struct error *e)
{
    struct deltas deltas = {.items = out, .max = max};
    str type = json_str_or(event, S("type"), STR_NONE);
    bool is_ok = true;
    *count = 0;
    if (json_type(event) != JSON_OBJECT)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "an event of the stream is not a JSON object");
    if (str_equal(type, S("error")) || json_type(json_get(event, S("error"))) == JSON_OBJECT)
        return anthropic_error_from_json(json_get(event, S("error")), arena, e);
    if (str_equal(type, S("content_block_delta")))
        is_ok = read_block_delta(arena, event, state, &deltas, e);
    else if (str_equal(type, S("content_block_start")))
        is_ok = read_block_start(arena, event, state, &deltas, e);
    else if (str_equal(type, S("content_block_stop")))
        read_block_stop(event, state);
    else if (str_equal(type, S("message_start")))
        read_message_start(event, state);
    else if (str_equal(type, S("message_delta")))
        read_message_delta(event, state);
    else if (str_equal(type, S("message_stop")))
        state->has_ended = true;
    *count = is_ok ? deltas.count : 0; /* ping and what is not known yet: nothing */
    return is_ok;
}

struct delta anthropic_end_delta(const struct anthropic_stream_state *state)
{
    return (struct delta){
        .kind = DELTA_END,
        .finish = settle_finish(state->finish, state->call_count > 0),
        .usage = state->usage,
        .id = state->id,
        .model = state->model,
    };
}
