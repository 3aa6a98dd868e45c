/*
 * The two halves of the openai provider: requests (openai.c) and streams (openai_stream.c).
 */
#ifndef NEXUS_LLM_OPENAI_INTERNAL_H
#define NEXUS_LLM_OPENAI_INTERNAL_H

#include "llm/openai_format.h"
#include "llm/provider.h"
#include "net/http_client.h"

/* Reads the answer's events; takes the exchange.  The provider outlives the stream. */
struct reply_stream *openai_stream_create(const struct provider *provider,
                                          struct http_exchange *give_exchange);
/* {"data": [{"id": ...}]} -> names */
must_check bool openai_read_models(struct arena *arena, const struct json *body, str **names,
                                   size_t *count, struct error *e);

#endif
