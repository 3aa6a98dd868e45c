/* Any bytes as a path: what is taken lies below the root, reads back as itself, and has no name that could lead elsewhere. */
#include "agent/sandbox/workspace.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct error e;
    str path, again, rest, name;
    if (!workspace_path(arena, str_of((const char *) data, size), &path, &e))
        return 0;
    ensure(path.len <= WORKSPACE_PATH_BYTES_MAX && str_is_utf8(path));
    ensure(path.len == 0 || (path.ptr[0] != '/' && memchr(path.ptr, 0, path.len) == NULL));
    rest = path;
    while (path.len > 0 && str_next(&rest, '/', &name))
        ensure(!str_is_empty(name) && !str_equal(name, S(".")) && !str_equal(name, S("..")));
    ensure(workspace_path(arena, path, &again, &e) && str_equal(again, path));
    str virtual = workspace_virtual(arena, path);
    ensure(virtual.len > WORKSPACE_PATH_BYTES_MAX ||
           (workspace_path(arena, virtual, &again, &e) && str_equal(again, path)));
    return 0;
}
