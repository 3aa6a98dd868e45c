/* An outside request of the OpenAI dialect: what is accepted can be written again as JSON. */
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
    struct prompt prompt;
    bool is_stream, include_usage;
    if (!openai_read_request(arena, tree, &prompt, &is_stream, &include_usage, &e))
        return 0;
    if (prompt.max_output_tokens == 0)
        prompt.max_output_tokens = 1;
    openai_write_request(&w, &prompt, is_stream);
    ensure(prompt_input_tokens_bound(&prompt) > 0);
    struct json_limits limits = {.bytes_max = 64u << 20, .allow_duplicates = true};
    ensure(json_parse(arena, strbuf_str(&text), limits, &again, &e));
    return 0;
}
