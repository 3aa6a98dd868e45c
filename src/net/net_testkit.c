#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- loops and coroutines ---- */

struct run {
    void (*fn)(struct context *ctx, struct loop *loop, void *argument);
    void *argument;
    struct loop *loop;
};

static void run_main(void *argument)
{
    struct run *run = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    int64_t deadline_ns = clock_monotonic_ns(clock_system()) + INT64_C(20000000000);
    context_init(&ctx, loop_scheduler(run->loop), arena, deadline_ns);
    run->fn(&ctx, run->loop, run->argument);
    context_deinit(&ctx);
    loop_stop(run->loop);
}

void net_testkit_run(void (*fn)(struct context *ctx, struct loop *loop, void *argument),
                     void *argument)
{
    struct error e;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    ensure(loop != NULL);
    struct run run = {fn, argument, loop};
    ensure(coroutine_start(loop_scheduler(loop), "test", run_main, &run, &e));
    loop_run(loop);
    loop_destroy(loop);
}

/* ---- a server ---- */

void testkit_server_start(struct testkit_server *kit, size_t loop_count,
                          struct http_server_options options)
{
    struct error e;
    *kit = (struct testkit_server){.loop_count = loop_count};
    for (size_t i = 0; i < loop_count; i++) {
        kit->loops[i] = loop_create(clock_system(), random_system(), &e);
        ensure(kit->loops[i] != NULL);
    }
    if (options.address.len == 0)
        options.address = S("127.0.0.1");
    if (!http_server_open(kit->loops, loop_count, &options, &kit->server, &e)) {
        fprintf(stderr, "http_server_open: %s\n", e.message);
        abort();
    }
    kit->port = http_server_port(kit->server);
    for (size_t i = 0; i < loop_count; i++)
        ensure(loop_start_thread(kit->loops[i], "test-loop", &e));
}

struct stopping {
    struct loop *loop;
    void (*on_drained)(struct loop *loop);
};

static void stop_loop(void *argument)
{
    struct stopping *stopping = argument;
    if (stopping->on_drained)
        stopping->on_drained(stopping->loop);
    loop_stop(stopping->loop);
    free(stopping);
}

struct drain {
    struct testkit_server *kit;
    int64_t drain_ms;
};

static void drain_main(void *argument)
{
    struct drain *drain = argument;
    struct testkit_server *kit = drain->kit;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e;
    int64_t deadline_ns = clock_monotonic_ns(clock_system()) + drain->drain_ms * 1000000;
    context_init(&ctx, loop_scheduler(kit->loops[0]), arena, deadline_ns);
    kit->has_drained_in_time = http_server_drain(kit->server, &ctx, &e);
    context_deinit(&ctx);
    for (size_t i = 0; i < kit->loop_count; i++) {
        struct stopping *stopping = malloc(sizeof(*stopping));
        ensure(stopping != NULL);
        *stopping = (struct stopping){kit->loops[i], kit->on_drained};
        loop_post(kit->loops[i], stop_loop, stopping);
    }
}

static void start_drain(void *argument)
{
    struct drain *drain = argument;
    struct error e;
    ensure(coroutine_start(loop_scheduler(drain->kit->loops[0]), "drain", drain_main, drain, &e));
}

void testkit_server_stop(struct testkit_server *kit, int64_t drain_ms)
{
    struct drain drain = {kit, drain_ms};
    loop_post(kit->loops[0], start_drain, &drain);
    for (size_t i = 0; i < kit->loop_count; i++)
        loop_join_thread(kit->loops[i]);
    http_server_destroy(kit->server);
    for (size_t i = 0; i < kit->loop_count; i++)
        loop_destroy(kit->loops[i]);
}

/* ---- a raw client ---- */

enum { KEPT_MAX = 4096, ANSWER_BYTES_MAX = 64 << 20 };
static char *kept[KEPT_MAX];
static _Atomic size_t kept_count; /* scripted servers keep from their threads */

static char *keep(char *bytes)
{
    size_t index = atomic_fetch_add(&kept_count, 1);
    ensure(index < KEPT_MAX);
    kept[index] = bytes;
    return bytes;
}

void raw_free_all(void)
{
    while (kept_count > 0)
        free(kept[atomic_fetch_sub(&kept_count, 1) - 1]);
}

static void set_timeouts(int fd)
{
    struct timeval five = {.tv_sec = 5};
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &five, sizeof(five));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &five, sizeof(five));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int raw_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ensure(fd >= 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    set_timeouts(fd);
    ensure(connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0);
    return fd;
}

void raw_send(int fd, str bytes)
{
    while (bytes.len > 0) {
        ssize_t count = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (count <= 0)
            return; /* the peer may refuse before all is sent; the answer tells */
        bytes = str_from(bytes, (size_t) count);
    }
}

str raw_read_all(int fd)
{
    size_t used = 0, capacity = 65536;
    char *bytes = malloc(capacity);
    ensure(bytes != NULL);
    for (;;) {
        if (used == capacity) {
            capacity *= 2;
            ensure(capacity <= ANSWER_BYTES_MAX);
            bytes = realloc(bytes, capacity);
            ensure(bytes != NULL);
        }
        ssize_t count = recv(fd, bytes + used, capacity - used, 0);
        if (count <= 0)
            break;
        used += (size_t) count;
    }
    return str_of(keep(bytes), used);
}

static bool read_byte(int fd, char *out)
{
    return recv(fd, out, 1, 0) == 1;
}

static bool read_exact(int fd, char *out, size_t len)
{
    size_t used = 0;
    while (used < len) {
        ssize_t count = recv(fd, out + used, len - used, 0);
        if (count <= 0)
            return false;
        used += (size_t) count;
    }
    return true;
}

static bool read_head(int fd, str *head)
{
    enum { HEAD_MAX = 65536 };
    char *bytes = keep(malloc(HEAD_MAX));
    size_t used = 0;
    while (used < HEAD_MAX && read_byte(fd, bytes + used)) {
        used++;
        if (used >= 4 && memcmp(bytes + used - 4, "\r\n\r\n", 4) == 0) {
            *head = str_of(bytes, used);
            return true;
        }
    }
    *head = str_of(bytes, used);
    return false;
}

static str head_field(str head, str name)
{
    str line, rest = head;
    while (str_next(&rest, '\n', &line)) {
        str key, value;
        if (str_cut(line, ':', &key, &value) && str_equal_nocase(key, name))
            return str_trim(value);
    }
    return STR_NONE;
}

static bool read_chunks(int fd, str *body)
{
    size_t used = 0, capacity = 1 << 20;
    char *bytes = keep(malloc(capacity));
    for (;;) {
        char line[64];
        size_t len = 0;
        while (len < sizeof(line) - 1 && read_byte(fd, line + len) && line[len] != '\n')
            len++;
        line[len] = 0;
        if (len == 0)
            return false;
        size_t size = strtoul(line, NULL, 16);
        ensure(used + size + 2 <= capacity);
        if (!read_exact(fd, bytes + used, size + 2))
            return false;
        used += size;
        if (size == 0)
            break;
    }
    *body = str_of(bytes, used);
    return true;
}

int raw_status(str answer)
{
    uint64_t status;
    if (!str_starts_with(answer, S("HTTP/1.")) || answer.len < 12 ||
        !str_to_u64(str_slice(answer, 9, 12), &status))
        return 0;
    return (int) status;
}

bool raw_read_answer(int fd, int *status, str *head, str *body)
{
    *body = STR_NONE;
    if (!read_head(fd, head))
        return false;
    *status = raw_status(*head);
    uint64_t length = 0;
    if (str_to_u64(head_field(*head, S("content-length")), &length)) {
        char *bytes = keep(malloc(length + 1));
        *body = str_of(bytes, length);
        return read_exact(fd, bytes, length);
    }
    if (str_equal_nocase(head_field(*head, S("transfer-encoding")), S("chunked")))
        return read_chunks(fd, body);
    return true;
}

bool raw_is_closed(int fd)
{
    char byte;
    ssize_t count;
    do {
        count = recv(fd, &byte, 1, 0);
    } while (count > 0);
    return count == 0 || errno == ECONNRESET;
}

str raw_exchange(uint16_t port, str bytes)
{
    int fd = raw_connect(port);
    raw_send(fd, bytes);
    str answer = raw_read_all(fd);
    close(fd);
    return answer;
}

/* ---- a scripted raw server ---- */

static void *raw_server_main(void *argument)
{
    struct raw_server *server = argument;
    for (;;) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 || atomic_load(&server->is_stopping)) {
            if (fd >= 0)
                close(fd);
            return NULL;
        }
        set_timeouts(fd);
        size_t index = atomic_fetch_add(&server->connection_count, 1);
        server->serve(fd, index, server->argument);
        close(fd);
    }
}

void raw_server_start(struct raw_server *server,
                      void (*serve)(int fd, size_t index, void *argument), void *argument)
{
    *server = (struct raw_server){.serve = serve, .argument = argument};
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    ensure(server->fd >= 0 && bind(server->fd, (struct sockaddr *) &address, sizeof(address)) == 0);
    ensure(listen(server->fd, 128) == 0);
    ensure(getsockname(server->fd, (struct sockaddr *) &address, &len) == 0);
    server->port = ntohs(address.sin_port);
    pthread_t *thread = malloc(sizeof(*thread));
    ensure(thread != NULL);
    server->thread = thread;
    ensure(pthread_create(thread, NULL, raw_server_main, server) == 0);
}

void raw_server_stop(struct raw_server *server)
{
    atomic_store(&server->is_stopping, true);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ensure(fd >= 0);
    (void) !connect(fd, (struct sockaddr *) &address, sizeof(address));
    close(fd);
    pthread_t *thread = server->thread;
    ensure(pthread_join(*thread, NULL) == 0);
    free(thread);
    close(server->fd);
}

str raw_read_request(int fd)
{
    str head;
    if (!read_head(fd, &head))
        return STR_NONE;
    uint64_t length = 0;
    if (!str_to_u64(head_field(head, S("content-length")), &length) || length == 0)
        return head;
    char *bytes = keep(malloc(head.len + length));
    memcpy(bytes, head.ptr, head.len);
    if (!read_exact(fd, bytes + head.len, length))
        return STR_NONE;
    return str_of(bytes, head.len + length);
}

/* ---- certificates ---- */

bool testkit_shell(const char *format, ...)
{
    char command[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *) NULL);
        _exit(127);
    }
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool make_authority(const char *folder, const char *name)
{
    return testkit_shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=%s "
        "-keyout %s/%s.key -out %s/%s.pem 2>/dev/null",
        name, folder, name, folder, name);
}

static bool make_certificate(const char *folder, const char *name, const char *authority)
{
    return testkit_shell("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                         "-subj /CN=%s -keyout %s.key -out %s.csr 2>/dev/null",
                         folder, name, name, name) &&
           testkit_shell("cd %s && openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key "
                         "-CAcreateserial -days 2 -extfile ext -out %s.pem 2>/dev/null",
                         folder, name, authority, authority, name);
}

bool testkit_make_certificates(const char *folder)
{
    return testkit_shell("printf 'subjectAltName=DNS:localhost,IP:127.0.0.2' > %s/ext", folder) &&
           make_authority(folder, "authority") && make_authority(folder, "other") &&
           make_certificate(folder, "server", "authority") &&
           make_certificate(folder, "client", "authority") &&
           make_certificate(folder, "stranger", "other");
}

long testkit_rss_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ensure(file != NULL);
    ensure(fscanf(file, "%*s %ld", &pages) == 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}
