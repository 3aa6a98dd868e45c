#include "base/json.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/json_internal.h"
#include "base/limits.h"
#include "base/map.h"

#include <math.h>
#include <stdio.h>
#include <yyjson.h>

/*
 * A struct json IS a yyjson_val.  yyjson keeps a parsed tree as one array in document order (a
 * container, then what is in it), which the two walks below use: "the next value" is the next
 * element.
 */
static yyjson_val *val_of(const struct json *value)
{
    return (yyjson_val *) (uintptr_t) value; /* yyjson reads through pointers that are not const */
}

static const struct json *json_of(const yyjson_val *val)
{
    return (const struct json *) val;
}

static str str_of_val(const yyjson_val *val)
{
    return str_of(val->uni.str, (size_t) (val->tag >> YYJSON_TAG_BIT));
}

/* ---- yyjson's memory comes from the arena ---- */

struct memory {
    struct arena *arena;
    size_t newest_bytes; /* of the newest block: at the end that is the pool of values */
};

static void *memory_alloc(void *ctx, size_t size)
{
    struct memory *memory = ctx;
    memory->newest_bytes = size;
    return arena_alloc_raw(memory->arena, size);
}

static void *memory_resize(void *ctx, void *old, size_t old_bytes, size_t size)
{
    struct memory *memory = ctx;
    memory->newest_bytes = size;
    return arena_resize_raw(memory->arena, old, old_bytes, size);
}

static void memory_free(void *ctx, void *block)
{
    (void) ctx;
    (void) block; /* the arena is rewound when parsing fails */
}

/* ---- the scan before the parse: yyjson itself bounds neither depth nor memory ---- */

struct scan {
    size_t value_count; /* at least as many as the text holds, keys included */
    size_t depth;       /* greatest nesting */
    size_t depth_at;    /* offset where the limit was passed */
};

/* The offset after a string's closing quote, or the end. */
static size_t skip_string(str text, size_t i)
{
    for (;;) {
        size_t quote = str_find_char(str_from(text, i), '"');
        if (quote == STR_NOT_FOUND)
            return text.len;
        size_t end = i + quote, backslashes = 0;
        while (backslashes < quote && text.ptr[end - 1 - backslashes] == '\\')
            backslashes++;
        i = end + 1;
        if (backslashes % 2 == 0)
            return i;
    }
}

/* Exact for lawful JSON; for anything else it may err, and the parser refuses the text anyway. */
static struct scan scan_text(str text, size_t depth_max)
{
    struct scan scan = {.value_count = 1};
    size_t depth = 0;
    for (size_t i = 0; i < text.len && scan.depth <= depth_max;) {
        switch (text.ptr[i++]) {
        case '"': i = skip_string(text, i); break;
        case '{':
        case '[':
            scan.value_count++;
            if (++depth > scan.depth) {
                scan.depth = depth;
                scan.depth_at = i - 1;
            }
            break;
        case '}':
        case ']': depth -= depth > 0; break;
        case ',':
        case ':': scan.value_count++; break;
        default: break;
        }
    }
    return scan;
}

/* ---- duplicate keys ---- */

enum { FEW_KEYS = 12 }; /* up to here comparing each with each is faster than hashing */

static const yyjson_val *duplicate_of_few(yyjson_val *object)
{
    const yyjson_val *keys[FEW_KEYS];
    size_t count = unsafe_yyjson_get_len(object);
    yyjson_val *key = unsafe_yyjson_get_first(object);
    for (size_t i = 0; i < count; i++, key = unsafe_yyjson_get_next(key + 1)) {
        for (size_t j = 0; j < i; j++) {
            if (str_equal(str_of_val(keys[j]), str_of_val(key)))
                return key;
        }
        keys[i] = key;
    }
    return NULL;
}

/* A keyed hash, so that a caller cannot choose keys that all collide. */
static const yyjson_val *duplicate_of_many(yyjson_val *object, struct arena *arena, uint64_t seed)
{
    size_t count = unsafe_yyjson_get_len(object), slot_count = 32;
    while (slot_count < count * 2)
        slot_count *= 2;
    arena_mark mark = arena_save(arena);
    const yyjson_val **slots = ARENA_ARRAY(arena, const yyjson_val *, slot_count);
    const yyjson_val *duplicate = NULL;
    yyjson_val *key = unsafe_yyjson_get_first(object);
    for (size_t i = 0; i < count && !duplicate; i++, key = unsafe_yyjson_get_next(key + 1)) {
        size_t slot = str_hash(str_of_val(key), seed) & (slot_count - 1);
        while (slots[slot] && !str_equal(str_of_val(slots[slot]), str_of_val(key)))
            slot = (slot + 1) & (slot_count - 1);
        if (slots[slot])
            duplicate = key;
        slots[slot] = key;
    }
    arena_rewind(arena, mark);
    return duplicate;
}

static const yyjson_val *find_duplicate(yyjson_val *root, size_t value_count, struct arena *arena)
{
    uint64_t seed = map_seed();
    for (size_t i = 0; i < value_count; i++) {
        yyjson_val *val = root + i;
        const yyjson_val *duplicate = NULL;
        if (!yyjson_is_obj(val))
            continue;
        if (unsafe_yyjson_get_len(val) <= FEW_KEYS)
            duplicate = duplicate_of_few(val);
        else
            duplicate = duplicate_of_many(val, arena, seed);
        if (duplicate)
            return duplicate;
    }
    return NULL;
}

/* ---- parsing ---- */

enum { SHOWN_KEY_BYTES = 60 };

static bool refuse_at(str text, size_t offset, const char *what, struct error *e)
{
    size_t line = 1, line_begin = 0;
    if (offset > text.len)
        offset = text.len;
    for (size_t i = 0; i < offset; i++) {
        if (text.ptr[i] == '\n') {
            line++;
            line_begin = i + 1;
        }
    }
    return error_set(e, REASON_JSON, "line %zu, column %zu (byte %zu): %s", line,
                     offset - line_begin + 1, offset, what);
}

/* The text is copied, and a value takes 16 bytes: so much is known before a byte is allocated. */
static bool fits_arena(const struct arena *arena, str text, const struct scan *scan,
                       struct error *e)
{
    size_t needed = text.len + scan->value_count * sizeof(yyjson_val);
    if (needed <= arena_bytes_left(arena))
        return true;
    return error_set(e, REASON_TOO_LARGE,
                     "the JSON text needs %zu bytes of memory, %zu are left for this request",
                     needed, arena_bytes_left(arena));
}

static bool refuse_duplicate(const yyjson_val *key, struct error *e)
{
    str name = str_of_val(key);
    str shown = str_cut_utf8(name, SHOWN_KEY_BYTES);
    return error_set(e, REASON_JSON, "the key \"" STR_FMT "%s\" stands twice in one object",
                     STR_ARG(shown), shown.len < name.len ? "…" : "");
}

/* yyjson guesses the size of its pool by the text's; what it did not need is given back. */
static void trim(const struct memory *memory, yyjson_doc *doc)
{
    size_t header_bytes = (size_t) ((char *) doc->root - (char *) doc);
    arena_resize_raw(memory->arena, doc, memory->newest_bytes,
                     header_bytes + doc->val_read * sizeof(yyjson_val));
}

static const yyjson_doc *read_text(struct arena *arena, str text, struct error *e)
{
    struct memory memory = {.arena = arena};
    yyjson_alc alc = {memory_alloc, memory_resize, memory_free, &memory};
    yyjson_read_err failure;
    char *bytes = (char *) (uintptr_t) text.ptr; /* not in situ: it is only read */
    yyjson_doc *doc = yyjson_read_opts(bytes, text.len, YYJSON_READ_NOFLAG, &alc, &failure);
    if (!doc) {
        refuse_at(text, failure.pos, failure.msg, e);
        return NULL;
    }
    trim(&memory, doc);
    return doc;
}

static bool parse_bounded(struct arena *arena, str text, bool allow_duplicates,
                          const struct json **out, struct error *e)
{
    arena_mark mark = arena_save(arena);
    const yyjson_doc *doc = read_text(arena, text, e);
    const yyjson_val *duplicate = NULL;
    if (doc && !allow_duplicates)
        duplicate = find_duplicate(doc->root, doc->val_read, arena);
    if (duplicate)
        refuse_duplicate(duplicate, e);
    if (!doc || duplicate) {
        arena_rewind(arena, mark);
        return false;
    }
    *out = json_of(doc->root);
    return true;
}

bool json_parse(struct arena *arena, str text, struct json_limits limits, const struct json **out,
                struct error *e)
{
    size_t bytes_max = limits.bytes_max ? limits.bytes_max : JSON_BYTES_MAX;
    size_t depth_max = limits.depth_max ? limits.depth_max : JSON_DEPTH_MAX;
    ensure(depth_max <= JSON_DEPTH_MAX); /* the walks over trees rely on it */
    if (text.len > bytes_max)
        return error_set(e, REASON_TOO_LARGE,
                         "the JSON text has %zu bytes, at most %zu are allowed", text.len,
                         bytes_max);
    if (text.len == 0)
        return error_set(e, REASON_JSON, "empty: expected a JSON value");
    struct scan scan = scan_text(text, depth_max);
    if (scan.depth > depth_max) {
        char what[64];
        snprintf(what, sizeof(what), "nested deeper than %zu levels", depth_max);
        return refuse_at(text, scan.depth_at, what, e);
    }
    if (!fits_arena(arena, text, &scan, e))
        return false;
    return parse_bounded(arena, text, limits.allow_duplicates, out, e);
}

/* ---- reading trees ---- */

enum json_type json_type(const struct json *value)
{
    switch (yyjson_get_type(val_of(value))) {
    case YYJSON_TYPE_NULL: return JSON_NULL;
    case YYJSON_TYPE_BOOL: return JSON_BOOL;
    case YYJSON_TYPE_NUM: return yyjson_is_real(val_of(value)) ? JSON_REAL : JSON_INTEGER;
    case YYJSON_TYPE_STR: return JSON_STRING;
    case YYJSON_TYPE_ARR: return JSON_ARRAY;
    case YYJSON_TYPE_OBJ: return JSON_OBJECT;
    default: return JSON_ABSENT;
    }
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {
        [JSON_ABSENT] = "nothing",  [JSON_NULL] = "null",     [JSON_BOOL] = "boolean",
        [JSON_INTEGER] = "integer", [JSON_REAL] = "number",   [JSON_STRING] = "string",
        [JSON_ARRAY] = "array",     [JSON_OBJECT] = "object",
    };
    return names[type];
}

const struct json *json_get(const struct json *object, str key)
{
    return json_of(yyjson_obj_getn(val_of(object), key.ptr ? key.ptr : "", key.len));
}

const struct json *json_path(const struct json *value, str pointer)
{
    return json_of(yyjson_ptr_getn(val_of(value), pointer.ptr ? pointer.ptr : "", pointer.len));
}

const struct json *json_at(const struct json *array, size_t index)
{
    return json_of(yyjson_arr_get(val_of(array), index));
}

size_t json_count(const struct json *array_or_object)
{
    yyjson_val *val = val_of(array_or_object);
    return yyjson_is_ctn(val) ? unsafe_yyjson_get_len(val) : 0;
}

bool json_to_str(const struct json *value, str *out)
{
    yyjson_val *val = val_of(value);
    if (!yyjson_is_str(val))
        return false;
    *out = str_of_val(val);
    return true;
}

bool json_to_i64(const struct json *value, int64_t *out)
{
    yyjson_val *val = val_of(value);
    if (yyjson_is_uint(val)) {
        uint64_t number = unsafe_yyjson_get_uint(val);
        if (number > INT64_MAX)
            return false;
        *out = (int64_t) number;
        return true;
    }
    if (yyjson_is_sint(val)) {
        *out = unsafe_yyjson_get_sint(val);
        return true;
    }
    double real = yyjson_is_real(val) ? unsafe_yyjson_get_real(val) : NAN;
    if (!(real >= -0x1p63 && real < 0x1p63) || real != trunc(real))
        return false;
    *out = (int64_t) real;
    return true;
}

bool json_to_double(const struct json *value, double *out)
{
    yyjson_val *val = val_of(value);
    if (!yyjson_is_num(val))
        return false;
    *out = yyjson_get_num(val);
    return true;
}

bool json_to_bool(const struct json *value, bool *out)
{
    yyjson_val *val = val_of(value);
    if (!yyjson_is_bool(val))
        return false;
    *out = unsafe_yyjson_get_bool(val);
    return true;
}

str json_str_or(const struct json *object, str key, str otherwise)
{
    json_to_str(json_get(object, key), &otherwise);
    return otherwise;
}

int64_t json_i64_or(const struct json *object, str key, int64_t otherwise)
{
    json_to_i64(json_get(object, key), &otherwise);
    return otherwise;
}

bool json_bool_or(const struct json *object, str key, bool otherwise)
{
    json_to_bool(json_get(object, key), &otherwise);
    return otherwise;
}

struct json_iter json_iter(const struct json *container)
{
    struct json_iter it = {.container = container, .count = json_count(container)};
    if (it.count > 0)
        it.position = unsafe_yyjson_get_first(val_of(container));
    return it;
}

bool json_next(struct json_iter *it, str *key, const struct json **item)
{
    if (it->index >= it->count)
        return false;
    yyjson_val *val = val_of(it->position);
    bool is_object = unsafe_yyjson_is_obj(val_of(it->container));
    if (key)
        *key = is_object ? str_of_val(val) : STR_NONE;
    if (is_object)
        val++; /* a key is followed by its value */
    if (item)
        *item = json_of(val);
    it->index++;
    it->position = unsafe_yyjson_get_next(val);
    return true;
}

/* ---- members of request bodies ---- */

/* The member, or NULL when it is absent or null (which many clients send for "not set"). */
static const struct json *set_member(const struct json *object, str key)
{
    const struct json *member = json_get(object, key);
    return json_type(member) == JSON_NULL ? NULL : member;
}

static bool refuse_type(str key, const char *expected, const struct json *member, struct error *e)
{
    return error_set(e, REASON_SCHEMA, "\"" STR_FMT "\" must be %s, not %s", STR_ARG(key), expected,
                     json_type_name(json_type(member)));
}

bool json_read_str(const struct json *object, str key, str *out, struct error *e)
{
    const struct json *member = set_member(object, key);
    return !member || json_to_str(member, out) || refuse_type(key, "a string", member, e);
}

bool json_read_i64(const struct json *object, str key, int64_t min, int64_t max, int64_t *out,
                   struct error *e)
{
    const struct json *member = set_member(object, key);
    int64_t value;
    if (!member)
        return true;
    if (!json_to_i64(member, &value))
        return refuse_type(key, "an integer", member, e);
    if (value < min || value > max)
        return error_set(e, REASON_SCHEMA, "\"" STR_FMT "\" must be from %lld to %lld, not %lld",
                         STR_ARG(key), (long long) min, (long long) max, (long long) value);
    *out = value;
    return true;
}

bool json_read_bool(const struct json *object, str key, bool *out, struct error *e)
{
    const struct json *member = set_member(object, key);
    return !member || json_to_bool(member, out) || refuse_type(key, "true or false", member, e);
}

bool json_read_double(const struct json *object, str key, double *out, struct error *e)
{
    const struct json *member = set_member(object, key);
    return !member || json_to_double(member, out) || refuse_type(key, "a number", member, e);
}

bool json_need_str(const struct json *object, str key, str *out, struct error *e)
{
    if (!set_member(object, key))
        return error_set(e, REASON_SCHEMA, "\"" STR_FMT "\" is missing: a string is needed",
                         STR_ARG(key));
    return json_read_str(object, key, out, e);
}

/* ---- printing trees ---- */

/*
 * yyjson has no call that prints one number; a lone value printed to a little pool on the stack
 * comes to the same.
 */
size_t json_format_double(double value, char out[JSON_NUMBER_BYTES])
{
    char pool[512] __attribute__((aligned(16)));
    yyjson_alc alc;
    size_t len = 0;
    yyjson_val val = {.tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL, .uni.f64 = value};
    ensure(isfinite(value) && yyjson_alc_pool_init(&alc, pool, sizeof(pool)));
    const char *text = yyjson_val_write_opts(&val, YYJSON_WRITE_NOFLAG, &alc, &len, NULL);
    ensure(text != NULL && len <= JSON_NUMBER_BYTES);
    memcpy(out, text, len);
    return len;
}

static void print_number(struct strbuf *out, const yyjson_val *val)
{
    char text[JSON_NUMBER_BYTES];
    switch (val->tag & YYJSON_SUBTYPE_MASK) {
    case YYJSON_SUBTYPE_UINT: strbuf_add_u64(out, val->uni.u64); break;
    case YYJSON_SUBTYPE_SINT: strbuf_add_i64(out, val->uni.i64); break;
    default: strbuf_add(out, str_of(text, json_format_double(val->uni.f64, text))); break;
    }
}

static void print_scalar(struct strbuf *out, const yyjson_val *val)
{
    switch (json_type(json_of(val))) {
    case JSON_STRING: json_escape(out, str_of_val(val)); break;
    case JSON_INTEGER:
    case JSON_REAL: print_number(out, val); break;
    case JSON_BOOL:
        strbuf_add(out, yyjson_get_bool(val_of(json_of(val))) ? S("true") : S("false"));
        break;
    case JSON_ARRAY:
        strbuf_add(out, S("[]")); /* print_tree() opens those that hold something */
        break;
    case JSON_OBJECT: strbuf_add(out, S("{}")); break;
    case JSON_NULL:
    case JSON_ABSENT: strbuf_add(out, S("null")); break;
    }
}

/* What is still to come in one open container; in an object keys and values count one each. */
struct level {
    size_t left;
    bool is_object;
};

/* Straight down the array of values: no recursion, so a coroutine's small stack will do. */
static void print_tree(struct strbuf *out, const yyjson_val *val)
{
    struct level levels[JSON_DEPTH_MAX];
    size_t depth = 0;
    for (;; val++) {
        size_t count = json_count(json_of(val));
        if (count > 0) {
            bool is_object = yyjson_is_obj(val_of(json_of(val)));
            ensure(depth < JSON_DEPTH_MAX);
            strbuf_add_char(out, is_object ? '{' : '[');
            levels[depth++] = (struct level){is_object ? count * 2 : count, is_object};
            continue;
        }
        print_scalar(out, val);
        while (depth > 0 && --levels[depth - 1].left == 0) {
            strbuf_add_char(out, levels[depth - 1].is_object ? '}' : ']');
            depth--;
        }
        if (depth == 0)
            return;
        struct level *level = &levels[depth - 1];
        strbuf_add_char(out, level->is_object && level->left % 2 == 1 ? ':' : ',');
    }
}

void json_print_to(struct strbuf *out, const struct json *value)
{
    if (value)
        print_tree(out, val_of(value));
    else
        strbuf_add(out, S("null"));
}
