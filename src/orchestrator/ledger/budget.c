#include "orchestrator/ledger/budget.h"
#include "base/ensure.h"
#include "base/fault.h"

cost budget_remaining(const struct budget *budget)
{
    cost used = cost_add(budget->spent, budget->reserved);
    if (FAULT(
            "plant.overspend")) /* a bug put in on purpose: it forgets what others have reserved */
        used = budget->spent;
    return cost_max(cost_subtract(budget->limit, used), (cost){0});
}

bool budget_fits(const struct budget *budget, cost worst_case, int *field)
{
    cost remaining = budget_remaining(budget);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t amount = *cost_field(&worst_case, i);
        ensure(amount >= 0);
        if (amount <= *cost_field(&remaining, i))
            continue;
        if (field)
            *field = i;
        return false;
    }
    return true;
}

void budget_reserve(struct budget *budget, cost worst_case)
{
    ensure(budget_fits(budget, worst_case, NULL));
    budget->reserved = cost_add(budget->reserved, worst_case);
}

void budget_release(struct budget *budget, cost worst_case)
{
    ensure(cost_fits(worst_case, budget->reserved));
    budget->reserved = cost_subtract(budget->reserved, worst_case);
}

void budget_settle(struct budget *budget, cost worst_case, cost used)
{
    budget_release(budget, worst_case);
    budget->spent = cost_add(budget->spent, used);
    cost beyond = cost_max(cost_subtract(used, worst_case), (cost){0});
    budget->overdraft = cost_add(budget->overdraft, beyond);
}
