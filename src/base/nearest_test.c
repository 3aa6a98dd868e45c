/* What is near to a word, and what is another word. */
#include "base/nearest.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void assert_nearest(const char *word, const char *expected)
{
    static const char *const names[] = {"list", "show",   "cancel", "events",   "replay",
                                        "fork", "export", "diff",   "delegate", "delegations"};
    struct nearest nearest = nearest_to(str_from_cstr(word));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        nearest_try(&nearest, str_from_cstr(names[i]));
    if (!str_equal(nearest.name, str_from_cstr(expected)))
        fail_msg("%s: \"" STR_FMT "\" instead of \"%s\"", word, STR_ARG(nearest.name), expected);
}

static void test_a_slip_of_the_finger_is_near(void **state)
{
    (void) state;
    assert_nearest("lst", "list");
    assert_nearest("lits", "list");
    assert_nearest("LIST", "list");
    assert_nearest("shwo", "show");
    assert_nearest("canncel", "cancel");
    assert_nearest("evnets", "events");
    assert_nearest("diff", "diff");
}

static void test_the_beginning_of_a_name_is_near(void **state)
{
    (void) state;
    assert_nearest("deleg", "delegate");
    assert_nearest("re", "replay");
}

static void test_another_word_is_not(void **state)
{
    (void) state;
    assert_nearest("nonsense", "");
    assert_nearest("xyz", "");
    assert_nearest("", "");
    assert_nearest("l", "");
}

static void test_nothing_is_near_to_a_word_that_is_too_long(void **state)
{
    (void) state;
    char text[NEAREST_BYTES_MAX + 2];
    memset(text, 'a', sizeof text);
    str at_bound = str_of(text, NEAREST_BYTES_MAX), past = str_of(text, NEAREST_BYTES_MAX + 1);
    struct nearest nearest = nearest_to(at_bound);
    nearest_try(&nearest, at_bound);
    assert_int_equal(nearest.name.len, NEAREST_BYTES_MAX);
    nearest = nearest_to(past);
    nearest_try(&nearest, at_bound);
    assert_true(str_is_empty(nearest.name));
    nearest = nearest_to(at_bound);
    nearest_try(&nearest, past);
    assert_true(str_is_empty(nearest.name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_slip_of_the_finger_is_near),
        cmocka_unit_test(test_the_beginning_of_a_name_is_near),
        cmocka_unit_test(test_another_word_is_not),
        cmocka_unit_test(test_nothing_is_near_to_a_word_that_is_too_long),
    };
    return cmocka_run_group_tests_name("nearest", tests, NULL, NULL);
}
