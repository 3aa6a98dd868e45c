/* Replies: whole documents, errors in the dialect of the route, and the header fields that every reply has. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "gateway/gateway_internal.h"
#include "llm/dialect.h"

void reply_header(struct api_call *call, str name, str value)
{
    http_headers_add(&call->headers, call->ctx->arena, name, value);
}

void reply_call_id(struct api_call *call, uuid id)
{
    reply_header(call, S("Nexus-Call-Id"), uuid_str(call->ctx->arena, id));
}

static char *write_hex(char *to, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
    return to;
}

/* 00-<trace id>-<span id>-<flags> */
static void put_trace(struct api_call *call)
{
    const trace_context *trace = &call->ctx->trace;
    enum { TRACEPARENT_BYTES = 55 };
    char *text = arena_alloc_raw(call->ctx->arena, TRACEPARENT_BYTES), *to = text;
    memcpy(to, "00-", 3);
    to = write_hex(to + 3, trace->trace_id, sizeof trace->trace_id);
    *to++ = '-';
    to = write_hex(to, trace->span_id, sizeof trace->span_id);
    memcpy(to, trace->is_sampled ? "-01" : "-00", 3);
    reply_header(call, S("traceparent"), str_of(text, TRACEPARENT_BYTES));
}

static void put_common(struct api_call *call, str content_type)
{
    if (!str_is_empty(content_type))
        reply_header(call, S("Content-Type"), content_type);
    reply_header(call, S("X-Request-Id"), call->request_id);
    if (call->route && call->route->dialect == ROUTE_ANTHROPIC)
        reply_header(call, S("request-id"), call->request_id); /* what its SDKs read */
    reply_header(call, S("X-Content-Type-Options"), S("nosniff"));
    put_trace(call);
}

void reply_send(struct api_call *call, int status, str content_type, str body)
{
    put_common(call, content_type);
    http_reply(call->request, status, &call->headers, body);
}

void reply_json(struct api_call *call, int status, str body)
{
    idempotency_finish(call, status, body);
    reply_send(call, status, S("application/json"), body);
}

void reply_empty(struct api_call *call, int status)
{
    idempotency_finish(call, status, STR_NONE);
    reply_send(call, status, STR_NONE, STR_NONE);
}

bool reply_stream_begin(struct api_call *call, str content_type, struct error *e)
{
    put_common(call, content_type);
    return http_reply_begin(call->request, 200, &call->headers, e);
}

/* ---- errors ---- */

static void write_problem(struct json_writer *w, struct api_call *call, const struct error *e,
                          int status)
{
    struct arena *arena = call->ctx->arena;
    json_object_begin(w);
    json_put_str(w, S("type"),
                 str_printf(arena, "https://nexus.invalid/problems/%s", error_problem(e->reason)));
    json_put_str(w, S("title"), str_from_cstr(error_title(e->reason)));
    json_put_i64(w, S("status"), status);
    json_put_str(w, S("detail"), str_from_cstr(e->message));
    json_put_str(w, S("instance"), str_cut_utf8(call->request->path, 1024));
    json_put_str(w, S("request_id"), call->request_id);
    if (e->retry_after_ms > 0)
        json_put_i64(w, S("retry_after_ms"), e->retry_after_ms);
    json_object_end(w);
}

static void put_error_headers(struct api_call *call, const struct error *e, int status)
{
    struct arena *arena = call->ctx->arena;
    bool is_mcp = call->route && call->route->dialect == ROUTE_MCP;
    if (status == 401)
        reply_header(call, S("WWW-Authenticate"),
                     is_mcp ? mcp_challenge(call) : S("Bearer realm=\"nexus\""));
    if (status == 402)
        reply_header(call, S("x-should-retry"), S("false"));
    if (e->retry_after_ms > 0)
        reply_header(call, S("Retry-After"),
                     str_printf(arena, "%lld", (long long) (e->retry_after_ms + 999) / 1000));
    else if (status == 503)
        reply_header(call, S("Retry-After"), S("1"));
}

/* Whose error body it is; NULL: the native API's. */
static const struct dialect *dialect_of_errors(const struct api_call *call)
{
    enum route_dialect dialect = ROUTE_NATIVE;
    if (call->route)
        dialect = call->route->dialect;
    else if (str_starts_with(call->request->path, S("/v1/messages")))
        dialect = ROUTE_ANTHROPIC;
    else if (str_starts_with(call->request->path, S("/v1/")))
        dialect = ROUTE_OPENAI;
    switch (dialect) {
    case ROUTE_NATIVE: return NULL;
    case ROUTE_OPENAI: return &openai_chat_dialect;
    case ROUTE_ANTHROPIC: return &anthropic_messages_dialect;
    case ROUTE_MCP: break;
    }
    return NULL;
}

void reply_error(struct api_call *call, const struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    const struct dialect *dialect = dialect_of_errors(call);
    int status = error_http_status(e->reason);
    if (dialect && e->reason == REASON_SCHEMA)
        status = 400; /* what their own servers say to a malformed request */
    if (str_is_empty(call->request_id))
        call->request_id = S("none");
    if (call->route && call->route->dialect == ROUTE_MCP) {
        put_error_headers(call, e, status);
        mcp_reply_refusal(call, e, status);
        return;
    }
    strbuf_init(&text, call->ctx->arena, 64u << 10);
    json_writer_init(&w, &text);
    if (dialect)
        dialect->write_error(&w, e, call->request_id);
    else
        write_problem(&w, call, e, status);
    put_error_headers(call, e, status);
    reply_send(call, status, dialect ? S("application/json") : S("application/problem+json"),
               strbuf_str(&text));
}

/* ---- documents ---- */

struct json_writer *reply_writer_init(struct reply_writer *writer, struct api_call *call)
{
    strbuf_init(&writer->text, call->ctx->arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&writer->w, &writer->text);
    return &writer->w;
}

bool reply_writer_send(struct reply_writer *writer, struct api_call *call, int status,
                       struct error *e)
{
    if (strbuf_is_over(&writer->text))
        return error_set(e, REASON_TOO_LARGE, "the answer is over %u bytes; ask for fewer items",
                         GATEWAY_REPLY_BYTES_MAX);
    reply_json(call, status, strbuf_str(&writer->text));
    return true;
}

void put_id(struct json_writer *w, str name, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    json_key(w, name);
    if (uuid_is_none(id)) {
        json_write_null(w);
        return;
    }
    uuid_format(id, text);
    json_write_str(w, str_of(text, UUID_TEXT_BYTES));
}

void put_time(struct json_writer *w, str name, int64_t us)
{
    char text[TIME_TEXT_BYTES + 1];
    json_key(w, name);
    if (us == 0) {
        json_write_null(w);
        return;
    }
    time_format(us, text);
    json_write_str(w, str_of(text, TIME_TEXT_BYTES));
}

bool reply_page(struct api_call *call, const struct records *rows, write_item *write,
                struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    for (size_t i = 0; i < rows->count; i++)
        if (!write(call, w, &rows->items[i], e))
            return false;
    json_array_end(w);
    json_key(w, S("next_cursor"));
    if (str_is_empty(rows->next_cursor))
        json_write_null(w);
    else
        json_write_str(w, rows->next_cursor);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- text that must not deceive ---- */

static size_t utf8_length(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static uint32_t decode(str s)
{
    const unsigned char *p = (const unsigned char *) s.ptr;
    switch (s.len) {
    case 2: return (uint32_t) (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    case 3: return (uint32_t) (p[0] & 0x0f) << 12 | (uint32_t) (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    case 4:
        return (uint32_t) (p[0] & 0x07) << 18 | (uint32_t) (p[1] & 0x3f) << 12 |
               (uint32_t) (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    default: return p[0];
    }
}

/* Controls, bidirectional marks and isolates, zero-width and other invisible characters, line and paragraph separators, tags. */
static bool deceives(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
           (c >= 0x180b && c <= 0x180e) || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           (c >= 0xfe00 && c <= 0xfe0f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

str text_made_visible(struct arena *arena, str text)
{
    struct strbuf out;
    if (!str_is_utf8(text))
        return S("(not text)");
    strbuf_init(&out, arena, 12 * text.len + 16);
    for (size_t at = 0; at < text.len;) {
        str piece = str_slice(text, at, at + utf8_length((unsigned char) text.ptr[at]));
        uint32_t c = decode(piece);
        at += piece.len;
        if (deceives(c))
            strbuf_printf(&out, "\\u{%x}", c);
        else
            strbuf_add(&out, piece);
    }
    return strbuf_str(&out);
}
