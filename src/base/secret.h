/*
 * secret: bytes that must not be seen: no formatter takes one, comparison is constant time, destruction wipes.
 * secret_reveal is the one way to the bytes; grep for it to see where secrets go.
 */
#ifndef NEXUS_BASE_SECRET_H
#define NEXUS_BASE_SECRET_H

#include "base/str.h"

struct secret;

struct secret *secret_create(str bytes);    /* copies */
void secret_destroy(struct secret *secret); /* wipes; NULL is fine */
OWNED_DEFINE(secret)
bool secret_equal(const struct secret *secret, str other); /* constant time in the secret's bytes */
str secret_reveal(const struct secret *secret);            /* borrowed; never log it */
str secret_hint(
    const struct secret *secret,
    struct arena *arena); /* "sk-…abcd" for people: at most first 3 and last 4, "…" when short */

#endif
