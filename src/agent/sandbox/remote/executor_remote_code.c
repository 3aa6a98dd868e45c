#include "agent/sandbox/remote/executor_remote_internal.h"
#include "agent/sandbox/sandbox_aot_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

struct remote_codes {
    struct aot aot;
    pthread_mutex_t compiling; /* one process at a time */
};

bool remote_codes_create(str dir, struct remote_codes **out, struct error *e)
{
    struct remote_codes *codes = calloc(1, sizeof *codes);
    ensure(codes != NULL);
    if (!aot_init(&codes->aot, dir, NULL, e)) {
        free(codes);
        return false;
    }
    pthread_mutex_init(&codes->compiling, NULL);
    *out = codes;
    return true;
}

void remote_codes_destroy(struct remote_codes *codes)
{
    if (!codes)
        return;
    aot_deinit(&codes->aot);
    pthread_mutex_destroy(&codes->compiling);
    free(codes);
}

void remote_pieces_close(struct remote_pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        if (pieces->modules[i] >= 0)
            close(pieces->modules[i]);
        if (pieces->codes[i] >= 0)
            close(pieces->codes[i]);
    }
    pieces->count = 0;
}

/* ---- opening ---- */

static bool open_module(const struct tool *tool, str path_text, int *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    *out = open(str_to_cstr(arena, path_text), O_RDONLY | O_CLOEXEC);
    if (*out >= 0)
        return true;
    return error_set(e, REASON_NOT_FOUND, "the module of tool " STR_FMT ", " STR_FMT ": %s",
                     STR_ARG(tool->name), STR_ARG(path_text), strerrordesc_np(errno));
}

static int open_code(const struct remote_codes *codes, digest module, const char *code_version)
{
    char name[AOT_NAME_BYTES];
    aot_file_name(module, str_from_cstr(code_version), name);
    return aot_open(&codes->aot, name);
}

static bool open_all(struct remote *remote, const struct tool *tool, const char *code_version,
                     struct remote_pieces *out, bool *is_complete, struct error *e)
{
    *out = (struct remote_pieces){.count = remote_module_count(tool)};
    *is_complete = true;
    if (out->count > REMOTE_MODULES_MAX) {
        out->count = 0;
        return error_set(e, REASON_LIMIT, "tool " STR_FMT " has more than %u modules",
                         STR_ARG(tool->name), REMOTE_MODULES_MAX);
    }
    for (size_t i = 0; i < out->count; i++)
        out->modules[i] = out->codes[i] = -1;
    for (size_t i = 0; i < out->count; i++) {
        if (!open_module(tool, remote_module_path(tool, i), &out->modules[i], e)) {
            remote_pieces_close(out);
            return false;
        }
        out->codes[i] = open_code(remote->codes, remote_module_digest(tool, i), code_version);
        *is_complete = *is_complete && out->codes[i] >= 0;
    }
    return true;
}

/* ---- compiling, in a process of its own ---- */

static bool send_piece(struct remote_process *process, enum remote_type type, size_t index,
                       bool is_wanted, int fd, int64_t deadline_ns, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf body;
    strbuf_init(&body, arena, 64);
    remote_write_piece(&body,
                       &(struct remote_piece){.index = (uint32_t) index, .is_wanted = is_wanted});
    struct packet packet = {.type = (uint16_t) type, .body = strbuf_str(&body), .descriptor = fd};
    return packet_write(process->control, &packet, deadline_ns, e);
}

static bool send_tool(struct remote_process *process, const struct tool *tool,
                      const struct remote_pieces *pieces, const int *wanted, int64_t deadline_ns,
                      struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf body;
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_tool(&body, tool);
    struct packet packet = {.type = REMOTE_TOOL, .body = strbuf_str(&body), .descriptor = -1};
    bool is_ok = packet_write(process->control, &packet, deadline_ns, e);
    for (size_t i = 0; is_ok && i < pieces->count; i++)
        is_ok = send_piece(process, REMOTE_MODULE, i, false, pieces->modules[i], deadline_ns, e) &&
                send_piece(process, REMOTE_CODE, i, wanted[i] >= 0,
                           wanted[i] >= 0 ? wanted[i] : pieces->codes[i], deadline_ns, e);
    packet = (struct packet){.type = REMOTE_COMPILE, .descriptor = -1};
    return is_ok && packet_write(process->control, &packet, deadline_ns, e);
}

static bool await_compiled(struct remote_process *process, int64_t deadline_ns, struct error *e)
{
    struct packet packet;
    struct remote_result result;
    if (!packet_read_until(process->reader, deadline_ns, &packet, e))
        return false;
    if (packet.descriptor >= 0)
        close(packet.descriptor);
    if (packet.type != REMOTE_COMPILED || packet.descriptor >= 0)
        return error_set(e, REASON_INVALID, "the compiling process broke the protocol");
    if (!remote_read_result(packet.body, &result, e))
        return false;
    return result.is_ok || error_copy(e, &result.error);
}

/* Under the digest of the module that went in, whatever came out. */
static bool keep(struct remote *remote, digest module, const char *code_version, int fd,
                 struct error *e)
{
    struct stat status;
    char name[AOT_NAME_BYTES];
    if (fstat(fd, &status) != 0 || status.st_size == 0)
        return true; /* it was not needed */
    if (status.st_size > (off_t) REMOTE_CODE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a compiled module is over %u MiB",
                         REMOTE_CODE_BYTES_MAX >> 20);
    /* Nobody else writes to it any more: the process has ended. */
    void *map = mmap(NULL, (size_t) status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return error_set(e, REASON_UNAVAILABLE, "map a compiled module: %s",
                         strerrordesc_np(errno));
    aot_file_name(module, str_from_cstr(code_version), name);
    bool is_ok = aot_store(&remote->codes->aot, name, str_of(map, (size_t) status.st_size), e);
    munmap(map, (size_t) status.st_size);
    return is_ok;
}

static bool talk(struct remote *remote, const struct tool *tool, const struct remote_pieces *pieces,
                 const int *wanted, const char *code_version, struct error *e)
{
    struct remote_process process;
    struct remote_hello hello = remote->hello;
    int64_t deadline_ns =
        clock_monotonic_ns(clock_system()) + (int64_t) REMOTE_COMPILE_MS * NS_PER_MS;
    hello.mode = REMOTE_COMPILES;
    hello.thread_count = 1;
    hello.parallel_max = 1;
    hello.host_call_count = 0;
    if (!remote_process_start(remote->options.command, &hello, &process, e))
        return false;
    bool is_same = strcmp(process.code_version, code_version) == 0;
    bool is_ok = (is_same || error_set(e, REASON_INTERNAL, "another engine compiles than runs")) &&
                 send_tool(&process, tool, pieces, wanted, deadline_ns, e) &&
                 await_compiled(&process, deadline_ns, e);
    remote_process_relay_log(&process);
    remote_process_end(&process, NULL, 0);
    for (size_t i = 0; is_ok && i < pieces->count; i++)
        is_ok = wanted[i] < 0 ||
                keep(remote, remote_module_digest(tool, i), code_version, wanted[i], e);
    return is_ok;
}

/* What goes in must be what the registry saw: the code will be kept under that digest. */
static bool is_module(int fd, digest module)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0 ||
        status.st_size > (off_t) SANDBOX_MODULE_BYTES_MAX)
        return false;
    void *map = mmap(NULL, (size_t) status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return false;
    bool is_same = digest_equal(digest_sha256(str_of(map, (size_t) status.st_size)), module);
    munmap(map, (size_t) status.st_size);
    return is_same;
}

static bool compile(struct remote *remote, const struct tool *tool,
                    const struct remote_pieces *pieces, const char *code_version, struct error *e)
{
    int wanted[REMOTE_MODULES_MAX];
    bool is_ok = true;
    for (size_t i = 0; i < pieces->count; i++)
        if (!is_module(pieces->modules[i], remote_module_digest(tool, i)))
            return error_set(e, REASON_CORRUPT,
                             "the module of tool " STR_FMT
                             " is not the one that was registered: reload the tools",
                             STR_ARG(tool->name));
    for (size_t i = 0; i < pieces->count; i++) {
        wanted[i] = pieces->codes[i] < 0 ? memfd_create("compiled", MFD_CLOEXEC) : -1;
        is_ok = is_ok && (pieces->codes[i] >= 0 || wanted[i] >= 0);
    }
    if (!is_ok)
        error_set(e, REASON_UNAVAILABLE, "memory for compiled code: %s", strerrordesc_np(errno));
    is_ok = is_ok && talk(remote, tool, pieces, wanted, code_version, e);
    for (size_t i = 0; i < pieces->count; i++)
        if (wanted[i] >= 0)
            close(wanted[i]);
    return is_ok;
}

bool remote_codes_open(struct remote *remote, const struct tool *tool, const char *code_version,
                       struct remote_pieces *out, bool *is_busy, struct error *e)
{
    bool is_complete;
    *is_busy = false;
    if (!open_all(remote, tool, code_version, out, &is_complete, e))
        return false;
    if (is_complete)
        return true;
    *is_busy = pthread_mutex_trylock(&remote->codes->compiling) != 0;
    if (*is_busy) {
        remote_pieces_close(out);
        return true;
    }
    bool is_ok = compile(remote, tool, out, code_version, e);
    pthread_mutex_unlock(&remote->codes->compiling);
    remote_pieces_close(out);
    return is_ok && open_all(remote, tool, code_version, out, &is_complete, e);
}
