/*
 * Splice: changes a few top-level members of a request and leaves every other byte as it came.
 *
 * The body has been parsed before (well-formed, no key twice): the splice only has to find where members begin and end.  What
 * comes out parses equal to what went in except for the members it was told to change.  Which members hold the output limit and
 * the stream's options is told by a table of the dialect.  One allocation.  Pure.
 */
#ifndef NEXUS_LLM_SPLICE_H
#define NEXUS_LLM_SPLICE_H

#include "llm/dialect.h"

enum { SPLICE_LIMITS_MAX = 2 };
struct splice_table {
    str limits
        [SPLICE_LIMITS_MAX]; /* members that hold the output limit; the first is added when there is none, the second
                                      with edits.is_new_limit_name; an empty one is none */
    str stream_options; /* object that takes include_usage; empty: the dialect always reports usage */
};

must_check bool splice_request(struct arena *arena, str body, const struct splice_table *table,
                               const struct dialect_edits *edits, str *out, struct error *e);

#endif
