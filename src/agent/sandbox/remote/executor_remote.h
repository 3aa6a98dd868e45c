/*
 * Remote executor: the contract of executor.h with the sandbox in a process of its own.
 *
 *      loops                          supervisor (a thread)                 sandbox process
 *      execute --- link (socket per loop) ------------------------------->  guests
 *              <-- HOST_CALL, RESULT ------------------------------------
 *                                     start, PING, kill, start again  --->
 *                                     a second one, per module: compile
 *
 * - Permissions are checked here, from our own copy of the tool: a host call must belong to a call
 *   that lives, be granted by its tool's manifest and come one at a time; it runs on this side, with
 *   this side's network, files and memory.  A process that breaks a rule is killed and replaced.
 * - Session files travel as read-only descriptors, those that the permissions allow and no others.
 * - Compiled code: our folder, our key.  A module is compiled by a process that is started for it,
 *   has run nothing and ends with it; what comes back is signed here under the digest of the module
 *   that went in, so a module can only ever spoil its own code.  The process that runs guests gets
 *   read-only descriptors of files whose signature was checked, and can keep nothing.
 * - Its end costs the calls in flight one UNAVAILABLE each (may be repeated where the tool is pure or
 *   idempotent; else OUTCOME_UNKNOWN).  It is started again, after a pause that grows while it keeps
 *   ending; a call waits for it up to REMOTE_WAIT_MS.
 * Thread: execute on any loop; create, destroy, prepare anywhere off the loops.
 */
#ifndef NEXUS_AGENT_EXECUTOR_REMOTE_H
#define NEXUS_AGENT_EXECUTOR_REMOTE_H

#include "agent/executor.h"

struct metrics;

struct executor_remote_options {
    str cache_dir;              /* for .cwasm, of this executor alone; made with mode 0700 */
    const char *const *command; /* argv of the process, NULL at the end; run as /proc/self/exe */
    int thread_count, parallel_max; /* as in sandbox_options */
    const struct host_call *host_calls;
    size_t host_call_count;
};
/* Returns when the first process is up. */
must_check bool executor_remote_create(const struct executor_remote_options *options,
                                       struct executor **out, struct error *e);
/* As sandbox_prepare: has the tool's modules compiled when they are not; blocking. */
must_check bool executor_remote_prepare(struct executor *executor, const struct tool *tool,
                                        struct error *e);

struct executor_remote_state {
    int64_t pid;    /* 0: being started again */
    uint32_t walls; /* wall.h */
    int64_t restart_count;
};
/* Any thread. */
struct executor_remote_state executor_remote_state(struct executor *executor);

#endif
