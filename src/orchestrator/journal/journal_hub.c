/*
 * The hub: who follows which run, over all loops.
 *
 * A short lock guards the table and the tails (journal_tail.h); a follower itself belongs to its loop.  A wake-up crosses threads as a posted call that holds a
 * reference, so that unfollowing never races with it; posts to one follower coalesce while one is on its way.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/journal/journal.h"
#include "orchestrator/journal/journal_tail.h"
#include "runtime/loop.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BUCKET_COUNT = 1024 };

struct journal_hub {
    pthread_mutex_t lock;
    int64_t writers;                   /* that ever began */
    struct list buckets[BUCKET_COUNT]; /* of journal_follower.link */
};

/* The newest events of a run, shared by its followers; the hub's lock guards it. */
struct shared_tail {
    struct journal_tail *tail;
    int followers;
};

struct journal_follower {
    struct list link;
    struct journal_hub *hub;
    struct shared_tail *shared;
    uuid run_id;
    struct loop *loop; /* NULL: no loop, publisher and follower share the thread (simulation) */
    struct condition changed;
    _Atomic int64_t newest;
    _Atomic bool is_posted;
    _Atomic int references;
    bool is_closed;
};

struct journal_hub *journal_hub_create(void)
{
    struct journal_hub *hub = calloc(1, sizeof *hub);
    ensure(hub != NULL);
    pthread_mutex_init(&hub->lock, NULL);
    for (size_t i = 0; i < BUCKET_COUNT; i++)
        list_init(&hub->buckets[i]);
    return hub;
}

void journal_hub_destroy(struct journal_hub *hub)
{
    if (!hub)
        return;
    for (size_t i = 0; i < BUCKET_COUNT; i++)
        ensure(list_is_empty(&hub->buckets[i]));
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}

/* The last bytes of a UUIDv7 are random. */
static struct list *bucket_of(struct journal_hub *hub, uuid run_id)
{
    return &hub->buckets[(run_id.bytes[15] | run_id.bytes[14] << 8) % BUCKET_COUNT];
}

static void unreference(struct journal_follower *follower)
{
    if (atomic_fetch_sub(&follower->references, 1) == 1)
        free(follower);
}

static struct journal_follower *find_follower(struct journal_hub *hub, uuid run_id)
{
    LIST_EACH(node, bucket_of(hub, run_id))
    {
        struct journal_follower *follower = LIST_ITEM(node, struct journal_follower, link);
        if (uuid_equal(follower->run_id, run_id))
            return follower;
    }
    return NULL;
}

static struct shared_tail *share_tail(struct journal_hub *hub, uuid run_id)
{
    struct journal_follower *other = find_follower(hub, run_id);
    if (other) {
        other->shared->followers++;
        return other->shared;
    }
    struct shared_tail *shared = malloc(sizeof *shared);
    ensure(shared != NULL);
    *shared = (struct shared_tail){.tail = journal_tail_create(), .followers = 1};
    return shared;
}

static void leave_tail(struct shared_tail *shared)
{
    if (--shared->followers > 0)
        return;
    journal_tail_destroy(shared->tail);
    free(shared);
}

struct journal_follower *journal_follow(struct journal_hub *hub, struct context *ctx, uuid run_id)
{
    (void) ctx;
    struct journal_follower *follower = calloc(1, sizeof *follower);
    ensure(follower != NULL);
    follower->hub = hub;
    follower->run_id = run_id;
    follower->loop = loop_current();
    follower->references = 1;
    condition_init(&follower->changed);
    pthread_mutex_lock(&hub->lock);
    follower->shared = share_tail(hub, run_id);
    list_push_back(bucket_of(hub, run_id), &follower->link);
    pthread_mutex_unlock(&hub->lock);
    return follower;
}

void journal_unfollow(struct journal_follower *follower)
{
    pthread_mutex_lock(&follower->hub->lock);
    list_remove(&follower->link);
    leave_tail(follower->shared);
    pthread_mutex_unlock(&follower->hub->lock);
    follower->is_closed = true;
    unreference(follower);
}

/* On the follower's own thread. */
static void deliver(void *argument)
{
    struct journal_follower *follower = argument;
    atomic_store(&follower->is_posted, false);
    if (!follower->is_closed)
        condition_broadcast(&follower->changed);
    unreference(follower);
}

bool journal_is_followed(struct journal_hub *hub, uuid run_id)
{
    pthread_mutex_lock(&hub->lock);
    bool is_followed = find_follower(hub, run_id) != NULL;
    pthread_mutex_unlock(&hub->lock);
    return is_followed;
}

int64_t journal_begin(struct journal_hub *hub, uuid run_id)
{
    pthread_mutex_lock(&hub->lock);
    int64_t number = ++hub->writers;
    struct journal_follower *follower = find_follower(hub, run_id);
    if (follower)
        journal_tail_begin(follower->shared->tail);
    pthread_mutex_unlock(&hub->lock);
    return number;
}

void journal_offer(struct journal_hub *hub, uuid run_id, int64_t writer, const struct event *event,
                   str data)
{
    pthread_mutex_lock(&hub->lock);
    struct journal_follower *follower = find_follower(hub, run_id);
    if (follower)
        journal_tail_offer(follower->shared->tail, writer, event, data);
    pthread_mutex_unlock(&hub->lock);
}

bool journal_follower_read(struct journal_follower *follower, struct store *store,
                           struct context *ctx, uuid tenant_id, int64_t after_seq, size_t limit,
                           struct events *out, struct error *e)
{
    str texts[JOURNAL_TAIL_EVENTS];
    out->items = ARENA_ARRAY(ctx->arena, struct event, JOURNAL_TAIL_EVENTS);
    pthread_mutex_lock(&follower->hub->lock);
    out->count = journal_tail_read(follower->shared->tail, after_seq,
                                   limit < JOURNAL_TAIL_EVENTS ? limit : JOURNAL_TAIL_EVENTS,
                                   ctx->arena, out->items, texts);
    pthread_mutex_unlock(&follower->hub->lock);
    if (out->count == 0)
        return journal_read(store, ctx, tenant_id, follower->run_id, after_seq, limit, out, e);
    for (size_t i = 0; i < out->count; i++)
        if (!json_parse(ctx->arena, texts[i], (struct json_limits){0}, &out->items[i].data, e))
            return error_wrap(e, "journal event %lld", (long long) out->items[i].seq);
    if (FAULT("plant.lost-event")) { /* a bug put in on purpose: a reader misses one */
        out->items++;
        out->count--;
    }
    return true;
}

void journal_publish(struct journal_hub *hub, uuid run_id, int64_t writer, int64_t seq)
{
    pthread_mutex_lock(&hub->lock);
    struct journal_follower *first = find_follower(hub, run_id);
    if (first)
        journal_tail_commit(first->shared->tail, writer, seq);
    LIST_EACH(node, bucket_of(hub, run_id))
    {
        struct journal_follower *follower = LIST_ITEM(node, struct journal_follower, link);
        if (!uuid_equal(follower->run_id, run_id))
            continue;
        if (atomic_load(&follower->newest) < seq)
            atomic_store(&follower->newest, seq);
        if (atomic_exchange(&follower->is_posted, true))
            continue;
        atomic_fetch_add(&follower->references, 1);
        if (follower->loop)
            loop_post(follower->loop, deliver, follower);
        else
            deliver(follower);
    }
    pthread_mutex_unlock(&hub->lock);
}

bool journal_wait(struct journal_follower *follower, struct context *ctx, int64_t seen,
                  int64_t deadline_ns, struct error *e)
{
    if (atomic_load(&follower->newest) > seen)
        return true;
    return condition_wait_until(&follower->changed, ctx, deadline_ns, e);
}
