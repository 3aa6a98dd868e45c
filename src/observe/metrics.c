#include "observe/metrics.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * One family is a small hash table of series under one lock.  Updates of a series are relaxed atomics and need no lock.
 *
 * A family without `session_id` keeps the first METRIC_SERIES_MAX series; what comes later counts into the series whose every label
 * is "other".  A family with `session_id` keeps the busiest (the space-saving algorithm): a new one takes the place of the least
 * active and what that one counted moves to "other", so that totals never shrink.  Its series may change hands; therefore one
 * that a caller keeps (metrics_series) is pinned, and the short forms update under the lock.
 */

enum metric_kind { COUNTER, GAUGE, HISTOGRAM };
enum { LABELS_MAX = 4, BUCKETS_MAX = 16 };

struct metric_series {
    struct metric_series *next; /* in its bucket */
    const struct metric_family *family;
    uint64_t hash;
    char *labels; /* the values, each with its length before it */
    size_t labels_bytes;
    uint64_t activity; /* of a family that keeps the busiest */
    bool is_pinned;
    _Atomic int64_t count;       /* counter; histogram: observations */
    _Atomic uint64_t value_bits; /* gauge: a double */
    _Atomic int64_t sum_ns;      /* histogram */
    _Atomic int64_t buckets[BUCKETS_MAX];
};

struct metric_family {
    const char *name, *labels, *help;
    enum metric_kind kind;
    const double *bounds; /* histogram: upper bounds without +Inf */
    size_t bound_count, label_count;
    bool keeps_busiest;
    pthread_mutex_t lock;
    struct metric_series **table; /* METRIC_SERIES_MAX buckets */
    struct metric_series **order; /* all of them, for writing */
    size_t series_count, pinned_count;
    struct metric_series *other;
};

struct metrics {
    struct metric_family families[METRIC_COUNT];
    uint64_t seed;
};

/* Prometheus' own defaults, and finer ones for what takes micro- or milliseconds. */
static const double default_bounds[] = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
static const double fine_bounds[] = {.00001, .000025, .0001, .00025, .001, .0025, .005, .01,
                                     .025,   .05,     .1,    .25,    .5,   1,     5};
static const double slow_bounds[] = {.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300};

static void choose_bounds(struct metric_family *family, enum metric metric)
{
    family->bounds = fine_bounds;
    family->bound_count = ARRAY_COUNT(fine_bounds);
    if (metric == METRIC_AGENT_REQUEST_DURATION) {
        family->bounds = default_bounds;
        family->bound_count = ARRAY_COUNT(default_bounds);
    } else if (metric == METRIC_MODEL_DURATION) {
        family->bounds = slow_bounds;
        family->bound_count = ARRAY_COUNT(slow_bounds);
    }
    static_assert(ARRAY_COUNT(fine_bounds) < BUCKETS_MAX && ARRAY_COUNT(slow_bounds) < BUCKETS_MAX,
                  "one more is +Inf");
}

/* ---- label values ---- */

static size_t label_length(str value)
{
    return value.len < METRIC_LABEL_BYTES_MAX ? value.len
                                              : str_cut_utf8(value, METRIC_LABEL_BYTES_MAX).len;
}

/* The key of a series: each value behind one byte of length, so that no two lists of values look alike. */
static size_t pack_labels(char out[LABELS_MAX * (METRIC_LABEL_BYTES_MAX + 1)], const str *values,
                          size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t len = label_length(values[i]);
        out[at++] = (char) (unsigned char) len;
        if (len > 0)
            memcpy(out + at, values[i].ptr, len);
        at += len;
    }
    return at;
}

static str next_packed(str *packed)
{
    size_t len = (unsigned char) packed->ptr[0];
    str value = str_slice(*packed, 1, 1 + len);
    *packed = str_from(*packed, 1 + len);
    return value;
}

/* ---- series ---- */

static struct metric_series *series_create(struct metric_family *family, uint64_t hash,
                                           const char *labels, size_t bytes)
{
    struct metric_series *series = calloc(1, sizeof *series);
    ensure(series != NULL);
    series->family = family;
    series->hash = hash;
    series->labels = malloc(bytes + 1);
    ensure(series->labels != NULL);
    memcpy(series->labels, labels, bytes);
    series->labels_bytes = bytes;
    return series;
}

static void series_destroy(struct metric_series *series)
{
    if (!series)
        return;
    free(series->labels);
    free(series);
}

static struct metric_series *find_series(const struct metric_family *family, uint64_t hash,
                                         str packed)
{
    struct metric_series *series = family->table[hash % METRIC_SERIES_MAX];
    while (series && (series->hash != hash ||
                      !str_equal(packed, str_of(series->labels, series->labels_bytes))))
        series = series->next;
    return series;
}

static void link_series(struct metric_family *family, struct metric_series *series)
{
    struct metric_series **bucket = &family->table[series->hash % METRIC_SERIES_MAX];
    series->next = *bucket;
    *bucket = series;
}

static void unlink_series(struct metric_family *family, struct metric_series *series)
{
    struct metric_series **slot = &family->table[series->hash % METRIC_SERIES_MAX];
    while (*slot != series)
        slot = &(*slot)->next;
    *slot = series->next;
}

/* What a series counted moves to "other"; a gauge's value says nothing once it is nobody's. */
static void fold_into_other(struct metric_family *family, struct metric_series *series)
{
    atomic_fetch_add(&family->other->count, atomic_load(&series->count));
    atomic_fetch_add(&family->other->sum_ns, atomic_load(&series->sum_ns));
    for (size_t i = 0; i < BUCKETS_MAX; i++)
        atomic_fetch_add(&family->other->buckets[i], atomic_load(&series->buckets[i]));
}

/* The least active place, or NULL when all are pinned. */
static struct metric_series **least_active(struct metric_family *family)
{
    struct metric_series **least = NULL;
    for (size_t i = 0; i < family->series_count; i++) {
        struct metric_series **place = &family->order[i];
        if (!(*place)->is_pinned && (!least || (*place)->activity < (*least)->activity))
            least = place;
    }
    return least;
}

static struct metric_series *take_place(struct metric_family *family, uint64_t hash, str packed)
{
    struct metric_series **place = least_active(family);
    if (!place)
        return family->other;
    struct metric_series *old = *place;
    struct metric_series *series = series_create(family, hash, packed.ptr, packed.len);
    series->activity = old->activity;
    fold_into_other(family, old);
    unlink_series(family, old);
    series_destroy(old);
    *place = series;
    link_series(family, series);
    return series;
}

/* With the lock held. */
static struct metric_series *obtain(struct metrics *metrics, struct metric_family *family,
                                    const str *values, size_t count)
{
    char buffer[LABELS_MAX * (METRIC_LABEL_BYTES_MAX + 1)];
    ensure(count == family->label_count);
    str packed = str_of(buffer, pack_labels(buffer, values, count));
    uint64_t hash = str_hash(packed, metrics->seed);
    struct metric_series *series = find_series(family, hash, packed);
    if (!series && family->series_count < METRIC_SERIES_MAX) {
        series = series_create(family, hash, packed.ptr, packed.len);
        family->order[family->series_count++] = series;
        link_series(family, series);
    } else if (!series) {
        series = family->keeps_busiest ? take_place(family, hash, packed) : family->other;
    }
    series->activity++;
    return series;
}

/* ---- life ---- */

static size_t count_labels(str labels)
{
    size_t count = 0;
    str name;
    if (str_is_empty(labels))
        return 0;
    while (str_next(&labels, ',', &name))
        count++;
    return count;
}

static void family_init(struct metrics *metrics, enum metric metric, struct metric_family *family)
{
    char buffer[LABELS_MAX * (METRIC_LABEL_BYTES_MAX + 1)];
    str others[LABELS_MAX] = {S("other"), S("other"), S("other"), S("other")};
    family->label_count = count_labels(str_from_cstr(family->labels));
    ensure(family->label_count <= LABELS_MAX);
    family->keeps_busiest =
        str_find(str_from_cstr(family->labels), S("session_id")) != STR_NOT_FOUND;
    if (family->kind == HISTOGRAM)
        choose_bounds(family, metric);
    pthread_mutex_init(&family->lock, NULL);
    family->table = calloc(METRIC_SERIES_MAX, sizeof(struct metric_series *));
    family->order = calloc(METRIC_SERIES_MAX, sizeof(struct metric_series *));
    ensure(family->table != NULL && family->order != NULL);
    size_t bytes = pack_labels(buffer, others, family->label_count);
    family->other =
        series_create(family, str_hash(str_of(buffer, bytes), metrics->seed), buffer, bytes);
}

struct metrics *metrics_create(void)
{
    static const struct {
        const char *name, *labels, *help;
        enum metric_kind kind;
    } rows[METRIC_COUNT] = {
#define METRIC(name, kind, text_name, labels, help) {text_name, labels, help, kind},
#include "observe/metrics.def"
#undef METRIC
    };
    struct metrics *metrics = calloc(1, sizeof *metrics);
    ensure(metrics != NULL);
    metrics->seed = map_seed();
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        struct metric_family *family = &metrics->families[i];
        family->name = rows[i].name;
        family->labels = rows[i].labels;
        family->help = rows[i].help;
        family->kind = rows[i].kind;
        family_init(metrics, (enum metric) i, family);
    }
    return metrics;
}

void metrics_destroy(struct metrics *metrics)
{
    if (!metrics)
        return;
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        struct metric_family *family = &metrics->families[i];
        for (size_t j = 0; j < family->series_count; j++)
            series_destroy(family->order[j]);
        series_destroy(family->other);
        free(family->table);
        free(family->order);
        pthread_mutex_destroy(&family->lock);
    }
    free(metrics);
}

/* ---- updates ---- */

struct metric_series *metrics_series(struct metrics *metrics, enum metric metric,
                                     const str *label_values, size_t count)
{
    struct metric_family *family = &metrics->families[metric];
    pthread_mutex_lock(&family->lock);
    struct metric_series *series = obtain(metrics, family, label_values, count);
    if (!series->is_pinned && series != family->other) {
        series->is_pinned = true;
        family->pinned_count++;
    }
    pthread_mutex_unlock(&family->lock);
    return series;
}

static double bits_to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t double_to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void metric_add(struct metric_series *series, int64_t delta)
{
    if (series->family->kind != GAUGE) {
        ensure(series->family->kind == COUNTER && delta >= 0);
        atomic_fetch_add_explicit(&series->count, delta, memory_order_relaxed);
        return;
    }
    uint64_t old = atomic_load_explicit(&series->value_bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &series->value_bits, &old, double_to_bits(bits_to_double(old) + (double) delta),
        memory_order_relaxed, memory_order_relaxed))
        ;
}

void metric_set(struct metric_series *series, double value)
{
    ensure(series->family->kind == GAUGE);
    atomic_store_explicit(&series->value_bits, double_to_bits(value), memory_order_relaxed);
}

void metric_observe(struct metric_series *series, double value)
{
    const struct metric_family *family = series->family;
    ensure(family->kind == HISTOGRAM);
    size_t bucket = 0;
    while (bucket < family->bound_count && value > family->bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(&series->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&series->count, 1, memory_order_relaxed);
    double ns = value * 1e9;
    if (ns > 0 && ns < 9e18)
        atomic_fetch_add_explicit(&series->sum_ns, (int64_t) ns, memory_order_relaxed);
}

void metrics_add(struct metrics *metrics, enum metric metric, int64_t delta,
                 const str *label_values, size_t count)
{
    struct metric_family *family = &metrics->families[metric];
    pthread_mutex_lock(&family->lock);
    metric_add(obtain(metrics, family, label_values, count), delta);
    pthread_mutex_unlock(&family->lock);
}

void metrics_set(struct metrics *metrics, enum metric metric, double value, const str *label_values,
                 size_t count)
{
    struct metric_family *family = &metrics->families[metric];
    pthread_mutex_lock(&family->lock);
    metric_set(obtain(metrics, family, label_values, count), value);
    pthread_mutex_unlock(&family->lock);
}

void metrics_observe(struct metrics *metrics, enum metric metric, double seconds,
                     const str *label_values, size_t count)
{
    struct metric_family *family = &metrics->families[metric];
    pthread_mutex_lock(&family->lock);
    metric_observe(obtain(metrics, family, label_values, count), seconds);
    pthread_mutex_unlock(&family->lock);
}

/* ---- exposition ---- */

static void write_label_value(struct strbuf *out, str value)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == '\n') {
            strbuf_add(out, S("\\n"));
            continue;
        }
        if (c == '"' || c == '\\')
            strbuf_add_char(out, '\\');
        strbuf_add_char(out, c);
    }
}

/* {a="x",b="y"} and, for a bucket, le. */
static void write_labels(struct strbuf *out, const struct metric_series *series, const char *le)
{
    str names = str_from_cstr(series->family->labels),
        packed = str_of(series->labels, series->labels_bytes), name;
    const char *separator = "{";
    for (size_t i = 0; i < series->family->label_count; i++) {
        ensure(str_next(&names, ',', &name));
        strbuf_add(out, str_from_cstr(separator));
        strbuf_add(out, name);
        strbuf_add(out, S("=\""));
        write_label_value(out, next_packed(&packed));
        strbuf_add_char(out, '"');
        separator = ",";
    }
    if (le)
        strbuf_printf(out, "%sle=\"%s\"}", separator, le);
    else if (*separator == ',')
        strbuf_add_char(out, '}');
}

static void write_histogram(struct strbuf *out, const struct metric_series *series)
{
    const struct metric_family *family = series->family;
    int64_t total = 0;
    for (size_t i = 0; i <= family->bound_count; i++) {
        char le[32] = "+Inf";
        if (i < family->bound_count)
            snprintf(le, sizeof le, "%.10g", family->bounds[i]);
        total += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        strbuf_printf(out, "%s_bucket", family->name);
        write_labels(out, series, le);
        strbuf_printf(out, " %lld\n", (long long) total);
    }
    strbuf_printf(out, "%s_sum", family->name);
    write_labels(out, series, NULL);
    strbuf_printf(out, " %.9g\n%s_count",
                  (double) atomic_load_explicit(&series->sum_ns, memory_order_relaxed) / 1e9,
                  family->name);
    write_labels(out, series, NULL);
    /* The buckets' own sum: readers demand that +Inf equals the count. */
    strbuf_printf(out, " %lld\n", (long long) total);
}

static void write_series(struct strbuf *out, const struct metric_series *series)
{
    if (series->family->kind == HISTOGRAM) {
        write_histogram(out, series);
        return;
    }
    strbuf_add(out, str_from_cstr(series->family->name));
    write_labels(out, series, NULL);
    if (series->family->kind == GAUGE)
        strbuf_printf(
            out, " %.9g\n",
            bits_to_double(atomic_load_explicit(&series->value_bits, memory_order_relaxed)));
    else
        strbuf_printf(out, " %lld\n",
                      (long long) atomic_load_explicit(&series->count, memory_order_relaxed));
}

static void write_family(struct metric_family *family, struct strbuf *out)
{
    static const char *const kinds[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                  kinds[family->kind]);
    pthread_mutex_lock(&family->lock);
    for (size_t i = 0; i < family->series_count; i++)
        write_series(out, family->order[i]);
    if (family->other->activity > 0 || atomic_load(&family->other->count) > 0)
        write_series(out, family->other);
    pthread_mutex_unlock(&family->lock);
}

void metrics_write(struct metrics *metrics, struct strbuf *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++)
        write_family(&metrics->families[i], out);
}
