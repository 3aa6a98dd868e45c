/*
 * Connection: one SQLite handle with its cache of prepared statements and a scratch arena.
 * Belongs to one thread.
 *
 * SQL for the tables of tables.def is made on demand from a statement_key (what is done to which
 * table with which columns) and prepared once per connection.  The set of keys that the program
 * can make is small; past STORE_STATEMENTS_MAX the cache starts anew at the next job.
 *
 * Parameters are numbered alike everywhere, so binding needs no table:
 *     ?1 tenant_id     ?(2 + column) a column's value     ?PARAMETER_WHERE the value of a
 * conditional update
 *     lists: ?PARAMETER_FILTER + i, ?PARAMETER_CURSOR + i, ?PARAMETER_LIMIT
 */
#ifndef NEXUS_STORE_SQLITE_CONNECTION_INTERNAL_H
#define NEXUS_STORE_SQLITE_CONNECTION_INTERNAL_H

#include "base/arena.h"
#include "store/cursor.h"
#include "store/store.h"
#include <sqlite3.h>

enum statement_kind {
    STATEMENT_NONE,
    STATEMENT_INSERT, /* `given` tells what an upsert overwrites */
    STATEMENT_INSERT_NEW,
    STATEMENT_UPSERT,
    STATEMENT_UPDATE,
    STATEMENT_ADD,
    STATEMENT_DELETE,
    STATEMENT_GET,
    STATEMENT_LIST,
    STATEMENT_FIXED, /* text of fixed_statements */
};
enum fixed_statement {
#define FIXED(name, sql) FIXED_##name,
#include "store/sqlite/fixed.def"
#undef FIXED
    FIXED_COUNT
};
enum { FILTERS_MAX = 6 };
struct statement_key {
    uint8_t kind;
    uint8_t table; /* or the fixed statement */
    int8_t where_column;
    int8_t order_column;
    uint8_t is_descending, has_cursor, is_any_tenant, filter_count;
    uint32_t mask;  /* columns written */
    uint32_t given; /* UPSERT: those of them that overwrite */
    struct {
        int8_t column;
        uint8_t op;
    } filters[FILTERS_MAX];
};
enum {
    PARAMETER_TENANT = 1,
    PARAMETER_COLUMN = 2,
    PARAMETER_WHERE = PARAMETER_COLUMN + RECORD_COLUMNS_MAX,
    PARAMETER_FILTER = PARAMETER_COLUMN,
    PARAMETER_CURSOR = PARAMETER_FILTER + FILTERS_MAX,
    PARAMETER_LIMIT = PARAMETER_CURSOR + CURSOR_VALUES_MAX,
};

struct statement_slot {
    struct statement_key key;
    sqlite3_stmt *statement;
};
struct connection {
    sqlite3 *db;
    struct arena *arena; /* scratch of one job */
    /* Open addressing: STORE_STATEMENTS_MAX and what one job may add. */
    struct statement_slot slots[2048];
    int slot_count;
    /* How much there was to do since then, and whether anything was read since the cache was emptied
       (by a migration too). */
    int64_t counted_ns;
    size_t job_count;
    bool is_warm;
    /* The last failure was the disk's or the file's, not the caller's: the transaction is lost. */
    bool is_broken;
};

struct connection_options {
    str path;
    const char *vfs; /* NULL: the system's */
    size_t cache_bytes;
    int checkpoint_pages;
    bool is_reader;
};
must_check bool connection_open(struct connection *connection,
                                const struct connection_options *options, struct error *e);
void connection_close(struct connection *connection); /* harmless on a zeroed one */

/*
 * Between two pieces of work: the scratch arena is emptied, is_broken cleared, too large a cache
 * forgotten.
 */
void connection_start_job(struct connection *connection);

/*
 * After each job, and from time to time without one: a connection that has little to do gives the memory of its page cache back (the
 * kernel has the pages still).  True: it did.
 */
bool connection_rest(struct connection *connection, int64_t now_ns, bool had_job);
/* How long to wait for the next job before that is looked at again; -1: as long as it takes. */
int connection_rest_ms(const struct connection *connection);

/* The prepared statement, reset and ready to bind; NULL with e set.  It stays the connection's. */
sqlite3_stmt *connection_statement(struct connection *connection, const struct statement_key *key,
                                   struct error *e);
sqlite3_stmt *connection_fixed(struct connection *connection, enum fixed_statement fixed,
                               struct error *e);
void statement_sql(const struct statement_key *key, struct strbuf *out);

/* Steps a statement that gives no rows and resets it. */
must_check bool connection_run(struct connection *connection, sqlite3_stmt *statement,
                               struct error *e);
must_check bool connection_run_fixed(struct connection *connection, enum fixed_statement fixed,
                                     struct error *e);
/* One row: true and *has_row; the caller reads the columns and resets. */
must_check bool connection_step(struct connection *connection, sqlite3_stmt *statement,
                                bool *has_row, struct error *e);
/*
 * SQLite's last failure as an error; sets is_broken when it was no fault of the caller. Returns
 * false.
 */
bool connection_fail(struct connection *connection, struct error *e);

/*
 * Texts are borrowed until the statement is stepped and reset; uuids are printed on the
 * connection's arena.
 */
void bind_uuid(struct connection *connection, sqlite3_stmt *statement, int parameter, uuid id);
void bind_text(sqlite3_stmt *statement, int parameter, str text);
void bind_value(struct connection *connection, sqlite3_stmt *statement, int parameter,
                enum column_type type, const struct value *value);
/* Texts are copied to the arena. */
str column_text(sqlite3_stmt *statement, int index, struct arena *arena);
must_check bool column_uuid(sqlite3_stmt *statement, int index, uuid *out, struct error *e);
/* A whole row of a table from result column `first` on. */
must_check bool column_record(sqlite3_stmt *statement, int first, enum table table,
                              struct arena *arena, struct record *out, struct error *e);

#endif
