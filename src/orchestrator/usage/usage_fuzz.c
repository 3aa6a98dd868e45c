/* A chunk out of the store: whatever its bytes are, reading ends with records or an error. */
#include "orchestrator/usage/usage.h"
#include "base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct usage_reader reader;
    struct usage_record record;
    struct error e = {0};
    if (usage_reader_init(&reader, arena, str_of((const char *) data, size), &e))
        while (usage_read(&reader, &record, &e))
            continue;
    return 0;
}
