/* What a simulated model does with what it is asked. */
#ifndef NEXUS_TESTS_SIM_MINDS_H
#define NEXUS_TESTS_SIM_MINDS_H

#include "llm/prompt.h"
#include "world.h"

enum { MIND_CALLS_MAX = 3 };
struct mind {
    int call_count, text_count;
    char names[MIND_CALLS_MAX][65];
    char arguments[MIND_CALLS_MAX][64];
    const char *text; /* a piece of its answer */
};
void mind_draw(struct world *world, const struct prompt *prompt, struct mind *out);

#endif
