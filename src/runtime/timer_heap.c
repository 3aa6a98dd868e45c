#include "runtime/timer_heap_internal.h"

#include "base/ensure.h"
#include <stdlib.h>

enum { TIMER_HEAP_FIRST_CAPACITY = 64 };

static bool is_before(const struct timer_entry *a, const struct timer_entry *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->sequence < b->sequence;
}

static void place(struct timer_heap *heap, size_t index, struct timer_entry entry)
{
    heap->entries[index] = entry;
    entry.timer->heap_index = index;
}

/* Both sifts carry the entry along in hand and put it down once. */
static void sift_up(struct timer_heap *heap, size_t index, struct timer_entry entry)
{
    while (index > 1 && is_before(&entry, &heap->entries[index / 2])) {
        place(heap, index, heap->entries[index / 2]);
        index /= 2;
    }
    place(heap, index, entry);
}

static void sift_down(struct timer_heap *heap, size_t index, struct timer_entry entry)
{
    for (;;) {
        size_t child = index * 2;
        if (child > heap->count)
            break;
        if (child < heap->count && is_before(&heap->entries[child + 1], &heap->entries[child]))
            child++;
        if (!is_before(&heap->entries[child], &entry))
            break;
        place(heap, index, heap->entries[child]);
        index = child;
    }
    place(heap, index, entry);
}

void timer_heap_init(struct timer_heap *heap)
{
    *heap = (struct timer_heap){0};
}

void timer_heap_deinit(struct timer_heap *heap)
{
    ensure(heap->count == 0);
    free(heap->entries);
    heap->entries = NULL;
}

void timer_heap_add(struct timer_heap *heap, struct timer *timer, int64_t deadline_ns)
{
    if (heap->count + 1 >= heap->capacity) {
        size_t capacity = heap->capacity ? heap->capacity * 2 : TIMER_HEAP_FIRST_CAPACITY;
        struct timer_entry *entries = realloc(heap->entries, capacity * sizeof *entries);
        ensure(entries != NULL);
        heap->entries = entries;
        heap->capacity = capacity;
    }
    timer->deadline_ns = deadline_ns;
    heap->count++;
    sift_up(heap, heap->count, (struct timer_entry){deadline_ns, heap->next_sequence++, timer});
}

void timer_heap_remove(struct timer_heap *heap, struct timer *timer)
{
    size_t index = timer->heap_index;
    ensure(index >= 1 && index <= heap->count && heap->entries[index].timer == timer);
    timer->heap_index = 0;
    struct timer_entry last = heap->entries[heap->count--];
    if (last.timer == timer)
        return;
    if (index > 1 && is_before(&last, &heap->entries[index / 2]))
        sift_up(heap, index, last);
    else
        sift_down(heap, index, last);
}

int64_t timer_heap_next_ns(const struct timer_heap *heap)
{
    return heap->count > 0 ? heap->entries[1].deadline_ns : INT64_MAX;
}

struct timer *timer_heap_pop(struct timer_heap *heap)
{
    ensure(heap->count > 0);
    struct timer *timer = heap->entries[1].timer;
    timer_heap_remove(heap, timer);
    return timer;
}
