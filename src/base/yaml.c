#include "base/yaml.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"

#include <stdlib.h>
#include <yaml.h>

/*
 * How it works: libyaml's events are written as JSON text, which json_parse turns into the tree; so
 * a YAML value obeys
 * the same rules as a JSON one.  The line of each value is noted in document order; a walk over the
 * tree in the same
 * order then gives each value its line.  An alias copies the text and the lines of its anchor.
 */
struct yaml_location {
    const struct json *value;
    int line, key_line;
};

struct anchor {
    size_t text_begin, text_end;
    size_t location_begin, location_end;
    size_t height; /* containers nested in it, itself included */
    bool is_open;  /* still being read: an alias to it would contain itself */
};

struct frame {
    bool is_mapping;
    bool is_value_next; /* in a mapping: the key was read */
    size_t item_count;
    size_t height; /* of the highest child */
    int key_line;  /* of the key read last */
    struct map *keys;
    struct anchor *anchor;
};

struct reader {
    struct arena *arena;
    str file;
    yaml_parser_t parser;
    struct strbuf text;
    struct yaml_location *locations;
    size_t location_count, location_capacity;
    struct frame frames[JSON_DEPTH_MAX + 1]; /* 0: the document */
    size_t depth;
    struct map *anchors;
    size_t document_count;
};

/* ---- errors ---- */

static bool fail_at(const struct reader *reader, yaml_mark_t mark, struct error *e,
                    const char *what)
{
    return error_set(e, REASON_CONFIG, STR_FMT ":%zu:%zu: %s", STR_ARG(reader->file), mark.line + 1,
                     mark.column + 1, what);
}

/* What to do about libyaml's messages, which name the symptom. */
static const struct {
    const char *problem, *remedy;
} remedies[] = {
    {"found character that cannot start any token",
     "indent with spaces, not tabs, and quote a value that begins with @, ` or %"},
    {"found a tab character", "indent with spaces, not tabs"},
    {"mapping values are not allowed in this context",
     "check the indentation, and quote a value that contains ': '"},
    {"did not find expected key", "align this line with the keys it belongs to"},
    {"did not find expected '-' indicator", "align the '-' with the others of the list"},
    {"could not find expected ':'", "write 'key: value' with a colon and a space"},
    {"found unexpected end of stream", "close the quote"},
    {"did not find expected ',' or ']'", "close the list with ']'"},
    {"did not find expected ',' or '}'", "close the mapping with '}'"},
    {"found unknown escape character", "write a backslash as \\\\, or use single quotes"},
    {"block sequence entries are not allowed in this context",
     "begin the list on a line of its own"},
    {"control characters are not allowed", "save the file as plain UTF-8 text"},
    {"invalid leading UTF-8 octet", "save the file as UTF-8"},
    {"invalid trailing UTF-8 octet", "save the file as UTF-8"},
};

static const char *remedy_of(const char *problem)
{
    for (size_t i = 0; i < ARRAY_COUNT(remedies); i++) {
        if (strstr(problem, remedies[i].problem))
            return remedies[i].remedy;
    }
    return NULL;
}

/* A reader error (bad bytes) has no mark, only an offset. */
static yaml_mark_t mark_of_offset(const struct reader *reader, str text)
{
    yaml_mark_t mark = {0};
    size_t end =
        reader->parser.problem_offset < text.len ? reader->parser.problem_offset : text.len;
    for (size_t i = 0; i < end; i++) {
        mark.column++;
        if (text.ptr[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return mark;
}

static bool fail_syntax(const struct reader *reader, str text, struct error *e)
{
    const yaml_parser_t *parser = &reader->parser;
    ensure(parser->error != YAML_MEMORY_ERROR);
    const char *problem = parser->problem ? parser->problem : "not YAML";
    const char *remedy = remedy_of(problem);
    yaml_mark_t mark =
        parser->error == YAML_READER_ERROR ? mark_of_offset(reader, text) : parser->problem_mark;
    return error_set(e, REASON_CONFIG, STR_FMT ":%zu:%zu: %s%s%s", STR_ARG(reader->file),
                     mark.line + 1, mark.column + 1, problem, remedy ? "; " : "",
                     remedy ? remedy : "");
}

/* ---- plain scalars: the core schema of YAML 1.2 ---- */

static bool is_one_of(str text, const str *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (str_equal(text, words[i]))
            return true;
    }
    return false;
}

static bool is_null(str text)
{
    static const str words[] = {S_INIT(""), S_INIT("~"), S_INIT("null"), S_INIT("Null"),
                                S_INIT("NULL")};
    return is_one_of(text, words, ARRAY_COUNT(words));
}

static bool is_true(str text)
{
    static const str words[] = {S_INIT("true"), S_INIT("True"), S_INIT("TRUE")};
    return is_one_of(text, words, ARRAY_COUNT(words));
}

static bool is_false(str text)
{
    static const str words[] = {S_INIT("false"), S_INIT("False"), S_INIT("FALSE")};
    return is_one_of(text, words, ARRAY_COUNT(words));
}

static bool is_infinite_or_nan(str text)
{
    static const str words[] = {S_INIT(".inf"), S_INIT(".Inf"), S_INIT(".INF"),
                                S_INIT(".nan"), S_INIT(".NaN"), S_INIT(".NAN")};
    if (text.len > 1 && (text.ptr[0] == '-' || text.ptr[0] == '+'))
        text = str_from(text, 1);
    return is_one_of(text, words, ARRAY_COUNT(words));
}

static size_t digits_at(str text, size_t at)
{
    size_t count = 0;
    while (at + count < text.len && text.ptr[at + count] >= '0' && text.ptr[at + count] <= '9')
        count++;
    return count;
}

/* [-+]?[0-9]+ */
static bool is_decimal_integer(str text)
{
    size_t sign = text.len > 0 && (text.ptr[0] == '-' || text.ptr[0] == '+');
    size_t digits = digits_at(text, sign);
    return digits > 0 && sign + digits == text.len;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_real(str text)
{
    size_t at = text.len > 0 && (text.ptr[0] == '-' || text.ptr[0] == '+');
    size_t whole = digits_at(text, at), fraction = 0;
    at += whole;
    if (at < text.len && text.ptr[at] == '.') {
        fraction = digits_at(text, at + 1);
        at += 1 + fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (at < text.len && (text.ptr[at] == 'e' || text.ptr[at] == 'E')) {
        at++;
        at += at < text.len && (text.ptr[at] == '-' || text.ptr[at] == '+');
        size_t exponent = digits_at(text, at);
        if (exponent == 0)
            return false;
        at += exponent;
    }
    return at == text.len;
}

/* 0o17 and 0x1f */
static bool is_prefixed_integer(str text, int *base)
{
    *base = str_starts_with(text, S("0o")) ? 8 : str_starts_with(text, S("0x")) ? 16 : 0;
    if (*base == 0 || text.len == 2)
        return false;
    for (size_t i = 2; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_octal = c >= '0' && c <= '7';
        bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (*base == 8 ? !is_octal : !is_hex)
            return false;
    }
    return true;
}

static bool prefixed_value(str text, int base, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 2; i < text.len; i++) {
        char c = text.ptr[i];
        uint64_t digit = (uint64_t) (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        if (__builtin_mul_overflow(value, (uint64_t) base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

static bool write_integer(struct json_writer *w, str text)
{
    int64_t number;
    uint64_t positive;
    if (text.ptr[0] == '+')
        text = str_from(text, 1);
    if (str_to_i64(text, &number))
        json_write_i64(w, number);
    else if (text.ptr[0] != '-' && str_to_u64(text, &positive))
        json_write_u64(w, positive);
    else
        return false;
    return true;
}

/* ---- building ---- */

static bool note_location(struct reader *reader, int line, int key_line)
{
    if (reader->location_count == YAML_VALUES_MAX)
        return false;
    if (reader->location_count == reader->location_capacity) {
        size_t capacity = reader->location_capacity ? reader->location_capacity * 2 : 64;
        size_t item_bytes = sizeof(struct yaml_location);
        reader->locations =
            arena_grow(reader->arena, reader->locations, reader->location_capacity * item_bytes,
                       capacity * item_bytes);
        reader->location_capacity = capacity;
    }
    reader->locations[reader->location_count++] =
        (struct yaml_location){.line = line, .key_line = key_line};
    return true;
}

/* Commas and colons before a value; keys write their own comma.  False when there are too many
 * values. */
static bool begin_value(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    struct frame *frame = &reader->frames[reader->depth];
    if (frame->is_mapping)
        strbuf_add_char(&reader->text, ':');
    else if (frame->item_count > 0)
        strbuf_add_char(&reader->text, ',');
    frame->item_count++;
    frame->is_value_next = false;
    int line = (int) event->start_mark.line + 1;
    if (!note_location(reader, line, frame->is_mapping ? frame->key_line : line) ||
        strbuf_is_over(&reader->text))
        return error_set(e, REASON_TOO_LARGE, STR_FMT ": more than %u values or %u bytes",
                         STR_ARG(reader->file), YAML_VALUES_MAX, YAML_EXPANDED_BYTES_MAX);
    return true;
}

static struct anchor *begin_anchor(struct reader *reader, const yaml_char_t *name)
{
    if (!name)
        return NULL;
    struct anchor *anchor = ARENA_NEW(reader->arena, struct anchor);
    anchor->is_open = true;
    anchor->text_begin = reader->text.len;
    anchor->location_begin = reader->location_count - 1;
    map_put(reader->anchors, str_from_cstr((const char *) name), anchor);
    return anchor;
}

static void end_anchor(const struct reader *reader, struct anchor *anchor, size_t height)
{
    if (!anchor)
        return;
    anchor->is_open = false;
    anchor->text_end = reader->text.len;
    anchor->location_end = reader->location_count;
    anchor->height = height;
}

static void grow_height(struct reader *reader, size_t child_height)
{
    struct frame *frame = &reader->frames[reader->depth];
    if (child_height > frame->height)
        frame->height = child_height;
}

static bool write_scalar(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    str text = str_of((const char *) event->data.scalar.value, event->data.scalar.length);
    struct json_writer w;
    int base;
    uint64_t value;
    json_writer_init(&w, &reader->text);
    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        json_write_str(&w, text);
    } else if (is_null(text)) {
        json_write_null(&w);
    } else if (is_true(text) || is_false(text)) {
        json_write_bool(&w, is_true(text));
    } else if (is_decimal_integer(text)) {
        if (!write_integer(&w, text))
            return fail_at(reader, event->start_mark, e,
                           "this integer does not fit 64 bits; quote it to make it a string");
    } else if (is_prefixed_integer(text, &base)) {
        if (!prefixed_value(text, base, &value))
            return fail_at(reader, event->start_mark, e,
                           "this integer does not fit 64 bits; quote it to make it a string");
        json_write_u64(&w, value);
    } else if (is_real(text)) {
        double number = strtod(str_to_cstr(reader->arena, text), NULL);
        if (__builtin_isinf(number))
            return fail_at(reader, event->start_mark, e,
                           "this number is too large; quote it to make it a string");
        json_write_double(&w, number);
    } else if (is_infinite_or_nan(text)) {
        return fail_at(reader, event->start_mark, e,
                       "infinity and NaN have no place here; quote it to make it a string");
    } else {
        json_write_str(&w, text);
    }
    return true;
}

static bool read_key(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    struct frame *frame = &reader->frames[reader->depth];
    if (event->type != YAML_SCALAR_EVENT)
        return fail_at(reader, event->start_mark, e, "a key must be a plain or quoted word");
    str key = str_of((const char *) event->data.scalar.value, event->data.scalar.length);
    if (event->data.scalar.anchor)
        return fail_at(reader, event->start_mark, e,
                       "a key cannot have an anchor; put it on the value");
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && str_equal(key, S("<<")))
        return fail_at(
            reader, event->start_mark, e,
            "merge keys (<<) are not supported; write the keys out or use an alias as a value");
    if (!frame->keys)
        frame->keys = map_create();
    if (map_put(frame->keys, key, reader))
        return error_set(e, REASON_CONFIG,
                         STR_FMT ":%zu:%zu: the key '" STR_FMT "' appears twice; remove one",
                         STR_ARG(reader->file), event->start_mark.line + 1,
                         event->start_mark.column + 1, STR_ARG(str_cut_utf8(key, 60)));
    if (frame->item_count > 0)
        strbuf_add_char(&reader->text, ',');
    struct json_writer w;
    json_writer_init(&w, &reader->text);
    json_write_str(&w, key);
    frame->is_value_next = true;
    frame->key_line = (int) event->start_mark.line + 1;
    return true;
}

static bool open_container(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    bool is_mapping = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *name =
        is_mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    if (reader->depth == JSON_DEPTH_MAX)
        return error_set(e, REASON_CONFIG, STR_FMT ":%zu:%zu: nested deeper than %u levels",
                         STR_ARG(reader->file), event->start_mark.line + 1,
                         event->start_mark.column + 1, JSON_DEPTH_MAX);
    if (!begin_value(reader, event, e))
        return false;
    struct anchor *anchor = begin_anchor(reader, name);
    strbuf_add_char(&reader->text, is_mapping ? '{' : '[');
    reader->frames[++reader->depth] = (struct frame){.is_mapping = is_mapping, .anchor = anchor};
    return true;
}

static void close_container(struct reader *reader)
{
    struct frame *frame = &reader->frames[reader->depth--];
    strbuf_add_char(&reader->text, frame->is_mapping ? '}' : ']');
    map_destroy(frame->keys);
    frame->keys = NULL;
    end_anchor(reader, frame->anchor, frame->height + 1);
    grow_height(reader, frame->height + 1);
}

static bool read_scalar(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    if (!begin_value(reader, event, e))
        return false;
    struct anchor *anchor = begin_anchor(reader, event->data.scalar.anchor);
    if (!write_scalar(reader, event, e))
        return false;
    end_anchor(reader, anchor, 0);
    return true;
}

/* All lines of an expanded alias are those of the anchor, where the text is. */
static bool read_alias(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    const struct anchor *anchor =
        map_find(reader->anchors, str_from_cstr((const char *) event->data.alias.anchor));
    if (!anchor)
        return fail_at(reader, event->start_mark, e,
                       "this alias names no anchor; define it above with &name");
    if (anchor->is_open)
        return fail_at(reader, event->start_mark, e, "this alias would contain itself");
    if (reader->depth + anchor->height > JSON_DEPTH_MAX)
        return fail_at(reader, event->start_mark, e,
                       "nested too deeply once this alias is expanded");
    if (!begin_value(reader, event, e))
        return false;
    reader->location_count--; /* the copied lines replace the alias's own */
    for (size_t i = anchor->location_begin; i < anchor->location_end; i++) {
        if (!note_location(reader, reader->locations[i].line, reader->locations[i].key_line))
            return error_set(e, REASON_TOO_LARGE, STR_FMT ": more than %u values",
                             STR_ARG(reader->file), YAML_VALUES_MAX);
    }
    size_t bytes = anchor->text_end - anchor->text_begin;
    char *to = strbuf_reserve(&reader->text, bytes);
    if (!to)
        return error_set(e, REASON_TOO_LARGE,
                         STR_FMT ": more than %u bytes once aliases are expanded",
                         STR_ARG(reader->file), YAML_EXPANDED_BYTES_MAX);
    memcpy(to, reader->text.ptr + anchor->text_begin, bytes);
    strbuf_commit(&reader->text, bytes);
    grow_height(reader, anchor->height);
    return true;
}

static bool has_tag(const yaml_event_t *event)
{
    return (event->type == YAML_SCALAR_EVENT && event->data.scalar.tag) ||
           (event->type == YAML_SEQUENCE_START_EVENT && event->data.sequence_start.tag) ||
           (event->type == YAML_MAPPING_START_EVENT && event->data.mapping_start.tag);
}

static bool read_node(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    const struct frame *frame = &reader->frames[reader->depth];
    if (has_tag(event))
        return fail_at(reader, event->start_mark, e,
                       "tags (!) are not supported; quote the value to make it a string");
    if (frame->is_mapping && !frame->is_value_next)
        return read_key(reader, event, e);
    if (event->type == YAML_SCALAR_EVENT)
        return read_scalar(reader, event, e);
    if (event->type == YAML_ALIAS_EVENT)
        return read_alias(reader, event, e);
    return open_container(reader, event, e);
}

static bool read_event(struct reader *reader, const yaml_event_t *event, struct error *e)
{
    switch (event->type) {
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT: return true;
    case YAML_DOCUMENT_START_EVENT:
        if (reader->document_count++ > 0)
            return fail_at(reader, event->start_mark, e,
                           "a second document begins here (---); keep one per file");
        return true;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: close_container(reader); return true;
    case YAML_ALIAS_EVENT:
    case YAML_SCALAR_EVENT:
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT: return read_node(reader, event, e);
    }
    return true;
}

static bool read_events(struct reader *reader, str text, struct error *e)
{
    bool is_ok = true, is_end = false;
    while (is_ok && !is_end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&reader->parser, &event))
            return fail_syntax(reader, text, e);
        is_end = event.type == YAML_STREAM_END_EVENT;
        is_ok = read_event(reader, &event, e);
        yaml_event_delete(&event);
    }
    return is_ok;
}

/* ---- lines ---- */

static void assign_locations(struct yaml_location *locations, size_t *index,
                             const struct json *value)
{
    locations[(*index)++].value = value;
    struct json_iter it = json_iter(value);
    const struct json *item;
    while (json_next(&it, NULL, &item))
        assign_locations(locations, index, item);
}

static int compare_locations(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t) ((const struct yaml_location *) a)->value;
    uintptr_t right = (uintptr_t) ((const struct yaml_location *) b)->value;
    return left < right ? -1 : left > right;
}

static bool build_document(struct reader *reader, struct yaml_document *out, struct error *e)
{
    if (reader->location_count == 0) { /* an empty file is a null */
        strbuf_add(&reader->text, S("null"));
        note_location(reader, 1, 1);
    }
    if (strbuf_is_over(&reader->text))
        return error_set(e, REASON_TOO_LARGE,
                         STR_FMT ": more than %u bytes once aliases are expanded",
                         STR_ARG(reader->file), YAML_EXPANDED_BYTES_MAX);
    struct json_limits limits = {.bytes_max = YAML_EXPANDED_BYTES_MAX, .allow_duplicates = true};
    const struct json *root;
    if (!json_parse(reader->arena, strbuf_str(&reader->text), limits, &root, e))
        return error_wrap(e, STR_FMT, STR_ARG(reader->file));
    size_t count = 0;
    assign_locations(reader->locations, &count, root);
    ensure(count == reader->location_count);
    qsort(reader->locations, count, sizeof reader->locations[0], compare_locations);
    *out = (struct yaml_document){
        .file = str_copy(reader->arena, reader->file),
        .root = root,
        .locations = reader->locations,
        .location_count = count,
    };
    return true;
}

/* ---- public ---- */

bool yaml_parse(struct arena *arena, str file, str text, struct yaml_document *out, struct error *e)
{
    if (text.len > YAML_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, STR_FMT ": %zu bytes of YAML, at most %u are read",
                         STR_ARG(file), text.len, YAML_BYTES_MAX);
    struct reader *reader = ARENA_NEW(arena, struct reader);
    *reader = (struct reader){.arena = arena, .file = file};
    strbuf_init(&reader->text, arena, YAML_EXPANDED_BYTES_MAX);
    ensure(yaml_parser_initialize(&reader->parser));
    yaml_parser_set_encoding(&reader->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader->parser,
                                 (const unsigned char *) (text.ptr ? text.ptr : ""), text.len);
    reader->anchors = map_create();
    bool is_ok = read_events(reader, text, e) && build_document(reader, out, e);
    for (size_t i = 0; i <= reader->depth; i++)
        map_destroy(reader->frames[i].keys);
    map_destroy(reader->anchors);
    yaml_parser_delete(&reader->parser);
    return is_ok;
}

/* ---- JSON ---- */

struct json_scan {
    struct yaml_location *locations;
    size_t count;
    int line, key_line;
    size_t depth;
    bool is_object[JSON_DEPTH_MAX + 1], is_key_next;
};

static void note_value(struct json_scan *scan)
{
    int key_line = scan->is_object[scan->depth] ? scan->key_line : scan->line;
    scan->locations[scan->count++] =
        (struct yaml_location){.line = scan->line, .key_line = key_line};
}

/* The offset after a string, from after its opening quote. */
static size_t skip_json_string(str text, size_t at)
{
    while (text.ptr[at] != '"')
        at += text.ptr[at] == '\\' ? 2 : 1;
    return at + 1;
}

static size_t scan_json_token(struct json_scan *scan, str text, size_t at)
{
    char c = text.ptr[at++];
    switch (c) {
    case '\n': scan->line++; break;
    case ' ':
    case '\t':
    case '\r':
    case ':': break;
    case ',': scan->is_key_next = scan->is_object[scan->depth]; break;
    case '}':
    case ']':
        scan->depth--;
        scan->is_key_next = false;
        break;
    case '{':
    case '[':
        note_value(scan);
        scan->is_object[++scan->depth] = c == '{';
        scan->is_key_next = c == '{';
        break;
    case '"':
        if (scan->is_key_next)
            scan->key_line = scan->line;
        else
            note_value(scan);
        scan->is_key_next = false;
        return skip_json_string(text, at);
    default:
        note_value(scan);
        while (at < text.len && !strchr(",]} \t\r\n", text.ptr[at]))
            at++;
        break;
    }
    return at;
}

bool yaml_of_json(struct arena *arena, str file, str text, const struct json *root,
                  struct yaml_document *out, struct error *e)
{
    size_t count = json_value_count(root); /* keys too: more than enough */
    if (count > YAML_VALUES_MAX)
        return error_set(e, REASON_TOO_LARGE, STR_FMT ": more than %u values", STR_ARG(file),
                         YAML_VALUES_MAX);
    struct json_scan *scan = ARENA_NEW(arena, struct json_scan);
    scan->line = 1;
    scan->locations = ARENA_ARRAY(arena, struct yaml_location, count);
    for (size_t at = 0; at < text.len;)
        at = scan_json_token(scan, text, at);
    size_t assigned = 0;
    assign_locations(scan->locations, &assigned, root);
    ensure(assigned == scan->count);
    qsort(scan->locations, assigned, sizeof scan->locations[0], compare_locations);
    *out = (struct yaml_document){
        .file = str_copy(arena, file),
        .root = root,
        .locations = scan->locations,
        .location_count = assigned,
    };
    return true;
}

static const struct yaml_location *find_location(const struct yaml_document *document,
                                                 const struct json *value)
{
    struct yaml_location key = {.value = value};
    if (!value || document->location_count == 0)
        return NULL;
    return bsearch(&key, document->locations, document->location_count, sizeof key,
                   compare_locations);
}

int yaml_line(const struct yaml_document *document, const struct json *value)
{
    const struct yaml_location *found = find_location(document, value);
    return found ? found->line : 0;
}

int yaml_key_line(const struct yaml_document *document, const struct json *value)
{
    const struct yaml_location *found = find_location(document, value);
    return found ? found->key_line : 0;
}

bool yaml_error(const struct yaml_document *document, const struct json *value, struct error *e,
                const char *format, ...)
{
    char message[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    int line = yaml_line(document, value);
    if (line == 0)
        return error_set(e, REASON_CONFIG, STR_FMT ": %s", STR_ARG(document->file), message);
    return error_set(e, REASON_CONFIG, STR_FMT ":%d: %s", STR_ARG(document->file), line, message);
}
