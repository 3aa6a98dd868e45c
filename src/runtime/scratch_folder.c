#include "runtime/scratch_folder.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = sizeof((struct scratch_folder *) 0)->path + SCRATCH_NAME_BYTES_MAX + 2 };

static bool is_plain(str name)
{
    if (str_is_empty(name) || name.len > SCRATCH_NAME_BYTES_MAX || name.ptr[0] == '.')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_letter && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

bool scratch_folder_make(struct scratch_folder *scratch, str purpose, struct error *e)
{
    const char *place = getenv("TMPDIR");
    if (!place || place[0] != '/')
        place = "/tmp";
    *scratch = (struct scratch_folder){0};
    int len = snprintf(scratch->path, sizeof scratch->path, "%s/nexus-" STR_FMT "-XXXXXX", place,
                       STR_ARG(purpose));
    bool fits = is_plain(purpose) && len > 0 && (size_t) len < sizeof scratch->path;
    if (fits && mkdtemp(scratch->path))
        return true;
    int why = fits ? errno : ENAMETOOLONG;
    scratch->path[0] = 0;
    return error_set(e, REASON_UNAVAILABLE,
                     "no folder could be made in %.100s (%s): make room there, or set TMPDIR",
                     place, strerrordesc_np(why));
}

str scratch_folder_path(const struct scratch_folder *scratch)
{
    return str_from_cstr(scratch->path);
}

static void join(const struct scratch_folder *scratch, str name, char *out)
{
    (void) snprintf(out, PATH_BYTES, "%s/" STR_FMT, scratch->path, STR_ARG(name));
}

static bool write_all(int fd, str text)
{
    while (text.len > 0) {
        ssize_t got = write(fd, text.ptr, text.len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        text = str_from(text, (size_t) got);
    }
    return true;
}

bool scratch_folder_write(struct scratch_folder *scratch, str name, str text, struct error *e)
{
    char path[PATH_BYTES];
    if (!is_plain(name))
        return error_set(e, REASON_INVALID,
                         "\"" STR_FMT "\" is no plain file name: letters, digits, \".\", \"_\", "
                         "\"-\", at most %d",
                         STR_ARG(str_cut_utf8(name, 100)), SCRATCH_NAME_BYTES_MAX);
    if (text.len > SCRATCH_BYTES_MAX - scratch->bytes)
        return error_set(e, REASON_LIMIT, "more than %u bytes", SCRATCH_BYTES_MAX);
    if (scratch->count == SCRATCH_FILES_MAX)
        return error_set(e, REASON_LIMIT, "more than %d files", SCRATCH_FILES_MAX);
    scratch->count++;
    scratch->bytes += text.len;
    join(scratch, name, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0 && write_all(fd, text);
    int why = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    return ok || error_set(e, REASON_UNAVAILABLE, "%.200s could not be written: %s", path,
                           strerrordesc_np(why));
}

void scratch_folder_remove(struct scratch_folder *scratch)
{
    if (scratch->path[0] == 0)
        return;
    DIR *folder = opendir(scratch->path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;)
        if (is_plain(str_from_cstr(entry->d_name)))
            (void) unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        (void) closedir(folder);
    (void) rmdir(scratch->path);
    *scratch = (struct scratch_folder){0};
}
