#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/ensure.h"
#include <stdio.h>
#include <string.h>

enum {
    DEEP_FRAMES = 20, /* what wasmtime keeps of a trace */
    FRAME_NAME_BYTES = 48,
};

/* One line of printable ASCII: names in a module are its author's, and the text ends up on
   terminals. */
static size_t add_clean(char *out, size_t len, size_t max, const char *text, size_t text_len)
{
    for (size_t i = 0; i < text_len && len < max; i++) {
        unsigned char c = (unsigned char) text[i];
        out[len++] = c >= 0x20 && c < 0x7f ? (char) c : '?';
    }
    return len;
}

bool wasm_error_set(struct error *e, enum error_reason reason, const char *context,
                    wasmtime_error_t *give_error)
{
    wasm_name_t message;
    char line[ERROR_MESSAGE_BYTES / 2];
    wasmtime_error_message(give_error, &message);
    str all = str_of(message.data, message.size), rest;
    str_cut(all, '\n', &all, &rest);
    size_t len = add_clean(line, 0, sizeof line, all.ptr, all.len);
    /* The cause says more than the first line. */
    size_t cause = str_find(rest, S("Caused by:\n"));
    if (cause != STR_NOT_FOUND) {
        str text = str_trim(str_from(rest, cause + S("Caused by:\n").len)), tail;
        str_cut(text, '\n', &text, &tail);
        len = add_clean(line, len, sizeof line, ": ", 2);
        len = add_clean(line, len, sizeof line, text.ptr, text.len);
    }
    error_set(e, reason, "%s: " STR_FMT, context, STR_ARG(str_of(line, len)));
    wasm_name_delete(&message);
    wasmtime_error_delete(give_error);
    return false;
}

static str frame_name(const wasm_frame_t *frame, char number[24])
{
    const wasm_name_t *name = wasmtime_frame_func_name(frame);
    if (name && name->size > 0)
        return str_of(name->data, name->size < FRAME_NAME_BYTES ? name->size : FRAME_NAME_BYTES);
    int count = snprintf(number, 24, "function %u",
                         wasm_frame_func_index(frame)); /* the module is stripped */
    return str_of(number, (size_t) count);
}

/* " in parse < nexus_run": the innermost function first, a recursion once. */
static size_t describe_frames(const wasm_frame_vec_t *frames, char *out, size_t max)
{
    size_t len = 0, told = 0;
    for (size_t i = 0; i < frames->size && told < SANDBOX_TRAP_FRAMES_MAX; i++) {
        char number[24];
        if (i > 0 &&
            wasm_frame_func_index(frames->data[i]) == wasm_frame_func_index(frames->data[i - 1]))
            continue;
        str name = frame_name(frames->data[i], number);
        len = add_clean(out, len, max, told == 0 ? " in " : " < ", told == 0 ? 4 : 3);
        len = add_clean(out, len, max, name.ptr, name.len);
        told++;
    }
    return len;
}

static const char *trap_text(wasmtime_trap_code_t code)
{
    static const char *const texts[] = {
        [WASMTIME_TRAP_CODE_STACK_OVERFLOW] = "call stack exhausted",
        [WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS] = "out of bounds memory access",
        [WASMTIME_TRAP_CODE_HEAP_MISALIGNED] = "misaligned memory access",
        [WASMTIME_TRAP_CODE_TABLE_OUT_OF_BOUNDS] = "undefined element: out of bounds table access",
        [WASMTIME_TRAP_CODE_INDIRECT_CALL_TO_NULL] =
            "uninitialized element: call through a null function",
        [WASMTIME_TRAP_CODE_BAD_SIGNATURE] = "indirect call type mismatch",
        [WASMTIME_TRAP_CODE_INTEGER_OVERFLOW] = "integer overflow",
        [WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO] = "integer divide by zero",
        [WASMTIME_TRAP_CODE_BAD_CONVERSION_TO_INTEGER] = "invalid conversion to integer",
        [WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED] =
            "unreachable instruction executed (the program aborted)",
    };
    return code < ARRAY_COUNT(texts) && texts[code] ? texts[code] : "trap";
}

/* The last line that the guest logged, if any: often the reason in its own words. */
static str last_words(const struct guest *guest)
{
    str log = str_trim(str_of(guest->log, guest->log_bytes));
    for (size_t i = log.len; i > 0; i--)
        if (log.ptr[i - 1] == '\n') {
            log = str_from(log, i);
            break;
        }
    return str_cut_utf8(log, 200);
}

static void fail_stopped(struct guest *guest)
{
    struct error *e = &guest->error;
    str name = guest->request->tool->name, words;
    switch (guest->stop) {
    case GUEST_STOP_CANCELLED:
        error_set(e, REASON_CANCELLED, "tool " STR_FMT " was cancelled", STR_ARG(name));
        return;
    case GUEST_STOP_TIME:
        if (guest->is_callers_deadline)
            error_set(e, REASON_TIMEOUT, "tool " STR_FMT ": the deadline of the caller has passed",
                      STR_ARG(name));
        else
            error_set(e, REASON_TIME_LIMIT, "tool " STR_FMT " ran past its limit of %lld ms",
                      STR_ARG(name), (long long) guest->limits.time_ms);
        return;
    case GUEST_STOP_CPU:
        error_set(e, REASON_TIME_LIMIT, "tool " STR_FMT " used up its %lld ms of CPU time",
                  STR_ARG(name), (long long) (guest->cpu_limit_ns / 1000000));
        return;
    case GUEST_STOP_OUTPUT:
        error_set(e, REASON_OUTPUT_LIMIT,
                  "the output of tool " STR_FMT " is over its limit of %zu bytes: ask it for less",
                  STR_ARG(name), guest->limits.output_bytes);
        return;
    case GUEST_STOP_EXIT:
        words = last_words(guest);
        error_set(e, REASON_TOOL_FAILED, "tool " STR_FMT " ended with exit status %d%s" STR_FMT,
                  STR_ARG(name), guest->exit_code, words.len ? ": " : "", STR_ARG(words));
        return;
    case GUEST_STOP_ABUSE:
        error_set(e, REASON_TRAP, "tool " STR_FMT ": %s", STR_ARG(name), guest->stop_text);
        return;
    case GUEST_STOP_REPORTED: return;
    case GUEST_STOP_NONE: break;
    }
    unreachable_state();
}

/*
 * C guests keep what has an address on a stack of their own below their data, so too deep a
 * recursion may end in a bad memory access before wasmtime's stack is full.  It shows in the trace:
 * full length, and one function over and over.
 */
static bool is_deep_recursion(const wasm_frame_vec_t *frames)
{
    size_t most = 0;
    for (size_t i = 0; i < frames->size && i < DEEP_FRAMES; i++) {
        size_t same = 0;
        for (size_t j = 0; j < frames->size && j < DEEP_FRAMES; j++)
            same +=
                wasm_frame_func_index(frames->data[i]) == wasm_frame_func_index(frames->data[j]);
        most = same > most ? same : most;
    }
    return frames->size >= DEEP_FRAMES && most >= DEEP_FRAMES / 6;
}

static void fail_trapped(struct guest *guest, wasmtime_trap_code_t code,
                         const wasm_frame_vec_t *frames)
{
    struct error *e = &guest->error;
    str name = guest->request->tool->name;
    char place[ERROR_MESSAGE_BYTES / 2];
    size_t place_len = describe_frames(frames, place, sizeof place);
    if (code == WASMTIME_TRAP_CODE_OUT_OF_FUEL)
        error_set(e, REASON_FUEL, "tool " STR_FMT " used up its %llu units of fuel", STR_ARG(name),
                  (unsigned long long) guest->limits.fuel);
    else if (code == WASMTIME_TRAP_CODE_STACK_OVERFLOW ||
             (code == WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS && is_deep_recursion(frames)))
        error_set(e, REASON_STACK_LIMIT, "tool " STR_FMT ": the recursion is too deep" STR_FMT,
                  STR_ARG(name), STR_ARG(str_of(place, place_len)));
    else
        error_set(e, REASON_TRAP, "tool " STR_FMT ": %s" STR_FMT, STR_ARG(name), trap_text(code),
                  STR_ARG(str_of(place, place_len)));
}

/* A component's trap comes as an error, its code only in the text.  -1: it is no trap. */
static int trap_code_in(str text)
{
    static const struct {
        str text;
        wasmtime_trap_code_t code;
    } traps[] = {
        {S_INIT("wasm trap: all fuel consumed"), WASMTIME_TRAP_CODE_OUT_OF_FUEL},
        {S_INIT("wasm trap: call stack exhausted"), WASMTIME_TRAP_CODE_STACK_OVERFLOW},
        {S_INIT("wasm trap: out of bounds memory"), WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS},
        {S_INIT("wasm trap: wasm `unreachable`"), WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED},
    };
    for (size_t i = 0; i < ARRAY_COUNT(traps); i++)
        if (str_find(text, traps[i].text) != STR_NOT_FOUND)
            return traps[i].code;
    return -1;
}

static bool fail_component_trap(struct guest *guest, const wasmtime_error_t *failure, str text)
{
    wasm_frame_vec_t frames;
    int code = guest->prepared->abi == TOOL_ABI_COMPONENT ? trap_code_in(text) : -1;
    if (code < 0)
        return false;
    wasmtime_error_wasm_trace(failure, &frames);
    fail_trapped(guest, (wasmtime_trap_code_t) code, &frames);
    wasm_frame_vec_delete(&frames);
    return true;
}

/* Errors that are no traps: a refused growth, or a module that cannot be called as its ABI says. */
static void fail_refused(struct guest *guest, wasmtime_error_t *give_error)
{
    str name = guest->request->tool->name;
    wasm_name_t message;
    wasmtime_error_message(give_error, &message);
    str text = str_of(message.data, message.size);
    if (fail_component_trap(guest, give_error, text)) {
        wasm_name_delete(&message);
        wasmtime_error_delete(give_error);
        return;
    }
    bool is_memory = str_find(text, S("forcing trap when growing memory")) != STR_NOT_FOUND ||
                     str_find(text, S("exceeds memory limits")) != STR_NOT_FOUND;
    bool is_table = str_find(text, S("forcing trap when growing table")) != STR_NOT_FOUND;
    wasm_name_delete(&message);
    if (is_memory)
        error_set(&guest->error, REASON_MEMORY_LIMIT,
                  "tool " STR_FMT " needed more than its %zu MiB of memory", STR_ARG(name),
                  guest->limits.memory_bytes >> 20);
    else if (is_table)
        error_set(&guest->error, REASON_MEMORY_LIMIT,
                  "tool " STR_FMT " needed a table of more than its %u elements", STR_ARG(name),
                  guest->limits.table_elements);
    if (!is_memory && !is_table) {
        wasm_error_set(&guest->error, REASON_TRAP, "call", give_error);
        error_wrap(&guest->error, "tool " STR_FMT, STR_ARG(name));
        return;
    }
    wasmtime_error_delete(give_error);
}

void guest_fail(struct guest *guest, wasm_trap_t *give_trap, wasmtime_error_t *give_error)
{
    wasmtime_trap_code_t code = 0;
    wasm_frame_vec_t frames;
    if (guest->stop != GUEST_STOP_NONE) {
        fail_stopped(guest);
    } else if (give_trap) {
        bool has_code = wasmtime_trap_code(give_trap, &code);
        wasm_trap_trace(give_trap, &frames);
        fail_trapped(guest, has_code ? code : UINT8_MAX, &frames);
        wasm_frame_vec_delete(&frames);
    } else if (give_error) {
        fail_refused(guest, give_error);
        give_error = NULL;
    } else {
        unreachable_state(); /* nobody fails without a reason */
    }
    if (give_trap)
        wasm_trap_delete(give_trap);
    if (give_error)
        wasmtime_error_delete(give_error);
}
