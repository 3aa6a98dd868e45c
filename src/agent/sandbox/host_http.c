#include "agent/sandbox/host_http.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "net/egress.h"
#include "net/inflate.h"
#include "runtime/loop.h"

static bool read_headers(struct arena *arena, const struct json *input,
                         struct http_headers *headers, struct error *e)
{
    const struct json *object = json_get(input, S("headers")), *item;
    if (object && json_type(object) != JSON_OBJECT && json_type(object) != JSON_NULL)
        return error_set(e, REASON_SCHEMA, "headers must be an object of texts");
    if (json_count(object) > HOST_HTTP_HEADERS_MAX)
        return error_set(e, REASON_LIMIT, "at most %u headers", HOST_HTTP_HEADERS_MAX);
    str name, value;
    struct json_iter it = json_iter(object);
    while (json_next(&it, &name, &item)) {
        if (!json_to_str(item, &value) || !http_header_is_safe(name, value))
            return error_set(e, REASON_SCHEMA, "header " STR_FMT " is not one line of text",
                             STR_ARG(str_cut_utf8(name, 60)));
        if (egress_header_is_reserved(name))
            return error_set(e, REASON_PERMISSION, "header " STR_FMT " cannot be set by a tool",
                             STR_ARG(str_cut_utf8(name, 60)));
        http_headers_add(headers, arena, name, value);
    }
    return true;
}

/* Bytes that are no text come as base64. */
static bool read_body_input(struct arena *arena, const struct json *input, str *out,
                            struct error *e)
{
    bool is_base64 = false;
    if (!json_read_str(input, S("body"), out, e) ||
        !json_read_bool(input, S("body_base64"), &is_base64, e))
        return false;
    if (is_base64 && !base64_decode(arena, *out, out))
        return error_set(e, REASON_SCHEMA, "\"body\" is no base64, which \"body_base64\" says");
    return true;
}

static bool read_request(struct context *ctx, const struct tool_request *call, str input_json,
                         struct http_headers *headers, struct egress_request *out, struct error *e)
{
    const struct json *input;
    str method = S("GET");
    if (!json_parse(ctx->arena, input_json, (struct json_limits){0}, &input, e) ||
        !json_need_str(input, S("url"), &out->url, e) ||
        !json_read_str(input, S("method"), &method, e) ||
        !read_body_input(ctx->arena, input, &out->body, e))
        return false;
    if (!http_method_parse(method, &out->method))
        return error_set(e, REASON_SCHEMA, "method " STR_FMT " is not known",
                         STR_ARG(str_cut_utf8(method, 20)));
    if (!read_headers(ctx->arena, input, headers, e))
        return false;
    bool is_safe = out->method == HTTP_GET || out->method == HTTP_HEAD;
    if (!is_safe && !str_is_empty(call->effect_key))
        http_headers_add(headers, ctx->arena, S("Idempotency-Key"), call->effect_key);
    if (str_is_empty(http_headers_get(headers, S("User-Agent"))))
        http_headers_add(headers, ctx->arena, S("User-Agent"), S("nexus"));
    if (str_is_empty(http_headers_get(headers, S("Accept-Encoding"))))
        http_headers_add(headers, ctx->arena, S("Accept-Encoding"), S("gzip, deflate"));
    out->headers = headers;
    return true;
}

static bool make_rules(const struct tool *tool, struct egress_rules **out, struct error *e)
{
    const struct permissions *permissions = &tool->permissions;
    bool is_code = str_equal(tool->category, S("code"));
    if (!permissions->network.is_set || (is_code && !permissions->network_access))
        return error_set(e, REASON_PERMISSION, "tool " STR_FMT " has no access to the network",
                         STR_ARG(tool->name));
    struct egress_options options = {
        .allowed_hosts = permissions->network.allowed_hosts.items,
        .allowed_host_count = permissions->network.allowed_hosts.count,
        .blocked_ips = permissions->network.blocked_ips.items,
        .blocked_ip_count = permissions->network.blocked_ips.count,
        .allowed_ips = permissions->network.allowed_ips.items,
        .allowed_ip_count = permissions->network.allowed_ips.count,
    };
    return egress_rules_create(&options, out, e);
}

/* ---- the answer ---- */

/* Up to `max` bytes, its content coding undone; *is_truncated says that there were more. */
may_suspend static bool read_body(struct http_exchange *exchange, struct context *ctx,
                                  struct inflate *inflate, size_t max, str *out, bool *is_truncated,
                                  struct error *e)
{
    struct strbuf body;
    strbuf_init(&body, ctx->arena, max);
    while (!*is_truncated) {
        str piece;
        if (!http_exchange_read(exchange, ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            break;
        if (inflate) {
            if (!inflate_piece(inflate, piece, &body, is_truncated, e))
                return false;
            continue;
        }
        size_t room = max - body.len;
        strbuf_add(&body, str_slice(piece, 0, room));
        *is_truncated = piece.len > room;
    }
    if (inflate && !*is_truncated && !inflate_is_complete(inflate))
        return error_set(e, REASON_UNAVAILABLE, "the answer's compressed body ends too early");
    *out = strbuf_str(&body);
    return true;
}

static bool is_first_of_name(const struct http_headers *headers, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (str_equal_nocase(headers->items[i].name, headers->items[index].name))
            return false;
    return true;
}

static bool is_kept_here(str name, bool is_decoded)
{
    return str_equal_nocase(name, S("Set-Cookie")) ||
           (is_decoded && (str_equal_nocase(name, S("Content-Encoding")) ||
                           str_equal_nocase(name, S("Content-Length"))));
}

/* One member per name, lower case; repeated fields are joined.  Cookies stay here: a tool could not
   send them back anyway; so does what spoke of the body before it was decoded. */
static void write_headers(struct json_writer *w, struct arena *arena,
                          const struct http_headers *headers, bool is_decoded)
{
    json_object_begin(w);
    for (size_t i = 0; i < headers->count; i++) {
        str name = headers->items[i].name;
        struct strbuf value;
        if (is_kept_here(name, is_decoded) || !is_first_of_name(headers, i))
            continue;
        strbuf_init(&value, arena, HTTP_HEAD_BYTES_MAX);
        for (size_t j = i; j < headers->count; j++) {
            if (!str_equal_nocase(headers->items[j].name, name))
                continue;
            if (j > i)
                strbuf_add(&value, S(", "));
            strbuf_add(&value, headers->items[j].value);
        }
        json_put_str(w, str_lower(arena, name), strbuf_str(&value));
    }
    json_object_end(w);
}

/* The body as text, without the character that the cut may have split; false when it is none. */
static bool as_text(str body, bool is_truncated, str *text)
{
    size_t cut_max = is_truncated ? 3 : 0;
    for (size_t cut = 0; cut <= cut_max && cut <= body.len; cut++) {
        *text = str_slice(body, 0, body.len - cut);
        if (str_is_utf8(*text))
            return true;
    }
    return false;
}

struct answer {
    struct http_exchange *exchange;
    str url, body;
    bool is_truncated, is_decoded;
};

static bool write_answer(struct arena *arena, const struct answer *answer, str *out,
                         struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    str readable;
    bool is_text = as_text(answer->body, answer->is_truncated, &readable);
    strbuf_init(&text, arena, SANDBOX_HOST_CALL_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_i64(&w, S("status"), http_exchange_status(answer->exchange));
    json_key(&w, S("headers"));
    write_headers(&w, arena, http_exchange_headers(answer->exchange), answer->is_decoded);
    json_put_str(&w, S("body"), is_text ? readable : base64_encode(arena, answer->body));
    if (!is_text)
        json_put_bool(&w, S("body_base64"), true);
    json_put_bool(&w, S("truncated"), answer->is_truncated);
    json_put_str(&w, S("url"), answer->url);
    json_object_end(&w);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE,
                         "the answer is over %u MiB as JSON: lower max_response_size",
                         SANDBOX_HOST_CALL_BYTES_MAX >> 20);
    *out = strbuf_str(&text);
    return true;
}

may_suspend static bool send_request(struct host_http *http, struct context *ctx,
                                     const struct tool_request *call, str input_json,
                                     str *output_json, struct error *e)
{
    OWNED(egress_rules) rules = NULL;
    OWNED(http_exchange) exchange = NULL;
    struct http_headers headers = {0};
    struct egress_request request = {0};
    struct answer answer = {0};
    const struct permissions *permissions = &call->tool->permissions;
    struct http_client *client = http->client(http->owner, loop_current());
    if (!client)
        return error_set(e, REASON_UNAVAILABLE, "this node makes no outside calls");
    if (!make_rules(call->tool, &rules, e) ||
        !read_request(ctx, call, input_json, &headers, &request, e))
        return false;
    request.first_byte_timeout_ms = permissions->network.timeout_ms;
    if (!egress_send(rules, client, ctx, &request, &exchange, &answer.url, e))
        return false;
    int64_t max = permissions->network.max_response_bytes;
    if (max <= 0 || max > (int64_t) HOST_HTTP_BODY_BYTES_MAX)
        max = HOST_HTTP_BODY_BYTES_MAX;
    bool has_body = request.method != HTTP_HEAD;
    OWNED(inflate) inflate = has_body ? inflate_create(http_headers_get(
                                            http_exchange_headers(exchange), S("Content-Encoding")))
                                      : NULL;
    if (!read_body(exchange, ctx, inflate, (size_t) max, &answer.body, &answer.is_truncated, e))
        return false;
    answer.exchange = exchange;
    answer.is_decoded = inflate != NULL;
    return write_answer(ctx->arena, &answer, output_json, e);
}

may_suspend static bool run(void *owner, struct context *ctx, const struct tool_request *request,
                            str input_json, str *output_json, struct error *e)
{
    int64_t timeout_ms = request->tool->permissions.network.timeout_ms;
    struct context limited;
    context_init_child(&limited, ctx,
                       timeout_ms > 0 ? context_deadline_in(ctx, timeout_ms) : DEADLINE_NONE);
    bool is_ok = send_request(owner, &limited, request, input_json, output_json, e);
    context_deinit(&limited);
    return is_ok || error_wrap(e, "http_request");
}

struct host_call host_http(struct host_http *http)
{
    return (struct host_call){.name = "http_request", .run = run, .owner = http};
}
