/*
 * Executor: runs one tool call.  The boundary between orchestrator and agent core (later also over HTTP).
 *
 * execute: validates the input against the tool's schema (REASON_SCHEMA with instance paths a model can act on), runs a fresh sandbox
 * instance under fuel, time, memory, table and output limits, validates the output, gives result and figures.  Each limit ends the call
 * with its own reason (FUEL, TIME_LIMIT, MEMORY_LIMIT, OUTPUT_LIMIT, STACK_LIMIT, TRAP); the process and other calls are unharmed.
 * Cancelling ctx ends the guest within about 20 ms.
 * Parallel calls: each from its own coroutine; at most `parallel_max` guests at once, the rest wait in order, bounded
 * (REASON_OVERLOADED_HERE).
 * Implementations: sandbox (wasmtime); the simulation has its own.
 */
#ifndef NEXUS_AGENT_EXECUTOR_H
#define NEXUS_AGENT_EXECUTOR_H

#include "agent/tool/labels.h"
#include "agent/tool/tool.h"
#include "runtime/context.h"

/* Files of the session, as the guest may see them: paths are resolved here, never by the guest. */
struct tool_files {
    void *owner;
    /* Path of a file to open for reading (absolute, ours), on the arena; NOT_FOUND names the files there are. */
    may_suspend bool (*resolve)(void *owner, struct context *ctx, str name, str *path,
                                int64_t *bytes, struct error *e);
};

/* Calls of a guest to other tools: policy, budget and audit are the orchestrator's, as for a call of the model. */
struct tool_calls {
    void *owner;
    /* `output` on ctx's arena. */
    may_suspend bool (*call)(void *owner, struct context *ctx, str name, str input, str *output,
                             struct error *e);
};

/* What host calls gave the guest that knew its label better than the manifest can (memory); filled on the loop of the call. */
struct tool_heard {
    struct label label; /* joined over the calls */
    bool is_told;
};

/* A notebook (notebooks.h), told apart by digests: who runs guests need not know who they are for. */
struct tool_notebook {
    digest self, session, tenant; /* `self`: over tenant, session, user, tool, module and name */
    size_t memory_bytes;
    int64_t idle_ns;
    uint32_t per_session_max;
};

struct tool_request {
    const struct tool *tool; /* alive until execute returns */
    str input;               /* JSON text */
    uuid tenant_id, session_id, run_id,
        call_id; /* session and run may be UUID_NONE (direct invocation) */
    str user_id;
    str effect_key;                 /* passed to host calls with effects as Idempotency-Key */
    const struct tool_files *files; /* NULL: no files */
    str *
        file_names; /* names of the session's files, for resolving ahead: guests run on other threads */
    size_t file_name_count;
    const struct tool_calls *calls; /* NULL: the guest may call no other tool */
    bool is_nested;           /* a guest makes it: its caller's place counts (executor_guard.h) */
    str role;                 /* of the caller, for host calls that depend on it */
    uuid key_id;              /* whose account is charged too; UUID_NONE: none */
    struct label label;       /* of the input; without origins: nothing is known */
    struct tool_heard *heard; /* NULL: nobody asks */
    const struct tool_notebook *
        notebook; /* only between an executor and the process it runs guests in; else the input tells */
};
struct tool_result {
    str output; /* JSON text on ctx's arena */
    int64_t latency_ms, latency_us;
    int64_t fuel;
    size_t memory_bytes; /* peak of linear memory */
    int64_t cpu_us;      /* of the guest's thread; 0: not measured (another machine ran it) */
    bool is_cold;        /* code had to be loaded or compiled first */
    str profile; /* where its CPU time went, folded (profile.h); empty: it took under 20 ms */
    str log;     /* what the guest wrote to stderr or log(), at most 4 KiB */
};

struct executor;
struct executor_ops {
    const char *name;
    may_suspend bool (*execute)(struct executor *executor, struct context *ctx,
                                const struct tool_request *request, struct tool_result *out,
                                struct error *e);
    void (*destroy)(struct executor *executor);
};
struct executor {
    const struct executor_ops *ops;
};
/* On error `out` still has the figures (latency, fuel) that are known. */
may_suspend bool executor_execute(struct executor *executor, struct context *ctx,
                                  const struct tool_request *request, struct tool_result *out,
                                  struct error *e);
void executor_destroy(struct executor *executor);

/*
 * The sandbox: host calls (the only way out of a guest) go through this table; each checks the call's permissions.
 * A host call runs as a coroutine on the loop that called execute; the guest waits without holding a thread.
 */
struct host_call {
    const char *name; /* "clock", "http_request" */
    may_suspend bool (*run)(void *owner, struct context *ctx, const struct tool_request *request,
                            str input_json, str *output_json, struct error *e);
    void *owner;
};
/* Compiled code that somebody else keeps, for a sandbox without a folder (remote_server.h). */
struct sandbox_code {
    void *owner;
    /* A descriptor to read it from, the caller's to close; -1: it must be compiled. */
    int (*open)(void *owner, digest module);
    void (*save)(void *owner, digest module, str content);
};
/* Which notebook a call wants, if any.  Refused: notebooks are off, the call has no session, the name is too long, or the
   module cannot keep any. */
struct notebook_wish {
    bool is_there;
    struct tool_notebook of;
};
must_check bool notebook_of_call(const struct tool_request *request, const struct json *input,
                                 const struct tool_module *module, struct notebook_wish *out,
                                 struct error *e);
struct sandbox_options {
    str cache_dir;                   /* for .cwasm; made with mode 0700 */
    const struct sandbox_code *code; /* in place of cache_dir */
    int thread_count;                /* 0: number of cores */
    int parallel_max;                /* 0: 64 */
    const struct host_call *host_calls;
    size_t host_call_count;
    struct clock *clock;
};
must_check bool sandbox_create(const struct sandbox_options *options, struct executor **out,
                               struct error *e);
/* Compiles (or loads) a tool's module ahead of time; blocking. */
must_check bool sandbox_prepare(struct executor *sandbox, const struct tool *tool, struct error *e);
/* Which code it can load: wasmtime's version and a hash of the settings; part of a file's name. */
str sandbox_code_version(struct executor *sandbox);

#endif
