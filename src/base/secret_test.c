#include "base/secret.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_a_secret_is_a_copy_of_its_bytes(void **state)
{
    (void) state;
    char key[] = "sk-1234567890abcdefghij";
    OWNED(secret) secret = secret_create(str_from_cstr(key));
    memset(key, 0, sizeof(key));
    assert_true(str_equal(secret_reveal(secret), S("sk-1234567890abcdefghij")));
    OWNED(secret) empty = secret_create(STR_NONE);
    assert_true(str_is_empty(secret_reveal(empty)));
}

static void test_comparison_is_of_all_bytes(void **state)
{
    (void) state;
    OWNED(secret) secret = secret_create(S("abc"));
    assert_true(secret_equal(secret, S("abc")));
    assert_false(secret_equal(secret, S("abd")));
    assert_false(secret_equal(secret, S("ab")));
    assert_false(secret_equal(secret, S("abcd")));
    assert_false(secret_equal(secret, STR_NONE));
}

static void test_a_hint_shows_little_of_a_long_secret_and_nothing_of_a_short_one(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(secret) key = secret_create(S("sk-1234567890abcdefghij"));
    OWNED(secret) at_bound = secret_create(S("12345678901234567890"));
    OWNED(secret) below = secret_create(S("1234567890123456789"));
    OWNED(secret) binary = secret_create(S("sk-1234567890abcdefghi\n"));
    assert_true(str_equal(secret_hint(key, arena), S("sk-…ghij")));
    assert_true(str_equal(secret_hint(at_bound, arena), S("123…7890")));
    assert_true(str_equal(secret_hint(below, arena), S("…")));
    assert_true(str_equal(secret_hint(binary, arena), S("…")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_secret_is_a_copy_of_its_bytes),
        cmocka_unit_test(test_comparison_is_of_all_bytes),
        cmocka_unit_test(test_a_hint_shows_little_of_a_long_secret_and_nothing_of_a_short_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
