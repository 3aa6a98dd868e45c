#include "agent/sandbox/workspace.h"

#include "base/digest.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* All names are opened by one call, from a folder that is open already. */
struct workspace {
    int root;
    bool is_locked;
};

enum { PATH_ROOM = WORKSPACE_PATH_BYTES_MAX + 2, TEMPORARY_ROOM = 40 };

static int open_below(int folder, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t) (flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
        .mode = (flags & O_CREAT) ? 0600 : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    if ((flags & O_PATH) != 0)
        how.flags &= ~(uint64_t) O_NONBLOCK;
    return (int) syscall(SYS_openat2, folder, path, &how, sizeof how);
}

static bool fail(struct error *e, int code, str path)
{
    path = str_cut_utf8(path, 160);
    switch (code) {
    case ENOENT:
        return error_set(e, REASON_NOT_FOUND, "there is no \"" STR_FMT "\" in the workspace",
                         STR_ARG(path));
    case ELOOP:
    case EXDEV:
        return error_set(e, REASON_PERMISSION,
                         "\"" STR_FMT "\" goes through a link or leads out of the workspace",
                         STR_ARG(path));
    case ENOTDIR:
        return error_set(e, REASON_SCHEMA, "a part of \"" STR_FMT "\" is a file, not a folder",
                         STR_ARG(path));
    case EISDIR: return error_set(e, REASON_SCHEMA, "\"" STR_FMT "\" is a folder", STR_ARG(path));
    case ENAMETOOLONG: return error_set(e, REASON_SCHEMA, "a name in the path is too long");
    case ENXIO:
    case ENODEV:
        return error_set(e, REASON_PERMISSION, "\"" STR_FMT "\" is no plain file", STR_ARG(path));
    case ENOTEMPTY:
    case EEXIST:
        return error_set(e, REASON_CONFLICT,
                         "the folder \"" STR_FMT "\" is not empty: delete what is in it first",
                         STR_ARG(path));
    case ENOSYS:
    case EPERM:
        return error_set(e, REASON_UNAVAILABLE,
                         "this node cannot keep files beneath a root: its kernel or seccomp "
                         "profile has no openat2 (Linux 5.6)");
    case ENOSPC:
    case EDQUOT: return error_set(e, REASON_DISK_FULL, "the disk is full");
    default: return error_set(e, REASON_STORE, "workspace file: %s", strerror(code));
    }
}

/* The path with an end; never longer than workspace_path lets through. */
static bool terminated(str path, char out[static PATH_ROOM], struct error *e)
{
    if (path.len >= PATH_ROOM || (path.len > 0 && memchr(path.ptr, 0, path.len)))
        return error_set(e, REASON_SCHEMA, "the path is too long or holds a zero byte");
    if (path.len > 0)
        memcpy(out, path.ptr, path.len);
    out[path.len] = 0;
    return true;
}

/* ---- opening ---- */

/* data_dir/workspaces, made when it is not there. */
static int open_base(str data_dir, bool is_made)
{
    OWNED(arena) arena = arena_create(0);
    char *path = str_to_cstr(arena, str_printf(arena, STR_FMT "/workspaces", STR_ARG(data_dir)));
    if (is_made && mkdir(path, 0700) != 0 && errno != EEXIST)
        return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

/* Opens a folder below another; makes what is missing of it. */
static int open_folder(int from, const char *path, bool is_made)
{
    int fd = open_below(from, path, O_RDONLY | O_DIRECTORY);
    if (fd >= 0 || !is_made || errno != ENOENT)
        return fd;
    char part[PATH_ROOM];
    int at = fcntl(from, F_DUPFD_CLOEXEC, 0);
    for (const char *name = path; at >= 0 && *name;) {
        size_t length = strcspn(name, "/");
        memcpy(part, name, length);
        part[length] = 0;
        int next = -1;
        if (mkdirat(at, part, 0700) == 0 || errno == EEXIST)
            next = open_below(at, part, O_RDONLY | O_DIRECTORY);
        int code = errno;
        close(at);
        errno = code;
        at = next;
        name += length + (name[length] == '/');
    }
    return at;
}

bool workspace_open(str data_dir, str folder, bool is_made, struct workspace **out, struct error *e)
{
    char path[PATH_ROOM];
    if (!terminated(folder, path, e))
        return false;
    int base = open_base(data_dir, is_made);
    int root = base >= 0 ? open_folder(base, path, is_made) : -1;
    int code = errno;
    if (base >= 0)
        close(base);
    if (root < 0)
        return code == ENOENT ? error_set(e, REASON_NOT_FOUND, "the workspace is empty")
                              : fail(e, code, S("."));
    struct workspace *workspace = calloc(1, sizeof *workspace);
    ensure(workspace != NULL);
    workspace->root = root;
    *out = workspace;
    return true;
}

void workspace_close(struct workspace *workspace)
{
    if (!workspace)
        return;
    close(workspace->root); /* the lock goes with it */
    free(workspace);
}

bool workspace_lock(struct workspace *workspace, bool *is_locked, struct error *e)
{
    struct stat at;
    *is_locked = workspace->is_locked;
    if (*is_locked)
        return true;
    if (flock(workspace->root, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK || errno == EINTR || fail(e, errno, S("."));
    if (fstat(workspace->root, &at) != 0 || at.st_nlink == 0)
        return error_set(e, REASON_CONFLICT, "the workspace was just removed: its session ended");
    *is_locked = workspace->is_locked = true;
    return true;
}

/* The folder above a path, and the path's last name in `path`. */
static int open_parent(struct workspace *workspace, char *path, char **name, bool is_made)
{
    char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash)
        return open_below(workspace->root, ".", O_RDONLY | O_DIRECTORY);
    *slash = 0;
    int fd = open_folder(workspace->root, path, is_made);
    *slash = '/';
    return fd;
}

/* ---- looking ---- */

static int64_t modified_us(const struct stat *at)
{
    return (int64_t) at->st_mtim.tv_sec * 1000000 + at->st_mtim.tv_nsec / 1000;
}

/* A second name of the same file may lie anywhere: what is written or read through it is not only the workspace's. */
static bool is_plain(const struct stat *at, str path, struct error *e)
{
    if (S_ISDIR(at->st_mode))
        return fail(e, EISDIR, path);
    if (S_ISLNK(at->st_mode))
        return fail(e, ELOOP, path);
    if (!S_ISREG(at->st_mode))
        return fail(e, ENXIO, path);
    return at->st_nlink == 1 ||
           error_set(e, REASON_PERMISSION,
                     "\"" STR_FMT "\" is a hard link: another name shares its bytes",
                     STR_ARG(str_cut_utf8(path, 160)));
}

/* Looks through a descriptor that opens nothing, so that a pipe or device is not woken. */
static bool stat_path(struct workspace *workspace, const char *name, str path, struct stat *out,
                      struct error *e)
{
    int fd = open_below(workspace->root, *name ? name : ".", O_PATH);
    if (fd < 0)
        return fail(e, errno, path);
    int failed = fstat(fd, out);
    int code = errno;
    close(fd);
    if (failed)
        return fail(e, code, path);
    return !S_ISLNK(out->st_mode) || fail(e, ELOOP, path);
}

bool workspace_stat(struct workspace *workspace, str path, struct workspace_entry *out,
                    struct error *e)
{
    char name[PATH_ROOM];
    struct stat at;
    if (!terminated(path, name, e) || !stat_path(workspace, name, path, &at, e) ||
        (!S_ISDIR(at.st_mode) && !is_plain(&at, path, e)))
        return false;
    *out = (struct workspace_entry){.path = path,
                                    .is_folder = S_ISDIR(at.st_mode),
                                    .bytes = S_ISDIR(at.st_mode) ? 0 : at.st_size,
                                    .modified_us = modified_us(&at)};
    return true;
}

bool workspace_open_file(struct workspace *workspace, str path, int *fd, int64_t *bytes,
                         struct error *e)
{
    char name[PATH_ROOM];
    struct stat at;
    if (!terminated(path, name, e) || !stat_path(workspace, name, path, &at, e) ||
        !is_plain(&at, path, e))
        return false;
    int file = open_below(workspace->root, *name ? name : ".", O_RDONLY | O_NOCTTY);
    if (file < 0)
        return fail(e, errno, path);
    bool is_fine =
        fstat(file, &at) == 0 ? is_plain(&at, path, e) : fail(e, errno, path); /* what was opened */
    if (!is_fine) {
        close(file);
        return false;
    }
    *fd = file;
    *bytes = at.st_size;
    return true;
}

static bool read_all(int fd, struct arena *arena, size_t bytes, str *out)
{
    char *text = arena_alloc_raw(arena, bytes + 1);
    size_t got = 0;
    while (got < bytes) {
        ssize_t count = read(fd, text + got, bytes - got);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        if (count == 0)
            break;
        got += (size_t) count;
    }
    *out = str_of(text, got);
    return true;
}

bool workspace_read(struct workspace *workspace, struct arena *arena, str path, size_t bytes_max,
                    str *out, struct error *e)
{
    int fd;
    int64_t bytes;
    if (!workspace_open_file(workspace, path, &fd, &bytes, e))
        return false;
    bool ok = bytes <= (int64_t) bytes_max
                  ? read_all(fd, arena, (size_t) bytes, out) || fail(e, errno, path)
                  : error_set(e, REASON_TOO_LARGE,
                              "\"" STR_FMT "\" has %lld bytes, more than the %zu that may be read",
                              STR_ARG(str_cut_utf8(path, 120)), (long long) bytes, bytes_max);
    close(fd);
    return ok;
}

/* ---- walking ---- */

struct walk {
    struct arena *arena;
    workspace_visit *visit;
    void *owner;
    bool is_deep, is_over, is_cut;
    size_t left; /* entries that may still be looked at */
};

struct names {
    char **items;
    size_t count;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The names in a folder, ours left out, in order. */
static bool read_names(int fd, struct walk *walk, struct names *out)
{
    int copy = open_below(fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *folder = copy >= 0 ? fdopendir(copy) : NULL;
    size_t room = 0;
    if (!folder) {
        if (copy >= 0)
            close(copy);
        return false;
    }
    for (struct dirent *item; (item = readdir(folder));) {
        str name = str_from_cstr(item->d_name);
        if (str_equal(name, S(".")) || str_equal(name, S("..")) ||
            str_starts_with(name, S(WORKSPACE_TEMPORARY)) || !str_is_utf8(name))
            continue;
        if (walk->left == 0) {
            walk->is_cut = true;
            break;
        }
        walk->left--;
        if (out->count == room) {
            size_t more = room ? room * 2 : 32;
            out->items = arena_grow(walk->arena, out->items, room * sizeof *out->items,
                                    more * sizeof *out->items);
            room = more;
        }
        out->items[out->count++] = str_to_cstr(walk->arena, name);
    }
    closedir(folder);
    if (out->count > 0)
        qsort(out->items, out->count, sizeof *out->items, by_name);
    return true;
}

static bool walk_folder(struct walk *walk, int fd, str path, size_t depth);

static bool walk_entry(struct walk *walk, int fd, const char *name, str path, size_t depth)
{
    struct stat at;
    if (fstatat(fd, name, &at, AT_SYMLINK_NOFOLLOW) != 0)
        return true; /* gone meanwhile */
    bool is_folder = S_ISDIR(at.st_mode);
    if (!is_folder && (!S_ISREG(at.st_mode) || at.st_nlink != 1))
        return true;
    str whole = str_is_empty(path) ? str_from_cstr(name)
                                   : str_printf(walk->arena, STR_FMT "/%s", STR_ARG(path), name);
    struct workspace_entry entry = {.path = whole,
                                    .is_folder = is_folder,
                                    .bytes = is_folder ? 0 : at.st_size,
                                    .modified_us = modified_us(&at)};
    if (!walk->visit(walk->owner, &entry)) {
        walk->is_over = true;
        return true;
    }
    if (!is_folder || !walk->is_deep || depth == 0)
        return true;
    int below = open_below(fd, name, O_RDONLY | O_DIRECTORY);
    if (below < 0)
        return true; /* it became something else meanwhile */
    bool ok = walk_folder(walk, below, whole, depth - 1);
    close(below);
    return ok;
}

static bool walk_folder(struct walk *walk, int fd, str path, size_t depth)
{
    struct names names = {0};
    if (!read_names(fd, walk, &names))
        return false;
    for (size_t i = 0; i < names.count && !walk->is_over; i++)
        if (!walk_entry(walk, fd, names.items[i], path, depth))
            return false;
    return true;
}

bool workspace_walk(struct workspace *workspace, struct arena *arena, str path, bool is_deep,
                    workspace_visit *visit, void *owner, bool *is_cut, struct error *e)
{
    char name[PATH_ROOM];
    struct walk walk = {.arena = arena,
                        .visit = visit,
                        .owner = owner,
                        .is_deep = is_deep,
                        .left = WORKSPACE_WALK_MAX};
    struct stat at; /* tells a link from a file; what is opened is checked by itself */
    if (!terminated(path, name, e) || !stat_path(workspace, name, path, &at, e))
        return false;
    int fd = open_below(workspace->root, *name ? name : ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fail(e, errno, path);
    bool ok = walk_folder(&walk, fd, path, WORKSPACE_DEPTH_MAX) || fail(e, errno, path);
    close(fd);
    *is_cut = walk.is_cut;
    return ok;
}

/* ---- writing ---- */

struct sum {
    str path; /* of the file that is replaced */
    int64_t bytes;
    size_t entries;
    bool is_replaced;
};

static bool add_to_sum(void *owner, const struct workspace_entry *entry)
{
    struct sum *sum = owner;
    if (!entry->is_folder && str_equal(entry->path, sum->path))
        sum->is_replaced = true;
    else
        sum->bytes += entry->bytes;
    sum->entries++;
    return true;
}

/* New names that a write makes: the file and the folders above it that are not there.  `path` is cut meanwhile. */
static size_t count_new(struct workspace *workspace, char *path, const struct sum *sum)
{
    size_t count = sum->is_replaced ? 0 : 1;
    for (char *slash = path; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        int fd = open_below(workspace->root, path, O_PATH);
        *slash = '/';
        if (fd >= 0)
            close(fd);
        else
            count++;
    }
    return count;
}

static bool check_quota(struct workspace *workspace, const struct workspace_limits *limits,
                        char *path, size_t bytes, struct error *e)
{
    OWNED(arena) arena = arena_create(16u << 20);
    struct sum sum = {.path = str_from_cstr(path)};
    bool is_cut;
    if (!workspace_walk(workspace, arena, STR_NONE, true, add_to_sum, &sum, &is_cut, e))
        return false;
    size_t more = count_new(workspace, path, &sum);
    if (is_cut || (more > 0 && sum.entries + more > limits->entries_max))
        return error_set(e, REASON_QUOTA,
                         "the workspace holds %zu files and folders, of %zu at most: delete some",
                         sum.entries, limits->entries_max);
    if (sum.bytes + (int64_t) bytes > limits->bytes_max)
        return error_set(
            e, REASON_QUOTA,
            "the workspace's quota of %lld bytes leaves %lld: delete files or write "
            "less",
            (long long) limits->bytes_max,
            (long long) (sum.bytes < limits->bytes_max ? limits->bytes_max - sum.bytes : 0));
    return true;
}

/* What a crash left beside the target. */
static void remove_stale(int folder)
{
    int copy = open_below(folder, ".", O_RDONLY | O_DIRECTORY);
    DIR *items = copy >= 0 ? fdopendir(copy) : NULL;
    if (!items) {
        if (copy >= 0)
            close(copy);
        return;
    }
    int64_t oldest_s = (int64_t) time(NULL) - WORKSPACE_TEMPORARY_MS / 1000;
    for (struct dirent *item; (item = readdir(items));) {
        struct stat at;
        if (str_starts_with(str_from_cstr(item->d_name), S(WORKSPACE_TEMPORARY)) &&
            fstatat(folder, item->d_name, &at, AT_SYMLINK_NOFOLLOW) == 0 &&
            at.st_mtim.tv_sec < oldest_s)
            (void) unlinkat(folder, item->d_name, 0);
    }
    closedir(items);
}

static bool write_whole(int fd, str bytes)
{
    if (FAULT("workspace.write")) {
        errno = ENOSPC;
        return false;
    }
    while (bytes.len > 0) {
        ssize_t written = write(fd, bytes.ptr, bytes.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        bytes = str_from(bytes, (size_t) written);
    }
    return fsync(fd) == 0;
}

/* Beside the target, then over it.  errno tells. */
static bool replace(int folder, const char *name, str bytes)
{
    char temporary[TEMPORARY_ROOM];
    uint64_t number;
    digest_random_bytes(&number, sizeof number);
    snprintf(temporary, sizeof temporary, WORKSPACE_TEMPORARY "%016llx",
             (unsigned long long) number);
    int fd = open_below(folder, temporary, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0)
        return false;
    bool ok = write_whole(fd, bytes) && renameat(folder, temporary, folder, name) == 0;
    int code = errno;
    close(fd);
    if (!ok)
        (void) unlinkat(folder, temporary, 0);
    errno = code;
    return ok && fsync(folder) == 0;
}

static bool check_target(struct workspace *workspace, const char *name, str path, struct error *e)
{
    struct stat at;
    struct error missing = {0};
    if (stat_path(workspace, name, path, &at, &missing))
        return is_plain(&at, path, e);
    if (missing.code == ERROR_NOT_FOUND)
        return true;
    *e = missing;
    return false;
}

bool workspace_write(struct workspace *workspace, const struct workspace_limits *limits, str path,
                     str bytes, struct error *e)
{
    char whole[PATH_ROOM], *name;
    ensure(workspace->is_locked);
    if (str_is_empty(path))
        return fail(e, EISDIR, S(WORKSPACE_ROOT));
    if (!terminated(path, whole, e) || !check_target(workspace, whole, path, e) ||
        !check_quota(workspace, limits, whole, bytes.len, e))
        return false;
    int folder = open_parent(workspace, whole, &name, true);
    if (folder < 0)
        return fail(e, errno, path);
    remove_stale(folder);
    bool ok = replace(folder, name, bytes);
    int code = errno;
    close(folder);
    return ok || fail(e, code, path);
}

bool workspace_remove(struct workspace *workspace, str path, struct error *e)
{
    char whole[PATH_ROOM], *name;
    struct stat at;
    ensure(workspace->is_locked);
    if (str_is_empty(path))
        return error_set(e, REASON_PERMISSION, "the workspace itself cannot be deleted");
    if (!terminated(path, whole, e) || !stat_path(workspace, whole, path, &at, e) ||
        (!S_ISDIR(at.st_mode) && !is_plain(&at, path, e)))
        return false;
    int folder = open_parent(workspace, whole, &name, false);
    if (folder < 0)
        return fail(e, errno, path);
    bool ok =
        unlinkat(folder, name, S_ISDIR(at.st_mode) ? AT_REMOVEDIR : 0) == 0 && fsync(folder) == 0;
    int code = errno;
    close(folder);
    return ok || fail(e, code, path);
}

/* ---- whole workspaces ---- */

/* Empties a folder.  False when entries are left; links are removed, never followed. */
static bool empty_folder(int fd, size_t *left, size_t depth)
{
    int copy = open_below(fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *items = copy >= 0 ? fdopendir(copy) : NULL;
    if (!items) {
        if (copy >= 0)
            close(copy);
        return false;
    }
    bool is_empty = true;
    for (struct dirent *item; (item = readdir(items));) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (*left == 0) {
            is_empty = false;
            break;
        }
        (*left)--;
        if (unlinkat(fd, item->d_name, 0) == 0)
            continue;
        int below = depth > 0 ? open_below(fd, item->d_name, O_RDONLY | O_DIRECTORY) : -1;
        bool is_gone = below >= 0 && empty_folder(below, left, depth - 1) &&
                       unlinkat(fd, item->d_name, AT_REMOVEDIR) == 0;
        if (below >= 0)
            close(below);
        is_empty &= is_gone;
    }
    closedir(items);
    return is_empty;
}

bool workspace_erase(str data_dir, str folder, size_t limit, bool *is_done, struct error *e)
{
    char path[PATH_ROOM];
    if (!terminated(folder, path, e))
        return false;
    *is_done = true;
    int base = open_base(data_dir, false);
    if (base < 0)
        return errno == ENOENT || fail(e, errno, S("."));
    int root = open_below(base, path, O_RDONLY | O_DIRECTORY);
    int code = root < 0 ? errno : 0;
    if (root >= 0) {
        /* A writer that still holds it ends first; the next sweep comes again. */
        *is_done = flock(root, LOCK_EX | LOCK_NB) == 0 &&
                   empty_folder(root, &limit, WORKSPACE_DEPTH_MAX * 2) &&
                   unlinkat(base, path, AT_REMOVEDIR) == 0;
        close(root);
    }
    close(base);
    return code == 0 || code == ENOENT || fail(e, code, S("."));
}

/* Adds the workspaces of one tenant. */
static void list_tenant(struct walk *walk, int base, const char *tenant, str after, size_t max,
                        str *out, size_t *count)
{
    struct names sessions = {0};
    int fd = open_below(base, tenant, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return;
    if (read_names(fd, walk, &sessions))
        for (size_t i = 0; i < sessions.count && *count < max; i++) {
            str folder = str_printf(walk->arena, "%s/%s", tenant, sessions.items[i]);
            if (str_compare(folder, after) > 0)
                out[(*count)++] = folder;
        }
    close(fd);
}

bool workspace_list(str data_dir, struct arena *arena, str after, size_t max, str *out,
                    size_t *count, struct error *e)
{
    struct walk walk = {.arena = arena, .left = SIZE_MAX};
    struct names tenants = {0};
    str first, rest;
    *count = 0;
    int base = open_base(data_dir, false);
    if (base < 0)
        return errno == ENOENT || fail(e, errno, S("."));
    bool ok = read_names(base, &walk, &tenants) || fail(e, errno, S("."));
    str_cut(after, '/', &first, &rest);
    for (size_t i = 0; ok && i < tenants.count && *count < max; i++)
        if (str_compare(str_from_cstr(tenants.items[i]), first) >= 0)
            list_tenant(&walk, base, tenants.items[i], after, max, out, count);
    close(base);
    return ok;
}
