#include "runtime/simulated.h"

#include "base/ensure.h"
#include <stdlib.h>

struct manual_clock {
    struct clock base;
    int64_t unix_us; /* at monotonic 0 */
    int64_t monotonic_ns;
};

struct seeded_random {
    struct random base;
    uint64_t state[4];
};

static int64_t manual_unix_us(struct clock *clock)
{
    struct manual_clock *manual = CONTAINER_OF(clock, struct manual_clock, base);
    return manual->unix_us + manual->monotonic_ns / 1000;
}

static int64_t manual_monotonic_ns(struct clock *clock)
{
    return CONTAINER_OF(clock, struct manual_clock, base)->monotonic_ns;
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

/* xoshiro256** 1.0 by Blackman and Vigna (public domain reference). */
static uint64_t seeded_next(struct seeded_random *seeded)
{
    uint64_t *state = seeded->state;
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

static void seeded_fill(struct random *random, void *out, size_t len)
{
    struct seeded_random *seeded = CONTAINER_OF(random, struct seeded_random, base);
    uint8_t *position = out;
    while (len > 0) {
        uint64_t value = seeded_next(seeded);
        size_t piece = len < sizeof value ? len : sizeof value;
        memcpy(position, &value, piece);
        position += piece;
        len -= piece;
    }
}

/* splitmix64: spreads any seed, 0 too, over the whole state. */
static uint64_t splitmix_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct clock *clock_manual_create(int64_t unix_us, int64_t monotonic_ns)
{
    static const struct clock_ops ops = {
        .unix_us = manual_unix_us,
        .monotonic_ns = manual_monotonic_ns,
    };
    struct manual_clock *manual = calloc(1, sizeof *manual);
    ensure(manual != NULL);
    manual->base.ops = &ops;
    manual->unix_us = unix_us - monotonic_ns / 1000;
    manual->monotonic_ns = monotonic_ns;
    return &manual->base;
}

void clock_manual_destroy(struct clock *manual)
{
    if (manual)
        free(CONTAINER_OF(manual, struct manual_clock, base));
}

void clock_manual_advance_ns(struct clock *manual, int64_t ns)
{
    ensure(ns >= 0);
    CONTAINER_OF(manual, struct manual_clock, base)->monotonic_ns += ns;
}

void clock_manual_advance_to_ns(struct clock *manual, int64_t monotonic_ns)
{
    struct manual_clock *m = CONTAINER_OF(manual, struct manual_clock, base);
    if (monotonic_ns > m->monotonic_ns)
        m->monotonic_ns = monotonic_ns;
}

void clock_manual_shift_wall_us(struct clock *manual, int64_t us)
{
    CONTAINER_OF(manual, struct manual_clock, base)->unix_us += us;
}

struct random *random_seeded_create(uint64_t seed)
{
    static const struct random_ops ops = {.fill = seeded_fill};
    struct seeded_random *seeded = calloc(1, sizeof *seeded);
    ensure(seeded != NULL);
    seeded->base.ops = &ops;
    for (size_t i = 0; i < ARRAY_COUNT(seeded->state); i++)
        seeded->state[i] = splitmix_next(&seed);
    return &seeded->base;
}

void random_seeded_destroy(struct random *seeded)
{
    if (seeded)
        free(CONTAINER_OF(seeded, struct seeded_random, base));
}

bool simulated_run(struct scheduler *scheduler, struct clock *manual, size_t switches_max)
{
    for (size_t used = 0; used < switches_max; used++) {
        if (scheduler_run_ready(scheduler, 1) || scheduler_ready_count(scheduler) > 0)
            continue;
        int64_t next_ns = scheduler_next_deadline_ns(scheduler);
        if (next_ns == INT64_MAX)
            return true;
        clock_manual_advance_to_ns(manual, next_ns);
        scheduler_run_timers(scheduler);
    }
    return false;
}
