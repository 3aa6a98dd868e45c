/*
 * Regex: regular expressions as JavaScript knows them, by QuickJS's libregexp.
 *
 * The engine works on ASCII bytes or on UTF-16, so other texts are converted once; matches come back as
 * byte ranges of the UTF-8 text.  A search that backtracks too long fails with "limit" instead of
 * using up the call's whole fuel.
 */
#ifndef TEXT_PROCESSING_REGEX_H
#define TEXT_PROCESSING_REGEX_H

#include "nexus_tool.h"

enum { REGEX_GROUPS_MAX = 64 };

struct regex;

struct regex_match {
    struct text whole;
    struct text groups[REGEX_GROUPS_MAX]; /* 1 .. group_count; ptr is NULL when it took no part */
    size_t group_count;
};

/* Flags: any of "i", "m", "s". */
struct regex *regex_compile(struct text pattern, struct text flags, struct tool_error *e);

/* Sets what is searched; the text must live as long as the matches. */
void regex_begin(struct regex *regex, struct text subject);

/* The next match after the last one; *found is false at the end. */
bool regex_next(struct regex *regex, struct regex_match *out, bool *found, struct tool_error *e);

#endif
