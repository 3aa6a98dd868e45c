/*
 * What tools wrote in a session, beside its uploaded files: listed, downloaded and deleted as files of the session, by their path below
 * the workspace's root ("output/report.csv").  An uploaded file of the same name wins.
 *
 * Workspaces of sessions that have ended are removed by a sweep, a bounded number at a time.
 */
#include "agent/sandbox/workspace.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"
#include "runtime/loop.h"
#include <unistd.h>

/* One look at a workspace, made on the pool. */
struct look {
    str data_dir, folder, path;
    struct arena *arena; /* the pool's while it works */
    struct workspace_entry *entries;
    size_t count;
    struct workspace_entry entry;
    int fd;
    bool is_ok, is_locked;
    struct error error;
};

static str content_type(str path)
{
    static const struct {
        str extension, type;
    } types[] = {
        {S_INIT(".txt"), S_INIT("text/plain; charset=utf-8")},
        {S_INIT(".md"), S_INIT("text/markdown; charset=utf-8")},
        {S_INIT(".csv"), S_INIT("text/csv; charset=utf-8")},
        {S_INIT(".json"), S_INIT("application/json")},
    };
    for (size_t i = 0; i < ARRAY_COUNT(types); i++)
        if (str_ends_with(path, types[i].extension))
            return types[i].type;
    return S("application/octet-stream");
}

static struct record record_of_entry(struct arena *arena, uuid session_id,
                                     const struct workspace_entry *entry)
{
    struct record row = record_of(TABLE_SESSION_FILES);
    record_set_uuid(&row, SESSION_FILES_SESSION_ID, session_id);
    record_set_text(&row, SESSION_FILES_NAME, str_copy(arena, entry->path));
    record_set_integer(&row, SESSION_FILES_BYTES, entry->bytes);
    record_set_text(&row, SESSION_FILES_DIGEST, S(""));
    record_set_text(&row, SESSION_FILES_CONTENT_TYPE, content_type(entry->path));
    record_set_text(&row, SESSION_FILES_PATH, S(""));
    record_set_integer(&row, SESSION_FILES_CREATED_AT, entry->modified_us);
    return row;
}

static struct look look_of(struct orchestrator *o, struct arena *arena, uuid tenant_id,
                           uuid session_id)
{
    return (struct look){.data_dir = o->parts.data_dir,
                         .folder = workspace_folder(arena, tenant_id, session_id, STR_NONE),
                         .arena = arena,
                         .fd = -1};
}

/* ---- list ---- */

static bool add_file(void *owner, const struct workspace_entry *entry)
{
    struct look *look = owner;
    if (!entry->is_folder && look->count < SESSION_FILE_COUNT_MAX)
        look->entries[look->count++] = *entry;
    return look->count < SESSION_FILE_COUNT_MAX;
}

static void list_on_pool(void *argument)
{
    struct look *look = argument;
    OWNED(workspace) workspace = NULL;
    bool is_cut;
    look->entries = ARENA_ARRAY(look->arena, struct workspace_entry, SESSION_FILE_COUNT_MAX);
    look->is_ok = workspace_open(look->data_dir, look->folder, false, &workspace, &look->error)
                      ? workspace_walk(workspace, look->arena, STR_NONE, true, add_file, look,
                                       &is_cut, &look->error)
                      : look->error.code == ERROR_NOT_FOUND;
}

static bool is_uploaded(const struct records *uploads, str name)
{
    for (size_t i = 0; i < uploads->count; i++)
        if (str_equal(record_text(&uploads->items[i], SESSION_FILES_NAME), name))
            return true;
    return false;
}

bool session_workspace_add(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                           uuid session_id, struct records *files, struct error *e)
{
    OWNED(arena) arena = arena_create(32u << 20);
    struct look look = look_of(o, arena, tenant_id, session_id);
    if (!blocking_call(ctx, list_on_pool, &look, e))
        return false;
    if (!look.is_ok) {
        *e = look.error;
        return false;
    }
    struct record *items = ARENA_ARRAY(ctx->arena, struct record, files->count + look.count + 1);
    size_t count = files->count;
    if (count > 0)
        memcpy(items, files->items, count * sizeof *items);
    for (size_t i = 0; i < look.count; i++)
        if (!is_uploaded(files, look.entries[i].path))
            items[count++] = record_of_entry(ctx->arena, session_id, &look.entries[i]);
    files->items = items;
    files->count = count;
    return true;
}

/* ---- download, delete ---- */

static void open_on_pool(void *argument)
{
    struct look *look = argument;
    OWNED(workspace) workspace = NULL;
    look->is_ok =
        workspace_open(look->data_dir, look->folder, false, &workspace, &look->error) &&
        workspace_stat(workspace, look->path, &look->entry, &look->error) &&
        workspace_open_file(workspace, look->path, &look->fd, &look->entry.bytes, &look->error);
}

static void remove_on_pool(void *argument)
{
    struct look *look = argument;
    OWNED(workspace) workspace = NULL;
    look->is_ok = workspace_open(look->data_dir, look->folder, false, &workspace, &look->error) &&
                  workspace_lock(workspace, &look->is_locked, &look->error) &&
                  (!look->is_locked || workspace_remove(workspace, look->path, &look->error));
}

/* What a caller names: no path but one that the workspace could hold. */
static bool find_path(struct arena *arena, str name, str *out, struct error *e)
{
    struct error odd;
    if (workspace_path(arena, name, out, &odd) && !str_is_empty(*out))
        return true;
    return error_set(e, REASON_NOT_FOUND, "the session has no file \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(name, 160)));
}

static bool look_failed(const struct look *look, str name, struct error *e)
{
    if (look->error.code == ERROR_NOT_FOUND)
        return error_set(e, REASON_NOT_FOUND, "the session has no file \"" STR_FMT "\"",
                         STR_ARG(str_cut_utf8(name, 160)));
    *e = look->error;
    return false;
}

bool session_workspace_open(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                            uuid session_id, str name, int *fd, struct record *row, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct look look = look_of(o, arena, tenant_id, session_id);
    if (!find_path(arena, name, &look.path, e))
        return false;
    if (!blocking_call(ctx, open_on_pool, &look, e)) {
        if (look.fd >= 0)
            close(look.fd);
        return false;
    }
    if (!look.is_ok)
        return look_failed(&look, name, e);
    *fd = look.fd;
    *row = record_of_entry(ctx->arena, session_id, &look.entry);
    return true;
}

bool session_workspace_remove(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                              uuid session_id, str name, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct look look = look_of(o, arena, tenant_id, session_id);
    if (!find_path(arena, name, &look.path, e))
        return false;
    for (;;) {
        if (!blocking_call(ctx, remove_on_pool, &look, e))
            return false;
        if (!look.is_ok)
            return look_failed(&look, name, e);
        if (look.is_locked)
            return true;
        if (!context_sleep_ms(ctx, HOST_FILES_LOCK_MS, e))
            return false;
    }
}

/* ---- the sweep ---- */

struct sweep {
    str data_dir, after;
    struct arena *arena;
    str folders[WORKSPACE_SWEEP_MAX];
    size_t count;
    str folder; /* the one to erase */
    bool is_ok, is_done;
    struct error error;
};

static void find_on_pool(void *argument)
{
    struct sweep *sweep = argument;
    sweep->is_ok = workspace_list(sweep->data_dir, sweep->arena, sweep->after, WORKSPACE_SWEEP_MAX,
                                  sweep->folders, &sweep->count, &sweep->error);
}

static void erase_on_pool(void *argument)
{
    struct sweep *sweep = argument;
    sweep->is_ok = workspace_erase(sweep->data_dir, sweep->folder, WORKSPACE_ERASE_MAX,
                                   &sweep->is_done, &sweep->error);
}

/* Has the session of "<tenant>/<session>" ended?  A user's own workspace stays: it belongs to no session. */
static bool has_ended(struct orchestrator *o, struct context *ctx, str folder, bool *out,
                      struct error *e)
{
    str tenant_text, session_text;
    uuid tenant_id, session_id;
    struct record key = record_of(TABLE_SESSIONS), row;
    *out = false;
    str_cut(folder, '/', &tenant_text, &session_text);
    if (!uuid_parse(tenant_text, &tenant_id) || !uuid_parse(session_text, &session_id))
        return true;
    record_set_uuid(&key, SESSIONS_ID, session_id);
    struct error missing = {0};
    if (!store_get(o->parts.store, ctx, tenant_id, &key, &row, &missing)) {
        *out = missing.code == ERROR_NOT_FOUND;
        if (!*out)
            *e = missing;
        return *out;
    }
    int64_t expires_us = record_integer(&row, SESSIONS_EXPIRES_AT);
    str status = record_text(&row, SESSIONS_STATUS);
    bool is_expired = expires_us != 0 && expires_us < clock_unix_us(o->parts.clock);
    *out = !record_has(&row, SESSIONS_LIVE_RUN_ID) &&
           (is_expired || str_equal(status, S("closed")) || str_equal(status, S("expired")));
    return true;
}

static bool sweep_page(struct orchestrator *o, struct context *ctx, struct sweep *sweep,
                       size_t *removed, struct error *e)
{
    for (size_t i = 0; i < sweep->count; i++) {
        bool is_over;
        sweep->folder = sweep->folders[i];
        if (!has_ended(o, ctx, sweep->folder, &is_over, e))
            return false;
        if (!is_over)
            continue;
        if (!blocking_call(ctx, erase_on_pool, sweep, e))
            return false;
        if (!sweep->is_ok) {
            *e = sweep->error;
            return false;
        }
        *removed += sweep->is_done;
    }
    return true;
}

bool session_workspaces_sweep(struct orchestrator *o, struct context *ctx, str *after,
                              struct arena *after_arena, size_t *removed, struct error *e)
{
    OWNED(arena) arena = arena_create(32u << 20);
    struct sweep *sweep = ARENA_NEW(arena, struct sweep);
    *sweep = (struct sweep){.data_dir = o->parts.data_dir, .after = *after, .arena = arena};
    *removed = 0;
    if (!blocking_call(ctx, find_on_pool, sweep, e))
        return false;
    if (!sweep->is_ok) {
        *e = sweep->error;
        return false;
    }
    if (!sweep_page(o, ctx, sweep, removed, e))
        return false;
    arena_reset(after_arena);
    *after = sweep->count == WORKSPACE_SWEEP_MAX
                 ? str_copy(after_arena, sweep->folders[sweep->count - 1])
                 : STR_NONE;
    return true;
}
