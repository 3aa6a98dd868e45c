#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/ensure.h"
#include "nexus_native.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/*
 * Everything here that changes generated code is in SETTINGS, whose hash is part of a cached
 * module's file name: change it when you change configure().  (wasmtime refuses a mismatch by
 * itself too.)
 */
#define SETTINGS                                                                                   \
    "fuel epoch simd bulk multivalue tailcall nothreads nomemory64 nomultimemory stack2m v1"
#define SLOT_ADDRESS_BYTES (5ull << 30)

static void configure_pool(wasm_config_t *config, int parallel_max)
{
    uint32_t instances =
        (uint32_t) parallel_max + SANDBOX_NOTEBOOKS_MAX +
        SANDBOX_THREADS_MAX; /* a slot is given back a moment after the guest's end */
    wasmtime_pooling_allocation_config_t *pool = wasmtime_pooling_allocation_config_new();
    /* Counts and addresses only: what a guest does not touch costs nothing. */
    wasmtime_pooling_allocation_config_total_component_instances_set(pool, instances);
    wasmtime_pooling_allocation_config_total_core_instances_set(
        pool, instances * TOOL_COMPONENT_CORE_INSTANCES_MAX);
    wasmtime_pooling_allocation_config_total_memories_set(pool, instances);
    wasmtime_pooling_allocation_config_total_tables_set(pool,
                                                        instances * TOOL_COMPONENT_TABLES_MAX);
    wasmtime_pooling_allocation_config_max_core_instances_per_component_set(
        pool, TOOL_COMPONENT_CORE_INSTANCES_MAX);
    wasmtime_pooling_allocation_config_max_memories_per_component_set(pool,
                                                                      TOOL_COMPONENT_MEMORIES_MAX);
    wasmtime_pooling_allocation_config_max_tables_per_component_set(pool,
                                                                    TOOL_COMPONENT_TABLES_MAX);
    wasmtime_pooling_allocation_config_max_component_instance_size_set(pool, 4u << 20);
    wasmtime_pooling_allocation_config_total_stacks_set(
        pool, 2 * instances); /* a host call's nexus_alloc runs on its own */
    wasmtime_pooling_allocation_config_table_elements_set(pool, TOOL_TABLE_ELEMENTS_MAX);
    wasmtime_pooling_allocation_config_max_core_instance_size_set(pool, 2u << 20);
    wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool,
                                                                       SANDBOX_RESIDENT_BYTES);
    wasmtime_pooling_allocation_config_table_keep_resident_set(pool, 64u << 10);
    wasmtime_pooling_allocation_config_async_stack_keep_resident_set(pool, 64u << 10);
    native_pool_scan_pages(pool);
    wasmtime_pooling_allocation_strategy_set(config, pool);
    wasmtime_pooling_allocation_config_delete(pool);
}

static wasm_config_t *configure(int parallel_max)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_consume_fuel_set(config, true);
    wasmtime_config_epoch_interruption_set(config, true);
    wasmtime_config_max_wasm_stack_set(config, SANDBOX_WASM_STACK_BYTES);
    wasmtime_config_async_stack_size_set(config, SANDBOX_FIBER_STACK_BYTES);
    wasmtime_config_memory_init_cow_set(config, true);
    wasmtime_config_shared_memory_set(config, false);
    wasmtime_config_wasm_multi_memory_set(config, false);
    wasmtime_config_wasm_memory64_set(config, false);
    wasmtime_config_wasm_relaxed_simd_set(config, false);
    wasmtime_config_native_unwind_info_set(config, false);
    native_config_backtrace_frames(config, SANDBOX_BACKTRACE_FRAMES_MAX);
    configure_pool(config, parallel_max);
    return config;
}

wasm_functype_t *signature_make(const char *signature)
{
    wasm_valtype_t *types[2][12];
    size_t counts[2] = {0, 0};
    int side = 0;
    for (const char *c = signature; *c; c++) {
        if (*c == ':') {
            side++;
            continue;
        }
        ensure(side < 2 && counts[side] < ARRAY_COUNT(types[0]) && (*c == 'i' || *c == 'I'));
        types[side][counts[side]++] = *c == 'i' ? wasm_valtype_new_i32() : wasm_valtype_new_i64();
    }
    wasm_valtype_vec_t parameters, results;
    wasm_valtype_vec_new(&parameters, counts[0], types[0]);
    wasm_valtype_vec_new(&results, counts[1], types[1]);
    return wasm_functype_new(&parameters, &results);
}

bool host_functions_define(wasmtime_linker_t *linker, const char *module,
                           const struct host_function *functions, size_t count, struct error *e)
{
    for (size_t i = 0; i < count; i++) {
        wasm_functype_t *type = signature_make(functions[i].signature);
        wasmtime_error_t *failure = wasmtime_linker_define_func_unchecked(
            linker, module, strlen(module), functions[i].name, strlen(functions[i].name), type,
            functions[i].run, NULL, NULL);
        wasm_functype_delete(type);
        if (failure)
            return wasm_error_set(e, REASON_INTERNAL, functions[i].name, failure);
    }
    return true;
}

/* Each slot of the pool reserves (not uses) the 4 GiB that a guest can address; wasmtime ends the
   process when it cannot. */
static bool has_address_space(int parallel_max, struct error *e)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return true;
    rlim_t needed =
        ((rlim_t) parallel_max + SANDBOX_NOTEBOOKS_MAX + SANDBOX_THREADS_MAX) * SLOT_ADDRESS_BYTES;
    if (limit.rlim_cur >= needed)
        return true;
    return error_set(
        e, REASON_UNAVAILABLE,
        "the sandbox reserves %llu GiB of addresses (not memory), but the limit is %llu GiB: "
        "raise it (ulimit -v unlimited) or lower the number of parallel tool calls",
        (unsigned long long) (needed >> 30), (unsigned long long) (limit.rlim_cur >> 30));
}

bool engine_create(int parallel_max, struct engine **out, struct error *e)
{
    if (!has_address_space(parallel_max, e))
        return false;
    struct engine *engine = calloc(1, sizeof *engine);
    ensure(engine != NULL);
    engine->wasm = wasm_engine_new_with_config(configure(parallel_max));
    engine->linker = wasmtime_linker_new(engine->wasm);
    if (!nexus_functions_define(engine->linker, e) || !wasi_functions_define(engine->linker, e)) {
        engine_destroy(engine);
        return false;
    }
    digest settings = digest_sha256(S(SETTINGS));
    snprintf(engine->version_text, sizeof engine->version_text, "%02x%02x%02x%02x-%s",
             settings.bytes[0], settings.bytes[1], settings.bytes[2], settings.bytes[3],
             WASMTIME_VERSION);
    engine->version = str_from_cstr(engine->version_text);
    *out = engine;
    return true;
}

void engine_destroy(struct engine *engine)
{
    if (!engine)
        return;
    if (engine->linker)
        wasmtime_linker_delete(engine->linker);
    wasm_engine_delete(engine->wasm);
    free(engine);
}

str engine_version(const struct engine *engine)
{
    return engine->version;
}

void engine_tick(struct engine *engine)
{
    wasmtime_engine_increment_epoch(engine->wasm);
}
