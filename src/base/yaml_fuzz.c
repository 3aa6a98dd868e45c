/* YAML from outside: whatever is accepted prints as JSON, and every value has a line. */
#include "base/yaml.h"
#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lines(const struct yaml_document *document, const struct json *value)
{
    ensure(yaml_line(document, value) > 0);
    struct json_iter it = json_iter(value);
    const struct json *item;
    while (json_next(&it, NULL, &item))
        check_lines(document, item);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct yaml_document document;
    struct error e = {0};
    if (yaml_parse(arena, S("fuzz.yaml"), str_of((const char *) data, size), &document, &e)) {
        check_lines(&document, document.root);
        ensure(json_print(arena, document.root).len > 0);
    } else {
        ensure(e.message[0] != '\0' && str_is_utf8(str_from_cstr(e.message)));
    }
    return 0;
}
