#include "llm/router_testkit.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- keys ---- */

static void test_every_key_is_tried_once_before_the_target_is_given_up(void **state)
{
    (void) state;
    static const enum error_reason reasons[] = {REASON_PROVIDER_AUTH, REASON_PROVIDER_QUOTA,
                                                REASON_PROVIDER_RATE_LIMITED};
    for (size_t r = 0; r < ARRAY_COUNT(reasons); r++) {
        struct route_scene *s = route_scene_create(2);
        struct route route;
        struct attempt attempt;
        struct error e = {0}, failure = route_scene_failure(reasons[r]);
        int64_t wait_ms;
        uint64_t tried = 0;
        failure.retry_after_ms = 3600000;
        s->providers[0].key_count = 5;
        s->targets[1].priority = 1;
        route_scene_adopt(s);
        route_scene_begin(s, &route);
        for (int i = 0; i < 5; i++) {
            assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
            assert_int_equal(attempt.target_index, 0);
            assert_int_equal(wait_ms, 0);
            tried |= 1u << attempt.how.key;
            attempt_end(&attempt, &failure);
        }
        assert_int_equal(tried, 31);
        assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e));
        assert_int_equal(attempt.target_index, 1);
        assert_int_equal(attempt.how.key, PROVIDER_KEY_ANY);
        attempt_end(&attempt, NULL);
        for (int i = 0; i < 20; i++) /* all five are out now */
            assert_int_equal(route_scene_call_ok(s, STR_NONE), 1);
        route_scene_assert_at_rest(s);
        route_scene_destroy(s);
    }
}

static void test_one_call_makes_no_more_attempts_than_the_bound(void **state)
{
    (void) state;
    for (int others = 0; others < 2; others++) {
        struct route_scene *s = route_scene_create(others ? 2 : 1);
        struct error e = {0};
        s->providers[0].key_count = ROUTER_ATTEMPTS_MAX;
        s->targets[1].priority = 1;
        route_scene_adopt(s);
        assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e),
                         ROUTER_ATTEMPTS_MAX); /* with another target: one more would be past it */
        assert_int_equal(e.reason, REASON_PROVIDER_AUTH);
        route_scene_assert_at_rest(s);
        route_scene_destroy(s);
    }
}

static void head(struct attempt *attempt, int status, const char *name, const char *value,
                 const char *name2, const char *value2)
{
    struct http_header items[] = {{str_from_cstr(name), str_from_cstr(value)},
                                  {str_from_cstr(name2), str_from_cstr(value2)}};
    struct http_headers headers = {items, name2 ? 2 : 1, 2};
    attempt->how.on_head(attempt->how.owner, status, &headers);
}

static void test_a_limited_key_is_left_alone_until_its_retry_after(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_RATE_LIMITED);
    int64_t wait_ms;
    s->providers[0].key_count = 2;
    route_scene_adopt(s);
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    int limited = attempt.how.key;
    head(&attempt, 429, "Retry-After", "20", NULL, NULL);
    assert_int_equal(attempt.retry_after_ms, 20000);
    attempt_end(&attempt, &failure);
    assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(wait_ms, 0);
    assert_int_not_equal(attempt.how.key, limited);
    attempt_end(&attempt, NULL);
    for (int i = 0; i < 38; i++) {
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        assert_int_not_equal(attempt.how.key, limited);
        attempt_end(&attempt, NULL);
        route_scene_pass_ms(s, 500);
    }
    route_scene_pass_ms(s, 1000);
    bool is_back = false;
    for (int i = 0; i < 4; i++) {
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        is_back = is_back || attempt.how.key == limited;
        attempt_end(&attempt, NULL);
    }
    assert_true(is_back);
    route_scene_destroy(s);
}

static void test_a_short_limit_is_waited_for_and_a_long_one_is_told(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_RATE_LIMITED);
    int64_t wait_ms;
    failure.retry_after_ms = 800;
    route_scene_adopt(s);
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_end(&attempt, &failure);
    assert_true(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_in_range(wait_ms, 800, 1001);
    route_scene_pass_ms(s, wait_ms);
    failure.retry_after_ms = 30000;
    attempt_end(&attempt, &failure);
    assert_false(route_next(&route, &failure, &attempt, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_int_equal(e.retry_after_ms, 30000);
    route_scene_pass_ms(s, 10000);
    route_scene_begin(s, &route); /* the next call is told at once what the first one learned */
    e = (struct error){0};
    assert_false(route_next(&route, NULL, &attempt, &wait_ms, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_int_equal(e.retry_after_ms, 20000);
    assert_non_null(strstr(e.message, "\"a\""));
    route_scene_destroy(s);
}

static void test_a_refused_key_comes_back_and_stays_out_longer_each_time(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(2);
    struct route route;
    struct attempt attempt;
    struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_AUTH);
    int64_t wait_ms, out_ms = ROUTER_KEY_REFUSED_MS;
    s->providers[0].key_count = 2;
    s->targets[1].priority = 1;
    route_scene_adopt(s);
    for (int round = 0; round < 3; round++) {
        route_scene_begin(s, &route);
        for (int i = 0; i < 2; i++) {
            assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
            assert_int_equal(attempt.target_index, 0);
            attempt_end(&attempt, &failure);
        }
        route_scene_pass_ms(s, out_ms - 1);
        assert_int_equal(route_scene_call_ok(s, STR_NONE), 1);
        route_scene_pass_ms(s, 1);
        out_ms *= 2;
    }
    assert_int_equal(route_scene_call_ok(s, STR_NONE), 0);
    assert_int_equal(route_scene_call_ok(s, STR_NONE), 0); /* both keys work: no strikes are left */
    route_scene_begin(s, &route);
    assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
    attempt_end(&attempt, &failure);
    route_scene_pass_ms(s, ROUTER_KEY_REFUSED_MS);
    route_scene_begin(s, &route);
    for (int i = 0; i < 2; i++) {
        assert_true(route_next(&route, i ? &failure : NULL, &attempt, &wait_ms, &e));
        assert_int_equal(attempt.target_index, 0);
        attempt_end(&attempt, &failure);
    }
    route_scene_destroy(s);
}

static void test_a_401_is_the_keys_everywhere_and_a_403_only_of_its_model(void **state)
{
    (void) state;
    for (int status = 401; status <= 403; status += 2) {
        struct route_scene *s = route_scene_create(2);
        struct route route;
        struct attempt attempt;
        struct error e = {0}, failure = route_scene_failure(REASON_PROVIDER_AUTH);
        int64_t wait_ms;
        s->targets[1] = s->targets[0]; /* two models of one provider with one key */
        s->targets[1].model = S("other");
        s->targets[1].priority = 1;
        s->providers[0].key_count = 1;
        route_scene_adopt(s);
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        head(&attempt, status, "server", "x", NULL, NULL);
        attempt_end(&attempt, &failure);
        assert_int_equal(route_next(&route, &failure, &attempt, &wait_ms, &e), status == 403);
        if (status == 403)
            attempt_end(&attempt, NULL);
        route_scene_destroy(s);
    }
}

static void test_the_key_with_most_quota_left_goes_first_and_an_empty_one_not_at_all(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct route routes[3];
    struct attempt attempts[3];
    struct error e = {0};
    int64_t wait_ms;
    int by_quota[3];
    static const char *const left[] = {"0", "50", "10"};
    s->providers[0].key_count = 3;
    route_scene_adopt(s);
    for (int i = 0; i < 3; i++) {
        route_scene_begin(s, &routes[i]);
        assert_true(route_next(&routes[i], NULL, &attempts[i], &wait_ms, &e));
        by_quota[i] = attempts[i].how.key;
    }
    for (int i = 0; i < 3; i++) {
        head(&attempts[i], 200, "X-RateLimit-Remaining-Requests", left[i],
             "x-ratelimit-reset-requests", "1m30s");
        attempt_end(&attempts[i], NULL);
    }
    struct route route;
    struct attempt attempt;
    for (int i = 0; i < 50; i++) { /* counted down between answers: 50 falls to 10, then in turn */
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        assert_int_not_equal(attempt.how.key, by_quota[0]);
        if (i < 40)
            assert_int_equal(attempt.how.key, by_quota[1]);
        attempt_end(&attempt, NULL);
    }
    route_scene_pass_ms(s, 90000);
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++) {
        route_scene_begin(s, &route);
        assert_true(route_next(&route, NULL, &attempt, &wait_ms, &e));
        seen |= 1u << attempt.how.key;
        attempt_end(&attempt, NULL);
    }
    assert_int_equal(seen, 7);
    route_scene_destroy(s);
}

static void test_a_changed_provider_begins_with_fresh_keys(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    s->providers[0].key_count = 1;
    route_scene_adopt(s);
    assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e), 1);
    assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e), 0);
    struct catalog *old = s->catalog;
    s->providers[1] = s->providers[0];
    s->providers[1].key_count = 2;
    s->targets[0].provider = &s->providers[1];
    route_scene_adopt(s);
    assert_int_equal(route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e), 2);
    catalog_destroy(old);
    route_scene_destroy(s);
}

/* ---- fields ---- */

static void test_resets_are_read_as_providers_write_them(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        int64_t ms;
    } known[] = {{"1s", 1000},
                 {"6m0s", 360000},
                 {"120ms", 120},
                 {"2m59.56s", 179560},
                 {"17", 17000},
                 {"0.5", 500},
                 {"1h2m3s", 3723000},
                 {"0s", 0},
                 {"2023-11-14T22:13:30Z", 10000},
                 {"2020-01-01T00:00:00Z", 0},
                 {"9999999999", PROVIDER_RETRY_AFTER_MS_MAX},
                 {"500us", 1}};
    static const char *const wrong[] = {"", "-1", "s", "1x", "1s2", "abc", "1..2s", "nan", "inf"};
    int64_t ms;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        assert_true(quota_parse_reset(str_from_cstr(known[i].text), 1700000000000000, &ms));
        assert_int_equal(ms, known[i].ms);
    }
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_false(quota_parse_reset(str_from_cstr(wrong[i]), 1700000000000000, &ms));
}

static void test_an_anthropic_head_is_read_too(void **state)
{
    (void) state;
    struct http_header items[] = {
        {S("anthropic-ratelimit-requests-remaining"), S("49")},
        {S("anthropic-ratelimit-tokens-remaining"), S("0")},
        {S("anthropic-ratelimit-tokens-reset"), S("2023-11-14T22:13:25Z")},
        {S("retry-after"), S("3")},
        {S("x-request-id"), S("req_1")}};
    struct http_headers headers = {items, ARRAY_COUNT(items), ARRAY_COUNT(items)};
    struct quota quota;
    quota_read(&headers, 1700000000000000, &quota);
    assert_int_equal(quota.requests_left, 49);
    assert_int_equal(quota.tokens_left, 0);
    assert_int_equal(quota.tokens_reset_ms, 5000);
    assert_int_equal(quota.requests_reset_ms, 0);
    assert_int_equal(quota.retry_after_ms, 3000);
    quota_read(NULL, 0, &quota);
    assert_int_equal(quota.requests_left, KEY_UNKNOWN);
}

static int refused_lines, none_lines, back_lines;

static void count_line(void *context, enum log_level level, str line)
{
    (void) context, (void) level;
    refused_lines += str_find(line, S("a key was refused")) != STR_NOT_FOUND;
    none_lines += str_find(line, S("no key is left")) != STR_NOT_FOUND;
    back_lines += str_find(line, S("a key of this target works again")) != STR_NOT_FOUND;
}

static void test_the_log_says_once_that_no_key_is_left_and_once_that_one_is_back(void **state)
{
    (void) state;
    struct route_scene *s = route_scene_create(1);
    struct error e = {0};
    s->providers[0].key_count = 3;
    s->model.retries_max = 0;
    route_scene_adopt(s);
    log_set_sink(count_line, NULL);
    refused_lines = none_lines = back_lines = 0;
    (void) route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e);
    assert_int_equal(refused_lines, 3);
    assert_int_equal(none_lines, 1);
    for (int i = 0; i < 20; i++)
        (void) route_scene_call_failing(s, REASON_PROVIDER_AUTH, &e);
    assert_int_equal(refused_lines, 3);
    assert_int_equal(none_lines, 1);
    assert_int_equal(back_lines, 0);
    route_scene_pass_ms(s, ROUTER_KEY_REFUSED_MS_MAX);
    for (int i = 0; i < 5; i++)
        (void) route_scene_call_ok(s, STR_NONE);
    assert_int_equal(back_lines, 1);
    for (int i = 0; i < 300; i++) { /* limited again and again: the log stays quiet for a while */
        (void) route_scene_call_failing(s, REASON_PROVIDER_RATE_LIMITED, &e);
        route_scene_pass_ms(s, 100);
    }
    assert_int_equal(none_lines, 2);
    route_scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key_is_tried_once_before_the_target_is_given_up),
        cmocka_unit_test(test_one_call_makes_no_more_attempts_than_the_bound),
        cmocka_unit_test(test_the_log_says_once_that_no_key_is_left_and_once_that_one_is_back),
        cmocka_unit_test(test_a_limited_key_is_left_alone_until_its_retry_after),
        cmocka_unit_test(test_a_short_limit_is_waited_for_and_a_long_one_is_told),
        cmocka_unit_test(test_a_refused_key_comes_back_and_stays_out_longer_each_time),
        cmocka_unit_test(test_a_401_is_the_keys_everywhere_and_a_403_only_of_its_model),
        cmocka_unit_test(test_the_key_with_most_quota_left_goes_first_and_an_empty_one_not_at_all),
        cmocka_unit_test(test_a_changed_provider_begins_with_fresh_keys),
        cmocka_unit_test(test_resets_are_read_as_providers_write_them),
        cmocka_unit_test(test_an_anthropic_head_is_read_too),
    };
    return cmocka_run_group_tests_name("router_keys", tests, NULL, NULL);
}
