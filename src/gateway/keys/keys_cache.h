/*
 * Cache of authenticated keys: who a key hash is, for KEY_CACHE_MS.  Only keys that were good are in it; what is revoked here is
 * dropped at once.  KEY_CACHE_SLOTS slots in small buckets; the oldest of a bucket makes room.
 * Thread: any; one short lock.  Suspends: never.
 */
#ifndef NEXUS_GATEWAY_KEYS_CACHE_H
#define NEXUS_GATEWAY_KEYS_CACHE_H

#include "base/digest.h"
#include "orchestrator/policy/principal.h"

struct keys_cache;
struct keys_cache *keys_cache_create(void);
void keys_cache_destroy(struct keys_cache *cache);

/* Fills tenant, user, caller, role, level, scopes, key id and limits; strings on the arena.  False: not there, too old, or expired. */
bool keys_cache_find(struct keys_cache *cache, digest hash, int64_t now_ns, int64_t now_us,
                     struct arena *arena, struct principal *out);
/* `generation` is what keys_cache_generation gave before the row was read: a key revoked meanwhile is not put back. */
uint64_t keys_cache_generation(struct keys_cache *cache);
void keys_cache_put(struct keys_cache *cache, digest hash, const struct principal *principal,
                    int64_t now_ns, int64_t expires_us, uint64_t generation);
void keys_cache_drop(struct keys_cache *cache, uuid key_id);

#endif
