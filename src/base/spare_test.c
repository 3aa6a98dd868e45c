#include "base/spare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void test_a_pool_that_nobody_uses_is_empty_after_some_rests(void **state)
{
    (void) state;
    struct spare spare = {0};
    int rests = 0;
    for (int i = 0; i < 512; i++)
        spare_gave(&spare);
    assert_int_equal(spare_rest(&spare), 0); /* all of them came since the last one */
    while (spare.count > 0) {
        size_t before = spare.count, freed = spare_rest(&spare);
        assert_int_equal(spare.count, before - freed);
        assert_true(freed >= 1 && freed <= 256);
        rests++;
    }
    assert_int_equal(rests, 10);
    assert_int_equal(spare_rest(&spare), 0);
}

static void test_what_was_taken_since_the_last_rest_stays(void **state)
{
    (void) state;
    struct spare spare = {.count = 100, .least = 100};
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < 60; i++)
            spare_took(&spare);
        for (int i = 0; i < 60; i++)
            spare_gave(&spare);
        (void) spare_rest(&spare);
    }
    assert_int_equal(spare.count, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pool_that_nobody_uses_is_empty_after_some_rests),
        cmocka_unit_test(test_what_was_taken_since_the_last_rest_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
