/*
 * Circuit breaker of something that calls go to: opens on a share of failures within a window or on a row of them, half-open lets single
 * probes through, then it ramps up.
 *
 *      closed --too many failures--> open --time--> half-open --probes pass--> ramping --time--> closed
 *                                     ^                 |                         |
 *                                     +--- a failure ---+------- failures --------+
 *
 * Who asks decides what a failure is: only what says that the other side is broken, never what the caller did wrong.
 * Thread: any; the path of a call that goes well reads and adds to atomics only.  Suspends: never.
 */
#ifndef NEXUS_RUNTIME_BREAKER_H
#define NEXUS_RUNTIME_BREAKER_H

#include "base/ensure.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_RAMPING, BREAKER_HALF_OPEN, BREAKER_OPEN };
struct breaker {
    _Atomic int state;
    _Atomic uint32_t failures_in_row;
    _Atomic uint64_t buckets[BREAKER_BUCKETS]; /* epoch, passed, failed */
    _Atomic bool is_probing, is_probe_told;
    pthread_mutex_t lock;       /* of what follows and of changes of state */
    int64_t since_ns, until_ns; /* of the state; open: when it ends */
    uint32_t opened_count, probes_passed;
    int64_t opened_ns; /* when it first opened, of the times in a row that no probe mended */
    char why[BREAKER_WHY_BYTES]; /* the last failure */
};
void breaker_init(struct breaker *breaker);
void breaker_deinit(struct breaker *breaker);
/* The state now; time moves open to half-open and ramping to closed. */
enum breaker_state breaker_look(struct breaker *breaker, int64_t now_ns);
/* While ramping: the share of calls it takes, 0..1000. */
int64_t breaker_share_per_mille(struct breaker *breaker, int64_t now_ns);
bool breaker_take_probe(struct breaker *breaker); /* false: another one is out */
void breaker_release_probe(struct breaker *breaker);
/* True once each time that it is half-open: whose probe is sent first tells of it. */
bool breaker_is_first_probe(struct breaker *breaker);
/* True: it was the last probe that was needed, calls go again. */
bool breaker_passed(struct breaker *breaker, int64_t now_ns, bool is_probe);
/* `jitter`: any random number; `why`: for people (cut).  True: this one opened it, or as a failed probe did so again. */
bool breaker_failed(struct breaker *breaker, int64_t now_ns, bool is_probe, uint64_t jitter,
                    const char *why);
int64_t breaker_opens_again_ns(struct breaker *breaker); /* 0: it is not open */
/* What to tell somebody who is refused. */
struct breaker_story {
    int64_t opened_ns, until_ns; /* until_ns 0: half-open, single probes go */
    char why[BREAKER_WHY_BYTES];
};
bool breaker_tell(struct breaker *breaker, struct breaker_story *out); /* false: calls go */
void breaker_counts(struct breaker *breaker, int64_t now_ns, int64_t *passed, int64_t *failed);
const char *breaker_state_name(enum breaker_state state);

#endif
