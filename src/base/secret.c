#include "base/secret.h"

#include "base/digest.h"
#include "base/ensure.h"

#include <stdlib.h>

struct secret {
    size_t len;
    char bytes[];
};

struct secret *secret_create(str bytes)
{
    struct secret *secret = malloc(sizeof(*secret) + bytes.len);
    ensure(secret != NULL);
    secret->len = bytes.len;
    if (bytes.len)
        memcpy(secret->bytes, bytes.ptr, bytes.len);
    return secret;
}

void secret_destroy(struct secret *secret)
{
    if (!secret)
        return;
    explicit_bzero(secret->bytes, secret->len);
    free(secret);
}

bool secret_equal(const struct secret *secret, str other)
{
    return secret->len == other.len && digest_bytes_equal(secret->bytes, other.ptr, other.len);
}

str secret_reveal(const struct secret *secret)
{
    return str_of(secret->bytes, secret->len);
}

/* What is shown must leave enough unknown: of fewer than 20 characters nothing is. */
str secret_hint(const struct secret *secret, struct arena *arena)
{
    str s = secret_reveal(secret);
    if (s.len < 20)
        return S("…");
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~')
            return S("…");
    }
    return str_printf(arena, "%.3s…%.4s", s.ptr, s.ptr + s.len - 4);
}
