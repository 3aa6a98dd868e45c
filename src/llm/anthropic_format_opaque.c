/* what a prompt's parts keep for this API: opaque members, signatures, input */
#include "base/arena.h"
#include "llm/anthropic_format_internal.h"

const struct json *anthropic_parse_opaque(struct arena *arena, str opaque)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.allow_duplicates = true};
    if (!str_starts_with(opaque, S("{")) || !json_parse(arena, opaque, limits, &tree, &ignored))
        return NULL;
    return tree;
}

bool anthropic_is_whole(struct arena *arena, str opaque)
{
    if (str_find(opaque, S("\"type\"")) == STR_NOT_FOUND)
        return false; /* without parsing, which is the common case */
    return json_type(json_get(anthropic_parse_opaque(arena, opaque), S("type"))) == JSON_STRING;
}

str anthropic_pick(struct arena *arena, const struct json *object, const str *names, size_t count)
{
    struct strbuf text = {0};
    struct json_writer w;
    bool has_begun = false;
    for (size_t i = 0; i < count; i++) {
        const struct json *item = json_get(object, names[i]);
        if (json_type(item) == JSON_ABSENT || json_type(item) == JSON_NULL)
            continue;
        if (!has_begun) {
            strbuf_init(&text, arena, JSON_BYTES_MAX);
            json_writer_init(&w, &text);
            json_object_begin(&w);
            has_begun = true;
        }
        json_put_value(&w, names[i], item);
    }
    if (!has_begun)
        return STR_NONE;
    json_object_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}

str anthropic_signature_opaque(struct arena *arena, str signature)
{
    str foreign;
    struct strbuf text;
    struct json_writer w;
    if (signature.len == 0)
        return STR_NONE;
    if (str_strip_prefix(signature, ANTHROPIC_OPAQUE_PREFIX, &foreign) &&
        anthropic_parse_opaque(arena, foreign))
        return foreign;
    strbuf_init(&text, arena, 6 * signature.len + 32);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("signature"), signature);
    json_object_end(&w);
    return strbuf_str(&text);
}

str anthropic_opaque_signature(struct arena *arena, str opaque)
{
    const struct json *tree = anthropic_parse_opaque(arena, opaque);
    str signature;
    if (!tree)
        return STR_NONE;
    if (json_to_str(json_get(tree, S("signature")), &signature))
        return signature;
    struct strbuf text;
    strbuf_init(&text, arena, ANTHROPIC_OPAQUE_PREFIX.len + opaque.len);
    strbuf_add(&text, ANTHROPIC_OPAQUE_PREFIX);
    strbuf_add(&text, opaque);
    return strbuf_str(&text);
}

void anthropic_put_input(struct json_writer *w, str arguments)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.allow_duplicates = true, .depth_max = JSON_DEPTH_MAX - 8};
    json_key(w, S("input"));
    if (str_trim(arguments).len == 0) {
        json_write_raw(w, S("{}"));
        return;
    }
    if (json_parse(w->out->arena, arguments, limits, &tree, &ignored) &&
        json_type(tree) == JSON_OBJECT) {
        json_write_raw(w, str_trim(arguments));
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("arguments"), arguments);
    json_object_end(w);
}
