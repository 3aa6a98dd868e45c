/* request -> prompt */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format_internal.h"

enum { TOOL_NAME_LONGEST = 128 };

/* Where we are, for messages: "messages[2].content[0]", "system[1]". */
struct place {
    const char *list;
    size_t index;
    bool is_block;
    size_t block;
};

static bool fail(const struct place *place, struct error *e, const char *what)
{
    if (!place->is_block)
        return error_set(e, REASON_SCHEMA, "%s[%zu]%s", place->list, place->index, what);
    return error_set(e, REASON_SCHEMA, "%s[%zu].content[%zu]%s", place->list, place->index,
                     place->block, what);
}

/* Clients send null for what they leave at its default. */
static bool is_given(const struct json *value)
{
    enum json_type type = json_type(value);
    return type != JSON_ABSENT && type != JSON_NULL;
}

/* ---- blocks ---- */

/* Members of a block that a part has no place for. */
static str pick_rest(struct arena *arena, const struct json *block)
{
    static const str names[] = {S_INIT("cache_control"), S_INIT("citations"), S_INIT("caller"),
                                S_INIT("transformations"), S_INIT("toolset_name")};
    return anthropic_pick(arena, block, names, ARRAY_COUNT(names));
}

static bool read_image(struct arena *arena, const struct json *block, const struct place *place,
                       struct part *out, struct error *e)
{
    const struct json *source = json_get(block, S("source"));
    str type = json_str_or(source, S("type"), STR_NONE), media, data;
    *out = (struct part){.kind = PART_IMAGE, .opaque = pick_rest(arena, block)};
    if (str_equal(type, S("url")))
        return json_to_str(json_get(source, S("url")), &out->text) ||
               fail(place, e, ".source.url must be a string");
    if (str_equal(type, S("file"))) { /* a file of the API's own */
        out->opaque = json_print(arena, block);
        return true;
    }
    if (!str_equal(type, S("base64")))
        return fail(place, e, ".source.type must be base64, url or file");
    if (!json_to_str(json_get(source, S("media_type")), &media) ||
        !json_to_str(json_get(source, S("data")), &data))
        return fail(place, e, ".source needs media_type and data");
    struct strbuf url;
    strbuf_init(&url, arena, data.len + media.len + 16);
    strbuf_add(&url, S("data:"));
    strbuf_add(&url, media);
    strbuf_add(&url, S(";base64,"));
    strbuf_add(&url, data);
    out->text = strbuf_str(&url);
    return true;
}

static bool read_thinking(struct arena *arena, const struct json *block, const struct place *place,
                          struct part *out, struct error *e)
{
    *out = (struct part){.kind = PART_REASONING};
    if (!json_to_str(json_get(block, S("thinking")), &out->text))
        return fail(place, e, ".thinking must be a string");
    out->opaque = anthropic_signature_opaque(arena, json_str_or(block, S("signature"), STR_NONE));
    return true;
}

static bool read_tool_use(struct arena *arena, const struct json *block, const struct place *place,
                          struct part *out, struct error *e)
{
    const struct json *input = json_get(block, S("input"));
    *out = (struct part){.kind = PART_TOOL_CALL, .opaque = pick_rest(arena, block)};
    if (!json_to_str(json_get(block, S("id")), &out->call_id) || out->call_id.len == 0)
        return fail(place, e, ".id must be a string");
    if (!json_to_str(json_get(block, S("name")), &out->name) || out->name.len == 0)
        return fail(place, e, ".name must be a string");
    if (json_type(input) != JSON_OBJECT)
        return fail(place, e, ".input must be an object");
    out->arguments = json_print(arena, input);
    return true;
}

/* What no other dialect has: kept whole; a document of plain text shows its text. */
static struct part read_other(struct arena *arena, const struct json *block)
{
    const struct json *source = json_get(block, S("source"));
    struct part part = {.kind = PART_TEXT, .opaque = json_print(arena, block)};
    if (str_equal(json_str_or(block, S("type"), STR_NONE), S("redacted_thinking")))
        part.kind = PART_REASONING;
    if (str_equal(json_str_or(source, S("type"), STR_NONE), S("text")))
        part.text = json_str_or(source, S("data"), STR_NONE);
    return part;
}

static bool read_block(struct arena *arena, const struct json *block, const struct place *place,
                       struct part *out, struct error *e)
{
    str type;
    if (!json_to_str(json_get(block, S("type")), &type))
        return fail(place, e, ".type must be a string");
    if (str_equal(type, S("text"))) {
        *out = (struct part){.kind = PART_TEXT, .opaque = pick_rest(arena, block)};
        return json_to_str(json_get(block, S("text")), &out->text) ||
               fail(place, e, ".text must be a string");
    }
    if (str_equal(type, S("image")))
        return read_image(arena, block, place, out, e);
    if (str_equal(type, S("thinking")))
        return read_thinking(arena, block, place, out, e);
    if (str_equal(type, S("tool_use")))
        return read_tool_use(arena, block, place, out, e);
    *out = read_other(arena, block);
    return true;
}

/* ---- results ---- */

/* {"content": [...]} beside the members every block may have, for a result that holds more than text and images. */
static str keep_content(struct arena *arena, const struct json *block)
{
    static const str names[] = {S_INIT("content"), S_INIT("cache_control"), S_INIT("toolset_name")};
    return anthropic_pick(arena, block, names, ARRAY_COUNT(names));
}

struct result_images {
    struct part *parts; /* of the user's message that follows */
    size_t *count;
};

static bool read_result_content(struct arena *arena, const struct json *block,
                                const struct place *place, struct part *result,
                                struct result_images images, struct error *e)
{
    const struct json *content = json_get(block, S("content")), *item;
    struct prompt_message texts = {0};
    if (!is_given(content) || json_to_str(content, &result->text))
        return true;
    if (json_type(content) != JSON_ARRAY)
        return fail(place, e, ".content must be a string or a list of blocks");
    texts.parts = ARENA_ARRAY(arena, struct part, json_count(content));
    bool is_plain = true;
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &item)) {
        struct part part;
        if (!read_block(arena, item, place, &part, e))
            return false;
        is_plain = is_plain && !anthropic_is_whole(arena, part.opaque);
        part.call_id = result->call_id;
        if (part.kind == PART_IMAGE)
            images.parts[(*images.count)++] = part;
        else if (part.kind == PART_TEXT)
            texts.parts[texts.part_count++] = part;
    }
    result->text = prompt_message_text(arena, &texts);
    if (!is_plain)
        result->opaque = keep_content(arena, block);
    return true;
}

static bool read_result(struct arena *arena, const struct json *block, const struct place *place,
                        struct prompt *out, struct result_images images, struct error *e)
{
    struct part *result = ARENA_NEW(arena, struct part);
    *result = (struct part){.kind = PART_TOOL_RESULT, .opaque = pick_rest(arena, block)};
    if (!json_to_str(json_get(block, S("tool_use_id")), &result->call_id))
        return fail(place, e, ".tool_use_id must be a string");
    result->is_error = json_bool_or(block, S("is_error"), false);
    result->name = prompt_call_name(out->messages, out->message_count, result->call_id);
    if (!read_result_content(arena, block, place, result, images, e))
        return false;
    out->messages[out->message_count++] =
        (struct prompt_message){.role = ROLE_TOOL, .parts = result, .part_count = 1};
    return true;
}

/* ---- messages ---- */

static bool is_result(const struct json *block)
{
    return str_equal(json_str_or(block, S("type"), STR_NONE), S("tool_result"));
}

/* The most parts that a message's content gives: its blocks, and the blocks inside its results. */
static size_t count_parts(const struct json *content)
{
    const struct json *block;
    size_t count = json_type(content) == JSON_ARRAY ? json_count(content) : 1;
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    while (json_next(&it, NULL, &block)) {
        if (is_result(block))
            count += json_count(json_get(block, S("content")));
    }
    return count;
}

/* Results become messages of their own, in front of the one that holds the rest. */
static bool read_content(struct arena *arena, const struct json *content, enum role role,
                         struct place *place, struct prompt *out, struct error *e)
{
    size_t most = count_parts(content);
    const struct json *block;
    str text;
    struct prompt_message rest = {.role = role};
    if (most > PROMPT_PARTS_MAX)
        return fail(place, e, " has too many blocks");
    rest.parts = ARENA_ARRAY(arena, struct part, most);
    if (json_to_str(content, &text))
        rest.parts[rest.part_count++] = (struct part){.kind = PART_TEXT, .text = text};
    else if (json_type(content) != JSON_ARRAY)
        return fail(place, e, ".content must be a string or a list of blocks");
    bool has_results = false;
    place->is_block = true;
    struct result_images images = {.parts = rest.parts, .count = &rest.part_count};
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    for (place->block = 0; json_next(&it, NULL, &block); place->block++) {
        bool is_ok = is_result(block)
                         ? read_result(arena, block, place, out, images, e)
                         : read_block(arena, block, place, &rest.parts[rest.part_count++], e);
        if (!is_ok)
            return false;
        has_results = has_results || is_result(block);
    }
    if (rest.part_count > 0 || !has_results)
        out->messages[out->message_count++] = rest;
    return true;
}

static bool read_messages(struct arena *arena, const struct json *list, struct prompt *out,
                          struct error *e)
{
    struct place place = {.list = "messages"};
    const struct json *item;
    enum role role;
    struct json_iter it = json_iter(list);
    for (place.index = 0; json_next(&it, NULL, &item); place.index++) {
        str name = json_str_or(item, S("role"), STR_NONE);
        place.is_block = false;
        if (!role_parse(name, &role) || role == ROLE_TOOL)
            return fail(&place, e, ".role must be user or assistant");
        if (!read_content(arena, json_get(item, S("content")), role, &place, out, e))
            return false;
    }
    return true;
}

static size_t count_messages(const struct json *list)
{
    const struct json *item, *block;
    size_t count = json_count(list);
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        const struct json *content = json_get(item, S("content"));
        struct json_iter blocks = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
        while (json_next(&blocks, NULL, &block))
            count += is_result(block);
    }
    return count;
}

static bool read_conversation(struct arena *arena, const struct json *body, struct prompt *out,
                              struct error *e)
{
    const struct json *list = json_get(body, S("messages"));
    const struct json *system = json_get(body, S("system"));
    struct place place = {.list = "system"};
    if (json_type(list) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "messages must be a list");
    size_t most = count_messages(list) + 1;
    if (most > PROMPT_MESSAGES_MAX)
        return error_set(e, REASON_SCHEMA, "messages: %zu are too many, at most %d are possible",
                         most, PROMPT_MESSAGES_MAX);
    if (json_count(list) == 0)
        return error_set(e, REASON_SCHEMA, "messages must not be empty");
    out->messages = ARENA_ARRAY(arena, struct prompt_message, most);
    if (is_given(system) && !read_content(arena, system, ROLE_SYSTEM, &place, out, e))
        return error_set(e, REASON_SCHEMA, "system must be a string or a list of text blocks");
    return read_messages(arena, list, out, e);
}

/* ---- tools ---- */

/* Tools of the API's own have a type: they stay in extra. */
static bool is_custom(const struct json *tool)
{
    return str_equal(json_str_or(tool, S("type"), S("custom")), S("custom"));
}

static bool read_tool(struct arena *arena, const struct json *tool, size_t index,
                      struct tool_spec *out, struct error *e)
{
    static const str rest[] = {S_INIT("cache_control"), S_INIT("allowed_callers"),
                               S_INIT("defer_loading"), S_INIT("eager_input_streaming"),
                               S_INIT("input_examples")};
    const struct json *schema = json_get(tool, S("input_schema"));
    out->name = json_str_or(tool, S("name"), STR_NONE);
    if (!prompt_is_tool_name(out->name, TOOL_NAME_LONGEST))
        return error_set(e, REASON_SCHEMA,
                         "tools[%zu].name must be 1 to %d letters, digits, '_' or '-'", index,
                         TOOL_NAME_LONGEST);
    if (json_type(schema) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "tools[%zu].input_schema must be a JSON Schema object",
                         index);
    out->description = json_str_or(tool, S("description"), STR_NONE);
    out->parameters = json_print(arena, schema);
    out->is_strict = json_bool_or(tool, S("strict"), false);
    out->opaque = anthropic_pick(arena, tool, rest, ARRAY_COUNT(rest));
    return true;
}

static bool read_tools(struct arena *arena, const struct json *tools, struct prompt *out,
                       struct error *e)
{
    const struct json *item;
    size_t index = 0;
    if (!is_given(tools))
        return true;
    if (json_type(tools) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "tools must be a list");
    if (json_count(tools) > PROMPT_TOOLS_MAX)
        return error_set(e, REASON_SCHEMA, "tools: %zu are too many, at most %d are possible",
                         json_count(tools), PROMPT_TOOLS_MAX);
    out->tools = ARENA_ARRAY(arena, struct tool_spec, json_count(tools));
    struct json_iter it = json_iter(tools);
    while (json_next(&it, NULL, &item)) {
        if (is_custom(item) && !read_tool(arena, item, index, &out->tools[out->tool_count++], e))
            return false;
        index++;
    }
    return true;
}

static bool has_tool(const struct prompt *prompt, str name)
{
    for (size_t i = 0; i < prompt->tool_count; i++) {
        if (str_equal(prompt->tools[i].name, name))
            return true;
    }
    return false;
}

static bool read_tool_choice(const struct json *choice, struct prompt *out, struct error *e)
{
    str type = json_str_or(choice, S("type"), STR_NONE), name;
    bool is_disabled = false;
    if (!is_given(choice))
        return true;
    if (is_given(json_get(choice, S("disable_parallel_tool_use"))) &&
        !json_read_bool(choice, S("disable_parallel_tool_use"), &is_disabled, e))
        return false;
    if (json_get(choice, S("disable_parallel_tool_use")))
        out->parallel_tool_calls = !is_disabled;
    if (str_equal(type, S("auto")) || str_equal(type, S("none")))
        out->tool_choice = type;
    else if (str_equal(type, S("any")))
        out->tool_choice = S("required");
    else if (!str_equal(type, S("tool")) || !json_to_str(json_get(choice, S("name")), &name))
        return error_set(e, REASON_SCHEMA,
                         "tool_choice must be {type: auto | any | none} or {type: tool, name}");
    else if (has_tool(out, name))
        out->tool_choice = name;
    else
        return error_set(e, REASON_SCHEMA, "tool_choice names a tool that is not in tools");
    return true;
}

/* ---- settings ---- */

/* {"type": "json_schema", "schema"} -> Chat's form of it. */
static bool read_format(struct arena *arena, const struct json *format, struct prompt *out,
                        struct error *e)
{
    const struct json *schema = json_get(format, S("schema"));
    struct strbuf text;
    struct json_writer w;
    if (!is_given(format))
        return true;
    if (!str_equal(json_str_or(format, S("type"), STR_NONE), S("json_schema")) ||
        json_type(schema) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA,
                         "output_config.format must be {type: json_schema, schema}");
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("json_schema"));
    json_key(&w, S("json_schema"));
    json_object_begin(&w);
    json_put_str(&w, S("name"), S("answer"));
    json_put_value(&w, S("schema"), schema);
    json_put_bool(&w, S("strict"), true);
    json_object_end(&w);
    json_object_end(&w);
    out->response_format = strbuf_str(&text);
    return true;
}

static bool read_settings(struct arena *arena, const struct json *body, struct prompt *out,
                          bool *is_stream, struct error *e)
{
    const struct json *config = json_get(body, S("output_config"));
    const struct json *metadata = json_get(body, S("metadata"));
    if (!json_read_i64(body, S("max_tokens"), 1, INT32_MAX, &out->max_output_tokens, e) ||
        !json_read_bool(body, S("stream"), is_stream, e))
        return false;
    if (is_given(json_get(body, S("temperature")))) {
        if (!json_read_double(body, S("temperature"), &out->temperature, e))
            return false;
        if (!(out->temperature >= 0 && out->temperature <= 1))
            return error_set(e, REASON_SCHEMA, "temperature must be between 0 and 1");
    }
    if (is_given(metadata) && json_type(metadata) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "metadata must be an object");
    if (is_given(config) && json_type(config) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "output_config must be an object");
    out->user = json_str_or(metadata, S("user_id"), STR_NONE);
    return read_format(arena, json_get(config, S("format")), out, e);
}

/* ---- extra ---- */

/* What is told by members of the prompt, or in Chat's words. */
static bool has_place(str key)
{
    static const str known[] = {
        S_INIT("model"),         S_INIT("messages"),       S_INIT("system"),
        S_INIT("tools"),         S_INIT("tool_choice"),    S_INIT("max_tokens"),
        S_INIT("stream"),        S_INIT("temperature"),    S_INIT("metadata"),
        S_INIT("output_config"), S_INIT("stop_sequences"), S_INIT("top_p"),
        S_INIT("service_tier"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        if (str_equal(key, known[i]))
            return true;
    }
    return false;
}

static void write_own_tools(struct json_writer *w, const struct json *tools)
{
    const struct json *tool;
    bool has_begun = false;
    struct json_iter it = json_iter(json_type(tools) == JSON_ARRAY ? tools : NULL);
    while (json_next(&it, NULL, &tool)) {
        if (is_custom(tool))
            continue;
        if (!has_begun) {
            json_key(w, S("tools"));
            json_array_begin(w);
            has_begun = true;
        }
        json_write_value(w, tool);
    }
    if (has_begun)
        json_array_end(w);
}

static void write_own(struct json_writer *w, const struct json *body)
{
    str key;
    const struct json *item;
    json_key(w, S("anthropic"));
    json_object_begin(w);
    struct json_iter it = json_iter(body);
    while (json_next(&it, &key, &item)) {
        if (!has_place(key) && json_type(item) != JSON_NULL)
            json_put_value(w, key, item);
    }
    write_own_tools(w, json_get(body, S("tools")));
    json_object_end(w);
}

static void write_shared(struct json_writer *w, const struct json *body)
{
    const struct json *stop = json_get(body, S("stop_sequences"));
    const struct json *top_p = json_get(body, S("top_p"));
    str effort = json_str_or(json_get(body, S("output_config")), S("effort"), STR_NONE);
    str tier = json_str_or(body, S("service_tier"), STR_NONE);
    if (json_count(stop) > 0)
        json_put_value(w, S("stop"), stop);
    if (is_given(top_p))
        json_put_value(w, S("top_p"), top_p);
    if (effort.len > 0) /* the one level that Chat has no word for */
        json_put_str(w, S("reasoning_effort"), str_equal(effort, S("max")) ? S("xhigh") : effort);
    if (tier.len > 0)
        json_put_str(w, S("service_tier"),
                     str_equal(tier, S("standard_only")) ? S("default") : tier);
}

static bool read_extra(struct arena *arena, const struct json *body, struct prompt *out,
                       struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_shared(&w, body);
    write_own(&w, body);
    json_object_end(&w);
    if (str_equal(strbuf_str(&text), S("{\"anthropic\":{}}")))
        return true;
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the request's other members are too large");
    return json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &out->extra, e);
}

/* A conversation of which the provider holds a part: without that part it would be answered wrongly. */
static bool check_thread(const struct json *body, struct error *e)
{
    enum json_type type = json_type(json_get(body, S("thread")));
    return type == JSON_ABSENT || type == JSON_NULL ||
           error_set(
               e, REASON_UNSUPPORTED,
               "thread: this model keeps no conversation; leave it out and send all messages");
}

bool anthropic_read_request(struct arena *arena, const struct json *body, struct prompt *out,
                            bool *is_stream, struct error *e)
{
    struct prompt prompt = {.parallel_tool_calls = -1, .temperature = -1};
    bool streams = false;
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the request must be a JSON object");
    if (!json_need_str(body, S("model"), &prompt.model, e))
        return false;
    if (prompt.model.len == 0)
        return error_set(e, REASON_SCHEMA, "model must not be empty");
    if (!check_thread(body, e) || !read_conversation(arena, body, &prompt, e) ||
        !read_tools(arena, json_get(body, S("tools")), &prompt, e) ||
        !read_tool_choice(json_get(body, S("tool_choice")), &prompt, e) ||
        !read_settings(arena, body, &prompt, &streams, e) || !read_extra(arena, body, &prompt, e))
        return false;
    *out = prompt;
    *is_stream = streams;
    return true;
}
