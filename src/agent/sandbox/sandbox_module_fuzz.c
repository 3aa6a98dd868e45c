/* Any bytes as a module: compiled or refused with an error, linked or refused; never run. */
#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct engine *engine;
    struct error e;
    if (!engine)
        ensure(engine_create(1, &engine, &e));
    wasmtime_module_t *module;
    wasmtime_error_t *failure = wasmtime_module_new(engine->wasm, data, size, &module);
    if (failure) {
        wasm_error_set(&e, REASON_INVALID, "compile", failure);
        ensure(e.message[0] != '\0');
        return 0;
    }
    wasmtime_instance_pre_t *pre = NULL;
    failure = wasmtime_linker_instantiate_pre(engine->linker, module, &pre);
    if (failure)
        wasm_error_set(&e, REASON_INVALID, "link", failure);
    else
        wasmtime_instance_pre_delete(pre);
    wasmtime_module_delete(module);
    return 0;
}
