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
    struct regex *regex;
    struct error e = {0};
    bool first = false, second = false;
    size_t steps = EXPRESSION_STEPS_MAX, again = EXPRESSION_STEPS_MAX, more = EXPRESSION_STEPS_MAX;
    str_cut(all, '\n', &pattern, &text);
    if (!str_is_utf8(pattern) || !str_is_utf8(text))
        return 0;
    if (!regex_compile(arena, pattern, &regex, &e)) {
        ensure(e.reason == REASON_EXPRESSION);
        return 0;
    }
    ensure(regex_size(regex) <= REGEX_CODE_MAX);
    if (!regex_matches(regex, text, arena, &steps, &first, &e)) {
        ensure(e.reason == REASON_LIMIT && steps == 0);
        return 0;
    }
    ensure(regex_matches(regex, text, arena, &again, &second, &e) && first == second &&
           steps == again);
    str longer = str_join(arena, (str[]){text, S("\nand more")}, 2);
    if (first && !asks_for_places(pattern) &&
        regex_matches(regex, longer, arena, &more, &second, &e))
        ensure(second);
    return 0;
}
