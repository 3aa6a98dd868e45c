/* The audit chain's rows: appending and signing on the writer, verifying on a reader. */
#include "base/ensure.h"
#include "base/map.h"
#include "store/sqlite/database_internal.h"
#include <stdlib.h>

static str head_key(const uuid *tenant_id)
{
    return str_of((const char *) tenant_id->bytes, sizeof tenant_id->bytes);
}

void audit_forget_heads(struct job_thread *writer)
{
    size_t position = 0;
    void *head;
    while (writer->audit_heads && map_next(writer->audit_heads, &position, NULL, &head))
        free(head);
    map_destroy(writer->audit_heads);
    writer->audit_heads = NULL;
    writer->has_unsealed = false;
}

/* Chain statements take (tenant, writer[, seq]). */
static sqlite3_stmt *chain_statement(struct connection *connection, enum fixed_statement fixed,
                                     uuid tenant_id, str writer, struct error *e)
{
    sqlite3_stmt *statement = connection_fixed(connection, fixed, e);
    if (!statement)
        return NULL;
    bind_uuid(connection, statement, 1, tenant_id);
    bind_text(statement, 2, writer);
    return statement;
}

static bool head_load(struct job_thread *writer, uuid tenant_id, struct audit_head *head,
                      struct error *e)
{
    struct connection *connection = &writer->connection;
    str node = str_from_cstr(writer->database->node);
    audit_head_init(head, tenant_id);
    bool has_row;
    sqlite3_stmt *statement = chain_statement(connection, FIXED_AUDIT_HEAD, tenant_id, node, e);
    if (!statement || !connection_step(connection, statement, &has_row, e))
        return false;
    if (has_row) {
        head->seq = sqlite3_column_int64(statement, 0);
        str hash = column_text(statement, 1, connection->arena);
        sqlite3_reset(statement);
        if (hash.len != sizeof head->hash)
            return error_set(e, REASON_CORRUPT, "the audit chain's newest hash is damaged");
        memcpy(head->hash, hash.ptr, hash.len);
    }
    statement = chain_statement(connection, FIXED_AUDIT_CHECKPOINT_HEAD, tenant_id, node, e);
    if (!statement || !connection_step(connection, statement, &has_row, e))
        return false;
    if (has_row)
        head->checkpoint_seq = head->sealed_seq = sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return true;
}

static bool head_of(struct job_thread *writer, uuid tenant_id, struct audit_head **out,
                    struct error *e)
{
    if (writer->audit_heads && map_count(writer->audit_heads) >= AUDIT_HEADS_MAX)
        audit_forget_heads(writer);
    if (!writer->audit_heads)
        writer->audit_heads = map_create();
    *out = map_find(writer->audit_heads, head_key(&tenant_id));
    if (*out)
        return true;
    struct audit_head loaded;
    if (!head_load(writer, tenant_id, &loaded, e))
        return false;
    *out = malloc(sizeof **out);
    ensure(*out);
    **out = loaded;
    map_put(writer->audit_heads, head_key(&tenant_id), *out);
    return true;
}

static bool head_sign(struct job_thread *writer, struct audit_head *head, struct error *e)
{
    struct sqlite_database *database = writer->database;
    struct write *write = ARENA_NEW(writer->connection.arena, struct write);
    *write = (struct write){.op = WRITE_INSERT, .where_column = -1};
    audit_chain_checkpoint(head, str_from_cstr(database->node), database->audit_private_key,
                           uuid_new(database->clock, database->random),
                           clock_unix_us(database->clock), writer->connection.arena,
                           &write->record);
    writer->has_unsealed = true;
    return write_record(writer, head->tenant_id, write, e);
}

bool audit_append(struct job_thread *writer, uuid tenant_id, const struct record *entry,
                  struct error *e)
{
    struct audit_head *head;
    if (!head_of(writer, tenant_id, &head, e))
        return false;
    struct write *write = ARENA_NEW(writer->connection.arena, struct write);
    *write = (struct write){.op = WRITE_INSERT, .where_column = -1, .record = *entry};
    record_fill_defaults(&write->record,
                         clock_unix_us(writer->database->clock)); /* the hash covers them */
    audit_chain_append(head, str_from_cstr(writer->database->node), &write->record,
                       writer->connection.arena);
    if (!write_record(writer, tenant_id, write, e))
        return false;
    return head->seq - head->checkpoint_seq < AUDIT_CHECKPOINT_ENTRIES ||
           head_sign(writer, head, e);
}

bool audit_has_unsigned(const struct job_thread *writer)
{
    size_t position = 0;
    void *value;
    while (writer->audit_heads && map_next(writer->audit_heads, &position, NULL, &value)) {
        const struct audit_head *head = value;
        if (head->seq > head->checkpoint_seq)
            return true;
    }
    return false;
}

bool audit_sign_all(struct job_thread *writer, struct error *e)
{
    size_t position = 0;
    void *value;
    while (writer->audit_heads && map_next(writer->audit_heads, &position, NULL, &value)) {
        struct audit_head *head = value;
        if (head->seq > head->checkpoint_seq && !head_sign(writer, head, e))
            return false;
    }
    return true;
}

/* ---- verifying ---- */

static sqlite3_stmt *prepare_rows(struct connection *connection, enum table table, uuid tenant_id,
                                  struct error *e)
{
    const struct table_def *def = table_def(table);
    struct strbuf sql;
    strbuf_init(&sql, connection->arena, 4096);
    strbuf_add(&sql, S("SELECT tenant_id"));
    for (int i = 0; i < def->column_count; i++)
        strbuf_printf(&sql, ", %s", def->columns[i].name);
    strbuf_printf(&sql, " FROM %s WHERE tenant_id = ?1 ORDER BY writer, seq", def->name);
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(connection->db, sql.ptr, (int) sql.len, &statement, NULL) != SQLITE_OK) {
        connection_fail(connection, e);
        return NULL;
    }
    bind_uuid(connection, statement, 1, tenant_id);
    return statement;
}

bool audit_hash_at(struct connection *connection, uuid tenant_id, const struct record *checkpoint,
                   str *out, struct error *e)
{
    sqlite3_stmt *statement = chain_statement(connection, FIXED_AUDIT_HASH_AT, tenant_id,
                                              record_text(checkpoint, AUDIT_CHECKPOINTS_WRITER), e);
    if (!statement)
        return false;
    sqlite3_bind_int64(statement, 3, record_integer(checkpoint, AUDIT_CHECKPOINTS_SEQ));
    bool has_row;
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    *out = has_row ? column_text(statement, 0, connection->arena) : STR_NONE;
    sqlite3_reset(statement);
    return true;
}

static bool walk_rows(struct job_thread *reader, struct audit_walk *walk, enum table table,
                      struct error *e)
{
    struct connection *connection = &reader->connection;
    sqlite3_stmt *statement = prepare_rows(connection, table, walk->tenant_id, e);
    if (!statement)
        return false;
    arena_mark mark = arena_save(connection->arena);
    struct record *row = ARENA_NEW(walk->arena, struct record);
    bool has_row = true, is_ok = true;
    while (is_ok && has_row) {
        arena_rewind(connection->arena, mark);
        is_ok = connection_step(connection, statement, &has_row, e);
        if (!is_ok || !has_row)
            break;
        str hash = STR_NONE;
        is_ok = column_record(statement, 1, table, connection->arena, row, e);
        if (is_ok && table == TABLE_AUDIT_LOGS)
            audit_walk_entry(walk, row);
        else if (is_ok && audit_hash_at(connection, walk->tenant_id, row, &hash, e))
            audit_walk_checkpoint(walk, row, hash);
        else
            is_ok = false;
    }
    sqlite3_finalize(statement);
    return is_ok;
}

bool audit_verify_rows(struct job_thread *reader, uuid tenant_id, struct arena *arena,
                       struct audit_report *out, struct error *e)
{
    struct connection *connection = &reader->connection;
    struct audit_walk walk;
    audit_walk_init(&walk, tenant_id, reader->database->audit_public_key, arena, connection->arena);
    /* One transaction: both tables are seen at one instant. */
    if (!connection_run_fixed(connection, FIXED_BEGIN_READ, e))
        return false;
    bool is_ok = walk_rows(reader, &walk, TABLE_AUDIT_LOGS, e) &&
                 walk_rows(reader, &walk, TABLE_AUDIT_CHECKPOINTS, e) &&
                 seals_verify(reader, &walk, e);
    struct error ignored;
    if (!connection_run_fixed(connection, FIXED_COMMIT, is_ok ? e : &ignored))
        is_ok = false;
    *out = walk.report;
    return is_ok;
}
