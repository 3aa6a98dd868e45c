/*
 * What the router costs a call: route_begin, route_next, the first token, attempt_end, as a call that goes well makes them.
 *
 *     bench_router_bench        CPU ns per call, by number of targets, stickiness and threads
 *
 * "floor": the same number of readings of the clock (next, first token, end) and one taken and released lock, in the same run.
 */
#include "llm/router.h"
#include "base/ensure.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { CALLS = 1000000, WARM_UP = 10000, TARGETS_MAX = 8, THREADS_MAX = 2, NS_PER_S = 1000000000 };

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

struct bench {
    struct router *router;
    const struct model *model;
    bool is_sticky;
    double ns; /* out */
};

static void one_call(const struct bench *bench, int i)
{
    struct route route;
    struct attempt attempt;
    struct error e;
    int64_t wait_ms;
    char session[] = "0192f0c0-0000-7000-8000-000000000000";
    session[35] = (char) ('0' + i % 10);
    session[34] = (char) ('0' + i / 10 % 10);
    route_begin(&route, bench->router,
                &(struct route_request){
                    .model = bench->model,
                    .sticky = bench->is_sticky ? str_of(session, sizeof session - 1) : STR_NONE,
                    .input_tokens_bound = 1000,
                    .output_tokens_max = 500});
    ensure(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_first_token(&attempt);
    attempt_end(&attempt, NULL);
}

static void *run(void *argument)
{
    struct bench *bench = argument;
    int64_t began_ns = 0;
    for (int i = -WARM_UP; i < CALLS; i++) {
        if (i == 0)
            began_ns = cpu_ns();
        one_call(bench, i + WARM_UP);
    }
    bench->ns = (double) (cpu_ns() - began_ns) / CALLS;
    return NULL;
}

static double floor_ns(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int64_t sum = 0, began_ns = cpu_ns();
    for (int i = 0; i < CALLS; i++) {
        for (int j = 0; j < 3; j++)
            sum += clock_monotonic_ns(clock_system());
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
    ensure(sum != 0);
    return (double) (cpu_ns() - began_ns) / CALLS;
}

static void measure(size_t targets, size_t keys, bool is_sticky, size_t threads)
{
    static struct provider providers[TARGETS_MAX];
    static const char *const names[TARGETS_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct model_target list[TARGETS_MAX];
    struct error e;
    for (size_t i = 0; i < targets; i++) {
        providers[i] = (struct provider){.name = str_from_cstr(names[i]), .key_count = keys};
        list[i] = (struct model_target){.provider = &providers[i], .model = S("m"), .weight = 1};
    }
    struct metrics *metrics = metrics_create();
    OWNED(router) router = router_create(clock_system(), random_system(), metrics);
    OWNED(catalog) catalog = catalog_create();
    struct model model = {.name = S("m"),
                          .targets = list,
                          .target_count = targets,
                          .max_output_tokens = 100,
                          .retries_max = -1};
    ensure(catalog_add(catalog, &model, &e));
    router_adopt(router, catalog);
    struct bench benches[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    double ns = 0;
    for (size_t i = 0; i < threads; i++) {
        benches[i] = (struct bench){router, catalog_find(catalog, S("m")), is_sticky, 0};
        ensure(pthread_create(&ids[i], NULL, run, &benches[i]) == 0);
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        ns += benches[i].ns / (double) threads;
    }
    printf("%zu target%s, %zu key%s, %-10s %zu thread%s  %7.0f ns a call\n", targets,
           targets == 1 ? " " : "s", keys, keys == 1 ? " " : "s",
           is_sticky ? "sticky," : "by load,", threads, threads == 1 ? " " : "s", ns);
    metrics_destroy(metrics);
}

int main(void)
{
    printf("floor: three readings of the clock, one lock  %7.0f ns\n", floor_ns());
    measure(1, 0, false, 1);
    measure(1, 4, false, 1);
    measure(2, 4, false, 1);
    measure(8, 4, false, 1);
    measure(2, 4, true, 1);
    measure(8, 4, true, 1);
    measure(2, 4, false, THREADS_MAX);
    return 0;
}
