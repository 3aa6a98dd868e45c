#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/digest.h"
#include "base/ensure.h"
#include <stdlib.h>
#include <string.h>

/*
 * WASI 0.2 for components that have nothing: two clocks, randomness, sleep, standard streams (input is empty, output is
 * the log).  No files, no sockets, no environment, as in sandbox_wasi.c and for its reasons: what is not here cannot be
 * misconfigured, and a guest that sleeps holds no thread.  What a component imports beyond these rows traps when called.
 */
enum {
    READY = TOOL_COMPONENT_POLLABLES_MAX, /* a pollable that always is */
    NS_PER_US = 1000,
};

#define ARGUMENTS                                                                                  \
    struct guest *guest, wasmtime_context_t *context, const wasmtime_component_val_t *arguments,   \
        wasmtime_component_val_t *result, wasmtime_error_t **failure,                              \
        wasmtime_async_continuation_t *continuation
#define UNUSED                                                                                     \
    (void) guest, (void) context, (void) arguments, (void) result, (void) failure,                 \
        (void) continuation

/* ---- values ---- */

wasmtime_component_val_t component_string(str text)
{
    wasmtime_component_val_t value = {.kind = WASMTIME_COMPONENT_STRING};
    wasm_name_new(&value.of.string, text.len, text.ptr);
    return value;
}

wasmtime_component_val_t component_result(bool is_ok, wasmtime_component_val_t *give_value)
{
    return (wasmtime_component_val_t){
        .kind = WASMTIME_COMPONENT_RESULT,
        .of.result = {.is_ok = is_ok,
                      .val = give_value ? wasmtime_component_val_new(give_value) : NULL}};
}

static wasmtime_component_val_t u64_value(uint64_t number)
{
    return (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_U64, .of.u64 = number};
}

static wasmtime_component_val_t enum_value(const char *name)
{
    wasmtime_component_val_t value = {.kind = WASMTIME_COMPONENT_ENUM};
    wasm_name_new_from_string(&value.of.enumeration, name);
    return value;
}

static wasmtime_component_val_t empty_list(void)
{
    wasmtime_component_val_t value = {.kind = WASMTIME_COMPONENT_LIST};
    wasmtime_component_vallist_new_empty(&value.of.list);
    return value;
}

static void fail(wasmtime_error_t **failure, struct guest *guest, const char *text)
{
    guest->stop = GUEST_STOP_ABUSE;
    guest->stop_text = text;
    *failure = wasmtime_error_new(text);
}

/* ---- resources: a number of ours behind each ---- */

/* A type's index is its number for wasmtime.  Interfaces that use another one's type list it under the same name. */
static const char *const resource_names[] = {
    "pollable",
    "error",
    "input-stream",
    "output-stream",
    "descriptor",
    "directory-entry-stream",
    "network",
    "tcp-socket",
    "udp-socket",
    "incoming-datagram-stream",
    "terminal-input",
    "terminal-output",
    "outgoing-datagram-stream",
    "resolve-address-stream",
};
enum { POLLABLE = 0, INPUT_STREAM = 2, OUTPUT_STREAM = 3, NETWORK = 6 };

/* Dropped by the guest. */
static wasmtime_error_t *drop_pollable(void *env, wasmtime_context_t *context, uint32_t number)
{
    (void) env;
    struct guest *guest = wasmtime_context_get_data(context);
    if (number < TOOL_COMPONENT_POLLABLES_MAX)
        guest->instance->component.pollables_ns[number] = 0;
    return NULL;
}

static wasmtime_error_t *drop_nothing(void *env, wasmtime_context_t *context, uint32_t number)
{
    (void) env, (void) context, (void) number;
    return NULL;
}

bool wasip2_define_resource(wasmtime_component_linker_instance_t *to, str name,
                            wasmtime_error_t **failure)
{
    for (uint32_t i = 0; i < ARRAY_COUNT(resource_names); i++) {
        if (!str_equal(str_from_cstr(resource_names[i]), name))
            continue;
        wasmtime_component_resource_type_t *type = wasmtime_component_resource_type_new_host(i);
        *failure = wasmtime_component_linker_instance_add_resource(
            to, name.ptr, name.len, type, i == POLLABLE ? drop_pollable : drop_nothing, NULL, NULL);
        wasmtime_component_resource_type_delete(type);
        return true;
    }
    return false;
}

static wasmtime_component_val_t give_resource(wasmtime_context_t *context, uint32_t type,
                                              uint32_t number, wasmtime_error_t **failure)
{
    wasmtime_component_val_t value = {.kind = WASMTIME_COMPONENT_RESOURCE};
    wasmtime_component_resource_host_t *host =
        wasmtime_component_resource_host_new(true, number, type);
    *failure = wasmtime_component_resource_host_to_any(context, host, &value.of.resource);
    wasmtime_component_resource_host_delete(host);
    return *failure ? (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_BOOL} : value;
}

static uint32_t number_of(wasmtime_context_t *context, const wasmtime_component_val_t *value,
                          wasmtime_error_t **failure)
{
    wasmtime_component_resource_host_t *host = NULL;
    *failure = wasmtime_component_resource_any_to_host(context, value->of.resource, &host);
    if (*failure)
        return READY;
    uint32_t number = wasmtime_component_resource_host_rep(host);
    wasmtime_component_resource_host_delete(host);
    return number;
}

/* A borrowed handle counts as held until it is looked at: a function that has no use for its own does this. */
static void let_go(wasmtime_context_t *context, const wasmtime_component_val_t *handle,
                   wasmtime_error_t **failure)
{
    (void) number_of(context, handle, failure);
}

/* ---- clocks and randomness ---- */

static int64_t monotonic_ns(const struct guest *guest)
{
    return clock_monotonic_ns(guest->sandbox->clock);
}

static void monotonic_now(ARGUMENTS)
{
    UNUSED;
    int64_t now_ns = monotonic_ns(guest);
    *result = u64_value((uint64_t) (now_ns - now_ns % NS_PER_US)); /* as in sandbox_wasi.c */
}

static void monotonic_resolution(ARGUMENTS)
{
    UNUSED;
    *result = u64_value(NS_PER_US);
}

static wasmtime_component_val_t datetime(uint64_t seconds, uint32_t nanoseconds)
{
    wasmtime_component_val_t value = {.kind = WASMTIME_COMPONENT_RECORD};
    wasmtime_component_valrecord_new_uninit(&value.of.record, 2);
    wasmtime_component_valrecord_entry_t *entries = value.of.record.data;
    wasm_name_new_from_string(&entries[0].name, "seconds");
    entries[0].val = u64_value(seconds);
    wasm_name_new_from_string(&entries[1].name, "nanoseconds");
    entries[1].val =
        (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_U32, .of.u32 = nanoseconds};
    return value;
}

static void wall_now(ARGUMENTS)
{
    UNUSED;
    uint64_t now_us = (uint64_t) clock_unix_us(guest->sandbox->clock);
    *result = datetime(now_us / 1000000, (uint32_t) (now_us % 1000000) * 1000);
}

static void wall_resolution(ARGUMENTS)
{
    UNUSED;
    *result = datetime(0, 1000);
}

static void random_bytes(ARGUMENTS)
{
    UNUSED;
    uint64_t count = arguments[0].of.u64;
    if (count > SANDBOX_RANDOM_BYTES_MAX) {
        fail(failure, guest, "it asked for too many random bytes at once");
        return;
    }
    uint8_t *bytes = malloc(count + 1);
    ensure(bytes != NULL);
    digest_random_bytes(bytes, count);
    result->kind = WASMTIME_COMPONENT_LIST;
    wasmtime_component_vallist_new_uninit(&result->of.list, count);
    for (uint64_t i = 0; i < count; i++)
        result->of.list.data[i] =
            (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_U8, .of.u8 = bytes[i]};
    free(bytes);
}

/* ---- waiting ---- */

static void give_pollable(struct guest *guest, wasmtime_context_t *context, int64_t fires_ns,
                          wasmtime_component_val_t *result, wasmtime_error_t **failure)
{
    int64_t *pollables = guest->instance->component.pollables_ns;
    uint32_t number = 0;
    while (number < TOOL_COMPONENT_POLLABLES_MAX && pollables[number] != 0)
        number++;
    if (number == TOOL_COMPONENT_POLLABLES_MAX) {
        fail(failure, guest, "it keeps too many timers at a time");
        return;
    }
    pollables[number] = fires_ns > 0 ? fires_ns : 1;
    *result = give_resource(context, POLLABLE, number, failure);
}

static void subscribe_instant(ARGUMENTS)
{
    UNUSED;
    uint64_t at = arguments[0].of.u64;
    give_pollable(guest, context, at > INT64_MAX ? INT64_MAX : (int64_t) at, result, failure);
}

static void subscribe_duration(ARGUMENTS)
{
    UNUSED;
    uint64_t span = arguments[0].of.u64;
    int64_t now_ns = monotonic_ns(guest);
    bool is_endless = span > (uint64_t) (INT64_MAX - now_ns);
    give_pollable(guest, context, is_endless ? INT64_MAX : now_ns + (int64_t) span, result,
                  failure);
}

static void subscribe_stream(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    if (!*failure)
        *result = give_resource(context, POLLABLE, READY, failure);
}

struct wait {
    struct guest *guest;
    int64_t until_ns;
};

static bool continue_wait(void *env)
{
    struct wait *wait = env;
    if (monotonic_ns(wait->guest) >= wait->until_ns)
        return true;
    int64_t deadline_ns = wait->guest->deadline_ns;
    wait->guest->wake_ns = wait->until_ns < deadline_ns ? wait->until_ns : deadline_ns;
    wait->guest->instance->pause = SLICE_SLEEPS;
    return false;
}

static void wait_until(struct guest *guest, int64_t until_ns,
                       wasmtime_async_continuation_t *continuation)
{
    struct wait *wait = calloc(1, sizeof *wait);
    ensure(wait != NULL);
    *wait = (struct wait){.guest = guest, .until_ns = until_ns};
    *continuation =
        (wasmtime_async_continuation_t){.callback = continue_wait, .env = wait, .finalizer = free};
}

static int64_t fires_ns(struct guest *guest, wasmtime_context_t *context,
                        const wasmtime_component_val_t *pollable, wasmtime_error_t **failure)
{
    uint32_t number = number_of(context, pollable, failure);
    return number < TOOL_COMPONENT_POLLABLES_MAX ? guest->instance->component.pollables_ns[number]
                                                 : 0;
}

static void pollable_block(ARGUMENTS)
{
    UNUSED;
    int64_t at_ns = fires_ns(guest, context, &arguments[0], failure);
    if (!*failure)
        wait_until(guest, at_ns, continuation);
}

static void poll_any(ARGUMENTS)
{
    UNUSED;
    const wasmtime_component_vallist_t *in = &arguments[0].of.list;
    int64_t first_ns = INT64_MAX, at_ns[SANDBOX_POLL_SUBSCRIPTIONS_MAX];
    if (in->size == 0 || in->size > SANDBOX_POLL_SUBSCRIPTIONS_MAX) {
        fail(failure, guest, "it waits for nothing, or for too many things at once");
        return;
    }
    for (size_t i = 0; i < in->size && !*failure; i++) {
        at_ns[i] = fires_ns(guest, context, &in->data[i], failure);
        first_ns = at_ns[i] < first_ns ? at_ns[i] : first_ns;
    }
    if (*failure)
        return;
    /* Whatever fires within a tick of the first counts as ready with it: the answer is made before the wait. */
    wasmtime_component_val_t ready[SANDBOX_POLL_SUBSCRIPTIONS_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < in->size; i++)
        if (at_ns[i] <= first_ns || at_ns[i] <= monotonic_ns(guest))
            ready[count++] =
                (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_U32, .of.u32 = i};
    result->kind = WASMTIME_COMPONENT_LIST;
    wasmtime_component_vallist_new(&result->of.list, count, ready);
    wait_until(guest, first_ns, continuation);
}

/* ---- standard streams ---- */

static void get_stdin(ARGUMENTS)
{
    UNUSED;
    *result = give_resource(context, INPUT_STREAM, 0, failure);
}

static void get_output(ARGUMENTS)
{
    UNUSED;
    *result = give_resource(context, OUTPUT_STREAM, 1, failure);
}

static void give_closed(wasmtime_component_val_t *result)
{
    wasmtime_component_val_t closed = {.kind = WASMTIME_COMPONENT_VARIANT};
    wasm_name_new_from_string(&closed.of.variant.discriminant, "closed");
    *result = component_result(false, &closed);
}

static void stream_read(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    give_closed(result);
}

static void stream_check_write(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    wasmtime_component_val_t room = u64_value(SANDBOX_LOG_BYTES_MAX);
    *result = component_result(true, &room);
}

static void stream_write(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    const wasmtime_component_vallist_t *list = &arguments[1].of.list;
    for (size_t i = 0; i < list->size && guest->log_bytes < sizeof guest->log; i++)
        guest_add_log(guest, &list->data[i].of.u8, 1);
    *result = component_result(true, NULL);
}

static void stream_flush(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    *result = component_result(true, NULL);
}

/* ---- what is not there ---- */

static void give_empty_list(ARGUMENTS)
{
    UNUSED;
    *result = empty_list();
}

static void give_none(ARGUMENTS)
{
    UNUSED;
    *result = (wasmtime_component_val_t){.kind = WASMTIME_COMPONENT_OPTION, .of.option = NULL};
}

static void give_network(ARGUMENTS)
{
    UNUSED;
    *result = give_resource(context, NETWORK, 0, failure);
}

static void no_socket(ARGUMENTS)
{
    UNUSED;
    wasmtime_component_val_t code = enum_value("not-supported");
    *result = component_result(false, &code);
}

static void no_name(ARGUMENTS)
{
    UNUSED;
    let_go(context, &arguments[0], failure);
    wasmtime_component_val_t code = enum_value("name-unresolvable");
    *result = component_result(false, &code);
}

static void leave(ARGUMENTS)
{
    UNUSED;
    guest->stop = GUEST_STOP_EXIT;
    guest->exit_code = arguments[0].of.result.is_ok ? 0 : 1;
    *failure = wasmtime_error_new("exit");
}

/* ---- the table ---- */

static const struct {
    const char *interface, *name, *signature;
    component_function run;
} functions[] = {
    {"wasi:cli/environment", "get-arguments", ":v", give_empty_list},
    {"wasi:cli/environment", "get-environment", ":v", give_empty_list},
    {"wasi:cli/exit", "exit", "r:", leave},
    {"wasi:cli/stderr", "get-stderr", ":v", get_output},
    {"wasi:cli/stdin", "get-stdin", ":v", get_stdin},
    {"wasi:cli/stdout", "get-stdout", ":v", get_output},
    {"wasi:cli/terminal-stderr", "get-terminal-stderr", ":v", give_none},
    {"wasi:cli/terminal-stdin", "get-terminal-stdin", ":v", give_none},
    {"wasi:cli/terminal-stdout", "get-terminal-stdout", ":v", give_none},
    {"wasi:clocks/monotonic-clock", "now", ":v", monotonic_now},
    {"wasi:clocks/monotonic-clock", "resolution", ":v", monotonic_resolution},
    {"wasi:clocks/monotonic-clock", "subscribe-duration", "u:v", subscribe_duration},
    {"wasi:clocks/monotonic-clock", "subscribe-instant", "u:v", subscribe_instant},
    {"wasi:clocks/wall-clock", "now", ":v", wall_now},
    {"wasi:clocks/wall-clock", "resolution", ":v", wall_resolution},
    {"wasi:filesystem/preopens", "get-directories", ":v", give_empty_list},
    {"wasi:io/poll", "[method]pollable.block", "h:", pollable_block},
    {"wasi:io/poll", "poll", "p:v", poll_any},
    {"wasi:io/streams", "[method]input-stream.blocking-read", "hu:v", stream_read},
    {"wasi:io/streams", "[method]input-stream.read", "hu:v", stream_read},
    {"wasi:io/streams", "[method]input-stream.subscribe", "h:v", subscribe_stream},
    {"wasi:io/streams", "[method]output-stream.blocking-flush", "h:v", stream_flush},
    {"wasi:io/streams", "[method]output-stream.blocking-write-and-flush", "hl:v", stream_write},
    {"wasi:io/streams", "[method]output-stream.check-write", "h:v", stream_check_write},
    {"wasi:io/streams", "[method]output-stream.flush", "h:v", stream_flush},
    {"wasi:io/streams", "[method]output-stream.subscribe", "h:v", subscribe_stream},
    {"wasi:io/streams", "[method]output-stream.write", "hl:v", stream_write},
    {"wasi:random/random", "get-random-bytes", "u:v", random_bytes},
    {"wasi:sockets/instance-network", "instance-network", ":v", give_network},
    {"wasi:sockets/ip-name-lookup", "resolve-addresses", "hs:v", no_name},
    {"wasi:sockets/tcp-create-socket", "create-tcp-socket", "e:v", no_socket},
    {"wasi:sockets/udp-create-socket", "create-udp-socket", "e:v", no_socket},
};

bool wasip2_define(wasmtime_component_linker_instance_t *to, str interface, struct error *e)
{
    for (size_t i = 0; i < ARRAY_COUNT(functions); i++)
        if (str_equal(str_from_cstr(functions[i].interface), interface) &&
            !component_function_define(to, functions[i].name, functions[i].signature,
                                       functions[i].run, e))
            return false;
    return true;
}
