#include "accumulate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const aggregate_names[] = {"count", "sum",    "mean",   "min",
                                       "max",   "median", "stddev", "count_distinct",
                                       "first", "last",   NULL};

enum { HELD_FIRST_BYTES = 16, MEDIAN_FIRST_VALUES = 8 };

void real_sum_add(struct real_sum *sum, double value)
{
    double total = sum->sum + value;
    if (fabs(sum->sum) >= fabs(value))
        sum->carry += (sum->sum - total) + value;
    else
        sum->carry += (value - total) + sum->sum;
    sum->sum = total;
}

bool held_set(struct held *held, const struct cell *cell, struct pool *pool)
{
    char *buffer = held->capacity == 0 ? NULL : (char *) (uintptr_t) held->cell.ptr;
    if (cell->type != CELL_TEXT) {
        held->cell = *cell;
        held->capacity = 0;
        return true;
    }
    if (cell->len > held->capacity || buffer == NULL) {
        uint32_t capacity = HELD_FIRST_BYTES;
        while (capacity < cell->len)
            capacity *= 2;
        buffer = pool_alloc(pool, capacity);
        if (buffer == NULL)
            return false;
        held->capacity = capacity;
    }
    memcpy(buffer, cell->ptr, cell->len);
    held->cell = (struct cell){.type = CELL_TEXT, .len = cell->len, .ptr = buffer};
    return true;
}

static void add_sum(struct accumulator *acc, struct aggregate *aggregate, const struct cell *number)
{
    if (number->type == CELL_REAL) {
        acc->is_real = true;
        real_sum_add(&acc->real, number->real);
        return;
    }
    int64_t sum;
    if (__builtin_add_overflow(acc->whole, number->integer, &sum)) {
        real_sum_add(&acc->real, (double) acc->whole);
        sum = number->integer;
        acc->is_real = true;
        aggregate->has_overflow = true;
    }
    acc->whole = sum;
}

static double sum_real(const struct accumulator *acc)
{
    struct real_sum sum = acc->real;
    real_sum_add(&sum, (double) acc->whole);
    return sum.sum + sum.carry;
}

static bool add_median(struct accumulator *acc, double value, struct accumulate_limits *limits,
                       struct tool_error *e)
{
    if (++limits->median_values > MEDIAN_VALUES_MAX)
        return tool_fail(e, "limit",
                         "median keeps every value and takes at most %d; filter first or use mean",
                         MEDIAN_VALUES_MAX);
    if (acc->count == acc->capacity) {
        acc->capacity = acc->capacity == 0 ? MEDIAN_FIRST_VALUES : acc->capacity * 2;
        if (acc->capacity > MEDIAN_VALUES_MAX)
            acc->capacity = MEDIAN_VALUES_MAX;
        acc->values = tool_realloc(acc->values, acc->capacity * sizeof *acc->values);
    }
    acc->values[acc->count] = value;
    return true;
}

static void add_deviation(struct accumulator *acc, double value)
{
    double delta = value - acc->mean;
    acc->mean += delta / (double) (acc->count + 1);
    acc->squares += delta * (value - acc->mean);
}

static bool add_number(struct accumulator *acc, struct aggregate *aggregate, const struct row *row,
                       const struct cell *cell, struct accumulate_limits *limits,
                       struct tool_error *e)
{
    struct cell number;
    if (!cell_to_number(cell, &number)) {
        if (aggregate->text_count++ == 0) {
            aggregate->text_line = row->line;
            struct text text = cell->type == CELL_TEXT ? cell_text(cell) : TEXT("a boolean");
            snprintf(aggregate->text_sample, sizeof aggregate->text_sample, "%.*s",
                     (int) (text.len < 40 ? text.len : 40), text.ptr);
        }
        return true;
    }
    aggregate->number_count++;
    if (aggregate->operation == AGGREGATE_MEDIAN) {
        if (!add_median(acc, cell_real(&number), limits, e))
            return false;
    } else if (aggregate->operation == AGGREGATE_STDDEV)
        add_deviation(acc, cell_real(&number));
    else
        add_sum(acc, aggregate, &number);
    acc->count++;
    return true;
}

static bool add_distinct(struct accumulator *acc, const struct cell *cell,
                         struct accumulate_limits *limits, struct tool_error *e)
{
    if (!hash_set_add(&acc->set, cell_hash(cell, 0)))
        return true;
    if (++limits->distinct_values > DISTINCT_MAX)
        return tool_fail(e, "limit", "count_distinct keeps at most %d values; filter first",
                         DISTINCT_MAX);
    return true;
}

static bool add_held(struct accumulator *acc, struct aggregate *aggregate, const struct cell *cell,
                     struct pool *pool, struct tool_error *e)
{
    bool replaces = acc->count++ == 0 || aggregate->operation == AGGREGATE_LAST;
    if (aggregate->operation == AGGREGATE_MIN)
        replaces = replaces || cell_compare(cell, &acc->held.cell) < 0;
    else if (aggregate->operation == AGGREGATE_MAX)
        replaces = replaces || cell_compare(cell, &acc->held.cell) > 0;
    if (replaces && !held_set(&acc->held, cell, pool)) {
        fail_pool(e);
        return false;
    }
    return true;
}

bool accumulator_add(struct accumulator *acc, struct aggregate *aggregate, const struct row *row,
                     struct accumulate_limits *limits, struct pool *pool, struct tool_error *e)
{
    if (!aggregate->has_column) {
        acc->count++;
        return true;
    }
    const struct cell *cell = row_cell(row, aggregate->column);
    if (cell->type == CELL_NULL)
        return true;
    switch (aggregate->operation) {
    case AGGREGATE_COUNT: acc->count++; return true;
    case AGGREGATE_SUM:
    case AGGREGATE_MEAN:
    case AGGREGATE_MEDIAN:
    case AGGREGATE_STDDEV: return add_number(acc, aggregate, row, cell, limits, e);
    case AGGREGATE_COUNT_DISTINCT: return add_distinct(acc, cell, limits, e);
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
    case AGGREGATE_FIRST:
    case AGGREGATE_LAST:
    default: return add_held(acc, aggregate, cell, pool, e);
    }
}

/* Hoare's selection: the k smallest values come to stand before index k. */
static double select_nth(double *values, size_t count, size_t k)
{
    size_t low = 0, high = count - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            double swapped = values[i];
            values[i++] = values[j];
            values[j--] = swapped;
        }
        if (k <= j)
            high = j;
        else
            low = j + 1;
    }
    return values[k];
}

static double median(double *values, size_t count)
{
    double upper = select_nth(values, count, count / 2);
    if (count % 2 == 1)
        return upper;
    double lower = values[0];
    for (size_t i = 1; i < count / 2; i++)
        lower = values[i] > lower ? values[i] : lower;
    return lower / 2 + upper / 2;
}

static void set_real(struct cell *out, double value)
{
    if (isfinite(value))
        *out = (struct cell){.type = CELL_REAL, .real = value};
}

void accumulator_result(struct accumulator *acc, struct aggregate *aggregate, struct cell *out)
{
    *out = (struct cell){.type = CELL_NULL};
    switch (aggregate->operation) {
    case AGGREGATE_COUNT:
        *out = (struct cell){.type = CELL_INT, .integer = (int64_t) acc->count};
        return;
    case AGGREGATE_COUNT_DISTINCT:
        *out = (struct cell){.type = CELL_INT, .integer = acc->set.count};
        return;
    case AGGREGATE_SUM:
        if (acc->is_real)
            set_real(out, sum_real(acc));
        else
            *out = (struct cell){.type = CELL_INT, .integer = acc->whole};
        return;
    case AGGREGATE_MEAN:
        if (acc->count > 0)
            set_real(out, sum_real(acc) / (double) acc->count);
        return;
    case AGGREGATE_MEDIAN:
        if (acc->count > 0)
            set_real(out, median(acc->values, (size_t) acc->count));
        return;
    case AGGREGATE_STDDEV:
        if (acc->count > 1)
            set_real(out, sqrt(acc->squares / (double) (acc->count - 1)));
        return;
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
    case AGGREGATE_FIRST:
    case AGGREGATE_LAST:
        if (acc->count > 0)
            *out = acc->held.cell;
        return;
    }
}
