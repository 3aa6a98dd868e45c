#include "cli/shipped.h"

#include "base/arena.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool shipped_find(struct arena *arena, const char *folder, const char *setting, str *out,
                  struct error *e)
{
    static const char *const places[] = {"", "../", "../../", "../share/nexus/"};
    char *program = arena_alloc(arena, PATH_MAX + 1);
    ssize_t len = readlink("/proc/self/exe", program, PATH_MAX);
    str home = str_of(program, len > 0 ? (size_t) len : 0);
    while (home.len > 0 && home.ptr[home.len - 1] != '/')
        home.len--;
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        str path = str_printf(arena, STR_FMT "%s%s", STR_ARG(home), places[i], folder);
        char *resolved = arena_alloc(arena, PATH_MAX + 1);
        if (!is_folder(str_to_cstr(arena, path)) || !realpath(str_to_cstr(arena, path), resolved))
            continue;
        *out = str_from_cstr(resolved);
        return true;
    }
    return error_set(e, REASON_CONFIG,
                     "no folder %s beside the program in " STR_FMT " nor in ../share/nexus; set %s",
                     folder, STR_ARG(home), setting);
}

bool folder_make(str path, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    char *text = str_to_cstr(arena, path);
    for (size_t i = 1; i <= path.len; i++) {
        if (i < path.len && text[i] != '/')
            continue;
        text[i] = '\0';
        if (mkdir(text, 0700) != 0 && errno != EEXIST)
            return error_set(e, errno == ENOSPC ? REASON_DISK_FULL : REASON_CONFIG,
                             "data folder %s: %s; name another with --data or data_dir", text,
                             strerrordesc_np(errno));
        if (i < path.len)
            text[i] = '/';
    }
    if (!is_folder(text))
        return error_set(e, REASON_CONFIG,
                         "data folder %s is no folder; name another with --data or data_dir", text);
    return true;
}

/* Ours alone, and we can write there: a service's account may have a home that is not. */
static bool is_own_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
           (status.st_mode & 022) == 0 && access(path, W_OK | X_OK) == 0;
}

bool folder_for_cache(struct arena *arena, str cache_dir, str data_dir, str *out, struct error *e)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct error ignored;
    *out = cache_dir;
    if (!str_is_empty(cache_dir))
        return folder_make(cache_dir, e);
    str folder = cache && cache[0] == '/' ? str_printf(arena, "%s/nexus", cache)
                 : home && home[0] == '/' ? str_printf(arena, "%s/.cache/nexus", home)
                                          : STR_NONE;
    *out = folder;
    if (!str_is_empty(folder) && folder_make(folder, &ignored) &&
        is_own_folder(str_to_cstr(arena, folder)))
        return true;
    *out = str_printf(arena, STR_FMT "/cache", STR_ARG(data_dir));
    return folder_make(*out, e);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void) status;
    (void) kind;
    (void) place;
    return remove(path);
}

void folder_remove(const char *path)
{
    enum { OPEN_FOLDERS_MAX = 16 };
    (void) nftw(path, remove_entry, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS);
}
