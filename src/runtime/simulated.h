/*
 * Simulated clock and randomness: the world of tests and of the simulation.  One seed, one history.
 *
 * The manual clock moves only when told.  The seeded random is xoshiro256** fed by splitmix64:
 * repeatable, never for keys.
 * simulated_run drives a scheduler by itself: ready coroutines first, then the clock jumps to the
 * next timer.
 * Thread: one at a time.
 */
#ifndef NEXUS_RUNTIME_SIMULATED_H
#define NEXUS_RUNTIME_SIMULATED_H

#include "runtime/scheduler.h"

struct clock *clock_manual_create(int64_t unix_us, int64_t monotonic_ns);
void clock_manual_destroy(struct clock *manual);
void clock_manual_advance_ns(struct clock *manual, int64_t ns); /* wall time too; ns >= 0 */
/* Nothing when that is past already. */
void clock_manual_advance_to_ns(struct clock *manual, int64_t monotonic_ns);
void clock_manual_shift_wall_us(struct clock *manual, int64_t us); /* wall time jumps, either way */

struct random *random_seeded_create(uint64_t seed);
void random_seeded_destroy(struct random *seeded);

/* Until no coroutine is ready and no timer is armed (true), or `switches_max` switches were used
 * (false: it may be stuck). */
bool simulated_run(struct scheduler *scheduler, struct clock *manual, size_t switches_max);

#endif
