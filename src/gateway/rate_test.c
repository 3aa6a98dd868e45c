#include "gateway/rate.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)
static const uuid tenant = {{1}}, other_tenant = {{2}};

static void test_the_last_request_of_a_window_passes_and_the_next_does_not(void **state)
{
    (void) state;
    struct rate *rate = rate_create(3);
    struct rate_view view;
    struct error e = {0};
    for (int i = 0; i < 3; i++)
        assert_true(rate_take(rate, tenant, S("alice"), SECOND, &view, &e));
    assert_int_equal(view.remaining, 0);
    assert_false(rate_take(rate, tenant, S("alice"), 31 * SECOND, &view, &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_int_equal(e.retry_after_ms, 30000);
    assert_true(rate_take(rate, tenant, S("bob"), 31 * SECOND, &view, &e));
    assert_true(rate_take(rate, other_tenant, S("alice"), 31 * SECOND, &view, &e));
    assert_true(rate_take(rate, tenant, S("alice"), 61 * SECOND, &view, &e));
    assert_int_equal(view.remaining, 2);
    rate_destroy(rate);
}

static void test_a_flood_of_users_locks_nobody_out(void **state)
{
    (void) state;
    struct rate *rate = rate_create(1);
    struct rate_view view;
    struct error e = {0};
    char name[32];
    for (size_t i = 0; i < 4 * GATEWAY_RATE_SLOTS; i++) {
        int len = snprintf(name, sizeof name, "user%zu", i);
        assert_true(rate_take(rate, tenant, str_of(name, (size_t) len), SECOND, &view, &e));
    }
    rate_destroy(rate);
}

static void test_streams_are_counted_per_key_to_the_last(void **state)
{
    (void) state;
    struct streams *streams = streams_create(2);
    struct error e = {0};
    uuid key = {{7}}, other = {{8}};
    assert_true(streams_take(streams, key, &e) && streams_take(streams, key, &e));
    assert_false(streams_take(streams, key, &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_true(streams_take(streams, other, &e));
    assert_int_equal(streams_count(streams), 3);
    streams_give(streams, key);
    assert_true(streams_take(streams, key, &e));
    streams_give(streams, key);
    streams_give(streams, key);
    streams_give(streams, other);
    assert_int_equal(streams_count(streams), 0);
    streams_destroy(streams);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_request_of_a_window_passes_and_the_next_does_not),
        cmocka_unit_test(test_a_flood_of_users_locks_nobody_out),
        cmocka_unit_test(test_streams_are_counted_per_key_to_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
