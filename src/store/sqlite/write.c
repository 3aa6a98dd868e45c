/* Rows: one write of a batch to one statement. */
#include "base/ensure.h"
#include "base/fault.h"
#include "store/check.h"
#include "store/sqlite/database_internal.h"

static struct statement_key key_of(enum statement_kind kind, const struct record *row)
{
    struct statement_key key;
    memset(&key, 0, sizeof key); /* padding counts: keys are compared bytewise */
    key.kind = (uint8_t) kind;
    key.table = (uint8_t) row->table;
    key.mask = row->has;
    key.where_column = -1;
    return key;
}

static sqlite3_stmt *bind_row(struct connection *connection, const struct statement_key *key,
                              uuid tenant_id, const struct record *row, struct error *e)
{
    sqlite3_stmt *statement = connection_statement(connection, key, e);
    if (!statement)
        return NULL;
    const struct table_def *def = table_def(row->table);
    bind_uuid(connection, statement, PARAMETER_TENANT, tenant_id);
    for (int i = 0; i < def->column_count; i++)
        if (key->mask & 1u << i)
            bind_value(connection, statement, PARAMETER_COLUMN + i, def->columns[i].type,
                       &row->values[i]);
    return statement;
}

static bool run_insert(struct job_thread *writer, uuid tenant_id, enum write_op op, uint32_t given,
                       struct error *e)
{
    static const enum statement_kind kinds[] = {
        [WRITE_INSERT] = STATEMENT_INSERT,
        [WRITE_INSERT_NEW] = STATEMENT_INSERT_NEW,
        [WRITE_UPSERT] = STATEMENT_UPSERT,
    };
    struct statement_key key = key_of(kinds[op], &writer->row);
    if (op == WRITE_UPSERT)
        key.given = given;
    sqlite3_stmt *statement = bind_row(&writer->connection, &key, tenant_id, &writer->row, e);
    if (statement && connection_run(&writer->connection, statement, e))
        return true;
    return error_wrap(e, "%s", table_def(writer->row.table)->name);
}

static bool run_update(struct job_thread *writer, uuid tenant_id, const struct write *write,
                       struct error *e)
{
    struct connection *connection = &writer->connection;
    const struct table_def *def = table_def(write->record.table);
    struct statement_key key =
        key_of(write->op == WRITE_ADD ? STATEMENT_ADD : STATEMENT_UPDATE, &write->record);
    key.where_column = (int8_t) write->where_column;
    sqlite3_stmt *statement = bind_row(connection, &key, tenant_id, &write->record, e);
    if (!statement)
        return false;
    if (write->where_column >= 0)
        bind_value(connection, statement, PARAMETER_WHERE, def->columns[write->where_column].type,
                   &write->where_value);
    if (!connection_run(connection, statement, e))
        return error_wrap(e, "%s", def->name);
    if (sqlite3_changes(connection->db) == 1)
        return true;
    if (write->where_column >= 0)
        return error_set(e, REASON_CONFLICT, "%s: %s has changed meanwhile", def->name,
                         def->columns[write->where_column].name);
    return error_set(e, REASON_NOT_FOUND, "%s: no such row", def->name);
}

static bool run_delete(struct job_thread *writer, uuid tenant_id, const struct write *write,
                       struct error *e)
{
    struct statement_key key = key_of(STATEMENT_DELETE, &write->record);
    key.mask = table_key_mask(write->record.table);
    sqlite3_stmt *statement = bind_row(&writer->connection, &key, tenant_id, &write->record, e);
    if (!statement)
        return false;
    if (connection_run(&writer->connection, statement, e))
        return true;
    if (e->reason == REASON_NOT_FOUND) /* a foreign key, seen from the parent */
        return error_set(e, REASON_CONFLICT, "%s: other rows still refer to it",
                         table_def(write->record.table)->name);
    return false;
}

bool write_record(struct job_thread *writer, uuid tenant_id, const struct write *write,
                  struct error *e)
{
    if (write->op == WRITE_DELETE)
        return run_delete(writer, tenant_id, write, e);
    if (!write_is_insert(write->op))
        return run_update(writer, tenant_id, write, e);
    writer->row = write->record;
    record_fill_defaults(&writer->row, clock_unix_us(writer->database->clock));
    return run_insert(writer, tenant_id, write->op, write->record.has, e);
}

static bool fence_holds(struct connection *connection, uuid tenant_id, const struct fence *fence,
                        struct error *e)
{
    sqlite3_stmt *statement = connection_fixed(connection, FIXED_FENCE, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, tenant_id);
    bind_uuid(connection, statement, 2, fence->session_id);
    bind_text(statement, 3, fence->node);
    sqlite3_bind_int64(statement, 4, fence->epoch);
    bool has_row;
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    sqlite3_reset(statement);
    if (FAULT("plant.two-writers")) /* a bug put in on purpose: the fence is open */
        return true;
    return has_row || error_set(e, REASON_FENCED,
                                "the session has another owner than " STR_FMT " at epoch %lld",
                                STR_ARG(fence->node), (long long) fence->epoch);
}

bool write_batch(struct job_thread *writer, const struct batch *batch, struct error *e)
{
    if (batch->fence && !fence_holds(&writer->connection, batch->tenant_id, batch->fence, e))
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        const struct write *write = &batch->writes[i];
        bool is_ok = write->record.table == TABLE_AUDIT_LOGS
                         ? audit_append(writer, batch->tenant_id, &write->record, e)
                         : write_record(writer, batch->tenant_id, write, e);
        if (!is_ok)
            return false;
    }
    return true;
}
