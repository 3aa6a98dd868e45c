#include "runtime/bulkhead.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/loop.h"
#include <stdatomic.h>
#include <stdlib.h>

struct owner_turn {
    struct list link;  /* of bulkhead.turns */
    struct list queue; /* of place_wait, the oldest first */
    uuid owner;
    int32_t queued;
};

/* One who waits: it and who gives it a place hold it; the wake-up arrives on the waiter's own loop, where it may find nobody any more. */
struct place_wait {
    struct list link;
    struct owner_turn *turn; /* while it is queued */
    struct loop *loop;       /* NULL: a scheduler without a loop */
    struct waiter *waiter;   /* its coroutine's; NULL once that has gone on.  On its loop only */
    bool is_given;           /* under the bulkhead's lock */
    _Atomic int holders;
};

static void release(struct place_wait *wait)
{
    if (atomic_fetch_sub(&wait->holders, 1) == 1)
        free(wait);
}

void bulkhead_init(struct bulkhead *bulkhead, int32_t places, int32_t queue_max)
{
    ensure(places > 0 && queue_max >= 0);
    *bulkhead = (struct bulkhead){.places = places, .queue_max = queue_max};
    pthread_mutex_init(&bulkhead->lock, NULL);
    list_init(&bulkhead->turns);
}

void bulkhead_deinit(struct bulkhead *bulkhead)
{
    ensure(bulkhead->in_use == 0 && list_is_empty(&bulkhead->turns));
    pthread_mutex_destroy(&bulkhead->lock);
}

/* ---- the queue; the lock is held ---- */

static struct owner_turn *turn_of(struct bulkhead *bulkhead, uuid owner)
{
    LIST_EACH(node, &bulkhead->turns)
    {
        struct owner_turn *turn = LIST_ITEM(node, struct owner_turn, link);
        if (uuid_equal(turn->owner, owner))
            return turn;
    }
    return NULL;
}

static void unqueue(struct bulkhead *bulkhead, struct place_wait *wait)
{
    struct owner_turn *turn = wait->turn;
    list_remove(&wait->link);
    wait->turn = NULL;
    bulkhead->queued--;
    if (--turn->queued > 0)
        return;
    list_remove(&turn->link);
    free(turn);
}

/* The oldest of the owner whose turn it is; that one is the last to be asked again. */
static struct place_wait *take_next(struct bulkhead *bulkhead)
{
    struct owner_turn *turn = LIST_ITEM(list_first(&bulkhead->turns), struct owner_turn, link);
    struct place_wait *next = LIST_ITEM(list_first(&turn->queue), struct place_wait, link);
    list_remove(&turn->link);
    list_push_back(&bulkhead->turns, &turn->link);
    unqueue(bulkhead, next);
    return next;
}

/* ---- a place is free ---- */

static void wake(void *argument)
{
    struct place_wait *wait = argument;
    if (wait->waiter)
        waiter_wake(wait->waiter);
    release(wait);
}

/* Whose turn it is, if a place is free for it; the lock is held. */
static struct place_wait *admit_next(struct bulkhead *bulkhead)
{
    if (bulkhead->in_use >= bulkhead->places || list_is_empty(&bulkhead->turns))
        return NULL;
    struct place_wait *next = take_next(bulkhead);
    next->is_given = true;
    bulkhead->in_use++;
    return next;
}

static void tell(struct place_wait *next)
{
    if (next->loop)
        loop_post(next->loop, wake, next);
    else
        wake(next);
}

void bulkhead_leave(struct bulkhead *bulkhead)
{
    pthread_mutex_lock(&bulkhead->lock);
    ensure(bulkhead->in_use > 0);
    bulkhead->in_use--;
    struct place_wait *next = admit_next(bulkhead);
    pthread_mutex_unlock(&bulkhead->lock);
    if (next)
        tell(next);
}

void bulkhead_resize(struct bulkhead *bulkhead, int32_t places, int32_t queue_max)
{
    struct place_wait *next;
    ensure(places > 0 && queue_max >= 0);
    pthread_mutex_lock(&bulkhead->lock);
    bulkhead->places = places;
    bulkhead->queue_max = queue_max;
    pthread_mutex_unlock(&bulkhead->lock);
    do {
        pthread_mutex_lock(&bulkhead->lock);
        next = admit_next(bulkhead);
        pthread_mutex_unlock(&bulkhead->lock);
        if (next)
            tell(next);
    } while (next);
}

/* ---- waiting for one ---- */

enum { PACE_UNKNOWN_MS = 1000, PACE_PARTS = 8 };

static bool refuse(struct bulkhead *bulkhead, const struct bulkhead_entry *entry, const char *why,
                   int64_t retry_after_ms, struct error *e)
{
    bulkhead->refused++;
    pthread_mutex_unlock(&bulkhead->lock);
    error_set(e, REASON_OVERLOADED_HERE, STR_FMT ": %s", STR_ARG(str_cut_utf8(entry->name, 100)),
              why);
    e->retry_after_ms = retry_after_ms;
    return false;
}

static int64_t patience_ms(const struct bulkhead_entry *entry)
{
    return entry->wait_ms > 0 ? entry->wait_ms : PACE_UNKNOWN_MS;
}

/* Until those who wait now have been served. */
static int64_t queue_ms(const struct bulkhead *bulkhead, const struct bulkhead_entry *entry)
{
    int64_t most = patience_ms(entry);
    if (bulkhead->queue_max == 0)
        return most;
    int64_t ms = bulkhead->pace_ns > 0 ? bulkhead->queued * bulkhead->pace_ns / 1000000 + 1
                                       : PACE_UNKNOWN_MS;
    return ms < most ? ms : most;
}

/* Somebody got a place after so long with so many before it: each newer one counts for an eighth. */
static void note_pace(struct bulkhead *bulkhead, int64_t waited_ns, int32_t before)
{
    int64_t pace_ns = waited_ns / (before + 1);
    if (bulkhead->pace_ns > 0)
        pace_ns = bulkhead->pace_ns + (pace_ns - bulkhead->pace_ns) / PACE_PARTS;
    bulkhead->pace_ns = pace_ns > 0 ? pace_ns : 1;
}

static bool is_full(struct bulkhead *bulkhead, uuid owner)
{
    const struct owner_turn *turn = turn_of(bulkhead, owner);
    return bulkhead->queued >= bulkhead->queue_max ||
           (turn && turn->queued >= (3 * bulkhead->queue_max + 3) / 4);
}

static struct place_wait *join_queue(struct bulkhead *bulkhead, struct waiter *waiter, uuid owner)
{
    struct place_wait *wait = calloc(1, sizeof *wait);
    ensure(wait != NULL);
    wait->turn = turn_of(bulkhead, owner);
    if (!wait->turn) {
        wait->turn = calloc(1, sizeof *wait->turn);
        ensure(wait->turn != NULL);
        wait->turn->owner = owner;
        list_init(&wait->turn->queue);
        list_push_back(&bulkhead->turns, &wait->turn->link);
    }
    wait->turn->queued++;
    wait->loop = loop_current();
    wait->waiter = waiter;
    atomic_init(&wait->holders, 2);
    list_push_back(&wait->turn->queue, &wait->link);
    bulkhead->queued++;
    return wait;
}

bool bulkhead_try(struct bulkhead *bulkhead)
{
    pthread_mutex_lock(&bulkhead->lock);
    bool is_free = bulkhead->in_use < bulkhead->places;
    bulkhead->in_use += is_free;
    pthread_mutex_unlock(&bulkhead->lock);
    return is_free;
}

bool bulkhead_enter(struct bulkhead *bulkhead, struct context *ctx,
                    const struct bulkhead_entry *entry, struct error *e)
{
    struct waiter waiter;
    struct error ended = {0};
    if (!context_check(ctx, e))
        return false;
    pthread_mutex_lock(&bulkhead->lock);
    if (bulkhead->in_use < bulkhead->places) {
        bulkhead->in_use++;
        pthread_mutex_unlock(&bulkhead->lock);
        return true;
    }
    if (is_full(bulkhead, entry->owner))
        return refuse(bulkhead, entry, "too many wait for it already", queue_ms(bulkhead, entry),
                      e);
    int32_t before = bulkhead->queued;
    int64_t since_ns = context_now_ns(ctx);
    waiter_init(&waiter, ctx);
    struct place_wait *wait = join_queue(bulkhead, &waiter, entry->owner);
    pthread_mutex_unlock(&bulkhead->lock);
    bool is_woken = waiter_wait_until(&waiter, context_deadline_in(ctx, entry->wait_ms), &ended);
    wait->waiter = NULL;
    pthread_mutex_lock(&bulkhead->lock);
    bool is_given = wait->is_given;
    if (is_given) {
        note_pace(bulkhead, context_now_ns(ctx) - since_ns, before);
    } else {
        unqueue(bulkhead, wait);
        release(wait); /* nobody will wake it */
    }
    ensure(is_given || !is_woken);
    release(wait);
    struct error own = {0};
    if (!is_given && ended.code == ERROR_TIMEOUT && context_check(ctx, &own))
        return refuse(bulkhead, entry, "no place in time", patience_ms(entry), e);
    pthread_mutex_unlock(&bulkhead->lock);
    return is_given || error_copy(e, &ended);
}

struct bulkhead_counts bulkhead_look(struct bulkhead *bulkhead)
{
    pthread_mutex_lock(&bulkhead->lock);
    struct bulkhead_counts counts = {.places = bulkhead->places,
                                     .in_use = bulkhead->in_use,
                                     .queued = bulkhead->queued,
                                     .queue_max = bulkhead->queue_max,
                                     .refused = bulkhead->refused};
    pthread_mutex_unlock(&bulkhead->lock);
    return counts;
}
