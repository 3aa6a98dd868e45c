#include "llm/router_testkit.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- breaker ---- */

static enum breaker_state state_of(struct route_scene *s)
{
    return breaker_look(&s->known->targets[0].health->breaker, clock_monotonic_ns(s->clock));
}

static void test_the_breaker_opens_probes_ramps_and_closes(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route route, other;
    struct attempt attempt, second;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_OVERLOADED);
    int64_t wait_ms;
    s->model.retries_max = 0;
    route_scene_adopt(s);
    for (int i = 0; i < BREAKER_FAILURES_IN_ROW; i++) {
        assert_int_equal(state_of(s), BREAKER_CLOSED);
        assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_OVERLOADED, &e), 1);
    }
    assert_int_equal(state_of(s), BREAKER_OPEN);
    e = (struct error){0};
    assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_OVERLOADED, &e), 0);
    assert_int_equal(e.reason, REASON_PROVIDER_CIRCUIT);
    assert_in_range(e.retry_after_ms, BREAKER_OPEN_MS, BREAKER_OPEN_MS * 5 / 4);
    route_scene_pass_ms(s, BREAKER_OPEN_MS - 1);
    assert_int_equal(state_of(s), BREAKER_OPEN);
    route_scene_pass_ms(s, BREAKER_OPEN_MS / 4 + 1);
    assert_int_equal(state_of(s), BREAKER_HALF_OPEN);
    route_scene_begin(s, &route); /* one probe at a time */
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    assert_true(attempt.is_probe);
    route_scene_begin(s, &other);
    assert_false(route_next(&other, NULL, &second, &wait_ms, &e));
    attempt_end(&attempt, &failure); /* it fails: open again, twice as long */
    assert_int_equal(state_of(s), BREAKER_OPEN);
    route_scene_pass_ms(s, BREAKER_OPEN_MS * 2 - 1);
    assert_int_equal(state_of(s), BREAKER_OPEN);
    route_scene_pass_ms(s, BREAKER_OPEN_MS / 2 + 1);
    struct error cancelled = route_scene_failure(REASON_CANCELLED);
    route_scene_begin(s, &route); /* a probe that was cancelled says nothing and makes room */
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_end(&attempt, &cancelled);
    assert_int_equal(state_of(s), BREAKER_HALF_OPEN);
    for (int i = 0; i < BREAKER_PROBES; i++) {
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        assert_true(attempt.is_probe);
        attempt_first_token(&attempt); /* long before the end of the stream */
        attempt_end(&attempt, NULL);
    }
    assert_int_equal(state_of(s), BREAKER_RAMPING);
    route_scene_pass_ms(s, BREAKER_RAMP_MS);
    assert_int_equal(state_of(s), BREAKER_CLOSED);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static int opened_lines, tried_lines, closed_lines;

static void count_line(void *context, enum log_level level, str line)
{
    (void) context, (void) level;
    opened_lines += str_find(line, S("circuit opened")) != STR_NOT_FOUND;
    tried_lines += str_find(line, S("circuit half-open")) != STR_NOT_FOUND;
    closed_lines += str_find(line, S("circuit closed")) != STR_NOT_FOUND;
}

static void test_an_open_circuit_says_since_when_why_and_until_when(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    s->model.retries_max = 0;
    route_scene_adopt(s);
    log_set_sink(count_line, NULL);
    opened_lines = tried_lines = closed_lines = 0;
    for (int i = 0; i < BREAKER_FAILURES_IN_ROW; i++)
        (void) route_scene_call_failing(s, REASON_PROVIDER_NETWORK, &e);
    assert_int_equal(opened_lines, 1);
    for (int i = 0; i < 20; i++)
        (void) route_scene_call_failing(s, REASON_PROVIDER_NETWORK, &e);
    assert_int_equal(e.reason, REASON_PROVIDER_CIRCUIT);
    assert_non_null(strstr(e.message, "its circuit is open since 20"));
    assert_non_null(strstr(e.message, "the last failure was \""));
    assert_non_null(strstr(e.message, "the next try is in "));
    assert_null(strstr(e.message, "overloaded"));
    assert_null(strstr(e.message, "0 attempts"));
    assert_int_equal(tried_lines, 0);
    for (int i = 0; i < 3; i++) {
        route_scene_pass_ms(s, BREAKER_OPEN_MS_MAX * 5 / 4 + 1);
        (void) route_scene_call_failing(s, REASON_PROVIDER_NETWORK, &e);
    }
    assert_int_equal(opened_lines, 1 + 3);
    assert_int_equal(tried_lines, 3);
    assert_int_equal(closed_lines, 0);
    route_scene_pass_ms(s, BREAKER_OPEN_MS_MAX * 5 / 4 + 1);
    for (int i = 0; i < BREAKER_PROBES + 5; i++)
        (void) route_scene_call_ok(s, STR_NONE);
    assert_int_equal(tried_lines, 4);
    assert_int_equal(closed_lines, 1);
    route_scene_destroy(s);
}

static void test_a_share_of_failures_opens_the_breaker_without_a_row(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    s->model.retries_max = 0;
    route_scene_adopt(s);
    int calls = 0;
    while (state_of(s) == BREAKER_CLOSED && calls < 100) {
        if (calls++ % 2)
            route_scene_call_ok(s, STR_NONE);
        else
            route_scene_call_failing(s, REASON_PROVIDER_NETWORK, &e);
        route_scene_pass_ms(s, 100);
    }
    assert_in_range(calls, BREAKER_CALLS_MIN, BREAKER_CALLS_MIN + 1);
    route_scene_destroy(s);
}

static void test_old_failures_are_forgotten_with_their_window(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    s->model.retries_max = 0;
    route_scene_adopt(s);
    for (int i = 0; i < 200; i++) {
        if (i % 2)
            route_scene_call_ok(s, STR_NONE);
        else
            route_scene_call_failing(s, REASON_PROVIDER_NETWORK, &e);
        route_scene_pass_ms(s, BREAKER_BUCKET_MS);
        assert_int_equal(state_of(s), BREAKER_CLOSED);
    }
    route_scene_destroy(s);
}

static void test_a_target_that_ramps_up_gets_a_growing_share(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    size_t shares[4] = {0};
    route_scene_adopt(s);
    struct breaker *breaker = &s->known->targets[0].health->breaker;
    pthread_mutex_lock(&breaker->lock);
    breaker->since_ns = clock_monotonic_ns(s->clock);
    atomic_store(&breaker->state, BREAKER_RAMPING);
    pthread_mutex_unlock(&breaker->lock);
    for (int step = 0; step < 4; step++) {
        for (int i = 0; i < 1000; i++)
            shares[step] += route_scene_call_ok(s, STR_NONE) == 0;
        route_scene_pass_ms(s, BREAKER_RAMP_MS / 3);
    }
    assert_in_range(shares[0], 20, 90);
    assert_true(shares[0] < shares[1] && shares[1] < shares[2] && shares[2] < shares[3]);
    assert_in_range(shares[3], 440, 560);
    route_scene_destroy(s);
}

static void test_a_callers_own_short_deadline_does_not_open_the_breaker(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    route_scene_adopt(s);
    for (int i = 0; i < 50; i++)
        route_scene_call_failing(s, REASON_TIMEOUT, &e);
    assert_int_equal(state_of(s), BREAKER_CLOSED);
    route_scene_destroy(s);
}

/* ---- hedges ---- */

static void first_token_after(struct route_scene *s, int64_t ms)
{
    struct route route;
    struct attempt attempt;
    struct error e = {0};
    int64_t wait_ms;
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    route_scene_pass_ms(s, ms);
    attempt_first_token(&attempt);
    attempt_end(&attempt, NULL);
}

static void test_a_hedge_goes_out_at_the_measured_p95_to_another_target(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route route;
    struct attempt first, second;
    struct error e = {0};
    int64_t wait_ms;
    s->model.hedge_after_ms = -1;
    route_scene_adopt(s);
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &first, &wait_ms, &e));
    assert_int_equal(route_hedge_after_ms(&route, &first), 0); /* nothing is known yet */
    attempt_end(&first, NULL);
    for (int i = 0; i < 400; i++)
        first_token_after(s, i % 40 == 0 ? 2000 : 100);
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &first, &wait_ms, &e));
    assert_in_range(route_hedge_after_ms(&route, &first), 100, 115);
    assert_true(route_next(&route, NULL, &second, &wait_ms, &e));
    assert_true(second.is_hedge);
    assert_int_not_equal(second.target_index, first.target_index);
    assert_false(route_next(&route, NULL, &(struct attempt){0}, &wait_ms, &e)); /* no third */
    struct error lost = route_scene_failure(REASON_CANCELLED);
    attempt_end(&first, &lost);
    attempt_end(&second, NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_hedges_stay_a_small_share_of_calls(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    int hedges = 0;
    s->model.hedge_after_ms = 50;
    route_scene_adopt(s);
    for (int i = 0; i < 2000; i++) {
        struct route route;
        struct attempt first, second;
        struct error e = {0}, lost = route_scene_failure(REASON_CANCELLED);
        int64_t wait_ms;
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &first, &wait_ms, &e));
        if (route_hedge_after_ms(&route, &first) == 50 &&
            route_next(&route, NULL, &second, &wait_ms, &e)) {
            hedges++;
            attempt_end(&second, &lost);
        }
        attempt_end(&first, NULL);
    }
    assert_in_range(hedges, 90, 110);
    route_scene_destroy(s);
}

static void test_retries_keep_to_their_budget_in_an_outage(void **state)
{
    (void) state;
    enum { CALLS = 400 };
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    int64_t attempts = 0;
    route_scene_adopt(s);
    for (int i = 0; i < CALLS; i++) {
        /* The breaker would end it; this is about the budget alone. */
        struct breaker *breaker = &s->known->targets[0].health->breaker;
        atomic_store(&breaker->state, BREAKER_CLOSED);
        for (size_t b = 0; b < BREAKER_BUCKETS; b++)
            atomic_store(&breaker->buckets[b], 0);
        atomic_store(&breaker->failures_in_row, 0);
        attempts += route_scene_call_failing(s, REASON_PROVIDER_OVERLOADED, &e);
    }
    int64_t elapsed_s = clock_monotonic_ns(s->clock) / ROUTE_SCENE_SECOND_NS;
    int64_t allowed =
        CALLS + CALLS * ROUTER_RETRY_MILLI / 1000 + ROUTER_RETRY_MILLI_MAX / 1000 + elapsed_s + 1;
    assert_true(attempts <= allowed);
    assert_true(attempts > CALLS + CALLS / 10);
    route_scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_breaker_opens_probes_ramps_and_closes),
        cmocka_unit_test(test_an_open_circuit_says_since_when_why_and_until_when),
        cmocka_unit_test(test_a_share_of_failures_opens_the_breaker_without_a_row),
        cmocka_unit_test(test_old_failures_are_forgotten_with_their_window),
        cmocka_unit_test(test_a_target_that_ramps_up_gets_a_growing_share),
        cmocka_unit_test(test_a_callers_own_short_deadline_does_not_open_the_breaker),
        cmocka_unit_test(test_a_hedge_goes_out_at_the_measured_p95_to_another_target),
        cmocka_unit_test(test_hedges_stay_a_small_share_of_calls),
        cmocka_unit_test(test_retries_keep_to_their_budget_in_an_outage),
    };
    return cmocka_run_group_tests_name("router_breaker", tests, NULL, NULL);
}
