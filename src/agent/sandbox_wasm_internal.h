/*
 * What the files that include wasmtime.h share.  The rest of the sandbox sees only
 * sandbox_internal.h.
 */
#ifndef NEXUS_AGENT_SANDBOX_WASM_INTERNAL_H
#define NEXUS_AGENT_SANDBOX_WASM_INTERNAL_H

#include "agent/sandbox_internal.h"
#include <wasmtime.h>
#include <wasmtime/async.h>

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
    digest identity;
    enum tool_abi abi;
    wasmtime_module_t *module;
    wasmtime_instance_pre_t *pre;
    struct native_schema *input_schema, *output_schema;
    atomic_int references;
    bool is_ready; /* false while a thread loads it; under the cache's mutex */
};

enum guest_step { STEP_CHECK, STEP_INSTANTIATE, STEP_INITIALIZE, STEP_ALLOC, STEP_RUN, STEP_START };

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
    uint32_t input_address;
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

/* ---- sandbox_outcome.c ---- */
/* Takes trap and error; fills guest->error.  Both NULL is a stop that we made. */
void guest_fail(struct guest *guest, wasm_trap_t *give_trap, wasmtime_error_t *give_error);
/* Text of an error of wasmtime, its first line; `give_error` is taken. */
bool wasm_error_set(struct error *e, enum error_reason reason, const char *context,
                    wasmtime_error_t *give_error);

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
