#include "net/http_client_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/map.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int64_t nearer(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- origins ---- */

struct http_origin *http_origin_find(struct http_client *client, const struct http_url *url)
{
    char key[272] = {url->is_tls ? 's' : 'p', (char) (url->port >> 8), (char) url->port};
    size_t len = 3 + url->host.len;
    ensure(len < sizeof(key));
    memcpy(key + 3, url->host.ptr, url->host.len);
    struct http_origin *origin = map_find(client->origins, str_of(key, len));
    if (origin)
        return origin;
    origin = calloc(1, sizeof(*origin));
    ensure(origin != NULL);
    list_init(&origin->idle);
    memcpy(origin->key, key, len);
    origin->key_len = len;
    map_put(client->origins, str_of(key, len), origin);
    return origin;
}

void http_origin_check(struct http_client *client, struct http_origin *origin)
{
    if (origin->connection_count > 0)
        return;
    map_remove(client->origins, str_of(origin->key, origin->key_len));
    free(origin);
}

/* ---- events ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

void http_upstream_watch(struct http_upstream *upstream, int events)
{
    if (events == upstream->poll_events)
        return;
    upstream->poll_events = events;
    if (events)
        uv_poll_start(&upstream->poll, events, on_poll);
    else
        uv_poll_stop(&upstream->poll);
}

/* TLS has messages of its own (session tickets) that may come when nobody asks. */
static bool is_only_tls_business(struct http_upstream *upstream)
{
    char byte;
    size_t count;
    struct error ignored;
    return upstream->tls && tls_read(upstream->tls, &byte, 1, &count, &ignored) == TLS_WANT_READ;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void) events;
    struct http_upstream *upstream = poll->data;
    if (status < 0)
        upstream->poll_events =
            0; /* libuv has stopped the handle; the next read or write tells what it was */
    if (upstream->is_idle && status == 0 && is_only_tls_business(upstream))
        return;
    if (upstream->is_idle)
        http_upstream_close(upstream);
    else if (upstream->on_event)
        upstream->on_event(upstream->owner);
    else if (upstream->waiter)
        waiter_wake(upstream->waiter);
    else
        http_upstream_watch(upstream, 0); /* not asked for: let it wait in the kernel */
}

bool http_upstream_wait(struct http_upstream *upstream, struct context *ctx, int events,
                        int64_t deadline_ns, const char *what, struct error *e)
{
    struct waiter waiter;
    waiter_init(&waiter, ctx);
    upstream->waiter = &waiter;
    http_upstream_watch(upstream, events);
    bool is_woken = waiter_wait_until(&waiter, deadline_ns, e);
    upstream->waiter = NULL;
    if (is_woken)
        return true;
    if (!context_is_cancelled(ctx) && deadline_ns <= ctx->deadline_ns)
        return error_set(e, REASON_TIMEOUT, "%s took too long", what);
    return false;
}

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void leave_pool(struct http_upstream *upstream)
{
    if (!upstream->is_idle)
        return;
    upstream->is_idle = false;
    upstream->origin->idle_count--;
    list_remove(&upstream->idle_link);
    list_remove(&upstream->age_link);
}

void http_upstream_close(struct http_upstream *upstream)
{
    struct http_client *client = upstream->client;
    leave_pool(upstream);
    tls_close(upstream->tls);
    upstream->tls = NULL;
    uv_close((uv_handle_t *) &upstream->poll, on_closed);
    close(upstream->fd);
    upstream->fd = -1;
    upstream->origin->connection_count--;
    client->open_count--;
    http_origin_check(client, upstream->origin);
}

void http_upstream_make_idle(struct http_upstream *upstream)
{
    struct http_client *client = upstream->client;
    if (upstream->origin->idle_count >= client->idle_max_per_origin) {
        http_upstream_close(upstream);
        return;
    }
    upstream->is_idle = true;
    upstream->on_event = NULL;
    upstream->was_reused = true;
    upstream->idle_until_ns = clock_monotonic_ns(client->clock) + client->idle_ms * 1000000;
    upstream->origin->idle_count++;
    list_push_front(&upstream->origin->idle, &upstream->idle_link);
    list_push_back(&client->ages, &upstream->age_link);
    if (client->timer.heap_index == 0)
        timer_arm(client->scheduler, &client->timer, upstream->idle_until_ns);
    http_upstream_watch(upstream, UV_READABLE);
}

/* A pooled connection was checked for another caller: its address must pass this caller's check as
   well. */
struct http_upstream *http_upstream_take_idle(struct http_client *client,
                                              struct http_origin *origin,
                                              const struct http_client_request *request)
{
    (void) client;
    LIST_EACH(node, &origin->idle)
    {
        struct http_upstream *upstream = LIST_ITEM(node, struct http_upstream, idle_link);
        struct error ignored;
        if (request->check_address &&
            !request->check_address(request->check_owner, &upstream->address.any, &ignored))
            continue;
        leave_pool(upstream);
        return upstream;
    }
    return NULL;
}

/* ---- dialling ---- */

static bool open_socket(struct http_client *client, struct http_origin *origin,
                        const union dns_address *address, struct http_upstream **out,
                        struct error *e)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(e, REASON_UNAVAILABLE, "socket: %s", strerror(errno));
    struct http_upstream *upstream = calloc(1, sizeof(*upstream));
    ensure(upstream != NULL);
    int failure = uv_poll_init(loop_uv(client->loop), &upstream->poll, fd);
    if (failure != 0) {
        close(fd);
        free(upstream);
        return error_set(e, REASON_UNAVAILABLE, "watch a socket: %s", uv_strerror(failure));
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    upstream->poll.data = upstream;
    upstream->client = client;
    upstream->origin = origin;
    upstream->address = *address;
    upstream->fd = fd;
    origin->connection_count++;
    client->open_count++;
    *out = upstream;
    return true;
}

static bool finish_connect(struct http_upstream *upstream, struct context *ctx, int64_t deadline_ns,
                           struct error *e)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr *address = &upstream->address.any;
    int failure = 0;
    if (connect(upstream->fd, address, dns_address_len(&upstream->address)) != 0) {
        failure = errno;
        if (failure == EINPROGRESS) {
            socklen_t len = sizeof(failure);
            if (!http_upstream_wait(upstream, ctx, UV_WRITABLE, deadline_ns, "connecting", e))
                return false;
            if (getsockopt(upstream->fd, SOL_SOCKET, SO_ERROR, &failure, &len) != 0)
                failure = errno;
        }
    }
    if (failure == 0)
        return true;
    return error_set(e, REASON_UNAVAILABLE, "connect to %s: %s",
                     dns_address_text(address, text, sizeof(text)), strerror(failure));
}

static bool dial(struct http_client *client, struct context *ctx, struct http_origin *origin,
                 const union dns_address *address, int64_t deadline_ns, struct http_upstream **out,
                 struct error *e)
{
    struct http_upstream *upstream = NULL;
    if (!open_socket(client, origin, address, &upstream, e))
        return false;
    if (!finish_connect(upstream, ctx, deadline_ns, e)) {
        http_upstream_close(upstream);
        return false;
    }
    *out = upstream;
    return true;
}

/* Each address but the last gets its share of the time, so that one black hole does not use it all.
   */
static bool dial_any(struct http_client *client, struct context *ctx,
                     const struct http_client_request *request, struct http_origin *origin,
                     const struct dns_answer *answer, int64_t deadline_ns,
                     struct http_upstream **out, struct error *e)
{
    for (size_t i = 0; i < answer->count; i++) {
        const union dns_address *address = &answer->addresses[i];
        if (request->check_address &&
            !request->check_address(request->check_owner, &address->any, e))
            continue;
        int64_t now_ns = context_now_ns(ctx);
        int64_t share_ns = (deadline_ns - now_ns) / (int64_t) (answer->count - i);
        if (dial(client, ctx, origin, address, now_ns + share_ns, out, e))
            return true;
        if (!context_check(ctx, e))
            return false;
    }
    return false;
}

/* ---- TLS ---- */

struct tls_load {
    str ca_file;
    struct tls_context *context;
    struct error error;
    bool is_fine;
};

static void load_tls(void *argument)
{
    struct tls_load *load = argument;
    load->is_fine = tls_context_create(load->ca_file, &load->context, &load->error);
}

static bool need_tls_context(struct http_client *client, struct context *ctx, struct error *e)
{
    if (client->tls)
        return true;
    struct tls_load load = {.ca_file = str_from_cstr(client->ca_file)};
    bool has_run = blocking_call(ctx, load_tls, &load, e);
    if (client->tls) /* another coroutine was faster */
        tls_context_destroy(load.context);
    else
        client->tls = load.context;
    if (!has_run)
        return false;
    return load.is_fine || client->tls || error_copy(e, &load.error);
}

static bool secure(struct http_upstream *upstream, struct context *ctx, const struct http_url *url,
                   int64_t deadline_ns, struct error *e)
{
    if (!tls_open(upstream->client->tls, upstream->fd, url->host, url->port, &upstream->tls, e))
        return false;
    for (;;) {
        enum tls_result result = tls_handshake(upstream->tls, e);
        if (result == TLS_DONE)
            return true;
        if (result == TLS_ENDED)
            return error_set(e, REASON_UNAVAILABLE, "TLS: the peer ended the handshake");
        if (result == TLS_FAILED)
            return false;
        int events = result == TLS_WANT_READ ? UV_READABLE : UV_WRITABLE;
        if (!http_upstream_wait(upstream, ctx, events, deadline_ns, "the TLS handshake", e))
            return false;
    }
}

bool http_upstream_connect(struct http_client *client, struct context *ctx,
                           const struct http_client_request *request, struct http_origin *origin,
                           struct http_upstream **out, struct error *e)
{
    int64_t timeout_ms =
        request->connect_timeout_ms ? request->connect_timeout_ms : UPSTREAM_CONNECT_TIMEOUT_MS;
    int64_t deadline_ns = nearer(context_now_ns(ctx) + timeout_ms * 1000000, ctx->deadline_ns);
    struct dns_answer answer;
    struct http_upstream *upstream = NULL;
    if (request->url.is_tls && !need_tls_context(client, ctx, e))
        return false;
    if (!dns_resolve(client->dns, ctx, request->url.host, request->url.port, &answer, e))
        return false;
    if (!dial_any(client, ctx, request, origin, &answer, deadline_ns, &upstream, e))
        return false;
    if (request->url.is_tls && !secure(upstream, ctx, &request->url, deadline_ns, e)) {
        http_upstream_close(upstream);
        return false;
    }
    *out = upstream;
    return true;
}

/* ---- bytes ---- */

static enum upstream_result receive_tls(struct http_upstream *upstream, char *into, size_t room,
                                        size_t *count, struct error *e)
{
    switch (tls_read(upstream->tls, into, room, count, e)) {
    case TLS_DONE: return UPSTREAM_DATA;
    case TLS_WANT_READ:
    case TLS_WANT_WRITE: /* only in a renegotiation; the next read goes on */
        return UPSTREAM_WOULD_BLOCK;
    case TLS_ENDED: return UPSTREAM_ENDED;
    case TLS_FAILED: break;
    }
    return UPSTREAM_FAILED;
}

enum upstream_result http_upstream_receive(struct http_upstream *upstream, char *into, size_t room,
                                           size_t *count, struct error *e)
{
    if (upstream->tls)
        return receive_tls(upstream, into, room, count, e);
    ssize_t got;
    do {
        got = recv(upstream->fd, into, room, 0);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        *count = (size_t) got;
        return UPSTREAM_DATA;
    }
    if (got == 0)
        return UPSTREAM_ENDED;
    if (errno == EAGAIN)
        return UPSTREAM_WOULD_BLOCK;
    error_set(e, REASON_UNAVAILABLE, "read from upstream: %s", strerror(errno));
    return UPSTREAM_FAILED;
}

static enum upstream_result send_tls(struct http_upstream *upstream, const struct iovec *part,
                                     size_t *count, struct error *e)
{
    switch (tls_write(upstream->tls, part->iov_base, part->iov_len, count, e)) {
    case TLS_DONE: return UPSTREAM_DATA;
    case TLS_WANT_READ:
    case TLS_WANT_WRITE: return UPSTREAM_WOULD_BLOCK;
    case TLS_ENDED:
        error_set(e, REASON_UNAVAILABLE, "the upstream closed while the request was sent");
        break;
    case TLS_FAILED: break;
    }
    return UPSTREAM_FAILED;
}

enum upstream_result http_upstream_send(struct http_upstream *upstream, struct iovec parts[2],
                                        size_t *count, struct error *e)
{
    if (upstream->tls)
        return send_tls(upstream, parts[0].iov_len ? &parts[0] : &parts[1], count, e);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    do {
        sent = sendmsg(upstream->fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        *count = (size_t) sent;
        return UPSTREAM_DATA;
    }
    if (errno == EAGAIN)
        return UPSTREAM_WOULD_BLOCK;
    error_set(e, REASON_UNAVAILABLE, "write to upstream: %s", strerror(errno));
    return UPSTREAM_FAILED;
}
