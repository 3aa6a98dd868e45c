#include "orchestrator/workflow/schedule_internal.h"

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/policy/audit.h"
#include "orchestrator/workflow/workflow_store.h"
#include "runtime/loop.h"

#include <errno.h>
#include <stdio.h>

/* ---- time zones ---- */

struct zone_file {
    const char *path;
    char *bytes;
    size_t len;
    int failure; /* errno; 0: it was read */
};

static void read_zone_file(void *argument)
{
    struct zone_file *file = argument;
    FILE *stream = fopen(file->path, "rbe");
    if (!stream) {
        file->failure = errno;
        return;
    }
    file->len = fread(file->bytes, 1, ZONE_BYTES_MAX, stream);
    if (ferror(stream))
        file->failure = errno;
    fclose(stream);
}

/* The rest (out of files or memory, a disk that fails) goes away, and the zone is there as before. */
static bool is_no_such_file(int failure)
{
    return failure == ENOENT || failure == ENOTDIR || failure == EISDIR || failure == EACCES ||
           failure == ELOOP || failure == ENAMETOOLONG;
}

static bool load_zone(struct context *ctx, str name, const struct zone **out, struct error *e)
{
    if (str_is_empty(name) || str_equal(name, S("UTC"))) {
        *out = zone_utc();
        return true;
    }
    if (!zone_name_is_lawful(name))
        return error_set(e, REASON_SCHEMA, "time_zone must be a name such as Europe/Berlin");
    struct zone_file file = {
        .path = str_to_cstr(ctx->arena,
                            str_printf(ctx->arena, "/usr/share/zoneinfo/" STR_FMT, STR_ARG(name))),
        .bytes = arena_alloc_raw(ctx->arena, ZONE_BYTES_MAX),
    };
    if (!blocking_call(ctx, read_zone_file, &file, e))
        return false;
    if (file.failure != 0 && !is_no_such_file(file.failure))
        return error_set(e, REASON_UNAVAILABLE, "the time zone \"" STR_FMT "\" cannot be read now",
                         STR_ARG(name));
    if (file.failure != 0 || !zone_read(ctx->arena, str_of(file.bytes, file.len), out, e))
        return error_set(
            e, REASON_SCHEMA,
            "the time zone \"" STR_FMT "\" is not known to this system; write one of "
            "the IANA names, such as Europe/Berlin (they come with the package tzdata)",
            STR_ARG(name));
    return true;
}

bool schedule_times_read(struct context *ctx, str cron, str time_zone, struct schedule_times *out,
                         struct error *e)
{
    if (!cron_parse(cron, &out->cron, e)) {
        e->reason = REASON_SCHEMA;
        return error_wrap(e, "cron");
    }
    return load_zone(ctx, time_zone, &out->zone, e);
}

void schedule_cut_workflow(str text, str *name, str *range)
{
    *range = STR_NONE;
    (void) str_cut(text, '@', name, range);
}

/* ---- what is asked for ---- */

static bool is_name(str text)
{
    if (text.len == 0 || text.len > 64)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!is_word && (i == 0 || (c != '-' && c != '.')))
            return false;
    }
    return true;
}

static bool is_one_of(const char *what, str *text, const str *choices, size_t count,
                      struct error *e)
{
    if (str_is_empty(*text))
        *text = choices[0];
    for (size_t i = 0; i < count; i++)
        if (str_equal(*text, choices[i]))
            return true;
    return error_set(e, REASON_SCHEMA, "%s must be " STR_FMT ", " STR_FMT " or " STR_FMT, what,
                     STR_ARG(choices[0]), STR_ARG(choices[1]), STR_ARG(choices[2]));
}

static bool check_request(struct schedule_request *request, struct error *e)
{
    static const str missed[] = {S_INIT("one"), S_INIT("skip"), S_INIT("all")};
    static const str overlap[] = {S_INIT("skip"), S_INIT("allow"), S_INIT("cancel")};
    if (!is_name(request->name))
        return error_set(e, REASON_SCHEMA,
                         "a schedule's name has at most 64 letters, digits, _, "
                         "and (not first) - and .");
    if (str_is_empty(request->input))
        request->input = S("{}");
    if (str_is_empty(request->time_zone))
        request->time_zone = S("UTC");
    if (request->input.len > SCHEDULE_INPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the input has %zu bytes; a schedule keeps %u",
                         request->input.len, SCHEDULE_INPUT_BYTES_MAX);
    return is_one_of("missed", &request->missed, missed, ARRAY_COUNT(missed), e) &&
           is_one_of("overlap", &request->overlap, overlap, ARRAY_COUNT(overlap), e);
}

/* It is there, and the input fits it: now, for whoever puts the schedule; later versions are looked at when they start. */
static bool check_workflow(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal,
                           const struct schedule_request *request, struct error *e)
{
    struct workflow_entry *entry;
    str name, range;
    schedule_cut_workflow(request->workflow, &name, &range);
    if (!workflow_resolve(o, ctx, principal->tenant_id, name, range, &entry, e))
        return false;
    const struct definition *definition = workflow_entry_definition(entry);
    str agent = str_printf(ctx->arena, "workflow:" STR_FMT, STR_ARG(definition->name));
    bool ok = principal_check_model(principal, agent, e) &&
              workflow_check_input(ctx, definition, request->input, e);
    workflow_entry_release(entry);
    return ok;
}

/* ---- rows ---- */

static never_inline bool find(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                              struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_SCHEDULES);
    record_set_text(&key, SCHEDULES_NAME, name);
    return store_get(o->parts.store, ctx, tenant_id, &key, out, e);
}

bool schedule_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  str name, struct record *out, struct error *e)
{
    bool ok = find(o, ctx, principal->tenant_id, name, out, e);
    if (!ok && e->code != ERROR_NOT_FOUND)
        return false;
    if (ok && principal_sees_user(principal, record_text(out, SCHEDULES_USER_ID)))
        return true;
    return error_set(e, REASON_NOT_FOUND, "there is no schedule \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(name, 64)));
}

bool schedule_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_SCHEDULES);
    query.cursor = cursor;
    query.limit = limit;
    if (principal->level < ROLE_LEVEL_OPERATOR)
        query_where_text(&query, SCHEDULES_USER_ID, principal->user_id);
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

static void audit(struct orchestrator *o, struct batch *batch, const struct principal *principal,
                  const char *action, str name, str details)
{
    audit_add(batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){
                  .action = str_from_cstr(action),
                  .resource_type = S("schedule"),
                  .resource_id = name,
                  .details = details,
              });
}

static void fill_row(struct record *row, const struct principal *principal,
                     const struct schedule_request *request, int64_t now_us)
{
    record_set_text(row, SCHEDULES_NAME, request->name);
    record_set_text(row, SCHEDULES_WORKFLOW, request->workflow);
    record_set_text(row, SCHEDULES_CRON, request->cron);
    record_set_text(row, SCHEDULES_TIME_ZONE, request->time_zone);
    record_set_text(row, SCHEDULES_INPUT, request->input);
    record_set_text(row, SCHEDULES_MISSED, request->missed);
    record_set_text(row, SCHEDULES_OVERLAP, request->overlap);
    record_set_integer(row, SCHEDULES_IS_PAUSED, request->is_paused);
    record_set_text(row, SCHEDULES_USER_ID, principal->user_id);
    record_set_text(row, SCHEDULES_ROLE, principal->role);
    if (uuid_is_none(principal->key_id))
        record_set_null(row, SCHEDULES_KEY_ID);
    else
        record_set_uuid(row, SCHEDULES_KEY_ID, principal->key_id);
    record_set_null(row, SCHEDULES_LAST_ERROR);
    record_set_integer(row, SCHEDULES_UPDATED_AT, now_us);
}

static bool count_is_free(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                          struct error *e)
{
    struct query query = query_of(TABLE_SCHEDULES);
    size_t count = 0;
    do {
        struct records page;
        if (!store_list(o->parts.store, ctx, tenant_id, &query, &page, e))
            return false;
        count += page.count;
        query.cursor = page.next_cursor;
    } while (!str_is_empty(query.cursor) && count < SCHEDULES_MAX);
    return count < SCHEDULES_MAX ||
           error_set(e, REASON_LIMIT, "there are %zu schedules, at most %d may be kept", count,
                     SCHEDULES_MAX);
}

/* The first time from now on; `next_at` stays null of one that is paused. */
static bool set_next(struct record *row, const struct schedule_times *times, bool is_paused,
                     int64_t now_us, struct error *e)
{
    int64_t next_us;
    if (!cron_next(&times->cron, times->zone, now_us, &next_us))
        return error_set(e, REASON_SCHEMA, "cron: no such day ever comes");
    if (is_paused)
        record_set_null(row, SCHEDULES_NEXT_AT);
    else
        record_set_integer(row, SCHEDULES_NEXT_AT, next_us);
    return true;
}

static never_inline bool write_row(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal,
                                   const struct schedule_request *request, const struct record *old,
                                   const struct schedule_times *times, struct error *e)
{
    struct batch batch;
    int64_t now_us = clock_unix_us(o->parts.clock);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, old ? WRITE_UPDATE : WRITE_INSERT, TABLE_SCHEDULES);
    fill_row(row, principal, request, now_us);
    if (!set_next(row, times, request->is_paused, now_us, e))
        return false;
    record_set_integer(row, SCHEDULES_REVISION,
                       old ? record_integer(old, SCHEDULES_REVISION) + 1 : 1);
    if (old)
        batch_where_integer(&batch, SCHEDULES_REVISION, record_integer(old, SCHEDULES_REVISION));
    audit(o, &batch, principal, "schedule.put", request->name,
          str_printf(ctx->arena, "{\"workflow\":\"" STR_FMT "\"}", STR_ARG(request->workflow)));
    return store_commit(o->parts.store, ctx, &batch, e);
}

bool schedule_put(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  const struct schedule_request *request, struct record *out, bool *is_new,
                  struct error *e)
{
    struct schedule_request asked = *request;
    struct schedule_times times;
    struct record old;
    struct error missing = {0};
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not keep schedules");
    if (!check_request(&asked, e) ||
        !schedule_times_read(ctx, asked.cron, asked.time_zone, &times, e) ||
        !check_workflow(o, ctx, principal, &asked, e))
        return false;
    bool is_there = find(o, ctx, principal->tenant_id, asked.name, &old, &missing);
    if (!is_there && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    if (is_there && !principal_sees_user(principal, record_text(&old, SCHEDULES_USER_ID)))
        return error_set(e, REASON_CONFLICT, "the name \"" STR_FMT "\" is taken",
                         STR_ARG(asked.name));
    if ((!is_there && !count_is_free(o, ctx, principal->tenant_id, e)) ||
        !write_row(o, ctx, principal, &asked, is_there ? &old : NULL, &times, e))
        return false;
    *is_new = !is_there;
    return find(o, ctx, principal->tenant_id, asked.name, out, e);
}

bool schedule_remove(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     str name, struct error *e)
{
    struct record row;
    struct batch batch;
    if (!schedule_get(o, ctx, principal, name, &row, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not remove schedules");
    batch_init(&batch, ctx->arena, principal->tenant_id);
    record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_SCHEDULES), SCHEDULES_NAME, name);
    audit(o, &batch, principal, "schedule.remove", name, STR_NONE);
    return store_commit(o->parts.store, ctx, &batch, e);
}

/* Asked again, its answer was lost: nothing changes, least of all the time that is due.  One that had no next time is counted anew. */
static bool is_so_already(const struct record *row, bool is_paused)
{
    bool was_paused = record_integer(row, SCHEDULES_IS_PAUSED) != 0;
    return was_paused == is_paused && (is_paused || record_has(row, SCHEDULES_NEXT_AT));
}

bool schedule_pause(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    str name, bool is_paused, struct record *out, struct error *e)
{
    struct schedule_times times;
    struct record old;
    struct batch batch;
    int64_t now_us = clock_unix_us(o->parts.clock);
    if (!schedule_get(o, ctx, principal, name, &old, e))
        return false;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not pause schedules");
    if (is_so_already(&old, is_paused)) {
        *out = old;
        return true;
    }
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SCHEDULES);
    record_set_text(row, SCHEDULES_NAME, name);
    record_set_integer(row, SCHEDULES_IS_PAUSED, is_paused);
    record_set_integer(row, SCHEDULES_UPDATED_AT, now_us);
    record_set_integer(row, SCHEDULES_REVISION, record_integer(&old, SCHEDULES_REVISION) + 1);
    if (!schedule_times_read(ctx, record_text(&old, SCHEDULES_CRON),
                             record_text(&old, SCHEDULES_TIME_ZONE), &times, e) ||
        !set_next(row, &times, is_paused, now_us, e))
        return false;
    batch_where_integer(&batch, SCHEDULES_REVISION, record_integer(&old, SCHEDULES_REVISION));
    audit(o, &batch, principal, is_paused ? "schedule.pause" : "schedule.resume", name, STR_NONE);
    return store_commit(o->parts.store, ctx, &batch, e) &&
           find(o, ctx, principal->tenant_id, name, out, e);
}

bool schedule_run_now(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, str name, uuid *run_id, uuid *session_id,
                      struct error *e)
{
    struct record row;
    struct workflow_request request = {.budget = COST_LIMITLESS};
    if (!schedule_get(o, ctx, principal, name, &row, e))
        return false;
    schedule_cut_workflow(record_text(&row, SCHEDULES_WORKFLOW), &request.name, &request.range);
    request.input = record_text(&row, SCHEDULES_INPUT);
    return workflow_start(o, ctx, principal, &request, run_id, session_id, e);
}
