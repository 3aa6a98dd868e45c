/*
 * Histogram of times: buckets as wide as 1/16 of their value, so that a percentile is exact to 6 % over the whole range at a fixed
 * size (4 KiB).
 *
 * Thread: any; additions are relaxed atomics, a reading is of about one moment.  Suspends: never.
 */
#ifndef NEXUS_AGENT_HISTOGRAM_H
#define NEXUS_AGENT_HISTOGRAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 4,   /* 16 buckets for each doubling */
    HISTOGRAM_VALUE_BITS = 36, /* larger ones count as the largest: 19 hours in us */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
};

/* All zero is empty. */
struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, int64_t value); /* below 0 counts as 0 */
/* The value that `share` (0 to 1) of all do not exceed, rounded up to its bucket's end; 0 when there are none. */
int64_t histogram_percentile(const struct histogram *histogram, double share);

#endif
