/* Batches of embeddings: over a provider that does what its test says, and over the stand-in. */
#include "llm/embed_batch.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/embed_format.h"
#include "runtime/simulated.h"
#include "store/vector_math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- a provider: a text's vector is {its number, how many texts came with it} ---- */

struct fake {
    struct provider base;
    int64_t delay_ms;
    enum error_reason failure; /* of every call */
    int64_t usage;             /* of every call; -1: not told */
    int calls, cancelled, heads;
    size_t texts, largest;
    str user;
    char user_text[16];
};

static bool fake_embed(struct provider *provider, struct context *ctx,
                       const struct provider_call *how, const struct embed_request *request,
                       struct embed_reply *reply, struct error *e)
{
    struct fake *fake = (struct fake *) provider;
    const float **vectors =
        (const float **) arena_alloc_array(ctx->arena, request->text_count, sizeof(float *));
    bool has_poison = false;
    fake->calls++;
    fake->texts += request->text_count;
    if (request->text_count > fake->largest)
        fake->largest = request->text_count;
    snprintf(fake->user_text, sizeof fake->user_text, STR_FMT, STR_ARG(request->user));
    if (!context_sleep_ms(ctx, fake->delay_ms, e)) {
        fake->cancelled += e->code == ERROR_CANCELLED;
        return false;
    }
    how->on_head(how->owner, 200, NULL);
    for (size_t i = 0; i < request->text_count; i++) {
        double number = -1;
        has_poison = has_poison || str_equal(request->texts[i], S("poison"));
        str text = request->texts[i]; /* long ones end with their number */
        (void) str_to_double(text.len > 10 ? str_from(text, text.len - 10) : text, &number);
        float *vector = ARENA_ARRAY(ctx->arena, float, 2);
        vector[0] = (float) number;
        vector[1] = (float) request->text_count;
        vectors[i] = vector;
    }
    if (fake->failure != REASON_NONE)
        return error_set(e, fake->failure, "the fake fails");
    if (has_poison)
        return error_set(e, REASON_PROVIDER_INVALID, "poison is no input");
    *reply = (struct embed_reply){.vectors = vectors, .dimension = 2, .model = S("real-name")};
    if (fake->usage >= 0)
        reply->usage = (struct usage){.input_tokens = fake->usage, .is_reported = true};
    return true;
}

static const struct provider_ops fake_ops = {.name = "fake", .embed = fake_embed};

/* ---- a world on simulated time ---- */

enum { CALLERS_MAX = 256, TEXTS_EACH_MAX = 4 };

struct world;
struct caller {
    struct world *world;
    uuid tenant_id;
    size_t first, text_count;     /* its texts are the numbers first, first + 1 ... */
    int64_t begins_ms, leaves_ms; /* leaves 0: stays */
    bool is_poison;
    int key;
    const char *user;
    /* what came of it */
    bool is_done, ok, was_sent;
    struct error error;
    struct usage usage;
    int64_t took_ms;
    float first_batch; /* how many texts were in the call of its first */
};

struct world {
    struct clock *clock;
    struct random *random;
    struct scheduler *scheduler;
    struct embed_batch *batch;
    struct fake fake;
    struct caller callers[CALLERS_MAX];
    size_t caller_count;
};

static void note_head(void *owner, int status, const struct http_headers *headers)
{
    (void) status;
    (void) headers;
    ((struct world *) owner)->fake.heads++;
}

static void call_once(struct caller *caller, struct context *ctx)
{
    struct world *world = caller->world;
    str texts[TEXTS_EACH_MAX];
    for (size_t i = 0; i < caller->text_count; i++)
        texts[i] = str_printf(ctx->arena, "%zu", caller->first + i);
    if (caller->is_poison)
        texts[0] = S("poison");
    struct provider_call how = {.key = caller->key, .on_head = note_head, .owner = world};
    struct embed_call call = {.provider = &world->fake.base,
                              .how = &how,
                              .request = {.model = S("m"),
                                          .texts = texts,
                                          .text_count = caller->text_count,
                                          .user = str_from_cstr(caller->user)},
                              .tenant_id = caller->tenant_id};
    struct embed_outcome outcome;
    caller->ok = embed_batch_run(world->batch, ctx, &call, &outcome, &caller->error);
    caller->was_sent = outcome.was_sent;
    caller->usage = outcome.reply.usage;
    if (!caller->ok)
        return;
    assert_true(str_equal(outcome.reply.model, S("real-name")));
    for (size_t i = 0; i < caller->text_count; i++)
        assert_true(outcome.reply.vectors[i][0] == (float) (caller->first + i));
    caller->first_batch = outcome.reply.vectors[0][1];
}

static void run_caller(void *argument)
{
    struct caller *caller = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx, own;
    struct error e;
    context_init(&ctx, caller->world->scheduler, arena, DEADLINE_NONE);
    assert_true(context_sleep_ms(&ctx, caller->begins_ms, &e));
    int64_t began_ns = context_now_ns(&ctx);
    context_init_child(&own, &ctx,
                       caller->leaves_ms ? context_deadline_in(&ctx, caller->leaves_ms)
                                         : context_deadline_in(&ctx, 60000));
    call_once(caller, &own);
    caller->took_ms = (context_now_ns(&ctx) - began_ns) / 1000000;
    caller->is_done = true;
    context_deinit(&own);
    context_deinit(&ctx);
}

static struct caller *add(struct world *world, size_t text_count)
{
    size_t index = world->caller_count++;
    ensure(index < CALLERS_MAX && text_count <= TEXTS_EACH_MAX);
    world->callers[index] = (struct caller){.world = world,
                                            .tenant_id = {{1}},
                                            .first = index * TEXTS_EACH_MAX,
                                            .text_count = text_count};
    return &world->callers[index];
}

static struct world *world_open(void)
{
    struct world *world = calloc(1, sizeof *world);
    world->clock = clock_manual_create(1700000000000000ll, 1000);
    world->random = random_seeded_create(3);
    world->scheduler = scheduler_create(world->clock, world->random, (struct scheduler_hooks){0});
    world->batch = embed_batch_create(NULL);
    world->fake =
        (struct fake){.base = {.ops = &fake_ops, .name = S("fake")}, .delay_ms = 50, .usage = 1000};
    return world;
}

static void play(struct world *world)
{
    struct error e;
    for (size_t i = 0; i < world->caller_count; i++)
        assert_true(
            coroutine_start(world->scheduler, "caller", run_caller, &world->callers[i], &e));
    assert_true(simulated_run(world->scheduler, world->clock, 1000000));
    for (size_t i = 0; i < world->caller_count; i++)
        assert_true(world->callers[i].is_done);
}

static void world_close(struct world *world)
{
    embed_batch_destroy(world->batch); /* ensures that nothing is left */
    scheduler_destroy(world->scheduler);
    random_seeded_destroy(world->random);
    clock_manual_destroy(world->clock);
    free(world);
}

static void test_two_hundred_callers_share_few_calls(void **state)
{
    (void) state;
    struct world *world = world_open();
    size_t texts = 0;
    for (size_t i = 0; i < 200; i++) {
        struct caller *caller = add(world, 1 + i % TEXTS_EACH_MAX);
        caller->begins_ms = (int64_t) i % 10; /* over ten milliseconds */
        texts += caller->text_count;
    }
    play(world);
    printf("200 callers, %zu texts, %d upstream calls\n", texts, world->fake.calls);
    assert_int_equal(world->fake.texts, texts);
    assert_true(world->fake.calls <= 5);
    for (size_t i = 0; i < 200; i++) {
        assert_true(world->callers[i].ok);
        assert_true(world->callers[i].took_ms <= 50 + EMBED_BATCH_WAIT_MS);
    }
    assert_int_equal(world->fake.heads, 200);
    world_close(world);
}

static void test_a_lone_caller_waits_for_nobody(void **state)
{
    (void) state;
    struct world *world = world_open();
    struct caller *caller = add(world, 2);
    struct caller *later = add(world, 1);
    later->begins_ms = 1000;
    play(world);
    assert_true(caller->ok && later->ok);
    assert_int_equal(caller->took_ms, 50);
    assert_int_equal(later->took_ms, 50);
    assert_int_equal(world->fake.calls, 2);
    assert_true(caller->usage.is_reported && caller->usage.input_tokens == 1000);
    world_close(world);
}

static void test_tenants_never_share_a_call(void **state)
{
    (void) state;
    struct world *world = world_open();
    for (size_t i = 0; i < 30; i++)
        add(world, 1)->tenant_id.bytes[0] = (uint8_t) (i % 3);
    play(world);
    assert_int_equal(world->fake.calls, 3);
    for (size_t i = 0; i < 30; i++)
        assert_true(world->callers[i].ok && world->callers[i].first_batch == 10);
    world_close(world);
}

static void test_keys_never_share_a_call(void **state)
{
    (void) state;
    struct world *world = world_open();
    for (size_t i = 0; i < 30; i++)
        add(world, 1)->key = (int) (i % 2);
    play(world);
    assert_int_equal(world->fake.calls, 2);
    assert_int_equal(world->fake.heads, 30);
    world_close(world);
}

static void test_only_the_guilty_caller_gets_the_error(void **state)
{
    (void) state;
    struct world *world = world_open();
    for (size_t i = 0; i < 100; i++)
        add(world, 2)->is_poison = i == 37 || i == 90;
    play(world);
    printf("2 of 100 callers are guilty: %d upstream calls\n", world->fake.calls);
    assert_true(world->fake.calls <= 1 + 2 * 2 * 7);
    for (size_t i = 0; i < 100; i++) {
        struct caller *caller = &world->callers[i];
        assert_int_equal(caller->ok, !caller->is_poison);
        if (caller->is_poison)
            assert_int_equal(caller->error.reason, REASON_PROVIDER_INVALID);
    }
    world_close(world);
}

static void test_other_failures_are_everybodys_at_once(void **state)
{
    (void) state;
    struct world *world = world_open();
    world->fake.failure = REASON_PROVIDER_OVERLOADED;
    for (size_t i = 0; i < 20; i++)
        add(world, 1);
    play(world);
    assert_int_equal(world->fake.calls, 1);
    for (size_t i = 0; i < 20; i++) {
        assert_false(world->callers[i].ok);
        assert_int_equal(world->callers[i].error.reason, REASON_PROVIDER_OVERLOADED);
        assert_true(world->callers[i].was_sent);
    }
    world_close(world);
}

static void test_usage_is_shared_out_exactly(void **state)
{
    (void) state;
    struct world *world = world_open();
    int64_t sum = 0;
    world->fake.usage = 1009;
    for (size_t i = 0; i < 37; i++)
        add(world, 1 + i % 3);
    play(world);
    assert_int_equal(world->fake.calls, 1);
    for (size_t i = 0; i < 37; i++) {
        assert_true(world->callers[i].usage.is_reported);
        sum += world->callers[i].usage.input_tokens;
    }
    assert_int_equal(sum, 1009);
    world_close(world);
    world = world_open();
    world->fake.usage = -1;
    add(world, 1);
    play(world);
    assert_false(world->callers[0].usage.is_reported);
    world_close(world);
}

static void test_who_leaves_harms_nobody_and_an_abandoned_call_ends(void **state)
{
    (void) state;
    struct world *world = world_open();
    for (size_t i = 0; i < 20; i++)
        add(world, 1)->leaves_ms = i % 2 ? 20 : 0;
    play(world);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(world->callers[i].ok, i % 2 == 0);
    assert_int_equal(world->fake.calls, 1);
    assert_int_equal(world->fake.cancelled, 0);
    assert_int_equal(world->callers[1].error.reason, REASON_TIMEOUT);
    world_close(world);

    world = world_open(); /* all leave: the call is cancelled at once */
    for (size_t i = 0; i < 5; i++)
        add(world, 1)->leaves_ms = 20;
    struct caller *queued =
        add(world, 1); /* comes while it is in flight and leaves before it is sent */
    queued->begins_ms = 10;
    queued->leaves_ms = EMBED_BATCH_WAIT_MS - 2;
    play(world);
    assert_false(queued->ok || queued->was_sent);
    assert_true(world->callers[0].was_sent);
    assert_int_equal(world->fake.cancelled, 1);
    assert_int_equal(clock_monotonic_ns(world->clock) / 1000000, 20);
    world_close(world);
}

static void test_the_user_goes_along_when_all_name_the_same(void **state)
{
    (void) state;
    struct world *world = world_open();
    add(world, 1)->user = "ann";
    add(world, 1)->user = "ann";
    play(world);
    assert_string_equal(world->fake.user_text, "ann");
    world_close(world);
    world = world_open();
    add(world, 1)->user = "ann";
    add(world, 1)->user = "bob";
    play(world);
    assert_string_equal(world->fake.user_text, "");
    world_close(world);
}

/* ---- one large input ---- */

static void run_large(struct world *world, struct context *ctx, size_t count, size_t bytes)
{
    OWNED(arena) arena = arena_create(64u << 20);
    str *texts = ARENA_ARRAY(arena, str, count);
    for (size_t i = 0; i < count; i++) {
        char *text = arena_alloc(arena, bytes);
        memset(text, '0', bytes); /* a number with zeros before it */
        str tail = str_printf(arena, "%zu", i);
        memcpy(text + bytes - tail.len, tail.ptr, tail.len);
        texts[i] = str_of(text, bytes);
    }
    struct embed_call call = {
        .provider = &world->fake.base,
        .request = {.model = S("m"), .texts = texts, .text_count = count},
        .arena = arena,
    };
    struct embed_outcome outcome;
    struct error e = {0};
    world->fake.calls = 0;
    world->fake.largest = 0;
    if (!embed_batch_run(world->batch, ctx, &call, &outcome, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < count; i++)
        assert_true(outcome.reply.vectors[i][0] == (float) i);
    assert_int_equal(outcome.reply.usage.input_tokens, world->fake.usage * world->fake.calls);
}

static void large(void *argument)
{
    struct world *world = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, world->scheduler, arena, DEADLINE_NONE);
    run_large(world, &ctx, EMBED_INPUTS_MAX, 10);
    assert_int_equal(world->fake.calls, 1);
    assert_int_equal(world->fake.largest, EMBED_INPUTS_MAX);
    run_large(world, &ctx, EMBED_INPUTS_MAX + 1, 10);
    assert_int_equal(world->fake.calls, 2);
    run_large(world, &ctx, 1000, 992); /* a bound of 1,000 each: 300 a call */
    assert_int_equal(world->fake.calls, 4);
    assert_int_equal(world->fake.largest, 300);
    run_large(world, &ctx, 1, EMBED_BATCH_TOKENS_MAX); /* over the bound alone: still sent */
    assert_int_equal(world->fake.calls, 1);
    context_deinit(&ctx);
}

static void test_a_large_input_goes_out_in_several_calls(void **state)
{
    (void) state;
    struct world *world = world_open();
    struct error e;
    assert_true(coroutine_start(world->scheduler, "large", large, world, &e));
    assert_true(simulated_run(world->scheduler, world->clock, 100000));
    world_close(world);
}

/* ---- more than may wait ---- */

struct flood {
    struct world *world;
    int ok, refused;
};

static void pour(void *argument)
{
    struct flood *flood = argument;
    struct world *world = flood->world;
    OWNED(arena) arena = arena_create(64u << 20);
    struct context ctx;
    struct embed_outcome outcome;
    struct error e = {0};
    context_init(&ctx, world->scheduler, arena, DEADLINE_NONE);
    str *texts = ARENA_ARRAY(arena, str, EMBED_INPUTS_MAX);
    for (size_t i = 0; i < EMBED_INPUTS_MAX; i++)
        texts[i] = S("1");
    struct embed_call call = {
        .provider = &world->fake.base,
        .request = {.model = S("m"), .texts = texts, .text_count = EMBED_INPUTS_MAX}};
    bool ok = embed_batch_run(world->batch, &ctx, &call, &outcome, &e);
    flood->ok += ok;
    flood->refused += !ok && e.reason == REASON_OVERLOADED_HERE && !outcome.was_sent;
    context_deinit(&ctx);
}

static void test_no_more_texts_wait_than_may(void **state)
{
    (void) state;
    struct world *world = world_open();
    struct flood flood = {.world = world};
    struct error e;
    int fits = EMBED_BATCH_CALLS_MAX + EMBED_BATCH_QUEUE_MAX / EMBED_INPUTS_MAX;
    for (int i = 0; i < fits + 3; i++)
        assert_true(coroutine_start(world->scheduler, "pour", pour, &flood, &e));
    assert_true(simulated_run(world->scheduler, world->clock, 1000000));
    assert_int_equal(flood.ok + flood.refused, fits + 3);
    assert_true(flood.refused >= 3 && flood.refused <= 4); /* the first call takes its texts late */
    world_close(world);
}

/* ---- chaos ---- */

static void test_whatever_callers_do_nothing_is_mixed_up_or_left(void **state)
{
    (void) state;
    struct random *random = random_seeded_create(99);
    for (int round = 0; round < 60; round++) {
        struct world *world = world_open();
        world->fake.delay_ms = (int64_t) random_below(random, 12);
        for (size_t i = 0; i < 120; i++) {
            struct caller *caller = add(world, 1 + random_below(random, TEXTS_EACH_MAX));
            caller->begins_ms = (int64_t) random_below(random, 40);
            caller->leaves_ms =
                random_below(random, 3) == 0 ? 1 + (int64_t) random_below(random, 15) : 0;
            caller->is_poison = random_below(random, 15) == 0;
            caller->tenant_id.bytes[0] = (uint8_t) random_below(random, 2);
        }
        play(world); /* values are checked by each caller */
        for (size_t i = 0; i < 120; i++) {
            struct caller *caller = &world->callers[i];
            if (caller->leaves_ms == 0)
                assert_int_equal(caller->ok, !caller->is_poison);
        }
        world_close(world);
    }
    random_seeded_destroy(random);
}

/* ---- the stand-in ---- */

static float likeness(struct embed_reply *reply, size_t a, size_t b)
{
    return vector_dot(reply->vectors[a], reply->vectors[b], reply->dimension);
}

static void stand_in(void *argument)
{
    struct world *world = argument;
    OWNED(arena) arena = arena_create(0);
    struct provider *provider;
    struct embed_reply reply, again;
    struct error e = {0};
    struct context ctx;
    context_init(&ctx, world->scheduler, arena, DEADLINE_NONE);
    const str texts[] = {S("How tall is the Eiffel tower?"),
                         S("how tall is the eiffel TOWER"),
                         S("The Eiffel tower: how high is it?"),
                         S("Bake bread with rye flour"),
                         S("!?"),
                         S("")};
    struct embed_request request = {.model = S("offline"), .texts = texts, .text_count = 6};
    assert_true(provider_offline_create(S("offline"), &provider, &e));
    assert_true(provider_embed(provider, &ctx, NULL, &request, &reply, &e));
    assert_int_equal(reply.dimension, 1536);
    for (size_t i = 0; i < 6; i++)
        assert_true(fabs(likeness(&reply, i, i) - 1) < 1e-5);
    assert_true(likeness(&reply, 0, 1) > 0.999f);
    assert_true(likeness(&reply, 0, 2) > 0.5f);
    assert_true(fabs(likeness(&reply, 0, 3)) < 0.3);
    request.dimensions = 64;
    assert_true(provider_embed(provider, &ctx, NULL, &request, &again, &e));
    assert_int_equal(again.dimension, 64);
    request.dimensions = EMBED_DIMENSION_MAX + 1;
    assert_false(provider_embed(provider, &ctx, NULL, &request, &again, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_INVALID);
    provider_destroy(provider);
    context_deinit(&ctx);
}

static void test_the_stand_in_puts_like_texts_near_each_other(void **state)
{
    (void) state;
    struct world *world = world_open();
    struct error e;
    assert_true(coroutine_start(world->scheduler, "stand-in", stand_in, world, &e));
    assert_true(simulated_run(world->scheduler, world->clock, 100000));
    world_close(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_hundred_callers_share_few_calls),
        cmocka_unit_test(test_a_lone_caller_waits_for_nobody),
        cmocka_unit_test(test_tenants_never_share_a_call),
        cmocka_unit_test(test_keys_never_share_a_call),
        cmocka_unit_test(test_no_more_texts_wait_than_may),
        cmocka_unit_test(test_only_the_guilty_caller_gets_the_error),
        cmocka_unit_test(test_other_failures_are_everybodys_at_once),
        cmocka_unit_test(test_usage_is_shared_out_exactly),
        cmocka_unit_test(test_who_leaves_harms_nobody_and_an_abandoned_call_ends),
        cmocka_unit_test(test_the_user_goes_along_when_all_name_the_same),
        cmocka_unit_test(test_a_large_input_goes_out_in_several_calls),
        cmocka_unit_test(test_whatever_callers_do_nothing_is_mixed_up_or_left),
        cmocka_unit_test(test_the_stand_in_puts_like_texts_near_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
