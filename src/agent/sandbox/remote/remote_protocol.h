/*
 * Remote protocol: what the orchestrator's side (executor_remote.h) and the sandbox process
 * (remote_server.h) say to each other, in packets (net/packet.h).
 *
 *      control (one per process)                 link (one per loop of the orchestrator's side)
 *      HELLO  ->  <- READY                       TOOL, MODULE+fd, CODE+fd  ->     once per tool
 *      LINK+fd ->  (a link is born)              FILE+fd*, EXECUTE  ->
 *      PING   ->  <- PONG                          <- HOST_CALL, ANSWER ->        any number, in turn
 *      to compile: TOOL, MODULE+fd, CODE+fd,       CANCEL ->                      at most one
 *      COMPILE -> <- COMPILED                      <- RESULT                      always the last
 *
 * The sandbox process is held for hostile: every message of its is checked for form here and for
 * sense by executor_remote (a call that lives, a host call that the tool's manifest grants), and it
 * never sends a descriptor.  Numbers are little endian, texts are u32 length and bytes.
 * Every reader bounds what it allocates; a message must be used up to its last byte.
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_AGENT_REMOTE_PROTOCOL_H
#define NEXUS_AGENT_REMOTE_PROTOCOL_H

#include "agent/executor.h"
#include "base/strbuf.h"

enum { REMOTE_VERSION = 1 };

enum remote_type {
    REMOTE_HELLO = 1,
    REMOTE_READY,
    REMOTE_LINK,
    REMOTE_PING,
    REMOTE_PONG,
    REMOTE_TOOL, /* id: a number of the link's for the tool */
    REMOTE_MODULE,
    REMOTE_CODE,
    REMOTE_DROP, /* the tool's number is free again */
    REMOTE_COMPILE,
    REMOTE_COMPILED,
    REMOTE_FILE, /* id: of the call, here and below */
    REMOTE_EXECUTE,
    REMOTE_CANCEL,
    REMOTE_HOST_CALL,
    REMOTE_ANSWER,
    REMOTE_RESULT,
};

enum remote_mode { REMOTE_RUNS, REMOTE_COMPILES };

struct remote_hello {
    enum remote_mode mode;
    int32_t thread_count, parallel_max; /* as in sandbox_options */
    str *host_calls;
    size_t host_call_count;
};
void remote_write_hello(struct strbuf *b, const struct remote_hello *hello);
must_check bool remote_read_hello(struct arena *arena, str body, struct remote_hello *out,
                                  struct error *e);

struct remote_ready {
    str code_version; /* part of file names: letters, digits, '.', '-' */
    uint32_t walls;   /* of enum wall: what the process found to hold when it tried */
};
void remote_write_ready(struct strbuf *b, const struct remote_ready *ready);
must_check bool remote_read_ready(str body, struct remote_ready *out, struct error *e);

/* What of a tool depends on its identity alone; the rest travels with each call, for it may differ
   by configuration and tenant. */
void remote_write_tool(struct strbuf *b, const struct tool *tool);
must_check bool remote_read_tool(struct arena *arena, str body, struct tool *out, struct error *e);
/* The modules of a tool in one list: the main one, or those of tool->modules. */
size_t remote_module_count(const struct tool *tool);
digest remote_module_digest(const struct tool *tool, size_t index);
str remote_module_path(const struct tool *tool, size_t index);
void remote_module_set_path(struct tool *tool, size_t index, str path);

/* MODULE and CODE: of which module the descriptor is. */
struct remote_piece {
    uint32_t index;
    bool is_wanted; /* CODE to be written, not read */
};
void remote_write_piece(struct strbuf *b, const struct remote_piece *piece);
must_check bool remote_read_piece(str body, struct remote_piece *out, struct error *e);

/* A file that the call may see.  Without a descriptor it may not. */
struct remote_file {
    str name;
    int64_t bytes;
};
void remote_write_file(struct strbuf *b, const struct remote_file *file);
must_check bool remote_read_file(str body, struct remote_file *out, struct error *e);

struct remote_call {
    uint64_t tool_number;
    int64_t left_ms; /* until the caller's deadline; -1: none */
    struct tool
        tool; /* names, limits, permissions, host calls: what remote_write_tool leaves out */
    bool has_notebook;
    struct tool_notebook notebook;
    str input;
};
void remote_write_call(struct strbuf *b, const struct remote_call *call);
/* Texts point into body. */
must_check bool remote_read_call(struct arena *arena, str body, struct remote_call *out,
                                 struct error *e);

struct remote_host_call {
    str name, input;
};
void remote_write_host_call(struct strbuf *b, const struct remote_host_call *call);
must_check bool remote_read_host_call(str body, struct remote_host_call *out, struct error *e);

/* ANSWER, COMPILED, RESULT: the outcome is an output or an error; figures only in RESULT. */
struct remote_result {
    bool is_ok;
    struct error error;
    struct tool_result result;
};
void remote_write_result(struct strbuf *b, const struct remote_result *result);
must_check bool remote_read_result(str body, struct remote_result *out, struct error *e);

#endif
