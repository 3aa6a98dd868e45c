/* The response cache: keys, lookups, coalescing, bounds; against a plain model, and from many threads. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/semantic_cache.h"
#include "runtime/loop.h"
#include "runtime/simulated.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct model_cache exact = {.mode = MODEL_CACHE_EXACT, .ttl_ms = 60000};

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

/* ---- on one simulated scheduler ---- */

struct world {
    struct clock *clock;
    struct random *random;
    struct scheduler *scheduler;
    struct response_cache *cache;
};

struct job {
    struct world *world;
    void (*fn)(struct world *world, struct context *ctx, void *argument);
    void *argument;
};

static void run_job(void *argument)
{
    struct job *job = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, job->world->scheduler, arena, DEADLINE_NONE);
    job->fn(job->world, &ctx, job->argument);
    context_deinit(&ctx);
    free(job);
}

static void spawn(struct world *world, void (*fn)(struct world *, struct context *, void *),
                  void *argument)
{
    struct error e;
    struct job *job = malloc(sizeof *job);
    *job = (struct job){world, fn, argument};
    assert_true(coroutine_start(world->scheduler, "job", run_job, job, &e));
}

static void world_open(struct world *world, size_t bytes_max)
{
    world->clock = clock_manual_create(1700000000000000ll, 1000);
    world->random = random_seeded_create(3);
    world->scheduler = scheduler_create(world->clock, world->random, (struct scheduler_hooks){0});
    world->cache = response_cache_create(
        &(struct response_cache_options){.bytes_max = bytes_max, .clock = world->clock});
}

static void world_close(struct world *world)
{
    assert_true(simulated_run(world->scheduler, world->clock, 1000000));
    response_cache_destroy(world->cache);
    scheduler_destroy(world->scheduler);
    random_seeded_destroy(world->random);
    clock_manual_destroy(world->clock);
}

static void in_world(size_t bytes_max, void (*fn)(struct world *, struct context *, void *))
{
    struct world world;
    world_open(&world, bytes_max);
    spawn(&world, fn, NULL);
    world_close(&world);
}

/* Puts an answer of `size` bytes; false when the cache did not ask for it. */
static bool put(struct response_cache *cache, struct context *ctx, const struct cache_key *key,
                str body)
{
    struct cache_answer answer;
    struct cache_fill *fill = NULL;
    struct usage usage = {.input_tokens = 5, .is_reported = true};
    enum cache_outcome outcome = response_cache_begin(cache, ctx, key, &exact, &answer, &fill);
    if (outcome != CACHE_LEAD)
        return false;
    cache_fill_add(fill, body);
    cache_fill_commit(fill, 200, S("application/json"), false, &usage);
    return true;
}

static bool peek(struct response_cache *cache, struct context *ctx, const struct cache_key *key,
                 str *body)
{
    struct cache_answer answer;
    struct cache_fill *fill = NULL;
    enum cache_outcome outcome = response_cache_begin(cache, ctx, key, &exact, &answer, &fill);
    if (outcome == CACHE_LEAD)
        cache_fill_abandon(fill);
    if (outcome == CACHE_HIT && body)
        *body = answer.body;
    return outcome == CACHE_HIT;
}

static void hit_is_what_was_put(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    struct cache_key key = key_of(1), other = key_of(1);
    struct cache_answer answer;
    struct cache_fill *fill = NULL;
    other.tenant_id.bytes[0] ^= 1;
    assert_int_equal(response_cache_begin(world->cache, ctx, &key, &exact, &answer, &fill),
                     CACHE_LEAD);
    cache_fill_add(fill, S("data: 1\n\n"));
    cache_fill_add(fill, S("data: [DONE]\n\n"));
    cache_fill_commit(fill, 200, S("text/event-stream"), true,
                      &(struct usage){.output_tokens = 3, .is_reported = true});
    assert_int_equal(response_cache_begin(world->cache, ctx, &key, &exact, &answer, &fill),
                     CACHE_HIT);
    assert_true(str_equal(answer.body, S("data: 1\n\ndata: [DONE]\n\n")));
    assert_true(str_equal(answer.content_type, S("text/event-stream")));
    assert_true(answer.is_stream && !answer.is_coalesced && !answer.is_semantic);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.usage.output_tokens, 3);
    assert_int_equal(answer.stored_us, 1700000000000000ll);
    assert_false(peek(world->cache, ctx, &other, NULL));
    clock_manual_advance_ns(world->clock, 60000ll * 1000000 - 1);
    assert_true(peek(world->cache, ctx, &key, NULL));
    clock_manual_advance_ns(world->clock, 1);
    assert_false(peek(world->cache, ctx, &key, NULL));
    assert_int_equal(response_cache_stats(world->cache).entries, 0);
}

static void test_a_hit_is_what_was_put_until_it_expires(void **state)
{
    (void) state;
    in_world(0, hit_is_what_was_put);
}

static void keeps_only_whole(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    struct cache_answer answer;
    struct cache_fill *fill = NULL;
    struct cache_key key = key_of(2);
    struct model_cache off = {.mode = MODEL_CACHE_OFF, .ttl_ms = 1};
    struct model_cache timeless = {.mode = MODEL_CACHE_EXACT};
    size_t empty = response_cache_stats(world->cache).bytes;
    assert_int_equal(response_cache_begin(world->cache, ctx, &key, &off, &answer, &fill),
                     CACHE_BYPASS);
    assert_int_equal(response_cache_begin(world->cache, ctx, &key, &timeless, &answer, &fill),
                     CACHE_BYPASS);
    for (int status = 199; status <= 500; status += 101) {
        assert_int_equal(response_cache_begin(world->cache, ctx, &key, &exact, &answer, &fill),
                         CACHE_LEAD);
        cache_fill_add(fill, S("{}"));
        cache_fill_commit(fill, status, S("application/json"), false, NULL);
    }
    assert_int_equal(response_cache_begin(world->cache, ctx, &key, &exact, &answer, &fill),
                     CACHE_LEAD);
    static char large[RESPONSE_CACHE_ENTRY_BYTES_MAX + 1];
    memset(large, 'x', sizeof large);
    cache_fill_add(fill, str_of(large, sizeof large));
    cache_fill_add(fill, S("more"));
    cache_fill_commit(fill, 200, S("application/json"), false, NULL);
    assert_int_equal(response_cache_stats(world->cache).bytes, empty);
    cache_fill_abandon(NULL);
    assert_true(put(world->cache, ctx, &key, str_of(large, sizeof large - 1)));
    assert_true(peek(world->cache, ctx, &key, NULL));
    struct cache_key blank = key_of(3);
    str body = S("?");
    assert_true(put(world->cache, ctx, &blank, STR_NONE));
    assert_true(peek(world->cache, ctx, &blank, &body));
    assert_int_equal(body.len, 0);
}

static void test_only_whole_successful_answers_are_kept(void **state)
{
    (void) state;
    in_world(0, keeps_only_whole);
}

/* ---- coalescing ---- */

struct chorus {
    struct cache_key key;
    struct cache_fill *fill;
    int leads, hits, bypasses;
    str expected;
    int64_t deadline_ms; /* 0: none */
};

static void sing(struct world *world, struct context *ctx, void *argument)
{
    struct chorus *chorus = argument;
    struct cache_answer answer;
    struct cache_fill *fill = NULL;
    struct context own;
    context_init_child(&own, ctx,
                       chorus->deadline_ms ? context_deadline_in(ctx, chorus->deadline_ms)
                                           : DEADLINE_NONE);
    switch (response_cache_begin(world->cache, &own, &chorus->key, &exact, &answer, &fill)) {
    case CACHE_LEAD:
        chorus->leads++;
        chorus->fill = fill;
        break;
    case CACHE_HIT:
        chorus->hits++;
        assert_true(answer.is_coalesced);
        assert_true(str_equal(answer.body, chorus->expected));
        break;
    case CACHE_BYPASS: chorus->bypasses++; break;
    }
    context_deinit(&own);
}

static void test_equal_calls_in_flight_are_made_once(void **state)
{
    (void) state;
    struct world world;
    struct chorus chorus = {.key = key_of(9), .expected = S("whole")};
    world_open(&world, 0);
    for (int i = 0; i < 100; i++)
        spawn(&world, sing, &chorus);
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    assert_int_equal(chorus.leads, 1);
    assert_int_equal(chorus.hits, 0);
    cache_fill_add(chorus.fill, S("who"));
    cache_fill_add(chorus.fill, S("le"));
    cache_fill_commit(chorus.fill, 200, S("text/event-stream"), true, NULL);
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    assert_int_equal(chorus.hits, 99);
    assert_int_equal(response_cache_stats(world.cache).coalesced, 99);
    world_close(&world);
}

static void test_followers_of_a_failed_leader_make_their_own_calls(void **state)
{
    (void) state;
    struct world world;
    struct chorus chorus = {.key = key_of(9)};
    world_open(&world, 0);
    for (int i = 0; i < 10; i++)
        spawn(&world, sing, &chorus);
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    cache_fill_abandon(chorus.fill);
    world_close(&world);
    assert_int_equal(chorus.leads, 1);
    assert_int_equal(chorus.bypasses, 9);
}

static void test_waiting_is_bounded_in_number_and_time(void **state)
{
    (void) state;
    struct world world;
    struct chorus chorus = {.key = key_of(9), .expected = S("late")};
    world_open(&world, 0);
    for (size_t i = 0; i < RESPONSE_CACHE_WAITERS_MAX + 3; i++)
        spawn(&world, sing, &chorus);
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    assert_int_equal(chorus.bypasses, 2); /* the leader, the waiters, two too many */
    assert_true(simulated_run(world.scheduler, world.clock, 100000));
    assert_int_equal(chorus.bypasses, RESPONSE_CACHE_WAITERS_MAX + 2);
    assert_int_equal(clock_monotonic_ns(world.clock), 1000 + RESPONSE_CACHE_WAIT_MS * 1000000ll);
    chorus.deadline_ms = 10;
    spawn(&world, sing, &chorus);
    assert_true(simulated_run(world.scheduler, world.clock, 100000));
    assert_int_equal(chorus.bypasses, RESPONSE_CACHE_WAITERS_MAX + 3);
    cache_fill_commit(chorus.fill, 200, STR_NONE, false, NULL);
    world_close(&world);
}

static void test_an_answer_too_long_frees_its_followers_at_once(void **state)
{
    (void) state;
    struct world world;
    struct chorus chorus = {.key = key_of(9)};
    static char piece[RESPONSE_CACHE_ENTRY_BYTES_MAX / 4];
    world_open(&world, 0);
    for (int i = 0; i < 5; i++)
        spawn(&world, sing, &chorus);
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    struct cache_fill *fill = chorus.fill;
    for (int i = 0; i < 5; i++)
        cache_fill_add(fill, str_of(piece, sizeof piece));
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    assert_int_equal(chorus.bypasses, 4);
    spawn(&world, sing, &chorus); /* leads anew while the first goes on */
    while (scheduler_run_ready(world.scheduler, 1000))
        continue;
    assert_int_equal(chorus.leads, 2);
    cache_fill_commit(fill, 200, STR_NONE, false, NULL);
    cache_fill_abandon(chorus.fill);
    world_close(&world);
}

/* ---- against a plain model ---- */

enum { MODEL_KEYS = 400, MODEL_STEPS = 60000 };

static void model_test(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    struct reference {
        bool is_put;
        uint64_t seed;
        size_t size;
        int64_t expires_ns;
    } *reference = calloc(MODEL_KEYS, sizeof *reference);
    static char text[8192];
    size_t hits = 0;
    for (size_t step = 0; step < MODEL_STEPS; step++) {
        arena_mark mark = arena_save(ctx->arena);
        size_t number = random_below(world->random, MODEL_KEYS);
        struct cache_key key = key_of(number);
        struct reference *known = &reference[number];
        struct cache_answer answer;
        struct cache_fill *fill = NULL;
        int64_t now_ns = clock_monotonic_ns(world->clock);
        enum cache_outcome outcome =
            response_cache_begin(world->cache, ctx, &key, &exact, &answer, &fill);
        if (outcome == CACHE_HIT) { /* whatever is found is what was put last, and in time */
            hits++;
            assert_true(known->is_put && known->expires_ns > now_ns);
            assert_int_equal(answer.body.len, known->size);
            for (size_t i = 0; i < answer.body.len; i++)
                assert_int_equal((uint8_t) answer.body.ptr[i], (uint8_t) (known->seed + i));
        } else if (random_below(world->random, 8) == 0) {
            assert_int_equal(outcome, CACHE_LEAD);
            cache_fill_abandon(fill);
        } else {
            known->seed = random_u64(world->random);
            known->size = random_below(world->random, sizeof text);
            for (size_t i = 0; i < known->size; i++)
                text[i] = (char) (known->seed + i);
            for (size_t at = 0; at < known->size;) {
                size_t piece = 1 + random_below(world->random, 3000);
                str rest = str_slice(str_of(text, known->size), at, at + piece);
                cache_fill_add(fill, rest);
                at += rest.len;
            }
            known->is_put = true;
            known->expires_ns = now_ns + exact.ttl_ms * 1000000;
            cache_fill_commit(fill, 200, S("t"), false, NULL);
        }
        struct response_cache_stats stats = response_cache_stats(world->cache);
        assert_true(stats.bytes <= stats.bytes_max);
        clock_manual_advance_ns(world->clock, (int64_t) random_below(world->random, 20000000));
        arena_rewind(ctx->arena, mark);
    }
    assert_true(hits > MODEL_STEPS / 20);
    free(reference);
}

static void test_a_random_history_agrees_with_a_plain_model(void **state)
{
    (void) state;
    in_world(1u << 20, model_test);
}

static void scan(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    static char body[1000];
    for (uint64_t round = 0; round < 3; round++)
        for (uint64_t i = 0; i < 100; i++) /* the hot ones: read again */
            if (!peek(world->cache, ctx, &(struct cache_key[]){key_of(i)}[0], NULL))
                put(world->cache, ctx, &(struct cache_key[]){key_of(i)}[0],
                    str_of(body, sizeof body));
    for (uint64_t i = 0; i < 20000; i++) {
        struct cache_key key = key_of(100000 + i);
        put(world->cache, ctx, &key, str_of(body, sizeof body));
    }
    size_t left = 0;
    for (uint64_t i = 0; i < 100; i++)
        left += peek(world->cache, ctx, &(struct cache_key[]){key_of(i)}[0], NULL);
    assert_int_equal(left, 100);
}

static void test_a_scan_does_not_push_out_what_is_read_again(void **state)
{
    (void) state;
    in_world(1u << 20, scan);
}

/* ---- the bound in real memory ---- */

static long rss_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void fill_up(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    static char body[200000];
    memset(body, 'b', sizeof body);
    long before = rss_kib();
    for (uint64_t i = 0; i < 30000; i++) {
        arena_mark mark = arena_save(ctx->arena);
        struct cache_key key = key_of(i);
        size_t size = random_below(world->random, 20) == 0
                          ? random_below(world->random, sizeof body)
                          : random_below(world->random, 4000);
        assert_true(put(world->cache, ctx, &key, str_of(body, size)));
        if (i % 100 == 0) {
            struct response_cache_stats stats = response_cache_stats(world->cache);
            assert_true(stats.bytes <= stats.bytes_max);
            assert_true(stats.bytes_max <= 16u << 20);
        }
        arena_rewind(ctx->arena, mark);
    }
    struct response_cache_stats stats = response_cache_stats(world->cache);
    assert_true(stats.bytes > stats.bytes_max * 8 / 10);
    assert_true(stats.evictions > 20000);
    printf("16 MiB cache: %zu bytes counted in %zu entries, RSS grew by %ld KiB\n", stats.bytes,
           stats.entries, rss_kib() - before);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(rss_kib() - before < 2 * (16 << 10));
#endif
}

static void test_counted_bytes_never_pass_the_bound(void **state)
{
    (void) state;
    in_world(16u << 20, fill_up);
}

/* ---- keys ---- */

static void make_key(struct arena *arena, const char *user, const char *dialect, const char *model,
                     uint64_t version, const char *json, struct cache_key *out)
{
    const struct json *tree;
    struct error e;
    assert_true(json_parse(arena, str_from_cstr(json), (struct json_limits){0}, &tree, &e));
    cache_key_make(arena, (uuid){{1}}, str_from_cstr(user), dialect, str_from_cstr(model), version,
                   tree, out);
}

static void test_everything_that_shapes_an_answer_is_in_the_key(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct cache_key base, same, other;
    const char *json = "{\"model\":\"m\",\"temperature\":0.5,\"messages\":[{\"role\":\"user\"}]}";
    make_key(arena, "u", "openai_chat", "m", 1, json, &base);
    make_key(arena, "u", "openai_chat", "m", 1,
             "{\"messages\":[{\"role\":\"user\"}], \"temperature\":5e-1, \"model\":\"\\u006d\"}",
             &same);
    assert_memory_equal(&base, &same, sizeof base);
    struct {
        const char *user, *dialect, *model;
        uint64_t version;
        const char *json;
    } others[] = {
        {"v", "openai_chat", "m", 1, json},
        {"", "openai_chat", "m", 1, json},
        {"u", "anthropic_messages", "m", 1, json},
        {"u", "openai_chat", "n", 1, json},
        {"u", "openai_chat", "m", 2, json},
        {"u", "openai_chat", "m", 1,
         "{\"model\":\"m\",\"temperature\":0.6,\"messages\":[{\"role\":\"user\"}]}"},
        {"u", "openai_chat", "m", 1,
         "{\"model\":\"m\",\"temperature\":0.5,\"x\":null,\"messages\":[{\"role\":\"user\"}]}"},
        {"uo", "penai_chat", "m", 1, json},
    };
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        make_key(arena, others[i].user, others[i].dialect, others[i].model, others[i].version,
                 others[i].json, &other);
        assert_memory_not_equal(base.digest, other.digest, sizeof base.digest);
    }
}

/* ---- by meaning ---- */

struct asked {
    const char *text;
    float vector[2];
    int64_t delay_ms;
    bool fails;
    int calls;
};

static bool embed(void *owner, struct context *ctx, str model, str text, const float **vector,
                  size_t *dimension, struct error *e)
{
    struct asked *asked = owner;
    assert_true(str_equal(model, S("embedder")));
    assert_true(str_equal(text, str_from_cstr(asked->text)));
    asked->calls++;
    if (!context_sleep_ms(ctx, asked->delay_ms, e))
        return false;
    if (asked->fails)
        return error_set(e, REASON_PROVIDER_OVERLOADED, "down");
    *vector = asked->vector;
    *dimension = 2;
    return true;
}

static const struct model_cache by_meaning = {.mode = MODEL_CACHE_SEMANTIC,
                                              .ttl_ms = 60000,
                                              .similarity = 0.9,
                                              .embedder = S_INIT("embedder")};

static bool question_of(struct context *ctx, const char *json, struct semantic_question *out)
{
    const struct json *tree;
    struct error e;
    struct cache_key key;
    assert_true(json_parse(ctx->arena, str_from_cstr(json), (struct json_limits){0}, &tree, &e));
    cache_key_make(ctx->arena, (uuid){{1}}, S("u"), "openai_chat", S("m"), 1, tree, &key);
    return semantic_question_make(ctx->arena, &key, S("u"), DIALECT_OPENAI_CHAT, S("m"), 1, tree,
                                  out);
}

/* Asks; on a miss puts `body`.  Gives what was answered. */
static str ask(struct world *world, struct context *ctx, const char *json, struct asked *asked,
               str body, bool *is_semantic)
{
    struct semantic_question question;
    struct cache_answer answer = {0};
    struct cache_fill *fill = NULL;
    struct cache_embedder embedder = {embed, asked};
    assert_true(question_of(ctx, json, &question));
    asked->text = str_to_cstr(ctx->arena, question.text);
    enum cache_outcome outcome =
        response_cache_begin(world->cache, ctx, &question.key, &by_meaning, &answer, &fill);
    *is_semantic = false;
    if (outcome == CACHE_HIT)
        return answer.body;
    assert_int_equal(outcome, CACHE_LEAD);
    if (response_cache_semantic(world->cache, ctx, &question, &by_meaning, &embedder, &fill,
                                &answer)) {
        assert_null(fill);
        assert_true(answer.is_semantic && answer.similarity >= 0.9);
        *is_semantic = true;
        return answer.body;
    }
    cache_fill_add(fill, body);
    cache_fill_commit(fill, 200, S("application/json"), false, NULL);
    return body;
}

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define CHAT(more, turns) "{\"model\":\"m\"," more "\"messages\":[" turns "]}"

static void meaning(struct world *world, struct context *ctx, void *argument)
{
    (void) argument;
    bool is_semantic;
    struct asked near = {.vector = {1, 0}}, far = {.vector = {0, 1}};
    struct asked nearer = {.vector = {20, 1}};
    assert_true(str_equal(
        ask(world, ctx, CHAT("", USER("how tall is it")), &near, S("A"), &is_semantic), S("A")));
    assert_true(str_equal(
        ask(world, ctx, CHAT("", USER("what is its height")), &nearer, S("B"), &is_semantic),
        S("A")));
    assert_true(is_semantic);
    ask(world, ctx, CHAT("", USER("who wrote it")), &far, S("C"), &is_semantic);
    assert_false(is_semantic);
    /* Other parameters, another earlier turn: never a neighbour. */
    ask(world, ctx, CHAT("\"temperature\":1,", USER("how tall is it")), &near, S("D"),
        &is_semantic);
    assert_false(is_semantic);
    ask(world, ctx, CHAT("", USER("the tower") "," USER("how tall is it")), &near, S("E"),
        &is_semantic);
    assert_false(is_semantic);
    /* A dead embedder is a miss, and a slow one costs its deadline and no more. */
    struct asked dead = {.fails = true}, slow = {.vector = {1, 0}, .delay_ms = 60000};
    ask(world, ctx, CHAT("", USER("is it tall")), &dead, S("F"), &is_semantic);
    assert_false(is_semantic);
    int64_t before_ns = context_now_ns(ctx);
    ask(world, ctx, CHAT("", USER("tall is it")), &slow, S("G"), &is_semantic);
    assert_false(is_semantic);
    assert_int_equal(context_now_ns(ctx) - before_ns, SEMANTIC_EMBED_MS * 1000000ll);
    /* An exact hit asks no embedder. */
    int calls = near.calls;
    assert_true(str_equal(
        ask(world, ctx, CHAT("", USER("how tall is it")), &near, S("H"), &is_semantic), S("A")));
    assert_int_equal(near.calls, calls);
    assert_int_equal(response_cache_stats(world->cache).semantic_hits, 1);
    clock_manual_advance_ns(world->clock, 61000ll * 1000000);
    ask(world, ctx, CHAT("", USER("what is its height now")), &nearer, S("I"), &is_semantic);
    assert_false(is_semantic);
}

static void test_a_near_question_of_the_same_scope_is_answered(void **state)
{
    (void) state;
    in_world(0, meaning);
}

static void refuses(struct world *world, struct context *ctx, void *argument)
{
    (void) world;
    (void) argument;
    struct semantic_question question;
    static const char *const bad[] = {
        CHAT("\"tools\":[{}],", USER("a")),
        CHAT("", "{\"role\":\"assistant\",\"content\":\"a\"}"),
        CHAT("", "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
        CHAT("", "{\"role\":\"tool\",\"content\":\"x\"}," USER("a")),
        CHAT("", "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[]}," USER("a")),
        CHAT("", USER(" ")),
        CHAT("", ""),
        CHAT("\"previous_response_id\":\"r\",", USER("a")),
        "{\"messages\":3}",
        "{}",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        if (question_of(ctx, bad[i], &question))
            fail_msg("%s", bad[i]);
    assert_true(question_of(ctx, CHAT("\"tools\":[],", USER("a")), &question));
    assert_true(question_of(
        ctx, CHAT("", "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}"),
        &question));
}

static void test_tools_images_and_odd_turns_are_never_compared(void **state)
{
    (void) state;
    in_world(0, refuses);
}

static void test_the_index_is_bounded(void **state)
{
    (void) state;
    struct semantic_cache *index = semantic_cache_create(4u << 20);
    struct semantic_question question = {0};
    float vector[256] = {1};
    for (uint64_t i = 0; i < SEMANTIC_SCOPE_ENTRIES_MAX + 10; i++) {
        question.key = key_of(i);
        semantic_cache_add(index, &question, vector, 8, INT64_MAX);
    }
    assert_int_equal(semantic_cache_count(index), SEMANTIC_SCOPE_ENTRIES_MAX);
    for (uint64_t i = 0; i < 20000; i++) {
        question.key = key_of(i);
        memcpy(question.scope, key_of(i % 3000).digest, 32);
        semantic_cache_add(index, &question, vector, 256, INT64_MAX);
        assert_true(i % 64 != 0 || semantic_cache_bytes(index) <= 4u << 20);
    }
    assert_true(semantic_cache_count(index) > 2000);
    vector[0] = 0;
    size_t count = semantic_cache_count(index);
    question.key = key_of(1u << 30);
    semantic_cache_add(index, &question, vector, 256, INT64_MAX); /* no direction */
    assert_int_equal(semantic_cache_count(index), count);
    semantic_cache_destroy(index);
}

/* ---- many loops ---- */

enum { LOOPS = 4, WORKERS = 24, ROUNDS = 60, SHARED_KEYS = 40 };

struct crowd {
    struct response_cache *cache;
    struct loop *loops[LOOPS];
    atomic_int running, leads, hits, bypasses;
};
struct worker {
    struct crowd *crowd;
    struct loop *loop;
    uint64_t seed;
};

static void work(void *argument)
{
    struct worker *worker = argument;
    struct crowd *crowd = worker->crowd;
    struct scheduler *scheduler = loop_scheduler(worker->loop);
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t r = random_u64(random_system());
        struct cache_key key = key_of(r % SHARED_KEYS + (uint64_t) (round / 8) * 1000);
        struct cache_answer answer;
        struct cache_fill *fill = NULL;
        struct context own;
        /* Some give up early: their message may be on its way just then. */
        context_init_child(&own, &ctx, r >> 60 < 4 ? context_deadline_in(&ctx, 1) : DEADLINE_NONE);
        switch (response_cache_begin(crowd->cache, &own, &key, &exact, &answer, &fill)) {
        case CACHE_HIT:
            crowd->hits++;
            ensure(answer.body.len == 64 && memcmp(answer.body.ptr, key.digest, 32) == 0);
            break;
        case CACHE_BYPASS: crowd->bypasses++; break;
        case CACHE_LEAD:
            crowd->leads++;
            cache_fill_add(fill, str_of((const char *) key.digest, 32));
            ensure(context_sleep_ms(&ctx, (int64_t) (r >> 32) % 3, &e));
            if ((r >> 40) % 8 == 0) {
                cache_fill_abandon(fill);
                break;
            }
            cache_fill_add(fill, str_of((const char *) key.digest, 32));
            cache_fill_commit(fill, 200, S("x"), false, NULL);
            break;
        }
        context_deinit(&own);
    }
    context_deinit(&ctx);
    if (atomic_fetch_sub(&crowd->running, 1) == 1)
        for (size_t i = 0; i < LOOPS; i++)
            loop_stop(crowd->loops[i]);
    free(worker);
}

static void start_workers(void *argument)
{
    struct worker *first = argument;
    struct error e;
    for (int i = 0; i < WORKERS; i++) {
        struct worker *worker = malloc(sizeof *worker);
        *worker = *first;
        ensure(coroutine_start(loop_scheduler(first->loop), "worker", work, worker, &e));
    }
}

static void test_loops_share_leaders_and_wake_each_other(void **state)
{
    (void) state;
    struct crowd crowd = {.running = LOOPS * WORKERS};
    struct worker firsts[LOOPS];
    struct error e;
    crowd.cache = response_cache_create(
        &(struct response_cache_options){.bytes_max = 256u << 10, .clock = clock_system()});
    for (size_t i = 0; i < LOOPS; i++) {
        crowd.loops[i] = loop_create(clock_system(), random_system(), &e);
        assert_non_null(crowd.loops[i]);
        firsts[i] = (struct worker){.crowd = &crowd, .loop = crowd.loops[i]};
    }
    for (size_t i = 0; i < LOOPS; i++) {
        loop_post(crowd.loops[i], start_workers, &firsts[i]);
        assert_true(loop_start_thread(crowd.loops[i], "test", &e));
    }
    for (size_t i = 0; i < LOOPS; i++) {
        loop_join_thread(crowd.loops[i]);
        loop_destroy(crowd.loops[i]);
    }
    struct response_cache_stats stats = response_cache_stats(crowd.cache);
    printf("%d leads, %d hits, %d bypasses; %llu coalesced\n", crowd.leads, crowd.hits,
           crowd.bypasses, (unsigned long long) stats.coalesced);
    assert_int_equal(crowd.leads + crowd.hits + crowd.bypasses, LOOPS * WORKERS * ROUNDS);
    assert_int_equal(stats.hits + stats.coalesced, (uint64_t) crowd.hits);
    assert_int_equal(stats.misses, (uint64_t) crowd.leads);
    assert_int_equal(stats.fills, 0);
    assert_true(stats.coalesced > 0);
    response_cache_destroy(crowd.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hit_is_what_was_put_until_it_expires),
        cmocka_unit_test(test_only_whole_successful_answers_are_kept),
        cmocka_unit_test(test_equal_calls_in_flight_are_made_once),
        cmocka_unit_test(test_followers_of_a_failed_leader_make_their_own_calls),
        cmocka_unit_test(test_waiting_is_bounded_in_number_and_time),
        cmocka_unit_test(test_an_answer_too_long_frees_its_followers_at_once),
        cmocka_unit_test(test_a_random_history_agrees_with_a_plain_model),
        cmocka_unit_test(test_a_scan_does_not_push_out_what_is_read_again),
        cmocka_unit_test(test_counted_bytes_never_pass_the_bound),
        cmocka_unit_test(test_everything_that_shapes_an_answer_is_in_the_key),
        cmocka_unit_test(test_a_near_question_of_the_same_scope_is_answered),
        cmocka_unit_test(test_tools_images_and_odd_turns_are_never_compared),
        cmocka_unit_test(test_the_index_is_bounded),
        cmocka_unit_test(test_loops_share_leaders_and_wake_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
