#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

enum {
    SAMPLE_RECORDS = 2000,
    DETECT_BYTES = 4096,
    NAMES_BYTES_MAX = 4 * 1024 * 1024,
    SCRATCH_BYTES_MAX = 8 * 1024 * 1024,
};

const char *const data_format_names[] = {"csv", "tsv", "json", "jsonl", NULL};

/* ---- columns ------------------------------------------------------------------------------------ */

static bool has_column(const struct schema *schema, struct text name)
{
    for (size_t i = 0; i < schema->count; i++)
        if (text_equal(schema->columns[i].name, name))
            return true;
    return false;
}

static bool add_column(struct rows *rows, struct text name, struct tool_error *e)
{
    struct schema *schema = &rows->schema;
    if (schema->count >= CSV_FIELDS_MAX)
        return tool_fail(e, "limit", "the data has more than %d columns", CSV_FIELDS_MAX);
    if ((schema->count & (schema->count - 1)) == 0) /* room doubles at each power of two */
        schema->columns =
            tool_realloc(schema->columns,
                         (schema->count == 0 ? 1 : schema->count * 2) * sizeof *schema->columns);
    char *copy = pool_alloc(&rows->names, name.len * 3); /* invalid bytes grow to three */
    if (copy == NULL)
        return tool_fail(e, "limit", "the column names are longer than %d MiB together",
                         NAMES_BYTES_MAX >> 20);
    size_t len = utf8_copy_valid(copy, name.ptr, name.len);
    schema->columns[schema->count++] = (struct column){.name = {copy, len}};
    return true;
}

static struct text trim(struct text t)
{
    while (t.len > 0 && (*t.ptr == ' ' || *t.ptr == '\t')) {
        t.ptr++;
        t.len--;
    }
    while (t.len > 0 && (t.ptr[t.len - 1] == ' ' || t.ptr[t.len - 1] == '\t'))
        t.len--;
    return t;
}

/* A header cell names its column; empty and repeated names get a number so that each can be asked for. */
static bool add_named_column(struct rows *rows, struct text name, struct tool_error *e)
{
    char blank[32], made[300];
    size_t number = rows->schema.count + 1;
    name = trim(name);
    if (name.len == 0) {
        snprintf(blank, sizeof blank, "column_%zu", number);
        name = (struct text){blank, strlen(blank)};
    }
    struct text wanted = name;
    for (int n = 2; has_column(&rows->schema, name); n++) {
        snprintf(made, sizeof made, "%.*s_%d", (int) (wanted.len < 200 ? wanted.len : 200),
                 wanted.ptr, n);
        name = (struct text){made, strlen(made)};
    }
    return add_column(rows, name, e);
}

/* ---- CSV ---------------------------------------------------------------------------------------- */

/* Decides each column's kind from the first records: numbers only, or text. */
static bool sample_kinds(struct rows *rows, const struct byte_source *source, bool has_header,
                         struct tool_error *e)
{
    struct csv csv;
    if (!csv_init(&csv, source, rows->csv.separator, e))
        return false;
    for (int n = 0; n < SAMPLE_RECORDS + has_header; n++) {
        bool has_record;
        struct tool_error ignored; /* a broken record is reported when the query reaches it */
        if (!csv_next(&csv, &has_record, &ignored) || !has_record)
            break;
        if (n == 0 && has_header)
            continue;
        for (size_t i = 0; i < csv.field_count && i < rows->schema.count; i++) {
            struct text field = csv.fields[i];
            enum column_kind *kind = &rows->schema.columns[i].kind;
            struct cell number;
            if (field.len == 0 || *kind == KIND_TEXT)
                continue;
            if (number_parse(field.ptr, field.len, NUMBER_STRICT, &number)) {
                if (*kind == KIND_MIXED)
                    *kind = KIND_NUMBER;
            } else if (!text_is_missing(field.ptr, field.len))
                *kind = KIND_TEXT;
        }
    }
    csv_deinit(&csv);
    return true;
}

static bool open_csv(struct rows *rows, const struct byte_source *source,
                     struct rows_options options, struct tool_error *e)
{
    rows->is_csv = true;
    if (!csv_init(&rows->csv, source, options.separator, e))
        return false;
    struct csv *csv = &rows->csv;
    if (options.separator == 0 && options.has_format && options.format == FORMAT_TSV)
        csv->separator = '\t';
    else if (options.separator == 0)
        csv->separator =
            csv_detect_separator(csv->window.at, (size_t) (csv->window.end - csv->window.at));

    bool has_record;
    if (!csv_next(csv, &has_record, e))
        return false;
    if (!has_record)
        return tool_fail(e, "invalid_input", "the data is empty: there is not even a header line");
    for (size_t i = 0; i < csv->field_count; i++)
        if (!add_named_column(rows, options.has_header ? csv->fields[i] : (struct text){"", 0}, e))
            return false;
    if (!options.has_header) { /* the first record is data: read it again */
        char separator = csv->separator;
        csv_deinit(csv);
        if (!csv_init(csv, source, separator, e))
            return false;
    }
    return sample_kinds(rows, source, options.has_header, e);
}

static bool next_csv(struct rows *rows, struct row **out, struct tool_error *e)
{
    bool has_record;
    struct csv *csv = &rows->csv;
    if (!csv_next(csv, &has_record, e))
        return false;
    if (!has_record) {
        *out = NULL;
        return true;
    }
    size_t columns = rows->schema.count;
    size_t count = csv->field_count < columns ? csv->field_count : columns;
    struct cell *cells = rows->row.cells;
    for (size_t i = 0; i < count; i++) {
        cells[i].type = CELL_RAW;
        cells[i].len = (uint32_t) csv->fields[i].len;
        cells[i].ptr = csv->fields[i].ptr;
    }
    for (size_t i = count; i < columns; i++)
        cells[i].type = CELL_NULL;
    if (csv->field_count != columns && rows->ragged_count++ == 0) {
        rows->ragged_line = csv->record_line;
        rows->ragged_fields = csv->field_count;
    }
    rows->row.line = csv->record_line;
    *out = &rows->row;
    return true;
}

/* ---- JSON --------------------------------------------------------------------------------------- */

static bool collect_keys(struct rows *rows, yyjson_val *object, uint64_t line, struct tool_error *e)
{
    if (!yyjson_is_obj(object))
        return tool_fail(e, "invalid_input", "row %llu is %s: each row must be a JSON object",
                         (unsigned long long) line,
                         object == NULL ? "missing" : yyjson_get_type_desc(object));
    size_t index = 0, max;
    yyjson_val *key, *value;
    size_t position;
    yyjson_obj_foreach(object, position, max, key, value)
    {
        struct text name = {yyjson_get_str(key), yyjson_get_len(key)};
        /* Objects of one file mostly have the same keys in the same order. */
        if (index < rows->schema.count && text_equal(rows->schema.columns[index].name, name)) {
            index++;
            continue;
        }
        if (!has_column(&rows->schema, name) && !add_column(rows, name, e))
            return false;
        index++;
    }
    return true;
}

static bool open_json(struct rows *rows, const struct byte_source *source, struct tool_error *e)
{
    if (!json_values_init(&rows->json, source, e))
        return false;
    for (;;) {
        yyjson_val *value;
        if (!json_values_next(&rows->json, &value, e))
            return false;
        if (value == NULL)
            break;
        if (!collect_keys(rows, value, rows->json.value_line, e))
            return false;
    }
    json_values_deinit(&rows->json);
    return json_values_init(&rows->json, source, e);
}

static bool open_data(struct rows *rows, yyjson_val *data, struct tool_error *e)
{
    size_t i, max;
    yyjson_val *value;
    yyjson_arr_foreach(data, i, max, value)
    {
        if (!collect_keys(rows, value, i + 1, e))
            return false;
    }
    rows->data = data;
    yyjson_arr_iter_init(data, &rows->data_iter);
    return true;
}

static bool cell_from_json(struct rows *rows, yyjson_val *value, struct cell *out,
                           struct tool_error *e)
{
    *out = (struct cell){.type = CELL_NULL};
    if (yyjson_is_str(value)) {
        *out = (struct cell){.type = CELL_TEXT, .len = (uint32_t) yyjson_get_len(value)};
        out->ptr = yyjson_get_str(value);
    } else if (yyjson_is_bool(value))
        *out = (struct cell){.type = CELL_BOOL, .boolean = yyjson_get_bool(value)};
    else if (yyjson_is_sint(value) ||
             (yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX))
        *out = (struct cell){.type = CELL_INT, .integer = yyjson_get_sint(value)};
    else if (yyjson_is_num(value))
        *out = (struct cell){.type = CELL_REAL, .real = yyjson_get_num(value)};
    else if (yyjson_is_ctn(value)) {
        size_t len = 0;
        char *json = yyjson_val_write(value, 0, &len);
        char *copy = json == NULL ? NULL : pool_copy(&rows->scratch, json, len);
        free(json);
        if (copy == NULL)
            return tool_fail(e, "limit", "the nested values of one row are longer than %d MiB",
                             SCRATCH_BYTES_MAX >> 20);
        *out = (struct cell){.type = CELL_TEXT, .len = (uint32_t) len, .ptr = copy};
    }
    return true;
}

static bool fill_row(struct rows *rows, yyjson_val *object, struct tool_error *e)
{
    pool_deinit(&rows->scratch);
    for (size_t i = 0; i < rows->schema.count; i++)
        rows->row.cells[i].type = CELL_NULL;
    size_t guess = 0, position, max;
    yyjson_val *key, *value;
    yyjson_obj_foreach(object, position, max, key, value)
    {
        struct text name = {yyjson_get_str(key), yyjson_get_len(key)};
        size_t index = guess;
        if (index >= rows->schema.count || !text_equal(rows->schema.columns[index].name, name))
            for (index = 0; index < rows->schema.count; index++)
                if (text_equal(rows->schema.columns[index].name, name))
                    break;
        if (index == rows->schema.count)
            return tool_fail(e, "io", "the file changed while it was read");
        if (!cell_from_json(rows, value, &rows->row.cells[index], e))
            return false;
        guess = index + 1;
    }
    return true;
}

static bool next_json(struct rows *rows, struct row **out, struct tool_error *e)
{
    yyjson_val *value = NULL;
    if (rows->data != NULL) {
        value = yyjson_arr_iter_next(&rows->data_iter);
        rows->row.line++;
    } else {
        if (!json_values_next(&rows->json, &value, e))
            return false;
        rows->row.line = rows->json.value_line;
    }
    *out = value == NULL ? NULL : &rows->row;
    return value == NULL || fill_row(rows, value, e);
}

/* ---- any ---------------------------------------------------------------------------------------- */

static bool ends_with(struct text name, const char *ending)
{
    size_t len = strlen(ending);
    if (name.len < len)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name.ptr[name.len - len + i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != ending[i])
            return false;
    }
    return true;
}

/* The name's ending decides; without one the first character does: JSON begins with { or [. */
static bool detect_format(const struct byte_source *source, struct rows_options *options,
                          struct tool_error *e)
{
    static const struct {
        const char *ending;
        enum data_format format;
    } known[] = {{".csv", FORMAT_CSV},     {".tsv", FORMAT_TSV},      {".tab", FORMAT_TSV},
                 {".jsonl", FORMAT_JSONL}, {".ndjson", FORMAT_JSONL}, {".json", FORMAT_JSON}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (source->is_file && ends_with(source->name, known[i].ending)) {
            options->format = known[i].format;
            options->has_format = true;
            return true;
        }
    char head[DETECT_BYTES];
    size_t got, i = 0;
    if (!source->read(source, 0, head, sizeof head, &got, e))
        return false;
    while (i < got && (head[i] == ' ' || head[i] == '\n' || head[i] == '\r' || head[i] == '\t'))
        i++;
    options->format = i < got && (head[i] == '{' || head[i] == '[') ? FORMAT_JSON : FORMAT_CSV;
    return true;
}

bool rows_open(struct rows *rows, const struct byte_source *source, yyjson_val *data,
               struct rows_options options, struct tool_error *e)
{
    *rows = (struct rows){0};
    pool_init(&rows->names, NAMES_BYTES_MAX);
    pool_init(&rows->scratch, SCRATCH_BYTES_MAX);
    bool ok;
    if (data != NULL)
        ok = open_data(rows, data, e);
    else {
        if (!options.has_format && !detect_format(source, &options, e))
            return false;
        bool is_csv = options.format == FORMAT_CSV || options.format == FORMAT_TSV;
        ok = is_csv ? open_csv(rows, source, options, e) : open_json(rows, source, e);
    }
    rows->row.schema = &rows->schema;
    rows->row.cells = tool_alloc(rows->schema.count * sizeof *rows->row.cells);
    return ok;
}

void rows_close(struct rows *rows)
{
    if (rows->is_csv)
        csv_deinit(&rows->csv);
    else
        json_values_deinit(&rows->json);
    pool_deinit(&rows->names);
    pool_deinit(&rows->scratch);
    tool_free(rows->schema.columns);
    tool_free(rows->row.cells);
}

bool rows_next(struct rows *rows, struct row **out, struct tool_error *e)
{
    return rows->is_csv ? next_csv(rows, out, e) : next_json(rows, out, e);
}
