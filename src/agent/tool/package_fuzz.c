/* Any bytes as a package: its files lie within the bytes and come back the same when it is written; a signature never passes by luck. */
#include "agent/tool/package.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_files(str archive, const struct package *package)
{
    ensure(package->count > 0 && package->count <= PACKAGE_FILES_MAX);
    for (size_t i = 0; i < package->count; i++) {
        const struct package_file *file = &package->files[i];
        ensure(package_name_is_lawful(file->name));
        ensure(file->bytes.ptr >= archive.ptr &&
               file->bytes.ptr + file->bytes.len <= archive.ptr + archive.len);
        ensure(package_find(package, file->name) == file);
    }
}

static void check_round_trip(struct arena *arena, const struct package *package)
{
    struct package again;
    struct error e;
    ensure(package_read(package_write(arena, package), &again, &e));
    ensure(again.count == package->count);
    for (size_t i = 0; i < package->count; i++) {
        const struct package_file *file = package_find(&again, package->files[i].name);
        ensure(file != NULL && str_equal(file->bytes, package->files[i].bytes));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct package package;
    struct package_signature signature;
    struct tool tool;
    struct error e;
    str archive = str_of((const char *) data, size);
    ensure(!package_verify(archive, (digest){{1}}, &signature, &e));
    if (!package_read(archive, &package, &e)) {
        ensure(e.message[0] != 0);
        return 0;
    }
    check_files(archive, &package);
    check_round_trip(arena, &package);
    (void) !package_tool(arena, &package, &tool, &e);
    return 0;
}
