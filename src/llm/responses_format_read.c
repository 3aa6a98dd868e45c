/* request -> what governance needs, request -> prompt (but for its messages) */
#include "base/arena.h"
#include "llm/responses_format_internal.h"

bool responses_is_given(const struct json *object, str key)
{
    enum json_type type = json_type(json_get(object, key));
    return type != JSON_ABSENT && type != JSON_NULL;
}

/* ---- what governance needs ---- */

/* What a file or a hosted tool brings into the input is not in the request. */
static int64_t unseen_tokens(const struct json *body)
{
    const struct json *item, *part;
    int64_t total = 0;
    struct json_iter tools = json_iter(json_get(body, S("tools")));
    while (json_next(&tools, NULL, &item)) {
        str type = json_str_or(item, S("type"), STR_NONE);
        if (!str_equal(type, S("function")) && !str_equal(type, S("custom")))
            total += RESPONSES_HOSTED_TOOL_TOKENS;
    }
    const struct json *input = json_get(body, S("input"));
    struct json_iter items = json_iter(json_type(input) == JSON_ARRAY ? input : NULL);
    while (json_next(&items, NULL, &item)) {
        const struct json *content = json_get(item, S("content"));
        struct json_iter parts = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
        while (json_next(&parts, NULL, &part)) {
            bool is_named =
                responses_is_given(part, S("file_id")) || responses_is_given(part, S("file_url"));
            if (is_named)
                total += RESPONSES_FILE_TOKENS;
        }
    }
    return total;
}

static bool read_input(const struct json *body, const struct dialect_request *request,
                       struct error *e)
{
    const struct json *input = json_get(body, S("input"));
    enum json_type type = json_type(input);
    bool is_known = request->previous_id.len > 0 || responses_is_given(body, S("prompt"));
    if (type == JSON_ABSENT || type == JSON_NULL)
        return is_known || error_set(e, REASON_SCHEMA, "input is missing");
    if (type != JSON_STRING && type != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "input must be a string or a list of items");
    if (type == JSON_ARRAY && json_count(input) == 0 && !is_known)
        return error_set(e, REASON_SCHEMA, "input must hold at least one item");
    return json_count(input) <= PROMPT_MESSAGES_MAX ||
           error_set(e, REASON_SCHEMA, "input: %zu items are too many, at most %d are possible",
                     json_count(input), PROMPT_MESSAGES_MAX);
}

static bool read_text_format(const struct json *body, bool *wants_json, struct error *e)
{
    const struct json *text = json_get(body, S("text")), *format = json_get(text, S("format"));
    if (responses_is_given(body, S("text")) && json_type(text) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "text must be an object");
    if (responses_is_given(text, S("format")) && json_type(format) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "text.format must be an object");
    str type = json_str_or(format, S("type"), S("text"));
    *wants_json = !str_equal(type, S("text"));
    return true;
}

bool responses_read(struct arena *arena, const struct json *body, struct dialect_request *out,
                    struct error *e)
{
    (void) arena;
    struct dialect_request request = {.choices = 1, .wants_usage = true, .may_store = true};
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(body, S("model"), &request.model, e) ||
        !json_read_bool(body, S("stream"), &request.is_stream, e) ||
        !json_read_bool(body, S("store"), &request.may_store, e) ||
        !json_read_str(body, S("previous_response_id"), &request.previous_id, e) ||
        !json_read_i64(body, S("max_output_tokens"), 1, INT32_MAX, &request.max_output_tokens, e) ||
        !json_read_str(body, S("user"), &request.user, e) || !read_input(body, &request, e) ||
        !read_text_format(body, &request.wants_json, e))
        return false;
    if (str_is_empty(request.user) &&
        !json_read_str(body, S("safety_identifier"), &request.user, e))
        return false;
    const struct json *input = json_get(body, S("input"));
    size_t tools = json_count(json_get(body, S("tools")));
    request.has_tools = tools > 0;
    request.input_tokens_bound =
        dialect_input_tokens_bound(body, json_type(input) == JSON_ARRAY ? json_count(input) : 1,
                                   tools, &request.has_images) +
        unseen_tokens(body);
    *out = request;
    return true;
}

/* ---- tools ---- */

static bool read_tool(struct arena *arena, const struct json *item, size_t index,
                      struct tool_spec *out, struct error *e)
{
    const struct json *parameters = json_get(item, S("parameters"));
    str type = json_str_or(item, S("type"), STR_NONE);
    if (str_is_empty(type))
        return error_set(e, REASON_SCHEMA, "tools[%zu].type must be function", index);
    if (!str_equal(type, S("function")))
        return error_set(e, REASON_UNSUPPORTED,
                         "tools[%zu]: \"" STR_FMT "\" runs at the provider and exists only for "
                         "targets that speak the Responses API; this model's takes functions",
                         index, STR_ARG(str_cut_utf8(type, 60)));
    out->name = json_str_or(item, S("name"), STR_NONE);
    if (!prompt_is_tool_name(out->name, TOOL_NAME_BYTES_MAX))
        return error_set(e, REASON_SCHEMA,
                         "tools[%zu].name must be 1 to %u letters, digits, '_' or '-'", index,
                         TOOL_NAME_BYTES_MAX);
    out->description = json_str_or(item, S("description"), STR_NONE);
    /* Strict is what OpenAI assumes when nothing is said, with a way out where the schema does not allow it.  Others have no way out. */
    out->is_strict = json_bool_or(item, S("strict"), false);
    if (json_type(parameters) == JSON_OBJECT)
        out->parameters = json_print(arena, parameters);
    else if (responses_is_given(item, S("parameters")))
        return error_set(e, REASON_SCHEMA, "tools[%zu].parameters must be a JSON Schema object",
                         index);
    return true;
}

static bool read_tools(struct arena *arena, const struct json *body, struct prompt *out,
                       struct error *e)
{
    const struct json *tools = json_get(body, S("tools")), *item;
    size_t index = 0;
    if (!responses_is_given(body, S("tools")))
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
        if (!read_tool(arena, item, index, &out->tools[index], e))
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

static bool has_tool(const struct prompt *prompt, str name)
{
    for (size_t i = 0; i < prompt->tool_count; i++)
        if (str_equal(prompt->tools[i].name, name))
            return true;
    return false;
}

/* {"type": "allowed_tools", "mode", "tools": [{"type": "function", "name"}]}: the others are taken away. */
static bool allow_tools(const struct json *choice, struct prompt *out, struct error *e)
{
    const struct json *item, *list = json_get(choice, S("tools"));
    size_t kept = 0;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        str name = json_str_or(item, S("name"), STR_NONE);
        if (!has_tool(out, name))
            return error_set(e, REASON_SCHEMA,
                             "tool_choice.tools names \"" STR_FMT "\", which is not in tools",
                             STR_ARG(str_cut_utf8(name, 80)));
        for (size_t i = kept; i < out->tool_count; i++) {
            if (!str_equal(out->tools[i].name, name))
                continue;
            struct tool_spec allowed = out->tools[i];
            out->tools[i] = out->tools[kept];
            out->tools[kept++] = allowed;
            break;
        }
    }
    if (kept == 0)
        return error_set(e, REASON_SCHEMA, "tool_choice.tools must name at least one tool");
    out->tool_count = kept;
    out->tool_choice = json_str_or(choice, S("mode"), S("auto"));
    return is_choice_word(out->tool_choice) ||
           error_set(e, REASON_SCHEMA, "tool_choice.mode must be auto or required");
}

static bool read_tool_choice(const struct json *body, struct prompt *out, struct error *e)
{
    const struct json *choice = json_get(body, S("tool_choice"));
    if (!responses_is_given(body, S("tool_choice")))
        return true;
    if (json_to_str(choice, &out->tool_choice))
        return is_choice_word(out->tool_choice) ||
               error_set(e, REASON_SCHEMA, "tool_choice must be auto, none, required or an object");
    str type = json_str_or(choice, S("type"), STR_NONE);
    if (str_equal(type, S("allowed_tools")))
        return allow_tools(choice, out, e);
    if (!str_equal(type, S("function")))
        return error_set(e, REASON_UNSUPPORTED,
                         "tool_choice: a hosted tool exists only for targets that speak the "
                         "Responses API");
    if (!json_to_str(json_get(choice, S("name")), &out->tool_choice) ||
        !has_tool(out, out->tool_choice) || is_choice_word(out->tool_choice))
        return error_set(e, REASON_SCHEMA, "tool_choice names a tool that is not in tools");
    return true;
}

/* ---- settings ---- */

/* Responses has the schema flat; Chat's form, which a prompt holds, has it under json_schema. */
static bool read_format(struct arena *arena, const struct json *body, struct prompt *out,
                        struct error *e)
{
    const struct json *format = json_path(body, S("/text/format")), *item;
    str type = json_str_or(format, S("type"), S("text")), key;
    struct strbuf text;
    struct json_writer w;
    if (str_equal(type, S("text")))
        return true;
    if (str_equal(type, S("json_object"))) {
        out->response_format = S("{\"type\":\"json_object\"}");
        return true;
    }
    if (!str_equal(type, S("json_schema")))
        return error_set(e, REASON_SCHEMA,
                         "text.format.type must be text, json_object or json_schema");
    if (json_type(json_get(format, S("schema"))) != JSON_OBJECT ||
        json_type(json_get(format, S("name"))) != JSON_STRING)
        return error_set(e, REASON_SCHEMA, "text.format needs name and schema");
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), type);
    json_key(&w, S("json_schema"));
    json_object_begin(&w);
    struct json_iter it = json_iter(format);
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("type")) && json_type(item) != JSON_NULL)
            json_put_value(&w, key, item);
    json_object_end(&w);
    json_object_end(&w);
    out->response_format = strbuf_str(&text);
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "text.format is too large");
}

static bool read_settings(struct arena *arena, const struct json *body, struct prompt *out,
                          struct error *e)
{
    bool is_parallel = false, wants_json = false;
    const struct json *reasoning = json_get(body, S("reasoning"));
    if (responses_is_given(body, S("temperature"))) {
        if (!json_read_double(body, S("temperature"), &out->temperature, e))
            return false;
        if (!(out->temperature >= 0 && out->temperature <= 2))
            return error_set(e, REASON_SCHEMA, "temperature must be between 0 and 2");
    }
    if (responses_is_given(body, S("parallel_tool_calls"))) {
        if (!json_read_bool(body, S("parallel_tool_calls"), &is_parallel, e))
            return false;
        out->parallel_tool_calls = is_parallel;
    }
    if (responses_is_given(body, S("reasoning")) && json_type(reasoning) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "reasoning must be an object");
    return json_read_i64(body, S("max_output_tokens"), 1, INT32_MAX, &out->max_output_tokens, e) &&
           json_read_str(body, S("user"), &out->user, e) &&
           read_text_format(body, &wants_json, e) && read_format(arena, body, out, e);
}

/* What means the same in Chat Completions, under that name. */
static bool read_extra(struct arena *arena, const struct json *body, struct prompt *out,
                       struct error *e)
{
    static const struct {
        str path, name;
    } members[] = {
        {S_INIT("/reasoning/effort"), S_INIT("reasoning_effort")},
        {S_INIT("/text/verbosity"), S_INIT("verbosity")},
        {S_INIT("/top_p"), S_INIT("top_p")},
        {S_INIT("/service_tier"), S_INIT("service_tier")},
        {S_INIT("/prompt_cache_key"), S_INIT("prompt_cache_key")},
        {S_INIT("/safety_identifier"), S_INIT("safety_identifier")},
    };
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    size_t before = text.len;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const struct json *value = json_path(body, members[i].path);
        if (json_type(value) != JSON_ABSENT && json_type(value) != JSON_NULL)
            json_put_value(&w, members[i].name, value);
    }
    bool is_empty = text.len == before;
    json_object_end(&w);
    if (is_empty)
        return true;
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the request's other members are too large");
    return json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &out->extra, e);
}

bool responses_to_prompt(struct arena *arena, const struct json *body, struct prompt *out,
                         struct error *e)
{
    struct prompt prompt = {.parallel_tool_calls = -1, .temperature = -1};
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(body, S("model"), &prompt.model, e))
        return false;
    if (prompt.model.len == 0)
        return error_set(e, REASON_SCHEMA, "model must not be empty");
    if (responses_is_given(body, S("prompt")))
        return error_set(e, REASON_UNSUPPORTED,
                         "prompt: stored prompts exist only for targets that speak the Responses "
                         "API");
    if (!responses_read_messages(arena, body, &prompt, e) || !read_tools(arena, body, &prompt, e) ||
        !read_tool_choice(body, &prompt, e) || !read_settings(arena, body, &prompt, e) ||
        !read_extra(arena, body, &prompt, e))
        return false;
    *out = prompt;
    return true;
}
