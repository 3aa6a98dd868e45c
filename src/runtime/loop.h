/*
 * Loop: one thread, one libuv loop, one scheduler.  Everything that waits for the outside does so
 * here.
 *
 * A loop never blocks: files, DNS, SQLite, wasm live on other threads and talk to it by loop_post /
 * mailboxes.  loop_post and loop_stop are the only functions that other threads may call.
 *
 * Each LOOP_REST_MS, busy or idle, it gives back half of the stacks and arena chunks that nobody
 * needed since the last time (base/spare.h): what a burst made large is small a minute later.
 */
#ifndef NEXUS_RUNTIME_LOOP_H
#define NEXUS_RUNTIME_LOOP_H

#include "runtime/context.h"

struct loop;
typedef struct uv_loop_s uv_loop_t;

/* NULL on failure; at most LOOP_COUNT_MAX at a time.  Deadlines are waited for in real time: the
 * clock must be the system's. */
struct loop *loop_create(struct clock *clock, struct random *random, struct error *e);
void loop_destroy(struct loop *loop); /* not running; runs the posts that came too late for it */
/* On the calling thread, until loop_stop was called, no coroutine lives and every handle on loop_uv
   is closed.  Stopping cancels nothing: the owners do that first.  A loop that takes long to stop
   logs whom it waits for. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread */
/* loop_run on a new thread. */
must_check bool loop_start_thread(struct loop *loop, const char *name, struct error *e);
void loop_join_thread(struct loop *loop);

struct loop *loop_current(void); /* of this thread, or NULL */
struct scheduler *loop_scheduler(struct loop *loop);
uv_loop_t *loop_uv(struct loop *loop); /* for net/ only */
/* 0.. in order of creation, < LOOP_COUNT_MAX; a destroyed loop's is used again. */
int loop_index(const struct loop *loop);

/* Runs fn(argument) on the loop's thread, soon, in order per sender.  Any thread.  Wake-ups
   coalesce.  The queue is unbounded by itself: each user bounds what it has in flight (mailbox,
   blocking pool, store). */
void loop_post(struct loop *loop, void (*fn)(void *argument), void *argument);

/* Runs at the end of each loop turn in which it was armed (flush writes, send batches). */
struct turn_end {
    struct list link; /* zeroed at first */
    void (*run)(struct turn_end *turn_end);
};
void loop_at_turn_end(struct loop *loop, struct turn_end *turn_end); /* idempotent until it ran */

/* Runs once when the loop ends, after its last coroutine: whoever keeps a handle on loop_uv between
   calls closes it there.  Removing: list_remove(&at_stop->link). */
struct at_stop {
    struct list link; /* zeroed at first */
    void (*run)(struct at_stop *at_stop);
};
void loop_at_stop(struct loop *loop, struct at_stop *at_stop);

/*
 * Runs fn(argument) on the blocking pool and suspends the calling coroutine until it is done.
 * Work that has begun cannot be interrupted: on cancel or deadline the call returns false only
 * after fn has returned, so argument may live on the caller's stack; what fn made is then in
 * argument all the same and is the caller's to clean up.  Work that has not begun is taken back.
 * UNAVAILABLE (OVERLOADED_HERE) past BLOCKING_QUEUE_MAX.
 * On a scheduler without a loop (simulation) fn runs at once.
 */
may_suspend bool blocking_call(struct context *ctx, void (*fn)(void *argument), void *argument,
                               struct error *e);
/* At exit: finishes what is queued, joins the threads; the next call would start them again. */
void blocking_pool_stop(void);

#endif
