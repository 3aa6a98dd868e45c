/* Folding, bounds, and what a person reads. */
#include "agent/profile.h"
#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static str folded(const struct profile *profile, struct arena *arena)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1 << 20);
    profile_write_folded(profile, &text);
    return strbuf_str(&text);
}

static str shown(const struct profile *profile, struct arena *arena)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1 << 20);
    profile_write_text(profile, &text);
    return strbuf_str(&text);
}

static bool has(str text, const char *part)
{
    return str_find(text, str_from_cstr(part)) != STR_NOT_FOUND;
}

static void test_a_folded_profile_reads_back_as_itself(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(16, 16);
    OWNED(profile) copy = profile_create(16, 16);
    str text = S("run;parse 30\nrun;parse;scan 10\nrun;write 60\n");
    assert_true(profile_add_folded(profile, text));
    assert_int_equal(profile_total_ms(profile), 100);
    assert_true(str_equal(folded(profile, arena), text));
    assert_true(profile_add_folded(copy, folded(profile, arena)));
    assert_true(str_equal(folded(copy, arena), text));
}

static void test_a_person_sees_functions_and_tree_in_percent(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(16, 16);
    assert_true(profile_add_folded(profile, S("run;parse 30\nrun;parse;scan 10\nrun;write 60\n")));
    str text = shown(profile, arena);
    assert_true(has(text, "100 ms of CPU time in 3 stacks"));
    assert_true(has(text, " 60.0%   60.0%  write\n 30.0%   40.0%  parse\n"));
    assert_true(has(text, "100.0%    0.0%  run\n"
                          " 60.0%   60.0%    write\n"
                          " 40.0%   30.0%    parse\n"
                          " 10.0%   10.0%      scan\n"));
}

static void test_all_children_with_equal_times_are_shown(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(16, 16);
    assert_true(profile_add_folded(profile, S("run;a 10\nrun;b 10\nrun;c 10\n")));
    str text = shown(profile, arena);
    assert_true(has(text, "    a\n") && has(text, "    b\n") && has(text, "    c\n"));
}

static void test_a_recursion_counts_once_in_the_total(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(16, 16);
    assert_true(profile_add_folded(profile, S("run;f;f;f 50\nrun 50\n")));
    assert_true(has(shown(profile, arena), " 50.0%   50.0%  f\n"));
}

static void test_what_does_not_fit_counts_for_its_caller(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(2, 3);
    assert_true(profile_add_folded(profile, S("a;b 10\n")));
    assert_false(profile_is_full(profile));
    assert_true(profile_add_folded(profile, S("a;c 5\na;b;a 7\n"))); /* a function, a node more */
    assert_true(profile_is_full(profile));
    assert_int_equal(profile_total_ms(profile), 22);
    assert_true(str_equal(folded(profile, arena), S("a 5\na;b 17\n")));
}

static void test_names_from_a_module_cannot_break_a_line_or_a_terminal(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(4, 4);
    str name = S("x;y\n\033[2J 99");
    profile_add(profile, &name, 1, 10);
    assert_true(str_equal(folded(profile, arena), S("x?y??[2J 99 10\n")));
}

static void test_a_function_without_a_name_is_one_still(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(4, 4);
    assert_true(profile_add_folded(profile, S("a;;b 10\n")));
    assert_true(str_equal(folded(profile, arena), S("a;?;b 10\n")));
}

static void test_lines_that_are_none_are_left_out(void **state)
{
    (void) state;
    OWNED(profile) profile = profile_create(4, 4);
    assert_false(
        profile_add_folded(profile, S("a\na x\n 5\na -1\nb 10\na 99999999999999999999\n")));
    assert_int_equal(profile_total_ms(profile), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_folded_profile_reads_back_as_itself),
        cmocka_unit_test(test_a_person_sees_functions_and_tree_in_percent),
        cmocka_unit_test(test_all_children_with_equal_times_are_shown),
        cmocka_unit_test(test_a_recursion_counts_once_in_the_total),
        cmocka_unit_test(test_what_does_not_fit_counts_for_its_caller),
        cmocka_unit_test(test_names_from_a_module_cannot_break_a_line_or_a_terminal),
        cmocka_unit_test(test_a_function_without_a_name_is_one_still),
        cmocka_unit_test(test_lines_that_are_none_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
