/* Base64 from outside: what is read has one spelling but for its padding. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    str text = str_of((const char *) data, size), bytes;
    if (base64_decode(arena, text, &bytes))
        ensure(str_starts_with(base64_encode(arena, bytes), text));
    base64url_encode(arena, text);
    return 0;
}
