#include "llm/router_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/arena.h"
#include "runtime/context.h"

static uuid tenant_of(uint8_t number)
{
    uuid id = {0};
    id.bytes[0] = number;
    return id;
}

static void begin(struct route_scene *s, struct route *route, uint8_t tenant, bool is_run)
{
    route_begin(route, s->router,
                &(struct route_request){
                    .model = s->known, .tenant_id = tenant_of(tenant), .is_run = is_run});
}

static bool take(struct route_scene *s, struct route *route, struct attempt *attempt)
{
    int64_t wait_ms;
    struct error e = {0};
    begin(s, route, 1, false);
    return route_next(route, NULL, attempt, &wait_ms, &e);
}

static void test_without_a_bound_nothing_is_counted_or_taken(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route routes[3];
    struct attempt attempts[3];
    route_scene_adopt(s);
    for (int i = 0; i < 3; i++) {
        assert_true(take(s, &routes[i], &attempts[i]));
        assert_int_equal(attempts[i].places_wanted | attempts[i].places_held, 0);
        assert_false(attempts[i].must_wait);
    }
    for (int i = 0; i < 3; i++)
        attempt_end(&attempts[i], NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_a_provider_without_a_place_is_passed_over_while_another_is_left(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route routes[4];
    struct attempt attempts[4];
    s->providers[0].places = (struct provider_places){.calls = 2, .queue_max = 4, .wait_ms = 1000};
    s->targets[1].priority = 1;
    route_scene_adopt(s);
    for (int i = 0; i < 4; i++) {
        assert_true(take(s, &routes[i], &attempts[i]));
        assert_int_equal(attempts[i].target_index, i < 2 ? 0 : 1);
        assert_false(attempts[i].must_wait);
    }
    attempt_end(&attempts[0], NULL);
    struct route again;
    struct attempt attempt;
    assert_true(take(s, &again, &attempt));
    assert_int_equal(attempt.target_index, 0);
    attempt_end(&attempt, NULL);
    for (int i = 1; i < 4; i++)
        attempt_end(&attempts[i], NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_a_pool_of_keys_has_places_by_its_keys(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route routes[7];
    struct attempt attempts[7];
    s->providers[0].key_count = 3;
    s->providers[0].places = (struct provider_places){.calls = 100, .calls_per_key = 2};
    route_scene_adopt(s);
    for (int i = 0; i < 7; i++) {
        assert_true(take(s, &routes[i], &attempts[i]));
        assert_int_equal(attempts[i].must_wait, i == 6);
    }
    for (int i = 0; i < 7; i++)
        attempt_end(&attempts[i], NULL);
    route_scene_destroy(s);
}

static void test_runs_have_places_of_their_own(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route run, second, call;
    struct attempt a, b, c;
    struct error e = {0};
    int64_t wait_ms;
    s->providers[0].places = (struct provider_places){.run_calls = 1, .queue_max = 4};
    route_scene_adopt(s);
    begin(s, &run, 1, true);
    assert_true(route_next(&run, NULL, &a, &wait_ms, &e));
    assert_false(a.must_wait);
    begin(s, &second, 1, true);
    assert_true(route_next(&second, NULL, &b, &wait_ms, &e));
    assert_true(b.must_wait);
    assert_true(take(s, &call, &c)); /* no run's: it has nothing to wait for */
    assert_false(c.must_wait);
    attempt_end(&a, NULL);
    attempt_end(&b, NULL);
    attempt_end(&c, NULL);
    route_scene_destroy(s);
}

static void test_a_hedge_does_not_wait_for_a_place(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route first, other;
    struct attempt a, b, hedge;
    struct error e = {0};
    int64_t wait_ms;
    s->model.hedge_after_ms = 10;
    s->providers[1].places = (struct provider_places){.calls = 1, .queue_max = 4};
    s->targets[1].priority = 1;
    route_scene_adopt(s);
    s->targets[0].weight = 1;
    assert_true(take(s, &first, &a));
    assert_int_equal(a.target_index, 0);
    begin(s, &other, 2, false);
    other.exhausted = 1; /* the second's only place is somebody's */
    assert_true(route_next(&other, NULL, &b, &wait_ms, &e));
    assert_int_equal(b.target_index, 1);
    assert_false(route_next(&first, NULL, &hedge, &wait_ms, &e));
    attempt_end(&a, NULL);
    attempt_end(&b, NULL);
    route_scene_assert_at_rest(s);
    route_scene_destroy(s);
}

static void test_who_finds_too_many_waiting_hears_that_and_when_to_come_back(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route first, second;
    struct attempt a, b;
    struct error e = {0}, failure = {0};
    int64_t wait_ms;
    struct context ctx;
    OWNED(arena) arena = arena_create(0);
    struct scheduler *scheduler =
        scheduler_create(s->clock, s->random, (struct scheduler_hooks){0});
    s->providers[0].places = (struct provider_places){.calls = 1, .queue_max = 0, .wait_ms = 2000};
    route_scene_adopt(s);
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    assert_true(take(s, &first, &a));
    assert_true(take(s, &second, &b));
    assert_true(b.must_wait);
    assert_false(attempt_enter(&b, &ctx, &failure));
    assert_int_equal(failure.reason, REASON_OVERLOADED_HERE);
    assert_int_equal(failure.retry_after_ms, 2000);
    attempt_end(&b, &failure);
    assert_false(route_next(&second, &failure, &b, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    assert_int_equal(e.retry_after_ms, 2000);
    assert_string_equal(e.message, "provider a: too many wait for it already");
    attempt_end(&a, NULL);
    assert_int_equal(breaker_look(&s->known->targets[0].health->breaker, 0), BREAKER_CLOSED);
    route_scene_assert_at_rest(s);
    context_deinit(&ctx);
    scheduler_destroy(scheduler);
    route_scene_destroy(s);
}

/* ---- turns: who is let in when two tenants wait ---- */

enum { CALLS_MAX = 1024 };
struct crowd {
    struct route_scene *s;
    struct scheduler *scheduler;
    struct attempt *held; /* the one inside */
    uint8_t order[CALLS_MAX];
    size_t count;
    int waiting;
};
struct caller {
    struct crowd *crowd;
    uint8_t tenant;
};

static void call_in_turn(void *argument)
{
    struct caller *caller = argument;
    struct crowd *crowd = caller->crowd;
    struct context ctx;
    struct route route;
    struct attempt attempt;
    struct error e = {0};
    int64_t wait_ms;
    OWNED(arena) arena = arena_create(0);
    context_init(&ctx, crowd->scheduler, arena, DEADLINE_NONE);
    begin(crowd->s, &route, caller->tenant, true);
    if (!route_next(&route, NULL, &attempt, &wait_ms, &e) ||
        (attempt.must_wait && !attempt_enter(&attempt, &ctx, &e)))
        fail_msg("%s", e.message);
    crowd->order[crowd->count++] = caller->tenant;
    if (!context_sleep_ms(&ctx, 10, &e)) /* the provider's work */
        fail_msg("%s", e.message);
    attempt_end(&attempt, NULL);
    context_deinit(&ctx);
}

/* How many calls are served until the last of tenant 2's four, when tenant 1 came before with so many. */
static size_t served_until_second_is_done(int flood)
{
    static struct caller callers[CALLS_MAX];
    static struct crowd the_crowd;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    struct crowd *crowd = &the_crowd;
    *crowd = (struct crowd){
        .s = s,
        .scheduler = scheduler_create(s->clock, s->random, (struct scheduler_hooks){0}),
    };
    s->providers[0].places =
        (struct provider_places){.calls = 1, .queue_max = CALLS_MAX, .wait_ms = 1000000};
    route_scene_adopt(s);
    for (int i = 0; i < flood + 4; i++) {
        callers[i] = (struct caller){crowd, i < flood ? 1 : 2};
        if (!coroutine_start(crowd->scheduler, "call", call_in_turn, &callers[i], &e))
            fail_msg("%s", e.message);
    }
    assert_true(simulated_run(crowd->scheduler, s->clock, 1000000));
    assert_int_equal(crowd->count, (size_t) flood + 4);
    size_t served = 0, seen = 0;
    while (seen < 4)
        seen += crowd->order[served++] == 2;
    route_scene_assert_at_rest(s);
    scheduler_destroy(crowd->scheduler);
    route_scene_destroy(s);
    return served;
}

static void test_a_flood_of_fifty_times_costs_another_tenant_one_turn_for_each_of_its_own(
    void **state)
{
    (void) state;
    size_t alone = served_until_second_is_done(4), flooded = served_until_second_is_done(200);
    assert_int_equal(alone, 8);
    assert_int_equal(flooded, 9); /* one is inside, then turn about */
    assert_true(flooded <= 3 * alone);
}

static void test_places_that_are_more_after_a_reload_are_given_to_those_who_wait(void **state)
{
    (void) state;
    struct bulkhead door;
    bulkhead_init(&door, 1, 4);
    assert_true(bulkhead_try(&door));
    assert_false(bulkhead_try(&door));
    bulkhead_resize(&door, 3, 4);
    assert_true(bulkhead_try(&door));
    assert_true(bulkhead_try(&door));
    bulkhead_resize(&door, 1, 4); /* who is inside stays */
    assert_int_equal(bulkhead_look(&door).in_use, 3);
    bulkhead_leave(&door);
    bulkhead_leave(&door);
    assert_false(bulkhead_try(&door));
    bulkhead_leave(&door);
    assert_true(bulkhead_try(&door));
    bulkhead_leave(&door);
    bulkhead_deinit(&door);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_bound_nothing_is_counted_or_taken),
        cmocka_unit_test(test_a_provider_without_a_place_is_passed_over_while_another_is_left),
        cmocka_unit_test(test_a_pool_of_keys_has_places_by_its_keys),
        cmocka_unit_test(test_runs_have_places_of_their_own),
        cmocka_unit_test(test_a_hedge_does_not_wait_for_a_place),
        cmocka_unit_test(test_who_finds_too_many_waiting_hears_that_and_when_to_come_back),
        cmocka_unit_test(
            test_a_flood_of_fifty_times_costs_another_tenant_one_turn_for_each_of_its_own),
        cmocka_unit_test(test_places_that_are_more_after_a_reload_are_given_to_those_who_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
