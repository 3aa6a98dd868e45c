#include "base/cost.h"

#include "base/ensure.h"

static int64_t add_saturating(int64_t a, int64_t b)
{
    int64_t sum;
    if (a == COST_UNLIMITED || b == COST_UNLIMITED)
        return COST_UNLIMITED;
    if (__builtin_add_overflow(a, b, &sum))
        return b > 0 ? COST_UNLIMITED : INT64_MIN;
    return sum;
}

static int64_t subtract_saturating(int64_t a, int64_t b)
{
    int64_t difference;
    if (a == COST_UNLIMITED)
        return COST_UNLIMITED;
    if (__builtin_sub_overflow(a, b, &difference))
        return b < 0 ? COST_UNLIMITED : INT64_MIN;
    return difference;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static cost combine(cost a, cost b, int64_t (*field)(int64_t, int64_t))
{
    return (cost){
        .tokens = field(a.tokens, b.tokens),
        .time_ms = field(a.time_ms, b.time_ms),
        .cost_nanousd = field(a.cost_nanousd, b.cost_nanousd),
        .tool_calls = field(a.tool_calls, b.tool_calls),
    };
}

cost cost_add(cost a, cost b)
{
    return combine(a, b, add_saturating);
}

cost cost_subtract(cost a, cost b)
{
    return combine(a, b, subtract_saturating);
}

cost cost_min(cost a, cost b)
{
    return combine(a, b, smaller);
}

cost cost_max(cost a, cost b)
{
    return combine(a, b, larger);
}

/* A saturated amount fits nothing but "no limit there": it is more than anybody counted. */
bool cost_fits(cost amount, cost within)
{
    return amount.tokens <= within.tokens && amount.time_ms <= within.time_ms &&
           amount.cost_nanousd <= within.cost_nanousd && amount.tool_calls <= within.tool_calls;
}

bool cost_is_zero(cost a)
{
    return cost_equal(a, (cost){0});
}

bool cost_equal(cost a, cost b)
{
    return a.tokens == b.tokens && a.time_ms == b.time_ms && a.cost_nanousd == b.cost_nanousd &&
           a.tool_calls == b.tool_calls;
}

int64_t *cost_field(cost *c, int index)
{
    switch (index) {
    case 0: return &c->tokens;
    case 1: return &c->time_ms;
    case 2: return &c->cost_nanousd;
    case 3: return &c->tool_calls;
    default: unreachable_state();
    }
}

const char *cost_field_name(int index)
{
    static const char *const names[COST_FIELD_COUNT] = {"tokens", "time_ms", "cost_nanousd",
                                                        "tool_calls"};
    ensure(index >= 0 && index < COST_FIELD_COUNT);
    return names[index];
}
