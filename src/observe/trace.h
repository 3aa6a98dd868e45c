/*
 * Traces: finished spans of sampled requests, kept until an exporter takes them.
 *
 *      span_begin ... span_put_* ... tracer_emit --> batch of OTLP/JSON --> tracer_take (exporter)
 *
 * - A trace is sampled as its caller says (W3C flag), else by its id, so that all nodes agree: a share of all ids.
 * - A span is plain memory of its owner; what is not sampled costs one comparison.
 * - Batches are bounded (TRACE_BATCH_BYTES_MAX); what does not fit is dropped and counted, never waited for.
 * - No span carries words of prompts, answers or keys; names and attributes are those of the OpenTelemetry semantic conventions.
 * Source: OTLP 1.x, JSON encoding; W3C Trace Context.
 * Thread: any; one short lock per emitted span.  Suspends: never.
 */
#ifndef NEXUS_OBSERVE_TRACE_H
#define NEXUS_OBSERVE_TRACE_H

#include "observe/metrics.h"
#include "runtime/context.h"

struct tracer;

struct tracer_options {
    double sample_ratio; /* 0..1 of the traces that begin here */
    str service_version, node;
    struct metrics *metrics;
};
struct tracer *tracer_create(const struct tracer_options *options);
void tracer_destroy(struct tracer *tracer); /* NULL is fine */

/* For a trace that begins here.  tracer NULL: false. */
bool tracer_samples(const struct tracer *tracer, const trace_context *trace);

enum span_kind { SPAN_INTERNAL = 1, SPAN_SERVER = 2, SPAN_CLIENT = 3 };
enum { SPAN_ATTRIBUTES_MAX = 20 };
struct span_attribute {
    const char *name;
    enum { SPAN_TEXT, SPAN_INTEGER, SPAN_REAL, SPAN_BOOLEAN } type;
    str text;
    int64_t integer;
    double real;
};
struct span {
    str name;
    enum span_kind kind;
    trace_context context;    /* its own span id */
    uint8_t parent_id[8];     /* all zero: the root of its trace */
    int64_t start_us, end_us; /* Unix time */
    str error_type;           /* empty: it went well */
    str error_message;
    struct span_attribute attributes[SPAN_ATTRIBUTES_MAX];
    size_t attribute_count;
};
/* Texts are borrowed until tracer_emit. */
void span_put_str(struct span *span, const char *name, str value); /* an empty value is left out */
void span_put_i64(struct span *span, const char *name, int64_t value);
void span_put_double(struct span *span, const char *name, double value);
void span_put_bool(struct span *span, const char *name, bool value);

/* Copies the span when it is sampled.  tracer NULL: nothing. */
void tracer_emit(struct tracer *tracer, const struct span *span);

/* The whole ExportTraceServiceRequest of what was emitted since the last call, on the arena; false when there is nothing. */
bool tracer_take(struct tracer *tracer, struct arena *arena, str *body, size_t *span_count);

#endif
