/*
 * Ledger: the accounts of this node, the only state that loops share.
 *
 * A call is charged to a path of accounts: run, session, key, user, tenant.  ledger_reserve is atomic up the path: all or nothing.
 * What is durable: `spent` (added in the same transaction as the settlement's event, see ledger_settle_writes), a run's reservations
 * (its journal), and leases for plain calls (BUDGETS.leased_*), so that a crash never lets anything overspend; what a crash loses of
 * a lease is settled with basis `forfeited` at the next start (ledger_recover).
 * Thread: any; one short lock.  Suspends: only functions marked so.
 */
#ifndef NEXUS_ORCHESTRATOR_LEDGER_H
#define NEXUS_ORCHESTRATOR_LEDGER_H

#include "orchestrator/budget.h"
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

struct ledger_path {
    uuid tenant_id;
    str user_id;                                   /* borrowed from the account */
    uuid session_id, run_id, key_id;               /* UUID_NONE: that level is absent */
    struct account *accounts[ACCOUNT_LEVEL_COUNT]; /* NULL: absent */
};

struct ledger *ledger_create(struct store *store, struct clock *clock, struct random *random);
void ledger_destroy(struct ledger *ledger);

/* Loads (or makes, with the given limits) the accounts and holds them.  Session and run limits come from their rows; key, user and
   tenant limits from BUDGETS rows (none: unlimited). */
struct ledger_limits {
    cost session, run;
    uuid key_id; /* UUID_NONE: no key is charged */
};
may_suspend bool ledger_open_path(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  str user_id, uuid session_id, uuid run_id,
                                  struct ledger_limits limits, struct ledger_path *out,
                                  struct error *e);
void ledger_close_path(struct ledger *ledger, struct ledger_path *path);

/* REASON_BUDGET naming level, resource, what is left and what was asked; then nothing has changed. */
must_check bool ledger_reserve(struct ledger *ledger, const struct ledger_path *path,
                               cost worst_case, struct error *e);
void ledger_release(struct ledger *ledger, const struct ledger_path *path, cost worst_case);
/* A journaled reservation of a run that is being resumed: counted again without a check. */
void ledger_restore(struct ledger *ledger, const struct ledger_path *path, cost worst_case);

struct settlement {
    cost reserved, used;
    const char *kind;  /* "model", "tool", "time" */
    const char *basis; /* "reported", "estimated", "reserved", "forfeited" */
    str model;         /* may be empty */
    str details;       /* JSON text or empty */
};
/* Adds to the batch: one LEDGER row and the ADDs to the accounts' durable spent.  In memory the reservation stands until the caller knows
   that the batch is durable and says so by ledger_settled: room is never given back before that. */
void ledger_settle(struct ledger *ledger, const struct ledger_path *path,
                   const struct settlement *settlement, struct batch *batch);
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
 * What was gathered since the last take, to be written: ledger_take, ledger_taken_write into a batch per tenant, and when all of them are
 * durable (or given up) ledger_taken_destroy.  is_forced: free leases are given back even if they are in use.
 * `wanted` is called (no lock held) when the first amount is gathered; `flush` when room is needed and free leases would give it: it must
 * take and submit before it returns.
 */
struct ledger_taken;
struct ledger_hooks {
    void (*wanted)(void *owner);
    void (*flush)(void *owner);
    void *owner;
};
void ledger_set_hooks(struct ledger *ledger, struct ledger_hooks hooks);
struct ledger_taken *ledger_take(struct ledger *ledger, bool is_forced); /* NULL: nothing */
void ledger_taken_tenants(const struct ledger_taken *taken, struct arena *arena, uuid **tenants,
                          size_t *count);
void ledger_taken_write(struct ledger *ledger, const struct ledger_taken *taken,
                        struct batch *batch); /* those of batch->tenant_id */
/* All of it is in the store's queue, before whatever comes from now on: the room of free leases may be used again. */
void ledger_taken_submitted(struct ledger *ledger, struct ledger_taken *taken);
void ledger_taken_destroy(struct ledger *ledger, struct ledger_taken *taken); /* NULL is fine */
/* Does any account hold a lease that nobody draws on?  Then it wants another take soon. */
bool ledger_has_free_leases(struct ledger *ledger);

/* Adds the BUDGETS row of a new account to a batch (a session's, with the session). */
void ledger_add_account_row(struct ledger *ledger, struct batch *batch, enum account_level level,
                            str subject, cost limit);

struct ledger_view {
    cost limit, spent, reserved, remaining;
};
struct ledger_view ledger_view(struct ledger *ledger, const struct ledger_path *path,
                               enum account_level level);
cost ledger_remaining(struct ledger *ledger,
                      const struct ledger_path *path); /* tightest over all levels */

/* Limits of a key, user or tenant; effective at once.  LIMIT may be lowered below spent: then nothing more fits. */
may_suspend bool ledger_set_limit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  enum account_level level, str subject, cost limit,
                                  struct error *e);
/* At start, before anything reserves: settles what is left of leases as forfeited. */
may_suspend bool ledger_recover(struct ledger *ledger, struct context *ctx, struct error *e);
/* Every account's spent equals the sum of its LEDGER rows: false and which one when not. */
may_suspend bool ledger_verify(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                               str *first_bad, struct error *e);

/* {"tokens":..,"time_ms":..,"cost_nanousd":"..","tool_calls":..}; unlimited is null. */
void cost_write_json(struct json_writer *w, cost amount);

#endif
