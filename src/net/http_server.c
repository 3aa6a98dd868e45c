#include "net/http_server_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const char overloaded_reply[] =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    "Content-Length: 0\r\n\r\n";

/* ---- shards ---- */

static void shard_init(struct http_shard *shard, struct http_server *server, struct loop *loop)
{
    shard->server = server;
    shard->loop = loop;
    shard->scheduler = loop_scheduler(loop);
    shard->clock = scheduler_clock(shard->scheduler);
    list_init(&shard->connections);
    list_init(&shard->spare_jobs);
    shard->date_second = -1;
    shard->read_buffer = malloc(BUFFER_LARGE_BYTES);
    shard->head_buffer = malloc(HTTP_REPLY_HEAD_BYTES_MAX);
    ensure(shard->read_buffer != NULL && shard->head_buffer != NULL);
}

static void job_destroy(struct http_job *job)
{
    arena_destroy(job->arena);
    free(job);
}

static void shard_deinit(struct http_shard *shard)
{
    ensure(shard->connection_count == 0);
    for (struct list *node; (node = list_pop_front(&shard->spare_jobs)) != NULL;)
        job_destroy(LIST_ITEM(node, struct http_job, spare_link));
    buffer_pool_deinit(&shard->buffers);
    tls_server_destroy(shard->tls);
    free(shard->record_buffer);
    free(shard->read_buffer);
    free(shard->head_buffer);
}

struct http_job *http_shard_job_take(struct http_shard *shard)
{
    struct list *node = list_pop_front(&shard->spare_jobs);
    struct http_job *job = NULL;
    if (node) {
        shard->spare_job_count--;
        job = LIST_ITEM(node, struct http_job, spare_link);
    } else {
        job = calloc(1, sizeof(*job));
        ensure(job != NULL);
        job->arena = arena_create(ARENA_BYTES_DEFAULT + HTTP_BODY_BYTES_MAX);
    }
    http_parser_init_request(&job->parser, &shard->fields);
    return job;
}

void http_shard_job_give(struct http_shard *shard, struct http_job *job)
{
    buffer_release(&shard->buffers, &job->input);
    if (shard->spare_job_count >= HTTP_REQUESTS_SPARE_MAX) {
        job_destroy(job);
        return;
    }
    arena_reset(job->arena);
    /* The parser is large and set up anew when the job is taken; all else begins as zero. */
    struct arena *arena = job->arena;
    memset(job, 0, offsetof(struct http_job, parser));
    memset(&job->head, 0, sizeof(*job) - offsetof(struct http_job, head));
    job->arena = arena;
    list_push_front(&shard->spare_jobs, &job->spare_link);
    shard->spare_job_count++;
}

static void tell_drained(void *argument)
{
    struct http_server *server = argument;
    server->drained_count++;
    condition_broadcast(&server->drained);
}

static void shard_check_drained(struct http_shard *shard)
{
    if (!shard->is_draining || shard->is_drain_told || shard->connection_count > 0 ||
        shard->relay_count > 0)
        return;
    shard->is_drain_told = true;
    loop_post(shard->server->shards[0].loop, tell_drained, shard->server);
}

void http_shard_connection_closed(struct http_shard *shard)
{
    shard->connection_count--;
    atomic_fetch_sub_explicit(&shard->load, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&shard->server->connection_count, 1, memory_order_relaxed);
    shard_check_drained(shard);
}

void http_shard_relay_ended(struct http_shard *shard)
{
    shard->relay_count--;
    shard_check_drained(shard);
}

/* ---- accepting ---- */

struct handoff {
    struct http_shard *shard;
    int fd;
    char peer_address[48];
};

static void adopt_handoff(void *argument)
{
    struct handoff *handoff = argument;
    http_connection_adopt(handoff->shard, handoff->fd, handoff->peer_address);
    free(handoff);
}

static void describe_peer(const struct sockaddr_storage *address, char out[48])
{
    out[0] = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;
        inet_ntop(AF_INET, &v4->sin_addr, out, 48);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) address;
        bool is_mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        inet_ntop(is_mapped ? AF_INET : AF_INET6,
                  is_mapped ? &v6->sin6_addr.s6_addr[12] : v6->sin6_addr.s6_addr, out, 48);
    }
}

static struct http_shard *least_loaded(struct http_server *server)
{
    struct http_shard *best = &server->shards[0];
    size_t best_load = atomic_load_explicit(&best->load, memory_order_relaxed);
    for (size_t i = 1; i < server->shard_count && best_load > 0; i++) {
        size_t load = atomic_load_explicit(&server->shards[i].load, memory_order_relaxed);
        if (load < best_load) {
            best = &server->shards[i];
            best_load = load;
        }
    }
    return best;
}

static void place(struct http_server *server, int fd, const struct sockaddr_storage *address)
{
    if (atomic_load_explicit(&server->connection_count, memory_order_relaxed) >=
        server->options.connections_max) {
        (void) !send(fd, overloaded_reply, sizeof(overloaded_reply) - 1,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    struct http_shard *shard = least_loaded(server);
    atomic_fetch_add_explicit(&server->connection_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&shard->load, 1, memory_order_relaxed);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct handoff handoff = {.shard = shard, .fd = fd};
    describe_peer(address, handoff.peer_address);
    if (shard == &server->shards[0]) {
        http_connection_adopt(shard, fd, handoff.peer_address);
        return;
    }
    struct handoff *message = malloc(sizeof(*message));
    ensure(message != NULL);
    *message = handoff;
    loop_post(shard->loop, adopt_handoff, message);
}

/* Out of descriptors: the spare one lets us take the connection and close it, else the listener
   stays readable. */
static void shed_one(struct http_server *server)
{
    close(server->spare_fd);
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    (void) events;
    struct http_server *server = poll->data;
    if (status < 0 || !server->listener)
        return;
    for (int i = 0; i < HTTP_ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof(address);
        int fd = accept4(server->listen_fd, (struct sockaddr *) &address, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            place(server, fd, &address);
        } else if (errno == EMFILE || errno == ENFILE) {
            shed_one(server);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* ---- listening ---- */

static bool bind_and_listen(int fd, const struct http_server_options *options, uint16_t *port,
                            struct error *e)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *) &address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) &address;
    char text[64] = {0};
    if (options->address.len >= sizeof(text))
        return error_set(e, REASON_CONFIG, "listen address is too long");
    memcpy(text, options->address.ptr, options->address.len);
    socklen_t len = sizeof(*v4);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(options->port);
    } else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(options->port);
        len = sizeof(*v6);
    } else {
        return error_set(e, REASON_CONFIG, "listen address \"%s\" is no IP address", text);
    }
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *) &address, len) != 0 || listen(fd, SOMAXCONN) != 0) {
        enum error_reason reason = errno == EADDRINUSE ? REASON_IN_USE : REASON_CONFIG;
        return error_set(e, reason, "cannot listen on %s port %u: %s", text, options->port,
                         strerror(errno));
    }
    if (getsockname(fd, (struct sockaddr *) &address, &len) != 0)
        return error_set(e, REASON_INTERNAL, "getsockname: %s", strerror(errno));
    *port = ntohs(address.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return true;
}

static bool listen_open(struct http_server *server, struct error *e)
{
    bool is_v6 = str_find_char(server->options.address, ':') != STR_NOT_FOUND;
    server->listen_fd =
        socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->listen_fd < 0)
        return error_set(e, REASON_UNAVAILABLE, "socket: %s", strerror(errno));
    if (!bind_and_listen(server->listen_fd, &server->options, &server->port, e))
        return false;
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server->listener = calloc(1, sizeof(*server->listener));
    ensure(server->listener != NULL);
    int result = uv_poll_init(loop_uv(server->shards[0].loop), server->listener, server->listen_fd);
    if (result != 0) {
        free(server->listener);
        server->listener = NULL;
        return error_set(e, REASON_UNAVAILABLE, "watch the listening socket: %s",
                         uv_strerror(result));
    }
    server->listener->data = server;
    uv_poll_start(server->listener, UV_READABLE, on_listener);
    return true;
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle);
}

static void listen_close(struct http_server *server)
{
    if (server->listener) {
        uv_close((uv_handle_t *) server->listener, on_listener_closed);
        server->listener = NULL;
    }
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->spare_fd >= 0)
        close(server->spare_fd);
    server->listen_fd = server->spare_fd = -1;
}

static void fill_defaults(struct http_server_options *options)
{
    if (!options->connections_max)
        options->connections_max = HTTP_CONNECTIONS_MAX;
    if (!options->head_timeout_ms)
        options->head_timeout_ms = HTTP_HEAD_TIMEOUT_MS;
    if (!options->body_idle_timeout_ms)
        options->body_idle_timeout_ms = HTTP_BODY_IDLE_TIMEOUT_MS;
    if (!options->idle_timeout_ms)
        options->idle_timeout_ms = HTTP_IDLE_TIMEOUT_MS;
    if (!options->write_idle_timeout_ms)
        options->write_idle_timeout_ms = HTTP_WRITE_IDLE_TIMEOUT_MS;
}

/* ---- TLS ---- */

static bool secure(struct http_server *server, struct error *e)
{
    enum { RECORD_BYTES = 16384 };
    struct tls_server *tls = NULL;
    if (!server->options.tls)
        return true;
    if (!tls_server_create(server->options.tls, &tls, e))
        return false;
    for (size_t i = 0; i < server->shard_count; i++) {
        server->shards[i].tls = tls_server_share(tls);
        server->shards[i].record_buffer = malloc(RECORD_BYTES);
        ensure(server->shards[i].record_buffer != NULL);
    }
    tls_server_destroy(tls);
    return true;
}

struct reload {
    struct http_shard *shard;
    struct tls_server *give_tls;
};

static void tell_reloaded(void *argument)
{
    struct http_server *server = argument;
    server->reload_count--;
    condition_broadcast(&server->reloaded);
}

static void shard_reload(void *argument)
{
    struct reload *reload = argument;
    struct http_shard *shard = reload->shard;
    tls_server_destroy(shard->tls);
    shard->tls = reload->give_tls;
    free(reload);
    loop_post(shard->server->shards[0].loop, tell_reloaded, shard->server);
}

struct tls_loading {
    const struct tls_server_options *options;
    struct tls_server *tls;
    struct error error;
    bool is_fine;
};

static void load_tls(void *argument)
{
    struct tls_loading *loading = argument;
    loading->is_fine = tls_server_create(loading->options, &loading->tls, &loading->error);
}

bool http_server_reload_tls(struct http_server *server, struct context *ctx,
                            const struct tls_server_options *options, struct error *e)
{
    struct tls_loading loading = {.options = options};
    ensure(server->reload_count == 0);
    if (!server->shards[0].tls)
        return error_set(e, REASON_CONFIG, "the server was started without TLS: restart it");
    if (!blocking_call(ctx, load_tls, &loading, e)) {
        tls_server_destroy(loading.tls);
        return false;
    }
    if (!loading.is_fine)
        return error_copy(e, &loading.error);
    server->reload_count = server->shard_count;
    for (size_t i = 0; i < server->shard_count; i++) {
        struct reload *reload = malloc(sizeof(*reload));
        ensure(reload != NULL);
        *reload = (struct reload){&server->shards[i], tls_server_share(loading.tls)};
        loop_post(server->shards[i].loop, shard_reload, reload);
    }
    tls_server_destroy(loading.tls);
    /* The loops take it soon, whatever becomes of ctx; the server must live until then. */
    struct context patient;
    struct error ignored;
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    while (server->reload_count > 0)
        (void) !condition_wait(&server->reloaded, &patient, &ignored);
    context_deinit(&patient);
    return true;
}

bool http_server_open(struct loop **loops, size_t loop_count,
                      const struct http_server_options *options, struct http_server **out,
                      struct error *e)
{
    ensure(loop_count >= 1 && options->handler != NULL);
    struct http_server *server = calloc(1, sizeof(*server));
    ensure(server != NULL);
    server->options = *options;
    server->listen_fd = server->spare_fd = -1;
    fill_defaults(&server->options);
    condition_init(&server->drained);
    condition_init(&server->reloaded);
    server->shards = calloc(loop_count, sizeof(server->shards[0]));
    ensure(server->shards != NULL);
    server->shard_count = loop_count;
    for (size_t i = 0; i < loop_count; i++)
        shard_init(&server->shards[i], server, loops[i]);
    if (!secure(server, e) || !listen_open(server, e)) {
        listen_close(server);
        http_server_destroy(server);
        return false;
    }
    server->options.address = STR_NONE; /* borrowed for the call only */
    server->options.tls = NULL;
    *out = server;
    return true;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

size_t http_server_connection_count(const struct http_server *server)
{
    return atomic_load_explicit(&server->connection_count, memory_order_relaxed);
}

/* ---- draining ---- */

static void shard_drain(void *argument)
{
    struct http_shard *shard = argument;
    shard->is_draining = true;
    LIST_EACH(node, &shard->connections)
    http_connection_drain(LIST_ITEM(node, struct http_connection, link));
    shard_check_drained(shard);
}

static void shard_cut(void *argument)
{
    struct http_shard *shard = argument;
    LIST_EACH(node, &shard->connections)
    http_connection_shut_down(LIST_ITEM(node, struct http_connection, link));
}

bool http_server_drain(struct http_server *server, struct context *ctx, struct error *e)
{
    listen_close(server);
    for (size_t i = 0; i < server->shard_count; i++)
        loop_post(server->shards[i].loop, shard_drain, &server->shards[i]);
    while (server->drained_count < server->shard_count) {
        if (!condition_wait(&server->drained, ctx, e))
            break;
    }
    if (server->drained_count == server->shard_count)
        return true;
    for (size_t i = 0; i < server->shard_count; i++)
        loop_post(server->shards[i].loop, shard_cut, &server->shards[i]);
    /* ctx is spent; the handlers, cancelled, get a moment of their own. */
    struct context grace;
    struct error ignored;
    context_init(&grace, ctx->scheduler, ctx->arena,
                 context_now_ns(ctx) + HTTP_DRAIN_CUT_MS * INT64_C(1000000));
    while (server->drained_count < server->shard_count) {
        if (!condition_wait(&server->drained, &grace, &ignored))
            break;
    }
    context_deinit(&grace);
    return error_wrap(e, "%zu of %zu loops drained in time", server->drained_count,
                      server->shard_count);
}

void http_server_destroy(struct http_server *server)
{
    if (!server)
        return;
    for (size_t i = 0; i < server->shard_count; i++)
        shard_deinit(&server->shards[i]);
    free(server->shards);
    free(server);
}
