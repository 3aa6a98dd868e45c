/*
 * Guard: the content filter around one model call.
 *
 *      caller --request--> guard_prompt | guard_json ---------------------> provider
 *      caller <--reply---- guard_stream | guard_reply | guard_json | guard_event <--
 *
 * Texts are what people, models and tools wrote: message parts, tool results, reasoning, tool arguments.  Each is filtered as a text
 * of its own (filter/filter.h); of a streamed answer each channel (content, reasoning, each call's arguments) is one text, which ends
 * where another kind of part begins.  Arguments are filtered string by string inside their JSON, escapes undone and made again, so
 * that a mask leaves valid JSON; a number that is masked becomes a string.
 * Masks rewrite, flags only tell, a block is CONTENT_BLOCKED naming rule and group, never bytes; of an answer in progress what came
 * before it has gone out.  Log probabilities repeat the answer token by token, so a filtered answer has none ("logprobs": null).
 * Everything found is counted (METRIC_FILTER_FINDINGS) and told to the caller's sink, which journals or audits it.
 *
 * Rules are immutable and belong to the settings snapshot.  NULL rules (or a direction without a set) let everything pass.
 * Thread: rules any; a stream, a guard_events: one.  Suspends: only the stream, in the stream it wraps.
 */
#ifndef NEXUS_LLM_GUARD_H
#define NEXUS_LLM_GUARD_H

#include "filter/filter.h"
#include "llm/dialect.h"
#include "observe/metrics.h"

enum guard_direction { GUARD_REQUEST, GUARD_REPLY, GUARD_DIRECTION_COUNT };

struct guard_rules {
    str name; /* of the configuration */
    const struct filter_set
        *sets[GUARD_DIRECTION_COUNT]; /* borrowed; NULL: that way is not filtered */
    struct metrics *metrics;          /* may be NULL */
};
static inline bool guard_is_on(const struct guard_rules *rules, enum guard_direction direction)
{
    return rules && rules->sets[direction];
}

/* Who wants to know what was found; may be NULL.  `finding` lives as long as the rules. */
struct guard_sink {
    void (*found)(void *owner, enum guard_direction direction,
                  const struct filter_finding *finding);
    void *owner;
};

/* ---- whole texts ---- */

/* Rewrites the texts of a prompt in place (its parts; new text is on the arena). */
must_check bool guard_prompt(struct arena *arena, const struct guard_rules *rules,
                             const struct guard_sink *sink, struct prompt *prompt, struct error *e);
/* The same for one message (a user's, a tool's result) before it is stored. */
must_check bool guard_part(struct arena *arena, const struct guard_rules *rules,
                           const struct guard_sink *sink, enum guard_direction direction,
                           struct part *part, struct error *e);
must_check bool guard_text(struct arena *arena, const struct guard_rules *rules,
                           const struct guard_sink *sink, enum guard_direction direction, str text,
                           str *out, struct error *e);
/* JSON: arguments, a tool's output. */
must_check bool guard_json_text(struct arena *arena, const struct guard_rules *rules,
                                const struct guard_sink *sink, enum guard_direction direction,
                                str json, str *out, struct error *e);
must_check bool guard_reply(struct arena *arena, const struct guard_rules *rules,
                            const struct guard_sink *sink, struct reply *reply, struct error *e);
/*
 * A document as it came, with only its texts replaced: members stay in order, unknown ones too; of two
 * with the same key the first stays.  *changed tells whether there is
 * anything new; then *out is the printed document, else it is untouched.  `texts` are what dialect.texts gave for the tree (all of
 * them).
 */
must_check bool guard_json(struct arena *arena, const struct guard_rules *rules,
                           const struct guard_sink *sink, enum guard_direction direction,
                           const struct json *tree, const struct dialect_text *texts, size_t count,
                           str *out, bool *changed, struct error *e);

/* ---- deltas ---- */

/* Takes `give_inner`.  Without rules for replies it gives that one back.  Copies the sink. */
struct reply_stream *guard_stream_create(struct reply_stream *give_inner,
                                         const struct guard_rules *rules,
                                         const struct guard_sink *sink);

/* ---- streamed events of a dialect, passed through ---- */

struct guard_events;
/* Only where guard_is_on(rules, GUARD_REPLY).  Copies the sink. */
struct guard_events *guard_events_create(const struct guard_rules *rules,
                                         const struct guard_sink *sink);
void guard_events_destroy(struct guard_events *events); /* NULL is fine */
OWNED_DEFINE(guard_events)
/* Gets each event that is to go out, as JSON. */
typedef void guard_emit(void *owner, str json);
/*
 * One event: what may go out now is emitted, in order.  First, when this event ends texts (a finish reason, content_block_stop, a done
 * event), the rest of those: for each the last event of its channel again, with the rest as its text.  Then the event itself, with
 * the text that is safe; left out when it says nothing but its text and none of that is safe yet.
 * False: CONTENT_BLOCKED (what came before the match was emitted), or TOO_LARGE past GUARD_CHANNELS_MAX texts.
 */
must_check bool guard_event(struct guard_events *events, struct arena *scratch,
                            const struct json *event, const struct dialect_text *texts,
                            size_t count, guard_emit *emit, void *owner, struct error *e);
/* The stream is over (before [DONE], or at its end): the rest of all texts, as above. */
must_check bool guard_events_end(struct guard_events *events, struct arena *scratch,
                                 guard_emit *emit, void *owner, struct error *e);

#endif
