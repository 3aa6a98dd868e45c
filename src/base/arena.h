/*
 * Arena: memory with the lifetime of a request (or of a run's turn).
 *
 * Allocation bumps a pointer; nothing is freed by hand; everything dies with the arena or at a rewind.
 * Allocation never returns NULL: out of memory ends the process.  What comes from outside is bounded BEFORE it is
 * allocated; loops that read from outside ask arena_is_over() each turn and answer ERROR_LIMIT.
 * The first chunk is 4 KiB, then doubling up to 64 KiB; larger single allocations get a chunk of their own.
 * Memory is zeroed.  Alignment is 16.
 * Thread: one at a time (whoever owns the request).  Suspends: never.
 */
#ifndef NEXUS_BASE_ARENA_H
#define NEXUS_BASE_ARENA_H

#include "base/attributes.h"

struct arena;

/* A position to go back to.  Valid until an older mark is rewound or the arena is destroyed. */
typedef struct {
    void *chunk;
    size_t used;
} arena_mark;

struct arena *arena_create(
    size_t limit_bytes);                 /* limit: see arena_is_over; 0 means ARENA_BYTES_DEFAULT */
void arena_destroy(struct arena *arena); /* NULL is fine */
OWNED_DEFINE(arena)
/* Of the first chunks that this thread keeps for its next arenas, half of those that none of them needed since the last call go back to
 * the heap.  Loops and the threads of the store call it now and then. */
void arena_rest(void);

void *arena_alloc(struct arena *arena, size_t size); /* zeroed */
void *arena_alloc_array(struct arena *arena, size_t count,
                        size_t element_bytes); /* zeroed; overflow-checked */
/* Grows in place when `old` was the last allocation, else copies. `old` may be NULL. */
void *arena_grow(struct arena *arena, void *old, size_t old_bytes, size_t new_bytes);
/* Not zeroed: for buffers that are written before they are read. */
void *arena_alloc_raw(struct arena *arena, size_t size);
/* Makes an allocation larger or smaller; what is new is not zeroed.  `old` is dead afterwards (its memory may be given
 * back), unlike with arena_grow.  Cheap for the newest allocation. */
void *arena_resize_raw(struct arena *arena, void *old, size_t old_bytes, size_t new_bytes);
#define ARENA_NEW(arena, type) ((type *) arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *) arena_alloc_array((arena), (count), sizeof(type)))

arena_mark arena_save(const struct arena *arena);
void arena_rewind(struct arena *arena, arena_mark mark);
void arena_reset(struct arena *arena); /* back to empty, keeps the first chunk */

size_t arena_bytes(
    const struct arena *arena); /* handed out since creation or reset, rewinds subtracted */
size_t arena_bytes_left(const struct arena *arena); /* until the limit; 0 when over */
bool arena_is_over(const struct arena *arena);      /* more than the limit was handed out */

#endif
