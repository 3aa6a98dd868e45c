/*
 * Guard large: whole texts of any size through the content filter, without holding the loop.
 *
 * Up to GUARD_LOOP_BYTES_MAX they are filtered where they are.  More goes to the blocking pool, with an arena of its own: the caller's
 * is touched only before and after, and what was changed is copied to it.  Nothing else is: texts that stay as they are keep their
 * place.
 * Cancelled or late while it waits for the pool: ERROR_CANCELLED, TIMEOUT; a full pool: OVERLOADED_HERE.  Then nothing has changed.
 * Thread: a loop's.  Suspends: when texts are large.
 */
#ifndef NEXUS_LLM_GUARD_LARGE_H
#define NEXUS_LLM_GUARD_LARGE_H

#include "llm/guard.h"
#include "llm/guard_tally.h"

struct guard_caller {
    struct context *ctx;
    struct arena *arena; /* what is new lives here */
    const struct guard_rules *rules;
    struct guard_tally *tally; /* gets what was found; may be NULL */
    enum guard_direction direction;
};

/* As their namesakes of guard.h.  The direction is the caller's. */
may_suspend bool guard_large_prompt(const struct guard_caller *caller, struct prompt *prompt,
                                    struct error *e);
may_suspend bool guard_large_reply(const struct guard_caller *caller, struct reply *reply,
                                   struct error *e);
may_suspend bool guard_large_texts(const struct guard_caller *caller, str *texts, size_t count,
                                   struct error *e);
/* JSON in one text: arguments, a tool's output. */
may_suspend bool guard_large_json_text(const struct guard_caller *caller, str *json,
                                       struct error *e);
may_suspend bool guard_large_json(const struct guard_caller *caller, const struct json *tree,
                                  const struct dialect_text *texts, size_t count, str *out,
                                  bool *changed, struct error *e);

#endif
