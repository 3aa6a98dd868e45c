/* Finding, replacing, splitting and extracting; literally or by regular expression. */
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "regex.h"

/* A pattern of either kind, walked match by match. */
struct finder {
    struct regex *regex; /* NULL: literal */
    struct text pattern, rest;
    bool ignores_case;
    struct regex_match match;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char) (c + 32) : c;
}

static const char *find_literal(const struct finder *f)
{
    size_t len = f->pattern.len;
    if (!f->ignores_case)
        return memmem(f->rest.ptr, f->rest.len, f->pattern.ptr, len);
    for (size_t i = 0; i + len <= f->rest.len; i++) {
        size_t n = 0;
        while (n < len && lower(f->rest.ptr[i + n]) == lower(f->pattern.ptr[n]))
            n++;
        if (n == len)
            return f->rest.ptr + i;
    }
    return NULL;
}

static bool finder_next(struct finder *f, bool *found, struct tool_error *e)
{
    if (f->regex != NULL)
        return regex_next(f->regex, &f->match, found, e);
    const char *at = find_literal(f);
    *found = at != NULL;
    if (!*found)
        return true;
    f->match.whole = (struct text){at, f->pattern.len};
    size_t past = (size_t) (at - f->rest.ptr) + f->pattern.len;
    f->rest = (struct text){f->rest.ptr + past, f->rest.len - past};
    return true;
}

static bool finder_init(struct finder *f, struct text subject, struct text pattern,
                        struct text flags, bool is_regex, struct tool_error *e)
{
    *f = (struct finder){.pattern = pattern, .rest = subject};
    if (is_regex) {
        f->regex = regex_compile(pattern, flags, e);
        if (f->regex == NULL)
            return false;
        regex_begin(f->regex, subject);
        return true;
    }
    if (pattern.len == 0)
        return tool_fail(e, "invalid_input", "\"pattern\" is empty");
    f->ignores_case = flags.len > 0 && memchr(flags.ptr, 'i', flags.len) != NULL;
    return true;
}

/* Reads pattern, regex, flags and ignore_case. */
static bool finder_read(struct finder *f, struct task *task, const char *name, bool is_regex,
                        struct tool_error *e)
{
    struct text pattern, flags;
    bool ignores_case;
    if (!tool_text(task->input, name, &pattern, e) ||
        !tool_text_or(task->input, "flags", TEXT(""), &flags, e) ||
        !tool_flag_or(task->input, "regex", is_regex, &is_regex, e) ||
        !tool_flag_or(task->input, "ignore_case", false, &ignores_case, e))
        return false;
    if (ignores_case && flags.len > 0)
        return tool_fail(e, "invalid_input", "give \"flags\" or \"ignore_case\", not both");
    return finder_init(f, task->text, pattern, ignores_case ? TEXT("i") : flags, is_regex, e);
}

static void add_groups(struct task *task, yyjson_mut_val *match, const struct finder *f)
{
    if (f->regex == NULL || f->match.group_count == 0)
        return;
    yyjson_mut_val *groups = yyjson_mut_arr(task->doc);
    for (size_t i = 1; i <= f->match.group_count; i++) {
        struct text group = f->match.groups[i];
        if (group.ptr == NULL)
            yyjson_mut_arr_add_null(task->doc, groups);
        else
            yyjson_mut_arr_add_strncpy(task->doc, groups, group.ptr, group.len);
    }
    yyjson_mut_obj_add_val(task->doc, match, "groups", groups);
}

static bool find_all(struct task *task, struct finder *f, int64_t limit, struct tool_error *e)
{
    yyjson_mut_val *matches = yyjson_mut_arr(task->doc);
    uint64_t count = 0;
    size_t bytes = 0;
    bool found;
    for (;;) {
        if (!finder_next(f, &found, e))
            return false;
        if (!found)
            break;
        bytes += f->match.whole.len;
        if (count++ < (uint64_t) limit && bytes <= OUTPUT_BYTES_MAX / 2)
            add_groups(task, task_match(task, matches, f->match.whole), f);
    }
    yyjson_mut_obj_add_val(task->doc, task->root, "matches", matches);
    task_count(task, "matches", count);
    return true;
}

static bool find(struct task *task, bool is_regex, struct tool_error *e)
{
    struct finder f;
    int64_t limit;
    return tool_integer_or(task->input, "limit", 100, 0, MATCHES_MAX, &limit, e) &&
           finder_read(&f, task, "pattern", is_regex, e) && find_all(task, &f, limit, e);
}

bool op_find(struct task *task, struct tool_error *e)
{
    return find(task, false, e);
}

bool op_match(struct task *task, struct tool_error *e)
{
    return find(task, true, e);
}

/* $1 to $99 are groups, $& the match, $$ a dollar; anything else stands for itself. */
static void add_replacement(struct buffer *out, struct text to, const struct finder *f)
{
    for (size_t i = 0; i < to.len; i++) {
        char next = i + 1 < to.len ? to.ptr[i + 1] : '\0';
        if (f->regex == NULL || to.ptr[i] != '$' || next == '\0') {
            buffer_add(out, &to.ptr[i], 1);
        } else if (next == '$' || next == '&') {
            buffer_add_text(out, next == '$' ? TEXT("$") : f->match.whole);
            i++;
        } else {
            size_t group = 0, digits = 0;
            while (digits < 2 && i + 1 + digits < to.len && to.ptr[i + 1 + digits] >= '0' &&
                   to.ptr[i + 1 + digits] <= '9' &&
                   group * 10 + (size_t) (to.ptr[i + 1 + digits] - '0') <= f->match.group_count)
                group = group * 10 + (size_t) (to.ptr[i + 1 + digits++] - '0');
            if (group == 0) {
                buffer_add(out, "$", 1);
                continue;
            }
            if (f->match.groups[group].ptr != NULL)
                buffer_add_text(out, f->match.groups[group]);
            i += digits;
        }
    }
}

bool op_replace(struct task *task, struct tool_error *e)
{
    struct finder f;
    struct text replacement;
    struct buffer out = {0};
    uint64_t count = 0;
    int64_t limit;
    bool found = true;
    const char *at = task->text.ptr, *end = at + task->text.len;
    if (!tool_text(task->input, "replacement", &replacement, e) ||
        !tool_integer_or(task->input, "limit", INT64_MAX, 0, INT64_MAX, &limit, e) ||
        !finder_read(&f, task, "pattern", false, e))
        return false;
    while (count < (uint64_t) limit) {
        if (!finder_next(&f, &found, e))
            return false;
        if (!found)
            break;
        count++;
        buffer_add(&out, at, (size_t) (f.match.whole.ptr - at));
        add_replacement(&out, replacement, &f);
        at = f.match.whole.ptr + f.match.whole.len;
    }
    buffer_add(&out, at, (size_t) (end - at));
    task_count(task, "replacements", count);
    return task_set_text(task, &out, e);
}

static bool split_add(struct task *task, yyjson_mut_val *parts, const char *from, const char *to,
                      struct tool_error *e)
{
    if (yyjson_mut_arr_size(parts) == MATCHES_MAX)
        return tool_fail(e, "limit", "the text splits into more than %d parts", MATCHES_MAX);
    task_match(task, parts, (struct text){from, (size_t) (to - from)});
    return true;
}

bool op_split(struct task *task, struct tool_error *e)
{
    struct finder f;
    bool found;
    const char *at = task->text.ptr, *end = at + task->text.len;
    yyjson_mut_val *parts = yyjson_mut_arr(task->doc);
    const char *name = yyjson_obj_get(task->input, "pattern") != NULL ? "pattern" : "separator";
    if (!finder_read(&f, task, name, false, e))
        return false;
    for (;;) {
        if (!finder_next(&f, &found, e))
            return false;
        if (!found)
            break;
        if (f.match.whole.len == 0)
            continue;
        if (!split_add(task, parts, at, f.match.whole.ptr, e))
            return false;
        at = f.match.whole.ptr + f.match.whole.len;
    }
    if (!split_add(task, parts, at, end, e))
        return false;
    yyjson_mut_obj_add_val(task->doc, task->root, "matches", parts);
    task_count(task, "matches", yyjson_mut_arr_size(parts));
    return true;
}

bool op_extract(struct task *task, struct tool_error *e)
{
#define MONTHS "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
    static const char *const kinds[] = {"emails", "urls", "numbers", "dates", NULL};
    static const char *const patterns[] = {
        "[a-z0-9._%+-]+@[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\\.["
        "a-z]{2,}",
        "\\b(?:https?|ftp)://[^\\s<>\"'`{}|\\\\^]*[^\\s<>\"'`{}|\\\\^.,;:!?()\\[\\]]",
        "(?<![\\w.])[-+]?(?:\\d{1,3}(?:,\\d{3})+|\\d+)(?:\\.\\d+)?(?:e[-+]?\\d+)?(?![\\w]|\\.\\d)",
        "\\b\\d{4}[-/]\\d{1,2}[-/]\\d{1,2}(?:[T "
        "]\\d{1,2}:\\d{2}(?::\\d{2}(?:\\.\\d+)?)?(?:Z|[+-]\\d{2}:?\\d{2})?)?"
        "|\\b\\d{1,2}[./-]\\d{1,2}[./-](?:\\d{4}|\\d{2})\\b"
        "|\\b" MONTHS "\\.? \\d{1,2}(?:st|nd|rd|th)?,? \\d{4}\\b"
        "|\\b\\d{1,2}(?:st|nd|rd|th)?\\.? " MONTHS "\\.?,? \\d{4}\\b"};
#undef MONTHS
    struct text kind;
    struct finder f;
    int64_t limit;
    if (!tool_text(task->input, "kind", &kind, e) ||
        !tool_integer_or(task->input, "limit", 100, 0, MATCHES_MAX, &limit, e))
        return false;
    int chosen = tool_choice(kind, kinds);
    if (chosen < 0)
        return tool_fail(e, "invalid_input", "\"kind\" is emails, urls, numbers or dates");
    struct text pattern = {patterns[chosen], strlen(patterns[chosen])};
    return finder_init(&f, task->text, pattern, TEXT("i"), true, e) && find_all(task, &f, limit, e);
}
