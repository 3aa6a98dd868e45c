#include "base/arena.h"
#include "base/nearest.h"
#include "base/timefmt.h"
#include "workflow/definition_internal.h"

#include <stdio.h>

/* ---- problems ---- */

void definition_problem(struct definition_reader *r, const struct json *value, const char *format,
                        ...)
{
    struct definition_problems *problems = r->problems;
    if (problems->count == WORKFLOW_PROBLEMS_MAX)
        return;
    char message[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    str text = str_from_cstr(message);
    problems->items[problems->count++] = (struct definition_problem){
        .line = (uint32_t) yaml_key_line(&r->document, value),
        .path = str_copy(r->problems_arena, strbuf_str(&r->path)),
        .message = str_copy(r->problems_arena, str_cut_utf8(text, text.len)),
    };
}

size_t path_enter(struct definition_reader *r, str name)
{
    size_t mark = r->path.len;
    if (mark > 0)
        strbuf_add_char(&r->path, '.');
    strbuf_add(&r->path, str_cut_utf8(name, 80));
    return mark;
}

size_t path_enter_index(struct definition_reader *r, size_t index)
{
    size_t mark = r->path.len;
    strbuf_printf(&r->path, "[%zu]", index);
    return mark;
}

void path_leave(struct definition_reader *r, size_t mark)
{
    strbuf_truncate(&r->path, mark);
}

/* ---- names ---- */

enum { NAME_BYTES_MAX = 64 };

/* For "did you mean"; empty: none is near. */
static str nearest_of(str name, struct member_names names)
{
    struct nearest nearest = nearest_to(name);
    for (size_t i = 0; i < names.count; i++)
        nearest_try(&nearest, str_from_cstr(names.names[i]));
    return nearest.name;
}

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_identifier(str text)
{
    if (text.len == 0 || text.len > NAME_BYTES_MAX || (text.ptr[0] >= '0' && text.ptr[0] <= '9'))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_word_char(text.ptr[i]))
            return false;
    }
    return true;
}

bool is_name(str text)
{
    if (text.len == 0 || text.len > NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!is_word_char(c) && (i == 0 || (c != '-' && c != '.')))
            return false;
    }
    return true;
}

/* ---- objects ---- */

static void unknown_member(struct definition_reader *r, const struct json *value, str name,
                           struct member_names names)
{
    str nearest = nearest_of(name, names);
    if (!str_is_empty(nearest)) {
        definition_problem(r, value,
                           "there is no member \"" STR_FMT "\"; did you mean \"" STR_FMT "\"?",
                           STR_ARG(str_cut_utf8(name, 60)), STR_ARG(nearest));
        return;
    }
    struct strbuf list;
    strbuf_init(&list, r->problems_arena, 300);
    for (size_t i = 0; i < names.count; i++)
        strbuf_printf(&list, "%s%s", i ? ", " : "", names.names[i]);
    definition_problem(r, value, "there is no member \"" STR_FMT "\" here; there are " STR_FMT,
                       STR_ARG(str_cut_utf8(name, 60)), STR_ARG(strbuf_str(&list)));
}

bool read_object(struct definition_reader *r, const struct json *value, struct member_names names)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    str name;
    if (json_type(value) != JSON_OBJECT) {
        definition_problem(r, value, "must be a mapping with members such as \"%s\", not %s",
                           names.names[0], json_type_name(json_type(value)));
        return false;
    }
    while (json_next(&it, &name, &item)) {
        bool is_known = false;
        for (size_t i = 0; i < names.count; i++)
            is_known |= str_equal(name, str_from_cstr(names.names[i]));
        if (is_known)
            continue;
        size_t mark = path_enter(r, name);
        unknown_member(r, item, name, names);
        path_leave(r, mark);
    }
    return true;
}

const struct json *member_of(const struct json *object, const char *name)
{
    const struct json *member = json_get(object, str_from_cstr(name));
    return json_type(member) == JSON_NULL ? NULL : member;
}

/* ---- scalars ---- */

void read_text(struct definition_reader *r, const struct json *object, const char *name, str *out)
{
    const struct json *value = member_of(object, name);
    size_t mark = path_enter(r, str_from_cstr(name));
    if (value && !json_to_str(value, out))
        definition_problem(r, value, "must be a text, not %s; put it in quotes",
                           json_type_name(json_type(value)));
    path_leave(r, mark);
}

void member_missing(struct definition_reader *r, const struct json *object, const char *name)
{
    size_t mark = path_enter(r, str_from_cstr(name));
    definition_problem(r, object, "is missing; add \"%s\"", name);
    path_leave(r, mark);
}

void need_text(struct definition_reader *r, const struct json *object, const char *name, str *out)
{
    if (!member_of(object, name))
        member_missing(r, object, name);
    read_text(r, object, name, out);
}

void need_name(struct definition_reader *r, const struct json *object, const char *name, str *out)
{
    size_t mark;
    *out = STR_NONE;
    need_text(r, object, name, out);
    if (!out->ptr || is_name(*out))
        return;
    mark = path_enter(r, str_from_cstr(name));
    definition_problem(r, member_of(object, name),
                       "is no name: letters, digits, _ and (not first) - and ., at most %d",
                       NAME_BYTES_MAX);
    path_leave(r, mark);
}

void read_count(struct definition_reader *r, const struct json *object, const char *name,
                int64_t min, int64_t max, int64_t *out)
{
    const struct json *value = member_of(object, name);
    int64_t number;
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (json_type(value) != JSON_INTEGER || !json_to_i64(value, &number) || number < min ||
        number > max)
        definition_problem(r, value, "must be a whole number from %lld to %lld", (long long) min,
                           (long long) max);
    else
        *out = number;
    path_leave(r, mark);
}

void read_number(struct definition_reader *r, const struct json *object, const char *name,
                 double min, double max, double *out)
{
    const struct json *value = member_of(object, name);
    double number;
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (!json_to_double(value, &number) || !(number >= min && number <= max))
        definition_problem(r, value, "must be a number from %g to %g", min, max);
    else
        *out = number;
    path_leave(r, mark);
}

bool duration_at(struct definition_reader *r, const struct json *value, str text, int64_t min_ms,
                 int64_t *out_ms)
{
    int64_t ms;
    if (!duration_parse(text, &ms)) {
        definition_problem(r, value, "is no duration; write one such as 500ms, 30s, 5m, 1h or 7d");
        return false;
    }
    if (ms < min_ms || ms > WORKFLOW_DURATION_MAX_MS) {
        definition_problem(r, value, "must lie between %lldms and %lldd", (long long) min_ms,
                           (long long) (WORKFLOW_DURATION_MAX_MS / 86400000));
        return false;
    }
    *out_ms = ms;
    return true;
}

void read_duration(struct definition_reader *r, const struct json *object, const char *name,
                   int64_t min_ms, int64_t *out_ms)
{
    const struct json *value = member_of(object, name);
    str text;
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (!json_to_str(value, &text))
        definition_problem(r, value, "needs a unit: write a duration such as 30s, 5m or 1h");
    else
        (void) duration_at(r, value, text, min_ms, out_ms);
    path_leave(r, mark);
}

void read_budget(struct definition_reader *r, const struct json *object, const char *name,
                 cost *out)
{
    const struct json *budget = member_of(object, name);
    const int64_t most = INT64_MAX / 1000 - 1;
    int64_t seconds = -1;
    str money;
    *out = COST_LIMITLESS;
    if (!budget)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (read_object(r, budget, MEMBERS("tokens", "time_seconds", "cost_usd", "tool_calls"))) {
        read_count(r, budget, "tokens", 0, most, &out->tokens);
        read_count(r, budget, "tool_calls", 0, most, &out->tool_calls);
        read_count(r, budget, "time_seconds", 0, most, &seconds);
        const struct json *usd = member_of(budget, "cost_usd");
        size_t inner = path_enter(r, S("cost_usd"));
        if (usd && !json_to_str(usd, &money))
            money = json_print(r->arena, usd);
        if (usd && !money_parse_usd(money, &out->cost_nanousd))
            definition_problem(r, usd,
                               "must be an amount such as \"2.50\", with at most 9 digits "
                               "after the point");
        path_leave(r, inner);
    }
    if (seconds >= 0)
        out->time_ms = seconds * 1000;
    path_leave(r, mark);
}

void read_json_text(struct definition_reader *r, const struct json *object, const char *name,
                    str *out)
{
    const struct json *value = member_of(object, name);
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (json_type(value) != JSON_OBJECT)
        definition_problem(r, value, "must be a mapping, not %s", json_type_name(json_type(value)));
    else
        *out = json_print(r->arena, value);
    path_leave(r, mark);
}

/* ---- what expressions read ---- */

struct reads {
    struct definition_reader *r;
    const struct json *value;
};

static bool is_among(const str *ids, size_t count, str id)
{
    for (size_t i = 0; i < count; i++) {
        if (str_equal(ids[i], id))
            return true;
    }
    return false;
}

/* In the innermost list that has a near one. */
static str nearest_step(const struct definition_reader *r, str id)
{
    struct nearest nearest = nearest_to(id);
    for (const struct place *place = r->place; place && str_is_empty(nearest.name);
         place = place->outer)
        for (size_t i = 0; i < place->id_count; i++)
            nearest_try(&nearest, place->ids[i]);
    return nearest.name;
}

static void check_step(void *owner, str id)
{
    const struct reads *reads = owner;
    struct definition_reader *r = reads->r;
    bool is_later = false;
    for (const struct place *place = r->place; place; place = place->outer) {
        if (is_among(place->ids, place->id_count, id))
            return;
        is_later |= is_among(place->later, place->later_count, id);
    }
    str shown = str_cut_utf8(id, 60);
    str nearest = is_later ? STR_NONE : nearest_step(r, id);
    if (is_later)
        definition_problem(r, reads->value,
                           "reads steps." STR_FMT
                           ", which does not stand before it; move that step up",
                           STR_ARG(shown));
    else if (!str_is_empty(nearest))
        definition_problem(r, reads->value,
                           "reads steps." STR_FMT
                           "; no such step stands before it in this list or one "
                           "around it; did you mean steps." STR_FMT "?",
                           STR_ARG(shown), STR_ARG(nearest));
    else
        definition_problem(r, reads->value,
                           "reads steps." STR_FMT
                           "; no such step stands before it in this list or one "
                           "around it",
                           STR_ARG(shown));
}

static void check_variable(void *owner, str name)
{
    static const char *const always[] = {"input", "steps", "run",  "session",
                                         "item",  "index", "loop", "error"};
    const struct reads *reads = owner;
    bool is_map = false, is_loop = false, has_error = false, has_output = false;
    for (const struct place *place = reads->r->place; place; place = place->outer) {
        if (place->item.len > 0 && str_equal(place->item, name))
            return;
        is_map |= place->item.len > 0;
        is_loop |= place->is_loop;
        has_error |= place->has_error;
        has_output |= place->has_output;
    }
    if (str_equal(name, S("input")) || str_equal(name, S("steps")) || str_equal(name, S("run")) ||
        str_equal(name, S("session")) || (is_map && str_equal(name, S("index"))) ||
        (is_loop && str_equal(name, S("loop"))) || (has_error && str_equal(name, S("error"))) ||
        (has_output && str_equal(name, S("output"))))
        return;
    str shown = str_cut_utf8(name, 60);
    const char *where = str_equal(name, S("loop"))     ? "only inside a loop"
                        : str_equal(name, S("error"))  ? "only inside a compensation"
                        : str_equal(name, S("output")) ? "only in `expect`"
                        : str_equal(name, S("item")) || str_equal(name, S("index"))
                            ? "only inside a map"
                            : NULL;
    str nearest =
        where ? STR_NONE : nearest_of(name, (struct member_names){always, ARRAY_COUNT(always)});
    bool has_near = !str_is_empty(nearest);
    if (where)
        definition_problem(reads->r, reads->value, "\"" STR_FMT "\" is known %s", STR_ARG(shown),
                           where);
    else
        definition_problem(reads->r, reads->value,
                           "there is no variable \"" STR_FMT "\"%s" STR_FMT "%s", STR_ARG(shown),
                           has_near ? "; did you mean \"" : "; there are input, steps, run",
                           STR_ARG(nearest), has_near ? "\"?" : "");
}

static never_inline bool check_text(struct definition_reader *r, const struct json *value)
{
    struct template *tree = NULL;
    struct error e = {0};
    if (!template_parse(r->arena, value, &tree, &e)) {
        definition_problem(r, value, "%s", e.message);
        return false;
    }
    struct reads reads = {r, value};
    template_each_step(tree, check_step, &reads);
    template_each_variable(tree, check_variable, &reads);
    return true;
}

/* Each text by itself, so that every problem is found and has the line of its text.  As deep as the document: a small frame. */
static bool check_texts(struct definition_reader *r, const struct json *value)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    bool ok = true;
    str key;
    if (json_type(value) == JSON_STRING)
        return check_text(r, value);
    while (json_next(&it, &key, &item)) {
        size_t mark = json_type(value) == JSON_OBJECT ? path_enter(r, key)
                                                      : path_enter_index(r, it.index - 1);
        ok &= check_texts(r, item);
        path_leave(r, mark);
    }
    return ok;
}

void read_template(struct definition_reader *r, const struct json *object, const char *name,
                   const struct template **out)
{
    const struct json *value = json_get(object, str_from_cstr(name));
    struct template *tree = NULL;
    struct error e = {0};
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (check_texts(r, value)) {
        if (template_parse(r->arena, value, &tree, &e))
            *out = tree;
        else
            definition_problem(r, value, "%s", e.message);
    }
    path_leave(r, mark);
}

/* What stands inside ${...} when that is all; else the text as it is. */
static str without_braces(str text)
{
    text = str_trim(text);
    if (str_starts_with(text, S("${")) && str_ends_with(text, S("}")))
        return str_slice(text, 2, text.len - 1);
    return text;
}

void parse_expression_at(struct definition_reader *r, const struct json *value, str text,
                         const struct expression **out)
{
    struct expression *expression = NULL;
    struct error e = {0};
    if (!expression_parse(r->arena, without_braces(text), &expression, &e)) {
        definition_problem(r, value, "%s", e.message);
        return;
    }
    struct reads reads = {r, value};
    expression_each_step(expression, check_step, &reads);
    expression_each_variable(expression, check_variable, &reads);
    *out = expression;
}

void read_expression(struct definition_reader *r, const struct json *object, const char *name,
                     const struct expression **out)
{
    const struct json *value = member_of(object, name);
    str text;
    if (!value)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    if (!json_to_str(value, &text))
        definition_problem(r, value, "must be an expression in quotes, not %s",
                           json_type_name(json_type(value)));
    else
        parse_expression_at(r, value, text, out);
    path_leave(r, mark);
}

/* ---- retry ---- */

static void read_problem_names(struct definition_reader *r, const struct json *retry,
                               const char *name, const str **out, size_t *out_count)
{
    const struct json *list = member_of(retry, name), *item;
    struct json_iter it = json_iter(list);
    enum error_reason reason;
    if (!list)
        return;
    size_t mark = path_enter(r, str_from_cstr(name));
    str *names = ARENA_ARRAY(r->arena, str, json_count(list) + 1);
    if (json_type(list) != JSON_ARRAY)
        definition_problem(r, list, "must be a list of errors' names, as in [schema, timeout]");
    while (json_type(list) == JSON_ARRAY && json_next(&it, NULL, &item)) {
        size_t inner = path_enter_index(r, it.index - 1);
        if (!json_to_str(item, &names[*out_count]) ||
            !error_reason_find(names[*out_count], &reason))
            definition_problem(r, item, "names no kind of error; docs/workflows.md lists them");
        else
            ++*out_count;
        path_leave(r, inner);
    }
    *out = names;
    path_leave(r, mark);
}

void read_retry(struct definition_reader *r, const struct json *step, struct retry *out)
{
    const struct json *retry = member_of(step, "retry");
    int64_t attempts = 1;
    *out = (struct retry){.attempts = 1};
    if (!retry)
        return;
    *out = (struct retry){
        .attempts = 1, .backoff_ms = 1000, .backoff_max_ms = 60000, .factor = 2, .jitter = 0.2};
    size_t mark = path_enter(r, S("retry"));
    if (read_object(
            r, retry,
            MEMBERS("attempts", "backoff", "factor", "max_backoff", "jitter", "except", "only"))) {
        if (!member_of(retry, "attempts"))
            member_missing(r, retry, "attempts");
        read_count(r, retry, "attempts", 1, WORKFLOW_RETRIES_MAX, &attempts);
        read_duration(r, retry, "backoff", 0, &out->backoff_ms);
        read_duration(r, retry, "max_backoff", 0, &out->backoff_max_ms);
        read_number(r, retry, "factor", 1, 10, &out->factor);
        read_number(r, retry, "jitter", 0, 1, &out->jitter);
        read_problem_names(r, retry, "except", &out->except, &out->except_count);
        read_problem_names(r, retry, "only", &out->only, &out->only_count);
        if (out->backoff_max_ms < out->backoff_ms) {
            if (member_of(retry, "max_backoff"))
                definition_problem(r, retry, "max_backoff is less than backoff");
            out->backoff_max_ms = out->backoff_ms;
        }
    }
    out->attempts = (int) attempts;
    path_leave(r, mark);
}
