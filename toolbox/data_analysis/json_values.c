#include "json_values.h"

#include <stdlib.h>
#include <string.h>

bool json_values_init(struct json_values *values, const struct byte_source *source,
                      struct tool_error *e)
{
    *values = (struct json_values){.line = 1};
    window_init(&values->window, source);
    if (!window_more(&values->window, 1, e))
        return false;
    struct window *w = &values->window;
    if (w->end - w->at >= 3 && memcmp(w->at, "\xEF\xBB\xBF", 3) == 0)
        w->at += 3;
    return true;
}

void json_values_deinit(struct json_values *values)
{
    window_deinit(&values->window);
    tool_free(values->pool);
    *values = (struct json_values){0};
}

static bool fail_at(const struct json_values *values, const char *what, struct tool_error *e)
{
    return tool_fail(e, "invalid_input", "line %llu: %s", (unsigned long long) values->line, what);
}

/* Moves to the next byte that is not blank; at the end of the input at == end. */
static bool skip_blanks(struct json_values *values, struct tool_error *e)
{
    struct window *w = &values->window;
    for (;;) {
        for (; w->at < w->end; w->at++) {
            if (*w->at == '\n')
                values->line++;
            else if (*w->at != ' ' && *w->at != '\t' && *w->at != '\r')
                return true;
        }
        if (w->is_last)
            return true;
        if (!window_more(w, values->line, e))
            return false;
    }
}

static bool is_at(const struct json_values *values, char c)
{
    return values->window.at < values->window.end && *values->window.at == c;
}

/* The end of the value that begins at `at`, or NULL when it lies beyond `end`.  A bare word or number
 * ends before a blank, comma or bracket.  Whether the value is correct is for the parser to say. */
static const char *find_value_end(const char *at, const char *end, bool is_last)
{
    bool in_string = false;
    int depth = 0;
    for (; at < end; at++) {
        char c = *at;
        if (in_string) {
            if (c == '\\')
                at++;
            else if (c == '"')
                in_string = false;
            if (in_string || depth > 0)
                continue;
            return at + 1;
        }
        if (c == '"')
            in_string = true;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']') {
            if (depth <= 1)
                return depth == 0 ? at : at + 1;
            depth--;
        } else if (depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'))
            return at;
    }
    return is_last ? end : NULL;
}

static bool is_too_deep(const char *at, const char *end)
{
    int depth = 0;
    bool in_string = false;
    for (; at < end; at++) {
        if (in_string && *at == '\\')
            at++;
        else if (*at == '"')
            in_string = !in_string;
        else if (!in_string && (*at == '{' || *at == '['))
            depth++;
        else if (!in_string && (*at == '}' || *at == ']'))
            depth--;
        if (depth > JSON_DEPTH_MAX)
            return true;
    }
    return false;
}

static bool parse_value(struct json_values *values, const char *end, struct tool_error *e)
{
    struct window *w = &values->window;
    size_t len = (size_t) (end - w->at);
    if (is_too_deep(w->at, end))
        return fail_at(values, "the value is nested too deeply", e);
    size_t need = yyjson_read_max_memory_usage(len, 0);
    if (need > values->pool_bytes) {
        tool_free(values->pool);
        values->pool_bytes = need + need / 2;
        values->pool = tool_alloc(values->pool_bytes);
    }
    yyjson_alc allocator;
    yyjson_read_err problem;
    if (!yyjson_alc_pool_init(&allocator, values->pool, values->pool_bytes))
        return tool_fail(e, "internal", "the JSON pool is too small");
    values->doc = yyjson_read_opts(w->at, len, 0, &allocator, &problem);
    if (values->doc == NULL)
        return tool_fail(e, "invalid_input",
                         "the JSON value that begins at line %llu is not valid: %s",
                         (unsigned long long) values->line, problem.msg);
    values->value_line = values->line;
    for (; w->at < end; w->at++)
        values->line += *w->at == '\n';
    return true;
}

/* Handles what stands between values.  Sets *is_end at the end of the input. */
static bool enter_next(struct json_values *values, bool *is_end, struct tool_error *e)
{
    if (!skip_blanks(values, e))
        return false;
    if (!values->has_begun && is_at(values, '[')) {
        values->in_array = true;
        values->window.at++;
    } else if (values->in_array && values->needs_comma && !is_at(values, ']') &&
               values->window.at < values->window.end) {
        if (!is_at(values, ','))
            return fail_at(values, "expected , or ] after an element of the array", e);
        values->window.at++;
    }
    values->has_begun = true;
    if (!skip_blanks(values, e))
        return false;
    if (values->in_array && !values->is_array_closed && is_at(values, ']')) {
        values->is_array_closed = true;
        values->window.at++;
        if (!skip_blanks(values, e))
            return false;
    }
    *is_end = values->window.at == values->window.end;
    if (*is_end && values->in_array && !values->is_array_closed)
        return fail_at(values, "the array is not closed; is the file cut off?", e);
    if (!*is_end && values->is_array_closed)
        return fail_at(values, "there is something after the end of the array", e);
    return true;
}

bool json_values_next(struct json_values *values, yyjson_val **out, struct tool_error *e)
{
    struct window *w = &values->window;
    bool is_end = false;
    if (!enter_next(values, &is_end, e))
        return false;
    if (is_end) {
        *out = NULL;
        return true;
    }
    const char *end;
    while ((end = find_value_end(w->at, w->end, w->is_last)) == NULL)
        if (!window_more(w, values->line, e))
            return false;
    if (end == w->at)
        return fail_at(values, "expected a JSON value", e);
    if (!parse_value(values, end, e))
        return false;
    values->needs_comma = true;
    *out = yyjson_doc_get_root(values->doc);
    return true;
}
