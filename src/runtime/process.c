#include "runtime/process.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

enum {
    EXIT_NOTICE_MS = 250,
    NS_PER_MS = 1000000,
    ERROR_READ_BYTES = 4096,
    BUFFER_KEPT_BYTES = 1 << 18
};

enum stop_step { STOP_NOT, STOP_ASKED, STOP_TERMINATED, STOP_KILLED };

struct process {
    struct loop *loop;
    uv_process_t handle;
    uv_pipe_t in, out, err;
    int open_count; /* handles not closed yet */
    int pid;
    bool has_exited;
    int64_t exit_status;
    int exit_signal;

    char *buffer; /* [start, len) is not read yet; no line end before `scanned` */
    size_t start, scanned, len, capacity, line_bytes_max;
    bool is_reading, is_at_end, is_overlong;
    struct condition changed;

    size_t queue_bytes_max;
    bool is_input_closed;

    char error_line[PROCESS_ERROR_LINE_BYTES_MAX];
    size_t error_len;
    char error_bytes[ERROR_READ_BYTES];
    void (*on_error_line)(void *owner, str line);
    void *owner;

    enum stop_step step;
    int64_t stop_ms;
    struct timer timer;
};

struct queued_write {
    uv_write_t request;
    char bytes[];
};

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct process *process = handle->data;
    if (--process->open_count > 0)
        return;
    timer_disarm(loop_scheduler(process->loop), &process->timer);
    free(process->buffer);
    free(process);
}

static void close_handle(void *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void close_all(struct process *process)
{
    timer_disarm(loop_scheduler(process->loop), &process->timer);
    close_handle(&process->in);
    close_handle(&process->out);
    close_handle(&process->err);
    close_handle(&process->handle);
}

static void signal_group(const struct process *process, int number)
{
    if (process->pid > 0)
        (void) kill(-process->pid, number); /* gone already is fine */
}

static void on_exit_of_child(uv_process_t *handle, int64_t status, int signal_number)
{
    struct process *process = handle->data;
    process->has_exited = true;
    process->exit_status = status;
    process->exit_signal = signal_number;
    signal_group(process, SIGKILL); /* what it left behind in its group */
    condition_broadcast(&process->changed);
    if (process->step != STOP_NOT)
        close_all(process);
}

static void close_input(struct process *process)
{
    process->is_input_closed = true;
    close_handle(&process->in);
}

static void on_stop_timer(struct timer *timer)
{
    struct process *process = CONTAINER_OF(timer, struct process, timer);
    process->step = process->step == STOP_ASKED ? STOP_TERMINATED : STOP_KILLED;
    signal_group(process, process->step == STOP_TERMINATED ? SIGTERM : SIGKILL);
    if (process->step == STOP_TERMINATED)
        timer_arm(loop_scheduler(process->loop), timer,
                  clock_monotonic_ns(scheduler_clock(loop_scheduler(process->loop))) +
                      process->stop_ms * NS_PER_MS);
}

void process_stop(struct process *process)
{
    if (!process)
        return;
    ensure(process->step == STOP_NOT);
    process->step = STOP_ASKED;
    process->on_error_line = NULL;
    if (process->has_exited) {
        close_all(process);
        return;
    }
    close_input(process);
    /* What it still says is dropped, so that a full pipe does not keep it from ending. */
    close_handle(&process->out);
    close_handle(&process->err);
    struct scheduler *scheduler = loop_scheduler(process->loop);
    timer_arm(scheduler, &process->timer,
              clock_monotonic_ns(scheduler_clock(scheduler)) + process->stop_ms * NS_PER_MS);
}

/* ---- stdout ---- */

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void) suggested;
    struct process *process = handle->data;
    if (process->start > 0) { /* lines that were read make room first */
        memmove(process->buffer, process->buffer + process->start, process->len - process->start);
        process->len -= process->start;
        process->scanned -= process->start;
        process->start = 0;
    }
    if (process->capacity - process->len < PROCESS_READ_BYTES) {
        size_t capacity = process->capacity ? process->capacity * 2 : PROCESS_READ_BYTES;
        while (capacity - process->len < PROCESS_READ_BYTES)
            capacity *= 2;
        process->buffer = realloc(process->buffer, capacity);
        ensure(process->buffer != NULL);
        process->capacity = capacity;
    }
    *out = uv_buf_init(process->buffer + process->len, PROCESS_READ_BYTES);
}

static void on_output(uv_stream_t *stream, ssize_t count, const uv_buf_t *unused)
{
    (void) unused;
    struct process *process = stream->data;
    if (count > 0)
        process->len += (size_t) count;
    if (count < 0) {
        process->is_at_end = true;
        process->is_reading = false;
        uv_read_stop(stream);
    } else if (process->len - process->start > process->line_bytes_max) {
        process->is_reading = false; /* enough for a whole line: until somebody reads */
        uv_read_stop(stream);
    }
    condition_broadcast(&process->changed);
}

static bool take_line(struct process *process, str *line)
{
    const char *from = process->buffer ? process->buffer + process->scanned : NULL;
    const char *end = from ? memchr(from, '\n', process->len - process->scanned) : NULL;
    if (!end && !(process->is_at_end && process->len > process->start)) {
        process->scanned = process->len;
        return false;
    }
    size_t end_index = end ? (size_t) (end - process->buffer) : process->len;
    *line = str_of(process->buffer + process->start, end_index - process->start);
    if (line->len > 0 && line->ptr[line->len - 1] == '\r')
        line->len--;
    process->start = process->scanned = end ? end_index + 1 : end_index;
    return true;
}

static bool set_ending(const struct process *process, struct error *e)
{
    if (!process->has_exited)
        return error_set(e, REASON_UNAVAILABLE, "the process closed its output");
    if (process->exit_signal > 0)
        return error_set(e, REASON_UNAVAILABLE, "the process was ended by signal %d (%s)",
                         process->exit_signal, strsignal(process->exit_signal));
    return error_set(e, REASON_UNAVAILABLE, "the process ended with status %lld",
                     (long long) process->exit_status);
}

/* Back to a small buffer once a large line is gone. */
static void shrink(struct process *process)
{
    if (process->start < process->len || process->capacity <= BUFFER_KEPT_BYTES ||
        process->is_reading)
        return;
    free(process->buffer);
    process->buffer = NULL;
    process->start = process->scanned = process->len = process->capacity = 0;
}

may_suspend bool process_read_line(struct process *process, struct context *ctx, str *line,
                                   struct error *e)
{
    shrink(process);
    for (;;) {
        if (process->is_overlong)
            return error_set(e, REASON_TOO_LARGE, "a line of its output is over %zu bytes",
                             process->line_bytes_max);
        if (take_line(process, line)) {
            process->is_overlong = line->len > process->line_bytes_max;
            if (!process->is_overlong)
                return true;
            continue;
        }
        if (process->len - process->start > process->line_bytes_max) {
            process->is_overlong = true;
            continue;
        }
        if (process->is_at_end) {
            struct error late;
            int64_t until_ns = context_now_ns(ctx) + (int64_t) EXIT_NOTICE_MS * NS_PER_MS;
            while (!process->has_exited &&
                   condition_wait_until(&process->changed, ctx, until_ns, &late))
                ;
            return set_ending(process, e);
        }
        if (!process->is_reading) {
            process->is_reading = true;
            uv_read_start((uv_stream_t *) &process->out, on_room, on_output);
        }
        if (!condition_wait(&process->changed, ctx, e))
            return false;
    }
}

/* ---- stderr ---- */

static void flush_error_line(struct process *process)
{
    str line = str_trim(str_of(process->error_line, process->error_len));
    if (!str_is_empty(line) && process->on_error_line)
        process->on_error_line(process->owner, line);
    process->error_len = 0;
}

static void on_error_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void) suggested;
    struct process *process = handle->data;
    *out = uv_buf_init(process->error_bytes, sizeof process->error_bytes);
}

static void on_error_output(uv_stream_t *stream, ssize_t count, const uv_buf_t *unused)
{
    (void) unused;
    struct process *process = stream->data;
    for (ssize_t i = 0; i < count; i++) {
        char c = process->error_bytes[i];
        if (c == '\n')
            flush_error_line(process);
        else if (process->error_len < sizeof process->error_line)
            process->error_line[process->error_len++] = c;
    }
    if (count < 0) {
        flush_error_line(process);
        uv_read_stop(stream);
    }
}

/* ---- stdin ---- */

static void on_written(uv_write_t *request, int status)
{
    (void) status; /* a broken pipe shows as the end of its output */
    free(CONTAINER_OF(request, struct queued_write, request));
}

bool process_write(struct process *process, str bytes, struct error *e)
{
    uv_stream_t *in = (uv_stream_t *) &process->in;
    if (process->is_input_closed || process->has_exited)
        return set_ending(process, e);
    if (uv_stream_get_write_queue_size(in) + bytes.len > process->queue_bytes_max)
        return error_set(e, REASON_OVERLOADED_HERE,
                         "the process does not read: %zu bytes wait for it",
                         uv_stream_get_write_queue_size(in));
    struct queued_write *queued = malloc(sizeof *queued + bytes.len);
    ensure(queued != NULL);
    memcpy(queued->bytes, bytes.ptr, bytes.len);
    uv_buf_t buffer = uv_buf_init(queued->bytes, (unsigned) bytes.len);
    int failure = uv_write(&queued->request, in, &buffer, 1, on_written);
    if (failure == 0)
        return true;
    free(queued);
    return error_set(e, REASON_UNAVAILABLE, "write to the process: %s", uv_strerror(failure));
}

/* ---- start ---- */

static char **to_cstrs(struct arena *arena, const str *items, size_t count)
{
    char **list = ARENA_ARRAY(arena, char *, count + 1);
    for (size_t i = 0; i < count; i++)
        list[i] = str_to_cstr(arena, items[i]);
    return list;
}

static int spawn(struct process *process, const struct process_options *options)
{
    OWNED(arena) arena = arena_create(0);
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *) &process->in},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *) &process->out},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *) &process->err},
    };
    char **arguments = to_cstrs(arena, options->arguments, options->argument_count);
    uv_process_options_t wanted = {
        .exit_cb = on_exit_of_child,
        .file = arguments[0],
        .args = arguments,
        .env = to_cstrs(arena, options->environment, options->environment_count),
        .cwd = str_is_empty(options->directory) ? NULL : str_to_cstr(arena, options->directory),
        .flags = UV_PROCESS_DETACHED, /* a session and group of its own */
        .stdio_count = ARRAY_COUNT(stdio),
        .stdio = stdio,
    };
    return uv_spawn(loop_uv(process->loop), &process->handle, &wanted);
}

bool process_start(struct loop *loop, const struct process_options *options, struct process **out,
                   struct error *e)
{
    uv_loop_t *uv = loop_uv(loop);
    if (options->argument_count == 0 || options->argument_count > PROCESS_ARGUMENTS_MAX)
        return error_set(e, REASON_CONFIG, "a command has 1 to %u words", PROCESS_ARGUMENTS_MAX);
    struct process *process = calloc(1, sizeof *process);
    ensure(process != NULL);
    process->loop = loop;
    process->line_bytes_max = options->line_bytes_max;
    process->queue_bytes_max = options->queue_bytes_max;
    process->stop_ms = options->stop_ms;
    process->on_error_line = options->on_error_line;
    process->owner = options->owner;
    process->timer.fire = on_stop_timer;
    condition_init(&process->changed);
    uv_pipe_t *pipes[] = {&process->in, &process->out, &process->err};
    for (size_t i = 0; i < ARRAY_COUNT(pipes); i++) {
        uv_pipe_init(uv, pipes[i], 0);
        pipes[i]->data = process;
    }
    process->open_count = ARRAY_COUNT(pipes) + 1;
    int failure = spawn(process, options);
    process->handle.data = process; /* a failed start leaves a handle to close, too */
    if (failure != 0) {
        process->has_exited = true;
        close_all(process);
        return error_set(e, REASON_CONFIG, "start " STR_FMT ": %s", STR_ARG(options->arguments[0]),
                         uv_strerror(failure));
    }
    process->pid = process->handle.pid;
    uv_read_start((uv_stream_t *) &process->err, on_error_room, on_error_output);
    *out = process;
    return true;
}

bool process_is_running(const struct process *process)
{
    return !process->has_exited;
}

int64_t process_id(const struct process *process)
{
    return process->pid;
}
