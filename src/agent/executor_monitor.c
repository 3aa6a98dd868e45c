#include "agent/executor_monitor_internal.h"

#include "base/ensure.h"
#include "base/map.h"
#include "observe/metrics.h"
#include <stdlib.h>
#include <string.h>

static const str other_name = S_INIT("other");

/* ---- the table ---- */

static char *keep(str text)
{
    char *copy = strndup(text.ptr ? text.ptr : "", text.len);
    ensure(copy != NULL);
    return copy;
}

static void open_series(struct executor_monitor *monitor, struct monitor_entry *entry)
{
    const str labels[] = {str_from_cstr(entry->name), str_from_cstr(entry->version)};
    struct metrics *metrics = monitor->metrics;
    if (!metrics)
        return;
    entry->series.calls = metrics_series(metrics, METRIC_TOOL_VERSION_CALLS, labels, 2);
    entry->series.duration = metrics_series(metrics, METRIC_TOOL_VERSION_DURATION, labels, 2);
    entry->series.cpu = metrics_series(metrics, METRIC_TOOL_VERSION_CPU, labels, 2);
    entry->series.fuel = metrics_series(metrics, METRIC_TOOL_VERSION_FUEL, labels, 2);
    entry->series.memory = metrics_series(metrics, METRIC_TOOL_VERSION_MEMORY, labels, 2);
    entry->series.cold_starts = metrics_series(metrics, METRIC_TOOL_VERSION_COLD_STARTS, labels, 2);
}

static struct monitor_entry *entry_create(struct executor_monitor *monitor, str name, str version,
                                          uuid tenant_id)
{
    struct monitor_entry *entry = calloc(1, sizeof *entry);
    ensure(entry != NULL);
    entry->name = keep(name);
    entry->version = keep(version);
    entry->tenant_id = tenant_id;
    entry->since_unix_us = clock_unix_us(monitor->clock);
    pthread_mutex_init(&entry->mutex, NULL);
    open_series(monitor, entry);
    return entry;
}

static void entry_destroy(struct monitor_entry *entry)
{
    if (!entry)
        return;
    profile_destroy(entry->profile);
    pthread_mutex_destroy(&entry->mutex);
    free(entry->name);
    free(entry->version);
    free(entry);
}

static bool is_entry_of(const struct monitor_entry *entry, const struct tool *tool)
{
    return str_equal(str_from_cstr(entry->name), tool->name) &&
           str_equal(str_from_cstr(entry->version), tool->version) &&
           uuid_equal(entry->tenant_id, tool->tenant_id);
}

/* The slot of this version, or the free one where it would be. */
static size_t find_slot(const struct executor_monitor *monitor, const struct tool *tool)
{
    uint64_t hash =
        str_hash(tool->name, monitor->seed) ^ str_hash(tool->version, monitor->seed) * 31;
    size_t slot = hash % MONITOR_SLOTS;
    for (;;) {
        const struct monitor_entry *entry =
            atomic_load_explicit(&monitor->slots[slot], memory_order_acquire);
        if (!entry || is_entry_of(entry, tool))
            return slot;
        slot = (slot + 1) % MONITOR_SLOTS; /* half of them are always free */
    }
}

struct monitor_entry *monitor_find(const struct executor_monitor *monitor, const struct tool *tool)
{
    return atomic_load_explicit(&monitor->slots[find_slot(monitor, tool)], memory_order_acquire);
}

static struct monitor_entry *find_or_add(struct executor_monitor *monitor, const struct tool *tool)
{
    struct monitor_entry *entry = monitor_find(monitor, tool);
    if (entry)
        return entry;
    pthread_mutex_lock(&monitor->mutex);
    size_t slot = find_slot(monitor, tool);
    entry = atomic_load_explicit(&monitor->slots[slot], memory_order_relaxed);
    if (!entry && monitor->count == MONITOR_TOOLS_MAX) {
        entry = atomic_load_explicit(&monitor->other, memory_order_relaxed);
        if (!entry)
            entry = entry_create(monitor, other_name, STR_NONE, UUID_NONE);
        atomic_store_explicit(&monitor->other, entry, memory_order_release);
    } else if (!entry) {
        entry = entry_create(monitor, tool->name, tool->version, tool->tenant_id);
        monitor->count++;
        atomic_store_explicit(&monitor->slots[slot], entry, memory_order_release);
    }
    pthread_mutex_unlock(&monitor->mutex);
    return entry;
}

/* ---- recording ---- */

static void add(_Atomic uint64_t *counter, int64_t count)
{
    if (count > 0)
        atomic_fetch_add_explicit(counter, (uint64_t) count, memory_order_relaxed);
}

/* True when it is the largest so far. */
static bool raise_to(_Atomic uint64_t *peak, uint64_t value)
{
    uint64_t old = atomic_load_explicit(peak, memory_order_relaxed);
    while (value > old)
        if (atomic_compare_exchange_weak_explicit(peak, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void count_result(struct monitor_entry *entry, const struct tool_result *result,
                         int64_t latency_us)
{
    add(&entry->calls, 1);
    add(&entry->cold_starts, result->is_cold);
    add(&entry->cpu_us, result->cpu_us);
    add(&entry->fuel, result->fuel);
    add(&entry->latency_us, latency_us);
    raise_to(&entry->latency_us_max, (uint64_t) latency_us);
    histogram_add(&entry->latency, latency_us);
    bool is_peak = raise_to(&entry->memory_peak_bytes, result->memory_bytes);
    if (!entry->series.calls)
        return;
    metric_add(entry->series.calls, 1);
    metric_observe(entry->series.duration, (double) latency_us / 1e6);
    metric_add(entry->series.cpu, result->cpu_us);
    metric_add(entry->series.fuel, result->fuel);
    metric_add(entry->series.cold_starts, result->is_cold);
    if (is_peak)
        metric_set(entry->series.memory, (double) result->memory_bytes);
}

static void count_failure(struct executor_monitor *monitor, struct monitor_entry *entry,
                          const struct tool_request *request, const struct error *e)
{
    const str labels[] = {str_from_cstr(entry->name), str_from_cstr(entry->version),
                          str_from_cstr(error_problem(e->reason))};
    add(&entry->failures, 1);
    add(&entry->reasons[e->reason], 1);
    if (monitor->metrics)
        metrics_add(monitor->metrics, METRIC_TOOL_VERSION_ERRORS, 1, labels, ARRAY_COUNT(labels));
    pthread_mutex_lock(&entry->mutex);
    entry->last_error.reason = e->reason;
    entry->last_error.unix_us = clock_unix_us(monitor->clock);
    entry->last_error.tenant_id = request->tenant_id;
    memcpy(entry->last_error.message, e->message, sizeof e->message);
    pthread_mutex_unlock(&entry->mutex);
}

static bool take_profile_place(struct executor_monitor *monitor)
{
    if (atomic_fetch_add(&monitor->profile_count, 1) < MONITOR_PROFILES_MAX)
        return true;
    atomic_fetch_sub(&monitor->profile_count, 1);
    return false;
}

static void add_profile(struct executor_monitor *monitor, struct monitor_entry *entry, str folded)
{
    pthread_mutex_lock(&entry->mutex);
    if (!entry->profile && take_profile_place(monitor))
        entry->profile = profile_create(MONITOR_PROFILE_FUNCTIONS_MAX, MONITOR_PROFILE_NODES_MAX);
    if (entry->profile)
        (void) profile_add_folded(entry->profile, folded); /* a bad line is left out */
    pthread_mutex_unlock(&entry->mutex);
}

may_suspend static bool monitor_execute(struct executor *executor, struct context *ctx,
                                        const struct tool_request *request, struct tool_result *out,
                                        struct error *e)
{
    struct executor_monitor *monitor = CONTAINER_OF(executor, struct executor_monitor, base);
    struct monitor_entry *entry = find_or_add(monitor, request->tool);
    int64_t start_us = context_now_us(ctx);
    bool is_ok = executor_execute(monitor->next, ctx, request, out, e);
    int64_t latency_us = context_now_us(ctx) - start_us;
    count_result(entry, out, latency_us > 0 ? latency_us : 0);
    if (!is_ok)
        count_failure(monitor, entry, request, e);
    if (!str_is_empty(out->profile))
        add_profile(monitor, entry, out->profile);
    return is_ok;
}

/* ---- the monitor ---- */

static void monitor_destroy(struct executor *executor)
{
    struct executor_monitor *monitor = CONTAINER_OF(executor, struct executor_monitor, base);
    executor_destroy(monitor->next);
    for (size_t i = 0; i < MONITOR_SLOTS; i++)
        entry_destroy(atomic_load(&monitor->slots[i]));
    entry_destroy(atomic_load(&monitor->other));
    pthread_mutex_destroy(&monitor->mutex);
    free(monitor);
}

static const struct executor_ops monitor_ops = {"monitor", monitor_execute, monitor_destroy};

struct executor_monitor *executor_monitor_create(const struct executor_monitor_options *options)
{
    struct executor_monitor *monitor = calloc(1, sizeof *monitor);
    ensure(monitor != NULL);
    monitor->base.ops = &monitor_ops;
    monitor->next = options->give_next;
    monitor->clock = options->clock;
    monitor->metrics = options->metrics;
    monitor->seed = map_seed();
    pthread_mutex_init(&monitor->mutex, NULL);
    return monitor;
}

struct executor *executor_monitor_executor(struct executor_monitor *monitor)
{
    return &monitor->base;
}
