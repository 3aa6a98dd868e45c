#include "gateway/keys/rate.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)
static const uuid tenant = {{1}}, other_tenant = {{2}};

static bool take(struct rate *rate, uuid tenant_id, str user, int64_t limit, int64_t now_ns,
                 struct rate_view *view, struct error *e)
{
    struct rate_subject subject = {RATE_USER_REQUESTS, tenant_id, user};
    return rate_take(rate, &subject, limit, 1, now_ns, view, e);
}

static void test_the_last_request_of_a_window_passes_and_the_next_does_not(void **state)
{
    (void) state;
    struct rate *rate = rate_create();
    struct rate_view view;
    struct error e = {0};
    for (int i = 0; i < 3; i++)
        assert_true(take(rate, tenant, S("alice"), 3, SECOND, &view, &e));
    assert_int_equal(view.remaining, 0);
    assert_false(take(rate, tenant, S("alice"), 3, 31 * SECOND, &view, &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_int_equal(e.retry_after_ms, 30000);
    assert_true(take(rate, tenant, S("bob"), 3, 31 * SECOND, &view, &e));
    assert_true(take(rate, other_tenant, S("alice"), 3, 31 * SECOND, &view, &e));
    assert_true(take(rate, tenant, S("alice"), 3, 61 * SECOND, &view, &e));
    assert_int_equal(view.remaining, 2);
    rate_destroy(rate);
}

static void test_a_flood_of_users_locks_nobody_out(void **state)
{
    (void) state;
    struct rate *rate = rate_create();
    struct rate_view view;
    struct error e = {0};
    char name[32];
    for (size_t i = 0; i < 4 * GATEWAY_RATE_SLOTS; i++) {
        int len = snprintf(name, sizeof name, "user%zu", i);
        assert_true(take(rate, tenant, str_of(name, (size_t) len), 1, SECOND, &view, &e));
    }
    rate_destroy(rate);
}

static void test_tokens_are_taken_by_estimate_and_corrected_by_use(void **state)
{
    (void) state;
    struct rate *rate = rate_create();
    struct rate_view view;
    struct error e = {0};
    struct rate_subject tokens = {RATE_KEY_TOKENS, tenant, S("key")};
    struct rate_subject requests = {RATE_KEY_REQUESTS, tenant, S("key")};
    assert_true(rate_take(rate, &tokens, 1000, 600, SECOND, &view, &e));
    assert_false(rate_take(rate, &tokens, 1000, 600, SECOND, &view, &e));
    assert_int_equal(view.remaining, 400); /* what is refused takes nothing */
    rate_correct(rate, &tokens, -500, SECOND);
    assert_true(rate_take(rate, &tokens, 1000, 600, SECOND, &view, &e));
    rate_correct(rate, &tokens, 5000, SECOND);
    assert_false(rate_take(rate, &tokens, 1000, 1, SECOND, &view, &e));
    assert_int_equal(view.remaining, 0);
    assert_true(rate_take(rate, &requests, 1, 1, SECOND, &view, &e)); /* kinds do not mix */
    rate_correct(rate, &tokens, -1, 90 * SECOND);                     /* a window that is over */
    assert_true(rate_take(rate, &tokens, 1000, 5000, 90 * SECOND, &view, &e));
    rate_destroy(rate);
}

static void test_a_key_may_have_a_number_of_streams_of_its_own(void **state)
{
    (void) state;
    struct streams *streams = streams_create(2);
    struct error e = {0};
    uuid key = {{7}};
    assert_true(streams_take(streams, key, 1, &e));
    assert_false(streams_take(streams, key, 1, &e));
    streams_give(streams, key);
    streams_destroy(streams);
}

static void test_streams_are_counted_per_key_to_the_last(void **state)
{
    (void) state;
    struct streams *streams = streams_create(2);
    struct error e = {0};
    uuid key = {{7}}, other = {{8}};
    assert_true(streams_take(streams, key, 0, &e) && streams_take(streams, key, 0, &e));
    assert_false(streams_take(streams, key, 0, &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_true(streams_take(streams, other, 0, &e));
    assert_int_equal(streams_count(streams), 3);
    streams_give(streams, key);
    assert_true(streams_take(streams, key, 0, &e));
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
        cmocka_unit_test(test_tokens_are_taken_by_estimate_and_corrected_by_use),
        cmocka_unit_test(test_a_key_may_have_a_number_of_streams_of_its_own),
        cmocka_unit_test(test_streams_are_counted_per_key_to_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
