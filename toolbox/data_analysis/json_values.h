/*
 * JSON values one by one from a long input: JSON lines, values side by side, or one top-level array.
 *
 * Only one value is in memory at a time, so a file of any size can be read.
 * Ownership: the value lives until the next json_values_next().
 */
#ifndef DATA_ANALYSIS_JSON_VALUES_H
#define DATA_ANALYSIS_JSON_VALUES_H

#include "window.h"

enum { JSON_DEPTH_MAX = 64 };

struct json_values {
    struct window window;
    uint64_t line;       /* of the next byte */
    uint64_t value_line; /* where the current value began */
    bool in_array, is_array_closed, has_begun, needs_comma;
    yyjson_doc *doc;
    char *pool; /* reused by the parser for each value */
    size_t pool_bytes;
};

bool json_values_init(struct json_values *values, const struct byte_source *source,
                      struct tool_error *e);
void json_values_deinit(struct json_values *values);

/* The next value; *out is NULL at the end. */
bool json_values_next(struct json_values *values, yyjson_val **out, struct tool_error *e);

#endif
