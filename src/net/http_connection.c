#include "net/http_relay_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A relay's bound and the framing of what it is reached with. */
enum { OUTPUT_BYTES_MAX = HTTP_RELAY_OUTPUT_BYTES_MAX + 4096 };

static const char interim_reply[] = "HTTP/1.1 100 Continue\r\n\r\n";

static void on_head_bytes(struct http_connection *c, const char *bytes, size_t len);
static void on_readable(struct http_connection *c);

static int64_t now_ns(const struct http_connection *c)
{
    return clock_monotonic_ns(c->shard->clock);
}

static const struct http_server_options *options_of(const struct http_connection *c)
{
    return &c->shard->server->options;
}

/* ---- deadlines: the timer is moved only when it would fire too late ---- */

static void set_deadline(struct http_connection *c, int64_t deadline_ns)
{
    c->deadline_ns = deadline_ns;
    if (deadline_ns != DEADLINE_NONE &&
        (c->timer.heap_index == 0 || c->timer.deadline_ns > deadline_ns))
        timer_arm(c->shard->scheduler, &c->timer, deadline_ns);
}

static void set_deadline_in(struct http_connection *c, int64_t ms)
{
    set_deadline(c, now_ns(c) + ms * 1000000);
}

/* ---- socket events ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

void http_connection_watch(struct http_connection *c)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    int events = 0;
    bool is_full = (c->job && c->job->is_input_full) || (c->relay && c->relay->is_ahead_full);
    if (!c->is_input_ended && !is_full)
        events |= UV_READABLE;
    if (c->is_blocked)
        events |= UV_WRITABLE;
    if (events == 0)
        events = UV_PRIORITIZED; /* nothing to do but to hear of errors */
    if ((events & UV_READABLE) && http_transport_has_pending(c))
        loop_at_turn_end(c->shard->loop, &c->turn_end);
    if (events == c->poll_events)
        return;
    c->poll_events = events;
    uv_poll_start(&c->poll, events, on_poll);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_connection *c = handle->data;
    struct http_shard *shard = c->shard;
    c->is_handle_closed = true;
    if (c->job)
        return; /* the handler still runs; settling comes here again */
    list_remove(&c->link);
    list_remove(&c->turn_end.link);
    free(c);
    http_shard_connection_closed(shard);
}

/* The socket goes at once, the struct when neither libuv nor a handler needs it. */
static void close_socket(struct http_connection *c)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    c->state = CONNECTION_CLOSED;
    timer_disarm(c->shard->scheduler, &c->timer);
    buffer_release(&c->shard->buffers, &c->output);
    uv_close((uv_handle_t *) &c->poll, on_handle_closed);
    http_transport_close(c);
}

void http_connection_close(struct http_connection *c)
{
    close_socket(c);
}

static void release_job(struct http_connection *c)
{
    struct http_job *job = c->job;
    c->job = NULL;
    if (job->request.ctx)
        context_deinit(&job->ctx);
    http_shard_job_give(c->shard, job);
}

static void cut_because(struct http_connection *c, const char *problem)
{
    bool is_handling = c->state == CONNECTION_HANDLING;
    if (c->relay)
        http_relay_client_gone(c->relay, problem);
    close_socket(c);
    struct http_job *job = c->job;
    if (!job)
        return;
    if (!is_handling && !job->request.ctx) { /* a head that never became whole */
        release_job(c);
        return;
    }
    context_cancel(&job->ctx);
    if (job->has_handler_returned)
        http_connection_settle(c);
}

void http_connection_cut(struct http_connection *c)
{
    cut_because(c, "the client went away");
}

void http_connection_shut_down(struct http_connection *c)
{
    if (c->relay)
        http_relay_shut_down(c->relay);
    if (http_connection_flush(c))
        cut_because(c, "the server is shutting down");
}

void http_connection_drain(struct http_connection *c)
{
    if (c->state == CONNECTION_IDLE || c->state == CONNECTION_HANDSHAKE)
        close_socket(c);
}

/* ---- output ---- */

size_t http_connection_pending(const struct http_connection *c)
{
    return buffer_len(&c->output) + (c->job ? c->job->rest.len : 0);
}

bool http_connection_append(struct http_connection *c, str bytes)
{
    uint32_t from = c->output.from;
    size_t max = c->relay ? OUTPUT_BYTES_MAX : BUFFER_LARGE_BYTES;
    if (!buffer_reserve_up_to(&c->shard->buffers, &c->output, bytes.len, max))
        return false;
    if (c->chunk_at != CHUNK_NONE)
        c->chunk_at -= from - c->output.from; /* the bytes may have moved to the front */
    memcpy(c->output.ptr + c->output.to, bytes.ptr, bytes.len);
    c->output.to += (uint32_t) bytes.len;
    return true;
}

static void sent(struct http_connection *c, size_t count)
{
    size_t from_output = count < buffer_len(&c->output) ? count : buffer_len(&c->output);
    c->output.from += (uint32_t) from_output;
    if (count > from_output)
        c->job->rest = str_from(c->job->rest, count - from_output);
    if (c->output.ptr && buffer_len(&c->output) == 0)
        buffer_release(&c->shard->buffers, &c->output);
}

static void wake_writer(struct http_connection *c)
{
    if (c->job && c->job->writer && http_connection_pending(c) <= HTTP_WRITE_BUFFER_BYTES / 2)
        waiter_wake(c->job->writer);
}

static bool is_replying(const struct http_connection *c)
{
    return c->state == CONNECTION_HANDLING || c->state == CONNECTION_RELAYING;
}

bool http_connection_flush(struct http_connection *c)
{
    if (c->state == CONNECTION_CLOSED)
        return false;
    if (c->chunk_at != CHUNK_NONE)
        http_reply_close_chunk(c);
    bool has_progress = false;
    while (http_connection_pending(c) > 0) {
        str rest = c->job ? c->job->rest : STR_NONE;
        struct iovec parts[2] = {
            {c->output.ptr + c->output.from, buffer_len(&c->output)},
            {(void *) (uintptr_t) rest.ptr, rest.len},
        };
        ssize_t count = http_transport_send(c, parts);
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            http_connection_cut(c);
            return false;
        }
        sent(c, (size_t) count);
        has_progress = true;
    }
    if (http_connection_pending(c) > 0) {
        if (has_progress || !c->is_blocked)
            set_deadline_in(c, options_of(c)->write_idle_timeout_ms);
    } else if (is_replying(c) && !c->is_input_ended) {
        set_deadline(c, DEADLINE_NONE);
    }
    c->is_blocked = http_connection_pending(c) > 0;
    http_connection_watch(c);
    wake_writer(c);
    if (c->relay)
        http_relay_drained(c->relay);
    return true;
}

static void on_turn_end(struct turn_end *turn_end)
{
    struct http_connection *c = CONTAINER_OF(turn_end, struct http_connection, turn_end);
    if (!c->is_blocked && http_connection_flush(c)) /* else the loop tells when there is room */
        http_connection_settle(c);
    if (c->state != CONNECTION_CLOSED && (c->poll_events & UV_READABLE) &&
        http_transport_has_pending(c))
        on_readable(c);
}

/* ---- the end of a request ---- */

void http_connection_linger(struct http_connection *c)
{
    c->state = CONNECTION_LINGERING;
    c->linger_bytes = 0;
    http_transport_end_output(c);
    if (c->is_input_ended) {
        close_socket(c);
        return;
    }
    set_deadline_in(c, HTTP_LINGER_MS);
    http_connection_watch(c);
}

/* Answers for a request that gets no handler; what the peer still sends is dropped for a while, so
   that a reset does not destroy the answer on its way. */
static void refuse(struct http_connection *c, enum error_reason reason, const char *problem)
{
    str reply = http_reply_refusal(c->shard, reason, problem);
    struct iovec parts[2] = {{(void *) (uintptr_t) reply.ptr, reply.len}, {NULL, 0}};
    (void) http_transport_send(c, parts);
    if (c->job)
        release_job(c);
    http_connection_linger(c);
}

/* What the peer has sent ahead goes to where a head is parsed from. */
static size_t take_ahead(struct http_connection *c, struct buffer *input)
{
    size_t ahead = buffer_len(input);
    if (ahead)
        memcpy(c->shard->read_buffer, input->ptr + input->from, ahead);
    buffer_release(&c->shard->buffers, input);
    return ahead;
}

static void become_idle(struct http_connection *c, size_t ahead)
{
    if (c->shard->is_draining && !ahead) {
        close_socket(c);
        return;
    }
    c->state = CONNECTION_IDLE;
    set_deadline_in(c, options_of(c)->idle_timeout_ms);
    http_connection_watch(c);
    if (ahead)
        on_head_bytes(c, c->shard->read_buffer, ahead);
    else if (c->is_input_ended)
        close_socket(c);
}

static void next_request(struct http_connection *c)
{
    size_t ahead = take_ahead(c, &c->job->input);
    release_job(c);
    become_idle(c, ahead);
}

/* Decodes and drops what nobody read of the body. */
static void discard(struct http_connection *c)
{
    struct http_job *job = c->job;
    while (!job->is_body_done && buffer_len(&job->input) > 0) {
        size_t consumed = 0;
        str piece;
        enum http_parse_event event =
            http_parser_body(&job->parser, job->input.ptr + job->input.from,
                             buffer_len(&job->input), &consumed, &piece);
        job->input.from += (uint32_t) consumed;
        c->discard_bytes += (uint32_t) consumed;
        job->is_body_done = event == HTTP_PARSE_DONE;
        job->is_body_broken = event == HTTP_PARSE_FAILED;
        if (job->is_body_broken || c->discard_bytes > HTTP_UNREAD_BODY_BYTES_MAX)
            break;
    }
    job->is_input_full = false;
    if (job->is_body_done) {
        next_request(c);
    } else if (job->is_body_broken || c->is_input_ended ||
               c->discard_bytes > HTTP_UNREAD_BODY_BYTES_MAX) {
        release_job(c);
        http_connection_linger(c);
    } else {
        buffer_release(&c->shard->buffers, &job->input);
        http_connection_watch(c);
    }
}

static void settle_relay(struct http_connection *c)
{
    struct http_relay *relay = c->relay;
    if (!relay->is_finished || http_connection_pending(c) > 0)
        return;
    bool is_request_whole = relay->is_request_whole, keeps_alive = relay->keeps_alive;
    bool is_aborted = relay->is_aborted, is_reset = is_aborted && relay->is_http10;
    size_t ahead = take_ahead(c, &relay->ahead);
    http_relay_client_done(relay);
    if (is_reset) /* without chunks only a reset tells */
        http_transport_spoil(c);
    if (keeps_alive && !is_aborted)
        become_idle(c, ahead);
    else if (is_reset || (is_request_whole && ahead == 0))
        close_socket(c);
    else
        http_connection_linger(c);
}

/* After the handler has returned and whenever output drained. */
void http_connection_settle(struct http_connection *c)
{
    struct http_job *job = c->job;
    if (c->state == CONNECTION_RELAYING) {
        settle_relay(c);
        return;
    }
    if (!job || !job->has_handler_returned)
        return;
    if (c->state == CONNECTION_CLOSED) {
        release_job(c);
        if (c->is_handle_closed)
            on_handle_closed((uv_handle_t *) &c->poll);
        return;
    }
    if (c->state != CONNECTION_HANDLING || http_connection_pending(c) > 0)
        return;
    bool is_input_whole = job->is_body_done && buffer_len(&job->input) == 0;
    if (!job->keeps_alive || job->is_body_broken || (!job->is_body_done && job->is_continue_due)) {
        release_job(c);
        if (is_input_whole)
            close_socket(c);
        else
            http_connection_linger(c);
        return;
    }
    if (job->is_body_done) {
        next_request(c);
        return;
    }
    if (job->request.content_length > 0 && job->parser.body_left > HTTP_UNREAD_BODY_BYTES_MAX) {
        release_job(c);
        http_connection_linger(c);
        return;
    }
    c->state = CONNECTION_DISCARDING;
    c->discard_bytes = 0;
    set_deadline_in(c, options_of(c)->body_idle_timeout_ms);
    discard(c);
}

void http_connection_handler_returned(struct http_connection *c)
{
    struct http_job *job = c->job;
    struct error e;
    if (!job->has_begun && c->state != CONNECTION_CLOSED) {
        error_set(&e, REASON_INTERNAL, "the handler of %s " STR_FMT " returned without a reply",
                  http_method_name(job->request.method), STR_ARG(job->request.path));
        LOG_ERROR("net.http_server", S("no reply"), &e);
        http_reply(&job->request, 500, NULL, STR_NONE);
    } else if (job->is_streamed && !job->is_ended && c->state != CONNECTION_CLOSED) {
        error_set(&e, REASON_INTERNAL,
                  "the handler of %s " STR_FMT " returned in the middle of its reply",
                  http_method_name(job->request.method), STR_ARG(job->request.path));
        LOG_ERROR("net.http_server", S("reply not ended"), &e);
        http_reply_abort(&job->request);
    }
    job->has_handler_returned = true;
    if (c->relay) {
        http_relay_take_over(c->relay, job);
        release_job(c);
        c->state = CONNECTION_RELAYING;
        http_connection_watch(c);
    }
    http_connection_settle(c);
}

/* ---- the beginning of a request ---- */

static void serve(void *argument)
{
    struct http_connection *c = argument;
    const struct http_server_options *options = options_of(c);
    options->handler(options->owner, &c->job->request);
    http_connection_handler_returned(c);
}

static void start_request(struct http_connection *c)
{
    struct http_job *job = c->job;
    str bytes = str_of(job->head, job->head_len);
    struct http_request_head head;
    if (!http_parser_take_request(&job->parser, bytes, job->arena, &head)) {
        refuse(c, job->parser.reason, job->parser.problem);
        return;
    }
    job->is_http10 = head.is_http10;
    job->keeps_alive = head.keeps_alive;
    job->is_body_done = !head.has_body;
    job->is_continue_due = head.expects_continue;
    job->input = (struct buffer){job->head, (uint32_t) job->parser.head_bytes,
                                 (uint32_t) job->head_len, (uint32_t) job->head_len, false};
    job->request = (struct http_request){
        .ctx = &job->ctx,
        .connection = c,
        .method = head.method,
        .path = head.path,
        .query = head.query,
        .headers = head.headers,
        .host = head.host,
        .content_length = head.content_length,
        .has_body = head.has_body,
        .started_ns = now_ns(c),
    };
    memcpy(job->request.peer_address, c->peer_address, sizeof(c->peer_address));
    context_init(&job->ctx, c->shard->scheduler, job->arena, DEADLINE_NONE);
    c->state = CONNECTION_HANDLING;
    set_deadline(c, DEADLINE_NONE);
    struct error e;
    if (!coroutine_start(c->shard->scheduler, "http.request", serve, c, &e))
        refuse(c, REASON_OVERLOADED_HERE, "too many requests in work");
}

static void on_head_bytes(struct http_connection *c, const char *bytes, size_t len)
{
    bool is_first = c->state == CONNECTION_IDLE;
    if (is_first) {
        c->job = http_shard_job_take(c->shard);
        c->state = CONNECTION_HEAD;
    }
    struct http_job *job = c->job;
    if (job->head_len + len > job->head_capacity) {
        size_t capacity = is_first ? len : (job->head_len + len) * 2;
        job->head = arena_resize_raw(job->arena, job->head, job->head_capacity, capacity);
        job->head_capacity = capacity;
    }
    memcpy(job->head + job->head_len, bytes, len);
    job->head_len += len;
    switch (http_parser_head(&job->parser, str_of(job->head, job->head_len))) {
    case HTTP_PARSE_HEAD: start_request(c); return;
    case HTTP_PARSE_MORE:
        if (c->is_input_ended) {
            http_connection_cut(c);
            return;
        }
        http_parser_keep_fields(&job->parser, &c->shard->fields, job->arena);
        if (is_first) /* counts from the first byte: a head that drips does not live longer */
            set_deadline_in(c, options_of(c)->head_timeout_ms);
        return;
    case HTTP_PARSE_DONE:
    case HTTP_PARSE_FAILED: refuse(c, job->parser.reason, job->parser.problem); return;
    }
}

/* ---- input ---- */

static void on_input_end(struct http_connection *c)
{
    c->is_input_ended = true;
    struct http_job *job = c->job;
    switch (c->state) {
    case CONNECTION_HANDLING:
        if (!job->is_body_done && job->parser.framing == HTTP_FRAMING_LENGTH &&
            buffer_len(&job->input) < job->parser.body_left) {
            http_connection_cut(c); /* it can never become whole */
            return;
        }
        job->keeps_alive = job->keeps_alive &&
                           buffer_len(&job->input) > 0; /* what was pipelined is still served */
        if (job->reader)
            waiter_wake(job->reader);
        if ((job->is_streamed && !job->is_ended) || c->relay) {
            http_connection_cut(
                c); /* who leaves a stream that runs has left: upstreams must hear of it */
            return;
        }
        if (!job->has_begun)
            set_deadline_in(c, HTTP_HALF_CLOSE_GRACE_MS);
        http_connection_watch(c);
        return;
    case CONNECTION_DISCARDING: discard(c); return;
    case CONNECTION_HANDSHAKE:
    case CONNECTION_IDLE:
    case CONNECTION_HEAD:
    case CONNECTION_RELAYING: /* who leaves a stream that runs has left */
    case CONNECTION_LINGERING:
    case CONNECTION_CLOSED: http_connection_cut(c); return;
    }
}

/* One recv.  0: nothing there now, or the connection's end was dealt with. */
static size_t receive(struct http_connection *c, char *into, size_t room)
{
    ssize_t count = http_transport_receive(c, into, room);
    if (count > 0)
        return (size_t) count;
    if (count == 0)
        on_input_end(c);
    else if (errno != EAGAIN)
        http_connection_cut(c);
    return 0;
}

/* The peer sends while no one asks: keep it (bounded), so that its leaving is noticed.  Nothing
   that is there moves: the handler may hold a piece of it. */
static void receive_ahead(struct http_connection *c)
{
    struct http_job *job = c->job;
    struct buffer *input = &job->input;
    if (!input->is_pooled &&
        !buffer_reserve(&c->shard->buffers, input, HTTP_READ_BUFFER_BYTES - buffer_len(input))) {
        job->is_input_full = true;
    } else if (input->capacity == input->to) {
        job->is_input_full = true;
    }
    if (job->is_input_full) {
        http_connection_watch(c);
        return;
    }
    size_t count = receive(c, input->ptr + input->to, input->capacity - input->to);
    if (count)
        input->to += (uint32_t) count;
    else if (c->job == job && buffer_len(input) == 0 && !job->request.has_body)
        buffer_release(&c->shard->buffers, input);
}

/* While a relay runs: the next requests, bounded; most often nothing, or the end. */
static void receive_next(struct http_connection *c)
{
    struct http_relay *relay = c->relay;
    size_t held = buffer_len(&relay->ahead);
    size_t count = receive(c, c->shard->read_buffer, HTTP_READ_BUFFER_BYTES - held);
    if (count == 0)
        return;
    ensure(buffer_reserve(&c->shard->buffers, &relay->ahead, count));
    memcpy(relay->ahead.ptr + relay->ahead.to, c->shard->read_buffer, count);
    relay->ahead.to += (uint32_t) count;
    relay->is_ahead_full = held + count == HTTP_READ_BUFFER_BYTES;
    if (relay->is_ahead_full)
        http_connection_watch(c);
}

static void on_readable(struct http_connection *c)
{
    struct http_shard *shard = c->shard;
    size_t count;
    switch (c->state) {
    case CONNECTION_HANDSHAKE: http_transport_handshake(c); return;
    case CONNECTION_IDLE:
    case CONNECTION_HEAD:
        count = receive(c, shard->read_buffer, HTTP_READ_BUFFER_BYTES);
        if (count)
            on_head_bytes(c, shard->read_buffer, count);
        return;
    case CONNECTION_HANDLING:
        if (c->job->reader)
            waiter_wake(c->job->reader);
        else
            receive_ahead(c);
        return;
    case CONNECTION_RELAYING: receive_next(c); return;
    case CONNECTION_DISCARDING:
        buffer_release(&shard->buffers, &c->job->input);
        (void) buffer_reserve(&shard->buffers, &c->job->input, HTTP_READ_BUFFER_BYTES);
        count = receive(c, c->job->input.ptr, HTTP_READ_BUFFER_BYTES);
        if (count) {
            c->job->input.to = (uint32_t) count;
            set_deadline_in(c, options_of(c)->body_idle_timeout_ms);
            discard(c);
        }
        return;
    case CONNECTION_LINGERING:
        count = receive(c, shard->read_buffer, HTTP_READ_BUFFER_BYTES);
        c->linger_bytes += (uint32_t) count;
        if (c->linger_bytes > HTTP_LINGER_BYTES_MAX)
            close_socket(c);
        return;
    case CONNECTION_CLOSED: return;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_connection *c = poll->data;
    if (status < 0 || (events & UV_PRIORITIZED)) {
        c->poll_events = 0;
        http_connection_cut(c);
        return;
    }
    if (c->state == CONNECTION_HANDSHAKE) {
        http_transport_handshake(c);
        return;
    }
    if (events & UV_WRITABLE) {
        if (!http_connection_flush(c))
            return;
        enum connection_state before = c->state;
        http_connection_settle(c);
        if (c->state != before)
            return; /* level-triggered: what is readable comes again */
    }
    if (events & UV_READABLE)
        on_readable(c);
}

bool http_connection_receive(struct http_connection *c, struct error *e)
{
    struct http_job *job = c->job;
    int64_t deadline_ns = now_ns(c) + options_of(c)->body_idle_timeout_ms * 1000000;
    for (;;) {
        if (c->state == CONNECTION_CLOSED)
            return error_set(e, REASON_CANCELLED, "the client went away");
        if (c->is_input_ended)
            return error_set(e, REASON_HTTP_SYNTAX, "the request body ends before its last chunk");
        buffer_release(&c->shard->buffers, &job->input);
        (void) buffer_reserve(&c->shard->buffers, &job->input, HTTP_READ_BUFFER_BYTES);
        size_t count = receive(c, job->input.ptr, HTTP_READ_BUFFER_BYTES);
        if (job->is_input_full) {
            job->is_input_full = false;
            http_connection_watch(c);
        }
        if (count) {
            job->input.to = (uint32_t) count;
            return true;
        }
        buffer_release(&c->shard->buffers, &job->input);
        if (c->state == CONNECTION_CLOSED || c->is_input_ended)
            continue;
        struct waiter waiter;
        waiter_init(&waiter, &job->ctx);
        job->reader = &waiter;
        bool is_woken = waiter_wait_until(&waiter, deadline_ns, e);
        job->reader = NULL;
        if (!is_woken && now_ns(c) >= deadline_ns && !context_is_cancelled(&job->ctx)) {
            job->is_body_broken = true;
            return error_set(e, REASON_CLIENT_TIMEOUT, "no request body arrived for %lld ms",
                             (long long) options_of(c)->body_idle_timeout_ms);
        }
        if (!is_woken)
            return false;
    }
}

/* ---- time ---- */

static void on_handling_deadline(struct http_connection *c)
{
    struct http_job *job = c->job;
    set_deadline(c, DEADLINE_NONE);
    if (http_connection_pending(c) > 0 || (job->is_http10 && !job->has_begun))
        http_connection_cut(c);
    else if (!job->has_begun &&
             http_connection_append(c, str_of(interim_reply, sizeof(interim_reply) - 1)))
        (void) http_connection_flush(c);
}

static void on_timer(struct timer *timer)
{
    struct http_connection *c = CONTAINER_OF(timer, struct http_connection, timer);
    if (c->deadline_ns == DEADLINE_NONE || c->state == CONNECTION_CLOSED)
        return;
    if (c->deadline_ns > now_ns(c)) {
        timer_arm(c->shard->scheduler, timer, c->deadline_ns);
        return;
    }
    switch (c->state) {
    case CONNECTION_HEAD:
        refuse(c, REASON_CLIENT_TIMEOUT, "the request head took too long to arrive");
        return;
    case CONNECTION_HANDLING: on_handling_deadline(c); return;
    case CONNECTION_RELAYING: /* set only while something waits to go out */
        cut_because(c, "the client stopped reading");
        return;
    case CONNECTION_DISCARDING:
        release_job(c);
        close_socket(c);
        return;
    case CONNECTION_HANDSHAKE:
    case CONNECTION_IDLE:
    case CONNECTION_LINGERING:
    case CONNECTION_CLOSED: close_socket(c); return;
    }
}

void http_connection_open(struct http_connection *c)
{
    c->state = CONNECTION_IDLE;
    set_deadline_in(c, options_of(c)->idle_timeout_ms);
    http_connection_watch(c);
}

void http_connection_adopt(struct http_shard *shard, int fd, const char *peer_address)
{
    struct http_connection *c = calloc(1, sizeof(*c));
    ensure(c != NULL);
    c->shard = shard;
    c->fd = fd;
    c->chunk_at = CHUNK_NONE;
    c->timer.fire = on_timer;
    c->turn_end.run = on_turn_end;
    memcpy(c->peer_address, peer_address, sizeof(c->peer_address));
    shard->connection_count++;
    list_push_back(&shard->connections, &c->link);
    if (uv_poll_init(loop_uv(shard->loop), &c->poll, fd) != 0) {
        list_remove(&c->link);
        close(fd);
        free(c);
        http_shard_connection_closed(shard);
        return;
    }
    c->poll.data = c;
    http_connection_open(c);
    if (!shard->tls)
        return;
    c->state = CONNECTION_HANDSHAKE;
    int64_t head_ms = options_of(c)->head_timeout_ms;
    set_deadline_in(c, head_ms < TLS_HANDSHAKE_TIMEOUT_MS ? head_ms : TLS_HANDSHAKE_TIMEOUT_MS);
}
