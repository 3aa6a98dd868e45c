/*
 * Timer heap: a binary heap of intrusive timers, nearest deadline first, oldest arming first among
 * equals (so that a simulation repeats).  Position 1 is the top; a timer knows its position, so
 * disarming is O(log n) too.
 * Bounded by its users: a timer is a field of a coroutine's wait or of a connection.
 */
#ifndef NEXUS_RUNTIME_TIMER_HEAP_INTERNAL_H
#define NEXUS_RUNTIME_TIMER_HEAP_INTERNAL_H

#include "runtime/scheduler.h"

struct timer_entry {
    int64_t deadline_ns;
    uint64_t sequence;
    struct timer *timer;
};

struct timer_heap {
    struct timer_entry *entries; /* [0] is unused */
    size_t count, capacity;
    uint64_t next_sequence;
};

void timer_heap_init(struct timer_heap *heap);
void timer_heap_deinit(struct timer_heap *heap); /* must be empty */
void timer_heap_add(struct timer_heap *heap, struct timer *timer,
                    int64_t deadline_ns);                             /* not armed before */
void timer_heap_remove(struct timer_heap *heap, struct timer *timer); /* armed before */
int64_t timer_heap_next_ns(const struct timer_heap *heap);            /* INT64_MAX when empty */
struct timer *timer_heap_pop(struct timer_heap *heap); /* the nearest; not when empty */

#endif
