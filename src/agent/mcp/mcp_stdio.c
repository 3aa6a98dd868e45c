/* MCP over stdin and stdout of a child process: one message a line. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "runtime/process.h"
#include <stdlib.h>

enum { STDERR_WINDOW_MS = 60000, NS_PER_MS = 1000000 };

/* A request that waits for its answer. */
struct pending {
    struct list link;
    int64_t id;
    struct arena *arena;
    str text; /* the answer */
    bool is_done;
    struct condition done;
};

struct stdio {
    struct mcp_transport base;
    struct process *process;
    struct list pending;
    size_t pending_count;
    bool is_ended;
    struct error why;
    size_t garbage;
    int64_t error_window_ns, error_lines;
};

static struct stdio *stdio_of(struct mcp_transport *transport)
{
    return CONTAINER_OF(transport, struct stdio, base);
}

static void on_error_line(void *owner, str line)
{
    struct stdio *stdio = owner;
    struct mcp_upstream *server = stdio->base.server;
    int64_t now_ns = clock_monotonic_ns(server->client->options.clock);
    if (now_ns - stdio->error_window_ns > (int64_t) STDERR_WINDOW_MS * NS_PER_MS) {
        stdio->error_window_ns = now_ns;
        stdio->error_lines = 0;
    }
    if (++stdio->error_lines > MCP_STDERR_LINES_PER_MINUTE)
        return;
    LOG_INFO("nexus.mcp", S("an MCP server says on stderr"),
             LOG_STR("nexus.mcp.server", server->config.name), LOG_STR("nexus.mcp.line", line));
}

/* ---- requests ---- */

static bool send_line(struct stdio *stdio, struct arena *arena, str body, struct error *e)
{
    str parts[] = {body, S("\n")};
    if (stdio->is_ended)
        return error_copy(e, &stdio->why);
    return process_write(stdio->process, str_join(arena, parts, ARRAY_COUNT(parts)), e);
}

may_suspend static bool stdio_request(struct mcp_transport *transport, struct context *ctx,
                                      struct mcp_outgoing *message, struct mcp_message *answer,
                                      struct error *e)
{
    struct stdio *stdio = stdio_of(transport);
    struct pending pending = {.id = message->id, .arena = ctx->arena};
    int64_t code;
    condition_init(&pending.done);
    if (stdio->pending_count >= MCP_OUTSTANDING_MAX)
        return error_set(e, REASON_OVERLOADED_HERE, "%u requests wait for this server already",
                         MCP_OUTSTANDING_MAX);
    if (!send_line(stdio, ctx->arena, message->body, e))
        return false;
    message->was_sent = true;
    list_push_back(&stdio->pending, &pending.link);
    stdio->pending_count++;
    bool is_awaited = true;
    while (!pending.is_done && !stdio->is_ended && is_awaited)
        is_awaited = condition_wait(&pending.done, ctx, e);
    list_remove(&pending.link);
    stdio->pending_count--;
    if (pending.is_done)
        return mcp_read(ctx->arena, pending.text, answer, &code, e);
    if (stdio->is_ended)
        return error_copy(e, &stdio->why);
    struct error ignored;
    if (message->is_cancellable)
        (void) !send_line(stdio, ctx->arena,
                          mcp_cancel_message(ctx->arena, message->id, S("nobody waits any more")),
                          &ignored);
    return false;
}

may_suspend static bool stdio_notify(struct mcp_transport *transport, struct context *ctx,
                                     struct mcp_outgoing *message, struct error *e)
{
    return send_line(stdio_of(transport), ctx->arena, message->body, e);
}

/* ---- what comes ---- */

static void give_answer(struct stdio *stdio, const struct mcp_message *message, str line)
{
    int64_t id = 0;
    if (!json_to_i64(message->id, &id))
        return; /* ours are numbers */
    LIST_EACH(node, &stdio->pending)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (pending->id != id || pending->is_done)
            continue;
        pending->text = str_copy(pending->arena, line);
        pending->is_done = true;
        condition_broadcast(&pending->done);
        return;
    }
}

static bool take_garbage(struct stdio *stdio, str line, struct error *e)
{
    struct mcp_upstream *server = stdio->base.server;
    if (stdio->garbage++ == 0)
        LOG_WARN("nexus.mcp", S("an MCP server writes what is no message to stdout"),
                 LOG_STR("nexus.mcp.server", server->config.name),
                 LOG_STR("nexus.mcp.line", str_cut_utf8(line, 200)));
    if (stdio->garbage <= MCP_GARBAGE_LINES_MAX)
        return true;
    return error_set(e, REASON_UNAVAILABLE,
                     "it wrote more than %u lines to stdout that are no messages",
                     MCP_GARBAGE_LINES_MAX);
}

static bool take_line(struct stdio *stdio, struct arena *arena, str line, struct error *e)
{
    int64_t code;
    struct error broken;
    struct mcp_message message;
    struct mcp_upstream *server = stdio->base.server;
    line = str_trim(line);
    if (str_is_empty(line))
        return true;
    if (!mcp_read(arena, line, &message, &code, &broken))
        return take_garbage(stdio, line, e);
    server->heard_ns = clock_monotonic_ns(server->client->options.clock);
    if (message.kind == MCP_RESULT || message.kind == MCP_ERROR) {
        give_answer(stdio, &message, line);
        return true;
    }
    str answer = mcp_upstream_heard(server, arena, &message);
    return str_is_empty(answer) || send_line(stdio, arena, answer, e);
}

static void end(struct stdio *stdio, const struct error *why)
{
    stdio->is_ended = true;
    error_set(&stdio->why, REASON_UNAVAILABLE, "%s",
              why->code == ERROR_CANCELLED ? "the connection to the server ended" : why->message);
    LIST_EACH(node, &stdio->pending)
    condition_broadcast(&LIST_ITEM(node, struct pending, link)->done);
}

may_suspend static bool stdio_listen(struct mcp_transport *transport, struct context *ctx,
                                     struct error *e)
{
    struct stdio *stdio = stdio_of(transport);
    struct error why = {0};
    OWNED(arena) arena = arena_create(6 * (size_t) MCP_MESSAGE_BYTES_MAX);
    str line;
    while (process_read_line(stdio->process, ctx, &line, &why)) {
        bool is_fine = take_line(stdio, arena, line, &why);
        arena_reset(arena);
        if (!is_fine)
            break;
    }
    end(stdio, &why);
    return error_copy(e, &stdio->why);
}

/* ---- life ---- */

static void stdio_leave(struct mcp_transport *transport, struct context *ctx)
{
    (void) transport, (void) ctx; /* closing stdin says it */
}

static void stdio_destroy(struct mcp_transport *transport)
{
    struct stdio *stdio = stdio_of(transport);
    ensure(stdio->pending_count == 0);
    process_stop(stdio->process);
    free(stdio);
}

static const struct mcp_transport_ops stdio_ops = {"stdio",      stdio_request, stdio_notify,
                                                   stdio_listen, stdio_leave,   stdio_destroy};

static void add_variable(struct arena *arena, str *list, size_t *count, str name, str value)
{
    list[(*count)++] = str_printf(arena, STR_FMT "=" STR_FMT, STR_ARG(name), STR_ARG(value));
}

/* What a program needs to be found and to run, and what the operator gives it: none of our own secrets. */
static size_t make_environment(struct arena *arena, const struct mcp_upstream_config *config,
                               str **out)
{
    static const char *const passed[] = {"PATH", "HOME", "USER", "TMPDIR"};
    size_t count = 0;
    str *list = ARENA_ARRAY(arena, str, ARRAY_COUNT(passed) + 1 + config->environment_count);
    for (size_t i = 0; i < ARRAY_COUNT(passed); i++) {
        const char *value = getenv(passed[i]);
        if (value)
            add_variable(arena, list, &count, str_from_cstr(passed[i]), str_from_cstr(value));
    }
    add_variable(arena, list, &count, S("LANG"), S("C.UTF-8"));
    for (size_t i = 0; i < config->environment_count; i++)
        add_variable(arena, list, &count, config->environment[i].name,
                     secret_reveal(config->environment[i].value));
    *out = list;
    return count;
}

bool mcp_stdio_open(struct mcp_upstream *server, struct mcp_transport **out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct process_options options = {.arguments = server->config.command.items,
                                      .argument_count = server->config.command.count,
                                      .directory = server->config.directory,
                                      .line_bytes_max = MCP_MESSAGE_BYTES_MAX,
                                      .queue_bytes_max = MCP_QUEUE_BYTES_MAX,
                                      .stop_ms = MCP_STOP_MS,
                                      .on_error_line = on_error_line};
    struct stdio *stdio = calloc(1, sizeof *stdio);
    ensure(stdio != NULL);
    stdio->base = (struct mcp_transport){.ops = &stdio_ops, .server = server};
    list_init(&stdio->pending);
    options.owner = stdio;
    str *environment;
    options.environment_count = make_environment(arena, &server->config, &environment);
    options.environment = environment;
    if (!process_start(server->client->options.loop, &options, &stdio->process, e)) {
        free(stdio);
        return false;
    }
    *out = &stdio->base;
    return true;
}
