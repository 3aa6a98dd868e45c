/* An outside request of the Anthropic dialect: what is accepted can be written again as JSON, in this dialect and in Chat's. */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format.h"
#include "llm/openai_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_json(struct arena *arena, const struct strbuf *text)
{
    const struct json *again;
    struct error e = {0};
    struct json_limits limits = {.bytes_max = 64u << 20, .allow_duplicates = true};
    ensure(json_parse(arena, strbuf_str(text), limits, &again, &e));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree;
    struct error e = {0};
    struct strbuf text;
    struct json_writer w;
    struct prompt prompt;
    struct dialect_request request;
    struct dialect_text texts[16];
    bool is_stream;
    struct json_limits limits = {.depth_max = 32}; /* as the gateway reads bodies */
    if (!json_parse(arena, str_of((const char *) data, size), limits, &tree, &e))
        return 0;
    if (anthropic_messages_dialect.read(arena, tree, &request, &e))
        ensure(request.input_tokens_bound > 0);
    anthropic_messages_dialect.texts(DOCUMENT_REQUEST, tree, texts, ARRAY_COUNT(texts));
    if (!anthropic_read_request(arena, tree, &prompt, &is_stream, &e))
        return 0;
    if (prompt.max_output_tokens == 0)
        prompt.max_output_tokens = 1;
    ensure(prompt_input_tokens_bound(&prompt) > 0);
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    anthropic_write_request(&w, &prompt, is_stream);
    check_json(arena, &text);
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    openai_write_request(&w, &prompt, is_stream);
    check_json(arena, &text);
    return 0;
}
