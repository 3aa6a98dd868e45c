/* The memory store's own parts: state, writing with undo, and reading. */
#ifndef NEXUS_STORE_MEMORY_INTERNAL_H
#define NEXUS_STORE_MEMORY_INTERNAL_H

#include "store/audit_chain.h"
#include "store/commit_health.h"
#include "store/commit_meter.h"
#include "store/memory.h"
#include "store/memory/rows_internal.h"
#include <pthread.h>

/* One row before and after a write: one of them may be NULL. */
struct undo {
    struct row *before, *after;
};

struct memory_store {
    struct store base;
    pthread_mutex_t lock; /* guards all that follows */
    struct clock *clock;
    struct random *random;
    struct memory_store_hooks hooks;
    char *node;
    uint8_t audit_key[SIGNATURE_KEY_BYTES];
    struct rows tables[TABLE_COUNT];
    struct undo *undo; /* of the batch being applied */
    size_t undo_count, undo_capacity;
    int64_t failed_submits;
    struct commit_meter meter; /* of what the hook makes of commits */
    struct commit_health health;
};

/* All or nothing.  Caller holds the lock. */
bool memory_apply(struct memory_store *store, const struct batch *batch, struct error *e);
bool memory_claim(struct memory_store *store, uuid tenant_id, uuid session_id, str node,
                  int64_t *epoch, struct error *e);

bool memory_get(struct memory_store *store, struct arena *arena, uuid tenant_id,
                const struct record *key, struct record *out, struct error *e);
/* tenant_id NULL: all tenants; then *tenant_ids is set. */
bool memory_list(struct memory_store *store, struct arena *arena, const uuid *tenant_id,
                 const struct query *query, struct records *out, uuid **tenant_ids,
                 struct error *e);
void memory_audit_verify(struct memory_store *store, struct arena *arena, uuid tenant_id,
                         struct audit_report *out);
/* State of the tenant's chain, from its rows. */
void memory_audit_head(struct memory_store *store, uuid tenant_id, struct audit_head *out);

#endif
