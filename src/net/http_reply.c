#include "net/http_server_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

/* An open chunk's size is written when it closes: room for four hexadecimal digits and CRLF. */
enum { CHUNK_HEAD_BYTES = 6 };
static_assert(CHUNK_FRAMING_BYTES == CHUNK_HEAD_BYTES + 2, "and CRLF behind it");

static struct http_job *job_of(const struct http_request *request)
{
    return request->connection->job;
}

/* ---- the request's body ---- */

str http_request_header(const struct http_request *request, str name)
{
    return http_headers_get(&request->headers, name);
}

/* Decodes what is there.  False: malformed. */
static bool decode_input(struct http_job *job, str *piece, struct error *e)
{
    size_t consumed = 0;
    struct buffer *input = &job->input;
    enum http_parse_event event = http_parser_body(&job->parser, input->ptr + input->from,
                                                   buffer_len(input), &consumed, piece);
    input->from += (uint32_t) consumed;
    job->is_body_done = event == HTTP_PARSE_DONE;
    if (event != HTTP_PARSE_FAILED)
        return true;
    job->is_body_broken = true;
    return error_set(e, job->parser.reason, "request body: %s", job->parser.problem);
}

static void answer_expectation(struct http_connection *c)
{
    struct http_job *job = c->job;
    if (!job->is_continue_due)
        return;
    job->is_continue_due = false;
    if (http_connection_append(c, S("HTTP/1.1 100 Continue\r\n\r\n")))
        (void) http_connection_flush(c);
}

bool http_request_read(struct http_request *request, str *piece, struct error *e)
{
    struct http_connection *c = request->connection;
    struct http_job *job = c->job;
    *piece = STR_NONE;
    for (;;) {
        if (job->is_body_done)
            return true;
        if (job->is_body_broken)
            return error_set(e, REASON_HTTP_SYNTAX, "the request body is broken");
        if (!context_check(&job->ctx, e))
            return false;
        if (buffer_len(&job->input) > 0) {
            if (!decode_input(job, piece, e))
                return false;
            if (piece->len > 0)
                return true;
            continue;
        }
        answer_expectation(c);
        if (!http_connection_receive(c, e))
            return false;
    }
}

static bool too_large(size_t max, struct error *e)
{
    return error_set(e, REASON_TOO_LARGE, "the request body is larger than %zu bytes", max);
}

static bool read_known_length(struct http_request *request, size_t length, str *body,
                              struct error *e)
{
    char *bytes = arena_alloc(request->ctx->arena, length);
    size_t used = 0;
    for (;;) {
        str piece;
        if (!http_request_read(request, &piece, e))
            return false;
        if (piece.len == 0)
            break;
        memcpy(bytes + used, piece.ptr, piece.len);
        used += piece.len;
    }
    *body = str_of(bytes, used);
    return true;
}

bool http_request_read_all(struct http_request *request, size_t max, str *body, struct error *e)
{
    struct http_job *job = job_of(request);
    if (request->content_length >= 0 && (uint64_t) request->content_length > max)
        return too_large(max, e);
    if (!job->input.is_pooled && !job->is_body_done && request->content_length >= 0 &&
        buffer_len(&job->input) >= job->parser.body_left)
        return http_request_read(request, body, e); /* came with the head, lies on the arena */
    if (request->content_length >= 0)
        return read_known_length(request, (size_t) request->content_length, body, e);
    char *bytes = NULL;
    size_t used = 0, capacity = 0;
    for (;;) {
        str piece;
        if (!http_request_read(request, &piece, e))
            return false;
        if (piece.len == 0)
            break;
        if (piece.len > max - used)
            return too_large(max, e);
        if (used + piece.len > capacity) {
            size_t larger = (used + piece.len) * 2 < max ? (used + piece.len) * 2 : max;
            bytes = arena_grow(request->ctx->arena, bytes, capacity, larger);
            capacity = larger;
        }
        memcpy(bytes + used, piece.ptr, piece.len);
        used += piece.len;
    }
    *body = str_of(bytes, used);
    return true;
}

/* ---- heads ---- */

const char *http_shard_date(struct http_shard *shard)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int64_t second = clock_unix_us(shard->clock) / 1000000;
    if (second != shard->date_second) {
        time_t now = (time_t) second;
        struct tm t;
        gmtime_r(&now, &t);
        snprintf(shard->date, sizeof(shard->date), "%s, %02d %s %04d %02d:%02d:%02d GMT",
                 days[t.tm_wday], t.tm_mday, months[t.tm_mon], t.tm_year + 1900, t.tm_hour,
                 t.tm_min, t.tm_sec);
        shard->date_second = second;
    }
    return shard->date;
}

struct head_writer {
    char *ptr;
    size_t len;
    bool is_over;
};

static void put(struct head_writer *w, str s)
{
    if (s.len > HTTP_REPLY_HEAD_BYTES_MAX - w->len) {
        w->is_over = true;
        return;
    }
    memcpy(w->ptr + w->len, s.ptr, s.len);
    w->len += s.len;
}

static void put_number(struct head_writer *w, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char) ('0' + value % 10);
        value /= 10;
    } while (value);
    put(w, str_of(digits + at, sizeof(digits) - at));
}

static void put_status(struct head_writer *w, struct http_shard *shard, int status)
{
    if (status == 200) {
        put(w, S("HTTP/1.1 200 OK\r\nDate: "));
    } else {
        put(w, S("HTTP/1.1 "));
        put_number(w, (uint64_t) status);
        put(w, S(" "));
        put(w, str_from_cstr(http_status_text(status)));
        put(w, S("\r\nDate: "));
    }
    put(w, str_of(http_shard_date(shard), 29));
    put(w, S("\r\n"));
}

/* The fields that say how the message is framed are the server's alone. */
static bool is_servers_own(str name)
{
    switch (name.len) {
    case 4: return str_equal_nocase(name, S("date"));
    case 10:
        return str_equal_nocase(name, S("connection")) || str_equal_nocase(name, S("keep-alive"));
    case 14: return str_equal_nocase(name, S("content-length"));
    case 17: return str_equal_nocase(name, S("transfer-encoding"));
    default: return false;
    }
}

static bool put_headers(struct head_writer *w, const struct http_headers *headers)
{
    for (size_t i = 0; headers && i < headers->count; i++) {
        str name = headers->items[i].name, value = headers->items[i].value;
        if (is_servers_own(name))
            continue;
        if (!http_header_is_safe(name, value))
            return false;
        put(w, name);
        put(w, S(": "));
        put(w, value);
        put(w, S("\r\n"));
    }
    return true;
}

bool http_status_has_no_body(int status)
{
    return status == 204 || status == 304 || status < 200;
}

enum { LENGTH_CHUNKED = -1, LENGTH_UNTIL_CLOSE = -2 };

/* The head in the shard's buffer; length: of the body, or one of the above.  False: a header that
   must not be sent. */
static bool compose_head(struct http_connection *c, int status, const struct http_headers *headers,
                         int64_t length, str *out)
{
    struct http_job *job = c->job;
    struct head_writer w = {.ptr = c->shard->head_buffer};
    put_status(&w, c->shard, status);
    if (!put_headers(&w, headers))
        return false;
    if (http_status_has_no_body(status)) {
        /* neither length nor coding */
    } else if (length >= 0) {
        put(&w, S("Content-Length: "));
        put_number(&w, (uint64_t) length);
        put(&w, S("\r\n"));
    } else if (length == LENGTH_CHUNKED) {
        put(&w, S("Transfer-Encoding: chunked\r\n"));
    }
    if (!job->keeps_alive)
        put(&w, S("Connection: close\r\n"));
    else if (job->is_http10)
        put(&w, S("Connection: keep-alive\r\n"));
    put(&w, S("\r\n"));
    *out = str_of(w.ptr, w.len);
    return !w.is_over;
}

str http_reply_refusal(struct http_shard *shard, enum error_reason reason, const char *problem)
{
    char body[512];
    int status = error_http_status(reason);
    /* problem is static text of ours or of the parser's, without quotes or backslashes but for
       known ones */
    size_t len =
        (size_t) snprintf(body, sizeof(body),
                          "{\"type\":\"https://nexus.invalid/problems/%s\",\"title\":\"%s\","
                          "\"status\":%d,\"detail\":\"",
                          error_problem(reason), error_title(reason), status);
    for (const char *at = problem; *at && len < sizeof(body) - 4; at++) {
        char ch = *at;
        body[len++] = (unsigned char) ch < 0x20 || ch == 0x7f ? ' '
                      : ch == '"' || ch == '\\'               ? '\''
                                                              : ch;
    }
    body[len++] = '"';
    body[len++] = '}';
    struct head_writer w = {.ptr = shard->head_buffer};
    put_status(&w, shard, status);
    put(&w, S("Content-Type: application/problem+json\r\nConnection: close\r\nContent-Length: "));
    put_number(&w, len);
    put(&w, S("\r\n\r\n"));
    put(&w, str_of(body, len));
    return str_of(w.ptr, w.len);
}

/* ---- whole replies ---- */

static void begin(struct http_job *job, int status)
{
    ensure(!job->has_begun && status >= 200 && status <= 599);
    job->has_begun = true;
    job->status = status;
}

static void decide_keep_alive(struct http_connection *c)
{
    struct http_job *job = c->job;
    if (c->shard->is_draining || job->is_body_broken ||
        (job->is_continue_due && !job->is_body_done))
        job->keeps_alive = false;
}

/* Tries the kernel first; what it does not take waits on the request's arena. */
static void send_whole(struct http_connection *c, str head, str body)
{
    struct iovec parts[2] = {
        {(void *) (uintptr_t) head.ptr, head.len},
        {(void *) (uintptr_t) body.ptr, body.len},
    };
    while (http_connection_pending(c) == 0) {
        ssize_t count = http_transport_send(c, parts);
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            http_connection_cut(c);
            return;
        }
        size_t from_head = (size_t) count < head.len ? (size_t) count : head.len;
        head = str_from(head, from_head);
        body = str_from(body, (size_t) count - from_head);
        if (head.len + body.len == 0)
            return;
        parts[0] = (struct iovec){(void *) (uintptr_t) head.ptr, head.len};
        parts[1] = (struct iovec){(void *) (uintptr_t) body.ptr, body.len};
    }
    char *rest = arena_alloc_raw(c->job->arena, head.len + body.len);
    if (head.len)
        memcpy(rest, head.ptr, head.len);
    if (body.len)
        memcpy(rest + head.len, body.ptr, body.len);
    c->job->rest = str_of(rest, head.len + body.len);
    (void) http_connection_flush(c);
}

void http_reply(struct http_request *request, int status, const struct http_headers *headers,
                str body)
{
    struct http_connection *c = request->connection;
    struct http_job *job = c->job;
    begin(job, status);
    job->is_ended = true;
    if (c->state == CONNECTION_CLOSED)
        return;
    decide_keep_alive(c);
    str head;
    if (!compose_head(c, status, headers, (int64_t) body.len, &head)) {
        struct error e;
        error_set(&e, REASON_INTERNAL,
                  "a reply to " STR_FMT " has a header field that must not be sent",
                  STR_ARG(request->path));
        LOG_ERROR("net.http_server", S("unsafe reply head"), &e);
        job->status = status = 500;
        body = STR_NONE;
        ensure(compose_head(c, status, NULL, 0, &head));
    }
    if (request->method == HTTP_HEAD || http_status_has_no_body(status))
        body = STR_NONE;
    send_whole(c, head, body);
}

/* ---- streamed replies ---- */

bool http_reply_begin(struct http_request *request, int status, const struct http_headers *headers,
                      struct error *e)
{
    struct http_connection *c = request->connection;
    struct http_job *job = c->job;
    ensure(!job->has_begun);
    if (c->state == CONNECTION_CLOSED)
        return error_set(e, REASON_CANCELLED, "the client went away");
    decide_keep_alive(c);
    if (job->is_http10)
        job->keeps_alive = false;
    str head;
    if (!compose_head(c, status, headers, job->is_http10 ? LENGTH_UNTIL_CLOSE : LENGTH_CHUNKED,
                      &head))
        return error_set(e, REASON_INTERNAL, "the reply has a header field that must not be sent");
    if (!http_connection_append(c, head))
        return error_set(e, REASON_INTERNAL, "no room for the reply's head");
    begin(job, status);
    job->is_streamed = true;
    loop_at_turn_end(c->shard->loop, &c->turn_end);
    return true;
}

static bool is_chunked(const struct http_request *request)
{
    return !job_of(request)->is_http10;
}

void http_reply_close_chunk(struct http_connection *c)
{
    static const char digits[] = "0123456789abcdef";
    char *at = c->output.ptr + c->chunk_at;
    size_t size = c->output.to - c->chunk_at - CHUNK_HEAD_BYTES;
    at[0] = digits[size >> 12 & 15];
    at[1] = digits[size >> 8 & 15];
    at[2] = digits[size >> 4 & 15];
    at[3] = digits[size & 15];
    at[4] = '\r';
    at[5] = '\n';
    c->chunk_at = CHUNK_NONE;
    ensure(http_connection_append(c, S("\r\n")));
}

void http_reply_append_chunked(struct http_connection *c, str bytes)
{
    if (c->chunk_at != CHUNK_NONE &&
        c->output.to - c->chunk_at - CHUNK_HEAD_BYTES + bytes.len > CHUNK_BYTES_MAX)
        http_reply_close_chunk(c);
    if (c->chunk_at == CHUNK_NONE) {
        ensure(http_connection_append(c, S("0000\r\n")));
        c->chunk_at = c->output.to - CHUNK_HEAD_BYTES;
    }
    ensure(http_connection_append(c, bytes));
}

/* Waits until at most `pending_max` bytes wait for the peer. */
static bool wait_for_room(struct http_connection *c, size_t pending_max, struct error *e)
{
    struct http_job *job = c->job;
    while (c->state != CONNECTION_CLOSED && http_connection_pending(c) > pending_max) {
        struct waiter waiter;
        waiter_init(&waiter, &job->ctx);
        job->writer = &waiter;
        bool is_woken = waiter_wait(&waiter, e);
        job->writer = NULL;
        if (!is_woken)
            return false;
    }
    if (c->state == CONNECTION_CLOSED)
        return error_set(e, REASON_CANCELLED, "the client went away");
    return true;
}

bool http_reply_write(struct http_request *request, str bytes, struct error *e)
{
    struct http_connection *c = request->connection;
    ensure(c->job->is_streamed && !c->job->is_ended);
    if (c->state == CONNECTION_CLOSED)
        return error_set(e, REASON_CANCELLED, "the client went away");
    if (request->method == HTTP_HEAD || http_status_has_no_body(c->job->status))
        return true;
    while (bytes.len > 0) {
        size_t pending = http_connection_pending(c);
        size_t room = pending < HTTP_WRITE_BUFFER_BYTES ? HTTP_WRITE_BUFFER_BYTES - pending : 0;
        size_t take = bytes.len < room ? bytes.len : room;
        if (take > CHUNK_BYTES_MAX) /* one chunk's size has four digits */
            take = CHUNK_BYTES_MAX;
        if (take > 0 && is_chunked(request))
            http_reply_append_chunked(c, str_slice(bytes, 0, take));
        else if (take > 0)
            ensure(http_connection_append(c, str_slice(bytes, 0, take)));
        bytes = str_from(bytes, take);
        if (http_connection_pending(c) < WRITE_AT_ONCE_BYTES) {
            loop_at_turn_end(c->shard->loop, &c->turn_end);
        } else if (!http_connection_flush(c)) {
            return error_set(e, REASON_CANCELLED, "the client went away");
        } else if (http_connection_pending(c) >= HTTP_WRITE_BUFFER_BYTES &&
                   !wait_for_room(c, HTTP_WRITE_BUFFER_BYTES / 2, e)) {
            return false;
        }
    }
    return true;
}

bool http_reply_flush(struct http_request *request, struct error *e)
{
    struct http_connection *c = request->connection;
    if (!http_connection_flush(c))
        return error_set(e, REASON_CANCELLED, "the client went away");
    return wait_for_room(c, 0, e);
}

void http_reply_end(struct http_request *request)
{
    struct http_connection *c = request->connection;
    struct http_job *job = c->job;
    ensure(job->is_streamed && !job->is_ended);
    job->is_ended = true;
    if (c->state == CONNECTION_CLOSED)
        return;
    bool has_body = request->method != HTTP_HEAD && !http_status_has_no_body(job->status);
    if (has_body && is_chunked(request)) {
        if (c->chunk_at != CHUNK_NONE)
            http_reply_close_chunk(c);
        ensure(http_connection_append(c, S("0\r\n\r\n")));
    }
    (void) http_connection_flush(c);
}

void http_reply_abort(struct http_request *request)
{
    struct http_connection *c = request->connection;
    struct http_job *job = c->job;
    ensure(job->is_streamed && !job->is_ended);
    job->is_ended = true;
    if (c->state == CONNECTION_CLOSED)
        return;
    job->keeps_alive = false;
    if (is_chunked(request)) {
        if (!http_connection_flush(c)) /* what was written arrives; the missing last chunk tells */
            return;
    } else { /* without chunks only a reset tells */
        http_transport_spoil(c);
    }
    http_connection_cut(c);
}

bool http_reply_has_begun(const struct http_request *request)
{
    return job_of(request)->has_begun;
}

bool http_reply_is_done(const struct http_request *request)
{
    return job_of(request)->is_ended;
}

int http_reply_status(const struct http_request *request)
{
    return job_of(request)->status;
}
