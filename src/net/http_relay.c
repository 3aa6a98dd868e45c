#include "net/http_relay_internal.h"

#include "base/ensure.h"

#include <stdlib.h>

/* One event's share of an upstream that has more than one read: others want their turn. */
enum { READS_PER_EVENT = 4 };

static int64_t now_ns(const struct http_relay *relay)
{
    return clock_monotonic_ns(relay->shard->clock);
}

static void wake_at_turn_end(struct http_relay *relay)
{
    loop_at_turn_end(relay->shard->loop, &relay->turn_end);
}

/* ---- time: stored per byte, looked at when the timer fires ---- */

static bool waits_for_upstream(const struct http_relay *relay)
{
    return relay->exchange && !relay->is_paused && !relay->is_finished;
}

static bool keeps_client_alive(const struct http_relay *relay)
{
    return relay->keep_alive_ns > 0 && relay->connection && !relay->is_finished;
}

static int64_t next_due_ns(const struct http_relay *relay)
{
    if (relay->is_finished)
        return relay->exchange ? relay->tail_until_ns : DEADLINE_NONE;
    int64_t due_ns = relay->exchange ? relay->deadline_ns : DEADLINE_NONE;
    if (waits_for_upstream(relay) && relay->received_ns + relay->between_bytes_ns < due_ns)
        due_ns = relay->received_ns + relay->between_bytes_ns;
    if (keeps_client_alive(relay) && relay->written_ns + relay->keep_alive_ns < due_ns)
        due_ns = relay->written_ns + relay->keep_alive_ns;
    return due_ns;
}

/* Moves the timer only when it would fire too late. */
static void arm(struct http_relay *relay)
{
    int64_t due_ns = next_due_ns(relay);
    if (due_ns != DEADLINE_NONE &&
        (relay->timer.heap_index == 0 || relay->timer.deadline_ns > due_ns))
        timer_arm(relay->shard->scheduler, &relay->timer, due_ns);
}

/* ---- ends ---- */

static void free_when_over(struct http_relay *relay)
{
    if (!relay->is_finished || relay->connection || relay->exchange || relay->is_busy)
        return;
    struct http_shard *shard = relay->shard;
    timer_disarm(shard->scheduler, &relay->timer);
    list_remove(&relay->turn_end.link);
    buffer_release(&shard->buffers, &relay->ahead);
    free(relay);
    http_shard_relay_ended(shard);
}

static void release_exchange(struct http_relay *relay)
{
    struct http_exchange *exchange = relay->exchange;
    relay->exchange = NULL;
    relay->is_paused = false;
    http_exchange_close(exchange);
}

/* The socket goes at once; the exchange when nobody can hold a piece of its input. */
static void cut_upstream(struct http_relay *relay)
{
    if (relay->exchange)
        http_exchange_cut(relay->exchange);
    if (relay->is_busy)
        wake_at_turn_end(relay);
    else if (relay->exchange)
        release_exchange(relay);
}

static void stop(struct http_relay *relay, enum error_reason reason, const char *problem)
{
    if (relay->reason != REASON_NONE)
        return;
    relay->reason = reason;
    relay->problem = problem;
    cut_upstream(relay);
    wake_at_turn_end(relay);
}

/* The upstream's part is over.  Called with is_busy set, at the bottom of the stack. */
static void end(struct http_relay *relay, const struct error *failure)
{
    if (relay->exchange)
        release_exchange(relay);
    if (relay->is_finished || relay->is_end_told)
        return;
    relay->is_end_told = true;
    relay->on_end(relay->owner, failure);
}

static void end_for_reason(struct http_relay *relay)
{
    struct error e;
    error_set(&e, relay->reason, "%s", relay->problem);
    end(relay, &e);
}

/* ---- flow ---- */

static void pause_upstream(struct http_relay *relay)
{
    relay->is_paused = true;
    http_exchange_pause(relay->exchange);
}

static void deliver(struct http_relay *relay, str piece)
{
    relay->received_ns = now_ns(relay);
    if (!relay->is_finished)
        relay->on_bytes(relay->owner, piece);
}

/* Until the upstream has nothing more, or the client has enough. */
static void pump(struct http_relay *relay)
{
    int read_count = 0;
    while (relay->exchange && relay->reason == REASON_NONE && !relay->is_paused) {
        struct error e;
        str piece;
        if (http_relay_pending(relay) > HTTP_RELAY_HIGH_BYTES && !relay->is_finished) {
            pause_upstream(relay);
            return;
        }
        if (!http_exchange_has_input(relay->exchange) && read_count++ == READS_PER_EVENT) {
            wake_at_turn_end(relay);
            return;
        }
        switch (http_exchange_pull(relay->exchange, &piece, &e)) {
        case EXCHANGE_PIECE: deliver(relay, piece); break;
        case EXCHANGE_WAIT: return;
        case EXCHANGE_END: end(relay, NULL); return;
        case EXCHANGE_FAILED: end(relay, &e); return;
        }
    }
}

/* What is due: an end that was noted, else more bytes. */
static void run(struct http_relay *relay)
{
    relay->is_busy = true;
    if (relay->reason == REASON_NONE)
        pump(relay);
    if (relay->reason != REASON_NONE)
        end_for_reason(relay);
    if (relay->exchange && relay->is_finished && relay->is_aborted)
        release_exchange(relay);
    if (relay->exchange)
        http_exchange_keep_input(relay->exchange);
    relay->is_busy = false;
    free_when_over(relay);
}

static void on_upstream(void *owner)
{
    run(owner);
}

static void on_turn_end(struct turn_end *turn_end)
{
    run(CONTAINER_OF(turn_end, struct http_relay, turn_end));
}

static void look_at_time(struct http_relay *relay)
{
    int64_t now = now_ns(relay);
    if (relay->is_finished) {
        if (relay->exchange && now >= relay->tail_until_ns)
            release_exchange(relay);
        return;
    }
    if (relay->exchange && now >= relay->deadline_ns)
        stop(relay, REASON_TIMEOUT, "the stream reached its deadline");
    else if (waits_for_upstream(relay) && now - relay->received_ns >= relay->between_bytes_ns)
        stop(relay, REASON_TIMEOUT, "the next part of the upstream's answer took too long");
    if (!keeps_client_alive(relay) || now - relay->written_ns < relay->keep_alive_ns)
        return;
    relay->written_ns = now;
    if (http_relay_pending(relay) == 0 && relay->reason == REASON_NONE)
        relay->on_idle(relay->owner);
}

static void on_timer(struct timer *timer)
{
    struct http_relay *relay = CONTAINER_OF(timer, struct http_relay, timer);
    relay->is_busy = true;
    look_at_time(relay);
    if (!relay->is_finished || relay->exchange)
        arm(relay);
    relay->is_busy = false;
    free_when_over(relay);
}

/* ---- what the connection tells ---- */

void http_relay_take_over(struct http_relay *relay, struct http_job *job)
{
    struct buffer *input = &job->input;
    relay->is_request_whole = job->is_body_done;
    relay->keeps_alive = job->keeps_alive && job->is_body_done;
    relay->is_ahead_full = !job->is_body_done || job->is_input_full;
    if (!job->is_body_done || buffer_len(input) == 0)
        return;
    if (!input->is_pooled) /* on the job's arena: into a block of our own */
        ensure(buffer_reserve(&relay->shard->buffers, input, 0));
    relay->ahead = *input;
    *input = (struct buffer){0};
}

void http_relay_client_gone(struct http_relay *relay, const char *problem)
{
    relay->connection->relay = NULL;
    relay->connection = NULL;
    if (relay->is_finished) {
        free_when_over(relay);
        return;
    }
    stop(relay, REASON_CANCELLED, problem);
}

void http_relay_client_done(struct http_relay *relay)
{
    relay->connection->relay = NULL;
    relay->connection = NULL;
    free_when_over(relay);
}

void http_relay_drained(struct http_relay *relay)
{
    if (!relay->is_paused || http_relay_pending(relay) > HTTP_RELAY_LOW_BYTES)
        return;
    relay->is_paused = false;
    relay->received_ns = now_ns(relay);
    arm(relay);
    wake_at_turn_end(relay);
}

void http_relay_shut_down(struct http_relay *relay)
{
    stop(relay, REASON_CANCELLED, "the server is shutting down");
    run(relay);
}

/* ---- what the owner asks ---- */

static void take_exchange(struct http_relay *relay, struct http_exchange *exchange)
{
    http_exchange_detach(exchange, on_upstream, relay);
    relay->exchange = exchange;
    relay->is_end_told = false;
    relay->received_ns = now_ns(relay);
    wake_at_turn_end(relay);
    arm(relay);
}

struct http_relay *http_relay_start(const struct http_relay_options *options)
{
    struct http_connection *c = options->request->connection;
    struct http_job *job = c->job;
    ensure(job->is_streamed && !job->is_ended && !c->relay && options->on_bytes && options->on_end);
    struct http_relay *relay = calloc(1, sizeof(*relay));
    ensure(relay != NULL);
    relay->shard = c->shard;
    relay->on_bytes = options->on_bytes;
    relay->on_end = options->on_end;
    relay->on_idle = options->on_idle;
    relay->owner = options->owner;
    relay->timer.fire = on_timer;
    relay->turn_end.run = on_turn_end;
    int64_t between_ms = options->between_bytes_timeout_ms;
    relay->between_bytes_ns = (between_ms ? between_ms : UPSTREAM_IDLE_TIMEOUT_MS) * 1000000;
    relay->keep_alive_ns = options->on_idle ? options->keep_alive_ms * 1000000 : 0;
    relay->deadline_ns = options->deadline_ns ? options->deadline_ns : DEADLINE_NONE;
    relay->written_ns = now_ns(relay);
    relay->is_http10 = job->is_http10;
    relay->has_body =
        options->request->method != HTTP_HEAD && !http_status_has_no_body(job->status);
    relay->shard->relay_count++;
    job->is_ended = true; /* the handler's part of it */
    if (c->state != CONNECTION_CLOSED) {
        relay->connection = c;
        c->relay = relay;
    }
    take_exchange(relay, options->exchange);
    if (!relay->connection)
        stop(relay, REASON_CANCELLED, "the client went away");
    return relay;
}

void http_relay_attach(struct http_relay *relay, struct http_exchange *give_exchange)
{
    ensure(relay->is_end_told && !relay->is_finished && !relay->exchange);
    if (relay->reason == REASON_TIMEOUT) /* the other upstream's; a deadline comes again */
        relay->reason = REASON_NONE;
    take_exchange(relay, give_exchange);
    if (relay->reason != REASON_NONE) /* told once more, for this one */
        cut_upstream(relay);
    else if (!relay->connection)
        stop(relay, REASON_CANCELLED, "the client went away");
}

static void append(struct http_relay *relay, str bytes)
{
    struct http_connection *c = relay->connection;
    while (bytes.len > 0) {
        size_t take = bytes.len < CHUNK_BYTES_MAX ? bytes.len : CHUNK_BYTES_MAX;
        if (relay->is_http10)
            ensure(http_connection_append(c, str_slice(bytes, 0, take)));
        else
            http_reply_append_chunked(c, str_slice(bytes, 0, take));
        bytes = str_from(bytes, take);
    }
}

bool http_relay_write(struct http_relay *relay, str bytes)
{
    struct http_connection *c = relay->connection;
    ensure(!relay->is_finished);
    if (!c || relay->reason == REASON_LIMIT)
        return false;
    relay->written_ns = now_ns(relay);
    if (!relay->has_body || bytes.len == 0)
        return true;
    if (http_connection_pending(c) + bytes.len > HTTP_RELAY_OUTPUT_BYTES_MAX) {
        stop(relay, REASON_LIMIT, "the client is too slow for what is written to it");
        return false;
    }
    append(relay, bytes);
    /* A client that is known to be full is told of by the loop. */
    if (http_connection_pending(c) < WRITE_AT_ONCE_BYTES || c->is_blocked) {
        loop_at_turn_end(c->shard->loop, &c->turn_end);
        return true;
    }
    return http_connection_flush(c);
}

size_t http_relay_pending(const struct http_relay *relay)
{
    return relay->connection ? http_connection_pending(relay->connection) : 0;
}

bool http_relay_client_is_gone(const struct http_relay *relay)
{
    return relay->connection == NULL;
}

static void finish_reply(struct http_relay *relay)
{
    struct http_connection *c = relay->connection;
    if (!relay->is_aborted && relay->has_body && !relay->is_http10) {
        if (c->chunk_at != CHUNK_NONE)
            http_reply_close_chunk(c);
        ensure(http_connection_append(c, S("0\r\n\r\n")));
    }
    loop_at_turn_end(c->shard->loop, &c->turn_end); /* flushes, and settles when all is out */
}

void http_relay_finish(struct http_relay *relay, enum http_relay_ending how)
{
    ensure(!relay->is_finished);
    relay->is_finished = true;
    /* What lacks bytes in the middle must not look whole. */
    relay->is_aborted = how == HTTP_RELAY_ABORT || relay->reason == REASON_LIMIT;
    if (relay->connection)
        finish_reply(relay);
    if (relay->exchange && (relay->is_aborted || relay->reason != REASON_NONE)) {
        cut_upstream(relay);
    } else if (relay->exchange) {
        relay->tail_until_ns = now_ns(relay) + HTTP_RELAY_TAIL_MS * INT64_C(1000000);
        if (relay->is_paused) {
            relay->is_paused = false;
            wake_at_turn_end(relay);
        }
        arm(relay);
    }
    free_when_over(relay);
}
