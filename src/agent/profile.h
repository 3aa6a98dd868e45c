/*
 * Profile: where the guests of a tool spend their time, as a tree of calls.
 *
 * Samples are stacks with a weight in milliseconds.  The tree is bounded in functions and nodes: a stack that does not fit any more
 * counts where it left the tree, and is_full says so.  Between executors a profile travels folded, one stack a line, the form that
 * flame graph tools read:
 *     nexus_run;tool_run;JS_CallInternal 40
 * Function names are the module author's: printable ASCII and no ';', or they are changed to that.
 * Thread: one at a time.  Suspends: never.
 */
#ifndef NEXUS_AGENT_PROFILE_H
#define NEXUS_AGENT_PROFILE_H

#include "base/attributes.h"
#include "base/strbuf.h"

struct profile;

struct profile *profile_create(size_t functions_max, size_t nodes_max);
void profile_destroy(struct profile *profile); /* NULL is fine */
OWNED_DEFINE(profile)

/* One stack, its outermost function first. */
void profile_add(struct profile *profile, const str *functions, size_t count, uint64_t weight_ms);
/* All stacks of a folded profile; lines that are none are left out.  False when there was such a line. */
bool profile_add_folded(struct profile *profile, str folded);

uint64_t profile_total_ms(const struct profile *profile);
bool profile_is_full(const struct profile *profile);
void profile_write_folded(const struct profile *profile, struct strbuf *out);
/* For people: the functions by their own time, then the tree, both in percent; what is below half a percent is left out. */
void profile_write_text(const struct profile *profile, struct strbuf *out);

#endif
