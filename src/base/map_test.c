#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { KEY_COUNT = 500 };

static int values[KEY_COUNT];

static str key_of(size_t i, char text[24])
{
    return str_of(text, (size_t) snprintf(text, 24, "key-%zu", i));
}

static void test_what_was_put_is_found_and_nothing_else(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    char text[24];
    assert_null(map_find(map, S("a")));
    for (size_t i = 0; i < KEY_COUNT; i++)
        assert_null(map_put(map, key_of(i, text), &values[i]));
    assert_int_equal(map_count(map), KEY_COUNT);
    for (size_t i = 0; i < KEY_COUNT; i++)
        assert_ptr_equal(map_find(map, key_of(i, text)), &values[i]);
    assert_null(map_find(map, S("key")));
    assert_null(map_find(map, STR_NONE));
}

static void test_keys_are_copied_and_may_be_any_bytes(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    char key[] = "abc";
    map_put(map, str_from_cstr(key), &values[0]);
    key[0] = 'x';
    assert_ptr_equal(map_find(map, S("abc")), &values[0]);
    assert_null(map_put(map, S("a\0b"), &values[1]));
    assert_null(map_put(map, STR_NONE, &values[2]));
    assert_ptr_equal(map_find(map, S("a\0b")), &values[1]);
    assert_ptr_equal(map_find(map, S("")), &values[2]);
    assert_null(map_find(map, S("a")));
}

static void test_put_replaces_and_gives_the_old_value(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    assert_null(map_put(map, S("a"), &values[0]));
    assert_ptr_equal(map_put(map, S("a"), &values[1]), &values[0]);
    assert_ptr_equal(map_find(map, S("a")), &values[1]);
    assert_int_equal(map_count(map), 1);
}

static void test_iteration_is_in_insertion_order(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    char text[24];
    size_t position = 0, count = 0;
    str key;
    void *value;
    for (size_t i = 0; i < KEY_COUNT; i++)
        map_put(map, key_of(i, text), &values[i]);
    while (map_next(map, &position, &key, &value)) {
        assert_true(str_equal(key, key_of(count, text)));
        assert_ptr_equal(value, &values[count++]);
    }
    assert_int_equal(count, KEY_COUNT);
    position = 0;
    assert_true(map_next(map, &position, NULL, NULL));
}

/*
 * Random puts and removes beside a plain array; small keys, so that the same ones come back often.
 */
static void test_removal_leaves_every_other_key_in_place(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    void *expected[KEY_COUNT] = {0};
    uint32_t random = 1;
    char text[24];
    size_t count = 0;
    for (int step = 0; step < 40000; step++) {
        random = random * 1664525 + 1013904223;
        size_t i = (random >> 8) % KEY_COUNT;
        str key = key_of(i, text);
        assert_ptr_equal(map_find(map, key), expected[i]);
        count += expected[i] == NULL;
        if (random >> 31) {
            assert_ptr_equal(map_put(map, key, &values[i]), expected[i]);
            expected[i] = &values[i];
        } else {
            assert_ptr_equal(map_remove(map, key), expected[i]);
            expected[i] = NULL;
            count--;
        }
        assert_int_equal(map_count(map), count);
    }
    for (size_t i = 0; i < KEY_COUNT; i++)
        assert_ptr_equal(map_find(map, key_of(i, text)), expected[i]);
    assert_null(map_remove(map, S("none")));
}

static void test_what_was_many_once_does_not_stay_large(void **state)
{
    (void) state;
    OWNED(map) map = map_create();
    enum { MANY = 20000, FEW = 100 };
    char text[24];
    for (size_t i = 0; i < MANY; i++)
        map_put(map, key_of(i, text), &values[i % KEY_COUNT]);
    size_t large = map_bytes(map);
    for (size_t i = FEW; i < MANY; i++)
        assert_ptr_equal(map_remove(map, key_of(i, text)), &values[i % KEY_COUNT]);
    assert_true(map_bytes(map) < large / 10);
    for (size_t i = 0; i < MANY; i++)
        assert_ptr_equal(map_find(map, key_of(i, text)), i < FEW ? &values[i] : NULL);
    for (size_t i = FEW; i < MANY; i++) /* and grows again */
        map_put(map, key_of(i, text), &values[i % KEY_COUNT]);
    assert_int_equal(map_count(map), MANY);
    assert_ptr_equal(map_find(map, S("key-19999")), &values[19999 % KEY_COUNT]);
}

static void test_the_seed_can_be_fixed_for_a_simulation(void **state)
{
    (void) state;
    assert_true(map_seed() != 0);
    assert_true(map_seed() == map_seed());
    OWNED(map) before = map_create();
    map_put(before, S("a"), &values[0]);
    map_set_seed(42);
    assert_true(map_seed() == 42);
    assert_ptr_equal(map_find(before, S("a")),
                     &values[0]); /* a map keeps the seed it was made with */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_found_and_nothing_else),
        cmocka_unit_test(test_keys_are_copied_and_may_be_any_bytes),
        cmocka_unit_test(test_put_replaces_and_gives_the_old_value),
        cmocka_unit_test(test_iteration_is_in_insertion_order),
        cmocka_unit_test(test_removal_leaves_every_other_key_in_place),
        cmocka_unit_test(test_what_was_many_once_does_not_stay_large),
        cmocka_unit_test(test_the_seed_can_be_fixed_for_a_simulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
