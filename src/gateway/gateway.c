#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/gateway_internal.h"
#include "llm/embed_batch.h"
#include "orchestrator/memory/memory.h"
#include <stdatomic.h>
#include <stdlib.h>

/* ---- life ---- */

static void make_route_metrics(struct gateway *gateway)
{
    size_t count = routes_count() + 1;
    gateway->route_metrics = ARENA_ARRAY(gateway->arena, struct route_metrics, count);
    for (size_t i = 0; i < count; i++) {
        str path = i < routes_count() ? routes_at(i)->path : S("unknown");
        gateway->route_metrics[i].duration =
            metrics_series(gateway->metrics, METRIC_HTTP_DURATION, &path, 1);
    }
    gateway->streams_open = metrics_series(gateway->metrics, METRIC_STREAMS_OPEN, NULL, 0);
}

static void copy_options(struct gateway *gateway, const struct gateway_options *options)
{
    struct gateway_options *copy = &gateway->options;
    *copy = *options;
    copy->listen_address = str_copy(gateway->arena, options->listen_address);
    copy->policy_dir = str_copy(gateway->arena, options->policy_dir);
    copy->allowed_hosts = ARENA_ARRAY(gateway->arena, str, options->allowed_host_count);
    for (size_t i = 0; i < options->allowed_host_count; i++)
        copy->allowed_hosts[i] = str_lower(gateway->arena, options->allowed_hosts[i]);
    if (copy->requests_per_minute <= 0)
        copy->requests_per_minute = GATEWAY_REQUESTS_PER_MINUTE;
    if (copy->keep_alive_ms <= 0)
        copy->keep_alive_ms = GATEWAY_KEEP_ALIVE_MS;
    if (copy->reauthorise_ms <= 0)
        copy->reauthorise_ms = GATEWAY_REAUTHORISE_MS;
    if (copy->streams_per_key == 0)
        copy->streams_per_key = GATEWAY_STREAMS_PER_KEY;
    gateway->is_any_address =
        str_equal(copy->listen_address, S("0.0.0.0")) || str_equal(copy->listen_address, S("::"));
}

bool gateway_create(const struct gateway_options *options, struct gateway **out, struct error *e)
{
    (void) e;
    ensure(options->orchestrator && options->keys && options->metrics && options->clock &&
           options->random);
    struct gateway *gateway = calloc(1, sizeof *gateway);
    ensure(gateway != NULL);
    gateway->arena = arena_create(0);
    copy_options(gateway, options);
    gateway->orchestrator = options->orchestrator;
    gateway->keys = options->keys;
    gateway->metrics = options->metrics;
    gateway->cache = options->cache;
    gateway->clock = options->clock;
    gateway->random = options->random;
    gateway->store = orchestrator_parts(options->orchestrator)->store;
    gateway->policy =
        options->policy ? options->policy : orchestrator_parts(options->orchestrator)->policy;
    gateway->embed_batch = embed_batch_create(options->metrics);
    gateway->memory = options->memory;
    gateway->watches = call_watches_create(options->keys, gateway->options.reauthorise_ms);
    gateway->mcp = mcp_server_create(gateway, &options->mcp);
    gateway->rate = rate_create();
    gateway->streams = streams_create(gateway->options.streams_per_key);
    gateway->openapi = openapi_document(gateway->arena);
    gateway->schemas = schema_set_create(gateway->arena);
    digest hash = digest_sha256(gateway->openapi);
    gateway->openapi_etag = str_printf(gateway->arena, "\"" STR_FMT "\"",
                                       STR_ARG(str_hex(gateway->arena, hash.bytes, 16)));
    make_route_metrics(gateway);
    *out = gateway;
    return true;
}

void gateway_destroy(struct gateway *gateway)
{
    if (!gateway)
        return;
    mcp_server_destroy(gateway->mcp);
    embed_batch_destroy(gateway->embed_batch);
    call_watches_destroy(gateway->watches);
    rate_destroy(gateway->rate);
    streams_destroy(gateway->streams);
    arena_destroy(gateway->arena);
    free(gateway);
}

void gateway_set_draining(struct gateway *gateway)
{
    atomic_store(&gateway->is_draining, true);
}

void gateway_settle(struct gateway *gateway, struct context *ctx)
{
    call_watches_settle(gateway->watches, ctx);
    embed_batch_settle(gateway->embed_batch, ctx);
    if (gateway->memory)
        memory_settle(gateway->memory, ctx);
}

/* ---- one request ---- */

static bool find_route(struct api_call *call, struct error *e)
{
    struct http_request *request = call->request;
    bool is_path_known;
    call->route = routes_find(request->method, request->path, call->params, &is_path_known);
    if (call->route)
        return true;
    if (!is_path_known)
        return error_set(e, REASON_NOT_FOUND,
                         "there is nothing at " STR_FMT "; see /api/openapi.json",
                         STR_ARG(str_cut_utf8(request->path, 200)));
    str allowed = routes_allowed(call->ctx->arena, request->path);
    reply_header(call, S("Allow"), allowed);
    return error_set(e, REASON_METHOD, "this path answers " STR_FMT, STR_ARG(allowed));
}

static bool handle_remembered(struct api_call *call, struct error *e)
{
    bool is_answered = false;
    if (!idempotency_begin(call, &is_answered, e))
        return false;
    if (is_answered || call->route->handler(call, e))
        return true;
    if (e->reason != REASON_OUTCOME_UNKNOWN) /* else a repeat could do it again */
        idempotency_forget(call);
    return false;
}

static bool serve(struct api_call *call, struct error *e)
{
    if (!middleware_identify(call, e) || !find_route(call, e) ||
        !middleware_check_origin(call, e) || !middleware_authenticate(call, e) ||
        !middleware_limit(call, e) ||
        !queries_check(call->ctx->arena, call->route, call->request->query, e) ||
        !middleware_read_body(call, e))
        return false;
    if (call->route->flags & ROUTE_CREATES)
        return handle_remembered(call, e);
    return call->route->handler(call, e);
}

static void count(const struct access *access, int64_t duration_ns)
{
    struct gateway *gateway = access->gateway;
    size_t index = access->route ? (size_t) (access->route - routes_at(0)) : routes_count();
    struct route_metrics *route = &gateway->route_metrics[index];
    int status = access->status < 100 || access->status > 599 ? 500 : access->status;
    struct metric_series *series =
        atomic_load_explicit(&route->requests[status - 100], memory_order_acquire);
    if (!series) {
        char text[4] = {(char) ('0' + status / 100), (char) ('0' + status / 10 % 10),
                        (char) ('0' + status % 10), 0};
        str labels[] = {access->route ? access->route->path : S("unknown"),
                        str_from_cstr(http_method_name(access->method)), str_from_cstr(text)};
        series =
            metrics_series(gateway->metrics, METRIC_HTTP_REQUESTS, labels, ARRAY_COUNT(labels));
        atomic_store_explicit(&route->requests[status - 100], series, memory_order_release);
    }
    metric_add(series, 1);
    metric_observe(route->duration, (double) duration_ns / 1e9);
}

static void log_access(const struct access *access, int64_t duration_ns)
{
    static const char digits[] = "0123456789abcdef";
    char trace[2 * sizeof access->trace.trace_id];
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    for (size_t i = 0; i < sizeof access->trace.trace_id; i++) {
        trace[2 * i] = digits[access->trace.trace_id[i] >> 4];
        trace[2 * i + 1] = digits[access->trace.trace_id[i] & 15];
    }
    LOG_INFO("gateway.access", S("request"),
             LOG_STR("http.request.method", str_from_cstr(http_method_name(access->method))),
             LOG_STR("url.path", str_cut_utf8(access->path, 1024)),
             LOG_I64("http.response.status_code", access->status),
             LOG_I64("event.duration", duration_ns),
             LOG_STR("trace.id", str_of(trace, sizeof trace)), LOG_STR("user.id", access->user_id),
             LOG_STR("source.ip", access->peer), LOG_STR("http.request.id", access->request_id));
}

struct access access_begin(const struct api_call *call)
{
    return (struct access){
        .gateway = call->gateway,
        .route = call->route,
        .method = call->request->method,
        .status = http_reply_status(call->request),
        .started_ns = call->request->started_ns,
        .path = call->request->path,
        .user_id = call->principal.user_id,
        .request_id = call->request_id,
        .peer = str_from_cstr(call->request->peer_address),
        .trace = call->ctx->trace,
        .key_id = call->principal.key_id,
        .is_stream_counted = call->is_stream_counted,
    };
}

static never_inline void emit_span(const struct access *access, int64_t duration_ns)
{
    enum { NAME_BYTES = 160 };
    char name[NAME_BYTES], status[16];
    str method = str_from_cstr(http_method_name(access->method));
    int length = snprintf(name, sizeof name, STR_FMT " " STR_FMT, STR_ARG(method),
                          STR_ARG(access->route->path));
    struct span span = {.name = str_of(name, (size_t) length),
                        .kind = SPAN_SERVER,
                        .context = access->trace,
                        .end_us = clock_unix_us(access->gateway->clock)};
    span.start_us = span.end_us - duration_ns / 1000;
    memcpy(span.parent_id, access->trace.parent_id, sizeof span.parent_id);
    span_put_str(&span, "http.request.method", method);
    span_put_str(&span, "http.route", access->route->path);
    span_put_i64(&span, "http.response.status_code", access->status);
    span_put_str(&span, "user.id", access->user_id);
    span_put_str(&span, "http.request.header.x-request-id", access->request_id);
    if (access->status >= 500) {
        snprintf(status, sizeof status, "%d", access->status);
        span.error_type = str_from_cstr(status);
        span.error_message = str_from_cstr(http_status_text(access->status));
    }
    tracer_emit(access->gateway->options.tracer, &span);
}

void access_end(const struct access *access)
{
    struct gateway *gateway = access->gateway;
    int64_t duration_ns = clock_monotonic_ns(gateway->clock) - access->started_ns;
    if (access->is_stream_counted) {
        streams_give(gateway->streams, access->key_id);
        metric_add(gateway->streams_open, -1);
    }
    count(access, duration_ns);
    log_access(access, duration_ns);
    bool is_noise = !access->route || access->route->flags & ROUTE_UNLIMITED;
    if (access->trace.is_sampled && gateway->options.tracer && !is_noise)
        emit_span(access, duration_ns);
}

void gateway_handle(void *owner, struct http_request *request)
{
    struct error e = {0};
    struct api_call *call = ARENA_NEW(request->ctx->arena, struct api_call);
    call->gateway = owner;
    call->request = request;
    call->ctx = request->ctx;
    bool is_served = serve(call, &e);
    if (!is_served && !http_reply_has_begun(request))
        reply_error(call, &e);
    else if (!is_served && !http_reply_is_done(request))
        http_reply_abort(request);
    if (call->is_handed_on)
        return;
    struct access access = access_begin(call);
    access_end(&access);
}
