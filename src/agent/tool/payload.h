/*
 * Payload: what hides in a tool's output and is meant for a model or a terminal, not for a reader.
 *
 * Hidden characters (zero width, bidirectional, tags), terminal escapes, scripts and data: addresses.  Hidden characters and escapes are
 * made visible ("[U+E0041]", "[U+001B]"): what was meant to be unseen is seen by the model, the person and the log alike.  Scripts and
 * addresses are only counted: they are text to a model, and whoever shows an answer gets it defused (orchestrator/policy/answer_links.h).
 * Joiners within words (U+200C, U+200D) are how some scripts and emoji are written: they stay.
 *
 * Works on JSON text as it stands; what comes out is JSON again.  Pure.  Thread: any.  Suspends: never.
 */
#ifndef NEXUS_AGENT_PAYLOAD_H
#define NEXUS_AGENT_PAYLOAD_H

#include "base/json.h"

struct payload_findings {
    int64_t hidden, escapes, scripts, data_urls;
};
static inline bool payload_is_found(const struct payload_findings *found)
{
    return found->hidden + found->escapes + found->scripts + found->data_urls > 0;
}
/* Looks at all of `json`; gives it back, or a copy on the arena in which what hides is visible. */
str payload_reveal(struct arena *arena, str json, struct payload_findings *found);
void payload_write_json(struct json_writer *w, const struct payload_findings *found);

#endif
