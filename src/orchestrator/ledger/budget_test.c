#include "orchestrator/ledger/budget.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct budget tokens(int64_t limit)
{
    struct budget budget = {.limit = COST_LIMITLESS};
    budget.limit.tokens = limit;
    return budget;
}

static void test_reserve_refuses_to_overdraw(void **state)
{
    (void) state;
    struct budget budget = tokens(100);
    int field = -1;
    budget_reserve(&budget, (cost){.tokens = 60});
    assert_true(budget_fits(&budget, (cost){.tokens = 40}, &field));
    assert_false(budget_fits(&budget, (cost){.tokens = 41}, &field));
    assert_string_equal(cost_field_name(field), "tokens");
}

static void test_settling_less_gives_the_rest_back(void **state)
{
    (void) state;
    struct budget budget = tokens(100);
    budget_reserve(&budget, (cost){.tokens = 60});
    budget_settle(&budget, (cost){.tokens = 60}, (cost){.tokens = 10});
    assert_int_equal(budget.spent.tokens, 10);
    assert_int_equal(budget.reserved.tokens, 0);
    assert_int_equal(budget_remaining(&budget).tokens, 90);
}

static void test_release_leaves_nothing_behind(void **state)
{
    (void) state;
    struct budget budget = tokens(100);
    budget_reserve(&budget, (cost){.tokens = 100, .tool_calls = 1});
    budget_release(&budget, (cost){.tokens = 100, .tool_calls = 1});
    assert_true(cost_is_zero(budget.reserved));
    assert_int_equal(budget_remaining(&budget).tokens, 100);
}

static void test_a_provider_that_uses_more_is_booked_and_blocks_the_next(void **state)
{
    (void) state;
    struct budget budget = tokens(100);
    budget_reserve(&budget, (cost){.tokens = 50});
    budget_settle(&budget, (cost){.tokens = 50}, (cost){.tokens = 130});
    assert_int_equal(budget.overdraft.tokens, 80);
    assert_int_equal(budget_remaining(&budget).tokens, 0);
    assert_false(budget_fits(&budget, (cost){.tokens = 1}, NULL));
}

static void test_an_unlimited_field_stays_unlimited(void **state)
{
    (void) state;
    struct budget budget = tokens(100);
    budget_reserve(&budget, (cost){.cost_nanousd = 1000000});
    assert_true(budget_remaining(&budget).cost_nanousd == COST_UNLIMITED);
}

static void test_random_histories_keep_the_invariant(void **state)
{
    (void) state;
    uint32_t seed = 7;
    for (int round = 0; round < 200; round++) {
        struct budget budget = tokens(1000);
        cost open[16] = {0};
        int count = 0;
        for (int step = 0; step < 200; step++) {
            seed = seed * 1664525u + 1013904223u;
            cost amount = {.tokens = (int64_t) (seed >> 20) % 300};
            if (count < 16 && (seed & 1) && budget_fits(&budget, amount, NULL)) {
                budget_reserve(&budget, amount);
                open[count++] = amount;
            } else if (count > 0) {
                cost used = {.tokens = open[--count].tokens / 2};
                budget_settle(&budget, open[count], used);
            }
            assert_true(budget.spent.tokens + budget.reserved.tokens <= 1000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve_refuses_to_overdraw),
        cmocka_unit_test(test_settling_less_gives_the_rest_back),
        cmocka_unit_test(test_release_leaves_nothing_behind),
        cmocka_unit_test(test_a_provider_that_uses_more_is_booked_and_blocks_the_next),
        cmocka_unit_test(test_an_unlimited_field_stays_unlimited),
        cmocka_unit_test(test_random_histories_keep_the_invariant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
