/*
 * Context: what of a conversation a model is given when not all of it fits.  Pure.
 *
 *      instructions | task | ... old messages ...          | question | newest messages
 *      instructions | task | summary of what stood between | question | newest messages
 *
 * The conversation is cut before a message that is no tool's result, so a call and its results stay together, on one side of the cut.
 * The task (the first thing a person said) and the question of the run at hand stay word for word.
 * Sizes are upper bounds (prompt_input_tokens_bound).  Nothing is lost: the rows of MESSAGES stay as they are.
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_CONTEXT_H
#define NEXUS_ORCHESTRATOR_RUN_CONTEXT_H

#include "llm/prompt.h"

struct context_limits {
    int64_t tokens_max; /* of all messages, upper bound; INT64_MAX: not limited */
    size_t messages_max;
};
struct conversation {
    struct prompt_message *messages;
    size_t count;
    size_t first;          /* messages before it are instructions */
    size_t task, question; /* places of these; count: there is none */
};

int64_t context_message_tokens(const struct prompt_message *message);
int64_t context_tokens(const struct prompt_message *messages, size_t count);

/* The place of the first message that stays, of those after `first`; the task and the question stay too.  `first`: all fits, or nothing
   can be cut.  What stays is within `kept`, unless one answer with its results alone is larger. */
size_t context_cut(const struct conversation *conversation, const struct context_limits *limits,
                   const struct context_limits *kept);
bool context_stays(const struct conversation *conversation, size_t cut, size_t place);

/* At most bytes_max: its beginning and its end, with a note between of how much is missing.  On the arena when it was cut. */
str context_shorten(struct arena *arena, str text, size_t bytes_max, str note);

/* What a model is given to summarise: everything that does not stay, each message shortened to its share. */
str context_transcript(struct arena *arena, const struct conversation *conversation, size_t cut,
                       size_t bytes_max);
/* A summary without a model, always the same for the same messages: which tools were called and what became of it, first sentences,
   the newest first when not all fit.  Never empty. */
str context_fallback(struct arena *arena, const struct conversation *conversation, size_t cut,
                     size_t bytes_max);

/* Shortens the longest results of tools, down to CONTEXT_RESULT_BYTES_MIN, until all messages are within tokens_max.  True when they are. */
bool context_shorten_results(struct arena *arena, const struct conversation *conversation,
                             int64_t tokens_max, str note);

#endif
