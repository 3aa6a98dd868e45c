#include "cli/tool/tool_cases.h"

#include "base/arena.h"
#include "base/limits.h"

struct reader {
    struct arena *arena;
    const struct yaml_document *document;
    struct error *e;
};

/* ---- tests.yaml ---- */

/* A member that is a text of its own, or absent. */
static bool read_text(struct reader *r, const struct json *object, str name, str *out)
{
    const struct json *value = json_get(object, name);
    return !value || json_to_str(value, out) ||
           yaml_error(r->document, value, r->e, STR_FMT " must be a text", STR_ARG(name));
}

static bool check_members(struct reader *r, const struct json *object, const char *what,
                          const char *const *known)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(object);
    if (json_type(object) != JSON_OBJECT)
        return yaml_error(r->document, object, r->e, "%s must have members", what);
    while (json_next(&it, &key, &item)) {
        size_t i = 0;
        struct strbuf names;
        strbuf_init(&names, r->arena, 512);
        for (; known[i] && !str_equal(str_from_cstr(known[i]), key); i++)
            strbuf_printf(&names, "%s%s", i ? ", " : "", known[i]);
        if (!known[i])
            return yaml_error(r->document, item, r->e,
                              "%s has no member " STR_FMT "; known: " STR_FMT, what,
                              STR_ARG(str_cut_utf8(key, 60)), STR_ARG(strbuf_str(&names)));
    }
    return true;
}

/* What a guest reads as `code` when a host call fails (agent/executor.h). */
static bool read_code(struct reader *r, const struct json *object, enum error_reason *out)
{
    static const struct {
        str code;
        enum error_reason reason;
    } codes[] = {
        {S_INIT("invalid_input"), REASON_SCHEMA}, {S_INIT("denied"), REASON_PERMISSION},
        {S_INIT("not_found"), REASON_NOT_FOUND},  {S_INIT("limit"), REASON_LIMIT},
        {S_INIT("timeout"), REASON_TIMEOUT},      {S_INIT("unavailable"), REASON_UNAVAILABLE},
    };
    str code = S("unavailable");
    if (!read_text(r, object, S("code"), &code))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(codes); i++)
        if (str_equal(codes[i].code, code)) {
            *out = codes[i].reason;
            return true;
        }
    return yaml_error(r->document, object, r->e,
                      "code must be invalid_input, denied, not_found, limit, timeout or "
                      "unavailable");
}

static bool read_call(struct reader *r, const struct json *value, struct tool_case_call *out)
{
    static const char *const known[] = {"call", "request", "answer", "error", NULL};
    static const char *const of_error[] = {"code", "message", NULL};
    const struct json *failure = json_get(value, S("error"));
    *out = (struct tool_case_call){.message = S("the host call failed")};
    if (!check_members(r, value, "a host call", known) ||
        !read_text(r, value, S("call"), &out->name))
        return false;
    out->request = json_get(value, S("request"));
    out->answer = json_get(value, S("answer"));
    if (str_is_empty(out->name))
        return yaml_error(r->document, value, r->e, "a host call needs `call`, its name");
    if ((out->answer != NULL) == (failure != NULL))
        return yaml_error(r->document, value, r->e, "a host call has either `answer` or `error`");
    return !failure ||
           (check_members(r, failure, "error", of_error) && read_code(r, failure, &out->reason) &&
            read_text(r, failure, S("message"), &out->message));
}

static bool read_calls(struct reader *r, const struct json *value, struct tool_case *out)
{
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (!value)
        return true;
    if (json_type(value) != JSON_ARRAY || json_count(value) > TOOL_TEST_CALLS_MAX)
        return yaml_error(r->document, value, r->e, "host must be a list of at most %u calls",
                          TOOL_TEST_CALLS_MAX);
    out->calls = ARENA_ARRAY(r->arena, struct tool_case_call, json_count(value) + 1);
    while (json_next(&it, NULL, &item))
        if (!read_call(r, item, &out->calls[out->call_count++]))
            return false;
    return true;
}

static bool read_files(struct reader *r, const struct json *value, struct tool_case *out)
{
    str name;
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (!value)
        return true;
    if (json_type(value) != JSON_OBJECT || json_count(value) > TOOL_TEST_CALLS_MAX)
        return yaml_error(r->document, value, r->e, "files must be at most %u members NAME: text",
                          TOOL_TEST_CALLS_MAX);
    out->files = ARENA_ARRAY(r->arena, struct tool_case_file, json_count(value) + 1);
    while (json_next(&it, &name, &item)) {
        struct tool_case_file *file = &out->files[out->file_count++];
        file->name = name;
        if (!json_to_str(item, &file->text))
            return yaml_error(r->document, item, r->e, "file " STR_FMT " must be a text",
                              STR_ARG(str_cut_utf8(name, 60)));
    }
    return true;
}

static bool read_expectation(struct reader *r, const struct json *value, struct tool_case *out)
{
    static const char *const of_error[] = {"reason", "message", NULL};
    const struct json *failure = json_get(value, S("error"));
    enum error_reason known;
    out->output = json_get(value, S("output"));
    out->contains = json_get(value, S("contains"));
    out->is_failure = failure != NULL;
    if ((out->output != NULL) + (out->contains != NULL) + out->is_failure > 1)
        return yaml_error(r->document, value, r->e,
                          "a test has one of `output`, `contains`, `error`");
    if (!failure)
        return true;
    if (!check_members(r, failure, "error", of_error) ||
        !read_text(r, failure, S("reason"), &out->reason) ||
        !read_text(r, failure, S("message"), &out->message))
        return false;
    return str_is_empty(out->reason) || error_reason_find(out->reason, &known) ||
           yaml_error(r->document, failure, r->e,
                      "there is no reason " STR_FMT "; such as schema, tool_failed, fuel_limit, "
                      "time_limit, memory_limit, output_limit, trap, permission",
                      STR_ARG(str_cut_utf8(out->reason, 60)));
}

static bool read_case(struct reader *r, const struct json *value, struct tool_case *out)
{
    static const char *const known[] = {"name",  "input", "output", "contains", "error",
                                        "files", "host",  "log",    NULL};
    const struct json *input = json_get(value, S("input"));
    if (!check_members(r, value, "a test", known) || !read_text(r, value, S("name"), &out->name) ||
        !read_text(r, value, S("log"), &out->log))
        return false;
    if (str_is_empty(out->name))
        return yaml_error(r->document, value, r->e, "a test needs a name");
    if (json_type(input) != JSON_OBJECT)
        return yaml_error(r->document, input ? input : value, r->e,
                          "test \"" STR_FMT "\" needs `input`, an object",
                          STR_ARG(str_cut_utf8(out->name, 60)));
    out->input = json_print(r->arena, input);
    return read_expectation(r, value, out) && read_calls(r, json_get(value, S("host")), out) &&
           read_files(r, json_get(value, S("files")), out);
}

bool tool_cases_read(struct arena *arena, str file, str text, struct tool_cases *out,
                     struct error *e)
{
    static const char *const known[] = {"tests", NULL};
    struct yaml_document document;
    struct reader r = {.arena = arena, .document = &document, .e = e};
    if (text.len > TOOL_TESTS_BYTES_MAX)
        return error_set(e, REASON_CONFIG, STR_FMT ":1: tests are at most %u MiB", STR_ARG(file),
                         TOOL_TESTS_BYTES_MAX >> 20);
    if (!yaml_parse(arena, file, text, &document, e) ||
        !check_members(&r, document.root, "the file", known))
        return false;
    const struct json *tests = json_get(document.root, S("tests")), *item;
    if (json_type(tests) != JSON_ARRAY || json_count(tests) > TOOL_TESTS_MAX)
        return yaml_error(&document, tests ? tests : document.root, e,
                          "tests must be a list of at most %u tests", TOOL_TESTS_MAX);
    *out =
        (struct tool_cases){.items = ARENA_ARRAY(arena, struct tool_case, json_count(tests) + 1)};
    struct json_iter it = json_iter(tests);
    while (json_next(&it, NULL, &item))
        if (!read_case(&r, item, &out->items[out->count++]))
            return false;
    return true;
}

/* ---- differences ---- */

struct difference {
    struct arena *arena;
    str *lines;
    size_t count;
    bool is_part;
};

static str shown(struct arena *arena, const struct json *value)
{
    enum { SHOWN_BYTES = 160 };
    str text = json_print(arena, value), cut = str_cut_utf8(text, SHOWN_BYTES);
    return cut.len == text.len ? text : str_printf(arena, STR_FMT "...", STR_ARG(cut));
}

static void tell(struct difference *d, str path, const struct json *wanted,
                 const struct json *found)
{
    str name = str_is_empty(path) ? S("the output") : path;
    if (d->count == TOOL_TEST_DIFFERENCES_MAX)
        return;
    str *line = &d->lines[d->count++];
    if (!found)
        *line = str_printf(d->arena, STR_FMT ": expected " STR_FMT ", and it is not there",
                           STR_ARG(name), STR_ARG(shown(d->arena, wanted)));
    else if (!wanted)
        *line = str_printf(d->arena, STR_FMT ": not expected, got " STR_FMT, STR_ARG(name),
                           STR_ARG(shown(d->arena, found)));
    else
        *line = str_printf(d->arena, STR_FMT ": expected " STR_FMT ", got " STR_FMT, STR_ARG(name),
                           STR_ARG(shown(d->arena, wanted)), STR_ARG(shown(d->arena, found)));
}

static bool is_number(const struct json *value)
{
    return json_type(value) == JSON_INTEGER || json_type(value) == JSON_REAL;
}

static bool is_same_scalar(struct arena *arena, const struct json *a, const struct json *b)
{
    double x, y;
    if (is_number(a) && is_number(b) && (json_type(a) == JSON_REAL || json_type(b) == JSON_REAL))
        return json_to_double(a, &x) && json_to_double(b, &y) && !(x < y) && !(x > y);
    return json_type(a) == json_type(b) &&
           str_equal(json_canonical(arena, a), json_canonical(arena, b));
}

static void compare(struct difference *d, str path, const struct json *wanted,
                    const struct json *found);

static void compare_members(struct difference *d, str path, const struct json *wanted,
                            const struct json *found)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(wanted);
    while (json_next(&it, &key, &item))
        compare(d, str_printf(d->arena, STR_FMT "/" STR_FMT, STR_ARG(path), STR_ARG(key)), item,
                json_get(found, key));
    it = json_iter(found);
    while (!d->is_part && json_next(&it, &key, &item))
        if (!json_get(wanted, key))
            tell(d, str_printf(d->arena, STR_FMT "/" STR_FMT, STR_ARG(path), STR_ARG(key)), NULL,
                 item);
}

/* Both lists are walked at once: json_at is O(index). */
static void compare_items(struct difference *d, str path, const struct json *wanted,
                          const struct json *found)
{
    struct json_iter w = json_iter(wanted), f = json_iter(found);
    for (size_t i = 0; d->count < TOOL_TEST_DIFFERENCES_MAX; i++) {
        const struct json *a = NULL, *b = NULL;
        bool has_a = json_next(&w, NULL, &a), has_b = json_next(&f, NULL, &b);
        if (!has_a && !has_b)
            return;
        str place = str_printf(d->arena, STR_FMT "/%zu", STR_ARG(path), i);
        if (has_a && has_b)
            compare(d, place, a, b);
        else
            tell(d, place, has_a ? a : NULL, has_b ? b : NULL);
    }
}

static void compare(struct difference *d, str path, const struct json *wanted,
                    const struct json *found)
{
    if (found && json_type(wanted) == JSON_OBJECT && json_type(found) == JSON_OBJECT)
        compare_members(d, path, wanted, found);
    else if (found && json_type(wanted) == JSON_ARRAY && json_type(found) == JSON_ARRAY)
        compare_items(d, path, wanted, found);
    else if (!found || !is_same_scalar(d->arena, wanted, found))
        tell(d, path, wanted, found);
}

size_t json_differences(struct arena *arena, const struct json *wanted, const struct json *found,
                        bool is_part, str *lines)
{
    struct difference d = {.arena = arena, .lines = lines, .is_part = is_part};
    compare(&d, STR_NONE, wanted, found);
    return d.count;
}
