/*
 * The HTTP hot path alone: an upstream that answers and a proxy that forwards, built from net/'s
 * server and client only.
 *
 *      bench_http_bench echo  PORT [LOOPS]              answers every POST with its own body
 *      bench_http_bench proxy PORT UPSTREAM_PORT [LOOPS] forwards everything to
 *      127.0.0.1:UPSTREAM_PORT, streams as they come
 *      bench_http_bench relay PORT UPSTREAM_PORT [LOOPS] the same, streams without a coroutine
 *
 * With CERT_FILE KEY_FILE behind LOOPS the server speaks TLS.
 * Ends at SIGTERM or SIGINT after a drain.  Measure from outside (wrk, or a load generator that
 * reads the process's CPU time) beside another proxy in the same run; only ratios mean anything on
 * a busy machine.
 */
#include "net/http_relay.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOPS_MAX = 16, DRAIN_MS = 3000 };

static struct loop *loops[LOOPS_MAX];
static struct http_client *clients[LOOPS_MAX]; /* by loop_index */
static size_t loop_count = 1;
static uint16_t upstream_port;
static bool is_relaying;
static struct http_server *server;

static void fail_with(struct http_request *request, const struct error *e)
{
    if (!http_reply_has_begun(request))
        http_reply(request, error_http_status(e->reason), NULL, str_from_cstr(e->message));
    else if (!http_reply_is_done(request))
        http_reply_abort(request);
}

static void echo(void *owner, struct http_request *request)
{
    (void) owner;
    struct error e;
    str body;
    if (!http_request_read_all(request, HTTP_BODY_BYTES_MAX, &body, &e)) {
        fail_with(request, &e);
        return;
    }
    http_reply(request, 200, NULL, body);
}

/* The fields that concern one hop stay here; the rest goes on as it came. */
static void copy_headers(struct arena *arena, const struct http_headers *from,
                         struct http_headers *to)
{
    static const str hop[] = {S_INIT("connection"),     S_INIT("host"),
                              S_INIT("content-length"), S_INIT("transfer-encoding"),
                              S_INIT("keep-alive"),     S_INIT("date")};
    *to = (struct http_headers){ARENA_ARRAY(arena, struct http_header, from->count + 1), 0,
                                from->count + 1};
    for (size_t i = 0; i < from->count; i++) {
        bool is_hop = false;
        for (size_t j = 0; j < ARRAY_COUNT(hop) && !is_hop; j++)
            is_hop = str_equal_nocase(from->items[i].name, hop[j]);
        if (!is_hop)
            to->items[to->count++] = from->items[i];
    }
}

/* ---- streams without a coroutine ---- */

struct stream {
    struct http_relay *relay;
};

static void on_bytes(void *owner, str bytes)
{
    struct stream *stream = owner;
    (void) http_relay_write(stream->relay, bytes);
}

static void on_end(void *owner, const struct error *failure)
{
    struct stream *stream = owner;
    http_relay_finish(stream->relay, failure ? HTTP_RELAY_ABORT : HTTP_RELAY_END);
    free(stream);
}

static bool hand_over(struct http_request *request, struct http_exchange *exchange,
                      const struct http_headers *headers, struct error *e)
{
    if (!http_reply_begin(request, http_exchange_status(exchange), headers, e)) {
        http_exchange_close(exchange);
        return false;
    }
    struct stream *stream = calloc(1, sizeof(*stream));
    ensure(stream != NULL);
    stream->relay = http_relay_start(&(struct http_relay_options){.request = request,
                                                                  .exchange = exchange,
                                                                  .on_bytes = on_bytes,
                                                                  .on_end = on_end,
                                                                  .owner = stream});
    return true;
}

/* ---- and with one ---- */

static bool relay(struct http_request *request, struct http_exchange *exchange,
                  const struct http_headers *headers, struct error *e)
{
    if (!http_reply_begin(request, http_exchange_status(exchange), headers, e))
        return false;
    for (;;) {
        str piece;
        if (!http_exchange_read(exchange, request->ctx, &piece, e))
            return false;
        if (piece.len == 0)
            break;
        if (!http_reply_write(request, piece, e))
            return false;
    }
    http_reply_end(request);
    return true;
}

static bool forward(struct http_request *request, struct error *e)
{
    str body;
    if (!http_request_read_all(request, HTTP_BODY_BYTES_MAX, &body, e))
        return false;
    struct arena *arena = request->ctx->arena;
    struct http_headers to_upstream, to_client;
    copy_headers(arena, &request->headers, &to_upstream);
    struct http_client_request out = {
        .method = request->method,
        .url = {.host = S("127.0.0.1"), .port = upstream_port, .path_query = request->path},
        .headers = &to_upstream,
        .body = body,
    };
    OWNED(http_exchange) exchange = NULL;
    if (!http_client_send(clients[loop_index(loop_current())], request->ctx, &out, &exchange, e))
        return false;
    copy_headers(arena, http_exchange_headers(exchange), &to_client);
    bool is_whole =
        str_is_empty(http_headers_get(http_exchange_headers(exchange), S("transfer-encoding")));
    if (!is_whole && is_relaying)
        return hand_over(request, GIVE(exchange), &to_client, e);
    if (!is_whole)
        return relay(request, exchange, &to_client, e);
    str answer;
    if (!http_exchange_read_all(exchange, request->ctx, HTTP_BODY_BYTES_MAX, &answer, e))
        return false;
    http_reply(request, http_exchange_status(exchange), &to_client, answer);
    return true;
}

static void proxy(void *owner, struct http_request *request)
{
    (void) owner;
    struct error e;
    if (!forward(request, &e))
        fail_with(request, &e);
}

/* ---- start and stop ---- */

static void drop_client(void *argument)
{
    struct loop *loop = argument;
    http_client_destroy(clients[loop_index(loop)]);
    clients[loop_index(loop)] = NULL;
    loop_stop(loop);
}

static void drain_main(void *argument)
{
    (void) argument;
    struct error e;
    struct context ctx;
    OWNED(arena) arena = arena_create(0);
    struct scheduler *scheduler = loop_scheduler(loops[0]);
    context_init(&ctx, scheduler, arena,
                 clock_monotonic_ns(scheduler_clock(scheduler)) + DRAIN_MS * INT64_C(1000000));
    if (!http_server_drain(server, &ctx, &e))
        fprintf(stderr, "drain: %s\n", e.message);
    context_deinit(&ctx);
    for (size_t i = 0; i < loop_count; i++)
        loop_post(loops[i], drop_client, loops[i]);
}

static void start_drain(void *argument)
{
    struct error e;
    if (!coroutine_start(loop_scheduler(loops[0]), "drain", drain_main, argument, &e))
        fprintf(stderr, "drain: %s\n", e.message);
}

static int usage(void)
{
    fprintf(stderr, "usage: http_bench echo PORT [LOOPS [CERT KEY]] | "
                    "proxy|relay PORT UPSTREAM_PORT [LOOPS [CERT KEY]]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct error e;
    is_relaying = argc >= 4 && strcmp(argv[1], "relay") == 0;
    bool is_proxy = argc >= 4 && (strcmp(argv[1], "proxy") == 0 || is_relaying);
    if (!is_proxy && !(argc >= 3 && strcmp(argv[1], "echo") == 0))
        return usage();
    uint16_t port = (uint16_t) strtoul(argv[2], NULL, 10);
    if (is_proxy)
        upstream_port = (uint16_t) strtoul(argv[3], NULL, 10);
    int loops_at = is_proxy ? 4 : 3;
    if (argc > loops_at)
        loop_count = strtoul(argv[loops_at], NULL, 10);
    if (loop_count < 1 || loop_count > LOOPS_MAX)
        return usage();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (size_t i = 0; i < loop_count; i++) {
        loops[i] = loop_create(clock_system(), random_system(), &e);
        if (!loops[i] || !http_client_create(loops[i], NULL, &clients[loop_index(loops[i])], &e)) {
            fprintf(stderr, "start: %s\n", e.message);
            return 1;
        }
    }
    struct http_server_options options = {
        .address = S("127.0.0.1"), .port = port, .handler = is_proxy ? proxy : echo};
    struct tls_server_options tls;
    if (argc > loops_at + 2) {
        tls = (struct tls_server_options){.cert_file = str_from_cstr(argv[loops_at + 1]),
                                          .key_file = str_from_cstr(argv[loops_at + 2])};
        options.tls = &tls;
    }
    if (!http_server_open(loops, loop_count, &options, &server, &e)) {
        fprintf(stderr, "listen: %s\n", e.message);
        return 1;
    }
    for (size_t i = 0; i < loop_count; i++) {
        if (!loop_start_thread(loops[i], "bench", &e))
            return 1;
    }
    printf("listening on 127.0.0.1:%u with %zu loops\n", http_server_port(server), loop_count);
    fflush(stdout);
    int signal_number;
    sigwait(&signals, &signal_number);
    loop_post(loops[0], start_drain, NULL);
    for (size_t i = 0; i < loop_count; i++)
        loop_join_thread(loops[i]);
    http_server_destroy(server);
    for (size_t i = 0; i < loop_count; i++)
        loop_destroy(loops[i]);
    blocking_pool_stop();
    return 0;
}
