#include "base/seal.h"

#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};

static void test_what_was_sealed_opens_again(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str plain, texts[] = {S(""), S("x"), S("a token of some length, longer than one block of AES")};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        str sealed = seal_close(arena, key, S("here"), texts[i]);
        assert_int_equal(sealed.len, texts[i].len + SEAL_NONCE_BYTES + SEAL_TAG_BYTES);
        assert_true(seal_open(arena, key, S("here"), sealed, &plain));
        assert_true(str_equal(plain, texts[i]));
    }
}

static void test_a_seal_opens_in_its_place_and_with_its_key_only(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str plain;
    uint8_t other[SEAL_KEY_BYTES] = {1, 2, 4};
    str sealed = seal_close(arena, key, S("alice"), S("token"));
    assert_false(seal_open(arena, key, S("mallory"), sealed, &plain));
    assert_false(seal_open(arena, other, S("alice"), sealed, &plain));
}

static void test_every_changed_bit_and_every_cut_is_noticed(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str plain, sealed = seal_close(arena, key, S("p"), S("token"));
    for (size_t i = 0; i < 8 * sealed.len; i++) {
        char *copy = str_to_cstr(arena, sealed);
        copy[i / 8] = (char) (copy[i / 8] ^ (1 << i % 8));
        assert_false(seal_open(arena, key, S("p"), str_of(copy, sealed.len), &plain));
    }
    for (size_t i = 0; i < sealed.len; i++)
        assert_false(seal_open(arena, key, S("p"), str_slice(sealed, 0, i), &plain));
}

static void test_two_seals_of_one_text_differ(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_false(str_equal(seal_close(arena, key, S("p"), S("token")),
                           seal_close(arena, key, S("p"), S("token"))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_sealed_opens_again),
        cmocka_unit_test(test_a_seal_opens_in_its_place_and_with_its_key_only),
        cmocka_unit_test(test_every_changed_bit_and_every_cut_is_noticed),
        cmocka_unit_test(test_two_seals_of_one_text_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
