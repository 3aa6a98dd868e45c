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
#include "cli/config/config.h"
#include "cli/node_loops.h"
#include "cli/on_loop.h"
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

/* The same for a node, from its start to its end; nothing without a tracer.  Thread: the main thread. */
struct trace_job {
    struct trace_export export;
    struct secret *authorization; /* NULL: none */
    struct on_loop job;
};
/* The configuration of the start counts: what is needed of it is copied, since a reload replaces it. */
void trace_job_start(struct trace_job *traces, struct tracer *tracer, struct metrics *metrics,
                     const struct config *config, struct node_loops *node, struct arena *arena);
void trace_job_stop(struct trace_job *traces); /* the last ones are sent */

#endif
