/*
 * The fullest accounts, for the gauges: names without end would fill the metrics.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"

static double fullest_of(const struct ledger_busy *busy)
{
    double most = -1;
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (busy->ratios[i] > most)
            most = busy->ratios[i];
    return most;
}

static void measure(const struct account *account, struct ledger_busy *out)
{
    cost limit = account->limit,
         used = cost_subtract(cost_add(account->budget.spent, account->budget.reserved),
                              account->lease_free);
    *out = (struct ledger_busy){.level = account->level, .subject = account->subject};
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t whole = *cost_field(&limit, i);
        bool has_limit = whole != COST_UNLIMITED && whole > 0;
        out->ratios[i] = has_limit ? (double) *cost_field(&used, i) / (double) whole : -1;
    }
}

static void join(struct ledger_busy *other, const struct ledger_busy *busy)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (busy->ratios[i] > other->ratios[i])
            other->ratios[i] = busy->ratios[i];
}

/* Keeps the fullest; what falls out joins the rest. */
static void keep(struct ledger_busy *kept, size_t *count, struct ledger_busy busy,
                 struct ledger_busy *other)
{
    if (*count < BUDGET_GAUGES_MAX) {
        kept[(*count)++] = busy;
        return;
    }
    size_t least = 0;
    for (size_t i = 1; i < *count; i++)
        if (fullest_of(&kept[i]) < fullest_of(&kept[least]))
            least = i;
    if (fullest_of(&kept[least]) < fullest_of(&busy)) {
        join(other, &kept[least]);
        kept[least] = busy;
    } else {
        join(other, &busy);
    }
}

struct ledger_busy *ledger_busiest(struct ledger *ledger, struct arena *arena,
                                   enum account_level level, size_t *count)
{
    struct ledger_busy *kept = ARENA_ARRAY(arena, struct ledger_busy, BUDGET_GAUGES_MAX + 1);
    struct ledger_busy other = {level, S("other"), {-1, -1, -1, -1}};
    *count = 0;
    pthread_mutex_lock(&ledger->lock);
    LIST_EACH(node, &ledger->upper)
    {
        struct account *account = LIST_ITEM(node, struct account, upper_link);
        struct ledger_busy busy;
        if (account->level != level)
            continue;
        account_refresh(ledger, account);
        measure(account, &busy);
        if (fullest_of(&busy) >= 0)
            keep(kept, count, busy, &other);
    }
    for (size_t i = 0; i < *count; i++)
        kept[i].subject = str_copy(arena, kept[i].subject);
    pthread_mutex_unlock(&ledger->lock);
    if (fullest_of(&other) >= 0)
        kept[(*count)++] = other;
    return kept;
}
