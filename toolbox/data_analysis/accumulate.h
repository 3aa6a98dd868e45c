/*
 * Accumulator: one running aggregate, in constant space but for median (all values) and count_distinct
 * (all hashes), which are bounded over the whole query.
 *
 * Whole numbers are summed exactly in 64 bits; on overflow the sum goes on as a real, and a note says so.
 * Reals are summed with Neumaier's compensation, the deviation with Welford's recurrence, so results agree
 * with an exact computation to about 1e-15, whatever the order of the rows.
 * Nulls are skipped.  Text where a number is needed is skipped too, counted in the aggregate, and noted.
 */
#ifndef DATA_ANALYSIS_ACCUMULATE_H
#define DATA_ANALYSIS_ACCUMULATE_H

#include "stage.h"

enum aggregate_operation {
    AGGREGATE_COUNT,
    AGGREGATE_SUM,
    AGGREGATE_MEAN,
    AGGREGATE_MIN,
    AGGREGATE_MAX,
    AGGREGATE_MEDIAN,
    AGGREGATE_STDDEV,
    AGGREGATE_COUNT_DISTINCT,
    AGGREGATE_FIRST,
    AGGREGATE_LAST,
};

extern const char *const aggregate_names[];

/* What is asked, and what happened while computing it over all groups. */
struct aggregate {
    enum aggregate_operation operation;
    struct text name;
    size_t column;
    bool has_column; /* count without a column counts rows */
    uint64_t number_count, text_count, text_line;
    char text_sample[48];
    bool has_overflow;
};

/* A kept cell whose text buffer is reused. */
struct held {
    struct cell cell;
    uint32_t capacity;
};

struct real_sum {
    double sum, carry;
};

struct accumulator {
    uint64_t count;
    union {
        struct {
            int64_t whole;
            struct real_sum real;
            bool is_real;
        };
        struct {
            double mean, squares;
        };
        struct {
            double *values;
            size_t capacity;
        };
        struct held held;
        struct hash_set set;
    };
};

void real_sum_add(struct real_sum *sum, double value);

/* Bounds shared by all accumulators of a query. */
struct accumulate_limits {
    size_t median_values, distinct_values;
};

bool accumulator_add(struct accumulator *acc, struct aggregate *aggregate, const struct row *row,
                     struct accumulate_limits *limits, struct pool *pool, struct tool_error *e);

/* The result; the accumulator may be changed by it. */
void accumulator_result(struct accumulator *acc, struct aggregate *aggregate, struct cell *out);

/* Replaces what is held.  False: the pool is full. */
bool held_set(struct held *held, const struct cell *cell, struct pool *pool);

#endif
