/* prompt -> request */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/responses_format_internal.h"

/* ---- items ---- */

static void write_text_part(struct json_writer *w, str type, str text)
{
    json_object_begin(w);
    json_put_str(w, S("type"), type);
    json_put_str(w, S("text"), text);
    if (str_equal(type, S("output_text"))) {
        json_put_raw(w, S("annotations"), S("[]"));
        json_put_raw(w, S("logprobs"), S("[]"));
    }
    json_object_end(w);
}

static void write_image_part(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("input_image"));
    json_put_str(w, S("image_url"), part->text);
    json_put_raw(w, S("detail"),
                 str_starts_with(part->opaque, S("\"")) ? part->opaque : S("\"auto\""));
    json_object_end(w);
}

static void write_file_part(struct json_writer *w, const struct part *part)
{
    struct strbuf text;
    struct json_writer chat;
    const struct json *file;
    struct error ignored = {0};
    struct json_limits limits = {.bytes_max = PROVIDER_REQUEST_BYTES_MAX, .allow_duplicates = true};
    strbuf_init(&text, w->out->arena, PROVIDER_REQUEST_BYTES_MAX);
    json_writer_init(&chat, &text);
    openai_write_file(&chat, part);
    bool ok = json_parse(w->out->arena, strbuf_str(&text), limits, &file, &ignored);
    file = ok ? json_get(file, S("file")) : NULL;
    json_object_begin(w);
    json_put_str(w, S("type"), S("input_file"));
    json_put_str(w, S("filename"), json_str_or(file, S("filename"), STR_NONE));
    json_put_str(w, S("file_data"), json_str_or(file, S("file_data"), STR_NONE));
    json_object_end(w);
}

static void write_content_part(struct json_writer *w, const struct part *part, bool is_answer)
{
    if (part->kind == PART_IMAGE) {
        write_image_part(w, part);
    } else if (!is_answer && openai_is_file(w->out->arena, part)) {
        write_file_part(w, part);
    } else if (str_equal(part->opaque, OPENAI_MEMBER_REFUSAL)) {
        json_object_begin(w);
        json_put_str(w, S("type"), S("refusal"));
        json_put_str(w, S("refusal"), part->text);
        json_object_end(w);
    } else {
        write_text_part(w, is_answer ? S("output_text") : S("input_text"), part->text);
    }
}

static bool is_content(const struct part *part)
{
    str item;
    return part->kind == PART_IMAGE ||
           (part->kind == PART_TEXT && !responses_item_of_opaque(part->opaque, &item));
}

/* An answer of one text is written as a string: parts need the id that the answer had. */
static bool is_one_text(const struct prompt_message *message, size_t at)
{
    bool is_last = at + 1 == message->part_count || !is_content(&message->parts[at + 1]);
    return message->role == ROLE_ASSISTANT && message->parts[at].kind == PART_TEXT && is_last &&
           !str_equal(message->parts[at].opaque, OPENAI_MEMBER_REFUSAL);
}

/* The parts from *at on that are a message's content; *at moves behind them. */
static void write_message(struct json_writer *w, const struct prompt_message *message,
                          size_t number, size_t *at)
{
    bool is_answer = message->role == ROLE_ASSISTANT;
    json_object_begin(w);
    json_put_str(w, S("type"), S("message"));
    json_put_str(w, S("role"), str_from_cstr(role_name(message->role)));
    if (is_one_text(message, *at)) {
        json_put_str(w, S("content"), message->parts[(*at)++].text);
        json_object_end(w);
        return;
    }
    if (is_answer) {
        json_put_str(w, S("id"), str_printf(w->out->arena, "msg_%zu_%zu", number, *at));
        json_put_str(w, S("status"), S("completed"));
    }
    json_key(w, S("content"));
    json_array_begin(w);
    for (; *at < message->part_count && is_content(&message->parts[*at]); ++*at)
        if (!is_answer || message->parts[*at].kind == PART_TEXT)
            write_content_part(w, &message->parts[*at], is_answer);
    json_array_end(w);
    json_object_end(w);
}

static void write_call(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("function_call"));
    json_put_str(w, S("call_id"), part->call_id);
    json_put_str(w, S("name"), part->name);
    json_put_str(w, S("arguments"), part->arguments);
    json_object_end(w);
}

static void write_output(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("function_call_output"));
    json_put_str(w, S("call_id"), part->call_id);
    json_put_str(w, S("output"), part->text);
    json_object_end(w);
}

/* Reasoning goes back only as the item it came in: no other is valid there. */
static void write_part(struct json_writer *w, const struct prompt_message *message, size_t number,
                       size_t *at)
{
    const struct part *part = &message->parts[*at];
    str item;
    if (is_content(part)) {
        write_message(w, message, number, at);
        return;
    }
    ++*at;
    if (part->kind == PART_TOOL_CALL)
        write_call(w, part);
    else if (part->kind == PART_TOOL_RESULT)
        write_output(w, part);
    else if (responses_item_of_opaque(part->opaque, &item))
        json_write_raw(w, item);
}

/* ---- settings ---- */

static void write_tools(struct json_writer *w, const struct prompt *prompt)
{
    str choice = prompt->tool_choice;
    if (prompt->tool_count == 0)
        return;
    json_key(w, S("tools"));
    json_array_begin(w);
    for (size_t i = 0; i < prompt->tool_count; i++) {
        const struct tool_spec *tool = &prompt->tools[i];
        json_object_begin(w);
        json_put_str(w, S("type"), S("function"));
        json_put_str(w, S("name"), tool->name);
        if (tool->description.len)
            json_put_str(w, S("description"), tool->description);
        json_put_raw(w, S("parameters"), tool->parameters.len ? tool->parameters : S("null"));
        json_put_bool(w, S("strict"), tool->is_strict);
        json_object_end(w);
    }
    json_array_end(w);
    if (prompt->parallel_tool_calls >= 0)
        json_put_bool(w, S("parallel_tool_calls"), prompt->parallel_tool_calls != 0);
    if (str_is_empty(choice))
        return;
    json_key(w, S("tool_choice"));
    if (str_equal(choice, S("auto")) || str_equal(choice, S("none")) ||
        str_equal(choice, S("required"))) {
        json_write_str(w, choice);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("type"), S("function"));
    json_put_str(w, S("name"), choice);
    json_object_end(w);
}

/* {"type": "json_schema", "json_schema": {...}} becomes flat. */
static void write_format(struct json_writer *w, str response_format)
{
    const struct json *format, *item;
    struct error ignored = {0};
    str key;
    if (!json_parse(w->out->arena, response_format, (struct json_limits){.allow_duplicates = true},
                    &format, &ignored))
        return;
    json_key(w, S("format"));
    json_object_begin(w);
    json_put_str(w, S("type"), json_str_or(format, S("type"), S("text")));
    struct json_iter it = json_iter(json_get(format, S("json_schema")));
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("type")))
            json_put_value(w, key, item);
    json_object_end(w);
}

static void write_text(struct json_writer *w, const struct prompt *prompt)
{
    const struct json *verbosity = json_get(prompt->extra, S("verbosity"));
    if (str_is_empty(prompt->response_format) && !verbosity)
        return;
    json_key(w, S("text"));
    json_object_begin(w);
    if (!str_is_empty(prompt->response_format))
        write_format(w, prompt->response_format);
    if (verbosity)
        json_put_value(w, S("verbosity"), verbosity);
    json_object_end(w);
}

static void write_extra(struct json_writer *w, const struct prompt *prompt)
{
    static const str same[] = {S_INIT("top_p"), S_INIT("service_tier"), S_INIT("prompt_cache_key"),
                               S_INIT("safety_identifier"), S_INIT("metadata")};
    const struct json *effort = json_get(prompt->extra, S("reasoning_effort"));
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (responses_is_given(prompt->extra, same[i]))
            json_put_value(w, same[i], json_get(prompt->extra, same[i]));
    if (json_type(effort) != JSON_STRING)
        return;
    json_key(w, S("reasoning"));
    json_object_begin(w);
    json_put_value(w, S("effort"), effort);
    json_object_end(w);
}

void responses_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream)
{
    ensure(prompt->max_output_tokens > 0);
    json_object_begin(w);
    json_put_str(w, S("model"), prompt->model);
    json_key(w, S("input"));
    json_array_begin(w);
    for (size_t i = 0; i < prompt->message_count; i++)
        for (size_t at = 0; at < prompt->messages[i].part_count;)
            write_part(w, &prompt->messages[i], i, &at);
    json_array_end(w);
    write_tools(w, prompt);
    json_put_i64(w, S("max_output_tokens"), prompt->max_output_tokens);
    if (prompt->temperature >= 0)
        json_put_double(w, S("temperature"), prompt->temperature);
    write_text(w, prompt);
    if (prompt->user.len)
        json_put_str(w, S("user"), prompt->user);
    write_extra(w, prompt);
    /* What came before is in the input: nothing is to be kept there, and reasoning comes back sealed. */
    json_put_bool(w, S("store"), false);
    json_put_raw(w, S("include"), S("[\"reasoning.encrypted_content\"]"));
    if (is_stream)
        json_put_bool(w, S("stream"), true);
    json_object_end(w);
}
