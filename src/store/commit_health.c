#include "store/commit_health.h"

#include "base/limits.h"
#include "base/log.h"

bool commit_health_counts(const struct error *e)
{
    return e->reason == REASON_DISK_FULL || e->reason == REASON_STORE;
}

static str remedy_of(enum error_reason reason)
{
    return reason == REASON_DISK_FULL
               ? S("free space on the volume of this file, or give it more (quotas and ulimit -f "
                   "count as well); it is tried again each second, nothing needs a restart")
               : S("look at the disk, its mount (read-only?) and the kernel's log; it is tried "
                   "again each second");
}

void commit_health_failed(struct commit_health *health, struct clock *clock, const struct error *e)
{
    bool is_first = atomic_load(&health->reason) == REASON_NONE;
    health->failed_ns = health->tried_ns = clock_monotonic_ns(clock);
    if (is_first) {
        health->began_ns = health->failed_ns;
        atomic_store(&health->since_us, clock_unix_us(clock));
    }
    atomic_store(&health->reason, (int) e->reason);
    if (is_first)
        LOG_ERROR("store", S("the store cannot commit: nothing new is stored until it can"), e,
                  LOG_STR("file.path", str_from_cstr(health->path ? health->path : "")),
                  LOG_STR("nexus.remedy", remedy_of(e->reason)));
}

void commit_health_stored(struct commit_health *health, struct clock *clock)
{
    if (atomic_load_explicit(&health->reason, memory_order_relaxed) == REASON_NONE)
        return;
    int64_t now_ns = clock_monotonic_ns(clock);
    health->tried_ns = now_ns;
    if (now_ns - health->failed_ns < STORE_SETTLE_MS * 1000000ll)
        return;
    atomic_store(&health->reason, REASON_NONE);
    LOG_INFO("store", S("the store commits again"),
             LOG_STR("file.path", str_from_cstr(health->path ? health->path : "")),
             LOG_I64("event.duration", now_ns - health->began_ns));
}

enum error_reason commit_health_look(struct commit_health *health, int64_t *since_us)
{
    *since_us = atomic_load(&health->since_us);
    return (enum error_reason) atomic_load(&health->reason);
}

int64_t commit_health_probe_ms(const struct commit_health *health, struct clock *clock)
{
    if (atomic_load_explicit(&health->reason, memory_order_relaxed) == REASON_NONE)
        return -1;
    int64_t age_ms = (clock_monotonic_ns(clock) - health->tried_ns) / 1000000;
    return age_ms < STORE_PROBE_MS ? STORE_PROBE_MS - age_ms : 0;
}
