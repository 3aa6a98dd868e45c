/* Events of a streamed answer of the openai provider -> deltas. */
#include "llm/openai_internal.h"

static bool read_event(void *state, struct arena *arena, const struct sse_event *event,
                       struct delta *out, size_t max, size_t *count, bool *is_done, struct error *e)
{
    const struct json *chunk;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    if (str_equal(str_trim(event->data), S("[DONE]"))) {
        *is_done = true;
        return true;
    }
    if (!json_parse(arena, event->data, limits, &chunk, &parse))
        return error_set(e, REASON_PROVIDER_PROTOCOL, "a chunk of the stream is not JSON: %s",
                         parse.message);
    return openai_read_chunk(arena, chunk, state, out, max, count, e);
}

/* A server that does not say [DONE], or cut it short. */
static bool may_end(const void *state)
{
    const struct openai_stream_state *seen = state;
    return seen->finish != FINISH_NONE;
}

static struct delta end(const void *state)
{
    return openai_end_delta(state);
}

const struct provider_stream_reader openai_stream_reader = {
    .state_bytes = sizeof(struct openai_stream_state),
    .read_event = read_event,
    .may_end = may_end,
    .end = end,
};
