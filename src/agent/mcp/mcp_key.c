/* The key that seals users' tokens: a file beside the store, so that a copy of the store alone opens nothing. */
#include "agent/mcp/mcp_login.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/seal.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BYTES = 2 * SEAL_KEY_BYTES };

static bool set_failure(const char *path, struct error *e)
{
    return error_set(e, errno == ENOENT ? REASON_NOT_FOUND : REASON_UNAVAILABLE, "%s: %s", path,
                     strerror(errno));
}

static bool read_key(const char *path, struct secret **out, struct error *e)
{
    digest key;
    struct stat status;
    char text[TEXT_BYTES + 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return set_failure(path, e);
    ssize_t got = fstat(fd, &status) == 0 ? read(fd, text, sizeof text) : -1;
    close(fd);
    if (got < 0)
        return set_failure(path, e);
    if (status.st_mode & 077)
        return error_set(e, REASON_CONFIG, "%s is readable by others; run: chmod 600 %s", path,
                         path);
    bool is_key = digest_parse_hex(str_trim(str_of(text, (size_t) got)), &key);
    if (is_key)
        *out = secret_create(str_of((const char *) key.bytes, sizeof key.bytes));
    explicit_bzero(text, sizeof text);
    explicit_bzero(&key, sizeof key);
    return is_key || error_set(e, REASON_CONFIG,
                               "%s must hold 64 hex digits; restore it, or remove it: then users "
                               "log in at MCP servers anew",
                               path);
}

/* Whole or not at all: another process may look for it at the same time. */
static bool make_key(struct arena *arena, const char *path, struct error *e)
{
    uint8_t bytes[SEAL_KEY_BYTES];
    const char *fresh =
        str_to_cstr(arena, str_printf(arena, "%s.%lld.new", path, (long long) getpid()));
    digest_random_bytes(bytes, sizeof bytes);
    str hex = str_printf(arena, STR_FMT "\n", STR_ARG(str_hex(arena, bytes, sizeof bytes)));
    explicit_bzero(bytes, sizeof bytes);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return set_failure(fresh, e);
    bool is_written = write(fd, hex.ptr, hex.len) == (ssize_t) hex.len && fsync(fd) == 0;
    is_written = close(fd) == 0 && is_written;
    seal_wipe(hex);
    /* link, not rename: the first one stays. */
    bool is_there = is_written && (link(fresh, path) == 0 || errno == EEXIST);
    bool ok = is_there || set_failure(path, e);
    unlink(fresh);
    return ok;
}

bool mcp_key_open(str path, struct secret **out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    const char *name = str_to_cstr(arena, path);
    struct error why = {0};
    if (read_key(name, out, &why))
        return true;
    if (why.code != ERROR_NOT_FOUND)
        return error_copy(e, &why);
    return make_key(arena, name, e) && read_key(name, out, e);
}
