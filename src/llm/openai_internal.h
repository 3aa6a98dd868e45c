/*
 * The halves of the openai provider: requests (openai.c), streams (openai_stream.c), embeddings (openai_embed.c).
 */
#ifndef NEXUS_LLM_OPENAI_INTERNAL_H
#define NEXUS_LLM_OPENAI_INTERNAL_H

#include "llm/openai_format.h"
#include "llm/provider_http.h"
#include "llm/provider_stream.h"

struct openai {
    struct provider base;
    struct provider_http http;
    enum openai_limit limit;
};
struct openai *openai_of(struct provider *provider);

/* Reads a streamed answer's events. */
extern const struct provider_stream_reader openai_stream_reader;

/* openai_embed.c: POST /embeddings. */
may_suspend bool openai_embed(struct provider *provider, struct context *ctx,
                              const struct provider_call *how, const struct embed_request *request,
                              struct embed_reply *reply, struct error *e);

#endif
