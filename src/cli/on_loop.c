#include "cli/on_loop.h"

#include "base/arena.h"

#include <errno.h>
#include <stdatomic.h>

static void job_done(struct on_loop *job)
{
    atomic_store(&job->is_done, true);
    sem_post(&job->done);
}

static void job_main(void *argument)
{
    struct on_loop *job = argument;
    OWNED(arena) arena = arena_create(64u << 20);
    struct context ctx;
    context_init(&ctx, loop_scheduler(job->loop), arena, DEADLINE_NONE);
    if (job->timeout_ms > 0)
        ctx.deadline_ns = context_deadline_in(&ctx, job->timeout_ms);
    job->ctx = &ctx;
    if (job->is_cancel_wanted)
        context_cancel(&ctx);
    job->is_ok = job->fn(&ctx, job->argument, &job->error);
    job->ctx = NULL;
    context_deinit(&ctx);
    job_done(job);
}

static void job_start(void *argument)
{
    struct on_loop *job = argument;
    if (!coroutine_start(loop_scheduler(job->loop), job->name, job_main, job, &job->error))
        job_done(job);
}

static void job_cancel(void *argument)
{
    struct on_loop *job = argument;
    job->is_cancel_wanted = true;
    if (job->ctx)
        context_cancel(job->ctx);
}

void on_loop_begin(struct on_loop *job, struct loop *loop, const char *name, int64_t timeout_ms,
                   on_loop_fn *fn, void *argument)
{
    *job = (struct on_loop){
        .loop = loop, .name = name, .fn = fn, .argument = argument, .timeout_ms = timeout_ms};
    sem_init(&job->done, 0, 0);
    loop_post(loop, job_start, job);
}

bool on_loop_is_done(struct on_loop *job)
{
    return atomic_load(&job->is_done);
}

static void post_nothing(void *argument)
{
    sem_post(argument);
}

void on_loop_cancel(struct on_loop *job)
{
    /* Waits until the loop has seen it, so that the job's memory is not touched after on_loop_wait. */
    sem_t seen;
    sem_init(&seen, 0, 0);
    loop_post(job->loop, job_cancel, job);
    loop_post(job->loop, post_nothing, &seen);
    while (sem_wait(&seen) != 0 && errno == EINTR)
        continue;
    sem_destroy(&seen);
}

bool on_loop_wait_for(struct on_loop *job, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    int failed;
    while ((failed = sem_clockwait(&job->done, CLOCK_MONOTONIC, &until)) != 0 && errno == EINTR)
        continue;
    if (failed)
        return false;
    sem_post(&job->done); /* for on_loop_wait */
    return true;
}

void on_loop_join(struct on_loop *job)
{
    while (sem_wait(&job->done) != 0 && errno == EINTR)
        continue;
    sem_destroy(&job->done);
}

bool on_loop_wait(struct on_loop *job, struct error *e)
{
    on_loop_join(job);
    return job->is_ok || error_copy(e, &job->error);
}

bool on_loop_call(struct loop *loop, const char *name, int64_t timeout_ms, on_loop_fn *fn,
                  void *argument, struct error *e)
{
    struct on_loop job;
    on_loop_begin(&job, loop, name, timeout_ms, fn, argument);
    return on_loop_wait(&job, e);
}
