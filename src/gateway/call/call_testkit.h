/*
 * Testkit of model calls: a gateway in front of scripted upstreams that see and send exact bytes and fail in every way.
 *
 * The catalog has a model "x" for each script "up-x" (call_testkit.c), and "x-then-whole", "x-then-stream", whose second target answers
 * well.  Two providers speak Chat Completions, one Messages.
 */
#ifndef NEXUS_GATEWAY_CALL_TESTKIT_H
#define NEXUS_GATEWAY_CALL_TESTKIT_H

#include "gateway/gateway_testkit.h"
#include "llm/guard.h"

#define CHAT S("/v1/chat/completions")
#define MESSAGES S("/v1/messages")
#define RESPONSES S("/v1/responses")

#define STREAM_HEAD                                                                                \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define CHUNK_ONE                                                                                  \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"x_new\":{\"a\":1},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}" \
    ",\"finish_reason\":null}],\"usage\":null}\n\n"
#define CHUNK_TWO                                                                                  \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":"   \
    "\"stop\"}],\"usage\":null}\n\n"
#define CHUNK_USAGE                                                                                \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,"        \
    "\"total_tokens\":9}}\n\n"
#define WHOLE                                                                                      \
    "{\"id\":\"c1\",\"object\":\"chat.completion\",\"x_new\":[1.50],\"choices\":[{\"index\":0,"    \
    "\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},"                                     \
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_" \
    "tokens\":8}}"
#define CHUNK_ROLE                                                                                 \
    "data: "                                                                                       \
    "{\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}" \
    ","                                                                                            \
    "\"finish_reason\":null}]}\n\n"
#define GOOD CHUNK_ONE CHUNK_TWO "data: [DONE]\n\n"
#define MESSAGE_START                                                                              \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\","       \
    "\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"m\",\"usage\":{"       \
    "\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n"     \
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"             \
    "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
#define MESSAGE_REST                                                                               \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"  \
    "\"type\":\"text_delta\",\"text\":\"Hi\"},\"x_new\":1.50}\n\nevent: "                          \
    "content_block_stop\ndata: {"                                                                  \
    "\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":"       \
    "\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}"  \
    "\n\n"                                                                                         \
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

extern char seen[1 << 16], seen_head[1 << 12]; /* of the newest request: its body, its head */
extern _Atomic bool saw_disconnect;
extern _Atomic int request_count;
extern struct guard_rules masking,
    blocking; /* of models "masked*" and "blocked*"; sets: NULL until a test gives some */

typedef void call_scenario(struct context *ctx, struct gateway_testkit *kit);
void call_testkit_run(call_scenario *body);
void call_testkit_run_with(call_scenario *body, struct gateway_options options);

/* {"model": ..., "messages": ...} and `more` (",\"stream\":true") */
str body_of(struct context *ctx, const char *model, const char *more);
struct answer chat(struct context *ctx, struct gateway_testkit *kit, const char *model,
                   const char *more);
/* By alice so far; fails when anything is still reserved. */
int64_t spent_tokens(struct context *ctx, struct gateway_testkit *kit);
void expect(str text, const char *needle);
/* A stream to its end.  *is_clean: it ended as HTTP says, not by a cut. */
str stream_all(struct context *ctx, struct gateway_testkit *kit, str path, str body,
               bool *is_clean);

#endif
