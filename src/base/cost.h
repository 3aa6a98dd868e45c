/*
 * cost: what something takes of the four things a budget limits.  Passed by value.
 *
 * tokens = input + output, cached and reasoning included; time_ms excludes waiting for approval; money is integer
 * nano-USD (10^-9); tool_calls counts calls.  COST_UNLIMITED in a limit's field means no limit there; JSON null.
 * cost_nanousd is a decimal string in JSON.  Arithmetic saturates; a saturated sum fits no limit.
 */
#ifndef NEXUS_BASE_COST_H
#define NEXUS_BASE_COST_H

#include "base/attributes.h"

typedef struct {
    int64_t tokens;
    int64_t time_ms;
    int64_t cost_nanousd;
    int64_t tool_calls;
} cost;

enum { COST_FIELD_COUNT = 4 };
#define COST_UNLIMITED INT64_MAX
#define COST_LIMITLESS ((cost){COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED})

cost cost_add(cost a, cost b);            /* saturating at COST_UNLIMITED */
cost cost_subtract(cost a, cost b);       /* exact; unlimited minus anything stays unlimited */
cost cost_min(cost a, cost b);            /* per field */
cost cost_max(cost a, cost b);            /* per field */
bool cost_fits(cost amount, cost within); /* every field <= */
bool cost_is_zero(cost a);
bool cost_equal(cost a, cost b);
int64_t *cost_field(cost *c, int index); /* 0 tokens, 1 time_ms, 2 cost_nanousd, 3 tool_calls */
const char *cost_field_name(int index);

#endif
