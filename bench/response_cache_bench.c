/*
 * What the response cache costs: a key, a lookup that hits, a miss that is filled; alone and from two threads.
 *
 *     bench_response_cache_bench
 *
 * "floor": the same answer copied to the same arena without any cache.  CPU time of the thread.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/semantic_cache.h"
#include "runtime/scheduler.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ENTRIES = 10000, ROUNDS = 400000, THREADS_MAX = 2, NS_PER_S = 1000000000 };

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static const struct model_cache rule = {.mode = MODEL_CACHE_EXACT, .ttl_ms = 3600000};

static struct cache_key key_of(uint64_t number)
{
    struct cache_key key = {{0}, {{7}}};
    uint64_t state = number * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < sizeof key.digest; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        key.digest[i] = (uint8_t) (state >> 32);
    }
    return key;
}

struct runner {
    struct response_cache *cache;
    size_t body_bytes;
    uint64_t seed;
    int64_t ns; /* of ROUNDS */
};

static void put(struct runner *runner, struct context *ctx, uint64_t number, str body)
{
    struct cache_answer answer;
    struct cache_fill *fill;
    struct cache_key key = key_of(number);
    if (response_cache_begin(runner->cache, ctx, &key, &rule, &answer, &fill) != CACHE_LEAD)
        return;
    cache_fill_add(fill, body);
    cache_fill_commit(fill, 200, S("application/json"), false, NULL);
}

static void *run_hits(void *argument)
{
    struct runner *runner = argument;
    struct cache_key *keys = calloc(ENTRIES, sizeof *keys);
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct arena *arena = arena_create(0);
    struct context ctx;
    struct cache_answer answer;
    struct cache_fill *fill;
    ensure(keys != NULL);
    for (uint64_t i = 0; i < ENTRIES; i++)
        keys[i] = key_of(i);
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    int64_t began = cpu_ns();
    for (size_t i = 0; i < ROUNDS; i++) {
        runner->seed = runner->seed * 6364136223846793005ull + 1442695040888963407ull;
        arena_reset(arena);
        ensure(response_cache_begin(runner->cache, &ctx, &keys[(runner->seed >> 33) % ENTRIES],
                                    &rule, &answer, &fill) == CACHE_HIT);
    }
    runner->ns = cpu_ns() - began;
    context_deinit(&ctx);
    arena_destroy(arena);
    scheduler_destroy(scheduler);
    free(keys);
    return NULL;
}

static double floor_ns(size_t bytes)
{
    char *bodies = calloc(
        ENTRIES, bytes); /* as many places as the cache has: the same misses of the CPU's caches */
    struct arena *arena = arena_create(0);
    uint64_t seed = 1;
    ensure(bodies != NULL);
    memset(bodies, 'x', ENTRIES * bytes);
    int64_t began = cpu_ns();
    for (size_t i = 0; i < ROUNDS; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        arena_reset(arena);
        memcpy(arena_alloc_raw(arena, bytes), bodies + (seed >> 33) % ENTRIES * bytes, bytes);
    }
    int64_t ns = cpu_ns() - began;
    arena_destroy(arena);
    free(bodies);
    return (double) ns / ROUNDS;
}

static void bench_body(struct context *ctx, size_t bytes)
{
    struct runner runners[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    struct response_cache_options options = {.bytes_max = 256u << 20, .clock = clock_system()};
    struct response_cache *cache = response_cache_create(&options);
    char *body = malloc(bytes);
    ensure(body != NULL);
    memset(body, 'x', bytes);
    struct runner filler = {.cache = cache};
    int64_t began = cpu_ns();
    for (uint64_t i = 0; i < ENTRIES; i++)
        put(&filler, ctx, i, str_of(body, bytes));
    double fill_ns = (double) (cpu_ns() - began) / ENTRIES;
    for (size_t count = 1; count <= THREADS_MAX; count++) {
        double ns = 0;
        for (size_t i = 0; i < count; i++) {
            runners[i] = (struct runner){.cache = cache, .body_bytes = bytes, .seed = i + 1};
            ensure(pthread_create(&threads[i], NULL, run_hits, &runners[i]) == 0);
        }
        for (size_t i = 0; i < count; i++) {
            pthread_join(threads[i], NULL);
            ns += (double) runners[i].ns / ROUNDS / (double) count;
        }
        printf("%6zu bytes, %zu thread%s: hit %7.0f ns (%6.0f MB/s a thread), floor %7.0f ns; miss "
               "and fill "
               "%7.0f ns\n",
               bytes, count, count > 1 ? "s" : " ", ns, (double) bytes * 1000 / ns, floor_ns(bytes),
               fill_ns);
    }
    free(body);
    response_cache_destroy(cache);
}

static void bench_key(size_t turns)
{
    struct arena *arena = arena_create(0);
    struct strbuf text;
    struct cache_key key;
    struct error e;
    const struct json *json;
    enum { KEYS = 20000 };
    strbuf_init(&text, arena, 1 << 20);
    strbuf_add(&text, S("{\"model\":\"fast\",\"temperature\":0.2,\"messages\":["));
    for (size_t i = 0; i < turns; i++)
        strbuf_printf(&text,
                      "%s{\"role\":\"user\",\"content\":\"What is the height of tower %zu, in "
                      "metres and in feet?\"}",
                      i ? "," : "", i);
    strbuf_add(&text, S("]}"));
    ensure(json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &json, &e));
    int64_t began = cpu_ns();
    for (int i = 0; i < KEYS; i++)
        cache_key_make(arena, (uuid){{1}}, S("ada"), "openai_chat", S("fast"), 1, json, &key);
    printf("key of a request of %zu bytes: %.0f ns\n", text.len,
           (double) (cpu_ns() - began) / KEYS);
    arena_destroy(arena);
}

static void bench_semantic(size_t dimension)
{
    struct semantic_cache *index = semantic_cache_create(64u << 20);
    struct semantic_question question = {0};
    struct cache_key key;
    double found;
    enum { QUESTIONS = 512, SEARCHES = 300 };
    float *vector = calloc(dimension, sizeof *vector);
    ensure(vector != NULL);
    for (uint64_t i = 0; i < QUESTIONS; i++) {
        question.key = key_of(i);
        for (size_t k = 0; k < dimension; k++)
            vector[k] = (float) (int8_t) question.key.digest[k % 32];
        semantic_cache_add(index, &question, vector, dimension, INT64_MAX);
    }
    int64_t began = cpu_ns();
    for (int i = 0; i < SEARCHES; i++)
        ensure(semantic_cache_find(index, question.scope, vector, dimension, 0.5, 0, &key, &found));
    printf("nearest of %d questions, %zu dimensions: %.1f us\n", QUESTIONS, dimension,
           (double) (cpu_ns() - began) / SEARCHES / 1000);
    free(vector);
    semantic_cache_destroy(index);
}

int main(void)
{
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct arena *arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    bench_key(1);
    bench_key(20);
    bench_body(&ctx, 500);
    bench_body(&ctx, 2000);
    bench_body(&ctx, 20000);
    bench_semantic(1536);
    context_deinit(&ctx);
    arena_destroy(arena);
    scheduler_destroy(scheduler);
    return 0;
}
