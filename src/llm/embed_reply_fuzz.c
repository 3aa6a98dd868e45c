/* An embedding server's answer: whatever it says, either it is refused or every vector is there, finite and of one length. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/embed_format.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(16u << 20);
    struct error e = {0};
    struct embed_reply reply;
    const struct json *body;
    const str texts[3] = {S("a"), S("b"), S("c")};
    if (size == 0 || !json_parse(arena, str_of((const char *) data + 1, size - 1),
                                 (struct json_limits){.allow_duplicates = true}, &body, &e))
        return 0;
    struct embed_request request = {
        .texts = texts, .text_count = 1 + data[0] % 3, .dimensions = data[0] >> 6};
    if (!embed_read_reply(arena, body, &request, &reply, &e))
        return 0;
    ensure(reply.dimension > 0 && reply.dimension <= EMBED_DIMENSION_MAX);
    for (size_t i = 0; i < request.text_count; i++)
        for (size_t k = 0; k < reply.dimension; k++)
            ensure(isfinite(reply.vectors[i][k]));
    return 0;
}
