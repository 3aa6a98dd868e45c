/*
 * Seal: bytes that only the holder of a key can read, and only in their place.
 *
 *      seal_close(key, place, plain) --> 12 bytes nonce, ciphertext, 16 bytes tag      seal_open(key, place, sealed) --> plain
 *
 * - AES-256-GCM with a random nonce: a key is good for 2^32 seals.
 * - The place (associated data) is not stored: what was sealed for one row opens in no other.
 * - A changed byte, another key or another place: nothing is opened.
 * Thread: any.  Suspends: never.  Source: NIST SP 800-38D.
 */
#ifndef NEXUS_BASE_SEAL_H
#define NEXUS_BASE_SEAL_H

#include "base/str.h"

enum { SEAL_KEY_BYTES = 32, SEAL_NONCE_BYTES = 12, SEAL_TAG_BYTES = 16 };
#define SEAL_BYTES_MAX (1u << 20) /* of plain bytes */

/* plain.len <= SEAL_BYTES_MAX. */
str seal_close(struct arena *arena, const uint8_t key[SEAL_KEY_BYTES], str place, str plain);
/* The plain bytes on the arena; false when it was not sealed so. */
must_check bool seal_open(struct arena *arena, const uint8_t key[SEAL_KEY_BYTES], str place,
                          str sealed, str *plain);
/* For bytes of the caller's own arena that a plain text passed through. */
void seal_wipe(str bytes);

#endif
