/* prompt -> request */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format_internal.h"

/* One part on its way out, under the role that its message has here. */
struct piece {
    const struct part *part;
    bool is_assistant;
};

/* ---- blocks ---- */

/* Members that any block may have, out of the part's opaque. */
static void put_rest(struct json_writer *w, str opaque, const str *names, size_t count)
{
    const struct json *tree = anthropic_parse_opaque(w->out->arena, opaque);
    for (size_t i = 0; i < count; i++) {
        const struct json *item = json_get(tree, names[i]);
        if (item)
            json_put_value(w, names[i], item);
    }
}

static void put_block_rest(struct json_writer *w, str opaque)
{
    static const str names[] = {S_INIT("cache_control"), S_INIT("citations"), S_INIT("caller"),
                                S_INIT("transformations"), S_INIT("toolset_name")};
    if (opaque.len > 0)
        put_rest(w, opaque, names, ARRAY_COUNT(names));
}

static void begin_block(struct json_writer *w, str type)
{
    json_object_begin(w);
    json_put_str(w, S("type"), type);
}

static void write_text(struct json_writer *w, str text, str opaque)
{
    begin_block(w, S("text"));
    json_put_str(w, S("text"), text);
    put_block_rest(w, opaque);
    json_object_end(w);
}

/* "image/jpg" is no registered type, but what many callers write. */
static str image_type(str type)
{
    return str_equal_nocase(type, S("image/jpg")) ? S("image/jpeg") : type;
}

static void write_image(struct json_writer *w, const struct part *part)
{
    str head, data, rest;
    begin_block(w, S("image"));
    json_key(w, S("source"));
    json_object_begin(w);
    if (str_strip_prefix(part->text, S("data:"), &rest) && str_cut(rest, ',', &head, &data) &&
        str_ends_with(head, S(";base64"))) {
        str type = str_slice(head, 0, head.len - strlen(";base64"));
        json_put_str(w, S("type"), S("base64"));
        json_put_str(w, S("media_type"), image_type(type));
        json_put_str(w, S("data"), data);
    } else {
        json_put_str(w, S("type"), S("url"));
        json_put_str(w, S("url"), part->text);
    }
    json_object_end(w);
    put_block_rest(w, part->opaque);
    json_object_end(w);
}

/* Ids are letters, digits, '_' and '-' here.  Another one becomes its hash, the same in call and result. */
static void put_call_id(struct json_writer *w, str key, str id)
{
    bool is_fit = id.len > 0;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        is_fit = is_fit && (is_letter || (c >= '0' && c <= '9') || c == '_' || c == '-');
    }
    if (!is_fit)
        id = str_printf(w->out->arena, "toolu_%016llx", (unsigned long long) str_hash(id, 1));
    json_put_str(w, key, id);
}

static void write_tool_use(struct json_writer *w, const struct part *part)
{
    begin_block(w, S("tool_use"));
    put_call_id(w, S("id"), part->call_id);
    json_put_str(w, S("name"), part->name);
    anthropic_put_input(w, part->arguments);
    put_block_rest(w, part->opaque);
    json_object_end(w);
}

static void write_thinking(struct json_writer *w, const struct part *part)
{
    const struct json *tree = anthropic_parse_opaque(w->out->arena, part->opaque);
    begin_block(w, S("thinking"));
    json_put_str(w, S("thinking"), part->text);
    json_put_str(w, S("signature"), json_str_or(tree, S("signature"), STR_NONE));
    json_object_end(w);
}

/* ---- results ---- */

static bool is_of_result(const struct part *part)
{
    return part->kind == PART_IMAGE && part->call_id.len > 0;
}

static bool belongs_to(const struct part *image, const struct part *result)
{
    return is_of_result(image) && str_equal(image->call_id, result->call_id);
}

/* The run is the user's message that the result stands in: its images may follow anywhere. */
static void write_result_content(struct json_writer *w, const struct piece *run, size_t count,
                                 const struct part *result)
{
    size_t images = 0;
    for (size_t i = 0; i < count; i++)
        images += belongs_to(run[i].part, result);
    if (images == 0) {
        if (result->text.len > 0)
            json_put_str(w, S("content"), result->text);
        return;
    }
    json_key(w, S("content"));
    json_array_begin(w);
    if (result->text.len > 0)
        write_text(w, result->text, STR_NONE);
    for (size_t i = 0; i < count; i++) {
        if (!belongs_to(run[i].part, result))
            continue;
        if (anthropic_is_whole(w->out->arena, run[i].part->opaque))
            json_write_raw(w, run[i].part->opaque);
        else
            write_image(w, run[i].part);
    }
    json_array_end(w);
}

static void write_tool_result(struct json_writer *w, const struct piece *run, size_t count,
                              const struct part *result)
{
    static const str kept[] = {S_INIT("content")};
    const struct json *tree = anthropic_parse_opaque(w->out->arena, result->opaque);
    begin_block(w, S("tool_result"));
    put_call_id(w, S("tool_use_id"), result->call_id);
    if (json_get(tree, S("content")))
        put_rest(w, result->opaque, kept, ARRAY_COUNT(kept));
    else
        write_result_content(w, run, count, result);
    if (result->is_error)
        json_put_bool(w, S("is_error"), true);
    put_block_rest(w, result->opaque);
    json_object_end(w);
}

/* ---- messages ---- */

/* Empty texts are refused by the API; thinking is only believed with the API's own signature. */
static bool is_worth_writing(struct arena *arena, const struct part *part)
{
    if (anthropic_is_whole(arena, part->opaque))
        return true;
    if (part->kind == PART_TEXT)
        return part->text.len > 0;
    if (part->kind == PART_REASONING)
        return json_type(json_get(anthropic_parse_opaque(arena, part->opaque), S("signature"))) ==
               JSON_STRING;
    return true;
}

static void write_part(struct json_writer *w, const struct piece *run, size_t count,
                       const struct part *part)
{
    if (part->kind != PART_TOOL_RESULT && anthropic_is_whole(w->out->arena, part->opaque)) {
        json_write_raw(w, part->opaque);
        return;
    }
    switch (part->kind) {
    case PART_TEXT: write_text(w, part->text, part->opaque); break;
    case PART_IMAGE: write_image(w, part); break;
    case PART_TOOL_CALL: write_tool_use(w, part); break;
    case PART_TOOL_RESULT: write_tool_result(w, run, count, part); break;
    case PART_REASONING: write_thinking(w, part); break;
    }
}

/* Is the image written inside a result of this run?  (Its result may have been cut off from the history.) */
static bool is_inside_result(const struct piece *run, size_t count, const struct part *image)
{
    for (size_t i = 0; i < count; i++) {
        if (run[i].part->kind == PART_TOOL_RESULT && belongs_to(image, run[i].part))
            return true;
    }
    return false;
}

/* One string when it is a single plain text: the form that every server reads. */
static void write_run(struct json_writer *w, const struct piece *run, size_t count)
{
    json_object_begin(w);
    json_put_str(w, S("role"), run->is_assistant ? S("assistant") : S("user"));
    json_key(w, S("content"));
    if (count == 1 && run->part->kind == PART_TEXT && !str_starts_with(run->part->opaque, S("{"))) {
        json_write_str(w, run->part->text);
        json_object_end(w);
        return;
    }
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) {
        if (run[i].part->kind == PART_TOOL_RESULT)
            write_part(w, run, count, run[i].part);
    }
    for (size_t i = 0; i < count; i++) {
        const struct part *part = run[i].part;
        if (part->kind != PART_TOOL_RESULT && !is_inside_result(run, count, part))
            write_part(w, run, count, part);
    }
    json_array_end(w);
    json_object_end(w);
}

static size_t collect(struct arena *arena, const struct prompt *prompt, struct piece **out)
{
    size_t most = 0, count = 0;
    for (size_t i = 0; i < prompt->message_count; i++)
        most += prompt->messages[i].part_count;
    struct piece *pieces = ARENA_ARRAY(arena, struct piece, most);
    for (size_t i = 0; i < prompt->message_count; i++) {
        const struct prompt_message *message = &prompt->messages[i];
        if (message->role == ROLE_SYSTEM)
            continue;
        for (size_t k = 0; k < message->part_count; k++) {
            if (is_worth_writing(arena, &message->parts[k]))
                pieces[count++] =
                    (struct piece){&message->parts[k], message->role == ROLE_ASSISTANT};
        }
    }
    *out = pieces;
    return count;
}

static void write_messages(struct json_writer *w, const struct prompt *prompt)
{
    struct piece *pieces;
    size_t count = collect(w->out->arena, prompt, &pieces);
    json_key(w, S("messages"));
    json_array_begin(w);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i; end < count && pieces[end].is_assistant == pieces[i].is_assistant;)
            end++;
        write_run(w, pieces + i, end - i);
    }
    json_array_end(w);
}

static bool wants_any_json(struct arena *arena, const struct prompt *prompt)
{
    const struct json *format = anthropic_parse_opaque(arena, prompt->response_format);
    return str_equal(json_str_or(format, S("type"), STR_NONE), S("json_object"));
}

/* All of it stands at the head: a system message between others is known to few models. */
static void write_system(struct json_writer *w, const struct prompt *prompt)
{
    bool has_begun = false;
    for (size_t i = 0; i < prompt->message_count; i++) {
        const struct prompt_message *message = &prompt->messages[i];
        for (size_t k = 0; message->role == ROLE_SYSTEM && k < message->part_count; k++) {
            const struct part *part = &message->parts[k];
            if (part->kind != PART_TEXT || part->text.len == 0)
                continue;
            if (!has_begun) {
                json_key(w, S("system"));
                json_array_begin(w);
                has_begun = true;
            }
            write_text(w, part->text, part->opaque);
        }
    }
    if (wants_any_json(w->out->arena, prompt)) { /* the API has schemas, but no "any JSON" */
        if (!has_begun) {
            json_key(w, S("system"));
            json_array_begin(w);
            has_begun = true;
        }
        write_text(w, S("Answer with one valid JSON object and nothing else."), STR_NONE);
    }
    if (has_begun)
        json_array_end(w);
}

/* ---- tools ---- */

static void write_tool(struct json_writer *w, const struct tool_spec *tool)
{
    static const str rest[] = {S_INIT("cache_control"), S_INIT("allowed_callers"),
                               S_INIT("defer_loading"), S_INIT("eager_input_streaming"),
                               S_INIT("input_examples")};
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    if (tool->description.len > 0)
        json_put_str(w, S("description"), tool->description);
    json_put_raw(w, S("input_schema"),
                 tool->parameters.len > 0 ? tool->parameters
                                          : S("{\"type\":\"object\",\"properties\":{}}"));
    if (tool->is_strict)
        json_put_bool(w, S("strict"), true);
    if (tool->opaque.len > 0)
        put_rest(w, tool->opaque, rest, ARRAY_COUNT(rest));
    json_object_end(w);
}

static void write_tool_choice(struct json_writer *w, const struct prompt *prompt)
{
    str choice = prompt->tool_choice;
    bool is_single = prompt->parallel_tool_calls == 0;
    if (choice.len == 0 && prompt->parallel_tool_calls < 0)
        return;
    json_key(w, S("tool_choice"));
    json_object_begin(w);
    if (choice.len == 0 || str_equal(choice, S("auto")))
        json_put_str(w, S("type"), S("auto"));
    else if (str_equal(choice, S("none")))
        json_put_str(w, S("type"), S("none"));
    else if (str_equal(choice, S("required")))
        json_put_str(w, S("type"), S("any"));
    else {
        json_put_str(w, S("type"), S("tool"));
        json_put_str(w, S("name"), choice);
    }
    if (prompt->parallel_tool_calls >= 0 && !str_equal(choice, S("none")))
        json_put_bool(w, S("disable_parallel_tool_use"), is_single);
    json_object_end(w);
}

static void write_tools(struct json_writer *w, const struct prompt *prompt)
{
    const struct json *own = json_path(prompt->extra, S("/anthropic/tools")), *tool;
    if (prompt->tool_count == 0 && json_count(own) == 0)
        return;
    json_key(w, S("tools"));
    json_array_begin(w);
    for (size_t i = 0; i < prompt->tool_count; i++)
        write_tool(w, &prompt->tools[i]);
    struct json_iter it = json_iter(json_type(own) == JSON_ARRAY ? own : NULL);
    while (json_next(&it, NULL, &tool))
        json_write_value(w, tool);
    json_array_end(w);
    write_tool_choice(w, prompt);
}

/* ---- settings ---- */

static void write_output_config(struct json_writer *w, const struct prompt *prompt)
{
    static const str efforts[] = {S_INIT("low"), S_INIT("medium"), S_INIT("high"), S_INIT("xhigh"),
                                  S_INIT("max")};
    const struct json *format = anthropic_parse_opaque(w->out->arena, prompt->response_format);
    const struct json *schema = json_path(format, S("/json_schema/schema"));
    str effort = json_str_or(prompt->extra, S("reasoning_effort"), STR_NONE);
    bool has_effort = false;
    if (str_equal(effort, S("minimal"))) /* below the least that this API knows */
        effort = S("low");
    for (size_t i = 0; i < ARRAY_COUNT(efforts); i++)
        has_effort = has_effort || str_equal(effort, efforts[i]);
    if (!has_effort && json_type(schema) != JSON_OBJECT)
        return;
    json_key(w, S("output_config"));
    json_object_begin(w);
    if (has_effort)
        json_put_str(w, S("effort"), effort);
    if (json_type(schema) == JSON_OBJECT) {
        json_key(w, S("format"));
        json_object_begin(w);
        json_put_str(w, S("type"), S("json_schema"));
        json_put_value(w, S("schema"), schema);
        json_object_end(w);
    }
    json_object_end(w);
}

static void write_stop(struct json_writer *w, const struct json *stop)
{
    str text;
    if (json_to_str(stop, &text)) {
        json_key(w, S("stop_sequences"));
        json_array_begin(w);
        json_write_str(w, text);
        json_array_end(w);
    } else if (json_type(stop) == JSON_ARRAY && json_count(stop) > 0)
        json_put_value(w, S("stop_sequences"), stop);
}

static bool is_number(const struct json *value)
{
    return json_type(value) == JSON_INTEGER || json_type(value) == JSON_REAL;
}

static void write_shared(struct json_writer *w, const struct prompt *prompt)
{
    const struct json *top_p = json_get(prompt->extra, S("top_p"));
    const struct json *top_k = json_get(prompt->extra, S("top_k"));
    const struct json *thinking = json_get(prompt->extra, S("thinking"));
    str tier = json_str_or(prompt->extra, S("service_tier"), STR_NONE);
    write_stop(w, json_get(prompt->extra, S("stop")));
    if (is_number(top_p))
        json_put_value(w, S("top_p"), top_p);
    if (is_number(top_k) && !json_path(prompt->extra, S("/anthropic/top_k")))
        json_put_value(w, S("top_k"), top_k);
    if (json_type(thinking) == JSON_OBJECT && !json_path(prompt->extra, S("/anthropic/thinking")))
        json_put_value(w, S("thinking"), thinking);
    if (str_equal(tier, S("auto")))
        json_put_str(w, S("service_tier"), tier);
    else if (str_equal(tier, S("default")))
        json_put_str(w, S("service_tier"), S("standard_only"));
    if (prompt->user.len > 0) {
        json_key(w, S("metadata"));
        json_object_begin(w);
        json_put_str(w, S("user_id"), prompt->user);
        json_object_end(w);
    }
    if (str_equal(json_str_or(prompt->extra, S("reasoning_effort"), STR_NONE), S("none")) &&
        !thinking && !json_path(prompt->extra, S("/anthropic/thinking")))
        json_put_raw(w, S("thinking"), S("{\"type\":\"disabled\"}"));
}

/* Members that this file writes itself, so that none can appear twice or smuggle another limit in. */
static bool is_ours(str key)
{
    static const str ours[] = {
        S_INIT("model"),         S_INIT("messages"),       S_INIT("system"),
        S_INIT("tools"),         S_INIT("tool_choice"),    S_INIT("max_tokens"),
        S_INIT("stream"),        S_INIT("temperature"),    S_INIT("metadata"),
        S_INIT("output_config"), S_INIT("stop_sequences"), S_INIT("top_p"),
        S_INIT("service_tier"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(ours); i++) {
        if (str_equal(key, ours[i]))
            return true;
    }
    return false;
}

static void write_own(struct json_writer *w, const struct json *own)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(json_type(own) == JSON_OBJECT ? own : NULL);
    while (json_next(&it, &key, &item)) {
        if (!is_ours(key))
            json_put_value(w, key, item);
    }
}

/* ---- public ---- */

void anthropic_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream)
{
    ensure(prompt->max_output_tokens > 0);
    json_object_begin(w);
    json_put_str(w, S("model"), prompt->model);
    json_put_i64(w, S("max_tokens"), prompt->max_output_tokens);
    write_system(w, prompt);
    write_messages(w, prompt);
    write_tools(w, prompt);
    if (prompt->temperature >= 0)
        json_put_double(w, S("temperature"), prompt->temperature);
    write_output_config(w, prompt);
    write_shared(w, prompt);
    if (is_stream)
        json_put_bool(w, S("stream"), true);
    write_own(w, json_get(prompt->extra, S("anthropic")));
    json_object_end(w);
}

static bool refuse(struct error *e, const char *what)
{
    return error_set(e, REASON_UNSUPPORTED, "%s cannot be asked of a model of the Messages API",
                     what);
}

static bool asks_for_audio(const struct json *extra)
{
    const struct json *item;
    str word;
    bool has_audio = json_type(json_get(extra, S("audio"))) == JSON_OBJECT;
    struct json_iter it = json_iter(json_get(extra, S("modalities")));
    while (json_next(&it, NULL, &item))
        has_audio = has_audio || (json_to_str(item, &word) && str_equal(word, S("audio")));
    return has_audio;
}

bool anthropic_check_prompt(const struct prompt *prompt, struct error *e)
{
    const struct json *extra = prompt->extra;
    if (prompt_choice_count(prompt) > 1)
        return refuse(e, "several choices (n)");
    if (json_bool_or(extra, S("logprobs"), false))
        return refuse(e, "log probabilities (logprobs)");
    if (json_count(json_get(extra, S("logit_bias"))) > 0)
        return refuse(e, "logit_bias");
    if (asks_for_audio(extra))
        return refuse(e, "audio");
    if (json_type(json_get(extra, S("web_search_options"))) == JSON_OBJECT)
        return refuse(e, "web_search_options");
    return true;
}
