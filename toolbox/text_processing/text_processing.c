/* text_processing: one operation on a text; the table below is the whole list. */
#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "utf8.h"

static const struct {
    const char *name;
    bool (*run)(struct task *task, struct tool_error *e);
} operations[] = {
    {"count", op_count},
    {"find", op_find},
    {"match", op_match},
    {"replace", op_replace},
    {"split", op_split},
    {"join", op_join},
    {"extract", op_extract},
    {"upper", op_upper},
    {"lower", op_lower},
    {"title", op_title},
    {"trim", op_trim},
    {"truncate", op_truncate},
    {"slugify", op_slugify},
    {"dedupe_lines", op_dedupe_lines},
    {"sort_lines", op_sort_lines},
    {"diff", op_diff},
    {"base64_encode", op_base64_encode},
    {"base64_decode", op_base64_decode},
    {"json_format", op_json_format},
};
enum { OPERATION_COUNT = sizeof operations / sizeof *operations };

void buffer_add(struct buffer *buffer, const char *ptr, size_t len)
{
    if (len > OUTPUT_BYTES_MAX - buffer->len) {
        buffer->is_full = true;
        return;
    }
    if (buffer->len + len > buffer->capacity) {
        buffer->capacity = (buffer->len + len) * 2 + 64;
        buffer->ptr = tool_realloc(buffer->ptr, buffer->capacity);
    }
    if (len > 0)
        memcpy(buffer->ptr + buffer->len, ptr, len);
    buffer->len += len;
}

void buffer_add_text(struct buffer *buffer, struct text text)
{
    buffer_add(buffer, text.ptr, text.len);
}

void task_count(struct task *task, const char *name, uint64_t value)
{
    if (task->counts == NULL) {
        task->counts = yyjson_mut_obj(task->doc);
        yyjson_mut_obj_add_val(task->doc, task->root, "counts", task->counts);
    }
    yyjson_mut_obj_add_uint(task->doc, task->counts, name, value);
}

bool task_set_text(struct task *task, const struct buffer *buffer, struct tool_error *e)
{
    if (buffer->is_full)
        return tool_fail(e, "limit", "the result is longer than %d KiB; work on a part of the text",
                         OUTPUT_BYTES_MAX / 1024);
    return yyjson_mut_obj_add_strn(task->doc, task->root, "text",
                                   buffer->ptr == NULL ? "" : buffer->ptr, buffer->len);
}

/* Matches come in order, so the characters are counted on from the last one. */
yyjson_mut_val *task_match(struct task *task, yyjson_mut_val *matches, struct text found)
{
    if (task->counted_to == NULL)
        task->counted_to = task->text.ptr;
    task->counted += utf8_count(task->counted_to, (size_t) (found.ptr - task->counted_to));
    task->counted_to = found.ptr;
    yyjson_mut_val *match = yyjson_mut_obj(task->doc);
    yyjson_mut_obj_add_strncpy(task->doc, match, "text", found.ptr, found.len);
    yyjson_mut_obj_add_uint(task->doc, match, "index", task->counted);
    yyjson_mut_arr_append(matches, match);
    return match;
}

bool task_lines(struct text text, struct text **lines, size_t *count, struct tool_error *e)
{
    const char *at = text.ptr, *end = text.ptr + text.len;
    size_t capacity = 64;
    *lines = tool_alloc(capacity * sizeof **lines);
    *count = 0;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t) (end - at));
        const char *next = stop == NULL ? end : stop + 1;
        stop = stop == NULL ? end : stop;
        if (stop > at && stop[-1] == '\r')
            stop--;
        if (*count == LINES_MAX)
            return tool_fail(e, "limit", "the text has more than %d lines", LINES_MAX);
        if (*count == capacity) {
            capacity *= 2;
            *lines = tool_realloc(*lines, capacity * sizeof **lines);
        }
        (*lines)[(*count)++] = (struct text){at, (size_t) (stop - at)};
        at = next;
    }
    return true;
}

static bool fail_operation(struct text name, struct tool_error *e)
{
    const char *names[OPERATION_COUNT + 1] = {0};
    char known[300];
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        names[i] = operations[i].name;
    tool_list(names, known, sizeof known);
    return tool_fail(e, "invalid_input", "unknown operation \"" TEXT_FMT "\"; use one of %s",
                     TEXT_ARG(name), known);
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    struct text name;
    struct task task = {.input = input, .doc = output, .root = yyjson_mut_obj(output)};
    yyjson_mut_doc_set_root(output, task.root);
    if (!tool_text(input, "operation", &name, e))
        return false;
    bool is_join = text_equal(name, TEXT("join")); /* takes `items` instead of a text */
    if (!(is_join ? tool_text_or(input, "text", TEXT(""), &task.text, e)
                  : tool_text(input, "text", &task.text, e)))
        return false;
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        if (strlen(operations[i].name) == name.len &&
            memcmp(operations[i].name, name.ptr, name.len) == 0)
            return operations[i].run(&task, e);
    return fail_operation(name, e);
}
