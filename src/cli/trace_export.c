#include "cli/trace_export.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"

#define TRACES_PATH S("/v1/traces")

static bool post(struct context *ctx, const struct trace_export *export, struct arena *arena,
                 str body, struct error *e)
{
    struct http_headers headers = {0};
    OWNED(http_exchange) exchange = NULL;
    struct http_client_request request = {.method = HTTP_POST, .headers = &headers, .body = body};
    if (!http_url_parse(export->endpoint, &request.url, e))
        return false;
    str path = request.url.path_query;
    if (!str_ends_with(path, TRACES_PATH)) {
        while (str_ends_with(path, S("/")))
            path.len--;
        request.url.path_query =
            str_printf(arena, STR_FMT STR_FMT, STR_ARG(path), STR_ARG(TRACES_PATH));
    }
    http_headers_add(&headers, arena, S("Content-Type"), S("application/json"));
    if (export->authorization)
        http_headers_add(&headers, arena, S("Authorization"), secret_reveal(export->authorization));
    struct http_client *client = export->client_of_loop(export->client_owner);
    if (!http_client_send(client, ctx, &request, &exchange, e))
        return false;
    int status = http_exchange_status(exchange);
    str ignored;
    if (status < 200 || status > 299)
        return error_set(e, REASON_UNAVAILABLE, "the collector answered %d", status);
    return http_exchange_read_all(exchange, ctx, 1u << 20, &ignored, e);
}

static void send_batch(struct context *parent, struct trace_export *export, bool *is_down)
{
    str body;
    size_t count;
    struct context ctx;
    struct error failure = {0};
    OWNED(arena) arena = arena_create(4 * (size_t) TRACE_BATCH_BYTES_MAX);
    if (!tracer_take(export->tracer, arena, &body, &count))
        return;
    context_init(&ctx, parent->scheduler, arena, DEADLINE_NONE);
    ctx.deadline_ns = context_deadline_in(&ctx, TRACE_EXPORT_TIMEOUT_MS);
    bool ok = post(&ctx, export, arena, body, &failure);
    context_deinit(&ctx);
    str outcome = ok ? S("exported") : S("lost");
    metrics_add(export->metrics, METRIC_SPANS, (int64_t) count, &outcome, 1);
    if (!ok && !*is_down)
        LOG_WARN("nexus.traces", S("traces cannot be sent; they are lost until this works again"),
                 LOG_STR("url.full", export->endpoint),
                 LOG_STR("error.message", str_from_cstr(failure.message)));
    if (ok && *is_down)
        LOG_INFO("nexus.traces", S("traces are sent again"));
    *is_down = !ok;
}

bool trace_export_run(struct context *ctx, struct trace_export *export, struct error *e)
{
    bool is_down = false;
    while (context_sleep_ms(ctx, TRACE_EXPORT_MS, e))
        send_batch(ctx, export, &is_down);
    send_batch(ctx, export, &is_down);
    return false;
}

/* ---- of a node ---- */

static bool run_job(struct context *ctx, void *argument, struct error *e)
{
    struct trace_job *traces = argument;
    return trace_export_run(ctx, &traces->export, e);
}

void trace_job_start(struct trace_job *traces, struct tracer *tracer, struct metrics *metrics,
                     const struct config *config, struct node_loops *node, struct arena *arena)
{
    if (!tracer)
        return;
    if (config->tracing_authorization_count > 0)
        traces->authorization = secret_create(secret_reveal(config->tracing_authorization[0]));
    traces->export = (struct trace_export){.tracer = tracer,
                                           .metrics = metrics,
                                           .client_of_loop = node_loops_client,
                                           .client_owner = node,
                                           .endpoint = str_copy(arena, config->tracing_endpoint),
                                           .authorization = traces->authorization};
    on_loop_begin(&traces->job, node->loops[0], "traces", 0, run_job, traces);
}

void trace_job_stop(struct trace_job *traces)
{
    if (!traces->export.tracer)
        return;
    on_loop_cancel(&traces->job);
    on_loop_join(&traces->job);
    secret_destroy(traces->authorization);
}
