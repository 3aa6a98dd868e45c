#include "runtime/context.h"

#include "base/ensure.h"
#include "runtime/context_internal.h"
#include "runtime/scheduler_internal.h"

/* A coroutine's place in a condition's queue; on its stack. */
struct condition_place {
    struct waiter waiter;
    struct list link;
};

static int64_t nearer(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void waiter_timed_out(struct timer *timer)
{
    struct waiter *waiter = CONTAINER_OF(timer, struct waiter, timer);
    waiter->is_timed_out = true;
    coroutine_wake(waiter->coroutine);
}

static void wake_waiters(struct context *ctx)
{
    LIST_EACH(node, &ctx->waiters)
    {
        coroutine_wake(LIST_ITEM(node, struct waiter, link)->coroutine);
    }
}

/* The context after ctx in the tree below root, parents first; NULL at the end.  `into` false skips
 * ctx's children. */
static struct context *next_context(struct context *ctx, struct context *root, bool into)
{
    if (into && !list_is_empty(&ctx->children))
        return LIST_ITEM(ctx->children.next, struct context, sibling);
    while (ctx != root && ctx->sibling.next == &ctx->parent->children)
        ctx = ctx->parent;
    return ctx == root ? NULL : LIST_ITEM(ctx->sibling.next, struct context, sibling);
}

/* The wait itself.  Gives true when woken; else why not is in is_timed_out and the context. */
static bool wait_for_wake(struct waiter *waiter)
{
    waiter->coroutine = coroutine_current();
    ensure(waiter->coroutine != NULL); /* only a coroutine can wait */
    list_push_back(&waiter->ctx->waiters, &waiter->link);
    while (!waiter->is_woken && !waiter->is_timed_out && !waiter->ctx->is_cancelled)
        coroutine_suspend();
    list_remove(&waiter->link);
    waiter->coroutine = NULL;
    return waiter->is_woken;
}

void context_init(struct context *ctx, struct scheduler *scheduler, struct arena *arena,
                  int64_t deadline_ns)
{
    *ctx = (struct context){.scheduler = scheduler, .arena = arena, .deadline_ns = deadline_ns};
    list_init(&ctx->children);
    list_init(&ctx->sibling);
    list_init(&ctx->waiters);
}

void context_init_child(struct context *ctx, struct context *parent, int64_t deadline_ns)
{
    context_init(ctx, parent->scheduler, parent->arena, nearer(deadline_ns, parent->deadline_ns));
    ctx->parent = parent;
    ctx->is_cancelled = parent->is_cancelled;
    ctx->tenant_id = parent->tenant_id;
    ctx->trace = parent->trace;
    list_push_back(&parent->children, &ctx->sibling);
}

void context_deinit(struct context *ctx)
{
    ensure(list_is_empty(&ctx->children) && list_is_empty(&ctx->waiters));
    list_remove(&ctx->sibling);
}

void context_cancel(struct context *ctx)
{
    struct context *next;
    for (struct context *each = ctx; each; each = next) {
        /* Below a cancelled context all are cancelled already. */
        bool was_cancelled = each->is_cancelled;
        next = next_context(each, ctx, !was_cancelled);
        if (!was_cancelled) {
            each->is_cancelled = true;
            wake_waiters(each);
        }
    }
}

bool context_is_cancelled(const struct context *ctx)
{
    return ctx->is_cancelled;
}

bool context_check(struct context *ctx, struct error *e)
{
    if (ctx->is_cancelled)
        return error_set(e, REASON_CANCELLED, "cancelled");
    if (ctx->deadline_ns != DEADLINE_NONE && context_now_ns(ctx) >= ctx->deadline_ns)
        return error_set(e, REASON_TIMEOUT, "the deadline has passed");
    return true;
}

int64_t context_now_us(struct context *ctx)
{
    return clock_unix_us(scheduler_clock(ctx->scheduler));
}

int64_t context_now_ns(struct context *ctx)
{
    return clock_monotonic_ns(scheduler_clock(ctx->scheduler));
}

int64_t context_deadline_in(struct context *ctx, int64_t ms)
{
    int64_t ns, deadline_ns;
    if (__builtin_mul_overflow(ms, 1000000, &ns) ||
        __builtin_add_overflow(context_now_ns(ctx), ns, &deadline_ns))
        return ms > 0 ? ctx->deadline_ns : INT64_MIN;
    return nearer(ctx->deadline_ns, deadline_ns);
}

void waiter_init(struct waiter *waiter, struct context *ctx)
{
    *waiter = (struct waiter){.ctx = ctx, .timer = {.fire = waiter_timed_out}};
    list_init(&waiter->link);
}

bool waiter_wait(struct waiter *waiter, struct error *e)
{
    return waiter_wait_until(waiter, DEADLINE_NONE, e);
}

bool waiter_wait_until(struct waiter *waiter, int64_t deadline_ns, struct error *e)
{
    struct context *ctx = waiter->ctx;
    bool was_woken = waiter->is_woken;
    if (!was_woken && !ctx->is_cancelled) {
        deadline_ns = nearer(deadline_ns, ctx->deadline_ns);
        waiter->is_timed_out = deadline_ns != DEADLINE_NONE && context_now_ns(ctx) >= deadline_ns;
        if (deadline_ns != DEADLINE_NONE && !waiter->is_timed_out)
            timer_arm(ctx->scheduler, &waiter->timer, deadline_ns);
        was_woken = wait_for_wake(waiter);
        timer_disarm(ctx->scheduler, &waiter->timer);
    }
    /* A wake-up that came in time wins over cancellation and deadline, so that what was signalled
     * is not lost. */
    waiter->is_woken = false;
    if (was_woken)
        return true;
    if (ctx->is_cancelled)
        return error_set(e, REASON_CANCELLED, "cancelled");
    return error_set(e, REASON_TIMEOUT, "the deadline has passed");
}

void waiter_wake(struct waiter *waiter)
{
    waiter->is_woken = true;
    if (waiter->coroutine)
        coroutine_wake(waiter->coroutine);
}

void waiter_join(struct waiter *waiter)
{
    waiter->coroutine = coroutine_current();
    ensure(waiter->coroutine != NULL);
    while (!waiter->is_woken)
        coroutine_suspend();
    waiter->coroutine = NULL;
    waiter->is_woken = false;
}

bool context_sleep_until(struct context *ctx, int64_t deadline_ns, struct error *e)
{
    struct waiter waiter;
    struct error stop;
    waiter_init(&waiter, ctx);
    /* The nearer deadline ends the wait: the sleeper's own is success, ctx's is the failure. */
    if (waiter_wait_until(&waiter, deadline_ns, &stop))
        unreachable_state(); /* nobody else knows this waiter */
    if (stop.code == ERROR_TIMEOUT && deadline_ns < ctx->deadline_ns)
        return true;
    return error_copy(e, &stop);
}

bool context_sleep_ms(struct context *ctx, int64_t ms, struct error *e)
{
    int64_t ns, deadline_ns;
    if (__builtin_mul_overflow(ms, 1000000, &ns) ||
        __builtin_add_overflow(context_now_ns(ctx), ns, &deadline_ns))
        deadline_ns = ms > 0 ? DEADLINE_NONE : 0;
    return context_sleep_until(ctx, deadline_ns, e);
}

void condition_init(struct condition *condition)
{
    list_init(&condition->waiters);
}

bool condition_wait(struct condition *condition, struct context *ctx, struct error *e)
{
    return condition_wait_until(condition, ctx, DEADLINE_NONE, e);
}

bool condition_wait_until(struct condition *condition, struct context *ctx, int64_t deadline_ns,
                          struct error *e)
{
    struct condition_place place = {0};
    waiter_init(&place.waiter, ctx);
    list_push_back(&condition->waiters, &place.link);
    bool was_woken = waiter_wait_until(&place.waiter, deadline_ns, e);
    list_remove(&place.link);
    return was_woken;
}

void condition_join(struct condition *condition, struct context *ctx)
{
    struct condition_place place = {0};
    waiter_init(&place.waiter, ctx);
    list_push_back(&condition->waiters, &place.link);
    waiter_join(&place.waiter);
    list_remove(&place.link);
}

void condition_signal(struct condition *condition)
{
    struct list *node = list_pop_front(&condition->waiters);
    if (node)
        waiter_wake(&LIST_ITEM(node, struct condition_place, link)->waiter);
}

void condition_broadcast(struct condition *condition)
{
    while (!list_is_empty(&condition->waiters))
        condition_signal(condition);
}
