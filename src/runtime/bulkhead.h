/*
 * Bulkhead: at most so many at once behind a door, and a bounded queue before it, over all loops.
 *
 *      bulkhead_enter --> ... --> bulkhead_leave        a place that is left goes to whoever is next
 *
 * Fair: those who wait are asked in turn by owner (a tenant), and of one owner first come, first served; so who brings a thousand delays
 * another one's call by one call.  No owner takes more than three quarters of the queue.
 * Who finds the queue full, or waits longer than wait_ms, is told so (OVERLOADED_HERE with a time to come back): one slow thing behind a
 * door holds no more than its own places and queue.  The time is what those who wait now will take, at the pace of those who waited
 * lately; while none has, a second; where nobody may wait, and for who has waited in vain, wait_ms.  Never more than wait_ms.
 * Places can become more or fewer at any time: who is inside stays, and who waits is let in as soon as there is room.
 * Thread: any loop; one short lock.  Suspends: enter, when there is no place.
 */
#ifndef NEXUS_RUNTIME_BULKHEAD_H
#define NEXUS_RUNTIME_BULKHEAD_H

#include "base/uuid.h"
#include "runtime/context.h"
#include <pthread.h>

struct bulkhead {
    pthread_mutex_t lock;
    struct list turns; /* of owners who wait, the next one first */
    int32_t places, queue_max;
    int32_t in_use, queued;
    int64_t refused; /* so far: queue full or waited too long */
    int64_t pace_ns; /* from one of the queue to the next, of late; 0: nobody has waited yet */
};
struct bulkhead_counts {
    int32_t places, in_use, queued, queue_max;
    int64_t refused;
};
/* places at least 1; queue_max 0: nobody waits. */
void bulkhead_init(struct bulkhead *bulkhead, int32_t places, int32_t queue_max);
/* Nobody may be inside or waiting. */
void bulkhead_deinit(struct bulkhead *bulkhead);
struct bulkhead_entry {
    str name; /* of what is behind the door, for the error */
    uuid owner;
    int64_t wait_ms; /* at most */
};
/* Also CANCELLED, and TIMEOUT at ctx's deadline. */
may_suspend bool bulkhead_enter(struct bulkhead *bulkhead, struct context *ctx,
                                const struct bulkhead_entry *entry, struct error *e);
/* Only if it need not wait: nobody is passed by, for who waits has found no place either. */
bool bulkhead_try(struct bulkhead *bulkhead);
void bulkhead_leave(struct bulkhead *bulkhead);
/* places at least 1; INT32_MAX: no bound. */
void bulkhead_resize(struct bulkhead *bulkhead, int32_t places, int32_t queue_max);
struct bulkhead_counts bulkhead_look(struct bulkhead *bulkhead);

#endif
