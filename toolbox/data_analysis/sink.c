/*
 * Sink: the end of a query.  Writes `columns` (names), `rows` (a list of values for each row) and
 * `row_count`, which counts all rows of the result even when only the first ones are returned.
 */
#include <math.h>

#include "stage.h"
#include "utf8.h"

enum { NUMBER_BYTES = 20 };

struct sink {
    struct stage base;
    yyjson_mut_val *rows;
    uint64_t row_count, returned_count;
    size_t bytes;
    uint64_t broken_count; /* texts that were not UTF-8 */
};

static yyjson_mut_val *write_text(struct sink *sink, struct text text)
{
    yyjson_mut_doc *doc = sink->base.query->output;
    if (utf8_is_valid(text.ptr, text.len))
        return yyjson_mut_strncpy(doc, text.ptr, text.len);
    sink->broken_count++;
    char *valid = tool_alloc(text.len * 3);
    return yyjson_mut_strn(doc, valid, utf8_copy_valid(valid, text.ptr, text.len));
}

static yyjson_mut_val *write_cell(struct sink *sink, const struct cell *cell)
{
    yyjson_mut_doc *doc = sink->base.query->output;
    switch (cell->type) {
    case CELL_BOOL: return yyjson_mut_bool(doc, cell->boolean);
    case CELL_INT: return yyjson_mut_sint(doc, cell->integer);
    case CELL_REAL:
        return isfinite(cell->real) ? yyjson_mut_real(doc, cell->real) : yyjson_mut_null(doc);
    case CELL_TEXT: return write_text(sink, cell_text(cell));
    case CELL_NULL:
    case CELL_RAW:
    default: return yyjson_mut_null(doc);
    }
}

static enum flow sink_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    (void) e;
    struct sink *sink = (struct sink *) stage;
    yyjson_mut_doc *doc = stage->query->output;
    sink->row_count++;
    if (sink->returned_count >= ROWS_RETURNED_MAX || sink->bytes >= ROWS_RETURNED_BYTES_MAX)
        return FLOW_MORE;
    yyjson_mut_val *values = yyjson_mut_arr(doc);
    size_t bytes = 0;
    for (size_t i = 0; i < row->schema->count; i++) {
        const struct cell *cell = row_cell(row, i);
        bytes += cell->type == CELL_TEXT ? cell->len + 3 : NUMBER_BYTES;
    }
    sink->bytes += bytes;
    if (sink->bytes > ROWS_RETURNED_BYTES_MAX && sink->returned_count > 0)
        return FLOW_MORE;
    for (size_t i = 0; i < row->schema->count; i++)
        yyjson_mut_arr_append(values, write_cell(sink, row_cell(row, i)));
    yyjson_mut_arr_append(sink->rows, values);
    sink->returned_count++;
    return FLOW_MORE;
}

static enum flow sink_finish(struct stage *stage, struct tool_error *e)
{
    (void) e;
    struct sink *sink = (struct sink *) stage;
    yyjson_mut_doc *doc = stage->query->output;
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);
    yyjson_mut_obj_add_uint(doc, root, "row_count", sink->row_count);
    if (sink->returned_count < sink->row_count)
        query_note(stage->query,
                   "rows holds the first %llu of %llu; add a limit, a filter or an aggregate",
                   (unsigned long long) sink->returned_count, (unsigned long long) sink->row_count);
    if (sink->broken_count > 0)
        query_note(stage->query,
                   "%llu texts are not UTF-8; their invalid bytes are shown as U+FFFD",
                   (unsigned long long) sink->broken_count);
    return FLOW_MORE;
}

struct stage *sink_create(struct query *query, const struct schema *in)
{
    struct sink *sink = stage_alloc(query, sizeof *sink);
    sink->base.push = sink_push;
    sink->base.finish = sink_finish;
    yyjson_mut_doc *doc = query->output;
    yyjson_mut_val *root = yyjson_mut_obj(doc), *names = yyjson_mut_arr(doc);
    for (size_t i = 0; i < in->count; i++)
        yyjson_mut_arr_append(names, write_text(sink, in->columns[i].name));
    sink->rows = yyjson_mut_arr(doc);
    yyjson_mut_obj_add_val(doc, root, "columns", names);
    yyjson_mut_obj_add_val(doc, root, "rows", sink->rows);
    yyjson_mut_doc_set_root(doc, root);
    return &sink->base;
}
