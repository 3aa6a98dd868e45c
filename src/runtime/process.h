/*
 * Process: a child that one talks to by lines over its stdin and stdout.
 *
 *      start --> running --> process_stop: stdin closed --MCP_STOP_MS--> SIGTERM --MCP_STOP_MS--> SIGKILL --> gone
 *
 * - Its environment is what the options say and nothing else; it leads a process group of its own, and the whole group is signalled.
 * - Output is pulled: while nobody reads and enough is buffered, the pipe fills and the child waits.
 * - stderr is handed over by lines, longer ones cut.
 * - Whoever dies without process_stop (kill -9 of the node) leaves the child with a closed stdin, which ends every server that reads it.
 * Thread: the loop's.  A loop does not end before its children have.
 */
#ifndef NEXUS_RUNTIME_PROCESS_H
#define NEXUS_RUNTIME_PROCESS_H

#include "runtime/loop.h"

struct process;

struct process_options {
    const str *
        arguments; /* the first is the program: a path, or a name looked for in the PATH of `environment` */
    size_t argument_count;
    const str *environment; /* "NAME=value" */
    size_t environment_count;
    str directory;                                /* empty: ours */
    size_t line_bytes_max;                        /* of stdout */
    size_t queue_bytes_max;                       /* written and not yet read by the child */
    int64_t stop_ms;                              /* between the steps of process_stop */
    void (*on_error_line)(void *owner, str line); /* of stderr; NULL: dropped */
    void *owner;
};
/* CONFIG: the program cannot be started. */
must_check bool process_start(struct loop *loop, const struct process_options *options,
                              struct process **out, struct error *e);
/* Next line of stdout without its end (and without a \r before it), borrowed until the next call.  One reader at a time.
   UNAVAILABLE at the end, with how the child ended; TOO_LARGE for a line past the bound: then nothing more can be read. */
may_suspend bool process_read_line(struct process *process, struct context *ctx, str *line,
                                   struct error *e);
/* Queues a copy.  UNAVAILABLE: its stdin is closed; OVERLOADED_HERE: it does not read. */
must_check bool process_write(struct process *process, str bytes, struct error *e);
bool process_is_running(const struct process *process);
int64_t process_id(const struct process *process);
/* Begins the end and frees the process when it has come; nothing is called back any more.  NULL is fine. */
void process_stop(struct process *process);

#endif
