/*
 * A model API that costs next to nothing, to put behind a gateway: one thread, one epoll, canned text, no checks.
 *
 *      bench_mock_upstream [--port N] [--tokens N] [--bytes N] [--delay-us N] [--tool NAME ARGUMENTS]
 *
 * Prints "listening on 127.0.0.1:PORT" (port 0, the default: any free one) and answers until SIGTERM or SIGINT:
 *      POST .../chat/completions     an answer of --bytes text; with "stream":true --tokens chunks, --delay-us apart
 *      GET .../models                one model, "mock"
 * With --tool, a request that offers tools and holds no tool result yet is answered by one call of that tool, so that an
 * agent's run is two model calls and one tool call.  Usage: four bytes of request are a token, so requests of different sizes
 * leave different budgets behind.
 *
 * All delays are equal, so the streams in work form a queue that is sorted by itself: the head is due first.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_BYTES_MAX = 1 << 20,
    REPLY_BYTES_MAX = 1 << 20,
    EVENTS_PER_TURN = 256,
    FILES_MAX = 65536,
    NS_PER_US = 1000,
    NS_PER_S = 1000000000,
};

struct connection {
    int fd;
    char *in; /* grows with the request */
    size_t in_bytes, in_capacity;
    char *out; /* what the socket did not take at once */
    size_t out_bytes, out_sent, out_capacity;
    int tokens_left; /* of the stream in work */
    int prompt_tokens;
    bool is_streaming, wants_usage;
    int64_t due_ns;
    struct connection *next, *previous; /* in the queue of streams */
};

struct mock {
    int epoll, listener;
    int tokens, answer_bytes;
    int64_t delay_ns;
    const char *tool_name, *tool_arguments;
    char *text;      /* of an answer */
    char *tool_call; /* "tool_calls":[...] */
    struct connection *first, *last;
};

static const char stream_head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char chunk_start[] =
    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
    "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":";

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *grow(void *memory, size_t bytes)
{
    void *larger = realloc(memory, bytes);
    if (!larger)
        fail("memory");
    return larger;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* ---- connections ---- */

static void queue_remove(struct mock *mock, struct connection *c)
{
    if (!c->is_streaming)
        return;
    *(c->previous ? &c->previous->next : &mock->first) = c->next;
    *(c->next ? &c->next->previous : &mock->last) = c->previous;
    c->next = c->previous = NULL;
    c->is_streaming = false;
}

static void queue_append(struct mock *mock, struct connection *c)
{
    c->is_streaming = true;
    c->next = NULL;
    c->previous = mock->last;
    *(mock->last ? &mock->last->next : &mock->first) = c;
    mock->last = c;
}

static void drop(struct mock *mock, struct connection *c)
{
    queue_remove(mock, c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void watch(struct mock *mock, struct connection *c, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(mock->epoll, operation, c->fd, &event) != 0)
        fail("epoll_ctl");
}

static void accept_all(struct mock *mock)
{
    for (;;) {
        int fd = accept4(mock->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = grow(NULL, sizeof *c);
        *c = (struct connection){.fd = fd};
        watch(mock, c, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
    }
}

/* Sends now what the socket takes, keeps the rest. */
static bool send_bytes(struct mock *mock, struct connection *c, const char *bytes, size_t size)
{
    ssize_t sent = c->out_bytes == 0 ? send(c->fd, bytes, size, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN)
        return false;
    size_t taken = sent > 0 ? (size_t) sent : 0, rest = size - taken;
    if (rest == 0)
        return true;
    if (c->out_bytes + rest > REPLY_BYTES_MAX)
        return false;
    if (c->out_bytes + rest > c->out_capacity) {
        c->out_capacity = 2 * (c->out_bytes + rest);
        c->out = grow(c->out, c->out_capacity);
    }
    if (c->out_bytes == 0)
        watch(mock, c, EPOLLIN | EPOLLOUT | EPOLLRDHUP, EPOLL_CTL_MOD);
    memcpy(c->out + c->out_bytes, bytes + taken, rest);
    c->out_bytes += rest;
    return true;
}

static bool send_rest(struct mock *mock, struct connection *c)
{
    ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    c->out_sent += (size_t) sent;
    if (c->out_sent < c->out_bytes)
        return true;
    c->out_sent = c->out_bytes = 0;
    watch(mock, c, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_MOD);
    return true;
}

/* ---- streams ---- */

/* One HTTP chunk that holds the given events; returns its size. */
static size_t frame(char *out, size_t capacity, const char *events)
{
    int size = snprintf(out, capacity, "%zx\r\n%s\r\n", strlen(events), events);
    return size > 0 && (size_t) size < capacity ? (size_t) size : 0;
}

static bool send_events(struct mock *mock, struct connection *c, const char *events)
{
    char framed[4096];
    size_t size = frame(framed, sizeof framed, events);
    return size > 0 && send_bytes(mock, c, framed, size);
}

static bool send_token(struct mock *mock, struct connection *c)
{
    char events[1024];
    snprintf(events, sizeof events, "%s{\"content\":\"word \"},\"finish_reason\":null}]}\n\n",
             chunk_start);
    c->tokens_left--;
    return send_events(mock, c, events);
}

static bool send_end(struct mock *mock, struct connection *c)
{
    char events[2048], usage[512] = "";
    if (c->wants_usage)
        snprintf(usage, sizeof usage,
                 "data: "
                 "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":"
                 "1700000000,\"model\":\"mock\","
                 "\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_"
                 "tokens\":%d}}\n\n",
                 c->prompt_tokens, mock->tokens, c->prompt_tokens + mock->tokens);
    snprintf(events, sizeof events, "%s{},\"finish_reason\":\"stop\"}]}\n\n%sdata: [DONE]\n\n",
             chunk_start, usage);
    return send_events(mock, c, events) && send_bytes(mock, c, "0\r\n\r\n", 5);
}

/* Sends what is due; without a delay that is all of it. */
static bool advance(struct mock *mock, struct connection *c, int64_t now)
{
    do {
        if (c->tokens_left == 0)
            return send_end(mock, c);
        if (!send_token(mock, c))
            return false;
    } while (mock->delay_ns == 0);
    c->due_ns = now + mock->delay_ns;
    queue_append(mock, c);
    return true;
}

static void advance_due(struct mock *mock)
{
    int64_t now = now_ns();
    while (mock->first && mock->first->due_ns <= now) {
        struct connection *c = mock->first;
        queue_remove(mock, c);
        if (!advance(mock, c, now))
            drop(mock, c);
    }
}

/* ---- whole answers ---- */

static bool send_whole(struct mock *mock, struct connection *c, const char *message,
                       const char *finish)
{
    static char body[REPLY_BYTES_MAX], reply[REPLY_BYTES_MAX + 256];
    int size =
        snprintf(body, sizeof body,
                 "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,"
                 "\"model\":\"mock\",\"choices\":[{"
                 "\"index\":0,\"message\":{\"role\":\"assistant\",%s},\"finish_reason\":\"%s\"}],"
                 "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":20,\"total_tokens\":%d}}",
                 message, finish, c->prompt_tokens, c->prompt_tokens + 20);
    size = snprintf(
        reply, sizeof reply,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size,
        body);
    return send_bytes(mock, c, reply, (size_t) size);
}

static bool send_tool_stream(struct mock *mock, struct connection *c)
{
    char events[4096], framed[4200];
    snprintf(events, sizeof events,
             "%s{\"role\":\"assistant\",%s},\"finish_reason\":null}]}\n\n%s{},\"finish_reason\":"
             "\"tool_calls\"}]}\n\n"
             "data: "
             "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":"
             "1700000000,\"model\":\"mock\","
             "\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":10,\"total_"
             "tokens\":%d}}\n\ndata: [DONE]\n\n",
             chunk_start, mock->tool_call, chunk_start, c->prompt_tokens, c->prompt_tokens + 10);
    size_t size = frame(framed, sizeof framed - 5, events);
    memcpy(framed + size, "0\r\n\r\n", 5);
    return send_bytes(mock, c, stream_head, sizeof stream_head - 1) &&
           send_bytes(mock, c, framed, size + 5);
}

/* ---- requests ---- */

static bool contains(const char *text, size_t size, const char *what)
{
    return memmem(text, size, what, strlen(what)) != NULL;
}

/* "name":value and "name": value */
static bool has_member(const char *body, size_t size, const char *name, const char *value)
{
    char tight[128], spaced[128];
    snprintf(tight, sizeof tight, "\"%s\":%s", name, value);
    snprintf(spaced, sizeof spaced, "\"%s\": %s", name, value);
    return contains(body, size, tight) || contains(body, size, spaced);
}

static bool answer_chat(struct mock *mock, struct connection *c, const char *body, size_t size)
{
    bool is_stream = has_member(body, size, "stream", "true");
    c->prompt_tokens = (int) (size / 4);
    if (mock->tool_name && contains(body, size, "\"tools\"") &&
        !has_member(body, size, "role", "\"tool\""))
        return is_stream ? send_tool_stream(mock, c)
                         : send_whole(mock, c, mock->tool_call, "tool_calls");
    if (!is_stream)
        return send_whole(mock, c, mock->text, "stop");
    c->tokens_left = mock->tokens;
    c->wants_usage = has_member(body, size, "include_usage", "true");
    return send_bytes(mock, c, stream_head, sizeof stream_head - 1) && advance(mock, c, now_ns());
}

static bool answer(struct mock *mock, struct connection *c, const char *head, size_t head_size,
                   const char *body, size_t size)
{
    static const char models[] =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 73\r\n\r\n"
        "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":0}]}\n\n";
    static const char unknown[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    if (contains(head, head_size, "/chat/completions "))
        return answer_chat(mock, c, body, size);
    if (contains(head, head_size, "/models "))
        return send_bytes(mock, c, models, sizeof models - 1);
    return send_bytes(mock, c, unknown, sizeof unknown - 1);
}

/* The number behind "Content-Length:", 0 when there is none. */
static size_t body_size(const char *head, size_t head_size)
{
    for (const char *line = head; line;) {
        if (strncasecmp(line, "content-length:", 15) == 0)
            return strtoul(line + 15, NULL, 10);
        line = memmem(line, head_size - (size_t) (line - head), "\r\n", 2);
        line = line && line + 2 < head + head_size ? line + 2 : NULL;
    }
    return 0;
}

/* Answers each whole request in the buffer; a request that comes while a stream runs waits for its end. */
static bool answer_all(struct mock *mock, struct connection *c)
{
    size_t used = 0;
    while (!c->is_streaming) {
        const char *head = c->in + used;
        size_t left = c->in_bytes - used;
        const char *end = left > 0 ? memmem(head, left, "\r\n\r\n", 4) : NULL;
        if (!end)
            break;
        size_t head_size = (size_t) (end - head) + 4, size = body_size(head, head_size);
        if (size > REQUEST_BYTES_MAX)
            return false;
        if (left - head_size < size)
            break;
        if (!answer(mock, c, head, head_size, head + head_size, size))
            return false;
        used += head_size + size;
    }
    memmove(c->in, c->in + used, c->in_bytes - used);
    c->in_bytes -= used;
    return true;
}

static bool read_all(struct mock *mock, struct connection *c)
{
    for (;;) {
        if (c->in_bytes > REQUEST_BYTES_MAX)
            return false;
        if (c->in_capacity - c->in_bytes < 4096) {
            c->in_capacity = 2 * c->in_capacity + 8192;
            c->in = grow(c->in, c->in_capacity);
        }
        size_t room = c->in_capacity - c->in_bytes - 1;
        ssize_t got = recv(c->fd, c->in + c->in_bytes, room, 0);
        if (got < 0)
            return errno == EAGAIN;
        if (got == 0)
            return false;
        c->in_bytes += (size_t) got;
        c->in[c->in_bytes] = 0; /* body_size reads numbers up to it */
        if (!answer_all(mock, c))
            return false;
        if ((size_t) got < room)
            return true;
    }
}

/* ---- start ---- */

/* The arguments are JSON and go into a JSON text. */
static void quote(const char *from, char *out, size_t capacity)
{
    size_t used = 0;
    for (; *from && used + 2 < capacity; from++) {
        if (*from == '"' || *from == '\\')
            out[used++] = '\\';
        out[used++] = *from;
    }
    out[used] = 0;
}

static void make_answers(struct mock *mock)
{
    char arguments[2048] = "";
    size_t capacity = (size_t) mock->answer_bytes + 64;
    mock->text = grow(NULL, capacity);
    int used = snprintf(mock->text, capacity, "\"content\":\"");
    memset(mock->text + used, 'x', (size_t) mock->answer_bytes);
    snprintf(mock->text + used + mock->answer_bytes,
             capacity - (size_t) (used + mock->answer_bytes), "\"");
    quote(mock->tool_arguments ? mock->tool_arguments : "", arguments, sizeof arguments);
    mock->tool_call = grow(NULL, sizeof arguments + 512);
    snprintf(mock->tool_call, sizeof arguments + 512,
             "\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{"
             "\"name\":\"%s\",\"arguments\":\"%s\"}}]",
             mock->tool_name ? mock->tool_name : "", arguments);
}

static void open_listener(struct mock *mock, uint16_t port)
{
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    mock->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (mock->listener < 0)
        fail("socket");
    setsockopt(mock->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(mock->listener, (struct sockaddr *) &address, size) != 0 ||
        listen(mock->listener, 4096) != 0 ||
        getsockname(mock->listener, (struct sockaddr *) &address, &size) != 0)
        fail("listen");
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
}

static int usage(void)
{
    fprintf(stderr, "usage: mock_upstream [--port N] [--tokens N] [--bytes N] [--delay-us N] "
                    "[--tool NAME ARGUMENTS]\n");
    return 2;
}

static bool read_number(const char *text, long max, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    return end != text && *end == 0 && *out >= 0 && *out <= max;
}

static bool read_arguments(int count, char **arguments, struct mock *mock, uint16_t *port)
{
    for (int i = 1; i < count;) {
        long number;
        if (i + 2 < count && strcmp(arguments[i], "--tool") == 0) {
            mock->tool_name = arguments[i + 1];
            mock->tool_arguments = arguments[i + 2];
            i += 3;
            continue;
        }
        if (i + 1 >= count || !read_number(arguments[i + 1], REPLY_BYTES_MAX / 2, &number))
            return false;
        if (strcmp(arguments[i], "--port") == 0 && number < 65536)
            *port = (uint16_t) number;
        else if (strcmp(arguments[i], "--tokens") == 0)
            mock->tokens = (int) number;
        else if (strcmp(arguments[i], "--bytes") == 0)
            mock->answer_bytes = (int) number;
        else if (strcmp(arguments[i], "--delay-us") == 0)
            mock->delay_ns = number * NS_PER_US;
        else
            return false;
        i += 2;
    }
    return true;
}

static int watch_signals(struct mock *mock)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (fd < 0 || epoll_ctl(mock->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("signalfd");
    return fd;
}

static void handle(struct mock *mock, struct connection *c, uint32_t events)
{
    bool ok = !(events & (EPOLLERR | EPOLLHUP));
    if (ok && events & EPOLLOUT)
        ok = send_rest(mock, c);
    if (ok && events & (EPOLLIN | EPOLLRDHUP))
        ok = read_all(mock, c);
    if (!ok)
        drop(mock, c);
}

/* Until the head of the queue is due, or for ever. */
static int wait_for_events(struct mock *mock, struct epoll_event *events)
{
    if (!mock->first)
        return epoll_wait(mock->epoll, events, EVENTS_PER_TURN, -1);
    int64_t wait = mock->first->due_ns - now_ns();
    if (wait < 0)
        wait = 0;
    struct timespec time = {.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
    return epoll_pwait2(mock->epoll, events, EVENTS_PER_TURN, &time, NULL);
}

int main(int count, char **arguments)
{
    static struct mock mock = {.tokens = 20, .answer_bytes = 256};
    static struct epoll_event events[EVENTS_PER_TURN];
    uint16_t port = 0;
    if (!read_arguments(count, arguments, &mock, &port))
        return usage();
    struct rlimit files = {0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < FILES_MAX ? files.rlim_max : FILES_MAX;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    make_answers(&mock);
    mock.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (mock.epoll < 0)
        fail("epoll_create1");
    watch_signals(&mock);
    open_listener(&mock, port);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = &mock};
    if (epoll_ctl(mock.epoll, EPOLL_CTL_ADD, mock.listener, &listening) != 0)
        fail("epoll_ctl");
    for (;;) {
        int ready = wait_for_events(&mock, events);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (!events[i].data.ptr)
                return 0;
            if (events[i].data.ptr == &mock)
                accept_all(&mock);
            else
                handle(&mock, events[i].data.ptr, events[i].events);
        }
        advance_due(&mock);
    }
}
