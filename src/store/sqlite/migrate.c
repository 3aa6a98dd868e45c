#include "base/digest.h"
#include "base/fault.h"
#include "store/sqlite/schema_internal.h"
#include "store_migrations.h" /* made from migrations/ by the build */

static bool run_sql(struct connection *connection, str sql, struct error *e)
{
    char *text = str_to_cstr(connection->arena, sql);
    return sqlite3_exec(connection->db, text, NULL, NULL, NULL) == SQLITE_OK ||
           connection_fail(connection, e);
}

static bool prepare_once(struct connection *connection, const char *sql, sqlite3_stmt **out,
                         struct error *e)
{
    return sqlite3_prepare_v2(connection->db, sql, -1, out, NULL) == SQLITE_OK ||
           connection_fail(connection, e);
}

/* Newest applied version; 0 for an empty file. */
static bool read_version(struct connection *connection, int *version, struct error *e)
{
    if (!run_sql(connection,
                 S("CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, "
                   "name TEXT NOT NULL,"
                   " checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)"),
                 e))
        return false;
    sqlite3_stmt *statement;
    if (!prepare_once(connection, "SELECT coalesce(max(version), 0) FROM schema_migrations",
                      &statement, e))
        return false;
    bool has_row;
    bool is_ok = connection_step(connection, statement, &has_row, e);
    if (is_ok && has_row)
        *version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return is_ok;
}

static bool check_applied(struct connection *connection, const struct migration *migration,
                          struct error *e)
{
    sqlite3_stmt *statement;
    if (!prepare_once(connection, "SELECT checksum FROM schema_migrations WHERE version = ?1",
                      &statement, e))
        return false;
    sqlite3_bind_int(statement, 1, migration->version);
    bool has_row;
    bool is_ok = connection_step(connection, statement, &has_row, e);
    if (is_ok) {
        str expected = digest_hex(connection->arena, digest_sha256(migration->sql));
        if (!has_row || !str_equal(column_text(statement, 0, connection->arena), expected))
            is_ok = error_set(e, REASON_CORRUPT,
                              "migration %04d was applied in another form than this program has it",
                              migration->version);
    }
    sqlite3_finalize(statement);
    return is_ok;
}

static bool remember(struct connection *connection, const struct migration *migration,
                     int64_t now_us, struct error *e)
{
    sqlite3_stmt *statement;
    if (!prepare_once(connection, "INSERT INTO schema_migrations VALUES (?1, ?2, ?3, ?4)",
                      &statement, e))
        return false;
    sqlite3_bind_int(statement, 1, migration->version);
    bind_text(statement, 2, str_from_cstr(migration->name));
    bind_text(statement, 3, digest_hex(connection->arena, digest_sha256(migration->sql)));
    sqlite3_bind_int64(statement, 4, now_us);
    bool is_ok = connection_run(connection, statement, e);
    sqlite3_finalize(statement);
    return is_ok;
}

static bool commit(struct connection *connection, struct error *e)
{
    (void) FAULT("migration.before");
    bool is_ok = run_sql(connection, S("COMMIT"), e);
    (void) FAULT("migration.after");
    return is_ok;
}

static bool apply(struct connection *connection, const struct migration *migration, int64_t now_us,
                  struct error *e)
{
    if (run_sql(connection, S("BEGIN IMMEDIATE"), e) && run_sql(connection, migration->sql, e) &&
        remember(connection, migration, now_us, e) && commit(connection, e))
        return true;
    sqlite3_exec(connection->db, "ROLLBACK", NULL, NULL, NULL);
    return error_wrap(e, "migration %04d_%s", migration->version, migration->name);
}

int schema_version(void)
{
    return migrations[ARRAY_COUNT(migrations) - 1].version;
}

bool schema_migrate(struct connection *connection, int64_t now_us, bool *is_new, struct error *e)
{
    int version = 0;
    if (!read_version(connection, &version, e))
        return false;
    if (version > schema_version())
        return error_set(e, REASON_CONFIG,
                         "the database has schema %d, this program knows %d: use a newer program",
                         version, schema_version());
    *is_new = version == 0;
    for (size_t i = 0; i < ARRAY_COUNT(migrations); i++) {
        bool is_applied = migrations[i].version <= version;
        if (is_applied ? !check_applied(connection, &migrations[i], e)
                       : !apply(connection, &migrations[i], now_us, e))
            return false;
    }
    return true;
}
