/*
 * Times, durations, sizes and money from outside: what is read is in range and, where there is a
 * way back, goes there.
 */
#include "base/timefmt.h"
#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    str text = str_of((const char *) data, size);
    int64_t value, again;
    if (time_parse(text, &value)) {
        str formatted = time_str(arena, value);
        ensure(time_parse(formatted, &again));
        /* An offset can reach past the years 0000 to 9999, which is all that a time can show. */
        ensure(again == value || str_starts_with(formatted, S("0000-")) ||
               str_starts_with(formatted, S("9999-")));
    }
    if (money_parse_usd(text, &value))
        ensure(value >= 0 && money_parse_usd(money_format_usd(arena, value), &again) &&
               again == value);
    if (duration_parse(text, &value))
        ensure(value >= 0);
    if (bytes_parse(text, &value))
        ensure(value >= 0);
    return 0;
}
