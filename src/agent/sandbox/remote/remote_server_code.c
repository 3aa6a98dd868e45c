#include "agent/sandbox/remote/remote_server_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

/* ---- compiled code ---- */

struct code {
    struct list link;
    digest module;
    int fd; /* -1: wanted, not there */
    int wanted_fd;
    size_t use_count;
};

static struct {
    pthread_mutex_t mutex;
    struct list items;
} codes = {.mutex = PTHREAD_MUTEX_INITIALIZER, .items = {&codes.items, &codes.items}};

static struct code *find_code(digest module)
{
    LIST_EACH(node, &codes.items)
    {
        struct code *code = LIST_ITEM(node, struct code, link);
        if (memcmp(&code->module, &module, sizeof module) == 0)
            return code;
    }
    return NULL;
}

static void add_code(digest module, int give_fd, bool is_wanted)
{
    pthread_mutex_lock(&codes.mutex);
    struct code *code = find_code(module);
    if (code) {
        close(give_fd);
    } else {
        code = calloc(1, sizeof *code);
        ensure(code != NULL);
        *code = (struct code){.module = module,
                              .fd = is_wanted ? -1 : give_fd,
                              .wanted_fd = is_wanted ? give_fd : -1};
        list_push_front(&codes.items, &code->link);
    }
    code->use_count++;
    pthread_mutex_unlock(&codes.mutex);
}

void server_codes_remove(digest module)
{
    pthread_mutex_lock(&codes.mutex);
    struct code *code = find_code(module);
    if (code && --code->use_count == 0) {
        list_remove(&code->link);
        if (code->fd >= 0)
            close(code->fd);
        if (code->wanted_fd >= 0)
            close(code->wanted_fd);
        free(code);
    }
    pthread_mutex_unlock(&codes.mutex);
}

static int open_code(void *owner, digest module)
{
    (void) owner;
    pthread_mutex_lock(&codes.mutex);
    const struct code *code = find_code(module);
    int fd = code && code->fd >= 0 ? fcntl(code->fd, F_DUPFD_CLOEXEC, 3) : -1;
    pthread_mutex_unlock(&codes.mutex);
    return fd;
}

/* Into the descriptor that waits for it; a process that runs guests has none. */
static void save_code(void *owner, digest module, str content)
{
    (void) owner;
    pthread_mutex_lock(&codes.mutex);
    const struct code *code = find_code(module);
    int fd = code ? code->wanted_fd : -1;
    bool is_ok = fd >= 0;
    while (is_ok && content.len > 0) {
        ssize_t written = write(fd, content.ptr, content.len);
        if (written < 0 && errno == EINTR)
            continue;
        is_ok = written > 0;
        if (is_ok)
            content = str_from(content, (size_t) written);
    }
    if (fd >= 0 && !is_ok)
        is_ok = ftruncate(fd, 0) == 0; /* empty: nothing to keep */
    pthread_mutex_unlock(&codes.mutex);
}

struct sandbox_code server_codes(void)
{
    return (struct sandbox_code){.open = open_code, .save = save_code};
}

/* ---- tools ---- */

struct server_tool *server_tool_create(uint64_t number, str body, struct error *e)
{
    struct arena *arena = arena_create(0);
    struct server_tool *tool = ARENA_NEW(arena, struct server_tool);
    tool->arena = arena;
    tool->number = number;
    tool->use_count = 1;
    if (remote_read_tool(arena, body, &tool->tool, e))
        return tool;
    arena_destroy(arena);
    return NULL;
}

void server_tool_release(struct server_tool *tool)
{
    if (--tool->use_count > 0)
        return;
    for (size_t i = 0; i < tool->descriptor_count; i++)
        if (tool->descriptors[i] >= 0)
            close(tool->descriptors[i]);
    for (size_t i = 0; i < remote_module_count(&tool->tool); i++)
        server_codes_remove(remote_module_digest(&tool->tool, i));
    arena_destroy(tool->arena);
}

bool server_tool_add(struct server_tool *tool, const struct packet *packet, struct error *e)
{
    struct remote_piece piece;
    bool is_ok = packet->descriptor >= 0 && remote_read_piece(packet->body, &piece, e) &&
                 piece.index < remote_module_count(&tool->tool) &&
                 tool->descriptor_count < ARRAY_COUNT(tool->descriptors);
    if (!is_ok) {
        if (packet->descriptor >= 0)
            close(packet->descriptor);
        return error_set(e, REASON_INVALID, "a module's descriptor that fits nowhere");
    }
    if (packet->type == REMOTE_CODE) {
        add_code(remote_module_digest(&tool->tool, piece.index), packet->descriptor,
                 piece.is_wanted);
        return true;
    }
    tool->descriptors[tool->descriptor_count++] = packet->descriptor;
    remote_module_set_path(&tool->tool, piece.index,
                           str_printf(tool->arena, "/proc/self/fd/%d", packet->descriptor));
    return true;
}

/* ---- compiling ---- */

static bool receive_tool(struct packet_reader *reader, struct server_tool **out, struct error *e)
{
    struct packet packet;
    struct server_tool *tool = NULL;
    int64_t deadline_ns =
        clock_monotonic_ns(clock_system()) + (int64_t) REMOTE_START_MS * NS_PER_MS;
    for (;;) {
        if (!packet_read_until(reader, deadline_ns, &packet, e))
            return false;
        if (packet.type == REMOTE_TOOL && !tool) {
            tool = server_tool_create(packet.id, packet.body, e);
            if (!tool)
                return false;
        } else if ((packet.type == REMOTE_MODULE || packet.type == REMOTE_CODE) && tool) {
            if (!server_tool_add(tool, &packet, e))
                return false;
        } else if (packet.type == REMOTE_COMPILE && tool) {
            *out = tool;
            return true;
        } else {
            return error_set(e, REASON_INVALID, "a message that does not belong here");
        }
    }
}

int server_compile(int control_fd, struct packet_reader *reader, struct executor *sandbox)
{
    OWNED(arena) arena = arena_create(0);
    struct server_tool *tool;
    struct remote_result result = {0};
    struct strbuf body;
    if (!receive_tool(reader, &tool, &result.error))
        return 2;
    result.is_ok = sandbox_prepare(sandbox, &tool->tool, &result.error);
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_result(&body, &result);
    struct packet packet = {.type = REMOTE_COMPILED, .body = strbuf_str(&body), .descriptor = -1};
    int64_t deadline_ns =
        clock_monotonic_ns(clock_system()) + (int64_t) REMOTE_START_MS * NS_PER_MS;
    return packet_write(control_fd, &packet, deadline_ns, &result.error) ? 0 : 1;
}
