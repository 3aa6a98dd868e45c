/* Header fields of the stateless era: how values are written, and which arguments travel as fields. */
#include "mcp/mcp.h"

#include "base/arena.h"
#include "base/limits.h"

#define ENCODED_PREFIX S("=?base64?")
#define ENCODED_SUFFIX S("?=")

enum { SAFE_INTEGER_BITS = 53 };

static bool is_plain(str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char) value.ptr[i];
        if ((c < 0x20 && c != '\t') || c > 0x7e)
            return false;
    }
    return true;
}

static bool is_encoded(str value)
{
    return value.len >= ENCODED_PREFIX.len + ENCODED_SUFFIX.len &&
           str_starts_with(value, ENCODED_PREFIX) && str_ends_with(value, ENCODED_SUFFIX);
}

str mcp_header_encode(struct arena *arena, str value)
{
    if (is_plain(value) && str_equal(str_trim(value), value) && !is_encoded(value))
        return str_copy(arena, value);
    str parts[] = {ENCODED_PREFIX, base64_encode(arena, value), ENCODED_SUFFIX};
    return str_join(arena, parts, ARRAY_COUNT(parts));
}

bool mcp_header_decode(struct arena *arena, str value, str *out)
{
    if (!is_plain(value))
        return false;
    if (!is_encoded(value)) {
        *out = value;
        return true;
    }
    str text = str_slice(value, ENCODED_PREFIX.len, value.len - ENCODED_SUFFIX.len), decoded;
    /* Padded, as the specification writes them: two spellings of one value would be two header fields to an intermediary. */
    if (text.len % 4 != 0 || !base64_decode(arena, text, &decoded) || !str_is_utf8(decoded))
        return false;
    *out = decoded;
    return true;
}

/* ---- x-mcp-header ---- */

struct walk {
    struct arena *arena;
    struct mcp_param *items;
    size_t count;
    str path[MCP_PARAM_DEPTH_MAX];
};

static bool is_token(str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') &&
            str_find_char(S("!#$%&'*+-.^_`|~"), c) == STR_NOT_FOUND)
            return false;
    }
    return text.len > 0 && text.len <= MCP_PARAM_NAME_BYTES_MAX;
}

static bool is_primitive(const struct json *schema)
{
    str type = json_str_or(schema, S("type"), STR_NONE);
    return str_equal(type, S("string")) || str_equal(type, S("integer")) ||
           str_equal(type, S("boolean"));
}

static bool add_param(struct walk *walk, size_t depth, const struct json *schema,
                      const struct json *annotation, struct error *e)
{
    str header;
    if (!json_to_str(annotation, &header) || !is_token(header))
        return error_set(e, REASON_SCHEMA, "x-mcp-header must be the token of a header field");
    if (depth == 0 || !is_primitive(schema))
        return error_set(e, REASON_SCHEMA,
                         "x-mcp-header " STR_FMT " stands at no string, integer or boolean",
                         STR_ARG(header));
    for (size_t i = 0; i < walk->count; i++)
        if (str_equal_nocase(walk->items[i].header, header))
            return error_set(e, REASON_SCHEMA, "x-mcp-header " STR_FMT " stands there twice",
                             STR_ARG(header));
    if (walk->count == MCP_PARAMS_MAX)
        return error_set(e, REASON_LIMIT, "more than %u x-mcp-header", MCP_PARAMS_MAX);
    struct mcp_param *param = &walk->items[walk->count++];
    *param = (struct mcp_param){str_copy(walk->arena, header), ARENA_ARRAY(walk->arena, str, depth),
                                depth};
    for (size_t i = 0; i < depth; i++)
        param->path[i] = str_copy(walk->arena, walk->path[i]);
    return true;
}

/* Anywhere below: where no chain of `properties` leads, an annotation is a mistake. */
static bool has_annotation(const struct json *value)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item))
        if (str_equal(key, S("x-mcp-header")) || has_annotation(item))
            return true;
    return false;
}

static bool walk_schema(struct walk *walk, const struct json *schema, size_t depth, struct error *e)
{
    str key, name;
    const struct json *item, *property;
    struct json_iter it = json_iter(schema);
    if (json_type(schema) != JSON_OBJECT)
        return true;
    while (json_next(&it, &key, &item)) {
        if (str_equal(key, S("x-mcp-header"))) {
            if (!add_param(walk, depth, schema, item, e))
                return false;
            continue;
        }
        if (!str_equal(key, S("properties")) || json_type(item) != JSON_OBJECT) {
            if (has_annotation(item))
                return error_set(e, REASON_SCHEMA,
                                 "x-mcp-header below " STR_FMT
                                 ", where no chain of properties leads",
                                 STR_ARG(str_cut_utf8(key, 60)));
            continue;
        }
        struct json_iter properties = json_iter(item);
        while (json_next(&properties, &name, &property)) {
            if (depth == MCP_PARAM_DEPTH_MAX) {
                if (has_annotation(property))
                    return error_set(e, REASON_LIMIT, "x-mcp-header below %u members",
                                     MCP_PARAM_DEPTH_MAX);
                continue;
            }
            walk->path[depth] = name;
            if (!walk_schema(walk, property, depth + 1, e))
                return false;
        }
    }
    return true;
}

bool mcp_params_read(struct arena *arena, const struct json *input_schema, struct mcp_param **out,
                     size_t *count, struct error *e)
{
    struct walk walk = {.arena = arena,
                        .items = ARENA_ARRAY(arena, struct mcp_param, MCP_PARAMS_MAX)};
    if (!walk_schema(&walk, input_schema, 0, e))
        return false;
    *out = walk.items;
    *count = walk.count;
    return true;
}

bool mcp_param_value(struct arena *arena, const struct mcp_param *param,
                     const struct json *arguments, str *out)
{
    str text;
    int64_t number;
    bool flag;
    const struct json *value = arguments;
    for (size_t i = 0; i < param->depth; i++)
        value = json_get(value, param->path[i]);
    if (json_to_str(value, &text))
        *out = mcp_header_encode(arena, text);
    else if (json_to_bool(value, &flag))
        *out = flag ? S("true") : S("false");
    else if (json_to_i64(value, &number) && number > -(INT64_C(1) << SAFE_INTEGER_BITS) &&
             number < (INT64_C(1) << SAFE_INTEGER_BITS))
        *out = str_i64(arena, number);
    else
        return false;
    return true;
}
