/*
 * Watch: open streams of model calls whose keys are looked at again, so that a key that was revoked, has expired or lost rights ends its
 * streams (with KEY_CACHE_MS within 5 s) however long a model goes on.
 *
 *      call_watch_add --> every so often, once per key and round --> is good: nothing
 *                                                                             '--> is not: revoked(owner, why), once
 *
 * A clear no ends a stream.  A store that cannot answer does not: the next round asks again, and the stream has its call's deadline.
 * Each loop has a list of its own; while it is empty no timer is armed and no coroutine runs.
 * Thread: the loop of the stream.  Suspends: call_watches_settle only.
 */
#ifndef NEXUS_GATEWAY_CALL_WATCH_H
#define NEXUS_GATEWAY_CALL_WATCH_H

#include "base/digest.h"
#include "gateway/keys/keys.h"

struct call_watches;

struct call_watch {
    struct list link;
    digest key; /* keys_digest of what the caller presented */
    enum role_level level;
    uint32_t round; /* the last one that looked at it */
    /* On a coroutine that must not wait here; the entry is out of the list already. */
    void (*revoked)(void *owner, const struct error *why);
    void *owner;
};

struct call_watches *call_watches_create(struct keys *keys, int64_t every_ms);
void call_watches_destroy(struct call_watches *watches); /* nothing is watched any more */

/* The caller's memory, until call_watch_remove or revoked. */
void call_watch_add(struct call_watches *watches, struct scheduler *scheduler,
                    struct call_watch *watch);
void call_watch_remove(struct call_watches *watches, struct call_watch *watch); /* harmless twice */

/* Until nothing of this loop's is being looked at, or ctx's deadline. */
may_suspend_void void call_watches_settle(struct call_watches *watches, struct context *ctx);

#endif
