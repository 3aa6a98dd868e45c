/*
 * Budget: what one account may still spend.  Pure arithmetic, no I/O, no lock.
 *
 * Spending is two-step so that parallel calls cannot overdraw: a call reserves its worst case, then settles what it used.
 *      reserve --> settle (reserved -= worst, spent += used) | release (reserved -= worst)
 * Invariant, at every return, per field: spent + reserved <= limit, unless a provider used more than its reservation, which is booked
 * as `overdraft` and then blocks every further reservation.
 */
#ifndef NEXUS_ORCHESTRATOR_BUDGET_H
#define NEXUS_ORCHESTRATOR_BUDGET_H

#include "base/cost.h"
#include "base/error.h"

struct budget {
    cost limit; /* COST_UNLIMITED per field */
    cost spent;
    cost reserved;
    cost overdraft; /* part of spent that no reservation covered */
};

bool budget_fits(const struct budget *budget, cost worst_case,
                 int *field); /* field: the first that does not fit */
void budget_reserve(struct budget *budget, cost worst_case); /* ensure(budget_fits) */
void budget_settle(struct budget *budget, cost worst_case, cost used);
void budget_release(struct budget *budget, cost worst_case);
cost budget_remaining(const struct budget *budget); /* never negative; unlimited stays so */

#endif
