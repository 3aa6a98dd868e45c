#include "store/commit_meter.h"
#include "base/limits.h"

void commit_meter_begin(struct commit_meter *meter, int64_t now_ns)
{
    if (atomic_fetch_add(&meter->running, 1) == 0)
        atomic_store(&meter->busy_since_ns, now_ns);
}

/* Of several at once the last one to begin stands for those that still run. */
void commit_meter_end(struct commit_meter *meter, int64_t began_ns, int64_t now_ns)
{
    int64_t before = atomic_load(&meter->commit_ns), took = now_ns - began_ns;
    atomic_store(&meter->commit_ns, before == 0 ? took : (before + took) / 2);
    atomic_store(&meter->ended_ns, now_ns);
    if (atomic_fetch_sub(&meter->running, 1) > 1 && began_ns > atomic_load(&meter->busy_since_ns))
        atomic_store(&meter->busy_since_ns, began_ns);
}

int64_t commit_meter_us(struct commit_meter *meter, int64_t now_ns)
{
    int64_t known_ns = atomic_load(&meter->commit_ns), age_ns = 0;
    if (now_ns - atomic_load(&meter->ended_ns) > STORE_LOAD_IDLE_MS * 1000000ll)
        known_ns = 0;
    if (atomic_load(&meter->running) > 0)
        age_ns = now_ns - atomic_load(&meter->busy_since_ns);
    return (age_ns > known_ns ? age_ns : known_ns) / 1000;
}
