/*
 * Rates: how fast a session spends.  A minute is cut into slots; what was used stands in the slot in which it was settled, and what is
 * reserved counts as if it were used now.  So within any LEDGER_RATE_MS (and the width of a slot more) no more than the rate is charged.
 * Kept in memory: after a restart the minute begins anew.
 */
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"
#include <stdlib.h>

struct rate_window {
    int64_t slot; /* the newest */
    cost used[LEDGER_RATE_SLOTS];
};

static int64_t slot_now(struct ledger *ledger)
{
    return clock_monotonic_ns(ledger->clock) / (LEDGER_RATE_MS / LEDGER_RATE_SLOTS * 1000000ll);
}

static bool has_rate(const struct ledger_path *path)
{
    return path->extra && path->accounts[ACCOUNT_SESSION] &&
           !cost_equal(path->extra->per_minute, COST_LIMITLESS);
}

/* Slots that are over are emptied. */
static struct rate_window *window_of(struct ledger *ledger, struct account *account)
{
    int64_t slot = slot_now(ledger);
    struct rate_window *window = account->rate;
    if (!window) {
        account->rate = window = calloc(1, sizeof *window);
        ensure(window != NULL);
        window->slot = slot;
    }
    if (slot - window->slot > LEDGER_RATE_SLOTS)
        window->slot = slot - LEDGER_RATE_SLOTS;
    while (window->slot < slot)
        window->used[++window->slot % LEDGER_RATE_SLOTS] = (cost){0};
    return window;
}

cost rate_remaining(struct ledger *ledger, const struct ledger_path *path)
{
    if (!has_rate(path))
        return COST_LIMITLESS;
    struct account *account = path->accounts[ACCOUNT_SESSION];
    const struct rate_window *window = window_of(ledger, account);
    cost used = cost_subtract(account->budget.reserved, account->held_back);
    for (int i = 0; i < LEDGER_RATE_SLOTS; i++)
        used = cost_add(used, window->used[i]);
    return cost_max(cost_subtract(path->extra->per_minute, used), (cost){0});
}

void rate_charge(struct ledger *ledger, const struct ledger_path *path, cost used)
{
    if (!has_rate(path))
        return;
    struct rate_window *window = window_of(ledger, path->accounts[ACCOUNT_SESSION]);
    cost *slot = &window->used[window->slot % LEDGER_RATE_SLOTS];
    *slot = cost_add(*slot, used);
}

void ledger_set_rate(struct ledger *ledger, struct ledger_path *path, cost per_minute)
{
    if (!path->extra && cost_equal(per_minute, COST_LIMITLESS))
        return;
    struct ledger_extra *extra = path_extra(path);
    pthread_mutex_lock(&ledger->lock);
    extra->per_minute = per_minute;
    pthread_mutex_unlock(&ledger->lock);
}
