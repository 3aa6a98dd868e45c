/*
 * What the files that include wasmtime.h share.  The rest of the sandbox sees only
 * sandbox_internal.h.
 */
#ifndef NEXUS_AGENT_SANDBOX_WASM_INTERNAL_H
#define NEXUS_AGENT_SANDBOX_WASM_INTERNAL_H

#include "agent/sandbox/sandbox_internal.h"
#include <wasmtime.h>
#include <wasmtime/async.h>
#include <wasmtime/component.h>

struct native_schema;

/* One engine per sandbox: compiler, instance pool, epoch. */
struct engine {
    wasm_engine_t *wasm;
    wasmtime_linker_t *linker; /* all host functions; a module takes those it imports */
    str version; /* of the code it can load: wasmtime's version and a hash of our settings */
    char version_text[64];
};

struct prepared {
    struct list link; /* in the cache, most recently used first */
    digest identity, module_digest;
    enum tool_abi abi;
    wasmtime_module_t *module;
    wasmtime_instance_pre_t *pre;
    /* TOOL_ABI_COMPONENT, in place of these two: */
    wasmtime_component_t *component;
    wasmtime_component_linker_t *component_linker; /* what this component imports, no more */
    wasmtime_component_export_index_t *component_run;
    struct native_schema *input_schema, *output_schema;
    atomic_int references;
    bool is_ready; /* false while a thread loads it; under the cache's mutex */
};

enum guest_step {
    STEP_CHECK,
    STEP_INSTANTIATE,
    STEP_INITIALIZE,
    STEP_ALLOC,
    STEP_RUN,
    STEP_START,
    STEP_COMPONENT, /* instantiate one */
    STEP_COMPONENT_RUN,
};

/* What a guest has more of when it is a component. */
struct component_state {
    wasmtime_component_instance_t instance;
    wasmtime_component_func_t run;
    wasmtime_component_val_t input, output;
    int64_t pollables_ns[TOOL_COMPONENT_POLLABLES_MAX]; /* when each fires; 0: free */
};

/* The wasm side of a guest, from its first slice to its end. */
struct instance {
    wasmtime_store_t *store;
    wasmtime_context_t *context;
    enum guest_step step;
    enum slice_result pause; /* why the future is pending; set by the callback that made it so */
    wasmtime_call_future_t *future;
    wasmtime_instance_t wasm;
    wasmtime_func_t alloc, function;
    wasmtime_memory_t memory;
    bool has_memory;
    wasmtime_val_t arguments[2], result;
    wasm_trap_t *trap;
    wasmtime_error_t *error;
    size_t stdin_offset;
    struct native_limiter *limiter; /* of a component's store */
    struct prepared *prepared;      /* what a kept one runs; NULL: a guest has it */
    uint32_t input_address;
    bool is_answering; /* nexus_alloc runs for the answer of a host call */
    struct component_state component;
};

/* ---- guest memory: every pointer and length from a guest goes through here ---- */

/* The bytes [address, address + bytes), or NULL when any of them is outside.  Valid until the guest
   runs on. */
uint8_t *guest_bytes(struct guest *guest, wasmtime_caller_t *caller, uint32_t address,
                     uint64_t bytes);
struct guest *guest_of(wasmtime_caller_t *caller);
/* A trap that ends the guest; `text` is static. */
wasm_trap_t *guest_stop_trap(struct guest *guest, enum guest_stop stop, const char *text);
/* Appends to the output, up to its limit; false past it. */
bool guest_add_output(struct guest *guest, const void *bytes, size_t count);
void guest_add_log(struct guest *guest, const void *bytes, size_t count);

/* ---- sandbox_profile.c: at an epoch tick of a guest that has taken long ---- */
void guest_sample(struct guest *guest, wasmtime_context_t *context, int64_t now_ns);

/* ---- sandbox_outcome.c ---- */
/* Takes trap and error; fills guest->error.  Both NULL is a stop that we made. */
void guest_fail(struct guest *guest, wasm_trap_t *give_trap, wasmtime_error_t *give_error);
/* Text of an error of wasmtime, its first line; `give_error` is taken. */
bool wasm_error_set(struct error *e, enum error_reason reason, const char *context,
                    wasmtime_error_t *give_error);

/* ---- sandbox_component.c: the ABI `component` (a WIT world with two strings) ---- */
/* Compiles, or loads what was compiled: component, linker, the export `run`. */
struct aot;
must_check bool component_load(const struct aot *aot, struct engine *engine,
                               const struct tool *tool, const struct tool_module *module, str wasm,
                               struct prepared *prepared, struct error *e);
void component_unload(struct prepared *prepared);
wasmtime_call_future_t *component_instantiate(struct guest *guest);
/* NULL: the component cannot be called; guest->error says why. */
wasmtime_call_future_t *component_run(struct guest *guest);
/* False: the tool failed, or gave too much; guest->error says. */
bool component_take_output(struct guest *guest);
void component_close(struct guest *guest); /* values it holds; before the store goes */

/* ---- sandbox_wasip2.c ---- */
typedef void (*component_function)(struct guest *guest, wasmtime_context_t *context,
                                   const wasmtime_component_val_t *arguments,
                                   wasmtime_component_val_t *result, wasmtime_error_t **failure,
                                   wasmtime_async_continuation_t *continuation);
/* Defines of one imported interface ("wasi:io/poll", without its version) what there is of it. */
must_check bool wasip2_define(wasmtime_component_linker_instance_t *to, str interface,
                              struct error *e);
/* `signature`: a letter for each argument, ':', 'v' when it gives a value.  s string, u u64, h handle, r result, e enum,
   l list of u8, p list of handles.  A component that declares anything else ends when it calls. */
must_check bool component_function_define(wasmtime_component_linker_instance_t *to,
                                          const char *name, const char *signature,
                                          component_function run, struct error *e);
/* A resource type of the host by its name ("pollable"); false: it is none that we know. */
bool wasip2_define_resource(wasmtime_component_linker_instance_t *to, str name,
                            wasmtime_error_t **failure);
wasmtime_component_val_t component_string(str text);
wasmtime_component_val_t component_result(bool is_ok, wasmtime_component_val_t *give_value);

/* ---- host calls (sandbox_host.c) ---- */
/* Starts the guest's next host call; its answer comes into guest->call.  False: the guest broke the rules, *why says which. */
bool guest_call_begin(struct guest *guest, str name, str request, const char **why);

/* ---- host functions ---- */
/* Signatures: one letter per value, i = i32, I = i64; "iiI:i" takes three and gives one. */
wasm_functype_t *signature_make(const char *signature);
must_check bool nexus_functions_define(wasmtime_linker_t *linker,
                                       struct error *e); /* sandbox_host.c */
must_check bool wasi_functions_define(wasmtime_linker_t *linker,
                                      struct error *e); /* sandbox_wasi.c */

struct host_function {
    const char *name, *signature;
    wasmtime_func_unchecked_callback_t run;
};
must_check bool host_functions_define(wasmtime_linker_t *linker, const char *module,
                                      const struct host_function *functions, size_t count,
                                      struct error *e);

#endif
