/*
 * Session files: a row per file, its bytes in data_dir/files/<tenant>/<session>/<uuid>.
 *
 * Names are the callers', paths are ours: a name never becomes part of a path.  An upload is written to a fresh path and becomes visible
 * with its row, so a reader sees the old bytes or the new ones, whole; the replaced file is removed after the commit.
 * What tools wrote is beside them (session_workspace.c): listed, downloaded and deleted in the same way.
 * All file work runs on the blocking pool.
 */
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"
#include "runtime/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_PIECE_BYTES = 256 << 10, FILE_NAME_BYTES_MAX = 255, PATH_BYTES = 4096 };

static bool name_is_lawful(str name, struct error *e)
{
    bool is_dots = str_equal(name, S(".")) || str_equal(name, S(".."));
    bool is_lawful =
        name.len > 0 && name.len <= FILE_NAME_BYTES_MAX && !is_dots && str_is_utf8(name);
    for (size_t i = 0; is_lawful && i < name.len; i++)
        is_lawful = name.ptr[i] != '/' && name.ptr[i] != '\\' &&
                    (unsigned char) name.ptr[i] >= 0x20 && name.ptr[i] != 0x7f;
    return is_lawful ||
           error_set(e, REASON_SCHEMA,
                     "a file name is 1 to %d bytes of UTF-8 without / \\ or control characters",
                     FILE_NAME_BYTES_MAX);
}

static bool errno_error(struct error *e, int code, const char *what)
{
    enum error_reason reason = code == ENOSPC || code == EDQUOT ? REASON_DISK_FULL : REASON_STORE;
    return error_set(e, reason, "%s: %s", what, strerror(code));
}

static str absolute_path(struct arena *arena, const struct orchestrator *o, str relative)
{
    return str_printf(arena, STR_FMT "/files/" STR_FMT, STR_ARG(o->parts.data_dir),
                      STR_ARG(relative));
}

/* ---- rows ---- */

bool session_file_rows(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid session_id,
                       struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_SESSION_FILES);
    query_where_uuid(&query, SESSION_FILES_SESSION_ID, session_id);
    struct record *items = NULL;
    size_t count = 0;
    for (;;) {
        struct records page;
        if (!store_list(o->parts.store, ctx, tenant_id, &query, &page, e))
            return false;
        items = arena_grow(ctx->arena, items, count * sizeof *items,
                           (count + page.count) * sizeof *items);
        for (size_t i = 0; i < page.count; i++)
            items[count++] = page.items[i];
        if (str_is_empty(page.next_cursor))
            break;
        query.cursor = page.next_cursor;
    }
    *out = (struct records){.items = items, .count = count};
    return true;
}

static never_inline bool find_row(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                  uuid session_id, str name, struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_SESSION_FILES);
    record_set_uuid(&key, SESSION_FILES_SESSION_ID, session_id);
    record_set_text(&key, SESSION_FILES_NAME, name);
    if (store_get(o->parts.store, ctx, tenant_id, &key, out, e))
        return true;
    if (e->code != ERROR_NOT_FOUND)
        return false;
    return error_set(e, REASON_NOT_FOUND, "the session has no file \"" STR_FMT "\"", STR_ARG(name));
}

static never_inline bool check_session(struct orchestrator *o, struct context *ctx,
                                       const struct principal *principal, uuid session_id,
                                       struct error *e)
{
    struct record session;
    return session_get(o, ctx, principal, session_id, &session, e);
}

bool file_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
               uuid session_id, struct records *out, struct error *e)
{
    return check_session(o, ctx, principal, session_id, e) &&
           session_file_rows(o, ctx, principal->tenant_id, session_id, out, e) &&
           session_workspace_add(o, ctx, principal->tenant_id, session_id, out, e);
}

/* ---- for tool calls ---- */

static bool resolve(void *owner, struct context *ctx, str name, str *path, int64_t *bytes,
                    struct error *e)
{
    struct session_files *files = owner;
    struct record row;
    if (!find_row(files->o, ctx, files->tenant_id, files->session_id, name, &row, e))
        return false;
    *path = absolute_path(ctx->arena, files->o, record_text(&row, SESSION_FILES_PATH));
    *bytes = record_integer(&row, SESSION_FILES_BYTES);
    return true;
}

struct tool_files session_files_of(struct session_files *files)
{
    return (struct tool_files){.owner = files, .resolve = resolve};
}

/* ---- upload ---- */

struct file_upload {
    struct orchestrator *o;
    struct principal principal;
    uuid session_id;
    char *name, *content_type;
    char relative[PATH_BYTES], path[PATH_BYTES];
    struct digest_stream *digest;
    int64_t bytes, room;
    int fd;
};

struct file_work {
    struct file_upload *upload;
    str bytes;
    int code; /* errno, 0: fine */
};

/* Makes the two folders above the file when they are missing, then the file. */
static void open_on_pool(void *argument)
{
    struct file_work *work = argument;
    char *path = work->upload->path; /* nobody else looks at it meanwhile */
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!ok) {
            work->code = errno;
            return;
        }
    }
    work->upload->fd =
        open(work->upload->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (work->upload->fd < 0)
        work->code = errno;
}

static void write_on_pool(void *argument)
{
    struct file_work *work = argument;
    str rest = work->bytes;
    if (FAULT("file.write")) {
        work->code = ENOSPC;
        return;
    }
    while (rest.len > 0) {
        ssize_t written = write(work->upload->fd, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            work->code = errno;
            return;
        }
        rest = str_from(rest, (size_t) written);
    }
    digest_stream_add(work->upload->digest, work->bytes);
}

static void sync_on_pool(void *argument)
{
    struct file_work *work = argument;
    if (fsync(work->upload->fd) != 0)
        work->code = errno;
}

static bool on_pool(struct context *ctx, void (*fn)(void *argument), struct file_work *work,
                    const char *what, struct error *e)
{
    if (!blocking_call(ctx, fn, work, e))
        return false;
    return work->code == 0 || errno_error(e, work->code, what);
}

/* What the session may still store; a file that is replaced gives its bytes back. */
static bool find_room(struct file_upload *upload, struct context *ctx,
                      const struct settings *settings, struct error *e)
{
    struct records rows;
    int64_t used = 0;
    bool replaces = false;
    if (!session_file_rows(upload->o, ctx, upload->principal.tenant_id, upload->session_id, &rows,
                           e))
        return false;
    for (size_t i = 0; i < rows.count; i++) {
        if (str_equal(record_text(&rows.items[i], SESSION_FILES_NAME), str_from_cstr(upload->name)))
            replaces = true;
        else
            used += record_integer(&rows.items[i], SESSION_FILES_BYTES);
    }
    if (!replaces && rows.count >= SESSION_FILE_COUNT_MAX)
        return error_set(e, REASON_QUOTA, "the session holds %d files already; delete one",
                         SESSION_FILE_COUNT_MAX);
    upload->room = settings->session_files_bytes_max - used;
    return true;
}

static bool room_error(const struct file_upload *upload, struct error *e)
{
    return error_set(
        e, REASON_QUOTA,
        "the file does not fit: the session's quota leaves %lld bytes; delete files or raise it",
        (long long) (upload->room > 0 ? upload->room : 0));
}

static char *copy_text(str text)
{
    char *copy = malloc(text.len + 1);
    ensure(copy != NULL);
    memcpy(copy, text.ptr ? text.ptr : "", text.len);
    copy[text.len] = 0;
    return copy;
}

static void name_path(struct file_upload *upload, struct context *ctx)
{
    struct arena *arena = ctx->arena;
    uuid id = uuid_new(upload->o->parts.clock, upload->o->parts.random);
    str relative =
        str_printf(arena, STR_FMT "/" STR_FMT "/" STR_FMT,
                   STR_ARG(uuid_str(arena, upload->principal.tenant_id)),
                   STR_ARG(uuid_str(arena, upload->session_id)), STR_ARG(uuid_str(arena, id)));
    str path = absolute_path(arena, upload->o, relative);
    ensure(path.len < PATH_BYTES);
    memcpy(upload->relative, relative.ptr, relative.len);
    memcpy(upload->path, path.ptr, path.len);
}

bool file_upload_begin(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, uuid session_id, str name,
                       str content_type, int64_t content_length, struct file_upload **out,
                       struct error *e)
{
    struct record session;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not store files");
    if (!name_is_lawful(name, e) || !session_get(o, ctx, principal, session_id, &session, e) ||
        !session_check_open(o, ctx, &session, e))
        return false;
    struct file_upload *upload = calloc(1, sizeof *upload);
    ensure(upload != NULL);
    *upload =
        (struct file_upload){.o = o, .principal = *principal, .session_id = session_id, .fd = -1};
    upload->name = copy_text(name);
    upload->content_type = copy_text(str_slice(content_type, 0, 255));
    upload->digest = digest_stream_create();
    name_path(upload, ctx);
    const struct settings *settings = orchestrator_acquire(o);
    bool ok = find_room(upload, ctx, settings, e);
    orchestrator_release(settings);
    if (ok && content_length > upload->room)
        ok = room_error(upload, e);
    struct file_work work = {.upload = upload};
    if (!ok || !on_pool(ctx, open_on_pool, &work, "make the file", e)) {
        file_upload_abort(upload);
        return false;
    }
    *out = upload;
    return true;
}

bool file_upload_write(struct file_upload *upload, struct context *ctx, str bytes, struct error *e)
{
    if (upload->bytes + (int64_t) bytes.len > upload->room)
        return room_error(upload, e);
    struct file_work work = {.upload = upload, .bytes = bytes};
    if (!on_pool(ctx, write_on_pool, &work, "write the file", e))
        return false;
    upload->bytes += (int64_t) bytes.len;
    return true;
}

static void unlink_on_pool(void *argument)
{
    (void) unlink(argument);
}

static bool commit_row(struct file_upload *upload, struct context *ctx, struct record *out,
                       struct error *e)
{
    struct orchestrator *o = upload->o;
    struct batch batch;
    batch_init(&batch, ctx->arena, upload->principal.tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPSERT, TABLE_SESSION_FILES);
    record_set_uuid(row, SESSION_FILES_SESSION_ID, upload->session_id);
    record_set_text(row, SESSION_FILES_NAME, str_copy(ctx->arena, str_from_cstr(upload->name)));
    record_set_integer(row, SESSION_FILES_BYTES, upload->bytes);
    record_set_text(row, SESSION_FILES_DIGEST,
                    digest_hex(ctx->arena, digest_stream_finish(upload->digest)));
    if (upload->content_type[0])
        record_set_text(row, SESSION_FILES_CONTENT_TYPE,
                        str_copy(ctx->arena, str_from_cstr(upload->content_type)));
    record_set_text(row, SESSION_FILES_PATH, str_copy(ctx->arena, str_from_cstr(upload->relative)));
    record_set_integer(row, SESSION_FILES_CREATED_AT, clock_unix_us(o->parts.clock));
    *out = *row;
    audit_add(&batch, o->parts.clock, o->parts.random, &upload->principal,
              &(struct audit_entry){.action = S("file.put"),
                                    .resource_type = S("session"),
                                    .resource_id = uuid_str(ctx->arena, upload->session_id)});
    return store_commit(o->parts.store, ctx, &batch, e);
}

/* Others may have stored files since this one began. */
static bool still_fits(struct file_upload *upload, struct context *ctx, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(upload->o);
    bool ok = find_room(upload, ctx, settings, e);
    orchestrator_release(settings);
    if (ok && upload->bytes > upload->room)
        return room_error(upload, e);
    return ok;
}

bool file_upload_finish(struct file_upload *upload, struct context *ctx, struct record *out,
                        struct error *e)
{
    struct file_work work = {.upload = upload};
    struct record old;
    struct error missing = {0};
    bool replaces = find_row(upload->o, ctx, upload->principal.tenant_id, upload->session_id,
                             str_from_cstr(upload->name), &old, &missing);
    if (!on_pool(ctx, sync_on_pool, &work, "store the file", e) || !still_fits(upload, ctx, e) ||
        !commit_row(upload, ctx, out, e)) {
        file_upload_abort(upload);
        return false;
    }
    if (replaces) {
        char *old_path =
            str_to_cstr(ctx->arena, absolute_path(ctx->arena, upload->o,
                                                  record_text(&old, SESSION_FILES_PATH)));
        struct error ignored; /* a file left behind harms nothing but space */
        (void) !blocking_call(ctx, unlink_on_pool, old_path, &ignored);
    }
    close(upload->fd);
    upload->fd = -1;
    upload->path[0] = 0;
    file_upload_abort(upload);
    return true;
}

void file_upload_abort(struct file_upload *upload)
{
    if (!upload)
        return;
    if (upload->fd >= 0)
        close(upload->fd);
    if (upload->fd >= 0 && upload->path[0])
        (void) unlink(upload->path);
    digest_stream_destroy(upload->digest);
    free(upload->name);
    free(upload->content_type);
    free(upload);
}

/* ---- download ---- */

struct file_download {
    char path[PATH_BYTES];
    int fd, code;
    char *piece;
    ssize_t got;
};

static void open_download_on_pool(void *argument)
{
    struct file_download *download = argument;
    download->fd = open(download->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    download->code = download->fd < 0 ? errno : 0;
}

static void read_on_pool(void *argument)
{
    struct file_download *download = argument;
    do
        download->got = read(download->fd, download->piece, FILE_PIECE_BYTES);
    while (download->got < 0 && errno == EINTR);
    download->code = download->got < 0 ? errno : 0;
}

static bool open_uploaded(struct orchestrator *o, struct context *ctx, const struct record *row,
                          struct file_download *download, struct error *e)
{
    str path = absolute_path(ctx->arena, o, record_text(row, SESSION_FILES_PATH));
    ensure(path.len < PATH_BYTES);
    memcpy(download->path, path.ptr, path.len);
    return blocking_call(ctx, open_download_on_pool, download, e) &&
           (download->code == 0 || errno_error(e, download->code, "open the file"));
}

/* An uploaded file, or one that a tool wrote. */
static bool open_download(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, uuid session_id, str name,
                          struct file_download *download, struct record *row, struct error *e)
{
    struct error missing = {0};
    if (find_row(o, ctx, principal->tenant_id, session_id, name, row, &missing))
        return open_uploaded(o, ctx, row, download, e);
    if (missing.code == ERROR_NOT_FOUND)
        return session_workspace_open(o, ctx, principal->tenant_id, session_id, name, &download->fd,
                                      row, e);
    *e = missing;
    return false;
}

bool file_download_begin(struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, uuid session_id, str name,
                         struct file_download **out, struct record *row, struct error *e)
{
    if (!check_session(o, ctx, principal, session_id, e))
        return false;
    struct file_download *download = calloc(1, sizeof *download);
    ensure(download != NULL);
    download->fd = -1;
    download->piece = malloc(FILE_PIECE_BYTES);
    ensure(download->piece != NULL);
    if (open_download(o, ctx, principal, session_id, name, download, row, e)) {
        *out = download;
        return true;
    }
    file_download_end(download);
    return false;
}

bool file_download_read(struct file_download *download, struct context *ctx, str *piece,
                        struct error *e)
{
    if (!blocking_call(ctx, read_on_pool, download, e))
        return false;
    if (download->code != 0)
        return errno_error(e, download->code, "read the file");
    *piece = str_of(download->piece, (size_t) download->got);
    return true;
}

void file_download_end(struct file_download *download)
{
    if (!download)
        return;
    if (download->fd >= 0)
        close(download->fd);
    free(download->piece);
    free(download);
}

bool file_remove(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 uuid session_id, str name, struct error *e)
{
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not delete files");
    if (!check_session(o, ctx, principal, session_id, e))
        return false;
    bool is_uploaded = find_row(o, ctx, principal->tenant_id, session_id, name, row, &missing);
    if (!is_uploaded && missing.code != ERROR_NOT_FOUND) {
        *e = missing;
        return false;
    }
    if (!is_uploaded &&
        !session_workspace_remove(o, ctx, principal->tenant_id, session_id, name, e))
        return false;
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    if (is_uploaded) {
        struct record *key = batch_add(&batch, WRITE_DELETE, TABLE_SESSION_FILES);
        record_set_uuid(key, SESSION_FILES_SESSION_ID, session_id);
        record_set_text(key, SESSION_FILES_NAME, name);
    }
    audit_add(&batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = S("file.delete"),
                                    .resource_type = S("session"),
                                    .resource_id = uuid_str(ctx->arena, session_id)});
    if (!store_commit(o->parts.store, ctx, &batch, e))
        return false;
    if (!is_uploaded)
        return true;
    char *path =
        str_to_cstr(ctx->arena, absolute_path(ctx->arena, o, record_text(row, SESSION_FILES_PATH)));
    struct error ignored;
    (void) !blocking_call(ctx, unlink_on_pool, path, &ignored);
    return true;
}
