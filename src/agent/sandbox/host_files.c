#include "agent/sandbox/host_files.h"

#include "base/limits.h"
#include "base/timefmt.h"
#include "runtime/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum operation { READ, WRITE, APPEND, LIST, STAT, DELETE, SEARCH, OPERATION_COUNT };
static const str operation_names[] = {
    [READ] = S_INIT("read"),     [WRITE] = S_INIT("write"), [APPEND] = S_INIT("append"),
    [LIST] = S_INIT("list"),     [STAT] = S_INIT("stat"),   [DELETE] = S_INIT("delete"),
    [SEARCH] = S_INIT("search"),
};

/* An uploaded file of the session. */
struct upload {
    str name, path; /* path: ours */
    int64_t bytes;
};

struct found {
    struct workspace_entry entry;
    bool is_upload;
    int64_t line; /* 0: the entry itself */
    str text;
};

/* One call.  Made on the loop, worked on by one thread of the pool, read on the loop again. */
struct files_call {
    const struct host_files *files;
    const struct tool_request *request;
    const struct permissions *permissions;
    struct arena *arena; /* of the call's own, so that the pool may use it */
    enum operation operation;
    str path, folder; /* relative; of the workspace */
    str content, pattern;
    bool has_content, is_busy, is_ok;
    size_t bytes_max;
    struct upload *uploads;
    size_t upload_count;

    struct workspace *workspace; /* kept between tries for the lock */
    str text;
    bool has_text, has_stat, is_cut;
    struct found *found;
    size_t found_count;
    int64_t searched_bytes;
    struct error error;
};

static bool is_change(enum operation operation)
{
    return operation == WRITE || operation == APPEND || operation == DELETE;
}

/* ---- the request ---- */

static bool read_content(struct files_call *call, const struct json *input, struct error *e)
{
    str encoding = S("utf-8");
    if (!json_read_str(input, S("content"), &call->content, e) ||
        !json_read_str(input, S("encoding"), &encoding, e))
        return false;
    call->has_content = json_type(json_get(input, S("content"))) == JSON_STRING;
    bool is_needed = call->operation == WRITE || call->operation == APPEND;
    if (is_needed && !call->has_content)
        return error_set(e, REASON_SCHEMA, "\"" STR_FMT "\" needs \"content\"",
                         STR_ARG(operation_names[call->operation]));
    if (str_equal(encoding, S("utf-8")))
        return true;
    if (!str_equal(encoding, S("base64")))
        return error_set(e, REASON_SCHEMA, "\"encoding\" is utf-8 or base64");
    return base64_decode(call->arena, call->content, &call->content) ||
           error_set(e, REASON_SCHEMA, "\"content\" is no base64");
}

static bool read_request(struct files_call *call, str input_json, struct error *e)
{
    const struct json *input;
    str operation, path = STR_NONE;
    call->pattern = S("*");
    if (!json_parse(call->arena, input_json, (struct json_limits){0}, &input, e) ||
        !json_need_str(input, S("operation"), &operation, e) ||
        !json_read_str(input, S("path"), &path, e) ||
        !json_read_str(input, S("pattern"), &call->pattern, e))
        return false;
    while (call->operation < OPERATION_COUNT &&
           !str_equal(operation, operation_names[call->operation]))
        call->operation++;
    if (call->operation == OPERATION_COUNT)
        return error_set(
            e, REASON_SCHEMA,
            "\"operation\" is read, write, append, list, stat, delete or search, not \"" STR_FMT
            "\"",
            STR_ARG(str_cut_utf8(operation, 40)));
    if (call->pattern.len > WORKSPACE_NAME_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "\"pattern\" is longer than %u bytes",
                         WORKSPACE_NAME_BYTES_MAX);
    return read_content(call, input, e) && workspace_path(call->arena, path, &call->path, e);
}

/* ---- permissions ---- */

/* A folder is seen when a pattern lets it through, or something below it. */
static bool may_see_folder(const struct files_call *call, str virtual)
{
    const struct str_list *patterns = &call->permissions->paths.read;
    str inside = str_printf(call->arena, STR_FMT "/", STR_ARG(virtual));
    for (size_t i = 0; i < patterns->count; i++) {
        str before_star, rest;
        str_cut(patterns->items[i], '*', &before_star, &rest);
        if (str_starts_with(before_star, inside))
            return true;
    }
    return permissions_allow_path(patterns, virtual) || permissions_allow_path(patterns, inside);
}

static bool may_read(const struct files_call *call, str path, bool is_folder)
{
    str virtual = workspace_virtual(call->arena, path);
    if (is_folder)
        return may_see_folder(call, virtual);
    return permissions_allow_path(&call->permissions->paths.read, virtual) &&
           permissions_allow_extension(call->permissions, path);
}

static bool refuse_path(const struct files_call *call, const char *what, const char *list,
                        struct error *e)
{
    return error_set(e, REASON_PERMISSION,
                     "tool " STR_FMT " may not %s \"" STR_FMT
                     "\": no pattern of permissions.paths.%s fits it",
                     STR_ARG(call->request->tool->name), what,
                     STR_ARG(str_cut_utf8(workspace_virtual(call->arena, call->path), 160)), list);
}

static bool refuse_extension(const struct files_call *call, struct error *e)
{
    struct strbuf names;
    strbuf_init(&names, call->arena, 200);
    for (size_t i = 0; i < call->permissions->allowed_extensions.count; i++) {
        strbuf_add(&names, i > 0 ? S(", ") : STR_NONE);
        strbuf_add(&names, call->permissions->allowed_extensions.items[i]);
    }
    return error_set(e, REASON_PERMISSION,
                     "\"" STR_FMT "\" has none of the allowed extensions: " STR_FMT,
                     STR_ARG(str_cut_utf8(call->path, 120)), STR_ARG(strbuf_str(&names)));
}

/* Whether a path is a folder is not known before it is looked at, so a stat of one needs no extension. */
static bool check_permission(const struct files_call *call, struct error *e)
{
    const struct permissions *permissions = call->permissions;
    str virtual = workspace_virtual(call->arena, call->path);
    if (!permissions->paths.is_set)
        return error_set(e, REASON_PERMISSION, "tool " STR_FMT " has no permissions.paths",
                         STR_ARG(call->request->tool->name));
    if (is_change(call->operation)) {
        if (!permissions_allow_path(&permissions->paths.write, virtual))
            return refuse_path(call, call->operation == DELETE ? "delete" : "write", "write", e);
        bool is_named = call->operation != DELETE;
        return !is_named || permissions_allow_extension(permissions, call->path) ||
               refuse_extension(call, e);
    }
    if (!may_read(call, call->path, call->operation != READ)) {
        bool is_by_name =
            call->operation == READ && permissions_allow_path(&permissions->paths.read, virtual);
        return is_by_name ? refuse_extension(call, e) : refuse_path(call, "read", "read", e);
    }
    return true;
}

static bool check_size(const struct files_call *call, size_t bytes, struct error *e)
{
    return bytes <= call->bytes_max ||
           error_set(e, REASON_TOO_LARGE,
                     "the file would have %zu bytes, more than the %zu of max_file_size", bytes,
                     call->bytes_max);
}

/* ---- uploads ---- */

static const struct upload *find_upload(const struct files_call *call, str name)
{
    for (size_t i = 0; i < call->upload_count; i++)
        if (str_equal(call->uploads[i].name, name))
            return &call->uploads[i];
    return NULL;
}

/* Those that the call can touch: the one it names, or all when it looks through the root. */
may_suspend static bool resolve_uploads(struct files_call *call, struct context *ctx,
                                        struct error *e)
{
    const struct tool_request *request = call->request;
    str first, rest;
    str_cut(call->path, '/', &first, &rest);
    call->uploads = ARENA_ARRAY(call->arena, struct upload, request->file_name_count + 1);
    for (size_t i = 0; request->files && i < request->file_name_count; i++) {
        str name = request->file_names[i];
        bool is_wanted = str_is_empty(call->path) || str_equal(name, first);
        struct upload *upload = &call->uploads[call->upload_count];
        struct error gone;
        if (!is_wanted)
            continue;
        *upload = (struct upload){.name = name};
        if (request->files->resolve(request->files->owner, ctx, name, &upload->path, &upload->bytes,
                                    &gone))
            call->upload_count++; /* else it was deleted meanwhile */
        else if (gone.code != ERROR_NOT_FOUND) {
            *e = gone;
            return false;
        }
    }
    return true;
}

static struct workspace_entry upload_entry(const struct upload *upload)
{
    return (struct workspace_entry){.path = upload->name, .bytes = upload->bytes};
}

static bool read_upload(struct files_call *call, const struct upload *upload, size_t max, str *out)
{
    int fd = open(str_to_cstr(call->arena, upload->path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t bytes = (size_t) upload->bytes < max ? (size_t) upload->bytes : max, got = 0;
    char *text = arena_alloc_raw(call->arena, bytes + 1);
    while (fd >= 0 && got < bytes) {
        ssize_t count = read(fd, text + got, bytes - got);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        got += (size_t) count;
    }
    if (fd >= 0)
        close(fd);
    *out = str_of(text, got);
    return fd >= 0 && got == bytes;
}

/* ---- on the pool ---- */

static bool add_found(struct files_call *call, struct found item)
{
    if (call->found_count == HOST_FILES_ENTRIES_MAX) {
        call->is_cut = true;
        return false;
    }
    item.entry.path = str_copy(call->arena, item.entry.path);
    call->found[call->found_count++] = item;
    return true;
}

static str base_name(str path)
{
    size_t at = path.len;
    while (at > 0 && path.ptr[at - 1] != '/')
        at--;
    return str_from(path, at);
}

/* Adds the lines that hold the text. */
static bool add_lines(struct files_call *call, struct found item, str text)
{
    str line;
    call->searched_bytes += (int64_t) text.len;
    for (int64_t number = 1; str_next(&text, '\n', &line); number++) {
        size_t at = str_find(line, call->content);
        if (at == STR_NOT_FOUND)
            continue;
        size_t from = at > HOST_FILES_LINE_BYTES_MAX / 2 ? at - HOST_FILES_LINE_BYTES_MAX / 2 : 0;
        while (from > 0 && from < line.len && ((unsigned char) line.ptr[from] & 0xc0) == 0x80)
            from++;
        item.line = number;
        item.text =
            str_copy(call->arena, str_cut_utf8(str_from(line, from), HOST_FILES_LINE_BYTES_MAX));
        if (!add_found(call, item))
            return false;
    }
    return true;
}

static bool visit_entry(struct files_call *call, const struct workspace_entry *entry,
                        const struct upload *upload)
{
    bool has_text = call->operation == SEARCH && !str_is_empty(call->content);
    bool is_hidden = !upload && find_upload(call, entry->path);
    if (is_hidden || !workspace_glob(call->pattern, base_name(entry->path)) ||
        !may_read(call, entry->path, entry->is_folder))
        return true;
    struct found item = {.entry = *entry, .is_upload = upload != NULL};
    if (!has_text)
        return add_found(call, item);
    if (entry->is_folder || entry->bytes > (int64_t) call->bytes_max)
        return true;
    if (call->searched_bytes + entry->bytes > HOST_FILES_SEARCH_BYTES_MAX) {
        call->is_cut = true;
        return false;
    }
    OWNED(arena) scratch = arena_create(HOST_FILES_BYTES_MAX + (1u << 16));
    struct arena *kept = call->arena;
    struct error gone;
    str text = STR_NONE;
    bool is_read;
    if (upload) {
        call->arena = scratch;
        is_read = read_upload(call, upload, call->bytes_max, &text);
        call->arena = kept;
    } else {
        is_read =
            workspace_read(call->workspace, scratch, entry->path, call->bytes_max, &text, &gone);
    }
    return !is_read || add_lines(call, item, text);
}

static bool visit(void *owner, const struct workspace_entry *entry)
{
    return visit_entry(owner, entry, NULL);
}

/* list and search. */
static bool look_through(struct files_call *call, struct error *e)
{
    call->found = ARENA_ARRAY(call->arena, struct found, HOST_FILES_ENTRIES_MAX);
    for (size_t i = 0; str_is_empty(call->path) && i < call->upload_count; i++) {
        struct workspace_entry entry = upload_entry(&call->uploads[i]);
        if (!visit_entry(call, &entry, &call->uploads[i]))
            return true;
    }
    if (!call->workspace)
        return str_is_empty(call->path) ||
               error_set(e, REASON_NOT_FOUND, "there is no \"" STR_FMT "\" in the workspace",
                         STR_ARG(str_cut_utf8(call->path, 160)));
    bool is_cut = false;
    bool ok = workspace_walk(call->workspace, call->arena, call->path, call->operation == SEARCH,
                             visit, call, &is_cut, e);
    call->is_cut |= is_cut;
    return ok;
}

static bool stat_it(struct files_call *call, struct found *out, struct error *e)
{
    const struct upload *upload = find_upload(call, call->path);
    *out = (struct found){.is_upload = upload != NULL};
    if (upload) {
        out->entry = upload_entry(upload);
        return true;
    }
    if (call->workspace)
        return workspace_stat(call->workspace, call->path, &out->entry, e);
    if (str_is_empty(call->path)) {
        out->entry = (struct workspace_entry){.is_folder = true};
        return true;
    }
    return error_set(e, REASON_NOT_FOUND, "there is no \"" STR_FMT "\" in the workspace",
                     STR_ARG(str_cut_utf8(call->path, 160)));
}

static bool read_it(struct files_call *call, struct error *e)
{
    const struct upload *upload = find_upload(call, call->path);
    call->has_text = true;
    if (upload)
        return check_size(call, (size_t) upload->bytes, e) &&
               (read_upload(call, upload, call->bytes_max, &call->text) ||
                error_set(e, REASON_STORE, "the uploaded file cannot be read"));
    if (!call->workspace)
        return error_set(e, REASON_NOT_FOUND, "there is no \"" STR_FMT "\" in the workspace",
                         STR_ARG(str_cut_utf8(call->path, 160)));
    return workspace_read(call->workspace, call->arena, call->path, call->bytes_max, &call->text,
                          e);
}

/* The old bytes and the new ones, written as one. */
static bool append_it(struct files_call *call, struct error *e)
{
    str old = STR_NONE;
    struct error missing = {0};
    if (!workspace_read(call->workspace, call->arena, call->path, call->bytes_max, &old,
                        &missing) &&
        missing.code != ERROR_NOT_FOUND) {
        *e = missing;
        return false;
    }
    if (!check_size(call, old.len + call->content.len, e))
        return false;
    str both = str_join(call->arena, (str[]){old, call->content}, 2);
    return workspace_write(call->workspace, &call->files->limits, call->path, both, e);
}

static bool change_it(struct files_call *call, struct error *e)
{
    bool is_locked;
    if (!call->workspace)
        return error_set(e, REASON_NOT_FOUND, "there is no \"" STR_FMT "\" in the workspace",
                         STR_ARG(str_cut_utf8(call->path, 160)));
    if (!workspace_lock(call->workspace, &is_locked, e))
        return false;
    if (!is_locked) {
        call->is_busy = true;
        return true;
    }
    if (call->operation == WRITE)
        return workspace_write(call->workspace, &call->files->limits, call->path, call->content, e);
    if (call->operation == APPEND)
        return append_it(call, e);
    call->has_stat = true;
    return stat_it(call, &call->found[0], e) && workspace_remove(call->workspace, call->path, e);
}

static bool open_it(struct files_call *call, struct error *e)
{
    bool is_made = call->operation == WRITE || call->operation == APPEND;
    struct error failure = {0};
    if (call->workspace ||
        workspace_open(call->files->data_dir, call->folder, is_made, &call->workspace, &failure) ||
        failure.code == ERROR_NOT_FOUND)
        return true;
    *e = failure;
    return false;
}

static bool work(struct files_call *call, struct error *e)
{
    call->is_busy = false;
    if (!open_it(call, e))
        return false;
    if (call->operation == LIST || call->operation == SEARCH)
        return look_through(call, e);
    if (call->operation == READ)
        return read_it(call, e);
    call->found = ARENA_ARRAY(call->arena, struct found, 1);
    if (is_change(call->operation) && (!change_it(call, e) || call->is_busy))
        return call->is_busy;
    call->found_count = 1;
    if (call->has_stat) /* of what was deleted */
        return true;
    call->has_stat = true;
    if (!stat_it(call, &call->found[0], e))
        return false;
    bool is_hidden = call->operation == STAT && !call->found[0].entry.is_folder &&
                     !may_read(call, call->path, false);
    return !is_hidden || refuse_extension(call, e);
}

static void work_on_pool(void *argument)
{
    struct files_call *call = argument;
    call->is_ok = work(call, &call->error);
    if (!call->is_busy) {
        workspace_close(call->workspace);
        call->workspace = NULL;
    }
}

/* ---- the answer ---- */

static void write_found(struct json_writer *w, struct files_call *call, const struct found *found)
{
    const struct workspace_entry *entry = &found->entry;
    json_object_begin(w);
    json_put_str(w, S("name"), base_name(entry->path));
    json_put_str(w, S("path"), workspace_virtual(call->arena, entry->path));
    if (found->line > 0) {
        json_put_i64(w, S("line"), found->line);
        json_put_str(w, S("text"), found->text);
        json_object_end(w);
        return;
    }
    json_put_str(w, S("type"), entry->is_folder ? S("folder") : S("file"));
    if (!entry->is_folder)
        json_put_i64(w, S("bytes"), entry->bytes);
    if (entry->modified_us > 0)
        json_put_str(w, S("modified_at"), time_str(call->arena, entry->modified_us));
    if (found->is_upload)
        json_put_bool(w, S("read_only"), true);
    json_object_end(w);
}

static void write_members(struct json_writer *w, struct files_call *call)
{
    if (call->has_text) {
        bool is_text = str_is_utf8(call->text);
        json_put_str(w, S("content"),
                     is_text ? call->text : base64_encode(call->arena, call->text));
        if (!is_text)
            json_put_str(w, S("encoding"), S("base64"));
    } else if (call->has_stat) {
        json_key(w, S("stat"));
        write_found(w, call, &call->found[0]);
    } else {
        json_key(w, S("entries"));
        json_array_begin(w);
        for (size_t i = 0; i < call->found_count; i++)
            write_found(w, call, &call->found[i]);
        json_array_end(w);
        if (call->is_cut)
            json_put_bool(w, S("truncated"), true);
    }
}

static bool write_answer(struct files_call *call, struct arena *arena, str *out, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, SANDBOX_HOST_CALL_BYTES_MAX - 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_members(&w, call);
    json_object_end(&w);
    if (strbuf_is_over(&text))
        return error_set(e, REASON_TOO_LARGE, "the answer is over %u MiB as JSON",
                         SANDBOX_HOST_CALL_BYTES_MAX >> 20);
    *out = strbuf_str(&text);
    return true;
}

/* ---- the call ---- */

static bool check_upload_stays(const struct files_call *call, struct error *e)
{
    str first, rest;
    str_cut(call->path, '/', &first, &rest);
    const struct upload *upload = find_upload(call, first);
    return !is_change(call->operation) || !upload ||
           error_set(e, REASON_PERMISSION,
                     "\"" STR_FMT "\" was uploaded and is read-only: write to another name",
                     STR_ARG(str_cut_utf8(first, 120)));
}

/* Until the lock was had; another call of the session holds it for one change at most. */
may_suspend static bool work_through(struct files_call *call, struct context *ctx, struct error *e)
{
    for (;;) {
        bool has_run = blocking_call(ctx, work_on_pool, call, e);
        if (has_run && !call->is_busy)
            break;
        if (!has_run || !context_sleep_ms(ctx, HOST_FILES_LOCK_MS, e)) {
            workspace_close(call->workspace);
            call->workspace = NULL;
            return false;
        }
    }
    if (!call->is_ok)
        *e = call->error;
    return call->is_ok;
}

may_suspend static bool run_with(struct files_call *call, struct context *ctx, str input_json,
                                 str *output_json, struct error *e)
{
    const struct tool_request *request = call->request;
    int64_t max = call->permissions->max_file_bytes;
    call->bytes_max =
        max > 0 && max < (int64_t) HOST_FILES_BYTES_MAX ? (size_t) max : HOST_FILES_BYTES_MAX;
    call->folder =
        workspace_folder(call->arena, request->tenant_id, request->session_id, request->user_id);
    return read_request(call, input_json, e) && check_permission(call, e) &&
           (!is_change(call->operation) || check_size(call, call->content.len, e)) &&
           resolve_uploads(call, ctx, e) && check_upload_stays(call, e) &&
           work_through(call, ctx, e) && write_answer(call, ctx->arena, output_json, e);
}

may_suspend static bool run(void *owner, struct context *ctx, const struct tool_request *request,
                            str input_json, str *output_json, struct error *e)
{
    OWNED(arena) arena = arena_create(8 * (size_t) HOST_FILES_BYTES_MAX);
    struct files_call *call = ARENA_NEW(arena, struct files_call);
    *call = (struct files_call){.files = owner,
                                .request = request,
                                .permissions = &request->tool->permissions,
                                .arena = arena};
    return run_with(call, ctx, input_json, output_json, e) || error_wrap(e, "file_system");
}

struct host_call host_files(const struct host_files *files)
{
    return (struct host_call){
        .name = "file_system", .run = run, .owner = (void *) (uintptr_t) files};
}
