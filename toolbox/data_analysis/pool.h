/*
 * Pool: memory that is only ever released as a whole, with a cap; and a set of 64-bit hashes.
 *
 * The cap keeps a query within the sandbox's memory and turns "too much data" into an error the caller
 * can act on: pool_alloc() returns NULL once the cap is reached, and the caller names the limit.
 */
#ifndef DATA_ANALYSIS_POOL_H
#define DATA_ANALYSIS_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool {
    struct pool_block *blocks; /* newest first */
    char *at, *end;
    size_t used, max;
};

void pool_init(struct pool *pool, size_t max_bytes);
void pool_deinit(struct pool *pool);
void *pool_alloc(struct pool *pool, size_t bytes); /* 8-byte aligned; NULL: over the cap */
char *pool_copy(struct pool *pool, const char *ptr, size_t len); /* NULL: over the cap */

/* Distinct counting keeps 64-bit hashes instead of values: among a million values the chance that two
 * share one, and the count is off by one, is below 1 in 10 million. */
struct hash_set {
    uint64_t *slots; /* 0 is an empty slot */
    uint32_t capacity, count;
};

/* Returns true when the hash is new. */
bool hash_set_add(struct hash_set *set, uint64_t hash);
void hash_set_deinit(struct hash_set *set);

#endif
