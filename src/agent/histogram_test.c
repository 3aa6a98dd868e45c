/* Percentiles against the exact ones of the same values. */
#include "agent/histogram.h"
#include "base/ensure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VALUES = 20000 };

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;
    return (x > y) - (x < y);
}

static void test_percentiles_are_at_most_a_sixteenth_too_high(void **state)
{
    (void) state;
    static const double shares[] = {0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0};
    static struct histogram histogram;
    static int64_t values[VALUES];
    uint64_t random = 88172645463325252ull;
    for (size_t i = 0; i < VALUES; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        values[i] = (int64_t) (random >> (28 + random % 36)); /* all sizes up to 2^36 */
        histogram_add(&histogram, values[i]);
    }
    qsort(values, VALUES, sizeof *values, by_size);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        int64_t exact = values[(size_t) (shares[i] * VALUES + 0.999999) - 1];
        int64_t told = histogram_percentile(&histogram, shares[i]);
        assert_true(told >= exact && told <= exact + exact / 16 + 1);
    }
}

static void test_an_empty_histogram_gives_zero(void **state)
{
    (void) state;
    static struct histogram histogram;
    assert_int_equal(histogram_percentile(&histogram, 0.5), 0);
}

static void test_values_outside_its_range_count_at_its_ends(void **state)
{
    (void) state;
    static struct histogram histogram;
    histogram_add(&histogram, -5);
    assert_int_equal(histogram_percentile(&histogram, 1), 0);
    histogram_add(&histogram, INT64_MAX);
    assert_int_equal(histogram_percentile(&histogram, 1), (1ll << HISTOGRAM_VALUE_BITS) - 1);
    assert_int_equal(histogram_percentile(&histogram, 0.5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles_are_at_most_a_sixteenth_too_high),
        cmocka_unit_test(test_an_empty_histogram_gives_zero),
        cmocka_unit_test(test_values_outside_its_range_count_at_its_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
