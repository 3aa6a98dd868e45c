/* Any bytes as CSV: each field must lie within what was read, and lines must only go up. */
#include <stdint.h>
#include <stdlib.h>

#include "csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void tool_release_all(void);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tool_error e = {0};
    struct byte_source source = byte_source_text((struct text){(const char *) data, size});
    struct csv csv;
    bool has_record = true;
    uint64_t line = 0;
    size_t bytes = 0;
    if (!csv_init(&csv, &source, csv_detect_separator(source.name.ptr, size), &e))
        abort();
    while (csv_next(&csv, &has_record, &e) && has_record) {
        if (csv.record_line <= line || csv.field_count == 0)
            abort();
        line = csv.record_line;
        for (size_t i = 0; i < csv.field_count; i++) {
            struct text field = csv.fields[i];
            if (field.ptr < csv.window.buffer || field.ptr + field.len > csv.window.end)
                abort();
            bytes += field.len;
        }
    }
    if (bytes > size)
        abort();
    csv_deinit(&csv);
    tool_release_all();
    return 0;
}
