#include "base/str.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct arena *arena;

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

static void assert_str(str actual, const char *expected)
{
    if (!str_equal(actual, str_from_cstr(expected)))
        fail_msg("\"" STR_FMT "\" is not \"%s\"", STR_ARG(actual), expected);
}

static void test_the_absent_string_is_empty_and_equal_to_the_empty_one(void **state)
{
    (void) state;
    assert_true(str_is_empty(STR_NONE));
    assert_true(str_equal(STR_NONE, S("")));
    assert_null(str_from_cstr(NULL).ptr);
    assert_null(str_copy(arena, STR_NONE).ptr);
    assert_non_null(str_copy(arena, S("")).ptr);
    assert_str(str_printf(arena, STR_FMT "|" STR_FMT, STR_ARG(STR_NONE), STR_ARG(S("x"))), "|x");
}

static void test_comparison_is_bytewise(void **state)
{
    (void) state;
    assert_int_equal(str_compare(S("a"), S("a")), 0);
    assert_true(str_compare(S("a"), S("b")) < 0);
    assert_true(str_compare(S("a"), S("aa")) < 0);
    assert_true(str_compare(S("\xff"), S("a")) > 0);
    assert_true(str_compare(STR_NONE, S("a")) < 0);
    assert_int_equal(str_compare(STR_NONE, S("")), 0);
    assert_true(str_equal_nocase(S("Content-TYPE"), S("content-type")));
    assert_false(str_equal_nocase(S("[a"), S("{a")));
    assert_false(str_equal_nocase(S("a"), S("ab")));
}

static void test_prefixes_and_suffixes(void **state)
{
    (void) state;
    str rest = S("before");
    assert_true(str_starts_with(S("agent:x"), S("agent:")) && str_starts_with(S("a"), S("")));
    assert_false(str_starts_with(S("ag"), S("agent:")));
    assert_true(str_ends_with(S("a.csv"), S(".csv")) && str_ends_with(S("a"), S("")));
    assert_false(str_ends_with(S("sv"), S(".csv")));
    assert_false(str_strip_prefix(S("x"), S("agent:"), &rest));
    assert_str(rest, "before");
    assert_true(str_strip_prefix(S("agent:x"), S("agent:"), &rest));
    assert_str(rest, "x");
}

static void test_slices_are_clamped(void **state)
{
    (void) state;
    assert_str(str_slice(S("hello"), 1, 3), "el");
    assert_str(str_slice(S("hello"), 3, 1), "");
    assert_str(str_slice(S("hello"), 2, 99), "llo");
    assert_str(str_slice(S("hello"), 99, 100), "");
    assert_str(str_from(S("hello"), 4), "o");
    assert_str(str_from(S("hello"), 6), "");
    assert_str(str_slice(STR_NONE, 0, 1), "");
    assert_str(str_trim(S(" \t\r\n a b \v\f")), "a b");
    assert_str(str_trim(S("  ")), "");
}

static void test_search_gives_the_first_offset(void **state)
{
    (void) state;
    assert_int_equal(str_find(S("abcbc"), S("bc")), 1);
    assert_int_equal(str_find(S("abc"), S("")), 0);
    assert_true(str_find(S("abc"), S("abcd")) == STR_NOT_FOUND);
    assert_true(str_find(STR_NONE, S("a")) == STR_NOT_FOUND);
    assert_int_equal(str_find_char(S("a\0b"), 'b'), 2);
    assert_true(str_find_char(STR_NONE, 'b') == STR_NOT_FOUND);
}

static void test_cut_splits_at_the_first_separator(void **state)
{
    (void) state;
    str head, tail;
    assert_true(str_cut(S("a=b=c"), '=', &head, &tail));
    assert_str(head, "a");
    assert_str(tail, "b=c");
    assert_false(str_cut(S("abc"), '=', &head, &tail));
    assert_str(head, "abc");
    assert_true(str_is_empty(tail));
}

static void test_next_gives_empty_pieces_and_then_ends(void **state)
{
    (void) state;
    str rest = S("a,,b,"), piece;
    const char *const expected[] = {"a", "", "b", ""};
    size_t count = 0;
    while (str_next(&rest, ',', &piece))
        assert_str(piece, expected[count++]);
    assert_int_equal(count, 4);
    rest = STR_NONE;
    assert_false(str_next(&rest, ',', &piece));
    rest = S("");
    assert_true(str_next(&rest, ',', &piece));
    assert_false(str_next(&rest, ',', &piece));
}

static void test_integers_parse_whole_or_not_at_all(void **state)
{
    (void) state;
    uint64_t u = 7;
    int64_t i = 7;
    assert_true(str_to_u64(S("18446744073709551615"), &u) && u == UINT64_MAX);
    assert_true(str_to_u64(S("007"), &u) && u == 7);
    assert_true(str_to_i64(S("9223372036854775807"), &i) && i == INT64_MAX);
    assert_true(str_to_i64(S("-9223372036854775808"), &i) && i == INT64_MIN);
    assert_true(str_to_i64(S("-0"), &i) && i == 0);
    const char *const bad_u[] = {
        "", "-1", "+1", " 1", "1 ", "1x", "18446744073709551616", "99999999999999999999"};
    for (size_t n = 0; n < ARRAY_COUNT(bad_u); n++)
        assert_false(str_to_u64(str_from_cstr(bad_u[n]), &u));
    const char *const bad_i[] = {
        "", "-", "--1", "+1", "9223372036854775808", "-9223372036854775809", "1.0"};
    for (size_t n = 0; n < ARRAY_COUNT(bad_i); n++)
        assert_false(str_to_i64(str_from_cstr(bad_i[n]), &i));
    assert_int_equal(u, 7);
    assert_int_equal(i, 0);
}

static void test_doubles_parse_whole_or_not_at_all(void **state)
{
    (void) state;
    double d = 7;
    assert_true(str_to_double(S("-1.5e3"), &d) && d <= -1500 && d >= -1500);
    assert_true(str_to_double(S(".5"), &d) && str_to_double(S("5."), &d) &&
                str_to_double(S("1E+2"), &d));
    const char *const bad[] = {"",   "-",  ".",    "e5",  "1e",  "1e+",   "+1",
                               " 1", "1 ", "0x10", "inf", "nan", "1e999", "1,5"};
    for (size_t n = 0; n < ARRAY_COUNT(bad); n++)
        assert_false(str_to_double(str_from_cstr(bad[n]), &d));
    char digits[NUMBER_TEXT_BYTES_MAX + 1];
    memset(digits, '0', sizeof(digits));
    assert_true(str_to_double(str_of(digits, NUMBER_TEXT_BYTES_MAX - 1), &d));
    assert_false(str_to_double(str_of(digits, NUMBER_TEXT_BYTES_MAX), &d));
}

static void test_copies_do_not_share_bytes(void **state)
{
    (void) state;
    char text[] = "Hello";
    str copy = str_copy(arena, str_from_cstr(text));
    text[0] = 'J';
    assert_str(copy, "Hello");
    assert_string_equal(str_to_cstr(arena, copy), "Hello");
    assert_memory_equal(str_to_cstr(arena, S("a\0b")), "a\0b", 4);
    assert_string_equal(str_to_cstr(arena, STR_NONE), "");
    assert_str(str_lower(arena, S("HeLLo Ä")), "hello Ä");
    assert_str(str_hex(arena, "\x00\xff\x1a", 3), "00ff1a");
}

static void test_utf8_is_checked_strictly(void **state)
{
    (void) state;
    assert_true(str_is_utf8(S("plain ascii text, longer than eight")) && str_is_utf8(STR_NONE));
    assert_true(str_is_utf8(S("12345678é€😀\xf4\x8f\xbf\xbf\xee\x80\x80")));
    const char *const bad[] = {"\x80",
                               "\xc0\x80",
                               "\xc1\xbf",
                               "\xe0\x9f\xbf",
                               "\xed\xa0\x80",
                               "\xf0\x8f\xbf\xbf",
                               "\xf4\x90\x80\x80",
                               "\xf5\x80\x80\x80",
                               "\xe2\x82",
                               "abcdefgh\xff",
                               "\xc3"
                               "a"};
    for (size_t n = 0; n < ARRAY_COUNT(bad); n++)
        assert_false(str_is_utf8(str_from_cstr(bad[n])));
}

static void test_a_cut_never_splits_a_character(void **state)
{
    (void) state;
    str text = S("aé€😀z");
    const char *const expected[] = {"",    "a",   "a",   "aé",   "aé",    "aé",   "aé€",
                                    "aé€", "aé€", "aé€", "aé€😀", "aé€😀z", "aé€😀z"};
    for (size_t max = 0; max < ARRAY_COUNT(expected); max++)
        assert_str(str_cut_utf8(text, max), expected[max]);
    assert_int_equal(str_cut_utf8(S("\x80\x80\x80\x80\x80\x80"), 5).len,
                     5); /* not UTF-8: nothing to save */
}

static void test_the_hash_depends_on_every_byte_and_on_the_seed(void **state)
{
    (void) state;
    char text[40] = {0};
    uint64_t seen[42];
    size_t count = 0;
    seen[count++] = str_hash(str_of(text, sizeof(text)), 1);
    seen[count++] = str_hash(str_of(text, sizeof(text)), 2);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = 1;
        seen[count++] = str_hash(str_of(text, sizeof(text)), 1);
        text[i] = 0;
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
    assert_true(str_hash(S("ab"), 1) == str_hash(str_slice(S("xaby"), 1, 3), 1));
    assert_true(str_hash(STR_NONE, 1) == str_hash(S(""), 1));
    assert_true(str_hash(S("\0"), 1) != str_hash(S(""), 1));
}

static void test_numbers_and_joins_are_written_as_printf_would(void **state)
{
    (void) state;
    static const int64_t numbers[] = {0, 7, -1, 10, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        assert_true(str_equal(str_i64(arena, numbers[i]),
                              str_printf(arena, "%lld", (long long) numbers[i])));
    assert_true(str_equal(str_join(arena, (str[]){S("a"), STR_NONE, S("bc")}, 3), S("abc")));
    assert_int_equal(str_join(arena, NULL, 0).len, 0);
}

static void test_letters_are_equal_in_either_case_and_nothing_else_is(void **state)
{
    (void) state;
    assert_true(str_equal_nocase(S("Content-Type"), S("content-tYPE")));
    assert_true(str_equal_nocase(STR_NONE, S("")));
    assert_false(str_equal_nocase(S("a"), S("ab")));
    assert_false(str_equal_nocase(S("@"), S("`"))); /* they differ by the same bit as A and a */
    assert_false(str_equal_nocase(S("x["), S("x{")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_absent_string_is_empty_and_equal_to_the_empty_one),
        cmocka_unit_test(test_comparison_is_bytewise),
        cmocka_unit_test(test_prefixes_and_suffixes),
        cmocka_unit_test(test_slices_are_clamped),
        cmocka_unit_test(test_search_gives_the_first_offset),
        cmocka_unit_test(test_cut_splits_at_the_first_separator),
        cmocka_unit_test(test_next_gives_empty_pieces_and_then_ends),
        cmocka_unit_test(test_integers_parse_whole_or_not_at_all),
        cmocka_unit_test(test_doubles_parse_whole_or_not_at_all),
        cmocka_unit_test(test_copies_do_not_share_bytes),
        cmocka_unit_test(test_utf8_is_checked_strictly),
        cmocka_unit_test(test_a_cut_never_splits_a_character),
        cmocka_unit_test(test_numbers_and_joins_are_written_as_printf_would),
        cmocka_unit_test(test_letters_are_equal_in_either_case_and_nothing_else_is),
        cmocka_unit_test(test_the_hash_depends_on_every_byte_and_on_the_seed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
