/*
 * Rows: one face for every input: CSV, TSV, JSON (an array of objects), JSON lines, or `data` in the call.
 *
 * The schema is known before the first row: from the CSV header and a sample of its records, or, for
 * JSON, from a first pass over all objects (a file can be read twice; memory cannot hold it once).
 *
 * Records that do not have as many fields as the header are kept, missing fields as null, extra fields
 * dropped; ragged_count and ragged_line tell, and end as a note in the answer.
 */
#ifndef DATA_ANALYSIS_ROWS_H
#define DATA_ANALYSIS_ROWS_H

#include "cell.h"
#include "csv.h"
#include "json_values.h"

enum data_format { FORMAT_CSV, FORMAT_TSV, FORMAT_JSON, FORMAT_JSONL };

extern const char *const data_format_names[];

struct rows_options {
    bool has_format, has_header;
    enum data_format format;
    char separator; /* 0: find out */
};

struct rows {
    struct schema schema;
    struct row row;
    bool is_csv;
    struct csv csv;
    struct json_values json;
    yyjson_val *data; /* rows given as a JSON array in the call, else NULL */
    yyjson_arr_iter data_iter;
    struct pool names;   /* of the columns */
    struct pool scratch; /* nested values of the current row as text */
    uint64_t ragged_count, ragged_line;
    size_t ragged_fields;
};

/* Exactly one of source and data is given. */
bool rows_open(struct rows *rows, const struct byte_source *source, yyjson_val *data,
               struct rows_options options, struct tool_error *e);
void rows_close(struct rows *rows);

/* The next row, NULL at the end.  It lives until the next call. */
bool rows_next(struct rows *rows, struct row **out, struct tool_error *e);

#endif
