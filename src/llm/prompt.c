#include "llm/prompt.h"

#include "base/ensure.h"
#include "base/limits.h"

static const char *const role_names[] = {
    [ROLE_SYSTEM] = "system",
    [ROLE_USER] = "user",
    [ROLE_ASSISTANT] = "assistant",
    [ROLE_TOOL] = "tool",
};

static const char *const finish_names[] = {
    [FINISH_NONE] = "none",
    [FINISH_STOP] = "stop",
    [FINISH_LENGTH] = "length",
    [FINISH_TOOL_CALLS] = "tool_calls",
    [FINISH_CONTENT_FILTER] = "content_filter",
    [FINISH_OTHER] = "other",
};

const char *role_name(enum role role)
{
    ensure((size_t) role < ARRAY_COUNT(role_names));
    return role_names[role];
}

bool role_parse(str text, enum role *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(role_names); i++) {
        if (str_equal(text, str_from_cstr(role_names[i]))) {
            *out = (enum role) i;
            return true;
        }
    }
    if (!str_equal(text, S("developer")))
        return false;
    *out = ROLE_SYSTEM;
    return true;
}

const char *finish_name(enum finish finish)
{
    ensure((size_t) finish < ARRAY_COUNT(finish_names));
    return finish_names[finish];
}

/*
 * Why bytes bound tokens: every tokenizer in use is byte-level BPE, or SentencePiece with byte
 * fallback; in both a token
 * stands for at least one byte of the text.  What is added around the text (role markers, the space
 * that SentencePiece
 * puts in front, a template's own words) is covered by the constants of limits.h.
 *
 * JSON is counted twice: templates print schemas and arguments anew, some indented, which adds at
 * most one token of
 * white space to each punctuation mark or string.
 */
static int64_t text_tokens(str text)
{
    return (int64_t) text.len;
}

static int64_t json_text_tokens(str json)
{
    return 2 * (int64_t) json.len;
}

/* At least as many bytes as the value would take when printed; escapes at worst turn one byte into
 * six. */
static int64_t json_value_tokens(const struct json *value)
{
    str key, text;
    int64_t tokens = 32; /* any number, literal or bracket pair */
    const struct json *item;
    if (json_to_str(value, &text))
        tokens += 2 * text_tokens(text);
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item))
        tokens += 2 * text_tokens(key) + json_value_tokens(item);
    return tokens;
}

static int64_t part_tokens(const struct part *part)
{
    int64_t names =
        text_tokens(part->name) + text_tokens(part->call_id) + json_text_tokens(part->opaque);
    switch (part->kind) {
    case PART_IMAGE: return PROMPT_TOKENS_PER_IMAGE + names;
    case PART_TOOL_CALL: return PROMPT_TOKENS_PER_TOOL + names + json_text_tokens(part->arguments);
    case PART_TOOL_RESULT: /* a message of its own in some dialects */
        return PROMPT_TOKENS_PER_TOOL + names + text_tokens(part->text);
    case PART_TEXT:
    case PART_REASONING: return PROMPT_TOKENS_PER_MESSAGE + names + text_tokens(part->text);
    }
    unreachable_state();
}

static int64_t message_tokens(const struct prompt_message *message)
{
    int64_t tokens = PROMPT_TOKENS_PER_MESSAGE + text_tokens(message->name);
    for (size_t i = 0; i < message->part_count; i++)
        tokens += part_tokens(&message->parts[i]);
    return tokens;
}

static int64_t tool_tokens(const struct tool_spec *tool)
{
    return PROMPT_TOKENS_PER_TOOL + text_tokens(tool->name) + text_tokens(tool->description) +
           json_text_tokens(tool->parameters) + json_text_tokens(tool->opaque);
}

int64_t prompt_input_tokens_bound(const struct prompt *prompt)
{
    int64_t tokens = PROMPT_TOKENS_BASE + json_text_tokens(prompt->response_format) +
                     text_tokens(prompt->tool_choice);
    for (size_t i = 0; i < prompt->message_count; i++)
        tokens += message_tokens(&prompt->messages[i]);
    for (size_t i = 0; i < prompt->tool_count; i++)
        tokens += tool_tokens(&prompt->tools[i]);
    if (prompt->tool_count > 0)
        tokens += PROMPT_TOKENS_TOOLS;
    if (prompt->extra)
        tokens += json_value_tokens(prompt->extra);
    return tokens;
}

int64_t prompt_choice_count(const struct prompt *prompt)
{
    int64_t n = json_i64_or(prompt->extra, S("n"), 1);
    return n < 1 ? 1 : n;
}

str prompt_message_text(struct arena *arena, const struct prompt_message *message)
{
    size_t texts = 0, bytes = 0;
    str only = STR_NONE;
    for (size_t i = 0; i < message->part_count; i++) {
        if (message->parts[i].kind != PART_TEXT)
            continue;
        only = message->parts[i].text;
        texts++;
        bytes += only.len;
    }
    if (texts <= 1)
        return only;
    struct strbuf b;
    strbuf_init(&b, arena, bytes);
    for (size_t i = 0; i < message->part_count; i++) {
        if (message->parts[i].kind == PART_TEXT)
            strbuf_add(&b, message->parts[i].text);
    }
    return strbuf_str(&b);
}

bool prompt_is_tool_name(str name, size_t max)
{
    if (name.len == 0 || name.len > max)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return false;
    }
    return true;
}

str prompt_call_name(const struct prompt_message *messages, size_t count, str call_id)
{
    for (size_t i = count; i-- > 0;) {
        for (size_t k = 0; k < messages[i].part_count; k++) {
            const struct part *part = &messages[i].parts[k];
            if (part->kind == PART_TOOL_CALL && str_equal(part->call_id, call_id))
                return part->name;
        }
        if (messages[i].role == ROLE_USER)
            break; /* calls and results stand between two messages of the user */
    }
    return STR_NONE;
}
