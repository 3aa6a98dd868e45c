/*
 * The first key, once per store.
 *
 * The lock is the row of the default tenant: who inserts it makes the key.  The key goes to PATH.new first, then tenant and key are
 * committed, then the file gets its name; so there is never a committed key that nobody has.  A crash in between leaves PATH.new:
 * the next start gives it its name when its key is stored, and throws it away when it is not.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/keys_internal.h"
#include "runtime/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

struct file_work {
    const char *path, *draft;
    str text;
    char found[KEY_BYTES_MAX + 1];
    size_t found_bytes;
    bool ok;
    struct error e;
};

static void write_draft(void *argument)
{
    struct file_work *work = argument;
    unlink(work->draft);
    work->ok = keys_write_secret_file(work->draft, work->text, &work->e);
}

static void read_draft(void *argument)
{
    struct file_work *work = argument;
    work->ok = keys_read_secret_file(work->draft, work->found, sizeof work->found,
                                     &work->found_bytes, &work->e);
}

static void drop_draft(void *argument)
{
    struct file_work *work = argument;
    work->ok = unlink(work->draft) == 0 || errno == ENOENT;
}

static void sync_folder_of(char *path)
{
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void) fsync(fd);
    close(fd);
}

static void name_draft(void *argument)
{
    struct file_work *work = argument;
    char folder[1024];
    work->ok = rename(work->draft, work->path) == 0 ||
               error_set(&work->e, REASON_UNAVAILABLE, "%s: %s", work->path, strerror(errno));
    snprintf(folder, sizeof folder, "%s", work->path);
    sync_folder_of(folder);
}

static bool do_work(struct context *ctx, void (*fn)(void *), struct file_work *work,
                    struct error *e)
{
    if (!blocking_call(ctx, fn, work, e))
        return false;
    return work->ok || error_copy(e, &work->e);
}

/* The store has its tenant.  Is there a key of an interrupted first start? */
static bool recover_draft(struct keys *keys, struct context *ctx, struct file_work *work,
                          bool *created, struct error *e)
{
    struct error missing = {0};
    *work = (struct file_work){.path = work->path, .draft = work->draft};
    if (!do_work(ctx, read_draft, work, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    str key = str_trim(str_of(work->found, work->found_bytes));
    if (!keys_is_stored(keys, ctx, key))
        return do_work(ctx, drop_draft, work, e);
    *created = true;
    return do_work(ctx, name_draft, work, e);
}

static bool is_first_start(struct keys *keys, struct context *ctx, bool *is_first, struct error *e)
{
    struct record *key = ARENA_NEW(ctx->arena, struct record),
                  *row = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    *key = record_of(TABLE_TENANTS);
    record_set_uuid(key, TENANTS_ID, keys_default_tenant());
    *is_first = !store_get(keys_store(keys), ctx, keys_default_tenant(), key, row, &missing);
    return !*is_first || missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

static bool make_first(struct keys *keys, struct context *ctx, struct file_work *work,
                       bool *created, struct error *e)
{
    struct error failure = {0};
    str key = keys_make(keys, ctx->arena);
    work->text = str_printf(ctx->arena, STR_FMT "\n", STR_ARG(key));
    if (!do_work(ctx, write_draft, work, e))
        return false;
    if (!keys_commit_first(keys, ctx, key, &failure)) {
        if (failure.code != ERROR_CONFLICT)
            return error_copy(e, &failure);
        return do_work(ctx, drop_draft, work, e); /* another process was first: its key counts */
    }
    *created = true;
    return do_work(ctx, name_draft, work, e);
}

bool keys_bootstrap(struct keys *keys, struct context *ctx, str path, bool *created,
                    struct error *e)
{
    bool is_first;
    struct file_work *work = ARENA_NEW(ctx->arena, struct file_work);
    work->path = str_to_cstr(ctx->arena, path);
    work->draft = str_to_cstr(ctx->arena, str_printf(ctx->arena, STR_FMT ".new", STR_ARG(path)));
    *created = false;
    if (!is_first_start(keys, ctx, &is_first, e))
        return false;
    return is_first ? make_first(keys, ctx, work, created, e)
                    : recover_draft(keys, ctx, work, created, e);
}
