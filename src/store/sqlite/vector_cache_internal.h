/*
 * Vector cache: the unit vectors of recently searched sessions (or users), so that a search reads
 * no BLOBs.
 *
 * An entry is what one snapshot of the database held.  A writer tells the cache of each session it
 * changed, after its commit: entries that may hold it are dropped and the generation moves on.  A
 * reader that loaded an older snapshot notices (its generation is stale) and keeps its entry to
 * itself.  Bound: VECTOR_CACHE_BYTES_MAX, the least recently used go first.
 * Thread: any; entries are counted references, because a reader may still scan what was just
 * dropped.
 */
#ifndef NEXUS_STORE_SQLITE_VECTOR_CACHE_INTERNAL_H
#define NEXUS_STORE_SQLITE_VECTOR_CACHE_INTERNAL_H

#include "base/list.h"
#include "base/uuid.h"

struct vector_cache;
struct vector_entry {
    struct list link;
    uuid tenant_id, session_id; /* session UUID_NONE: all of the user's */
    char *user_id;
    size_t user_id_len;
    int reference_count;
    size_t count, capacity;
    size_t bytes;
    uuid *ids;
    float *vectors; /* count * dimension */
};

struct vector_cache *vector_cache_create(size_t dimension);
void vector_cache_destroy(struct vector_cache *cache);
uint64_t vector_cache_generation(
    struct vector_cache *cache); /* asked before the snapshot is opened */
struct vector_entry *vector_cache_find(struct vector_cache *cache, uuid tenant_id, uuid session_id,
                                       str user_id);
/*
 * An entry that the caller fills and then releases; vector_cache_keep puts it into the cache if
 * nothing changed since.
 */
struct vector_entry *vector_entry_create(uuid tenant_id, uuid session_id, str user_id);
void vector_entry_add(struct vector_entry *entry, uuid id, const float *vector, size_t dimension);
void vector_cache_keep(struct vector_cache *cache, struct vector_entry *entry, uint64_t generation);
void vector_cache_release(struct vector_cache *cache, struct vector_entry *entry);
void vector_cache_drop(struct vector_cache *cache, uuid tenant_id,
                       uuid session_id); /* and all users' entries of the tenant */

#endif
