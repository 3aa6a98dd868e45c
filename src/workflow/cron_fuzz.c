/* Any text as a schedule, after a first line that is the rule of a zone: what is read has a next time that lies ahead, or none. */
#include "workflow/cron.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    str head, rest;
    const struct zone *zone = zone_utc();
    struct cron cron;
    struct error e = {0};
    int64_t now = INT64_C(1767225600000000), next;
    (void) str_cut(str_of((const char *) data, size), '\n', &head, &rest);
    if (!zone_of_rule(arena, head, &zone, &e))
        zone = zone_utc();
    if (cron_parse(rest, &cron, &e) && cron_next(&cron, zone, now, &next))
        ensure(next > now && next % 1000000 == 0);
    return 0;
}
