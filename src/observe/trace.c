#include "observe/trace.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"
#include "base/limits.h"

#include <pthread.h>
#include <stdlib.h>

struct batch_of_spans {
    struct arena *arena;
    struct strbuf text; /* spans, comma-separated */
    size_t count;
};
struct tracer {
    pthread_mutex_t lock;
    uint64_t threshold; /* of the id's last seven bytes */
    bool takes_all;
    str service_version, node;
    struct arena *arena; /* of the two above */
    struct batch_of_spans batch;
    struct metric_series *emitted, *dropped;
};

static void open_batch(struct batch_of_spans *batch)
{
    batch->arena = arena_create(4 * (size_t) TRACE_BATCH_BYTES_MAX);
    batch->count = 0;
    strbuf_init(&batch->text, batch->arena, TRACE_BATCH_BYTES_MAX);
}

struct tracer *tracer_create(const struct tracer_options *options)
{
    struct tracer *tracer = calloc(1, sizeof *tracer);
    ensure(tracer != NULL);
    pthread_mutex_init(&tracer->lock, NULL);
    tracer->takes_all = options->sample_ratio >= 1.0;
    tracer->threshold = options->sample_ratio > 0 && !tracer->takes_all
                            ? (uint64_t) (options->sample_ratio * (double) (UINT64_C(1) << 56))
                            : 0;
    tracer->arena = arena_create(0);
    tracer->service_version = str_copy(tracer->arena, options->service_version);
    tracer->node = str_copy(tracer->arena, options->node);
    if (options->metrics) {
        tracer->emitted = metrics_series(options->metrics, METRIC_SPANS, &S("emitted"), 1);
        tracer->dropped = metrics_series(options->metrics, METRIC_SPANS, &S("dropped"), 1);
    }
    open_batch(&tracer->batch);
    return tracer;
}

void tracer_destroy(struct tracer *tracer)
{
    if (!tracer)
        return;
    arena_destroy(tracer->batch.arena);
    arena_destroy(tracer->arena);
    pthread_mutex_destroy(&tracer->lock);
    free(tracer);
}

bool tracer_samples(const struct tracer *tracer, const trace_context *trace)
{
    uint64_t number = 0;
    if (!tracer)
        return false;
    for (size_t i = 9; i < 16; i++)
        number = number << 8 | trace->trace_id[i];
    return tracer->takes_all || number < tracer->threshold;
}

/* ---- attributes ---- */

static struct span_attribute *next_attribute(struct span *span, const char *name)
{
    ensure(span->attribute_count < SPAN_ATTRIBUTES_MAX);
    struct span_attribute *attribute = &span->attributes[span->attribute_count++];
    *attribute = (struct span_attribute){.name = name};
    return attribute;
}

void span_put_str(struct span *span, const char *name, str value)
{
    if (str_is_empty(value))
        return;
    struct span_attribute *attribute = next_attribute(span, name);
    attribute->type = SPAN_TEXT;
    attribute->text = value;
}

void span_put_i64(struct span *span, const char *name, int64_t value)
{
    struct span_attribute *attribute = next_attribute(span, name);
    attribute->type = SPAN_INTEGER;
    attribute->integer = value;
}

void span_put_double(struct span *span, const char *name, double value)
{
    struct span_attribute *attribute = next_attribute(span, name);
    attribute->type = SPAN_REAL;
    attribute->real = value;
}

void span_put_bool(struct span *span, const char *name, bool value)
{
    struct span_attribute *attribute = next_attribute(span, name);
    attribute->type = SPAN_BOOLEAN;
    attribute->integer = value;
}

/* ---- OTLP/JSON ---- */

static void put_hex(struct json_writer *w, const char *name, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    char text[32];
    for (size_t i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    json_put_str(w, str_from_cstr(name), str_of(text, 2 * count));
}

static void put_text_attribute(struct json_writer *w, str name, str value)
{
    json_object_begin(w);
    json_put_str(w, S("key"), name);
    json_key(w, S("value"));
    json_object_begin(w);
    json_put_str(w, S("stringValue"), str_cut_utf8(value, TRACE_TEXT_BYTES_MAX));
    json_object_end(w);
    json_object_end(w);
}

static void put_attribute(struct json_writer *w, const struct span_attribute *attribute)
{
    str name = str_from_cstr(attribute->name);
    if (attribute->type == SPAN_TEXT) {
        put_text_attribute(w, name, attribute->text);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("key"), name);
    json_key(w, S("value"));
    json_object_begin(w);
    if (attribute->type == SPAN_INTEGER)
        json_put_i64_str(w, S("intValue"), attribute->integer);
    else if (attribute->type == SPAN_REAL)
        json_put_double(w, S("doubleValue"), attribute->real);
    else
        json_put_bool(w, S("boolValue"), attribute->integer != 0);
    json_object_end(w);
    json_object_end(w);
}

static void put_failure(struct json_writer *w, const struct span *span)
{
    json_key(w, S("status"));
    json_object_begin(w);
    json_put_i64(w, S("code"), 2);
    json_put_str(w, S("message"), str_cut_utf8(span->error_message, TRACE_TEXT_BYTES_MAX));
    json_object_end(w);
    json_key(w, S("events"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_i64_str(w, S("timeUnixNano"), span->end_us * 1000);
    json_put_str(w, S("name"), S("exception"));
    json_key(w, S("attributes"));
    json_array_begin(w);
    put_text_attribute(w, S("exception.type"), span->error_type);
    put_text_attribute(w, S("exception.message"), span->error_message);
    json_array_end(w);
    json_object_end(w);
    json_array_end(w);
}

static void write_span(struct json_writer *w, const struct span *span)
{
    static const uint8_t none[8];
    json_object_begin(w);
    put_hex(w, "traceId", span->context.trace_id, 16);
    put_hex(w, "spanId", span->context.span_id, 8);
    if (memcmp(span->parent_id, none, sizeof none) != 0)
        put_hex(w, "parentSpanId", span->parent_id, 8);
    json_put_str(w, S("name"), str_cut_utf8(span->name, TRACE_TEXT_BYTES_MAX));
    json_put_i64(w, S("kind"), span->kind);
    json_put_i64_str(w, S("startTimeUnixNano"), span->start_us * 1000);
    json_put_i64_str(w, S("endTimeUnixNano"), span->end_us * 1000);
    json_key(w, S("attributes"));
    json_array_begin(w);
    for (size_t i = 0; i < span->attribute_count; i++)
        put_attribute(w, &span->attributes[i]);
    if (!str_is_empty(span->error_type))
        put_text_attribute(w, S("error.type"), span->error_type);
    json_array_end(w);
    if (!str_is_empty(span->error_type))
        put_failure(w, span);
    json_object_end(w);
}

static void count(struct metric_series *series)
{
    if (series)
        metric_add(series, 1);
}

void tracer_emit(struct tracer *tracer, const struct span *span)
{
    struct json_writer w;
    if (!tracer || !span->context.is_sampled)
        return;
    pthread_mutex_lock(&tracer->lock);
    struct batch_of_spans *batch = &tracer->batch;
    bool fits = batch->text.len + TRACE_SPAN_BYTES_MAX < TRACE_BATCH_BYTES_MAX;
    if (fits) {
        if (batch->count++ > 0)
            strbuf_add_char(&batch->text, ',');
        json_writer_init(&w, &batch->text);
        write_span(&w, span);
    }
    pthread_mutex_unlock(&tracer->lock);
    count(fits ? tracer->emitted : tracer->dropped);
}

bool tracer_take(struct tracer *tracer, struct arena *arena, str *body, size_t *span_count)
{
    struct batch_of_spans taken = {0};
    pthread_mutex_lock(&tracer->lock);
    if (tracer->batch.count > 0) {
        taken = tracer->batch;
        open_batch(&tracer->batch);
    }
    pthread_mutex_unlock(&tracer->lock);
    if (taken.count == 0)
        return false;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, TRACE_BATCH_BYTES_MAX + 4096);
    json_writer_init(&w, &text);
    strbuf_add(&text, S("{\"resourceSpans\":[{\"resource\":{\"attributes\":["));
    put_text_attribute(&w, S("service.name"), S("nexus"));
    strbuf_add_char(&text, ',');
    json_writer_init(&w, &text);
    put_text_attribute(&w, S("service.version"), tracer->service_version);
    strbuf_add_char(&text, ',');
    json_writer_init(&w, &text);
    put_text_attribute(&w, S("service.instance.id"), tracer->node);
    strbuf_add(&text, S("]},\"scopeSpans\":[{\"scope\":{\"name\":\"nexus\"},\"spans\":["));
    strbuf_add(&text, strbuf_str(&taken.text));
    strbuf_add(&text, S("]}]}]}"));
    *body = strbuf_str(&text);
    *span_count = taken.count;
    arena_destroy(taken.arena);
    return true;
}
