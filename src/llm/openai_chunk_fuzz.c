/* An outside chunk of the OpenAI dialect: what is accepted can be written again as JSON. */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/openai_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree, *again;
    struct error e = {0};
    struct strbuf text;
    struct json_writer w;
    openai_error_from_status(size > 0 ? 200 + data[0] * 2 : 500, str_of((const char *) data, size),
                             0, arena, &e);
    ensure(str_is_utf8(str_from_cstr(e.message)));
    if (!json_parse(arena, str_of((const char *) data, size), (struct json_limits){0}, &tree, &e))
        return 0;
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    struct openai_stream_state state = {0};
    struct delta deltas[OPENAI_CHUNK_DELTAS_MAX];
    struct openai_answer answer = {.id = S("i"), .model = S("m")};
    const struct json *item;
    size_t count;
    json_array_begin(&w);
    struct json_iter it = json_iter(tree); /* a list of chunks: the state spans them */
    while (json_next(&it, NULL, &item)) {
        if (!openai_read_chunk(arena, item, &state, deltas, ARRAY_COUNT(deltas), &count, &e))
            break;
        for (size_t i = 0; i < count; i++) {
            ensure(deltas[i].index >= 0 && deltas[i].index < PROVIDER_TOOL_CALLS_MAX);
            openai_write_chunk(&w, &answer, &deltas[i], NULL, i == 0);
        }
    }
    json_array_end(&w);
    struct json_limits limits = {.bytes_max = 64u << 20, .allow_duplicates = true};
    ensure(json_parse(arena, strbuf_str(&text), limits, &again, &e));
    return 0;
}
