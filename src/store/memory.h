/*
 * Memory back end: the same contracts without a disk, for the simulation and for tests.
 *
 * The simulation hands in hooks: `before_commit` may suspend (simulated latency), fail the commit,
 * or say that it was applied although the caller is told it failed (a lost acknowledgement).
 * memory_store_clone models a crash: it holds what was committed and nothing else, so a simulation
 * goes on with the clone and forgets the coroutines of the original.
 * Thread: any (one lock, never held while a hook runs).  Only the commit hook suspends.  submit
 * and claim apply at once, without hook.
 */
#ifndef NEXUS_STORE_MEMORY_H
#define NEXUS_STORE_MEMORY_H

#include "store/kv.h"
#include "store/store.h"
#include "store/vector.h"

/* FAIL: nothing was written, and the caller knows (REASON_STORE).  DAMAGED: the same, and it never will be (REASON_CORRUPT).  The other two
   look the same to the caller (REASON_OUTCOME_UNKNOWN). */
enum commit_outcome {
    COMMIT_OK,
    COMMIT_FAIL,
    COMMIT_APPLIED_BUT_FAIL,
    COMMIT_LOST,
    COMMIT_DAMAGED
};
struct memory_store_hooks {
    void *owner;
    enum commit_outcome (*before_commit)(void *owner, struct context *ctx,
                                         const struct batch *batch);
};
struct store *memory_store_create(struct clock *clock, struct random *random,
                                  struct memory_store_hooks hooks, str node);
/* A deep copy of what is committed, with the same clock, hooks and node. */
struct store *memory_store_clone(struct store *store);
void memory_store_set_hooks(struct store *store, struct memory_store_hooks hooks);
struct kv *memory_kv_create(struct clock *clock);
struct vector_index *memory_vector_create(size_t dimension);

#endif
