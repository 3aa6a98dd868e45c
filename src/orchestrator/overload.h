/*
 * Overload: how hard-pressed this node is, and what it therefore refuses first.
 *
 * overload_sample looks four times a second: how late each loop runs what is posted to it, how full the queue of runs is, and the memory
 * of the process; each as a share of its limit.  The worst of them, smoothed, is the pressure.  From 1 on, work of priority batch is
 * refused, from 2 on normal work too, from 4 on all of it; what is begun goes on.  So the least urgent goes first, and by what was
 * measured; a store that cannot keep up shows as runs that wait.
 * The path of a request reads one atomic: no lock, no look at anything else.
 * Thread: admits, any; sample, one coroutine.
 */
#ifndef NEXUS_ORCHESTRATOR_OVERLOAD_H
#define NEXUS_ORCHESTRATOR_OVERLOAD_H

#include "orchestrator/admission.h"
#include "orchestrator/policy/principal.h"

struct lane;
struct clock;
struct overload;
struct overload_options {
    struct lane *lanes; /* borrowed */
    size_t lane_count;
    struct admission *admission;
    struct clock *clock;
    struct metrics *metrics;      /* NULL: none */
    int64_t lag_ms, memory_bytes; /* limits; 0: not looked at */
};
struct overload *overload_create(const struct overload_options *options);
void overload_destroy(struct overload *overload);
void overload_sample(struct overload *overload);
/* OVERLOADED_HERE with a time to come back. */
must_check bool overload_admits(struct overload *overload, enum priority priority, struct error *e);

struct overload_view {
    int64_t pressure_milli, lag_ms, lag_limit_ms, memory_bytes, memory_limit_bytes;
    int64_t refused[PRIORITY_COUNT];
};
struct overload_view overload_look(struct overload *overload);
/* For tests: as if that had been measured, until the next sample. */
void overload_pretend(struct overload *overload, int64_t pressure_milli);

#endif
