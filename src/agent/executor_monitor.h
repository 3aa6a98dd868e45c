/*
 * Monitor: an executor in front of another one that keeps what each version of each tool costs.
 *
 *      executor_execute --> monitor --> the executor behind --> monitor: figures, metrics, profile
 *
 * Kept since the first call, in this process: calls, errors by reason, cold and warm starts, CPU time, fuel, the largest memory, the
 * latency's distribution (buckets 1/16 of their value wide, so a percentile is at most 6 % too high), the last error, and the profile
 * of those calls that took more than SANDBOX_PROFILE_AFTER_MS of CPU time.  Memory is bounded: versions past MONITOR_TOOLS_MAX are
 * counted together as tool "other", profiles are kept of the first MONITOR_PROFILES_MAX that have any.
 *
 * A tool of one tenant is seen by that tenant only; the text of an error, which may quote its caller, by the caller's tenant only.
 * Thread: any; a call costs about a dozen relaxed atomic additions.  Suspends: only what is behind it does.
 */
#ifndef NEXUS_AGENT_EXECUTOR_MONITOR_H
#define NEXUS_AGENT_EXECUTOR_MONITOR_H

#include "agent/executor.h"

struct executor_monitor;
struct metrics;

struct executor_monitor_options {
    struct executor *give_next; /* owned from then on */
    struct clock *clock;
    struct metrics *metrics; /* borrowed; NULL: none */
};
struct executor_monitor *executor_monitor_create(const struct executor_monitor_options *options);
/* The executor to call; executor_destroy() on it ends the monitor and the executor behind. */
struct executor *executor_monitor_executor(struct executor_monitor *monitor);

enum monitor_order { MONITOR_BY_CPU, MONITOR_BY_LATENCY, MONITOR_BY_ERRORS, MONITOR_BY_CALLS };
bool monitor_order_find(str name,
                        enum monitor_order *out); /* "cpu", "latency", "errors", "calls" */

/* {"by", "items": [...], "next_cursor": null}: at most `count_max` of those that the tenant may see, the largest first; latency: by p95. */
void executor_monitor_write_json(const struct executor_monitor *monitor, uuid tenant_id,
                                 enum monitor_order order, size_t count_max, struct json_writer *w);
/* One version's figures as a JSON object; null when it has not been called. */
void executor_monitor_write_tool(const struct executor_monitor *monitor, const struct tool *tool,
                                 uuid tenant_id, struct json_writer *w);
/* For people.  False: no call of this version has taken long enough for a sample. */
bool executor_monitor_write_profile(const struct executor_monitor *monitor, const struct tool *tool,
                                    struct strbuf *out);

#endif
