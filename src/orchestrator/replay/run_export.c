#include "orchestrator/replay/run_export.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/replay/run_recording.h"
#include "orchestrator/row_json.h"

/* One export on its way. */
struct run_exporting {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id, run_id;
    struct record run, session;
    struct json_writer w;
    struct strbuf text;
    uuid *runs; /* whose tool calls are needed */
    size_t run_count, run_capacity;
    str *environments;
    size_t environment_count;
    str *workflows;
    size_t workflow_count;
};

/* ---- events ---- */

static bool is_known(const struct run_exporting *x, str wanted)
{
    for (size_t i = 0; i < x->environment_count; i++)
        if (str_equal(x->environments[i], wanted))
            return true;
    return false;
}

static void note_environment(struct run_exporting *x, const struct event *event)
{
    str name = json_str_or(event->data, S("environment"), STR_NONE);
    enum { MOST = 64 };
    if (!recording_names_environment(event->type) || str_is_empty(name) || is_known(x, name) ||
        x->environment_count == MOST)
        return;
    if (!x->environments)
        x->environments = ARENA_ARRAY(x->ctx->arena, str, MOST);
    x->environments[x->environment_count++] = str_copy(x->ctx->arena, name);
}

static void write_event(struct json_writer *w, const struct event *event)
{
    json_object_begin(w);
    json_put_i64(w, S("seq"), event->seq);
    json_put_str(w, S("type"), str_from_cstr(event_type_name(event->type)));
    json_put_i64(w, S("v"), event_type_version(event->type));
    json_put_i64(w, S("at"), event->at_us);
    json_put_value(w, S("data"), event->data);
    json_object_end(w);
}

static bool add_events(struct run_exporting *x, struct error *e)
{
    int64_t after = 0;
    json_key(&x->w, S("events"));
    json_array_begin(&x->w);
    for (;;) {
        struct events events;
        if (!journal_read(x->o->parts.store, x->ctx, x->tenant_id, x->run_id, after, STORE_PAGE_MAX,
                          &events, e))
            return false;
        for (size_t i = 0; i < events.count; i++) {
            write_event(&x->w, &events.items[i]);
            note_environment(x, &events.items[i]);
            after = events.items[i].seq;
        }
        if (events.count < STORE_PAGE_MAX)
            break;
        if (after > RUN_EXPORT_EVENTS_MAX || strbuf_is_over(&x->text))
            return error_set(e, REASON_TOO_LARGE, "the run has more than an export can hold");
    }
    json_array_end(&x->w);
    return true;
}

/* ---- rows ---- */

static bool list_all(struct run_exporting *x, struct query *query, size_t max, struct record **out,
                     size_t *count, struct error *e)
{
    size_t capacity = 0;
    *out = NULL;
    *count = 0;
    for (;;) {
        struct records page;
        if (*count >= max)
            return true;
        query->limit = max - *count < STORE_PAGE_MAX ? max - *count : STORE_PAGE_MAX;
        if (!store_list(x->o->parts.store, x->ctx, x->tenant_id, query, &page, e))
            return false;
        if (*count + page.count > capacity) {
            size_t more = (*count + page.count) * 2;
            *out = arena_grow(x->ctx->arena, *out, capacity * sizeof **out, more * sizeof **out);
            capacity = more;
        }
        for (size_t i = 0; i < page.count; i++)
            (*out)[(*count)++] = page.items[i];
        if (str_is_empty(page.next_cursor))
            return true;
        query->cursor = page.next_cursor;
    }
}

static void note_run(struct run_exporting *x, uuid run_id)
{
    if (x->run_count > 0 &&
        (uuid_equal(x->runs[x->run_count - 1], run_id) || uuid_equal(x->runs[0], run_id)))
        return; /* messages of one run stand together */
    if (x->run_count == x->run_capacity) {
        size_t capacity = x->run_capacity ? x->run_capacity * 2 : 16;
        x->runs = arena_grow(x->ctx->arena, x->runs, x->run_capacity * sizeof *x->runs,
                             capacity * sizeof *x->runs);
        x->run_capacity = capacity;
    }
    x->runs[x->run_count++] = run_id;
}

/* Of a session and of those it was forked from: the newest first, up to `up_to` (UUID_NONE: all). */
static bool add_messages_of(struct run_exporting *x, uuid session_id, uuid up_to, size_t *room,
                            int depth, struct error *e)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct record *rows, key = record_of(TABLE_SESSIONS),
                         *session = ARENA_NEW(x->ctx->arena, struct record);
    size_t count;
    query_where_uuid(&query, MESSAGES_SESSION_ID, session_id);
    query.is_descending = true;
    if (!list_all(x, &query, *room, &rows, &count, e))
        return false;
    for (size_t i = 0; i < count; i++) {
        uuid id = record_uuid(&rows[i], MESSAGES_ID);
        uuid of = record_uuid(&rows[i], MESSAGES_RUN_ID);
        if (!uuid_is_none(up_to) && memcmp(&id, &up_to, sizeof id) > 0)
            continue;
        row_write_json(&x->w, &rows[i]);
        if (!uuid_is_none(of))
            note_run(x, of);
        --*room;
    }
    record_set_uuid(&key, SESSIONS_ID, session_id);
    if (*room == 0 || depth >= RUN_FORK_DEPTH_MAX)
        return true;
    if (!store_get(x->o->parts.store, x->ctx, x->tenant_id, &key, session, e))
        return false;
    return !record_has(session, SESSIONS_FORKED_FROM) ||
           add_messages_of(x, record_uuid(session, SESSIONS_FORKED_FROM),
                           record_uuid(session, SESSIONS_FORKED_AT), room, depth + 1, e);
}

/* The newest message of the run: later ones of the session are none of its business. */
static bool last_message(struct run_exporting *x, uuid *out, struct error *e)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct records rows;
    query_where_uuid(&query, MESSAGES_RUN_ID, x->run_id);
    query.is_descending = true;
    query.limit = 1;
    *out = UUID_NONE;
    if (!store_list(x->o->parts.store, x->ctx, x->tenant_id, &query, &rows, e))
        return false;
    if (rows.count > 0)
        *out = record_uuid(&rows.items[0], MESSAGES_ID);
    return true;
}

static bool add_messages(struct run_exporting *x, struct error *e)
{
    uuid last;
    size_t room = RUN_EXPORT_MESSAGES_MAX;
    json_key(&x->w, S("messages"));
    json_array_begin(&x->w);
    note_run(x, x->run_id);
    if (!last_message(x, &last, e) ||
        !add_messages_of(x, record_uuid(&x->session, SESSIONS_ID), last, &room, 0, e))
        return false;
    json_array_end(&x->w);
    return true;
}

static bool add_rows(struct run_exporting *x, const char *member, struct query *query,
                     struct error *e)
{
    struct record *rows;
    size_t count;
    json_key(&x->w, str_from_cstr(member));
    json_array_begin(&x->w);
    if (!list_all(x, query, RUN_EXPORT_EVENTS_MAX, &rows, &count, e))
        return false;
    for (size_t i = 0; i < count; i++)
        row_write_json(&x->w, &rows[i]);
    json_array_end(&x->w);
    return true;
}

static bool add_approvals(struct run_exporting *x, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    query_where_uuid(&query, APPROVALS_RUN_ID, x->run_id);
    return add_rows(x, "approvals", &query, e);
}

/* What each person said on them. */
static bool add_votes(struct run_exporting *x, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct record *approvals;
    size_t count;
    query_where_uuid(&query, APPROVALS_RUN_ID, x->run_id);
    if (!list_all(x, &query, RUN_EXPORT_EVENTS_MAX, &approvals, &count, e))
        return false;
    json_key(&x->w, S("votes"));
    json_array_begin(&x->w);
    for (size_t i = 0; i < count; i++) {
        struct query votes = query_of(TABLE_APPROVAL_VOTES);
        struct record *rows;
        size_t vote_count;
        query_where_uuid(&votes, APPROVAL_VOTES_APPROVAL_ID,
                         record_uuid(&approvals[i], APPROVALS_ID));
        if (!list_all(x, &votes, RUN_EXPORT_EVENTS_MAX, &rows, &vote_count, e))
            return false;
        for (size_t k = 0; k < vote_count; k++)
            row_write_json(&x->w, &rows[k]);
    }
    json_array_end(&x->w);
    return true;
}

static bool add_files(struct run_exporting *x, struct error *e)
{
    struct query query = query_of(TABLE_SESSION_FILES);
    query_where_uuid(&query, SESSION_FILES_SESSION_ID, record_uuid(&x->session, SESSIONS_ID));
    return add_rows(x, "files", &query, e);
}

static bool add_tool_calls(struct run_exporting *x, struct error *e)
{
    json_key(&x->w, S("tool_calls"));
    json_array_begin(&x->w);
    for (size_t k = 0; k < x->run_count; k++) {
        struct query query = query_of(TABLE_TOOL_CALLS);
        struct record *rows;
        size_t count;
        query_where_uuid(&query, TOOL_CALLS_RUN_ID, x->runs[k]);
        if (!list_all(x, &query, RUN_EXPORT_EVENTS_MAX, &rows, &count, e))
            return false;
        for (size_t i = 0; i < count; i++)
            row_write_json(&x->w, &rows[i]);
    }
    json_array_end(&x->w);
    return true;
}

static bool add_environments(struct run_exporting *x, struct error *e)
{
    json_key(&x->w, S("environments"));
    json_object_begin(&x->w);
    for (size_t i = 0; i < x->environment_count; i++) {
        struct record key = record_of(TABLE_RUN_ENVIRONMENTS),
                      *row = ARENA_NEW(x->ctx->arena, struct record);
        struct error missing = {0};
        record_set_text(&key, RUN_ENVIRONMENTS_DIGEST, x->environments[i]);
        if (store_get(x->o->parts.store, x->ctx, x->tenant_id, &key, row, &missing))
            json_put_raw(&x->w, x->environments[i], record_text(row, RUN_ENVIRONMENTS_CONTENT));
        else if (missing.code != ERROR_NOT_FOUND)
            return error_copy(e, &missing);
    }
    json_object_end(&x->w);
    return true;
}

/* ---- runs that it started: how they ended ---- */

/* The definition that a run is pinned to: "name@version". */
static void note_workflow(struct run_exporting *x, const struct record *run)
{
    str pinned = record_text(run, AGENT_RUNS_WORKFLOW);
    for (size_t i = 0; i < x->workflow_count; i++)
        if (str_equal(x->workflows[i], pinned))
            return;
    if (str_is_empty(pinned))
        return;
    x->workflows = arena_grow(x->ctx->arena, x->workflows, x->workflow_count * sizeof pinned,
                              (x->workflow_count + 1) * sizeof pinned);
    x->workflows[x->workflow_count++] = str_copy(x->ctx->arena, pinned);
}

static bool add_child(struct run_exporting *x, const struct record *run, struct error *e)
{
    uuid id = record_uuid(run, AGENT_RUNS_ID);
    struct query query = query_of(TABLE_MESSAGES);
    struct events last;
    note_workflow(x, run);
    json_object_begin(&x->w);
    json_key(&x->w, S("run"));
    row_write_json(&x->w, run);
    query_where_uuid(&query, MESSAGES_RUN_ID, id);
    if (!add_rows(x, "messages", &query, e) ||
        !journal_read(x->o->parts.store, x->ctx, x->tenant_id, id,
                      record_integer(run, AGENT_RUNS_LAST_SEQ) - 1, 1, &last, e))
        return false;
    json_key(&x->w, S("events"));
    json_array_begin(&x->w);
    for (size_t i = 0; i < last.count; i++)
        write_event(&x->w, &last.items[i]);
    json_array_end(&x->w);
    json_object_end(&x->w);
    return true;
}

static bool add_children(struct run_exporting *x, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records page = {0};
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, x->run_id);
    query_where_null(&query, AGENT_RUNS_REMOVED_AT, true);
    json_key(&x->w, S("children"));
    json_array_begin(&x->w);
    do {
        query.cursor = page.next_cursor;
        if (!store_list(x->o->parts.store, x->ctx, x->tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!add_child(x, &page.items[i], e))
                return false;
    } while (!str_is_empty(page.next_cursor));
    json_array_end(&x->w);
    return true;
}

/* ---- of an instance of a workflow ---- */

static bool add_workflows(struct run_exporting *x, struct error *e)
{
    json_key(&x->w, S("workflows"));
    json_array_begin(&x->w);
    for (size_t i = 0; i < x->workflow_count; i++) {
        struct record key = record_of(TABLE_WORKFLOWS),
                      *row = ARENA_NEW(x->ctx->arena, struct record);
        str name, version;
        (void) str_cut(x->workflows[i], '@', &name, &version);
        record_set_text(&key, WORKFLOWS_NAME, name);
        record_set_text(&key, WORKFLOWS_VERSION, version);
        if (!store_get(x->o->parts.store, x->ctx, x->tenant_id, &key, row, e))
            return error_wrap(e, "definition of workflow " STR_FMT, STR_ARG(x->workflows[i]));
        row_write_json(&x->w, row);
    }
    json_array_end(&x->w);
    return true;
}

static bool add_signals(struct run_exporting *x, struct error *e)
{
    struct query query = query_of(TABLE_RUN_SIGNALS);
    query_where_uuid(&query, RUN_SIGNALS_RUN_ID, x->run_id);
    return add_rows(x, "signals", &query, e);
}

/* ---- the document ---- */

static void write_head(struct run_exporting *x)
{
    json_put_str(&x->w, S("format"), S("nexus.run"));
    json_put_i64(&x->w, S("version"), RUN_EXPORT_VERSION);
    json_put_str(&x->w, S("tenant_id"), uuid_str(x->ctx->arena, x->tenant_id));
    json_key(&x->w, S("run"));
    row_write_json(&x->w, &x->run);
    json_key(&x->w, S("session"));
    row_write_json(&x->w, &x->session);
}

static bool write_document(struct run_exporting *x, struct error *e)
{
    json_object_begin(&x->w);
    write_head(x);
    note_workflow(x, &x->run);
    if (!add_events(x, e) || !add_messages(x, e) || !add_tool_calls(x, e) || !add_approvals(x, e) ||
        !add_votes(x, e) || !add_files(x, e) || !add_environments(x, e) || !add_children(x, e) ||
        !add_workflows(x, e) || !add_signals(x, e))
        return false;
    json_object_end(&x->w);
    return true;
}

/* What was read while the run was being removed may lack anything: that is no export, and no other failure either. */
static never_inline bool write_whole(struct run_exporting *x, const struct principal *principal,
                                     struct error *e)
{
    bool is_written = write_document(x, e);
    struct error removed = {0};
    if (!run_get(x->o, x->ctx, principal, x->run_id, &x->run, &removed))
        return error_copy(e, &removed);
    return is_written;
}

bool run_export(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                uuid run_id, str *out, struct error *e)
{
    struct run_exporting *x = ARENA_NEW(ctx->arena, struct run_exporting);
    struct record key = record_of(TABLE_SESSIONS);
    x->o = o;
    x->ctx = ctx;
    x->tenant_id = principal->tenant_id;
    x->run_id = run_id;
    if (!run_get(o, ctx, principal, run_id, &x->run, e))
        return false;
    record_set_uuid(&key, SESSIONS_ID, record_uuid(&x->run, AGENT_RUNS_SESSION_ID));
    if (!store_get(o->parts.store, ctx, x->tenant_id, &key, &x->session, e))
        return error_wrap(e, "the run's session");
    strbuf_init(&x->text, ctx->arena, RUN_EXPORT_BYTES_MAX);
    json_writer_init(&x->w, &x->text);
    if (!write_whole(x, principal, e))
        return false;
    if (strbuf_is_over(&x->text))
        return error_set(e, REASON_TOO_LARGE, "the run's export is over %u bytes",
                         RUN_EXPORT_BYTES_MAX);
    *out = strbuf_str(&x->text);
    return true;
}
