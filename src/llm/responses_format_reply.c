/* Response -> reply, events -> deltas */
#include "base/arena.h"
#include "llm/responses_format_internal.h"

/* ---- usage, finish, failure ---- */

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

struct usage responses_read_usage(const struct json *object)
{
    struct usage usage = {0};
    const struct json *input = json_get(object, S("input_tokens_details"));
    const struct json *output = json_get(object, S("output_tokens_details"));
    if (!read_count(object, S("input_tokens"), &usage.input_tokens) ||
        !read_count(object, S("output_tokens"), &usage.output_tokens))
        return (struct usage){0};
    (void) read_count(input, S("cached_tokens"), &usage.cached_tokens);
    (void) read_count(input, S("cache_write_tokens"), &usage.cache_write_tokens);
    (void) read_count(output, S("reasoning_tokens"), &usage.reasoning_tokens);
    if (usage.cached_tokens > usage.input_tokens)
        usage.cached_tokens = usage.input_tokens;
    usage.is_reported = true;
    return usage;
}

static bool has_call(const struct json *output)
{
    const struct json *item;
    struct json_iter it = json_iter(json_type(output) == JSON_ARRAY ? output : NULL);
    while (json_next(&it, NULL, &item))
        if (str_equal(json_str_or(item, S("type"), STR_NONE), S("function_call")))
            return true;
    return false;
}

enum finish responses_read_finish(const struct json *response)
{
    str status = json_str_or(response, S("status"), S("completed"));
    str why = json_str_or(json_get(response, S("incomplete_details")), S("reason"), STR_NONE);
    if (str_equal(status, S("incomplete")))
        return str_equal(why, S("content_filter"))                           ? FINISH_CONTENT_FILTER
               : str_equal(why, S("max_output_tokens")) || str_is_empty(why) ? FINISH_LENGTH
                                                                             : FINISH_OTHER;
    if (!str_equal(status, S("completed")))
        return FINISH_OTHER;
    return has_call(json_get(response, S("output"))) ? FINISH_TOOL_CALLS : FINISH_STOP;
}

/* The error stands at the top of an error event (or under "error", on some servers), else in the Response. */
bool responses_read_failure(const struct json *document, struct arena *arena, struct error *e)
{
    const struct json *error = json_path(document, S("/response/error"));
    if (json_type(error) != JSON_OBJECT)
        error = json_get(document, S("error"));
    if (json_type(error) != JSON_OBJECT)
        error = document;
    /* Here "error" is the kind of the event, not of the failure. */
    return openai_error_from_json(error, 200, 0, arena, e);
}

/* ---- whole answers ---- */

struct parts {
    struct arena *arena;
    struct part *items;
    size_t count, max;
};

static bool add_part(struct parts *parts, struct part part, struct error *e)
{
    if (parts->count == parts->max)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %zu parts",
                         parts->max);
    parts->items[parts->count++] = part;
    return true;
}

static bool read_message(struct parts *parts, const struct json *item, struct error *e)
{
    const struct json *content, *list = json_get(item, S("content"));
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &content)) {
        bool is_refusal = str_equal(json_str_or(content, S("type"), STR_NONE), S("refusal"));
        struct part part = {.kind = PART_TEXT};
        part.text = json_str_or(content, is_refusal ? S("refusal") : S("text"), STR_NONE);
        if (is_refusal)
            part.opaque = OPENAI_MEMBER_REFUSAL;
        if (part.text.len > 0 && !add_part(parts, part, e))
            return false;
    }
    return true;
}

static bool read_call(const struct json *item, struct part *out, struct error *e)
{
    *out = (struct part){
        .kind = PART_TOOL_CALL,
        .call_id = json_str_or(item, S("call_id"), json_str_or(item, S("id"), STR_NONE)),
        .name = json_str_or(item, S("name"), STR_NONE),
        .arguments = json_str_or(item, S("arguments"), S("{}")),
    };
    if (out->name.len == 0 || out->call_id.len == 0)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "a tool call of the answer has no name or no id");
    if (out->arguments.len == 0)
        out->arguments = S("{}");
    return true;
}

static bool read_item(struct parts *parts, const struct json *item, struct error *e)
{
    str type = json_str_or(item, S("type"), STR_NONE);
    struct part part;
    if (str_equal(type, S("message")))
        return read_message(parts, item, e);
    if (str_equal(type, S("reasoning")))
        return add_part(parts, responses_read_reasoning(parts->arena, item), e);
    if (str_equal(type, S("function_call")))
        return read_call(item, &part, e) && add_part(parts, part, e);
    if (json_type(item) != JSON_OBJECT)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer's output holds what is no item");
    part = (struct part){.kind = PART_TEXT};
    part.opaque = responses_item_opaque(parts->arena, json_print(parts->arena, item));
    return add_part(parts, part, e);
}

static bool read_output(struct arena *arena, const struct json *response, struct reply *out,
                        struct error *e)
{
    const struct json *item, *output = json_get(response, S("output"));
    size_t room = 0;
    struct json_iter sizes = json_iter(json_type(output) == JSON_ARRAY ? output : NULL);
    while (json_next(&sizes, NULL, &item))
        room += 1 + json_count(json_get(item, S("content")));
    if (room > PROMPT_PARTS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %d parts",
                         PROMPT_PARTS_MAX);
    struct parts parts = {.arena = arena, .max = room};
    parts.items = ARENA_ARRAY(arena, struct part, room + 1);
    struct json_iter it = json_iter(json_type(output) == JSON_ARRAY ? output : NULL);
    while (json_next(&it, NULL, &item))
        if (!read_item(&parts, item, e))
            return false;
    out->parts = parts.items;
    out->part_count = parts.count;
    return true;
}

bool responses_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                          struct error *e)
{
    struct reply reply = {
        .id = json_str_or(body, S("id"), STR_NONE),
        .model = json_str_or(body, S("model"), STR_NONE),
    };
    str status = json_str_or(body, S("status"), STR_NONE);
    if (responses_is_given(body, S("error")) || str_equal(status, S("failed")))
        return responses_read_failure(body, arena, e);
    if (json_type(json_get(body, S("output"))) != JSON_ARRAY)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer has no output");
    reply.finish = responses_read_finish(body);
    reply.usage = responses_read_usage(json_get(body, S("usage")));
    if (!read_output(arena, body, &reply, e))
        return false;
    *out = reply;
    return true;
}

/* ---- events ---- */

struct deltas {
    struct arena *arena;
    struct responses_stream_state *state;
    struct delta *items;
    size_t count, max;
};

static bool add_delta(struct deltas *deltas, struct delta delta, struct error *e)
{
    if (deltas->count == deltas->max)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "an event holds more than %zu pieces",
                         deltas->max);
    deltas->items[deltas->count++] = delta;
    return true;
}

static bool find_item(struct deltas *deltas, int64_t output_index,
                      struct responses_stream_item **out, struct error *e)
{
    struct responses_stream_state *state = deltas->state;
    for (int i = 0; i < state->item_count; i++) {
        *out = &state->items[i];
        if (state->items[i].output_index == output_index)
            return true;
    }
    if (state->item_count == RESPONSES_OUTPUT_ITEMS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %d items",
                         RESPONSES_OUTPUT_ITEMS_MAX);
    *out = &state->items[state->item_count++];
    **out = (struct responses_stream_item){.output_index = output_index, .call = -1};
    return true;
}

static bool begin_call(struct deltas *deltas, struct responses_stream_item *item,
                       const struct json *call, struct error *e)
{
    struct part part;
    if (item->call >= 0)
        return true;
    if (deltas->state->call_count == PROVIDER_TOOL_CALLS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer holds more than %d tool calls",
                         PROVIDER_TOOL_CALLS_MAX);
    if (!read_call(call, &part, e))
        return false;
    item->call = deltas->state->call_count++;
    struct delta delta = {
        .kind = DELTA_TOOL_CALL, .index = item->call, .call_id = part.call_id, .name = part.name};
    return add_delta(deltas, delta, e);
}

static bool add_piece(struct deltas *deltas, struct responses_stream_item *item, struct delta delta,
                      struct error *e)
{
    if (delta.text.len == 0 && delta.opaque.len == 0)
        return true;
    item->has_piece = true;
    return add_delta(deltas, delta, e);
}

/* What a whole item holds beyond what was streamed of it: all of it, or the seal of its reasoning. */
static bool read_done(struct deltas *deltas, struct responses_stream_item *item,
                      const struct json *value, struct error *e)
{
    str type = json_str_or(value, S("type"), STR_NONE);
    struct reply whole = {0};
    struct parts parts = {.arena = deltas->arena,
                          .max = json_count(json_get(value, S("content"))) + 1};
    parts.items = ARENA_ARRAY(deltas->arena, struct part, parts.max);
    bool had_piece = item->has_piece, is_call = str_equal(type, S("function_call"));
    if (is_call && !begin_call(deltas, item, value, e))
        return false;
    if (!read_item(&parts, value, e))
        return false;
    whole.parts = parts.items;
    for (size_t i = 0; i < parts.count; i++) {
        const struct part *part = &whole.parts[i];
        struct delta delta = {.kind = DELTA_TEXT, .text = part->text, .opaque = part->opaque};
        if (part->kind == PART_REASONING) {
            delta.kind = DELTA_REASONING;
            if (had_piece)
                delta.text = STR_NONE;
        } else if (had_piece) {
            continue;
        } else if (is_call) {
            delta.kind = DELTA_TOOL_ARGUMENTS;
            delta.index = item->call;
            delta.text = part->arguments;
        }
        if (!add_piece(deltas, item, delta, e))
            return false;
    }
    item->has_piece = true;
    return true;
}

static bool read_piece(struct deltas *deltas, str type, const struct json *event, struct error *e)
{
    static const struct {
        str type;
        enum delta_kind kind;
        bool is_refusal;
    } pieces[] = {
        {S_INIT("response.output_text.delta"), DELTA_TEXT, false},
        {S_INIT("response.refusal.delta"), DELTA_TEXT, true},
        {S_INIT("response.reasoning_text.delta"), DELTA_REASONING, false},
        {S_INIT("response.reasoning_summary_text.delta"), DELTA_REASONING, false},
        {S_INIT("response.function_call_arguments.delta"), DELTA_TOOL_ARGUMENTS, false},
    };
    struct responses_stream_item *item;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        if (!str_equal(type, pieces[i].type))
            continue;
        struct delta delta = {.kind = pieces[i].kind,
                              .text = json_str_or(event, S("delta"), STR_NONE)};
        if (pieces[i].is_refusal)
            delta.opaque = OPENAI_MEMBER_REFUSAL;
        if (delta.text.len == 0)
            return true;
        if (!find_item(deltas, json_i64_or(event, S("output_index"), 0), &item, e))
            return false;
        if (delta.kind == DELTA_TOOL_ARGUMENTS && item->call < 0)
            return error_set(e, REASON_PROVIDER_PROTOCOL,
                             "arguments came for a tool call that has not begun");
        delta.index = item->call < 0 ? 0 : item->call;
        return add_piece(deltas, item, delta, e);
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

/* Items that came in no event of their own are in the whole answer at the end. */
static bool read_end(struct deltas *deltas, const struct json *response, struct error *e)
{
    struct responses_stream_state *state = deltas->state;
    struct responses_stream_item *item;
    const struct json *value, *output = json_get(response, S("output"));
    int64_t index = 0;
    struct json_iter it = json_iter(json_type(output) == JSON_ARRAY ? output : NULL);
    while (json_next(&it, NULL, &value)) {
        if (!find_item(deltas, index++, &item, e))
            return false;
        if (!item->has_piece && !read_done(deltas, item, value, e))
            return false;
    }
    state->finish = responses_read_finish(response);
    state->usage = responses_read_usage(json_get(response, S("usage")));
    state->has_ended = true;
    return true;
}

bool responses_read_event(struct arena *arena, const struct json *event,
                          struct responses_stream_state *state, struct delta *out, size_t max,
                          size_t *count, struct error *e)
{
    struct deltas deltas = {.arena = arena, .state = state, .items = out, .max = max};
    struct responses_stream_item *item;
    str type = json_str_or(event, S("type"), STR_NONE);
    const struct json *response = json_get(event, S("response")),
                      *value = json_get(event, S("item"));
    bool is_added = str_equal(type, S("response.output_item.added"));
    bool is_done = str_equal(type, S("response.output_item.done"));
    *count = 0;
    if (str_is_empty(type) && !json_get(event, S("error")))
        return error_set(e, REASON_PROVIDER_PROTOCOL, "an event of the answer has no type");
    if (str_is_empty(type) || str_equal(type, S("error")) || str_equal(type, S("response.failed")))
        return responses_read_failure(event, arena, e);
    keep_name(json_str_or(response, S("id"), STR_NONE), state->id_buffer, sizeof state->id_buffer,
              &state->id);
    keep_name(json_str_or(response, S("model"), STR_NONE), state->model_buffer,
              sizeof state->model_buffer, &state->model);
    bool ok = true;
    if (is_added || is_done) {
        ok = find_item(&deltas, json_i64_or(event, S("output_index"), 0), &item, e);
        if (ok && is_done)
            ok = read_done(&deltas, item, value, e);
        else if (ok && str_equal(json_str_or(value, S("type"), STR_NONE), S("function_call")))
            ok = begin_call(&deltas, item, value, e);
    } else if (str_equal(type, S("response.completed")) ||
               str_equal(type, S("response.incomplete"))) {
        ok = read_end(&deltas, response, e);
    } else {
        ok = read_piece(&deltas, type, event, e);
    }
    *count = deltas.count;
    return ok;
}

struct delta responses_end_delta(const struct responses_stream_state *state)
{
    enum finish finish = state->finish == FINISH_NONE ? FINISH_STOP : state->finish;
    if (finish == FINISH_STOP && state->call_count > 0)
        finish = FINISH_TOOL_CALLS;
    return (struct delta){.kind = DELTA_END,
                          .finish = finish,
                          .usage = state->usage,
                          .id = state->id,
                          .model = state->model};
}
