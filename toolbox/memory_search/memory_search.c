/* memory_search: checks the request and asks the host, which knows whose memory it is. */
#include "nexus_tool.h"

enum { QUERY_BYTES_MAX = 8192, RESULTS_DEFAULT = 10, RESULTS_MAX = 20 };

static const char *const scopes[] = {"user", "session", NULL};

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    struct text query, scope;
    int64_t limit;
    yyjson_val *answer;
    if (!tool_text(input, "query", &query, e) ||
        !tool_text_or(input, "scope", TEXT("user"), &scope, e) ||
        !tool_integer_or(input, "limit", RESULTS_DEFAULT, 1, RESULTS_MAX, &limit, e))
        return false;
    if (query.len > QUERY_BYTES_MAX)
        return tool_fail(e, "invalid_input", "\"query\" has %zu bytes, at most %d are looked for",
                         query.len, QUERY_BYTES_MAX);
    if (tool_choice(scope, scopes) < 0)
        return tool_fail(e, "invalid_input", "\"scope\" is user or session, not \"" TEXT_FMT "\"",
                         TEXT_ARG(scope));
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request);
    yyjson_mut_doc_set_root(request, root);
    yyjson_mut_obj_add_strn(request, root, "query", query.ptr, query.len);
    yyjson_mut_obj_add_strn(request, root, "scope", scope.ptr, scope.len);
    yyjson_mut_obj_add_int(request, root, "limit", limit);
    if (!tool_host_call("memory_search", request, &answer, e))
        return false;
    yyjson_mut_doc_set_root(output, yyjson_val_mut_copy(output, answer));
    return true;
}
