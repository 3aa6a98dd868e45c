/*
 * Chat Completions on the way through: what the files chat*.c share.
 *
 *   chat.c        reads the request, tells plain models from agents; the models lists
 *   chat_plain.c  one governed call: begin, targets in turn, end
 *   chat_relay.c  a provider of the same dialect: bytes through, whole and streamed
 *   chat_local.c  any other provider: prompt in, reply out
 *   chat_agent.c  agent:NAME: a run, its deltas, its answer
 */
#ifndef NEXUS_GATEWAY_CHAT_INTERNAL_H
#define NEXUS_GATEWAY_CHAT_INTERNAL_H

#include "gateway/gateway_internal.h"
#include "llm/openai_format.h"

struct http_exchange;

struct chat_request {
    struct arena *arena; /* of the tree: the call's, or a larger one */
    const struct json *json;
    str model;
    bool is_stream, wants_usage;
    int64_t max_output_tokens; /* 0: not said */
    int64_t choices;
    int64_t input_tokens_bound;
    uuid session_id; /* X-Nexus-Session, or UUID_NONE */
};

/* One plain call in work; on the call's arena. */
struct chat_call {
    struct api_call *call;
    const struct chat_request *chat;
    struct plain_call plain;
    struct context ctx; /* the call's, with the total deadline */
    struct usage usage;
    int64_t estimated_output; /* -1: nothing is known: the reservation counts */
    bool was_sent;            /* the provider may have worked for us */
};

/* Each sends the whole answer, or returns false; then nothing was sent unless http_reply_has_begun. */
may_suspend bool chat_forward(struct chat_call *c, struct error *e);
may_suspend bool chat_local(struct chat_call *c, struct error *e);

/* Upper bound of what a request's text can cost in tokens. */
int64_t chat_input_tokens_bound(const struct json *request);
struct openai_answer chat_answer(struct api_call *call, str model);
may_suspend bool chat_stream_begin(struct api_call *call, struct error *e);
may_suspend bool chat_send_data(struct api_call *call, str json, struct error *e);
/* After the reply began: the error as an event, then a cut that no client takes for an end.  Returns false. */
bool chat_stream_fail(struct api_call *call, const struct error *e);

#endif
