/* Property: what comes out parses equal to what went in, except for the members that were to change. */
#include "llm/splice.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct splice_table chat = {
    .limits = {S_INIT("max_tokens"), S_INIT("max_completion_tokens")},
    .stream_options = S_INIT("stream_options"),
};

static bool is_edited(str key)
{
    return str_equal(key, S("model")) || str_equal(key, S("max_tokens")) ||
           str_equal(key, S("max_completion_tokens")) || str_equal(key, S("stream_options"));
}

static void check_same(struct arena *arena, const struct json *before, const struct json *after)
{
    struct json_iter it = json_iter(before);
    str key;
    const struct json *item;
    while (json_next(&it, &key, &item)) {
        const struct json *other = json_get(after, key);
        ensure(other != NULL);
        if (!is_edited(key))
            ensure(str_equal(json_print(arena, item), json_print(arena, other)));
    }
}

static void check_limits(const struct json *before, const struct json *after, int64_t limit)
{
    static const str names[] = {S_INIT("max_tokens"), S_INIT("max_completion_tokens")};
    bool has_any = false;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const struct json *now = json_get(after, names[i]), *then = json_get(before, names[i]);
        int64_t said, asked;
        if (!now || json_type(now) == JSON_NULL)
            continue;
        has_any = true;
        ensure(json_to_i64(now, &said) && said <= limit);
        ensure(json_type(then) != JSON_INTEGER || !json_to_i64(then, &asked) || said <= asked ||
               asked > limit);
    }
    ensure(has_any);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    str body = str_of((const char *) data, size), out;
    const struct json *before, *after;
    struct error e = {0};
    struct dialect_edits edits = {.model = S("other"),
                                  .max_output_tokens = 77,
                                  .include_usage = true,
                                  .is_new_limit_name = size % 2};
    bool is_json = json_parse(arena, body, (struct json_limits){0}, &before, &e);
    bool is_object = is_json && json_type(before) == JSON_OBJECT;
    bool is_spliced = splice_request(arena, body, &chat, &edits, &out, &e);
    if (!is_object)
        return 0; /* any answer will do, but no read past the end */
    ensure(is_spliced);
    ensure(json_parse(arena, out, (struct json_limits){0}, &after, &e));
    check_same(arena, before, after);
    check_limits(before, after, edits.max_output_tokens);
    ensure(!json_get(before, S("model")) ||
           str_equal(json_str_or(after, S("model"), STR_NONE), S("other")));
    ensure(json_bool_or(json_get(after, S("stream_options")), S("include_usage"), false));
    return 0;
}
