/* Folders of tools, shipped and installed, to parts.  Blocking. */
#include "agent/tool/manifest_internal.h"
#include "agent/tool/registry_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PART_BYTES_MAX = 512 << 20 };

/* ---- parts ---- */

struct registry_part *part_create(enum part_kind kind, size_t capacity)
{
    struct registry_part *part = calloc(1, sizeof *part);
    ensure(part != NULL);
    part->kind = kind;
    part->arena = arena_create(PART_BYTES_MAX);
    part->capacity = capacity;
    part->tools = ARENA_ARRAY(part->arena, struct part_tool, capacity + 1);
    atomic_init(&part->references, 1);
    return part;
}

void part_release(struct registry_part *part)
{
    if (!part || atomic_fetch_sub(&part->references, 1) != 1)
        return;
    arena_destroy(part->arena);
    free(part);
}

void part_add_error(struct registry_part *part, str text)
{
    if (!part->errors)
        part->errors = ARENA_ARRAY(part->arena, str, REGISTRY_ERRORS_MAX);
    if (part->error_count < REGISTRY_ERRORS_MAX)
        part->errors[part->error_count++] = str_copy(part->arena, text);
}

/* ---- files ---- */

static bool read_file(struct arena *arena, int dir, const char *name, size_t max, str *out,
                      struct error *e)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (fd < 0)
        return error_set(e, errno == ENOENT ? REASON_NOT_FOUND : REASON_UNAVAILABLE, "%s: %s", name,
                         strerrordesc_np(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > (off_t) max) {
        close(fd);
        return error_set(e, REASON_TOO_LARGE, "%s: no file, or over %zu bytes", name, max);
    }
    size_t len = 0, bytes = (size_t) status.st_size;
    char *text = arena_alloc_raw(arena, bytes + 1);
    ssize_t got = 0;
    while (len < bytes &&
           ((got = read(fd, text + len, bytes - len)) > 0 || (got < 0 && errno == EINTR)))
        len += got > 0 ? (size_t) got : 0;
    close(fd);
    if (got < 0)
        return error_set(e, REASON_UNAVAILABLE, "%s cannot be read: %s", name,
                         strerrordesc_np(errno));
    *out = str_of(text, len);
    return true;
}

static bool digest_file(int dir, str name, digest *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    int fd = openat(dir, str_to_cstr(arena, name), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(e, REASON_NOT_FOUND, "its module " STR_FMT ": %s", STR_ARG(name),
                         strerrordesc_np(errno));
    struct digest_stream *stream = digest_stream_create();
    char *buffer = arena_alloc_raw(arena, 64u << 10);
    size_t total = 0;
    ssize_t got;
    while (((got = read(fd, buffer, 64u << 10)) > 0 || (got < 0 && errno == EINTR)) &&
           total <= SANDBOX_MODULE_BYTES_MAX) {
        if (got < 0)
            continue;
        digest_stream_add(stream, str_of(buffer, (size_t) got));
        total += (size_t) got;
    }
    int failure = errno;
    *out = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    close(fd);
    if (got < 0)
        return error_set(e, REASON_UNAVAILABLE, "its module " STR_FMT ": %s", STR_ARG(name),
                         strerrordesc_np(failure));
    if (total == 0 || total > SANDBOX_MODULE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "its module " STR_FMT " is empty or over %u MiB",
                         STR_ARG(name), SANDBOX_MODULE_BYTES_MAX >> 20);
    return true;
}

static bool read_modules(struct arena *arena, int dir, str folder, struct tool *tool,
                         struct error *e)
{
    bool has_several = tool->module_count > 0;
    for (size_t i = 0; i < tool_module_total(tool); i++) {
        str *path = has_several ? &tool->modules[i].path : &tool->module_path;
        digest *to = has_several ? &tool->modules[i].digest : &tool->module_digest;
        if (!digest_file(dir, *path, to, e))
            return false;
        *path = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(*path));
    }
    if (has_several)
        tool->module_digest = tool_modules_digest(tool);
    return true;
}

/* ---- one tool ---- */

/* A folder without a manifest is none of ours: NOT_FOUND. */
static bool read_tool(struct arena *arena, int dir, str folder, struct part_tool *out, digest *seal,
                      struct error *e)
{
    struct error none = {0};
    struct package_signature signature;
    str text, sealed, file = str_printf(arena, STR_FMT "/manifest.yaml", STR_ARG(folder));
    *out = (struct part_tool){0};
    if (!read_file(arena, dir, "manifest.yaml", MANIFEST_BYTES_MAX, &text, e))
        return error_wrap(e, STR_FMT ":1", STR_ARG(folder));
    if (!manifest_read(arena, file, text, &out->tool, e))
        return false;
    if (!read_modules(arena, dir, folder, &out->tool, e))
        return error_wrap(e, STR_FMT ":1", STR_ARG(file));
    *seal = package_seal(&out->tool, digest_sha256(text));
    if (!read_file(arena, dir, "manifest.sig", PACKAGE_SIGNATURE_BYTES_MAX, &sealed, &none)) {
        if (none.reason != REASON_NOT_FOUND)
            return error_copy(e, &none);
    } else {
        if (!package_verify(sealed, *seal, &signature, e))
            return error_wrap(e, STR_FMT ":1", STR_ARG(file));
        out->is_signed = true;
        memcpy(out->public_key, signature.public_key, sizeof out->public_key);
    }
    out->tool.identity = tool_identity(&out->tool);
    out->document = search_document_of(arena, &out->tool);
    return true;
}

static never_inline bool read_folder(struct registry_part *part, int dir, str folder,
                                     struct error *e)
{
    struct part_tool *tool = &part->tools[part->count];
    digest seal;
    if (part->count == part->capacity)
        return error_set(e, REASON_LIMIT, STR_FMT ":1: more than %u tools", STR_ARG(folder),
                         REGISTRY_TOOLS_MAX);
    if (faccessat(dir, "manifest.yaml", F_OK, 0) != 0 && errno == ENOENT)
        return true; /* a folder of something else */
    if (!read_tool(part->arena, dir, folder, tool, &seal, e))
        return false;
    for (size_t i = 0; i < part->count; i++)
        if (str_equal(part->tools[i].tool.name, tool->tool.name) &&
            semver_compare(part->tools[i].tool.version, tool->tool.version) == 0)
            return error_set(
                e, REASON_CONFLICT,
                STR_FMT "/manifest.yaml:1: tool " STR_FMT " " STR_FMT " is there already",
                STR_ARG(folder), STR_ARG(tool->tool.name), STR_ARG(tool->tool.version));
    part->count++;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return str_compare(*(const str *) a, *(const str *) b);
}

/* Names of the folders, sorted, so that two starts see the same tools and errors in the same order. */
static bool list_folders(struct arena *arena, str tool_dir, str **out, size_t *out_count,
                         struct error *e)
{
    DIR *dir = opendir(str_to_cstr(arena, tool_dir));
    if (!dir)
        return error_set(e, REASON_CONFIG,
                         "folder of tools " STR_FMT ": %s; build it (make) or set tool_dir",
                         STR_ARG(tool_dir), strerrordesc_np(errno));
    str *names = ARENA_ARRAY(arena, str, REGISTRY_TOOLS_MAX);
    size_t count = 0;
    const struct dirent *entry;
    while (count < REGISTRY_TOOLS_MAX && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            names[count++] = str_copy(arena, str_from_cstr(entry->d_name));
    closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    *out = names;
    *out_count = count;
    return true;
}

bool part_read_folder(str tool_dir, struct registry_part **out, struct error *e)
{
    OWNED(arena) names = arena_create(0);
    str *folders;
    size_t count;
    if (!list_folders(names, tool_dir, &folders, &count, e))
        return false;
    struct registry_part *part = part_create(PART_OF_FOLDER, count);
    for (size_t i = 0; i < count; i++) {
        struct error broken;
        str folder =
            str_printf(part->arena, STR_FMT "/" STR_FMT, STR_ARG(tool_dir), STR_ARG(folders[i]));
        int dir = open(str_to_cstr(names, folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            continue; /* a file between the folders */
        if (!read_folder(part, dir, folder, &broken))
            part_add_error(part, str_from_cstr(broken.message));
        close(dir);
    }
    *out = part;
    return true;
}

/* ---- one package ---- */

static bool open_folder(str folder, int *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    *out = open(str_to_cstr(arena, folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return *out >= 0 || error_set(e, REASON_NOT_FOUND, STR_FMT ":1: %s", STR_ARG(folder),
                                  strerrordesc_np(errno));
}

bool registry_read_package(struct arena *arena, str folder, struct tool *out, digest *seal,
                           struct error *e)
{
    int dir;
    struct part_tool *read = ARENA_NEW(arena, struct part_tool);
    if (!open_folder(folder, &dir, e))
        return false;
    bool is_ok = read_tool(arena, dir, str_copy(arena, folder), read, seal, e);
    close(dir);
    *out = read->tool;
    return is_ok;
}

static never_inline bool read_package(struct registry_part *part,
                                      const struct registry_package *package, struct error *e)
{
    int dir;
    digest seal;
    struct part_tool *read = &part->tools[0];
    if (!open_folder(package->folder, &dir, e))
        return false;
    bool is_ok =
        read_tool(part->arena, dir, str_copy(part->arena, package->folder), read, &seal, e);
    close(dir);
    if (!is_ok)
        return false;
    if (!digest_equal(seal, package->seal) || !str_equal(read->tool.name, package->name) ||
        !str_equal(read->tool.version, package->version))
        return error_set(e, REASON_CORRUPT,
                         STR_FMT "/manifest.yaml:1: its files are not those that were installed; "
                                 "remove it and install it again",
                         STR_ARG(package->folder));
    read->tool.source = TOOL_INSTALLED;
    read->tool.source_name = str_copy(part->arena, package->installed_by);
    read->tool.tenant_id = package->tenant_id;
    part->count = 1;
    return true;
}

struct registry_part *part_read_package(const struct registry_package *package)
{
    struct error e;
    struct registry_part *part = part_create(PART_OF_PACKAGE, 1);
    part->tenant_id = package->tenant_id;
    part->name = str_copy(part->arena, package->name);
    part->version = str_copy(part->arena, package->version);
    if (!read_package(part, package, &e))
        part_add_error(part, str_from_cstr(e.message));
    return part;
}
