#include "observe/metrics.h"

#include "base/arena.h"
#include "base/limits.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static str written(struct arena *arena, struct metrics *metrics)
{
    struct strbuf out;
    strbuf_init(&out, arena, 4u << 20);
    metrics_write(metrics, &out);
    assert_false(strbuf_is_over(&out));
    return strbuf_str(&out);
}

static void assert_has(str text, const char *line)
{
    if (str_find(text, str_from_cstr(line)) == STR_NOT_FOUND)
        fail_msg("no line %s in\n%.*s", line, (int) text.len, text.ptr);
}

static void test_every_family_is_shown_with_help_and_type(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct metrics *metrics = metrics_create();
    str text = written(arena, metrics);
    assert_has(text, "# TYPE nexus_agent_requests_total counter\n");
    assert_has(text, "# TYPE nexus_agent_request_duration_seconds histogram\n");
    assert_has(text, "# TYPE nexus_budget_utilization_ratio gauge\n");
    metrics_destroy(metrics);
}

static void test_counters_gauges_and_histograms_show_what_was_recorded(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct metrics *metrics = metrics_create();
    metrics_add(metrics, METRIC_AGENT_REQUESTS, 3, (str[]){S("s1"), S("assistant"), S("completed")},
                3);
    metrics_set(metrics, METRIC_BUDGET_UTILIZATION, 0.25, (str[]){S("s1"), S("tokens")}, 2);
    metrics_observe(metrics, METRIC_AGENT_REQUEST_DURATION, 0.02, (str[]){S("assistant")}, 1);
    metrics_observe(metrics, METRIC_AGENT_REQUEST_DURATION, 99, (str[]){S("assistant")}, 1);
    metrics_add(metrics, METRIC_RUNS_ACTIVE, 2, NULL, 0);
    metrics_add(metrics, METRIC_RUNS_ACTIVE, -1, NULL, 0);
    str text = written(arena, metrics);
    assert_has(text, "nexus_agent_requests_total{session_id=\"s1\",agent_type=\"assistant\",status="
                     "\"completed\"} 3\n");
    assert_has(text,
               "nexus_budget_utilization_ratio{session_id=\"s1\",resource_type=\"tokens\"} 0.25\n");
    assert_has(
        text,
        "nexus_agent_request_duration_seconds_bucket{agent_type=\"assistant\",le=\"0.01\"} 0\n");
    assert_has(
        text,
        "nexus_agent_request_duration_seconds_bucket{agent_type=\"assistant\",le=\"0.025\"} 1\n");
    assert_has(
        text,
        "nexus_agent_request_duration_seconds_bucket{agent_type=\"assistant\",le=\"+Inf\"} 2\n");
    assert_has(text, "nexus_agent_request_duration_seconds_sum{agent_type=\"assistant\"} 99.02\n");
    assert_has(text, "nexus_agent_request_duration_seconds_count{agent_type=\"assistant\"} 2\n");
    assert_has(text, "nexus_runs_active 1\n");
    metrics_destroy(metrics);
}

static void test_label_values_are_escaped_and_cut(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct metrics *metrics = metrics_create();
    char longer[300];
    memset(longer, 'x', sizeof longer);
    metrics_add(metrics, METRIC_STORE_COMMITS, 1, (str[]){S("a\"b\\c\nd")}, 1);
    metrics_add(metrics, METRIC_STORE_COMMITS, 1, (str[]){str_of(longer, sizeof longer)}, 1);
    str text = written(arena, metrics);
    assert_has(text, "nexus_store_commits_total{outcome=\"a\\\"b\\\\c\\nd\"} 1\n");
    assert_int_equal(str_find(text, str_of(longer, METRIC_LABEL_BYTES_MAX + 1)), STR_NOT_FOUND);
    metrics_destroy(metrics);
}

static void test_series_past_the_bound_fold_into_other(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct metrics *metrics = metrics_create();
    for (size_t i = 0; i < METRIC_SERIES_MAX + 5; i++)
        metrics_add(metrics, METRIC_STORE_COMMITS, 1, (str[]){str_printf(arena, "outcome%zu", i)},
                    1);
    str text = written(arena, metrics);
    assert_has(text, "nexus_store_commits_total{outcome=\"other\"} 5\n");
    assert_has(text, "nexus_store_commits_total{outcome=\"outcome0\"} 1\n");
    metrics_destroy(metrics);
}

static int64_t total_of(str text, const char *prefix)
{
    int64_t total = 0;
    str line;
    while (str_next(&text, '\n', &line)) {
        str rest, labels, number;
        int64_t value;
        if (!str_strip_prefix(line, str_from_cstr(prefix), &rest))
            continue;
        assert_true(str_cut(rest, ' ', &labels, &number));
        assert_true(str_to_i64(number, &value));
        total += value;
    }
    return total;
}

static void test_the_busiest_sessions_keep_their_own_series_and_no_count_is_lost(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(64u << 20);
    struct metrics *metrics = metrics_create();
    for (size_t i = 0; i < 50; i++)
        metrics_add(metrics, METRIC_AGENT_REQUESTS, 1, (str[]){S("busy"), S("a"), S("completed")},
                    3);
    for (size_t i = 0; i < 3 * METRIC_SERIES_MAX; i++)
        metrics_add(metrics, METRIC_AGENT_REQUESTS, 1,
                    (str[]){str_printf(arena, "s%zu", i), S("a"), S("completed")}, 3);
    str text = written(arena, metrics);
    assert_has(text, "nexus_agent_requests_total{session_id=\"busy\",agent_type=\"a\",status="
                     "\"completed\"} 50\n");
    assert_int_equal(total_of(text, "nexus_agent_requests_total{"), 50 + 3 * METRIC_SERIES_MAX);
    metrics_destroy(metrics);
}

static void test_a_kept_series_is_never_taken_over(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(64u << 20);
    struct metrics *metrics = metrics_create();
    struct metric_series *mine =
        metrics_series(metrics, METRIC_AGENT_REQUESTS, (str[]){S("mine"), S("a"), S("b")}, 3);
    for (size_t i = 0; i < 2 * METRIC_SERIES_MAX; i++)
        metrics_add(metrics, METRIC_AGENT_REQUESTS, 1,
                    (str[]){str_printf(arena, "s%zu", i), S("a"), S("b")}, 3);
    metric_add(mine, 7);
    assert_has(written(arena, metrics), "{session_id=\"mine\",agent_type=\"a\",status=\"b\"} 7\n");
    metrics_destroy(metrics);
}

static void *count_many(void *argument)
{
    for (size_t i = 0; i < 20000; i++)
        metrics_add(argument, METRIC_AGENT_REQUESTS, 1,
                    (str[]){i % 2 ? S("s1") : S("s2"), S("a"), S("b")}, 3);
    return NULL;
}

static void test_threads_count_together(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct metrics *metrics = metrics_create();
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, metrics), 0);
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(total_of(written(arena, metrics), "nexus_agent_requests_total{"), 80000);
    metrics_destroy(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family_is_shown_with_help_and_type),
        cmocka_unit_test(test_counters_gauges_and_histograms_show_what_was_recorded),
        cmocka_unit_test(test_label_values_are_escaped_and_cut),
        cmocka_unit_test(test_series_past_the_bound_fold_into_other),
        cmocka_unit_test(test_the_busiest_sessions_keep_their_own_series_and_no_count_is_lost),
        cmocka_unit_test(test_a_kept_series_is_never_taken_over),
        cmocka_unit_test(test_threads_count_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
