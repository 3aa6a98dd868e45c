/* Buffer: bytes that grow, up to the most this tool gives back. */
#ifndef TEXT_PROCESSING_BUFFER_H
#define TEXT_PROCESSING_BUFFER_H

#include "nexus_tool.h"

enum {
    OUTPUT_BYTES_MAX = 768 * 1024, /* of text; JSON escapes come on top */
    MATCHES_MAX = 1000,
    LINES_MAX = 100000,
};

struct buffer {
    char *ptr;
    size_t len, capacity;
    bool is_full; /* something did not fit */
};

void buffer_add(struct buffer *buffer, const char *ptr, size_t len);
void buffer_add_text(struct buffer *buffer, struct text text);

/* What an operation works on and fills in. */
struct task {
    yyjson_val *input;
    struct text text;
    yyjson_mut_doc *doc;
    yyjson_mut_val *root, *counts; /* counts is made on first use */
    const char *counted_to;        /* how far task_match() has counted characters */
    uint64_t counted;
};

void task_count(struct task *task, const char *name, uint64_t value);
bool task_set_text(struct task *task, const struct buffer *buffer, struct tool_error *e);

/* Adds {text, index} to `matches`; index counts characters. */
yyjson_mut_val *task_match(struct task *task, yyjson_mut_val *matches, struct text found);

/* Lines without their line break; a last empty one after a final break is not counted. */
bool task_lines(struct text text, struct text **lines, size_t *count, struct tool_error *e);

/* transform.c */
bool op_count(struct task *task, struct tool_error *e);
bool op_upper(struct task *task, struct tool_error *e);
bool op_lower(struct task *task, struct tool_error *e);
bool op_title(struct task *task, struct tool_error *e);
bool op_trim(struct task *task, struct tool_error *e);
bool op_truncate(struct task *task, struct tool_error *e);
bool op_slugify(struct task *task, struct tool_error *e);
/* lines.c */
bool op_dedupe_lines(struct task *task, struct tool_error *e);
bool op_sort_lines(struct task *task, struct tool_error *e);
bool op_join(struct task *task, struct tool_error *e);
bool op_diff(struct task *task, struct tool_error *e);
/* search.c */
bool op_find(struct task *task, struct tool_error *e);
bool op_match(struct task *task, struct tool_error *e);
bool op_replace(struct task *task, struct tool_error *e);
bool op_split(struct task *task, struct tool_error *e);
bool op_extract(struct task *task, struct tool_error *e);
/* encode.c */
bool op_base64_encode(struct task *task, struct tool_error *e);
bool op_base64_decode(struct task *task, struct tool_error *e);
bool op_json_format(struct task *task, struct tool_error *e);

#endif
