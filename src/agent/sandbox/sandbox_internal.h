/*
 * The sandbox from inside: who owns a guest when.
 *
 *      loop (sandbox.c)                     sandbox threads (sandbox_threads.c)
 *      execute: checks, files, module
 *      threads_submit  -------------------> ADMITTED -> RUNNING <-> READY    guest_run_slice()
 *                                                         |  ^
 *      host call as a coroutine  <--- loop_post --- WAITING  | threads_resume
 *      answer  ----------------------------------------------+
 *      execute goes on  <------------ loop_post ------- ENDED
 *
 * - Exactly one side works on a guest at a time; the scheduler's mutex and loop_post hand it over.
 *   Only `is_cancelled` is shared.
 * - execute returns only after the guest has ended, so a guest may borrow from the request (input,
 *   tool, effect key).
 * - Guests run on wasmtime's own stacks; C frames of ours never stay on them across a suspension.
 */
#ifndef NEXUS_AGENT_SANDBOX_INTERNAL_H
#define NEXUS_AGENT_SANDBOX_INTERNAL_H

#include "agent/executor.h"
#include "agent/sandbox/notebooks.h"
#include "base/limits.h"
#include "runtime/loop.h"
#include <stdatomic.h>

struct engine;       /* sandbox_engine.c */
struct prepared;     /* sandbox_module.c: a tool's compiled module and schemas */
struct module_cache; /* sandbox_module.c */
struct threads;      /* sandbox_threads.c */
struct instance;     /* sandbox_guest.c: the wasm side of a guest */

enum guest_state {
    GUEST_ADMITTED, /* waits for a place among the parallel_max */
    GUEST_READY,    /* waits for a thread */
    GUEST_RUNNING,  /* on a thread */
    GUEST_WAITING,  /* for a host call's answer; holds no thread */
    GUEST_SLEEPING, /* for `wake_ns` */
    GUEST_ENDED,
};

/* Why a guest was stopped by us, when it was. */
enum guest_stop {
    GUEST_STOP_NONE,
    GUEST_STOP_CANCELLED,
    GUEST_STOP_TIME,
    GUEST_STOP_CPU,
    GUEST_STOP_OUTPUT,
    GUEST_STOP_EXIT,     /* the guest called proc_exit */
    GUEST_STOP_ABUSE,    /* a pointer outside its memory, too many host calls: stop_text says */
    GUEST_STOP_REPORTED, /* guest->error says it already */
};

struct guest_file {
    str name;
    char *path; /* ours, resolved before the guest started */
    int64_t bytes;
    int fd; /* -1 until first used */
    bool is_denied;
};

/* One host call in flight; the guest waits for it. */
struct guest_call {
    const struct host_call *host;
    char *request; /* malloc */
    size_t request_bytes;
    char *answer; /* malloc; JSON */
    size_t answer_bytes;
    atomic_bool is_answered;
};

struct guest {
    struct list link;       /* in one of the scheduler's queues */
    enum guest_state state; /* under the scheduler's mutex */
    struct sandbox *sandbox;
    struct prepared *prepared;
    const struct tool_request *request;
    struct tool_module module; /* of the tool, the one that this input asks for */
    struct loop *loop;
    struct context *ctx; /* the caller's; host calls run below it */

    /* Limits, lowered by permissions. */
    struct tool_limits limits;
    int64_t cpu_limit_ns; /* 0: none */
    int64_t deadline_ns; /* set when it starts: of the call or of the caller, whichever is nearer */
    bool is_callers_deadline;

    /* The run. */
    atomic_bool is_cancelled;
    bool is_heavy; /* used up a whole slice: runs after those that did not */
    int64_t slice_start_ns, slice_start_cpu_ns, cpu_ns, wake_ns;
    struct instance *instance;
    bool has_begun;            /* its first slice */
    struct notebook *notebook; /* its instance comes from there and goes back; NULL: none */
    bool has_returned;         /* by itself, so that its instance is sound */
    struct guest_call call;
    size_t call_count;
    enum error_reason denied_reason; /* of the last host call that was refused */
    struct guest_file *files;
    size_t file_count;

    struct sampler *sampler; /* sandbox_profile.c; NULL until the guest has taken long */
    bool is_cold;            /* its module had to be loaded first */

    /* What it leaves. */
    enum guest_stop stop;
    const char *stop_text; /* static */
    int exit_code;
    char *output; /* malloc */
    size_t output_bytes, output_capacity;
    char log[SANDBOX_LOG_BYTES_MAX];
    size_t log_bytes;
    int64_t fuel_used;
    size_t memory_bytes;
    bool is_ok;
    struct error error;

    /* On the loop. */
    bool is_finished;
    struct condition finished;
};

struct sandbox {
    struct executor base;
    struct clock *clock;
    struct engine *engine;
    struct module_cache *modules;
    struct threads *threads;
    struct notebooks *notebooks;
    const struct host_call *host_calls;
    size_t host_call_count;
};

/* ---- sandbox_threads.c: who runs when.  Thread: any ---- */
must_check bool threads_create(struct clock *clock, int thread_count, int parallel_max,
                               struct engine *engine, struct threads **out, struct error *e);
void threads_destroy(struct threads *threads); /* no guest may be left */
must_check bool threads_submit(struct threads *threads, struct guest *guest,
                               struct error *e);                   /* OVERLOADED_HERE */
void threads_resume(struct threads *threads, struct guest *guest); /* its host call is answered */
void threads_cancel(struct threads *threads,
                    struct guest *guest); /* ends soon; its end is reported as ever */
/* For the guest on this thread: should it give way now? */
bool threads_want(const struct threads *threads, const struct guest *guest, int64_t now_ns);

/* ---- sandbox_guest.c: one guest on the current thread ---- */
enum slice_result { SLICE_YIELDED, SLICE_WAITS, SLICE_SLEEPS, SLICE_ENDED };
enum slice_result guest_run_slice(struct guest *guest);
void guest_dispose(struct guest *guest); /* what it holds outside of wasm; after its end */
void guest_drop_kept(void *kept);        /* an instance that a notebook kept */

/* ---- sandbox_profile.c ---- */
str guest_profile(const struct guest *guest, struct arena *arena); /* folded; empty: no sample */
void guest_profile_dispose(struct guest *guest);

/* ---- sandbox_module.c.  Blocking: compiles, reads files ---- */
must_check bool module_cache_create(struct engine *engine, str dir, const struct sandbox_code *code,
                                    struct module_cache **out, struct error *e);
void module_cache_destroy(struct module_cache *cache);
/* From memory: NULL when it is not loaded.  Release what you get. */
struct prepared *module_cache_find(struct module_cache *cache, const struct tool *tool,
                                   const struct tool_module *module);
/* Loads it or, when another thread is at it, gives NULL and is_busy: look again later. */
must_check bool module_cache_load(struct module_cache *cache, const struct tool *tool,
                                  const struct tool_module *module, struct prepared **out,
                                  bool *is_busy, struct error *e);
void prepared_release(struct prepared *prepared); /* NULL is fine */

/* ---- sandbox_engine.c ---- */
must_check bool engine_create(int parallel_max, struct engine **out, struct error *e);
void engine_destroy(struct engine *engine);
str engine_version(const struct engine *engine); /* of the code it can load */
void engine_tick(struct engine *engine);         /* every running guest looks up.  Any thread */

/* ---- sandbox.c: called on a sandbox thread ---- */
void sandbox_guest_ended(struct guest *guest);     /* posts it back to its loop */
void sandbox_start_host_call(struct guest *guest); /* guest->call is filled */

#endif
