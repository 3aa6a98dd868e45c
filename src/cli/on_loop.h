/*
 * On-loop: a coroutine started and awaited by a thread that runs no loop (the main thread: start-up, shut-down, commands).
 *
 *      begin --> coroutine runs on the loop --> done       wait blocks the calling thread; cancel asks the coroutine to stop
 *
 * The job lives in the caller's memory until on_loop_wait or a true on_loop_is_done.
 * Thread: begin, wait, is_done, cancel from the one thread that began it.
 */
#ifndef NEXUS_CLI_ON_LOOP_H
#define NEXUS_CLI_ON_LOOP_H

#include "runtime/loop.h"

#include <semaphore.h>

typedef bool on_loop_fn(struct context *ctx, void *argument, struct error *e);

struct on_loop {
    struct loop *loop;
    const char *name;
    on_loop_fn *fn;
    void *argument;
    int64_t timeout_ms;  /* 0: none */
    struct context *ctx; /* while it runs; the loop's */
    bool is_cancel_wanted;
    bool is_ok;
    struct error error;
    _Atomic bool is_done;
    sem_t done;
};

void on_loop_begin(struct on_loop *job, struct loop *loop, const char *name, int64_t timeout_ms,
                   on_loop_fn *fn, void *argument);
bool on_loop_is_done(struct on_loop *job);
void on_loop_cancel(struct on_loop *job); /* not after it was waited for */
must_check bool on_loop_wait(struct on_loop *job, struct error *e);
bool on_loop_wait_for(struct on_loop *job,
                      int64_t ms); /* is it done within that time?  It is still to be waited for */
void on_loop_join(struct on_loop *job); /* on_loop_wait, when the outcome does not matter */
/* begin and wait. */
must_check bool on_loop_call(struct loop *loop, const char *name, int64_t timeout_ms,
                             on_loop_fn *fn, void *argument, struct error *e);

#endif
