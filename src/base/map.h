/*
 * map: str keys to pointers.  Open addressing, keyed hash (keys may come from outside), grows by doubling.
 * The map copies its keys and does not own its values.  Iteration order is insertion order while nothing is removed.
 * Thread: one at a time.
 */
#ifndef NEXUS_BASE_MAP_H
#define NEXUS_BASE_MAP_H

#include "base/str.h"

struct map;

struct map *map_create(void);
void map_destroy(struct map *map); /* values stay */
OWNED_DEFINE(map)
void *map_find(const struct map *map, str key); /* NULL when absent */
void *map_put(struct map *map, str key,
              void *value);                 /* value not NULL; gives the old value or NULL */
void *map_remove(struct map *map, str key); /* gives the old value or NULL */
size_t map_count(const struct map *map);
size_t map_bytes(
    const struct map *map); /* of its tables, keys not counted; it shrinks when most were removed */
/* position starts at 0; false at the end.  The map must not change meanwhile.  key and value may be NULL. */
bool map_next(const struct map *map, size_t *position, str *key, void **value);

/* The hash key is drawn from the kernel once per process; a simulation sets it instead.  For maps created afterwards. */
void map_set_seed(uint64_t seed);
uint64_t map_seed(void); /* for other tables of outside keys, with str_hash */

#endif
