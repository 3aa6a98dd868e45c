/* request -> prompt */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/openai_format_internal.h"

/* Where we are, for messages: "messages[2].content[0]". */
struct place {
    size_t message;
    const char *member; /* of the message, or NULL */
    size_t item;
};

static bool fail(const struct place *place, struct error *e, const char *what)
{
    if (!place->member)
        return error_set(e, REASON_SCHEMA, "messages[%zu]%s", place->message, what);
    return error_set(e, REASON_SCHEMA, "messages[%zu].%s[%zu]%s", place->message, place->member,
                     place->item, what);
}

/* ---- content ---- */

static bool read_image(struct arena *arena, const struct json *item, const struct place *place,
                       struct part *out, struct error *e)
{
    const struct json *image = json_get(item, S("image_url"));
    str detail;
    *out = (struct part){.kind = PART_IMAGE};
    if (!json_to_str(json_get(image, S("url")), &out->text))
        return fail(place, e, ".image_url.url must be a string");
    const struct json *detail_value = json_get(image, S("detail"));
    if (json_to_str(detail_value, &detail))
        out->opaque = json_print(arena, detail_value);
    return true;
}

static bool read_content_part(struct arena *arena, const struct json *item,
                              const struct place *place, struct part *out, struct error *e)
{
    str type = json_str_or(item, S("type"), STR_NONE);
    *out = (struct part){.kind = PART_TEXT};
    if (str_equal(type, S("text")))
        return json_to_str(json_get(item, S("text")), &out->text) ||
               fail(place, e, ".text must be a string");
    if (str_equal(type, S("refusal"))) {
        out->opaque = OPENAI_MEMBER_REFUSAL;
        return json_to_str(json_get(item, S("refusal")), &out->text) ||
               fail(place, e, ".refusal must be a string");
    }
    if (str_equal(type, S("image_url")))
        return read_image(arena, item, place, out, e);
    if (str_equal(type, S("file")))
        return openai_read_file(arena, item, out) ||
               fail(place, e, ".file.file_data must be a PDF as a data: URL in base64");
    return fail(place, e, ".type must be text, image_url, file or refusal");
}

static bool read_content(struct arena *arena, const struct json *content, struct place *place,
                         struct part *parts, size_t *count, struct error *e)
{
    str text;
    const struct json *item;
    if (json_to_str(content, &text)) {
        parts[(*count)++] = (struct part){.kind = PART_TEXT, .text = text};
        return true;
    }
    if (json_type(content) != JSON_ARRAY)
        return fail(place, e, ".content must be a string or a list of parts");
    place->member = "content";
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &item)) {
        if (!read_content_part(arena, item, place, &parts[(*count)++], e))
            return false;
        place->item++;
    }
    *place = (struct place){.message = place->message};
    return true;
}

static size_t content_count(const struct json *content)
{
    return json_type(content) == JSON_ARRAY ? json_count(content) : 1;
}

/* ---- messages ---- */

static bool read_tool_call(const struct json *item, const struct place *place, struct part *out,
                           struct error *e)
{
    const struct json *function = json_get(item, S("function"));
    *out = (struct part){.kind = PART_TOOL_CALL};
    if (!json_to_str(json_get(item, S("id")), &out->call_id) || out->call_id.len == 0)
        return fail(place, e, ".id must be a string");
    if (!str_equal(json_str_or(item, S("type"), S("function")), S("function")))
        return fail(place, e, ".type must be function");
    if (!json_to_str(json_get(function, S("name")), &out->name) || out->name.len == 0)
        return fail(place, e, ".function.name must be a string");
    if (!json_to_str(json_get(function, S("arguments")), &out->arguments))
        return fail(place, e, ".function.arguments must be a string");
    return true;
}

static bool read_assistant(struct arena *arena, const struct json *message, struct place *place,
                           struct prompt_message *out, struct error *e)
{
    const struct json *content = json_get(message, S("content"));
    const struct json *calls = json_get(message, S("tool_calls"));
    const struct json *item;
    str text, opaque;
    bool has_content = json_type(content) != JSON_ABSENT && json_type(content) != JSON_NULL;
    if (json_get(message, S("function_call")))
        return fail(place, e, ".function_call is outdated; use tool_calls");
    if (json_type(calls) != JSON_ABSENT && json_type(calls) != JSON_NULL &&
        json_type(calls) != JSON_ARRAY)
        return fail(place, e, ".tool_calls must be a list");
    size_t most =
        content_count(content) + json_count(calls) + openai_thinking_block_count(message) + 2;
    if (most > PROMPT_PARTS_MAX)
        return fail(place, e, " has too many parts");
    out->parts = ARENA_ARRAY(arena, struct part, most);
    out->part_count = openai_read_thinking_blocks(arena, message, out->parts);
    if (out->part_count == 0 && openai_read_reasoning(message, &text, &opaque))
        out->parts[out->part_count++] =
            (struct part){.kind = PART_REASONING, .text = text, .opaque = opaque};
    if (has_content && !read_content(arena, content, place, out->parts, &out->part_count, e))
        return false;
    if (json_to_str(json_get(message, S("refusal")), &text))
        out->parts[out->part_count++] =
            (struct part){.kind = PART_TEXT, .text = text, .opaque = OPENAI_MEMBER_REFUSAL};
    place->member = "tool_calls";
    struct json_iter it = json_iter(calls);
    while (json_next(&it, NULL, &item)) {
        if (!read_tool_call(item, place, &out->parts[out->part_count++], e))
            return false;
        place->item++;
    }
    return true;
}

static bool read_tool(struct arena *arena, const struct json *message, struct place *place,
                      struct prompt_message *out, struct error *e)
{
    const struct json *content = json_get(message, S("content"));
    struct prompt_message read = {0};
    struct part *result = ARENA_NEW(arena, struct part);
    result->kind = PART_TOOL_RESULT;
    if (!json_to_str(json_get(message, S("tool_call_id")), &result->call_id))
        return fail(place, e, ".tool_call_id must be a string");
    if (content_count(content) > PROMPT_PARTS_MAX)
        return fail(place, e, " has too many parts");
    read.parts = ARENA_ARRAY(arena, struct part, content_count(content) + 1);
    if (!read_content(arena, content, place, read.parts, &read.part_count, e))
        return false;
    for (size_t i = 0; i < read.part_count; i++) {
        if (read.parts[i].kind != PART_TEXT)
            return fail(place, e, ".content of a tool's answer must be text");
    }
    result->text = prompt_message_text(arena, &read);
    out->parts = result;
    out->part_count = 1;
    return true;
}

static bool read_message(struct arena *arena, const struct json *message, size_t index,
                         struct prompt_message *messages, struct error *e)
{
    struct place place = {.message = index};
    struct prompt_message *out = &messages[index];
    const struct json *content = json_get(message, S("content"));
    str role;
    if (!json_to_str(json_get(message, S("role")), &role) || !role_parse(role, &out->role))
        return fail(&place, e, ".role must be system, developer, user, assistant or tool");
    out->name = json_str_or(message, S("name"), STR_NONE);
    if (out->role == ROLE_ASSISTANT)
        return read_assistant(arena, message, &place, out, e);
    if (out->role == ROLE_TOOL) {
        if (!read_tool(arena, message, &place, out, e))
            return false;
        out->parts[0].name = prompt_call_name(messages, index, out->parts[0].call_id);
        return true;
    }
    if (content_count(content) > PROMPT_PARTS_MAX)
        return fail(&place, e, " has too many parts");
    out->parts = ARENA_ARRAY(arena, struct part, content_count(content) + 1);
    return read_content(arena, content, &place, out->parts, &out->part_count, e);
}

bool openai_read_messages(struct arena *arena, const struct json *messages,
                          struct prompt_message **out, size_t *count, struct error *e)
{
    const struct json *item;
    size_t total = json_count(messages), index = 0;
    if (json_type(messages) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "messages must be a list");
    if (total > PROMPT_MESSAGES_MAX)
        return error_set(e, REASON_SCHEMA, "messages: %zu are too many, at most %d are possible",
                         total, PROMPT_MESSAGES_MAX);
    struct prompt_message *read = ARENA_ARRAY(arena, struct prompt_message, total);
    struct json_iter it = json_iter(messages);
    while (json_next(&it, NULL, &item)) {
        if (!read_message(arena, item, index++, read, e))
            return false;
    }
    *out = read;
    *count = total;
    return true;
}

/* ---- tools ---- */

static bool read_tool_spec(struct arena *arena, const struct json *item, size_t index,
                           struct tool_spec *out, struct error *e)
{
    const struct json *function = json_get(item, S("function"));
    const struct json *parameters = json_get(function, S("parameters"));
    if (!str_equal(json_str_or(item, S("type"), STR_NONE), S("function")) ||
        json_type(function) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "tools[%zu].type must be function", index);
    out->name = json_str_or(function, S("name"), STR_NONE);
    if (!prompt_is_tool_name(out->name, TOOL_NAME_BYTES_MAX))
        return error_set(e, REASON_SCHEMA,
                         "tools[%zu].function.name must be 1 to %u letters, digits, '_' or '-'",
                         index, TOOL_NAME_BYTES_MAX);
    out->description = json_str_or(function, S("description"), STR_NONE);
    out->is_strict = json_bool_or(function, S("strict"), false);
    if (json_type(parameters) == JSON_OBJECT)
        out->parameters = json_print(arena, parameters);
    else if (json_type(parameters) != JSON_ABSENT && json_type(parameters) != JSON_NULL)
        return error_set(e, REASON_SCHEMA,
                         "tools[%zu].function.parameters must be a JSON Schema object", index);
    return true;
}

static bool read_tools(struct arena *arena, const struct json *tools, struct prompt *out,
                       struct error *e)
{
    const struct json *item;
    size_t index = 0;
    if (json_type(tools) == JSON_ABSENT || json_type(tools) == JSON_NULL)
        return true;
    if (json_type(tools) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "tools must be a list");
    if (json_count(tools) > PROMPT_TOOLS_MAX)
        return error_set(e, REASON_SCHEMA, "tools: %zu are too many, at most %d are possible",
                         json_count(tools), PROMPT_TOOLS_MAX);
    out->tool_count = json_count(tools);
    out->tools = ARENA_ARRAY(arena, struct tool_spec, out->tool_count);
    struct json_iter it = json_iter(tools);
    while (json_next(&it, NULL, &item)) {
        if (!read_tool_spec(arena, item, index, &out->tools[index], e))
            return false;
        index++;
    }
    return true;
}

static bool is_choice_word(str word)
{
    return str_equal(word, S("auto")) || str_equal(word, S("none")) ||
           str_equal(word, S("required"));
}

static bool read_tool_choice(const struct json *choice, struct prompt *out, struct error *e)
{
    if (json_type(choice) == JSON_ABSENT || json_type(choice) == JSON_NULL)
        return true;
    if (json_to_str(choice, &out->tool_choice)) {
        if (is_choice_word(out->tool_choice))
            return true;
    } else if (str_equal(json_str_or(choice, S("type"), STR_NONE), S("function")) &&
               json_to_str(json_path(choice, S("/function/name")), &out->tool_choice)) {
        for (size_t i = 0; i < out->tool_count; i++) {
            if (str_equal(out->tools[i].name, out->tool_choice) &&
                !is_choice_word(out->tool_choice))
                return true;
        }
        return error_set(e, REASON_SCHEMA, "tool_choice names a tool that is not in tools");
    }
    return error_set(
        e, REASON_SCHEMA,
        "tool_choice must be auto, none, required or {type: function, function: {name}}");
}

/* ---- the request ---- */

static bool read_output_limit(const struct json *body, struct prompt *out, struct error *e)
{
    static const str names[] = {S_INIT("max_tokens"), S_INIT("max_completion_tokens")};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        int64_t limit = 0;
        if (json_type(json_get(body, names[i])) == JSON_NULL)
            continue;
        if (!json_read_i64(body, names[i], 1, INT32_MAX, &limit, e))
            return false;
        if (limit > 0 && (out->max_output_tokens == 0 || limit < out->max_output_tokens))
            out->max_output_tokens = limit;
    }
    return true;
}

/* Clients send null for what they leave at its default. */
static bool is_given(const struct json *body, str key)
{
    enum json_type type = json_type(json_get(body, key));
    return type != JSON_ABSENT && type != JSON_NULL;
}

static bool read_settings(struct arena *arena, const struct json *body, struct prompt *out,
                          bool *is_stream, bool *include_usage, struct error *e)
{
    const struct json *format = json_get(body, S("response_format"));
    const struct json *options = json_get(body, S("stream_options"));
    bool is_parallel = false;
    if (is_given(body, S("temperature"))) {
        if (!json_read_double(body, S("temperature"), &out->temperature, e))
            return false;
        if (!(out->temperature >= 0 && out->temperature <= 2))
            return error_set(e, REASON_SCHEMA, "temperature must be between 0 and 2");
    }
    if (is_given(body, S("parallel_tool_calls"))) {
        if (!json_read_bool(body, S("parallel_tool_calls"), &is_parallel, e))
            return false;
        out->parallel_tool_calls = is_parallel;
    }
    if (is_given(body, S("response_format"))) {
        if (json_type(format) != JSON_OBJECT)
            return error_set(e, REASON_SCHEMA, "response_format must be an object");
        out->response_format = json_print(arena, format);
    }
    if (is_given(body, S("stream_options")) && json_type(options) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "stream_options must be an object");
    *include_usage = json_bool_or(options, S("include_usage"), false);
    if (is_given(body, S("stream")) && !json_read_bool(body, S("stream"), is_stream, e))
        return false;
    return !is_given(body, S("user")) || json_read_str(body, S("user"), &out->user, e);
}

static bool has_place(str key, const struct json *item)
{
    static const str known[] = {
        S_INIT("model"),
        S_INIT("messages"),
        S_INIT("tools"),
        S_INIT("tool_choice"),
        S_INIT("temperature"),
        S_INIT("response_format"),
        S_INIT("user"),
        S_INIT("stream"),
        S_INIT("max_tokens"),
        S_INIT("parallel_tool_calls"),
        S_INIT("max_completion_tokens"),
    };
    if (str_equal(key, S("stream_options"))) /* options we do not know travel on */
        return json_count(item) == (json_get(item, S("include_usage")) ? 1u : 0u);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        if (str_equal(key, known[i]))
            return true;
    }
    return false;
}

static bool read_extra(struct arena *arena, const struct json *body, struct prompt *out,
                       struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    str key;
    const struct json *item;
    bool is_empty = true;
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    struct json_iter it = json_iter(body);
    while (json_next(&it, &key, &item)) {
        if (has_place(key, item))
            continue;
        json_put_value(&w, key, item);
        is_empty = false;
    }
    json_object_end(&w);
    if (is_empty)
        return true;
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the request's other members are too large");
    return json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &out->extra, e);
}

bool openai_read_request(struct arena *arena, const struct json *body, struct prompt *out,
                         bool *is_stream, bool *include_usage, struct error *e)
{
    struct prompt prompt = {.parallel_tool_calls = -1, .temperature = -1};
    bool streams = false, wants_usage = false;
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the request must be a JSON object");
    if (!json_need_str(body, S("model"), &prompt.model, e) ||
        !openai_read_messages(arena, json_get(body, S("messages")), &prompt.messages,
                              &prompt.message_count, e))
        return false;
    if (prompt.model.len == 0)
        return error_set(e, REASON_SCHEMA, "model must not be empty");
    if (prompt.message_count == 0)
        return error_set(e, REASON_SCHEMA, "messages must not be empty");
    if (json_type(json_get(body, S("functions"))) == JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "functions is outdated; use tools");
    if (!read_tools(arena, json_get(body, S("tools")), &prompt, e) ||
        !read_tool_choice(json_get(body, S("tool_choice")), &prompt, e) ||
        !read_output_limit(body, &prompt, e) ||
        !read_settings(arena, body, &prompt, &streams, &wants_usage, e) ||
        !read_extra(arena, body, &prompt, e))
        return false;
    *out = prompt;
    *is_stream = streams;
    *include_usage = wants_usage;
    return true;
}
