/* Text from outside: whatever the bytes, what we write is UTF-8, and a cut stays UTF-8. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf written;
    struct json_writer w;
    const struct json *value;
    struct error e = {0};
    str text = str_of((const char *) data, size), back;
    strbuf_init(&written, arena, SIZE_MAX / 4);
    json_writer_init(&w, &written);
    json_write_str(&w, text);
    ensure(json_parse(arena, strbuf_str(&written), (struct json_limits){0}, &value, &e));
    ensure(json_to_str(value, &back) && str_is_utf8(back));
    if (str_is_utf8(text)) {
        ensure(str_equal(back, text));
        for (size_t max = 0; max <= size && max < 64; max++) {
            str cut = str_cut_utf8(text, max);
            ensure(str_is_utf8(cut) && cut.len <= max && cut.len + 3 >= max);
        }
    }
    return 0;
}
