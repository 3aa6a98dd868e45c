#include "llm/router_testkit.h"

#include "base/arena.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- order ---- */

static void test_weights_are_the_shares_of_equally_loaded_targets(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(3);
    size_t picked[3] = {0};
    s->targets[1].weight = 3;
    s->targets[2].weight = 6;
    route_scene_adopt(s);
    for (int i = 0; i < 10000; i++)
        picked[route_scene_call_ok(s, STR_NONE)]++;
    assert_in_range(picked[0], 850, 1150);
    assert_in_range(picked[1], 2750, 3250);
    assert_in_range(picked[2], 5700, 6300);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_a_slow_or_busy_target_loses_draws(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route route;
    struct attempt attempt;
    struct error e = {0};
    int64_t wait_ms;
    size_t picked[2] = {0};
    route_scene_adopt(s);
    for (int i = 0; i < 2000; i++) {
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        picked[attempt.target_index]++;
        route_scene_pass_ms(s, attempt.target_index == 0 ? 100 : 10);
        attempt_first_token(&attempt);
        attempt_end(&attempt, NULL);
    }
    assert_in_range(picked[0], 350, 650); /* a quarter: both draws were its own */
    route_scene_destroy(s);

    s = route_scene_create(2);
    route_scene_adopt(s);
    static struct attempt held[200];
    static struct route routes[200];
    for (size_t i = 0; i < 200; i++) { /* nothing ends: calls in flight stay level */
        route_scene_begin(s, &routes[i]);
        assert_true(route_next(&routes[i], NULL, &held[i], &wait_ms, &e));
    }
    int64_t in_flight = atomic_load(&s->known->targets[0].health->in_flight);
    assert_in_range(in_flight, 80, 120);
    for (size_t i = 0; i < 200; i++)
        attempt_end(&held[i], NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_a_higher_priority_number_waits_until_the_lower_ones_are_tried_out(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(3);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_AUTH);
    int64_t wait_ms;
    s->targets[0].priority = 5;
    route_scene_adopt(s);
    for (int i = 0; i < 100; i++)
        assert_int_not_equal(route_scene_call_ok(s, STR_NONE), 0);
    route_scene_begin(s, &route);
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++) {
        assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
        assert_int_equal(wait_ms, 0);
        assert_int_equal(attempt.target_index == 0, i == 2);
        seen |= 1u << attempt.target_index;
        attempt_end(&attempt, &failure);
    }
    assert_int_equal(seen, 7);
    assert_false(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_AUTH);
    route_scene_destroy(s);
}

static void test_targets_too_small_for_the_call_are_passed_over_unless_all_are(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route route;
    struct attempt attempt;
    struct error e = {0};
    int64_t wait_ms;
    s->targets[0].context_tokens_max = 1000;
    s->targets[1].context_tokens_max = 8000;
    route_scene_adopt(s);
    for (int i = 0; i < 50; i++) {
        route_begin(&route, s->router,
                    &(struct route_request){.model = s->known,
                                            .input_tokens_bound = i < 25 ? 950 : INT64_MAX,
                                            .output_tokens_max = 51});
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        if (i < 25)
            assert_int_equal(attempt.target_index, 1);
        attempt_end(&attempt, NULL);
    }
    route_scene_destroy(s);
}

/* ---- what sticks ---- */

static void test_a_sticky_text_keeps_its_target_when_others_come_and_go(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(3);
    size_t before[300], picked[4] = {0}, moved = 0;
    char name[16];
    route_scene_adopt(s);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "session-%d", i);
        before[i] = route_scene_call_ok(s, str_from_cstr(name));
        picked[before[i]]++;
        assert_int_equal(route_scene_call_ok(s, str_from_cstr(name)), before[i]);
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(picked[i], 70, 130);
    struct catalog *old = s->catalog;
    s->model.target_count = 4;
    route_scene_adopt(s);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "session-%d", i);
        size_t now = route_scene_call_ok(s, str_from_cstr(name));
        assert_true(now == before[i] || now == 3);
        moved += now == 3;
    }
    assert_in_range(moved, 45, 110); /* a quarter: the new one's own share */
    catalog_destroy(old);
    route_scene_destroy(s);
}

static void test_the_provider_that_holds_the_conversation_is_asked_first(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(3);
    struct route route;
    struct attempt attempt;
    struct error failure = route_scene_failure(REASON_PROVIDER_OVERLOADED), e = {0};
    int64_t wait_ms;
    route_scene_adopt(s);
    for (int i = 0; i < 50; i++) {
        struct route_request request = {.model = s->known, .prefer = s->providers[2].name};
        request.sticky = i % 2 ? S("user") : STR_NONE;
        route_begin(&route, s->router, &request);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        assert_int_equal(attempt.target_index, 2);
        attempt_end(&attempt, NULL);
    }
    /* when it fails the others answer */
    struct route_request again = {.model = s->known, .prefer = s->providers[2].name};
    route_begin(&route, s->router, &again);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_end(&attempt, &failure);
    assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_not_equal(attempt.target_index, 2);
    attempt_end(&attempt, NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_variants_stick_and_share_by_weight(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    size_t picked[2] = {0};
    char name[16];
    s->variants[0] = (struct model_variant){S("control"), 3};
    s->variants[1] = (struct model_variant){S("trial"), 1};
    s->targets[0].variant = S("control");
    s->targets[1].variant = S("trial");
    s->model.variants = s->variants;
    s->model.variant_count = 2;
    route_scene_adopt(s);
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "user-%d", i);
        size_t first = route_scene_call_ok(s, str_from_cstr(name));
        picked[first]++;
        assert_int_equal(route_scene_call_ok(s, str_from_cstr(name)), first);
    }
    assert_in_range(picked[1], 430, 570);
    for (int i = 0; i < 2000; i++) /* without a text: by chance, in the same shares */
        picked[route_scene_call_ok(s, STR_NONE)]++;
    assert_in_range(picked[1], 900, 1100);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_QUOTA);
    int64_t wait_ms;
    route_scene_begin_for(s, &route, S("someone"));
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    assert_true(str_equal(attempt.target->variant, route.variant->name));
    attempt_end(&attempt, &failure);
    assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e)); /* rather than a failure */
    assert_false(str_equal(attempt.target->variant, route.variant->name));
    attempt_end(&attempt, NULL);
    route_scene_destroy(s);
}

/* ---- failures ---- */

static void test_what_would_fail_anywhere_is_not_tried_again(void **state)
{
    (void) state;
    static const enum error_reason reasons[] = {REASON_PROVIDER_INVALID, REASON_CANCELLED,
                                                REASON_POLICY_DENIED, REASON_TOO_LARGE};
    for (size_t i = 0; i < ARRAY_COUNT(reasons); i++) {
        struct route_scene *s = route_scene_create(3);
        struct error e = {0};
        s->providers[0].key_count = 3;
        route_scene_adopt(s);
        assert_int_equal(route_scene_call_failing(s, reasons[i], &e), 1);
        assert_int_equal(e.reason, reasons[i]);
        assert_string_equal(e.message, "the test says so");
        route_scene_destroy(s);
    }
}

static void test_what_is_only_the_targets_passes_it_over(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(3);
    struct error e = {0};
    route_scene_adopt(s);
    assert_int_equal(route_scene_call_failing(s, REASON_UNSUPPORTED, &e), 3);
    assert_int_equal(route_scene_call_failing(s, REASON_BUDGET, &e), 3);
    assert_int_equal(e.reason, REASON_BUDGET);
    for (int i = 0; i < 20; i++)
        assert_int_equal(route_scene_call_failing(s, REASON_BUDGET, &e),
                         3); /* and tells nothing of them */
    route_scene_destroy(s);
}

static void test_others_are_tried_at_once_and_then_all_again_after_a_pause(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_NETWORK);
    int64_t wait_ms, waited_ms = 0;
    size_t asked[2] = {0};
    route_scene_adopt(s);
    route_scene_begin(s, &route);
    for (int i = 0; i < 6; i++) {
        assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
        if (i < 2)
            assert_int_equal(wait_ms, 0);
        assert_in_range(wait_ms, 0, ROUTER_BACKOFF_MS << (i / 2));
        assert_int_equal(attempt.number, i + 1);
        waited_ms += wait_ms;
        asked[attempt.target_index]++;
        route_scene_pass_ms(s, wait_ms);
        attempt_end(&attempt, &failure);
        assert_int_equal(route_may_go_on(&route, &failure), i < 5);
    }
    assert_true(waited_ms > 0);
    assert_int_equal(asked[0], 3);
    assert_int_equal(asked[1], 3);
    assert_false(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_NETWORK);
    assert_string_equal(e.message, "the test says so");
    route_scene_destroy(s);
}

static void test_the_failure_that_tells_most_is_told(void **state)
{
    (void) state;
    static const enum error_reason reasons[] = {REASON_PROVIDER_RATE_LIMITED, REASON_PROVIDER_QUOTA,
                                                REASON_PROVIDER_AUTH};
    struct route_scene *s = route_scene_create(3);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = {0};
    int64_t wait_ms;
    route_scene_adopt(s);
    route_scene_begin(s, &route);
    for (int i = 0; i < 3; i++) {
        assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
        failure = route_scene_failure(reasons[i]);
        failure.retry_after_ms = i == 0 ? 60000 : 0;
        attempt_end(&attempt, &failure);
    }
    assert_false(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_in_range(e.retry_after_ms, 59000, 60000);
    assert_non_null(strstr(e.message, "3 attempts"));
    route_scene_destroy(s);
}

static void test_one_that_answered_nothing_in_time_is_not_waited_for_twice(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct error e = {0};
    s->targets[1].priority = 1;
    route_scene_adopt(s);
    struct route route;
    struct attempt attempt;
    struct error failure = route_scene_failure(REASON_PROVIDER_TIMEOUT);
    int64_t wait_ms;
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_end(&attempt, &failure);
    assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(attempt.target_index, 1);
    assert_int_equal(wait_ms, 0);
    attempt_end(&attempt, NULL);
    route_scene_destroy(s);
}

/* ---- random ends, and what must hold whatever happens ---- */

static enum error_reason random_end(struct route_scene *s)
{
    static const enum error_reason ends[] = {REASON_NONE,
                                             REASON_NONE,
                                             REASON_NONE,
                                             REASON_PROVIDER_AUTH,
                                             REASON_PROVIDER_QUOTA,
                                             REASON_PROVIDER_RATE_LIMITED,
                                             REASON_PROVIDER_OVERLOADED,
                                             REASON_PROVIDER_NETWORK,
                                             REASON_PROVIDER_TIMEOUT,
                                             REASON_PROVIDER_PROTOCOL,
                                             REASON_PROVIDER_INVALID,
                                             REASON_CANCELLED,
                                             REASON_UNSUPPORTED,
                                             REASON_BUDGET};
    return ends[random_below(s->random, ARRAY_COUNT(ends))];
}

static int64_t keys_of(const struct model_target *target)
{
    return target->provider->key_count ? (int64_t) target->provider->key_count : 1;
}

static void random_call(struct route_scene *s)
{
    struct route route;
    struct attempt attempts[2];
    struct error e = {0}, failure = {0};
    int64_t wait_ms, asked[ROUTE_SCENE_PROVIDERS] = {0};
    char sticky[8];
    snprintf(sticky, sizeof sticky, "%d", (int) random_below(s->random, 20));
    route_scene_begin_for(s, &route, random_below(s->random, 2) ? str_from_cstr(sticky) : STR_NONE);
    bool is_over = false;
    while (!is_over) {
        const struct error *last = failure.code == ERROR_OK ? NULL : &failure;
        if (!route_next(&route, last, &attempts[0], &wait_ms, &e)) {
            assert_int_not_equal(e.code, ERROR_OK);
            assert_true(e.message[0] != '\0');
            break;
        }
        asked[attempts[0].target_index]++;
        assert_in_range(wait_ms, 0, ROUTER_WAIT_MS_MAX);
        assert_true(attempts[0].how.key < (int) keys_of(attempts[0].target));
        route_scene_pass_ms(s, wait_ms + (int64_t) random_below(s->random, 50));
        bool is_hedged =
            random_below(s->random, 8) == 0 && route_next(&route, NULL, &attempts[1], &wait_ms, &e);
        if (is_hedged) {
            assert_int_not_equal(attempts[1].target_index, attempts[0].target_index);
            asked[attempts[1].target_index]++;
            struct error lost = route_scene_failure(REASON_CANCELLED);
            attempt_end(&attempts[1], &lost);
            attempt_end(&attempts[1], &lost); /* twice is once */
        }
        enum error_reason reason = random_end(s);
        failure = route_scene_failure(reason);
        failure.retry_after_ms = (int64_t) random_below(s->random, 3) * 700;
        if (reason == REASON_NONE)
            attempt_first_token(&attempts[0]);
        attempt_end(&attempts[0], reason == REASON_NONE ? NULL : &failure);
        is_over = reason == REASON_NONE;
    }
    for (size_t i = 0; i < s->known->target_count; i++)
        assert_true(asked[i] <= keys_of(&s->known->targets[i]) + 1 + 2 * ROUTER_RETRIES_DEFAULT);
    assert_int_equal(route.open_targets, 0);
}

static void test_whatever_happens_the_bounds_hold_and_the_same_seed_tells_the_same(void **state)
{
    (void) state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        uint64_t told[2];
        for (int again = 0; again < 2; again++) {
            struct route_scene *s = route_scene_create(1 + seed % ROUTE_SCENE_PROVIDERS);
            random_seeded_destroy(s->random);
            s->random = s->router->random = random_seeded_create(seed);
            for (size_t i = 0; i < ROUTE_SCENE_PROVIDERS; i++) {
                s->providers[i].key_count = (seed + i) % 4;
                s->targets[i].priority = (int64_t) ((seed >> i) & 1);
                s->targets[i].weight = 1 + (int64_t) i;
            }
            route_scene_adopt(s);
            for (int i = 0; i < 150; i++) {
                random_call(s);
                route_scene_pass_ms(s, (int64_t) random_below(s->random, 4000));
                route_scene_assert_at_rest(s);
            }
            OWNED(arena) arena = arena_create(0);
            struct strbuf text;
            struct json_writer w;
            strbuf_init(&text, arena, 1 << 20);
            json_writer_init(&w, &text);
            router_write_json(s->router, &w);
            told[again] = str_hash(strbuf_str(&text), 0);
            route_scene_destroy(s);
        }
        assert_true(told[0] == told[1]);
    }
}

/* ---- many threads ---- */

struct hammer {
    struct router *router;
    const struct model *model;
    uint64_t seed;
};

static void *hammer(void *argument)
{
    struct hammer *h = argument;
    struct random *random = random_seeded_create(h->seed);
    for (int i = 0; i < 3000; i++) {
        struct route route;
        struct attempt attempt;
        struct error e = {0}, failure = {0};
        int64_t wait_ms;
        route_begin(&route, h->router, &(struct route_request){.model = h->model});
        for (int n = 0; n < 4; n++) {
            if (!route_next(&route, n ? &failure : NULL, &attempt, &wait_ms, &e))
                break;
            if (random_below(random, 3) == 0) {
                failure = route_scene_failure(random_below(random, 2) ? REASON_PROVIDER_RATE_LIMITED
                                                                      : REASON_PROVIDER_OVERLOADED);
                failure.retry_after_ms = 1;
                attempt_end(&attempt, &failure);
                continue;
            }
            attempt_first_token(&attempt);
            attempt_end(&attempt, NULL);
            break;
        }
    }
    random_seeded_destroy(random);
    return NULL;
}

static void test_threads_may_share_it_while_it_is_read_and_reloaded(void **state)
{
    (void) state;
    enum { THREADS = 4 };
    struct route_scene *s = route_scene_create(ROUTE_SCENE_PROVIDERS);
    router_destroy(s->router);
    s->router = router_create(clock_system(), random_system(), s->metrics);
    s->providers[1].key_count = 3;
    s->model.hedge_after_ms = -1;
    route_scene_adopt(s);
    pthread_t threads[THREADS];
    struct hammer hammers[THREADS];
    struct catalog *catalogs[20];
    for (size_t i = 0; i < THREADS; i++) {
        hammers[i] = (struct hammer){s->router, s->known, i};
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &hammers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(catalogs); i++) {
        OWNED(arena) arena = arena_create(0);
        struct strbuf text;
        struct json_writer w;
        struct error e = {0};
        strbuf_init(&text, arena, 1 << 20);
        json_writer_init(&w, &text);
        router_write_json(s->router, &w);
        assert_false(strbuf_is_over(&text));
        catalogs[i] = catalog_create();
        assert_true(catalog_add(catalogs[i], &s->model, &e));
        router_adopt(s->router, catalogs[i]);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    route_scene_assert_at_rest(s);
    for (size_t i = 0; i < ARRAY_COUNT(catalogs); i++)
        catalog_destroy(catalogs[i]);
    route_scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_are_the_shares_of_equally_loaded_targets),
        cmocka_unit_test(test_a_slow_or_busy_target_loses_draws),
        cmocka_unit_test(test_a_higher_priority_number_waits_until_the_lower_ones_are_tried_out),
        cmocka_unit_test(test_targets_too_small_for_the_call_are_passed_over_unless_all_are),
        cmocka_unit_test(test_a_sticky_text_keeps_its_target_when_others_come_and_go),
        cmocka_unit_test(test_the_provider_that_holds_the_conversation_is_asked_first),
        cmocka_unit_test(test_variants_stick_and_share_by_weight),
        cmocka_unit_test(test_what_would_fail_anywhere_is_not_tried_again),
        cmocka_unit_test(test_what_is_only_the_targets_passes_it_over),
        cmocka_unit_test(test_others_are_tried_at_once_and_then_all_again_after_a_pause),
        cmocka_unit_test(test_the_failure_that_tells_most_is_told),
        cmocka_unit_test(test_one_that_answered_nothing_in_time_is_not_waited_for_twice),
        cmocka_unit_test(test_whatever_happens_the_bounds_hold_and_the_same_seed_tells_the_same),
        cmocka_unit_test(test_threads_may_share_it_while_it_is_read_and_reloaded),
    };
    return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
