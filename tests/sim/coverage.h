/*
 * Coverage: how often each thing that the simulation is for has happened.  Counted in each world, added up over all seeds.
 * To add one: a line in coverage.def and a `cover` where it happens.
 */
#ifndef NEXUS_TESTS_SIM_COVERAGE_H
#define NEXUS_TESTS_SIM_COVERAGE_H

#include "orchestrator/journal/event.h"
#include "workflow/definition.h"

enum cover {
#define COVER(name, text) COVER_##name,
#include "coverage.def"
#undef COVER
    COVER_COUNT
};

struct coverage {
    uint64_t things[COVER_COUNT];
    uint64_t events[EVENT_TYPE_COUNT]; /* of the journals, as they were stored */
    uint64_t steps[STEP_KIND_COUNT];   /* begun */
};

void coverage_add(struct coverage *to, const struct coverage *part);
/* The table; gives how many of its lines are zero. */
size_t coverage_print(const struct coverage *coverage);

#endif
