#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/digest.h"
#include "base/ensure.h"
#include <stdlib.h>
#include <string.h>

/*
 * WASI preview 1 for guests that have nothing: stdin (the input), stdout (the output), stderr (the
 * log), clocks, randomness and sleep.  No files, no sockets, no environment: whatever asks for them
 * gets an errno, as on a system that lacks them. Ours instead of wasmtime's, because that one
 * blocks a thread in sleeps, starts threads of its own, costs a context per call, and because what
 * is not there cannot be misconfigured. Source: WASI snapshot_preview1 (witx), errno and structure
 * layouts.
 */
enum {
    ERRNO_SUCCESS = 0,
    ERRNO_BADF = 8,
    ERRNO_INVAL = 28,
    ERRNO_IO = 29,
    ERRNO_NOSYS = 52,
    ERRNO_NOTSUP = 58,
    ERRNO_SPIPE = 70,
    ERRNO_NOTCAPABLE = 76,
};
enum {
    IOVEC_BYTES = 8,
    IOVECS_MAX = 1024,
    FDSTAT_BYTES = 24,
    FILESTAT_BYTES = 64,
    FILETYPE_CHARACTER_DEVICE = 2,
    RIGHT_FD_READ = 1 << 1,
    RIGHT_FD_WRITE = 1 << 6,
    CLOCK_REALTIME_ID = 0,
    CLOCK_PROCESS_ID = 2,
    CLOCK_THREAD_ID = 3,
    SUBSCRIPTION_BYTES = 48,
    EVENT_BYTES = 32,
    EVENT_CLOCK = 0,
    NS_PER_US = 1000,
};

static wasm_trap_t *give(wasmtime_val_raw_t *values, int32_t errno_value)
{
    values[0].i32 = errno_value;
    return NULL;
}

static wasm_trap_t *bad_pointer(struct guest *guest)
{
    return guest_stop_trap(guest, GUEST_STOP_ABUSE,
                           "it passed an address outside its memory to WASI");
}

static uint32_t load32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t load64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static void store32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

static void store64(uint8_t *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

#define ARGUMENTS void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values, size_t count
#define GUEST                                                                                      \
    (void) env, (void) count;                                                                      \
    struct guest *guest = guest_of(caller)

static uint32_t argument(const wasmtime_val_raw_t *values, size_t index)
{
    return (uint32_t) values[index].i32;
}

/* ---- what is not there ---- */

static wasm_trap_t *no_capability(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, ERRNO_NOTCAPABLE);
}

static wasm_trap_t *no_descriptor(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, ERRNO_BADF);
}

static wasm_trap_t *no_system(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, ERRNO_NOSYS);
}

static wasm_trap_t *no_seek(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, argument(values, 0) <= 2 ? ERRNO_SPIPE : ERRNO_BADF);
}

static wasm_trap_t *nothing(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *success_on_stdio(ARGUMENTS)
{
    (void) env, (void) caller, (void) count;
    return give(values, argument(values, 0) <= 2 ? ERRNO_SUCCESS : ERRNO_BADF);
}

/* ---- arguments and environment: argv[0] is the tool's name, nothing more ---- */

static wasm_trap_t *args_sizes_get(ARGUMENTS)
{
    GUEST;
    uint8_t *argc = guest_bytes(guest, caller, argument(values, 0), 4),
            *bytes = guest_bytes(guest, caller, argument(values, 1), 4);
    if (!argc || !bytes)
        return bad_pointer(guest);
    store32(argc, 1);
    store32(bytes, (uint32_t) guest->request->tool->name.len + 1);
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *args_get(ARGUMENTS)
{
    GUEST;
    str name = guest->request->tool->name;
    uint8_t *argv = guest_bytes(guest, caller, argument(values, 0), 4);
    uint8_t *text = guest_bytes(guest, caller, argument(values, 1), name.len + 1);
    if (!argv || !text)
        return bad_pointer(guest);
    store32(argv, argument(values, 1));
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *environ_sizes_get(ARGUMENTS)
{
    GUEST;
    uint8_t *number = guest_bytes(guest, caller, argument(values, 0), 4);
    uint8_t *bytes = guest_bytes(guest, caller, argument(values, 1), 4);
    if (!number || !bytes)
        return bad_pointer(guest);
    store32(number, 0);
    store32(bytes, 0);
    return give(values, ERRNO_SUCCESS);
}

/* ---- clocks and randomness ---- */

static wasm_trap_t *clock_res_get(ARGUMENTS)
{
    GUEST;
    uint8_t *out = guest_bytes(guest, caller, argument(values, 1), 8);
    if (!out)
        return bad_pointer(guest);
    store64(out, NS_PER_US);
    return give(values, argument(values, 0) <= CLOCK_THREAD_ID ? ERRNO_SUCCESS : ERRNO_INVAL);
}

static int64_t clock_now_ns(const struct guest *guest, uint32_t id)
{
    struct clock *clock = guest->sandbox->clock;
    if (id == CLOCK_REALTIME_ID)
        return clock_unix_us(clock) * NS_PER_US;
    int64_t now_ns = clock_monotonic_ns(clock);
    bool is_cpu = id == CLOCK_PROCESS_ID || id == CLOCK_THREAD_ID;
    int64_t ns = is_cpu ? guest->cpu_ns + now_ns - guest->slice_start_ns : now_ns;
    return ns - ns % NS_PER_US; /* as clock_res_get says: finer time serves to spy on caches */
}

static wasm_trap_t *clock_time_get(ARGUMENTS)
{
    GUEST;
    uint32_t id = argument(values, 0);
    uint8_t *out = guest_bytes(guest, caller, argument(values, 2), 8);
    if (!out)
        return bad_pointer(guest);
    if (id > CLOCK_THREAD_ID)
        return give(values, ERRNO_INVAL);
    store64(out, (uint64_t) clock_now_ns(guest, id));
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *random_get(ARGUMENTS)
{
    GUEST;
    uint32_t bytes = argument(values, 1);
    uint8_t *out = guest_bytes(guest, caller, argument(values, 0), bytes);
    if (!out)
        return bad_pointer(guest);
    if (bytes > SANDBOX_RANDOM_BYTES_MAX)
        return give(values, ERRNO_INVAL);
    digest_random_bytes(out, bytes);
    return give(values, ERRNO_SUCCESS);
}

/* ---- the three streams ---- */

/* Puts one piece where descriptor `fd` goes; a trap past the output's limit. */
static wasm_trap_t *write_piece(struct guest *guest, uint32_t fd, const uint8_t *bytes,
                                uint32_t size)
{
    if (fd == 2 || guest->prepared->abi != TOOL_ABI_WASI_COMMAND)
        guest_add_log(guest, bytes,
                      size); /* the output of nexus-export is what nexus_run returns */
    else if (!guest_add_output(guest, bytes, size))
        return guest_stop_trap(guest, GUEST_STOP_OUTPUT, "the output is over its limit");
    return NULL;
}

static wasm_trap_t *fd_write(ARGUMENTS)
{
    GUEST;
    uint32_t fd = argument(values, 0), iovecs = argument(values, 2), total = 0;
    if (fd != 1 && fd != 2)
        return give(values, ERRNO_BADF);
    if (iovecs > IOVECS_MAX)
        return give(values, ERRNO_INVAL);
    const uint8_t *list =
        guest_bytes(guest, caller, argument(values, 1), (uint64_t) iovecs * IOVEC_BYTES);
    uint8_t *written = guest_bytes(guest, caller, argument(values, 3), 4);
    if (!list || !written)
        return bad_pointer(guest);
    for (uint32_t i = 0; i < iovecs; i++) {
        uint32_t size = load32(list + (size_t) i * IOVEC_BYTES + 4);
        const uint8_t *from =
            guest_bytes(guest, caller, load32(list + (size_t) i * IOVEC_BYTES), size);
        if (!from)
            return bad_pointer(guest);
        wasm_trap_t *trap = write_piece(guest, fd, from, size);
        if (trap)
            return trap;
        total += size;
    }
    store32(written, total);
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *fd_read(ARGUMENTS)
{
    GUEST;
    uint32_t iovecs = argument(values, 2), total = 0;
    if (argument(values, 0) != 0)
        return give(values, ERRNO_BADF);
    if (iovecs > IOVECS_MAX)
        return give(values, ERRNO_INVAL);
    const uint8_t *list =
        guest_bytes(guest, caller, argument(values, 1), (uint64_t) iovecs * IOVEC_BYTES);
    uint8_t *read = guest_bytes(guest, caller, argument(values, 3), 4);
    if (!list || !read)
        return bad_pointer(guest);
    str input = guest->prepared->abi == TOOL_ABI_WASI_COMMAND ? guest->request->input : STR_NONE;
    for (uint32_t i = 0; i < iovecs; i++) {
        uint32_t size = load32(list + (size_t) i * IOVEC_BYTES + 4);
        uint8_t *to = guest_bytes(guest, caller, load32(list + (size_t) i * IOVEC_BYTES), size);
        if (!to)
            return bad_pointer(guest);
        str piece =
            str_slice(input, guest->instance->stdin_offset, guest->instance->stdin_offset + size);
        memcpy(to, piece.ptr ? piece.ptr : "", piece.len);
        guest->instance->stdin_offset += piece.len;
        total += (uint32_t) piece.len;
    }
    store32(read, total);
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *fd_fdstat_get(ARGUMENTS)
{
    GUEST;
    uint32_t fd = argument(values, 0);
    uint8_t *out = guest_bytes(guest, caller, argument(values, 1), FDSTAT_BYTES);
    if (!out)
        return bad_pointer(guest);
    if (fd > 2)
        return give(values, ERRNO_BADF);
    memset(out, 0, FDSTAT_BYTES);
    out[0] = FILETYPE_CHARACTER_DEVICE;
    store64(out + 8, fd == 0 ? RIGHT_FD_READ : RIGHT_FD_WRITE);
    return give(values, ERRNO_SUCCESS);
}

static wasm_trap_t *fd_filestat_get(ARGUMENTS)
{
    GUEST;
    uint8_t *out = guest_bytes(guest, caller, argument(values, 1), FILESTAT_BYTES);
    if (!out)
        return bad_pointer(guest);
    if (argument(values, 0) > 2)
        return give(values, ERRNO_BADF);
    memset(out, 0, FILESTAT_BYTES);
    out[16] = FILETYPE_CHARACTER_DEVICE;
    return give(values, ERRNO_SUCCESS);
}

/* ---- the end ---- */

static wasm_trap_t *proc_exit(ARGUMENTS)
{
    GUEST;
    guest->exit_code = values[0].i32;
    return guest_stop_trap(guest, GUEST_STOP_EXIT, "exit");
}

static wasm_trap_t *proc_raise(ARGUMENTS)
{
    GUEST;
    (void) values;
    return guest_stop_trap(guest, GUEST_STOP_ABUSE, "it raised a signal");
}

/* ---- sleep: poll_oneoff, the one call here that waits ---- */

struct poll {
    struct guest *guest;
    int64_t until_ns;
};

static bool continue_poll(void *env)
{
    struct poll *poll = env;
    if (clock_monotonic_ns(poll->guest->sandbox->clock) >= poll->until_ns)
        return true;
    int64_t deadline_ns = poll->guest->deadline_ns;
    poll->guest->wake_ns = poll->until_ns < deadline_ns ? poll->until_ns : deadline_ns;
    poll->guest->instance->pause = SLICE_SLEEPS;
    return false;
}

static bool poll_is_over(void *env)
{
    (void) env;
    return true;
}

/* When a clock subscription fires, on the monotonic clock; ready streams fire now. */
static int64_t fires_ns(const struct guest *guest, const uint8_t *subscription)
{
    int64_t now_ns = clock_monotonic_ns(guest->sandbox->clock);
    if (subscription[8] != EVENT_CLOCK)
        return now_ns;
    uint32_t id = load32(subscription + 16);
    uint64_t timeout = load64(subscription + 24);
    int64_t timeout_ns = timeout > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t) timeout;
    bool is_absolute = subscription[40] & 1;
    return is_absolute ? now_ns + timeout_ns - clock_now_ns(guest, id) : now_ns + timeout_ns;
}

/* Events for all that fire at the earliest moment; 0 subscriptions is an error of the caller's. */
static uint32_t write_events(const struct guest *guest, const uint8_t *subscriptions,
                             uint32_t number, int64_t until_ns, uint8_t *events)
{
    uint32_t written = 0;
    for (uint32_t i = 0; i < number; i++) {
        const uint8_t *subscription = subscriptions + (size_t) i * SUBSCRIPTION_BYTES;
        if (fires_ns(guest, subscription) > until_ns + NS_PER_US * 1000)
            continue;
        uint8_t *event = events + (size_t) written * EVENT_BYTES;
        memset(event, 0, EVENT_BYTES);
        memcpy(event, subscription, 8);
        event[10] = subscription[8];
        written++;
    }
    return written;
}

static void poll_oneoff(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *arguments,
                        size_t argument_count, wasmtime_val_t *results, size_t result_count,
                        wasm_trap_t **trap_out, wasmtime_async_continuation_t *continuation)
{
    (void) env;
    ensure(argument_count == 4 && result_count == 1);
    struct guest *guest = guest_of(caller);
    uint32_t number = (uint32_t) arguments[2].of.i32;
    bool is_sane = number > 0 && number <= SANDBOX_POLL_SUBSCRIPTIONS_MAX;
    *continuation = (wasmtime_async_continuation_t){.callback = poll_is_over};
    results[0] =
        (wasmtime_val_t){.kind = WASMTIME_I32, .of.i32 = is_sane ? ERRNO_SUCCESS : ERRNO_INVAL};
    if (!is_sane)
        return;
    const uint8_t *in = guest_bytes(guest, caller, (uint32_t) arguments[0].of.i32,
                                    (uint64_t) number * SUBSCRIPTION_BYTES);
    uint8_t *out =
        guest_bytes(guest, caller, (uint32_t) arguments[1].of.i32, (uint64_t) number * EVENT_BYTES);
    uint8_t *written = guest_bytes(guest, caller, (uint32_t) arguments[3].of.i32, 4);
    if (!in || !out || !written) {
        *trap_out = bad_pointer(guest);
        return;
    }
    uint8_t copy[SANDBOX_POLL_SUBSCRIPTIONS_MAX * SUBSCRIPTION_BYTES]; /* in and out may overlap */
    memcpy(copy, in, (size_t) number * SUBSCRIPTION_BYTES);
    int64_t until_ns = INT64_MAX;
    for (uint32_t i = 0; i < number; i++) {
        int64_t fires = fires_ns(guest, copy + (size_t) i * SUBSCRIPTION_BYTES);
        until_ns = fires < until_ns ? fires : until_ns;
    }
    store32(written, write_events(guest, copy, number, until_ns, out));
    struct poll *poll = calloc(1, sizeof *poll);
    ensure(poll != NULL);
    *poll = (struct poll){.guest = guest, .until_ns = until_ns};
    *continuation =
        (wasmtime_async_continuation_t){.callback = continue_poll, .env = poll, .finalizer = free};
}

static const struct host_function functions[] = {
    {"args_get", "ii:i", args_get},
    {"args_sizes_get", "ii:i", args_sizes_get},
    {"clock_res_get", "ii:i", clock_res_get},
    {"clock_time_get", "iIi:i", clock_time_get},
    {"environ_get", "ii:i", nothing},
    {"environ_sizes_get", "ii:i", environ_sizes_get},
    {"fd_advise", "iIIi:i", no_descriptor},
    {"fd_allocate", "iII:i", no_descriptor},
    {"fd_close", "i:i", success_on_stdio},
    {"fd_datasync", "i:i", no_descriptor},
    {"fd_fdstat_get", "ii:i", fd_fdstat_get},
    {"fd_fdstat_set_flags", "ii:i", success_on_stdio},
    {"fd_fdstat_set_rights", "iII:i", no_descriptor},
    {"fd_filestat_get", "ii:i", fd_filestat_get},
    {"fd_filestat_set_size", "iI:i", no_descriptor},
    {"fd_filestat_set_times", "iIIi:i", no_descriptor},
    {"fd_pread", "iiiIi:i", no_seek},
    {"fd_prestat_dir_name", "iii:i", no_descriptor},
    {"fd_prestat_get", "ii:i", no_descriptor},
    {"fd_pwrite", "iiiIi:i", no_seek},
    {"fd_read", "iiii:i", fd_read},
    {"fd_readdir", "iiiIi:i", no_descriptor},
    {"fd_renumber", "ii:i", no_descriptor},
    {"fd_seek", "iIii:i", no_seek},
    {"fd_sync", "i:i", no_descriptor},
    {"fd_tell", "ii:i", no_seek},
    {"fd_write", "iiii:i", fd_write},
    {"path_create_directory", "iii:i", no_capability},
    {"path_filestat_get", "iiiii:i", no_capability},
    {"path_filestat_set_times", "iiiiIIi:i", no_capability},
    {"path_link", "iiiiiii:i", no_capability},
    {"path_open", "iiiiiIIii:i", no_capability},
    {"path_readlink", "iiiiii:i", no_capability},
    {"path_remove_directory", "iii:i", no_capability},
    {"path_rename", "iiiiii:i", no_capability},
    {"path_symlink", "iiiii:i", no_capability},
    {"path_unlink_file", "iii:i", no_capability},
    {"proc_exit", "i:", proc_exit},
    {"proc_raise", "i:i", proc_raise},
    {"random_get", "ii:i", random_get},
    {"sched_yield", ":i", nothing},
    {"sock_accept", "iii:i", no_system},
    {"sock_recv", "iiiiii:i", no_system},
    {"sock_send", "iiiii:i", no_system},
    {"sock_shutdown", "ii:i", no_system},
};

bool wasi_functions_define(wasmtime_linker_t *linker, struct error *e)
{
    static const char module[] = "wasi_snapshot_preview1";
    wasm_functype_t *type = signature_make("iiii:i");
    wasmtime_error_t *failure = wasmtime_linker_define_async_func(
        linker, module, sizeof module - 1, "poll_oneoff", 11, type, poll_oneoff, NULL, NULL);
    wasm_functype_delete(type);
    if (failure)
        return wasm_error_set(e, REASON_INTERNAL, "poll_oneoff", failure);
    return host_functions_define(linker, module, functions, ARRAY_COUNT(functions), e);
}
