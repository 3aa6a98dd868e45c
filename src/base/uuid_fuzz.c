/* Ids from outside: what is read is written back the same, in lower case. */
#include "base/uuid.h"
#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    uuid id;
    str text = str_of((const char *) data, size);
    if (uuid_parse(text, &id))
        ensure(str_equal_nocase(uuid_str(arena, id), text));
    return 0;
}
