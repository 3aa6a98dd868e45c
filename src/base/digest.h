/*
 * Digests, keyed hashes, signatures and random bytes: the one door to libcrypto outside net/tls.c.
 * Source: FIPS 180-4 (SHA-256), RFC 2104 (HMAC), RFC 8032 (Ed25519).  Nothing here blocks or fails for lawful input.
 */
#ifndef NEXUS_BASE_DIGEST_H
#define NEXUS_BASE_DIGEST_H

#include "base/str.h"

typedef struct {
    uint8_t bytes[32];
} digest;

digest digest_sha256(str data);
digest digest_hmac_sha256(str key, str data);
bool digest_equal(digest a, digest b);                             /* constant time */
bool digest_bytes_equal(const void *a, const void *b, size_t len); /* constant time */
str digest_hex(struct arena *arena, digest d);
bool digest_parse_hex(str hex, digest *out);
void digest_random_bytes(void *out,
                         size_t len); /* from the kernel; ends the process if it cannot */

/* Incremental, for bodies that stream. */
struct digest_stream;
struct digest_stream *digest_stream_create(void);
void digest_stream_add(struct digest_stream *stream, str data);
digest digest_stream_finish(struct digest_stream *stream); /* may be called once */
void digest_stream_destroy(struct digest_stream *stream);  /* NULL is fine */
OWNED_DEFINE(digest_stream)

enum { SIGNATURE_BYTES = 64, SIGNATURE_KEY_BYTES = 32 };
void signature_public_key(const uint8_t private_key[SIGNATURE_KEY_BYTES],
                          uint8_t public_key[SIGNATURE_KEY_BYTES]);
void signature_sign(const uint8_t private_key[SIGNATURE_KEY_BYTES], str data,
                    uint8_t out[SIGNATURE_BYTES]);
bool signature_verify(const uint8_t public_key[SIGNATURE_KEY_BYTES], str data,
                      const uint8_t signature[SIGNATURE_BYTES]);

str base64_encode(struct arena *arena, str data);
bool base64_decode(struct arena *arena, str text,
                   str *out); /* standard alphabet, padding optional, nothing else */
str base64url_encode(struct arena *arena, str data); /* no padding */

#endif
