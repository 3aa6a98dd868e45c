#include "cli/arguments.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct arena *arena;
static const struct option options[] = {
    {"server", 's', "URL", false, "where"},
    {"file", 'f', "PATH", true, "what"},
    {"json", 'j', NULL, false, "how"},
    {"limit", 0, "COUNT", false, "how many"},
    {"status", 0, "pending|delivered|dead", false, "which"},
    {"by", 0, "day|user|model,...", false, "how"},
};

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

enum { WORDS_MAX = 16 };

static bool parse(struct arguments *out, struct error *e, const char *line)
{
    char *words[WORDS_MAX];
    int count = 0;
    str rest = str_from_cstr(line), word;
    while (count < WORDS_MAX && !str_is_empty(rest) && str_next(&rest, ' ', &word))
        words[count++] = str_to_cstr(arena, word);
    return arguments_parse(arena, options, ARRAY_COUNT(options), count, words, out, e);
}

static struct arguments parsed(const char *line)
{
    struct arguments arguments;
    struct error e = {0};
    if (!parse(&arguments, &e, line))
        fail_msg("%s", e.message);
    return arguments;
}

static void assert_refused(const char *line, const char *message)
{
    struct arguments arguments;
    struct error e = {0};
    assert_false(parse(&arguments, &e, line));
    if (!strstr(e.message, message))
        fail_msg("'%s' is not in '%s'", message, e.message);
    assert_int_equal(error_exit_code(e.reason), 2);
}

static void test_options_and_operands_may_mix(void **state)
{
    (void) state;
    struct arguments a = parsed("one --server http://x two -j --limit=5 -f a --file b");
    str file;
    assert_int_equal(a.operand_count, 2);
    assert_true(str_equal(arguments_operand(&a, 1), S("two")));
    assert_true(str_is_empty(arguments_operand(&a, 2)));
    assert_true(str_equal(arguments_get(&a, "server"), S("http://x")));
    assert_true(arguments_has(&a, "json") && !arguments_has(&a, "nothing"));
    assert_true(arguments_nth(&a, "file", 1, &file) && str_equal(file, S("b")));
    assert_false(arguments_nth(&a, "file", 2, &file));
}

static void test_two_dashes_end_the_options(void **state)
{
    (void) state;
    struct arguments a = parsed("-- --json -x -");
    assert_int_equal(a.operand_count, 3);
    assert_false(arguments_has(&a, "json"));
    a = parsed("-");
    assert_int_equal(a.operand_count, 1);
}

static void test_mistakes_are_usage_errors_with_a_remedy(void **state)
{
    (void) state;
    assert_refused("--serv http://x", "did you mean --server?");
    assert_refused("--zzz", "--help lists them");
    assert_refused("-x", "unknown option -x");
    assert_refused("--server", "--server needs a value: URL");
    assert_refused("--json=1", "--json takes no value");
    assert_refused("-j --json", "--json is given twice");
}

static void test_a_misspelt_option_is_told_its_nearest_name(void **state)
{
    (void) state;
    assert_refused("--sevrer http://x", "did you mean --server?");
    assert_refused("--jsn", "did you mean --json?");
    assert_refused("--staus=dead", "did you mean --status?");
}

static void test_a_value_out_of_a_closed_set_is_refused_with_the_list(void **state)
{
    (void) state;
    struct arguments a = parsed("--status dead --by day,model");
    assert_true(str_equal(arguments_get(&a, "status"), S("dead")));
    assert_refused("--status nonsense", "--status: pending, delivered or dead, not \"nonsense\"");
    assert_refused("--status=", "--status: pending, delivered or dead, not \"\"");
    assert_refused("--status dead,pending", "not \"dead,pending\"");
    assert_refused("--by day,weak", "--by: day, user or model, not \"weak\"");
    assert_refused("--by day,", "--by: day, user or model, not \"\"");
}

static void test_numbers_are_checked(void **state)
{
    (void) state;
    struct error e = {0};
    int64_t limit = 50;
    struct arguments a = parsed("");
    assert_true(arguments_number(&a, "limit", 1, 200, &limit, &e) && limit == 50);
    a = parsed("--limit 200");
    assert_true(arguments_number(&a, "limit", 1, 200, &limit, &e) && limit == 200);
    a = parsed("--limit 201");
    assert_false(arguments_number(&a, "limit", 1, 200, &limit, &e));
    a = parsed("--limit many");
    assert_false(arguments_number(&a, "limit", 1, 200, &limit, &e));
    assert_int_equal(limit, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_and_operands_may_mix),
        cmocka_unit_test(test_two_dashes_end_the_options),
        cmocka_unit_test(test_mistakes_are_usage_errors_with_a_remedy),
        cmocka_unit_test(test_a_misspelt_option_is_told_its_nearest_name),
        cmocka_unit_test(test_a_value_out_of_a_closed_set_is_refused_with_the_list),
        cmocka_unit_test(test_numbers_are_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
