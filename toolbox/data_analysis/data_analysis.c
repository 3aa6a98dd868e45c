/* data_analysis: queries on CSV and JSON, streamed from the session's files. */
#include "nexus_tool.h"
#include "query.h"

static bool read_file(const struct byte_source *source, uint64_t offset, void *to, size_t size,
                      size_t *got, struct tool_error *e)
{
    return tool_file_read(source->name, offset, to, size, got, e);
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    return query_run(input, (struct byte_source){.read = read_file}, output, e);
}
