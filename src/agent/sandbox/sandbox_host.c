#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/ensure.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The imports of module "nexus": host_call, file_size, file_read, file_write, log (manual:
 * toolbox/sdk/nexus_tool.h). A pointer outside the guest's memory ends the guest; everything else
 * it can do wrong is an answer it can handle.
 */
enum { FILE_NOT_FOUND = -1, FILE_DENIED = -2, FILE_IO = -3 };

static wasm_trap_t *bad_pointer(struct guest *guest)
{
    return guest_stop_trap(guest, GUEST_STOP_ABUSE,
                           "it passed an address outside its memory to the host");
}

/* ---- files ---- */

/* What stands in the way of a file function: 0, or the status it gives. */
static int32_t check_file(const struct guest *guest, const char *function,
                          const struct guest_file *file)
{
    if (!tool_may_call(guest->request->tool, str_from_cstr(function)))
        return FILE_DENIED;
    if (!file)
        return FILE_NOT_FOUND;
    return file->is_denied ? FILE_DENIED : 0;
}

static struct guest_file *find_file(struct guest *guest, str name)
{
    for (size_t i = 0; i < guest->file_count; i++)
        if (str_equal(guest->files[i].name, name))
            return &guest->files[i];
    return NULL;
}

static int open_file(struct guest_file *file)
{
    if (file->fd < 0)
        file->fd = open(file->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return file->fd;
}

static wasm_trap_t *file_size(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                              size_t count)
{
    (void) env, (void) count;
    struct guest *guest = guest_of(caller);
    uint32_t name_len = (uint32_t) values[1].i32;
    const uint8_t *name = guest_bytes(guest, caller, (uint32_t) values[0].i32, name_len);
    if (!name)
        return bad_pointer(guest);
    const struct guest_file *file = find_file(guest, str_of((const char *) name, name_len));
    int32_t status = check_file(guest, "file_size", file);
    values[0].i64 = status != 0 ? status : file->bytes;
    return NULL;
}

static wasm_trap_t *file_read(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                              size_t count)
{
    (void) env, (void) count;
    struct guest *guest = guest_of(caller);
    uint32_t name_len = (uint32_t) values[1].i32, wanted = (uint32_t) values[4].i32;
    int64_t offset = values[2].i64;
    const uint8_t *name = guest_bytes(guest, caller, (uint32_t) values[0].i32, name_len);
    uint8_t *to = guest_bytes(guest, caller, (uint32_t) values[3].i32, wanted);
    if (!name || !to)
        return bad_pointer(guest);
    struct guest_file *file = find_file(guest, str_of((const char *) name, name_len));
    int32_t status = check_file(guest, "file_read", file);
    if (status != 0 || offset < 0) {
        values[0].i32 = status != 0 ? status : FILE_IO;
        return NULL;
    }
    int fd = open_file(file);
    ssize_t got = -1;
    if (fd >= 0)
        do
            got = pread(fd, to,
                        wanted < SANDBOX_FILE_READ_BYTES_MAX ? wanted : SANDBOX_FILE_READ_BYTES_MAX,
                        offset);
        while (got < 0 && errno == EINTR);
    values[0].i32 = got >= 0 ? (int32_t) got : FILE_IO;
    return NULL;
}

/* Session files are read-only for guests. */
static wasm_trap_t *file_write(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                               size_t count)
{
    (void) env, (void) caller, (void) count;
    values[0].i32 = FILE_DENIED;
    return NULL;
}

static wasm_trap_t *log_line(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                             size_t count)
{
    (void) env, (void) count;
    struct guest *guest = guest_of(caller);
    uint32_t bytes = (uint32_t) values[1].i32;
    const uint8_t *text = guest_bytes(guest, caller, (uint32_t) values[0].i32, bytes);
    if (!text)
        return bad_pointer(guest);
    guest_add_log(guest, text, bytes);
    guest_add_log(guest, "\n", 1);
    return NULL;
}

/* ---- host_call ---- */

/* A host call from the guest's request to the answer in its memory.  Lives from the import's call
   until its continuation ends. */
struct host_wait {
    struct guest *guest;
    wasmtime_caller_t *caller;
    wasmtime_val_t *result;
    wasm_trap_t **trap_out;
    wasmtime_call_future_t *alloc; /* nexus_alloc for the answer, once there is one */
    wasmtime_func_t function;
    wasmtime_val_t argument, address;
    wasm_trap_t *trap;
    wasmtime_error_t *error;
};

static void host_wait_free(void *env)
{
    struct host_wait *wait = env;
    if (wait->alloc)
        wasmtime_call_future_delete(wait->alloc);
    if (wait->trap)
        wasm_trap_delete(wait->trap);
    if (wait->error)
        wasmtime_error_delete(wait->error);
    free(wait);
}

static bool refuse(struct host_wait *wait, const char *text)
{
    *wait->trap_out = guest_stop_trap(wait->guest, GUEST_STOP_ABUSE, text);
    return true;
}

static void begin_alloc(struct host_wait *wait)
{
    struct guest *guest = wait->guest;
    guest->instance->is_answering = true;
    wait->function = guest->instance->alloc;
    wait->argument =
        (wasmtime_val_t){.kind = WASMTIME_I32, .of.i32 = (int32_t) guest->call.answer_bytes};
    wait->alloc =
        wasmtime_func_call_async(wasmtime_caller_context(wait->caller), &wait->function,
                                 &wait->argument, 1, &wait->address, 1, &wait->trap, &wait->error);
}

static bool put_answer(struct host_wait *wait)
{
    struct guest *guest = wait->guest;
    wasmtime_call_future_delete(GIVE(wait->alloc));
    guest->instance->is_answering = false;
    /* Out of fuel, memory or time in nexus_alloc: the guest ends for that reason. */
    if (wait->trap || wait->error) {
        guest_fail(guest, GIVE(wait->trap), GIVE(wait->error));
        *wait->trap_out = guest_stop_trap(guest, GUEST_STOP_REPORTED, "stopped");
        return true;
    }
    uint32_t address = (uint32_t) wait->address.of.i32;
    uint8_t *to = guest_bytes(guest, wait->caller, address, guest->call.answer_bytes);
    if (wait->address.kind != WASMTIME_I32 || !to || address == 0)
        return refuse(wait, "nexus_alloc gave an address outside the memory");
    memcpy(to, guest->call.answer, guest->call.answer_bytes);
    uint64_t packed = (uint64_t) address << 32 | guest->call.answer_bytes;
    *wait->result = (wasmtime_val_t){.kind = WASMTIME_I64, .of.i64 = (int64_t) packed};
    return true;
}

/* Polled each time the guest gets a slice: true when the import can return. */
static bool continue_host_call(void *env)
{
    struct host_wait *wait = env;
    struct guest *guest = wait->guest;
    if (!atomic_load(&guest->call.is_answered)) {
        guest->instance->pause = SLICE_WAITS;
        return false;
    }
    if (!wait->alloc)
        begin_alloc(wait);
    return wasmtime_call_future_poll(wait->alloc) && put_answer(wait);
}

static bool is_refused(void *env)
{
    (void) env;
    return true; /* the trap is set */
}

static void answer_now(struct guest_call *call, const char *json)
{
    call->answer = strdup(json);
    ensure(call->answer != NULL);
    call->answer_bytes = strlen(json);
    atomic_store(&call->is_answered, true);
}

static const struct host_call *find_host_call(const struct guest *guest, str name)
{
    if (!tool_may_call(guest->request->tool, name))
        return NULL;
    for (size_t i = 0; i < guest->sandbox->host_call_count; i++)
        if (str_equal(str_from_cstr(guest->sandbox->host_calls[i].name), name))
            return &guest->sandbox->host_calls[i];
    return NULL;
}

bool guest_call_begin(struct guest *guest, str name, str request, const char **why)
{
    *why = "it made too many host calls";
    if (++guest->call_count > SANDBOX_HOST_CALLS_MAX)
        return false;
    struct guest_call *call = &guest->call;
    free(call->request);
    free(call->answer);
    *call = (struct guest_call){0};
    if (name.len > SANDBOX_HOST_CALL_NAME_BYTES_MAX || request.len > SANDBOX_HOST_CALL_BYTES_MAX) {
        answer_now(call, "{\"error\":{\"code\":\"limit\",\"message\":\"the request of the host "
                         "call is too large\"}}");
        return true;
    }
    call->host = find_host_call(guest, name);
    if (!call->host) {
        guest->denied_reason = REASON_PERMISSION;
        answer_now(call, "{\"error\":{\"code\":\"denied\",\"message\":\"the tool's manifest does "
                         "not grant this host call\"}}");
        return true;
    }
    call->request = malloc(request.len + 1);
    ensure(call->request != NULL);
    memcpy(call->request, request.ptr, request.len);
    call->request_bytes = request.len;
    sandbox_start_host_call(guest);
    return true;
}

/* False: the guest broke the rules; *why says which. */
static bool begin_call(struct guest *guest, wasmtime_caller_t *caller,
                       const wasmtime_val_t *arguments, const char **why)
{
    uint32_t name_len = (uint32_t) arguments[1].of.i32,
             request_len = (uint32_t) arguments[3].of.i32;
    const uint8_t *name = guest_bytes(guest, caller, (uint32_t) arguments[0].of.i32, name_len);
    const uint8_t *request =
        guest_bytes(guest, caller, (uint32_t) arguments[2].of.i32, request_len);
    *why = "it passed an address outside its memory to the host";
    if (!name || !request)
        return false;
    *why = "it made a host call before it was initialised";
    if (guest->prepared->abi != TOOL_ABI_NEXUS_EXPORT || guest->instance->step == STEP_INSTANTIATE)
        return false;
    /* Each would take a stack of its own from the pool that all guests share, and the answer of the one before. */
    *why = "it made a host call while it was given the answer of another";
    if (guest->instance->is_answering)
        return false;
    return guest_call_begin(guest, str_of((const char *) name, name_len),
                            str_of((const char *) request, request_len), why);
}

static void host_call(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *arguments,
                      size_t argument_count, wasmtime_val_t *results, size_t result_count,
                      wasm_trap_t **trap_out, wasmtime_async_continuation_t *continuation)
{
    (void) env;
    ensure(argument_count == 4 && result_count == 1);
    struct guest *guest = guest_of(caller);
    const char *why;
    results[0] = (wasmtime_val_t){.kind = WASMTIME_I64};
    *continuation = (wasmtime_async_continuation_t){.callback = is_refused};
    if (!begin_call(guest, caller, arguments, &why)) {
        *trap_out = guest_stop_trap(guest, GUEST_STOP_ABUSE, why);
        return;
    }
    struct host_wait *wait = calloc(1, sizeof *wait);
    ensure(wait != NULL);
    *wait = (struct host_wait){
        .guest = guest, .caller = caller, .result = results, .trap_out = trap_out};
    *continuation = (wasmtime_async_continuation_t){
        .callback = continue_host_call, .env = wait, .finalizer = host_wait_free};
}

static const struct host_function functions[] = {
    {"file_size", "ii:I", file_size},
    {"file_read", "iiIii:i", file_read},
    {"file_write", "iiIii:i", file_write},
    {"log", "ii:", log_line},
};

bool nexus_functions_define(wasmtime_linker_t *linker, struct error *e)
{
    wasm_functype_t *type = signature_make("iiii:I");
    wasmtime_error_t *failure = wasmtime_linker_define_async_func(linker, "nexus", 5, "host_call",
                                                                  9, type, host_call, NULL, NULL);
    wasm_functype_delete(type);
    if (failure)
        return wasm_error_set(e, REASON_INTERNAL, "host_call", failure);
    return host_functions_define(linker, "nexus", functions, ARRAY_COUNT(functions), e);
}
