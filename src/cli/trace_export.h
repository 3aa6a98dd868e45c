/*
 * Trace export: sends what the tracer holds to an OTLP/HTTP collector, once a second, as JSON.
 *
 * A collector that is down or slow costs the traces of that time, which are counted (nexus_spans_total{outcome="lost"}) and told in the
 * log once per outage; it never holds anything up.
 * Thread: one loop.  Suspends: trace_export_run, until its context is cancelled; then what is left is sent once more.
 */
#ifndef NEXUS_CLI_TRACE_EXPORT_H
#define NEXUS_CLI_TRACE_EXPORT_H

#include "base/secret.h"
#include "net/http_client.h"
#include "observe/trace.h"

struct trace_export {
    struct tracer *tracer;
    struct metrics *metrics;
    struct http_client *(*client_of_loop)(void *owner);
    void *client_owner;
    str endpoint; /* "http://127.0.0.1:4318"; "/v1/traces" is added unless it is there */
    const struct secret *authorization; /* NULL: none */
};
may_suspend bool trace_export_run(struct context *ctx, struct trace_export *export,
                                  struct error *e);

#endif
