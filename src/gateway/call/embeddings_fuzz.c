/* A body of POST /v1/embeddings: refused, or within its bounds. */
#include "gateway/call/embeddings.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(16u << 20);
    struct error e = {0};
    struct embeddings_request request;
    const struct json *body;
    if (!json_parse(arena, str_of((const char *) data, size), (struct json_limits){0}, &body, &e) ||
        !embeddings_read(arena, body, &request, &e))
        return 0;
    ensure(request.embed.text_count > 0 && request.embed.text_count <= EMBED_INPUTS_MAX);
    ensure(request.tokens_bound > 0);
    for (size_t i = 0; i < request.embed.text_count; i++)
        ensure(request.embed.texts[i].len > 0);
    return 0;
}
