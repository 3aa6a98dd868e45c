#include "runtime/loop.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/heap.h"
#include "base/limits.h"
#include "base/log.h"
#include "runtime/scheduler_internal.h"
#include "runtime/thread_internal.h"
#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

/*
 * One turn per iteration of libuv, just before it polls (uv_prepare): posts, due timers, ready
 * coroutines, turn ends.  What became ready during the poll runs in the next iteration's turn,
 * which follows without waiting.  The uv_timer and the uv_async have empty callbacks: they only end the
 * poll.  The uv_idle, when active, keeps the poll from waiting at all.
 */
struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer, rest;
    uv_async_t async;
    struct scheduler *scheduler;
    struct clock *clock;
    int index;
    struct list turn_ends, at_stops;
    int64_t armed_ns;          /* the deadline that `timer` is set for; INT64_MAX: none */
    int64_t stopping_since_ns; /* 0: not stopping */
    bool is_stop_reported;
    bool has_thread;
    pthread_t thread;
    _Atomic(struct post *) posts; /* newest first; senders push, the loop takes all */
    atomic_bool is_stop_wanted;
    atomic_int ringing_count; /* other threads about to ring: loop_destroy lets them */
};

struct post {
    struct post *next;
    void (*fn)(void *argument);
    void *argument;
};

static _Thread_local struct loop *current_loop;

/* One bit per loop alive: a loop's index is the lowest free one, so tables by index need
 * LOOP_COUNT_MAX entries. */
static _Atomic uint64_t used_indexes;
static_assert(LOOP_COUNT_MAX == 64, "one bit per loop");

static int take_index(void)
{
    uint64_t used = atomic_load(&used_indexes);
    int index;
    do {
        if (used == UINT64_MAX)
            return -1;
        index = __builtin_ctzll(~used);
    } while (!atomic_compare_exchange_weak(&used_indexes, &used, used | (uint64_t) 1 << index));
    return index;
}

static void give_index(int index)
{
    atomic_fetch_and(&used_indexes, ~((uint64_t) 1 << index));
}

/* Senders push in front; turning the taken list round gives the order of sending. */
static struct post *take_posts(struct loop *loop)
{
    struct post *newest = atomic_load_explicit(&loop->posts, memory_order_relaxed);
    if (!newest)
        return NULL;
    newest = atomic_exchange_explicit(&loop->posts, NULL, memory_order_acquire);
    struct post *oldest = NULL;
    while (newest) {
        struct post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static bool has_posts(struct loop *loop)
{
    return atomic_load_explicit(&loop->posts, memory_order_relaxed) != NULL;
}

/*
 * Between these two a thread publishes something for the loop and then rings.  Once it is published
 * the loop may act on it, end and be destroyed before the bell: so the thread is counted meanwhile.
 */
static void enter_ringing(struct loop *loop)
{
    atomic_fetch_add_explicit(&loop->ringing_count, 1, memory_order_relaxed);
}

static void leave_ringing(struct loop *loop, bool rings)
{
    if (rings)
        uv_async_send(&loop->async);
    atomic_fetch_sub_explicit(&loop->ringing_count, 1, memory_order_release);
}

static void run_posts(struct loop *loop)
{
    struct post *post = take_posts(loop);
    while (post) {
        struct post *next = post->next;
        post->fn(post->argument);
        free(post);
        post = next;
    }
}

/* Those armed meanwhile wait for the next turn. */
static void run_turn_ends(struct loop *loop)
{
    struct list now;
    if (list_is_empty(&loop->turn_ends))
        return;
    list_insert_between_(&now, loop->turn_ends.previous, loop->turn_ends.next);
    list_init(&loop->turn_ends);
    struct list *node;
    while ((node = list_pop_front(&now)) != NULL) {
        struct turn_end *turn_end = LIST_ITEM(node, struct turn_end, link);
        turn_end->run(turn_end);
    }
}

static void on_nothing_timer(uv_timer_t *timer)
{
    /* Fired: it must be set anew even for the same deadline (libuv counts whole ms and may be
     * early). */
    struct loop *loop = timer->data;
    loop->armed_ns = INT64_MAX;
}

static void on_nothing_idle(uv_idle_t *idle)
{
    (void) idle;
}

static void on_nothing_async(uv_async_t *async)
{
    (void) async;
}

static void set_timer(struct loop *loop)
{
    int64_t next_ns = scheduler_next_deadline_ns(loop->scheduler);
    if (next_ns == loop->armed_ns)
        return;
    loop->armed_ns = next_ns;
    if (next_ns == INT64_MAX) {
        uv_timer_stop(&loop->timer);
        return;
    }
    int64_t left_ns = next_ns - clock_monotonic_ns(loop->clock);
    uint64_t left_ms = left_ns > 0 ? ((uint64_t) left_ns + 999999) / 1000000 : 0;
    uv_update_time(&loop->uv); /* libuv counts from its cached time, which this turn has made old */
    ensure(uv_timer_start(&loop->timer, on_nothing_timer, left_ms, 0) == 0);
}

/* What was made for a burst that is over goes back to the system. */
static void on_rest(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    scheduler_rest(loop->scheduler);
    arena_rest();
    heap_rest();
}

static void run_at_stops(struct loop *loop)
{
    struct list *node;
    while ((node = list_pop_front(&loop->at_stops)) != NULL) {
        struct at_stop *at_stop = LIST_ITEM(node, struct at_stop, link);
        at_stop->run(at_stop);
    }
}

/* While there is work of ours the prepare handle keeps uv_run going; after that other handles that
 * are still open do. */
static void wind_down(struct loop *loop, bool has_more)
{
    int64_t now_ns = clock_monotonic_ns(loop->clock);
    if (loop->stopping_since_ns == 0)
        loop->stopping_since_ns = now_ns;
    if (!has_more && scheduler_coroutine_count(loop->scheduler) == 0) {
        run_at_stops(loop);
        uv_unref((uv_handle_t *) &loop->prepare);
        return;
    }
    uv_ref((uv_handle_t *) &loop->prepare);
    if (!loop->is_stop_reported &&
        now_ns - loop->stopping_since_ns > LOOP_STOP_WARN_MS * INT64_C(1000000)) {
        loop->is_stop_reported = true;
        const char *oldest = scheduler_oldest_name(loop->scheduler);
        LOG_WARN("runtime.loop", S("a stopping loop waits for its coroutines"),
                 LOG_I64("nexus.loop", loop->index),
                 LOG_I64("nexus.coroutines", scheduler_coroutine_count(loop->scheduler)),
                 LOG_STR("nexus.oldest", str_from_cstr(oldest)));
    }
}

static void on_turn(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    run_posts(loop);
    scheduler_run_timers(loop->scheduler);
    scheduler_run_ready(loop->scheduler, LOOP_TURN_SWITCHES_MAX);
    run_turn_ends(loop);

    bool has_more = scheduler_ready_count(loop->scheduler) > 0 || has_posts(loop) ||
                    !list_is_empty(&loop->turn_ends);
    if (has_more)
        uv_idle_start(&loop->idle, on_nothing_idle);
    else
        uv_idle_stop(&loop->idle);
    set_timer(loop);
    if (atomic_load_explicit(&loop->is_stop_wanted, memory_order_acquire))
        wind_down(loop, has_more);
}

static bool open_handles(struct loop *loop, struct error *e)
{
    int failure = uv_loop_init(&loop->uv);
    if (failure != 0)
        return error_set(e, REASON_UNAVAILABLE, "open an event loop: %s", uv_strerror(failure));
    failure = uv_async_init(&loop->uv, &loop->async, on_nothing_async);
    if (failure != 0) {
        ensure(uv_loop_close(&loop->uv) == 0);
        return error_set(e, REASON_UNAVAILABLE, "open an event loop: %s", uv_strerror(failure));
    }
    /* These cannot fail. */
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    uv_timer_init(&loop->uv, &loop->rest);
    loop->prepare.data = loop->timer.data = loop->rest.data = loop;
    uv_timer_start(&loop->rest, on_rest, LOOP_REST_MS, LOOP_REST_MS);
    uv_prepare_start(&loop->prepare, on_turn);
    uv_unref((uv_handle_t *) &loop->async);
    uv_unref((uv_handle_t *) &loop->idle);
    uv_unref((uv_handle_t *) &loop->timer);
    uv_unref((uv_handle_t *) &loop->rest);
    return true;
}

static void close_handles(struct loop *loop)
{
    uv_close((uv_handle_t *) &loop->prepare, NULL);
    uv_close((uv_handle_t *) &loop->idle, NULL);
    uv_close((uv_handle_t *) &loop->timer, NULL);
    uv_close((uv_handle_t *) &loop->rest, NULL);
    uv_close((uv_handle_t *) &loop->async, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    ensure(uv_loop_close(&loop->uv) == 0); /* somebody's handle is still open */
}

static void *thread_main(void *argument)
{
    loop_run(argument);
    return NULL;
}

struct loop *loop_create(struct clock *clock, struct random *random, struct error *e)
{
    int index = take_index();
    if (index < 0) {
        error_set(e, REASON_LIMIT, "open an event loop: at most %d", LOOP_COUNT_MAX);
        return NULL;
    }
    struct loop *loop = calloc(1, sizeof *loop);
    ensure(loop != NULL);
    loop->index = index;
    loop->clock = clock;
    loop->armed_ns = INT64_MAX;
    list_init(&loop->turn_ends);
    list_init(&loop->at_stops);
    if (!open_handles(loop, e)) {
        give_index(index);
        free(loop);
        return NULL;
    }
    loop->scheduler = scheduler_create(clock, random, (struct scheduler_hooks){.owner = loop});
    return loop;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    ensure(!loop->has_thread && current_loop != loop);
    while (atomic_load_explicit(&loop->ringing_count, memory_order_acquire) > 0)
        sched_yield();
    while (has_posts(loop))
        run_posts(loop);
    ensure(list_is_empty(&loop->turn_ends));
    close_handles(loop);
    scheduler_destroy(loop->scheduler);
    give_index(loop->index);
    free(loop);
}

void loop_run(struct loop *loop)
{
    ensure(!current_loop); /* one loop per thread */
    current_loop = loop;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    current_loop = NULL;
    /* Ready for another run. */
    uv_ref((uv_handle_t *) &loop->prepare);
    loop->stopping_since_ns = 0;
    loop->is_stop_reported = false;
    atomic_store(&loop->is_stop_wanted, false);
}

void loop_stop(struct loop *loop)
{
    enter_ringing(loop);
    atomic_store_explicit(&loop->is_stop_wanted, true, memory_order_release);
    leave_ringing(loop, true);
}

bool loop_start_thread(struct loop *loop, const char *name, struct error *e)
{
    ensure(!loop->has_thread);
    loop->has_thread = thread_start(&loop->thread, name, thread_main, loop, e);
    return loop->has_thread;
}

void loop_join_thread(struct loop *loop)
{
    ensure(loop->has_thread);
    ensure(pthread_join(loop->thread, NULL) == 0);
    loop->has_thread = false;
}

void loop_at_stop(struct loop *loop, struct at_stop *at_stop)
{
    list_push_back(&loop->at_stops, &at_stop->link);
}

struct loop *loop_current(void)
{
    return current_loop;
}

struct scheduler *loop_scheduler(struct loop *loop)
{
    return loop->scheduler;
}

uv_loop_t *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

int loop_index(const struct loop *loop)
{
    return loop->index;
}

void loop_post(struct loop *loop, void (*fn)(void *argument), void *argument)
{
    struct post *post = malloc(sizeof *post);
    ensure(post != NULL);
    post->fn = fn;
    post->argument = argument;
    enter_ringing(loop);
    struct post *newest = atomic_load_explicit(&loop->posts, memory_order_relaxed);
    do
        post->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&loop->posts, &newest, post, memory_order_release,
                                                  memory_order_relaxed));
    /* Whoever makes the list not empty rings; the loop takes the whole list.  Its own posts it sees
     * before it polls. */
    leave_ringing(loop, !newest && current_loop != loop);
}

void loop_at_turn_end(struct loop *loop, struct turn_end *turn_end)
{
    if (!list_is_linked(&turn_end->link))
        list_push_back(&loop->turn_ends, &turn_end->link);
}
