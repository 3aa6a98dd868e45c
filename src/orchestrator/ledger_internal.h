/*
 * The ledger's inside: accounts and their rows.
 *
 *   reserved (budget.reserved) = reservations of runs and of plain calls on unlimited accounts + lease
 *   lease = lease_drawn (by calls that are out) + lease_free
 */
#ifndef NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H
#define NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H

#include "base/map.h"
#include "orchestrator/ledger.h"
#include <pthread.h>

struct account {
    uuid tenant_id;
    enum account_level level;
    str subject; /* user id, session id text, tenant id text; owned */
    str key;     /* of the map; owned */
    struct budget budget;
    cost lease_free, lease_drawn;
    int plain_calls; /* that are out */
    bool
        is_leasing; /* they draw on the lease; changes only while none is out, so that each ends as it began */
    int references;
    int64_t idle_since_ns;
};

struct ledger {
    struct store *store;
    struct clock *clock;
    struct random *random;
    pthread_mutex_t lock;
    struct map *accounts;
};

bool account_is_limited(const struct account *account);
/* Adds one WRITE_ADD of an account's row: spent and leased change by these amounts. */
void account_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                     cost spent, cost leased);
void ledger_add_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                      const struct settlement *settlement);

#endif
