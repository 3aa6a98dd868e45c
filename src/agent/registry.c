#include "agent/registry.h"

#include "agent/manifest_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct configured {
    str name;
    struct permissions permissions;
};

/* What the operator says about tools.  Counted: permissions of the tools of a snapshot point into it. */
struct configuration {
    atomic_size_t references;
    struct arena *arena;
    struct configured *items;
    size_t count;
};

struct registry {
    struct arena *arena;
    str tool_dir;
    struct configuration *configuration;
    pthread_mutex_t mutex; /* guards the pointer below; held for a few instructions */
    struct registry_snapshot *current;
};

struct registry_snapshot {
    atomic_size_t references;
    struct configuration *configuration;
    struct arena *arena;
    struct tool *tools; /* by name, then newest first */
    size_t count;
    str *errors;
    size_t error_count;
};

/* ---- reading the folder into a snapshot ---- */

static void add_error(struct registry_snapshot *snapshot, const char *text)
{
    if (snapshot->error_count < REGISTRY_ERRORS_MAX)
        snapshot->errors[snapshot->error_count++] = str_copy(snapshot->arena, str_from_cstr(text));
}

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

static const struct permissions *find_configured(const struct configuration *configuration,
                                                 str name)
{
    for (size_t i = 0; i < configuration->count; i++)
        if (str_equal(configuration->items[i].name, name))
            return &configuration->items[i].permissions;
    return NULL;
}

static bool is_taken(const struct registry_snapshot *snapshot, const struct tool *tool)
{
    for (size_t i = 0; i < snapshot->count; i++)
        if (str_equal(snapshot->tools[i].name, tool->name) &&
            semver_compare(snapshot->tools[i].version, tool->version) == 0)
            return true;
    return false;
}

static never_inline bool read_tool(struct registry_snapshot *snapshot, int dir, str folder,
                                   struct error *e)
{
    struct arena *arena = snapshot->arena;
    struct tool tool;
    str text, file = str_printf(arena, STR_FMT "/manifest.yaml", STR_ARG(folder));
    if (!read_file(arena, dir, "manifest.yaml", MANIFEST_BYTES_MAX, &text, e)) {
        if (e->reason == REASON_NOT_FOUND)
            return true; /* a folder of something else */
        return error_wrap(e, STR_FMT ":1", STR_ARG(folder));
    }
    if (!manifest_read(arena, file, text, &tool, e))
        return false;
    if (is_taken(snapshot, &tool))
        return error_set(e, REASON_CONFLICT,
                         STR_FMT ":1: tool " STR_FMT " " STR_FMT " is there already", STR_ARG(file),
                         STR_ARG(tool.name), STR_ARG(tool.version));
    if (!digest_file(dir, tool.module_path, &tool.module_digest, e))
        return error_wrap(e, STR_FMT ":1", STR_ARG(file));
    tool.module_path =
        str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(tool.module_path));
    const struct permissions *configured = find_configured(snapshot->configuration, tool.name);
    if (configured)
        tool.permissions = permissions_intersect(arena, &tool.permissions, configured);
    tool.identity = tool_identity(&tool);
    if (snapshot->count == REGISTRY_TOOLS_MAX)
        return error_set(e, REASON_LIMIT, STR_FMT ":1: more than %u tools", STR_ARG(file),
                         REGISTRY_TOOLS_MAX);
    snapshot->tools[snapshot->count++] = tool;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return str_compare(*(const str *) a, *(const str *) b);
}

static int by_name_newest_first(const void *a, const void *b)
{
    const struct tool *x = a, *y = b;
    int order = str_compare(x->name, y->name);
    return order != 0 ? order : semver_compare(y->version, x->version);
}

/* Names of the folders, sorted, so that two starts see the same tools and errors in the same order.
   */
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

static void configuration_release(struct configuration *configuration)
{
    if (atomic_fetch_sub(&configuration->references, 1) != 1)
        return;
    arena_destroy(configuration->arena);
    free(configuration);
}

static void snapshot_destroy(struct registry_snapshot *snapshot)
{
    configuration_release(snapshot->configuration);
    arena_destroy(snapshot->arena);
    free(snapshot);
}

static bool snapshot_read(const struct registry *registry, struct configuration *configuration,
                          struct registry_snapshot **out, struct error *e)
{
    struct registry_snapshot *snapshot = calloc(1, sizeof *snapshot);
    ensure(snapshot != NULL);
    snapshot->configuration = configuration;
    atomic_fetch_add(&configuration->references, 1);
    snapshot->arena = arena_create(256u << 20);
    atomic_init(&snapshot->references, 1);
    snapshot->tools = ARENA_ARRAY(snapshot->arena, struct tool, REGISTRY_TOOLS_MAX);
    snapshot->errors = ARENA_ARRAY(snapshot->arena, str, REGISTRY_ERRORS_MAX);
    str *folders;
    size_t folder_count;
    if (!list_folders(snapshot->arena, registry->tool_dir, &folders, &folder_count, e)) {
        snapshot_destroy(snapshot);
        return false;
    }
    for (size_t i = 0; i < folder_count; i++) {
        struct error broken;
        str folder = str_printf(snapshot->arena, STR_FMT "/" STR_FMT, STR_ARG(registry->tool_dir),
                                STR_ARG(folders[i]));
        int dir = open(str_to_cstr(snapshot->arena, folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            continue; /* a file between the folders */
        if (!read_tool(snapshot, dir, folder, &broken))
            add_error(snapshot, broken.message);
        close(dir);
    }
    qsort(snapshot->tools, snapshot->count, sizeof *snapshot->tools, by_name_newest_first);
    *out = snapshot;
    return true;
}

/* ---- the registry ---- */

static bool read_permissions(struct configuration *configuration,
                             const struct yaml_document *document, const struct json *tools,
                             struct error *e)
{
    if (json_type(tools) != JSON_OBJECT || json_count(tools) > REGISTRY_TOOLS_MAX)
        return yaml_error(document, tools, e, "tools must have the names of tools as members");
    configuration->items =
        ARENA_ARRAY(configuration->arena, struct configured, json_count(tools) + 1);
    str name, key;
    const struct json *tool;
    struct json_iter it = json_iter(tools);
    while (json_next(&it, &name, &tool)) {
        struct configured *configured = &configuration->items[configuration->count];
        const struct json *member;
        struct json_iter members = json_iter(tool);
        while (json_next(&members, &key, &member))
            if (!str_equal(key, S("permissions")))
                return yaml_error(document, member, e,
                                  "unknown member " STR_FMT "; known here: permissions",
                                  STR_ARG(str_cut_utf8(key, 60)));
        member = json_get(tool, S("permissions"));
        if (!member)
            continue;
        if (!permissions_read(configuration->arena, document, member, &configured->permissions, e))
            return false;
        configured->name = str_copy(configuration->arena, name);
        configuration->count++;
    }
    return true;
}

static bool read_configuration(const struct yaml_document *document, struct configuration **out,
                               struct error *e)
{
    struct configuration *configuration = calloc(1, sizeof *configuration);
    ensure(configuration != NULL);
    configuration->arena = arena_create(0);
    atomic_init(&configuration->references, 1);
    const struct json *tools = document ? json_get(document->root, S("tools")) : NULL;
    if (tools && !read_permissions(configuration, document, tools, e)) {
        configuration_release(configuration);
        return false;
    }
    *out = configuration;
    return true;
}

bool registry_create(const struct registry_options *options, struct registry **out, struct error *e)
{
    struct registry *registry = calloc(1, sizeof *registry);
    ensure(registry != NULL);
    pthread_mutex_init(&registry->mutex, NULL);
    registry->arena = arena_create(0);
    registry->tool_dir = str_copy(registry->arena, options->tool_dir);
    if (!registry_reconfigure(registry, options->tool_config, e)) {
        registry_destroy(registry);
        return false;
    }
    *out = registry;
    return true;
}

void registry_destroy(struct registry *registry)
{
    if (!registry)
        return;
    if (registry->current)
        registry_release(registry->current);
    if (registry->configuration)
        configuration_release(registry->configuration);
    pthread_mutex_destroy(&registry->mutex);
    arena_destroy(registry->arena);
    free(registry);
}

static bool load(struct registry *registry, struct configuration *configuration, struct error *e)
{
    struct registry_snapshot *fresh;
    if (!snapshot_read(registry, configuration, &fresh, e))
        return false;
    pthread_mutex_lock(&registry->mutex);
    struct registry_snapshot *old = registry->current;
    registry->current = fresh;
    pthread_mutex_unlock(&registry->mutex);
    if (old)
        registry_release(old);
    return true;
}

bool registry_reload(struct registry *registry, struct error *e)
{
    return load(registry, registry->configuration, e);
}

bool registry_reconfigure(struct registry *registry, const struct yaml_document *tool_config,
                          struct error *e)
{
    struct configuration *fresh;
    if (!read_configuration(tool_config, &fresh, e))
        return false;
    if (!load(registry, fresh, e)) {
        configuration_release(fresh);
        return false;
    }
    if (registry->configuration)
        configuration_release(registry->configuration);
    registry->configuration = fresh;
    return true;
}

const struct registry_snapshot *registry_acquire(struct registry *registry)
{
    pthread_mutex_lock(&registry->mutex);
    struct registry_snapshot *snapshot = registry->current;
    atomic_fetch_add(&snapshot->references, 1);
    pthread_mutex_unlock(&registry->mutex);
    return snapshot;
}

void registry_release(const struct registry_snapshot *snapshot)
{
    struct registry_snapshot *mine =
        (struct registry_snapshot *) (uintptr_t) snapshot; /* only the count changes */
    if (atomic_fetch_sub(&mine->references, 1) == 1)
        snapshot_destroy(mine);
}

size_t registry_count(const struct registry_snapshot *snapshot)
{
    return snapshot->count;
}

const struct tool *registry_at(const struct registry_snapshot *snapshot, size_t index)
{
    return index < snapshot->count ? &snapshot->tools[index] : NULL;
}

const struct tool *registry_find(const struct registry_snapshot *snapshot, str name, str range)
{
    for (size_t i = 0; i < snapshot->count; i++)
        if (str_equal(snapshot->tools[i].name, name) &&
            semver_satisfies(snapshot->tools[i].version, range))
            return &snapshot->tools[i];
    return NULL;
}

size_t registry_error_count(const struct registry_snapshot *snapshot)
{
    return snapshot->error_count;
}

str registry_error_at(const struct registry_snapshot *snapshot, size_t index)
{
    return index < snapshot->error_count ? snapshot->errors[index] : STR_NONE;
}
