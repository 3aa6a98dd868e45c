#include "runtime/scheduler.h"

#include "base/ensure.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "runtime/coroutine_switch_internal.h"
#include "runtime/scheduler_internal.h"
#include "runtime/stack_pool_internal.h"
#include "runtime/timer_heap_internal.h"
#include <stdlib.h>

/* Not in release builds: a turn's timing costs two clock reads.  Sanitizers make all turns slow. */
#if defined(NEXUS_FAULTS) && !defined(NEXUS_ASAN) && !defined(NEXUS_TSAN)
#define WATCHES_SLICES 1
#else
#define WATCHES_SLICES 0
#endif

enum coroutine_state { COROUTINE_READY, COROUTINE_RUNNING, COROUTINE_WAITING, COROUTINE_DONE };

struct coroutine {
    struct execution execution;
    struct scheduler *scheduler;
    enum coroutine_state state;
    void *stack; /* NULL until it first runs: a long queue of starts holds no stacks */
    const char *name;
    coroutine_fn *fn;
    void *argument;
    struct list ready; /* in scheduler.ready while READY */
    struct list alive; /* in scheduler.alive, oldest first */
    /* A call to be made on the thread's own stack; then the coroutine goes on. */
    void (*call)(void *argument);
    void *call_argument;
};

struct scheduler {
    struct clock *clock;
    struct random *random;
    struct scheduler_hooks hooks;
    struct execution own; /* the thread's stack while scheduler_run_ready runs */
    struct stack_pool *stacks;
    struct timer_heap timers;
    struct list ready;
    size_t ready_count;
    struct list alive;
    size_t alive_count;
    bool is_draining; /* in scheduler_run_ready, whose result tells what became_ready would */
    bool is_firing;   /* in scheduler_run_timers, likewise */
};

/* What runs on this thread now. */
static _Thread_local struct {
    struct scheduler *scheduler;
    struct coroutine *coroutine;
    unsigned no_suspend_depth;
} here;

static void make_ready(struct coroutine *coroutine)
{
    struct scheduler *scheduler = coroutine->scheduler;
    coroutine->state = COROUTINE_READY;
    list_push_back(&scheduler->ready, &coroutine->ready);
    scheduler->ready_count++;
    if (scheduler->ready_count == 1 && !scheduler->is_draining && scheduler->hooks.became_ready)
        scheduler->hooks.became_ready(scheduler->hooks.owner);
}

static struct coroutine *take_ready(struct scheduler *scheduler)
{
    struct list *node = scheduler->ready.next;
    if (scheduler->hooks.pick) {
        size_t index = scheduler->hooks.pick(scheduler->hooks.owner, scheduler->ready_count);
        ensure(index < scheduler->ready_count);
        while (index-- > 0)
            node = node->next;
    }
    list_remove(node);
    scheduler->ready_count--;
    return LIST_ITEM(node, struct coroutine, ready);
}

static void coroutine_main(void *argument)
{
    struct coroutine *self = argument;
    self->fn(self->argument);
    ensure(here.no_suspend_depth == 0);
    self->state = COROUTINE_DONE;
    execution_finish(&self->execution, &self->scheduler->own);
}

static void coroutine_free(struct coroutine *coroutine)
{
    execution_release(&coroutine->execution);
    stack_pool_give(coroutine->scheduler->stacks, coroutine->stack);
    list_remove(&coroutine->alive);
    coroutine->scheduler->alive_count--;
    free(coroutine);
}

static void warn_of_long_slice(const struct coroutine *coroutine, int64_t started_ns)
{
    int64_t slice_ms = (clock_monotonic_ns(coroutine->scheduler->clock) - started_ns) / 1000000;
    if (slice_ms >= LOOP_SLICE_WARN_MS)
        LOG_WARN("runtime.scheduler", S("a coroutine held its loop"),
                 LOG_STR("nexus.coroutine", str_from_cstr(coroutine->name)),
                 LOG_I64("nexus.slice_ms", slice_ms));
}

/* Runs one coroutine until it waits or ends. */
static void resume(struct scheduler *scheduler, struct coroutine *coroutine)
{
    if (!coroutine->stack) {
        coroutine->stack = stack_pool_take(scheduler->stacks);
        execution_init(&coroutine->execution, coroutine->stack, STACK_USABLE_BYTES, coroutine_main,
                       coroutine);
    }
    int64_t started_ns = WATCHES_SLICES ? clock_monotonic_ns(scheduler->clock) : 0;
    coroutine->state = COROUTINE_RUNNING;
    here.coroutine = coroutine;
    execution_switch(&scheduler->own, &coroutine->execution);
    while (coroutine->call) {
        here.coroutine = NULL;
        coroutine->call(coroutine->call_argument);
        coroutine->call = NULL;
        here.coroutine = coroutine;
        execution_switch(&scheduler->own, &coroutine->execution);
    }
    here.coroutine = NULL;
    if (WATCHES_SLICES)
        warn_of_long_slice(coroutine, started_ns);
    if (coroutine->state == COROUTINE_DONE)
        coroutine_free(coroutine);
}

static void switch_to_scheduler(struct coroutine *self)
{
    execution_switch(&self->execution, &self->scheduler->own);
}

struct scheduler *scheduler_create(struct clock *clock, struct random *random,
                                   struct scheduler_hooks hooks)
{
    struct scheduler *scheduler = calloc(1, sizeof *scheduler);
    ensure(scheduler != NULL);
    scheduler->clock = clock;
    scheduler->random = random;
    scheduler->hooks = hooks;
    scheduler->stacks = stack_pool_create(STACK_GUARD_EACH);
    timer_heap_init(&scheduler->timers);
    list_init(&scheduler->ready);
    list_init(&scheduler->alive);
    return scheduler;
}

void scheduler_destroy(struct scheduler *scheduler)
{
    if (!scheduler)
        return;
    ensure(scheduler->alive_count == 0);
    timer_heap_deinit(&scheduler->timers);
    stack_pool_destroy(scheduler->stacks);
    free(scheduler);
}

struct clock *scheduler_clock(struct scheduler *scheduler)
{
    return scheduler->clock;
}

struct random *scheduler_random(struct scheduler *scheduler)
{
    return scheduler->random;
}

bool scheduler_run_ready(struct scheduler *scheduler, size_t budget)
{
    ensure(!here.coroutine && !scheduler->is_draining);
    struct scheduler *outer = here.scheduler;
    here.scheduler = scheduler;
    scheduler->is_draining = true;
    execution_adopt_thread(&scheduler->own);
    while (scheduler->ready_count > 0 && budget-- > 0)
        resume(scheduler, take_ready(scheduler));
    scheduler->is_draining = false;
    here.scheduler = outer;
    return scheduler->ready_count > 0;
}

int64_t scheduler_run_timers(struct scheduler *scheduler)
{
    ensure(!here.coroutine && !scheduler->is_firing);
    struct scheduler *outer = here.scheduler;
    here.scheduler = scheduler;
    scheduler->is_firing = true;
    int64_t now_ns = clock_monotonic_ns(scheduler->clock);
    /* A callback that arms a due timer again gets its next turn next time. */
    for (size_t left = scheduler->timers.count; left > 0; left--) {
        if (timer_heap_next_ns(&scheduler->timers) > now_ns)
            break;
        struct timer *timer = timer_heap_pop(&scheduler->timers);
        timer->fire(timer);
    }
    scheduler->is_firing = false;
    here.scheduler = outer;
    return timer_heap_next_ns(&scheduler->timers);
}

int64_t scheduler_next_deadline_ns(const struct scheduler *scheduler)
{
    return timer_heap_next_ns(&scheduler->timers);
}

size_t scheduler_ready_count(const struct scheduler *scheduler)
{
    return scheduler->ready_count;
}

size_t scheduler_coroutine_count(const struct scheduler *scheduler)
{
    return scheduler->alive_count;
}

void scheduler_rest(struct scheduler *scheduler)
{
    stack_pool_rest(scheduler->stacks);
}

struct scheduler *scheduler_current(void)
{
    return here.scheduler;
}

void timer_arm(struct scheduler *scheduler, struct timer *timer, int64_t deadline_ns)
{
    int64_t next_ns = timer_heap_next_ns(&scheduler->timers);
    if (timer->heap_index)
        timer_heap_remove(&scheduler->timers, timer);
    timer_heap_add(&scheduler->timers, timer, deadline_ns);
    if (deadline_ns < next_ns && !scheduler->is_firing && scheduler->hooks.timer_changed)
        scheduler->hooks.timer_changed(scheduler->hooks.owner, deadline_ns);
}

void timer_disarm(struct scheduler *scheduler, struct timer *timer)
{
    if (timer->heap_index)
        timer_heap_remove(&scheduler->timers, timer);
}

bool coroutine_start(struct scheduler *scheduler, const char *name, coroutine_fn *fn,
                     void *argument, struct error *e)
{
    if (scheduler->alive_count >= COROUTINE_COUNT_MAX)
        return error_set(e, REASON_OVERLOADED_HERE,
                         "start of %s: %d pieces of work are under way already", name,
                         COROUTINE_COUNT_MAX);
    struct coroutine *coroutine = calloc(1, sizeof *coroutine);
    ensure(coroutine != NULL);
    coroutine->scheduler = scheduler;
    coroutine->name = name;
    coroutine->fn = fn;
    coroutine->argument = argument;
    list_push_back(&scheduler->alive, &coroutine->alive);
    scheduler->alive_count++;
    make_ready(coroutine);
    return true;
}

bool coroutine_is_running(void)
{
    return here.coroutine != NULL;
}

struct coroutine *coroutine_current(void)
{
    return here.coroutine;
}

void coroutine_on_thread_stack(void (*fn)(void *argument), void *argument)
{
    struct coroutine *self = here.coroutine;
    if (!self) {
        fn(argument);
        return;
    }
    self->call = fn;
    self->call_argument = argument;
    switch_to_scheduler(self);
}

void coroutine_suspend(void)
{
    struct coroutine *self = here.coroutine;
    ensure(self != NULL);               /* only a coroutine can wait */
    ensure(here.no_suspend_depth == 0); /* a wait inside a NO_SUSPEND stretch */
    self->state = COROUTINE_WAITING;
    switch_to_scheduler(self);
}

void coroutine_wake(struct coroutine *coroutine)
{
    if (coroutine->state == COROUTINE_WAITING)
        make_ready(coroutine);
}

const char *scheduler_oldest_name(struct scheduler *scheduler)
{
    struct list *node = list_first(&scheduler->alive);
    return node ? LIST_ITEM(node, struct coroutine, alive)->name : NULL;
}

void coroutine_yield(void)
{
    struct coroutine *self = here.coroutine;
    ensure(self != NULL);
    ensure(here.no_suspend_depth == 0);
    make_ready(self);
    switch_to_scheduler(self);
}

void no_suspend_begin(void)
{
    here.no_suspend_depth++;
}

void no_suspend_end(void)
{
    ensure(here.no_suspend_depth > 0);
    here.no_suspend_depth--;
}
