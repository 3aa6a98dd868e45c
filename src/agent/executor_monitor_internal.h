/*
 * What the monitor keeps; executor_monitor.c records, executor_monitor_report.c tells.
 */
#ifndef NEXUS_AGENT_EXECUTOR_MONITOR_INTERNAL_H
#define NEXUS_AGENT_EXECUTOR_MONITOR_INTERNAL_H

#include "agent/executor_monitor.h"
#include "agent/histogram.h"
#include "agent/profile.h"
#include "base/limits.h"
#include <pthread.h>

enum { MONITOR_SLOTS = 2 * MONITOR_TOOLS_MAX };

struct metric_series;

struct monitor_error {
    enum error_reason reason;
    int64_t unix_us; /* 0: there was none */
    uuid tenant_id;  /* of the caller */
    char message[ERROR_MESSAGE_BYTES];
};

/* One version of a tool.  Never removed, so that calls find it without a lock. */
struct monitor_entry {
    char *name, *version;
    uuid tenant_id; /* of the tool; UUID_NONE: every tenant's */
    int64_t since_unix_us;
    _Atomic uint64_t calls, failures, cold_starts, cpu_us, fuel, latency_us, latency_us_max;
    _Atomic uint64_t memory_peak_bytes;
    _Atomic uint64_t reasons[REASON_COUNT];
    struct histogram latency;
    struct {
        struct metric_series *calls, *duration, *cpu, *fuel, *memory, *cold_starts;
    } series; /* NULL: no metrics */

    pthread_mutex_t mutex; /* of what follows */
    struct monitor_error last_error;
    struct profile *profile; /* NULL: no sample yet */
};

struct executor_monitor {
    struct executor base;
    struct executor *next;
    struct clock *clock;
    struct metrics *metrics;
    uint64_t seed;
    pthread_mutex_t mutex; /* for adding entries */
    size_t count;
    atomic_size_t profile_count;
    struct monitor_entry *_Atomic slots[MONITOR_SLOTS];
    struct monitor_entry *_Atomic other; /* what came when the table was full */
};

struct monitor_entry *monitor_find(const struct executor_monitor *monitor, const struct tool *tool);

#endif
