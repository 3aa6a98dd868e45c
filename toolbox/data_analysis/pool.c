#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "nexus_tool.h"

enum { BLOCK_BYTES = 64 * 1024, SET_FIRST_CAPACITY = 8 };

struct pool_block {
    struct pool_block *older;
    uint64_t data[];
};

void pool_init(struct pool *pool, size_t max_bytes)
{
    *pool = (struct pool){.max = max_bytes};
}

void pool_deinit(struct pool *pool)
{
    while (pool->blocks != NULL) {
        struct pool_block *older = pool->blocks->older;
        tool_free(pool->blocks);
        pool->blocks = older;
    }
    *pool = (struct pool){.max = pool->max};
}

void *pool_alloc(struct pool *pool, size_t bytes)
{
    if (bytes > pool->max)
        return NULL;
    bytes = bytes == 0 ? 8 : (bytes + 7) & ~(size_t) 7;
    if (bytes > (size_t) (pool->end - pool->at)) {
        size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        if (pool->used + size > pool->max)
            return NULL;
        struct pool_block *block = tool_alloc(sizeof *block + size);
        block->older = pool->blocks;
        pool->blocks = block;
        pool->used += size;
        pool->at = (char *) block->data;
        pool->end = pool->at + size;
    }
    void *result = pool->at;
    pool->at += bytes;
    return result;
}

char *pool_copy(struct pool *pool, const char *ptr, size_t len)
{
    char *copy = pool_alloc(pool, len);
    if (copy != NULL && len > 0)
        memcpy(copy, ptr, len);
    return copy;
}

static bool set_insert(struct hash_set *set, uint64_t hash)
{
    uint32_t mask = set->capacity - 1;
    for (uint32_t i = (uint32_t) (hash >> 32) & mask;; i = (i + 1) & mask) {
        if (set->slots[i] == hash)
            return false;
        if (set->slots[i] == 0) {
            set->slots[i] = hash;
            set->count++;
            return true;
        }
    }
}

static void set_grow(struct hash_set *set)
{
    struct hash_set old = *set;
    set->capacity = old.capacity == 0 ? SET_FIRST_CAPACITY : old.capacity * 2;
    set->slots = tool_alloc(set->capacity * sizeof *set->slots);
    memset(set->slots, 0, set->capacity * sizeof *set->slots);
    set->count = 0;
    for (uint32_t i = 0; i < old.capacity; i++)
        if (old.slots[i] != 0)
            set_insert(set, old.slots[i]);
    tool_free(old.slots);
}

bool hash_set_add(struct hash_set *set, uint64_t hash)
{
    if (set->count + set->count / 4 >= set->capacity) /* at most four fifths full */
        set_grow(set);
    return set_insert(set, hash == 0 ? 1 : hash);
}

void hash_set_deinit(struct hash_set *set)
{
    tool_free(set->slots);
    *set = (struct hash_set){0};
}
