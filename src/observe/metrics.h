/*
 * Metrics: counters, gauges and histograms in Prometheus text exposition (version 0.0.4).
 *
 * A family is declared once in a table (metrics.def) with its labels; a series is found by its label values and kept by the caller where
 * it matters.  Series per family are bounded (METRIC_SERIES_MAX): the rest fold into the label value "other".  session_id is such a
 * label: the busiest keep their own series.
 * Thread: any; updates are relaxed atomics on per-series cells.  Suspends: never.
 */
#ifndef NEXUS_OBSERVE_METRICS_H
#define NEXUS_OBSERVE_METRICS_H

#include "base/strbuf.h"

enum metric {
#define METRIC(name, kind, text_name, labels, help) METRIC_##name,
#include "observe/metrics.def"
#undef METRIC
    METRIC_COUNT
};

struct metrics;
struct metric_series;

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *metrics);
/* label values in the family's order */
struct metric_series *metrics_series(struct metrics *metrics, enum metric metric,
                                     const str *label_values, size_t count);
void metric_add(struct metric_series *series, int64_t delta);    /* counter, gauge */
void metric_set(struct metric_series *series, double value);     /* gauge */
void metric_observe(struct metric_series *series, double value); /* histogram, seconds */
/* Short forms for what is not hot. */
void metrics_add(struct metrics *metrics, enum metric metric, int64_t delta,
                 const str *label_values, size_t count);
void metrics_set(struct metrics *metrics, enum metric metric, double value, const str *label_values,
                 size_t count);
void metrics_observe(struct metrics *metrics, enum metric metric, double seconds,
                     const str *label_values, size_t count);
void metrics_write(struct metrics *metrics, struct strbuf *out);

#endif
