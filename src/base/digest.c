#include "base/digest.h"

#include "base/ensure.h"

#define OPENSSL_SUPPRESS_DEPRECATED 1 /* see below */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <sys/random.h>

enum { SHA256_BLOCK_BYTES = 64 };

/*
 * SHA-256 by its own functions, whose state is a plain value: EVP takes longer to set up and clear
 * its objects than to hash the few hundred bytes that most calls here have.
 */
static void add(SHA256_CTX *state, const void *bytes, size_t len)
{
    ensure(SHA256_Update(state, bytes, len) == 1);
}

static digest finish(SHA256_CTX *state)
{
    digest d;
    ensure(SHA256_Final(d.bytes, state) == 1);
    return d;
}

/* ---- digests ---- */

digest digest_sha256(str data)
{
    SHA256_CTX state;
    SHA256_Init(&state);
    add(&state, data.ptr, data.len);
    return finish(&state);
}

static void begin_padded(SHA256_CTX *state, const uint8_t key[SHA256_BLOCK_BYTES], uint8_t pad)
{
    uint8_t block[SHA256_BLOCK_BYTES];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = key[i] ^ pad;
    SHA256_Init(state);
    add(state, block, sizeof(block));
    OPENSSL_cleanse(block, sizeof(block));
}

/* RFC 2104 by hand, for the same reason. */
digest digest_hmac_sha256(str key, str data)
{
    uint8_t block[SHA256_BLOCK_BYTES] = {0};
    SHA256_CTX state;
    if (key.len > sizeof(block)) {
        digest short_key = digest_sha256(key);
        memcpy(block, short_key.bytes, sizeof(short_key.bytes));
    } else if (key.len > 0) {
        memcpy(block, key.ptr, key.len);
    }
    begin_padded(&state, block, 0x36);
    add(&state, data.ptr, data.len);
    digest inner = finish(&state);
    begin_padded(&state, block, 0x5c);
    add(&state, inner.bytes, sizeof(inner.bytes));
    digest outer = finish(&state);
    OPENSSL_cleanse(block, sizeof(block));
    OPENSSL_cleanse(&state, sizeof(state));
    return outer;
}

bool digest_equal(digest a, digest b)
{
    return digest_bytes_equal(a.bytes, b.bytes, sizeof(a.bytes));
}

bool digest_bytes_equal(const void *a, const void *b, size_t len)
{
    return len == 0 || CRYPTO_memcmp(a, b, len) == 0;
}

str digest_hex(struct arena *arena, digest d)
{
    return str_hex(arena, d.bytes, sizeof(d.bytes));
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char) (c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool digest_parse_hex(str hex, digest *out)
{
    digest d;
    if (hex.len != 2 * sizeof(d.bytes))
        return false;
    for (size_t i = 0; i < sizeof(d.bytes); i++) {
        int high = hex_value(hex.ptr[2 * i]), low = hex_value(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        d.bytes[i] = (uint8_t) (high << 4 | low);
    }
    *out = d;
    return true;
}

void digest_random_bytes(void *out, size_t len)
{
    char *to = out;
    while (len > 0) {
        ssize_t got = getrandom(to, len, 0);
        if (got < 0) {
            ensure(errno == EINTR);
            continue;
        }
        to += got;
        len -= (size_t) got;
    }
}

/* ---- streams ---- */

struct digest_stream {
    SHA256_CTX state;
    bool is_finished;
};

struct digest_stream *digest_stream_create(void)
{
    struct digest_stream *stream = calloc(1, sizeof(*stream));
    ensure(stream != NULL);
    SHA256_Init(&stream->state);
    return stream;
}

void digest_stream_add(struct digest_stream *stream, str data)
{
    ensure(!stream->is_finished);
    add(&stream->state, data.ptr, data.len);
}

digest digest_stream_finish(struct digest_stream *stream)
{
    ensure(!stream->is_finished);
    stream->is_finished = true;
    return finish(&stream->state);
}

void digest_stream_destroy(struct digest_stream *stream)
{
    free(stream);
}

/* ---- Ed25519 ---- */

static EVP_PKEY *private_key_of(const uint8_t bytes[SIGNATURE_KEY_BYTES])
{
    EVP_PKEY *key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, bytes, SIGNATURE_KEY_BYTES);
    ensure(key != NULL);
    return key;
}

static EVP_MD_CTX *signing_context(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ensure(ctx != NULL);
    return ctx;
}

void signature_public_key(const uint8_t private_key[SIGNATURE_KEY_BYTES],
                          uint8_t public_key[SIGNATURE_KEY_BYTES])
{
    size_t len = SIGNATURE_KEY_BYTES;
    EVP_PKEY *key = private_key_of(private_key);
    ensure(EVP_PKEY_get_raw_public_key(key, public_key, &len) == 1 && len == SIGNATURE_KEY_BYTES);
    EVP_PKEY_free(key);
}

void signature_sign(const uint8_t private_key[SIGNATURE_KEY_BYTES], str data,
                    uint8_t out[SIGNATURE_BYTES])
{
    size_t len = SIGNATURE_BYTES;
    EVP_PKEY *key = private_key_of(private_key);
    EVP_MD_CTX *ctx = signing_context();
    ensure(EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1);
    ensure(EVP_DigestSign(ctx, out, &len, (const uint8_t *) data.ptr, data.len) == 1);
    ensure(len == SIGNATURE_BYTES);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
}

/* The public key may come from outside: one that is no point of the curve verifies nothing. */
bool signature_verify(const uint8_t public_key[SIGNATURE_KEY_BYTES], str data,
                      const uint8_t signature[SIGNATURE_BYTES])
{
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, SIGNATURE_KEY_BYTES);
    if (!key)
        return false;
    EVP_MD_CTX *ctx = signing_context();
    bool is_valid = EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
                    EVP_DigestVerify(ctx, signature, SIGNATURE_BYTES, (const uint8_t *) data.ptr,
                                     data.len) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return is_valid;
}
