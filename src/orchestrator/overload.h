/*
 * Overload: how hard-pressed this node is, and what it therefore refuses first.
 *
 * overload_sample looks four times a second: how late each loop runs what is posted to it, how full the queue of runs is, how long the
 * store takes to commit and how full its queue is (half full is its limit), and the memory of the process; each as a share of its limit.
 * The worst of them, smoothed, is the pressure.  From 1 on, work of priority batch is refused, from 2 on normal work too, from 4 on all
 * of it; what is begun goes on.  So the least urgent goes first, by what was measured, and before everything waits for a slow disk.
 * The path of a request reads one atomic: no lock, no look at anything else.
 * Thread: admits, any; sample, one coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_OVERLOAD_H
#define NEXUS_ORCHESTRATOR_OVERLOAD_H

#include "orchestrator/admission.h"

struct clock;
struct lane;
struct overload;
struct store;
struct overload_options {
    struct lane *lanes; /* borrowed */
    size_t lane_count;
    struct admission *admission;
    struct clock *clock;
    struct metrics *metrics;                 /* NULL: none */
    struct store *store;                     /* NULL: not looked at */
    int64_t lag_ms, memory_bytes, commit_ms; /* limits; 0: not looked at */
};
struct overload *overload_create(const struct overload_options *options);
void overload_destroy(struct overload *overload);
void overload_sample(struct overload *overload);
/* OVERLOADED_HERE with a time to come back. */
must_check bool overload_admits(struct overload *overload, enum priority priority, struct error *e);

struct overload_view {
    int64_t pressure_milli, lag_ms, lag_limit_ms, memory_bytes, memory_limit_bytes;
    int64_t commit_ms, commit_limit_ms, store_queued, store_queue_max;
    int64_t refused[PRIORITY_COUNT];
};
struct overload_view overload_look(struct overload *overload);
/* For tests: as if that had been measured, until the next sample. */
void overload_pretend(struct overload *overload, int64_t pressure_milli);

#endif
