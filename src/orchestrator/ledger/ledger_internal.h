/*
 * The ledger's inside: accounts and their rows.
 *
 *   reserved (budget.reserved) = reservations of runs and of plain calls on unlimited accounts + lease
 *   lease = lease_drawn (by calls that are out) + lease_free + lease_returning
 *   stored leased = lease + what is gathered as ended and not yet stored
 *   stored spent  = budget.spent - what is gathered as spent and not yet stored
 */
#ifndef NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H
#define NEXUS_ORCHESTRATOR_LEDGER_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "orchestrator/ledger/budget_period.h"
#include "orchestrator/ledger/ledger.h"
#include <pthread.h>

struct account {
    uuid tenant_id;
    enum account_level level;
    str subject; /* user id, session id text, tenant id text; owned */
    str key;     /* of the map; owned */
    cost
        limit; /* as it was set; budget.limit is this node's share of it where nodes share a store */
    struct budget budget;
    cost total; /* spent over all periods; budget.spent where there are none */
    cost known_room,
        known_spent; /* of a shared store: nobody's, and spent by all, when it was last read */
    bool
        has_share; /* its row of BUDGET_LEASES was made: it is not made again when it is gone (buried) */
    cost
        plain_reserved, /* part of budget.reserved: of plain calls, where nodes share a store ... */
        uncovered;      /* ... and what of it is not in the stored LEASED: the limit came later */
    cost held_back;     /* part of budget.reserved: kept by runs for their last call */
    int settings_in_flight;   /* that are being stored: what a row says meanwhile may be old */
    uint64_t settings_number; /* changes with each setting that was made or heard */
    struct account_period period;
    int64_t period_start_us, period_end_us; /* of the period that budget.spent is of */
    int thresholds[BUDGET_ALERTS_MAX];      /* in thousandths, rising */
    int threshold_count;                    /* 0: the ledger's own */
    int alerted, alerting;                  /* the highest that is stored; that is being stored */
    struct rate_window *rate;               /* NULL: nobody asks how fast it is spent */
    cost lease_free, lease_drawn;
    cost lease_returning; /* was free and is being given back: reserved until that is durable */
    int plain_calls;      /* that are out */
    bool
        is_leasing; /* they draw on the lease; changes only while none is out, so that each ends as it began */
    struct list free_link; /* in ledger.free_leases while lease_free is not zero */
    int64_t extended_ns;   /* when the lease last grew */
    int lease_ahead;       /* by how many calls more than were needed */
    int64_t last_plain_ns; /* when the newest plain call settled */
    uint64_t gathered_take, gathered_generation; /* what `gathered_index` belongs to; 0: none */
    size_t gathered_index;                       /* of what is gathered for this account */
    int references;
    struct list idle_link;  /* in ledger.idle while nobody holds it */
    struct list upper_link; /* in ledger.upper: of a key, a user or a tenant */
    int64_t idle_since_ns;
};

/* What only paths of runs have; owned by the path. */
struct ledger_extra {
    int above_count;
    uuid above_ids[RUN_CHILD_DEPTH_MAX]; /* the runs above, the parent first */
    struct account *above[RUN_CHILD_DEPTH_MAX];
    cost
        per_minute; /* what the session's account may be charged in a minute; COST_LIMITLESS: as fast as it can */
    cost held_back;
};
/* All accounts of a path: by level, then those of the runs above.  NULL: absent. */
static inline int path_length(const struct ledger_path *path)
{
    return ACCOUNT_LEVEL_COUNT + (path->extra ? path->extra->above_count : 0);
}
static inline struct account *path_account(const struct ledger_path *path, int i)
{
    return i < ACCOUNT_LEVEL_COUNT ? path->accounts[i]
                                   : path->extra->above[i - ACCOUNT_LEVEL_COUNT];
}

struct ledger {
    struct store *store;
    struct clock *clock;
    struct random *random;
    struct ledger_options options;
    pthread_mutex_t lock;
    struct map *accounts;
    struct ledger_hooks hooks;
    int64_t last_us;                /* the newest time of an entry: it never goes back */
    int64_t day;                    /* of the newest gathered entry */
    uint64_t generation;            /* what is gathered in one belongs to the same periods */
    struct ledger_taken *gathering; /* NULL: nothing yet */
    uint64_t take_number;           /* of what is gathered now; from 1 */
    struct list free_leases;        /* accounts with lease_free */
    struct list idle;               /* accounts that nobody holds, the longest idle first */
    struct list upper;              /* accounts of keys, users and tenants */
};

/* ---- ledger_account.c ---- */
enum { ACCOUNT_KEY_BYTES = 320 };
str account_key(char out[ACCOUNT_KEY_BYTES], uuid tenant_id, enum account_level level, str subject);
str account_own_text(str text); /* malloc'ed */
/* What a row says of an account, which does not come into memory. */
may_suspend bool account_peek(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                              const struct record *row, struct account *out, struct error *e);
/* What its row, or its period's, says was spent. */
may_suspend bool account_read_spent(struct ledger *ledger, struct context *ctx,
                                    const struct account *account, const struct record *row,
                                    cost *spent, struct error *e);
bool account_is_limited(const struct account *account);
void account_destroy(struct account *account);
/* Loads the account, or makes it with this limit, and holds it. */
may_suspend bool account_open(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                              enum account_level level, str subject, cost limit,
                              struct account **out, struct error *e);
/* With the lock held: somebody more, somebody less needs the account. */
void account_hold(struct account *account);
void account_let_go(struct ledger *ledger, struct account *account, int64_t now_ns);
/* With the lock held: the time of an entry that is made now. */
int64_t ledger_now_us(struct ledger *ledger);
/* With the lock held: another period may have begun. */
void account_roll(struct ledger *ledger, struct account *account);
static inline void account_refresh(struct ledger *ledger, struct account *account)
{
    if (account->period_end_us != INT64_MAX)
        account_roll(ledger, account);
}
/* With the lock held: a reservation becomes spending of the period that at_us is in. */
struct account_settlement {
    cost reserved, used;
    cost
        uncovered; /* part of `reserved` that is not in the stored LEASED; where nodes share a store */
    int64_t at_us;
};
void account_settle(struct ledger *ledger, struct account *account,
                    const struct account_settlement *settlement);
void account_set_key(struct record *row, enum account_level level, str subject);
void account_set_cost(struct record *row, const int columns[COST_FIELD_COUNT], cost amount);
cost account_get_cost(const struct record *row, const int columns[COST_FIELD_COUNT]);
extern const int budgets_limit_columns[], budgets_spent_columns[], budgets_leased_columns[];
/* Adds to an account's row, and to its period's: spent and leased change by these amounts. */
struct account_change {
    cost spent, leased;
    struct account_period period;
    int64_t at_us;
    bool may_join; /* what the batch adds to the account already */
};
void account_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                     const struct account_change *change);

/* With the lock held: these are its settings from now on.  `spent`: of the period. */
void account_set_limit(struct ledger *ledger, struct account *account, cost limit);
void account_set_period(struct ledger *ledger, struct account *account,
                        struct account_period period, cost spent);
void account_set_thresholds(struct account *account, const int *thresholds, int count);
/* Where nodes share a store another one may have set something: its row tells.  `seen`: account_settings before the row was read; if they
   have been set or heard since, the row is older than what is known, and is passed over. */
may_suspend bool account_hear(struct ledger *ledger, struct context *ctx, struct account *account,
                              const struct record *row, uint64_t seen, struct error *e);
uint64_t account_settings(struct ledger *ledger, const struct account *account);

/* ---- ledger_alert.c ---- */
/* With the lock held: does this much more make the account pass a threshold?  Then it is noted as being told. */
bool account_alert(struct ledger *ledger, struct account *account, cost more,
                   struct ledger_alert *out);
/* Adds what makes an alert durable: the account's mark, an audit entry, and what the hook adds. */
void ledger_write_alert(struct ledger *ledger, struct batch *batch,
                        const struct ledger_alert *alert, int64_t at_us);

/* Of a store that nodes share: tells what the account's row, just read, has passed, unless another node did. */
may_suspend bool ledger_alert_shared(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                     const struct record *row, struct error *e);

/* ---- ledger_rate.c ---- */
/* With the lock held: what the session's account may still be charged within the minute; limitless without a rate. */
cost rate_remaining(struct ledger *ledger, const struct ledger_path *path);
void rate_charge(struct ledger *ledger, const struct ledger_path *path, cost used);

/* ---- ledger.c ---- */
struct ledger_extra *path_extra(struct ledger_path *path); /* made when it is not there */
void ledger_add_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                      const struct settlement *settlement);
/* The same, or the amount joins an entry that the batch has.  `may_merge`: no account of the path counts in periods, to which an entry
   belongs by its time. */
void ledger_settle_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                         const struct settlement *settlement, bool may_merge);

/* Accounts that nobody holds and nothing needs are read anew when they are asked for next. */
void ledger_forget_idle(struct ledger *ledger);

/* ---- ledger_gather.c ---- */
/* With the lock held: remembers what a plain call came to.  `ended`: how much of each account's durable lease ends with it. */
void ledger_gather(struct ledger *ledger, const struct ledger_path *path,
                   const struct settlement *settlement, const cost ended[ACCOUNT_LEVEL_COUNT]);
/* With the lock held: puts the account on the list of free leases, or takes it off. */
void ledger_note_free(struct ledger *ledger, struct account *account);
/* With the lock held: would giving back free leases make room on this path? */
bool ledger_path_has_free(const struct ledger_path *path);

/* ---- ledger_lease.c ---- */
/* A lease that a crash lost: an entry of one account alone, and its spending.  `row`: the account's. */
may_suspend bool ledger_add_forfeit(struct ledger *ledger, struct context *ctx, struct batch *batch,
                                    const struct record *row, cost amount, struct error *e);
bool account_level_parse(str text, enum account_level *out);

/* ---- ledger_share.c: nodes of a shared store ---- */
/* This node's share of each limited account of the path grows by what is missing.  REASON_BUDGET: the others have it, or nobody. */
may_suspend bool ledger_share_grow(struct ledger *ledger, struct context *ctx,
                                   const struct ledger_path *path, cost worst_case,
                                   struct error *e);
/* Adds to the batch: `ended` is leased no more, and this node's share changes by `share`. */
struct share_change {
    cost ended, share;
};
void ledger_share_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                          const struct share_change *change);
/* What of a reservation ends as spending, and what of it is in the stored LEASED but was not used. */
cost ledger_share_ended(cost reserved, cost used, cost uncovered);
/* With the lock held: which fields are limited now. */
void ledger_share_cover(const struct ledger_path *path, struct ledger_cover *cover);
/* Fields of an amount that are not of the cover. */
cost ledger_share_uncovered(cost amount, uint8_t fields);
cost ledger_share_limited(cost amount, cost limit); /* fields that have a limit */
/* With the lock held: an account comes into memory. */
void ledger_share_begin(struct account *account);

#endif
