/*
 * The answer of one model call as it grows: deltas -> parts -> the message's row -> parts again.
 *
 *      thought, text, calls in the order they came; several thoughts are one part each, with what their provider must get back
 *      (signatures, redacted thinking) byte for byte
 *
 * The rule of llm/prompt.h: pieces of one kind in a row form one part; an opaque object ends its part, and one that is a whole block
 * ({"type": ...) is a part of its own.
 *
 * MESSAGES.parts of an answer: {"tool_calls": [{"tool_call_id", "call_id", "name", "arguments"}], "reasoning"?, "order"?}.
 *   reasoning  all thoughts, joined
 *   order      [{"type": "reasoning", "text", "opaque"?} | {"type": "text", "bytes", "opaque"?} | {"type": "tool_call"}], the texts being
 *              slices of MESSAGES.content and the calls those of tool_calls, in turn.  Left out where it tells nothing: one thought
 *              without an opaque, then text, then calls.
 * Thread: the run's loop.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_ANSWER_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_ANSWER_INTERNAL_H

#include "base/limits.h"
#include "base/uuid.h"
#include "llm/prompt.h"

struct run_answer_part {
    struct part part;
    struct strbuf text; /* its text, or its call's arguments */
};
struct run_answer {
    struct arena *arena;
    struct run_answer_part *parts;
    size_t part_count, part_capacity;
    size_t calls[RUN_TOOL_CALLS_PARALLEL_MAX]; /* their places among the parts */
    size_t call_count;
    size_t text_bytes, thought_bytes, argument_bytes; /* each at most MESSAGE_BYTES_MAX */
    bool is_closed;                                   /* the last part takes no more */
};

void run_answer_init(struct run_answer *answer, struct arena *arena);
/* Any delta but END.  PROVIDER_PROTOCOL for calls out of order or too many parts; TOO_LARGE. */
must_check bool run_answer_add(struct run_answer *answer, const struct delta *delta,
                               struct error *e);
/* Call `index`, with its arguments ("{}" for none). */
struct part run_answer_call(const struct run_answer *answer, size_t index);
/* All text, joined: MESSAGES.content.  On the answer's arena only when there are several. */
str run_answer_text(const struct run_answer *answer);
/* What joins the conversation, on `arena`. */
struct prompt_message run_answer_message(const struct run_answer *answer, struct arena *arena);
/* MESSAGES.parts, on the answer's arena; empty when the text says it all.  `ids`: of the calls.  TOO_LARGE. */
must_check bool run_answer_write(const struct run_answer *answer, const uuid *ids, str *out,
                                 struct error *e);
/* The message of a row, on `arena`.  Rows without an order are read as thought, text, calls. */
struct prompt_message run_answer_read(struct arena *arena, str content, const struct json *parts);

#endif
