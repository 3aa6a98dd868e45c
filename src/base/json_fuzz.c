/*
 * JSON from outside: what is accepted prints to text that reads back to the same text, and so does
 * its canonical form; what is refused costs nothing and says why.
 */
#include "base/json.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct json *value, size_t depth)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    str key;
    size_t count = 0;
    ensure(depth <= JSON_DEPTH_MAX);
    while (json_next(&it, &key, &item)) {
        ensure(item != NULL && json_type(item) != JSON_ABSENT);
        if (json_type(value) == JSON_OBJECT)
            ensure(str_is_utf8(key) && json_get(value, key) == item);
        count++;
        walk(item, depth + 1);
    }
    ensure(count == json_count(value));
}

static str print_again(struct arena *arena, str text,
                       str (*print)(struct arena *, const struct json *))
{
    const struct json *value;
    struct error e = {0};
    ensure(json_parse(arena, text, (struct json_limits){.bytes_max = SIZE_MAX}, &value, &e));
    return print(arena, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(256u << 20);
    str text = str_of((const char *) data, size);
    const struct json *value;
    struct error e = {0};
    if (!json_parse(arena, text, (struct json_limits){0}, &value, &e)) {
        ensure(e.message[0] != '\0' && str_is_utf8(str_from_cstr(e.message)));
        ensure(arena_bytes(arena) == 0);
        if (json_parse(arena, text, (struct json_limits){.allow_duplicates = true}, &value, &e))
            ensure(json_print(arena, value).len > 0);
        return 0;
    }
    walk(value, 0);
    str printed = json_print(arena, value);
    ensure(str_is_utf8(printed));
    ensure(str_equal(printed, print_again(arena, printed, json_print)));
    str canonical = json_canonical(arena, value);
    ensure(str_equal(canonical, print_again(arena, canonical, json_canonical)));
    ensure(str_equal(canonical, print_again(arena, printed, json_canonical)));
    return 0;
}
