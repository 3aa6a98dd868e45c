#include "agent/sandbox/remote/remote_process.h"

#include "agent/sandbox/remote/wall.h"
#include "base/arena.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, LOG_BYTES = 1024, DESCRIPTORS = 4 };

static void close_all(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* 0, 1: the socket's ends; 2, 3: the pipe's.  All above the numbers that the new process uses. */
static bool make_descriptors(int fds[DESCRIPTORS])
{
    for (size_t i = 0; i < DESCRIPTORS; i++)
        fds[i] = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0 ||
        pipe2(fds + 2, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    for (size_t i = 0; i < DESCRIPTORS; i++) {
        if (fds[i] > REMOTE_CONTROL_FD)
            continue;
        int higher = fcntl(fds[i], F_DUPFD_CLOEXEC, REMOTE_CONTROL_FD + 1);
        close(fds[i]);
        fds[i] = higher;
        if (higher < 0)
            return false;
    }
    return true;
}

static int spawn(const char *const *command, int socket_fd, int log_fd, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    char *no_environment[] = {NULL};
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
    posix_spawn_file_actions_adddup2(&actions, socket_fd, REMOTE_CONTROL_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, REMOTE_CONTROL_FD + 1);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETSIGMASK);
    int failure = posix_spawn(pid, "/proc/self/exe", &actions, &attributes,
                              (char *const *) (uintptr_t) command, no_environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failure;
}

static bool greet(struct remote_process *process, const struct remote_hello *hello, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf body;
    struct packet packet;
    struct remote_ready ready;
    int64_t deadline_ns =
        clock_monotonic_ns(clock_system()) + (int64_t) REMOTE_START_MS * NS_PER_MS;
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_hello(&body, hello);
    packet = (struct packet){.type = REMOTE_HELLO, .body = strbuf_str(&body), .descriptor = -1};
    if (!packet_write(process->control, &packet, deadline_ns, e) ||
        !packet_read_until(process->reader, deadline_ns, &packet, e))
        return false;
    if (packet.descriptor >= 0)
        close(packet.descriptor);
    if (packet.type != REMOTE_READY || packet.descriptor >= 0)
        return error_set(e, REASON_INVALID, "it does not begin as it should");
    if (!remote_read_ready(packet.body, &ready, e))
        return false;
    if ((ready.walls & WALL_NEEDED) != WALL_NEEDED)
        return error_set(e, REASON_UNAVAILABLE, "its wall does not stand");
    process->walls = ready.walls;
    snprintf(process->code_version, sizeof process->code_version, STR_FMT,
             STR_ARG(ready.code_version));
    return true;
}

bool remote_process_start(const char *const *command, const struct remote_hello *hello,
                          struct remote_process *out, struct error *e)
{
    int fds[DESCRIPTORS];
    *out = (struct remote_process){.control = -1, .log = -1};
    if (!make_descriptors(fds)) {
        int failure = errno;
        close_all(fds, DESCRIPTORS);
        return error_set(e, REASON_UNAVAILABLE, "sockets for the sandbox process: %s",
                         strerrordesc_np(failure));
    }
    int failure = spawn(command, fds[1], fds[3], &out->pid);
    close(fds[1]);
    close(fds[3]);
    out->control = fds[0];
    out->log = fds[2];
    if (failure != 0) {
        out->pid = 0;
        remote_process_end(out, NULL, 0);
        return error_set(e, REASON_UNAVAILABLE, "start the sandbox process: %s",
                         strerrordesc_np(failure));
    }
    out->reader = packet_reader_create(out->control, REMOTE_BODY_BYTES_MAX);
    if (greet(out, hello, e))
        return true;
    remote_process_relay_log(out);
    char how[64];
    remote_process_end(out, how, sizeof how);
    return error_wrap(e, "start the sandbox process (%s)", how);
}

static void tell_how(int status, char *how, size_t how_bytes)
{
    if (WIFSIGNALED(status))
        snprintf(how, how_bytes, "ended by signal %d%s", WTERMSIG(status),
                 WTERMSIG(status) == SIGSYS ? ", for a forbidden system call" : "");
    else
        snprintf(how, how_bytes, "ended with code %d", WEXITSTATUS(status));
}

void remote_process_end(struct remote_process *process, char *how, size_t how_bytes)
{
    int status = 0;
    if (how)
        snprintf(how, how_bytes, "not started");
    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        while (waitpid(process->pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (how)
            tell_how(status, how, how_bytes);
    }
    packet_reader_destroy(process->reader);
    if (process->control >= 0)
        close(process->control);
    if (process->log >= 0)
        close(process->log);
    *process = (struct remote_process){.control = -1, .log = -1};
}

void remote_process_relay_log(struct remote_process *process)
{
    char text[LOG_BYTES];
    ssize_t got = process->log >= 0 ? read(process->log, text, sizeof text) : 0;
    if (got <= 0)
        return;
    LOG_WARN("agent.process", S("the sandbox process says"), LOG_I64("process.pid", process->pid),
             LOG_STR("error.message", str_trim(str_of(text, (size_t) got))));
}
