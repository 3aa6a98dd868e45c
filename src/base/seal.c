#include "base/seal.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>

static EVP_CIPHER_CTX *context_create(void)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    ensure(ctx != NULL);
    return ctx;
}

str seal_close(struct arena *arena, const uint8_t key[SEAL_KEY_BYTES], str place, str plain)
{
    ensure(plain.len <= SEAL_BYTES_MAX && place.len <= SEAL_BYTES_MAX);
    int len = 0, last = 0;
    uint8_t *out = ARENA_ARRAY(arena, uint8_t, SEAL_NONCE_BYTES + plain.len + SEAL_TAG_BYTES);
    uint8_t *body = out + SEAL_NONCE_BYTES;
    EVP_CIPHER_CTX *ctx = context_create();
    digest_random_bytes(out, SEAL_NONCE_BYTES);
    ensure(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, out) == 1);
    ensure(EVP_EncryptUpdate(ctx, NULL, &len, (const uint8_t *) place.ptr, (int) place.len) == 1);
    if (plain.len > 0)
        ensure(EVP_EncryptUpdate(ctx, body, &len, (const uint8_t *) plain.ptr, (int) plain.len) ==
               1);
    ensure(EVP_EncryptFinal_ex(ctx, body + plain.len, &last) == 1 && last == 0);
    ensure(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, SEAL_TAG_BYTES, body + plain.len) == 1);
    EVP_CIPHER_CTX_free(ctx);
    return str_of((const char *) out, SEAL_NONCE_BYTES + plain.len + SEAL_TAG_BYTES);
}

bool seal_open(struct arena *arena, const uint8_t key[SEAL_KEY_BYTES], str place, str sealed,
               str *plain)
{
    if (sealed.len < SEAL_NONCE_BYTES + SEAL_TAG_BYTES ||
        sealed.len > SEAL_NONCE_BYTES + SEAL_TAG_BYTES + SEAL_BYTES_MAX ||
        place.len > SEAL_BYTES_MAX)
        return false;
    int len = 0, last = 0;
    uint8_t tag[SEAL_TAG_BYTES];
    size_t bytes = sealed.len - SEAL_NONCE_BYTES - SEAL_TAG_BYTES;
    const uint8_t *from = (const uint8_t *) sealed.ptr;
    uint8_t *out = ARENA_ARRAY(arena, uint8_t, bytes + 1);
    memcpy(tag, from + SEAL_NONCE_BYTES + bytes, sizeof tag);
    EVP_CIPHER_CTX *ctx = context_create();
    ensure(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, from) == 1);
    ensure(EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *) place.ptr, (int) place.len) == 1);
    if (bytes > 0)
        ensure(EVP_DecryptUpdate(ctx, out, &len, from + SEAL_NONCE_BYTES, (int) bytes) == 1);
    ensure(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, SEAL_TAG_BYTES, tag) == 1);
    bool is_whole = EVP_DecryptFinal_ex(ctx, out + bytes, &last) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!is_whole) {
        OPENSSL_cleanse(out, bytes); /* not vouched for: nobody may look at it */
        return false;
    }
    *plain = str_of((const char *) out, bytes);
    return true;
}

void seal_wipe(str bytes)
{
    if (bytes.len > 0)
        OPENSSL_cleanse((void *) (uintptr_t) bytes.ptr, bytes.len);
}
