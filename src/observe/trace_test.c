#include "observe/trace.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct tracer *make(double ratio)
{
    return tracer_create(&(struct tracer_options){
        .sample_ratio = ratio, .service_version = S("1"), .node = S("here")});
}

static const struct json *taken(struct tracer *tracer, struct arena *arena, size_t *count)
{
    str body;
    struct error e = {0};
    const struct json *json;
    if (!tracer_take(tracer, arena, &body, count))
        return NULL;
    if (!json_parse(arena, body, (struct json_limits){0}, &json, &e))
        fail_msg("%s", e.message);
    const struct json *of = json_at(json_get(json, S("resourceSpans")), 0);
    return json_get(json_at(json_get(of, S("scopeSpans")), 0), S("spans"));
}

static struct span span_of(bool is_sampled)
{
    struct span span = {.name = S("chat fast"), .kind = SPAN_CLIENT, .start_us = 10, .end_us = 25};
    memset(span.context.trace_id, 0xab, sizeof span.context.trace_id);
    memset(span.context.span_id, 0x01, sizeof span.context.span_id);
    span.context.is_sampled = is_sampled;
    return span;
}

static void test_a_span_is_written_as_otlp_says(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct tracer *tracer = make(1);
    struct span span = span_of(true);
    size_t count;
    span_put_str(&span, "gen_ai.request.model", S("fast\"\n"));
    span_put_str(&span, "gen_ai.response.id", STR_NONE);
    span_put_i64(&span, "gen_ai.usage.input_tokens", 42);
    span_put_bool(&span, "gen_ai.request.stream", true);
    span_put_double(&span, "gen_ai.request.temperature", 0.5);
    span.error_type = S("rate_limited");
    span.error_message = S("slow down");
    tracer_emit(tracer, &span);
    const struct json *spans = taken(tracer, arena, &count), *first = json_at(spans, 0);
    assert_int_equal(count, 1);
    assert_true(str_equal(json_str_or(first, S("traceId"), STR_NONE),
                          S("abababababababababababababababab")));
    assert_true(str_equal(json_str_or(first, S("endTimeUnixNano"), STR_NONE), S("25000")));
    assert_null(json_get(first, S("parentSpanId")));
    assert_true(str_equal(
        json_print(arena, json_get(first, S("attributes"))),
        S("[{\"key\":\"gen_ai.request.model\",\"value\":{\"stringValue\":\"fast\\\"\\n\"}},"
          "{\"key\":\"gen_ai.usage.input_tokens\",\"value\":{\"intValue\":\"42\"}},"
          "{\"key\":\"gen_ai.request.stream\",\"value\":{\"boolValue\":true}},"
          "{\"key\":\"gen_ai.request.temperature\",\"value\":{\"doubleValue\":0.5}},"
          "{\"key\":\"error.type\",\"value\":{\"stringValue\":\"rate_limited\"}}]")));
    int64_t code = 0;
    assert_true(json_read_i64(json_get(first, S("status")), S("code"), 0, 9, &code, NULL));
    assert_int_equal(code, 2);
    assert_null(taken(tracer, arena, &count));
    tracer_destroy(tracer);
}

static void test_the_share_of_ids_is_the_ratio_and_the_same_everywhere(void **state)
{
    (void) state;
    struct tracer *one = make(0.25), *other = make(0.25), *none = make(0);
    int sampled = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        trace_context trace = {.is_sampled = false};
        uint64_t mixed = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        memcpy(trace.trace_id + 8, &mixed, sizeof mixed);
        bool is_sampled = tracer_samples(one, &trace);
        assert_int_equal(is_sampled, tracer_samples(other, &trace));
        assert_false(tracer_samples(none, &trace) || tracer_samples(NULL, &trace));
        sampled += is_sampled;
    }
    assert_in_range(sampled, 4700, 5300);
    tracer_destroy(one);
    tracer_destroy(other);
    tracer_destroy(none);
}

static void test_what_does_not_fit_is_dropped_and_counted(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(64u << 20);
    struct metrics *metrics = metrics_create();
    struct tracer *tracer =
        tracer_create(&(struct tracer_options){.sample_ratio = 1, .metrics = metrics});
    struct strbuf text;
    struct span span = span_of(true), unsampled = span_of(false);
    size_t count;
    tracer_emit(tracer, &unsampled);
    tracer_emit(NULL, &span);
    for (int i = 0; i < 100000; i++)
        tracer_emit(tracer, &span);
    const struct json *spans = taken(tracer, arena, &count);
    assert_int_equal(json_count(spans), count);
    assert_in_range(count, 1000, 99999);
    tracer_emit(tracer, &span);
    assert_non_null(taken(tracer, arena, &count));
    assert_int_equal(count, 1);
    strbuf_init(&text, arena, 1u << 20);
    metrics_write(metrics, &text);
    assert_true(str_find(strbuf_str(&text), S("nexus_spans_total{outcome=\"dropped\"}")) !=
                STR_NOT_FOUND);
    tracer_destroy(tracer);
    metrics_destroy(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_span_is_written_as_otlp_says),
        cmocka_unit_test(test_the_share_of_ids_is_the_ratio_and_the_same_everywhere),
        cmocka_unit_test(test_what_does_not_fit_is_dropped_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
