/* An outside reply of the Anthropic dialect: what is accepted can be written again as JSON, in this dialect and in Chat's. */
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
    struct reply reply;
    struct json_limits limits = {.depth_max = 32};
    anthropic_error_from_status(size > 0 ? 200 + data[0] * 2 : 500,
                                str_of((const char *) data, size), 0, arena, &e);
    ensure(str_is_utf8(str_from_cstr(e.message)));
    if (!json_parse(arena, str_of((const char *) data, size), limits, &tree, &e) ||
        !anthropic_read_reply(arena, tree, &reply, &e))
        return 0;
    struct dialect_answer answer = {.id = S("i"), .model = S("m")};
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    anthropic_write_reply(&w, &answer, &reply);
    check_json(arena, &text);
    struct openai_answer chat = {.id = S("i"), .model = S("m")};
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    openai_write_reply(&w, &chat, &reply);
    check_json(arena, &text);
    return 0;
}
