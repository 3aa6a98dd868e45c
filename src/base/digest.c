#include "base/digest.h"

#include "base/ensure.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

enum { SHA256_BLOCK_BYTES = 64 };

/*
 * ---- one fetched SHA-256 for the process, one context per thread: looking either up again costs
 * more than hashing ----
 */

static EVP_MD *sha256;
static pthread_key_t scratch_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_scratch(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    ensure(sha256 != NULL);
    ensure(pthread_key_create(&scratch_key, free_scratch) == 0);
}

static _Thread_local EVP_MD_CTX *scratch;

static EVP_MD_CTX *scratch_context(void)
{
    if (unlikely(scratch == NULL)) {
        pthread_once(&once, fetch);
        scratch = EVP_MD_CTX_new();
        ensure(scratch != NULL);
        ensure(pthread_setspecific(scratch_key, scratch) == 0);
    }
    return scratch;
}

static void begin(EVP_MD_CTX *ctx)
{
    ensure(EVP_DigestInit_ex2(ctx, sha256, NULL) == 1);
}

static void add(EVP_MD_CTX *ctx, const void *bytes, size_t len)
{
    ensure(EVP_DigestUpdate(ctx, bytes, len) == 1);
}

static digest finish(EVP_MD_CTX *ctx)
{
    digest d;
    ensure(EVP_DigestFinal_ex(ctx, d.bytes, NULL) == 1);
    return d;
}

/* ---- digests ---- */

digest digest_sha256(str data)
{
    EVP_MD_CTX *ctx = scratch_context();
    begin(ctx);
    add(ctx, data.ptr, data.len);
    return finish(ctx);
}

static void add_padded_key(EVP_MD_CTX *ctx, const uint8_t key[SHA256_BLOCK_BYTES], uint8_t pad)
{
    uint8_t block[SHA256_BLOCK_BYTES];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = key[i] ^ pad;
    add(ctx, block, sizeof(block));
    OPENSSL_cleanse(block, sizeof(block));
}

/*
 * RFC 2104 by hand: libcrypto's HMAC sets up its objects anew for each key, which takes longer than
 * the four blocks.
 */
digest digest_hmac_sha256(str key, str data)
{
    uint8_t block[SHA256_BLOCK_BYTES] = {0};
    EVP_MD_CTX *ctx = scratch_context();
    if (key.len > sizeof(block)) {
        digest short_key = digest_sha256(key);
        memcpy(block, short_key.bytes, sizeof(short_key.bytes));
    } else if (key.len > 0) {
        memcpy(block, key.ptr, key.len);
    }
    begin(ctx);
    add_padded_key(ctx, block, 0x36);
    add(ctx, data.ptr, data.len);
    digest inner = finish(ctx);
    begin(ctx);
    add_padded_key(ctx, block, 0x5c);
    add(ctx, inner.bytes, sizeof(inner.bytes));
    OPENSSL_cleanse(block, sizeof(block));
    return finish(ctx);
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
    EVP_MD_CTX *ctx;
    bool is_finished;
};

struct digest_stream *digest_stream_create(void)
{
    struct digest_stream *stream = malloc(sizeof(*stream));
    ensure(stream != NULL);
    pthread_once(&once, fetch);
    *stream = (struct digest_stream){.ctx = EVP_MD_CTX_new()};
    ensure(stream->ctx != NULL);
    begin(stream->ctx);
    return stream;
}

void digest_stream_add(struct digest_stream *stream, str data)
{
    ensure(!stream->is_finished);
    add(stream->ctx, data.ptr, data.len);
}

digest digest_stream_finish(struct digest_stream *stream)
{
    ensure(!stream->is_finished);
    stream->is_finished = true;
    return finish(stream->ctx);
}

void digest_stream_destroy(struct digest_stream *stream)
{
    if (!stream)
        return;
    EVP_MD_CTX_free(stream->ctx);
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
