#include "net/buffer_internal.h"

#include "base/ensure.h"

#include <stdlib.h>

static const uint32_t class_bytes[2] = {BUFFER_SMALL_BYTES, BUFFER_LARGE_BYTES};
static const size_t spare_max[2] = {HTTP_BUFFERS_SPARE_MAX, HTTP_BUFFERS_LARGE_SPARE_MAX};

static void *block_take(struct buffer_pool *pool, int class)
{
    void *block = pool->spare[class];
    if (block) {
        memcpy(&pool->spare[class], block, sizeof(void *));
        pool->spare_count[class]--;
        return block;
    }
    block = malloc(class_bytes[class]);
    ensure(block != NULL);
    return block;
}

static void block_give(struct buffer_pool *pool, int class, void *block)
{
    if (pool->spare_count[class] >= spare_max[class]) {
        free(block);
        return;
    }
    memcpy(block, &pool->spare[class], sizeof(void *));
    pool->spare[class] = block;
    pool->spare_count[class]++;
}

void buffer_pool_deinit(struct buffer_pool *pool)
{
    for (int class = 0; class < 2; class ++) {
        while (pool->spare[class]) {
            void *block = pool->spare[class];
            memcpy(&pool->spare[class], block, sizeof(void *));
            free(block);
        }
        pool->spare_count[class] = 0;
    }
}

static bool move_to_own_block(struct buffer_pool *pool, struct buffer *buffer, size_t need)
{
    uint32_t held = (uint32_t) buffer_len(buffer), capacity = 2 * BUFFER_LARGE_BYTES;
    while (capacity < need)
        capacity *= 2;
    char *block = malloc(capacity);
    ensure(block != NULL);
    if (held)
        memcpy(block, buffer->ptr + buffer->from, held);
    buffer_release(pool, buffer);
    *buffer = (struct buffer){block, 0, held, capacity, true};
    return true;
}

bool buffer_reserve(struct buffer_pool *pool, struct buffer *buffer, size_t room)
{
    return buffer_reserve_up_to(pool, buffer, room, BUFFER_LARGE_BYTES);
}

bool buffer_reserve_up_to(struct buffer_pool *pool, struct buffer *buffer, size_t room, size_t max)
{
    size_t held = buffer_len(buffer);
    if (buffer->ptr && buffer->is_pooled) {
        if (room <= buffer->capacity - buffer->to)
            return true;
        if (room <= buffer->capacity - held) {
            memmove(buffer->ptr, buffer->ptr + buffer->from, held);
            buffer->from = 0;
            buffer->to = (uint32_t) held;
            return true;
        }
    }
    if (held + room > BUFFER_LARGE_BYTES)
        return held + room <= max && move_to_own_block(pool, buffer, held + room);
    int class = held + room > BUFFER_SMALL_BYTES;
    char *block = block_take(pool, class);
    if (held)
        memcpy(block, buffer->ptr + buffer->from, held);
    buffer_release(pool, buffer);
    *buffer = (struct buffer){block, 0, (uint32_t) held, class_bytes[class], true};
    return true;
}

void buffer_release(struct buffer_pool *pool, struct buffer *buffer)
{
    if (buffer->ptr && buffer->capacity > BUFFER_LARGE_BYTES && buffer->is_pooled)
        free(buffer->ptr);
    else if (buffer->ptr && buffer->is_pooled)
        block_give(pool, buffer->capacity == BUFFER_LARGE_BYTES, buffer->ptr);
    *buffer = (struct buffer){0};
}
