/*
 * file_system: checks the request and asks the host, which alone touches files.
 *
 * The host decides what may be touched (permissions.paths, sizes, extensions, quota) on what it really opens; the checks here give a
 * model a clear answer before anything is asked.
 */
#include <string.h>

#include "nexus_tool.h"

enum { PATH_BYTES_MAX = 1024, PATTERN_BYTES_MAX = 200 };

static const char *const operations[] = {"read", "write",  "append", "list",
                                         "stat", "delete", "search", NULL};
static const char *const members[] = {"operation", "path", "content", "encoding", "pattern", NULL};

static bool needs_path(struct text operation)
{
    return !text_equal(operation, TEXT("list")) && !text_equal(operation, TEXT("search"));
}

static bool needs_content(struct text operation)
{
    return text_equal(operation, TEXT("write")) || text_equal(operation, TEXT("append"));
}

static bool check(yyjson_val *input, struct tool_error *e)
{
    struct text operation, path, content, pattern;
    if (!tool_text(input, "operation", &operation, e) ||
        !tool_text_or(input, "path", TEXT(""), &path, e) ||
        !tool_text_or(input, "content", TEXT(""), &content, e) ||
        !tool_text_or(input, "pattern", TEXT("*"), &pattern, e))
        return false;
    if (tool_choice(operation, operations) < 0) {
        char list[100];
        tool_list(operations, list, sizeof list);
        return tool_fail(e, "invalid_input", "\"operation\" is one of %s, not \"" TEXT_FMT "\"",
                         list, TEXT_ARG(operation));
    }
    if (needs_path(operation) && path.len == 0)
        return tool_fail(e, "invalid_input",
                         "\"" TEXT_FMT
                         "\" needs \"path\", such as \"/tmp/agent-workspace/output/notes.txt\"",
                         TEXT_ARG(operation));
    if (needs_content(operation) && !yyjson_is_str(yyjson_obj_get(input, "content")))
        return tool_fail(e, "invalid_input", "\"" TEXT_FMT "\" needs \"content\"",
                         TEXT_ARG(operation));
    if (path.len > PATH_BYTES_MAX || pattern.len > PATTERN_BYTES_MAX)
        return tool_fail(e, "invalid_input",
                         "\"path\" has at most %d bytes and \"pattern\" at most %d", PATH_BYTES_MAX,
                         PATTERN_BYTES_MAX);
    return true;
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    yyjson_val *answer;
    if (!check(input, e))
        return false;
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request);
    yyjson_mut_doc_set_root(request, root);
    for (int i = 0; members[i] != NULL; i++) {
        yyjson_val *value = yyjson_obj_get(input, members[i]);
        if (yyjson_is_str(value))
            yyjson_mut_obj_add_val(request, root, members[i], yyjson_val_mut_copy(request, value));
    }
    if (!tool_host_call("file_system", request, &answer, e))
        return false;
    yyjson_mut_doc_set_root(output, yyjson_val_mut_copy(output, answer));
    return true;
}
