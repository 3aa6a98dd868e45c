/*
 * Spare: how many pieces a pool keeps for whoever asks next, and how many of them nobody needed lately.
 *
 *      take, give ... take, give ... rest: half of what lay there all the time leaves the pool
 *
 * So a pool that a burst made large is small again after some rests, and one that is in use keeps what it uses: nothing is given back that
 * was taken since the last rest.  The pool itself holds the pieces; this only counts.
 * Thread: the pool's.
 */
#ifndef NEXUS_BASE_SPARE_H
#define NEXUS_BASE_SPARE_H

#include <stddef.h>

struct spare {
    size_t count; /* pieces in the pool */
    size_t least; /* the fewest there were since the last rest */
};

static inline void spare_took(struct spare *spare) /* one left the pool */
{
    if (--spare->count < spare->least)
        spare->least = spare->count;
}

static inline void spare_gave(struct spare *spare) /* one came back */
{
    spare->count++;
}

/* How many the caller takes out of the pool and frees now; they are not counted any more. */
static inline size_t spare_rest(struct spare *spare)
{
    size_t unneeded = spare->least - spare->least / 2;
    spare->count -= unneeded;
    spare->least = spare->count;
    return unneeded;
}

#endif
