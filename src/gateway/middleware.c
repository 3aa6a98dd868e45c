/* What every request passes before its handler: identity of the request, Host and Origin, who, how often, and the body. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/overload.h"
#include <arpa/inet.h>
#include <stdatomic.h>

/* ---- request id and trace ---- */

static bool is_sane_id(str id)
{
    if (id.len == 0 || id.len > GATEWAY_REQUEST_ID_BYTES_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_plain && c != '-' && c != '_' && c != '.' && c != ':')
            return false;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; /* capitals are not lawful here */
}

/* False for anything but hex, and for all zeros. */
static bool read_hex(str text, uint8_t *out, size_t bytes)
{
    uint8_t any = 0;
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(text.ptr[2 * i]), low = hex_digit(text.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t) (high << 4 | low);
        any |= out[i];
    }
    return any != 0;
}

/* W3C Trace Context: 00-<trace id>-<span id>-<flags>; later versions may be longer. */
static bool read_traceparent(str text, trace_context *out)
{
    enum { LENGTH = 55 };
    uint8_t version = 0, flags = 0;
    if (text.len < LENGTH || text.ptr[2] != '-' || text.ptr[35] != '-' || text.ptr[52] != '-')
        return false;
    bool is_zero_version = str_starts_with(text, S("00"));
    if (!is_zero_version && (!read_hex(str_slice(text, 0, 2), &version, 1) || version == 0xff))
        return false;
    if (is_zero_version ? text.len != LENGTH : text.len > LENGTH && text.ptr[LENGTH] != '-')
        return false;
    if (!read_hex(str_slice(text, 3, 35), out->trace_id, 16) ||
        !read_hex(str_slice(text, 36, 52), out->parent_id, 8))
        return false;
    if (!read_hex(str_slice(text, 53, 55), &flags, 1) &&
        !str_equal(str_slice(text, 53, 55), S("00")))
        return false;
    out->is_sampled = flags & 1;
    return true;
}

bool middleware_identify(struct api_call *call, struct error *e)
{
    (void) e;
    struct gateway *gateway = call->gateway;
    str id = http_request_header(call->request, S("X-Request-Id"));
    call->request_id =
        is_sane_id(id) ? id : uuid_str(call->ctx->arena, uuid_new(gateway->clock, gateway->random));
    trace_context trace = {.is_sampled = false};
    if (!read_traceparent(http_request_header(call->request, S("traceparent")), &trace)) {
        trace = (trace_context){.is_sampled = false};
        gateway->random->ops->fill(gateway->random, trace.trace_id, sizeof trace.trace_id);
        trace.is_sampled = tracer_samples(gateway->options.tracer, &trace);
    }
    gateway->random->ops->fill(gateway->random, trace.span_id, sizeof trace.span_id);
    call->ctx->trace = trace;
    return true;
}

/* ---- Host and Origin: what keeps a browser's page from talking to us ---- */

static str host_name(str host)
{
    if (str_starts_with(host, S("["))) {
        size_t end = str_find_char(host, ']');
        return end == STR_NOT_FOUND ? host : str_slice(host, 0, end + 1);
    }
    str name, port;
    str_cut(host, ':', &name, &port);
    return name;
}

static bool is_ip_literal(str name)
{
    char text[64];
    struct in6_addr address;
    if (str_starts_with(name, S("[")) && str_ends_with(name, S("]")))
        name = str_slice(name, 1, name.len - 1);
    if (name.len >= sizeof text)
        return false;
    memcpy(text, name.ptr, name.len);
    text[name.len] = 0;
    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

static bool is_own_host(const struct gateway *gateway, str host)
{
    str name = host_name(host);
    if (str_equal_nocase(name, S("localhost")) || str_equal(name, S("127.0.0.1")) ||
        str_equal(name, S("[::1]")))
        return true;
    str listening = gateway->options.listen_address;
    str inner = str_starts_with(name, S("[")) ? str_slice(name, 1, name.len - 1) : name;
    if (!str_is_empty(listening) && str_equal_nocase(inner, listening))
        return true;
    /* A rebound name is a name: an address typed as such is safe where we listen on all of them. */
    if (gateway->is_any_address && is_ip_literal(name))
        return true;
    for (size_t i = 0; i < gateway->options.allowed_host_count; i++) {
        str allowed = gateway->options.allowed_hosts[i];
        if (str_equal_nocase(allowed, name) || str_equal_nocase(allowed, host))
            return true;
    }
    return false;
}

bool middleware_check_origin(struct api_call *call, struct error *e)
{
    str host = call->request->host, origin = http_request_header(call->request, S("Origin")), rest;
    bool is_mcp = call->route->dialect == ROUTE_MCP; /* whose clients expect 403 */
    if (!is_own_host(call->gateway, host))
        return error_set(e, is_mcp ? REASON_DENIED : REASON_INVALID,
                         "this server does not answer for the host \"" STR_FMT
                         "\"; add it to allowed_hosts",
                         STR_ARG(str_cut_utf8(host, 120)));
    if (str_is_empty(origin))
        return true;
    bool is_web = str_strip_prefix(origin, S("http://"), &rest) ||
                  str_strip_prefix(origin, S("https://"), &rest);
    if (is_web && str_equal_nocase(rest, host))
        return true;
    for (size_t i = 0; is_web && i < call->gateway->options.allowed_host_count; i++)
        if (str_equal_nocase(call->gateway->options.allowed_hosts[i], rest) ||
            str_equal_nocase(call->gateway->options.allowed_hosts[i], host_name(rest)))
            return true;
    return error_set(e, REASON_DENIED, "requests from the origin \"" STR_FMT "\" are not allowed",
                     STR_ARG(str_cut_utf8(origin, 120)));
}

/* ---- who ---- */

static str presented_key(const struct http_request *request)
{
    str value = http_request_header(request, S("Authorization"));
    if (value.len > 7 && str_equal_nocase(str_slice(value, 0, 7), S("Bearer ")))
        return str_trim(str_from(value, 7));
    return http_request_header(request, S("x-api-key"));
}

static bool check_rights(const struct api_route *route, const struct principal *principal,
                         struct error *e)
{
    static const char *const roles[] = {"viewer", "user", "operator", "admin"};
    if (principal->level < route->role)
        return error_set(e, REASON_DENIED, "this needs the role %s; the key has %s",
                         roles[route->role], roles[principal->level]);
    if ((principal->scopes & route->scopes) != route->scopes)
        return error_set(e, REASON_DENIED, "this needs a key with the scope %s",
                         route->scopes & ~principal->scopes & SCOPE_PLATFORM ? "platform"
                                                                             : "of this route");
    return true;
}

bool middleware_authenticate(struct api_call *call, struct error *e)
{
    if (call->route->flags & ROUTE_PUBLIC)
        return true;
    struct principal *principal = &call->principal;
    str key = presented_key(call->request);
    if (str_is_empty(key))
        return error_set(e, REASON_UNAUTHENTICATED,
                         "send an API key: Authorization: Bearer nxk_... (or x-api-key)");
    call->key_digest = keys_digest(call->gateway->keys, key);
    if (!keys_authenticate_digest(call->gateway->keys, call->ctx, call->key_digest, principal, e))
        return false;
    principal->ip_address = str_from_cstr(call->request->peer_address);
    principal->user_agent = str_cut_utf8(http_request_header(call->request, S("User-Agent")), 512);
    if (!str_is_utf8(principal->user_agent))
        principal->user_agent = STR_NONE;
    principal->request_id = call->request_id;
    call->ctx->tenant_id = principal->tenant_id;
    return check_rights(call->route, principal, e);
}

bool middleware_reauthorise(struct api_call *call, struct error *e)
{
    struct principal now = {0};
    if (!keys_authenticate_digest(call->gateway->keys, call->ctx, call->key_digest, &now, e))
        return false;
    if (!str_equal(now.user_id, call->principal.user_id) || now.level < call->principal.level)
        return error_set(e, REASON_DENIED, "the key's rights have changed");
    return true;
}

/* ---- how often ---- */

enum { RATES_MAX = 3 };
struct limit {
    struct rate_subject subject;
    int64_t per_minute;
};

static void add_limit(struct limit *limits, size_t *count, enum rate_kind kind, uuid tenant_id,
                      str name, int64_t per_minute)
{
    if (per_minute > 0)
        limits[(*count)++] = (struct limit){{kind, tenant_id, name}, per_minute};
}

static str key_name(const struct principal *principal)
{
    return str_of((const char *) principal->key_id.bytes, sizeof principal->key_id.bytes);
}

static size_t person_limits(const struct gateway *gateway, const struct principal *principal,
                            struct limit limits[RATES_MAX])
{
    size_t count = 0;
    const struct gateway_options *options = &gateway->options;
    add_limit(limits, &count, RATE_USER_REQUESTS, principal->tenant_id, principal->caller_id,
              options->requests_per_minute);
    add_limit(limits, &count, RATE_KEY_REQUESTS, principal->tenant_id, key_name(principal),
              principal->limits.requests_per_minute);
    add_limit(limits, &count, RATE_TENANT_REQUESTS, principal->tenant_id, STR_NONE,
              options->tenant_requests_per_minute);
    return count;
}

/* Without a user it is the address that is counted. */
static size_t request_limits(const struct api_call *call, struct limit limits[RATES_MAX])
{
    size_t count = 0;
    if (!(call->route->flags & ROUTE_PUBLIC))
        return person_limits(call->gateway, &call->principal, limits);
    add_limit(limits, &count, RATE_ADDRESS_REQUESTS, UUID_NONE,
              str_from_cstr(call->request->peer_address),
              call->gateway->options.requests_per_minute);
    return count;
}

static size_t token_limits(const struct gateway *gateway, const struct principal *principal,
                           struct limit limits[RATES_MAX])
{
    size_t count = 0;
    add_limit(limits, &count, RATE_USER_TOKENS, principal->tenant_id, principal->caller_id,
              gateway->options.tokens_per_minute);
    add_limit(limits, &count, RATE_KEY_TOKENS, principal->tenant_id, key_name(principal),
              principal->limits.tokens_per_minute);
    add_limit(limits, &count, RATE_TENANT_TOKENS, principal->tenant_id, STR_NONE,
              gateway->options.tenant_tokens_per_minute);
    return count;
}

/* The view is of the one with the least left. */
static bool take_all(struct api_call *call, const struct limit *limits, size_t count,
                     int64_t amount, struct rate_view *tightest, struct error *e)
{
    int64_t now_ns = clock_monotonic_ns(call->gateway->clock);
    for (size_t i = 0; i < count; i++) {
        struct rate_view view;
        bool fits = rate_take(call->gateway->rate, &limits[i].subject, limits[i].per_minute, amount,
                              now_ns, &view, e);
        if (i == 0 || !fits || view.remaining < tightest->remaining)
            *tightest = view;
        if (fits)
            continue;
        while (i-- > 0)
            rate_correct(call->gateway->rate, &limits[i].subject, -amount, now_ns);
        return false;
    }
    return true;
}

static void tell_rate(struct api_call *call, const struct rate_view *view)
{
    struct arena *arena = call->ctx->arena;
    if (view->limit == 0)
        return;
    reply_header(call, S("RateLimit-Limit"), str_i64(arena, view->limit));
    reply_header(call, S("RateLimit-Remaining"), str_i64(arena, view->remaining));
    reply_header(call, S("RateLimit-Reset"), str_i64(arena, (view->reset_ms + 999) / 1000));
}

static bool read_priority(struct api_call *call, struct error *e)
{
    str text = http_request_header(call->request, S("X-Nexus-Priority"));
    if (str_is_empty(text))
        return true;
    call->principal.priority = priority_said(text);
    return call->principal.priority != PRIORITY_UNSAID ||
           error_set(e, REASON_INVALID, "X-Nexus-Priority must be batch, normal or interactive");
}

/* Before anything else is done for it: what would be refused however urgent it turns out to be.  Who knows its agent and its session
   looks again (principal_priority). */
static bool shed(struct api_call *call, struct error *e)
{
    if (!(call->route->flags & (ROUTE_WORK | ROUTE_MAY_WORK)))
        return true;
    return read_priority(call, e) &&
           ((call->route->flags & ROUTE_MAY_WORK) ||
            overload_admits(orchestrator_overload(call->gateway->orchestrator),
                            principal_priority_most(&call->principal), e));
}

bool middleware_limit(struct api_call *call, struct error *e)
{
    if (call->route->flags & ROUTE_UNLIMITED)
        return true;
    if (!shed(call, e))
        return false;
    struct limit limits[RATES_MAX];
    struct rate_view tightest = {0};
    size_t count = request_limits(call, limits);
    bool fits = take_all(call, limits, count, 1, &tightest, e);
    tell_rate(call, &tightest);
    return fits;
}

bool middleware_limit_as(struct api_call *call, const struct principal *principal, struct error *e)
{
    struct limit limits[RATES_MAX];
    struct rate_view tightest = {0};
    size_t count = person_limits(call->gateway, principal, limits);
    bool fits = take_all(call, limits, count, 1, &tightest, e);
    tell_rate(call, &tightest);
    return fits;
}

bool middleware_take_tokens(struct api_call *call, int64_t tokens, struct error *e)
{
    struct limit limits[RATES_MAX];
    struct rate_view tightest = {0};
    size_t count = token_limits(call->gateway, &call->principal, limits);
    bool fits = take_all(call, limits, count, tokens, &tightest, e);
    if (tightest.limit > 0) {
        struct arena *arena = call->ctx->arena;
        reply_header(call, S("x-ratelimit-limit-tokens"), str_i64(arena, tightest.limit));
        reply_header(call, S("x-ratelimit-remaining-tokens"), str_i64(arena, tightest.remaining));
    }
    return fits;
}

void middleware_correct_tokens(struct gateway *gateway, const struct principal *principal,
                               int64_t difference)
{
    struct limit limits[RATES_MAX];
    size_t count = token_limits(gateway, principal, limits);
    for (size_t i = 0; i < count && difference != 0; i++)
        rate_correct(gateway->rate, &limits[i].subject, difference,
                     clock_monotonic_ns(gateway->clock));
}

bool middleware_take_stream(struct api_call *call, struct error *e)
{
    ensure(!call->is_stream_counted);
    if (!streams_take(call->gateway->streams, call->principal.key_id,
                      call->principal.limits.streams, e))
        return false;
    call->is_stream_counted = true;
    metric_add(call->gateway->streams_open, 1);
    return true;
}

/* ---- the body ---- */

static bool is_json_type(str content_type)
{
    str type, parameters;
    str_cut(content_type, ';', &type, &parameters);
    type = str_trim(type);
    return str_equal_nocase(type, S("application/json")) ||
           (type.len > 17 && str_equal_nocase(str_slice(type, 0, 12), S("application/")) &&
            str_equal_nocase(str_from(type, type.len - 5), S("+json")));
}

static bool check_type(struct api_call *call, struct error *e)
{
    str type = http_request_header(call->request, S("Content-Type"));
    if (is_json_type(type))
        return true;
    return error_set(e, REASON_MEDIA_TYPE,
                     "send the body as Content-Type: application/json, not \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(type, 100)));
}

bool middleware_read_body(struct api_call *call, struct error *e)
{
    enum route_body body = call->route->body;
    if (body != BODY_JSON && body != BODY_CHAT && body != BODY_RPC)
        return true;
    bool is_empty = !call->request->has_body || call->request->content_length == 0;
    if (is_empty && body != BODY_JSON)
        return error_set(e, REASON_INVALID, "the request has no body");
    if (is_empty)
        return true;
    size_t max = body == BODY_CHAT ? GATEWAY_CHAT_BODY_BYTES_MAX : GATEWAY_JSON_BODY_BYTES_MAX;
    if (!check_type(call, e) || !http_request_read_all(call->request, max, &call->body, e))
        return false;
    if (body != BODY_JSON)
        return true;
    struct json_limits limits = {.bytes_max = max, .depth_max = GATEWAY_JSON_DEPTH_MAX};
    if (!json_parse(call->ctx->arena, call->body, limits, &call->json, e))
        return false;
    return (json_type(call->json) == JSON_OBJECT ||
            error_set(e, REASON_SCHEMA, "the body must be a JSON object")) &&
           schema_set_check(call->gateway->schemas, call->ctx->arena, call->route, call->json, e);
}

/* ---- parameters ---- */

bool param_text(struct api_call *call, size_t index, str *out, struct error *e)
{
    if (http_percent_decode(call->ctx->arena, call->params[index], out) && str_is_utf8(*out))
        return true;
    return error_set(e, REASON_INVALID, "the path has a malformed escape");
}

bool param_uuid(struct api_call *call, size_t index, const char *what, uuid *out, struct error *e)
{
    str text;
    if (uuid_parse(call->params[index], out))
        return true;
    if (!param_text(call, index, &text, e))
        return false;
    return error_set(e, REASON_NOT_FOUND, "there is no %s \"" STR_FMT "\": ids are UUIDs", what,
                     STR_ARG(text_made_visible(call->ctx->arena, str_cut_utf8(text, 80))));
}

str query_text(struct api_call *call, str name)
{
    return http_query_get(call->ctx->arena, call->request->query, name);
}

bool query_i64(struct api_call *call, str name, int64_t min, int64_t max, int64_t *out,
               struct error *e)
{
    str text = query_text(call, name);
    int64_t value;
    if (str_is_empty(text))
        return true;
    if (!str_to_i64(text, &value) || value < min || value > max)
        return error_set(e, REASON_INVALID,
                         "?" STR_FMT "= must be a whole number from %lld to %lld", STR_ARG(name),
                         (long long) min, (long long) max);
    *out = value;
    return true;
}

bool query_page(struct api_call *call, str *cursor, size_t *limit, struct error *e)
{
    int64_t wanted = GATEWAY_PAGE_DEFAULT;
    if (!query_i64(call, S("limit"), 1, STORE_PAGE_MAX, &wanted, e))
        return false;
    *limit = (size_t) wanted;
    *cursor = query_text(call, S("cursor"));
    return true;
}
