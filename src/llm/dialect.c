#include "llm/dialect.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

const struct dialect *dialect_of(enum dialect_id id)
{
    switch (id) {
    case DIALECT_OPENAI_CHAT: return &openai_chat_dialect;
    case DIALECT_OPENAI_RESPONSES: return &openai_responses_dialect;
    case DIALECT_ANTHROPIC_MESSAGES: return &anthropic_messages_dialect;
    case DIALECT_COUNT: break;
    }
    unreachable_state();
}

str dialect_answer_id(const struct dialect *dialect, struct arena *arena, uuid id)
{
    static const char digits[] = "0123456789abcdef";
    size_t prefix = strlen(dialect->answer_prefix);
    size_t total = prefix + 2 * sizeof id.bytes;
    char *text = arena_alloc_raw(arena, total);
    memcpy(text, dialect->answer_prefix, prefix);
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        text[prefix + 2 * i] = digits[id.bytes[i] >> 4];
        text[prefix + 2 * i + 1] = digits[id.bytes[i] & 15];
    }
    return str_of(text, total);
}

/* ---- what an answer without usage is booked at ---- */

/*
 * Servers send a token a chunk, mostly: then events are tokens, and the shortest text is one.  What texts hold beyond the shortest counts
 * with three bytes a token: fewer than any known tokenizer makes of running text, code or CJK.  Where even the shortest is longer than a
 * token can be, tokens come joined and all bytes count so.
 */
int64_t glance_output_estimate(const struct glance_state *state)
{
    enum { TOKEN_BYTES_MAX = 48, TOKEN_BYTES = 3 };
    int64_t least = state->content_bytes_least <= TOKEN_BYTES_MAX ? state->content_bytes_least : 0;
    int64_t by_bytes =
        (state->content_bytes - state->event_count * least + TOKEN_BYTES - 1) / TOKEN_BYTES;
    return by_bytes > state->event_count ? by_bytes : state->event_count;
}

/* Bytes of the string behind a member, escapes as written; 0 when it holds none. */
static size_t string_bytes(str data, str quoted_member)
{
    size_t at = str_find(data, quoted_member), len = 0;
    if (at == STR_NOT_FOUND)
        return 0;
    str rest = str_trim(str_from(data, at + quoted_member.len));
    if (!str_starts_with(rest, S(":")))
        return 0;
    rest = str_trim(str_from(rest, 1));
    if (!str_starts_with(rest, S("\"")))
        return 0;
    for (rest = str_from(rest, 1); len < rest.len && rest.ptr[len] != '"'; len++)
        len += rest.ptr[len] == '\\';
    return len;
}

void glance_add(struct glance_state *state, size_t text_bytes)
{
    int64_t bytes = (int64_t) text_bytes;
    state->event_count++;
    state->content_bytes += bytes;
    if (bytes > 0 && (state->content_bytes_least == 0 || bytes < state->content_bytes_least))
        state->content_bytes_least = bytes;
}

void glance_count(struct glance_state *state, str data, const str *quoted_members,
                  size_t member_count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < member_count && bytes == 0; i++)
        bytes = string_bytes(data, quoted_members[i]);
    glance_add(state, bytes);
}

/* ---- the bound of the input ---- */

enum { NUMBER_TOKENS = 24 /* digits of the longest number */, VALUE_TOKENS = 4 };

static bool is_image_type(str type)
{
    return str_equal(type, S("image_url")) || str_equal(type, S("input_image")) ||
           str_equal(type, S("image"));
}

/* An image by reference or as data counts by its pixels; anything else that stands in its place counts as text besides. */
static int64_t image_tokens(const struct json *value, bool *has_images)
{
    str text = STR_NONE;
    const struct json *url = json_type(value) == JSON_OBJECT ? json_get(value, S("url")) : value;
    *has_images = true;
    if (json_to_str(url, &text) && str_starts_with(text, S("data:")))
        return PROMPT_TOKENS_PER_IMAGE;
    if (str_equal(json_str_or(value, S("type"), STR_NONE), S("base64")))
        return PROMPT_TOKENS_PER_IMAGE;
    return PROMPT_TOKENS_PER_IMAGE + dialect_tree_tokens_bound(value, has_images);
}

int64_t dialect_tree_tokens_bound(const struct json *tree, bool *has_images)
{
    str text, key;
    const struct json *item;
    enum json_type type = json_type(tree);
    if (type == JSON_STRING)
        return json_to_str(tree, &text) ? (int64_t) text.len : 0;
    if (type != JSON_ARRAY && type != JSON_OBJECT)
        return NUMBER_TOKENS;
    bool is_image = type == JSON_OBJECT && is_image_type(json_str_or(tree, S("type"), STR_NONE));
    int64_t total = VALUE_TOKENS;
    struct json_iter it = json_iter(tree);
    while (json_next(&it, &key, &item)) {
        bool is_picture =
            is_image && (str_equal(key, S("image_url")) || str_equal(key, S("source")));
        total += (int64_t) key.len + VALUE_TOKENS +
                 (is_picture ? image_tokens(item, has_images)
                             : dialect_tree_tokens_bound(item, has_images));
    }
    return total;
}

int64_t dialect_input_tokens_bound(const struct json *request, size_t message_count,
                                   size_t tool_count, bool *has_images)
{
    return PROMPT_TOKENS_BASE + dialect_tree_tokens_bound(request, has_images) +
           (int64_t) message_count * PROMPT_TOKENS_PER_MESSAGE +
           (int64_t) tool_count * PROMPT_TOKENS_PER_TOOL +
           (tool_count > 0 ? PROMPT_TOKENS_TOOLS : 0);
}

/* ---- events ---- */

void dialect_data_begin(struct strbuf *out, str event, struct json_writer *w)
{
    if (!str_is_empty(event)) {
        strbuf_add(out, S("event: "));
        strbuf_add(out, event);
        strbuf_add_char(out, '\n');
    }
    strbuf_add(out, S("data: "));
    json_writer_init(w, out);
}

void dialect_data_end(struct strbuf *out)
{
    strbuf_add(out, S("\n\n"));
}

bool dialect_may_hold(str data, str quoted_member)
{
    size_t at = str_find(data, quoted_member);
    if (at == STR_NOT_FOUND)
        return false;
    str rest = str_trim(str_from(data, at + quoted_member.len));
    return !str_starts_with(rest, S(":")) ||
           !str_starts_with(str_trim(str_from(rest, 1)), S("null"));
}
