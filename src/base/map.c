#include "base/map.h"

#include "base/digest.h"
#include "base/ensure.h"

#include <stdatomic.h>
#include <stdlib.h>

/*
 * Entries lie in a dense array in insertion order; `slots` is an open-addressed table of positions
 * in it, probed linearly.  A slot holds position + 1; 0 is free.  Removal closes the gap in both
 * (backward shift; the last entry moves into the hole), so there are no tombstones and lookups
 * never slow down with age.
 */
struct entry {
    uint64_t hash;
    char *key;
    size_t key_bytes;
    void *value;
};

struct map {
    struct entry *entries;
    uint32_t *slots;
    size_t count;
    size_t slot_count; /* 0 or a power of two; at most 3/4 are taken */
    uint64_t seed;
};

enum {
    SLOTS_FIRST = 16,
    SLOTS_KEPT = 1024, /* a map this small never shrinks */
    SPARSE = 8         /* it does when fewer than this part of its slots are taken */
};

static _Atomic uint64_t process_seed; /* 0: not chosen yet */

void map_set_seed(uint64_t seed)
{
    process_seed = seed ? seed : 1;
}

uint64_t map_seed(void)
{
    uint64_t seed = process_seed;
    if (seed == 0) {
        uint64_t fresh = 0;
        digest_random_bytes(&fresh, sizeof(fresh));
        fresh |= 1;
        if (atomic_compare_exchange_strong(&process_seed, &seed, fresh))
            seed = fresh; /* else another thread was first and `seed` is its choice */
    }
    return seed;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    ensure(memory != NULL);
    return memory;
}

struct map *map_create(void)
{
    struct map *map = allocate(1, sizeof(*map));
    map->seed = map_seed();
    return map;
}

void map_destroy(struct map *map)
{
    if (!map)
        return;
    for (size_t i = 0; i < map->count; i++)
        free(map->entries[i].key);
    free(map->entries);
    free(map->slots);
    free(map);
}

static str entry_key(const struct entry *entry)
{
    return str_of(entry->key, entry->key_bytes);
}

/*
 * The slot that holds the key, or the free one where it belongs.  Needs a table that is not full.
 */
static size_t find_slot(const struct map *map, str key, uint64_t hash)
{
    size_t mask = map->slot_count - 1;
    size_t slot = hash & mask;
    while (map->slots[slot]) {
        const struct entry *entry = &map->entries[map->slots[slot] - 1];
        if (entry->hash == hash && str_equal(entry_key(entry), key))
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

static size_t slot_of_entry(const struct map *map, size_t index)
{
    size_t mask = map->slot_count - 1;
    size_t slot = map->entries[index].hash & mask;
    while (map->slots[slot] != index + 1)
        slot = (slot + 1) & mask;
    return slot;
}

static void resize(struct map *map, size_t slot_count)
{
    size_t room = slot_count / 4 * 3;
    ensure(slot_count <= UINT32_MAX / 2);
    map->entries = realloc(map->entries, room * sizeof(*map->entries));
    ensure(map->entries != NULL);
    free(map->slots);
    map->slots = allocate(slot_count, sizeof(*map->slots));
    map->slot_count = slot_count;
    for (size_t i = 0; i < map->count; i++) {
        size_t slot = map->entries[i].hash & (slot_count - 1);
        while (map->slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        map->slots[slot] = (uint32_t) (i + 1);
    }
}

void *map_find(const struct map *map, str key)
{
    if (map->count == 0)
        return NULL;
    size_t slot = find_slot(map, key, str_hash(key, map->seed));
    return map->slots[slot] ? map->entries[map->slots[slot] - 1].value : NULL;
}

void *map_put(struct map *map, str key, void *value)
{
    ensure(value != NULL);
    if (map->count >= map->slot_count / 4 * 3)
        resize(map, map->slot_count ? map->slot_count * 2 : SLOTS_FIRST);
    uint64_t hash = str_hash(key, map->seed);
    size_t slot = find_slot(map, key, hash);
    if (map->slots[slot]) {
        struct entry *entry = &map->entries[map->slots[slot] - 1];
        void *old = entry->value;
        entry->value = value;
        return old;
    }
    struct entry entry = {
        .hash = hash, .key = allocate(1, key.len + 1), .key_bytes = key.len, .value = value};
    if (key.len)
        memcpy(entry.key, key.ptr, key.len);
    map->entries[map->count++] = entry;
    map->slots[slot] = (uint32_t) map->count;
    return NULL;
}

/* Frees a slot and moves later ones of the same probe run up, so that no search stops too early. */
static void free_slot(struct map *map, size_t hole)
{
    size_t mask = map->slot_count - 1;
    size_t slot = hole;
    for (;;) {
        slot = (slot + 1) & mask;
        if (map->slots[slot] == 0)
            break;
        size_t home = map->entries[map->slots[slot] - 1].hash & mask;
        if (((slot - home) & mask) >= ((slot - hole) & mask)) {
            map->slots[hole] = map->slots[slot];
            hole = slot;
        }
    }
    map->slots[hole] = 0;
}

void *map_remove(struct map *map, str key)
{
    if (map->count == 0)
        return NULL;
    size_t slot = find_slot(map, key, str_hash(key, map->seed));
    if (map->slots[slot] == 0)
        return NULL;
    size_t index = map->slots[slot] - 1, last = map->count - 1;
    void *value = map->entries[index].value;
    free_slot(map, slot);
    free(map->entries[index].key);
    if (index != last) {
        map->slots[slot_of_entry(map, last)] = (uint32_t) (index + 1);
        map->entries[index] = map->entries[last];
    }
    map->count = last;
    if (map->slot_count > SLOTS_KEPT && map->count < map->slot_count / SPARSE)
        resize(map, map->slot_count / 2); /* what was many once does not stay large */
    return value;
}

size_t map_count(const struct map *map)
{
    return map->count;
}

size_t map_bytes(const struct map *map)
{
    return map->slot_count / 4 * 3 * sizeof(*map->entries) + map->slot_count * sizeof(*map->slots);
}

bool map_next(const struct map *map, size_t *position, str *key, void **value)
{
    if (*position >= map->count)
        return false;
    const struct entry *entry = &map->entries[(*position)++];
    if (key)
        *key = entry_key(entry);
    if (value)
        *value = entry->value;
    return true;
}
