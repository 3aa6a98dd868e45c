/* Health, metrics, the page, the document, and who one is. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "gateway/gateway_internal.h"
#include "gateway/keys_internal.h"
#include "llm/router.h"
#include "store/store.h"
#include <stdatomic.h>

bool route_page(struct api_call *call, struct error *e)
{
    (void) e;
    reply_header(call, S("Content-Security-Policy"),
                 S("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"));
    reply_header(call, S("Referrer-Policy"), S("no-referrer"));
    reply_send(call, 200, S("text/html; charset=utf-8"), page_html(call->request));
    return true;
}

bool route_healthz(struct api_call *call, struct error *e)
{
    (void) e;
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_json(call, 200, S("{\"status\":\"ok\"}"));
    return true;
}

static bool check_store(struct api_call *call, struct error *e)
{
    struct store_load load = store_load(call->gateway->store);
    if (load.failing == REASON_NONE)
        return true;
    return error_set(
        e, REASON_UNAVAILABLE, "not ready: the store cannot commit since " STR_FMT ": %s",
        STR_ARG(time_str(call->ctx->arena, load.failing_since_us)), error_title(load.failing));
}

bool route_readyz(struct api_call *call, struct error *e)
{
    struct gateway *gateway = call->gateway;
    reply_header(call, S("Cache-Control"), S("no-store"));
    if (atomic_load(&gateway->is_draining))
        return error_set(e, REASON_DRAINING, "this node is shutting down");
    struct error reason = {0};
    if (gateway->options.is_ready &&
        !gateway->options.is_ready(gateway->options.ready_owner, &reason))
        return error_set(e, REASON_UNAVAILABLE, "not ready: %s", reason.message);
    if (!check_store(call, e))
        return false;
    reply_json(call, 200, S("{\"status\":\"ready\"}"));
    return true;
}

bool route_metrics(struct api_call *call, struct error *e)
{
    struct strbuf text;
    strbuf_init(&text, call->ctx->arena, GATEWAY_REPLY_BYTES_MAX);
    router_show(orchestrator_parts(call->gateway->orchestrator)->router);
    metrics_write(call->gateway->metrics, &text);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the metrics are over %u bytes",
                         GATEWAY_REPLY_BYTES_MAX);
    reply_send(call, 200, S("text/plain; version=0.0.4; charset=utf-8"), strbuf_str(&text));
    return true;
}

bool route_openapi(struct api_call *call, struct error *e)
{
    (void) e;
    reply_header(call, S("ETag"), call->gateway->openapi_etag);
    reply_header(call, S("Cache-Control"), S("no-cache"));
    if (str_equal(http_request_header(call->request, S("If-None-Match")),
                  call->gateway->openapi_etag))
        reply_send(call, 304, STR_NONE, STR_NONE);
    else
        reply_send(call, 200, S("application/openapi+json"), call->gateway->openapi);
    return true;
}

bool route_me(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    const struct principal *principal = &call->principal;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("user_id"), principal->user_id);
    json_put_str(w, S("role"), principal->role);
    json_key(w, S("scopes"));
    scopes_write_json(w, principal->scopes);
    put_id(w, S("tenant_id"), principal->tenant_id);
    put_id(w, S("key_id"), principal->key_id);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
