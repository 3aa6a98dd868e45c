/*
 * Job: one piece of work for the writer or a reader thread, and the wait for its end.
 *
 * A job lives on the stack of the coroutine that waits for it, and borrows what the caller
 * borrowed to it.  That is safe because job_wait does not return before the thread has finished
 * with it: neither a deadline nor a cancellation cuts the wait short.  (For a commit that is also
 * what is wanted: an unknown outcome is worse than a late one.)  The wait is bounded by the
 * queue's bound; a read whose deadline has passed while it was queued is not begun.
 * The writer may run a job more than once (its transaction was undone), so `run` changes the job's
 * results only, never its arguments.
 * Outside a coroutine of a loop (start, command line, tests) the calling thread blocks.
 */
#ifndef NEXUS_STORE_SQLITE_JOB_INTERNAL_H
#define NEXUS_STORE_SQLITE_JOB_INTERNAL_H

#include "runtime/loop.h"
#include "store/sqlite/connection_internal.h"
#include <pthread.h>
#include <semaphore.h>

struct job;
struct job_thread;
typedef bool job_fn(struct job_thread *thread, struct job *job, struct error *e);

struct job {
    struct job *next;
    job_fn *run;
    void (*finish)(
        struct job *job, bool is_ok,
        struct error *failure); /* detached jobs: instead of waking someone; owns the job */
    size_t row_count, bytes;
    const char *fault;
    const struct batch_notice *notice; /* run once the job is durable; may be NULL */
    int64_t deadline_ns;

    bool is_ok;
    struct error error;

    struct loop *loop; /* of the waiting coroutine; NULL: a thread waits on `done` */
    bool is_inline;    /* a coroutine of the serving thread itself waits */
    struct waiter waiter;
    struct context waiting; /* never cancelled, without deadline */
    sem_t done;
};

struct job_queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *first, **last;
    size_t count, bytes, rows;
    size_t urgent_count; /* jobs that somebody waits for */
    int64_t oldest_ns; /* when the first of those that nobody waits for came into an empty queue */
    size_t count_max, bytes_max;
    bool is_closed;
    void (*work)(void *owner); /* NULL: a thread serves; else this does, on the caller's thread */
    void *owner;
};
void job_queue_init(struct job_queue *queue, size_t count_max, size_t bytes_max);
void job_queue_deinit(struct job_queue *queue);
/* OVERLOADED_HERE when full, DRAINING when closed. */
must_check bool job_queue_put(struct job_queue *queue, struct job *job, struct error *e);
enum take { TAKE_JOBS, TAKE_IDLE, TAKE_CLOSED };
/*
 * The oldest jobs, together at most `rows_max` rows (but at least one job). Waits; TAKE_IDLE after
 * idle_ms (-1: never) without any.  Jobs that nobody waits for stay up to STORE_SUBMIT_DELAY_MS, to
 * share a transaction: until somebody's commit comes, or enough rows for one transaction.
 */
enum take job_queue_take(struct job_queue *queue, size_t rows_max, int idle_ms, struct job **out);
void job_queue_close(struct job_queue *queue); /* what is in it is still served */

/* Runs the job on the queue's thread and waits for its end. */
may_suspend bool job_do(struct job_queue *queue, struct context *ctx, struct job *job,
                        struct error *e);
/* By the serving thread: hands the result over; the job is not the thread's any more. */
void job_finish(struct job *job, bool is_ok);

#endif
