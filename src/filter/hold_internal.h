/*
 * Hold: which end of a text may be the beginning of a match, so that it has to wait.
 *
 * The beginnings of all matches of all patterns are a regular language.  Read backwards from the text's end, an automaton of it
 * tells at each byte whether what lies between here and the end is such a beginning; it dies soon (in prose: at the first space),
 * and the leftmost place where it said yes is where holding starts.  It needs no state between two calls.
 *
 * Repetitions are taken without their counts and lookaround as true: it then holds a little more than it must, never less, and has
 * some thousand states instead of millions.  Immutable once made; any thread.
 */
#ifndef NEXUS_FILTER_HOLD_INTERNAL_H
#define NEXUS_FILTER_HOLD_INTERNAL_H

#include "filter/pattern_internal.h"

struct hold {
    uint16_t *next;        /* [state * class_count + class]; 0: dead */
    uint8_t *is_beginning; /* by state */
    uint8_t class_of[256];
    size_t class_count, state_count;
};
/* False when that takes more than FILTER_HOLD_STATES_MAX states; then *out is empty. */
must_check bool hold_create(struct arena *arena, const struct node *const *patterns, size_t count,
                            struct hold *out);

enum { HOLD_DEAD = 0, HOLD_FIRST = 1 };
/* The leftmost place in from..to whose bytes up to `to` may begin a match; `to` when there is none. */
static inline size_t hold_start(const struct hold *hold, const unsigned char *text, size_t from,
                                size_t to)
{
    size_t best = to;
    unsigned state = HOLD_FIRST;
    for (size_t i = to; i > from;) {
        i--;
        state = hold->next[state * hold->class_count + hold->class_of[text[i]]];
        if (state == HOLD_DEAD)
            break;
        if (hold->is_beginning[state])
            best = i;
    }
    return best;
}

#endif
