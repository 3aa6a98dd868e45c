#include "stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "csv.h"
#include "utf8.h"

void query_note(struct query *query, const char *format, ...)
{
    if (query->note_count == NOTES_MAX)
        return;
    enum { NOTE_BYTES = 400 };
    char *note = tool_alloc(NOTE_BYTES);
    va_list args;
    va_start(args, format);
    vsnprintf(note, NOTE_BYTES, format, args);
    va_end(args);
    utf8_mend(note);
    query->notes[query->note_count++] = note;
}

enum flow fail_pool(struct tool_error *e)
{
    tool_fail(e, "limit",
              "the query holds more than %d MiB; filter, select fewer columns or aggregate first",
              POOL_BYTES_MAX >> 20);
    return FLOW_FAIL;
}

void *stage_alloc(struct query *query, size_t bytes)
{
    struct stage *stage = tool_alloc(bytes);
    memset(stage, 0, bytes);
    stage->query = query;
    return stage;
}

struct schema schema_create(size_t count)
{
    struct schema schema = {.columns = tool_alloc(count * sizeof(struct column)), .count = count};
    memset(schema.columns, 0, count * sizeof(struct column));
    return schema;
}

bool stage_columns(const struct schema *in, yyjson_val *names, const char *what, size_t **indexes,
                   size_t *count, struct tool_error *e)
{
    bool is_one = yyjson_is_str(names);
    *count = is_one ? 1 : yyjson_arr_size(names);
    if (*count == 0 || *count > CSV_FIELDS_MAX)
        return tool_fail(e, "invalid_input", "%s must be a list of column names", what);
    *indexes = tool_alloc(*count * sizeof **indexes);
    for (size_t i = 0; i < *count; i++) {
        yyjson_val *name = is_one ? names : yyjson_arr_get(names, i);
        if (!yyjson_is_str(name))
            return tool_fail(e, "invalid_input", "%s must be a list of column names", what);
        if (!schema_find(in, (struct text){yyjson_get_str(name), yyjson_get_len(name)},
                         &(*indexes)[i], e))
            return false;
    }
    return true;
}
