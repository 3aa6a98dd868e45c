#include "csv.h"

#include <stdlib.h>
#include <string.h>

#ifdef __wasm_simd128__
#include <wasm_simd128.h>
#endif

enum { FIRST_FIELDS = 64 };

/* What one attempt to read a record from the bytes at hand came to. */
enum scan { SCAN_RECORD, SCAN_MORE, SCAN_OPEN_QUOTE, SCAN_TOO_WIDE };

bool csv_init(struct csv *csv, const struct byte_source *source, char separator,
              struct tool_error *e)
{
    *csv = (struct csv){.separator = separator, .line = 1, .field_capacity = FIRST_FIELDS};
    window_init(&csv->window, source);
    csv->fields = tool_alloc(csv->field_capacity * sizeof *csv->fields);
    if (!window_more(&csv->window, 1, e))
        return false;
    struct window *w = &csv->window;
    if (w->end - w->at >= 3 && memcmp(w->at, "\xEF\xBB\xBF", 3) == 0)
        w->at += 3;
    return true;
}

void csv_deinit(struct csv *csv)
{
    window_deinit(&csv->window);
    tool_free(csv->fields);
    *csv = (struct csv){0};
}

/* The first separator or line feed at or after `at`, or `end`. */
static inline char *find_field_end(char *at, char *end, char separator)
{
#ifdef __wasm_simd128__
    v128_t separators = wasm_i8x16_splat(separator), feeds = wasm_i8x16_splat('\n');
    for (; end - at >= 16; at += 16) {
        v128_t bytes = wasm_v128_load(at);
        v128_t hits = wasm_v128_or(wasm_i8x16_eq(bytes, separators), wasm_i8x16_eq(bytes, feeds));
        uint32_t mask = wasm_i8x16_bitmask(hits);
        if (mask != 0)
            return at + __builtin_ctz(mask);
    }
#endif
    while (at < end && *at != separator && *at != '\n')
        at++;
    return at;
}

static bool add_field(struct csv *csv, char *ptr, char *end)
{
    if (csv->field_count == csv->field_capacity) {
        if (csv->field_capacity >= CSV_FIELDS_MAX)
            return false;
        csv->field_capacity *= 2;
        csv->fields = tool_realloc(csv->fields, csv->field_capacity * sizeof *csv->fields);
    }
    csv->fields[csv->field_count++] = (struct text){ptr, (size_t) (end - ptr)};
    return true;
}

/* Finds the end of the quoted part that opens at `at`; NULL when it is not in the window. */
static char *find_quote_end(char *at, char *end, uint64_t *line)
{
    for (at++; at < end; at++) {
        *line += *at == '\n';
        if (*at != '"')
            continue;
        if (at + 1 == end || at[1] != '"')
            return at;
        at++;
    }
    return NULL;
}

/* Takes the quotes out of a complete field, in place. */
static struct text unquote(struct text field)
{
    char *from = (char *) (uintptr_t) field.ptr, *end = from + field.len, *to = from;
    bool is_quoted = true;
    for (char *at = from + 1; at < end; at++) {
        if (is_quoted && *at == '"') {
            if (at + 1 < end && at[1] == '"')
                at++;
            else {
                is_quoted = false;
                continue;
            }
        }
        *to++ = *at;
    }
    return (struct text){from, (size_t) (to - from)};
}

/* Reads one record beginning at window.at.  On SCAN_RECORD *next is behind it; nothing in the window has
 * changed unless the record was complete, so a record cut by the window can be read again. */
static enum scan scan_record(struct csv *csv, char **next, uint64_t *line)
{
    char *at = csv->window.at, *end = csv->window.end;
    bool is_last = csv->window.is_last, has_quotes = false;
    csv->field_count = 0;
    for (;;) {
        char *start = at;
        if (at < end && *at == '"') {
            char *close = find_quote_end(at, end, line);
            if (close == NULL || (close + 1 == end && !is_last))
                return is_last ? SCAN_OPEN_QUOTE : SCAN_MORE;
            at = close + 1;
            has_quotes = true;
        }
        at = find_field_end(at, end, csv->separator);
        if (at == end && !is_last)
            return SCAN_MORE;
        bool is_end = at == end || *at == '\n';
        char *stop = is_end && at > start && at[-1] == '\r' ? at - 1 : at;
        if (!add_field(csv, start, stop))
            return SCAN_TOO_WIDE;
        if (is_end)
            break;
        at++;
    }
    *line += at < end;
    *next = at < end ? at + 1 : at;
    if (has_quotes)
        for (size_t i = 0; i < csv->field_count; i++)
            if (csv->fields[i].len > 0 && csv->fields[i].ptr[0] == '"')
                csv->fields[i] = unquote(csv->fields[i]);
    return SCAN_RECORD;
}

static bool fail_scan(struct csv *csv, enum scan result, struct tool_error *e)
{
    if (result == SCAN_OPEN_QUOTE)
        return tool_fail(e, "invalid_input",
                         "the record that begins at line %llu has a quote that is never closed",
                         (unsigned long long) csv->line);
    return tool_fail(e, "limit", "line %llu has more than %d fields",
                     (unsigned long long) csv->line, CSV_FIELDS_MAX);
}

bool csv_next(struct csv *csv, bool *has_record, struct tool_error *e)
{
    for (;;) {
        struct window *w = &csv->window;
        if (w->at == w->end && w->is_last) {
            *has_record = false;
            return true;
        }
        char *next = w->at;
        uint64_t line = csv->line;
        enum scan result = w->at == w->end ? SCAN_MORE : scan_record(csv, &next, &line);
        if (result == SCAN_MORE) {
            if (!window_more(w, csv->line, e))
                return false;
            continue;
        }
        if (result != SCAN_RECORD)
            return fail_scan(csv, result, e);
        csv->record_line = csv->line;
        csv->line = line;
        w->at = next;
        if (csv->field_count == 1 && csv->fields[0].len == 0)
            continue; /* an empty line */
        *has_record = true;
        return true;
    }
}

char csv_detect_separator(const char *ptr, size_t len)
{
    static const char candidates[] = ",;\t|";
    size_t counts[4] = {0};
    bool is_quoted = false;
    for (size_t i = 0; i < len && (is_quoted || ptr[i] != '\n'); i++) {
        const char *found = ptr[i] == '\0' ? NULL : strchr(candidates, ptr[i]);
        if (ptr[i] == '"')
            is_quoted = !is_quoted;
        else if (found != NULL && !is_quoted)
            counts[found - candidates]++;
    }
    size_t best = 0;
    for (size_t i = 1; i < 4; i++)
        if (counts[i] > counts[best])
            best = i;
    return candidates[best];
}
