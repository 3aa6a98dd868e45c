/*
 * Pending usage: records and sums since the last flush, for the usage log only.  Not thread-safe: its owner has a lock.
 */
#ifndef NEXUS_ORCHESTRATOR_USAGE_PENDING_INTERNAL_H
#define NEXUS_ORCHESTRATOR_USAGE_PENDING_INTERNAL_H

#include "observe/metrics.h"
#include "orchestrator/usage/usage.h"
#include "store/store.h"

struct usage_pending;

/* Series that all calls without a session share; NULL members when there are no metrics. */
struct usage_meters_common {
    struct metric_series *completed, *failed, *duration;
};
void usage_meters_init(struct usage_meters_common *meters, struct metrics *metrics);

struct usage_pending *usage_pending_create(void);
void usage_pending_destroy(struct usage_pending *pending); /* NULL is fine */
/* Counts metrics too.  Gives how many records of this tenant wait. */
size_t usage_pending_add(struct usage_pending *pending, const struct usage_meters_common *common,
                         struct metrics *metrics, uuid tenant_id,
                         const struct usage_record *record);
size_t usage_pending_tenant_count(const struct usage_pending *pending);
uuid usage_pending_tenant(const struct usage_pending *pending, size_t i);
/* Chunk, sums and audit entry of batch->tenant_id.  Texts are borrowed from pending. */
void usage_pending_write(struct usage_pending *pending, struct clock *clock, struct random *random,
                         uuid chunk_id, struct batch *batch);

#endif
