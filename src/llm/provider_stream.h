/*
 * A streamed answer over server-sent events, whatever the dialect: pulls the body, cuts it into events, hands each to the
 * dialect's reader and gives out the deltas that it made.
 *
 *      READING --the reader says done, or the body's end behind a finish--> ENDED   (END was given)
 *         |----cut, error object, nonsense-------------------------------> FAILED  (the error was given)
 *
 * Deltas of one event wait here; their texts live on an arena that is reset for each event that makes some.
 */
#ifndef NEXUS_LLM_PROVIDER_STREAM_H
#define NEXUS_LLM_PROVIDER_STREAM_H

#include "llm/openai_format.h"
#include "llm/provider.h"
#include "net/http_client.h"
#include "net/sse.h"

/* The most deltas that one event gives. */
enum { PROVIDER_STREAM_DELTAS_MAX = OPENAI_CHUNK_DELTAS_MAX };

struct provider_stream_reader {
    size_t state_bytes; /* begins zeroed, spans the stream */
    /* One event -> deltas; *is_done when it is the last one.  The arena is empty at the call. */
    bool (*read_event)(void *state, struct arena *arena, const struct sse_event *event,
                       struct delta *out, size_t max, size_t *count, bool *is_done,
                       struct error *e);
    /* The body ended without a last event: was that a good end all the same? */
    bool (*may_end)(const void *state);
    struct delta (*end)(const void *state); /* DELTA_END of the whole stream */
};

/* Takes the exchange.  The provider and the reader outlive the stream. */
struct reply_stream *provider_stream_create(const struct provider *provider,
                                            const struct provider_stream_reader *reader,
                                            struct http_exchange *give_exchange);

#endif
