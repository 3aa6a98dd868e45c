#include "base/cost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static cost of(int64_t value)
{
    return (cost){value, value, value, value};
}

static void test_sums_are_per_field(void **state)
{
    (void) state;
    assert_true(
        cost_equal(cost_add((cost){1, 2, 3, 4}, (cost){10, 20, 30, 40}), (cost){11, 22, 33, 44}));
    assert_true(cost_equal(cost_subtract((cost){11, 22, 33, 44}, (cost){10, 20, 30, 40}),
                           (cost){1, 2, 3, 4}));
    assert_true(cost_equal(cost_subtract(of(1), of(3)), of(-2)));
}

static void test_sums_saturate_instead_of_wrapping(void **state)
{
    (void) state;
    assert_true(cost_equal(cost_add(of(INT64_MAX - 1), of(2)), COST_LIMITLESS));
    assert_true(cost_equal(cost_add(of(INT64_MIN), of(-1)), of(INT64_MIN)));
    assert_true(cost_equal(cost_subtract(of(INT64_MIN), of(1)), of(INT64_MIN)));
    assert_true(cost_equal(cost_subtract(of(INT64_MAX - 1), of(-2)), COST_LIMITLESS));
    assert_false(cost_fits(cost_add(of(INT64_MAX - 1), of(2)), of(INT64_MAX - 1)));
}

static void test_unlimited_stays_unlimited(void **state)
{
    (void) state;
    assert_true(cost_equal(cost_subtract(COST_LIMITLESS, of(5)), COST_LIMITLESS));
    assert_true(cost_equal(cost_add(COST_LIMITLESS, of(-5)), COST_LIMITLESS));
    assert_true(cost_fits(of(INT64_MAX - 1), COST_LIMITLESS));
}

static void test_an_amount_fits_only_when_every_field_does(void **state)
{
    (void) state;
    cost limit = of(10);
    assert_true(cost_fits(limit, limit));
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        cost amount = limit;
        *cost_field(&amount, i) = 11;
        assert_false(cost_fits(amount, limit));
        assert_false(cost_equal(amount, limit));
        assert_false(cost_is_zero(amount));
    }
    assert_true(cost_is_zero((cost){0}));
}

static void test_minimum_and_maximum_are_per_field(void **state)
{
    (void) state;
    cost a = {1, 20, 3, 40}, b = {10, 2, 30, 4};
    assert_true(cost_equal(cost_min(a, b), (cost){1, 2, 3, 4}));
    assert_true(cost_equal(cost_max(a, b), (cost){10, 20, 30, 40}));
}

static void test_fields_have_the_names_of_the_interface(void **state)
{
    (void) state;
    cost c = {1, 2, 3, 4};
    const char *const names[] = {"tokens", "time_ms", "cost_nanousd", "tool_calls"};
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        assert_string_equal(cost_field_name(i), names[i]);
        assert_int_equal(*cost_field(&c, i), i + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_per_field),
        cmocka_unit_test(test_sums_saturate_instead_of_wrapping),
        cmocka_unit_test(test_unlimited_stays_unlimited),
        cmocka_unit_test(test_an_amount_fits_only_when_every_field_does),
        cmocka_unit_test(test_minimum_and_maximum_are_per_field),
        cmocka_unit_test(test_fields_have_the_names_of_the_interface),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
