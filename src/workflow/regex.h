/*
 * Regular expressions of the expression language: is there a match anywhere in a text?  RE2's syntax, as CEL's matches() has it.
 *
 *      regex_compile(arena, "^[a-z]+-[0-9]{4}$")  -->  program  -->  regex_matches(program, text)
 *
 * The text is read once, character by character, with the set of all states that the program can be in: never a step back, so the
 * work is at most (characters of the text) x (instructions of the program) whatever both are.  Each is counted down from `steps`.
 *
 * There are: literals, ".", sets with ranges, \d \w \s \D \W \S, [:alpha:] and the like in sets, ^ $ \A \z \b \B, groups (also named ones,
 * which are not told apart), |, * + ? {n} {n,} {n,m} and their lazy forms, flags (?i) (?s) (?m), also (?i:...), \t \n \r \f \v \a
 * \xHH \x{HHHH}.  (?i) is about A-Z.  There are not, and the error says so: back references and lookaround (nothing linear has
 * them), \p{...}.
 * Bounds (base/limits.h): REGEX_BYTES_MAX of source, REGEX_DEPTH_MAX of groups, REGEX_REPEAT_MAX of a count, REGEX_CODE_MAX instructions.
 * Thread: a program is immutable.  Suspends: never.
 */
#ifndef NEXUS_WORKFLOW_REGEX_H
#define NEXUS_WORKFLOW_REGEX_H

#include "base/error.h"
#include "base/str.h"

struct regex;
/* EXPRESSION: what is wrong with it, and where. */
must_check bool regex_compile(struct arena *arena, str source, struct regex **out, struct error *e);
size_t regex_size(const struct regex *regex); /* instructions */
/* `text` is UTF-8.  LIMIT when *steps do not do; `scratch` gets a few words for each instruction. */
must_check bool regex_matches(const struct regex *regex, str text, struct arena *scratch,
                              size_t *steps, bool *out, struct error *e);

#endif
