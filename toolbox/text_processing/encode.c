/* Base64 and JSON. */
#include <string.h>

#include "buffer.h"
#include "utf8.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool op_base64_encode(struct task *task, struct tool_error *e)
{
    struct buffer out = {0};
    const unsigned char *bytes = (const unsigned char *) task->text.ptr;
    for (size_t i = 0; i < task->text.len; i += 3) {
        size_t left = task->text.len - i;
        uint32_t group = (uint32_t) bytes[i] << 16 | (left > 1 ? (uint32_t) bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0u);
        char four[4] = {alphabet[group >> 18], alphabet[group >> 12 & 63],
                        left > 1 ? alphabet[group >> 6 & 63] : '=',
                        left > 2 ? alphabet[group & 63] : '='};
        buffer_add(&out, four, 4);
    }
    return task_set_text(task, &out, e);
}

/* Takes both alphabets (+/ and -_), line breaks and missing padding. */
bool op_base64_decode(struct task *task, struct tool_error *e)
{
    struct buffer out = {0};
    uint32_t bits = 0;
    int count = 0;
    for (size_t i = 0; i < task->text.len; i++) {
        char c = task->text.ptr[i];
        if (c == '=' || c == '\n' || c == '\r' || c == ' ' || c == '\t')
            continue;
        c = c == '-' ? '+' : c == '_' ? '/' : c;
        const char *found = c == '\0' ? NULL : strchr(alphabet, c);
        if (found == NULL)
            return tool_fail(e, "invalid_input",
                             "the text is not base64: byte %zu is not in its alphabet", i);
        bits = bits << 6 | (uint32_t) (found - alphabet);
        count += 6;
        if (count >= 8) {
            count -= 8;
            char byte = (char) (bits >> count);
            buffer_add(&out, &byte, 1);
        }
    }
    if (count == 6)
        return tool_fail(e, "invalid_input",
                         "the text is not base64: its last character is missing");
    if (!utf8_is_valid(out.ptr, out.len))
        return tool_fail(
            e, "invalid_input",
            "the decoded bytes are not UTF-8 text, and this tool gives back text only");
    return task_set_text(task, &out, e);
}

bool op_json_format(struct task *task, struct tool_error *e)
{
    int64_t indent;
    yyjson_read_err problem;
    if (!tool_integer_or(task->input, "indent", 2, 0, 4, &indent, e))
        return false;
    if (indent == 1 || indent == 3)
        return tool_fail(e, "invalid_input", "\"indent\" is 0 (on one line), 2 or 4");
    yyjson_doc *doc =
        yyjson_read_opts((char *) (uintptr_t) task->text.ptr, task->text.len, 0, NULL, &problem);
    if (doc == NULL) {
        size_t line = 1, column = 1;
        for (size_t i = 0; i < problem.pos && i < task->text.len; i++) {
            column = task->text.ptr[i] == '\n' ? 1 : column + 1;
            line += task->text.ptr[i] == '\n';
        }
        return tool_fail(e, "invalid_input", "not JSON: %s at line %zu, column %zu", problem.msg,
                         line, column);
    }
    size_t len = 0;
    yyjson_write_flag flags = indent == 2   ? YYJSON_WRITE_PRETTY_TWO_SPACES
                              : indent == 4 ? YYJSON_WRITE_PRETTY
                                            : 0;
    char *json = yyjson_write(doc, flags, &len);
    if (json == NULL)
        return tool_fail(e, "limit", "the formatted JSON is too long");
    struct buffer out = {0};
    buffer_add(&out, json, len);
    return task_set_text(task, &out, e);
}
