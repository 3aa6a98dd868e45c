#include "base/strbuf.h"

#include "base/arena.h"

#include <setjmp.h>
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

static void assert_text(const struct strbuf *b, const char *expected)
{
    assert_string_equal(str_to_cstr(arena, strbuf_str(b)), expected);
}

static void test_pieces_of_every_kind_are_appended(void **state)
{
    (void) state;
    struct strbuf b;
    strbuf_init(&b, arena, 1000);
    assert_true(str_is_empty(strbuf_str(&b)));
    strbuf_add(&b, S("a="));
    strbuf_add(&b, STR_NONE);
    strbuf_add_u64(&b, UINT64_MAX);
    strbuf_add_char(&b, ' ');
    strbuf_add_i64(&b, INT64_MIN);
    strbuf_add_u64(&b, 0);
    strbuf_printf(&b, " %s-%d", "x", 7);
    assert_text(&b, "a=18446744073709551615 -92233720368547758080 x-7");
    assert_false(strbuf_is_over(&b));
}

static void test_long_texts_survive_growth_with_other_allocations_between(void **state)
{
    (void) state;
    struct strbuf b;
    strbuf_init(&b, arena, 1u << 20);
    for (int i = 0; i < 10000; i++) {
        strbuf_printf(&b, "%04d", i);
        if (i % 100 == 0)
            arena_alloc(arena, 10);
    }
    assert_int_equal(b.len, 40000);
    for (int i = 0; i < 10000; i++) {
        uint64_t number;
        assert_true(
            str_to_u64(str_slice(strbuf_str(&b), (size_t) i * 4, (size_t) i * 4 + 4), &number));
        assert_int_equal(number, i);
    }
}

static void test_the_maximum_is_reached_but_not_passed(void **state)
{
    (void) state;
    struct strbuf b;
    strbuf_init(&b, arena, 5);
    strbuf_add(&b, S("12345"));
    assert_false(strbuf_is_over(&b));
    strbuf_add_char(&b, '6');
    assert_true(strbuf_is_over(&b));
    assert_text(&b, "12345");
    strbuf_init(&b, arena, 5);
    strbuf_printf(&b, "%s", "12345");
    assert_false(strbuf_is_over(&b));
    strbuf_init(&b, arena, 5);
    strbuf_printf(&b, "%s", "123456");
    assert_true(strbuf_is_over(&b));
    assert_text(&b, "");
}

static void test_over_is_sticky_so_that_no_piece_is_missing_in_the_middle(void **state)
{
    (void) state;
    struct strbuf b;
    strbuf_init(&b, arena, 5);
    strbuf_add(&b, S("too long"));
    strbuf_add(&b, S("ok"));
    strbuf_printf(&b, "ok");
    assert_text(&b, "");
    assert_null(strbuf_reserve(&b, 1));
    strbuf_truncate(&b, 0);
    assert_false(strbuf_is_over(&b));
    strbuf_add(&b, S("ok"));
    assert_text(&b, "ok");
}

static void test_reserve_and_commit_write_in_place(void **state)
{
    (void) state;
    struct strbuf b;
    strbuf_init(&b, arena, 1000);
    memcpy(strbuf_reserve(&b, 500), "abc", 3);
    strbuf_commit(&b, 3);
    assert_non_null(strbuf_reserve(&b, 997));
    assert_non_null(strbuf_reserve(&b, 0));
    assert_text(&b, "abc");
    assert_null(strbuf_reserve(&b, 998));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_of_every_kind_are_appended),
        cmocka_unit_test(test_long_texts_survive_growth_with_other_allocations_between),
        cmocka_unit_test(test_the_maximum_is_reached_but_not_passed),
        cmocka_unit_test(test_over_is_sticky_so_that_no_piece_is_missing_in_the_middle),
        cmocka_unit_test(test_reserve_and_commit_write_in_place),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
