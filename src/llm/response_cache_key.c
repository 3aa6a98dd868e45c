/* The exact cache's key, and which requests may be compared by meaning. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "llm/semantic_cache.h"

/* A field with its length before it: no two lists of fields digest alike. */
static void add_field(struct digest_stream *stream, str field)
{
    uint64_t len = field.len;
    digest_stream_add(stream, str_of((const char *) &len, sizeof len));
    digest_stream_add(stream, field);
}

static void add_scope(struct digest_stream *stream, uuid tenant_id, str scope_user, str dialect,
                      str model, uint64_t settings_version)
{
    add_field(stream, str_of((const char *) tenant_id.bytes, sizeof tenant_id.bytes));
    add_field(stream, scope_user);
    add_field(stream, dialect);
    add_field(stream, model);
    add_field(stream, str_of((const char *) &settings_version, sizeof settings_version));
}

void cache_key_make(struct arena *scratch, uuid tenant_id, str scope_user, const char *dialect,
                    str model, uint64_t settings_version, const struct json *request,
                    struct cache_key *out)
{
    arena_mark mark = arena_save(scratch);
    OWNED(digest_stream) stream = digest_stream_create();
    add_scope(stream, tenant_id, scope_user, str_from_cstr(dialect), model, settings_version);
    add_field(stream, json_canonical(scratch, request));
    digest d = digest_stream_finish(stream);
    memcpy(out->digest, d.bytes, sizeof out->digest);
    out->tenant_id = tenant_id;
    arena_rewind(scratch, mark);
}

/* ---- requests that may be compared by meaning ---- */

static bool is_text_part(const struct json *part)
{
    str type = json_str_or(part, S("type"), STR_NONE);
    return str_equal(type, S("text")) || str_equal(type, S("input_text")) ||
           str_equal(type, S("output_text"));
}

/* A string, or an array of text parts only. */
static bool is_plain_content(const struct json *content)
{
    const struct json *part;
    if (json_type(content) == JSON_STRING)
        return true;
    if (json_type(content) != JSON_ARRAY)
        return false;
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &part))
        if (!is_text_part(part))
            return false;
    return true;
}

static bool is_plain_turn(const struct json *turn)
{
    str type = json_str_or(turn, S("type"), S("message"));
    str role = json_str_or(turn, S("role"), STR_NONE);
    bool is_known = str_equal(role, S("user")) || str_equal(role, S("assistant")) ||
                    str_equal(role, S("system")) || str_equal(role, S("developer"));
    return is_known && str_equal(type, S("message")) && !json_get(turn, S("tool_calls")) &&
           !json_get(turn, S("function_call")) && is_plain_content(json_get(turn, S("content")));
}

static bool add_text(struct strbuf *out, const struct json *content)
{
    str text;
    const struct json *part;
    if (json_to_str(content, &text)) {
        strbuf_add(out, text);
        return !strbuf_is_over(out);
    }
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &part)) {
        strbuf_add(out, json_str_or(part, S("text"), STR_NONE));
        strbuf_add_char(out, '\n');
    }
    return !strbuf_is_over(out);
}

static bool has_members_of_no_comparison(const struct json *request)
{
    static const char *const names[] = {"tools",        "functions", "previous_response_id",
                                        "conversation", "prompt",    "audio",
                                        "mcp_servers",  "container"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const struct json *member = json_get(request, str_from_cstr(names[i]));
        bool is_empty = json_type(member) == JSON_ARRAY && json_count(member) == 0;
        if (json_type(member) != JSON_ABSENT && json_type(member) != JSON_NULL && !is_empty)
            return true;
    }
    return false;
}

/* The turns of a request and its last one, which must be the user's; all of them plain text. */
static const struct json *last_turn(const struct json *turns)
{
    const struct json *turn, *last = NULL;
    struct json_iter it = json_iter(turns);
    while (json_next(&it, NULL, &turn)) {
        if (!is_plain_turn(turn))
            return NULL;
        last = turn;
    }
    return str_equal(json_str_or(last, S("role"), STR_NONE), S("user")) ? last : NULL;
}

/* Everything but the words of the last turn: members, earlier turns, and the last turn's other members. */
static void add_all_but(struct digest_stream *stream, struct arena *scratch,
                        const struct json *container, const struct json *left_out)
{
    str key;
    const struct json *item;
    uint64_t count = json_count(container);
    add_field(stream, str_of((const char *) &count, sizeof count));
    struct json_iter it = json_iter(container);
    while (json_next(&it, &key, &item)) {
        if (item == left_out)
            continue;
        add_field(stream, key);
        add_field(stream, json_canonical(scratch, item));
    }
}

bool semantic_question_make(struct arena *arena, const struct cache_key *key, str scope_user,
                            enum dialect_id dialect, str model, uint64_t settings_version,
                            const struct json *request, struct semantic_question *out)
{
    static const char *const dialects[DIALECT_COUNT] = {"openai_chat", "openai_responses",
                                                        "anthropic_messages"};
    struct strbuf text;
    if ((unsigned) dialect >= DIALECT_COUNT || has_members_of_no_comparison(request))
        return false;
    const struct json *turns =
        json_get(request, dialect == DIALECT_OPENAI_RESPONSES ? S("input") : S("messages"));
    bool is_bare = dialect == DIALECT_OPENAI_RESPONSES && json_type(turns) == JSON_STRING;
    const struct json *last = is_bare ? NULL : last_turn(turns);
    const struct json *content = is_bare ? turns : json_get(last, S("content"));
    if (!content)
        return false;
    strbuf_init(&text, arena, SEMANTIC_TEXT_BYTES_MAX);
    if (!add_text(&text, content) || str_is_empty(str_trim(strbuf_str(&text))))
        return false;
    OWNED(arena) scratch = arena_create(0);
    OWNED(digest_stream) stream = digest_stream_create();
    add_scope(stream, key->tenant_id, scope_user, str_from_cstr(dialects[dialect]), model,
              settings_version);
    add_all_but(stream, scratch, request, turns);
    if (!is_bare) {
        add_all_but(stream, scratch, turns, last);
        add_all_but(stream, scratch, last, content);
    }
    digest d = digest_stream_finish(stream);
    *out = (struct semantic_question){.key = *key, .text = strbuf_str(&text)};
    memcpy(out->scope, d.bytes, sizeof out->scope);
    return true;
}
