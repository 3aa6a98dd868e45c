/* memory_store: checks the request and asks the host, which knows whose memory it is. */
#include "nexus_tool.h"

enum { CONTENT_BYTES_MAX = 32768 };

static const char *const members[] = {"content", "content_type", "metadata", NULL};

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    struct text content;
    yyjson_val *answer;
    if (!tool_text(input, "content", &content, e))
        return false;
    if (content.len == 0 || content.len > CONTENT_BYTES_MAX)
        return tool_fail(e, "invalid_input", "\"content\" has %zu bytes; keep 1 to %d at a time",
                         content.len, CONTENT_BYTES_MAX);
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request);
    yyjson_mut_doc_set_root(request, root);
    for (int i = 0; members[i] != NULL; i++) {
        yyjson_val *value = yyjson_obj_get(input, members[i]);
        if (value)
            yyjson_mut_obj_add_val(request, root, members[i], yyjson_val_mut_copy(request, value));
    }
    if (!tool_host_call("memory_store", request, &answer, e))
        return false;
    yyjson_mut_doc_set_root(output, yyjson_val_mut_copy(output, answer));
    return true;
}
