#include "cli/node_webhooks.h"

#include "agent/mcp/mcp_login.h"
#include "base/arena.h"
#include "base/limits.h"
#include "llm/openai_format.h"

/* ---- where to ---- */

static bool check_url(void *owner, str text, struct error *e)
{
    struct node_webhooks *webhooks = owner;
    struct http_url url;
    if (!http_url_parse(text, &url, e)) {
        e->reason = REASON_SCHEMA;
        return error_wrap(e, "url");
    }
    if (!url.is_tls && !webhooks->is_http_allowed)
        return error_set(e, REASON_SCHEMA,
                         "url must begin with https://; webhooks.http: allow lets others read what "
                         "is sent");
    if (!webhooks->has_hosts)
        return error_set(e, REASON_EGRESS_BLOCKED,
                         "this server may send to no host; name some in webhooks.allowed_hosts of "
                         "its configuration (\"*\": any)");
    return egress_check_host(webhooks->rules, url.host, e);
}

/* ---- sending ---- */

enum { REPLY_BYTES_MAX = 16 << 10, REPLY_WAIT_MS = 1000 };

/* A short body that is there already is read, so that the connection can be used again. */
static void read_rest(struct http_exchange *exchange, struct context *ctx)
{
    int64_t bytes;
    str length = http_headers_get(http_exchange_headers(exchange), S("Content-Length")), body;
    struct context limited;
    struct error ignored = {0};
    if (!str_to_i64(length, &bytes) || bytes > REPLY_BYTES_MAX)
        return;
    context_init_child(&limited, ctx, context_deadline_in(ctx, REPLY_WAIT_MS));
    (void) !http_exchange_read_all(exchange, &limited, REPLY_BYTES_MAX, &body, &ignored);
    context_deinit(&limited);
}

may_suspend static bool send_one(void *owner, struct context *ctx,
                                 const struct webhook_send *request, struct webhook_answer *out,
                                 struct error *e)
{
    struct node_webhooks *webhooks = owner;
    OWNED(http_exchange) exchange = NULL;
    struct http_headers headers = {0};
    struct http_client *client = node_loops_client(webhooks->node);
    if (!client)
        return error_set(e, REASON_UNAVAILABLE, "this node makes no outside calls");
    if (!check_url(owner, request->url, e)) /* the configuration may have changed */
        return false;
    for (size_t i = 0; i < request->header_count; i++)
        http_headers_add(&headers, ctx->arena, request->headers[i].name, request->headers[i].value);
    struct egress_request egress = {.method = HTTP_POST,
                                    .url = request->url,
                                    .headers = &headers,
                                    .body = request->body,
                                    .first_byte_timeout_ms = webhooks->options.timeout_ms,
                                    .no_redirects = true};
    if (!egress_send(webhooks->rules, client, ctx, &egress, &exchange, NULL, e))
        return false;
    *out = (struct webhook_answer){
        .status = http_exchange_status(exchange),
        .retry_after_ms = openai_retry_after_ms(
            STR_NONE, http_headers_get(http_exchange_headers(exchange), S("Retry-After")),
            context_now_us(ctx))};
    read_rest(exchange, ctx);
    return true;
}

/* ---- life ---- */

bool node_webhooks_start(struct node_webhooks *webhooks, const struct config *config,
                         struct node_loops *node, struct arena *arena, struct error *e)
{
    const struct egress_options rules = {
        .allowed_hosts = config->webhooks.allowed_hosts,
        .allowed_host_count = config->webhooks.allowed_host_count,
        .blocked_ips = config->webhooks.blocked_ips,
        .blocked_ip_count = config->webhooks.blocked_ip_count,
        .allowed_ips = config->webhooks.allowed_ips,
        .allowed_ip_count = config->webhooks.allowed_ip_count,
    };
    str key = str_printf(arena, STR_FMT "/webhook.key", STR_ARG(config->data_dir));
    if (!egress_rules_create(&rules, &webhooks->rules, e) ||
        !mcp_key_open(key, &webhooks->key, e)) {
        node_webhooks_stop(webhooks);
        return error_wrap(e, "webhooks");
    }
    webhooks->node = node;
    webhooks->is_http_allowed = str_equal(config->webhooks.http, S("allow"));
    webhooks->has_hosts = config->webhooks.allowed_host_count > 0;
    webhooks->options = (struct webhook_options){
        .seal_key = webhooks->key,
        .check_url = check_url,
        .send = send_one,
        .owner = webhooks,
        .timeout_ms = config->webhooks.timeout_ms,
        .keep_ms = config->webhooks.keep_ms,
    };
    webhooks->options.retry_count = config_webhook_retries(config, webhooks->options.retry_ms);
    return true;
}

void node_webhooks_stop(struct node_webhooks *webhooks)
{
    egress_rules_destroy(webhooks->rules);
    secret_destroy(webhooks->key);
    webhooks->rules = NULL;
    webhooks->key = NULL;
}
