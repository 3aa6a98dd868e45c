/*
 * Scheduler: coroutines, ready queue and timers of one loop; no I/O and no thread of its own.
 *
 * The libuv loop drives one (loop.h); the simulation drives one by itself with a simulated clock,
 * so the same object files of the core run under both.
 *
 *      coroutine_start --> READY --run--> RUNNING --return--> DONE
 *                            ^               | wait
 *                            +--- wake --- WAITING          (wake-up, deadline or cancellation)
 *
 * - A coroutine belongs to one scheduler for life and never changes thread.
 * - Wake-ups append to a FIFO that scheduler_run_ready drains: no recursion; a double wake-up is
 *   harmless.
 * - `pick` (simulation) chooses which ready coroutine runs next; NULL is FIFO.
 * - Stacks: COROUTINE_STACK_BYTES reserved in slabs with guards, pooled; about 4-12 KiB are really
 *   touched.  Foreign deep code (Rust, wasm compile, getaddrinfo) does not run on them:
 *   coroutine_on_thread_stack().
 * Thread: the one that runs the scheduler; only loop.h's functions may be called from others.
 */
#ifndef NEXUS_RUNTIME_SCHEDULER_H
#define NEXUS_RUNTIME_SCHEDULER_H

#include "base/error.h"
#include "base/list.h"
#include "runtime/clock.h"

struct scheduler;
struct coroutine;

struct scheduler_hooks {
    void *owner;
    /* Called when the ready queue goes from empty to not empty, or the nearest timer got nearer;
       both may be NULL.  Silent inside scheduler_run_ready and scheduler_run_timers respectively,
       whose results tell the same. */
    void (*became_ready)(void *owner);
    void (*timer_changed)(void *owner, int64_t next_deadline_ns);
    /* Chooses among `count` ready coroutines (count >= 1); NULL: the first. */
    size_t (*pick)(void *owner, size_t count);
};

struct scheduler *scheduler_create(struct clock *clock, struct random *random,
                                   struct scheduler_hooks hooks);
void scheduler_destroy(struct scheduler *scheduler); /* no coroutine may be alive */
struct clock *scheduler_clock(struct scheduler *scheduler);
struct random *scheduler_random(struct scheduler *scheduler);
/* Runs ready coroutines until the queue is empty or `budget` switches are used; true when more are
 * ready. */
bool scheduler_run_ready(struct scheduler *scheduler, size_t budget);
/* Fires timers that are due.  Gives the next deadline, INT64_MAX when there is none. */
int64_t scheduler_run_timers(struct scheduler *scheduler);
/* INT64_MAX when no timer is armed. */
int64_t scheduler_next_deadline_ns(const struct scheduler *scheduler);
size_t scheduler_ready_count(const struct scheduler *scheduler);
size_t scheduler_coroutine_count(const struct scheduler *scheduler);
/* Now and then, outside coroutines: stacks that no coroutine needed since the last call lose their
 * pages, half of them each time. */
void scheduler_rest(struct scheduler *scheduler);
struct scheduler *scheduler_current(void); /* of this thread, NULL outside; set while it runs */

/* ---- timers: intrusive, one shot, callback on the scheduler's stack (not a coroutine) ---- */
struct timer {
    int64_t deadline_ns;
    void (*fire)(struct timer *timer);
    size_t heap_index; /* 0: not armed */
};
/* Re-arming moves it. */
void timer_arm(struct scheduler *scheduler, struct timer *timer, int64_t deadline_ns);
void timer_disarm(struct scheduler *scheduler, struct timer *timer); /* harmless when not armed */

/* ---- coroutines ---- */
typedef void coroutine_fn(void *argument);
/* Queues a new coroutine.  ERROR_UNAVAILABLE (OVERLOADED_HERE) past COROUTINE_COUNT_MAX.  `name`
 * is static text. */
must_check bool coroutine_start(struct scheduler *scheduler, const char *name, coroutine_fn *fn,
                                void *argument, struct error *e);
bool coroutine_is_running(void); /* is the caller on a coroutine? */

/* Runs fn on the thread's own big stack and comes back; the loop does nothing else meanwhile, so fn
   is short (about 1 ms).  Callable outside a coroutine too (then it is a plain call). */
void coroutine_on_thread_stack(void (*fn)(void *argument), void *argument);

/* Lets the other ready coroutines run first. */
void coroutine_yield(void);

/* Marks a stretch that must not wait: a wait inside ends the process. */
void no_suspend_begin(void);
void no_suspend_end(void);

#endif
