/* The store contract over the writer and reader threads. */
#include "base/ensure.h"
#include "base/log.h"
#include "store/check.h"
#include "store/cursor.h"
#include "store/sqlite/database_internal.h"
#include <stdlib.h>

static struct sqlite_database *database_of(struct store *store)
{
    return CONTAINER_OF(store, struct sqlite_store, base)->database;
}

/* ---- writing ---- */

struct commit_job {
    struct job job;
    const struct batch *batch;
};

static bool commit_run(struct job_thread *writer, struct job *job, struct error *e)
{
    return write_batch(writer, CONTAINER_OF(job, struct commit_job, job)->batch, e);
}

static void commit_job_init(struct commit_job *commit, const struct batch *batch)
{
    commit->batch = batch;
    commit->job.run = commit_run;
    commit->job.fault = batch->fault;
    commit->job.notice = &batch->notice;
    commit->job.row_count = batch->count ? batch->count : 1;
    for (size_t i = 0; i < batch->count; i++)
        commit->job.bytes += record_bytes(&batch->writes[i].record);
}

static bool commit(struct store *store, struct context *ctx, const struct batch *batch,
                   struct error *e)
{
    struct commit_job commit = {0};
    commit_job_init(&commit, batch);
    return job_do(&database_of(store)->writes, ctx, &commit.job, e);
}

/* A batch of its own, in one block with its texts. */
struct submitted {
    struct commit_job commit;
    struct sqlite_database *database;
    struct batch batch;
    struct fence fence;
    struct write writes[];
};

static str text_take(char **end, str text)
{
    if (text.len == 0)
        return text;
    memcpy(*end, text.ptr, text.len);
    *end += text.len;
    return str_of(*end - text.len, text.len);
}

static str where_text(const struct write *write)
{
    if (write->where_column < 0)
        return STR_NONE;
    return value_text(table_def(write->record.table)->columns[write->where_column].type,
                      &write->where_value);
}

static struct submitted *submitted_create(const struct batch *batch)
{
    struct submitted *copy;
    size_t head = sizeof *copy + batch->count * sizeof(copy->writes[0]);
    size_t texts = batch->fence ? batch->fence->node.len : 0;
    for (size_t i = 0; i < batch->count; i++)
        texts += record_bytes(&batch->writes[i].record) + where_text(&batch->writes[i]).len;
    copy = malloc(head + texts);
    ensure(copy);
    memset(copy, 0, sizeof *copy);
    char *end = (char *) copy + head;
    for (size_t i = 0; i < batch->count; i++) {
        struct write *write = &copy->writes[i];
        *write = batch->writes[i];
        const struct table_def *def = table_def(write->record.table);
        for (int c = 0; c < def->column_count; c++)
            if (write->record.has & 1u << c &&
                value_text(def->columns[c].type, &write->record.values[c]).len > 0)
                write->record.values[c].text = text_take(&end, write->record.values[c].text);
        if (where_text(write).len > 0)
            write->where_value.text = text_take(&end, write->where_value.text);
    }
    copy->batch = (struct batch){.tenant_id = batch->tenant_id,
                                 .writes = copy->writes,
                                 .count = batch->count,
                                 .notice = batch->notice,
                                 .fault = batch->fault};
    if (batch->fence) {
        copy->fence = *batch->fence;
        copy->fence.node = text_take(&end, batch->fence->node);
        copy->batch.fence = &copy->fence;
    }
    commit_job_init(&copy->commit, &copy->batch);
    copy->commit.job.bytes += head;
    return copy;
}

static void submitted_finish(struct job *job, bool is_ok, struct error *failure)
{
    struct submitted *submitted = CONTAINER_OF(job, struct submitted, commit.job);
    if (!is_ok) {
        atomic_fetch_add_explicit(&submitted->database->failed_submit_count, 1,
                                  memory_order_relaxed);
        LOG_ERROR("store", S("a submitted batch was not stored"), failure);
        if (job->notice && job->notice->failed)
            job->notice->failed(job->notice, failure);
    }
    free(submitted);
}

static bool submit(struct store *store, const struct batch *batch, struct error *e)
{
    struct submitted *submitted = submitted_create(batch);
    submitted->database = database_of(store);
    submitted->commit.job.finish = submitted_finish;
    if (job_queue_put(&submitted->database->writes, &submitted->commit.job, e))
        return true;
    free(submitted);
    return false;
}

struct claim_job {
    struct job job;
    uuid tenant_id, session_id;
    str node;
    int64_t epoch;
};

static bool claim_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct claim_job *claim = CONTAINER_OF(job, struct claim_job, job);
    struct connection *connection = &writer->connection;
    sqlite3_stmt *statement = connection_fixed(connection, FIXED_CLAIM, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, claim->tenant_id);
    bind_uuid(connection, statement, 2, claim->session_id);
    bind_text(statement, 3, claim->node);
    bool has_row;
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    if (!has_row)
        return error_set(e, REASON_NOT_FOUND, "sessions: no such row");
    claim->epoch = sqlite3_column_int64(statement, 0);
    return connection_run(connection, statement, e); /* to its end: only then is the update done */
}

static bool claim(struct store *store, struct context *ctx, uuid tenant_id, uuid session_id,
                  str node, int64_t *epoch, struct error *e)
{
    struct claim_job claim = {
        .job = {.run = claim_run, .row_count = 1},
        .tenant_id = tenant_id,
        .session_id = session_id,
        .node = node,
    };
    if (!job_do(&database_of(store)->writes, ctx, &claim.job, e))
        return false;
    *epoch = claim.epoch;
    return true;
}

/* ---- reading ---- */

/*
 * Rows are read into an arena of the job's own, made by the reader; the coroutine copies them to
 * its own and destroys it.
 */
struct read_job {
    struct job job;
    const uuid *tenant_id; /* NULL: all */
    const struct record *key;
    const struct query *query;
    struct arena *arena;
    struct records rows;
    uuid *tenant_ids;
    struct audit_report report;
};

static bool get_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct read_job *read = CONTAINER_OF(job, struct read_job, job);
    struct connection *connection = &reader->connection;
    const struct table_def *def = table_def(read->key->table);
    struct statement_key key;
    memset(&key, 0, sizeof key);
    key.kind = STATEMENT_GET;
    key.table = (uint8_t) read->key->table;
    sqlite3_stmt *statement = connection_statement(connection, &key, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, PARAMETER_TENANT, *read->tenant_id);
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY)
            bind_value(connection, statement, PARAMETER_COLUMN + i, def->columns[i].type,
                       &read->key->values[i]);
    bool has_row;
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    if (!has_row)
        return error_set(e, REASON_NOT_FOUND, "%s: no such row", def->name);
    read->rows.items = ARENA_NEW(read->arena, struct record);
    bool is_ok = column_record(statement, 1, read->key->table, read->arena, read->rows.items, e);
    sqlite3_reset(statement);
    return is_ok;
}

static sqlite3_stmt *list_statement(struct connection *connection, const struct query *query,
                                    bool is_any_tenant, struct error *e)
{
    struct statement_key key;
    memset(&key, 0, sizeof key);
    key.kind = STATEMENT_LIST;
    key.table = (uint8_t) query->table;
    key.order_column = (int8_t) query->order_column;
    key.is_descending = query->is_descending;
    key.is_any_tenant = is_any_tenant;
    key.has_cursor = !str_is_empty(query->cursor);
    key.filter_count = (uint8_t) query->filter_count;
    for (int i = 0; i < query->filter_count; i++) {
        key.filters[i].column = (int8_t) query->filters[i].column;
        key.filters[i].op = (uint8_t) query->filters[i].op;
    }
    return connection_statement(connection, &key, e);
}

static bool list_bind(struct connection *connection, sqlite3_stmt *statement,
                      const struct read_job *read, struct error *e)
{
    const struct query *query = read->query;
    const struct table_def *def = table_def(query->table);
    if (read->tenant_id)
        bind_uuid(connection, statement, PARAMETER_TENANT, *read->tenant_id);
    for (int i = 0; i < query->filter_count; i++)
        bind_value(connection, statement, PARAMETER_FILTER + i,
                   def->columns[query->filters[i].column].type, &query->filters[i].value);
    sqlite3_bind_int64(statement, PARAMETER_LIMIT, (int64_t) query->limit + 1);
    if (str_is_empty(query->cursor))
        return true;
    struct cursor cursor;
    if (!cursor_parse(&cursor, query, !read->tenant_id, connection->arena, e))
        return false;
    for (int i = 0; i < cursor.count; i++)
        bind_value(connection, statement, PARAMETER_CURSOR + i, cursor.columns[i].type,
                   &cursor.values[i]);
    return true;
}

static bool list_rows(struct connection *connection, sqlite3_stmt *statement, struct read_job *read,
                      struct error *e)
{
    const struct query *query = read->query;
    read->rows.items = ARENA_ARRAY(read->arena, struct record, query->limit);
    read->tenant_ids = ARENA_ARRAY(read->arena, uuid, query->limit);
    bool has_row;
    while (connection_step(connection, statement, &has_row, e)) {
        if (!has_row)
            return true;
        size_t i = read->rows.count;
        if (i == query->limit) { /* the one row more that tells of a next page */
            sqlite3_reset(statement);
            return cursor_print(query, !read->tenant_id, read->tenant_ids[i - 1],
                                &read->rows.items[i - 1], read->arena, &read->rows.next_cursor, e);
        }
        if (!column_uuid(statement, 0, &read->tenant_ids[i], e) ||
            !column_record(statement, 1, query->table, read->arena, &read->rows.items[i], e)) {
            sqlite3_reset(statement);
            return false;
        }
        read->rows.count++;
    }
    return false;
}

static bool list_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct read_job *read = CONTAINER_OF(job, struct read_job, job);
    sqlite3_stmt *statement = list_statement(&reader->connection, read->query, !read->tenant_id, e);
    return statement && list_bind(&reader->connection, statement, read, e) &&
           list_rows(&reader->connection, statement, read, e);
}

static bool verify_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct read_job *read = CONTAINER_OF(job, struct read_job, job);
    return audit_verify_rows(reader, *read->tenant_id, read->arena, &read->report, e);
}

static bool get(struct store *store, struct context *ctx, uuid tenant_id, const struct record *key,
                struct record *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct read_job read = {.job.run = get_run,
                            .job.row_count = 1,
                            .tenant_id = &tenant_id,
                            .key = key,
                            .arena = arena};
    if (!job_do(&database_of(store)->reads, ctx, &read.job, e))
        return false;
    record_copy(ctx->arena, out, read.rows.items);
    return true;
}

static void rows_give(struct arena *arena, const struct records *rows, struct records *out)
{
    *out =
        (struct records){.count = rows->count, .next_cursor = str_copy(arena, rows->next_cursor)};
    out->items = ARENA_ARRAY(arena, struct record, rows->count);
    for (size_t i = 0; i < rows->count; i++)
        record_copy(arena, &out->items[i], &rows->items[i]);
}

static bool list(struct store *store, struct context *ctx, uuid tenant_id,
                 const struct query *query, struct records *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct read_job read = {.job.run = list_run,
                            .job.row_count = 1,
                            .tenant_id = &tenant_id,
                            .query = query,
                            .arena = arena};
    if (!job_do(&database_of(store)->reads, ctx, &read.job, e))
        return false;
    rows_give(ctx->arena, &read.rows, out);
    return true;
}

static bool list_any_tenant(struct store *store, struct context *ctx, const struct query *query,
                            struct records *out, uuid **tenant_ids, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct read_job read = {
        .job.run = list_run, .job.row_count = 1, .query = query, .arena = arena};
    if (!job_do(&database_of(store)->reads, ctx, &read.job, e))
        return false;
    rows_give(ctx->arena, &read.rows, out);
    *tenant_ids = ARENA_ARRAY(ctx->arena, uuid, out->count);
    if (out->count > 0)
        memcpy(*tenant_ids, read.tenant_ids, out->count * sizeof(uuid));
    return true;
}

static bool audit_verify(struct store *store, struct context *ctx, uuid tenant_id,
                         struct audit_report *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct read_job read = {
        .job.run = verify_run, .job.row_count = 1, .tenant_id = &tenant_id, .arena = arena};
    if (!job_do(&database_of(store)->reads, ctx, &read.job, e))
        return false;
    *out = read.report;
    out->first_bad = str_copy(ctx->arena, read.report.first_bad);
    return true;
}

/* The database owns it. */
static void destroy(struct store *store)
{
    (void) store;
}

static struct store_load load(struct store *base)
{
    struct sqlite_database *database = CONTAINER_OF(base, struct sqlite_store, base)->database;
    struct store_load found = {
        .queued = (int64_t) sqlite_database_statistics(database).write_queue,
        .queue_max = STORE_QUEUE_MAX,
        .commit_us = commit_meter_us(&database->meter, clock_monotonic_ns(database->clock))};
    found.failing = commit_health_look(&database->health, &found.failing_since_us);
    return found;
}

static const struct store_ops sqlite_ops = {
    .name = "sqlite",
    .commit = commit,
    .submit = submit,
    .claim = claim,
    .get = get,
    .list = list,
    .list_any_tenant = list_any_tenant,
    .audit_verify = audit_verify,
    .destroy = destroy,
    .load = load,
};

void sqlite_store_init(struct sqlite_database *database)
{
    database->store = (struct sqlite_store){.base.ops = &sqlite_ops, .database = database};
}
