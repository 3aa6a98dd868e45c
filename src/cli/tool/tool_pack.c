#include "cli/tool/tool_pack.h"

#include "base/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

bool tool_pack_is_folder(struct arena *arena, str path)
{
    struct stat status;
    return stat(str_to_cstr(arena, path), &status) == 0 && S_ISDIR(status.st_mode);
}

bool tool_pack_read_file(struct arena *arena, str path, size_t max, str *out, struct error *e)
{
    struct stat status;
    int fd = open(str_to_cstr(arena, path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(e, errno == ENOENT ? REASON_NOT_FOUND : REASON_USAGE, STR_FMT ": %s",
                         STR_ARG(path), strerrordesc_np(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > (off_t) max) {
        close(fd);
        return error_set(e, REASON_USAGE, STR_FMT " is no file, or over %zu bytes", STR_ARG(path),
                         max);
    }
    size_t len = 0, bytes = (size_t) status.st_size;
    char *text = arena_alloc_raw(arena, bytes + 1);
    ssize_t got = 0;
    while (len < bytes &&
           ((got = read(fd, text + len, bytes - len)) > 0 || (got < 0 && errno == EINTR)))
        len += got > 0 ? (size_t) got : 0;
    close(fd);
    if (got < 0)
        return error_set(e, REASON_UNAVAILABLE, STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(errno));
    *out = str_of(text, len);
    return true;
}

static bool write_all(int fd, str rest)
{
    while (rest.len > 0) {
        ssize_t written = write(fd, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        rest = str_from(rest, (size_t) written);
    }
    return fsync(fd) == 0;
}

bool tool_pack_write_file(str path, str bytes, int mode, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    char *draft = str_to_cstr(arena, str_printf(arena, STR_FMT ".new", STR_ARG(path)));
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return error_set(e, REASON_USAGE, "%s: %s", draft, strerrordesc_np(errno));
    bool is_ok = write_all(fd, bytes);
    int failure = errno;
    close(fd);
    if (is_ok && rename(draft, str_to_cstr(arena, path)) == 0)
        return true;
    failure = is_ok ? errno : failure;
    (void) unlink(draft);
    return error_set(e, REASON_UNAVAILABLE, STR_FMT ": %s", STR_ARG(path),
                     strerrordesc_np(failure));
}

static bool add_file(struct arena *arena, str folder, str name, size_t max, struct package *out,
                     struct error *e)
{
    str bytes;
    if (package_find(out, name))
        return true;
    if (out->count == PACKAGE_FILES_MAX)
        return error_set(e, REASON_LIMIT, "more than %u files in one package", PACKAGE_FILES_MAX);
    if (!tool_pack_read_file(arena,
                             str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(name)),
                             max, &bytes, e))
        return false;
    out->files[out->count++] = (struct package_file){name, bytes};
    return true;
}

bool tool_pack_folder(struct arena *arena, str folder, struct package *out, struct tool *tool,
                      struct error *e)
{
    struct error none = {0};
    str file = str_printf(arena, STR_FMT "/manifest.yaml", STR_ARG(folder));
    out->count = 0;
    if (!add_file(arena, folder, PACKAGE_MANIFEST, MANIFEST_BYTES_MAX, out, e) ||
        !package_manifest(arena, file, out->files[0].bytes, tool, e))
        return false;
    for (size_t i = 0; i < tool_module_total(tool); i++)
        if (!add_file(arena, folder, tool_module_at(tool, i, NULL), SANDBOX_MODULE_BYTES_MAX, out,
                      e))
            return error_wrap(e, STR_FMT ":1: its module", STR_ARG(file));
    if (!add_file(arena, folder, PACKAGE_SIGNATURE, PACKAGE_SIGNATURE_BYTES_MAX, out, &none) &&
        none.reason != REASON_NOT_FOUND)
        return error_copy(e, &none);
    return package_tool(arena, out, tool, e);
}

bool tool_pack(struct arena *arena, str path, str *archive, struct error *e)
{
    struct package package;
    struct tool tool;
    if (!tool_pack_is_folder(arena, path))
        return tool_pack_read_file(arena, path, PACKAGE_BYTES_MAX, archive, e);
    if (!tool_pack_folder(arena, path, &package, &tool, e))
        return false;
    *archive = package_write(arena, &package);
    return true;
}
