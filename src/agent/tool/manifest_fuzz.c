/* Any bytes as manifest.yaml: a sound tool or an error that names its line. */
#include "agent/tool/manifest_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct tool tool;
    struct error e;
    struct strbuf text;
    struct json_writer w;
    if (!manifest_read(arena, S("manifest.yaml"), str_of((const char *) data, size), &tool, &e)) {
        ensure(e.reason == REASON_CONFIG &&
               str_starts_with(str_from_cstr(e.message), S("manifest.yaml:")));
        return 0;
    }
    ensure(tool.name.len > 0 && tool.limits.fuel > 0 && tool.limits.time_ms > 0 &&
           tool.limits.memory_bytes > 0);
    ensure(tool.limits.output_bytes <= TOOL_OUTPUT_BYTES_MAX && tool.limits.table_elements > 0);
    strbuf_init(&text, arena, 4u << 20);
    json_writer_init(&w, &text);
    tool_write_json(&w, &tool);
    return 0;
}
