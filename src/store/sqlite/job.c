#include "store/sqlite/job_internal.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <errno.h>
#include <time.h>

void job_queue_init(struct job_queue *queue, size_t count_max, size_t bytes_max)
{
    *queue = (struct job_queue){.count_max = count_max, .bytes_max = bytes_max};
    queue->last = &queue->first;
    pthread_condattr_t attributes;
    ensure(pthread_condattr_init(&attributes) == 0);
    ensure(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    ensure(pthread_cond_init(&queue->changed, &attributes) == 0);
    ensure(pthread_mutex_init(&queue->lock, NULL) == 0);
    pthread_condattr_destroy(&attributes);
}

void job_queue_deinit(struct job_queue *queue)
{
    ensure(queue->count == 0);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool is_urgent(const struct job *job)
{
    return job->finish == NULL;
}

/* Worth a transaction now: somebody waits, or it is full. */
static bool is_due(const struct job_queue *queue)
{
    return queue->urgent_count > 0 || queue->rows >= STORE_GROUP_ROWS_MAX || queue->is_closed;
}

bool job_queue_put(struct job_queue *queue, struct job *job, struct error *e)
{
    pthread_mutex_lock(&queue->lock);
    bool is_closed = queue->is_closed;
    bool is_full = queue->count >= queue->count_max || queue->bytes + job->bytes > queue->bytes_max;
    if (!is_closed && !is_full) {
        job->next = NULL;
        *queue->last = job;
        queue->last = &job->next;
        bool was_empty = queue->count == 0, was_due = is_due(queue);
        queue->count++;
        queue->bytes += job->bytes;
        queue->rows += job->row_count;
        queue->urgent_count += is_urgent(job);
        if (was_empty && !is_urgent(job))
            queue->oldest_ns = now_ns();
        if (is_urgent(job) || was_empty || (!was_due && is_due(queue)))
            pthread_cond_signal(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
    if (is_closed)
        return error_set(e, REASON_DRAINING, "the store is being closed");
    return !is_full ||
           error_set(e, REASON_OVERLOADED_HERE, "the store has too much work queued: try again");
}

static bool wait_until(struct job_queue *queue, int64_t until_ns)
{
    struct timespec at = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    return pthread_cond_timedwait(&queue->changed, &queue->lock, &at) != ETIMEDOUT;
}

/* What nobody waits for may stay a while; only the writer gets such jobs, and it is alone. */
static void let_gather(struct job_queue *queue)
{
    while (queue->first && !is_due(queue) &&
           wait_until(queue, queue->oldest_ns + STORE_SUBMIT_DELAY_MS * INT64_C(1000000)))
        ;
}

enum take job_queue_take(struct job_queue *queue, size_t rows_max, int idle_ms, struct job **out)
{
    int64_t until_ns = now_ns() + (int64_t) (idle_ms < 0 ? 0 : idle_ms) * 1000000;
    enum take result = TAKE_JOBS;
    pthread_mutex_lock(&queue->lock);
    while (!queue->first && !queue->is_closed && result == TAKE_JOBS) {
        if (idle_ms < 0)
            pthread_cond_wait(&queue->changed, &queue->lock);
        else if (!wait_until(queue, until_ns))
            result = TAKE_IDLE;
    }
    if (!queue->work)
        let_gather(queue);
    if (queue->first)
        result = TAKE_JOBS;
    else if (queue->is_closed)
        result = TAKE_CLOSED;
    struct job **end = &queue->first;
    for (size_t rows = 0; *end && (end == &queue->first || rows + (*end)->row_count <= rows_max);
         end = &(*end)->next) {
        rows += (*end)->row_count;
        queue->count--;
        queue->bytes -= (*end)->bytes;
        queue->rows -= (*end)->row_count;
        queue->urgent_count -= is_urgent(*end);
    }
    *out = queue->first;
    queue->first = *end;
    *end = NULL;
    if (!queue->first)
        queue->last = &queue->first;
    else if (!is_due(queue))
        queue->oldest_ns = now_ns();
    pthread_mutex_unlock(&queue->lock);
    return result;
}

void job_queue_close(struct job_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->is_closed = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

static void job_wake(void *argument)
{
    struct job *job = argument;
    waiter_wake(&job->waiter);
}

void job_finish(struct job *job, bool is_ok)
{
    job->is_ok = is_ok;
    if (job->finish)
        job->finish(job, is_ok, &job->error);
    else if (job->is_inline)
        job_wake(job);
    else if (job->loop)
        loop_post(job->loop, job_wake, job);
    else
        sem_post(&job->done);
}

static void wait_on_thread(struct job_queue *queue, struct job *job)
{
    while (queue->work && sem_trywait(&job->done) != 0)
        queue->work(queue->owner);
    while (!queue->work && sem_wait(&job->done) != 0)
        ensure(errno == EINTR);
}

bool job_do(struct job_queue *queue, struct context *ctx, struct job *job, struct error *e)
{
    bool is_coroutine = coroutine_is_running();
    job->is_inline = queue->work && is_coroutine;
    job->loop = !queue->work && is_coroutine ? loop_current() : NULL;
    job->deadline_ns = ctx->deadline_ns;
    bool may_suspend_here = job->loop || job->is_inline;
    if (may_suspend_here) {
        context_init(&job->waiting, ctx->scheduler, ctx->arena, DEADLINE_NONE);
        waiter_init(&job->waiter, &job->waiting);
    } else {
        ensure(sem_init(&job->done, 0, 0) == 0);
    }
    bool is_queued = job_queue_put(queue, job, e);
    if (is_queued && may_suspend_here)
        ensure(waiter_wait(&job->waiter, &job->error)); /* nothing but the end can end it */
    else if (is_queued)
        wait_on_thread(queue, job);
    if (may_suspend_here)
        context_deinit(&job->waiting);
    else
        sem_destroy(&job->done);
    return is_queued && (job->is_ok || error_copy(e, &job->error));
}
