/*
 * Query: reads the steps of a call, binds them to the data's columns, runs the rows through them.
 *
 *     {"file" | "data", "format"?, "separator"?, "header"?, "steps": [...]} -> {"columns", "rows", "row_count", "notes"?}
 *
 * Files are reached through `files` only, so that tests and fuzzers run the same code on bytes in memory.
 */
#ifndef DATA_ANALYSIS_QUERY_H
#define DATA_ANALYSIS_QUERY_H

#include "window.h"

/* `files.name` is set to the file asked for. */
bool query_run(yyjson_val *input, struct byte_source files, yyjson_mut_doc *output,
               struct tool_error *e);

#endif
