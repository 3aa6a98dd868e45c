#include "orchestrator/overload.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "observe/metrics.h"
#include "orchestrator/orchestrator.h"
#include "runtime/clock.h"
#include "store/store.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One lane's: a note is posted and says when it arrives how late that was. */
struct probe {
    struct overload *overload;
    _Atomic int64_t posted_ns; /* 0: none is on its way */
    _Atomic int64_t lag_ns;
};
struct overload {
    struct overload_options options;
    struct probe *probes;
    _Atomic int64_t pressure_milli, lag_ms, memory_bytes;
    _Atomic int64_t commit_ms, store_queued, store_queue_max;
    _Atomic int64_t refused[PRIORITY_COUNT];
    struct metric_series *pressure_series, *commit_series, *store_queued_series,
        *store_writable_series, *refused_series[PRIORITY_COUNT];
};

/* What is refused from which pressure on, in thousandths. */
static const int64_t refused_from_milli[PRIORITY_COUNT] = {
    [PRIORITY_BATCH] = 1000, [PRIORITY_NORMAL] = 2000, [PRIORITY_INTERACTIVE] = 4000};

/* ---- looking ---- */

static int64_t now_ns(const struct overload *overload)
{
    return clock_monotonic_ns(overload->options.clock);
}

static void arrived(void *argument)
{
    struct probe *probe = argument;
    int64_t late_ns = now_ns(probe->overload) - atomic_load(&probe->posted_ns);
    atomic_store(&probe->lag_ns, late_ns > 0 ? late_ns : 0);
    atomic_store(&probe->posted_ns, 0);
}

/* One that has not arrived yet is at least as late as it is old. */
static int64_t look_at_lag_ms(struct overload *overload)
{
    int64_t worst_ns = 0, now = now_ns(overload);
    for (size_t i = 0; i < overload->options.lane_count; i++) {
        struct probe *probe = &overload->probes[i];
        struct lane *lane = &overload->options.lanes[i];
        int64_t posted_ns = atomic_load(&probe->posted_ns), lag_ns = atomic_load(&probe->lag_ns);
        if (posted_ns != 0 && now - posted_ns > lag_ns)
            lag_ns = now - posted_ns;
        if (lag_ns > worst_ns)
            worst_ns = lag_ns;
        if (posted_ns != 0)
            continue;
        atomic_store(&probe->posted_ns, now > 0 ? now : 1);
        lane->post(lane, arrived, probe);
    }
    return worst_ns / 1000000;
}

/* Resident pages of this process; the file is the kernel's own memory, reading it waits for nothing. */
static int64_t look_at_memory_bytes(void)
{
    char text[128] = "";
    long long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0 || sscanf(text, "%*d %lld", &pages) != 1)
        return 0;
    return pages * (int64_t) sysconf(_SC_PAGESIZE);
}

static int64_t share_milli(int64_t value, int64_t limit)
{
    return limit > 0 ? value * 1000 / limit : 0;
}

static int64_t worst_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Half of its queue is too much: what stands there waits for all before it. */
static int64_t look_at_store(struct overload *overload)
{
    const struct overload_options *options = &overload->options;
    if (!options->store)
        return 0;
    struct store_load load = store_load(options->store);
    atomic_store(&overload->commit_ms, load.commit_us / 1000);
    atomic_store(&overload->store_queued, load.queued);
    atomic_store(&overload->store_queue_max, load.queue_max);
    if (overload->commit_series) {
        metric_set(overload->commit_series, (double) load.commit_us / 1e6);
        metric_set(overload->store_queued_series, (double) load.queued);
        metric_set(overload->store_writable_series, load.failing == REASON_NONE);
    }
    return worst_of(share_milli(2 * load.queued, load.queue_max),
                    share_milli(load.commit_us / 1000, options->commit_ms));
}

void overload_sample(struct overload *overload)
{
    const struct overload_options *options = &overload->options;
    struct admission_counts runs = admission_look(options->admission);
    int64_t lag_ms = options->lag_ms > 0 ? look_at_lag_ms(overload) : 0;
    int64_t memory_bytes = options->memory_bytes > 0 ? look_at_memory_bytes() : 0;
    int64_t worst = share_milli((int64_t) runs.queued, (int64_t) runs.queue_max);
    worst = worst_of(worst, share_milli(lag_ms, options->lag_ms));
    worst = worst_of(worst, share_milli(memory_bytes, options->memory_bytes));
    worst = worst_of(worst, look_at_store(overload));
    int64_t before = atomic_load(&overload->pressure_milli);
    atomic_store(&overload->pressure_milli, (before + worst) / 2);
    atomic_store(&overload->lag_ms, lag_ms);
    atomic_store(&overload->memory_bytes, memory_bytes);
    if (overload->pressure_series)
        metric_set(overload->pressure_series, (double) (before + worst) / 2000);
}

/* ---- refusing ---- */

bool overload_admits(struct overload *overload, enum priority priority, struct error *e)
{
    int64_t pressure = atomic_load_explicit(&overload->pressure_milli, memory_order_relaxed);
    if (likely(pressure < refused_from_milli[priority]))
        return true;
    atomic_fetch_add(&overload->refused[priority], 1);
    if (overload->refused_series[priority])
        metric_add(overload->refused_series[priority], 1);
    error_set(e, REASON_OVERLOADED_HERE,
              "this node is overloaded (%lld.%lld times its limit): work of priority %s is refused",
              (long long) (pressure / 1000), (long long) (pressure % 1000 / 100),
              priority_name(priority));
    e->retry_after_ms = (PRIORITY_COUNT - (int64_t) priority) * OVERLOAD_RETRY_MS;
    return false;
}

struct overload_view overload_look(struct overload *overload)
{
    struct overload_view view = {
        .pressure_milli = atomic_load(&overload->pressure_milli),
        .lag_ms = atomic_load(&overload->lag_ms),
        .lag_limit_ms = overload->options.lag_ms,
        .memory_bytes = atomic_load(&overload->memory_bytes),
        .memory_limit_bytes = overload->options.memory_bytes,
        .commit_ms = atomic_load(&overload->commit_ms),
        .commit_limit_ms = overload->options.commit_ms,
        .store_queued = atomic_load(&overload->store_queued),
        .store_queue_max = atomic_load(&overload->store_queue_max),
    };
    for (int i = 0; i < PRIORITY_COUNT; i++)
        view.refused[i] = atomic_load(&overload->refused[i]);
    return view;
}

void overload_pretend(struct overload *overload, int64_t pressure_milli)
{
    atomic_store(&overload->pressure_milli, pressure_milli);
}

/* ---- life ---- */

struct overload *overload_create(const struct overload_options *options)
{
    struct overload *overload = calloc(1, sizeof *overload);
    ensure(overload != NULL);
    overload->options = *options;
    overload->probes = calloc(options->lane_count, sizeof *overload->probes);
    ensure(overload->probes != NULL);
    for (size_t i = 0; i < options->lane_count; i++)
        overload->probes[i].overload = overload;
    for (int i = 0; options->metrics && i < PRIORITY_COUNT; i++) {
        str name = str_from_cstr(priority_name((enum priority) i));
        overload->refused_series[i] =
            metrics_series(options->metrics, METRIC_OVERLOAD_REFUSED, &name, 1);
    }
    if (options->metrics) {
        overload->pressure_series =
            metrics_series(options->metrics, METRIC_OVERLOAD_PRESSURE, NULL, 0);
        overload->commit_series = metrics_series(options->metrics, METRIC_STORE_COMMIT, NULL, 0);
        overload->store_queued_series =
            metrics_series(options->metrics, METRIC_STORE_QUEUED, NULL, 0);
        overload->store_writable_series =
            metrics_series(options->metrics, METRIC_STORE_WRITABLE, NULL, 0);
        metric_set(overload->store_writable_series, 1);
    }
    return overload;
}

void overload_destroy(struct overload *overload)
{
    if (!overload)
        return;
    for (size_t i = 0; i < overload->options.lane_count; i++)
        if (atomic_load(&overload->probes[i].posted_ns) != 0)
            return; /* a loop that has ended before it read the note may still do so */
    free(overload->probes);
    free(overload);
}
