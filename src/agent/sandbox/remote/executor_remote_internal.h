/*
 * The orchestrator's side of the sandbox process, from inside:
 *   executor_remote.c         one call
 *   executor_remote_link.c    the link of a loop: its tools and calls, what comes over it
 *   executor_remote_child.c   the supervisor thread
 *   executor_remote_code.c    compiled code: folder, key, compiling
 */
#ifndef NEXUS_AGENT_EXECUTOR_REMOTE_INTERNAL_H
#define NEXUS_AGENT_EXECUTOR_REMOTE_INTERNAL_H

#include "agent/sandbox/remote/executor_remote.h"
#include "agent/sandbox/remote/remote_process.h"
#include "agent/sandbox/remote/remote_protocol.h"
#include "base/list.h"
#include "base/map.h"
#include "net/packet.h"
#include "runtime/loop.h"
#include <pthread.h>

struct remote_codes; /* executor_remote_code.c */
struct link;

struct remote {
    struct executor base;
    struct executor_remote_options options; /* texts and lists are in `arena` */
    struct arena *arena;
    struct remote_hello hello;
    struct remote_codes *codes;

    pthread_mutex_t mutex;
    struct remote_process process; /* pid 0 while there is none */
    uint64_t generation;           /* of the process; 0: none yet */
    uint64_t doomed_generation;    /* to be killed */
    bool is_stopping;
    int64_t restart_count;
    struct error start_error; /* of the newest start that failed */
    int wake[2];              /* a pipe: the supervisor looks at the fields above */
    pthread_t supervisor;
    bool has_supervisor;

    struct link *links[LOOP_COUNT_MAX]; /* each touched by its loop alone */
};

/* ---- executor_remote_child.c ---- */
must_check bool supervisor_start(struct remote *remote, struct error *e);
void supervisor_stop(struct remote *remote);
/* The process of this generation has broken a rule or hangs.  Any thread. */
void supervisor_kill(struct remote *remote, uint64_t generation);
/* A new link to the process there is; false when there is none. */
bool supervisor_connect(struct remote *remote, int *out_fd, uint64_t *generation,
                        char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1]);

/* ---- executor_remote_code.c.  Blocking, any thread ---- */
must_check bool remote_codes_create(str dir, struct remote_codes **out, struct error *e);
void remote_codes_destroy(struct remote_codes *codes);
struct remote_pieces {
    int modules[REMOTE_MODULES_MAX]; /* read-only descriptors of .wasm files */
    int codes[REMOTE_MODULES_MAX];   /* and of their code, checked; -1: none */
    size_t count;
};
/* Opens all that a tool needs, compiling what is not there.  is_busy: another thread compiles, look
   again later. */
must_check bool remote_codes_open(struct remote *remote, const struct tool *tool,
                                  const char *code_version, struct remote_pieces *out,
                                  bool *is_busy, struct error *e);
void remote_pieces_close(struct remote_pieces *pieces);

/* ---- executor_remote_link.c.  On the link's loop ---- */

/* A tool that the other side knows. */
struct link_tool {
    struct list link; /* most recently used first */
    digest identity;
    uint64_t number;
    size_t use_count;
};

struct remote_flight {
    struct list link; /* in the link's bucket */
    uint64_t id;
    const struct tool_request *request;
    struct condition changed;
    struct context *host_ctx; /* of the host call that runs; cancelled when the call ends */
    size_t host_call_count;
    char *host_call; /* malloc: the body of a HOST_CALL that waits to be run; NULL: none */
    size_t host_call_bytes;
    bool runs_host_call;
    char *result; /* malloc: the body of RESULT */
    size_t result_bytes;
    bool is_lost; /* the process has ended */
};

enum { FLIGHT_BUCKETS = 256 };
struct link {
    struct remote *remote;
    struct loop *loop;
    struct at_stop at_stop;
    struct packet_channel *channel; /* NULL: no process */
    uint64_t generation, next_id, next_tool;
    char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1];
    struct list tools;
    struct map *tool_index; /* by identity */
    struct list flights[FLIGHT_BUCKETS];
    size_t flight_count;
};

struct link *link_of_loop(struct remote *remote, struct loop *loop);
/* Waits for a process, bounded. */
may_suspend bool link_ready(struct link *link, struct context *ctx, struct error *e);
/* The tool as the other side knows it, announced when it does not.  NULL with e; or the link has
   changed meanwhile: NULL with is_stale. */
may_suspend struct link_tool *link_tool(struct link *link, struct context *ctx,
                                        const struct tool *tool, bool *is_cold, bool *is_stale,
                                        struct error *e);
void link_add_flight(struct link *link, struct remote_flight *flight);
void link_remove_flight(struct link *link, struct remote_flight *flight);
must_check bool link_send(struct link *link, enum remote_type type, uint64_t id, str body, int fd,
                          struct error *e);
/* Kills the process: it broke a rule. */
void link_breach(struct link *link, const char *what);

#endif
