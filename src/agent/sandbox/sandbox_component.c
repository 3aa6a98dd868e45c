#include "agent/sandbox/sandbox_aot_internal.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <stdlib.h>
#include <string.h>

/*
 * Components: the world of toolbox/python/wit, `run(input-json) -> result<output-json, error-json>` and the import
 * `host.call`.  They run as core modules do (sandbox_guest.c): asynchronously, in slices, each host call and each sleep
 * a pending future that holds no thread.
 *
 * A growth past the limit is refused and not fatal as for core modules: a language that is a component has an answer to
 * it (Python's MemoryError), and says so itself when its program does not.
 */

/* ---- imports ---- */

static bool is_over(void *env)
{
    (void) env;
    return true;
}

struct import {
    component_function run;
    const char *signature;
};

static bool is_list_of(const wasmtime_component_val_t *value, wasmtime_component_valkind_t kind)
{
    return value->kind == WASMTIME_COMPONENT_LIST &&
           (value->of.list.size == 0 || value->of.list.data[0].kind == kind); /* all are alike */
}

static bool is_of_kind(const wasmtime_component_val_t *value, char letter)
{
    switch (letter) {
    case 's': return value->kind == WASMTIME_COMPONENT_STRING;
    case 'u': return value->kind == WASMTIME_COMPONENT_U64;
    case 'h': return value->kind == WASMTIME_COMPONENT_RESOURCE;
    case 'r': return value->kind == WASMTIME_COMPONENT_RESULT;
    case 'e': return value->kind == WASMTIME_COMPONENT_ENUM;
    case 'l': return is_list_of(value, WASMTIME_COMPONENT_U8);
    case 'p': return is_list_of(value, WASMTIME_COMPONENT_RESOURCE);
    default: unreachable_state();
    }
}

static bool fits_signature(const char *signature, const wasmtime_component_val_t *arguments,
                           size_t argument_count, size_t result_count)
{
    size_t i = 0;
    for (; signature[i] != ':'; i++)
        if (i >= argument_count || !is_of_kind(&arguments[i], signature[i]))
            return false;
    return i == argument_count && result_count == (signature[i + 1] == 'v' ? 1 : 0);
}

/*
 * Every import comes through here: `env` is its row.  wasmtime takes the types of such a function from the component that
 * imports it, not from us: an author may have declared others, and then the values are not what the row's function reads.
 */
static void call_function(void *env, wasmtime_context_t *context,
                          const wasmtime_component_func_type_t *type,
                          wasmtime_component_val_t *arguments, size_t argument_count,
                          wasmtime_component_val_t *results, size_t result_count,
                          wasmtime_error_t **failure, wasmtime_async_continuation_t *continuation)
{
    (void) type;
    const struct import *import = env;
    struct guest *guest = wasmtime_context_get_data(context);
    wasmtime_component_val_t none;
    *continuation = (wasmtime_async_continuation_t){.callback = is_over};
    if (!fits_signature(import->signature, arguments, argument_count, result_count)) {
        guest->stop = GUEST_STOP_ABUSE;
        guest->stop_text = "it declares a function of the host with other types than it has";
        *failure = wasmtime_error_new(guest->stop_text);
        return;
    }
    import->run(guest, context, arguments, result_count > 0 ? results : &none, failure,
                continuation);
}

bool component_function_define(wasmtime_component_linker_instance_t *to, const char *name,
                               const char *signature, component_function run, struct error *e)
{
    struct import *env = malloc(sizeof *env);
    ensure(env != NULL);
    *env = (struct import){.run = run, .signature = signature};
    wasmtime_error_t *failure = wasmtime_component_linker_instance_add_func_async(
        to, name, strlen(name), call_function, env, free);
    return !failure || wasm_error_set(e, REASON_INTERNAL, name, failure);
}

/* ---- host.call ---- */

struct answer_wait {
    struct guest *guest;
    wasmtime_component_val_t *result;
};

/* The answer is {"ok":X} or {"error":Y}, written by us (sandbox.c): the component gets X or Y. */
static void put_answer(struct guest *guest, wasmtime_component_val_t *result)
{
    str answer = str_of(guest->call.answer, guest->call.answer_bytes), inner;
    bool is_ok = str_strip_prefix(answer, S("{\"ok\":"), &inner);
    if (!is_ok)
        ensure(str_strip_prefix(answer, S("{\"error\":"), &inner));
    wasmtime_component_val_t text = component_string(str_slice(inner, 0, inner.len - 1));
    *result = component_result(is_ok, &text);
}

static bool continue_call(void *env)
{
    struct answer_wait *wait = env;
    if (!atomic_load(&wait->guest->call.is_answered)) {
        wait->guest->instance->pause = SLICE_WAITS;
        return false;
    }
    put_answer(wait->guest, wait->result);
    return true;
}

static void host_call(struct guest *guest, wasmtime_context_t *context,
                      const wasmtime_component_val_t *arguments, wasmtime_component_val_t *result,
                      wasmtime_error_t **failure, wasmtime_async_continuation_t *continuation)
{
    (void) context;
    const wasm_name_t *name = &arguments[0].of.string, *request = &arguments[1].of.string;
    const char *why = "it made a host call before it was initialised";
    if (guest->instance->step != STEP_COMPONENT_RUN ||
        !guest_call_begin(guest, str_of(name->data, name->size),
                          str_of(request->data, request->size), &why)) {
        guest->stop = GUEST_STOP_ABUSE;
        guest->stop_text = why;
        *failure = wasmtime_error_new(why);
        return;
    }
    struct answer_wait *wait = calloc(1, sizeof *wait);
    ensure(wait != NULL);
    *wait = (struct answer_wait){.guest = guest, .result = result};
    *continuation =
        (wasmtime_async_continuation_t){.callback = continue_call, .env = wait, .finalizer = free};
}

/* ---- linking: what this component imports, and nothing else ---- */

static bool define_resources(wasmtime_component_linker_instance_t *to,
                             const wasmtime_component_instance_type_t *type,
                             const wasm_engine_t *wasm, struct error *e)
{
    size_t count = wasmtime_component_instance_type_export_count(type, wasm);
    for (size_t i = 0; i < count; i++) {
        const char *name;
        size_t name_len;
        wasmtime_component_item_t item;
        wasmtime_error_t *failure = NULL;
        if (!wasmtime_component_instance_type_export_nth(type, wasm, i, &name, &name_len, &item))
            continue;
        if (item.kind == WASMTIME_COMPONENT_ITEM_RESOURCE)
            wasip2_define_resource(to, str_of(name, name_len), &failure);
        wasmtime_component_item_delete(&item);
        if (failure)
            return wasm_error_set(e, REASON_INTERNAL, "resource", failure);
    }
    return true;
}

static bool define_import(wasmtime_component_linker_t *linker, const wasm_engine_t *wasm, str name,
                          const wasmtime_component_instance_type_t *type, struct error *e)
{
    str interface, version;
    str_cut(name, '@', &interface, &version);
    bool is_wasi = str_starts_with(name, S("wasi:")) && str_starts_with(version, S("0.2."));
    bool is_ours = str_equal(interface, S("nexus:tool/host"));
    if (!is_wasi && !is_ours)
        return true; /* traps when it is called */
    wasmtime_component_linker_instance_t *root = wasmtime_component_linker_root(linker), *to = NULL;
    wasmtime_error_t *failure =
        wasmtime_component_linker_instance_add_instance(root, name.ptr, name.len, &to);
    bool is_ok = !failure;
    if (failure)
        wasm_error_set(e, REASON_INTERNAL, "import", failure);
    else if (is_ours)
        is_ok = component_function_define(to, "call", "ss:v", host_call, e);
    else
        is_ok = define_resources(to, type, wasm, e) && wasip2_define(to, interface, e);
    if (to)
        wasmtime_component_linker_instance_delete(to);
    wasmtime_component_linker_instance_delete(root);
    return is_ok;
}

static bool define_imports(struct prepared *prepared, const wasm_engine_t *wasm, struct error *e)
{
    wasmtime_component_type_t *type = wasmtime_component_type(prepared->component);
    size_t count = wasmtime_component_type_import_count(type, wasm);
    bool is_ok = true;
    for (size_t i = 0; i < count && is_ok; i++) {
        const char *name;
        size_t name_len;
        wasmtime_component_item_t item;
        if (!wasmtime_component_type_import_nth(type, wasm, i, &name, &name_len, &item))
            continue;
        if (item.kind == WASMTIME_COMPONENT_ITEM_COMPONENT_INSTANCE)
            is_ok = define_import(prepared->component_linker, wasm, str_of(name, name_len),
                                  item.of.component_instance, e);
        wasmtime_component_item_delete(&item);
    }
    wasmtime_component_type_delete(type);
    if (!is_ok)
        return false;
    wasmtime_error_t *failure = wasmtime_component_linker_define_unknown_imports_as_traps(
        prepared->component_linker, prepared->component);
    return !failure || wasm_error_set(e, REASON_INVALID, "link", failure);
}

typedef bool (*result_part)(const wasmtime_component_result_type_t *type,
                            wasmtime_component_valtype_t *out);

static bool is_string(const wasmtime_component_result_type_t *type, result_part part)
{
    wasmtime_component_valtype_t value;
    if (!part(type, &value))
        return false;
    bool is_ok = value.kind == WASMTIME_COMPONENT_VALTYPE_STRING;
    wasmtime_component_valtype_delete(&value);
    return is_ok;
}

static bool takes_string(const wasmtime_component_func_type_t *type)
{
    const char *name;
    size_t name_len;
    wasmtime_component_valtype_t value;
    if (wasmtime_component_func_type_param_count(type) != 1 ||
        !wasmtime_component_func_type_param_nth(type, 0, &name, &name_len, &value))
        return false;
    bool is_ok = value.kind == WASMTIME_COMPONENT_VALTYPE_STRING;
    wasmtime_component_valtype_delete(&value);
    return is_ok;
}

static bool gives_strings(const wasmtime_component_func_type_t *type)
{
    wasmtime_component_valtype_t value;
    if (!wasmtime_component_func_type_result(type, &value))
        return false;
    bool is_ok = value.kind == WASMTIME_COMPONENT_VALTYPE_RESULT &&
                 is_string(value.of.result, wasmtime_component_result_type_ok) &&
                 is_string(value.of.result, wasmtime_component_result_type_err);
    wasmtime_component_valtype_delete(&value);
    return is_ok;
}

/* `run: func(string) -> result<string, string>` */
static bool check_run(const struct prepared *prepared, const wasm_engine_t *wasm)
{
    wasmtime_component_type_t *type = wasmtime_component_type(prepared->component);
    wasmtime_component_item_t item;
    bool is_ok = wasmtime_component_type_export_get(type, wasm, "run", 3, &item);
    wasmtime_component_type_delete(type);
    if (!is_ok)
        return false;
    is_ok = item.kind == WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC &&
            takes_string(item.of.component_func) && gives_strings(item.of.component_func);
    wasmtime_component_item_delete(&item);
    return is_ok;
}

/* ---- loading ---- */

static bool compile(const struct aot *aot, struct engine *engine, digest wasm_digest, str wasm,
                    wasmtime_component_t **out, struct error *e)
{
    *out = aot_load_component(aot, engine, wasm_digest);
    if (*out)
        return true;
    wasmtime_error_t *failure =
        wasmtime_component_new(engine->wasm, (const uint8_t *) wasm.ptr, wasm.len, out);
    if (failure)
        return wasm_error_set(e, REASON_INVALID, "compile", failure);
    aot_save_component(aot, engine, wasm_digest, *out);
    wasmtime_component_t *mapped = aot_load_component(aot, engine, wasm_digest);
    if (!mapped)
        return true;
    wasmtime_component_delete(*out); /* the mapped one shares pages with the page cache */
    *out = mapped;
    return true;
}

bool component_load(const struct aot *aot, struct engine *engine, const struct tool *tool,
                    const struct tool_module *module, str wasm, struct prepared *prepared,
                    struct error *e)
{
    if (!compile(aot, engine, module->digest, wasm, &prepared->component, e))
        return false;
    prepared->component_linker = wasmtime_component_linker_new(engine->wasm);
    if (!define_imports(prepared, engine->wasm, e))
        return false;
    prepared->component_run =
        wasmtime_component_get_export_index(prepared->component, NULL, "run", 3);
    if (prepared->component_run && check_run(prepared, engine->wasm))
        return true;
    return error_set(e, REASON_INVALID,
                     "the component of tool " STR_FMT
                     " does not export run: func(input: string) -> result<string, string>",
                     STR_ARG(tool->name));
}

void component_unload(struct prepared *prepared)
{
    if (prepared->component_run)
        wasmtime_component_export_index_delete(prepared->component_run);
    if (prepared->component_linker)
        wasmtime_component_linker_delete(prepared->component_linker);
    if (prepared->component)
        wasmtime_component_delete(prepared->component);
}

/* ---- a run ---- */

wasmtime_call_future_t *component_instantiate(struct guest *guest)
{
    struct instance *instance = guest->instance;
    return wasmtime_component_linker_instantiate_async(
        guest->prepared->component_linker, instance->context, guest->prepared->component,
        &instance->component.instance, &instance->error);
}

wasmtime_call_future_t *component_run(struct guest *guest)
{
    struct instance *instance = guest->instance;
    struct component_state *state = &instance->component;
    ensure(wasmtime_component_instance_get_func(&state->instance, instance->context,
                                                guest->prepared->component_run, &state->run));
    state->input = component_string(guest->request->input);
    return wasmtime_component_func_call_async(&state->run, instance->context, &state->input, 1,
                                              &state->output, 1, &instance->error);
}

bool component_take_output(struct guest *guest)
{
    const wasmtime_component_val_t *output = &guest->instance->component.output;
    ensure(output->kind == WASMTIME_COMPONENT_RESULT);
    const wasm_name_t *string = &output->of.result.val->of.string; /* check_run saw to it */
    str text = str_of(string->data, string->size);
    /* A failure becomes what the other ABIs say: {"error": {...}}. */
    bool is_ok = output->of.result.is_ok;
    bool fits = text.len <= guest->limits.output_bytes &&
                (is_ok || guest_add_output(guest, "{\"error\":", 9)) &&
                guest_add_output(guest, text.ptr, text.len) &&
                (is_ok || guest_add_output(guest, "}", 1));
    if (fits)
        return true;
    guest->stop = GUEST_STOP_OUTPUT;
    guest_fail(guest, NULL, NULL);
    return false;
}

void component_close(struct guest *guest)
{
    struct component_state *state = &guest->instance->component;
    wasmtime_component_val_delete(&state->input);
    wasmtime_component_val_delete(&state->output);
    state->input = state->output = (wasmtime_component_val_t){0};
}
