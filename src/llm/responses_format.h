/*
 * OpenAI Responses, both directions, as pure text transformations (no I/O).  openai_responses_dialect (dialect.h) is made of these; an
 * adapter for an upstream that speaks Responses uses the readers and write_request.
 *
 *      input items  --> messages     reasoning, message and function_call items that stand together form one assistant message
 *      output items <-- parts        a run of REASONING or of TEXT, or one TOOL_CALL, is an item
 *
 * What has no member in a prompt:
 * - part.opaque {"openai_item": {...}} holds an item as it came (a reasoning item with its encrypted_content, an mcp_approval_request).
 *   It goes out again as it is; other dialects show the part's text.
 * - A reasoning part with any other opaque (another provider's signature) is shown as a reasoning item whose encrypted_content is
 *   RESPONSES_OPAQUE_PREFIX and the opaque; read back, it is the same part again.
 * - refusals and image details are as in openai_format.h.
 * - prompt.extra uses the names of Chat Completions: reasoning_effort (reasoning.effort), verbosity (text.verbosity), top_p, service_tier,
 *   prompt_cache_key, safety_identifier.  metadata, include, truncation, store and reasoning.summary say nothing to a model: they are
 *   only echoed.  prompt.response_format has Chat's form.
 * - Hosted tools, their items, files and stored prompts exist only where Responses is spoken: to_prompt refuses them (UNSUPPORTED).
 *
 * Source: OpenAI's OpenAPI document (responses).
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_LLM_RESPONSES_FORMAT_H
#define NEXUS_LLM_RESPONSES_FORMAT_H

#include "base/limits.h"
#include "llm/dialect.h"

#define RESPONSES_OPAQUE_PREFIX S("nexus-opaque:")

/* The opaque of a part that is this item; text is what other dialects show. */
str responses_item_opaque(struct arena *arena, str item_json);

/* One event of a streamed answer -> deltas; `state` spans the stream and begins zeroed.  `done` and `completed` events give what was not
   streamed before, so servers that send whole items only are read too. */
struct responses_stream_state {
    int call_count;
    enum finish finish;
    struct usage usage;
    str id, model; /* into the buffers */
    char id_buffer[96], model_buffer[96];
    bool has_ended; /* response.completed or .incomplete was seen */
    struct responses_stream_item {
        int64_t output_index;
        int call;       /* function_call: its number, else -1 */
        bool has_piece; /* something of it was streamed */
    } items[RESPONSES_OUTPUT_ITEMS_MAX];
    int item_count;
};
/* The most deltas an event can give: a whole answer at its end. */
enum { RESPONSES_EVENT_DELTAS_MAX = 2 * RESPONSES_OUTPUT_ITEMS_MAX + 2 };
must_check bool responses_read_event(struct arena *arena, const struct json *event,
                                     struct responses_stream_state *state, struct delta *out,
                                     size_t max, size_t *count, struct error *e);
/* finish, usage, id and model of the whole stream. */
struct delta responses_end_delta(const struct responses_stream_state *state);

#endif
