#include "orchestrator/usage/usage_log.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/orchestrator.h"
#include "orchestrator/usage/usage_pending_internal.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { CLOSE_WAIT_S = 10, RETRIES_PER_FLUSH = 64 };

/* One take of the ledger's and the log's, until all its batches are stored or given up. */
struct usage_flush {
    struct usage_log *log;
    struct ledger_taken *taken;
    struct usage_pending *pending;
    struct arena *arena; /* of the batches */
    _Atomic size_t open; /* batches that are not done, and one for whoever builds them */
};
struct usage_batch {
    struct list link; /* in log.retries */
    struct usage_flush *flush;
    struct batch batch;
    int tries;
    int64_t due_ns;
};

struct usage_log {
    struct usage_log_parts parts;
    struct usage_meters_common meters;
    pthread_mutex_t lock; /* of `pending` */
    struct usage_pending *pending;
    pthread_mutex_t flush_lock; /* one flush at a time, so that batches keep their order */
    uuid last_chunk_id;
    pthread_mutex_t done_lock; /* of what follows; taken by the store's threads */
    pthread_cond_t done;
    struct list retries;
    size_t in_flight; /* takes that are not stored */
    _Atomic bool is_armed;
    struct timer timer;
    struct scheduler *armed_on;
};

/* ---- when ---- */

static void fire(struct timer *timer)
{
    struct usage_log *log = CONTAINER_OF(timer, struct usage_log, timer);
    log->armed_on = NULL;
    atomic_store(&log->is_armed, false);
    usage_log_flush(log, false);
}

static void arm_here(void *argument)
{
    struct usage_log *log = argument;
    log->armed_on = scheduler_current() ? scheduler_current() : log->parts.lane->scheduler;
    timer_arm(log->armed_on, &log->timer,
              clock_monotonic_ns(log->parts.clock) + USAGE_FLUSH_MS * 1000000ll);
}

static void want_flush(void *owner)
{
    struct usage_log *log = owner;
    if (atomic_exchange(&log->is_armed, true))
        return;
    if (scheduler_current())
        arm_here(log);
    else
        log->parts.lane->post(log->parts.lane, arm_here, log);
}

static void settle_for_room(void *owner, struct context *ctx)
{
    struct error e = {0}; /* then there is no room yet, and the call says so */
    (void) !usage_log_sync(owner, ctx, &e);
}

/* ---- life ---- */

struct usage_log *usage_log_create(const struct usage_log_parts *parts)
{
    struct usage_log *log = calloc(1, sizeof *log);
    ensure(log != NULL);
    log->parts = *parts;
    log->timer.fire = fire;
    list_init(&log->retries);
    pthread_mutex_init(&log->lock, NULL);
    pthread_mutex_init(&log->flush_lock, NULL);
    pthread_mutex_init(&log->done_lock, NULL);
    pthread_cond_init(&log->done, NULL);
    usage_meters_init(&log->meters, parts->metrics);
    ledger_set_hooks(parts->ledger, (struct ledger_hooks){want_flush, settle_for_room, log});
    return log;
}

static void give_up(struct usage_log *log);

void usage_log_destroy(struct usage_log *log)
{
    if (!log)
        return;
    usage_log_flush(log, true);
    ledger_set_hooks(log->parts.ledger, (struct ledger_hooks){0});
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_WAIT_S;
    give_up(log);
    pthread_mutex_lock(&log->done_lock);
    while (log->in_flight > 0 && pthread_cond_timedwait(&log->done, &log->done_lock, &until) == 0)
        continue;
    bool is_idle = log->in_flight == 0;
    pthread_mutex_unlock(&log->done_lock);
    give_up(log);
    if (log->armed_on)
        timer_disarm(log->armed_on, &log->timer);
    usage_pending_destroy(log->pending);
    if (!is_idle) { /* the store still holds it: memory that somebody may write to is not freed */
        LOG_WARN("orchestrator.usage", S("the store did not take the last usage records in time"));
        return;
    }
    pthread_mutex_destroy(&log->lock);
    pthread_mutex_destroy(&log->flush_lock);
    pthread_mutex_destroy(&log->done_lock);
    pthread_cond_destroy(&log->done);
    free(log);
}

/* ---- adding ---- */

void usage_log_add(struct usage_log *log, uuid tenant_id, const struct usage_record *record)
{
    pthread_mutex_lock(&log->lock);
    if (!log->pending)
        log->pending = usage_pending_create();
    size_t count =
        usage_pending_add(log->pending, &log->meters, log->parts.metrics, tenant_id, record);
    pthread_mutex_unlock(&log->lock);
    want_flush(log);
    if (count == USAGE_CHUNK_RECORDS)
        usage_log_flush(log, false);
}

/* ---- the end of a batch ---- */

static void flush_put(struct usage_flush *flush)
{
    struct usage_log *log = flush->log;
    if (atomic_fetch_sub(&flush->open, 1) != 1)
        return;
    ledger_taken_destroy(log->parts.ledger, flush->taken);
    usage_pending_destroy(flush->pending);
    arena_destroy(flush->arena);
    free(flush);
    pthread_mutex_lock(&log->done_lock);
    log->in_flight--;
    pthread_cond_broadcast(&log->done);
    pthread_mutex_unlock(&log->done_lock);
}

static void stored(const struct batch_notice *notice)
{
    struct usage_batch *batch = notice->owner;
    struct usage_flush *flush = batch->flush;
    if (flush->taken)
        ledger_taken_stored(flush->log->parts.ledger, flush->taken, batch->batch.tenant_id);
    flush_put(flush);
}

/* What comes from the store's state and not from the batch passes. */
static bool may_pass(const struct error *why)
{
    return why->code == ERROR_UNAVAILABLE || why->code == ERROR_TIMEOUT ||
           why->reason == REASON_STORE || why->reason == REASON_OUTCOME_UNKNOWN ||
           why->reason == REASON_DISK_FULL;
}

/* Conflict at a second try: the chunk's row is there, so the first had been stored after all. */
static void not_stored(const struct batch_notice *notice, const struct error *why)
{
    struct usage_batch *batch = notice->owner;
    struct usage_log *log = batch->flush->log;
    batch->tries++;
    if (batch->tries > 1 && why->reason == REASON_CONFLICT) {
        stored(notice);
        return;
    }
    if (batch->tries >= USAGE_WRITE_TRIES_MAX && !may_pass(why)) {
        LOG_ERROR("orchestrator.usage", S("usage records were given up"), why);
        flush_put(batch->flush);
        return;
    }
    int64_t wait_ms = (int64_t) batch->tries * USAGE_RETRY_MS;
    if (wait_ms > USAGE_RETRY_MAX_MS)
        wait_ms = USAGE_RETRY_MAX_MS;
    batch->due_ns = clock_monotonic_ns(log->parts.clock) + wait_ms * 1000000ll;
    pthread_mutex_lock(&log->done_lock);
    list_push_back(&log->retries, &batch->link);
    pthread_mutex_unlock(&log->done_lock);
    want_flush(log);
}

static struct usage_batch *next_retry(struct usage_log *log, int64_t due_ns)
{
    pthread_mutex_lock(&log->done_lock);
    struct list *first = list_first(&log->retries);
    struct usage_batch *batch = first ? LIST_ITEM(first, struct usage_batch, link) : NULL;
    if (batch && batch->due_ns > due_ns)
        batch = NULL;
    if (batch)
        list_remove(&batch->link);
    pthread_mutex_unlock(&log->done_lock);
    return batch;
}

static bool has_retries(struct usage_log *log)
{
    pthread_mutex_lock(&log->done_lock);
    bool has = !list_is_empty(&log->retries);
    pthread_mutex_unlock(&log->done_lock);
    return has;
}

static void give_up(struct usage_log *log)
{
    for (struct usage_batch *batch; (batch = next_retry(log, INT64_MAX));) {
        LOG_WARN("orchestrator.usage", S("usage records were given up at the end"));
        flush_put(batch->flush);
    }
}

static void submit(struct usage_log *log, struct usage_batch *batch)
{
    struct error e = {0};
    if (!store_submit(log->parts.store, &batch->batch, &e))
        not_stored(&batch->batch.notice, &e);
}

/* ---- building ---- */

static struct usage_batch *batch_for(struct usage_flush *flush, uuid tenant_id)
{
    struct usage_batch *made = ARENA_NEW(flush->arena, struct usage_batch);
    made->flush = flush;
    batch_init(&made->batch, flush->arena, tenant_id);
    made->batch.fault = "usage";
    made->batch.notice = (struct batch_notice){.run = stored, .failed = not_stored, .owner = made};
    atomic_fetch_add(&flush->open, 1);
    return made;
}

/* Chunks are listed by id: a later one has a greater id even within a millisecond. */
static uuid next_chunk_id(struct usage_log *log)
{
    uuid id = uuid_new(log->parts.clock, log->parts.random);
    if (memcmp(id.bytes, log->last_chunk_id.bytes, sizeof id.bytes) <= 0) {
        id = log->last_chunk_id;
        for (size_t i = sizeof id.bytes; i > 9 && ++id.bytes[i - 1] == 0;)
            i--;
    }
    log->last_chunk_id = id;
    return id;
}

static void build_and_submit(struct usage_log *log, struct usage_flush *flush, uuid tenant_id)
{
    struct usage_batch *made = batch_for(flush, tenant_id);
    if (flush->pending)
        usage_pending_write(flush->pending, log->parts.clock, log->parts.random, next_chunk_id(log),
                            &made->batch);
    if (flush->taken)
        ledger_taken_write(log->parts.ledger, flush->taken, &made->batch);
    if (made->batch.count > 0)
        submit(log, made);
    else
        flush_put(flush);
}

static bool is_known(const uuid *tenants, size_t count, uuid tenant_id)
{
    for (size_t i = 0; i < count; i++)
        if (uuid_equal(tenants[i], tenant_id))
            return true;
    return false;
}

static void submit_all(struct usage_log *log, struct usage_flush *flush)
{
    uuid *tenants = NULL;
    size_t count = 0;
    if (flush->taken)
        ledger_taken_tenants(flush->taken, flush->arena, &tenants, &count);
    for (size_t i = 0; i < count; i++)
        build_and_submit(log, flush, tenants[i]);
    for (size_t i = 0; flush->pending && i < usage_pending_tenant_count(flush->pending); i++) {
        uuid tenant_id = usage_pending_tenant(flush->pending, i);
        if (!is_known(tenants, count, tenant_id))
            build_and_submit(log, flush, tenant_id);
    }
}

/* What was added first is taken last: a settlement that the take of the ledger misses comes after its record, never before. */
static void take_and_submit(struct usage_log *log, bool is_forced)
{
    struct usage_flush *flush = calloc(1, sizeof *flush);
    ensure(flush != NULL);
    flush->log = log;
    flush->taken = ledger_take(log->parts.ledger, is_forced);
    pthread_mutex_lock(&log->lock);
    flush->pending = log->pending;
    log->pending = NULL;
    pthread_mutex_unlock(&log->lock);
    if (!flush->taken && !flush->pending) {
        free(flush);
        return;
    }
    flush->arena = arena_create(256u << 20);
    atomic_store(&flush->open, 1);
    pthread_mutex_lock(&log->done_lock);
    log->in_flight++;
    pthread_mutex_unlock(&log->done_lock);
    submit_all(log, flush);
    flush_put(flush);
}

void usage_log_flush(struct usage_log *log, bool is_forced)
{
    int64_t now_ns = is_forced ? INT64_MAX : clock_monotonic_ns(log->parts.clock);
    pthread_mutex_lock(&log->flush_lock);
    size_t retries = 0;
    for (struct usage_batch *batch;
         retries < RETRIES_PER_FLUSH && (batch = next_retry(log, now_ns)); retries++)
        submit(log, batch);
    if (!has_retries(log))
        take_and_submit(log, is_forced);
    pthread_mutex_unlock(&log->flush_lock);
    if (has_retries(log) || ledger_has_free_leases(log->parts.ledger))
        want_flush(log);
}

bool usage_log_sync(struct usage_log *log, struct context *ctx, struct error *e)
{
    struct batch nothing;
    usage_log_flush(log, true);
    batch_init(&nothing, ctx->arena, UUID_NONE);
    return store_commit(log->parts.store, ctx, &nothing, e); /* the store's queue is in order */
}
