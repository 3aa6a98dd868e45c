/*
 * Usage log: what calls came to, gathered in memory and written in bulk.
 *
 *      usage_log_add --> pending --(USAGE_FLUSH_MS, or USAGE_CHUNK_RECORDS)--> one batch per tenant, submitted without waiting:
 *          USAGE_CHUNKS   one row of all records (usage.h)
 *          USAGE_DAILY    sums by day, user, key, model, provider, variant and kind; USAGE_LATENCY: by how long they took
 *          LEDGER, BUDGETS  what ledger_settle_plain gathered, the settlement of leases with it (ledger.h)
 *          AUDIT_LOGS     one entry with the chunk's SHA-256, so that every call is tamper-evident
 *
 * All of a batch is stored or nothing.  A batch that the store does not take is tried again, as it is, until it is stored, however long
 * the store is away (one that it refuses for what is in it USAGE_WRITE_TRIES_MAX times, then it is given up with an error in the log); it
 * carries the chunk's id, so that it is never stored twice.  While the store takes nothing, sums go on and the lines of records beyond
 * USAGE_CHUNK_RECORDS_MAX are dropped and counted.
 * What the guarantee is: until the batch is stored, the lease of what its calls came to stands in the store, so at every instant
 * spent + leased <= limit, and no room is used twice.  A crash (or a batch that is given up) loses the records of at most USAGE_FLUSH_MS
 * and the writer's delay; what they spent of limited accounts is booked as forfeited at the next start, at its worst case.
 * Thread: any; short locks.  Suspends: only usage_log_sync.
 */
#ifndef NEXUS_ORCHESTRATOR_USAGE_LOG_H
#define NEXUS_ORCHESTRATOR_USAGE_LOG_H

#include "observe/metrics.h"
#include "orchestrator/ledger/ledger.h"
#include "orchestrator/usage/usage.h"

struct lane;
struct usage_log;
struct usage_log_parts {
    struct store *store;
    struct ledger *ledger; /* gets its hooks set */
    struct metrics *metrics;
    struct clock *clock;
    struct random *random;
    struct lane *lane; /* where the timer runs when the caller is on none */
};
struct usage_log *usage_log_create(const struct usage_log_parts *parts);
/* Writes what is pending and waits (bounded) until the store has it.  No call is in work any more. */
void usage_log_destroy(struct usage_log *log);

/* Texts are copied. */
void usage_log_add(struct usage_log *log, uuid tenant_id, const struct usage_record *record);
/* Submits what is pending.  is_forced: free leases are given back, and what failed is tried again at once. */
void usage_log_flush(struct usage_log *log, bool is_forced);
/* The same, and waits until it is stored: what was added before can be read. */
may_suspend bool usage_log_sync(struct usage_log *log, struct context *ctx, struct error *e);

#endif
