/* Bytes to and from a connection's peer, plain or under TLS; the handshake. */
#include "net/http_server_internal.h"

#include "net/tls.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TLS_RECORD_BYTES = 16384, TLS_HANDSHAKE_RECORD = 0x16 };

static const char plain_reply[] =
    "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    "Content-Length: 54\r\n\r\nThis port speaks TLS: use https:// instead of http://\n";

/* ---- bytes ---- */

static ssize_t refuse_with(int code)
{
    errno = code;
    return -1;
}

/* Until the socket has nothing more or there is no more room; an end behind bytes is told next
   time. */
static ssize_t receive_tls(struct http_connection *c, char *into, size_t room)
{
    size_t used = 0, count;
    struct error ignored;
    enum tls_result result = TLS_DONE;
    while (used < room && result == TLS_DONE && (used == 0 || tls_has_pending(c->tls))) {
        result = tls_read(c->tls, into + used, room - used, &count, &ignored);
        if (result == TLS_DONE)
            used += count;
    }
    if (used > 0) {
        if (tls_has_pending(c->tls))
            loop_at_turn_end(c->shard->loop, &c->turn_end);
        return (ssize_t) used;
    }
    if (result == TLS_ENDED)
        return 0;
    return refuse_with(result == TLS_FAILED ? ECONNRESET : EAGAIN);
}

ssize_t http_transport_receive(struct http_connection *c, char *into, size_t room)
{
    if (c->tls && c->state != CONNECTION_LINGERING)
        return receive_tls(c, into, room);
    ssize_t count;
    do {
        count = recv(c->fd, into, room, 0);
    } while (count < 0 && errno == EINTR);
    return count;
}

/* Head and body go into one record. */
static ssize_t send_tls(struct http_connection *c, const struct iovec parts[2])
{
    const void *bytes = parts[0].iov_len ? parts[0].iov_base : parts[1].iov_base;
    size_t len = parts[0].iov_len ? parts[0].iov_len : parts[1].iov_len, count;
    if (parts[0].iov_len && parts[1].iov_len && len < TLS_RECORD_BYTES) {
        char *record = c->shard->record_buffer;
        size_t more =
            TLS_RECORD_BYTES - len < parts[1].iov_len ? TLS_RECORD_BYTES - len : parts[1].iov_len;
        memcpy(record, parts[0].iov_base, len);
        memcpy(record + len, parts[1].iov_base, more);
        bytes = record;
        len += more;
    }
    struct error ignored;
    switch (tls_write(c->tls, bytes, len, &count, &ignored)) {
    case TLS_DONE: return (ssize_t) count;
    case TLS_WANT_READ: /* not without renegotiation, which is off */
    case TLS_WANT_WRITE: return refuse_with(EAGAIN);
    case TLS_ENDED:
    case TLS_FAILED: break;
    }
    return refuse_with(EPIPE);
}

ssize_t http_transport_send(struct http_connection *c, struct iovec parts[2])
{
    if (c->tls)
        return send_tls(c, parts);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    bool is_one = parts[1].iov_len == 0; /* a stream's piece: the cheaper call */
    ssize_t count;
    do {
        count = is_one ? send(c->fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL)
                       : sendmsg(c->fd, &message, MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    return count;
}

bool http_transport_has_pending(const struct http_connection *c)
{
    return c->tls && c->state != CONNECTION_LINGERING && tls_has_pending(c->tls);
}

/* ---- ends ---- */

void http_transport_end_output(struct http_connection *c)
{
    if (c->tls)
        tls_say_goodbye(c->tls);
    shutdown(c->fd, SHUT_WR);
}

void http_transport_spoil(struct http_connection *c)
{
    struct linger reset = {.l_onoff = 1};
    if (c->tls)
        tls_spoil(c->tls);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static void handshake_is_over(struct http_connection *c)
{
    c->shard->handshake_count -= c->is_in_handshake;
    c->is_in_handshake = false;
}

void http_transport_close(struct http_connection *c)
{
    handshake_is_over(c);
    tls_close(c->tls);
    c->tls = NULL;
    close(c->fd);
    c->fd = -1;
}

/* ---- handshake ---- */

/* Nothing is spent on a peer before it has sent the first byte of a TLS record. */
static bool greet(struct http_connection *c)
{
    struct http_shard *shard = c->shard;
    unsigned char first;
    ssize_t count = recv(c->fd, &first, 1, MSG_PEEK);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count != 1 || shard->handshake_count >= TLS_HANDSHAKES_MAX) {
        http_connection_close(c);
        return false;
    }
    if (first != TLS_HANDSHAKE_RECORD) {
        bool is_method = first >= 'A' && first <= 'Z';
        if (is_method) {
            (void) !send(c->fd, plain_reply, sizeof(plain_reply) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            http_connection_linger(c);
        } else {
            http_connection_close(c);
        }
        return false;
    }
    c->tls = tls_accept(shard->tls, c->fd);
    c->is_in_handshake = true;
    shard->handshake_count++;
    return true;
}

void http_transport_handshake(struct http_connection *c)
{
    struct error ignored;
    if (!c->tls && !greet(c))
        return;
    enum tls_result result = tls_handshake(c->tls, &ignored);
    switch (result) {
    case TLS_DONE:
        handshake_is_over(c);
        c->is_blocked = false;
        http_connection_open(c);
        return;
    case TLS_WANT_READ:
    case TLS_WANT_WRITE:
        c->is_blocked = result == TLS_WANT_WRITE;
        http_connection_watch(c);
        return;
    case TLS_ENDED:
    case TLS_FAILED: http_connection_close(c); return;
    }
}
