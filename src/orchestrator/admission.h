/*
 * Admission: how many runs are at work on this node at once, and in which order the others get their turn.
 *
 *      run_spawn --> admission_ask --granted--> the run's coroutine --> admission_leave --> the next one's `start`
 *                                 \--queued: it is durable (`pending`), and `start` is called when its turn has come
 *
 * Fair: turns go around the tenants that wait, and within one around its users; so who starts ten thousand runs delays another's by one.
 * The last eighth of the places is kept for tenants that hold less than an eighth: long runs of one tenant never take them all.
 * Priority decides within a tenant: its more urgent runs go first, but each eighth of its turns is its least urgent one's, so that nothing
 * waits for ever.  Batch runs hold at most three quarters of the places and wait in at most half of the queue.
 * What is queued is a note about a run that its journal already has: a crash loses the note and nothing else, the start finds the run
 * again.  New runs are refused before they are durable once `queue_max` wait (admission_check), or three quarters of that of one tenant;
 * a run that goes on (an approval came) is never refused.
 * Recovery and cancellation take a place without waiting: the first because nothing may reserve before all stand again, the second
 * because it frees what others wait for.
 * Thread: any; one short lock.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_ADMISSION_H
#define NEXUS_ORCHESTRATOR_ADMISSION_H

#include "orchestrator/policy/principal.h"
#include <stddef.h>

struct admission;
struct metrics;
struct admission_options {
    size_t places;           /* runs at work at once; 0: ADMISSION_PLACES */
    size_t queue_max;        /* runs that wait; 0: ADMISSION_QUEUE_MAX */
    struct metrics *metrics; /* borrowed; NULL: none */
};
struct admission *admission_create(const struct admission_options *options);
/* Whoever waits is forgotten, and its argument freed: it must come from malloc. */
void admission_destroy(struct admission *admission);

struct admission_request {
    uuid tenant_id, run_id;
    enum priority priority;
    uint64_t user;  /* hash of the name of whose turn it uses; 0: nobody's in particular */
    bool is_urgent; /* takes a place at once, whatever is left */
    void (*start)(
        void *
            argument); /* when its turn has come: it holds a place then; on the thread of who left */
    void *argument;
};
/* True: it holds a place now, and must leave.  False: it is queued, or the same run is queued already (*is_known: `argument` stays the
   caller's). */
bool admission_ask(struct admission *admission, const struct admission_request *request,
                   bool *is_known);
/* `priority`: as it was asked for. */
void admission_leave(struct admission *admission, uuid tenant_id, enum priority priority);
/* May one more run of this tenant begin?  OVERLOADED_HERE with a time to come back. */
must_check bool admission_check(struct admission *admission, uuid tenant_id, enum priority priority,
                                struct error *e);

struct admission_counts {
    size_t places, active, queued, queue_max, tenants_waiting;
    size_t active_batch, queued_of[PRIORITY_COUNT];
    int64_t refused;
};
struct admission_counts admission_look(struct admission *admission);

#endif
