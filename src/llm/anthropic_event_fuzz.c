/* Outside events of the Anthropic dialect, as one list: what they give can be written again as a stream whose events are JSON. */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format.h"
#include "net/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_stream(struct arena *arena, const struct strbuf *out)
{
    struct error e = {0};
    struct sse_event event;
    struct glance_state seen = {0};
    enum glance_kind kind;
    OWNED(sse_parser) parser = sse_parser_create(16u << 20);
    struct json_limits limits = {.allow_duplicates = true};
    const struct json *tree;
    ensure(sse_parser_feed(parser, strbuf_str(out), &e));
    while (sse_parser_next(parser, &event)) {
        ensure(json_parse(arena, event.data, limits, &tree, &e));
        ensure(event.data.len > SSE_EVENT_BYTES_MAX ||
               anthropic_messages_dialect.glance(&seen, arena, event.event, event.data, &kind, &e));
    }
    ensure(seen.has_ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree, *item;
    struct error e = {0};
    struct strbuf out;
    struct anthropic_writer writer;
    struct anthropic_stream_state state = {0};
    struct delta deltas[ANTHROPIC_EVENT_DELTAS_MAX];
    struct dialect_answer answer = {.id = S("i"), .model = S("m")};
    struct glance_state seen = {0};
    enum glance_kind kind;
    size_t count;
    struct json_limits limits = {.depth_max = 32};
    anthropic_messages_dialect.glance(&seen, arena, STR_NONE, str_of((const char *) data, size),
                                      &kind, &e);
    if (!json_parse(arena, str_of((const char *) data, size), limits, &tree, &e))
        return 0;
    strbuf_init(&out, arena, 64u << 20);
    anthropic_writer_open(&writer, &answer);
    struct json_iter it = json_iter(tree);
    while (json_next(&it, NULL, &item)) {
        if (!anthropic_read_event(arena, item, &state, deltas, ARRAY_COUNT(deltas), &count, &e))
            break;
        for (size_t i = 0; i < count; i++) {
            ensure(deltas[i].index >= 0 && deltas[i].index < PROVIDER_TOOL_CALLS_MAX);
            anthropic_writer_delta(&writer, &deltas[i], &out);
        }
    }
    struct delta end = anthropic_end_delta(&state);
    anthropic_writer_delta(&writer, &end, &out);
    check_stream(arena, &out);
    return 0;
}
