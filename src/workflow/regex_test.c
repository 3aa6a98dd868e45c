#include "workflow/regex.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static bool matches(str pattern, str text)
{
    struct regex *regex;
    struct error e = {0};
    size_t steps = EXPRESSION_STEPS_MAX;
    bool is_match = false;
    if (!regex_compile(arena, pattern, &regex, &e) ||
        !regex_matches(regex, text, arena, &steps, &is_match, &e))
        fail_msg(STR_FMT ": %s", STR_ARG(pattern), e.message);
    return is_match;
}

struct example {
    const char *pattern, *hit, *miss; /* NULL: none */
};

static void check(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct example *x = &examples[i];
        if (x->hit && !matches(str_from_cstr(x->pattern), str_from_cstr(x->hit)))
            fail_msg("%s does not match %s", x->pattern, x->hit);
        if (x->miss && matches(str_from_cstr(x->pattern), str_from_cstr(x->miss)))
            fail_msg("%s matches %s", x->pattern, x->miss);
    }
}

static void test_patterns_match_what_re2_matches(void **state)
{
    static const struct example examples[] = {
        {"", "", NULL},
        {"b", "abc", "acd"},
        {"^abc$", "abc", "abcd"},
        {"a.c", "abc", "a\nc"},
        {"(?s)a.c", "a\nc", "ac"},
        {"^(a|b)*$", "abba", "abca"},
        {"a|b|cd", "xcdx", "xcx"},
        {"^(?:a|)b$", "b", "cb"},
        {"colou?r", "color", "colr"},
        {"^a{2,3}$", "aaa", "aaaa"},
        {"^a{2}$", "aa", "a"},
        {"^a{2,}$", "aaaaa", "a"},
        {"a{,2}", "a{,2}", "aa"},
        {"^x{0}$", "", "x"},
        {"^(a+?b*?)+$", "aabaab", "c"},
        {"[a-c]+[^a-c]$", "abx", "abc"},
        {"^[]a]+$", "a]", "b"},
        {"^[^]a]$", "b", "]"},
        {"^[a-]+$", "-a", "b"},
        {"^[\\w.-]+@[\\w-]+\\.[a-z]{2,}$", "ada.l@example.org", "ada@example"},
        {"^[[:upper:]][[:^digit:]]$", "Ab", "A1"},
        {"^\\d\\D\\s\\S\\w\\W$", "1a b_-", "aaaaaa"},
        {"\\bfox\\b", "the fox runs", "foxes"},
        {"\\Box", "fox", "ox"},
        {"\\Ab", "bab", "ab"},
        {"b\\z", "ab", "ba"},
        {"(?m)^b$", "a\nb\nc", "a\nbc"},
        {"(?i)strasse", "Alte STRASSE", "Straxe"},
        {"(?i)[a-f]+$", "DEADBEEF", "xyz"},
        {"a(?i)b", "aB", "AB"},
        {"a(?i:b)c", "aBc", "aBC"},
        {"(?i:a(?-i)b)", "Ab", "AB"},
        {"(?P<year>\\d{4})-(?<month>\\d\\d)", "2026-11", "26-11"},
        {"^\\x41\\x{e9}\\t$", "A\xc3\xa9\t", "Ae\t"},
        {"^.$", "\xc3\xa9", "\xc3\xa9\xc3\xa9"},
        {"^[\xc3\xa0-\xc3\xbf]+$", "\xc3\xa9\xc3\xa8", "e"},
        {"^\\.\\*\\[\\]\\\\$", ".*[]\\", "a"},
        {"(a*)*b", "aaab", "aaaa"},
        {"(|a)+$", "aaa", NULL},
        {"$^", "", "a"},
    };
    (void) state;
    check(examples, ARRAY_COUNT(examples));
}

static void test_what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *pattern, *said;
    } examples[] = {
        {"a)", "closes nothing"},
        {"(a", "the group has no end"},
        {"[a", "the set has no end"},
        {"*a", "nothing stands before"},
        {"a|+", "nothing stands before"},
        {"a**", "a repetition of a repetition"},
        {"a{2}{3}", "a repetition of a repetition"},
        {"a{3,2}", "not below it"},
        {"a{1001}", "at most 1000"},
        {"a\\", "a backslash at the end"},
        {"(a)\\1", "back references are not supported"},
        {"(?=a)", "lookaround is not supported"},
        {"(?<!a)", "lookaround is not supported"},
        {"\\pL", "\\p{...} is not supported"},
        {"\\y", "no escape of this letter"},
        {"\\x{110000}", "up to 10FFFF"},
        {"\\xg1", "two hexadecimal digits"},
        {"[z-a]", "a range goes"},
        {"[a-\\d]", "a range goes"},
        {"[[:letter:]]", "[:alnum:]"},
        {"(?y)", "the flags are"},
        {"(?P<>a)", "a group's name"},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(examples); i++) {
        struct regex *regex;
        struct error e = {0};
        assert_false(regex_compile(arena, str_from_cstr(examples[i].pattern), &regex, &e));
        assert_int_equal(e.reason, REASON_EXPRESSION);
        if (!strstr(e.message, examples[i].said))
            fail_msg("%s: %s", examples[i].pattern, e.message);
    }
}

/* What takes a backtracking matcher longer than the world will last. */
static void test_the_work_is_linear_in_the_text(void **state)
{
    static const char *const evil[] = {"^(a+)+$", "(a|aa)+$", "(.*)*x", "(a?){30}a{30}$",
                                       "^(([a-z])+.)+[A-Z]([a-z])+$"};
    enum { BYTES = 20000 };
    char *text = arena_alloc_raw(arena, 2 * BYTES);
    memset(text, 'a', 2 * BYTES);
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(evil); i++) {
        struct regex *regex;
        struct error e = {0};
        size_t once = 1u << 30, twice = 1u << 30;
        bool is_match;
        assert_true(regex_compile(arena, str_from_cstr(evil[i]), &regex, &e));
        assert_true(regex_matches(regex, str_of(text, BYTES), arena, &once, &is_match, &e));
        assert_true(regex_matches(regex, str_of(text, 2 * BYTES), arena, &twice, &is_match, &e));
        assert_in_range((1u << 30) - once, 0, BYTES * regex_size(regex) * 2);
        assert_in_range((1u << 30) - twice, 0, 2 * ((1u << 30) - once) + 1000);
    }
}

static void test_a_search_ends_when_its_work_is_used_up(void **state)
{
    struct regex *regex;
    struct error e = {0};
    size_t steps = 10;
    bool is_match;
    (void) state;
    assert_true(regex_compile(arena, S("x"), &regex, &e));
    assert_false(
        regex_matches(regex, S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), arena, &steps, &is_match, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    assert_int_equal(steps, 0);
}

static bool compiles(str pattern)
{
    struct regex *regex;
    struct error e = {0};
    return regex_compile(arena, pattern, &regex, &e);
}

static void test_patterns_are_bounded(void **state)
{
    char text[REGEX_BYTES_MAX + 2];
    (void) state;
    memset(text, 'a', sizeof text);
    assert_true(compiles(str_of(text, REGEX_BYTES_MAX)));
    assert_false(compiles(str_of(text, REGEX_BYTES_MAX + 1)));
    assert_true(compiles(S("a{1000}")));
    assert_false(compiles(S("(a{1000}){5}")));
    assert_false(
        compiles(S("((((a{0}){1000}){1000}){1000}){1000}"))); /* writes nothing, a trillion times */
    memset(text, '(', REGEX_DEPTH_MAX + 1);
    memset(text + REGEX_DEPTH_MAX + 1, ')', REGEX_DEPTH_MAX + 1);
    assert_true(compiles(str_of(text + 1, 2 * REGEX_DEPTH_MAX)));
    assert_false(compiles(str_of(text, 2 * REGEX_DEPTH_MAX + 2)));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_patterns_match_what_re2_matches),
        TEST(test_what_is_wrong_is_said),
        TEST(test_the_work_is_linear_in_the_text),
        TEST(test_a_search_ends_when_its_work_is_used_up),
        TEST(test_patterns_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
