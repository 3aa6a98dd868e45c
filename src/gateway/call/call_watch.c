#include "gateway/call/call_watch.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/loop.h"
#include <stdlib.h>

enum { LOOK_TIMEOUT_MS = 1000, SETTLE_MS = 1 };

struct watch_lane {
    struct call_watches *watches;
    struct scheduler *scheduler;
    struct list open;
    struct timer timer;
    uint32_t round;
    bool is_looking;
};
struct call_watches {
    struct keys *keys;
    int64_t every_ms;
    struct watch_lane lanes[LOOP_COUNT_MAX + 1]; /* the last: schedulers without a loop */
};

static struct watch_lane *lane_here(struct call_watches *watches)
{
    struct loop *loop = loop_current();
    return &watches->lanes[loop ? loop_index(loop) : LOOP_COUNT_MAX];
}

static void arm(struct watch_lane *lane)
{
    timer_arm(lane->scheduler, &lane->timer,
              clock_monotonic_ns(scheduler_clock(lane->scheduler)) +
                  lane->watches->every_ms * INT64_C(1000000));
}

/* ---- a round ---- */

static bool is_good(struct watch_lane *lane, digest key, enum role_level level, struct error *why)
{
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct principal now = {0};
    context_init(&ctx, lane->scheduler, arena,
                 clock_monotonic_ns(scheduler_clock(lane->scheduler)) +
                     LOOK_TIMEOUT_MS * INT64_C(1000000));
    bool ok = keys_authenticate_digest(lane->watches->keys, &ctx, key, &now, why);
    context_deinit(&ctx);
    if (!ok)
        return why->reason != REASON_UNAUTHENTICATED && why->code != ERROR_DENIED;
    return now.level >= level || error_set(why, REASON_DENIED, "the key's rights have changed");
}

/* All of the key that began with more rights than are left. */
static void end_streams(struct watch_lane *lane, digest key, enum role_level level,
                        const struct error *why)
{
    LIST_EACH(node, &lane->open)
    {
        struct call_watch *watch = LIST_ITEM(node, struct call_watch, link);
        if (!digest_equal(watch->key, key) || watch->level < level)
            continue;
        list_remove(&watch->link);
        watch->revoked(watch->owner, why);
    }
}

/* Takes the next one that this round has not seen; those seen move to the end of the list. */
static struct call_watch *take_unseen(struct watch_lane *lane)
{
    struct list *first = list_first(&lane->open);
    struct call_watch *watch = first ? LIST_ITEM(first, struct call_watch, link) : NULL;
    if (!watch || watch->round == lane->round)
        return NULL;
    watch->round = lane->round;
    list_remove(&watch->link);
    list_push_back(&lane->open, &watch->link);
    return watch;
}

static void look(void *argument)
{
    struct watch_lane *lane = argument;
    struct call_watch *watch;
    bool is_same = false;
    digest good = {0};
    enum role_level good_level = 0;
    while ((watch = take_unseen(lane)) != NULL) {
        struct error why = {0};
        digest key = watch->key; /* the stream may be gone after the wait */
        enum role_level level = watch->level;
        if (is_same && level <= good_level && digest_equal(key, good))
            continue;
        is_same = is_good(lane, key, level, &why);
        good = key;
        good_level = level;
        if (!is_same)
            end_streams(lane, key, level, &why);
    }
    lane->is_looking = false;
    if (!list_is_empty(&lane->open))
        arm(lane);
}

static void fire(struct timer *timer)
{
    struct watch_lane *lane = CONTAINER_OF(timer, struct watch_lane, timer);
    struct error unstarted = {0};
    lane->round++;
    lane->is_looking = coroutine_start(lane->scheduler, "call.watch", look, lane, &unstarted);
    if (!lane->is_looking)
        arm(lane);
}

/* ---- entries ---- */

void call_watch_add(struct call_watches *watches, struct scheduler *scheduler,
                    struct call_watch *watch)
{
    struct watch_lane *lane = lane_here(watches);
    ensure(!lane->scheduler || lane->scheduler == scheduler);
    bool is_first = list_is_empty(&lane->open);
    lane->scheduler = scheduler;
    watch->round = lane->round;
    list_push_back(&lane->open, &watch->link);
    if (is_first && !lane->is_looking)
        arm(lane);
}

void call_watch_remove(struct call_watches *watches, struct call_watch *watch)
{
    struct watch_lane *lane = lane_here(watches);
    list_remove(&watch->link);
    if (list_is_empty(&lane->open) && lane->scheduler)
        timer_disarm(lane->scheduler, &lane->timer);
}

/* ---- life ---- */

struct call_watches *call_watches_create(struct keys *keys, int64_t every_ms)
{
    struct call_watches *watches = calloc(1, sizeof *watches);
    ensure(watches != NULL);
    watches->keys = keys;
    watches->every_ms = every_ms;
    for (size_t i = 0; i < ARRAY_COUNT(watches->lanes); i++) {
        struct watch_lane *lane = &watches->lanes[i];
        lane->watches = watches;
        lane->timer.fire = fire;
        list_init(&lane->open);
    }
    return watches;
}

void call_watches_destroy(struct call_watches *watches)
{
    for (size_t i = 0; watches && i < ARRAY_COUNT(watches->lanes); i++)
        ensure(list_is_empty(&watches->lanes[i].open) && !watches->lanes[i].is_looking);
    free(watches);
}

void call_watches_settle(struct call_watches *watches, struct context *ctx)
{
    struct error late = {0};
    while (lane_here(watches)->is_looking && context_sleep_ms(ctx, SETTLE_MS, &late))
        ;
}
