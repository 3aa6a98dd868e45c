#include "agent/sandbox/sandbox_internal.h"

#include "base/ensure.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * Two classes.  Light: just admitted, or back from a wait, or young in its slice.  Heavy: used up a
 * slice of SANDBOX_TICK_MS. Light ones go first, so short calls do not queue behind loops; but when
 * no heavy one has had a turn for HEAVY_PAUSE_MS, one goes first, so loops are not starved either
 * (they have deadlines to meet).  When a light guest comes and all threads are taken, an early tick
 * makes a heavy one give way at once.
 */
enum { HEAVY_PAUSE_MS = 50, IDLE_TICKS_MAX = 20, GUEST_NICE = 5, NS_PER_MS = 1000000 };

struct threads {
    struct clock *clock;
    struct engine *engine;
    int parallel_max;
    int started_threads;
    bool has_ticker;

    pthread_mutex_t mutex;
    pthread_cond_t work, tick;
    struct list admitted, light, heavy, sleeping;
    size_t admitted_count, light_count, heavy_count, sleeping_count;
    int alive_count; /* started and not ended */
    int running_count;
    int idle_count;        /* threads without work */
    int64_t heavy_turn_ns; /* when a heavy guest was picked last */
    bool is_stopping, is_ticking;

    /* Read by running guests without the mutex. */
    atomic_size_t light_waiting, heavy_waiting;

    pthread_t ticker;
    pthread_t ids[SANDBOX_THREADS_MAX];
};

/* ---- queues; under the mutex ---- */

static bool may_admit(const struct threads *threads)
{
    return threads->admitted_count > 0 && threads->alive_count < threads->parallel_max;
}

static void publish(struct threads *threads)
{
    size_t light = threads->light_count + (may_admit(threads) ? threads->admitted_count : 0);
    atomic_store_explicit(&threads->light_waiting, light, memory_order_relaxed);
    atomic_store_explicit(&threads->heavy_waiting, threads->heavy_count, memory_order_relaxed);
}

static void enqueue(struct list *queue, size_t *count, struct guest *guest, enum guest_state state)
{
    guest->state = state;
    list_push_back(queue, &guest->link);
    (*count)++;
}

static struct guest *dequeue(struct list *queue, size_t *count)
{
    struct list *node = list_pop_front(queue);
    if (!node)
        return NULL;
    (*count)--;
    return LIST_ITEM(node, struct guest, link);
}

static void enqueue_light(struct threads *threads, struct guest *guest)
{
    guest->is_heavy = false;
    enqueue(&threads->light, &threads->light_count, guest, GUEST_READY);
}

/* Somebody has become able to run: wake a thread or make room on one. */
static void call_thread(struct threads *threads)
{
    publish(threads);
    if (threads->idle_count > 0)
        pthread_cond_signal(&threads->work);
    else if (threads->running_count > 0)
        engine_tick(threads->engine);
}

static struct guest *pick(struct threads *threads)
{
    struct guest *guest = NULL;
    int64_t now_ns = threads->heavy_count > 0 ? clock_monotonic_ns(threads->clock) : 0;
    if (threads->heavy_count > 0 &&
        now_ns - threads->heavy_turn_ns >= (int64_t) HEAVY_PAUSE_MS * NS_PER_MS)
        guest = dequeue(&threads->heavy, &threads->heavy_count);
    if (!guest)
        guest = dequeue(&threads->light, &threads->light_count);
    if (!guest && may_admit(threads)) {
        guest = dequeue(&threads->admitted, &threads->admitted_count);
        threads->alive_count++;
    }
    if (!guest)
        guest = dequeue(&threads->heavy, &threads->heavy_count);
    if (guest && guest->is_heavy)
        threads->heavy_turn_ns = now_ns;
    publish(threads);
    return guest;
}

/* ---- threads ---- */

static void put_back(struct threads *threads, struct guest *guest, enum slice_result result)
{
    switch (result) {
    case SLICE_YIELDED:
        guest->is_heavy = true;
        enqueue(&threads->heavy, &threads->heavy_count, guest, GUEST_READY);
        break;
    case SLICE_WAITS:
        if (atomic_load(&guest->call.is_answered))
            enqueue_light(threads, guest); /* the answer was faster than we */
        else
            guest->state = GUEST_WAITING;
        break;
    case SLICE_SLEEPS:
        if (atomic_load(&guest->is_cancelled))
            enqueue_light(threads, guest);
        else
            enqueue(&threads->sleeping, &threads->sleeping_count, guest, GUEST_SLEEPING);
        break;
    case SLICE_ENDED:
        guest->state = GUEST_ENDED;
        threads->alive_count--;
        break;
    }
    publish(threads);
}

static void run_one(struct threads *threads, struct guest *guest)
{
    guest->state = GUEST_RUNNING;
    threads->running_count++;
    if (!threads->is_ticking)
        pthread_cond_signal(&threads->tick);
    pthread_mutex_unlock(&threads->mutex);

    enum slice_result result = guest_run_slice(guest);

    pthread_mutex_lock(&threads->mutex);
    threads->running_count--;
    put_back(threads, guest, result);
    if (result != SLICE_ENDED)
        return;
    pthread_mutex_unlock(&threads->mutex);
    sandbox_guest_ended(guest);
    pthread_mutex_lock(&threads->mutex);
}

static void *thread_main(void *argument)
{
    struct threads *threads = argument;
    /* On Linux nice is a thread's own: the loops, which must answer at once, go before guests that
       compute. */
    (void) setpriority(PRIO_PROCESS, (id_t) gettid(), GUEST_NICE);
    pthread_mutex_lock(&threads->mutex);
    for (;;) {
        struct guest *guest = pick(threads);
        if (guest) {
            run_one(threads, guest);
            continue;
        }
        if (threads->is_stopping)
            break;
        threads->idle_count++;
        pthread_cond_wait(&threads->work, &threads->mutex);
        threads->idle_count--;
    }
    pthread_mutex_unlock(&threads->mutex);
    return NULL;
}

static void wake_sleepers(struct threads *threads)
{
    int64_t now_ns = clock_monotonic_ns(threads->clock);
    LIST_EACH(node, &threads->sleeping)
    {
        struct guest *guest = LIST_ITEM(node, struct guest, link);
        if (guest->wake_ns > now_ns)
            continue;
        list_remove(&guest->link);
        threads->sleeping_count--;
        enqueue_light(threads, guest);
        call_thread(threads);
    }
}

static void wait_a_tick(struct threads *threads)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SANDBOX_TICK_MS * NS_PER_MS;
    if (until.tv_nsec >= 1000 * NS_PER_MS) {
        until.tv_nsec -= 1000 * NS_PER_MS;
        until.tv_sec++;
    }
    while (!threads->is_stopping &&
           pthread_cond_timedwait(&threads->tick, &threads->mutex, &until) != ETIMEDOUT)
        ;
}

/* Ticks while somebody runs or sleeps, and a little longer, so that a steady trickle of calls need
   not wake it each time. */
static void *ticker_main(void *argument)
{
    struct threads *threads = argument;
    int idle_ticks = 0;
    pthread_mutex_lock(&threads->mutex);
    while (!threads->is_stopping) {
        bool is_busy = threads->running_count > 0 || threads->sleeping_count > 0;
        idle_ticks = is_busy ? 0 : idle_ticks + 1;
        threads->is_ticking = idle_ticks < IDLE_TICKS_MAX;
        if (!threads->is_ticking) {
            pthread_cond_wait(&threads->tick, &threads->mutex);
            idle_ticks = 0;
            continue;
        }
        wait_a_tick(threads);
        wake_sleepers(threads);
        engine_tick(threads->engine);
    }
    pthread_mutex_unlock(&threads->mutex);
    return NULL;
}

/* Deaf to the process's signals; faults stay on, wasmtime turns some of them into traps. */
static bool start_thread(pthread_t *out, const char *name, void *(*fn)(void *), void *argument,
                         struct error *e)
{
    static const int faults[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                 SIGABRT, SIGTRAP, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int failure = pthread_create(out, NULL, fn, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0)
        return error_set(e, REASON_UNAVAILABLE, "start thread %s: %s", name,
                         strerrordesc_np(failure));
    pthread_setname_np(*out, name);
    return true;
}

static int core_count(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1)
        return 1;
    return count > SANDBOX_THREADS_MAX ? SANDBOX_THREADS_MAX : (int) count;
}

bool threads_create(struct clock *clock, int thread_count, int parallel_max, struct engine *engine,
                    struct threads **out, struct error *e)
{
    ensure(thread_count >= 0 && thread_count <= SANDBOX_THREADS_MAX && parallel_max > 0);
    struct threads *threads = calloc(1, sizeof *threads);
    ensure(threads != NULL);
    threads->clock = clock;
    threads->engine = engine;
    threads->parallel_max = parallel_max;
    list_init(&threads->admitted);
    list_init(&threads->light);
    list_init(&threads->heavy);
    list_init(&threads->sleeping);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&threads->mutex, NULL);
    pthread_cond_init(&threads->work, NULL);
    pthread_cond_init(&threads->tick, &monotonic);
    pthread_condattr_destroy(&monotonic);

    int wanted = thread_count > 0 ? thread_count : core_count();
    threads->has_ticker = start_thread(&threads->ticker, "wasm-ticker", ticker_main, threads, e);
    bool is_ok = threads->has_ticker;
    while (is_ok && threads->started_threads < wanted) {
        is_ok =
            start_thread(&threads->ids[threads->started_threads], "wasm", thread_main, threads, e);
        threads->started_threads += is_ok;
    }
    if (!is_ok) {
        threads_destroy(threads);
        return false;
    }
    *out = threads;
    return true;
}

void threads_destroy(struct threads *threads)
{
    if (!threads)
        return;
    pthread_mutex_lock(&threads->mutex);
    ensure(threads->alive_count == 0 && threads->admitted_count == 0);
    threads->is_stopping = true;
    pthread_cond_broadcast(&threads->work);
    pthread_cond_broadcast(&threads->tick);
    pthread_mutex_unlock(&threads->mutex);
    for (int i = 0; i < threads->started_threads; i++)
        pthread_join(threads->ids[i], NULL);
    if (threads->has_ticker)
        pthread_join(threads->ticker, NULL);
    pthread_cond_destroy(&threads->work);
    pthread_cond_destroy(&threads->tick);
    pthread_mutex_destroy(&threads->mutex);
    free(threads);
}

/* ---- from the loops ---- */

bool threads_submit(struct threads *threads, struct guest *guest, struct error *e)
{
    pthread_mutex_lock(&threads->mutex);
    bool has_room = threads->admitted_count < SANDBOX_QUEUE_MAX;
    if (has_room) {
        enqueue(&threads->admitted, &threads->admitted_count, guest, GUEST_ADMITTED);
        call_thread(threads);
    }
    pthread_mutex_unlock(&threads->mutex);
    if (!has_room)
        return error_set(e, REASON_OVERLOADED_HERE,
                         "%u tool calls wait for the sandbox already; try again later",
                         SANDBOX_QUEUE_MAX);
    return true;
}

void threads_resume(struct threads *threads, struct guest *guest)
{
    pthread_mutex_lock(&threads->mutex);
    atomic_store(&guest->call.is_answered, true);
    if (guest->state == GUEST_WAITING) {
        enqueue_light(threads, guest);
        call_thread(threads);
    }
    pthread_mutex_unlock(&threads->mutex);
}

void threads_cancel(struct threads *threads, struct guest *guest)
{
    bool has_ended = false;
    pthread_mutex_lock(&threads->mutex);
    atomic_store(&guest->is_cancelled, true);
    if (guest->state == GUEST_ADMITTED) { /* never ran */
        list_remove(&guest->link);
        threads->admitted_count--;
        guest->state = GUEST_ENDED;
        has_ended = true;
        publish(threads);
    } else if (guest->state == GUEST_SLEEPING) {
        list_remove(&guest->link);
        threads->sleeping_count--;
        enqueue_light(threads, guest);
        call_thread(threads);
    } else if (guest->state == GUEST_RUNNING) {
        engine_tick(threads->engine);
    }
    pthread_mutex_unlock(&threads->mutex);
    if (!has_ended)
        return;
    guest->stop = GUEST_STOP_CANCELLED;
    error_set(&guest->error, REASON_CANCELLED, "cancelled before it started");
    sandbox_guest_ended(guest);
}

bool threads_want(const struct threads *threads, const struct guest *guest, int64_t now_ns)
{
    if (guest->is_heavy && atomic_load_explicit(&threads->light_waiting, memory_order_relaxed) > 0)
        return true;
    if (now_ns - guest->slice_start_ns < (int64_t) SANDBOX_TICK_MS * NS_PER_MS)
        return false;
    return atomic_load_explicit(&threads->light_waiting, memory_order_relaxed) > 0 ||
           atomic_load_explicit(&threads->heavy_waiting, memory_order_relaxed) > 0;
}
