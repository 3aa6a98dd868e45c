/*
 * Buffers that connections hold only while bytes wait in them: blocks of two sizes, pooled per
 * loop.
 *
 * A buffer is empty (no block), small or large; growing moves the bytes.  An idle connection or
 * stream holds none.  Where a bound beyond the large block is allowed, what needs it is not pooled.
 * Thread: one loop.  Suspends: never.
 */
#ifndef NEXUS_NET_BUFFER_INTERNAL_H
#define NEXUS_NET_BUFFER_INTERNAL_H

#include "base/limits.h"
#include "base/str.h"

#include <assert.h>

enum {
    BUFFER_SMALL_BYTES = 4096,
    BUFFER_LARGE_BYTES = HTTP_WRITE_BUFFER_BYTES + 64, /* framing on top of the bound */
};
static_assert(HTTP_READ_BUFFER_BYTES <= BUFFER_LARGE_BYTES, "a whole read fits into a large block");

struct buffer_pool {
    void *spare[2]; /* free blocks, small and large, linked through their first bytes */
    size_t spare_count[2];
};
struct buffer {
    char *ptr; /* NULL: no block */
    uint32_t from, to, capacity;
    bool is_pooled; /* false: ptr is someone else's (an arena's) and never given back */
};

void buffer_pool_deinit(struct buffer_pool *pool); /* all buffers released */

static inline size_t buffer_len(const struct buffer *buffer)
{
    return buffer->to - buffer->from;
}
static inline str buffer_str(const struct buffer *buffer)
{
    return str_of(buffer->ptr + buffer->from, buffer_len(buffer));
}
/* Makes room for `room` more bytes after `to` and tells whether that is possible; may move what is
   there. */
bool buffer_reserve(struct buffer_pool *pool, struct buffer *buffer, size_t room);
/* The same with another bound: past a large block the bytes lie in one of their own. */
bool buffer_reserve_up_to(struct buffer_pool *pool, struct buffer *buffer, size_t room, size_t max);
void buffer_release(struct buffer_pool *pool, struct buffer *buffer); /* forgets the bytes */

#endif
