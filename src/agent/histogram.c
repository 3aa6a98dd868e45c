#include "agent/histogram.h"

enum { STEPS = 1 << HISTOGRAM_STEP_BITS };

static size_t bucket_of(uint64_t value)
{
    const uint64_t value_max = (1ull << HISTOGRAM_VALUE_BITS) - 1;
    if (value > value_max)
        value = value_max;
    if (value < STEPS)
        return (size_t) value;
    unsigned shift = 63u - (unsigned) __builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return ((size_t) (shift + 1) << HISTOGRAM_STEP_BITS) + (size_t) (value >> shift) % STEPS;
}

static int64_t bucket_end(size_t bucket)
{
    if (bucket < STEPS)
        return (int64_t) bucket;
    unsigned shift = (unsigned) (bucket / STEPS) - 1;
    return (int64_t) (((STEPS + bucket % STEPS + 1) << shift) - 1);
}

void histogram_add(struct histogram *histogram, int64_t value)
{
    size_t bucket = bucket_of(value > 0 ? (uint64_t) value : 0);
    atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
}

static uint64_t count_at(const struct histogram *histogram, size_t bucket)
{
    return atomic_load_explicit(&histogram->counts[bucket], memory_order_relaxed);
}

int64_t histogram_percentile(const struct histogram *histogram, double share)
{
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += count_at(histogram, i);
    if (total == 0)
        return 0;
    uint64_t wanted = (uint64_t) ((double) total * share);
    if ((double) wanted < (double) total * share || wanted == 0)
        wanted++; /* rounded up: the smallest value that so many do not exceed */
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += count_at(histogram, i);
        if (seen >= wanted)
            return bucket_end(i);
    }
    return bucket_end(HISTOGRAM_BUCKETS - 1); /* counted while we looked */
}
