/* Any bytes as the input of a tool made from the C template. */
#include "nexus.h"

#include <stdlib.h>

struct text nexus_out_bytes(const struct out *out);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* An instance of a tool lives for one call and frees nothing. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { FUZZ_BYTES_MAX = 1 << 16 };
    struct text text = {(const char *) data, size};
    const struct json *value = size <= FUZZ_BYTES_MAX ? json_parse(text) : NULL;
    int64_t whole;
    double real;
    if (!value)
        return 0;
    (void) json_integer(value, &whole);
    (void) json_real(value, &real);
    struct out *out = out_create();
    out_value(out, value);
    if (!json_parse(nexus_out_bytes(out))) /* what is written can be read */
        abort();
    return 0;
}
