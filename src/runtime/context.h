/*
 * Context: what travels with one piece of work: memory, deadline, cancellation, identity of trace
 * and tenant.
 *
 * Passed first to everything that may wait.  A child context (context_child) shares its parent's
 * arena and cannot outlive it, its deadline is the nearer one, and cancelling the parent cancels
 * it.
 * Cancellation makes every wait (present and future) fail with ERROR_CANCELLED, so clean-up runs by
 * ordinary returns.
 * Thread: the scheduler's.  Suspends: only the functions marked so.
 */
#ifndef NEXUS_RUNTIME_CONTEXT_H
#define NEXUS_RUNTIME_CONTEXT_H

#include "base/error.h"
#include "runtime/scheduler.h"

struct arena;

typedef struct {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t parent_id[8]; /* of the span that called; all zero: none */
    bool is_sampled;
} trace_context;

#define DEADLINE_NONE INT64_MAX

struct context {
    struct scheduler *scheduler;
    struct arena *arena; /* borrowed: whoever made the context owns it */
    int64_t deadline_ns; /* monotonic, absolute; DEADLINE_NONE */
    struct context *parent;
    struct list children; /* of context.sibling */
    struct list sibling;
    struct list waiters; /* of waiter.link: what to wake on cancel */
    bool is_cancelled;
    uuid tenant_id; /* UUID_NONE: work of the platform itself */
    trace_context trace;
};

void context_init(struct context *ctx, struct scheduler *scheduler, struct arena *arena,
                  int64_t deadline_ns);
/* The deadline is the nearer of this and the parent's. */
void context_init_child(struct context *ctx, struct context *parent, int64_t deadline_ns);
void context_deinit(struct context *ctx); /* no waiter and no child may be left */
void context_cancel(struct context *ctx); /* children too; idempotent */
bool context_is_cancelled(const struct context *ctx);
/* CANCELLED or TIMEOUT when the work should stop, else true. */
must_check bool context_check(struct context *ctx, struct error *e);
int64_t context_now_us(struct context *ctx);
int64_t context_now_ns(struct context *ctx);
int64_t context_deadline_in(struct context *ctx, int64_t ms); /* min(deadline, now + ms) */

/* ---- waiting ---- */

/*
 * A waiter is one coroutine's wait: lives on its stack.  The other side calls waiter_wake once or
 * more.
 *
 *      struct waiter w; waiter_init(&w, ctx);  hand &w to the other side;
 *      if (!waiter_wait(&w, e)) { detach; return false; }
 *
 * waiter_wait returns true when woken, false with TIMEOUT (ctx's deadline) or CANCELLED.  A wake-up
 * before the wait is kept; one that came in time wins over deadline and cancellation.  Each wake-up
 * ends one wait: a waiter may wait again.
 */
struct waiter {
    struct context *ctx;
    struct coroutine *coroutine;
    struct list link;
    struct timer timer;
    bool is_woken;
    bool is_timed_out;
};
void waiter_init(struct waiter *waiter, struct context *ctx);
may_suspend bool waiter_wait(struct waiter *waiter, struct error *e);
/* Until this deadline or ctx's, whichever is nearer. */
may_suspend bool waiter_wait_until(struct waiter *waiter, int64_t deadline_ns, struct error *e);
void waiter_wake(struct waiter *waiter); /* on the scheduler's thread */

may_suspend bool context_sleep_until(struct context *ctx, int64_t deadline_ns, struct error *e);
may_suspend bool context_sleep_ms(struct context *ctx, int64_t ms, struct error *e);

/* A condition: coroutines of one scheduler wait for something to change; look again after each
 * wake-up. */
struct condition {
    struct list waiters;
};
void condition_init(struct condition *condition);
may_suspend bool condition_wait(struct condition *condition, struct context *ctx, struct error *e);
may_suspend bool condition_wait_until(struct condition *condition, struct context *ctx,
                                      int64_t deadline_ns, struct error *e);
void condition_signal(struct condition *condition);    /* one, the oldest */
void condition_broadcast(struct condition *condition); /* all */

/*
 * A group: children that run beside each other and are joined by scope.
 *
 *      struct group g; group_init(&g, ctx);
 *      if (!group_start(&g, "tool", fn, argument, e)) ...
 *      group_wait(&g);        waits for all; leaving early: group_cancel(&g) first, then this
 *
 * Each child gets a child context of its own (own arena), cancelled with the group.  group_wait
 * itself ignores cancellation (it must join) but passes it on to the children.
 */
struct group {
    struct context *ctx;
    struct context shared;
    struct condition changed;
    size_t live_count, started_count;
};
typedef void group_fn(struct context *ctx, void *argument);
void group_init(struct group *group, struct context *ctx);
must_check bool group_start(struct group *group, const char *name, group_fn *fn, void *argument,
                            struct error *e);
void group_cancel(struct group *group);
void group_wait(struct group *group); /* suspends; joins all children; deinit included */

#endif
