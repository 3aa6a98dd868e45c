#include "runtime/scratch_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char place[] = "/tmp/scratch_folder_test.XXXXXX";

static int use_place(void **state)
{
    (void) state;
    return mkdtemp(place) && setenv("TMPDIR", place, 1) == 0 ? 0 : -1;
}

static int drop_place(void **state)
{
    (void) state;
    return rmdir(place); /* fails when something was left in it */
}

static void test_it_lies_in_the_folder_of_the_environment_and_is_nobody_elses(void **state)
{
    struct scratch_folder scratch;
    struct error e = {0};
    struct stat about;
    (void) state;
    assert_true(scratch_folder_make(&scratch, S("policy"), &e));
    assert_true(str_starts_with(scratch_folder_path(&scratch), str_from_cstr(place)));
    assert_int_equal(stat(scratch.path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    assert_true(scratch_folder_write(&scratch, S("a.rego"), S("package a"), &e));
    assert_true(scratch_folder_write(&scratch, S("a.rego"), S("package b"), &e));
    scratch_folder_remove(&scratch);
    assert_int_not_equal(stat(scratch.path, &about), 0);
    scratch_folder_remove(&scratch);
}

static void test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_left(void **state)
{
    static const char *const names[] = {"", ".", "..", "../x", "a/b", ".hidden", "a b", "a\tb"};
    struct scratch_folder scratch;
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct error e = {0};
        assert_true(scratch_folder_make(&scratch, S("policy"), &e));
        assert_false(scratch_folder_write(&scratch, str_from_cstr(names[i]), S("x"), &e));
        assert_int_equal(e.reason, REASON_INVALID);
        scratch_folder_remove(&scratch);
    }
}

static void test_it_holds_so_much_and_not_one_byte_more(void **state)
{
    struct scratch_folder scratch;
    struct error e = {0};
    char *bytes = calloc(1, SCRATCH_BYTES_MAX);
    (void) state;
    assert_non_null(bytes);
    assert_true(scratch_folder_make(&scratch, S("policy"), &e));
    assert_true(scratch_folder_write(&scratch, S("all"), str_of(bytes, SCRATCH_BYTES_MAX), &e));
    assert_false(scratch_folder_write(&scratch, S("more"), S("x"), &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    scratch_folder_remove(&scratch);
    free(bytes);
}

static void test_where_none_can_be_made_the_error_says_what_to_do(void **state)
{
    struct scratch_folder scratch;
    struct error e = {0};
    (void) state;
    assert_int_equal(setenv("TMPDIR", "/nonexistent/folder", 1), 0);
    assert_false(scratch_folder_make(&scratch, S("policy"), &e));
    assert_int_equal(e.reason, REASON_UNAVAILABLE);
    assert_true(str_find(str_from_cstr(e.message), S("TMPDIR")) != STR_NOT_FOUND);
    scratch_folder_remove(&scratch);
    assert_int_equal(setenv("TMPDIR", place, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_lies_in_the_folder_of_the_environment_and_is_nobody_elses),
        cmocka_unit_test(test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_left),
        cmocka_unit_test(test_it_holds_so_much_and_not_one_byte_more),
        cmocka_unit_test(test_where_none_can_be_made_the_error_says_what_to_do),
    };
    return cmocka_run_group_tests(tests, use_place, drop_place);
}
