/* Any bytes as a file of time zone data: refused, or every time has an offset of at most eight days (a rule may say 167 hours). */
#include "workflow/zone.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { TWO_DAYS_S = 2 * 86400, STEPS = 200 };
    OWNED(arena) arena = arena_create(0);
    const struct zone *zone;
    struct error e = {0};
    if (!zone_read(arena, str_of((const char *) data, size), &zone, &e))
        return 0;
    for (int64_t i = -STEPS; i < STEPS; i++) {
        int64_t offset = zone_offset_s(zone, i * 86400 * 101);
        ensure(offset >= -TWO_DAYS_S * 4 && offset <= TWO_DAYS_S * 4);
        (void) zone_from_wall(zone, i * 86400 * 101);
    }
    return 0;
}
