#include "workflow/regex.h"

#include "base/arena.h"
#include "base/limits.h"
#include "runtime/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
    struct regex regex;
    struct error e = {0};
    bool is_match = false;
    if (!regex_compile(pattern, &regex, &e) || !regex_matches(&regex, text, &is_match, &e))
        fail_msg(STR_FMT ": %s", STR_ARG(pattern), e.message);
    regex_free(&regex);
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
        {"^[a[b]]$", "[]", "a"},
        {"^[+--]$", ",", "."},
        {"^[a&&b]$", "&", "c"},
        {"^{.*}$", "{x}", "x"},
        {"\\<a\\>", "<a>", "a"},
        {"^\\w$", "a", "\xc3\xa9"},
        {"\\b\xc3\xa9", "a\xc3\xa9", "\xc3\xa9"},
        {"^\\p{Greek}\\pL\\PL$",
         "\xce\xb1\xc3\xa9"
         "1",
         "a\xc3\xa9"
         "1"},
        {"(?i)^\xc3\x89$", "\xc3\xa9", "e"},
    };
    (void) state;
    check(examples, ARRAY_COUNT(examples));
}

static void test_what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *pattern, *said;
    } examples[] = {
        {"a)", "at its character 2: unopened group"},
        {"(a", "at its character 1: unclosed group; close it with )"},
        {"\xc3\xa9\\w\\d(a", "at its character 6: unclosed group"},
        {"[a", "unclosed character class; close it with ]"},
        {"*a", "repetition operator missing expression"},
        {"a|+", "at its character 3: repetition operator missing expression"},
        {"a**", "a repetition of a repetition"},
        {"a{2}{3}", "a repetition of a repetition"},
        {"a{3,2}", "invalid repetition count range"},
        {"a{1001}", "up to 1000"},
        {"a\\", "a backslash at the end"},
        {"(a)\\1", "backreferences are not supported: no search with them is linear"},
        {"(?=a)", "is not supported: no search with them is linear"},
        {"(?<!a)", "is not supported: no search with them is linear"},
        {"\\pX", "Unicode property not found"},
        {"\\y", "unrecognized escape sequence"},
        {"\\u0041", "no escape of this letter"},
        {"\\Qa\\E", "unrecognized escape sequence"},
        {"\\x{110000}", "not a Unicode scalar value"},
        {"\\xg1", "invalid hexadecimal digit"},
        {"[z-a]", "invalid character class range"},
        {"[a-\\d]", "a range ends with a character"},
        {"[[:letter:]]", "no such class; there are alnum"},
        {"(?y)", "the flags of a group are"},
        {"(?x)a b", "the flags of a group are"},
        {"(?P<>a)", "empty capture group name"},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(examples); i++) {
        struct regex regex;
        struct error e = {0};
        assert_false(regex_compile(str_from_cstr(examples[i].pattern), &regex, &e));
        assert_null(regex.program);
        assert_int_equal(e.reason, REASON_EXPRESSION);
        if (!strstr(e.message, examples[i].said))
            fail_msg("%s: %s", examples[i].pattern, e.message);
    }
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What takes a backtracking matcher longer than the world will last, and an automaton the most that it can. */
static void test_the_time_is_within_what_was_told_beforehand(void **state)
{
    static const char *const evil[] = {"^(a+)+$",
                                       "(a|aa)+$",
                                       "(.*)*x",
                                       "(a?){30}a{30}x",
                                       "^(([a-z])+.)+[A-Z]([a-z])+$",
                                       "[ab]*a[ab]{500}[ab]{500}x",
                                       "(?:.*a.{50}){20}x"};
    enum { BYTES = 8000, NS_PER_STEP = 1000 }; /* a slow machine, with sanitizers */
    char *text = arena_alloc_raw(arena, BYTES);
    (void) state;
    uint32_t random = 1;
    for (size_t i = 0; i < BYTES; i++) {
        random = random * 1664525u + 1013904223u;
        text[i] = random >> 31 ? 'a' : 'b';
    }
    for (size_t i = 0; i < ARRAY_COUNT(evil); i++) {
        struct regex regex;
        struct error e = {0};
        bool is_match;
        assert_true(regex_compile(str_from_cstr(evil[i]), &regex, &e));
        size_t steps = regex_match_steps(&regex, str_of(text, BYTES));
        assert_in_range(steps, BYTES, BYTES * (1 + regex.parts));
        int64_t begin = now_ns();
        assert_true(regex_matches(&regex, str_of(text, BYTES), &is_match, &e));
        assert_true(now_ns() - begin < (int64_t) steps * NS_PER_STEP);
        regex_free(&regex);
    }
}

static void test_a_text_that_is_no_utf8_is_an_error(void **state)
{
    struct regex regex;
    struct error e = {0};
    bool is_match;
    (void) state;
    assert_true(regex_compile(S("x"), &regex, &e));
    assert_false(regex_matches(&regex, S("\xff x"), &is_match, &e));
    assert_int_equal(e.reason, REASON_EXPRESSION);
    regex_free(&regex);
    assert_false(regex_compile(S("\xff"), &regex, &e));
    regex_free(&regex); /* harmless */
}

static bool compiles(str pattern)
{
    struct regex regex;
    struct error e = {0};
    bool is_fine = regex_compile(pattern, &regex, &e);
    if (is_fine)
        assert_in_range(regex.parts, 0, REGEX_PARTS_MAX);
    regex_free(&regex);
    return is_fine;
}

static void test_patterns_are_bounded(void **state)
{
    char text[REGEX_BYTES_MAX + 2];
    (void) state;
    memset(text, 'a', sizeof text);
    assert_true(compiles(str_of(text, REGEX_BYTES_MAX)));
    assert_false(compiles(str_of(text, REGEX_BYTES_MAX + 1)));
    assert_true(compiles(S("a{1000}")));
    assert_true(compiles(S(".{1000}")));
    assert_false(compiles(S("(a{1000}){5}")));
    assert_false(compiles(S("(((a{1000}){1000}){1000}){1000}")));
    assert_false(compiles(S("\\pL{1000}")));
    assert_true(compiles(S("((((a{0}){1000}){1000}){1000}){1000}"))); /* of nothing: nothing */
    for (size_t i = 0; i < 32; i++) { /* groups of lists of repetitions of choices */
        memcpy(text + 5 * i, "x|y(z", 5);
        memcpy(text + 5 * 32 + 2 * i, ")+", 2);
    }
    assert_true(compiles(str_of(text, 7 * 32)));
    memset(text, '(', REGEX_DEPTH_MAX + 1);
    memset(text + REGEX_DEPTH_MAX + 1, ')', REGEX_DEPTH_MAX + 1);
    assert_true(compiles(str_of(text + 1, 2 * REGEX_DEPTH_MAX)));
    assert_false(compiles(str_of(text, 2 * REGEX_DEPTH_MAX + 2)));
}

static void compile_and_search(void *argument)
{
    bool *is_match = argument;
    *is_match = matches(S("^(\\w+[.]){1,20}$"), S("a.b.c."));
}

static void test_a_coroutine_searches_too(void **state)
{
    struct error e = {0};
    bool is_match = false;
    (void) state;
    struct clock *clock = clock_manual_create(0, 0);
    struct random *random = random_seeded_create(1);
    struct scheduler *scheduler = scheduler_create(clock, random, (struct scheduler_hooks){0});
    assert_true(coroutine_start(scheduler, "searcher", compile_and_search, &is_match, &e));
    assert_true(simulated_run(scheduler, clock, 100));
    assert_true(is_match);
    scheduler_destroy(scheduler);
    random_seeded_destroy(random);
    clock_manual_destroy(clock);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_patterns_match_what_re2_matches),
        TEST(test_what_is_wrong_is_said),
        TEST(test_the_time_is_within_what_was_told_beforehand),
        TEST(test_a_text_that_is_no_utf8_is_an_error),
        TEST(test_patterns_are_bounded),
        TEST(test_a_coroutine_searches_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
