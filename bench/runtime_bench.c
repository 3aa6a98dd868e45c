/*
 * What the runtime's own operations cost: CPU time per operation, the best of some rounds (the
 * machine may be shared).
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/mailbox.h"
#include "runtime/simulated.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { ROUNDS = 7 };

static double cpu_ns(clockid_t id)
{
    struct timespec now;
    ensure(clock_gettime(id, &now) == 0);
    return (double) now.tv_sec * 1e9 + (double) now.tv_nsec;
}

static void report(const char *what, double best_ns)
{
    printf("%-58s %9.1f ns\n", what, best_ns);
    fflush(stdout);
}

/* ---- on a bare scheduler ---- */

struct bench {
    struct clock *clock;
    struct scheduler *scheduler;
    struct context ctx;
    size_t count;
    struct waiter waiters[2];
};

static void start(struct bench *bench, coroutine_fn *fn)
{
    struct error e;
    ensure(coroutine_start(bench->scheduler, "bench", fn, bench, &e));
}

static void yield_often(void *argument)
{
    struct bench *bench = argument;
    for (size_t i = 0; i < bench->count; i++)
        coroutine_yield();
}

static void nothing(void *argument)
{
    (void) argument;
}

static void call_thread_stack(void *argument)
{
    struct bench *bench = argument;
    for (size_t i = 0; i < bench->count; i++)
        coroutine_on_thread_stack(nothing, NULL);
}

static void ping_pong(struct bench *bench, int self)
{
    struct error e;
    waiter_init(&bench->waiters[self], &bench->ctx);
    coroutine_yield();
    for (size_t i = 0; i < bench->count; i++) {
        if (self == 0)
            waiter_wake(&bench->waiters[1]);
        ensure(waiter_wait(&bench->waiters[self], &e));
        if (self == 1)
            waiter_wake(&bench->waiters[0]);
    }
}

static void ping(void *argument)
{
    ping_pong(argument, 0);
}

static void pong(void *argument)
{
    ping_pong(argument, 1);
}

static void sleep_often(void *argument)
{
    struct bench *bench = argument;
    struct error e;
    for (int i = 0; i < 10; i++)
        ensure(context_sleep_ms(&bench->ctx, 1 + (int64_t) (bench->count++ % 97), &e));
}

/* Until nothing is left to do; the clock jumps to the next timer. */
static void drive(struct bench *bench)
{
    for (;;) {
        scheduler_run_ready(bench->scheduler, SIZE_MAX);
        int64_t next_ns = scheduler_next_deadline_ns(bench->scheduler);
        if (next_ns == INT64_MAX)
            return;
        clock_manual_advance_to_ns(bench->clock, next_ns);
        scheduler_run_timers(bench->scheduler);
    }
}

static double run_once(struct bench *bench, void (*prepare)(struct bench *))
{
    prepare(bench);
    double before = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
    drive(bench);
    return cpu_ns(CLOCK_THREAD_CPUTIME_ID) - before;
}

static void measure(struct bench *bench, const char *what, void (*prepare)(struct bench *),
                    double operations)
{
    double best = 1e18;
    for (int i = 0; i < ROUNDS; i++) {
        double ns = run_once(bench, prepare);
        best = ns < best ? ns : best;
    }
    report(what, best / operations);
}

static void prepare_yield(struct bench *bench)
{
    bench->count = 1000000;
    start(bench, yield_often);
}

static void prepare_thread_stack(struct bench *bench)
{
    bench->count = 1000000;
    start(bench, call_thread_stack);
}

static void prepare_ping_pong(struct bench *bench)
{
    bench->count = 500000;
    start(bench, ping);
    start(bench, pong);
}

static void prepare_sleepers(struct bench *bench)
{
    bench->count = 0;
    for (int i = 0; i < 10000; i++)
        start(bench, sleep_often);
}

static void spawn(void *argument)
{
    struct bench *bench = argument;
    if (--bench->count > 0)
        start(bench, spawn);
}

static void prepare_spawn(struct bench *bench)
{
    bench->count = 500000;
    start(bench, spawn);
}

static void child(struct context *ctx, void *argument)
{
    (void) ctx;
    (void) argument;
}

static void run_groups(void *argument)
{
    struct bench *bench = argument;
    struct error e;
    for (size_t i = 0; i < bench->count; i++) {
        struct group group;
        group_init(&group, &bench->ctx);
        for (int j = 0; j < 10; j++)
            ensure(group_start(&group, "child", child, NULL, &e));
        group_wait(&group);
    }
}

static void prepare_groups(struct bench *bench)
{
    bench->count = 20000;
    start(bench, run_groups);
}

static void yield_ten(void *argument)
{
    (void) argument;
    for (int i = 0; i < 10; i++)
        coroutine_yield();
}

static void prepare_cold(struct bench *bench)
{
    for (int i = 0; i < 50000; i++)
        start(bench, yield_ten);
}

static void bench_scheduler(void)
{
    struct bench bench = {.clock = clock_manual_create(0, 0)};
    bench.scheduler = scheduler_create(bench.clock, random_system(), (struct scheduler_hooks){0});
    context_init(&bench.ctx, bench.scheduler, NULL, DEADLINE_NONE);
    measure(&bench, "yield (two switches, ready queue)", prepare_yield, 1000000);
    measure(&bench, "call on the thread stack (two switches)", prepare_thread_stack, 1000000);
    measure(&bench, "wake another coroutine and wait for its wake-up, each way", prepare_ping_pong,
            1000000);
    measure(&bench, "start + run + finish, warm stack", prepare_spawn, 500000);
    measure(&bench, "group child: start + own arena + join", prepare_groups, 200000);
    measure(&bench, "sleep, 10,000 timers armed", prepare_sleepers, 100000);
    measure(&bench, "start + 10 yields + finish, 50,000 at once", prepare_cold, 50000);
    context_deinit(&bench.ctx);
    scheduler_destroy(bench.scheduler);
    clock_manual_destroy(bench.clock);
}

/* ---- between threads ---- */

enum { POSTS = 500000 };

struct post_bench {
    struct loop *loop;
    size_t received;
    double sender_ns;
};

static void on_post(void *argument)
{
    struct post_bench *bench = argument;
    if (++bench->received == POSTS)
        loop_stop(bench->loop);
}

static void *post_often(void *argument)
{
    struct post_bench *bench = argument;
    double before = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < POSTS; i++)
        loop_post(bench->loop, on_post, bench);
    bench->sender_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    return NULL;
}

static void bench_posts(void)
{
    double best_sender = 1e18, best_both = 1e18;
    for (int i = 0; i < ROUNDS; i++) {
        struct error e;
        struct post_bench bench = {.loop = loop_create(clock_system(), random_system(), &e)};
        pthread_t thread;
        ensure(bench.loop && pthread_create(&thread, NULL, post_often, &bench) == 0);
        double before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
        loop_run(bench.loop);
        pthread_join(thread, NULL);
        double both = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - before;
        best_sender = bench.sender_ns < best_sender ? bench.sender_ns : best_sender;
        best_both = both < best_both ? both : best_both;
        loop_destroy(bench.loop);
    }
    report("post from another thread, its own part", best_sender / POSTS);
    report("post from another thread, both sides", best_both / POSTS);
}

enum { TRIPS = 20000 };

struct trip {
    struct loop *loop;
    struct mailbox *inbox, *outbox;
    bool is_first;
};

static void travel(void *argument)
{
    struct trip *trip = argument;
    struct context ctx;
    struct error e;
    struct message_link token, *link = &token;
    context_init(&ctx, loop_scheduler(trip->loop), NULL, DEADLINE_NONE);
    if (trip->is_first)
        ensure(mailbox_send(trip->outbox, link));
    for (int i = 0; i < TRIPS; i++) {
        ensure(mailbox_receive(trip->inbox, &ctx, &link, &e));
        if (!trip->is_first || i + 1 < TRIPS)
            ensure(mailbox_send(trip->outbox, link));
    }
    context_deinit(&ctx);
    loop_stop(trip->loop);
}

static void bench_mailboxes(void)
{
    struct error e;
    struct trip trips[2] = {0};
    for (int i = 0; i < 2; i++) {
        trips[i].loop = loop_create(clock_system(), random_system(), &e);
        ensure(trips[i].loop != NULL);
        trips[i].inbox = mailbox_create(trips[i].loop, 16);
    }
    for (int i = 0; i < 2; i++) {
        trips[i].outbox = trips[1 - i].inbox;
        trips[i].is_first = i == 0;
        ensure(coroutine_start(loop_scheduler(trips[i].loop), "trip", travel, &trips[i], &e));
    }
    double cpu_before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), wall_before = cpu_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < 2; i++)
        ensure(loop_start_thread(trips[i].loop, "trip", &e));
    for (int i = 0; i < 2; i++)
        loop_join_thread(trips[i].loop);
    report("mailbox trip to a sleeping loop, CPU of both",
           (cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before) / (2 * TRIPS));
    report("mailbox trip to a sleeping loop, wall time",
           (cpu_ns(CLOCK_MONOTONIC) - wall_before) / (2 * TRIPS));
    for (int i = 0; i < 2; i++) {
        mailbox_destroy(trips[i].inbox);
        loop_destroy(trips[i].loop);
    }
}

enum { CALLS = 20000 };

static void call_often(void *argument)
{
    struct loop *loop = argument;
    struct context ctx;
    struct error e;
    context_init(&ctx, loop_scheduler(loop), NULL, DEADLINE_NONE);
    for (int i = 0; i < CALLS; i++)
        ensure(blocking_call(&ctx, nothing, NULL, &e));
    context_deinit(&ctx);
    loop_stop(loop);
}

static void bench_blocking(void)
{
    struct error e;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    ensure(loop && coroutine_start(loop_scheduler(loop), "calls", call_often, loop, &e));
    double cpu_before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), wall_before = cpu_ns(CLOCK_MONOTONIC);
    loop_run(loop);
    report("blocking call, CPU of both", (cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before) / CALLS);
    report("blocking call, wall time", (cpu_ns(CLOCK_MONOTONIC) - wall_before) / CALLS);
    loop_destroy(loop);
    blocking_pool_stop();
}

static void bench_basics(void)
{
    enum { COUNT = 1000000 };
    double best_clock = 1e18, best_uuid = 1e18;
    for (int i = 0; i < ROUNDS; i++) {
        double before = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
        for (int j = 0; j < COUNT; j++)
            (void) clock_monotonic_ns(clock_system());
        double between = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
        for (int j = 0; j < COUNT; j++)
            (void) uuid_new(clock_system(), random_system());
        double after = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
        best_clock = between - before < best_clock ? between - before : best_clock;
        best_uuid = after - between < best_uuid ? after - between : best_uuid;
    }
    report("monotonic clock", best_clock / COUNT);
    report("new uuid", best_uuid / COUNT);
}

int main(void)
{
    bench_basics();
    bench_scheduler();
    bench_posts();
    bench_mailboxes();
    bench_blocking();
    return 0;
}
