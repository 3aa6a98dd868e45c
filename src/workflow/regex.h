/*
 * Regular expressions of the expression language: is there a match anywhere in a text?  RE2's syntax, as CEL's matches() has it;
 * the search is that of the `regex` crate (nexus_native.h).
 *
 *      regex_compile("^[a-z]+-[0-9]{4}$", &regex)  -->  regex_matches(&regex, text)
 *
 * A search goes through the text once and never steps back; at worst it looks at each part of the pattern for each byte.  Both functions
 * have their work told beforehand or after, in steps of an expression, the same for the same pattern and text.
 * Bounds (base/limits.h): REGEX_BYTES_MAX of source, REGEX_DEPTH_MAX levels, REGEX_PARTS_MAX parts, REGEX_PROGRAM_BYTES_MAX compiled.
 * Thread: any; a compiled pattern is immutable.  Suspends: never; computes on the thread's own stack.
 */
#ifndef NEXUS_WORKFLOW_REGEX_H
#define NEXUS_WORKFLOW_REGEX_H

#include "base/error.h"
#include "base/str.h"

struct native_pattern;
struct regex {
    struct native_pattern *program; /* NULL: nothing is compiled */
    size_t parts;                   /* characters, sets and places, repetitions written out */
    size_t bytes;                   /* of its automata */
};

/* EXPRESSION: what is wrong with it, and where; then *out is empty. */
must_check bool regex_compile(str source, struct regex *out, struct error *e);
void regex_free(struct regex *regex); /* makes it empty; fine when it is */

size_t regex_compile_steps(const struct regex *regex);         /* what compiling took */
size_t regex_match_steps(const struct regex *regex, str text); /* what searching takes at most */
/* EXPRESSION: `text` is no UTF-8. */
must_check bool regex_matches(const struct regex *regex, str text, bool *out, struct error *e);

#endif
