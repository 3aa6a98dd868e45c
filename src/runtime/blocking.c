#include "runtime/loop.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/context_internal.h"
#include "runtime/thread_internal.h"
#include <stdio.h>

/* One call; on the stack of the coroutine that waits for it. */
struct blocking_job {
    struct list link; /* in pool.queue until a thread takes it */
    void (*fn)(void *argument);
    void *argument;
    struct loop *loop;
    struct waiter done;
};

/* One pool per process: threads are for the machine, not for a loop.  The lock is held for a few
 * instructions. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list queue;
    size_t queue_count;
    size_t thread_count;
    bool is_stopping;
    pthread_t threads[BLOCKING_THREADS];
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .changed = PTHREAD_COND_INITIALIZER,
    .queue = {&pool.queue, &pool.queue},
};

static void on_done(void *argument)
{
    waiter_wake(&((struct blocking_job *) argument)->done);
}

/* The next job; NULL when the pool stops and nothing is left. */
static struct blocking_job *next_job(void)
{
    pthread_mutex_lock(&pool.lock);
    while (list_is_empty(&pool.queue) && !pool.is_stopping)
        pthread_cond_wait(&pool.changed, &pool.lock);
    struct list *node = list_pop_front(&pool.queue);
    if (node)
        pool.queue_count--;
    pthread_mutex_unlock(&pool.lock);
    return node ? LIST_ITEM(node, struct blocking_job, link) : NULL;
}

static void *worker_main(void *argument)
{
    (void) argument;
    struct blocking_job *job;
    while ((job = next_job()) != NULL) {
        job->fn(job->argument);
        loop_post(job->loop, on_done, job); /* from here on the job may be gone */
    }
    return NULL;
}

/* With the lock.  Fewer threads than wanted will do; none will not. */
static bool start_threads(struct error *e)
{
    while (pool.thread_count < BLOCKING_THREADS) {
        char name[16];
        snprintf(name, sizeof name, "blocking-%zu", pool.thread_count);
        if (!thread_start(&pool.threads[pool.thread_count], name, worker_main, NULL, e))
            return pool.thread_count > 0;
        pool.thread_count++;
    }
    return true;
}

static bool submit(struct blocking_job *job, struct error *e)
{
    bool ok = false;
    pthread_mutex_lock(&pool.lock);
    if (pool.is_stopping)
        error_set(e, REASON_DRAINING, "the blocking pool is stopping");
    else if (pool.queue_count >= BLOCKING_QUEUE_MAX)
        error_set(e, REASON_OVERLOADED_HERE, "%d blocking calls are queued already",
                  BLOCKING_QUEUE_MAX);
    else
        ok = start_threads(e);
    if (ok) {
        list_push_back(&pool.queue, &job->link);
        pool.queue_count++;
        pthread_cond_signal(&pool.changed);
    }
    pthread_mutex_unlock(&pool.lock);
    return ok;
}

/* True when no thread had begun it; then none will. */
static bool take_back(struct blocking_job *job)
{
    pthread_mutex_lock(&pool.lock);
    bool was_queued = list_is_linked(&job->link);
    if (was_queued) {
        list_remove(&job->link);
        pool.queue_count--;
    }
    pthread_mutex_unlock(&pool.lock);
    return was_queued;
}

bool blocking_call(struct context *ctx, void (*fn)(void *argument), void *argument, struct error *e)
{
    if (!context_check(ctx, e))
        return false;
    struct loop *loop = loop_current();
    if (!loop || loop_scheduler(loop) != ctx->scheduler) {
        coroutine_on_thread_stack(fn, argument);
        return true;
    }
    struct blocking_job job = {.fn = fn, .argument = argument, .loop = loop};
    list_init(&job.link);
    waiter_init(&job.done, ctx);
    if (!submit(&job, e))
        return false;
    if (waiter_wait(&job.done, e))
        return true;
    if (!take_back(&job))
        waiter_join(&job.done);
    return false;
}

void blocking_pool_stop(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.is_stopping = true;
    pthread_cond_broadcast(&pool.changed);
    size_t count = pool.thread_count;
    pthread_mutex_unlock(&pool.lock);
    for (size_t i = 0; i < count; i++)
        ensure(pthread_join(pool.threads[i], NULL) == 0);
    pthread_mutex_lock(&pool.lock);
    pool.thread_count = 0;
    pool.is_stopping = false;
    pthread_mutex_unlock(&pool.lock);
}
