/*
 * Vectors: FIPS 180-4 examples, RFC 4231 (HMAC-SHA-256), RFC 8032 section 7.1 (Ed25519), RFC 4648
 * section 10.
 */
#include "base/digest.h"

#include "base/arena.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

static void assert_hex(digest d, const char *expected)
{
    assert_string_equal(str_to_cstr(arena, digest_hex(arena, d)), expected);
}

static str filled(char byte, size_t len)
{
    return str_of(memset(arena_alloc(arena, len), byte, len), len);
}

static void test_sha256_of_the_standard_examples(void **state)
{
    (void) state;
    assert_hex(digest_sha256(S("abc")),
               "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_hex(digest_sha256(STR_NONE),
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_hex(digest_sha256(filled('a', 1000000)),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_hmac_of_rfc_4231(void **state)
{
    (void) state;
    assert_hex(digest_hmac_sha256(filled('\x0b', 20), S("Hi There")),
               "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    assert_hex(digest_hmac_sha256(S("Jefe"), S("what do ya want for nothing?")),
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_hex(digest_hmac_sha256(filled('\xaa', 20), filled('\xdd', 50)),
               "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    assert_hex(digest_hmac_sha256(filled('\xaa', 131),
                                  S("Test Using Larger Than Block-Size Key - Hash Key First")),
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    assert_hex(digest_hmac_sha256(STR_NONE, STR_NONE),
               "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_a_stream_gives_the_digest_of_the_whole(void **state)
{
    (void) state;
    struct digest_stream *stream = digest_stream_create(), *unfinished = digest_stream_create();
    for (int i = 0; i < 1000; i++)
        digest_stream_add(stream, filled('a', 1000));
    assert_hex(digest_stream_finish(stream),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    digest_stream_destroy(stream);
    digest_stream_destroy(unfinished);
    digest_stream_destroy(NULL);
}

static void test_equality_is_of_all_bytes(void **state)
{
    (void) state;
    digest a = digest_sha256(S("a"));
    assert_true(digest_equal(a, digest_sha256(S("a"))));
    for (size_t i = 0; i < sizeof(a.bytes); i++) {
        digest b = a;
        b.bytes[i] ^= 1;
        assert_false(digest_equal(a, b));
    }
    assert_true(digest_bytes_equal(NULL, NULL, 0));
}

static void test_hex_goes_there_and_back(void **state)
{
    (void) state;
    digest a = digest_sha256(S("a")), b = {{0}};
    str hex = digest_hex(arena, a);
    assert_true(digest_parse_hex(hex, &b) && digest_equal(a, b));
    assert_true(digest_parse_hex(
        S("CA978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB"), &b));
    assert_true(digest_equal(a, b));
    assert_false(digest_parse_hex(str_slice(hex, 0, 63), &b));
    assert_false(digest_parse_hex(
        S("gA978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB"), &b));
    assert_false(digest_parse_hex(
        S(" A978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB"), &b));
}

static void test_random_bytes_differ_and_fill_any_length(void **state)
{
    (void) state;
    uint8_t a[1000] = {0}, b[1000] = {0};
    digest_random_bytes(a, sizeof(a));
    digest_random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 984, b + 984, 16);
    digest_random_bytes(NULL, 0);
}

static void from_hex(const char *hex, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t) byte;
    }
}

static void assert_signature(const char *private_hex, const char *public_hex, str message,
                             const char *signature_hex)
{
    uint8_t private_key[32], public_key[32], expected_key[32], signature[64], expected[64];
    from_hex(private_hex, private_key, 32);
    from_hex(public_hex, expected_key, 32);
    from_hex(signature_hex, expected, 64);
    signature_public_key(private_key, public_key);
    assert_memory_equal(public_key, expected_key, 32);
    signature_sign(private_key, message, signature);
    assert_memory_equal(signature, expected, 64);
    assert_true(signature_verify(public_key, message, signature));
    signature[5] ^= 1;
    assert_false(signature_verify(public_key, message, signature));
    signature[5] ^= 1;
    assert_false(signature_verify(public_key, S("another message"), signature));
    public_key[0] ^= 1;
    assert_false(signature_verify(public_key, message, signature));
}

static void test_signatures_of_rfc_8032(void **state)
{
    (void) state;
    assert_signature("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", STR_NONE,
                     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33"
                     "bacc61e39701cf9b46bd25b"
                     "f5f0595bbe24655141438e7a100b");
    assert_signature("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", S("\x72"),
                     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e159"
                     "96e458f3613d0f11d8c387b"
                     "2eaeb4302aeeb00d291612bb0c00");
}

static void test_base64_of_rfc_4648(void **state)
{
    (void) state;
    static const struct {
        const char *plain, *padded, *url;
    } rows[] = {{"", "", ""},
                {"f", "Zg==", "Zg"},
                {"fo", "Zm8=", "Zm8"},
                {"foo", "Zm9v", "Zm9v"},
                {"foob", "Zm9vYg==", "Zm9vYg"},
                {"fooba", "Zm9vYmE=", "Zm9vYmE"},
                {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
                {"\xfb\xff\xbf", "+/+/", "-_-_"}};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        str plain = str_from_cstr(rows[i].plain), decoded;
        assert_string_equal(str_to_cstr(arena, base64_encode(arena, plain)), rows[i].padded);
        assert_string_equal(str_to_cstr(arena, base64url_encode(arena, plain)), rows[i].url);
        assert_true(base64_decode(arena, str_from_cstr(rows[i].padded), &decoded) &&
                    str_equal(decoded, plain));
    }
    str decoded;
    assert_true(base64_decode(arena, S("Zg"), &decoded) && str_equal(decoded, S("f")));
    assert_true(base64_decode(arena, S("Zm8"), &decoded) && str_equal(decoded, S("fo")));
}

static void test_base64_with_anything_else_is_refused(void **state)
{
    (void) state;
    str decoded = S("before");
    const char *const bad[] = {"Z",     "Zg=",    "Zg===", "=",    "==",   "====",    "Zm9v=",
                               "Z g==", "Zg==\n", "Zm-v",  "Zh==", "Zm9=", "Zg==Zg=="};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        if (base64_decode(arena, str_from_cstr(bad[i]), &decoded))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_true(str_equal(decoded, S("before")));
}

static void *hash_many(void *expected)
{
    for (int i = 0; i < 2000; i++) {
        if (!digest_equal(digest_hmac_sha256(S("key"), S("data")), *(digest *) expected))
            return NULL;
    }
    return expected;
}

static void test_threads_hash_side_by_side(void **state)
{
    (void) state;
    digest expected = digest_hmac_sha256(S("key"), S("data"));
    pthread_t threads[4];
    void *result;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hash_many, &expected), 0);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_of_the_standard_examples),
        cmocka_unit_test(test_hmac_of_rfc_4231),
        cmocka_unit_test(test_a_stream_gives_the_digest_of_the_whole),
        cmocka_unit_test(test_equality_is_of_all_bytes),
        cmocka_unit_test(test_hex_goes_there_and_back),
        cmocka_unit_test(test_random_bytes_differ_and_fill_any_length),
        cmocka_unit_test(test_signatures_of_rfc_8032),
        cmocka_unit_test(test_base64_of_rfc_4648),
        cmocka_unit_test(test_base64_with_anything_else_is_refused),
        cmocka_unit_test(test_threads_hash_side_by_side),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
