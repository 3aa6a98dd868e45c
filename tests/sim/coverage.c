#include "coverage.h"
#include <stdio.h>

static const char *const texts[] = {
#define COVER(name, text) [COVER_##name] = text,
#include "coverage.def"
#undef COVER
};

static void add(uint64_t *to, const uint64_t *part, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += part[i];
}

void coverage_add(struct coverage *to, const struct coverage *part)
{
    add(to->things, part->things, COVER_COUNT);
    add(to->events, part->events, EVENT_TYPE_COUNT);
    add(to->steps, part->steps, STEP_KIND_COUNT);
}

static size_t print_line(uint64_t count, const char *what)
{
    printf("%12llu  %s%s\n", (unsigned long long) count, what, count == 0 ? "   <-- NEVER" : "");
    return count == 0;
}

size_t coverage_print(const struct coverage *coverage)
{
    size_t zeros = 0;
    char what[80];
    for (int i = 0; i < COVER_COUNT; i++)
        zeros += print_line(coverage->things[i], texts[i]);
    for (int i = 0; i < STEP_KIND_COUNT; i++) {
        snprintf(what, sizeof what, "step %s", step_kind_name((enum step_kind) i));
        zeros += print_line(coverage->steps[i], what);
    }
    for (int i = 0; i < EVENT_TYPE_COUNT; i++) {
        snprintf(what, sizeof what, "event %s", event_type_name((enum event_type) i));
        zeros += print_line(coverage->events[i], what);
    }
    return zeros;
}
