#include "agent/sandbox/remote/executor_remote_internal.h"
#include "agent/sandbox/remote/wall.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, HOW_BYTES = 96, CONTROL_WRITE_MS = 200 };

/* What the supervisor knows of the process it watches. */
struct watch {
    uint64_t generation;
    int64_t started_ns, next_ping_ns, heard_ns;
    uint64_t ping_id;
};

static int64_t now_ns(void)
{
    return clock_monotonic_ns(clock_system());
}

static void ring(struct remote *remote)
{
    ssize_t ignored = write(remote->wake[1], "", 1); /* full: it will look anyway */
    (void) ignored;
}

static void drain_wake(struct remote *remote)
{
    char bytes[64];
    while (read(remote->wake[0], bytes, sizeof bytes) > 0)
        ;
}

static bool is_stopping(struct remote *remote)
{
    pthread_mutex_lock(&remote->mutex);
    bool result = remote->is_stopping;
    pthread_mutex_unlock(&remote->mutex);
    return result;
}

static void pause_for(struct remote *remote, int64_t ms)
{
    int64_t until_ns = now_ns() + ms * NS_PER_MS;
    while (!is_stopping(remote)) {
        int64_t left_ms = (until_ns - now_ns() + NS_PER_MS - 1) / NS_PER_MS;
        struct pollfd entry = {.fd = remote->wake[0], .events = POLLIN};
        if (left_ms <= 0 || poll(&entry, 1, (int) left_ms) == 0)
            return;
        drain_wake(remote);
    }
}

/* ---- one process ---- */

static bool begin(struct remote *remote, struct watch *watch, struct error *e)
{
    struct remote_process process;
    if (!remote_process_start(remote->options.command, &remote->hello, &process, e))
        return false;
    pthread_mutex_lock(&remote->mutex);
    remote->process = process;
    watch->generation = ++remote->generation;
    pthread_mutex_unlock(&remote->mutex);
    watch->started_ns = watch->heard_ns = now_ns();
    watch->next_ping_ns = watch->started_ns;
    return true;
}

static bool ping(struct remote *remote, struct watch *watch, const char **why)
{
    struct error e;
    struct packet packet = {.type = REMOTE_PING, .id = ++watch->ping_id, .descriptor = -1};
    int64_t now = now_ns();
    *why = "it has given no sign of life";
    if (now - watch->heard_ns > (int64_t) REMOTE_HUNG_MS * NS_PER_MS)
        return false;
    watch->next_ping_ns = now + (int64_t) REMOTE_PING_MS * NS_PER_MS;
    pthread_mutex_lock(&remote->mutex);
    /* A process that does not read its socket for so long is heard of no more either. */
    bool is_sent =
        packet_write(remote->process.control, &packet, now, &e) || e.code == ERROR_TIMEOUT;
    pthread_mutex_unlock(&remote->mutex);
    *why = "it has ended";
    return is_sent;
}

static bool hear(struct remote *remote, struct watch *watch, const char **why)
{
    struct packet packet;
    struct error e;
    enum packet_status status = packet_read(remote->process.reader, &packet, &e);
    if (status == PACKET_NOT_YET)
        return true;
    *why = status == PACKET_END ? "it has ended" : "it broke the protocol";
    if (status != PACKET_READY)
        return false;
    *why = "it broke the protocol";
    if (packet.descriptor >= 0)
        close(packet.descriptor);
    if (packet.type != REMOTE_PONG || packet.descriptor >= 0 || packet.id == 0 ||
        packet.id > watch->ping_id)
        return false;
    watch->heard_ns = now_ns();
    return true;
}

static bool is_doomed(struct remote *remote, const struct watch *watch, const char **why)
{
    pthread_mutex_lock(&remote->mutex);
    bool result = remote->is_stopping || remote->doomed_generation == watch->generation;
    *why = remote->is_stopping ? NULL : "it broke a rule or did not end a call";
    pthread_mutex_unlock(&remote->mutex);
    return result;
}

/* Until it must end; *why is NULL when we stop. */
static void attend(struct remote *remote, struct watch *watch, const char **why)
{
    while (!is_doomed(remote, watch, why)) {
        struct pollfd entries[] = {{.fd = remote->wake[0], .events = POLLIN},
                                   {.fd = remote->process.control, .events = POLLIN},
                                   {.fd = remote->process.log, .events = POLLIN}};
        int64_t left_ms = (watch->next_ping_ns - now_ns()) / NS_PER_MS + 1;
        if (poll(entries, ARRAY_COUNT(entries), left_ms > 0 ? (int) left_ms : 0) < 0)
            continue;
        if (entries[0].revents)
            drain_wake(remote);
        if (entries[2].revents & POLLIN)
            remote_process_relay_log(&remote->process);
        if (entries[1].revents && !hear(remote, watch, why))
            return;
        if (now_ns() >= watch->next_ping_ns && !ping(remote, watch, why))
            return;
    }
}

static void finish(struct remote *remote, const struct watch *watch, const char *why)
{
    char how[HOW_BYTES];
    pthread_mutex_lock(&remote->mutex);
    struct remote_process process = remote->process;
    remote->process = (struct remote_process){.control = -1, .log = -1};
    remote->restart_count += why != NULL;
    pthread_mutex_unlock(&remote->mutex);
    int64_t pid = process.pid;
    remote_process_relay_log(&process);
    remote_process_end(&process, how, sizeof how);
    if (why)
        LOG_WARN("agent.process", S("the sandbox process has ended and is started again"),
                 LOG_I64("process.pid", pid), LOG_STR("error.message", str_from_cstr(why)),
                 LOG_STR("process.end", str_from_cstr(how)),
                 LOG_I64("process.lived_ms", (now_ns() - watch->started_ns) / NS_PER_MS));
}

/* ---- the thread ---- */

static void *supervise(void *argument)
{
    struct remote *remote = argument;
    struct watch watch = {.generation = remote->generation};
    int64_t backoff_ms = REMOTE_BACKOFF_MS;
    watch.started_ns = watch.heard_ns = now_ns();
    while (!is_stopping(remote)) {
        struct error e;
        if (remote->process.pid == 0 && !begin(remote, &watch, &e)) {
            pthread_mutex_lock(&remote->mutex);
            remote->start_error = e;
            pthread_mutex_unlock(&remote->mutex);
            LOG_ERROR("agent.process", S("the sandbox process does not start"), &e);
        } else {
            const char *why = NULL;
            attend(remote, &watch, &why);
            if (now_ns() - watch.started_ns > (int64_t) REMOTE_STEADY_MS * NS_PER_MS)
                backoff_ms = REMOTE_BACKOFF_MS;
            finish(remote, &watch, why);
        }
        pause_for(remote, backoff_ms);
        backoff_ms =
            2 * backoff_ms < REMOTE_BACKOFF_MS_MAX ? 2 * backoff_ms : REMOTE_BACKOFF_MS_MAX;
    }
    return NULL;
}

/* All signals stay with the main thread; the processes it starts have their own masks. */
static int start_thread(struct remote *remote)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&remote->supervisor, NULL, supervise, remote);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

bool supervisor_start(struct remote *remote, struct error *e)
{
    if (pipe2(remote->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_set(e, REASON_UNAVAILABLE, "a pipe: %s", strerrordesc_np(errno));
    int failure = start_thread(remote);
    if (failure != 0)
        return error_set(e, REASON_UNAVAILABLE, "start a thread: %s", strerrordesc_np(failure));
    remote->has_supervisor = true;
    /* The first process tells whether it can work at all. */
    int64_t deadline_ns = now_ns() + (int64_t) REMOTE_START_MS * NS_PER_MS;
    for (;;) {
        pthread_mutex_lock(&remote->mutex);
        bool is_up = remote->process.pid > 0, has_failed = remote->start_error.code != ERROR_OK;
        struct error why = remote->start_error;
        pthread_mutex_unlock(&remote->mutex);
        if (is_up)
            return true;
        if (has_failed)
            return error_copy(e, &why);
        if (now_ns() > deadline_ns)
            return error_set(e, REASON_TIMEOUT, "the sandbox process does not start");
        struct pollfd nothing = {.fd = -1};
        (void) !poll(&nothing, 1, 1);
    }
}

void supervisor_stop(struct remote *remote)
{
    pthread_mutex_lock(&remote->mutex);
    remote->is_stopping = true;
    pthread_mutex_unlock(&remote->mutex);
    if (remote->has_supervisor) {
        ring(remote);
        pthread_join(remote->supervisor, NULL);
    }
    for (size_t i = 0; i < ARRAY_COUNT(remote->wake); i++)
        if (remote->wake[i] >= 0)
            close(remote->wake[i]);
}

void supervisor_kill(struct remote *remote, uint64_t generation)
{
    pthread_mutex_lock(&remote->mutex);
    if (generation > remote->doomed_generation)
        remote->doomed_generation = generation;
    pthread_mutex_unlock(&remote->mutex);
    ring(remote);
}

bool supervisor_connect(struct remote *remote, int *out_fd, uint64_t *generation,
                        char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1])
{
    int ends[2];
    struct error e;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return false;
    struct packet packet = {.type = REMOTE_LINK, .descriptor = ends[1]};
    pthread_mutex_lock(&remote->mutex);
    bool is_up = remote->process.pid > 0 && remote->doomed_generation < remote->generation;
    bool is_ok = is_up && packet_write(remote->process.control, &packet,
                                       now_ns() + CONTROL_WRITE_MS * NS_PER_MS, &e);
    *generation = remote->generation;
    memcpy(code_version, remote->process.code_version, REMOTE_CODE_VERSION_BYTES_MAX + 1);
    pthread_mutex_unlock(&remote->mutex);
    close(ends[1]);
    if (is_ok)
        *out_fd = ends[0];
    else
        close(ends[0]);
    return is_ok;
}
