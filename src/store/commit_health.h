/*
 * Commit health: since when a back end cannot commit, and why.
 *
 *      well --a commit fails for the store's own reasons--> failing --a commit goes well, STORE_SETTLE_MS after the last failure--> well
 *
 * Each of the two moves is one line in the log; what fails between them is told to its caller only.  A full disk often still takes a small
 * commit: the settling keeps such luck from being taken for recovery, and bounds the lines.
 * Who asked for something that cannot be (a conflict, a lost fence) says nothing of the store.
 * While it fails, somebody has to try: a back end with a thread of its own does so every STORE_PROBE_MS (commit_health_probe_ms).
 * Thread: one at a time tells (the writer, or under the back end's lock); any may look, waiting for nothing.
 */
#ifndef NEXUS_STORE_COMMIT_HEALTH_H
#define NEXUS_STORE_COMMIT_HEALTH_H

#include <stdatomic.h>

#include "base/error.h"
#include "runtime/clock.h"

struct commit_health { /* all zero: well */
    const char *path;  /* for the log; NULL: it has none.  Of who owns this */
    _Atomic int reason;
    _Atomic int64_t since_us;
    int64_t began_ns, failed_ns, tried_ns;
};
/* Is it a failure of the store itself? */
bool commit_health_counts(const struct error *e);
void commit_health_failed(struct commit_health *health, struct clock *clock, const struct error *e);
/* Something was written and is durable. */
void commit_health_stored(struct commit_health *health, struct clock *clock);
/* REASON_NONE: it is well.  *since_us: Unix time of the first failure. */
enum error_reason commit_health_look(struct commit_health *health, int64_t *since_us);
/* Until somebody has to try; 0: now, -1: it is well.  (By who tells.) */
int64_t commit_health_probe_ms(const struct commit_health *health, struct clock *clock);

#endif
