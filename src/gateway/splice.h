/*
 * Splice: changes a few top-level members of a chat request and leaves every other byte as it came.
 *
 * The body has been parsed before (well-formed, no key twice): the splice only has to find where members begin and end.  What
 * comes out parses equal to what went in except for the members it was told to change.  One allocation.  Pure.
 */
#ifndef NEXUS_GATEWAY_SPLICE_H
#define NEXUS_GATEWAY_SPLICE_H

#include "base/error.h"

struct splice_edits {
    str model; /* replaces "model" */
    int64_t
        max_output_tokens; /* > 0: max_tokens and max_completion_tokens are at most this; one is added when there is none */
    bool prefers_completion; /* the one that is added is max_completion_tokens */
    bool include_usage;      /* stream_options.include_usage becomes true */
};

must_check bool splice_request(struct arena *arena, str body, const struct splice_edits *edits,
                               str *out, struct error *e);

#endif
