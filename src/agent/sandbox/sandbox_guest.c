#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "nexus_native.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OUTPUT_BYTES_FIRST = 1024, NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

static int64_t thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* ---- what host functions use ---- */

struct guest *guest_of(wasmtime_caller_t *caller)
{
    return wasmtime_context_get_data(wasmtime_caller_context(caller));
}

static bool find_memory(struct instance *instance, wasmtime_caller_t *caller)
{
    wasmtime_extern_t item;
    if (instance->has_memory)
        return true;
    /* Only while the module's start function runs: the instance is not ours yet. */
    if (!caller || !wasmtime_caller_export_get(caller, "memory", 6, &item) ||
        item.kind != WASMTIME_EXTERN_MEMORY)
        return false;
    instance->memory = item.of.memory;
    instance->has_memory = true;
    return true;
}

uint8_t *guest_bytes(struct guest *guest, wasmtime_caller_t *caller, uint32_t address,
                     uint64_t bytes)
{
    struct instance *instance = guest->instance;
    if (!find_memory(instance, caller))
        return NULL;
    uint64_t size = wasmtime_memory_data_size(instance->context, &instance->memory);
    if (bytes > size || address > size - bytes)
        return NULL;
    return wasmtime_memory_data(instance->context, &instance->memory) + address;
}

wasm_trap_t *guest_stop_trap(struct guest *guest, enum guest_stop stop, const char *text)
{
    guest->stop = stop;
    guest->stop_text = text;
    return wasmtime_trap_new(text, strlen(text));
}

bool guest_add_output(struct guest *guest, const void *bytes, size_t count)
{
    if (count > guest->limits.output_bytes - guest->output_bytes)
        return false;
    size_t needed = guest->output_bytes + count;
    if (needed > guest->output_capacity) {
        size_t capacity = guest->output_capacity ? guest->output_capacity : OUTPUT_BYTES_FIRST;
        while (capacity < needed)
            capacity *= 2;
        guest->output = realloc(guest->output, capacity);
        ensure(guest->output != NULL);
        guest->output_capacity = capacity;
    }
    memcpy(guest->output + guest->output_bytes, bytes, count);
    guest->output_bytes = needed;
    return true;
}

void guest_add_log(struct guest *guest, const void *bytes, size_t count)
{
    size_t room = sizeof guest->log - guest->log_bytes;
    if (count > room)
        count = room;
    memcpy(guest->log + guest->log_bytes, bytes, count);
    guest->log_bytes += count;
}

/* ---- stopping ---- */

/* Why the guest must not run on, or GUEST_STOP_NONE. */
static enum guest_stop reason_to_stop(const struct guest *guest, int64_t now_ns)
{
    if (atomic_load_explicit(&guest->is_cancelled, memory_order_relaxed))
        return GUEST_STOP_CANCELLED;
    if (now_ns >= guest->deadline_ns)
        return GUEST_STOP_TIME;
    if (guest->cpu_limit_ns > 0 &&
        guest->cpu_ns + thread_cpu_ns() - guest->slice_start_cpu_ns >= guest->cpu_limit_ns)
        return GUEST_STOP_CPU;
    return GUEST_STOP_NONE;
}

/* The clock of the thread is asked only when the wall clock allows for it. */
static bool has_taken_long(const struct guest *guest, int64_t now_ns)
{
    const int64_t long_ns = (int64_t) SANDBOX_PROFILE_AFTER_MS * NS_PER_MS;
    return guest->cpu_ns + now_ns - guest->slice_start_ns >= long_ns &&
           guest->cpu_ns + thread_cpu_ns() - guest->slice_start_cpu_ns >= long_ns;
}

/* At each tick in which the guest computes. */
static wasmtime_error_t *on_epoch(wasmtime_context_t *context, void *data, uint64_t *delta,
                                  wasmtime_update_deadline_kind_t *kind)
{
    struct guest *guest = data;
    int64_t now_ns = clock_monotonic_ns(guest->sandbox->clock);
    guest->stop = reason_to_stop(guest, now_ns);
    if (guest->stop != GUEST_STOP_NONE)
        return wasmtime_error_new("stopped");
    if (has_taken_long(guest, now_ns))
        guest_sample(guest, context, now_ns);
    *delta = 1;
    *kind = WASMTIME_UPDATE_DEADLINE_CONTINUE;
    if (threads_want(guest->sandbox->threads, guest, now_ns)) {
        *kind = WASMTIME_UPDATE_DEADLINE_YIELD;
        guest->instance->pause = SLICE_YIELDED;
    }
    return NULL;
}

/* ---- input and output against their schemas ---- */

static void describe_schema_errors(struct guest *guest, enum error_reason reason, const char *what,
                                   const char *errors_json)
{
    struct error ignored;
    OWNED(arena) arena = arena_create(0);
    const struct json *errors = NULL;
    struct strbuf text;
    strbuf_init(&text, arena, ERROR_MESSAGE_BYTES);
    if (json_parse(arena, str_from_cstr(errors_json), (struct json_limits){0}, &errors, &ignored)) {
        const struct json *item;
        struct json_iter it = json_iter(errors);
        while (json_next(&it, NULL, &item)) {
            str path = json_str_or(item, S("instance_path"), S(""));
            str message = json_str_or(item, S("message"), S("does not fit"));
            strbuf_printf(&text, "%s" STR_FMT ": " STR_FMT, text.len ? "; " : "",
                          STR_ARG(str_is_empty(path) ? S("(the whole)") : path), STR_ARG(message));
        }
    }
    str all = str_cut_utf8(strbuf_str(&text), ERROR_MESSAGE_BYTES - 120);
    error_set(&guest->error, reason, "%s of tool " STR_FMT " does not fit its schema: " STR_FMT,
              what, STR_ARG(guest->request->tool->name), STR_ARG(all));
}

static bool check_schema(struct guest *guest, const struct native_schema *schema, str text,
                         enum error_reason reason, const char *what)
{
    char *errors = NULL, *why = NULL;
    enum native_status status = native_schema_validate(
        schema, (struct native_text){text.ptr, text.len}, SCHEMA_ERRORS_MAX, &errors, &why);
    if (status == NATIVE_OK)
        return true;
    if (errors)
        describe_schema_errors(guest, reason, what, errors);
    else
        error_set(&guest->error, reason, "%s of tool " STR_FMT ": %s", what,
                  STR_ARG(guest->request->tool->name), why ? why : "cannot be checked");
    native_string_free(errors);
    native_string_free(why);
    return false;
}

/* {"error": {"code", "message"}} and nothing else: the tool says that it failed. */
static bool reports_failure(struct guest *guest, str output)
{
    struct error ignored;
    str rest = str_trim(output), code, message;
    if (!str_strip_prefix(rest, S("{"), &rest) || !str_starts_with(str_trim(rest), S("\"error\"")))
        return false;
    OWNED(arena) arena = arena_create(0);
    const struct json *root = NULL;
    if (!json_parse(arena, output, (struct json_limits){0}, &root, &ignored) ||
        json_count(root) != 1)
        return false;
    const struct json *failure = json_get(root, S("error"));
    if (!json_to_str(json_get(failure, S("code")), &code) ||
        !json_to_str(json_get(failure, S("message")), &message))
        return false;
    bool is_denied = str_equal(code, S("denied")) && guest->denied_reason != REASON_NONE;
    message = str_cut_utf8(message, ERROR_MESSAGE_BYTES - 100);
    enum error_reason reason = str_equal(code, S("output_limit"))   ? REASON_OUTPUT_LIMIT
                               : str_equal(code, S("memory_limit")) ? REASON_MEMORY_LIMIT
                                                                    : REASON_TOOL_FAILED;
    error_set(&guest->error, is_denied ? guest->denied_reason : reason,
              "tool " STR_FMT ": " STR_FMT, STR_ARG(guest->request->tool->name), STR_ARG(message));
    return true;
}

static bool check_output(struct guest *guest)
{
    str output = str_of(guest->output, guest->output_bytes);
    if (str_is_empty(str_trim(output)))
        return error_set(&guest->error, REASON_TOOL_FAILED, "tool " STR_FMT " gave no output",
                         STR_ARG(guest->request->tool->name));
    if (reports_failure(guest, output))
        return false;
    return check_schema(guest, guest->prepared->output_schema, output, REASON_TOOL_FAILED,
                        "the output");
}

/* ---- steps ---- */

static void limit_growth(struct guest *guest)
{
    struct instance *instance = guest->instance;
    const struct tool_limits *limits = &guest->limits;
    if (guest->prepared->abi == TOOL_ABI_COMPONENT) {
        instance->limiter = native_limiter_create(
            instance->store, &(struct native_limits){.memory_bytes = limits->memory_bytes,
                                                     .table_elements = limits->table_elements,
                                                     .instances = TOOL_COMPONENT_CORE_INSTANCES_MAX,
                                                     .tables = TOOL_COMPONENT_TABLES_MAX,
                                                     .memories = TOOL_COMPONENT_MEMORIES_MAX});
        return;
    }
    wasmtime_store_limiter(instance->store, -1, -1, 1, 1, 1);
    native_store_limits(instance->context, limits->memory_bytes, limits->table_elements);
}

static void set_fuel(struct guest *guest)
{
    wasmtime_error_t *failure =
        wasmtime_context_set_fuel(guest->instance->context, guest->limits.fuel);
    ensure(!failure); /* fuel is on in our engine */
}

static void open_store(struct guest *guest)
{
    struct instance *instance = guest->instance;
    instance->store = wasmtime_store_new(guest->sandbox->engine->wasm, guest, NULL);
    instance->context = wasmtime_store_context(instance->store);
    limit_growth(guest);
    set_fuel(guest);
    wasmtime_context_set_epoch_deadline(instance->context, 1);
    wasmtime_store_epoch_deadline_callback(instance->store, on_epoch, guest, NULL);
}

/* The next guest of an instance that a notebook kept. */
static void take_over(struct guest *guest)
{
    struct instance *instance = guest->instance;
    wasmtime_context_set_data(instance->context, guest);
    set_fuel(guest);
    wasmtime_context_set_epoch_deadline(instance->context, 1);
    wasmtime_store_epoch_deadline_callback(instance->store, on_epoch, guest, NULL);
}

static bool find_function(struct instance *instance, const char *name, wasmtime_func_t *out)
{
    wasmtime_extern_t item;
    if (!wasmtime_instance_export_get(instance->context, &instance->wasm, name, strlen(name),
                                      &item))
        return false;
    *out = item.of.func;
    return item.kind == WASMTIME_EXTERN_FUNC;
}

static void call(struct instance *instance, const wasmtime_func_t *function, size_t argument_count,
                 size_t result_count)
{
    instance->future = wasmtime_func_call_async(instance->context, function, instance->arguments,
                                                argument_count, &instance->result, result_count,
                                                &instance->trap, &instance->error);
}

static void begin_step(struct guest *guest)
{
    struct instance *instance = guest->instance;
    switch (instance->step) {
    case STEP_CHECK: unreachable_state();
    case STEP_INSTANTIATE:
        open_store(guest);
        instance->future = wasmtime_instance_pre_instantiate_async(
            guest->prepared->pre, instance->context, &instance->wasm, &instance->trap,
            &instance->error);
        break;
    case STEP_INITIALIZE:
    case STEP_START: call(instance, &instance->function, 0, 0); break;
    case STEP_ALLOC:
        instance->arguments[0] =
            (wasmtime_val_t){.kind = WASMTIME_I32, .of.i32 = (int32_t) guest->request->input.len};
        call(instance, &instance->alloc, 1, 1);
        break;
    case STEP_RUN:
        instance->arguments[0] =
            (wasmtime_val_t){.kind = WASMTIME_I32, .of.i32 = (int32_t) instance->input_address};
        instance->arguments[1] =
            (wasmtime_val_t){.kind = WASMTIME_I32, .of.i32 = (int32_t) guest->request->input.len};
        call(instance, &instance->function, 2, 1);
        break;
    case STEP_COMPONENT:
        open_store(guest);
        instance->future = component_instantiate(guest);
        break;
    case STEP_COMPONENT_RUN: instance->future = component_run(guest); break;
    }
}

static bool abuse(struct guest *guest, const char *text)
{
    guest->stop = GUEST_STOP_ABUSE;
    guest->stop_text = text;
    guest_fail(guest, NULL, NULL);
    return false;
}

static bool put_input(struct guest *guest)
{
    struct instance *instance = guest->instance;
    str input = guest->request->input;
    if (instance->result.kind != WASMTIME_I32)
        return abuse(guest, "nexus_alloc gave no address");
    instance->input_address = (uint32_t) instance->result.of.i32;
    uint8_t *to = guest_bytes(guest, NULL, instance->input_address, input.len);
    if (!to || instance->input_address == 0)
        return abuse(guest, "nexus_alloc gave an address outside the memory");
    memcpy(to, input.ptr, input.len);
    return find_function(instance, "nexus_run", &instance->function) ||
           abuse(guest, "nexus_run is no function");
}

static bool take_output(struct guest *guest)
{
    struct instance *instance = guest->instance;
    if (instance->result.kind != WASMTIME_I64)
        return abuse(guest, "nexus_run gave no address and length");
    uint64_t packed = (uint64_t) instance->result.of.i64;
    uint32_t address = (uint32_t) (packed >> 32), bytes = (uint32_t) packed;
    if (bytes > guest->limits.output_bytes) { /* before anything is copied */
        guest->stop = GUEST_STOP_OUTPUT;
        guest_fail(guest, NULL, NULL);
        return false;
    }
    const uint8_t *from = guest_bytes(guest, NULL, address, bytes);
    if (!from)
        return abuse(guest, "nexus_run gave an output outside the memory");
    ensure(guest_add_output(guest, from, bytes));
    return true;
}

static bool after_instantiate(struct guest *guest)
{
    struct instance *instance = guest->instance;
    wasmtime_extern_t item;
    ensure(wasmtime_instance_export_get(instance->context, &instance->wasm, "memory", 6, &item));
    instance->memory = item.of.memory; /* check_exports saw to its kind */
    instance->has_memory = true;
    if (guest->prepared->abi == TOOL_ABI_WASI_COMMAND) {
        instance->step = STEP_START;
        return find_function(instance, "_start", &instance->function);
    }
    instance->step =
        find_function(instance, "_initialize", &instance->function) ? STEP_INITIALIZE : STEP_ALLOC;
    return find_function(instance, "nexus_alloc", &instance->alloc);
}

enum progress { PROGRESS_NEXT, PROGRESS_DONE, PROGRESS_FAILED };

static enum progress finish_step(struct guest *guest)
{
    struct instance *instance = guest->instance;
    switch (instance->step) {
    case STEP_CHECK:
        if (!check_schema(guest, guest->prepared->input_schema, guest->request->input,
                          REASON_SCHEMA, "the input"))
            return PROGRESS_FAILED;
        if (instance->store) {
            take_over(guest);
            instance->step = STEP_COMPONENT_RUN;
            return PROGRESS_NEXT;
        }
        instance->step =
            guest->prepared->abi == TOOL_ABI_COMPONENT ? STEP_COMPONENT : STEP_INSTANTIATE;
        return PROGRESS_NEXT;
    case STEP_INSTANTIATE:
        ensure(after_instantiate(guest)); /* check_exports saw these functions */
        return PROGRESS_NEXT;
    case STEP_INITIALIZE: instance->step = STEP_ALLOC; return PROGRESS_NEXT;
    case STEP_ALLOC:
        if (!put_input(guest))
            return PROGRESS_FAILED;
        instance->step = STEP_RUN;
        return PROGRESS_NEXT;
    case STEP_RUN: return take_output(guest) ? PROGRESS_DONE : PROGRESS_FAILED;
    case STEP_START: return PROGRESS_DONE;
    case STEP_COMPONENT: instance->step = STEP_COMPONENT_RUN; return PROGRESS_NEXT;
    case STEP_COMPONENT_RUN:
        guest->has_returned = true;
        return component_take_output(guest) ? PROGRESS_DONE : PROGRESS_FAILED;
    }
    unreachable_state();
}

/* The future has ended.  True when without a trap, or with the exit of a command that worked. */
static bool close_future(struct guest *guest)
{
    struct instance *instance = guest->instance;
    wasmtime_call_future_delete(instance->future);
    instance->future = NULL;
    wasm_trap_t *trap = GIVE(instance->trap);
    wasmtime_error_t *error = GIVE(instance->error);
    if (!trap && !error)
        return true;
    if (guest->stop == GUEST_STOP_EXIT && guest->exit_code == 0 && instance->step == STEP_START) {
        if (trap)
            wasm_trap_delete(trap);
        if (error)
            wasmtime_error_delete(error);
        return true;
    }
    guest_fail(guest, trap, error);
    return false;
}

static enum slice_result advance(struct guest *guest)
{
    struct instance *instance = guest->instance;
    enum progress progress = PROGRESS_NEXT;
    while (progress == PROGRESS_NEXT) {
        if (instance->step == STEP_CHECK) {
            progress = finish_step(guest);
            continue;
        }
        if (!instance->future)
            begin_step(guest);
        instance->pause = SLICE_YIELDED;
        if (!wasmtime_call_future_poll(instance->future))
            return instance->pause;
        progress = close_future(guest) ? finish_step(guest) : PROGRESS_FAILED;
    }
    guest->is_ok = progress == PROGRESS_DONE && check_output(guest);
    return SLICE_ENDED;
}

/* ---- the guest's life ---- */

static void start(struct guest *guest)
{
    guest->has_begun = true;
    guest->instance = guest->notebook ? GIVE(guest->notebook->kept) : NULL;
    if (!guest->instance)
        guest->instance = calloc(1, sizeof *guest->instance);
    ensure(guest->instance != NULL);
    int64_t own_ns = guest->slice_start_ns + guest->limits.time_ms * NS_PER_MS;
    guest->is_callers_deadline = guest->deadline_ns <= own_ns;
    if (!guest->is_callers_deadline)
        guest->deadline_ns = own_ns;
}

/* After a call that returned by itself, or one that never reached the instance. */
static bool is_worth_keeping(const struct guest *guest)
{
    const struct instance *instance = guest->instance;
    return guest->notebook && instance->store && !instance->future &&
           (guest->has_returned || instance->step == STEP_CHECK);
}

static void keep_instance(struct guest *guest)
{
    struct instance *instance = GIVE(guest->instance);
    wasmtime_context_set_data(instance->context, NULL);
    instance->step = STEP_CHECK;
    instance->stdin_offset = 0;
    if (!instance->prepared) {
        instance->prepared = guest->prepared;
        atomic_fetch_add(&guest->prepared->references, 1);
    }
    guest->notebook->kept = instance;
}

static void delete_store(struct instance *instance)
{
    wasmtime_store_delete(instance->store);
    if (instance->limiter)
        native_limiter_destroy(instance->limiter);
}

void guest_drop_kept(void *kept)
{
    struct instance *instance = kept;
    delete_store(instance);
    prepared_release(instance->prepared);
    free(instance);
}

static void close_instance(struct guest *guest)
{
    struct instance *instance = guest->instance;
    uint64_t fuel_left = 0;
    bool is_kept = is_worth_keeping(guest);
    if (instance->future)
        wasmtime_call_future_delete(
            instance->future); /* unwinds a guest that was stopped in the middle */
    if (instance->trap)
        wasm_trap_delete(instance->trap);
    if (instance->error)
        wasmtime_error_delete(instance->error);
    component_close(guest);
    if (instance->store) {
        wasmtime_error_t *failure = wasmtime_context_get_fuel(instance->context, &fuel_left);
        ensure(!failure);
        if (instance->step != STEP_CHECK) /* else the tank is still that of an earlier call */
            guest->fuel_used = (int64_t) (guest->limits.fuel - fuel_left);
        if (instance->has_memory)
            guest->memory_bytes = wasmtime_memory_data_size(instance->context, &instance->memory);
        if (instance->limiter)
            guest->memory_bytes = native_limiter_peak(instance->limiter);
        if (is_kept) {
            keep_instance(guest);
            return;
        }
        delete_store(instance);
    }
    prepared_release(instance->prepared);
    free(instance);
    guest->instance = NULL;
}

enum slice_result guest_run_slice(struct guest *guest)
{
    guest->slice_start_ns = clock_monotonic_ns(guest->sandbox->clock);
    guest->slice_start_cpu_ns = thread_cpu_ns();
    if (!guest->has_begun)
        start(guest);
    enum slice_result result = SLICE_ENDED;
    guest->stop = reason_to_stop(guest, guest->slice_start_ns);
    if (guest->stop == GUEST_STOP_NONE)
        result = advance(guest);
    else
        guest_fail(guest, NULL, NULL);
    guest->cpu_ns += thread_cpu_ns() - guest->slice_start_cpu_ns;
    if (result == SLICE_ENDED)
        close_instance(guest);
    return result;
}

void guest_dispose(struct guest *guest)
{
    for (size_t i = 0; i < guest->file_count; i++)
        if (guest->files[i].fd >= 0)
            close(guest->files[i].fd);
    guest_profile_dispose(guest);
    free(guest->call.request);
    free(guest->call.answer);
    free(guest->output);
}
