/* Definitions of workflows, drawn from the seed: all kinds of steps, small, valid; ids of steps that say how they are undone begin with "u_". */
#ifndef NEXUS_TESTS_SIM_DEFINITIONS_H
#define NEXUS_TESTS_SIM_DEFINITIONS_H

#include "world.h"

/* "wINDEX", as JSON.  It may use those with a lower index.  Its input is {"n": number, "items": list}. */
str definition_draw(struct world *world, struct arena *arena, int index);

#endif
