/*
 * Clock and randomness: contracts, so that the simulation can supply its own.
 *
 * unix_us is wall time (stored times); monotonic_ns never goes back (deadlines).  `fill` gives
 * unpredictable bytes.  Implementations: clock_system(), random_system(); for tests and simulation
 * simulated.h has others.  Thread: any.
 */
#ifndef NEXUS_RUNTIME_CLOCK_H
#define NEXUS_RUNTIME_CLOCK_H

#include "base/uuid.h"

struct clock;
struct clock_ops {
    int64_t (*unix_us)(struct clock *clock);
    int64_t (*monotonic_ns)(struct clock *clock);
};
struct clock {
    const struct clock_ops *ops;
};

struct random;
struct random_ops {
    void (*fill)(struct random *random, void *out, size_t len);
};
struct random {
    const struct random_ops *ops;
    _Atomic uint64_t newest_id; /* of uuid_new: milliseconds and a part of one, 12 bits */
};

struct clock *clock_system(void);
struct random *random_system(void); /* buffered per thread, from the kernel */

int64_t clock_unix_us(struct clock *clock);
int64_t clock_monotonic_ns(struct clock *clock);
uint64_t random_u64(struct random *random);
uint64_t random_below(struct random *random, uint64_t bound); /* uniform in [0, bound); bound > 0 */
/* UUIDv7; ids of one `random` rise strictly, also within a microsecond (RFC 9562, 6.2, method 3). */
uuid uuid_new(struct clock *clock, struct random *random);

#endif
