/*
 * Remote process: one sandbox process (remote_server.h), from the outside: started, greeted, ended.
 *
 * It gets a socket as descriptor 3, a pipe as standard error, an empty environment and nothing
 * else; a process group of its own.  Blocking.  Thread: any, but the one that starts it must live as
 * long as the process: it dies with that thread.
 */
#ifndef NEXUS_AGENT_REMOTE_PROCESS_H
#define NEXUS_AGENT_REMOTE_PROCESS_H

#include "agent/sandbox/remote/remote_protocol.h"
#include "base/limits.h"
#include "net/packet.h"
#include <sys/types.h>

enum { REMOTE_CONTROL_FD = 3 };

struct remote_process {
    pid_t pid;   /* 0: none */
    int control; /* -1: none */
    int log;     /* its standard error, does not wait */
    struct packet_reader *reader;
    char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1];
    uint32_t walls;
};

/* `command`: argv, NULL at the end; it must end up in remote_server_run(REMOTE_CONTROL_FD). */
must_check bool remote_process_start(const char *const *command, const struct remote_hello *hello,
                                     struct remote_process *out, struct error *e);
/* Kills it, waits for it, closes all; "killed by signal 9" into how. */
void remote_process_end(struct remote_process *process, char *how, size_t how_bytes);
/* What it wrote to standard error since the last time goes to our log, bounded and escaped. */
void remote_process_relay_log(struct remote_process *process);

#endif
