/*
 * Events of an outside stream (a list of their data): what is read can be written as a stream again, which reads to the same words; a
 * glance at each says no more than the reader.  The first document is looked at as a whole answer too.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/responses_format_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct dialect_answer answer = {.id = {"resp_1", 6}, .model = {"m", 1}};

static void try_whole(struct arena *arena, const struct json *document)
{
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    const struct json *again;
    struct reply *reply = ARENA_NEW(arena, struct reply);
    if (!responses_read_reply(arena, document, reply, &e))
        return;
    strbuf_init(&text, arena, 64u << 20);
    json_writer_init(&w, &text);
    responses_write_reply(&w, &answer, reply);
    struct json_limits limits = {.bytes_max = 64u << 20, .allow_duplicates = true};
    ensure(json_parse(arena, strbuf_str(&text), limits, &again, &e));
    struct reply *back = ARENA_NEW(arena, struct reply);
    ensure(responses_read_reply(arena, again, back, &e));
    ensure(back->finish == FINISH_LENGTH || back->finish == FINISH_CONTENT_FILTER ||
           back->finish == FINISH_STOP || back->finish == FINISH_TOOL_CALLS);
}

static void look(struct glance_state *glance, struct arena *arena, const struct json *event)
{
    struct dialect_text texts[8];
    enum glance_kind kind;
    struct error e = {0};
    (void) responses_texts(DOCUMENT_EVENT, event, texts, ARRAY_COUNT(texts));
    if (!responses_glance(glance, arena, STR_NONE, json_print(arena, event), &kind, &e))
        ensure(kind == GLANCE_ERROR && e.reason != REASON_NONE);
    ensure(glance_output_estimate(glance) >= 0);
}

static void write_deltas(void *writer, const struct delta *deltas, size_t count, struct strbuf *out)
{
    for (size_t i = 0; i < count; i++) {
        ensure(deltas[i].index >= 0 && deltas[i].index < PROVIDER_TOOL_CALLS_MAX);
        responses_writer_delta(writer, &deltas[i], out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree, *event;
    struct error e = {0};
    struct strbuf out;
    if (!json_parse(arena, str_of((const char *) data, size),
                    (struct json_limits){.allow_duplicates = true}, &tree, &e))
        return 0;
    try_whole(arena, json_at(tree, 0) ? json_at(tree, 0) : tree);
    void *writer = arena_alloc(arena, RESPONSES_WRITER_BYTES);
    struct responses_stream_state *state = ARENA_NEW(arena, struct responses_stream_state);
    struct glance_state glance = {0};
    struct delta *deltas = ARENA_ARRAY(arena, struct delta, RESPONSES_EVENT_DELTAS_MAX);
    strbuf_init(&out, arena, 64u << 20);
    responses_writer_open(writer, &answer);
    struct json_iter it = json_iter(tree);
    while (json_next(&it, NULL, &event)) {
        size_t count = 0;
        look(&glance, arena, event);
        bool ok = responses_read_event(arena, event, state, deltas, RESPONSES_EVENT_DELTAS_MAX,
                                       &count, &e);
        if (!ok)
            break;
        write_deltas(writer, deltas, count, &out);
    }
    if (e.code != ERROR_OK)
        responses_writer_error(writer, &e, &out);
    struct delta end = responses_end_delta(state);
    responses_writer_delta(writer, &end, &out);
    responses_writer_close(writer);
    ensure(str_ends_with(strbuf_str(&out), S("\n\n")));
    return 0;
}
