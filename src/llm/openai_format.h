/*
 * OpenAI Chat Completions, both directions, as pure text transformations (no I/O): used by the
 * openai adapter (prompt -> request,
 * answer -> reply) and by the gateway's dialect (request -> prompt, reply -> answer), so the two
 * cannot drift apart.
 * Reasoning of another API is shown in reasoning_content; its signatures go along in thinking_blocks, a list of that API's
 * blocks, and come back in the member of the same name: {"type": "thinking", "thinking", "signature"} or {"type":
 * "redacted_thinking", "data"}.
 * Source: shared OpenAPI subset of the OpenAI API (chat/completions).
 */
#ifndef NEXUS_LLM_OPENAI_FORMAT_H
#define NEXUS_LLM_OPENAI_FORMAT_H

#include "base/limits.h"
#include "llm/prompt.h"

/* prompt -> request body.  Streams ask for usage (stream_options.include_usage).  The output limit
 * is sent as `max_tokens`, which
   every compatible server knows; OpenAI's own newer models want `max_completion_tokens`
   (openai_write_request_for).
   Reasoning goes back only in the member it came in (part.opaque), and only beside tool calls,
   where servers ask for it. */
void openai_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream);
enum openai_limit { OPENAI_MAX_TOKENS, OPENAI_MAX_COMPLETION_TOKENS };
void openai_write_request_for(struct json_writer *w, const struct prompt *prompt, bool is_stream,
                              enum openai_limit limit);
/* UNSUPPORTED when the prompt holds what Chat Completions cannot say and what cannot be left out: another API's documents and files
 * without text, tools that it runs itself. */
must_check bool openai_check_prompt(struct arena *scratch, const struct prompt *prompt,
                                    struct error *e);
/* request body -> prompt (on the arena); members with no place in prompt go to `extra`.
 * REASON_SCHEMA names the member.
   max_output_tokens stays 0 when the caller did not say; with max_tokens and max_completion_tokens
   the smaller one counts.
   Texts point into `body`. */
must_check bool openai_read_request(struct arena *arena, const struct json *body,
                                    struct prompt *out, bool *is_stream, bool *include_usage,
                                    struct error *e);
/* messages array of a request -> prompt messages; also used to keep history. */
must_check bool openai_read_messages(struct arena *arena, const struct json *messages,
                                     struct prompt_message **out, size_t *count, struct error *e);

/* whole answer -> reply.  The first choice counts.  An error object in place of an answer is an
 * error of its class; anything else
   that is no answer is PROVIDER_PROTOCOL.  A refusal is a TEXT part whose `opaque` is
   "\"refusal\"".
   Tool calls without an id get one; finish is TOOL_CALLS when there are tool calls and the server
   said only "stop". */
must_check bool openai_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                                  struct error *e);
/* reply -> whole answer */
struct openai_answer {
    str id;                 /* "chatcmpl-..." */
    str model;              /* as asked for by the caller */
    int64_t created;        /* Unix seconds */
    str system_fingerprint; /* may be empty */
};
void openai_write_reply(struct json_writer *w, const struct openai_answer *answer,
                        const struct reply *reply);

/*
 * One chunk of a streamed answer -> deltas (a chunk may hold several); `state` spans the stream and
 * begins zeroed.
 * DELTA_END is not made here: the reader of the stream makes it by openai_end_delta when the stream
 * has ended well.
 * Calls are told apart by index; servers that leave out the index, or number all calls 0, by id.
 */
struct openai_stream_state {
    int tool_call_count;
    enum finish finish;
    struct usage usage;
    str id, model; /* into id_buffer, model_buffer */
    char id_buffer[96], model_buffer[96];
    struct openai_stream_call {
        int32_t server_index;
        uint32_t id_hash; /* 0: the server gave no id */
    } calls[PROVIDER_TOOL_CALLS_MAX];
};
/* The most deltas a chunk can give. */
enum { OPENAI_CHUNK_DELTAS_MAX = 3 + 2 * PROVIDER_TOOL_CALLS_MAX };
must_check bool openai_read_chunk(struct arena *arena, const struct json *chunk,
                                  struct openai_stream_state *state, struct delta *out, size_t max,
                                  size_t *count, struct error *e);
/* finish (inferred when the server ended without one), usage, id and model of the whole stream. */
struct delta openai_end_delta(const struct openai_stream_state *state);

/* What a chunk says of the thinking block that its delta ends (whose opaque is an object): all of its text, so that the block
 * alone can go back, and its place among the answer's, by which the official SDKs put lists together. */
struct openai_thinking {
    str text;
    int index;
};
/* delta -> chunk(s) of a streamed answer: appends the JSON of one chat.completion.chunk.  `thinking` may be NULL: the delta's own
 * text, the first block. */
void openai_write_chunk(struct json_writer *w, const struct openai_answer *answer,
                        const struct delta *delta, const struct openai_thinking *thinking,
                        bool is_first);
void openai_write_usage_chunk(struct json_writer *w, const struct openai_answer *answer,
                              const struct usage *usage);

/* {"error": {"message", "type", "param", "code"}} from an error. */
void openai_write_error(struct json_writer *w, const struct error *e);
/* An upstream's error answer -> class.  Returns false.  Quotes the provider's own words, at most
 * PROVIDER_QUOTE_BYTES_MAX of them, with
   everything that looks like a key masked. */
bool openai_error_from_status(int status, str body, int64_t retry_after_ms, struct arena *arena,
                              struct error *e);
/* The same for an error object that came inside a stream or a 200 answer; NULL is fine. */
bool openai_error_from_json(const struct json *error, int status, int64_t retry_after_ms,
                            struct arena *arena, struct error *e);

/* Wait asked for by an answer's headers, 0 when none: `retry-after-ms`, or Retry-After in seconds
 * or as an HTTP date. */
int64_t openai_retry_after_ms(str retry_after_ms, str retry_after, int64_t now_unix_us);

#endif
