/* Schemas in definitions: one that is none is a problem of the definition, not of its instances. */
#include "base/arena.h"
#include "nexus_native.h"
#include "runtime/scheduler.h"
#include "workflow/definition_internal.h"

struct compiling {
    struct native_text text;
    enum native_status status;
    char *why;
};

static void compile(void *argument)
{
    struct compiling *c = argument;
    struct native_schema *schema = NULL;
    c->status = native_schema_create(c->text, &schema, &c->why);
    native_schema_destroy(schema);
}

/* "schema at '/properties/n/type': what" names the place inside the schema; what is left is the message. */
static str take_pointer(str *message)
{
    str rest = *message, pointer;
    if (!str_strip_prefix(rest, S("schema at '"), &rest))
        return STR_NONE;
    size_t end = str_find(rest, S("': "));
    if (end == STR_NOT_FOUND)
        return STR_NONE;
    pointer = str_slice(rest, 0, end);
    *message = str_from(rest, end + 3);
    return pointer;
}

/* A piece of a JSON pointer: ~1 is a slash, ~0 a tilde. */
static str unescape(struct arena *arena, str piece)
{
    char *bytes = arena_alloc_raw(arena, piece.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < piece.len; i++) {
        bool is_escape = piece.ptr[i] == '~' && i + 1 < piece.len;
        if (is_escape)
            i++;
        bytes[len++] = !is_escape ? piece.ptr[i] : piece.ptr[i] == '1' ? '/' : '~';
    }
    return str_of(bytes, len);
}

/* Goes down as far as the document does; gives the member it came to. */
static const struct json *enter_pointer(struct definition_reader *r, const struct json *schema,
                                        str pointer)
{
    str piece;
    size_t index;
    uint64_t number;
    while (str_next(&pointer, '/', &piece)) {
        if (str_is_empty(piece))
            continue;
        piece = unescape(r->arena, piece);
        const struct json *inner = json_get(schema, piece);
        bool is_index = json_type(schema) == JSON_ARRAY && str_to_u64(piece, &number);
        index = is_index ? (size_t) number : 0;
        inner = is_index ? json_at(schema, index) : inner;
        if (!inner)
            return schema;
        schema = inner;
        (void) (is_index ? path_enter_index(r, index) : path_enter(r, piece));
    }
    return schema;
}

static const char *remedy(str pointer)
{
    if (str_ends_with(pointer, S("/pattern")))
        return "write a regular expression, without counts that make it very large";
    return str_ends_with(pointer, S("/type"))
               ? "a type is array, boolean, integer, null, number, object or string"
               : "write JSON Schema 2020-12, such as {type: object, properties: {n: {type: "
                 "integer}}}";
}

static void check_schema(struct definition_reader *r, const struct json *value, str text)
{
    struct compiling c = {.text = {text.ptr, text.len}};
    coroutine_on_thread_stack(compile, &c);
    if (c.status != NATIVE_OK) {
        str message = str_from_cstr(c.why ? c.why : "it is none");
        str pointer = take_pointer(&message);
        const struct json *place = enter_pointer(r, value, pointer);
        definition_problem(r, place, "is no JSON Schema: " STR_FMT "; %s",
                           STR_ARG(str_cut_utf8(message, 200)), remedy(pointer));
    }
    native_string_free(c.why);
}

void read_schema(struct definition_reader *r, const struct json *object, const char *name, str *out)
{
    read_json_text(r, object, name, out);
    if (str_is_empty(*out))
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    check_schema(r, member_of(object, name), *out);
    path_leave(r, mark);
}
