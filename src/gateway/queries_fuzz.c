/* Query strings from outside, held against every route. */
#include "gateway/queries.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    str query = str_of((const char *) data, size);
    for (size_t i = 0; i < routes_count(); i++) {
        struct error e = {0};
        bool is_taken = queries_check(arena, routes_at(i), query, &e);
        ensure(is_taken == (e.code == ERROR_OK) && (is_taken || e.reason == REASON_INVALID));
        ensure(str_is_utf8(str_from_cstr(e.message)));
    }
    return 0;
}
