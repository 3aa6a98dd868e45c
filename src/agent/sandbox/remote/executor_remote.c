#include "agent/sandbox/remote/executor_remote_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NS_PER_US = 1000, NS_PER_MS = 1000000, STALE_TRIES_MAX = 4, CALL_BYTES_MORE = 64 << 10 };

/* One call on this side. */
struct call {
    struct remote *remote;
    struct link *link;
    const struct tool_request *request;
    struct tool tool; /* of the request, with the one module that runs */
    struct notebook_wish notebook;
    struct remote_flight flight;
    int64_t host_deadline_ns;
    struct call_file {
        struct remote_file file;
        char *path;
        int fd; /* -1: not for this tool */
    } * files;
    size_t file_count;
    bool is_cold, is_sent;
    struct remote_result result;
};

static struct remote *remote_of(struct executor *executor)
{
    return CONTAINER_OF(executor, struct remote, base);
}

/* ---- files ---- */

may_suspend static bool resolve_files(struct call *call, struct context *ctx, struct error *e)
{
    const struct tool_request *request = call->request;
    const struct permissions *permissions = &request->tool->permissions;
    if (!request->files || !tool_may_call(request->tool, S("file_read")))
        return true;
    if (request->file_name_count > SANDBOX_FILES_MAX)
        return error_set(e, REASON_LIMIT, "%zu files for one tool call: at most %u",
                         request->file_name_count, SANDBOX_FILES_MAX);
    call->files = ARENA_ARRAY(ctx->arena, struct call_file, request->file_name_count + 1);
    for (size_t i = 0; i < request->file_name_count; i++) {
        struct call_file *file = &call->files[call->file_count++];
        str path;
        *file = (struct call_file){.file.name = request->file_names[i], .fd = -1};
        if (!permissions_allow_read(permissions, file->file.name))
            continue;
        if (!request->files->resolve(request->files->owner, ctx, file->file.name, &path,
                                     &file->file.bytes, e))
            return error_wrap(e, "file " STR_FMT " for tool " STR_FMT, STR_ARG(file->file.name),
                              STR_ARG(request->tool->name));
        if (permissions->max_file_bytes <= 0 || file->file.bytes <= permissions->max_file_bytes)
            file->path = str_to_cstr(ctx->arena, path);
    }
    return true;
}

/* Regular files only, so that a descriptor cannot be more than bytes to read. */
static void open_files(void *argument)
{
    struct call *call = argument;
    struct stat status;
    for (size_t i = 0; i < call->file_count; i++) {
        struct call_file *file = &call->files[i];
        if (file->path)
            file->fd = open(file->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (file->fd < 0 || (fstat(file->fd, &status) == 0 && S_ISREG(status.st_mode)))
            continue;
        close(file->fd);
        file->fd = -1;
    }
}

static void close_files(struct call *call)
{
    for (size_t i = 0; i < call->file_count; i++)
        if (call->files[i].fd >= 0)
            close(call->files[i].fd);
}

/* ---- sending ---- */

static bool send_files(struct call *call, struct arena *arena, struct error *e)
{
    for (size_t i = 0; i < call->file_count; i++) {
        struct strbuf body;
        const struct call_file *file = &call->files[i];
        strbuf_init(&body, arena, file->file.name.len + 64);
        remote_write_file(&body, &file->file);
        if (!link_send(call->link, REMOTE_FILE, call->flight.id, strbuf_str(&body), file->fd, e))
            return false;
    }
    return true;
}

static bool send_call(struct call *call, struct context *ctx, uint64_t tool_number, struct error *e)
{
    struct strbuf body;
    int64_t left_ns = ctx->deadline_ns - context_now_ns(ctx);
    struct remote_call *message = ARENA_NEW(ctx->arena, struct remote_call);
    *message = (struct remote_call){.tool_number = tool_number,
                                    .left_ms = ctx->deadline_ns == DEADLINE_NONE ? -1
                                               : left_ns > 0 ? (left_ns + NS_PER_MS - 1) / NS_PER_MS
                                                             : 0,
                                    .tool = call->tool,
                                    .has_notebook = call->notebook.is_there,
                                    .notebook = call->notebook.of,
                                    .input = call->request->input};
    strbuf_init(&body, ctx->arena, REMOTE_BODY_BYTES_MAX);
    remote_write_call(&body, message);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_TOO_LARGE, "the call of tool " STR_FMT " is too large",
                         STR_ARG(call->request->tool->name));
    return send_files(call, ctx->arena, e) &&
           link_send(call->link, REMOTE_EXECUTE, call->flight.id, strbuf_str(&body), -1, e);
}

/* The process may go while a tool is looked up or a call is written; then from the start. */
may_suspend static bool begin(struct call *call, struct context *ctx, struct link_tool **out,
                              struct error *e)
{
    const struct tool *tool = &call->tool;
    for (int i = 0; i < STALE_TRIES_MAX; i++) {
        bool is_stale;
        if (!link_ready(call->link, ctx, e))
            return false;
        *out = link_tool(call->link, ctx, tool, &call->is_cold, &is_stale, e);
        if (!*out && !is_stale)
            return false;
        call->flight.is_lost = false; /* nothing was sent */
        if (*out && send_call(call, ctx, (*out)->number, e))
            return true;
        if (*out && call->link->channel)
            return false;
    }
    return error_set(e, REASON_UNAVAILABLE, "the sandbox process keeps ending; try again later");
}

/* ---- host calls: the guest's only way out, decided and done here ---- */

static const struct host_call *find_host_call(const struct call *call, str name)
{
    if (!tool_may_call(call->request->tool, name))
        return NULL;
    for (size_t i = 0; i < call->remote->options.host_call_count; i++)
        if (str_equal(str_from_cstr(call->remote->options.host_calls[i].name), name))
            return &call->remote->options.host_calls[i];
    return NULL;
}

static void send_answer(struct call *call, struct arena *arena, struct remote_result *answer)
{
    struct strbuf body;
    struct error gone;
    if (answer->is_ok && answer->result.output.len > SANDBOX_HOST_CALL_BYTES_MAX)
        answer->is_ok = error_set(&answer->error, REASON_TOO_LARGE,
                                  "the answer of the host call is over %u MiB",
                                  SANDBOX_HOST_CALL_BYTES_MAX >> 20);
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_result(&body, answer);
    /* A process that has gone, or takes nothing, ends the call by itself. */
    (void) !link_send(call->link, REMOTE_ANSWER, call->flight.id, strbuf_str(&body), -1, &gone);
}

/* False: the process broke a rule and is being killed. */
may_suspend static bool run_host_call(struct call *call, struct context *parent)
{
    OWNED(arena) arena = arena_create(6 * (size_t) SANDBOX_HOST_CALL_BYTES_MAX);
    struct remote_flight *flight = &call->flight;
    struct remote_result *answer = ARENA_NEW(arena, struct remote_result);
    struct remote_host_call message;
    struct context ctx;
    char *body = GIVE(flight->host_call);
    const struct host_call *host = NULL;
    if (remote_read_host_call(str_of(body, flight->host_call_bytes), &message, &answer->error))
        host = find_host_call(call, message.name);
    if (!host) {
        free(body);
        link_breach(call->link, "a host call that makes no sense or was not granted");
        return false;
    }
    context_init_child(&ctx, parent, call->host_deadline_ns);
    ctx.arena = arena;
    flight->host_ctx = &ctx;
    flight->runs_host_call = true;
    answer->result.output = S("null");
    answer->is_ok = host->run(host->owner, &ctx, call->request, message.input,
                              &answer->result.output, &answer->error);
    flight->runs_host_call = false;
    flight->host_ctx = NULL;
    context_deinit(&ctx);
    free(body);
    /* Without an answer the guest waits until it is cancelled or its own time is over, and cannot end well. */
    bool is_late = !answer->is_ok && context_now_ns(parent) >= call->host_deadline_ns;
    if (!flight->result && !flight->is_lost && !is_late && context_check(parent, NULL))
        send_answer(call, arena, answer);
    return true;
}

/* ---- waiting ---- */

/* Ends with the result there, the process lost, or false with why the caller stopped waiting. */
may_suspend static bool await_result(struct call *call, struct context *ctx, struct error *stop)
{
    struct remote_flight *flight = &call->flight;
    while (!flight->result && !flight->is_lost) {
        if (flight->host_call) {
            if (!run_host_call(call, ctx))
                return true;
        } else if (!condition_wait(&flight->changed, ctx, stop)) {
            return flight->result || flight->is_lost;
        }
    }
    return true;
}

/* The caller has gone: the guest ends soon, and its figures are still wanted. */
may_suspend_void static void cancel(struct call *call, struct context *ctx)
{
    struct remote_flight *flight = &call->flight;
    struct context patient;
    struct error e;
    if (!link_send(call->link, REMOTE_CANCEL, flight->id, STR_NONE, -1, &e) || flight->is_lost)
        return;
    context_init(&patient, ctx->scheduler, ctx->arena,
                 context_now_ns(ctx) + (int64_t) REMOTE_CANCEL_MS * NS_PER_MS);
    while (!flight->result && !flight->is_lost)
        if (!condition_wait(&flight->changed, &patient, &e))
            break;
    context_deinit(&patient);
    if (!flight->result && !flight->is_lost)
        link_breach(call->link, "a cancelled call does not end");
}

/* ---- the outcome ---- */

/* What a sandbox may say of a call; anything else is not its business. */
static bool is_own_reason(enum error_reason reason)
{
    static const enum error_reason own[] = {
        REASON_INVALID,         REASON_JSON,          REASON_SCHEMA,         REASON_DENIED,
        REASON_PERMISSION,      REASON_POLICY_DENIED, REASON_EGRESS_BLOCKED, REASON_NOT_FOUND,
        REASON_TOO_LARGE,       REASON_LIMIT,         REASON_FUEL,           REASON_TIME_LIMIT,
        REASON_MEMORY_LIMIT,    REASON_OUTPUT_LIMIT,  REASON_STACK_LIMIT,    REASON_TRAP,
        REASON_TOOL_FAILED,     REASON_TIMEOUT,       REASON_CANCELLED,      REASON_UNAVAILABLE,
        REASON_OVERLOADED_HERE, REASON_CORRUPT,       REASON_INTERNAL,       REASON_CONTENT_BLOCKED,
        REASON_NEEDS_APPROVAL,  REASON_BUDGET,        REASON_UNSUPPORTED,    REASON_QUOTA,
    };
    for (size_t i = 0; i < ARRAY_COUNT(own); i++)
        if (own[i] == reason)
            return true;
    return false;
}

/* The output is spliced into our own JSON later: it must be some. */
static bool is_sound(const struct call *call, struct arena *arena)
{
    const struct remote_result *result = &call->result;
    const struct tool_limits *limits = &call->request->tool->limits;
    const struct json *root;
    struct error e;
    if (!result->is_ok)
        return is_own_reason(result->error.reason);
    if (result->result.output.len > limits->output_bytes)
        return false;
    arena_mark mark = arena_save(arena);
    bool is_json = json_parse(arena, result->result.output,
                              (struct json_limits){.allow_duplicates = true}, &root, &e);
    arena_rewind(arena, mark);
    return is_json;
}

static bool lost(const struct call *call, struct error *e)
{
    const struct tool *tool = call->request->tool;
    if (!call->is_sent || tool->is_pure || tool->is_idempotent)
        error_set(e, REASON_UNAVAILABLE,
                  "the sandbox process ended while tool " STR_FMT
                  " ran; it is started again: try again",
                  STR_ARG(tool->name));
    else
        error_set(e, REASON_OUTCOME_UNKNOWN,
                  "the sandbox process ended while tool " STR_FMT
                  " ran: whether it happened is not known; look before you repeat it",
                  STR_ARG(tool->name));
    e->retry_after_ms = REMOTE_BACKOFF_MS_MAX;
    return false;
}

static bool give_result(struct call *call, struct context *ctx, struct tool_result *out,
                        struct error *e)
{
    struct remote_flight *flight = &call->flight;
    if (!flight->result)
        return lost(call, e);
    if (!remote_read_result(str_of(flight->result, flight->result_bytes), &call->result, e) ||
        !is_sound(call, ctx->arena)) {
        link_breach(call->link, "a result that makes no sense");
        return lost(call, e);
    }
    const struct tool_result *from = &call->result.result;
    out->fuel = from->fuel;
    out->memory_bytes = from->memory_bytes;
    out->cpu_us = from->cpu_us;
    out->is_cold = from->is_cold || call->is_cold;
    out->log = str_copy(ctx->arena, from->log);
    out->profile = str_copy(ctx->arena, from->profile);
    if (!call->result.is_ok)
        return error_copy(e, &call->result.error);
    out->output = str_copy(ctx->arena, from->output);
    return true;
}

may_suspend static bool fly(struct call *call, struct context *ctx, struct link_tool *tool,
                            struct tool_result *out, struct error *e)
{
    struct error *stop = ARENA_NEW(ctx->arena, struct error);
    uint64_t generation = call->link->generation;
    call->is_sent = true;
    tool->use_count++;
    bool has_ended = await_result(call, ctx, stop);
    if (!has_ended)
        cancel(call, ctx);
    if (call->link->channel && call->link->generation == generation)
        tool->use_count--; /* else it is gone with the process */
    if (give_result(call, ctx, out, e))
        return true;
    if (!has_ended && e->code != stop->code)
        error_copy(e, stop);
    return false;
}

/* Of several modules the other side gets to know the one that this input asks for: no call waits for
   a module that it does not need. */
static bool choose_module(struct call *call, struct context *ctx, struct error *e)
{
    const struct tool *tool = call->request->tool;
    const struct json *input;
    struct tool_module module;
    call->tool = *tool;
    if (tool->module_count == 0 && !str_equal(tool->category, S("code")))
        return true;
    if (!json_parse(ctx->arena, call->request->input,
                    (struct json_limits){.allow_duplicates = true}, &input, e) ||
        !tool_choose_module(ctx->arena, tool, input, &module, e))
        return false;
    call->tool = tool_with_module(tool, &module);
    return notebook_of_call(call->request, input, &module, &call->notebook, e);
}

may_suspend static bool run(struct call *call, struct context *ctx, struct tool_result *out,
                            struct error *e)
{
    struct link_tool *tool;
    if (!choose_module(call, ctx, e) || !resolve_files(call, ctx, e) ||
        (call->file_count > 0 && !blocking_call(ctx, open_files, call, e)))
        return false;
    link_add_flight(call->link, &call->flight);
    bool is_ok = begin(call, ctx, &tool, e);
    is_ok = is_ok && fly(call, ctx, tool, out, e);
    link_remove_flight(call->link, &call->flight);
    return is_ok;
}

may_suspend static bool remote_execute(struct executor *executor, struct context *ctx,
                                       const struct tool_request *request, struct tool_result *out,
                                       struct error *e)
{
    struct remote *remote = remote_of(executor);
    int64_t start_ns = context_now_ns(ctx);
    struct link *link = link_of_loop(remote, loop_current());
    if (request->input.len > TOOL_INPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the input of tool " STR_FMT " is over %u MiB",
                         STR_ARG(request->tool->name), TOOL_INPUT_BYTES_MAX >> 20);
    if (link->flight_count >= REMOTE_CALLS_MAX)
        return error_set(e, REASON_OVERLOADED_HERE,
                         "%u tool calls wait for the sandbox already; try again later",
                         REMOTE_CALLS_MAX);
    if (!context_check(ctx, e))
        return false;
    struct call *call = calloc(1, sizeof *call); /* too large for a coroutine's stack */
    ensure(call != NULL);
    *call = (struct call){.remote = remote, .link = link, .request = request};
    call->flight.request = request;
    call->host_deadline_ns = start_ns + request->tool->limits.time_ms * NS_PER_MS;
    bool is_ok = run(call, ctx, out, e);
    out->latency_us = (context_now_ns(ctx) - start_ns) / NS_PER_US;
    out->latency_ms = out->latency_us / 1000;
    close_files(call);
    free(call);
    return is_ok;
}

/* ---- the executor ---- */

static void remote_destroy(struct executor *executor)
{
    struct remote *remote = remote_of(executor);
    for (size_t i = 0; i < ARRAY_COUNT(remote->links); i++)
        ensure(!remote->links[i]); /* the loops have ended */
    supervisor_stop(remote);
    remote_codes_destroy(remote->codes);
    pthread_mutex_destroy(&remote->mutex);
    arena_destroy(remote->arena);
    free(remote);
}

static const struct executor_ops remote_ops = {"sandbox process", remote_execute, remote_destroy};

static void copy_options(struct remote *remote, const struct executor_remote_options *options)
{
    size_t count = 0;
    remote->options = *options;
    while (options->command[count])
        count++;
    const char **command = ARENA_ARRAY(remote->arena, const char *, count + 1);
    for (size_t i = 0; i < count; i++)
        command[i] = str_to_cstr(remote->arena, str_from_cstr(options->command[i]));
    remote->options.command = command;
    str *names = ARENA_ARRAY(remote->arena, str, options->host_call_count + 1);
    for (size_t i = 0; i < options->host_call_count; i++)
        names[i] = str_from_cstr(options->host_calls[i].name);
    remote->hello = (struct remote_hello){.mode = REMOTE_RUNS,
                                          .thread_count = options->thread_count,
                                          .parallel_max = options->parallel_max,
                                          .host_calls = names,
                                          .host_call_count = options->host_call_count};
}

bool executor_remote_create(const struct executor_remote_options *options, struct executor **out,
                            struct error *e)
{
    ensure(options->host_call_count <= REMOTE_HOST_CALLS_MAX);
    if (options->parallel_max < 0 || options->parallel_max > SANDBOX_PARALLEL_MAX ||
        options->thread_count < 0 || options->thread_count > SANDBOX_THREADS_MAX)
        return error_set(e, REASON_CONFIG, "the sandbox: at most %d parallel calls and %d threads",
                         SANDBOX_PARALLEL_MAX, SANDBOX_THREADS_MAX);
    struct remote *remote = calloc(1, sizeof *remote);
    ensure(remote != NULL);
    remote->base.ops = &remote_ops;
    remote->arena = arena_create(0);
    remote->process = (struct remote_process){.control = -1, .log = -1};
    remote->wake[0] = remote->wake[1] = -1;
    pthread_mutex_init(&remote->mutex, NULL);
    copy_options(remote, options);
    if (!remote_codes_create(options->cache_dir, &remote->codes, e) ||
        !supervisor_start(remote, e)) {
        remote_destroy(&remote->base);
        return false;
    }
    *out = &remote->base;
    return true;
}

static bool current_version(struct remote *remote,
                            char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1])
{
    pthread_mutex_lock(&remote->mutex);
    memcpy(code_version, remote->process.code_version, REMOTE_CODE_VERSION_BYTES_MAX + 1);
    pthread_mutex_unlock(&remote->mutex);
    return code_version[0] != '\0';
}

static bool prepare_module(struct remote *remote, const struct tool *tool, struct error *e)
{
    char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1];
    struct remote_pieces pieces;
    bool is_busy;
    if (!current_version(remote, code_version))
        return error_set(e, REASON_UNAVAILABLE, "the sandbox process is being started again");
    do {
        if (!remote_codes_open(remote, tool, code_version, &pieces, &is_busy, e))
            return false;
        if (is_busy)
            (void) !poll(NULL, 0, SANDBOX_LOAD_POLL_MS); /* each compilation is bounded */
    } while (is_busy);
    remote_pieces_close(&pieces);
    return true;
}

/* A process for each module: none sees what another is compiled in. */
bool executor_remote_prepare(struct executor *executor, const struct tool *tool, struct error *e)
{
    struct remote *remote = remote_of(executor);
    ensure(executor->ops == &remote_ops);
    if (tool->module_count == 0)
        return prepare_module(remote, tool, e);
    for (size_t i = 0; i < tool->module_count; i++) {
        struct tool narrow = tool_with_module(tool, &tool->modules[i]);
        if (!prepare_module(remote, &narrow, e))
            return false;
    }
    return true;
}

struct executor_remote_state executor_remote_state(struct executor *executor)
{
    struct remote *remote = remote_of(executor);
    ensure(executor->ops == &remote_ops);
    pthread_mutex_lock(&remote->mutex);
    struct executor_remote_state state = {.pid = remote->process.pid,
                                          .walls = remote->process.walls,
                                          .restart_count = remote->restart_count};
    pthread_mutex_unlock(&remote->mutex);
    return state;
}
