/*
 * A session as one document, for another place or for the drawer:
 *
 *      {"format": "nexus.session/1", "exported_at", "session": {...}, "files": [{name, bytes, sha256, content_type}],
 *       "messages": [...], "runs": [{..., "tool_calls": [...], "events": [...]}]}
 *
 * Written page by page: memory is that of one page.  The import reads it back (session_import.c): change both.
 */
#include "orchestrator/session/session_export.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_internal.h"

enum { PAGE_ROWS = 50, PIECE_BYTES_MAX = 256 << 20 };

struct writer {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    const struct session_export *to;
    struct strbuf text;
    struct json_writer w;
    bool has_item; /* of the array that is being written */
};

static struct json_writer *piece_begin(struct writer *x)
{
    strbuf_init(&x->text, x->ctx->arena, PIECE_BYTES_MAX);
    json_writer_init(&x->w, &x->text);
    return &x->w;
}

static bool piece_end(struct writer *x, struct error *e)
{
    return x->to->write(x->to->owner, strbuf_str(&x->text), e);
}

static bool put(struct writer *x, str text, struct error *e)
{
    return x->to->write(x->to->owner, text, e);
}

static bool separate(struct writer *x, struct error *e)
{
    bool had_item = x->has_item;
    x->has_item = true;
    return !had_item || put(x, S(","), e);
}

static bool write_row(struct writer *x, const struct record *row, struct error *e)
{
    if (!separate(x, e))
        return false;
    record_write_json(piece_begin(x), row);
    return piece_end(x, e);
}

/* Every row of a table that belongs to somebody, oldest first. */
struct listing {
    enum table table;
    int owner_column;
    uuid owner;
    bool (*write)(struct writer *x, const struct record *row, struct error *e); /* may suspend */
};
static bool write_rows(struct writer *x, const struct listing *listing, struct error *e)
{
    str cursor = STR_NONE;
    OWNED(arena) keep = arena_create(0);
    x->has_item = false;
    do {
        arena_mark mark = arena_save(x->ctx->arena);
        struct query query = query_of(listing->table);
        struct records page;
        query_where_uuid(&query, listing->owner_column, listing->owner);
        if (listing->table == TABLE_AGENT_RUNS)
            query_where_null(&query, AGENT_RUNS_REMOVED_AT, true);
        query.limit = PAGE_ROWS;
        query.cursor = cursor;
        if (!store_list(x->o->parts.store, x->ctx, x->tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!listing->write(x, &page.items[i], e))
                return false;
        arena_reset(keep);
        cursor = str_copy(keep, page.next_cursor);
        arena_rewind(x->ctx->arena, mark);
    } while (!str_is_empty(cursor));
    return true;
}

/* ---- parts of the document ---- */

static bool write_head(struct writer *x, const struct record *session, struct error *e)
{
    struct json_writer *w = piece_begin(x);
    json_object_begin(w);
    json_put_str(w, S("format"), SESSION_EXPORT_FORMAT);
    json_put_str(w, S("exported_at"), time_str(x->ctx->arena, clock_unix_us(x->o->parts.clock)));
    json_key(w, S("session"));
    json_object_begin(w);
    json_put_str(w, S("id"), uuid_str(x->ctx->arena, record_uuid(session, SESSIONS_ID)));
    json_put_str(w, S("user_id"), record_text(session, SESSIONS_USER_ID));
    json_put_str(w, S("agent"), record_text(session, SESSIONS_AGENT));
    json_put_str(w, S("status"), record_text(session, SESSIONS_STATUS));
    json_put_raw(w, S("budget"), record_text(session, SESSIONS_BUDGET));
    if (record_has(session, SESSIONS_DOUBLE_TEXT))
        json_put_str(w, S("double_text"), record_text(session, SESSIONS_DOUBLE_TEXT));
    if (record_has(session, SESSIONS_METADATA))
        json_put_raw(w, S("metadata"), record_text(session, SESSIONS_METADATA));
    if (record_has(session, SESSIONS_POLICY_CONTEXT))
        json_put_raw(w, S("policy_context"), record_text(session, SESSIONS_POLICY_CONTEXT));
    json_put_str(w, S("created_at"),
                 time_str(x->ctx->arena, record_integer(session, SESSIONS_CREATED_AT)));
    json_object_end(w);
    json_object_end(w);
    str head = strbuf_str(&x->text); /* the object goes on */
    return put(x, str_slice(head, 0, head.len - 1), e);
}

static bool write_file(struct writer *x, const struct record *row, struct error *e)
{
    if (!separate(x, e))
        return false;
    struct json_writer *w = piece_begin(x);
    json_object_begin(w);
    json_put_str(w, S("name"), record_text(row, SESSION_FILES_NAME));
    json_put_i64(w, S("bytes"), record_integer(row, SESSION_FILES_BYTES));
    json_put_str(w, S("sha256"), record_text(row, SESSION_FILES_DIGEST));
    json_put_str(w, S("content_type"), record_text(row, SESSION_FILES_CONTENT_TYPE));
    json_object_end(w);
    return piece_end(x, e);
}

static bool write_files(struct writer *x, uuid session_id, struct error *e)
{
    struct records files;
    arena_mark mark = arena_save(x->ctx->arena);
    x->has_item = false;
    if (!session_file_rows(x->o, x->ctx, x->tenant_id, session_id, &files, e))
        return false;
    for (size_t i = 0; i < files.count; i++)
        if (!write_file(x, &files.items[i], e))
            return false;
    arena_rewind(x->ctx->arena, mark);
    return true;
}

static bool write_events(struct writer *x, uuid run_id, struct error *e)
{
    int64_t after = 0;
    struct events events;
    x->has_item = false;
    do {
        arena_mark mark = arena_save(x->ctx->arena);
        if (!journal_read(x->o->parts.store, x->ctx, x->tenant_id, run_id, after, PAGE_ROWS,
                          &events, e))
            return false;
        for (size_t i = 0; i < events.count; i++) {
            const struct event *event = &events.items[i];
            if (!separate(x, e))
                return false;
            struct json_writer *w = piece_begin(x);
            json_object_begin(w);
            json_put_i64(w, S("seq"), event->seq);
            json_put_str(w, S("type"), str_from_cstr(event_type_name(event->type)));
            json_put_str(w, S("at"), time_str(x->ctx->arena, event->at_us));
            json_put_value(w, S("data"), event->data);
            json_object_end(w);
            if (!piece_end(x, e))
                return false;
            after = event->seq;
        }
        arena_rewind(x->ctx->arena, mark);
    } while (events.count == PAGE_ROWS);
    return true;
}

static bool write_run(struct writer *x, const struct record *row, struct error *e)
{
    uuid run_id = record_uuid(row, AGENT_RUNS_ID);
    struct listing calls = {TABLE_TOOL_CALLS, TOOL_CALLS_RUN_ID, run_id, write_row};
    if (!separate(x, e))
        return false;
    run_write_json(piece_begin(x), row);
    str run = strbuf_str(&x->text);
    bool ok = put(x, str_slice(run, 0, run.len - 1), e) && put(x, S(",\"tool_calls\":["), e) &&
              write_rows(x, &calls, e) && put(x, S("],\"events\":["), e) &&
              write_events(x, run_id, e) && put(x, S("]}"), e);
    x->has_item = true; /* the runs' own array again */
    return ok;
}

static bool audit_export(struct writer *x, const struct principal *principal, uuid session_id,
                         struct error *e)
{
    struct batch batch;
    batch_init(&batch, x->ctx->arena, x->tenant_id);
    audit_add(&batch, x->o->parts.clock, x->o->parts.random, principal,
              &(struct audit_entry){.action = S("session.export"),
                                    .resource_type = S("session"),
                                    .resource_id = uuid_str(x->ctx->arena, session_id)});
    return store_commit(x->o->parts.store, x->ctx, &batch, e);
}

bool session_export(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    uuid session_id, const struct session_export *to, struct error *e)
{
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    struct writer *x = ARENA_NEW(ctx->arena, struct writer);
    *x = (struct writer){.o = o, .ctx = ctx, .tenant_id = principal->tenant_id, .to = to};
    struct listing messages = {TABLE_MESSAGES, MESSAGES_SESSION_ID, session_id, write_row};
    struct listing runs = {TABLE_AGENT_RUNS, AGENT_RUNS_SESSION_ID, session_id, write_run};
    return session_get(o, ctx, principal, session_id, session, e) &&
           audit_export(x, principal, session_id, e) && write_head(x, session, e) &&
           put(x, S(",\"files\":["), e) && write_files(x, session_id, e) &&
           put(x, S("],\"messages\":["), e) && write_rows(x, &messages, e) &&
           put(x, S("],\"runs\":["), e) && write_rows(x, &runs, e) && put(x, S("]}"), e);
}
