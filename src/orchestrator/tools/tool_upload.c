/*
 * A package on its way to a tool.
 *
 *   .incoming/<id>.tar   the bytes as they come
 *   .incoming/<id>/      its files, read back, verified and compiled (blocking pool)
 *   <owner>/<name>/<version>/   by rename, alone among all changes; then the row
 */
#include "orchestrator/tools/tool_admin_internal.h"

#include "agent/tool/package.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORK_BYTES_MAX = 64 << 20 };

struct tool_upload {
    struct orchestrator *o;
    struct arena *arena;
    struct principal principal;
    uuid tenant_id;
    bool is_platform;
    char *archive; /* path */
    char *folder;  /* path of the files before they are installed */
    int fd;
    int64_t bytes;
    /* while it is written */
    str piece;
    /* after it was read */
    struct tool tool;
    digest seal;
    str signer;
    bool is_ok;
    struct error error;
};

static bool failed(struct error *e, const char *what)
{
    return error_set(e, errno == ENOSPC || errno == EDQUOT ? REASON_DISK_FULL : REASON_STORE,
                     "%s: %s", what, strerrordesc_np(errno));
}

/* Makes the folders above the last part. */
static bool make_folders(char *path)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!ok)
            return false;
    }
    return true;
}

/* ---- the bytes ---- */

static void open_on_pool(void *argument)
{
    struct tool_upload *u = argument;
    u->is_ok = make_folders(u->archive);
    if (u->is_ok) {
        u->fd = open(u->archive, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        u->is_ok = u->fd >= 0;
    }
    if (!u->is_ok)
        failed(&u->error, "make a file for the package");
}

static void write_on_pool(void *argument)
{
    struct tool_upload *u = argument;
    for (str rest = u->piece; rest.len > 0;) {
        ssize_t written = write(u->fd, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            u->is_ok = failed(&u->error, "write the package");
            return;
        }
        rest = str_from(rest, (size_t) written);
    }
}

static bool on_pool(struct tool_upload *u, struct context *ctx, void (*fn)(void *argument),
                    struct error *e)
{
    u->is_ok = true;
    return blocking_call(ctx, fn, u, e) && (u->is_ok || error_copy(e, &u->error));
}

bool tool_upload_begin(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, bool is_platform,
                       struct tool_upload **out, struct error *e)
{
    uuid tenant_id, id = uuid_new(o->parts.clock, o->parts.random);
    if (!tool_admin_tenant(principal, is_platform, &tenant_id, e))
        return false;
    struct tool_upload *u = calloc(1, sizeof *u);
    ensure(u != NULL);
    u->arena = arena_create(WORK_BYTES_MAX);
    u->o = o;
    u->principal = *principal;
    u->tenant_id = tenant_id;
    u->is_platform = is_platform;
    u->fd = -1;
    str name = str_printf(u->arena, ".incoming/" STR_FMT, STR_ARG(uuid_str(u->arena, id)));
    str path = tool_admin_path(u->arena, o, name);
    u->folder = str_to_cstr(u->arena, path);
    u->archive = str_to_cstr(u->arena, str_printf(u->arena, STR_FMT ".tar", STR_ARG(path)));
    if (!on_pool(u, ctx, open_on_pool, e)) {
        tool_upload_abort(u);
        return false;
    }
    *out = u;
    return true;
}

bool tool_upload_write(struct tool_upload *u, struct context *ctx, str bytes, struct error *e)
{
    if (u->bytes + (int64_t) bytes.len > (int64_t) PACKAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a package is at most %u MiB",
                         PACKAGE_BYTES_MAX >> 20);
    u->piece = bytes;
    u->bytes += (int64_t) bytes.len;
    return on_pool(u, ctx, write_on_pool, e);
}

/* The few files of an upload: on whatever thread gives it up. */
void tool_upload_abort(struct tool_upload *u)
{
    if (!u)
        return;
    if (u->fd >= 0)
        close(u->fd);
    (void) unlink(u->archive);
    tool_admin_remove_folder(u->folder);
    arena_destroy(u->arena);
    free(u);
}

/* ---- its files ---- */

static bool write_file(int dir, const struct package_file *file, struct error *e)
{
    char name[PACKAGE_NAME_BYTES_MAX + 1] = {0};
    memcpy(name, file->name.ptr, file->name.len);
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return failed(e, name);
    bool is_ok = true;
    for (str rest = file->bytes; is_ok && rest.len > 0;) {
        ssize_t written = write(fd, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR)
            continue;
        is_ok = written >= 0;
        rest = str_from(rest, is_ok ? (size_t) written : 0);
    }
    is_ok = is_ok && fsync(fd) == 0;
    if (!is_ok)
        failed(e, name);
    close(fd);
    return is_ok;
}

static bool write_files(const char *folder, const struct package *package, struct error *e)
{
    if (mkdir(folder, 0700) != 0)
        return failed(e, "make a folder for the package");
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return failed(e, "make a folder for the package");
    bool is_ok = true;
    for (size_t i = 0; i < package->count && is_ok; i++)
        is_ok = write_file(dir, &package->files[i], e);
    if (is_ok && fsync(dir) != 0)
        is_ok = failed(e, "store the package");
    close(dir);
    return is_ok;
}

static bool unpack(struct tool_upload *u, str archive)
{
    struct package *package = ARENA_NEW(u->arena, struct package);
    const struct package_file *manifest, *signature;
    struct error *e = &u->error;
    if (!package_read(archive, package, e) || !package_tool(u->arena, package, &u->tool, e)) {
        if (e->reason == REASON_CONFIG) /* a manifest's complaint: not about our configuration */
            e->reason = REASON_INVALID;
        return false;
    }
    manifest = package_find(package, PACKAGE_MANIFEST);
    signature = package_find(package, PACKAGE_SIGNATURE);
    u->seal = package_seal(&u->tool, digest_sha256(manifest->bytes));
    return registry_check_signature(u->o->parts.registry, u->arena,
                                    signature ? signature->bytes : STR_NONE, u->seal, &u->signer,
                                    e) &&
           write_files(u->folder, package, e);
}

/* What lies on the disk is what is compiled: read back, and equal to what came. */
static bool read_back(struct tool_upload *u)
{
    struct error *e = &u->error;
    digest seal;
    if (!registry_read_package(u->arena, str_from_cstr(u->folder), &u->tool, &seal, e))
        return false;
    if (!digest_equal(seal, u->seal))
        return error_set(e, REASON_CORRUPT, "the package was not stored as it came");
    const struct orchestrator_parts *parts = &u->o->parts;
    if (!parts->prepare_tool || parts->prepare_tool(parts->prepare_owner, &u->tool, e))
        return true;
    enum error_reason why = e->code == ERROR_LIMIT ? e->reason : REASON_INVALID;
    if (e->code != ERROR_UNAVAILABLE && e->code != ERROR_TIMEOUT)
        e->reason = why;
    e->code = error_reason_code(e->reason);
    return error_wrap(e, "tool " STR_FMT " " STR_FMT, STR_ARG(u->tool.name),
                      STR_ARG(u->tool.version));
}

static void unpack_on_pool(void *argument)
{
    struct tool_upload *u = argument;
    void *map =
        u->bytes > 0 ? mmap(NULL, (size_t) u->bytes, PROT_READ, MAP_PRIVATE, u->fd, 0) : MAP_FAILED;
    if (map == MAP_FAILED) {
        u->is_ok = error_set(&u->error, REASON_INVALID, "the package is empty");
        return;
    }
    u->is_ok = unpack(u, str_of(map, (size_t) u->bytes));
    munmap(map, (size_t) u->bytes);
    u->is_ok = u->is_ok && read_back(u);
}

/* ---- its place ---- */

struct install {
    struct tool_upload *u;
    struct tool_installed *out;
    str relative;
    char *path, *old;
    struct registry_package package;
    bool is_ok;
    struct error error;
};

static void move_on_pool(void *argument)
{
    struct install *i = argument;
    i->is_ok = make_folders(i->path);
    if (i->is_ok && rename(i->u->folder, i->path) != 0) {
        /* Of a removal, or of a crash: nobody can have it any more but a call in flight. */
        i->is_ok = (errno == EEXIST || errno == ENOTEMPTY) && rename(i->path, i->old) == 0 &&
                   rename(i->u->folder, i->path) == 0;
    }
    if (!i->is_ok)
        failed(&i->error, "store the package");
}

static void add_on_pool(void *argument)
{
    struct install *i = argument;
    i->is_ok = registry_add_packages(i->u->o->parts.registry, &i->package, 1, &i->error);
}

static bool pool(struct install *i, struct context *ctx, void (*fn)(void *argument),
                 struct error *e)
{
    return blocking_call(ctx, fn, i, e) && (i->is_ok || error_copy(e, &i->error));
}

/* The platform's names are taken for those who see them; a version is there once. */
static bool check_names(const struct tool_upload *u, struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(u->o->parts.registry);
    bool is_taken = false, is_same = false;
    size_t own = 0;
    for (size_t i = 0; i < registry_count(tools); i++) {
        const struct tool *tool = registry_at(tools, i);
        bool is_platforms = uuid_is_none(tool->tenant_id);
        own += uuid_equal(tool->tenant_id, u->tenant_id) && tool->source == TOOL_INSTALLED;
        if (!str_equal(tool->name, u->tool.name))
            continue;
        is_taken = is_taken ||
                   (!u->is_platform && is_platforms && registry_shows(tools, tool, u->tenant_id));
        is_same = is_same || (uuid_equal(tool->tenant_id, u->tenant_id) &&
                              semver_compare(tool->version, u->tool.version) == 0);
    }
    registry_release(tools);
    if (is_taken)
        return error_set(e, REASON_CONFLICT,
                         "the platform has a tool \"" STR_FMT "\"; give yours another name",
                         STR_ARG(u->tool.name));
    if (is_same)
        return error_set(e, REASON_CONFLICT,
                         "tool \"" STR_FMT "\" " STR_FMT
                         " is there already with other content; versions do not change: count up",
                         STR_ARG(u->tool.name), STR_ARG(u->tool.version));
    return own < PACKAGES_PER_TENANT_MAX ||
           error_set(e, REASON_QUOTA, "%zu tools are installed: remove some", own);
}

/* The very same package is there: nothing to do. */
static bool is_there(struct orchestrator *o, struct context *ctx, const struct install *i)
{
    const struct tool_upload *u = i->u;
    struct record *key = ARENA_NEW(ctx->arena, struct record),
                  *row = ARENA_NEW(ctx->arena, struct record);
    struct error missing;
    *key = record_of(TABLE_TOOL_PACKAGES);
    record_set_text(key, TOOL_PACKAGES_NAME, u->tool.name);
    record_set_text(key, TOOL_PACKAGES_VERSION, u->tool.version);
    return store_get(o->parts.store, ctx, u->tenant_id, key, row, &missing) &&
           str_equal(record_text(row, TOOL_PACKAGES_SEAL), i->out->seal);
}

static bool commit_row(struct orchestrator *o, struct context *ctx, struct install *i,
                       struct error *e)
{
    struct tool_upload *u = i->u;
    struct batch batch, own;
    batch_init(&batch, ctx->arena, u->tenant_id);
    batch_init(&own, ctx->arena, u->principal.tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_TOOL_PACKAGES);
    record_set_text(row, TOOL_PACKAGES_NAME, u->tool.name);
    record_set_text(row, TOOL_PACKAGES_VERSION, u->tool.version);
    record_set_text(row, TOOL_PACKAGES_SEAL, i->out->seal);
    record_set_text(row, TOOL_PACKAGES_FOLDER, i->relative);
    record_set_integer(row, TOOL_PACKAGES_BYTES, u->bytes);
    record_set_text(row, TOOL_PACKAGES_INSTALLED_BY, u->principal.user_id);
    record_set_integer(row, TOOL_PACKAGES_CREATED_AT, clock_unix_us(o->parts.clock));
    i->package = tool_admin_package(ctx->arena, o, u->tenant_id, row);
    tool_admin_audit(u->is_platform ? &own : &batch, o, &u->principal, "tool.install", u->tool.name,
                     u->tool.version, u->is_platform);
    return store_commit(o->parts.store, ctx, &batch, e) &&
           (!u->is_platform || store_commit(o->parts.store, ctx, &own, e));
}

static bool install_alone(struct orchestrator *o, struct context *ctx, void *argument,
                          struct error *e)
{
    struct install *i = argument;
    struct tool_upload *u = i->u;
    struct arena *arena = ctx->arena;
    i->out->name = str_copy(arena, u->tool.name);
    i->out->version = str_copy(arena, u->tool.version);
    i->out->signer = str_copy(arena, u->signer);
    i->out->seal = digest_hex(arena, u->seal);
    if (is_there(o, ctx, i))
        return true;
    if (!check_names(u, e))
        return false;
    str owner = u->is_platform ? S("platform") : uuid_str(arena, u->tenant_id);
    i->relative = str_printf(arena, STR_FMT "/" STR_FMT "/" STR_FMT, STR_ARG(owner),
                             STR_ARG(u->tool.name), STR_ARG(u->tool.version));
    i->path = str_to_cstr(arena, tool_admin_path(arena, o, i->relative));
    i->old = str_to_cstr(arena, str_printf(arena, "%s.old", u->folder));
    i->out->is_new = true;
    /* From the row on it is installed; a registry that cannot take it now will at the next start. */
    return pool(i, ctx, move_on_pool, e) && commit_row(o, ctx, i, e) &&
           pool(i, ctx, add_on_pool, e);
}

bool tool_upload_finish(struct tool_upload *u, struct context *ctx, struct tool_installed *out,
                        struct error *e)
{
    struct install *install = ARENA_NEW(ctx->arena, struct install);
    *out = (struct tool_installed){0};
    *install = (struct install){.u = u, .out = out};
    struct context patient;
    context_init_child(&patient, ctx, context_deadline_in(ctx, PACKAGE_PREPARE_MS));
    bool is_ok = on_pool(u, &patient, unpack_on_pool, e) &&
                 tool_admin_alone(u->o, ctx, install_alone, install, e);
    context_deinit(&patient);
    tool_upload_abort(u);
    return is_ok;
}
