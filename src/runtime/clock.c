#include "runtime/clock.h"

#include "base/ensure.h"
#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <time.h>

/* One getrandom call serves about thirty ids. */
enum { RANDOM_BUFFER_BYTES = 512 };

static int64_t read_clock(clockid_t id, int64_t units_per_s, int64_t ns_per_unit)
{
    struct timespec now;
    ensure(clock_gettime(id, &now) == 0);
    return (int64_t) now.tv_sec * units_per_s + now.tv_nsec / ns_per_unit;
}

static int64_t system_unix_us(struct clock *clock)
{
    (void) clock;
    return read_clock(CLOCK_REALTIME, 1000000, 1000);
}

static int64_t system_monotonic_ns(struct clock *clock)
{
    (void) clock;
    return read_clock(CLOCK_MONOTONIC, 1000000000, 1);
}

static void fill_from_kernel(uint8_t *out, size_t len)
{
    while (len > 0) {
        ssize_t got = getrandom(out, len, 0);
        ensure(got > 0 || errno == EINTR);
        if (got > 0) {
            out += got;
            len -= (size_t) got;
        }
    }
}

static void system_fill(struct random *random, void *out, size_t len)
{
    static _Thread_local struct {
        uint8_t bytes[RANDOM_BUFFER_BYTES];
        size_t left;
    } buffer;

    (void) random;
    if (len > RANDOM_BUFFER_BYTES / 4) {
        fill_from_kernel(out, len);
        return;
    }
    if (buffer.left < len) {
        fill_from_kernel(buffer.bytes, RANDOM_BUFFER_BYTES);
        buffer.left = RANDOM_BUFFER_BYTES;
    }
    /* Bytes that were given out are wiped: what leaks later tells nothing about ids and keys made
     * before. */
    buffer.left -= len;
    memcpy(out, buffer.bytes + buffer.left, len);
    memset(buffer.bytes + buffer.left, 0, len);
}

struct clock *clock_system(void)
{
    static const struct clock_ops ops = {
        .unix_us = system_unix_us,
        .monotonic_ns = system_monotonic_ns,
    };
    static struct clock clock = {&ops};
    return &clock;
}

struct random *random_system(void)
{
    static const struct random_ops ops = {.fill = system_fill};
    static struct random random = {.ops = &ops};
    return &random;
}

int64_t clock_unix_us(struct clock *clock)
{
    return clock->ops->unix_us(clock);
}

int64_t clock_monotonic_ns(struct clock *clock)
{
    return clock->ops->monotonic_ns(clock);
}

uint64_t random_u64(struct random *random)
{
    uint64_t value;
    random->ops->fill(random, &value, sizeof value);
    return value;
}

uint64_t random_below(struct random *random, uint64_t bound)
{
    ensure(bound > 0);
    /* Values below `uneven` would make small results likelier: 2^64 is no multiple of bound.  Less
     * than two draws on average. */
    uint64_t uneven = (0 - bound) % bound;
    uint64_t value;
    do
        value = random_u64(random);
    while (value < uneven);
    return value % bound;
}

uuid uuid_new(struct clock *clock, struct random *random)
{
    uint8_t bytes[10];
    uint64_t now_us = (uint64_t) clock_unix_us(clock);
    uint64_t now = now_us / 1000 << 12 | now_us % 1000 * 4096 / 1000;
    uint64_t newest = atomic_load_explicit(&random->newest_id, memory_order_relaxed), next;
    do
        next = now > newest ? now : newest + 1;
    while (!atomic_compare_exchange_weak_explicit(&random->newest_id, &newest, next,
                                                  memory_order_relaxed, memory_order_relaxed));
    random->ops->fill(random, bytes, sizeof bytes);
    bytes[0] = (uint8_t) (next >> 8 & 0x0f);
    bytes[1] = (uint8_t) next;
    return uuid_make((int64_t) (next >> 12), bytes);
}
