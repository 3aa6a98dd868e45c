/* prompt -> request */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/openai_format_internal.h"

/* ---- parts ---- */

static bool is_plain_text(const struct prompt_message *message)
{
    for (size_t i = 0; i < message->part_count; i++) {
        if (message->parts[i].kind != PART_TEXT)
            return false;
    }
    return true;
}

static size_t count_kind(const struct prompt_message *message, enum part_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < message->part_count; i++)
        count += message->parts[i].kind == kind;
    return count;
}

static void write_text_part(struct json_writer *w, str text)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("text"));
    json_put_str(w, S("text"), text);
    json_object_end(w);
}

/* opaque holds the object's other members ({"detail": "high"}), as openai_read_request found them.
 * */
static void write_image_part(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("image_url"));
    json_key(w, S("image_url"));
    json_object_begin(w);
    json_put_str(w, S("url"), part->text);
    if (str_starts_with(part->opaque, S("\"")))
        json_put_raw(w, S("detail"), part->opaque);
    json_object_end(w);
    json_object_end(w);
}

/* One string when it is a single text: the form that every server reads. */
static void write_content(struct json_writer *w, const struct prompt_message *message)
{
    json_key(w, S("content"));
    bool is_file = message->part_count == 1 && openai_is_file(w->out->arena, &message->parts[0]);
    if (is_plain_text(message) && message->part_count <= 1 && !is_file) {
        json_write_str(w, message->part_count ? message->parts[0].text : S(""));
        return;
    }
    json_array_begin(w);
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (openai_is_file(w->out->arena, part))
            openai_write_file(w, part);
        else if (part->kind == PART_TEXT)
            write_text_part(w, part->text);
        else if (part->kind == PART_IMAGE)
            write_image_part(w, part);
    }
    json_array_end(w);
}

static void write_tool_call(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("id"), part->call_id);
    json_put_str(w, S("type"), S("function"));
    json_key(w, S("function"));
    json_object_begin(w);
    json_put_str(w, S("name"), part->name);
    json_put_str(w, S("arguments"), part->arguments);
    json_object_end(w);
    json_object_end(w);
}

/* ---- messages ---- */

/* The texts of an assistant's message become one string: many servers read no other form there. */
static void write_joined_text(struct json_writer *w, str key, const struct prompt_message *message,
                              bool is_refusal)
{
    struct strbuf text;
    strbuf_init(&text, w->out->arena, PROVIDER_REQUEST_BYTES_MAX);
    size_t count = 0;
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind != PART_TEXT || str_equal(part->opaque, OPENAI_MEMBER_REFUSAL) != is_refusal)
            continue;
        strbuf_add(&text, part->text);
        count++;
    }
    if (count > 0)
        json_put_str(w, key, strbuf_str(&text));
    else if (is_refusal)
        return;
    else if (count_kind(message, PART_TOOL_CALL) > 0)
        json_put_raw(w, key, S("null"));
    else
        json_put_str(w, key, S(""));
}

static void write_reasoning(struct json_writer *w, const struct prompt_message *message)
{
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind != PART_REASONING)
            continue;
        if (str_equal(part->opaque, OPENAI_MEMBER_REASONING_CONTENT))
            json_put_str(w, S("reasoning_content"), part->text);
        else if (str_equal(part->opaque, OPENAI_MEMBER_REASONING))
            json_put_str(w, S("reasoning"), part->text);
        else
            continue;
        return;
    }
}

static void write_assistant(struct json_writer *w, const struct prompt_message *message)
{
    size_t calls = count_kind(message, PART_TOOL_CALL);
    json_object_begin(w);
    json_put_str(w, S("role"), S("assistant"));
    if (message->name.len)
        json_put_str(w, S("name"), message->name);
    write_joined_text(w, S("content"), message, false);
    write_joined_text(w, S("refusal"), message, true);
    if (calls > 0) {
        write_reasoning(w, message);
        json_key(w, S("tool_calls"));
        json_array_begin(w);
        for (size_t i = 0; i < message->part_count; i++) {
            if (message->parts[i].kind == PART_TOOL_CALL)
                write_tool_call(w, &message->parts[i]);
        }
        json_array_end(w);
    }
    json_object_end(w);
}

static void write_tool_result(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("role"), S("tool"));
    json_put_str(w, S("tool_call_id"), part->call_id);
    json_put_str(w, S("content"), part->text);
    json_object_end(w);
}

/* Results come first, right behind the calls they answer, one message each. */
static void write_message(struct json_writer *w, const struct prompt_message *message)
{
    if (message->role == ROLE_ASSISTANT) {
        write_assistant(w, message);
        return;
    }
    size_t results = count_kind(message, PART_TOOL_RESULT);
    for (size_t i = 0; i < message->part_count; i++) {
        if (message->parts[i].kind == PART_TOOL_RESULT)
            write_tool_result(w, &message->parts[i]);
    }
    if (message->role == ROLE_TOOL || (results > 0 && results == message->part_count))
        return;
    json_object_begin(w);
    json_put_str(w, S("role"), str_from_cstr(role_name(message->role)));
    if (message->name.len)
        json_put_str(w, S("name"), message->name);
    write_content(w, message);
    json_object_end(w);
}

/* ---- the rest ---- */

static void write_tool(struct json_writer *w, const struct tool_spec *tool)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("function"));
    json_key(w, S("function"));
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    if (tool->description.len)
        json_put_str(w, S("description"), tool->description);
    if (tool->parameters.len)
        json_put_raw(w, S("parameters"), tool->parameters);
    if (tool->is_strict)
        json_put_bool(w, S("strict"), true);
    json_object_end(w);
    json_object_end(w);
}

static void write_tool_choice(struct json_writer *w, str choice)
{
    json_key(w, S("tool_choice"));
    if (str_equal(choice, S("auto")) || str_equal(choice, S("none")) ||
        str_equal(choice, S("required"))) {
        json_write_str(w, choice);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("type"), S("function"));
    json_key(w, S("function"));
    json_object_begin(w);
    json_put_str(w, S("name"), choice);
    json_object_end(w);
    json_object_end(w);
}

static void write_tools(struct json_writer *w, const struct prompt *prompt)
{
    if (prompt->tool_count == 0)
        return;
    json_key(w, S("tools"));
    json_array_begin(w);
    for (size_t i = 0; i < prompt->tool_count; i++)
        write_tool(w, &prompt->tools[i]);
    json_array_end(w);
    if (prompt->tool_choice.len)
        write_tool_choice(w, prompt->tool_choice);
    if (prompt->parallel_tool_calls >= 0)
        json_put_bool(w, S("parallel_tool_calls"), prompt->parallel_tool_calls != 0);
}

static void write_stream_options(struct json_writer *w, const struct json *extra)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(json_get(extra, S("stream_options")));
    json_key(w, S("stream_options"));
    json_object_begin(w);
    json_put_bool(w, S("include_usage"), true);
    while (json_next(&it, &key, &item)) {
        if (!str_equal(key, S("include_usage")))
            json_put_value(w, key, item);
    }
    json_object_end(w);
}

/* Members that this file writes itself, so that none can appear twice or smuggle another limit in.
 * */
static bool is_ours(str key, const struct prompt *prompt)
{
    static const str always[] = {S_INIT("model"),      S_INIT("messages"),
                                 S_INIT("max_tokens"), S_INIT("max_completion_tokens"),
                                 S_INIT("stream"),     S_INIT("stream_options")};
    for (size_t i = 0; i < ARRAY_COUNT(always); i++) {
        if (str_equal(key, always[i]))
            return true;
    }
    if (str_equal(key, S("tools")) || str_equal(key, S("tool_choice")) ||
        str_equal(key, S("parallel_tool_calls")) ||
        str_equal(key, S("anthropic"))) /* what only that API knows */
        return true;
    return (str_equal(key, S("temperature")) && prompt->temperature >= 0) ||
           (str_equal(key, S("response_format")) && prompt->response_format.len > 0) ||
           (str_equal(key, S("user")) && prompt->user.len > 0);
}

static void write_extra(struct json_writer *w, const struct prompt *prompt)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(prompt->extra);
    if (json_type(prompt->extra) != JSON_OBJECT)
        return;
    while (json_next(&it, &key, &item)) {
        if (!is_ours(key, prompt))
            json_put_value(w, key, item);
    }
}

/* ---- public ---- */

void openai_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream)
{
    openai_write_request_for(w, prompt, is_stream, OPENAI_MAX_TOKENS);
}

void openai_write_request_for(struct json_writer *w, const struct prompt *prompt, bool is_stream,
                              enum openai_limit limit)
{
    ensure(prompt->max_output_tokens > 0);
    json_object_begin(w);
    json_put_str(w, S("model"), prompt->model);
    json_key(w, S("messages"));
    json_array_begin(w);
    for (size_t i = 0; i < prompt->message_count; i++)
        write_message(w, &prompt->messages[i]);
    json_array_end(w);
    write_tools(w, prompt);
    json_put_i64(w, limit == OPENAI_MAX_TOKENS ? S("max_tokens") : S("max_completion_tokens"),
                 prompt->max_output_tokens);
    if (prompt->temperature >= 0)
        json_put_double(w, S("temperature"), prompt->temperature);
    if (prompt->response_format.len)
        json_put_raw(w, S("response_format"), prompt->response_format);
    if (prompt->user.len)
        json_put_str(w, S("user"), prompt->user);
    if (is_stream) {
        json_put_bool(w, S("stream"), true);
        write_stream_options(w, prompt->extra);
    }
    write_extra(w, prompt);
    json_object_end(w);
}

/* ---- what cannot be said ---- */

/* A part that is a whole block of another API's, without words that could stand for it. */
static bool is_foreign(struct arena *arena, const struct part *part)
{
    const struct json *block = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.allow_duplicates = true};
    bool has_words = part->text.len > 0;
    if (part->kind == PART_REASONING || has_words || !str_starts_with(part->opaque, S("{")) ||
        openai_is_file(arena, part))
        return false;
    return json_parse(arena, part->opaque, limits, &block, &ignored) &&
           (json_get(block, S("type")) || json_get(block, S("content")));
}

bool openai_check_prompt(struct arena *scratch, const struct prompt *prompt, struct error *e)
{
    for (size_t i = 0; i < prompt->message_count; i++) {
        const struct prompt_message *message = &prompt->messages[i];
        for (size_t k = 0; k < message->part_count; k++) {
            if (is_foreign(scratch, &message->parts[k]))
                return error_set(
                    e, REASON_UNSUPPORTED,
                    "a document, file or hosted tool's block in the conversation cannot "
                    "be sent to a model of Chat Completions");
        }
    }
    if (json_count(json_path(prompt->extra, S("/anthropic/tools"))) > 0)
        return error_set(e, REASON_UNSUPPORTED,
                         "tools that the Messages API runs itself cannot be asked of a model of "
                         "Chat Completions");
    return true;
}
