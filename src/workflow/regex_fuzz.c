/*
 * The first line as a pattern, the rest as a text: what compiles answers within its bounds, the same each time, whatever stands around; and
 * a text that matches still does with more behind it unless the pattern asks where it ends.
 */
#include "workflow/regex.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool asks_for_places(str pattern)
{
    return str_find_char(pattern, '^') != STR_NOT_FOUND ||
           str_find_char(pattern, '$') != STR_NOT_FOUND ||
           str_find_char(pattern, '\\') != STR_NOT_FOUND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(64u << 20);
    str all = str_of((const char *) data, size), pattern, text;
    struct regex regex;
    struct error e = {0};
    bool first = false, second = false;
    str_cut(all, '\n', &pattern, &text);
    if (!str_is_utf8(pattern) || !str_is_utf8(text))
        return 0;
    if (!regex_compile(pattern, &regex, &e)) {
        ensure(e.reason == REASON_EXPRESSION && !regex.program);
        return 0;
    }
    ensure(regex.parts <= REGEX_PARTS_MAX);
    ensure(regex_matches(&regex, text, &first, &e) && regex_matches(&regex, text, &second, &e));
    ensure(first == second);
    str longer = str_join(arena, (str[]){text, S("\nand more")}, 2);
    if (first && !asks_for_places(pattern))
        ensure(regex_matches(&regex, longer, &second, &e) && second);
    regex_free(&regex);
    return 0;
}
