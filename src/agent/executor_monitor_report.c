#include "agent/executor_monitor_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/timefmt.h"
#include <stdlib.h>

static int64_t value_of(const _Atomic uint64_t *counter)
{
    return (int64_t) atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- one version ---- */

static void write_reasons(const struct monitor_entry *entry, struct json_writer *w)
{
    json_key(w, S("errors_by_reason"));
    json_object_begin(w);
    for (size_t i = 0; i < REASON_COUNT; i++)
        if (value_of(&entry->reasons[i]) > 0)
            json_put_i64(w, str_from_cstr(error_problem((enum error_reason) i)),
                         value_of(&entry->reasons[i]));
    json_object_end(w);
}

static void write_latency(const struct monitor_entry *entry, int64_t calls, struct json_writer *w)
{
    json_key(w, S("latency_us"));
    json_object_begin(w);
    json_put_i64(w, S("p50"), histogram_percentile(&entry->latency, 0.50));
    json_put_i64(w, S("p95"), histogram_percentile(&entry->latency, 0.95));
    json_put_i64(w, S("p99"), histogram_percentile(&entry->latency, 0.99));
    json_put_i64(w, S("max"), value_of(&entry->latency_us_max));
    json_put_i64(w, S("mean"), calls > 0 ? value_of(&entry->latency_us) / calls : 0);
    json_object_end(w);
}

static void write_last_error(struct monitor_entry *entry, uuid tenant_id, struct json_writer *w)
{
    char at[TIME_TEXT_BYTES + 1];
    pthread_mutex_lock(&entry->mutex);
    const struct monitor_error *last = &entry->last_error;
    json_key(w, S("last_error"));
    if (last->unix_us == 0) {
        json_write_null(w);
    } else {
        time_format(last->unix_us, at);
        json_object_begin(w);
        json_put_str(w, S("reason"), str_from_cstr(error_problem(last->reason)));
        json_put_str(w, S("at"), str_from_cstr(at));
        if (uuid_equal(last->tenant_id, tenant_id))
            json_put_str(w, S("message"), str_from_cstr(last->message));
        json_object_end(w);
    }
    json_put_bool(w, S("has_profile"), entry->profile != NULL);
    pthread_mutex_unlock(&entry->mutex);
}

static void write_entry(struct monitor_entry *entry, uuid tenant_id, struct json_writer *w)
{
    char since[TIME_TEXT_BYTES + 1];
    int64_t calls = value_of(&entry->calls), cold = value_of(&entry->cold_starts);
    time_format(entry->since_unix_us, since);
    json_object_begin(w);
    json_put_str(w, S("tool"), str_from_cstr(entry->name));
    json_put_str(w, S("version"), str_from_cstr(entry->version));
    json_put_str(w, S("since"), str_from_cstr(since));
    json_put_i64(w, S("calls"), calls);
    json_put_i64(w, S("errors"), value_of(&entry->failures));
    write_reasons(entry, w);
    json_put_i64(w, S("cold_starts"), cold);
    json_put_i64(w, S("warm_starts"), calls > cold ? calls - cold : 0);
    json_put_i64(w, S("cpu_us"), value_of(&entry->cpu_us));
    json_put_i64(w, S("cpu_us_mean"), calls > 0 ? value_of(&entry->cpu_us) / calls : 0);
    json_put_i64(w, S("fuel"), value_of(&entry->fuel));
    json_put_i64(w, S("memory_peak_bytes"), value_of(&entry->memory_peak_bytes));
    write_latency(entry, calls, w);
    write_last_error(entry, tenant_id, w);
    json_object_end(w);
}

void executor_monitor_write_tool(const struct executor_monitor *monitor, const struct tool *tool,
                                 uuid tenant_id, struct json_writer *w)
{
    struct monitor_entry *entry = monitor_find(monitor, tool);
    if (entry)
        write_entry(entry, tenant_id, w);
    else
        json_write_null(w);
}

/* ---- the top list ---- */

static const char *const order_names[] = {
    [MONITOR_BY_CPU] = "cpu",
    [MONITOR_BY_LATENCY] = "latency",
    [MONITOR_BY_ERRORS] = "errors",
    [MONITOR_BY_CALLS] = "calls",
};

bool monitor_order_find(str name, enum monitor_order *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(order_names); i++)
        if (str_equal(name, str_from_cstr(order_names[i]))) {
            *out = (enum monitor_order) i;
            return true;
        }
    return false;
}

struct ranked {
    struct monitor_entry *entry;
    int64_t weight;
};

static int64_t weight_of(const struct monitor_entry *entry, enum monitor_order order)
{
    switch (order) {
    case MONITOR_BY_CPU: return value_of(&entry->cpu_us);
    case MONITOR_BY_LATENCY: return histogram_percentile(&entry->latency, 0.95);
    case MONITOR_BY_ERRORS: return value_of(&entry->failures);
    case MONITOR_BY_CALLS: return value_of(&entry->calls);
    }
    unreachable_state();
}

static int by_weight(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return str_compare(str_from_cstr(x->entry->name), str_from_cstr(y->entry->name));
}

static void rank(struct ranked *list, size_t *count, struct monitor_entry *entry, uuid tenant_id,
                 enum monitor_order order)
{
    if (entry && (uuid_is_none(entry->tenant_id) || uuid_equal(entry->tenant_id, tenant_id)))
        list[(*count)++] = (struct ranked){entry, weight_of(entry, order)};
}

void executor_monitor_write_json(const struct executor_monitor *monitor, uuid tenant_id,
                                 enum monitor_order order, size_t count_max, struct json_writer *w)
{
    OWNED(arena) arena = arena_create(0);
    struct ranked *list = ARENA_ARRAY(arena, struct ranked, MONITOR_TOOLS_MAX + 1);
    size_t count = 0;
    for (size_t i = 0; i < MONITOR_SLOTS; i++)
        rank(list, &count, atomic_load_explicit(&monitor->slots[i], memory_order_acquire),
             tenant_id, order);
    rank(list, &count, atomic_load_explicit(&monitor->other, memory_order_acquire), tenant_id,
         order);
    qsort(list, count, sizeof *list, by_weight);
    json_object_begin(w);
    json_put_str(w, S("by"), str_from_cstr(order_names[order]));
    json_key(w, S("items"));
    json_array_begin(w);
    for (size_t i = 0; i < count && i < count_max; i++)
        write_entry(list[i].entry, tenant_id, w);
    json_array_end(w);
    json_key(w, S("next_cursor"));
    json_write_null(w);
    json_object_end(w);
}

/* ---- profiles ---- */

bool executor_monitor_write_profile(const struct executor_monitor *monitor, const struct tool *tool,
                                    struct strbuf *out)
{
    struct monitor_entry *entry = monitor_find(monitor, tool);
    bool has_profile = false;
    if (!entry)
        return false;
    pthread_mutex_lock(&entry->mutex);
    if (entry->profile && profile_total_ms(entry->profile) > 0) {
        strbuf_printf(out,
                      "%s %s: calls with more than %d ms of CPU time, sampled each %d ms from then "
                      "on\n",
                      entry->name, entry->version, SANDBOX_PROFILE_AFTER_MS, SANDBOX_TICK_MS);
        profile_write_text(entry->profile, out);
        has_profile = true;
    }
    pthread_mutex_unlock(&entry->mutex);
    return has_profile;
}
