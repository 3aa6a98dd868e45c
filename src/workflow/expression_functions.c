/* The functions of expressions.  To add one: a row in the table at the end, and a line in docs/workflows.md. */
#include "base/arena.h"
#include "workflow/expression_internal.h"

#include <math.h>

static bool refuse(struct error *e, const char *wanted, const struct value *found)
{
    return error_set(e, REASON_EXPRESSION, "takes %s, not %s", wanted,
                     value_kind_name(found->kind));
}

static bool need_texts(const struct value *arguments, size_t count, struct error *e)
{
    for (size_t i = 0; i < count; i++) {
        if (arguments[i].kind != VALUE_STRING)
            return refuse(e, "strings", arguments + i);
    }
    return true;
}

/* ---- sizes and types ---- */

static bool is_continuation(char c)
{
    return ((unsigned char) c & 0xc0) == 0x80;
}

static size_t character_count(str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += !is_continuation(text.ptr[i]);
    return count;
}

static bool call_size(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) count;
    switch (arguments->kind) {
    case VALUE_STRING:
        *out = value_of_integer((int64_t) character_count(arguments->text));
        return work_take(work, arguments->text.len / 64, 0, e);
    case VALUE_LIST:
    case VALUE_MAP: *out = value_of_integer((int64_t) json_count(arguments->tree)); return true;
    case VALUE_NONE:
    case VALUE_NULL:
    case VALUE_BOOL:
    case VALUE_INTEGER:
    case VALUE_DOUBLE:
    case VALUE_TIMESTAMP:
    case VALUE_DURATION:
    case VALUE_WIDE: break;
    }
    return refuse(e, "a string, list or map", arguments);
}

static bool call_type(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    (void) count;
    (void) e;
    *out = value_of_text(str_from_cstr(value_kind_name(arguments->kind)));
    return true;
}

/* ---- conversions ---- */

static bool text_to_integer(str text, struct value *out, struct error *e)
{
    int64_t integer;
    if (!str_to_i64(text, &integer))
        return error_set(e, REASON_EXPRESSION, "\"" STR_FMT "\" is no integer of 64 bits",
                         STR_ARG(str_cut_utf8(text, 40)));
    *out = value_of_integer(integer);
    return true;
}

static bool call_int(struct work *work, const struct value *arguments, size_t count,
                     struct value *out, struct error *e)
{
    (void) work;
    (void) count;
    if (arguments->kind == VALUE_INTEGER) {
        *out = *arguments;
        return true;
    }
    if (arguments->kind == VALUE_STRING)
        return text_to_integer(arguments->text, out, e);
    if (arguments->kind == VALUE_TIMESTAMP) {
        int64_t us = arguments->integer, rest = us % 1000000;
        *out = value_of_integer((us - rest) / 1000000 - (rest < 0));
        return true;
    }
    if (arguments->kind != VALUE_DOUBLE)
        return refuse(e, "an int, a double, a string or a timestamp", arguments);
    if (!(arguments->real > -0x1p63 && arguments->real < 0x1p63))
        return error_set(e, REASON_EXPRESSION, "the number does not fit a 64-bit integer");
    *out = value_of_integer((int64_t) arguments->real);
    return true;
}

static bool call_double(struct work *work, const struct value *arguments, size_t count,
                        struct value *out, struct error *e)
{
    (void) work;
    (void) count;
    *out = (struct value){.kind = VALUE_DOUBLE};
    if (arguments->kind == VALUE_DOUBLE)
        *out = *arguments;
    else if (arguments->kind == VALUE_INTEGER)
        out->real = (double) arguments->integer;
    else if (arguments->kind != VALUE_STRING)
        return refuse(e, "an int, a double or a string", arguments);
    else if (!str_to_double(arguments->text, &out->real) || !isfinite(out->real))
        return error_set(e, REASON_EXPRESSION, "\"" STR_FMT "\" is no number",
                         STR_ARG(str_cut_utf8(arguments->text, 40)));
    return true;
}

static bool call_bool(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    (void) count;
    if (arguments->kind == VALUE_BOOL) {
        *out = *arguments;
        return true;
    }
    if (arguments->kind != VALUE_STRING)
        return refuse(e, "a bool or a string", arguments);
    bool is_true = str_equal(arguments->text, S("true"));
    if (!is_true && !str_equal(arguments->text, S("false")))
        return error_set(e, REASON_EXPRESSION, "takes \"true\" or \"false\"");
    *out = value_of_bool(is_true);
    return true;
}

static bool print_value(struct work *work, const struct value *value, str *out, struct error *e)
{
    struct json_builder scalar;
    const struct json *tree = value->tree;
    if (!tree) {
        json_builder_init(&scalar, work->arena, 1);
        value_build(&scalar, value);
        tree = json_build_finish(&scalar);
    }
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, work->arena, EXPRESSION_VALUE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_write_value(&w, tree);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_LIMIT, "a value of more than %u bytes",
                         EXPRESSION_VALUE_BYTES_MAX);
    *out = strbuf_str(&text);
    return work_take(work, json_value_count(tree), out->len, e);
}

bool value_text(struct work *work, const struct value *value, str *out, struct error *e)
{
    bool is_time = value->kind == VALUE_TIMESTAMP || value->kind == VALUE_DURATION;
    if (value->kind != VALUE_STRING && !is_time)
        return print_value(work, value, out, e);
    *out = is_time ? value_time_text(work->arena, value) : value->text;
    return work_take(work, 0, is_time ? out->len : 0, e);
}

/* Whole doubles without their ".0", as in CEL. */
static bool call_string(struct work *work, const struct value *arguments, size_t count,
                        struct value *out, struct error *e)
{
    str text;
    (void) count;
    if (arguments->kind == VALUE_LIST || arguments->kind == VALUE_MAP)
        return refuse(e, "a scalar (to_json() takes all)", arguments);
    if (!value_text(work, arguments, &text, e))
        return false;
    if (arguments->kind == VALUE_DOUBLE && str_ends_with(text, S(".0")))
        text.len -= 2;
    *out = value_of_text(text);
    return true;
}

static bool call_to_json(struct work *work, const struct value *arguments, size_t count,
                         struct value *out, struct error *e)
{
    str text;
    (void) count;
    if (!print_value(work, arguments, &text, e))
        return false;
    *out = value_of_text(text);
    return true;
}

static bool call_from_json(struct work *work, const struct value *arguments, size_t count,
                           struct value *out, struct error *e)
{
    const struct json *tree;
    struct json_limits limits = {
        .bytes_max = EXPRESSION_VALUE_BYTES_MAX,
        .depth_max = EXPRESSION_VALUE_DEPTH_MAX,
    };
    if (!need_texts(arguments, count, e) || !work_take(work, 0, arguments->text.len, e))
        return false;
    if (!json_parse(work->arena, arguments->text, limits, &tree, e)) {
        if (e && e->code == ERROR_INVALID)
            e->reason = REASON_EXPRESSION;
        return false;
    }
    *out = value_of_tree(tree);
    return work_take(work, json_value_count(tree) / 4, 0, e);
}

/* ---- looking into strings ---- */

static bool call_contains(struct work *work, const struct value *arguments, size_t count,
                          struct value *out, struct error *e)
{
    if (!need_texts(arguments, count, e))
        return false;
    *out = value_of_bool(str_find(arguments[0].text, arguments[1].text) != STR_NOT_FOUND);
    return work_take(work, arguments[0].text.len / 64, 0, e);
}

static bool call_starts_with(struct work *work, const struct value *arguments, size_t count,
                             struct value *out, struct error *e)
{
    if (!need_texts(arguments, count, e))
        return false;
    *out = value_of_bool(str_starts_with(arguments[0].text, arguments[1].text));
    return work_take(work, arguments[1].text.len / 64, 0, e);
}

static bool call_ends_with(struct work *work, const struct value *arguments, size_t count,
                           struct value *out, struct error *e)
{
    if (!need_texts(arguments, count, e))
        return false;
    *out = value_of_bool(str_ends_with(arguments[0].text, arguments[1].text));
    return work_take(work, arguments[1].text.len / 64, 0, e);
}

/* In characters; -1: nowhere. */
static bool call_index_of(struct work *work, const struct value *arguments, size_t count,
                          struct value *out, struct error *e)
{
    if (!need_texts(arguments, count, e))
        return false;
    size_t at = str_find(arguments[0].text, arguments[1].text);
    int64_t index = -1;
    if (at != STR_NOT_FOUND)
        index = (int64_t) character_count(str_slice(arguments[0].text, 0, at));
    *out = value_of_integer(index);
    return work_take(work, arguments[0].text.len / 64, 0, e);
}

static bool check_pattern(str source, struct arena *arena, struct error *e)
{
    struct regex regex;
    (void) arena;
    bool is_fine = regex_compile(source, &regex, e);
    regex_free(&regex);
    return is_fine;
}

static bool compile_pattern(struct work *work, str source, struct error *e)
{
    if (work->regex.program && str_equal(work->regex_source, source))
        return true;
    regex_free(&work->regex);
    if (!work_take(work, source.len, 0, e) || !regex_compile(source, &work->regex, e))
        return false;
    work->regex_source = source;
    return work_take(work, regex_compile_steps(&work->regex), 0, e);
}

/* text.matches(pattern): anywhere in it, as RE2 searches. */
static bool call_matches(struct work *work, const struct value *arguments, size_t count,
                         struct value *out, struct error *e)
{
    bool is_match = false;
    if (!need_texts(arguments, count, e) || !compile_pattern(work, arguments[1].text, e) ||
        !work_take(work, regex_match_steps(&work->regex, arguments[0].text), 0, e) ||
        !regex_matches(&work->regex, arguments[0].text, &is_match, e))
        return false;
    *out = value_of_bool(is_match);
    return true;
}

/* ---- making strings ---- */

static bool change_letters(struct work *work, const struct value *argument, char first, char last,
                           struct value *out, struct error *e)
{
    str text = argument->text;
    if (!need_texts(argument, 1, e) || !work_take(work, 0, text.len, e))
        return false;
    char *to = arena_alloc_raw(work->arena, text.len + 1);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        to[i] = c >= first && c <= last ? (char) (c ^ 0x20) : c;
    }
    *out = value_of_text(str_of(to, text.len));
    return true;
}

static bool call_lower(struct work *work, const struct value *arguments, size_t count,
                       struct value *out, struct error *e)
{
    (void) count;
    return change_letters(work, arguments, 'A', 'Z', out, e);
}

static bool call_upper(struct work *work, const struct value *arguments, size_t count,
                       struct value *out, struct error *e)
{
    (void) count;
    return change_letters(work, arguments, 'a', 'z', out, e);
}

static bool call_trim(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    if (!need_texts(arguments, count, e))
        return false;
    *out = value_of_text(str_trim(arguments->text));
    return true;
}

/* The offset of the character of that index; the length when it is one past the last. */
static bool character_offset(str text, const struct value *index, size_t *out, struct error *e)
{
    int64_t left = index->integer;
    if (index->kind != VALUE_INTEGER)
        return refuse(e, "ints after the string", index);
    size_t at = 0;
    while (left > 0 && at < text.len) {
        at++;
        while (at < text.len && is_continuation(text.ptr[at]))
            at++;
        left--;
    }
    if (left != 0)
        return error_set(e, REASON_EXPRESSION, "index %lld of a string of %zu characters",
                         (long long) index->integer, character_count(text));
    *out = at;
    return true;
}

/* text.substring(from), text.substring(from, to): in characters, `to` is not in it. */
static bool call_substring(struct work *work, const struct value *arguments, size_t count,
                           struct value *out, struct error *e)
{
    str text = arguments->text;
    size_t from, to = text.len;
    if (!need_texts(arguments, 1, e) || !work_take(work, text.len / 64, 0, e) ||
        !character_offset(text, arguments + 1, &from, e) ||
        (count == 3 && !character_offset(text, arguments + 2, &to, e)))
        return false;
    if (from > to)
        return error_set(e, REASON_EXPRESSION, "the end lies before the begin");
    *out = value_of_text(str_slice(text, from, to));
    return true;
}

/* text.replace(old, new), text.replace(old, new, at most so many).  An empty `old` changes nothing. */
static bool call_replace(struct work *work, const struct value *arguments, size_t count,
                         struct value *out, struct error *e)
{
    int64_t left = INT64_MAX;
    struct strbuf text;
    if (!need_texts(arguments, 3, e))
        return false;
    if (count == 4 && arguments[3].kind != VALUE_INTEGER)
        return refuse(e, "an int as the greatest number of changes", arguments + 3);
    if (count == 4 && arguments[3].integer >= 0)
        left = arguments[3].integer;
    str rest = arguments[0].text, old = arguments[1].text;
    strbuf_init(&text, work->arena, EXPRESSION_VALUE_BYTES_MAX);
    while (old.len > 0 && left-- > 0) {
        size_t at = str_find(rest, old);
        if (at == STR_NOT_FOUND)
            break;
        strbuf_add(&text, str_slice(rest, 0, at));
        strbuf_add(&text, arguments[2].text);
        rest = str_from(rest, at + old.len);
        if (!work_take(work, 1, at + arguments[2].text.len, e))
            return false;
    }
    strbuf_add(&text, rest);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_LIMIT, "a value of more than %u bytes",
                         EXPRESSION_VALUE_BYTES_MAX);
    *out = value_of_text(strbuf_str(&text));
    return work_take(work, 0, rest.len, e);
}

/* ---- strings and lists ---- */

/* The end of the first character, for splitting at nothing. */
static size_t first_character(str text)
{
    size_t at = text.len > 0;
    while (at < text.len && is_continuation(text.ptr[at]))
        at++;
    return at;
}

/* text.split(separator), text.split(separator, at most so many pieces); at "" it gives the characters. */
static bool call_split(struct work *work, const struct value *arguments, size_t count,
                       struct value *out, struct error *e)
{
    int64_t left = INT64_MAX;
    if (!need_texts(arguments, 2, e))
        return false;
    if (count == 3 && arguments[2].kind != VALUE_INTEGER)
        return refuse(e, "an int as the greatest number of pieces", arguments + 2);
    if (count == 3 && arguments[2].integer >= 0)
        left = arguments[2].integer;
    str rest = arguments[0].text, separator = arguments[1].text;
    struct json_builder list;
    json_builder_init(&list, work->arena, EXPRESSION_VALUES_MAX);
    json_build_array_begin(&list);
    bool is_more = left > 0 && (separator.len > 0 || rest.len > 0);
    while (is_more) {
        size_t at = separator.len > 0 ? str_find(rest, separator) : first_character(rest);
        is_more = --left > 0 && at != STR_NOT_FOUND && (separator.len > 0 || at < rest.len);
        json_build_str(&list, is_more ? str_slice(rest, 0, at) : rest);
        if (!work_take(work, 1, 16 + (is_more ? at : rest.len) / 64, e))
            return false;
        rest = is_more ? str_from(rest, at + separator.len) : rest;
    }
    json_build_array_end(&list);
    const struct json *tree;
    if (!work_finish(work, &list, &tree, e))
        return false;
    *out = value_of_tree(tree);
    return true;
}

/* list.join(), list.join(separator): of strings. */
static bool call_join(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    struct json_iter it = json_iter(arguments->tree);
    const struct json *item;
    struct strbuf text;
    if (arguments->kind != VALUE_LIST)
        return refuse(e, "a list of strings", arguments);
    if (count == 2 && !need_texts(arguments + 1, 1, e))
        return false;
    str separator = count == 2 ? arguments[1].text : STR_NONE;
    strbuf_init(&text, work->arena, EXPRESSION_VALUE_BYTES_MAX);
    while (json_next(&it, NULL, &item)) {
        struct value piece = value_of_tree(item);
        if (piece.kind != VALUE_STRING)
            return refuse(e, "a list of strings", &piece);
        if (!work_take(work, 1, separator.len + piece.text.len, e))
            return false;
        strbuf_add(&text, it.index > 1 ? separator : STR_NONE);
        strbuf_add(&text, piece.text);
    }
    if (strbuf_is_over(&text))
        return error_set(e, REASON_LIMIT, "a value of more than %u bytes",
                         EXPRESSION_VALUE_BYTES_MAX);
    *out = value_of_text(strbuf_str(&text));
    return true;
}

/* range(n): [0, ..., n - 1]; range(from, to). */
static bool call_range(struct work *work, const struct value *arguments, size_t count,
                       struct value *out, struct error *e)
{
    struct json_builder list;
    const struct json *tree;
    for (size_t i = 0; i < count; i++) {
        if (arguments[i].kind != VALUE_INTEGER)
            return refuse(e, "ints", arguments + i);
    }
    int64_t from = count == 2 ? arguments[0].integer : 0, to = arguments[count - 1].integer;
    json_builder_init(&list, work->arena, EXPRESSION_VALUES_MAX);
    json_build_array_begin(&list);
    for (int64_t i = from; i < to; i++) {
        if (!work_take(work, 1, 16, e))
            return false;
        json_build_i64(&list, i);
    }
    json_build_array_end(&list);
    if (!work_finish(work, &list, &tree, e))
        return false;
    *out = value_of_tree(tree);
    return true;
}

/* The lists in a list, put after one another. */
static bool call_flatten(struct work *work, const struct value *arguments, size_t count,
                         struct value *out, struct error *e)
{
    struct json_builder list;
    const struct json *tree, *item, *inner;
    (void) count;
    if (arguments->kind != VALUE_LIST)
        return refuse(e, "a list", arguments);
    if (!work_take(work, 0, json_value_count(arguments->tree) * 16, e))
        return false;
    json_builder_init(&list, work->arena, EXPRESSION_VALUES_MAX);
    json_build_array_begin(&list);
    for (struct json_iter it = json_iter(arguments->tree); json_next(&it, NULL, &item);) {
        struct json_iter those = json_iter(item);
        if (json_type(item) != JSON_ARRAY)
            json_build_value(&list, item);
        while (json_type(item) == JSON_ARRAY && json_next(&those, NULL, &inner))
            json_build_value(&list, inner);
    }
    json_build_array_end(&list);
    if (!work_finish(work, &list, &tree, e))
        return false;
    *out = value_of_tree(tree);
    return true;
}

/* Ends the step with this message. */
static bool call_fail(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    (void) out;
    return need_texts(arguments, count, e) &&
           error_set(e, REASON_EXPRESSION, STR_FMT, STR_ARG(str_cut_utf8(arguments->text, 300)));
}

const struct function expression_functions[] = {
    {"size", 1, 1, true, true, call_size, NULL},
    {"type", 1, 1, false, true, call_type, NULL},
    {"int", 1, 1, false, true, call_int, NULL},
    {"double", 1, 1, false, true, call_double, NULL},
    {"bool", 1, 1, false, true, call_bool, NULL},
    {"string", 1, 1, false, true, call_string, NULL},
    {"to_json", 1, 1, false, true, call_to_json, NULL},
    {"from_json", 1, 1, false, true, call_from_json, NULL},
    {"contains", 2, 2, true, false, call_contains, NULL},
    {"startsWith", 2, 2, true, false, call_starts_with, NULL},
    {"endsWith", 2, 2, true, false, call_ends_with, NULL},
    {"indexOf", 2, 2, true, false, call_index_of, NULL},
    {"matches", 2, 2, true, true, call_matches, check_pattern},
    {"lowerAscii", 1, 1, true, false, call_lower, NULL},
    {"upperAscii", 1, 1, true, false, call_upper, NULL},
    {"trim", 1, 1, true, false, call_trim, NULL},
    {"substring", 2, 3, true, false, call_substring, NULL},
    {"replace", 3, 4, true, false, call_replace, NULL},
    {"split", 2, 3, true, false, call_split, NULL},
    {"join", 1, 2, true, false, call_join, NULL},
    {"fail", 1, 1, false, true, call_fail, NULL},
    {"range", 1, 2, false, true, call_range, NULL},
    {"flatten", 1, 1, true, false, call_flatten, NULL},
    {"timestamp", 1, 1, false, true, call_timestamp, expression_check_time},
    {"duration", 1, 1, false, true, call_duration, expression_check_duration},
    {"getFullYear", 1, 2, true, false, call_get_full_year, NULL},
    {"getMonth", 1, 2, true, false, call_get_month, NULL},
    {"getDate", 1, 2, true, false, call_get_date, NULL},
    {"getDayOfMonth", 1, 2, true, false, call_get_day_of_month, NULL},
    {"getDayOfWeek", 1, 2, true, false, call_get_day_of_week, NULL},
    {"getDayOfYear", 1, 2, true, false, call_get_day_of_year, NULL},
    {"getHours", 1, 2, true, false, call_get_hours, NULL},
    {"getMinutes", 1, 2, true, false, call_get_minutes, NULL},
    {"getSeconds", 1, 2, true, false, call_get_seconds, NULL},
    {"getMilliseconds", 1, 2, true, false, call_get_milliseconds, NULL},
};
const size_t expression_function_count = ARRAY_COUNT(expression_functions);
