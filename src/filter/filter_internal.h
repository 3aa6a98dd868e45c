/*
 * What a filter_set is made of, for its streams.
 */
#ifndef NEXUS_FILTER_FILTER_INTERNAL_H
#define NEXUS_FILTER_FILTER_INTERNAL_H

#include "filter/filter.h"
#include "filter/hold_internal.h"
#include "filter/pattern_internal.h"
#include "filter/validate_internal.h"

#include "base/limits.h"

#include <hs/hs.h>

struct rule {
    str name, group, mask; /* mask: "[EMAIL]" */
    enum filter_action action;
    filter_check *check; /* NULL: the pattern is enough */
    const struct node *pattern;
    struct program program;
    struct byteset before, first; /* what stands before a match, and what it begins with */
};

struct filter_set {
    struct arena *arena;
    uint64_t id; /* of this process, from 1 */
    struct rule *rules;
    size_t rule_count;  /* 0: everything passes, there is no database */
    struct hold *holds; /* each of some rules, all together of all */
    size_t hold_count;
    hs_database_t *database; /* rule index by expression id */
    size_t stream_bytes, database_bytes;
};

enum { FILTER_HIT_WORDS = (FILTER_RULES_MAX + 63) / 64, FILTER_WORK_BEFORE = 1 };

/* What a thread needs while it filters; made at its first use, freed with the thread. */
struct filter_thread {
    hs_scratch_t *scratch;
    uint64_t ready[16]; /* sets whose scratch was made, the newest over the oldest */
    size_t ready_at;
    struct pattern_run run;
    unsigned char work[FILTER_WORK_BEFORE + FILTER_HOLD_BYTES_MAX + FILTER_SLICE_BYTES];
};
struct filter_thread *filter_thread_for(const struct filter_set *set);

#endif
