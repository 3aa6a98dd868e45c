#include "base/uuid.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* RFC 9562, appendix A.6. */
static void test_the_example_of_rfc_9562(void **state)
{
    (void) state;
    const uint8_t random[10] = {0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(uuid_make(0x017F22E279B0, random), text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
}

static void test_version_and_variant_are_set_whatever_the_random_bytes(void **state)
{
    (void) state;
    for (int byte = 0; byte < 256; byte++) {
        uint8_t random[10];
        memset(random, byte, sizeof(random));
        uuid id = uuid_make(1, random);
        assert_int_equal(id.bytes[6] >> 4, 7);
        assert_int_equal(id.bytes[8] >> 6, 2);
    }
}

static void test_ids_sort_by_time(void **state)
{
    (void) state;
    const uint8_t high[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, low[10] = {0};
    assert_true(uuid_compare(uuid_make(255, high), uuid_make(256, low)) < 0);
    assert_true(uuid_compare(uuid_make(INT64_C(1) << 40, low), uuid_make(5, high)) > 0);
}

static void test_text_goes_there_and_back_in_either_case(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    uuid a, b;
    assert_true(uuid_parse(S("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), &a));
    assert_true(uuid_parse(S("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), &b));
    assert_true(uuid_equal(a, b));
    assert_true(str_equal(uuid_str(arena, b), S("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")));
}

static void test_anything_else_is_refused(void **state)
{
    (void) state;
    uuid id = UUID_NONE;
    const char *const bad[] = {"",
                               "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
                               "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
                               "017f22e279b07cc398c4dc0c0c07398f",
                               "017f22e2079b0-7cc3-98c4-dc0c0c07398f",
                               "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
                               "{17f22e2-79b0-7cc3-98c4-dc0c0c073980",
                               "017f22e2-79b0-7cc3-98c4-dc0c0c0739-f",
                               "-17f22e2-79b0-7cc3-98c4-dc0c0c07398f"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(uuid_parse(str_from_cstr(bad[i]), &id));
    assert_true(uuid_is_none(id));
    assert_true(uuid_parse(S("00000000-0000-0000-0000-000000000000"), &id) && uuid_is_none(id));
}

static void test_a_derived_id_is_the_same_each_time_and_sorts_where_its_origin_does(void **state)
{
    (void) state;
    uuid from, other = UUID_NONE;
    assert_true(uuid_parse(S("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), &from));
    uuid one = uuid_derive(from, S("one")), again = uuid_derive(from, S("one"));
    assert_true(uuid_equal(one, again));
    assert_false(uuid_equal(one, uuid_derive(from, S("two"))));
    assert_false(uuid_equal(one, uuid_derive(other, S("one"))));
    assert_memory_equal(one.bytes, from.bytes, 6);
    assert_int_equal(one.bytes[6] >> 4, 7);
    assert_int_equal(one.bytes[8] >> 6, 2);
}

static void test_an_id_that_is_to_sort_behind_another_does_whatever_its_own_time(void **state)
{
    (void) state;
    const uint8_t low[10] = {0}, high[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    uuid early = uuid_make(1000, low), late = uuid_make(2000, high);
    assert_true(uuid_equal(uuid_after(late, early), late));
    assert_true(uuid_equal(uuid_after(early, UUID_NONE), early));
    uuid moved = uuid_after(early, late);
    assert_true(uuid_compare(moved, late) > 0);
    assert_memory_equal(moved.bytes + 6, early.bytes + 6, 10);
    assert_true(uuid_compare(uuid_after(late, late), late) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_of_rfc_9562),
        cmocka_unit_test(test_version_and_variant_are_set_whatever_the_random_bytes),
        cmocka_unit_test(test_ids_sort_by_time),
        cmocka_unit_test(test_text_goes_there_and_back_in_either_case),
        cmocka_unit_test(test_anything_else_is_refused),
        cmocka_unit_test(test_an_id_that_is_to_sort_behind_another_does_whatever_its_own_time),
        cmocka_unit_test(test_a_derived_id_is_the_same_each_time_and_sorts_where_its_origin_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
