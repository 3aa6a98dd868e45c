/* A whole query: the bytes before the first zero are the call's JSON, the rest is the file it reads. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void tool_release_all(void);

static struct text file;

static bool read_file(const struct byte_source *source, uint64_t offset, void *to, size_t size,
                      size_t *got, struct tool_error *e)
{
    (void) source;
    struct byte_source text = byte_source_text(file);
    return text.read(&text, offset, to, size, got, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tool_error e = {0};
    const uint8_t *zero = size == 0 ? NULL : memchr(data, 0, size);
    size_t len = zero == NULL ? size : (size_t) (zero - data);
    file = zero == NULL ? TEXT("") : (struct text){(const char *) zero + 1, size - len - 1};
    yyjson_doc *input = yyjson_read((const char *) data, len, 0);
    if (yyjson_is_obj(yyjson_doc_get_root(input))) {
        yyjson_mut_doc *output = yyjson_mut_doc_new(NULL);
        if (query_run(yyjson_doc_get_root(input), (struct byte_source){.read = read_file}, output,
                      &e)) {
            char *json = yyjson_mut_write(output, 0, NULL);
            if (json == NULL)
                abort(); /* an answer that is no JSON */
            free(json);
        } else if (e.code[0] == '\0' || e.message[0] == '\0')
            abort();
        yyjson_mut_doc_free(output);
    }
    yyjson_doc_free(input);
    tool_release_all();
    return 0;
}
