/* An outside request of the Responses dialect: what is accepted can be written again, and read again to as much. */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/responses_format_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write(struct strbuf *text, struct arena *arena, const struct prompt *prompt)
{
    struct json_writer w;
    strbuf_init(text, arena, 64u << 20);
    json_writer_init(&w, text);
    responses_write_request(&w, prompt, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree, *again;
    struct error e = {0};
    struct strbuf first, second;
    struct json_limits limits = {.bytes_max = 64u << 20, .allow_duplicates = true};
    if (!json_parse(arena, str_of((const char *) data, size), (struct json_limits){0}, &tree, &e))
        return 0;
    struct dialect_text texts[8];
    struct dialect_request request;
    (void) responses_texts(DOCUMENT_REQUEST, tree, texts, ARRAY_COUNT(texts));
    bool is_read = responses_read(arena, tree, &request, &e);
    if (is_read)
        ensure(request.input_tokens_bound > 0 && request.choices == 1);
    struct prompt *prompt = ARENA_NEW(arena, struct prompt);
    if (!responses_to_prompt(arena, tree, prompt, &e))
        return 0;
    ensure(prompt->message_count > 0 && prompt_input_tokens_bound(prompt) > 0);
    if (prompt->max_output_tokens == 0)
        prompt->max_output_tokens = 1;
    write(&first, arena, prompt);
    ensure(json_parse(arena, strbuf_str(&first), limits, &again, &e));
    struct prompt *reread = ARENA_NEW(arena, struct prompt);
    if (!responses_to_prompt(arena, again, reread,
                             &e)) /* reasoning without an item is not written */
        return 0;
    reread->max_output_tokens = prompt->max_output_tokens;
    write(&second, arena, reread);
    ensure(json_parse(arena, strbuf_str(&second), limits, &again, &e));
    return 0;
}
