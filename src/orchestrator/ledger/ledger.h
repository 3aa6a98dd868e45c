/*
 * Ledger: the accounts of this node, the only state that loops share.
 *
 * A call is charged to a path of accounts: run, session, key, user, tenant, and of a child run the runs above it.  A run has an account
 * only where it was given a ceiling.  ledger_reserve is atomic over the whole path: all or nothing.
 * What is durable: `spent` (added in the same transaction as the settlement's event, see ledger_settle_writes), a run's reservations
 * (its journal), and leases for plain calls (BUDGETS.leased_*), so that a crash never lets anything overspend; what a crash loses of
 * a lease is settled with basis `forfeited` at the next start (ledger_recover).
 * Thread: any; one short lock.  Suspends: only functions marked so.
 */
#ifndef NEXUS_ORCHESTRATOR_LEDGER_H
#define NEXUS_ORCHESTRATOR_LEDGER_H

#include "base/limits.h"
#include "orchestrator/ledger/budget.h"
#include "orchestrator/ledger/budget_period.h"
#include "store/store.h"

enum account_level {
    ACCOUNT_RUN,
    ACCOUNT_SESSION,
    ACCOUNT_KEY, /* an API key with limits of its own */
    ACCOUNT_USER,
    ACCOUNT_TENANT,
    ACCOUNT_LEVEL_COUNT
};
const char *account_level_name(enum account_level level);

struct ledger;
struct account; /* reference-counted by ledger_path: it stays loaded while a path holds it */

/* Where nodes share a store: which fields of a reservation are in the stored LEASED of which account of its path (a bit each).  An account
   may get its limit, or lose it, while calls are out: what was counted when it was reserved ends with it, nothing else. */
struct ledger_cover {
    uint8_t fields[ACCOUNT_LEVEL_COUNT + RUN_CHILD_DEPTH_MAX];
};
/* As the journal keeps it: a hexadecimal digit a place, without zeros at the end; empty: nothing of it. */
str ledger_cover_text(struct arena *arena, const struct ledger_cover *cover);
struct ledger_cover ledger_cover_parse(str text);

struct ledger_extra; /* what a run's path has beside: the runs above it, its rate */
struct ledger_path {
    uuid tenant_id;
    str user_id;                                   /* borrowed from the account */
    uuid session_id, run_id, key_id;               /* UUID_NONE: that level is absent */
    struct account *accounts[ACCOUNT_LEVEL_COUNT]; /* NULL: absent */
    struct ledger_extra *extra;                    /* owned; NULL: nothing beside */
};

struct ledger_alert;
struct ledger_options {
    bool is_shared;                    /* several nodes spend from one store: see ledger_share.c */
    str node;                          /* this one's name; where it is shared */
    int thresholds[BUDGET_ALERTS_MAX]; /* in thousandths of a limit, rising */
    int threshold_count;
    /* An alert is about to be stored: may add writes to its batch (outgoing messages).  NULL: none. */
    void (*alerted)(void *owner, const struct ledger_alert *alert, struct batch *batch);
    void *alerted_owner;
    struct metrics *metrics; /* may be NULL */
};
struct ledger *ledger_create(struct store *store, struct clock *clock, struct random *random);
/* Before it is used; texts are borrowed for its life. */
void ledger_configure(struct ledger *ledger, const struct ledger_options *options);
/* Where a caller does not say: these thresholds from now on. */
void ledger_set_thresholds(struct ledger *ledger, const int *thresholds, int count);
void ledger_destroy(struct ledger *ledger);

/* Loads (or makes, with the given limits) the accounts and holds them.  Session and run limits come from their rows; key, user and
   tenant limits from BUDGETS rows (none: unlimited).  A run without a ceiling (COST_LIMITLESS) has no account. */
struct ledger_ancestor {
    uuid run_id;
    cost limit;
};
struct ledger_limits {
    cost session, run;
    uuid key_id;                             /* UUID_NONE: no key is charged */
    const struct ledger_ancestor *ancestors; /* of a child run: its parent first */
    int ancestor_count;                      /* at most RUN_CHILD_DEPTH_MAX: else REASON_LIMIT */
};
may_suspend bool ledger_open_path(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  str user_id, uuid session_id, uuid run_id,
                                  struct ledger_limits limits, struct ledger_path *out,
                                  struct error *e);
void ledger_close_path(struct ledger *ledger, struct ledger_path *path);
/* REASON_BUDGET naming the rate when this much more would be too fast. */
must_check bool ledger_rate_fits(struct ledger *ledger, const struct ledger_path *path,
                                 cost worst_case, struct error *e);
/* What may be charged to the path's session within any 60 s, by this path; COST_LIMITLESS: no rate.  Kept in memory only. */
void ledger_set_rate(struct ledger *ledger, struct ledger_path *path, cost per_minute);

/* REASON_BUDGET naming level (or rate), resource, what is left and what was asked; then nothing has changed. */
must_check bool ledger_reserve(struct ledger *ledger, const struct ledger_path *path,
                               cost worst_case, struct error *e);
/* The same, and where nodes share a store this one's share grows by what is missing.  `cover`: for ledger_reserved_write. */
may_suspend bool ledger_reserve_in(struct ledger *ledger, struct context *ctx,
                                   const struct ledger_path *path, cost worst_case,
                                   struct ledger_cover *cover, struct error *e);
/* Adds to the batch that makes a run's reservation durable: it leaves this node's share.  Without other nodes: nothing. */
void ledger_reserved_write(struct ledger *ledger, const struct ledger_path *path, cost reserved,
                           const struct ledger_cover *cover, struct batch *batch);
void ledger_release(struct ledger *ledger, const struct ledger_path *path, cost worst_case);
/* Something was journaled at this moment: the ledger's time is not before it, whatever the clock says. */
void ledger_hear_time(struct ledger *ledger, int64_t at_us);
/* A journaled reservation of a run that is being resumed: counted again without a check.  It brings its room along. */
void ledger_restore(struct ledger *ledger, const struct ledger_path *path, cost worst_case);
/* The run leaves memory: what ledger_restore did is undone; also for a reservation of which nobody knows whether it is journaled. */
void ledger_forget(struct ledger *ledger, const struct ledger_path *path, cost worst_case);

/*
 * The wind-down reserve: what a run keeps back for one last call.  It counts as reserved, in memory only, so it never makes an account
 * pass its limit; all of them together hold back at most a tenth of a limit.  Zero where it does not fit: then the run has none.
 */
bool ledger_hold_back(struct ledger *ledger, struct ledger_path *path, cost amount);
/* What was held back goes into this reservation; REASON_BUDGET: it is held back still. */
must_check bool ledger_reserve_last(struct ledger *ledger, struct ledger_path *path,
                                    cost worst_case, struct ledger_cover *cover, struct error *e);
/* By the clock: some of the accounts that nobody has asked for within LEDGER_ACCOUNT_IDLE_MS leave memory.  True: there may be more. */
bool ledger_sweep_idle(struct ledger *ledger);
/* Per field the smallest limit of all accounts. */
cost ledger_smallest_limit(struct ledger *ledger, const struct ledger_path *path);
/* ledger_remaining, and what the path holds back. */
cost ledger_remaining_last(struct ledger *ledger, const struct ledger_path *path);

/* Which period of an account something is booked in. */
struct account_period {
    enum period period;
    int64_t since_us; /* entries count from here: when periods were asked for */
};

/* A threshold of an account was passed: told once in each period. */
struct ledger_alert {
    uuid tenant_id;
    enum account_level level;
    str subject;          /* borrowed from the account */
    const char *resource; /* the field that passed it */
    int threshold;        /* in thousandths */
    int64_t limit, spent; /* of that field */
    struct account_period period;
};
struct ledger_alerts {
    struct ledger_alert items[LEDGER_ALERTS_MAX];
    int count;
};

struct settlement {
    cost reserved, used;
    const char *kind;          /* "model", "tool", "time" */
    const char *basis;         /* "reported", "estimated", "reserved", "forfeited" */
    str model;                 /* may be empty */
    str details;               /* JSON text or empty */
    struct ledger_cover cover; /* of a run's reservation, where nodes share a store */
    int64_t at_us; /* set by ledger_settle: the period it is booked in is the one of this moment */
};
/* Adds to the batch: one LEDGER row (those of one run in one batch that differ in nothing but the amount are one, unless an account of
   the path has periods), the ADDs to the accounts' durable spent, and alerts whose threshold it passes (*alerts may be NULL).
   In memory the reservation stands until the caller knows that the batch is durable and says so by ledger_settled: room is never given
   back before that.  ledger_not_settled: it was not stored after all; its alerts are told again by the next. */
void ledger_settle(struct ledger *ledger, const struct ledger_path *path,
                   struct settlement *settlement, struct batch *batch,
                   struct ledger_alerts *alerts);
void ledger_not_settled(struct ledger *ledger, const struct ledger_path *path);
/* The batch of a ledger_settle is durable: the reservation turns into spending. */
void ledger_settled(struct ledger *ledger, const struct ledger_path *path,
                    const struct settlement *settlement);

/*
 * ---- plain calls (no run) ----
 * Where an account is limited, a plain call draws on a lease: an amount durably counted as LEASED before the call goes out.  The lease is
 * made larger while calls follow each other, and given back when none has come for LEDGER_LEASE_IDLE_MS, or at once when somebody
 * needs the room.
 *
 * Settlements of plain calls are gathered in memory and written in bulk (usage_log.h): one LEDGER row per path, kind, basis and model, one
 * ADD per account.  What is gathered counts as spent already; durably its lease stands for it, so that at every instant, stored or
 * not, spent + leased <= limit.
 */
may_suspend bool ledger_reserve_plain(struct ledger *ledger, struct context *ctx,
                                      const struct ledger_path *path, cost worst_case,
                                      struct error *e);
/* Never waits.  `kind` and `basis` are literals; the amount is written with the next ledger_take. */
void ledger_settle_plain(struct ledger *ledger, const struct ledger_path *path,
                         const struct settlement *settlement);

/* The provider did no work: nothing is booked. */
void ledger_release_plain(struct ledger *ledger, const struct ledger_path *path, cost reserved);

/*
 * What was gathered since the last take, to be written: ledger_take, ledger_taken_write into a batch per tenant, ledger_taken_stored when
 * that batch is durable, and when all of them are (or were given up) ledger_taken_destroy.  is_forced: free leases are given back even if
 * they are in use.  Room comes back when the batch that gives it back is durable, not before; what is given up stays leased, and is booked
 * as forfeited at the next start.
 * `wanted` is called (no lock held) when the first amount is gathered; `settle` (may suspend) when room is needed and free leases, or such
 * as are being given back, would give it: what it finds is durable when it returns, if the store takes it.
 */
struct ledger_taken;
struct ledger_hooks {
    void (*wanted)(void *owner);
    void (*settle)(void *owner, struct context *ctx);
    void *owner;
};
void ledger_set_hooks(struct ledger *ledger, struct ledger_hooks hooks);
struct ledger_taken *ledger_take(struct ledger *ledger, bool is_forced); /* NULL: nothing */
void ledger_taken_tenants(const struct ledger_taken *taken, struct arena *arena, uuid **tenants,
                          size_t *count);
void ledger_taken_write(struct ledger *ledger, const struct ledger_taken *taken,
                        struct batch *batch); /* those of batch->tenant_id */
/* The batch of this tenant is durable: the room of its free leases may be used again. */
void ledger_taken_stored(struct ledger *ledger, struct ledger_taken *taken, uuid tenant_id);
void ledger_taken_destroy(struct ledger *ledger, struct ledger_taken *taken); /* NULL is fine */
/* Does any account hold a lease that nobody draws on?  Then it wants another take soon. */
bool ledger_has_free_leases(struct ledger *ledger);

/* Adds the BUDGETS row of a new account to a batch (a session's, with the session). */
void ledger_add_account_row(struct ledger *ledger, struct batch *batch, enum account_level level,
                            str subject, cost limit);

struct ledger_view {
    cost limit, spent, reserved, remaining; /* spent: of this period */
    enum period period;
    int64_t period_start_us, period_end_us;
    int thresholds[BUDGET_ALERTS_MAX];
    int threshold_count;
    bool has_thresholds; /* of its own */
    int alerted;         /* the highest that was told of in this period; 0: none */
};
struct ledger_view ledger_view(struct ledger *ledger, const struct ledger_path *path,
                               enum account_level level);
cost ledger_remaining(struct ledger *ledger,
                      const struct ledger_path *path); /* tightest over all levels */

/* Limits of a key, user or tenant; effective at once.  LIMIT may be lowered below spent: then nothing more fits.  A period that is new
   counts from now on; spending goes on to be counted over all time as well. */
struct ledger_setting {
    cost limit;
    enum period period;
    int thresholds[BUDGET_ALERTS_MAX]; /* in thousandths, rising */
    int threshold_count;               /* 0: the configured ones */
};
may_suspend bool ledger_set(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                            enum account_level level, str subject,
                            const struct ledger_setting *setting, struct error *e);
/* The limit alone: period and thresholds stay. */
may_suspend bool ledger_set_limit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  enum account_level level, str subject, cost limit,
                                  struct error *e);
/* At start, before anything reserves: settles what is left of leases as forfeited. */
may_suspend bool ledger_recover(struct ledger *ledger, struct context *ctx, struct error *e);

bool ledger_is_shared(const struct ledger *ledger);

/* ---- nodes of one store (options.is_shared; ledger_share.c says how); without it these do nothing ---- */
/* Of a node that is dead: what is left of its share is forfeited. */
may_suspend bool ledger_share_bury(struct ledger *ledger, struct context *ctx, str node,
                                   struct error *e);
/* Looks whether another node has set a limit of a key, a user or the tenant. */
may_suspend bool ledger_share_look(struct ledger *ledger, struct context *ctx, struct error *e);
/* Gives back what has not been needed for LEDGER_LEASE_IDLE_MS, or all that is free. */
may_suspend bool ledger_share_return(struct ledger *ledger, struct context *ctx, bool is_forced,
                                     struct error *e);
/* Was this node taken for dead, and its share of one of these accounts booked as forfeited?  Then it may not spend from it. */
may_suspend bool ledger_share_is_gone(struct ledger *ledger, struct context *ctx,
                                      const struct ledger_path *path);
/* As ledger_view, and where the store is shared what it says of all nodes; reserved is then what they all have. */
may_suspend bool ledger_view_in(struct ledger *ledger, struct context *ctx,
                                const struct ledger_path *path, enum account_level level,
                                struct ledger_view *out, struct error *e);
/*
 * ---- double entry (ledger_verify.c) ----
 * A LEDGER row is one transaction: what it took is a debit of every account that it names (run, runs above, session, key, user, tenant) and
 * the credit of one counter account: "model:NAME", "tool", "time", or "forfeited:LEVEL" for a lease that a crash lost, which is a
 * debit of one account alone.
 * The books are right when each account's stored spending is the sum of its entries, each period's is that of its entries since it began,
 * and the debits of all users, and of the tenant, are the credits of all counters.
 */
str ledger_counter_name(struct arena *arena, const struct record *entry); /* of a LEDGER row */
struct ledger_counter {
    str name;
    cost amount;
};
struct ledger_report {
    str first_bad; /* empty: the books are right.  Else "level|subject: what does not add up" */
    int64_t entries, accounts, periods;
    cost debits, credits; /* of the tenant's account; of the counters that stand against it */
    struct ledger_counter *counters;
    size_t counter_count;
};
/* Right also while others write: an account that moves meanwhile must lie between its two readings.  Everything is on ctx's arena. */
may_suspend bool ledger_check(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                              struct ledger_report *out, struct error *e);
/* The same in one word: empty when the books are right. */
may_suspend bool ledger_verify(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                               str *first_bad, struct error *e);

/* How full the fullest keys, users and tenants in memory are, of one level: at most BUDGET_GAUGES_MAX by name, and the fullest of the rest as "other". */
struct ledger_busy {
    enum account_level level;
    str subject;
    double ratios[COST_FIELD_COUNT]; /* spent and reserved over the limit; below 0: no limit */
};
struct ledger_busy *ledger_busiest(struct ledger *ledger, struct arena *arena,
                                   enum account_level level, size_t *count);

/* {"tokens":..,"time_ms":..,"cost_nanousd":"..","tool_calls":..}; unlimited is null. */
void cost_write_json(struct json_writer *w, cost amount);

#endif
