/*
 * The ledger's inside: accounts and their rows.
 *
 *   reserved (budget.reserved) = reservations of runs and of plain calls on unlimited accounts + lease
 *   lease = lease_drawn (by calls that are out) + lease_free
 *   stored leased = lease + what is gathered as ended and not yet stored
 *   stored spent  = budget.spent - what is gathered as spent and not yet stored
 */
#ifndef NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H
#define NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H

#include "base/list.h"
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
    struct list free_link;  /* in ledger.free_leases while lease_free is not zero */
    int64_t extended_ns;    /* when the lease last grew */
    int lease_ahead;        /* by how many calls more than were needed */
    int64_t last_plain_ns;  /* when the newest plain call settled */
    uint64_t gathered_take; /* the take that `gathered_index` belongs to; 0: none */
    size_t gathered_index;  /* of what is gathered for this account */
    int references;
    struct list idle_link; /* in ledger.idle while nobody holds it */
    int64_t idle_since_ns;
};

struct ledger {
    struct store *store;
    struct clock *clock;
    struct random *random;
    pthread_mutex_t lock;
    struct map *accounts;
    struct ledger_hooks hooks;
    struct ledger_taken *gathering; /* NULL: nothing yet */
    uint64_t take_number;           /* of what is gathered now; from 1 */
    struct list free_leases;        /* accounts with lease_free */
    struct list idle;               /* accounts that nobody holds, the longest idle first */
};

bool account_is_limited(const struct account *account);
/* Adds one WRITE_ADD of an account's row: spent and leased change by these amounts. */
void account_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                     cost spent, cost leased);
void ledger_add_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                      const struct settlement *settlement);
/* With the lock held: remembers what a plain call came to.  `ended`: how much of each account's durable lease ends with it. */
void ledger_gather(struct ledger *ledger, const struct ledger_path *path,
                   const struct settlement *settlement, const cost ended[ACCOUNT_LEVEL_COUNT]);
/* With the lock held: somebody more, somebody less needs the account. */
void account_hold(struct account *account);
void account_let_go(struct ledger *ledger, struct account *account, int64_t now_ns);
/* With the lock held: puts the account on the list of free leases, or takes it off. */
void ledger_note_free(struct ledger *ledger, struct account *account);
/* With the lock held: would giving back free leases make room on this path? */
bool ledger_path_has_free(const struct ledger_path *path);

#endif
