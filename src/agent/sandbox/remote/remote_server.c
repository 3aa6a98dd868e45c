#include "agent/sandbox/remote/remote_server.h"

#include "agent/sandbox/remote/remote_server_internal.h"
#include "agent/sandbox/remote/wall.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/loop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, EXIT_PROTOCOL = 2, EXIT_WALL = 3 };

/* One host call that the guests may name; what it does happens on the other side. */
struct proxy {
    const char *name;
};

struct server {
    struct executor *sandbox;
    int control_fd;
    struct packet_channel *control;
    struct loop *loop;
    struct host_call host_calls[REMOTE_HOST_CALLS_MAX];
    struct proxy proxies[REMOTE_HOST_CALLS_MAX];
    size_t host_call_count;
};

/* From one loop of the orchestrator's side. */
struct server_link {
    struct server *server;
    struct packet_channel *channel; /* NULL: it has ended; freed with its last call */
    struct list tools, calls;
    struct server_call *draft; /* files came, EXECUTE not yet */
    size_t call_count;
};

struct server_file {
    str name, path;
    int64_t bytes;
    int fd; /* -1: not for this tool */
};

struct server_call {
    struct list link;
    struct server_link *server_link;
    uint64_t id;
    struct arena *arena;
    struct context ctx;
    bool has_ctx, is_cancelled;
    struct server_tool *server_tool;
    struct remote_call content;
    struct tool_request request;
    struct tool_files files;
    struct server_file *file_items;
    size_t file_count;
    bool waits_for_answer;
    char *answer; /* malloc: an ANSWER's body */
    size_t answer_bytes;
    struct condition answered;
    struct tool_result result;
    struct error error;
};

static noreturn_function void leave(int code, const char *why)
{
    fprintf(stderr, "%s\n", why);
    _exit(code); /* nothing here is worth a tidy end */
}

static void send_packet(struct server_link *link, enum remote_type type, uint64_t id,
                        const struct strbuf *body)
{
    struct error gone;
    struct packet packet = {
        .type = (uint16_t) type, .id = id, .body = strbuf_str(body), .descriptor = -1};
    if (link->channel && !packet_channel_send(link->channel, &packet, &gone) &&
        gone.reason == REASON_OVERLOADED_HERE)
        leave(EXIT_PROTOCOL, "the node takes no answers");
}

/* ---- a host call: goes home ---- */

may_suspend static bool await_answer(struct server_call *call, struct context *ctx,
                                     str *output_json, struct error *e)
{
    struct remote_result answer;
    while (!call->answer && call->server_link->channel)
        if (!condition_wait(&call->answered, ctx, e))
            return false;
    if (!call->answer)
        return error_set(e, REASON_UNAVAILABLE, "the node has gone");
    if (!remote_read_result(str_of(call->answer, call->answer_bytes), &answer, e))
        return false;
    if (!answer.is_ok)
        return error_copy(e, &answer.error);
    *output_json = str_copy(ctx->arena, answer.result.output);
    return true;
}

may_suspend static bool run_proxy(void *owner, struct context *ctx,
                                  const struct tool_request *request, str input_json,
                                  str *output_json, struct error *e)
{
    const struct proxy *proxy = owner;
    /* The sandbox hands on the request it was given, which is a member of the call. */
    struct server_call *call =
        (struct server_call *) ((uintptr_t) request - offsetof(struct server_call, request));
    struct remote_host_call message = {.name = str_from_cstr(proxy->name), .input = input_json};
    struct strbuf body;
    strbuf_init(&body, ctx->arena, REMOTE_BODY_BYTES_MAX);
    remote_write_host_call(&body, &message);
    call->waits_for_answer = true;
    send_packet(call->server_link, REMOTE_HOST_CALL, call->id, &body);
    bool is_ok = await_answer(call, ctx, output_json, e);
    call->waits_for_answer = false;
    free(call->answer);
    call->answer = NULL;
    return is_ok;
}

/* ---- calls ---- */

static struct server_call *call_create(struct server_link *link, uint64_t id)
{
    struct server_call *call = calloc(1, sizeof *call);
    ensure(call != NULL);
    call->server_link = link;
    call->id = id;
    call->arena = arena_create(0);
    condition_init(&call->answered);
    list_push_back(&link->calls, &call->link);
    link->call_count++;
    return call;
}

static void link_free_when_done(struct server_link *link)
{
    if (link->channel || link->call_count > 0)
        return;
    LIST_EACH(node, &link->tools)
    {
        struct server_tool *tool = LIST_ITEM(node, struct server_tool, link);
        list_remove(&tool->link);
        server_tool_release(tool);
    }
    free(link);
}

static void call_destroy(struct server_call *call)
{
    struct server_link *link = call->server_link;
    for (size_t i = 0; i < call->file_count; i++)
        if (call->file_items[i].fd >= 0)
            close(call->file_items[i].fd);
    if (call->server_tool)
        server_tool_release(call->server_tool);
    free(call->answer);
    list_remove(&call->link);
    link->call_count--;
    arena_destroy(call->arena);
    free(call);
    link_free_when_done(link);
}

static bool resolve(void *owner, struct context *ctx, str name, str *path, int64_t *bytes,
                    struct error *e)
{
    const struct server_call *call = owner;
    (void) ctx;
    for (size_t i = 0; i < call->file_count; i++) {
        const struct server_file *file = &call->file_items[i];
        if (!str_equal(file->name, name) || file->fd < 0)
            continue;
        *path = file->path;
        *bytes = file->bytes;
        return true;
    }
    return error_set(e, REASON_NOT_FOUND, "no such file");
}

static void send_result(struct server_call *call, bool is_ok)
{
    OWNED(arena) arena = arena_create(REMOTE_BODY_BYTES_MAX);
    struct strbuf body;
    struct remote_result *result = ARENA_NEW(arena, struct remote_result);
    *result = (struct remote_result){.is_ok = is_ok, .result = call->result};
    if (!is_ok)
        result->error = call->error;
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_result(&body, result);
    send_packet(call->server_link, REMOTE_RESULT, call->id, &body);
}

static void run_call(void *argument)
{
    struct server_call *call = argument;
    struct server *server = call->server_link->server;
    int64_t left_ms = call->content.left_ms;
    int64_t now_ns = clock_monotonic_ns(clock_system());
    context_init(&call->ctx, loop_scheduler(server->loop), call->arena,
                 left_ms >= 0 ? now_ns + left_ms * NS_PER_MS : DEADLINE_NONE);
    call->has_ctx = true;
    if (call->is_cancelled)
        context_cancel(&call->ctx);
    bool is_ok =
        executor_execute(server->sandbox, &call->ctx, &call->request, &call->result, &call->error);
    call->has_ctx = false;
    context_deinit(&call->ctx);
    send_result(call, is_ok);
    call_destroy(call);
}

static struct server_tool *find_tool(struct server_link *link, uint64_t number)
{
    LIST_EACH(node, &link->tools)
    {
        struct server_tool *tool = LIST_ITEM(node, struct server_tool, link);
        if (tool->number == number)
            return tool;
    }
    return NULL;
}

static struct server_call *find_call(struct server_link *link, uint64_t id)
{
    LIST_EACH(node, &link->calls)
    {
        struct server_call *call = LIST_ITEM(node, struct server_call, link);
        if (call->id == id)
            return call;
    }
    return NULL;
}

/* What travels with the call on top of what is known of the tool. */
static void complete_tool(struct server_call *call)
{
    struct tool *tool = &call->content.tool;
    struct tool dynamic = *tool;
    *tool = call->server_tool->tool;
    tool->category = dynamic.category;
    tool->limits = dynamic.limits;
    tool->permissions = dynamic.permissions;
    tool->host_calls = dynamic.host_calls;
    tool->host_call_count = dynamic.host_call_count;
}

static void start_call(struct server_link *link, const struct packet *packet)
{
    struct server_call *call = GIVE(link->draft);
    struct error e;
    if (!call)
        call = call_create(link, packet->id);
    if (call->id != packet->id ||
        !remote_read_call(call->arena, str_copy(call->arena, packet->body), &call->content, &e))
        leave(EXIT_PROTOCOL, "a call that makes no sense");
    call->server_tool = find_tool(link, call->content.tool_number);
    if (!call->server_tool)
        leave(EXIT_PROTOCOL, "a call of a tool that nobody announced");
    call->server_tool->use_count++;
    complete_tool(call);
    call->files = (struct tool_files){.owner = call, .resolve = resolve};
    str *names = ARENA_ARRAY(call->arena, str, call->file_count + 1);
    for (size_t i = 0; i < call->file_count; i++)
        names[i] = call->file_items[i].name;
    call->request = (struct tool_request){
        .tool = &call->content.tool,
        .input = call->content.input,
        .files = call->file_count > 0 ? &call->files : NULL,
        .file_names = names,
        .file_name_count = call->file_count,
        .notebook = call->content.has_notebook ? &call->content.notebook : NULL};
    if (coroutine_start(loop_scheduler(link->server->loop), "call", run_call, call, &call->error))
        return;
    send_result(call, false);
    call_destroy(call);
}

static void add_file(struct server_link *link, const struct packet *packet)
{
    struct remote_file file;
    struct error e;
    if (!link->draft)
        link->draft = call_create(link, packet->id);
    struct server_call *call = link->draft;
    if (call->id != packet->id || call->file_count >= SANDBOX_FILES_MAX ||
        !remote_read_file(packet->body, &file, &e))
        leave(EXIT_PROTOCOL, "a file that belongs to no call");
    if (!call->file_items)
        call->file_items = ARENA_ARRAY(call->arena, struct server_file, SANDBOX_FILES_MAX);
    call->file_items[call->file_count++] = (struct server_file){
        .name = str_copy(call->arena, file.name),
        .path = str_printf(call->arena, "/proc/self/fd/%d", packet->descriptor),
        .bytes = file.bytes,
        .fd = packet->descriptor};
}

static void cancel_call(struct server_link *link, uint64_t id)
{
    struct server_call *call = find_call(link, id);
    if (!call)
        return; /* it has just ended */
    call->is_cancelled = true;
    if (call->has_ctx)
        context_cancel(&call->ctx);
}

/* For a call that waits for one; another has ended meanwhile, or was cancelled. */
static void take_answer(struct server_link *link, const struct packet *packet)
{
    struct server_call *call = find_call(link, packet->id);
    if (!call || !call->waits_for_answer || call->answer)
        return;
    call->answer = malloc(packet->body.len + 1);
    ensure(call->answer != NULL);
    memcpy(call->answer, packet->body.ptr, packet->body.len);
    call->answer_bytes = packet->body.len;
    condition_broadcast(&call->answered);
}

/* ---- links ---- */

static void add_tool(struct server_link *link, const struct packet *packet)
{
    struct error e;
    struct server_tool *tool = server_tool_create(packet->id, packet->body, &e);
    if (!tool || find_tool(link, packet->id))
        leave(EXIT_PROTOCOL, "a tool that makes no sense");
    list_push_front(&link->tools, &tool->link);
}

static void add_piece(struct server_link *link, const struct packet *packet)
{
    struct error e;
    struct server_tool *tool = find_tool(link, packet->id);
    if (!tool || !server_tool_add(tool, packet, &e))
        leave(EXIT_PROTOCOL, "a module of no tool");
}

static void drop_tool(struct server_link *link, uint64_t number)
{
    struct server_tool *tool = find_tool(link, number);
    if (!tool)
        return;
    list_remove(&tool->link);
    server_tool_release(tool);
}

static void on_link_packet(void *owner, struct packet *packet)
{
    struct server_link *link = owner;
    switch (packet->type) {
    case REMOTE_TOOL: add_tool(link, packet); return;
    case REMOTE_MODULE:
    case REMOTE_CODE: add_piece(link, packet); return;
    case REMOTE_DROP: drop_tool(link, packet->id); return;
    case REMOTE_FILE: add_file(link, packet); return;
    case REMOTE_EXECUTE: start_call(link, packet); return;
    case REMOTE_CANCEL: cancel_call(link, packet->id); return;
    case REMOTE_ANSWER: take_answer(link, packet); return;
    default: leave(EXIT_PROTOCOL, "a message that does not belong on a link");
    }
}

static void on_link_end(void *owner, const struct error *why)
{
    struct server_link *link = owner;
    (void) why;
    packet_channel_close(GIVE(link->channel));
    link->call_count++; /* keeps the link until we are through */
    if (link->draft)
        call_destroy(GIVE(link->draft));
    LIST_EACH(node, &link->calls)
    {
        struct server_call *call = LIST_ITEM(node, struct server_call, link);
        call->is_cancelled = true;
        condition_broadcast(&call->answered);
        if (call->has_ctx)
            context_cancel(&call->ctx);
    }
    link->call_count--;
    link_free_when_done(link);
}

static void open_link(struct server *server, int give_fd)
{
    struct error e;
    struct server_link *link = calloc(1, sizeof *link);
    ensure(link != NULL);
    link->server = server;
    list_init(&link->tools);
    list_init(&link->calls);
    struct packet_channel_options options = {.body_bytes_max = REMOTE_BODY_BYTES_MAX,
                                             .pending_bytes_max =
                                                 SIZE_MAX, /* bounded by the calls there are */
                                             .owner = link,
                                             .on_packet = on_link_packet,
                                             .on_end = on_link_end};
    if (!packet_channel_open(give_fd, &options, &link->channel, &e))
        free(link);
}

/* ---- control ---- */

static void on_control_packet(void *owner, struct packet *packet)
{
    struct server *server = owner;
    struct error gone;
    if (packet->type == REMOTE_LINK && packet->descriptor >= 0) {
        open_link(server, packet->descriptor);
    } else if (packet->type == REMOTE_PING) {
        struct packet pong = {.type = REMOTE_PONG, .id = packet->id, .descriptor = -1};
        if (!packet_channel_send(server->control, &pong, &gone))
            _exit(0);
    } else {
        leave(EXIT_PROTOCOL, "a message that does not belong on the control socket");
    }
}

static void on_control_end(void *owner, const struct error *why)
{
    (void) owner, (void) why;
    _exit(0);
}

/* Once the loop runs: a channel belongs to the current one. */
static void open_control(void *argument)
{
    struct server *server = argument;
    struct error e;
    struct packet_channel_options options = {.body_bytes_max = REMOTE_BODY_BYTES_MAX,
                                             .pending_bytes_max = REMOTE_BODY_BYTES_MAX,
                                             .owner = server,
                                             .on_packet = on_control_packet,
                                             .on_end = on_control_end};
    if (!packet_channel_open(server->control_fd, &options, &server->control, &e))
        leave(EXIT_FAILURE, e.message);
}

static bool make_sandbox(struct server *server, struct arena *arena,
                         const struct remote_hello *hello, struct error *e)
{
    static struct sandbox_code code;
    code = server_codes();
    for (size_t i = 0; i < hello->host_call_count; i++) {
        server->proxies[i].name = str_to_cstr(arena, hello->host_calls[i]);
        server->host_calls[i] = (struct host_call){
            .name = server->proxies[i].name, .run = run_proxy, .owner = &server->proxies[i]};
    }
    struct sandbox_options options = {.code = &code,
                                      .thread_count = hello->thread_count,
                                      .parallel_max = hello->parallel_max,
                                      .host_calls = server->host_calls,
                                      .host_call_count = hello->host_call_count,
                                      .clock = clock_system()};
    return sandbox_create(&options, &server->sandbox, e);
}

/* ---- the process ---- */

static int64_t start_deadline_ns(void)
{
    return clock_monotonic_ns(clock_system()) + (int64_t) REMOTE_START_MS * NS_PER_MS;
}

static bool is_ours(int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.uid == geteuid();
}

/* It ends with the node, not with the node's signals: a drain needs it to the last. */
static void ignore_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        signal(numbers[i], SIG_IGN);
}

static bool receive_hello(struct packet_reader *reader, struct arena *arena,
                          struct remote_hello *hello, struct error *e)
{
    struct packet packet;
    if (!packet_read_until(reader, start_deadline_ns(), &packet, e))
        return false;
    if (packet.type != REMOTE_HELLO)
        return error_set(e, REASON_INVALID, "it does not begin with hello");
    return remote_read_hello(arena, str_copy(arena, packet.body), hello, e);
}

static bool send_ready(struct server *server, struct arena *arena, uint32_t walls, struct error *e)
{
    struct strbuf body;
    struct remote_ready ready = {.code_version = sandbox_code_version(server->sandbox),
                                 .walls = walls};
    strbuf_init(&body, arena, 1024);
    remote_write_ready(&body, &ready);
    struct packet packet = {.type = REMOTE_READY, .body = strbuf_str(&body), .descriptor = -1};
    return packet_write(server->control_fd, &packet, start_deadline_ns(), e);
}

static bool start_server(struct server *server, struct arena *arena, struct packet_reader *reader,
                         struct remote_hello *hello, struct error *e)
{
    uint32_t walls;
    if (!is_ours(server->control_fd))
        return error_set(e, REASON_DENIED, "the socket belongs to somebody else");
    ignore_signals();
    return receive_hello(reader, arena, hello, e) &&
           wall_prepare(hello->mode == REMOTE_COMPILES ? REMOTE_COMPILE_CPU_S : 0, &walls, e) &&
           wall_raise(&walls, e) && make_sandbox(server, arena, hello, e) &&
           send_ready(server, arena, walls, e);
}

int remote_server_run(int control_fd)
{
    struct error e;
    struct remote_hello hello;
    struct server *server = calloc(1, sizeof *server);
    struct arena *arena = arena_create(0);
    ensure(server != NULL);
    struct packet_reader *reader = packet_reader_create(control_fd, REMOTE_BODY_BYTES_MAX);
    server->control_fd = control_fd;
    if (!start_server(server, arena, reader, &hello, &e))
        leave(EXIT_WALL, e.message);
    if (hello.mode == REMOTE_COMPILES)
        _exit(server_compile(control_fd, reader, server->sandbox));
    packet_reader_destroy(reader); /* nothing comes between READY and what it asks for */
    server->loop = loop_create(clock_system(), random_system(), &e);
    if (!server->loop)
        leave(EXIT_FAILURE, e.message);
    loop_post(server->loop, open_control, server);
    loop_run(server->loop);
    _exit(0);
}
