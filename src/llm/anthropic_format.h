/*
 * Anthropic Messages, both directions, as pure text transformations (no I/O): used by the anthropic adapter (prompt ->
 * request, answer -> reply) and by anthropic_messages_dialect (request -> prompt, reply -> answer), so the two cannot drift
 * apart.  Source: the Messages API's published types.
 *
 * What has no member in a prompt:
 * - part.opaque and tool_spec.opaque are a JSON object.  With a member "type" it is the whole block (or tool) as it came and goes
 *   out again like that: redacted_thinking, documents, blocks of server tools.  Without, it holds the members of the block that
 *   the part has no place for: {"signature": ...} of thinking, "cache_control", "citations", "caller", and the "content" of a tool
 *   result that holds more than text and images.
 * - An IMAGE part with a call_id stands inside that call's result.
 * - prompt.extra uses the names of Chat Completions: stop (stop_sequences), top_p, reasoning_effort (output_config.effort),
 *   service_tier.  What only this API knows (thinking, top_k, container, tools that the server runs, ...) is extra.anthropic, which
 *   other dialects leave out.
 * - prompt.response_format has Chat's form.
 *
 * Usage: the API's input_tokens leave out what the cache read and wrote; struct usage includes both.
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_LLM_ANTHROPIC_FORMAT_H
#define NEXUS_LLM_ANTHROPIC_FORMAT_H

#include "base/limits.h"
#include "llm/dialect.h"

/* In place of a signature when reasoning comes from another provider: the prefix and that part's opaque.  Read back, it is the
 * same part again. */
#define ANTHROPIC_OPAQUE_PREFIX S("nexus-opaque:")

/* prompt -> request body.  All system messages become `system`; consecutive messages of one role one message; tool results come
 * first in theirs; empty texts and reasoning without a signature of this API are left out. */
void anthropic_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream);
/* UNSUPPORTED when the prompt asks for what this API cannot say and cannot leave out without changing the answer: several
 * choices, log probabilities, audio, logit_bias, hosted search. */
must_check bool anthropic_check_prompt(const struct prompt *prompt, struct error *e);
/* request body -> prompt (on the arena).  REASON_SCHEMA names the member.  Texts point into `body`. */
must_check bool anthropic_read_request(struct arena *arena, const struct json *body,
                                       struct prompt *out, bool *is_stream, struct error *e);

/* whole answer -> reply.  An error object in place of an answer is an error of its class; anything else that is no answer is
 * PROVIDER_PROTOCOL. */
must_check bool anthropic_read_reply(struct arena *arena, const struct json *body,
                                     struct reply *out, struct error *e);
/* reply -> whole answer */
void anthropic_write_reply(struct json_writer *w, const struct dialect_answer *answer,
                           const struct reply *reply);

/*
 * One event of a streamed answer -> deltas; `state` spans the stream and begins zeroed.  DELTA_END is made by
 * anthropic_end_delta when message_stop has come (state.has_ended).
 * Blocks of kinds that a reply has no part for (server tools) are skipped.
 */
enum anthropic_block {
    ANTHROPIC_BLOCK_SKIPPED,
    ANTHROPIC_BLOCK_TEXT,
    ANTHROPIC_BLOCK_THINKING,
    ANTHROPIC_BLOCK_TOOL
};
struct anthropic_stream_state {
    int call_count;
    enum finish finish;
    struct usage usage;
    str id, model; /* into the buffers */
    char id_buffer[96], model_buffer[96];
    bool has_ended; /* message_stop was seen */
    int block_count;
    struct anthropic_stream_block {
        int64_t index;
        enum anthropic_block kind;
        int call;                        /* TOOL: which */
    } blocks[ANTHROPIC_OPEN_BLOCKS_MAX]; /* begun and not stopped */
};
/* The most deltas an event gives. */
enum { ANTHROPIC_EVENT_DELTAS_MAX = 2 };
must_check bool anthropic_read_event(struct arena *arena, const struct json *event,
                                     struct anthropic_stream_state *state, struct delta *out,
                                     size_t max, size_t *count, struct error *e);
struct delta anthropic_end_delta(const struct anthropic_stream_state *state);

/* deltas -> events.  Text and thinking are closed when something else begins; a tool's block when its arguments are complete and
 * something else begins, so that pieces of parallel calls may come mixed.  Zeroed by anthropic_writer_open. */
struct anthropic_writer {
    const struct dialect_answer *answer;
    bool has_begun;
    int next_index;
    int open_index;            /* of the text or thinking block that is open */
    enum anthropic_block open; /* SKIPPED: none */
    int call_count;
    struct anthropic_written_call {
        int32_t index;  /* of the block */
        uint16_t depth; /* of its arguments so far */
        bool is_open, is_begun, is_in_string, is_escaped;
    } calls[PROVIDER_TOOL_CALLS_MAX];
};
void anthropic_writer_open(struct anthropic_writer *writer, const struct dialect_answer *answer);
void anthropic_writer_delta(struct anthropic_writer *writer, const struct delta *delta,
                            struct strbuf *out);

/* {"type": "error", "error": {"type", "message"}, "request_id"} */
void anthropic_write_error(struct json_writer *w, const struct error *e, str request_id);
/* As openai_error_from_status, with this API's words.  Returns false. */
bool anthropic_error_from_status(int status, str body, int64_t retry_after_ms, struct arena *arena,
                                 struct error *e);
/* An error object inside a stream or a 200 answer; NULL is fine.  Returns false. */
bool anthropic_error_from_json(const struct json *error, struct arena *arena, struct error *e);

#endif
