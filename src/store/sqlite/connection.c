#include "store/sqlite/connection_internal.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include <errno.h>

static const char *const fixed_statements[] = {
#define FIXED(name, sql) [FIXED_##name] = sql,
#include "store/sqlite/fixed.def"
#undef FIXED
};

/* exact_add(a, b): SQLite's own + turns an overflow into a float. */
static void exact_add(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void) count;
    int64_t sum;
    if (__builtin_add_overflow((int64_t) sqlite3_value_int64(values[0]),
                               (int64_t) sqlite3_value_int64(values[1]), &sum))
        sqlite3_result_error_code(context, SQLITE_RANGE);
    else
        sqlite3_result_int64(context, sum);
}

static bool set_cache(sqlite3 *db, size_t bytes)
{
    char text[64];
    snprintf(text, sizeof text, "PRAGMA cache_size=-%zu", bytes / 1024);
    return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK;
}

static bool set_checkpoint(sqlite3 *db, int pages)
{
    char text[64];
    snprintf(text, sizeof text, "PRAGMA wal_autocheckpoint=%d", pages);
    return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK;
}

bool connection_open(struct connection *connection, const struct connection_options *options,
                     struct error *e)
{
    *connection = (struct connection){.arena = arena_create(0), .is_warm = true};
    char *file = str_to_cstr(connection->arena, options->path);
    int flags =
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    bool is_open =
        sqlite3_open_v2(file, &connection->db, flags, options->vfs) == SQLITE_OK &&
        sqlite3_busy_timeout(connection->db, 5000) == SQLITE_OK &&
        sqlite3_create_function(connection->db, "exact_add", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                NULL, exact_add, NULL, NULL) == SQLITE_OK &&
        sqlite3_exec(connection->db,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
                     "PRAGMA temp_store=MEMORY;"
                     "PRAGMA journal_size_limit=67108864",
                     NULL, NULL, NULL) == SQLITE_OK &&
        set_cache(connection->db, options->cache_bytes) &&
        set_checkpoint(connection->db, options->checkpoint_pages) &&
        (!options->is_reader ||
         sqlite3_exec(connection->db, "PRAGMA query_only=ON", NULL, NULL, NULL) == SQLITE_OK);
    if (is_open)
        return true;
    connection_fail(connection, e);
    connection_close(connection);
    return error_wrap(e, "open " STR_FMT, STR_ARG(options->path));
}

static void statements_forget(struct connection *connection)
{
    for (size_t i = 0; i < ARRAY_COUNT(connection->slots); i++)
        sqlite3_finalize(connection->slots[i].statement);
    memset(connection->slots, 0, sizeof connection->slots);
    connection->slot_count = 0;
}

void connection_close(struct connection *connection)
{
    statements_forget(connection);
    sqlite3_close(connection->db);
    arena_destroy(connection->arena);
    *connection = (struct connection){0};
}

void connection_start_job(struct connection *connection)
{
    arena_reset(connection->arena);
    connection->is_broken = false;
    if (connection->slot_count >= STORE_STATEMENTS_MAX)
        statements_forget(connection);
}

bool connection_rest(struct connection *connection, int64_t now_ns, bool had_job)
{
    connection->job_count += had_job;
    connection->is_warm = connection->is_warm || had_job;
    if (now_ns - connection->counted_ns < STORE_REST_MS * INT64_C(1000000))
        return false;
    bool is_quiet = connection->is_warm && connection->job_count <= STORE_REST_JOBS;
    connection->counted_ns = now_ns;
    connection->job_count = 0;
    if (!is_quiet)
        return false;
    connection->is_warm = false;
    sqlite3_db_release_memory(connection->db);
    return true;
}

int connection_rest_ms(const struct connection *connection)
{
    return connection->is_warm ? STORE_REST_MS : -1;
}

static bool is_no_room(int failure)
{
    return failure == ENOSPC || failure == EDQUOT || failure == EFBIG;
}

/* What the rollback does afterwards may hide the system's error; the file that it befell keeps it. */
static bool has_file_without_room(sqlite3 *db)
{
    static const int files[] = {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER};
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        sqlite3_file *file = NULL;
        int failure = 0;
        if (sqlite3_file_control(db, "main", files[i], (void *) &file) == SQLITE_OK && file &&
            file->pMethods &&
            file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &failure) == SQLITE_OK &&
            is_no_room(failure))
            return true;
    }
    return false;
}

static bool is_disk_full(const struct connection *connection, int code)
{
    if (code != SQLITE_IOERR)
        return code == SQLITE_FULL;
    return is_no_room(sqlite3_system_errno(connection->db)) ||
           has_file_without_room(connection->db);
}

bool connection_fail(struct connection *connection, struct error *e)
{
    int extended = connection->db ? sqlite3_extended_errcode(connection->db) : SQLITE_NOMEM;
    int code = extended & 0xff;
    const char *message = connection->db ? sqlite3_errmsg(connection->db) : "out of memory";
    if (extended == SQLITE_CONSTRAINT_PRIMARYKEY || extended == SQLITE_CONSTRAINT_UNIQUE)
        return error_set(e, REASON_CONFLICT, "there is such a row: %s", message);
    if (extended == SQLITE_CONSTRAINT_FOREIGNKEY)
        return error_set(e, REASON_NOT_FOUND, "the row it refers to does not exist");
    if (code == SQLITE_CONSTRAINT || code == SQLITE_MISMATCH)
        return error_set(e, REASON_INVALID, "%s", message);
    if (code == SQLITE_RANGE)
        return error_set(e, REASON_LIMIT, "a counter would overflow");
    if (code == SQLITE_TOOBIG)
        return error_set(e, REASON_TOO_LARGE, "the row is too large");
    connection->is_broken = true;
    if (is_disk_full(connection, code))
        return error_set(e, REASON_DISK_FULL,
                         "the disk is full: free some space, nothing was stored");
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        return error_set(e, REASON_CORRUPT, "the database file is damaged (%s): restore a backup",
                         message);
    return error_set(e, REASON_STORE, "SQLite: %s (%d)", message, extended);
}

static sqlite3_stmt *prepare(struct connection *connection, const struct statement_key *key,
                             struct error *e)
{
    struct strbuf sql;
    strbuf_init(&sql, connection->arena, 8192);
    if (key->kind == STATEMENT_FIXED)
        strbuf_add(&sql, str_from_cstr(fixed_statements[key->table]));
    else
        statement_sql(key, &sql);
    ensure(!strbuf_is_over(&sql));
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(connection->db, sql.ptr, (int) sql.len, SQLITE_PREPARE_PERSISTENT,
                           &statement, NULL) == SQLITE_OK)
        return statement;
    connection_fail(connection, e);
    return NULL;
}

sqlite3_stmt *connection_statement(struct connection *connection, const struct statement_key *key,
                                   struct error *e)
{
    size_t mask = ARRAY_COUNT(connection->slots) - 1;
    size_t i = str_hash(str_of((const char *) key, sizeof *key), 0) & mask;
    while (connection->slots[i].statement &&
           memcmp(&connection->slots[i].key, key, sizeof *key) != 0)
        i = (i + 1) & mask;
    struct statement_slot *slot = &connection->slots[i];
    if (!slot->statement) {
        slot->statement = prepare(connection, key, e);
        if (!slot->statement)
            return NULL;
        slot->key = *key;
        connection->slot_count++;
    }
    return slot->statement;
}

sqlite3_stmt *connection_fixed(struct connection *connection, enum fixed_statement fixed,
                               struct error *e)
{
    struct statement_key key;
    memset(&key, 0, sizeof key);
    key.kind = STATEMENT_FIXED;
    key.table = (uint8_t) fixed;
    return connection_statement(connection, &key, e);
}

bool connection_step(struct connection *connection, sqlite3_stmt *statement, bool *has_row,
                     struct error *e)
{
    int code = sqlite3_step(statement);
    *has_row = code == SQLITE_ROW;
    if (code == SQLITE_ROW)
        return true;
    /* The error is read before the reset: a rollback may come between. */
    bool is_ok = code == SQLITE_DONE || connection_fail(connection, e);
    sqlite3_reset(statement);
    return is_ok;
}

bool connection_run(struct connection *connection, sqlite3_stmt *statement, struct error *e)
{
    bool has_row;
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    ensure(!has_row);
    return true;
}

bool connection_run_fixed(struct connection *connection, enum fixed_statement fixed,
                          struct error *e)
{
    sqlite3_stmt *statement = connection_fixed(connection, fixed, e);
    return statement && connection_run(connection, statement, e);
}

void bind_text(sqlite3_stmt *statement, int parameter, str text)
{
    /* A NULL pointer would bind null. */
    sqlite3_bind_text64(statement, parameter, text.ptr ? text.ptr : "", text.len, SQLITE_STATIC,
                        SQLITE_UTF8);
}

void bind_uuid(struct connection *connection, sqlite3_stmt *statement, int parameter, uuid id)
{
    char *text = arena_alloc(connection->arena, UUID_TEXT_BYTES + 1);
    uuid_format(id, text);
    bind_text(statement, parameter, str_of(text, UUID_TEXT_BYTES));
}

void bind_value(struct connection *connection, sqlite3_stmt *statement, int parameter,
                enum column_type type, const struct value *value)
{
    if (value->is_null)
        sqlite3_bind_null(statement, parameter);
    else if (column_is_integer(type))
        sqlite3_bind_int64(statement, parameter, value->integer);
    else if (type == COLUMN_UUID)
        bind_uuid(connection, statement, parameter, value->id);
    else if (type == COLUMN_BLOB)
        sqlite3_bind_blob64(statement, parameter, value->text.ptr ? value->text.ptr : "",
                            value->text.len, SQLITE_STATIC);
    else
        bind_text(statement, parameter, value->text);
}

str column_text(sqlite3_stmt *statement, int index, struct arena *arena)
{
    const char *bytes =
        sqlite3_column_blob(statement, index); /* a text's blob is its bytes, NULs included */
    int len = sqlite3_column_bytes(statement, index);
    return len > 0 ? str_copy(arena, str_of(bytes, (size_t) len)) : S("");
}

bool column_uuid(sqlite3_stmt *statement, int index, uuid *out, struct error *e)
{
    const char *text = (const char *) sqlite3_column_text(statement, index);
    if (text && uuid_parse(str_of(text, (size_t) sqlite3_column_bytes(statement, index)), out))
        return true;
    return error_set(e, REASON_CORRUPT,
                     "a stored id is no uuid: the database was changed by another program");
}

bool column_record(sqlite3_stmt *statement, int first, enum table table, struct arena *arena,
                   struct record *out, struct error *e)
{
    const struct table_def *def = table_def(table);
    *out = (struct record){.table = table};
    for (int i = 0; i < def->column_count; i++) {
        int index = first + i;
        enum column_type type = def->columns[i].type;
        out->has |= 1u << i;
        if (sqlite3_column_type(statement, index) == SQLITE_NULL)
            out->values[i].is_null = true;
        else if (column_is_integer(type))
            out->values[i].integer = sqlite3_column_int64(statement, index);
        else if (type != COLUMN_UUID)
            out->values[i].text = column_text(statement, index, arena);
        else if (!column_uuid(statement, index, &out->values[i].id, e))
            return false;
    }
    return true;
}
