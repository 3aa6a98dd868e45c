#include "agent/tool/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_versions_order_as_the_specification_lists_them(void **state)
{
    (void) state;
    static const char *const rising[] = {
        "0.0.1",      "0.9.0",        "1.0.0-alpha",   "1.0.0-alpha.1", "1.0.0-alpha.beta",
        "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",    "1.0.0",
        "1.0.1",      "1.2.0",        "1.10.0",        "2.0.0"};
    for (size_t i = 0; i < ARRAY_COUNT(rising); i++)
        for (size_t j = 0; j < ARRAY_COUNT(rising); j++) {
            int order = semver_compare(str_from_cstr(rising[i]), str_from_cstr(rising[j]));
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
    assert_int_equal(semver_compare(S("1.0.0+a"), S("1.0.0+b")), 0);
    assert_true(semver_compare(S("nonsense"), S("0.0.1")) < 0);
}

static void test_what_is_no_version_is_refused(void **state)
{
    (void) state;
    static const char *const bad[] = {"",
                                      "1",
                                      "1.2",
                                      "1.2.3.4",
                                      "01.2.3",
                                      "1.2.x",
                                      "v1.2.3",
                                      "1.2.3-",
                                      "1.2.3+",
                                      "1.2.3-a..b",
                                      "1.2.3-ä",
                                      "-1.2.3",
                                      "1.2.99999999999999999999"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(semver_is_valid(str_from_cstr(bad[i])));
    assert_true(semver_is_valid(S("1.2.3-rc.1+build.5")));
}

static void test_ranges(void **state)
{
    (void) state;
    static const struct {
        const char *range, *version;
        bool fits;
    } cases[] = {
        {"", "1.2.3", true},
        {"", "1.2.3-rc.1", false},
        {"1.2.3", "1.2.3", true},
        {"1.2.3", "1.2.4", false},
        {"1.2", "1.2.9", true},
        {"1.2", "1.3.0", false},
        {"1", "1.9.9", true},
        {"=1.2.3", "1.2.3", true},
        {"^1.2", "1.2.0", true},
        {"^1.2", "1.9.0", true},
        {"^1.2", "1.1.9", false},
        {"^1.2", "2.0.0", false},
        {"^0.2.3", "0.2.9", true},
        {"^0.2.3", "0.3.0", false},
        {"^0.0.3", "0.0.3", true},
        {"^0.0.3", "0.0.4", false},
        {"~1.2", "1.2.9", true},
        {"~1.2", "1.3.0", false},
        {"~1.2.3", "1.2.2", false},
        {"~1", "1.9.0", true},
        {">=1.0", "1.0.0", true},
        {">=1.0", "0.9.9", false},
        {">=1.0 <2", "1.9.0", true},
        {">=1.0 <2", "2.0.0", false},
        {">1.2", "1.2.9", false},
        {">1.2", "1.3.0", true},
        {"<=1.2", "1.2.9", true},
        {"<=1.2", "1.3.0", false},
        {"<2.0.0", "1.9.9", true},
        {"^1.2", "1.3.0-rc.1", false},
        {">=1.3.0-rc.1", "1.3.0-rc.2", true},
        {">=1.3.0-rc.1", "1.4.0-rc.2", false},
        {"nonsense", "1.0.0", false},
        {"^", "1.0.0", false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        if (semver_satisfies(str_from_cstr(cases[i].version), str_from_cstr(cases[i].range)) !=
            cases[i].fits)
            fail_msg("%s in %s", cases[i].version, cases[i].range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_order_as_the_specification_lists_them),
        cmocka_unit_test(test_what_is_no_version_is_refused),
        cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
